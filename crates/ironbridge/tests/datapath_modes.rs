//! Commands say the same whether the datapath is inside `ovs-vswitchd` or in a process of its own.

mod support;

use support::{Daemons, Host, NET, need, unique, wait_for};

/// Command lines of `ovs-appctl`; `A`, `B` stand for the ports, `BR` for the bridge.
const COMMANDS: &str = "\
list-commands
dpctl/list-commands
dpctl/dump-dps
dpctl/show
dpctl/show -s
dpctl/show nosuch
dpctl/dump-flows
dpctl/dump-flows --names
dpctl/dump-flows -m
dpctl/dump-flows netdev@ovs-netdev filter=ct_state
dpctl/dump-flows type=offloaded
dpctl/dump-flows type=bogus
dpctl/dump-flows pmd=0
dpctl/get-flow ufid:00000000-0000-0000-0000-000000000001
dpctl/add-flow in_port(1),eth(),eth_type(0x800),ipv4(),icmp(),tcp() 2
dpctl/add-flow in_port(1),eth(src=02:00:00:00:00:55,dst=02:00:00:00:00:56),eth_type(0x1234) 2
dpctl/add-flow in_port(1),eth(src=02:00:00:00:00:55,dst=02:00:00:00:00:56),eth_type(0x1234) 2
dpctl/mod-flow in_port(1),eth(src=02:00:00:00:00:55,dst=02:00:00:00:00:56),eth_type(0x1234) 3
dpctl/del-flow in_port(1),eth(src=02:00:00:00:00:55,dst=02:00:00:00:00:56),eth_type(0x1234)
dpctl/del-flow in_port(1),eth(src=02:00:00:00:00:55,dst=02:00:00:00:00:56),eth_type(0x1234)
dpctl/add-if netdev@ovs-netdev nosuchdev
dpctl/del-if netdev@ovs-netdev nosuchdev
dpctl/set-if netdev@ovs-netdev A,type=dummy
dpctl/set-if netdev@ovs-netdev A,port_no=77
dpctl/add-dp netdev@other
dpctl/show netdev@other
dpctl/del-dp netdev@other
dpctl/dump-conntrack
dpctl/dump-conntrack -m
dpctl/dump-conntrack -s zone=3
dpctl/dump-conntrack zone=4
dpctl/dump-conntrack-exp
dpctl/ct-stats-show
dpctl/ct-stats-show -m verbose
dpctl/ct-stats-show zone=3
dpctl/ct-bkts
dpctl/ct-set-maxconns 1000
dpctl/ct-get-maxconns
dpctl/ct-set-maxconns x
dpctl/ct-get-nconns
dpctl/ct-disable-tcp-seq-chk
dpctl/ct-get-tcp-seq-chk
dpctl/ct-enable-tcp-seq-chk
dpctl/ct-set-limits default=10 zone=3,limit=5
dpctl/ct-get-limits
dpctl/ct-get-limits zone=3,4
dpctl/ct-del-limits zone=3
dpctl/ct-get-limits
dpctl/ct-get-sweep-interval
dpctl/ct-set-sweep-interval 500
dpctl/ct-get-sweep-interval
dpctl/ipf-get-status -m
dpctl/ipf-set-disabled v4
dpctl/ipf-set-min-frag v4 500
dpctl/ipf-set-max-nfrags 100
dpctl/ipf-get-status
dpctl/cache-get-size
dpctl/cache-set-size netdev@ovs-netdev masks-cache 4096
dpctl/offload-stats-show
dpctl/parse-actions 1,2
dpctl/normalize-actions in_port(1),eth() 2
dpctl/flush-conntrack zone=4
dpctl/flush-conntrack zone=3 ct_nw_src=10.85.0.77
dpctl/flush-conntrack x
dpctl/flush-conntrack
dpctl/dump-conntrack
dpctl/version
dpctl/bogus
dpif/show
dpif/show-dp-features BR
dpif/show-dp-features nosuch
dpif/dump-dps
dpif/dump-flows BR
dpif/dump-flows -m BR
dpif/dump-flows nosuch
dpif/offload/show
dpif/set-dp-features BR bogus true
dpif-netdev/bond-show
dpif-netdev/pmd-stats-clear
dpif-netdev/pmd-stats-show
dpif-netdev/pmd-rxq-show
dpif-netdev/pmd-rxq-rebalance
dpif-netdev/pmd-rxq-rebalance nosuch
dpif-netdev/pmd-sleep-show
dpif-netdev/subtable-lookup-prio-get
dpif-netdev/subtable-lookup-info-get
dpif-netdev/subtable-lookup-prio-set generic 3
dpif-netdev/subtable-lookup-prio-set bogus 3
dpif-netdev/dpif-impl-get
dpif-netdev/dpif-impl-set dpif_scalar
dpif-netdev/dpif-impl-set bogus
dpif-netdev/miniflow-parser-get
dpif-netdev/miniflow-parser-set scalar
dpif-netdev/miniflow-parser-set
dpif-netdev/pmd-perf-log-set
odp-execute/action-impl-show
odp-execute/action-impl-set scalar
upcall/disable-megaflows
upcall/enable-megaflows
upcall/disable-ufid
upcall/enable-ufid
upcall/set-flow-limit 1000
revalidator/wait
revalidator/pause
revalidator/resume
revalidator/purge
fdb/stats-show BR
fdb/add BR A 0 02:00:00:00:00:99
fdb/del BR 0 02:00:00:00:00:99
fdb/flush BR
mdb/show BR
mdb/flush BR
bond/list
bond/show
bond/show nosuch
bond/hash 02:00:00:00:00:01
lacp/show
lacp/show-stats
cfm/show
bfd/show
tnl/ports/show
tnl/arp/set BR 10.1.1.1 02:00:00:00:00:77
tnl/neigh/show
tnl/neigh/flush
tnl/egress_port_range 100 200
tnl/egress_port_range
ovs/route/lookup 127.0.0.1
qos/show A
qos/show-types A
qos/show nosuch
ofproto/list
ofproto/list-tunnels
ofproto/trace BR in_port=A,icmp,nw_src=10.85.0.1,nw_dst=10.85.0.2
ofproto/tnl-push-pop off
ofproto/tnl-push-pop on
netdev-dummy/conn-state
bridge/reconnect
version
";

