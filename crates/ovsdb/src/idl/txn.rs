//! Changes on their way to the server.
//!
//! A [`Txn`] collects writes apart from the replica; [`Idl::commit`] turns it into one `transact` request, whose fate
//! is asked for by [`TxnId`]: [`Idl::status`] while it is under way, [`Idl::take_outcome`] when it is decided.
//!
//! - [`Txn::verify`] makes the transaction conditional on a column's content being what was read (`wait` operations):
//!   if it is not, the outcome is [`TxnStatus::TryAgain`], and the caller starts over on the changed replica.
//! - [`Txn::add_to`] and [`Txn::remove_from`] are mutations: clients that add to one set at the same time do not
//!   disturb each other, and what travels has the size of the change.
//! - A transaction that would change nothing is not sent: [`TxnStatus::Unchanged`].
//!
//! A new row has a placeholder UUID that other values of the same transaction may refer to; [`Outcome::inserted`] gives
//! the one that the server chose.

use super::row::Row;
use super::{Idl, View};
use crate::{Atom, ColumnType, Datum, Uuid};
use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_IDL;
use std::collections::{BTreeMap, HashMap};

/// Names a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxnId(pub(super) i64);

/// How far a transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnStatus {
    /// It would change nothing, so it was not sent.
    Unchanged,
    /// The server has not answered.
    Incomplete,
    /// The client gave it up.
    Aborted,
    /// It is in the database.
    Success,
    /// The database changed underneath it, or the connection was lost; nothing happened, or nobody knows. Start over.
    TryAgain,
    /// The lock that the replica asks for is not held.
    NotLocked,
    /// The server refused it; the text is its error object.
    Error(String),
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Never [`TxnStatus::Incomplete`].
    pub status: TxnStatus,
    /// From placeholders to the UUIDs of the rows inserted.
    pub inserted: HashMap<Uuid, Uuid>,
    /// The new value of the column of [`Txn::increment`].
    pub incremented: Option<i64>,
}

impl Outcome {
    pub(super) fn of(status: TxnStatus) -> Outcome {
        Outcome { status, inserted: HashMap::new(), incremented: None }
    }
}

/// What a transaction does to one column of one row.
enum Pending {
    Set(Datum),
    Mutate { result: Datum, add: Datum, remove: Datum },
}

/// What a transaction does to one row.
#[derive(Default)]
pub(super) struct PendingRow {
    pub(super) inserted: bool,
    /// The UUID is what the row shall have, not a placeholder.
    persistent: bool,
    pub(super) deleted: bool,
    columns: BTreeMap<usize, Pending>,
    verify: BTreeMap<usize, Datum>,
}

impl PendingRow {
    pub(super) fn value(&self, column: usize) -> Option<&Datum> {
        match self.columns.get(&column)? {
            Pending::Set(value) => Some(value),
            Pending::Mutate { result, .. } => Some(result),
        }
    }
}

/// Changes to commit together.
#[derive(Default)]
pub struct Txn {
    rows: HashMap<(usize, Uuid), PendingRow>,
    order: Vec<(usize, Uuid)>,
    comment: String,
    increment: Option<(usize, Uuid, usize)>,
    dry_run: bool,
}

