//! The exact-match key of ordinary packets, taken from the header bytes without parsing them field by field.
//!
//! Most packets are Ethernet with at most one VLAN tag, IPv4 without options or IPv6 without extension
//! headers, not a fragment, and TCP, UDP or ICMP. For each such combination a `Template` says which of the first bytes
//! a flow key could possibly see. A [`RawKey`] is those bytes, masked, with port of entry and template: a few loads, ANDs and one hash.
//!
//! Invariant: two packets with equal raw keys have equal flow keys (given metadata that holds nothing but the port of entry).
//! The reverse need not hold: a raw key may see more (a VLAN tag's DEI bit). Packets with doubtful lengths have no raw key and go
//! the long way, so that the checks of the extraction need no copy here.

use ib_packet::Packet;

use ib_dpif::ufid::{SALT, fold};

/// Words of header bytes in a key.
const BYTE_WORDS: usize = 9;
/// Words of a key: port and template, then header bytes.
pub const KEY_WORDS: usize = BYTE_WORDS + 1;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RawKey(pub [u64; KEY_WORDS]);

/// Which bytes matter for one combination of headers.
struct Template {
    masks: [u64; BYTE_WORDS],
    /// Words that have any mask bit.
    words: usize,
    /// Where the TCP flags are; 0 if it is not TCP.
    tcp_flags_at: usize,
}

const ETH: usize = 14;
const TAG: usize = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

const fn template(tagged: bool, v6: bool, proto: u8) -> Template {
    let mut bytes = [0u8; BYTE_WORDS * 8];
    let l3 = if tagged { ETH + TAG } else { ETH };
    let mut i = 0;
    while i < l3 {
        bytes[i] = 0xff;
        i += 1;
    }
    let l4 = if v6 {
        i = 0;
        while i < 40 {
            // All but the payload length.
            if i != 4 && i != 5 {
                bytes[l3 + i] = 0xff;
            }
            i += 1;
        }
        l3 + 40
    } else {
        // Version and header length, TOS, TTL, protocol, addresses.
        bytes[l3] = 0xff;
        bytes[l3 + 1] = 0xff;
        bytes[l3 + 8] = 0xff;
        bytes[l3 + 9] = 0xff;
        i = 12;
        while i < 20 {
            bytes[l3 + i] = 0xff;
            i += 1;
        }
        l3 + 20
    };
    bytes[l4] = 0xff;
    bytes[l4 + 1] = 0xff;
    let mut tcp_flags_at = 0;
    if proto != ICMP {
        bytes[l4 + 2] = 0xff;
        bytes[l4 + 3] = 0xff;
    }
    if proto == TCP {
        tcp_flags_at = l4 + 12;
        bytes[l4 + 12] = 0x0f;
        bytes[l4 + 13] = 0xff;
    }
    let mut masks = [0u64; BYTE_WORDS];
    let mut words = 0;
    let mut w = 0;
    while w < BYTE_WORDS {
        let b = w * 8;
        masks[w] = u64::from_ne_bytes([
            bytes[b],
            bytes[b + 1],
            bytes[b + 2],
            bytes[b + 3],
            bytes[b + 4],
            bytes[b + 5],
            bytes[b + 6],
            bytes[b + 7],
        ]);
        if masks[w] != 0 {
            words = w + 1;
        }
        w += 1;
    }
    Template { masks, words, tcp_flags_at }
}

static TEMPLATES: [Template; 10] = [
    template(false, false, TCP),
    template(false, false, UDP),
    template(false, false, ICMP),
    template(false, true, TCP),
    template(false, true, UDP),
    template(true, false, TCP),
    template(true, false, UDP),
    template(true, false, ICMP),
    template(true, true, TCP),
    template(true, true, UDP),
];

/// Whether a TCP header of `have` bytes room at `l4` says a length that fits.
#[inline]
fn tcp_fits(data: &[u8], l4: usize, have: usize) -> bool {
    let len = usize::from(data.get(l4 + 12).map_or(0, |b| b >> 4)) * 4;
    (20..=have).contains(&len)
}

/// Which template these bytes follow, if any.
#[inline]
fn classify(data: &[u8]) -> Option<usize> {
    // Shortest of all: untagged IPv4 with an ICMP header's 8 bytes.
    let head = data.first_chunk::<42>()?;
    let mut l3 = ETH;
    let mut base = 0;
    let mut ethertype = [head[12], head[13]];
    if ethertype == [0x81, 0] || ethertype == [0x88, 0xa8] {
        l3 = ETH + TAG;
        base = 5;
        ethertype = [head[16], head[17]];
    }
    let size = data.len() - l3;
    match ethertype {
        [0x08, 0x00] => {
            let total = usize::from(u16::from_be_bytes([head[l3 + 2], head[l3 + 3]]));
            let fragment = (head[l3 + 6] & 0x3f) | head[l3 + 7];
            if head[l3] != 0x45 || fragment != 0 || total > size || size - total > 255 {
                return None;
            }
            match head[l3 + 9] {
                TCP if total >= 40 && tcp_fits(data, l3 + 20, total - 20) => Some(base),
                UDP if total >= 28 => Some(base + 1),
                ICMP if total >= 28 => Some(base + 2),
                _ => None,
            }
        }
        [0x86, 0xdd] => {
            let payload = usize::from(u16::from_be_bytes([head[l3 + 4], head[l3 + 5]]));
            if head[l3] >> 4 != 6 || payload + 40 > size || size - payload - 40 > 255 {
                return None;
            }
            match head[l3 + 6] {
                TCP if payload >= 20 && tcp_fits(data, l3 + 40, payload) => Some(base + 3),
                UDP if payload >= 8 => Some(base + 4),
                _ => None,
            }
        }
        _ => None,
    }
}

