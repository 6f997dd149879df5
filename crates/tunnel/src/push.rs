//! Putting prepared headers in front of one packet.
//!
//! The packet must be plain: no segmentation and no checksum left to do, for nobody behind us can do them inside of a
//! tunnel. Costs a copy of the headers, two short checksums, and one of the whole packet if the tunnel asks for it.

use ib_packet::Packet;
use ib_packet::csum::{Sum, checksum};

use crate::build::{GRE_CSUM, GRE_KEY, GRE_SEQ};
use crate::kind::{IPPROTO_GRE, IPPROTO_ROUTING, IPPROTO_UDP, Kind};
use crate::world::egress_ports;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// From a GRE header with sequence number to ERSPAN's, and to the time in that of version 2.
const ERSPAN: usize = 8;
const ERSPAN_TIME: usize = ERSPAN + 4;

/// What of a packet's headers changes with each packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerPacket {
    /// Hash of the inner flow: chooses the UDP source port.
    pub hash: u32,
    /// Sequence number of this tunnel port.
    pub seq: u32,
    /// IPv4 identification of packets that may be fragmented.
    pub ip_id: u16,
    /// Time of day in units of 100 microseconds, for [`has_timestamp`].
    pub timestamp: u32,
}

/// The UDP source port for a hash.
pub fn source_port(hash: u32) -> u16 {
    let (min, max) = egress_ports();
    let span = u64::from(max.saturating_sub(min));
    // Scales the hash to the range without a division.
    min.saturating_add(((u64::from(hash) * span) >> 32) as u16)
}

fn put16(d: &mut [u8], at: usize, v: u16) {
    if let Some(place) = d.get_mut(at..at + 2) {
        place.copy_from_slice(&v.to_be_bytes());
    }
}

/// Whether these headers hold a UDP source port, for which a hash is needed.
pub fn wants_hash(header: &[u8]) -> bool {
    outer(header).is_some_and(|(_, protocol, _)| protocol == IPPROTO_UDP)
}

/// Whether these headers hold a sequence number.
pub fn has_seq(header: &[u8]) -> bool {
    outer(header).is_some_and(|(_, protocol, l4)| {
        protocol == IPPROTO_GRE && header.get(l4).is_some_and(|b| b & (GRE_SEQ >> 8) as u8 != 0)
    })
}

/// Whether these headers of `kind` hold the time (ERSPAN, version 2).
pub fn has_timestamp(kind: Kind, header: &[u8]) -> bool {
    matches!(kind, Kind::Erspan | Kind::Ip6Erspan)
        && outer(header).is_some_and(|(_, _, l4)| header.get(l4 + ERSPAN).is_some_and(|b| b >> 4 == 2))
}

/// Whether outer packets may be fragmented on their way: each then needs an identification of its own (RFC 6864).
pub fn may_be_fragmented(header: &[u8]) -> bool {
    header.get(12..14) == Some(&[0x08, 0x00]) && header.get(ETHERNET + 6).is_some_and(|b| b & 0x40 == 0)
}

/// IPv6 or not, protocol, and where its header starts.
fn outer(header: &[u8]) -> Option<(bool, u8, usize)> {
    match header.get(12..14)? {
        [0x08, 0x00] => Some((false, *header.get(ETHERNET + 9)?, ETHERNET + IPV4)),
        [0x86, 0xdd] => Some((true, *header.get(ETHERNET + 6)?, ETHERNET + IPV6)),
        _ => None,
    }
}

