//! `ovs-tcpdump`: `tcpdump` on a port of a bridge, over a mirror that lasts as long as the run.
//!
//! The port's packets are mirrored to a TAP device, which joins the bridge, and which the program holds open (the kernel drops what is
//! sent to one that nobody has open). The rows are made, and taken back, by the commands of `ovs-vsctl`, each time in one
//! transaction. Signals are held from before the first row to after the last, so that `^C` and `kill` clean up too; nothing
//! cleans up after `kill -9` but `ovs-vsctl` and hand.

use crate::io::{Io, argv0, program_name, version_text};
use crate::vsctl;
use ib_sys::rtnetlink::{LinkChange, Rtnl};
use ib_sys::tun::Tap;
use ib_sys::{dirs, process, signal};
use std::ffi::OsString;
use std::io as stdio;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// How often to look whether the command has ended or a signal has come.
const LOOK: Duration = Duration::from_millis(50);

/// How long a device's name may be (netdevice(7)).
const MAX_NAME: usize = 15;

/// The flag of a device that is up (netdevice(7)).
const IFF_UP: u32 = 1;

const OPTIONS: &str = "
The following options are available:
   -h, --help                 display this help message
   -V, --version              display version information
   --db-sock                  A connection string to reach the Open vSwitch
                              ovsdb-server.
";

const MORE_OPTIONS: &str = "   --dump-cmd                 Command to use for tcpdump (default 'tcpdump')
   -i, --interface            Open vSwitch interface to mirror and tcpdump
   --mirror-to                The name for the mirror port to use (optional)
                              Default 'miINTERFACE'
   --span                     If specified, mirror all ports (optional)
   --filter                   Set an OpenFlow formatted preselection filter
";

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    db: Option<String>,
    dump_command: Option<String>,
    interface: Option<String>,
    mirror_to: Option<String>,
    filter: Option<String>,
    span: bool,
    /// What is passed on.
    rest: Vec<String>,
}

/// What a command line is for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Help,
    Version,
    Dump(Settings),
}

/// Reads a command line. What is not known is for `tcpdump`; an option without its argument is not known.
fn parse(words: &[String]) -> Asked {
    let mut settings = Settings::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let into = match word.as_str() {
            "-h" | "--help" => return Asked::Help,
            "-V" | "--version" => return Asked::Version,
            "--span" => {
                settings.span = true;
                continue;
            }
            "--db-sock" => &mut settings.db,
            "--dump-cmd" => &mut settings.dump_command,
            "-i" | "--interface" => &mut settings.interface,
            "--mirror-to" => &mut settings.mirror_to,
            "--filter" => &mut settings.filter,
            _ => {
                settings.rest.push(word.clone());
                continue;
            }
        };
        match words.next() {
            Some(value) => *into = Some(value.clone()),
            None => settings.rest.push(word.clone()),
        }
    }
    Asked::Dump(settings)
}

/// Whether a command can be run: it is a path to a file, or a file on the search path.
fn is_there(command: &str) -> bool {
    if command.contains('/') {
        return Path::new(command).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(command).is_file())
}

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let words: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let settings = match parse(&words) {
        Asked::Help => {
            let name = argv0(args);
            let default = format!("unix:{}/db.sock", dirs::rundir().display());
            io.out(format!(
                "{name}: Open vSwitch tcpdump helper.\nusage: {name} -i interface [TCPDUMP OPTIONS]\n\
                 where TCPDUMP OPTIONS represents the options normally passed to tcpdump.\n{OPTIONS}\
                 {:30}Default '{default}'\n{MORE_OPTIONS}\n",
                ""
            ));
            return 0;
        }
        Asked::Version => {
            io.out(version_text(&program_name(args), ""));
            return 0;
        }
        Asked::Dump(settings) => settings,
    };
    match dump(&settings, io) {
        Ok(()) => 0,
        Err(message) => {
            // The original says it there.
            io.out(format!("{message}\n"));
            1
        }
    }
}

/// The database, by the commands of `ovs-vsctl`.
struct Database {
    socket: String,
}

