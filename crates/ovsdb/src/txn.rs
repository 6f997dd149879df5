//! Transactions on the tables of one database.
//!
//! Operations change the tables in place, at once; the transaction remembers what each touched row was. [`Txn::prepare`] does
//! all checks that wait for the end: it counts references, collects rows that nobody holds any more, drops weak references to
//! rows that are gone, and checks table sizes and indexes. Then the caller writes the change to disk, and either
//! [`Txn::commit`]s, which cannot fail, or [`Txn::abort`]s, which puts everything back.
//!
//! Cost: proportional to the rows touched and to the references in changed columns of them.

use crate::Uuid;
use crate::cell::OwnedCell;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::table::{Entry, FastMap, Row, RowBuilder, Table};
use crate::types::RefType;

/// What happened to one row in a transaction.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table's index.
    pub table: usize,
    /// The row's identifier.
    pub uuid: Uuid,
    /// What it was; none if the row is new.
    pub old: Option<Row>,
    /// What it is; none if the row is gone.
    pub new: Option<Row>,
}

struct Touched {
    table: usize,
    uuid: Uuid,
    old: Option<Entry>,
}

/// Fewer touched rows than this are searched one by one.
const INDEX_FROM: usize = 16;

fn place(
    touched: &[Touched],
    index: &FastMap<(usize, Uuid), usize>,
    table: usize,
    uuid: Uuid,
) -> Option<usize> {
    if touched.len() < INDEX_FROM {
        touched.iter().position(|t| t.uuid == uuid && t.table == table)
    } else {
        index.get(&(table, uuid)).copied()
    }
}

/// A transaction in progress.
#[derive(Default)]
pub struct Txn {
    touched: Vec<Touched>,
    index: FastMap<(usize, Uuid), usize>,
    /// Comments for the log, in order.
    pub comments: Vec<String>,
    /// The answer must wait for the disk.
    pub durable: bool,
    /// The name of the state after it; a new one is made up without.
    pub id: Option<Uuid>,
    ref_delta: FastMap<(usize, Uuid), i64>,
}

/// The outcome of [`Txn::prepare`], ready to be written and committed.
#[derive(Debug)]
pub struct Prepared {
    /// The rows that changed, in the order in which they were first touched.
    pub changes: Vec<Change>,
}

impl Txn {
    /// A transaction that has touched nothing.
    pub fn new() -> Txn {
        Txn::default()
    }

    fn remember(&mut self, tables: &[Table], table: usize, uuid: Uuid) {
        if self.place(table, uuid).is_none() {
            self.touched.push(Touched { table, uuid, old: tables[table].rows.get(&uuid).cloned() });
            if self.touched.len() == INDEX_FROM {
                self.index = self.touched.iter().enumerate().map(|(i, t)| ((t.table, t.uuid), i)).collect();
            } else if self.touched.len() > INDEX_FROM {
                self.index.insert((table, uuid), self.touched.len() - 1);
            }
        }
    }

    /// Where a row is among those touched.
    fn place(&self, table: usize, uuid: Uuid) -> Option<usize> {
        place(&self.touched, &self.index, table, uuid)
    }

    /// True if the transaction has touched this row, even if it is gone.
    pub fn has_touched(&self, table: usize, uuid: Uuid) -> bool {
        self.place(table, uuid).is_some()
    }

    /// The rows of a table that the transaction has touched.
    pub fn touched_in(&self, table: usize) -> impl Iterator<Item = Uuid> {
        self.touched.iter().filter(move |t| t.table == table).map(|t| t.uuid)
    }

    /// True if no row was touched.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Adds a row, which must not exist.
    pub fn insert(&mut self, tables: &mut [Table], table: usize, row: Row) {
        let uuid = row.uuid();
        self.remember(tables, table, uuid);
        tables[table].rows.insert(uuid, Entry { row, strong_refs: 0 });
    }

    /// Changes data of a row.
    pub fn update(&mut self, tables: &mut [Table], table: usize, uuid: Uuid, changes: &[(usize, Datum)]) {
        self.remember(tables, table, uuid);
        if let Some(entry) = tables[table].rows.get_mut(&uuid) {
            entry.row.set_many(changes);
        }
    }

    /// Changes cells of a row.
    pub fn update_cells(
        &mut self,
        tables: &mut [Table],
        table: usize,
        uuid: Uuid,
        changes: &[(usize, OwnedCell)],
    ) {
        self.remember(tables, table, uuid);
        if let Some(entry) = tables[table].rows.get_mut(&uuid) {
            RowBuilder::with_shared(|builder| {
                builder.begin(entry.row.columns());
                for (column, cell) in changes {
                    builder.set_cell(*column, cell.cell());
                }
                entry.row = builder.edit(&entry.row);
            });
        }
    }

