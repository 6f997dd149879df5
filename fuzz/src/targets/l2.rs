//! Frames of the protocols that the bridge takes part in.

use ib_base::time::Instant;
use ib_l2::McastSnooping;
use ib_l2::mcast_messages::{igmpv3_records, mld_changes};
use ib_l2::mcast_snooping::Config;
use ib_l2::stp;

/// An IGMPv3 report with a join and a leave, an MLDv1 report, an MLDv2 report.
pub const MULTICAST_SEEDS: &[&[u8]] = &[
    &[0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 1, 1, 3, 1, 0, 0, 239, 1, 1, 2, 0, 0, 0, 0],
    &[131, 0, 0, 0, 0, 0, 0, 0, 0xff, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    &[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0xff, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];

/// Whatever a host asks for, the table stays within its limit.
pub fn multicast_messages(input: &[u8]) {
    let mut table = McastSnooping::new(Config { max_groups: 10, ..Config::default() });
    for change in igmpv3_records(input).chain(mld_changes(input)) {
        table.apply(change, 0, 1u32, Instant::ZERO);
        assert!(table.len() <= 10);
    }
}

/// A configuration message of a better root, a topology change.
pub const BPDU_SEEDS: &[&[u8]] = &[
    &[
        0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16, 0x80, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 1, 0x80,
        1, 1, 0, 20, 0, 2, 0, 15, 0,
    ],
    &[0, 0, 0, 0x80],
];

/// Whatever a neighbour says, the machine goes on, and speaks no more than its hold timers let it.
pub fn bpdu(input: &[u8]) {
    let config = stp::Config {
        bridge_id: 0x8000_0000_0000_0002,
        hello_ms: 2000,
        max_age_ms: 20_000,
        forward_delay_ms: 15_000,
    };
    let mut tree = stp::Stp::new(config, Instant::ZERO);
    for n in 0..2 {
        tree.enable(n, stp::DEFAULT_PORT_PRIORITY, 4, Instant::ZERO);
    }
    tree.receive(0, input, Instant::ZERO);
    for step in 1..100u64 {
        let now = Instant::from_ms(step * 500);
        tree.run(now);
        assert!(tree.take_frames().len() <= 4);
        assert!(tree.deadline().is_some());
    }
}
