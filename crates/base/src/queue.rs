//! A bounded queue between threads: full means the item comes back to the producer, who drops and counts it.
//!
//! A mutex around a ring and a condition variable; made for control traffic (upcalls by batch, log lines, requests of
//! worker threads), not for one packet at a time. Memory is at most `capacity` items.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bounded first-in first-out queue for many producers and consumers.
#[derive(Debug)]
pub struct BoundedQueue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> BoundedQueue<T> {
    /// An empty queue that holds at most `capacity` items.
    pub fn new(capacity: usize) -> Self {
        BoundedQueue {
            capacity,
            state: Mutex::new(State { items: VecDeque::new(), closed: false }),
            filled: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends `item`, or hands it back if the queue is full or closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.items.len() >= self.capacity {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the oldest item, if there is one.
    pub fn pop(&self) -> Option<T> {
        self.lock().items.pop_front()
    }

    /// Takes the oldest item; waits for one up to `timeout` (for ever if `None`). `None` on timeout or when the queue
    /// is closed and empty.
    pub fn pop_wait(&self, timeout: Option<Duration>) -> Option<T> {
        let state = self.lock();
        let waiting = |s: &mut State<T>| s.items.is_empty() && !s.closed;
        let mut state = match timeout {
            Some(t) => {
                self.filled.wait_timeout_while(state, t, waiting).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.filled.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner),
        };
        state.items.pop_front()
    }

    /// Moves up to `max` items to the end of `out`; returns how many.
    pub fn pop_many(&self, out: &mut Vec<T>, max: usize) -> usize {
        let mut state = self.lock();
        let n = max.min(state.items.len());
        out.extend(state.items.drain(..n));
        n
    }

    /// Refuses further items and wakes all who wait.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_gives_back() {
        let q = BoundedQueue::new(2);
        assert_eq!((q.push(1), q.push(2), q.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(q.pop(), Some(1));
        assert_eq!(q.push(4), Ok(()));
        let mut out = vec![0];
        assert_eq!(q.pop_many(&mut out, 9), 2);
        assert_eq!(out, [0, 2, 4]);
        assert_eq!(q.pop_wait(Some(Duration::from_millis(1))), None);
        q.close();
        assert_eq!(q.pop_wait(None), None);
        assert_eq!(q.push(5), Err(5));
    }
}
