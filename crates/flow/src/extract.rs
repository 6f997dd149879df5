//! From a packet's bytes to its key.
//!
//! [`extract`] runs once for every packet that enters a datapath and again after recirculation or a
//! change of headers that it cannot follow. It reads each header once, front to back, and stops at the
//! last good layer: a packet with a broken header has the fields in front of it and zeros behind.
//! It cannot fail, never allocates, and returns where the layers start, for the actions.

use std::sync::atomic::{AtomicUsize, Ordering};

use ib_packet::{Be16, Be32, Be128, Mac, Packet};

use crate::key::{Flow, Metadata, N_MPLS, N_VLANS, Nsh, Vlan};

/// Ethertypes and IP protocols that the key looks into.
pub mod proto {
    #![allow(missing_docs)] // IANA's names.
    pub const ETH_IP: u16 = 0x0800;
    pub const ETH_ARP: u16 = 0x0806;
    pub const ETH_TEB: u16 = 0x6558;
    pub const ETH_RARP: u16 = 0x8035;
    pub const ETH_VLAN: u16 = 0x8100;
    pub const ETH_IPV6: u16 = 0x86dd;
    pub const ETH_MPLS: u16 = 0x8847;
    pub const ETH_MPLS_MCAST: u16 = 0x8848;
    pub const ETH_QINQ: u16 = 0x88a8;
    pub const ETH_NSH: u16 = 0x894f;
    /// Smallest Ethertype; smaller numbers are 802.3 lengths.
    pub const ETH_MIN: u16 = 0x0600;
    /// OpenFlow's `dl_type` of a frame without Ethertype.
    pub const ETH_NONE: u16 = 0x05ff;
    pub const IP_HOPOPTS: u8 = 0;
    pub const IP_ICMP: u8 = 1;
    pub const IP_IGMP: u8 = 2;
    pub const IP_TCP: u8 = 6;
    pub const IP_UDP: u8 = 17;
    pub const IP_ROUTING: u8 = 43;
    pub const IP_FRAGMENT: u8 = 44;
    pub const IP_AH: u8 = 51;
    pub const IP_ICMPV6: u8 = 58;
    pub const IP_DSTOPTS: u8 = 60;
    pub const IP_SCTP: u8 = 132;
    pub const ND_SOLICIT: u8 = 135;
    pub const ND_ADVERT: u8 = 136;
}
use proto::*;

/// Where a packet's layers start, in bytes from its first; `None` if the packet does not get that far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// MPLS label stack.
    pub l2_5: Option<u16>,
    /// Behind Ethernet, VLAN tags and MPLS: IP, ARP, NSH, ...
    pub l3: Option<u16>,
    /// TCP, UDP, ...; set for later fragments too, where it is plain payload.
    pub l4: Option<u16>,
    /// Bytes behind the IP packet that are no part of it.
    pub l2_pad: u16,
}

static VLAN_LIMIT: AtomicUsize = AtomicUsize::new(N_VLANS);

/// How many VLAN tags [`extract`] looks behind, at most [`N_VLANS`] (`other_config:vlan-limit`; 0 is no limit
/// but that). Process-wide; takes effect with the next packet.
pub fn set_vlan_limit(n: usize) {
    VLAN_LIMIT.store(if n == 0 { N_VLANS } else { n.min(N_VLANS) }, Ordering::Relaxed);
}

/// How many VLAN tags [`extract`] looks behind.
pub fn vlan_limit() -> usize {
    VLAN_LIMIT.load(Ordering::Relaxed)
}

/// A cursor over what is left of a packet.
struct Rest<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Rest<'a> {
    #[inline]
    fn data(&self) -> &'a [u8] {
        &self.frame[self.at..self.end]
    }
    #[inline]
    fn len(&self) -> usize {
        self.end - self.at
    }
    #[inline]
    fn peek<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.data().first_chunk()
    }
    #[inline]
    fn pull<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let out = self.peek()?;
        self.at += N;
        Some(out)
    }
    #[inline]
    fn skip(&mut self, n: usize) -> Option<()> {
        (n <= self.len()).then(|| self.at += n)
    }
    #[inline]
    fn ofs(&self) -> Option<u16> {
        u16::try_from(self.at).ok()
    }
}

