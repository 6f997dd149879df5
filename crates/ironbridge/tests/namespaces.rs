//! Tenants in network namespaces talk through bridges: veth ends as ports, VLANs, patch ports, a veth pair between
//! bridges, an internal port with the host's stack behind it. Host offloads stay at their defaults.

mod support;

use support::{Daemons, Host, NET, need, sh, try_sh, unique};

/// A bridge on the user-space datapath.
fn add_bridge(d: &Daemons) -> String {
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    br
}

/// Bytes a second of a bulk TCP stream from `a` to `b`, or `None` without iperf3.
fn tcp_bits_per_second(a: &Host, b: &Host, address: &str) -> Option<f64> {
    if !std::path::Path::new("/usr/bin/iperf3").exists() {
        println!("bulk TCP skipped: needs iperf3 (apt-get install iperf3)");
        return None;
    }
    let _server = b.spawn("iperf3 -s -1");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let out = a.sh(&format!("iperf3 -c {address} -C cubic -t 2 -J"));
    let at = out.find("\"sum_received\"")?;
    let rest = &out[at..];
    let number = rest.split("\"bits_per_second\":").nth(1)?.trim_start();
    number.split([',', '}', '\n']).next()?.trim().parse().ok()
}

#[test]
fn two_tenants_ping_and_stream_with_default_offloads() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = add_bridge(&d);
    let (a, b) = (Host::new("10.71.0.1/24"), Host::new("10.71.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    assert!(a.pings("10.71.0.2"));
    let fdb = d.run(&format!("ovs-appctl fdb/show {br}"));
    assert!(fdb.lines().count() >= 3, "both addresses are learned:\n{fdb}");
    // Super-frames with partial checksums must arrive whole and right: a stream that stalls gives next to nothing.
    if let Some(rate) = tcp_bits_per_second(&a, &b, "10.71.0.2") {
        assert!(rate > 100e6, "bulk TCP at {rate} bit/s");
    }
    let row = d.run(&format!("ovs-vsctl get interface {} link_state admin_state ofport error", a.port));
    assert_eq!(row.lines().collect::<Vec<_>>(), ["up", "up", "1", "[]"]);
}

#[test]
fn vlans_keep_tenants_apart_and_trunks_carry_tags() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = add_bridge(&d);
    let hosts: Vec<Host> = (1..=3).map(|n| Host::new(&format!("10.72.0.{n}/24"))).collect();
    for (h, tag) in hosts.iter().zip([10, 10, 20]) {
        d.run(&format!("ovs-vsctl add-port {br} {} tag={tag}", h.port));
    }
    assert!(hosts[0].pings("10.72.0.2"));
    assert!(!hosts[0].pings("10.72.0.3"));
    // A trunk sees the tag.
    let trunk = Host::new("10.99.0.1/24");
    d.run(&format!("ovs-vsctl add-port {br} {} trunks=10,20", trunk.port));
    if try_sh(&format!("ip netns exec {} ip link add link eth0 name v20 type vlan id 20", trunk.ns))
        .status
        .success()
    {
        trunk.sh("ip addr add 10.72.0.9/24 dev v20");
        trunk.sh("ip link set v20 up");
        assert!(trunk.pings("10.72.0.3"));
        assert!(!trunk.pings("10.72.0.1"));
    } else {
        println!("trunk with a VLAN device skipped: this kernel has no 8021q");
    }
}

#[test]
fn two_bridges_join_by_patch_ports_and_by_a_veth_pair() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let (br1, br2) = (add_bridge(&d), add_bridge(&d));
    let (a, b) = (Host::new("10.73.0.1/24"), Host::new("10.73.0.2/24"));
    d.run(&format!("ovs-vsctl add-port {br1} {}", a.port));
    d.run(&format!("ovs-vsctl add-port {br2} {}", b.port));
    assert!(!a.pings("10.73.0.2"));
    d.run(&format!(
        "ovs-vsctl add-port {br1} pa -- set interface pa type=patch options:peer=pb \
         -- add-port {br2} pb -- set interface pb type=patch options:peer=pa"
    ));
    assert!(a.pings("10.73.0.2"));
    d.run("ovs-vsctl del-port pa -- del-port pb");
    assert!(!a.pings("10.73.0.2"));
    let (x, y) = (unique("ibx"), unique("iby"));
    sh(&format!("ip link add {x} type veth peer name {y}"));
    sh(&format!("ip link set {x} up"));
    sh(&format!("ip link set {y} up"));
    d.run(&format!("ovs-vsctl add-port {br1} {x} -- add-port {br2} {y}"));
    let reached = a.pings("10.73.0.2");
    let _ = try_sh(&format!("ip link del {x}"));
    assert!(reached);
}

