//! QoS of kernel devices: what is sent is shaped by the kernel's queueing disciplines, what is received is policed here.
//!
//! [`Shaper`] is a device's share of the kernel's `tc`: the discipline that we put at its root and its queues. Queue N
//! is class `1:N+1`; packets find it by their socket's priority. [`Policer`] is a pair of token buckets that receive
//! queues ask; while there is no limit that costs one relaxed load a batch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ib_base::vlog_warn;
use ib_packet::Batch;
use ib_packet::buffer::Pool;
use ib_sys::tc::{HtbClass, ROOT_CLASS, Simple, Tc};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::qos::{Capabilities, Details, Policing, QueueStats};
use crate::stats::{DropCounters, DropReason};

/// Most queues of a discipline that has them.
const MAX_QUEUES: u32 = 0xf000;
/// Limit for devices that do not tell their speed, bits a second.
const DEFAULT_MAX_RATE: u64 = 100_000_000;

/// Types, in the original's order.
pub const KINDS: &[&str] =
    &["linux-netem", "linux-fq_codel", "linux-codel", "linux-hfsc", "linux-noop", "linux-sfq", "linux-htb"];

/// What a device is, as far as shaping it goes.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Name, for messages.
    pub name: &'a str,
    /// Index.
    pub ifindex: i32,
    /// MTU.
    pub mtu: u32,
    /// Megabits a second; 0 unknown.
    pub speed_mbps: u32,
    /// Another process tells the kernel what we are told.
    pub elsewhere: bool,
}

/// What kernel devices of every kind answer of their QoS, by their `shaper` and `link`. How they take one, they tell themselves.
macro_rules! queues_of_the_kernel {
    () => {
        fn qos_types(&self) -> Vec<&'static str> {
            $crate::linux::qos::KINDS.to_vec()
        }
        fn qos_capabilities(&self, kind: &str) -> $crate::error::Result<$crate::qos::Capabilities> {
            $crate::linux::qos::capabilities(kind)
        }
        fn qos(&self) -> $crate::error::Result<(String, $crate::qos::Details)> {
            Ok(self.shaper.qos())
        }
        fn queue(&self, id: u32) -> $crate::error::Result<$crate::qos::Details> {
            self.shaper.queues().remove(&id).ok_or($crate::error::Error::Unsupported)
        }
        fn set_queue(&self, id: u32, details: &$crate::qos::Details) -> $crate::error::Result<()> {
            self.shaper.set_queue(self.link.shaped()?, id, details)
        }
        fn delete_queue(&self, id: u32) -> $crate::error::Result<()> {
            self.shaper.delete_queue(self.link.shaped()?, id)
        }
        fn queues(&self) -> $crate::error::Result<std::collections::BTreeMap<u32, $crate::qos::Details>> {
            Ok(self.shaper.queues())
        }
        fn queue_stats(&self, id: u32) -> $crate::error::Result<$crate::qos::QueueStats> {
            self.shaper.queue_stats(self.link.shaped()?, id)
        }
    };
}
pub(crate) use queues_of_the_kernel;

#[derive(Default)]
struct State {
    /// Type as configured; empty: none.
    kind: String,
    /// Settings in force, as `qos/show` prints them.
    details: Details,
    /// The whole device's limit, bytes a second.
    max_rate: u64,
    queues: BTreeMap<u32, Queue>,
}

struct Queue {
    details: Details,
    created_ms: i64,
}

/// See the module's description.
#[derive(Default)]
pub struct Shaper {
    state: Mutex<State>,
    active: AtomicBool,
}

fn number(details: &Details, key: &str) -> u64 {
    details.get(key).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn small(details: &Details, key: &str, default: u32) -> u32 {
    match u32::try_from(number(details, key)).unwrap_or(0) {
        0 => default,
        v => v,
    }
}

fn minor(queue: u32) -> Result<u16> {
    u16::try_from(queue + 1).ok().filter(|_| queue < MAX_QUEUES).ok_or(Error::Unsupported)
}

/// Milliseconds since some moment of this process.
fn now_ms() -> i64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(i64::MAX)
}

impl State {
    /// This is in force now.
    fn take(&mut self, kind: &str, details: Details, max_rate: u64, queues_stay: bool) {
        self.kind = if kind == "linux-noop" { String::new() } else { kind.to_owned() };
        self.details = details;
        self.max_rate = max_rate;
        if !queues_stay {
            self.queues.clear();
        }
    }
}

