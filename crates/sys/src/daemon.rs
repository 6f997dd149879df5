//! Daemons: `--detach`, `--monitor`, `--pidfile` and their kin.
//!
//! A daemon reads its options into [`Daemon`], calls [`Daemon::start`], makes its sockets, and calls
//! [`Daemon::complete`]. With `--detach` the process that the user started waits in `start` and exits only when the
//! child has called `complete`, or died. With `--monitor` a process stays between the two that starts the daemon again
//! when it crashes. Until `start` returns there must be one thread only: it forks.
//!
//! ```no_run
//! use ib_base::getopt::Getopt;
//! use ib_sys::daemon::{self, Daemon};
//! let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
//! let mut daemon = Daemon::new("ovs-vswitchd");
//! let mut opts = Getopt::new("ovs-vswitchd", &args, "hV", &[]).with(daemon::OPTIONS).with(daemon::VLOG_OPTIONS);
//! for found in opts.by_ref() {
//!     let found = found.unwrap();
//!     if !daemon.option(&found).unwrap() {
//!         // an option of one's own
//!     }
//! }
//! daemon.start();
//! // ... listen ...
//! daemon.complete();
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use ib_base::errno::strerror;
use ib_base::getopt::{Found, HasArg, LongOpt};
use ib_base::vlog::module::DAEMON_UNIX;
use ib_base::vlog::{self, Destination, Level};
use ib_base::{vlog_err, vlog_info, vlog_warn};

use crate::process::{self, Fork, User};
use crate::{dirs, pidfile, signal};

// Option numbers, above all letters.
const BASE: u32 = 0x0010_0000;
const DETACH: u32 = BASE;
const NO_CHDIR: u32 = BASE + 1;
const PIDFILE: u32 = BASE + 2;
const OVERWRITE_PIDFILE: u32 = BASE + 3;
const MONITOR: u32 = BASE + 4;
const USER: u32 = BASE + 5;
const NO_SELF_CONFINEMENT: u32 = BASE + 6;
const LOG_FILE: u32 = BASE + 7;
const SYSLOG_TARGET: u32 = BASE + 8;
const SYSLOG_METHOD: u32 = BASE + 9;
const VERBOSE: u32 = 'v' as u32;

/// The daemon options of all daemons (and of `ovs-ofctl monitor`, `ovsdb-client monitor`...).
pub const OPTIONS: &[LongOpt] = &[
    LongOpt::new("detach", HasArg::No, DETACH),
    LongOpt::new("no-self-confinement", HasArg::No, NO_SELF_CONFINEMENT),
    LongOpt::new("no-chdir", HasArg::No, NO_CHDIR),
    LongOpt::new("pidfile", HasArg::Optional, PIDFILE),
    LongOpt::new("overwrite-pidfile", HasArg::No, OVERWRITE_PIDFILE),
    LongOpt::new("monitor", HasArg::No, MONITOR),
    LongOpt::new("user", HasArg::Required, USER),
];

/// The log options of all programs. Their short form is `v::`.
pub const VLOG_OPTIONS: &[LongOpt] = &[
    LongOpt::new("verbose", HasArg::Optional, VERBOSE),
    LongOpt::new("log-file", HasArg::Optional, LOG_FILE),
    LongOpt::new("syslog-method", HasArg::Required, SYSLOG_METHOD),
    LongOpt::new("syslog-target", HasArg::Required, SYSLOG_TARGET),
];

/// What `--help` says about [`OPTIONS`].
pub fn usage(program: &str) -> String {
    format!(
        "\nDaemon options:\n  \
         --detach                run in background as daemon\n  \
         --monitor               creates a process to monitor this daemon\n  \
         --user=username[:group] changes the effective daemon user:group\n  \
         --no-chdir              do not chdir to '/'\n  \
         --pidfile[=FILE]        create pidfile (default: {}/{program}.pid)\n  \
         --overwrite-pidfile     with --pidfile, start even if already running\n",
        dirs::rundir().display()
    )
}

/// What `--help` says about [`VLOG_OPTIONS`].
pub fn vlog_usage(program: &str) -> String {
    format!(
        "\nLogging options:\n  \
         -vSPEC, --verbose=SPEC   set logging levels\n  \
         -v, --verbose            set maximum verbosity level\n  \
         --log-file[=FILE]        enable logging to specified FILE\n                           \
         (default: {}/{program}.log)\n  \
         --syslog-method=(libc|unix:file|udp:ip:port)\n                           \
         specify how to send messages to syslog daemon\n  \
         --syslog-target=HOST:PORT  also send syslog msgs to HOST:PORT via UDP\n",
        dirs::logdir().display()
    )
}

