//! OpenFlow connections of a bridge.
//!
//! The manager owns no socket. It says in [`ConnCommand`]s what the owner of sockets should do (listen,
//! connect, send, close) and hears in [`ConnEvent`]s what happened. Bytes in, bytes out.
//!
//! Three kinds of connections: *service* connections come in by a listener (the management socket
//! `BRIDGE.mgmt`, or a `ptcp:` controller); *primary* ones go out to controllers and are kept up; *snoops*
//! (`BRIDGE.snoop`) get a copy of what primary ones exchange.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_openflow::message::{Port as PortDesc, PortReason, Versions};

use crate::config::{ControllerConfig, ControllerStatus, FailMode};
use crate::switch::Bridge;

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
    fail_mode: FailMode,
    versions: Versions,
    commands: Vec<ConnCommand>,
    controllers: BTreeMap<String, ControllerConfig>,
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
        };
        for kind in ["mgmt", "snoop"] {
            let target = format!("punix:{}/{}.{kind}", mgr.rundir, mgr.bridge);
            mgr.commands.push(ConnCommand::Listen { bridge: mgr.bridge.clone(), target });
        }
        mgr
    }
    /// A number for a connection that a listener accepted.
    pub fn new_conn_id(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }
    pub(crate) fn take_commands(&mut self) -> Vec<ConnCommand> {
        std::mem::take(&mut self.commands)
    }
    pub(crate) fn set_fail_mode(&mut self, mode: FailMode) {
        self.fail_mode = mode;
    }
    pub(crate) fn set_versions(&mut self, versions: Versions) {
        self.versions = versions;
    }
    pub(crate) fn set_controllers(&mut self, controllers: &[ControllerConfig]) {
        self.controllers = controllers.iter().map(|c| (c.target.clone(), c.clone())).collect();
    }
    pub(crate) fn status(&self, _now: Instant) -> Vec<ControllerStatus> {
        Vec::new()
    }
    pub(crate) fn is_any_controller_connected(&self) -> bool {
        false
    }
    pub(crate) fn reconnect_all(&mut self) {}
    pub(crate) fn send_port_status(&mut self, _reason: PortReason, _port: PortDesc) {}
    pub(crate) fn wants_misses(&self) -> bool {
        false
    }
    pub(crate) fn deadline(&self) -> Option<Instant> {
        None
    }
}

pub(crate) fn handle_event(_bridge: &mut Bridge, _event: ConnEvent<'_>, _now: Instant) {}

pub(crate) fn run(_bridge: &mut Bridge, _now: Instant) {}
