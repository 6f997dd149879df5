//! `afxdp`: a device that the kernel already has, through AF_XDP sockets.
//!
//! A small XDP program hands what the device receives to a socket for each of its first `n_rxq` queues, past the kernel's network
//! stack; the host no longer sees it. Program and sockets live as long as the set of receive queues that was opened last: with it they go,
//! also when we are killed, and the device is the host's again.
//!
//! `xdp-mode` says how: `native-with-zerocopy`, `native` (the driver runs the program, the kernel copies), `generic` (the kernel runs it on
//! its own packets), or the first of these that works. Frames are plain: super-frames are cut and checksums completed here before
//! they are sent, and senders behind a virtual device must not leave checksums to it (`ethtool -K DEV tx off`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ib_base::vlog::module::NETDEV_AFXDP;
use ib_base::{vlog_info, vlog_warn};
use ib_packet::Batch;
use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::gso::{finish_csum, segment};
use ib_sys::bpf;
use ib_sys::errno::{EBUSY, EINVAL};
use ib_sys::rtnetlink;
use ib_sys::xdp::{self, Bind, XskRx, XskTx};
use parking_lot::{Mutex, RwLock};

use crate::changes::Changes;
use crate::contract::{Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::linux::link::of_the_link;
use crate::linux::qos::Policer;
use crate::linux::{KernelDevice, Link, Linux};
use crate::qos::Policing;
use crate::registry::Provider;
use crate::stats::{DropCounters, DropReason, NetdevStats};

/// Most receive queues.
const MAX_QUEUES: u32 = 64;
/// The kernel gives a queue back a little after its socket was closed: so often we ask, with a nap between.
const BUSY_TRIES: usize = 50;
const BUSY_NAP: Duration = Duration::from_millis(2);
/// Largest Ethernet header with a VLAN tag.
const L2_LEN: usize = 18;

/// How the program runs and who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    NativeZeroCopy,
    Native,
    Generic,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::NativeZeroCopy, Mode::Native, Mode::Generic];

    fn name(self) -> &'static str {
        match self {
            Mode::NativeZeroCopy => "native-with-zerocopy",
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }
}

/// The options as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    /// `None`: best effort.
    mode: Option<Mode>,
    need_wakeup: bool,
    n_rxq: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { mode: None, need_wakeup: true, n_rxq: 1 }
    }
}

impl Options {
    fn read(name: &str, options: &BTreeMap<String, String>) -> Result<Options> {
        let mode = match options.get("xdp-mode").map(String::as_str) {
            None | Some("best-effort") => None,
            Some(text) => {
                let found = Mode::ALL.into_iter().find(|m| m.name() == text);
                let unknown = || Error::Config(format!("{name}: Unsupported xdp-mode '{text}'."));
                Some(found.ok_or_else(unknown)?)
            }
        };
        let n_rxq = match options.get("n_rxq").and_then(|n| n.parse().ok()).unwrap_or(1) {
            0 => 1,
            n if n > MAX_QUEUES => {
                return Err(Error::Config(format!("{name}: Too big 'n_rxq' ({n} > {MAX_QUEUES}).")));
            }
            n => n,
        };
        let need_wakeup = options.get("use-need-wakeup").is_none_or(|v| v != "false");
        Ok(Options { mode, need_wakeup, n_rxq })
    }

    fn mode_name(self) -> &'static str {
        self.mode.map_or("best-effort", Mode::name)
    }
}

/// Opens `afxdp` devices.
pub struct AfXdpProvider(pub Arc<Linux>);

impl Provider for AfXdpProvider {
    fn kind(&self) -> &str {
        "afxdp"
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let link = Link::open(&self.0, name, changes)?;
        let index = link.index()?;
        let dev = Arc::new(AfXdp {
            link,
            options: Mutex::default(),
            sockets: RwLock::default(),
            wanted: AtomicU64::new(1),
            drops: Arc::default(),
            policer: Arc::default(),
        });
        let weak: Weak<dyn KernelDevice> = Arc::<AfXdp>::downgrade(&dev);
        self.0.watch(name, index, weak);
        Ok(dev)
    }
}

struct AfXdp {
    link: Link,
    options: Mutex<Options>,
    /// The set in use; it lives while its receive queues do.
    sockets: RwLock<Weak<Sockets>>,
    /// Changes when another set is wanted.
    wanted: AtomicU64,
    drops: Arc<DropCounters>,
    policer: Arc<Policer>,
}

/// Program and sending halves; gone, the device is the host's again.
struct Sockets {
    _link: bpf::Link,
    mode: Mode,
    tx: Vec<Mutex<XskTx>>,
}

