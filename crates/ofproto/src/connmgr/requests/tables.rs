//! table_mods, and what tables say of themselves.

use std::sync::atomic::Ordering;

use ib_flow::FieldId;
use ib_flow::fields::{FIELDS, Maskable};
use ib_openflow::error::OfError;
use ib_openflow::message::{
    OFPTT_ALL, Role, TableActionFeatures, TableDesc, TableFeatures, TableInstrFeatures, TableMiss, TableMod,
    TableStats, TableStatus, Vacancy, Version,
};

use super::Cx;
use crate::ofproto::{INTERNAL_TABLE, Ofproto, Table};

/// Flows that a table without limit claims to hold.
const MAX_ENTRIES: u32 = 1_000_000;
/// Reasons for which a table may evict: OFPTMPEF_OTHER, IMPORTANCE, LIFETIME.
const EVICTION_FLAGS: u32 = 7;

/// `OFPTR_*`.
const VACANCY_DOWN: u8 = 3;
const VACANCY_UP: u8 = 4;

/// Tables that controllers see.
fn visible(of: &Ofproto) -> &[Table] {
    &of.tables[..usize::from(INTERNAL_TABLE)]
}

pub(super) fn table_mod(cx: &mut Cx<'_>, tm: &TableMod) -> Result<(), OfError> {
    let of = &cx.bridge.of;
    let tables = match tm.table_id {
        OFPTT_ALL => 0..INTERNAL_TABLE,
        t if t < INTERNAL_TABLE => t..t + 1,
        _ => return Err(OfError::OFPTMFC_EPERM),
    };
    let version = cx.version();
    for id in tables {
        let t = &of.tables[usize::from(id)];
        if let Some(on) = tm.eviction {
            t.eviction.store(on, Ordering::Relaxed);
        }
        if let Some(v) = tm.vacancy {
            *t.vacancy.lock() = v;
            let now = vacancy(t);
            t.crowded.store(now.enabled && now.current < now.up, Ordering::Relaxed);
        }
        let old = t.miss_config();
        if version < Version::V13 && tm.miss != old {
            t.set_miss_config(tm.miss);
            of.changed.bump();
        }
    }
    Ok(())
}

pub(super) fn table_stats(of: &Ofproto, version: Version) -> Vec<TableStats> {
    let features = table_features(of, version);
    visible(of)
        .iter()
        .zip(features)
        .map(|(t, features)| {
            let hits = t.hits.load(Ordering::Relaxed);
            TableStats {
                table_id: features.table_id,
                active_count: t.n_visible.load(Ordering::Relaxed),
                lookup_count: hits + t.misses.load(Ordering::Relaxed),
                matched_count: hits,
                features,
            }
        })
        .collect()
}

pub(super) fn table_desc(of: &Ofproto) -> Vec<TableDesc> {
    (0u8..).zip(visible(of)).map(|(table_id, t)| describe(table_id, t)).collect()
}

fn describe(table_id: u8, t: &Table) -> TableDesc {
    TableDesc {
        table_id,
        eviction: t.eviction.load(Ordering::Relaxed),
        eviction_flags: EVICTION_FLAGS,
        vacancy: vacancy(t),
    }
}

/// What there is to tell of a table whose number of flows changed: it fell below one threshold of vacancy, or rose above
/// the other, in turns. Tables without limit are never full.
pub(in crate::connmgr) fn vacancy_event(of: &Ofproto, table_id: u8) -> Option<TableStatus> {
    let t = visible(of).get(usize::from(table_id))?;
    let v = vacancy(t);
    if !v.enabled || t.config.lock().flow_limit.is_none() {
        return None;
    }
    let crowded = t.crowded.load(Ordering::Relaxed);
    let reason = match crowded {
        false if v.current < v.down => VACANCY_DOWN,
        true if v.current > v.up => VACANCY_UP,
        _ => return None,
    };
    t.crowded.store(!crowded, Ordering::Relaxed);
    Some(TableStatus { reason, desc: describe(table_id, t) })
}

