//! From changed keys to datapath actions.
//!
//! Translation changes a key as OpenFlow actions say. Only when a packet leaves are the differences
//! between that key and the one that the datapath's packet has (the *base*) turned into `set`, `push` and
//! `pop` actions: one for each header, with a mask of the members that changed, as far as they were looked
//! at or written. Order is
//! fixed: Ethernet, MPLS pop, NSH, IP or ARP, ports, MPLS push, VLAN, priority, mark.

use ib_dpif::action::{
    Action as Odp, ArpFields, EthAddrs, IcmpFields, Ipv4Fields, Ipv6Fields, L4Ports, NdFields, SetField,
};
use ib_flow::key::{N_MPLS, Nsh};
use ib_flow::{Flow, Mask, Vlan};
use ib_packet::{Be16, Be32, Mac};

/// Reason for the slow path: the datapath can't do the action.
pub const SLOW_ACTION: u32 = 1 << 5;
/// Reason for the slow path: a continuity check of CFM.
pub const SLOW_CFM: u32 = 1 << 0;
/// Reason for the slow path: a control packet of BFD.
pub const SLOW_BFD: u32 = 1 << 1;
/// Reason for the slow path: a frame of LLDP.
pub const SLOW_LLDP: u32 = 1 << 4;
/// Reason for the slow path: a PDU of LACP.
pub const SLOW_LACP: u32 = 1 << 2;
/// Reason for the slow path: a BPDU.
pub const SLOW_STP: u32 = 1 << 3;

/// Number of VLAN tags.
pub fn count_vlans(flow: &Flow) -> usize {
    flow.vlans.iter().take_while(|v| v.is_present()).count()
}

/// Takes the outermost tag off a key.
pub fn pop_vlan(flow: &mut Flow, wc: &mut Mask) {
    let n = count_vlans(flow);
    if n > 0 {
        wc.0.vlans[..n].fill(Vlan { tpid: Be16::MAX, tci: Be16::MAX });
        flow.vlans.copy_within(1..n, 0);
        flow.vlans[n - 1] = Vlan::default();
    }
}

/// Makes room for an outermost tag.
pub fn push_vlan(flow: &mut Flow, wc: &mut Mask) {
    let n = count_vlans(flow);
    wc.0.vlans[..n].fill(Vlan { tpid: Be16::MAX, tci: Be16::MAX });
    let last = flow.vlans.len() - 1;
    flow.vlans.copy_within(..last, 1);
    flow.vlans[0] = Vlan::default();
}

/// Whether an Ethertype is MPLS.
pub fn is_mpls(dl_type: Be16) -> bool {
    matches!(dl_type.get(), 0x8847 | 0x8848)
}

/// Number of MPLS labels in a key; looks at their bottom-of-stack bits.
pub fn count_mpls(flow: &Flow, wc: &mut Mask) -> usize {
    if !is_mpls(flow.dl_type) {
        return 0;
    }
    let mut n = 0;
    for (i, lse) in flow.mpls_lse.iter().enumerate() {
        wc.0.mpls_lse[i] |= Be32::new(MPLS_BOS);
        if lse.get() & MPLS_BOS != 0 {
            return i + 1;
        }
        n += usize::from(!lse.is_zero());
    }
    n
}

/// Bottom of stack.
pub const MPLS_BOS: u32 = 0x100;

/// Commits all differences but those of tunnels; returns slow path reasons.
pub fn commit(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) -> u32 {
    set_ethernet(flow, base, wc, out);
    let mut mpls_done = false;
    if is_mpls(base.dl_type) && !is_mpls(flow.dl_type) {
        commit_mpls(flow, base, out);
        mpls_done = true;
    }
    set_nsh(flow, base, wc, out);
    let mut slow = set_network(flow, base, wc, out);
    set_ports(flow, base, wc, out);
    slow |= set_icmp(flow, base, wc, out);
    if !mpls_done {
        commit_mpls(flow, base, out);
    }
    commit_vlan(flow, base, wc, out);
    if flow.skb_priority != base.skb_priority {
        base.skb_priority = flow.skb_priority;
        let mask = wc.0.skb_priority;
        out.push(Odp::Set(SetField::Priority(flow.skb_priority & mask, mask)));
    }
    if flow.pkt_mark != base.pkt_mark {
        base.pkt_mark = flow.pkt_mark;
        let mask = wc.0.pkt_mark;
        out.push(Odp::Set(SetField::Mark(flow.pkt_mark & mask, mask)));
    }
    slow
}

