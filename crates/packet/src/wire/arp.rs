//! ARP for Ethernet and IPv4 (RFC 826).

use super::header;
use crate::be::{Be16, Be32};
use crate::mac::Mac;

header! {
    /// An ARP or RARP message.
    Arp 28 {
        /// Hardware type, 1 for Ethernet.
        hardware_type set_hardware_type Be16, 0;
        /// Protocol type, 0x0800 for IPv4.
        protocol_type set_protocol_type Be16, 2;
        /// Bytes of a hardware address.
        hardware_len set_hardware_len u8, 4;
        /// Bytes of a protocol address.
        protocol_len set_protocol_len u8, 5;
        /// Operation: 1 request, 2 reply.
        op set_op Be16, 6;
        /// Sender's hardware address.
        sha set_sha Mac, 8;
        /// Sender's protocol address.
        spa set_spa Be32, 14;
        /// Target's hardware address.
        tha set_tha Mac, 18;
        /// Target's protocol address.
        tpa set_tpa Be32, 24;
    }
}

impl<T: AsRef<[u8]>> Arp<T> {
    /// Whether types and lengths are those of Ethernet and IPv4.
    pub fn is_valid(&self) -> bool {
        self.0.as_ref()[..6] == [0, 1, 8, 0, 6, 4]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Arp<T> {
    /// Sets types and lengths to those of Ethernet and IPv4.
    pub fn init(&mut self) {
        self.0.as_mut()[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let mut b = [0u8; 28];
        let mut a = Arp::new_checked(&mut b[..]).unwrap();
        assert!(!a.is_valid());
        a.init();
        a.set_op(Be16::new(2));
        a.set_tpa(Be32::new(0x0102_0304));
        assert!(a.is_valid());
        assert_eq!((b[7], &b[24..]), (2, &[1, 2, 3, 4][..]));
    }
}
