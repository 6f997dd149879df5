//! Translating a packet: addresses, ports and ids, with checksums kept right by the difference (RFC 1624).
//!
//! An ICMP error is translated twice: its own header, and the quoted packet the other way round, so that the host that gets it
//! recognizes what it sent. A partial checksum holds the pseudo header's sum only, so ports do not touch it.

use ib_packet::csum::{self, Sum};
use ib_packet::{Be16, Be32, Be128, Packet};

use crate::key::{Key, Parsed, Place};

fn field(d: &[u8], at: usize) -> Option<Be16> {
    Some(Be16::from_bytes(*d.get(at..)?.first_chunk()?))
}

fn put(d: &mut [u8], at: usize, v: Be16) {
    if let Some(place) = d.get_mut(at..).and_then(|d| d.first_chunk_mut::<2>()) {
        *place = v.to_bytes();
    }
}

/// How a transport checksum is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Csum {
    Full,
    /// UDP: zero means that there is none.
    Udp,
    Partial,
}

/// Updates the checksum at `at` for a change from `old` to `new`, of even lengths.
fn fix(d: &mut [u8], at: usize, kind: Csum, old: &[u8], new: &[u8]) {
    let Some(was) = field(d, at) else { return };
    if kind == Csum::Udp && was.is_zero() {
        return;
    }
    let inverse: Vec<u8> = old.iter().map(|b| !b).collect();
    let base = if kind == Csum::Partial { was } else { !was };
    let sum = Sum::ZERO.be16(base).bytes(&inverse).bytes(new);
    let now = match kind {
        Csum::Partial => sum.folded(),
        Csum::Full => sum.checksum(),
        Csum::Udp => sum.checksum_udp(),
    };
    put(d, at, now);
}

fn transport_csum(at: &Place, partial: bool) -> Option<(usize, Csum)> {
    let (offset, kind) = match at.proto {
        6 => (16, Csum::Full),
        17 => (6, Csum::Udp),
        58 => (2, Csum::Full),
        _ => return None,
    };
    Some((at.l4 + offset, if partial { Csum::Partial } else { kind }))
}

fn set_address(d: &mut [u8], at: &Place, source: bool, to: Be128, partial: bool) {
    let l4 = transport_csum(at, partial);
    let fix_l4 = |d: &mut [u8], old: &[u8], new: &[u8]| {
        if let Some((csum, kind)) = l4.filter(|(c, _)| c + 2 <= at.end) {
            fix(d, csum, kind, old, new);
        }
    };
    if at.v6 {
        let from = at.l3 + if source { 8 } else { 24 };
        let Some(place) = d.get_mut(from..).and_then(|d| d.first_chunk_mut::<16>()) else { return };
        let old = std::mem::replace(place, to.to_bytes());
        fix_l4(d, &old, &to.to_bytes());
    } else {
        let from = at.l3 + if source { 12 } else { 16 };
        let new = (to.get() as u32).to_be_bytes();
        let Some(place) = d.get_mut(from..).and_then(|d| d.first_chunk_mut::<4>()) else { return };
        let old = std::mem::replace(place, new);
        fix(d, at.l3 + 10, Csum::Full, &old, &new);
        fix_l4(d, &old, &new);
    }
}

/// The CRC as SCTP stores it, with zeros for the field itself.
fn sctp_crc(d: &[u8]) -> [u8; 4] {
    crate::crc32c::of_sctp(d).to_le_bytes()
}

fn set_ports(d: &mut [u8], at: &Place, sport: u16, dport: u16, partial: bool) {
    let Some(old) = d[..at.end].get(at.l4..).and_then(|d| d.first_chunk::<4>()).copied() else { return };
    let mut new = [0; 4];
    new[..2].copy_from_slice(&sport.to_be_bytes());
    new[2..].copy_from_slice(&dport.to_be_bytes());
    if old == new {
        return;
    }
    // A wrong CRC stays wrong: the receiver shall notice.
    let sctp = at.proto == 132 && at.l4 + 12 <= at.end && !partial;
    let was = if sctp { sctp_crc(&d[at.l4..at.end]) } else { [0; 4] };
    d[at.l4..at.l4 + 4].copy_from_slice(&new);
    if sctp {
        let now = sctp_crc(&d[at.l4..at.end]);
        for i in 0..4 {
            d[at.l4 + 8 + i] ^= was[i] ^ now[i];
        }
    } else if let Some((csum, kind)) = transport_csum(at, partial).filter(|(c, _)| c + 2 <= at.end)
        && kind != Csum::Partial
    {
        fix(d, csum, kind, &old, &new);
    }
}

