//! Flows that are alike share what they have in common.
//!
//! Most flows of a datapath come of few rules: they have the same mask, the same actions and the same list of what
//! their translation touched, and differ in keys and counters. [`Likeness`] remembers the latest of each, so that the next flow
//! takes a reference instead of a copy. It is a matter of memory alone: what is shared never changes, and a flow that finds nothing to share
//! has its own.
//!
//! Cost: one short lock and a comparison a flow. It keeps rules alive that are no more until [`Likeness::clear`], which each
//! round of revalidation calls.

use std::sync::Arc;

use ib_dpif::Action as Odp;
use ib_flow::Mask;
use ib_flow::miniflow::Minimask;
use parking_lot::Mutex;

use crate::xlate::CacheEntry;

/// Places: flows of so many rules are told apart.
const PLACES: usize = 256;

/// What flows may have in common.
#[derive(Clone)]
pub struct Parts {
    /// Mask.
    pub mask: Arc<Minimask>,
    /// Actions.
    pub actions: Arc<[Odp]>,
    /// What translation touched.
    pub cache: Arc<[CacheEntry]>,
}

/// The parts of the latest flows.
pub struct Likeness(Box<[Mutex<Option<Parts>>]>);

impl Default for Likeness {
    fn default() -> Self {
        Likeness((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl Likeness {
    /// The parts of a flow, each one the same as an earlier flow's where it equals that.
    pub fn share(&self, mask: &Mask, actions: Arc<[Odp]>, cache: Vec<CacheEntry>) -> Parts {
        let mut place = self.0[place_of(&cache)].lock();
        let like = place.as_ref();
        let mask = match like {
            Some(p) if p.mask.is(mask) => Arc::clone(&p.mask),
            _ => Arc::new(Minimask::new(mask)),
        };
        let actions = match like {
            Some(p) if p.actions == actions => Arc::clone(&p.actions),
            _ => actions,
        };
        let cache = match like {
            Some(p) if same(&p.cache, &cache) => Arc::clone(&p.cache),
            _ => cache.into(),
        };
        let parts = Parts { mask, actions, cache };
        *place = Some(parts.clone());
        parts
    }

    /// Forgets all: who shares goes on.
    pub fn clear(&self) {
        self.0.iter().for_each(|place| *place.lock() = None);
    }
}

/// Flows of the same rules have the same place.
fn place_of(cache: &[CacheEntry]) -> usize {
    let mut hash = 0usize;
    for entry in cache {
        if let CacheEntry::Rule(rule) = entry {
            hash = hash.rotate_left(5) ^ (Arc::as_ptr(rule) as usize >> 4);
        }
    }
    (hash ^ hash >> 8 ^ hash >> 16) % PLACES
}

fn same(a: &[CacheEntry], b: &[CacheEntry]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_flow::OdpPort;
    use ib_packet::Be32;

    #[test]
    fn like_flows_share_and_others_do_not() {
        let likeness = Likeness::default();
        let mut mask = Mask::default();
        mask.0.nw_src = Be32::MAX;
        let output = |port| -> Arc<[Odp]> { Arc::new([Odp::Output(OdpPort(port))]) };
        let a = likeness.share(&mask, output(1), vec![CacheEntry::TunnelHeader(8, true)]);
        let b = likeness.share(&mask, output(1), vec![CacheEntry::TunnelHeader(8, true)]);
        assert!(Arc::ptr_eq(&a.mask, &b.mask) && Arc::ptr_eq(&a.actions, &b.actions));
        assert!(Arc::ptr_eq(&a.cache, &b.cache));
        let c = likeness.share(&mask, output(2), vec![CacheEntry::TunnelHeader(9, true)]);
        assert!(Arc::ptr_eq(&a.mask, &c.mask) && !Arc::ptr_eq(&a.cache, &c.cache));
        assert_eq!(c.actions, output(2));
        mask.0.nw_dst = Be32::MAX;
        let d = likeness.share(&mask, output(2), vec![CacheEntry::TunnelHeader(9, true)]);
        assert_eq!((d.mask.expand(), Arc::ptr_eq(&c.cache, &d.cache)), (mask.clone(), true));
        likeness.clear();
        let e = likeness.share(&mask, output(2), vec![]);
        assert!(!Arc::ptr_eq(&d.mask, &e.mask) && d.mask == e.mask);
    }
}