#[test]
fn the_internal_port_is_the_hosts() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = add_bridge(&d);
    let a = Host::new("10.74.0.1/24");
    d.run(&format!("ovs-vsctl add-port {br} {}", a.port));
    sh(&format!("ip addr add 10.74.0.254/24 dev {br}"));
    sh(&format!("ip link set {br} up"));
    assert!(a.pings("10.74.0.254"));
    d.run(&format!("ovs-vsctl del-br {br}"));
    assert!(!try_sh(&format!("ip link show {br}")).status.success(), "the device goes with its bridge");
}

#[test]
fn a_vanished_device_harms_nobody_and_comes_back() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = add_bridge(&d);
    let (a, b) = (Host::new("10.75.0.1/24"), Host::new("10.75.0.2/24"));
    let gone = Host::new("10.75.0.3/24");
    for h in [&a, &b, &gone] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    assert!(a.pings("10.75.0.3"));
    let name = gone.port.clone();
    drop(gone);
    assert!(a.pings("10.75.0.2"));
    let again = Host::new("10.75.0.3/24");
    sh(&format!("ip link set {} down", again.port));
    sh(&format!("ip link set {} name {name}", again.port));
    let again = Host { ns: again.ns.clone(), port: name.clone() };
    sh(&format!("ip link set {name} up"));
    // The new device has an address of its own, which the neighbour would notice by itself only after a while.
    a.sh("ip neigh flush all");
    support::wait_for("the port to work again", 10, || a.pings("10.75.0.3"));
    drop(again);
}

#[test]
fn a_port_without_device_is_reported_where_scripts_look() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = add_bridge(&d);
    let name = unique("ibn");
    let out = d.try_run(&format!("ovs-vsctl add-port {br} {name}"));
    let stderr = String::from_utf8_lossy(&out.stderr);
    let text = format!("could not open network device {name} (No such device)");
    assert!(stderr.contains(&text), "{stderr}");
    let row = d.run(&format!("ovs-vsctl get interface {name} ofport error"));
    assert_eq!(row, format!("-1\n\"{text}\"\n"));
    // A device that no datapath takes.
    let stderr = String::from_utf8(d.try_run(&format!("ovs-vsctl add-port {br} lo")).stderr).unwrap();
    assert!(stderr.contains("could not add network device lo to ofproto (Invalid argument)"), "{stderr}");
    let log = d.log();
    assert!(log.contains("|dpif_netdev|ERR|lo: cannot add a loopback device\n"), "{log}");
    assert!(
        log.contains("|dpif|WARN|netdev@ovs-netdev: failed to add lo as port: Invalid argument\n"),
        "{log}"
    );
}

