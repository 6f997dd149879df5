//! Hot flows in the accelerator: which entries there stand for which megaflow, and what they counted.
//!
//! A worker offers the flow of a packet now and then ([`Sampler`]); [`Offload::offer`] has the [`Accelerator`] make an entry for packets like that
//! one. From then on such packets don't come up. Entries are a cache of megaflows, with these invariants:
//!
//! - Before a megaflow changes or dies, its entries are withdrawn ([`Offload::withdraw`], called by the flow table): no packet takes them when that
//!   returns, and what they counted is in the flow's counters. No new one appears until the change is done: a flow is barred first, an offer says that the flow
//!   is accelerated first, and each then looks at the other's mark.
//! - Who reads counters calls [`Offload::sync`] first, which adds what came since the last time.
//! - An entry depends on its port of entry and those of its outputs as they are; any change of a device ([`Offload::sync_ports`]) withdraws the entries of its port.
//! - What the accelerator lost by itself ([`Event`]) came up from that moment; it is tidied up at the next [`Offload::sync`].
//! - Entries that are idle for as long as a megaflow may be, go.
//!
//! Locks: the flow table's may be held when ours is taken, never the other way round. Forwarding threads never wait for it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ib_accel::{Accelerator, Counters, Device, EntryId, Event, Reason, Receivers, Tcx};
use ib_base::time::Clock;
use ib_base::vlog::module::DPIF_NETDEV;
use ib_base::vlog_info;
use ib_dpif::Action;
use ib_flow::{Flow, OdpPort};
use ib_netdev::{Bypass, Netdev};
use ib_packet::buffer::BATCH_MAX;
use parking_lot::Mutex;

use crate::drop::{DropCounters, DropReason};
use crate::megaflow::Megaflow;
use crate::ports::Port;

/// Packets that a flow must have had.
const HOT_PACKETS: u64 = 16;
/// Entries idle for so long go.
const IDLE_NS: u64 = 10_000_000_000;

/// When a worker looks for a hot flow: every so many packets, more often while that is fruitful. It waits, for a while, for a batch that is not full:
/// behind such a one no packet waits that the next ones, in the kernel's hands, would overtake.
#[derive(Debug)]
pub struct Sampler {
    left: usize,
    every: usize,
    full_batches: usize,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler { left: Sampler::OFTEN, every: Sampler::OFTEN, full_batches: 0 }
    }
}

impl Sampler {
    const OFTEN: usize = 32;
    const RARELY: usize = 4096;
    /// Full batches that it waits.
    const PATIENCE: usize = 64;

    /// After so many packets more: is it time?
    #[inline]
    pub fn is_due(&mut self, packets: usize) -> bool {
        self.left = self.left.saturating_sub(packets);
        self.left == 0 && self.may_look(packets)
    }
    #[cold]
    fn may_look(&mut self, packets: usize) -> bool {
        if packets >= BATCH_MAX && self.full_batches < Sampler::PATIENCE {
            self.full_batches += 1;
            return false;
        }
        self.full_batches = 0;
        true
    }
    /// It has looked.
    fn wait(&mut self, every: usize) {
        self.every = every;
        self.left = every;
    }
    /// It has looked and (`taken`) found one.
    pub fn next(&mut self, taken: bool) {
        self.wait(if taken { Sampler::OFTEN } else { (self.every * 2).min(Sampler::RARELY) });
    }
    /// There is nothing to look for.
    pub fn idle(&mut self) {
        self.wait(Sampler::RARELY / 8);
    }
}

/// A port's receive queues, for as long as the device is there.
struct Queues(Weak<dyn Netdev>);

impl Receivers for Queues {
    fn set_filter(&self, program: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
        self.0.upgrade().map_or(Ok(()), |netdev| netdev.set_rx_filter(program))
    }
}

/// A port as it was when it was last looked at.
struct Known {
    seq: u64,
    netdev: Weak<dyn Netdev>,
    name: String,
    /// `None`: the accelerator can't use it.
    bypass: Option<Bypass>,
}

impl Known {
    fn is(&self, port: &Port) -> bool {
        std::ptr::addr_eq(self.netdev.as_ptr(), Arc::as_ptr(&port.netdev))
    }
}

struct Entry {
    id: EntryId,
    /// Counts that the flow has already.
    seen: Counters,
    made_ns: u64,
}

/// A flow with entries.
struct Held {
    flow: Arc<Megaflow>,
    entries: Vec<Entry>,
    /// Ports that they depend on.
    ports: Vec<OdpPort>,
    /// What drops are counted under, if that is what they do.
    drop: Option<DropReason>,
}

/// Starts the accelerator; the error says why it can't.
pub type Maker = Box<dyn Fn() -> Result<Box<dyn Accelerator>, String> + Send>;

