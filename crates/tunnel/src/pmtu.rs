//! Path MTU discovery into tunnels: the answer to a packet that with its outer headers would not fit the underlay.
//!
//! A sender that forbids fragmentation (IPv4 with DF, IPv6 always) relies on being told: RFC 1191's "fragmentation needed", RFC 4443's
//! "packet too big". Nobody between the tunnel and the wire would tell it, so the tunnel does, as the Linux kernel's own tunnels do: the
//! answer looks as if the packet's destination had sent it, and comes in by the tunnel, so that the flow tables (a firewall's, a
//! network address translation's) treat it like any other error about that connection.
//!
//! Errors are never answered by errors (RFC 1122, section 3.2.2): no answer to ICMP errors, to later fragments, to multicast or
//! broadcast. The caller limits the rate.

use std::net::{Ipv4Addr, Ipv6Addr};

use ib_packet::csum::{Sum, checksum};
use ib_packet::{Be16, Packet};

use crate::kind::{IPPROTO_GRE, IPPROTO_ROUTING, IPPROTO_UDP};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const ICMP: usize = 8;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_ICMPV6: u8 = 58;
/// RFC 1812, section 4.3.2.3: errors are no longer than this, IP header included.
const MAX_IPV4_ERROR: usize = 576;
/// RFC 4443, section 2.4 (c). Also the least MTU of IPv6: a smaller one must not be told.
const MIN_IPV6_MTU: usize = 1280;
/// RFC 791: the least MTU of IPv4.
const MIN_IPV4_MTU: usize = 68;

/// The answer to `p`, of which at most `max` bytes (Ethernet header included, if it has one) fit. `None` if its sender
/// is not to be told, or need not be.
pub fn too_big(p: &Packet, max: usize) -> Option<Packet> {
    if p.len() <= max {
        return None;
    }
    let d = p.data();
    let (l3, ethertype) = if p.ethernet { ethernet(d)? } else { (0, p.l3_type.get()) };
    let mtu = max.checked_sub(l3)?;
    let body = match ethertype {
        0x0800 => ipv4(d.get(l3..)?, mtu)?,
        0x86dd => ipv6(d.get(l3..)?, mtu)?,
        _ => return None,
    };
    // Back to where it came from, with the tags that it came with.
    let mut frame = Vec::with_capacity(l3 + body.len());
    if p.ethernet {
        frame.extend_from_slice(&d[6..12]);
        frame.extend_from_slice(&d[..6]);
        frame.extend_from_slice(&d[12..l3]);
    }
    frame.extend_from_slice(&body);
    let mut answer = Packet::from_frame(&frame);
    answer.ethernet = p.ethernet;
    answer.l3_type = if p.ethernet { answer.l3_type } else { Be16::new(ethertype) };
    Some(answer)
}

/// Where what is behind the Ethernet header and its tags begins, and what it is.
fn ethernet(d: &[u8]) -> Option<(usize, u16)> {
    // To a group, or from none that could be answered.
    if d.len() < ETHERNET || d[0] & 1 != 0 || d[6] & 1 != 0 {
        return None;
    }
    let mut at = 12;
    loop {
        let ethertype = be16(d, at)?;
        at += 2;
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            return Some((at, ethertype));
        }
        at += 2;
    }
}

fn be16(d: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*d.get(at..)?.first_chunk()?))
}

