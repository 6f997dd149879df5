//! Remotes: what the server listens on and connects to, and the sessions that come of it.
//!
//! Targets come from the command line, the control socket or the configuration file; a target of the form
//! `db:DB,TABLE,COLUMN` stands for those that the column names, and follows it. [`Remotes::reconfigure`] turns the wish into
//! listeners and sessions; [`Remotes::ready`] moves messages when a descriptor is ready; [`Remotes::carry_out`] sends what
//! the server has to say, everything for one session in one write.
//!
//! A client that sends requests and does not read the answers is not read from until it does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::sources::Sources;
use ib_base::errno::strerror;
use ib_base::json::Json;
use ib_base::time::Instant;
use ib_base::vlog::module::{OVSDB_JSONRPC_SERVER, OVSDB_SERVER};
use ib_base::{vlog_err_rl, vlog_info, vlog_warn, vlog_warn_rl};
use ib_ovsdb::database::Database;
use ib_ovsdb::rbac::Asker;
use ib_ovsdb::server::{Action, Now, Server, SessionId};
use ib_ovsdb::table::{FastMap, Row};
use ib_ovsdb::{Atom, AtomicType, Datum, TableSchema, Uuid};
use ib_stream::jsonrpc::Message;
use ib_stream::reactor::{Handle, Key};
use ib_stream::session::Session;
use ib_stream::stream::{Listener, OVSDB_PORT, Stream, is_passive};
use ib_stream::tls;

/// Messages taken from one session before the others get their turn.
const BURST: usize = 64;
/// Unsent bytes beyond which a session's requests wait, so that nobody fills the memory or the others' time with answers that he
/// does not take.
const MAX_BACKLOG: usize = 64 << 10;
/// How often status columns are written.
const STATUS_MS: u64 = 2_500;
/// How soon a listener that failed is tried again.
const RETRY_MS: u64 = 1_000;

/// How to treat the sessions of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteOptions {
    pub probe_ms: u64,
    pub max_backoff_ms: u64,
    pub read_only: bool,
    /// What clients may do, by the database's rules; empty is everything.
    pub role: String,
    pub dscp: Option<u8>,
}

impl RemoteOptions {
    /// Local peers are not probed.
    pub(crate) fn default_for(target: &str) -> RemoteOptions {
        let local = target.starts_with("unix:") || target.starts_with("punix:");
        RemoteOptions {
            probe_ms: if local { 0 } else { 5_000 },
            max_backoff_ms: 8_000,
            read_only: false,
            role: String::new(),
            dscp: None,
        }
    }
}

/// A row that configured a remote and wants to know how it does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct StatusRow {
    database: String,
    table: usize,
    row: Uuid,
}

/// New data of a row: its table, itself, columns.
type RowUpdate = (usize, Uuid, Vec<(usize, Datum)>);

struct Remote {
    options: RemoteOptions,
    rows: Vec<StatusRow>,
    listener: Option<Listener>,
    retry: Option<Instant>,
    sessions: BTreeSet<Key>,
}

struct Connection {
    session: Session,
    remote: String,
    id: Option<SessionId>,
    /// The server has been told who the peer is.
    identified: bool,
    seqno: u32,
    out: String,
    timer: Option<Instant>,
    /// Made by us: it reconnects rather than end.
    active: bool,
}

/// All remotes and sessions.
pub(crate) struct Remotes {
    handle: Handle,
    configured: BTreeMap<String, Option<RemoteOptions>>,
    remotes: BTreeMap<String, Remote>,
    listeners: HashMap<Key, String>,
    connections: FastMap<Key, Connection>,
    by_session: FastMap<SessionId, Key>,
    timers: BTreeSet<(Instant, Key)>,
    /// What databases that configure remotes had committed when they were looked at.
    seen: BTreeMap<String, Option<u64>>,
    dirty: bool,
    complaints: BTreeSet<String>,
    /// Options of TLS as they were given: some may name a column.
    tls: tls::Settings,
    status_at: Instant,
}

