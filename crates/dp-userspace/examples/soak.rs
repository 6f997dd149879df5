//! Hours in minutes: does forwarding stay steady and memory flat while everything around it comes and goes?
//!
//! `soak [SECONDS [KIND]]`; KIND of the ports is `system` by default, or `afxdp`. In a network namespace of its own it forwards probes, one each
//! millisecond, from one veth pair to another, and meanwhile adds and removes ports, flows (with masks of many shapes), and
//! tracked connections without a pause. Once in ten seconds, and at the end, it prints how long probes took at most, how many are missing,
//! connections and resident memory. Fails if a probe took longer than ten milliseconds, or is missing, or memory has grown by a tenth in the
//! second half. Time that the forwarding thread or the prober was ready to run and had no processor is the machine's and not counted: the
//! scheduler tells (`schedstat`).

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ib_base::time::Clock;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::conformance::udp_frame;
use ib_dpif::conntrack::CtControl;
use ib_dpif::{Action, CtAction, Dpif, FlowDel, FlowPut, PortSpec};
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::{Flags, Netdev, Registry};
use ib_packet::Packet;
use ib_packet::buffer::Pool;
use ib_sys::netns;
use ib_sys::rtnetlink::Rtnl;

/// A probe that takes longer is a stall.
const STALL: Duration = Duration::from_millis(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How long the forwarding threads and the calling one have waited for a processor.
fn run_delay() -> Duration {
    let waited = |dir: &std::path::Path| -> Option<u64> {
        std::fs::read_to_string(dir.join("schedstat")).ok()?.split(' ').nth(1)?.parse().ok()
    };
    let mut ns = waited(std::path::Path::new("/proc/thread-self")).unwrap_or(0);
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("pmd-") {
            ns += waited(&task.path()).unwrap_or(0);
        }
    }
    Duration::from_nanos(ns)
}

fn put(dp: &DpUserspace, key: &Flow, mask: &Mask, actions: Vec<Action>) -> Result<()> {
    let actions = actions.into();
    dp.flow_put(&FlowPut { modify: true, create: true, zero_stats: false, key, mask, ufid: None, actions })?;
    Ok(())
}

/// What comes and goes, round `n`.
fn churn(dp: &DpUserspace, n: u32, tracked: &Arc<dyn Netdev>) -> Result<()> {
    // A port, with the flow that leads to it.
    let kind = if n.is_multiple_of(2) { "tap" } else { "null" };
    let spec = PortSpec { name: format!("c{}", n % 7), kind: kind.into(), ..PortSpec::default() };
    let port = dp.port_add(&spec)?;
    for i in 0..32 {
        let mut mask = Mask::default();
        mask.0.in_port = u32::MAX;
        mask.0.nw_src = ib_packet::be::Be32::new(u32::MAX << (i % 25));
        let mut key = Flow { in_port: port.0, ..Flow::zeroed() };
        key.nw_src = ib_packet::be::Be32::new((n << 8 | i) & (u32::MAX << (i % 25)));
        put(dp, &key, &mask, vec![Action::Output(port)])?;
        dp.flow_del(&FlowDel { key: Some(&key), ufid: None })?;
    }
    // Connections of ports never seen before.
    let (from, to) = (n as u16 | 1, (n >> 16) as u16 | 1);
    let mut pool = Pool::new(0);
    tracked.send(
        0,
        &mut (0..8).map(|i| Packet::from_frame(&udp_frame(from.wrapping_add(i * 7), to))).collect(),
        &mut pool,
    );
    dp.run();
    dp.port_del(port)?;
    Ok(())
}

