//! One thread's forwarding context: from a received batch to lookups.
//!
//! Packets find their flow in this order:
//!
//! ```text
//!   batch ─► raw keys ─► exact-match cache ──hit──┐
//!                            │ miss               ▼
//!                        extraction ─► signature cache, classifier ─hit─► actions ─► transmit queues ─► flush
//!                            │                        ▲
//!                            └── miss ─► upcall ──────┘ (verdict: actions and, usually, a flow to install)
//! ```
//!
//! The first stages are loops over the whole batch, so that cache misses of different packets overlap; then
//! packets go in order, neighbours of the same flow as one run. A worker owns its caches, packet pool, transmit queues and scratch:
//! no lock is taken and nothing allocated for a packet that hits. Upcalls are answered inline, by this thread; a second packet of the
//! same new flow finds the flow installed.
//!
//! A worker serves one thread at a time. If it panics, [`Worker::recover`] makes it fit for the next batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use ib_base::rng::Rng;
use ib_base::time::Clock;
use ib_dpif::{DpifError, FlowPut, Install, Upcall, UpcallHandler, UpcallKind, UpcallVerdict};
use ib_flow::extract::extract;
use ib_flow::{Flow, Metadata, OdpPort};
use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Packet};
use ib_rcu::Turn;

use crate::drop::{DropCounters, DropReason};
use crate::emc::{self, Emc, NOWHERE};
use crate::exec::Context;
use crate::headers::ip_proto;
use crate::megaflow::Megaflow;
use crate::meter::Meters;
use crate::offload::{Offload, Sampler};
use crate::ports::{MAX_PORTS, PortTable};
use crate::rawkey::{KEY_WORDS, RawKey};
use crate::smc::{Place, Smc};
use crate::stats::WorkerStats;
use crate::table::{FlowTable, View};
use crate::tx::TxQueues;
use ib_dpif::ufid::ufid_of_key;

/// Free packets that a worker keeps.
const POOL_PACKETS: usize = 512;
/// Flows beyond which the signature cache is worth its memory, whatever their masks.
const MANY_FLOWS: usize = 4096;
/// Distinguishes "no hash" from a hash.
const HASHED: u64 = 1;

/// What all workers of a datapath share.
pub struct Shared {
    /// Flows.
    pub table: Arc<FlowTable>,
    /// Ports.
    pub ports: PortTable,
    /// Meters.
    pub meters: Meters,
    /// Bonds for `lb_output`.
    pub bonds: crate::bond::Bonds,
    /// Connections.
    pub conntrack: ib_conntrack::Conntrack,
    /// Drops by reason.
    pub drops: Arc<DropCounters>,
    /// What forwards hot flows in our place.
    pub offload: Arc<Offload>,
    /// Who answers misses.
    pub handler: ArcSwapOption<Arc<dyn UpcallHandler>>,
    /// Time.
    pub clock: Clock,
    /// One in so many new keys enters the exact-match cache; 0: none.
    pub emc_insert_inv_prob: AtomicU32,
    /// The signature cache is wanted from the first flow on; otherwise it comes with many flows, or many masks.
    pub smc: AtomicBool,
}

impl Shared {
    /// Nothing yet.
    pub fn new(clock: Clock, max_flows: usize) -> Shared {
        let drops = Arc::<DropCounters>::default();
        let offload = Arc::new(Offload::new(clock.clone(), &drops));
        let table = FlowTable::new(Rng::from_os().next_u64() | 1, max_flows);
        table.set_offload(&offload);
        Shared {
            table: Arc::new(table),
            offload,
            ports: PortTable::default(),
            meters: Meters::default(),
            bonds: crate::bond::Bonds::default(),
            conntrack: ib_conntrack::Conntrack::default(),
            drops,
            handler: ArcSwapOption::empty(),
            clock,
            emc_insert_inv_prob: AtomicU32::new(emc::DEFAULT_INSERT_INV_PROB),
            smc: AtomicBool::new(false),
        }
    }
}

/// How far ordinary packets had to walk from subtable to subtable.
#[derive(Default)]
struct Walks {
    /// Subtables looked at in vain this second.
    in_vain: u64,
    since_ms: u64,
}

impl Walks {
    /// In a second: a few thousandths of a thread's time.
    const LONG: u64 = 100_000;

    /// Whether a signature cache would spare a good deal of it.
    fn are_long(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.since_ms) >= 1000 {
            *self = Walks { in_vain: 0, since_ms: now_ms };
        }
        self.in_vain > Walks::LONG
    }
}