#[inline]
fn be16(b: &[u8], at: usize) -> Be16 {
    Be16::from_bytes([b[at], b[at + 1]])
}
#[inline]
fn be32(b: &[u8], at: usize) -> Be32 {
    Be32::from_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
#[inline]
fn be128(b: &[u8], at: usize) -> Be128 {
    let mut out = [0; 16];
    out.copy_from_slice(&b[at..at + 16]);
    Be128::from_bytes(out)
}
#[inline]
fn mac(b: &[u8], at: usize) -> Mac {
    Mac([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5]])
}

/// Fills `flow` (all of it) with the key of `packet`, which came with `md`.
pub fn extract(packet: &Packet, md: &Metadata, flow: &mut Flow) -> Layers {
    extract_bytes(packet.data(), if packet.ethernet { None } else { Some(packet.l3_type) }, md, flow)
}

/// As [`extract`], for a frame in plain bytes. `l3_type` is the Ethertype of a packet without Ethernet header.
pub fn extract_bytes(frame: &[u8], l3_type: Option<Be16>, md: &Metadata, flow: &mut Flow) -> Layers {
    *flow = Flow::zeroed();
    if let Some(t) = &md.tunnel {
        flow.tunnel = (**t).clone();
    }
    flow.skb_priority = md.skb_priority;
    flow.pkt_mark = md.pkt_mark;
    flow.dp_hash = md.dp_hash;
    flow.in_port = md.in_port.0;
    flow.recirc_id = md.recirc_id;
    flow.ct_state = md.ct_state;
    flow.ct_zone = md.ct_zone;
    flow.ct_mark = md.ct_mark;
    flow.ct_label = md.ct_label;
    let mut layers = Layers::default();
    let mut rest = Rest { frame, at: 0, end: frame.len() };
    if let Some(t) = l3_type {
        flow.packet_type = Be32::new(1 << 16 | u32::from(t.get()));
        flow.dl_type = t;
    }
    // `None` from a layer ends the walk; what it stored until then stays.
    let _ = walk(&mut rest, l3_type.is_none(), md, flow, &mut layers);
    layers
}

fn walk(r: &mut Rest<'_>, ethernet: bool, md: &Metadata, flow: &mut Flow, l: &mut Layers) -> Option<()> {
    if ethernet {
        if r.len() < 14 {
            return None;
        }
        let h = r.pull::<12>()?;
        flow.dl_dst = mac(h, 0);
        flow.dl_src = mac(h, 6);
        vlans(r, flow);
        flow.dl_type = ethertype(r)?;
    }
    let dl_type = flow.dl_type.get();
    if dl_type == ETH_MPLS || dl_type == ETH_MPLS_MCAST {
        l.l2_5 = r.ofs();
        mpls(r, flow);
    }
    l.l3 = r.ofs();
    match dl_type {
        ETH_IP => ipv4(r, md, flow, l)?,
        ETH_IPV6 => ipv6(r, md, flow, l)?,
        ETH_ARP | ETH_RARP => return arp(r, flow),
        ETH_NSH => return nsh(r, flow),
        _ => return None,
    }
    l.l4 = r.ofs();
    if flow.nw_frag & Flow::FRAG_LATER == 0 {
        transport(r, md, flow)?;
    }
    Some(())
}

#[inline]
fn vlans(r: &mut Rest<'_>, flow: &mut Flow) {
    for i in 0..vlan_limit() {
        let Some(h) = r.peek::<6>() else { return };
        let tpid = be16(h, 0);
        if !matches!(tpid.get(), ETH_VLAN | ETH_QINQ) {
            return;
        }
        flow.vlans[i] = Vlan { tpid, tci: be16(h, 2) | Be16::new(Vlan::CFI) };
        r.at += 4;
    }
}