/// The mask of a member, empty if the member stays as it is.
fn changed<T: PartialEq, M: Default>(new: T, old: T, mask: M) -> M {
    if new == old { M::default() } else { mask }
}

fn and_mac(a: Mac, m: Mac) -> Mac {
    Mac::from_u64(a.to_u64() & m.to_u64())
}

fn set_ethernet(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<Odp>) {
    if !flow.packet_type.is_zero() || (flow.dl_src == base.dl_src && flow.dl_dst == base.dl_dst) {
        return;
    }
    let mask = EthAddrs {
        src: changed(flow.dl_src, base.dl_src, wc.0.dl_src),
        dst: changed(flow.dl_dst, base.dl_dst, wc.0.dl_dst),
    };
    base.dl_src = flow.dl_src;
    base.dl_dst = flow.dl_dst;
    let key = EthAddrs { src: and_mac(flow.dl_src, mask.src), dst: and_mac(flow.dl_dst, mask.dst) };
    out.push(Odp::Set(SetField::Ethernet(key, mask)));
}

fn commit_vlan(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) {
    let mut base_n = count_vlans(base);
    let mut flow_n = count_vlans(flow);
    while base_n > 0 && flow_n > 0 && base.vlans[base_n - 1] == flow.vlans[flow_n - 1] {
        base_n -= 1;
        flow_n -= 1;
    }
    for _ in 0..base_n {
        pop_vlan(base, wc);
        out.push(Odp::PopVlan);
    }
    for v in flow.vlans[..flow_n].iter().rev() {
        out.push(Odp::PushVlan { tpid: v.tpid, tci: v.tci });
    }
    base.vlans = flow.vlans;
}

fn commit_mpls(flow: &Flow, base: &mut Flow, out: &mut Vec<Odp>) {
    // What actions looked at was marked when they did.
    let unused = &mut Mask::default();
    let mut base_n = count_mpls(base, unused);
    let flow_n = count_mpls(flow, unused);
    // How many labels from the bottom agree but for the top one's contents.
    let common = (0..base_n.min(flow_n))
        .take_while(|i| base.mpls_lse[base_n - 1 - i] == flow.mpls_lse[flow_n - 1 - i])
        .count();
    while base_n > common {
        if base_n - 1 == common && flow_n > common {
            // The last one that differs: set it.
            let new = flow.mpls_lse[flow_n - common - 1];
            base.mpls_lse[0] = new;
            out.push(Odp::Set(SetField::Mpls(new, Be32::MAX)));
            break;
        }
        let dl_type = if base_n == 1 { flow.dl_type } else { Be16::new(0x8847) };
        let dl_type = if base_n > 1 && is_mpls(flow.dl_type) { flow.dl_type } else { dl_type };
        out.push(Odp::PopMpls(dl_type));
        base.mpls_lse.copy_within(1.., 0);
        base.mpls_lse[N_MPLS - 1] = Be32::ZERO;
        base.dl_type = dl_type;
        base_n -= 1;
    }
    while base_n < flow_n {
        let lse = flow.mpls_lse[flow_n - base_n - 1];
        base.mpls_lse.copy_within(..N_MPLS - 1, 1);
        base.mpls_lse[0] = lse;
        base.dl_type = flow.dl_type;
        out.push(Odp::PushMpls { lse, ethertype: flow.dl_type });
        base_n += 1;
    }
}

