//! PMD threads: where they are, what they poll, and how busy they are.
//!
//! Ports whose devices want a polling thread (`dummy-pmd`) belong to [`PmdSet`]. Its threads are threads in name: the main loop takes
//! their turns, one after another, so that what a test sends has been processed when it asks. Each has a worker, with caches and
//! counters of its own, as a thread on that core would. Kernel devices do not come here: they have forwarding threads that sleep
//! ([`crate::thread`]).
//!
//! [`numa`] knows the cores, [`config`] the settings, [`sched`] decides who polls what. The set is the main thread's.

pub mod config;
pub mod numa;
pub mod sched;

use std::sync::Arc;
use std::time::Duration;

use ib_base::time::Instant;
use ib_base::vlog::module::DPIF_NETDEV;
use ib_base::{vlog, vlog_info};
use ib_flow::OdpPort;
use ib_packet::Batch;

use crate::poller::{Polled, Rx, poll};
use crate::stats::{Totals, WorkerStats};
use crate::worker::{Shared, Worker};
use config::Settings;
use numa::{Core, Topology};
use sched::{Queue, Schedule};

/// Length of an interval of the load history, in seconds: what `-secs` is rounded up to.
const INTERVAL_SECS: u32 = 5;
/// The same, as a duration.
const INTERVAL: Duration = Duration::from_secs(INTERVAL_SECS as u64);
/// Intervals kept.
const INTERVALS: usize = 12;
/// Seconds that the load history goes back.
pub const HISTORY_SECS: u32 = 60;
const _: () = assert!(INTERVALS as u32 * INTERVAL_SECS == HISTORY_SECS);

/// The seconds of history that are shown to one who asks for `secs`: whole intervals; all of it for 0 or too many.
pub fn shown_secs(secs: u32) -> u32 {
    match secs {
        1..HISTORY_SECS => secs.next_multiple_of(INTERVAL_SECS),
        _ => HISTORY_SECS,
    }
}

/// Busy nanoseconds of the last intervals, the latest first.
#[derive(Debug, Clone, Default)]
struct History {
    now: u64,
    past: [u64; INTERVALS],
}

impl History {
    fn close(&mut self) {
        self.past.rotate_right(1);
        self.past[0] = std::mem::take(&mut self.now);
    }
    fn sum(&self, intervals: usize) -> u64 {
        self.past.iter().take(intervals).sum()
    }
}

/// A queue and who polls it.
struct PmdRx {
    rx: Rx,
    numa_id: u32,
    pinned: Option<u32>,
    core: Option<u32>,
    busy: History,
}

/// One thread.
struct Pmd {
    core: Core,
    worker: Worker,
    stats: Arc<WorkerStats>,
    isolated: bool,
    cleared: Totals,
    cleared_at: Instant,
}

/// A queue, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxqView {
    /// Device.
    pub name: String,
    /// Queue of the device.
    pub qid: usize,
    /// Share of its thread's time, percent.
    pub usage: Option<u64>,
}

/// A PMD thread, for display.
#[derive(Debug, Clone)]
pub struct PmdView {
    /// NUMA node.
    pub numa_id: u32,
    /// CPU core.
    pub core_id: u32,
    /// Pinned queues have it for themselves.
    pub isolated: bool,
    /// Counters since they were cleared.
    pub totals: Totals,
    /// When that was.
    pub cleared_at: Instant,
    /// What it polls, by device and queue.
    pub queues: Vec<RxqView>,
}

/// The PMD threads of a datapath.
pub struct PmdSet {
    topology: Arc<Topology>,
    queues: Vec<PmdRx>,
    pmds: Vec<Pmd>,
    /// Counters of threads that have gone.
    gone: Totals,
    interval_ends: Instant,
    /// Real time when the interval under way began, and lengths of those before it in nanoseconds.
    began: std::time::Instant,
    lengths: [u64; INTERVALS],
}

impl PmdSet {
    /// No thread yet.
    pub fn new(topology: Arc<Topology>, now: Instant) -> PmdSet {
        PmdSet {
            topology,
            queues: Vec::new(),
            pmds: Vec::new(),
            gone: Totals::default(),
            interval_ends: now + INTERVAL,
            began: std::time::Instant::now(),
            lengths: [0; INTERVALS],
        }
    }