/// A whole set, receiving halves by queue.
fn open_set(ifindex: i32, mtu: u32, mode: Mode, options: Options) -> io::Result<(Sockets, Vec<XskRx>)> {
    let frame = mtu as usize + L2_LEN;
    let chunk = [2048, 4096].into_iter().find(|c| xdp::room(*c) >= frame).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("frames of {frame} bytes do not fit into {}", xdp::room(4096)),
        )
    })?;
    let (program, map) = xdp::redirect(options.n_rxq)?;
    let link = patiently(|| bpf::Link::xdp(&program, ifindex, mode == Mode::Generic))?;
    let bind = Bind { zero_copy: mode == Mode::NativeZeroCopy, need_wakeup: options.need_wakeup, chunk };
    let (mut all, mut tx) = (Vec::new(), Vec::new());
    for queue in 0..options.n_rxq {
        let (r, t) = patiently(|| xdp::open(ifindex, queue, bind))?;
        xdp::steer(&map, queue, &r)?;
        all.push(r);
        tx.push(Mutex::new(t));
    }
    Ok((Sockets { _link: link, mode, tx }, all))
}

fn patiently<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match f() {
            Err(e) if e.raw_os_error() == Some(EBUSY) && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_NAP);
            }
            result => return result,
        }
    }
}

impl AfXdp {
    fn sockets(&self) -> Option<Arc<Sockets>> {
        self.sockets.read().upgrade()
    }

    fn open(&self) -> Result<(Sockets, Vec<XskRx>)> {
        let name = &self.link.name;
        let options = *self.options.lock();
        let (index, mtu) = (self.link.index()?, self.link.mtu()?);
        let modes = Mode::ALL.into_iter().filter(|m| options.mode.is_none_or(|o| o == *m));
        let mut last = io::Error::from_raw_os_error(EINVAL);
        for mode in modes {
            match open_set(index, mtu, mode, options) {
                Ok(set) => {
                    vlog_info!(
                        NETDEV_AFXDP,
                        "{name}: AF_XDP sockets on {} queues in {} mode",
                        options.n_rxq,
                        mode.name()
                    );
                    return Ok(set);
                }
                Err(e) => {
                    // Where any mode will do, that this one does not is no news.
                    if options.mode.is_some() || mode == Mode::Generic {
                        vlog_warn!(
                            NETDEV_AFXDP,
                            "{name}: cannot open {} AF_XDP sockets in {} mode ({e})",
                            options.n_rxq,
                            mode.name()
                        );
                    }
                    last = e;
                }
            }
        }
        Err(last.into())
    }
}

impl KernelDevice for AfXdp {
    fn on_link(&self, link: &rtnetlink::Link) {
        let mtu = self.link.mtu();
        let replaced = self.link.update(link).is_some();
        // Sockets are bound to a device, and chunks are made for an MTU.
        if replaced || mtu != self.link.mtu() {
            self.wanted.fetch_add(1, Ordering::Relaxed);
            self.link.seq.bump();
        }
    }
    fn on_gone(&self, _link: &rtnetlink::Link) {
        self.link.gone();
    }
    fn on_address(&self) {
        self.link.seq.bump();
    }
}

impl Drop for AfXdp {
    fn drop(&mut self) {
        self.link.linux.unwatch(&self.link.name);
    }
}