impl Txn {
    /// No changes.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// True if nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.increment.is_none()
    }

    /// The replica as this transaction would leave it.
    pub fn view<'a>(&'a self, idl: &'a Idl) -> View<'a> {
        View::new(idl, Some(self))
    }

    pub(super) fn pending(&self, t: usize, uuid: Uuid) -> Option<&PendingRow> {
        self.rows.get(&(t, uuid))
    }

    pub(super) fn inserted(&self, t: usize) -> Vec<Uuid> {
        let of_table = self.order.iter().filter(|(table, uuid)| {
            *table == t && self.rows.get(&(t, *uuid)).is_some_and(|row| row.inserted)
        });
        of_table.map(|(_, uuid)| *uuid).collect()
    }

    fn entry(&mut self, t: usize, uuid: Uuid) -> &mut PendingRow {
        self.rows.entry((t, uuid)).or_insert_with(|| {
            self.order.push((t, uuid));
            PendingRow::default()
        })
    }

    /// Adds a comment that goes into the database's log; several are lines.
    pub fn comment(&mut self, text: &str) {
        if !self.comment.is_empty() {
            self.comment.push('\n');
        }
        self.comment.push_str(text);
    }

    /// Lets the server check the transaction and then undo it.
    pub fn set_dry_run(&mut self) {
        self.dry_run = true;
    }

    /// Inserts a row with default values and returns its placeholder.
    pub fn insert(&mut self, idl: &Idl, table: &str) -> Uuid {
        let uuid = Uuid::random();
        self.insert_as(idl, table, uuid);
        uuid
    }

    /// [`Txn::insert`] with a placeholder that the caller chose.
    pub fn insert_as(&mut self, idl: &Idl, table: &str, uuid: Uuid) {
        let t = idl.table(table);
        self.entry(t, uuid).inserted = true;
    }

    /// Inserts a row with a UUID that stays: others may refer to it before the transaction is in. Servers since 2.17 can.
    pub fn insert_persistent(&mut self, idl: &Idl, table: &str, uuid: Uuid) {
        self.insert_as(idl, table, uuid);
        let t = idl.table(table);
        self.entry(t, uuid).persistent = true;
    }

    /// Deletes a row. Rows of tables that are not root are the server's to delete, when the last reference goes: of
    /// those, only this transaction's view is rid.
    pub fn delete(&mut self, row: &Row<'_>) {
        self.delete_at(row.view().idl(), row.table(), row.uuid());
    }

    /// [`Txn::delete`] of a row that is not at hand.
    pub fn delete_at(&mut self, idl: &Idl, table: &str, uuid: Uuid) {
        let t = idl.table(table);
        if self.rows.get(&(t, uuid)).is_some_and(|row| row.inserted) {
            self.rows.remove(&(t, uuid));
            self.order.retain(|key| *key != (t, uuid));
        } else {
            self.entry(t, uuid).deleted = true;
        }
    }

    /// Replaces the content of a column.
    ///
    /// For columns whose changes are silent ([`Idl::omit_alert`]) and hold this value already this does nothing, so
    /// that status can be written again and again.
    pub fn set(&mut self, row: &Row<'_>, column: &str, value: Datum) {
        self.set_at(row.view().idl(), row.table(), row.uuid(), column, value);
    }

    /// [`Txn::set`] on a row that is not at hand.
    pub fn set_at(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str, value: Datum) {
        let t = idl.table(table);
        let c = idl.tables[t].column(column);
        if !idl.tables[t].columns[c].alert
            && self.pending(t, uuid).is_none_or(|p| p.value(c).is_none())
            && idl.tables[t].rows.get(&uuid).is_some_and(|row| row[c] == value)
        {
            return;
        }
        self.entry(t, uuid).columns.insert(c, Pending::Set(value));
    }

    /// The value of a column in the view of this transaction.
    fn current(&self, idl: &Idl, t: usize, uuid: Uuid, c: usize) -> Datum {
        let table = &idl.tables[t];
        match self.pending(t, uuid).and_then(|p| p.value(c)) {
            Some(value) => value.clone(),
            None => table.rows.get(&uuid).map_or(&table.columns[c].default, |row| &row[c]).clone(),
        }
    }

    /// Adds elements to a set, or sets pairs of a map.
    pub fn add_to(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str, elements: &Datum) {
        self.mutate(idl, table, uuid, column, elements, &Datum::EMPTY);
    }

    /// Removes elements from a set, or the pairs of these keys and values from a map.
    pub fn remove_from(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str, elements: &Datum) {
        self.mutate(idl, table, uuid, column, &Datum::EMPTY, elements);
    }

    fn mutate(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str, more: &Datum, less: &Datum) {
        let t = idl.table(table);
        let c = idl.tables[t].column(column);
        let current = self.current(idl, t, uuid, c);
        let is_new = |key: &Atom| !current.contains(key);
        let grows = less.is_empty() && more.keys().all(is_new);
        let result = current.subtract(less, false).updated_with(more);
        let original = idl.tables[t].rows.get(&uuid).map(|row| row[c].clone());
        let row = self.entry(t, uuid);
        let pending = match (row.columns.remove(&c), original) {
            (Some(Pending::Set(_)), _) | (None, None) => Pending::Set(result),
            // Another element is the usual case, maybe the thousandth: what was found out before holds, unless it
            // is one that was removed.
            (Some(Pending::Mutate { add, remove, .. }), Some(_)) if grows && remove.is_empty() => {
                Pending::Mutate { result, add: add.updated_with(more), remove }
            }
            (_, Some(original)) => {
                // Relative to the replica, whatever the way to here was.
                let remove = original.subtract(&result, false);
                let add = result.subtract(&original, false);
                Pending::Mutate { result, add, remove }
            }
            (Some(Pending::Mutate { .. }), None) => Pending::Set(result),
        };
        row.columns.insert(c, pending);
    }

    /// Makes the transaction depend on a column's content in the replica, as it is now.
    pub fn verify(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str) {
        let t = idl.table(table);
        let c = idl.tables[t].column(column);
        if let Some(row) = idl.tables[t].rows.get(&uuid) {
            let value = row[c].clone();
            self.entry(t, uuid).verify.entry(c).or_insert(value);
        }
    }

    /// Adds 1 to an integer column if the transaction changes anything; [`Outcome::incremented`] is the result.
    pub fn increment(&mut self, idl: &Idl, table: &str, uuid: Uuid, column: &str) {
        let t = idl.table(table);
        self.increment = Some((t, uuid, idl.tables[t].column(column)));
    }
}

