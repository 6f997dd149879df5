//! Masks and matches without their zero words.
//!
//! A key has 91 words; a rule looks at a handful. [`MiniMask`] keeps the words that are not zero and
//! where they stand, [`MiniMatch`] pairs it with values. A million rules fit in memory because of this, and because
//! rules that come one after the other share their mask, of which there are few.

use std::cell::RefCell;
use std::sync::Arc;

use ib_flow::{Flow, Mask, Match};
use smallvec::SmallVec;

/// Words of a mask: index, mask. A pointer to them is thin, for each rule has one.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Words(Box<[(u8, u64)]>);

/// A mask without its zero words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MiniMask {
    /// (index of the word in a [`Flow`], its mask), ascending, no zero masks.
    words: Arc<Words>,
}

/// Masks that a thread made lately, to be shared.
#[derive(Default)]
struct Recent {
    masks: Vec<Option<Arc<Words>>>,
    scratch: Vec<(u8, u64)>,
}

/// How many masks a thread remembers; a power of two.
const RECENT: usize = 64;

thread_local! {
    static MASKS: RefCell<Recent> = RefCell::new(Recent { masks: vec![None; RECENT], scratch: Vec::new() });
}

impl Recent {
    fn share(&mut self, mask: &Mask) -> Arc<Words> {
        self.scratch.clear();
        let mut hash = 0;
        for (i, w) in mask.0.words().iter().enumerate().filter(|(_, w)| **w != 0) {
            self.scratch.push((u8::try_from(i).unwrap_or(u8::MAX), *w));
            hash = ib_flow::hash::add64(hash, *w ^ i as u64);
        }
        let slot = &mut self.masks[ib_flow::hash::finish(hash, 0) as usize % RECENT];
        match slot {
            Some(known) if *known.0 == *self.scratch => Arc::clone(known),
            _ => Arc::clone(slot.insert(Arc::new(Words(self.scratch.as_slice().into())))),
        }
    }
}

impl MiniMask {
    /// Compresses a mask.
    pub fn new(mask: &Mask) -> MiniMask {
        MiniMask { words: MASKS.with_borrow_mut(|recent| recent.share(mask)) }
    }
    /// The words that are not zero.
    #[inline]
    pub fn words(&self) -> &[(u8, u64)] {
        &self.words.0
    }
    /// The whole mask again.
    pub fn expand(&self) -> Mask {
        let mut mask = Mask::default();
        self.fold_into(&mut mask);
        mask
    }
    /// Adds these bits to a mask.
    #[inline]
    pub fn fold_into(&self, mask: &mut Mask) {
        let out = mask.0.words_mut();
        for &(i, m) in self.words() {
            out[i as usize] |= m;
        }
    }
    /// Whether a key has these values under the mask, one for each word.
    #[inline]
    pub(crate) fn matches(&self, flow: &Flow, values: &[u64]) -> bool {
        let flow = flow.words();
        self.words().iter().zip(values).all(|(&(i, m), v)| flow[i as usize] & m == *v)
    }
    /// Whether every bit of `other` is also in this mask.
    pub fn covers(&self, other: &MiniMask) -> bool {
        other.words().iter().all(|&(i, m)| m & !self.word(i) == 0)
    }
    fn word(&self, index: u8) -> u64 {
        let words = self.words();
        match words.binary_search_by_key(&index, |w| w.0) {
            Ok(at) => words[at].1,
            Err(_) => 0,
        }
    }
}

/// Values of a match. Rules about addresses and ports have five words at most and need no allocation.
type Values = SmallVec<[u64; 5]>;

/// A match without its zero words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MiniMatch {
    mask: MiniMask,
    values: Values,
}

impl MiniMatch {
    /// Compresses a match; value bits outside of the mask are dropped.
    pub fn new(m: &Match) -> MiniMatch {
        let mask = MiniMask::new(&m.mask);
        let flow = m.flow.words();
        let values = mask.words().iter().map(|&(i, bits)| flow[i as usize] & bits).collect();
        MiniMatch { mask, values }
    }
    /// One that everything matches.
    pub fn catch_all() -> MiniMatch {
        MiniMatch { mask: MiniMask { words: Arc::default() }, values: Values::new() }
    }
    /// The mask.
    #[inline]
    pub fn mask(&self) -> &MiniMask {
        &self.mask
    }
    /// Keeps its mask where an equal one is kept already.
    pub(crate) fn share_mask(&mut self, equal: &MiniMask) {
        debug_assert_eq!(self.mask, *equal);
        self.mask = equal.clone();
    }
    /// Values, one for each word of the mask.
    #[inline]
    pub fn values(&self) -> &[u64] {
        &self.values
    }
    /// The value of a word, 0 for one outside of the mask.
    pub(crate) fn word(&self, index: u8) -> u64 {
        match self.mask.words().binary_search_by_key(&index, |w| w.0) {
            Ok(at) => self.values[at],
            Err(_) => 0,
        }
    }
    /// The whole match again.
    pub fn expand(&self) -> Match {
        Match { mask: self.mask.expand(), flow: self.flow(), ..Match::catch_all() }
    }
    /// The values alone.
    pub(crate) fn flow(&self) -> Flow {
        let mut flow = Flow::zeroed();
        let out = flow.words_mut();
        for (&(i, _), v) in self.mask.words().iter().zip(&self.values) {
            out[i as usize] = *v;
        }
        flow
    }
    /// Whether a key matches.
    #[inline]
    pub fn matches(&self, flow: &Flow) -> bool {
        self.mask.matches(flow, &self.values)
    }
    /// Whether this is at least as narrow as `criteria`: all that matches this matches `criteria`.
    pub fn is_within(&self, criteria: &MiniMatch) -> bool {
        criteria.mask.words().iter().zip(&criteria.values).all(|(&(i, m), v)| {
            match self.mask.words().binary_search_by_key(&i, |w| w.0) {
                Ok(at) => m & !self.mask.words()[at].1 == 0 && self.values[at] & m == *v,
                Err(_) => false,
            }
        })
    }
    /// Whether some key matches both.
    pub fn intersects(&self, other: &MiniMatch) -> bool {
        self.mask.words().iter().zip(&self.values).all(|(&(i, m), v)| {
            match other.mask.words().binary_search_by_key(&i, |w| w.0) {
                Ok(at) => (v ^ other.values[at]) & m & other.mask.words()[at].1 == 0,
                Err(_) => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::{Be16, Be32};

    fn net(addr: u32, plen: u32) -> Match {
        let mut m = Match::catch_all();
        m.flow.dl_type = Be16::new(0x800);
        m.mask.0.dl_type = Be16::MAX;
        m.flow.nw_dst = Be32::new(addr);
        m.mask.0.nw_dst = Be32::new(if plen == 0 { 0 } else { u32::MAX << (32 - plen) });
        m.normalize();
        m
    }

    #[test]
    fn narrower_matches_lie_within_wider_ones() {
        let wide = MiniMatch::new(&net(0x0a00_0000, 8));
        let narrow = MiniMatch::new(&net(0x0a01_0000, 16));
        let other = MiniMatch::new(&net(0x0b00_0000, 8));
        assert!(narrow.is_within(&wide) && !wide.is_within(&narrow) && !narrow.is_within(&other));
        assert!(narrow.intersects(&wide) && wide.intersects(&narrow) && !narrow.intersects(&other));
        assert!(narrow.mask().covers(wide.mask()) && !wide.mask().covers(narrow.mask()));
        assert_eq!(narrow.expand(), net(0x0a01_0000, 16));
    }
}
