//! `ovs-ctl` as start-up scripts call it.

mod support;

use std::process::Command;

use support::{Dir, need};

const BINARY: &str = env!("CARGO_BIN_EXE_ironbridge");

/// A directory with links to all programs; whatever runs in it ends with it.
struct Host(Dir);

impl Host {
    fn new(stem: &str) -> Host {
        let dir = Dir::new(stem);
        assert!(Command::new(BINARY).arg("links").arg(dir.file("bin")).status().unwrap().success());
        Host(dir)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ctl(&self.0, "ovs-ctl stop");
    }
}

/// Runs a program in such a directory. Returns exit code and output.
fn ctl(dir: &Dir, line: &str) -> (i32, String) {
    let links = dir.path().join("bin");
    let mut words = line.split(' ');
    let out = Command::new(links.join(words.next().unwrap()))
        .args(words)
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", links.display()))
        .envs(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"].map(|v| (v, dir.path())))
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap_or(-1), text)
}

/// The text without numbers of processes.
fn without_pids(text: &str) -> String {
    text.split_inclusive(['(', ')', ' ', '\n'])
        .map(|word| if word.trim_end().trim_end_matches(')').parse::<u32>().is_ok() { "N " } else { word })
        .collect()
}

#[test]
fn a_restart_keeps_what_the_bridges_hold() {
    if !need(&[("/usr/bin/nice", "coreutils")]) {
        return;
    }
    let host = Host::new("ctl");
    let dir = &host.0;
    assert_eq!(
        ctl(dir, "ovs-ctl status"),
        (1, "ovsdb-server is not running\novs-vswitchd is not running\n".into())
    );
    let dummies = "--ovs-vswitchd-options=--enable-dummy=override";
    let start = "ovs-ctl start --system-id=random --system-type=t --system-version=1 --no-mlockall";
    let (code, text) = ctl(dir, &format!("{start} {dummies}"));
    let db = dir.file("conf.db");
    assert_eq!(
        (code, text),
        (
            0,
            format!(
                "{db} does not exist ... (warning).\nCreating empty database {db}.\nStarting ovsdb-server.\n\
                 Configuring Open vSwitch system IDs.\nStarting ironbridge-datapath.\nStarting ovs-vswitchd.\nEnabling remote OVSDB managers.\n"
            )
        )
    );
    let (code, text) = ctl(dir, &format!("{start} {dummies}"));
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("ovsdb-server is already running.\novs-vswitchd is already running.\n"),
        "{text}"
    );

    let id = std::fs::read_to_string(dir.file("openvswitch/system-id.conf")).unwrap();
    let (_, known) = ctl(dir, "ovs-vsctl get Open_vSwitch . external_ids:system-id");
    assert_eq!(known.trim().trim_matches('"'), id.trim());

    ctl(
        dir,
        "ovs-vsctl add-br br0 -- add-port br0 p1 -- add-port br0 p2 -- set Port p2 other_config:transient=true",
    );
    ctl(dir, "ovs-ofctl add-tlv-map br0 {class=0x1,type=2,len=4}->tun_metadata0");
    ctl(dir, "ovs-ofctl -OOpenFlow13 add-group br0 group_id=1,type=all,bucket=actions=output:1");
    ctl(dir, "ovs-ofctl add-flow br0 table=3,cookie=0x5,tun_metadata0=7,in_port=1,actions=group:1");
    let flows = |dir: &Dir| ctl(dir, "ovs-ofctl --no-stats -OOpenFlow13 dump-flows br0");
    let before = flows(dir);
    assert!(before.1.contains("tun_metadata0=0x7") && before.1.contains("group:1"), "{before:?}");
    let (code, text) = ctl(dir, &format!("ovs-ctl restart {} {dummies}", &start["ovs-ctl start ".len()..]));
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        without_pids(&text),
        "Saving flows.\nExiting ovsdb-server (N .\nStarting ovsdb-server.\nConfiguring Open vSwitch system IDs.\n\
         Exiting ovs-vswitchd (N .\nironbridge-datapath is already running.\nStarting ovs-vswitchd.\nRestoring saved flows.\nEnabling remote OVSDB managers.\n"
    );
    assert_eq!(flows(dir), before);
    assert_eq!(ctl(dir, "ovs-vsctl get Open_vSwitch . other_config").1, "{}\n");

    assert_eq!(ctl(dir, "ovs-ctl delete-transient-ports"), (0, String::new()));
    assert_eq!(ctl(dir, "ovs-vsctl list-ports br0").1, "p1\n");
    let (code, text) = ctl(dir, "ovs-ctl stop");
    assert_eq!(
        (code, without_pids(&text).as_str()),
        (0, "Exiting ovs-vswitchd (N .\nExiting ironbridge-datapath (N .\nExiting ovsdb-server (N .\n")
    );
    let nothing = "ovs-vswitchd is not running.\novsdb-server is not running.\n";
    assert_eq!(ctl(dir, "ovs-ctl stop"), (0, nothing.into()));
}

