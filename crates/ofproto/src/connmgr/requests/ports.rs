//! Ports and queues: port_mod, port statistics, queue configuration.

use ib_flow::OfPort;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    AsyncKind, Message, OFPQ_ALL, PortConfig as PortBits, PortMod, PortReason, PortStats, PortStatus,
    QueueConfig, QueueGetConfigReply, QueueGetConfigRequest, QueueStats, Version,
};

use super::Cx;
use crate::connmgr::age;
use crate::port::Port;
use crate::switch::Bridge;

/// Ports that a request names: one, or all in the order of Open vSwitch's hash table.
fn chosen(bridge: &Bridge, port: OfPort) -> Vec<&Port> {
    if port != OfPort::NONE {
        return bridge.ports.get(&port).into_iter().collect();
    }
    let mut ports: Vec<&Port> = bridge.ports.values().collect();
    ports.sort_by_key(|p| p.seq);
    let order = crate::xcfg::flood_order(ports.iter().map(|p| p.ofport));
    order.iter().filter_map(|n| bridge.ports.get(n)).collect()
}

pub(crate) fn port_mod(cx: &mut Cx<'_>, pm: &PortMod) -> Result<(), OfError> {
    let bridge = &mut *cx.bridge;
    let port = bridge.ports.get_mut(&pm.port_no).ok_or(OfError::OFPPMFC_BAD_PORT)?;
    if port.config.netdev.mac != pm.hw_addr {
        return Err(OfError::OFPPMFC_BAD_HW_ADDR);
    }
    let changed = (port.config_bits ^ pm.config) & pm.mask;
    if changed == 0 {
        return Ok(());
    }
    port.config_bits ^= changed;
    if changed & PortBits::PORT_DOWN != 0 {
        let down = port.config_bits & PortBits::PORT_DOWN != 0;
        port.config.netdev.admin_down = down;
        let name = port.config.name.clone();
        if let Some(set) = &bridge.port_admin {
            set(&name, !down);
        }
    }
    let desc = bridge.ports.get(&pm.port_no).map(|p| p.description());
    if let Some(desc) = desc {
        bridge.connmgr.send_port_status(PortReason::Modify, desc.clone());
        // Before OpenFlow 1.5 who asks for a change does not hear of it.
        if cx.conn.version() >= Some(Version::V15)
            && cx.conn.wants(AsyncKind::PortStatus, PortReason::Modify as u32)
        {
            let status = PortStatus { reason: PortReason::Modify, port: desc };
            cx.conn.send(&Message::PortStatus(status), 0);
        }
    }
    cx.bridge.mark_dirty();
    Ok(())
}

/// Counters of chosen ports. Devices that are gone have none; unknown counters are all ones.
pub(super) fn port_stats(cx: &Cx<'_>, port: OfPort) -> Vec<PortStats> {
    let bridge = &*cx.bridge;
    let mut out = Vec::new();
    for p in chosen(bridge, port) {
        let mut s = match bridge.patch_stats(p.ofport) {
            Some([rx_packets, rx_bytes, tx_packets, tx_bytes]) => {
                PortStats { rx_packets, rx_bytes, tx_packets, tx_bytes, ..unknown() }
            }
            None => {
                let read = bridge.port_stats.as_ref().and_then(|f| f(&p.config.name));
                read.unwrap_or_else(unknown)
            }
        };
        s.port_no = p.ofport;
        let (duration_sec, duration_nsec) = age(cx.now, p.created);
        s.duration_sec = duration_sec;
        s.duration_nsec = duration_nsec;
        out.push(s);
    }
    out
}

fn unknown() -> PortStats {
    let u = u64::MAX;
    PortStats {
        rx_packets: u,
        tx_packets: u,
        rx_bytes: u,
        tx_bytes: u,
        rx_dropped: u,
        tx_dropped: u,
        rx_errors: u,
        tx_errors: u,
        rx_frame_err: u,
        rx_over_err: u,
        rx_crc_err: u,
        collisions: u,
        ..PortStats::default()
    }
}

/// Queues of a port, or the one asked for.
fn queues_of(bridge: &Bridge, port: &Port, queue: u32) -> Vec<QueueStats> {
    let mut queues = bridge.port_queues.as_ref().map_or_else(Vec::new, |f| f(&port.config.name));
    queues.retain(|q| queue == OFPQ_ALL || q.queue == queue);
    for q in &mut queues {
        q.port = port.ofport;
    }
    queues
}

pub(super) fn queue_stats(cx: &Cx<'_>, port: OfPort, queue: u32) -> Result<Vec<QueueStats>, OfError> {
    let ports = chosen(cx.bridge, port);
    // In OpenFlow 1.0 "all" is for all; later "any" is.
    let all = port == OfPort::NONE || (port == OfPort::ALL && cx.version() == Version::V10);
    if ports.is_empty() && !all {
        return Err(OfError::OFPQOFC_BAD_PORT);
    }
    let all: Vec<&Port> = if all { chosen(cx.bridge, OfPort::NONE) } else { ports };
    let found: Vec<QueueStats> = all.iter().flat_map(|p| queues_of(cx.bridge, p, queue)).collect();
    if found.is_empty() && queue != OFPQ_ALL { Err(OfError::OFPQOFC_BAD_QUEUE) } else { Ok(found) }
}

pub(super) fn queue_config(cx: &mut Cx<'_>, q: QueueGetConfigRequest) -> Result<(), OfError> {
    // OpenFlow 1.0 has no word for all ports.
    let version = cx.version();
    if version == Version::V10 && q.port.0 >= OfPort::MAX.0 && q.port != OfPort::LOCAL {
        return Err(OfError::OFPQOFC_BAD_PORT);
    }
    let ports = chosen(cx.bridge, q.port);
    if ports.is_empty() {
        return Err(OfError::OFPQOFC_BAD_PORT);
    }
    let queues: Vec<QueueConfig> = ports
        .iter()
        .flat_map(|p| queues_of(cx.bridge, p, q.queue))
        .map(|s| QueueConfig { port: s.port, queue: s.queue, min_rate: None, max_rate: None })
        .collect();
    if queues.is_empty() && q.queue != OFPQ_ALL {
        return Err(OfError::OFPQOFC_BAD_QUEUE);
    }
    cx.reply(&Message::QueueGetConfigReply(QueueGetConfigReply { port: q.port, queues, more: false }));
    Ok(())
}
