//! Actions: `OVS_ACTION_ATTR_*`.
//!
//! `pid` of [`put_actions`] replaces that of `userspace` actions: only the provider knows which socket listens. Sets whose mask is not
//! whole travel as `OVS_ACTION_ATTR_SET_MASKED`, value then mask; a tunnel is always set whole.

use std::sync::Arc;

use ib_flow::OdpPort;
use ib_packet::{Be16, Be32, Be128};

use super::key::{self, decode_nsh, macs, put_nsh};
use super::tunnel::{decode_tunnel, put_tunnel};
use super::{
    CodecError, MAX_DEPTH, Writer, attributes, field, label_bytes, label_of, text_of, u16_of, u32_of, whole,
};
use crate::action::{
    Action, ArpFields, CtAction, EthAddrs, HashAlg, IcmpFields, Ipv4Fields, Ipv6Fields, L4Ports, NatAction,
    NatRange, NdFields, SetField, UserspaceAction,
};

const OUTPUT: u16 = 1;
const USERSPACE: u16 = 2;
const SET: u16 = 3;
const PUSH_VLAN: u16 = 4;
const POP_VLAN: u16 = 5;
const SAMPLE: u16 = 6;
const RECIRC: u16 = 7;
const HASH: u16 = 8;
const PUSH_MPLS: u16 = 9;
const POP_MPLS: u16 = 10;
const SET_MASKED: u16 = 11;
const CT: u16 = 12;
const TRUNC: u16 = 13;
const PUSH_ETH: u16 = 14;
const POP_ETH: u16 = 15;
const CT_CLEAR: u16 = 16;
const PUSH_NSH: u16 = 17;
const POP_NSH: u16 = 18;
const METER: u16 = 19;
const CLONE: u16 = 20;
const CHECK_PKT_LEN: u16 = 21;
const ADD_MPLS: u16 = 22;
const DEC_TTL: u16 = 23;
const DROP: u16 = 24;
const PSAMPLE: u16 = 25;

// Those of user space have numbers of our own, far above the kernel's, which refuses them.
const LB_OUTPUT: u16 = 0x3f01;
const TNL_PUSH: u16 = 0x3f02;
const TNL_POP: u16 = 0x3f03;

/// `OVS_USERSPACE_ATTR_*`
mod user {
    pub const PID: u16 = 1;
    pub const USERDATA: u16 = 2;
    pub const EGRESS_TUN_PORT: u16 = 3;
    pub const ACTIONS: u16 = 4;
}

/// `OVS_CT_ATTR_*`
mod ct {
    pub const COMMIT: u16 = 1;
    pub const ZONE: u16 = 2;
    pub const MARK: u16 = 3;
    pub const LABELS: u16 = 4;
    pub const HELPER: u16 = 5;
    pub const NAT: u16 = 6;
    pub const FORCE_COMMIT: u16 = 7;
    pub const EVENTMASK: u16 = 8;
    pub const TIMEOUT: u16 = 9;
}

/// `OVS_NAT_ATTR_*`
mod nat {
    pub const SRC: u16 = 1;
    pub const DST: u16 = 2;
    pub const IP_MIN: u16 = 3;
    pub const IP_MAX: u16 = 4;
    pub const PROTO_MIN: u16 = 5;
    pub const PROTO_MAX: u16 = 6;
    pub const PERSISTENT: u16 = 7;
    pub const PROTO_HASH: u16 = 8;
    pub const PROTO_RANDOM: u16 = 9;
}

/// Appends actions; those that only the user-space datapath has in a form of our own, which the kernel refuses.
///
/// Errors: one that has no form.
pub fn put_actions(w: &mut Writer, actions: &[Action], pid: Option<u32>) -> Result<(), CodecError> {
    actions.iter().try_for_each(|a| put_action(w, a, pid))
}

