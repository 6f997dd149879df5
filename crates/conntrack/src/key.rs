//! From a packet to the key of its connection.
//!
//! [`parse`] walks Ethernet, VLAN tags and IP, and checks what a tracker relies on: lengths, header and transport
//! checksums (unless the packet's offloads vouch for them), flags. What does not pass is invalid. An ICMP error has the key of the
//! packet that it is about, turned round, and is marked as related.

use ib_flow::key::CtOrig;
use ib_packet::csum::{self, Sum};
use ib_packet::wire::{Icmp, Ipv4, Ipv6, Tcp};
use ib_packet::{Be16, Be32, Be128, Packet};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// One direction of a connection. IPv4 addresses are in the low 32 bits.
///
/// Of ICMP, `sport` is the type, `dport` the type of the answer, so that turning a key round works for all protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source address.
    pub src: Be128,
    /// Destination address.
    pub dst: Be128,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// ICMP id.
    pub id: u16,
    /// Zone.
    pub zone: u16,
    /// IP protocol.
    pub proto: u8,
    /// IPv6 addresses.
    pub v6: bool,
}

impl Key {
    /// The other direction.
    pub fn reversed(&self) -> Key {
        Key { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..*self }
    }
    /// Whether the protocol has ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.proto, TCP | UDP | SCTP)
    }
    /// As the metadata of a packet has it.
    pub fn orig(&self) -> CtOrig {
        let dport = if matches!(self.proto, ICMP | ICMPV6) { 0 } else { self.dport };
        CtOrig {
            src: self.src,
            dst: self.dst,
            v6: self.v6,
            proto: self.proto,
            tp_src: Be16::new(self.sport),
            tp_dst: Be16::new(dport),
        }
    }
}

/// What the state machine needs of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Flags, 12 bits.
    pub flags: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement.
    pub ack: u32,
    /// Window as in the header.
    pub window: u16,
    /// Payload bytes.
    pub len: u32,
    /// Window scale option.
    pub wscale: Option<u8>,
}

/// Where an IP header and its payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// IP header.
    pub l3: usize,
    /// IPv6.
    pub v6: bool,
    /// Protocol of the payload.
    pub proto: u8,
    /// Payload.
    pub l4: usize,
    /// Behind the payload.
    pub end: usize,
}

/// A packet that can be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Its key; of an ICMP error, the key that an answer of the same direction would have.
    pub key: Key,
    /// Where its headers are.
    pub at: Place,
    /// Of an ICMP error: where the headers of the packet are that it is about.
    pub inner: Option<Place>,
    /// TCP.
    pub segment: Segment,
}

impl Parsed {
    /// Whether this packet may begin a connection.
    pub fn may_begin(&self) -> bool {
        match (self.key.proto, self.key.v6) {
            (TCP, _) => crate::tcp::may_begin(self.segment.flags),
            (ICMP, false) => matches!(self.key.sport, 8 | 13 | 15),
            (ICMPV6, true) => self.key.sport == 128,
            _ => true,
        }
    }
}

fn be16(d: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*d.get(at..)?.first_chunk()?))
}

/// Offset of the IP header, and whether it is IPv6.
pub fn network(packet: &Packet) -> Option<(usize, bool)> {
    let d = packet.data();
    let (mut at, mut kind) = (0, packet.l3_type.get());
    if packet.ethernet {
        kind = be16(d, 12)?;
        at = 14;
        while matches!(kind, 0x8100 | 0x88a8) {
            kind = be16(d, at + 2)?;
            at += 4;
        }
    }
    match kind {
        0x0800 => Some((at, false)),
        0x86dd => Some((at, true)),
        _ => None,
    }
}

/// Looks at the IP header at `l3`. With `whole`, the packet must be all there and its header's checksum right; without (a quoted
/// packet), what is cut off is taken as it is. Fragments have no place.
fn place(d: &[u8], l3: usize, v6: bool, whole: Option<bool>) -> Option<Place> {
    let ip = d.get(l3..)?;
    if v6 { place_v6(ip, d.len(), l3, whole) } else { place_v4(ip, d.len(), l3, whole) }
}

fn place_v4(ip: &[u8], len: usize, l3: usize, whole: Option<bool>) -> Option<Place> {
    let h = Ipv4::new_checked(ip).ok()?;
    let total = usize::from(h.total_len().get());
    // The length of a super-frame past 64 KiB does not fit its field.
    let total = if total == 0 && ip.len() > 0xffff { ip.len() } else { total };
    if h.version_ihl() >> 4 != 4 || h.header_len() < 20 || h.header_len() > total || h.is_fragment() {
        return None;
    }
    match whole {
        Some(_) if total > ip.len() => return None,
        Some(true) if !h.checksum_ok() => return None,
        _ => {}
    }
    let at =
        Place { l3, v6: false, proto: h.protocol(), l4: l3 + h.header_len(), end: (l3 + total).min(len) };
    (at.l4 <= at.end).then_some(at)
}

