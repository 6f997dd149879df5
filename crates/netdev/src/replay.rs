//! Ports without I/O, to measure what the rest costs: `replay` receives the frames of a capture file from memory, again and again
//! without end; `null` receives nothing. Both count and drop what is sent to them.
//!
//! Options of `replay`: `pcap_rx`, the file, read whole when the option is set; `n_rxq`, how many queues, each of which
//! replays all of it. A replay port always has packets, so it wants a polling thread ([`Netdev::is_pmd`]) and takes all
//! of its core's time. It obeys no flag but UP: a port that is down rests.
//!
//! Receiving costs a copy of the frame into a packet of the pool. Memory: the frames, packed, at most [`MAX_BYTES`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::pcap::{LINKTYPE_ETHERNET, PcapReader};
use ib_packet::{Batch, Mac};
use parking_lot::Mutex;

use crate::changes::{Changes, DeviceSeq};
use crate::contract::{Carrier, Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::patch::random_mac;
use crate::registry::Provider;
use crate::stats::NetdevStats;

/// Most bytes of frames that a port keeps.
const MAX_BYTES: usize = 1 << 30;
/// Most receive queues.
const MAX_QUEUES: usize = 64;
/// The largest MTU that may be set.
const MAX_MTU: u32 = 65_535;

/// Makes ports of one of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryProvider {
    /// `replay`.
    Replay,
    /// `null`.
    Null,
}

impl Provider for MemoryProvider {
    fn kind(&self) -> &str {
        match self {
            MemoryProvider::Replay => "replay",
            MemoryProvider::Null => "null",
        }
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        Ok(Arc::new(Memory {
            name: name.to_owned(),
            kind: *self,
            seq: DeviceSeq::new(changes),
            control: Mutex::new(Control {
                mac: random_mac(),
                mtu: 1500,
                flags: Flags::UP,
                options: BTreeMap::new(),
            }),
            n_rxq: AtomicU32::new(1),
            source: Arc::default(),
            sent: Counts::default(),
        }))
    }
}

/// Frames end to end.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Frames {
    fn read(path: &str) -> io::Result<Frames> {
        let mut reader = PcapReader::new(BufReader::with_capacity(1 << 20, File::open(path)?))?;
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if reader.linktype != LINKTYPE_ETHERNET {
            return Err(invalid("not a capture of Ethernet frames"));
        }
        let mut all = Frames::default();
        while let Some((_, frame)) = reader.read()? {
            if all.bytes.len() + frame.len() > MAX_BYTES {
                return Err(invalid("too large to keep in memory"));
            }
            all.bytes.extend_from_slice(&frame);
            all.ends
                .push(u32::try_from(all.bytes.len()).map_err(|_| invalid("too large to keep in memory"))?);
        }
        if all.bytes.is_empty() {
            return Err(invalid("no frames in there"));
        }
        Ok(all)
    }
}

#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, packets: usize, bytes: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    fn read(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// What the port and its queues share.
#[derive(Debug, Default)]
struct Source {
    frames: Mutex<Arc<Frames>>,
    /// Counts changes of `frames`.
    generation: AtomicU64,
    down: AtomicBool,
    received: Counts,
}

struct Control {
    mac: Mac,
    mtu: u32,
    flags: Flags,
    options: BTreeMap<String, String>,
}

struct Memory {
    name: String,
    kind: MemoryProvider,
    seq: DeviceSeq,
    control: Mutex<Control>,
    n_rxq: AtomicU32,
    source: Arc<Source>,
    sent: Counts,
}

