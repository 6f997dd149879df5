//! Header changes: masked sets, VLAN, MPLS, Ethernet push and pop, TTL.
//!
//! Each function changes one packet in place and keeps its checksums right by the difference (RFC 1624). Packets that have no such
//! header stay as they are: a flow that sets TCP ports matches TCP packets, and a datapath does not argue.
//! With a partial checksum ([`ib_packet::Offload`]) only the pseudo header's share needs a fix, for the rest is still to be summed.

use ib_dpif::SetField;
use ib_dpif::action::{ArpFields, EthAddrs, IcmpFields, Ipv4Fields, Ipv6Fields, L4Ports, NdFields};
use ib_flow::key::Nsh;
use ib_packet::wire::Ipv4;
use ib_packet::{Be16, Be32, Mac, Packet};

use crate::headers::{CsumKind, L3, Layout, crc32c, ethertype, ip_proto, update_csum};

/// Sets a header field (metadata is the caller's: priority, mark, tunnel).
pub fn set(p: &mut Packet, field: &SetField) {
    match field {
        SetField::Priority(..) | SetField::Mark(..) | SetField::Tunnel(_) => {}
        SetField::Ethernet(v, m) => set_ethernet(p, v, m),
        SetField::Ipv4(v, m) => set_ipv4(p, v, m),
        SetField::Ipv6(v, m) => set_ipv6(p, v, m),
        SetField::Tcp(v, m) => set_ports(p, ip_proto::TCP, v, m),
        SetField::Udp(v, m) => set_ports(p, ip_proto::UDP, v, m),
        SetField::Sctp(v, m) => set_sctp(p, v, m),
        SetField::Icmp(v, m) => set_icmp(p, ip_proto::ICMP, v, m),
        SetField::Icmpv6(v, m) => set_icmp(p, ip_proto::ICMPV6, v, m),
        SetField::Arp(v, m) => set_arp(p, v, m),
        SetField::Nd(v, m) => set_nd(p, v, m),
        SetField::Mpls(v, m) => set_mpls(p, *v, *m),
        SetField::Nsh(v, m) => set_nsh(p, v, m),
    }
}

/// `old` with the bits of `mask` from `value`.
fn merge<const N: usize>(old: [u8; N], value: [u8; N], mask: [u8; N]) -> [u8; N] {
    std::array::from_fn(|i| (old[i] & !mask[i]) | (value[i] & mask[i]))
}

/// Merges into the bytes at `at`; the bytes before and after, if there was a change.
fn merge_at<const N: usize>(
    d: &mut [u8],
    at: usize,
    value: [u8; N],
    mask: [u8; N],
) -> Option<([u8; N], [u8; N])> {
    let place = d.get_mut(at..)?.first_chunk_mut::<N>()?;
    let old = *place;
    *place = merge(old, value, mask);
    (old != *place).then_some((old, *place))
}

fn set_ethernet(p: &mut Packet, v: &EthAddrs, m: &EthAddrs) {
    if p.ethernet {
        merge_at(p.data_mut(), 0, v.dst.0, m.dst.0);
        merge_at(p.data_mut(), 6, v.src.0, m.src.0);
    }
}

/// Checksum of the transport header: where, and how it is stored.
fn l4_csum(p: &Packet, layout: &Layout) -> Option<(usize, CsumKind)> {
    let at = layout.pseudo_csum_at()?;
    let partial = p.offload.partial_csum.is_some_and(|(start, _)| Some(usize::from(start)) == layout.l4);
    let kind = match layout.proto {
        _ if partial => CsumKind::Partial,
        ip_proto::UDP => CsumKind::Udp,
        _ => CsumKind::Full,
    };
    Some((at, kind))
}

fn set_ipv4(p: &mut Packet, v: &Ipv4Fields, m: &Ipv4Fields) {
    let Some(layout) = Layout::of(p) else { return };
    let L3::V4(ip) = layout.l3 else { return };
    let l4 = l4_csum(p, &layout);
    let verified = p.offload.ip_csum_valid;
    let d = p.data_mut();
    for (at, value, mask) in [(12, v.src, m.src), (16, v.dst, m.dst)] {
        if let Some((old, new)) = merge_at(d, ip + at, value.to_bytes(), mask.to_bytes()) {
            update_csum(d, ip + 10, CsumKind::Full, &old, &new);
            if let Some((csum, kind)) = l4 {
                update_csum(d, csum, kind, &old, &new);
            }
        }
    }
    // TOS and TTL share words of the checksum with neighbours that do not change.
    for (at, value, mask) in [(0, [0, v.tos], [0, m.tos]), (8, [v.ttl, 0], [m.ttl, 0])] {
        if let Some((old, new)) = merge_at(d, ip + at, value, mask) {
            update_csum(d, ip + 10, CsumKind::Full, &old, &new);
        }
    }
    if verified && let Ok(mut ip) = Ipv4::new_checked(&mut d[ip..]) {
        ip.fill_checksum();
    }
}

