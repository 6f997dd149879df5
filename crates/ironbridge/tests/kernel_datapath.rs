//! The kernel's datapath: Debian's kernel boots in QEMU, loads openvswitch.ko, and Ironbridge forwards by it, between namespaces,
//! with connection tracking, NAT, timeouts and tunnels. Debian's `ovs-dpctl` reads what is there and ours says the same; a killed switch
//! takes it up again.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::guest::{PROGRAMS, kernel};
use support::{Dir, need, sh};

/// Modules in the order of their dependencies, below the kernel's module folder.
const MODULES: &[&str] = &[
    "drivers/net/veth.ko",
    "arch/x86/crypto/crc32c-intel.ko",
    "lib/libcrc32c.ko",
    "net/ipv4/netfilter/nf_defrag_ipv4.ko",
    "net/ipv6/netfilter/nf_defrag_ipv6.ko",
    "net/netfilter/nf_conntrack.ko",
    "net/netfilter/nf_nat.ko",
    "net/netfilter/nf_conncount.ko",
    "net/nsh/nsh.ko",
    "net/openvswitch/openvswitch.ko",
    "net/ipv4/udp_tunnel.ko",
    "net/ipv6/ip6_udp_tunnel.ko",
    "drivers/net/vxlan/vxlan.ko",
    "net/openvswitch/vport-vxlan.ko",
    "drivers/net/geneve.ko",
    "net/openvswitch/vport-geneve.ko",
    "net/ipv4/ip_tunnel.ko",
    "net/ipv4/gre.ko",
    "net/ipv4/ip_gre.ko",
    "net/netfilter/nfnetlink.ko",
    "net/netfilter/nf_conntrack_netlink.ko",
    "net/netfilter/nfnetlink_cttimeout.ko",
];

const APPLETS: &[&str] = &[
    "sh", "mount", "insmod", "ping", "stty", "echo", "cat", "sleep", "head", "tail", "grep", "kill", "mkdir",
    "reboot", "diff", "sed",
];

