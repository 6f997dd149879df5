//! Database rows to switch state and back.
//!
//! [`desired::read`] turns rows into plain values, [`BridgeLayer::follow`] makes what runs equal to them, and
//! [`StatusWriter`] tells the database what runs. None of it owns a socket: the daemon feeds the replica and commits
//! the transactions. A change of one port costs that port, however many there are.

mod bonds;
mod columns;
mod controllers;
pub mod ct_zones;
pub mod desired;
pub mod export;
mod monitor;
mod mtu;
pub mod qos;
mod reader;
mod reconfigure;
pub mod rstp;
pub mod spanning_tree;
mod status;
mod system_stats;

pub use reconfigure::BridgeLayer;
pub use status::StatusWriter;

/// The log module of this crate.
pub(crate) mod log {
    pub(crate) use ib_base::vlog::module::BRIDGE;
}
