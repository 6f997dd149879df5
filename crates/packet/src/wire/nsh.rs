//! Network service header (RFC 8300).

use super::header;
use crate::be::{Be16, Be32};

header! {
    /// Base header and service path header; metadata follows.
    Nsh 8 {
        /// Version (2 bits), OAM and unassigned bits (2), TTL (6), length in words (6).
        word set_word Be16, 0;
        /// Metadata type: 1 fixed, 2 variable.
        md_type set_md_type u8, 2;
        /// Protocol of the payload: 1 IPv4, 2 IPv6, 3 Ethernet, 4 NSH, 5 MPLS.
        next_protocol set_next_protocol u8, 3;
        /// Service path id (24 bits) and index (8).
        path set_path Be32, 4;
    }
}

impl<T: AsRef<[u8]>> Nsh<T> {
    /// Version.
    pub fn version(&self) -> u8 {
        (self.word().get() >> 14) as u8
    }
    /// Flags: OAM and the bit beside it.
    pub fn flags(&self) -> u8 {
        (self.word().get() >> 12 & 3) as u8
    }
    /// Time to live.
    pub fn ttl(&self) -> u8 {
        (self.word().get() >> 6 & 0x3f) as u8
    }
    /// Bytes of the whole header; as it says, unchecked.
    pub fn header_len(&self) -> usize {
        usize::from(self.word().get() & 0x3f) * 4
    }
    /// Whether version and length make sense for the bytes at hand.
    pub fn is_valid(&self) -> bool {
        let len = self.header_len();
        self.version() == 0
            && (8..=self.0.as_ref().len()).contains(&len)
            && match self.md_type() & 0xf {
                1 => len == 24,
                2 => true,
                _ => false,
            }
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Nsh<T> {
    /// Sets flags, TTL and length in bytes, version 0.
    pub fn set_flags_ttl_len(&mut self, flags: u8, ttl: u8, len: usize) {
        let words = (len / 4) as u16 & 0x3f;
        self.set_word(Be16::new(u16::from(flags & 3) << 12 | u16::from(ttl & 0x3f) << 6 | words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let mut b = [0u8; 24];
        let mut n = Nsh::new_checked(&mut b[..]).unwrap();
        n.set_flags_ttl_len(2, 63, 24);
        n.set_md_type(1);
        assert!(n.is_valid());
        assert_eq!((n.flags(), n.ttl(), n.header_len()), (2, 63, 24));
        n.set_md_type(3);
        assert!(!n.is_valid());
    }
}
