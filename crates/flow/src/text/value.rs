//! Texts of single values: numbers, addresses, flags, ports; printing and parsing.
//!
//! [`format_value`] and [`parse_value`] serve `set_field`, matches and traces; the scalar helpers are
//! public because datapath keys print the same addresses and flags. Parsers accept what the C library's
//! scanners accept, because scripts rely on it; errors are the sentences that users know.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ib_base::vlog::module::OFP_PORT;
use ib_base::{vlog_warn, vlog_warn_rl};
use ib_packet::{Be32, Be128, Mac};

use crate::fields::{Field, FieldValue, Format, port_from_of11, port_to_of11};
use crate::key::Flow;
use crate::port::{OfPort, PortMap};

/// Names of TCP flags, least significant first.
pub const TCP_FLAGS: &[&str] =
    &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
/// Names of connection states, least significant first.
pub const CT_STATES: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// Names of tunnel flags that OpenFlow can match, least significant first.
pub const TUN_FLAGS: &[&str] = &["oam"];
/// Names of all tunnel flags, least significant first.
pub const TUN_FLAGS_ALL: &[&str] = &["oam", "df", "csum", "key"];

/// A number in hexadecimal with `0x`, without leading zeros; `0` for zero.
pub fn hex(v: &FieldValue) -> String {
    let mut digits = String::new();
    for b in v.bytes(v.significant_bytes()) {
        let _ = write!(digits, "{b:02x}");
    }
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        d => format!("0x{d}"),
    }
}

/// `printf`'s `%#x`: zero has no prefix.
pub struct Alt(pub u128);

impl std::fmt::Display for Alt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

/// `a.b.c.d`, `a.b.c.d/len` or `a.b.c.d/mask`; nothing about the mask if it is exact.
pub fn format_ip_masked(addr: Be32, mask: Be32, out: &mut String) {
    let _ = write!(out, "{}", Ipv4Addr::from(addr));
    let m = mask.get();
    if m != u32::MAX {
        let _ = if m.leading_ones() + m.trailing_zeros() >= 32 {
            write!(out, "/{}", m.leading_ones())
        } else {
            write!(out, "/{}", Ipv4Addr::from(mask))
        };
    }
}

/// Appends an IPv6 address. Like C's `inet_ntop`, unlike the standard library, it writes the old form of an embedded
/// IPv4 address, of 96 zero bits in front, with dots.
pub fn put_ipv6(addr: u128, out: &mut String) {
    let _ = match u32::try_from(addr) {
        Ok(low) if low > 0xffff => write!(out, "::{}", Ipv4Addr::from(low)),
        _ => write!(out, "{}", Ipv6Addr::from(addr)),
    };
}

/// An IPv6 address, with `/len` or `/mask` unless the mask is exact.
pub fn format_ipv6_masked(addr: Be128, mask: Be128, out: &mut String) {
    put_ipv6(addr.get(), out);
    let m = mask.get();
    if m != u128::MAX {
        let _ = if m.leading_ones() + m.trailing_zeros() >= 128 {
            write!(out, "/{}", m.leading_ones())
        } else {
            out.push('/');
            put_ipv6(m, out);
            Ok(())
        };
    }
}

/// An Ethernet address, with `/mask` unless the mask is exact.
pub fn format_mac_masked(addr: Mac, mask: Mac, out: &mut String) {
    let _ = write!(out, "{addr}");
    if mask != Mac::BROADCAST {
        let _ = write!(out, "/{mask}");
    }
}

/// Set flags by name with `|` between them; `0` if none. Bits without a name print as one number.
pub fn format_flags(flags: u64, names: &[&str], out: &mut String) {
    if flags == 0 {
        out.push('0');
        return;
    }
    let mut rest = flags;
    let start = out.len();
    for (i, name) in names.iter().enumerate() {
        if rest >> i & 1 != 0 {
            if out.len() > start {
                out.push('|');
            }
            out.push_str(name);
            rest &= !(1 << i);
        }
    }
    if rest != 0 {
        if out.len() > start {
            out.push('|');
        }
        let _ = write!(out, "{rest:#x}");
    }
}

/// Flags under a mask, as in `+syn-ack`.
pub fn format_flags_signed(flags: u64, mask: u64, names: &[&str], out: &mut String) {
    for i in 0..64 {
        if mask >> i & 1 == 0 {
            continue;
        }
        out.push(if flags >> i & 1 != 0 { '+' } else { '-' });
        match names.get(i) {
            Some(n) => out.push_str(n),
            None => {
                let _ = write!(out, "[{i}]");
            }
        }
    }
}

