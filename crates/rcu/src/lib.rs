//! Published snapshots: values that many threads read while one replaces them.
//!
//! [`Published`] holds an `Arc<T>`. Readers take it without waiting for anyone; a writer swaps in a new
//! one, and the old one is freed by whoever lets go of it last. Cost: a load costs about as much as
//! cloning an `Arc`; [`Published::peek`] less. [`Version`] is a number that only grows and says that
//! "something changed"; readers remember the one they saw. [`Turns`] say when nobody works any more with what was taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

mod turns;

pub use turns::{Grace, Turn, Turns};

/// A snapshot that readers never wait for.
#[derive(Debug)]
pub struct Published<T>(ArcSwap<T>);

impl<T> Published<T> {
    /// Publishes the first snapshot.
    pub fn new(value: T) -> Published<T> {
        Published(ArcSwap::from_pointee(value))
    }
    /// The snapshot of now.
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }
    /// The snapshot of now, for a short look: cheaper than [`Self::load`], not to be kept.
    pub fn peek(&self) -> impl std::ops::Deref<Target = Arc<T>> + '_ {
        self.0.load()
    }
    /// Replaces the snapshot.
    pub fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }
    /// Replaces the snapshot by one that somebody else may hold already.
    pub fn store_arc(&self, value: Arc<T>) {
        self.0.store(value);
    }
    /// Replaces the snapshot by a function of the old one. Writers that race run `f` again.
    pub fn update(&self, mut f: impl FnMut(&T) -> T) {
        self.0.rcu(|old| f(old));
    }
}

impl<T: Default> Default for Published<T> {
    fn default() -> Published<T> {
        Published::new(T::default())
    }
}

/// A change counter: starts at 1, so that a reader that has seen nothing can remember 0.
#[derive(Debug)]
pub struct Version(AtomicU64);

impl Default for Version {
    fn default() -> Version {
        Version::new()
    }
}

impl Version {
    /// A counter at 1.
    pub const fn new() -> Version {
        Version(AtomicU64::new(1))
    }
    /// Its value; what was written before the matching [`Self::bump`] is visible.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    /// Adds one and returns the new value.
    pub fn bump(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_its_snapshot() {
        let p = Published::new(vec![1]);
        let before = p.load();
        p.update(|old| old.iter().copied().chain([2]).collect());
        assert_eq!((before.as_slice(), p.load().as_slice()), (&[1][..], &[1, 2][..]));
    }

    #[test]
    fn versions_grow() {
        let v = Version::new();
        let seen = v.get();
        assert_eq!(v.bump(), seen + 1);
        assert_eq!(v.get(), seen + 1);
    }
}
