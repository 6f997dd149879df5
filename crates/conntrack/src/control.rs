//! The table as the control plane sees it: dumps, flushes, limits and settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::vlog::module::CONNTRACK;
use ib_base::vlog_info;
use ib_dpif::conntrack::{
    CtControl, CtEntry, CtExpectation, CtFilter, CtTcp, CtTimeouts, CtTuple, CtZoneLimit, FragList,
    FragStatus,
};
use ib_dpif::ct_saved::CtSaved;
use ib_packet::Be128;

use crate::key::Key;
use crate::table::{Conn, Conntrack, Helper, Proto};

/// Least that a smallest fragment size can be set to.
const FRAG_FLOOR: u32 = 400;
/// Most fragments that can be allowed to be held.
const FRAG_MAX: u32 = 5000;

pub(crate) fn tuple(key: &Key) -> CtTuple {
    let addr = |a: Be128| -> std::net::IpAddr {
        if key.v6 {
            std::net::Ipv6Addr::from(a.get()).into()
        } else {
            std::net::Ipv4Addr::from(a.get() as u32).into()
        }
    };
    CtTuple {
        src: addr(key.src),
        dst: addr(key.dst),
        proto: key.proto,
        sport: key.sport,
        dport: key.dport,
        id: key.id,
    }
}

fn entry(conn: &Conn, now_ms: u64) -> CtEntry {
    let state = conn.state.lock();
    let tcp = match &state.proto {
        Proto::Tcp([a, b]) => Some(CtTcp {
            state: [a.state, b.state],
            wscale: [a.wscale.unwrap_or(0), b.wscale.unwrap_or(0)],
            scales: [a.wscale.is_some(), b.wscale.is_some()],
            liberal: [a.unknown, b.unknown],
        }),
        _ => None,
    };
    CtEntry {
        orig: tuple(&conn.orig),
        reply: tuple(&conn.reply),
        zone: conn.orig.zone,
        mark: state.mark,
        label: state.label,
        timeout_s: state.expires_ms.saturating_sub(now_ms) / 1000,
        tcp,
        helper: conn.helper.map(Helper::name),
        parent: conn.parent.as_deref().map(tuple),
        kernel: None,
    }
}

impl CtControl for Conntrack {
    fn dump(&self, zone: Option<u16>) -> Vec<CtEntry> {
        let now = self.now_ms.load(Ordering::Relaxed);
        self.all(zone).iter().map(|c| entry(c, now)).collect()
    }
    fn expectations(&self, zone: Option<u16>) -> Vec<CtExpectation> {
        self.expected_all(zone)
            .into_iter()
            .map(|(key, x)| CtExpectation {
                orig: tuple(&key),
                zone: key.zone,
                mark: x.mark,
                label: x.label,
                parent: tuple(&x.parent),
            })
            .collect()
    }
    fn flush(&self, filter: &CtFilter) -> usize {
        let agrees = |c: &&Arc<Conn>| filter.matches(&entry(c, 0));
        self.all(filter.zone).iter().filter(agrees).filter(|c| self.remove(c)).count()
    }
    fn save(&self, wanted: &dyn Fn(&CtEntry) -> bool) -> Vec<CtSaved> {
        let now = self.now_ms.load(Ordering::Relaxed);
        let conns = self.all(None);
        conns.iter().filter(|c| wanted(&entry(c, now))).map(|c| self.save_one(c, now)).collect()
    }
    fn restore(&self, conn: &CtSaved) -> Result<(), String> {
        self.restore_one(conn)
    }
    fn remove(&self, zone: u16, orig: &CtTuple) -> bool {
        self.remove_one(zone, orig)
    }
    fn n_conns(&self) -> u32 {
        self.remove_due();
        self.count.load(Ordering::Relaxed)
    }
    fn max_conns(&self) -> u32 {
        self.max_conns.load(Ordering::Relaxed)
    }
    fn set_max_conns(&self, max: u32) {
        self.max_conns.store(max, Ordering::Relaxed);
    }
    fn tcp_seq_chk(&self) -> bool {
        self.tcp_seq_chk.load(Ordering::Relaxed)
    }
    fn set_tcp_seq_chk(&self, on: bool) {
        self.tcp_seq_chk.store(on, Ordering::Relaxed);
    }
    fn default_limit(&self) -> u32 {
        self.limits.read().default
    }
    fn set_default_limit(&self, limit: u32) {
        let mut limits = self.limits.write();
        let before = std::mem::replace(&mut limits.default, limit);
        drop(limits);
        // In the log the default is that of zone -1.
        log_limit(-1, (before != 0).then_some(before), (limit != 0).then_some(limit));
    }
    fn limits(&self) -> Vec<CtZoneLimit> {
        let zones: Vec<u16> = self.limits.read().zones.keys().copied().collect();
        zones.into_iter().map(|z| self.limit(z)).collect()
    }
    fn limit(&self, zone: u16) -> CtZoneLimit {
        self.zone_limit(zone)
    }
    fn set_limit(&self, zone: u16, limit: Option<u32>) {
        let mut limits = self.limits.write();
        let before = match limit {
            Some(limit) => limits.zones.insert(zone, limit),
            None => limits.zones.remove(&zone),
        };
        drop(limits);
        log_limit(zone.into(), before, limit);
    }
    fn set_timeouts(&self, zone: u16, timeouts: Option<CtTimeouts>) {
        self.timeouts.write().set(zone, timeouts);
    }
    fn timeout_policy(&self, zone: u16) -> Option<u32> {
        self.timeouts.read().of_zone(zone)
    }
    fn sweep_interval_ms(&self) -> u32 {
        self.sweep_ms.load(Ordering::Relaxed)
    }
    fn set_sweep_interval_ms(&self, ms: u32) {
        self.sweep_ms.store(ms, Ordering::Relaxed);
    }
    fn frag_status(&self) -> FragStatus {
        self.fragments.lock().status
    }
    fn frag_lists(&self) -> Vec<FragList> {
        self.fragments.lock().lists()
    }
    fn set_frag_enabled(&self, v6: bool, on: bool) {
        let f = &mut self.fragments.lock().status;
        if v6 { f.v6.enabled = on } else { f.v4.enabled = on }
    }
    fn set_frag_min(&self, v6: bool, bytes: u32) -> bool {
        let f = &mut self.fragments.lock().status;
        let counters = if v6 { &mut f.v6 } else { &mut f.v4 };
        if bytes >= FRAG_FLOOR {
            counters.min_size = bytes;
        }
        bytes >= FRAG_FLOOR
    }
    fn set_frag_max(&self, max: u32) -> bool {
        let fits = max <= FRAG_MAX;
        if fits {
            self.fragments.lock().status.max = max;
        }
        fits
    }
}

/// Says what became of a zone's limit.
fn log_limit(zone: i32, before: Option<u32>, limit: Option<u32>) {
    match (before, limit) {
        (None, Some(limit)) => vlog_info!(CONNTRACK, "Created zone limit of {limit} for zone {zone}"),
        (Some(_), Some(limit)) => vlog_info!(CONNTRACK, "Changed zone limit of {limit} for zone {zone}"),
        (Some(_), None) => vlog_info!(CONNTRACK, "Deleted zone limit for zone {zone}"),
        (None, None) => vlog_info!(CONNTRACK, "Attempted delete of non-existent zone limit: zone {zone}"),
    }
}
