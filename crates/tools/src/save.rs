//! `ovs-save`: a shell script that gives bridges back their flows, or interfaces their addresses and routes.
//!
//! What is saved goes to files below a directory of its own; the script that is printed reads them and removes the
//! directory. `ovs-ctl` keeps flows over a restart by itself and does not come here; this is for scripts that call the
//! original's helper.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::io::{Io, argv0};
use crate::ovs_ctl::flows::tlv_map;
use crate::ovs_ctl::tool;

fn usage(name: &str) -> String {
    let program = name.rsplit('/').next().unwrap_or_default();
    format!(
        "{program}: Provides helper functions to save Open vSwitch's configuration.\n\
         usage: {name} COMMAND\n\n\
         Commands:\n \
         save-interfaces        Outputs a shell script on stdout that will restore\n                        \
         the current kernel configuration of the specified\n                        \
         network interfaces, as well as the system iptables\n                        \
         configuration.\n \
         save-flows             Outputs a shell script on stdout that will restore\n                        \
         OpenFlow flows of each Open vSwitch bridge.\n\
         This script is meant as a helper for the Open vSwitch init script commands.\n"
    )
}

/// Runs the tool.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let name = argv0(args);
    let words: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        None => 0,
        Some(("-h" | "--help", _)) => {
            io.out(usage(&name));
            0
        }
        Some(("save-flows", bridges)) => match save_flows(bridges, io) {
            Ok(script) => {
                io.out(script);
                0
            }
            Err(e) => io.fatal(&name, e),
        },
        Some(("save-interfaces", devices)) => {
            let script: String = devices.iter().map(|d| save_interface(d, io)).collect();
            io.out(script);
            0
        }
        Some((other, _)) => io.fatal(&name, format!("unknown command \"{other}\" (use --help for help)")),
    }
}

/// What a command printed; what it complained of goes on to our standard error.
fn output(command: &mut Command, io: &mut Io<'_>) -> String {
    match command.output() {
        Ok(out) => {
            io.err(String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).into_owned()
        }
        Err(e) => {
            io.err(format!("{}: {e}\n", command.get_program().to_string_lossy()));
            String::new()
        }
    }
}

/// The last of a bridge's `protocols`, OpenFlow 1.4 if it lists none: bundles need that.
fn highest_version(protocols: &str) -> &str {
    let list = protocols.trim().trim_matches(['[', ']']);
    list.rsplit(',').map(|p| p.trim().trim_matches('"')).find(|p| !p.is_empty()).unwrap_or("OpenFlow14")
}

/// A dump without its headings and without ages.
fn entries(dump: &str) -> String {
    let heading = |l: &&str| !["OFPST_", "NXST_"].iter().any(|h| l.starts_with(h));
    let mut out = String::new();
    for line in dump.lines().filter(heading) {
        let kept = line.split(", ").filter(|w| !w.starts_with("idle_age=") && !w.starts_with("hard_age="));
        out.push_str(&kept.collect::<Vec<_>>().join(", "));
        out.push('\n');
    }
    out
}

fn save_flows(bridges: &[String], io: &mut Io<'_>) -> Result<String, String> {
    let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let dir = parent.join(format!("ovs-save.{}", ib_ovsdb::Uuid::random()));
    let failed = |e: std::io::Error| format!("{}: {}", dir.display(), ib_base::errno::strerror(&e));
    // The files tell what the network allows: they are root's.
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
    let mut script = String::new();
    for b in bridges {
        let protocols = output(tool("ovs-vsctl").args(["get", "bridge", b, "protocols"]), io);
        let version = highest_version(&protocols);
        let mut ask = |args: &[&str]| output(tool("ovs-ofctl").arg("-O").arg(version).args(args).arg(b), io);
        let tlvs = tlv_map(&ask(&["dump-tlv-map"]));
        let groups = entries(&ask(&["dump-groups"]));
        let flows = entries(&ask(&["--no-names", "--no-stats", "dump-flows"]));
        let bundle = if version >= "OpenFlow14" { " --bundle" } else { "" };
        let ofctl = format!("ovs-ofctl -O {version}");
        script.push_str(&format!("{ofctl} add-tlv-map {b} '{tlvs}'\n"));
        for (command, what, text) in [("add-groups", "groups", groups), ("replace-flows", "flows", flows)] {
            let file = dir.join(format!("{b}.{what}.dump"));
            std::fs::write(&file, text).map_err(failed)?;
            script.push_str(&format!("{ofctl} {command} {b} \"{}\"{bundle}\n", file.display()));
        }
    }
    script.push_str(&format!("rm -rf \"{}\"\n", dir.display()));
    Ok(script)
}

pub(crate) fn save_interface(device: &str, io: &mut Io<'_>) -> String {
    let link = output(Command::new("ip").args(["link", "show", "dev", device]), io);
    if link.is_empty() {
        return String::new();
    }
    let words: Vec<&str> = link.split_whitespace().collect();
    let after = |key: &str| words.iter().position(|w| *w == key).and_then(|i| words.get(i + 1));
    let flags = words.get(2).map_or("", |w| w.trim_matches(['<', '>']));
    let mut set = String::from(if flags.split(',').any(|f| f == "UP") { " up" } else { " down" });
    for (key, option) in
        [("qlen", "txqueuelen"), ("link/ether", "address"), ("brd", "broadcast"), ("mtu", "mtu")]
    {
        if let Some(value) = after(key) {
            set.push_str(&format!(" {option} {value}"));
        }
    }
    // A link that is up refuses another address.
    let mut out = format!("# {device}\nip link set dev {device} down\nip link set dev {device}{set}\n");
    for line in output(Command::new("ip").args(["-o", "addr", "show", "dev", device]), io).lines() {
        // `2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\ valid_lft ...`
        let words: Vec<&str> = line.split('\\').next().unwrap_or("").split_whitespace().collect();
        if let [_, _, family @ ("inet" | "inet6"), address, rest @ ..] = words.as_slice() {
            let options: Vec<&str> = rest.iter().copied().take_while(|w| *w != device).collect();
            let family = if *family == "inet" { "-4" } else { "-6" };
            out.push_str(&format!("ip {family} addr replace {address} {} dev {device}\n", options.join(" ")));
        }
    }
    for family in ["-4", "-6"] {
        for route in output(Command::new("ip").args([family, "route", "show", "dev", device]), io).lines() {
            // What the addresses make is there again with them.
            if !route.contains("proto kernel") {
                out.push_str(&format!("ip {family} route replace {} dev {device}\n", route.trim()));
            }
        }
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn versions_and_dumps() {
        assert_eq!(highest_version("[]\n"), "OpenFlow14");
        assert_eq!(highest_version("[OpenFlow10, OpenFlow13]\n"), "OpenFlow13");
        let dump = "OFPST_FLOW reply (OF1.3) (xid=0x2):\n cookie=0x1, idle_age=5, priority=1 actions=drop\n table=1, actions=1\n";
        assert_eq!(entries(dump), " cookie=0x1, priority=1 actions=drop\n table=1, actions=1\n");
    }

    #[test]
    fn commands() {
        assert_eq!(capture(run, &["ovs-save"], ""), (0, String::new(), String::new()));
        let (code, _, err) = capture(run, &["x/ovs-save", "foo"], "");
        assert_eq!((code, err.as_str()), (1, "x/ovs-save: unknown command \"foo\" (use --help for help)\n"));
        assert!(capture(run, &["ovs-save", "--help"], "").1.starts_with("ovs-save: Provides helper"));
    }
}
