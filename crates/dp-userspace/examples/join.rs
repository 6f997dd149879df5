//! Joins two devices: what enters by one leaves by the other. For measuring ports without a control plane.
//!
//! `join DEV1 DEV2 [KIND [THREADS]]`; KIND is `system` by default. Prints rates each second that has traffic; ends when standard input does.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ib_base::time::Clock;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::{Action, Dpif, FlowPut, PortSpec};
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::Registry;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [a, b, rest @ ..] = &args[..] else { return Err("usage: join DEV1 DEV2 [KIND [THREADS]]".into()) };
    let kind = rest.first().map_or("system", String::as_str);
    let threads = rest.get(1).map_or(Ok(1), |t| t.parse())?;
    let config = Config { registry: Registry::new()?, clock: Clock::new(), threads, dummy: false };
    let dp = Arc::new(DpUserspace::new("netdev", "join", config));
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    for (name, number) in [(a, 1), (b, 2)] {
        let spec = PortSpec {
            name: name.clone(),
            kind: kind.into(),
            number: Some(OdpPort(number)),
            ..PortSpec::default()
        };
        dp.port_add(&spec)?;
        let key = Flow { in_port: number, ..Flow::zeroed() };
        let actions = Arc::new([Action::Output(OdpPort(3 - number))]);
        let put = FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key: &key,
            mask: &mask,
            ufid: None,
            actions,
        };
        dp.flow_put(&put)?;
    }
    println!("ready");
    let shown = Arc::clone(&dp);
    std::thread::spawn(move || {
        let mut before = Vec::new();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = shown.worker_totals().1;
            for (i, t) in now.iter().enumerate() {
                let d = t.since(before.get(i).unwrap_or(&Default::default()));
                if d.received > 0 {
                    println!(
                        "thread {i}: {} packets in {} busy turns, {} sleeps, {} ms busy, {} ms idle, {} ms asleep",
                        d.received,
                        d.busy_iterations,
                        d.sleeps,
                        d.busy_ns / 1_000_000,
                        d.idle_ns / 1_000_000,
                        d.sleep_ns / 1_000_000
                    );
                }
            }
            before = now;
        }
    });
    // The end of standard input is the sign to leave.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for (name, n) in dp.drops().entries().filter(|(_, n)| *n != 0) {
        println!("{name}: {n}");
    }
    Ok(())
}
