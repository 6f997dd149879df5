//! Priority tuple-space search over versioned rules.
//!
//! A [`Classifier`] holds rules: a match, a priority and whatever the owner hangs on it. Rules with the
//! same mask form a subtable, a hash table on the masked key. A lookup visits subtables by their highest
//! priority, falling, and stops when no later one can hold a better rule. While it goes it collects in a
//! [`Mask`](ib_flow::Mask) the bits that it looked at: every packet that agrees with this one in those bits
//! gets the same answer, which is what a cache entry needs. Three things keep that mask small:
//!
//! - *stages*: a subtable's key is hashed group by group (metadata, L2, L3, L4); when a group already
//!   rules every rule of the subtable out, the later groups stay unlooked at;
//! - *prefix tries* on address fields tell which prefix lengths can match at all, and how many leading
//!   bits prove it;
//! - a *ports trie* in each subtable does the same for transport ports.
//!
//! Rules carry the versions in which they are visible ([`ClsRule`]); a lookup names a version, so that
//! a bundle of changes appears at once. Conjunctive matches (`conjunction(id, k/n)`) are solved here.
//!
//! Threads: all methods take `&self`. Lookups share a lock that a writer takes for one insertion or
//! removal at a time, never for a batch.

mod classifier;
mod mini;
mod rule;
mod subtable;
mod trie;

pub use classifier::Classifier;
pub use mini::{MiniMask, MiniMatch};
pub use rule::{AsClsRule, ClsRule, Conjunction, VERSION_NOT_REMOVED};
pub use trie::PrefixField;
