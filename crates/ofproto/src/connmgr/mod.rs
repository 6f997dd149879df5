//! OpenFlow connections of a bridge.
//!
//! The manager owns no socket. It says in [`ConnCommand`]s what the owner of sockets should do (listen,
//! connect, send, close) and hears in [`ConnEvent`]s what happened. Bytes in, bytes out.
//!
//! Three kinds of connections: *service* connections come in by a listener (the management socket
//! `BRIDGE.mgmt`, or a `ptcp:` controller); *primary* ones go out to controllers and are kept up; *snoops*
//! (`BRIDGE.snoop`) get a copy of what primary ones exchange.
//!
//! `controllers` keeps primary connections up, `conn` is one connection's state, `requests` answers messages,
//! `async_msgs` sends what nobody asked for, `bundle` and `monitor` are bundles and flow monitors, `fail_open`
//! what a bridge does when its controllers are gone, `in_band` the hidden flows that let it reach them through itself.
//!
//! Main thread only. Cost of an event: its messages; of a run: the number of connections.

mod async_msgs;
mod backoff;
mod bundle;
mod conn;
mod controllers;
mod fail_open;
mod in_band;
mod monitor;
mod parts;
mod pinsched;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ib_base::time::Instant;
use ib_base::vlog::module::{CONNMGR, RCONN};
use ib_base::{vlog_dbg, vlog_info, vlog_warn};
use ib_flow::tlv::TlvTable;
use ib_flow::{Match, OfPort};
use ib_openflow::action::Action;
use ib_openflow::error::OfError;
use ib_openflow::message::{FlowMod, Message, Port as PortDesc, Versions};
use ib_openflow::session::Event;

use crate::config::{ControllerConfig, ControllerStatus, FailMode};
use crate::flow_mod::{Origin, rule_mod};
use crate::switch::Bridge;
use backoff::{Backoff, Silence};
use conn::{Backlog, Conn, Kind};
use controllers::Controller;
use fail_open::FailOpen;
use in_band::InBand;
pub use in_band::remote_of;

/// A connection of a bridge. Numbers are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A listener of a bridge, by target: `punix:/run/openvswitch/br0.mgmt`.
pub type ListenerName = String;

/// What the owner of sockets should do. `bridge` names the bridge in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnCommand {
    /// Listen on a passive target. Failures are logged and tried again by the owner.
    Listen {
        /// Bridge.
        bridge: String,
        /// `punix:`, `ptcp:`, `pssl:` target.
        target: ListenerName,
        /// Mark of what is sent by its connections.
        dscp: u8,
    },
    /// Stop listening.
    Unlisten {
        /// Bridge.
        bridge: String,
        /// Target.
        target: ListenerName,
    },
    /// Connect to an active target; answer with `Connected` or `Closed` for this connection.
    Connect {
        /// Bridge.
        bridge: String,
        /// Connection.
        conn: ConnId,
        /// `tcp:`, `ssl:`, `unix:` target.
        target: String,
        /// Mark of what is sent.
        dscp: u8,
    },
    /// Send bytes.
    Send {
        /// Bridge.
        bridge: String,
        /// Connection.
        conn: ConnId,
        /// Bytes.
        data: Vec<u8>,
    },
    /// Close once what was sent before has left. No `Closed` event follows.
    Close {
        /// Bridge.
        bridge: String,
        /// Connection.
        conn: ConnId,
    },
}

/// What happened to a socket.
#[derive(Clone, Debug)]
pub enum ConnEvent<'a> {
    /// A listener accepted a connection; the owner picked the id with [`ConnMgr::new_conn_id`].
    Accepted {
        /// Listener's target.
        listener: &'a str,
        /// Connection.
        conn: ConnId,
        /// Peer, for the log: `unix#3`, `tcp:127.0.0.1:4242`.
        peer: &'a str,
    },
    /// An active connection is up.
    Connected {
        /// Connection.
        conn: ConnId,
    },
    /// The peer does not read: what was sent waits from here on.
    Blocked {
        /// Connection.
        conn: ConnId,
    },
    /// Everything that was sent has left.
    Drained {
        /// Connection.
        conn: ConnId,
    },
    /// Bytes came.
    Received {
        /// Connection.
        conn: ConnId,
        /// Bytes.
        data: &'a [u8],
    },
    /// The connection is gone, or could not be made.
    Closed {
        /// Connection.
        conn: ConnId,
        /// Why, as the log puts it; `None` for an orderly close by the peer.
        reason: Option<String>,
    },
}

