//! Ports that move between two switches: a TCP stream through a stateful default-deny ACL with translation goes on in the second
//! one, which has never seen it begin.

mod support;

use support::{Daemons, Dir, Host, NET, need, unique, wait_for};

const PYTHON: &[(&str, &str)] = &[("/usr/bin/python3", "python3")];
const IRONBRIDGE: &str = env!("CARGO_BIN_EXE_ironbridge");

/// Sends numbers and writes the last one that came back to a file.
const CLIENT: &str = "
import socket, sys, time
s = socket.create_connection(('10.82.0.2', 5000), 10)
s.settimeout(30)
f = s.makefile('rw')
n = 0
while True:
    n += 1
    f.write('%d\\n' % n); f.flush()
    assert f.readline() == '%d\\n' % n
    open(sys.argv[1], 'w').write(str(n))
    time.sleep(0.02)
";
const SERVER: &str = "
import socket
s = socket.create_server(('10.82.0.2', 5000))
while True:
    c, _ = s.accept()
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(d)
";

fn mac(h: &Host) -> String {
    h.sh("cat /sys/class/net/eth0/address").trim().to_owned()
}

#[test]
fn a_stream_goes_on_in_another_switch() {
    if !need(NET) || !need(PYTHON) {
        return;
    }
    let dir = Dir::new("migration");
    let (vm, peer, far) = (Host::new("10.82.0.1/24"), Host::new("10.82.0.2/24"), Host::new("10.82.9.1/24"));
    let (a, b) = (Daemons::start(&[]), Daemons::start_in(&far.ns));
    let (br, other) = (unique("ibr"), unique("ibr"));
    for (d, br) in [(&a, &br), (&b, &other)] {
        d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure"));
    }
    // The second one numbers its ports in another way.
    b.run(&format!("ovs-vsctl add-port {other} first -- set interface first type=internal"));
    a.run(&format!("ovs-vsctl add-port {br} {} tag=0 -- set port {} external_ids:vm=7", vm.port, vm.port));
    a.run(&format!("ovs-vsctl add-port {br} {}", peer.port));
    vm.sh(&format!("ip neigh replace 10.82.0.2 lladdr {} dev eth0", mac(&peer)));
    peer.sh(&format!("ip neigh replace 10.82.0.100 lladdr {} dev eth0", mac(&vm)));
    let (v, p) = (&vm.port, &peer.port);
    for flow in [
        "priority=0,actions=drop".to_owned(),
        format!("ip,in_port={v},actions=ct(zone=9,nat,table=1)"),
        format!("ip,in_port={p},actions=ct(zone=9,nat,table=1)"),
        format!("table=1,ip,in_port={v},ct_state=+trk+est,actions={p}"),
        format!("table=1,ip,in_port={p},ct_state=+trk+est,actions={v}"),
        format!(
            "table=1,tcp,in_port={v},ct_state=+trk+new,actions=ct(commit,zone=9,nat(src=10.82.0.100)),{p}"
        ),
    ] {
        a.run(&format!("ovs-ofctl add-flow {br} {flow}"));
    }
    let (server, client, count) = (dir.file("server.py"), dir.file("client.py"), dir.file("count"));
    std::fs::write(&server, SERVER).unwrap();
    std::fs::write(&client, CLIENT).unwrap();
    let _server = peer.spawn(&format!("python3 {server}"));
    wait_for("the server", 10, || peer.sh("ss -Htln").contains(":5000"));
    let _client = vm.spawn(&format!("python3 {client} {count}"));
    let echoed = || std::fs::read_to_string(&count).ok().and_then(|t| t.parse().ok()).unwrap_or(0u32);
    wait_for("the stream", 20, || echoed() > 10);

    let file = dir.file("ports.json");
    a.run(&format!("{IRONBRIDGE} port export --output={file} {v} {p}"));
    let check = b.run(&format!("{IRONBRIDGE} port import --check --bridge={other} {file}"));
    assert!(check.contains(&format!("port {v} would be added to {other}")), "{check}");
    let damaged = dir.file("damaged.json");
    std::fs::write(&damaged, std::fs::read_to_string(&file).unwrap().replace("10.82.0.100", "10.82.0.101"))
        .unwrap();
    let refused = b.try_run(&format!("{IRONBRIDGE} port import --bridge={other} {damaged}"));
    assert_eq!(refused.status.code(), Some(1));
    // A file whose devices are not here: refused, and nothing stays of it.
    let refused = b.try_run(&format!("{IRONBRIDGE} port import --bridge={other} {file}"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(b.run(&format!("ovs-vsctl list-ports {other}")), "first\n");

    for port in [v, p] {
        a.run(&format!("ovs-vsctl del-port {port}"));
        support::sh(&format!("ip link set {port} netns {}", far.ns));
        far.sh(&format!("ip link set {port} up"));
    }
    let summary = b.run(&format!("{IRONBRIDGE} port import --bridge={other} {file}"));
    assert!(
        summary.starts_with("5 flows, 0 groups, 0 meters,") && summary.ends_with(" 1 connections\n"),
        "{summary}"
    );
    let moved = echoed();
    wait_for("the stream to go on", 20, || echoed() > moved + 20);
    let conns = b.run("ovs-appctl dpctl/dump-conntrack zone=9");
    assert!(conns.contains("dst=10.82.0.100,") && conns.contains("protoinfo=(state=ESTABLISHED)"), "{conns}");
    let flows = b.run(&format!("ovs-ofctl dump-flows {other} table=1"));
    assert!(flows.contains("n_packets=1, "), "the SYN was counted in the first switch: {flows}");
    assert_eq!(b.run(&format!("ovs-vsctl get port {v} external_ids:vm")), "\"7\"\n");
    // The ACL denies what it denied.
    let back = peer.try_sh("python3 -c \"import socket;socket.create_connection(('10.82.0.1',22),1)\"");
    assert!(!back.status.success());
    // Once more is no harm.
    b.run(&format!("{IRONBRIDGE} port import --bridge={other} {file}"));
    let later = echoed();
    wait_for("the stream to go on after that", 20, || echoed() > later + 5);
}
