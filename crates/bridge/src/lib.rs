//! Database rows to switch state and back.
//!
//! [`desired::read`] turns rows into plain values, [`BridgeLayer::apply`] makes what runs equal to them, and
//! [`StatusWriter`] tells the database what runs. None of it owns a socket: the daemon feeds the replica and commits
//! the transactions.

mod columns;
pub mod desired;
mod reconfigure;
mod status;

pub use reconfigure::BridgeLayer;
pub use status::StatusWriter;

/// The log module of this crate.
pub(crate) mod log {
    pub(crate) use ib_base::vlog::module::BRIDGE;
}
