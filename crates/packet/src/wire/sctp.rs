//! SCTP's common header and its checksum (RFC 9260).

use super::header;
use crate::be::{Be16, Be32};

header! {
    /// SCTP's common header.
    Sctp 12 {
        /// Source port.
        src_port set_src_port Be16, 0;
        /// Destination port.
        dst_port set_dst_port Be16, 2;
        /// Verification tag.
        tag set_tag Be32, 4;
        /// CRC-32c over the packet with this field zero; least significant byte first.
        checksum set_checksum Be32, 8;
    }
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut v = i as u32;
        let mut bit = 0;
        while bit < 8 {
            v = if v & 1 != 0 { v >> 1 ^ 0x82f6_3b78 } else { v >> 1 };
            bit += 1;
        }
        table[i] = v;
        i += 1;
    }
    table
};

/// CRC-32c of bytes, as the header stores it.
pub fn crc32c(bytes: &[u8]) -> Be32 {
    let crc = bytes.iter().fold(u32::MAX, |c, b| c >> 8 ^ TABLE[usize::from(c as u8 ^ b)]);
    Be32::from_bytes((!crc).to_le_bytes())
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Sctp<T> {
    /// Computes and stores the checksum over all bytes of the view.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(Be32::ZERO);
        let crc = crc32c(self.0.as_ref());
        self.set_checksum(crc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4: 32 bytes of zeros.
    #[test]
    fn the_example_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]).to_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        let mut b = [0u8; 16];
        let mut s = Sctp::new_checked(&mut b[..]).unwrap();
        s.fill_checksum();
        let stored = s.checksum();
        s.set_checksum(Be32::ZERO);
        assert_eq!(stored, crc32c(&b));
    }
}
