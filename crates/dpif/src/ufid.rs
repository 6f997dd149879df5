//! Identifiers of flows: hashes that providers compute when nobody else chose one.

use ib_flow::{Flow, Mask};

use crate::Ufid;

/// Folds two words into one; the building block of all hashes here (128-bit product, halves xored).
#[inline]
pub fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    (p as u64) ^ ((p >> 64) as u64)
}

/// Second key of [`fold`]: any odd number with mixed bits.
pub const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds pairs of words, each with its place, into an identifier. `seed` goes into each step: who doesn't know it can't
/// choose words that cancel what came before.
struct UfidHash {
    lo: u64,
    hi: u64,
    seed: u64,
}

impl UfidHash {
    fn new(seed: u64) -> UfidHash {
        UfidHash { lo: seed, hi: seed ^ SALT, seed: seed.rotate_left(32) ^ SALT }
    }
    #[inline]
    fn add(&mut self, place: usize, a: u64, b: u64) {
        let seed = self.seed ^ place as u64;
        self.lo = fold(self.lo ^ a, b ^ seed);
        self.hi = fold(self.hi ^ b.rotate_left(17), a ^ seed.rotate_left(29)).wrapping_add(self.lo);
    }
    fn finish(&self) -> Ufid {
        Ufid(u128::from(self.hi) << 64 | u128::from(self.lo))
    }
}

/// The identifier of a flow whose installer gave none: a hash of the masked key and the mask.
#[inline]
pub fn ufid_of(key: &Flow, mask: &Mask, seed: u64) -> Ufid {
    let mut hash = UfidHash::new(seed);
    for (place, (k, m)) in key.words().iter().zip(mask.0.words()).enumerate().filter(|(_, (_, m))| **m != 0) {
        hash.add(place, k & m, *m);
    }
    hash.finish()
}

/// The identifier that an upcall proposes: a hash of the packet's whole key.
#[inline]
pub fn ufid_of_key(key: &Flow, seed: u64) -> Ufid {
    let mut hash = UfidHash::new(seed);
    for (place, pair) in key.words().chunks(2).enumerate() {
        let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
        if a | b != 0 {
            hash.add(place, a, b);
        }
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_word_of_a_key_and_the_seed_change_it() {
        let plain = ufid_of_key(&Flow::zeroed(), 1);
        for at in 0..Flow::zeroed().words().len() {
            let mut key = Flow::zeroed();
            key.words_mut()[at] = 1;
            assert_ne!(ufid_of_key(&key, 1), plain, "word {at}");
        }
        let mut key = Flow::zeroed();
        key.nw_proto = 6;
        assert_ne!(ufid_of_key(&key, 2), ufid_of_key(&key, 1));
        assert_ne!(ufid_of(&key, &Mask::default(), 1), ufid_of(&key, &Mask(key.clone()), 1));
    }

    #[test]
    fn ufids_differ_by_key_and_by_mask() {
        let mut key = Flow::zeroed();
        let mut mask = Mask::default();
        let a = ufid_of(&key, &mask, 1);
        mask.0.nw_src = ib_packet::Be32::MAX;
        let b = ufid_of(&key, &mask, 1);
        key.nw_src = ib_packet::Be32::new(1);
        let c = ufid_of(&key, &mask, 1);
        assert!(a != b && b != c && a != c);
        assert_ne!(ufid_of_key(&key, 1), ufid_of_key(&Flow::zeroed(), 1));
    }
}
