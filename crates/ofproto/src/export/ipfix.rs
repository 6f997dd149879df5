//! IPFIX: a bridge's exporter, and one per collector set that `sample` actions name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ib_base::vlog::module::IPFIX;
use ib_base::vlog_warn;
use ib_dpif::text::UserCookie;
use ib_dpif::{Action as Odp, Upcall};
use ib_export::ipfix::{Exporter, Interface, Sample, Stats, TunnelKind};
use ib_openflow::action::SampleDirection;
use ib_openflow::message::IpfixStats;
use ib_tunnel::Kind;

use super::collectors::Collectors;
use super::{Export, XIpfix, probability, sends};
use crate::config::{IpfixBridgeConfig, IpfixConfig, IpfixExporterConfig};
use crate::switch::Bridge;
use crate::xcfg::{XBridge, XPort};

const DEFAULT_PORT: u16 = 4739;
/// A port that a cookie leaves open.
const NO_PORT: u32 = u32::MAX;

/// Numbers of exporters, of all bridges. A bridge's own takes the first as soon as any is there.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

fn next_id() -> u32 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// An exporter with its collectors.
struct One {
    exporter: Exporter,
    collectors: Collectors,
}

impl One {
    /// `None`: there is nobody to send to.
    fn start(id: u32, want: &IpfixExporterConfig) -> Option<One> {
        let collectors = Collectors::open(&want.targets, DEFAULT_PORT);
        if collectors.is_empty() {
            vlog_warn!(IPFIX, "no collectors could be initialized, IPFIX exporter disabled");
            return None;
        }
        Some(One { exporter: Exporter::new(id, want.machine.clone()), collectors })
    }

    fn configure(&mut self, want: &IpfixExporterConfig, now_us: u64) {
        if !self.collectors.are(&want.targets) {
            self.exporter.end_all(now_us, &mut self.collectors);
            self.collectors = Collectors::open(&want.targets, DEFAULT_PORT);
        }
        self.exporter.configure(want.machine.clone(), now_us, &mut self.collectors);
    }

    fn end(mut self, now_us: u64) {
        self.exporter.end_all(now_us, &mut self.collectors);
    }
}

/// The exporters of a bridge.
pub struct Running {
    wanted: IpfixConfig,
    bridge_id: u32,
    bridge: Option<(IpfixBridgeConfig, One)>,
    sets: BTreeMap<u32, One>,
    published: Arc<XIpfix>,
}

impl Running {
    pub(super) fn published(&self) -> Arc<XIpfix> {
        Arc::clone(&self.published)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut One> {
        self.bridge.iter_mut().map(|(_, one)| one).chain(self.sets.values_mut())
    }

    pub(super) fn deadline_us(&self) -> Option<u64> {
        let all = self.bridge.iter().map(|(_, one)| one).chain(self.sets.values());
        all.filter_map(|one| one.exporter.deadline_us()).min()
    }

    fn configure(&mut self, want: &IpfixConfig, now_us: u64) {
        match (self.bridge.take(), &want.bridge) {
            (Some((_, mut one)), Some(w)) => {
                one.configure(&w.exporter, now_us);
                self.bridge = Some((w.clone(), one));
            }
            (None, Some(w)) => {
                self.bridge = One::start(self.bridge_id, &w.exporter).map(|one| (w.clone(), one));
            }
            (Some((_, one)), None) => one.end(now_us),
            (None, None) => {}
        }
        let mut old = std::mem::take(&mut self.sets);
        for (id, w) in &want.flows {
            let one = match old.remove(id) {
                Some(mut one) => {
                    one.configure(w, now_us);
                    Some(one)
                }
                None => One::start(next_id(), w),
            };
            if let Some(one) = one {
                self.sets.insert(*id, one);
            }
        }
        old.into_values().for_each(|one| one.end(now_us));
        let b = self.bridge.as_ref().map(|(b, _)| b);
        self.published = Arc::new(XIpfix {
            probability: b.map_or(0, |b| probability(b.sampling)),
            input: b.is_some_and(|b| b.input),
            output: b.is_some_and(|b| b.output),
            tunnels: b.is_some_and(|b| b.exporter.machine.tunnels),
            sets: self.sets.iter().map(|(id, one)| (*id, one.exporter.config().tunnels)).collect(),
        });
        self.wanted = want.clone();
    }
}

impl Export {
    /// Sends records that are old enough.
    pub(super) fn run_ipfix(&self, wall_ms: u64) {
        if let Some(running) = self.ipfix.lock().as_mut() {
            running.all().for_each(|one| one.exporter.run(wall_ms * 1000, &mut one.collectors));
        }
    }