fn put_action(w: &mut Writer, action: &Action, pid: Option<u32>) -> Result<(), CodecError> {
    let list = |w: &mut Writer, kind, list: &[Action]| w.nest(kind, |w| put_actions(w, list, pid));
    match action {
        Action::Output(port) => w.put_u32(OUTPUT, port.0),
        Action::Userspace(u) => w.nest(USERSPACE, |w| put_userspace(w, u, pid)),
        Action::Set(set) => put_set(w, set)?,
        Action::PushVlan { tpid, tci } => w.put_parts(PUSH_VLAN, &[&tpid.to_bytes(), &tci.to_bytes()]),
        Action::PopVlan => w.flag(POP_VLAN),
        Action::Sample { probability, actions } => w.nest(SAMPLE, |w| {
            w.put_u32(1, *probability);
            list(w, 2, actions)
        })?,
        Action::Recirc(id) => w.put_u32(RECIRC, *id),
        Action::Hash { alg, basis } => {
            let alg: u32 = match alg {
                HashAlg::L4 => 0,
                HashAlg::SymL4 => 1,
            };
            w.put_parts(HASH, &[&alg.to_ne_bytes(), &basis.to_ne_bytes()]);
        }
        // The struct is padded to its alignment.
        Action::PushMpls { lse, ethertype } => {
            w.put_parts(PUSH_MPLS, &[&lse.to_bytes(), &ethertype.to_bytes(), &[0, 0]]);
        }
        Action::AddMpls { lse, ethertype } => {
            w.put_parts(ADD_MPLS, &[&lse.to_bytes(), &ethertype.to_bytes(), &[0, 0]]);
        }
        Action::PopMpls(ethertype) => w.put(POP_MPLS, &ethertype.to_bytes()),
        Action::Trunc(max) => w.put_u32(TRUNC, *max),
        Action::PushEth { dst, src } => w.put_parts(PUSH_ETH, &[&src.0, &dst.0]),
        Action::PopEth => w.flag(POP_ETH),
        Action::PushNsh { nsh, md2 } => w.nest(PUSH_NSH, |w| {
            put_nsh(w, nsh, nsh);
            if nsh.mdtype == 2 {
                w.put(key::NSH_MD2, md2);
            }
        }),
        Action::PopNsh => w.flag(POP_NSH),
        Action::Ct(ct) => w.nest(CT, |w| put_ct(w, ct)),
        Action::CtClear => w.flag(CT_CLEAR),
        Action::Meter(id) => w.put_u32(METER, *id),
        Action::Clone(actions) => list(w, CLONE, actions)?,
        Action::CheckPktLen { len, greater, less_or_equal } => w.nest(CHECK_PKT_LEN, |w| {
            w.put_u16(1, *len);
            list(w, 2, greater)?;
            list(w, 3, less_or_equal)
        })?,
        Action::DecTtl { exception } => w.nest(DEC_TTL, |w| list(w, 1, exception))?,
        Action::Drop(reason) => w.put_u32(DROP, *reason),
        Action::Psample { group, cookie } => w.nest(PSAMPLE, |w| {
            w.put_u32(1, *group);
            if !cookie.is_empty() {
                w.put(2, cookie);
            }
        }),
        Action::LbOutput(bond) => w.put_u32(LB_OUTPUT, *bond),
        Action::TnlPush { tnl_port, out_port, tnl_type, header } => {
            let ports = [tnl_port.0, out_port.0, *tnl_type].map(u32::to_ne_bytes);
            w.put_parts(TNL_PUSH, &[ports.as_flattened(), header]);
        }
        Action::TnlPop(port) => w.put_u32(TNL_POP, port.0),
    }
    Ok(())
}

fn put_userspace(w: &mut Writer, u: &UserspaceAction, pid: Option<u32>) {
    w.put_u32(user::PID, pid.unwrap_or(u.pid));
    if !u.userdata.is_empty() {
        w.put(user::USERDATA, &u.userdata);
    }
    if let Some(port) = u.egress_tun_out_port {
        w.put_u32(user::EGRESS_TUN_PORT, port.0);
    }
    if u.actions {
        w.flag(user::ACTIONS);
    }
}

