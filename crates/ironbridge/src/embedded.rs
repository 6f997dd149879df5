//! Database, switch and datapath in one process: `ironbridge run`, and what the demonstration stands on.
//!
//! [`Embedded`] runs the loops of the two daemons as threads, each with its own reactor, on the sockets, pidfiles and
//! files that the daemons have: programs around a switch can't tell the difference. Nothing forks. Whoever owns an
//! `Embedded` looks after signals; dropping it ends both loops, the switch first, and takes devices, sockets and
//! pidfiles away. The run directory is process-wide ([`dirs::set_rundir`]), so there is one `Embedded` in a process.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use ib_base::errno::strerror;
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::time::Clock;
use ib_base::vlog;
use ib_netdev::DummyLevel;
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use ib_stream::reactor::Reactor;
use ib_sys::{daemon, dirs, pidfile, process, signal};
use ib_tools::io::Io;

use crate::daemon::stop::Stop;
use crate::daemon::{ovsdb_server, vswitchd};

/// How long a daemon's loop may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database file; made if missing.
    pub database: PathBuf,
    /// Where the database listens or connects to, beside its socket in the run directory.
    pub remotes: Vec<String>,
    /// Dummy devices for tests.
    pub dummy: DummyLevel,
}

/// Told that a loop has ended, from its thread.
pub type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// One daemon's loop in its thread.
struct Service {
    stop: Arc<Stop>,
    end: Receiver<Result<(), String>>,
    pidfile: PathBuf,
    ended: bool,
}

/// Calls it when the thread ends, also by a panic.
struct Bell(OnEnd);

impl Drop for Bell {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Service {
    /// Starts `serve` in a thread called `name` and waits until it is ready.
    fn start(
        name: &'static str,
        on_end: &OnEnd,
        serve: impl FnOnce(&Stop, &dyn Fn()) -> Result<(), String> + Send + 'static,
    ) -> Result<Service, String> {
        let path = dirs::rundir().join(format!("{name}.pid"));
        // A stale one gives way.
        pidfile::create(&path, false).map_err(|e| match pidfile::read(&path, false) {
            Ok(pid) => format!("{}: already running as pid {pid}", path.display()),
            Err(_) => format!("{}: {}", path.display(), strerror(&e)),
        })?;
        let stop = Arc::new(Stop::default());
        let (tell_ready, ready) = mpsc::channel();
        let (tell_end, end) = mpsc::channel();
        let (theirs, bell) = (Arc::clone(&stop), Bell(Arc::clone(on_end)));
        let body = move || {
            let _bell = bell;
            vlog::set_thread_program_name(name);
            let result = serve(&theirs, &move || {
                // The receiver may have lost patience, here and below.
                let _ = tell_ready.send(());
            });
            let _ = tell_end.send(result);
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let mut service = Service { stop, end, pidfile: path, ended: false };
        if let Err(e) = spawned {
            return Err(format!("{name}: {}", strerror(&e)));
        }
        match ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(service),
            Err(RecvTimeoutError::Timeout) => Err(format!("{name} was not ready in time")),
            Err(RecvTimeoutError::Disconnected) => {
                let why = service.join().err().unwrap_or_else(|| "ended at once".into());
                Err(format!("{name}: {why}"))
            }
        }
    }

    /// Whether the loop has ended by itself.
    fn has_ended(&mut self) -> bool {
        match self.end.try_recv() {
            Err(mpsc::TryRecvError::Empty) => self.ended,
            _ => {
                self.ended = true;
                true
            }
        }
    }

    fn join(&mut self) -> Result<(), String> {
        let result = match self.end.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err("did not end in time".into()),
            Err(RecvTimeoutError::Disconnected) => Err("crashed".into()),
        };
        self.ended = true;
        result
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.request();
        if !self.ended {
            // Why it ended is in the log; one that does not end is left behind with the process.
            let _ = self.join();
        }
        pidfile::remove(&self.pidfile);
    }
}