/// What to look for in the server's answer.
pub(super) struct Sent {
    inserts: Vec<(usize, Uuid)>,
    increment: Option<(usize, String)>,
    dry_run: bool,
}

/// Builds the operations of a request.
struct Request<'a> {
    idl: &'a Idl,
    txn: &'a Txn,
    operations: Vec<Json>,
    changes: bool,
    sent: Sent,
}

impl Request<'_> {
    fn atom(&self, atom: &Atom) -> Json {
        match atom {
            Atom::Uuid(uuid) => self.uuid(*uuid),
            other => other.to_json(),
        }
    }

    /// A row that the transaction inserts is known to the server by name only.
    fn uuid(&self, uuid: Uuid) -> Json {
        let is_new = |t: usize| self.txn.pending(t, uuid).is_some_and(|row| row.inserted && !row.persistent);
        if (0..self.idl.tables.len()).any(is_new) {
            Json::array(["named-uuid".into(), row_name(uuid).into()])
        } else {
            Json::array(["uuid".into(), uuid.to_string().into()])
        }
    }

    fn datum(&self, datum: &Datum, kind: &ColumnType) -> Json {
        if kind.is_map() {
            let pairs = datum.as_map().iter().map(|(k, v)| Json::array([self.atom(k), self.atom(v)]));
            return Json::array(["map".into(), Json::array(pairs)]);
        }
        match datum.as_set() {
            [one] => self.atom(one),
            set => Json::array(["set".into(), Json::array(set.iter().map(|a| self.atom(a)))]),
        }
    }

    fn where_clause(&self, uuid: Uuid) -> Json {
        Json::array([Json::array(["_uuid".into(), "==".into(), self.uuid(uuid)])])
    }

    fn operation(&self, op: &str, t: usize) -> Object {
        let mut object = Object::new();
        object.insert("op", op);
        object.insert("table", self.idl.tables[t].name.clone());
        object
    }

    fn wait(&mut self, t: usize, uuid: Uuid, row: &PendingRow) {
        let table = &self.idl.tables[t];
        if row.verify.is_empty() {
            return;
        }
        let mut op = self.operation("wait", t);
        op.insert("timeout", 0);
        op.insert("where", self.where_clause(uuid));
        let columns = row.verify.keys().map(|&c| table.columns[c].name.clone().into());
        op.insert("columns", Json::array(columns));
        op.insert("until", "==");
        let values = row.verify.iter().map(|(&c, value)| {
            let column = &table.columns[c];
            (column.name.clone(), self.datum(value, &column.schema.kind))
        });
        op.insert("rows", Json::array([Json::object(values)]));
        self.operations.push(op.into());
    }

    fn change(&mut self, t: usize, uuid: Uuid, row: &PendingRow) {
        let table = &self.idl.tables[t];
        if !table.on_server {
            return;
        }
        if row.deleted && !table.is_root {
            // It goes when nothing refers to it any more; the server decides.
            return;
        }
        if row.deleted {
            let mut op = self.operation("delete", t);
            op.insert("where", self.where_clause(uuid));
            self.operations.push(op.into());
            self.changes = true;
            return;
        }
        let old = table.rows.get(&uuid);
        let mut values = Object::new();
        let mut mutations = Vec::new();
        for (&c, pending) in &row.columns {
            let column = &table.columns[c];
            if !column.on_server {
                continue;
            }
            let kind = &column.schema.kind;
            match pending {
                Pending::Set(value) => {
                    if row.inserted && value.is_default(kind) {
                        continue;
                    }
                    self.changes |= old.is_some_and(|old| old[c] != *value);
                    values.insert(column.name.clone(), self.datum(value, kind));
                }
                Pending::Mutate { add, remove, .. } => {
                    // Pairs are removed by key, which also makes room for a new value.
                    if !remove.is_empty() {
                        mutations.push(Json::array([
                            column.name.clone().into(),
                            "delete".into(),
                            self.key_set(remove),
                        ]));
                    }
                    if !add.is_empty() {
                        let elements = if kind.is_map() { self.datum(add, kind) } else { self.key_set(add) };
                        mutations.push(Json::array([column.name.clone().into(), "insert".into(), elements]));
                    }
                }
            }
        }
        if row.inserted {
            let mut op = self.operation("insert", t);
            if row.persistent {
                op.insert("uuid", uuid.to_string());
            } else {
                op.insert("uuid-name", row_name(uuid));
            }
            op.insert("row", values);
            self.sent.inserts.push((self.operations.len(), uuid));
            self.operations.push(op.into());
            self.changes = true;
        } else if !values.is_empty() {
            let mut op = self.operation("update", t);
            op.insert("where", self.where_clause(uuid));
            op.insert("row", values);
            self.operations.push(op.into());
        }
        if !mutations.is_empty() {
            let mut op = self.operation("mutate", t);
            op.insert("where", self.where_clause(uuid));
            op.insert("mutations", Json::Array(mutations));
            self.operations.push(op.into());
            self.changes = true;
        }
    }

    /// A set of the elements or keys.
    fn key_set(&self, datum: &Datum) -> Json {
        Json::array(["set".into(), Json::array(datum.keys().map(|k| self.atom(k)))])
    }

    fn increment(&mut self, t: usize, uuid: Uuid, c: usize) {
        let column = &self.idl.tables[t].columns[c];
        let mut op = self.operation("mutate", t);
        op.insert("where", self.where_clause(uuid));
        let mutation = Json::array([column.name.clone().into(), "+=".into(), 1.into()]);
        op.insert("mutations", Json::array([mutation]));
        self.operations.push(op.into());
        let mut op = self.operation("select", t);
        op.insert("where", self.where_clause(uuid));
        op.insert("columns", Json::array([column.name.clone().into()]));
        self.sent.increment = Some((self.operations.len(), column.name.to_string()));
        self.operations.push(op.into());
    }
}

