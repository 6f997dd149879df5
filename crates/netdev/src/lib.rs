//! The port contract and its Linux and dummy providers.
//!
//! A [`Netdev`] is one network device by name, opened once and shared by whoever configures it (the
//! bridge) and whoever moves packets through it (a datapath). The [`Registry`] hands out the objects,
//! knows the kinds, and tells when something changed. Packets leave a device by its [`RxQueue`]s, each
//! owned by one thread, and enter it by [`Netdev::send`], from any thread.
//!
//! ```text
//!   bridge ──set_config, mtu, stats──►┌────────────┐◄──rx_queues, send── datapath threads
//!                                     │ dyn Netdev │
//!   Registry::run ◄─rtnetlink──┐      └─────▲──────┘
//!                              └── seq ─────┘  system · tap/internal · patch · replay/null · dummy*
//! ```
//!
//! Super-frames (see [`ib_packet::Offload`]) pass whole wherever the device can take them; `send`
//! segments in software where it cannot. Nothing here knows flows, bridges or the database.

pub mod changes;
pub mod conformance;
pub mod contract;
pub mod dummy;
pub mod error;
pub mod flags;
pub mod linux;
pub mod patch;
pub mod pcap;
pub mod qos;
pub mod registry;
pub mod replay;
pub mod stats;
pub mod vhost;

pub use contract::{Bypass, Carrier, Netdev, RxQueue, Speed, TX_OFFLOADS};
pub use error::Error;
pub use flags::Flags;
pub use registry::{DummyLevel, Provider, Registry};
pub use stats::{DropReason, NetdevStats};
