//! Packets from controllers: translated like any other, with the controller's actions, and executed once.

use ib_dpif::Execute;
use ib_flow::extract::extract;
use ib_flow::fields::Protocols;
use ib_flow::{Flow, Match, Metadata, OdpPort, OfPort};
use ib_openflow::action_check::{CheckParams, check_for};
use ib_openflow::error::OfError;
use ib_openflow::message::{NO_BUFFER, PacketOut};
use ib_packet::Packet;

use ib_base::time::Instant;

use crate::flow_mod::check_actions;
use crate::ofproto::N_TABLES;
use crate::rule::PushStats;
use crate::switch::Bridge;
use crate::xlate::{self, Xin};

/// Sends a packet as a controller says.
pub(crate) fn packet_out(bridge: &mut Bridge, po: &PacketOut, now: Instant) -> Result<(), OfError> {
    if po.buffer_id != NO_BUFFER {
        return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
    }
    let in_port = po.metadata.flow.of_in_port();
    let packet = Packet::from_frame(&po.data);
    let mut flow = Flow::default();
    extract(&packet, &Metadata::default(), &mut flow);
    flow.in_port = in_port.0.into();
    flow.recirc_id = 0;
    copy_pipeline_fields(&po.metadata, &mut flow);
    check(bridge, po, &flow)?;

    bridge.publish();
    let cfg = bridge.backer.xcfg.load();
    let Some(xbridge) = cfg.bridges.get(&bridge.of.id) else { return Ok(()) };
    flow.actset_output = OfPort::UNSET;
    let mut xin = Xin::new(xbridge, &flow);
    xin.packet = Some(&packet);
    xin.actions = Some(&po.actions);
    xin.packet_out = true;
    xin.side_effects = true;
    send(bridge, xin, &packet, &flow, now);
    Ok(())
}

/// Translates a controller's packet and does what comes of it.
pub(super) fn send(bridge: &Bridge, xin: Xin<'_>, packet: &Packet, flow: &Flow, now: Instant) {
    let xout = xlate::translate(&bridge.backer, xin);
    let bytes = packet.len() as u64;
    let stats = PushStats { packets: 1, bytes, used_ms: now.as_ms(), tcp_flags: flow.tcp_flags.get() };
    xlate::push(&xout.cache, &stats, false);
    xlate::cache::end_netflow(&xout.cache);
    if xout.error.is_some() || xout.actions.is_empty() {
        return;
    }
    let in_port = OfPort(flow.in_port as u16);
    let odp = bridge.ports.get(&in_port).and_then(|p| p.odp).unwrap_or(OdpPort::NONE);
    let md = Metadata {
        in_port: odp,
        skb_priority: flow.skb_priority,
        pkt_mark: flow.pkt_mark,
        ..Metadata::default()
    };
    let execute = Execute { packet: packet.clone(), md: &md, actions: &xout.actions, probe: false };
    // A packet that can't be sent is lost, as on any link.
    let _ = bridge.backer.dpif.execute(execute);
}

/// OpenFlow 1.5 lets a packet-out set what the pipeline knows besides the packet.
pub(super) fn copy_pipeline_fields(m: &Match, flow: &mut Flow) {
    for (i, r) in m.mask.0.regs.iter().enumerate().filter(|(_, r)| **r != 0) {
        flow.regs[i] = m.flow.regs[i] & r;
    }
    flow.metadata = m.flow.metadata & m.mask.0.metadata;
    if m.mask.0.tunnel.tun_id != Default::default() {
        flow.tunnel.tun_id = m.flow.tunnel.tun_id;
    }
    if m.mask.0.pkt_mark != 0 {
        flow.pkt_mark = m.flow.pkt_mark;
    }
}

fn check(bridge: &Bridge, po: &PacketOut, flow: &Flow) -> Result<(), OfError> {
    let mut m = Match::catch_all();
    m.flow = flow.clone();
    m.mask = ib_flow::text::mask_for_packet(flow);
    let n_tables = u8::try_from(N_TABLES).unwrap_or(255);
    let params = CheckParams { max_ports: OfPort::MAX, table: 0, n_tables };
    check_for(&po.actions, &m, params, Protocols::ANY)?;
    check_actions(&bridge.of, &po.actions)
}
