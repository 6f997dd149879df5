//! Packets as text.

use std::fmt::Write;

use crate::buffer::Packet;

/// Why a text is not a packet; prints as the sentence that users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HexError {
    /// Something that is not a pair of hexadecimal digits.
    TrailingGarbage,
    /// Fewer bytes than an Ethernet header.
    TooShort,
}

impl std::fmt::Display for HexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HexError::TrailingGarbage => "Trailing garbage in packet data",
            HexError::TooShort => "Packet data too short for Ethernet",
        })
    }
}

/// Bytes from pairs of hexadecimal digits with white space anywhere between pairs, and what follows the last
/// pair.
pub fn parse_hex(s: &str) -> (Vec<u8>, &str) {
    let mut out = Vec::new();
    let mut rest = s.trim_start();
    while let Some((a, b)) = rest.as_bytes().first().zip(rest.as_bytes().get(1)) {
        let (Some(a), Some(b)) = (char::from(*a).to_digit(16), char::from(*b).to_digit(16)) else { break };
        out.push((a << 4 | b) as u8);
        rest = rest[2..].trim_start();
    }
    (out, rest)
}

/// An Ethernet frame from hexadecimal digits.
pub fn frame_from_hex(s: &str) -> Result<Packet, HexError> {
    match parse_hex(s) {
        (_, rest) if !rest.is_empty() => Err(HexError::TrailingGarbage),
        (bytes, _) if bytes.len() < 14 => Err(HexError::TooShort),
        (bytes, _) => Ok(Packet::from_frame(&bytes)),
    }
}

/// Digits without anything between.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// Sixteen bytes a line: offset, hexadecimal, a dash after the eighth, and with `ascii` the printable characters.
pub fn dump(bytes: &[u8], first_offset: usize, ascii: bool, out: &mut String) {
    const PER_LINE: usize = 16;
    let mut at = first_offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = at % PER_LINE;
        let n = rest.len().min(PER_LINE - start);
        let (line, tail) = rest.split_at(n);
        let _ = write!(out, "{:08x}  ", at - start);
        for i in 0..PER_LINE {
            match i.checked_sub(start).map(|i| line.get(i)) {
                Some(Some(b)) => {
                    let _ = write!(out, "{b:02x}{}", if i == PER_LINE / 2 - 1 { '-' } else { ' ' });
                }
                Some(None) if !ascii => break,
                _ => out.push_str("   "),
            }
        }
        if ascii {
            out.push('|');
            for i in 0..PER_LINE {
                out.push(match i.checked_sub(start).and_then(|i| line.get(i)) {
                    Some(b @ 0x20..=0x7e) => char::from(*b),
                    Some(_) => '.',
                    None => ' ',
                });
            }
            out.push('|');
        }
        if out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
        at += n;
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let hex = "50 54 00 00 00 02 50 54 00 00 00 01 88 47";
        assert_eq!(to_hex(frame_from_hex(hex).unwrap().data()), hex.replace(' ', ""));
        assert_eq!(frame_from_hex("5054").unwrap_err(), HexError::TooShort);
        assert_eq!(frame_from_hex("zz").unwrap_err(), HexError::TrailingGarbage);
        assert_eq!(frame_from_hex("505").unwrap_err(), HexError::TrailingGarbage);
        assert_eq!(frame_from_hex("5é").unwrap_err(), HexError::TrailingGarbage);
    }

    #[test]
    fn dumps() {
        let mut s = String::new();
        dump(&(0x3a..0x4c).collect::<Vec<u8>>(), 0, true, &mut s);
        assert_eq!(
            s,
            "00000000  3a 3b 3c 3d 3e 3f 40 41-42 43 44 45 46 47 48 49 |:;<=>?@ABCDEFGHI|\n\
             00000010  4a 4b                                           |JK              |\n"
        );
        s.clear();
        dump(&[1, 2], 0, false, &mut s);
        assert_eq!(s, "00000000  01 02\n");
        s.clear();
        dump(&[5; 8], 0, true, &mut s);
        assert_eq!(s, "00000000  05 05 05 05 05 05 05 05-                        |........        |\n");
    }
}
