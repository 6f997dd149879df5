//! The user-space datapath.
//!
//! Reading order follows a packet: [`poller`] takes a batch from a receive queue, [`worker`] finds the flow of each packet
//! ([`rawkey`], [`emc`], [`smc`], then extraction and [`table`] of [`megaflow`]s), [`exec`] runs its actions ([`headers`], [`modify`],
//! [`meter`], [`tunnel`]), [`tx`] sends. [`thread`] has the threads that do so, [`datapath`] the provider that the rest of the switch talks to, [`ports`] its
//! ports, [`pmd`] the threads that poll, [`mod@drop`] the names of all drops, [`stats`] the counters, [`show`] the texts of `dpif-netdev/*`.
//!
//! ```text
//!            flow_put/del/dump                set_upcall_handler
//!                   │                                │
//!   ┌───────────────▼───────────┐  miss   ┌──────────▼────────┐
//!   │ FlowTable (shared)        │◄────────│ UpcallHandler     │
//!   └──────▲──────────▲─────────┘ install └──────────▲────────┘
//!          │ View     │ View                         │ inline
//!   ┌──────┴─────┐ ┌──┴─────────┐                    │
//!   │ Worker     │ │ Worker     │────────────────────┘
//!   │ (thread)   │ │ (main loop)│
//!   └─▲───────┬──┘ └────────────┘
//!  RxQueue  Netdev::send
//! ```
//!
//! Flows that are hot may be forwarded past all this by an accelerator ([`offload`]).
//! Masks have a [`budget`], so that crafted packets cannot make lookups slow. Connections are those of `ib-conntrack`.

pub mod bond;
pub mod budget;
pub mod datapath;
pub mod drop;
pub mod emc;
pub mod exec;
pub mod headers;
pub mod impls;
pub mod megaflow;
pub mod memory;
pub mod meter;
pub mod modify;
pub mod offload;
pub mod pmd;
pub mod poller;
pub mod ports;
pub mod rawkey;
pub mod show;
pub mod smc;
pub mod stats;
pub mod table;
#[cfg(test)]
mod testing;
pub mod thread;
pub mod tunnel;
pub mod tx;
pub mod worker;

pub use datapath::{Config, DpUserspace, DpUserspaceClass};
pub use drop::DropReason;