impl Netdev for AfXdp {
    fn kind(&self) -> &str {
        "afxdp"
    }
    of_the_link! {
        name mac set_mac mtu flags update_flags ifindex carrier link_speed addresses set_address
        add_router change_seq
    }

    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let new = Options::read(&self.link.name, options)?;
        let old = std::mem::replace(&mut *self.options.lock(), new);
        if old != new {
            self.wanted.fetch_add(1, Ordering::Relaxed);
            self.link.seq.bump();
        }
        Ok(())
    }
    fn config(&self) -> BTreeMap<String, String> {
        let options = *self.options.lock();
        let text = |v: &dyn std::fmt::Display| v.to_string();
        let pairs = [
            ("n_rxq", text(&options.n_rxq)),
            ("use-need-wakeup", text(&options.need_wakeup)),
            ("xdp-mode", text(&options.mode_name())),
        ];
        pairs.map(|(k, v)| (k.to_owned(), v)).into()
    }
    fn status(&self) -> BTreeMap<String, String> {
        let mut status = self.link.status();
        let mode = self.sockets().map_or("none", |s| s.mode.name());
        status.insert("xdp-mode-in-use".to_owned(), mode.to_owned());
        status
    }

    fn set_mtu(&self, mtu: u32) -> Result<()> {
        let old = self.link.mtu()?;
        self.link.set_mtu(mtu)?;
        if old != mtu {
            self.wanted.fetch_add(1, Ordering::Relaxed);
            self.link.seq.bump();
        }
        Ok(())
    }

    fn stats(&self) -> Result<NetdevStats> {
        let mut s = self.link.stats()?;
        let add = |counter: &mut Option<u64>, n: u64| *counter = counter.map(|c| c + n);
        add(&mut s.tx_dropped, self.drops.sum(|r| r.name().starts_with("tx_")));
        add(&mut s.rx_dropped, self.drops.sum(|r| r.name().starts_with("rx_")));
        Ok(s)
    }
    fn custom_stats(&self) -> Vec<(String, u64)> {
        let mut all = self.drops.nonzero();
        let Some(sockets) = self.sockets() else { return all };
        for (queue, tx) in sockets.tx.iter().enumerate() {
            let Ok([dropped, rx_invalid, tx_invalid, ..]) = tx.lock().counters() else { continue };
            let named =
                [("rx_dropped", dropped), ("rx_invalid_descs", rx_invalid), ("tx_invalid_descs", tx_invalid)];
            all.extend(named.map(|(name, n)| (format!("xsk_queue_{queue}_{name}"), n)));
        }
        all
    }

    fn n_rxq(&self) -> usize {
        self.options.lock().n_rxq as usize
    }
    fn n_txq(&self) -> usize {
        self.n_rxq()
    }
    fn is_pmd(&self) -> bool {
        true
    }
    fn queues_seq(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }

    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        let (sockets, receivers) = self.open()?;
        let sockets = Arc::new(sockets);
        *self.sockets.write() = Arc::downgrade(&sockets);
        self.link.seq.bump();
        let queue = |(qid, xsk)| -> Box<dyn RxQueue> {
            let (drops, policer) = (Arc::clone(&self.drops), Arc::clone(&self.policer));
            Box::new(AfXdpRxq { qid, xsk, drops, policer, _sockets: Arc::clone(&sockets) })
        };
        Ok(receivers.into_iter().enumerate().map(queue).collect())
    }

    fn send(&self, qid: usize, batch: &mut Batch, pool: &mut Pool) {
        let dropped = |reason, n: usize| self.drops.add(reason, n as u64);
        for p in batch.extract_if(.., |p| !p.ethernet) {
            dropped(DropReason::TxNoEthernet, 1);
            pool.give(p);
        }
        if batch.iter().any(|p| !p.offload.is_plain()) {
            plain(batch, pool);
        }
        let Some(sockets) = self.sockets().filter(|s| !s.tx.is_empty()) else {
            dropped(DropReason::TxDown, batch.len());
            return batch.drain(..).for_each(|p| pool.give(p));
        };
        let mut tx = sockets.tx[qid % sockets.tx.len()].lock();
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let n = tx.send(rest.iter().map(|p| p.data()));
            rest = &rest[n..];
            let Some(first) = rest.first() else { break };
            if first.len() > tx.longest() {
                dropped(DropReason::TxTooBig, 1);
                rest = &rest[1..];
            } else {
                dropped(DropReason::TxQueueFull, rest.len());
                break;
            }
        }
        drop(tx);
        batch.drain(..).for_each(|p| pool.give(p));
    }
    fn set_policing(&self, policing: &Policing) -> Result<()> {
        self.policer.set(policing);
        Ok(())
    }
}

/// Cuts super-frames and completes checksums.
fn plain(batch: &mut Batch, pool: &mut Pool) {
    let mut out = Batch::with_capacity(batch.len());
    for mut p in batch.drain(..) {
        if p.offload.gso.is_some() {
            segment(&p, &mut out);
            pool.give(p);
        } else {
            finish_csum(&mut p);
            out.push(p);
        }
    }
    *batch = out;
}

struct AfXdpRxq {
    qid: usize,
    xsk: XskRx,
    drops: Arc<DropCounters>,
    policer: Arc<Policer>,
    _sockets: Arc<Sockets>,
}

impl RxQueue for AfXdpRxq {
    fn queue_id(&self) -> usize {
        self.qid
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.xsk.as_raw_fd())
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        let from = out.len();
        self.xsk.recv(BATCH_MAX, |frame| {
            let mut p = pool.take();
            p.extend(frame);
            out.push(p);
        });
        self.policer.police(out, from, pool, &self.drops);
        Ok(out.len() - from)
    }
    fn drain(&mut self) {
        while self.xsk.recv(BATCH_MAX, |_| {}) > 0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Options::read("p0", &map)
    }

    #[test]
    fn options_have_defaults_and_limits() {
        assert_eq!(read(&[]), Ok(Options { mode: None, need_wakeup: true, n_rxq: 1 }));
        let o = read(&[("xdp-mode", "native"), ("use-need-wakeup", "false"), ("n_rxq", "4")]);
        assert_eq!(o, Ok(Options { mode: Some(Mode::Native), need_wakeup: false, n_rxq: 4 }));
        assert_eq!(read(&[("n_rxq", "0")]).map(|o| o.n_rxq), Ok(1));
        let text = |pairs| read(pairs).unwrap_err().to_string();
        assert_eq!(text(&[("xdp-mode", "fast")]), "p0: Unsupported xdp-mode 'fast'.");
        assert_eq!(text(&[("n_rxq", "65")]), "p0: Too big 'n_rxq' (65 > 64).");
    }
}
