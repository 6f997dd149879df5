//! Texts of matches and keys.
//!
//! [`format_match`] prints what `ovs-ofctl dump-flows` prints between priority and actions; the order of
//! fields is fixed and scripts compare it byte for byte. [`format_flow`] prints a packet's key as
//! `ofproto/trace` and packet-ins do: every field that the packet has, but metadata only if it is not zero.

use std::fmt::Write;

use ib_packet::{Be16, Be32};

use super::value::{
    Alt, CT_STATES, TCP_FLAGS, TUN_FLAGS_ALL, format_flags, format_flags_signed, format_ip_masked,
    format_ipv6_masked, format_mac_masked, format_packet_type, format_port, frag_name, hex,
};
use crate::extract::proto;
use crate::fields::FieldValue;
use crate::key::{Flow, Mask, Match, N_MPLS, TunFlags, Tunnel, Vlan};
use crate::port::{OfPort, PortMap};
use crate::tlv;

/// Appends a match's text, `,`-separated, nothing for the match of every packet. Port numbers print as
/// names of `ports` if given.
pub fn format_match(m: &Match, ports: Option<&PortMap>, out: &mut String) {
    let start = out.len();
    Printer { f: &m.flow, w: &m.mask.0, m, ports, out: &mut *out }.all();
    if out.len() > start && out.ends_with(',') {
        out.pop();
    }
}

/// [`format_match`] into a new string.
pub fn match_to_string(m: &Match, ports: Option<&PortMap>) -> String {
    let mut out = String::new();
    format_match(m, ports, &mut out);
    out
}

/// Appends a packet key's text.
pub fn format_flow(flow: &Flow, ports: Option<&PortMap>, out: &mut String) {
    format_match(&match_of_flow(flow), ports, out);
}

/// The text of a packet that came from nowhere: its key without a port of entry.
pub fn packet_to_string(flow: &Flow) -> String {
    let mut m = match_of_flow(flow);
    m.mask.0.in_port = 0;
    m.normalize();
    match_to_string(&m, None)
}

/// A match on everything that a key says.
fn match_of_flow(flow: &Flow) -> Match {
    let mut m = Match { flow: flow.clone(), mask: mask_for_packet(flow), ..Match::default() };
    let w = &mut m.mask.0;
    // Context that is all zeros says nothing.
    if flow.in_port == 0 {
        w.in_port = 0;
    }
    if flow.ct_state == 0 {
        w.ct_state = 0;
    }
    if flow.ct_zone == 0 {
        w.ct_zone = 0;
    }
    if flow.ct_mark == 0 {
        w.ct_mark = 0;
    }
    if flow.ct_label.is_zero() {
        w.ct_label = Default::default();
    }
    if flow.ct_state == 0 || flow.ct_nw_proto == 0 {
        w.ct_nw_proto = 0;
        (w.ct_tp_src, w.ct_tp_dst) = Default::default();
        match flow.dl_type.get() {
            proto::ETH_IP => (w.ct_nw_src, w.ct_nw_dst) = Default::default(),
            proto::ETH_IPV6 => (w.ct_ipv6_src, w.ct_ipv6_dst) = Default::default(),
            _ => {}
        }
    }
    for (w, v) in w.regs.iter_mut().zip(flow.regs) {
        if v == 0 {
            *w = 0;
        }
    }
    if flow.metadata.is_zero() {
        w.metadata = Default::default();
    }
    for (w, v) in [
        (&mut w.recirc_id, flow.recirc_id),
        (&mut w.dp_hash, flow.dp_hash),
        (&mut w.skb_priority, flow.skb_priority),
        (&mut w.pkt_mark, flow.pkt_mark),
    ] {
        if v == 0 {
            *w = 0;
        }
    }
    // Whoever reads a key's text need not be told that it is a megaflow's.
    w.recirc_id = if flow.recirc_id == 0 { 0 } else { w.recirc_id };
    m.normalize();
    m
}

