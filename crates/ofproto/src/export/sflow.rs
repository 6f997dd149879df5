//! sFlow: sampled packets with how they came and left, counters of ports and of the bridge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ib_base::rng::Rng;
use ib_base::time::Instant;
use ib_base::vlog::module::{SFLOW, SOCKET_UTIL};
use ib_base::{vlog_err, vlog_info, vlog_warn};
use ib_dpif::{Action as Odp, Dpif, SetField, Upcall};
use ib_export::sflow::{Agent, BridgeCounters, Config, Counters, Outer, PortCounters, Sample, output};
use ib_flow::OfPort;

use super::collectors::{Collectors, parse};
use super::outer_protocol;
use crate::config::SflowConfig;
use crate::port::Port;
use crate::switch::{Bridge, PortStatsFn};
use crate::xcfg::{XBridge, XPort};

const DEFAULT_PORT: u16 = 6343;
/// Speed of a link that does not say.
const DEFAULT_BPS: u64 = 100_000_000;
/// Milliseconds in a tick of `/proc`'s clock.
const MS_PER_TICK: u64 = 10;

/// An agent with its collectors.
pub struct Running {
    pub(super) agent: Agent,
    wanted: SflowConfig,
    collectors: Collectors,
    /// The ports that it knows, to notice others.
    ports: Vec<u32>,
}

impl Running {
    pub(super) fn sampling(&self) -> u32 {
        self.wanted.sampling
    }
}

impl Bridge {
    /// Turns sFlow on, with these settings, or off.
    pub fn set_sflow(&mut self, want: Option<&SflowConfig>) {
        let want = want.filter(|w| w.sampling != 0 && !w.targets.is_empty());
        let before = self.of.export.sflow.lock().as_ref().map(|r| r.wanted.clone());
        if before.as_ref() == want {
            return;
        }
        *self.of.export.sflow.lock() = want.and_then(|w| self.start_sflow(w));
        self.touch();
    }

    fn start_sflow(&self, want: &SflowConfig) -> Option<Running> {
        let collectors = Collectors::open(&want.targets, DEFAULT_PORT);
        if collectors.is_empty() {
            vlog_warn!(SFLOW, "no collectors could be initialized, sFlow disabled");
            return None;
        }
        let agent = self.agent_address(want)?;
        vlog_info!(SFLOW, "creating sFlow agent {}", want.sub_id);
        let config = Config {
            agent,
            sub_id: want.sub_id,
            sampling: want.sampling,
            header: want.header,
            polling_s: want.polling_s,
        };
        let clock = &self.of.clock;
        let agent = Agent::new(config, clock.now().as_ms(), clock.wall_ms() / 1000, Rng::from_os());
        Some(Running { agent, wanted: want.clone(), collectors, ports: Vec::new() })
    }

    /// The address that names the switch: of a device, as it stands, of the way to the first target, or the controller's.
    fn agent_address(&self, want: &SflowConfig) -> Option<IpAddr> {
        let world = &self.backer.world;
        if let Some(agent) = &want.agent {
            let addresses = world.addresses_of(agent);
            let v4_first = addresses.iter().find(|(ip, _)| ip.is_ipv4()).or(addresses.first());
            if let Some(ip) = v4_first.map(|(ip, _)| *ip).or_else(|| agent.parse().ok()) {
                return Some(ip);
            }
            vlog_err!(SOCKET_UTIL, "{agent}: bad IP address \"{agent}\"");
        }
        let way = want.targets.iter().filter_map(|t| parse(t, DEFAULT_PORT)).find_map(|to| {
            let found = world.route(0, ib_tunnel::mapped(to.ip()), None)?;
            (!found.src.is_unspecified()).then(|| ib_tunnel::unmapped(found.src))
        });
        let of_controller = || want.control_ip.as_ref().and_then(|ip| ip.parse().ok());
        let found = way.or_else(of_controller);
        if found.is_none() {
            vlog_err!(SFLOW, "could not determine IP address for sFlow agent");
        }
        found
    }