fn put_ct(w: &mut Writer, c: &CtAction) {
    if c.commit {
        w.flag(if c.force { ct::FORCE_COMMIT } else { ct::COMMIT });
    }
    if c.zone != 0 {
        w.put_u16(ct::ZONE, c.zone);
    }
    if let Some((v, m)) = c.mark {
        w.put_parts(ct::MARK, &[&v.to_ne_bytes(), &m.to_ne_bytes()]);
    }
    if let Some((v, m)) = c.label {
        w.put_parts(ct::LABELS, &[&label_bytes(v), &label_bytes(m)]);
    }
    if let Some(helper) = &c.helper {
        w.put_text(ct::HELPER, helper);
    }
    match &c.nat {
        None => {}
        Some(NatAction::Existing) => w.nest(ct::NAT, |_| ()),
        Some(NatAction::Src(range)) => w.nest(ct::NAT, |w| put_range(w, nat::SRC, range)),
        Some(NatAction::Dst(range)) => w.nest(ct::NAT, |w| put_range(w, nat::DST, range)),
    }
    if let Some(timeout) = &c.timeout {
        w.put_text(ct::TIMEOUT, timeout);
    }
}

fn put_range(w: &mut Writer, direction: u16, r: &NatRange) {
    w.flag(direction);
    if let Some((low, high)) = r.addrs {
        let skip = if r.v6 { 0 } else { 12 };
        w.put(nat::IP_MIN, &low.to_bytes()[skip..]);
        if low != high {
            w.put(nat::IP_MAX, &high.to_bytes()[skip..]);
        }
    }
    if let Some((low, high)) = r.ports {
        w.put_u16(nat::PROTO_MIN, low);
        if low != high {
            w.put_u16(nat::PROTO_MAX, high);
        }
    }
    let flags = [(r.persistent, nat::PERSISTENT), (r.hash, nat::PROTO_HASH), (r.random, nat::PROTO_RANDOM)];
    flags.into_iter().filter(|(on, _)| *on).for_each(|(_, kind)| w.flag(kind));
}

fn put_set(w: &mut Writer, set: &SetField) -> Result<(), CodecError> {
    let (kind, v, m): (u16, Vec<u8>, Vec<u8>) = match set {
        SetField::Priority(v, m) => (key::PRIORITY, v.to_ne_bytes().into(), m.to_ne_bytes().into()),
        SetField::Mark(v, m) => (key::SKB_MARK, v.to_ne_bytes().into(), m.to_ne_bytes().into()),
        SetField::Ethernet(v, m) => (key::ETHERNET, eth(v), eth(m)),
        SetField::Ipv4(v, m) => (key::IPV4, ipv4(v), ipv4(m)),
        SetField::Ipv6(v, m) => (key::IPV6, ipv6(v), ipv6(m)),
        SetField::Tcp(v, m) => (key::TCP, ports(v), ports(m)),
        SetField::Udp(v, m) => (key::UDP, ports(v), ports(m)),
        SetField::Sctp(v, m) => (key::SCTP, ports(v), ports(m)),
        SetField::Icmp(v, m) => (key::ICMP, vec![v.kind, v.code], vec![m.kind, m.code]),
        SetField::Icmpv6(v, m) => (key::ICMPV6, vec![v.kind, v.code], vec![m.kind, m.code]),
        SetField::Arp(v, m) => (key::ARP, arp(v), arp(m)),
        SetField::Nd(v, m) => (key::ND, nd(v), nd(m)),
        SetField::Mpls(v, m) => (key::MPLS, v.to_bytes().into(), m.to_bytes().into()),
        SetField::Tunnel(t) => {
            w.nest(SET, |w| w.nest(key::TUNNEL, |w| put_tunnel(w, t, t)));
            return Ok(());
        }
        SetField::Nsh(v, m) => {
            // Value and mask are behind each other in each nested attribute.
            let base = |n: &ib_flow::key::Nsh| [n.flags, n.ttl, n.mdtype, n.np];
            w.nest(SET_MASKED, |w| {
                w.nest(key::NSH, |w| {
                    let (vp, mp) = (v.path_hdr.to_bytes(), m.path_hdr.to_bytes());
                    w.put_parts(key::NSH_BASE, &[&base(v), &vp, &base(m), &mp]);
                    let words = v.context.iter().chain(&m.context);
                    let context: Vec<u8> = words.flat_map(|c| c.to_bytes()).collect();
                    if m.context.iter().any(|c| !c.is_zero()) {
                        w.put(key::NSH_MD1, &context);
                    }
                });
            });
            return Ok(());
        }
    };
    if m.iter().all(|b| *b == u8::MAX) {
        w.nest(SET, |w| w.put(kind, &v));
    } else {
        w.nest(SET_MASKED, |w| w.put_parts(kind, &[&v, &m]));
    }
    Ok(())
}

