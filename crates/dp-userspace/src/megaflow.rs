//! One megaflow, and the shape that it shares with others of the same mask.
//!
//! A [`Shape`] is a mask boiled down to the words of the key that it looks at. A [`Megaflow`] stores its key
//! as those words only, so that an ordinary flow takes some 400 bytes with its actions, and matching it against a
//! packet's key touches no more words than the mask has.
//!
//! Invariants: a stored key word never has a bit outside of its mask word. `dead` is set, once, when the flow leaves the table;
//! who still holds the flow in a cache must look at it before using the flow. Actions change by publishing a new
//! [`Program`]; a packet runs the old one or the new one, never a mixture.
//!
//! Any thread may read; counters are relaxed atomics. Only [`crate::table::FlowTable`] kills flows and changes programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ib_dpif::ufid::{SALT, fold};
use ib_dpif::{Action, FlowInfo, FlowOrigin, FlowStats, Ufid};
use ib_flow::key::FLOW_WORDS;
use ib_flow::miniflow::Miniflow;
use ib_flow::{Flow, Mask, OdpPort};

/// A word of the key that a mask looks at.
#[derive(Clone, Copy, Debug)]
struct Word {
    mask: u64,
    index: usize,
}

/// A mask as the list of the key's words that it looks at, padded to an even number for the hash's sake.
#[derive(Debug)]
pub struct Shape {
    words: Box<[Word]>,
    seed: u64,
    mask: Arc<Mask>,
    simple: bool,
}

/// Whether a mask looks at no more than where a packet comes from, its Ethernet type, VLAN and whether it is a fragment.
fn is_simple(mask: &Mask) -> bool {
    let mut rest = mask.0.clone();
    let exact = rest.in_port == u32::MAX;
    rest.in_port = 0;
    rest.recirc_id = 0;
    rest.packet_type = Default::default();
    rest.dl_type = Default::default();
    rest.nw_frag = 0;
    rest.vlans[0] = Default::default();
    exact && rest.words().iter().all(|w| *w == 0)
}

impl Shape {
    /// The shape of `mask`. `seed` should be unpredictable from outside: bucket collisions are then, too.
    pub fn new(mask: &Mask, seed: u64) -> Shape {
        let mut words: Vec<Word> = mask
            .0
            .words()
            .iter()
            .enumerate()
            .filter(|(_, m)| **m != 0)
            .map(|(index, m)| Word { mask: *m, index })
            .collect();
        if words.len() % 2 == 1 {
            words.push(Word { mask: 0, index: 0 });
        }
        Shape { words: words.into(), seed, mask: Arc::new(mask.clone()), simple: is_simple(mask) }
    }

    /// The mask.
    pub fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// Hash of `key` under the mask.
    #[inline]
    pub fn hash(&self, key: &[u64; FLOW_WORDS]) -> u64 {
        let mut acc = self.seed;
        for pair in self.words.chunks_exact(2) {
            let a = key[pair[0].index] & pair[0].mask;
            let b = key[pair[1].index] & pair[1].mask;
            acc = fold(acc ^ a, b ^ self.seed.rotate_left(32) ^ SALT);
        }
        acc
    }

    fn compress(&self, key: &[u64; FLOW_WORDS]) -> Box<[u64]> {
        self.words.iter().map(|w| key[w.index] & w.mask).collect()
    }

    fn expand(&self, stored: &[u64]) -> Flow {
        let mut flow = Flow::zeroed();
        let out = flow.words_mut();
        // Padding has an empty mask: OR leaves the word that it repeats alone.
        for (w, v) in self.words.iter().zip(stored) {
            out[w.index] |= v & w.mask;
        }
        flow
    }
}

/// Actions, with what the fast path wants to know about them beforehand.
#[derive(Debug)]
pub struct Program {
    /// The actions.
    pub actions: Arc<[Action]>,
    /// Set if all there is to do is one output.
    pub forward: Option<OdpPort>,
}