/// The parts of `db:DB,TABLE,COLUMN`.
fn parse_db_target(target: &str) -> Result<Option<[&str; 3]>, String> {
    let Some(rest) = target.strip_prefix("db:") else { return Ok(None) };
    let parts: Vec<&str> = rest.split(',').collect();
    match parts[..] {
        [db, table, column, ..] if parts[..3].iter().all(|p| !p.is_empty()) => Ok(Some([db, table, column])),
        _ => Err(format!("\"{target}\": invalid syntax\n")),
    }
}

/// Looks up what `db:DB,TABLE,COLUMN` names.
fn find_column<'a>(target: &str, server: &'a Server) -> Result<Option<(&'a Database, usize, usize)>, String> {
    let Some([db, table_name, column_name]) = parse_db_target(target)? else { return Ok(None) };
    let database = server.database(db).ok_or_else(|| format!("\"{target}\": no database named {db}\n"))?;
    let table = database
        .schema
        .table(table_name)
        .ok_or_else(|| format!("\"{target}\": no table named {table_name}\n"))?;
    let column = table
        .column(column_name)
        .ok_or_else(|| format!("\"{target}\": table \"{table_name}\" has no column \"{column_name}\"\n"))?;
    Ok(Some((database, table.index, column.index)))
}

/// As [`find_column`], for a column of strings.
fn find_string_column<'a>(
    target: &str,
    server: &'a Server,
) -> Result<Option<(&'a Database, usize, usize)>, String> {
    let found = find_column(target, server)?;
    if let Some((database, table, column)) = found {
        let table = &database.tables[table].schema;
        let column = &table.columns[column];
        if column.kind.key.kind != AtomicType::String || column.kind.is_map() {
            return Err(format!(
                "\"{target}\": table \"{}\" column \"{}\" is not string or set of strings\n",
                table.name, column.name
            ));
        }
    }
    Ok(found)
}

impl Remotes {
    pub(crate) fn new(handle: &Handle) -> Remotes {
        Remotes {
            handle: handle.clone(),
            configured: BTreeMap::new(),
            remotes: BTreeMap::new(),
            listeners: HashMap::new(),
            connections: FastMap::default(),
            by_session: FastMap::default(),
            timers: BTreeSet::new(),
            seen: BTreeMap::new(),
            dirty: true,
            complaints: BTreeSet::new(),
            tls: tls::Settings::default(),
            status_at: Instant::ZERO,
        }
    }

    /// The way to the loop.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sets the options of TLS, which may be `db:DB,TABLE,COLUMN`; the error tells of one that names no column of strings.
    pub(crate) fn set_tls(&mut self, mut settings: tls::Settings, server: &Server) -> Result<(), String> {
        for field in settings.fields_mut() {
            find_string_column(field, server)?;
        }
        self.tls = settings;
        self.dirty = true;
        Ok(())
    }

    /// Adds a target; nothing if it is there already.
    pub(crate) fn add(&mut self, target: &str, server: &Server) -> Result<(), String> {
        find_column(target, server)?;
        self.configured.entry(target.to_string()).or_insert(None);
        self.dirty = true;
        Ok(())
    }

    /// Replaces all targets.
    pub(crate) fn replace(
        &mut self,
        targets: Vec<(String, RemoteOptions)>,
        server: &Server,
    ) -> Result<(), String> {
        for (target, _) in &targets {
            find_column(target, server)?;
        }
        self.configured = targets.into_iter().map(|(target, options)| (target, Some(options))).collect();
        self.dirty = true;
        Ok(())
    }

    /// Removes a target. False if it is not there.
    pub(crate) fn remove(&mut self, target: &str) -> bool {
        self.dirty = true;
        self.configured.remove(target).is_some()
    }

