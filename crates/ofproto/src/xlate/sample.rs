//! Samples for collectors, and where packets leave: sFlow, IPFIX, NetFlow and the `sample` action.
//!
//! sFlow's sample comes first in the list of actions; how the packet left is filled in at the end ([`Ctx::finish_samples`]).
//! IPFIX samples where packets come in, before anything else is done to them, and right before each output. NetFlow needs no action of the
//! datapath: the mask tells its flows apart, and their packets are counted with those of rules.

use std::sync::Arc;

use ib_dpif::text::UserCookie;
use ib_dpif::{Action as Odp, UserspaceAction};
use ib_export::netflow::{DSCP, Key, output as netflow_output};
use ib_export::sflow::output as sflow_output;
use ib_flow::{Flow, OdpPort, OfPort};
use ib_openflow::action::{Sample, Source};
use ib_packet::Be32;

use super::Ctx;
use super::cache::CacheEntry;
use crate::export::ipfix::flow_sample_direction;
use crate::xcfg::{XBridge, XPort};

/// Where a packet left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exits {
    /// Outputs to ports of the datapath.
    count: u32,
    /// Bridge, and interface index, of the last of them.
    last: (u32, u32),
    /// As NetFlow tells it.
    netflow: u16,
}

impl Default for Exits {
    fn default() -> Self {
        Exits { count: 0, last: (0, 0), netflow: netflow_output::DROP }
    }
}

impl Exits {
    /// It left by a port.
    pub fn left_by(&mut self, bridge: &XBridge, port: &XPort) {
        self.count += 1;
        self.last = (bridge.of.id, port.ifindex);
        self.netflow = port.ofport.0;
    }
    /// It left by all ports.
    pub fn flooded(&mut self) {
        self.netflow = netflow_output::FLOOD;
    }
    /// An output action begins; to be handed to [`Self::end_output`].
    pub fn begin_output(&mut self) -> u16 {
        std::mem::replace(&mut self.netflow, netflow_output::DROP)
    }
    /// It has ended: what it did adds to what was before.
    pub fn end_output(&mut self, before: u16) {
        use netflow_output::{DROP, FLOOD, MULTI};
        self.netflow = match (before, self.netflow) {
            (FLOOD, _) | (_, FLOOD) => FLOOD,
            (before, DROP) => before,
            (DROP, now) => now,
            _ => MULTI,
        };
    }
    /// As an agent of this bridge tells it, which knows no ports of others.
    fn sflow(&self, bridge: &XBridge) -> u32 {
        match (self.count, self.last) {
            (0, _) => sflow_output::DROPPED,
            (1, (id, ifindex)) if id == bridge.of.id && ifindex != 0 => ifindex,
            (n, _) => sflow_output::several(n),
        }
    }
}

/// The bits by which NetFlow tells flows apart.
pub(super) fn tell_flows_apart(flow: &Flow, mask: &mut Flow) {
    if flow.dl_type.get() != 0x0800 {
        return;
    }
    mask.nw_proto = 0xff;
    mask.nw_src = Be32::MAX;
    mask.nw_dst = Be32::MAX;
    mask.nw_tos |= DSCP;
    if flow.nw_frag & Flow::FRAG_LATER == 0 {
        mask.tp_src = ib_packet::Be16::MAX;
        mask.tp_dst = ib_packet::Be16::MAX;
    }
}

