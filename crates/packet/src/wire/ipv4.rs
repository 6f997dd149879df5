//! IPv4 (RFC 791).

use super::header;
use crate::be::{Be16, Be32};
use crate::csum;

header! {
    /// An IPv4 header; options follow the fixed part.
    Ipv4 20 {
        /// Version and header length in words.
        version_ihl set_version_ihl u8, 0;
        /// DSCP and ECN.
        tos set_tos u8, 1;
        /// Header and payload in bytes.
        total_len set_total_len Be16, 2;
        /// Identification.
        id set_id Be16, 4;
        /// Flags (3 bits) and fragment offset in units of 8 bytes.
        frag set_frag Be16, 6;
        /// Time to live.
        ttl set_ttl u8, 8;
        /// Protocol of the payload.
        protocol set_protocol u8, 9;
        /// Header checksum.
        checksum set_checksum Be16, 10;
        /// Source.
        src set_src Be32, 12;
        /// Destination.
        dst set_dst Be32, 16;
    }
}

/// "Don't fragment" in [`Ipv4::frag`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" in [`Ipv4::frag`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Offset bits of [`Ipv4::frag`].
pub const OFFSET_MASK: u16 = 0x1fff;

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// Bytes of header, options included; as it says, unchecked.
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl() & 0xf) * 4
    }
    /// Whether version and lengths make sense for the bytes at hand.
    pub fn is_valid(&self) -> bool {
        let (hdr, total) = (self.header_len(), usize::from(self.total_len().get()));
        self.version_ihl() >> 4 == 4 && hdr >= 20 && hdr <= total && total <= self.0.as_ref().len()
    }
    /// Whether this is a fragment of a packet.
    pub fn is_fragment(&self) -> bool {
        self.frag().get() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }
    /// Whether it is a fragment other than the first.
    pub fn is_later_fragment(&self) -> bool {
        self.frag().get() & OFFSET_MASK != 0
    }
    /// Whether the header's checksum is right; false for a header longer than the bytes.
    pub fn checksum_ok(&self) -> bool {
        self.0.as_ref().get(..self.header_len()).is_some_and(|h| csum::checksum(h).is_zero())
    }
    /// The payload of a valid packet, without what lies behind its total length.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(self.header_len()..self.total_len().get().into()).unwrap_or(&[])
    }
    /// Pseudo header for a transport checksum over `len` bytes.
    pub fn pseudo(&self, len: u16) -> csum::Sum {
        csum::pseudo_v4(self.src(), self.dst(), self.protocol(), len)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Computes and stores the header's checksum; nothing for a header longer than the bytes.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(Be16::ZERO);
        if let Some(h) = self.0.as_ref().get(..self.header_len()) {
            let sum = csum::checksum(h);
            self.set_checksum(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HDR: [u8; 20] =
        [0x45, 0, 0, 20, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];

    #[test]
    fn checksum_and_validity() {
        let mut b = HDR;
        let mut ip = Ipv4::new_checked(&mut b[..]).unwrap();
        assert!(ip.is_valid() && !ip.checksum_ok() && !ip.is_fragment());
        ip.fill_checksum();
        assert!(ip.checksum_ok());
        ip.set_total_len(Be16::new(21));
        assert!(!ip.is_valid());
        ip.set_version_ihl(0x4f);
        assert!(!ip.checksum_ok() && ip.payload().is_empty());
        ip.fill_checksum();
    }
}