fn eth(f: &EthAddrs) -> Vec<u8> {
    [f.src.0, f.dst.0].concat()
}
fn ipv4(f: &Ipv4Fields) -> Vec<u8> {
    [f.src.to_bytes(), f.dst.to_bytes(), [f.proto, f.tos, f.ttl, f.frag]].concat()
}
fn ipv6(f: &Ipv6Fields) -> Vec<u8> {
    let tail = [f.label.to_bytes(), [f.proto, f.tclass, f.hlimit, f.frag]].concat();
    [&f.src.to_bytes()[..], &f.dst.to_bytes(), &tail].concat()
}
fn ports(f: &L4Ports) -> Vec<u8> {
    [f.src.to_bytes(), f.dst.to_bytes()].concat()
}
fn arp(f: &ArpFields) -> Vec<u8> {
    let (sip, tip, op) = (f.sip.to_bytes(), f.tip.to_bytes(), f.op.to_bytes());
    [&sip[..], &tip, &op, &f.sha.0, &f.tha.0, &[0, 0]].concat()
}
fn nd(f: &NdFields) -> Vec<u8> {
    [&f.target.to_bytes()[..], &f.sll.0, &f.tll.0].concat()
}

/// Reads actions.
///
/// Errors: an attribute that is malformed or that this program does not know: a flow that is half understood must not be taken over.
pub fn decode_actions(bytes: &[u8]) -> Result<Arc<[Action]>, CodecError> {
    list_of(bytes, MAX_DEPTH)
}

fn list_of(bytes: &[u8], depth: usize) -> Result<Arc<[Action]>, CodecError> {
    let depth = depth.checked_sub(1).ok_or(CodecError::Malformed("nested actions"))?;
    attributes(bytes).map(|a| a.and_then(|(kind, data)| action_of(kind, data, depth))).collect()
}

