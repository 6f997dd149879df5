//! Two real virtual machines on TAPs of the bridge: Debian's QEMU without hardware acceleration, Debian's cloud kernel,
//! and an initial file system of busybox and the drivers, made here. The guests are driven over their serial consoles.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use support::{Daemons, Dir, need, sh, try_sh, unique};

const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/cpio", "cpio"),
];

/// Drivers in the order of their dependencies, below the kernel's module folder.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/802/mrp.ko",
    "net/802/garp.ko",
    "net/8021q/8021q.ko",
];

const INIT: &str = "#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in /mod/*.ko; do insmod $m; done
ip link set lo up
ip link set eth0 up
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
echo GUEST-READY
while read line; do eval \"$line\"; echo \"END $?\"; done
";

/// The newest cloud kernel of the machine: its image and its modules.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let mut images: Vec<PathBuf> = std::fs::read_dir("/boot").ok()?.flatten().map(|e| e.path()).collect();
    images.sort();
    let image = images.into_iter().rev().find(|p| {
        p.file_name().is_some_and(|n| {
            let n = n.to_string_lossy();
            n.starts_with("vmlinuz-") && n.contains("cloud")
        })
    })?;
    let version = image.file_name()?.to_string_lossy().strip_prefix("vmlinuz-")?.to_owned();
    let modules = PathBuf::from(format!("/lib/modules/{version}/kernel"));
    modules.exists().then_some((image, modules))
}

