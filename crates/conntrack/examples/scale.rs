//! How the table does with very many connections: `cargo run --release -p ib-conntrack --example scale [CONNECTIONS]`.
//!
//! Makes that many (2,000,000 unless told otherwise), looks each up again, and lets them expire. Prints resident bytes a
//! connection, operations a second on one thread, and how long the longest sweep took. Packets say that a device has looked at their checksums,
//! so that what is timed is the table.

use std::time::Instant;

use ib_conntrack::Conntrack;
use ib_conntrack::table::DEFAULT_MAX_CONNS;
use ib_dpif::conntrack::CtControl;
use ib_dpif::{CtAction, NatAction, NatRange};
use ib_flow::Metadata;
use ib_packet::{Be128, Packet};

/// 10.x.y.z to 192.0.2.1, TCP with these flags.
fn segment() -> Packet {
    let mut f = vec![0; 12];
    f.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    f.extend([
        10, 0, 0, 0, 192, 0, 2, 1, 0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 2, 4, 0, 0, 0, 0, 0,
    ]);
    let mut p = Packet::from_frame(&f);
    p.offload.csum_valid = true;
    p
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// One packet of each of `n` connections; how many of them begin or have one.
fn pass(table: &Conntrack, n: u32, ct: &CtAction, flags: u8, now_ms: u64) -> usize {
    let mut p = segment();
    p.data_mut()[47] = flags;
    let mut tracked = 0;
    for host in 0..n {
        p.data_mut()[27..30].copy_from_slice(&host.to_be_bytes()[1..]);
        let mut q = p.clone();
        let mut md = Metadata::default();
        table.process(&mut q, &mut md, ct, now_ms, host);
        tracked += usize::from(md.ct_state & ib_flow::key::CtState::INV == 0);
    }
    tracked
}

fn timed(what: &str, n: u32, f: impl FnOnce() -> usize) {
    let start = Instant::now();
    let did = f();
    let per_s = f64::from(n) / start.elapsed().as_secs_f64();
    println!("{what}: {did} in {:.2} s, {:.2} million/s", start.elapsed().as_secs_f64(), per_s / 1e6);
}

fn run(n: u32, ct: &CtAction) {
    let before = resident();
    let table = Conntrack::default();
    timed("begun", n, || pass(&table, n, ct, 2, 1000));
    let made = table.n_conns();
    println!("{made} connections, {} bytes each", (resident() - before) / made.max(1) as usize);
    let look = CtAction { commit: false, nat: None, ..ct.clone() };
    timed("looked up", n, || pass(&table, n, &look, 2, 2000));
    let (mut turns, mut longest, start) = (0, std::time::Duration::ZERO, Instant::now());
    let mut now_ms = 2000;
    while now_ms < 70_000 {
        let turn = Instant::now();
        let swept = table.sweep(now_ms);
        longest = longest.max(turn.elapsed());
        turns += 1;
        now_ms += if swept.more { 0 } else { 100 };
    }
    assert_eq!(table.n_conns(), 0);
    println!("gone by {turns} sweeps in {:.2} s, the longest {longest:?}\n", start.elapsed().as_secs_f64());
}

fn main() {
    let n =
        std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2_000_000u32).min(DEFAULT_MAX_CONNS);
    println!("without translation");
    run(n, &CtAction { commit: true, zone: 1, ..CtAction::default() });
    println!("with source translation");
    let addr = Be128::new(0xc633_6400);
    let range = NatRange { addrs: Some((addr, Be128::new(addr.get() + 255))), ..NatRange::default() };
    run(n, &CtAction { commit: true, zone: 1, nat: Some(NatAction::Src(range)), ..CtAction::default() });
}