/// Connections of one bridge.
pub struct ConnMgr {
    bridge: String,
    rundir: String,
    next_conn: u64,
    pub(crate) fail_mode: FailMode,
    pub(crate) versions: Versions,
    commands: Vec<ConnCommand>,
    pub(crate) controllers: BTreeMap<String, Controller>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) fail_open: FailOpen,
    pub(crate) in_band: InBand,
    /// OpenFlow 1.2+: the highest generation id of a role request.
    pub(crate) election: Option<u64>,
    /// NXT_TLV_TABLE_MOD's bindings.
    pub(crate) tlv: Option<Arc<TlvTable>>,
    /// Ports as controllers know them.
    ports_told: BTreeMap<OfPort, PortDesc>,
    /// How long a bundle may rest.
    bundle_idle_ms: u64,
    /// The log knows of the management listener.
    announced: bool,
    /// No controller is connected to: tables are being restored.
    pub(crate) held: bool,
}

/// An age as messages carry it: seconds, and nanoseconds of whole milliseconds.
pub(crate) fn age(now: Instant, then: Instant) -> (u32, u32) {
    let ms = now.as_ms().saturating_sub(then.as_ms());
    (u32::try_from(ms / 1000).unwrap_or(u32::MAX), (ms % 1000) as u32 * 1_000_000)
}

/// Transaction ids of what the switch says first, for all bridges.
static NEXT_XID: AtomicU32 = AtomicU32::new(1);

pub(crate) fn next_xid() -> u32 {
    NEXT_XID.fetch_add(1, Ordering::Relaxed)
}