/// Both daemons. See the module's text.
pub struct Embedded {
    // Dropped in this order: the switch takes leave of the database.
    switch: Service,
    database: Service,
}

impl Embedded {
    /// Starts both and returns when the first configuration is in force. The error is a sentence.
    pub fn start(config: &Config, on_end: &OnEnd) -> Result<Embedded, String> {
        make_database(&config.database)?;
        let socket = dirs::rundir().join("db.sock");
        let mut remotes = vec![
            format!("punix:{}", socket.display()),
            "db:Open_vSwitch,Open_vSwitch,manager_options".to_owned(),
        ];
        remotes.extend(config.remotes.iter().cloned());
        let file = config.database.clone();
        let database = Service::start("ovsdb-server", on_end, move |stop, ready| {
            ovsdb_server::serve_embedded(&file, &remotes, stop, ready)
        })?;
        let (code, _, errors) = tool("ovs-vsctl --no-wait init");
        if code != 0 {
            return Err(errors.trim_end().to_owned());
        }
        let options = vswitchd::Options {
            remote: format!("unix:{}", socket.display()),
            unixctl: None,
            dummy: config.dummy,
            dummy_numa: None,
            disable_system: false,
            disable_system_route: false,
            lock_memory: false,
            datapath_socket: None,
            without_tun: !has_tun(),
        };
        let switch = Service::start("ovs-vswitchd", on_end, move |stop, ready| {
            vswitchd::serve(&options, Some(stop), ready).map(drop).map_err(|e| strerror(&e))
        })?;
        Ok(Embedded { switch, database })
    }

    /// Whether one of the two has ended: `ovs-appctl exit`, or an error that the log tells.
    pub fn has_ended(&mut self) -> bool {
        self.switch.has_ended() || self.database.has_ended()
    }
}

/// Whether TAP devices can be made.
pub fn has_tun() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok()
}

/// Makes the database file unless it is there.
fn make_database(path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let schema = Schema::parse(ib_ovsdb::schemas::VSWITCH).map_err(|e| e.to_string())?;
    Database::create(path, schema, None).map(drop).map_err(|e| e.to_string())
}