/// Thresholds as configured and, if events are on, how much of the table is free.
fn vacancy(t: &Table) -> Vacancy {
    let mut v = *t.vacancy.lock();
    if v.enabled {
        let max = u64::from(t.config.lock().flow_limit.unwrap_or(MAX_ENTRIES)).max(1);
        let free = max.saturating_sub(t.n_visible.load(Ordering::Relaxed).into());
        v.current = u8::try_from(free * 100 / max).unwrap_or(100);
    }
    v
}

/// Takes the names of a request for table features; nothing else of them can be changed.
pub(super) fn rename_tables(cx: &mut Cx<'_>, changes: &[TableFeatures]) -> Result<(), OfError> {
    if changes.is_empty() {
        return Ok(());
    }
    if cx.conn.role == Role::Secondary {
        return Err(OfError::OFPBRC_IS_SECONDARY);
    }
    let tables = &cx.bridge.of.tables;
    if changes.iter().any(|c| c.table_id >= INTERNAL_TABLE) {
        return Err(OfError::OFPTFFC_BAD_TABLE);
    }
    // Tables are there, and stay.
    if changes.iter().any(|c| c.command > 1) {
        return Err(OfError::OFPTFFC_EPERM);
    }
    for c in changes {
        tables[usize::from(c.table_id)].config.lock().name.clone_from(&c.name);
    }
    Ok(())
}

/// What every table can do but the last, which can't go on.
pub(super) fn table_features(of: &Ofproto, version: Version) -> Vec<TableFeatures> {
    let all = |pred: &dyn Fn(&ib_flow::fields::Field) -> bool| -> Vec<FieldId> {
        FIELDS.iter().filter(|f| pred(f)).map(|f| f.id).collect()
    };
    let match_fields = all(&|_| true);
    let mask_fields = all(&|f| f.maskable == Maskable::Bitwise);
    let set_fields = all(&|f| f.writable);
    let actions = if version == Version::V11 { ACTIONS11 } else { ACTIONS };
    let actions = TableActionFeatures { actions, set_fields };
    let instructions = if version >= Version::V13 { INSTRUCTIONS | METER } else { INSTRUCTIONS };
    (0u8..)
        .zip(visible(of))
        .map(|(table_id, t)| {
            let config = t.config.lock();
            let last = table_id + 1 >= INTERNAL_TABLE;
            let instr = TableInstrFeatures {
                next: next_tables(table_id),
                instructions: if last { instructions & !GOTO } else { instructions },
                write: actions.clone(),
                apply: actions.clone(),
            };
            TableFeatures {
                table_id,
                command: 0,
                name: config.name.clone(),
                metadata_match: u64::MAX,
                metadata_write: u64::MAX,
                miss: match t.miss_config() {
                    TableMiss::Default => TableMiss::Default,
                    other => other,
                },
                eviction: t.eviction.load(Ordering::Relaxed),
                supports_eviction: false,
                supports_vacancy: false,
                max_entries: config.flow_limit.unwrap_or(MAX_ENTRIES),
                nonmiss: instr.clone(),
                missing: instr,
                match_fields: match_fields.clone(),
                mask_fields: mask_fields.clone(),
                wildcard_fields: match_fields.clone(),
            }
        })
        .collect()
}

/// Tables after one.
fn next_tables(table: u8) -> [u64; 4] {
    let mut next = [0u64; 4];
    for n in usize::from(table) + 1..usize::from(INTERNAL_TABLE) {
        next[n / 64] |= 1 << (n % 64);
    }
    next
}

/// Instructions by number: goto, write-metadata, write, apply, clear.
const INSTRUCTIONS: u32 = 0x3e;
const GOTO: u32 = 1 << 1;
/// OpenFlow 1.3+.
const METER: u32 = 1 << 6;
/// `OFPAT_*` of OpenFlow 1.2+: output, MPLS, VLAN, queue, group, TTL, set-field.
const ACTIONS: u64 = 0x03ff_8001;
/// `OFPAT_*` of OpenFlow 1.1, with setters in set-field's place.
const ACTIONS11: u64 = 0x01ff_e7ff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lead_to_later_ones() {
        assert_eq!(next_tables(0), [!1, u64::MAX, u64::MAX, (1 << 62) - 1]);
        assert_eq!(next_tables(253), [0; 4]);
    }
}
