//! PMD threads: where they are, what they poll, and how busy they are.
//!
//! Ports whose devices want a polling thread belong to [`PmdSet`]. There is one for each core that the settings name, pinned to it
//! ([`thread`]). For dummies (`dummy-pmd`) it is a thread in name: the main loop takes its turns, one after another, so that what a test
//! sends has been processed when it asks; with a worker, caches and counters of its own, as a thread on that core would have. Other
//! kernel devices do not come here: they have forwarding threads that sleep ([`crate::thread`]).
//!
//! [`numa`] knows the cores, [`config`] the settings, [`sched`] decides who polls what. The set is the main thread's.

pub mod config;
pub mod numa;
pub mod sched;
pub mod thread;

use std::sync::Arc;
use std::time::Duration;

use ib_base::time::Instant;
use ib_base::vlog::module::DPIF_NETDEV;
use ib_base::{vlog, vlog_err, vlog_info};
use ib_flow::OdpPort;
use ib_packet::Batch;

use crate::poller::{Polled, Rx};
use crate::stats::{Totals, WorkerStats};
use crate::worker::{Shared, Worker};
use config::Settings;
use numa::{Core, Topology};
use sched::{Queue, Schedule};
use thread::{PmdThread, Rxq};

/// Length of an interval of the load history, in seconds: what `-secs` is rounded up to.
const INTERVAL_SECS: u32 = 5;
/// The same, as a duration.
const INTERVAL: Duration = Duration::from_secs(INTERVAL_SECS as u64);
/// Intervals kept.
const INTERVALS: usize = 12;
/// How long a removal waits for a thread to let go of the device.
const SETTLE: Duration = Duration::from_millis(50);
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
    /// All of them when the last interval was closed.
    seen: u64,
    past: [u64; INTERVALS],
}

impl History {
    fn close(&mut self, all: u64) {
        self.past.rotate_right(1);
        self.past[0] = all.saturating_sub(std::mem::replace(&mut self.seen, all));
    }
    fn sum(&self, intervals: usize) -> u64 {
        self.past.iter().take(intervals).sum()
    }
}

/// A queue and who polls it.
struct PmdRx {
    rxq: Arc<Rxq>,
    /// The main loop takes its turns.
    by_main: bool,
    numa_id: u32,
    pinned: Option<u32>,
    core: Option<u32>,
    busy: History,
}

/// One thread.
struct Pmd {
    core: Core,
    /// For the turns that the main loop takes.
    worker: Worker,
    stats: Arc<WorkerStats>,
    /// For the others, while there are any.
    thread: Option<PmdThread>,
    /// Counters of threads that it had before.
    past: Totals,
    isolated: bool,
    cleared: Totals,
    cleared_at: Instant,
}

impl Pmd {
    fn totals(&self) -> Totals {
        let mut sum = self.stats.read();
        sum.add(&self.past);
        if let Some(thread) = &self.thread {
            sum.add(&thread.stats().read());
        }
        sum
    }
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

    /// Takes a queue of a device on this node; nobody polls it before the next [`Self::reconfigure`]. With `by_main` the main loop
    /// takes its turns.
    pub fn add(&mut self, rx: Rx, numa_id: u32, by_main: bool) {
        let rxq = Arc::new(Rxq::new(rx));
        let at = self.queues.partition_point(|q| (q.rxq.port, q.rxq.qid) <= (rxq.port, rxq.qid));
        self.queues
            .insert(at, PmdRx { rxq, by_main, numa_id, pinned: None, core: None, busy: History::default() });
    }

    /// Drops the queues of a port.
    pub fn remove(&mut self, port: OdpPort) {
        let (mut threads, mut some) = (false, false);
        self.queues.retain(|q| {
            let goes = q.rxq.port == port;
            threads |= goes && !q.by_main;
            some |= goes;
            !goes
        });
        if threads {
            self.hand_out();
            // The device is to be closed when we return.
            self.pmds.iter().filter_map(|p| p.thread.as_ref()).for_each(|t| t.settle(SETTLE));
        }
    }

