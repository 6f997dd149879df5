//! What an entry matches and does: the bytes that the programs compare and obey.
//!
//! Entries match exactly, but only on the fields that flows of their port of entry look at: the port's [`Fields`]. An entry made of a packet's key
//! holds those fields of the key. It may stand for a datapath flow whose mask looks at no more: a packet that agrees with the
//! key in all of these fields agrees with it in the flow's mask. So fields may grow while entries are there; they never
//! shrink before all entries of the port have gone.
//!
//! What a mask looks at beyond the fields must be the same (zero) for every packet that the programs understand: metadata of a packet fresh from a
//! port, a second tag, fragments. That leaves TCP flags, which no entry can match.

use ib_dpif::{Action, SetField};
use ib_flow::extract::proto;
use ib_flow::{Flow, Mask, OdpPort, Vlan};
use ib_packet::{Be16, Be32, Be128, Mac};

use crate::Reason;

/// A set of fields. The Ethernet type and the port of entry are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fields(pub u16);

#[allow(missing_docs, reason = "names of fields")]
impl Fields {
    pub const VLAN: Fields = Fields(1);
    pub const DL_DST: Fields = Fields(1 << 1);
    pub const DL_SRC: Fields = Fields(1 << 2);
    pub const NW_PROTO: Fields = Fields(1 << 3);
    pub const NW_TOS: Fields = Fields(1 << 4);
    pub const NW_TTL: Fields = Fields(1 << 5);
    pub const NW_SRC: Fields = Fields(1 << 6);
    pub const NW_DST: Fields = Fields(1 << 7);
    pub const IPV6_LABEL: Fields = Fields(1 << 8);
    pub const TP_SRC: Fields = Fields(1 << 9);
    pub const TP_DST: Fields = Fields(1 << 10);
    pub const ALL: Fields = Fields((1 << 11) - 1);

    /// Whether any of `other` is in it.
    pub fn has(self, other: Fields) -> bool {
        self.0 & other.0 != 0
    }
    /// Whether all of `other` are in it.
    pub fn covers(self, other: Fields) -> bool {
        self.0 & other.0 == other.0
    }
    /// Those of both.
    #[must_use]
    pub fn with(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }

    /// The fields that a mask looks at.
    pub fn of(mask: &Mask) -> Fields {
        let m = &mask.0;
        [
            (!m.vlans[0].tci.is_zero() || !m.vlans[0].tpid.is_zero(), Fields::VLAN),
            (!m.dl_dst.is_zero(), Fields::DL_DST),
            (!m.dl_src.is_zero(), Fields::DL_SRC),
            (m.nw_proto != 0, Fields::NW_PROTO),
            (m.nw_tos != 0, Fields::NW_TOS),
            (m.nw_ttl != 0, Fields::NW_TTL),
            (!m.nw_src.is_zero() || m.ipv6_src != Be128::ZERO, Fields::NW_SRC),
            (!m.nw_dst.is_zero() || m.ipv6_dst != Be128::ZERO, Fields::NW_DST),
            (!m.ipv6_label.is_zero(), Fields::IPV6_LABEL),
            (!m.tp_src.is_zero(), Fields::TP_SRC),
            (!m.tp_dst.is_zero(), Fields::TP_DST),
        ]
        .into_iter()
        .filter(|(looked_at, _)| *looked_at)
        .fold(Fields::default(), |all, (_, field)| all.with(field))
    }
}

/// Length of a key.
pub const KEY_LEN: usize = 64;
/// Places in a key. The interface index is in host order, the TCI too; all else as on the wire.
pub mod at {
    #![allow(missing_docs, reason = "names of fields")]
    pub const IFINDEX: usize = 0;
    pub const DL_TYPE: usize = 4;
    pub const VLAN_TCI: usize = 6;
    pub const DL_DST: usize = 8;
    pub const DL_SRC: usize = 14;
    pub const NW_PROTO: usize = 20;
    pub const NW_TOS: usize = 21;
    pub const NW_TTL: usize = 22;
    pub const NW_SRC: usize = 24;
    pub const NW_DST: usize = 40;
    pub const TP_SRC: usize = 56;
    pub const TP_DST: usize = 58;
    pub const IPV6_LABEL: usize = 60;
}

