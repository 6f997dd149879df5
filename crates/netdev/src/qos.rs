//! QoS and policing as values: what a device may be asked for.
//!
//! The default bodies in [`crate::Netdev`] refuse all of it; providers that can shape override them.

use std::collections::BTreeMap;

/// Key-value details, as in the `other_config` column of QoS and Queue rows.
pub type Details = BTreeMap<String, String>;

/// Limits on what a port may receive. Zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policing {
    /// `ingress_policing_rate`, kilobits a second.
    pub rate_kbps: u32,
    /// `ingress_policing_burst`, kilobits.
    pub burst_kb: u32,
    /// `ingress_policing_kpkts_rate`, thousand packets a second.
    pub rate_kpps: u32,
    /// `ingress_policing_kpkts_burst`, thousand packets.
    pub burst_kpkts: u32,
}

/// The setting of a port by which a datapath in another process learns its [`Policing`]: the four numbers in order.
pub const POLICING_KEY: &str = "ironbridge-policing";

impl Policing {
    /// From the value of [`POLICING_KEY`].
    pub fn parse(text: &str) -> Option<Policing> {
        let numbers: Vec<u32> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [rate_kbps, burst_kb, rate_kpps, burst_kpkts] = numbers[..] else { return None };
        Some(Policing { rate_kbps, burst_kb, rate_kpps, burst_kpkts })
    }
}

/// What a QoS type offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Queues that it can have.
    pub n_queues: u32,
}

/// Counters of one queue. `None`: not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Bytes sent.
    pub tx_bytes: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Packets dropped.
    pub tx_errors: Option<u64>,
    /// Age, milliseconds; `None` unknown.
    pub age_ms: Option<i64>,
}