/// Flags with their mask: plain if it covers `full`, else signed.
pub fn format_flags_masked(flags: u64, mask: u64, full: u64, names: &[&str], out: &mut String) {
    if mask & full == full {
        format_flags(flags, names, out);
    } else {
        format_flags_signed(flags, mask, names, out);
    }
}

/// `yes`, `no`, `first`, `later`, `not_later`.
pub fn frag_name(value: u8, mask: u8) -> &'static str {
    const BOTH: u8 = Flow::FRAG_ANY | Flow::FRAG_LATER;
    match (value & BOTH, mask & BOTH) {
        (0, BOTH) => "no",
        (Flow::FRAG_ANY, BOTH) => "first",
        (BOTH, BOTH) => "later",
        (_, BOTH) => "<error>",
        (v, Flow::FRAG_ANY) => {
            if v & Flow::FRAG_ANY != 0 {
                "yes"
            } else {
                "no"
            }
        }
        (v, _) if v & Flow::FRAG_LATER != 0 => "later",
        _ => "not_later",
    }
}

fn parse_frag(s: &str) -> Option<(u8, u8)> {
    const BOTH: u8 = Flow::FRAG_ANY | Flow::FRAG_LATER;
    let all = [
        ("no", 0, 0xff),
        ("yes", Flow::FRAG_ANY, Flow::FRAG_ANY),
        ("first", Flow::FRAG_ANY, 0xff),
        ("later", BOTH, 0xff),
        ("not_later", 0, Flow::FRAG_LATER),
    ];
    all.iter().find(|a| a.0.eq_ignore_ascii_case(s)).map(|a| (a.1, a.2))
}

/// A value as `set_field` prints it; `mask` of all ones means none.
pub fn format_value(f: &Field, value: &FieldValue, mask: &FieldValue, ports: Option<&PortMap>) -> String {
    let mut out = String::new();
    let (v, m) = (value.to_u128(), mask.to_u128());
    let exact = mask.is_ones(f.n_bytes);
    if mask.is_zero(f.n_bytes) {
        return "ANY".into();
    }
    match f.format {
        Format::OfPort if exact => format_port(OfPort(v as u16), ports, &mut out),
        Format::OfPort11 if exact => match port_from_of11(v as u32) {
            Some(p) => format_port(p, ports, &mut out),
            None => {
                let _ = write!(out, "{}", v as u32);
            }
        },
        Format::Decimal | Format::OfPort | Format::OfPort11 => {
            let _ = write!(out, "{v}");
            if !exact {
                let _ = write!(out, "/{}", hex(mask));
            }
        }
        Format::Hex => {
            out = hex(value);
            if !exact {
                let _ = write!(out, "/{}", hex(mask));
            }
        }
        Format::Ethernet => format_mac_masked(Mac::from_u64(v as u64), Mac::from_u64(m as u64), &mut out),
        Format::Ipv4 => format_ip_masked(Be32::new(v as u32), Be32::new(m as u32), &mut out),
        Format::Ipv6 => format_ipv6_masked(Be128::new(v), Be128::new(m), &mut out),
        Format::Frag => out.push_str(frag_name(v as u8, m as u8)),
        // Whatever the mask.
        Format::TnlFlags => format_flags(v as u64, TUN_FLAGS, &mut out),
        Format::TcpFlags => format_flags_masked(v as u64, m as u64, 0xfff, TCP_FLAGS, &mut out),
        Format::CtState => format_flags_masked(v as u64, m as u64, 0xff, CT_STATES, &mut out),
        Format::PacketType => format_packet_type(v as u32, &mut out),
    }
    out
}

/// Namespace and type; Ethertypes (namespace 1) in hexadecimal, as in `(1,0x800)`.
pub fn format_packet_type(packet_type: u32, out: &mut String) {
    let (ns, ty) = (packet_type >> 16, packet_type & 0xffff);
    let hex_from_10 = |n: u32| if n < 10 { n.to_string() } else { format!("{n:#x}") };
    let _ = write!(out, "({},{})", hex_from_10(ns), hex_from_10(ty));
}