    /// Removes a row.
    pub fn delete(&mut self, tables: &mut [Table], table: usize, uuid: Uuid) {
        self.remember(tables, table, uuid);
        tables[table].rows.remove(&uuid);
    }

    /// Puts every touched row back.
    pub fn abort(self, tables: &mut [Table]) {
        for t in self.touched {
            match t.old {
                Some(entry) => tables[t.table].rows.insert(t.uuid, entry),
                None => tables[t.table].rows.remove(&t.uuid),
            };
        }
    }

    /// All checks that wait for the end of the transaction. After an error the caller must abort.
    pub fn prepare(&mut self, tables: &mut [Table]) -> Result<Prepared> {
        self.count_references(tables)?;
        self.collect_garbage(tables);
        self.check_max_rows(tables)?;
        // Dropping a map's pair may drop a strong reference, and a row deleted for that may have been weakly referenced.
        while self.drop_weak_references(tables)? {
            self.collect_garbage(tables);
        }
        let mut changes = Vec::with_capacity(self.touched.len());
        for t in &self.touched {
            let entry = tables[t.table].rows.get_mut(&t.uuid);
            let old = t.old.as_ref().map(|e| e.row.clone());
            let new = match entry {
                None => None,
                Some(entry) => {
                    if old.as_ref().is_some_and(|o| o.same_content(&entry.row)) {
                        continue;
                    }
                    entry.row.set_version(Uuid::random_version());
                    Some(entry.row.clone())
                }
            };
            if old.is_some() || new.is_some() {
                changes.push(Change { table: t.table, uuid: t.uuid, old, new });
            }
        }
        check_indexes(tables, &changes, self)?;
        Ok(Prepared { changes })
    }

    fn count_references(&mut self, tables: &[Table]) -> Result<()> {
        for t in 0..self.touched.len() {
            let (table, uuid) = (self.touched[t].table, self.touched[t].uuid);
            let new = tables[table].row(uuid);
            let old = self.touched[t].old.as_ref().map(|e| &e.row);
            for r in &tables[table].ref_columns {
                if !r.has(RefType::Strong) {
                    continue;
                }
                let (before, after) = (Row::cell_of(old, r.column), Row::cell_of(new, r.column));
                let mut missing = None;
                // Of a large set, look at what came and went only.
                let (touched, index, ref_delta) = (&self.touched, &self.index, &mut self.ref_delta);
                before.changes(after, |came, pair| {
                    r.each_in(pair, RefType::Strong, |t, u| {
                        // A row that references itself does not hold itself.
                        if (t, u) == (table, uuid) {
                            return;
                        }
                        *ref_delta.entry((t, u)).or_insert(0) += if came { 1 } else { -1 };
                        // A row that this transaction has both made and deleted never was; of others the complaint is that they
                        // are still referenced.
                        let was = || place(touched, index, t, u).is_some_and(|i| touched[i].old.is_some());
                        if came && !tables[t].rows.contains_key(&u) && !was() {
                            missing.get_or_insert((t, u));
                        }
                    });
                });
                if let Some((t, u)) = missing {
                    return Err(Error::referential(format!(
                        "Table {} column {} row {uuid} references nonexistent row {u} in table {}.",
                        tables[table].schema.name,
                        tables[table].schema.columns[r.column].name,
                        tables[t].schema.name
                    )));
                }
            }
        }
        // Deleted rows must not be referenced any more.
        for t in &self.touched {
            if tables[t.table].rows.contains_key(&t.uuid) {
                continue;
            }
            let before = t.old.as_ref().map_or(0, |e| i64::from(e.strong_refs));
            let n = before + self.ref_delta.get(&(t.table, t.uuid)).copied().unwrap_or(0);
            if n != 0 {
                return Err(Error::referential(format!(
                    "cannot delete {} row {} because of {n} remaining reference(s)",
                    tables[t.table].schema.name, t.uuid
                )));
            }
        }
        Ok(())
    }

    fn check_max_rows(&self, tables: &[Table]) -> Result<()> {
        for t in &self.touched {
            let table = &tables[t.table];
            let grows = t.old.is_none() && table.rows.contains_key(&t.uuid);
            let (n, max) = (table.rows.len(), table.schema.max_rows);
            if grows && n > max as usize {
                return Err(Error::constraint(format!(
                    "transaction causes \"{}\" table to contain {n} rows, greater than the schema-defined limit of \
                     {max} row(s)",
                    table.schema.name
                )));
            }
        }
        Ok(())
    }

