//! The provider from outside: contract, caches against the long way, random bytes, ports that come and go.

use std::sync::Arc;

use ib_base::rng::Rng;
use ib_base::time::Clock;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::rawkey::RawKey;
use ib_dp_userspace::{Config, DpUserspace, DpUserspaceClass, DropReason};
use ib_dpif::conformance::{self, Harness, udp_frame};
use ib_dpif::{
    Action, Dpif, DpifClass, DpifError, FlowPut, Install, PortSpec, Ufid, Upcall, UpcallHandler,
    UpcallVerdict,
};
use ib_flow::{Flow, Mask, Metadata, OdpPort};
use ib_netdev::{DummyLevel, Registry};
use ib_packet::{Gso, GsoKind, Packet};

struct Bed {
    dp: DpUserspace,
    provider: Arc<MemoryProvider>,
}

fn bed() -> Bed {
    let registry = Registry::new().unwrap();
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "ovs-dummy", config);
    for n in 1..=4 {
        let spec = PortSpec { name: format!("m{n}"), kind: "memory".into(), ..PortSpec::default() };
        assert_eq!(dp.port_add(&spec), Ok(OdpPort(n)));
    }
    Bed { dp, provider }
}

impl Bed {
    fn send(&self, port: u32, packets: impl IntoIterator<Item = Packet>) {
        let dev = self.provider.port(&format!("m{port}")).unwrap();
        packets.into_iter().for_each(|p| dev.push(p));
        self.dp.run();
    }
    fn got(&self, port: u32) -> Vec<Packet> {
        self.provider.port(&format!("m{port}")).unwrap().take_sent()
    }
    fn put(&self, key: &Flow, mask: &Mask, actions: Vec<Action>) {
        let actions = actions.into();
        let put = FlowPut { modify: true, create: true, zero_stats: false, key, mask, ufid: None, actions };
        self.dp.flow_put(&put).unwrap();
    }
}

impl Harness for Bed {
    fn dpif(&self) -> &dyn Dpif {
        &self.dp
    }
    fn ports(&self) -> Vec<OdpPort> {
        (1..=4).map(OdpPort).collect()
    }
    fn inject(&self, port: OdpPort, frame: &[u8]) {
        self.send(port.0, [Packet::from_frame(frame)]);
    }
    fn sent(&self, port: OdpPort) -> Vec<Vec<u8>> {
        self.got(port.0).iter().map(|p| p.data().to_vec()).collect()
    }
}

#[test]
fn keeps_the_contract() {
    conformance::all(&bed());
}

#[test]
fn keeps_the_contract_without_and_with_eager_cache() {
    for inv_prob in [0, 1] {
        let bed = bed();
        bed.dp.set_emc_insert_inv_prob(inv_prob);
        conformance::all(&bed);
    }
}

/// Answers each miss from the packet's own key, with the whole key as mask.
struct Exact {
    asked: std::sync::atomic::AtomicU32,
}

impl UpcallHandler for Exact {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut mask = Mask::default();
        mask.0.words_mut().fill(u64::MAX);
        // Where it goes tells the key apart from its neighbours.
        let sum = upcall.key.words().iter().fold(0u64, |a, w| a.rotate_left(5) ^ w);
        let port = OdpPort(2 + (sum ^ (sum >> 32)) as u32 % 3);
        let actions: Arc<[Action]> = Arc::new([Action::Output(port)]);
        let install = Some(Install { mask, actions: Arc::clone(&actions) });
        UpcallVerdict { actions, install, ufid: upcall.ufid }
    }
    fn installed(&self, _: Ufid, result: Result<(), DpifError>) {
        result.unwrap();
    }
}

/// Frames of all the shapes that raw keys know, and some that they do not.
fn frames() -> Vec<Vec<u8>> {
    let udp = udp_frame(7, 8);
    let mut tcp = udp.clone();
    tcp[23] = 6;
    tcp[17] = 46;
    tcp[46..48].copy_from_slice(&[0x50, 0x12]);
    let mut icmp = udp.clone();
    icmp[23] = 1;
    let mut v6 = udp[..14].to_vec();
    v6[12..14].copy_from_slice(&[0x86, 0xdd]);
    v6.extend_from_slice(&[0x60, 0, 0, 0, 0, 24, 6, 64]);
    v6.extend_from_slice(&[0xfd; 32]);
    v6.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9]);
    let mut v6_udp = v6.clone();
    v6_udp[20] = 17;
    let mut arp = udp.clone();
    arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    let mut all = vec![udp, tcp, icmp, v6, v6_udp, arp];
    for i in 0..all.len() {
        let mut tagged = all[i].clone();
        tagged.splice(12..12, [0x81, 0, 0x20, 5]);
        all.push(tagged);
    }
    all
}

