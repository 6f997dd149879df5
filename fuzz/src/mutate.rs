//! Deriving inputs from inputs.

use ib_base::rng::Rng;

/// Longest input made.
const MAX_LEN: usize = 4096;

/// Values at which lengths and counts go wrong.
const EDGES: [u64; 12] = [0, 1, 2, 3, 7, 8, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0xffff_ffff];

/// An endless source of inputs, the same for the same corpus and seed.
pub struct Mutator {
    corpus: Vec<Vec<u8>>,
    rng: Rng,
}

impl Mutator {
    /// From a corpus, which may be empty.
    pub fn new(mut corpus: Vec<Vec<u8>>, seed: u64) -> Mutator {
        if corpus.is_empty() {
            corpus.push(Vec::new());
        }
        Mutator { corpus, rng: Rng::new(seed) }
    }

    fn below(&mut self, bound: usize) -> usize {
        // The bound is a length, far below 2^64.
        self.rng.below(bound.max(1) as u64) as usize
    }

    /// The next input: a corpus entry with one to eight changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let pick = self.below(self.corpus.len());
        let mut input = self.corpus[pick].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.rng.next_u32() as u8,
            2 => input.truncate(at),
            3 => {
                let mut extra = vec![0; self.below(16)];
                self.rng.fill(&mut extra);
                input.splice(at..at, extra);
            }
            4 if !input.is_empty() => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            5 if !input.is_empty() => {
                let end = (at + 1 + self.below(32)).min(input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let width = [1, 2, 4, 8][self.below(4)];
                let edge = EDGES[self.below(EDGES.len())].to_be_bytes();
                if at + width <= input.len() {
                    input[at..at + width].copy_from_slice(&edge[8 - width..]);
                }
            }
            _ => {
                let other = self.below(self.corpus.len());
                let from = self.below(self.corpus[other].len());
                let tail = self.corpus[other][from..].to_vec();
                input.truncate(at);
                input.extend(tail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again() {
        let make = || {
            let mut m = Mutator::new(vec![b"hello".to_vec(), vec![1, 2, 3]], 7);
            (0..50).map(|_| m.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(make(), make());
        assert!(make().iter().any(|i| i != b"hello" && !i.is_empty()));
    }
}
