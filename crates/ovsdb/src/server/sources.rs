//! Servers that databases are copied from: the sources of relays, and the active server of a backup.
//!
//! A *relay* (ovsdb(7), Relay Service Model) has no file. It follows one database of its source by `monitor_cond_since`, under the
//! source's names of states, so that clients may go from one relay to another and go on where they were. Transactions that write
//! go to the source, and their answers come back after the updates that they caused. While the source is away the relay
//! serves what it has; what was to be handed on waits, but for what was sent already: nobody knows whether that has happened.
//!
//! A *backup* (Active-Backup Service Model) has files and copies all databases that both servers have, but for excluded tables.
//! It refuses to write. A backup that has nothing to copy gives up, and its server is active again.
//!
//! The machine has no sockets: [`Action::Ask`] is sent by the daemon, which tells of connections and answers.

use super::updates::{apply, read};
use super::{Action, Now, SERVER_DATABASE, Server, SessionId};
use crate::Uuid;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::monitor::Version;
use crate::schema::Schema;
use ib_base::json::{Json, Object};
use ib_base::vlog::module::{OVSDB_ERROR, RELAY, REPLICATION};
use ib_base::{vlog_err, vlog_info, vlog_warn};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A relay counts as connected for so long after its source was lost, as a restart takes its time.
const RELAY_GRACE_MS: i64 = 30_000;
/// Requests that wait for a source.
const MAX_FORWARDS: usize = 10_000;

/// Names a source; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u64);

/// How copying goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// It has given up: nothing can be copied from there.
    pub dead: bool,
    /// Databases that are being copied.
    pub databases: Vec<String>,
}

/// A client's request that the source has to answer.
struct Forward {
    session: SessionId,
    request_id: Json,
    method: &'static str,
    params: Json,
}

/// A request whose answer is to come.
enum Awaited {
    Ignored,
    ServerId,
    Databases,
    Schema(String),
    Monitor(String, Version),
    Forwarded(Forward),
}

enum Kind {
    Relay {
        database: String,
        /// Content has come over the present connection.
        synced: bool,
        /// Content has come at some time.
        known: bool,
        lost_ms: Option<i64>,
        /// What `_Server` says.
        told: bool,
        queue: VecDeque<Forward>,
    },
    Backup {
        /// None if all.
        only: Option<BTreeSet<String>>,
        exclude: BTreeMap<String, BTreeSet<String>>,
        /// Databases that can be copied, with their tables, once all schemas have come.
        ready: BTreeMap<String, Vec<(String, Vec<String>)>>,
        schemas_left: usize,
        copying: BTreeSet<String>,
        dead: bool,
    },
}

/// One server that is copied.
pub(super) struct Source {
    kind: Kind,
    connected: bool,
    next_request: i64,
    awaited: HashMap<i64, Awaited>,
}

impl Source {
    fn new(kind: Kind) -> Source {
        Source { kind, connected: false, next_request: 0, awaited: HashMap::new() }
    }

    /// True if the database may not be written to because it is a backup.
    pub fn backs_up(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Backup { only, dead: false, .. } => {
                name != SERVER_DATABASE && only.as_ref().is_none_or(|o| o.contains(name))
            }
            _ => false,
        }
    }

    /// True if the server as a whole is a backup.
    pub fn backs_up_all(&self) -> bool {
        matches!(self.kind, Kind::Backup { only: None, dead: false, .. })
    }

    /// True if a table is not to be copied.
    fn excludes(&self, database: &str, table: &str) -> bool {
        match &self.kind {
            Kind::Backup { exclude, .. } => exclude.get(database).is_some_and(|t| t.contains(table)),
            Kind::Relay { .. } => false,
        }
    }
}

/// Reads `DB:TABLE,DB:TABLE...`. The error is a sentence.
pub fn parse_excluded(text: &str) -> std::result::Result<BTreeMap<String, BTreeSet<String>>, String> {
    let mut exclude: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        match item.split_once(':') {
            Some((db, table)) if !table.is_empty() => {
                exclude.entry(db.to_string()).or_default().insert(table.to_string());
            }
            _ => return Err(format!("{item}: invalid syntax")),
        }
    }
    Ok(exclude)
}