fn action_of(kind: u16, data: &[u8], depth: usize) -> Result<Action, CodecError> {
    let mpls = |what| -> Result<(Be32, Be16, [u8; 2]), CodecError> {
        let [a, b, c, d, e, f, g, h] = whole(data, what)?;
        Ok((Be32::from_bytes([a, b, c, d]), Be16::from_bytes([e, f]), [g, h]))
    };
    Ok(match kind {
        OUTPUT => Action::Output(OdpPort(u32_of(data, "output")?)),
        USERSPACE => Action::Userspace(userspace_of(data)?),
        SET => Action::Set(set_of(data, false)?),
        SET_MASKED => Action::Set(set_of(data, true)?),
        PUSH_VLAN => {
            let [a, b, c, d] = whole(data, "push_vlan")?;
            Action::PushVlan { tpid: Be16::from_bytes([a, b]), tci: Be16::from_bytes([c, d]) }
        }
        POP_VLAN => Action::PopVlan,
        SAMPLE => {
            let (mut probability, mut actions) = (0, Arc::from([]));
            for attribute in attributes(data) {
                match attribute? {
                    (1, data) => probability = u32_of(data, "sample")?,
                    (2, data) => actions = list_of(data, depth)?,
                    _ => {}
                }
            }
            Action::Sample { probability, actions }
        }
        RECIRC => Action::Recirc(u32_of(data, "recirc")?),
        HASH => {
            let [a, b, c, d, basis @ ..]: [u8; 8] = whole(data, "hash")?;
            let alg = match u32::from_ne_bytes([a, b, c, d]) {
                0 => HashAlg::L4,
                1 => HashAlg::SymL4,
                _ => return Err(CodecError::Unsupported("hash algorithm")),
            };
            Action::Hash { alg, basis: u32::from_ne_bytes(basis) }
        }
        PUSH_MPLS => {
            let (lse, ethertype, _) = mpls("push_mpls")?;
            Action::PushMpls { lse, ethertype }
        }
        ADD_MPLS => match mpls("add_mpls")? {
            (lse, ethertype, [0, 0]) => Action::AddMpls { lse, ethertype },
            (lse, ethertype, _) => Action::PushMpls { lse, ethertype },
        },
        POP_MPLS => Action::PopMpls(Be16::from_bytes(whole(data, "pop_mpls")?)),
        TRUNC => Action::Trunc(u32_of(data, "trunc")?),
        PUSH_ETH => {
            let (src, dst) = macs(whole(data, "push_eth")?);
            Action::PushEth { dst, src }
        }
        POP_ETH => Action::PopEth,
        PUSH_NSH => {
            let (nsh, md2) = decode_nsh(data)?;
            Action::PushNsh { nsh, md2: md2.into() }
        }
        POP_NSH => Action::PopNsh,
        CT => Action::Ct(Box::new(ct_of(data)?)),
        CT_CLEAR => Action::CtClear,
        METER => Action::Meter(u32_of(data, "meter")?),
        CLONE => Action::Clone(list_of(data, depth)?),
        CHECK_PKT_LEN => {
            let (mut len, mut greater, mut less_or_equal) = (0, Arc::from([]), Arc::from([]));
            for attribute in attributes(data) {
                match attribute? {
                    (1, data) => len = u16_of(data, "check_pkt_len")?,
                    (2, data) => greater = list_of(data, depth)?,
                    (3, data) => less_or_equal = list_of(data, depth)?,
                    _ => {}
                }
            }
            Action::CheckPktLen { len, greater, less_or_equal }
        }
        DEC_TTL => {
            let mut exception = Arc::from([]);
            for attribute in attributes(data) {
                if let (1, data) = attribute? {
                    exception = list_of(data, depth)?;
                }
            }
            Action::DecTtl { exception }
        }
        DROP => Action::Drop(u32_of(data, "drop")?),
        PSAMPLE => {
            let (mut group, mut cookie) = (0, Arc::from([]));
            for attribute in attributes(data) {
                match attribute? {
                    (1, data) => group = u32_of(data, "psample")?,
                    (2, data) => cookie = Arc::from(data),
                    _ => {}
                }
            }
            Action::Psample { group, cookie }
        }
        LB_OUTPUT => Action::LbOutput(u32_of(data, "lb_output")?),
        TNL_PUSH => {
            let bad = CodecError::Malformed("tnl_push");
            let (ports, header) = data.split_first_chunk::<12>().ok_or(bad)?;
            let [tnl_port, out_port, tnl_type] =
                [0, 4, 8].map(|at| field(ports, at).map_or(0, u32::from_ne_bytes));
            let (tnl_port, out_port) = (OdpPort(tnl_port), OdpPort(out_port));
            Action::TnlPush { tnl_port, out_port, tnl_type, header: Arc::from(header) }
        }
        TNL_POP => Action::TnlPop(OdpPort(u32_of(data, "tnl_pop")?)),
        _ => return Err(CodecError::Unsupported("action")),
    })
}

fn userspace_of(data: &[u8]) -> Result<UserspaceAction, CodecError> {
    let mut u = UserspaceAction::default();
    for attribute in attributes(data) {
        match attribute? {
            (user::PID, data) => u.pid = u32_of(data, "userspace")?,
            (user::USERDATA, data) => u.userdata = data.into(),
            (user::EGRESS_TUN_PORT, data) => {
                u.egress_tun_out_port = Some(OdpPort(u32_of(data, "userspace")?));
            }
            (user::ACTIONS, _) => u.actions = true,
            _ => {}
        }
    }
    Ok(u)
}

