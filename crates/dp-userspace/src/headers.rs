//! Where the headers of a packet are, and the checksum arithmetic of changing them.
//!
//! [`Layout::of`] walks Ethernet, VLAN tags, MPLS, IPv4 or IPv6 with extension headers, and stops at what is cut
//! short: an offset is present only if its fixed header fits into the packet. It costs a few nanoseconds and is done for actions that change headers only.

use ib_packet::Packet;

/// Ethertypes that actions care about.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// RARP.
    pub const RARP: u16 = 0x8035;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad tag.
    pub const SVLAN: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS unicast.
    pub const MPLS: u16 = 0x8847;
    /// MPLS multicast.
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// Network service header.
    pub const NSH: u16 = 0x894f;
    /// Transparent Ethernet bridging.
    pub const TEB: u16 = 0x6558;
}

/// IP protocols that actions care about.
pub mod ip_proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Network layer of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4 header at this offset.
    V4(usize),
    /// IPv6 header at this offset.
    V6(usize),
    /// ARP or RARP for IPv4 over Ethernet at this offset.
    Arp(usize),
    /// First MPLS label at this offset.
    Mpls(usize),
    /// Network service header at this offset.
    Nsh(usize),
    /// Anything else.
    Other,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the ethertype behind all VLAN tags is; `None` for a packet without Ethernet header.
    pub ethertype_at: Option<usize>,
    /// First byte behind Ethernet header and VLAN tags.
    pub l2_end: usize,
    /// Network layer.
    pub l3: L3,
    /// IP protocol behind extension headers.
    pub proto: u8,
    /// Transport header; absent in later fragments.
    pub l4: Option<usize>,
    /// First byte behind the IP payload.
    pub l4_end: usize,
    /// A routing header with segments left: the IPv6 destination is not the one in the checksum.
    pub routed: bool,
}

fn be16(d: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*d.get(at..)?.first_chunk()?))
}

impl Layout {
    /// Looks at `packet`. `None` if it is too short for its Ethernet header.
    pub fn of(packet: &Packet) -> Option<Layout> {
        let d = packet.data();
        let (mut at, mut kind, mut ethertype_at) = (0, packet.l3_type.get(), None);
        if packet.ethernet {
            kind = be16(d, 12)?;
            (at, ethertype_at) = (14, Some(12));
            while kind == ethertype::VLAN || kind == ethertype::SVLAN {
                let Some(next) = be16(d, at + 2) else { break };
                kind = next;
                ethertype_at = Some(at + 2);
                at += 4;
            }
        }
        let mut layout = Layout {
            ethertype_at,
            l2_end: at,
            l3: L3::Other,
            proto: 0,
            l4: None,
            l4_end: d.len(),
            routed: false,
        };
        let left = d.len().saturating_sub(at);
        match kind {
            ethertype::IPV4 if left >= 20 => layout.ipv4(d, at),
            ethertype::IPV6 if left >= 40 => layout.ipv6(d, at),
            ethertype::ARP | ethertype::RARP if left >= 28 && d[at..at + 6] == [0, 1, 8, 0, 6, 4] => {
                layout.l3 = L3::Arp(at);
            }
            ethertype::MPLS | ethertype::MPLS_MULTICAST if left >= 4 => layout.l3 = L3::Mpls(at),
            ethertype::NSH if left >= 8 => layout.l3 = L3::Nsh(at),
            _ => {}
        }
        Some(layout)
    }

    fn ipv4(&mut self, d: &[u8], at: usize) {
        let header = usize::from(d[at] & 0x0f) * 4;
        if d[at] >> 4 != 4 || header < 20 || at + header > d.len() {
            return;
        }
        self.l3 = L3::V4(at);
        self.proto = d[at + 9];
        let total = usize::from(u16::from_be_bytes([d[at + 2], d[at + 3]]));
        // Super-frames past 64 KiB carry a total length of 0.
        if total >= header {
            self.l4_end = d.len().min(at + total);
        }
        let later = d[at + 6] & 0x1f != 0 || d[at + 7] != 0;
        if !later {
            self.find_l4(at + header);
        }
    }

    fn ipv6(&mut self, d: &[u8], at: usize) {
        if d[at] >> 4 != 6 {
            return;
        }
        self.l3 = L3::V6(at);
        let payload = usize::from(u16::from_be_bytes([d[at + 4], d[at + 5]]));
        if payload != 0 {
            self.l4_end = d.len().min(at + 40 + payload);
        }
        self.proto = d[at + 6];
        let mut next = at + 40;
        // Each turn moves at least eight bytes forward: the loop ends with the packet.
        loop {
            let Some(ext) = d.get(next..self.l4_end).and_then(|e| e.first_chunk::<8>()) else {
                if !matches!(self.proto, 0 | 43 | 44 | 51 | 60) {
                    self.find_l4(next);
                }
                return;
            };
            let len = match self.proto {
                0 | 60 => 8 * (usize::from(ext[1]) + 1),
                43 => {
                    self.routed |= ext[3] != 0;
                    8 * (usize::from(ext[1]) + 1)
                }
                51 => 4 * (usize::from(ext[1]) + 2),
                44 => {
                    if u16::from_be_bytes([ext[2], ext[3]]) & 0xfff8 != 0 {
                        self.proto = ext[0];
                        return;
                    }
                    8
                }
                _ => {
                    self.find_l4(next);
                    return;
                }
            };
            self.proto = ext[0];
            next += len.max(8);
        }
    }

    fn find_l4(&mut self, at: usize) {
        let need = match self.proto {
            ip_proto::TCP => 20,
            ip_proto::UDP => 8,
            ip_proto::SCTP => 12,
            ip_proto::ICMP | ip_proto::ICMPV6 => 4,
            _ => return,
        };
        if at + need <= self.l4_end {
            self.l4 = Some(at);
        }
    }

