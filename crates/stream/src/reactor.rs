//! The loop that a daemon lives in: waits for descriptors, wake-ups and deadlines.
//!
//! One thread owns the [`Reactor`]; it calls [`Reactor::wait`] with the earliest deadline of all its machines and is told
//! the [`Key`]s of those that have something to do. Everything else holds a [`Handle`], a cheap clone that registers
//! descriptors under a key and wakes the loop from any thread. A key is an owner's, not a descriptor's: a session keeps
//! its key over reconnections, and an event for a key means no more than "look after this machine".
//!
//! Descriptors are edge-triggered: a machine reads and writes until it is told to wait. One that stops early, to be
//! fair to others, calls [`Handle::wake`] with its own key. The cost of a wait is in proportion to the ready keys.
//!
//! Time is the clock's: on a stopped clock a future deadline waits for an event or for the clock to be moved, which
//! wakes the loop.

use std::collections::HashSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ib_base::coverage;
use ib_base::linger::Linger;
use ib_base::time::{Clock, Instant};
use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

/// Names a machine to its reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(pub usize);

/// The key of the signal descriptor; see [`Reactor::watch_signals`].
pub const SIGNALS: Key = Key(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);

struct Shared {
    registry: Registry,
    waker: Waker,
    pending: Mutex<HashSet<Key>>,
    next_key: AtomicUsize,
    clock: Clock,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_loop(&self) {
        // The waker's eventfd is only full when a wake-up waits already.
        let _ = self.waker.wake();
    }
}

/// The way to a reactor for all who are not the loop.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// A key that nobody else has.
    pub fn new_key(&self) -> Key {
        Key(self.0.next_key.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes the loop look after `key` soon. Callable from any thread.
    pub fn wake(&self, key: Key) {
        if self.0.pending().insert(key) {
            self.0.wake_loop();
        }
    }

    /// The daemon's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// Watches `source` for `key`.
    pub fn register(&self, source: &mut impl Source, key: Key, interest: Interest) -> io::Result<()> {
        self.0.registry.register(source, Token(key.0), interest)
    }

    /// Watches `source`, which is watched already, for something else. What is the case already counts as new.
    pub fn reregister(&self, source: &mut impl Source, key: Key, interest: Interest) -> io::Result<()> {
        self.0.registry.reregister(source, Token(key.0), interest)
    }

    /// No longer watches `source`. Dropping a socket does as much.
    pub fn deregister(&self, source: &mut impl Source) -> io::Result<()> {
        self.0.registry.deregister(source)
    }

    /// Watches a descriptor, of another crate's making, for input, for `key`. Edge-triggered as all.
    pub fn register_fd(&self, fd: RawFd, key: Key) -> io::Result<()> {
        self.0.registry.register(&mut mio::unix::SourceFd(&fd), Token(key.0), Interest::READABLE)
    }

    /// No longer watches a descriptor.
    pub fn deregister_fd(&self, fd: RawFd) -> io::Result<()> {
        self.0.registry.deregister(&mut mio::unix::SourceFd(&fd))
    }
}

/// The loop's own part.
pub struct Reactor {
    poll: Poll,
    events: Events,
    handle: Handle,
    ready: Vec<Key>,
    linger: Linger,
    /// Kept for its life: the clock holds a weak reference.
    _on_move: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reactor")
    }
}

impl Reactor {
    /// A reactor on `clock`. Made after any fork.
    pub fn new(clock: &Clock) -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKER)?,
            pending: Mutex::new(HashSet::new()),
            next_key: AtomicUsize::new(1),
            clock: clock.clone(),
        });
        let weak = Arc::downgrade(&shared);
        let on_move: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.wake_loop();
            }
        });
        clock.on_move(&on_move);
        Ok(Reactor {
            poll,
            events: Events::with_capacity(256),
            handle: Handle(shared),
            ready: Vec::new(),
            linger: Linger::default(),
            _on_move: on_move,
        })
    }

    /// A handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Has [`Reactor::wait`] end the process when a fatal signal arrives, and wake up with key [`SIGNALS`] for others.
    pub fn watch_signals(&self) -> io::Result<()> {
        match ib_sys::signal::fd() {
            Some(fd) => self.handle.register_fd(fd, SIGNALS),
            None => Err(io::Error::other("signals are not set up")),
        }
    }

    /// Waits until a machine has something to do, a wake-up comes or `deadline` passes, and returns the keys of the
    /// machines, each once, unordered. An empty answer is no surprise: time may have moved.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<&[Key]> {
        self.ready.clear();
        ib_base::replay::next_turn();
        let timeout = if self.handle.0.pending().is_empty() {
            self.handle.0.clock.timeout(deadline)
        } else {
            Some(Duration::ZERO)
        };
        if timeout.is_some_and(|t| t.is_zero()) {
            coverage::poll_zero_timeout.inc();
        }
        match self.poll(timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(e) => return Err(e),
        }
        let mut pending = self.handle.0.pending();
        self.ready.extend(pending.drain());
        drop(pending);
        for event in &self.events {
            if event.token() == WAKER {
                continue;
            }
            let key = Key(event.token().0);
            if key == SIGNALS {
                ib_sys::signal::check();
            }
            self.ready.push(key);
        }
        self.ready.sort_unstable();
        self.ready.dedup();
        Ok(&self.ready)
    }

    /// Waits for events, at first awake where events have come quickly of late.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|t| t.is_zero()) {
            return self.poll.poll(&mut self.events, timeout);
        }
        let began = std::time::Instant::now();
        let look = timeout.map_or(self.linger.time(), |t| t.min(self.linger.time()));
        loop {
            let quiet = began.elapsed();
            if quiet >= look {
                break;
            }
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
            if !self.linger.pause() {
                break;
            }
        }
        let began = std::time::Instant::now();
        self.poll.poll(&mut self.events, timeout.map(|t| t.saturating_sub(look)))?;
        if !self.events.is_empty() {
            self.linger.learn(began.elapsed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_and_deadlines() {
        let clock = Clock::new();
        let mut reactor = Reactor::new(&clock).unwrap();
        let handle = reactor.handle().clone();
        let key = handle.new_key();
        let thread = std::thread::spawn(move || handle.wake(key));
        assert_eq!(reactor.wait(None).unwrap(), [key]);
        thread.join().unwrap();
        let start = clock.now();
        while clock.now() < start.plus_ms(10) {
            assert!(reactor.wait(Some(start.plus_ms(10))).unwrap().is_empty());
        }
        clock.stop();
        let deadline = clock.now().plus_ms(1_000);
        let warper = clock.clone();
        let thread = std::thread::spawn(move || warper.warp(1_000));
        while clock.now() < deadline {
            reactor.wait(Some(deadline)).unwrap();
        }
        thread.join().unwrap();
    }
}
