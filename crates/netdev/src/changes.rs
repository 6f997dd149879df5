//! The notifier that all devices of a registry share: "something changed", without saying what.
//!
//! Each device has its own sequence number ([`crate::Netdev::change_seq`]); this one counts all changes
//! and wakes the one reactor that watches. Any thread may bump; the cost of a bump is an increment and,
//! for the first since the watcher looked, one system call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ib_sys::eventfd::EventFd;

/// Change counter of a registry, with a descriptor to wait for.
#[derive(Debug)]
pub struct Changes {
    seq: AtomicU64,
    pending: AtomicBool,
    event: EventFd,
}

impl Changes {
    /// A fresh one, nothing changed yet.
    pub fn new() -> io::Result<Changes> {
        Ok(Changes { seq: AtomicU64::new(1), pending: AtomicBool::new(false), event: EventFd::new()? })
    }

    /// Something changed.
    pub fn bump(&self) {
        self.seq.fetch_add(1, Ordering::Release);
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.event.set();
        }
    }

    /// Counts changes; never 0.
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Readable after a change until [`Self::acknowledge`].
    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Clears the wake-up; tells whether anything had changed since the last time.
    pub fn acknowledge(&self) -> bool {
        // The flag goes down before whoever watches looks at the devices: a change from now on wakes again.
        self.event.clear();
        self.pending.swap(false, Ordering::AcqRel)
    }
}

/// Sequence number of one device, tied to its registry's notifier.
#[derive(Debug)]
pub struct DeviceSeq {
    seq: AtomicU64,
    all: std::sync::Arc<Changes>,
}

impl DeviceSeq {
    /// Starts at 1 and announces the device.
    pub fn new(all: &std::sync::Arc<Changes>) -> DeviceSeq {
        all.bump();
        DeviceSeq { seq: AtomicU64::new(1), all: all.clone() }
    }
    /// The device changed.
    pub fn bump(&self) {
        self.seq.fetch_add(1, Ordering::Release);
        self.all.bump();
    }
    /// The number.
    pub fn read(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_wakes_once_until_acknowledged() {
        let c = Changes::new().unwrap();
        assert!(!c.acknowledge());
        let before = c.seq();
        c.bump();
        c.bump();
        assert_eq!(c.seq(), before + 2);
        assert!(c.acknowledge());
        assert!(!c.acknowledge());
    }
}
