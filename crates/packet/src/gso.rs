//! Doing in software what a packet's [`Offload`] leaves to be done: checksums and segmentation.
//!
//! Super-frames travel whole as long as they can (see [`Offload`]); a port that cannot send them calls
//! [`segment`] and [`finish_csum`] at the last moment. Whatever a super-frame's headers say wrong, the
//! outcome is packets, never a panic and never more than `payload / size + 1` of them.

use crate::be::Be16;
use crate::buffer::{Gso, GsoKind, Offload, Packet};
use crate::csum::Sum;
use crate::wire::{Ethernet, Ipv4, Ipv6, Tcp, Udp, tcp};

/// Where a packet's IP and transport headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpLayers {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Transport protocol.
    pub protocol: u8,
    /// One past the IP packet's last byte.
    pub end: usize,
}

/// Finds IP and transport headers behind Ethernet and VLAN tags; `None` unless both are there and this is no
/// later fragment. A super-frame's total length may be too small to count; then its bytes do.
pub fn ip_layers(p: &Packet) -> Option<IpLayers> {
    let data = p.data();
    let (mut l3, mut ethertype) = if p.ethernet {
        (14, Ethernet::new_checked(data).ok()?.ethertype().get())
    } else {
        (0, p.l3_type.get())
    };
    while matches!(ethertype, 0x8100 | 0x88a8) {
        let tag = data.get(l3..l3 + 4)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        l3 += 4;
    }
    let gso = p.offload.gso.is_some();
    match ethertype {
        0x0800 => {
            let ip = Ipv4::new_checked(data.get(l3..)?).ok()?;
            let end = if gso { data.len() } else { l3 + usize::from(ip.total_len().get()) };
            let l4 = l3 + ip.header_len();
            let ok = ip.header_len() >= 20 && l4 <= end && end <= data.len() && !ip.is_later_fragment();
            ok.then(|| IpLayers { l3, l4, v6: false, protocol: ip.protocol(), end })
        }
        0x86dd => {
            let ip = Ipv6::new_checked(data.get(l3..)?).ok()?;
            let end = if gso { data.len() } else { l3 + 40 + usize::from(ip.payload_len().get()) };
            let l4 = ip.l4()?;
            let at = l3 + l4.offset;
            let ok = at <= end && end <= data.len() && !l4.later_fragment;
            ok.then_some(IpLayers { l3, l4: at, v6: true, protocol: l4.protocol, end })
        }
        _ => None,
    }
}

/// Completes a partial checksum in place. Nothing to do: nothing is done. A place outside of the packet is
/// ignored, as the sender's fault.
pub fn finish_csum(p: &mut Packet) {
    let Some((start, offset)) = p.offload.partial_csum.take() else { return };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let Some(range) = p.data_mut().get_mut(start..) else { return };
    if offset + 2 > range.len() {
        return;
    }
    let sum = Sum::ZERO.bytes(range);
    // Only UDP has its checksum there, and only UDP reads zero as "none".
    let csum = if offset == 6 { sum.checksum_udp() } else { sum.checksum() };
    range[offset..offset + 2].copy_from_slice(&csum.to_bytes());
    p.offload.csum_valid = true;
}

/// Computes TCP, UDP, ICMP, IGMP or ICMPv6 checksum and IPv4's header checksum from nothing. False if the
/// packet has no transport header that has one.
pub fn fill_csums(p: &mut Packet) -> bool {
    fill_header_csum(p);
    fill_transport_csum(p)
}

/// Computes IPv4's header checksum from nothing.
pub fn fill_header_csum(p: &mut Packet) {
    if let Some(l) = ip_layers(p) {
        fill_ip_csum(p.data_mut(), l);
    }
}

/// The other checksum of [`fill_csums`], and its answer.
pub fn fill_transport_csum(p: &mut Packet) -> bool {
    let Some(l) = ip_layers(p) else { return false };
    p.offload.partial_csum = None;
    let (head, l4) = p.data_mut()[..l.end].split_at_mut(l.l4);
    fill_l4_csum(&head[l.l3..], l, l4)
}

fn fill_ip_csum(data: &mut [u8], l: IpLayers) {
    if !l.v6
        && let Ok(mut ip) = Ipv4::new_checked(&mut data[l.l3..])
    {
        ip.fill_checksum();
    }
}

/// `ip` begins with the IP header, `l4` is transport header and payload.
fn fill_l4_csum(ip: &[u8], l: IpLayers, l4: &mut [u8]) -> bool {
    let at = match (l.protocol, l.v6) {
        (6, _) => 16,
        (17, _) => 6,
        (1 | 2, false) | (58, true) => 2,
        _ => return false,
    };
    if l4.len() < at + 2 {
        return false;
    }
    let len = l4.len() as u32;
    let pseudo = if matches!((l.protocol, l.v6), (1 | 2, false)) {
        Sum::ZERO
    } else if l.v6 {
        Ipv6::new_checked(ip).map_or(Sum::ZERO, |ip| ip.pseudo(l.protocol, len))
    } else {
        Ipv4::new_checked(ip).map_or(Sum::ZERO, |ip| ip.pseudo(len as u16))
    };
    l4[at..at + 2].fill(0);
    let sum = pseudo.bytes(l4);
    let csum = if l.protocol == 17 { sum.checksum_udp() } else { sum.checksum() };
    l4[at..at + 2].copy_from_slice(&csum.to_bytes());
    true
}

