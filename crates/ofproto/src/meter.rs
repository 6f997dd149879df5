//! Meters: their configuration. The bands work in the datapath.

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_base::time::Instant;
use ib_classifier::MiniMatch;
use ib_dpif::DpifError;
use ib_dpif::meter::MeterStats;
use ib_flow::OfPort;
use ib_openflow::action::Action;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    FlowRemovedReason, MeterConfig, MeterFlags, MeterMod, OFPG_ANY, OFPM_ALL, OFPM_MAX, OFPTT_ALL,
};

use crate::backer::Backer;
use crate::flow_mod::Criteria;
use crate::ofproto::Ofproto;

/// Meters that a bridge claims to hold.
pub const MAX_METERS: u32 = 0x40000;
/// Bands of a meter.
pub const MAX_BANDS: u8 = 8;
/// The meter of packets for the slow path.
pub(crate) const OFPM_SLOWPATH: u32 = 0xffff_fffd;
/// The meter of packets for controllers.
pub const OFPM_CONTROLLER: u32 = 0xffff_fffe;
/// OFPMBT_DROP.
const DROP: u16 = 1;

/// One meter of a bridge.
#[derive(Debug)]
pub struct Meter {
    /// Configuration.
    pub config: MeterConfig,
    /// When it was added.
    pub created: Instant,
    /// Its id in the datapath.
    pub provider_id: u32,
    /// What it counted in another switch, before it moved here.
    past: MeterStats,
}

impl Meter {
    /// Its counters: of all packets, then of each band. A datapath without meters counts nothing.
    pub(crate) fn stats(&self, backer: &Backer) -> MeterStats {
        let counted = backer.dpif.meter_stats(self.provider_id).unwrap_or_default();
        let band = |bands: &[(u64, u64)], n: usize| bands.get(n).copied().unwrap_or_default();
        let bands = (0..self.config.bands.len()).map(|n| {
            let ((p, b), (past_p, past_b)) = (band(&counted.bands, n), band(&self.past.bands, n));
            (p.saturating_add(past_p), b.saturating_add(past_b))
        });
        MeterStats {
            packets: counted.packets.saturating_add(self.past.packets),
            bytes: counted.bytes.saturating_add(self.past.bytes),
            bands: bands.collect(),
        }
    }
}

impl Ofproto {
    /// Applies a meter_mod. Flows that use a deleted meter go with it.
    pub fn meter_mod(&self, backer: &Backer, mm: &MeterMod, now: Instant) -> Result<(), OfError> {
        let id = mm.meter.meter_id;
        if mm.command != 2 {
            let special = matches!(id, OFPM_SLOWPATH | OFPM_CONTROLLER);
            if id == 0 || (id > OFPM_MAX && !special) {
                return Err(OfError::OFPMMFC_INVALID_METER);
            }
            check_meter(&mm.meter)?;
        }
        let old = self.meters.read().get(&id).map(|m| (m.provider_id, m.created));
        let exists = old.is_some();
        match mm.command {
            0 if exists => return Err(OfError::OFPMMFC_METER_EXISTS),
            1 if !exists => return Err(OfError::OFPMMFC_UNKNOWN_METER),
            0 | 1 => {
                check_bands(&mm.meter)?;
                let (provider_id, created) = old.unwrap_or_else(|| (backer.take_meter_id(), now));
                if let Err(e) = backer.dpif.meter_set(provider_id, &of_datapath(&mm.meter))
                    && !matches!(e, DpifError::Unsupported(_))
                {
                    if !exists {
                        backer.drop_meter(provider_id);
                    }
                    return Err(OfError::OFPMMFC_OUT_OF_METERS);
                }
                let past = MeterStats::default();
                let meter = Meter { config: mm.meter.clone(), created, provider_id, past };
                self.meters.write().insert(id, Arc::new(meter));
            }
            2 => self.delete_meters(backer, id, now),
            _ => return Err(OfError::OFPMMFC_BAD_COMMAND),
        }
        self.changed.bump();
        Ok(())
    }

    /// Gives a new meter the age and the counters that it had in another switch.
    pub(crate) fn restore_meter(&self, id: u32, created: Instant, past: MeterStats) {
        let mut meters = self.meters.write();
        let Some(new) = meters.get(&id) else { return };
        let meter = Meter { config: new.config.clone(), created, provider_id: new.provider_id, past };
        meters.insert(id, Arc::new(meter));
    }