    pub(super) fn run_sflow(&mut self, now: Instant) {
        let mut running = self.of.export.sflow.lock();
        let Some(r) = running.as_mut() else { return };
        let mut ports: Vec<u32> = self.ports.values().map(|p| p.config.netdev.ifindex).collect();
        ports.sort_unstable();
        if r.ports != ports {
            r.agent.set_ports(&ports, now.as_ms());
            r.ports = ports;
        }
        let mut counters = Source {
            ports: &self.ports,
            stats: self.port_stats.as_ref(),
            dpif: &self.backer.dpif,
            datapath_id: self.datapath_id,
        };
        r.agent.tick(now.as_ms(), self.of.clock.wall_ms() / 1000, &mut counters, &mut r.collectors);
    }
}

struct Source<'a> {
    ports: &'a BTreeMap<OfPort, Port>,
    stats: Option<&'a PortStatsFn>,
    dpif: &'a Arc<dyn Dpif>,
    datapath_id: u64,
}

impl Counters for Source<'_> {
    fn port(&mut self, ifindex: u32) -> Option<PortCounters> {
        let port = self.ports.values().find(|p| p.config.netdev.ifindex == ifindex)?;
        let s = self.stats.and_then(|f| f(&port.config.name)).unwrap_or_default();
        let netdev = &port.config.netdev;
        let custom = |name: &str| s.custom.iter().find(|(n, _)| n == name).map_or(u64::MAX, |(_, v)| *v);
        Some(PortCounters {
            speed_bps: match netdev.speed_kbps[0] {
                0 => DEFAULT_BPS,
                kbps => u64::from(kbps) * 1000,
            },
            direction: duplex(netdev.features[0]),
            status: u32::from(!netdev.admin_down) | u32::from(!netdev.admin_down && !netdev.link_down) << 1,
            bytes: [s.rx_bytes, s.tx_bytes],
            packets: [s.rx_packets, s.tx_packets],
            multicast: custom("rx_multicast_packets"),
            dropped: [s.rx_dropped, s.tx_dropped],
            errors: [s.rx_errors, s.tx_errors],
            frame_errors: [s.rx_frame_err, s.rx_crc_err],
            datapath_id: self.datapath_id,
            ofport: port.ofport.0.into(),
            name: port.config.name.clone(),
        })
    }

    fn bridge(&mut self) -> BridgeCounters {
        let s = self.dpif.stats();
        let n = |v: u64| v as u32;
        let (cpu_ms, memory) = process_usage().unwrap_or_default();
        BridgeCounters {
            cpu_ms,
            memory,
            hits: n(s.hits),
            misses: n(s.misses),
            lost: n(s.lost),
            mask_hits: s.mask_hits.map_or(u32::MAX, n),
            flows: n(s.flows),
            masks: s.masks.unwrap_or(u32::MAX),
        }
    }
}

