//! Flow monitors: a controller hears of what others do to flows.
//!
//! A monitor sees events of flows that its criteria select. Changes that the controller itself made come
//! abbreviated, as the transaction id alone, unless it asked for its own ones. The updates of one change
//! travel together.
//!
//! A peer that does not read gets no more than [`MAX_WAITING`] bytes of updates, then `PAUSED`. Until it has read them, it hears
//! only of flows gone that it knew; then it gets what else has changed as far as that is still there, and `RESUMED`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_base::time::Instant;
use ib_classifier::MiniMatch;
use ib_flow::Match;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    FlowMonitorRequest, FlowRemovedReason, FlowUpdate, FlowUpdateEvent, Message, MonitorFlags, MultipartBody,
    MultipartReply, OFPTT_ALL, Version,
};

use super::conn::Conn;
use super::requests::{Cx, rule_match, send_multipart};
use super::{ConnId, ConnMgr};
use crate::flow_mod::{Criteria, FlowEvent, Origin, canonical_criteria};
use crate::rule::Rule;
use crate::switch::Bridge;

/// Monitors that a connection may have.
const MAX_MONITORS: usize = 1024;
/// Bytes of updates that may wait for a peer that does not read.
const MAX_WAITING: usize = 128 * 1024;
/// Updates that travel in one message.
const CHUNK: usize = 128;
/// All flags that mean something, OpenFlow 1.4's "only own" included.
const KNOWN_FLAGS: u16 = 0x7f;
/// OFPFMC_ADD, OFPFMC_MODIFY, OFPFMC_DELETE.
const ADD: u8 = 0;
const MODIFY: u8 = 1;
const DELETE: u8 = 2;

/// One monitor.
pub(crate) struct Monitor {
    request: FlowMonitorRequest,
    /// The request's.
    match_: MiniMatch,
}

impl Monitor {
    fn criteria(&self) -> Criteria<'_> {
        let r = &self.request;
        Criteria {
            table: r.table_id,
            match_: &self.match_,
            strict: None,
            cookie: 0,
            cookie_mask: 0,
            out_port: r.out_port,
            out_group: r.out_group,
            hidden: false,
        }
    }
    /// `old`: what the rule takes the place of. That a flow no longer outputs to the port is news about it too.
    fn selects(&self, rule: &Rule, old: Option<&Rule>, tlv: u32) -> bool {
        let r = &self.request;
        (r.table_id == OFPTT_ALL || r.table_id == rule.table)
            && !rule.is_hidden()
            && (rule.outputs_to(r.out_port) || old.is_some_and(|old| old.outputs_to(r.out_port)))
            && rule.uses_group(r.out_group)
            && covers(&r.match_, &rule_match(rule, tlv))
    }
}

/// Whether every packet of `narrow` also meets `wide`.
fn covers(wide: &Match, narrow: &Match) -> bool {
    let (wm, nm) = (wide.mask.0.words(), narrow.mask.0.words());
    let (wf, nf) = (wide.flow.words(), narrow.flow.words());
    (0..wm.len()).all(|i| nm[i] & wm[i] == wm[i] && (nf[i] ^ wf[i]) & wm[i] == 0)
}

