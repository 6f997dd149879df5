//! One database: schema and tables, loaded from a file and kept there.
//!
//! [`Database::transact`] runs operations, checks, writes and commits. What changed comes back as a [`Commit`] for monitors
//! and is remembered for clients that come back (`monitor_cond_since`).
//!
//! A transaction is answered only after its record is in the file: if the write fails, the tables are as before and the
//! answer is an I/O error. Changes of ephemeral columns alone are not written. Transactions are written, and durable ones wait for the disk, one by one, or,
//! if whoever runs them holds the answers back ([`Database::defer_flush`]), many at once in [`Database::flush`].
//!
//! When the disk fails to make records durable, the file is rewritten from memory before it takes another durable
//! transaction.

use crate::Datum;
use crate::Uuid;
use crate::error::{Error, Result};
use crate::exec::{Context, Executed, execute};
use crate::log::{Locker, Log, OpenMode, Replaced, Replacement, Retired, Storage};
use crate::pack_json::{Scratch, pack_json};
use crate::row_map::Snapshot;
use crate::schema::{FIRST_COLUMN, Schema, TableSchema};
use crate::table::{Entry, FastMap, Row, RowBuilder, Table};
use crate::txn::{Change, Txn};
use crate::types::RefType;
use ib_base::json::{Json, JsonError, Object, Pull, Strings, write_integer, write_string};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Room for the text of a small transaction's record.
const RECORD_BYTES: usize = 512;
/// How many transactions are remembered for clients that come back.
const HISTORY_COMMITS: usize = 1000;
/// How many changed rows are.
const HISTORY_CHANGES: usize = 20_000;

/// A committed transaction.
#[derive(Debug)]
pub struct Commit {
    /// Names the state after it.
    pub id: Uuid,
    /// The rows that changed.
    pub changes: Vec<Change>,
}

/// The outcome of a transaction.
pub enum Transacted {
    /// It is over. The results go to the client.
    Done {
        /// The JSON text of an array: one for each operation, and perhaps one more: the error that its end brought.
        results: String,
        /// What changed, if anything did.
        commit: Option<Arc<Commit>>,
    },
    /// It waits for a change, or for this time since its first try.
    Wait {
        /// `i64::MAX` if there is no limit.
        timeout_ms: i64,
    },
}

/// A database.
pub struct Database {
    /// Its declaration.
    pub schema: Arc<Schema>,
    /// Its tables, in the schema's order.
    pub tables: Vec<Table>,
    log: Option<Box<dyn Storage>>,
    /// Transactions wait for [`Database::flush`].
    defer_flush: bool,
    /// Records of these that are not in the file yet.
    unwritten: Vec<String>,
    /// Why they could not be written, once that was tried.
    write_error: Option<Error>,
    /// One of them is to be durable.
    must_sync: bool,
    /// Transactions that are not flushed, and where the first one's record begins.
    unflushed: Vec<Arc<Commit>>,
    unflushed_from: u64,
    /// How many commits were before them.
    unflushed_since: u64,
    /// The state's name, and the ways from earlier states to it.
    last_id: Uuid,
    history: VecDeque<Arc<Commit>>,
    history_changes: usize,
    /// Transactions committed since the start.
    pub commits: u64,
    /// A compaction may be reading the tables' rows.
    has_snapshot: bool,
    /// Size after the last compaction, transactions since, and when that was.
    compacted_size: u64,
    compacted_commits: u64,
    compacted_ms: Option<i64>,
    /// Write differences of large columns instead of their contents.
    pub write_diffs: bool,
}

/// A database file that was read, with what had to be left out.
pub struct Loaded {
    /// The database.
    pub database: Database,
    /// Why reading ended before the end of the file, if it did.
    pub warning: Option<Error>,
}

fn make_tables(schema: &Arc<Schema>) -> Vec<Table> {
    let index = |name: &str| schema.table(name).map(|t| t.index);
    schema.tables.iter().map(|t| Table::new(t.clone(), index)).collect()
}

impl Database {
    /// An empty database in memory.
    pub fn new(schema: Schema) -> Database {
        let schema = Arc::new(schema);
        Database {
            tables: make_tables(&schema),
            schema,
            log: None,
            defer_flush: false,
            unwritten: Vec::new(),
            write_error: None,
            must_sync: false,
            unflushed: Vec::new(),
            unflushed_from: 0,
            unflushed_since: 0,
            last_id: Uuid::random(),
            history: VecDeque::new(),
            history_changes: 0,
            commits: 0,
            has_snapshot: false,
            compacted_size: 0,
            compacted_commits: 0,
            compacted_ms: None,
            write_diffs: true,
        }
    }

