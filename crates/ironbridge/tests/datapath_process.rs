//! The datapath in a process of its own: what has a flow goes on while the control plane is killed, upgraded or stopped.

mod support;

use support::{Daemons, Host, NET, need, unique, wait_for};

/// Daemons whose datapath is a process of its own.
struct Split(Daemons);

impl Split {
    fn start() -> Split {
        let d = Daemons::without_switch();
        d.run("ironbridge datapath --detach --no-chdir --pidfile --log-file");
        d.start_switch(&["--datapath-socket"]);
        Split(d)
    }
    fn restart_switch(&self, signal: &str) {
        self.0.kill("ovs-vswitchd", signal);
        self.0.start_switch(&["--datapath-socket"]);
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        let _ = self.0.try_run("ovs-appctl -t ovs-vswitchd exit --cleanup");
        self.0.kill("ironbridge-datapath", "-15");
    }
}

/// A line such as "300 packets transmitted, 300 received, 0% packet loss".
fn received(pings: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&pings.stdout).into_owned();
    text.lines().find(|l| l.contains("transmitted")).unwrap_or(&text).to_owned()
}

fn ping_meanwhile(from: &Host, to: &str, meanwhile: impl FnOnce()) -> String {
    let line = format!("ip netns exec {} ping -i 0.01 -c 250 -W 1 {to}", from.ns);
    let pinging = std::thread::spawn(move || support::try_sh(&line));
    std::thread::sleep(std::time::Duration::from_millis(400));
    meanwhile();
    received(&pinging.join().unwrap())
}

#[test]
fn established_flows_lose_nothing_when_the_switch_is_killed() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.79.0.1/24"), Host::new("10.79.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    wait_for("traffic", 10, || a.pings("10.79.0.2"));
    for signal in ["-9", "-15"] {
        let told = ping_meanwhile(&a, "10.79.0.2", || split.restart_switch(signal));
        assert!(told.contains("250 received, 0% packet loss"), "after {signal}: {told}");
    }
    // The one that came knows the ports, changes them, and counts.
    assert!(d.run("ovs-appctl dpctl/show").contains(&a.port));
    assert!(d.run("ovs-appctl dpif-netdev/pmd-stats-show").contains("packets received"));
    d.run(&format!("ovs-vsctl del-port {}", b.port));
    assert!(!a.pings("10.79.0.2"));
    d.run(&format!("ovs-vsctl add-port {br} {}", b.port));
    wait_for("the port that came again", 10, || a.pings("10.79.0.2"));
    // A port that went from the database while no switch ran goes from the datapath.
    d.kill("ovs-vswitchd", "-9");
    d.run(&format!("ovs-vsctl --no-wait del-port {}", b.port));
    d.start_switch(&["--datapath-socket"]);
    assert!(!d.run("ovs-appctl dpctl/show").contains(&b.port));
}

#[test]
fn queues_are_heeded_and_outlive_the_switch() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.81.0.1/24"), Host::new("10.81.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    wait_for("traffic", 10, || a.pings("10.81.0.2"));
    d.run(&format!(
        "ovs-vsctl set port {} qos=@n -- --id=@n create qos type=linux-htb other-config:max-rate=80000000 \
         queues:5=@q -- --id=@q create queue other-config:max-rate=40000000",
        b.port
    ));
    let show = || d.run(&format!("ovs-appctl qos/show {}", b.port));
    if !d.run(&format!("tc qdisc show dev {}", b.port)).contains("htb 1:") {
        // A kernel without sch_htb: what it refuses is not shown as if it were there.
        assert!(show().contains("QoS not configured"), "{}", show());
        return;
    }
    d.run(&format!("ovs-ofctl add-flow {br} priority=9,icmp,actions=set_queue:5,normal"));
    let sent = || {
        let shown = show();
        let queue = shown.split("Queue 5:\n").nth(1).unwrap_or_else(|| panic!("no queue 5: {shown}"));
        assert!(queue.contains("max-rate: 40000000\n"), "{shown}");
        let packets = queue.lines().find_map(|l| l.trim().strip_prefix("tx_packets: ")).unwrap_or("0");
        packets.parse::<u64>().unwrap()
    };
    assert!(a.pings("10.81.0.2"));
    let before = sent();
    assert!(before > 0, "{}", show());
    let stats = d.run(&format!("ovs-ofctl queue-stats {br}"));
    assert!(stats.contains("queue 5: bytes="), "{stats}");
    // Neither the discipline nor its counters begin anew with another switch.
    split.restart_switch("-9");
    assert!(sent() >= before, "{}", show());
    split.restart_switch("-15");
    assert!(sent() >= before, "{}", show());
    d.run(&format!("ovs-vsctl clear port {} qos", b.port));
    assert!(!d.run(&format!("tc qdisc show dev {}", b.port)).contains("htb"));
    assert!(show().contains("QoS not configured"), "{}", show());
}