/// A request for monitors: the reply lists the flows that are there already.
pub(super) fn request(cx: &mut Cx<'_>, requests: Vec<FlowMonitorRequest>) -> Result<(), OfError> {
    let v14 = cx.version() >= Version::V14;
    let mut added = Vec::new();
    for r in &requests {
        let known = cx.conn.monitors.contains_key(&r.id);
        let result = match r.command {
            _ if r.flags & !KNOWN_FLAGS != 0 => Err(OfError::OFPMOFC_BAD_FLAGS),
            ADD | MODIFY
                if r.flags
                    & (MonitorFlags::INITIAL
                        | MonitorFlags::ADD
                        | MonitorFlags::DELETE
                        | MonitorFlags::MODIFY)
                    == 0 =>
            {
                Err(if v14 { OfError::OFPMOFC_BAD_FLAGS } else { OfError::NXBRC_FM_BAD_EVENT })
            }
            ADD if known => Err(OfError::OFPMOFC_MONITOR_EXISTS),
            ADD if cx.conn.monitors.len() >= MAX_MONITORS => Err(OfError::OFPMOFC_UNKNOWN),
            ADD => Ok(()),
            MODIFY | DELETE if !known => Err(OfError::OFPMOFC_UNKNOWN_MONITOR),
            MODIFY | DELETE => Ok(()),
            _ => Err(OfError::OFPMOFC_BAD_COMMAND),
        };
        if let Err(e) = result {
            for id in added {
                cx.conn.monitors.remove(&id);
            }
            return Err(e);
        }
        if r.command == DELETE {
            cx.conn.monitors.remove(&r.id);
        } else {
            let mut request = r.clone();
            canonical_criteria(&mut request.match_);
            let match_ = MiniMatch::new(&request.match_);
            cx.conn.monitors.insert(r.id, Monitor { request, match_ });
            added.push(r.id);
        }
    }
    let updates = initial(cx, &added);
    send_multipart(cx, MultipartBody::FlowMonitor(updates));
    Ok(())
}

fn initial(cx: &Cx<'_>, ids: &[u32]) -> Vec<FlowUpdate> {
    let of = &cx.bridge.of;
    let tlv = cx.bridge.connmgr.tlv_id();
    let mut seen: Vec<Arc<Rule>> = Vec::new();
    let mut updates = Vec::new();
    for m in ids.iter().filter_map(|id| cx.conn.monitors.get(id)) {
        let r = &m.request;
        if r.flags & MonitorFlags::INITIAL == 0 {
            continue;
        }
        for rule in of.collect(&m.criteria(), of.current_version()).unwrap_or_default() {
            if ids.len() > 1 && seen.iter().any(|s| Arc::ptr_eq(s, &rule)) {
                continue;
            }
            let with_actions = r.flags & MonitorFlags::ACTIONS != 0;
            updates.push(full(&rule, FlowUpdateEvent::Initial, FlowRemovedReason::Delete, with_actions, tlv));
            if ids.len() > 1 {
                seen.push(rule);
            }
        }
    }
    updates
}

fn full(
    rule: &Rule,
    event: FlowUpdateEvent,
    reason: FlowRemovedReason,
    with_actions: bool,
    tlv: u32,
) -> FlowUpdate {
    FlowUpdate::Full {
        event,
        reason,
        match_: Box::new(rule_match(rule, tlv)),
        table_id: rule.table,
        priority: u16::try_from(rule.priority()).unwrap_or(u16::MAX),
        idle_timeout: rule.idle_timeout(),
        hard_timeout: rule.hard_timeout(),
        cookie: rule.cookie,
        actions: if with_actions { rule.actions.to_vec() } else { Vec::new() },
    }
}

/// Ends a monitor.
pub(super) fn cancel(cx: &mut Cx<'_>, id: u32) -> Result<(), OfError> {
    cx.conn.monitors.remove(&id).map(|_| ()).ok_or(OfError::OFPMOFC_UNKNOWN_MONITOR)
}

/// When monitors paused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    seq: u64,
    at: Instant,
}

impl Pause {
    /// Whether a flow has come since.
    fn is_before(self, rule: &Rule) -> bool {
        rule.seq() >= self.seq && rule.created >= self.at
    }
}

/// Tells monitors what happened.
pub(super) fn events(mgr: &mut ConnMgr, events: &[(FlowEvent, Origin)], now: Instant) {
    let tlv = mgr.tlv_id();
    for c in mgr.conns.values_mut().filter(|c| !c.monitors.is_empty() && c.is_ready()) {
        let mut updates = Vec::new();
        for (event, origin) in events {
            if let Some(u) = update(c, event, *origin, tlv)
                && updates.last() != Some(&u)
            {
                updates.push(u);
            }
        }
        send(c, &updates);
        let waiting = c.blocked.map_or(0, |b| b.monitor_bytes);
        if c.monitors_paused.is_none() && waiting > MAX_WAITING {
            ib_base::coverage::ofmonitor_pause.inc();
            c.monitors_paused = Some(Pause { seq: crate::rule::next_seq(), at: now });
            mark(c, Message::FlowMonitorPaused, FlowUpdate::Paused);
        }
    }
}