/// The name of a new row in a request.
fn row_name(uuid: Uuid) -> String {
    format!("row{uuid}").replace('-', "_")
}

impl Idl {
    /// Sends a transaction.
    ///
    /// The outcome is there at once if there is nothing to send, or no connection to send it over.
    pub fn commit(&mut self, txn: Txn) -> TxnId {
        let id = self.session.next_id();
        if !self.is_live() {
            self.session.decide(id, Outcome::of(TxnStatus::TryAgain));
            return TxnId(id);
        }
        if self.lock().is_some() && !self.has_lock() {
            self.session.decide(id, Outcome::of(TxnStatus::NotLocked));
            return TxnId(id);
        }
        let mut request = Request {
            idl: self,
            txn: &txn,
            operations: Vec::new(),
            changes: false,
            sent: Sent { inserts: Vec::new(), increment: None, dry_run: txn.dry_run },
        };
        if let Some(lock) = self.lock() {
            request.operations.push(Json::object([("op", Json::from("assert")), ("lock", Json::from(lock))]));
        }
        for (t, uuid) in &txn.order {
            request.wait(*t, *uuid, &txn.rows[&(*t, *uuid)]);
        }
        // New rows first, for the reader of the log; the server does not mind either way.
        for inserted in [true, false] {
            for (t, uuid) in &txn.order {
                let row = &txn.rows[&(*t, *uuid)];
                if row.inserted == inserted {
                    request.change(*t, *uuid, row);
                }
            }
        }
        if !request.changes {
            self.session.decide(id, Outcome::of(TxnStatus::Unchanged));
            return TxnId(id);
        }
        if let Some((t, uuid, c)) = txn.increment {
            request.increment(t, uuid, c);
        }
        let Request { mut operations, sent, .. } = request;
        if !txn.comment.is_empty() {
            let comment = Json::from(txn.comment.as_str());
            operations.push(Json::object([("op", Json::from("comment")), ("comment", comment)]));
        }
        if txn.dry_run {
            operations.push(Json::object([("op", Json::from("abort"))]));
        }
        operations.insert(0, self.database().into());
        self.session.transact(id, Json::Array(operations), sent);
        TxnId(id)
    }

