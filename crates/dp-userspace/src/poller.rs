//! Receiving for one worker: which queues have packets, one batch from each in turn, and surviving a panic.
//!
//! Used by forwarding threads, which wait for descriptors, and by the main loop, which polls dummies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ib_base::vlog::module::DPIF_NETDEV;
use ib_flow::OdpPort;
use ib_netdev::RxQueue;
use ib_packet::Batch;
use ib_packet::buffer::BATCH_MAX;

use crate::drop::DropReason;
use crate::worker::Worker;

/// A receive queue and its port.
pub struct Rx {
    /// Port of entry.
    pub port: OdpPort,
    /// Device name, for messages.
    pub name: String,
    /// Queue.
    pub queue: Box<dyn RxQueue>,
    /// Its packets' keys may enter the exact-match cache.
    pub emc: Arc<AtomicBool>,
}

/// What one look at a queue gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// So many packets.
    Packets(usize),
    /// None there now.
    Empty,
    /// The device will not give any more.
    Broken,
}

/// Takes one batch from `rx` through `worker`. A panic on the way loses the batch, is counted and logged, and nothing else.
pub fn poll(worker: &mut Worker, rx: &mut Rx, batch: &mut Batch) -> Polled {
    debug_assert!(batch.is_empty() && batch.capacity() >= BATCH_MAX);
    let outcome = catch_unwind(AssertUnwindSafe(|| match rx.queue.recv(worker.pool(), batch) {
        Ok(0) => Polled::Empty,
        Ok(n) => {
            worker.set_emc(rx.emc.load(Ordering::Relaxed));
            worker.input(rx.port, batch);
            Polled::Packets(n)
        }
        Err(e) => {
            ib_base::vlog_info_rl!(DPIF_NETDEV, (5, 20), "{}: reception ended ({})", rx.name, e);
            Polled::Broken
        }
    }));
    outcome.unwrap_or_else(|_| {
        let lost = batch.len().max(1) + worker.recover();
        batch.clear();
        worker.shared.drops.add(DropReason::Internal, lost as u64);
        ib_base::vlog_err_rl!(
            DPIF_NETDEV,
            (1, 5),
            "{}: processing a batch panicked; it was dropped",
            rx.name
        );
        Polled::Packets(0)
    })
}