/// An answer without what differs from one moment to the next, and from one run to the next.
fn plain(command: &str, answer: &str) -> String {
    let counted = ["dpctl/show", "dpif/show", "subtable-lookup", "stats", "dump-flows", "dump-conntrack"];
    let counted = counted.iter().any(|c| command.contains(c));
    let counts = ["hit", "RX ", "TX ", "packets:", "lookups:", "masks:", "flows:", "Use count:", "orig="];
    // What hosts say by themselves, neighbour discovery for one, comes when it likes.
    let ours = |line: &&str| !line.contains("0x86dd") && !line.contains("arp");
    let mut out = String::new();
    for line in answer.lines().filter(ours) {
        if counted && counts.iter().any(|c| line.contains(c)) {
            let unlike = |c: char| c.is_ascii_digit() || "().".contains(c);
            let words = line.split([' ', ',']).map(|word| match word {
                "KiB" | "KiB)" => "",
                _ if word.starts_with("used:") || word.starts_with("ufid:") => "",
                _ => word,
            });
            out += &words.collect::<Vec<_>>().join(" ").replace(unlike, "");
        } else {
            out += line;
        }
        out.push('\n');
    }
    out
}

/// Runs all commands on a switch with a bridge, two hosts that have pinged, and a tunnel.
fn answers(d: &Daemons, br: &str) -> Vec<(String, String)> {
    let (a, b) = (&Host::new("10.85.0.1/24"), &Host::new("10.85.0.2/24"));
    for (h, mac) in [(a, "02:00:00:00:00:0a"), (b, "02:00:00:00:00:0b")] {
        h.try_sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        h.sh(&format!("ip link set eth0 address {mac}"));
    }
    d.run("ovs-vsctl set Open_vSwitch . other_config:accelerate=false");
    d.run(&format!(
        "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev mcast_snooping_enable=true \
         other_config:hwaddr=02:00:00:00:01:00"
    ));
    for h in [a, b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    d.run(&format!("ovs-vsctl add-port {br} {br}i -- set interface {br}i type=internal"));
    d.run(&format!(
        "ovs-vsctl add-port {br} {br}t -- set interface {br}t type=vxlan options:remote_ip=127.0.0.1"
    ));
    for flow in [
        "priority=10,arp,actions=NORMAL",
        "priority=5,icmp,actions=ct(table=1,zone=3)",
        "priority=0,actions=drop",
        "table=1,ct_state=+trk+new,ip,actions=ct(commit,zone=3,exec(load:7->NXM_NX_CT_MARK[])),NORMAL",
        "table=1,ct_state=+trk+est,ip,actions=NORMAL",
    ] {
        if flow == "priority=10,arp,actions=NORMAL" {
            d.run(&format!("ovs-ofctl del-flows {br}"));
        }
        d.run(&format!("ovs-ofctl add-flow {br} {flow}"));
    }
    wait_for("traffic", 10, || a.pings("10.85.0.2"));
    let name = |word: &str| match word {
        "BR" => br.to_owned(),
        _ => word.replace("in_port=A", &format!("in_port={}", a.port)),
    };
    let ask = |line: &str| {
        let words: Vec<String> = line
            .split(' ')
            .map(|w| match w.split_once(',') {
                Some(("A", rest)) => format!("{},{rest}", a.port),
                None if w == "A" => a.port.clone(),
                _ => name(w),
            })
            .collect();
        let out = d.try_run(&format!("ovs-appctl {}", words.join(" ")));
        let said = String::from_utf8_lossy(&out.stdout);
        let errors = String::from_utf8_lossy(&out.stderr).replace(&d.dir.path().display().to_string(), "DIR");
        let pid = d.pid("ovs-vswitchd").unwrap_or_default();
        let errors = errors.replace(&format!("vswitchd.{pid}."), "vswitchd.");
        let all = format!("{said}{errors}exit code {:?}\n", out.status.code());
        (line.to_owned(), plain(line, &all.replace(&a.port, "A").replace(&b.port, "B")))
    };
    COMMANDS.lines().map(ask).collect()
}

#[test]
fn commands_answer_alike_in_both_modes() {
    if !need(NET) {
        return;
    }
    let br = unique("ibm");
    let embedded = answers(&Daemons::start(&[]), &br);
    let d = Daemons::without_switch();
    d.run("ironbridge datapath --detach --no-chdir --pidfile --log-file");
    d.start_switch(&["--datapath-socket"]);
    let attached = answers(&d, &br);
    d.try_run("ovs-appctl -t ovs-vswitchd exit --cleanup");
    d.kill("ironbridge-datapath", "-15");
    let mut differ = String::new();
    for ((command, here), (_, there)) in embedded.iter().zip(&attached) {
        if here != there {
            differ += &format!("$ {command}\ninside:\n{here}in a process of its own:\n{there}");
        }
    }
    assert!(differ.is_empty(), "{differ}");
}
