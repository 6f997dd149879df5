//! flow_mods.

use ib_flow::OfPort;
use ib_flow::fields::Protocols;
use ib_flow::tlv::TlvTable;
use ib_openflow::action_check::{CheckParams, check_for, unbound_tlv};
use ib_openflow::error::OfError;
use ib_openflow::message::{FlowMod, FlowModCommand, FlowModFlags, NO_BUFFER, OFPTT_ALL, Version};

use super::Cx;
use crate::connmgr::conn::Conn;
use crate::flow_mod::rule_mod;
use crate::ofproto::N_TABLES;

/// The protocol that a connection speaks.
pub(crate) fn protocol(conn: &Conn) -> Protocols {
    match conn.version().unwrap_or(Version::V10) {
        Version::V10 if conn.nxm => Protocols::OF10_NXM_ANY,
        Version::V10 => Protocols::OF10_STD_ANY.or(Protocols::OF10_NXM_ANY),
        Version::V11 => Protocols::OF11_STD,
        v => Protocols(1 << (v.to_wire() + 2)),
    }
}

/// OpenFlow 1.0: without NXT_FLOW_MOD_TABLE_ID the byte of the table belongs to the command, and all are meant.
fn table_of(conn: &Conn, fm: &mut FlowMod) -> Result<(), OfError> {
    if conn.version() == Some(Version::V10) && !conn.flow_mod_table_id {
        if fm.table_id != 0 {
            return Err(OfError::OFPFMFC_BAD_COMMAND);
        }
        fm.table_id = OFPTT_ALL;
    }
    Ok(())
}

/// Completes a flow_mod with what its version implies, and checks that its actions suit its match, this switch
/// and the connection's protocol.
pub(crate) fn check_flow_mod(conn: &Conn, tlv: Option<&TlvTable>, fm: &mut FlowMod) -> Result<(), OfError> {
    let bound = |n| tlv.is_some_and(|t| t.len_of(n).is_some());
    if unbound_tlv(&fm.actions, &bound).is_some() {
        return Err(OfError::NXFMFC_INVALID_TLV_FIELD);
    }
    table_of(conn, fm)?;
    if fm.command == FlowModCommand::Add && conn.version() < Some(Version::V12) {
        fm.flags |= FlowModFlags::RESET_COUNTS;
    }
    let params = CheckParams {
        max_ports: OfPort::MAX,
        table: fm.table_id,
        n_tables: u8::try_from(N_TABLES).unwrap_or(255),
    };
    check_for(&fm.actions, &fm.match_, params, protocol(conn))
}

/// Whether it asks for a packet out of a buffer. There are none; who deletes does not look.
pub(crate) fn names_buffer(fm: &FlowMod) -> bool {
    let delete = matches!(fm.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
    fm.buffer_id != NO_BUFFER && !delete
}

pub(super) fn flow_mod(cx: &mut Cx<'_>, mut fm: FlowMod) -> Result<(), OfError> {
    check_flow_mod(cx.conn, cx.bridge.connmgr.tlv.as_deref(), &mut fm)?;
    if names_buffer(&fm) {
        return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
    }
    let command = fm.command;
    cx.bridge.of.flow_mod(rule_mod(fm), cx.origin(), cx.now)?;
    cx.conn.count_flow_mod(command, cx.now);
    Ok(())
}
