//! The core alone: packets from a source in memory through lookup and output into a sink.
//!
//! `cargo bench -p ib-dp-userspace` prints million packets a second of processor time, source and sink included (they copy 60 bytes and recycle
//! a buffer). Scenarios: flows by number and by number of masks. An argument selects scenarios by substring.

use std::sync::Arc;
use std::time::Duration;

use ib_base::time::Clock;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::conformance::udp_frame;
use ib_dpif::{Action, Dpif, FlowPut, PortSpec};
use ib_flow::{Flow, Mask, Metadata, OdpPort};
use ib_netdev::Registry;
use ib_packet::{Be16, Be32, Packet};

const MEASURE: Duration = Duration::from_millis(1500);

/// Mask number `n` of up to 64: source address exact, destination address and port by prefix.
fn mask(n: u32) -> Mask {
    let mut m = Mask::default();
    m.0.in_port = u32::MAX;
    m.0.recirc_id = u32::MAX;
    m.0.packet_type = Be32::MAX;
    m.0.dl_type = Be16::MAX;
    m.0.nw_frag = 3;
    m.0.nw_proto = 0xff;
    m.0.nw_src = Be32::MAX;
    m.0.nw_dst = Be32::new(u32::MAX << (n % 8));
    m.0.tp_dst = Be16::new(u16::MAX << (n / 8));
    m
}

/// The first packet of flow `n`, or of `flows` that are wide (`/24`) packet `n`.
fn frame(n: u32, wide: Option<u32>) -> Vec<u8> {
    let mut f = udp_frame(1000, 53);
    let src = wide.map_or(n, |flows| ((n % flows) << 8) | (n / flows));
    f[26..30].copy_from_slice(&(0x0a00_0000 + src).to_be_bytes());
    f
}

/// Processor time of all threads, nanoseconds: the machine may be busy with something else, too.
fn cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    tasks
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok())
        .filter_map(|s| s.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// `flows` packets, each of a flow of its own or, with `wide`, of so many flows.
fn run(name: &str, flows: u32, masks: u32, wide: Option<u32>) {
    let registry = Registry::new().expect("registry");
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let dp = DpUserspace::new(
        "netdev",
        "bench",
        Config { registry, clock: Clock::new(), threads: 1, dummy: false },
    );
    for name in ["m1", "m2"] {
        let spec = PortSpec { name: name.into(), kind: "memory".into(), ..PortSpec::default() };
        dp.port_add(&spec).expect("port");
    }
    let actions: Arc<[Action]> = Arc::new([Action::Output(OdpPort(2))]);
    let mut masks: Vec<Mask> = (0..masks).map(mask).collect();
    if wide.is_some() {
        masks.iter_mut().for_each(|m| m.0.nw_src = Be32::new(0xffff_ff00));
    }
    // A stride that is prime to the number of flows: neighbours in time are no neighbours in memory.
    let order = (0..u64::from(flows)).map(|i| (i * 7919 % u64::from(flows)) as u32);
    let frames: Vec<Vec<u8>> = order.map(|n| frame(n, wide)).collect();
    let (rss, started) = (rss_kib(), std::time::Instant::now());
    for n in 0..wide.unwrap_or(flows) {
        let mut key = Flow::zeroed();
        let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
        ib_flow::extract::extract(&Packet::from_frame(&frame(n, wide)), &md, &mut key);
        let put = FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key: &key,
            mask: &masks[n as usize % masks.len()],
            ufid: Some(ib_dpif::Ufid(u128::from(n) + 1)),
            actions: Arc::clone(&actions),
        };
        dp.flow_put(&put).expect("flow");
    }
    if flows >= 100_000 {
        println!(
            "{:24} {:6.0} k/s installed, {} bytes a flow",
            "",
            f64::from(flows) / started.elapsed().as_secs_f64() / 1e3,
            (rss_kib() - rss) * 1024 / u64::from(flows)
        );
    }
    let sink = provider.port("m2").expect("sink");
    sink.discard_sent();
    provider.port("m1").expect("source").replay(frames);
    let thread = || dp.worker_totals().1[0];
    std::thread::sleep(MEASURE / 2);
    let (before, sent, start) = (thread(), sink.tx_packets(), cpu_ns());
    std::thread::sleep(MEASURE);
    let secs = (cpu_ns() - start) as f64 / 1e9;
    let n = sink.tx_packets() - sent;
    let t = thread().since(&before);
    assert_eq!(t.misses(), 0);
    println!(
        "{name:32} {:6.2} Mpps  {:6.1} ns/packet  emc {:3.0} %  smc {:3.0} %  probes a megaflow hit {:.1}",
        n as f64 / secs / 1e6,
        secs * 1e9 / n as f64,
        t.emc_hits as f64 * 100.0 / t.hits() as f64,
        t.smc_hits as f64 * 100.0 / t.hits() as f64,
        t.megaflow_probes as f64 / t.megaflow_hits.max(1) as f64,
    );
}

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    for (name, flows, masks, wide) in [
        ("10k keys, 1 mask, 1000 flows", 10_000, 1, Some(1000)),
        ("10k keys, 10 masks, 200 flows", 10_000, 10, Some(200)),
        ("10k keys, 50 masks, 1000 flows", 10_000, 50, Some(1000)),
        ("1 flow", 1, 1, None),
        ("10k flows, 1 mask", 10_000, 1, None),
        ("10k flows, 10 masks", 10_000, 10, None),
        ("10k flows, 50 masks", 10_000, 50, None),
        ("200k flows, 1 mask", 200_000, 1, None),
        ("200k flows, 10 masks", 200_000, 10, None),
        ("200k flows, 50 masks", 200_000, 50, None),
    ] {
        if name.contains(&wanted) {
            run(name, flows, masks, wide);
        }
    }
}
