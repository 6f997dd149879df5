//! Meters: token buckets that packets of many flows share.
//!
//! Each band has a bucket of `rate * burst` that fills at its rate, by the daemon's clock. A packet that finds any bucket empty is
//! subject to the band of the highest rate among those; the only band type is drop. One short lock a packet and meter.

use std::collections::HashMap;
use std::sync::Arc;

use ib_dpif::DpifError;
use parking_lot::{Mutex, RwLock};

/// Meters that a datapath has room for.
pub const MAX_METERS: u32 = 1 << 18;
/// Bands that a meter has room for.
pub const MAX_BANDS: usize = 8;

pub use ib_dpif::meter::{MeterBand, MeterConfig, MeterStats};

struct State {
    config: MeterConfig,
    stats: MeterStats,
    used_ms: u64,
    /// A thousandth of a packet, or a bit, each.
    buckets: Vec<u64>,
}

/// All meters of a datapath.
#[derive(Default)]
pub struct Meters(RwLock<HashMap<u32, Arc<Mutex<State>>>>);

/// Capacity of a band's bucket.
fn size(band: MeterBand) -> u64 {
    u64::from(if band.burst == 0 { band.rate } else { band.burst }) * 1000
}

impl Meters {
    /// Makes or replaces meter `id`; its buckets start full.
    pub fn set(&self, id: u32, config: MeterConfig, now_ms: u64) -> Result<(), DpifError> {
        if id >= MAX_METERS {
            return Err(DpifError::Full(format!("meter id {id} is out of range")));
        }
        if config.bands.len() > MAX_BANDS || config.bands.iter().any(|b| b.rate == 0) {
            return Err(DpifError::Invalid("meter bands are malformed".into()));
        }
        let state = State {
            stats: MeterStats { bands: vec![(0, 0); config.bands.len()], ..MeterStats::default() },
            used_ms: now_ms,
            buckets: config.bands.iter().map(|b| size(*b)).collect(),
            config,
        };
        self.0.write().insert(id, Arc::new(Mutex::new(state)));
        Ok(())
    }

    /// Counters of meter `id`.
    pub fn stats(&self, id: u32) -> Result<MeterStats, DpifError> {
        let found = self.0.read().get(&id).map(|m| m.lock().stats.clone());
        found.ok_or_else(|| DpifError::NotFound(format!("meter {id} not found")))
    }

    /// Removes meter `id`, returning its last counters.
    pub fn del(&self, id: u32) -> Result<MeterStats, DpifError> {
        let found = self.0.write().remove(&id).map(|m| m.lock().stats.clone());
        found.ok_or_else(|| DpifError::NotFound(format!("meter {id} not found")))
    }

    /// Whether a packet of `bytes` may pass meter `id`. A meter that is not there lets all pass.
    pub fn pass(&self, id: u32, bytes: usize, now_ms: u64) -> bool {
        let Some(meter) = self.0.read().get(&id).cloned() else { return true };
        let mut m = meter.lock();
        let m = &mut *m;
        let bytes = bytes as u64;
        let elapsed_ms = now_ms.saturating_sub(m.used_ms);
        m.used_ms = m.used_ms.max(now_ms);
        m.stats.packets += 1;
        m.stats.bytes += bytes;
        // A packet costs 1000 thousandths; a bit costs one, and 1 kbit/s brings one a millisecond.
        let cost = if m.config.pktps { 1000 } else { bytes * 8 };
        let mut worst: Option<(usize, u32)> = None;
        for (i, (band, bucket)) in m.config.bands.iter().zip(&mut m.buckets).enumerate() {
            *bucket = bucket.saturating_add(elapsed_ms.saturating_mul(u64::from(band.rate))).min(size(*band));
            match bucket.checked_sub(cost) {
                Some(left) => *bucket = left,
                None if worst.is_none_or(|(_, rate)| band.rate > rate) => worst = Some((i, band.rate)),
                None => {}
            }
        }
        if let Some((i, _)) = worst {
            m.stats.bands[i].0 += 1;
            m.stats.bands[i].1 += bytes;
        }
        worst.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_a_second_with_a_burst() {
        let m = Meters::default();
        let bands = vec![MeterBand { rate: 2, burst: 3 }];
        m.set(1, MeterConfig { pktps: true, bands }, 1000).unwrap();
        let passed = (0..5).filter(|_| m.pass(1, 100, 1000)).count();
        assert_eq!(passed, 3);
        assert!(!m.pass(1, 100, 1499) && m.pass(1, 100, 1500));
        let s = m.stats(1).unwrap();
        assert_eq!((s.packets, s.bytes, s.bands[0]), (7, 700, (3, 300)));
        assert!(m.pass(2, 100, 0));
        m.del(1).unwrap();
        assert!(m.stats(1).is_err());
    }

    #[test]
    fn kilobits_a_second() {
        let m = Meters::default();
        let bands = vec![MeterBand { rate: 1, burst: 0 }];
        m.set(1, MeterConfig { pktps: false, bands }, 0).unwrap();
        // 1 kbit is 125 bytes.
        assert!(m.pass(1, 125, 0) && !m.pass(1, 125, 999) && m.pass(1, 125, 1000));
    }
}
