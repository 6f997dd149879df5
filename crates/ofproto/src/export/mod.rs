//! Flow export of a bridge: joins the machines of [`ib_export`] to translation, upcalls, the clock and collectors.
//!
//! [`Export`] sits in the bridge's [`crate::ofproto::Ofproto`]: datapath threads hand it sampled packets, counters of flows come from
//! revalidation, and the main thread lets time pass ([`Bridge::run_export`]). What translation needs to know is [`XExport`], part of
//! its snapshot. Each machine has a short lock; a datagram that is complete is sent by the thread that completed it.

pub mod collectors;
pub(crate) mod ipfix;
mod local;
mod netflow;
pub(crate) mod sflow;

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_base::time::Instant;
use ib_dpif::Action as Odp;
use ib_export::netflow::NetFlow;
use ib_tunnel::Kind as TunnelKind;
use parking_lot::Mutex;

use crate::switch::Bridge;
use collectors::Collectors;

/// The exporters of a bridge.
#[derive(Default)]
pub struct Export {
    netflow: Mutex<Option<(NetFlow, Collectors)>>,
    sflow: Mutex<Option<sflow::Running>>,
    ipfix: Mutex<Option<ipfix::Running>>,
}

/// What translation knows of them.
#[derive(Clone, Debug, Default)]
pub struct XExport {
    /// Flows are told apart as NetFlow does.
    pub netflow: bool,
    /// Probability of sampling for sFlow, of 2^32-1.
    pub sflow: Option<u32>,
    /// Somebody takes IPFIX samples.
    pub ipfix: Option<Arc<XIpfix>>,
    /// Groups of local sampling, by collector set.
    pub local: Arc<BTreeMap<u32, u32>>,
}

/// IPFIX as translation knows it.
#[derive(Clone, Debug, Default)]
pub struct XIpfix {
    /// Probability of sampling for the bridge, of 2^32-1; 0: none.
    pub probability: u32,
    /// Where packets come in.
    pub input: bool,
    /// Where packets leave.
    pub output: bool,
    /// Outer headers are told, by the bridge's exporter.
    pub tunnels: bool,
    /// Collector sets, and whether outer headers are told.
    pub sets: BTreeMap<u32, bool>,
}

/// What "one of so many" is of 2^32-1.
fn probability(sampling: u32) -> u32 {
    u32::MAX.checked_div(sampling).map_or(0, |p| p.max(1))
}

/// Whether actions send a packet anywhere.
fn sends(actions: &[Odp]) -> bool {
    actions.iter().any(|a| match a {
        Odp::Output(_) | Odp::TnlPush { .. } | Odp::TnlPop(_) | Odp::Recirc(_) => true,
        Odp::Sample { actions, .. } | Odp::Clone(actions) => sends(actions),
        Odp::CheckPktLen { greater, less_or_equal, .. } => sends(greater) || sends(less_or_equal),
        _ => false,
    })
}

/// IP protocol of a tunnel's outer header.
fn outer_protocol(kind: TunnelKind) -> u8 {
    if kind.is_gre_family() { ib_tunnel::kind::IPPROTO_GRE } else { ib_tunnel::kind::IPPROTO_UDP }
}

impl Bridge {
    /// What translation is to know.
    pub(crate) fn xexport(&self) -> XExport {
        XExport {
            netflow: self.of.export.netflow.lock().is_some(),
            sflow: self.of.export.sflow.lock().as_ref().map(|s| probability(s.sampling())),
            ipfix: self.of.export.ipfix.lock().as_ref().map(|i| i.published()),
            local: Arc::clone(&self.local_groups),
        }
    }

    /// Does what is due.
    pub(crate) fn run_export(&mut self, now: Instant) {
        self.run_netflow(now);
        self.run_sflow(now);
        self.of.export.run_ipfix(self.of.clock.wall_ms());
    }

