//! What a classifier needs to know of a rule.

use std::sync::atomic::{AtomicU64, Ordering};

use ib_flow::Match;

use crate::mini::MiniMatch;

/// `remove_version` of a rule that nobody removes.
pub const VERSION_NOT_REMOVED: u64 = u64::MAX;

/// One `conjunction(id, clause/n_clauses)` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conjunction {
    /// Value of `conj_id` when all clauses match.
    pub id: u32,
    /// Which clause this rule satisfies, from 0.
    pub clause: u8,
    /// How many clauses there are.
    pub n_clauses: u8,
}

/// The part of a rule that a [`Classifier`](crate::Classifier) looks at. Match, priority and conjunctions
/// never change; versions do.
#[derive(Debug)]
pub struct ClsRule {
    pub(crate) mini: MiniMatch,
    priority: i32,
    /// None of most rules, which is worth a thin pointer.
    conjunctions: Option<Box<Box<[Conjunction]>>>,
    add_version: AtomicU64,
    remove_version: AtomicU64,
}

impl ClsRule {
    /// A rule that is visible from `add_version` on. `conjunctions` not empty makes it a clause of
    /// conjunctive matches instead of a match of its own.
    pub fn new(m: &Match, priority: i32, conjunctions: &[Conjunction], add_version: u64) -> ClsRule {
        ClsRule::from_mini(MiniMatch::new(m), priority, conjunctions, add_version)
    }
    /// As [`Self::new`].
    pub fn from_mini(
        mini: MiniMatch,
        priority: i32,
        conjunctions: &[Conjunction],
        add_version: u64,
    ) -> ClsRule {
        ClsRule {
            mini,
            priority,
            conjunctions: (!conjunctions.is_empty()).then(|| Box::new(conjunctions.into())),
            add_version: AtomicU64::new(add_version),
            remove_version: AtomicU64::new(VERSION_NOT_REMOVED),
        }
    }
    /// The match, compressed.
    pub fn mini(&self) -> &MiniMatch {
        &self.mini
    }
    /// The match.
    pub fn match_(&self) -> Match {
        self.mini.expand()
    }
    /// Higher wins.
    #[inline]
    pub fn priority(&self) -> i32 {
        self.priority
    }
    /// Clauses that this rule satisfies.
    #[inline]
    pub fn conjunctions(&self) -> &[Conjunction] {
        self.conjunctions.as_ref().map_or(&[], |all| all)
    }
    /// Whether a lookup in `version` sees this rule.
    #[inline]
    pub fn is_visible(&self, version: u64) -> bool {
        self.add_version.load(Ordering::Acquire) <= version
            && version < self.remove_version.load(Ordering::Acquire)
    }
    /// Hides the rule from `version` on ([`VERSION_NOT_REMOVED`] shows it again).
    pub fn remove_in(&self, version: u64) {
        self.remove_version.store(version, Ordering::Release);
    }
    /// Whether somebody decided to remove it.
    pub fn is_removed(&self) -> bool {
        self.remove_version.load(Ordering::Acquire) != VERSION_NOT_REMOVED
    }
}

/// An owner's rule type.
pub trait AsClsRule {
    /// The part that the classifier looks at; always the same one.
    fn cls(&self) -> &ClsRule;
    /// Where collections list it among rules of the same mask; never changes.
    fn order(&self) -> u64 {
        0
    }
}

impl AsClsRule for ClsRule {
    fn cls(&self) -> &ClsRule {
        self
    }
}
