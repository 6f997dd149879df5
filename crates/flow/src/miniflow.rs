//! Keys without their zero words.
//!
//! A key has 91 words of which a packet fills about a dozen. A [`Miniflow`] is a bitmap of the words that are
//! not zero and those words; a [`Minimask`] is a mask in that form. Hashing and comparing cost in proportion
//! to the mask's words, which is what a lookup per subtable needs. Buffers are reused: refilling a miniflow
//! does not allocate in steady state.

use crate::hash;
use crate::key::{FLOW_WORDS, Flow, Mask};

const MAP_WORDS: usize = FLOW_WORDS.div_ceil(64);
const _: () = assert!(MAP_WORDS == 2);

/// A key without its zero words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Miniflow {
    map: [u64; MAP_WORDS],
    values: Vec<u64>,
}

/// A mask without its zero words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Minimask(Miniflow);

/// Indexes of the bits set in a map, ascending.
#[inline]
fn bits(map: [u64; MAP_WORDS]) -> impl Iterator<Item = usize> {
    map.into_iter().enumerate().flat_map(|(i, mut w)| {
        std::iter::from_fn(move || {
            if w == 0 {
                return None;
            }
            let bit = w.trailing_zeros() as usize;
            w &= w - 1;
            Some(i * 64 + bit)
        })
    })
}

/// Words that are looked at together: most runs of them are zero, and one OR says so.
const RUN: usize = 8;
const _: () = assert!(64 % RUN == 0);

/// Which words are not zero.
#[inline]
fn map_of(words: &[u64; FLOW_WORDS]) -> [u64; MAP_WORDS] {
    let mut map = [0; MAP_WORDS];
    let (runs, rest) = words.as_chunks::<RUN>();
    let mut put = |at: usize, run: &[u64]| {
        let bits = run.iter().enumerate().fold(0, |bits, (bit, w)| bits | u64::from(*w != 0) << bit);
        map[at * RUN / 64] |= bits << (at * RUN % 64);
    };
    for (at, run) in runs.iter().enumerate() {
        if run.iter().fold(0, |all, w| all | w) != 0 {
            put(at, run);
        }
    }
    put(runs.len(), rest);
    map
}

impl Miniflow {
    /// The key `flow`.
    pub fn new(flow: &Flow) -> Miniflow {
        let mut m = Miniflow::default();
        m.fill(flow);
        m
    }
    /// Makes this the key `flow`. It is run for each miss, several times.
    pub fn fill(&mut self, flow: &Flow) {
        let words = flow.words();
        self.map = map_of(words);
        self.values.clear();
        self.values.reserve_exact(self.map.iter().map(|m| m.count_ones() as usize).sum());
        for (n, mut map) in self.map.into_iter().enumerate() {
            while map != 0 {
                self.values.push(words[n * 64 + map.trailing_zeros() as usize]);
                map &= map - 1;
            }
        }
    }
    /// The word at `index` of the key.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        let (i, bit) = (index / 64, index % 64);
        if i >= MAP_WORDS || self.map[i] >> bit & 1 == 0 {
            return 0;
        }
        let before = (self.map[i] & ((1 << bit) - 1)).count_ones()
            + self.map[..i].iter().map(|m| m.count_ones()).sum::<u32>();
        self.values[before as usize]
    }
    /// Indexes and values of the words that are not zero, ascending.
    pub fn words(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        bits(self.map).zip(self.values.iter().copied())
    }
    /// The whole key again.
    pub fn expand(&self) -> Flow {
        let mut flow = Flow::zeroed();
        let out = flow.words_mut();
        self.words().for_each(|(i, w)| out[i] = w);
        flow
    }
    /// Hash of the whole key.
    pub fn hash(&self, basis: u32) -> u32 {
        let h = self.map.iter().fold(basis, |h, m| hash::add64(h, *m));
        hash::words(self.values.iter().copied(), h)
    }
    /// Hash of the bits that matter: equal for keys that are equal under `mask`, whether they are given whole
    /// or masked.
    #[inline]
    pub fn hash_under(&self, mask: &Minimask, basis: u32) -> u32 {
        hash::words(mask.0.words().map(|(i, m)| self.word(i) & m), basis)
    }
    /// Whether two keys agree in every bit that matters.
    #[inline]
    pub fn equal_under(&self, other: &Miniflow, mask: &Minimask) -> bool {
        mask.0.words().all(|(i, m)| (self.word(i) ^ other.word(i)) & m == 0)
    }
}

