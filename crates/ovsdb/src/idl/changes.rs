//! Which rows changed since the reader last asked.
//!
//! Off until [`Idl::track_changes`]. Changes to one row join: inserted and then modified is inserted; inserted and then
//! deleted is nothing. A deleted row's last content is kept until it is taken.

use super::{Idl, Stored};
use crate::{Datum, Uuid};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Inserted,
    /// Its content changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// A row that changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table.
    pub table: Arc<str>,
    /// The row; gone from the replica if it was deleted.
    pub uuid: Uuid,
    /// What happened.
    pub kind: ChangeKind,
    /// The columns that a modification touched, in the order of the schema; empty else.
    pub columns: Vec<Arc<str>>,
    /// What a deleted row held last, but for columns with default values; empty else.
    pub last: Vec<(Arc<str>, Datum)>,
}

impl Change {
    /// What a deleted row held in `column`.
    pub fn last(&self, column: &str) -> Option<&Datum> {
        self.last.iter().find(|(name, _)| &**name == column).map(|(_, datum)| datum)
    }
}

pub(super) struct Tracked {
    pub kind: ChangeKind,
    pub columns: BTreeSet<usize>,
    /// A deleted row.
    pub last: Vec<Datum>,
}

impl Idl {
    /// Starts collecting changes for [`Idl::take_changes`].
    pub fn track_changes(&mut self) {
        self.tracking = true;
    }

    /// The rows that changed since the last call, by table and UUID.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for table in &mut self.tables {
            for (uuid, tracked) in std::mem::take(&mut table.tracked) {
                let columns = tracked.columns.iter().map(|&c| table.columns[c].name.clone()).collect();
                let last = tracked.last.into_iter().zip(&table.columns);
                let last = last.filter(|(value, column)| *value != column.default);
                let last = last.map(|(value, column)| (column.name.clone(), value)).collect();
                changes.push(Change { table: table.name.clone(), uuid, kind: tracked.kind, columns, last });
            }
        }
        changes
    }

    /// True if [`Idl::take_changes`] would return something.
    pub fn has_changes(&self) -> bool {
        self.tables.iter().any(|t| !t.tracked.is_empty())
    }

    fn record(&mut self, t: usize, uuid: Uuid, kind: ChangeKind, columns: BTreeSet<usize>, last: Vec<Datum>) {
        self.seqno += 1;
        let seqno = self.seqno;
        if kind != ChangeKind::Modified {
            self.tables[t].columns.iter_mut().for_each(|c| c.changed = seqno);
        }
        if let Some(row) = self.tables[t].rows.get_mut(&uuid) {
            match kind {
                ChangeKind::Inserted => row.inserted = seqno,
                _ => row.modified = seqno,
            }
        }
        if !self.tracking {
            return;
        }
        use std::collections::btree_map::Entry;
        match self.tables[t].tracked.entry(uuid) {
            Entry::Vacant(entry) => {
                entry.insert(Tracked { kind, columns, last });
            }
            Entry::Occupied(mut entry) => match (entry.get().kind, kind) {
                (ChangeKind::Inserted, ChangeKind::Deleted) => {
                    entry.remove();
                }
                (ChangeKind::Inserted, _) => {}
                (ChangeKind::Deleted, ChangeKind::Inserted) => {
                    let columns = (0..self.tables[t].columns.len()).collect();
                    let modified = Tracked { kind: ChangeKind::Modified, columns, last: Vec::new() };
                    self.tables[t].tracked.insert(uuid, modified);
                }
                (_, kind) => {
                    let tracked = entry.get_mut();
                    tracked.kind = kind;
                    tracked.last = last;
                    if kind == ChangeKind::Modified {
                        tracked.columns.extend(columns);
                    } else {
                        tracked.columns.clear();
                    }
                }
            },
        }
    }

    pub(super) fn insert_row(&mut self, t: usize, uuid: Uuid, row: Vec<Datum>) {
        self.tables[t].rows.insert(uuid, Stored { values: row, inserted: 0, modified: 0 });
        self.record(t, uuid, ChangeKind::Inserted, BTreeSet::new(), Vec::new());
    }

    pub(super) fn delete_row(&mut self, t: usize, uuid: Uuid) {
        if let Some(row) = self.tables[t].rows.remove(&uuid) {
            let last = if self.tracking { row.values } else { Vec::new() };
            self.record(t, uuid, ChangeKind::Deleted, BTreeSet::new(), last);
        }
    }

    /// Stores new values of some columns of a row that is there; what is equal does not count.
    pub(super) fn modify_row(&mut self, t: usize, uuid: Uuid, values: Vec<(usize, Datum)>) {
        let table = &mut self.tables[t];
        let Some(row) = table.rows.get_mut(&uuid) else { return };
        let mut touched = BTreeSet::new();
        for (c, value) in values {
            if row.values[c] != value {
                row.values[c] = value;
                table.columns[c].changed = self.seqno + 1;
                if table.columns[c].alert {
                    touched.insert(c);
                }
            }
        }
        if !touched.is_empty() {
            self.record(t, uuid, ChangeKind::Modified, touched, Vec::new());
        }
    }
}