/// The bytes of `key` in these fields, for packets that enter by `ifindex`.
pub fn encode(key: &Flow, fields: Fields, ifindex: i32) -> [u8; KEY_LEN] {
    let mut out = [0; KEY_LEN];
    let mut put = |field: Fields, at: usize, bytes: &[u8]| {
        if field.0 == 0 || fields.has(field) {
            out[at..at + bytes.len()].copy_from_slice(bytes);
        }
    };
    const ALWAYS: Fields = Fields(0);
    put(ALWAYS, at::IFINDEX, &ifindex.to_ne_bytes());
    put(ALWAYS, at::DL_TYPE, &key.dl_type.to_bytes());
    put(Fields::VLAN, at::VLAN_TCI, &key.vlans[0].tci.get().to_ne_bytes());
    put(Fields::DL_DST, at::DL_DST, &key.dl_dst.0);
    put(Fields::DL_SRC, at::DL_SRC, &key.dl_src.0);
    put(Fields::NW_PROTO, at::NW_PROTO, &[key.nw_proto]);
    put(Fields::NW_TOS, at::NW_TOS, &[key.nw_tos]);
    put(Fields::NW_TTL, at::NW_TTL, &[key.nw_ttl]);
    if key.dl_type.get() == proto::ETH_IPV6 {
        put(Fields::NW_SRC, at::NW_SRC, &key.ipv6_src.get().to_be_bytes());
        put(Fields::NW_DST, at::NW_DST, &key.ipv6_dst.get().to_be_bytes());
        put(Fields::IPV6_LABEL, at::IPV6_LABEL, &key.ipv6_label.get().to_be_bytes());
    } else {
        put(Fields::NW_SRC, at::NW_SRC, &key.nw_src.get().to_be_bytes());
        put(Fields::NW_DST, at::NW_DST, &key.nw_dst.get().to_be_bytes());
    }
    put(Fields::TP_SRC, at::TP_SRC, &key.tp_src.to_bytes());
    put(Fields::TP_DST, at::TP_DST, &key.tp_dst.to_bytes());
    out
}

/// Whether an entry can stand for packets like `key` of a flow with this mask.
pub fn check_match(key: &Flow, mask: &Mask) -> Result<(), Reason> {
    if key.recirc_id != 0 {
        return Err(Reason::Recirculated);
    }
    let [tag, second] = &key.vlans;
    let v4 = key.dl_type.get() == proto::ETH_IP;
    let known_tag = tag.tpid.is_zero() || tag.tpid.get() == proto::ETH_VLAN;
    if !(v4 || key.dl_type.get() == proto::ETH_IPV6)
        || !known_tag
        || !second.tpid.is_zero()
        || key.nw_frag != 0
    {
        return Err(Reason::Ethertype);
    }
    match key.nw_proto {
        proto::IP_TCP if !mask.0.tcp_flags.is_zero() => return Err(Reason::TcpFlags),
        proto::IP_TCP | proto::IP_UDP => {}
        proto::IP_ICMP if v4 => {}
        _ => return Err(Reason::Protocol),
    }
    if key.dl_dst.0[0] & 1 != 0 {
        return Err(Reason::Multicast);
    }
    let mut rest = mask.clone();
    let m = &mut rest.0;
    m.in_port = 0;
    m.dl_type = Be16::ZERO;
    m.vlans[0] = Vlan::default();
    (m.dl_dst, m.dl_src) = (Mac::default(), Mac::default());
    (m.nw_proto, m.nw_tos, m.nw_ttl) = (0, 0, 0);
    (m.nw_src, m.nw_dst, m.ipv6_label) = (Be32::ZERO, Be32::ZERO, Be32::ZERO);
    (m.ipv6_src, m.ipv6_dst) = (Be128::ZERO, Be128::ZERO);
    (m.tp_src, m.tp_dst) = (Be16::ZERO, Be16::ZERO);
    // Zero in every packet that the programs understand.
    let constant = rest.apply(key).words().iter().all(|w| *w == 0);
    if constant { Ok(()) } else { Err(Reason::Match) }
}

/// Ports that an entry sends to at most.
pub const MAX_OUTPUTS: usize = 4;

/// What to do with a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Takes the tag off.
    pub pop_vlan: bool,
    /// Then puts one on: TPID, and TCI without CFI.
    pub push_vlan: Option<(Be16, u16)>,
    /// Then sets destination and source.
    pub set_eth: Option<(Mac, Mac)>,
    /// Sets the TTL or hop limit, from the first to the second.
    pub set_ttl: Option<(u8, u8)>,
    /// Then sends it there; nowhere: drops it.
    pub outputs: Vec<OdpPort>,
}

fn merge(value: Mac, mask: Mac, old: Mac) -> Mac {
    let mut out = old;
    for (o, (v, m)) in out.0.iter_mut().zip(value.0.into_iter().zip(mask.0)) {
        *o = (*o & !m) | (v & m);
    }
    out
}

