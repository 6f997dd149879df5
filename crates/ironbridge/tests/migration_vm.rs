//! A real machine that moves between two switches by QEMU's own migration, and its port with it: a TCP stream and an idle connection through a
//! stateful ACL with translation go on, a peer's pings miss little more than the machine's own pause, and the ACL denies what it denied.
//! A move that fails while QEMU has stopped the machine leaves it where it was.

mod support;

use std::process::{Output, Stdio};

use support::guest::{Guest, PROGRAMS, initrd, kernel};
use support::{Daemons, Dir, Host, NET, Running, need, sh, try_sh, unique, wait_for};

const PYTHON: &[(&str, &str)] = &[("/usr/bin/python3", "python3")];
const IRONBRIDGE: &str = env!("CARGO_BIN_EXE_ironbridge");
const MAC: &str = "52:54:00:00:83:01";
/// How much longer than the machine stood still its peers may miss it.
const SLACK_MS: u64 = 50;
/// The programs that take part in a move wait for a processor one after the other, each about as long as a ping at the same time that has nothing to
/// do with the move: on a busy machine that comes on top.
const TURNS: u64 = 4;

/// Writes what arrives at two ports to two files: how many bytes, and the bytes.
const SERVER: &str = "
import socket, sys, threading
def serve(port, file, note):
    l = socket.create_server(('10.83.0.2', port))
    c, _ = l.accept()
    got = b''
    while True:
        d = c.recv(4096)
        if not d: break
        got += d
        open(file, 'wb').write(note(got))
threading.Thread(target=serve, args=(5001, sys.argv[2], lambda b: b)).start()
serve(5000, sys.argv[1], lambda b: str(len(b)).encode())
";

/// The machine's TAP, in both hypervisors by the same name.
struct Taps<'a> {
    name: String,
    far: &'a Host,
}

impl Taps<'_> {
    fn new(far: &Host) -> Taps<'_> {
        let taps = Taps { name: unique("ibv"), far };
        let add = format!("ip tuntap add dev {} mode tap vnet_hdr", taps.name);
        let up = format!("ip link set {} up", taps.name);
        for line in [&add, &up] {
            sh(line);
            far.sh(line);
        }
        taps
    }
}

impl Drop for Taps<'_> {
    fn drop(&mut self) {
        let del = format!("ip link del {}", self.name);
        let _ = (try_sh(&del), self.far.try_sh(&del));
    }
}

/// A switch with an underlay, and a bridge that a VXLAN tunnel joins to the other's.
fn hypervisor(d: &Daemons, underlay: &str, own: &str, other: &str, run: impl Fn(&str)) -> String {
    let (ul, br) = (unique("ibu"), unique("ibr"));
    d.run(&format!(
        "ovs-vsctl add-br {ul} -- set bridge {ul} datapath_type=netdev -- add-port {ul} {underlay} \
         -- add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure \
         -- add-port {br} vx -- set interface vx type=vxlan options:remote_ip={other} options:key=83"
    ));
    run(&format!("ip addr add {own}/24 dev {ul}"));
    run(&format!("ip link set {ul} up"));
    d.run(&format!("ovs-ofctl add-flow {br} priority=0,actions=normal"));
    br
}

