//! Forwarding threads.
//!
//! A thread owns a worker and receive queues. It sleeps in the poller until a queue's descriptor becomes readable, then takes
//! batches from the ready queues in turn until they are empty. While packets come densely it goes on looking for a while
//! before it sleeps again ([`Linger`]): to wake a halted processor costs tens of microseconds. Idle, it costs nothing.
//!
//! Misses are answered by the thread that met them, so a port flooded with new flows would take the time of the others. Each queue
//! has a share (`Share`): what its misses took beyond that it waits for, while others have packets.
//!
//! Queues come and go by messages; the thread takes them between batches, so that a change never waits for longer than a batch.
//! A queue without descriptor is looked at every millisecond while nothing else happens.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ib_base::vlog::module::DPIF_NETDEV;
use ib_flow::OdpPort;
use ib_packet::buffer::BATCH_MAX;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

use ib_base::linger::Linger;

use crate::poller::{Polled, Rx, poll};
use crate::stats::WorkerStats;
use crate::worker::{Shared, Worker};

const WAKER: Token = Token(usize::MAX);
/// How often queues without descriptor are looked at when idle.
const NAP: Duration = Duration::from_millis(1);
/// A queue's claim to time for misses: a debt that it pays by waiting.
///
/// In each round a queue may spend [`Share::QUANTUM_NS`] on misses. What it spends beyond is its debt, paid off by as much in each
/// round that it sits out. It sits out only while another queue is ready, so that no time is wasted; and for a bounded number of
/// rounds. Packets that hit a flow owe nothing.
#[derive(Debug, Default)]
struct Share {
    debt_ns: u64,
}

impl Share {
    /// Some ten misses.
    const QUANTUM_NS: u64 = 100_000;
    /// Longest wait, in rounds.
    const MAX_ROUNDS: u64 = 20;

    /// Whether the queue has its turn; `others`: another one is ready.
    fn may_go(&mut self, others: bool) -> bool {
        if !others || self.debt_ns < Self::QUANTUM_NS {
            return true;
        }
        self.debt_ns -= Self::QUANTUM_NS;
        false
    }

    /// Misses of a turn took so long.
    fn charge(&mut self, ns: u64) {
        let owed = self.debt_ns.saturating_add(ns).saturating_sub(Self::QUANTUM_NS);
        self.debt_ns = owed.min(Self::MAX_ROUNDS * Self::QUANTUM_NS);
    }
}

enum Message {
    Add(Rx),
    /// Drops the queues of a port, then tells.
    Remove(OdpPort, SyncSender<()>),
    Stop,
}

/// A running thread, as others see it. Dropping it stops the thread.
pub struct Forwarder {
    inbox: Arc<Mutex<Vec<Message>>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<WorkerStats>,
}

impl Forwarder {
    /// Starts thread number `index`.
    pub fn spawn(shared: &Arc<Shared>, index: usize) -> io::Result<Forwarder> {
        let poller = Poll::new()?;
        let waker = Arc::new(Waker::new(poller.registry(), WAKER)?);
        let inbox = Arc::new(Mutex::new(Vec::new()));
        let stats = Arc::new(WorkerStats::default());
        let mut body = Body {
            poller,
            inbox: Arc::clone(&inbox),
            queues: Vec::new(),
            stats: Arc::clone(&stats),
            worker: Worker::new(shared, &stats, index + 1),
            linger: Linger::default(),
        };
        let thread =
            std::thread::Builder::new().name(format!("pmd-c{index:02}")).spawn(move || body.main())?;
        Ok(Forwarder { inbox, waker, thread: Some(thread), stats })
    }

    fn send(&self, message: Message) {
        self.inbox.lock().push(message);
        // An eventfd that cannot be written is one that is set already.
        let _ = self.waker.wake();
    }

    /// Hands it a queue.
    pub fn add(&self, rx: Rx) {
        self.send(Message::Add(rx));
    }

    /// Has it drop the queues of a port; the receiver gets word when that is done.
    pub fn remove(&self, port: OdpPort, done: SyncSender<()>) {
        self.send(Message::Remove(port, done));
    }