/// An answer of a source: a result or an error.
pub type Answer = std::result::Result<Json, Json>;

impl Server {
    /// Serves a copy of another server's database, which has no file here. Fails if there is one of that name.
    pub fn add_relay(&mut self, name: &str, now: Now) -> Result<SourceId> {
        if self.databases.contains_key(name) || self.relay_of(name).is_some() {
            return Err(Error::new("ovsdb error", format!("{name}: duplicate database name")));
        }
        let id = self.add_source(Kind::Relay {
            database: name.to_string(),
            synced: false,
            known: false,
            lost_ms: None,
            told: false,
            queue: VecDeque::new(),
        });
        self.update_own(now);
        Ok(id)
    }

    /// Makes databases (all without `only`) backups of another server's, but for tables that `exclude` names.
    pub fn add_backup(
        &mut self,
        only: Option<BTreeSet<String>>,
        exclude: BTreeMap<String, BTreeSet<String>>,
    ) -> SourceId {
        self.add_source(Kind::Backup {
            only,
            exclude,
            ready: BTreeMap::new(),
            schemas_left: 0,
            copying: BTreeSet::new(),
            dead: false,
        })
    }

    fn add_source(&mut self, kind: Kind) -> SourceId {
        self.next_source += 1;
        let id = SourceId(self.next_source);
        self.sources.insert(id, Source::new(kind));
        id
    }

    /// Stops copying. A backup's databases can be written to again; a relay is gone, but for its rows, which
    /// [`Server::remove_database`] removes.
    pub fn remove_source(&mut self, id: SourceId, now: Now) {
        let Some(source) = self.sources.remove(&id) else { return };
        let waiting: Vec<Forward> = match source.kind {
            Kind::Relay { queue, .. } => queue.into_iter().chain(forwarded(source.awaited)).collect(),
            Kind::Backup { .. } => Vec::new(),
        };
        for f in waiting {
            self.reply(f.session, &f.request_id, Err(Json::from("canceled")));
        }
        self.update_own(now);
    }

    /// The source of the relay of this name.
    pub(super) fn relay_of(&self, name: &str) -> Option<SourceId> {
        let is = |s: &Source| matches!(&s.kind, Kind::Relay { database, .. } if database == name);
        self.sources.iter().find(|(_, s)| is(s)).map(|(id, _)| *id)
    }

    /// True if the database is a relay.
    pub fn is_relay(&self, name: &str) -> bool {
        self.relay_of(name).is_some()
    }

    pub(super) fn relay_names(&self) -> impl Iterator<Item = &str> {
        self.sources.values().filter_map(|s| match &s.kind {
            Kind::Relay { database, .. } => Some(database.as_str()),
            Kind::Backup { .. } => None,
        })
    }

    /// Relays, with whether they count as connected.
    pub(super) fn relays(&self, now: Now) -> impl Iterator<Item = (&str, bool)> {
        self.sources.values().filter_map(move |s| match &s.kind {
            Kind::Relay { database, .. } => Some((database.as_str(), counts_as_connected(&s.kind, now))),
            Kind::Backup { .. } => None,
        })
    }

    pub(super) fn sources_deadline(&self) -> Option<i64> {
        let lost = |s: &Source| match &s.kind {
            Kind::Relay { known: true, synced: false, lost_ms: Some(at), told: true, .. } => {
                Some(at.saturating_add(RELAY_GRACE_MS))
            }
            _ => None,
        };
        self.sources.values().filter_map(lost).min()
    }

    /// Lets `_Server` tell of relays that have lost their source for good.
    pub(super) fn run_sources(&mut self, now: Now) {
        let mut changed = false;
        for source in self.sources.values_mut() {
            let connected = counts_as_connected(&source.kind, now);
            if let Kind::Relay { told, .. } = &mut source.kind {
                changed |= *told != connected;
                *told = connected;
            }
        }
        if changed {
            self.update_own(now);
        }
    }