/// Sends updates, as many as fit in a message.
fn send(c: &mut Conn, updates: &[FlowUpdate]) {
    for chunk in updates.chunks(CHUNK) {
        let body = MultipartBody::FlowMonitor(chunk.to_vec());
        let bytes = c.encode(&Message::MultipartReply(MultipartReply { more: false, body }), 0);
        if let Some(backlog) = &mut c.blocked {
            backlog.monitor_bytes += bytes.len();
        }
        c.send_bytes(bytes);
    }
}

/// Says that monitors pause or go on: a message of its own before OpenFlow 1.4.
fn mark(c: &mut Conn, message: Message, update: FlowUpdate) {
    if c.version() >= Some(Version::V14) {
        send(c, &[update]);
    } else {
        c.send(&message, 0);
    }
}

/// The peer has read everything: it gets what it missed.
pub(super) fn resume(bridge: &mut Bridge, id: ConnId) {
    let tlv = bridge.connmgr.tlv_id();
    let of = &bridge.of;
    let Some(c) = bridge.connmgr.conns.get_mut(&id) else { return };
    let Some(pause) = c.monitors_paused.take() else { return };
    ib_base::coverage::ofmonitor_resume.inc();
    let mut changed: BTreeMap<u64, (Arc<Rule>, u16)> = BTreeMap::new();
    for m in c.monitors.values() {
        for rule in of.collect(&m.criteria(), of.current_version()).unwrap_or_default() {
            let flag = if pause.is_before(&rule) { MonitorFlags::ADD } else { MonitorFlags::MODIFY };
            if rule.seq() >= pause.seq && m.request.flags & flag != 0 {
                changed.entry(rule.seq()).or_insert((rule, 0)).1 |= m.request.flags;
            }
        }
    }
    let updates: Vec<FlowUpdate> = changed
        .into_values()
        .map(|(rule, flags)| {
            let event =
                if pause.is_before(&rule) { FlowUpdateEvent::Added } else { FlowUpdateEvent::Modified };
            full(&rule, event, FlowRemovedReason::Delete, flags & MonitorFlags::ACTIONS != 0, tlv)
        })
        .collect();
    send(c, &updates);
    mark(c, Message::FlowMonitorResumed, FlowUpdate::Resumed);
}

fn update(c: &Conn, event: &FlowEvent, origin: Origin, tlv: u32) -> Option<FlowUpdate> {
    let (rule, old, kind, reason) = match event {
        FlowEvent::Added(r, old) => (r, old.as_deref(), FlowUpdateEvent::Added, FlowRemovedReason::Delete),
        FlowEvent::Modified(r, old) => {
            (r, Some(&**old), FlowUpdateEvent::Modified, FlowRemovedReason::Delete)
        }
        FlowEvent::Removed(r, why) => (r, None, FlowUpdateEvent::Removed, *why),
    };
    let flag = match kind {
        FlowUpdateEvent::Added => MonitorFlags::ADD,
        FlowUpdateEvent::Modified => MonitorFlags::MODIFY,
        _ => MonitorFlags::DELETE,
    };
    if let Some(pause) = c.monitors_paused
        && (kind != FlowUpdateEvent::Removed || pause.is_before(rule))
    {
        return None;
    }
    let flags = c
        .monitors
        .values()
        .filter(|m| m.request.flags & flag != 0 && m.selects(rule, old, tlv))
        .fold(0, |all, m| all | m.request.flags);
    if flags == 0 {
        return None;
    }
    if origin.conn == c.id.0 && flags & MonitorFlags::OWN == 0 {
        return Some(FlowUpdate::Abbrev { xid: origin.xid });
    }
    let with_actions = flags & MonitorFlags::ACTIONS != 0;
    Some(full(rule, kind, reason, with_actions, tlv))
}