/// Of the features of a link: 0 unknown, 1 full duplex, 2 half duplex.
fn duplex(features: u32) -> u32 {
    const HALF: u32 = 1 << 0 | 1 << 2 | 1 << 4;
    const FULL: u32 = 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9;
    match (features & FULL != 0, features & HALF != 0) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// CPU time (user, system) in ms, and the most bytes of memory that the process had.
fn process_usage() -> Option<([u32; 2], u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut cpu = || Some((fields.next()?.parse::<u64>().ok()? * MS_PER_TICK) as u32);
    let cpu_ms = [cpu()?, cpu()?];
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.split_ascii_whitespace().next()?.parse().ok()?;
    Some((cpu_ms, kib * 1024))
}

/// Takes a sampled packet of a bridge; `actions` are what its flow does.
pub(crate) fn receive(
    bridge: &XBridge,
    in_port: &XPort,
    upcall: &Upcall<'_>,
    out_tci: u16,
    out: u32,
    actions: &[Odp],
) {
    let mut running = bridge.of.export.sflow.lock();
    let Some(r) = running.as_mut() else { return };
    let single = output::count(out) == 1;
    let (mpls, tunnel_out) = if single { pushed(bridge, actions) } else { Default::default() };
    let tunnel_in =
        in_port.tunnel.as_ref().and_then(|t| Outer::of(&upcall.key.tunnel, outer_protocol(t.kind)));
    let sample = Sample {
        flow: upcall.key,
        packet: upcall.packet.data(),
        input: in_port.ifindex,
        output: out,
        out_tci,
        tunnel_in,
        tunnel_out,
        mpls,
    };
    let was_idle = r.agent.deadline_ms();
    r.agent.sample(&sample, &mut r.collectors);
    let is_due = r.agent.deadline_ms();
    drop(running);
    if is_due != was_idle {
        bridge.of.wake();
    }
}

/// What actions put in front of a packet: MPLS labels, and a tunnel's outer header if there is one of them.
fn pushed(bridge: &XBridge, actions: &[Odp]) -> (Vec<u32>, Option<Outer>) {
    let mut mpls: Vec<u32> = Vec::new();
    let mut tunnels = 0;
    let mut outer = None;
    let mut set = None;
    for action in actions {
        match action {
            Odp::PushMpls { lse, .. } => mpls.insert(0, lse.get()),
            Odp::PopMpls(_) if !mpls.is_empty() => {
                mpls.remove(0);
            }
            Odp::TnlPush { header, .. } => {
                tunnels += 1;
                outer = outer_of_header(header);
            }
            Odp::Set(SetField::Tunnel(t)) => set = Some(t),
            Odp::Output(odp) => {
                let port = bridge.ports.values().find(|p| p.odp == Some(*odp));
                if let (Some(t), Some(config)) = (set, port.and_then(|p| p.tunnel.as_ref())) {
                    tunnels += 1;
                    outer = Outer::of(t, outer_protocol(config.kind));
                }
            }
            _ => {}
        }
    }
    (mpls, outer.filter(|_| tunnels == 1))
}

/// Addresses, ports and key of an outer header over IPv4.
fn outer_of_header(header: &[u8]) -> Option<Outer> {
    const ETHERNET: usize = 14;
    let ip = header.get(ETHERNET..ETHERNET + 20).filter(|ip| ip[0] == 0x45)?;
    let l4 = &header[ETHERNET + 20..];
    let word = |at: usize| l4.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let proto = ip[9];
    let (ports, vni) = if proto == ib_tunnel::kind::IPPROTO_UDP {
        let ports = word(0)?;
        // VXLAN and Geneve keep the key in the same place.
        ([(ports >> 16) as u16, ports as u16], word(12).map(|w| w >> 8))
    } else {
        let flags = word(0)? >> 16;
        let key_at = if flags & 0x8000 != 0 { 8 } else { 4 };
        ([0, 0], if flags & 0x2000 != 0 { word(key_at) } else { None })
    };
    Some(Outer {
        ip: [[ip[12], ip[13], ip[14], ip[15]], [ip[16], ip[17], ip[18], ip[19]]],
        proto,
        ports,
        tos: ip[1],
        vni: vni.filter(|v| *v != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_headers() {
        let mut h = vec![0; 14];
        h.extend([0x45, 4, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 1, 1, 2, 88, 1, 1, 2, 92]);
        h.extend([0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0x42, 0]);
        let outer = outer_of_header(&h).unwrap();
        assert_eq!((outer.ip, outer.proto), ([[1, 1, 2, 88], [1, 1, 2, 92]], 17));
        assert_eq!((outer.ports, outer.tos, outer.vni), ([0, 4789], 4, Some(0x42)));
        for n in 0..h.len() {
            assert!(outer_of_header(&h[..n]).is_none_or(|o| o.vni.is_none()), "{n}");
        }
    }

    #[test]
    fn the_process_knows_its_usage() {
        assert!(process_usage().is_some_and(|(_, memory)| memory > 0));
        assert_eq!((duplex(1 << 5), duplex(1 << 4), duplex(0)), (1, 2, 0));
    }
}