/// What the fast stages know about a packet of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Raw {
    key: RawKey,
    /// 0: this packet has no raw key.
    hash: u64,
    slot: u32,
    /// Suggestion of the signature cache.
    place: Option<Place>,
}

const NO_RAW: Raw = Raw { key: RawKey([0; KEY_WORDS]), hash: 0, slot: NOWHERE, place: None };

/// See the module.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stats: Arc<WorkerStats>,
    /// Flows are found, run and counted within a turn.
    turn: Turn,
    view: View,
    emc: Emc,
    smc: Smc,
    walks: Walks,
    raws: Vec<Raw>,
    #[expect(clippy::vec_box, reason = "a key is 728 bytes; boxes move in and out, keys do not")]
    keys: Vec<Box<Flow>>,
    pub(crate) tx: TxQueues,
    pub(crate) pool: Pool,
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    emc_inv_prob: u32,
    /// Every key enters the exact-match cache, unless that is off.
    cache_all: bool,
    /// The port of the batch may use the exact-match cache.
    emc_on: bool,
    /// All flows of the port of the batch are simple: hits are counted as such.
    simple: bool,
    /// Core of the PMD thread; `None`: another thread.
    core: Option<u32>,
    /// When to look for a hot flow again.
    sampler: Sampler,
    /// What answers to packets that are too big may be sent.
    pub(crate) errors: Allowance,
}

/// Answers a second, and as many at once.
const ERRORS_PER_S: u64 = 1000;

/// Limits the rate of something by milliseconds that have passed.
#[derive(Default)]
pub(crate) struct Allowance {
    left: u64,
    as_of_ms: u64,
}

impl Allowance {
    /// Whether one more is allowed at `now_ms`; if so it is taken.
    pub(crate) fn take(&mut self, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.as_of_ms);
        self.left = self.left.saturating_add(passed.saturating_mul(ERRORS_PER_S) / 1000).min(ERRORS_PER_S);
        self.as_of_ms = now_ms;
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// TCP flags of a key for a flow's statistics.
fn tcp_flags(key: &Flow) -> u16 {
    let tcp = key.nw_proto == ip_proto::TCP && matches!(key.dl_type.get(), 0x0800 | 0x86dd);
    if tcp { key.tcp_flags.get() & 0x0fff } else { 0 }
}

impl Worker {
    /// A worker that transmits on queue `qid` of every port.
    pub fn new(shared: &Arc<Shared>, stats: &Arc<WorkerStats>, qid: usize) -> Worker {
        Worker {
            shared: Arc::clone(shared),
            stats: Arc::clone(stats),
            turn: shared.table.turns().join(),
            view: View::new(&shared.table),
            emc: Emc::default(),
            smc: Smc::default(),
            walks: Walks::default(),
            raws: Vec::with_capacity(BATCH_MAX),
            keys: Vec::new(),
            tx: TxQueues::new(qid),
            pool: Pool::new(POOL_PACKETS),
            rng: Rng::from_os(),
            now_ms: 0,
            emc_inv_prob: emc::DEFAULT_INSERT_INV_PROB,
            cache_all: false,
            emc_on: true,
            simple: false,
            core: None,
            sampler: Sampler::default(),
            errors: Allowance { left: ERRORS_PER_S, as_of_ms: 0 },
        }
    }

    /// The same, for the PMD thread on this core.
    pub fn on_core(mut self, core: u32) -> Worker {
        self.core = Some(core);
        self
    }

    /// Whether packets of the next batch may use the exact-match cache.
    pub fn set_emc(&mut self, on: bool) {
        self.emc_on = on;
    }

    /// The same, with every key entering the exact-match cache at once: for the main loop, whose counters tests look at.
    pub fn cache_all(mut self) -> Worker {
        self.cache_all = true;
        self
    }

    /// The packet pool, to receive into.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// Subtables looked at so far.
    pub fn probes(&self) -> u64 {
        self.view.probes
    }

    fn begin(&mut self) {
        self.turn.begin();
        self.now_ms = self.shared.clock.now().as_ms();
        self.emc_inv_prob = self.shared.emc_insert_inv_prob.load(Ordering::Relaxed);
        if self.cache_all {
            self.emc_inv_prob = self.emc_inv_prob.min(1);
        }
        if !self.emc_on {
            self.emc_inv_prob = 0;
        }
    }

    fn end(&mut self) {
        self.turn.end();
        self.flush();
        self.view.rank(self.now_ms);
        self.emc.sweep();
        self.smc.sweep();
    }