fn ct_of(data: &[u8]) -> Result<CtAction, CodecError> {
    let mut c = CtAction::default();
    for attribute in attributes(data) {
        match attribute? {
            (ct::COMMIT, _) => c.commit = true,
            (ct::FORCE_COMMIT, _) => (c.commit, c.force) = (true, true),
            (ct::ZONE, data) => c.zone = u16_of(data, "ct zone")?,
            (ct::MARK, data) => {
                let [a, b, c0, d, mask @ ..]: [u8; 8] = whole(data, "ct mark")?;
                c.mark = Some((u32::from_ne_bytes([a, b, c0, d]), u32::from_ne_bytes(mask)));
            }
            (ct::LABELS, data) => {
                let all: [u8; 32] = whole(data, "ct label")?;
                let part = |at| label_of(field(&all, at).unwrap_or_default());
                c.label = Some((part(0), part(16)));
            }
            (ct::HELPER, data) => c.helper = Some(text_of(data, "ct helper")?.into()),
            (ct::TIMEOUT, data) => c.timeout = Some(text_of(data, "ct timeout")?.into()),
            (ct::NAT, data) => c.nat = Some(nat_of(data)?),
            // Which events the kernel reports makes no difference to packets.
            (ct::EVENTMASK, _) => {}
            _ => return Err(CodecError::Unsupported("ct attribute")),
        }
    }
    Ok(c)
}

fn nat_of(data: &[u8]) -> Result<NatAction, CodecError> {
    let mut r = NatRange::default();
    let (mut src, mut dst) = (false, false);
    let (mut low, mut high) = (None, None);
    let (mut low_port, mut high_port) = (None, None);
    let mut addr = |data: &[u8]| -> Result<Be128, CodecError> {
        r.v6 = data.len() == 16;
        if r.v6 {
            return whole(data, "nat address").map(Be128::from_bytes);
        }
        let [a, b, c, d] = whole(data, "nat address")?;
        Ok(Be128::new(u32::from_be_bytes([a, b, c, d]).into()))
    };
    let (mut persistent, mut hash, mut random) = (false, false, false);
    for attribute in attributes(data) {
        match attribute? {
            (nat::SRC, _) => src = true,
            (nat::DST, _) => dst = true,
            (nat::IP_MIN, data) => low = Some(addr(data)?),
            (nat::IP_MAX, data) => high = Some(addr(data)?),
            (nat::PROTO_MIN, data) => low_port = Some(u16_of(data, "nat port")?),
            (nat::PROTO_MAX, data) => high_port = Some(u16_of(data, "nat port")?),
            (nat::PERSISTENT, _) => persistent = true,
            (nat::PROTO_HASH, _) => hash = true,
            (nat::PROTO_RANDOM, _) => random = true,
            _ => return Err(CodecError::Unsupported("nat attribute")),
        }
    }
    (r.persistent, r.hash, r.random) = (persistent, hash, random);
    r.addrs = low.map(|low| (low, high.unwrap_or(low)));
    r.ports = low_port.map(|low| (low, high_port.unwrap_or(low)));
    match (src, dst) {
        (false, false) => Ok(NatAction::Existing),
        (true, false) => Ok(NatAction::Src(r)),
        (false, true) => Ok(NatAction::Dst(r)),
        (true, true) => Err(CodecError::Malformed("nat")),
    }
}

/// The one attribute in a set. Without a mask, every bit is set.
fn set_of(data: &[u8], masked: bool) -> Result<SetField, CodecError> {
    let (kind, data) = attributes(data).next().unwrap_or(Err(CodecError::Malformed("set")))?;
    if kind == key::TUNNEL && !masked {
        return Ok(SetField::Tunnel(Box::new(decode_tunnel(data)?)));
    }
    if kind == key::NSH {
        return nsh_set_of(data, masked);
    }
    let whole_mask;
    let (v, m) = if masked {
        data.split_at(data.len() / 2)
    } else {
        whole_mask = vec![u8::MAX; data.len()];
        (data, &whole_mask[..])
    };
    let word = |b: &[u8]| u32_of(b, "set");
    Ok(match kind {
        key::PRIORITY => SetField::Priority(word(v)?, word(m)?),
        key::SKB_MARK => SetField::Mark(word(v)?, word(m)?),
        key::ETHERNET => SetField::Ethernet(eth_of(v)?, eth_of(m)?),
        key::IPV4 => SetField::Ipv4(ipv4_of(v)?, ipv4_of(m)?),
        key::IPV6 => SetField::Ipv6(ipv6_of(v)?, ipv6_of(m)?),
        key::TCP => SetField::Tcp(ports_of(v)?, ports_of(m)?),
        key::UDP => SetField::Udp(ports_of(v)?, ports_of(m)?),
        key::SCTP => SetField::Sctp(ports_of(v)?, ports_of(m)?),
        key::ICMP => SetField::Icmp(icmp_of(v)?, icmp_of(m)?),
        key::ICMPV6 => SetField::Icmpv6(icmp_of(v)?, icmp_of(m)?),
        key::ARP => SetField::Arp(arp_of(v)?, arp_of(m)?),
        key::ND => SetField::Nd(nd_of(v)?, nd_of(m)?),
        key::MPLS => {
            let lse = |b| whole(b, "set").map(Be32::from_bytes);
            SetField::Mpls(lse(v)?, lse(m)?)
        }
        _ => return Err(CodecError::Unsupported("set")),
    })
}

