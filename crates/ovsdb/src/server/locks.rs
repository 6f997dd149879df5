//! Advisory locks of clients (RFC 7047 sections 4.1.8 to 4.1.10): a queue for each name, its head holds the lock.

use super::SessionId;
use std::collections::{HashMap, VecDeque};

#[derive(Default)]
pub(super) struct Locks {
    queues: HashMap<String, VecDeque<SessionId>>,
}

impl Locks {
    /// Who holds the lock.
    pub fn owner(&self, name: &str) -> Option<SessionId> {
        self.queues.get(name).and_then(|q| q.front().copied())
    }

    /// The locks that a session holds, and those that it waits for, but for those that were `lost`; sorted.
    pub fn of(&self, id: SessionId, lost: &[String]) -> (Vec<String>, Vec<String>) {
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for (name, queue) in &self.queues {
            if queue.front() == Some(&id) {
                held.push(name.clone());
            } else if queue.contains(&id) && !lost.contains(name) {
                waiting.push(name.clone());
            }
        }
        held.sort();
        waiting.sort();
        (held, waiting)
    }

    /// True if the session holds the lock or waits for it.
    pub fn wants(&self, name: &str, id: SessionId) -> bool {
        self.queues.get(name).is_some_and(|q| q.contains(&id))
    }

    /// Queues the session, in front if it steals. Says whether it has the lock, and from whom it was taken.
    pub fn lock(&mut self, name: &str, id: SessionId, steal: bool) -> (bool, Option<SessionId>) {
        let queue = self.queues.entry(name.to_string()).or_default();
        if steal {
            let victim = queue.front().copied();
            queue.push_front(id);
            (true, victim)
        } else {
            queue.push_back(id);
            (queue.len() == 1, None)
        }
    }

    /// Takes the session out of the queue; who holds the lock by that, if it changed hands.
    pub fn unlock(&mut self, name: &str, id: SessionId) -> Option<SessionId> {
        let queue = self.queues.get_mut(name)?;
        let held = queue.front() == Some(&id);
        queue.retain(|other| *other != id);
        let next = queue.front().copied().filter(|_| held);
        if queue.is_empty() {
            self.queues.remove(name);
        }
        next
    }

    /// Takes the session out of all queues; locks that changed hands, with their new owners.
    pub fn forget(&mut self, id: SessionId) -> Vec<(String, SessionId)> {
        let mut names: Vec<String> =
            self.queues.iter().filter(|(_, q)| q.contains(&id)).map(|(n, _)| n.clone()).collect();
        names.sort();
        names.into_iter().filter_map(|name| self.unlock(&name, id).map(|next| (name, next))).collect()
    }
}