const INIT: &str = r#"#!/bin/sh
export PATH=/ovs/bin:/usr/bin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/net
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for m in /mod/*.ko; do insmod $m; done
export OVS_RUNDIR=/run OVS_LOGDIR=/tmp OVS_DBDIR=/run OVS_SYSCONFDIR=/etc
IP=/usr/bin/ip
$IP link set lo up
ironbridge links /ovs/bin
# The same of both programs, but for counters that go on between them, and for headers that the other one does not know.
UNLIKE='s/used:[0-9.]*s//;s/,key32(00 00.00 00)//;/^  lookups:/d;/^  flows:/d;/^  masks:/d;/^  cache:/d'
# Flows come and go: what differs each time is a difference.
same() {
    for round in 1 2 3 4; do
        /usr/bin/ovs-dpctl "$@" 2>&1 | sed "$UNLIKE" >/tmp/theirs
        /ovs/bin/ovs-dpctl "$@" 2>&1 | sed "$UNLIKE" >/tmp/ours
        if diff /tmp/theirs /tmp/ours >/tmp/differences; then echo "SAME $*"; return; fi
    done
    cat /tmp/differences; echo "DIFFERENT $*"
}
for x in a b; do
    $IP netns add $x; $IP link add p$x type veth peer name e$x; $IP link set e$x netns $x
    $IP link set p$x up; $IP netns exec $x $IP link set e$x up
done
$IP netns exec a $IP addr add 10.0.0.1/24 dev ea; $IP netns exec b $IP addr add 10.0.0.2/24 dev eb
pings() { # WHAT NAMESPACE ADDRESS
    if $IP netns exec $2 ping -c 3 -W 2 $3 >/dev/null; then echo "PING $1 yes"; else echo "PING $1 no"; fi
}
ovsdb-tool create /run/conf.db
ovsdb-server --detach --no-chdir --pidfile --remote=punix:/run/db.sock /run/conf.db
ovs-vsctl --no-wait init
ovs-vswitchd --detach --no-chdir --pidfile --log-file
ovs-vsctl --timeout=60 add-br br0 -- add-port br0 pa -- add-port br0 pb || tail /tmp/ovs-vswitchd.log
$IP link set br0 up; $IP addr add 10.0.0.3/24 dev br0
pings normal a 10.0.0.2
pings internal a 10.0.0.3
echo "OURS $(ovs-appctl dpctl/dump-flows | grep -c 0x0800)"
echo "THEIRS $(/usr/bin/ovs-dpctl dump-flows | grep -c 0x0800)"
echo "SHOW $(/usr/bin/ovs-dpctl show | grep 'port 1')"
cat > /tmp/flows <<X
priority=10,arp,actions=NORMAL
priority=5,ip,actions=ct(table=1,zone=7,nat)
priority=0,actions=drop
table=1,in_port=pa,ct_state=+trk+new,ip,nw_dst=10.0.0.2,actions=ct(commit,zone=7,nat(src=10.0.0.77)),output:pb
table=1,ct_state=+trk+est,in_port=pa,ip,actions=output:pb
table=1,ct_state=+trk+est,in_port=pb,ip,actions=output:pa
X
$IP netns exec b $IP neigh add 10.0.0.77 lladdr $($IP netns exec a cat /sys/class/net/ea/address) dev eb
ovs-ofctl del-flows br0; ovs-ofctl --names add-flows br0 /tmp/flows
pings nat a 10.0.0.2
pings denied b 10.0.0.1
/usr/bin/ovs-dpctl dump-conntrack zone=7
same dump-conntrack zone=7
same -m dump-conntrack
same show
same dump-flows -m
/ovs/bin/ovs-dpctl ct-set-limits default=10 zone=7,limit=5
same ct-get-limits zone=7,8
/ovs/bin/ovs-dpctl flush-conntrack zone=7
same dump-conntrack
ovs-vsctl --timeout=20 --id=@dp create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:system=@dp
ovs-vsctl --timeout=20 add-zone-tp system zone=7 icmp_first=9
/ovs/bin/ovs-dpctl flush-conntrack zone=7
pings timeout a 10.0.0.2
/ovs/bin/ovs-dpctl -s dump-conntrack | sed 's/.*timeout=/TIMEOUT /;s/,.*//'
ovs-vsctl --timeout=20 del-zone-tp system zone=7
ovs-appctl dpif/show-dp-features br0
ovs-ofctl del-flows br0; ovs-ofctl add-flow br0 actions=NORMAL
$IP netns exec b $IP link add vx type vxlan id 5 remote 10.1.0.1 dstport 4789 dev eb
$IP netns exec b $IP addr add 10.1.0.2/24 dev eb; $IP netns exec b $IP addr add 10.2.0.2/24 dev vx
$IP netns exec b $IP link set vx up
$IP netns exec b $IP link add gv type geneve id 6 remote 10.1.0.1
$IP netns exec b $IP link add gr type gretap remote 10.1.0.1 local 10.1.0.3
$IP netns exec b $IP addr add 10.1.0.3/24 dev eb
$IP netns exec b $IP addr add 10.3.0.2/24 dev gv; $IP netns exec b $IP addr add 10.4.0.2/24 dev gr
$IP netns exec b $IP link set gv up; $IP netns exec b $IP link set gr up
$IP addr add 10.1.0.1/24 dev br0
ovs-vsctl --timeout=60 add-br br1 -- add-port br1 v1 -- \
    set interface v1 type=vxlan options:remote_ip=10.1.0.2 options:key=5 -- \
    add-br br2 -- add-port br2 g1 -- set interface g1 type=geneve options:remote_ip=10.1.0.2 options:key=6 -- \
    add-br br3 -- add-port br3 r1 -- set interface r1 type=gre options:remote_ip=10.1.0.3
for n in 1 2 3; do $IP link set br$n up; $IP addr add 10.$((n + 1)).0.1/24 dev br$n; done
pings vxlan b 10.2.0.1
pings geneve b 10.3.0.1
pings gre b 10.4.0.1
pings before a 10.0.0.2
kill -9 $(cat /run/ovs-vswitchd.pid)
pings orphaned a 10.0.0.2
ovs-vswitchd --detach --no-chdir --pidfile --log-file
pings again a 10.0.0.2
pings vxlan-again b 10.2.0.1
ovs-vsctl --timeout=20 del-port v1
echo "LEFT $($IP link show | grep -c vxlan_sys)"
echo "WARNINGS $(grep -c '|ERR|\||EMER|' /tmp/ovs-vswitchd.log)"
grep '|WARN|\||ERR|' /tmp/ovs-vswitchd.log
echo SCENARIO-DONE
reboot -f
"#;

