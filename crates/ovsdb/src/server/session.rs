//! What the server knows of one client.

use super::lag::Since;
use super::{SERVER_DATABASE, Server};
use crate::monitor::{MonitorSpec, Version};
use crate::rbac::Asker;
use ib_base::json::Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a session; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u64);

/// A transaction that waits.
pub(super) struct Trigger {
    pub request_id: Json,
    pub database: String,
    pub operations: Vec<Json>,
    pub created_ms: i64,
    pub timeout_ms: i64,
}

/// A monitor of one session.
pub(super) struct Monitor {
    /// The client's name for it, as JSON text.
    pub id: Arc<str>,
    pub database: String,
    pub version: Version,
    /// Shared with the monitors of other sessions that are equal.
    pub spec: Arc<MonitorSpec>,
    pub group: Arc<str>,
}

/// A client.
pub(super) struct Session {
    pub read_only: bool,
    pub asker: Asker,
    pub db_change_aware: bool,
    /// By the text of the client's name for it.
    pub monitors: BTreeMap<String, Monitor>,
    pub triggers: Vec<Trigger>,
    /// Bytes sent since the connection was last empty.
    pub unsent: usize,
    /// The batch of actions in which it was last sent something.
    pub sent_in: u64,
    pub lagging: bool,
    /// Since when it has missed changes, by database.
    pub missed: BTreeMap<String, Since>,
    /// Its connection is about to be closed: what changes from now on is no longer told.
    pub closing: bool,
}

impl Session {
    pub fn new(read_only: bool, asker: Asker) -> Session {
        Session {
            read_only,
            asker,
            db_change_aware: false,
            monitors: BTreeMap::new(),
            triggers: Vec::new(),
            unsent: 0,
            sent_in: 0,
            lagging: false,
            missed: BTreeMap::new(),
            closing: false,
        }
    }
}

/// Counts for `memory/show`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Atoms of all rows.
    pub atoms: usize,
    /// Data of all rows.
    pub cells: usize,
    /// Monitors.
    pub monitors: usize,
    /// Rows that are weakly referenced, by referencing row.
    pub weak_refs: usize,
    /// Sessions.
    pub sessions: usize,
    /// Waiting transactions.
    pub triggers: usize,
}

impl Server {
    /// Counts what is in memory. Costs a pass over all rows.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            sessions: self.sessions.len(),
            monitors: self.sessions.values().map(|s| s.monitors.len()).sum(),
            triggers: self.triggers,
            ..Memory::default()
        };
        for (name, database) in &self.databases {
            let (cells, atoms) = database.usage();
            if name != SERVER_DATABASE {
                memory.weak_refs +=
                    database.tables.iter().flat_map(|t| t.weak_in.values()).map(|m| m.len()).sum::<usize>();
            }
            memory.cells += cells;
            memory.atoms += atoms;
        }
        memory
    }
}
