//! The rows of a table by identifier, with snapshots that cost nothing to take.
//!
//! A compaction wants all rows as they are at one moment, and the server must not stop for it. [`RowMap::snapshot`] hands out the map itself:
//! from then on it stays as it is, and changes go to a second, small map that is looked at first. When the reader has
//! let the snapshot go, [`RowMap::settle`] brings the changes home, which costs in proportion to them.
//!
//! Without a snapshot all of it costs a branch.

use crate::Uuid;
use crate::table::{Entry, FastMap};
use std::collections::hash_map;
use std::sync::Arc;

/// Rows as they were at one moment.
pub type Snapshot = Arc<FastMap<Uuid, Entry>>;

/// See the module.
#[derive(Debug)]
pub struct RowMap(State);

#[derive(Debug)]
enum State {
    Alone(FastMap<Uuid, Entry>),
    /// Somebody may be reading `base`.
    Shared {
        base: Snapshot,
        /// What differs from it; none for a row that is gone.
        changed: FastMap<Uuid, Option<Entry>>,
        len: usize,
    },
}

impl Default for RowMap {
    fn default() -> RowMap {
        RowMap(State::Alone(FastMap::default()))
    }
}

impl RowMap {
    /// The row with this identifier.
    pub fn get(&self, uuid: &Uuid) -> Option<&Entry> {
        match &self.0 {
            State::Alone(rows) => rows.get(uuid),
            State::Shared { base, changed, .. } => match changed.get(uuid) {
                Some(entry) => entry.as_ref(),
                None => base.get(uuid),
            },
        }
    }

    /// The row with this identifier, to be changed.
    pub fn get_mut(&mut self, uuid: &Uuid) -> Option<&mut Entry> {
        match &mut self.0 {
            State::Alone(rows) => rows.get_mut(uuid),
            State::Shared { base, changed, .. } => match changed.entry(*uuid) {
                hash_map::Entry::Occupied(entry) => entry.into_mut().as_mut(),
                hash_map::Entry::Vacant(slot) => {
                    let entry = base.get(uuid)?.clone();
                    slot.insert(Some(entry)).as_mut()
                }
            },
        }
    }

    /// True if there is a row with this identifier.
    pub fn contains_key(&self, uuid: &Uuid) -> bool {
        self.get(uuid).is_some()
    }

    /// Adds a row or replaces it. True if it was there.
    pub fn insert(&mut self, uuid: Uuid, entry: Entry) -> bool {
        self.set(uuid, Some(entry))
    }

    /// Removes a row. True if it was there.
    pub fn remove(&mut self, uuid: &Uuid) -> bool {
        self.set(*uuid, None)
    }

    fn set(&mut self, uuid: Uuid, entry: Option<Entry>) -> bool {
        let existed;
        match &mut self.0 {
            State::Alone(rows) => {
                existed = match entry {
                    Some(entry) => rows.insert(uuid, entry),
                    None => rows.remove(&uuid),
                }
                .is_some();
            }
            State::Shared { base, changed, len } => {
                let exists = entry.is_some();
                existed = match changed.insert(uuid, entry) {
                    Some(before) => before.is_some(),
                    None => base.contains_key(&uuid),
                };
                *len = *len + usize::from(exists) - usize::from(existed);
            }
        }
        existed
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match &self.0 {
            State::Alone(rows) => rows.len(),
            State::Shared { len, .. } => *len,
        }
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows, in no order.
    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            State::Alone(rows) => Iter { base: rows.iter(), changes: None, left: rows.len() },
            State::Shared { base, changed, len } => {
                Iter { base: base.iter(), changes: Some((changed, changed.iter())), left: *len }
            }
        }
    }

    /// All rows without their identifiers, which they hold anyway.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.iter().map(|(_, entry)| entry)
    }

    /// All identifiers.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Uuid> {
        self.iter().map(|(uuid, _)| uuid)
    }

    /// All rows, to be changed. Costs a pass over them if there is a snapshot.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        if !self.settle() {
            self.0 = State::Alone(self.copy());
        }
        let rows = match &mut self.0 {
            State::Alone(rows) => Some(rows.values_mut()),
            State::Shared { .. } => None,
        };
        rows.into_iter().flatten()
    }

    fn copy(&self) -> FastMap<Uuid, Entry> {
        self.iter().map(|(uuid, entry)| (*uuid, entry.clone())).collect()
    }

    /// The rows as they are now. Costs nothing, but for a pass over all rows if an earlier snapshot is still in use.
    pub fn snapshot(&mut self) -> Snapshot {
        self.settle();
        let rows = match &mut self.0 {
            State::Alone(rows) => std::mem::take(rows),
            State::Shared { .. } => self.copy(),
        };
        let base = Arc::new(rows);
        self.0 = State::Shared { len: base.len(), base: base.clone(), changed: FastMap::default() };
        base
    }

    /// Brings changes home if the snapshot is not in use any more. True if there is none now.
    pub fn settle(&mut self) -> bool {
        let State::Shared { base, changed, .. } = &mut self.0 else { return true };
        let Some(_) = Arc::get_mut(base) else { return false };
        let Some(mut rows) = Arc::into_inner(std::mem::take(base)) else { return false };
        for (uuid, entry) in changed.drain() {
            match entry {
                Some(entry) => rows.insert(uuid, entry),
                None => rows.remove(&uuid),
            };
        }
        self.0 = State::Alone(rows);
        true
    }
}