impl ConnMgr {
    pub(crate) fn new(bridge: &str, rundir: &str) -> ConnMgr {
        let mut mgr = ConnMgr {
            bridge: bridge.to_owned(),
            rundir: rundir.to_owned(),
            next_conn: 1,
            fail_mode: FailMode::default(),
            versions: Versions::ALL,
            commands: Vec::new(),
            controllers: BTreeMap::new(),
            conns: BTreeMap::new(),
            fail_open: FailOpen::default(),
            in_band: InBand::default(),
            election: None,
            tlv: None,
            ports_told: BTreeMap::new(),
            bundle_idle_ms: crate::backer::Settings::default().bundle_idle_ms,
            announced: false,
            held: false,
        };
        for kind in ["mgmt", "snoop"] {
            let target = mgr.own_target(kind);
            mgr.commands.push(ConnCommand::Listen { bridge: mgr.bridge.clone(), target, dscp: 0 });
        }
        mgr
    }
    fn own_target(&self, kind: &str) -> String {
        format!("punix:{}/{}.{kind}", self.rundir, self.bridge)
    }
    /// A number for a connection that a listener accepted.
    pub fn new_conn_id(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }
    pub(crate) fn take_commands(&mut self) -> Vec<ConnCommand> {
        std::mem::take(&mut self.commands)
    }
    /// State of each configured controller.
    pub(crate) fn status(&self, now: Instant) -> Vec<ControllerStatus> {
        self.controllers.values().map(|c| c.status(&self.conns, now)).collect()
    }
    /// Connections, and what waits for their peers.
    pub(crate) fn memory_usage(&self, usage: &mut ib_base::memory::Usage) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let waiting = self.conns.values().map(|c| {
            let in_socket = c.blocked.map_or(0, |b| b.messages);
            in_socket + c.pinscheds.iter().map(|p| count(p.backlog())).sum::<u64>()
        });
        let packets: u64 = waiting.sum();
        for (name, n) in [("ofconns", count(self.conns.len())), ("packets", packets)] {
            if n != 0 {
                usage.add(name, n);
            }
        }
    }
    pub(crate) fn is_any_controller_connected(&self) -> bool {
        self.controllers.values().any(|c| c.backoff.as_ref().is_some_and(Backoff::is_connected))
    }
    /// The table under which `tun_metadata` fields of matches are read; 0: none.
    pub(crate) fn tlv_id(&self) -> u32 {
        self.tlv.as_ref().map_or(0, |t| t.id())
    }
    /// Whether there is a controller that takes charge of the switch.
    pub(crate) fn has_controllers(&self) -> bool {
        self.controllers.values().any(|c| c.is_primary)
    }
    /// Closes all connections; controllers are connected to anew.
    pub(crate) fn reconnect_all(&mut self, now: Instant) {
        let ids: Vec<ConnId> =
            self.conns.iter().filter(|(_, c)| c.kind != Kind::Snoop).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(c) = self.conns.get(&id) {
                vlog_info!(RCONN, "{}: disconnecting", c.log_name);
            }
            self.close(id, now);
        }
        for c in self.controllers.values_mut() {
            if let Some(b) = &mut c.backoff {
                b.restart(now);
            }
            c.conn = None;
        }
    }
    /// Whether some controller wants misses of tables without configuration.
    pub(crate) fn wants_misses(&self) -> bool {
        self.conns.values().any(Conn::wants_misses)
    }
    /// Connections that can be told more of what they asked for.
    fn listing(&self) -> impl Iterator<Item = &Conn> {
        self.conns.values().filter(|c| c.listing.is_some() && c.blocked.is_none())
    }
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.listing().next().is_some() {
            return Some(Instant::ZERO);
        }
        let controllers = self.controllers.values().filter(|_| !self.held);
        let controllers = controllers.filter_map(|c| c.backoff.as_ref()?.deadline());
        let conns = self.conns.values().filter_map(|c| {
            let limiters = c.pinscheds.iter().filter_map(|l| l.deadline()).min();
            let bundles = c.bundles.values().map(|b| b.deadline(self.bundle_idle_ms)).min();
            [c.probe.deadline(), c.ops_deadline(), limiters, bundles, c.parts.deadline()]
                .into_iter()
                .flatten()
                .min()
        });
        controllers.chain(conns).chain(fail_open::deadline(self)).chain(self.in_band.deadline()).min()
    }

    /// Sends what collected in the connections.
    fn flush(&mut self) {
        let snooped = self.take_snooped();
        for bytes in snooped {
            for s in self.conns.values_mut().filter(|c| c.kind == Kind::Snoop) {
                s.session.send_bytes(&bytes);
            }
        }
        for (id, c) in &mut self.conns {
            let data = c.take_output();
            if !data.is_empty() {
                self.commands.push(ConnCommand::Send { bridge: self.bridge.clone(), conn: *id, data });
            }
        }
    }
    fn take_snooped(&mut self) -> Vec<Vec<u8>> {
        let any = self.conns.values().any(|c| c.kind == Kind::Snoop && c.version().is_some());
        let mut out = Vec::new();
        for c in self.conns.values_mut().filter(|c| c.kind == Kind::Primary) {
            out.extend(c.snooped.take().unwrap_or_default());
            c.snooped = any.then(Vec::new);
        }
        out
    }
    /// Ends a connection from our side, once what it holds was sent.
    fn close(&mut self, id: ConnId, now: Instant) {
        let Some(mut c) = self.conns.remove(&id) else { return };
        c.log_flow_mods(now);
        let data = c.take_output();
        if !data.is_empty() {
            self.commands.push(ConnCommand::Send { bridge: self.bridge.clone(), conn: id, data });
        }
        self.commands.push(ConnCommand::Close { bridge: self.bridge.clone(), conn: id });
    }
    /// A connection ended; its controller waits before it tries again.
    fn lost(&mut self, id: ConnId, reason: Option<&str>, logged: bool, now: Instant) {
        let was_ours = self.controllers.values().any(|c| c.conn == Some(id));
        if let Some(mut c) = self.conns.remove(&id) {
            c.log_flow_mods(now);
            if !was_ours {
                match reason {
                    Some(_) if logged => {}
                    Some(r) => vlog_warn!(RCONN, "{}: connection dropped ({r})", c.log_name),
                    None => vlog_dbg!(RCONN, "{}: connection closed by peer", c.log_name),
                }
            }
        }
        for c in self.controllers.values_mut().filter(|c| c.conn == Some(id)) {
            c.conn = None;
            if let Some(b) = &mut c.backoff {
                b.lost(reason, logged, now);
            }
        }
    }
    /// Ends a connection because of what its peer did.
    fn fail(&mut self, id: ConnId, reason: &str, logged: bool, now: Instant) {
        if let Some(c) = self.conns.get_mut(&id) {
            let data = c.take_output();
            if !data.is_empty() {
                self.commands.push(ConnCommand::Send { bridge: self.bridge.clone(), conn: id, data });
            }
        }
        self.commands.push(ConnCommand::Close { bridge: self.bridge.clone(), conn: id });
        self.lost(id, Some(reason), logged, now);
    }
}