    /// Deletes rows of tables that are not root and that nothing references strongly.
    fn collect_garbage(&mut self, tables: &mut [Table]) {
        let mut work: Vec<(usize, Uuid)> =
            self.touched.iter().map(|t| (t.table, t.uuid)).chain(self.ref_delta.keys().copied()).collect();
        while let Some((table, uuid)) = work.pop() {
            if tables[table].schema.is_root {
                continue;
            }
            let Some(entry) = tables[table].rows.get(&uuid) else { continue };
            let n = i64::from(entry.strong_refs) + self.ref_delta.get(&(table, uuid)).copied().unwrap_or(0);
            if n > 0 {
                continue;
            }
            let row = entry.row.clone();
            self.delete(tables, table, uuid);
            for r in &tables[table].ref_columns {
                r.each(row.cell(r.column), RefType::Strong, |t, u| {
                    if (t, u) != (table, uuid) {
                        *self.ref_delta.entry((t, u)).or_insert(0) -= 1;
                        work.push((t, u));
                    }
                });
            }
        }
    }

    /// Removes weak references to rows that do not exist: from touched rows, and to rows deleted here from all others.
    /// True if there were any.
    fn drop_weak_references(&mut self, tables: &mut [Table]) -> Result<bool> {
        let mut dropped = false;
        let mut sources: Vec<(usize, Uuid)> = Vec::new();
        for t in &self.touched {
            if tables[t.table].has_weak && tables[t.table].rows.contains_key(&t.uuid) {
                sources.push((t.table, t.uuid));
            }
        }
        for t in &self.touched {
            if t.old.is_some()
                && !tables[t.table].rows.contains_key(&t.uuid)
                && let Some(from) = tables[t.table].weak_in.get(&t.uuid)
            {
                sources.extend(from.iter());
            }
        }
        for (table, uuid) in sources {
            let mut replace: Vec<(usize, OwnedCell)> = Vec::new();
            let Some(row) = tables[table].row(uuid) else { continue };
            for r in tables[table].ref_columns.iter().filter(|r| r.has(RefType::Weak)) {
                let cell = row.cell(r.column);
                let Some(kept) = r.without_dangling(tables, cell) else { continue };
                let kept_len = kept.cell().len();
                let removed = cell.len() - kept_len;
                let mut zero = false;
                for pair in cell.iter().filter(|pair| r.is_dangling(tables, *pair)) {
                    zero |= pair.0.as_uuid() == Some(Uuid::ZERO)
                        || pair.1.and_then(|v| v.as_uuid()) == Some(Uuid::ZERO);
                    // The pair's other half may be a strong reference.
                    r.each_in(pair, RefType::Strong, |t, u| {
                        if (t, u) != (table, uuid) {
                            *self.ref_delta.entry((t, u)).or_insert(0) -= 1;
                        }
                    });
                }
                let column = &tables[table].schema.columns[r.column];
                if kept_len < column.kind.min as usize {
                    let inserted = self.place(table, uuid).is_some_and(|i| self.touched[i].old.is_none());
                    return Err(empty_weak_column(
                        &tables[table].schema.name,
                        &column.name,
                        uuid,
                        removed,
                        zero,
                        inserted,
                    ));
                }
                replace.push((r.column, kept));
            }
            if !replace.is_empty() {
                dropped = true;
                self.update_cells(tables, table, uuid, &replace);
            }
        }
        Ok(dropped)
    }

    /// Makes what was prepared permanent: counts, indexes and back references follow the rows.
    pub fn commit(self, tables: &mut [Table], prepared: &Prepared) {
        for ((table, uuid), delta) in self.ref_delta {
            if let Some(entry) = tables[table].rows.get_mut(&uuid) {
                let n = i64::from(entry.strong_refs) + delta;
                entry.strong_refs = u32::try_from(n).unwrap_or(0);
            }
        }
        // What leaves a place in an index makes room for what takes it.
        for change in &prepared.changes {
            let table = &mut tables[change.table];
            for i in 0..table.indexes.len() {
                if let Some(old) = &change.old
                    && !same_values(&table.schema.indexes[i], change)
                {
                    let hash = table.index_hash(i, old);
                    table.indexes[i].remove(hash, change.uuid);
                }
            }
        }
        for change in &prepared.changes {
            let table = &mut tables[change.table];
            for i in 0..table.indexes.len() {
                if let Some(new) = &change.new
                    && !same_values(&table.schema.indexes[i], change)
                {
                    let hash = table.index_hash(i, new);
                    table.indexes[i].insert(hash, change.uuid);
                }
            }
            if table.has_weak {
                Table::link_weak(tables, change.table, change.old.as_ref(), change.new.as_ref());
            }
        }
    }
}