    /// Counters of its worker.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that drops its own datapath cannot wait for itself; it stops all the same.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

struct Slot {
    rx: Rx,
    ready: bool,
    share: Share,
}

impl Slot {
    /// There may be packets.
    fn is_due(&self) -> bool {
        self.ready || self.rx.queue.fd().is_none()
    }
}

struct Body {
    poller: Poll,
    inbox: Arc<Mutex<Vec<Message>>>,
    /// Index is the token. `None` is free.
    queues: Vec<Option<Slot>>,
    stats: Arc<WorkerStats>,
    worker: Worker,
    linger: Linger,
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Body {
    fn main(&mut self) {
        let mut events = Events::with_capacity(256);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut since = Instant::now();
        let mut last_packet = since;
        loop {
            // Each round: a queue that has just become readable, with the acknowledgements of a bulk transfer on another one
            // perhaps, must not wait for that one to run dry.
            self.wait(&mut events, since - last_packet, &mut since);
            if !self.take_messages() {
                return;
            }
            let n = self.round(&mut batch);
            let now = Instant::now();
            self.stats.iterations.add(1);
            if n > 0 {
                self.stats.busy_iterations.add(1);
                self.stats.busy_ns.add(ns(now - since));
            } else {
                self.stats.idle_ns.add(ns(now - since));
            }
            since = now;
            if n > 0 {
                last_packet = now;
            }
        }
    }

    /// Looks at the descriptors; sleeps if there has been nothing for long enough (`quiet` since the last packet).
    fn wait(&mut self, events: &mut Events, quiet: Duration, since: &mut Instant) {
        let mut lingers = quiet < self.linger.time();
        if lingers && !quiet.is_zero() {
            lingers = self.linger.pause();
        }
        let timeout = if lingers { Some(Duration::ZERO) } else { self.sleep_for() };
        let may_sleep = timeout != Some(Duration::ZERO);
        if let Err(e) = self.poller.poll(events, timeout)
            && e.kind() != io::ErrorKind::Interrupted
        {
            ib_base::vlog_err_rl!(DPIF_NETDEV, (1, 5), "poll failed ({})", e);
            std::thread::sleep(NAP);
        }
        if may_sleep {
            let now = Instant::now();
            self.stats.sleeps.add(1);
            self.stats.sleep_ns.add(ns(now - *since));
            self.linger.learn(now - *since);
            *since = now;
        }
        for event in events.iter() {
            if let Some(slot) = self.queues.get_mut(event.token().0).and_then(Option::as_mut) {
                slot.ready = true;
            }
        }
    }

    /// One batch from each ready queue; how many packets.
    fn round(&mut self, batch: &mut Vec<ib_packet::Packet>) -> usize {
        let mut total = 0;
        let others = self.queues.iter().flatten().filter(|s| s.is_due()).count() > 1;
        for at in 0..self.queues.len() {
            let Some(slot) = &mut self.queues[at] else { continue };
            if !slot.is_due() || !slot.share.may_go(others) {
                continue;
            }
            let before = self.stats.upcall_ns.get();
            let polled = poll(&mut self.worker, &mut slot.rx, batch);
            slot.share.charge(self.stats.upcall_ns.get() - before);
            match polled {
                Polled::Packets(n) => {
                    total += n;
                    // No descriptor tells that there is more.
                    slot.ready = true;
                }
                Polled::Empty => slot.ready = false,
                Polled::Broken => self.forget(at),
            }
        }
        total
    }

    fn sleep_for(&self) -> Option<Duration> {
        let mut slots = self.queues.iter().flatten();
        if slots.clone().any(|s| s.ready) {
            Some(Duration::ZERO)
        } else {
            slots.any(|s| s.rx.queue.fd().is_none()).then_some(NAP)
        }
    }

    fn forget(&mut self, at: usize) {
        if let Some(slot) = self.queues[at].take()
            && let Some(fd) = slot.rx.queue.fd()
        {
            // Closing it takes it out of the poller in any case.
            let _ = self.poller.registry().deregister(&mut SourceFd(&fd));
        }
    }

    /// False to stop.
    fn take_messages(&mut self) -> bool {
        let messages = {
            let mut inbox = self.inbox.lock();
            if inbox.is_empty() {
                return true;
            }
            std::mem::take(&mut *inbox)
        };
        for message in messages {
            match message {
                Message::Add(rx) => self.adopt(rx),
                Message::Remove(port, done) => {
                    for at in 0..self.queues.len() {
                        if self.queues[at].as_ref().is_some_and(|s| s.rx.port == port) {
                            self.forget(at);
                        }
                    }
                    // Who asked may have stopped waiting.
                    let _ = done.try_send(());
                }
                Message::Stop => return false,
            }
        }
        true
    }

    fn adopt(&mut self, rx: Rx) {
        let at = self.queues.iter().position(Option::is_none).unwrap_or_else(|| {
            self.queues.push(None);
            self.queues.len() - 1
        });
        if let Some(fd) = rx.queue.fd()
            && let Err(e) = self.poller.registry().register(&mut SourceFd(&fd), Token(at), Interest::READABLE)
        {
            ib_base::vlog_err!(DPIF_NETDEV, "{}: cannot wait for packets ({})", rx.name, e);
            return;
        }
        // What came before the registration raises no event.
        self.queues[at] = Some(Slot { rx, ready: true, share: Share::default() });
    }
}

/// A way to say "done", for callers of [`Forwarder::remove`].
pub fn done_channel(n: usize) -> (SyncSender<()>, std::sync::mpsc::Receiver<()>) {
    std::sync::mpsc::sync_channel(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooded_queue_waits_for_the_others_and_for_nobody_else() {
        let mut flooded = Share::default();
        // 32 misses of 10 us: three quanta, of which one is its own.
        flooded.charge(320_000);
        let turns: Vec<bool> = (0..4).map(|_| flooded.may_go(true)).collect();
        assert_eq!(turns, [false, false, true, true]);
        flooded.charge(320_000);
        assert!(flooded.may_go(false), "nobody else is ready");
        flooded.charge(u64::MAX);
        assert_eq!((0..100).filter(|_| !flooded.may_go(true)).count(), 20, "the wait is bounded");
        let mut quiet = Share::default();
        quiet.charge(50_000);
        assert!(quiet.may_go(true), "a few misses are free");
    }
}