    /// How far a transaction is. One whose outcome was taken is [`TxnStatus::Aborted`].
    pub fn status(&self, id: TxnId) -> TxnStatus {
        self.session.status(id.0)
    }

    /// The outcome of a transaction, once, when it is decided.
    pub fn take_outcome(&mut self, id: TxnId) -> Option<Outcome> {
        self.session.take_outcome(id.0)
    }

    /// Gives up waiting for a transaction; it may still happen.
    pub fn abandon(&mut self, id: TxnId) {
        self.session.abandon(id.0);
    }
}

impl Sent {
    /// Reads the server's answer.
    pub(super) fn outcome(&self, reply: &Json) -> Outcome {
        let Some(results) = reply.as_array() else {
            return Outcome::of(TxnStatus::Error(format!(
                "reply to \"transact\" is not a JSON array: {reply}"
            )));
        };
        let mut try_again = false;
        let mut not_locked = false;
        let mut aborted = false;
        for result in results {
            match result.get("error").and_then(Json::as_str) {
                None => {}
                Some("timed out") => try_again = true,
                Some("not owner") => not_locked = true,
                Some("aborted") if self.dry_run => aborted = true,
                Some(_) => {
                    let text = result.to_text(ib_base::json::Style::SORTED);
                    ib_base::vlog_warn!(OVSDB_IDL, "transaction error: {text}");
                    return Outcome::of(TxnStatus::Error(text));
                }
            }
        }
        if try_again || not_locked || aborted {
            return Outcome::of(if try_again {
                TxnStatus::TryAgain
            } else if not_locked {
                TxnStatus::NotLocked
            } else {
                TxnStatus::Unchanged
            });
        }
        let mut outcome = Outcome::of(TxnStatus::Success);
        for (i, placeholder) in &self.inserts {
            let uuid = results.get(*i).and_then(|r| r.get("uuid")).and_then(super::session::parse_uuid);
            if let Some(uuid) = uuid {
                outcome.inserted.insert(*placeholder, uuid);
            }
        }
        if let Some((i, column)) = &self.increment {
            let rows = results.get(*i).and_then(|r| r.get("rows")).and_then(Json::as_array);
            let row = rows.and_then(|rows| rows.first());
            outcome.incremented = row.and_then(|r| r.get(column)).and_then(Json::as_integer);
        }
        outcome
    }
}
