//! OpenFlow tables, translation, upcalls, controllers.
//!
//! [`Switch`] is what the bridge layer drives: bridges, ports, bundles, mirrors, controllers. Each bridge
//! has an [`ofproto::Ofproto`] (tables, groups, learned addresses; shared with datapath threads) and a
//! [`connmgr::ConnMgr`] (OpenFlow sessions; main thread only). Bridges of one datapath type share a
//! [`backer::Backer`].
//!
//! ```text
//!            bridge layer                        datapath threads
//!                 │ ports, controllers                  │ upcall
//!                 ▼                                     ▼
//!   Switch ── Bridge ──► XlateConfig (snapshot) ──► xlate ──► odp actions + mask
//!                 │                                  ▲   │ learn, stats, packet-in
//!              ConnMgr ── flow_mod ──► Ofproto ──────┘◄──┘
//! ```

pub mod appctl;
pub mod backer;
pub mod bond;
mod bond_rules;
mod bundle;
pub mod change;
pub mod config;
pub mod connmgr;
mod continuation;
mod detrace;
pub mod export;
pub mod features;
pub mod flow_mod;
pub mod group;
pub mod lacp;
mod learned;
mod likeness;
pub mod meter;
pub mod monitor;
pub mod ofproto;
pub mod port;
pub mod recirc;
pub mod revalidate;
pub mod rstp;
pub mod rule;
mod send;
pub mod spanning_tree;
pub mod switch;
#[cfg(test)]
mod testing;
pub mod text;
mod trace_cmd;
mod transfer;
pub mod tunnel;
pub mod ukey;
pub mod upcall;
pub mod xcfg;
pub mod xlate;

pub use config::*;
pub use connmgr::{ConnCommand, ConnEvent, ConnId, remote_of};
pub use switch::{Bridge, NextHopFn, PortAdminFn, PortQueuesFn, PortStatsFn, Switch};
