//! Answers to controllers' messages: one function a kind, grouped by what they touch.
//!
//! [`handle`] takes one whole message. What goes wrong is an [`OfError`] that turns into an OpenFlow error
//! here and nowhere else. The connection is out of the manager's map meanwhile, so that handlers may reach
//! the other ones.

mod config;
mod ct_flush;
mod flows;
mod groups;
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
use ib_openflow::raw::{Raw, identify, parse_header};

use super::conn::{Conn, Kind};
use super::{bundle, monitor};
use crate::flow_mod::Origin;
use crate::switch::Bridge;

pub(super) use flows::check_flow_mod;
pub(super) use packet_out::packet_out;
pub(super) use ports::port_mod;
pub(super) use stats::{rule_match, send as send_multipart};

/// A request under way.
pub(super) struct Cx<'a> {
    pub bridge: &'a mut Bridge,
    pub conn: &'a mut Conn,
    /// Name of its kind: `OFPT_FLOW_MOD`.
    pub name: &'static str,
    pub xid: u32,
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
    /// Secondary controllers may only look.
    pub fn reject_secondary(&self) -> Result<(), OfError> {
        if self.conn.role == Role::Secondary { Err(OfError::OFPBRC_IS_SECONDARY) } else { Ok(()) }
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
    // The beginning of a multipart request: nothing is answered before its end, and only
    // empty bodies come in parts, but for features of tables.
    if id.is_ok_and(|i| {
        i.flags & 1 != 0 && i.kind.name.ends_with(" request") && i.kind.raw != Raw::TableFeaturesRequest
    }) {
        return;
    }
    let result = match decode_with(bytes, tlv) {
        Ok(d) => {
            admit(bridge, conn, &d.message, now);
            let mut cx = Cx { bridge, conn, name: d.name, xid, now };
            dispatch(&mut cx, d.message)
        }
        Err(e) => Err(e),
    };
    if let Err(error) = result {
        refuse(conn, error, name, bytes);
    }
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
        M::GetAsyncRequest => {
            let masks = cx.conn.async_masks();
            cx.reply(&M::GetAsyncReply(masks));
        }
        M::SetAsync(a) => config::set_async(cx, &a)?,
        M::SetFlowFormat(f) => config::set_flow_format(cx, f)?,
        M::FlowModTableId(on) => cx.conn.flow_mod_table_id = on,
        M::SetPacketInFormat(f) => cx.conn.packet_in_format = f,
        M::SetControllerId(id) => cx.conn.controller_id = id,
        M::PacketOut(p) => {
            cx.reject_secondary()?;
            packet_out(cx.bridge, &p, cx.now)?;
        }
        M::FlowMod(mut fm) => flows::flow_mod(cx, &mut fm)?,
        M::GroupMod(gm) => groups::group_mod(cx, &gm)?,
        M::MeterMod(mm) => groups::meter_mod(cx, &mm)?,
        M::PortMod(pm) => {
            cx.reject_secondary()?;
            port_mod(cx.bridge, &pm)?;
        }
        M::TableMod(tm) => tables::table_mod(cx, &tm)?,
        M::QueueGetConfigRequest(q) => ports::queue_config(cx, q)?,
        M::MultipartRequest(r) => stats::multipart(cx, r)?,
        M::BundleControl(b) => bundle::control(cx, &b)?,
        M::BundleAdd(b) => bundle::add(cx, b)?,
        M::FlowMonitorCancel(id) => monitor::cancel(cx, id)?,
        M::TlvTableMod(m) => {
            cx.reject_secondary()?;
            tlv::modify(cx, &m)?;
        }
        M::TlvTableRequest => tlv::request(cx),
        M::CtFlushZone(zone) => {
            cx.reject_secondary()?;
            ct_flush::zone(cx, zone);
        }
        M::CtFlush(f) => {
            cx.reject_secondary()?;
            ct_flush::flush(cx, &f);
        }
        M::Resume(p) => {
            cx.reject_secondary()?;
            resume::resume(cx.bridge, &p, cx.now)?;
        }
        M::MultipartReply(_) => return Err(OfError::OFPBRC_BAD_STAT),
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
        | M::TableStatus(_)
        | M::RequestForward(_) => return Err(OfError::OFPBRC_BAD_TYPE),
    }
    Ok(())
}