impl RawKey {
    /// Becomes the key of a packet fresh from port `in_port`; its hash, or `None` if the packet is out of the ordinary.
    ///
    /// In place, word by word: a key that is built elsewhere and copied costs more than the rest of this function.
    #[inline]
    pub fn fill(&mut self, packet: &Packet, in_port: u32, seed: u64) -> Option<u64> {
        let data = packet.data();
        if !packet.ethernet {
            return None;
        }
        let which = classify(data)?;
        let template = &TEMPLATES[which];
        let mut padded = [0; BYTE_WORDS * 8];
        let bytes = if data.len() >= template.words * 8 {
            data
        } else {
            padded[..data.len()].copy_from_slice(data);
            &padded
        };
        let words = bytes.as_chunks::<8>().0;
        let salt = seed.rotate_left(32) ^ SALT;
        let first = u64::from(in_port) | (which as u64) << 32;
        let word = |i: usize| words.get(i).map_or(0, |b| u64::from_ne_bytes(*b)) & template.masks[i];
        let [head, tail @ ..] = &mut self.0;
        *head = first;
        for (i, k) in tail.iter_mut().enumerate() {
            *k = word(i);
        }
        // Two chains, so that the multiplications overlap.
        let a = fold(fold(seed ^ first, word(0) ^ salt) ^ word(1), word(2) ^ salt);
        let b = fold(fold(salt ^ word(3), word(4) ^ seed) ^ word(5), word(6) ^ seed);
        Some(fold(a ^ word(7), b ^ word(8).rotate_left(32) ^ salt))
    }

    /// The key of a packet and its hash; see [`Self::fill`].
    pub fn new(packet: &Packet, in_port: u32, seed: u64) -> Option<(RawKey, u64)> {
        let mut key = RawKey::default();
        let hash = key.fill(packet, in_port, seed)?;
        Some((key, hash))
    }

    /// Equality without a branch a word.
    #[inline]
    pub fn same(&self, other: &RawKey) -> bool {
        self.0.iter().zip(&other.0).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }

    /// TCP flags of a packet with a raw key; 0 if it is not TCP.
    #[inline]
    pub fn tcp_flags(&self, data: &[u8]) -> u16 {
        let at = TEMPLATES.get((self.0[0] >> 32) as usize).map_or(0, |t| t.tcp_flags_at);
        match data.get(at..at + 2) {
            Some(&[a, b]) if at != 0 => u16::from_be_bytes([a & 0x0f, b]),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tcp_v4, udp_v6};

    #[test]
    fn payload_and_checksums_do_not_matter_and_addresses_do() {
        let mut p = Packet::from_frame(&tcp_v4(1, 2, 1000, 80, 0x10));
        let (key, hash) = RawKey::new(&p, 1, 5).unwrap();
        assert_eq!(key.tcp_flags(p.data()), 0x10);
        for at in [18, 19, 24, 25, 38, 45, 48, 50] {
            p.data_mut()[at] ^= 0xff;
            assert_eq!(RawKey::new(&p, 1, 5).unwrap(), (key, hash), "byte {at}");
        }
        for at in [0, 6, 15, 22, 26, 33, 34, 37, 47] {
            p.data_mut()[at] ^= 1;
            assert_ne!(RawKey::new(&p, 1, 5).unwrap().0, key, "byte {at}");
            p.data_mut()[at] ^= 1;
        }
        assert_ne!(RawKey::new(&p, 2, 5).unwrap().0, key);
    }

    #[test]
    fn fragments_and_doubtful_lengths_go_the_long_way() {
        let good = tcp_v4(1, 2, 1000, 80, 0x10);
        let broken = |at: usize, v: u8| {
            let mut f = good.clone();
            f[at] = v;
            RawKey::new(&Packet::from_frame(&f), 1, 5).is_none()
        };
        assert!(broken(20, 0x20) && broken(21, 1) && broken(14, 0x46) && broken(17, 0xff) && broken(17, 20));
        assert!(!broken(20, 0x40));
        assert!(RawKey::new(&Packet::from_frame(&good[..40]), 1, 5).is_none());
        let v6 = Packet::from_frame(&udp_v6(1, 2, 53, 54));
        assert!(RawKey::new(&v6, 1, 5).is_some());
    }
}
