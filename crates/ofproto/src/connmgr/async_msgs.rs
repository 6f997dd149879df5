//! What the switch sends unasked: packet-ins, flow removals, port, role and request news.
//!
//! The core queues packets and flow events; [`packet_ins`] and [`flow_events`] hand them to the connections
//! that want them, each in its format. A connection that does not read gets no more packet-ins once as many as
//! its queue's size wait for it, or [`ib_openflow::session::SEND_LIMIT`] bytes of one turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::OfPort;
use ib_openflow::message::{
    AsyncKind, FlowModFlags, FlowRemoved, FlowRemovedReason, Message, PacketIn, PacketInReason,
    Port as PortDesc, PortReason, PortStatus, RequestForward, Role, RoleStatus, Version,
};

use super::ConnMgr;
use super::conn::{Conn, Kind};
use super::requests::{rule_match, vacancy_event};
use super::{age, monitor};
use crate::flow_mod::{FlowEvent, Origin};
use crate::ofproto::QueuedPacketIn;
use crate::rule::Rule;
use crate::switch::Bridge;

impl ConnMgr {
    /// Tells of a port that was added, removed or changed.
    ///
    /// A connection whose version does not show what changed hears nothing.
    pub(crate) fn send_port_status(&mut self, reason: PortReason, port: PortDesc) {
        let old = match reason {
            PortReason::Delete => self.ports_told.remove(&port.port_no),
            _ => self.ports_told.insert(port.port_no, port.clone()),
        };
        let old = old.filter(|_| reason == PortReason::Modify);
        let old = old.map(|port| Message::PortStatus(PortStatus { reason, port }));
        let message = Message::PortStatus(PortStatus { reason, port });
        for c in self.conns.values_mut() {
            if c.wants(AsyncKind::PortStatus, reason as u32) {
                let bytes = c.encode(&message, 0);
                if old.as_ref().is_none_or(|o| c.encode(o, 0) != bytes) {
                    c.send_bytes(bytes);
                }
            }
        }
    }
}

/// Tells a controller that another one took its role, whatever it said of asynchronous messages: it must not go on as if
/// nothing had happened.
pub(super) fn role_status(conn: &mut Conn, election: Option<u64>) {
    const ANOTHER_IS_PRIMARY: u8 = 0;
    if conn.version() >= Some(Version::V13) {
        let status = RoleStatus {
            role: Role::Secondary,
            reason: ANOTHER_IS_PRIMARY,
            generation_id: election.unwrap_or(u64::MAX),
        };
        conn.send(&Message::RoleStatus(status), 0);
    }
}

/// Tells a controller of another one's group_mod or meter_mod.
pub(super) fn request_forward(conn: &mut Conn, request: RequestForward) {
    conn.send(&Message::RequestForward(Box::new(request)), 0);
}

/// Hands on what happened to flows.
pub(super) fn flow_events(bridge: &mut Bridge, now: Instant) {
    let events = bridge.of.take_flow_events();
    if events.is_empty() {
        return;
    }
    for (event, _) in &events {
        if let FlowEvent::Removed(rule, reason) = event
            && rule.flags & FlowModFlags::SEND_FLOW_REM != 0
            && !rule.is_hidden()
        {
            flow_removed(&mut bridge.connmgr, rule, *reason, now);
        }
    }
    monitor::events(&mut bridge.connmgr, &events, now);
    vacancy_events(bridge, &events);
}

/// Tells of tables that filled up or emptied.
fn vacancy_events(bridge: &mut Bridge, events: &[(FlowEvent, Origin)]) {
    let tables: BTreeSet<u8> = events
        .iter()
        .filter_map(|(event, _)| match event {
            FlowEvent::Added(rule, _) | FlowEvent::Removed(rule, _) => Some(rule.table),
            FlowEvent::Modified(..) => None,
        })
        .collect();
    for table in tables {
        let Some(status) = vacancy_event(&bridge.of, table) else { continue };
        let reason = u32::from(status.reason);
        let message = Message::TableStatus(status);
        for c in bridge.connmgr.conns.values_mut() {
            if c.wants(AsyncKind::TableStatus, reason) {
                c.send(&message, 0);
            }
        }
    }
}

