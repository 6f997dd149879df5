//! Flow keys: what the switch knows about a packet, which of it a rule or a cache entry looks at, and
//! the one table of fields that names it all.
//!
//! [`Flow`] is the key, [`Mask`] has one bits where a key matters, [`Match`] pairs them. The field table
//! (`fields`) declares each field once: position, names, NXM/OXM codes, prerequisites, text form.

pub mod compose;
pub mod extract;
pub mod field_value;
pub mod fields;
pub mod fields_table;
pub mod hash;
pub mod key;
pub mod miniflow;
pub mod port;
pub mod subfield;
pub mod text;
pub mod tlv;
pub mod wire;

pub use compose::{Payload, compose, compose_to_length};
pub use extract::{Layers, extract};
pub use fields::{Field, FieldId, FieldValue};
pub use hash::HashFields;
pub use key::{CtState, Flow, Mask, Match, Metadata, TunFlags, Tunnel, Vlan};
pub use miniflow::{Miniflow, Minimask};
pub use port::{OdpPort, OfPort, PortMap};
pub use subfield::Subfield;
