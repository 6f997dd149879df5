//! Seedable random numbers: xoshiro256** with splitmix64 seeding. Not for secrets.
//!
//! Each owner has its own generator; a simulation hands out generators that it seeded, a daemon seeds from the system
//! by [`Rng::from_os`]. No locks, no global state. About a nanosecond a number.

use std::hash::{BuildHasher, Hasher};

/// A random source.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The source that `seed` determines.
    pub fn new(seed: u64) -> Rng {
        let mut x = seed;
        Rng(std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// A source that nobody can predict well, seeded from the system's entropy.
    pub fn from_os() -> Rng {
        // The standard library keys its hash maps from the system's entropy; a fresh key hashes into a seed.
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(crate::time::machine_wall_ms());
        hasher.write_u32(std::process::id());
        Rng::new(hasher.finish())
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0. Bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// A source for another owner, determined by this one's state.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_determines_and_numbers_spread() {
        let mut a = Rng::new(42);
        let mut b = Rng::new(42);
        assert_eq!(a.next_u64(), b.next_u64());
        assert_ne!(Rng::new(43).next_u64(), Rng::new(42).next_u64());
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[a.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1_200).contains(n)), "{seen:?}");
        assert_eq!(a.below(0), 0);
        let mut bytes = [0; 13];
        a.fill(&mut bytes);
        assert!(bytes.iter().any(|b| *b != 0));
    }
}
