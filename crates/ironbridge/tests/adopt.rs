//! A running Open vSwitch is taken over, and given back: a stateful default-deny ACL, a TCP stream through it, and packets every
//! 10 ms. Whatever fails on the way leaves the original running as before.

mod support;

use std::process::{Command, Output, Stdio};

use support::{Dir, Host, NET, Running, need, sh, try_sh, wait_for};

const NEEDED: &[(&str, &str)] = &[
    ("/usr/bin/python3", "python3"),
    ("/usr/sbin/ethtool", "ethtool"),
    ("/usr/sbin/ovsdb-server", "openvswitch-switch"),
    ("/usr/sbin/ovs-vswitchd", "openvswitch-switch"),
];
const IRONBRIDGE: &str = env!("CARGO_BIN_EXE_ironbridge");

/// Sends numbers and writes the last one that came back to a file.
const CLIENT: &str = "
import socket, sys, time
s = socket.create_connection(('10.83.0.2', 5000), 10)
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
s = socket.create_server(('10.83.0.2', 5000))
while True:
    c, _ = s.accept()
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(d)
";

/// Debian's Open vSwitch in a namespace of its own, with a machine on each of two ports.
struct Net {
    dir: Dir,
    /// Where the switch is.
    host: Host,
    a: Host,
    b: Host,
    /// The first machine's port, as the original numbered it.
    ofport: String,
    running: Vec<Running>,
}

impl Net {
    fn new() -> Net {
        let dir = Dir::new("adopt");
        let (host, a, b) = (Host::new("10.83.9.1/24"), Host::new("10.83.0.1/24"), Host::new("10.83.0.2/24"));
        for h in [&a, &b] {
            sh(&format!("ip link set {} netns {}", h.port, host.ns));
            host.sh(&format!("ip link set {} up", h.port));
            // The original tracks no segment whose checksum is left to a device.
            h.sh("ethtool -K eth0 tx off");
        }
        let mut n = Net { dir, host, a, b, ofport: String::new(), running: Vec::new() };
        n.run("/usr/bin/ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema");
        n.run(
            "/usr/sbin/ovsdb-server --detach --no-chdir --pidfile --log-file --remote=punix:db.sock conf.db",
        );
        n.run("/usr/bin/ovs-vsctl --no-wait init");
        n.run("/usr/sbin/ovs-vswitchd --disable-system --detach --no-chdir --pidfile --log-file --monitor");
        // As start-up scripts do.
        n.run("/usr/bin/ovs-appctl -t ovsdb-server ovsdb-server/add-remote db:Open_vSwitch,Open_vSwitch,manager_options");
        let (pa, pb) = (n.a.port.clone(), n.b.port.clone());
        n.run("/usr/bin/ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure");
        n.run(&format!("/usr/bin/ovs-vsctl add-port br0 {pa} -- add-port br0 {pb}"));
        n.ofport = n.ofport_of_a();
        n.host.sh("ip addr add 10.83.0.9/24 dev br0");
        n.host.sh("ip link set br0 up");
        n.run("/usr/bin/ovs-ofctl -OOpenFlow15 add-group br0 group_id=5,type=all,bucket=output:1");
        n.run("/usr/bin/ovs-ofctl -OOpenFlow15 add-meter br0 meter=3,kbps,band=type=drop,rate=1000000");
        n.run("/usr/bin/ovs-ofctl add-tlv-map br0 {class=0x10,type=1,len=4}->tun_metadata0");
        for flow in [
            "priority=0,actions=drop".to_owned(),
            "priority=5,arp,actions=normal".to_owned(),
            "priority=5,icmp,actions=normal".to_owned(),
            "cookie=0x77,priority=5,tcp,actions=ct(zone=9,table=1)".to_owned(),
            "table=1,tcp,ct_state=+trk+est,actions=normal".to_owned(),
            format!(
                "table=1,tcp,in_port={pa},ct_state=+trk+new,actions=ct(commit,zone=9,exec(set_field:0x5->ct_mark)),normal"
            ),
            "table=2,send_flow_rem,importance=3,tun_metadata0=7,actions=meter:3,group:5".to_owned(),
            "table=2,priority=3,idle_timeout=900,actions=drop".to_owned(),
        ] {
            n.run(&format!("/usr/bin/ovs-ofctl -OOpenFlow15 add-flow br0 {flow}"));
        }
        let (server, client) = (n.dir.file("server.py"), n.dir.file("client.py"));
        std::fs::write(&server, SERVER).unwrap();
        std::fs::write(&client, CLIENT).unwrap();
        let serving = n.b.spawn(&format!("python3 {server}"));
        n.running.push(serving);
        wait_for("the server", 10, || n.b.sh("ss -Htln").contains(":5000"));
        let calling = n.a.spawn(&format!("python3 {client} {}", n.dir.file("count")));
        n.running.push(calling);
        wait_for("the stream", 20, || n.echoed() > 10);
        n
    }

