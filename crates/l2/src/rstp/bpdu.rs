//! BPDUs of rapid spanning tree on the wire (802.1D-2004, clause 9): what follows the LLC header.
//!
//! Times are whole seconds here; the wire's unit is a 256th. Reading never fails halfway: it is a message or it is not.

use super::{Role, Times, Vector};

/// Topology change.
const TC: u8 = 0x01;
const PROPOSAL: u8 = 0x02;
const LEARNING: u8 = 0x10;
const FORWARDING: u8 = 0x20;
const AGREEMENT: u8 = 0x40;
/// Topology change acknowledged; in configuration messages only.
const TC_ACK: u8 = 0x80;

/// Version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Configuration message of the original protocol.
    Config,
    /// Rapid spanning tree's one message.
    Rapid,
}

/// Flags of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub tc: bool,
    pub proposal: bool,
    pub learning: bool,
    pub forwarding: bool,
    pub agreement: bool,
    pub tc_ack: bool,
}

/// A message with a priority vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    pub flags: Flags,
    pub role: Role,
    pub vector: Vector,
    pub times: Times,
}

/// Any message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bpdu {
    /// Topology change notification of the original protocol.
    Tcn,
    /// The others.
    Message(Message),
}

/// Reads a message (9.3.4).
pub(super) fn parse(b: &[u8]) -> Option<Bpdu> {
    let kind = match *b {
        [0, 0, _, 0x80, ..] => return Some(Bpdu::Tcn),
        [0, 0, _, 0, ..] if b.len() >= 35 => Kind::Config,
        [0, 0, version, 2, ..] if version >= 2 && b.len() >= 36 => Kind::Rapid,
        _ => return None,
    };
    let u16_at = |at: usize| Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_be_bytes(b.get(at..at + 8)?.try_into().ok()?));
    let f = *b.get(4)?;
    let rapid = kind == Kind::Rapid;
    let role = match f >> 2 & 3 {
        _ if !rapid => Role::Designated,
        1 => Role::Alternate,
        2 => Role::Root,
        3 => Role::Designated,
        _ => Role::Disabled,
    };
    let has = |bit: u8| f & bit != 0;
    let flags = Flags {
        tc: has(TC),
        proposal: rapid && has(PROPOSAL),
        learning: rapid && has(LEARNING),
        forwarding: rapid && has(FORWARDING),
        agreement: rapid && has(AGREEMENT),
        tc_ack: !rapid && has(TC_ACK),
    };
    let vector = Vector {
        root: u64_at(5)?,
        cost: u32::from_be_bytes(b.get(13..17)?.try_into().ok()?),
        bridge: u64_at(17)?,
        port: u16_at(25)?,
    };
    let seconds = |at: usize| u16_at(at).map(|v| v >> 8);
    let times = Times {
        message_age: seconds(27)?,
        max_age: seconds(29)?,
        hello: seconds(31)?,
        forward_delay: seconds(33)?,
    };
    Some(Bpdu::Message(Message { kind, flags, role, vector, times }))
}

/// Writes a message.
pub(super) fn emit(bpdu: &Bpdu) -> Vec<u8> {
    let m = match bpdu {
        Bpdu::Tcn => return vec![0, 0, 0, 0x80],
        Bpdu::Message(m) => m,
    };
    let (version, kind) = match m.kind {
        Kind::Config => (0, 0),
        Kind::Rapid => (2, 2),
    };
    let f = &m.flags;
    let mut flags = 0;
    for (on, bit) in [
        (f.tc, TC),
        (f.proposal, PROPOSAL),
        (f.learning, LEARNING),
        (f.forwarding, FORWARDING),
        (f.agreement, AGREEMENT),
        (f.tc_ack, TC_ACK),
    ] {
        flags |= if on { bit } else { 0 };
    }
    if m.kind == Kind::Rapid {
        flags |= match m.role {
            Role::Root => 2 << 2,
            Role::Designated => 3 << 2,
            Role::Alternate | Role::Backup => 1 << 2,
            Role::Disabled => 0,
        };
    }
    let mut out = vec![0, 0, version, kind, flags];
    out.extend(m.vector.root.to_be_bytes());
    out.extend(m.vector.cost.to_be_bytes());
    out.extend(m.vector.bridge.to_be_bytes());
    out.extend(m.vector.port.to_be_bytes());
    for seconds in [m.times.message_age, m.times.max_age, m.times.hello, m.times.forward_delay] {
        out.extend((seconds << 8).to_be_bytes());
    }
    if m.kind == Kind::Rapid {
        // Length of the version 1 information.
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_written_as_others_write_it() {
        let vector =
            Vector { root: 0x8000_aa66_aa66_0000, cost: 0, bridge: 0x8000_aa66_aa66_0000, port: 0x8001 };
        let message = Message {
            kind: Kind::Rapid,
            flags: Flags { proposal: true, ..Flags::default() },
            role: Role::Designated,
            vector,
            times: Times { message_age: 0, max_age: 20, hello: 2, forward_delay: 15 },
        };
        let bytes = emit(&Bpdu::Message(message));
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "000002020e8000aa66aa660000000000008000aa66aa66000080010000140002000f0000");
        assert_eq!(parse(&bytes), Some(Bpdu::Message(message)));
        assert_eq!(parse(&bytes[..35]), None);
        assert_eq!(parse(&[0, 0, 0, 0x80]), Some(Bpdu::Tcn));
        assert_eq!(parse(&[0, 0, 0]), None);
    }
}