impl Shaper {
    /// Packets go through a discipline of ours.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// See [`crate::Netdev::qos`].
    pub fn qos(&self) -> (String, Details) {
        let state = self.state.lock();
        (state.kind.clone(), state.details.clone())
    }

    /// See [`crate::Netdev::set_qos`].
    pub fn set_qos(&self, dev: Device<'_>, kind: &str, wanted: &Details) -> Result<()> {
        if !kind.is_empty() && !KINDS.contains(&kind) {
            return Err(Error::Unsupported);
        }
        let mut state = self.state.lock();
        if kind.is_empty() && state.kind.is_empty() {
            return Ok(());
        }
        let speed = u64::from(dev.speed_mbps) * 1_000_000;
        let default_rate = if speed == 0 { DEFAULT_MAX_RATE } else { speed };
        let bits = match number(wanted, "max-rate") {
            0 => default_rate,
            v => v,
        };
        let has_classes = matches!(kind, "linux-htb" | "linux-hfsc");
        let mut details = Details::new();
        if has_classes {
            details.insert("max-rate".into(), (bits / 8 * 8).to_string());
        } else if !matches!(kind, "" | "linux-noop") {
            details.clone_from(wanted);
        }
        if state.kind == kind && state.details == details {
            return Ok(());
        }
        let classes_stay = has_classes && state.kind == kind;
        let max_rate = bits / 8;
        if dev.elsewhere {
            state.take(kind, details, max_rate, classes_stay);
            return Ok(());
        }
        let mut tc = Tc::open()?;
        let result = if classes_stay {
            Ok(())
        } else {
            // What is there goes first; a device that went has nothing.
            let _ = tc.clear(dev.ifindex);
            install(&mut tc, dev, kind, wanted)
        };
        let result = result.and_then(|()| match kind {
            "linux-htb" => {
                let class = HtbClass { min_rate: max_rate, max_rate, burst: dev.mtu, priority: 0 };
                tc.set_htb_class(dev.ifindex, ROOT_CLASS, &class)
            }
            "linux-hfsc" => tc.set_hfsc_class(dev.ifindex, ROOT_CLASS, max_rate, max_rate),
            _ => Ok(()),
        });
        if let Err(e) = result {
            let why = ib_base::errno::strerror(&e);
            vlog_warn!(
                ib_base::vlog::module::NETDEV_LINUX,
                "{}: Failed to install new qdisc: {why}",
                dev.name
            );
            let _ = tc.clear(dev.ifindex);
            *state = State::default();
            self.active.store(false, Ordering::Relaxed);
            return Err(e.into());
        }
        state.take(kind, details, max_rate, classes_stay);
        self.active.store(!state.kind.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// See [`crate::Netdev::queues`].
    pub fn queues(&self) -> BTreeMap<u32, Details> {
        self.state.lock().queues.iter().map(|(id, q)| (*id, q.details.clone())).collect()
    }

    /// Whether somebody made a queue.
    pub fn has_queue(&self, id: u32) -> bool {
        self.state.lock().queues.contains_key(&id)
    }

    /// See [`crate::Netdev::set_queue`].
    pub fn set_queue(&self, dev: Device<'_>, id: u32, wanted: &Details) -> Result<()> {
        let mut state = self.state.lock();
        let minor = minor(id)?;
        let floor = u64::from(dev.mtu);
        let ceiling = state.max_rate.max(floor);
        let min_rate = (number(wanted, "min-rate") / 8).clamp(floor, ceiling);
        let max_rate = match number(wanted, "max-rate") / 8 {
            0 => ceiling,
            v => v.clamp(min_rate, ceiling),
        };
        let mut details = Details::new();
        details.insert("min-rate".into(), (min_rate * 8).to_string());
        details.insert("max-rate".into(), (max_rate * 8).to_string());
        let mut class = HtbClass { min_rate, max_rate, burst: dev.mtu.saturating_add(64), priority: 0 };
        match state.kind.as_str() {
            "linux-htb" => {
                let burst = u32::try_from(number(wanted, "burst") / 8).unwrap_or(u32::MAX);
                class.burst = class.burst.max(burst);
                class.priority = u32::try_from(number(wanted, "priority")).unwrap_or(0);
                details.insert("burst".into(), (u64::from(class.burst) * 8).to_string());
                if class.priority != 0 {
                    details.insert("priority".into(), class.priority.to_string());
                }
            }
            "linux-hfsc" => {}
            _ => return Err(Error::Unsupported),
        }
        if state.queues.get(&id).is_some_and(|q| q.details == details) {
            return Ok(());
        }
        match state.kind.as_str() {
            _ if dev.elsewhere => {}
            "linux-htb" => Tc::open()?.set_htb_class(dev.ifindex, minor, &class)?,
            _ => Tc::open()?.set_hfsc_class(dev.ifindex, minor, min_rate, max_rate)?,
        }
        let created_ms = state.queues.get(&id).map_or_else(now_ms, |q| q.created_ms);
        state.queues.insert(id, Queue { details, created_ms });
        Ok(())
    }

    /// See [`crate::Netdev::delete_queue`].
    pub fn delete_queue(&self, dev: Device<'_>, id: u32) -> Result<()> {
        let mut state = self.state.lock();
        if state.queues.remove(&id).is_some() && !dev.elsewhere {
            Tc::open()?.delete_class(dev.ifindex, minor(id)?)?;
        }
        Ok(())
    }

    /// See [`crate::Netdev::queue_stats`].
    pub fn queue_stats(&self, dev: Device<'_>, id: u32) -> Result<QueueStats> {
        let created = self.state.lock().queues.get(&id).map(|q| q.created_ms).ok_or(Error::Unsupported)?;
        let stats = Tc::open()?.class_stats(dev.ifindex, minor(id)?)?;
        Ok(QueueStats {
            tx_bytes: Some(stats.bytes),
            tx_packets: Some(stats.packets),
            tx_errors: Some(stats.drops),
            age_ms: Some(now_ms() - created),
        })
    }

    /// Leaves the kernel as it was found.
    pub fn clear(&self, ifindex: Option<i32>) {
        if self.active.swap(false, Ordering::Relaxed)
            && let (Some(ifindex), Ok(mut tc)) = (ifindex, Tc::open())
        {
            let _ = tc.clear(ifindex);
        }
    }
}

/// See [`crate::Netdev::qos_capabilities`].
pub fn capabilities(kind: &str) -> Result<Capabilities> {
    match kind {
        "linux-htb" | "linux-hfsc" => Ok(Capabilities { n_queues: MAX_QUEUES }),
        _ if KINDS.contains(&kind) => Ok(Capabilities::default()),
        _ => Err(Error::Unsupported),
    }
}

fn install(tc: &mut Tc, dev: Device<'_>, kind: &str, d: &Details) -> std::io::Result<()> {
    let ifindex = dev.ifindex;
    let simple = match kind {
        "linux-htb" => return tc.install_htb(ifindex, 1),
        "linux-hfsc" => return tc.install_hfsc(ifindex, 1),
        "linux-codel" => Simple::Codel {
            target: small(d, "target", 5000),
            limit: small(d, "limit", 10_240),
            interval: small(d, "interval", 100_000),
        },
        "linux-fq_codel" => Simple::FqCodel {
            target: small(d, "target", 5000),
            limit: small(d, "limit", 10_240),
            interval: small(d, "interval", 100_000),
            flows: small(d, "flows", 1024),
            quantum: small(d, "quantum", dev.mtu + 14),
        },
        "linux-sfq" => {
            Simple::Sfq { quantum: small(d, "quantum", dev.mtu + 14), perturb: small(d, "perturb", 10) }
        }
        "linux-netem" => {
            let percent = small(d, "loss", 0).min(100);
            Simple::Netem {
                latency: small(d, "latency", 0),
                jitter: small(d, "jitter", 0),
                limit: small(d, "limit", 1000),
                loss: u32::try_from(u64::from(u32::MAX) * u64::from(percent) / 100).unwrap_or(u32::MAX),
            }
        }
        _ => return Ok(()),
    };
    tc.install_simple(ifindex, &simple)
}

/// Limits on what a device receives.
#[derive(Default)]
pub struct Policer {
    active: AtomicBool,
    buckets: Mutex<Option<Buckets>>,
}

/// A bucket may go below zero by its last packet, so that a super-frame passes whatever the burst is; what it took too
/// much is paid back before the next.
struct Buckets {
    limits: Policing,
    bits: Bucket,
    packets: Bucket,
}

/// A bucket in thousandths of its unit; a rate of zero is no limit.
struct Bucket {
    rate: u64,
    burst: i64,
    level: i64,
    filled: Instant,
}

impl Bucket {
    fn new(kilo_rate: u32, kilo_burst: u32, default_kilo_burst: u32, now: Instant) -> Bucket {
        let burst = if kilo_burst == 0 { default_kilo_burst } else { kilo_burst };
        let burst = i64::from(burst) * 1_000_000;
        Bucket { rate: u64::from(kilo_rate) * 1000, burst, level: burst, filled: now }
    }
    fn fill(&mut self, now: Instant) {
        let us = u64::try_from(now.saturating_duration_since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = i64::try_from(us.saturating_mul(self.rate) / 1000).unwrap_or(i64::MAX);
        if gained > 0 {
            self.level = self.level.saturating_add(gained).min(self.burst);
            self.filled = now;
        }
    }
    fn has(&self) -> bool {
        self.rate == 0 || self.level > 0
    }
    fn take(&mut self, n: usize) {
        self.level = self.level.saturating_sub(i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(1000));
    }
}

impl Policer {
    /// There are limits.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// See [`crate::Netdev::set_policing`].
    pub fn set(&self, limits: &Policing) {
        let mut buckets = self.buckets.lock();
        if buckets.as_ref().map_or(Policing::default(), |b| b.limits) == *limits {
            return;
        }
        let is_limit = limits.rate_kbps != 0 || limits.rate_kpps != 0;
        let now = Instant::now();
        *buckets = is_limit.then(|| Buckets {
            limits: *limits,
            bits: Bucket::new(limits.rate_kbps, limits.burst_kb, 8000, now),
            packets: Bucket::new(limits.rate_kpps, limits.burst_kpkts, 16, now),
        });
        self.active.store(is_limit, Ordering::Relaxed);
    }

    /// Drops, of what is in `batch` from `from` on, what exceeds the limits.
    pub fn police(&self, batch: &mut Batch, from: usize, pool: &mut Pool, drops: &DropCounters) {
        if !self.active.load(Ordering::Relaxed) || batch.len() == from {
            return;
        }
        let mut buckets = self.buckets.lock();
        let Some(b) = buckets.as_mut() else { return };
        let now = Instant::now();
        b.bits.fill(now);
        b.packets.fill(now);
        for p in batch.extract_if(from.., |p| {
            let passes = b.bits.has() && b.packets.has();
            if passes {
                b.bits.take(p.len() * 8);
                b.packets.take(1);
            }
            !passes
        }) {
            drops.add(DropReason::RxPoliced, 1);
            pool.give(p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::Packet;

    #[test]
    fn a_burst_passes_and_the_rest_is_dropped() {
        let policer = Policer::default();
        policer.set(&Policing { rate_kbps: 8, burst_kb: 8, ..Policing::default() });
        let (mut batch, mut pool, drops) = (Batch::new(), Pool::new(64), DropCounters::default());
        for _ in 0..20 {
            batch.push(Packet::from_frame(&[0; 100]));
        }
        policer.police(&mut batch, 0, &mut pool, &drops);
        assert_eq!((batch.len(), drops.read(DropReason::RxPoliced)), (10, 10));
        policer.set(&Policing::default());
        policer.police(&mut batch, 0, &mut pool, &drops);
        assert_eq!(batch.len(), 10);
    }

    #[test]
    fn packets_have_a_bucket_of_their_own() {
        let policer = Policer::default();
        policer.set(&Policing { rate_kpps: 1, burst_kpkts: 1, ..Policing::default() });
        let (mut pool, drops) = (Pool::new(64), DropCounters::default());
        let mut passed = 0;
        for _ in 0..60 {
            let mut batch = Batch::new();
            for _ in 0..32 {
                batch.push(Packet::from_frame(&[0; 60]));
            }
            policer.police(&mut batch, 0, &mut pool, &drops);
            passed += batch.len();
        }
        assert!((1000..1500).contains(&passed), "{passed}");
    }
}
