//! Tunnels that the switch ends by itself, against the kernel's own devices in another namespace: each kind, over IPv4 and
//! IPv6, pings and a stream with default offloads.

mod support;

use support::{Daemons, Host, NET, need, sh, unique};

/// Kind, options, address of the far end, and how the kernel makes its device (behind `ip link add t0`).
const TUNNELS: [(&str, &str, &str, &str); 6] = [
    (
        "vxlan",
        "key=10",
        "172.31.97.2",
        "type vxlan id 10 remote 172.31.97.1 local 172.31.97.2 dstport 4789 dev eth0",
    ),
    ("geneve", "key=11", "172.31.97.2", "type geneve id 11 remote 172.31.97.1"),
    ("gre", "key=12", "172.31.97.2", "type gretap local 172.31.97.2 remote 172.31.97.1 key 12"),
    ("vxlan", "key=13", "fd97::2", "type vxlan id 13 remote fd97::1 local fd97::2 dstport 4789 dev eth0"),
    ("geneve", "key=14 options:csum=true", "fd97::2", "type geneve id 14 remote fd97::1"),
    ("ip6gre", "key=15", "fd97::2", "type ip6gretap local fd97::2 remote fd97::1 key 15 encaplimit none"),
];

#[test]
fn the_kernels_tunnels_end_here() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let far = Host::new("172.31.97.2/24");
    far.sh("ip addr add fd97::2/64 dev eth0 nodad");
    let physical = unique("itp");
    d.run(&format!("ovs-vsctl add-br {physical} -- set bridge {physical} datapath_type=netdev"));
    d.run(&format!("ovs-vsctl add-port {physical} {}", far.port));
    sh(&format!("ip addr add 172.31.97.1/24 dev {physical}"));
    sh(&format!("ip addr add fd97::1/64 dev {physical} nodad"));
    sh(&format!("ip link set {physical} up"));
    assert!(far.pings("172.31.97.1"), "the underlay");
    let mut tried = 0;
    for (n, (kind, options, remote, device)) in TUNNELS.iter().enumerate() {
        if !far.try_sh(&format!("ip link add t0 {device}")).status.success() {
            println!("{kind} to {remote} skipped: this kernel has no such device");
            continue;
        }
        tried += 1;
        let (br, port) = (unique("itb"), unique("itt"));
        d.run(&format!(
            "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev -- add-port {br} {port} \
             -- set interface {port} type={kind} options:remote_ip={remote} options:{options}"
        ));
        sh(&format!("ip addr add 10.97.{n}.1/24 dev {br}"));
        sh(&format!("ip link set {br} mtu 1400"));
        sh(&format!("ip link set {br} up"));
        far.sh("ip link set t0 mtu 1400");
        far.sh("ip link set t0 up");
        far.sh(&format!("ip addr add 10.97.{n}.2/24 dev t0"));
        assert!(far.pings(&format!("10.97.{n}.1")), "{kind} to {remote}");
        if std::path::Path::new("/usr/bin/iperf3").exists() {
            for direction in ["", "-R"] {
                let _server = far.spawn("iperf3 -s -1");
                std::thread::sleep(std::time::Duration::from_millis(300));
                let out = sh(&format!("iperf3 -c 10.97.{n}.2 -n 2M {direction}"));
                assert!(out.contains("receiver"), "{kind} to {remote} {direction}: {out}");
            }
        }
        let status = d.run(&format!("ovs-vsctl get interface {port} status"));
        assert!(status.contains(&format!("tunnel_egress_iface={physical}")), "{status}");
        d.run(&format!("ovs-vsctl del-br {br}"));
        far.sh("ip link del t0");
    }
    println!("{tried} kinds of tunnels tried");
    let neighbours = d.run("ovs-appctl tnl/neigh/show");
    assert!(tried == 0 || neighbours.contains("172.31.97.2"), "{neighbours}");
}