/// Longest run of numbers that are missing between the first and the last reply, and how many are missing in all.
fn missing(pings: &str) -> (u64, u64) {
    let of = |l: &str| l.split("icmp_seq=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let mut seen: Vec<u64> = pings.lines().filter(|l| l.contains("bytes from")).filter_map(of).collect();
    seen.sort_unstable();
    seen.dedup();
    let gaps = seen.windows(2).map(|w| w[1] - w[0] - 1);
    (gaps.clone().max().unwrap_or(0), gaps.sum())
}

/// The slowest reply, in whole milliseconds.
fn slowest_ms(pings: &str) -> u64 {
    let of = |l: &str| l.split("time=").nth(1)?.split([' ', '.']).next()?.parse::<u64>().ok();
    pings.lines().filter_map(of).max().unwrap_or_else(|| panic!("no reply: {pings}"))
}

#[test]
fn a_machine_moves_and_its_network_moves_with_it() {
    if !need(PROGRAMS) || !need(NET) || !need(PYTHON) {
        return;
    }
    let Some((kernel, modules)) = kernel() else {
        println!("skipped: needs a cloud kernel (apt-get install linux-image-cloud-amd64)");
        return;
    };
    let dir = Dir::new("vmmove");
    let image = initrd(dir.path(), &modules);
    let (peer, far) = (Host::new("10.83.0.2/24"), Host::new("10.83.9.9/24"));
    far.sh("ip addr flush dev eth0");
    let (a, b) = (Daemons::start(&[]), Daemons::start_in(&far.ns));
    let here = hypervisor(&a, &far.port, "10.83.9.1", "10.83.9.2", |line| drop(sh(line)));
    let there = hypervisor(&b, "eth0", "10.83.9.2", "10.83.9.1", |line| drop(far.sh(line)));
    let taps = Taps::new(&far);
    let tap = &taps.name;
    let backend = format!("tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off");
    let (qmp, incoming) = (dir.file("qmp"), dir.file("incoming"));
    let control = format!("unix:{qmp},server=on,wait=off");
    let mut vm = Guest::boot_with(&kernel, &image, MAC, &["-netdev", &backend, "-qmp", &control]);

    a.run(&format!("ovs-vsctl add-port {here} {}", peer.port));
    a.run(&format!(
        "ovs-vsctl add-port {here} {tap} -- set interface {tap} ingress_policing_rate=20000 external_ids:vm=7"
    ));
    a.run(&format!("ovs-ofctl -O OpenFlow13 add-meter {here} meter=1,kbps,burst,bands=type=drop,rate=20000,burst_size=5000"));
    for flow in [
        format!("priority=100,arp,in_port={tap},actions=normal"),
        format!("priority=100,rarp,in_port={tap},actions=normal"),
        format!("priority=100,ip,in_port={tap},actions=meter:1,ct(zone=9,nat,table=1)"),
        format!("priority=90,in_port={tap},actions=drop"),
        format!("priority=80,ip,dl_dst={MAC},actions=ct(zone=9,nat,table=1)"),
        format!("table=1,in_port={tap},ip,ct_state=+trk+est,actions=normal"),
        format!(
            "table=1,in_port={tap},tcp,ct_state=+trk+new,actions=ct(commit,zone=9,nat(src=10.83.0.100)),normal"
        ),
        format!("table=1,ip,dl_dst={MAC},ct_state=+trk+est,actions=output:{tap}"),
        format!("table=1,icmp,dl_dst={MAC},ct_state=+trk+new,actions=ct(commit,zone=9),output:{tap}"),
    ] {
        a.run(&format!("ovs-ofctl -O OpenFlow13 add-flow {here} {flow}"));
    }
    for address in ["10.83.0.1", "10.83.0.100"] {
        peer.sh(&format!("ip neigh replace {address} lladdr {MAC} dev eth0"));
    }
    let (stream, idle, server) = (dir.file("stream"), dir.file("idle"), dir.file("server.py"));
    std::fs::write(&server, SERVER).unwrap();
    let _server = peer.spawn(&format!("python3 {server} {stream} {idle}"));
    vm.ready();
    assert!(vm.run("ip addr add 10.83.0.1/24 dev eth0").1);
    vm.run("(while true; do echo x; sleep 0.1; done) | nc 10.83.0.2 5000 >/dev/null 2>&1 &");
    vm.run("(echo first; while [ ! -e /go ]; do sleep 1; done; echo last; sleep 99) | nc 10.83.0.2 5001 >/dev/null 2>&1 &");
    let bytes = || std::fs::read_to_string(&stream).ok().and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    let goes_on = |why: &str| {
        let so_far = bytes();
        wait_for(why, 20, || bytes() > so_far + 4);
    };
    goes_on("the stream");
    wait_for("the idle connection", 10, || std::fs::read_to_string(&idle).is_ok_and(|t| t == "first\n"));
    let denies = || {
        let call = "python3 -c \"import socket;socket.create_connection(('10.83.0.1',22),1)\"";
        let denied = peer.try_sh(&call.replace("python3 -c ", "timeout 1 python3 -c "));
        assert!(!denied.status.success());
        let conns = |d: &Daemons| d.run("ovs-appctl dpctl/dump-conntrack zone=9").contains("dport=22,");
        assert!(!conns(&a) && !conns(&b));
    };
    denies();

    let pings = dir.file("pings");
    let ping = std::process::Command::new("ip")
        .args(["netns", "exec", &peer.ns, "ping", "-i", "0.01", "10.83.0.1"])
        .stdout(std::fs::File::create(&pings).unwrap())
        .spawn()
        .unwrap();
    let ping = Running(ping);
    let receive = format!(
        "ip netns exec {} env OVS_RUNDIR={} {IRONBRIDGE} port receive --bridge={there}",
        far.ns,
        b.dir.path().display()
    );
    let migrate = |there: &str| -> Output {
        let options = format!("--qmp={qmp} --uri=unix:{incoming} --address={MAC}");
        let mut command = a.command(&format!("{IRONBRIDGE} port migrate {options} {tap} -- sh -c"));
        command.arg(there).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    let arrival = || {
        let from = format!("unix:{incoming}");
        Guest::boot_in(&far.ns, &kernel, &image, MAC, &["-netdev", &backend, "-incoming", &from])
    };
    // The other end dies in the moment in which the machine stands still: it runs on here.
    let first = arrival();
    wait_for("QEMU to listen", 10, || std::path::Path::new(&incoming).exists());
    let failed = migrate(&format!("sed -u '/\"step\":\"state\"/Q' | {receive}"));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(failed.status.code() == Some(1) && said.contains("the other end is gone"), "{failed:?}");
    drop(first);
    goes_on("the stream after a move that failed");
    assert_eq!(b.run(&format!("ovs-vsctl list-ports {there}")), "vx\n");
    assert!(!b.run(&format!("ovs-ofctl dump-flows {there}")).contains(MAC));
    assert!(!b.run("ovs-appctl dpctl/dump-conntrack").contains("10.83.0.1"));

    let _ = std::fs::remove_file(&incoming);
    let mut vm_there = arrival();
    wait_for("QEMU to listen", 10, || std::path::Path::new(&incoming).exists());
    let metered = |d: &Daemons, br: &str| -> u64 {
        let said = d.run(&format!("ovs-ofctl -O OpenFlow13 meter-stats {br} meter=1"));
        let count = said.split("packet_in_count:").nth(1).and_then(|s| s.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("{said}"))
    };
    let metered_before = metered(&a, &here);
    sh(&format!("ip addr add 10.83.0.9/24 dev {here}"));
    sh(&format!("ip link set {here} up"));
    let beside = dir.file("beside");
    let mut other = Running(
        std::process::Command::new("ip")
            .args(["netns", "exec", &peer.ns, "ping", "-i", "0.01", "10.83.0.9"])
            .stdout(std::fs::File::create(&beside).unwrap())
            .spawn()
            .unwrap(),
    );
    wait_for("a ping beside the move", 10, || {
        std::fs::read_to_string(&beside).is_ok_and(|t| t.matches("time=").count() > 3)
    });
    let moved = migrate(&receive);
    sh(&format!("kill -INT {}", other.0.id()));
    let _ = other.0.wait();
    let busy = slowest_ms(&std::fs::read_to_string(&beside).unwrap());
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert!(said.starts_with("9 flows, 0 groups, 1 meters, 1 addresses,"), "{said}");
    goes_on("the stream in the other switch");
    vm_there.run("> /go");
    wait_for("the idle connection to work", 10, || {
        std::fs::read_to_string(&idle).is_ok_and(|t| t == "first\nlast\n")
    });
    denies();
    assert_eq!(b.run(&format!("ovs-vsctl get interface {tap} ingress_policing_rate")), "20000\n");
    assert!(!b.run(&format!("ovs-vsctl get port {tap} external_ids")).contains("move"));
    let meters = b.run(&format!("ovs-ofctl -O OpenFlow13 dump-meters {there}"));
    assert!(meters.contains("meter=1 kbps"), "{meters}");
    // The meter goes on counting where it was before the machine came.
    assert!(metered(&b, &there) > metered_before, "{metered_before} packets before");
    assert!(!a.run(&format!("ovs-vsctl list-ports {here}")).contains(tap.as_str()), "one active port");
    assert!(!a.run(&format!("ovs-ofctl dump-flows {here}")).contains(MAC));

    sh(&format!("kill -INT {}", ping.0.id()));
    let mut ping = ping;
    let _ = ping.0.wait();
    let pings = std::fs::read_to_string(&pings).unwrap();
    let (longest, all) = missing(&pings);
    let still: u64 = said
        .lines()
        .find_map(|l| l.strip_prefix("the machine stood still for ")?.strip_suffix(" ms")?.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    println!("{said}pings missing at 10 ms: {longest} in a row, {all} in all; beside it {busy} ms at most");
    assert!(
        longest * 10 <= still + SLACK_MS + TURNS * busy,
        "{longest} pings missing, the machine stood still for {still} ms, and others waited for {busy} ms"
    );
}
