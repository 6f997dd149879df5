//! The server as a machine: databases and client sessions; messages in, messages out.
//!
//! It does no I/O but through the databases' logs, and has no clock: each call that needs the time is told. A daemon moves bytes
//! between sockets and this machine, and asks for [`Server::deadline`].
//!
//! What a session is sent is complete JSON text, made once where several get the same. A session that does not take
//! what it is sent is not buried: once more than [`LAG_BYTES`] are under way, it gets no more updates, and the sum of the changes when it has
//! caught up ([`Server::drained`]). What it misses meanwhile is kept once for all who lag (`lag`).
//!
//! Order is as RFC 7047 wants it: before a transaction's answer, its client is told of all changes up to and
//! including the transaction.

#[cfg(test)]
mod crash;
mod flush;
mod lag;
mod locks;
mod monitors;
mod own;
mod session;
mod sources;
mod updates;

pub use own::SERVER_DATABASE;
pub use session::{Memory, SessionId};
pub use sources::{Answer, SourceId, SourceStatus, parse_excluded};

use crate::Uuid;
use crate::database::{Commit, Database, Transacted};
use crate::error::Error;
use crate::exec::Context;
use crate::rbac::Asker;
use crate::table::{FastMap, Table};
use crate::txn::Txn;
use flush::Unflushed;
use ib_base::json::{Json, Object, write_string};
use locks::Locks;
use monitors::Monitors;
use session::{Session, Trigger};
use sources::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Unsent bytes beyond which a session gets no more updates until it has taken them; less if there are many sessions.
pub const LAG_BYTES: usize = 1 << 20;
/// What all sessions together may have under way before they get no more updates, but for [`LEAST_LAG_BYTES`] each.
const ALL_LAG_BYTES: usize = 64 << 20;
/// Unsent bytes that a session may have however many others there are.
const LEAST_LAG_BYTES: usize = 16 << 10;

/// The time, as a daemon tells it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds of a clock that does not jump.
    pub ms: i64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Action {
    /// Send this text to the session.
    Send(SessionId, Arc<str>),
    /// Drop the session's connection. The text is for the log; `fault` if the peer broke the protocol.
    Close {
        /// Whose.
        session: SessionId,
        /// Why.
        why: String,
        /// The peer is at fault.
        fault: bool,
    },
    /// Send this text to a server that this one copies.
    Ask(SourceId, Arc<str>),
    /// Drop the connection to such a server and make a new one.
    Reconnect(SourceId),
}