#[test]
fn an_old_database_is_converted_and_kept_aside() {
    let host = Host::new("ctl-old");
    let dir = &host.0;
    let schema = r#"{"name":"Open_vSwitch","version":"1.0.0","tables":{"Open_vSwitch":{"columns":{"cur_cfg":{"type":"integer"}},"isRoot":true,"maxRows":1}}}"#;
    std::fs::write(dir.file("old.ovsschema"), schema).unwrap();
    let (db, old) = (dir.file("conf.db"), dir.file("old.ovsschema"));
    assert_eq!(ctl(dir, &format!("ovsdb-tool create {db} {old}")).0, 0);
    let (code, text) =
        ctl(dir, "ovs-ctl start --system-id=a --system-type=t --system-version=1 --no-ovs-vswitchd");
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("Compacting database.\nConverting database schema.\nStarting ovsdb-server.\n"),
        "{text}"
    );
    let backup = |name: &str| name.starts_with("conf.db.backup1.0.0-");
    let names = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert_eq!(names.filter(|e| backup(&e.file_name().to_string_lossy())).count(), 1);
    assert_eq!(ctl(dir, "ovs-vsctl --no-wait get Open_vSwitch . system_type").1, "t\n");
    assert_eq!(ctl(dir, "ovs-ctl stop").0, 0);
}

#[test]
fn daemons_run_within_the_limits_that_are_asked_for() {
    let host = Host::new("ctllimit");
    let dir = &host.0;
    let start = |options: &str| {
        ctl(dir, &format!("ovs-ctl start --system-id=a --no-ovs-vswitchd --no-record-hostname {options}"))
    };
    for (bad, message) in [
        ("--ulimit-core=x", "--ulimit-core=x: neither a number nor \"unlimited\" ... failed!\n"),
        ("--oom-score=1001", "--oom-score=1001: not within -1000 and 1000 ... failed!\n"),
        ("--ovsdb-server-umask=8", "--ovsdb-server-umask=8: not an octal mode of at most 777 ... failed!\n"),
    ] {
        let (code, text) = start(bad);
        assert!(code == 1 && text.ends_with(message), "{code} {text}");
    }
    let (code, text) =
        start("--ulimit-core=4 --dump-hugepages --oom-score=300 --ovsdb-server-umask=0002 --no-monitor");
    assert_eq!(code, 0, "{text}");
    let pid = std::fs::read_to_string(dir.file("ovsdb-server.pid")).unwrap();
    let of_process = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", pid.trim())).unwrap();
    assert_eq!(of_process("oom_score_adj").trim(), "300");
    let core = of_process("limits");
    let core = core.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert!(core.contains(" 2048 "), "{core}");
    let filter = u32::from_str_radix(of_process("coredump_filter").trim(), 16).unwrap();
    assert_eq!(filter & 0x60, 0x60);
    assert!(of_process("status").contains("Umask:\t0002\n"));
    assert_eq!(ctl(dir, "ovs-ctl stop").0, 0);
}

#[test]
fn the_datapath_runs_on_its_own_unless_told_otherwise() {
    if !need(&[("/usr/bin/nice", "coreutils")]) {
        return;
    }
    let host = Host::new("ctldp");
    let dir = &host.0;
    let pid = || std::fs::read_to_string(dir.file("ironbridge-datapath.pid")).unwrap_or_default();
    let own = |command: &str, more: &str| {
        let (code, text) = ctl(
            dir,
            &format!("ovs-ctl --system-id=random --no-mlockall --no-record-hostname {more} {command}"),
        );
        assert_eq!(code, 0, "{command}: {text}");
        without_pids(&text)
    };
    assert!(own("start", "").contains("Starting ironbridge-datapath.\n"));
    let first = pid();
    assert!(own("restart", "").contains("ironbridge-datapath is already running.\n"));
    assert_eq!(pid(), first);
    assert!(own("status", "").contains("ironbridge-datapath is running with pid"));
    // One that is killed comes again, and without a monitor is missed, and started.
    let kill = |pid: &str| assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    kill(&first);
    support::wait_for("another datapath process", 20, || {
        let now = pid();
        now != first && ctl(dir, "ovs-appctl -t ironbridge-datapath version").0 == 0
    });
    assert!(own("force-reload-kmod", "--no-monitor").contains("Exiting ironbridge-datapath (N .\nStarting"));
    kill(&pid());
    support::wait_for("its end", 10, || ctl(dir, "ovs-ctl status").0 == 1);
    assert!(ctl(dir, "ovs-ctl status").1.contains("ironbridge-datapath is not running\n"));
    let text = own("start", "--no-monitor");
    assert!(text.contains("ovs-vswitchd is already running.\nStarting ironbridge-datapath.\n"), "{text}");
    // Told to leave it alone, a stop does; a start without it ends it.
    assert!(!own("stop", "--no-datapath-process").contains("datapath"));
    assert!(!pid().is_empty());
    let text = own("start", "--no-datapath-process");
    assert!(text.contains("Exiting ironbridge-datapath (N .\nStarting ovs-vswitchd.\n"), "{text}");
    assert!(pid().is_empty());
    assert!(!own("stop", "").contains("datapath"));
}
