//! Texts of the `dpif-netdev/*` commands.
//!
//! Each function answers for one datapath; which one a command means, [`choose`] tells. "Cycles" are nanoseconds here: that is the clock that
//! the workers have. Kernel devices are served by forwarding threads that sleep, which Open vSwitch's non-PMD ports have on
//! the main thread: their counters appear under `main thread`, and only PMD ports make a `pmd thread` appear.

use std::fmt::Write;
use std::sync::Arc;

use crate::datapath::DpUserspace;
use crate::pmd::{HISTORY_SECS, PmdView, shown_secs};
use crate::stats::Totals;

/// The datapath that a command means: the one of that name, or else the only one there is.
pub fn choose(all: &[Arc<DpUserspace>], name: Option<&str>) -> Result<Arc<DpUserspace>, &'static str> {
    use ib_dpif::Dpif;
    let named = name.and_then(|n| all.iter().find(|d| d.name() == n));
    match (named, all) {
        (Some(dp), _) => Ok(Arc::clone(dp)),
        (None, [dp]) => Ok(Arc::clone(dp)),
        _ => Err("please specify an existing datapath"),
    }
}

/// As [`choose`], but a name that is given must be one.
pub fn choose_strictly(
    all: &[Arc<DpUserspace>],
    name: Option<&str>,
) -> Result<Arc<DpUserspace>, &'static str> {
    use ib_dpif::Dpif;
    match (name, all) {
        (None, [dp]) => Ok(Arc::clone(dp)),
        (name, all) => {
            let found = all.iter().find(|d| Some(d.name()) == name);
            found.cloned().ok_or("please specify an existing datapath")
        }
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn heading(out: &mut String, pmd: &PmdView) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "pmd thread numa_id {} core_id {}:", pmd.numa_id, pmd.core_id);
}

fn stats(out: &mut String, t: &Totals, cycles: bool) {
    let passes = t.received + t.recirculated;
    let _ = writeln!(out, "  packets received: {}", t.received);
    let _ = writeln!(out, "  packet recirculations: {}", t.recirculated);
    let _ = writeln!(out, "  avg. datapath passes per packet: {:.2}", ratio(passes, t.received));
    let _ = writeln!(out, "  phwol hits: 0\n  mfex opt hits: 0\n  simple match hits: {}", t.simple_hits);
    let _ = writeln!(out, "  emc hits: {}", t.emc_hits);
    let _ = writeln!(out, "  smc hits: {}", t.smc_hits);
    let _ = writeln!(out, "  megaflow hits: {}", t.megaflow_hits);
    let per_hit = ratio(t.megaflow_probes, t.megaflow_hits);
    let _ = writeln!(out, "  avg. subtable lookups per megaflow hit: {per_hit:.2}");
    let _ = writeln!(out, "  miss with success upcall: {}", t.upcalls_ok);
    let _ = writeln!(out, "  miss with failed upcall: {}", t.upcalls_failed);
    let _ = writeln!(out, "  avg. packets per output batch: {:.2}", ratio(t.tx_packets, t.tx_batches));
    let all = t.busy_ns + t.idle_ns;
    if !cycles || all == 0 {
        return;
    }
    let share = |n| 100.0 * ratio(n, all);
    let _ = writeln!(out, "  idle cycles: {} ({:.2}%)", t.idle_ns, share(t.idle_ns));
    let _ = writeln!(out, "  processing cycles: {} ({:.2}%)", t.busy_ns, share(t.busy_ns));
    if t.received != 0 {
        let n = t.received;
        let _ = writeln!(out, "  avg cycles per packet: {:.2} ({all}/{n})", ratio(all, n));
        let (avg, busy) = (ratio(t.busy_ns, n), t.busy_ns);
        let _ = writeln!(out, "  avg processing cycles per packet: {avg:.2} ({busy}/{n})");
    }
}

/// The threads that an option `-pmd CORE` leaves, with their load over `secs` seconds.
fn chosen(dp: &DpUserspace, core: Option<u32>, secs: u32) -> Vec<PmdView> {
    let mut pmds = dp.pmds(secs);
    pmds.retain(|p| core.is_none_or(|c| c == p.core_id));
    pmds
}

/// `dpif-netdev/pmd-stats-show [-pmd CORE]`.
pub fn pmd_stats_show(dp: &DpUserspace, core: Option<u32>) -> String {
    let mut out = String::new();
    for pmd in chosen(dp, core, HISTORY_SECS) {
        heading(&mut out, &pmd);
        stats(&mut out, &pmd.totals, true);
    }
    if core.is_none() {
        out.push_str("main thread:\n");
        stats(&mut out, &dp.main_totals(), false);
    }
    out
}

/// `dpif-netdev/pmd-stats-clear [-pmd CORE]`.
pub fn pmd_stats_clear(dp: &DpUserspace, core: Option<u32>) {
    dp.clear_totals(core);
}

/// `dpif-netdev/pmd-rxq-show [-pmd CORE] [-secs SECS]`.
pub fn pmd_rxq_show(dp: &DpUserspace, core: Option<u32>, secs: u32) -> String {
    let secs = shown_secs(secs);
    let pmds = chosen(dp, core, secs);
    if core.is_some() && pmds.is_empty() {
        return String::new();
    }
    let mut out = format!("Displaying last {secs} seconds pmd usage %\n");
    let share = |usage: Option<u64>| usage.map_or_else(|| "NOT AVAIL".to_owned(), |u| format!("{u:2} %"));
    for pmd in pmds {
        heading(&mut out, &pmd);
        let _ = writeln!(out, "  isolated : {}", pmd.isolated);
        for q in &pmd.queues {
            let (name, qid, usage) = (&q.name, q.qid, share(q.usage));
            let _ = writeln!(out, "  port: {name:<16}  queue-id: {qid:2} (enabled)   pmd usage: {usage}");
        }
        if let Some(q) = pmd.queues.first() {
            // A turn consists of its queues' packets and nothing else.
            let _ = writeln!(out, "  overhead: {}", share(q.usage.map(|_| 0)));
        }
    }
    out
}

