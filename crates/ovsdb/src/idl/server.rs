//! What a server says of itself: its `_Server` database.
//!
//! A replica that follows it ([`Idl::follow_server`], [`Idl::set_leader_only`]) learns the schema from there, hears of
//! conversions without losing its session, and leaves a member of a cluster that cannot serve it: one that has not
//! joined, is cut off, has older data than were seen before, or, with leader-only, is not the leader. Leaving is the owner's
//! work: [`Idl::take_reconnect`] says when. Servers before `_Server` are taken as they are.

use super::Idl;
use super::session::Phase;
use crate::Uuid;
use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_IDL;
use std::collections::HashMap;

/// A row of `_Server`'s Database table.
#[derive(Clone, Debug, Default, PartialEq)]
struct Database {
    model: String,
    connected: bool,
    leader: bool,
    index: i64,
    schema: Option<String>,
}

impl Database {
    fn update(&mut self, content: &Object) {
        for (column, value) in content.iter() {
            match &**column {
                "model" => self.model = value.as_str().unwrap_or_default().to_string(),
                "connected" => self.connected = value.as_bool().unwrap_or(false),
                "leader" => self.leader = value.as_bool().unwrap_or(false),
                // Optional values: nothing is an empty set.
                "index" => self.index = value.as_integer().unwrap_or(0),
                "schema" => self.schema = value.as_str().map(str::to_owned),
                _ => {}
            }
        }
    }
}

/// What is known of the server.
#[derive(Default)]
pub(super) struct Server {
    follow: bool,
    leader_only: bool,
    rows: HashMap<Uuid, Database>,
    /// The schema that the monitor in use was asked for with.
    schema: Option<String>,
    /// The newest index seen in the cluster's log.
    min_index: i64,
    reconnect: Option<String>,
}

impl Idl {
    /// Follows the server's own database, before the first connection. It costs one more request a connection.
    pub fn follow_server(&mut self) {
        self.session.server.follow = true;
    }

    /// Takes service from a cluster's leader only. Others' data may be old, and their clients' transactions take longer.
    pub fn set_leader_only(&mut self, leader_only: bool) {
        self.session.server.follow |= leader_only;
        self.session.server.leader_only = leader_only;
    }

    /// Why the owner should leave this server for the next, once.
    pub fn take_reconnect(&mut self) -> Option<String> {
        self.session.server.reconnect.take()
    }

    /// Begins a session with the server's own database, if it is followed.
    pub(super) fn request_server(&mut self) -> bool {
        self.session.server.rows.clear();
        self.session.server.schema = None;
        self.session.server.reconnect = None;
        if !self.session.server.follow {
            return false;
        }
        self.session.request("set_db_change_aware", Json::array([true.into()]));
        let columns = ["name", "model", "connected", "leader", "index", "schema"];
        let name = Json::array(["name".into(), "==".into(), self.database.as_str().into()]);
        let request =
            Json::object([("columns", Json::array(columns.map(Json::from))), ("where", Json::array([name]))]);
        let tables = Json::object([("Database", Json::array([request]))]);
        let params = Json::array(["_Server".into(), server_monitor(), tables]);
        let id = self.session.request("monitor_cond", params);
        self.session.phase = Phase::AwaitServer(Some(id));
        true
    }

    pub(super) fn receive_server(&mut self, result: &Json, error: Option<&Json>) {
        if error.is_some() {
            self.request_schema();
            return;
        }
        self.session.phase = Phase::AwaitServer(None);
        self.apply_server(result.as_object().unwrap_or(&Object::new()));
    }

    /// Takes in an update of the server's own database.
    pub(super) fn apply_server(&mut self, tables: &Object) {
        let rows = tables.get("Database").and_then(Json::as_object);
        for (uuid, row) in rows.into_iter().flat_map(Object::iter) {
            let Some(uuid) = Uuid::parse(uuid) else { continue };
            let content = |member: &str| row.get(member).and_then(Json::as_object);
            if let Some(content) = content("initial").or_else(|| content("insert")) {
                let mut database = Database::default();
                database.update(content);
                self.session.server.rows.insert(uuid, database);
            } else if let Some(content) = content("modify") {
                self.session.server.rows.entry(uuid).or_default().update(content);
            } else {
                self.session.server.rows.remove(&uuid);
            }
        }
        self.check_server();
    }

    /// Decides whether this server will do, and takes its schema.
    fn check_server(&mut self) {
        let server = &mut self.session.server;
        let why = match server.rows.values().next() {
            None => Some("database not available"),
            Some(db) if db.model == "clustered" && db.schema.is_none() => {
                Some("clustered database server has not yet joined cluster")
            }
            Some(db) if db.model == "clustered" && !db.connected => {
                Some("clustered database server is disconnected from cluster")
            }
            Some(db) if db.model == "clustered" && server.leader_only && !db.leader => {
                Some("clustered database server is not cluster leader")
            }
            Some(db) if db.model == "clustered" && db.index < server.min_index => {
                Some("clustered database server has stale data")
            }
            Some(db) if db.model == "relay" && !db.connected => {
                Some("relay database server is disconnected from its source")
            }
            Some(db) => {
                server.min_index = server.min_index.max(db.index);
                None
            }
        };
        if let Some(why) = why {
            ib_base::vlog_info!(OVSDB_IDL, "{}: {why}; trying another server", self.database);
            server.reconnect = Some(why.to_owned());
            return;
        }
        server.reconnect = None;
        let schema = server.rows.values().next().and_then(|db| db.schema.clone());
        if schema.is_none() || schema == server.schema {
            return;
        }
        let is_first = server.schema.is_none();
        server.schema.clone_from(&schema);
        let parsed = schema.as_deref().map(Json::parse);
        let Some(Ok(parsed)) = parsed else {
            self.session.phase = Phase::Failed(format!("{}: the server's schema is not JSON", self.database));
            return;
        };
        if !is_first {
            // Converted. The server has canceled the monitor, and forgotten the transactions from before.
            self.session.last_txn = Uuid::ZERO;
            self.session.asked = None;
        }
        self.receive_schema(&parsed, None);
    }
}

/// The monitor's name.
pub(super) fn server_monitor() -> Json {
    Json::array(["monid".into(), "_Server".into()])
}