/// Databases and sessions.
pub struct Server {
    databases: BTreeMap<String, Database>,
    sessions: FastMap<SessionId, Session>,
    monitors: Monitors,
    locks: Locks,
    server_id: Uuid,
    next_session: u64,
    actions: Vec<Action>,
    /// Counts the times that actions were taken.
    batch: u64,
    /// Answers among the actions that hold only if their database's flush succeeds.
    unflushed: Vec<Unflushed>,
    /// Databases that changed since waiting transactions were last tried.
    changed: Vec<String>,
    triggers: usize,
    /// Servers that databases are copied from.
    sources: BTreeMap<SourceId, Source>,
    next_source: u64,
    /// Sessions that have transactions which wait.
    waiting: BTreeSet<SessionId>,
    tlog: HashMap<(String, String), bool>,
    /// Lines for the log that logging of tables produced: database and table, text.
    pub tlog_lines: Vec<String>,
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl Server {
    /// A server that serves nothing but its own database.
    pub fn new() -> Server {
        let mut server = Server {
            databases: BTreeMap::new(),
            sessions: FastMap::default(),
            monitors: Monitors::default(),
            locks: Locks::default(),
            server_id: Uuid::random(),
            next_session: 0,
            actions: Vec::new(),
            batch: 1,
            unflushed: Vec::new(),
            changed: Vec::new(),
            triggers: 0,
            sources: BTreeMap::new(),
            next_source: 0,
            waiting: BTreeSet::new(),
            tlog: HashMap::new(),
            tlog_lines: Vec::new(),
        };
        server.databases.insert(SERVER_DATABASE.to_string(), Database::new(own::schema()));
        server
    }

    /// Serves another database. Fails if there is one of the same name. Clients that do not know how databases come and go are
    /// disconnected, so that they look again.
    pub fn add_database(&mut self, mut database: Database, now: Now) -> Result<(), Error> {
        let name = database.schema.name.to_string();
        if self.databases.contains_key(&name) || self.relay_of(&name).is_some() {
            return Err(Error::new("ovsdb error", format!("{name}: duplicate database name")));
        }
        database.defer_flush();
        self.disconnect_unaware(&format!("adding {name} database"), None);
        self.databases.insert(name, database);
        self.update_own(now);
        Ok(())
    }

    /// Stops serving a database and hands it over. Its monitors end; clients that do not know how databases come and go
    /// are disconnected.
    pub fn remove_database(&mut self, name: &str, now: Now) -> Option<Database> {
        if name == SERVER_DATABASE {
            return None;
        }
        self.flush();
        let relay = self.relay_of(name);
        if let Some(relay) = relay {
            self.remove_source(relay, now);
        }
        let database = match self.databases.remove(name) {
            Some(database) => database,
            // A relay that has never seen its source has no schema either.
            None => {
                relay?;
                Database::new(own::schema())
            }
        };
        self.database_gone(name, &format!("removing {name} database by user request"));
        self.update_own(now);
        Some(database)
    }

    /// The names of all databases, sorted, the server's own included.
    pub fn database_names(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> =
            self.databases.keys().map(String::as_str).chain(self.relay_names()).collect();
        names.into_iter()
    }

    /// A database by name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name)
    }

    /// A database by name, for compaction and the like. Rows must change through [`Server::change`] only.
    pub fn database_mut(&mut self, name: &str) -> Option<&mut Database> {
        self.databases.get_mut(name)
    }

    /// Changes rows from inside, and tells monitors.
    pub fn change(
        &mut self,
        name: &str,
        now: Now,
        f: impl FnOnce(&mut [Table], &mut Txn),
    ) -> Result<(), Error> {
        let Some(database) = self.databases.get_mut(name) else { return Ok(()) };
        if let Some(commit) = database.change(now.wall_ms, f)? {
            self.committed(name, &commit, None);
        }
        Ok(())
    }

    /// A client has connected. `read_only` sessions may not change anything.
    pub fn open_session(&mut self, read_only: bool) -> SessionId {
        self.open_session_as(read_only, Asker::default())
    }

    /// A client has connected that has a role or is known by name.
    pub fn open_session_as(&mut self, read_only: bool, asker: Asker) -> SessionId {
        self.next_session += 1;
        let id = SessionId(self.next_session);
        self.sessions.insert(id, Session::new(read_only, asker));
        id
    }