/// Ethertype behind VLAN tags, looking through 802.2 LLC and SNAP.
#[inline]
fn ethertype(r: &mut Rest<'_>) -> Option<Be16> {
    let t = Be16::from_bytes(*r.pull::<2>()?);
    if t.get() >= ETH_MIN {
        return Some(t);
    }
    if let Some(&[0xaa, 0xaa, 0x03, 0, 0, 0, hi, lo]) = r.peek::<8>() {
        r.at += 8;
        let t = Be16::from_bytes([hi, lo]);
        if t.get() >= ETH_MIN {
            return Some(t);
        }
    }
    Some(Be16::new(ETH_NONE))
}

fn mpls(r: &mut Rest<'_>, flow: &mut Flow) {
    let mut n = 0;
    while let Some(h) = r.pull::<4>() {
        let lse = Be32::from_bytes(*h);
        if n < N_MPLS {
            flow.mpls_lse[n] = lse;
        }
        n += 1;
        if lse.get() & 0x100 != 0 {
            break;
        }
    }
}

#[inline]
fn ipv4(r: &mut Rest<'_>, md: &Metadata, flow: &mut Flow, l: &mut Layers) -> Option<()> {
    let h = r.peek::<20>()?;
    let ihl = usize::from(h[0] & 0xf) * 4;
    let total = usize::from(be16(h, 2).get());
    if ihl < 20 || ihl > total || total > r.len() {
        return None;
    }
    l.l2_pad = u16::try_from(r.len() - total).ok()?;
    r.end = r.at + total;
    r.at += ihl;
    flow.nw_src = be32(h, 12);
    flow.nw_dst = be32(h, 16);
    if let Some(ct) = md.ct_orig.filter(|ct| !ct.v6 && md.ct_state != 0) {
        flow.ct_nw_proto = ct.proto;
        flow.ct_nw_src = Be32::new(ct.src.get() as u32);
        flow.ct_nw_dst = Be32::new(ct.dst.get() as u32);
    }
    flow.nw_tos = h[1];
    flow.nw_ttl = h[8];
    flow.nw_proto = h[9];
    let frag = be16(h, 6).get();
    if frag & 0x3fff != 0 {
        flow.nw_frag = if frag & 0x1fff != 0 { Flow::FRAG_ANY | Flow::FRAG_LATER } else { Flow::FRAG_ANY };
    }
    Some(())
}

fn ipv6(r: &mut Rest<'_>, md: &Metadata, flow: &mut Flow, l: &mut Layers) -> Option<()> {
    let h = r.pull::<40>()?;
    let payload = usize::from(be16(h, 4).get());
    if payload > r.len() {
        return None;
    }
    l.l2_pad = u16::try_from(r.len() - payload).ok()?;
    r.end = r.at + payload;
    flow.ipv6_src = be128(h, 8);
    flow.ipv6_dst = be128(h, 24);
    if let Some(ct) = md.ct_orig.filter(|ct| ct.v6 && md.ct_state != 0) {
        flow.ct_nw_proto = ct.proto;
        flow.ct_ipv6_src = ct.src;
        flow.ct_ipv6_dst = ct.dst;
    }
    let (proto, frag) = ipv6_extensions(r, h[6])?;
    let word = be32(h, 0);
    flow.ipv6_label = word & Be32::new(0xf_ffff);
    flow.nw_tos = (word.get() >> 20) as u8;
    flow.nw_ttl = h[7];
    flow.nw_proto = proto;
    flow.nw_frag = frag;
    Some(())
}

/// Walks extension headers. Returns the transport protocol and fragment bits; behind the header of a
/// later fragment there is none, so its protocol is "fragment".
fn ipv6_extensions(r: &mut Rest<'_>, mut next: u8) -> Option<(u8, u8)> {
    let mut frag = 0;
    loop {
        match next {
            IP_HOPOPTS | IP_ROUTING | IP_DSTOPTS => {
                let h = r.peek::<8>()?;
                next = h[0];
                r.skip((usize::from(h[1]) + 1) * 8)?;
            }
            IP_AH => {
                let h = r.peek::<8>()?;
                next = h[0];
                r.skip((usize::from(h[1]) + 2) * 4)?;
            }
            IP_FRAGMENT => {
                let h = r.pull::<8>()?;
                next = h[0];
                let bits = be16(h, 2).get();
                if bits & 0xfff9 != 0 {
                    frag = Flow::FRAG_ANY;
                }
                if bits & 0xfff8 != 0 {
                    return Some((IP_FRAGMENT, Flow::FRAG_ANY | Flow::FRAG_LATER));
                }
            }
            _ => return Some((next, frag)),
        }
    }
}