/// Any bit that the raw key leaves out leaves the flow key alone, too.
#[test]
fn raw_keys_see_all_that_flow_keys_see() {
    let key = |p: &Packet| {
        let mut flow = Flow::zeroed();
        let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
        ib_flow::extract::extract(p, &md, &mut flow);
        flow
    };
    let mut compared = 0;
    for frame in frames() {
        let p = Packet::from_frame(&frame);
        let Some(raw) = RawKey::new(&p, 1, 3) else { continue };
        for bit in 0..frame.len() * 8 {
            let mut flipped = Packet::from_frame(&frame);
            flipped.data_mut()[bit / 8] ^= 1 << (bit % 8);
            if RawKey::new(&flipped, 1, 3) == Some(raw) {
                assert_eq!(key(&flipped), key(&p), "bit {bit} of {frame:02x?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}

/// Random packets take the same way with the cache on and off.
#[test]
fn cached_and_uncached_agree() {
    let mut rng = Rng::new(4711);
    let shapes = frames();
    let (cached, plain) = (bed(), bed());
    cached.dp.set_emc_insert_inv_prob(1);
    plain.dp.set_emc_insert_inv_prob(0);
    for b in [&cached, &plain] {
        b.dp.set_upcall_handler(Some(Arc::new(Exact { asked: 0.into() })));
    }
    for _ in 0..300 {
        let batch: Vec<Vec<u8>> = (0..rng.below(40))
            .map(|_| {
                let mut f = shapes[rng.below(shapes.len() as u64) as usize].clone();
                for _ in 0..rng.below(3) {
                    let at = rng.below(f.len() as u64) as usize;
                    f[at] ^= 1 << rng.below(3);
                }
                f
            })
            .collect();
        for b in [&cached, &plain] {
            b.send(1, batch.iter().map(|f| Packet::from_frame(f)));
        }
        for port in 2..=4 {
            let bytes = |b: &Bed| b.got(port).iter().map(|p| p.data().to_vec()).collect::<Vec<_>>();
            assert!(bytes(&cached) == bytes(&plain), "port {port}");
        }
    }
    let hits = |b: &Bed| b.dp.worker_totals().0;
    let (with, without) = (hits(&cached).emc_hits, hits(&plain).emc_hits);
    assert!(with > 1000 && without == 0, "{:?}", hits(&cached));
    assert_eq!(hits(&cached).received, hits(&plain).received);
}

#[test]
fn two_packets_of_a_new_flow_in_one_batch_ask_once() {
    let bed = bed();
    let handler = Arc::new(Exact { asked: 0.into() });
    bed.dp.set_upcall_handler(Some(Arc::clone(&handler) as _));
    bed.send(1, (0..32).map(|_| Packet::from_frame(&udp_frame(1, 2))));
    assert_eq!(handler.asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    let t = bed.dp.worker_totals().0;
    assert_eq!((t.received, t.upcalls_ok, t.hits()), (32, 1, 31));
}

#[test]
fn random_bytes_never_panic() {
    let bed = bed();
    bed.dp.set_upcall_handler(Some(Arc::new(Exact { asked: 0.into() })));
    let mut rng = Rng::new(5);
    let shapes = frames();
    for round in 0..2000 {
        let mut f = vec![0; rng.below(120) as usize];
        rng.fill(&mut f);
        if round % 2 == 0 {
            let shape = &shapes[rng.below(shapes.len() as u64) as usize];
            let keep = f.len().min(shape.len()).min(rng.below(60) as usize);
            f[..keep].copy_from_slice(&shape[..keep]);
        }
        let mut p = Packet::from_frame(&f);
        p.ethernet = rng.below(8) != 0;
        bed.send(1, [p]);
    }
    assert_eq!(bed.dp.drops().read(DropReason::Internal), 0);
}

/// Every header-changing action on every prefix of every shape.
#[test]
fn actions_survive_packets_cut_short() {
    use ib_dpif::SetField;
    use ib_dpif::action::*;
    let bed = bed();
    let f = ib_packet::Be16::new(0x0800);
    let actions = vec![
        Action::Set(SetField::Ethernet(EthAddrs::default(), EthAddrs::default())),
        Action::Set(SetField::Ipv4(
            Ipv4Fields::default(),
            Ipv4Fields { src: ib_packet::Be32::MAX, ttl: 255, tos: 255, ..Ipv4Fields::default() },
        )),
        Action::Set(SetField::Ipv6(
            Ipv6Fields::default(),
            Ipv6Fields { dst: ib_packet::Be128::MAX, ..Ipv6Fields::default() },
        )),
        Action::Set(SetField::Tcp(
            L4Ports::default(),
            L4Ports { src: ib_packet::Be16::MAX, ..L4Ports::default() },
        )),
        Action::Set(SetField::Icmp(IcmpFields { kind: 1, code: 1 }, IcmpFields { kind: 255, code: 255 })),
        Action::Set(SetField::Nd(
            NdFields::default(),
            NdFields { target: ib_packet::Be128::MAX, ..NdFields::default() },
        )),
        Action::Set(SetField::Arp(
            ArpFields::default(),
            ArpFields { sha: ib_packet::Mac::BROADCAST, ..ArpFields::default() },
        )),
        Action::PushVlan { tpid: ib_packet::Be16::new(0x8100), tci: ib_packet::Be16::new(0x1001) },
        Action::PushMpls { lse: ib_packet::Be32::new(0x140), ethertype: ib_packet::Be16::new(0x8847) },
        Action::Set(SetField::Mpls(ib_packet::Be32::MAX, ib_packet::Be32::MAX)),
        Action::PopMpls(f),
        Action::PopVlan,
        Action::PopEth,
        Action::PushEth { dst: ib_packet::Mac::ZERO, src: ib_packet::Mac::ZERO },
        Action::DecTtl { exception: Arc::new([Action::Output(OdpPort(3))]) },
        Action::Output(OdpPort(2)),
    ];
    bed.put(&Flow::zeroed(), &Mask::default(), actions);
    for shape in frames() {
        for len in 14..=shape.len() {
            bed.send(1, [Packet::from_frame(&shape[..len])]);
            assert_eq!(bed.got(2).len() + bed.got(3).len(), 1);
        }
    }
    assert_eq!(bed.dp.drops().read(DropReason::Internal), 0);
}

#[test]
fn super_frames_pass_whole() {
    let bed = bed();
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    let key = Flow { in_port: 1, ..Flow::zeroed() };
    bed.put(&key, &mask, vec![Action::Output(OdpPort(2))]);
    let mut p = Packet::from_frame(&udp_frame(1, 2));
    p.resize(60_000);
    p.offload.partial_csum = Some((34, 6));
    p.offload.gso = Some(Gso { kind: GsoKind::UdpL4, size: 1400, ecn: false });
    let offload = p.offload;
    bed.send(1, [p]);
    let out = bed.got(2);
    assert_eq!((out.len(), out[0].len(), out[0].offload), (1, 60_000, offload));
}

/// A handler that breaks takes down one batch, not the datapath.
struct Broken;
impl UpcallHandler for Broken {
    fn upcall(&self, _: &Upcall<'_>) -> UpcallVerdict {
        panic!("this is the test");
    }
    fn installed(&self, _: Ufid, _: Result<(), DpifError>) {}
}

#[test]
fn a_panic_costs_a_batch() {
    let bed = bed();
    bed.dp.set_upcall_handler(Some(Arc::new(Broken)));
    bed.send(1, [Packet::from_frame(&udp_frame(1, 2))]);
    assert_eq!(bed.dp.drops().read(DropReason::Internal), 1);
    bed.dp.set_upcall_handler(Some(Arc::new(Exact { asked: 0.into() })));
    bed.send(1, [Packet::from_frame(&udp_frame(1, 2))]);
    assert_eq!((2..=4).map(|p| bed.got(p).len()).sum::<usize>(), 1);
}

#[test]
fn dummy_class_numbers_ports_by_their_names() {
    let registry = Registry::new().unwrap();
    registry.enable_dummy(DummyLevel::Normal);
    let config =
        Config { registry: Arc::clone(&registry), clock: Clock::simulated(), threads: 1, dummy: true };
    let class = DpUserspaceClass::new("dummy", config);
    assert!(class.open("ovs-dummy", false).is_err());
    let dp = class.open("ovs-dummy", true).unwrap();
    let add = |name: &str, wanted: Option<u32>| {
        let number = wanted.map(OdpPort);
        let kind = "dummy".to_owned();
        dp.port_add(&PortSpec { name: name.into(), kind, number, ..PortSpec::default() }).unwrap().0
    };
    let numbers = [
        ("p1", None),
        ("p7", None),
        ("x7", None),
        ("dpmd", None),
        ("brx", None),
        ("br0", None),
        ("q", Some(9)),
        ("r", Some(9)),
    ]
    .map(|(n, w)| add(n, w));
    assert_eq!(numbers, [1, 7, 2, 3, 4, 100, 9, 5]);
    assert_eq!(dp.port_by_name("ovs-dummy").unwrap().kind, "dummy-internal");
    assert_eq!(dp.full_name(), "dummy@ovs-dummy");
    assert!(matches!(
        dp.port_add(&PortSpec { name: "p1".into(), kind: "dummy".into(), ..PortSpec::default() }),
        Err(DpifError::Exists(_))
    ));
    dp.port_del(OdpPort(7)).unwrap();
    assert_eq!(add("y7", None), 7);
}

#[test]
fn a_port_works_under_its_new_number() {
    let bed = bed();
    assert_eq!(bed.dp.change_port_number("m1", "2"), Err("port number already in use"));
    assert_eq!(bed.dp.change_port_number("m9", "9"), Err("unknown port"));
    assert_eq!(bed.dp.change_port_number("m1", "0"), Err("bad port number"));
    bed.dp.change_port_number("m1", "9").unwrap();
    let key = Flow { in_port: 9, ..Flow::zeroed() };
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    bed.put(&key, &mask, vec![Action::Output(OdpPort(2)), Action::Output(OdpPort(9))]);
    bed.send(1, [Packet::from_frame(&udp_frame(1, 2))]);
    assert_eq!((bed.got(2).len(), bed.got(1).len()), (1, 1));
}

#[test]
fn a_dummy_port_works_after_one_run() {
    let registry = Registry::new().unwrap();
    registry.enable_dummy(DummyLevel::Normal);
    let config =
        Config { registry: Arc::clone(&registry), clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "ovs-dummy", config);
    for name in ["p1", "p2"] {
        dp.port_add(&PortSpec { name: name.into(), kind: "dummy".into(), ..PortSpec::default() }).unwrap();
    }
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    let actions = Arc::new([Action::Output(OdpPort(2))]);
    let key = Flow { in_port: 1, ..Flow::zeroed() };
    let put = FlowPut {
        modify: false,
        create: true,
        zero_stats: false,
        key: &key,
        mask: &mask,
        ufid: None,
        actions,
    };
    dp.flow_put(&put).unwrap();
    let p1 = registry.get("p1").unwrap();
    for _ in 0..100 {
        p1.as_dummy().unwrap().inject(0, Packet::from_frame(&udp_frame(1, 2)));
    }
    assert!(dp.run());
    assert!(!dp.run());
    let stats = registry.get("p2").unwrap().stats().unwrap();
    assert_eq!((stats.tx_packets, stats.tx_bytes), (Some(100), Some(6000)));
    drop(p1);
    dp.port_del(OdpPort(1)).unwrap();
    assert!(registry.get("p1").is_none(), "the device is closed when its port is gone");
}

#[test]
fn statistics_read_as_expected() {
    use ib_dp_userspace::show;
    let registry = Registry::new().unwrap();
    registry.enable_dummy(DummyLevel::Normal);
    let config =
        Config { registry: Arc::clone(&registry), clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "ovs-dummy", config);
    for (name, kind) in [("p1", "dummy"), ("dpmd", "dummy-pmd")] {
        dp.port_add(&PortSpec { name: name.into(), kind: kind.into(), ..PortSpec::default() }).unwrap();
    }
    dp.set_upcall_handler(Some(Arc::new(Exact { asked: 0.into() })));
    for _ in 0..5 {
        registry.get("p1").unwrap().as_dummy().unwrap().inject(0, Packet::from_frame(&udp_frame(1, 2)));
        dp.run();
    }
    let text = show::pmd_stats_show(&dp, None);
    assert_eq!(
        text.split_once("main thread:\n").unwrap().1,
        "  packets received: 5
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  mfex opt hits: 0
  simple match hits: 0
  emc hits: 4
  smc hits: 0
  megaflow hits: 0
  avg. subtable lookups per megaflow hit: 0.00
  miss with success upcall: 1
  miss with failed upcall: 0
  avg. packets per output batch: 1.00
"
    );
    assert!(text.starts_with("pmd thread numa_id 0 core_id "));
    show::pmd_stats_clear(&dp, None);
    assert!(show::pmd_stats_show(&dp, None).contains("main thread:\n  packets received: 0\n"));
    let rxq = show::pmd_rxq_show(&dp, None, 60);
    assert!(
        rxq.starts_with("Displaying last 60 seconds pmd usage %\npmd thread numa_id 0 core_id "),
        "{rxq}"
    );
    let queue = "  isolated : false\n  port: dpmd              queue-id:  0 (enabled)   pmd usage: NOT AVAIL\n  overhead: NOT AVAIL\n";
    assert!(rxq.ends_with(queue), "{rxq}");
    assert_eq!(dp.stats().hits, 4);
}

#[test]
fn threads_forward_while_ports_come_and_go() {
    let registry = Registry::new().unwrap();
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::new(), threads: 2, dummy: false };
    let dp = DpUserspace::new("netdev", "ovs-netdev", config);
    let add = |n: u32| {
        let number = Some(OdpPort(n));
        dp.port_add(&PortSpec {
            name: format!("m{n}"),
            kind: "memory".into(),
            number,
            ..PortSpec::default()
        })
        .unwrap();
    };
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    for (from, to) in [(1, 3), (2, 4)] {
        let key = Flow { in_port: from, ..Flow::zeroed() };
        let actions = Arc::new([Action::Output(OdpPort(to))]);
        let put = FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key: &key,
            mask: &mask,
            ufid: None,
            actions,
        };
        dp.flow_put(&put).unwrap();
    }
    (1..=3).for_each(add);
    for n in 1..=2 {
        provider.port(&format!("m{n}")).unwrap().replay(vec![udp_frame(1, 2)]);
    }
    let m3 = provider.port("m3").unwrap();
    m3.discard_sent();
    let grows = |what: &dyn Fn() -> u64| {
        let start = what();
        for _ in 0..2000 {
            if what() > start + 1000 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("nothing moves");
    };
    grows(&|| m3.tx_packets());
    grows(&|| dp.drops().read(DropReason::InvalidPort));
    for _ in 0..20 {
        add(4);
        let m4 = provider.port("m4").unwrap();
        m4.discard_sent();
        grows(&|| m4.tx_packets());
        dp.port_del(OdpPort(4)).unwrap();
    }
    dp.port_del(OdpPort(1)).unwrap();
    let stopped = m3.tx_packets();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(m3.tx_packets(), stopped, "a port that was removed receives nothing more");
}

#[test]
fn more_queues_are_polled_once_they_are_configured() {
    use ib_dp_userspace::show;
    let registry = Registry::new().unwrap();
    registry.enable_dummy(DummyLevel::Normal);
    let config =
        Config { registry: Arc::clone(&registry), clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "ovs-dummy", config);
    dp.port_add(&PortSpec { name: "p0".into(), kind: "dummy-pmd".into(), ..PortSpec::default() }).unwrap();
    let p0 = registry.get("p0").unwrap();
    p0.set_config(&[("n_rxq".to_owned(), "3".to_owned())].into()).unwrap();
    dp.run();
    let text = show::pmd_rxq_show(&dp, None, 60);
    for q in 0..3 {
        let line = format!("  port: p0                queue-id: {q:2} (enabled)   pmd usage: NOT AVAIL\n");
        assert!(text.contains(&line), "{text}");
    }
    p0.as_dummy().unwrap().inject(2, Packet::from_frame(&udp_frame(1, 2)));
    dp.run();
    assert_eq!(dp.pmds(60)[0].totals.received, 1);
}

/// Two polling threads replay a capture into a port that counts; queues move, and the port leaves while they run.
#[test]
fn real_pmd_threads_poll_until_their_port_goes() {
    let path = std::env::temp_dir().join(format!("ib-pmd-{}.pcap", std::process::id()));
    let mut pcap = ib_packet::pcap::PcapWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
    pcap.write(std::time::Duration::ZERO, &udp_frame(1, 2)).unwrap();
    drop(pcap.into_inner().unwrap());
    let registry = Registry::new().unwrap();
    let config =
        Config { registry: Arc::clone(&registry), clock: Clock::simulated(), threads: 1, dummy: false };
    let topology = Arc::new(ib_dp_userspace::pmd::numa::Topology::flat(2));
    let dp = DpUserspace::new("netdev", "ovs-netdev", config).with_topology(&topology);
    dp.set_config(&[("pmd-cpu-mask".to_owned(), "3".to_owned())].into());
    let source = registry.open("r0", "replay").unwrap();
    let options = [("pcap_rx", path.to_str().unwrap()), ("n_rxq", "2")];
    source.set_config(&options.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let sink =
        dp.port_add(&PortSpec { name: "n0".into(), kind: "null".into(), ..PortSpec::default() }).unwrap();
    let put = FlowPut {
        modify: false,
        create: true,
        zero_stats: false,
        key: &Flow::zeroed(),
        mask: &Mask::default(),
        ufid: None,
        actions: Arc::new([Action::Output(sink)]),
    };
    dp.flow_put(&put).unwrap();
    let spec = PortSpec { name: "r0".into(), kind: "replay".into(), ..PortSpec::default() };
    let port = dp.port_add(&spec).unwrap();
    let sent = || registry.get("n0").unwrap().stats().unwrap().tx_packets.unwrap();
    let wait_for = |what: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !what() {
            assert!(began.elapsed().as_secs() < 20, "nothing moves");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let busy = |core: usize| dp.pmds(60)[core].totals.received > 1000;
    wait_for(&|| sent() > 1000 && busy(0) && busy(1));
    let total = dp.stats().hits;
    // One core has both queues now, and the counts of the other one are not lost.
    dp.set_config(&[("pmd-cpu-mask".to_owned(), "1".to_owned())].into());
    dp.run();
    let pmds = dp.pmds(60);
    assert_eq!(pmds.iter().map(|p| (p.core_id, p.queues.len())).collect::<Vec<_>>(), [(0, 2)]);
    assert!(dp.stats().hits >= total);
    let before = sent();
    wait_for(&|| sent() > before + 1000);
    dp.port_del(port).unwrap();
    let last = sent();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(sent(), last, "the port is gone");
    dp.run();
    assert!(dp.pmds(60).is_empty());
}

/// What the handler of a `userspace` action gets to see.
struct Keeps(std::sync::Mutex<Vec<Packet>>);
impl UpcallHandler for Keeps {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        self.0.lock().unwrap().push(upcall.packet.clone());
        UpcallVerdict { actions: Arc::new([]), install: None, ufid: upcall.ufid }
    }
    fn installed(&self, _: Ufid, _: Result<(), DpifError>) {}
}

#[test]
fn packets_for_the_controller_have_their_checksum_done() {
    let bed = bed();
    let kept = Arc::new(Keeps(std::sync::Mutex::new(Vec::new())));
    bed.dp.set_upcall_handler(Some(Arc::clone(&kept) as _));
    bed.put(
        &Flow::zeroed(),
        &Mask::default(),
        vec![Action::Userspace(Default::default()), Action::Output(OdpPort(2))],
    );
    let mut p = Packet::from_frame(&udp_frame(1, 2)[..46]);
    p.offload.partial_csum = Some((34, 6));
    bed.send(1, [p]);
    let up = kept.0.lock().unwrap().remove(0);
    assert!(up.offload.is_plain() && up.data()[40..42] != [0, 0]);
    assert_eq!(bed.got(2)[0].offload.partial_csum, Some((34, 6)), "the port may do it itself");
}
