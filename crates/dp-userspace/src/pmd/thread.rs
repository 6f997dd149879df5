//! A PMD thread that is one: pinned to its core, it polls its queues in turn.
//!
//! Queues are shared objects ([`Rxq`]) behind a lock that nobody contends for but while they move from one thread to another. A
//! thread works from a list that the main thread replaces ([`PmdThread::assign`]); it looks for a new list between rounds,
//! so that a change never waits for longer than a round.
//!
//! While packets come it polls without a pause. When none have come for a while ([`QUIET`]) and all of its queues have
//! descriptors, it waits for these instead of burning its core: on small machines the main thread needs it. A queue without
//! descriptor is then looked at every [`NAP`]. `pmd-sleep-max` makes it sleep sooner, longer by a microsecond for each round that finds
//! less than half a batch everywhere.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ib_base::vlog::module::DPIF_NETDEV;
use ib_flow::OdpPort;
use ib_packet::buffer::BATCH_MAX;
use ib_sys::eventfd::{Epoll, EventFd};
use parking_lot::Mutex;

use crate::poller::{Polled, Rx, poll};
use crate::stats::WorkerStats;
use crate::worker::Worker;

/// How long after the last packet a thread goes on polling.
const QUIET: Duration = Duration::from_micros(200);
/// How often queues without descriptor are looked at by a thread that has had none to do.
const NAP: Duration = Duration::from_millis(1);
/// Longest wait for descriptors, milliseconds: a safety net, for a change wakes the thread.
const WAIT_MS: i32 = 100;
/// Rounds between two looks at the time while nothing comes.
const IDLE_ROUNDS: u32 = 64;

/// A queue that is polled by whoever has it on his list.
pub struct Rxq {
    /// Port of entry.
    pub port: OdpPort,
    /// Device.
    pub name: String,
    /// Queue of the device.
    pub qid: usize,
    fd: Option<RawFd>,
    rx: Mutex<Rx>,
    busy_ns: AtomicU64,
    broken: AtomicBool,
}

