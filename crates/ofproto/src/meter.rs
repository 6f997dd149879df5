//! Meters: their configuration. The bands work in the datapath.

use std::sync::atomic::AtomicU64;

use ib_base::time::Instant;
use ib_openflow::message::MeterConfig;

/// One meter of a bridge.
#[derive(Debug)]
pub struct Meter {
    /// Configuration.
    pub config: MeterConfig,
    /// When it was added.
    pub created: Instant,
    /// Packets that went through.
    pub packets: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}