    /// Other cores. Before there is a thread.
    pub fn set_topology(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
    }

    /// Takes a queue of a device on this node; nobody polls it before the next [`Self::reconfigure`].
    pub fn add(&mut self, rx: Rx, numa_id: u32) {
        let key = |q: &PmdRx| (q.rx.port, q.rx.queue.queue_id());
        let at = self.queues.partition_point(|q| key(q) <= (rx.port, rx.queue.queue_id()));
        self.queues.insert(at, PmdRx { rx, numa_id, pinned: None, core: None, busy: History::default() });
    }

    /// Drops the queues of a port.
    pub fn remove(&mut self, port: OdpPort) {
        self.queues.retain(|q| q.rx.port != port);
    }

    /// No queue at all.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Makes threads and their queues what `settings` say. `pin` tells the core that a queue of a port is pinned to.
    pub fn reconfigure(
        &mut self,
        shared: &Arc<Shared>,
        settings: &Settings,
        pin: &dyn Fn(OdpPort, usize) -> Option<u32>,
    ) {
        self.place_threads(shared, settings);
        for q in &mut self.queues {
            q.pinned = pin(q.rx.port, q.rx.queue.queue_id());
        }
        let plan = self.plan(settings);
        for (level, text) in &plan.log {
            vlog!(DPIF_NETDEV, *level, "{text}");
        }
        for (q, core) in self.queues.iter_mut().zip(&plan.cores) {
            q.core = *core;
        }
        for pmd in &mut self.pmds {
            pmd.isolated = plan.isolated.contains(&pmd.core.core_id);
        }
    }

    fn plan(&self, settings: &Settings) -> Schedule {
        let queue = |q: &PmdRx| Queue {
            port: q.rx.port,
            name: q.rx.name.clone(),
            qid: q.rx.queue.queue_id(),
            numa_id: q.numa_id,
            cycles: q.busy.sum(INTERVALS),
            pinned: q.pinned,
        };
        let queues: Vec<Queue> = self.queues.iter().map(queue).collect();
        let cores: Vec<Core> = self.pmds.iter().map(|p| p.core).collect();
        sched::schedule(&queues, &cores, settings.assign, settings.isolate)
    }

    fn place_threads(&mut self, shared: &Arc<Shared>, settings: &Settings) {
        let wanted = match &settings.cpu_mask {
            _ if self.queues.is_empty() => Vec::new(),
            Some(mask) => self.topology.in_mask(mask),
            None => self.topology.one_per_node(),
        };
        let before: Vec<Core> = self.pmds.iter().map(|p| p.core).collect();
        if before == wanted {
            return;
        }
        let gone = &mut self.gone;
        self.pmds.retain(|p| {
            let stays = wanted.contains(&p.core);
            if !stays {
                gone.add(&p.stats.read());
                let Core { numa_id, core_id } = p.core;
                vlog_info!(DPIF_NETDEV, "PMD thread on numa_id: {numa_id}, core id: {core_id:2} destroyed.");
            }
            stays
        });
        for core in wanted.iter().filter(|c| !before.contains(c)) {
            let stats = Arc::new(WorkerStats::default());
            let qid = core.core_id as usize + 1;
            let worker = Worker::new(shared, &stats, qid).on_core(core.core_id);
            let cleared_at = shared.clock.now();
            let (cleared, isolated) = (Totals::default(), false);
            self.pmds.push(Pmd { core: *core, worker, stats, isolated, cleared, cleared_at });
            let Core { numa_id, core_id } = core;
            vlog_info!(DPIF_NETDEV, "PMD thread on numa_id: {numa_id}, core id: {core_id:2} created.");
        }
        self.pmds.sort_by_key(|p| p.core.core_id);
        let mut nodes: Vec<u32> = wanted.iter().map(|c| c.numa_id).collect();
        nodes.sort_unstable();
        for node in nodes.chunk_by(|a, b| a == b) {
            vlog_info!(DPIF_NETDEV, "There are {} pmd threads on numa node {}", node.len(), node[0]);
        }
    }

