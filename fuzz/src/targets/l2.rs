//! Frames of the protocols that the bridge takes part in.

use ib_base::time::Instant;
use ib_l2::McastSnooping;
use ib_l2::mcast_messages::{igmpv3_records, mld_changes};
use ib_l2::mcast_snooping::Config;

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
