//! The flow table: tuple-space search, shared by all threads.
//!
//! Flows that match on the same port of entry make a [`PortClass`]; those of the same mask within it a
//! [`Subtable`], one hash table of masked keys. Megaflows are disjoint (translation sees to that), so that the
//! first subtable with a match has the answer, and each thread may try them in the order that suits its traffic.
//!
//! Readers take no lock: a subtable's hash table is an array of 32-bit signatures, looked at first, beside an array
//! of published flows. A miss in a subtable costs one signature load or two. Writers (`put`, `del`, `flush`) go one at a time
//! under a mutex that readers never touch. A resized table is published whole; the old one says so in `stale`, so that
//! threads which keep it by hand move on.
//!
//! A thread's own view is a [`View`]: the tables it has seen, ordered by its own hits.
//!
//! Cost: a put that names its flow looks into one subtable; one that does not is O(subtables of its port), for it checks against
//! overlap. Memory is 12 bytes a slot, 16 to 32 a flow, beside the flow itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;
use ib_base::coverage;
use ib_dpif::{Departed, DpifError, FlowDel, FlowPut, FlowStats, LastStats, Ufid};
use ib_flow::key::FLOW_WORDS;
use ib_flow::{Flow, Mask};
use ib_rcu::{Grace, Turns};
use parking_lot::{Mutex, RwLock};

use crate::budget;
use crate::megaflow::{Megaflow, Shape};
use crate::offload::Offload;
use ib_dpif::ufid::{ufid_of, ufid_of_key};

/// Signature of a slot that was never used: a search ends there.
const EMPTY: u32 = 0;
/// Signature of a slot whose flow has gone: a search goes on.
const GONE: u32 = 1;
/// Slots of a new table.
const FIRST_SLOTS: usize = 8;

type Map<K, V> = HashMap<K, V, RandomState>;

#[inline]
fn signature(hash: u64) -> u32 {
    ((hash >> 32) as u32) | 2
}

/// One generation of a subtable's hash table: open addressing, linear probing.
pub struct Slots {
    stale: AtomicBool,
    index_mask: usize,
    signatures: Box<[AtomicU32]>,
    flows: Box<[ArcSwapOption<Megaflow>]>,
}

impl Slots {
    /// `n` slots, a power of two, more than there are `flows` to begin with.
    fn new(n: usize, flows: impl Iterator<Item = Arc<Megaflow>>) -> Slots {
        let index_mask = n - 1;
        let mut signatures = vec![EMPTY; n];
        let mut slots: Vec<Option<Arc<Megaflow>>> = (0..n).map(|_| None).collect();
        for flow in flows {
            let mut at = flow.hash() as usize & index_mask;
            while signatures[at] != EMPTY {
                at = (at + 1) & index_mask;
            }
            signatures[at] = signature(flow.hash());
            slots[at] = Some(flow);
        }
        Slots {
            stale: AtomicBool::new(false),
            index_mask,
            signatures: signatures.into_iter().map(AtomicU32::new).collect(),
            flows: slots.into_iter().map(ArcSwapOption::new).collect(),
        }
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u64; FLOW_WORDS]) -> Option<Arc<Megaflow>> {
        let wanted = signature(hash);
        let mut at = hash as usize & self.index_mask;
        // At least a quarter of the slots is EMPTY: the loop ends.
        loop {
            match self.signatures[at].load(Ordering::Acquire) {
                EMPTY => return None,
                s if s == wanted => {
                    if let Some(flow) = &*self.flows[at].load()
                        && flow.matches(key)
                    {
                        return Some(Arc::clone(flow));
                    }
                }
                _ => {}
            }
            at = (at + 1) & self.index_mask;
        }
    }

    /// Writer only. Publishes the flow before the signature that leads to it. Whether an EMPTY slot was used up.
    fn insert(&self, flow: Arc<Megaflow>) -> bool {
        let mut at = flow.hash() as usize & self.index_mask;
        loop {
            let was = self.signatures[at].load(Ordering::Relaxed);
            if was <= GONE {
                let sig = signature(flow.hash());
                self.flows[at].store(Some(flow));
                self.signatures[at].store(sig, Ordering::Release);
                return was == EMPTY;
            }
            at = (at + 1) & self.index_mask;
        }
    }

    /// Writer only.
    fn remove(&self, flow: &Arc<Megaflow>) -> bool {
        let mut at = flow.hash() as usize & self.index_mask;
        loop {
            match self.signatures[at].load(Ordering::Relaxed) {
                EMPTY => return false,
                GONE => {}
                _ => {
                    if self.flows[at].load().as_ref().is_some_and(|f| Arc::ptr_eq(f, flow)) {
                        self.signatures[at].store(GONE, Ordering::Release);
                        self.flows[at].store(None);
                        return true;
                    }
                }
            }
            at = (at + 1) & self.index_mask;
        }
    }

    fn iter(&self) -> impl Iterator<Item = Arc<Megaflow>> + '_ {
        self.signatures
            .iter()
            .zip(&self.flows)
            .filter(|(s, _)| s.load(Ordering::Acquire) > GONE)
            .filter_map(|(_, f)| f.load_full())
    }
}

