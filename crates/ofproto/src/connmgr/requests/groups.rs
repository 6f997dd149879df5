//! group_mods and meter_mods.

use ib_openflow::error::OfError;
use ib_openflow::message::{AsyncKind, GroupMod, MeterMod, RequestForward};

use super::Cx;
use crate::connmgr::async_msgs;

/// `OFPRFR_*`.
const GROUP_MOD: u32 = 0;
const METER_MOD: u32 = 1;

pub(super) fn group_mod(cx: &mut Cx<'_>, gm: &GroupMod) -> Result<(), OfError> {
    cx.bridge.of.group_mod(gm, cx.now)?;
    forward(cx, GROUP_MOD, || RequestForward::Group(gm.clone()));
    Ok(())
}

pub(super) fn meter_mod(cx: &mut Cx<'_>, mm: &MeterMod) -> Result<(), OfError> {
    let backer = std::sync::Arc::clone(&cx.bridge.backer);
    cx.bridge.of.meter_mod(&backer, mm, cx.now)?;
    forward(cx, METER_MOD, || RequestForward::Meter(mm.clone()));
    Ok(())
}

/// Tells other controllers that asked for it.
fn forward(cx: &mut Cx<'_>, reason: u32, request: impl Fn() -> RequestForward) {
    for other in cx.bridge.connmgr.conns.values_mut() {
        if other.wants(AsyncKind::RequestForward, reason) {
            async_msgs::request_forward(other, request());
        }
    }
}
