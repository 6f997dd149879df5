//! Pieces of `ovs-ofctl`'s text syntax: `key=value` lists, numbers, and their error texts.

use ib_base::vlog::module::SOCKET_UTIL;
use ib_base::vlog_err;
use ib_packet::{Be32, Mac};

/// Takes the next `key`, `key:value`, `key=value` or `key(value)` off the front of `s`. A value after `:` or `=` ends
/// at a comma or space outside of parentheses; one in parentheses ends where they close, unless `->` follows, in
/// which case it goes on to the comma or space.
pub fn next_key_value<'a>(s: &mut &'a str) -> Option<(&'a str, &'a str)> {
    const DELIMS: &[char] = &[',', ' ', '\t', '\r', '\n'];
    let t = s.trim_start_matches(DELIMS);
    if t.is_empty() {
        *s = t;
        return None;
    }
    let key_len = t.find([':', '=', '(', ',', ' ', '\t', '\r', '\n']).unwrap_or(t.len());
    let key = &t[..key_len];
    let Some(delim) = t[key_len..].chars().next() else {
        *s = "";
        return Some((key, ""));
    };
    let rest = &t[key_len + 1..];
    let (mut len, paren) = match delim {
        ':' | '=' => (value_len(rest, DELIMS), false),
        '(' => (value_len(rest, &[')']), true),
        _ => {
            *s = rest;
            return Some((key, ""));
        }
    };
    if paren && rest[len..].starts_with(")->") {
        len += value_len(&rest[len..], DELIMS);
    }
    let value = &rest[..len];
    *s = rest.get(len + 1..).unwrap_or("");
    Some((key, value))
}

/// Bytes before the first of `delims` that is outside of parentheses.
fn value_len(s: &str, delims: &[char]) -> usize {
    let mut level = 0usize;
    for (i, c) in s.char_indices() {
        if level == 0 && delims.contains(&c) {
            return i;
        }
        match c {
            '(' => level += 1,
            ')' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    s.len()
}

/// All `key`, `value` pairs of `s`.
pub fn key_values(s: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut s = s;
    std::iter::from_fn(move || next_key_value(&mut s))
}

/// A number as C's `strtoll` with base 0 reads it, all of the text.
pub fn c_integer(s: &str) -> Option<i128> {
    let t = s.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, t) = match t.as_bytes().first()? {
        b'-' => (true, &t[1..]),
        b'+' => (false, &t[1..]),
        _ => (false, t),
    };
    let (radix, digits) = match t.as_bytes() {
        [b'0', b'x' | b'X', rest @ ..] if !rest.is_empty() => (16, &t[2..]),
        [b'0', _, ..] => (8, &t[1..]),
        _ => (10, t),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let v = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -v } else { v })
}

/// A number as C's `atoi` reads it: leading digits, else 0.
pub fn atoi(s: &str) -> i64 {
    let t = s.trim_start();
    let (sign, t) = match t.strip_prefix('-') {
        Some(t) => (-1, t),
        None => (1, t.strip_prefix('+').unwrap_or(t)),
    };
    let end = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
    // What does not fit is the farthest number of that side.
    let n = t[..end].bytes().fold(0i64, |n, d| n.saturating_mul(10).saturating_add((d - b'0').into()));
    if sign < 0 && n == i64::MAX { i64::MIN } else { sign * n }
}