impl Netdev for Memory {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &str {
        Provider::kind(&self.kind)
    }

    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let mut control = self.control.lock();
        if control.options == *options && (self.kind == MemoryProvider::Null || !options.is_empty()) {
            return Ok(());
        }
        if self.kind == MemoryProvider::Replay {
            let name = &self.name;
            let Some(path) = options.get("pcap_rx").filter(|p| !p.is_empty()) else {
                return Err(Error::Config(format!("{name}: replay type requires a 'pcap_rx' argument")));
            };
            let n_rxq = options.get("n_rxq").map_or(Ok(1), |n| n.parse::<u32>());
            let n_rxq = n_rxq.ok().filter(|n| (1..=MAX_QUEUES as u32).contains(n)).ok_or_else(|| {
                Error::Config(format!("{name}: n_rxq must be a number from 1 to {MAX_QUEUES}"))
            })?;
            if control.options.get("pcap_rx") != Some(path) {
                let frames = Frames::read(path)
                    .map_err(|e| Error::Config(format!("{name}: could not read capture {path} ({e})")))?;
                *self.source.frames.lock() = Arc::new(frames);
                self.source.generation.fetch_add(1, Ordering::Release);
            }
            self.n_rxq.store(n_rxq, Ordering::Relaxed);
        }
        control.options.clone_from(options);
        drop(control);
        self.seq.bump();
        Ok(())
    }
    fn config(&self) -> BTreeMap<String, String> {
        self.control.lock().options.clone()
    }
    fn status(&self) -> BTreeMap<String, String> {
        let mut status = BTreeMap::from([("driver_name".to_owned(), Netdev::kind(self).to_owned())]);
        if self.kind == MemoryProvider::Replay {
            let frames = self.source.frames.lock().ends.len();
            status.insert("frames".to_owned(), frames.to_string());
            status.insert("n_rxq".to_owned(), self.n_rxq().to_string());
        }
        status
    }

    fn mac(&self) -> Result<Mac> {
        Ok(self.control.lock().mac)
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        self.control.lock().mac = mac;
        self.seq.bump();
        Ok(())
    }
    fn mtu(&self) -> Result<u32> {
        Ok(self.control.lock().mtu)
    }
    fn set_mtu(&self, mtu: u32) -> Result<()> {
        if !(68..=MAX_MTU).contains(&mtu) {
            return Err(Error::Os(ib_sys::errno::EINVAL));
        }
        self.control.lock().mtu = mtu;
        self.seq.bump();
        Ok(())
    }
    fn flags(&self) -> Result<Flags> {
        Ok(self.control.lock().flags)
    }
    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags> {
        let mut control = self.control.lock();
        let old = control.flags;
        control.flags = old.without(off).union(on);
        self.source.down.store(!control.flags.contains(Flags::UP), Ordering::Relaxed);
        let changed = control.flags != old;
        drop(control);
        if changed {
            self.seq.bump();
        }
        Ok(old)
    }
    fn ifindex(&self) -> Option<i32> {
        None
    }
    fn carrier(&self) -> Carrier {
        Carrier { up: true, resets: 0 }
    }

    fn stats(&self) -> Result<NetdevStats> {
        let (rx, tx) = (self.source.received.read(), self.sent.read());
        Ok(NetdevStats {
            rx_packets: Some(rx.0),
            rx_bytes: Some(rx.1),
            tx_packets: Some(tx.0),
            tx_bytes: Some(tx.1),
            rx_dropped: Some(0),
            tx_dropped: Some(0),
            ..NetdevStats::default()
        })
    }
    fn change_seq(&self) -> u64 {
        self.seq.read()
    }

    fn n_rxq(&self) -> usize {
        match self.kind {
            MemoryProvider::Replay => self.n_rxq.load(Ordering::Relaxed) as usize,
            MemoryProvider::Null => 0,
        }
    }
    fn is_pmd(&self) -> bool {
        self.kind == MemoryProvider::Replay
    }
    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        if self.kind == MemoryProvider::Null {
            return Err(Error::Unsupported);
        }
        let queue = |qid| -> Box<dyn RxQueue> {
            let source = Arc::clone(&self.source);
            Box::new(Replay { qid, source, frames: Arc::default(), generation: 0, next: 0, start: 0 })
        };
        Ok((0..self.n_rxq()).map(queue).collect())
    }

    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        self.sent.add(batch.len(), batch.iter().map(|p| p.len()).sum());
        batch.drain(..).for_each(|p| pool.give(p));
    }
    fn tx_can_gso(&self) -> bool {
        true
    }
}