    /// Makes a new file with an empty database.
    pub fn create(path: &Path, schema: Schema, locker: Option<&Locker>) -> Result<Database> {
        let mut log = Log::open(path, OpenMode::CreateExcl, locker)?;
        log.append(&schema.to_json().to_string())?;
        log.flush()?;
        let mut database = Database::new(schema);
        database.log = Some(Box::new(log));
        Ok(database)
    }

    /// Reads a file. What is behind the first record that is damaged or makes no sense is left out, and cut off by the
    /// next transaction.
    pub fn open(path: &Path, writable: bool, locker: Option<&Locker>) -> Result<Loaded> {
        let mode = if writable { OpenMode::ReadWrite } else { OpenMode::ReadOnly };
        Database::load(Box::new(Log::open(path, mode, locker)?))
    }

    /// Reads the records of a storage, and goes on in it.
    pub fn load(mut log: Box<dyn Storage>) -> Result<Loaded> {
        let Some(record) = log.read_text()? else {
            return Err(Error::io_eof(format!("{}: database has no schema", log.name())));
        };
        let schema = Json::parse_bytes(&record.data).map_err(|e| log.not_json(&record, &e))?;
        let mut database = Database::new(Schema::from_json(&schema)?);
        let mut strings = Strings::default();
        let warning = loop {
            let record = match log.read_text() {
                Ok(None) => break None,
                Ok(Some(record)) => record,
                Err(error) => break Some(error),
            };
            let Err(unreadable) = database.replay(&record.data, &mut strings) else { continue };
            let parsed = Json::parse_bytes(&record.data);
            break Some(match (unreadable, parsed) {
                (Unreadable::Json(fault), Ok(Json::Object(object))) => {
                    log.unread(record.offset);
                    // Valid, but not in the place where it stands.
                    let shape = database.misshapen(&object);
                    shape.unwrap_or_else(|| Error::syntax_plain(fault.to_string()))
                }
                (Unreadable::Json(fault), _) => log.not_json(&record, &fault),
                (Unreadable::Content(error), parsed) => {
                    log.unread(record.offset);
                    let object = parsed.ok();
                    let shape = object.as_ref().and_then(Json::as_object).and_then(|o| database.misshapen(o));
                    shape.unwrap_or(error)
                }
            });
        };
        database.rebuild_references();
        database.compacted_size = log.end();
        database.log = Some(log);
        Ok(Loaded { database, warning })
    }

    fn reset_schema(&mut self, schema: Schema) {
        self.schema = Arc::new(schema);
        self.tables = make_tables(&self.schema);
    }

    /// Applies a record to rows only, all of it or nothing; [`Database::rebuild_references`] follows when all are read.
    fn replay(&mut self, text: &[u8], strings: &mut Strings) -> Result<(), Unreadable> {
        // The mark may follow what it is about. Inside of strings its quotation marks would be escaped.
        const MARK: &[u8] = b"\"_is_diff\":true";
        const EDGE: usize = 256;
        let found = |t: &[u8]| t.windows(MARK.len()).any(|w| w == MARK);
        let marked = OnceCell::new();
        let is_diff = || {
            *marked.get_or_init(|| {
                // It stands at either end, unless somebody else wrote the record.
                let ends = [&text[..text.len().min(EDGE)], &text[text.len().saturating_sub(EDGE)..]];
                ends.into_iter().any(found) || found(text)
            })
        };
        let mut pull = Pull::with_strings(text, std::mem::take(strings));
        let rows = self.replay_rows(&mut pull, &is_diff);
        *strings = pull.into_strings();
        match rows? {
            None => {
                let json = Json::parse_bytes(text).map_err(Unreadable::Json)?;
                self.reset_schema(Schema::from_json(&json)?);
            }
            Some(rows) => {
                for (table, uuid, row) in rows {
                    let table = &mut self.tables[table];
                    // Now the row is at hand; a pass over all rows later would have to fetch each again.
                    table.reindex(uuid, row.as_ref());
                    match row {
                        Some(row) => table.rows.insert(uuid, Entry { row, strong_refs: 0 }),
                        None => table.rows.remove(&uuid),
                    };
                }
            }
        }
        Ok(())
    }

