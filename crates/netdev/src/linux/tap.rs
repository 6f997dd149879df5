//! `tap` and `internal`: a TAP device of our own, whose other end is the host's network stack.
//!
//! The device is made when it is opened, down, and ceases to exist when it is closed, unless the registry was told to keep
//! devices (a daemon that restarts): it is persistent meanwhile, so a crash keeps it too, with the addresses on it. We hold its
//! descriptor; moved into another namespace it goes on carrying packets, and only what rtnetlink tells is then frozen.
//!
//! `tun` is the same without Ethernet: an L3 device. Here its packets begin with an empty Ethernet header, as those of L3 tunnels
//! do; it is taken off again on the way out, and what is not IP is dropped.
//!
//! The kernel counts from the host's side; we report the switch's, so received and sent change places.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ib_packet::buffer::Pool;
use ib_packet::{Batch, Mac};
use ib_sys::errno::ENODEV;
use ib_sys::rtnetlink;
use ib_sys::tun::Tap;
use parking_lot::Mutex;

use crate::changes::Changes;
use crate::contract::{Carrier, Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::linux::link::of_the_link;
use crate::linux::qos::{self, Policer, Shaper};
use crate::linux::{KernelDevice, Link, Linux, io as frames};
use crate::patch::random_mac;
use crate::qos::{Details, Policing};
use crate::registry::Provider;
use crate::stats::{DropCounters, DropReason, NetdevStats};

/// Opens TAP devices under one of the two kinds.
pub struct TapProvider(pub Arc<Linux>, pub &'static str);

impl Provider for TapProvider {
    fn kind(&self) -> &str {
        self.1
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let is_tun = self.1 == "tun";
        let tap = if is_tun { Tap::open_tun(name)? } else { Tap::open(name)? };
        tap.set_persistent(true)?;
        let link = match Link::open(&self.0, name, changes) {
            Ok(link) => link,
            Err(e) => {
                // Not to leave it behind.
                let _ = tap.set_persistent(false);
                return Err(e);
            }
        };
        let index = link.index()?;
        let dev = Arc::new(TapDevice {
            link,
            kind: self.1,
            options: Mutex::default(),
            own_mac: is_tun.then(|| Mutex::new(random_mac())),
            shaper: Shaper::default(),
            io: Arc::new(TapIo {
                tap,
                is_tun,
                drops: DropCounters::default(),
                counts: Default::default(),
                policer: Policer::default(),
            }),
        });
        let weak: Weak<dyn KernelDevice> = Arc::<TapDevice>::downgrade(&dev);
        self.0.watch(name, index, weak);
        Ok(dev)
    }
}

struct TapDevice {
    link: Link,
    kind: &'static str,
    options: Mutex<BTreeMap<String, String>>,
    /// The address of a device that has none of its own.
    own_mac: Option<Mutex<Mac>>,
    io: Arc<TapIo>,
    shaper: Shaper,
}

/// What the device and its receive queue share.
struct TapIo {
    tap: Tap,
    is_tun: bool,
    drops: DropCounters,
    policer: Policer,
    /// rx packets, rx bytes, tx packets, tx bytes, as the switch sees them: for when the kernel cannot be asked.
    counts: [AtomicU64; 4],
}

impl TapIo {
    fn count(&self, at: usize, packets: u64, bytes: u64) {
        self.counts[at].fetch_add(packets, Ordering::Relaxed);
        self.counts[at + 1].fetch_add(bytes, Ordering::Relaxed);
    }
}

impl KernelDevice for TapDevice {
    fn on_link(&self, link: &rtnetlink::Link) {
        self.link.update(link);
    }
    fn on_gone(&self, _link: &rtnetlink::Link) {
        self.link.gone();
    }
    fn on_address(&self) {
        self.link.seq.bump();
    }
}

impl Drop for TapDevice {
    fn drop(&mut self) {
        if !self.link.linux.keep_devices.load(Ordering::Relaxed) {
            let io = Arc::clone(&self.io);
            self.link.linux.leave(&self.link, move || {
                // One that was deleted already does not mind.
                let _ = io.tap.set_persistent(false);
            });
        }
        self.shaper.clear(self.link.ifindex());
        self.link.linux.unwatch(&self.link.name);
    }
}

impl TapDevice {
    /// `f` of the kernel's last word, also while the device is in another namespace.
    fn last<T>(&self, f: impl FnOnce(&super::Known) -> T) -> T {
        f(&self.link.known.lock())
    }
}

impl Netdev for TapDevice {
    fn kind(&self) -> &str {
        self.kind
    }
    of_the_link! {
        name config set_config status tx_offloads set_mtu update_flags ifindex link_speed addresses
        set_address add_router change_seq
    }

    fn mac(&self) -> Result<Mac> {
        Ok(self.own_mac.as_ref().map_or_else(|| self.last(|known| known.mac), |own| *own.lock()))
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        if let Some(own) = &self.own_mac {
            *own.lock() = mac;
            self.link.seq.bump();
            return Ok(());
        }
        self.link.set_mac(mac)
    }
    fn mtu(&self) -> Result<u32> {
        Ok(self.last(|known| known.mtu))
    }
    fn flags(&self) -> Result<Flags> {
        match self.link.flags() {
            Err(Error::Os(ENODEV)) => Ok(Flags::UP),
            other => other,
        }
    }
    fn carrier(&self) -> Carrier {
        let carrier = self.link.carrier();
        // Whoever took it into his namespace brings it up there; we cannot know.
        Carrier { up: carrier.up || self.link.ifindex().is_none(), ..carrier }
    }

    fn stats(&self) -> Result<NetdevStats> {
        let own = [0, 1, 2, 3].map(|i: usize| self.io.counts[i].load(Ordering::Relaxed));
        let dropped = self.io.drops.sum(|r| r.name().starts_with("tx_"));
        let Ok(s) = self.link.stats() else {
            let [rx_packets, rx_bytes, tx_packets, tx_bytes] = own.map(Some);
            let tx_dropped = Some(dropped);
            return Ok(NetdevStats {
                rx_packets,
                rx_bytes,
                tx_packets,
                tx_bytes,
                tx_dropped,
                ..NetdevStats::default()
            });
        };
        let mut out = from_the_switch(&s);
        out.tx_dropped = out.tx_dropped.map(|d| d + dropped);
        Ok(out)
    }
    fn custom_stats(&self) -> Vec<(String, u64)> {
        self.io.drops.nonzero()
    }

    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        Ok(vec![Box::new(TapRxq(self.io.clone()))])
    }

    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        if self.io.is_tun {
            strip(batch, pool, &self.io.drops);
        }
        let (packets, bytes) = frames::send_tap(&self.io.tap, batch, pool, &self.io.drops);
        self.io.count(2, packets, bytes);
    }
    fn set_policing(&self, policing: &Policing) -> Result<()> {
        self.io.policer.set(policing);
        Ok(())
    }
    fn set_qos(&self, kind: &str, details: &Details) -> Result<()> {
        self.shaper.set_qos(self.link.shaped()?, kind, details)
    }
    qos::queues_of_the_kernel!();
    fn tx_can_gso(&self) -> bool {
        true
    }
}

