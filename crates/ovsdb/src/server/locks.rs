//! Advisory locks of clients (RFC 7047 sections 4.1.8 to 4.1.10): a queue for each name, its head holds the lock.
//!
//! A holder whose lock is stolen stays in the queue if it had waited for the lock, and gets it back in its turn. One that had stolen it
//! itself has lost it for good, though it has to unlock before it may ask again.

use super::SessionId;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// One who holds a lock or waits for it.
#[derive(Clone, Copy)]
struct Waiter {
    id: SessionId,
    stole: bool,
}

#[derive(Default)]
pub(super) struct Locks {
    queues: HashMap<String, VecDeque<Waiter>>,
    /// Those who have lost what they stole, and have not unlocked yet.
    lost: BTreeSet<(SessionId, String)>,
}

impl Locks {
    /// Who holds the lock.
    pub fn owner(&self, name: &str) -> Option<SessionId> {
        self.queues.get(name).and_then(|q| q.front().map(|w| w.id))
    }

    /// The locks that a session holds, waits for and has lost; sorted.
    pub fn of(&self, id: SessionId) -> [Vec<String>; 3] {
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for (name, queue) in &self.queues {
            if queue.front().is_some_and(|w| w.id == id) {
                held.push(name.clone());
            } else if queue.iter().any(|w| w.id == id) {
                waiting.push(name.clone());
            }
        }
        held.sort();
        waiting.sort();
        let lost = self.lost.iter().filter(|(session, _)| *session == id).map(|(_, name)| name.clone());
        [held, waiting, lost.collect()]
    }

    /// True if the session has to unlock before it may ask for the lock.
    pub fn wants(&self, name: &str, id: SessionId) -> bool {
        self.queues.get(name).is_some_and(|q| q.iter().any(|w| w.id == id))
            || self.lost.contains(&(id, name.to_string()))
    }

    /// Queues the session, in front if it steals. Says whether it has the lock, and from whom it was taken.
    pub fn lock(&mut self, name: &str, id: SessionId, steal: bool) -> (bool, Option<SessionId>) {
        let queue = self.queues.entry(name.to_string()).or_default();
        let waiter = Waiter { id, stole: steal };
        if !steal {
            queue.push_back(waiter);
            return (queue.len() == 1, None);
        }
        let victim = queue.front().copied();
        if let Some(victim) = victim.filter(|v| v.stole) {
            queue.pop_front();
            self.lost.insert((victim.id, name.to_string()));
        }
        queue.push_front(waiter);
        (true, victim.map(|v| v.id))
    }

    /// Takes the session out of the queue; whom to tell that it holds the lock: as in the original, also if it did already.
    pub fn unlock(&mut self, name: &str, id: SessionId) -> Option<SessionId> {
        if self.lost.remove(&(id, name.to_string())) {
            return None;
        }
        let queue = self.queues.get_mut(name)?;
        queue.retain(|w| w.id != id);
        let owner = queue.front().map(|w| w.id);
        if queue.is_empty() {
            self.queues.remove(name);
        }
        owner
    }

    /// Takes the session out of all queues; locks with whom to tell that they hold them.
    pub fn forget(&mut self, id: SessionId) -> Vec<(String, SessionId)> {
        self.lost.retain(|(session, _)| *session != id);
        let waits = |q: &VecDeque<Waiter>| q.iter().any(|w| w.id == id);
        let mut names: Vec<String> =
            self.queues.iter().filter(|(_, q)| waits(q)).map(|(n, _)| n.clone()).collect();
        names.sort();
        names.into_iter().filter_map(|name| self.unlock(&name, id).map(|owner| (name, owner))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_locks() {
        let [a, b, c] = [1, 2, 3].map(SessionId);
        let mut locks = Locks::default();
        assert_eq!(locks.lock("l", a, false), (true, None));
        assert_eq!(locks.lock("l", b, true), (true, Some(a)));
        assert_eq!(locks.lock("l", c, true), (true, Some(b)));
        assert_eq!(locks.of(b), [vec![], vec![], vec!["l".to_string()]]);
        assert!(locks.wants("l", b), "has to unlock first");
        assert_eq!(locks.unlock("l", c), Some(a), "b had stolen it");
        assert_eq!(locks.unlock("l", b), None);
        assert!(!locks.wants("l", b));
        assert_eq!(locks.lock("l", b, true), (true, Some(a)));
        assert_eq!(locks.unlock("l", a), Some(b), "it is told again");
        assert_eq!(locks.forget(b), []);
        assert_eq!(locks.owner("l"), None);
    }
}