/// Actions as a verdict for packets like `key`.
pub fn verdict(key: &Flow, mask: &Mask, actions: &[Action]) -> Result<Verdict, Reason> {
    let mut v = Verdict::default();
    for action in actions {
        if let Action::Output(port) = action {
            if v.outputs.len() == MAX_OUTPUTS || v.outputs.contains(port) {
                return Err(Reason::Outputs);
            }
            v.outputs.push(*port);
            continue;
        }
        if let Action::Drop(_) = action
            && v == Verdict::default()
        {
            return Ok(v);
        }
        if !v.outputs.is_empty() {
            // What went out before must not see the change.
            return Err(Reason::Outputs);
        }
        match action {
            Action::PopVlan if !v.pop_vlan && v.push_vlan.is_none() && !key.vlans[0].tpid.is_zero() => {
                v.pop_vlan = true;
            }
            Action::PushVlan { tpid, tci } if v.push_vlan.is_none() => {
                v.push_vlan = Some((*tpid, tci.get() & !Vlan::CFI));
            }
            Action::Set(SetField::Ethernet(value, m)) if v.set_eth.is_none() => {
                // What stays must be known.
                let known = |m: Mac, field: Fields| m == Mac([0xff; 6]) || Fields::of(mask).has(field);
                if !known(m.dst, Fields::DL_DST) || !known(m.src, Fields::DL_SRC) {
                    return Err(Reason::Action);
                }
                // A match on a part of an address is made on all of it.
                v.set_eth = Some((merge(value.dst, m.dst, key.dl_dst), merge(value.src, m.src, key.dl_src)));
            }
            Action::Set(SetField::Ipv4(value, m))
                if v.set_ttl.is_none() && key.dl_type.get() == proto::ETH_IP && mask.0.nw_ttl == 0xff =>
            {
                let others = m.src.is_zero() && m.dst.is_zero() && m.tos == 0;
                if !others || m.ttl != 0xff {
                    return Err(Reason::Action);
                }
                v.set_ttl = Some((key.nw_ttl, value.ttl));
            }
            Action::Set(SetField::Ipv6(value, m))
                if v.set_ttl.is_none() && key.dl_type.get() == proto::ETH_IPV6 && mask.0.nw_ttl == 0xff =>
            {
                let others =
                    m.src == Be128::ZERO && m.dst == Be128::ZERO && m.tclass == 0 && m.label.is_zero();
                if !others || m.hlimit != 0xff {
                    return Err(Reason::Action);
                }
                v.set_ttl = Some((key.nw_ttl, value.hlimit));
            }
            _ => return Err(Reason::Action),
        }
    }
    // Changed and sent nowhere: dropped.
    if v.outputs.is_empty() { Ok(Verdict::default()) } else { Ok(v) }
}

/// Length of what the programs know of an entry.
pub const VALUE_LEN: usize = 48;
/// Places in a value; all 32 bits wide and in host order but for addresses.
pub mod value_at {
    #![allow(missing_docs, reason = "names of fields")]
    pub const COUNTER: usize = 0;
    pub const OPS: usize = 4;
    pub const MAX_FRAME: usize = 8;
    /// Four of them; the first is the last to be served, and 0 means none.
    pub const OUTPUTS: usize = 12;
    /// TPID in network order, then TCI.
    pub const VLAN: usize = 28;
    pub const ETH: usize = 32;
    /// Old and new.
    pub const TTL: usize = 44;
}
/// Bits of [`value_at::OPS`].
pub mod op {
    #![allow(missing_docs, reason = "names of operations")]
    pub const DROP: i32 = 1;
    pub const POP_VLAN: i32 = 2;
    pub const PUSH_VLAN: i32 = 4;
    pub const SET_ETH: i32 = 8;
    pub const SET_TTL4: i32 = 16;
    pub const SET_TTL6: i32 = 32;
    /// More than one output.
    pub const COPIES: i32 = 64;
}