/// A number at the start of a text as C's `scanf` takes it, and what follows: white space, a sign, digits of base 10,
/// or of C's own choice if `any_base`. It wraps at 64 bits.
pub fn scan_number(s: &str, any_base: bool) -> Option<(u64, &str)> {
    let t = s.trim_start();
    let (negative, t) = match t.strip_prefix('-') {
        Some(t) => (true, t),
        None => (false, t.strip_prefix('+').unwrap_or(t)),
    };
    let (radix, digits) = match t.as_bytes() {
        [b'0', b'x' | b'X', d, ..] if any_base && d.is_ascii_hexdigit() => (16, &t[2..]),
        [b'0', ..] if any_base => (8, t),
        _ => (10, t),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let n = digits[..end]
        .chars()
        .fold(0u64, |n, c| n.wrapping_mul(radix.into()).wrapping_add(c.to_digit(radix).unwrap_or(0).into()));
    Some((if negative { n.wrapping_neg() } else { n }, &digits[end..]))
}

/// A number of 8 bits called `name` in the error.
pub fn u8_arg(s: &str, name: &str) -> Result<u8, String> {
    c_integer(s).and_then(|v| v.try_into().ok()).ok_or_else(|| format!("invalid {name} \"{s}\""))
}

/// A number of 16 bits called `name` in the error.
pub fn u16_arg(s: &str, name: &str) -> Result<u16, String> {
    c_integer(s).and_then(|v| v.try_into().ok()).ok_or_else(|| format!("invalid {name} \"{s}\""))
}

/// A number of 32 bits.
pub fn u32_arg(s: &str) -> Result<u32, String> {
    if s.is_empty() {
        return Err("missing required numeric argument".into());
    }
    match c_integer(s) {
        // Like strtoul on a machine of 64 bits, cut to 32.
        Some(v) if (-(1i128 << 63)..1 << 64).contains(&v) => Ok(v as u32),
        _ => Err(format!("invalid numeric format {s}")),
    }
}

/// A number of 64 bits.
pub fn u64_arg(s: &str) -> Result<u64, String> {
    if s.is_empty() {
        return Err("missing required numeric argument".into());
    }
    match c_integer(s) {
        Some(v) if (-(1i128 << 63)..1 << 64).contains(&v) => Ok(v as u64),
        _ => Err(format!("invalid numeric format {s}")),
    }
}

/// An Ethernet address; what follows it is passed over.
pub fn mac_arg(s: &str) -> Result<Mac, String> {
    ib_flow::text::scan_mac(s).map(|(mac, _)| mac).ok_or_else(|| format!("invalid mac address {s}"))
}

/// An IPv4 address.
pub fn ip_arg(s: &str) -> Result<Be32, String> {
    s.parse::<std::net::Ipv4Addr>().map(|a| Be32::new(a.into())).map_err(|_| {
        vlog_err!(SOCKET_UTIL, "\"{s}\" is not a valid IP address");
        format!("{s}: could not convert to IP address")
    })
}

/// Splits at commas and spaces, as C's `strtok` does: no empty pieces.
pub fn tokens<'a>(s: &'a str, delims: &'a [char]) -> impl Iterator<Item = &'a str> {
    s.split(delims).filter(|t| !t.is_empty())
}

/// Bytes in hexadecimal, two digits each, dots and spaces between them as one likes. Returns what follows.
pub fn hex_bytes(s: &str) -> (Vec<u8>, &str) {
    let mut out = Vec::new();
    let mut t = s;
    loop {
        t = t.trim_start_matches([' ', '\t', '\r', '\n', '.']);
        let Some(pair) = t.get(..2).filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit())) else {
            return (out, t);
        };
        out.push(u8::from_str_radix(pair, 16).unwrap_or(0));
        t = &t[2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_value_lists() {
        let all = |s: &'static str| key_values(s).collect::<Vec<_>>();
        assert_eq!(all("output:1,2 drop"), [("output", "1"), ("2", ""), ("drop", "")]);
        assert_eq!(all("ct(commit,nat(src=1)),x"), [("ct", "commit,nat(src=1)"), ("x", "")]);
        assert_eq!(all("a(1)->b[0],c"), [("a", "1)->b[0]"), ("c", "")]);
        assert_eq!(all("a:f(x,y),b"), [("a", "f(x,y)"), ("b", "")]);
        assert_eq!(all("a(b"), [("a", "b")]);
        assert_eq!(all(" ,, "), []);
    }

    #[test]
    fn numbers() {
        assert_eq!(c_integer("0x1f"), Some(31));
        assert_eq!(c_integer("010"), Some(8));
        assert_eq!(c_integer("0"), Some(0));
        assert_eq!(c_integer("09"), None);
        assert_eq!(c_integer("-1"), Some(-1));
        assert_eq!(u8_arg("256", "ttl"), Err("invalid ttl \"256\"".into()));
        assert_eq!(u32_arg(""), Err("missing required numeric argument".into()));
        assert_eq!(u32_arg("x"), Err("invalid numeric format x".into()));
        assert_eq!(mac_arg("0:1:2:3:4:5"), Ok(Mac([0, 1, 2, 3, 4, 5])));
        assert_eq!(scan_number(" 0x10,", true), Some((16, ",")));
        assert_eq!(scan_number("0x10", false), Some((0, "x10")));
        assert_eq!((atoi("12x"), atoi("-3"), atoi("0x5")), (12, -3, 0));
    }
}
