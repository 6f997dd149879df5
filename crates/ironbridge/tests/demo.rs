//! `ironbridge demo` and `ironbridge run` as processes: what they print and return, and that nothing stays behind, also
//! when a signal comes in the middle.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Dir, need, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_ironbridge");
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
/// The user `nobody`.
const NOBODY: u32 = 65534;

/// Devices of this machine by the names that the demonstration uses.
fn devices() -> Vec<String> {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let shown = |name: &str| devices.lines().any(|l| l.trim_start().starts_with(&format!("{name}:")));
    ["red1", "red2", "blue1", "vm1", "br0", "br1"]
        .into_iter()
        .filter(|name| shown(name))
        .map(str::to_owned)
        .collect()
}

/// What a demonstration left: files below `tmp`, and devices that were not there `before` it.
fn traces(tmp: &Path, before: &[String]) -> Vec<String> {
    let files = std::fs::read_dir(tmp).map(|d| d.flatten().map(|e| e.path().display().to_string()).collect());
    let mut found: Vec<String> = files.unwrap_or_default();
    found.extend(
        devices().into_iter().filter(|name| !before.contains(name)).map(|name| format!("device {name}")),
    );
    found
}

/// A binary that every user may run, and a folder for temporary files that every user may write.
fn prepare(stem: &str) -> (Dir, Command) {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new(stem);
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(dir.path(), open(0o755)).unwrap();
    let binary = dir.file("ironbridge");
    // Another process copies: a file that this one has open for writing is inherited by whatever a sister test
    // starts meanwhile, and cannot be executed until that ends ("Text file busy").
    assert!(Command::new("cp").args([BINARY, binary.as_str()]).status().unwrap().success());
    std::fs::set_permissions(&binary, open(0o755)).unwrap();
    let tmp = dir.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    std::fs::set_permissions(&tmp, open(0o777)).unwrap();
    let mut command = Command::new(binary);
    command.env("TMPDIR", &tmp).env_remove("OVS_RUNDIR").current_dir("/").stdin(Stdio::null());
    (dir, command)
}

/// Runs the whole demonstration and looks at all that it promises.
fn check_whole(stem: &str, become_nobody: bool, expect: &str) {
    let before = devices();
    let (dir, mut command) = prepare(stem);
    if become_nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    let start = Instant::now();
    let out = command.arg("demo").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let shown = format!("{text}{}", String::from_utf8_lossy(&out.stderr));
    if become_nobody && text.is_empty() && shown.contains("Any one of these helps:") {
        println!("skipped: {shown}");
        assert_eq!(out.status.code(), Some(1));
        return;
    }
    assert_eq!(out.status.code(), Some(0), "{shown}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    for line in [
        expect,
        "  $ ovs-vsctl add-br br0 -- add-br br1\n",
        "ping red1 → red2 (veth, br0, patch, br1, veth): 5 of 5 answered",
        "TCP red1 → red2: ",
        "ping blue1 → red1: 0 of 3 answered, as it is to be: another VLAN",
        "(VLAN 10 now): 5 of 5 answered",
        "UDP echo: 0 of 3 came back; ping: 3 of 3",
        "Datapath actions: ",
        "the bridges' devices went with them",
        " checks passed",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{shown}");
    }
    assert!(!text.contains('\x1b'), "no colour into a pipe");
    assert!(!text.contains('✗'), "{shown}");
    assert!(out.stderr.is_empty(), "{shown}");
    assert_eq!(traces(&dir.path().join("tmp"), &before), [] as [String; 0]);
}

#[test]
fn demo_as_root() {
    if !need(&[]) {
        return;
    }
    check_whole("demo", false, "in a network namespace of its own, as root");
}

#[test]
fn demo_without_root() {
    if !need(&[]) {
        return;
    }
    check_whole("demo-user", true, "without root");
}

/// Starts the demonstration, sends `signo` when it prints a line with `at`, and looks at what is left.
fn check_signal(stem: &str, at: &str, signo: i32) {
    let before = devices();
    let (dir, plain) = prepare(stem);
    // A shell without job control starts what runs in the background with signals ignored, and that is inherited.
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(plain.get_program()).current_dir("/").stdin(Stdio::null());
    command.env("TMPDIR", dir.path().join("tmp")).env_remove("OVS_RUNDIR");
    let mut child = command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(at) {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "{at} was never printed");
    }
    let start = Instant::now();
    let sent = Command::new("kill").args([format!("-{signo}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signo), "{rest}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(rest.contains("interrupted; nothing is left behind"), "{rest}");
    assert_eq!(traces(&dir.path().join("tmp"), &before), [] as [String; 0]);
}

#[test]
fn demo_interrupted_in_the_middle() {
    if !need(&[("/usr/bin/kill", "procps")]) {
        return;
    }
    check_signal("demo-int", "2. The switch", SIGINT);
    check_signal("demo-term", "UDP red1", SIGTERM);
}

#[test]
fn demo_without_tun() {
    if !need(&[("/usr/bin/unshare", "util-linux"), ("/usr/bin/mount", "mount")]) {
        return;
    }
    let before = devices();
    let (dir, command) = prepare("demo-tun");
    let binary = command.get_program().to_string_lossy().into_owned();
    let script = format!("mount -t tmpfs none /dev/net && exec {binary} demo --quiet");
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .env("TMPDIR", dir.path().join("tmp"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("- the virtual machine is left out"), "{text}");
    assert!(text.contains("ping red1 → red2 (veth, br0, patch, br1, veth): 5 of 5 answered"), "{text}");
    assert_eq!(traces(&dir.path().join("tmp"), &before), [] as [String; 0]);
}

#[test]
fn run_embeds_both_daemons_and_ends_on_exit_and_on_a_signal() {
    if !need(&[("/usr/bin/kill", "procps")]) {
        return;
    }
    let (dir, command) = prepare("run");
    let binary = command.get_program().to_os_string();
    let (rundir, database) = (dir.path().join("run"), dir.path().join("kept.db"));
    let tool = |line: &str| {
        let out =
            Command::new(&binary).args(line.split_whitespace()).env("OVS_RUNDIR", &rundir).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "$ {line}\n{text}{}", String::from_utf8_lossy(&out.stderr));
        text
    };
    for by_signal in [false, true] {
        let mut child = Command::new(&binary)
            .arg("run")
            .arg(format!("--rundir={}", rundir.display()))
            .arg(format!("--db={}", database.display()))
            .arg("--enable-dummy=override")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("Switch and database are ready (pid "), "{line}");
        for daemon in ["ovsdb-server", "ovs-vswitchd"] {
            let version = tool(&format!("ovs-appctl -t {daemon} version"));
            assert!(version.starts_with(&format!("{daemon} (Open vSwitch) ")), "{version}");
        }
        tool("ovs-vsctl --may-exist add-br br0");
        assert_eq!(tool("ovs-vsctl list-br"), "br0\n", "the database keeps it from run to run");
        if by_signal {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        } else {
            tool("ovs-appctl exit");
        }
        let mut code = None;
        wait_for("the end of ironbridge run", 10, || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.and_then(|c| c.code()), Some(0));
        let left: Vec<_> = std::fs::read_dir(&rundir).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(database.exists());
    }
}