#[test]
fn what_a_row_asks_for_in_vain_is_logged_as_by_the_original() {
    let d = Daemons::start(&["--enable-dummy=override"]);
    for line in [
        "ovs-vsctl add-br br0 -- set bridge br0 datapath_type=dummy",
        "ovs-vsctl add-port br0 i1 -- set interface i1 type=internal mac=\"01:00:00:00:00:01\"",
        "ovs-vsctl set interface br0 mac=\"00:00:00:00:00:02\"",
        "ovs-vsctl set bridge br0 other_config:hwaddr=01:00:00:00:00:00",
        "ovs-vsctl set interface i1 mtu_request=70000",
    ] {
        d.run(line);
    }
    let about = d.run("ovs-ofctl dump-desc br0");
    assert!(about.contains("Serial Num: None\nDP Description: None\n"), "{about}");
    d.try_run("ovs-vsctl add-port br0 odd -- set interface odd type=odd");
    d.try_run("ovs-vsctl add-br br1 -- set bridge br1 datapath_type=odd");
    let log = d.log();
    for line in [
        "|bridge|INFO|ovs-vswitchd (Open vSwitch) 3.7.1\n",
        "|bridge|ERR|interface i1: cannot set MAC to multicast address\n",
        "|bridge|ERR|interface br0: ignoring mac in Interface record (use Bridge record to set local port's mac)\n",
        "|bridge|ERR|bridge br0: cannot set MAC address to multicast address 01:00:00:00:00:00\n",
        "|netdev|WARN|failed to set MTU for network device i1: Invalid argument\n",
        "|netdev|WARN|could not create netdev odd of unknown type odd\n",
        "|bridge|WARN|could not open network device odd (Address family not supported by protocol)\n",
        "|ofproto|WARN|unknown datapath type odd\n",
        "|ofproto|WARN|could not create datapath br1 of unknown type odd\n",
        "|bridge|ERR|failed to create bridge br1: Address family not supported by protocol\n",
    ] {
        assert!(log.contains(line), "{line}{log}");
    }
}

#[test]
fn internal_ports_follow_the_smallest_mtu() {
    let d = Daemons::start(&["--enable-dummy=override"]);
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath_type=dummy");
    d.run("ovs-vsctl add-port br0 i1 -- set interface i1 type=internal");
    for port in ["p1", "p2"] {
        d.run(&format!("ovs-vsctl add-port br0 {port} -- set interface {port} type=dummy"));
    }
    let mtus = |names: &str| d.run(&format!("ovs-vsctl get interface {names}")).replace('\n', " ");
    // Lines and answers of the original: what is done, then the MTUs of br0, i1, p1 and p2.
    for (line, expect) in [
        ("set interface p1 mtu_request=1400", "1400 1400 1400 1500 "),
        ("set interface p2 mtu_request=1300", "1300 1300 1400 1300 "),
        ("clear interface p2 mtu_request -- set interface p2 mtu_request=1600", "1400 1400 1400 1600 "),
        ("set interface br0 mtu_request=1200", "1200 1200 1400 1600 "),
        ("remove interface br0 mtu_request 1200", "1400 1400 1400 1600 "),
        ("set interface p1 mtu_request=2000", "1600 1600 2000 1600 "),
        ("set interface i1 mtu_request=1000", "1000 1000 2000 1600 "),
    ] {
        d.run(&format!("ovs-vsctl {line}"));
        support::wait_for(line, 10, || {
            ["br0", "i1", "p1", "p2"].map(|i| mtus(&format!("{i} mtu"))).concat() == expect
        });
    }
    // One that is larger than the others is made smaller.
    d.run("ovs-vsctl add-port br0 i2 -- set interface i2 type=internal");
    support::wait_for("i2", 10, || mtus("i2 mtu") == "1000 ");
}

#[test]
fn a_port_whose_row_asks_for_what_cannot_be_goes() {
    let d = Daemons::start(&["--enable-dummy=override"]);
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath_type=dummy");
    d.run("ovs-vsctl add-port br0 x1 -- set interface x1 type=patch options:peer=y1 ofport_request=4");
    assert!(d.run("ovs-appctl dpif/show").contains("x1 4/none"));
    d.run("ovs-vsctl set interface x1 options:peer=x1");
    let row = d.run("ovs-vsctl get interface x1 ofport error");
    assert_eq!(row, "-1\n\"x1: patch peer must not be self\"\n");
    assert!(!d.run("ovs-appctl dpif/show").contains("x1"));
    assert!(d.log().contains("|bridge|INFO|bridge br0: deleted interface x1 on port 4\n"), "{}", d.log());
    d.run("ovs-vsctl set interface x1 options:peer=y1");
    assert!(d.run("ovs-appctl dpif/show").contains("x1 4/none"), "{}", d.log());
}
