//! `ovsdb-server`: the database server as a daemon.
//!
//! The work is done by [`ib_ovsdb::server::Server`], which knows no sockets. This module and its children give it
//! some: [`remotes`] decides what to listen on and connect to and moves messages, [`commands`] are the control socket's.
//! One thread, one loop; a turn costs in proportion to the sessions that have something to say.

mod commands;
mod compaction;
mod config;
mod copying;
mod remotes;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::stop::Stop;
use compaction::Compactions;
use copying::Copying;
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::memory::{Monitor, Usage};
use ib_base::replay;
use ib_base::time::{Clock, Instant, machine_wall_ms};
use ib_base::vlog::module::{MEMORY, OVSDB_SERVER, TRANSACTION};
use ib_base::{coverage, vlog_err, vlog_info, vlog_info_rl};
use ib_ovsdb::database::Database;
use ib_ovsdb::server::{Now, SERVER_DATABASE, Server};
use ib_stream::reactor::{Handle, Reactor};
use ib_stream::tls;
use ib_stream::unixctl::{self, standard};
use ib_sys::daemon::{self, Daemon};
use ib_sys::lockfile::LockFile;
use ib_sys::{dirs, signal};
use ib_tools::io::{Io, argv0};
use remotes::Remotes;
use sources::{SourceOptions, Sources};

const PROGRAM: &str = "ovsdb-server";

const OPT_REMOTE: u32 = 256;
const OPT_UNIXCTL: u32 = 257;
const OPT_RUN: u32 = 258;
const OPT_NO_DBS: u32 = 259;
const OPT_CONFIG_FILE: u32 = 260;
const OPT_FILE_DIFF: u32 = 261;
const OPT_RECORD: u32 = 262;
const OPT_DUMMY: u32 = 263;
const OPT_SYNC_FROM: u32 = 265;
const OPT_SYNC_EXCLUDE: u32 = 266;
const OPT_ACTIVE: u32 = 267;
const OPT_REPLAY: u32 = 268;

const OPTIONS: &[LongOpt] = &[
    LongOpt::new("remote", HasArg::Required, OPT_REMOTE),
    LongOpt::new("unixctl", HasArg::Required, OPT_UNIXCTL),
    LongOpt::new("run", HasArg::Required, OPT_RUN),
    LongOpt::new("no-dbs", HasArg::No, OPT_NO_DBS),
    LongOpt::new("config-file", HasArg::Required, OPT_CONFIG_FILE),
    LongOpt::new("disable-file-column-diff", HasArg::No, OPT_FILE_DIFF),
    LongOpt::new("disable-file-no-data-conversion", HasArg::No, OPT_DUMMY),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
    LongOpt::new("sync-from", HasArg::Required, OPT_SYNC_FROM),
    LongOpt::new("sync-exclude-tables", HasArg::Required, OPT_SYNC_EXCLUDE),
    LongOpt::new("active", HasArg::No, OPT_ACTIVE),
    LongOpt::new("record", HasArg::Optional, OPT_RECORD),
    LongOpt::new("replay", HasArg::Optional, OPT_REPLAY),
];

/// What the command line asks for.
#[derive(Default)]
struct Settings {
    databases: Vec<String>,
    remotes: Vec<String>,
    unixctl: Option<String>,
    run: Option<String>,
    config_file: Option<PathBuf>,
    no_file_diff: bool,
    sync_from: Option<String>,
    sync_exclude: Option<String>,
    active: bool,
    tls: tls::Settings,
    replay: Option<(replay::Mode, PathBuf)>,
}

/// The daemon's state, which the control socket's commands work on.
pub(crate) struct App {
    pub server: Server,
    pub remotes: Remotes,
    pub sources: Sources,
    pub copying: Copying,
    /// Where each database is kept, by name.
    pub files: BTreeMap<String, PathBuf>,
    pub clock: Clock,
    pub config_file: Option<PathBuf>,
    pub no_file_diff: bool,
    pub exiting: Option<unixctl::Call>,
    pub compactions: Compactions,
}

fn usage() -> String {
    format!(
        "{PROGRAM}: Open vSwitch database server\n\
         usage: {PROGRAM} [OPTIONS] [DATABASE...]\n\
         where each DATABASE is a database file in ovsdb format.\n\
         The default DATABASE, if none is given, is\n{}.\n\
         {CONNECTION_USAGE}{}{}{OTHER_USAGE}",
        dirs::dbdir().join("conf.db").display(),
        daemon::usage(PROGRAM),
        daemon::vlog_usage(PROGRAM)
    )
}

