//! Every packet is counted under some flow, also while flows are removed under the packets' feet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use ib_base::time::Clock;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::conformance::udp_frame;
use ib_dpif::{
    Action, Dpif, DpifError, FlowDel, FlowPut, LastStats, PortSpec, Ufid, Upcall, UpcallHandler,
    UpcallVerdict,
};
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::Registry;
use ib_packet::Packet;

const UFID: Ufid = Ufid(7);

fn bed() -> (Arc<DpUserspace>, Arc<MemoryProvider>) {
    let registry = Registry::new().unwrap();
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = Arc::new(DpUserspace::new("dummy", "ovs-dummy", config));
    for n in 1..=2 {
        let spec = PortSpec { name: format!("m{n}"), kind: "memory".into(), ..PortSpec::default() };
        assert_eq!(dp.port_add(&spec), Ok(OdpPort(n)));
    }
    (dp, provider)
}

fn put(dp: &DpUserspace, actions: &[Action]) {
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    let put = FlowPut {
        modify: false,
        create: true,
        zero_stats: false,
        key: &Flow { in_port: 1, ..Flow::zeroed() },
        mask: &mask,
        ufid: Some(UFID),
        actions: actions.into(),
    };
    dp.flow_put(&put).unwrap();
}

fn retire(dp: &DpUserspace) -> Result<LastStats, DpifError> {
    dp.flow_retire(&FlowDel { ufid: Some(UFID), key: None })
}

/// Removes the flow out of one of its own packets.
#[derive(Default)]
struct Saws {
    dp: OnceLock<Arc<DpUserspace>>,
    last: Mutex<Option<LastStats>>,
}

impl UpcallHandler for Saws {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        if let Ok(last) = retire(self.dp.get().unwrap()) {
            assert!(last.1.as_ref().unwrap().settled().is_none(), "the batch is under way");
            *self.last.lock().unwrap() = Some(last);
        }
        UpcallVerdict { actions: Arc::new([]), install: None, ufid: upcall.ufid }
    }
    fn installed(&self, _: Ufid, _: Result<(), DpifError>) {}
}

#[test]
fn a_batch_counts_under_the_flow_that_goes_meanwhile() {
    let (dp, provider) = bed();
    let saws = Arc::new(Saws::default());
    saws.dp.set(Arc::clone(&dp)).ok().unwrap();
    dp.set_upcall_handler(Some(Arc::clone(&saws) as _));
    // Packets of one key are one run, from the second on out of the exact-match cache.
    for (n, expected) in [(1, 1), (20, 20)] {
        put(&dp, &[Action::Output(OdpPort(2))]);
        provider.port("m1").unwrap().push(Packet::from_frame(&udp_frame(1, 2)));
        dp.run();
        let modify = FlowPut {
            modify: true,
            create: false,
            zero_stats: true,
            key: &Flow::zeroed(),
            mask: &Mask::default(),
            ufid: Some(UFID),
            actions: Arc::new([Action::Userspace(Default::default()), Action::Output(OdpPort(2))]),
        };
        dp.flow_put(&modify).unwrap();
        (0..n).for_each(|_| provider.port("m1").unwrap().push(Packet::from_frame(&udp_frame(1, 2))));
        dp.run();
        let (stats, departed) = saws.last.lock().unwrap().take().unwrap();
        assert_eq!(stats.packets, 0, "what was lost");
        assert_eq!(departed.unwrap().settled().unwrap().packets, expected);
    }
    put(&dp, &[]);
    assert!(retire(&dp).unwrap().1.is_none(), "nothing is under way");
    dp.set_upcall_handler(None);
    saws.last.lock().unwrap().take();
}

/// Flows go while another thread forwards: their counts and the misses add up to the packets.
#[test]
fn counts_add_up_while_flows_come_and_go() {
    const ROUNDS: usize = 3_000;
    const BATCH: usize = 32;
    let (dp, provider) = bed();
    let stop = AtomicBool::new(false);
    let (mut counted, mut late) = (0, 0);
    std::thread::scope(|s| {
        s.spawn(|| {
            let port = provider.port("m1").unwrap();
            for _ in 0..ROUNDS {
                (0..BATCH).for_each(|_| port.push(Packet::from_frame(&udp_frame(1, 2))));
                dp.run();
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            put(&dp, &[Action::Output(OdpPort(2))]);
            std::thread::yield_now();
            let (stats, departed) = retire(&dp).unwrap();
            let all = departed.map(|d| {
                std::iter::repeat_with(|| (std::thread::yield_now(), d.settled()).1)
                    .find_map(|settled| settled)
                    .unwrap()
            });
            late += all.map_or(0, |a| a.packets - stats.packets);
            counted += all.unwrap_or(stats).packets;
        }
    });
    let missed = dp.stats().lost;
    assert_eq!(counted + missed, (ROUNDS * BATCH) as u64, "of these {late} late, {missed} missed");
}
