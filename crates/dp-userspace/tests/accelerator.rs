//! A switch chip beside the datapath, and one without beside it: the same flows, the same packets, the same result at every moment.
//!
//! The chip ([`ib_accel::model`]) has a small table, few fields, writes late, fails, drops entries, forgets all of them and goes. A packet goes
//! through the chip first, as on a port of one; what it leaves goes to the datapath.

use std::sync::Arc;

use ib_accel::model::Chip;
use ib_base::rng::Rng;
use ib_base::time::Clock;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::action::EthAddrs;
use ib_dpif::{Action, Dpif, FlowDel, FlowPut, PortSpec, SetField, Ufid};
use ib_flow::{Flow, Mask, Metadata, OdpPort, extract};
use ib_netdev::Registry;
use ib_packet::{Be16, Be32, Mac, Packet};

const PORTS: u32 = 4;
const STATIONS: u64 = 3;

struct Bed {
    dp: DpUserspace,
    provider: Arc<MemoryProvider>,
    chip: Option<Chip>,
    /// What the chip sent.
    sent: Vec<(u32, Vec<u8>)>,
    taken: u64,
}

fn bed(chip: Option<Chip>) -> Bed {
    let registry = Registry::new().unwrap();
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "ovs-dummy", config);
    for n in 1..=PORTS {
        let spec = PortSpec { name: format!("m{n}"), kind: "memory".into(), ..PortSpec::default() };
        assert_eq!(dp.port_add(&spec), Ok(OdpPort(n)));
        provider.port(&format!("m{n}")).unwrap().set_bypass(n as i32);
    }
    let bed = Bed { dp, provider, chip, sent: Vec::new(), taken: 0 };
    bed.start();
    bed
}

impl Bed {
    fn start(&self) {
        if let Some(chip) = self.chip.clone() {
            self.dp.set_accelerator(Box::new(move || Ok(Box::new(chip.driver()))));
        }
    }
    /// So many of the same come in, and then the datapath has its turn.
    fn send(&mut self, port: u32, frame: &[u8], n: u32) {
        let dev = self.provider.port(&format!("m{port}")).unwrap();
        for _ in 0..n {
            match self.chip.as_ref().and_then(|chip| chip.forward(OdpPort(port), frame)) {
                Some(left) => {
                    self.taken += 1;
                    self.sent.extend(left.into_iter().map(|(port, f)| (port.0, f)));
                }
                None => dev.push(Packet::from_frame(frame)),
            }
        }
        self.dp.run();
    }
    /// What left since the last time, in an order of its own.
    fn left(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut all = std::mem::take(&mut self.sent);
        for n in 1..=PORTS {
            let sent = self.provider.port(&format!("m{n}")).unwrap().take_sent();
            all.extend(sent.iter().map(|p| (n, p.data().to_vec())));
        }
        all.sort();
        all
    }
    fn put(&self, ufid: Ufid, key: &Flow, mask: &Mask, actions: &[Action]) {
        let ufid = Some(ufid);
        let actions = actions.into();
        let put = FlowPut { modify: true, create: true, zero_stats: false, key, mask, ufid, actions };
        self.dp.flow_put(&put).unwrap();
    }
    /// Packets and bytes that it had, if it was there.
    fn del(&self, ufid: Ufid) -> Option<(u64, u64)> {
        self.dp.flow_del(&FlowDel { ufid: Some(ufid), key: None }).ok().map(|s| (s.packets, s.bytes))
    }
    /// What flows counted: identifier, packets, bytes.
    fn counted(&self) -> Vec<(String, u64, u64)> {
        let mut all = Vec::new();
        self.dp.flow_dump(&mut |f| all.push((f.ufid.to_string(), f.stats.packets, f.stats.bytes)));
        all.sort();
        all
    }
}

fn ufid(port: u32, n: u8, tagged: bool, deep: bool) -> Ufid {
    Ufid(u128::from(port) << 32 | u128::from(n) << 8 | u128::from(tagged) << 1 | u128::from(deep))
}

fn frame(n: u8, tagged: bool) -> Vec<u8> {
    let mut f = ib_accel::conformance::frame(n);
    if tagged {
        f.splice(12..12, [0x81, 0, 0x20, 5]);
    }
    f
}

fn key(port: u32, frame: &[u8]) -> Flow {
    let mut key = Flow::zeroed();
    let md = Metadata { in_port: OdpPort(port), ..Metadata::default() };
    extract(&Packet::from_frame(frame), &md, &mut key);
    key
}

