//! Two real virtual machines on TAPs of the bridge: Debian's QEMU without hardware acceleration, Debian's cloud kernel,
//! and an initial file system of busybox and the drivers, made here. The guests are driven over their serial consoles.

mod support;

use support::guest::{Guest, PROGRAMS, initrd, kernel, tcp_works};
use support::{Daemons, Dir, need, sh, try_sh, unique};

struct Tap(String);

impl Tap {
    fn new() -> Tap {
        let name = unique("ibv");
        sh(&format!("ip tuntap add dev {name} mode tap vnet_hdr"));
        sh(&format!("ip link set {name} up"));
        Tap(name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip link del {}", self.0));
    }
}

#[test]
fn machines_talk_through_the_bridge_vlans_and_two_bridges() {
    if !need(PROGRAMS) {
        return;
    }
    let Some((kernel, modules)) = kernel() else {
        println!("skipped: needs a cloud kernel (apt-get install linux-image-cloud-amd64)");
        return;
    };
    let dir = Dir::new("vm");
    let image = initrd(dir.path(), &modules);
    let d = Daemons::start(&[]);
    let (br1, br2) = (unique("ibr"), unique("ibr"));
    for br in [&br1, &br2] {
        d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    }
    let (tap_a, tap_b) = (Tap::new(), Tap::new());
    // One port before its machine starts, one after.
    d.run(&format!("ovs-vsctl add-port {br1} {}", tap_a.0));
    let mut a = Guest::boot(&kernel, &image, &tap_a.0, "52:54:00:00:00:0a");
    let mut b = Guest::boot(&kernel, &image, &tap_b.0, "52:54:00:00:00:0b");
    a.ready();
    b.ready();
    d.run(&format!("ovs-vsctl add-port {br1} {}", tap_b.0));
    assert!(a.run("ip addr add 10.81.0.1/24 dev eth0").1);
    assert!(b.run("ip addr add 10.81.0.2/24 dev eth0").1);
    assert!(a.pings("10.81.0.2"), "one bridge");
    tcp_works(&mut a, &mut b, "10.81.0.2");

    // Access VLANs keep apart; tagged by the guest itself on a trunk they meet again.
    d.run(&format!("ovs-vsctl set port {} tag=10 -- set port {} tag=20", tap_a.0, tap_b.0));
    assert!(!a.pings("10.81.0.2"), "different VLANs");
    d.run(&format!("ovs-vsctl clear port {} tag", tap_b.0));
    assert!(b.run("ip link add link eth0 name v10 type vlan id 10 && ip link set v10 up").1);
    assert!(b.run("ip addr flush dev eth0 && ip addr add 10.81.0.2/24 dev v10").1);
    assert!(a.pings("10.81.0.2"), "access port to trunk");
    tcp_works(&mut a, &mut b, "10.81.0.2");
    d.run(&format!("ovs-vsctl clear port {} tag", tap_a.0));
    assert!(b.run("ip link del v10 && ip addr add 10.81.0.2/24 dev eth0").1);

    // Two bridges joined by patch ports.
    d.run(&format!("ovs-vsctl del-port {} -- add-port {br2} {}", tap_b.0, tap_b.0));
    assert!(!a.pings("10.81.0.2"), "bridges that are not joined");
    d.run(&format!(
        "ovs-vsctl add-port {br1} pa -- set interface pa type=patch options:peer=pb \
         -- add-port {br2} pb -- set interface pb type=patch options:peer=pa"
    ));
    assert!(a.pings("10.81.0.2"), "patch ports");
    tcp_works(&mut a, &mut b, "10.81.0.2");

    // The same by a veth pair.
    d.run("ovs-vsctl del-port pa -- del-port pb");
    let (x, y) = (unique("ibx"), unique("iby"));
    sh(&format!("ip link add {x} type veth peer name {y}"));
    sh(&format!("ip link set {x} up"));
    sh(&format!("ip link set {y} up"));
    d.run(&format!("ovs-vsctl add-port {br1} {x} -- add-port {br2} {y}"));
    let reached = a.pings("10.81.0.2");
    if reached {
        tcp_works(&mut a, &mut b, "10.81.0.2");
    }
    let _ = try_sh(&format!("ip link del {x}"));
    assert!(reached, "veth pair");
}
