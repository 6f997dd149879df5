//! `system`: a device that the kernel already has (NIC, veth, a TAP that a guest holds), through AF_PACKET.
//!
//! One socket sends; each set of receive queues has its own. All carry virtio-net headers, so super-frames and partial
//! checksums pass whole both ways, and the kernel segments if the device in the end cannot. A device that vanishes
//! and comes back under its name is bound again when the registry hears of it; the sockets stay the same.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ib_packet::Batch;
use ib_packet::buffer::Pool;
use ib_sys::af_packet::PacketSocket;
use ib_sys::{bpf, rtnetlink};
use parking_lot::Mutex;

use crate::changes::Changes;
use crate::contract::{Bypass, Netdev, RxQueue};
use crate::error::Result;
use crate::linux::link::of_the_link;
use crate::linux::qos::{self, Policer, Shaper};
use crate::linux::{KernelDevice, Link, Linux, io as frames};
use crate::qos::{Details, Policing};
use crate::registry::Provider;
use crate::stats::{DropCounters, DropReason, NetdevStats};

/// Bytes (of socket buffers, headers included) that wait in a receive socket at most.
const RECV_BUFFER: i32 = 32 << 20;
/// Bytes under way in a send socket at most: a device that does not complete its sends stops us here.
const SEND_BUFFER: i32 = 16 << 20;

/// Opens `system` devices.
pub struct SystemProvider(pub Arc<Linux>);

impl Provider for SystemProvider {
    fn kind(&self) -> &str {
        "system"
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let link = Link::open(&self.0, name, changes)?;
        let index = link.index()?;
        let sender = PacketSocket::sender(index, SEND_BUFFER)?;
        let dev = Arc::new(System {
            link,
            options: Mutex::default(),
            sender,
            receivers: Mutex::default(),
            rx_lost: AtomicU64::new(0),
            drops: Arc::default(),
            shaper: Shaper::default(),
            policer: Arc::default(),
            queues: Mutex::default(),
        });
        let weak: Weak<dyn KernelDevice> = Arc::<System>::downgrade(&dev);
        self.0.watch(name, index, weak);
        Ok(dev)
    }
}

struct System {
    link: Link,
    options: Mutex<BTreeMap<String, String>>,
    sender: PacketSocket,
    receivers: Mutex<Vec<Weak<PacketSocket>>>,
    /// Frames that sockets had no room for, as far as they were asked.
    rx_lost: AtomicU64,
    drops: Arc<DropCounters>,
    shaper: Shaper,
    policer: Arc<Policer>,
    /// A socket for each queue that packets were sent to, while there is shaping.
    queues: Mutex<HashMap<u32, Arc<PacketSocket>>>,
}

impl System {
    /// The socket whose packets the kernel puts into a queue.
    fn queue_socket(&self, queue: u32) -> Option<Arc<PacketSocket>> {
        let mut queues = self.queues.lock();
        if let Some(socket) = queues.get(&queue) {
            return Some(Arc::clone(socket));
        }
        // Packets for queues that nobody made take the default one.
        if !self.shaper.has_queue(queue) {
            return None;
        }
        let socket = PacketSocket::sender(self.link.index().ok()?, SEND_BUFFER).ok()?;
        socket.set_qdisc_bypass(false).ok()?;
        socket.set_priority(ib_sys::tc::class_priority(u16::try_from(queue + 1).ok()?)).ok()?;
        let socket = Arc::new(socket);
        queues.insert(queue, Arc::clone(&socket));
        Some(socket)
    }

    /// Sends what wants a queue other than the default one, in runs of packets that want the same.
    fn send_by_queue(&self, batch: &mut Batch, pool: &mut Pool) {
        let mut all = std::mem::take(batch);
        let mut rest = all.drain(..).peekable();
        while let Some(p) = rest.next() {
            let queue = p.queue;
            batch.push(p);
            while let Some(p) = rest.next_if(|p| p.queue == queue) {
                batch.push(p);
            }
            match self.queue_socket(queue).filter(|_| queue != 0) {
                Some(socket) => frames::send_packets(&socket, batch, pool, &self.drops),
                None => frames::send_packets(&self.sender, batch, pool, &self.drops),
            };
        }
    }