    /// Makes the meters again in a datapath that has none.
    pub(crate) fn renew_meters(&self, backer: &Backer) {
        for (id, meter) in self.meters.read().iter() {
            if let Err(e) = backer.dpif.meter_set(meter.provider_id, &of_datapath(&meter.config)) {
                ib_base::vlog_warn!(ib_base::vlog::module::OFPROTO_DPIF, "meter {id}: {e}");
            }
        }
    }

    fn delete_meters(&self, backer: &Backer, id: u32, now: Instant) {
        let gone: Vec<u32> = match id {
            OFPM_ALL => self.meters.read().keys().copied().collect(),
            id => self.meters.read().contains_key(&id).then_some(id).into_iter().collect(),
        };
        if gone.is_empty() {
            return;
        }
        let mut txn = self.begin(now);
        let all = Criteria {
            table: OFPTT_ALL,
            match_: &MiniMatch::catch_all(),
            strict: None,
            cookie: 0,
            cookie_mask: 0,
            out_port: OfPort::NONE,
            out_group: OFPG_ANY,
            hidden: true,
        };
        for rule in self.collect(&all, txn.version()).unwrap_or_default() {
            if rule.actions.iter().any(|a| matches!(a, Action::Meter(m) if gone.contains(m))) {
                txn.remove(rule, FlowRemovedReason::MeterDelete);
            }
        }
        txn.commit();
        let mut meters = self.meters.write();
        for m in gone {
            if let Some(meter) = meters.remove(&m) {
                backer.drop_meter(meter.provider_id);
            }
        }
    }

    /// How many flows use each meter. Cost: all flows.
    pub(crate) fn meter_users(&self) -> BTreeMap<u32, u32> {
        let mut users = BTreeMap::new();
        for rule in self.tables.iter().flat_map(|t| t.cls.collect_all()) {
            for a in rule.actions.iter() {
                if let Action::Meter(id) = a {
                    *users.entry(*id).or_default() += 1;
                }
            }
        }
        users
    }
}

/// The meter as a datapath sees it.
fn of_datapath(m: &MeterConfig) -> ib_dpif::meter::MeterConfig {
    let burst = |b: u32| if m.flags & MeterFlags::BURST != 0 { b } else { 0 };
    ib_dpif::meter::MeterConfig {
        pktps: m.flags & MeterFlags::PKTPS != 0,
        bands: m
            .bands
            .iter()
            .map(|b| ib_dpif::meter::MeterBand { rate: b.rate, burst: burst(b.burst) })
            .collect(),
    }
}

fn check_meter(m: &MeterConfig) -> Result<(), OfError> {
    let known = MeterFlags::KBPS | MeterFlags::PKTPS | MeterFlags::BURST | MeterFlags::STATS;
    let unit = m.flags & (MeterFlags::KBPS | MeterFlags::PKTPS);
    if m.flags & !known != 0 || unit == 0 || unit == MeterFlags::KBPS | MeterFlags::PKTPS {
        return Err(OfError::OFPMMFC_BAD_FLAGS);
    }
    if m.bands.is_empty() || m.bands.len() > usize::from(MAX_BANDS) {
        return Err(OfError::OFPMMFC_OUT_OF_BANDS);
    }
    Ok(())
}

/// Checks that the datapath has the kinds of bands.
fn check_bands(m: &MeterConfig) -> Result<(), OfError> {
    if m.bands.iter().all(|b| b.kind == DROP) { Ok(()) } else { Err(OfError::OFPMMFC_BAD_BAND) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_openflow::message::MeterBand;

    #[test]
    fn meters_must_make_sense() {
        let band = MeterBand { kind: DROP, prec_level: 0, rate: 100, burst: 0 };
        let check = |flags, bands: Vec<MeterBand>, expect| {
            assert_eq!(check_meter(&MeterConfig { meter_id: 1, flags, bands }), expect);
        };
        check(1, vec![band], Ok(()));
        check(6, vec![band; 8], Ok(()));
        check(3, vec![band], Err(OfError::OFPMMFC_BAD_FLAGS));
        check(0x40, vec![band], Err(OfError::OFPMMFC_BAD_FLAGS));
        check(1, vec![], Err(OfError::OFPMMFC_OUT_OF_BANDS));
        check(1, vec![band; 9], Err(OfError::OFPMMFC_OUT_OF_BANDS));
        let marks = MeterConfig { meter_id: 1, flags: 1, bands: vec![MeterBand { kind: 2, ..band }] };
        assert_eq!(check_bands(&marks), Err(OfError::OFPMMFC_BAD_BAND));
    }
}