fn arp(r: &mut Rest<'_>, flow: &mut Flow) -> Option<()> {
    let h = r.pull::<28>()?;
    if h[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    flow.nw_src = be32(h, 14);
    flow.nw_dst = be32(h, 24);
    flow.nw_proto = u8::try_from(be16(h, 6).get()).unwrap_or(0);
    flow.arp_sha = mac(h, 8);
    flow.arp_tha = mac(h, 18);
    Some(())
}

/// RFC 8300, sections 2.2 to 2.5.
fn nsh(r: &mut Rest<'_>, flow: &mut Flow) -> Option<()> {
    let h = r.peek::<8>()?;
    let word = be16(h, 0).get();
    let len = usize::from(word & 0x3f) * 4;
    if word >> 14 != 0 || len < 8 || len > r.len() {
        return None;
    }
    let mut out = Nsh {
        flags: (word >> 12 & 3) as u8,
        ttl: (word >> 6 & 0x3f) as u8,
        mdtype: h[2] & 0xf,
        np: h[3],
        path_hdr: be32(h, 4),
        ..Nsh::default()
    };
    // Of other types the context is unknown.
    if out.mdtype == 1 {
        if len != 24 {
            return None;
        }
        let h = r.peek::<24>()?;
        for (i, c) in out.context.iter_mut().enumerate() {
            *c = be32(h, 8 + 4 * i);
        }
    }
    flow.nsh = out;
    Some(())
}

#[inline]
fn transport(r: &mut Rest<'_>, md: &Metadata, flow: &mut Flow) -> Option<()> {
    let v4 = flow.dl_type.get() == ETH_IP;
    match flow.nw_proto {
        IP_TCP => {
            let h = r.peek::<20>()?;
            let len = usize::from(h[12] >> 4) * 4;
            if len < 20 || len > r.len() {
                return None;
            }
            flow.tcp_flags = be16(h, 12) & Be16::new(0x0fff);
            (flow.tp_src, flow.tp_dst) = (be16(h, 0), be16(h, 2));
        }
        IP_UDP => {
            let h = r.peek::<8>()?;
            (flow.tp_src, flow.tp_dst) = (be16(h, 0), be16(h, 2));
        }
        IP_SCTP => {
            let h = r.peek::<12>()?;
            (flow.tp_src, flow.tp_dst) = (be16(h, 0), be16(h, 2));
        }
        IP_ICMP if v4 => {
            let h = r.peek::<8>()?;
            (flow.tp_src, flow.tp_dst) = (Be16::new(h[0].into()), Be16::new(h[1].into()));
        }
        IP_IGMP if v4 => {
            let h = r.peek::<8>()?;
            (flow.tp_src, flow.tp_dst) = (Be16::new(h[0].into()), Be16::new(h[1].into()));
            flow.igmp_group_ip4 = be32(h, 4);
        }
        IP_ICMPV6 if !v4 => icmpv6(r, flow)?,
        _ => return Some(()),
    }
    if let Some(ct) = md.ct_orig.filter(|_| flow.ct_nw_proto != 0) {
        (flow.ct_tp_src, flow.ct_tp_dst) = (ct.tp_src, ct.tp_dst);
    }
    Some(())
}

/// ICMPv6, with neighbour discovery's target and link-layer addresses (RFC 4861, 4.3 to 4.6).
fn icmpv6(r: &mut Rest<'_>, flow: &mut Flow) -> Option<()> {
    let h = r.pull::<8>()?;
    (flow.tp_src, flow.tp_dst) = (Be16::new(h[0].into()), Be16::new(h[1].into()));
    if !matches!(h[0], ND_SOLICIT | ND_ADVERT) || h[1] != 0 {
        return Some(());
    }
    flow.igmp_group_ip4 = be32(h, 4);
    let Some(target) = r.pull::<16>() else { return Some(()) };
    flow.nd_target = Be128::from_bytes(*target);
    while let Some(o) = r.peek::<8>() {
        let len = usize::from(o[1]) * 8;
        if len == 0 || len > r.len() {
            break;
        }
        if len == 8 && matches!(o[0], 1 | 2) {
            let slot = if o[0] == 1 { &mut flow.arp_sha } else { &mut flow.arp_tha };
            if !slot.is_zero() {
                // The same option twice: such a message has no meaning.
                flow.nd_target = Be128::ZERO;
                (flow.arp_sha, flow.arp_tha) = (Mac::ZERO, Mac::ZERO);
                flow.tcp_flags = Be16::ZERO;
                break;
            }
            *slot = mac(o, 2);
            if flow.tcp_flags.is_zero() {
                flow.tcp_flags = Be16::new(o[0].into());
            }
        }
        r.at += len;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hex: &str) -> (Flow, Layers) {
        let hex: String = hex.split_whitespace().collect();
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let mut flow = Flow::zeroed();
        let l = extract(&Packet::from_frame(&bytes), &Metadata::default(), &mut flow);
        (flow, l)
    }
    const MACS: &str = "505400000002 505400000001";

    #[test]
    fn tcp_behind_two_tags() {
        let (f, l) = key(&format!(
            "{MACS} 88a8 e00a 8100 000b 0800 4500002c 00010000 40060000 0a000001 0a000002
             0050 01bb 00000000 00000000 6012 0000 0000 0000 020405b4 ffff"
        ));
        assert_eq!(f.dl_dst.to_string(), "50:54:00:00:00:02");
        assert_eq!((f.vlans[0].tpid.get(), f.vlans[0].tci.get()), (0x88a8, 0xf00a));
        assert_eq!((f.vlans[1].tpid.get(), f.vlans[1].tci.get()), (0x8100, 0x100b));
        assert_eq!((f.nw_proto, f.nw_ttl, f.tp_src.get(), f.tp_dst.get()), (6, 64, 80, 443));
        assert_eq!(f.tcp_flags.get(), 0x012);
        assert_eq!(l, Layers { l2_5: None, l3: Some(22), l4: Some(42), l2_pad: 2 });
    }

    #[test]
    fn broken_lengths_stop_at_the_last_good_layer() {
        // Total length past the end: no IP fields.
        let (f, l) = key(&format!("{MACS} 0800 450000ff 00010000 40060000 0a000001 0a000002"));
        assert_eq!((f.dl_type.get(), f.nw_src.get(), l.l3, l.l4), (0x0800, 0, Some(14), None));
        // TCP cut short: IP fields only.
        let (f, l) = key(&format!("{MACS} 0800 45000018 00010000 40060000 0a000001 0a000002 00500050"));
        assert_eq!((f.nw_proto, f.tp_src.get(), l.l4), (6, 0, Some(34)));
        // Less than an Ethernet header: nothing.
        let (f, l) = key("505400000002 50540000000108");
        assert_eq!((f, l), (Flow::zeroed(), Layers::default()));
    }

    #[test]
    fn fragments() {
        let (f, _) =
            key(&format!("{MACS} 0800 4500001c 00012000 40110000 0a000001 0a000002 0001000200080000"));
        assert_eq!((f.nw_frag, f.tp_dst.get()), (1, 2));
        let (f, _) =
            key(&format!("{MACS} 0800 4500001c 00010001 40110000 0a000001 0a000002 0001000200080000"));
        assert_eq!((f.nw_frag, f.tp_dst.get(), f.nw_proto), (3, 0, 17));
        let v6 = "20010000000000000000000000000001 20010000000000000000000000000002";
        let (f, _) = key(&format!("{MACS} 86dd 60000000 0010 2c 40 {v6} 1100000100000001 0001000200080000"));
        assert_eq!((f.nw_frag, f.nw_proto, f.tp_dst.get()), (1, 17, 2));
        let (f, _) = key(&format!("{MACS} 86dd 60000000 0010 2c 40 {v6} 1100000900000001 0001000200080000"));
        assert_eq!((f.nw_frag, f.nw_proto, f.tp_dst.get()), (3, 44, 0));
    }

    #[test]
    fn ipv6_extensions_and_flow_label() {
        let v6 = "20010000000000000000000000000001 20010000000000000000000000000002";
        let (f, l) = key(&format!("{MACS} 86dd 6ab12345 0010 00 40 {v6} 1100010400000000 0001000200080000"));
        assert_eq!((f.ipv6_label.get(), f.nw_tos, f.nw_proto, f.tp_src.get()), (0x12345, 0xab, 17, 1));
        assert_eq!(l.l4, Some(62));
    }

    #[test]
    fn neighbour_discovery() {
        let v6 = "fe800000000000000000000000000001 ff0200000000000000000001ff000002";
        let nd = "8700 0000 00000000 fe800000000000000000000000000002";
        let (f, _) = key(&format!("{MACS} 86dd 60000000 0020 3a ff {v6} {nd} 0101 0a0b0c0d0e0f"));
        assert_eq!((f.tp_src.get(), f.tcp_flags.get()), (135, 1));
        assert_eq!(f.arp_sha.to_string(), "0a:0b:0c:0d:0e:0f");
        assert_eq!(f.nd_target.get() & 0xff, 2);
        let twice = "0101 0a0b0c0d0e0f 0101 0a0b0c0d0e0f";
        let (f, _) = key(&format!("{MACS} 86dd 60000000 0028 3a ff {v6} {nd} {twice}"));
        assert!(f.nd_target.is_zero() && f.arp_sha.is_zero());
        assert_eq!(f.tp_src.get(), 135);
    }

    #[test]
    fn arp_llc_and_mpls() {
        let (f, _) =
            key(&format!("{MACS} 0806 0001080006040002 505400000001 0a000001 505400000002 0a000002"));
        assert_eq!((f.nw_proto, f.nw_src.get(), f.nw_dst.get()), (2, 0x0a00_0001, 0x0a00_0002));
        assert_eq!(f.arp_tha.to_string(), "50:54:00:00:00:02");
        let (f, _) = key(&format!("{MACS} 0008 aaaa030000000800"));
        assert_eq!(f.dl_type.get(), 0x0800);
        let (f, _) = key(&format!("{MACS} 0026 4242030000000000"));
        assert_eq!(f.dl_type.get(), 0x05ff);
        let (f, l) = key(&format!("{MACS} 8847 00001040 00002140 45"));
        assert_eq!((f.mpls_lse[0].get(), f.mpls_lse[1].get(), f.mpls_lse[2].get()), (0x1040, 0x2140, 0));
        assert_eq!((l.l2_5, l.l3), (Some(14), Some(22)));
    }

    #[test]
    fn network_service_header() {
        let (f, _) = key(&format!("{MACS} 894f 0fc6 0103 00012305 00000001 00000002 00000003 00000004"));
        assert_eq!((f.nsh.ttl, f.nsh.mdtype, f.nsh.np), (63, 1, 3));
        assert_eq!((f.nsh.path_hdr.get(), f.nsh.context[3].get()), (0x0001_2305, 4));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut x = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let types = [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x8847, 0x894f, 0x0010];
        for round in 0..20_000usize {
            let len = (next() % 120) as usize;
            let mut b: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            if len > 24 {
                b[12..14].copy_from_slice(&types[round % types.len()].to_be_bytes());
                if round % 3 == 0 {
                    b[14] = if round % 2 == 0 { 0x45 } else { 0x60 };
                    b[16..20].fill(0);
                    b[17] = (len - 14) as u8;
                    b[23] = [6, 17, 1, 2, 58, 132][round % 6];
                    b[20] = [0, 43, 44, 51, 58, 60][round % 6];
                }
            }
            let mut flow = Flow::zeroed();
            let l = extract_bytes(&b, None, &Metadata::default(), &mut flow);
            assert!(l.l4.is_none_or(|o| usize::from(o) <= len));
        }
    }
}
