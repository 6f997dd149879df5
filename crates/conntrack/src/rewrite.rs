//! Translating a packet: addresses, ports and ids, with checksums kept right by the difference (RFC 1624).
//!
//! An ICMP error is translated twice: its own header, and the quoted packet the other way round, so that the host that gets it
//! recognizes what it sent. A partial checksum holds the pseudo header's sum only, so ports do not touch it.

use ib_packet::csum::{self, Sum};
use ib_packet::{Be16, Be128, Packet};

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

/// Castagnoli's CRC as SCTP stores it, with zeros for the field itself.
fn sctp_crc(d: &[u8]) -> [u8; 4] {
    let crc = d.iter().enumerate().fold(!0u32, |crc, (i, b)| {
        let byte = if (8..12).contains(&i) { 0 } else { *b };
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 != 0 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 })
    });
    (!crc).to_le_bytes()
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

/// Makes a packet whose key is `parsed.key` one whose key is `to`.
pub fn rewrite(packet: &mut Packet, parsed: &Parsed, to: &Key) {
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
    if source(d, &at) == Some(parsed.key.src) {
        set_address(d, &at, true, to.src, partial);
    }
    // So much has changed under the checksum that summing anew is shorter.
    put(d, at.l4 + 2, Be16::ZERO);
    let len = at.end - at.l4;
    let sum = if at.v6 {
        let (Some(src), Some(dst)) = (source(d, &at), address(d, at.l3 + 24)) else { return };
        csum::pseudo_v6(src, dst, at.proto, u32::try_from(len).unwrap_or(0))
    } else {
        Sum::ZERO
    };
    let sum = sum.bytes(&d[at.l4..at.end]).checksum();
    put(d, at.l4 + 2, sum);
}

fn address(d: &[u8], at: usize) -> Option<Be128> {
    Some(Be128::from_bytes(*d.get(at..)?.first_chunk()?))
}

fn source(d: &[u8], at: &Place) -> Option<Be128> {
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
            rewrite(&mut p, &parsed, &to);
            assert_eq!(parse(&p, 0).unwrap().key, to);
            // And back to the very bytes.
            let again = parse(&p, 0).unwrap();
            rewrite(&mut p, &again, &parsed.key);
            assert_eq!(p.data(), f);
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
        rewrite(&mut p, &parsed, &to);
        let again = parse(&p, 0).unwrap();
        assert_eq!(again.key, to);
        assert_eq!(&p.data()[26..34], &[0, 0, 0, 5, 0, 0, 0, 6]);
        assert!(Ipv4::new_checked(&p.data()[42..]).unwrap().checksum_ok());
    }
}
