//! Answers to controllers' messages: one function a kind, grouped by what they touch.
//!
//! [`handle`] takes one whole message. What goes wrong is an [`OfError`] that turns into an OpenFlow error
//! here and nowhere else. The connection is out of the manager's map meanwhile, so that handlers may reach
//! the other ones.

mod config;
mod ct_flush;
mod flows;
mod groups;
mod listing;
mod packet_out;
mod ports;
mod resume;
mod stats;
mod tables;
mod tlv;

use ib_base::time::Instant;
use ib_base::vlog::module::CONNMGR;
use ib_base::vlog_info_rl;
use ib_openflow::decode::decode_with;
use ib_openflow::encode::encode_error;
use ib_openflow::error::OfError;
use ib_openflow::message::{Message, Role, Version};
use ib_openflow::raw::{Class, Identified, Raw, identify, identify_kind, parse_header};

use super::conn::{Conn, Kind};
use super::parts::Whole;
use super::{bundle, monitor};
use crate::flow_mod::Origin;
use crate::switch::Bridge;

pub(super) use flows::{check_flow_mod, names_buffer};
pub(super) use listing::FlowListing;
pub(super) use packet_out::packet_out;
pub(super) use ports::port_mod;
pub(super) use stats::{rule_match, send as send_multipart};
pub(super) use tables::vacancy_event;

/// A request under way.
pub(super) struct Cx<'a> {
    pub bridge: &'a mut Bridge,
    pub conn: &'a mut Conn,
    /// Name of its kind: `OFPT_FLOW_MOD`.
    pub name: &'static str,
    pub xid: u32,
    /// The whole message.
    pub bytes: &'a [u8],
    pub now: Instant,
}

impl Cx<'_> {
    pub fn reply(&mut self, message: &Message) {
        let xid = self.xid;
        self.conn.send(message, xid);
    }
    pub fn version(&self) -> Version {
        self.conn.version().unwrap_or(Version::V10)
    }
    pub fn origin(&self) -> Origin {
        Origin { conn: self.conn.id.0, xid: self.xid }
    }
}

/// Handles one message.
pub(super) fn handle(bridge: &mut Bridge, conn: &mut Conn, bytes: &[u8], now: Instant) {
    if let Some(s) = &mut conn.snooped {
        s.push(bytes.to_vec());
    }
    let xid = parse_header(bytes).map_or(0, |h| h.xid);
    let tlv = bridge.connmgr.tlv_id();
    let id = identify(bytes);
    let name = id.as_ref().map(|i| i.kind.name).ok();
    let mut quoted = None;
    let result = match id {
        Ok(i) => match conn.parts.take(&i, xid, bytes, now) {
            Ok(Whole::Message) => permit(conn, &i).and_then(|()| decode_with(bytes, tlv)),
            Ok(Whole::Earlier(first)) => decode_with(&first, tlv),
            Ok(Whole::NotYet) => return,
            Err((e, first)) => {
                quoted = first;
                Err(e)
            }
        },
        // An empty part of a request says nothing yet, whatever a whole one must hold.
        Err(e) => match identify_kind(bytes) {
            Ok(i) if i.body.is_empty() => match conn.parts.take(&i, xid, bytes, now) {
                Ok(Whole::NotYet) => return,
                _ => Err(e),
            },
            _ => Err(e),
        },
    };
    let result = result.and_then(|d| {
        admit(bridge, conn, &d.message, now);
        let mut cx = Cx { bridge, conn, name: d.name, xid, bytes, now };
        dispatch(&mut cx, d.message)
    });
    if let Err(error) = result {
        refuse(conn, error, name, quoted.as_deref().unwrap_or(bytes));
    }
}

/// What can be said of a message before it is read: whether controllers send such, and whether this one may.
/// Secondary controllers may only look.
fn permit(conn: &Conn, id: &Identified<'_>) -> Result<(), OfError> {
    let raw = id.kind.raw;
    let name = raw.kind().name;
    let told = name.ends_with("_REPLY")
        || matches!(
            name,
            "OFPT_ERROR"
                | "OFPT_PACKET_IN"
                | "NXT_PACKET_IN"
                | "NXT_PACKET_IN2"
                | "OFPT_FLOW_REMOVED"
                | "NXT_FLOW_REMOVED"
                | "OFPT_PORT_STATUS"
                | "OFPT_ROLE_STATUS"
                | "ONFT_ROLE_STATUS"
                | "OFPT_TABLE_STATUS"
                | "OFPT_REQUESTFORWARD"
                | "ONFT_REQUESTFORWARD"
        );
    if told && raw != Raw::EchoReply || matches!(raw.kind().class, Class::Reply | Class::VendorReply(_)) {
        return Err(OfError::OFPBRC_BAD_TYPE);
    }
    let changes = matches!(
        name,
        "OFPT_PACKET_OUT"
            | "OFPT_FLOW_MOD"
            | "NXT_FLOW_MOD"
            | "OFPT_GROUP_MOD"
            | "NXT_GROUP_MOD"
            | "OFPT_METER_MOD"
            | "OFPT_PORT_MOD"
            | "OFPT_TABLE_MOD"
            | "NXT_TLV_TABLE_MOD"
            | "OFPT_BUNDLE_CONTROL"
            | "ONFT_BUNDLE_CONTROL"
            | "OFPT_BUNDLE_ADD_MESSAGE"
            | "ONFT_BUNDLE_ADD_MESSAGE"
    );
    if changes && conn.role == Role::Secondary {
        return Err(OfError::OFPBRC_IS_SECONDARY);
    }
    // The high byte of OpenFlow 1.0's command is a table if that was agreed on.
    let command_at = match raw {
        Raw::FlowMod10 => 48,
        Raw::NxFlowMod if id.version == Version::V10 => 8,
        _ => return Ok(()),
    };
    if !conn.flow_mod_table_id && id.body.get(command_at).is_some_and(|table| *table != 0) {
        return Err(OfError::OFPFMFC_BAD_COMMAND);
    }
    Ok(())
}

