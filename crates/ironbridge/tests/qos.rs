//! Shaping and policing of system ports between network namespaces.

mod support;

use support::{Daemons, Host, NET, need, unique};

#[test]
fn queues_are_the_kernels_and_policing_is_ours() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.79.0.1/24"), Host::new("10.79.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    assert!(a.pings("10.79.0.2"));
    d.run(&format!(
        "ovs-vsctl set port {} qos=@n -- --id=@n create qos type=linux-htb other-config:max-rate=80000000 \
         queues:5=@q -- --id=@q create queue other-config:max-rate=40000000",
        b.port
    ));
    if d.log().contains("Failed to install new qdisc") {
        println!("queues skipped: this kernel has no sch_htb");
    } else {
        d.run(&format!("ovs-ofctl add-flow {br} priority=9,icmp,actions=set_queue:5,normal"));
        assert!(a.pings("10.79.0.2"));
        let shown = d.run(&format!("ovs-appctl qos/show {}", b.port));
        assert!(shown.contains("linux-htb\nmax-rate: 80000000\n"), "{shown}");
        let of_queue = shown.split("Queue 5:\n").nth(1).expect("queue 5");
        assert!(
            of_queue.contains("max-rate: 40000000\n") && !of_queue.contains("tx_packets: 0\n"),
            "{shown}"
        );
    }
    d.run(&format!("ovs-vsctl clear port {} qos", b.port));
    assert_eq!(
        d.run(&format!("ovs-appctl qos/show {}", b.port)).trim_end(),
        format!("QoS not configured on {}", b.port)
    );
    d.run(&format!("ovs-vsctl set interface {} ingress_policing_rate=100 ingress_policing_burst=10", a.port));
    // 20 kB at once into a bucket of 1,250 bytes that gains 12,500 a second.
    let out = a.try_sh("ping -q -c 20 -i 0.002 -s 1000 -W 1 10.79.0.2");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let received: u32 = text
        .split(", ")
        .find_map(|part| part.strip_suffix(" received"))
        .and_then(|n| n.parse().ok())
        .unwrap_or(99);
    assert!(received < 15, "{text}");
}
