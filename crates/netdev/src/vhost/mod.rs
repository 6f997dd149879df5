//! `dpdkvhostuser` and `dpdkvhostuserclient`: a guest's network card in shared memory, without DPDK.
//!
//! A server port listens in the run directory, or in `vhost-sock-dir` below it, at its own name; a client port connects to `options:vhost-server-path`, and
//! goes on trying. [`events`] speaks with front-ends on a thread of its own; forwarding threads see only rings, wait for
//! the guests' eventfds as for any other port, and sleep when there is nothing.
//!
//! All of a guest's transmit rings are one receive queue here, served in turn. Packets to a guest with several queue pairs are
//! spread by their addresses, so that a flow keeps its order.

mod events;
pub mod io;
mod port;

use std::collections::BTreeMap;
use std::io as std_io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Mac, Packet};
use ib_vhost::ring::Chain;
use ib_vhost::session::Slot;
use parking_lot::Mutex;

use crate::changes::{Changes, DeviceSeq};
use crate::contract::{Carrier, Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::registry::Provider;
use crate::stats::{DropReason, NetdevStats};
use events::Events;
use port::{Port, Waits};

/// Largest MTU.
const MTU_MAX: u32 = 9702;

/// The thread, while there are ports.
#[derive(Default)]
struct World(Mutex<Weak<Events>>);

impl World {
    fn events(&self) -> std_io::Result<Arc<Events>> {
        let mut running = self.0.lock();
        if let Some(events) = running.upgrade() {
            return Ok(events);
        }
        let events = Arc::new(Events::new()?);
        *running = Arc::downgrade(&events);
        Ok(events)
    }
}

/// `other_config:vhost-sock-dir` as it is, and where server ports that come have their sockets by it.
static SOCKET_DIR: Mutex<(Option<String>, Option<PathBuf>)> = Mutex::new((None, None));

/// Server ports that come from now on have their sockets in this directory below the run directory
/// (`other_config:vhost-sock-dir`).
pub fn set_socket_dir(below: Option<&str>) {
    let mut chosen = SOCKET_DIR.lock();
    if chosen.0.as_deref() != below {
        let dir = below.and_then(|below| socket_dir(&ib_sys::dirs::rundir(), below));
        *chosen = (below.map(str::to_owned), dir);
    }
}

/// The directory, but for names that lead out of the run directory.
fn socket_dir(rundir: &Path, below: &str) -> Option<PathBuf> {
    use ib_base::vlog::module::DPDK;
    let (dir, shown) = (rundir.join(below.trim_start_matches('/')), rundir.display());
    if below.contains("..") {
        ib_base::vlog_err!(
            DPDK,
            "vhost-user sock directory request '{shown}/{below}' has invalid characters '..' - using {shown} instead."
        );
        return None;
    }
    ib_base::vlog_info!(DPDK, "User-provided vhost-sock-dir in use: {below}");
    if !dir.is_dir() {
        ib_base::vlog_err!(DPDK, "vhost-user sock directory '{}' does not exist.", dir.display());
    }
    Some(dir)
}

struct VhostProvider {
    world: Arc<World>,
    is_client: bool,
}

/// The two kinds.
pub fn providers() -> Vec<Arc<dyn Provider>> {
    let world = Arc::new(World::default());
    [false, true]
        .map(|is_client| Arc::new(VhostProvider { world: world.clone(), is_client }) as Arc<dyn Provider>)
        .into()
}

impl Provider for VhostProvider {
    fn kind(&self) -> &str {
        if self.is_client { "dpdkvhostuserclient" } else { "dpdkvhostuser" }
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        if !self.is_client && name.contains(['/', '\\']) {
            ib_base::vlog_err!(
                ib_base::vlog::module::NETDEV,
                "\"{name}\" is not a valid name for a vhost-user port. A valid name must not include '/' or '\\'"
            );
            return Err(Error::Os(ib_sys::errno::EINVAL));
        }
        let events = self.world.events()?;
        let port = Port::new(name, self.is_client, &events.inner, DeviceSeq::new(changes));
        let mut mac: [u8; 6] = ib_sys::random::bytes();
        mac[0] = mac[0] & 0xfc | 2;
        let dev = VhostDevice {
            port,
            options: Mutex::default(),
            control: Mutex::new((Mac(mac), Flags::UP | Flags::PROMISC)),
            mtu: AtomicU32::new(1500),
            _events: events,
        };
        if !self.is_client {
            let dir = SOCKET_DIR.lock().1.clone().unwrap_or_else(ib_sys::dirs::rundir);
            let path = dir.join(name);
            dev.port.set_path(Some(path)).inspect_err(|e| {
                ib_base::vlog_err!(
                    ib_base::vlog::module::NETDEV,
                    "vhost-user socket device setup failure for socket {name} ({e})"
                );
            })?;
        }
        Ok(Arc::new(dev))
    }
}

struct VhostDevice {
    port: Arc<Port>,
    options: Mutex<BTreeMap<String, String>>,
    control: Mutex<(Mac, Flags)>,
    mtu: AtomicU32,
    _events: Arc<Events>,
}

impl Drop for VhostDevice {
    fn drop(&mut self) {
        self.port.close();
    }
}

impl VhostDevice {
    fn is_up(&self) -> bool {
        self.control.lock().1.contains(Flags::UP)
    }
    fn count(&self, at: usize, packets: u64, bytes: u64) {
        self.port.counts[at].fetch_add(packets, Ordering::Relaxed);
        self.port.counts[at + 1].fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Which of several queues: the same for all packets of a flow.
fn spread(p: &Packet) -> usize {
    let data = p.data();
    let addresses = match data.get(12..14) {
        Some([0x08, 0x00]) => 26..34,
        Some([0x86, 0xdd]) => 22..54,
        _ => 0..12,
    };
    let bytes = data.get(addresses).unwrap_or_default();
    bytes.iter().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(*b)))
}

impl Netdev for VhostDevice {
    fn name(&self) -> &str {
        &self.port.name
    }
    fn kind(&self) -> &str {
        if self.port.is_client { "dpdkvhostuserclient" } else { "dpdkvhostuser" }
    }
    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        if self.port.is_client {
            let path = options.get("vhost-server-path").filter(|p| !p.is_empty());
            self.port.set_path(path.map(PathBuf::from))?;
        }
        self.options.lock().clone_from(options);
        Ok(())
    }
    fn config(&self) -> BTreeMap<String, String> {
        self.options.lock().clone()
    }
    fn status(&self) -> BTreeMap<String, String> {
        let report = self.port.report();
        let mut status = BTreeMap::new();
        let mut put = |k: &str, v: String| status.insert(k.to_owned(), v);
        put("mode", if self.port.is_client { "client" } else { "server" }.to_owned());
        put("status", if report.connected { "connected" } else { "disconnected" }.to_owned());
        if let Some(path) = &report.path {
            put("socket", path.display().to_string());
        }
        if report.connected {
            put("features", format!("0x{:016x}", report.features));
            put("num_of_vrings", report.sizes.len().to_string());
            for (i, size) in report.sizes.iter().enumerate() {
                put(&format!("vring_{i}_size"), size.to_string());
            }
        }
        status
    }

    fn mac(&self) -> Result<Mac> {
        Ok(self.control.lock().0)
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        self.control.lock().0 = mac;
        self.port.seq.bump();
        Ok(())
    }
    fn mtu(&self) -> Result<u32> {
        Ok(self.mtu.load(Ordering::Relaxed))
    }
    fn set_mtu(&self, mtu: u32) -> Result<()> {
        if !(68..=MTU_MAX).contains(&mtu) {
            return Err(Error::Os(ib_sys::errno::EINVAL));
        }
        self.mtu.store(mtu, Ordering::Relaxed);
        self.port.seq.bump();
        Ok(())
    }
    fn flags(&self) -> Result<Flags> {
        Ok(self.control.lock().1)
    }
    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags> {
        let mut control = self.control.lock();
        let old = control.1;
        control.1 = old.without(off).union(on);
        if control.1 != old {
            self.port.seq.bump();
        }
        Ok(old)
    }
    fn ifindex(&self) -> Option<i32> {
        None
    }
    fn carrier(&self) -> Carrier {
        let up = self.port.ready.load(Ordering::Acquire) && self.is_up();
        Carrier { up, resets: self.port.resets.load(Ordering::Relaxed) }
    }

    fn stats(&self) -> Result<NetdevStats> {
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] =
            [0, 1, 2, 3].map(|i: usize| Some(self.port.counts[i].load(Ordering::Relaxed)));
        let drops = &self.port.drops;
        Ok(NetdevStats {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            rx_dropped: Some(drops.read(DropReason::RxTooBig)),
            rx_errors: Some(drops.read(DropReason::RxBadOffload)),
            tx_dropped: Some(drops.sum(|r| r.name().starts_with("tx_"))),
            tx_errors: Some(0),
            ..NetdevStats::default()
        })
    }
    fn custom_stats(&self) -> Vec<(String, u64)> {
        let drops = &self.port.drops;
        let mut all = vec![
            ("ovs_tx_failure_drops".to_owned(), drops.read(DropReason::TxQueueFull)),
            ("ovs_tx_mtu_exceeded_drops".to_owned(), drops.read(DropReason::TxTooBig)),
        ];
        all.extend(drops.nonzero());
        all
    }
    fn change_seq(&self) -> u64 {
        self.port.seq.read()
    }

    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        let waits = self.port.waits()?;
        let port = Arc::clone(&self.port);
        Ok(vec![Box::new(VhostRxq { port, waits, chain: Chain::default(), slots: Vec::new(), next: 0 })])
    }

    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        let mtu = self.mtu.load(Ordering::Relaxed);
        let slots = self.port.slots.read();
        let enabled: Vec<&Arc<Slot>> = slots.iter().step_by(2).filter(|s| s.lock().enabled).collect();
        if enabled.is_empty() || !self.is_up() {
            self.port.drops.add(DropReason::TxDown, batch.len() as u64);
            batch.drain(..).for_each(|p| pool.give(p));
            return;
        }
        let mut chain = Chain::default();
        let mut one = |slot: &Slot, batch: &mut Batch| {
            let (packets, bytes) = io::send(&mut slot.lock(), &mut chain, batch, mtu, pool, &self.port.drops);
            self.count(2, packets, bytes);
        };
        if let [slot] = enabled[..] {
            one(slot, batch);
            return;
        }
        let mut parts: Vec<Batch> = enabled.iter().map(|_| Batch::new()).collect();
        for p in batch.drain(..) {
            let at = spread(&p) % parts.len();
            parts[at].push(p);
        }
        for (slot, part) in enabled.iter().zip(&mut parts).filter(|(_, part)| !part.is_empty()) {
            one(slot, part);
        }
    }
    fn tx_can_gso(&self) -> bool {
        true
    }
}

