//! Meters as values: what a datapath is told of one, and what it counts.

/// A drop band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterBand {
    /// Kilobits or packets a second.
    pub rate: u32,
    /// Bucket size: kilobits or packets; 0: as much as the rate brings in a second.
    pub burst: u32,
}

/// What a meter does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeterConfig {
    /// Rates are packets a second, not kilobits.
    pub pktps: bool,
    /// Bands.
    pub bands: Vec<MeterBand>,
}

/// Counters of a meter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeterStats {
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen.
    pub bytes: u64,
    /// Packets and bytes that each band dropped.
    pub bands: Vec<(u64, u64)>,
}