    /// The targets, sorted.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.configured.keys().cloned().collect()
    }

    /// Bytes that wait to be sent, of all sessions.
    pub(crate) fn backlog(&self) -> usize {
        self.connections.values().map(|c| c.session.backlog()).sum()
    }

    /// Drops all sessions; those that we made connect again.
    pub(crate) fn reconnect(&mut self, server: &mut Server) {
        let keys: Vec<Key> = self.connections.keys().copied().collect();
        for key in keys {
            self.hang_up(key, server);
        }
    }

    /// Stops listening and drops all sessions.
    pub(crate) fn close(&mut self) {
        self.connections.clear();
        self.remotes.clear();
    }

    /// Brings listeners and sessions in line with the targets and with the databases that they name.
    pub(crate) fn reconfigure(&mut self, server: &mut Server) {
        let now = self.handle.now();
        let stale = self.seen.iter().any(|(db, seen)| server.database(db).map(|d| d.commits) != *seen);
        let retry = self.remotes.values().any(|r| r.retry.is_some_and(|at| now >= at));
        if !self.dirty && !stale && !retry {
            return;
        }
        self.dirty = false;
        let mut wanted: BTreeMap<String, (RemoteOptions, Vec<StatusRow>)> = BTreeMap::new();
        let mut complaints = BTreeSet::new();
        self.seen.clear();
        for (target, options) in &self.configured {
            match find_column(target, server) {
                Ok(None) => {
                    let options = options.clone().unwrap_or_else(|| RemoteOptions::default_for(target));
                    wanted.entry(target.clone()).or_insert((options, Vec::new()));
                }
                Ok(Some((database, table, column))) => from_column(database, table, column, &mut wanted),
                Err(message) => {
                    complaints.insert(message.trim_end().to_string());
                }
            }
            if let Ok(Some([db, ..])) = parse_db_target(target) {
                self.seen.insert(db.to_string(), server.database(db).map(|d| d.commits));
            }
        }
        for target in self.tls.fields_mut() {
            if let Ok(Some([db, ..])) = parse_db_target(target) {
                self.seen.insert(db.to_string(), server.database(db).map(|d| d.commits));
            }
        }
        tls::configure(resolve(&self.tls, server, &mut complaints));
        for complaint in complaints.difference(&self.complaints) {
            vlog_warn!(OVSDB_SERVER, "{complaint}");
        }
        self.complaints = complaints;
        let gone: Vec<String> = self.remotes.keys().filter(|t| !wanted.contains_key(*t)).cloned().collect();
        for target in gone {
            vlog_info!(OVSDB_JSONRPC_SERVER, "{target}: remote deconfigured");
            if let Some(remote) = self.remotes.remove(&target) {
                if let Some(listener) = &remote.listener {
                    self.listeners.remove(&listener.key());
                }
                for key in remote.sessions {
                    self.drop_connection(key, server);
                }
            }
        }
        for (target, (options, rows)) in wanted {
            self.want(&target, options, rows, now, server);
        }
    }

    fn want(
        &mut self,
        target: &str,
        options: RemoteOptions,
        rows: Vec<StatusRow>,
        now: Instant,
        server: &mut Server,
    ) {
        let remote = self.remotes.entry(target.to_string()).or_insert_with(|| Remote {
            options: options.clone(),
            rows: Vec::new(),
            listener: None,
            retry: Some(now),
            sessions: BTreeSet::new(),
        });
        remote.rows = rows;
        if remote.options != options {
            remote.options = options;
            for key in remote.sessions.clone() {
                let Some(c) = self.connections.get_mut(&key) else { continue };
                apply_options(&mut c.session, &self.remotes[target].options);
                if let Some(id) = c.id {
                    let options = &self.remotes[target].options;
                    server.set_access(id, options.read_only, &options.role);
                }
                self.schedule(key);
            }
        }
        let Some(remote) = self.remotes.get_mut(target) else { return };
        if remote.retry.is_none_or(|at| now < at) {
            return;
        }
        remote.retry = None;
        if is_passive(target) {
            let key = self.handle.new_key();
            match Listener::open(target, OVSDB_PORT, &self.handle, key) {
                Ok(mut listener) => {
                    if let Some(dscp) = remote.options.dscp {
                        listener.set_dscp(dscp);
                    }
                    remote.listener = Some(listener);
                    self.listeners.insert(key, target.to_string());
                }
                Err(e) => {
                    vlog_err_rl!(OVSDB_JSONRPC_SERVER, (1, 5), "{target}: listen failed: {}", strerror(&e));
                    remote.retry = Some(now.plus_ms(RETRY_MS));
                }
            }
        } else {
            let key = self.handle.new_key();
            let mut session = Session::open(&[target.to_string()], true, &self.handle, key);
            session.set_dscp(remote.options.dscp);
            apply_options(&mut session, &remote.options);
            remote.sessions.insert(key);
            self.adopt(key, session, target, true);
        }
    }

    fn adopt(&mut self, key: Key, session: Session, remote: &str, active: bool) {
        let seqno = session.seqno().wrapping_sub(1);
        let connection = Connection {
            session,
            remote: remote.to_string(),
            id: None,
            identified: false,
            seqno,
            out: String::new(),
            timer: None,
            active,
        };
        self.connections.insert(key, connection);
    }

    /// Serves a descriptor that is ready.
    pub(crate) fn ready(&mut self, key: Key, server: &mut Server, now: Now) {
        if let Some(target) = self.listeners.get(&key).cloned() {
            self.accept(&target, server, now);
        } else {
            self.pump(key, server, now);
        }
    }

    fn accept(&mut self, target: &str, server: &mut Server, now: Now) {
        for _ in 0..BURST {
            let Some(remote) = self.remotes.get_mut(target) else { return };
            let Some(listener) = &mut remote.listener else { return };
            let accepted = listener.accept();
            for _ in 0..listener.take_refused() {
                let why = strerror(&std::io::Error::from_raw_os_error(tls::ENOPROTOOPT));
                vlog_warn_rl!(OVSDB_JSONRPC_SERVER, (1, 5), "{target}: accept failed: {why}");
            }
            match accepted {
                Ok(stream) => {
                    let key = stream.key();
                    let mut session = Session::from_stream(stream, &self.handle);
                    apply_options(&mut session, &remote.options);
                    remote.sessions.insert(key);
                    self.adopt(key, session, target, false);
                    self.pump(key, server, now);
                }
                Err(_) => return,
            }
        }
        if let Some(listener) = self.remotes.get(target).and_then(|r| r.listener.as_ref()) {
            self.handle.wake(listener.key());
        }
    }

    /// Lets a session do what it has to, and hands its messages to the server.
    fn pump(&mut self, key: Key, server: &mut Server, now: Now) {
        let Some(c) = self.connections.get_mut(&key) else { return };
        c.session.run();
        self.follow(key, server);
        for n in 0.. {
            let Some(c) = self.connections.get_mut(&key) else { return };
            let Some(id) = c.id else { break };
            if n == BURST {
                self.handle.wake(key);
                break;
            }
            if server.unsent(id) > MAX_BACKLOG {
                if c.session.backlog() == 0 {
                    // The answers of this turn: they may go at once.
                    self.handle.wake(key);
                }
                // Else the descriptor becomes writable when the client has read.
                break;
            }
            match c.session.recv() {
                Some(Message::Request { method, params, id: request }) => {
                    let Json::Array(params) = params else { continue };
                    // A session begins when it is accepted; who its peer is has shown when it first asks for something.
                    if !std::mem::replace(&mut c.identified, true)
                        && let Some(peer) = c.session.stream().and_then(Stream::peer_id)
                    {
                        server.identify(id, peer);
                    }
                    server.request(id, &method, params, request, now);
                }
                Some(Message::Notify { method, params }) => {
                    server.notification(id, &method, params.as_array().unwrap_or_default());
                }
                Some(Message::Reply { .. } | Message::Error { .. }) => {
                    vlog_warn_rl!(
                        OVSDB_JSONRPC_SERVER,
                        (5, 5),
                        "{}: received unexpected reply message",
                        c.session.name()
                    );
                    self.hang_up(key, server);
                    return;
                }
                None => break,
            }
        }
        self.follow(key, server);
        if self.connections.get(&key).is_some_and(|c| !c.session.is_alive()) {
            self.drop_connection(key, server);
            return;
        }
        self.schedule(key);
    }

    /// Tells the server when a connection has begun or ended, or has taken all that was sent.
    fn follow(&mut self, key: Key, server: &mut Server) {
        let Some(c) = self.connections.get_mut(&key) else { return };
        if c.session.seqno() != c.seqno {
            c.seqno = c.session.seqno();
            c.out.clear();
            if let Some(id) = c.id.take() {
                self.by_session.remove(&id);
                server.close_session(id);
            }
            if c.session.is_connected() {
                let options = self.remotes.get(&c.remote).map(|r| &r.options);
                let read_only = options.is_some_and(|o| o.read_only);
                let role = options.map(|o| o.role.clone()).unwrap_or_default();
                let id = server.open_session_as(read_only, Asker { role, id: None });
                c.identified = false;
                c.id = Some(id);
                self.by_session.insert(id, key);
            }
        } else if let Some(id) = c.id
            && c.session.backlog() == 0
            && c.out.is_empty()
        {
            server.drained(id);
        }
    }

    fn schedule(&mut self, key: Key) {
        let Some(c) = self.connections.get_mut(&key) else { return };
        let Some(at) = c.session.deadline() else { return };
        // A timer that is too early finds that out when it rings; most traffic then leaves timers alone.
        if c.timer.is_none_or(|timer| at < timer) {
            if let Some(timer) = c.timer.replace(at) {
                self.timers.remove(&(timer, key));
            }
            self.timers.insert((at, key));
        }
    }

    /// Runs the sessions whose time has come.
    pub(crate) fn run_timers(&mut self, now: Instant, server: &mut Server, server_now: Now) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, key));
            if let Some(c) = self.connections.get_mut(&key) {
                c.timer = None;
                self.pump(key, server, server_now);
            }
        }
    }

    /// When [`Remotes::run_timers`], [`Remotes::reconfigure`] or [`Remotes::update_status`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let retry = self.remotes.values().filter_map(|r| r.retry).min();
        let status = self.remotes.values().any(|r| !r.rows.is_empty()).then_some(self.status_at);
        [timer, retry, status].into_iter().flatten().min()
    }

    fn drop_connection(&mut self, key: Key, server: &mut Server) {
        let Some(c) = self.connections.remove(&key) else { return };
        if let Some(timer) = c.timer {
            self.timers.remove(&(timer, key));
        }
        if let Some(id) = c.id {
            self.by_session.remove(&id);
            server.close_session(id);
        }
        if let Some(remote) = self.remotes.get_mut(&c.remote) {
            remote.sessions.remove(&key);
        }
    }

    /// Ends a connection. One that we made begins anew.
    fn hang_up(&mut self, key: Key, server: &mut Server) {
        let Some(c) = self.connections.get_mut(&key) else { return };
        if c.active {
            c.session.force_reconnect();
            c.session.run();
            self.follow(key, server);
            self.schedule(key);
        } else {
            self.drop_connection(key, server);
        }
    }

    /// Does what the server wants done.
    pub(crate) fn carry_out(&mut self, server: &mut Server, sources: &mut Sources) {
        loop {
            let actions = server.take_actions();
            if actions.is_empty() {
                return;
            }
            let mut touched: Vec<Key> = Vec::new();
            let mut hung_up: Vec<Key> = Vec::new();
            for action in actions {
                match action {
                    Action::Send(id, text) => {
                        let Some(&key) = self.by_session.get(&id) else { continue };
                        let Some(c) = self.connections.get_mut(&key) else { continue };
                        if c.out.is_empty() {
                            touched.push(key);
                        }
                        c.out.push_str(&text);
                    }
                    Action::Close { session, why, fault } => {
                        let Some(&key) = self.by_session.get(&session) else { continue };
                        let name = self.connections.get(&key).map(|c| c.session.name().to_string());
                        let name = name.unwrap_or_default();
                        if fault {
                            vlog_warn_rl!(OVSDB_JSONRPC_SERVER, (5, 5), "{name}: {why}");
                        } else {
                            vlog_info!(OVSDB_JSONRPC_SERVER, "{name}: disconnecting ({why})");
                        }
                        hung_up.push(key);
                    }
                    Action::Ask(id, text) => sources.send(id, &text),
                    Action::Reconnect(id) => sources.reconnect(id),
                }
            }
            for key in touched {
                if let Some(c) = self.connections.get_mut(&key)
                    && !c.out.is_empty()
                {
                    let out = std::mem::take(&mut c.out);
                    c.session.send_text(out);
                    self.follow(key, server);
                }
            }
            // What was said before the connection was to end still goes out, as far as the peer takes it.
            for key in hung_up {
                self.hang_up(key, server);
                // So does what the end of one means to those whose turn comes next, such as a lock.
                self.carry_out(server, sources);
            }
        }
    }

    /// Writes into the rows that configured remotes how these do.
    pub(crate) fn update_status(&mut self, now: Instant, server: &mut Server, server_now: Now) {
        if now < self.status_at || self.remotes.values().all(|r| r.rows.is_empty()) {
            return;
        }
        self.status_at = now.plus_ms(STATUS_MS);
        let mut updates: BTreeMap<String, Vec<RowUpdate>> = BTreeMap::new();
        for (target, remote) in &self.remotes {
            let (connected, status) = self.status(target, remote, now, server);
            for row in &remote.rows {
                let Some(database) = server.database(&row.database) else { continue };
                let Some(present) = database.tables[row.table].row(row.row) else { continue };
                let schema = &database.tables[row.table].schema;
                let mut data = Vec::new();
                if let Some(c) = boolean_column(schema, "is_connected") {
                    data.push((c, Datum::scalar(connected)));
                }
                if let Some(c) = string_map_column(schema, "status") {
                    data.push((c, status.clone()));
                }
                data.retain(|(c, d)| present.get(*c) != *d);
                if !data.is_empty() {
                    updates.entry(row.database.clone()).or_default().push((row.table, row.row, data));
                }
            }
        }
        for (name, updates) in updates {
            let changed = server.change(&name, server_now, |tables, txn| {
                for (table, uuid, data) in &updates {
                    txn.update(tables, *table, *uuid, data);
                }
            });
            if let Err(error) = changed {
                vlog_err_rl!(OVSDB_SERVER, (1, 5), "Failed to update remote status: {error}");
            }
        }
    }

    fn status(&self, target: &str, remote: &Remote, now: Instant, server: &Server) -> (bool, Datum) {
        let mut map: Vec<(Atom, Atom)> = Vec::new();
        let mut put = |key: &str, value: String| map.push((Atom::from(key), Atom::from(value)));
        if let Some(port) = remote.listener.as_ref().and_then(Listener::bound_port) {
            put("bound_port", port.to_string());
        }
        let sessions = || remote.sessions.iter().filter_map(|k| self.connections.get(k));
        let connected = sessions().any(|c| c.session.is_connected());
        if is_passive(target) {
            // Sessions come and go; the times are there because they were always there.
            if remote.sessions.len() > 1 {
                put("n_connections", remote.sessions.len().to_string());
            }
            if remote.listener.is_some() {
                put("sec_since_connect", "0".to_string());
                put("sec_since_disconnect", "0".to_string());
            }
        } else if let Some(c) = sessions().next_back() {
            let reconnect = c.session.reconnect();
            put("state", reconnect.state_name().to_string());
            let since = |at: Instant| now.since(at).as_secs().to_string();
            if let Some(at) = reconnect.stats().last_connected {
                put("sec_since_connect", since(at));
            }
            if let Some(at) = reconnect.stats().last_disconnected {
                put("sec_since_disconnect", since(at));
            }
            let names = ["locks_held", "locks_waiting", "locks_lost"];
            for (name, locks) in names.iter().zip(c.id.map(|id| server.locks_of(id)).unwrap_or_default()) {
                if !locks.is_empty() {
                    put(name, locks.join(" "));
                }
            }
        }
        (connected, Datum::map(map))
    }
}