#[test]
fn who_sends_too_much_into_a_tunnel_is_told() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let far = Host::new("172.31.98.2/24");
    let (physical, br, port) = (unique("itp"), unique("itb"), unique("itt"));
    d.run(&format!("ovs-vsctl add-br {physical} -- set bridge {physical} datapath_type=netdev"));
    d.run(&format!("ovs-vsctl add-port {physical} {}", far.port));
    sh(&format!("ip addr add 172.31.98.1/24 dev {physical}"));
    sh(&format!("ip link set {physical} up"));
    assert!(far.pings("172.31.98.1"), "the underlay");
    let device = "type vxlan id 20 remote 172.31.98.1 local 172.31.98.2 dstport 4789 dev eth0";
    if !far.try_sh(&format!("ip link add t0 {device}")).status.success() {
        println!("skipped: this kernel has no vxlan");
        return;
    }
    d.run(&format!(
        "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev -- add-port {br} {port} \
         -- set interface {port} type=vxlan options:remote_ip=172.31.98.2 options:key=20"
    ));
    // Both ends believe in 1500 bytes, of which the tunnel needs 50.
    sh(&format!("ip addr add 10.98.0.1/24 dev {br}"));
    sh(&format!("ip addr add fd98::1/64 dev {br} nodad"));
    sh(&format!("ip link set {br} mtu 1500"));
    sh(&format!("ip link set {br} up"));
    far.sh("ip link set t0 up");
    far.sh("ip addr add 10.98.0.2/24 dev t0");
    far.sh("ip addr add fd98::2/64 dev t0 nodad");
    assert!(far.pings("10.98.0.1"), "the tunnel");
    for (to, size) in [("10.98.0.2", 1472), ("fd98::2", 1452)] {
        let ping = |size: i32| {
            let out = std::process::Command::new("ping")
                .args(["-M", "do", "-c", "3", "-i", "0.2", "-W", "2", "-s", &size.to_string(), to])
                .output()
                .unwrap();
            (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
        };
        assert!(ping(500).0, "{to}");
        let (arrived, text) = ping(size);
        assert!(!arrived, "{text}");
        let route = sh(&format!("ip route get {to}"));
        assert!(route.contains("mtu 1450"), "{to}: {route}\n{text}");
        assert!(ping(size - 50).0, "{to}: what fits goes through");
    }
    let drops = d.run("ovs-appctl coverage/read-counter datapath_drop_tunnel_too_big");
    assert_ne!(drops.trim(), "0");
    if std::path::Path::new("/usr/bin/iperf3").exists() {
        sh("ip route flush cache");
        let _server = far.spawn("iperf3 -s -1");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let out = sh("iperf3 -c 10.98.0.2 -n 2M");
        assert!(out.contains("receiver"), "{out}");
    }
}

#[test]
fn a_tunnel_that_becomes_like_another_waits_for_it() {
    let d = Daemons::start(&["--enable-dummy"]);
    let two = ["br1", "br2"];
    for (br, key) in two.iter().zip([1, 2]) {
        d.run(&format!(
            "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=dummy -- add-port {br} t{key} \
             -- set interface t{key} type=vxlan options:remote_ip=192.0.2.4 options:key={key}"
        ));
    }
    let tunnels = || {
        let mut shown: Vec<_> = d.run("ovs-appctl ofproto/list-tunnels").lines().map(str::to_owned).collect();
        shown.sort();
        shown.iter().map(|l| l.split_once(", legacy").unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let tunnel = |n: u32, key: u32| format!("port 4789: t{n} (vxlan: ::->192.0.2.4, key={key:#x}");
    assert_eq!(tunnels(), [tunnel(1, 1), tunnel(2, 2)]);
    d.run("ovs-vsctl set interface t2 options:key=1");
    assert_eq!(tunnels(), [tunnel(1, 1)], "the first to ask has it");
    let shown = d.run("ovs-appctl dpif/show");
    assert!(shown.contains("t2 1/4789: (vxlan: key=1, remote_ip=192.0.2.4)"), "{shown}");
    // The one that waits gets it when the other changes, though that is of another bridge; and the other way round.
    d.run("ovs-vsctl set interface t1 options:key=3");
    assert_eq!(tunnels(), [tunnel(1, 3), tunnel(2, 1)]);
    d.run("ovs-vsctl set interface t1 options:key=1");
    assert_eq!(tunnels(), [tunnel(2, 1)]);
    d.run("ovs-vsctl del-br br2");
    assert_eq!(tunnels(), [tunnel(1, 1)]);
    let log = d.log();
    let same = "t2: attempting to add tunnel port with same config as port 't1' (::->192.0.2.4, key=0x1";
    assert!(log.contains(same), "{log}");
    // One that comes like another is refused, with one message a layer.
    d.try_run("ovs-vsctl --no-wait add-port br1 t4 -- set interface t4 type=vxlan options:remote_ip=192.0.2.4 options:key=1");
    support::wait_for("the refusal", 10, || {
        d.run("ovs-vsctl get interface t4 error")
            .contains("could not add network device t4 to ofproto (File exists)")
    });
    assert!(!d.log().contains("failed to add t4 as port"));
}