/// [`format_flow`] into a new string.
pub fn flow_to_string(flow: &Flow, ports: Option<&PortMap>) -> String {
    let mut out = String::new();
    format_flow(flow, ports, &mut out);
    out
}

/// All bits of those fields that a packet with this key has. Context fields count as present.
pub fn mask_for_packet(flow: &Flow) -> Mask {
    let mut mask = Mask::default();
    let w = &mut mask.0;
    w.dp_hash = u32::MAX;
    w.in_port = u32::MAX;
    w.packet_type = Be32::MAX;
    let t = &flow.tunnel;
    if t.ip_dst.is_zero() && t.ipv6_dst.is_zero() {
        if !t.tun_id.is_zero() {
            w.tunnel.tun_id = ib_packet::Be64::MAX;
        }
    } else {
        tunnel_mask(t, &mut w.tunnel);
    }
    w.metadata = ib_packet::Be64::MAX;
    w.regs = [u32::MAX; crate::key::N_REGS];
    w.skb_priority = u32::MAX;
    w.pkt_mark = u32::MAX;
    w.ct_state = u8::MAX;
    w.ct_zone = u16::MAX;
    w.ct_mark = u32::MAX;
    w.ct_label = ib_packet::Be128::MAX;
    w.recirc_id = u32::MAX;
    if flow.packet_type.is_zero() {
        w.dl_dst = ib_packet::Mac::BROADCAST;
        w.dl_src = ib_packet::Mac::BROADCAST;
        w.dl_type = Be16::MAX;
        for (w, v) in w.vlans.iter_mut().zip(&flow.vlans) {
            *w = Vlan { tpid: Be16::MAX, tci: Be16::MAX };
            if v.tci.is_zero() {
                break;
            }
        }
    }
    match crate::fields::effective_dl_type(flow) {
        proto::ETH_IP => {
            (w.nw_src, w.nw_dst) = (Be32::MAX, Be32::MAX);
            (w.ct_nw_src, w.ct_nw_dst) = (Be32::MAX, Be32::MAX);
        }
        proto::ETH_IPV6 => {
            let all = ib_packet::Be128::MAX;
            (w.ipv6_src, w.ipv6_dst) = (all, all);
            (w.ct_ipv6_src, w.ct_ipv6_dst) = (all, all);
            w.ipv6_label = Be32::new(0xf_ffff);
            if is_nd(flow) {
                w.nd_target = all;
                (w.arp_sha, w.arp_tha) = (ib_packet::Mac::BROADCAST, ib_packet::Mac::BROADCAST);
            }
        }
        proto::ETH_ARP | proto::ETH_RARP => {
            (w.nw_src, w.nw_dst, w.nw_proto) = (Be32::MAX, Be32::MAX, u8::MAX);
            (w.arp_sha, w.arp_tha) = (ib_packet::Mac::BROADCAST, ib_packet::Mac::BROADCAST);
            return mask;
        }
        proto::ETH_MPLS | proto::ETH_MPLS_MCAST => {
            for (w, v) in w.mpls_lse.iter_mut().zip(&flow.mpls_lse) {
                *w = Be32::MAX;
                if v.get() & 0x100 != 0 {
                    break;
                }
            }
            return mask;
        }
        proto::ETH_NSH => {
            let n = &mut w.nsh;
            (n.flags, n.ttl, n.mdtype, n.np, n.path_hdr) = (0xff, 0xff, 0xff, 0xff, Be32::MAX);
            n.context = [Be32::MAX; 4];
        }
        _ => return mask,
    }
    w.nw_frag = u8::MAX;
    w.nw_tos = u8::MAX;
    w.nw_ttl = u8::MAX;
    w.nw_proto = u8::MAX;
    w.ct_nw_proto = u8::MAX;
    if flow.nw_frag & Flow::FRAG_LATER == 0 && has_ports(flow.nw_proto) {
        (w.tp_src, w.tp_dst) = (Be16::MAX, Be16::MAX);
        match flow.nw_proto {
            proto::IP_TCP => w.tcp_flags = Be16::new(0xfff),
            proto::IP_IGMP => w.igmp_group_ip4 = Be32::MAX,
            _ => {}
        }
    }
    (w.ct_tp_src, w.ct_tp_dst) = (Be16::MAX, Be16::MAX);
    mask
}

