//! The signature cache: one thread's second memory, larger and less exact than [`crate::emc`].
//!
//! It maps the hash of a raw key to a megaflow, four to a cache line, 262,144 in all. A hit is a suggestion: the
//! caller compares the packet's key with the flow's masked key before it believes it. Every lookup in the classifier leaves its
//! result here, so that with many flows or many masks most packets are spared the walk over the subtables.
//!
//! 4 MiB a thread, taken when the table first has more flows than the exact-match cache could serve, or packets walk over many subtables.

use std::sync::Arc;

use ib_flow::key::FLOW_WORDS;

use crate::megaflow::Megaflow;

const BUCKETS: usize = 1 << 16;
const WAYS: usize = 4;
const SWEEP: usize = 4;

#[derive(Default)]
#[repr(C, align(64))]
struct Bucket {
    signatures: [u32; WAYS],
    flows: [Option<Arc<Megaflow>>; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// See the module.
#[derive(Default)]
pub struct Smc {
    buckets: Vec<Bucket>,
    sweep_at: usize,
}

/// Place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Smc {
    #[inline]
    fn split(hash: u64) -> (usize, u32) {
        // Other bits than those that choose a place in the exact-match cache.
        ((hash >> 26) as usize & (BUCKETS - 1), (hash as u32) ^ ((hash >> 42) as u32) | 1)
    }

    /// In use at all?
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// Takes the memory.
    pub fn turn_on(&mut self) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Bucket::default);
        }
    }

    /// The first entry with the signature of this hash. Touches one cache line; meant to be called for a whole batch in a row.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<Place> {
        let (at, signature) = Self::split(hash);
        let way = self.buckets.get(at)?.signatures.iter().position(|s| *s == signature)?;
        Some(Place((at * WAYS + way) as u32))
    }

    /// The flow at a place.
    #[inline]
    pub fn peek(&self, place: Place) -> Option<&Megaflow> {
        let at = place.0 as usize;
        self.buckets.get(at / WAYS)?.flows[at % WAYS].as_deref()
    }

    /// Takes the flow at a place out, to be used without counting references, if it lives and `key` belongs to it.
    #[inline]
    pub fn borrow(&mut self, place: Place, key: &[u64; FLOW_WORDS]) -> Option<Arc<Megaflow>> {
        self.peek(place).filter(|f| !f.is_dead() && f.matches(key))?;
        let at = place.0 as usize;
        self.buckets[at / WAYS].flows[at % WAYS].take()
    }

    /// Puts a borrowed flow back, unless the place was given away.
    #[inline]
    pub fn give_back(&mut self, place: Place, flow: Arc<Megaflow>) {
        let at = place.0 as usize;
        let slot = &mut self.buckets[at / WAYS].flows[at % WAYS];
        if slot.is_none() {
            *slot = Some(flow);
        }
    }

    /// Remembers.
    pub fn insert(&mut self, hash: u64, flow: &Arc<Megaflow>) {
        let (at, signature) = Self::split(hash);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let free = |f: &Option<Arc<Megaflow>>| f.as_ref().is_none_or(|f| f.is_dead());
        let way = bucket
            .signatures
            .iter()
            .position(|s| *s == signature)
            .or_else(|| bucket.flows.iter().position(free))
            .unwrap_or((hash >> 24) as usize % WAYS);
        bucket.signatures[way] = signature;
        bucket.flows[way] = Some(Arc::clone(flow));
    }

    /// Lets go of dead flows in the next few buckets.
    pub fn sweep(&mut self) {
        for _ in 0..SWEEP.min(self.buckets.len()) {
            for flow in &mut self.buckets[self.sweep_at].flows {
                if flow.as_ref().is_some_and(|f| f.is_dead()) {
                    *flow = None;
                }
            }
            self.sweep_at = (self.sweep_at + 1) % BUCKETS;
        }
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Smc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::megaflow::Shape;
    use ib_dpif::Ufid;
    use ib_flow::{Flow, Mask};

    #[test]
    fn suggests_and_the_key_decides() {
        let mut mask = Mask::default();
        mask.0.in_port = u32::MAX;
        let shape = Arc::new(Shape::new(&mask, 1));
        let key = Flow { in_port: 1, ..Flow::zeroed() };
        let flow = Arc::new(Megaflow::new(Ufid(1), &shape, &key, Arc::new([])));
        let mut smc = Smc::default();
        smc.insert(5, &flow);
        assert_eq!(smc.candidate(5), None, "nothing before it is turned on");
        smc.turn_on();
        smc.insert(5, &flow);
        let place = smc.candidate(5).unwrap();
        assert!(smc.borrow(place, Flow::zeroed().words()).is_none());
        let out = smc.borrow(place, key.words()).unwrap();
        smc.give_back(place, out);
        flow.kill();
        assert!(smc.borrow(place, key.words()).is_none());
        for _ in 0..BUCKETS / SWEEP {
            smc.sweep();
        }
        assert_eq!(Arc::strong_count(&flow), 1);
    }
}
