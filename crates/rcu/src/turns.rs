//! Turns: how a writer learns that nobody still works with what it took away, without anybody waiting.
//!
//! A thread that looks shared things up brackets each batch of work by [`Turn::begin`] and [`Turn::end`]. Who has unlinked a thing asks for
//! a [`Grace`]: it is over once every turn that was under way then has ended. Turns that begin later cannot find the thing.
//!
//! Why that holds: `begin` marks the turn as under way before it looks anything up, [`Turns::grace`] comes after the unlinking, and between
//! the two steps of each is a sequentially consistent fence. So either the writer sees the mark, or the reader sees that the thing is gone.
//!
//! Cost: a fence a batch; a grace is O(threads).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// Everybody who takes turns.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Vec<Arc<AtomicU64>>>);

/// One thread's turns. Odd: one is under way.
#[derive(Debug)]
pub struct Turn(Arc<AtomicU64>);

impl Turns {
    /// One more who takes turns, for as long as he keeps this.
    pub fn join(&self) -> Turn {
        let turn = Arc::new(AtomicU64::new(0));
        let mut all = self.0.lock();
        all.retain(|t| Arc::strong_count(t) > 1);
        all.push(Arc::clone(&turn));
        Turn(turn)
    }

    /// The turns that are under way now; `None` if there are none. To be called after unlinking.
    pub fn grace(&self) -> Option<Grace> {
        fence(Ordering::SeqCst);
        let all = self.0.lock();
        let busy = all.iter().map(|t| (t, t.load(Ordering::Acquire))).filter(|(_, n)| n % 2 == 1);
        let under_way: Vec<_> = busy.map(|(t, n)| (Arc::clone(t), n)).collect();
        (!under_way.is_empty()).then(|| Grace(Mutex::new(under_way)))
    }
}

impl Turn {
    /// Work begins.
    #[inline]
    pub fn begin(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
    /// Nothing that was looked up in this turn is used any more. Without a turn under way, nothing happens.
    #[inline]
    pub fn end(&self) {
        let n = self.0.load(Ordering::Relaxed);
        self.0.store(n + n % 2, Ordering::Release);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

/// The turns that somebody has to see the end of.
#[derive(Debug)]
pub struct Grace(Mutex<Vec<(Arc<AtomicU64>, u64)>>);

impl Grace {
    /// Whether all of them have ended; what their threads did in them is visible then.
    pub fn is_over(&self) -> bool {
        let mut under_way = self.0.lock();
        under_way.retain(|(turn, n)| turn.load(Ordering::Acquire) == *n);
        under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_grace_waits_for_turns_under_way_and_for_no_others() {
        let turns = Turns::default();
        let (a, b) = (turns.join(), turns.join());
        assert!(turns.grace().is_none());
        a.begin();
        let grace = turns.grace().unwrap();
        b.begin();
        assert!(!grace.is_over());
        a.end();
        assert!(grace.is_over(), "b began later");
        a.begin();
        let grace = turns.grace().unwrap();
        drop(a);
        assert!(!grace.is_over());
        drop(b);
        assert!(grace.is_over(), "who leaves has ended");
        turns.join().end();
        assert!(turns.grace().is_none());
    }

    /// What a reader adds to a thing is complete when the grace after the thing's unlinking is over.
    #[test]
    fn nothing_is_added_after_a_grace() {
        let turns = Turns::default();
        let (gone, count, stop) = (AtomicBool::new(true), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    let turn = turns.join();
                    while !stop.load(Ordering::Relaxed) {
                        turn.begin();
                        if !gone.load(Ordering::Relaxed) {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        turn.end();
                    }
                });
            }
            for _ in 0..20_000 {
                gone.store(false, Ordering::Relaxed);
                std::hint::spin_loop();
                gone.store(true, Ordering::Relaxed);
                let grace = turns.grace();
                while grace.as_ref().is_some_and(|g| !g.is_over()) {
                    std::thread::yield_now();
                }
                let before = count.load(Ordering::Relaxed);
                std::thread::yield_now();
                assert_eq!(count.load(Ordering::Relaxed), before);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