fn place_v6(ip: &[u8], len: usize, l3: usize, whole: Option<bool>) -> Option<Place> {
    let h = Ipv6::new_checked(ip).ok()?;
    let payload = usize::from(be16(ip, 4)?);
    let payload = if payload == 0 && ip.len() > 0xffff { ip.len() - 40 } else { payload };
    if ip[0] >> 4 != 6 || whole.is_some() && payload + 40 > ip.len() {
        return None;
    }
    let end = (l3 + 40 + payload).min(len);
    let (mut next, mut at) = (ip[6], 40);
    let _ = h;
    // Each turn moves eight bytes forward.
    loop {
        let size = match next {
            0 | 43 | 60 => (usize::from(*ip.get(at + 1)?) + 1) * 8,
            51 => (usize::from(*ip.get(at + 1)?) + 2) * 4,
            44 if be16(ip, at + 2)? & 0xfff9 == 0 => 8,
            44 => return None,
            _ => break,
        };
        next = *ip.get(at)?;
        at += size;
    }
    let l4 = l3 + at;
    (l4 <= end).then_some(Place { l3, v6: true, proto: next, l4, end })
}

fn addresses(d: &[u8], at: &Place) -> Option<(Be128, Be128)> {
    let ip = d.get(at.l3..)?;
    if at.v6 {
        return Some((
            Be128::from_bytes(*ip.get(8..)?.first_chunk()?),
            Be128::from_bytes(*ip.get(24..)?.first_chunk()?),
        ));
    }
    let v4 = |o: usize| Some(u32::from_be_bytes(*ip.get(o..)?.first_chunk()?));
    Some((Be128::new(v4(12)?.into()), Be128::new(v4(16)?.into())))
}

/// The pseudo header's part of the transport checksum.
fn pseudo(src: Be128, dst: Be128, at: &Place, len: usize) -> Option<Sum> {
    Some(if at.v6 {
        csum::pseudo_v6(src, dst, at.proto, u32::try_from(len).ok()?)
    } else {
        let low = |a: Be128| Be32::new(a.get() as u32);
        csum::pseudo_v4(low(src), low(dst), at.proto, u16::try_from(len).ok()?)
    })
}

/// Type of the answer to an ICMP request, and back.
fn icmp_answer(v6: bool, kind: u8) -> Option<u8> {
    Some(match (v6, kind) {
        (false, 8) => 0,
        (false, 0) => 8,
        (false, 13) => 14,
        (false, 14) => 13,
        (false, 15) => 16,
        (false, 16) => 15,
        (true, 128) => 129,
        (true, 129) => 128,
        _ => return None,
    })
}