/// Applies an option of [`VLOG_OPTIONS`]; false if it is another. The error is the line for the user, with the
/// program's name before it as `getopt`'s errors have.
pub fn vlog_option(program: &str, found: &Found) -> Result<bool, String> {
    match found.id {
        VERBOSE => {
            let spec = found.arg.is_some().then(|| found.arg_str());
            let full = |e| format!("{program}: processing \"{}\": {e}", found.arg_str());
            vlog::set_verbosity(spec.as_deref()).map_err(full)?;
        }
        LOG_FILE => {
            let path = match &found.arg {
                Some(arg) => dirs::in_dir(&dirs::logdir(), arg),
                None => dirs::logdir().join(format!("{program}.log")),
            };
            // A program that was to log and cannot does not start; a warning has told why.
            if vlog::set_log_file(&path).is_err() {
                signal::exit(1);
            }
        }
        SYSLOG_METHOD => vlog::set_syslog_method(&found.arg_str()).map_err(|e| format!("{program}: {e}"))?,
        SYSLOG_TARGET => vlog::set_syslog_target(&found.arg_str()),
        _ => return Ok(false),
    }
    Ok(true)
}

/// The way a daemon starts.
#[derive(Debug)]
pub struct Daemon {
    program: String,
    detach: bool,
    chdir: bool,
    pidfile: Option<PathBuf>,
    overwrite_pidfile: bool,
    monitor: bool,
    /// See [`Daemon::outlive_kills`].
    outlive_kills: bool,
    user: Option<User>,
    /// Writing a byte here lets the parent exit.
    notify: Option<File>,
}

/// Has panics logged: a daemon's standard error leads nowhere.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        ib_base::vlog_emer!(ib_base::vlog::module::UTIL, "{info}");
        before(info);
    }));
}

/// What the parent of a fork learns about the start of its child.
enum Startup {
    Ready,
    Failed(process::Ended),
}

impl Daemon {
    /// A program that stays in the foreground and makes no pidfile, unless options say so.
    pub fn new(program: &str) -> Daemon {
        process::init(program);
        Daemon {
            program: program.to_string(),
            detach: false,
            chdir: true,
            pidfile: None,
            overwrite_pidfile: false,
            monitor: false,
            outlive_kills: false,
            user: None,
            notify: None,
        }
    }

    /// Applies an option of [`OPTIONS`] or [`VLOG_OPTIONS`]; false if it is another. The error is the line for the
    /// user, with the program's name before it as `getopt`'s errors have.
    pub fn option(&mut self, found: &Found) -> Result<bool, String> {
        match found.id {
            DETACH => self.detach = true,
            NO_CHDIR => self.chdir = false,
            PIDFILE => {
                self.pidfile = Some(match &found.arg {
                    Some(arg) => dirs::in_dir(&dirs::rundir(), arg),
                    None => dirs::rundir().join(format!("{}.pid", self.program)),
                });
            }
            OVERWRITE_PIDFILE => self.overwrite_pidfile = true,
            MONITOR => self.monitor = true,
            USER => {
                self.user = Some(
                    User::lookup(&found.arg_str())
                        .map_err(|e| format!("{}: (null): {e}, aborting.", self.program))?,
                )
            }
            NO_SELF_CONFINEMENT => {}
            _ => return vlog_option(&self.program, found),
        }
        Ok(true)
    }

    /// Whether `--detach` was given.
    pub fn detaches(&self) -> bool {
        self.detach
    }

    /// Has `--monitor` start the daemon again also when it was ended by SIGKILL, unless its pidfile was removed before: who
    /// removes that wants it to be gone.
    pub fn outlive_kills(&mut self) {
        self.outlive_kills = true;
    }

    /// Whether `--monitor` was given.
    pub fn monitors(&self) -> bool {
        self.monitor
    }

    /// The pidfile, if there is one.
    pub fn pidfile(&self) -> Option<&PathBuf> {
        self.pidfile.as_ref()
    }

    fn fatal(&self, message: &str) -> ! {
        process::fatal(&DAEMON_UNIX, message)
    }

    /// Detaches, begins to monitor and makes the pidfile, as the options say. Returns in the process that is to do
    /// the daemon's work. Does not return, but exits with OVS's message, if it cannot.
    pub fn start(&mut self) {
        signal::init();
        signal::default_crashes();
        log_panics();
        if let Some(user) = &self.user
            && let Err(e) = user.become_user()
        {
            self.fatal(&format!("cannot change user: {}", strerror(&e)));
        }
        if let Some(path) = self.pidfile.as_ref().filter(|_| !self.overwrite_pidfile) {
            match pidfile::read(path, true) {
                Ok(pid) => self.fatal(&format!("{}: already running as pid {pid}, aborting", path.display())),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {}
                Err(e) => self.fatal(&format!(
                    "{}: pidfile check failed ({}), aborting",
                    path.display(),
                    strerror(&e)
                )),
            }
        }
        if self.detach {
            if let Some((_, startup)) = self.fork_and_wait() {
                match startup {
                    Startup::Ready => std::process::exit(0),
                    Startup::Failed(process::Ended::Exit(code)) if code != 0 => std::process::exit(code),
                    Startup::Failed(ended) => self
                        .fatal(&format!("fork child died before signaling startup ({})", ended.describe())),
                }
            }
            // A session of its own keeps terminals' signals away. It can only fail for a leader, which a new child is not.
            let _ = process::setsid();
        }
        if self.monitor {
            let outer = self.notify.take();
            if let Some((pid, startup)) = self.fork_and_wait() {
                if let Startup::Failed(ended) = startup {
                    match ended {
                        process::Ended::Exit(code) if code != 0 => std::process::exit(code),
                        _ => self.fatal("could not initiate process monitoring"),
                    }
                }
                self.notify = outer;
                self.tell_parent();
                self.post_detach();
                self.monitor_child(pid);
            }
        }
        if let Some(path) = &self.pidfile
            && let Err(e) = pidfile::create(path, self.overwrite_pidfile)
        {
            self.fatal(&format!("{}.tmp: create failed ({})", path.display(), strerror(&e)));
        }
    }

