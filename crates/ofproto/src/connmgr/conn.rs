//! One OpenFlow connection as the switch sees it: session, role, and what the controller asked for.
//!
//! A [`Conn`] begins with the transport connection and ends with it; nothing of it survives a reconnect.
//! Its output collects in the session until [`Conn::take_output`]; bounds on what a peer does not read are
//! the socket owner's, bounds on asynchronous messages are in `async_msgs`.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_base::vlog::module::CONNMGR;
use ib_base::vlog_info;
use ib_openflow::encode::{EncodeOptions, encode_with};
use ib_openflow::message::{
    AsyncConfig, AsyncKind, FlowModCommand, Message, PacketInFormat, PacketInReason, Role, Version, Versions,
};
use ib_openflow::session::Session;

use super::ConnId;
use super::backoff::Probe;
use super::bundle::OpenBundle;
use super::monitor::{Monitor, Pause};
use super::parts::Parts;
use super::pinsched::Pinsched;
use super::requests::FlowListing;

/// OFP_DEFAULT_MISS_SEND_LEN.
pub(crate) const DEFAULT_MISS_SEND_LEN: u16 = 128;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The switch connected to a controller.
    Primary,
    /// Somebody connected to the switch.
    Service,
    /// Gets copies of what primary connections carry.
    Snoop,
}

/// What waits in the socket of a peer that does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Packet-ins.
    pub packet_ins: u32,
    /// Messages in all.
    pub messages: u64,
    /// Bytes of flow monitors.
    pub monitor_bytes: usize,
}

/// flow_mods that were not reported in the log yet.
#[derive(Debug, Default)]
struct OpReport {
    adds: u32,
    deletes: u32,
    modifications: u32,
    first: Option<Instant>,
    last: Option<Instant>,
    /// When to report.
    due: Option<Instant>,
    /// Not to report before.
    backoff: Option<Instant>,
}

/// See the module's description.
pub(crate) struct Conn {
    pub id: ConnId,
    pub kind: Kind,
    /// Listener's or controller's target.
    pub target: String,
    /// `br0<->unix#3`.
    pub log_name: String,
    pub session: Session,
    pub probe: Probe,
    pub role: Role,
    pub miss_send_len: u16,
    pub controller_id: u16,
    pub packet_in_format: PacketInFormat,
    /// OpenFlow 1.0: flow_mods carry a table.
    pub flow_mod_table_id: bool,
    /// OpenFlow 1.0: NXM.
    pub nxm: bool,
    /// What `SET_ASYNC` said; the version's defaults before.
    pub async_config: Option<AsyncConfig>,
    pub enable_async: bool,
    pub bundles: BTreeMap<u32, OpenBundle>,
    pub monitors: BTreeMap<u32, Monitor>,
    /// Its monitors say nothing but what is gone, until it reads again.
    pub monitors_paused: Option<Pause>,
    /// Flows that it asked for and that are on their way; its next message waits for them.
    pub listing: Option<FlowListing>,
    /// Multipart requests of which parts came.
    pub parts: Parts,
    /// Packets for it under its rate limit: misses, and all others.
    pub pinscheds: [Pinsched; 2],
    /// Packets that may wait in its socket.
    pub queue_size: u32,
    /// Its socket takes no more at the moment; what it is sent since waits.
    pub blocked: Option<Backlog>,
    ops: OpReport,
    /// What a snoop should see of this connection: messages of either direction.
    pub snooped: Option<Vec<Vec<u8>>>,
    /// Close it.
    pub dead: bool,
}

impl Conn {
    pub fn new(
        id: ConnId,
        kind: Kind,
        (bridge, target, peer): (&str, &str, &str),
        versions: Versions,
        now: Instant,
    ) -> Conn {
        let log_name = format!("{bridge}<->{peer}");
        Conn {
            id,
            kind,
            target: target.to_owned(),
            session: Session::with_xid(peer, versions, super::next_xid()),
            probe: Probe::new(&log_name, now),
            log_name,
            role: Role::Equal,
            miss_send_len: if kind == Kind::Primary { DEFAULT_MISS_SEND_LEN } else { 0 },
            controller_id: 0,
            packet_in_format: PacketInFormat::Standard,
            flow_mod_table_id: false,
            nxm: false,
            async_config: None,
            enable_async: true,
            bundles: BTreeMap::new(),
            monitors: BTreeMap::new(),
            monitors_paused: None,
            listing: None,
            parts: Parts::default(),
            pinscheds: Default::default(),
            queue_size: 100,
            blocked: None,
            ops: OpReport::default(),
            snooped: None,
            dead: false,
        }
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<Version> {
        self.session.version()
    }
    pub fn is_ready(&self) -> bool {
        self.version().is_some() && !self.dead && self.kind != Kind::Snoop
    }
    fn options(&self) -> EncodeOptions {
        EncodeOptions { nxm: self.nxm, table_id: self.flow_mod_table_id }
    }

    /// Encodes for this connection.
    pub fn encode(&self, message: &Message, xid: u32) -> Vec<u8> {
        encode_with(message, self.version().unwrap_or(Version::V10), xid, self.options())
    }
    pub fn send(&mut self, message: &Message, xid: u32) {
        let bytes = self.encode(message, xid);
        self.send_bytes(bytes);
    }
    pub fn send_bytes(&mut self, bytes: Vec<u8>) {
        ib_base::coverage::rconn_queued.inc();
        ib_base::coverage::rconn_sent.inc();
        if let Some(backlog) = &mut self.blocked {
            backlog.messages += 1;
        }
        self.session.send_bytes(&bytes);
        if let Some(s) = &mut self.snooped {
            s.push(bytes);
        }
    }
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(self.session.output())
    }