fn tunnel_mask(t: &Tunnel, w: &mut Tunnel) {
    use ib_packet::{Be64, Be128};
    if t.flags & TunFlags::KEY != 0 {
        w.tun_id = Be64::MAX;
    }
    (w.ip_src, w.ip_dst) = (Be32::MAX, Be32::MAX);
    (w.ipv6_src, w.ipv6_dst) = (Be128::MAX, Be128::MAX);
    (w.flags, w.ip_tos, w.ip_ttl) = (u16::MAX, u8::MAX, u8::MAX);
    (w.tp_src, w.tp_dst) = (Be16::MAX, Be16::MAX);
    (w.gbp_id, w.gbp_flags) = (Be16::MAX, u8::MAX);
    (w.erspan_ver, w.erspan_idx, w.erspan_dir, w.erspan_hwid) = (0xf, 0xf_ffff, 1, 0x3f);
    (w.gtpu_flags, w.gtpu_msgtype) = (u8::MAX, u8::MAX);
    if t.flags & TunFlags::UDPIF == 0 {
        w.opts_present = t.opts_present;
        w.opts = [u8::MAX; 256];
    }
}

fn has_ports(nw_proto: u8) -> bool {
    use proto::*;
    matches!(nw_proto, IP_ICMP | IP_ICMPV6 | IP_TCP | IP_UDP | IP_SCTP | IP_IGMP)
}

fn is_nd(flow: &Flow) -> bool {
    crate::fields::FieldId::NdTarget.are_prereqs_ok(flow, None)
}

struct Printer<'a> {
    f: &'a Flow,
    w: &'a Flow,
    m: &'a Match,
    ports: Option<&'a PortMap>,
    out: &'a mut String,
}