impl Program {
    /// Looks at `actions`.
    pub fn new(actions: Arc<[Action]>) -> Program {
        let forward = match &*actions {
            [Action::Output(port)] => Some(*port),
            _ => None,
        };
        Program { actions, forward }
    }
}

/// A flow of the datapath. Fields in the order of use: what a cache hit touches comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Megaflow {
    dead: AtomicBool,
    /// `later` is what counts, no longer `first`.
    changed: AtomicBool,
    tcp_flags: AtomicU16,
    packets: AtomicU64,
    bytes: AtomicU64,
    used_ms: AtomicU64,
    first: Program,
    key: Box<[u64]>,
    shape: Arc<Shape>,
    later: ArcSwapOption<Program>,
    hash: u64,
    /// Core of the PMD thread that it belongs to, plus one; 0: none.
    core: AtomicU32,
    simple: bool,
    /// It has entries in the accelerator.
    accelerated: AtomicBool,
    /// It is about to change: no new entries.
    barred: AtomicBool,
    ufid: Ufid,
    /// The whole key that the flow was installed with, wildcarded fields included: for people.
    installed: Miniflow,
}

/// A flow's program, held for as long as it runs.
pub enum ProgramRef<'a> {
    /// The one that it was installed with: most flows never change.
    First(&'a Program),
    /// A later one.
    Later(Arc<Program>),
}

impl std::ops::Deref for ProgramRef<'_> {
    type Target = Program;
    #[inline]
    fn deref(&self) -> &Program {
        match self {
            ProgramRef::First(p) => p,
            ProgramRef::Later(p) => p,
        }
    }
}

impl Megaflow {
    /// A flow that matches what agrees with `key` in the mask of `shape`.
    pub fn new(ufid: Ufid, shape: &Arc<Shape>, key: &Flow, actions: Arc<[Action]>) -> Megaflow {
        Megaflow {
            ufid,
            shape: Arc::clone(shape),
            key: shape.compress(key.words()),
            hash: shape.hash(key.words()),
            installed: Miniflow::new(key),
            first: Program::new(actions),
            later: ArcSwapOption::empty(),
            changed: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            used_ms: AtomicU64::new(0),
            tcp_flags: AtomicU16::new(0),
            dead: AtomicBool::new(false),
            core: AtomicU32::new(0),
            simple: shape.simple && key.recirc_id == 0,
            accelerated: AtomicBool::new(false),
            barred: AtomicBool::new(false),
        }
    }

    /// Whether it looks at next to nothing of a packet, and at packets of the first pass.
    pub fn is_simple(&self) -> bool {
        self.simple
    }
    /// The core of the PMD thread that it belongs to.
    pub fn core(&self) -> Option<u32> {
        self.core.load(Ordering::Relaxed).checked_sub(1)
    }
    pub(crate) fn set_core(&self, core: Option<u32>) {
        self.core.store(core.map_or(0, |c| c.saturating_add(1)), Ordering::Relaxed);
    }

    /// Identifier.
    pub fn ufid(&self) -> Ufid {
        self.ufid
    }
    /// Shape of its mask.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }
    /// Hash of the masked key.
    pub fn hash(&self) -> u64 {
        self.hash
    }
    /// Has it left the table?
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Whether the accelerator has entries for it.
    pub fn is_accelerated(&self) -> bool {
        self.accelerated.load(Ordering::SeqCst)
    }
    pub(crate) fn set_accelerated(&self, on: bool) {
        self.accelerated.store(on, Ordering::SeqCst);
    }
    pub(crate) fn is_barred(&self) -> bool {
        self.barred.load(Ordering::SeqCst)
    }
    pub(crate) fn set_barred(&self, on: bool) {
        self.barred.store(on, Ordering::SeqCst);
    }