    /// How copying goes.
    pub fn source_status(&self, id: SourceId) -> SourceStatus {
        match self.sources.get(&id).map(|s| &s.kind) {
            Some(Kind::Backup { dead, copying, .. }) => {
                SourceStatus { dead: *dead, databases: copying.iter().cloned().collect() }
            }
            Some(Kind::Relay { database, synced, .. }) => SourceStatus {
                dead: false,
                databases: if *synced { vec![database.clone()] } else { Vec::new() },
            },
            None => SourceStatus { dead: true, databases: Vec::new() },
        }
    }

    fn ask(&mut self, id: SourceId, method: &str, params: Json, awaited: Awaited) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.next_request += 1;
        source.awaited.insert(source.next_request, awaited);
        let request = Json::object([
            ("id", Json::Integer(source.next_request)),
            ("method", Json::from(method)),
            ("params", params),
        ]);
        self.actions.push(Action::Ask(id, request.to_string().into()));
    }

    fn reconnect_source(&mut self, id: SourceId) {
        self.actions.push(Action::Reconnect(id));
    }

    /// There is a connection to the source.
    pub fn source_connected(&mut self, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.connected = true;
        source.awaited.clear();
        let relayed = match &source.kind {
            Kind::Relay { database, .. } => Some(database.clone()),
            Kind::Backup { .. } => None,
        };
        match relayed {
            Some(database) => {
                let yes = Json::array([Json::Bool(true)]);
                self.ask(id, "set_db_change_aware", yes, Awaited::Ignored);
                self.ask_schema(id, &database);
            }
            None => self.ask(id, "get_server_id", Json::array([]), Awaited::ServerId),
        }
    }

    fn ask_schema(&mut self, id: SourceId, database: &str) {
        let params = Json::array([Json::from(database)]);
        self.ask(id, "get_schema", params, Awaited::Schema(database.to_string()));
    }

    /// The connection is lost.
    pub fn source_disconnected(&mut self, id: SourceId, now: Now) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.connected = false;
        let awaited = std::mem::take(&mut source.awaited);
        match &mut source.kind {
            Kind::Relay { synced, lost_ms, .. } => {
                if std::mem::take(synced) {
                    *lost_ms = Some(now.ms);
                }
            }
            Kind::Backup { ready, schemas_left, .. } => {
                ready.clear();
                *schemas_left = 0;
            }
        }
        for f in forwarded(awaited) {
            self.reply(f.session, &f.request_id, Err(Json::from("canceled")));
        }
    }

    /// A client's request that the source has to answer; it waits until the relay knows what the source knows.
    pub(super) fn forward(
        &mut self,
        relay: SourceId,
        session: SessionId,
        request_id: Json,
        method: &'static str,
        params: Vec<Json>,
    ) {
        let forward = Forward { session, request_id, method, params: Json::Array(params) };
        let Some(source) = self.sources.get_mut(&relay) else { return };
        let Kind::Relay { synced, queue, .. } = &mut source.kind else { return };
        if *synced {
            return self.send_forward(relay, forward);
        }
        if queue.len() < MAX_FORWARDS {
            return queue.push_back(forward);
        }
        let error = Error::new("resources exhausted", "too many transactions wait for the relay's source");
        self.reply(session, &forward.request_id, Err(error.to_json()));
    }

    fn send_forward(&mut self, relay: SourceId, forward: Forward) {
        let params = forward.params.clone();
        self.ask(relay, forward.method, params, Awaited::Forwarded(forward));
    }

    /// Forgets requests of clients that wait for a source; whether there were any.
    pub(super) fn forget_forwards(&mut self, which: impl Fn(SessionId, &Json) -> bool) -> bool {
        let mut found = false;
        for source in self.sources.values_mut() {
            let Kind::Relay { queue, .. } = &mut source.kind else { continue };
            let before = queue.len();
            queue.retain(|f| !which(f.session, &f.request_id));
            found |= queue.len() != before;
            for awaited in source.awaited.values_mut() {
                if matches!(awaited, Awaited::Forwarded(f) if which(f.session, &f.request_id)) {
                    *awaited = Awaited::Ignored;
                    found = true;
                }
            }
        }
        found
    }

    /// The source has answered a request.
    pub fn source_answered(&mut self, id: SourceId, request: &Json, answer: Answer, now: Now) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let Some(awaited) = request.as_integer().and_then(|n| source.awaited.remove(&n)) else { return };
        let done = match (awaited, answer) {
            (Awaited::Forwarded(f), answer) => return self.reply(f.session, &f.request_id, answer),
            (Awaited::Ignored, _) => return,
            (Awaited::ServerId, answer) => self.server_id_came(id, answer.ok()),
            (Awaited::Databases, Ok(names)) => self.databases_came(id, &names),
            (Awaited::Schema(name), Ok(schema)) => self.schema_came(id, &name, &schema, now),
            // Older servers know fewer dialects.
            (Awaited::Monitor(name, Version::V3), Err(error)) if error.as_str() == Some("unknown method") => {
                self.ask_monitor(id, &name, Version::V1);
                return;
            }
            (Awaited::Monitor(name, version), Ok(content)) => {
                self.content_came(id, &name, version, &content, now)
            }
            (_, Err(error)) => {
                Err(Error::from_json(&error).unwrap_or_else(|| Error::tag_only("ovsdb error")))
            }
        };
        if let Err(error) = done {
            self.source_failed(id, &error);
        }
    }

    fn source_failed(&mut self, id: SourceId, error: &Error) {
        match self.sources.get(&id).map(|s| &s.kind) {
            Some(Kind::Relay { database, .. }) => vlog_warn!(RELAY, "{database}: {error}"),
            _ => vlog_warn!(REPLICATION, "{error}"),
        }
        self.reconnect_source(id);
    }

    fn give_up(&mut self, id: SourceId) {
        if let Some(Kind::Backup { dead, copying, .. }) = self.sources.get_mut(&id).map(|s| &mut s.kind) {
            *dead = true;
            copying.clear();
        }
    }

    fn server_id_came(&mut self, id: SourceId, server: Option<Json>) -> Result<()> {
        if server.as_ref().and_then(Json::as_str) == Some(&self.server_id.to_string()) {
            vlog_err!(
                OVSDB_ERROR,
                "unexpected ovsdb error: Server ID check failed: Self replicating is not allowed"
            );
            self.give_up(id);
            return Ok(());
        }
        self.ask(id, "list_dbs", Json::array([]), Awaited::Databases);
        Ok(())
    }

    fn databases_came(&mut self, id: SourceId, names: &Json) -> Result<()> {
        let names = names.as_array().ok_or_else(|| Error::syntax(names, "list of databases expected"))?;
        let here = |name: &&str| self.databases.contains_key(*name) && self.relay_of(name).is_none();
        let Some(source) = self.sources.get(&id) else { return Ok(()) };
        let wanted: Vec<String> = names
            .iter()
            .filter_map(Json::as_str)
            .filter(here)
            .filter(|name| source.backs_up(name))
            .map(str::to_string)
            .collect();
        if let Some(Kind::Backup { schemas_left, ready, .. }) = self.sources.get_mut(&id).map(|s| &mut s.kind)
        {
            ready.clear();
            *schemas_left = wanted.len();
        }
        for name in &wanted {
            self.ask_schema(id, name);
        }
        if wanted.is_empty() {
            // The databases may come; until then this server stays a backup that nobody writes to.
            vlog_info!(REPLICATION, "The active server has none of the databases that are here.");
        }
        Ok(())
    }

    fn schema_came(&mut self, id: SourceId, name: &str, schema: &Json, now: Now) -> Result<()> {
        let schema = Schema::from_json(schema)?;
        let Some(source) = self.sources.get(&id) else { return Ok(()) };
        if matches!(source.kind, Kind::Relay { .. }) {
            let same = self.databases.get(name).map(|d| d.schema.to_json() == schema.to_json());
            if same != Some(true) {
                self.databases.insert(name.to_string(), Database::new(schema));
                self.cancel_monitors_of(name);
                self.cancel_triggers_of(name);
                self.disconnect_unaware(&format!("database {name} connected to storage"), None);
                self.update_own(now);
            }
            self.ask_monitor(id, name, Version::V3);
            return Ok(());
        }
        let Some(database) = self.databases.get(name) else { return Ok(()) };
        let can = database.schema.version == schema.version || {
            vlog_info!(
                REPLICATION,
                "Schema version mismatch, checking if {name} can still be replicated or not."
            );
            let can = can_hold(&database.schema, &schema, |table| source.excludes(name, table));
            vlog_info!(REPLICATION, "{name} {} be replicated.", if can { "can" } else { "cannot" });
            can
        };
        let tables = schema.tables.iter().filter(|t| !source.excludes(name, &t.name));
        let columns = |t: &crate::TableSchema| t.user_columns().iter().map(|c| c.name.to_string()).collect();
        let tables: Vec<_> = tables.map(|t| (t.name.to_string(), columns(t))).collect();
        let Some(Kind::Backup { ready, schemas_left, .. }) = self.sources.get_mut(&id).map(|s| &mut s.kind)
        else {
            return Ok(());
        };
        if can {
            ready.insert(name.to_string(), tables);
        }
        *schemas_left = schemas_left.saturating_sub(1);
        if *schemas_left > 0 {
            return Ok(());
        }
        let names: Vec<String> = ready.keys().cloned().collect();
        for name in &names {
            self.ask_monitor(id, name, Version::V1);
        }
        if names.is_empty() {
            vlog_warn!(REPLICATION, "Nothing to replicate.");
            self.give_up(id);
        }
        Ok(())
    }

    fn ask_monitor(&mut self, id: SourceId, name: &str, version: Version) {
        let Some(source) = self.sources.get(&id) else { return };
        let Some(database) = self.databases.get(name) else { return };
        let mut requests = Object::new();
        let mut add = |table: &str, columns: Vec<Json>| {
            let request = Json::object([("columns", Json::Array(columns))]);
            requests.insert(table, Json::array([request]));
        };
        match &source.kind {
            Kind::Relay { .. } => {
                for table in &database.schema.tables {
                    add(&table.name, table.user_columns().iter().map(|c| Json::from(&*c.name)).collect());
                }
            }
            Kind::Backup { ready, .. } => {
                for (table, columns) in ready.get(name).into_iter().flatten() {
                    add(table, columns.iter().map(|c| Json::from(c.as_str())).collect());
                }
            }
        }
        let mut params = vec![Json::from(name), Json::from(name), Json::Object(requests)];
        let method = match version {
            Version::V3 => {
                params.push(Json::from(database.last_id().to_string()));
                "monitor_cond_since"
            }
            _ => "monitor",
        };
        self.ask(id, method, Json::Array(params), Awaited::Monitor(name.to_string(), version));
    }

    fn content_came(
        &mut self,
        id: SourceId,
        name: &str,
        version: Version,
        content: &Json,
        now: Now,
    ) -> Result<()> {
        let (found, state, content) = match (version, content.as_array()) {
            (Version::V3, Some([Json::Bool(found), Json::String(state), content])) => {
                (*found, Uuid::parse(state), content)
            }
            (Version::V3, _) => return Err(Error::syntax(content, "monitor_cond_since reply expected")),
            _ => (false, None, content),
        };
        let (Some(source), Some(database)) = (self.sources.get(&id), self.databases.get(name)) else {
            return Ok(());
        };
        if matches!(source.kind, Kind::Backup { .. }) {
            vlog_info!(REPLICATION, "Monitor request received. Resetting the database");
        }
        let tables = database.schema.tables.iter();
        let tables: BTreeSet<usize> =
            tables.filter(|t| !source.excludes(name, &t.name)).map(|t| t.index).collect();
        self.copy(name, content, version, (!found).then_some(&tables), state, now)?;
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        match &mut source.kind {
            Kind::Backup { copying, .. } => {
                copying.insert(name.to_string());
            }
            Kind::Relay { synced, known, lost_ms, queue, .. } => {
                (*synced, *known, *lost_ms) = (true, true, None);
                let queue = std::mem::take(queue);
                for forward in queue {
                    self.send_forward(id, forward);
                }
                self.run_sources(now);
            }
        }
        Ok(())
    }

    /// Makes rows here what another server's updates say.
    fn copy(
        &mut self,
        name: &str,
        updates: &Json,
        version: Version,
        whole: Option<&BTreeSet<usize>>,
        state: Option<Uuid>,
        now: Now,
    ) -> Result<()> {
        let Some(database) = self.databases.get_mut(name) else { return Ok(()) };
        let rows = read(database, updates, version, whole)?;
        let commit = database.change(now.wall_ms, |tables, txn| {
            apply(tables, txn, rows);
            txn.id = state.filter(|s| *s != Uuid::ZERO);
        })?;
        match (commit, state.filter(|s| *s != Uuid::ZERO)) {
            (Some(commit), _) => {
                self.committed(name, &commit, None);
                self.log_commit(name, &commit);
            }
            (None, Some(state)) => database.name_state(state),
            (None, None) => {}
        }
        Ok(())
    }

    /// The source tells something without being asked.
    pub fn source_notified(&mut self, id: SourceId, method: &str, params: &[Json], now: Now) {
        let done = match (method, params) {
            ("update", [Json::String(name), updates]) => {
                self.update_came(id, name, Version::V1, updates, None, now)
            }
            ("update3", [Json::String(name), Json::String(state), updates]) => {
                self.update_came(id, name, Version::V3, updates, Uuid::parse(state), now)
            }
            ("monitor_canceled", [Json::String(name)]) => {
                let relayed = self.relay_of(name) == Some(id);
                if let Some(Kind::Relay { synced, lost_ms, .. }) =
                    self.sources.get_mut(&id).map(|s| &mut s.kind).filter(|_| relayed)
                {
                    (*synced, *lost_ms) = (false, Some(now.ms));
                    self.ask_schema(id, name);
                }
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = done {
            self.source_failed(id, &error);
        }
    }

    fn update_came(
        &mut self,
        id: SourceId,
        name: &str,
        version: Version,
        updates: &Json,
        state: Option<Uuid>,
        now: Now,
    ) -> Result<()> {
        let expected = match self.sources.get(&id).map(|s| &s.kind) {
            Some(Kind::Relay { database, synced, .. }) => *synced && database == name,
            Some(Kind::Backup { copying, .. }) => copying.contains(name),
            None => false,
        };
        if expected { self.copy(name, updates, version, None, state, now) } else { Ok(()) }
    }
}

fn counts_as_connected(kind: &Kind, now: Now) -> bool {
    match kind {
        Kind::Relay { synced, lost_ms, .. } => {
            *synced || lost_ms.is_some_and(|at| now.ms < at.saturating_add(RELAY_GRACE_MS))
        }
        Kind::Backup { .. } => true,
    }
}

fn forwarded(awaited: HashMap<i64, Awaited>) -> Vec<Forward> {
    let mut found: Vec<(i64, Forward)> = awaited
        .into_iter()
        .filter_map(|(n, a)| match a {
            Awaited::Forwarded(f) => Some((n, f)),
            _ => None,
        })
        .collect();
    found.sort_by_key(|(n, _)| *n);
    found.into_iter().map(|(_, f)| f).collect()
}

/// True if `here` has all tables and columns that `there` has.
fn can_hold(here: &Schema, there: &Schema, excluded: impl Fn(&str) -> bool) -> bool {
    let mut can = true;
    for table in there.tables.iter().filter(|t| !excluded(&t.name)) {
        let Some(own) = here.table(&table.name) else {
            vlog_info!(REPLICATION, "Table {} not present in the local db schema", table.name);
            can = false;
            continue;
        };
        for column in table.user_columns().iter().filter(|c| own.column(&c.name).is_none()) {
            let (column, table) = (&column.name, &table.name);
            vlog_info!(REPLICATION, "Column {column} not present in the local db schema table {table}.");
            can = false;
        }
    }
    can
}