    /// Tells the waiting parent that all is ready, and lets standard input, output and error go if detached.
    pub fn complete(&mut self) {
        self.tell_parent();
        self.post_detach();
    }

    fn tell_parent(&mut self) {
        if let Some(mut notify) = self.notify.take() {
            // A parent that has died does not need to know.
            let _ = notify.write_all(&[0]);
        }
    }

    fn post_detach(&self) {
        if !self.detach {
            return;
        }
        if self.chdir {
            // The root directory is always there.
            let _ = std::env::set_current_dir("/");
        }
        if process::close_standard_fds().is_ok() {
            vlog::set_levels(None, Some(Destination::Console), Level::Off);
        }
    }

    /// Forks. In the parent, waits until the child is ready or dead, and says so; in the child, returns `None`.
    fn fork_and_wait(&mut self) -> Option<(i32, Startup)> {
        let forked = process::pipe(false).and_then(|pipe| Ok((pipe, process::fork()?)));
        let ((mut read, write), fork) = match forked {
            Ok(f) => f,
            Err(e) => self.fatal(&format!("fork failed ({})", strerror(&e))),
        };
        match fork {
            Fork::Child => {
                drop(read);
                self.notify = Some(write);
                signal::forget_files();
                None
            }
            Fork::Parent(pid) => {
                drop(write);
                let mut byte = [0];
                let ready = loop {
                    match read.read(&mut byte) {
                        Ok(n) => break n == 1,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => signal::check(),
                        Err(_) => break false,
                    }
                };
                if ready {
                    return Some((pid, Startup::Ready));
                }
                let ended = loop {
                    match process::wait(pid) {
                        Ok(ended) => break ended,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => self.fatal(&format!("waitpid failed ({})", strerror(&e))),
                    }
                };
                Some((pid, Startup::Failed(ended)))
            }
        }
    }

    /// The monitor's life. Returns in a new daemon process after a crash.
    fn monitor_child(&mut self, mut pid: i32) {
        vlog::set_thread_name("monitor");
        let mut crashes = 0u32;
        let mut status = String::from("healthy");
        let mut last_restart: Option<std::time::Instant> = None;
        let mut startup_failed = None;
        // The monitor dies of a signal at once; it has nothing to clean up.
        signal::watch_none();
        loop {
            process::set_title(&format!("{}: monitoring pid {pid} ({status})", self.program));
            let ended = match startup_failed.take().map_or_else(|| process::wait(pid), Ok) {
                Ok(ended) => ended,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => self.fatal(&format!("waitpid failed ({})", strerror(&e))),
            };
            let told = format!("pid {pid} died, {}", ended.describe());
            let wanted = || {
                let killed = ended.is_killed();
                let goes_on = killed && self.outlive_kills;
                ended.is_crash() || goes_on && self.pidfile.as_ref().is_none_or(|file| file.exists())
            };
            let exit = || -> ! {
                vlog_info!(DAEMON_UNIX, "{told}, exiting");
                std::process::exit(if let process::Ended::Exit(code) = ended { code } else { 0 })
            };
            if !wanted() {
                exit();
            }
            crashes += 1;
            status = format!("{crashes} crashes: {told}");
            if let process::Ended::Signal { core: true, .. } = ended {
                // One core is evidence; a series of them fills the disk.
                process::limit_core_files(Some(0));
            }
            const WAIT: std::time::Duration = std::time::Duration::from_secs(10);
            if let Some(elapsed) = last_restart.map(|t| t.elapsed()).filter(|e| *e < WAIT) {
                vlog_warn!(DAEMON_UNIX, "{status}, waiting until 10 seconds since last restart");
                std::thread::sleep(WAIT - elapsed);
                if !wanted() {
                    exit();
                }
            }
            last_restart = Some(std::time::Instant::now());
            vlog_err!(DAEMON_UNIX, "{status}, restarting");
            match self.fork_and_wait() {
                None => {
                    signal::init();
                    vlog::set_thread_name(&self.program);
                    process::set_title(&self.program);
                    return;
                }
                Some((child, startup)) => {
                    pid = child;
                    if let Startup::Failed(ended) = startup {
                        startup_failed = Some(ended);
                    }
                }
            }
        }
    }
}
