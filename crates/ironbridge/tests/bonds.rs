//! Bonds over dummies: who carries traffic, and what the commands and the database say of it.

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
        "bond\ttype\trecircID\tmembers\nbond0\tbalance-slb\t0\tp1, p2\n"
    );
    assert_eq!(d.run("ovs-appctl bond/hash 00:00:00:00:00:01 5 7"), "87\n");
}