impl Database {
    /// Runs commands, which are words with `--` between; returns what they print.
    fn ask(&self, words: &[&str]) -> Result<String, String> {
        let db = format!("--db={}", self.socket);
        // The switch may be away; the mirror is there when it comes.
        let own = ["ovs-vsctl", "--no-wait", "--no-syslog", "-vconsole:off", db.as_str()];
        let args: Vec<OsString> = own.iter().chain(words).map(OsString::from).collect();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut io = Io { stdin: &mut stdio::empty(), stdout: &mut stdout, stderr: &mut stderr };
        match vsctl::run(&args, &mut io) {
            0 => Ok(String::from_utf8_lossy(&stdout).trim_end().to_string()),
            _ => {
                let error = String::from_utf8_lossy(&stderr);
                Err(error.trim_end().trim_start_matches("ovs-vsctl: ").to_string())
            }
        }
    }

    /// The UUID of the port `name`, if there is one.
    fn port(&self, name: &str) -> Result<Option<String>, String> {
        let found = self.ask(&["--bare", "--columns=_uuid", "find", "Port", &equals("name", name)])?;
        Ok(Some(found).filter(|uuid| !uuid.is_empty()))
    }
}

/// A condition or setting with any text as its value.
fn equals(column: &str, value: &str) -> String {
    format!("{column}={}", ib_base::json::Json::from(value))
}

fn dump(settings: &Settings, io: &mut Io<'_>) -> Result<(), String> {
    let Some(interface) = &settings.interface else {
        return Err("Error: must at least specify an interface with '-i' option".to_string());
    };
    let command = settings.dump_command.as_deref().unwrap_or("tcpdump");
    if !is_there(command) {
        return Err(format!("Error: unable to execute '{command}' (check PATH)"));
    }
    let default_socket = || format!("unix:{}/db.sock", dirs::rundir().display());
    let db = Database { socket: settings.db.clone().unwrap_or_else(default_socket) };
    signal::hold();
    let mirror_port = settings.mirror_to.clone().unwrap_or_else(|| mirror_name(interface));
    let mut arguments = settings.rest.clone();
    if !arguments.iter().any(|a| a == "-l") {
        arguments.insert(0, "-l".to_string());
    }
    if arguments.iter().any(|a| a == "-vv") {
        io.out(format!("TCPDUMP Args: {}\n", arguments.join(" ")));
    }
    let unreachable = |_| format!("Exception: Unable to connect to {}", db.socket);
    if db.port(&mirror_port).map_err(unreachable)?.is_some() {
        return Err(format!("ERROR: Mirror port ({mirror_port}) exists for port {interface}."));
    }
    let Some(port) = db.port(interface)? else {
        return Err(format!("ERROR: Port {interface} does not exist."));
    };
    let mtu = db.ask(&["--bare", "--columns=mtu", "find", "Interface", &equals("name", interface)]);
    let mtu = mtu.ok().and_then(|text| text.parse().ok());
    let device = device(&mirror_port, mtu).map_err(|e| {
        let why = ib_base::errno::strerror(&e);
        format!("ERROR: Please create an interface called `{mirror_port}` ({why})")
    })?;
    let bridge = db.ask(&["--bare", "--columns=name", "find", "Bridge", &format!("ports{{>=}}{port}")])?;
    let mirror = attach(&db, settings, &bridge, &mirror_port, &port)
        .map_err(|e| format!("ERROR: Unable to properly setup the mirror: {e}."))?;
    // What has been said so far stands before what the command says.
    let _ = io.stdout.flush();
    let ran = follow(command, &mirror_port, &arguments);
    let detached = db.ask(&[
        "--if-exists",
        "del-port",
        &bridge,
        &mirror_port,
        "--",
        "--id=@m",
        "get",
        "Mirror",
        &mirror,
        "--",
        "remove",
        "Bridge",
        &bridge,
        "mirrors",
        "@m",
    ]);
    drop(device);
    let left = |_| {
        format!(
            "Unable to tear down the ports and mirrors.\n\
             Please use ovs-vsctl to remove the ports and mirrors created.\n \
             ex: ovs-vsctl --db={} del-port {mirror_port}",
            db.socket
        )
    };
    ran.and(detached.map(drop).map_err(left))
}