#[test]
fn the_switch_goes_on_with_another_datapath_process() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.82.0.1/24"), Host::new("10.82.0.2/24"));
    for (n, h) in [(7, &a), (9, &b)] {
        d.run(&format!("ovs-vsctl add-port {br} {0} -- set interface {0} ofport_request={n}", h.port));
    }
    d.run(&format!("ovs-vsctl add-port {br} {br}p -- set interface {br}p type=internal"));
    let number = || d.run(&format!("ovs-vsctl get interface {br}p ofport"));
    let before = number();
    d.run(&format!("ovs-ofctl -O OpenFlow13 add-meter {br} meter=1,kbps,band=type=drop,rate=900000"));
    d.run(&format!("ovs-ofctl -O OpenFlow13 del-flows {br}"));
    d.run(&format!("ovs-ofctl -O OpenFlow13 add-flow {br} priority=3,actions=meter:1,normal"));
    wait_for("traffic", 10, || a.pings("10.82.0.2"));
    d.kill("ironbridge-datapath", "-9");
    assert!(!a.pings("10.82.0.2"));
    // Nobody waits for the one that is gone.
    assert!(d.run("ovs-appctl version").contains("ovs-vswitchd"));
    assert!(d.run(&format!("ovs-ofctl -O OpenFlow13 dump-flows {br}")).contains("priority=3"));
    d.try_run(&format!("ovs-vsctl --timeout=20 set bridge {br} other_config:x=y"));
    d.run("ironbridge datapath --detach --no-chdir --pidfile --log-file");
    wait_for("traffic through the new one", 20, || a.pings("10.82.0.2"));
    assert_eq!(d.run(&format!("ovs-vsctl get interface {} ofport", b.port)), "9\n");
    assert_eq!(number(), before);
    let flows = d.run(&format!("ovs-ofctl -O OpenFlow13 dump-flows {br}"));
    assert!(flows.contains("priority=3 actions=meter:1,NORMAL"), "{flows}");
    assert!(d.run("ovs-appctl dpctl/dump-flows").contains("meter("));
    // And again, with a switch that restarts upon it.
    split.restart_switch("-9");
    wait_for("traffic after all that", 10, || a.pings("10.82.0.2"));
}

#[test]
fn stateful_flows_wait_for_their_tables() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.80.0.1/24"), Host::new("10.80.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    let flows = d.dir.file("flows");
    let text = "priority=10,arp,actions=NORMAL\npriority=5,ip,actions=ct(table=1)\npriority=0,actions=drop\n\
                table=1,ct_state=+trk+new,ip,nw_src=10.80.0.1,actions=ct(commit),NORMAL\n\
                table=1,ct_state=+trk+est,ip,actions=NORMAL\n";
    std::fs::write(&flows, text).unwrap();
    // A controller that never answers: tables must not be emptied for its sake when the wait is over.
    d.run(&format!("ovs-vsctl set-fail-mode {br} secure -- set-controller {br} tcp:127.0.0.1:9"));
    let restore = || {
        d.run(&format!("ovs-ofctl del-flows {br}"));
        d.run(&format!("ovs-ofctl add-flows {br} {flows}"));
    };
    restore();
    wait_for("traffic", 10, || a.pings("10.80.0.2"));
    assert!(!b.pings("10.80.0.1"), "who may not begin began");
    let told = ping_meanwhile(&a, "10.80.0.2", || {
        d.run("ovs-vsctl --no-wait set Open_vSwitch . other_config:flow-restore-wait=true");
        split.restart_switch("-9");
        let before = d.run("ovs-appctl dpctl/dump-flows");
        assert!(before.contains("recirc("), "no flow of the switch before is there: {before}");
        // A round of revalidation would have run by now.
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(d.run("ovs-appctl dpctl/dump-flows").contains("recirc("));
        restore();
        d.run("ovs-vsctl --no-wait remove Open_vSwitch . other_config flow-restore-wait");
    });
    assert!(told.contains("250 received, 0% packet loss"), "{told}");
    let flows = d.run(&format!("ovs-ofctl dump-flows {br}"));
    assert!(flows.contains("ct_state=+est+trk"), "{flows}");
    let connections = d.run("ovs-appctl dpctl/dump-conntrack");
    assert!(connections.contains("icmp,orig=(src=10.80.0.1,dst=10.80.0.2"), "{connections}");
    assert!(!b.pings("10.80.0.1"), "who may not begin began");
    d.run("ovs-appctl dpctl/flush-conntrack");
    assert_eq!(d.run("ovs-appctl dpctl/dump-conntrack"), "");
}

