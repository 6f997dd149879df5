//! IPv6 and its extension headers (RFC 8200).

use super::header;
use crate::be::{Be16, Be32, Be128};
use crate::csum;

header! {
    /// An IPv6 header.
    Ipv6 40 {
        /// Version (4 bits), traffic class (8), flow label (20).
        word set_word Be32, 0;
        /// Bytes behind this header.
        payload_len set_payload_len Be16, 4;
        /// Protocol of what follows.
        next_header set_next_header u8, 6;
        /// Hop limit.
        hop_limit set_hop_limit u8, 7;
        /// Source.
        src set_src Be128, 8;
        /// Destination.
        dst set_dst Be128, 24;
    }
}

/// Where extension headers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Header {
    /// Its protocol.
    pub protocol: u8,
    /// Offset of its first byte from the IPv6 header's.
    pub offset: usize,
    /// Offset of the fragment header, if there is one.
    pub fragment: Option<usize>,
    /// Whether this is a fragment other than the first: what is at `offset` is no header.
    pub later_fragment: bool,
}

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// Traffic class.
    pub fn traffic_class(&self) -> u8 {
        (self.word().get() >> 20) as u8
    }
    /// Flow label.
    pub fn flow_label(&self) -> Be32 {
        self.word() & Be32::new(0xf_ffff)
    }
    /// Whether version and length make sense for the bytes at hand.
    pub fn is_valid(&self) -> bool {
        self.word().get() >> 28 == 6 && usize::from(self.payload_len().get()) + 40 <= self.0.as_ref().len()
    }
    /// Walks the extension headers; `None` if they are broken.
    pub fn l4(&self) -> Option<L4Header> {
        let b = self.0.as_ref();
        let mut out =
            L4Header { protocol: self.next_header(), offset: 40, fragment: None, later_fragment: false };
        loop {
            let len = match out.protocol {
                0 | 43 | 60 => (usize::from(*b.get(out.offset + 1)?) + 1) * 8,
                51 => (usize::from(*b.get(out.offset + 1)?) + 2) * 4,
                44 => 8,
                _ => return Some(out),
            };
            let h = b.get(out.offset..out.offset + len.max(8))?;
            if out.protocol == 44 {
                out.fragment = Some(out.offset);
                out.later_fragment = Be16::from_bytes([h[2], h[3]]).get() & 0xfff8 != 0;
            }
            out.protocol = h[0];
            out.offset += len;
            if out.later_fragment {
                return Some(out);
            }
        }
    }
    /// Pseudo header for a transport checksum over `len` bytes.
    pub fn pseudo(&self, protocol: u8, len: u32) -> csum::Sum {
        csum::pseudo_v6(self.src(), self.dst(), protocol, len)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Sets version, traffic class and flow label.
    pub fn set_version_class_label(&mut self, class: u8, label: Be32) {
        self.set_word(Be32::new(6 << 28 | u32::from(class) << 20 | label.get() & 0xf_ffff));
    }
    /// Sets the traffic class.
    pub fn set_traffic_class(&mut self, class: u8) {
        self.set_word(Be32::new(self.word().get() & 0xf00f_ffff | u32::from(class) << 20));
    }
    /// Sets the flow label.
    pub fn set_flow_label(&mut self, label: Be32) {
        self.set_word(Be32::new(self.word().get() & 0xfff0_0000 | label.get() & 0xf_ffff));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_headers() {
        let mut b = vec![0u8; 40];
        b.extend_from_slice(&[44, 0, 0, 0, 0, 0, 0, 0]);
        b.extend_from_slice(&[17, 0, 0, 1, 0, 0, 0, 9]);
        b.extend_from_slice(&[0; 8]);
        let mut ip = Ipv6::new_checked(&mut b[..]).unwrap();
        ip.set_version_class_label(0xab, Be32::new(0x12345));
        ip.set_payload_len(Be16::new(24));
        assert!(ip.is_valid());
        assert_eq!((ip.traffic_class(), ip.flow_label().get()), (0xab, 0x12345));
        let l4 = ip.l4().unwrap();
        assert_eq!((l4.protocol, l4.offset, l4.fragment, l4.later_fragment), (17, 56, Some(48), false));
        b[50] = 1;
        assert!(Ipv6::new_checked(&b[..]).unwrap().l4().unwrap().later_fragment);
        assert_eq!(Ipv6::new_checked(&b[..44]).unwrap().l4(), None);
    }
}
