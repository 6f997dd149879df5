//! Coverage counters: how often each rare or interesting event has happened.
//!
//! All counters are declared in one table at the end of this file; adding one is adding a word. A counter is one relaxed
//! atomic, so an increment costs what an uncontended cache line costs; code that handles batches counts locally and
//! adds once a batch. [`run`] is called by a daemon's loop and turns totals into rates.
//!
//! ```
//! ib_base::coverage::bridge_reconfigure.inc();
//! ```

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::time::Instant;

/// How often one event has happened.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    total: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str) -> Counter {
        Counter { name, total: AtomicU64::new(0) }
    }

    /// Counts one event.
    #[inline]
    pub fn inc(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `n` events.
    #[inline]
    pub fn add(&self, n: u64) {
        self.total.fetch_add(n, Ordering::Relaxed);
    }

    /// The name in `coverage/show`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many events so far.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// Length of the shortest interval that rates know.
const INTERVAL_MS: u64 = 5_000;
const INTERVALS_IN_MINUTE: usize = 12;
const MINUTES_IN_HOUR: usize = 60;

#[derive(Clone)]
struct History {
    seen: u64,
    minute: [u64; INTERVALS_IN_MINUTE],
    hour: [u64; MINUTES_IN_HOUR],
}

struct Rates {
    next: Option<Instant>,
    /// Number of intervals so far.
    interval: usize,
    history: Vec<History>,
}

static RATES: Mutex<Rates> = Mutex::new(Rates { next: None, interval: 0, history: Vec::new() });

fn rates() -> MutexGuard<'static, Rates> {
    RATES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings the rates up to `now`. Cheap unless five seconds have passed; needs no wake-up of its own.
pub fn run(now: Instant) {
    let mut rates = rates();
    let rates = &mut *rates;
    let next = *rates.next.get_or_insert(now.plus_ms(INTERVAL_MS));
    if now < next {
        return;
    }
    if rates.history.is_empty() {
        let none = History { seen: 0, minute: [0; INTERVALS_IN_MINUTE], hour: [0; MINUTES_IN_HOUR] };
        rates.history = vec![none; COUNTERS.len()];
    }
    let passed = 1 + now.since(next).as_millis() / u128::from(INTERVAL_MS);
    // After an hour in which nobody asked, every slot is due for clearing; more rounds would change nothing.
    let rounds = passed.min((INTERVALS_IN_MINUTE * MINUTES_IN_HOUR) as u128) as usize;
    for _ in 0..rounds {
        let slot = rates.interval % INTERVALS_IN_MINUTE;
        let minute = rates.interval / INTERVALS_IN_MINUTE % MINUTES_IN_HOUR;
        for (counter, h) in COUNTERS.iter().zip(&mut rates.history) {
            let total = counter.total();
            let delta = total.wrapping_sub(h.seen);
            h.seen = total;
            h.minute[slot] = delta;
            if slot == 0 {
                h.hour[minute] = 0;
            }
            h.hour[minute] = h.hour[minute].saturating_add(delta);
        }
        rates.interval += 1;
    }
    let step = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(INTERVAL_MS);
    rates.next = Some(next.plus_ms(step));
}

/// `coverage/show`.
pub fn show() -> String {
    let rates = rates();
    let totals: Vec<u64> = COUNTERS.iter().map(|c| c.total()).collect();
    let mut out = format!(
        "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash={:08x}:\n",
        hash(&totals)
    );
    let mut never = 0;
    for (i, counter) in COUNTERS.iter().enumerate() {
        if totals[i] == 0 {
            never += 1;
            continue;
        }
        let (five, minute, hour) = match rates.history.get(i) {
            Some(h) => {
                let last = rates.interval.wrapping_sub(1) % INTERVALS_IN_MINUTE;
                (h.minute[last], h.minute.iter().sum::<u64>(), h.hour.iter().sum::<u64>())
            }
            None => (0, 0, 0),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<24} {:>5.1}/sec {:>9.3}/sec {:>13.4}/sec   total: {}",
            counter.name,
            five as f64 / 5.0,
            minute as f64 / 60.0,
            hour as f64 / 3_600.0,
            totals[i]
        );
    }
    let _ = writeln!(out, "{never} events never hit");
    out
}

