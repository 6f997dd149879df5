//! UDP (RFC 768).

use super::header;
use crate::be::Be16;

header! {
    /// A UDP header.
    Udp 8 {
        /// Source port.
        src_port set_src_port Be16, 0;
        /// Destination port.
        dst_port set_dst_port Be16, 2;
        /// Header and payload in bytes.
        len set_len Be16, 4;
        /// Checksum over pseudo header, header and payload; 0: none.
        checksum set_checksum Be16, 6;
    }
}

impl<T: AsRef<[u8]>> Udp<T> {
    /// What follows the header, no more than its length says.
    pub fn payload(&self) -> &[u8] {
        let b = self.0.as_ref();
        &b[8..usize::from(self.len().get()).clamp(8, b.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_cut_to_the_length() {
        let u = Udp::new_checked(&[0, 1, 0, 2, 0, 9, 0, 0, 7, 8][..]).unwrap();
        assert_eq!(u.payload(), [7]);
        let u = Udp::new_checked(&[0, 1, 0, 2, 0, 0, 0, 0, 7, 8][..]).unwrap();
        assert!(u.payload().is_empty());
    }
}