    /// A client is gone.
    pub fn close_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.triggers -= session.triggers.len();
        for (database, since) in session.missed {
            self.monitors.end_lag(&database, since);
        }
        for monitor in session.monitors.into_values() {
            self.monitors.leave(&monitor, id);
        }
        for (lock, owner) in self.locks.forget(id) {
            self.notify(owner, "locked", &lock);
        }
        self.forget_forwards(|session, _| session == id);
    }

    /// A session's peer has proven to be `peer`.
    pub fn identify(&mut self, id: SessionId, peer: String) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.asker.id = Some(peer);
        }
    }

    /// Changes whether a session may only read, and its role.
    pub fn set_access(&mut self, id: SessionId, read_only: bool, role: &str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.read_only = read_only;
            if session.asker.role != role {
                session.asker.role = role.to_string();
            }
        }
    }

    /// The locks that a session holds, waits for and has lost, for its status.
    pub fn locks_of(&self, id: SessionId) -> [Vec<String>; 3] {
        self.locks.of(id)
    }

    /// All that was sent to the session, as far as actions have been taken, is on its way: it may be sent more.
    pub fn drained(&mut self, id: SessionId) {
        let batch = self.batch;
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.sent_in != batch) else { return };
        session.unsent = 0;
        if session.lagging {
            self.catch_up(id);
        }
    }

    /// How many bytes the session was sent since all was last on its way.
    pub fn unsent(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |s| s.unsent)
    }

    /// What is to be done, in order, once what was answered is on the disk. Call after calls that take the time or a message: all
    /// durable transactions since the last time wait for the disk together.
    pub fn take_actions(&mut self) -> Vec<Action> {
        self.flush();
        self.batch += 1;
        std::mem::take(&mut self.actions)
    }

    /// When [`Server::run`] must be called at the latest, in the milliseconds of [`Now`]; none if only on events.
    pub fn deadline(&self) -> Option<i64> {
        let sources = self.sources_deadline();
        if self.triggers == 0 {
            return sources;
        }
        let triggers = self.waiting.iter().filter_map(|id| self.sessions.get(id)).flat_map(|s| &s.triggers);
        triggers.map(|t| t.created_ms.saturating_add(t.timeout_ms)).chain(sources).min()
    }

    /// Tries waiting transactions again whose database has changed or whose time has come.
    pub fn run(&mut self, now: Now) {
        self.run_sources(now);
        let changed = std::mem::take(&mut self.changed);
        if self.triggers == 0 {
            return;
        }
        let mut again: Vec<(SessionId, Trigger)> = Vec::new();
        for id in std::mem::take(&mut self.waiting) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let mut i = 0;
            while i < session.triggers.len() {
                let t = &session.triggers[i];
                if changed.contains(&t.database) || now.ms >= t.created_ms.saturating_add(t.timeout_ms) {
                    again.push((id, session.triggers.remove(i)));
                    self.triggers -= 1;
                } else {
                    i += 1;
                }
            }
            if !session.triggers.is_empty() {
                self.waiting.insert(id);
            }
        }
        again.sort_by_key(|(id, t)| (t.created_ms, id.0));
        for (id, trigger) in again {
            self.run_trigger(id, trigger, now);
        }
    }

    /// True if transactions wait that may go on because their database has changed.
    pub fn has_work(&self) -> bool {
        self.triggers > 0 && !self.changed.is_empty()
    }

    /// Takes a message of a client: a request, a notification or the answer to an echo.
    pub fn receive(&mut self, id: SessionId, message: Json, now: Now) {
        let Json::Object(mut message) = message else {
            return self.close(id, "received bad JSON-RPC message: message is not a JSON object");
        };
        let method = message.remove("method");
        let params = message.remove("params");
        let request_id = message.remove("id");
        let has_result = message.contains_key("result") || message.contains_key("error");
        let Some(method) = method else {
            // The answer to an echo of ours; the session's keeper has taken note of it.
            return if has_result {
                self.close_unless_echo(id, request_id)
            } else {
                self.close(id, "received bad JSON-RPC message: request must have \"method\"")
            };
        };
        let Json::String(method) = method else {
            return self.close(id, "received bad JSON-RPC message: method is not a JSON string");
        };
        let params = match params {
            Some(Json::Array(params)) => params,
            Some(_) => return self.close(id, "received bad JSON-RPC message: \"params\" must be JSON array"),
            None => return self.close(id, "received bad JSON-RPC message: request must have \"params\""),
        };
        if has_result {
            return self.close(id, "received bad JSON-RPC message: request must not have \"result\"");
        }
        match request_id {
            None | Some(Json::Null) => self.notification(id, &method, &params),
            Some(request_id) => self.request(id, &method, params, request_id, now),
        }
    }

    fn close_unless_echo(&mut self, id: SessionId, request_id: Option<Json>) {
        if request_id.as_ref().and_then(Json::as_str) != Some("echo") {
            self.close(id, "received unexpected reply message");
        }
    }

    fn close(&mut self, id: SessionId, why: &str) {
        self.push_close(id, why, true);
    }

    fn push_close(&mut self, session: SessionId, why: &str, fault: bool) {
        if let Some(closing) = self.sessions.get_mut(&session) {
            closing.closing = true;
            self.actions.push(Action::Close { session, why: why.to_string(), fault });
        }
    }

    /// A message that wants no answer.
    pub fn notification(&mut self, id: SessionId, method: &str, params: &[Json]) {
        if method == "cancel"
            && let [request_id] = params
            && let Some(session) = self.sessions.get_mut(&id)
            && let Some(i) = session.triggers.iter().position(|t| t.request_id == *request_id)
        {
            let trigger = session.triggers.remove(i);
            self.triggers -= 1;
            self.reply(id, &trigger.request_id, Err(Json::from("canceled")));
        } else if method == "cancel"
            && let [request_id] = params
            && self.forget_forwards(|session, request| session == id && request == request_id)
        {
            self.reply(id, request_id, Err(Json::from("canceled")));
        }
    }

    /// A request; its answer is among the actions, unless it waits.
    pub fn request(&mut self, id: SessionId, method: &str, params: Vec<Json>, request_id: Json, now: Now) {
        let answer: Result<Json, Json> = match method {
            "transact" => return self.transact(id, params, request_id, now),
            "monitor" | "monitor_cond" | "monitor_cond_since" => {
                return self.monitor(id, method, Json::Array(params), &request_id);
            }
            "monitor_cond_change" => return self.monitor_cond_change(id, Json::Array(params), &request_id),
            "monitor_cancel" => self.monitor_cancel(id, &params),
            "echo" => Ok(Json::Array(params)),
            "list_dbs" => Ok(Json::array(self.database_names().map(Json::from))),
            "get_schema" => self
                .named_database(method, &params)
                .map(|name| self.databases[&name].schema.to_json())
                .map_err(|e| e.to_json()),
            "get_server_id" => Ok(Json::from(self.server_id.to_string())),
            "lock" | "steal" | "unlock" if self.locks_refused(id) => {
                Err(Json::from("lock and unlock methods not allowed, DB server is read only."))
            }
            "lock" | "steal" => self.lock(id, method, params),
            "unlock" => self.unlock(id, params),
            "set_db_change_aware" => self.set_db_change_aware(id, params),
            "convert" => return self.convert(id, params, request_id, now),
            _ => Err(Json::from("unknown method")),
        };
        self.reply(id, &request_id, answer);
    }

    /// The database that a request's first parameter names.
    fn named_database(&self, method: &str, params: &[Json]) -> Result<String, Error> {
        let json = || Json::Array(params.to_vec());
        let Some(name) = params.first().and_then(Json::as_str) else {
            return Err(Error::syntax(&json(), format!("{method} request params must begin with <db-name>")));
        };
        if !self.databases.contains_key(name) && self.relay_of(name).is_some() {
            let message = format!(
                "{method} request specifies database {name} which is not yet available because it has not completed joining \
                 its cluster"
            );
            return Err(Error::syntax_plain(message).with_tag("database not available"));
        }
        if !self.databases.contains_key(name) {
            let message = format!("{method} request specifies unknown database {name}");
            return Err(Error::syntax_tagged(&json(), "unknown database", message));
        }
        Ok(name.to_string())
    }

    fn transact(&mut self, id: SessionId, mut params: Vec<Json>, request_id: Json, now: Now) {
        let name = match self.named_database("transact", &params) {
            Ok(name) => name,
            Err(error) => return self.reply(id, &request_id, Err(error.to_json())),
        };
        if self.is_waiting(id, &request_id) {
            let error = Error::syntax(&Json::Array(params), "transact: duplicate request ID");
            return self.reply(id, &request_id, Err(error.to_json()));
        }
        if let Some(relay) = self.relay_of(&name)
            && params.iter().skip(1).any(writes)
        {
            return self.forward(relay, id, request_id, "transact", params);
        }
        params.remove(0);
        let trigger = Trigger {
            request_id,
            database: name,
            operations: params,
            created_ms: now.ms,
            timeout_ms: i64::MAX,
        };
        self.run_trigger(id, trigger, now);
    }

    /// True if a request of this name of the session's waits.
    fn is_waiting(&self, id: SessionId, request_id: &Json) -> bool {
        self.sessions.get(&id).is_some_and(|s| s.triggers.iter().any(|t| t.request_id == *request_id))
    }

    fn run_trigger(&mut self, id: SessionId, mut trigger: Trigger, now: Now) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(database) = self.databases.get_mut(&trigger.database) else { return };
        let locks = &self.locks;
        let holds_lock = |name: &str| locks.owner(name) == Some(id);
        let context = Context {
            holds_lock: &holds_lock,
            read_only: session.read_only || self.sources.values().any(|s| s.backs_up(&trigger.database)),
            asker: Some(&session.asker),
            reserved: (trigger.database == SERVER_DATABASE).then_some(SERVER_DATABASE),
            elapsed_ms: Some(now.ms - trigger.created_ms),
        };
        match database.transact(&trigger.operations, &context, now.wall_ms) {
            Transacted::Wait { timeout_ms } => {
                trigger.timeout_ms = timeout_ms;
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.triggers.push(trigger);
                    self.triggers += 1;
                    self.waiting.insert(id);
                }
            }
            Transacted::Done { results, commit } => {
                if let Some(commit) = &commit {
                    self.committed(&trigger.database, commit, Some(id));
                    self.log_commit(&trigger.database, commit);
                }
                self.reply_text(id, &trigger.request_id, &results);
                self.answered(&trigger.database);
            }
        }
    }

    /// Tells monitors of a commit. The session that made it is told even if it lags, because its answer follows.
    fn committed(&mut self, database: &str, commit: &Arc<Commit>, by: Option<SessionId>) {
        if self.triggers > 0 && !self.changed.iter().any(|n| n == database) {
            self.changed.push(database.to_string());
        }
        self.monitor_commit(database, commit);
        if let Some(id) = by
            && self.sessions.get(&id).is_some_and(|s| s.lagging)
        {
            self.catch_up(id);
        }
    }

    fn lock(&mut self, id: SessionId, method: &str, params: Vec<Json>) -> Result<Json, Json> {
        let Some(name) = lock_name(&params) else {
            let message = format!("{method} request params must be <id>");
            return Err(Error::syntax(&Json::Array(params), message).to_json());
        };
        if self.locks.wants(name, id) {
            let message = format!("must issue \"unlock\" before new \"{method}\"");
            return Err(Error::syntax(&Json::Array(params), message).to_json());
        }
        let (locked, victim) = self.locks.lock(name, id, method == "steal");
        if let Some(victim) = victim {
            self.notify(victim, "stolen", name);
        }
        Ok(Json::object([("locked", Json::Bool(locked))]))
    }

    fn unlock(&mut self, id: SessionId, params: Vec<Json>) -> Result<Json, Json> {
        let Some(name) = lock_name(&params) else {
            return Err(Error::syntax(&Json::Array(params), "unlock request params must be <id>").to_json());
        };
        if !self.locks.wants(name, id) {
            let message = "unlock: \"unlock\" without \"lock\" or \"steal\"";
            return Err(Error::syntax(&Json::Array(params), message).to_json());
        }
        if let Some(owner) = self.locks.unlock(name, id) {
            self.notify(owner, "locked", name);
        }
        Ok(Json::Object(Object::new()))
    }

    fn set_db_change_aware(&mut self, id: SessionId, params: Vec<Json>) -> Result<Json, Json> {
        let [Json::Bool(aware)] = params[..] else {
            let message = "set_db_change_aware: true or false parameter expected";
            return Err(Error::syntax(&Json::Array(params), message).to_json());
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.db_change_aware = aware;
        }
        Ok(Json::Object(Object::new()))
    }

    fn convert(&mut self, id: SessionId, params: Vec<Json>, request_id: Json, now: Now) {
        // What waits for the disk must not wait for a file that is no more.
        self.flush();
        if self.is_waiting(id, &request_id) && self.named_database("convert", &params).is_ok() {
            let error = Error::syntax(&Json::Array(params), "convert: duplicate request ID");
            return self.reply(id, &request_id, Err(error.to_json()));
        }
        let relay = params.first().and_then(Json::as_str).and_then(|name| self.relay_of(name));
        if let Some(relay) = relay.filter(|_| self.sessions.get(&id).is_some_and(|s| !s.read_only)) {
            return self.forward(relay, id, request_id, "convert", params);
        }
        match self.try_convert(id, params, now) {
            Ok(name) => {
                // Monitors describe columns of a schema that is no more. What waits hears of it after the news.
                self.cancel_monitors_of(&name);
                self.reply(id, &request_id, Ok(Json::Object(Object::new())));
                self.cancel_triggers_of(&name);
                self.disconnect_unaware(&format!("committed {name} database schema conversion"), Some(id));
                self.update_own(now);
            }
            Err(error) => self.reply(id, &request_id, Err(error.to_json())),
        }
    }

    /// Converts a database; which one.
    fn try_convert(&mut self, id: SessionId, params: Vec<Json>, now: Now) -> Result<String, Error> {
        let name = self.named_database("convert", &params)?;
        let [_, schema] = &params[..] else {
            return Err(Error::syntax(&Json::Array(params), "array expected"));
        };
        let schema = crate::Schema::from_json(schema)?;
        if *schema.name != *name {
            let message = format!("new schema name ({}) does not match database name ({name})", schema.name);
            return Err(Error::new("invalid parameters", message));
        }
        let read_only = self.sessions.get(&id).is_none_or(|s| s.read_only);
        if read_only || name == SERVER_DATABASE {
            let message = "convert operation not allowed when database server is in read only mode";
            return Err(Error::new("not allowed", message));
        }
        if let Some(database) = self.databases.get_mut(&name) {
            database.convert(schema, now.wall_ms)?;
        }
        Ok(name)
    }

    /// Ends what depends on a database that was removed or whose schema changed.
    fn database_gone(&mut self, name: &str, why: &str) {
        self.cancel_monitors_of(name);
        self.cancel_triggers_of(name);
        self.disconnect_unaware(why, None);
    }

    /// Ends all monitors of a database. Sessions that do not know how databases come and go are not told; they lose their
    /// connection instead.
    fn cancel_monitors_of(&mut self, name: &str) {
        self.monitors.forget_lag(name);
        for id in self.sessions_in_order() {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let aware = session.db_change_aware;
            session.missed.remove(name);
            let gone: Vec<String> =
                session.monitors.iter().filter(|(_, m)| m.database == name).map(|(k, _)| k.clone()).collect();
            for key in &gone {
                let Some(monitor) = self.sessions.get_mut(&id).and_then(|s| s.monitors.remove(key)) else {
                    continue;
                };
                self.monitors.leave(&monitor, id);
                if aware {
                    let text = format!(
                        "{{\"id\":null,\"method\":\"monitor_canceled\",\"params\":[{}]}}",
                        monitor.id
                    );
                    self.send(id, text.into());
                }
            }
        }
    }

    /// Ends all transactions that wait for a database to change; told as [`Server::cancel_monitors_of`] tells.
    fn cancel_triggers_of(&mut self, name: &str) {
        for id in self.sessions_in_order() {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let aware = session.db_change_aware;
            let (gone, kept): (Vec<Trigger>, _) =
                std::mem::take(&mut session.triggers).into_iter().partition(|t| t.database == name);
            session.triggers = kept;
            self.triggers -= gone.len();
            for trigger in gone.iter().filter(|_| aware) {
                self.reply(id, &trigger.request_id, Err(Json::from("canceled")));
            }
        }
    }

    /// All sessions, the eldest first.
    fn sessions_in_order(&self) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Answers with a result that is JSON text already.
    fn reply_text(&mut self, id: SessionId, request_id: &Json, result: &str) {
        let mut text = String::with_capacity(result.len() + 64);
        text.push_str("{\"id\":");
        request_id.write_to(&mut text);
        text.push_str(",\"result\":");
        text.push_str(result);
        text.push_str(",\"error\":null}");
        self.send(id, text.into());
    }

    /// Closes sessions that do not know how databases come and go: what they have learned is void.
    ///
    /// The eldest goes first, which shows where locks pass on; after a request of `by`, those that are younger than it.
    fn disconnect_unaware(&mut self, why: &str, by: Option<SessionId>) {
        let unaware = self.sessions.iter().filter(|(_, s)| !s.db_change_aware);
        let mut ids: Vec<SessionId> = unaware.map(|(id, _)| *id).collect();
        ids.sort_unstable_by_key(|id| (by.is_some_and(|by| *id <= by), *id));
        for id in ids {
            self.push_close(id, why, false);
        }
    }

    /// True if the session may not take locks, because it or the whole server only reads.
    fn locks_refused(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|s| s.read_only) || self.sources.values().any(Source::backs_up_all)
    }

    fn reply(&mut self, id: SessionId, request_id: &Json, answer: Result<Json, Json>) {
        let mut text = String::from("{\"id\":");
        request_id.write_to(&mut text);
        match answer {
            Ok(result) => {
                text.push_str(",\"result\":");
                result.write_to(&mut text);
                text.push_str(",\"error\":null}");
            }
            Err(error) => {
                text.push_str(",\"error\":");
                error.write_to(&mut text);
                text.push('}');
            }
        }
        self.send(id, text.into());
    }

    fn notify(&mut self, id: SessionId, method: &str, lock: &str) {
        let mut text = format!("{{\"id\":null,\"method\":\"{method}\",\"params\":[");
        write_string(&mut text, lock);
        text.push_str("]}");
        self.send(id, text.into());
    }

    fn send(&mut self, id: SessionId, text: Arc<str>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unsent += text.len();
            session.sent_in = self.batch;
            self.actions.push(Action::Send(id, text));
        }
    }

    /// Switches logging of a table's changes. False if there is no such table.
    pub fn set_tlog(&mut self, database: &str, table: &str, on: bool) -> bool {
        let exists = self.databases.get(database).is_some_and(|d| d.schema.table(table).is_some());
        if exists {
            self.tlog.insert((database.to_string(), table.to_string()), on);
        }
        exists
    }

    /// True if changes of the table are logged.
    pub fn tlog(&self, database: &str, table: &str) -> bool {
        self.tlog.get(&(database.to_string(), table.to_string())).copied().unwrap_or(false)
    }

    fn log_commit(&mut self, database: &str, commit: &Commit) {
        if self.tlog.values().all(|on| !on) {
            return;
        }
        let Some(db) = self.databases.get(database) else { return };
        for change in &commit.changes {
            let schema = &db.schema.tables[change.table];
            if !self.tlog.get(&(database.to_string(), schema.name.to_string())).copied().unwrap_or(false) {
                continue;
            }
            let verb = match (&change.old, &change.new) {
                (None, _) => "inserted",
                (_, None) => "deleted",
                _ => "updated",
            };
            let Some(row) = change.new.as_ref().or(change.old.as_ref()) else { continue };
            let mut line = format!("table:{},op:{verb}", schema.name);
            for column in &schema.columns {
                line.push_str(&format!(",{}:{}", column.name, row.get(column.index).to_text(&column.kind)));
            }
            self.tlog_lines.push(line);
        }
    }
}

/// True if an operation may change something, so that a relay has to hand it on.
fn writes(operation: &Json) -> bool {
    let op = operation.get("op").and_then(Json::as_str);
    !matches!(op, None | Some("select" | "wait" | "assert" | "abort"))
}

fn lock_name(params: &[Json]) -> Option<&str> {
    match params {
        [Json::String(name)] if crate::parser::is_id(name) => Some(name),
        _ => None,
    }
}