/// Of a flow; `deep` ones look at what the chip does not know.
fn mask(deep: bool) -> Mask {
    let mut mask = Mask::default();
    let m = &mut mask.0;
    (m.in_port, m.dl_type, m.nw_frag) = (u32::MAX, Be16::MAX, 0xff);
    (m.dl_dst, m.dl_src) = (Mac([0xff; 6]), Mac([0xff; 6]));
    (m.vlans[0].tpid, m.vlans[0].tci) = (Be16::MAX, Be16::MAX);
    m.nw_src = Be32::MAX;
    if deep {
        m.tp_dst = Be16::MAX;
    }
    mask
}

fn actions(rng: &mut Rng, tagged: bool) -> Vec<Action> {
    let mut all = Vec::new();
    if rng.below(8) == 0 {
        return all;
    }
    if tagged && rng.below(2) == 0 {
        all.push(Action::PopVlan);
    } else if !tagged && rng.below(3) == 0 {
        let tci = Be16::new(0x1000 | rng.below(4000) as u16);
        all.push(Action::PushVlan { tpid: Be16::new(0x8100), tci });
    }
    if rng.below(3) == 0 {
        let mac = |last| Mac([2, 0, 0, 0, 9, last]);
        let ethernet = |src, dst| EthAddrs { src, dst };
        let value = ethernet(mac(1), mac(rng.below(9) as u8));
        all.push(Action::Set(SetField::Ethernet(value, ethernet(Mac([0xff; 6]), Mac([0xff; 6])))));
    }
    let first = 1 + rng.below(u64::from(PORTS)) as u32;
    all.push(Action::Output(OdpPort(first)));
    if rng.below(3) == 0 {
        all.push(Action::Output(OdpPort(1 + first % PORTS)));
    }
    all
}

/// One run; how many packets the chip took.
fn run(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let chip = Chip::new(4);
    let (mut with, mut without) = (bed(Some(chip.clone())), bed(None));
    for step in 0..300 {
        let port = 1 + rng.below(2) as u32;
        let (n, tagged) = (rng.below(STATIONS) as u8, rng.below(4) == 0);
        let f = frame(n, tagged);
        match rng.below(24) {
            0..=3 => {
                let deep = rng.below(6) == 0;
                // A flow keeps its mask for as long as it lives.
                let (id, other) = (ufid(port, n, tagged, deep), ufid(port, n, tagged, !deep));
                let todo = actions(&mut rng, tagged);
                for bed in [&with, &without] {
                    let _ = bed.del(other);
                    bed.put(id, &mask(deep).apply(&key(port, &f)), &mask(deep), &todo);
                }
            }
            4 => {
                let gone = [&with, &without].map(|b| b.del(ufid(port, n, tagged, false)));
                assert_eq!(gone[0], gone[1], "seed {seed} step {step}: what a deleted flow counted");
            }
            5 if rng.below(8) == 0 => [&with, &without].iter().for_each(|b| b.dp.flow_flush()),
            6 if rng.below(2) == 0 => chip.evict(rng.below(4) as usize),
            7 if rng.below(3) == 0 => {
                chip.reset();
                if rng.below(2) == 0 {
                    assert_eq!(with.counted(), without.counted(), "seed {seed} step {step}: at the reset");
                    assert_eq!(chip.entries(), 0, "seed {seed} step {step}: entries that the chip forgot");
                }
            }
            8 if rng.below(8) == 0 => {
                chip.lose();
                if rng.below(2) == 0 {
                    assert_eq!(with.counted(), without.counted(), "seed {seed} step {step}: at the loss");
                    assert_eq!(chip.entries(), 0, "seed {seed} step {step}: entries of a lost chip");
                }
            }
            17 if rng.below(3) == 0 => with.start(),
            9 => chip.set_failing(rng.below(3) == 0, rng.below(3) == 0),
            10 => {
                // The port changes under its entries.
                with.provider.port(&format!("m{port}")).unwrap().set_bypass(100 + step);
                with.dp.run();
            }
            11 => chip.pass(4_000_000_000),
            12 => assert_eq!(with.counted(), without.counted(), "seed {seed} step {step}"),
            13..=15 => chip.step(rng.below(3) as usize),
            _ => {
                for _ in 0..12 {
                    with.send(port, &f, 20);
                    without.send(port, &f, 20);
                    chip.step(rng.below(2) as usize);
                }
            }
        }
        assert_eq!(with.left(), without.left(), "seed {seed} step {step}: what left");
        assert!(chip.live() <= 4);
    }
    assert_eq!(with.counted(), without.counted(), "seed {seed}: at the end");
    for bed in [&with, &without] {
        bed.dp.flow_flush();
    }
    assert_eq!(chip.entries(), 0, "seed {seed}: entries without flow");
    with.taken
}

#[test]
fn packets_fare_as_without_a_chip_whatever_happens_to_it() {
    let taken: Vec<u64> = (1..=16).map(run).collect();
    let all: u64 = taken.iter().sum();
    println!("the chip took {taken:?}");
    assert!(all > 10_000, "the chip did nothing: {taken:?}");
}
