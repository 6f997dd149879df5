//! Ethernet II and IEEE 802.1Q tags.

use super::header;
use crate::be::Be16;
use crate::mac::Mac;

header! {
    /// An Ethernet header.
    Ethernet 14 {
        /// Destination.
        dst set_dst Mac, 0;
        /// Source.
        src set_src Mac, 6;
        /// Ethertype, of the first tag if there is one; below 0x600 a length.
        ethertype set_ethertype Be16, 12;
    }
}

header! {
    /// What follows a tag's Ethertype: priority, drop bit and id, and the Ethertype behind.
    VlanTag 4 {
        /// Priority (3 bits), drop eligible (1), id (12).
        tci set_tci Be16, 0;
        /// Ethertype behind the tag.
        ethertype set_ethertype Be16, 2;
    }
}

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[14..]
    }
}

impl<T: AsRef<[u8]>> VlanTag<T> {
    /// Id.
    pub fn vid(&self) -> u16 {
        self.tci().get() & 0xfff
    }
    /// Priority.
    pub fn pcp(&self) -> u8 {
        (self.tci().get() >> 13) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_frame() {
        let mut b = [0u8; 18];
        let mut e = Ethernet::new_checked(&mut b[..]).unwrap();
        e.set_dst("01:02:03:04:05:06".parse().unwrap());
        e.set_ethertype(Be16::new(0x8100));
        b[14..].copy_from_slice(&[0x60, 0x0a, 8, 0]);
        let e = Ethernet::new_checked(&b[..]).unwrap();
        assert_eq!(e.dst().to_string(), "01:02:03:04:05:06");
        let tag = VlanTag::new_checked(e.payload()).unwrap();
        assert_eq!((tag.vid(), tag.pcp(), tag.ethertype().get()), (10, 3, 0x0800));
        assert!(Ethernet::new_checked(&b[..13]).is_err());
    }
}
