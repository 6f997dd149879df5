//! `ironbridge adopt`: takes the place of the Open vSwitch that runs on this host, with its database, bridges, flows and connections; `--back`
//! gives it back.
//!
//! One sequence serves both directions (`Move`): everything that can be looked at or tried out before is; then switch and database
//! end, those of the other make begin, and what was saved is put in place. Nothing is forwarded in between: that time is measured and
//! told. Whatever fails after the first daemon was stopped has the old ones started
//! again as they were (`daemon`), with their flows. docs/adopt.md tells what comes along.
//!
//! `dumps` reads what Open vSwitch prints, `ofctl::snapshot` what it says over OpenFlow.

mod daemon;
pub(crate) mod dumps;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ib_base::errno::strerror;
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::{Json, Object};
use ib_sys::{dirs, process, signal};

use crate::io::{Io, argv0, version_text};
use crate::ofctl::snapshot::{self, Pipeline};
use crate::port::switch;
use crate::{save, vsctl};
use daemon::Launch;

const SERVER: &str = "ovsdb-server";
const SWITCH: &str = "ovs-vswitchd";
const RECORD: &str = "ironbridge-adopted.json";
const FORMAT: &str = "ironbridge-adopted";
/// Files of clusters begin so.
const CLUSTER: &[u8] = b"OVSDB CLUSTER";
/// How long a switch may take to have its ports.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

const BACK: u32 = 0x1000;
const DRY_RUN: u32 = 0x1001;
const FORCE: u32 = 0x1002;
const PROGRAM: u32 = 0x1003;

const LONG: &[LongOpt] = &[
    LongOpt::new("back", HasArg::No, BACK),
    LongOpt::new("dry-run", HasArg::No, DRY_RUN),
    LongOpt::new("force", HasArg::No, FORCE),
    LongOpt::new("program", HasArg::Required, PROGRAM),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

const USAGE: &str = "\
ironbridge adopt: take the place of the Open vSwitch that runs on this host
usage: ironbridge adopt [OPTION...]
The database goes on in the same file, under the same remotes; flows, groups, meters, learned addresses and connections are
taken over, then ports are forwarded by this program. If anything fails, Open vSwitch is started again as it was.
  --dry-run        say what would be done and what would not come along; change nothing
  --back           give the host back to the Open vSwitch that it was taken over from
  --force          go on although systemd may interfere
  --program=FILE   run this executable's daemons, not this one's
  -h, --help       display this help message
  -V, --version    display version information
The daemons are found in $OVS_RUNDIR, as by the other tools.
";

#[derive(Default)]
struct Options {
    back: bool,
    dry_run: bool,
    force: bool,
    program: Option<PathBuf>,
}

/// Reads a text as each of the dumps of Open vSwitch; how many could be.
pub fn read_dumps(text: &str) -> usize {
    let ports = [(1, "p1".to_owned())];
    let tables = [dumps::addresses(text, &ports), dumps::memberships(text, &ports)];
    let connections = dumps::connections(text);
    tables.iter().filter(|t| t.is_ok()).count() + usize::from(connections.is_ok())
}

/// Runs `ironbridge adopt`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    process::init("ironbridge");
    let name = argv0(args);
    let mut o = Options::default();
    let mut opts = Getopt::new(&name, args.get(1..).unwrap_or_default(), "hV", LONG);
    for found in opts.by_ref() {
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                io.err(format!("{e}\n"));
                return 1;
            }
        };
        match found.id {
            BACK => o.back = true,
            DRY_RUN => o.dry_run = true,
            FORCE => o.force = true,
            PROGRAM => o.program = Some(found.arg_str().into()),
            id if id == 'h' as u32 => {
                io.out(USAGE);
                return 0;
            }
            id if id == 'V' as u32 => {
                io.out(version_text("ironbridge adopt", ""));
                return 0;
            }
            _ => return 1,
        }
    }
    if let Some(word) = opts.rest_str().first() {
        return io.fatal("ironbridge adopt", format!("unexpected argument \"{word}\" (use --help for help)"));
    }
    // Half a change of hands would leave a host without a switch.
    signal::hold();
    match adopt(&o, io) {
        Ok(()) => 0,
        Err(why) => io.fatal("ironbridge adopt", why),
    }
}