    /// When [`Self::run_export`] is next needed.
    pub(crate) fn export_deadline(&self) -> Option<Instant> {
        let wall_us = self.of.clock.wall_ms() * 1000;
        let e = &self.of.export;
        let ipfix = e.ipfix.lock().as_ref().and_then(ipfix::Running::deadline_us);
        let ipfix = ipfix.map(|at| self.of.clock.now().plus_ms(at.saturating_sub(wall_us).div_ceil(1000)));
        let netflow = e.netflow.lock().as_ref().and_then(|(n, _)| {
            if n.has_records() { Some(Instant::ZERO) } else { n.deadline_ms().map(Instant::from_ms) }
        });
        let sflow = e.sflow.lock().as_ref().and_then(|s| s.agent.deadline_ms()).map(Instant::from_ms);
        ipfix.into_iter().chain(netflow).chain(sflow).min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use ib_dpif::text::UserCookie;
    use ib_dpif::{Ufid, Upcall, UpcallKind, UserspaceData};
    use ib_packet::Packet;

    use crate::config::{
        IpfixBridgeConfig, IpfixConfig, IpfixExporterConfig, NetFlowConfig, PortConfig, SflowConfig,
    };
    use crate::testing::Lab;

    fn lab() -> Lab {
        let mut lab = Lab::new().bridge("br0", &[]);
        for n in 1..=3u16 {
            let mut port =
                PortConfig { name: format!("p{n}"), kind: "dummy".into(), ..PortConfig::default() };
            port.netdev.ifindex = 1000 + u32::from(n);
            lab.port("br0", port);
        }
        lab.flows(
            "br0",
            "in_port=1,actions=mod_vlan_vid:5,output:2
             in_port=2,actions=output:1,output:3
             in_port=3,actions=sample(probability=16384,collector_set_id=1,obs_domain_id=2,obs_point_id=3,sampling_port=1)",
        )
    }

    fn actions(lab: &mut Lab, flow: &str) -> String {
        let text = lab.trace_tail(&["br0", flow]);
        text.split_once("Datapath actions: ").unwrap().1.to_owned()
    }

    fn collector() -> (UdpSocket, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let target = socket.local_addr().unwrap().to_string();
        (socket, target)
    }

    fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        let next = || {
            let n = socket.recv(&mut buffer).ok()?;
            Some(buffer[..n].to_vec())
        };
        std::iter::from_fn(next).collect()
    }

    fn ipfix(target: &str, sampling: u32) -> IpfixConfig {
        let exporter = IpfixExporterConfig { targets: vec![target.into()], ..Default::default() };
        let bridge = IpfixBridgeConfig {
            sampling,
            domain: 1,
            point: 2,
            input: true,
            output: true,
            exporter: exporter.clone(),
        };
        IpfixConfig { bridge: Some(bridge), flows: [(1, exporter)].into() }
    }

    /// Hands a frame up by a `userspace` action with this cookie.
    fn hand_up(lab: &Lab, cookie: &UserCookie, sends: bool) {
        let mut frame = [0u8; 60];
        frame[12..14].copy_from_slice(&[0x12, 0x34]);
        let packet = Packet::from_frame(&frame);
        let md = ib_flow::Metadata { in_port: ib_flow::OdpPort(1), ..Default::default() };
        let mut key = ib_flow::Flow::zeroed();
        ib_flow::extract(&packet, &md, &mut key);
        let list: &[ib_dpif::Action] =
            if sends { &[ib_dpif::Action::Output(ib_flow::OdpPort(2))] } else { &[] };
        let data = UserspaceData { userdata: cookie.to_bytes(), actions: Some(list.into()) };
        let kind = UpcallKind::Action(&data);
        let now_ms = lab.clock.now().as_ms();
        let upcall = Upcall { kind, packet: &packet, key: &key, ufid: Ufid(7), now_ms };
        let handler = lab.dpif.handler.lock().clone().unwrap();
        assert!(handler.upcall(&upcall).actions.is_empty());
    }

    #[test]
    fn samples_stand_where_collectors_expect_them() {
        let mut lab = lab();
        let (_socket, target) = collector();
        assert_eq!(actions(&mut lab, "in_port=3"), "drop");
        let config = SflowConfig {
            targets: vec![target.clone()],
            sampling: 2,
            polling_s: 1,
            header: 128,
            agent: Some("127.0.0.1".into()),
            ..SflowConfig::default()
        };
        lab.switch.bridge_mut("br0").unwrap().set_sflow(Some(&config));
        lab.switch.bridge_mut("br0").unwrap().set_ipfix(&ipfix(&target, 1));
        assert_eq!(
            actions(&mut lab, "in_port=1"),
            "sample(sample=50.0%,actions(userspace(pid=0,sFlow(vid=5,pcp=0,output=1002),actions))),\
             userspace(pid=0,ipfix(output_port=4294967295)),push_vlan(vid=5,pcp=0),\
             userspace(pid=0,ipfix(output_port=2)),2"
        );
        let config = SflowConfig { sampling: 1, ..config };
        lab.switch.bridge_mut("br0").unwrap().set_sflow(Some(&config));
        let mut want = ipfix(&target, 1);
        want.bridge = None;
        lab.switch.bridge_mut("br0").unwrap().set_ipfix(&want);
        assert_eq!(
            actions(&mut lab, "in_port=2"),
            "userspace(pid=0,sFlow(vid=0,pcp=0,output=2147483650),actions),1,3"
        );
        assert_eq!(
            actions(&mut lab, "in_port=3"),
            "userspace(pid=0,sFlow(vid=0,pcp=0,output=1073742080),actions),sample(sample=25.0%,actions(\
             userspace(pid=0,flow_sample(probability=16384,collector_set_id=1,obs_domain_id=2,obs_point_id=3,\
             output_port=1))))"
        );
        lab.switch.bridge_mut("br0").unwrap().set_sflow(None);
        lab.switch.bridge_mut("br0").unwrap().set_ipfix(&IpfixConfig::default());
        assert_eq!(actions(&mut lab, "in_port=2"), "1,3");
    }

