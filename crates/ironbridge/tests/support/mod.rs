//! What the whole-program tests share: a switch in a folder of its own, network namespaces, and
//! cleaning up whatever happens.
//!
//! Tests need root, `ip` and more; [`need`] prints why one is skipped.

#![allow(dead_code, reason = "each test uses a part")]

pub mod guest;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A short name that no other test on this machine uses now: good for devices (15 bytes at most).
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}{:x}{n:x}", std::process::id() & 0xffff)
}

/// Whether root and all of `programs` are there; else prints why the test is skipped.
pub fn need(programs: &[(&str, &str)]) -> bool {
    let uid = Command::new("id").arg("-u").output().map(|o| o.stdout).unwrap_or_default();
    if uid.trim_ascii() != b"0" {
        println!("skipped: needs root");
        return false;
    }
    for (program, package) in programs {
        if !Path::new(program).exists() {
            println!("skipped: needs {program} (apt-get install {package})");
            return false;
        }
    }
    true
}

/// The programs of network tests.
pub const NET: &[(&str, &str)] = &[("/usr/sbin/ip", "iproute2"), ("/usr/bin/ping", "iputils-ping")];

/// Runs a command line, split at blanks; panics with its output unless it succeeds.
pub fn sh(line: &str) -> String {
    let out = try_sh(line);
    assert!(
        out.status.success(),
        "$ {line}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// As [`sh`], whatever comes of it.
pub fn try_sh(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("$ {line}: {e}"))
}

/// Waits until `done`, at most `seconds`.
pub fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder that goes away with its owner.
pub struct Dir(PathBuf);

impl Dir {
    /// A new one.
    pub fn new(stem: &str) -> Dir {
        let dir = std::env::temp_dir().join(unique(&format!("ironbridge-{stem}-")));
        std::fs::create_dir_all(&dir).expect("a folder for the test");
        Dir(dir)
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// Path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two switches can't be in one network namespace: both would have a device `ovs-netdev`. Tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Database and switch daemons of ours, on real devices.
pub struct Daemons {
    /// Rundir, database, logs.
    pub dir: Dir,
    links: PathBuf,
    /// Network namespace; `None`: the tests' own.
    ns: Option<String>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Daemons {
    /// Starts both; `switch_options` go to ovs-vswitchd.
    pub fn start(switch_options: &[&str]) -> Daemons {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Daemons::start_with(None, Some(turn), switch_options)
    }

    /// Starts the database, and no switch.
    pub fn without_switch() -> Daemons {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Daemons::start_database_with(None, Some(turn))
    }

    /// Starts both in a network namespace.
    pub fn start_in(ns: &str) -> Daemons {
        Daemons::start_with(Some(ns.to_owned()), None, &[])
    }

    fn start_with(
        ns: Option<String>,
        turn: Option<MutexGuard<'static, ()>>,
        switch_options: &[&str],
    ) -> Daemons {
        let d = Daemons::start_database_with(ns, turn);
        d.start_switch(switch_options);
        d
    }

    fn start_database_with(ns: Option<String>, turn: Option<MutexGuard<'static, ()>>) -> Daemons {
        let dir = Dir::new("run");
        let links = dir.path().join("links");
        let made =
            Command::new(env!("CARGO_BIN_EXE_ironbridge")).arg("links").arg(&links).output().expect("links");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let d = Daemons { dir, links, ns, _turn: turn };
        d.run("ovsdb-tool create conf.db");
        d.start_database();
        d.run("ovs-vsctl --no-wait init");
        d
    }

    /// Starts the database daemon alone.
    pub fn start_database(&self) {
        let sock = self.dir.file("db.sock");
        self.run(&format!(
            "ovsdb-server --detach --no-chdir --pidfile --log-file --remote=punix:{sock} conf.db"
        ));
    }

    /// Starts the switch daemon alone.
    pub fn start_switch(&self, options: &[&str]) {
        self.run(&format!("ovs-vswitchd --detach --no-chdir --pidfile --log-file {}", options.join(" ")));
    }

    /// A command of a program of ours.
    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a command");
        let ours = self.links.join(name);
        let program = match name {
            "ironbridge" => env!("CARGO_BIN_EXE_ironbridge").into(),
            _ if ours.exists() => ours,
            _ => name.into(),
        };
        let mut command = match &self.ns {
            None => Command::new(program),
            Some(ns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", ns]).arg(program);
                command
            }
        };
        command.args(words);
        self.environment(&mut command);
        command
    }

    /// Points a program, ours or another's, at these daemons.
    pub fn environment(&self, command: &mut Command) {
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, self.dir.path());
        }
        command.env("OVS_CTL_TIMEOUT", "20").current_dir(self.dir.path()).stdin(Stdio::null());
    }

    /// Runs one that must succeed; its standard output.
    pub fn run(&self, line: &str) -> String {
        let out = self.try_run(line);
        assert!(
            out.status.success(),
            "$ {line}\n{}{}\nlog:\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
            self.log()
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// As [`Self::run`], whatever comes of it.
    pub fn try_run(&self, line: &str) -> Output {
        self.command(line).output().unwrap_or_else(|e| panic!("$ {line}: {e}"))
    }

    /// The switch's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ovs-vswitchd.log")).unwrap_or_default()
    }

    /// A daemon's process id.
    pub fn pid(&self, program: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.dir.path().join(format!("{program}.pid"))).ok()?;
        text.trim().parse().ok()
    }

    /// Ends a daemon with a signal and waits until it is gone.
    pub fn kill(&self, program: &str, signal: &str) {
        let Some(pid) = self.pid(program) else { return };
        let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
        let gone = || !Path::new(&format!("/proc/{pid}")).exists();
        for _ in 0..250 {
            if gone() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- switch log ---\n{}", self.log());
            for command in ["dpctl/show -s", "dpctl/dump-flows -m", "coverage/show"] {
                let out = self.try_run(&format!("ovs-appctl {command}"));
                eprintln!("--- {command} ---\n{}", String::from_utf8_lossy(&out.stdout));
            }
            let out = self.try_run("ovs-vsctl --columns=name,statistics list interface");
            eprintln!("--- statistics ---\n{}", String::from_utf8_lossy(&out.stdout));
        }
        let _ = self.try_run("ovs-appctl -t ovs-vswitchd exit --cleanup");
        self.kill("ovs-vswitchd", "-15");
        self.kill("ovsdb-server", "-15");
    }
}

/// A network namespace with one end of a veth pair in it; the other end is `port`, out here.
pub struct Host {
    /// Namespace.
    pub ns: String,
    /// Device to add to a bridge.
    pub port: String,
}

impl Host {
    /// Makes it, with an address such as `10.1.0.1/24` on its end.
    pub fn new(address: &str) -> Host {
        let ns = unique("ibt");
        let port = unique("ibp");
        let host = Host { ns, port };
        sh(&format!("ip netns add {}", host.ns));
        sh(&format!("ip link add {} type veth peer name eth0 netns {}", host.port, host.ns));
        sh(&format!("ip link set {} up", host.port));
        host.sh("ip link set lo up");
        host.sh("ip link set eth0 up");
        host.sh(&format!("ip addr add {address} dev eth0"));
        host
    }

    /// Runs a command in it.
    pub fn sh(&self, line: &str) -> String {
        sh(&format!("ip netns exec {} {line}", self.ns))
    }

    /// As [`Self::sh`], whatever comes of it.
    pub fn try_sh(&self, line: &str) -> Output {
        try_sh(&format!("ip netns exec {} {line}", self.ns))
    }

    /// Whether one of three pings arrives.
    pub fn pings(&self, to: &str) -> bool {
        self.try_sh(&format!("ping -c 3 -i 0.2 -W 1 {to}")).status.success()
    }

    /// Starts a program in it that ends with the returned guard.
    pub fn spawn(&self, line: &str) -> Running {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.ns])
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("$ {line}: {e}"));
        Running(child)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip link del {}", self.port));
        let _ = try_sh(&format!("ip netns del {}", self.ns));
    }
}

/// A program that is killed when its owner goes.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
