//! `ovs-ctl`: starts, stops and checks the daemons; start-up scripts of the system call it.
//!
//! Everything that it does to daemons it does by running this executable under their and the tools' names, so that it
//! starts nobody else's. Steps that fail are told and the next is taken where that is of use: a host without its
//! identity in the database still forwards.
//!
//! Exit codes: 0 done, or nothing was to be done; 1 something failed, or `status` found a daemon that does not run.

pub(crate) mod flows;
mod options;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ib_ovsdb::{Uuid, schemas};
use ib_sys::{dirs, process};

use crate::io::{Io, argv0, version_text};
use options::{DaemonOptions, Options, usage};

/// How long a daemon may take to end after being asked, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);
/// The unit of `--ulimit-core`, bytes, as the shell's `ulimit -c` has it (POSIX).
const CORE_BLOCK: u64 = 512;
const SERVER: &str = "ovsdb-server";
const SWITCH: &str = "ovs-vswitchd";
const DATAPATH: &str = "ironbridge-datapath";

/// Runs `ovs-ctl`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let name = argv0(args);
    let (options, wrong) = Options::parse(args.get(1..).unwrap_or_default());
    for what in &wrong {
        io.err(format!("{name}: {what}\n"));
    }
    if options.help || options.command == "help" {
        io.out(usage(&name));
        return 0;
    }
    if options.version {
        io.out(version_text(&name, ""));
        return 0;
    }
    let mut ctl = Ctl { o: &options, io };
    let done = match options.command.as_str() {
        "start" => ctl.start(None),
        "stop" => ctl.stop(),
        "restart" => ctl.restart(false),
        // What a kernel module would be: where flows are forwarded begins anew.
        "force-reload-kmod" => ctl.restart(true),
        "status" => ctl.status(),
        "version" => ctl.versions(),
        // There is no module to load: forwarding is done in user space.
        "load-kmod" => true,
        "enable-protocol" => ctl.enable_protocol(),
        "delete-transient-ports" => ctl.delete_transient_ports(),
        "record-hostname-if-not-set" => ctl.record_hostname(),
        "" => {
            ctl.io.err(format!("{name}: missing command name (use --help for help)\n"));
            false
        }
        other => {
            ctl.io.err(format!("{name}: unknown command \"{other}\" (use --help for help)\n"));
            false
        }
    };
    i32::from(!done)
}

/// The words that run this executable under another of its names: a link in the path, so that the process shows the
/// name that administrators look for, else a subcommand.
fn words(name: &str) -> Vec<OsString> {
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(name));
    if name == DATAPATH {
        return vec![exe.into(), "datapath".into()];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let link = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|link| std::fs::canonicalize(link).is_ok_and(|target| target == exe));
    match link {
        Some(link) => vec![link.into()],
        None => vec![exe.into(), name.into()],
    }
}

/// This executable under another of its names.
pub(crate) fn tool(name: &str) -> Command {
    let words = words(name);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn pidfile(daemon: &str) -> PathBuf {
    dirs::rundir().join(format!("{daemon}.pid"))
}

/// Whether a daemon ended without tidying up.
fn has_died(daemon: &str) -> bool {
    pidfile(daemon).exists() && running(daemon).is_none()
}

/// The process that a pidfile names, if it runs.
fn running(daemon: &str) -> Option<i32> {
    let text = std::fs::read_to_string(pidfile(daemon)).ok()?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0)?;
    process::exists(pid).then_some(pid)
}