fn translate(d: &mut [u8], at: &Place, from: &Key, to: &Key, partial: bool) {
    if from.src != to.src {
        set_address(d, at, true, to.src, partial);
    }
    if from.dst != to.dst {
        set_address(d, at, false, to.dst, partial);
    }
    if from.has_ports() {
        set_ports(d, at, to.sport, to.dport, partial);
    }
}

/// Makes a packet whose key is `parsed.key` one whose key is `to`. `source`: what is translated is the source. Then an
/// error that a router on the way has sent takes the same address as what comes from the connection's end.
pub fn rewrite(packet: &mut Packet, parsed: &Parsed, to: &Key, source: bool) {
    let partial = packet.offload.partial_csum.is_some();
    let d = packet.data_mut();
    let Some(inner) = parsed.inner else {
        translate(d, &parsed.at, &parsed.key, to, partial);
        return;
    };
    let at = parsed.at;
    // The quoted packet went the other way.
    translate(&mut d[..at.end], &inner, &parsed.key.reversed(), &to.reversed(), false);
    set_address(d, &at, false, to.dst, partial);
    if source {
        set_address(d, &at, true, to.src, partial);
    }
    // So much has changed under the checksum that summing anew is shorter.
    put(d, at.l4 + 2, Be16::ZERO);
    let len = at.end - at.l4;
    let sum = if at.v6 {
        let (Some(src), Some(dst)) = (source_of(d, &at), address(d, at.l3 + 24)) else { return };
        csum::pseudo_v6(src, dst, at.proto, u32::try_from(len).unwrap_or(0))
    } else {
        Sum::ZERO
    };
    let sum = sum.bytes(&d[at.l4..at.end]).checksum();
    put(d, at.l4 + 2, sum);
}

/// Writes a word of a TCP header, `offset` bytes into it.
pub fn set_word(packet: &mut Packet, at: &Place, offset: usize, value: u32) {
    let partial = packet.offload.partial_csum.is_some();
    let d = packet.data_mut();
    let new = value.to_be_bytes();
    let Some(place) = d.get_mut(at.l4 + offset..).and_then(|d| d.first_chunk_mut::<4>()) else {
        return;
    };
    let old = std::mem::replace(place, new);
    if !partial {
        fix(d, at.l4 + 16, Csum::Full, &old, &new);
    }
}

/// Replaces bytes of a TCP segment's payload by others, perhaps more or fewer; what follows in the packet moves.
pub fn splice(packet: &mut Packet, at: &Place, range: std::ops::Range<usize>, with: &[u8]) {
    let was = range.len();
    let size = at.end - at.l3 - was + with.len();
    let header = if at.v6 { 40 } else { 0 };
    let Ok(total) = u16::try_from(size - header) else { return };
    // A super-frame's segments would be cut elsewhere; helpers' texts do not come in such.
    if packet.offload.gso.is_some() {
        return;
    }
    if with.len() > was {
        packet.insert(range.end, with.len() - was);
    } else {
        packet.remove(range.start, was - with.len());
    }
    let partial = packet.offload.partial_csum.is_some();
    let end = at.end - was + with.len();
    let d = packet.data_mut();
    d[range.start..range.start + with.len()].copy_from_slice(with);
    let field = at.l3 + if at.v6 { 4 } else { 2 };
    let old = [d[field], d[field + 1]];
    put(d, field, Be16::new(total));
    if !at.v6 {
        fix(d, at.l3 + 10, Csum::Full, &old, &total.to_be_bytes());
    }
    let len = end - at.l4;
    let pseudo = if at.v6 {
        let (Some(src), Some(dst)) = (source_of(d, at), address(d, at.l3 + 24)) else { return };
        csum::pseudo_v6(src, dst, at.proto, u32::try_from(len).unwrap_or(0))
    } else {
        let low = |o: usize| Be32::from_bytes([d[o], d[o + 1], d[o + 2], d[o + 3]]);
        let len = u16::try_from(len).unwrap_or(0);
        csum::pseudo_v4(low(at.l3 + 12), low(at.l3 + 16), at.proto, len)
    };
    put(d, at.l4 + 16, Be16::ZERO);
    let sum = if partial { pseudo.folded() } else { pseudo.bytes(&d[at.l4..end]).checksum() };
    put(d, at.l4 + 16, sum);
}

