//! Hot flows in the kernel (`other_config:accelerate`): nobody may notice but for speed. Numbered packets between tenants must arrive once, be
//! counted exactly, and obey changes at once, whoever forwards them.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Daemons, Host, NET, need, sh, try_sh, unique, wait_for};

const SEQUENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sequence.py");
/// Bytes of a numbered packet as a frame.
const FRAME: u64 = 100 + 42;

struct Bed {
    d: Daemons,
    br: String,
    a: Host,
    b: Host,
}

impl Bed {
    /// Two tenants on ports 1 and 2 of a bridge; `None` where there are no such tests, or no BPF.
    fn new(net: u32) -> Option<Bed> {
        if !need(NET) || !need(&[("/usr/bin/python3", "python3")]) {
            return None;
        }
        let d = Daemons::start(&[]);
        let br = unique("ibr");
        d.run("ovs-vsctl set open_vswitch . other_config:accelerate=true");
        d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
        let (a, b) = (Host::new(&format!("10.{net}.0.1/24")), Host::new(&format!("10.{net}.0.2/24")));
        for (n, h) in [&a, &b].iter().enumerate() {
            let port = &h.port;
            d.run(&format!(
                "ovs-vsctl add-port {br} {port} -- set interface {port} ofport_request={}",
                n + 1
            ));
        }
        if d.run("ovs-appctl accel/show").contains("accelerator: none") {
            println!("skipped: {}", d.run("ovs-appctl accel/show"));
            return None;
        }
        assert!(a.pings(&format!("10.{net}.0.2")));
        Some(Bed { d, br, a, b })
    }