#[derive(Default)]
struct Inner {
    engine: Option<Box<dyn Accelerator>>,
    /// It could not be started; not tried again until it was switched off.
    failed: Option<String>,
    ports: BTreeMap<OdpPort, Known>,
    /// By address.
    flows: HashMap<usize, Held>,
}

/// See the module.
pub struct Offload {
    on: AtomicBool,
    told: AtomicBool,
    /// Locked with `inner` locked or alone.
    make: Mutex<Maker>,
    inner: Mutex<Inner>,
    packets: AtomicU64,
    bytes: AtomicU64,
    clock: Clock,
    drops: Arc<DropCounters>,
}

fn address(flow: &Megaflow) -> usize {
    std::ptr::from_ref(flow).addr()
}

impl Offload {
    /// Switched off.
    pub fn new(clock: Clock, drops: &Arc<DropCounters>) -> Offload {
        Offload {
            on: AtomicBool::new(false),
            told: AtomicBool::new(false),
            make: Mutex::new(Box::new(|| Ok(Box::new(Tcx::new()?)))),
            inner: Mutex::default(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            clock,
            drops: Arc::clone(drops),
        }
    }

    /// Whether it may take flows.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
    /// Whether listings of flows say which ones it has: only then if it was asked for by name, so that texts stay what they always were.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
    /// Sets that.
    pub fn set_told(&self, told: bool) {
        self.told.store(told, Ordering::Relaxed);
    }
    /// Packets that the accelerator has forwarded, as far as they have been brought in.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Has another accelerator than the kernel's started, the next time that it is switched on.
    pub fn set_maker(&self, make: Maker) {
        *self.make.lock() = make;
    }

    /// Switches it on or off; whether that is a change. Ports are to be synchronized after switching it on.
    pub fn set_on(&self, on: bool) -> bool {
        let changed = self.on.swap(on, Ordering::Relaxed) != on;
        if changed && !on {
            let inner = &mut *self.inner.lock();
            self.withdraw_where(inner, |_| true);
            *inner = Inner::default();
        }
        changed && on
    }

    /// Brings the accelerator's ports in line with these, all of a datapath by number. Called with port changes serialized.
    pub fn sync_ports(&self, ports: &[Arc<Port>]) {
        if !self.is_on() {
            return;
        }
        let inner = &mut *self.inner.lock();
        let gone: Vec<OdpPort> = inner
            .ports
            .iter()
            .filter(|(n, k)| {
                let at = ports.binary_search_by_key(n, |p| &p.number);
                !at.is_ok_and(|at| k.is(&ports[at]))
            })
            .map(|(n, _)| *n)
            .collect();
        for number in gone {
            self.forget(inner, number);
        }
        ports.iter().for_each(|port| self.look_at(inner, port));
    }

    /// A port has come.
    pub fn port_came(&self, port: &Arc<Port>) {
        if self.is_on() {
            self.look_at(&mut self.inner.lock(), port);
        }
    }

    fn look_at(&self, inner: &mut Inner, port: &Arc<Port>) {
        let seq = port.netdev.change_seq();
        if inner.ports.get(&port.number).is_some_and(|k| k.seq == seq) {
            return;
        }
        let bypass = port.netdev.bypass();
        if let Some(known) = inner.ports.get_mut(&port.number)
            && known.bypass == bypass
        {
            known.seq = seq;
            return;
        }
        self.forget(inner, port.number);
        let bypass = bypass.filter(|b| self.adopt(inner, port, *b));
        let name = port.netdev.name().to_owned();
        let known = Known { seq, netdev: Arc::downgrade(&port.netdev), name, bypass };
        inner.ports.insert(port.number, known);
    }

    /// Has the accelerator, started now if it is the first, take a port.
    fn adopt(&self, inner: &mut Inner, port: &Port, bypass: Bypass) -> bool {
        if inner.engine.is_none() && inner.failed.is_none() {
            match (self.make.lock())() {
                Ok(engine) => {
                    vlog_info!(DPIF_NETDEV, "hot flows are forwarded by the accelerator ({})", engine.name());
                    inner.engine = Some(engine);
                }
                Err(why) => {
                    vlog_info!(DPIF_NETDEV, "flows are not accelerated: {}", why);
                    inner.failed = Some(why);
                }
            }
        }
        let Some(engine) = &mut inner.engine else { return false };
        let device = Device { ifindex: bypass.ifindex, max_frame: bypass.max_frame };
        let queues =
            (port.n_rxq > 0).then(|| Arc::new(Queues(Arc::downgrade(&port.netdev))) as Arc<dyn Receivers>);
        engine.port_add(port.number, device, queues);
        true
    }

    /// A port is about to go.
    pub fn port_gone(&self, number: OdpPort) {
        if self.is_on() {
            self.forget(&mut self.inner.lock(), number);
        }
    }

    fn forget(&self, inner: &mut Inner, number: OdpPort) {
        if inner.ports.remove(&number).is_none_or(|known| known.bypass.is_none()) {
            return;
        }
        self.withdraw_where(inner, |held| held.ports.contains(&number));
        if let Some(engine) = &mut inner.engine {
            engine.port_del(number);
        }
    }

    /// Has packets like `key`, which belong to `flow`, forwarded by the accelerator. Never waits.
    pub fn offer(&self, flow: &Arc<Megaflow>, key: &Flow) -> Result<(), Reason> {
        if flow.stats().packets < HOT_PACKETS {
            return Err(Reason::NotHot);
        }
        let Some(mut inner) = self.inner.try_lock() else { return Err(Reason::NotHot) };
        let Inner { engine: Some(engine), flows, .. } = &mut *inner else { return Err(Reason::InPort) };
        let is_first = !flows.contains_key(&address(flow));
        flow.set_accelerated(true);
        let made = if flow.is_barred() || flow.is_dead() {
            Err(Reason::NotHot)
        } else {
            engine.put(key, flow.shape().mask(), &flow.program().actions)
        };
        let id = match made {
            Ok(id) => id,
            Err(reason) => {
                if is_first {
                    flow.set_accelerated(false);
                }
                return Err(reason);
            }
        };
        let entry = Entry { id, seen: Counters::default(), made_ns: engine.now_ns() };
        let held = flows.entry(address(flow)).or_insert_with(|| Held::new(flow, key.in_port));
        held.entries.push(entry);
        Ok(())
    }

    /// Bars the flow from being offered, and takes its entries out.
    pub fn withdraw(&self, flow: &Megaflow) {
        flow.set_barred(true);
        if !flow.is_accelerated() {
            return;
        }
        let mut inner = self.inner.lock();
        let Inner { engine: Some(engine), flows, .. } = &mut *inner else { return };
        if let Some(held) = flows.remove(&address(flow)) {
            self.give_back(&mut **engine, held);
        }
    }

    fn withdraw_where(&self, inner: &mut Inner, which: impl Fn(&Held) -> bool) {
        let Inner { engine: Some(engine), flows, .. } = inner else { return };
        let all: Vec<usize> = flows.iter().filter(|(_, h)| which(h)).map(|(at, _)| *at).collect();
        for held in all.iter().filter_map(|at| flows.remove(at)) {
            self.give_back(&mut **engine, held);
        }
    }

    fn give_back(&self, engine: &mut dyn Accelerator, mut held: Held) {
        let now_ns = engine.now_ns();
        for mut entry in std::mem::take(&mut held.entries) {
            let counters = engine.remove(entry.id);
            self.count(&held, &mut entry, counters, now_ns);
        }
        held.flow.set_accelerated(false);
    }

    /// Adds what an entry counted since the last time.
    fn count(&self, held: &Held, entry: &mut Entry, now: Counters, now_ns: u64) {
        let packets = now.packets.wrapping_sub(entry.seen.packets);
        if packets == 0 {
            return;
        }
        let bytes = now.bytes.wrapping_sub(entry.seen.bytes);
        let idle_ms = now_ns.saturating_sub(now.used_ns) / 1_000_000;
        let used_ms = self.clock.now().as_ms().saturating_sub(idle_ms);
        held.flow.count(packets, bytes, now.tcp_flags, used_ms.max(held.flow.stats().used_ms));
        if let Some(reason) = held.drop {
            self.drops.add(reason, packets);
        }
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        entry.seen = now;
    }

    /// Follows what the accelerator has lost by itself.
    fn hear(&self, inner: &mut Inner) {
        let Some(engine) = &mut inner.engine else { return };
        let events = engine.events();
        for event in events {
            match event {
                Event::Gone(id) => self.take_out(inner, id),
                Event::Reset => self.withdraw_where(inner, |_| true),
                Event::Lost => {
                    self.withdraw_where(inner, |_| true);
                    vlog_info!(DPIF_NETDEV, "the accelerator is lost; flows are not accelerated");
                    inner.engine = None;
                    inner.failed = Some("lost".to_owned());
                    inner.ports.values_mut().for_each(|known| known.bypass = None);
                    return;
                }
            }
        }
    }

    fn take_out(&self, inner: &mut Inner, id: EntryId) {
        let Inner { engine: Some(engine), flows, .. } = inner else { return };
        let Some((flow, held)) = flows.iter_mut().find(|(_, h)| h.entries.iter().any(|e| e.id == id)) else {
            return;
        };
        let flow = *flow;
        let now_ns = engine.now_ns();
        let mut entries = std::mem::take(&mut held.entries);
        for entry in entries.extract_if(.., |e| e.id == id) {
            let mut entry = entry;
            let counters = engine.remove(id);
            self.count(held, &mut entry, counters, now_ns);
        }
        held.entries = entries;
        if held.entries.is_empty() {
            held.flow.set_accelerated(false);
            flows.remove(&flow);
        }
    }

    /// Brings counters in, and takes out what has been idle for long.
    pub fn sync(&self) {
        if !self.is_on() {
            return;
        }
        let inner = &mut *self.inner.lock();
        self.hear(inner);
        let Inner { engine: Some(engine), flows, .. } = inner else { return };
        let now_ns = engine.now_ns();
        flows.retain(|_, held| {
            let mut entries = std::mem::take(&mut held.entries);
            entries.retain_mut(|entry| {
                let counters = engine.counters(entry.id);
                let idle = now_ns.saturating_sub(counters.used_ns.max(entry.made_ns)) > IDLE_NS;
                let counters = if idle { engine.remove(entry.id) } else { counters };
                self.count(held, entry, counters, now_ns);
                !idle
            });
            held.entries = entries;
            if held.entries.is_empty() {
                held.flow.set_accelerated(false);
            }
            !held.entries.is_empty()
        });
    }

    /// Why a flow is not accelerated. `key`: of one of its packets.
    fn reason(inner: &Inner, flow: &Megaflow, key: &Flow) -> Reason {
        let Some(engine) = &inner.engine else { return Reason::InPort };
        if let Err(reason) = engine.check(key, flow.shape().mask(), &flow.program().actions) {
            return reason;
        }
        let entries: usize = inner.flows.values().map(|h| h.entries.len()).sum();
        if entries >= engine.capacity() { Reason::Full } else { Reason::NotHot }
    }

    /// What it does, as text, and for each flow of `flows` whether it is accelerated or why not: in sum, or (`each`) one by one.
    pub fn show(&self, flows: &[Arc<Megaflow>], each: bool) -> String {
        self.sync();
        let mut out = String::new();
        let inner = &*self.inner.lock();
        match (&inner.engine, &inner.failed) {
            (Some(engine), _) => {
                let entries: usize = inner.flows.values().map(|h| h.entries.len()).sum();
                let (name, room) = (engine.name(), engine.capacity());
                let _ = writeln!(out, "  accelerator: {name}, {entries} of {room} entries");
            }
            (None, Some(why)) => {
                let _ = writeln!(out, "  accelerator: none ({why})");
            }
            (None, None) => out.push_str("  accelerator: off\n"),
        }
        let (packets, bytes) = (self.packets(), self.bytes.load(Ordering::Relaxed));
        let _ = writeln!(out, "  forwarded: {packets} packets, {bytes} bytes");
        let usable = inner.ports.values().filter(|k| k.bypass.is_some());
        let names: Vec<&str> = usable.map(|k| k.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let _ = writeln!(out, "  ports: {names}");
        let mut not: BTreeMap<String, usize> = BTreeMap::new();
        let mut lines = String::new();
        let mut accelerated = 0;
        for flow in flows {
            let state = if flow.is_accelerated() {
                accelerated += 1;
                "accelerated".to_owned()
            } else {
                let reason = Self::reason(inner, flow, &flow.info().key).to_string();
                *not.entry(reason.clone()).or_default() += 1;
                reason
            };
            if each {
                let _ = writeln!(lines, "    ufid:{}: {state}", flow.ufid());
            }
        }
        let _ = writeln!(out, "  flows: {accelerated} accelerated, {} not", flows.len() - accelerated);
        for (reason, n) in not {
            let _ = writeln!(out, "    {reason}: {n}");
        }
        out + &lines
    }
}

impl Held {
    fn new(flow: &Arc<Megaflow>, in_port: u32) -> Held {
        let program = flow.program();
        let outputs = program.actions.iter().filter_map(|a| match a {
            Action::Output(port) => Some(*port),
            _ => None,
        });
        let ports: Vec<OdpPort> = std::iter::once(OdpPort(in_port)).chain(outputs).collect();
        let drop = match &*program.actions {
            [] => Some(DropReason::NoActions),
            [Action::Drop(code)] => Some(DropReason::of_action(*code)),
            _ => None,
        };
        Held { flow: Arc::clone(flow), entries: Vec::new(), ports, drop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_more_rarely_while_there_is_nothing() {
        let mut s = Sampler::default();
        let mut wait = || {
            let n = (1..).find(|_| s.is_due(1)).unwrap();
            s.next(false);
            n
        };
        assert_eq!([wait(), wait(), wait()], [32, 64, 128]);
        s.next(true);
        assert_eq!((1..).find(|_| s.is_due(1)), Some(32));
    }

    #[test]
    fn it_waits_for_a_gap_but_not_for_ever() {
        let mut s = Sampler::default();
        assert!(!s.is_due(BATCH_MAX));
        assert!(s.is_due(1));
        assert_eq!((1..).find(|_| s.is_due(BATCH_MAX)), Some(Sampler::PATIENCE + 1));
    }
}