const CONNECTION_USAGE: &str = "
JSON-RPC options (may be specified any number of times):
  --remote=REMOTE         connect or listen to REMOTE

Active JSON-RPC connection methods:
  tcp:HOST:PORT           PORT at remote HOST
  ssl:HOST:PORT           SSL/TLS PORT at remote HOST
  unix:FILE               Unix domain socket named FILE
Passive JSON-RPC connection methods:
  ptcp:PORT[:IP]          listen to TCP PORT on IP
  pssl:PORT[:IP]          listen for SSL/TLS on PORT on IP
  punix:FILE              listen on Unix domain socket FILE
PKI configuration (required to use SSL/TLS):
  -p, --private-key=FILE  file with private key
  -c, --certificate=FILE  file with certificate for private key
  -C, --ca-cert=FILE      file with peer CA certificate
  --bootstrap-ca-cert=FILE  file with peer CA certificate to read or create
SSL/TLS options:
  --ssl-protocols=PROTOS    range of SSL/TLS protocols to enable
  --ssl-ciphers=CIPHERS     list of SSL/TLS ciphers to enable
  --ssl-ciphersuites=SUITES list of SSL/TLS ciphersuites to
                            enable with TLSv1.3+
  --ssl-server-name=NAME    server name for TLS Server Name
                            Indication (SNI)

Configuration options:
  --config-file PATH      Use configuration file as a source of
                          database and JSON-RPC connections information.
                          Mutually exclusive with the DATABASE, JSON-RPC
                          --remote and Syncing options.
";

const OTHER_USAGE: &str = "
Syncing options:
  --sync-from=SERVER      sync DATABASE from active SERVER and start in
                          backup mode (except with --active)
  --sync-exclude-tables=DB:TABLE,...
                          exclude the TABLE in DB from syncing
  --active                with --sync-from, start in active mode

Replay options:
  --record[=DIR]            turn on writing replay files
  --replay[=DIR]            run from replay files

Other options:
  --run COMMAND           run COMMAND as subprocess then exit
  --unixctl=SOCKET        override default control socket name
  --no-dbs                do not add default database
  --disable-file-column-diff
                          don't use column diff in database file
  -h, --help              display this help message
  -V, --version           display version information
";

fn fatal(message: impl std::fmt::Display) -> ! {
    ib_sys::process::fatal(&OVSDB_SERVER, &message.to_string())
}

/// Reads the command line, the program's name first. `Err` is the exit code of a program that is to end at once.
fn parse(args: &[OsString], daemon: &mut Daemon, io: &mut Io<'_>) -> Result<Settings, i32> {
    let mut settings = Settings::default();
    let mut no_dbs = false;
    let called = argv0(args);
    let mut options = Getopt::new(&called, args.get(1..).unwrap_or_default(), "p:c:C:hVv::", OPTIONS)
        .with(tls::OPTIONS)
        .with(tls::CA_OPTIONS)
        .with(daemon::OPTIONS)
        .with(daemon::VLOG_OPTIONS);
    for found in options.by_ref() {
        let found = found.map_err(|message| {
            io.err(format!("{message}\n"));
            1
        })?;
        match daemon.option(&found) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(line) => {
                io.err(format!("{line}\n"));
                return Err(1);
            }
        }
        if settings.tls.option(&found) {
            continue;
        }
        match found.id {
            OPT_REMOTE => settings.remotes.push(found.arg_str()),
            OPT_UNIXCTL => settings.unixctl = Some(found.arg_str()),
            OPT_RUN => settings.run = Some(found.arg_str()),
            OPT_NO_DBS => no_dbs = true,
            OPT_CONFIG_FILE => {
                settings.config_file =
                    Some(dirs::in_dir(&dirs::sysconfdir().join("openvswitch"), found.arg_str()));
            }
            OPT_SYNC_FROM => settings.sync_from = Some(found.arg_str()),
            OPT_SYNC_EXCLUDE => {
                settings.sync_exclude = Some(found.arg_str());
            }
            OPT_ACTIVE => settings.active = true,
            OPT_FILE_DIFF => settings.no_file_diff = true,
            OPT_DUMMY => {}
            id if id == 'h' as u32 => {
                io.out(usage());
                return Err(0);
            }
            id if id == 'V' as u32 => {
                io.out(standard::version_line(PROGRAM));
                return Err(0);
            }
            OPT_RECORD => settings.replay = Some((replay::Mode::Record, found.arg_str().into())),
            OPT_REPLAY => settings.replay = Some((replay::Mode::Replay, found.arg_str().into())),
            _ => {}
        }
    }
    settings.databases = options.rest_str();
    if settings.config_file.is_some() {
        let syncing = settings.sync_from.is_some() || settings.sync_exclude.is_some() || settings.active;
        if !settings.databases.is_empty() || !settings.remotes.is_empty() || syncing {
            fatal("--config-file is mutually exclusive with databases and --remote on the command line");
        }
    } else if settings.databases.is_empty() && !no_dbs {
        settings.databases.push(dirs::dbdir().join("conf.db").display().to_string());
    }
    Ok(settings)
}