fn options_wscale(mut o: &[u8]) -> Option<u8> {
    loop {
        match *o {
            [1, ..] => o = &o[1..],
            [3, 3, shift, ..] => return Some(shift.min(14)),
            [kind, len, ..] if kind != 0 && len >= 2 => o = o.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

/// Ports of TCP and UDP; 0 is none.
fn ports(l4: &[u8]) -> Option<(u16, u16)> {
    let (a, b) = (be16(l4, 0)?, be16(l4, 2)?);
    (a != 0 && b != 0).then_some((a, b))
}

/// The key of a packet. `None`: invalid.
pub fn parse(packet: &Packet, zone: u16) -> Option<Parsed> {
    let (l3, v6) = network(packet)?;
    let d = packet.data();
    let trusted =
        packet.offload.csum_valid || packet.offload.partial_csum.is_some() || packet.offload.gso.is_some();
    let at = place(d, l3, v6, Some(!trusted))?;
    let (src, dst) = addresses(d, &at)?;
    let l4 = &d[at.l4..at.end];
    let mut key = Key { src, dst, sport: 0, dport: 0, id: 0, zone, proto: at.proto, v6 };
    let good =
        || trusted || pseudo(src, dst, &at, l4.len()).is_some_and(|sum| sum.bytes(l4).checksum().is_zero());
    let mut parsed = Parsed { key, at, inner: None, segment: Segment::default() };
    match at.proto {
        TCP => {
            let t = Tcp::new_checked(l4).ok().filter(Tcp::is_valid)?;
            if !good() {
                return None;
            }
            parsed.segment = Segment {
                flags: t.flags(),
                seq: t.seq().get(),
                ack: t.ack().get(),
                window: t.window().get(),
                len: u32::try_from(l4.len() - t.header_len()).ok()?,
                wscale: options_wscale(t.options()),
            };
            (key.sport, key.dport) = ports(l4)?;
        }
        UDP => {
            let len = usize::from(be16(l4, 4)?);
            if l4.len() < 8 || (len < 8 || len > l4.len()) && packet.offload.gso.is_none() {
                return None;
            }
            if be16(l4, 6)? == 0 && v6 && !trusted || be16(l4, 6)? != 0 && !good() {
                return None;
            }
            (key.sport, key.dport) = ports(l4)?;
        }
        SCTP => {
            if l4.len() < 12 || !trusted && crate::crc32c::of_sctp(l4).to_le_bytes() != l4[8..12] {
                return None;
            }
            (key.sport, key.dport) = (be16(l4, 0)?, be16(l4, 2)?);
        }
        ICMP if !v6 => {
            let m = Icmp::new_checked(l4).ok()?;
            if !trusted && !csum::checksum(l4).is_zero() {
                return None;
            }
            if m.is_error() {
                return related(d, parsed);
            }
            key = icmp_key(key, l4)?;
        }
        ICMPV6 if v6 => {
            if l4.len() < 8 || !good() {
                return None;
            }
            if matches!(l4[0], 1..=4) {
                return related(d, parsed);
            }
            key = icmp_key(key, l4)?;
        }
        _ => {}
    }
    parsed.key = key;
    Some(parsed)
}

fn icmp_key(mut key: Key, l4: &[u8]) -> Option<Key> {
    if *l4.get(1)? != 0 {
        return None;
    }
    key.sport = u16::from(l4[0]);
    key.dport = u16::from(icmp_answer(key.v6, l4[0])?);
    key.id = be16(l4, 4)?;
    Some(key)
}

/// The key of an ICMP error: that of the quoted packet, turned round.
fn related(d: &[u8], mut parsed: Parsed) -> Option<Parsed> {
    let outer = parsed.at;
    let inner = place(&d[..outer.end], outer.l4 + 8, outer.v6, None)?;
    let (src, dst) = addresses(d, &inner)?;
    // Who gets the error must be who sent what it is about.
    if src != parsed.key.dst {
        return None;
    }
    let l4 = &d[inner.l4..inner.end];
    let mut key = Key { src, dst, proto: inner.proto, ..parsed.key };
    match inner.proto {
        // Errors of IPv6 quote as much as fits (RFC 4443, 2.4), so a whole header is there.
        TCP if outer.v6 && l4.len() < 20 => return None,
        TCP | UDP | SCTP => {
            if l4.len() < 8 {
                return None;
            }
            (key.sport, key.dport) = (be16(l4, 0)?, be16(l4, 2)?);
        }
        ICMP | ICMPV6 => key = icmp_key(key, l4.get(..8)?)?,
        _ => {}
    }
    parsed.key = key.reversed();
    parsed.inner = Some(inner);
    Some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1:1 to 10.0.0.2:2, UDP, four bytes.
    pub(crate) fn udp() -> Vec<u8> {
        let mut f = vec![0; 14];
        f[12] = 8;
        f.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4]);
        Ipv4::new_checked(&mut f[14..]).unwrap().fill_checksum();
        f
    }

    #[test]
    fn a_packet_and_what_makes_it_invalid() {
        let p = parse(&Packet::from_frame(&udp()), 7).unwrap();
        assert_eq!((p.key.src.get(), p.key.dst.get()), (0x0a00_0001, 0x0a00_0002));
        assert_eq!((p.key.sport, p.key.dport, p.key.zone), (1, 2, 7));
        for (at, to) in [(24, 9), (20, 0x20), (39, 99), (40, 1), (14, 0x44)] {
            let mut f = udp();
            f[at] = to;
            if at != 24 {
                Ipv4::new_checked(&mut f[14..]).unwrap().fill_checksum();
            }
            assert_eq!(parse(&Packet::from_frame(&f), 7), None, "byte {at}");
        }
    }

    #[test]
    fn an_error_has_the_turned_key_of_what_it_quotes() {
        let quoted = &udp()[14..42];
        let mut f = vec![0; 14];
        f[12] = 8;
        f.extend([0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
        f.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        f.extend(quoted);
        Ipv4::new_checked(&mut f[14..]).unwrap().fill_checksum();
        let sum = csum::checksum(&f[34..]).to_bytes();
        f[36..38].copy_from_slice(&sum);
        let p = parse(&Packet::from_frame(&f), 0).unwrap();
        assert_eq!((p.key.src.get(), p.key.sport, p.key.proto), (0x0a00_0002, 2, 17));
        assert_eq!(p.inner.map(|i| i.l3), Some(42));
        // An error for somebody else.
        f[33] = 8;
        Ipv4::new_checked(&mut f[14..]).unwrap().fill_checksum();
        assert_eq!(parse(&Packet::from_frame(&f), 0), None);
    }

    #[test]
    fn window_scale_among_options() {
        assert_eq!(options_wscale(&[2, 4, 5, 0xb4, 1, 3, 3, 7]), Some(7));
        assert_eq!(options_wscale(&[2, 0, 3, 3, 7]), None);
        assert_eq!(options_wscale(&[3, 3, 99]), Some(14));
    }
}
