//! Recirculation ids: what a translation was doing when it had to let the datapath work in between.
//!
//! A translation that needs the result of conntrack, a hash or a popped header *freezes*: its state goes
//! into a [`FrozenState`] under an id, and the datapath flow ends in `recirc(id)`. The packet's next
//! upcall carries the id and translation *thaws*. Equal states share an id. An id lives while a flow or a
//! trace refers to it ([`RecircEntry`] is counted), and `GRACE_MS` longer for packets that are on the way; in that time no
//! translation takes it up.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ib_base::time::Instant;
use ib_flow::fields::FieldValue;
use ib_flow::{OfPort, Tunnel};
use ib_openflow::action::Action;
use ib_packet::Be64;
use parking_lot::Mutex;

use crate::xcfg::Quick;

/// How long an id outlives its last user.
const GRACE_MS: u64 = 10_000;

/// Packet metadata that only translation knows and that must survive the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrozenMetadata {
    /// Tunnel.
    pub tunnel: Box<Tunnel>,
    /// OpenFlow metadata.
    pub metadata: Be64,
    /// Registers.
    pub regs: [u32; ib_flow::key::N_REGS],
    /// Port of entry, of the bridge where the state resumes.
    pub in_port: OfPort,
}

/// The state of a translation between two passes through the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenState {
    /// Bridge to resume in ([`crate::ofproto::Ofproto::id`]).
    pub bridge: u32,
    /// Table to resume in, if `actions` does not say better.
    pub table: u8,
    /// Metadata.
    pub metadata: FrozenMetadata,
    /// Stack, bottom first: each value with its width in bytes.
    pub stack: Vec<(FieldValue, u32)>,
    /// Mirrors that had the packet already.
    pub mirrors: u32,
    /// Connection state is known: `ct_*` fields are valid.
    pub conntracked: bool,
    /// Packet was MPLS when frozen.
    pub was_mpls: bool,
    /// Actions still to be done.
    pub actions: Vec<Action>,
    /// Action set.
    pub action_set: Vec<Action>,
    /// Cookie of the rule that froze.
    pub rule_cookie: u64,
    /// Translation goes on from it; else it is only what a packet-in tells.
    pub resumes: bool,
    /// Userdata of `controller(pause)`: the packet goes to controllers instead of resuming.
    pub userdata: Vec<u8>,
}

impl FrozenState {
    fn hash_value(&self) -> u64 {
        let mut h = std::collections::hash_map::DefaultHasher::new();
        (self.bridge, self.table, &self.metadata, self.mirrors, self.conntracked).hash(&mut h);
        (self.actions.len(), self.action_set.len(), self.stack.len(), self.rule_cookie).hash(&mut h);
        h.finish()
    }
}

/// An id and its state.
#[derive(Debug)]
pub struct RecircEntry {
    /// The id, as in `recirc(id)`.
    pub id: u32,
    /// The state.
    pub state: FrozenState,
    /// Kept for packets that may be on the way, whether or not anything refers to it.
    recent: AtomicBool,
}

impl RecircEntry {
    /// A state under an id of whoever calls.
    pub fn new(id: u32, state: FrozenState) -> RecircEntry {
        RecircEntry { id, state, recent: AtomicBool::new(false) }
    }
    /// Whether a flow or a translation refers to it; `held` is how many holds the caller has.
    fn is_in_use(self: &Arc<RecircEntry>, held: usize) -> bool {
        Arc::strong_count(self) > held + usize::from(self.recent.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Inner {
    last: u32,
    by_id: Quick<u32, Weak<RecircEntry>>,
    by_state: Quick<u64, Vec<u32>>,
    recent: VecDeque<(Instant, Arc<RecircEntry>)>,
}

impl Inner {
    fn add(&mut self, state: FrozenState) -> Arc<RecircEntry> {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.by_id.contains_key(&self.last) {
                break;
            }
        }
        let entry = Arc::new(RecircEntry::new(self.last, state));
        self.by_id.insert(entry.id, Arc::downgrade(&entry));
        entry
    }
}

/// The ids of one datapath.
#[derive(Default)]
pub struct RecircIds(Mutex<Inner>);

impl RecircIds {
    /// None used so far.
    pub fn new() -> RecircIds {
        RecircIds::default()
    }

    /// New ids will be above `id`: flows of a control plane before us use those up to it.
    pub fn start_above(&self, id: u32) {
        let mut inner = self.0.lock();
        inner.last = inner.last.max(id);
    }

    /// An id for a state: the one it has, or a new one. One that nothing refers to any more is not taken up again.
    pub fn alloc(&self, state: FrozenState, now: Instant) -> Arc<RecircEntry> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let hash = state.hash_value();
        for id in inner.by_state.get(&hash).into_iter().flatten() {
            if let Some(e) = inner.by_id.get(id).and_then(Weak::upgrade)
                && e.state == state
                && e.is_in_use(1)
            {
                return e;
            }
        }
        let entry = inner.add(state);
        inner.by_state.entry(hash).or_default().push(entry.id);
        entry.recent.store(true, Ordering::Relaxed);
        inner.recent.push_back((now, Arc::clone(&entry)));
        entry
    }

    /// An id of its own for a state that others may have too; it lives while the entry does.
    pub fn alloc_own(&self, state: FrozenState) -> Arc<RecircEntry> {
        self.0.lock().add(state)
    }

    /// The state of an id.
    pub fn find(&self, id: u32) -> Option<Arc<RecircEntry>> {
        self.0.lock().by_id.get(&id)?.upgrade()
    }

    /// Forgets ids that nobody uses any more. Call it once a round.
    pub fn run(&self, now: Instant) {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let mut freed = false;
        while inner.recent.front().is_some_and(|(t, _)| t.plus_ms(GRACE_MS) <= now) {
            if let Some((_, entry)) = inner.recent.pop_front() {
                entry.recent.store(false, Ordering::Relaxed);
            }
            freed = true;
        }
        if freed || inner.by_id.len() > 2 * inner.recent.len() + 64 {
            inner.by_id.retain(|_, e| e.strong_count() != 0);
            let by_id = &inner.by_id;
            inner.by_state.retain(|_, ids| {
                ids.retain(|id| by_id.contains_key(id));
                !ids.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_up_again_only_while_something_refers_to_it() {
        let state = |table| FrozenState {
            bridge: 1,
            table,
            metadata: FrozenMetadata {
                tunnel: Box::new(ib_flow::Flow::zeroed().tunnel),
                metadata: Be64::ZERO,
                regs: [0; ib_flow::key::N_REGS],
                in_port: OfPort(1),
            },
            stack: Vec::new(),
            mirrors: 0,
            conntracked: false,
            was_mpls: false,
            actions: Vec::new(),
            action_set: Vec::new(),
            rule_cookie: 0,
            resumes: true,
            userdata: Vec::new(),
        };
        let ids = RecircIds::new();
        let now = Instant::ZERO;
        let first = ids.alloc(state(0), now);
        assert_eq!((first.id, ids.alloc(state(0), now).id, ids.alloc(state(1), now).id), (1, 1, 2));
        drop(first);
        // Packets on the way still find it.
        assert!(ids.find(1).is_some());
        let again = ids.alloc(state(0), now);
        assert_eq!(again.id, 3);
        let later = now.plus_ms(GRACE_MS + 1);
        ids.run(later);
        assert!(ids.find(1).is_none());
        assert_eq!(ids.alloc(state(0), later).id, 3);
    }
}
