//! What clients that do not read have missed.
//!
//! A session that lags is sent nothing until it has taken what is under way; then it gets the sum of the changes. For that, the rows that have
//! changed since it began to lag are kept with what they were: once for all sessions, in stretches of time. A session that begins to
//! lag begins a stretch, or joins one in which nothing has happened yet; a commit is written down in the last stretch only; what a session has
//! missed is its stretch and all after it. So a commit costs the same however many sessions lag, and memory goes by what has changed.
//!
//! It is bounded, too: beyond [`MAX_STRETCHES`], [`MAX_BYTES`], or [`SPARE_ROWS`] rows more than twice what the database has, the sessions that
//! have lagged the longest lose their connection.

use crate::Uuid;
use crate::table::{FastMap, Row};
use crate::txn::Change;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;

/// Beginnings of lag that are told apart.
const MAX_STRETCHES: usize = 64;
/// Changed rows that are kept even if the database is small.
const SPARE_ROWS: usize = 1 << 16;
/// Content of changed rows that is kept, however large the database: rows can be of any size.
const MAX_BYTES: usize = 256 << 20;

/// A row by table and identifier.
type Place = (usize, Uuid);

/// Names a stretch: when a session began to lag.
pub(super) type Since = u64;

struct Stretch {
    id: Since,
    /// How many sessions began to lag with it.
    sessions: usize,
    /// Rows that changed in it, with what they were before.
    rows: FastMap<Place, Option<Row>>,
    /// The size of these.
    bytes: usize,
}

impl Stretch {
    /// Keeps what a row was before, unless it had changed in this stretch already.
    fn keep(&mut self, place: Place, old: Option<Row>) {
        if let Entry::Vacant(slot) = self.rows.entry(place) {
            self.bytes += old.as_ref().map_or(0, Row::size);
            slot.insert(old);
        }
    }
}

/// What the sessions that lag have missed of one database.
#[derive(Default)]
pub(super) struct Backlog {
    /// The eldest first.
    stretches: VecDeque<Stretch>,
    next: Since,
}

impl Backlog {
    /// A session begins to lag.
    pub fn begin(&mut self) -> Since {
        match self.stretches.back_mut() {
            Some(last) if last.rows.is_empty() => last.sessions += 1,
            _ => {
                let (rows, bytes) = (FastMap::default(), 0);
                self.stretches.push_back(Stretch { id: self.next, sessions: 1, rows, bytes });
                self.next += 1;
            }
        }
        self.next - 1
    }

    /// A session that began to lag at `since` has caught up, or is gone.
    pub fn end(&mut self, since: Since) {
        let Some(at) = self.stretches.iter().position(|s| s.id == since) else { return };
        self.stretches[at].sessions = self.stretches[at].sessions.saturating_sub(1);
        if self.stretches[at].sessions > 0 {
            return;
        }
        // Those who came before missed it, too.
        if let Some(gone) = self.stretches.remove(at)
            && let Some(before) = at.checked_sub(1).and_then(|i| self.stretches.get_mut(i))
        {
            for (place, old) in gone.rows {
                before.keep(place, old);
            }
        }
    }

    /// Takes down what a commit changed.
    pub fn record(&mut self, changes: &[Change]) {
        let Some(last) = self.stretches.back_mut() else { return };
        for change in changes {
            let place = (change.table, change.uuid);
            match last.rows.get(&place) {
                None => last.keep(place, change.old.clone()),
                // It came and went: nobody need know.
                Some(None) if change.new.is_none() => {
                    last.rows.remove(&place);
                }
                Some(_) => {}
            }
        }
    }

    /// The rows that have changed since, with what they were then.
    pub fn missed(&self, since: Since) -> FastMap<Place, Option<Row>> {
        let mut missed: FastMap<Place, Option<Row>> = FastMap::default();
        for stretch in self.stretches.iter().filter(|s| s.id >= since) {
            for (place, old) in &stretch.rows {
                missed.entry(*place).or_insert_with(|| old.clone());
            }
        }
        missed
    }