/// A port's name if there is a map with it, else its number.
pub fn format_port(port: OfPort, ports: Option<&PortMap>, out: &mut String) {
    if let Some(name) = port.reserved_name() {
        out.push_str(name);
    } else if let Some(name) = ports.and_then(|p| p.name(port)) {
        quote_name(name, out);
    } else {
        let _ = write!(out, "{}", port.0);
    }
}

/// A port's or table's name, in quotation marks unless it is a letter followed by letters and digits.
pub fn quote_name(name: &str, out: &mut String) {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain {
        out.push_str(name);
        return;
    }
    out.push('"');
    for c in name.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Undoes [`quote_name`]'s quotation marks; `None` if they are not balanced.
pub fn unquote_name(s: &str) -> Option<String> {
    let inner = s.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => out.push(match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                }
                c @ ('"' | '\\' | '/') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    Some(out)
}

/// A port by number, reserved name, or name in `ports`. Numbers that mean different things in different
/// OpenFlow versions are accepted with a warning in the log.
pub fn parse_port(s: &str, ports: Option<&PortMap>) -> Option<OfPort> {
    if s.starts_with('-') {
        vlog_warn!(OFP_PORT, "Negative value {s} is not a valid port number.");
        return None;
    }
    if let Some(n) = parse_u32(s) {
        return match n {
            0..0xff00 => Some(OfPort(n as u16)),
            0xff00..0xfff7 => {
                let n11 = n + 0xffff_0000;
                vlog_warn_rl!(
                    OFP_PORT,
                    (1, 5),
                    "port {n} is a reserved OF1.0 port number that will be translated to {n11} when talking to an OF1.1 or later controller"
                );
                Some(OfPort(n as u16))
            }
            0xfff7..=0xffff => {
                let port = OfPort(n as u16);
                let name = port.reserved_name().unwrap_or("");
                // Said once: who writes so does it everywhere.
                static SAID: std::sync::Once = std::sync::Once::new();
                SAID.call_once(|| {
                    vlog_warn!(
                        OFP_PORT,
                        "referring to port {name} as {n} is deprecated for compatibility with OpenFlow 1.1 and later"
                    );
                });
                Some(port)
            }
            0x1_0000..0xffff_ff00 => {
                vlog_warn_rl!(
                    OFP_PORT,
                    (1, 5),
                    "port {n} is outside the supported range 0 through ffff or 0xffffff00 through 0xffffffff"
                );
                None
            }
            _ => port_from_of11(n),
        };
    }
    if let Some(p) = OfPort::by_reserved_name(s) {
        return Some(p);
    }
    let ports = ports?;
    if s.starts_with('"') { ports.port(&unquote_name(s)?) } else { ports.port(s) }
}

/// A decimal number as C's `strtoul` with base 10 takes it, up to the end of the text.
fn parse_u32(s: &str) -> Option<u32> {
    let t = s.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = t.strip_prefix('+').unwrap_or(t);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

enum IntError {
    Syntax,
    TooLarge,
}

/// An integer at the start of a text as C's `strtoull` with base 0 takes it, or a hexadecimal number of
/// any length up to `n_bytes`; what follows it.
fn parse_int(s: &str, n_bytes: u32) -> Result<(FieldValue, &str), IntError> {
    if let Some(h) = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        let len = h.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(h.len());
        let (digits, tail) = h.split_at(len);
        let digits = digits.trim_start_matches('0');
        if digits.len() > n_bytes as usize * 2 {
            return Err(IntError::TooLarge);
        }
        let mut v = FieldValue::ZERO;
        for (i, d) in digits.bytes().rev().enumerate() {
            let nibble = char::from(d).to_digit(16).unwrap_or(0) as u64;
            v.set_bits(4 * i as u32, 4, &nibble.into());
        }
        return Ok((v, tail));
    }
    let t = s.trim_start();
    let (negative, t) = match t.strip_prefix('-') {
        Some(t) => (true, t),
        None => (false, t.strip_prefix('+').unwrap_or(t)),
    };
    let radix = if t.starts_with('0') { 8 } else { 10 };
    let len = t.find(|c: char| !c.is_digit(radix)).unwrap_or(t.len());
    if len == 0 {
        return Err(IntError::Syntax);
    }
    let v = u64::from_str_radix(&t[..len], radix).map_err(|_| IntError::TooLarge)?;
    let v = if negative { v.wrapping_neg() } else { v };
    if n_bytes < 8 && v >> (8 * n_bytes) != 0 {
        return Err(IntError::TooLarge);
    }
    Ok((v.into(), &t[len..]))
}

fn parse_integer(f: &Field, s: &str) -> Result<(FieldValue, FieldValue), String> {
    let fail = |e: IntError, what: &str| match e {
        IntError::Syntax => format!("{s}: bad syntax for {} {what}", f.name),
        IntError::TooLarge => format!("{s}: {what} too large for {}-byte field {}", f.n_bytes, f.name),
    };
    let (value, tail) = parse_int(s, f.n_bytes).map_err(|e| fail(e, "value"))?;
    let mut mask = FieldValue::ONES;
    if let Some(m) = tail.strip_prefix('/') {
        let (m, tail) = parse_int(m, f.n_bytes).map_err(|e| fail(e, "mask"))?;
        if !tail.is_empty() {
            return Err(fail(IntError::Syntax, "mask"));
        }
        mask = m;
    } else if !tail.is_empty() {
        return Err(fail(IntError::Syntax, "value"));
    }
    Ok((value, mask))
}

/// An Ethernet address at the start of a text, as `scanf` takes it, and what follows.
pub fn scan_mac(s: &str) -> Option<(Mac, &str)> {
    let mut out = [0u8; 6];
    let mut rest = s;
    for (i, b) in out.iter_mut().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(':')?;
        }
        let len = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if len == 0 {
            return None;
        }
        // Excess leading digits are cut off, as `%hhx` does.
        *b = u8::from_str_radix(&rest[len.saturating_sub(2)..len], 16).ok()?;
        rest = &rest[len..];
    }
    Some((Mac(out), rest))
}