    /// Forwards packets that have just been received on `in_port`; `batch` is empty afterwards.
    pub fn input(&mut self, in_port: OdpPort, batch: &mut Batch) {
        self.begin();
        self.stats.received.add(batch.len() as u64);
        self.simple = self.view.is_simple(in_port.0);
        let hot = if self.sampler.is_due(batch.len()) { self.sample(in_port, batch) } else { None };
        let mut raws = std::mem::take(&mut self.raws);
        self.find_cached(in_port, batch, &mut raws);
        let mut packets = batch.drain(..);
        let mut at = 0;
        while let Some(packet) = packets.next() {
            let raw = &raws[at];
            if raw.slot != NOWHERE
                && let Some(flow) = self.emc.borrow(raw.slot, raw.hash, &raw.key)
            {
                let same = |r: &&Raw| r.slot == raw.slot && r.key.same(&raw.key);
                let run = 1 + raws[at + 1..].iter().take_while(same).count();
                self.run_hits(&flow, in_port, &raws[at..at + run], packet, &mut packets);
                self.emc.give_back(raw.slot, raw.hash, flow);
                at += run;
                continue;
            }
            let raw = (raw.hash != 0).then_some(raw);
            self.lookup(packet, Metadata { in_port, ..Metadata::default() }, raw, Context::default());
            at += 1;
        }
        drop(packets);
        self.raws = raws;
        self.end();
        if let Some((flow, key)) = hot {
            // Now that the batch has left, and nothing waited behind it, what comes next overtakes nothing.
            let offered = self.shared.offload.offer(&flow, &key);
            let taken = matches!(offered, Ok(()) | Err(ib_accel::Reason::Preparing));
            self.keys.push(key);
            self.sampler.next(taken);
        }
    }

    /// Raw keys and what the caches say about them, one tight loop a stage: misses of the processor's caches overlap.
    fn find_cached(&mut self, in_port: OdpPort, batch: &Batch, raws: &mut Vec<Raw>) {
        raws.resize(batch.len(), NO_RAW);
        let exact = self.emc_inv_prob != 0;
        if !exact && !self.shared.smc.load(Ordering::Relaxed) {
            raws.fill(NO_RAW);
            return;
        }
        let seed = self.shared.table.seed();
        for (packet, raw) in batch.iter().zip(raws.iter_mut()) {
            raw.slot = NOWHERE;
            raw.place = None;
            raw.hash = raw.key.fill(packet, in_port.0, seed).map_or(0, |h| h | HASHED);
        }
        for raw in raws.iter_mut().filter(|r| exact && r.hash != 0) {
            raw.slot = self.emc.candidate(raw.hash);
        }
        let mut warm = 0;
        for raw in raws.iter() {
            warm ^= self.emc.warm(raw.slot);
        }
        if !self.smc.is_on() {
            std::hint::black_box(warm);
            let many = self.shared.table.len() > MANY_FLOWS || self.walks.are_long(self.now_ms);
            if many || self.shared.smc.load(Ordering::Relaxed) {
                self.smc.turn_on();
            }
            return;
        }
        for raw in raws.iter_mut().filter(|r| r.slot == NOWHERE && r.hash != 0) {
            raw.place = self.smc.candidate(raw.hash);
        }
        // The flows and their keys come into the cache while nobody waits for them yet.
        for raw in raws.iter() {
            warm ^= raw.place.and_then(|p| self.smc.peek(p)).map_or(0, Megaflow::first_word);
        }
        std::hint::black_box(warm);
    }

    /// The flow and key of one of the packets, to be offered to the accelerator.
    #[cold]
    fn sample(&mut self, in_port: OdpPort, batch: &Batch) -> Option<(Arc<Megaflow>, Box<Flow>)> {
        if !self.shared.offload.is_on() || batch.is_empty() {
            self.sampler.idle();
            return None;
        }
        let at = self.rng.below(batch.len() as u64) as usize;
        let key = self.key_of(&batch[at], &Metadata { in_port, ..Metadata::default() });
        match self.view.find(&key) {
            Some(flow) => Some((flow, key)),
            None => {
                self.keys.push(key);
                self.sampler.next(false);
                None
            }
        }
    }

    /// Packets that follow each other and hit the same flow.
    fn run_hits(
        &mut self,
        flow: &Megaflow,
        in_port: OdpPort,
        raws: &[Raw],
        first: Packet,
        rest: &mut impl Iterator<Item = Packet>,
    ) {
        let program = flow.program();
        let (mut bytes, mut flags) = (0, 0);
        let packets = std::iter::once(first).chain(rest.take(raws.len() - 1));
        if let Some(port) = program.forward {
            for (packet, raw) in packets.zip(raws) {
                bytes += packet.len() as u64;
                flags |= raw.key.tcp_flags(packet.data());
                self.output(port, packet);
            }
        } else {
            for (packet, raw) in packets.zip(raws) {
                bytes += packet.len() as u64;
                flags |= raw.key.tcp_flags(packet.data());
                let md = Metadata { in_port, ..Metadata::default() };
                self.run(packet, md, &program.actions, Context::of(&program.actions));
            }
        }
        let n = raws.len() as u64;
        if self.simple {
            self.stats.simple_hits.add(n);
        } else {
            self.stats.emc_hits.add(n);
        }
        flow.count(n, bytes, flags, self.now_ms);
    }