/// Runs `ovs-vsctl`; what it prints.
fn ask_database(words: &[&str]) -> Result<String, String> {
    let db = format!("--db=unix:{}", dirs::rundir().join("db.sock").display());
    let own = ["ovs-vsctl", "--no-wait", "--no-syslog", "-vconsole:off", "--timeout=10", db.as_str()];
    let args: Vec<OsString> = own.iter().chain(words).map(OsString::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut io = Io { stdin: &mut std::io::empty(), stdout: &mut stdout, stderr: &mut stderr };
    match vsctl::run(&args, &mut io) {
        0 => Ok(String::from_utf8_lossy(&stdout).trim_end().to_string()),
        _ => Err(String::from_utf8_lossy(&stderr).trim_end().to_string()),
    }
}

/// Columns of all rows of a table, as text; sets are empty.
fn rows(table: &str, columns: &str) -> Result<Vec<Vec<String>>, String> {
    let text = ask_database(&["--format=json", &format!("--columns={columns}"), "list", table])?;
    let json = Json::parse(&text).map_err(|e| format!("{table}: {e}"))?;
    let data = json.get("data").and_then(Json::as_array).unwrap_or_default();
    let cell = |c: &Json| c.as_str().map(str::to_owned).unwrap_or_default();
    Ok(data.iter().map(|row| row.as_array().unwrap_or_default().iter().map(cell).collect()).collect())
}

/// A bridge and what it holds.
struct Bridge {
    name: String,
    kind: String,
    pipeline: Pipeline,
    addresses: Vec<Json>,
    memberships: Vec<Json>,
    connections: Vec<Json>,
}

/// What one switch hands over to the other.
struct Saved {
    bridges: Vec<Bridge>,
    /// A shell script that gives internal ports their addresses and routes.
    interfaces: String,
    /// Connections that do not come along.
    left_out: usize,
}

/// Names and kinds of bridges.
fn bridges() -> Result<Vec<(String, String)>, String> {
    let kind = |k: &str| if k.is_empty() { "system".to_owned() } else { k.to_owned() };
    let rows = rows("Bridge", "name,datapath_type")?;
    Ok(rows.iter().filter_map(|r| Some((r.first()?.clone(), kind(r.get(1)?)))).collect())
}

fn internal_ports() -> Result<Vec<String>, String> {
    let rows = rows("Interface", "name,type")?;
    let internal = rows.iter().filter(|r| r.get(1).is_some_and(|t| t == "internal"));
    Ok(internal.filter_map(|r| r.first().cloned()).collect())
}

fn is_ours() -> Result<bool, String> {
    Ok(switch::call(SWITCH, "list-commands", &[])?.contains("port-state/restore"))
}

/// Reads all that the running switch holds.
fn take() -> Result<Saved, String> {
    let mut saved = Saved { bridges: Vec::new(), interfaces: String::new(), left_out: 0 };
    for (name, kind) in bridges()? {
        let pipeline = snapshot::take(&name)?;
        let bridge = Bridge {
            name,
            kind,
            pipeline,
            addresses: Vec::new(),
            memberships: Vec::new(),
            connections: Vec::new(),
        };
        saved.bridges.push(bridge);
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { stdin: &mut std::io::empty(), stdout: &mut out, stderr: &mut err };
    for port in internal_ports()?.iter().filter(|p| is_device(p)) {
        saved.interfaces.push_str(&save::save_interface(port, &mut io));
    }
    // Last what changes fastest.
    let mut kinds = Vec::new();
    for b in &mut saved.bridges {
        let ports = &b.pipeline.ports;
        b.addresses =
            dumps::addresses(&switch::call(SWITCH, "fdb/show", std::slice::from_ref(&b.name))?, ports)?;
        // Without snooping the command fails.
        let groups = switch::call(SWITCH, "mdb/show", std::slice::from_ref(&b.name)).unwrap_or_default();
        b.memberships = dumps::memberships(&groups, ports)?;
        // Bridges of a kind share a datapath: the first one brings its connections.
        if !kinds.contains(&b.kind) {
            kinds.push(b.kind.clone());
            let datapath = format!("{0}@ovs-{0}", b.kind);
            let args = ["-m", "-s", &datapath].map(String::from);
            let (list, left_out) = dumps::connections(&switch::call(SWITCH, "dpctl/dump-conntrack", &args)?)?;
            b.connections = list;
            saved.left_out += left_out;
        }
    }
    Ok(saved)
}

fn is_device(name: &str) -> bool {
    !name.contains('/') && Path::new("/sys/class/net").join(name).exists()
}

impl Bridge {
    /// As `port-state/restore` takes it.
    fn state(&self) -> String {
        let mut o = Object::new();
        o.insert("version", 1);
        o.insert("bridge", self.name.as_str());
        o.insert("ports", Json::array(self.pipeline.ports.iter().map(|(_, name)| Json::from(name.as_str()))));
        for (name, list) in self.pipeline.state() {
            o.insert(name, list);
        }
        o.insert("addresses", self.addresses.clone());
        o.insert("memberships", self.memberships.clone());
        o.insert("connections", self.connections.clone());
        Json::Object(o).to_text(Default::default())
    }

    /// Waits until the running switch has the bridge with its ports.
    fn wait(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let found = snapshot::take(&self.name);
            let missing = match &found {
                Ok(p) => self.pipeline.ports.iter().find(|port| !p.ports.contains(port)),
                Err(_) => self.pipeline.ports.first(),
            };
            let Some((number, name)) = missing else { return Ok(()) };
            daemon::pid_of(SWITCH)?;
            if start.elapsed() > PATIENCE {
                let lacks = || format!("{}: no port {name} with the number {number}", self.name);
                return Err(found.err().unwrap_or_else(lacks));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Gives the running switch, which waits for it, what was saved.
    fn give(&self, ours: bool) -> Result<(), String> {
        self.wait()?;
        snapshot::clear(&self.name)?;
        if ours {
            self.pipeline.put_tlvs(&self.name)?;
            let args = ["--replace".to_owned(), self.name.clone(), self.state()];
            switch::call(SWITCH, "port-state/restore", &args)?;
        } else {
            self.pipeline.put(&self.name)?;
        }
        // What may expire may be gone by now.
        let lasting =
            |p: &Pipeline| p.flows.iter().filter(|f| f.idle_timeout == 0 && f.hard_timeout == 0).count();
        let (want, have) = (lasting(&self.pipeline), lasting(&snapshot::take(&self.name)?));
        if want != have {
            return Err(format!("{}: {have} flows where {want} were expected", self.name));
        }
        Ok(())
    }
}

/// The remotes that a server listens on or connects to.
fn remotes() -> Result<Vec<String>, String> {
    let text = switch::call(SERVER, "ovsdb-server/list-remotes", &[])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Both daemons of one make.
#[derive(Clone)]
struct Pair {
    database: Launch,
    switch: Launch,
    ours: bool,
}

impl Pair {
    /// Those that run.
    fn running() -> Result<Pair, String> {
        let (database, switch) = (Launch::of_running(SERVER)?, Launch::of_running(SWITCH)?);
        Ok(Pair { database, switch, ours: is_ours()? })
    }

    fn start_database(&self, remotes: &[String]) -> Result<(), String> {
        self.database.start()?;
        let there = self::remotes()?;
        for remote in remotes.iter().filter(|r| !there.contains(r)) {
            switch::call(SERVER, "ovsdb-server/add-remote", std::slice::from_ref(remote))?;
        }
        Ok(())
    }

    /// Starts the switch, with what was saved. Nothing is forwarded before that is in place.
    fn start_switch(&self, saved: &Saved) -> Result<(), String> {
        self.switch.start()?;
        for b in &saved.bridges {
            b.give(self.ours)?;
        }
        wait_for_flows(false)
    }
}

/// Has a switch that is started wait for flows, or go on.
fn wait_for_flows(on: bool) -> Result<(), String> {
    let words: &[&str] = if on {
        &["set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"]
    } else {
        &["remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait"]
    };
    ask_database(words).map(drop)
}

/// A change from one make to the other.
struct Move {
    from: Pair,
    to: Pair,
    remotes: Vec<String>,
}

impl Move {
    /// All of it; for how long nothing was forwarded. On failure `from` runs again.
    ///
    /// The switch goes before its database: Open vSwitch's main thread, which forwards for ports without a PMD thread,
    /// stands still while there is no database.
    fn run(&self) -> Result<(Saved, Duration), String> {
        let saved = take()?;
        let began = Instant::now();
        let done = self.change_hands(&saved);
        let silent = began.elapsed();
        match done {
            Ok(()) => {
                run_script(&saved.interfaces);
                Ok((saved, silent))
            }
            Err(why) => Err(self.undo(&why, &saved)),
        }
    }

    fn change_hands(&self, saved: &Saved) -> Result<(), String> {
        daemon::stop(SWITCH)?;
        wait_for_flows(true)?;
        daemon::stop(SERVER)?;
        self.to.start_database(&self.remotes)?;
        self.to.start_switch(saved)
    }

    /// Goes back to where it began; what to say of that.
    fn undo(&self, why: &str, saved: &Saved) -> String {
        let mut wrong = Vec::new();
        let mut note = |result: Result<(), String>| wrong.extend(result.err());
        note(daemon::stop(SWITCH).map(drop));
        note(daemon::stop(SERVER).map(drop));
        note(self.from.start_database(&self.remotes));
        note(wait_for_flows(true));
        note(self.from.start_switch(saved));
        // Whatever failed: a switch that waits for ever would be worse than one without flows.
        note(wait_for_flows(false));
        run_script(&saved.interfaces);
        if wrong.is_empty() {
            format!("{why}; what ran before runs again")
        } else {
            format!("{why}; and going back: {}", wrong.join("; "))
        }
    }
}

/// Gives internal ports their addresses back. A line that fails does not keep the next from being tried.
fn run_script(script: &str) {
    let mut command = Command::new("sh");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn() {
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(script.as_bytes());
        }
        let _ = child.wait();
    }
}

/// What is against the change, and what the operator should know.
fn check(pair: &Pair, o: &Options) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut against, mut remarks) = (pair.database.obstacles(), Vec::new());
    against.extend(pair.switch.obstacles());
    for launch in [&pair.database, &pair.switch] {
        if let Some(unit) = launch.service().filter(|_| !o.force) {
            against.push(format!(
                "{} belongs to {unit}, whose ExecStop would stop its successor: see docs/adopt.md, or use --force",
                launch.name
            ));
        }
    }
    for word in pair.database.words.iter().skip(1) {
        let mut start = [0; CLUSTER.len()];
        let file = std::fs::File::open(pair.database.cwd.join(word));
        if file.is_ok_and(|mut f| f.read_exact(&mut start).is_ok()) && start == CLUSTER {
            against.push(format!("{}: databases of clusters are not served", word.to_string_lossy()));
        }
    }
    for (name, kind) in bridges()? {
        if kind == "system" && !pair.ours && !o.back {
            against
                .push(format!("{name} is forwarded by the kernel's datapath: only \"netdev\" is taken over"));
        }
    }
    for row in rows("Interface", "name,type")? {
        let [name, kind] = &row[..] else { continue };
        if ["dpdk", "afxdp"].iter().any(|p| kind.starts_with(p)) && !o.back {
            against.push(format!("{name} is of type {kind}, which this program does not have"));
        }
        if kind == "internal" && !is_device(name) {
            remarks.push(format!("{name} is in another namespace, and has to be put there again"));
        }
    }
    if o.back {
        remarks.push("counters, learned addresses and connections cannot be given to Open vSwitch".into());
    }
    Ok((against, remarks))
}

fn record_path() -> PathBuf {
    dirs::rundir().join(RECORD)
}

fn write_record(pair: &Pair) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    let record = Json::object([
        ("format", Json::from(FORMAT)),
        ("version", Json::from(1)),
        ("database", pair.database.to_json()?),
        ("switch", pair.switch.to_json()?),
    ]);
    let path = record_path();
    // An environment may hold secrets.
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut f| f.write_all(record.to_text(Default::default()).as_bytes()))
        .map_err(|e| format!("{}: {}", path.display(), strerror(&e)))
}