/// Runs the daemon. `args` begins with the program's name. Returns the exit code.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let mut daemon = Daemon::new(PROGRAM);
    let settings = match parse(args, &mut daemon, io) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if let Some((mode, dir)) = &settings.replay
        && let Err(message) = replay::start(*mode, dir)
    {
        fatal(message);
    }
    daemon.start();
    let clock = Clock::new();
    let mut reactor = match Reactor::new(&clock) {
        Ok(reactor) => reactor,
        Err(e) => fatal(format!("could not make an event loop ({e})")),
    };
    if let Err(e) = reactor.watch_signals() {
        fatal(format!("could not watch signals ({e})"));
    }
    let handle = reactor.handle().clone();
    let mut app = App::new(&clock, &handle);
    app.config_file.clone_from(&settings.config_file);
    app.no_file_diff = settings.no_file_diff;
    // The same words twice are once; the same file by two names is a mistake.
    for file in settings.databases.iter().collect::<BTreeSet<_>>() {
        if let Err(message) = app.open_database(file) {
            fatal(message);
        }
    }
    for remote in &settings.remotes {
        if let Err(message) = app.add_remote(remote) {
            fatal(message);
        }
    }
    if app.config_file.is_some()
        && let Err(message) = app.load_config()
    {
        fatal(message);
    }
    if let Err(message) = app.remotes.set_tls(settings.tls, &app.server) {
        fatal(message);
    }
    app.copying.exclude = settings.sync_exclude.clone().unwrap_or_default();
    if let Some(active) = &settings.sync_from {
        if let Err(message) = ib_ovsdb::server::parse_excluded(&app.copying.exclude) {
            fatal(message);
        }
        app.copying.active.clone_from(active);
        if !settings.active {
            app.become_backup();
        }
    }
    app.reconfigure();
    let path = unixctl::socket_path(PROGRAM, settings.unixctl.as_deref());
    let mut control = match unixctl::Server::<App>::listen(path.as_deref(), &handle) {
        Ok(control) => control,
        Err(_) => return 1,
    };
    control.register(&standard::commands::<App>());
    control.register(commands::COMMANDS);
    let child = settings.run.as_deref().map(|command| spawn(command, &handle));
    daemon.complete();
    if child.is_none() {
        // With --run this is a command rather than a daemon, whose version nobody looks for in a log.
        vlog_info!(OVSDB_SERVER, "{}", standard::version_line(PROGRAM).trim_end());
    }
    let code = serve(&mut app, &mut reactor, &mut control, child.as_ref(), None);
    drop(control);
    app.remotes.close();
    signal::exit(code)
}

/// Serves `file` on `remotes` as a thread of a program that looks after signals itself, until `stop` or `exit`. Calls
/// `ready` when the database can be reached. The error is a sentence.
pub fn serve_embedded(
    file: &Path,
    remotes: &[String],
    stop: &Stop,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let clock = Clock::new();
    let mut reactor = Reactor::new(&clock).map_err(|e| format!("could not make an event loop ({e})"))?;
    let handle = reactor.handle().clone();
    stop.attach(&handle);
    let mut app = App::new(&clock, &handle);
    app.open_database(&file.display().to_string())?;
    for remote in remotes {
        app.add_remote(remote)?;
    }
    app.reconfigure();
    let path = unixctl::socket_path(PROGRAM, None);
    let mut control = unixctl::Server::<App>::listen(path.as_deref(), &handle)
        .map_err(|e| format!("could not make the control socket ({})", ib_base::errno::strerror(&e)))?;
    control.register(&standard::commands::<App>());
    control.register(commands::COMMANDS);
    ready();
    serve(&mut app, &mut reactor, &mut control, None, Some(stop));
    drop(control);
    app.remotes.close();
    Ok(())
}

/// A command that was started: what it is, and where its end is told.
struct Child {
    command: String,
    ended: mpsc::Receiver<std::io::Result<std::process::ExitStatus>>,
}