/// Makes the guests' initial file system.
fn initrd(dir: &Path, modules: &Path) -> PathBuf {
    let root = dir.join("root");
    for sub in ["bin", "proc", "sys", "dev", "mod"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in
        ["sh", "mount", "insmod", "ip", "ping", "nc", "stty", "echo", "cat", "dd", "wc", "sleep", "head"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
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

/// A running guest.
struct Guest {
    qemu: Child,
    console: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    /// Boots one whose network card is TAP `tap`.
    fn boot(kernel: &Path, initrd: &Path, tap: &str, mac: &str) -> Guest {
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-cpu", "max", "-m", "128", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-kernel"])
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", "console=ttyS0 quiet reboot=t panic=-1"])
            .args(["-netdev", &format!("tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off")])
            .args(["-device", &format!("virtio-net-pci,netdev=n0,mac={mac},vectors=0,romfile=")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("qemu starts");
        let console = qemu.stdin.take().unwrap();
        let out = BufReader::new(qemu.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Guest { qemu, console, lines }
    }

    /// Waits for a line that `is_it`; what came before it.
    fn expect(&mut self, what: &str, seconds: u64, is_it: impl Fn(&str) -> bool) -> (String, String) {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut seen = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if is_it(&line) => return (seen, line),
                Ok(line) => {
                    seen.push_str(&line);
                    seen.push('\n');
                }
                Err(e) => panic!("guest: no {what} ({e}); it said:\n{seen}"),
            }
        }
    }

    fn ready(&mut self) {
        self.expect("boot", 90, |l| l.ends_with("GUEST-READY"));
    }

    /// Runs a command; its output and whether it succeeded.
    fn run(&mut self, command: &str) -> (String, bool) {
        writeln!(self.console, "{command}").expect("the guest listens");
        let (out, end) = self.expect(command, 60, |l| l.starts_with("END "));
        (out, end == "END 0")
    }

    fn pings(&mut self, address: &str) -> bool {
        self.run(&format!("ping -c 2 -W 2 {address}")).1
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

struct Tap(String);

impl Tap {
    fn new() -> Tap {
        let name = unique("ibv");
        sh(&format!("ip tuntap add dev {name} mode tap vnet_hdr"));
        sh(&format!("ip link set {name} up"));
        Tap(name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip link del {}", self.0));
    }
}

/// A TCP transfer of 2 MiB from `a` to `b`.
fn tcp_works(a: &mut Guest, b: &mut Guest, address: &str) {
    const BYTES: usize = 2 << 20;
    // Its input stays open: netcat ends the connection when either side has nothing more to say.
    b.run("(sleep 60 | nc -l -p 5000 > /got) & echo");
    b.run("sleep 1");
    let (_, sent) =
        a.run(&format!("dd if=/dev/zero bs=65536 count=32 2>/dev/null | nc -w 20 {address} 5000"));
    assert!(sent, "the sender failed");
    // An emulated machine takes its time.
    let mut got = String::new();
    for _ in 0..30 {
        got = b.run("wc -c < /got").0.trim().to_owned();
        if got.parse() == Ok(BYTES) {
            return;
        }
        b.run("sleep 1");
    }
    panic!("{got} of {BYTES} bytes arrived");
}

#[test]
fn machines_talk_through_the_bridge_vlans_and_two_bridges() {
    if !need(PROGRAMS) {
        return;
    }
    let Some((kernel, modules)) = kernel() else {
        println!("skipped: needs a cloud kernel (apt-get install linux-image-cloud-amd64)");
        return;
    };
    let dir = Dir::new("vm");
    let image = initrd(dir.path(), &modules);
    let d = Daemons::start(&[]);
    let (br1, br2) = (unique("ibr"), unique("ibr"));
    for br in [&br1, &br2] {
        d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    }
    let (tap_a, tap_b) = (Tap::new(), Tap::new());
    // One port before its machine starts, one after.
    d.run(&format!("ovs-vsctl add-port {br1} {}", tap_a.0));
    let mut a = Guest::boot(&kernel, &image, &tap_a.0, "52:54:00:00:00:0a");
    let mut b = Guest::boot(&kernel, &image, &tap_b.0, "52:54:00:00:00:0b");
    a.ready();
    b.ready();
    d.run(&format!("ovs-vsctl add-port {br1} {}", tap_b.0));
    assert!(a.run("ip addr add 10.81.0.1/24 dev eth0").1);
    assert!(b.run("ip addr add 10.81.0.2/24 dev eth0").1);
    assert!(a.pings("10.81.0.2"), "one bridge");
    tcp_works(&mut a, &mut b, "10.81.0.2");

    // Access VLANs keep apart; tagged by the guest itself on a trunk they meet again.
    d.run(&format!("ovs-vsctl set port {} tag=10 -- set port {} tag=20", tap_a.0, tap_b.0));
    assert!(!a.pings("10.81.0.2"), "different VLANs");
    d.run(&format!("ovs-vsctl clear port {} tag", tap_b.0));
    assert!(b.run("ip link add link eth0 name v10 type vlan id 10 && ip link set v10 up").1);
    assert!(b.run("ip addr flush dev eth0 && ip addr add 10.81.0.2/24 dev v10").1);
    assert!(a.pings("10.81.0.2"), "access port to trunk");
    tcp_works(&mut a, &mut b, "10.81.0.2");
    d.run(&format!("ovs-vsctl clear port {} tag", tap_a.0));
    assert!(b.run("ip link del v10 && ip addr add 10.81.0.2/24 dev eth0").1);

    // Two bridges joined by patch ports.
    d.run(&format!("ovs-vsctl del-port {} -- add-port {br2} {}", tap_b.0, tap_b.0));
    assert!(!a.pings("10.81.0.2"), "bridges that are not joined");
    d.run(&format!(
        "ovs-vsctl add-port {br1} pa -- set interface pa type=patch options:peer=pb \
         -- add-port {br2} pb -- set interface pb type=patch options:peer=pa"
    ));
    assert!(a.pings("10.81.0.2"), "patch ports");
    tcp_works(&mut a, &mut b, "10.81.0.2");

    // The same by a veth pair.
    d.run("ovs-vsctl del-port pa -- del-port pb");
    let (x, y) = (unique("ibx"), unique("iby"));
    sh(&format!("ip link add {x} type veth peer name {y}"));
    sh(&format!("ip link set {x} up"));
    sh(&format!("ip link set {y} up"));
    d.run(&format!("ovs-vsctl add-port {br1} {x} -- add-port {br2} {y}"));
    let reached = a.pings("10.81.0.2");
    if reached {
        tcp_works(&mut a, &mut b, "10.81.0.2");
    }
    let _ = try_sh(&format!("ip link del {x}"));
    assert!(reached, "veth pair");
}