fn address(d: &[u8], at: usize) -> Option<Be128> {
    Some(Be128::from_bytes(*d.get(at..)?.first_chunk()?))
}

fn source_of(d: &[u8], at: &Place) -> Option<Be128> {
    if at.v6 {
        return address(d, at.l3 + 8);
    }
    let raw = u32::from_be_bytes(*d.get(at.l3 + 12..)?.first_chunk()?);
    Some(Be128::new(raw.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::parse;
    use ib_packet::wire::Ipv4;

    /// 10.0.0.1:1000 to 10.0.0.2:80 with a right checksum.
    fn frame(proto: u8, l4: &[u8], csum_at: usize) -> Vec<u8> {
        let mut f = vec![0; 14];
        f[12] = 8;
        f.extend([0x45, 0, 0, u8::try_from(20 + l4.len()).unwrap(), 0, 0, 0, 0, 64, proto, 0, 0]);
        f.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend(l4);
        let ip = &mut Ipv4::new_checked(&mut f[14..]).unwrap();
        ip.fill_checksum();
        let pseudo = if proto == 1 { Sum::ZERO } else { ip.pseudo(u16::try_from(l4.len()).unwrap()) };
        let sum = pseudo.bytes(&f[34..]).checksum();
        put(&mut f, 34 + csum_at, sum);
        f
    }

    fn udp() -> Vec<u8> {
        frame(17, &[3, 232, 0, 80, 0, 12, 0, 0, 1, 2, 3, 4], 6)
    }

    #[test]
    fn translated_packets_pass_the_same_checks() {
        let tcp = frame(6, &[3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 9, 9, 0, 0, 0, 0, 7], 16);
        for f in [udp(), tcp] {
            let mut p = Packet::from_frame(&f);
            let parsed = parse(&p, 0).unwrap();
            let to = Key { src: Be128::new(0x0b00_0099), sport: 4000, dport: 81, ..parsed.key };
            rewrite(&mut p, &parsed, &to, true);
            assert_eq!(parse(&p, 0).unwrap().key, to);
            // And back to the very bytes.
            let again = parse(&p, 0).unwrap();
            rewrite(&mut p, &again, &parsed.key, true);
            assert_eq!(p.data(), f);
        }
    }

    #[test]
    fn a_longer_text_passes_the_same_checks() {
        let tcp =
            frame(6, &[3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 9, 9, 0, 0, 0, 0, 7, 8, 9], 16);
        for with in [&[1u8, 2, 3, 4][..], &[5], &[]] {
            let mut p = Packet::from_frame(&tcp);
            let at = parse(&p, 0).unwrap().at;
            splice(&mut p, &at, 55..56, with);
            set_word(&mut p, &at, 4, 99);
            let parsed = parse(&p, 0).unwrap();
            assert_eq!((parsed.segment.seq, parsed.segment.len as usize), (99, 2 + with.len()));
            assert_eq!(p.data()[54..], [&[7][..], with, &[9]].concat());
        }
    }

    #[test]
    fn errors_are_translated_inside_and_outside() {
        let mut l4 = vec![3, 1, 0, 0, 0, 0, 0, 0];
        let mut quoted = udp()[14..42].to_vec();
        quoted[12..16].copy_from_slice(&[10, 0, 0, 2]);
        quoted[16..20].copy_from_slice(&[10, 0, 0, 1]);
        Ipv4::new_checked(&mut quoted[..]).unwrap().fill_checksum();
        l4.extend(quoted);
        let mut p = Packet::from_frame(&frame(1, &l4, 2));
        let parsed = parse(&p, 0).unwrap();
        let to = Key { src: Be128::new(5), dst: Be128::new(6), sport: 70, dport: 71, ..parsed.key };
        rewrite(&mut p, &parsed, &to, true);
        let again = parse(&p, 0).unwrap();
        assert_eq!(again.key, to);
        assert_eq!(&p.data()[26..34], &[0, 0, 0, 5, 0, 0, 0, 6]);
        assert!(Ipv4::new_checked(&p.data()[42..]).unwrap().checksum_ok());
    }
}