    /// Finds the flow of one packet the long way and runs it.
    pub(crate) fn lookup(&mut self, packet: Packet, md: Metadata, raw: Option<&Raw>, cx: Context<'_>) {
        if packet.ethernet && packet.len() < 14 {
            return self.drop_packet(packet, DropReason::RxInvalid);
        }
        let mut key = self.keys.pop().unwrap_or_default();
        extract(&packet, &md, &mut key);
        if let Some(place) = raw.and_then(|r| r.place)
            && let Some(flow) = self.smc.borrow(place, key.words())
        {
            if self.simple {
                self.stats.simple_hits.add(1);
            } else if self.shared.smc.load(Ordering::Relaxed) {
                self.stats.smc_hits.add(1);
            } else {
                // An operator who has not asked for the signature cache finds it under the classifier.
                self.stats.megaflow_hits.add(1);
                self.stats.megaflow_probes.add(1);
            }
            if let Some(raw) = raw {
                self.remember_exactly(raw, &flow);
            }
            self.run_found(&flow, packet, md, key, cx);
            return self.smc.give_back(place, flow);
        }
        let before = self.view.probes;
        if let Some(flow) = self.view.find(&key) {
            let probes = self.view.probes - before;
            if self.simple {
                self.stats.simple_hits.add(1);
            } else {
                self.stats.megaflow_hits.add(1);
                self.stats.megaflow_probes.add(probes);
            }
            if raw.is_some() {
                self.walks.in_vain += probes - 1;
            }
            self.remember(raw, &flow);
            self.run_found(&flow, packet, md, key, cx);
        } else {
            self.miss(packet, md, key, raw, cx);
        }
    }

    /// One packet of a flow that was found for its whole key.
    #[inline]
    fn run_found(&mut self, flow: &Megaflow, packet: Packet, md: Metadata, key: Box<Flow>, cx: Context<'_>) {
        flow.count(1, packet.len() as u64, tcp_flags(&key), self.now_ms);
        self.keys.push(key);
        let program = flow.program();
        match program.forward {
            Some(port) => self.output(port, packet),
            None => self.run(packet, md, &program.actions, cx.with_actions(&program.actions)),
        }
    }

    /// Puts a new key into the signature cache, and into the exact-match cache if chance will have it.
    #[inline]
    fn remember(&mut self, raw: Option<&Raw>, flow: &Arc<Megaflow>) {
        if let Some(raw) = raw {
            self.remember_exactly(raw, flow);
            self.smc.insert(raw.hash, flow);
        }
    }

    #[inline]
    fn remember_exactly(&mut self, raw: &Raw, flow: &Arc<Megaflow>) {
        if self.emc_inv_prob == 0 {
            return;
        }
        if self.emc_inv_prob == 1 || self.rng.below(u64::from(self.emc_inv_prob)) == 0 {
            self.emc.insert(&raw.key, raw.hash, flow);
        }
    }