/// Waits until a process is gone.
fn gone(pid: i32) -> bool {
    let start = Instant::now();
    while process::exists(pid) {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

struct Ctl<'a, 'b> {
    o: &'a Options,
    io: &'a mut Io<'b>,
}

impl Ctl<'_, '_> {
    /// Runs one of the tools, whose output goes where ours goes. Tells a failure, under `what` where that says more.
    fn step(&mut self, what: &str, program: &str, args: &[&str]) -> bool {
        if !what.is_empty() {
            self.io.out(what);
        }
        let out = tool(program).args(args).stdin(Stdio::null()).output();
        let (done, errors) = match out {
            Ok(out) => {
                self.io.out(String::from_utf8_lossy(&out.stdout));
                (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
            }
            Err(e) => (false, format!("{program}: {e}\n")),
        };
        if !what.is_empty() {
            self.io.out(if done { ".\n" } else { " ... failed!\n" });
        }
        self.io.err(errors);
        done
    }

    fn warn(&mut self, text: &str) {
        self.io.out(format!("{text} ... (warning).\n"));
    }

    fn failed(&mut self, text: &str) {
        self.io.out(format!("{text} ... failed!\n"));
    }

    /// A change of the database that does not wait for the switch.
    fn vsctl(&mut self, args: &[&str]) -> bool {
        let db = format!("--db=unix:{}", self.o.db_sock);
        self.step("", "ovs-vsctl", &[&["--no-wait", &db], args].concat())
    }

    fn ask_vsctl(&self, args: &[&str]) -> Option<String> {
        let db = format!("--db=unix:{}", self.o.db_sock);
        let out = tool("ovs-vsctl").arg("--no-wait").arg(db).args(args).stdin(Stdio::null()).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn start(&mut self, saved: Option<&flows::Saved>) -> bool {
        if self.o.ovsdb_server {
            if running(SERVER).is_some() {
                // A restart has started it.
                if saved.is_none() {
                    self.io.out("ovsdb-server is already running.\n");
                }
            } else if !self.start_database() {
                return false;
            }
        }
        if self.o.ovs_vswitchd && !self.start_switch(saved) {
            return false;
        }
        self.step(
            "Enabling remote OVSDB managers",
            "ovs-appctl",
            &["-t", SERVER, "ovsdb-server/add-remote", "db:Open_vSwitch,Open_vSwitch,manager_options"],
        )
    }

    fn start_database(&mut self) -> bool {
        for dir in [dirs::rundir(), dirs::logdir(), dirs::dbdir()] {
            if let Err(e) = std::fs::create_dir_all(&dir) {
                self.failed(&format!("Creating {}: {e}", dir.display()));
            }
        }
        let db_file = self.o.db_file.clone();
        if !self.upgrade(&db_file) {
            return false;
        }
        let mut files = vec![db_file];
        for extra in self.o.extra_dbs.split_whitespace() {
            let path = dirs::in_dir(&dirs::dbdir(), extra);
            if path.exists() {
                files.push(path.display().to_string());
            } else {
                self.warn(&format!("{} (of --extra-dbs) does not exist.", path.display()));
            }
        }
        let mut args = files;
        args.extend(["-vconsole:emer", "-vsyslog:err", "-vfile:info"].map(String::from));
        args.push(format!("--remote=punix:{}", self.o.db_sock));
        for (option, column) in
            [("private-key", "private_key"), ("certificate", "certificate"), ("bootstrap-ca-cert", "ca_cert")]
        {
            args.push(format!("--{option}=db:Open_vSwitch,SSL,{column}"));
        }
        if !self.daemon(SERVER, args, &self.o.server) {
            return false;
        }
        self.fill_in();
        if self.o.delete_bridges {
            for bridge in self.ask_vsctl(&["list-br"]).unwrap_or_default().lines() {
                self.vsctl(&["del-br", bridge]);
            }
        }
        if self.o.delete_transient_ports {
            self.delete_transient_ports();
        }
        true
    }

    /// Sees to it that there is a database of the present schema.
    fn upgrade(&mut self, db_file: &str) -> bool {
        let Some(schema) = self.schema() else { return false };
        let schema = schema.display().to_string();
        if !Path::new(db_file).exists() {
            self.warn(&format!("{db_file} does not exist"));
            return self.step(
                &format!("Creating empty database {db_file}"),
                "ovsdb-tool",
                &["create", db_file, &schema],
            );
        }
        let ask = |words: &[&str]| -> Option<String> {
            let out = tool("ovsdb-tool").args(words).stdin(Stdio::null()).output().ok()?;
            out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        if ask(&["needs-conversion", db_file, &schema]).as_deref() != Some("yes") {
            // A file that cannot be read is the server's to refuse, with its message.
            return true;
        }
        let version = ask(&["db-version", db_file]).unwrap_or_default();
        let sum = ask(&["db-cksum", db_file]).unwrap_or_default();
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let backup = format!("{db_file}.backup{version}-{sum}");
        self.io.out(format!("Backing up database to {backup}"));
        let copied = std::fs::copy(db_file, &backup);
        self.io.out(if copied.is_ok() { ".\n" } else { " ... failed!\n" });
        if let Err(e) = copied {
            self.io.err(format!("{backup}: {e}\n"));
            return false;
        }
        self.step("Compacting database", "ovsdb-tool", &["compact", db_file]);
        if self.step("Converting database schema", "ovsdb-tool", &["convert", db_file, &schema]) {
            return true;
        }
        self.warn("Schema conversion failed, using empty database instead");
        let removed = std::fs::remove_file(db_file).is_ok();
        removed
            && self.step(
                &format!("Creating empty database {db_file}"),
                "ovsdb-tool",
                &["create", db_file, &schema],
            )
    }

    /// The schema's file; that which the program brings is written out if none is installed.
    fn schema(&mut self) -> Option<PathBuf> {
        let path = PathBuf::from(&self.o.db_schema);
        if path.exists() || self.o.db_schema != Options::default().db_schema {
            return Some(path);
        }
        let path = dirs::rundir().join("vswitch.ovsschema");
        match std::fs::write(&path, schemas::VSWITCH) {
            Ok(()) => Some(path),
            Err(e) => {
                self.failed(&format!("Writing {}: {e}", path.display()));
                None
            }
        }
    }

    /// Starts a daemon and waits until it serves.
    fn daemon(&mut self, name: &str, mut args: Vec<String>, how: &DaemonOptions) -> bool {
        args.push("--no-chdir".into());
        args.push(format!("--log-file={}", dirs::logdir().join(format!("{name}.log")).display()));
        args.push(format!("--pidfile={}", dirs::rundir().join(format!("{name}.pid")).display()));
        if !self.o.user.is_empty() {
            args.push(format!("--user={}", self.o.user));
        }
        args.extend(how.more.split_whitespace().map(str::to_owned));
        args.push("--detach".into());
        let log = dirs::logdir().join(format!("{name}.{}.log", how.wrapper));
        let wrap: Vec<String> = match how.wrapper.as_str() {
            "" => Vec::new(),
            "valgrind" => vec!["valgrind".into(), "-q".into(), format!("--log-file={}.%p", log.display())],
            "strace" => vec!["strace".into(), "-ff".into(), "-o".into(), log.display().to_string()],
            other => {
                self.failed(&format!(
                    "unknown wrapper \"{other}\" of {name}: \"valgrind\" and \"strace\" are known"
                ));
                return false;
            }
        };
        if self.o.monitor && wrap.is_empty() {
            args.push("--monitor".into());
        }
        let mut command = if let Some(program) = wrap.first() {
            let mut command = Command::new(program);
            command.args(&wrap[1..]).args(words(name));
            command
        } else if how.priority.is_empty() {
            tool(name)
        } else {
            let mut command = Command::new("nice");
            command.arg("-n").arg(&how.priority).args(words(name));
            command
        };
        let umask = match self.limits(name, how) {
            Ok(umask) => umask.map(process::set_umask),
            Err(why) => {
                self.failed(&why);
                return false;
            }
        };
        self.io.out(format!("Starting {name}"));
        let started = command.args(&args).current_dir(&self.o.cwd).stdin(Stdio::null()).output();
        umask.map(process::set_umask);
        let done = started.as_ref().is_ok_and(|out| out.status.success());
        self.io.out(if done { ".\n" } else { " ... failed!\n" });
        match started {
            Ok(out) => self.io.err(String::from_utf8_lossy(&out.stderr)),
            Err(e) => self.io.err(format!("{}: {e}\n", command.get_program().display())),
        }
        done
    }

    /// Puts the limits of a daemon upon ourselves, for it to inherit; its umask, if it has one of its own.
    fn limits(&self, name: &str, how: &DaemonOptions) -> Result<Option<u32>, String> {
        let core_bytes = match self.o.core_limit.as_str() {
            "" if self.o.core_files => None,
            "" => Some(0),
            "unlimited" => None,
            blocks => {
                let blocks: u64 = blocks
                    .parse()
                    .map_err(|_| format!("--ulimit-core={blocks}: neither a number nor \"unlimited\""))?;
                Some(blocks.saturating_mul(CORE_BLOCK))
            }
        };
        process::limit_core_files(core_bytes);
        if self.o.huge_pages {
            process::dump_huge_pages().map_err(|e| format!("--dump-hugepages: {e}"))?;
        }
        if !self.o.oom_score.is_empty() {
            let score = self.o.oom_score.parse().ok().filter(|s| (-1000..=1000).contains(s));
            let score = score
                .ok_or_else(|| format!("--oom-score={}: not within -1000 and 1000", self.o.oom_score))?;
            process::set_oom_score(score).map_err(|e| format!("--oom-score={score}: {e}"))?;
        }
        match how.umask.as_str() {
            "" => Ok(None),
            mode => u32::from_str_radix(mode, 8)
                .ok()
                .filter(|m| *m <= 0o777)
                .map(Some)
                .ok_or_else(|| format!("--{name}-umask={mode}: not an octal mode of at most 777")),
        }
    }

    /// Writes what the database is to know of this host.
    fn fill_in(&mut self) {
        let mut args: Vec<String> =
            ["--", "init", "--", "set", "Open_vSwitch", "."].map(String::from).to_vec();
        let id = self.system_id();
        if id.is_none() {
            self.failed("system ID not configured, please use --system-id");
        }
        args.push(format!("db-version={}", quote(&schema_version())));
        let ours = ib_stream::unixctl::standard::version_line(SERVER);
        args.push(format!("ovs-version={}", quote(ours.split_whitespace().last().unwrap_or_default())));
        args.push(format!("external-ids:system-id={}", quote(&id.unwrap_or_default())));
        args.push(format!("external-ids:rundir={}", quote(&dirs::rundir().display().to_string())));
        let (kind, version) = (
            self.system("system-type", self.o.system_type.as_ref()),
            self.system("system-version", self.o.system_version.as_ref()),
        );
        for (what, value) in [("system-type", kind), ("system-version", version)] {
            match value {
                Some(value) => args.push(format!("{what}={}", quote(&value))),
                None => self.failed(&format!("no default {}, please use --{what}", what.replace('-', " "))),
            }
        }
        for pair in &self.o.external_ids {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            args.push(format!("external-ids:{name}={}", quote(value)));
        }
        let db = format!("--db=unix:{}", self.o.db_sock);
        let mut words = vec!["--no-wait", db.as_str()];
        words.extend(args.iter().map(String::as_str));
        self.step("Configuring Open vSwitch system IDs", "ovs-vsctl", &words);
        if self.o.record_hostname {
            self.record_hostname();
        }
    }

    /// `--system-id`, or what the file of an earlier start holds. `random` makes that file.
    fn system_id(&mut self) -> Option<String> {
        let dir = dirs::sysconfdir().join("openvswitch");
        let file = dir.join("system-id.conf");
        match self.o.system_id.as_deref() {
            None | Some("") => None,
            Some("random") => {
                let old = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
                if !old.is_empty() {
                    return Some(old);
                }
                let id = Uuid::random().to_string();
                let written =
                    std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, format!("{id}\n")));
                if let Err(e) = written {
                    self.failed(&format!("missing {}, which the next start needs: {e}", file.display()));
                }
                Some(id)
            }
            Some(id) => Some(id.to_owned()),
        }
    }

    /// `--system-type` or `--system-version`, its file, or what the system says of itself (os-release(5)).
    fn system(&self, what: &str, option: Option<&String>) -> Option<String> {
        let file = dirs::sysconfdir().join("openvswitch").join(format!("{what}.conf"));
        let text = |s: String| Some(s.trim().to_owned()).filter(|s| !s.is_empty());
        option.cloned().and_then(text).or_else(|| text(std::fs::read_to_string(file).ok()?)).or_else(|| {
            let os = std::fs::read_to_string("/etc/os-release").ok()?;
            let key = if what == "system-type" { "ID=" } else { "VERSION_ID=" };
            let value = os.lines().find_map(|l| l.strip_prefix(key))?;
            text(value.trim_matches(['"', '\'']).to_owned()).or_else(|| Some("unknown".into()))
        })
    }

    /// Records the host's name, once.
    fn record_hostname(&mut self) -> bool {
        let known = self.ask_vsctl(&["get", "Open_vSwitch", ".", "external-ids:hostname"]);
        if known.is_some() {
            return true;
        }
        let name = |args: &[&str]| {
            let out = Command::new("hostname").args(args).stdin(Stdio::null()).output().ok()?;
            let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            (out.status.success() && !text.is_empty()).then_some(text)
        };
        let full = if self.o.full_hostname { name(&["-f"]) } else { None };
        let kernels =
            || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|s| s.trim().to_owned());
        let Some(host) = full.or_else(|| name(&[])).or_else(kernels) else {
            self.failed("the host's name is not known; set external-ids:hostname of Open_vSwitch");
            return false;
        };
        self.vsctl(&["set", "Open_vSwitch", ".", &format!("external-ids:hostname={}", quote(&host))])
    }

    fn delete_transient_ports(&mut self) -> bool {
        let found =
            self.ask_vsctl(&["--bare", "--columns=name", "find", "port", "other_config:transient=true"]);
        let Some(names) = found else { return false };
        let mut done = true;
        for name in names.lines().filter(|n| !n.is_empty()) {
            done &= self.vsctl(&["del-port", name]);
        }
        done
    }

    fn start_switch(&mut self, saved: Option<&flows::Saved>) -> bool {
        if running(SWITCH).is_some() {
            self.io.out("ovs-vswitchd is already running.\n");
            // It attaches to whoever takes the place of the one that it had.
            return !(self.uses_datapath() && has_died(DATAPATH)) || self.start_datapath();
        }
        let own = self.uses_datapath() && (pidfile(DATAPATH).exists() || self.wants_datapath());
        let datapath = match (own, running(DATAPATH)) {
            (true, _) => self.start_datapath(),
            (false, Some(_)) => self.stop_daemon(DATAPATH),
            (false, None) => true,
        };
        if !datapath {
            return false;
        }
        let wait = saved.is_some_and(|s| !s.is_empty());
        if wait {
            self.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"]);
        }
        let mut args = vec![format!("unix:{}", self.o.db_sock)];
        args.extend(["-vconsole:emer", "-vsyslog:err", "-vfile:info"].map(String::from));
        if self.o.mlockall {
            args.push("--mlockall".into());
        }
        if own {
            args.push("--datapath-socket".into());
        }
        let started = self.daemon(SWITCH, args, &self.o.switch);
        if let Some(saved) = saved.filter(|_| wait) {
            if started {
                self.io.out("Restoring saved flows");
                let errors = saved.restore();
                self.io.out(if errors.is_empty() { ".\n" } else { " ... failed!\n" });
                self.io.err(errors);
            }
            self.vsctl(&["remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait=true"]);
        }
        started
    }

    fn start_datapath(&mut self) -> bool {
        if running(DATAPATH).is_some() {
            self.io.out(format!("{DATAPATH} is already running.\n"));
            return true;
        }
        let mut args: Vec<String> =
            ["-vconsole:emer", "-vsyslog:err", "-vfile:info"].map(String::from).into();
        if self.o.mlockall {
            args.push("--mlockall".into());
        }
        let how = DaemonOptions { more: String::new(), ..self.o.switch.clone() };
        self.daemon(DATAPATH, args, &how)
    }

    fn stop(&mut self) -> bool {
        let mut switch = !self.o.ovs_vswitchd || self.stop_daemon(SWITCH);
        if self.o.ovs_vswitchd && self.uses_datapath() {
            switch &= self.stop_datapath();
        }
        let server = !self.o.ovsdb_server || self.stop_daemon(SERVER);
        switch && server
    }

    /// Whether a datapath process is our matter.
    fn uses_datapath(&self) -> bool {
        self.o.datapath_process != Some(false)
    }

    /// Whether one is to be started where none was: asked for, or nobody else is to forward bridges of the default type.
    fn wants_datapath(&self) -> bool {
        self.o.datapath_process.unwrap_or_else(|| ib_dp_kernel::genl::NetlinkTransport::open().is_err())
    }

    fn stop_datapath(&mut self) -> bool {
        if has_died(DATAPATH) {
            // Its monitor may be about to start it again: without a pidfile it does not.
            let _ = std::fs::remove_file(pidfile(DATAPATH));
        }
        running(DATAPATH).is_none() || self.stop_daemon(DATAPATH)
    }

    /// Asks a daemon to exit, then tells it, then ends it.
    fn stop_daemon(&mut self, name: &str) -> bool {
        let Some(pid) = running(name) else {
            self.io.out(format!("{name} is not running.\n"));
            return true;
        };
        self.io.out(format!("Exiting {name} ({pid})"));
        let socket = dirs::rundir().join(format!("{name}.{pid}.ctl"));
        let mut ask = tool("ovs-appctl");
        ask.args(["-T", "1", "-t"]).arg(socket).arg("exit").stdin(Stdio::null());
        let asked = ask.output().is_ok_and(|out| out.status.success());
        let ended = (asked && gone(pid))
            || [signo::TERM, signo::KILL].iter().any(|signo| {
                if *signo == signo::KILL {
                    // A monitor takes it for a crash otherwise.
                    let _ = std::fs::remove_file(pidfile(name));
                }
                // A process that has just gone is what was wanted.
                let _ = process::kill(pid, *signo);
                gone(pid)
            });
        self.io.out(if ended { ".\n" } else { " ... failed!\n" });
        ended
    }

    /// Stops and starts; a datapath process goes on unless `forwarding` is to begin anew too.
    fn restart(&mut self, forwarding: bool) -> bool {
        let saved = if self.o.ovs_vswitchd && running(SWITCH).is_some() {
            let bridges = self.ask_vsctl(&["list-br"]).unwrap_or_default();
            let saved = flows::Saved::take(bridges.lines());
            if !saved.is_empty() {
                self.io.out("Saving flows.\n");
            }
            Some(saved)
        } else {
            None
        };
        // The switch is down for no longer than it takes to start it again.
        let database = !self.o.ovsdb_server || (self.stop_daemon(SERVER) && self.start_database());
        let mut switch = !self.o.ovs_vswitchd || self.stop_daemon(SWITCH);
        if forwarding && self.o.ovs_vswitchd && self.uses_datapath() {
            switch &= self.stop_datapath();
        }
        database && switch && self.start(saved.as_ref())
    }

    fn status(&mut self) -> bool {
        let mut all = true;
        let datapath = pidfile(DATAPATH).exists().then_some(DATAPATH);
        for name in [SERVER, SWITCH].into_iter().chain(datapath) {
            match running(name) {
                Some(pid) => self.io.out(format!("{name} is running with pid {pid}\n")),
                None => {
                    self.io.out(format!("{name} is not running\n"));
                    all = false;
                }
            }
        }
        all
    }

    fn versions(&mut self) -> bool {
        self.step("", SERVER, &["--version"]) && self.step("", SWITCH, &["--version"])
    }

    /// Lets iptables accept a protocol, unless a rule of the administrator speaks of it.
    fn enable_protocol(&mut self) -> bool {
        let o = self.o;
        let mut rule = vec!["-p", o.protocol.as_str()];
        let mut what = o.protocol.clone();
        for (option, port, text) in [("--sport", &o.sport, "source"), ("--dport", &o.dport, "destination")] {
            if !port.is_empty() {
                rule.extend([option, port.as_str()]);
                what.push_str(&format!(" with {text} port {port}"));
            }
        }
        let iptables = |args: &[&str]| Command::new("iptables").args(args).stdin(Stdio::null()).output();
        let Ok(listed) = iptables(&["-n", "-L", "INPUT"]) else {
            self.io.out(format!("iptables binary not installed, not adding a rule for {what}.\n"));
            return true;
        };
        if !listed.status.success() {
            self.io.out(format!("cannot list iptables rules, not adding a rule for {what}.\n"));
            return true;
        }
        let rules = String::from_utf8_lossy(&listed.stdout).into_owned();
        let speaks = rules.lines().any(|l| l.split_whitespace().nth(1) == Some(o.protocol.as_str()));
        if speaks {
            self.io.out(format!("iptables already has a rule for {what}, not explicitly enabling.\n"));
            return true;
        }
        self.io.out(format!("Enabling {what} with iptables"));
        let done = iptables(&[&["-I", "INPUT"], rule.as_slice(), &["-j", "ACCEPT"]].concat())
            .is_ok_and(|out| out.status.success());
        self.io.out(if done { ".\n" } else { " ... failed!\n" });
        done
    }
}

/// Numbers of signals.
mod signo {
    pub const TERM: i32 = 15;
    pub const KILL: i32 = 9;
}

/// A word as `ovs-vsctl` reads a string, whatever is in it.
fn quote(text: &str) -> String {
    ib_base::json::Json::from(text).to_string()
}

/// The version of the schema that the program brings.
fn schema_version() -> String {
    ib_ovsdb::Schema::parse(schemas::VSWITCH).map(|s| s.version.to_string()).unwrap_or_default()
}