fn set_ipv6(p: &mut Packet, v: &Ipv6Fields, m: &Ipv6Fields) {
    let Some(layout) = Layout::of(p) else { return };
    let L3::V6(ip) = layout.l3 else { return };
    let l4 = l4_csum(p, &layout);
    let d = p.data_mut();
    for (at, value, mask, summed) in [(8, v.src, m.src, true), (24, v.dst, m.dst, !layout.routed)] {
        if let Some((old, new)) = merge_at(d, ip + at, value.to_bytes(), mask.to_bytes())
            && summed
            && let Some((csum, kind)) = l4
        {
            update_csum(d, csum, kind, &old, &new);
        }
    }
    // Traffic class and flow label straddle bytes: version 4, class 8, label 20 bits.
    let word = |class: u8, label: Be32| (u32::from(class) << 20 | (label.get() & 0xf_ffff)).to_be_bytes();
    merge_at(d, ip, word(v.tclass, v.label), word(m.tclass, m.label));
    merge_at(d, ip + 7, [v.hlimit], [m.hlimit]);
}

fn set_ports(p: &mut Packet, proto: u8, v: &L4Ports, m: &L4Ports) {
    let Some(layout) = Layout::of(p) else { return };
    let Some(l4) = layout.l4.filter(|_| layout.proto == proto) else { return };
    let csum = l4_csum(p, &layout).filter(|(_, kind)| *kind != CsumKind::Partial);
    let d = p.data_mut();
    for (at, value, mask) in [(l4, v.src, m.src), (l4 + 2, v.dst, m.dst)] {
        if let Some((old, new)) = merge_at(d, at, value.to_bytes(), mask.to_bytes())
            && let Some((csum, kind)) = csum
        {
            update_csum(d, csum, kind, &old, &new);
        }
    }
}

fn set_sctp(p: &mut Packet, v: &L4Ports, m: &L4Ports) {
    let Some(layout) = Layout::of(p) else { return };
    let Some(l4) = layout.l4.filter(|_| layout.proto == ip_proto::SCTP) else { return };
    let partial = p.offload.partial_csum.is_some();
    let d = p.data_mut();
    let crc = |d: &[u8]| {
        let body = d[l4..layout.l4_end].iter().enumerate();
        crc32c(body.map(|(i, b)| if (8..12).contains(&i) { 0 } else { *b })).to_le_bytes()
    };
    // A checksum that was wrong stays wrong: the receiver shall notice.
    let was = crc(d);
    let a = merge_at(d, l4, v.src.to_bytes(), m.src.to_bytes());
    let b = merge_at(d, l4 + 2, v.dst.to_bytes(), m.dst.to_bytes());
    if (a.is_some() || b.is_some()) && !partial {
        let now = crc(d);
        for i in 0..4 {
            d[l4 + 8 + i] ^= was[i] ^ now[i];
        }
    }
}

fn set_icmp(p: &mut Packet, proto: u8, v: &IcmpFields, m: &IcmpFields) {
    let Some(layout) = Layout::of(p) else { return };
    let Some(l4) = layout.l4.filter(|_| layout.proto == proto) else { return };
    let partial = p.offload.partial_csum.is_some();
    let d = p.data_mut();
    if let Some((old, new)) = merge_at(d, l4, [v.kind, v.code], [m.kind, m.code])
        && !partial
    {
        update_csum(d, l4 + 2, CsumKind::Full, &old, &new);
    }
}

fn set_arp(p: &mut Packet, v: &ArpFields, m: &ArpFields) {
    let Some(L3::Arp(at)) = Layout::of(p).map(|l| l.l3) else { return };
    let d = p.data_mut();
    merge_at(d, at + 6, v.op.to_bytes(), m.op.to_bytes());
    merge_at(d, at + 8, v.sha.0, m.sha.0);
    merge_at(d, at + 14, v.sip.to_bytes(), m.sip.to_bytes());
    merge_at(d, at + 18, v.tha.0, m.tha.0);
    merge_at(d, at + 24, v.tip.to_bytes(), m.tip.to_bytes());
}

