//! Connections of real stacks through `ct()`: translation of both ends and both families, fragments, and FTP, whose data
//! connections are let in as related ones only.

mod support;

use support::{Daemons, Host, NET, need, unique, wait_for};

const PYTHON: &[(&str, &str)] = &[("/usr/bin/python3", "python3")];

/// Two hosts on a bridge: the client's flows go out as `.100`, and what it sends to `.200` goes to the server.
struct Net {
    d: Daemons,
    br: String,
    client: Host,
    server: Host,
}

fn mac(h: &Host) -> String {
    h.sh("cat /sys/class/net/eth0/address").trim().to_owned()
}

fn net() -> Net {
    let d = Daemons::start(&[]);
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure"));
    let (client, server) = (Host::new("10.81.0.1/24"), Host::new("10.81.0.2/24"));
    for (h, n) in [(&client, 1), (&server, 2)] {
        h.sh(&format!("ip addr add fd81::{n}/64 dev eth0 nodad"));
        d.run(&format!("ovs-vsctl add-port {br} {} -- set interface {} ofport_request={n}", h.port, h.port));
    }
    // Translated addresses are nobody's: neighbours are told.
    let (c, s) = (mac(&client), mac(&server));
    for prefix in ["10.81.0.", "fd81::"] {
        client.sh(&format!("ip neigh replace {prefix}200 lladdr {s} dev eth0"));
        client.sh(&format!("ip neigh replace {prefix}2 lladdr {s} dev eth0"));
        server.sh(&format!("ip neigh replace {prefix}100 lladdr {c} dev eth0"));
    }
    let mut flows: Vec<String> = vec!["priority=0,actions=drop".into(), "arp,actions=NORMAL".into()];
    flows.extend([135, 136].map(|kind| format!("priority=50000,icmp6,icmp_type={kind},actions=NORMAL")));
    for (family, prefix) in [("ip", "10.81.0."), ("ipv6", "fd81::")] {
        let dst = if family == "ip" { "nw_dst" } else { "ipv6_dst" };
        let new = format!("table=1,{family},ct_state=+trk+new");
        flows.extend([
            format!("table=0,{family},actions=ct(zone=1,nat,table=1)"),
            format!("table=1,{family},in_port=1,ct_state=+trk+est,actions=2"),
            format!("table=1,{family},in_port=2,ct_state=+trk+est,actions=1"),
            format!("{new}+rel,in_port=1,actions=ct(commit,zone=1,nat),2"),
            format!("{new}+rel,in_port=2,actions=ct(commit,zone=1,nat),1"),
        ]);
        let tcp = if family == "ip" { "tcp" } else { "tcp6" };
        // A later fragment of IPv6 does not say what it is of: what is not TCP is not asked about.
        for (protocol, helper, priority) in [(tcp, "alg=ftp,", 9), (family, "", 7)] {
            let new = format!("table=1,{protocol},ct_state=+trk+new-rel,in_port=1");
            flows.extend([
                format!("{new},priority={},{dst}={prefix}200,actions=ct(commit,zone=1,{helper}nat(dst={prefix}2)),2", priority + 1),
                format!("{new},priority={priority},actions=ct(commit,zone=1,{helper}nat(src={prefix}100)),2"),
            ]);
        }
    }
    for flow in flows {
        d.run(&format!("ovs-ofctl add-flow {br} {flow}"));
    }
    Net { d, br, client, server }
}

#[test]
fn real_stacks_behind_translation() {
    if !need(NET) || !need(PYTHON) {
        return;
    }
    let n = net();
    // Pings, whole and in fragments of both families.
    for to in ["10.81.0.2", "10.81.0.200", "fd81::2", "fd81::200"] {
        assert!(n.client.pings(to), "{to}: {}", n.d.run("ovs-appctl dpctl/dump-conntrack"));
        let big = n.client.try_sh(&format!("ping -c 2 -i 0.2 -W 1 -s 4000 {to}"));
        assert!(big.status.success(), "fragments to {to}: {}", n.d.run("ovs-appctl dpctl/ipf-get-status"));
    }
    let dump = n.d.run("ovs-appctl dpctl/dump-conntrack zone=1");
    assert!(dump.contains("reply=(src=10.81.0.2,dst=10.81.0.100,"), "{dump}");
    assert!(dump.contains("reply=(src=fd81::2,dst=fd81::1"), "{dump}");
    // Nobody but a related connection gets in.
    assert!(!n.server.try_sh("ping -c 1 -W 1 10.81.0.1").status.success());

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ftp.py");
    let v4 = n.server.spawn(&format!("python3 {script} serve 10.81.0.2"));
    let v6 = n.server.spawn(&format!("python3 {script} serve fd81::2"));
    wait_for("the FTP servers", 10, || {
        n.server.sh("ss -ltn").lines().filter(|l| l.contains(":21 ")).count() == 2
    });
    for to in ["10.81.0.2", "10.81.0.200", "fd81::2", "fd81::200"] {
        let out = n.client.try_sh(&format!("timeout 20 python3 {script} fetch {to}"));
        assert!(
            out.status.success(),
            "FTP with {to}: {}\n{}\n{}",
            String::from_utf8_lossy(&out.stderr),
            n.d.run("ovs-appctl dpctl/dump-conntrack"),
            n.d.run(&format!("ovs-ofctl dump-flows {}", n.br))
        );
    }
    let dump = n.d.run("ovs-appctl dpctl/dump-conntrack -m zone=1");
    assert_eq!(dump.matches("helper=ftp").count(), 8, "{dump}");
    assert_eq!(dump.matches("parent=(").count(), 8, "{dump}");
    drop((v4, v6));
    n.d.run("ovs-appctl dpctl/flush-conntrack zone=1");
    assert_eq!(n.d.run("ovs-appctl dpctl/ct-get-nconns").trim(), "0");
}