fn spawn(command: &str, handle: &Handle) -> Child {
    let spawned = std::process::Command::new("/bin/sh").arg("-c").arg(command).spawn();
    let mut process = match spawned {
        Ok(process) => process,
        Err(e) => fatal(format!("{command}: process failed to start ({})", ib_base::errno::strerror(&e))),
    };
    let (tell, ended) = mpsc::channel();
    let (handle, key) = (handle.clone(), handle.new_key());
    let waiter = std::thread::Builder::new().name("child".to_string()).spawn(move || {
        // The receiver lives as long as the daemon.
        let _ = tell.send(process.wait());
        handle.wake(key);
    });
    if let Err(e) = waiter {
        fatal(format!("{command}: process failed to start ({})", ib_base::errno::strerror(&e)));
    }
    Child { command: command.to_string(), ended }
}

fn serve(
    app: &mut App,
    reactor: &mut Reactor,
    control: &mut unixctl::Server<App>,
    child: Option<&Child>,
    stop: Option<&Stop>,
) -> i32 {
    let mut memory = Monitor::new(app.clock.now());
    let mut deadline = Some(Instant::ZERO);
    loop {
        let keys = match reactor.wait(deadline) {
            Ok(keys) => keys.to_vec(),
            Err(e) => fatal(format!("waiting for events failed ({e})")),
        };
        let now = app.clock.now();
        for key in keys {
            if control.owns(key) {
                control.on_ready(key, app);
            } else if app.sources.owns(key) {
                app.sources.ready(key, &mut app.server, now_of(now));
            } else {
                app.remotes.ready(key, &mut app.server, now_of(now));
            }
        }
        app.turn(now);
        if let Some(line) = memory.run(now) {
            vlog_info!(MEMORY, "{line}");
            vlog_info!(MEMORY, "{}", app.usage());
        }
        coverage::run(now);
        if let Some(call) = app.exiting.take() {
            call.ok("");
            control.run(app);
            return 0;
        }
        if stop.is_some_and(Stop::is_requested) {
            return 0;
        }
        if let Some(child) = child
            && let Ok(ended) = child.ended.try_recv()
        {
            return match ended {
                Ok(status) if status.success() => 0,
                Ok(status) => {
                    let how = match status.code() {
                        Some(code) => format!("exit status {code}"),
                        None => ended_by(status),
                    };
                    eprintln!("{PROGRAM}: {}: child exited, {how}", child.command);
                    1
                }
                Err(e) => fatal(format!("{}: waiting failed ({e})", child.command)),
            };
        }
        deadline = app.deadline(memory.deadline());
    }
}

/// The name of a clustered database, as the first record of its file has it.
fn cluster_name(path: &Path) -> Option<String> {
    use std::io::Read;
    // The schema is in it: larger than any there is, but bounded.
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(16 << 20).read_to_string(&mut text).ok()?;
    let header = ib_base::json::Json::parse(text.lines().nth(1)?).ok()?;
    header.get("name")?.as_str().map(str::to_string)
}

/// How a signal ended a process.
fn ended_by(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) => format!("killed ({})", signal::name(signal)),
        None => status.to_string(),
    }
}