fn set_nd(p: &mut Packet, v: &NdFields, m: &NdFields) {
    let Some(layout) = Layout::of(p) else { return };
    let Some(l4) = layout.l4.filter(|_| layout.proto == ip_proto::ICMPV6) else { return };
    let partial = p.offload.partial_csum.is_some();
    let d = &mut p.data_mut()[..layout.l4_end];
    if !matches!(d[l4], 135 | 136) || d.len() < l4 + 24 {
        return;
    }
    let fix = |d: &mut [u8], change: Option<(&[u8], &[u8])>| {
        if let Some((old, new)) = change.filter(|_| !partial) {
            update_csum(d, l4 + 2, CsumKind::Full, old, new);
        }
    };
    let change = merge_at(d, l4 + 8, v.target.to_bytes(), m.target.to_bytes());
    fix(d, change.as_ref().map(|(o, n)| (&o[..], &n[..])));
    // Options: type, length in units of 8 bytes; length 0 is malformed (RFC 4861, 4.6).
    let mut at = l4 + 24;
    while let Some(&[kind, units]) = d.get(at..).and_then(|o| o.first_chunk::<2>()) {
        let len = usize::from(units) * 8;
        if len == 0 || at + len > d.len() {
            return;
        }
        let pair = match kind {
            1 => Some((v.sll, m.sll)),
            2 => Some((v.tll, m.tll)),
            _ => None,
        };
        if let Some((value, mask)) = pair.filter(|_| len == 8) {
            let change = merge_at(d, at + 2, value.0, mask.0);
            fix(d, change.as_ref().map(|(o, n)| (&o[..], &n[..])));
        }
        at += len;
    }
}

fn set_mpls(p: &mut Packet, v: Be32, m: Be32) {
    if let Some(L3::Mpls(at)) = Layout::of(p).map(|l| l.l3) {
        merge_at(p.data_mut(), at, v.to_bytes(), m.to_bytes());
    }
}

fn set_nsh(p: &mut Packet, v: &Nsh, m: &Nsh) {
    let Some(L3::Nsh(at)) = Layout::of(p).map(|l| l.l3) else { return };
    let d = p.data_mut();
    // RFC 8300, 2.2: version 2, O 1, unassigned 1, TTL 6, length 6 bits; MD type; next protocol.
    let head = |f: &Nsh| {
        let word = u16::from(f.flags & 3) << 12 | u16::from(f.ttl & 0x3f) << 6;
        word.to_be_bytes()
    };
    merge_at(d, at, head(v), head(m));
    merge_at(d, at + 4, v.path_hdr.to_bytes(), m.path_hdr.to_bytes());
    if d[at + 2] & 0x0f == 1 {
        for i in 0..4 {
            merge_at(d, at + 8 + 4 * i, v.context[i].to_bytes(), m.context[i].to_bytes());
        }
    }
}

/// Pushes a VLAN tag. `tci` may have the "present" bit set; on the wire it is the DEI bit and stays clear.
pub fn push_vlan(p: &mut Packet, tpid: Be16, tci: Be16) {
    if p.ethernet && p.len() >= 14 {
        p.insert(12, 4);
        let d = p.data_mut();
        d[12..14].copy_from_slice(&tpid.to_bytes());
        d[14..16].copy_from_slice(&(tci.get() & !ib_flow::Vlan::CFI).to_be_bytes());
    }
}

/// Pops the outermost VLAN tag.
pub fn pop_vlan(p: &mut Packet) {
    let tagged = p.data().get(12..14).is_some_and(|t| t == [0x81, 0] || t == [0x88, 0xa8]);
    if p.ethernet && tagged && p.len() >= 18 {
        p.remove(12, 4);
    }
}

fn set_ethertype(p: &mut Packet, layout: &Layout, kind: Be16) {
    match layout.ethertype_at {
        Some(at) => p.data_mut()[at..at + 2].copy_from_slice(&kind.to_bytes()),
        None => p.l3_type = kind,
    }
}

/// Pushes a label behind Ethernet header and VLAN tags.
pub fn push_mpls(p: &mut Packet, lse: Be32, kind: Be16) {
    if let Some(layout) = Layout::of(p) {
        set_ethertype(p, &layout, kind);
        p.insert(layout.l2_end, 4);
        p.data_mut()[layout.l2_end..layout.l2_end + 4].copy_from_slice(&lse.to_bytes());
    }
}