    /// Which asynchronous messages it gets, by the version's defaults or its own wish.
    pub fn async_masks(&self) -> AsyncConfig {
        if let Some(c) = self.async_config {
            return c;
        }
        let mut c = AsyncConfig { present: 0x3f3f, ..AsyncConfig::default() };
        if !self.enable_async {
            return c;
        }
        let v14 = self.version() >= Some(Version::V14);
        let bit = |r: PacketInReason| 1 << r as u32;
        let mut pins = bit(PacketInReason::NoMatch) | bit(PacketInReason::Action);
        if v14 {
            pins |=
                bit(PacketInReason::ActionSet) | bit(PacketInReason::Group) | bit(PacketInReason::PacketOut);
        }
        c.primary[AsyncKind::PacketIn as usize] = pins;
        c.primary[AsyncKind::PortStatus as usize] = 7;
        c.secondary[AsyncKind::PortStatus as usize] = 7;
        c.primary[AsyncKind::FlowRemoved as usize] = match self.version() {
            Some(v) if v >= Version::V14 => 0x3f,
            Some(Version::V13) => 0xf,
            _ => 7,
        };
        c
    }

    /// Whether it gets an asynchronous message of this kind and reason.
    pub fn wants(&self, kind: AsyncKind, reason: u32) -> bool {
        if !self.is_ready() || (self.kind == Kind::Service && self.miss_send_len == 0) {
            return false;
        }
        let masks = self.async_masks();
        let by_role = if self.role == Role::Secondary { masks.secondary } else { masks.primary };
        by_role[kind as usize] >> reason & 1 != 0
    }

    /// Whether a miss of a table without configuration should come to it. Who has not asked for any bytes gets no packet-ins:
    /// tools that come and go change no flow.
    pub fn wants_misses(&self) -> bool {
        let listens = match self.kind {
            Kind::Snoop => false,
            Kind::Service => self.miss_send_len > 0,
            Kind::Primary => true,
        };
        listens && self.controller_id == 0 && self.version() < Some(Version::V13)
    }

    /// Counts a flow_mod for the log.
    pub fn count_flow_mod(&mut self, command: FlowModCommand, now: Instant) {
        let o = &mut self.ops;
        match command {
            FlowModCommand::Add => o.adds += 1,
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => o.modifications += 1,
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => o.deletes += 1,
        }
        if o.due.is_none() {
            let due = now.plus_ms(10_000).max(o.backoff.unwrap_or(Instant::ZERO));
            o.first = Some(now);
            o.due = Some(due);
            o.backoff = Some(due.plus_ms(60_000));
        }
        o.last = Some(now);
    }
    /// When the log should hear of flow_mods.
    pub fn ops_deadline(&self) -> Option<Instant> {
        self.ops.due
    }
    /// Tells the log what flow_mods there were.
    pub fn log_flow_mods(&mut self, now: Instant) {
        let o = &mut self.ops;
        let (Some(first), Some(last)) = (o.first.take(), o.last) else { return };
        let n = o.adds + o.deletes + o.modifications;
        let mut parts = Vec::new();
        for (count, what) in [(o.adds, "adds"), (o.deletes, "deletes"), (o.modifications, "modifications")] {
            if count != 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let parts = parts.join(", ");
        let interval = last.since(first).as_secs();
        let ago = now.since(first).as_secs();
        let name = &self.log_name;
        if interval == ago {
            vlog_info!(CONNMGR, "{name}: {n} flow_mods in the last {interval} s ({parts})");
        } else {
            vlog_info!(CONNMGR, "{name}: {n} flow_mods in the {interval} s starting {ago} s ago ({parts})");
        }
        *o = OpReport { backoff: o.backoff, ..OpReport::default() };
    }
}