    fn try_run(&self, line: &str) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host.ns]).args(line.split_whitespace());
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, self.dir.path());
        }
        // What detaches keeps no pipe of ours.
        let (out, err) = (self.dir.file("stdout"), self.dir.file("stderr"));
        let file = |path: &str| Stdio::from(std::fs::File::create(path).unwrap());
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
        let status = command.status().unwrap();
        let read = |path: &str| std::fs::read(path).unwrap();
        Output { status, stdout: read(&out), stderr: read(&err) }
    }

    fn run(&self, line: &str) -> String {
        let out = self.try_run(line);
        assert!(out.status.success(), "$ {line}\n{out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn echoed(&self) -> u32 {
        std::fs::read_to_string(self.dir.file("count")).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    fn stream_goes_on(&self) {
        let so_far = self.echoed();
        wait_for("the stream to go on", 20, || self.echoed() > so_far + 20);
    }

    /// The executables of database and switch.
    fn executables(&self) -> Vec<String> {
        let of = |name: &str| {
            let pid = std::fs::read_to_string(self.dir.file(&format!("{name}.pid"))).unwrap_or_default();
            let exe = std::fs::read_link(format!("/proc/{}/exe", pid.trim()));
            exe.map(|p| p.display().to_string()).unwrap_or_default()
        };
        vec![of("ovsdb-server"), of("ovs-vswitchd")]
    }

    fn ofport_of_a(&self) -> String {
        self.run(&format!("/usr/bin/ovs-vsctl get Interface {} ofport", self.a.port))
    }

    /// Everything that a bridge holds is there, and denies what it denied.
    fn all_is_there(&self) {
        let flows = self.run("/usr/bin/ovs-ofctl -OOpenFlow15 --no-stats dump-flows br0");
        assert_eq!(flows.lines().filter(|l| l.contains("actions=")).count(), 8, "{flows}");
        for part in
            ["cookie=0x77, ", "send_flow_rem", "importance=3", "tun_metadata0=0x7 actions=meter:3,group:5"]
        {
            assert!(flows.contains(part), "{part}: {flows}");
        }
        assert!(self.run("/usr/bin/ovs-ofctl -OOpenFlow15 dump-groups br0").contains("group_id=5,type=all"));
        let back = self.b.try_sh("python3 -c \"import socket;socket.create_connection(('10.83.0.1',22),1)\"");
        assert!(!back.status.success());
        assert!(self.run("ip -br addr show dev br0").contains("10.83.0.9/24"));
        let remotes = self.run("/usr/bin/ovs-appctl -t ovsdb-server ovsdb-server/list-remotes");
        assert_eq!(remotes.lines().count(), 2, "{remotes}");
        let waits = self.run("/usr/bin/ovs-vsctl get Open_vSwitch . other_config");
        assert_eq!(waits, "{}\n");
        assert_eq!(self.ofport_of_a(), self.ofport);
    }

    /// Runs `ironbridge adopt` under pings; the longest time between two answers, seconds.
    fn adopt(&self, options: &str) -> (Output, f64) {
        let pings = Command::new("ip")
            .args(["netns", "exec", &self.a.ns, "ping", "-D", "-i", "0.01", "-w", "20", "10.83.0.2"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let out = self.try_run(&format!("{IRONBRIDGE} adopt {options}"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        sh(&format!("kill -INT {}", pings.id()));
        let said = String::from_utf8_lossy(&pings.wait_with_output().unwrap().stdout).into_owned();
        let times: Vec<f64> =
            said.lines().filter_map(|l| l.strip_prefix('[')?.split(']').next()?.parse().ok()).collect();
        assert!(times.len() > 20, "{said}");
        (out, times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["ovsdb-server.log", "ovs-vswitchd.log"] {
                let text = std::fs::read_to_string(self.dir.file(log)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                eprintln!("--- {log}, newest first ---\n{}", tail.join("\n"));
            }
        }
        for name in ["ovs-vswitchd", "ovsdb-server"] {
            let _ = self.try_run(&format!("/usr/bin/ovs-appctl --timeout=5 -t {name} exit"));
            if let Ok(pid) = std::fs::read_to_string(self.dir.file(&format!("{name}.pid"))) {
                let _ = try_sh(&format!("kill {}", pid.trim()));
            }
        }
    }
}

#[test]
fn an_open_vswitch_is_taken_over_and_given_back() {
    if !need(NET) || !need(NEEDED) {
        return;
    }
    let n = Net::new();
    let theirs = n.executables();
    let rehearsal = n.run(&format!("{IRONBRIDGE} adopt --dry-run"));
    assert!(rehearsal.starts_with("br0: 3 ports, 8 flows, 1 groups, 1 meters, "), "{rehearsal}");
    assert_eq!(n.executables(), theirs);
    assert_eq!(n.try_run(&format!("{IRONBRIDGE} adopt --back")).status.code(), Some(1));
    let counted = |table: &str| -> u64 {
        let flows = n.run(&format!("/usr/bin/ovs-ofctl dump-aggregate br0 {table}"));
        flows.split("packet_count=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let before = counted("cookie=0x77/-1");

    let (out, gap_s) = n.adopt("");
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(" 1 connections\n") && said.contains("nothing was forwarded for "), "{said}");
    assert!(gap_s < 1.0, "silent for {gap_s} s");
    assert!(n.executables().iter().all(|e| e == IRONBRIDGE), "{:?}", n.executables());
    n.stream_goes_on();
    n.all_is_there();
    assert!(counted("cookie=0x77/-1") > before, "counters go on");
    let connections = n.run("/usr/bin/ovs-appctl dpctl/dump-conntrack zone=9");
    assert!(connections.contains("mark=5,protoinfo=(state=ESTABLISHED)"), "{connections}");
    assert_eq!(n.try_run(&format!("{IRONBRIDGE} adopt")).status.code(), Some(1));

    let (out, gap_s) = n.adopt("--back");
    assert!(out.status.success(), "{out:?}");
    assert!(gap_s < 1.5, "silent for {gap_s} s");
    assert_eq!(n.executables(), theirs);
    n.all_is_there();
    n.stream_goes_on();
}

#[test]
fn what_fails_on_the_way_leaves_the_original_running() {
    if !need(NET) || !need(NEEDED) {
        return;
    }
    let n = Net::new();
    let theirs = n.executables();
    let program = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = n.dir.file(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\nexec {IRONBRIDGE} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let version = "test \"$2\" = --version && exit 0";
    for (name, script, why) in [
        ("broken", "exit 1".to_owned(), "cannot be run"),
        (
            "no-database",
            format!("{version}; test $1 = ovsdb-server && exit 1"),
            "ovsdb-server could not be started",
        ),
        (
            "no-switch",
            format!("{version}; test $1 = ovs-vswitchd && exit 1"),
            "ovs-vswitchd could not be started",
        ),
        ("no-daemon", format!("{version}; test $1 = ovs-vswitchd && exit 0"), "it ended at once"),
        (
            "dies",
            format!(
                "{version}; test $1 = ovs-vswitchd && {{ {IRONBRIDGE} \"$@\" && kill -9 `cat ovs-vswitchd.pid`; exit; }}"
            ),
            // It is found dead when it should have begun, or a moment later.
            "ovs-vswitchd ",
        ),
    ] {
        let out = n.try_run(&format!("{IRONBRIDGE} adopt --program={}", program(name, &script)));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
        assert_eq!(said.contains("what ran before runs again"), name != "broken", "{name}: {said}");
        assert_eq!(n.executables(), theirs, "{name}");
        n.all_is_there();
        n.stream_goes_on();
    }
}
