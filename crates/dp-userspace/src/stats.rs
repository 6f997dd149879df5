//! Counters of one worker: written by the thread that runs it, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// Counters of one worker.
        #[derive(Debug, Default)]
        pub struct WorkerStats { $($(#[$doc])* pub $field: Cell),* }

        /// Counters at one time.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $field: u64),* }

        impl WorkerStats {
            /// Values now.
            pub fn read(&self) -> Totals {
                Totals { $($field: self.$field.get()),* }
            }
            /// Takes over the counts of a worker that has gone. By the owner's thread or while it stands still.
            pub fn absorb(&self, gone: &Totals) {
                $(self.$field.add(gone.$field);)*
            }
        }
        impl Totals {
            /// Adds those of another worker.
            pub fn add(&mut self, other: &Totals) {
                $(self.$field += other.$field;)*
            }
            /// What came since `base`.
            pub fn since(&self, base: &Totals) -> Totals {
                Totals { $($field: self.$field.saturating_sub(base.$field)),* }
            }
        }
    };
}

counters! {
    /// Packets received.
    received,
    /// Packets looked up again after recirculation.
    recirculated,
    /// Hits of ports all of whose flows are simple.
    simple_hits,
    /// Hits in the exact-match cache.
    emc_hits,
    /// Hits in the signature cache.
    smc_hits,
    /// Hits in the classifier.
    megaflow_hits,
    /// Subtables that those hits looked at.
    megaflow_probes,
    /// Misses that the control plane answered.
    upcalls_ok,
    /// Misses that nobody answered.
    upcalls_failed,
    /// Nanoseconds in the control plane, answering misses.
    upcall_ns,
    /// Batches sent.
    tx_batches,
    /// Packets sent.
    tx_packets,
    /// Turns of the loop.
    iterations,
    /// Those that moved packets.
    busy_iterations,
    /// Times slept.
    sleeps,
    /// Nanoseconds spent moving packets.
    busy_ns,
    /// Nanoseconds spent otherwise, sleep excluded.
    idle_ns,
    /// Nanoseconds slept.
    sleep_ns,
}

impl Totals {
    /// Packets that matched a flow.
    pub fn hits(&self) -> u64 {
        self.simple_hits + self.emc_hits + self.smc_hits + self.megaflow_hits
    }
    /// Packets that matched none.
    pub fn misses(&self) -> u64 {
        self.upcalls_ok + self.upcalls_failed
    }
}

/// A counter with one writer at a time: an addition is a load and a store, not a locked one.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; by the worker's thread only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
    /// Value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