    /// Whether a packet with this key belongs to the flow.
    #[inline]
    pub fn matches(&self, key: &[u64; FLOW_WORDS]) -> bool {
        self.shape.words.iter().zip(&*self.key).fold(0, |acc, (w, v)| acc | ((key[w.index] & w.mask) ^ v))
            == 0
    }

    /// Any word of the stored key: to have it in the processor's cache.
    #[inline]
    pub fn first_word(&self) -> u64 {
        self.key.first().copied().unwrap_or(0) ^ u64::from(self.is_dead())
    }

    /// The masked key in full.
    pub fn key(&self) -> Flow {
        self.shape.expand(&self.key)
    }

    /// What to do now.
    #[inline]
    pub fn program(&self) -> ProgramRef<'_> {
        if self.changed.load(Ordering::Acquire)
            && let Some(later) = self.later.load_full()
        {
            return ProgramRef::Later(later);
        }
        ProgramRef::First(&self.first)
    }
    pub(crate) fn set_actions(&self, actions: Arc<[Action]>) {
        self.later.store(Some(Arc::new(Program::new(actions))));
        self.changed.store(true, Ordering::Release);
    }

    /// Counts packets.
    #[inline]
    pub fn count(&self, packets: u64, bytes: u64, tcp_flags: u16, now_ms: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Mostly unchanged: a load is cheaper than a shared write.
        if self.used_ms.load(Ordering::Relaxed) != now_ms {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
        if self.tcp_flags.load(Ordering::Relaxed) | tcp_flags != self.tcp_flags.load(Ordering::Relaxed) {
            self.tcp_flags.fetch_or(tcp_flags, Ordering::Relaxed);
        }
    }

    /// Counters now.
    pub fn stats(&self) -> FlowStats {
        FlowStats {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            used_ms: self.used_ms.load(Ordering::Relaxed),
            tcp_flags: self.tcp_flags.load(Ordering::Relaxed),
        }
    }
    pub(crate) fn zero_stats(&self) {
        self.packets.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.used_ms.store(0, Ordering::Relaxed);
        self.tcp_flags.store(0, Ordering::Relaxed);
    }

    /// The flow as dumped, its key with the values that wildcarded fields had when it was installed.
    pub fn info(&self) -> FlowInfo {
        let offloaded = self.is_accelerated();
        FlowInfo {
            origin: FlowOrigin::UserSpace,
            key: Arc::new(self.installed.expand()),
            mask: Arc::clone(&self.shape.mask),
            ufid: self.ufid,
            actions: Arc::clone(&self.program().actions),
            stats: self.stats(),
            offloaded,
            dp_layer: if offloaded { "tcx" } else { "ovs" },
            core: self.core(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::{Be16, Be32};

    #[test]
    fn stores_and_gives_back_the_masked_key_only() {
        let mut mask = Mask::default();
        mask.0.dl_type = Be16::MAX;
        mask.0.nw_dst = Be32::new(0xffff_ff00);
        mask.0.in_port = u32::MAX;
        let shape = Arc::new(Shape::new(&mask, 7));
        let mut key = Flow::zeroed();
        key.dl_type = Be16::new(0x800);
        key.nw_dst = Be32::new(0x0a00_0001);
        key.nw_src = Be32::new(0x0a00_0002);
        key.in_port = 3;
        let flow = Megaflow::new(Ufid(1), &shape, &key, Arc::new([]));
        assert_eq!(flow.key(), mask.apply(&key));
        let mut same = key.clone();
        same.nw_dst = Be32::new(0x0a00_00fe);
        assert!(flow.matches(same.words()));
        assert_eq!(shape.hash(same.words()), flow.hash());
        same.nw_dst = Be32::new(0x0a00_0101);
        assert!(!flow.matches(same.words()));
    }

    #[test]
    fn a_flow_is_small() {
        assert!(size_of::<Megaflow>() <= 256, "{}", size_of::<Megaflow>());
    }
}