fn nsh_set_of(data: &[u8], masked: bool) -> Result<SetField, CodecError> {
    if !masked {
        let (v, _) = decode_nsh(data)?;
        let m = ib_flow::key::Nsh {
            flags: u8::MAX,
            ttl: u8::MAX,
            mdtype: u8::MAX,
            np: u8::MAX,
            path_hdr: Be32::MAX,
            context: [Be32::MAX; 4],
        };
        return Ok(SetField::Nsh(v, m));
    }
    // Each nested attribute has its own value and mask: sort them into two headers.
    let (mut values, mut masks) = (Writer::new(), Writer::new());
    for attribute in attributes(data) {
        let (kind, data) = attribute?;
        let (v, m) = data.split_at(data.len() / 2);
        values.put(kind, v);
        masks.put(kind, m);
    }
    Ok(SetField::Nsh(decode_nsh(&values.finish()?)?.0, decode_nsh(&masks.finish()?)?.0))
}

fn eth_of(b: &[u8]) -> Result<EthAddrs, CodecError> {
    let (src, dst) = macs(whole(b, "set Ethernet")?);
    Ok(EthAddrs { src, dst })
}
fn ipv4_of(b: &[u8]) -> Result<Ipv4Fields, CodecError> {
    let all: [u8; 12] = whole(b, "set IPv4")?;
    let word = |at| Be32::from_bytes(field(&all, at).unwrap_or_default());
    let [.., proto, tos, ttl, frag] = all;
    Ok(Ipv4Fields { src: word(0), dst: word(4), proto, tos, ttl, frag })
}
fn ipv6_of(b: &[u8]) -> Result<Ipv6Fields, CodecError> {
    let all: [u8; 40] = whole(b, "set IPv6")?;
    let address = |at| Be128::from_bytes(field(&all, at).unwrap_or_default());
    let label = Be32::from_bytes(field(&all, 32).unwrap_or_default());
    let [.., proto, tclass, hlimit, frag] = all;
    Ok(Ipv6Fields { src: address(0), dst: address(16), label, proto, tclass, hlimit, frag })
}
fn ports_of(b: &[u8]) -> Result<L4Ports, CodecError> {
    let [a, b, c, d] = whole(b, "set ports")?;
    Ok(L4Ports { src: Be16::from_bytes([a, b]), dst: Be16::from_bytes([c, d]) })
}
fn icmp_of(b: &[u8]) -> Result<IcmpFields, CodecError> {
    let [kind, code] = whole(b, "set ICMP")?;
    Ok(IcmpFields { kind, code })
}
fn arp_of(b: &[u8]) -> Result<ArpFields, CodecError> {
    let all: [u8; 24] = whole(b, "set ARP")?;
    let word = |at| Be32::from_bytes(field(&all, at).unwrap_or_default());
    let (sha, tha) = macs(field(&all, 10).unwrap_or_default());
    Ok(ArpFields { sip: word(0), tip: word(4), op: Be16::from_bytes([all[8], all[9]]), sha, tha })
}
fn nd_of(b: &[u8]) -> Result<NdFields, CodecError> {
    let all: [u8; 28] = whole(b, "set neighbour discovery")?;
    let (sll, tll) = macs(field(&all, 16).unwrap_or_default());
    Ok(NdFields { target: Be128::from_bytes(field(&all, 0).unwrap_or_default()), sll, tll })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{PortNames, format_actions, parse_actions};

    fn bytes_of(actions: &[Action], pid: Option<u32>) -> Result<Vec<u8>, CodecError> {
        let mut w = Writer::new();
        put_actions(&mut w, actions, pid)?;
        w.finish()
    }

    #[test]
    fn actions_read_as_the_kernel_writes_them() {
        // push_vlan(vid=12,pcp=3), output 2, ct(commit,zone=5,nat(src)).
        let bytes = b"\x08\0\x04\0\x81\0\x70\x0c\x08\0\x01\0\x02\0\0\0\
\x18\0\x0c\0\x04\0\x01\0\x06\0\x02\0\x05\0\0\0\x08\0\x06\0\x04\0\x01\0";
        let actions = decode_actions(bytes).unwrap();
        let text = format_actions(&actions, &PortNames::none());
        assert_eq!(text, "push_vlan(vid=12,pcp=3),2,ct(commit,zone=5,nat(src))");
        assert_eq!(bytes_of(&actions, None).unwrap(), bytes);
    }

    #[test]
    fn actions_come_back() {
        let names = PortNames::none();
        for text in [
            "set(eth(src=00:01:02:03:04:05/ff:ff:ff:00:00:00)),pop_vlan,sample(sample=50.0%,actions(1,2))",
            "ct(commit,zone=5,mark=0xa0/0xff,label=0x1/0xff,helper=ftp,nat(src=[fe80::1]-[fe80::5]:10-20,random)),3",
            "ct(force_commit,nat(dst=10.0.0.1:80)),ct(nat),ct_clear,recirc(0x10)",
            "check_pkt_len(size=200,gt(4),le(drop)),clone(trunc(100),5),meter(3)",
            "set(ipv4(src=10.0.0.1,dst=10.0.0.2,tos=0/0x3,ttl=64)),set(tcp(dst=80)),set(skb_mark(0x5))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,geneve({class=0xffff,type=0x80,len=4,0xa}),flags(df|key))),hash(l4(0)),2",
            "push_mpls(label=10,tc=1,ttl=64,bos=1,eth_type=0x8847),pop_mpls(eth_type=0x800),push_eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02),pop_eth",
            "userspace(pid=7,userdata(01020304),actions)",
        ] {
            let actions = parse_actions(text, &names).unwrap_or_else(|e| panic!("{text}: {e}"));
            let again = decode_actions(&bytes_of(&actions, None).unwrap()).unwrap();
            assert_eq!(format_actions(&again, &names), format_actions(&actions, &names), "{text}");
        }
    }

    #[test]
    fn the_listener_replaces_the_pid_at_any_depth() {
        let names = PortNames::none();
        let actions = parse_actions("clone(userspace(pid=7))", &names).unwrap();
        let again = decode_actions(&bytes_of(&actions, Some(99)).unwrap()).unwrap();
        assert_eq!(format_actions(&again, &names), "clone(userspace(pid=99))");
    }

    #[test]
    fn depth_is_bounded_and_the_unknown_refused() {
        let mut actions: Arc<[Action]> = Arc::from([]);
        for _ in 0..2 * MAX_DEPTH {
            actions = Arc::from([Action::Clone(actions)]);
        }
        let bytes = bytes_of(&actions, None).unwrap();
        assert_eq!(decode_actions(&bytes), Err(CodecError::Malformed("nested actions")));
        assert_eq!(decode_actions(&[4, 0, 99, 0]), Err(CodecError::Unsupported("action")));
        // Those of user space, in a form of our own.
        let (tnl_port, out_port, header) = (OdpPort(1), OdpPort(2), Arc::from(&b"outer"[..]));
        let own = [
            Action::TnlPush { tnl_port, out_port, tnl_type: 4, header },
            Action::TnlPop(OdpPort(1)),
            Action::LbOutput(9),
        ];
        let bytes = bytes_of(&own, None).unwrap();
        assert_eq!(*decode_actions(&bytes).unwrap(), own);
        assert_eq!(decode_actions(&[8, 0, 2, 0x3f, 1, 0, 0, 0]), Err(CodecError::Malformed("tnl_push")));
    }
}
