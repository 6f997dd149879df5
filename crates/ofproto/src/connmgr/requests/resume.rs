//! NXT_RESUME: a packet that `controller(pause)` handed out comes back, and its translation goes on.
//!
//! The continuation names a state that the switch has kept ([`crate::continuation`]); packet and metadata
//! are what the controller sends, possibly changed.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::extract::extract;
use ib_flow::{Flow, Metadata, OfPort};
use ib_openflow::error::OfError;
use ib_openflow::message::PacketIn;
use ib_packet::Packet;

use super::packet_out::{copy_pipeline_fields, send};
use crate::continuation::state_of;
use crate::recirc::RecircEntry;
use crate::switch::Bridge;
use crate::xlate::Xin;

/// Goes on with a paused packet.
pub(super) fn resume(bridge: &mut Bridge, pin: &PacketIn, now: Instant) -> Result<(), OfError> {
    let id = state_of(&pin.continuation).ok_or(OfError::NXR_STALE)?;
    let entry = bridge.backer.recirc.find(id).ok_or(OfError::NXR_STALE)?;
    let packet = Packet::from_frame(&pin.data);
    let mut flow = Flow::default();
    extract(&packet, &Metadata::default(), &mut flow);
    let m = &pin.metadata.flow;
    copy_pipeline_fields(&pin.metadata, &mut flow);
    flow.in_port = m.in_port;
    flow.recirc_id = id;
    (flow.ct_state, flow.ct_zone, flow.ct_mark) = (m.ct_state, m.ct_zone, m.ct_mark);
    flow.ct_label = m.ct_label;
    flow.actset_output = OfPort::UNSET;
    let mut state = entry.state.clone();
    state.metadata.regs = flow.regs;
    state.metadata.metadata = flow.metadata;
    // Actions bring the cookie along that they need.
    state.rule_cookie = 0;
    state.metadata.in_port = OfPort(m.in_port as u16);

    bridge.publish();
    let cfg = bridge.backer.xcfg.load();
    let xbridge = cfg.bridges.get(&state.bridge).ok_or(OfError::NXR_STALE)?;
    let mut xin = Xin::new(xbridge, &flow);
    xin.packet = Some(&packet);
    xin.side_effects = true;
    xin.frozen = Some(Arc::new(RecircEntry::new(id, state)));
    send(bridge, xin, &packet, &flow, now);
    Ok(())
}