/// True if a change leaves these columns as they were.
fn same_values(columns: &[usize], change: &Change) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => columns.iter().all(|&c| old.cell(c) == new.cell(c)),
        _ => false,
    }
}

fn empty_weak_column(
    table: &str,
    column: &str,
    uuid: Uuid,
    removed: usize,
    zero: bool,
    inserted: bool,
) -> Error {
    let mark = if inserted { " (inserted within this transaction)" } else { "" };
    Error::constraint(if zero && inserted {
        format!(
            "Weak reference column \"{column}\" in \"{table}\" row {uuid}{mark} contained \
             all-zeros UUID (probably as the default value for this column) but deleting this value caused a constraint \
             volation because this column is not allowed to be empty."
        )
    } else {
        format!(
            "Deletion of {removed} weak reference(s) to deleted (or never-existing) rows from column \"{column}\" in \
             \"{table}\" row {uuid}{mark} caused this column to become empty, but constraints on this column disallow an \
             empty column."
        )
    })
}

fn check_indexes(tables: &[Table], changes: &[Change], txn: &Txn) -> Result<()> {
    // For each index and hash, the changed rows looked at so far.
    let mut claimed: FastMap<(usize, usize, u64), Vec<&Change>> = FastMap::default();
    for change in changes {
        let Some(new) = &change.new else { continue };
        let table = &tables[change.table];
        for (i, columns) in table.schema.indexes.iter().enumerate() {
            // Other rows that changed are compared with the same way, so that of several faults the right one is told.
            let alone = changes.len() == 1;
            let same = same_values(columns, change);
            if alone && same {
                continue;
            }
            let equals = |row: &Row| columns.iter().all(|&c| row.cell(c) == new.cell(c));
            let hash = table.index_hash(i, new);
            let mut rival = None;
            if !alone {
                let slot = claimed.entry((change.table, i, hash)).or_default();
                rival = slot.iter().find(|c| c.new.as_ref().is_some_and(equals)).map(|c| c.uuid);
                slot.push(change);
            }
            if rival.is_none() && !same {
                // The index still shows the state before the transaction.
                rival = table.indexes[i].candidates(hash).find(|other| {
                    let Some(row) = table.row(*other) else { return false };
                    let touched = txn.place(change.table, *other).map(|t| &txn.touched[t]);
                    let unchanged =
                        touched.is_none_or(|t| t.old.as_ref().is_some_and(|old| old.row.same_content(row)));
                    unchanged && equals(row)
                });
            }
            if let Some(other) = rival {
                return Err(duplicate_index(tables, txn, change, i, other));
            }
        }
    }
    Ok(())
}

fn duplicate_index(tables: &[Table], txn: &Txn, change: &Change, i: usize, other: Uuid) -> Error {
    let table = &tables[change.table];
    let columns = &table.schema.indexes[i];
    let values = |row: &Row| {
        let text = |&c: &usize| row.get(c).to_text(&table.schema.columns[c].kind);
        and_list(&columns.iter().map(text).collect::<Vec<_>>())
    };
    let names = columns.iter().map(|&c| format!("\"{}\"", table.schema.columns[c].name)).collect::<Vec<_>>();
    let noun = if columns.len() == 1 { "column" } else { "columns" };
    let describe = |uuid: Uuid| {
        let touched = txn.place(change.table, uuid).map(|t| &txn.touched[t]);
        match touched {
            None => "existed in the database before this transaction and was not modified by the transaction"
                .into(),
            Some(Touched { old: None, .. }) => "was inserted by this transaction".to_string(),
            Some(Touched { old: Some(old), .. }) => {
                let same = table
                    .row(uuid)
                    .is_some_and(|new| columns.iter().all(|&c| new.cell(c) == old.row.cell(c)));
                if same {
                    "existed in the database before this transaction, which modified some of the row's columns but \
                     not any columns in this index"
                        .to_string()
                } else {
                    format!("had the following index values before the transaction: {}", values(&old.row))
                }
            }
        }
    };
    let shown = change.new.as_ref().map(values).unwrap_or_default();
    let and = and_list(&names);
    Error::constraint(format!(
        "Transaction causes multiple rows in \"{}\" table to have identical values ({shown}) for index on {noun} {and}.  \
         First row, with UUID {other}, {}.  Second row, with UUID {}, {}.",
        table.schema.name,
        describe(other),
        change.uuid,
        describe(change.uuid)
    ))
}

/// `a`, `a and b`, `a, b, and c`.
fn and_list(words: &[String]) -> String {
    match words {
        [a, b] => format!("{a} and {b}"),
        [all @ .., last] if !all.is_empty() => format!("{}, and {last}", all.join(", ")),
        _ => words.concat(),
    }
}
