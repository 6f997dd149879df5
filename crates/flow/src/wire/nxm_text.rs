//! NXM and OXM entries as text: `NXM_OF_ETH_TYPE(0800), NXM_OF_IP_SRC_W(0a000000/ff000000)`.

use std::fmt::Write;

use super::nxm::{COOKIE_HEADER, COOKIE_HEADER_MASKED, Header, pull_header};
use crate::subfield::field_by_any_name;

/// Prints entries; `<any>` if there are none. Stops at the first that is cut short.
pub fn to_text(mut b: &[u8]) -> String {
    if b.is_empty() {
        return "<any>".into();
    }
    let mut out = String::new();
    while !b.is_empty() {
        let entry =
            pull_header(&mut b).ok().and_then(|h| b.split_at_checked(h.payload_len()).map(|s| (h, s)));
        let Some((h, (payload, rest))) = entry else {
            out.push_str("<invalid>");
            return out;
        };
        b = rest;
        if !out.is_empty() {
            out.push_str(", ");
        }
        format_name(h, &mut out);
        out.push('(');
        let width = if h.masked() { payload.len() / 2 } else { payload.len() };
        // Options without binding are stored at the end of a longer number, of which this prints the start.
        let hide = h.code().is_some_and(|c| c.0.is_tun_metadata());
        let mut digits = |b: &[u8]| {
            for v in b {
                let _ = write!(out, "{:02x}", if hide { 0 } else { *v });
            }
        };
        digits(&payload[..width]);
        if h.masked() {
            out.push('/');
            let mask = &payload[width..];
            for v in mask {
                let _ = write!(out, "{:02x}", if hide { 0 } else { *v });
            }
        }
        out.push(')');
    }
    out
}

fn format_name(h: Header, out: &mut String) {
    let suffix = if h.masked() { "_W" } else { "" };
    let _ = match h.code() {
        _ if h.is_cookie() => write!(out, "NXM_NX_COOKIE{suffix}"),
        Some((_, c)) => write!(out, "{}{suffix}", c.name),
        None => write!(out, "{}:{}", h.class(), h.number()),
    };
}

/// Reads entries from text. The error is the text that the user sees.
pub fn from_text(s: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = s.trim_start_matches([',', ' ']);
    if rest == "<any>" {
        return Ok(out);
    }
    while !rest.is_empty() {
        let len = rest.find('(').ok_or_else(|| format!("{s}: missing ( at end of nx_match"))?;
        let (name, after) = rest.split_at(len);
        let (mut word, experimenter, masked) =
            header(name).ok_or_else(|| format!("{s}: unknown field `{name}'"))?;
        let close = after.find(')').ok_or_else(|| format!("{s}: missing ) following field {name}"))?;
        let body = &after[1..close];
        let (value, mask) = match body.split_once('/') {
            Some((v, m)) => (v, Some(m)),
            None => (body, None),
        };
        let fixed = if name_is_variable(name) { None } else { Some(width(word, experimenter, masked)) };
        let value = bytes(value, fixed)?;
        let mut payload = value.clone();
        if masked {
            let m = mask.ok_or_else(|| format!("{s}: missing / in masked field {name}"))?;
            payload.extend(bytes(m, Some(value.len()))?);
        }
        let exp = if experimenter != 0 { 4 } else { 0 };
        word = word & !0xff | ((payload.len() + exp) as u32 & 0xff);
        out.extend_from_slice(&word.to_be_bytes());
        if experimenter != 0 {
            out.extend_from_slice(&experimenter.to_be_bytes());
        }
        out.append(&mut payload);
        rest = after[close + 1..].trim_start_matches([',', ' ']);
    }
    Ok(out)
}

fn name_is_variable(name: &str) -> bool {
    field_by_any_name(name).is_some_and(|f| f.0.is_tun_metadata())
}

fn width(word: u32, experimenter: u32, masked: bool) -> usize {
    let n = (word & 0xff) as usize - if experimenter != 0 { 4 } else { 0 };
    if masked { n / 2 } else { n }
}

/// Header word, experimenter and whether a mask follows, for a name or eight hexadecimal digits.
fn header(name: &str) -> Option<(u32, u32, bool)> {
    match name {
        "NXM_NX_COOKIE" => return Some((COOKIE_HEADER, 0, false)),
        "NXM_NX_COOKIE_W" => return Some((COOKIE_HEADER_MASKED, 0, true)),
        _ => {}
    }
    for f in crate::fields::FIELDS {
        for c in f.codes {
            let masked = name.strip_suffix("_W") == Some(c.name);
            if masked || c.name == name {
                return Some((c.header(masked, c.n_bytes), c.experimenter, masked));
            }
        }
    }
    let raw = (name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(name, 16).ok())
        .flatten()?;
    Some((raw, 0, raw & 0x100 != 0))
}