    /// The rows that a record makes or, where there is none, deletes. `None` if the record is a schema.
    #[allow(clippy::type_complexity, reason = "used by one caller, next to it")]
    fn replay_rows(
        &self,
        pull: &mut Pull<'_>,
        is_diff: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<(usize, Uuid, Option<Row>)>>, Unreadable> {
        let mut rows = Vec::new();
        let mut builder = RowBuilder::default();
        let mut order: Vec<usize> = Vec::new();
        let mut scratch = Scratch::default();
        pull.enter()?;
        while let Some(name) = pull.next_key()? {
            let Some(schema) = self.schema.table(&name) else {
                let value = pull.value()?;
                match (&*name, &value) {
                    ("_date", Json::Integer(_)) | ("_is_diff", Json::Bool(_)) | ("_comment", _) => continue,
                    ("name" | "version" | "cksum" | "tables", _) => return Ok(None),
                    _ => {}
                }
                return Err(Error::new("unknown table", format!("No table named {name}.")).into());
            };
            let table = &self.tables[schema.index];
            pull.enter()?;
            while let Some(uuid_text) = pull.next_key()? {
                let Some(uuid) = Uuid::parse(&uuid_text) else {
                    return Err(Error::syntax_plain(format!("\"{uuid_text}\" is not a valid UUID")).into());
                };
                let old = table.row(uuid);
                if !pull.at_object() {
                    match (pull.value()?, old) {
                        (Json::Null, Some(_)) => rows.push((schema.index, uuid, None)),
                        (Json::Null, None) => {
                            let message = format!("transaction deletes row {uuid} that does not exist");
                            return Err(Error::syntax_plain(message).into());
                        }
                        (other, _) => return Err(Error::syntax(&other, "row must be JSON object").into()),
                    }
                    continue;
                }
                builder.begin(schema.columns.len());
                pull.enter()?;
                let mut at = 0;
                while let Some(name) = pull.next_key()? {
                    // Rows of one table name the same columns in the same order.
                    let expected = order.get(at).and_then(|&c: &usize| schema.columns.get(c));
                    let column = match expected.filter(|c| *c.name == *name) {
                        Some(column) => column,
                        None => {
                            let Some(column) = schema.column(&name) else {
                                let json = Json::object([(&*name, pull.value()?)]);
                                let message = format!("No column {name} in table {}.", schema.name);
                                return Err(Error::syntax_tagged(&json, "unknown column", message).into());
                            };
                            order.truncate(at);
                            order.push(column.index);
                            column
                        }
                    };
                    at += 1;
                    let diff_of = old.filter(|_| column.kind.is_composite() && is_diff());
                    if diff_of.is_none() {
                        let start = pull.position();
                        if builder
                            .set_with(column.index, |out| pack_json(&column.kind, pull, out, &mut scratch))
                        {
                            continue;
                        }
                        pull.rewind(start);
                    }
                    let value = pull.value()?;
                    let datum = match diff_of {
                        Some(old) => {
                            let any = column.kind.unconstrained();
                            let diff = Datum::from_json_unchecked(&any, &value, None)?;
                            old.get(column.index).apply_diff(&diff, &column.kind)?
                        }
                        None => Datum::from_json(&column.kind, &value, None)?,
                    };
                    builder.set(column.index, &datum);
                }
                let row = match old {
                    Some(old) => builder.edit(old),
                    None => builder.finish(Some(&table.default_row), uuid, Uuid::random_version()),
                };
                rows.push((schema.index, uuid, Some(row)));
            }
        }
        pull.finish()?;
        Ok(Some(rows))
    }

    /// What the outline of a record's content has that it should not have, with as much of the text as helps to find it.
    fn misshapen(&self, record: &Object) -> Option<Error> {
        for (name, value) in record.iter() {
            let Some(schema) = self.schema.table(name) else {
                match (&**name, value) {
                    ("_date", Json::Integer(_)) | ("_is_diff", Json::Bool(_)) | ("_comment", _) => continue,
                    ("name" | "version" | "cksum" | "tables", _) => return None,
                    _ => {}
                }
                let message = format!("No table named {name}.");
                return Some(Error::syntax_tagged(&Json::Object(record.clone()), "unknown table", message));
            };
            let Some(rows) = value.as_object() else {
                return Some(Error::syntax(value, "object expected"));
            };
            for (uuid_text, row) in rows.iter() {
                let Some(uuid) = Uuid::parse(uuid_text) else {
                    return Some(Error::syntax(value, format!("\"{uuid_text}\" is not a valid UUID")));
                };
                if row.is_null() && self.tables[schema.index].row(uuid).is_none() {
                    let message = format!("transaction deletes row {uuid} that does not exist");
                    return Some(Error::syntax_plain(message));
                }
                if !row.is_null() && row.as_object().is_none() {
                    return Some(Error::syntax(row, "row must be JSON object"));
                }
            }
        }
        None
    }

    /// Counts references from the rows.
    fn rebuild_references(&mut self) {
        for table in &mut self.tables {
            table.weak_in.clear();
            table.rows.values_mut().for_each(|e| e.strong_refs = 0);
        }
        // A file may hold weak references that outlived their rows; some versions of Open vSwitch write such.
        for t in 0..self.tables.len() {
            let mut cleaned: Vec<(Uuid, usize, Datum)> = Vec::new();
            for r in self.tables[t].ref_columns.iter().filter(|r| r.has(RefType::Weak)) {
                for (uuid, entry) in &self.tables[t].rows {
                    if let Some(kept) = r.without_dangling(&self.tables, entry.row.cell(r.column)) {
                        cleaned.push((*uuid, r.column, kept.cell().to_datum()));
                    }
                }
            }
            for (uuid, column, kept) in cleaned {
                let Some(row) = self.tables[t].row(uuid).map(|row| row.with(&[(column, kept)])) else {
                    continue;
                };
                self.tables[t].reindex(uuid, Some(&row));
                self.tables[t].rows.insert(uuid, Entry { row, strong_refs: 0 });
            }
        }
        let mut strong: Vec<(usize, Uuid)> = Vec::new();
        for t in 0..self.tables.len() {
            let table = &self.tables[t];
            for r in table.ref_columns.iter().filter(|r| r.has(RefType::Strong)) {
                for (uuid, entry) in &table.rows {
                    r.each(entry.row.cell(r.column), RefType::Strong, |table, target| {
                        // A row that references itself does not hold itself.
                        if (table, target) != (t, *uuid) {
                            strong.push((table, target));
                        }
                    });
                }
            }
            if table.has_weak {
                let rows: Vec<Row> = table.rows.values().map(|e| e.row.clone()).collect();
                for row in &rows {
                    Table::link_weak(&mut self.tables, t, None, Some(row));
                }
            }
        }
        for (table, uuid) in strong {
            if let Some(entry) = self.tables[table].rows.get_mut(&uuid) {
                entry.strong_refs += 1;
            }
        }
    }

    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.schema.table(name).map(|t| &self.tables[t.index])
    }