impl Rxq {
    /// Takes charge of a queue.
    pub fn new(rx: Rx) -> Rxq {
        Rxq {
            port: rx.port,
            name: rx.name.clone(),
            qid: rx.queue.queue_id(),
            fd: rx.queue.fd(),
            rx: Mutex::new(rx),
            busy_ns: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// One batch through `worker`.
    pub fn poll(&self, worker: &mut Worker, batch: &mut ib_packet::Batch) -> Polled {
        if self.broken.load(Ordering::Relaxed) {
            return Polled::Broken;
        }
        let polled = poll(worker, &mut self.rx.lock(), batch);
        if polled == Polled::Broken {
            self.broken.store(true, Ordering::Relaxed);
        }
        polled
    }

    /// Time that its packets took, nanoseconds.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed)
    }
    /// Adds to that; by whoever polls it.
    pub fn charge(&self, ns: u64) {
        self.busy_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// What the main thread tells a PMD thread.
struct Orders {
    /// Counts changes of `list`.
    issued: AtomicU64,
    /// The last one taken over.
    taken: AtomicU64,
    list: Mutex<Vec<Arc<Rxq>>>,
    stop: AtomicBool,
    max_sleep_us: AtomicU64,
    wake: EventFd,
}

/// A running thread; dropping it stops the thread.
pub struct PmdThread {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<WorkerStats>,
}

impl PmdThread {
    /// Starts the thread of `core` with its worker.
    pub fn spawn(core: u32, worker: Worker) -> io::Result<PmdThread> {
        let wake = EventFd::new()?;
        let epoll = Epoll::new()?;
        epoll.add(wake.as_raw_fd(), 0)?;
        let orders = Arc::new(Orders {
            issued: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            list: Mutex::default(),
            stop: AtomicBool::new(false),
            max_sleep_us: AtomicU64::new(0),
            wake,
        });
        let stats = Arc::clone(worker.stats());
        let mut body = Body { orders: Arc::clone(&orders), epoll, list: Vec::new(), worker, sleep_us: 0 };
        let thread = std::thread::Builder::new().name(format!("pmd-c{core:02}")).spawn(move || {
            if let Err(e) = ib_sys::cpu::pin_thread(core) {
                // Cores may be made up, or not be ours: it runs where it may.
                ib_base::vlog_warn!(DPIF_NETDEV, "PMD thread on core id: {core:2} cannot be pinned ({e})");
            }
            body.main();
        })?;
        Ok(PmdThread { orders, thread: Some(thread), stats })
    }

    /// Has it poll these queues and no others.
    pub fn assign(&self, list: Vec<Arc<Rxq>>) {
        *self.orders.list.lock() = list;
        self.orders.issued.fetch_add(1, Ordering::Release);
        self.orders.wake.set();
    }

    /// Waits until it has taken over what it was told, `limit` at most: it may be in an upcall that waits for the caller.
    pub fn settle(&self, limit: Duration) {
        let began = Instant::now();
        while self.orders.taken.load(Ordering::Acquire) != self.orders.issued.load(Ordering::Relaxed)
            && began.elapsed() < limit
        {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Longest sleep between rounds that find little, microseconds; 0: none.
    pub fn set_max_sleep(&self, us: u64) {
        self.orders.max_sleep_us.store(us, Ordering::Relaxed);
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }
}

impl Drop for PmdThread {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.assign(Vec::new());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

struct Body {
    orders: Arc<Orders>,
    epoll: Epoll,
    list: Vec<Arc<Rxq>>,
    worker: Worker,
    sleep_us: u64,
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Body {
    fn main(&mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let stats = Arc::clone(self.worker.stats());
        let mut now = Instant::now();
        let mut last_packet = now;
        // Rounds without packets since the time was last looked at: looking costs more than such a round.
        let mut idle_rounds = 0;
        while self.take_orders() {
            let began = now;
            let mut total = 0;
            let mut fullest = 0;
            for q in &self.list {
                if let Polled::Packets(n) = q.poll(&mut self.worker, &mut batch) {
                    let done = Instant::now();
                    q.charge(ns(done - now));
                    now = done;
                    total += n.max(1);
                    fullest = fullest.max(n);
                }
            }
            stats.iterations.add(1);
            if total > 0 {
                stats.busy_iterations.add(1);
                stats.busy_ns.add(ns(now - began));
                last_packet = now;
                idle_rounds = 0;
            } else {
                idle_rounds += 1;
                if idle_rounds % IDLE_ROUNDS == 0 || self.list.is_empty() {
                    now = Instant::now();
                    stats.idle_ns.add(ns(now - began));
                }
            }
            if self.rest(fullest, now - last_packet) {
                let awake = Instant::now();
                stats.sleeps.add(1);
                stats.sleep_ns.add(ns(awake - now));
                now = awake;
            }
        }
    }

    /// Sleeps, if that is what the last round suggests; `quiet` since the last packet. Tells whether it did.
    fn rest(&mut self, fullest: usize, quiet: Duration) -> bool {
        let max = self.orders.max_sleep_us.load(Ordering::Relaxed);
        if max > 0 {
            self.sleep_us = if fullest >= BATCH_MAX / 2 { 0 } else { (self.sleep_us + 1).min(max) };
            if self.sleep_us > 0 {
                std::thread::sleep(Duration::from_micros(self.sleep_us));
                return true;
            }
            return false;
        }
        if fullest > 0 || (quiet < QUIET && !self.list.is_empty()) {
            return false;
        }
        if self.list.iter().all(|q| q.fd.is_some() || q.broken.load(Ordering::Relaxed)) {
            let mut ready = Vec::new();
            if self.epoll.wait(&mut ready, WAIT_MS).is_err() {
                std::thread::sleep(NAP);
            }
            self.orders.wake.clear();
        } else {
            std::thread::sleep(NAP);
        }
        true
    }

    /// Takes over a new list, if there is one; false to stop.
    fn take_orders(&mut self) -> bool {
        let issued = self.orders.issued.load(Ordering::Acquire);
        if issued == self.orders.taken.load(Ordering::Relaxed) {
            return true;
        }
        let new = self.orders.list.lock().clone();
        for fd in self.list.iter().filter_map(|q| q.fd) {
            // One that was closed has left by itself.
            let _ = self.epoll.remove(fd);
        }
        self.list = new;
        for q in &self.list {
            if let Some(fd) = q.fd
                && let Err(e) = self.epoll.add(fd, 1)
            {
                ib_base::vlog_err!(DPIF_NETDEV, "{}: cannot wait for packets ({})", q.name, e);
            }
        }
        self.orders.taken.store(issued, Ordering::Release);
        !self.orders.stop.load(Ordering::Relaxed)
    }
}