/// Runs a line of a tool in this process: exit code, output, errors. Words are split at blanks; a word or a part of one
/// in single quotes stays whole.
pub fn tool(line: &str) -> (i32, String, String) {
    let args: Vec<OsString> = split_words(line).into_iter().map(OsString::from).collect();
    let Some(run) = args.first().and_then(|name| crate::find(&name.to_string_lossy())) else {
        return (127, String::new(), format!("{line}: no such program"));
    };
    // What the tool sets for itself concerns this thread, or nobody after it.
    let _levels = vlog::keep_levels();
    vlog::set_thread_program_name(&args[0].to_string_lossy());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut stdin: &[u8] = b"";
    let code = run(&args, &mut Io { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr });
    vlog::set_thread_program_name("");
    (code, String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn split_words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A directory that only this user can enter and that goes away with its owner.
#[derive(Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// Makes one in the directory for temporary files.
    pub fn new(stem: &str) -> Result<PrivateDir, String> {
        let base = std::env::temp_dir();
        for n in 0..1000 {
            let dir = base.join(format!("{stem}-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(PrivateDir(dir)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(format!("{}: {}", dir.display(), strerror(&e))),
            }
        }
        Err(format!("{}: no free name for a directory", base.display()))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // What can't be removed would be nobody's fault to fix now.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// The program.

const RUNDIR: u32 = 256;
const DB: u32 = 257;
const REMOTE: u32 = 258;
const DUMMY: u32 = 259;

const LONG: &[LongOpt] = &[
    LongOpt::new("rundir", HasArg::Required, RUNDIR),
    LongOpt::new("db", HasArg::Required, DB),
    LongOpt::new("remote", HasArg::Required, REMOTE),
    LongOpt::new("enable-dummy", HasArg::Optional, DUMMY),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

const HELP: &str = "\
ironbridge run: database, switch and datapath in one process
usage: ironbridge run [OPTION]...

Runs what ovsdb-server and ovs-vswitchd run, in the foreground, on the same sockets
and files, so that ovs-vsctl, ovs-ofctl, ovs-appctl and controllers work with it as
with the two daemons. Good for a laptop, a container or a test; a machine that is to
keep its network when a daemon restarts runs the two daemons instead.

It ends on Ctrl-C, SIGTERM or `ovs-appctl exit`, and then takes away its network
devices, sockets and pidfiles. It needs root to use the machine's devices.

Options:
  --rundir=DIR            where sockets and pidfiles lie; made if missing
                          (default: $OVS_RUNDIR, else a new private directory
                          that is removed at the end)
  --db=FILE               the database; made if missing, kept at the end
                          (default: conf.db in the run directory)
  --remote=REMOTE         also serve the database on REMOTE, as ovsdb-server's
                          option: ptcp:6640, punix:FILE, tcp:HOST:PORT, ...
                          (any number of times)
  --enable-dummy[=KIND]   devices and datapaths for tests, as ovs-vswitchd's option
                          (KIND: override or system)
";

const HELP_TAIL: &str = "
Other options:
  -h, --help              display this help message
  -V, --version           display version information

Exit status: 0 after an ordinary end, 1 if something could not be started or has failed.

Environment:
  OVS_RUNDIR              the run directory, for this program and the tools

Example:
  ironbridge links ~/bin                  # once: ovs-vsctl, ovs-ofctl, ... as links
  ironbridge run --rundir=/tmp/ib &
  export OVS_RUNDIR=/tmp/ib
  ovs-vsctl add-br br0 -- add-port br0 eth1
  ovs-appctl exit
";

#[derive(Debug, Default)]
struct Settings {
    rundir: Option<PathBuf>,
    database: Option<PathBuf>,
    remotes: Vec<String>,
    dummy: Option<String>,
}

fn parse(args: &[OsString], io: &mut Io<'_>) -> Result<Settings, i32> {
    let mut settings = Settings::default();
    let mut opts = Getopt::new("ironbridge run", args, "hVv::", LONG).with(daemon::VLOG_OPTIONS);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            io.err(format!("{e}\n"));
            1
        })?;
        match found.id {
            RUNDIR => settings.rundir = Some(found.arg_str().into()),
            DB => settings.database = Some(found.arg_str().into()),
            REMOTE => settings.remotes.push(found.arg_str()),
            DUMMY => settings.dummy = Some(found.arg_str()),
            id if id == 'h' as u32 => {
                io.out(format!("{HELP}{}{HELP_TAIL}", daemon::vlog_usage("ironbridge")));
                return Err(0);
            }
            id if id == 'V' as u32 => {
                io.out(ib_tools::io::version_text("ironbridge run", ""));
                return Err(0);
            }
            _ => {
                if let Err(e) = daemon::vlog_option("ironbridge", &found) {
                    io.err(format!("{e}\n"));
                    return Err(1);
                }
            }
        }
    }
    if let Some(extra) = opts.rest_str().first() {
        return Err(io.fatal("ironbridge run", format!("unexpected argument \"{extra}\" (see --help)")));
    }
    Ok(settings)
}

/// Makes the run directory known to the process; the guard of one that is to be removed.
fn choose_rundir(wanted: Option<PathBuf>) -> Result<Option<PrivateDir>, String> {
    let from_environment = std::env::var_os("OVS_RUNDIR").filter(|v| !v.is_empty()).map(PathBuf::from);
    match wanted.or(from_environment) {
        Some(dir) => {
            let text = |e| format!("{}: {}", dir.display(), strerror(&e));
            std::fs::create_dir_all(&dir).map_err(text)?;
            let dir = std::path::absolute(&dir).map_err(text)?;
            dirs::set_rundir(&dir);
            Ok(None)
        }
        None => {
            let made = PrivateDir::new("ironbridge")?;
            dirs::set_rundir(made.path());
            Ok(Some(made))
        }
    }
}

/// The program `ironbridge run`; `args` begin with its name.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    process::init("ironbridge");
    // What goes well is not for the terminal, unless -v asks for it.
    vlog::set_levels(None, Some(vlog::Destination::Console), vlog::Level::Warn);
    let settings = match parse(args.get(1..).unwrap_or_default(), io) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match serve(settings, io) {
        Ok(()) => 0,
        Err(why) => io.fatal("ironbridge run", why),
    }
}

fn serve(settings: Settings, io: &mut Io<'_>) -> Result<(), String> {
    signal::hold();
    let guard = choose_rundir(settings.rundir)?;
    let rundir = dirs::rundir();
    let database = match settings.database {
        Some(file) => std::path::absolute(&file).map_err(|e| strerror(&e))?,
        None => rundir.join("conf.db"),
    };
    let kept = guard.as_ref().is_none_or(|dir| !database.starts_with(dir.path()));
    let dummy = match settings.dummy.as_deref() {
        None => DummyLevel::None,
        Some("override") => DummyLevel::Override,
        Some("system") => DummyLevel::System,
        Some(_) => DummyLevel::Normal,
    };
    let config = Config { database: database.clone(), remotes: settings.remotes, dummy };
    let mut reactor = Reactor::new(&Clock::new()).map_err(|e| strerror(&e))?;
    reactor.watch_signals().map_err(|e| strerror(&e))?;
    let (handle, key) = (reactor.handle().clone(), reactor.handle().new_key());
    let on_end: OnEnd = Arc::new(move || handle.wake(key));
    let mut embedded = Embedded::start(&config, &on_end)?;
    io.out(format!(
        "Switch and database are ready (pid {}); Ctrl-C, SIGTERM or `ovs-appctl exit` ends them.\n",
        std::process::id()
    ));
    io.out(format!("Database: {} ({})\n", database.display(), if kept { "kept" } else { "goes at the end" }));
    if !ib_sys::netns::is_root() {
        io.out("Not root: the machine's network devices are out of reach; patch and dummy ports work.\n");
    }
    if !has_tun() {
        io.out(
            "No /dev/net/tun: bridges forward, but their own ports do not reach the host's network stack.\n",
        );
    }
    io.out(format!(
        "In another terminal:\n  \
         {} links ~/.local/bin    # once: the tools under their own names\n  \
         export OVS_RUNDIR={}\n  \
         ovs-vsctl add-br br0 -- add-port br0 eth1 && ovs-vsctl show\n",
        own_name(),
        rundir.display()
    ));
    // Someone may wait for these lines at the other end of a pipe.
    let _ = io.stdout.flush();
    while signal::held().is_none() && !embedded.has_ended() {
        reactor.wait(None).map_err(|e| strerror(&e))?;
    }
    drop(embedded);
    Ok(())
}

/// The way to call this program again.
pub fn own_name() -> String {
    let path = std::env::current_exe().map(|p| p.display().to_string());
    path.unwrap_or_else(|_| "ironbridge".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        assert_eq!(split_words("a  b 'c d' e='f g'"), ["a", "b", "c d", "e=f g"]);
        assert_eq!(split_words(" '' "), [""]);
    }

    #[test]
    fn private_directories_are_private_and_go() {
        use std::os::unix::fs::PermissionsExt;
        let (a, b) = (PrivateDir::new("ib-private").unwrap(), PrivateDir::new("ib-private").unwrap());
        assert_ne!(a.path(), b.path());
        assert_eq!(a.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(a.path().join("file"), "x").unwrap();
        let path = a.path().to_path_buf();
        drop(a);
        assert!(!path.exists());
    }
}
