//! Ports that move between two switches: a TCP stream through a stateful default-deny ACL with translation goes on in the second
//! one, which has never seen it begin.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use support::{Daemons, Dir, Host, NET, Running, need, unique, wait_for};

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

/// Two switches in namespaces of their own; a virtual machine and its peer are on the first one, where a stream flows.
struct Net {
    a: Daemons,
    b: Daemons,
    br: String,
    other: String,
    vm: Host,
    peer: Host,
    far: Host,
    dir: Dir,
    _server: Running,
    _client: Running,
}

impl Net {
    fn new() -> Net {
        let dir = Dir::new("migration");
        let (vm, peer, far) =
            (Host::new("10.82.0.1/24"), Host::new("10.82.0.2/24"), Host::new("10.82.9.1/24"));
        let (a, b) = (Daemons::start(&[]), Daemons::start_in(&far.ns));
        let (br, other) = (unique("ibr"), unique("ibr"));
        for (d, br) in [(&a, &br), (&b, &other)] {
            d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure"));
        }
        // The second one numbers its ports in another way.
        b.run(&format!("ovs-vsctl add-port {other} first -- set interface first type=internal"));
        let (v, p) = (&vm.port, &peer.port);
        a.run(&format!("ovs-vsctl add-port {br} {v} -- set port {v} external_ids:vm=7"));
        a.run(&format!("ovs-vsctl add-port {br} {p}"));
        vm.sh(&format!("ip neigh replace 10.82.0.2 lladdr {} dev eth0", mac(&peer)));
        peer.sh(&format!("ip neigh replace 10.82.0.100 lladdr {} dev eth0", mac(&vm)));
        for flow in [
            "priority=0,actions=drop".to_owned(),
            format!("rarp,in_port={v},actions={p}"),
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
        a.run(&format!("ovs-appctl fdb/add {br} {v} 0 {}", mac(&vm)));
        let (server, client) = (dir.file("server.py"), dir.file("client.py"));
        std::fs::write(&server, SERVER).unwrap();
        std::fs::write(&client, CLIENT).unwrap();
        let _server = peer.spawn(&format!("python3 {server}"));
        wait_for("the server", 10, || peer.sh("ss -Htln").contains(":5000"));
        let _client = vm.spawn(&format!("python3 {client} {}", dir.file("count")));
        let net = Net { a, b, br, other, vm, peer, far, dir, _server, _client };
        wait_for("the stream", 20, || net.echoed() > 10);
        net
    }

    /// How far the stream has come.
    fn echoed(&self) -> u32 {
        std::fs::read_to_string(self.dir.file("count")).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    fn stream_goes_on(&self) {
        let so_far = self.echoed();
        wait_for("the stream to go on", 20, || self.echoed() > so_far + 20);
    }

    /// The second switch has what the first one had.
    fn all_is_there(&self) {
        let conns = self.b.run("ovs-appctl dpctl/dump-conntrack zone=9");
        assert!(
            conns.contains("dst=10.82.0.100,") && conns.contains("protoinfo=(state=ESTABLISHED)"),
            "{conns}"
        );
        let flows = self.b.run(&format!("ovs-ofctl dump-flows {} table=1", self.other));
        assert!(flows.contains("n_packets=1, "), "the SYN was counted in the first switch: {flows}");
        assert_eq!(self.b.run(&format!("ovs-vsctl get port {} external_ids:vm", self.vm.port)), "\"7\"\n");
        // The ACL denies what it denied.
        let back =
            self.peer.try_sh("python3 -c \"import socket;socket.create_connection(('10.82.0.1',22),1)\"");
        assert!(!back.status.success());
    }
}

#[test]
fn a_file_takes_a_stream_to_another_switch() {
    if !need(NET) || !need(PYTHON) {
        return;
    }
    let n = Net::new();
    let (a, b, other, v, p) = (&n.a, &n.b, &n.other, &n.vm.port, &n.peer.port);
    let file = n.dir.file("ports.json");
    a.run(&format!("{IRONBRIDGE} port export --output={file} {v} {p}"));
    let import = format!("{IRONBRIDGE} port import --bridge={other}");
    let check = b.run(&format!("{import} --check {file}"));
    assert!(check.contains(&format!("port {v} would be added to {other}")), "{check}");
    let damaged = n.dir.file("damaged.json");
    std::fs::write(&damaged, std::fs::read_to_string(&file).unwrap().replace("10.82.0.100", "10.82.0.101"))
        .unwrap();
    assert_eq!(b.try_run(&format!("{import} {damaged}")).status.code(), Some(1));
    // A file whose devices are not here: refused, and nothing stays of it.
    assert_eq!(b.try_run(&format!("{import} {file}")).status.code(), Some(1));
    assert_eq!(b.run(&format!("ovs-vsctl list-ports {other}")), "first\n");

    for port in [v, p] {
        a.run(&format!("ovs-vsctl del-port {port}"));
        support::sh(&format!("ip link set {port} netns {}", n.far.ns));
        n.far.sh(&format!("ip link set {port} up"));
    }
    let summary = b.run(&format!("{import} {file}"));
    assert!(
        summary.starts_with("6 flows, 0 groups, 0 meters, 1 addresses,")
            && summary.ends_with(" 1 connections\n"),
        "{summary}"
    );
    n.stream_goes_on();
    n.all_is_there();
    // Once more is no harm.
    b.run(&format!("{import} {file}"));
    n.stream_goes_on();
}

#[test]
fn a_live_move_takes_a_stream_along() {
    if !need(NET) || !need(PYTHON) {
        return;
    }
    let n = Net::new();
    let (v, p) = (&n.vm.port, &n.peer.port);
    // The other host has devices of its own by these names: second interfaces of the machines, not in use yet.
    for host in [&n.vm, &n.peer] {
        n.far.sh(&format!("ip link add {} type veth peer name eth1 netns {}", host.port, host.ns));
        n.far.sh(&format!("ip link set {} up", host.port));
        host.sh(&format!("ip link set eth1 address {}", mac(host)));
    }
    let start = |wait: &str| {
        let there = format!(
            "ip netns exec {} env OVS_RUNDIR={} {IRONBRIDGE} port receive --bridge={}",
            n.far.ns,
            n.b.dir.path().display(),
            n.other
        );
        let mut command = n.a.command(&format!("{IRONBRIDGE} port migrate {wait} {v} {p} -- {there}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let untouched = || {
        assert_eq!(n.b.run(&format!("ovs-vsctl list-ports {}", n.other)), "first\n");
        assert!(!n.b.run(&format!("ovs-ofctl dump-flows {}", n.other)).contains("in_port"));
        assert!(n.a.run(&format!("ovs-vsctl list-ports {}", n.br)).contains(v.as_str()));
        n.stream_goes_on();
    };
    // Called off, and an end that is not there.
    let called_off = start("--wait").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&called_off.stderr).into_owned();
    assert!(called_off.status.code() == Some(1) && said.contains("called off"), "{said}");
    untouched();
    for end in ["false", "sleep 0.3", "head -c 100", "echo {}"] {
        let failed = n.a.try_run(&format!("{IRONBRIDGE} port migrate {v} {p} -- {end}"));
        assert_eq!(failed.status.code(), Some(1), "{end}: {failed:?}");
    }
    untouched();

    let mut mover = start("--wait");
    let mut said = BufReader::new(mover.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    n.stream_goes_on();
    // The machines stop here; when the move is done, they run there.
    for host in [&n.vm, &n.peer] {
        host.sh("ip link set eth0 down");
        host.sh("ip addr flush dev eth0");
    }
    mover.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    said.read_to_string(&mut line).unwrap();
    let end = mover.wait_with_output().unwrap();
    assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    assert!(line.contains("6 flows, ") && line.contains("switched over in "), "{line}");
    for (host, address, other, its) in
        [(&n.vm, "10.82.0.1/24", "10.82.0.2", &n.peer), (&n.peer, "10.82.0.2/24", "10.82.0.100", &n.vm)]
    {
        host.sh("ip link set eth1 up");
        host.sh(&format!("ip addr add {address} dev eth1"));
        host.sh(&format!("ip neigh replace {other} lladdr {} dev eth1", mac(its)));
    }
    n.stream_goes_on();
    n.all_is_there();
    assert_eq!(n.a.run(&format!("ovs-vsctl list-ports {}", n.br)), "");
    assert!(!n.a.run(&format!("ovs-ofctl dump-flows {}", n.br)).contains("in_port"));
    let rarp = n.b.run(&format!("ovs-ofctl dump-flows {} rarp", n.other));
    assert!(rarp.contains("n_packets=1, n_bytes=60,"), "the machine's address was announced: {rarp}");
}

/// The hook that docs/port-state.md tells of, with a description as libvirt gives it, and programs that note how they are called.
#[test]
fn the_libvirt_hook_moves_the_ports_of_a_machine_that_arrives() {
    const XML: &str = "<domain type='kvm' id='3'>
  <name>vm1</name>
  <uuid>6ff5dbb6-0a5d-4d0c-8f3b-2f3a4b5c6d7e</uuid>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/><source network='default' bridge='virbr0'/>
      <target dev='vnet4'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:02'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/>
      </virtualport>
      <target dev='vnet5'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:03'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'/>
      <target dev='vnet6'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:04'/>
      <source bridge='$(touch $calls.broken)'/>
      <virtualport type='openvswitch'/>
      <target dev='vnet7'/>
    </interface>
  </devices>
</domain>";
    let dir = Dir::new("hook");
    let calls = dir.file("calls");
    let bin = dir.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, text: &str| {
        std::fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        support::sh(&format!("chmod 755 {}", bin.join(name).display()));
    };
    program("ssh", "while [ $# -gt 2 ]; do shift; done; host=$1; shift; export host; exec sh -c \"$*\"");
    // A port on the other side has a name that would end the quotes of a careless hook.
    program(
        "ovs-vsctl",
        "[ $host = hv1 ] && { printf '%s ' \"$@\" >> $calls; case \"$*\" in *00:03*) echo \"x';touch $calls.broken;'\" ;; *) echo vnet0 ;; esac; }; exit 0",
    );
    program("ironbridge", "printf '%s ' \"$@\" >> $calls; echo >> $calls; echo ready");
    std::fs::write(dir.file("hypervisors"), "# ours\nhv2\nhv3\nhv1\n").unwrap();
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/hooks/qemu");
    let call = |words: &[&str]| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut child = std::process::Command::new("sh")
            .arg(hook)
            .args(words)
            .env("PATH", path)
            .env("calls", &calls)
            .env("IRONBRIDGE_HOOK_RUN", dir.file("run"))
            .env("IRONBRIDGE_HYPERVISORS", dir.file("hypervisors"))
            .env("IRONBRIDGE_HOSTNAME", "hv2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(XML.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    // A machine that is started here did not come from anywhere.
    assert_eq!(call(&["vm1", "started", "begin", "-"]), "");
    assert!(!std::path::Path::new(&calls).exists());
    assert_eq!(call(&["vm1", "migrate", "begin", "-"]).trim(), XML);
    call(&["vm1", "started", "begin", "-"]);
    let said = std::fs::read_to_string(&calls).unwrap();
    assert!(said.contains("external_ids:attached-mac=\"52:54:00:00:00:02\""), "{said}");
    let moved = "port migrate --on-announcement --address=52:54:00:00:00:02 vnet0=vnet5 -- \
                 ssh -o BatchMode=yes hv2 ironbridge port receive --bridge=br-int";
    assert_eq!(said.matches(moved).count(), 1, "{said}");
    assert!(!said.contains("vnet4") && !said.contains("00:01"), "{said}");
    assert!(said.contains("00:03") && !said.contains("vnet6") && !said.contains("00:04"), "{said}");
    assert!(!std::path::Path::new(&format!("{calls}.broken")).exists(), "a name was run as a command");
}

/// From Debian's Open vSwitch to ours, by the file: what it tells of a port, connections included.
#[test]
fn a_file_comes_from_open_vswitch() {
    const OVS: &[(&str, &str)] =
        &[("/usr/sbin/ovs-vswitchd", "openvswitch-switch"), ("/usr/sbin/ovsdb-server", "openvswitch-switch")];
    if !need(NET) || !need(OVS) {
        return;
    }
    let (dir, b) = (Dir::new("fromovs"), Daemons::start(&[]));
    let theirs = |line: &str| {
        let mut words = line.split(' ');
        let mut command = std::process::Command::new(words.next().unwrap());
        command.args(words).current_dir(dir.path());
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, dir.path());
        }
        let out = command.stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "$ {line}\n{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    struct End<'a>(&'a Dir);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            for daemon in ["ovs-vswitchd", "ovsdb-server"] {
                if let Ok(pid) = std::fs::read_to_string(self.0.file(&format!("{daemon}.pid"))) {
                    let _ = support::try_sh(&format!("kill {}", pid.trim()));
                }
            }
        }
    }
    let _end = End(&dir);
    theirs("/usr/bin/ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema");
    theirs("/usr/sbin/ovsdb-server --detach --no-chdir --pidfile --log-file --remote=punix:db.sock conf.db");
    theirs("/usr/bin/ovs-vsctl --no-wait init");
    theirs(
        "/usr/sbin/ovs-vswitchd --enable-dummy=override --disable-system --disable-system-route --detach --no-chdir --pidfile --log-file",
    );
    let (br, vm, up) = (unique("ibr"), unique("ibm"), unique("ibu"));
    theirs(&format!(
        "/usr/bin/ovs-vsctl add-br {br} -- set bridge {br} datapath_type=dummy fail_mode=secure \
         -- add-port {br} old -- set interface old type=internal ofport_request=5 -- set port old external_ids:vm=7 \
         -- add-port {br} {up} -- set interface {up} type=internal ofport_request=6"
    ).replace("  ", " ").replace("  ", " "));
    theirs(&format!(
        "/usr/bin/ovs-ofctl -O OpenFlow13 add-meter {br} meter=2,kbps,stats,bands=type=drop,rate=1000"
    ));
    for group in ["group_id=3,type=all,bucket=output:6", "group_id=4,type=all,bucket=drop"] {
        theirs(&format!("/usr/bin/ovs-ofctl -O OpenFlow13 add-group {br} {group}"));
    }
    for flow in [
        "table=0,in_port=5,udp,actions=meter:2,ct(zone=9,table=1)",
        "table=1,in_port=5,udp,ct_state=+trk,actions=ct(commit,zone=9,nat(src=10.0.0.77)),group:3",
        "table=0,in_port=6,arp,actions=group:4",
    ] {
        theirs(&format!("/usr/bin/ovs-ofctl -O OpenFlow13 add-flow {br} {flow}"));
    }
    theirs(
        "/usr/bin/ovs-appctl netdev-dummy/receive old in_port(5),eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1001,dst=53)",
    );
    theirs(&format!("/usr/bin/ovs-appctl fdb/add {br} old 0 50:54:00:00:00:09"));
    wait_for("the connection", 10, || {
        theirs("/usr/bin/ovs-appctl dpctl/dump-conntrack").contains("10.0.0.77")
    });
    let file = dir.file("vm.json");
    theirs(&format!("{IRONBRIDGE} port export --output={file} old={vm}"));

    b.run(&format!(
        "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure -- add-port {br} {up} -- set interface {up} type=internal"
    ));
    let summary = b.run(&format!("{IRONBRIDGE} port import {file}"));
    assert_eq!(summary, "2 flows, 1 groups, 1 meters, 1 addresses, 0 memberships, 1 connections\n");
    // What meter and group have counted there.
    let meters = b.run(&format!("ovs-ofctl -O OpenFlow13 meter-stats {br}"));
    assert!(meters.contains("packet_in_count:1 ") && meters.contains("0: packet_count:0 "), "{meters}");
    let groups = b.run(&format!("ovs-ofctl -O OpenFlow13 dump-group-stats {br}"));
    assert!(groups.contains("packet_count=1,") && groups.contains("bucket0:packet_count=1,"), "{groups}");
    let flows = b.run(&format!("ovs-ofctl -O OpenFlow13 --names dump-flows {br}"));
    assert!(
        flows.contains("n_packets=1, ")
            && flows.contains(&format!("udp,in_port={vm} actions=meter:2,ct(table=1,zone=9)")),
        "{flows}"
    );
    let groups = b.run(&format!("ovs-ofctl -O OpenFlow13 --names dump-groups {br}"));
    assert!(groups.contains(&format!("output:{up}")) && !groups.contains("group_id=4"), "{groups}");
    assert!(b.run("ovs-appctl dpctl/dump-conntrack zone=9").contains("reply=(src=10.0.0.2,dst=10.0.0.77,"));
    assert_eq!(b.run(&format!("ovs-vsctl get port {vm} external_ids:vm")), "\"7\"\n");
    assert!(b.run(&format!("ovs-appctl fdb/show {br}")).contains("50:54:00:00:00:09  static"));
}