/// A word that tells whether two dumps saw about the same: events ranked by how often they happened.
fn hash(totals: &[u64]) -> u32 {
    let mut order: Vec<usize> = (0..totals.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(totals[*i]), *i));
    let mut h: u32 = 0x811c_9dc5;
    for i in order {
        h = (h ^ i as u32).wrapping_mul(0x0100_0193);
        h = (h ^ u32::from(totals[i] > 0)).wrapping_mul(0x0100_0193);
    }
    h
}

/// `coverage/read-counter`: the total of the counter called `name`.
pub fn read(name: &str) -> Option<u64> {
    COUNTERS.iter().find(|c| c.name == name).map(|c| c.total())
}

macro_rules! counters {
    ($($name:ident,)*) => {
        $(
            #[doc = concat!("Counter `", stringify!($name), "`.")]
            #[allow(non_upper_case_globals)]
            pub static $name: Counter = Counter::new(stringify!($name));
        )*
        /// All counters, in the order of `coverage/show`.
        pub static COUNTERS: &[&Counter] = &[$(&$name),*];
    };
}

counters! {
    bridge_reconfigure,
    ofproto_flush, ofproto_packet_out, ofproto_queue_req, ofproto_recv_openflow, ofproto_reinit_ports,
    ofproto_update_port, ofproto_dpif_expired,
    packet_in_overflow,
    rev_reconfigure, rev_stp, rev_rstp, rev_bond, rev_port_toggled, rev_flow_table, rev_mac_learning,
    rev_mcast_snooping,
    dumped_duplicate_flow, dumped_inconsistent_flow, dumped_new_flow, handler_duplicate_upcall,
    revalidate_missed_dp_flow, revalidate_missing_dp_flow, ukey_dp_change, ukey_invalid_stat_reset,
    ukey_replace_contention, upcall_flow_limit_grew, upcall_flow_limit_hit, upcall_flow_limit_kill,
    upcall_flow_limit_reduced, upcall_flow_limit_scaled, upcall_ukey_contention, upcall_ukey_replace,
    flow_limit_grew, xlate_actions, xlate_actions_oversize, xlate_actions_too_many_output,
    xlate_actions_mpls_overflow,
    cfm, bfd_rx, bfd_tx,
    lacp_rx, lacp_tx,
    mac_learning_learned, mac_learning_expired, mac_learning_evicted, mac_learning_moved,
    mac_learning_static_none_move,
    mcast_snooping_learned, mcast_snooping_expired,
    ccmp_rx, bond_process_lacp, bundle_out,
    tnl_neigh_learned, tnl_push, tnl_pop, native_tnl_unsupported,
    datapath_drop_upcall_error, datapath_drop_lock_error, datapath_drop_userspace_action_error,
    datapath_drop_tunnel_push_error, datapath_drop_tunnel_pop_error, datapath_drop_tunnel_too_big,
    datapath_drop_recirc_error,
    datapath_drop_invalid_port, datapath_drop_invalid_bond, datapath_drop_invalid_tnl_port,
    datapath_drop_rx_invalid_packet, datapath_drop_hw_miss_recover, datapath_drop_hw_post_process,
    datapath_drop_hw_post_process_consumed, datapath_drop_meter, datapath_drop_sample_error,
    datapath_drop_nsh_decap_error, datapath_drop_tso_error, datapath_drop_check_pkt_len, datapath_drop_trunc,
    datapath_drop_no_members, datapath_drop_explicit, datapath_drop_fragment, datapath_drop_no_headroom,
    datapath_drop_tx_queue_full, datapath_drop_too_many_recirculations, datapath_drop_mask_budget,
    megaflow_narrowed, datapath_drop_nesting, datapath_drop_conntrack, datapath_drop_internal_error, datapath_drop_no_actions,
    datapath_drop_ttl_expired,
    drop_action_of_pipeline, drop_action_bridge_not_found, drop_action_recursion_too_deep,
    drop_action_too_many_resubmit, drop_action_stack_too_deep, drop_action_no_recirculation_context,
    drop_action_recirculation_conflict, drop_action_too_many_mpls_labels, drop_action_invalid_tunnel_metadata,
    drop_action_unsupported_packet_type, drop_action_congestion, drop_action_forwarding_disabled,
    drop_action_tunnel_routing_failed, drop_action_tunnel_output_no_ethernet,
    drop_action_tunnel_neigh_cache_miss, drop_action_tunnel_header_build_failed,
    dpif_destroy, dpif_execute, dpif_execute_error, dpif_execute_with_help, dpif_flow_del, dpif_flow_del_error,
    dpif_flow_flush, dpif_flow_get, dpif_flow_get_error, dpif_flow_put, dpif_flow_put_error, dpif_meter_del,
    dpif_meter_get, dpif_meter_set, dpif_port_add, dpif_port_del, dpif_purge,
    flow_extract, miniflow_malloc, miniflow_extract_ipv4_pkt_len_error, miniflow_extract_ipv4_pkt_too_short,
    miniflow_extract_ipv6_pkt_len_error, miniflow_extract_ipv6_pkt_too_short,
    conntrack_full, conntrack_l3csum_err, conntrack_l4csum_err, conntrack_lookup_natted_miss, conntrack_zone_full,
    conntrack_evicted, conntrack_insert_failed, conntrack_clean_expired,
    ipf_stuck_frag_list_expired, ipf_stuck_frag_list_purged, ipf_l3csum_err,
    dp_packet_clone, netdev_get_stats, netdev_received, netdev_sent, netdev_arp_lookup, netdev_get_ethtool,
    netdev_get_hwaddr, netdev_get_ifindex, netdev_set_ethtool, netdev_set_hwaddr, netdev_set_policing,
    netdev_add_router, netdev_push_header_drops, netdev_soft_seg_good, netdev_soft_seg_drops,
    netdev_geneve_tso_drops, netdev_vxlan_tso_drops, netdev_partial_seg_good, netdev_partial_seg_drops,
    afxdp_cq_empty, afxdp_cq_skip, afxdp_fq_full, afxdp_tx_full, vhost_tx_contention, vhost_notification,
    nln_changed, netlink_overflow, netlink_received, netlink_recv_jumbo, netlink_sent, route_table_dump,
    rtnetlink_changes,
    pstream_open, stream_open, vconn_open, vconn_received, vconn_sent, rconn_discarded, rconn_overflow, ofmonitor_pause, ofmonitor_resume,
    rconn_queued, rconn_sent,
    unixctl_received, unixctl_replied,
    txn_unchanged, txn_incomplete, txn_aborted, txn_success, txn_try_again, txn_not_locked, txn_uncommitted,
    txn_error,
    jsonrpc_received, jsonrpc_sent, ovsdb_txn_commit, ovsdb_monitor_update, ovsdb_log_write, ovsdb_compact,
    raft_entry_serialize,
    hmap_pathological, hmap_expand, hmap_shrink, hmap_reserve, hmap_shrink_resize, cmap_expand, cmap_shrink,
    lockfile_error, lockfile_lock, lockfile_unlock,
    poll_create_node, poll_zero_timeout, seq_change, mac_table_flush,
    util_xalloc, sflow_sample, ipfix_sample, nf_expired,
    mpsc_queue_full, rcu_postponed, rcu_ran,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_text() {
        let t0 = Instant::from_ms(1_000_000);
        run(t0);
        bfd_rx.add(10);
        run(t0.plus_ms(5_000));
        let expect = format!("{:<24}   2.0/sec     0.167/sec        0.0028/sec   total: 10\n", "bfd_rx");
        assert!(show().contains(&expect), "{}", show());
        run(t0.plus_ms(10_000));
        let expect = format!("{:<24}   0.0/sec     0.167/sec        0.0028/sec   total: 10\n", "bfd_rx");
        assert!(show().contains(&expect), "{}", show());
        run(t0.plus_ms(90_000));
        assert!(show().contains("  0.0/sec     0.000/sec        0.0028/sec   total: 10\n"), "{}", show());
        run(t0.plus_ms(9_000_000));
        assert!(show().contains("  0.0/sec     0.000/sec        0.0000/sec   total: 10\n"), "{}", show());
        assert_eq!(read("bfd_rx"), Some(10));
        assert_eq!(read("nosuch"), None);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = COUNTERS.iter().map(|c| c.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    }
}
