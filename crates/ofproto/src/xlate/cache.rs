//! What a translation touched: where the counters of its packets go, and whose changes concern it.
//!
//! The list is kept with the datapath flow. When revalidation reads the flow's counters, [`push`] hands
//! the difference to rules, tables, patch ports, groups and mirrors, and refreshes learned addresses and
//! flows, so that each sees the traffic as if every packet had been translated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_export::netflow::Key;
use ib_flow::OfPort;
use ib_packet::Mac;

use crate::bond::SharedBond;
use crate::change::Lookup;
use crate::flow_mod::{Origin, RuleMod};
use crate::group::Group;
use crate::monitor::Monitor;
use crate::ofproto::{Ofproto, Seen};
use crate::rule::{PushStats, Rule};
use crate::xcfg::PortCounters;

/// One thing that a translation touched.
#[derive(Clone)]
pub enum CacheEntry {
    /// A table was looked up.
    Table(Arc<Ofproto>, u8, Lookup),
    /// A rule.
    Rule(Arc<Rule>),
    /// A patch port was entered.
    PatchRx(Arc<PortCounters>),
    /// A port was entered whose link lives by its traffic.
    Traffic(Arc<Ofproto>, OfPort, Arc<Monitor>),
    /// A patch port was left by.
    PatchTx(Arc<PortCounters>),
    /// From here on packets have so many bytes of outer headers more (true) or less.
    TunnelHeader(u64, bool),
    /// A mirror copied.
    Mirror(Arc<PortCounters>),
    /// A source address was seen on a bridge, and a destination address may have been looked for.
    Normal(Arc<Ofproto>, Seen, Mac),
    /// A source address was looked for on a bridge.
    Address(u32, Mac),
    /// A balancing bond, and the hash that chose a member.
    Bond(SharedBond, u32),
    /// A group, and the buckets that it used.
    Group(Arc<Group>, Vec<usize>),
    /// A flow was learned.
    Learn(Arc<Ofproto>, Arc<RuleMod>),
    /// NetFlow counts a flow, which leaves by this port.
    NetFlow(Arc<Ofproto>, Key, u16),
    /// Timeouts are lowered by FIN or RST.
    FinTimeout(Arc<Ofproto>, Arc<Rule>, u16, u16),
}

impl CacheEntry {
    /// Whether both stand for the same: one may take the other's place. "No" in doubt.
    pub(crate) fn is_same(&self, other: &CacheEntry) -> bool {
        use CacheEntry::*;
        match (self, other) {
            (Table(of, table, lookup), Table(of2, table2, lookup2)) => {
                Arc::ptr_eq(of, of2) && table == table2 && lookup == lookup2
            }
            (Rule(a), Rule(b)) => Arc::ptr_eq(a, b),
            (PatchRx(a), PatchRx(b)) | (PatchTx(a), PatchTx(b)) | (Mirror(a), Mirror(b)) => Arc::ptr_eq(a, b),
            (Traffic(of, port, m), Traffic(of2, port2, m2)) => {
                Arc::ptr_eq(of, of2) && port == port2 && Arc::ptr_eq(m, m2)
            }
            (TunnelHeader(size, more), TunnelHeader(size2, more2)) => size == size2 && more == more2,
            (Normal(of, seen, dst), Normal(of2, seen2, dst2)) => {
                Arc::ptr_eq(of, of2) && seen == seen2 && dst == dst2
            }
            (Address(of, mac), Address(of2, mac2)) => of == of2 && mac == mac2,
            (Bond(a, hash), Bond(b, hash2)) => Arc::ptr_eq(a, b) && hash == hash2,
            (Group(a, buckets), Group(b, buckets2)) => Arc::ptr_eq(a, b) && buckets == buckets2,
            (FinTimeout(of, rule, idle, hard), FinTimeout(of2, rule2, idle2, hard2)) => {
                Arc::ptr_eq(of, of2) && Arc::ptr_eq(rule, rule2) && idle == idle2 && hard == hard2
            }
            _ => false,
        }
    }
}

/// The flows that NetFlow counts by this list have ended.
pub fn end_netflow(cache: &[CacheEntry]) {
    for entry in cache {
        if let CacheEntry::NetFlow(of, key, _) = entry {
            of.netflow_forget(key);
        }
    }
}

/// TCP FIN or RST.
const FIN_OR_RST: u16 = 0x05;

/// Counts packets. With `refresh`, learned things are refreshed as well.
pub fn push(cache: &[CacheEntry], stats: &PushStats, refresh: bool) {
    let mut stats = *stats;
    for entry in cache {
        let stats = &mut stats;
        match entry {
            CacheEntry::TunnelHeader(size, more) => {
                let all = size.saturating_mul(stats.packets);
                stats.bytes =
                    if *more { stats.bytes.saturating_add(all) } else { stats.bytes.saturating_sub(all) };
            }
            CacheEntry::Table(of, table, lookup) => {
                let t = &of.tables[usize::from(*table)];
                let counter = if lookup.hit { &t.hits } else { &t.misses };
                counter.fetch_add(stats.packets, Ordering::Relaxed);
            }
            CacheEntry::Rule(rule) => rule.credit(stats),
            CacheEntry::PatchRx(c) => c.rx(stats),
            CacheEntry::Traffic(of, port, monitor) => {
                if stats.packets != 0 {
                    monitor.account_rx(of.clock.now());
                    of.monitor_news(*port);
                }
            }
            CacheEntry::PatchTx(c) | CacheEntry::Mirror(c) => c.tx(stats),
            CacheEntry::Normal(of, seen, _) => {
                if refresh {
                    of.learn(seen);
                }
            }
            CacheEntry::Address(..) => {}
            CacheEntry::Bond(bond, hash) => bond.lock().account(*hash as usize, stats.bytes),
            CacheEntry::Group(group, buckets) => {
                group.counts.credit(stats);
                for b in buckets {
                    if let Some((_, c)) = group.buckets.get(*b) {
                        c.credit(stats);
                    }
                }
            }
            CacheEntry::Learn(of, fm) => {
                if refresh {
                    super::learn::refresh(of, fm, Origin::default());
                }
            }
            CacheEntry::NetFlow(of, key, output) => of.netflow_update(key, *output, stats),
            CacheEntry::FinTimeout(of, rule, idle, hard) => {
                if stats.tcp_flags & FIN_OR_RST != 0 {
                    rule.reduce_timeouts(*idle, *hard);
                    of.timeouts_reduced(rule);
                }
            }
        }
    }
}
