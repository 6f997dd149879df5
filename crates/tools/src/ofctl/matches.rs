//! `parse-ofp10-match`, `parse-ofp11-match` and `check-vlan`: match structures, converted and compared byte by byte.

use std::fmt::Write;

use ib_flow::Match;
use ib_flow::text::normalize::normalize_match;
use ib_flow::text::{match_to_string, parse_match};
use ib_flow::wire::nxm::{self, DecodeOptions, NxmError};
use ib_flow::wire::{nxm_text, of10};
use ib_openflow::match_wire::nxm_error;
use ib_packet::Be16;

use super::offline::{hex_bytes, put_differences, stdin_lines};
use super::{Ctl, Result};
use crate::io::Io;

/// Reads a match of `N` bytes. A digit `x` stands for any: the input has a zero there, the match that is decoded something
/// else.
fn exact_bytes<const N: usize>(line: &str) -> Result<([u8; N], [u8; N])> {
    let expected = hex_bytes(&line.replace('x', "0")).ok_or("Trailing garbage in hex data")?;
    let mut any = (1..=15u32).cycle().step_by(7);
    let live: String = line
        .chars()
        .map(|c| if c == 'x' { any.next().and_then(|d| char::from_digit(d, 16)).unwrap_or('1') } else { c })
        .collect();
    let live = hex_bytes(&live).ok_or("Trailing garbage in hex data")?;
    let wrong = || format!("Input is {} bytes, expected {N}", expected.len());
    Ok((<[u8; N]>::try_from(&expected[..]).map_err(|_| wrong())?, live.try_into().map_err(|_| wrong())?))
}

pub(super) fn parse_ofp10_match(_: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    for line in stdin_lines(io) {
        let (expected, live) = exact_bytes::<{ of10::OF10_LEN }>(&line)?;
        let mut m = of10::decode10(&live);
        let mut out = format!("{}\n", match_to_string(&m, None));
        let again = of10::encode10(&m);
        put_differences(&mut out, "", &expected, &again);
        normalize_match(&mut m, true);
        put_differences(&mut out, "normal: ", &again, &of10::encode10(&m));
        out.push('\n');
        io.out(out);
    }
    Ok(())
}

pub(super) fn parse_ofp11_match(_: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    for line in stdin_lines(io) {
        let (expected, live) = exact_bytes::<{ of10::OF11_LEN }>(&line)?;
        let mut out = String::new();
        match of10::decode11(&live) {
            Ok(m) => {
                let _ = writeln!(out, "{}", match_to_string(&m, None));
                put_differences(&mut out, "", &expected, &of10::encode11(&m));
            }
            Err(e) => {
                let _ = writeln!(out, "bad ofp11_match: {}", nxm_error(e));
            }
        }
        out.push('\n');
        io.out(out);
    }
    Ok(())
}

/// A number in base 16, as far as there are digits.
fn hex16(s: &str) -> u16 {
    let s = s.trim_start();
    let s = s.strip_prefix("0x").or(s.strip_prefix("0X")).unwrap_or(s);
    let digits = s.chars().map_while(|c| c.to_digit(16));
    digits.fold(0u64, |n, d| n.saturating_mul(16).saturating_add(d.into())) as u16
}

fn tci(m: &Match) -> (u16, u16) {
    (m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get())
}

fn tci_text(m: &Match) -> String {
    let (value, mask) = tci(m);
    format!("{value:04x}/{mask:04x}")
}

/// Encodes as `version` does and decodes again: the entries' text and the match or error.
fn through_entries(m: &Match, version: u8) -> (String, std::result::Result<Match, NxmError>) {
    let mut bytes = Vec::new();
    nxm::encode(m, version, None, &mut bytes);
    let back = nxm::decode(&bytes, DecodeOptions { strict: true, tlv_table: 0 }, None);
    // Entries that can't be read have no text either.
    let text = if back == Err(NxmError::BadWildcards) { String::new() } else { nxm_text::to_text(&bytes) };
    (text, back)
}

pub(super) fn check_vlan(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut m = Match::catch_all();
    m.flow.vlans[0].tci = Be16::new(hex16(&args[0]));
    m.mask.0.vlans[0].tci = Be16::new(hex16(&args[1]));

    let mut out = match_to_string(&m, None);
    let (parsed, _) = parse_match(&out, None)?;
    let _ = writeln!(out, " -> {}", tci_text(&parsed));

    let (text, back) = through_entries(&m, 1);
    let said = back.map_or_else(|e| nxm_error(e).to_string(), |m| tci_text(&m));
    let _ = writeln!(out, "NXM: {text} -> {said}");

    let (text, back) = through_entries(&m, 4);
    let said = back.map_or_else(
        |e| nxm_error(e).to_string(),
        |m| {
            let (value, mask) = tci(&m);
            let pcp = if mask & 0xe000 != 0 { format!("{:02x}", value >> 13) } else { "--".into() };
            format!("{:04x}/{:04x},{pcp}", value & 0x1fff, mask & 0x1fff)
        },
    );
    let _ = writeln!(out, "OXM: {text} -> {said}");

    let b = of10::encode10(&m);
    let _ = writeln!(
        out,
        "OF1.0: {:02x}{:02x}/{},{:02x}/{} -> {}",
        b[18],
        b[19],
        b[3] >> 1 & 1,
        b[20],
        b[1] >> 4 & 1,
        tci_text(&of10::decode10(&b))
    );
    let b = of10::encode11(&m);
    let said = of10::decode11(&b).map_or_else(|e| nxm_error(e).to_string(), |m| tci_text(&m));
    let _ = writeln!(
        out,
        "OF1.1: {:02x}{:02x}/{},{:02x}/{} -> {said}",
        b[36],
        b[37],
        b[11] >> 1 & 1,
        b[38],
        b[11] >> 2 & 1
    );
    io.out(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::io::capture;

    fn run(args: &[&str], input: &str) -> String {
        let args: Vec<&str> = ["ovs-ofctl"].iter().chain(args).copied().collect();
        let (code, out, err) = capture(super::super::run, &args, input);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    }

    #[test]
    fn openflow_10_match() {
        let line = "003820fd 0003 000000000000 000000000000 ffff 07 xx 0800 06 00 0000 00000000 00000000 0000 0000\n";
        assert_eq!(
            run(&["parse-ofp10-match"], line),
            "vlan_tci=0x0000\n 1: 38 -> 28\n 5: 03 -> 00\n20: 07 -> 00\n22: 08 -> 00\n24: 06 -> 00\n\n"
        );
    }

    #[test]
    fn openflow_11_match() {
        let line = "0000 0058 00000000 000003f7 000000000000 ffffffffffff 000000000000 ffffffffffff 0000 00 00 0800 \
                    04 00 00000000ffffffff00000000ffffffff 0000 0000 00000000 00 000000 \
                    0000000000000000ffffffffffffffff\n";
        assert_eq!(run(&["parse-ofp11-match"], line), "ip\n42: 04 -> 00\n\n");
    }

    #[test]
    fn vlan_in_each_format() {
        assert_eq!(
            run(&["check-vlan", "1000", "1000"], ""),
            "vlan_tci=0x1000/0x1000 -> 1000/1000\n\
             NXM: NXM_OF_VLAN_TCI_W(1000/1000) -> 1000/1000\n\
             OXM: OXM_OF_VLAN_VID_W(1000/1000) -> 1000/1000,--\n\
             OF1.0: 0000/1,00/1 -> 0000/0000\n\
             OF1.1: fffe/0,00/1 -> 1000/1000\n"
        );
    }
}
