//! Requests about the switch as a whole and about the connection: features, configuration, roles,
//! asynchronous messages, formats.

use ib_base::vlog::module::OFPROTO;
use ib_base::vlog_warn_rl;
use ib_flow::OfPort;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    ActionBits, AsyncConfig, AsyncKind, Capabilities, FlowFormat, FragHandling, Message, PacketInReason,
    Port, Role, RoleMessage, SwitchConfig, SwitchFeatures, Version,
};
use ib_openflow::raw::{self, Raw};
use ib_openflow::wire::Buf;

use super::Cx;
use crate::connmgr::async_msgs;
use crate::connmgr::conn::{DEFAULT_MISS_SEND_LEN, Kind};
use crate::ofproto::INTERNAL_TABLE;
use crate::switch::Bridge;

/// The bit of packets whose TTL ran out.
const INVALID_TTL: u32 = 1 << PacketInReason::InvalidTtl as u32;

/// Descriptions of all ports, the local one first.
pub(super) fn all_ports(bridge: &Bridge) -> Vec<Port> {
    let mut ports: Vec<Port> = bridge.ports.values().map(|p| p.description()).collect();
    ports.sort_by_key(|p| (p.port_no != OfPort::LOCAL, p.port_no));
    ports
}

pub(super) fn features(cx: &mut Cx<'_>) {
    let f = SwitchFeatures {
        datapath_id: cx.bridge.datapath_id,
        n_buffers: 0,
        n_tables: INTERNAL_TABLE,
        auxiliary_id: 0,
        capabilities: Capabilities::FLOW_STATS
            | Capabilities::TABLE_STATS
            | Capabilities::PORT_STATS
            | Capabilities::GROUP_STATS
            | Capabilities::QUEUE_STATS
            | Capabilities::ARP_MATCH_IP
            | if cx.version() >= Version::V14 { Capabilities::BUNDLES } else { 0 },
        actions: ActionBits::ALL,
        ports: all_ports(cx.bridge),
    };
    cx.reply(&Message::FeaturesReply(f));
}

pub(super) fn get_config(cx: &mut Cx<'_>) {
    let of = &cx.bridge.of;
    let config = SwitchConfig {
        frag: of.frag_handling(),
        invalid_ttl_to_controller: Some(
            cx.conn.async_masks().primary[AsyncKind::PacketIn as usize] & INVALID_TTL != 0,
        ),
        miss_send_len: cx.conn.miss_send_len,
    };
    cx.reply(&Message::GetConfigReply(config));
}

pub(super) fn set_config(cx: &mut Cx<'_>, config: &SwitchConfig) -> Result<(), OfError> {
    if cx.conn.kind != Kind::Primary || cx.conn.role != Role::Secondary {
        let of = &cx.bridge.of;
        // There is nobody here to reassemble fragments.
        if config.frag != FragHandling::Reassemble {
            of.set_frag_handling(config.frag);
        } else {
            let name = &of.name;
            vlog_warn_rl!(OFPROTO, (1, 5), "{name}: unsupported fragment handling mode reassemble");
        }
    }
    if let Some(on) = config.invalid_ttl_to_controller.filter(|_| cx.version() < Version::V13) {
        let mut masks = cx.conn.async_masks();
        let mask = &mut masks.primary[AsyncKind::PacketIn as usize];
        if (*mask & INVALID_TTL != 0) != on {
            *mask ^= INVALID_TTL;
            cx.conn.async_config = Some(masks);
        }
    }
    cx.conn.miss_send_len = config.miss_send_len;
    Ok(())
}

/// A generation that is older than one seen before comes from a controller that lost an election.
fn is_stale(new: u64, seen: Option<u64>) -> bool {
    seen.is_some_and(|old| new.wrapping_sub(old) as i64 >= 0) != seen.is_some()
}

pub(super) fn role(cx: &mut Cx<'_>, request: &RoleMessage) -> Result<(), OfError> {
    if request.role != Role::NoChange {
        if let Some(generation) = request.generation_id.filter(|_| request.role != Role::Equal) {
            if is_stale(generation, cx.bridge.connmgr.election) {
                return Err(OfError::OFPRRFC_STALE);
            }
            cx.bridge.connmgr.election = Some(generation);
        }
        if request.role == Role::Primary {
            let election = cx.bridge.connmgr.election;
            for other in cx.bridge.connmgr.conns.values_mut().filter(|c| c.role == Role::Primary) {
                other.role = Role::Secondary;
                async_msgs::role_status(other, election);
            }
        }
        cx.conn.role = request.role;
    }
    let reply = RoleMessage { role: cx.conn.role, generation_id: cx.bridge.connmgr.election };
    if cx.name == "NXT_ROLE_REQUEST" {
        nx_role_reply(cx, reply.role);
    } else {
        cx.reply(&Message::RoleReply(reply));
    }
    Ok(())
}

/// Nicira's form answers Nicira's request in every version.
fn nx_role_reply(cx: &mut Cx<'_>, role: Role) {
    let mut b = Buf::default();
    raw::begin(&mut b, Raw::NxRoleReply, cx.version(), cx.xid);
    b.u32(match role {
        Role::NoChange | Role::Equal => 0,
        Role::Primary => 1,
        Role::Secondary => 2,
    });
    raw::finish(&mut b, 0);
    cx.conn.send_bytes(b.0);
}

pub(super) fn get_async(cx: &mut Cx<'_>) {
    let mut masks = cx.conn.async_masks();
    if cx.version() < Version::V14 {
        // Reasons that its reply has words for; more may have been set.
        const KNOWN: [u32; 3] = [7, 7, 0x3f];
        for (i, known) in KNOWN.into_iter().enumerate() {
            masks.primary[i] &= known;
            masks.secondary[i] &= known;
        }
    }
    cx.reply(&Message::GetAsyncReply(masks));
}

pub(super) fn set_async(cx: &mut Cx<'_>, wish: &AsyncConfig) -> Result<(), OfError> {
    let mut masks = cx.conn.async_masks();
    if cx.version() < Version::V14 || cx.name != "OFPT_SET_ASYNC" {
        // The old forms say nothing of the younger kinds of messages: there are none then.
        masks = AsyncConfig { present: masks.present, ..AsyncConfig::default() };
    }
    for i in 0..6 {
        if wish.present >> i & 1 != 0 {
            masks.primary[i] = wish.primary[i];
        }
        if wish.present >> (i + 8) & 1 != 0 {
            masks.secondary[i] = wish.secondary[i];
        }
    }
    cx.conn.async_config = Some(masks);
    if cx.conn.kind == Kind::Service && cx.conn.miss_send_len == 0 {
        cx.conn.miss_send_len = DEFAULT_MISS_SEND_LEN;
    }
    Ok(())
}

pub(super) fn set_flow_format(cx: &mut Cx<'_>, format: FlowFormat) -> Result<(), OfError> {
    if cx.version() == Version::V10 {
        cx.conn.nxm = format == FlowFormat::Nxm;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_wrap() {
        assert!(!is_stale(5, None));
        assert!(!is_stale(5, Some(5)));
        assert!(!is_stale(6, Some(5)));
        assert!(is_stale(4, Some(5)));
        assert!(!is_stale(0, Some(u64::MAX)));
        assert!(is_stale(u64::MAX, Some(0)));
    }
}
