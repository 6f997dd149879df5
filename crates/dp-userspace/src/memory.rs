//! Ports in memory, for tests and benches: what is pushed comes in, what goes out is kept or thrown away.
//!
//! A [`MemoryProvider`] makes them as kind `memory`. [`Memory::replay`] turns one into a traffic source that never runs dry.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use ib_netdev::changes::{Changes, DeviceSeq};
use ib_netdev::{Bypass, Carrier, Flags, Netdev, NetdevStats, Provider, RxQueue};
use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Mac, Packet};
use parking_lot::Mutex;

#[derive(Default)]
struct State {
    incoming: Mutex<VecDeque<Packet>>,
    /// Frames to receive round and round.
    replay: Mutex<Arc<Vec<Vec<u8>>>>,
    sent: Mutex<Vec<Packet>>,
    discard: AtomicBool,
    tx_packets: AtomicU64,
    /// What an accelerator knows it by; 0: it may not.
    ifindex: AtomicI32,
}

/// A port in memory; see the module.
pub struct Memory {
    name: String,
    state: Arc<State>,
    seq: DeviceSeq,
}

impl Memory {
    /// Lets a packet come in with the next poll.
    pub fn push(&self, packet: Packet) {
        self.state.incoming.lock().push_back(packet);
    }
    /// Takes what went out.
    pub fn take_sent(&self) -> Vec<Packet> {
        std::mem::take(&mut *self.state.sent.lock())
    }
    /// Has these frames come in for ever, in order.
    pub fn replay(&self, frames: Vec<Vec<u8>>) {
        *self.state.replay.lock() = Arc::new(frames);
    }
    /// Counts what goes out instead of keeping it.
    pub fn discard_sent(&self) {
        self.state.discard.store(true, Ordering::Relaxed);
    }
    /// Lets an accelerator use it as the device of this index; 0: no more.
    pub fn set_bypass(&self, ifindex: i32) {
        self.state.ifindex.store(ifindex, Ordering::Relaxed);
        self.seq.bump();
    }
    /// Packets that went out.
    pub fn tx_packets(&self) -> u64 {
        self.state.tx_packets.load(Ordering::Relaxed)
    }
}

struct Queue {
    state: Arc<State>,
    replay: Arc<Vec<Vec<u8>>>,
    at: usize,
}

impl RxQueue for Queue {
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        if self.replay.is_empty() {
            self.replay = Arc::clone(&self.state.replay.lock());
        }
        if self.replay.is_empty() {
            let mut incoming = self.state.incoming.lock();
            let n = incoming.len().min(BATCH_MAX);
            out.extend(incoming.drain(..n));
            return Ok(n);
        }
        for _ in 0..BATCH_MAX {
            let mut p = pool.take();
            p.extend(&self.replay[self.at]);
            out.push(p);
            self.at = if self.at + 1 == self.replay.len() { 0 } else { self.at + 1 };
        }
        Ok(BATCH_MAX)
    }
    fn drain(&mut self) {
        self.state.incoming.lock().clear();
    }
}

impl Netdev for Memory {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &str {
        "memory"
    }
    fn set_config(&self, _: &BTreeMap<String, String>) -> Result<(), ib_netdev::Error> {
        Ok(())
    }
    fn config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    fn mac(&self) -> Result<Mac, ib_netdev::Error> {
        Ok(Mac([2, 0, 0, 0, 0, 1]))
    }
    fn set_mac(&self, _: Mac) -> Result<(), ib_netdev::Error> {
        Ok(())
    }
    fn mtu(&self) -> Result<u32, ib_netdev::Error> {
        Ok(1500)
    }
    fn set_mtu(&self, _: u32) -> Result<(), ib_netdev::Error> {
        Ok(())
    }
    fn flags(&self) -> Result<Flags, ib_netdev::Error> {
        Ok(Flags::UP)
    }
    fn update_flags(&self, _: Flags, _: Flags) -> Result<Flags, ib_netdev::Error> {
        Ok(Flags::UP)
    }
    fn ifindex(&self) -> Option<i32> {
        None
    }
    fn carrier(&self) -> Carrier {
        Carrier { up: true, resets: 0 }
    }
    fn stats(&self) -> Result<NetdevStats, ib_netdev::Error> {
        Ok(NetdevStats { tx_packets: Some(self.tx_packets()), ..NetdevStats::default() })
    }
    fn change_seq(&self) -> u64 {
        self.seq.read()
    }
    fn bypass(&self) -> Option<Bypass> {
        let ifindex = self.state.ifindex.load(Ordering::Relaxed);
        (ifindex != 0).then_some(Bypass { ifindex, max_frame: 1514 })
    }
    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>, ib_netdev::Error> {
        Ok(vec![Box::new(Queue { state: Arc::clone(&self.state), replay: Arc::default(), at: 0 })])
    }
    fn send(&self, _: usize, batch: &mut Batch, pool: &mut Pool) {
        self.state.tx_packets.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if self.state.discard.load(Ordering::Relaxed) {
            batch.drain(..).for_each(|p| pool.give(p));
        } else {
            self.state.sent.lock().append(batch);
        }
    }
    fn tx_can_gso(&self) -> bool {
        true
    }
}

/// Makes ports of kind `memory` and hands them out by name.
#[derive(Default)]
pub struct MemoryProvider(Mutex<HashMap<String, Arc<Memory>>>);

impl MemoryProvider {
    /// The port of this name, if it was opened.
    pub fn port(&self, name: &str) -> Option<Arc<Memory>> {
        self.0.lock().get(name).cloned()
    }
}

impl Provider for MemoryProvider {
    fn kind(&self) -> &str {
        "memory"
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>, ib_netdev::Error> {
        let port =
            Arc::new(Memory { name: name.to_owned(), state: Arc::default(), seq: DeviceSeq::new(changes) });
        self.0.lock().insert(name.to_owned(), Arc::clone(&port));
        Ok(port)
    }
}