/// Appends the segments of a super-frame to `out`, checksums complete; other packets are copied with their
/// checksum completed. A super-frame that is not what its kind says is passed on as one plain packet.
pub fn segment(p: &Packet, out: &mut Vec<Packet>) {
    match p.offload.gso.and_then(|g| plan(p, g).map(|plan| (g, plan))) {
        Some((g, plan)) => cut(p, g, plan, out),
        None => {
            let mut one = p.clone();
            one.offload.gso = None;
            finish_csum(&mut one);
            out.push(one);
        }
    }
}

#[derive(Clone, Copy)]
struct Plan {
    l: IpLayers,
    /// Where payload begins.
    payload: usize,
}

fn plan(p: &Packet, g: Gso) -> Option<Plan> {
    let l = ip_layers(p)?;
    let l4 = &p.data()[l.l4..l.end];
    let hdr = match (g.kind, l.protocol, l.v6) {
        (GsoKind::TcpV4, 6, false) | (GsoKind::TcpV6, 6, true) => {
            let t = Tcp::new_checked(l4).ok().filter(|t| t.is_valid())?;
            t.header_len()
        }
        (GsoKind::UdpL4, 17, _) if l4.len() >= 8 => 8,
        _ => return None,
    };
    (g.size > 0).then_some(Plan { l, payload: l.l4 + hdr })
}