/// The answer to an IPv4 packet, from its IP header on.
fn ipv4(d: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = usize::from(d.first()? & 0xf) * 4;
    let frag = be16(d, 6)?;
    if d[0] >> 4 != 4 || header < IPV4 || d.len() < header || mtu < MIN_IPV4_MTU {
        return None;
    }
    // Only who forbids fragments, and has not sent one.
    if frag & 0x4000 == 0 || frag & 0x1fff != 0 {
        return None;
    }
    let (src, dst) = (address4(d, 12)?, address4(d, 16)?);
    let one = |a: Ipv4Addr| !a.is_multicast() && !a.is_broadcast() && !a.is_unspecified() && !a.is_loopback();
    if !one(src) || !one(dst) {
        return None;
    }
    if d[9] == IPPROTO_ICMP && !matches!(d.get(header)?, 0 | 8 | 13..=18) {
        return None;
    }
    let quoted = &d[..d.len().min(MAX_IPV4_ERROR - IPV4 - ICMP)];
    let len = u16::try_from(IPV4 + ICMP + quoted.len()).ok()?;
    let mut out = vec![0x45, d[1], 0, 0, 0, 0, 0x40, 0, 64, IPPROTO_ICMP, 0, 0];
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&dst.octets());
    out.extend_from_slice(&src.octets());
    let sum = checksum(&out).to_bytes();
    out[10..12].copy_from_slice(&sum);
    out.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
    out.extend_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(quoted);
    let sum = checksum(&out[IPV4..]).to_bytes();
    out[IPV4 + 2..IPV4 + 4].copy_from_slice(&sum);
    Some(out)
}

fn address4(d: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*d.get(at..)?.first_chunk::<4>()?))
}

/// The answer to an IPv6 packet, from its IP header on.
fn ipv6(d: &[u8], mtu: usize) -> Option<Vec<u8>> {
    if d.len() < IPV6 || d[0] >> 4 != 6 || d.len() <= MIN_IPV6_MTU {
        return None;
    }
    let address = |at: usize| Some(Ipv6Addr::from(*d.get(at..)?.first_chunk::<16>()?));
    let (src, dst) = (address(8)?, address(24)?);
    if src.is_multicast() || src.is_unspecified() || src.is_loopback() || dst.is_multicast() {
        return None;
    }
    let (mut at, mut next) = (IPV6, d[6]);
    loop {
        match next {
            0 | 43 | 60 => {
                (next, at) = (*d.get(at)?, at + 8 + usize::from(*d.get(at + 1)?) * 8);
            }
            IPPROTO_FRAGMENT => {
                if be16(d, at + 2)? & 0xfff8 != 0 {
                    return None;
                }
                (next, at) = (*d.get(at)?, at + 8);
            }
            _ => break,
        }
    }
    // Below 128 they are errors; what is redirected need not be told either.
    if next == IPPROTO_ICMPV6 && matches!(d.get(at)?, 0..=127 | 137) {
        return None;
    }
    let quoted = &d[..d.len().min(MIN_IPV6_MTU - IPV6 - ICMP)];
    let len = u16::try_from(ICMP + quoted.len()).ok()?;
    let mut out = vec![0x60, 0, 0, 0, 0, 0, IPPROTO_ICMPV6, 64];
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&dst.octets());
    out.extend_from_slice(&src.octets());
    out.extend_from_slice(&[2, 0, 0, 0]);
    out.extend_from_slice(&u32::try_from(mtu.max(MIN_IPV6_MTU)).ok()?.to_be_bytes());
    out.extend_from_slice(quoted);
    let sum = Sum::ZERO
        .bytes(&out[8..IPV6])
        .bytes(&[0, IPPROTO_ICMPV6])
        .bytes(&len.to_be_bytes())
        .bytes(&out[IPV6..])
        .checksum()
        .to_bytes();
    out[IPV6 + 2..IPV6 + 4].copy_from_slice(&sum);
    Some(out)
}