    /// The name of the current state.
    pub fn last_id(&self) -> Uuid {
        self.last_id
    }

    /// Calls the present state by a name that another server has for it.
    pub fn name_state(&mut self, id: Uuid) {
        if id != self.last_id {
            self.committed(Vec::new(), Some(id));
        }
    }

    /// The commits that lead from state `id` to the current one; none if that is not remembered.
    pub fn commits_since(&self, id: Uuid) -> Option<Vec<Arc<Commit>>> {
        if id == self.last_id {
            return Some(Vec::new());
        }
        let at = self.history.iter().position(|c| c.id == id)?;
        Some(self.history.iter().skip(at + 1).cloned().collect())
    }

    /// Lets the file go: from now on the database is in memory only.
    pub fn detach_file(&mut self) {
        self.log = None;
    }

    /// True if the database is kept in a file.
    pub fn has_file(&self) -> bool {
        self.log.is_some()
    }

    /// The size of its file.
    pub fn file_size(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.end())
    }

    /// Runs a transaction. `wall_ms` dates its record.
    pub fn transact(&mut self, operations: &[Json], context: &Context<'_>, wall_ms: u64) -> Transacted {
        if self.fault().is_some() && operations.iter().any(is_durable_commit) {
            // If this fails, the transaction will say so.
            let _ = self.rewrite(wall_ms);
        }
        let mut txn = Txn::new();
        let schema = self.schema.clone();
        let names = |name: &str| schema.table(name).map(|t| t.index);
        let executed = execute(&mut self.tables, &names, &mut txn, operations, context);
        match executed {
            Executed::Wait { timeout_ms } => {
                txn.abort(&mut self.tables);
                Transacted::Wait { timeout_ms }
            }
            Executed::Done { mut results, ok: false } => {
                txn.abort(&mut self.tables);
                results.push(']');
                Transacted::Done { results, commit: None }
            }
            Executed::Done { mut results, ok: true } => {
                let finished = self.finish(txn, wall_ms);
                if let Err(error) = &finished {
                    if results.len() > 1 {
                        results.push(',');
                    }
                    error.to_json().write_to(&mut results);
                }
                results.push(']');
                Transacted::Done { results, commit: finished.unwrap_or_default() }
            }
        }
    }

    /// Changes tables from inside the server: `f` works on them through the transaction.
    pub fn change(
        &mut self,
        wall_ms: u64,
        f: impl FnOnce(&mut [Table], &mut Txn),
    ) -> Result<Option<Arc<Commit>>> {
        let mut txn = Txn::new();
        f(&mut self.tables, &mut txn);
        self.finish(txn, wall_ms)
    }

    fn finish(&mut self, mut txn: Txn, wall_ms: u64) -> Result<Option<Arc<Commit>>> {
        if txn.is_empty() {
            return Ok(None);
        }
        let prepared = match txn.prepare(&mut self.tables) {
            Ok(prepared) => prepared,
            Err(error) => {
                txn.abort(&mut self.tables);
                return Err(error);
            }
        };
        if prepared.changes.is_empty() {
            // Nothing differs; versions stay too.
            txn.abort(&mut self.tables);
            return Ok(None);
        }
        if self.defer_flush && txn.durable && !self.must_sync && self.write_out().is_ok() {
            // Those before do not depend on the disk as this one will.
            self.unflushed.clear();
        }
        if let Some(log) = &mut self.log {
            let record =
                record_text(&self.schema, &prepared.changes, &txn.comments, wall_ms, self.write_diffs);
            let fault = log.fault().filter(|_| txn.durable).cloned();
            let written = match (fault, record) {
                (Some(fault), _) => Err(fault),
                (None, record) if self.defer_flush => {
                    if self.unflushed.is_empty() {
                        self.unflushed_from = log.end();
                        self.unflushed_since = self.commits;
                    }
                    self.unwritten.extend(record);
                    self.must_sync |= txn.durable;
                    Ok(())
                }
                (None, record) => {
                    let before = log.end();
                    let appended = record.map_or(Ok(()), |record| log.append(&record));
                    let done = appended.and_then(|()| if txn.durable { log.flush() } else { Ok(()) });
                    done.inspect_err(|_| log.take_back(before))
                }
            };
            if let Err(error) = written {
                txn.abort(&mut self.tables);
                return Err(error);
            }
        }
        let id = txn.id;
        txn.commit(&mut self.tables, &prepared);
        let commit = self.committed(prepared.changes, id);
        if self.defer_flush && self.log.is_some() {
            self.unflushed.push(commit.clone());
        }
        Ok(Some(commit))
    }

    /// Gives the state after these changes a name, and remembers the way to it.
    fn committed(&mut self, changes: Vec<Change>, id: Option<Uuid>) -> Arc<Commit> {
        self.commits += 1;
        self.compacted_commits += 1;
        let commit = Arc::new(Commit { id: id.unwrap_or_else(Uuid::random), changes });
        self.last_id = commit.id;
        self.history_changes += commit.changes.len();
        self.history.push_back(commit.clone());
        while self.history.len() > HISTORY_COMMITS || self.history_changes > HISTORY_CHANGES {
            let Some(old) = self.history.pop_front() else { break };
            self.history_changes -= old.changes.len();
        }
        commit
    }

    /// From now on transactions are not in the file before [`Database::flush`]: whoever runs them holds their answers until then. What
    /// arrives together is written together, and where durability is asked for waits for the disk together.
    pub fn defer_flush(&mut self) {
        self.defer_flush = true;
    }

    /// True if answers have to wait for [`Database::flush`].
    pub fn is_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Writes the records that wait for that. After an error nothing more is written until the flush.
    fn write_out(&mut self) -> Result<()> {
        let records = std::mem::take(&mut self.unwritten);
        if let Some(error) = &self.write_error {
            return Err(error.clone());
        }
        match &mut self.log {
            Some(log) if !records.is_empty() => {
                log.append_all(&records).inspect_err(|error| self.write_error = Some(error.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Puts transactions into the file whose answers wait for that, and those that are to be durable on the disk. If that fails, none
    /// of them has happened: the rows are as before, as the commit in the error says.
    pub fn flush(&mut self) -> Result<(), Unflushed> {
        let mut done = self.write_out();
        self.write_error = None;
        let commits = std::mem::take(&mut self.unflushed);
        let must_sync = std::mem::take(&mut self.must_sync);
        let Some(log) = self.log.as_mut().filter(|_| !commits.is_empty()) else { return Ok(()) };
        if must_sync && done.is_ok() {
            done = log.flush();
        }
        let Err(error) = done else { return Ok(()) };
        log.take_back(self.unflushed_from);
        Err(Unflushed { error, since: self.unflushed_since, undone: self.undo(&commits) })
    }

    /// Puts back the rows that these commits, the last ones, have changed. Nothing is written.
    fn undo(&mut self, commits: &[Arc<Commit>]) -> Option<Arc<Commit>> {
        let mut before: FastMap<(usize, Uuid), Option<Row>> = FastMap::default();
        for change in commits.iter().flat_map(|c| &c.changes) {
            before.entry((change.table, change.uuid)).or_insert_with(|| change.old.clone());
        }
        let mut txn = Txn::new();
        for ((table, uuid), old) in before {
            let exists = self.tables[table].row(uuid).is_some();
            match old {
                Some(old) if exists => {
                    let data = self.tables[table].schema.user_columns();
                    let data: Vec<_> = data.iter().map(|c| (c.index, old.get(c.index).clone())).collect();
                    txn.update(&mut self.tables, table, uuid, &data);
                }
                Some(old) => txn.insert(&mut self.tables, table, old),
                None if exists => txn.delete(&mut self.tables, table, uuid),
                None => {}
            }
        }
        match txn.prepare(&mut self.tables) {
            Ok(prepared) if prepared.changes.is_empty() => {
                txn.abort(&mut self.tables);
                None
            }
            Ok(prepared) => {
                txn.commit(&mut self.tables, &prepared);
                Some(self.committed(prepared.changes, None))
            }
            Err(error) => unreachable!("a state that was valid is not any more: {error}"),
        }
    }

    /// Why the file takes no durable transactions until it is rewritten, if so.
    pub fn fault(&self) -> Option<&Error> {
        self.log.as_ref().and_then(|log| log.fault())
    }

    /// Writes the file anew from memory, at once.
    fn rewrite(&mut self, wall_ms: u64) -> Result<()> {
        self.write_out()?;
        let records = self.snapshot("", wall_ms);
        self.log.as_mut().map_or(Ok(()), |log| log.replace(&records))
    }

    /// The records of a compact file: schema, and one transaction with all rows.
    pub fn snapshot(&self, comment: &str, wall_ms: u64) -> Vec<String> {
        let rows = self.tables.iter().map(|t| (&*t.schema, t.rows.values().map(|e| &e.row)));
        vec![self.schema.to_json().to_string(), snapshot_text(rows, comment, wall_ms, self.write_diffs)]
    }

    /// Rewrites the file to hold the current state and nothing else.
    pub fn compact(&mut self, comment: &str, wall_ms: u64, now_ms: i64) -> Result<()> {
        self.write_out()?;
        let records = self.snapshot(comment, wall_ms);
        let Some(log) = &mut self.log else { return Ok(()) };
        let replaced = log.begin_replacement().write(&records)?;
        self.finish_compaction(replaced, now_ms).map(drop)
    }

    /// Begins to compact the file: the current rows, which are shared rather than copied, are to be written
    /// elsewhere. None if there is no file.
    pub fn begin_compaction(&mut self, comment: &str, wall_ms: u64, now_ms: i64) -> Option<Compaction> {
        // What is among the rows must not be appended behind them. If it cannot be written, the flush will say so.
        self.write_out().ok()?;
        let replacement = self.log.as_mut()?.begin_replacement();
        self.has_snapshot = true;
        self.compacted_commits = 0;
        self.compacted_ms = Some(now_ms);
        Some(Compaction {
            schema: self.schema.clone(),
            tables: self.tables.iter_mut().map(|t| (t.schema.clone(), t.rows.snapshot())).collect(),
            comment: comment.to_string(),
            wall_ms,
            mark: self.write_diffs,
            replacement,
        })
    }

    /// Brings changes that were made during a compaction home, once it reads the rows no more.
    fn settle(&mut self) {
        if self.has_snapshot {
            let unsettled = self.tables.iter_mut().filter_map(|t| (!t.rows.settle()).then_some(()));
            self.has_snapshot = unsettled.count() > 0;
        }
    }

    /// Puts the compact file in place, with what was committed since it was begun. The file that was there is best let go elsewhere.
    pub fn finish_compaction(&mut self, replaced: Replaced, now_ms: i64) -> Result<Option<Retired>> {
        self.compacted_commits = 0;
        self.compacted_ms = Some(now_ms);
        self.settle();
        let Some(log) = &mut self.log else {
            replaced.discard();
            return Ok(None);
        };
        let retired = log.adopt(replaced)?;
        self.compacted_size = log.end();
        Ok(Some(retired))
    }

    /// True if the file has grown so much that it should be compacted now, or if it has to be made anew because of a fault.
    pub fn should_compact(&mut self, now_ms: i64) -> bool {
        const MIN_SIZE: u64 = 10 * 1024 * 1024;
        const MIN_COMMITS: u64 = 100;
        const INTERVAL_MS: i64 = 10 * 60 * 1000;
        const DAY_MS: i64 = 24 * 3600 * 1000;
        const HEAL_MS: i64 = 10 * 1000;
        // One that failed has told nobody.
        self.settle();
        let age_ms = now_ms - *self.compacted_ms.get_or_insert(now_ms);
        let Some(log) = &self.log else { return false };
        if log.fault().is_some() {
            return age_ms >= HEAL_MS;
        }
        let grown = log.end() >= MIN_SIZE && log.end() / 2 >= self.compacted_size;
        let old = age_ms >= DAY_MS && self.compacted_commits >= MIN_COMMITS;
        age_ms >= INTERVAL_MS && (grown || old)
    }

    /// Converts rows to another schema. The tables and columns that both have keep their data, which must satisfy the new
    /// constraints; the rest is dropped or gets defaults.
    pub fn convert(&mut self, schema: Schema, wall_ms: u64) -> Result<()> {
        let mut new = Database::new(schema);
        for old_table in &self.tables {
            let Some(index) = new.schema.table(&old_table.schema.name).map(|t| t.index) else { continue };
            let table = &mut new.tables[index];
            let mut pairs = Vec::new();
            for column in table.schema.user_columns() {
                if let Some(old) = old_table.schema.column(&column.name) {
                    pairs.push((old.clone(), column.clone()));
                }
            }
            for entry in old_table.rows.values() {
                let mut changes = Vec::with_capacity(pairs.len());
                for (from, to) in &pairs {
                    let json = entry.row.get(from.index).to_json(&from.kind);
                    changes.push((to.index, Datum::from_json(&to.kind, &json, None)?));
                }
                let mut row = table.new_row(entry.row.uuid());
                row.set_many(&changes);
                table.rows.insert(row.uuid(), Entry { row, strong_refs: 0 });
            }
        }
        // All rows are as if just inserted: the end-of-transaction checks apply to them.
        let rows: Vec<Vec<Row>> =
            new.tables.iter().map(|t| t.rows.values().map(|e| e.row.clone()).collect()).collect();
        new.tables = make_tables(&new.schema);
        new.change(wall_ms, |tables, txn| {
            for (index, rows) in rows.into_iter().enumerate() {
                for row in rows {
                    txn.insert(tables, index, row);
                }
            }
        })?;
        if let Some(log) = &mut self.log {
            // Both records or neither: a schema without its rows would be an empty database.
            log.replace(&new.snapshot("converted by ovsdb-server", wall_ms))?;
        }
        self.schema = new.schema;
        self.tables = new.tables;
        self.history.clear();
        self.history_changes = 0;
        self.last_id = Uuid::random();
        Ok(())
    }

    /// Columns of all rows, for `memory/show`: cells and atoms.
    pub fn usage(&self) -> (usize, usize) {
        let mut cells = 0;
        let mut atoms = 0;
        for table in &self.tables {
            for entry in table.rows.values() {
                cells += entry.row.columns();
                atoms += (0..entry.row.columns())
                    .flat_map(|c| entry.row.cell(c).iter())
                    .map(|(_, v)| 1 + usize::from(v.is_some()))
                    .sum::<usize>();
            }
        }
        (cells, atoms)
    }
}

/// Why transactions were undone whose answers waited for the disk.
#[derive(Debug)]
pub struct Unflushed {
    /// What the disk said.
    pub error: Error,
    /// [`Database::commits`] before the first of them.
    pub since: u64,
    /// The way back to the state before them, if it differs.
    pub undone: Option<Arc<Commit>>,
}

/// True for the operation that makes its transaction durable.
fn is_durable_commit(operation: &Json) -> bool {
    operation.get("op").and_then(Json::as_str) == Some("commit")
        && operation.get("durable").and_then(Json::as_bool) == Some(true)
}

/// Why a record cannot be applied.
enum Unreadable {
    Json(JsonError),
    Content(Error),
}

impl From<JsonError> for Unreadable {
    fn from(e: JsonError) -> Unreadable {
        Unreadable::Json(e)
    }
}

impl From<Error> for Unreadable {
    fn from(e: Error) -> Unreadable {
        Unreadable::Content(e)
    }
}

/// A compaction that goes on elsewhere while transactions go on here.
pub struct Compaction {
    schema: Arc<Schema>,
    tables: Vec<(Arc<TableSchema>, Snapshot)>,
    comment: String,
    wall_ms: u64,
    mark: bool,
    replacement: Replacement,
}

impl Compaction {
    /// Writes the compact file beside the present one. Callable from any thread.
    pub fn write(self) -> Result<Replaced> {
        let Compaction { schema, tables, comment, wall_ms, mark, replacement } = self;
        let rows = tables.iter().map(|(table, rows)| (&**table, rows.values().map(|e| &e.row)));
        let records = [schema.to_json().to_string(), snapshot_text(rows, &comment, wall_ms, mark)];
        drop(tables);
        replacement.write(&records)
    }
}

fn snapshot_text<'a, R: ExactSizeIterator<Item = &'a Row>>(
    tables: impl Iterator<Item = (&'a TableSchema, R)>,
    comment: &str,
    wall_ms: u64,
    mark: bool,
) -> String {
    let mut out = format!("{{\"_date\":{wall_ms}");
    if !comment.is_empty() {
        out.push_str(",\"_comment\":");
        write_string(&mut out, comment);
    }
    for (table, rows) in tables.filter(|(_, rows)| rows.len() > 0) {
        out.push(',');
        write_string(&mut out, &table.name);
        out.push_str(":{");
        for (i, row) in rows.enumerate() {
            out.push_str(if i > 0 { ",\"" } else { "\"" });
            row.uuid().write_to(&mut out);
            out.push_str("\":");
            write_new_row(&mut out, table, row);
        }
        out.push('}');
    }
    if mark {
        // Nothing in it is a difference; the mark tells older readers that some may follow.
        out.push_str(",\"_is_diff\":true");
    }
    out.push('}');
    out
}

fn write_new_row(out: &mut String, table: &TableSchema, row: &Row) {
    out.push('{');
    let mut first = true;
    for column in table.user_columns() {
        let datum = row.cell(column.index);
        if !column.persistent || datum.is_default(&column.kind) {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        write_string(out, &column.name);
        out.push(':');
        datum.write_json(&column.kind, out);
    }
    out.push('}');
}

/// The text of a transaction's record; none if nothing in it is stored.
fn record_text(
    schema: &Schema,
    changes: &[Change],
    comments: &[String],
    wall_ms: u64,
    diffs: bool,
) -> Option<String> {
    let mut tables: Vec<usize> = changes.iter().map(|c| c.table).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut out = String::with_capacity(RECORD_BYTES);
    out.push('{');
    for t in tables {
        let table = &schema.tables[t];
        let mut rows = String::with_capacity(RECORD_BYTES);
        for change in changes.iter().filter(|c| c.table == t) {
            let start = rows.len();
            if start > 0 {
                rows.push(',');
            }
            rows.push('"');
            change.uuid.write_to(&mut rows);
            rows.push_str("\":");
            match (&change.old, &change.new) {
                (_, None) => rows.push_str("null"),
                (old, Some(new)) => {
                    let mut first = true;
                    rows.push('{');
                    for column in &table.columns[FIRST_COLUMN..] {
                        let datum = new.cell(column.index);
                        let same = match old {
                            Some(old) => old.cell(column.index) == datum,
                            None => datum.is_default(&column.kind),
                        };
                        if same || !column.persistent {
                            continue;
                        }
                        if !first {
                            rows.push(',');
                        }
                        first = false;
                        write_string(&mut rows, &column.name);
                        rows.push(':');
                        match old {
                            Some(old) if diffs => {
                                let diff = old.cell(column.index).diff(datum, &column.kind);
                                diff.cell().write_json(&column.kind, &mut rows);
                            }
                            _ => datum.write_json(&column.kind, &mut rows),
                        }
                    }
                    rows.push('}');
                    if first && old.is_some() {
                        // Only ephemeral columns changed.
                        rows.truncate(start);
                    }
                }
            }
        }
        if !rows.is_empty() {
            if out.len() > 1 {
                out.push(',');
            }
            write_string(&mut out, &table.name);
            out.push_str(":{");
            out.push_str(&rows);
            out.push('}');
        }
    }
    if out.len() == 1 {
        return None;
    }
    if !comments.is_empty() {
        out.push_str(",\"_comment\":");
        write_string(&mut out, &comments.join("\n"));
    }
    out.push_str(",\"_date\":");
    write_integer(&mut out, i64::try_from(wall_ms).unwrap_or(i64::MAX));
    if diffs {
        out.push_str(",\"_is_diff\":true");
    }
    out.push('}');
    Some(out)
}