fn apply_options(session: &mut Session, options: &RemoteOptions) {
    let reconnect = session.reconnect_mut();
    reconnect.set_probe_interval(options.probe_ms);
    reconnect.set_backoff(1_000, options.max_backoff_ms.max(1_000));
}

fn boolean_column(table: &TableSchema, name: &str) -> Option<usize> {
    let column = table.column(name)?;
    (column.kind.key.kind == AtomicType::Boolean && !column.kind.is_map() && column.kind.max == 1)
        .then_some(column.index)
}

fn string_map_column(table: &TableSchema, name: &str) -> Option<usize> {
    let column = table.column(name)?;
    let value = column.kind.value.as_ref()?;
    (column.kind.key.kind == AtomicType::String && value.kind == AtomicType::String).then_some(column.index)
}

/// Adds the remotes that a column names.
fn from_column(
    database: &Database,
    table: usize,
    column: usize,
    wanted: &mut BTreeMap<String, (RemoteOptions, Vec<StatusRow>)>,
) {
    let kind = &database.tables[table].schema.columns[column].kind;
    for entry in database.tables[table].rows.values() {
        let datum = entry.row.get(column);
        for atom in datum.as_set() {
            match atom {
                Atom::String(target) if !target.is_empty() => {
                    let options = RemoteOptions::default_for(target);
                    wanted.entry(target.to_string()).or_insert((options, Vec::new()));
                }
                Atom::Uuid(uuid) => {
                    let Some(reference) = &kind.key.reference else { continue };
                    let Some(referenced) = database.table(&reference.table) else { continue };
                    let Some(row) = referenced.row(*uuid) else { continue };
                    if let Some((target, options)) = from_row(&referenced.schema, row) {
                        let place = wanted.entry(target).or_insert((options, Vec::new()));
                        place.1.push(StatusRow {
                            database: database.schema.name.to_string(),
                            table: referenced.schema.index,
                            row: *uuid,
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// `settings` with what the columns say that it names; a column that cannot be found, or says nothing, is as no option.
fn resolve(settings: &tls::Settings, server: &Server, complaints: &mut BTreeSet<String>) -> tls::Settings {
    let mut resolved = settings.clone();
    for field in resolved.fields_mut() {
        match find_string_column(field, server) {
            Ok(None) => {}
            Ok(Some((database, table, column))) => {
                let rows = database.tables[table].rows.values();
                *field = rows
                    .filter_map(|e| Some(e.row.get(column).as_str()?.to_string()))
                    .next()
                    .unwrap_or_default();
            }
            Err(message) => {
                complaints.insert(message.trim_end().to_string());
                field.clear();
            }
        }
    }
    resolved
}

/// The remote that a row such as one of table `Manager` describes.
fn from_row(table: &TableSchema, row: &Row) -> Option<(String, RemoteOptions)> {
    let datum = |name: &str| table.column(name).map(|c| row.get(c.index));
    let target = datum("target")?;
    let target = target.as_str().filter(|t| !t.is_empty())?;
    let mut options = RemoteOptions::default_for(target);
    let ms = |name: &str| datum(name)?.as_integer().and_then(|n| u64::try_from(n).ok());
    if let Some(n) = ms("inactivity_probe") {
        options.probe_ms = n;
    }
    if let Some(n) = ms("max_backoff") {
        options.max_backoff_ms = n;
    }
    if let Some(role) = datum("role").as_ref().and_then(Datum::as_str) {
        options.role = role.to_string();
    }
    if let Some(b) = datum("read_only").and_then(|d| d.as_bool()) {
        options.read_only = b;
    }
    let dscp = datum("other_config").and_then(|d| d.get_str("dscp")?.parse().ok());
    options.dscp = dscp.filter(|d| *d < 64);
    Some((target.to_string(), options))
}