struct VhostRxq {
    port: Arc<Port>,
    waits: Arc<Waits>,
    chain: Chain,
    slots: Vec<Arc<Slot>>,
    /// Which ring is next.
    next: usize,
}

impl VhostRxq {
    /// One round over the rings, until the batch is full; buffers used.
    fn round(&mut self, pool: &mut Pool, out: &mut Batch) -> usize {
        let (mut used, from) = (0, out.len());
        for _ in 0..self.slots.len() {
            let at = self.next % self.slots.len();
            self.next = at + 1;
            let room = BATCH_MAX - (out.len() - from);
            if room == 0 {
                break;
            }
            let mut slot = self.slots[at].lock();
            used += io::recv(&mut slot, &mut self.chain, room, pool, out, &self.port.drops);
        }
        used
    }
}

impl RxQueue for VhostRxq {
    fn fd(&self) -> Option<RawFd> {
        Some(self.waits.epoll.as_raw_fd())
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> std_io::Result<usize> {
        let from = out.len();
        self.slots.clear();
        self.slots.extend(self.port.slots.read().iter().skip(1).step_by(2).cloned());
        // A round that used buffers without a packet in them is no end: bounded, for the thread has other ports.
        for _ in 0..8 {
            let mut used = self.round(pool, out);
            if used == 0 {
                // Notifications that came are taken first; what comes from here on raises a new one.
                let mut ready = Vec::new();
                self.waits.epoll.wait(&mut ready, 0)?;
                for slot in &self.slots {
                    used += usize::from(io::wait(&mut slot.lock()));
                }
            }
            if out.len() == from {
                out.append(&mut self.port.made.lock());
            }
            if out.len() > from || used == 0 {
                break;
            }
        }
        let n = out.len() - from;
        if n > 0 {
            self.port.counts[0].fetch_add(n as u64, Ordering::Relaxed);
            let bytes = out[from..].iter().map(|p| p.len() as u64).sum();
            self.port.counts[1].fetch_add(bytes, Ordering::Relaxed);
        } else if self.slots.iter().any(|s| s.lock().ring.as_mut().is_some_and(|r| r.available() > 0)) {
            // Still at it: come back.
            self.port.wake();
        }
        Ok(n)
    }
    fn drain(&mut self) {
        let (mut pool, mut batch) = (Pool::new(1), Batch::new());
        while self.recv(&mut pool, &mut batch).is_ok_and(|n| n > 0) {
            batch.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_stay_below_the_run_directory() {
        let rundir = Path::new("/run/x");
        let of = |below| socket_dir(rundir, below);
        assert_eq!(of("guests").as_deref(), Some(Path::new("/run/x/guests")));
        assert_eq!(of("/guests/a").as_deref(), Some(Path::new("/run/x/guests/a")));
        assert_eq!(of("../elsewhere"), None);
        assert_eq!(of("a/../../elsewhere"), None);
    }
}