impl Printer<'_> {
    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(args);
        self.out.push(',');
    }
    /// Hexadecimal with optional mask.
    fn hex(&mut self, name: &str, v: u128, mask: u128, full: u128) {
        if mask == full {
            self.put(format_args!("{name}={}", Alt(v)));
        } else if mask != 0 {
            self.put(format_args!("{name}={}/{}", Alt(v), Alt(mask)));
        }
    }
    fn hex32(&mut self, name: &str, v: u32, mask: u32) {
        self.hex(name, v.into(), mask.into(), u32::MAX.into());
    }
    /// Decimal if exact, else hexadecimal with mask.
    fn dec16(&mut self, name: &str, v: Be16, mask: Be16) {
        if mask == Be16::MAX {
            self.put(format_args!("{name}={}", v.get()));
        } else if !mask.is_zero() {
            self.put(format_args!("{name}={:#x}/{:#x}", v.get(), mask.get()));
        }
    }
    fn ip(&mut self, name: &str, v: Be32, mask: Be32) {
        if !mask.is_zero() {
            self.out.push_str(name);
            self.out.push('=');
            format_ip_masked(v, mask, self.out);
            self.out.push(',');
        }
    }
    fn ipv6(&mut self, name: &str, v: ib_packet::Be128, mask: ib_packet::Be128) {
        if !mask.is_zero() {
            self.out.push_str(name);
            self.out.push('=');
            format_ipv6_masked(v, mask, self.out);
            self.out.push(',');
        }
    }
    fn mac(&mut self, name: &str, v: ib_packet::Mac, mask: ib_packet::Mac) {
        if !mask.is_zero() {
            self.out.push_str(name);
            self.out.push('=');
            format_mac_masked(v, mask, self.out);
            self.out.push(',');
        }
    }
    fn flags(&mut self, name: &str, v: u64, mask: u64, full: u64, names: &[&str]) {
        if mask == 0 {
            return;
        }
        self.out.push_str(name);
        self.out.push('=');
        if mask == full {
            format_flags(v, names, self.out);
        } else {
            format_flags_signed(v, mask, names, self.out);
        }
        self.out.push(',');
    }

    fn all(&mut self) {
        let (f, w) = (self.f, self.w);
        self.hex32("pkt_mark", f.pkt_mark, w.pkt_mark);
        self.hex32("recirc_id", f.recirc_id, w.recirc_id);
        self.hex32("dp_hash", f.dp_hash, w.dp_hash);
        if w.conj_id != 0 {
            self.put(format_args!("conj_id={}", f.conj_id));
        }
        if w.skb_priority != 0 {
            self.put(format_args!("skb_priority={}", Alt(f.skb_priority.into())));
        }
        if w.actset_output.0 != 0 {
            self.port("actset_output", f.actset_output);
        }
        self.conntrack();
        let mut dl_type = if w.dl_type.is_zero() { 0 } else { f.dl_type.get() };
        // Only a megaflow (it has a recirculation id) says that it is of Ethernet packets.
        if !w.packet_type.is_zero() && (!f.packet_type.is_zero() || w.recirc_id != 0) {
            let pt = f.packet_type.get();
            if pt == 0 {
                self.out.push_str("eth,");
            } else {
                self.out.push_str("packet_type=");
                format_packet_type(pt, self.out);
                self.out.push(',');
                if pt >> 16 == 1 {
                    dl_type = pt as u16;
                }
            }
        }
        let (skip_type, skip_proto) = self.protocol();
        for (i, (v, mask)) in f.regs.iter().zip(w.regs).enumerate().filter(|(_, (_, mask))| *mask != 0) {
            self.hex32(&format!("reg{i}"), *v, mask);
        }
        self.tunnel();
        self.hex("metadata", f.metadata.get().into(), w.metadata.get().into(), u64::MAX.into());
        if w.in_port != 0 {
            self.port("in_port", f.of_in_port());
        }
        self.vlans();
        self.mac("dl_src", f.dl_src, w.dl_src);
        self.mac("dl_dst", f.dl_dst, w.dl_dst);
        if !skip_type && !w.dl_type.is_zero() {
            self.put(format_args!("dl_type=0x{:04x}", f.dl_type.get()));
        }
        self.network(dl_type, skip_proto);
        self.mpls();
        self.frag();
        self.transport(dl_type);
    }

    fn port(&mut self, name: &str, port: OfPort) {
        self.out.push_str(name);
        self.out.push('=');
        format_port(port, self.ports, self.out);
        self.out.push(',');
    }

    fn conntrack(&mut self) {
        let (f, w) = (self.f, self.w);
        self.flags("ct_state", f.ct_state.into(), w.ct_state.into(), 0xff, CT_STATES);
        self.dec16("ct_zone", Be16::new(f.ct_zone), Be16::new(w.ct_zone));
        self.hex32("ct_mark", f.ct_mark, w.ct_mark);
        self.hex("ct_label", f.ct_label.get(), w.ct_label.get(), u128::MAX);
        self.ip("ct_nw_src", f.ct_nw_src, w.ct_nw_src);
        self.ipv6("ct_ipv6_src", f.ct_ipv6_src, w.ct_ipv6_src);
        self.ip("ct_nw_dst", f.ct_nw_dst, w.ct_nw_dst);
        self.ipv6("ct_ipv6_dst", f.ct_ipv6_dst, w.ct_ipv6_dst);
        if w.ct_nw_proto != 0 {
            self.put(format_args!("ct_nw_proto={}", f.ct_nw_proto));
            self.dec16("ct_tp_src", f.ct_tp_src, w.ct_tp_src);
            self.dec16("ct_tp_dst", f.ct_tp_dst, w.ct_tp_dst);
        }
    }

    /// The shorthand for Ethertype and protocol; which of the two it already says.
    fn protocol(&mut self) -> (bool, bool) {
        let (f, w) = (self.f, self.w);
        if w.dl_type != Be16::MAX {
            return (false, false);
        }
        let proto = if w.nw_proto != 0 { Some(f.nw_proto) } else { None };
        use proto::*;
        let (word, both) = match (crate::fields::effective_dl_type(f), proto) {
            (ETH_IP, Some(IP_ICMP)) => ("icmp", true),
            (ETH_IP, Some(IP_TCP)) => ("tcp", true),
            (ETH_IP, Some(IP_UDP)) => ("udp", true),
            (ETH_IP, Some(IP_SCTP)) => ("sctp", true),
            (ETH_IP, _) => ("ip", false),
            (ETH_IPV6, Some(IP_ICMPV6)) => ("icmp6", true),
            (ETH_IPV6, Some(IP_TCP)) => ("tcp6", true),
            (ETH_IPV6, Some(IP_UDP)) => ("udp6", true),
            (ETH_IPV6, Some(IP_SCTP)) => ("sctp6", true),
            (ETH_IPV6, _) => ("ipv6", false),
            (ETH_ARP, _) => ("arp", false),
            (ETH_RARP, _) => ("rarp", false),
            (ETH_MPLS, _) => ("mpls", false),
            (ETH_MPLS_MCAST, _) => ("mplsm", false),
            _ => return (false, false),
        };
        self.out.push_str(word);
        self.out.push(',');
        (true, both)
    }

    fn tunnel(&mut self) {
        let (f, w) = (&self.f.tunnel, &self.w.tunnel);
        self.hex("tun_id", f.tun_id.get().into(), w.tun_id.get().into(), u64::MAX.into());
        self.ip("tun_src", f.ip_src, w.ip_src);
        self.ip("tun_dst", f.ip_dst, w.ip_dst);
        self.ipv6("tun_ipv6_src", f.ipv6_src, w.ipv6_src);
        self.ipv6("tun_ipv6_dst", f.ipv6_dst, w.ipv6_dst);
        self.dec16("tun_gbp_id", f.gbp_id, w.gbp_id);
        if w.gbp_flags != 0 {
            self.put(format_args!("tun_gbp_flags={}", Alt(f.gbp_flags.into())));
        }
        if w.ip_tos != 0 {
            self.put(format_args!("tun_tos={:x}", f.ip_tos));
        }
        if w.ip_ttl != 0 {
            self.put(format_args!("tun_ttl={}", f.ip_ttl));
        }
        if w.erspan_ver != 0 {
            self.put(format_args!("tun_erspan_ver={}", f.erspan_ver));
        }
        if w.erspan_idx != 0 && f.erspan_ver == 1 {
            self.put(format_args!("tun_erspan_idx={}", Alt(f.erspan_idx.into())));
        }
        if w.erspan_dir != 0 && f.erspan_ver == 2 {
            self.put(format_args!("tun_erspan_dir={}", f.erspan_dir));
        }
        if w.erspan_hwid != 0 && f.erspan_ver == 2 {
            self.put(format_args!("tun_erspan_hwid={}", Alt(f.erspan_hwid.into())));
        }
        if w.gtpu_flags != 0 {
            self.put(format_args!("gtpu_flags={}", Alt(f.gtpu_flags.into())));
        }
        if w.gtpu_msgtype != 0 {
            self.put(format_args!("gtpu_msgtype={}", f.gtpu_msgtype));
        }
        // A key's flags beside those that OpenFlow can match are shown as well.
        let all = TunFlags::OAM | TunFlags::DF | TunFlags::CSUM | TunFlags::KEY;
        let (v, m) = (u64::from(f.flags & all), u64::from(w.flags & all));
        self.flags("tun_flags", v, m, all.into(), TUN_FLAGS_ALL);
        self.tun_metadata();
    }

    fn tun_metadata(&mut self) {
        let (f, w) = (&self.f.tunnel, &self.w.tunnel);
        if f.flags & TunFlags::UDPIF != 0 {
            return;
        }
        for i in (0..64u8).filter(|i| w.opts_present >> i & 1 != 0) {
            if f.opts_present >> i & 1 == 0 {
                self.put(format_args!("tun_metadata{i}=NP"));
                continue;
            }
            let (v, m) = tlv::get_match(self.m, i);
            let len = tlv::match_len(self.m, i);
            let exact = m == FieldValue::ONES || len > 0 && m.is_ones(len);
            if exact {
                self.put(format_args!("tun_metadata{i}={}", hex(&v)));
            } else if m == FieldValue::ZERO {
                self.put(format_args!("tun_metadata{i}"));
            } else {
                self.put(format_args!("tun_metadata{i}={}/{}", hex(&v), hex(&m)));
            }
        }
    }

    fn vlans(&mut self) {
        for (i, (v, w)) in self.f.vlans.iter().zip(&self.w.vlans).enumerate() {
            if w.tci.is_zero() {
                continue;
            }
            let n = if i == 0 { String::new() } else { i.to_string() };
            let (tci, mask) = (v.tci.get(), w.tci.get());
            let (vid, pcp) = (mask & Vlan::VID_MASK, mask & Vlan::PCP_MASK);
            let whole = |m: u16, full: u16| m == 0 || m == full;
            if mask & tci & Vlan::CFI != 0
                && whole(vid, Vlan::VID_MASK)
                && whole(pcp, Vlan::PCP_MASK)
                && vid | pcp != 0
            {
                if vid != 0 {
                    self.put(format_args!("dl_vlan{n}={}", v.vid()));
                }
                if pcp != 0 {
                    self.put(format_args!("dl_vlan_pcp{n}={}", v.pcp()));
                }
            } else if mask == 0xffff {
                self.put(format_args!("vlan_tci{n}=0x{tci:04x}"));
            } else {
                self.put(format_args!("vlan_tci{n}=0x{tci:04x}/0x{mask:04x}"));
            }
        }
    }

    fn network(&mut self, dl_type: u16, skip_proto: bool) {
        let (f, w) = (self.f, self.w);
        let arp = matches!(dl_type, proto::ETH_ARP | proto::ETH_RARP);
        if dl_type == proto::ETH_IPV6 {
            self.ipv6("ipv6_src", f.ipv6_src, w.ipv6_src);
            self.ipv6("ipv6_dst", f.ipv6_dst, w.ipv6_dst);
            let (v, m) = (f.ipv6_label.get(), w.ipv6_label.get());
            match m & 0xf_ffff {
                0 => {}
                0xf_ffff => self.put(format_args!("ipv6_label=0x{v:05x}")),
                m => self.put(format_args!("ipv6_label=0x{v:05x}/0x{m:05x}")),
            }
        } else if arp {
            self.ip("arp_spa", f.nw_src, w.nw_src);
            self.ip("arp_tpa", f.nw_dst, w.nw_dst);
        } else if dl_type == proto::ETH_NSH {
            self.nsh();
        } else {
            self.ip("nw_src", f.nw_src, w.nw_src);
            self.ip("nw_dst", f.nw_dst, w.nw_dst);
        }
        if !skip_proto && w.nw_proto != 0 {
            if arp {
                self.put(format_args!("arp_op={}", f.nw_proto));
            } else {
                self.put(format_args!("nw_proto={}", f.nw_proto));
            }
        }
        if arp {
            self.mac("arp_sha", f.arp_sha, w.arp_sha);
            self.mac("arp_tha", f.arp_tha, w.arp_tha);
        }
        if w.nw_tos & 0xfc != 0 {
            self.put(format_args!("nw_tos={}", f.nw_tos & 0xfc));
        }
        if w.nw_tos & 3 != 0 {
            self.put(format_args!("nw_ecn={}", f.nw_tos & 3));
        }
        if w.nw_ttl != 0 {
            self.put(format_args!("nw_ttl={}", f.nw_ttl));
        }
    }

    fn nsh(&mut self) {
        let (f, w) = (&self.f.nsh, &self.w.nsh);
        match w.flags {
            0 => {}
            0xff => self.put(format_args!("nsh_flags={}", f.flags)),
            m => self.put(format_args!("nsh_flags=0x{:02x}/0x{m:02x}", f.flags)),
        }
        for (name, v, m) in
            [("nsh_ttl", f.ttl, w.ttl), ("nsh_mdtype", f.mdtype, w.mdtype), ("nsh_np", f.np, w.np)]
        {
            if m != 0 {
                self.put(format_args!("{name}={v}"));
            }
        }
        let (path, mask) = (f.path_hdr.get(), w.path_hdr.get());
        if mask >> 8 != 0 {
            self.put(format_args!("nsh_spi={:#x}", path >> 8));
        }
        if mask & 0xff != 0 {
            self.put(format_args!("nsh_si={}", path & 0xff));
        }
        if f.mdtype == 1 {
            for (i, (v, m)) in f.context.iter().zip(w.context).enumerate() {
                let n = i + 1;
                match m.get() {
                    0 => {}
                    u32::MAX => self.put(format_args!("nsh_c{n}={:#x}", v.get())),
                    m => self.put(format_args!("nsh_c{n}={:#x}/{m:#x}", v.get())),
                }
            }
        }
    }

    fn mpls(&mut self) {
        let (v, m) = (self.f.mpls_lse[0].get(), self.w.mpls_lse[0].get());
        if m & 0xffff_f000 != 0 {
            self.put(format_args!("mpls_label={}", v >> 12));
        }
        if m & 0xe00 != 0 {
            self.put(format_args!("mpls_tc={}", v >> 9 & 7));
        }
        if m & 0xff != 0 {
            self.put(format_args!("mpls_ttl={}", v & 0xff));
        }
        if m & 0x100 != 0 {
            self.put(format_args!("mpls_bos={}", v >> 8 & 1));
        }
        for i in 1..N_MPLS {
            let (v, m) = (self.f.mpls_lse[i].get(), self.w.mpls_lse[i].get());
            if m == u32::MAX {
                self.put(format_args!("mpls_lse{i}={v}"));
            } else if m != 0 {
                self.put(format_args!("mpls_lse{i}={v:#010x}/{m:#010x}"));
            }
        }
    }

    fn frag(&mut self) {
        let mask = self.w.nw_frag & 3;
        if mask != 0 {
            self.put(format_args!("nw_frag={}", frag_name(self.f.nw_frag, mask)));
        }
    }

    fn transport(&mut self, dl_type: u16) {
        let (f, w) = (self.f, self.w);
        // The protocol counts even if the match leaves it open: then it is zero, and these are plain ports.
        let icmp = dl_type == proto::ETH_IP && f.nw_proto == proto::IP_ICMP;
        let icmp6 = dl_type == proto::ETH_IPV6 && f.nw_proto == proto::IP_ICMPV6;
        if icmp || icmp6 {
            self.dec16("icmp_type", f.tp_src, w.tp_src);
            self.dec16("icmp_code", f.tp_dst, w.tp_dst);
        } else {
            self.dec16("tp_src", f.tp_src, w.tp_src);
            self.dec16("tp_dst", f.tp_dst, w.tp_dst);
        }
        if icmp6 {
            self.ipv6("nd_target", f.nd_target, w.nd_target);
            self.mac("nd_sll", f.arp_sha, w.arp_sha);
            self.mac("nd_tll", f.arp_tha, w.arp_tha);
            if !w.igmp_group_ip4.is_zero() {
                self.put(format_args!("nd_reserved={}", f.igmp_group_ip4.get()));
            }
            if !w.tcp_flags.is_zero() {
                self.put(format_args!("nd_options_type={}", f.tcp_flags.get()));
            }
        }
        let ip = matches!(dl_type, proto::ETH_IP | proto::ETH_IPV6);
        if ip && f.nw_proto == proto::IP_TCP {
            let mask = u64::from(w.tcp_flags.get() & 0xfff);
            self.flags("tcp_flags", f.tcp_flags.get().into(), mask, 0xfff, TCP_FLAGS);
        }
    }
}
