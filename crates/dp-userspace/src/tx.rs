//! A worker's transmit queues: packets on their way out, a batch a port.
//!
//! Ports are looked up when a batch leaves, weakly: a port that was removed takes its queued packets along, and a new one under
//! the same number is found.

use std::sync::{Arc, Weak};

use ib_flow::OdpPort;
use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Packet};

use crate::drop::DropReason;
use crate::ports::{MAX_PORTS, Port};
use crate::stats::WorkerStats;
use crate::worker::Shared;

/// Longest frame that a port takes.
#[derive(Clone, Copy, Default)]
enum Room {
    #[default]
    Unknown,
    Known(Option<usize>),
}

#[derive(Default)]
struct Queue {
    port: Weak<Port>,
    /// As of the last batch.
    room: Room,
    batch: Batch,
    dirty: bool,
}

/// See the module.
pub struct TxQueues {
    qid: usize,
    queues: Vec<Queue>,
    dirty: Vec<OdpPort>,
}

impl TxQueues {
    /// Empty; sends on queue `qid` of each port.
    pub fn new(qid: usize) -> TxQueues {
        TxQueues { qid, queues: Vec::new(), dirty: Vec::new() }
    }

    /// Queues a packet for a port below [`MAX_PORTS`]; whether that port's batch is full now.
    #[inline]
    pub fn push(&mut self, port: OdpPort, packet: Packet) -> bool {
        debug_assert!(port.0 < MAX_PORTS);
        let at = port.0 as usize;
        if at >= self.queues.len() {
            self.queues.resize_with(at + 1, Queue::default);
        }
        let q = &mut self.queues[at];
        if !q.dirty {
            q.dirty = true;
            self.dirty.push(port);
        }
        q.batch.push(packet);
        q.batch.len() >= BATCH_MAX
    }

    /// [`Port::room`] of a port, as of its last batch: to know it costs a packet nothing.
    pub fn room(&mut self, number: OdpPort, shared: &Shared) -> Option<usize> {
        match self.queues.get(number.0 as usize).map(|q| q.room) {
            Some(Room::Known(room)) => room,
            _ => shared.ports.get(number).and_then(|p| p.room()),
        }
    }

    /// Sends a port's batch.
    pub fn flush_port(&mut self, number: OdpPort, shared: &Shared, stats: &WorkerStats, pool: &mut Pool) {
        let Some(q) = self.queues.get_mut(number.0 as usize) else { return };
        let n = q.batch.len();
        if n == 0 {
            return;
        }
        let port = q.port.upgrade().or_else(|| {
            let found = shared.ports.get(number);
            q.port = found.as_ref().map(Arc::downgrade).unwrap_or_default();
            found
        });
        match port {
            Some(port) => {
                q.room = Room::Known(port.room());
                port.netdev.send(self.qid, &mut q.batch, pool);
                stats.tx_batches.add(1);
                stats.tx_packets.add(n as u64);
            }
            None => {
                q.room = Room::Unknown;
                shared.drops.add(DropReason::InvalidPort, n as u64);
                q.batch.drain(..).for_each(|p| pool.give(p));
            }
        }
    }

    /// Sends everything.
    pub fn flush(&mut self, shared: &Shared, stats: &WorkerStats, pool: &mut Pool) {
        while let Some(number) = self.dirty.pop() {
            self.flush_port(number, shared, stats, pool);
            self.queues[number.0 as usize].dirty = false;
        }
    }

    /// Throws everything away; how many packets that was.
    pub fn discard(&mut self) -> usize {
        self.dirty.clear();
        let mut n = 0;
        for q in &mut self.queues {
            n += q.batch.len();
            q.batch.clear();
            q.dirty = false;
        }
        n
    }
}
