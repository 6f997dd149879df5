//! Cross-connects two ports, whatever is received on one is sent on the other: the floor under the datapath's cost.
//!
//! `fwd [KIND:]DEV [KIND:]DEV`, e.g. `fwd va tap:t0`. One thread sleeps in epoll; each second with traffic it
//! prints packets and batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ib_netdev::{Flags, Netdev, Registry, RxQueue};
use ib_packet::Batch;
use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_sys::eventfd::Epoll;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [a, b] = &args[..] else { return Err("usage: fwd [KIND:]DEV [KIND:]DEV".into()) };
    let registry = Registry::new()?;
    let open = |arg: &String| -> ib_netdev::error::Result<Arc<dyn Netdev>> {
        let (kind, name) = arg.split_once(':').unwrap_or(("system", arg));
        let dev = registry.open(name, kind)?;
        dev.update_flags(Flags::NONE, Flags::UP)?;
        Ok(dev)
    };
    let ports = [open(a)?, open(b)?];
    let epoll = Epoll::new()?;
    epoll.add(registry.fd(), 2)?;
    let mut rxqs: Vec<Box<dyn RxQueue>> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let rxq = port.rx_queues()?.remove(0);
        if let Some(fd) = rxq.fd() {
            epoll.add(fd, i as u64)?;
        }
        rxqs.push(rxq);
    }
    let mut pool = Pool::new(4 * BATCH_MAX);
    let mut batch = Batch::with_capacity(BATCH_MAX);
    let mut ready = Vec::new();
    let (mut packets, mut bytes, mut batches, mut wakes) = (0usize, 0usize, 0usize, 0usize);
    let mut since = Instant::now();
    loop {
        ready.clear();
        epoll.wait(&mut ready, -1)?;
        wakes += 1;
        for &port in &ready {
            if port == 2 {
                registry.run();
                continue;
            }
            let from = usize::from(port == 1);
            // A few batches a turn, so that neither side starves the other.
            for _ in 0..4 {
                let n = rxqs[from].recv(&mut pool, &mut batch)?;
                bytes += batch.iter().map(|p| p.len()).sum::<usize>();
                ports[1 - from].send(0, &mut batch, &mut pool);
                packets += n;
                batches += usize::from(n != 0);
                if n < BATCH_MAX {
                    break;
                }
            }
        }
        if packets != 0 && since.elapsed() > Duration::from_secs(1) {
            let s = since.elapsed().as_secs_f64();
            println!(
                "{:.0} kpps, {:.2} Gb/s, {:.1} packets a batch, {wakes} wakes, drops {:?} {:?}",
                packets as f64 / s / 1e3,
                bytes as f64 * 8.0 / s / 1e9,
                packets as f64 / batches as f64,
                ports[0].custom_stats(),
                ports[1].custom_stats(),
            );
            (packets, bytes, batches, wakes) = (0, 0, 0, 0);
            since = Instant::now();
        }
    }
}