/// Pops the outermost label; what is left is `kind`. Ethernet over MPLS ([`ethertype::TEB`]) loses the outer Ethernet header, too.
pub fn pop_mpls(p: &mut Packet, kind: Be16) {
    let Some(layout) = Layout::of(p) else { return };
    let L3::Mpls(at) = layout.l3 else { return };
    if kind.get() == ethertype::TEB {
        p.pull_front(at + 4);
        p.ethernet = true;
    } else {
        set_ethertype(p, &layout, kind);
        p.remove(at, 4);
    }
}

/// Puts an Ethernet header on an L3 packet.
pub fn push_eth(p: &mut Packet, dst: Mac, src: Mac) {
    if !p.ethernet {
        let kind = p.l3_type;
        let d = p.push_front(14);
        d[..6].copy_from_slice(&dst.0);
        d[6..12].copy_from_slice(&src.0);
        d[12..14].copy_from_slice(&kind.to_bytes());
        p.ethernet = true;
    }
}

/// Takes the Ethernet header off.
pub fn pop_eth(p: &mut Packet) {
    if p.ethernet && p.len() >= 14 {
        let d = p.data();
        p.l3_type = Be16::from_bytes([d[12], d[13]]);
        p.pull_front(14);
        p.ethernet = false;
    }
}

/// Puts an MPLS label in front of everything.
pub fn add_mpls(p: &mut Packet, lse: Be32, ethertype: Be16) {
    p.push_front(4)[..4].copy_from_slice(&lse.to_bytes());
    p.ethernet = false;
    p.l3_type = ethertype;
}

/// Puts a Network Service Header (RFC 8300, 2.2) in front of everything.
pub fn push_nsh(p: &mut Packet, nsh: &Nsh, md2: &[u8]) {
    let rest = match nsh.mdtype {
        1 => 16,
        // The length counts words and has 6 bits.
        _ => md2.len().min(0x3f * 4 - 8) / 4 * 4,
    };
    let len = 8 + rest;
    let d = p.push_front(len);
    let words = u16::try_from(len / 4).unwrap_or(0x3f) & 0x3f;
    let head = u16::from(nsh.flags & 3) << 12 | u16::from(nsh.ttl & 0x3f) << 6 | words;
    d[..2].copy_from_slice(&head.to_be_bytes());
    d[2] = nsh.mdtype & 0x0f;
    d[3] = nsh.np;
    d[4..8].copy_from_slice(&nsh.path_hdr.to_bytes());
    if nsh.mdtype == 1 {
        for (at, c) in d[8..24].chunks_mut(4).zip(&nsh.context) {
            at.copy_from_slice(&c.to_bytes());
        }
    } else {
        d[8..len].copy_from_slice(&md2[..rest]);
    }
    p.ethernet = false;
    p.l3_type = Be16::new(0x894f);
}

/// Takes the Network Service Header off. False, and the packet as it was, if there is none or it is broken.
pub fn pop_nsh(p: &mut Packet) -> bool {
    let d = p.data();
    if p.ethernet || p.l3_type.get() != 0x894f || d.len() < 8 {
        return false;
    }
    let len = usize::from(d[1] & 0x3f) * 4;
    let inner = match d[3] {
        1 => 0x0800,
        2 => 0x86dd,
        3 => 0,
        4 => 0x894f,
        _ => return false,
    };
    if len < 8 || len > d.len() {
        return false;
    }
    p.pull_front(len);
    p.ethernet = inner == 0;
    p.l3_type = Be16::new(inner);
    true
}