/// One reader of the frames.
struct Replay {
    qid: usize,
    source: Arc<Source>,
    frames: Arc<Frames>,
    generation: u64,
    /// The frame that comes next, and where it starts.
    next: usize,
    start: usize,
}

impl RxQueue for Replay {
    fn queue_id(&self) -> usize {
        self.qid
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        let generation = self.source.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.frames = Arc::clone(&self.source.frames.lock());
            (self.generation, self.next, self.start) = (generation, 0, 0);
        }
        if self.frames.ends.is_empty() || self.source.down.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut bytes = 0;
        for _ in 0..BATCH_MAX {
            let end = self.frames.ends[self.next] as usize;
            let mut p = pool.take();
            p.extend(&self.frames.bytes[self.start..end]);
            bytes += end - self.start;
            out.push(p);
            (self.next, self.start) = (self.next + 1, end);
            if self.next == self.frames.ends.len() {
                (self.next, self.start) = (0, 0);
            }
        }
        self.source.received.add(BATCH_MAX, bytes);
        Ok(BATCH_MAX)
    }
    fn drain(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::PcapFile;

    fn open(kind: MemoryProvider) -> Arc<dyn Netdev> {
        kind.open("m0", &Arc::new(Changes::new().unwrap())).unwrap()
    }
    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_capture_comes_round_and_round() {
        let path = std::env::temp_dir().join(format!("ib-replay-{}.pcap", std::process::id()));
        let path = path.to_str().unwrap();
        let _ = std::fs::remove_file(path);
        let mut file = PcapFile::append(path).unwrap();
        for n in [1u8, 2, 3] {
            file.write(&[n; 60][..57 + usize::from(n)]);
        }
        let dev = open(MemoryProvider::Replay);
        dev.set_config(&options(&[("pcap_rx", path), ("n_rxq", "2")])).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut queues = dev.rx_queues().unwrap();
        assert_eq!((queues.len(), queues[1].queue_id(), dev.is_pmd()), (2, 1, true));
        let (mut pool, mut out) = (Pool::new(64), Batch::new());
        assert_eq!(queues[0].recv(&mut pool, &mut out).unwrap(), BATCH_MAX);
        let seen: Vec<_> = out.iter().take(4).map(|p| (p.data()[0], p.len())).collect();
        assert_eq!(seen, [(1, 58), (2, 59), (3, 60), (1, 58)]);
        let s = dev.stats().unwrap();
        assert_eq!((s.rx_packets, s.rx_bytes), (Some(32), Some(11 * 58 + 11 * 59 + 10 * 60)));
        dev.update_flags(Flags::UP, Flags::NONE).unwrap();
        assert_eq!(queues[0].recv(&mut pool, &mut out).unwrap(), 0, "down");
        // What is sent there is counted.
        dev.send(0, &mut out, &mut pool);
        assert!(out.is_empty());
        assert_eq!(dev.stats().unwrap().tx_packets, Some(32));
    }

    #[test]
    fn what_is_wrong_with_the_options_is_told_and_the_old_ones_stay() {
        let dev = open(MemoryProvider::Replay);
        let text = |o: &[(&str, &str)]| dev.set_config(&options(o)).unwrap_err().to_string();
        assert_eq!(text(&[]), "m0: replay type requires a 'pcap_rx' argument");
        assert_eq!(text(&[("pcap_rx", "/x"), ("n_rxq", "0")]), "m0: n_rxq must be a number from 1 to 64");
        assert!(
            text(&[("pcap_rx", "/nonexistent/x")]).starts_with("m0: could not read capture /nonexistent/x (")
        );
        assert!(dev.config().is_empty());
    }

    #[test]
    fn a_null_port_receives_nothing() {
        let dev = open(MemoryProvider::Null);
        assert_eq!(dev.set_config(&BTreeMap::new()), Ok(()));
        assert!(matches!(dev.rx_queues(), Err(Error::Unsupported)));
        assert!(!dev.is_pmd() && dev.n_rxq() == 0);
    }
}