    /// Counters of the bridge's exporter, or of those of collector sets; empty if there is none.
    pub(crate) fn ipfix_stats(&self, flow: bool) -> Vec<IpfixStats> {
        let running = self.ipfix.lock();
        let Some(r) = running.as_ref() else { return Vec::new() };
        if !flow {
            return r.bridge.iter().map(|(_, one)| stats(0, one.exporter.stats())).collect();
        }
        let ids = ib_flow::hash::chain_order(r.sets.keys().copied(), |id| ib_flow::hash::two_words(id, 0));
        ids.iter().filter_map(|id| Some(stats(*id, r.sets.get(id)?.exporter.stats()))).collect()
    }
}

fn stats(collector_set_id: u32, s: Stats) -> IpfixStats {
    IpfixStats {
        total_flows: s.total_flows,
        current_flows: s.current_flows,
        pkts: s.packets,
        ipv4_pkts: s.ipv4,
        ipv6_pkts: s.ipv6,
        error_pkts: s.errors,
        ipv4_error_pkts: s.ipv4_errors,
        ipv6_error_pkts: s.ipv6_errors,
        tx_pkts: s.tx_packets,
        tx_errors: s.tx_errors,
        collector_set_id,
    }
}

impl Bridge {
    /// Makes the exporters those that are wanted. One that goes sends what it has.
    pub fn set_ipfix(&mut self, want: &IpfixConfig) {
        let now_us = self.of.clock.wall_ms() * 1000;
        let mut slot = self.of.export.ipfix.lock();
        let none = want.bridge.is_none() && want.flows.is_empty();
        match slot.as_mut() {
            None if none => return,
            Some(r) if r.wanted == *want => return,
            Some(r) => r.configure(want, now_us),
            None => {
                let mut r = Running {
                    wanted: IpfixConfig::default(),
                    bridge_id: next_id(),
                    bridge: None,
                    sets: BTreeMap::new(),
                    published: Arc::default(),
                };
                r.configure(want, now_us);
                *slot = Some(r);
            }
        }
        if none {
            *slot = None;
        }
        drop(slot);
        self.touch();
    }
}

/// A `sample` action's direction as its cookie has it.
pub(crate) fn flow_sample_direction(d: SampleDirection) -> u8 {
    match d {
        SampleDirection::Default => 0,
        SampleDirection::Ingress => 1,
        SampleDirection::Egress => 2,
    }
}

fn interface(port: &XPort) -> Interface<'_> {
    Interface { ifindex: port.ifindex, name: &port.name }
}

/// Takes a sampled packet of a bridge; `actions` are what its flow does, if that is known.
pub(crate) fn receive(
    bridge: &XBridge,
    in_port: &XPort,
    upcall: &Upcall<'_>,
    cookie: &UserCookie,
    actions: Option<&[Odp]>,
) {
    let mut running = bridge.of.export.ipfix.lock();
    let Some(r) = running.as_mut() else { return };
    let (one, output_port, egress, domain, point, matched) = match cookie {
        UserCookie::Ipfix { output_port } => {
            let Some((b, one)) = r.bridge.as_mut() else { return };
            let matched = u64::from(u32::MAX / probability(b.sampling).max(1));
            (one, *output_port, *output_port != NO_PORT, b.domain, b.point, matched)
        }
        UserCookie::FlowSample {
            probability,
            collector_set_id,
            obs_domain_id,
            obs_point_id,
            output_port,
            direction,
        } => {
            let Some(one) = r.sets.get_mut(collector_set_id) else { return };
            let egress = match direction {
                1 => false,
                2 => true,
                _ => *output_port != NO_PORT,
            };
            let matched = u64::from(u16::MAX / (*probability).max(1));
            (one, *output_port, egress, *obs_domain_id, *obs_point_id, matched)
        }
        _ => return,
    };
    let output =
        bridge.ports.values().find(|p| p.odp.is_some_and(|odp| odp.0 == output_port)).map(|p| interface(p));
    let tunnel = &upcall.key.tunnel;
    let kind = in_port.tunnel.as_ref().and_then(|t| match t.kind {
        Kind::Vxlan => Some(TunnelKind::Vxlan),
        Kind::Geneve => Some(TunnelKind::Geneve),
        Kind::Gre => Some(TunnelKind::Gre),
        _ => None,
    });
    let came_by_tunnel = output_port == NO_PORT && !tunnel.ip_dst.is_zero();
    let sample = Sample {
        flow: upcall.key,
        frame_len: upcall.packet.len(),
        domain,
        point,
        egress,
        input: interface(in_port),
        output: output.unwrap_or_default(),
        tunnel: kind.filter(|_| came_by_tunnel).map(|k| (k, tunnel)),
        matched,
        dropped: actions.is_some_and(|a| !sends(a)),
    };
    let now_us = bridge.of.clock.wall_ms() * 1000;
    let before = one.exporter.deadline_us();
    one.exporter.sample(&sample, now_us, &mut one.collectors);
    let after = one.exporter.deadline_us();
    drop(running);
    if before.is_none() && after.is_some() {
        bridge.of.wake();
    }
}