    #[test]
    fn local_groups_need_a_datapath_that_knows_them() {
        let mut lab = lab();
        let groups = [(1, 10)].into();
        assert!(!lab.switch.bridge_mut("br0").unwrap().set_local_sample(&groups));
        lab.appctl("dpif/set-dp-features", &["br0", "psample", "true"]);
        assert!(lab.switch.bridge_mut("br0").unwrap().set_local_sample(&groups));
        assert_eq!(
            actions(&mut lab, "in_port=3"),
            "sample(sample=25.0%,actions(psample(group=10,cookie=0x0000000200000003)))"
        );
    }

    #[test]
    fn netflow_tells_flows_apart_and_hears_their_end() {
        let mut lab = lab();
        let (socket, target) = collector();
        let config = NetFlowConfig { targets: vec![target], active_timeout_s: 5, ..NetFlowConfig::default() };
        lab.switch.bridge_mut("br0").unwrap().set_netflow(Some(&config));
        assert_eq!(
            lab.trace_tail(&["br0", "udp,in_port=2,udp_src=7"]).lines().next(),
            Some(
                "Megaflow: recirc_id=0,eth,udp,in_port=2,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_frag=no,\
                 tp_src=7,tp_dst=0"
            )
        );
        let of = std::sync::Arc::clone(&lab.switch.bridge("br0").unwrap().of);
        let mut flow = ib_flow::Flow::zeroed();
        flow.dl_type = ib_packet::Be16::new(0x0800);
        let key = ib_export::netflow::Key::of(&flow).unwrap();
        let used_ms = lab.clock.now().as_ms();
        let stats = crate::rule::PushStats { packets: 1, bytes: 60, used_ms, tcp_flags: 0 };
        of.netflow_update(&key, 1, &stats);
        lab.switch.run(lab.clock.now());
        assert!(received(&socket).is_empty());
        of.netflow_forget(&key);
        lab.switch.run(lab.clock.now());
        let datagrams = received(&socket);
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [72]);
        assert_eq!(datagrams[0][20..22], [204, 62], "the engine of ovs-dummy");
    }

    #[test]
    fn sampled_packets_reach_their_exporters() {
        let mut lab = lab();
        let (socket, target) = collector();
        lab.switch.bridge_mut("br0").unwrap().set_ipfix(&ipfix(&target, 1));
        lab.switch.publish();
        hand_up(&lab, &UserCookie::Ipfix { output_port: u32::MAX }, true);
        let datagrams = received(&socket);
        assert_eq!(datagrams.len(), 21);
        let of = &lab.switch.bridge("br0").unwrap().of;
        let stats = of.export.ipfix_stats(false);
        assert_eq!((stats[0].total_flows, stats[0].tx_pkts, stats[0].tx_errors), (1, 21, 0));
        assert_eq!(of.export.ipfix_stats(true)[0].collector_set_id, 1);

        let config = SflowConfig {
            targets: vec![target],
            sampling: 1,
            polling_s: 0,
            header: 128,
            agent: Some("127.0.0.1".into()),
            ..SflowConfig::default()
        };
        lab.switch.bridge_mut("br0").unwrap().set_sflow(Some(&config));
        lab.switch.publish();
        hand_up(&lab, &UserCookie::SFlow { vlan_tci: 0, output: 1002 }, true);
        assert!(lab.switch.deadline().is_some());
        lab.clock.warp(1000);
        lab.switch.run(lab.clock.now());
        let datagrams = received(&socket);
        assert_eq!(datagrams.len(), 1);
        assert_eq!(datagrams[0][52..64], [0, 0, 0, 0, 0, 0, 3, 233, 0, 0, 3, 234]);
    }
}