/// Puts `header` (of [`crate::build::build`]) in front of `p`. False if these are no such headers or the packet would become too
/// long for its length fields; it then is as before.
pub fn push(p: &mut Packet, kind: Kind, header: &[u8], per: &PerPacket) -> bool {
    let Some((v6, protocol, l4)) = outer(header) else { return false };
    let total = p.len() + header.len() - ETHERNET;
    let (Ok(ip_len), true) = (u16::try_from(total), l4 <= header.len()) else { return false };
    p.push_front(header.len())[..header.len()].copy_from_slice(header);
    p.ethernet = true;
    p.rss_hash = 0;
    p.offload = Default::default();
    let d = p.data_mut();
    let l4_len = ip_len - if v6 { IPV6 as u16 } else { IPV4 as u16 };
    if v6 {
        put16(d, ETHERNET + 4, l4_len);
    } else {
        put16(d, ETHERNET + 2, ip_len);
        if d[ETHERNET + 6] & 0x40 == 0 {
            put16(d, ETHERNET + 4, per.ip_id);
        }
        put16(d, ETHERNET + 10, 0);
        let csum = checksum(&d[ETHERNET..l4]).to_bytes();
        d[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&csum);
    }
    match protocol {
        IPPROTO_UDP => {
            if kind == Kind::Gtpu && header.len() >= l4 + 16 {
                // Bytes behind the mandatory part of its header.
                put16(d, l4 + 10, l4_len - 16);
            }
            put16(d, l4, source_port(per.hash));
            put16(d, l4 + 4, l4_len);
            udp_csum(d, v6, l4, l4_len, kind == Kind::Gtpu);
        }
        IPPROTO_GRE => {
            if has_timestamp(kind, header)
                && let Some(place) = d.get_mut(l4 + ERSPAN_TIME..l4 + ERSPAN_TIME + 4)
            {
                place.copy_from_slice(&per.timestamp.to_be_bytes());
            }
            gre(d, l4, per.seq)
        }
        IPPROTO_ROUTING => {}
        _ => {}
    }
    true
}

/// Of GTP-U it is there whether or not the header asks for it, hence `always`.
fn udp_csum(d: &mut [u8], v6: bool, l4: usize, l4_len: u16, always: bool) {
    let Some(asked) = d.get(l4 + 6..l4 + 8) else { return };
    if asked == [0, 0] && !always {
        return;
    }
    put16(d, l4 + 6, 0);
    let addresses = if v6 { &d[ETHERNET + 8..l4] } else { &d[ETHERNET + 12..l4] };
    let pseudo = Sum::ZERO.bytes(addresses).bytes(&[0, IPPROTO_UDP]).bytes(&l4_len.to_be_bytes());
    let csum = pseudo.bytes(&d[l4..]).checksum_udp().to_bytes();
    d[l4 + 6..l4 + 8].copy_from_slice(&csum);
}

fn gre(d: &mut [u8], l4: usize, seq: u32) {
    let Some(&[a, b]) = d.get(l4..l4 + 2) else { return };
    let flags = u16::from_be_bytes([a, b]);
    let mut at = l4 + 4;
    let csum_at = at;
    at += if flags & GRE_CSUM != 0 { 4 } else { 0 };
    at += if flags & GRE_KEY != 0 { 4 } else { 0 };
    if flags & GRE_SEQ != 0
        && let Some(place) = d.get_mut(at..at + 4)
    {
        place.copy_from_slice(&seq.to_be_bytes());
    }
    if flags & GRE_CSUM != 0 {
        put16(d, csum_at, 0);
        let csum = checksum(&d[l4..]).to_bytes();
        if let Some(place) = d.get_mut(csum_at..csum_at + 2) {
            place.copy_from_slice(&csum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_stay_in_range() {
        for hash in [0, 1, u32::MAX / 2, u32::MAX] {
            assert!((32_768..=61_000).contains(&source_port(hash)));
        }
        assert_ne!(source_port(0), source_port(u32::MAX));
    }

    #[test]
    fn headers_that_are_none_leave_the_packet_alone() {
        let mut p = Packet::from_frame(&[1; 60]);
        assert!(!push(&mut p, Kind::Vxlan, &[0; 20], &PerPacket::default()));
        assert_eq!(p.data(), [1; 60]);
    }
}