fn set_nsh(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<Odp>) {
    if flow.dl_type.get() != 0x894f || flow.nsh == base.nsh {
        return;
    }
    base.nsh = flow.nsh;
    // These two say what kind of header it is.
    let mask = Nsh { mdtype: 0, np: 0, ..wc.0.nsh };
    out.push(Odp::Set(SetField::Nsh(flow.nsh, mask)));
}

fn set_network(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) -> u32 {
    // Without a protocol there is no header to change.
    match base.dl_type.get() {
        0x0800 if flow.nw_proto != 0 => {
            set_ipv4(flow, base, wc, out);
            0
        }
        0x86dd if flow.nw_proto != 0 => {
            set_ipv6(flow, base, wc, out);
            set_nd(flow, base, wc, out)
        }
        0x0806 | 0x8035 if flow.nw_proto != 0 => set_arp(flow, base, wc, out),
        _ => 0,
    }
}

fn set_ipv4(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) {
    let key = |f: &Flow| (f.nw_src, f.nw_dst, f.nw_tos, f.nw_ttl);
    if key(flow) == key(base) {
        return;
    }
    let m = &wc.0;
    let mask = Ipv4Fields {
        src: changed(flow.nw_src, base.nw_src, m.nw_src),
        dst: changed(flow.nw_dst, base.nw_dst, m.nw_dst),
        tos: changed(flow.nw_tos, base.nw_tos, m.nw_tos),
        ttl: changed(flow.nw_ttl, base.nw_ttl, m.nw_ttl),
        proto: 0,
        frag: 0,
    };
    (base.nw_src, base.nw_dst, base.nw_tos, base.nw_ttl) = key(flow);
    let value = Ipv4Fields {
        src: flow.nw_src & mask.src,
        dst: flow.nw_dst & mask.dst,
        tos: flow.nw_tos & mask.tos,
        ttl: flow.nw_ttl & mask.ttl,
        proto: 0,
        frag: 0,
    };
    out.push(Odp::Set(SetField::Ipv4(value, mask)));
}

fn set_ipv6(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) {
    let key = |f: &Flow| (f.ipv6_src, f.ipv6_dst, f.ipv6_label, f.nw_tos, f.nw_ttl);
    if key(flow) == key(base) {
        return;
    }
    let m = &wc.0;
    let mask = Ipv6Fields {
        src: changed(flow.ipv6_src, base.ipv6_src, m.ipv6_src),
        dst: changed(flow.ipv6_dst, base.ipv6_dst, m.ipv6_dst),
        label: changed(flow.ipv6_label, base.ipv6_label, m.ipv6_label & Be32::new(0xf_ffff)),
        tclass: changed(flow.nw_tos, base.nw_tos, m.nw_tos),
        hlimit: changed(flow.nw_ttl, base.nw_ttl, m.nw_ttl),
        proto: 0,
        frag: 0,
    };
    (base.ipv6_src, base.ipv6_dst, base.ipv6_label, base.nw_tos, base.nw_ttl) = key(flow);
    let value = Ipv6Fields {
        src: flow.ipv6_src & mask.src,
        dst: flow.ipv6_dst & mask.dst,
        label: flow.ipv6_label & mask.label,
        tclass: flow.nw_tos & mask.tclass,
        hlimit: flow.nw_ttl & mask.hlimit,
        proto: 0,
        frag: 0,
    };
    out.push(Odp::Set(SetField::Ipv6(value, mask)));
}

fn set_arp(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<Odp>) -> u32 {
    let key = |f: &Flow| (f.nw_src, f.nw_dst, f.nw_proto, f.arp_sha, f.arp_tha);
    if key(flow) == key(base) {
        return 0;
    }
    let m = &wc.0;
    let mask = ArpFields {
        sip: changed(flow.nw_src, base.nw_src, m.nw_src),
        tip: changed(flow.nw_dst, base.nw_dst, m.nw_dst),
        op: changed(flow.nw_proto, base.nw_proto, Be16::MAX),
        sha: changed(flow.arp_sha, base.arp_sha, m.arp_sha),
        tha: changed(flow.arp_tha, base.arp_tha, m.arp_tha),
    };
    (base.nw_src, base.nw_dst, base.nw_proto, base.arp_sha, base.arp_tha) = key(flow);
    let value = ArpFields {
        sip: flow.nw_src & mask.sip,
        tip: flow.nw_dst & mask.tip,
        op: Be16::new(flow.nw_proto.into()) & mask.op,
        sha: and_mac(flow.arp_sha, mask.sha),
        tha: and_mac(flow.arp_tha, mask.tha),
    };
    out.push(Odp::Set(SetField::Arp(value, mask)));
    SLOW_ACTION
}

