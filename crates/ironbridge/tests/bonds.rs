//! Bonds over dummies: who carries traffic, what LACP makes of them, and what the commands and the database say of it.

mod support;

use std::time::{Duration, Instant};

use support::Daemons;

/// The datapath's actions, sorted, for a packet from `source` to everybody that comes in by `port`.
fn actions(d: &Daemons, port: u16, source: u8) -> String {
    let flow =
        format!("in_port={port},dl_src=50:54:00:00:00:{source:02x},dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x800");
    let trace = d.run(&format!("ovs-appctl ofproto/trace br0 {flow}"));
    let line = trace.lines().find(|l| l.starts_with("Datapath actions: "));
    let actions = &line.unwrap_or_else(|| panic!("{trace}"))["Datapath actions: ".len()..];
    let mut ports: Vec<&str> = actions.split(',').collect();
    ports.sort_unstable();
    ports.join(",")
}

/// Waits until a command's output holds a text.
fn wait_for(d: &Daemons, command: &str, text: &str) {
    let start = Instant::now();
    loop {
        let shown = d.run(command);
        if shown.contains(text) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{command}: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn members_take_over_and_share() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    d.run(
        "ovs-vsctl add-br br0 -- add-port br0 p9 -- add-bond br0 bond0 p1 p2 -- set Interface p1 ofport_request=1 \
         -- set Interface p2 ofport_request=2 -- set Interface p9 ofport_request=9",
    );
    let shown = d.run("ovs-appctl bond/show bond0");
    assert!(shown.starts_with("---- bond0 ----\nbond_mode: active-backup\n"), "{shown}");
    assert!(shown.ends_with("member p1: enabled\n  active member\n  may_enable: true\n\nmember p2: enabled\n  may_enable: true\n\n"), "{shown}");
    assert_eq!((actions(&d, 9, 1), actions(&d, 2, 1)), ("1,100".into(), "drop".into()));
    // What a member refuses, it refuses whatever an ARP packet says.
    let arp = "in_port=2,dl_src=50:54:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x806";
    let refused = d.run(&format!("ovs-appctl ofproto/trace br0 {arp}"));
    assert!(refused.contains("bonding refused admissibility") && refused.contains("Megaflow: "), "{refused}");
    let looked_at = refused.lines().find(|l| l.starts_with("Megaflow: ")).unwrap_or_default();
    assert!(!looked_at.contains("arp_op"), "{looked_at}");

    d.run("ovs-appctl netdev-dummy/set-admin-state p1 down");
    wait_for(&d, "ovs-appctl bond/show bond0", "member p1: disabled\n  may_enable: false");
    assert_eq!((actions(&d, 9, 1), actions(&d, 1, 1)), ("100,2".into(), "drop".into()));
    let mac = d.run("ovs-vsctl get Interface p2 mac_in_use");
    wait_for(&d, "ovs-vsctl get Port bond0 bond_active_slave", mac.trim());

    d.run("ovs-appctl netdev-dummy/set-admin-state p1 up");
    wait_for(&d, "ovs-appctl bond/show bond0", "member p1: enabled");
    d.run("ovs-vsctl set Port bond0 bond_mode=balance-slb");
    let used: std::collections::BTreeSet<String> = (1..5).map(|source| actions(&d, 9, source)).collect();
    assert_eq!(used.len(), 2, "{used:?}");
    assert_eq!(
        d.run("ovs-appctl bond/list"),
        "bond\ttype\trecircID\tmembers\nbond0\tbalance-slb\t1\tp1, p2\n"
    );
    assert_eq!(d.run("ovs-appctl bond/hash 00:00:00:00:00:01 5 7"), "87\n");
}

/// Lines of a command's output that hold one of the words, trimmed.
fn lines(d: &Daemons, command: &str, words: &[&str]) -> Vec<String> {
    let out = d.run(command);
    out.lines().filter(|l| words.iter().any(|w| l.contains(w))).map(|l| l.trim().to_owned()).collect()
}

#[test]
fn two_bonds_agree_by_lacp_and_share_traffic() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let mut command = String::from("ovs-vsctl add-br br0 -- add-br br1");
    for (br, bond, members, end) in
        [("br0", "bond0", "p1 p2", "pstream=punix"), ("br1", "bond1", "p3 p4", "stream=unix")]
    {
        command += &format!(
            " -- add-bond {br} {bond} {members} bond_mode=balance-tcp lacp=active other_config:lacp-time=fast \
             other_config:bond-rebalance-interval=0"
        );
        for (i, p) in members.split(' ').enumerate() {
            let socket = d.dir.file(&format!("wire{i}"));
            let number = &p[1..];
            command +=
                &format!(" -- set Interface {p} type=dummy options:{end}:{socket} ofport_request={number}");
        }
    }
    command += " -- add-port br0 p5 -- set Interface p5 ofport_request=5 -- add-port br1 p6 -- set Interface p6 ofport_request=6";
    d.run(&command);
    d.run("ovs-appctl time/stop");
    d.run("ovs-appctl time/warp 3100 100");
    assert_eq!(
        lines(&d, "ovs-appctl lacp/show bond0", &["member:", "status:", "may_enable"]),
        [
            "status: active negotiated",
            "member: p1: current attached",
            "may_enable: true",
            "member: p2: current attached",
            "may_enable: true"
        ]
    );
    assert_eq!(
        lines(&d, "ovs-appctl bond/show bond1", &["recirculation", "lacp_status", "member p"]),
        [
            "bond may use recirculation: yes, Recirc-ID : 2",
            "lacp_status: negotiated",
            "member p3: enabled",
            "member p4: enabled"
        ]
    );
    assert_eq!(d.run("ovs-vsctl get Interface p1 lacp_current"), "true\n");
    assert_eq!(lines(&d, "ovs-appctl bridge/dump-flows br0", &["dp_hash="]).len(), 256);

    // What many flows carry arrives, by both members.
    for port in 0..16 {
        let ip =
            format!("ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src={port},dst=7)");
        let packet =
            format!("in_port(5),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:06),eth_type(0x0800),{ip}");
        d.run(&format!("ovs-appctl netdev-dummy/receive p5 {packet}"));
    }
    wait_for(&d, "ovs-ofctl dump-ports br1 p6", "tx pkts=16,");
    let by = |port: &str| {
        lines(&d, "ovs-appctl dpctl/dump-flows", &["recirc_id(0x1)"]).iter().any(|l| l.ends_with(port))
    };
    assert!(by("actions:1") && by("actions:2"));

    // One link down: the other carries everything, and the agreement stays.
    d.run("ovs-appctl netdev-dummy/set-admin-state p1 down");
    d.run("ovs-appctl time/warp 1000 100");
    assert_eq!(
        lines(&d, "ovs-appctl bond/show bond0", &["member p"]),
        ["member p1: disabled", "member p2: enabled"]
    );
    let rules = lines(&d, "ovs-appctl bridge/dump-flows br0", &["dp_hash="]);
    assert!(rules.iter().all(|l| l.ends_with("actions=output:2")), "{}", rules[0]);

    // The datapath can choose by itself.
    d.run("ovs-vsctl set Port bond0 other_config:lb-output-action=true");
    let trace = d.run("ovs-appctl ofproto/trace br0 in_port=5,dl_dst=50:54:00:00:00:66");
    assert!(trace.contains("lb_output(1)"), "{trace}");
    d.run("ovs-appctl netdev-dummy/receive p5 in_port(5),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:66),eth_type(0x1234)");
    // One more went before: what told of the new active member.
    wait_for(&d, "ovs-ofctl dump-ports br1 p6", "tx pkts=18,");

    // Nobody answers any more: without fallback the port is dead, with it one member works on.
    d.run("ovs-vsctl set Port bond1 lacp=off -- set Port bond0 other_config:lacp-fallback-ab=true");
    d.run("ovs-appctl time/warp 8000 200");
    assert_eq!(
        lines(&d, "ovs-appctl bond/show bond0", &["recirculation", "lacp_status"]),
        ["bond may use recirculation: no, Recirc-ID : -1", "lacp_status: configured"]
    );
    let trace = d.run("ovs-appctl ofproto/trace br0 in_port=5,dl_dst=50:54:00:00:00:66");
    assert!(trace.lines().any(|l| l.starts_with("Datapath actions: ") && l.contains('2')), "{trace}");
}