/// The name of the device for an interface's packets: `mi` and its name, if the kernel takes one that long.
fn mirror_name(interface: &str) -> String {
    if interface.len() > MAX_NAME - 2 {
        return format!("ovsmi{:06}", 1 + u32::from_ne_bytes(ib_sys::random::bytes()) % 999_999);
    }
    format!("mi{interface}")
}

/// The device that packets are mirrored to: one that is there, or a TAP device that lasts as long as the result.
fn device(name: &str, mtu: Option<u32>) -> stdio::Result<Option<Tap>> {
    let mut rtnl = Rtnl::open()?;
    let (link, tap) = match rtnl.link_by_name(name) {
        Ok(link) => (link, None),
        Err(_) => {
            let tap = Tap::open(name)?;
            (rtnl.link_by_name(name)?, Some(tap))
        }
    };
    let up = (IFF_UP, IFF_UP);
    let mtu = mtu.filter(|_| tap.is_some());
    rtnl.set_link(link.ifindex, &LinkChange { flags: Some(up), mtu, ..LinkChange::default() })?;
    Ok(tap)
}

/// Makes the mirror; returns its UUID.
fn attach(
    db: &Database,
    settings: &Settings,
    bridge: &str,
    mirror_port: &str,
    port: &str,
) -> Result<String, String> {
    let interface = settings.interface.as_deref().unwrap_or_default();
    let name = equals("name", &format!("m_{interface}"));
    let all = format!("select_all={}", settings.span);
    let filter = settings.filter.as_ref().map(|filter| equals("filter", filter));
    let (from, to) = (format!("select_src_port={port}"), format!("select_dst_port={port}"));
    let mut words = vec!["add-port", bridge, mirror_port, "--", "--id=@o", "get", "Port", mirror_port];
    words.extend(["--", "--id=@m", "create", "Mirror", &name, &all, &from, &to, "output_port=@o"]);
    words.extend(filter.as_deref());
    words.extend(["--", "add", "Bridge", bridge, "mirrors", "@m"]);
    db.ask(&words)
}

/// Runs the command until it ends. A signal that comes is passed on once.
fn follow(command: &str, device: &str, rest: &[String]) -> Result<(), String> {
    let mut child: Child =
        Command::new(command).args(["-i", device]).args(rest).spawn().map_err(|e| {
            format!("Error: unable to execute '{command}' ({})", ib_base::errno::strerror(&e))
        })?;
    let mut passed_on = false;
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(()),
            Err(e) => return Err(format!("Error: '{command}': {}", ib_base::errno::strerror(&e))),
        }
        if let Some(signo) = signal::held().filter(|_| !passed_on) {
            passed_on = true;
            // It may have ended meanwhile.
            let _ = i32::try_from(child.id()).map(|pid| process::kill(pid, signo));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    fn parsed(line: &str) -> Asked {
        parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_ours_is_passed_on() {
        let expect = Settings {
            interface: Some("p1".into()),
            mirror_to: Some("m".into()),
            span: true,
            rest: ["-n", "-c", "5", "icmp", "--interface=x"].map(String::from).to_vec(),
            ..Settings::default()
        };
        let line = "-n -i p0 -i p1 --mirror-to m --span -c 5 icmp --interface=x";
        assert_eq!(parsed(line), Asked::Dump(expect));
        assert_eq!(parsed("-i p1 --help"), Asked::Help);
        assert_eq!(parsed("-V -i"), Asked::Version);
    }

    #[test]
    fn names_of_mirrors() {
        assert_eq!(mirror_name("a234567890123"), "mia234567890123");
        let long = mirror_name("a2345678901234");
        assert!(long.len() == 11 && long.starts_with("ovsmi"), "{long}");
    }

    #[test]
    fn lines_that_go_nowhere() {
        let run = |words: &[&str]| capture(run, &[&["ovs-tcpdump"], words].concat(), "");
        let expect = "Error: must at least specify an interface with '-i' option\n";
        assert_eq!(run(&["-i"]), (1, expect.to_string(), String::new()));
        let expect = "Error: unable to execute '/nonexistent/x' (check PATH)\n";
        assert_eq!(run(&["-i", "p", "--dump-cmd", "/nonexistent/x"]).1, expect);
        assert!(run(&["--help"]).1.starts_with("ovs-tcpdump: Open vSwitch tcpdump helper.\nusage: "));
    }
}