    /// Tells the threads what to poll. Those that have nothing stop.
    fn hand_out(&mut self) {
        for pmd in &mut self.pmds {
            let mine = self.queues.iter().filter(|q| !q.by_main && q.core == Some(pmd.core.core_id));
            let list: Vec<Arc<Rxq>> = mine.map(|q| Arc::clone(&q.rxq)).collect();
            if list.is_empty() {
                if let Some(thread) = pmd.thread.take() {
                    let stats = Arc::clone(thread.stats());
                    drop(thread);
                    pmd.past.add(&stats.read());
                }
            } else if let Some(thread) = &pmd.thread {
                thread.assign(list);
            }
        }
    }

    fn start_threads(&mut self, shared: &Arc<Shared>, settings: &Settings) {
        for pmd in &mut self.pmds {
            let core = pmd.core.core_id;
            if pmd.thread.is_none() && self.queues.iter().any(|q| !q.by_main && q.core == Some(core)) {
                let stats = Arc::new(WorkerStats::default());
                let worker = Worker::new(shared, &stats, core as usize + 1).on_core(core);
                match PmdThread::spawn(core, worker) {
                    Ok(thread) => pmd.thread = Some(thread),
                    Err(e) => vlog_err!(DPIF_NETDEV, "PMD thread on core id: {core:2} cannot be made ({e})"),
                }
            }
            if let Some(thread) = &pmd.thread {
                thread.set_max_sleep(settings.sleep_of(core));
            }
        }
    }

    /// The threads' longest sleeps, anew.
    pub fn set_sleeps(&self, settings: &Settings) {
        for pmd in &self.pmds {
            if let Some(thread) = &pmd.thread {
                thread.set_max_sleep(settings.sleep_of(pmd.core.core_id));
            }
        }
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
            q.pinned = pin(q.rxq.port, q.rxq.qid);
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
        self.start_threads(shared, settings);
        self.hand_out();
    }

    fn plan(&self, settings: &Settings) -> Schedule {
        let queue = |q: &PmdRx| Queue {
            port: q.rxq.port,
            name: q.rxq.name.clone(),
            qid: q.rxq.qid,
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
                gone.add(&p.totals());
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
            let (cleared, past) = (Totals::default(), Totals::default());
            let (thread, isolated) = (None, false);
            self.pmds.push(Pmd { core: *core, worker, stats, thread, past, isolated, cleared, cleared_at });
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

    /// Takes the turns that are the main loop's; how many packets that moved.
    pub fn run(&mut self, batch: &mut Batch, limit: usize) -> usize {
        let mut total = 0;
        if !self.queues.iter().any(|q| q.by_main) {
            return total;
        }
        for pmd in &mut self.pmds {
            let started = std::time::Instant::now();
            let mut n = 0;
            for q in self.queues.iter().filter(|q| q.by_main && q.core == Some(pmd.core.core_id)) {
                let began = std::time::Instant::now();
                let before = n;
                while n < limit
                    && let Polled::Packets(got) = q.rxq.poll(&mut pmd.worker, batch)
                {
                    // A batch that was lost to a panic counts as progress, too.
                    n += got.max(1);
                }
                if n > before {
                    q.rxq.charge(ns(began.elapsed()));
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
        self.queues.iter_mut().for_each(|q| q.busy.close(q.rxq.busy_ns()));
        self.lengths.rotate_right(1);
        self.lengths[0] = ns(self.began.elapsed()).max(1);
        self.began = std::time::Instant::now();
    }

    /// Counters of all threads that there have been.
    pub fn totals(&self) -> Totals {
        let mut sum = self.gone;
        self.pmds.iter().for_each(|p| sum.add(&p.totals()));
        sum
    }

    /// Starts the displayed counters anew: of the thread on `core`, or of all.
    pub fn clear(&mut self, core: Option<u32>, now: Instant) {
        for pmd in self.pmds.iter_mut().filter(|p| core.is_none_or(|c| c == p.core.core_id)) {
            pmd.cleared = pmd.totals();
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
                    name: q.rxq.name.clone(),
                    qid: q.rxq.qid,
                    usage: (all > 0).then(|| q.busy.sum(intervals) * 100 / all),
                })
                .collect();
            queues.sort_by(|a, b| (&a.name, a.qid).cmp(&(&b.name, b.qid)));
            PmdView {
                numa_id: p.core.numa_id,
                core_id: p.core.core_id,
                isolated: p.isolated,
                totals: p.totals().since(&p.cleared),
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
