//! Continuations of paused packets as text.
//!
//! A continuation (NXPINT_CONTINUATION) is the switch's own: a controller hands it back unseen. Its properties are those that Open
//! vSwitch writes, so that either's tools read either's. What is malformed or unknown is passed over.

use std::fmt::Write;

use crate::action_decode::{decode_actions, property};
use crate::action_format::format_actions_of;
use crate::error::OfError;
use crate::message::Version;
use crate::names::Names;
use crate::wire::Cursor;

/// Of the bridge that holds the packet: an identifier of its own.
pub const BRIDGE: u16 = 0x8000;
/// A value of the stack, the lowest first.
pub const STACK: u16 = 0x8001;
/// Mirrors that have the packet already.
pub const MIRRORS: u16 = 0x8002;
/// Empty: connection tracking has seen the packet.
pub const CONNTRACKED: u16 = 0x8003;
/// Table of the actions that are left.
pub const TABLE: u16 = 0x8004;
/// Cookie of their rule.
pub const COOKIE: u16 = 0x8005;
/// Actions that are left.
pub const ACTIONS: u16 = 0x8006;
/// The action set.
pub const ACTION_SET: u16 = 0x8007;
/// The datapath's port of entry.
pub const ODP_PORT: u16 = 0x8008;

/// Appends a continuation's lines.
pub(crate) fn put_continuation(out: &mut String, continuation: &[u8], v: Version, n: &Names<'_>) {
    // What cannot be read further ends the text.
    let _ = put(out, continuation, v, n);
}

fn put(out: &mut String, continuation: &[u8], v: Version, n: &Names<'_>) -> Result<(), OfError> {
    let bad = OfError::OFPBPC_BAD_LEN;
    let mut outer = Cursor::new(continuation, bad);
    let mut stack = String::new();
    let (mut table, mut cookie) = (0, 0);
    let (mut head, mut runs, mut tail) = (String::new(), String::new(), String::new());
    while !outer.is_empty() {
        let (_, body) = property(&mut outer, bad)?;
        let mut props = Cursor::new(body.get(4..).ok_or(bad)?, bad);
        while !props.is_empty() {
            let (kind, body) = property(&mut props, bad)?;
            let mut b = Cursor::new(body, bad);
            // Writing to a String cannot fail.
            let _ = match kind {
                BRIDGE => writeln!(out, " continuation.bridge={}", bridge(body)),
                STACK => {
                    let hex: String = body.iter().map(|b| format!("{b:02x}")).collect();
                    let digits = hex.trim_start_matches('0');
                    write!(stack, " 0x{}", if digits.is_empty() { "0" } else { digits })
                }
                MIRRORS => writeln!(head, " continuation.mirrors={:#x}", b.u32()?),
                CONNTRACKED => writeln!(head, " continuation.conntracked=true"),
                TABLE => {
                    table = b.u8()?;
                    Ok(())
                }
                COOKIE => {
                    b.skip(4)?;
                    cookie = b.u64()?;
                    Ok(())
                }
                ACTIONS | ACTION_SET => {
                    b.skip(4)?;
                    let list = decode_actions(b.rest(), v)?;
                    if kind == ACTION_SET {
                        tail.push_str(" continuation.action_set=");
                        format_actions_of(&mut tail, &list, v, n);
                        writeln!(tail)
                    } else {
                        let sep = if runs.is_empty() { "" } else { "," };
                        let _ = write!(runs, "{sep}unroll_xlate(table={table}, cookie={cookie})");
                        if !list.is_empty() {
                            runs.push(',');
                            format_actions_of(&mut runs, &list, v, n);
                        }
                        Ok(())
                    }
                }
                ODP_PORT => match b.u32()? {
                    0 => Ok(()),
                    port => writeln!(tail, " continuation.odp_port={port}"),
                },
                _ => Ok(()),
            };
        }
    }
    if !stack.is_empty() {
        let _ = writeln!(out, " continuation.stack=(top){stack} (bottom)");
    }
    out.push_str(&head);
    if !runs.is_empty() {
        let _ = writeln!(out, " continuation.actions={runs}");
    }
    out.push_str(&tail);
    Ok(())
}

/// The bridge's identifier, four words in the writer's order.
fn bridge(bytes: &[u8]) -> String {
    let word =
        |i: usize| bytes.get(4 * i..4 * i + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (a, b, c, d) = (word(0), word(1), word(2), word(3));
    format!("{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}", b >> 16, b & 0xffff, c >> 16, c & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_paused_packet() {
        let hex = "000800400000000080000014 2b9698294640834372b5a1820e858d0a 00000000 8001000701020300 8005001000000000 00000000
                   00000005 80080008 00000007";
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
            .collect();
        let mut out = String::new();
        put_continuation(&mut out, &bytes, Version::V13, &Names::default());
        assert_eq!(
            out,
            " continuation.bridge=2998962b-4383-4046-82a1-b5720a8d850e\n continuation.stack=(top) 0x10203 (bottom)\n \
             continuation.odp_port=7\n"
        );
    }
}