/// An Ethernet address with optional `/mask`.
pub fn parse_mac_masked(s: &str) -> Option<(Mac, Mac)> {
    let (mac, rest) = scan_mac(s)?;
    if rest.is_empty() {
        return Some((mac, Mac::BROADCAST));
    }
    match scan_mac(rest.strip_prefix('/')?)? {
        (mask, "") => Some((mac, mask)),
        _ => None,
    }
}

/// An IPv4 address at the start of a text, as `scanf` takes it, and what follows.
pub fn scan_ip(s: &str) -> Option<(Be32, &str)> {
    let mut out = [0u8; 4];
    let mut rest = s;
    for (i, b) in out.iter_mut().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if len == 0 {
            return None;
        }
        // Excess bits are cut off, as `%hhu` does.
        *b = rest[..len].bytes().fold(0u64, |v, d| v.wrapping_mul(10).wrapping_add((d - b'0').into())) as u8;
        rest = &rest[len..];
    }
    Some((Be32::from_bytes(out), rest))
}

/// An IPv4 address with optional `/len` or `/mask`.
pub fn parse_ip_masked(s: &str) -> Result<(Be32, Be32), String> {
    let invalid = || format!("{s}: invalid IP address");
    let (addr, rest) = scan_ip(s).ok_or_else(invalid)?;
    if rest.is_empty() {
        return Ok((addr, Be32::MAX));
    }
    let m = rest.strip_prefix('/').ok_or_else(invalid)?;
    if let Some((mask, "")) = scan_ip(m) {
        return Ok((addr, mask));
    }
    let n: i64 = m.parse().map_err(|_| invalid())?;
    match n {
        0 => Ok((addr, Be32::ZERO)),
        1..=32 => Ok((addr, Be32::new(u32::MAX << (32 - n)))),
        _ => Err(format!("{s}: IPv4 network prefix bits not between 0 and 32, inclusive")),
    }
}

/// An IPv6 address with optional `/len` or `/mask`.
pub fn parse_ipv6_masked(s: &str) -> Result<(Be128, Be128), String> {
    let invalid = || format!("{s}: invalid IPv6 address");
    let (addr, mask) = match s.split_once('/') {
        Some((a, m)) => (a, Some(m)),
        None => (s, None),
    };
    let addr: Ipv6Addr = addr.parse().map_err(|_| invalid())?;
    let Some(m) = mask else { return Ok((addr.into(), Be128::MAX)) };
    // A mask that begins with a digit is taken for a length.
    let digits = m.strip_prefix(['-', '+']).unwrap_or(m);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        let mask = m.parse::<Ipv6Addr>().map_err(|_| invalid())?;
        return Ok((addr.into(), mask.into()));
    }
    let (length, rest) = m.split_at(m.len() - digits.len() + end);
    let n: i64 = length.parse().map_err(|_| invalid())?;
    if (0..=128).contains(&n) && !rest.is_empty() {
        return Err(invalid());
    }
    match n {
        0 => Ok((addr.into(), Be128::ZERO)),
        1..=128 => Ok((addr.into(), Be128::new(u128::MAX << (128 - n)))),
        _ => Err(format!("{s}: IPv6 network prefix bits not between 0 and 128, inclusive")),
    }
}