    #[cold]
    fn miss(&mut self, packet: Packet, md: Metadata, key: Box<Flow>, raw: Option<&Raw>, cx: Context<'_>) {
        let asked = std::time::Instant::now();
        let verdict = self.upcall(UpcallKind::Miss, &packet, &key);
        self.stats.upcall_ns.add(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let Some(verdict) = verdict else {
            self.stats.upcalls_failed.add(1);
            self.keys.push(key);
            return self.drop_packet(packet, DropReason::UpcallError);
        };
        self.stats.upcalls_ok.add(1);
        if let Some(Install { mask, actions }) = &verdict.install {
            let put = FlowPut {
                modify: false,
                create: true,
                zero_stats: false,
                key: &key,
                mask,
                ufid: Some(verdict.ufid),
                actions: Arc::clone(actions),
            };
            let result = match self.shared.table.install(&put) {
                Ok(flow) => {
                    flow.set_core(self.core);
                    self.remember(raw, &flow);
                    Ok(())
                }
                // Another thread's packet of the same flow was faster.
                Err(DpifError::Exists(_)) if self.shared.table.find_ufid(verdict.ufid).is_some() => Ok(()),
                Err(e) => Err(e),
            };
            if let Some(handler) = &*self.shared.handler.load() {
                handler.installed(verdict.ufid, result);
            }
        }
        self.keys.push(key);
        if verdict.actions.is_empty() {
            // The verdict is to do nothing; what the handler took, it took.
            return self.pool.give(packet);
        }
        self.run(packet, md, &verdict.actions, cx.with_actions(&verdict.actions));
    }

    /// Asks the control plane; `None` if there is nobody.
    pub(crate) fn upcall(&self, kind: UpcallKind<'_>, packet: &Packet, key: &Flow) -> Option<UpcallVerdict> {
        let handler = self.shared.handler.load();
        let handler = handler.as_ref()?;
        let ufid = ufid_of_key(key, self.shared.table.seed());
        Some(handler.upcall(&Upcall { kind, packet, key, ufid, now_ms: self.now_ms }))
    }

    /// A key in scratch memory: the caller's until it gives it back by [`Self::give_key`].
    pub(crate) fn key_of(&mut self, packet: &Packet, md: &Metadata) -> Box<Flow> {
        let mut key = self.keys.pop().unwrap_or_default();
        extract(packet, md, &mut key);
        key
    }

    pub(crate) fn give_key(&mut self, key: Box<Flow>) {
        self.keys.push(key);
    }

    /// Runs actions on one packet that did not come from a port.
    pub fn execute(&mut self, packet: Packet, md: Metadata, actions: &[ib_dpif::Action]) {
        self.begin();
        self.simple = false;
        self.run(packet, md, actions, Context::default());
        self.end();
    }

    /// Counts and recycles.
    pub(crate) fn drop_packet(&mut self, packet: Packet, reason: DropReason) {
        self.shared.drops.add(reason, 1);
        self.pool.give(packet);
    }

    /// Queues for a port.
    #[inline]
    pub(crate) fn output(&mut self, port: OdpPort, packet: Packet) {
        if port.0 >= MAX_PORTS {
            return self.drop_packet(packet, DropReason::InvalidPort);
        }
        if self.tx.push(port, packet) {
            self.tx.flush_port(port, &self.shared, &self.stats, &mut self.pool);
        }
    }

    fn flush(&mut self) {
        self.tx.flush(&self.shared, &self.stats, &mut self.pool);
    }

    /// After a panic: forgets what was in flight. Returns how many packets were lost in transmit queues.
    pub fn recover(&mut self) -> usize {
        self.turn.end();
        self.emc.clear();
        self.smc.clear();
        self.view = View::new(&self.shared.table);
        self.tx.discard()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp_v4;
    use ib_dpif::Action;
    use ib_flow::Mask;
    use ib_packet::{Be16, Be32};

    /// A worker in front of 64 masks with a flow each, by destination port; no exact-match cache to speak of.
    fn worker() -> Worker {
        let shared = Arc::new(Shared::new(Clock::simulated(), 1000));
        shared.emc_insert_inv_prob.store(u32::MAX, Ordering::Relaxed);
        for n in 0..64 {
            let mut mask = Mask::default();
            mask.0.in_port = u32::MAX;
            mask.0.tp_dst = Be16::MAX;
            mask.0.nw_src = Be32::new(u32::MAX << (n % 8));
            mask.0.nw_dst = Be32::new(u32::MAX << (n / 8));
            let frame = udp_v4(1, 2, 7, 100 + n);
            let mut key = Flow::zeroed();
            let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
            extract(&Packet::from_frame(&frame), &md, &mut key);
            let (modify, create, zero_stats, ufid) = (false, true, false, None);
            let actions: Arc<[Action]> = Arc::new([]);
            let put = FlowPut { modify, create, zero_stats, key: &key, mask: &mask, ufid, actions };
            shared.table.put(&put).unwrap();
        }
        Worker::new(&shared, &Arc::default(), 0)
    }

    fn feed(worker: &mut Worker, batches: usize, dport: u16) {
        for _ in 0..batches {
            let mut batch: Batch = (0..32).map(|_| Packet::from_frame(&udp_v4(1, 2, 7, dport))).collect();
            worker.input(OdpPort(1), &mut batch);
        }
    }

    #[test]
    fn long_walks_bring_the_signature_cache() {
        let mut w = worker();
        feed(&mut w, 100, 100);
        assert!(!w.smc.is_on(), "few flows, the first mask");
        feed(&mut w, 60, 163);
        assert!(w.smc.is_on(), "few flows, the last of many masks");
        let before = w.view.probes;
        feed(&mut w, 2, 163);
        assert!(w.view.probes - before <= 64, "one walk to remember it");
    }
}
