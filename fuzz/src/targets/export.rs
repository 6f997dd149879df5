//! Flow export: packets become samples and records, and targets become addresses, whatever they are.

use std::net::IpAddr;

use ib_base::rng::Rng;
use ib_export::ipfix::{self, Exporter, Interface, TunnelKind};
use ib_export::netflow::{self, Key, NetFlow, Packets};
use ib_export::sflow::{self, Agent, BridgeCounters, Counters, Outer, PortCounters};
use ib_flow::{Flow, Metadata};
use ib_packet::Packet;

struct None;

impl Counters for None {
    fn port(&mut self, _: u32) -> Option<PortCounters> {
        Option::None
    }
    fn bridge(&mut self) -> BridgeCounters {
        BridgeCounters::default()
    }
}

/// A datagram's length is what its header says, and what any path takes.
fn check(datagrams: &[Vec<u8>], ipfix: bool) {
    for d in datagrams {
        assert!(d.len() <= 1472 && d.len() >= 16);
        assert!(!ipfix || usize::from(u16::from_be_bytes([d[2], d[3]])) == d.len());
    }
}

/// A frame through all exporters; its first byte has settings.
pub(super) fn samples(input: &[u8]) {
    let Some((settings, frame)) = input.split_first() else { return };
    let frame = &frame[..frame.len().min(2000)];
    let mut flow = Flow::zeroed();
    ib_flow::extract(&Packet::from_frame(frame), &Metadata::default(), &mut flow);
    flow.tunnel.ip_dst = flow.nw_src;
    let bit = |n: u8| settings >> n & 1 != 0;

    let mut out = Vec::new();
    let config = ipfix::Config {
        cache_active_timeout_s: u32::from(settings >> 6),
        cache_max_flows: u32::from(bit(5)),
        virtual_obs_id: bit(4).then(|| "observer".to_owned()),
        ..ipfix::Config::default()
    };
    let mut exporter = Exporter::new(1, config);
    for egress in [false, true] {
        let sample = ipfix::Sample {
            flow: &flow,
            frame_len: frame.len(),
            domain: 1,
            point: 2,
            egress,
            input: Interface { ifindex: 1, name: "p1" },
            output: Interface { ifindex: 2, name: "p2" },
            tunnel: bit(3).then_some((TunnelKind::Geneve, &flow.tunnel)),
            matched: 400,
            dropped: bit(2),
        };
        exporter.sample(&sample, 1_000_000, &mut out);
    }
    exporter.end_all(2_000_000, &mut out);
    assert_eq!(exporter.stats().current_flows, 0);
    check(&out, true);

    out.clear();
    let agent = IpAddr::from([127, 0, 0, 1]);
    let config = sflow::Config { agent, sub_id: 0, sampling: 1, header: 128, polling_s: 1 };
    let mut agent = Agent::new(config, 0, 0, Rng::new(1));
    for _ in 0..9 {
        let sample = sflow::Sample {
            flow: &flow,
            packet: frame,
            input: 1,
            output: 2,
            out_tci: 0,
            tunnel_in: Outer::of(&flow.tunnel, 17),
            tunnel_out: Option::None,
            mpls: vec![1; usize::from(settings & 3)],
        };
        agent.sample(&sample, &mut out);
    }
    agent.tick(2000, 2, &mut None, &mut out);
    check(&out, false);

    out.clear();
    let config = netflow::Config {
        engine_type: 0,
        engine_id: *settings,
        active_timeout_ms: 1000,
        add_id_to_interface: bit(0),
    };
    let mut nf = NetFlow::new(config, 0);
    if let Some(key) = Key::of(&flow) {
        let packets = Packets { packets: 1, bytes: u64::from(*settings) << 30, used_ms: 5, tcp_flags: 1 };
        nf.update(&key, 1, &packets, 5, 5);
        nf.forget(&key, 6, 6);
        nf.flush(&mut out);
        assert!(!out.is_empty());
        check(&out, false);
    }
}

pub(super) const TARGET_SEEDS: &[&[u8]] =
    &[b"127.0.0.1:6343", b"10.0.0.1", b"[::1]:4739", b"[2001:db8::1]", b"host:1"];

/// A collector's name.
pub(super) fn target(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(to) = ib_export::target::parse(&text, 6343) {
        assert_ne!(to.port(), 0);
    }
}
