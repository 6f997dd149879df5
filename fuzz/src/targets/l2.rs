//! Frames of the protocols that the bridge takes part in.

use ib_base::time::Instant;
use ib_l2::McastSnooping;
use ib_l2::bfd::{self, Bfd};
use ib_l2::cfm::{self, Cfm};
use ib_l2::lldp::{self, Lldp};
use ib_l2::mcast_messages::{igmpv3_records, mld_changes};
use ib_l2::mcast_snooping::Config;
use ib_l2::stp;
use ib_packet::Mac;

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

/// Packets of a peer that looks for us.
pub fn made_bfd() -> Vec<Vec<u8>> {
    let mut peer = Bfd::new("peer", bfd::Config::default(), 1, 0, Instant::ZERO);
    vec![peer.packet(Mac::ZERO, Instant::ZERO)[42..].to_vec()]
}

/// Whatever a peer says, the session goes on, and speaks no more than once a step and final.
pub fn bfd(input: &[u8]) {
    let mut session = Bfd::new("p1", bfd::Config::default(), 2, 0, Instant::ZERO);
    for step in 1..50u64 {
        let now = Instant::from_ms(step * 100);
        session.receive(255, input, now);
        let mut sent = 0;
        while session.should_send(now) {
            session.packet(Mac::ZERO, now);
            sent += 1;
            assert!(sent <= 2);
        }
        session.run(&|| 0, now);
        session.show(now);
    }
}

/// Checks of a standard point and an extended one.
pub fn made_cfm() -> Vec<Vec<u8>> {
    let pairs = |key: &str| (key == "cfm_extended").then_some("true");
    let configs = [cfm::Config::from_pairs(Some(1), |_| None), cfm::Config::from_pairs(Some(2), pairs)];
    let made = configs.into_iter().flatten().map(|config| {
        let mut point = Cfm::new("peer", config, 1, 0, Instant::ZERO);
        point.packet(Mac::ZERO, Instant::ZERO)[14..].to_vec()
    });
    made.collect()
}

/// Whatever others say, a point goes on, and keeps no more of them than it may.
pub fn cfm(input: &[u8]) {
    let Some(config) = cfm::Config::from_pairs(Some(1), |_| None) else { return };
    let mut point = Cfm::new("p1", config, 2, 0, Instant::ZERO);
    for step in 1..20u64 {
        let now = Instant::from_ms(step * 1000);
        point.receive(Mac::ZERO, input, now);
        point.run(&|| 0, now);
        assert!(point.deadline() <= now.plus_ms(3500));
        point.show(now);
    }
}

fn speaker() -> Lldp {
    let mut lldp = Lldp::new("p1", Mac::ZERO, Instant::ZERO);
    lldp.enable(true, Instant::ZERO);
    let system_description = "switch".to_owned();
    lldp.configure(&lldp::Config { system_description, mappings: vec![(7, 8)], ..lldp::Config::default() });
    lldp
}

/// A frame with auto-attach TLVs.
pub fn made_lldp() -> Vec<Vec<u8>> {
    vec![speaker().packet(Mac::ZERO, Instant::ZERO)]
}

/// Whatever a neighbour sends, it can be shown.
pub fn lldp(input: &[u8]) {
    let mut link = speaker();
    link.receive(input);
    let mut out = String::new();
    link.show_status(&mut out);
    link.show_isids(&link.isids(), &mut out);
    link.show_statistics(&mut out);
    assert!(out.contains("  rx cnt: 1\n"));
}