/// `dpif-netdev/pmd-perf-show [-pmd CORE]`. `time` is the wall clock as `HH:MM:SS.mmm`.
pub fn pmd_perf_show(dp: &DpUserspace, core: Option<u32>, time: &str) -> String {
    let mut out = String::new();
    let now = dp.shared().clock.now();
    for pmd in chosen(dp, core, HISTORY_SECS) {
        let secs = (now.as_ms().saturating_sub(pmd.cleared_at.as_ms())) as f64 / 1000.0;
        let _ = writeln!(out, "\nTime: {time}\nMeasurement duration: {secs:.3} s\n");
        heading(&mut out, &pmd);
        let t = &pmd.totals;
        let used = t.busy_ns + t.idle_ns;
        let idle = t.iterations - t.busy_iterations.min(t.iterations);
        let us = ratio(used, t.iterations) / 1000.0;
        let _ = writeln!(out, "\n  Iterations:         {:12}  ({us:.2} us/it)", t.iterations);
        let of_all = if secs > 0.0 { used as f64 / secs / 1e7 } else { 0.0 };
        let _ = writeln!(out, "  - Used TSC cycles:  {used:12}  ({of_all:5.1} % of total cycles)");
        let share = 100.0 * ratio(t.idle_ns, used);
        let _ = writeln!(out, "  - idle iterations:  {idle:12}  ({share:5.1} % of used cycles)");
        let (busy, share) = (t.busy_iterations, 100.0 * ratio(t.busy_ns, used));
        let _ = writeln!(out, "  - busy iterations:  {busy:12}  ({share:5.1} % of used cycles)");
        let (sleeps, share) = (t.sleeps, 100.0 * ratio(t.sleeps, t.iterations));
        let _ = writeln!(out, "  - sleep iterations: {sleeps:12}  ({share:5.1} % of iterations)");
        let (slept, avg) = (t.sleep_ns / 1000, ratio(t.sleep_ns, t.iterations) / 1000.0);
        let _ = writeln!(out, "  Sleep time (us):    {slept:12}  ({avg:3.0} us/iteration avg.)");
        perf_packets(&mut out, t);
    }
    out
}

fn perf_packets(out: &mut String, t: &Totals) {
    if t.received == 0 {
        let _ = writeln!(out, "  Rx packets:         {:12}\n  Tx packets:         {:12}\n", 0, 0);
        return;
    }
    let n = t.received;
    let passes = n + t.recirculated;
    let _ = writeln!(
        out,
        "  Rx packets:         {n:12}  ({:.0} Kpps, {:.0} cycles/pkt)",
        ratio(n, t.busy_ns) * 1e6,
        ratio(t.busy_ns, n)
    );
    let _ = writeln!(out, "  Datapath passes:    {passes:12}  ({:.2} passes/pkt)", ratio(passes, n));
    for (name, hits) in [
        ("PHWOL hits:        ", 0),
        ("MFEX Opt hits:     ", 0),
        ("Simple Match hits: ", t.simple_hits),
        ("EMC hits:          ", t.emc_hits),
        ("SMC hits:          ", t.smc_hits),
    ] {
        let _ = writeln!(out, "  - {name}{hits:11}  ({:5.1} %)", 100.0 * ratio(hits, passes));
    }
    let _ = writeln!(
        out,
        "  - Megaflow hits:    {:12}  ({:5.1} %, {:.2} subtbl lookups/hit)",
        t.megaflow_hits,
        100.0 * ratio(t.megaflow_hits, passes),
        ratio(t.megaflow_probes, t.megaflow_hits)
    );
    let _ = writeln!(
        out,
        "  - Upcalls:          {:12}  ({:5.1} %, {:.1} us/upcall)",
        t.misses(),
        100.0 * ratio(t.misses(), passes),
        ratio(t.upcall_ns, t.misses()) / 1000.0
    );
    let share = 100.0 * ratio(t.upcalls_failed, passes);
    let _ = writeln!(out, "  - Lost upcalls:     {:12}  ({share:5.1} %)", t.upcalls_failed);
    let _ = writeln!(
        out,
        "  Tx packets:         {:12}  ({:.0} Kpps)",
        t.tx_packets,
        ratio(t.tx_packets, t.busy_ns) * 1e6
    );
    let per = ratio(t.tx_packets, t.tx_batches);
    let _ = writeln!(out, "  Tx batches:         {:12}  ({per:.2} pkts/batch)", t.tx_batches);
}

/// `dpif-netdev/pmd-sleep-show`.
pub fn pmd_sleep_show(dp: &DpUserspace) -> String {
    let settings = dp.settings();
    let mut out = format!("Default max sleep: {:4} us\n", settings.sleep_us);
    for pmd in dp.pmds(HISTORY_SECS) {
        heading(&mut out, &pmd);
        let _ = writeln!(out, "  max sleep: {:4} us", settings.sleep_of(pmd.core_id));
    }
    out
}