/// Pairs of hexadecimal digits with optional blanks between; `expected` is how many bytes there must be.
fn bytes(s: &str, expected: Option<usize>) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = s.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let mut out = Vec::new();
    for pair in digits.chunks_exact(2) {
        let text = std::str::from_utf8(pair).unwrap_or("");
        match u8::from_str_radix(text, 16) {
            Ok(v) if pair[0] != b'+' => out.push(v),
            _ => break,
        }
    }
    match expected {
        Some(n) if n != out.len() => Err(format!("expected to read {n} bytes but got {}", out.len())),
        _ => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::super::nxm::{DecodeOptions, decode, encode};
    use super::*;

    /// Text to entries to match to entries of a version to text.
    fn check(version: u8, input: &str, expect: &str) {
        let got = match from_text(input) {
            Err(e) => e,
            Ok(b) => match decode(&b, DecodeOptions::default(), None) {
                Err(e) => format!("{e:?}"),
                Ok(m) => {
                    let mut out = Vec::new();
                    encode(&m, version, None, &mut out);
                    to_text(&out)
                }
            },
        };
        assert_eq!(got, expect, "{input}");
    }

    #[test]
    fn texts() {
        check(1, "<any>", "<any>");
        check(3, "NXM_OF_IN_PORT(0001)", "OXM_OF_IN_PORT(00000001)");
        check(1, "NXM_OF_IP_SRC(01020304)", "OXM_OF_PACKET_TYPE(00000000)");
        check(
            1,
            "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_SRC_W(01020304/ffffffff)",
            "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_SRC(01020304)",
        );
        check(3, "NXM_OF_VLAN_TCI(f009)", "OXM_OF_VLAN_VID(1009), OXM_OF_VLAN_PCP(07)");
        check(3, "NXM_OF_VLAN_TCI_W(1000/1000)", "OXM_OF_VLAN_VID_W(1000/1000)");
        check(3, "NXM_OF_VLAN_TCI_W(e000/e000)", "OXM_OF_PACKET_TYPE(00000000)");
        check(1, "OXM_OF_VLAN_PCP(02)", "NXM_OF_VLAN_TCI_W(5000/f000)");
        check(1, "NXM_OF_IN_PORT(0001), NXM_OF_IN_PORT(0002)", "DupField");
        check(1, "NXM_OF_ETH_DST_W(01005e000001/010000000000)", "BadWildcards");
        check(1, "01020304(1111/2222)", "BadWildcards");
        check(1, "NXM_OF_FOO(00)", "NXM_OF_FOO(00): unknown field `NXM_OF_FOO'");
        check(1, "NXM_NX_PKT_MARK(5)", "expected to read 4 bytes but got 0");
        check(1, "NXM_NX_TUN_METADATA0(12345678)", "NXM_NX_TUN_METADATA0(00000000)");
        check(1, "NXM_NX_TUN_METADATA0(00)", "NXM_NX_TUN_METADATA0()");
        check(1, "NXM_NX_TUN_METADATA0_W(00001234/0000ffff)", "NXM_NX_TUN_METADATA0_W(0000/0000)");
        check(1, "NXM_NX_TUN_FLAGS(0001)", "NXM_NX_TUN_FLAGS_W(0001/0001)");
        check(
            6,
            "OXM_OF_PKT_REG1_W(0000000100000000/0000000300000000)",
            "OXM_OF_PKT_REG1_W(0000000100000000/0000000300000000)",
        );
        check(
            4,
            "OXM_OF_ETH_TYPE(0800), OXM_OF_IP_PROTO(06), OXM_OF_TCP_FLAGS(0fff)",
            "OXM_OF_ETH_TYPE(0800), OXM_OF_IP_PROTO(06), ONFOXM_ET_TCP_FLAGS(0fff)",
        );
        check(3, "NXM_NX_TUN_ID(00000000abcdef01)", "NXM_NX_TUN_ID(00000000abcdef01)");
        check(1, "OXM_OF_ETH_TYPE(0800), OXM_OF_IP_DSCP(0f)", "NXM_OF_ETH_TYPE(0800), NXM_OF_IP_TOS(3c)");
    }
}