/// Sets what happens without controllers.
pub(crate) fn set_fail_mode(bridge: &mut Bridge, mode: FailMode, now: Instant) {
    if std::mem::replace(&mut bridge.connmgr.fail_mode, mode) == mode {
        return;
    }
    fail_open::update(bridge, now);
    if !bridge.connmgr.has_controllers() {
        flush_flows(bridge, now);
    }
}

/// Sets the versions for management sockets and for controllers without versions of their own.
pub(crate) fn set_versions(bridge: &mut Bridge, versions: Versions, now: Instant) {
    let mgr = &mut bridge.connmgr;
    if mgr.versions == versions {
        return;
    }
    mgr.versions = versions;
    let mgmt = mgr.own_target("mgmt");
    let name = mgr.bridge.clone();
    let reopen = |target: &str| {
        vlog_info!(
            CONNMGR,
            "{name}: Changes to controller \"{target}\" expects re-initialization: Re-initializing now."
        );
    };
    if mgr.announced {
        reopen(&mgmt);
        vlog_info!(CONNMGR, "{name}: added service controller \"{mgmt}\"");
    }
    let stale: Vec<ConnId> = mgr
        .conns
        .values()
        .filter(|c| c.kind == Kind::Snoop || c.target == mgmt || mgr.inherits_versions(&c.target))
        .map(|c| c.id)
        .collect();
    for id in stale {
        mgr.close(id, now);
        for c in mgr.controllers.values_mut().filter(|c| c.conn == Some(id)) {
            c.conn = None;
            if let Some(b) = &mut c.backoff {
                b.restart(now);
            }
        }
    }
}

/// Sets the controllers; see [`Bridge::set_controllers`].
pub(crate) fn set_controllers(bridge: &mut Bridge, configs: &[ControllerConfig], now: Instant) {
    let had = bridge.connmgr.has_controllers();
    let mgr = &mut bridge.connmgr;
    let name = mgr.bridge.clone();
    if !std::mem::replace(&mut mgr.announced, true) {
        let mgmt = mgr.own_target("mgmt");
        vlog_info!(CONNMGR, "{name}: added service controller \"{mgmt}\"");
    }
    // One whose versions changed begins again.
    let restarted = |t: &String, c: &Controller| {
        configs.iter().any(|n| n.target == *t && n.versions != c.config.versions)
    };
    let gone: Vec<String> =
        mgr.controllers.iter().filter(|(t, c)| restarted(t, c)).map(|(t, _)| t.clone()).collect();
    for target in gone {
        mgr.remove_controller(&target, now);
    }
    for config in configs {
        mgr.put_controller(config, now);
    }
    let gone: Vec<String> =
        mgr.controllers.keys().filter(|t| configs.iter().all(|n| n.target != **t)).cloned().collect();
    for target in gone {
        mgr.remove_controller(&target, now);
    }
    let has = bridge.connmgr.has_controllers();
    fail_open::update(bridge, now);
    if had != has {
        flush_flows(bridge, now);
    }
    in_band::run(bridge, now);
}

/// Removes all flows, then adds those that the switch itself wants.
pub(crate) fn flush_flows(bridge: &mut Bridge, now: Instant) {
    bridge.of.flush_flows(true, now);
    flushed(bridge, now);
}

/// The tables are empty: without controllers an ordinary switch needs its one flow.
pub(crate) fn flushed(bridge: &mut Bridge, now: Instant) {
    fail_open::flushed(bridge, now);
    in_band::flushed(bridge, now);
    let mgr = &bridge.connmgr;
    if mgr.has_controllers() || mgr.fail_mode != FailMode::Standalone {
        return;
    }
    let fm = FlowMod {
        match_: Match::catch_all(),
        priority: 0,
        table_id: 0,
        actions: vec![Action::Output { port: OfPort::NORMAL, max_len: 0 }],
        ..FlowMod::default()
    };
    if let Err(e) = bridge.of.flow_mod(rule_mod(fm), Origin::default(), now) {
        vlog_warn!(CONNMGR, "{}: cannot add the default flow: {e}", bridge.of.name);
    }
}

