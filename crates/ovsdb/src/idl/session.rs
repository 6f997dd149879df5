//! The protocol side of the replica: which request is next, and what an answer or update means.
//!
//! ```text
//!   connected ─► (_Server) ─► get_schema ─► monitor_cond_since ─► live
//!                                                │ unknown method   ▲
//!                                                ▼                  │
//!                                           monitor_cond ───────────┤
//!                                                │ unknown method   │
//!                                                ▼                  │
//!                                             monitor ──────────────┘
//! ```
//!
//! The server's schema only narrows what is asked for. `monitor_cond_since` names the last transaction that the replica
//! has; a server that remembers it sends what happened since, any other a snapshot, which is then compared
//! with the rows at hand.

use super::server::server_monitor;
use super::txn::{Outcome, Sent, TxnStatus};
use super::{Idl, Table};
use crate::{Datum, Uuid};
use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_IDL;
use std::collections::{HashMap, HashSet};

/// The three generations of monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorVersion {
    /// RFC 7047: whole rows, old and new.
    Monitor,
    /// Differences.
    MonitorCond,
    /// Differences, resumable.
    MonitorCondSince,
}

impl MonitorVersion {
    fn method(self) -> &'static str {
        match self {
            MonitorVersion::Monitor => "monitor",
            MonitorVersion::MonitorCond => "monitor_cond",
            MonitorVersion::MonitorCondSince => "monitor_cond_since",
        }
    }

    fn older(self) -> Option<MonitorVersion> {
        match self {
            MonitorVersion::Monitor => None,
            MonitorVersion::MonitorCond => Some(MonitorVersion::Monitor),
            MonitorVersion::MonitorCondSince => Some(MonitorVersion::MonitorCond),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Disconnected,
    /// For the rows of `_Server`, first by an answer, then by updates.
    AwaitServer(Option<i64>),
    AwaitSchema(i64),
    AwaitMonitor(MonitorVersion, i64),
    Live(MonitorVersion),
    /// The server cannot serve this replica; why.
    Failed(String),
}

#[derive(Default)]
pub(super) struct Session {
    pub(super) phase: Phase,
    last_id: i64,
    outbox: Vec<Json>,
    pub(super) last_txn: Uuid,
    pub(super) server: super::server::Server,
    pub(super) asked: Option<super::condition::Asked>,
    outstanding: HashMap<i64, Sent>,
    decided: HashMap<i64, Outcome>,
    lock: Option<Lock>,
    /// This session has had a monitor.
    monitored: bool,
}

struct Lock {
    name: String,
    request: Option<i64>,
    held: bool,
    contended: bool,
}

impl Session {
    pub(super) fn is_monitoring(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn request(&mut self, method: &str, params: Json) -> i64 {
        let id = self.next_id();
        self.send(id, method, params);
        id
    }

    fn send(&mut self, id: i64, method: &str, params: Json) {
        self.outbox.push(Json::object([("method", method.into()), ("params", params), ("id", id.into())]));
    }

    pub(super) fn transact(&mut self, id: i64, params: Json, sent: Sent) {
        self.send(id, "transact", params);
        self.outstanding.insert(id, sent);
    }

    pub(super) fn decide(&mut self, id: i64, outcome: Outcome) {
        self.decided.insert(id, outcome);
    }

    pub(super) fn status(&self, id: i64) -> TxnStatus {
        if self.outstanding.contains_key(&id) {
            return TxnStatus::Incomplete;
        }
        self.decided.get(&id).map_or(TxnStatus::Aborted, |outcome| outcome.status.clone())
    }

    pub(super) fn take_outcome(&mut self, id: i64) -> Option<Outcome> {
        self.decided.remove(&id)
    }

    pub(super) fn abandon(&mut self, id: i64) {
        self.outstanding.remove(&id);
        self.decided.remove(&id);
    }

    fn ask_for_lock(&mut self) {
        // A session asks once, though its monitor may begin anew: twice is an error to the server.
        let unasked = |lock: &&Lock| lock.request.is_none() && !lock.held && !lock.contended;
        let Some(name) = self.lock.as_ref().filter(unasked).map(|lock| lock.name.clone()) else { return };
        let id = self.request("lock", Json::array([name.into()]));
        if let Some(lock) = &mut self.lock {
            lock.request = Some(id);
        }
    }
}

/// The UUID in `["uuid", text]`.
pub(super) fn parse_uuid(json: &Json) -> Option<Uuid> {
    match json.as_array()? {
        [Json::String(word), Json::String(text)] if &**word == "uuid" => Uuid::parse(text),
        _ => None,
    }
}

impl Idl {
    /// A session has been established: begins the negotiation.
    pub fn connected(&mut self) {
        self.session.outbox.clear();
        self.session.monitored = false;
        if !self.request_server() {
            self.request_schema();
        }
    }

    pub(super) fn request_schema(&mut self) {
        let id = self.session.request("get_schema", Json::array([self.database.as_str().into()]));
        self.session.phase = Phase::AwaitSchema(id);
    }

    /// The session is gone. The rows stay; transactions under way are to be tried again, and the lock is lost.
    pub fn disconnected(&mut self) {
        self.session.phase = Phase::Disconnected;
        self.session.outbox.clear();
        self.forget_conditions();
        for (id, _) in std::mem::take(&mut self.session.outstanding) {
            self.session.decide(id, Outcome::of(TxnStatus::TryAgain));
        }
        if let Some(lock) = &mut self.session.lock {
            lock.request = None;
            lock.held = false;
            lock.contended = false;
        }
    }

    /// The messages to send, in order; afterwards there are none.
    pub fn take_messages(&mut self) -> Vec<Json> {
        std::mem::take(&mut self.session.outbox)
    }

    /// Why the server cannot serve this replica, if it said so.
    pub fn failure(&self) -> Option<&str> {
        match &self.session.phase {
            Phase::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// The kind of monitor in use.
    pub fn monitor_version(&self) -> Option<MonitorVersion> {
        match self.session.phase {
            Phase::Live(version) => Some(version),
            _ => None,
        }
    }

    /// Asks for a database lock, from now on and after each reconnection; `None` gives it back. While a lock is asked
    /// for but not held, transactions fail as [`TxnStatus::NotLocked`].
    pub fn set_lock(&mut self, name: Option<&str>) {
        if self.session.lock.as_ref().map(|lock| lock.name.as_str()) == name {
            return;
        }
        let live = self.is_live();
        if let Some(old) = self.session.lock.take()
            && live
        {
            self.session.request("unlock", Json::array([old.name.into()]));
        }
        if let Some(name) = name {
            let lock = Lock { name: name.to_string(), request: None, held: false, contended: false };
            self.session.lock = Some(lock);
            if live {
                self.session.ask_for_lock();
            }
        }
    }

    /// The lock asked for.
    pub fn lock(&self) -> Option<&str> {
        self.session.lock.as_ref().map(|lock| lock.name.as_str())
    }

    /// True if the lock asked for is held.
    pub fn has_lock(&self) -> bool {
        self.session.lock.as_ref().is_some_and(|lock| lock.held)
    }

    /// True if another client holds the lock asked for.
    pub fn is_lock_contended(&self) -> bool {
        self.session.lock.as_ref().is_some_and(|lock| lock.contended)
    }

    /// Takes one message from the server. Messages that are not for the replica are passed over.
    pub fn receive(&mut self, message: &Json) {
        let id = message.get("id").cloned().unwrap_or_default();
        if let Some(method) = message.get("method").and_then(Json::as_str) {
            let params = message.get("params").and_then(Json::as_array).unwrap_or(&[]);
            self.receive_notification(method, params, id);
            return;
        }
        let Some(id) = id.as_integer() else { return };
        let error = message.get("error").filter(|error| !error.is_null());
        let result = message.get("result").unwrap_or(&Json::Null);
        if let Some(sent) = self.session.outstanding.remove(&id) {
            let outcome = match error {
                None => sent.outcome(result),
                // The server is about to close the session or to convert the database.
                Some(Json::String(word)) if &**word == "canceled" => Outcome::of(TxnStatus::TryAgain),
                Some(error) => Outcome::of(TxnStatus::Error(error.to_text(ib_base::json::Style::SORTED))),
            };
            self.session.decide(id, outcome);
            return;
        }
        if self.session.asked.as_ref().is_some_and(|asked| asked.is(id)) {
            return self.conditions_changed(error);
        }
        match self.session.phase {
            Phase::AwaitServer(Some(expected)) if expected == id => self.receive_server(result, error),
            Phase::AwaitSchema(expected) if expected == id => self.receive_schema(result, error),
            Phase::AwaitMonitor(version, expected) if expected == id => {
                self.receive_snapshot(version, result, error);
            }
            _ => {
                let locked = result.get("locked").and_then(Json::as_bool);
                if let Some(lock) = self.session.lock.as_mut().filter(|lock| lock.request == Some(id)) {
                    lock.request = None;
                    lock.held = locked == Some(true);
                    lock.contended = locked == Some(false);
                    self.seqno += 1;
                }
            }
        }
    }

    fn receive_notification(&mut self, method: &str, params: &[Json], id: Json) {
        match (method, params) {
            ("echo", _) => {
                let reply =
                    [("result", Json::array(params.iter().cloned())), ("error", Json::Null), ("id", id)];
                self.session.outbox.push(Json::object(reply));
            }
            ("update2", [monitor, Json::Object(tables)]) if *monitor == server_monitor() => {
                self.apply_server(tables);
            }
            ("monitor_canceled", [monitor]) if *monitor == self.monitor_id() && self.is_live() => {
                // The database is being converted: its new schema first.
                self.session.asked = None;
                self.session.last_txn = Uuid::ZERO;
                self.request_schema();
            }
            ("update", [_, Json::Object(tables)]) => self.apply_rows(tables),
            ("update2", [_, Json::Object(tables)]) => self.apply_differences(tables),
            ("update3", [_, Json::String(last), Json::Object(tables)]) => {
                self.apply_differences(tables);
                self.session.last_txn = Uuid::parse(last).unwrap_or(Uuid::ZERO);
            }
            ("locked" | "stolen", [Json::String(name)]) => {
                if let Some(lock) = self.session.lock.as_mut().filter(|lock| lock.name == **name) {
                    lock.held = method == "locked";
                    lock.contended = !lock.held;
                    self.seqno += 1;
                }
            }
            _ => {}
        }
    }

    pub(super) fn receive_schema(&mut self, schema: &Json, error: Option<&Json>) {
        if let Some(error) = error {
            let why = format!("{} database schema not available: {error}", self.database);
            ib_base::vlog_warn!(OVSDB_IDL, "{why}");
            self.session.phase = Phase::Failed(why);
            return;
        }
        for table in &mut self.tables {
            let columns =
                schema.get("tables").and_then(|t| t.get(&table.name)).and_then(|t| t.get("columns"));
            table.on_server = columns.is_some();
            for column in &mut table.columns {
                column.on_server = columns.is_some_and(|c| c.get(&column.name).is_some());
            }
        }
        self.request_monitor(MonitorVersion::MonitorCondSince);
    }

    /// The monitor's name.
    pub(super) fn monitor_id(&self) -> Json {
        Json::array(["monid".into(), self.database.as_str().into()])
    }

    fn request_monitor(&mut self, version: MonitorVersion) {
        // Resuming is from the conditions that were in force; later ones follow.
        let resumes = version == MonitorVersion::MonitorCondSince && self.session.last_txn != Uuid::ZERO;
        let mut requests = Object::new();
        for t in 0..self.tables.len() {
            if !resumes {
                self.tables[t].in_force = self.tables[t].condition.clone();
            }
            let table = &self.tables[t];
            if !table.travels() {
                continue;
            }
            let wanted = table.columns.iter().filter(|c| c.registered && c.on_server);
            let columns = Json::array(wanted.map(|c| c.name.clone().into()));
            let mut request = Object::new();
            request.insert("columns", columns);
            if version != MonitorVersion::Monitor
                && let Some(clauses) = self.condition_json(t, &table.in_force)
            {
                request.insert("where", clauses);
            }
            requests.insert(table.name.clone(), Json::array([request.into()]));
        }
        let monitor = self.monitor_id();
        if std::mem::take(&mut self.session.monitored) {
            // The old one may be there still: a schema changes before or after its monitors end.
            self.session.request("monitor_cancel", Json::array([monitor.clone()]));
        }
        let mut params = vec![self.database.as_str().into(), monitor, requests.into()];
        if version == MonitorVersion::MonitorCondSince {
            params.push(self.session.last_txn.to_string().into());
        }
        let id = self.session.request(version.method(), params.into());
        self.session.phase = Phase::AwaitMonitor(version, id);
    }

    fn receive_snapshot(&mut self, version: MonitorVersion, result: &Json, error: Option<&Json>) {
        if let Some(error) = error {
            match version.older() {
                Some(older) => self.request_monitor(older),
                None => {
                    self.session.phase = Phase::Failed(format!("cannot monitor {}: {error}", self.database))
                }
            }
            return;
        }
        let none = Object::new();
        match (version, result.as_array()) {
            (MonitorVersion::MonitorCondSince, Some([found, last, tables])) => {
                let tables = tables.as_object().unwrap_or(&none);
                if found.as_bool() == Some(true) {
                    self.apply_differences(tables);
                } else {
                    self.replace_all(tables, "initial");
                }
                self.session.last_txn = last.as_str().and_then(Uuid::parse).unwrap_or(Uuid::ZERO);
            }
            (MonitorVersion::MonitorCond, _) => {
                self.replace_all(result.as_object().unwrap_or(&none), "initial")
            }
            _ => self.replace_all(result.as_object().unwrap_or(&none), "new"),
        }
        self.session.phase = Phase::Live(version);
        self.session.monitored = true;
        self.seqno += 1;
        self.session.ask_for_lock();
        self.change_conditions();
    }

    /// The rows of one table in an update: the table's index, and the UUID and content of each row.
    fn rows_of<'j>(&self, name: &str, rows: &'j Json) -> Option<(usize, Vec<(Uuid, &'j Json)>)> {
        let t = *self.by_name.get(name)?;
        let rows = rows.as_object()?.iter();
        Some((t, rows.filter_map(|(uuid, row)| Some((Uuid::parse(uuid)?, row))).collect()))
    }

    /// Makes the replica equal to a snapshot, whose rows are under `member`.
    fn replace_all(&mut self, tables: &Object, member: &str) {
        for t in 0..self.tables.len() {
            let name = self.tables[t].name.clone();
            let rows = tables.get(&name).and_then(|rows| self.rows_of(&name, rows)).map(|(_, rows)| rows);
            let rows = rows.unwrap_or_default();
            let kept: HashSet<Uuid> = rows.iter().map(|(uuid, _)| *uuid).collect();
            let gone: Vec<Uuid> = self.tables[t].rows.keys().filter(|u| !kept.contains(u)).copied().collect();
            for uuid in gone {
                self.delete_row(t, uuid);
            }
            for (uuid, row) in rows {
                if let Some(content) = row.get(member).and_then(Json::as_object) {
                    self.store_row(t, uuid, content);
                }
            }
        }
    }

    /// Inserts a row, or makes one that is there equal to `content`, where absent columns have their defaults.
    fn store_row(&mut self, t: usize, uuid: Uuid, content: &Object) {
        let mut row = self.tables[t].default_row();
        for (c, value) in self.tables[t].parse_columns(content) {
            row[c] = value;
        }
        if self.tables[t].rows.contains_key(&uuid) {
            self.modify_row(t, uuid, row.into_iter().enumerate().collect());
        } else {
            self.insert_row(t, uuid, row);
        }
    }

    /// An RFC 7047 update: `{"old": ..., "new": ...}`.
    fn apply_rows(&mut self, tables: &Object) {
        for (name, rows) in tables.iter() {
            let Some((t, rows)) = self.rows_of(name, rows) else { continue };
            for (uuid, row) in rows {
                match row.get("new").and_then(Json::as_object) {
                    Some(content) => self.store_row(t, uuid, content),
                    None => self.delete_row(t, uuid),
                }
            }
        }
    }

    /// An update of the newer kinds: `initial`, `insert`, `modify` or `delete`.
    fn apply_differences(&mut self, tables: &Object) {
        for (name, rows) in tables.iter() {
            let Some((t, rows)) = self.rows_of(name, rows) else { continue };
            for (uuid, row) in rows {
                let content = |member: &str| row.get(member).and_then(Json::as_object);
                if let Some(content) = content("insert").or_else(|| content("initial")) {
                    self.store_row(t, uuid, content);
                } else if let Some(content) = content("modify") {
                    let values = self.tables[t].apply_diffs(uuid, content);
                    self.modify_row(t, uuid, values);
                } else if row.get("delete").is_some() {
                    self.delete_row(t, uuid);
                }
            }
        }
    }
}

impl Table {
    /// The columns in `content` that the client knows and whose values fit.
    fn parse_columns(&self, content: &Object) -> Vec<(usize, Datum)> {
        let parse = |(name, value): (&std::sync::Arc<str>, &Json)| {
            let c = *self.by_name.get(name)?;
            let datum = Datum::from_json_unchecked(&self.columns[c].schema.kind, value, None).ok()?;
            Some((c, datum))
        };
        content.iter().filter_map(parse).collect()
    }

    /// The new values of the columns whose differences are in `content`.
    fn apply_diffs(&self, uuid: Uuid, content: &Object) -> Vec<(usize, Datum)> {
        let Some(row) = self.rows.get(&uuid) else { return Vec::new() };
        let apply = |(name, value): (&std::sync::Arc<str>, &Json)| {
            let c = *self.by_name.get(name)?;
            let kind = &self.columns[c].schema.kind;
            // A difference may have fewer or more elements than the column itself.
            let loose =
                if kind.max == 1 { kind.clone().with_cardinality(0, 1) } else { kind.unconstrained() };
            let diff = Datum::from_json_unchecked(&loose, value, None).ok()?;
            Some((c, row[c].apply_diff(&diff, kind).ok()?))
        };
        content.iter().filter_map(apply).collect()
    }
}