/// Flags as a number, a number with mask, names joined by `|` (exact), or `+name-name` (under a mask).
/// Returns flags and mask; the mask of exact forms is all ones. `what` names the field in errors.
pub fn parse_flags(s: &str, names: &[&str], what: &str, allowed: u64) -> Result<(u64, u64), String> {
    let unknown = |at: &str| format!("{at}: unknown {what} flag(s)");
    let bit = |name: &str| names.iter().position(|n| *n == name && allowed != 0).map(|i| 1u64 << i);
    if s.starts_with(|c: char| c.is_ascii_digit()) {
        let number = |t: &'_ str| -> Option<(u64, usize)> {
            let (v, tail) = parse_int(t, 8).ok()?;
            Some((v.to_u64(), t.len() - tail.len()))
        };
        let (flags, len) = number(s).ok_or_else(|| unknown(s))?;
        if flags & !allowed != 0 {
            return Err(unknown(s));
        }
        return match &s[len..] {
            "" => Ok((flags, u64::MAX)),
            rest => {
                let mask = rest.strip_prefix('/').and_then(number).ok_or_else(|| unknown(s))?.0;
                if mask & !allowed != 0 { Err(unknown(s)) } else { Ok((flags, mask)) }
            }
        };
    }
    if s.starts_with(['+', '-']) {
        let (mut flags, mut mask) = (0, 0);
        let mut rest = s;
        while !rest.is_empty() {
            let set = rest.starts_with('+');
            let at = &rest[1..];
            let len = at.find(['+', '-']).unwrap_or(at.len());
            let b = bit(&at[..len]).filter(|b| b & allowed != 0).ok_or_else(|| unknown(at))?;
            if mask & b != 0 {
                return Err(format!("{}: Each {what} flag can be specified only once", &at[..len]));
            }
            mask |= b;
            if set {
                flags |= b;
            }
            rest = &at[len..];
        }
        return Ok((flags, mask));
    }
    if s.contains(['+', '-']) && !s.starts_with(|c: char| !c.is_ascii_alphanumeric()) {
        return Err(format!("{s}: {what} must be preceded by '+' (for SET) or '-' (NOT SET)"));
    }
    let mut flags = 0;
    for name in s.split('|') {
        flags |= bit(name).filter(|b| b & allowed != 0).ok_or_else(|| unknown(s))?;
    }
    Ok((flags, u64::MAX))
}

fn parse_packet_type(s: &str) -> Result<u32, String> {
    let fail = |at: &str, what: &str| format!("{at}: bad syntax for packet type {what}");
    let number = |at: &str| -> Option<(u16, usize)> {
        let (v, tail) = parse_int(at, 2).ok()?;
        Some((v.to_u64() as u16, at.len() - tail.len()))
    };
    let ns_at = s.strip_prefix('(').ok_or_else(|| fail(s, "missing '('"))?;
    let (ns, n) = number(ns_at).ok_or_else(|| fail(ns_at, "ns"))?;
    let ty_at = ns_at[n..].strip_prefix(',').ok_or_else(|| fail(ns_at, "missing ','"))?;
    let (ty, n) = number(ty_at).ok_or_else(|| fail(ty_at, "ns_type"))?;
    if !ty_at[n..].starts_with(')') {
        return Err(fail(ty_at, "missing ')'"));
    }
    Ok(u32::from(ns) << 16 | u32::from(ty))
}