    /// Since when those lag who have to go, if what is kept is too much for a database of `rows` rows.
    pub fn too_old(&self, rows: usize) -> Option<Since> {
        let kept: usize = self.stretches.iter().map(|s| s.rows.len()).sum();
        let bytes: usize = self.stretches.iter().map(|s| s.bytes).sum();
        let too_much =
            self.stretches.len() > MAX_STRETCHES || kept > rows * 2 + SPARE_ROWS || bytes > MAX_BYTES;
        self.stretches.front().filter(|_| too_much).map(|s| s.id)
    }

    /// True if nobody lags.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: u64, old: bool, new: bool) -> Change {
        let row = |is: bool| is.then(|| Row::new(&[]));
        Change { table: 0, uuid: uuid(n), old: row(old), new: row(new) }
    }

    fn uuid(n: u64) -> Uuid {
        Uuid::parse(&format!("00000000-0000-0000-0000-{n:012x}")).unwrap()
    }

    fn missed(backlog: &Backlog, since: Since) -> Vec<(u64, bool)> {
        let mut all: Vec<(u64, bool)> = backlog
            .missed(since)
            .iter()
            .map(|((_, u), old)| ((0..100).find(|n| uuid(*n) == *u).unwrap(), old.is_some()))
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn each_misses_what_came_after_it_began_to_lag() {
        let mut backlog = Backlog::default();
        let a = backlog.begin();
        assert_eq!(backlog.begin(), a, "nothing has happened between them");
        backlog.record(&[change(1, true, true), change(2, false, true)]);
        let b = backlog.begin();
        backlog.record(&[change(1, true, false), change(3, false, true)]);
        backlog.record(&[change(3, true, false)]);
        assert_eq!(missed(&backlog, a), [(1, true), (2, false)]);
        assert_eq!(missed(&backlog, b), [(1, true)], "row 3 came and went");
        backlog.end(a);
        assert_eq!(missed(&backlog, a), [(1, true), (2, false)], "the other is still there");
        backlog.end(b);
        assert_eq!(missed(&backlog, a), [(1, true), (2, false)], "the stretch of b goes into that of a");
        backlog.end(a);
        assert!(backlog.is_empty());
        backlog.record(&[change(1, true, true)]);
        assert!(backlog.is_empty(), "nobody lags, nothing is kept");
    }

    #[test]
    fn memory_is_bounded() {
        let mut backlog = Backlog::default();
        let first = backlog.begin();
        for n in 0..MAX_STRETCHES as u64 {
            backlog.record(&[change(n, true, true)]);
            assert_eq!(backlog.too_old(1), None);
            backlog.begin();
        }
        assert_eq!(backlog.too_old(1), Some(first));
        backlog.end(first);
        assert_eq!(backlog.too_old(1), None);
    }

    #[test]
    fn memory_is_bounded_by_what_rows_hold() {
        use crate::{Atom, Datum};
        let big = Row::new(&[
            Datum::scalar(uuid(1)),
            Datum::scalar(uuid(2)),
            Datum::scalar(Atom::string("x".repeat(1 << 20))),
        ]);
        let mut backlog = Backlog::default();
        let first = backlog.begin();
        // The rows share their content: the test is not as large as what it speaks of.
        let huge =
            |n: u64| Change { table: 0, uuid: uuid(n), old: Some(big.clone()), new: Some(big.clone()) };
        let fits = (MAX_BYTES / big.size()) as u64;
        for n in 0..fits / 2 {
            backlog.record(&[huge(n), huge(n)]);
        }
        let second = backlog.begin();
        for n in fits / 2..fits {
            backlog.record(&[huge(n)]);
            assert_eq!(backlog.too_old(1000), None, "{n}");
        }
        backlog.end(second);
        assert_eq!(backlog.too_old(1000), None, "what is handed back is counted once");
        backlog.record(&[huge(fits)]);
        assert_eq!(backlog.too_old(1000), Some(first));
        backlog.end(first);
        assert!(backlog.is_empty());
    }
}