    /// Where the transport checksum that covers the IP addresses is.
    pub fn pseudo_csum_at(&self) -> Option<usize> {
        let l4 = self.l4?;
        match (self.proto, self.l3) {
            (ip_proto::TCP, _) => Some(l4 + 16),
            (ip_proto::UDP, _) => Some(l4 + 6),
            (ip_proto::ICMPV6, L3::V6(_)) => Some(l4 + 2),
            _ => None,
        }
    }
}

/// Adds `new` to and takes `old` from a one's complement sum. Both are even in length and start on an even
/// offset of what the sum covers.
fn adjust(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut acc = u32::from(sum);
    for (o, n) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
        acc += u32::from(!u16::from_be_bytes(*o)) + u32::from(u16::from_be_bytes(*n));
    }
    while acc > 0xffff {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    acc as u16
}

/// How the checksum at hand is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsumKind {
    /// Complete: the complement of the sum (RFC 1624).
    Full,
    /// Complete, UDP: zero means there is none.
    Udp,
    /// The pseudo header's sum only, not complemented; someone behind us will complete it.
    Partial,
}

/// Updates the checksum at `at` after bytes that it covers have changed from `old` to `new`.
pub fn update_csum(d: &mut [u8], at: usize, kind: CsumKind, old: &[u8], new: &[u8]) {
    let Some(field) = d.get_mut(at..at + 2) else { return };
    let was = u16::from_be_bytes([field[0], field[1]]);
    let now = match kind {
        CsumKind::Full => !adjust(!was, old, new),
        CsumKind::Partial => adjust(was, old, new),
        CsumKind::Udp if was == 0 => 0,
        CsumKind::Udp => match !adjust(!was, old, new) {
            0 => 0xffff,
            v => v,
        },
    };
    field.copy_from_slice(&now.to_be_bytes());
}

/// Completes a partial checksum in place, for when the packet is about to lose what the completion needs.
pub fn complete_csum(packet: &mut Packet) {
    let Some((start, offset)) = packet.offload.partial_csum.take() else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let d = packet.data_mut();
    if at + 2 > d.len() {
        return;
    }
    let mut acc = 0u64;
    for pair in d[start..].chunks(2) {
        acc += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while acc > 0xffff {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    let sum = match !(acc as u16) {
        0 => 0xffff,
        v => v,
    };
    d[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// CRC32c as SCTP wants it (RFC 4960, appendix B).
pub fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut t = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut k = 0;
            while k < 8 {
                c = if c & 1 != 0 { 0x82f6_3b78 ^ (c >> 1) } else { c >> 1 };
                k += 1;
            }
            t[i] = c;
            i += 1;
        }
        t
    };
    !bytes.fold(!0u32, |c, b| TABLE[usize::from((c as u8) ^ b)] ^ (c >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{checksums_good, ethernet, ipv4, tcp_v4, udp_v6};
    use ib_packet::Be16;

    #[test]
    fn finds_headers_behind_tags_and_extensions() {
        let mut p = Packet::from_frame(&tcp_v4(1, 2, 3, 4, 0x10));
        let l = Layout::of(&p).unwrap();
        assert_eq!((l.l3, l.l4, l.l4_end, l.ethertype_at), (L3::V4(14), Some(34), 58, Some(12)));
        p.insert(12, 4);
        p.data_mut()[12..16].copy_from_slice(&[0x81, 0, 0, 5]);
        let l = Layout::of(&p).unwrap();
        assert_eq!((l.l3, l.l4, l.ethertype_at), (L3::V4(18), Some(38), Some(16)));
        // Hop-by-hop, then UDP.
        let mut v6 = udp_v6(1, 2, 3, 4);
        v6[18..21].copy_from_slice(&[0, 20, 0]);
        v6.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
        let l = Layout::of(&Packet::from_frame(&v6)).unwrap();
        assert_eq!((l.l3, l.proto, l.l4), (L3::V6(14), 17, Some(62)));
        let mut bare = Packet::from_frame(&ipv4(1, 2, 17, &[0, 1, 0, 2, 0, 8, 0, 0]));
        bare.ethernet = false;
        bare.l3_type = Be16::new(0x800);
        assert_eq!(Layout::of(&bare).unwrap().l4, Some(20));
    }

    #[test]
    fn later_fragments_and_short_packets_have_no_transport_header() {
        let mut f = tcp_v4(1, 2, 3, 4, 0x10);
        f[21] = 1;
        assert_eq!(Layout::of(&Packet::from_frame(&f)).unwrap().l4, None);
        let short = ethernet(0x0800, &ipv4(1, 2, 6, &[0; 10]));
        assert_eq!(Layout::of(&Packet::from_frame(&short)).unwrap().l4, None);
        assert_eq!(Layout::of(&Packet::from_frame(&f[..13])), None);
    }

    #[test]
    fn partial_checksums_complete_to_the_right_one() {
        let good = tcp_v4(1, 2, 3, 4, 0x10);
        let mut p = Packet::from_frame(&good[..58]);
        let pseudo = 2 * 0x0a00u16 + 1 + 2 + 6 + 24;
        p.data_mut()[50..52].copy_from_slice(&pseudo.to_be_bytes());
        p.offload.partial_csum = Some((34, 16));
        complete_csum(&mut p);
        assert_eq!(p.data(), &good[..58]);
        assert!(checksums_good(p.data()) && p.offload.partial_csum.is_none());
    }

    #[test]
    fn crc32c_of_the_check_string() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }
}
