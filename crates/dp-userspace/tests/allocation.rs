//! Packets of known flows are forwarded without a single allocation.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_base::time::Clock;
use ib_dp_userspace::memory::MemoryProvider;
use ib_dp_userspace::{Config, DpUserspace};
use ib_dpif::action::L4Ports;
use ib_dpif::conformance::udp_frame;
use ib_dpif::{Action, Dpif, FlowPut, PortSpec, SetField};
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::Registry;
use ib_packet::Be16;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands everything to the system's allocator, as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the ones that `System` wants.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the ones that `System` wants.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn steady_state_does_not_allocate() {
    let registry = Registry::new().unwrap();
    let provider = Arc::new(MemoryProvider::default());
    registry.register(Arc::clone(&provider) as _);
    let config = Config { registry, clock: Clock::simulated(), threads: 1, dummy: true };
    let dp = DpUserspace::new("dummy", "d", config);
    for name in ["m1", "m2", "m3"] {
        dp.port_add(&PortSpec { name: name.into(), kind: "memory".into(), ..PortSpec::default() }).unwrap();
    }
    let mut mask = Mask::default();
    mask.0.in_port = u32::MAX;
    mask.0.recirc_id = u32::MAX;
    let ports = L4Ports { src: Be16::new(5), dst: Be16::new(6) };
    let all = L4Ports { src: Be16::MAX, dst: Be16::MAX };
    // A change, a copy, a recirculation: everything that could be tempted to allocate.
    let first = vec![
        Action::Set(SetField::Udp(ports, all)),
        Action::Output(OdpPort(3)),
        Action::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1001) },
        Action::Recirc(1),
    ];
    for (recirc_id, actions) in [(0, first), (1, vec![Action::PopVlan, Action::Output(OdpPort(2))])] {
        let key = Flow { in_port: 1, recirc_id, ..Flow::zeroed() };
        let actions = actions.into();
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
    for name in ["m2", "m3"] {
        provider.port(name).unwrap().discard_sent();
    }
    // More flows than the caches hold, so that the long way is in it, too.
    provider.port("m1").unwrap().replay((0..20_000).map(|i| udp_frame(i, i / 7)).collect());
    dp.run();
    let (before, sent) = (ALLOCATIONS.load(Ordering::Relaxed), provider.port("m2").unwrap().tx_packets());
    dp.run();
    let sent = provider.port("m2").unwrap().tx_packets() - sent;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(sent >= 100_000, "{sent}");
    // `run` itself makes its batch; the registry lookup of this test a string or two.
    assert!(allocations < 10, "{allocations} allocations for {sent} packets");
}