/// `header` (of [`crate::build::build`]) as the peer would have put it in front: what [`crate::pop::pop`] makes of it is the
/// tunnel's fields of a packet that came in by it. `None` if these are no such headers.
pub fn turned(header: &[u8]) -> Option<Vec<u8>> {
    let mut h = header.to_vec();
    let (at, len, protocol) = match h.get(12..14)? {
        [0x08, 0x00] => (ETHERNET + 12, 4, *h.get(ETHERNET + 9)?),
        [0x86, 0xdd] => (ETHERNET + 8, 16, *h.get(ETHERNET + 6)?),
        _ => return None,
    };
    if !matches!(protocol, IPPROTO_UDP | IPPROTO_GRE | IPPROTO_ROUTING | 4 | 41) || h.len() < at + 2 * len {
        return None;
    }
    let (src, dst) = h[at..at + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
    Some(h)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: u16, body: &[u8], len: usize) -> Packet {
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        f.extend_from_slice(&ethertype.to_be_bytes());
        f.extend_from_slice(body);
        f.resize(len, 0);
        Packet::from_frame(&f)
    }
    fn v4(frag: u16, protocol: u8) -> Vec<u8> {
        let mut h = vec![0x45, 0, 5, 220, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        h[6..8].copy_from_slice(&frag.to_be_bytes());
        h
    }
    fn v6(next: u8) -> Vec<u8> {
        let mut h = vec![0x60, 0, 0, 0, 5, 180, next, 64];
        h.extend_from_slice(&"fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        h.extend_from_slice(&"fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        h
    }

    #[test]
    fn who_forbids_fragments_is_told_what_fits() {
        let p = frame(0x0800, &v4(0x4000, 6), 1514);
        let a = too_big(&p, 1464).unwrap();
        let d = a.data();
        assert_eq!(&d[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        assert_eq!((a.len(), &d[26..34]), (14 + 576, &[10, 0, 0, 2, 10, 0, 0, 1][..]));
        // Fragmentation needed, 1450 bytes; and what it is about.
        assert_eq!(&d[34..42], [3, 4, d[36], d[37], 0, 0, 5, 170]);
        assert_eq!(&d[42..62], &p.data()[14..34]);
        assert!(checksum(&d[14..34]).is_zero() && checksum(&d[34..]).is_zero());
        assert!(too_big(&p, 1514).is_none());
    }

    #[test]
    fn ipv6_is_told_no_less_than_it_can_do() {
        let p = frame(0x86dd, &v6(17), 1514);
        for (max, mtu) in [(1444, 1430u32), (1000, 1280)] {
            let a = too_big(&p, max).unwrap();
            let d = a.data();
            assert_eq!((a.len(), d[54], &d[58..62]), (14 + 1280, 2, &mtu.to_be_bytes()[..]));
            let sum = Sum::ZERO.bytes(&d[22..54]).bytes(&[0, 58]).bytes(&d[18..20]).bytes(&d[54..]);
            assert!(sum.checksum().is_zero());
        }
        // This one fits everywhere, so it is not its size.
        assert!(too_big(&frame(0x86dd, &v6(17), 1200), 1000).is_none());
    }

    #[test]
    fn some_are_not_answered() {
        let icmp = |kind: u8| [v4(0x4000, 1), vec![kind]].concat();
        let icmpv6 = |kind: u8| [v6(58), vec![kind]].concat();
        for (ethertype, body, answered) in [
            (0x0800, v4(0, 6), false),
            (0x0800, v4(0x4001, 6), false),
            (0x0800, icmp(8), true),
            (0x0800, icmp(3), false),
            (0x86dd, icmpv6(128), true),
            (0x86dd, icmpv6(2), false),
            (0x86dd, [v6(44), vec![17, 0, 0, 1]].concat(), true),
            (0x86dd, [v6(44), vec![17, 0, 0, 8]].concat(), false),
            (0x0806, vec![0, 1], false),
        ] {
            let p = frame(ethertype, &body, 1514);
            assert_eq!(too_big(&p, 1400).is_some(), answered, "{ethertype:x} {body:?}");
        }
        let mut group = frame(0x0800, &v4(0x4000, 17), 1514);
        group.data_mut()[0] = 1;
        assert!(too_big(&group, 1400).is_none());
    }

    #[test]
    fn tags_and_missing_ethernet_headers_stay() {
        let tagged = [&[0, 5, 8, 0], &v4(0x4000, 6)[..]].concat();
        let a = too_big(&frame(0x8100, &tagged, 1518), 1468).unwrap();
        assert_eq!((&a.data()[12..18], &a.data()[44..46]), (&[0x81, 0, 0, 5, 8, 0][..], &[5, 170][..]));
        let mut p = frame(0x0800, &v4(0x4000, 6), 1514);
        p.pull_front(14);
        (p.ethernet, p.l3_type) = (false, Be16::new(0x0800));
        let a = too_big(&p, 1450).unwrap();
        assert_eq!(
            (a.ethernet, a.l3_type.get(), a.len(), &a.data()[26..28]),
            (false, 0x0800, 576, &[5, 170][..])
        );
    }
}