/// The flows of one mask on one port of entry.
pub struct Subtable {
    shape: Arc<Shape>,
    slots: ArcSwap<Slots>,
    live: AtomicUsize,
    /// Slots that are not EMPTY. Writer only.
    used: AtomicUsize,
    /// Hits of all threads, for the operator.
    hits: AtomicU64,
}

impl Subtable {
    fn new(shape: Arc<Shape>) -> Subtable {
        Subtable {
            shape,
            slots: ArcSwap::from_pointee(Slots::new(FIRST_SLOTS, std::iter::empty())),
            live: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// Flows in it.
    pub fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
    /// No flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Its mask.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }
    /// Hits of all threads, as far as they have been reported.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    fn find(&self, key: &[u64; FLOW_WORDS]) -> Option<Arc<Megaflow>> {
        self.slots.load().find(self.shape.hash(key), key)
    }

    /// Writer only.
    fn insert(&self, flow: Arc<Megaflow>) {
        let slots = self.slots.load();
        let n = slots.index_mask + 1;
        if (self.used.load(Ordering::Relaxed) + 1) * 4 > n * 3 {
            // Full of live flows: double. Full of gone ones: same size, cleaned.
            let grown = if self.len() * 2 >= n { n * 2 } else { n };
            let new = Slots::new(grown, slots.iter().chain([flow]));
            self.used.store(self.len() + 1, Ordering::Relaxed);
            self.slots.store(Arc::new(new));
            slots.stale.store(true, Ordering::Release);
        } else if slots.insert(flow) {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Writer only.
    fn remove(&self, flow: &Arc<Megaflow>) {
        if self.slots.load().remove(flow) {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The subtables of one port of entry.
#[derive(Default)]
pub struct PortClass {
    subtables: ArcSwap<Vec<Arc<Subtable>>>,
    version: AtomicU64,
    /// Flows that are not simple.
    complex: AtomicUsize,
}

impl PortClass {
    /// The subtables now.
    pub fn subtables(&self) -> Arc<Vec<Arc<Subtable>>> {
        self.subtables.load_full()
    }

    fn publish(&self, list: Vec<Arc<Subtable>>) {
        self.subtables.store(Arc::new(list));
        self.version.fetch_add(1, Ordering::Release);
    }

    fn find(&self, key: &[u64; FLOW_WORDS]) -> Option<Arc<Megaflow>> {
        self.subtables.load().iter().find_map(|s| s.find(key))
    }
}

struct Writer {
    ufids: Map<u128, Arc<Megaflow>>,
    /// Shapes in use, with the number of subtables that use them.
    shapes: Shapes,
}

/// Shapes by mask. A mask's own `Hash` goes field by field; this one goes by words.
#[derive(Default)]
struct Shapes {
    by_hash: Map<u64, Vec<(Arc<Shape>, usize)>>,
    n: usize,
}

impl Shapes {
    fn hash(mask: &Mask) -> u64 {
        ufid_of_key(&mask.0, 0).0 as u64
    }
    fn get(&self, mask: &Mask) -> Option<&(Arc<Shape>, usize)> {
        self.by_hash.get(&Self::hash(mask))?.iter().find(|(s, _)| **s.mask() == *mask)
    }
    /// One more subtable has this shape.
    fn acquire(&mut self, shape: &Arc<Shape>) {
        let same = self.by_hash.entry(Self::hash(shape.mask())).or_default();
        match same.iter_mut().find(|(s, _)| Arc::ptr_eq(s, shape)) {
            Some((_, users)) => *users += 1,
            None => {
                same.push((Arc::clone(shape), 1));
                self.n += 1;
            }
        }
    }
    /// One less.
    fn release(&mut self, shape: &Arc<Shape>) {
        let hash = Self::hash(shape.mask());
        let Some(same) = self.by_hash.get_mut(&hash) else { return };
        if let Some(at) = same.iter().position(|(s, _)| Arc::ptr_eq(s, shape)) {
            same[at].1 -= 1;
            if same[at].1 == 0 {
                same.swap_remove(at);
                self.n -= 1;
            }
        }
        if same.is_empty() {
            self.by_hash.remove(&hash);
        }
    }
}

/// All flows of a datapath.
pub struct FlowTable {
    seed: u64,
    max_flows: usize,
    writer: Mutex<Writer>,
    ports: RwLock<Map<u32, Arc<PortClass>>>,
    /// Flows that do not match exactly on the port of entry.
    any_port: Arc<PortClass>,
    n_flows: AtomicUsize,
    n_masks: AtomicUsize,
    /// Who must let go of a flow before it changes.
    offload: OnceLock<Arc<Offload>>,
    /// Batches of all workers: within one a flow is found, run and counted.
    turns: Turns,
}

/// A flow that was removed while batches were under way.
struct Leaving {
    flow: Arc<Megaflow>,
    grace: Grace,
}

impl Departed for Leaving {
    fn settled(&self) -> Option<FlowStats> {
        self.grace.is_over().then(|| self.flow.stats())
    }
}

impl FlowTable {
    /// An empty table. `seed` must not be guessable by who sends packets.
    pub fn new(seed: u64, max_flows: usize) -> FlowTable {
        FlowTable {
            seed,
            max_flows,
            writer: Mutex::new(Writer { ufids: Map::default(), shapes: Shapes::default() }),
            ports: RwLock::new(Map::default()),
            any_port: Arc::default(),
            n_flows: AtomicUsize::new(0),
            n_masks: AtomicUsize::new(0),
            offload: OnceLock::new(),
            turns: Turns::default(),
        }
    }

    /// Who looks flows up takes turns here, so that it is known when a removed flow has counted all of its packets.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Has entries of flows withdrawn from `offload` before the flows change. Once, at the beginning.
    pub fn set_offload(&self, offload: &Arc<Offload>) {
        let _ = self.offload.set(Arc::clone(offload));
    }

    /// No packet takes the flow's entries when this returns, and their counts are the flow's.
    fn withdraw(&self, flow: &Megaflow) {
        if let Some(offload) = self.offload.get() {
            offload.withdraw(flow);
        }
    }

    /// Flows in it.
    pub fn len(&self) -> usize {
        self.n_flows.load(Ordering::Relaxed)
    }
    /// No flow at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Different masks in use.
    pub fn n_masks(&self) -> usize {
        self.n_masks.load(Ordering::Relaxed)
    }
    /// The secret that hashes are keyed with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The class of packets that enter by `in_port`.
    pub fn port_class(&self, in_port: u32) -> Arc<PortClass> {
        if let Some(class) = self.ports.read().get(&in_port) {
            return Arc::clone(class);
        }
        Arc::clone(self.ports.write().entry(in_port).or_default())
    }

    /// All classes with their port of entry; `None` for the flows of any port.
    pub fn classes(&self) -> Vec<(Option<u32>, Arc<PortClass>)> {
        let mut all: Vec<_> = self.ports.read().iter().map(|(p, c)| (Some(*p), Arc::clone(c))).collect();
        all.sort_by_key(|(p, _)| *p);
        all.push((None, Arc::clone(&self.any_port)));
        all
    }

    fn class_of(&self, key: &Flow, mask: &Mask) -> Arc<PortClass> {
        if mask.0.in_port == u32::MAX { self.port_class(key.in_port) } else { Arc::clone(&self.any_port) }
    }

    /// The flow that a packet with this key belongs to. For control code; packets go through a [`View`].
    pub fn find_key(&self, key: &Flow) -> Option<Arc<Megaflow>> {
        let class = self.ports.read().get(&key.in_port).cloned();
        class.and_then(|c| c.find(key.words())).or_else(|| self.any_port.find(key.words()))
    }

    /// The flow of this identifier.
    pub fn find_ufid(&self, ufid: Ufid) -> Option<Arc<Megaflow>> {
        self.writer.lock().ufids.get(&ufid.0).cloned()
    }

    fn resolve(&self, writer: &Writer, del: &FlowDel<'_>) -> Result<Arc<Megaflow>, DpifError> {
        let flow = match (del.ufid, del.key) {
            (Some(ufid), _) => writer.ufids.get(&ufid.0).cloned(),
            (None, Some(key)) => self.find_key(key),
            (None, None) => return Err(DpifError::Invalid("neither key nor ufid given".into())),
        };
        flow.ok_or_else(|| DpifError::NotFound("flow not found".into()))
    }

    /// The flow that `get` names.
    pub fn get(&self, get: &FlowDel<'_>) -> Result<Arc<Megaflow>, DpifError> {
        self.resolve(&self.writer.lock(), get)
    }

    /// Installs or changes a flow; the flow as it is then.
    pub fn put(&self, put: &FlowPut<'_>) -> Result<Arc<Megaflow>, DpifError> {
        let mut writer = self.writer.lock();
        self.put_locked(&mut writer, put)
    }

    /// As [`Self::put`], for flows that packets call for: within the port's [`budget`] of masks.
    pub fn install(&self, put: &FlowPut<'_>) -> Result<Arc<Megaflow>, DpifError> {
        let mut writer = self.writer.lock();
        let class = self.class_of(put.key, put.mask);
        let list = class.subtables.load();
        // A hash of the mask and a walk over pointers, in place of a comparison with each mask in use.
        let has = |writer: &Writer, mask: &Mask| {
            writer
                .shapes
                .get(mask)
                .is_some_and(|(shape, _)| list.iter().any(|t| Arc::ptr_eq(&t.shape, shape)))
        };
        if list.len() < budget::MASKS_PER_PORT || has(&writer, put.mask) {
            return self.put_locked(&mut writer, put);
        }
        let mask = budget::narrow(list.iter().map(|t| &**t.shape.mask()), put.mask, put.key);
        if list.len() >= budget::MASKS_PER_PORT_MAX && !has(&writer, &mask) {
            return Err(DpifError::Full("too many masks".into()));
        }
        coverage::megaflow_narrowed.inc();
        self.put_locked(&mut writer, &FlowPut { mask: &mask, ..put.clone() })
    }

    fn put_locked(&self, writer: &mut Writer, put: &FlowPut<'_>) -> Result<Arc<Megaflow>, DpifError> {
        let key = put.mask.apply(put.key);
        let ufid = put.ufid.unwrap_or_else(|| ufid_of(&key, put.mask, self.seed));
        let class = self.class_of(&key, put.mask);
        let list = class.subtables.load_full();
        // Comparing a few masks is cheaper than hashing one.
        let is_short = list.len() <= 8;
        let near = if is_short { list.iter().find(|t| **t.shape.mask() == *put.mask) } else { None };
        let known = near.map_or_else(
            || writer.shapes.get(put.mask).map(|(shape, _)| Arc::clone(shape)),
            |t| Some(Arc::clone(&t.shape)),
        );
        let far = |s| list.iter().find(|t| Arc::ptr_eq(&t.shape, s));
        let subtable = near.or_else(|| known.as_ref().filter(|_| !is_short).and_then(far));
        let same_mask = || subtable.and_then(|t| t.find(key.words()));
        // Who names a flow knows its flows; for others (an operator) look for an overlap under any mask.
        let other_mask = || if put.ufid.is_none() { self.find_key(&key) } else { None };
        let present = writer.ufids.get(&ufid.0).cloned().or_else(same_mask).or_else(other_mask);
        if let Some(flow) = present {
            if !put.modify {
                return Err(DpifError::Exists("flow exists already".into()));
            }
            self.withdraw(&flow);
            flow.set_actions(Arc::clone(&put.actions));
            if put.zero_stats {
                flow.zero_stats();
            }
            flow.set_barred(false);
            return Ok(flow);
        }
        if !put.create {
            return Err(DpifError::NotFound("flow not found".into()));
        }
        if writer.ufids.len() >= self.max_flows {
            return Err(DpifError::Full("flow table is full".into()));
        }
        let (subtable, is_new) = match subtable {
            Some(t) => (Arc::clone(t), false),
            None => {
                let shape = known.unwrap_or_else(|| Arc::new(Shape::new(put.mask, self.seed)));
                writer.shapes.acquire(&shape);
                (Arc::new(Subtable::new(shape)), true)
            }
        };
        let flow = Arc::new(Megaflow::new(ufid, &subtable.shape, put.key, Arc::clone(&put.actions)));
        subtable.insert(Arc::clone(&flow));
        if !flow.is_simple() {
            class.complex.fetch_add(1, Ordering::Relaxed);
        }
        if is_new {
            let mut list = Vec::clone(&list);
            list.push(subtable);
            class.publish(list);
        }
        writer.ufids.insert(ufid.0, Arc::clone(&flow));
        self.recount(writer);
        Ok(flow)
    }

    fn recount(&self, writer: &Writer) {
        self.n_flows.store(writer.ufids.len(), Ordering::Relaxed);
        self.n_masks.store(writer.shapes.n, Ordering::Relaxed);
    }

    /// Removes a flow, returning its counters now, and if batches are under way who knows what they add.
    pub fn del(&self, del: &FlowDel<'_>) -> Result<LastStats, DpifError> {
        let flow = {
            let mut writer = self.writer.lock();
            let flow = self.resolve(&writer, del)?;
            self.remove(&mut writer, &flow);
            flow
        };
        // First who is under way, then the counters: a batch that has ended by now is in them.
        let grace = self.turns.grace();
        let stats = flow.stats();
        Ok((stats, grace.map(|grace| Box::new(Leaving { flow, grace }) as _)))
    }

    fn remove(&self, writer: &mut Writer, flow: &Arc<Megaflow>) {
        self.withdraw(flow);
        flow.kill();
        writer.ufids.remove(&flow.ufid().0);
        let mask = flow.shape().mask();
        let class = self.class_of(&flow.key(), mask);
        let list = class.subtables.load_full();
        if let Some(at) = list.iter().position(|t| Arc::ptr_eq(&t.shape, flow.shape())) {
            list[at].remove(flow);
            if !flow.is_simple() {
                class.complex.fetch_sub(1, Ordering::Relaxed);
            }
            if list[at].is_empty() {
                let mut list = Vec::clone(&list);
                list.remove(at);
                class.publish(list);
                writer.shapes.release(flow.shape());
            }
        }
        self.recount(writer);
    }

    /// Removes all flows.
    pub fn flush(&self) {
        let mut writer = self.writer.lock();
        for flow in writer.ufids.values() {
            self.withdraw(flow);
            flow.kill();
        }
        writer.ufids = Map::default();
        writer.shapes = Shapes::default();
        for (_, class) in self.classes() {
            if !class.subtables.load().is_empty() {
                class.publish(Vec::new());
            }
            class.complex.store(0, Ordering::Relaxed);
        }
        self.recount(&writer);
    }

    /// Visits the flows without holding any lock: a flow that comes or goes meanwhile may or may not be seen.
    pub fn dump(&self, visit: &mut dyn FnMut(&Arc<Megaflow>)) {
        for (_, class) in self.classes() {
            for subtable in class.subtables().iter() {
                let slots = subtable.slots.load_full();
                for flow in slots.iter().filter(|f| !f.is_dead()) {
                    visit(&flow);
                }
            }
        }
    }
}

struct Seen {
    subtable: Arc<Subtable>,
    slots: Arc<Slots>,
    /// Hits since the last sort.
    hits: u64,
}

#[derive(Default)]
struct ClassView {
    class: Arc<PortClass>,
    version: u64,
    seen: Vec<Seen>,
}

impl ClassView {
    fn new(class: Arc<PortClass>) -> ClassView {
        // A version that no class has, so that the first look reloads.
        ClassView { class, version: u64::MAX, seen: Vec::new() }
    }

    #[cold]
    fn reload(&mut self) {
        self.version = self.class.version.load(Ordering::Acquire);
        let list = self.class.subtables();
        let old = std::mem::take(&mut self.seen);
        // Known subtables keep their rank, new ones go last.
        let at: Map<*const Subtable, ()> = list.iter().map(|t| (Arc::as_ptr(t), ())).collect();
        self.seen = old.into_iter().filter(|s| at.contains_key(&Arc::as_ptr(&s.subtable))).collect();
        let known: Map<*const Subtable, ()> =
            self.seen.iter().map(|s| (Arc::as_ptr(&s.subtable), ())).collect();
        for t in list.iter().filter(|t| !known.contains_key(&Arc::as_ptr(t))) {
            self.seen.push(Seen { subtable: Arc::clone(t), slots: t.slots.load_full(), hits: 0 });
        }
    }

    /// The flow and how many subtables were looked at.
    #[inline]
    fn find(&mut self, key: &[u64; FLOW_WORDS], probes: &mut u64) -> Option<Arc<Megaflow>> {
        if self.class.version.load(Ordering::Acquire) != self.version {
            self.reload();
        }
        for seen in &mut self.seen {
            if seen.slots.stale.load(Ordering::Acquire) {
                seen.slots = seen.subtable.slots.load_full();
            }
            *probes += 1;
            if let Some(flow) = seen.slots.find(seen.subtable.shape.hash(key), key) {
                seen.hits += 1;
                return Some(flow);
            }
        }
        None
    }

    fn rank(&mut self) {
        self.seen.sort_by_key(|s| std::cmp::Reverse(s.hits));
        for s in &mut self.seen {
            s.subtable.hits.fetch_add(s.hits, Ordering::Relaxed);
            // Half of the past counts, so that the order follows the traffic without flapping.
            s.hits /= 2;
        }
    }
}

/// One thread's view of the table: the subtables in the order that suits this thread's traffic.
pub struct View {
    table: Arc<FlowTable>,
    classes: Vec<ClassView>,
    index: Map<u32, usize>,
    /// Port of entry of the last lookup and its place in `classes`: packets come in batches of one port.
    last: (u32, usize),
    any_port: ClassView,
    rank_at_ms: u64,
    /// Subtables looked at since the thread began.
    pub probes: u64,
}

impl View {
    /// How often subtables are sorted anew.
    const RANK_INTERVAL_MS: u64 = 1000;

    /// A view of `table`.
    pub fn new(table: &Arc<FlowTable>) -> View {
        View {
            table: Arc::clone(table),
            classes: Vec::new(),
            index: Map::default(),
            last: (0, usize::MAX),
            any_port: ClassView::new(Arc::clone(&table.any_port)),
            rank_at_ms: 0,
            probes: 0,
        }
    }

    /// The live flow that this key belongs to.
    #[inline]
    pub fn find(&mut self, key: &Flow) -> Option<Arc<Megaflow>> {
        if self.last.0 != key.in_port || self.last.1 >= self.classes.len() {
            self.turn_to(key.in_port);
        }
        self.classes[self.last.1]
            .find(key.words(), &mut self.probes)
            .or_else(|| self.any_port.find(key.words(), &mut self.probes))
            .filter(|f| !f.is_dead())
    }

    #[cold]
    fn turn_to(&mut self, in_port: u32) {
        let at = *self.index.entry(in_port).or_insert_with(|| {
            self.classes.push(ClassView::new(self.table.port_class(in_port)));
            self.classes.len() - 1
        });
        self.last = (in_port, at);
    }

    /// Whether all flows of packets that enter by this port are simple.
    #[inline]
    pub fn is_simple(&mut self, in_port: u32) -> bool {
        if self.last.0 != in_port || self.last.1 >= self.classes.len() {
            self.turn_to(in_port);
        }
        let none = |c: &ClassView| c.class.complex.load(Ordering::Relaxed) == 0;
        none(&self.classes[self.last.1]) && none(&self.any_port)
    }

    /// Sorts subtables by hits, once a second. Call it between batches.
    pub fn rank(&mut self, now_ms: u64) {
        if now_ms >= self.rank_at_ms {
            self.rank_at_ms = now_ms + Self::RANK_INTERVAL_MS;
            self.classes.iter_mut().chain([&mut self.any_port]).for_each(ClassView::rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::Be32;

    fn mask(bits: u32) -> Mask {
        let mut m = Mask::default();
        m.0.in_port = u32::MAX;
        m.0.nw_dst = Be32::new(bits);
        m
    }
    fn key(port: u32, dst: u32) -> Flow {
        let mut f = Flow::zeroed();
        f.in_port = port;
        f.nw_dst = Be32::new(dst);
        f
    }
    fn put<'a>(key: &'a Flow, mask: &'a Mask) -> FlowPut<'a> {
        FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key,
            mask,
            ufid: None,
            actions: Arc::new([]),
        }
    }

    #[test]
    fn thousands_come_and_go() {
        let t = Arc::new(FlowTable::new(99, 1_000_000));
        let mut view = View::new(&t);
        let m = mask(u32::MAX);
        for round in 0..3 {
            for i in 0..5000 {
                t.put(&put(&key(1, i), &m)).unwrap();
            }
            assert_eq!((t.len(), t.n_masks()), (5000, 1));
            for i in 0..5000 {
                assert!(view.find(&key(1, i)).is_some(), "round {round} key {i}");
            }
            assert!(view.find(&key(2, 1)).is_none());
            for i in 0..5000 {
                t.del(&FlowDel { ufid: None, key: Some(&key(1, i)) }).unwrap();
                assert!(view.find(&key(1, i)).is_none());
            }
            assert_eq!((t.len(), t.n_masks()), (0, 0));
        }
    }

    #[test]
    fn put_follows_create_and_modify() {
        let t = FlowTable::new(1, 2);
        let m = mask(0xff00_0000);
        let k = key(1, 0x0a01_0101);
        let mut p = put(&k, &m);
        p.create = false;
        p.modify = true;
        assert!(matches!(t.put(&p), Err(DpifError::NotFound(_))));
        p.create = true;
        let flow = t.put(&p).unwrap();
        flow.count(1, 60, 0, 5);
        p.zero_stats = true;
        assert!(Arc::ptr_eq(&flow, &t.put(&p).unwrap()));
        assert_eq!(flow.stats().packets, 0);
        p.modify = false;
        assert!(matches!(t.put(&p), Err(DpifError::Exists(_))));
        t.put(&put(&key(2, 0), &m)).unwrap();
        assert!(matches!(t.put(&put(&key(3, 0), &m)), Err(DpifError::Full(_))));
        t.flush();
        assert!(flow.is_dead() && t.is_empty() && t.find_key(&k).is_none());
    }

    #[test]
    fn any_port_flows_are_found_after_those_of_the_port() {
        let t = Arc::new(FlowTable::new(1, 10));
        let mut m = mask(u32::MAX);
        m.0.in_port = 0;
        t.put(&put(&key(7, 5), &m)).unwrap();
        let mut view = View::new(&t);
        assert!(view.find(&key(1, 5)).is_some() && view.find(&key(2, 5)).is_some());
        assert!(view.find(&key(2, 6)).is_none());
        let mut n = 0;
        t.dump(&mut |_| n += 1);
        assert_eq!(n, 1);
    }

    #[test]
    fn readers_find_every_flow_while_a_writer_grows_the_table() {
        let t = Arc::new(FlowTable::new(3, 1_000_000));
        let m = mask(u32::MAX);
        t.put(&put(&key(1, 0), &m)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (t, stop) = (Arc::clone(&t), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut view = View::new(&t);
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    assert!(view.find(&key(1, 0)).is_some());
                    n += 1;
                }
                n
            })
        };
        for i in 1..4_000 {
            t.put(&put(&key(1, i), &m)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    }
}