    /// Takes everybody's turn; how many packets that moved.
    pub fn run(&mut self, batch: &mut Batch, limit: usize) -> usize {
        let mut total = 0;
        for pmd in &mut self.pmds {
            let started = std::time::Instant::now();
            let mut n = 0;
            for q in self.queues.iter_mut().filter(|q| q.core == Some(pmd.core.core_id)) {
                let began = std::time::Instant::now();
                let before = n;
                while n < limit
                    && let Polled::Packets(got) = poll(&mut pmd.worker, &mut q.rx, batch)
                {
                    // A batch that was lost to a panic counts as progress, too.
                    n += got.max(1);
                }
                if n > before {
                    q.busy.now += ns(began.elapsed());
                }
            }
            pmd.stats.iterations.add(1);
            if n > 0 {
                pmd.stats.busy_iterations.add(1);
                pmd.stats.busy_ns.add(ns(started.elapsed()));
            } else {
                pmd.stats.idle_ns.add(ns(started.elapsed()));
            }
            total += n;
        }
        total
    }

    /// Closes an interval of the load history when its time has come.
    pub fn keep_history(&mut self, now: Instant) {
        if now < self.interval_ends {
            return;
        }
        self.interval_ends = now + INTERVAL;
        self.queues.iter_mut().for_each(|q| q.busy.close());
        self.lengths.rotate_right(1);
        self.lengths[0] = ns(self.began.elapsed()).max(1);
        self.began = std::time::Instant::now();
    }

    /// Counters of all threads that there have been.
    pub fn totals(&self) -> Totals {
        let mut sum = self.gone;
        self.pmds.iter().for_each(|p| sum.add(&p.stats.read()));
        sum
    }

    /// Starts the displayed counters anew: of the thread on `core`, or of all.
    pub fn clear(&mut self, core: Option<u32>, now: Instant) {
        for pmd in self.pmds.iter_mut().filter(|p| core.is_none_or(|c| c == p.core.core_id)) {
            pmd.cleared = pmd.stats.read();
            pmd.cleared_at = now;
        }
    }

    /// The threads, by core, with their load over the last `secs` seconds.
    pub fn views(&self, secs: u32) -> Vec<PmdView> {
        let intervals = usize::try_from(secs.div_ceil(INTERVAL_SECS)).unwrap_or(INTERVALS).min(INTERVALS);
        let all: u64 = self.lengths.iter().take(intervals).sum();
        let view = |p: &Pmd| {
            let mine = self.queues.iter().filter(|q| q.core == Some(p.core.core_id));
            let mut queues: Vec<RxqView> = mine
                .map(|q| RxqView {
                    name: q.rx.name.clone(),
                    qid: q.rx.queue.queue_id(),
                    usage: (all > 0).then(|| q.busy.sum(intervals) * 100 / all),
                })
                .collect();
            queues.sort_by(|a, b| (&a.name, a.qid).cmp(&(&b.name, b.qid)));
            PmdView {
                numa_id: p.core.numa_id,
                core_id: p.core.core_id,
                isolated: p.isolated,
                totals: p.stats.read().since(&p.cleared),
                cleared_at: p.cleared_at,
                queues,
            }
        };
        self.pmds.iter().map(view).collect()
    }

    /// Says in the log how long the threads may sleep.
    pub fn log_sleeps(&self, settings: &Settings) {
        vlog_info!(DPIF_NETDEV, "Default PMD thread max sleep: {:4} us.", settings.sleep_us);
        for Core { numa_id, core_id } in self.pmds.iter().map(|p| p.core) {
            let us = settings.sleep_of(core_id);
            vlog_info!(
                DPIF_NETDEV,
                "PMD thread on numa_id: {numa_id}, core id: {core_id:2}, max sleep: {us:4} us."
            );
        }
    }
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::shown_secs;

    #[test]
    fn history_is_shown_in_whole_intervals() {
        let shown = [0, 1, 5, 6, 11, 58, 60, 61, u32::MAX].map(shown_secs);
        assert_eq!(shown, [60, 5, 5, 10, 15, 60, 60, 60, 60]);
    }
}