fn read_record() -> Result<Pair, String> {
    let path = record_path();
    let text = std::fs::read(&path)
        .map_err(|e| format!("nothing to go back to: {}: {}", path.display(), strerror(&e)))?;
    let wrong = || format!("{}: not a record of an adoption", path.display());
    let json = Json::parse_bytes(&text).map_err(|_| wrong())?;
    if json.get("format").and_then(Json::as_str) != Some(FORMAT) {
        return Err(wrong());
    }
    let launch = |name| json.get(name).and_then(Launch::from_json).ok_or_else(wrong);
    Ok(Pair { database: launch("database")?, switch: launch("switch")?, ours: false })
}

fn adopt(o: &Options, io: &mut Io<'_>) -> Result<(), String> {
    let from = Pair::running()?;
    let to = match (o.back, from.ours) {
        (false, true) => return Err("the switch that runs is this program's already".into()),
        (true, false) => return Err("the switch that runs is not this program's".into()),
        (true, true) => read_record()?,
        (false, false) => {
            let program = o.program.as_deref();
            Pair { database: from.database.by(program)?, switch: from.switch.by(program)?, ours: true }
        }
    };
    let (against, remarks) = check(&from, o)?;
    for remark in &remarks {
        io.err(format!("ironbridge adopt: note: {remark}\n"));
    }
    for what in &against {
        io.err(format!("ironbridge adopt: {what}\n"));
    }
    let rehearsal = take()?;
    if o.dry_run {
        io.out(summary(&rehearsal));
    }
    if !against.is_empty() {
        return Err("nothing was changed".into());
    }
    to.database.try_out().and_then(|()| to.switch.try_out())?;
    if o.dry_run {
        return Ok(());
    }
    if !o.back {
        write_record(&from)?;
    }
    let (saved, silent) = Move { from, to, remotes: remotes()? }.run()?;
    if o.back {
        // Nothing depends on it any more.
        let _ = std::fs::remove_file(record_path());
    }
    io.out(summary(&saved));
    io.out(format!("nothing was forwarded for {} ms\n", silent.as_millis()));
    Ok(())
}

fn summary(saved: &Saved) -> String {
    let mut out = String::new();
    for b in &saved.bridges {
        let p = &b.pipeline;
        out.push_str(&format!(
            "{}: {} ports, {} flows, {} groups, {} meters, {} addresses, {} memberships, {} connections\n",
            b.name,
            p.ports.len(),
            p.flows.len(),
            p.groups.len(),
            p.meters.len(),
            b.addresses.len(),
            b.memberships.len(),
            b.connections.len()
        ));
    }
    if saved.left_out > 0 {
        out.push_str(&format!(
            "{} connections are over or translated at both ends, and stay\n",
            saved.left_out
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn command_line() {
        let said = |args: &[&str]| capture(run, &[&["ironbridge adopt"], args].concat(), "");
        assert!(said(&["--help"]).1.contains("--dry-run"));
        let (code, _, err) = said(&["br0"]);
        assert_eq!(
            (code, err.as_str()),
            (1, "ironbridge adopt: unexpected argument \"br0\" (use --help for help)\n")
        );
        assert_eq!(said(&["--colour"]).0, 1);
    }
}
