//! Configured controllers: those to connect to, and listeners for those that connect to us.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_base::vlog::module::CONNMGR;
use ib_base::vlog_info;
use ib_openflow::message::{Role, Versions};

use super::backoff::Backoff;
use super::conn::{Conn, Kind};
use super::{ConnCommand, ConnId, ConnMgr};
use crate::config::{ControllerConfig, ControllerStatus};

/// One row of the Controller table.
pub(crate) struct Controller {
    pub config: ControllerConfig,
    /// None if it is a listener.
    pub backoff: Option<Backoff>,
    /// The connection, up or under way.
    pub conn: Option<ConnId>,
}

/// Whether a target is one to listen on.
pub(crate) fn is_passive(target: &str) -> bool {
    ["ptcp:", "pssl:", "punix:"].iter().any(|p| target.starts_with(p))
}

pub(crate) fn kind_text(target: &str) -> &'static str {
    if is_passive(target) { "service" } else { "primary" }
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::NoChange | Role::Equal => "other",
        Role::Primary => "master",
        Role::Secondary => "slave",
    }
}

impl Controller {
    pub fn status(&self, conns: &BTreeMap<ConnId, Conn>, now: Instant) -> ControllerStatus {
        let target = self.config.target.clone();
        let Some(b) = &self.backoff else {
            return ControllerStatus { target, is_connected: false, role: "", status: BTreeMap::new() };
        };
        let conn = self.conn.and_then(|id| conns.get(&id)).filter(|_| b.is_connected());
        ControllerStatus {
            target,
            is_connected: conn.is_some(),
            role: conn.map_or("", |c| role_text(c.role)),
            status: b.status(conn.is_some_and(|c| c.probe.is_idle()), now),
        }
    }
}

impl ConnMgr {
    /// Whether connections of a target use the bridge's versions.
    pub(super) fn inherits_versions(&self, target: &str) -> bool {
        self.controllers.get(target).is_some_and(|c| c.config.versions.is_none())
    }
    fn versions_of(&self, target: &str) -> Versions {
        self.controllers.get(target).and_then(|c| c.config.versions).unwrap_or(self.versions)
    }

    pub(super) fn remove_controller(&mut self, target: &str, now: Instant) {
        if is_passive(target) {
            let target = target.to_owned();
            self.commands.push(ConnCommand::Unlisten { bridge: self.bridge.clone(), target });
        }
        let connecting = self.controllers.remove(target).and_then(|c| c.conn);
        let open: Vec<ConnId> = self
            .conns
            .values()
            .filter(|c| c.target == target && c.kind != Kind::Snoop)
            .map(|c| c.id)
            .collect();
        for id in &open {
            self.close(*id, now);
        }
        if let Some(id) = connecting.filter(|id| !open.contains(id)) {
            self.commands.push(ConnCommand::Close { bridge: self.bridge.clone(), conn: id });
        }
    }

    pub(super) fn put_controller(&mut self, config: &ControllerConfig, now: Instant) {
        let target = &config.target;
        if let Some(c) = self.controllers.get_mut(target) {
            if c.config == *config {
                return;
            }
            c.config = config.clone();
            if let Some(b) = &mut c.backoff {
                b.set_max_backoff(config.max_backoff_ms);
            }
            for conn in self.conns.values_mut().filter(|c| c.target == *target) {
                configure(conn, config);
            }
            return;
        }
        vlog_info!(CONNMGR, "{}: added {} controller \"{target}\"", self.bridge, kind_text(target));
        let backoff = if is_passive(target) {
            self.commands.push(ConnCommand::Listen { bridge: self.bridge.clone(), target: target.clone() });
            None
        } else {
            let name = format!("{}<->{target}", self.bridge);
            Some(Backoff::new(&name, config.max_backoff_ms, now))
        };
        self.controllers.insert(target.clone(), Controller { config: config.clone(), backoff, conn: None });
    }

    /// Connects where it is time, gives up attempts that take too long.
    pub(super) fn run_controllers(&mut self, now: Instant) {
        let mut failed = Vec::new();
        for (target, c) in &mut self.controllers {
            let Some(b) = &mut c.backoff else { continue };
            if b.is_timed_out(now) {
                failed.extend(c.conn.take());
            }
            if c.conn.is_none() && b.should_connect(now) {
                self.next_conn += 1;
                let conn = ConnId(self.next_conn);
                c.conn = Some(conn);
                self.commands.push(ConnCommand::Connect {
                    bridge: self.bridge.clone(),
                    conn,
                    target: target.clone(),
                });
            }
        }
        for id in failed {
            self.conns.remove(&id);
            self.commands.push(ConnCommand::Close { bridge: self.bridge.clone(), conn: id });
        }
    }

    /// A listener has a new connection. Where there is no controller, a snoop is refused: it would wait for ever.
    pub(super) fn accepted(&mut self, listener: &str, id: ConnId, peer: &str, now: Instant) {
        let kind = if listener == self.own_target("snoop") { Kind::Snoop } else { Kind::Service };
        if kind == Kind::Snoop && !self.controllers.values().any(|c| c.backoff.is_some()) {
            self.commands.push(ConnCommand::Close { bridge: self.bridge.clone(), conn: id });
            return;
        }
        let versions = if kind == Kind::Snoop { Versions::ALL } else { self.versions_of(listener) };
        let mut conn = Conn::new(id, kind, (&self.bridge, listener, peer), versions, now);
        if let Some(c) = self.controllers.get(listener) {
            configure(&mut conn, &c.config);
        }
        self.conns.insert(id, conn);
    }

    /// A connection that we asked for is up; the session begins.
    pub(super) fn connected(&mut self, id: ConnId, now: Instant) {
        let Some((target, c)) = self.controllers.iter().find(|(_, c)| c.conn == Some(id)) else { return };
        let versions = c.config.versions.unwrap_or(self.versions);
        let mut conn = Conn::new(id, Kind::Primary, (&self.bridge, target, target), versions, now);
        configure(&mut conn, &c.config);
        self.conns.insert(id, conn);
    }

    /// Both sides of a connection know its version.
    pub(super) fn negotiated(&mut self, id: ConnId, now: Instant) {
        for c in self.controllers.values_mut().filter(|c| c.conn == Some(id)) {
            if let Some(b) = &mut c.backoff {
                b.connected(now);
            }
        }
    }
}

fn configure(conn: &mut Conn, config: &ControllerConfig) {
    conn.probe.set_interval(config.probe_interval_ms);
    conn.enable_async = config.enable_async_msgs;
    for l in &mut conn.limiters {
        l.set(config.rate_limit, config.burst_limit);
    }
}
