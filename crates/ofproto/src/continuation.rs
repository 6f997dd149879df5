//! Continuations: what a controller gets with a packet that `controller(pause)` hands out, and gives back to resume it.
//!
//! The switch keeps the state itself ([`crate::ofproto::Ofproto::keep_paused`]); the continuation's first property, the
//! bridge's identifier, names it. The other properties tell tools and people what is yet to be done, in the form that
//! Open vSwitch gives them. Cost: the length of the frozen actions, once a controller and paused packet.

use ib_openflow::action::Action;
use ib_openflow::action_encode::encode_actions;
use ib_openflow::continuation_text::{
    ACTION_SET, ACTIONS, BRIDGE, CONNTRACKED, COOKIE, MIRRORS, ODP_PORT, STACK, TABLE,
};
use ib_openflow::message::Version;
use ib_openflow::wire::Buf;

use crate::recirc::RecircEntry;

/// Property type NXPINT_CONTINUATION.
const CONTINUATION: u16 = 8;

/// Marks identifiers as ours.
const MAGIC: &[u8; 4] = b"iron";

fn put(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(4 + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Bodies of 8 bytes and more are aligned by padding in front.
fn put_aligned(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    put(out, kind, &[&[0; 4], body].concat());
}

fn put_actions(out: &mut Vec<u8>, kind: u16, actions: &[Action], version: Version) {
    if !actions.is_empty() {
        let mut b = Buf::default();
        encode_actions(&mut b, actions, version);
        put_aligned(out, kind, &b.0);
    }
}

/// The property for a paused packet that came in by a port of the datapath, for a connection of `version`.
pub(crate) fn build(entry: &RecircEntry, odp_port: u32, version: Version) -> Vec<u8> {
    let state = &entry.state;
    let mut props = Vec::new();
    let mut bridge = [0; 16];
    bridge[..4].copy_from_slice(MAGIC);
    bridge[8..12].copy_from_slice(&state.bridge.to_be_bytes());
    bridge[12..].copy_from_slice(&entry.id.to_be_bytes());
    put(&mut props, BRIDGE, &bridge);
    for (value, bytes) in state.stack.iter().rev() {
        put(&mut props, STACK, value.bytes(*bytes));
    }
    if state.mirrors != 0 {
        put(&mut props, MIRRORS, &state.mirrors.to_be_bytes());
    }
    if state.conntracked {
        put(&mut props, CONNTRACKED, &[]);
    }
    // Actions come in runs that share the table and cookie before them.
    let (mut table, mut cookie) = (0, 0);
    let mut rest = &state.actions[..];
    while let Some(first) = rest.first() {
        if let Action::UnrollXlate { table: t, cookie: c } = first {
            if std::mem::replace(&mut table, *t) != *t {
                put(&mut props, TABLE, &[*t]);
            }
            if std::mem::replace(&mut cookie, *c) != *c {
                put_aligned(&mut props, COOKIE, &c.to_be_bytes());
            }
            rest = &rest[1..];
        }
        let end = rest.iter().position(|a| matches!(a, Action::UnrollXlate { .. })).unwrap_or(rest.len());
        put_actions(&mut props, ACTIONS, &rest[..end], version);
        rest = &rest[end..];
    }
    put_actions(&mut props, ACTION_SET, &state.action_set, version);
    if odp_port != 0 {
        put(&mut props, ODP_PORT, &odp_port.to_be_bytes());
    }
    let mut out = CONTINUATION.to_be_bytes().to_vec();
    out.extend_from_slice(&u16::try_from(8 + props.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&props);
    out
}

/// The number of the state that a continuation resumes: what [`build`] put in.
pub(crate) fn state_of(bytes: &[u8]) -> Option<u32> {
    let body = bytes.get(8..)?;
    let (head, bridge) = (body.get(..8)?, body.get(4..20)?);
    let ours = head[..2] == BRIDGE.to_be_bytes() && bridge[..4] == MAGIC[..];
    ours.then(|| u32::from_be_bytes([bridge[12], bridge[13], bridge[14], bridge[15]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recirc::{FrozenMetadata, FrozenState};
    use crate::upcall::packet_metadata;
    use ib_flow::fields::FieldValue;
    use ib_flow::{Flow, OfPort};
    use ib_openflow::message::{Message, PacketIn};
    use ib_openflow::print::log_text;

    #[test]
    fn a_continuation_comes_back_through_a_controller() {
        let metadata = FrozenMetadata {
            tunnel: Box::new(Flow::zeroed().tunnel),
            metadata: Default::default(),
            regs: Default::default(),
            in_port: OfPort(1),
        };
        let out = |port| Action::Output { port: OfPort(port), max_len: 0 };
        let state = FrozenState {
            bridge: 3,
            table: 0,
            metadata,
            stack: vec![(FieldValue::from_u128(5), 2), (FieldValue::from_u128(0x0102_0304_0506), 6)],
            mirrors: 3,
            conntracked: true,
            was_mpls: false,
            actions: vec![out(7), Action::UnrollXlate { table: 2, cookie: 26 }, out(2)],
            action_set: vec![out(3)],
            rule_cookie: 0,
            resumes: true,
            userdata: Vec::new(),
        };
        let entry = RecircEntry::new(0x1234, state);
        let mut flow = Flow::zeroed();
        (flow.in_port, flow.regs[1], flow.metadata) = (1, 5, ib_packet::Be64::new(7));
        for version in [Version::V10, Version::V13, Version::V15] {
            let pin = PacketIn {
                data: vec![0; 14],
                total_len: 14,
                metadata: packet_metadata(&flow),
                continuation: build(&entry, 1, version),
                ..PacketIn::default()
            };
            let bytes = ib_openflow::encode::encode(&Message::Resume(Box::new(pin.clone())), version, 1);
            let Ok(Message::Resume(back)) = ib_openflow::decode::decode(&bytes).map(|d| d.message) else {
                panic!("{version:?}: {bytes:x?}");
            };
            assert_eq!(state_of(&back.continuation), Some(0x1234));
            assert_eq!(back.metadata, pin.metadata);
            let text = log_text(&bytes);
            let lines: Vec<&str> =
                text.lines().filter_map(|l| l.strip_prefix(" continuation.")).skip(1).collect();
            assert_eq!(
                lines,
                [
                    "stack=(top) 0x10203040506 0x5 (bottom)",
                    "mirrors=0x3",
                    "conntracked=true",
                    "actions=unroll_xlate(table=0, cookie=0),output:7,unroll_xlate(table=2, cookie=26),output:2",
                    "action_set=output:3",
                    "odp_port=1",
                ],
                "{version:?}"
            );
        }
        assert_eq!(state_of(&[0, 8, 0, 8, 0, 0, 0, 0]), None);
    }
}