/// Copies a program and the libraries that it wants.
fn copy_program(root: &Path, from: &str, to: &str) {
    std::fs::copy(from, root.join(to)).unwrap();
    let listed = Command::new("ldd").arg(from).output().expect("ldd");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
}

/// The guest's initial file system.
fn image(dir: &Path, modules: &Path) -> PathBuf {
    let root = dir.join("root");
    for sub in ["bin", "usr/bin", "proc", "sys", "dev", "mod", "run", "var/run", "tmp", "etc", "ovs"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    copy_program(&root, env!("CARGO_BIN_EXE_ironbridge"), "bin/ironbridge");
    // What debuggers want is most of it; without this tool the guest has more to load, that is all.
    let _ = Command::new("objcopy").arg("--strip-all").arg(root.join("bin/ironbridge")).output();
    copy_program(&root, "/usr/sbin/ip", "usr/bin/ip");
    copy_program(&root, "/usr/bin/ovs-dpctl", "usr/bin/ovs-dpctl");
    for (n, module) in MODULES.iter().enumerate() {
        let name = Path::new(module).file_name().unwrap().to_string_lossy().into_owned();
        std::fs::copy(modules.join(module), root.join(format!("mod/{n:02}-{name}"))).unwrap();
    }
    let init = root.join("init");
    std::fs::write(&init, INIT).unwrap();
    sh(&format!("chmod 755 {}", init.display()));
    let image = dir.join("initrd");
    let script = format!("cd {} && find . | cpio -o -H newc --quiet > {}", root.display(), image.display());
    let made = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    image
}

#[test]
fn the_kernels_datapath_forwards_tracks_translates_tunnels_and_outlives_the_switch() {
    if !need(PROGRAMS) || !need(&[("/usr/bin/ovs-dpctl", "openvswitch-switch")]) {
        return;
    }
    let Some((kernel, modules)) = kernel() else {
        println!("skipped: needs a cloud kernel (apt-get install linux-image-cloud-amd64)");
        return;
    };
    let dir = Dir::new("kdp");
    let image = image(dir.path(), &modules);
    // An emulated machine on a busy one takes its time; one that hangs is ended.
    let ran = Command::new("timeout")
        .args(["400", "qemu-system-x86_64", "-M", "microvm,acpi=off,pit=on,pic=on,rtc=on", "-cpu", "max"])
        .args(["-m", "768", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(&image)
        .args(["-append", "console=ttyS0 quiet reboot=t panic=-1"])
        .stdin(Stdio::null())
        .output()
        .expect("qemu starts");
    let said = String::from_utf8_lossy(&ran.stdout).replace('\r', "");
    let has = |line: &str| assert!(said.lines().any(|l| l == line), "no \"{line}\" in:\n{said}");
    has("SCENARIO-DONE");
    for line in
        ["normal", "internal", "nat", "timeout", "vxlan", "geneve", "gre", "orphaned", "again", "vxlan-again"]
    {
        has(&format!("PING {line} yes"));
    }
    has("PING denied no");
    has("SHOW   port 1: br0 (internal)");
    has("WARNINGS 0");
    for same in [
        "dump-conntrack zone=7",
        "-m dump-conntrack",
        "show",
        "dump-flows -m",
        "ct-get-limits zone=7,8",
        "dump-conntrack",
    ] {
        has(&format!("SAME {same}"));
    }
    // Nine seconds at first, and some of them have passed.
    assert!((5..=9).any(|left| said.lines().any(|l| l == format!("TIMEOUT {left}"))), "{said}");
    has("Psample action: No");
    has("Max dp_hash algorithm: 0");
    has("LEFT 0");
    let count = |word: &str| -> u32 {
        let line = said.lines().find_map(|l| l.strip_prefix(word));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no {word} in:\n{said}"))
    };
    assert!(count("OURS") >= 2 && count("THEIRS") >= 2, "{said}");
    assert!(said.contains("icmp,orig=(src=10.0.0.1,dst=10.0.0.2,"), "{said}");
    assert!(said.contains("reply=(src=10.0.0.2,dst=10.0.0.77,"), "{said}");
}
