//! Views of headers in place, one file a protocol.
//!
//! A view wraps bytes: `new_checked` makes sure once that the header is there, then reading and writing its
//! fields cannot fail. Views over `&[u8]` read, over `&mut [u8]` also write. They do not judge values; who
//! needs a valid header calls the type's `is_valid` or checks what it needs.

use crate::be::{Be16, Be32, Be64, Be128};
use crate::mac::Mac;

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod nsh;
pub mod sctp;
pub mod tcp;
pub mod udp;

pub use arp::Arp;
pub use ethernet::{Ethernet, VlanTag};
pub use icmp::Icmp;
pub use icmpv6::{Icmpv6, NdOption, Neighbor};
pub use igmp::Igmp;
pub use ipv4::Ipv4;
pub use ipv6::{Ipv6, L4Header};
pub use mpls::Mpls;
pub use nsh::Nsh;
pub use sctp::Sctp;
pub use tcp::Tcp;
pub use udp::Udp;

/// The bytes are fewer than the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// A field's type: how it is stored.
pub trait Scalar: Copy {
    /// Reads it from the start of `b`, which is long enough.
    fn load(b: &[u8]) -> Self;
    /// Writes it to the start of `b`, which is long enough.
    fn store(self, b: &mut [u8]);
}

macro_rules! scalar {
    ($($ty:ident $n:literal $from:expr, $to:expr;)*) => { $(
        impl Scalar for $ty {
            #[inline]
            fn load(b: &[u8]) -> Self {
                let mut raw = [0; $n];
                raw.copy_from_slice(&b[..$n]);
                $from(raw)
            }
            #[inline]
            fn store(self, b: &mut [u8]) {
                b[..$n].copy_from_slice(&$to(self));
            }
        }
    )* };
}
scalar! {
    u8 1 |b: [u8; 1]| b[0], |v: u8| [v];
    Be16 2 Be16::from_bytes, Be16::to_bytes;
    Be32 4 Be32::from_bytes, Be32::to_bytes;
    Be64 8 Be64::from_bytes, Be64::to_bytes;
    Be128 16 Be128::from_bytes, Be128::to_bytes;
    Mac 6 Mac, |m: Mac| m.0;
}

/// Declares a view: name, bytes of fixed header, and fields with their offsets.
macro_rules! header {
    ($(#[$doc:meta])* $name:ident $len:literal {
        $($(#[$fdoc:meta])* $get:ident $set:ident $ty:ty, $at:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T>(T);

        impl<T: AsRef<[u8]>> $name<T> {
            /// Bytes of the fixed header.
            pub const LEN: usize = $len;

            /// Wraps bytes that begin with the header.
            #[inline]
            pub fn new_checked(bytes: T) -> Result<Self, $crate::wire::Truncated> {
                if bytes.as_ref().len() < $len { Err($crate::wire::Truncated) } else { Ok($name(bytes)) }
            }
            /// The bytes again.
            #[inline]
            pub fn into_inner(self) -> T {
                self.0
            }
            $(
                $(#[$fdoc])*
                #[inline]
                pub fn $get(&self) -> $ty {
                    <$ty as $crate::wire::Scalar>::load(&self.0.as_ref()[$at..])
                }
            )*
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $name<T> {
            $(
                #[doc = concat!("Sets [`Self::", stringify!($get), "`].")]
                #[inline]
                pub fn $set(&mut self, v: $ty) {
                    $crate::wire::Scalar::store(v, &mut self.0.as_mut()[$at..]);
                }
            )*
        }
    };
}
pub(crate) use header;
