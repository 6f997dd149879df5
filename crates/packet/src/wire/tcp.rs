//! TCP (RFC 9293).

use super::header;
use crate::be::{Be16, Be32};

header! {
    /// A TCP header; options follow the fixed part.
    Tcp 20 {
        /// Source port.
        src_port set_src_port Be16, 0;
        /// Destination port.
        dst_port set_dst_port Be16, 2;
        /// Sequence number.
        seq set_seq Be32, 4;
        /// Acknowledgement number.
        ack set_ack Be32, 8;
        /// Header length in words (4 bits) and flags (12).
        ctl set_ctl Be16, 12;
        /// Window.
        window set_window Be16, 14;
        /// Checksum over pseudo header, header and payload.
        checksum set_checksum Be16, 16;
        /// Urgent pointer.
        urgent set_urgent Be16, 18;
    }
}

/// Sender is done.
pub const FIN: u16 = 0x001;
/// Synchronize sequence numbers.
pub const SYN: u16 = 0x002;
/// Reset.
pub const RST: u16 = 0x004;
/// Push.
pub const PSH: u16 = 0x008;
/// Acknowledgement is valid.
pub const ACK: u16 = 0x010;
/// Urgent pointer is valid.
pub const URG: u16 = 0x020;
/// Explicit congestion echo.
pub const ECE: u16 = 0x040;
/// Congestion window reduced.
pub const CWR: u16 = 0x080;

impl<T: AsRef<[u8]>> Tcp<T> {
    /// Bytes of header, options included; as it says, unchecked.
    pub fn header_len(&self) -> usize {
        usize::from(self.ctl().get() >> 12) * 4
    }
    /// Flags, 12 bits.
    pub fn flags(&self) -> u16 {
        self.ctl().get() & 0xfff
    }
    /// Whether the header's length makes sense for the bytes at hand.
    pub fn is_valid(&self) -> bool {
        (20..=self.0.as_ref().len()).contains(&self.header_len())
    }
    /// Options of a valid header.
    pub fn options(&self) -> &[u8] {
        self.0.as_ref().get(20..self.header_len()).unwrap_or(&[])
    }
    /// Payload of a valid segment.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(self.header_len().max(20)..).unwrap_or(&[])
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tcp<T> {
    /// Sets the flags; the header's length stays.
    pub fn set_flags(&mut self, flags: u16) {
        self.set_ctl(Be16::new(self.ctl().get() & 0xf000 | flags & 0xfff));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_length_is_checked() {
        let mut b = [0u8; 24];
        let mut t = Tcp::new_checked(&mut b[..]).unwrap();
        assert!(!t.is_valid() && t.options().is_empty());
        t.set_ctl(Be16::new(0x6000));
        t.set_flags(SYN | ACK);
        assert!(t.is_valid());
        assert_eq!((t.options().len(), t.flags(), t.payload().len()), (4, 0x12, 0));
        t.set_ctl(Be16::new(0xf000));
        assert!(!t.is_valid() && t.payload().is_empty());
    }
}