/// The rows of a [`RowMap`].
pub struct Iter<'a> {
    base: hash_map::Iter<'a, Uuid, Entry>,
    #[allow(clippy::type_complexity, reason = "private, explained by its name")]
    changes: Option<(&'a FastMap<Uuid, Option<Entry>>, hash_map::Iter<'a, Uuid, Option<Entry>>)>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Uuid, &'a Entry);

    fn next(&mut self) -> Option<(&'a Uuid, &'a Entry)> {
        let next = match &mut self.changes {
            None => self.base.next(),
            Some((changed, new)) => self
                .base
                .by_ref()
                .find(|(uuid, _)| !changed.contains_key(uuid))
                .or_else(|| new.find_map(|(uuid, entry)| Some((uuid, entry.as_ref()?)))),
        };
        self.left -= usize::from(next.is_some());
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a RowMap {
    type Item = (&'a Uuid, &'a Entry);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Datum;
    use crate::log::sim::Rng;
    use crate::row::Row;
    use std::collections::BTreeMap;

    fn entry(uuid: Uuid, strong_refs: u32) -> Entry {
        Entry { row: Row::new(&[Datum::scalar(uuid), Datum::scalar(uuid)]), strong_refs }
    }

    /// As an ordinary map would behave, whatever snapshots are taken and let go; and snapshots stay as they were.
    #[test]
    fn behaves_as_a_map_and_snapshots_stay() {
        let uuids: Vec<Uuid> = (0..12).map(|_| Uuid::random()).collect();
        let content = |rows: &mut dyn Iterator<Item = (&Uuid, &Entry)>| -> BTreeMap<Uuid, u32> {
            rows.map(|(uuid, entry)| (*uuid, entry.strong_refs)).collect()
        };
        for seed in 1..200 {
            let mut rng = Rng::new(seed);
            let mut map = RowMap::default();
            let mut model: BTreeMap<Uuid, u32> = BTreeMap::new();
            let mut snapshots: Vec<(Snapshot, BTreeMap<Uuid, u32>)> = Vec::new();
            for n in 0..200 {
                let uuid = uuids[rng.below(uuids.len())];
                match rng.below(9) {
                    0..=2 => {
                        let existed = model.insert(uuid, n).is_some();
                        assert_eq!(map.insert(uuid, entry(uuid, n)), existed);
                    }
                    3 => assert_eq!(map.remove(&uuid), model.remove(&uuid).is_some()),
                    4 | 5 => {
                        let (found, expected) = (map.get_mut(&uuid), model.get_mut(&uuid));
                        assert_eq!(found.is_some(), expected.is_some());
                        if let (Some(found), Some(expected)) = (found, expected) {
                            found.strong_refs = n;
                            *expected = n;
                        }
                    }
                    6 => snapshots.push((map.snapshot(), model.clone())),
                    7 => {
                        let last = snapshots.pop();
                        assert!(last.is_none_or(|(s, m)| content(&mut s.iter()) == m));
                        assert!(map.settle() || !snapshots.is_empty());
                    }
                    _ if rng.one_in(4) => {
                        map.values_mut().for_each(|e| e.strong_refs += 1);
                        model.values_mut().for_each(|n| *n += 1);
                    }
                    _ => {}
                }
                assert_eq!(map.len(), model.len());
                assert_eq!(map.iter().len(), map.iter().count());
                assert_eq!(map.get(&uuid).map(|e| e.strong_refs), model.get(&uuid).copied());
                assert_eq!(content(&mut map.iter()), model, "seed {seed}");
            }
            assert!(snapshots.iter().all(|(s, m)| content(&mut s.iter()) == *m));
        }
    }
}