fn cut(p: &Packet, g: Gso, plan: Plan, out: &mut Vec<Packet>) {
    let data = &p.data()[..plan.l.end];
    let (headers, payload) = data.split_at(plan.payload);
    let count = payload.len().div_ceil(g.size.into()).max(1);
    let chunks = payload.chunks(g.size.into()).chain(payload.is_empty().then_some(&[][..]));
    let mut seq = 0u32;
    for (i, chunk) in chunks.enumerate() {
        let mut seg = Packet::with_capacity(headers.len() + chunk.len());
        seg.extend(headers);
        seg.extend(chunk);
        seg.ethernet = p.ethernet;
        seg.l3_type = p.l3_type;
        seg.rss_hash = p.rss_hash;
        seg.offload = Offload { csum_valid: true, ..Offload::default() };
        let l = IpLayers { end: headers.len() + chunk.len(), ..plan.l };
        let bytes = seg.data_mut();
        let (head, l4) = bytes.split_at_mut(l.l4);
        let ip_len = l.end - l.l3;
        if l.v6 {
            if let Ok(mut ip) = Ipv6::new_checked(&mut head[l.l3..]) {
                ip.set_payload_len(Be16::new((ip_len - 40) as u16));
            }
        } else if let Ok(mut ip) = Ipv4::new_checked(&mut head[l.l3..]) {
            ip.set_total_len(Be16::new(ip_len as u16));
            ip.set_id(Be16::new(ip.id().get().wrapping_add(i as u16)));
            ip.fill_checksum();
        }
        if l.protocol == 6 {
            if let Ok(mut t) = Tcp::new_checked(&mut *l4) {
                t.set_seq(t.seq().get().wrapping_add(seq).into());
                let mut flags = t.flags();
                if i + 1 < count {
                    flags &= !(tcp::FIN | tcp::PSH);
                }
                if i > 0 {
                    flags &= !tcp::CWR;
                }
                t.set_flags(flags);
            }
        } else {
            let len = l4.len() as u16;
            if let Ok(mut u) = Udp::new_checked(&mut *l4) {
                u.set_len(Be16::new(len));
            }
        }
        fill_l4_csum(&head[l.l3..], l, l4);
        seq = seq.wrapping_add(chunk.len() as u32);
        out.push(seg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csum;

    /// Ethernet, IPv4 or IPv6, TCP or UDP, and `n` bytes of payload, with a partial checksum.
    fn super_frame(v6: bool, tcp: bool, n: usize) -> Packet {
        let mut b = vec![2u8; 12];
        let l4_len = n + if tcp { 20 } else { 8 };
        if v6 {
            b.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            b.extend_from_slice(&(l4_len as u16).to_be_bytes());
            b.extend_from_slice(&[if tcp { 6 } else { 17 }, 64]);
            b.extend_from_slice(&[1; 32]);
        } else {
            b.extend_from_slice(&[8, 0, 0x45, 0]);
            b.extend_from_slice(&((l4_len + 20) as u16).to_be_bytes());
            b.extend_from_slice(&[0xff, 0xff, 0x40, 0, 64, if tcp { 6 } else { 17 }, 0, 0]);
            b.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let l4 = b.len() as u16;
        if tcp {
            b.extend_from_slice(&[
                0, 80, 0, 81, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0, 0x50, 0x99, 0, 1, 0, 0, 0, 0,
            ]);
        } else {
            b.extend_from_slice(&[0, 80, 0, 81]);
            b.extend_from_slice(&(l4_len as u16).to_be_bytes());
            b.extend_from_slice(&[0, 0]);
        }
        b.extend((0..n).map(|i| i as u8));
        let mut p = Packet::from_frame(&b);
        let kind = match (tcp, v6) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            _ => GsoKind::UdpL4,
        };
        p.offload.gso = Some(Gso { kind, size: 1000, ecn: false });
        p.offload.partial_csum = Some((l4, if tcp { 16 } else { 6 }));
        p
    }

    fn l4_ok(p: &Packet) -> bool {
        let l = ip_layers(p).unwrap();
        let d = p.data();
        let len = l.end - l.l4;
        let pseudo = if l.v6 {
            Ipv6::new_checked(&d[l.l3..]).unwrap().pseudo(l.protocol, len as u32)
        } else {
            assert!(Ipv4::new_checked(&d[l.l3..]).unwrap().checksum_ok());
            Ipv4::new_checked(&d[l.l3..]).unwrap().pseudo(len as u16)
        };
        pseudo.bytes(&d[l.l4..l.end]).checksum().is_zero()
    }

    #[test]
    fn tcp_segments() {
        for v6 in [false, true] {
            let p = super_frame(v6, true, 2500);
            let mut out = Vec::new();
            segment(&p, &mut out);
            assert_eq!(out.len(), 3);
            let mut payload = Vec::new();
            for (i, s) in out.iter().enumerate() {
                assert!(s.offload.is_plain() && l4_ok(s));
                let l = ip_layers(s).unwrap();
                let t = Tcp::new_checked(&s.data()[l.l4..]).unwrap();
                assert_eq!(t.seq().get(), 0xffff_fff0u32.wrapping_add(1000 * i as u32));
                let flags = [tcp::CWR | tcp::ACK, tcp::ACK, tcp::ACK | tcp::FIN | tcp::PSH][i];
                assert_eq!(t.flags(), flags);
                if !v6 {
                    let ip = Ipv4::new_checked(&s.data()[l.l3..]).unwrap();
                    assert_eq!(ip.id().get(), 0xffffu16.wrapping_add(i as u16));
                }
                payload.extend_from_slice(t.payload());
            }
            assert_eq!(payload, p.data()[p.len() - 2500..]);
        }
    }

    #[test]
    fn udp_segments() {
        for v6 in [false, true] {
            let mut out = Vec::new();
            segment(&super_frame(v6, false, 2001), &mut out);
            assert_eq!(out.len(), 3);
            assert!(out.iter().all(l4_ok));
            let l = ip_layers(&out[2]).unwrap();
            assert_eq!(Udp::new_checked(&out[2].data()[l.l4..]).unwrap().len().get(), 9);
        }
    }

    #[test]
    fn partial_checksum() {
        let mut p = super_frame(false, true, 10);
        p.offload.gso = None;
        let l = ip_layers(&p).unwrap();
        let pseudo = Ipv4::new_checked(&p.data()[l.l3..]).unwrap().pseudo(30).folded();
        p.data_mut()[l.l4 + 16..l.l4 + 18].copy_from_slice(&pseudo.to_bytes());
        finish_csum(&mut p);
        assert!(p.offload.is_plain() && p.offload.csum_valid);
        fill_ip_csum(p.data_mut(), l);
        assert!(l4_ok(&p));
        let mut bad = Packet::from_frame(&[0; 20]);
        bad.offload.partial_csum = Some((60_000, 16));
        finish_csum(&mut bad);
        bad.offload.partial_csum = Some((10, 60_000));
        finish_csum(&mut bad);
        assert_eq!(bad.data(), [0; 20]);
    }

    #[test]
    fn fill_from_nothing_and_short_packets() {
        let mut p = super_frame(true, false, 5);
        p.offload.gso = None;
        assert!(fill_csums(&mut p) && l4_ok(&p));
        assert!(!fill_csums(&mut Packet::from_frame(&[0; 14])));
        assert_ne!(csum::checksum(&[1]), Be16::ZERO);
    }

    #[test]
    fn what_is_not_what_it_says_is_passed_on() {
        let mut p = super_frame(false, true, 100);
        p.offload.gso = Some(Gso { kind: GsoKind::UdpL4, size: 10, ecn: false });
        let mut out = Vec::new();
        segment(&p, &mut out);
        assert_eq!((out.len(), out[0].offload.is_plain()), (1, true));
        p.offload.gso = Some(Gso { kind: GsoKind::TcpV4, size: 0, ecn: false });
        out.clear();
        segment(&p, &mut out);
        assert_eq!(out.len(), 1);
    }
}
