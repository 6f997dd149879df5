//! The legacy virtio-net header, ten bytes, to and from [`Offload`] (virtio 1.2, 5.1.6; host byte order).
//!
//! AF_PACKET and TAP both put it in front of each frame. What comes from there may have been written by a guest:
//! [`parse`] believes nothing that does not fit the frame.

use ib_packet::{Gso, GsoKind, Offload};

/// What the kernel does for us with frames that have the header (see [`crate::TX_OFFLOADS`]).
pub const TX_OFFLOADS: &[&str] = &["tcp_csum", "tcp_seg", "udp_csum"];

/// Length of the header.
pub const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
/// The checksum is known to be right.
pub const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the header says about a frame of `frame_len` bytes; `None` if that cannot be.
#[inline]
pub fn parse(h: &[u8; LEN], frame_len: usize) -> Option<Offload> {
    let at = |i: usize| u16::from_ne_bytes([h[i], h[i + 1]]);
    let mut offload = Offload { csum_valid: h[0] & F_DATA_VALID != 0, ..Offload::default() };
    if h[0] & F_NEEDS_CSUM != 0 {
        let (start, offset) = (at(6), at(8));
        if usize::from(start) + usize::from(offset) + 2 > frame_len {
            return None;
        }
        offload.partial_csum = Some((start, offset));
    }
    if h[1] != GSO_NONE {
        let kind = match h[1] & !GSO_ECN {
            GSO_TCPV4 => GsoKind::TcpV4,
            GSO_TCPV6 => GsoKind::TcpV6,
            GSO_UDP_L4 => GsoKind::UdpL4,
            _ => return None,
        };
        let size = at(4);
        if size == 0 {
            return None;
        }
        offload.gso = Some(Gso { kind, size, ecn: h[1] & GSO_ECN != 0 });
        offload.hdr_len = if usize::from(at(2)) <= frame_len { at(2) } else { 0 };
    }
    Some(offload)
}

/// The header for a packet to send.
#[inline]
pub fn emit(offload: &Offload) -> [u8; LEN] {
    let mut h = [0; LEN];
    if let Some((start, offset)) = offload.partial_csum {
        h[0] = F_NEEDS_CSUM;
        h[6..8].copy_from_slice(&start.to_ne_bytes());
        h[8..10].copy_from_slice(&offset.to_ne_bytes());
    }
    if let Some(gso) = offload.gso {
        h[1] = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::UdpL4 => GSO_UDP_L4,
        } | if gso.ecn { GSO_ECN } else { 0 };
        h[2..4].copy_from_slice(&offload.hdr_len.to_ne_bytes());
        h[4..6].copy_from_slice(&gso.size.to_ne_bytes());
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_super_frame_survives_the_round_trip() {
        let offload = Offload {
            partial_csum: Some((34, 16)),
            gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448, ecn: true }),
            hdr_len: 66,
            ..Offload::default()
        };
        assert_eq!(parse(&emit(&offload), 60_000), Some(offload));
    }

    #[test]
    fn headers_that_do_not_fit_the_frame_are_refused() {
        let csum = emit(&Offload { partial_csum: Some((34, 16)), ..Offload::default() });
        assert!(parse(&csum, 52).is_some());
        assert_eq!(parse(&csum, 51), None);
        assert_eq!(parse(&[0, GSO_TCPV4, 0, 0, 0, 0, 0, 0, 0, 0], 2000), None, "no segment size");
        assert_eq!(parse(&[0, 3, 0, 0, 1, 1, 0, 0, 0, 0], 2000), None, "UFO was never negotiated");
        assert_eq!(parse(&[0; LEN], 0), Some(Offload::default()));
    }
}