/// Parses a field's value with optional mask; `*` is the mask of all zeros. The error is the text that the
/// user sees.
pub fn parse_masked(f: &Field, s: &str, ports: Option<&PortMap>) -> Result<(FieldValue, FieldValue), String> {
    if s == "*" {
        return Ok((FieldValue::ZERO, FieldValue::ZERO));
    }
    let bad_port = || format!("{s}: invalid or unknown port for {}", f.name);
    let num = |v: u128| FieldValue::from_u128(v);
    let flags = |(v, m): (u64, u64)| {
        (FieldValue::from(v), if m == u64::MAX { FieldValue::ONES } else { FieldValue::from(m) })
    };
    let (value, mask) = match f.format {
        Format::Decimal | Format::Hex => parse_integer(f, s)?,
        Format::Ethernet => {
            let (v, m) = parse_mac_masked(s).ok_or_else(|| format!("{s}: invalid Ethernet address"))?;
            (num(v.to_u64().into()), widen(num(m.to_u64().into()), f))
        }
        Format::Ipv4 => {
            let (v, m) = parse_ip_masked(s)?;
            (num(v.get().into()), widen(num(m.get().into()), f))
        }
        Format::Ipv6 => {
            let (v, m) = parse_ipv6_masked(s)?;
            (num(v.get()), widen(num(m.get()), f))
        }
        Format::OfPort => (u64::from(parse_port(s, ports).ok_or_else(bad_port)?.0).into(), FieldValue::ONES),
        Format::OfPort11 => {
            let out_of_range = || format!("{s}: port value out of range for {}", f.name);
            let port = parse_port(s, ports).ok_or_else(out_of_range)?;
            (u64::from(port_to_of11(port)).into(), FieldValue::ONES)
        }
        Format::Frag => {
            let (v, m) = parse_frag(s).ok_or_else(|| {
                format!("{s}: unknown fragment type (valid types are \"no\", \"yes\", \"first\", \"later\", \"not_later\"")
            })?;
            (u64::from(v).into(), widen(u64::from(m).into(), f))
        }
        Format::TnlFlags => flags(parse_flags(s, TUN_FLAGS, "tunnel", 0x1)?),
        Format::TcpFlags => flags(parse_flags(s, TCP_FLAGS, "TCP", 0xfff)?),
        Format::CtState => flags(parse_flags(s, CT_STATES, "ct_state", 0xff)?),
        Format::PacketType => (u64::from(parse_packet_type(s)?).into(), FieldValue::ONES),
    };
    let mask = widen(mask, f);
    if !f.is_mask_valid(&mask) {
        return Err(format!("{s}: invalid mask for field {}", f.name));
    }
    Ok((value, mask))
}

/// A mask that covers the field's bytes is the exact mask.
fn widen(mask: FieldValue, f: &Field) -> FieldValue {
    if mask.is_ones(f.n_bytes) { FieldValue::ONES } else { mask }
}

