//! Literal frames for tests.

/// A minimal Ethernet frame around `l3`, padded to 60 bytes.
pub fn ethernet(ethertype: u16, l3: &[u8]) -> Vec<u8> {
    let mut f = vec![0x50, 0x54, 0, 0, 0, 2, 0x50, 0x54, 0, 0, 0, 1];
    f.extend_from_slice(&ethertype.to_be_bytes());
    f.extend_from_slice(l3);
    f.resize(f.len().max(60), 0);
    f
}

/// The Internet checksum of `bytes`, complemented, starting from `sum`.
pub fn checksum(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 header with a good checksum, addresses 10.0.0.`src` and 10.0.0.`dst`, around `l4`.
pub fn ipv4(src: u8, dst: u8, proto: u8, l4: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + l4.len()).unwrap().to_be_bytes();
    let mut h =
        vec![0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst];
    let c = checksum(&h, 0).to_be_bytes();
    h[10..12].copy_from_slice(&c);
    h.extend_from_slice(l4);
    h
}

fn pseudo_v4(src: u8, dst: u8, proto: u8, len: usize) -> u32 {
    2 * 0x0a00 + u32::from(src) + u32::from(dst) + u32::from(proto) + u32::try_from(len).unwrap()
}

/// TCP over IPv4 with good checksums and four bytes of payload.
pub fn tcp_v4(src: u8, dst: u8, sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    let mut t = Vec::new();
    t.extend_from_slice(&sport.to_be_bytes());
    t.extend_from_slice(&dport.to_be_bytes());
    t.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0, b'a', b'b', b'c', b'd']);
    let c = checksum(&t, pseudo_v4(src, dst, 6, t.len())).to_be_bytes();
    t[16..18].copy_from_slice(&c);
    ethernet(0x0800, &ipv4(src, dst, 6, &t))
}

/// UDP over IPv4 with good checksums and four bytes of payload.
pub fn udp_v4(src: u8, dst: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut u = Vec::new();
    u.extend_from_slice(&sport.to_be_bytes());
    u.extend_from_slice(&dport.to_be_bytes());
    u.extend_from_slice(&[0, 12, 0, 0, b'a', b'b', b'c', b'd']);
    let c = checksum(&u, pseudo_v4(src, dst, 17, u.len())).to_be_bytes();
    u[6..8].copy_from_slice(&c);
    ethernet(0x0800, &ipv4(src, dst, 17, &u))
}

/// UDP over IPv6 (fd00::`src` to fd00::`dst`) with good checksums and four bytes of payload.
pub fn udp_v6(src: u8, dst: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut u = Vec::new();
    u.extend_from_slice(&sport.to_be_bytes());
    u.extend_from_slice(&dport.to_be_bytes());
    u.extend_from_slice(&[0, 12, 0, 0, b'a', b'b', b'c', b'd']);
    let sum = 2 * 0xfd00 + u32::from(src) + u32::from(dst) + 17 + 12;
    let c = checksum(&u, sum).to_be_bytes();
    u[6..8].copy_from_slice(&c);
    let mut h = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
    for last in [src, dst] {
        h.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    h.extend_from_slice(&u);
    ethernet(0x86dd, &h)
}

/// Whether all checksums of an IPv4 or IPv6 TCP or UDP frame (with up to two VLAN tags) are good.
pub fn checksums_good(frame: &[u8]) -> bool {
    let mut l3 = 14;
    while matches!(&frame[l3 - 2..l3], [0x81, 0] | [0x88, 0xa8]) {
        l3 += 4;
    }
    let ip = &frame[l3..];
    let (proto, addresses, l4, ip_good) = if ip[0] >> 4 == 4 {
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        (ip[9], &ip[12..20], &ip[20..total], checksum(&ip[..20], 0) == 0)
    } else {
        let len = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        (ip[6], &ip[8..40], &ip[40..40 + len], true)
    };
    let pseudo = u32::from(!checksum(addresses, 0)) + u32::from(proto) + u32::try_from(l4.len()).unwrap();
    ip_good && checksum(l4, pseudo) == 0
}
