//! Sends small frames as fast as a port takes them: `source [KIND:]DEV SECONDS [LEN]`.

use std::time::{Duration, Instant};

use ib_netdev::conformance::frame;
use ib_netdev::{Flags, Registry};
use ib_packet::Batch;
use ib_packet::buffer::{BATCH_MAX, Pool};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (kind, name) = args[0].split_once(':').unwrap_or(("system", &args[0]));
    let seconds = Duration::from_secs(args[1].parse()?);
    let len: usize = args.get(2).map_or(Ok(60), |l| l.parse())?;
    let registry = Registry::new()?;
    let dev = registry.open(name, kind)?;
    dev.update_flags(Flags::NONE, Flags::UP)?;
    let template = frame(len);
    let mut pool = Pool::new(2 * BATCH_MAX);
    let mut batch = Batch::with_capacity(BATCH_MAX);
    let (start, mut sent) = (Instant::now(), 0u64);
    while start.elapsed() < seconds {
        for _ in 0..BATCH_MAX {
            let mut p = pool.take();
            p.extend(template.data());
            batch.push(p);
        }
        sent += batch.len() as u64;
        dev.send(0, &mut batch, &mut pool);
    }
    println!(
        "{:.0} kpps offered; {:?}",
        sent as f64 / start.elapsed().as_secs_f64() / 1e3,
        dev.custom_stats()
    );
    Ok(())
}