/// Parses a field's value where masks make no sense.
pub fn parse_value(f: &Field, s: &str, ports: Option<&PortMap>) -> Result<FieldValue, String> {
    match parse_masked(f, s, ports)? {
        (v, m) if m.is_ones(f.n_bytes) => Ok(v),
        _ => Err(format!("{s}: wildcards not allowed here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::by_name;

    fn round(field: &str, input: &str, expect: &str) {
        let f = by_name(field).unwrap();
        let got = match parse_masked(f, input, None) {
            Ok((v, m)) => format_value(f, &v.and(&m), &m, None),
            Err(e) => e,
        };
        assert_eq!(got, expect, "{field}={input}");
    }

    #[test]
    fn tunnel_flags_are_named_whatever_the_mask() {
        round("tun_flags", "+oam", "oam");
        round("tun_flags", "-oam", "0");
        round("tun_flags", "1/1", "oam");
    }

    #[test]
    fn values() {
        round("reg0", "5", "0x5");
        round("reg0", "0", "0");
        round("reg0", "010", "0x8");
        round("reg0", "0x", "0");
        round("reg0", "0x12345678/0xffff0000", "0x12340000/0xffff0000");
        round("reg0", "*", "ANY");
        round("xxreg0", "0x0123456789abcdef0123456789abcdef", "0x123456789abcdef0123456789abcdef");
        round("metadata", "-1", "0xffffffffffffffff");
        round("tun_gbp_id", "5/7", "5/0x7");
        round("ip_src", "10.0.0.1/24", "10.0.0.0/24");
        round("ip_src", "10.0.0.1/255.0.255.0", "10.0.0.0/255.0.255.0");
        round("ip_src", "300.1.1.1", "44.1.1.1");
        round("ipv6_src", "1::/16", "1::/16");
        round("ipv6_src", "::1/ffff::", "::/16");
        round("ipv6_src", "::ffff:1.2.3.4", "::ffff:1.2.3.4");
        round("eth_dst", "00:11:22:33:44:5", "00:11:22:33:44:05");
        round("eth_dst", "00:11:22:33:44:555", "00:11:22:33:44:55");
        round("eth_dst", "01:00:00:00:00:00/01:00:00:00:00:00", "01:00:00:00:00:00/01:00:00:00:00:00");
        round("in_port", "local", "LOCAL");
        round("in_port_oxm", "LOCAL", "LOCAL");
        round("in_port", "none", "ANY");
        round("tcp_flags", "+syn-ack", "+syn-ack");
        round("tcp_flags", "0x12", "syn|ack");
        round("tcp_flags", "0x1/0x1x", "+fin");
        round("ct_state", "trk", "trk");
        round("ct_state", "0x21/0x21", "+new+trk");
        round("tun_flags", "oam", "oam");
        round("packet_type", "(1,0x800)", "(1,0x800)");
        round("ip_frag", "NO", "no");
        round("tun_metadata0", "0x5/0xff", "0x5/0xff");
    }

    #[test]
    fn errors() {
        round("reg0", "5/", "5/: bad syntax for reg0 mask");
        round("reg0", "5x", "5x: bad syntax for reg0 value");
        round("reg0", "0x1ffffffff", "0x1ffffffff: value too large for 4-byte field reg0");
        round("reg0", "5/-1", "5/-1: mask too large for 4-byte field reg0");
        round("nw_proto", "1/1", "1/1: invalid mask for field nw_proto");
        round("ip_src", "1.2.3", "1.2.3: invalid IP address");
        round("ip_src", "1.2.3.4/33", "1.2.3.4/33: IPv4 network prefix bits not between 0 and 32, inclusive");
        round("ip_src", "1.2.3.4/-1", "1.2.3.4/-1: IPv4 network prefix bits not between 0 and 32, inclusive");
        round("ip_src", "1.2.3.4/a", "1.2.3.4/a: invalid IP address");
        round("ipv6_src", "1::/129", "1::/129: IPv6 network prefix bits not between 0 and 128, inclusive");
        round("ipv6_src", "::1/64x", "::1/64x: invalid IPv6 address");
        round("eth_src", "00:11", "00:11: invalid Ethernet address");
        round("in_port", "70000", "70000: invalid or unknown port for in_port");
        round("in_port", "\"eth-x", "\"eth-x: invalid or unknown port for in_port");
        round("tcp_flags", "+foo-bar", "foo-bar: unknown TCP flag(s)");
        round("tcp_flags", "syn|foo", "syn|foo: unknown TCP flag(s)");
        round("tcp_flags", "+syn+syn", "syn: Each TCP flag can be specified only once");
        round("tcp_flags", "+", ": unknown TCP flag(s)");
        round("tcp_flags", "0x1/0xff00", "0x1/0xff00: unknown TCP flag(s)");
        round("ct_state", "0x1ff", "0x1ff: unknown ct_state flag(s)");
        round("tun_flags", "3", "3: unknown tunnel flag(s)");
        round("packet_type", "5", "5: bad syntax for packet type missing '('");
        round("packet_type", "(1)", "1): bad syntax for packet type missing ','");
        round("packet_type", "(65536,1)", "65536,1): bad syntax for packet type ns");
        round("packet_type", "(1,0x12345)", "0x12345): bad syntax for packet type ns_type");
    }

    #[test]
    fn port_names() {
        let mut ports = PortMap::default();
        ports.insert(OfPort(1), "p1");
        ports.insert(OfPort(2), "eth-0");
        ports.insert(OfPort(3), "all");
        let text = |p| {
            let mut s = String::new();
            format_port(OfPort(p), Some(&ports), &mut s);
            s
        };
        assert_eq!((text(1), text(2), text(9)), ("p1".into(), "\"eth-0\"".into(), "9".into()));
        assert_eq!(parse_port("p1", Some(&ports)), Some(OfPort(1)));
        assert_eq!(parse_port("\"eth-0\"", Some(&ports)), Some(OfPort(2)));
        assert_eq!(parse_port("all", Some(&ports)), Some(OfPort::ALL));
        assert_eq!(parse_port("\"all\"", Some(&ports)), Some(OfPort(3)));
        assert_eq!(parse_port("4294967294", None), Some(OfPort::LOCAL));
    }
}
