//! MPLS label stack entries (RFC 3032).

use super::header;
use crate::be::Be32;

header! {
    /// One label stack entry.
    Mpls 4 {
        /// Label (20 bits), traffic class (3), bottom of stack (1), TTL (8).
        lse set_lse Be32, 0;
    }
}

impl<T: AsRef<[u8]>> Mpls<T> {
    /// Label.
    pub fn label(&self) -> u32 {
        self.lse().get() >> 12
    }
    /// Traffic class.
    pub fn tc(&self) -> u8 {
        (self.lse().get() >> 9 & 7) as u8
    }
    /// Whether this is the last entry.
    pub fn is_bottom(&self) -> bool {
        self.lse().get() & 0x100 != 0
    }
    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.lse().get() as u8
    }
}

/// An entry.
pub fn lse(label: u32, tc: u8, bottom: bool, ttl: u8) -> Be32 {
    Be32::new((label & 0xf_ffff) << 12 | u32::from(tc & 7) << 9 | u32::from(bottom) << 8 | u32::from(ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let b = lse(5, 3, true, 64).to_bytes();
        assert_eq!(b, [0, 0, 0x57, 0x40]);
        let m = Mpls::new_checked(&b[..]).unwrap();
        assert_eq!((m.label(), m.tc(), m.is_bottom(), m.ttl()), (5, 3, true, 64));
    }
}
