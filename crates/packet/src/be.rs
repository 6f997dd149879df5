//! Integers in network byte order, as types of their own.
//!
//! A field that is stored as it travels (`Be16`, `Be32`, ...) can't be added to or compared with a host
//! integer without a visible conversion, so that a missing byte swap does not compile. The bit
//! operations that are the same in either order (`&`, `|`, `^`, `!`) are provided.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! be {
    ($(#[$doc:meta])* $name:ident, $int:ty, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(transparent)]
        pub struct $name($int);

        impl $name {
            /// All bits zero.
            pub const ZERO: Self = Self(0);
            /// All bits one: the exact-match mask.
            pub const MAX: Self = Self(<$int>::MAX);

            /// From a host integer.
            #[inline]
            pub const fn new(host: $int) -> Self {
                Self(host.to_be())
            }
            /// As a host integer.
            #[inline]
            pub const fn get(self) -> $int {
                <$int>::from_be(self.0)
            }
            /// From bytes as they travel.
            #[inline]
            pub const fn from_bytes(bytes: [u8; $n]) -> Self {
                Self(<$int>::from_ne_bytes(bytes))
            }
            /// Bytes as they travel.
            #[inline]
            pub const fn to_bytes(self) -> [u8; $n] {
                self.0.to_ne_bytes()
            }
            /// The stored integer, bytes as they travel; for hashing and wildcards only.
            #[inline]
            pub const fn raw(self) -> $int {
                self.0
            }
            /// From a stored integer (see [`Self::raw`]).
            #[inline]
            pub const fn from_raw(raw: $int) -> Self {
                Self(raw)
            }
            /// Whether all bits are zero.
            #[inline]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }
        impl From<$int> for $name {
            #[inline]
            fn from(host: $int) -> Self {
                Self::new(host)
            }
        }
        impl From<$name> for $int {
            #[inline]
            fn from(be: $name) -> Self {
                be.get()
            }
        }
        impl std::ops::BitAnd for $name {
            type Output = Self;
            #[inline]
            fn bitand(self, o: Self) -> Self {
                Self(self.0 & o.0)
            }
        }
        impl std::ops::BitOr for $name {
            type Output = Self;
            #[inline]
            fn bitor(self, o: Self) -> Self {
                Self(self.0 | o.0)
            }
        }
        impl std::ops::BitXor for $name {
            type Output = Self;
            #[inline]
            fn bitxor(self, o: Self) -> Self {
                Self(self.0 ^ o.0)
            }
        }
        impl std::ops::Not for $name {
            type Output = Self;
            #[inline]
            fn not(self) -> Self {
                Self(!self.0)
            }
        }
        impl std::ops::BitAndAssign for $name {
            #[inline]
            fn bitand_assign(&mut self, o: Self) {
                self.0 &= o.0;
            }
        }
        impl std::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, o: Self) {
                self.0 |= o.0;
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(o))
            }
        }
        impl Ord for $name {
            fn cmp(&self, o: &Self) -> std::cmp::Ordering {
                self.get().cmp(&o.get())
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:#x}", self.get())
            }
        }
    };
}

be!(/// 16 bits in network order.
    Be16, u16, 2);
be!(/// 32 bits in network order.
    Be32, u32, 4);
be!(/// 64 bits in network order.
    Be64, u64, 8);

/// 128 bits in network order, alignment 1: IPv6 addresses, connection labels.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Be128([u8; 16]);

impl Be128 {
    /// All bits zero.
    pub const ZERO: Self = Self([0; 16]);
    /// All bits one: the exact-match mask.
    pub const MAX: Self = Self([0xff; 16]);

    /// From a host integer.
    #[inline]
    pub const fn new(host: u128) -> Self {
        Self(host.to_be_bytes())
    }
    /// As a host integer.
    #[inline]
    pub const fn get(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
    /// From bytes as they travel.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// Bytes as they travel.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
    /// Whether all bits are zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }
}

impl std::ops::BitAnd for Be128 {
    type Output = Self;
    #[inline]
    fn bitand(self, o: Self) -> Self {
        Self((u128::from_ne_bytes(self.0) & u128::from_ne_bytes(o.0)).to_ne_bytes())
    }
}

impl From<std::net::Ipv6Addr> for Be128 {
    fn from(a: std::net::Ipv6Addr) -> Self {
        Self(a.octets())
    }
}
impl From<Be128> for std::net::Ipv6Addr {
    fn from(a: Be128) -> Self {
        a.0.into()
    }
}
impl From<std::net::Ipv4Addr> for Be32 {
    fn from(a: std::net::Ipv4Addr) -> Self {
        Self::from_bytes(a.octets())
    }
}
impl From<Be32> for std::net::Ipv4Addr {
    fn from(a: Be32) -> Self {
        a.to_bytes().into()
    }
}
impl std::fmt::Debug for Be128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_wire_forms_differ_only_by_the_swap() {
        assert_eq!(Be16::new(0x0800).to_bytes(), [8, 0]);
        assert_eq!(Be32::from_bytes([10, 0, 0, 1]).get(), 0x0a00_0001);
        assert!(Be16::new(2) < Be16::new(256));
    }
}