    fn flows(&self, flows: &[&str]) {
        for flow in flows {
            let out =
                self.d.command("ovs-ofctl add-flow").arg(&self.br).arg(flow).output().expect("ovs-ofctl");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    /// Packets that the kernel has forwarded.
    fn forwarded(&self) -> u64 {
        let text = self.d.run("ovs-appctl accel/show");
        let line =
            text.lines().find_map(|l| l.trim().strip_prefix("forwarded: ")).expect("a line of packets");
        line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Counters of the rule with this cookie.
    fn counted(&self, cookie: u32) -> (u64, u64) {
        let text = self.d.run(&format!("ovs-ofctl dump-flows {} cookie={cookie}/-1", self.br));
        let field = |name: &str| -> u64 {
            let rest = text.split(name).nth(1).unwrap_or("0");
            rest.split([',', ' ']).next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        (field("n_packets="), field("n_bytes="))
    }
}

fn python(host: &Host, words: &str) -> Child {
    Command::new("ip")
        .args(["netns", "exec", &host.ns, "/usr/bin/python3", SEQUENCE])
        .args(words.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3")
}

/// What a receiver says in the end: different packets, packets that came again, TTLs.
fn result(receiver: Child) -> (u64, u64, String) {
    let out = receiver.wait_with_output().expect("the receiver's words");
    let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let mut words = text.split(' ');
    let mut number = || words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    (number(), number(), words.next().unwrap_or_default().to_owned())
}

/// Sends numbered packets and waits for the end.
fn stream(bed: &Bed, from: &Host, to: &Host, words: &str) -> (u64, u64, String) {
    let port = words.split(' ').nth(1).expect("a port");
    let receiver = python(to, &format!("recv {port}"));
    std::thread::sleep(Duration::from_millis(400));
    let mut sender = python(from, &format!("send {words}"));
    assert!(sender.wait().expect("the sender").success(), "{}", bed.d.log());
    result(receiver)
}

fn rx_packets(host: &Host) -> u64 {
    host.sh("cat /sys/class/net/eth0/statistics/rx_packets").trim().parse().expect("a number")
}

#[test]
fn the_kernel_forwards_hot_flows_and_all_counters_are_right() {
    let Some(bed) = Bed::new(81) else { return };
    bed.flows(&[
        "cookie=7,priority=10,udp,tp_dst=4000,in_port=1,actions=output:2",
        "cookie=8,priority=10,udp,tp_dst=4001,in_port=1,actions=drop",
    ]);
    let before = bed.forwarded();
    assert_eq!(stream(&bed, &bed.a, &bed.b, "10.81.0.2 4000 3000 6000"), (3000, 0, "64".into()));
    assert!(bed.forwarded() - before > 2000, "{}", bed.d.run("ovs-appctl accel/show -m"));
    wait_for("the rule's counters", 5, || bed.counted(7) == (3000, 3000 * FRAME));
    let offloaded = bed.d.run("ovs-appctl dpctl/dump-flows -m type=offloaded");
    assert!(offloaded.contains("offloaded:yes, dp:tcx"), "{offloaded}");
    let port = &bed.b.port;
    let tx: u64 = bed
        .d
        .run(&format!("ovs-ofctl dump-ports {} {port}", bed.br))
        .split("tx pkts=")
        .nth(1)
        .and_then(|t| t.split(',').next()?.trim().parse().ok())
        .expect("a counter");
    assert!(tx >= 3000, "{tx}");
    // What is dropped is dropped there, too, and counted.
    let mut sender = python(&bed.a, "send 10.81.0.2 4001 1000 4000");
    assert!(sender.wait().expect("the sender").success());
    wait_for("the dropping rule's counters", 5, || bed.counted(8) == (1000, 1000 * FRAME));
    let drops = bed.d.run("ovs-appctl coverage/read-counter drop_action_of_pipeline");
    assert!(drops.trim().parse::<u64>().is_ok_and(|n| n >= 1000), "{drops}");
    // Nobody who did not ask for it is told.
    bed.d.run("ovs-vsctl remove open_vswitch . other_config accelerate");
    let silent = bed.d.run("ovs-appctl dpctl/dump-flows -m");
    assert!(!silent.contains("offloaded") && !silent.contains("tcx"), "{silent}");
    // Reasons for the rest.
    let show = bed.d.run("ovs-appctl accel/show -m");
    assert!(show.contains("accelerated\n"), "{show}");
}

#[test]
fn changes_under_traffic_lose_nothing_and_hold_at_once() {
    let Some(bed) = Bed::new(82) else { return };
    bed.flows(&["cookie=9,priority=10,udp,in_port=1,actions=output:2"]);
    let receiver = python(&bed.b, "recv 4000");
    std::thread::sleep(Duration::from_millis(400));
    let mut sender = python(&bed.a, "send 10.82.0.2 4000 12000 5000");
    let change = |line: &str| bed.d.run(&line.replace("BR", &bed.br));
    for _ in 0..4 {
        change("ovs-ofctl mod-flows BR cookie=9,udp,in_port=1,actions=load:1->NXM_NX_REG0[],output:2");
        change("ovs-vsctl set open_vswitch . other_config:accelerate=false");
        change("ovs-ofctl mod-flows BR cookie=9,udp,in_port=1,actions=output:2");
        change("ovs-vsctl set open_vswitch . other_config:accelerate=true");
        std::thread::sleep(Duration::from_millis(100));
        change("ovs-appctl revalidator/purge");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(sender.wait().expect("the sender").success());
    assert_eq!(result(receiver), (12000, 0, "64".into()));
    // The accelerator's counts are exact. User space may not count the batch under way when its flow is deleted.
    let close = |n: u64| (11_500..=12_000).contains(&n);
    wait_for("the counters", 5, || {
        let (packets, bytes) = bed.counted(9);
        close(packets) && bytes == packets * FRAME
    });

    let mut sender = python(&bed.a, "send 10.82.0.2 4000 8000 4000");
    let before = bed.forwarded();
    wait_for("a hot flow", 5, || bed.forwarded() > before + 200);
    bed.flows(&["priority=20,udp,in_port=1,actions=drop"]);
    bed.d.run("ovs-appctl revalidator/wait");
    let then = rx_packets(&bed.b);
    std::thread::sleep(Duration::from_millis(300));
    // A neighbour solicitation or so may come.
    assert!(rx_packets(&bed.b) - then < 20, "packets pass a rule that drops them");
    assert!(sender.wait().expect("the sender").success());
}

#[test]
fn tags_addresses_and_copies() {
    let Some(bed) = Bed::new(83) else { return };
    let c = Host::new("10.83.0.3/24");
    let (x, y) = (unique("ibx"), unique("iby"));
    sh(&format!("ip link add {x} type veth peer name {y}"));
    sh(&format!("ip link set {x} up"));
    sh(&format!("ip link set {y} up"));
    for (port, n) in [(&c.port, 3), (&x, 4), (&y, 5)] {
        let br = &bed.br;
        bed.d.run(&format!("ovs-vsctl add-port {br} {port} -- set interface {port} ofport_request={n}"));
    }
    let mac = |h: &Host| h.sh("cat /sys/class/net/eth0/address").trim().to_owned();
    let to_b = mac(&bed.b);
    bed.d.run(&format!("ovs-ofctl del-flows {}", bed.br));
    bed.flows(&[
        "priority=1,arp,in_port=1,actions=output:2,output:3",
        "priority=1,arp,in_port=2,actions=output:1",
        "priority=1,ip,in_port=2,actions=output:1",
        // Out by one end of a wire with a tag and in by the other one; then the tag goes, and a router's work is done.
        "priority=10,udp,in_port=1,tp_dst=4000,actions=mod_vlan_vid:10,output:4",
        &format!(
            "priority=10,udp,in_port=5,dl_vlan=10,actions=strip_vlan,mod_dl_dst:{to_b},dec_ttl,output:2"
        ),
        "priority=10,udp,in_port=1,tp_dst=4001,actions=output:3,output:2",
        "priority=10,tcp,in_port=1,actions=mod_vlan_vid:10,output:4",
        "priority=10,tcp,in_port=5,dl_vlan=10,actions=strip_vlan,output:2",
    ]);
    let before = bed.forwarded();
    assert_eq!(stream(&bed, &bed.a, &bed.b, "10.83.0.2 4000 3000 5000"), (3000, 0, "63".into()));
    assert!(bed.forwarded() - before > 4000, "{}", bed.d.run("ovs-appctl accel/show -m"));
    let (c_before, before) = (rx_packets(&c), bed.forwarded());
    assert_eq!(stream(&bed, &bed.a, &bed.b, "10.83.0.2 4001 3000 5000"), (3000, 0, "64".into()));
    assert!(bed.forwarded() - before > 2000, "{}", bed.d.run("ovs-appctl accel/show -m"));
    let copies = rx_packets(&c) - c_before;
    assert!((3000..3050).contains(&copies), "{copies} copies");
    if std::path::Path::new("/usr/bin/iperf3").exists() {
        let _server = bed.b.spawn("iperf3 -s -1");
        std::thread::sleep(Duration::from_millis(300));
        let before = bed.forwarded();
        bed.a.sh("iperf3 -c 10.83.0.2 -C cubic -n 200M");
        assert!(bed.forwarded() > before + 100);
    }
    let _ = try_sh(&format!("ip link del {x}"));
}

#[test]
fn ports_and_processes_may_vanish_under_traffic() {
    let Some(bed) = Bed::new(84) else { return };
    let c = Host::new("10.84.0.3/24");
    bed.d.run(&format!("ovs-vsctl add-port {} {}", bed.br, c.port));
    let before = bed.forwarded();
    let mut sender = python(&bed.a, "send 10.84.0.2 4000 20000 4000");
    wait_for("a hot flow", 5, || bed.forwarded() > before + 200);
    bed.d.run(&format!("ovs-vsctl del-port {}", bed.b.port));
    let then = rx_packets(&bed.b);
    std::thread::sleep(Duration::from_millis(200));
    assert!(rx_packets(&bed.b) - then < 20, "packets leave by a port that is gone");
    bed.d.run(&format!("ovs-vsctl add-port {} {}", bed.br, bed.b.port));
    let before = bed.forwarded();
    wait_for("the flow to be hot again", 8, || bed.forwarded() > before + 200);
    // Nothing of a killed switch stays in the kernel, and the next one begins anew.
    bed.d.kill("ovs-vswitchd", "-9");
    let then = rx_packets(&bed.b);
    std::thread::sleep(Duration::from_millis(200));
    assert!(rx_packets(&bed.b) - then < 20, "a killed switch forwards packets");
    bed.d.start_switch(&[]);
    wait_for("the new switch to take the flow", 8, || bed.forwarded() > 200);
    let _ = sender.kill();
    let _ = sender.wait();
}