/// Counters of a device whose other end is the host's, from the switch's side.
pub(crate) fn from_the_switch(s: &NetdevStats) -> NetdevStats {
    NetdevStats {
        rx_packets: s.tx_packets,
        tx_packets: s.rx_packets,
        rx_bytes: s.tx_bytes,
        tx_bytes: s.rx_bytes,
        rx_dropped: s.tx_dropped,
        tx_dropped: s.rx_dropped,
        rx_errors: s.tx_errors,
        tx_errors: s.rx_errors,
        rx_multicast_packets: Some(0),
        collisions: Some(0),
        rx_length_errors: Some(0),
        rx_over_err: Some(0),
        rx_crc_err: Some(0),
        rx_frame_err: Some(0),
        rx_fifo_errors: Some(0),
        rx_missed_errors: Some(0),
        tx_aborted_errors: Some(0),
        tx_carrier_errors: Some(0),
        tx_fifo_errors: Some(0),
        tx_heartbeat_errors: Some(0),
        tx_window_errors: Some(0),
        ..NetdevStats::default()
    }
}

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// Puts an empty Ethernet header in front of IP packets. What is no IP gets type 0, which nobody takes for anything.
fn dress(packets: &mut [ib_packet::Packet]) {
    for p in packets {
        let kind: u16 = match p.data().first().map(|b| b >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86dd,
            _ => 0,
        };
        let header = p.push_front(ETHERNET);
        header[..12].fill(0);
        header[12..ETHERNET].copy_from_slice(&kind.to_be_bytes());
    }
}

/// Takes the Ethernet headers off IP packets, and drops the others.
fn strip(batch: &mut Batch, pool: &mut Pool, drops: &DropCounters) {
    let not_ip = |p: &ib_packet::Packet| {
        p.ethernet && !matches!(p.data().get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]))
    };
    for p in batch.extract_if(.., |p| not_ip(p)) {
        drops.add(DropReason::TxNotIp, 1);
        pool.give(p);
    }
    for p in batch {
        if p.ethernet {
            p.pull_front(ETHERNET);
        }
        // As a frame, for the TAP beneath moves bytes as they are.
        p.ethernet = true;
    }
}

struct TapRxq(Arc<TapIo>);

impl RxQueue for TapRxq {
    fn fd(&self) -> Option<RawFd> {
        Some(self.0.tap.as_raw_fd())
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        let from = out.len();
        let n = frames::recv_tap(&self.0.tap, pool, out, &self.0.drops)?;
        if self.0.is_tun {
            dress(&mut out[from..]);
        }
        if n != 0 {
            self.0.count(0, n as u64, out[from..].iter().map(|p| p.len() as u64).sum());
            self.0.policer.police(out, from, pool, &self.0.drops);
        }
        Ok(n)
    }
    fn drain(&mut self) {
        let mut pool = Pool::new(1);
        let mut batch = Batch::new();
        while frames::recv_tap(&self.0.tap, &mut pool, &mut batch, &self.0.drops).is_ok_and(|n| n > 0) {
            batch.clear();
        }
    }
}