fn flow_removed(mgr: &mut ConnMgr, rule: &Arc<Rule>, reason: FlowRemovedReason, now: Instant) {
    if !mgr.conns.values().any(|c| c.wants(AsyncKind::FlowRemoved, reason.code().into())) {
        return;
    }
    let (duration_sec, duration_nsec) = age(now, rule.created);
    let (packet_count, byte_count) = rule.stats();
    let message = Message::FlowRemoved(Box::new(FlowRemoved {
        match_: rule_match(rule, mgr.tlv_id()),
        cookie: rule.cookie,
        priority: u16::try_from(rule.priority()).unwrap_or(u16::MAX),
        reason,
        table_id: rule.table,
        duration_sec,
        duration_nsec,
        idle_timeout: rule.idle_timeout(),
        hard_timeout: rule.hard_timeout(),
        packet_count,
        byte_count,
    }));
    for c in mgr.conns.values_mut() {
        if c.wants(AsyncKind::FlowRemoved, reason.code().into()) {
            c.send(&message, 0);
        }
    }
}

/// Hands on packets for controllers, and those that waited for a rate limit.
pub(super) fn packet_ins(bridge: &mut Bridge, now: Instant) {
    for c in bridge.connmgr.conns.values_mut() {
        for i in 0..c.pinscheds.len() {
            for m in c.pinscheds[i].due(now) {
                send_packet_in(c, m);
            }
        }
    }
    for queued in bridge.of.take_packet_ins() {
        for c in bridge.connmgr.conns.values_mut() {
            packet_in(c, &queued, now);
        }
    }
}

/// The reason in words that the connection's version has.
fn wire_reason(reason: PacketInReason, version: Version) -> PacketInReason {
    use PacketInReason as R;
    match reason {
        R::ExplicitMiss if version < Version::V13 => R::Action,
        R::ActionSet | R::Group | R::PacketOut if version < Version::V14 => R::Action,
        R::ExplicitMiss | R::ImplicitMiss => R::NoMatch,
        r => r,
    }
}

fn packet_in(c: &mut Conn, queued: &QueuedPacketIn, now: Instant) {
    if c.kind == Kind::Snoop || c.controller_id != queued.controller_id || c.session.is_congested() {
        return;
    }
    let Some(version) = c.version() else { return };
    let reason = wire_reason(queued.pin.reason, version);
    // From 1.3 on, what a table does with misses is said by a flow, or it drops them.
    if queued.pin.reason == PacketInReason::ImplicitMiss && version >= Version::V13 {
        return;
    }
    if !c.wants(AsyncKind::PacketIn, reason as u32) {
        return;
    }
    // Lengths limit what is sent of packets that are buffered. None are.
    let continuation = match &queued.paused {
        Some((entry, odp)) => crate::continuation::build(entry, odp.0, version),
        None => Vec::new(),
    };
    let pin = PacketIn { reason, continuation, format: c.packet_in_format, ..queued.pin.clone() };
    let bytes = c.encode(&Message::PacketIn(Box::new(pin)), 0);
    let port = OfPort(u16::try_from(queued.pin.metadata.flow.in_port).unwrap_or(OfPort::NONE.0));
    if let Some(m) = c.pinscheds[usize::from(!queued.is_miss)].offer(port, bytes, now) {
        send_packet_in(c, m);
    }
}

/// Sends a packet-in, unless too many wait for a peer that does not read.
fn send_packet_in(c: &mut Conn, bytes: Vec<u8>) {
    if let Some(backlog) = &mut c.blocked {
        if backlog.packet_ins >= c.queue_size {
            ib_base::coverage::rconn_overflow.inc();
            return;
        }
        backlog.packet_ins += 1;
    }
    c.send_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_have_fewer_reasons() {
        use PacketInReason as R;
        let check = |r, v, expect| assert_eq!(wire_reason(r, v), expect, "{r:?} in {v:?}");
        check(R::ExplicitMiss, Version::V10, R::Action);
        check(R::ExplicitMiss, Version::V13, R::NoMatch);
        check(R::ImplicitMiss, Version::V10, R::NoMatch);
        check(R::Group, Version::V13, R::Action);
        check(R::Group, Version::V14, R::Group);
        check(R::InvalidTtl, Version::V10, R::InvalidTtl);
    }
}
