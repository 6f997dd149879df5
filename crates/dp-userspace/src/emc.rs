//! The exact-match cache: one thread's memory of which megaflow a raw key led to.
//!
//! 32,768 entries, each key in one of two places: with a quarter of that, ten thousand keys had one in three packets go the long way (120 ns in
//! place of 100 for all of them). New keys come in with a probability of 1/100 by default
//! (`emc-insert-inv-prob`), so that a flood of short flows does not wash out the long ones. A hit
//! compares the whole key: a wrong hash costs a miss, never a wrong flow.
//!
//! Entries hold their flow alive; entries of dead flows are recycled on sight and by [`Emc::sweep`], a few a batch.

use std::sync::Arc;

use crate::megaflow::Megaflow;
use crate::rawkey::{KEY_WORDS, RawKey};

const INDEX_BITS: u32 = 15;
/// Entries.
pub const ENTRIES: usize = 1 << INDEX_BITS;
/// Default of `emc-insert-inv-prob`.
pub const DEFAULT_INSERT_INV_PROB: u32 = 100;
/// "Not in the cache" among slot numbers.
pub const NOWHERE: u32 = u32::MAX;

const INDEX_MASK: u64 = ENTRIES as u64 - 1;
const SWEEP: usize = 4;

#[repr(C)]
struct Entry {
    hash: u64,
    flow: Option<Arc<Megaflow>>,
    key: RawKey,
}

const _: () = assert!(size_of::<Entry>() == 96);

/// See the module. Takes its 3 MiB with the first entry: workers that only send for the control plane never need them.
#[derive(Default)]
pub struct Emc {
    entries: Vec<Entry>,
    sweep_at: usize,
}

impl Emc {
    #[inline]
    fn places(hash: u64) -> [usize; 2] {
        [(hash & INDEX_MASK) as usize, ((hash >> INDEX_BITS) & INDEX_MASK) as usize]
    }

    /// Slot that has this hash, or [`NOWHERE`]: likely the right one, which [`Self::borrow`] decides. Touches two places and nothing
    /// behind them; meant to be called for a whole batch in a row.
    #[inline]
    pub fn candidate(&self, hash: u64) -> u32 {
        let hit = |at: &usize| self.entries.get(*at).is_some_and(|e| e.hash == hash);
        Self::places(hash).into_iter().find(hit).map_or(NOWHERE, |at| at as u32)
    }

    /// Reads a word of a slot's flow, to have it in the processor's cache.
    #[inline]
    pub fn warm(&self, slot: u32) -> u64 {
        let flow = self.entries.get(slot as usize).and_then(|e| e.flow.as_ref());
        flow.map_or(0, |f| u64::from(f.is_dead()))
    }

    /// Takes the flow of a slot out, to be used without counting references, if it lives and the slot is this key's.
    #[inline]
    pub fn borrow(&mut self, slot: u32, hash: u64, key: &RawKey) -> Option<Arc<Megaflow>> {
        let e = self.entries.get_mut(slot as usize)?;
        if e.hash == hash && e.key.same(key) && e.flow.as_ref().is_some_and(|f| !f.is_dead()) {
            e.flow.take()
        } else {
            None
        }
    }

    /// Puts a borrowed flow back, unless the slot was given away meanwhile.
    #[inline]
    pub fn give_back(&mut self, slot: u32, hash: u64, flow: Arc<Megaflow>) {
        if let Some(e) = self.entries.get_mut(slot as usize)
            && e.hash == hash
            && e.flow.is_none()
        {
            e.flow = Some(flow);
        }
    }

    /// Remembers.
    pub fn insert(&mut self, key: &RawKey, hash: u64, flow: &Arc<Megaflow>) {
        if self.entries.is_empty() {
            let empty = || Entry { hash: 0, flow: None, key: RawKey([0; KEY_WORDS]) };
            self.entries.resize_with(ENTRIES, empty);
        }
        let [a, b] = Self::places(hash);
        let free = |e: &Entry| e.flow.as_ref().is_none_or(|f| f.is_dead());
        let at = if self.entries[a].hash == hash && self.entries[a].key == *key || free(&self.entries[a]) {
            a
        } else if self.entries[b].hash == hash && self.entries[b].key == *key || free(&self.entries[b]) {
            b
        } else if hash >> 63 == 0 {
            a
        } else {
            b
        };
        self.entries[at] = Entry { hash, flow: Some(Arc::clone(flow)), key: *key };
    }

    /// Lets go of dead flows in the next few entries.
    pub fn sweep(&mut self) {
        for _ in 0..SWEEP.min(self.entries.len()) {
            let e = &mut self.entries[self.sweep_at];
            if e.flow.as_ref().is_some_and(|f| f.is_dead()) {
                e.flow = None;
            }
            self.sweep_at = (self.sweep_at + 1) % ENTRIES;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.iter_mut().for_each(|e| e.flow = None);
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|e| e.flow.is_some()).count()
    }
    /// Nothing remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::megaflow::Shape;
    use ib_dpif::Ufid;
    use ib_flow::{Flow, Mask};

    #[test]
    fn finds_until_the_flow_dies() {
        let shape = Arc::new(Shape::new(&Mask::default(), 1));
        let flow = Arc::new(Megaflow::new(Ufid(1), &shape, &Flow::zeroed(), Arc::new([])));
        let mut emc = Emc::default();
        let key = RawKey([3; KEY_WORDS]);
        emc.insert(&key, 77, &flow);
        let slot = emc.candidate(77);
        assert_ne!(slot, NOWHERE);
        assert!(emc.borrow(slot, 77, &RawKey([4; KEY_WORDS])).is_none(), "an equal hash is not an equal key");
        let out = emc.borrow(slot, 77, &key).unwrap();
        assert!(emc.borrow(slot, 77, &key).is_none());
        emc.give_back(slot, 77, out);
        assert!(emc.borrow(slot, 78, &key).is_none());
        flow.kill();
        assert!(emc.borrow(slot, 77, &key).is_none());
        for _ in 0..ENTRIES / SWEEP {
            emc.sweep();
        }
        assert_eq!(Arc::strong_count(&flow), 1);
    }
}
