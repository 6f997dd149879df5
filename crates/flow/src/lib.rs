//! Flow keys: what the switch knows about a packet, which of it a rule or a cache entry looks at, and
//! the one table of fields that names it all.
//!
//! [`Flow`] is the key, [`Mask`] has one bits where a key matters, [`Match`] pairs them. The field table
//! (`fields`) declares each field once: position, names, NXM/OXM codes, prerequisites, text form.

pub mod key;
pub mod port;

pub use key::{CtState, Flow, Mask, Match, Metadata, TunFlags, Tunnel, Vlan};
pub use port::{OdpPort, OfPort};