    fn receivers(&self) -> Vec<Arc<PacketSocket>> {
        let mut all = self.receivers.lock();
        all.retain(|r| r.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn rx_lost(&self) -> u64 {
        let new: u64 = self.receivers().iter().map(|r| r.take_lost()).sum();
        self.rx_lost.fetch_add(new, Ordering::Relaxed) + new
    }
}

impl KernelDevice for System {
    fn on_link(&self, link: &rtnetlink::Link) {
        if let Some(index) = self.link.update(link) {
            // If it is gone again already, its own notification follows.
            let _ = self.sender.bind(index);
            self.queues.lock().clear();
            for receiver in self.receivers() {
                let _ = receiver.bind(index);
            }
        }
    }
    fn on_gone(&self, _link: &rtnetlink::Link) {
        self.link.gone();
    }
    fn on_address(&self) {
        self.link.seq.bump();
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.shaper.clear(self.link.ifindex());
        self.link.linux.unwatch(&self.link.name);
    }
}

impl Netdev for System {
    fn kind(&self) -> &str {
        "system"
    }
    of_the_link! {
        name config set_config status tx_offloads mac set_mac mtu set_mtu flags update_flags ifindex
        carrier link_speed addresses set_address add_router change_seq
    }

    fn stats(&self) -> Result<NetdevStats> {
        let mut s = self.link.stats()?;
        let add = |counter: &mut Option<u64>, n: u64| *counter = counter.map(|c| c + n);
        let ours = self.drops.sum(|r| r.name().starts_with("tx_"));
        add(&mut s.tx_dropped, ours);
        add(&mut s.rx_dropped, self.rx_lost() + self.drops.sum(|r| r.name().starts_with("rx_")));
        Ok(s)
    }
    fn custom_stats(&self) -> Vec<(String, u64)> {
        let mut all = self.drops.nonzero();
        let lost = self.rx_lost();
        if lost != 0 {
            all.push((DropReason::RxQueueFull.name().to_owned(), lost));
        }
        all
    }

    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        let socket = Arc::new(PacketSocket::receiver(self.link.index()?, RECV_BUFFER)?);
        self.receivers.lock().push(Arc::downgrade(&socket));
        let (drops, policer) = (self.drops.clone(), self.policer.clone());
        Ok(vec![Box::new(SystemRxq { socket, drops, policer })])
    }

    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        if self.shaper.is_active() && batch.iter().any(|p| p.queue != 0) {
            return self.send_by_queue(batch, pool);
        }
        frames::send_packets(&self.sender, batch, pool, &self.drops);
    }
    fn set_policing(&self, policing: &Policing) -> Result<()> {
        let was = self.policer.is_active();
        self.policer.set(policing);
        if was != self.policer.is_active() {
            self.link.seq.bump();
        }
        Ok(())
    }
    fn set_qos(&self, kind: &str, details: &Details) -> Result<()> {
        let was = self.shaper.is_active();
        let result = self.shaper.set_qos(self.link.shaped()?, kind, details);
        if was != self.shaper.is_active() {
            self.link.seq.bump();
        }
        self.queues.lock().clear();
        // What goes past the queueing discipline is not shaped.
        self.sender.set_qdisc_bypass(!self.shaper.is_active())?;
        result
    }
    qos::queues_of_the_kernel!();
    fn tx_can_gso(&self) -> bool {
        true
    }

    fn bypass(&self) -> Option<Bypass> {
        if self.policer.is_active() || self.shaper.is_active() {
            return None;
        }
        let max_frame = self.link.mtu().ok()?.checked_add(14)?;
        Some(Bypass { ifindex: self.link.ifindex()?, max_frame })
    }
    fn set_rx_filter(&self, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.receivers().iter().try_for_each(|r| bpf::set_socket_filter(r.as_raw_fd(), program))
    }
}

struct SystemRxq {
    socket: Arc<PacketSocket>,
    drops: Arc<DropCounters>,
    policer: Arc<Policer>,
}

impl RxQueue for SystemRxq {
    fn fd(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        let from = out.len();
        let n = frames::recv_packets(&self.socket, pool, out, &self.drops)?;
        self.policer.police(out, from, pool, &self.drops);
        Ok(n)
    }
    fn drain(&mut self) {
        self.socket.drain();
    }
}