/// The time as the server wants it.
pub(crate) fn now_of(now: Instant) -> Now {
    Now { ms: i64::try_from(now.as_ms()).unwrap_or(i64::MAX), wall_ms: machine_wall_ms() }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

impl App {
    fn new(clock: &Clock, handle: &Handle) -> App {
        App {
            server: Server::new(),
            remotes: Remotes::new(handle),
            sources: Sources::new(handle),
            copying: Copying::default(),
            files: BTreeMap::new(),
            clock: clock.clone(),
            config_file: None,
            no_file_diff: false,
            exiting: None,
            compactions: Compactions::new(clock.now()),
        }
    }

    pub(crate) fn now(&self) -> Now {
        now_of(self.clock.now())
    }

    /// Opens a database file and serves it. The error is a sentence.
    pub(crate) fn open_database(&mut self, file: &str) -> Result<(), String> {
        if let Some(rest) = file.strip_prefix("relay:") {
            let (name, remotes) = rest
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("ovsdb error: {file}: invalid syntax"))?;
            if self.server.database_names().any(|n| n == name) {
                return Err(format!("ovsdb error: {file}: already open"));
            }
            return self.add_relay(name, SourceOptions::new(remotes, self.copying.relay_probe_ms));
        }
        let database = self.read_database(file)?;
        self.serve_database(file, database)
    }

    /// Reads a database file that is not served yet. The error is a sentence.
    pub(crate) fn read_database(&self, file: &str) -> Result<Database, String> {
        let path = Path::new(file);
        if self.files.values().any(|f| same_file(f, path)) {
            return Err(format!("ovsdb error: {file}: already open"));
        }
        if ib_ovsdb::log::is_cluster(path) {
            if let Some(name) = cluster_name(path).filter(|n| self.server.database(n).is_some()) {
                return Err(format!("ovsdb error: {name}: duplicate database name"));
            }
            return Err(format!("ovsdb error: {file}: clustered databases are not supported yet"));
        }
        let lock = |path: &Path| -> std::io::Result<Box<dyn Send>> { Ok(Box::new(LockFile::lock(path)?)) };
        let loaded = Database::open(path, true, Some(&lock)).map_err(|e| e.to_string())?;
        if let Some(warning) = &loaded.warning {
            vlog_err!(OVSDB_SERVER, "{warning}");
        }
        let mut database = loaded.database;
        database.write_diffs = !self.no_file_diff;
        Ok(database)
    }

    /// Serves a database that was read from a file. The error is a sentence.
    pub(crate) fn serve_database(&mut self, file: &str, database: Database) -> Result<(), String> {
        let path = Path::new(file);
        let name = database.schema.name.to_string();
        let now = self.now();
        self.server.add_database(database, now).map_err(|e| e.to_string())?;
        // The name must stay right when the daemon changes its directory.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        self.files.insert(name, absolute);
        Ok(())
    }

    /// Stops serving a database.
    pub(crate) fn close_database(&mut self, name: &str) -> bool {
        let now = self.now();
        self.files.remove(name);
        self.stop_file_backup(name);
        if let Some((source, _)) = self.copying.relays.remove(name) {
            self.sources.remove(source);
        }
        self.server.remove_database(name, now).is_some()
    }

    pub(crate) fn add_remote(&mut self, target: &str) -> Result<(), String> {
        self.remotes.add(target, &self.server)
    }

    /// What has to be done once for each turn of the loop.
    fn turn(&mut self, now: Instant) {
        let server_now = now_of(now);
        self.finish_compactions();
        self.remotes.run_timers(now, &mut self.server, server_now);
        self.sources.run_timers(now, &mut self.server, server_now);
        // A transaction may let another go on that waits for it.
        loop {
            self.server.run(server_now);
            if !self.server.has_work() {
                break;
            }
        }
        for line in self.server.tlog_lines.drain(..) {
            vlog_info_rl!(TRANSACTION, (30, 60), "{line}");
        }
        self.remotes.carry_out(&mut self.server, &mut self.sources);
        self.check_copying();
        self.reconfigure();
        self.remotes.update_status(now, &mut self.server, server_now);
        self.remotes.carry_out(&mut self.server, &mut self.sources);
        self.compact_grown(now);
    }

    /// Follows what databases say about remotes.
    pub(crate) fn reconfigure(&mut self) {
        self.remotes.reconfigure(&mut self.server);
        self.remotes.carry_out(&mut self.server, &mut self.sources);
    }

    fn deadline(&self, memory: Instant) -> Option<Instant> {
        let mut deadline = memory;
        if let Some(d) = self.remotes.deadline() {
            deadline = deadline.min(d);
        }
        if let Some(d) = self.sources.deadline() {
            deadline = deadline.min(d);
        }
        if let Some(ms) = self.server.deadline() {
            deadline = deadline.min(Instant::from_ms(u64::try_from(ms).unwrap_or(0)));
        }
        Some(deadline)
    }

    /// The names of databases other than the server's own.
    pub(crate) fn user_databases(&self) -> Vec<String> {
        self.server.database_names().filter(|n| *n != SERVER_DATABASE).map(str::to_string).collect()
    }

    fn usage(&self) -> Usage {
        let memory = self.server.memory();
        let mut usage = Usage::new();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        usage.add("atoms", count(memory.atoms));
        usage.add("cells", count(memory.cells));
        usage.add("monitors", count(memory.monitors));
        usage.add("n-weak-refs", count(memory.weak_refs));
        for (name, n) in [
            ("sessions", memory.sessions),
            ("triggers", memory.triggers),
            ("backlog", self.remotes.backlog()),
        ] {
            if n > 0 {
                usage.add(name, count(n));
            }
        }
        usage
    }
}

impl standard::Standard for App {
    fn memory_usage(&mut self, usage: &mut Usage) {
        for (name, n) in self.usage().iter() {
            usage.add(name, n);
        }
    }
}
