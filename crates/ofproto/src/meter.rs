//! Meters: their configuration. The bands work in the datapath.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ib_base::time::Instant;
use ib_flow::{Match, OfPort};
use ib_openflow::action::Action;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    FlowRemovedReason, MeterConfig, MeterFlags, MeterMod, OFPG_ANY, OFPM_ALL, OFPM_MAX, OFPTT_ALL,
};

use crate::flow_mod::Criteria;
use crate::ofproto::Ofproto;

/// Meters that a bridge claims to hold.
pub const MAX_METERS: u32 = 0x40000;
/// Bands of a meter.
pub const MAX_BANDS: u8 = 8;
/// OFPMBT_DROP.
const DROP: u16 = 1;

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

impl Ofproto {
    /// Applies a meter_mod. Flows that use a deleted meter go with it.
    pub fn meter_mod(&self, mm: &MeterMod, now: Instant) -> Result<(), OfError> {
        let id = mm.meter.meter_id;
        if mm.command != 2 {
            if id == 0 || id > OFPM_MAX {
                return Err(OfError::OFPMMFC_INVALID_METER);
            }
            check_meter(&mm.meter)?;
        }
        let exists = self.meters.read().contains_key(&id);
        match mm.command {
            0 if exists => return Err(OfError::OFPMMFC_METER_EXISTS),
            1 if !exists => return Err(OfError::OFPMMFC_UNKNOWN_METER),
            0 | 1 => {
                let meter = Meter {
                    config: mm.meter.clone(),
                    created: now,
                    packets: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                };
                self.meters.write().insert(id, Arc::new(meter));
            }
            2 => self.delete_meters(id, now),
            _ => return Err(OfError::OFPMMFC_BAD_COMMAND),
        }
        self.changed.bump();
        Ok(())
    }

    fn delete_meters(&self, id: u32, now: Instant) {
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
            match_: &Match::catch_all(),
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
            meters.remove(&m);
        }
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
    if m.bands.iter().any(|b| b.kind != DROP) {
        return Err(OfError::OFPMMFC_BAD_BAND);
    }
    Ok(())
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
        check(1, vec![MeterBand { kind: 2, ..band }], Err(OfError::OFPMMFC_BAD_BAND));
    }
}
