//! One database: schema and tables, loaded from a file and kept there.
//!
//! [`Database::transact`] runs operations, checks, writes and commits. What changed comes back as a [`Commit`] for monitors
//! and is remembered for clients that come back (`monitor_cond_since`).
//!
//! A transaction is answered only after its record is in the file: if the write fails, the tables are as before and the
//! answer is an I/O error. Changes of ephemeral columns alone are not written.

use crate::Uuid;
use crate::error::{Error, Result};
use crate::exec::{Context, Executed, execute};
use crate::log::{Locker, Log, OpenMode};
use crate::schema::{FIRST_COLUMN, Schema};
use crate::table::{Entry, Row, Table};
use crate::txn::{Change, Txn};
use crate::types::RefType;
use crate::{Datum, SymbolTable};
use ib_base::json::{Json, write_string};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

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
        /// One for each operation, and perhaps one more: the error that its end brought.
        results: Json,
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
    log: Option<Log>,
    /// The state's name, and the ways from earlier states to it.
    last_id: Uuid,
    history: VecDeque<Arc<Commit>>,
    history_changes: usize,
    /// Transactions committed since the start.
    pub commits: u64,
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
            last_id: Uuid::random(),
            history: VecDeque::new(),
            history_changes: 0,
            commits: 0,
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
        log.commit()?;
        let mut database = Database::new(schema);
        database.log = Some(log);
        Ok(database)
    }

    /// Reads a file. What is behind the first record that is damaged or makes no sense is left out, and cut off by the
    /// next transaction.
    pub fn open(path: &Path, writable: bool, locker: Option<&Locker>) -> Result<Loaded> {
        let mode = if writable { OpenMode::ReadWrite } else { OpenMode::ReadOnly };
        let mut log = Log::open(path, mode, locker)?;
        let Some(record) = log.read()? else {
            return Err(Error::io_eof(format!("{}: database has no schema", path.display())));
        };
        let mut database = Database::new(Schema::from_json(&record.json)?);
        let mut warning = None;
        loop {
            match log.read() {
                Ok(None) => break,
                Ok(Some(record)) => {
                    let applied = if is_schema(&record.json) {
                        Schema::from_json(&record.json).map(|s| database.reset_schema(s))
                    } else {
                        database.replay(record.json)
                    };
                    if let Err(error) = applied {
                        log.unread(record.offset);
                        warning = Some(error);
                        break;
                    }
                }
                Err(error) => {
                    warning = Some(error);
                    break;
                }
            }
        }
        database.rebuild_references();
        database.compacted_size = log.size();
        database.log = Some(log);
        Ok(Loaded { database, warning })
    }

    fn reset_schema(&mut self, schema: Schema) {
        self.schema = Arc::new(schema);
        self.tables = make_tables(&self.schema);
    }

    /// Applies a record to rows only; [`Database::rebuild_references`] follows when all are read.
    fn replay(&mut self, record: Json) -> Result<()> {
        let Json::Object(record_object) = record else {
            return Err(Error::syntax(&record, "object expected"));
        };
        let is_diff = record_object.get("_is_diff").and_then(Json::as_bool).unwrap_or(false);
        let mut none = SymbolTable::new();
        for (name, rows) in record_object {
            let Some(schema) = self.schema.table(&name) else {
                if matches!(&*name, "_date" | "_comment" | "_is_diff") {
                    continue;
                }
                let json = Json::object([(name.clone(), rows)]);
                return Err(Error::syntax_tagged(&json, "unknown table", format!("No table named {name}.")));
            };
            let schema = schema.clone();
            let table = &mut self.tables[schema.index];
            let Json::Object(rows) = rows else { return Err(Error::syntax(&rows, "object expected")) };
            for (uuid_text, columns) in rows {
                let Some(uuid) = Uuid::parse(&uuid_text) else {
                    let json = Json::String(uuid_text.clone());
                    return Err(Error::syntax(&json, format!("\"{uuid_text}\" is not a valid UUID")));
                };
                match columns {
                    Json::Null => {
                        if table.rows.remove(&uuid).is_none() {
                            let message = format!("transaction deletes row {uuid} that does not exist");
                            return Err(Error::syntax_plain(message));
                        }
                    }
                    Json::Object(columns) => {
                        let fresh = !table.rows.contains_key(&uuid);
                        if fresh {
                            let row = table.new_row(uuid);
                            table.rows.insert(uuid, Entry { row, strong_refs: 0 });
                        }
                        let Some(entry) = table.rows.get_mut(&uuid) else { continue };
                        let mut changes = Vec::with_capacity(columns.len());
                        for (name, value) in columns {
                            let Some(column) = schema.column(&name) else {
                                let json = Json::object([(name.clone(), value)]);
                                let message = format!("No column {name} in table {}.", schema.name);
                                return Err(Error::syntax_tagged(&json, "unknown column", message));
                            };
                            let c = column.index;
                            let datum = if is_diff && !fresh && column.kind.is_composite() {
                                let any = column.kind.unconstrained();
                                let diff = Datum::from_json_unchecked(&any, &value, Some(&mut none))?;
                                entry.row.get(c).apply_diff(&diff, &column.kind)?
                            } else {
                                Datum::from_json(&column.kind, &value, Some(&mut none))?
                            };
                            changes.push((c, datum));
                        }
                        entry.row.set_many(&changes);
                    }
                    other => return Err(Error::syntax(&other, "row must be JSON object")),
                }
            }
        }
        Ok(())
    }

    /// Counts references and fills indexes from the rows.
    fn rebuild_references(&mut self) {
        for table in &mut self.tables {
            table.weak_in.clear();
            table.indexes.iter_mut().for_each(|i| i.clear());
            table.rows.values_mut().for_each(|e| e.strong_refs = 0);
        }
        let mut strong: Vec<(usize, Uuid)> = Vec::new();
        for t in 0..self.tables.len() {
            let rows: Vec<Row> = self.tables[t].rows.values().map(|e| e.row.clone()).collect();
            let has_weak = self.tables[t].ref_columns.iter().any(|r| r.has(RefType::Weak));
            for row in &rows {
                for r in &self.tables[t].ref_columns {
                    r.each(row.get(r.column), RefType::Strong, |table, uuid| strong.push((table, uuid)));
                }
                for i in 0..self.tables[t].indexes.len() {
                    let key = self.tables[t].index_key(i, row);
                    self.tables[t].indexes[i].insert(key, row.uuid());
                }
                if has_weak {
                    Table::link_weak(&mut self.tables, t, row, true);
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

    /// The commits that lead from state `id` to the current one; none if that is not remembered.
    pub fn commits_since(&self, id: Uuid) -> Option<Vec<Arc<Commit>>> {
        if id == self.last_id {
            return Some(Vec::new());
        }
        let at = self.history.iter().position(|c| c.id == id)?;
        Some(self.history.iter().skip(at + 1).cloned().collect())
    }

    /// True if the database is kept in a file.
    pub fn has_file(&self) -> bool {
        self.log.is_some()
    }

    /// The size of its file.
    pub fn file_size(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::size)
    }

    /// Runs a transaction. `wall_ms` dates its record.
    pub fn transact(&mut self, operations: &[Json], context: &Context<'_>, wall_ms: u64) -> Transacted {
        let mut txn = Txn::new();
        let schema = self.schema.clone();
        let names = |name: &str| schema.table(name).map(|t| t.index);
        let executed = execute(&mut self.tables, &names, &mut txn, operations, context);
        match executed {
            Executed::Wait { timeout_ms } => {
                txn.abort(&mut self.tables);
                Transacted::Wait { timeout_ms }
            }
            Executed::Done { results, ok: false } => {
                txn.abort(&mut self.tables);
                Transacted::Done { results: Json::Array(results), commit: None }
            }
            Executed::Done { mut results, ok: true } => match self.finish(txn, wall_ms) {
                Ok(commit) => Transacted::Done { results: Json::Array(results), commit },
                Err(error) => {
                    results.push(error.to_json());
                    Transacted::Done { results: Json::Array(results), commit: None }
                }
            },
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
        if let Some(log) = &mut self.log {
            let record =
                record_text(&self.schema, &prepared.changes, &txn.comments, wall_ms, self.write_diffs);
            let mut written = record.map_or(Ok(()), |record| log.append(&record));
            if written.is_ok() && txn.durable {
                written = log.commit();
            }
            if let Err(error) = written {
                txn.abort(&mut self.tables);
                return Err(error);
            }
        }
        txn.commit(&mut self.tables, &prepared);
        self.commits += 1;
        self.compacted_commits += 1;
        let commit = Arc::new(Commit { id: Uuid::random(), changes: prepared.changes });
        self.last_id = commit.id;
        self.history_changes += commit.changes.len();
        self.history.push_back(commit.clone());
        while self.history.len() > HISTORY_COMMITS || self.history_changes > HISTORY_CHANGES {
            let Some(old) = self.history.pop_front() else { break };
            self.history_changes -= old.changes.len();
        }
        Ok(Some(commit))
    }

    /// The records of a compact file: schema, and one transaction with all rows.
    pub fn snapshot(&self, comment: &str, wall_ms: u64) -> Vec<String> {
        let mut out = format!("{{\"_date\":{wall_ms}");
        if !comment.is_empty() {
            out.push_str(",\"_comment\":");
            write_string(&mut out, comment);
        }
        for table in self.tables.iter().filter(|t| !t.rows.is_empty()) {
            out.push(',');
            write_string(&mut out, &table.schema.name);
            out.push_str(":{");
            for (i, (uuid, entry)) in table.rows.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push('"');
                uuid.write_to(&mut out);
                out.push_str("\":");
                write_new_row(&mut out, table, &entry.row);
            }
            out.push('}');
        }
        if self.write_diffs {
            // Nothing in it is a difference; the mark tells older readers that some may follow.
            out.push_str(",\"_is_diff\":true");
        }
        out.push('}');
        vec![self.schema.to_json().to_string(), out]
    }

    /// Rewrites the file to hold the current state and nothing else.
    pub fn compact(&mut self, comment: &str, wall_ms: u64, now_ms: i64) -> Result<()> {
        let records = self.snapshot(comment, wall_ms);
        if let Some(log) = &mut self.log {
            log.replace(&records)?;
            self.compacted_size = log.size();
        }
        self.compacted_commits = 0;
        self.compacted_ms = Some(now_ms);
        Ok(())
    }

    /// True if the file has grown so much that it should be compacted now.
    pub fn should_compact(&mut self, now_ms: i64) -> bool {
        const MIN_SIZE: u64 = 10 * 1024 * 1024;
        const MIN_COMMITS: u64 = 100;
        const INTERVAL_MS: i64 = 10 * 60 * 1000;
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let age_ms = now_ms - *self.compacted_ms.get_or_insert(now_ms);
        let Some(log) = &self.log else { return false };
        if self.compacted_commits >= MIN_COMMITS && age_ms >= DAY_MS {
            return true;
        }
        let ripe =
            self.compacted_commits >= MIN_COMMITS || (self.compacted_commits > 0 && age_ms >= INTERVAL_MS);
        ripe && log.size() >= MIN_SIZE && log.size() / 2 >= self.compacted_size
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
            for record in new.snapshot("", wall_ms) {
                log.append(&record)?;
            }
            log.commit()?;
        }
        self.schema = new.schema;
        self.tables = new.tables;
        self.history.clear();
        self.history_changes = 0;
        self.last_id = Uuid::random();
        Ok(())
    }

    /// Sends further records to `file`, for tests of what happens when writing fails.
    #[doc(hidden)]
    pub fn redirect_log_for_test(&mut self, file: std::fs::File) {
        if let Some(log) = &mut self.log {
            log.redirect_for_test(file);
        }
    }

    /// Columns of all rows, for `memory/show`: cells and atoms.
    pub fn usage(&self) -> (usize, usize) {
        let mut cells = 0;
        let mut atoms = 0;
        for table in &self.tables {
            for entry in table.rows.values() {
                cells += entry.row.data().len();
                atoms += entry
                    .row
                    .data()
                    .iter()
                    .map(|d| d.iter().map(|(_, v)| 1 + usize::from(v.is_some())).sum::<usize>())
                    .sum::<usize>();
            }
        }
        (cells, atoms)
    }
}

/// True if a record is a schema: a transaction's members are tables and words that begin with an underscore.
fn is_schema(record: &Json) -> bool {
    record.get("name").is_some_and(|n| n.as_str().is_some()) && record.get("tables").is_some()
}

fn write_new_row(out: &mut String, table: &Table, row: &Row) {
    out.push('{');
    let mut first = true;
    for column in table.schema.user_columns() {
        let datum = row.get(column.index);
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
    let mut out = String::from("{");
    for t in tables {
        let table = &schema.tables[t];
        let mut rows = String::new();
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
                        let datum = new.get(column.index);
                        let same = match old {
                            Some(old) => old.get(column.index) == datum,
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
                                old.get(column.index)
                                    .diff(datum, &column.kind)
                                    .write_json(&column.kind, &mut rows);
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
    let _ = write!(out, ",\"_date\":{wall_ms}");
    if diffs {
        out.push_str(",\"_is_diff\":true");
    }
    out.push('}');
    Some(out)
}