/// Sends an error about a message.
pub(super) fn refuse(conn: &mut Conn, error: OfError, name: Option<&str>, bytes: &[u8]) {
    let what = name.map_or("invalid".to_owned(), str::to_owned);
    vlog_info_rl!(
        CONNMGR,
        (10, 10),
        "{}: sending {} error reply to {what} message",
        conn.log_name,
        error.name()
    );
    let version = conn.version().unwrap_or(Version::V10);
    conn.send_bytes(encode_error(error, version, bytes));
}

/// Lets a primary controller's backoff know that it takes the switch on.
fn admit(bridge: &mut Bridge, conn: &Conn, message: &Message, now: Instant) {
    if conn.kind != Kind::Primary {
        return;
    }
    let substantial = matches!(
        message,
        Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MeterMod(_)
            | Message::BarrierRequest
            | Message::MultipartRequest(_)
            | Message::RoleRequest(_)
            | Message::SetAsync(_)
            | Message::BundleControl(_)
            | Message::BundleAdd(_)
            | Message::TlvTableMod(_)
            | Message::Resume(_)
    );
    let c = bridge.connmgr.controllers.get_mut(&conn.target);
    if let Some(b) = c.and_then(|c| c.backoff.as_mut()) {
        b.received(substantial, now);
    }
}

fn dispatch(cx: &mut Cx<'_>, message: Message) -> Result<(), OfError> {
    use Message as M;
    match message {
        M::EchoRequest(data) => cx.reply(&M::EchoReply(data)),
        M::EchoReply(_) | M::FlowAge => {}
        M::BarrierRequest => cx.reply(&M::BarrierReply),
        M::FeaturesRequest => config::features(cx),
        M::GetConfigRequest => config::get_config(cx),
        M::SetConfig(c) => config::set_config(cx, &c)?,
        M::RoleRequest(r) => config::role(cx, &r)?,
        M::GetAsyncRequest => config::get_async(cx),
        M::SetAsync(a) => config::set_async(cx, &a)?,
        M::SetFlowFormat(f) => config::set_flow_format(cx, f)?,
        M::FlowModTableId(on) => cx.conn.flow_mod_table_id = on,
        M::SetPacketInFormat(f) => cx.conn.packet_in_format = f,
        M::SetControllerId(id) => cx.conn.controller_id = id,
        M::PacketOut(p) => packet_out(cx.bridge, &p, cx.now)?,
        M::FlowMod(fm) => flows::flow_mod(cx, *fm)?,
        M::GroupMod(gm) => groups::group_mod(cx, &gm)?,
        M::MeterMod(mm) => groups::meter_mod(cx, &mm)?,
        M::PortMod(pm) => port_mod(cx, &pm)?,
        M::TableMod(tm) => tables::table_mod(cx, &tm)?,
        M::QueueGetConfigRequest(q) => ports::queue_config(cx, q)?,
        M::MultipartRequest(r) => stats::multipart(cx, r)?,
        M::BundleControl(b) => bundle::control(cx, &b)?,
        M::BundleAdd(b) => bundle::add(cx, b)?,
        M::FlowMonitorCancel(id) => monitor::cancel(cx, id)?,
        M::TlvTableMod(m) => tlv::modify(cx, &m)?,
        M::TlvTableRequest => tlv::request(cx),
        M::CtFlushZone(zone) => ct_flush::zone(cx, zone)?,
        M::CtFlush(f) => ct_flush::flush(cx, &f),
        M::Resume(p) => resume::resume(cx.bridge, &p, cx.now)?,
        M::Hello(_)
        | M::Error(_)
        | M::FeaturesReply(_)
        | M::GetConfigReply(_)
        | M::PacketIn(_)
        | M::FlowRemoved(_)
        | M::PortStatus(_)
        | M::BarrierReply
        | M::RoleReply(_)
        | M::RoleStatus(_)
        | M::GetAsyncReply(_)
        | M::QueueGetConfigReply(_)
        | M::FlowMonitorPaused
        | M::FlowMonitorResumed
        | M::TlvTableReply(_)
        | M::MultipartReply(_)
        | M::TableStatus(_)
        | M::RequestForward(_) => return Err(OfError::OFPBRC_BAD_TYPE),
    }
    Ok(())
}
