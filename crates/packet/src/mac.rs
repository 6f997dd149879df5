//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 48-bit Ethernet address, bytes as they travel. Prints as `aa:bb:cc:dd:ee:ff`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `00:00:00:00:00:00`.
    pub const ZERO: Mac = Mac([0; 6]);
    /// `ff:ff:ff:ff:ff:ff`: broadcast, and the exact-match mask.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group bit set: multicast or broadcast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
    /// All bits set.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }
    /// All bits clear.
    #[inline]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
    /// Whether this is an address that bridges never forward (IEEE 802.1D reserved group
    /// `01:80:c2:00:00:0x` and the vendor addresses that Open vSwitch's NORMAL action drops).
    pub fn is_reserved(self) -> bool {
        let v = self.to_u64();
        v & 0xffff_ffff_fff0 == 0x0180_c200_0000
            // Connectivity fault management, one address for each level.
            || v & 0xffff_ffff_fff8 == 0x0100_0ccc_ccc0
            || matches!(
                v,
                0x00e0_2b00_0000
                    | 0x00e0_2b00_0004
                    | 0x00e0_2b00_0006
                    | 0x0100_0c00_0000
                    | 0x0100_0ccc_cccc
                    | 0x0100_0ccc_cccd
                    | 0x0100_0ccd_cdcd
            )
    }
    /// As a number, first byte most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let b = self.0;
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }
    /// From the low 48 bits of a number.
    #[inline]
    pub const fn from_u64(v: u64) -> Mac {
        let b = v.to_be_bytes();
        Mac([b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six colon-separated pairs of hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(s: &str) -> Result<Mac, BadMac> {
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for byte in &mut out {
            let part = parts.next().ok_or(BadMac)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMac)?;
        }
        if parts.next().is_some() { Err(BadMac) } else { Ok(Mac(out)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_bad_text() {
        let mac: Mac = "50:54:00:00:00:0a".parse().unwrap();
        assert_eq!(mac.to_string(), "50:54:00:00:00:0a");
        assert_eq!(Mac::from_u64(mac.to_u64()), mac);
        for bad in ["", "50:54:00:00:00", "50:54:00:00:00:0a:1", "+5:54:00:00:00:0a", "505:4:0:0:0:0"] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad:?}");
        }
    }

    #[test]
    fn reserved_addresses() {
        let reserved = |mac: &str| mac.parse::<Mac>().unwrap().is_reserved();
        for mac in [
            "01:80:c2:00:00:00",
            "01:80:c2:00:00:0f",
            "00:e0:2b:00:00:04",
            "01:00:0c:cc:cc:c0",
            "01:00:0c:cc:cc:c7",
            "01:00:0c:cc:cc:cc",
        ] {
            assert!(reserved(mac), "{mac}");
        }
        for mac in ["01:80:c2:00:00:10", "01:00:0c:cc:cc:bf", "01:00:0c:cc:cc:c8", "01:00:0c:cc:cc:ce"] {
            assert!(!reserved(mac), "{mac}");
        }
    }
}
