//! The thread that speaks with front-ends: sockets of all vhost-user ports, nothing of their traffic.
//!
//! It sleeps until a socket has something to say, or a port without a front-end is to try again. It ends with the last
//! port's [`Events`].

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use ib_sys::eventfd::{Epoll, EventFd};
use parking_lot::Mutex;

use super::port::Port;

/// How often a port without a front-end looks for one, ms.
const RETRY_MS: i32 = 250;
const WAKE: u64 = u64::MAX;

/// What ports and the thread share.
pub struct Inner {
    pub(super) epoll: Epoll,
    wake: EventFd,
    stop: AtomicBool,
    next: AtomicU64,
    ports: Mutex<HashMap<u64, Weak<Port>>>,
}

/// The running thread; dropping it ends the thread.
pub struct Events {
    pub(super) inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Starts it.
    pub fn new() -> io::Result<Events> {
        let inner = Arc::new(Inner {
            epoll: Epoll::new()?,
            wake: EventFd::new()?,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            ports: Mutex::default(),
        });
        inner.epoll.add(inner.wake.as_raw_fd(), WAKE)?;
        let body = Arc::clone(&inner);
        let thread =
            std::thread::Builder::new().name("vhost_events".to_owned()).spawn(move || body.main())?;
        Ok(Events { inner, thread: Some(thread) })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Release);
        self.inner.wake.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// A number for a new port: its token, too.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on the thread looks after the port.
    pub fn watch(&self, number: u64, port: Weak<Port>) {
        self.ports.lock().insert(number, port);
        self.wake.set();
    }

    /// A port has something to do.
    pub fn watch_again(&self) {
        self.wake.set();
    }

    /// No more.
    pub fn forget(&self, number: u64) {
        self.ports.lock().remove(&number);
    }

    fn main(&self) {
        let mut ready = Vec::new();
        let mut searching = false;
        while !self.stop.load(Ordering::Acquire) {
            ready.clear();
            if self.epoll.wait(&mut ready, if searching { RETRY_MS } else { -1 }).is_err() {
                return;
            }
            self.wake.clear();
            let ports: Vec<(u64, Weak<Port>)> =
                self.ports.lock().iter().map(|(n, p)| (*n, Weak::clone(p))).collect();
            searching = false;
            for (number, port) in ports {
                if let Some(port) = port.upgrade() {
                    searching |= port.run(ready.contains(&number));
                }
            }
        }
    }
}