impl Minimask {
    /// The mask `mask`.
    pub fn new(mask: &Mask) -> Minimask {
        Minimask(Miniflow::new(&mask.0))
    }
    /// Whether this is the mask `mask`.
    pub fn is(&self, mask: &Mask) -> bool {
        let words = mask.0.words();
        self.0.map == map_of(words) && self.words().all(|(i, m)| words[i] == m)
    }
    /// Indexes and masks of the words that matter, ascending.
    pub fn words(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.words()
    }
    /// The word at `index` of the mask.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        self.0.word(index)
    }
    /// The whole mask again.
    pub fn expand(&self) -> Mask {
        Mask(self.0.expand())
    }
    /// Hash of the bits of a whole key that matter; the same as [`Miniflow::hash_under`].
    #[inline]
    pub fn hash_flow(&self, flow: &Flow, basis: u32) -> u32 {
        let words = flow.words();
        hash::words(self.0.words().map(|(i, m)| words[i] & m), basis)
    }
    /// Whether a whole key agrees with a mini one in every bit that matters.
    #[inline]
    pub fn matches(&self, key: &Miniflow, flow: &Flow) -> bool {
        let words = flow.words();
        self.0.words().all(|(i, m)| (words[i] ^ key.word(i)) & m == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{parse_exact_flow, parse_match};

    #[test]
    fn a_key_and_back() {
        let f = parse_exact_flow("in_port=3,tcp,nw_src=1.2.3.4,tp_dst=80,reg31=7", None).unwrap();
        let m = Miniflow::new(&f);
        assert_eq!(m.expand(), f);
        assert!(m.words().count() < 12);
        for i in 0..FLOW_WORDS + 3 {
            assert_eq!(m.word(i), f.words().get(i).copied().unwrap_or(0));
        }
        let mut other = Miniflow::new(&Flow::zeroed());
        assert_ne!(other.hash(0), m.hash(0));
        other.fill(&f);
        assert_eq!(other, m);
    }

    #[test]
    fn under_a_mask_only_what_matters_counts() {
        let mask = parse_match("ip,nw_src=10.0.0.0/8", None).unwrap().0.mask;
        let mini = Minimask::new(&mask);
        assert_eq!(mini.expand(), mask);
        assert!(mini.is(&mask));
        for other in ["ip,nw_src=10.0.0.0/9", "ip,nw_dst=10.0.0.0/8", "ip,nw_src=10.0.0.0/8,tp_src=1"] {
            assert!(!mini.is(&parse_match(other, None).unwrap().0.mask), "{other}");
        }
        let key = |t: &str| parse_exact_flow(t, None).unwrap();
        let (a, b, c) =
            (key("ip,nw_src=10.1.1.1"), key("tcp,nw_src=10.9.9.9,tp_src=5"), key("ip,nw_src=11.1.1.1"));
        let (ma, mb, mc) = (Miniflow::new(&a), Miniflow::new(&b), Miniflow::new(&c));
        assert!(ma.equal_under(&mb, &mini) && !ma.equal_under(&mc, &mini));
        assert!(mini.matches(&ma, &b) && !mini.matches(&ma, &c));
        assert_eq!(ma.hash_under(&mini, 1), mini.hash_flow(&b, 1));
        assert_eq!(Miniflow::new(&mask.apply(&a)).hash_under(&mini, 1), mini.hash_flow(&a, 1));
        assert_ne!(mini.hash_flow(&a, 1), mini.hash_flow(&c, 1));
    }
}
