//! `ironbridge port`: takes ports with all that belongs to them from one switch to another.
//!
//! `export` writes a file with the configuration (rows of the database) and the forwarding state (from the switch's
//! `port-state/save`); `import` brings such a file to a switch. Neither needs anything of the other than the file. [`mod@file`] is the
//! file's form, [`config`] the database's side, [`switch`] the daemon's. `migrate` ([`send`]) and `receive` ([`mod@receive`]) do both at once,
//! live, and speak by [`wire`].

pub mod config;
pub mod file;
mod from_ovs;
mod qmp;
mod receive;
mod send;
pub(crate) mod switch;
mod wire;

use std::ffi::OsString;
use std::time::Duration;

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::{Json, Object};
use ib_stream::tls;
use ib_sys::{dirs, process, signal};

use crate::io::{Io, argv0, version_text};
use config::Database;

const ZONE: u32 = 0x1000;
const ADDRESS: u32 = 0x1001;
const COOKIE: u32 = 0x1002;
const DB: u32 = 0x1003;
const BRIDGE: u32 = 0x1004;
const REPLACE: u32 = 0x1005;
const CHECK: u32 = 0x1006;
const WAIT: u32 = 0x1007;
const KEEP: u32 = 0x1008;
const REMOTE: u32 = 0x1009;
const QMP: u32 = 0x100a;
const URI: u32 = 0x100b;
const ON_ANNOUNCEMENT: u32 = 0x100c;
const PATIENCE: u32 = 0x100d;
const FROM_OVS: u32 = 0x100e;

/// See [`Options::patience`]. Other than the machine's peers, nobody waits while it stands still.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