fn soak(seconds: u64, kind: &str) -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    for (a, b) in [("h1", "p1"), ("h2", "p2"), ("h3", "p3")] {
        rtnl.add_veth(a, b)?;
    }
    let host = Registry::new()?;
    let hosts: Vec<Arc<dyn Netdev>> =
        ["h1", "h2", "h3"].iter().map(|n| host.open(n, "system")).collect::<std::result::Result<_, _>>()?;
    let registry = Registry::new()?;
    let config = Config { registry: Arc::clone(&registry), clock: Clock::new(), threads: 1, dummy: false };
    let dp = DpUserspace::new("netdev", "soak", config);
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    for n in 1..=3 {
        let name = format!("p{n}");
        let spec = PortSpec {
            name: name.clone(),
            kind: kind.into(),
            number: Some(OdpPort(n)),
            ..PortSpec::default()
        };
        dp.port_add(&spec)?;
        for dev in [&registry.open(&name, kind)?, &hosts[n as usize - 1]] {
            dev.update_flags(Flags::NONE, Flags::UP)?;
        }
    }
    put(&dp, &Flow { in_port: 1, ..Flow::zeroed() }, &mask, vec![Action::Output(OdpPort(2))])?;
    let ct = CtAction { commit: true, zone: 5, ..CtAction::default() };
    put(&dp, &Flow { in_port: 3, ..Flow::zeroed() }, &mask, vec![Action::Ct(Box::new(ct))])?;
    let mut rxq = hosts[1].rx_queues()?.remove(0);
    let began = Instant::now();
    let prober = {
        let h1 = Arc::clone(&hosts[0]);
        let shared = Arc::clone(dp.shared());
        std::thread::spawn(move || {
            let (mut pool, mut batch) = (Pool::new(64), Vec::new());
            let (mut sent, mut got, mut worst, mut stalls, mut noise) =
                (0u64, 0u64, Duration::ZERO, 0u64, 0u64);
            let mut half = 0;
            let mut shown = began;
            while began.elapsed().as_secs() < seconds {
                let waited = run_delay();
                let at = Instant::now();
                h1.send(0, &mut vec![Packet::from_frame(&udp_frame(1, 2))], &mut pool);
                sent += 1;
                let mut back = false;
                while !back && at.elapsed() < Duration::from_secs(1) {
                    let _ = rxq.recv(&mut pool, &mut batch);
                    for p in batch.drain(..) {
                        back |= p.data().starts_with(&udp_frame(1, 2)[..38]);
                        pool.give(p);
                    }
                    std::thread::yield_now();
                }
                got += u64::from(back);
                let took = at.elapsed();
                let own = took.saturating_sub(run_delay().saturating_sub(waited));
                worst = worst.max(own);
                stalls += u64::from(own > STALL);
                noise += u64::from(took > STALL && own <= STALL);
                if shown.elapsed().as_secs() >= 10 {
                    shown = Instant::now();
                    let rss = rss_kib();
                    if half == 0 && began.elapsed().as_secs() >= seconds / 2 {
                        half = rss;
                    }
                    println!(
                        "{:4} s: {sent} probes, {} missing, slowest {worst:?}, {stalls} over {STALL:?} ({noise} more the machine's), \
                         {} connections, {rss} KiB resident",
                        began.elapsed().as_secs(),
                        sent - got,
                        CtControl::n_conns(&shared.conntrack),
                    );
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            (sent - got, stalls, half)
        })
    };
    let mut rounds = 0u32;
    while began.elapsed().as_secs() < seconds {
        churn(&dp, rounds, &hosts[2])?;
        registry.run();
        rounds += 1;
    }
    let (missing, stalls, half) = prober.join().map_err(|_| "the prober panicked")?;
    let rss = rss_kib();
    println!(
        "{rounds} rounds; {missing} probes missing, {stalls} stalls; {half} KiB in the middle, {rss} KiB now"
    );
    if missing > 0 || stalls > 0 || (half > 0 && rss > half + half / 10) {
        return Err("not steady".into());
    }
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.first().map_or(Ok(600), |s| s.parse())?;
    let kind = args.get(1).map_or("system", String::as_str);
    netns::unshare()?;
    soak(seconds, kind)
}
