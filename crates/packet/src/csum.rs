//! Internet checksums (RFC 1071), incremental updates (RFC 1624) and pseudo headers.
//!
//! Sums are kept in the machine's byte order, which ones-complement arithmetic permits (RFC 1071, 2(B)):
//! only the finished 16 bits are stored, as they are. Every piece of a sum but the last must have an
//! even length. The loop adds 64-bit words with end-around carry, about 8 bytes a cycle.

use crate::be::{Be16, Be32, Be128};

/// A running ones-complement sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

#[inline]
fn add_carry(a: u64, b: u64) -> u64 {
    let (s, c) = a.overflowing_add(b);
    s + u64::from(c)
}

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Sum = Sum(0);

    /// Adds bytes.
    #[inline]
    pub fn bytes(self, data: &[u8]) -> Sum {
        let mut sum = self.0;
        let (words, rest) = data.as_chunks::<8>();
        for w in words {
            sum = add_carry(sum, u64::from_ne_bytes(*w));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            sum = add_carry(sum, u64::from_ne_bytes(last));
        }
        Sum(sum)
    }
    /// Adds 16 bits.
    #[inline]
    pub fn be16(self, v: Be16) -> Sum {
        Sum(add_carry(self.0, v.raw().into()))
    }
    /// Adds 32 bits.
    #[inline]
    pub fn be32(self, v: Be32) -> Sum {
        Sum(add_carry(self.0, v.raw().into()))
    }
    /// Adds 128 bits.
    #[inline]
    pub fn be128(self, v: Be128) -> Sum {
        self.bytes(&v.to_bytes())
    }
    /// The 16-bit ones-complement sum, not complemented: what a partial checksum field holds.
    #[inline]
    pub fn folded(self) -> Be16 {
        let mut s = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        s = (s >> 16) + (s & 0xffff);
        s = (s >> 16) + (s & 0xffff);
        s = (s >> 16) + (s & 0xffff);
        Be16::from_raw(s as u16)
    }
    /// The checksum: complement of the sum.
    #[inline]
    pub fn checksum(self) -> Be16 {
        !self.folded()
    }
    /// The checksum for UDP, where 0 means "none" and is sent as 0xffff (RFC 768).
    #[inline]
    pub fn checksum_udp(self) -> Be16 {
        let c = self.checksum();
        if c.is_zero() { Be16::MAX } else { c }
    }
}

/// Checksum of bytes.
#[inline]
pub fn checksum(data: &[u8]) -> Be16 {
    Sum::ZERO.bytes(data).checksum()
}

/// Pseudo header of TCP, UDP and others over IPv4 (RFC 9293, 3.1). `len` counts transport header and payload.
#[inline]
pub fn pseudo_v4(src: Be32, dst: Be32, proto: u8, len: u16) -> Sum {
    Sum::ZERO.be32(src).be32(dst).be16(Be16::new(proto.into())).be16(Be16::new(len))
}

/// Pseudo header over IPv6 (RFC 8200, 8.1).
#[inline]
pub fn pseudo_v6(src: Be128, dst: Be128, proto: u8, len: u32) -> Sum {
    Sum::ZERO.be128(src).be128(dst).be32(Be32::new(len)).be16(Be16::new(proto.into()))
}

/// A checksum after 16 bits under it changed (RFC 1624, equation 3).
#[inline]
pub fn update16(csum: Be16, old: Be16, new: Be16) -> Be16 {
    Sum::ZERO.be16(!csum).be16(!old).be16(new).checksum()
}

/// A checksum after 32 bits under it changed.
#[inline]
pub fn update32(csum: Be16, old: Be32, new: Be32) -> Be16 {
    Sum::ZERO.be16(!csum).be32(!old).be32(new).checksum()
}

/// A checksum after 128 bits under it changed.
#[inline]
pub fn update128(csum: Be16, old: Be128, new: Be128) -> Be16 {
    let inverse = old.to_bytes().map(|b| !b);
    Sum::ZERO.be16(!csum).bytes(&inverse).be128(new).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), Be16::new(0xddf2));
    }

    #[test]
    fn an_ip_header_sums_to_zero() {
        let hdr =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&hdr), Be16::ZERO);
        let mut without = hdr;
        without[10..12].fill(0);
        assert_eq!(checksum(&without), Be16::new(0xb861));
    }

    #[test]
    fn odd_lengths_pad_with_zero() {
        assert_eq!(checksum(&[0x12, 0x34, 0x56]), !Be16::new(0x1234 + 0x5600));
    }

    #[test]
    fn incremental_equals_full() {
        let mut data: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37)).collect();
        let before = checksum(&data);
        let old = Be32::from_bytes([data[8], data[9], data[10], data[11]]);
        let new = Be32::new(0xdead_beef);
        data[8..12].copy_from_slice(&new.to_bytes());
        assert_eq!(update32(before, old, new), checksum(&data));
        let old = Be128::from_bytes(data[16..32].try_into().unwrap());
        data[16..32].copy_from_slice(&Be128::new(7).to_bytes());
        assert_eq!(
            update128(
                update32(
                    before,
                    Be32::from_bytes([
                        8u8.wrapping_mul(37),
                        9u8.wrapping_mul(37),
                        10u8.wrapping_mul(37),
                        11u8.wrapping_mul(37)
                    ]),
                    new
                ),
                old,
                Be128::new(7)
            ),
            checksum(&data)
        );
        let before = checksum(&data);
        let old = Be16::from_bytes([data[2], data[3]]);
        data[2..4].copy_from_slice(&[0, 1]);
        assert_eq!(update16(before, old, Be16::new(1)), checksum(&data));
    }
}