/// A verdict as the programs read it. `outputs`: interface indexes in place of the verdict's ports.
pub fn encode_value(v: &Verdict, v6: bool, counter: u32, max_frame: u32, outputs: &[i32]) -> [u8; VALUE_LEN] {
    let mut out = [0; VALUE_LEN];
    let mut ops = 0;
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(value_at::COUNTER, &counter.to_ne_bytes());
    put(value_at::MAX_FRAME, &max_frame.to_ne_bytes());
    // From the last to the first, so that packets leave in order.
    for (i, ifindex) in outputs.iter().rev().take(MAX_OUTPUTS).enumerate() {
        put(value_at::OUTPUTS + 4 * i, &ifindex.to_ne_bytes());
    }
    let mut when = |on: bool, bit: i32| ops |= if on { bit } else { 0 };
    when(outputs.is_empty(), op::DROP);
    when(outputs.len() > 1, op::COPIES);
    when(v.pop_vlan, op::POP_VLAN);
    if let Some((tpid, tci)) = v.push_vlan {
        when(true, op::PUSH_VLAN);
        put(value_at::VLAN, &tpid.to_bytes());
        put(value_at::VLAN + 2, &tci.to_ne_bytes());
    }
    if let Some((dst, src)) = v.set_eth {
        when(true, op::SET_ETH);
        put(value_at::ETH, &dst.0);
        put(value_at::ETH + 6, &src.0);
    }
    if let Some((old, new)) = v.set_ttl {
        when(true, if v6 { op::SET_TTL6 } else { op::SET_TTL4 });
        put(value_at::TTL, &[old, new]);
    }
    put(value_at::OPS, &ops.to_ne_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> Flow {
        let mut key = Flow::zeroed();
        key.in_port = 1;
        key.dl_type = Be16::new(proto::ETH_IP);
        key.nw_proto = proto::IP_UDP;
        key.nw_src = Be32::new(0x0a00_0001);
        key.dl_dst = Mac([2, 0, 0, 0, 0, 2]);
        key
    }

    #[test]
    fn a_partial_mask_becomes_a_whole_field() {
        let mut mask = Mask::default();
        mask.0.nw_src = Be32::new(0xff00_0000);
        mask.0.in_port = u32::MAX;
        assert_eq!(Fields::of(&mask), Fields::NW_SRC);
        let key = encode(&udp(), Fields::NW_SRC, 7);
        assert_eq!(key[at::NW_SRC..at::NW_SRC + 4], [10, 0, 0, 1]);
        assert_eq!(key[at::DL_DST..at::DL_DST + 6], [0; 6], "nobody looks at it");
    }

    #[test]
    fn what_it_cannot_match_is_named() {
        let (mut key, mut mask) = (udp(), Mask::default());
        mask.0.ct_state = 0xff;
        mask.0.nw_frag = 3;
        assert_eq!(check_match(&key, &mask), Ok(()), "the same for all fresh packets");
        mask.0.tcp_flags = Be16::MAX;
        assert_eq!(check_match(&key, &mask), Ok(()), "UDP has none");
        key.nw_proto = proto::IP_TCP;
        assert_eq!(check_match(&key, &mask), Err(Reason::TcpFlags));
        key.nw_proto = 47;
        assert_eq!(check_match(&key, &mask), Err(Reason::Protocol));
        key = udp();
        key.nw_frag = 1;
        assert_eq!(check_match(&key, &mask), Err(Reason::Ethertype));
        key = udp();
        key.pkt_mark = 1;
        assert_eq!(check_match(&key, &Mask::default()), Ok(()));
        mask.0.pkt_mark = 1;
        assert_eq!(check_match(&key, &mask), Err(Reason::Match));
        key = udp();
        key.dl_dst = Mac([0xff; 6]);
        assert_eq!(check_match(&key, &mask), Err(Reason::Multicast));
    }

    #[test]
    fn actions_it_can_do_and_others() {
        let (key, mask) = (udp(), Mask::default());
        let out = |n| Action::Output(OdpPort(n));
        let push = Action::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x100a) };
        let v = verdict(&key, &mask, &[push.clone(), out(2), out(3)]).unwrap();
        assert_eq!(v.push_vlan, Some((Be16::new(0x8100), 10)));
        assert_eq!(v.outputs, [OdpPort(2), OdpPort(3)]);
        assert_eq!(verdict(&key, &mask, &[out(2), push, out(3)]), Err(Reason::Outputs));
        assert_eq!(verdict(&key, &mask, &[]), Ok(Verdict::default()));
        assert_eq!(verdict(&key, &mask, &[Action::PopVlan, out(1)]), Err(Reason::Action), "no tag");
        assert_eq!(verdict(&key, &mask, &[Action::Meter(1), out(1)]), Err(Reason::Action));
        let five: Vec<Action> = (1..=5).map(out).collect();
        assert_eq!(verdict(&key, &mask, &five), Err(Reason::Outputs));
    }

    #[test]
    fn outputs_are_served_from_the_last_place_on() {
        let v = Verdict { outputs: vec![OdpPort(1), OdpPort(2)], ..Verdict::default() };
        let bytes = encode_value(&v, false, 3, 1514, &[10, 20]);
        let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!([word(value_at::OUTPUTS), word(value_at::OUTPUTS + 4)], [20, 10]);
        assert_eq!(word(value_at::OPS), op::COPIES);
        assert_eq!(word(value_at::COUNTER), 3);
    }
}