fn is_nd(flow: &Flow, wc: &mut Mask) -> bool {
    if flow.dl_type.get() != 0x86dd || flow.nw_proto != 58 || flow.tp_dst.get() != 0 {
        return false;
    }
    wc.0.nw_proto = 0xff;
    wc.0.tp_dst = Be16::MAX;
    wc.0.tp_src = Be16::MAX;
    matches!(flow.tp_src.get(), 135 | 136)
}

fn set_nd(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) -> u32 {
    let key = |f: &Flow| (f.nd_target, f.arp_sha, f.arp_tha);
    if key(flow) == key(base) || !is_nd(flow, wc) {
        return 0;
    }
    let m = &wc.0;
    let mask = NdFields {
        target: changed(flow.nd_target, base.nd_target, m.nd_target),
        sll: changed(flow.arp_sha, base.arp_sha, m.arp_sha),
        tll: changed(flow.arp_tha, base.arp_tha, m.arp_tha),
    };
    (base.nd_target, base.arp_sha, base.arp_tha) = key(flow);
    let value = NdFields {
        target: flow.nd_target & mask.target,
        sll: and_mac(flow.arp_sha, mask.sll),
        tll: and_mac(flow.arp_tha, mask.tll),
    };
    out.push(Odp::Set(SetField::Nd(value, mask)));
    SLOW_ACTION
}

fn is_ip(flow: &Flow) -> bool {
    matches!(flow.dl_type.get(), 0x0800 | 0x86dd)
}

fn set_ports(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<Odp>) {
    if (flow.tp_src, flow.tp_dst) == (base.tp_src, base.tp_dst) || !is_ip(base) {
        return;
    }
    let mask = L4Ports {
        src: changed(flow.tp_src, base.tp_src, wc.0.tp_src),
        dst: changed(flow.tp_dst, base.tp_dst, wc.0.tp_dst),
    };
    let value = L4Ports { src: flow.tp_src & mask.src, dst: flow.tp_dst & mask.dst };
    let set = match flow.nw_proto {
        6 => SetField::Tcp(value, mask),
        17 => SetField::Udp(value, mask),
        132 => SetField::Sctp(value, mask),
        _ => return,
    };
    (base.tp_src, base.tp_dst) = (flow.tp_src, flow.tp_dst);
    out.push(Odp::Set(set));
}

fn set_icmp(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<Odp>) -> u32 {
    let is_icmp = matches!((base.dl_type.get(), flow.nw_proto), (0x0800, 1) | (0x86dd, 58));
    if (flow.tp_src, flow.tp_dst) == (base.tp_src, base.tp_dst) || !is_icmp {
        return 0;
    }
    // Both or neither: the datapath writes them together.
    wc.0.tp_src = Be16::MAX;
    wc.0.tp_dst = Be16::MAX;
    let byte = |v: Be16| (v.get() & 0xff) as u8;
    let mask = IcmpFields { kind: 0xff, code: 0xff };
    let value = IcmpFields { kind: byte(flow.tp_src), code: byte(flow.tp_dst) };
    let v4 = base.dl_type.get() == 0x0800;
    let set = if v4 { SetField::Icmp(value, mask) } else { SetField::Icmpv6(value, mask) };
    (base.tp_src, base.tp_dst) = (flow.tp_src, flow.tp_dst);
    out.push(Odp::Set(set));
    SLOW_ACTION
}
