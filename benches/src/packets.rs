//! Paths that a packet takes: extraction, lookup and forwarding, and the first packet of a flow.

use std::hint::black_box;
use std::sync::Arc;

use ib_base::time::Clock;
use ib_classifier::{Classifier, ClsRule};
use ib_dp_userspace::memory::{Memory, MemoryProvider};
use ib_dp_userspace::{Config, DpUserspace, DpUserspaceClass};
use ib_dpif::conformance::udp_frame;
use ib_dpif::{Action, Dpif, FlowPut, PortSpec, Ufid};
use ib_flow::{Flow, Mask, Match, Metadata, OdpPort, OfPort};
use ib_netdev::{DummyLevel, Registry};
use ib_ofproto::{BundleConfig, PortConfig, Switch};
use ib_packet::{Be16, Be32, Packet};

/// A UDP frame whose addresses and ports tell flow `n` from all others.
fn frame(n: u32) -> Vec<u8> {
    let mut frame = udp_frame(1000, 53);
    frame[26..30].copy_from_slice(&(0x0a00_0000 + n).to_be_bytes());
    frame
}

fn key_of(frame: &[u8]) -> Flow {
    let mut key = Flow::zeroed();
    let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
    ib_flow::extract::extract(&Packet::from_frame(frame), &md, &mut key);
    key
}

/// Key extraction of a UDP packet.
pub fn extract(n: u64) -> u64 {
    let packet = Packet::from_frame(&frame(1));
    let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
    let mut key = Flow::zeroed();
    for _ in 0..n {
        ib_flow::extract::extract(black_box(&packet), &md, &mut key);
        black_box(&key);
    }
    n
}

/// A registry with memory ports, which the main loop polls.
fn registry() -> (Arc<Registry>, Arc<MemoryProvider>) {
    let registry = Registry::new().expect("a registry");
    registry.enable_dummy(DummyLevel::Normal);
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    (registry, provider)
}

/// Forwards at least 50 times `n` packets of `flows` flows under `masks` masks: the port gives a hundred thousand at a time.
fn forward(n: u64, flows: u32, masks: u32) -> u64 {
    let (registry, provider) = registry();
    let config = Config { registry, clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "d", config);
    for name in ["m1", "m2"] {
        dp.port_add(&PortSpec { name: name.into(), kind: "memory".into(), ..PortSpec::default() })
            .expect("a port");
    }
    let actions: Arc<[Action]> = Arc::new([Action::Output(OdpPort(2))]);
    for i in 0..flows {
        let mut mask = Mask::default();
        mask.0.in_port = u32::MAX;
        mask.0.recirc_id = u32::MAX;
        mask.0.packet_type = Be32::MAX;
        mask.0.dl_type = Be16::MAX;
        mask.0.nw_frag = 3;
        mask.0.nw_src = Be32::MAX;
        mask.0.nw_dst = Be32::new(u32::MAX << (i % masks));
        let put = FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key: &key_of(&frame(i)),
            mask: &mask,
            ufid: Some(Ufid(u128::from(i) + 1)),
            actions: Arc::clone(&actions),
        };
        dp.flow_put(&put).expect("a flow");
    }
    let sink = provider.port("m2").expect("m2");
    sink.discard_sent();
    // A stride that is prime to the number of flows: neighbours in time are no neighbours in memory.
    let order = (0..u64::from(flows)).map(|i| (i * 7919 % u64::from(flows)) as u32);
    provider.port("m1").expect("m1").replay(order.map(frame).collect());
    let before = sink.tx_packets();
    while sink.tx_packets() - before < n * 50 {
        dp.run();
    }
    sink.tx_packets() - before
}

fn push_and_run(source: &Memory, dp: &dyn Dpif, flows: impl Iterator<Item = u32>) {
    for flow in flows {
        source.push(Packet::from_frame(&frame(flow)));
    }
    dp.run();
}

/// One flow: the exact-match cache.
pub fn forward_one(n: u64) -> u64 {
    forward(n, 1, 1)
}

/// More flows than the exact-match cache holds, ten masks.
pub fn forward_many(n: u64) -> u64 {
    forward(n, 10_000, 10)
}

/// Every packet the first of its flow: upcall, translation, megaflow, forwarding.
pub fn miss(n: u64) -> u64 {
    let (registry, provider) = registry();
    let clock = Clock::simulated();
    let config = Config { registry, clock: clock.clone(), threads: 1, dummy: true };
    let class = Arc::new(DpUserspaceClass::new("dummy", config));
    let mut switch = Switch::new(&clock, vec![Arc::clone(&class) as _], "/nowhere");
    switch.bridge_add("br0", "dummy").expect("a bridge");
    let bridge = switch.bridge_mut("br0").expect("br0");
    for (number, name) in [(1, "m1"), (2, "m2")] {
        let config = PortConfig {
            name: name.into(),
            kind: "memory".into(),
            ofport_request: Some(OfPort(number)),
            ..PortConfig::default()
        };
        let port = bridge.port_add(config).expect("a port");
        bridge
            .bundle_set(BundleConfig { name: name.into(), ports: vec![port], ..BundleConfig::default() })
            .expect("a bundle");
    }
    super::control::add_flows(
        bridge,
        clock.now(),
        [
            "priority=0,actions=drop",
            "priority=5,ip,in_port=1,actions=multipath(symmetric_l3l4+udp,0,modulo_n,8,0,NXM_NX_REG0[]),output:2",
        ],
    );
    switch.publish();
    switch.run(clock.now());
    let (source, sink) = (provider.port("m1").expect("m1"), provider.port("m2").expect("m2"));
    sink.discard_sent();
    let dp = class.all().pop().expect("a datapath");
    push_and_run(&source, &*dp, 0..u32::try_from(n).unwrap_or(u32::MAX));
    sink.tx_packets()
}

/// A lookup among 1,000 rules with ten masks, unwildcarding.
pub fn classify(n: u64) -> u64 {
    let classifier = Classifier::new();
    for i in 0..1000u32 {
        let mut m = Match::default();
        m.flow.dl_type = Be16::new(0x0800);
        m.mask.0.dl_type = Be16::MAX;
        m.mask.0.nw_src = Be32::new(u32::MAX << (i % 10));
        m.flow.nw_src = Be32::new((0x0a00_0000 + (i << 10)) & (u32::MAX << (i % 10)));
        classifier.insert(Arc::new(ClsRule::new(&m, i32::try_from(i % 7).unwrap_or(0), &[], 1)));
    }
    let keys: Vec<Flow> = (0..64).map(|i| key_of(&frame(i << 12))).collect();
    for i in 0..n {
        let mut wc = Mask::default();
        let key = &keys[(i % 64) as usize];
        black_box(classifier.lookup(1, black_box(key), Some(&mut wc)));
    }
    n
}