/// Decrements TTL or hop limit. False if it has run out; the packet is unchanged then. Other packets pass.
pub fn dec_ttl(p: &mut Packet) -> bool {
    match Layout::of(p).map(|l| l.l3) {
        Some(L3::V4(ip)) => {
            let d = p.data_mut();
            let ttl = d[ip + 8];
            if ttl <= 1 {
                return false;
            }
            d[ip + 8] = ttl - 1;
            update_csum(d, ip + 10, CsumKind::Full, &[ttl, 0], &[ttl - 1, 0]);
            true
        }
        Some(L3::V6(ip)) => {
            let hops = &mut p.data_mut()[ip + 7];
            if *hops <= 1 {
                return false;
            }
            *hops -= 1;
            true
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{checksums_good, tcp_v4, udp_v4, udp_v6};
    use ib_packet::Be128;

    #[test]
    fn ipv4_set_keeps_both_checksums() {
        for frame in [tcp_v4(1, 2, 3, 4, 2), udp_v4(1, 2, 3, 4)] {
            let mut p = Packet::from_frame(&frame);
            let v = Ipv4Fields { src: Be32::new(0xc0a8_0101), tos: 0x28, ttl: 9, ..Ipv4Fields::default() };
            let m = Ipv4Fields { src: Be32::MAX, tos: 0xfc, ttl: 0xff, ..Ipv4Fields::default() };
            set(&mut p, &SetField::Ipv4(v, m));
            assert_eq!(&p.data()[26..34], &[192, 168, 1, 1, 10, 0, 0, 2]);
            assert_eq!((p.data()[15], p.data()[22]), (0x28, 9));
            assert!(checksums_good(p.data()));
        }
    }

    #[test]
    fn a_verified_header_checksum_is_computed_anew() {
        let ttl = SetField::Ipv4(
            Ipv4Fields { ttl: 9, ..Ipv4Fields::default() },
            Ipv4Fields { ttl: 0xff, ..Ipv4Fields::default() },
        );
        for verified in [false, true] {
            let mut p = Packet::from_frame(&udp_v4(1, 2, 3, 4));
            p.data_mut()[24..26].fill(0xde);
            p.offload.ip_csum_valid = verified;
            set(&mut p, &ttl);
            assert_eq!(checksums_good(p.data()), verified);
        }
    }

    #[test]
    fn partial_checksum_follows_addresses_and_ignores_ports() {
        let mut p = Packet::from_frame(&tcp_v4(1, 2, 3, 4, 2)[..58]);
        let pseudo = 2 * 0x0a00u16 + 1 + 2 + 6 + 24;
        p.data_mut()[50..52].copy_from_slice(&pseudo.to_be_bytes());
        p.offload.partial_csum = Some((34, 16));
        let v = Ipv4Fields { dst: Be32::new(0x0b00_0009), ..Ipv4Fields::default() };
        let m = Ipv4Fields { dst: Be32::MAX, ..Ipv4Fields::default() };
        set(&mut p, &SetField::Ipv4(v, m));
        let ports = L4Ports { src: Be16::new(99), dst: Be16::new(7) };
        set(&mut p, &SetField::Tcp(ports, L4Ports { src: Be16::MAX, dst: Be16::MAX }));
        assert_eq!(&p.data()[34..38], &[0, 99, 0, 7]);
        crate::headers::complete_csum(&mut p);
        assert!(checksums_good(p.data()));
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        let mut f = udp_v4(1, 2, 3, 4);
        f[40..42].fill(0);
        let mut p = Packet::from_frame(&f);
        let ports = L4Ports { src: Be16::new(99), dst: Be16::ZERO };
        set(&mut p, &SetField::Udp(ports, L4Ports { src: Be16::MAX, dst: Be16::ZERO }));
        assert_eq!(&p.data()[34..42], &[0, 99, 0, 4, 0, 12, 0, 0]);
    }

    #[test]
    fn ipv6_set_keeps_the_checksum_and_the_version() {
        let mut p = Packet::from_frame(&udp_v6(1, 2, 3, 4));
        let v = Ipv6Fields {
            dst: Be128::new(0xfc00 << 112 | 9),
            tclass: 0xb8,
            label: Be32::new(0x12345),
            hlimit: 3,
            ..Ipv6Fields::default()
        };
        let m = Ipv6Fields {
            dst: Be128::MAX,
            tclass: 0xff,
            label: Be32::new(0xf_ffff),
            hlimit: 0xff,
            ..Ipv6Fields::default()
        };
        set(&mut p, &SetField::Ipv6(v, m));
        assert_eq!(&p.data()[14..18], &[0x6b, 0x81, 0x23, 0x45]);
        assert_eq!(p.data()[21], 3);
        assert!(checksums_good(p.data()));
    }

    #[test]
    fn tags_and_labels_go_on_and_come_off() {
        let frame = udp_v4(1, 2, 3, 4);
        let mut p = Packet::from_frame(&frame);
        push_vlan(&mut p, Be16::new(0x8100), Be16::new(0x1000 | 0x6005));
        assert_eq!(&p.data()[12..18], &[0x81, 0, 0x60, 5, 8, 0]);
        push_mpls(&mut p, Be32::new(0x0001_0140), Be16::new(0x8847));
        assert_eq!(&p.data()[12..22], &[0x81, 0, 0x60, 5, 0x88, 0x47, 0, 1, 1, 0x40]);
        set(&mut p, &SetField::Mpls(Be32::new(0x30), Be32::new(0xff)));
        assert_eq!(&p.data()[18..22], &[0, 1, 1, 0x30]);
        pop_mpls(&mut p, Be16::new(0x0800));
        pop_vlan(&mut p);
        assert_eq!(p.data(), frame);
        pop_vlan(&mut p);
        pop_mpls(&mut p, Be16::new(0x0800));
        assert_eq!(p.data(), frame);
        pop_eth(&mut p);
        assert!(!p.ethernet && p.l3_type == Be16::new(0x800));
        push_eth(&mut p, Mac(frame[..6].try_into().unwrap()), Mac(frame[6..12].try_into().unwrap()));
        assert_eq!(p.data(), frame);
    }

    #[test]
    fn service_headers_go_in_front_and_come_off() {
        let frame = udp_v4(1, 2, 3, 4);
        let mut p = Packet::from_frame(&frame);
        let nsh = Nsh { ttl: 63, mdtype: 1, np: 3, path_hdr: Be32::new(0x5ff), ..Nsh::default() };
        push_nsh(&mut p, &nsh, &[]);
        // RFC 8300, 2.2: six words in all.
        assert_eq!(p.data()[..8], [0x0f, 0xc6, 1, 3, 0, 0, 5, 0xff]);
        assert!(!p.ethernet && p.l3_type == Be16::new(0x894f));
        assert!(pop_nsh(&mut p) && p.ethernet);
        assert_eq!(p.data(), frame);
        assert!(!pop_nsh(&mut p));
        push_nsh(&mut p, &Nsh { mdtype: 2, np: 9, ..nsh }, &[0x10, 0, 10, 4, 1, 2, 3, 4]);
        assert_eq!(p.data()[..2], [0x0f, 0xc4]);
        assert!(!pop_nsh(&mut p), "unknown next protocol");
    }

    #[test]
    fn ttl_counts_down_to_one() {
        let mut p = Packet::from_frame(&udp_v4(1, 2, 3, 4));
        for left in (1..64).rev() {
            assert!(dec_ttl(&mut p));
            assert_eq!(p.data()[22], left);
            assert!(checksums_good(p.data()));
        }
        assert!(!dec_ttl(&mut p));
        assert_eq!(p.data()[22], 1);
    }

    #[test]
    fn sctp_checksum_moves_with_the_ports() {
        let mut sctp = vec![0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 1, 2, 3, 4];
        let crc = crc32c(sctp.iter().copied()).to_le_bytes();
        sctp[8..12].copy_from_slice(&crc);
        let mut p =
            Packet::from_frame(&crate::testing::ethernet(0x800, &crate::testing::ipv4(1, 2, 132, &sctp)));
        let v = L4Ports { src: Be16::new(0x1234), dst: Be16::ZERO };
        set(&mut p, &SetField::Sctp(v, L4Ports { src: Be16::MAX, dst: Be16::ZERO }));
        let mut now = p.data()[34..50].to_vec();
        let stored: [u8; 4] = now[8..12].try_into().unwrap();
        now[8..12].fill(0);
        assert_eq!(&now[..2], &[0x12, 0x34]);
        assert_eq!(crc32c(now.iter().copied()).to_le_bytes(), stored);
    }

    #[test]
    fn neighbour_options_are_rewritten_with_the_checksum() {
        // Neighbour solicitation with a source link-layer option.
        let mut nd = vec![135, 0, 0, 0, 0, 0, 0, 0];
        nd.extend_from_slice(&[0xfd; 16]);
        nd.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0, 1]);
        let mut ip = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
        ip.extend_from_slice(&[0xfe; 16]);
        ip.extend_from_slice(&[0xff; 16]);
        let pseudo = u32::from(!crate::testing::checksum(&ip[8..40], 0)) + 58 + 32;
        let c = crate::testing::checksum(&nd, pseudo).to_be_bytes();
        nd[2..4].copy_from_slice(&c);
        ip.extend_from_slice(&nd);
        let mut p = Packet::from_frame(&crate::testing::ethernet(0x86dd, &ip));
        let v = NdFields { target: Be128::new(5), sll: Mac([6; 6]), tll: Mac::ZERO };
        let m = NdFields { target: Be128::MAX, sll: Mac::BROADCAST, tll: Mac::BROADCAST };
        set(&mut p, &SetField::Nd(v, m));
        assert_eq!(&p.data()[80..86], &[6; 6]);
        assert!(checksums_good(p.data()));
    }
}