const LONG: &[LongOpt] = &[
    LongOpt::new("zone", HasArg::Required, ZONE),
    LongOpt::new("address", HasArg::Required, ADDRESS),
    LongOpt::new("cookie", HasArg::Required, COOKIE),
    LongOpt::new("db", HasArg::Required, DB),
    LongOpt::new("target", HasArg::Required, 't' as u32),
    LongOpt::new("bridge", HasArg::Required, BRIDGE),
    LongOpt::new("replace", HasArg::No, REPLACE),
    LongOpt::new("check", HasArg::No, CHECK),
    LongOpt::new("wait", HasArg::No, WAIT),
    LongOpt::new("keep", HasArg::Required, KEEP),
    LongOpt::new("remote", HasArg::Required, REMOTE),
    LongOpt::new("qmp", HasArg::Required, QMP),
    LongOpt::new("uri", HasArg::Required, URI),
    LongOpt::new("on-announcement", HasArg::No, ON_ANNOUNCEMENT),
    LongOpt::new("from-ovs", HasArg::No, FROM_OVS),
    LongOpt::new("patience", HasArg::Required, PATIENCE),
    LongOpt::new("output", HasArg::Required, 'o' as u32),
    LongOpt::new("timeout", HasArg::Required, 'T' as u32),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

const USAGE: &str = "\
ironbridge port: take ports with all that belongs to them to another switch
usage: ironbridge port export [OPTION...] PORT[=NAME]...
                                                    write the ports' configuration and state; of an Open vSwitch, too
       ironbridge port import [OPTION...] [FILE]    bring them to this switch (standard input without FILE)
       ironbridge port migrate [OPTION...] PORT[=NAME]... -- COMMAND [ARG...]
       ironbridge port migrate [OPTION...] --remote=REMOTE PORT[=NAME]...
                                                    move them to the switch where COMMAND runs `ironbridge port receive',
                                                    or where that listens; there they are called NAME
       ironbridge port receive [OPTION...]          the other end of migrate, on standard input and output,
                                                    or with --remote=pssl:PORT[:ADDRESS] on a port, for ever
What `export' writes: rows of Port, Interface, QoS and Queue, memberships in mirrors; OpenFlow flows that match
the ports as in_port, output to them, or are named by an option below, with their counters and ages; the groups and
meters that those use; learned addresses, multicast memberships, tracked connections with their address translation.
Options of export and migrate:
  --address=ADDRESS      also flows that match this Ethernet or IP address exactly; with IP addresses, only
                         connections of theirs (may be given more than once)
  --cookie=COOKIE[/MASK] also flows with this cookie (may be given more than once)
  --zone=ZONE            connections of this zone (may be given more than once; by default the zones that
                         flows of packets from the ports name)
  --from-ovs             read the state as Open vSwitch tells it even if the switch is ours (export)
  -o, --output=FILE      write FILE instead of standard output (export)
  --patience=SECS        give a move up when an answer takes longer (migrate; default: 30)
  --keep=COOKIE[/MASK]   flows with this cookie stay here, too (migrate; may be given more than once)
When `migrate' switches over; without one of these, at once:
  --wait                 print `ready' when all is prepared, and switch over when a line comes on standard
                         input; its end calls the move off
  --on-announcement      when the machine sends its first packet at the other end
  --qmp=SOCKET           when the QEMU behind SOCKET has stopped its machine; it goes on when all is there
  --uri=URI              and have QEMU begin its migration to URI
Options of import and receive:
  --bridge=BRIDGE        put them on BRIDGE instead of the bridge of the same name
  --check                say what would be done, and do nothing (import)
  --replace              let groups and meters take the place of others with the same numbers
Options of migrate and receive:
  --remote=REMOTE        ssl:HOST[:PORT] or tcp:HOST[:PORT] (migrate), pssl:PORT[:ADDRESS] or ptcp:... (receive); port 6690
  -p, --private-key=FILE, -c, --certificate=FILE, -C, --ca-cert=FILE, and the other options of TLS of ovs-vsctl
Options of all:
  --db=DATABASE          connect to DATABASE
  -t, --target=TARGET    pidfile or control socket of the switch
  -T, --timeout=SECS     give up after SECS seconds
  -h, --help             display this help message
  -V, --version          display version information
A move: `ironbridge port migrate vm1 -- ssh other ironbridge port receive'. Until the other end has everything, the ports
stay as they are here, and whatever fails undoes what the other end has done; then they are announced there and taken away here.
A port that the bridge has already keeps its configuration, and gets the state. What is refused changes nothing.
";

struct Options {
    db: String,
    target: String,
    bridge: Option<String>,
    replace: bool,
    check: bool,
    wait: bool,
    from_ovs: bool,
    on_announcement: bool,
    qmp: Option<String>,
    uri: Option<String>,
    remote: Option<String>,
    /// How long an answer of the other end may take.
    patience: Duration,
    /// Cookies whose flows stay when their port goes.
    keep: Vec<String>,
    output: Option<String>,
    /// Passed on to `port-state/save`.
    selection: Vec<String>,
    words: Vec<String>,
    /// What follows `--`.
    command: Vec<String>,
}

/// Ports, and the names that some have in the other switch.
pub struct Ports {
    /// Names.
    pub here: Vec<String>,
    renamed: Vec<(String, String)>,
}

impl Ports {
    /// Reads `PORT[=NAME]`.
    fn parse(words: &[String]) -> Ports {
        let mut ports = Ports { here: Vec::new(), renamed: Vec::new() };
        for word in words {
            match word.split_once('=') {
                None => ports.here.push(word.clone()),
                Some((name, there)) => {
                    ports.here.push(name.to_owned());
                    ports.renamed.push((name.to_owned(), there.to_owned()));
                }
            }
        }
        ports
    }

    /// The name of a port in the other switch.
    pub fn name_there<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to)
    }

    fn there(&self) -> impl Iterator<Item = &str> {
        self.here.iter().map(|name| self.name_there(name))
    }
}

/// Either what to do, or the exit code after what was asked for has been printed.
fn parse(args: &[OsString], io: &mut Io<'_>) -> Result<Options, i32> {
    let name = argv0(args);
    let mut o = Options {
        db: format!("unix:{}", dirs::rundir().join("db.sock").display()),
        target: "ovs-vswitchd".to_owned(),
        bridge: None,
        replace: false,
        check: false,
        wait: false,
        from_ovs: false,
        on_announcement: false,
        qmp: None,
        uri: None,
        remote: None,
        patience: DEFAULT_PATIENCE,
        keep: Vec::new(),
        output: None,
        selection: Vec::new(),
        words: Vec::new(),
        command: Vec::new(),
    };
    let mut tls_settings = tls::Settings::default();
    let mut opts = Getopt::new(&name, args.get(1..).unwrap_or_default(), "t:o:T:hVp:c:C:", LONG)
        .with(tls::OPTIONS)
        .with(tls::CA_OPTIONS);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            io.err(format!("{e}\n"));
            1
        })?;
        if tls_settings.option(&found) {
            continue;
        }
        let arg = found.arg_str();
        match found.id {
            KEEP => o.keep.push(arg),
            REMOTE => o.remote = Some(arg),
            QMP => o.qmp = Some(arg),
            URI => o.uri = Some(arg),
            PATIENCE => match arg.parse() {
                Ok(secs) if secs > 0 => o.patience = Duration::from_secs(secs),
                _ => return Err(io.fatal(&name, format!("{arg}: not a number of seconds"))),
            },
            FROM_OVS => o.from_ovs = true,
            ON_ANNOUNCEMENT => o.on_announcement = true,
            ZONE => o.selection.push(format!("--zone={arg}")),
            ADDRESS => o.selection.push(format!("--address={arg}")),
            COOKIE => o.selection.push(format!("--cookie={arg}")),
            DB => o.db = arg,
            BRIDGE => o.bridge = Some(arg),
            REPLACE => o.replace = true,
            CHECK => o.check = true,
            WAIT => o.wait = true,
            id => match char::from_u32(id) {
                Some('t') => o.target = arg,
                Some('o') => o.output = Some(arg),
                Some('T') => match arg.parse::<u32>() {
                    Ok(n) if n > 0 => signal::ctl_timeout(Some(n)),
                    _ => return Err(io.fatal(&name, format!("{arg}: not a number of seconds"))),
                },
                Some('h') => {
                    io.out(USAGE);
                    return Err(0);
                }
                Some('V') => {
                    io.out(version_text("ironbridge port", ""));
                    return Err(0);
                }
                _ => return Err(1),
            },
        }
    }
    o.words = opts.rest_str();
    // What follows `--` is a command of its own.
    if let Some(at) = args.iter().position(|a| a == "--") {
        o.command = args[at + 1..].iter().map(|a| a.to_string_lossy().into_owned()).collect();
        o.words.truncate(o.words.len().saturating_sub(o.command.len()));
    }
    tls::configure(tls_settings);
    Ok(o)
}

/// Runs `ironbridge port`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    process::init("ironbridge");
    let options = match parse(args, io) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let done = match options.words.split_first() {
        Some((first, ports)) if first == "export" => export(&options, ports, io),
        Some((first, files)) if first == "import" => import(&options, files, io),
        Some((first, ports)) if first == "migrate" => send::send(&options, ports, io),
        Some((first, [])) if first == "receive" => receive::receive(&options, io),
        Some((other, _)) => Err(format!("unknown command \"{other}\" (use --help for help)")),
        None => Err("missing command name (use --help for help)".to_owned()),
    };
    match done {
        Ok(()) => 0,
        Err(why) => io.fatal("ironbridge port", why),
    }
}

fn export(o: &Options, ports: &[String], io: &mut Io<'_>) -> Result<(), String> {
    if ports.is_empty() {
        return Err("export needs the name of a port".into());
    }
    let (_, content) = gather(o, &Ports::parse(ports), &[])?;
    let text = file::write(content);
    match &o.output {
        None => io.out(text),
        Some(path) => {
            std::fs::write(path, text).map_err(|e| format!("{path}: {}", ib_base::errno::strerror(&e)))?;
        }
    }
    Ok(())
}

/// The bridge of the ports, and all that a file says of them; `more` options go to the switch.
fn gather(o: &Options, ports: &Ports, more: &[String]) -> Result<(String, Json), String> {
    let config = Database::open(&o.db)?.export(ports)?;
    let state = if o.from_ovs || from_ovs::is_needed(&o.target)? {
        if !more.is_empty() {
            return Err(
                "this switch has no port-state/save: use export, which reads Open vSwitch, too".into()
            );
        }
        from_ovs::save(&o.target, &config.bridge, &config.kind, ports, &o.selection)?
    } else {
        save(o, &config.bridge, ports, more)?
    };
    let state = Json::parse(&state).map_err(|e| format!("the switch answers nonsense: {e}"))?;
    let mut content = Object::new();
    content.insert("bridge", config.bridge.as_str());
    content.insert("ports", config.ports);
    content.insert("mirrors", config.mirrors);
    content.insert("state", state);
    Ok((config.bridge, Json::Object(content)))
}

/// The forwarding state of ports, now: the text of a JSON object.
fn save(o: &Options, bridge: &str, ports: &Ports, more: &[String]) -> Result<String, String> {
    let mut args = o.selection.clone();
    args.extend_from_slice(more);
    args.extend(ports.renamed.iter().map(|(name, there)| format!("--as={name}={there}")));
    args.push(bridge.to_owned());
    args.extend(ports.here.iter().cloned());
    switch::call(&o.target, "port-state/save", &args)
}

/// Gives a bridge a state.
fn restore(o: &Options, bridge: &str, state: String, more: &[String]) -> Result<String, String> {
    let mut args = more.to_vec();
    if o.replace {
        args.push("--replace".to_owned());
    }
    args.push(bridge.to_owned());
    args.push(state);
    switch::call(&o.target, "port-state/restore", &args)
}

fn import(o: &Options, files: &[String], io: &mut Io<'_>) -> Result<(), String> {
    let text = match files {
        [] => file::take(&mut io.stdin, file::MAX_BYTES)
            .map_err(|e| format!("standard input: {}", ib_base::errno::strerror(&e)))?,
        [path] => std::fs::File::open(path)
            .and_then(|mut f| file::take(&mut f, file::MAX_BYTES))
            .map_err(|e| format!("{path}: {}", ib_base::errno::strerror(&e)))?,
        _ => return Err("import takes one file".into()),
    };
    let content = file::read(&text)?;
    let what = config::Imported::read(&content)?;
    let bridge = o.bridge.clone().unwrap_or_else(|| what.bridge.clone());
    let state = content.get("state").ok_or("the file has no state")?.to_text(Default::default());
    let mut db = Database::open(&o.db)?;
    let plan = db.plan(&bridge, &what)?;
    for name in &plan.present {
        io.err(format!("ironbridge port: {name} is on {bridge} already and keeps its configuration\n"));
    }
    if o.check {
        if plan.absent.is_empty() {
            io.out(restore(o, &bridge, state, &["--check".into()])?);
        }
        for name in &plan.absent {
            io.out(format!("port {name} would be added to {bridge}\n"));
        }
        return Ok(());
    }
    db.add(&bridge, &what, &plan)?;
    match restore(o, &bridge, state, &[]) {
        Ok(summary) => {
            io.out(summary);
            Ok(())
        }
        Err(why) => {
            db.remove(&bridge, &plan.absent)?;
            Err(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn command_line() {
        let said = |args: &[&str]| {
            let mut all = vec!["ironbridge port"];
            all.extend(args);
            capture(run, &all, "")
        };
        let fails = |args: &[&str], why: &str| {
            let (code, out, err) = said(args);
            assert_eq!((code, out.as_str()), (1, ""), "{args:?}");
            assert!(err.contains(why), "{args:?}: {err}");
        };
        fails(&[], "missing command name");
        fails(&["move"], "unknown command \"move\"");
        fails(&["export"], "export needs the name of a port");
        fails(&["migrate"], "migrate needs the name of a port");
        fails(&["migrate", "p1"], "migrate needs --remote, or a command");
        fails(&["--remote=udp:x", "migrate", "p1"], "udp:x: ");
        fails(&["--remote=pssl:x", "receive"], "pssl:x: ");
        fails(&["import", "a", "b"], "import takes one file");
        fails(&["import", "/nonexistent/file"], "/nonexistent/file: No such file or directory");
        fails(&["import"], "the file is empty");
        fails(&["--colour"], "unrecognized option");
        fails(&["-T", "0", "export"], "0: not a number of seconds");
        fails(&["--db=unix:/nonexistent", "export", "p1"], "unix:/nonexistent: No such file or directory");
        assert!(said(&["--help"]).1.contains("--replace"));
        assert_eq!(said(&["--version"]).0, 0);
    }
}