/// Round trips of every answered ping, milliseconds, sorted.
fn round_trips(text: &str) -> Vec<f64> {
    let times = text.lines().filter_map(|l| l.split_once("time=")?.1.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn at_a_millisecond_not_one_probe_is_missing() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.83.0.1/24"), Host::new("10.83.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    wait_for("traffic", 10, || a.pings("10.83.0.2"));
    // What delays probes without any restart is the machine's, not ours: told for comparison. Packets that the kernel forwards
    // for the process would not notice that either was there.
    for (signal, accelerate) in [("", false), ("-9", false), ("-15", false), ("-9", true)] {
        d.run(&format!("ovs-vsctl set Open_vSwitch . other_config:accelerate={accelerate}"));
        let line = format!("ip netns exec {} ping -i 0.001 -c 2000 -W 1 10.83.0.2", a.ns);
        let pinging = std::thread::spawn(move || support::try_sh(&line));
        std::thread::sleep(std::time::Duration::from_millis(500));
        if !signal.is_empty() {
            split.restart_switch(signal);
        }
        let out = pinging.join().unwrap();
        let times = round_trips(&String::from_utf8_lossy(&out.stdout));
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        let late = times.iter().filter(|t| **t > 2.0).count();
        println!(
            "restart {signal:3}, accelerated {accelerate:5}, ms: median {}, 99 % {}, 99.9 % {}, longest {}; above 2: {late} of {}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            times.len()
        );
        assert!(
            received(&out).contains("2000 received, 0% packet loss"),
            "after {signal}: {}",
            received(&out)
        );
    }
}

#[test]
fn there_is_one_control_plane_at_a_time() {
    if !need(NET) {
        return;
    }
    let split = Split::start();
    let d = &split.0;
    let pid = std::fs::read_to_string(d.dir.file("ovs-vswitchd.pid")).unwrap();
    let second = |place: &str| {
        let (pidfile, ctl) = (d.dir.file("second.pid"), d.dir.file("second.ctl"));
        d.try_run(&format!("ovs-vswitchd --detach --no-chdir --pidfile={pidfile} --unixctl={ctl} {place}"))
    };
    let out = second("--datapath-socket");
    let said = String::from_utf8_lossy(&out.stderr);
    let expected = format!("another process (pid {}) is the control plane of this datapath", pid.trim());
    assert!(!out.status.success() && said.contains(&expected), "{said}");
    // The first one has not noticed; its end makes the place free.
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    assert!(d.run("ovs-appctl dpctl/show").contains(&br));
    split.restart_switch("-9");
    assert!(d.run("ovs-appctl dpctl/show").contains(&br));
}

#[test]
fn a_datapath_process_that_is_killed_is_started_again() {
    if !need(NET) {
        return;
    }
    let d = Daemons::without_switch();
    d.run("ironbridge datapath --detach --monitor --no-chdir --pidfile --log-file");
    d.start_switch(&["--datapath-socket"]);
    let split = Split(d);
    let d = &split.0;
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.84.0.1/24"), Host::new("10.84.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    wait_for("traffic", 10, || a.pings("10.84.0.2"));
    d.kill("ironbridge-datapath", "-9");
    wait_for("traffic through the next one", 30, || a.pings("10.84.0.2"));
    // Who takes the pidfile away before does not want another.
    let file = d.dir.file("ironbridge-datapath.pid");
    let pid = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    d.run(&format!("kill -9 {}", pid.trim()));
    let log = || std::fs::read_to_string(d.dir.file("ironbridge-datapath.log")).unwrap();
    wait_for("the monitor's end", 20, || log().contains("killed (Killed), exiting"));
}

#[test]
fn without_a_datapath_process_the_switch_says_so() {
    let d = Daemons::without_switch();
    let out = d.try_run("ovs-vswitchd --datapath-socket=/nonexistent/socket");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("ironbridge datapath"), "{said}");
}
