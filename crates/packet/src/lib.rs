//! Packets: the buffer, its offload metadata, header views and checksums.
//!
//! Everything that a packet *is* lives here; everything that the switch *knows about* a packet (its
//! port of entry, tunnel, connection state) is `flow` metadata. One file a protocol; each has views
//! that check lengths once (`new_checked`) and then never panic.

pub mod be;
pub mod buffer;
pub mod csum;
pub mod gso;
pub mod hexdump;
pub mod mac;
pub mod pcap;
pub mod wire;

pub use be::{Be16, Be32, Be64, Be128};
pub use buffer::{Batch, Gso, GsoKind, Offload, Packet};
pub use mac::Mac;
