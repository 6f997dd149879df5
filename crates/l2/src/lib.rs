//! Layer-2 protocol machines: values that take packets, events and the time, and hand out packets, events
//! and the next deadline. No sockets, no clock, no threads; who owns one locks it.

pub mod bfd;
pub mod bond;
pub mod cfm;
pub mod lacp;
pub mod lldp;
pub mod mac_learning;
pub mod mcast_messages;
pub mod mcast_snooping;
pub mod rstp;
pub mod stp;

pub use mac_learning::{MacEntry, MacLearning, MacStats};
pub use mcast_snooping::McastSnooping;