impl Ctx<'_> {
    /// Has so many packets of 2^32-1 handed to user space.
    fn put_sample(&mut self, probability: u32, mut group: Vec<Odp>, user: Option<UserspaceAction>) {
        if probability == 0 {
            return;
        }
        let meter =
            self.entry_bridge.of.meters.read().get(&crate::meter::OFPM_SLOWPATH).map(|m| m.provider_id);
        let metered = meter.filter(|_| user.is_some());
        group.extend(metered.map(Odp::Meter));
        group.extend(user.map(Odp::Userspace));
        // What a meter drops must not end the packet's own way.
        if probability == u32::MAX && metered.is_none() {
            self.out.append(&mut group);
        } else {
            self.out.push(Odp::Sample { probability, actions: group.into() });
        }
    }

    fn put_user_sample(&mut self, probability: u32, cookie: &UserCookie, tunnel: Option<OdpPort>) {
        let user = UserspaceAction {
            pid: 0,
            userdata: cookie.to_bytes(),
            actions: matches!(cookie, UserCookie::SFlow { .. }),
            egress_tun_out_port: tunnel,
        };
        self.put_sample(probability, Vec::new(), Some(user));
    }

    /// Samples the packet as it came in. Returns where sFlow's sample is.
    pub(super) fn sample_ingress(&mut self) -> Option<usize> {
        if self.flow.in_port == u32::from(OfPort::NONE.0) {
            return None;
        }
        let place = self.bridge.export.sflow.map(|probability| {
            let place = self.out.len();
            self.put_user_sample(probability, &UserCookie::SFlow { vlan_tci: 0, output: 0 }, None);
            place
        });
        if let Some(ipfix) = self.bridge.export.ipfix.clone()
            && ipfix.input
        {
            let cookie = UserCookie::Ipfix { output_port: OdpPort::NONE.0 };
            self.put_user_sample(ipfix.probability, &cookie, None);
        }
        place
    }

    /// Samples the packet as it leaves by a port.
    pub(super) fn sample_egress(&mut self, odp: OdpPort, is_tunnel: bool) {
        if let Some(ipfix) = self.bridge.export.ipfix.clone()
            && ipfix.output
        {
            let tunnel = (is_tunnel && ipfix.tunnels).then_some(odp);
            self.put_user_sample(ipfix.probability, &UserCookie::Ipfix { output_port: odp.0 }, tunnel);
        }
    }

    /// Says where the packet left: into sFlow's sample at `place`, and to NetFlow.
    pub(super) fn finish_samples(&mut self, place: Option<usize>) {
        if let Some(action) = place.and_then(|at| self.out.get_mut(at)) {
            let vlan_tci = self.base.vlans[0].tci.get();
            let cookie = UserCookie::SFlow { vlan_tci, output: self.exits.sflow(&self.bridge) }.to_bytes();
            let user = |list: &[Odp]| {
                let mut list = list.to_vec();
                if let Some(Odp::Userspace(u)) = list.last_mut() {
                    u.userdata = Arc::clone(&cookie);
                }
                list
            };
            match action {
                Odp::Userspace(u) => u.userdata = cookie,
                Odp::Sample { actions, .. } => *actions = user(actions).into(),
                _ => {}
            }
        }
        if self.bridge.export.netflow
            && let Some(key) = Key::of(&self.original)
        {
            self.cache.push(CacheEntry::NetFlow(Arc::clone(&self.bridge.of), key, self.exits.netflow));
        }
    }

    /// The value of an observation domain or point.
    fn observation(&mut self, source: &Source) -> u32 {
        match source {
            Source::Imm(n) => *n,
            Source::Field(sf) => {
                sf.unwildcard(&mut self.wc);
                sf.get_u64(&self.flow) as u32
            }
        }
    }

    /// `sample(...)`.
    pub fn sample_action(&mut self, s: &Sample) {
        let export = self.bridge.export.clone();
        let group = export.local.get(&s.collector_set_id).copied();
        if export.ipfix.is_none() && export.local.is_empty() {
            return;
        }
        let mut output = OdpPort::NONE;
        let mut tunnel = None;
        if s.sampling_port != OfPort::NONE && u32::from(s.sampling_port.0) != self.flow.in_port {
            let port = self.port(s.sampling_port);
            let Some((port, odp)) = port.and_then(|p| p.odp.map(|odp| (p, odp))) else {
                let port = s.sampling_port.0;
                return self.report_error(&format!("can't use unknown port {port} in flow sample action"));
            };
            output = odp;
            let tells = export.ipfix.as_ref().and_then(|i| i.sets.get(&s.collector_set_id)).copied();
            if tells == Some(true) && port.tunnel.is_some() {
                tunnel = Some((port, odp));
            }
        }
        self.commit();
        if let Some((port, _)) = &tunnel
            && let Some(config) = port.tunnel.clone()
        {
            crate::tunnel::send(&config, &mut self.flow, &mut self.wc);
            if !self.backer.native_tunnels() {
                let wanted = self.flow.tunnel.clone();
                self.commit_tunnel();
                self.flow.tunnel = wanted;
            }
        }
        let domain = self.observation(&s.obs_domain_id);
        let point = self.observation(&s.obs_point_id);
        let psample = group.map(|group| {
            let cookie: Vec<u8> = [domain.to_be_bytes(), point.to_be_bytes()].concat();
            Odp::Psample { group, cookie: cookie.into() }
        });
        let user = export.ipfix.is_some().then(|| {
            let cookie = UserCookie::FlowSample {
                probability: s.probability,
                collector_set_id: s.collector_set_id,
                obs_domain_id: domain,
                obs_point_id: point,
                output_port: output.0,
                direction: flow_sample_direction(s.direction),
            };
            UserspaceAction {
                pid: 0,
                userdata: cookie.to_bytes(),
                actions: false,
                egress_tun_out_port: tunnel.as_ref().map(|(_, odp)| *odp),
            }
        });
        if psample.is_some() || user.is_some() {
            let probability = u32::from(s.probability) << 16 | u32::from(s.probability);
            self.put_sample(probability, psample.into_iter().collect(), user);
        }
    }
}
