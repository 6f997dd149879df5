//! Connection tracking: which packets belong to which connection, and what that says of them.
//!
//! [`Conntrack`] is the table of a datapath. A `ct` action hands it a packet with its metadata; it finds the connection, moves its state,
//! translates addresses if asked to, and writes `ct_state`, `ct_zone`, `ct_mark`, `ct_label` and the original tuple into the
//! metadata. Time is passed in (milliseconds of the datapath's clock); there is no I/O and no thread here.
//!
//! ```text
//!  packet ─► key (parse, checks) ─► table (shards) ─► state machine ([`tcp`], others) ─► rewrite (NAT) ─► metadata
//!                                       └─ not found: new, and on commit nat picks a free reply key
//! ```
//!
//! Invariants: a connection is in the table under two keys, of its original and of its reply direction, or under none; no
//! two connections share a key. Locks are taken in this order: one shard (or two, by number), then one connection. A
//! look-up holds a shard's lock for a hash probe only. Memory is bounded by `maxconns`.
//!
//! Fragments wait in [`frag`] until their datagram is whole. Control connections of FTP and TFTP announce others: those are
//! expected, related, and translated the same way (`expect`, [`ftp`]).

mod control;
mod crc32c;
mod expect;
pub mod frag;
pub mod ftp;
pub mod key;
pub mod nat;
mod process;
pub mod rewrite;
mod saved;
pub mod table;
pub mod tcp;
pub mod timeouts;

pub use table::Conntrack;