pub(crate) fn handle_event(bridge: &mut Bridge, event: ConnEvent<'_>, now: Instant) {
    match event {
        ConnEvent::Accepted { listener, conn, peer } => bridge.connmgr.accepted(listener, conn, peer, now),
        ConnEvent::Connected { conn } => bridge.connmgr.connected(conn, now),
        ConnEvent::Closed { conn, reason } => bridge.connmgr.lost(conn, reason.as_deref(), false, now),
        ConnEvent::Received { conn, data } => received(bridge, conn, data, now),
        ConnEvent::Blocked { conn } => {
            if let Some(c) = bridge.connmgr.conns.get_mut(&conn) {
                c.blocked = Some(Backlog::default());
            }
        }
        ConnEvent::Drained { conn } => {
            if let Some(c) = bridge.connmgr.conns.get_mut(&conn) {
                c.blocked = None;
            }
            monitor::resume(bridge, conn);
            serve(bridge, conn, now);
        }
    }
    bridge.connmgr.flush();
}

fn received(bridge: &mut Bridge, id: ConnId, data: &[u8], now: Instant) {
    if let Some(c) = bridge.connmgr.conns.get_mut(&id) {
        c.probe.activity(now);
        c.session.feed(data, now);
    }
    serve(bridge, id, now);
}

/// Goes on with what a peer is being told, then handles what it sent since.
fn serve(bridge: &mut Bridge, id: ConnId, now: Instant) {
    while let Some(c) = bridge.connmgr.conns.get_mut(&id) {
        if let Some(mut listing) = c.listing.take()
            && (c.blocked.is_some() || !listing.go_on(c, now))
        {
            c.listing = Some(listing);
            break;
        }
        let Some(event) = c.session.next_event() else { break };
        match event {
            Event::Negotiated(_) => bridge.connmgr.negotiated(id, now),
            Event::Failed { .. } => {
                bridge.connmgr.fail(id, "Protocol error", false, now);
                break;
            }
            Event::Message(bytes) => {
                let Some(mut conn) = bridge.connmgr.conns.remove(&id) else { break };
                if conn.kind != Kind::Snoop {
                    requests::handle(bridge, &mut conn, &bytes, now);
                }
                bridge.connmgr.conns.insert(id, conn);
                async_msgs::flow_events(bridge, now);
            }
        }
    }
}

pub(crate) fn run(bridge: &mut Bridge, now: Instant) {
    bridge.connmgr.bundle_idle_ms = bridge.backer.settings.read().bundle_idle_ms;
    bridge.connmgr.run_controllers(now);
    in_band::run(bridge, now);
    let mgr = &mut bridge.connmgr;
    let ids: Vec<ConnId> = mgr.conns.keys().copied().collect();
    for id in ids {
        let Some(c) = mgr.conns.get_mut(&id) else { continue };
        match c.probe.run(now) {
            Some(Silence::Probe) if c.version().is_some() => {
                c.send(&Message::EchoRequest(Vec::new()), 0);
            }
            Some(Silence::Probe) => {}
            Some(Silence::Dead) => {
                mgr.fail(id, "Connection timed out", true, now);
                continue;
            }
            None => {}
        }
        let Some(c) = mgr.conns.get_mut(&id) else { continue };
        if c.ops_deadline().is_some_and(|d| now >= d) {
            c.log_flow_mods(now);
        }
        bundle::expire(c, mgr.bundle_idle_ms, now);
        for first in c.parts.expired(now) {
            requests::refuse(c, OfError::OFPBRC_MULTIPART_REQUEST_TIMEOUT, None, &first);
        }
    }
    let listing: Vec<ConnId> = bridge.connmgr.listing().map(|c| c.id).collect();
    for id in listing {
        serve(bridge, id, now);
    }
    async_msgs::flow_events(bridge, now);
    async_msgs::packet_ins(bridge, now);
    fail_open::run(bridge, now);
    bridge.connmgr.flush();
}

#[cfg(test)]
mod tests;
