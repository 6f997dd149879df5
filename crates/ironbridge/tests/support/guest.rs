//! Guests for tests: Debian's QEMU without hardware acceleration, Debian's cloud kernel, and an initial file system of busybox and the
//! drivers, made here. They are driven over their serial consoles.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::sh;

/// The programs of these tests.
pub const PROGRAMS: &[(&str, &str)] = &[
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
pub fn kernel() -> Option<(PathBuf, PathBuf)> {
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
pub fn initrd(dir: &Path, modules: &Path) -> PathBuf {
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
pub struct Guest {
    qemu: Child,
    console: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    /// Boots one whose network card is TAP `tap`.
    pub fn boot(kernel: &Path, initrd: &Path, tap: &str, mac: &str) -> Guest {
        let netdev = format!("tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off");
        Guest::boot_with(kernel, initrd, mac, &["-netdev", &netdev])
    }

    /// Boots one whose network card's other side `backend` describes, as `n0`.
    pub fn boot_with(kernel: &Path, initrd: &Path, mac: &str, backend: &[&str]) -> Guest {
        Guest::boot_by(Command::new("qemu-system-x86_64"), kernel, initrd, mac, backend)
    }

    /// As [`Self::boot_with`], in a network namespace.
    pub fn boot_in(ns: &str, kernel: &Path, initrd: &Path, mac: &str, backend: &[&str]) -> Guest {
        let mut qemu = Command::new("ip");
        qemu.args(["netns", "exec", ns, "qemu-system-x86_64"]);
        Guest::boot_by(qemu, kernel, initrd, mac, backend)
    }

    fn boot_by(mut qemu: Command, kernel: &Path, initrd: &Path, mac: &str, backend: &[&str]) -> Guest {
        let mut qemu = qemu
            .args(["-M", "q35", "-cpu", "max", "-m", "128", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-kernel"])
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", "console=ttyS0 quiet reboot=t panic=-1"])
            .args(backend)
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

    pub fn ready(&mut self) {
        self.expect("boot", 90, |l| l.ends_with("GUEST-READY"));
    }

    /// Runs a command; its output and whether it succeeded.
    pub fn run(&mut self, command: &str) -> (String, bool) {
        writeln!(self.console, "{command}").expect("the guest listens");
        let (out, end) = self.expect(command, 60, |l| l.starts_with("END "));
        (out, end == "END 0")
    }

    pub fn pings(&mut self, address: &str) -> bool {
        self.run(&format!("ping -c 2 -W 2 {address}")).1
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A TCP transfer of 2 MiB from `a` to `b`.
pub fn tcp_works(a: &mut Guest, b: &mut Guest, address: &str) {
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
