//! Configured controllers: those to connect to, and listeners for those that connect to us.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_base::vlog::module::CONNMGR;
use ib_base::{vlog_info, vlog_warn};
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
    /// It takes charge of the switch. Remains what it was in the beginning.
    pub is_primary: bool,
    /// The connection, up or under way.
    pub conn: Option<ConnId>,
}

/// Whether a target is one to listen on.
pub(crate) fn is_passive(target: &str) -> bool {
    ["ptcp:", "pssl:", "punix:"].iter().any(|p| target.starts_with(p))
}

/// Whether a target is one to connect to.
fn is_active(target: &str) -> bool {
    ["tcp:", "ssl:", "unix:"].iter().any(|p| target.starts_with(p))
}

fn kind_text(is_primary: bool) -> &'static str {
    if is_primary { "primary" } else { "service" }
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
        let mut status = b.status(conn.is_some_and(|c| c.probe.is_idle()), now);
        for (kind, scheduler) in ["miss", "action"].iter().zip(conn.iter().flat_map(|c| &c.pinscheds)) {
            let Some(n) = scheduler.counts() else { continue };
            let backlog = u64::try_from(scheduler.backlog()).unwrap_or(u64::MAX);
            for (what, n) in
                [("bypassed", n.bypassed), ("queued", n.queued), ("dropped", n.dropped), ("backlog", backlog)]
            {
                status.insert(format!("packet-in-{kind}-{what}"), n.to_string());
            }
        }
        ControllerStatus {
            target,
            is_connected: conn.is_some(),
            role: conn.map_or("", |c| role_text(c.role)),
            status,
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
        if let Some(c) = self.controllers.get(target) {
            let kind = kind_text(c.is_primary);
            vlog_info!(CONNMGR, "{}: removed {kind} controller \"{target}\"", self.bridge);
        }
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
        let is_primary = config.is_primary.unwrap_or(!is_passive(target));
        let backoff = if is_passive(target) {
            let (bridge, target) = (self.bridge.clone(), target.clone());
            self.commands.push(ConnCommand::Listen { bridge, target, dscp: config.dscp });
            None
        } else if is_active(target) {
            let name = format!("{}<->{target}", self.bridge);
            Some(Backoff::new(&name, config.max_backoff_ms, now))
        } else {
            vlog_warn!(CONNMGR, "{}: unsupported controller \"{target}\"", self.bridge);
            return;
        };
        let controller = Controller { config: config.clone(), backoff, is_primary, conn: None };
        self.controllers.insert(target.clone(), controller);
        self.run_controllers(now);
        vlog_info!(CONNMGR, "{}: added {} controller \"{target}\"", self.bridge, kind_text(is_primary));
    }

    /// Connects where it is time, gives up attempts that take too long.
    pub(super) fn run_controllers(&mut self, now: Instant) {
        if self.held {
            return;
        }
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
                    dscp: c.config.dscp,
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
        let kind = match self.controllers.get(listener) {
            _ if listener == self.own_target("snoop") => Kind::Snoop,
            Some(c) if c.is_primary => Kind::Primary,
            _ => Kind::Service,
        };
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
        let kind = if c.is_primary { Kind::Primary } else { Kind::Service };
        let mut conn = Conn::new(id, kind, (&self.bridge, target, target), versions, now);
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
    conn.queue_size = config.queue_size;
    for l in &mut conn.pinscheds {
        l.set(config.rate_limit, config.burst_limit);
    }
}
