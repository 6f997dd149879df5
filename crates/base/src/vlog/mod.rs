//! The log: Open vSwitch's modules, levels, destinations and patterns.
//!
//! A message has a [`Module`] and a [`Level`] and goes to up to three [`Destination`]s, each with a level for each module
//! and a pattern. The log is the one thing that belongs to the process and not to a daemon's state: everything may
//! log from any thread. A message that nobody wants costs one relaxed load: the macros test before they format. A
//! message that somebody wants costs formatting, one mutex and one `write`; there is no queue, so a line is in the
//! file when the call returns.
//!
//! ```
//! use ib_base::vlog::module::BRIDGE;
//! ib_base::vlog_info!(BRIDGE, "bridge {}: added interface {}", "br0", "p1");
//! ib_base::vlog_warn_rl!(BRIDGE, (1, 5), "at most {} messages at once, one a minute after that", 5);
//! ```
//!
//! WARN, ERR and EMER are for real faults only: test suites and operators take each such line for one.
//!
//! Serial numbers count each thread's messages by themselves, and `%T` names every thread but the main one: see
//! [`set_thread_name`].

pub mod module;
mod pattern;
mod rate;
mod syslog;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

pub use module::{Listing, MODULES, Module};
pub use rate::{RateLimit, Verdict};

use crate::errno::strerror;
use crate::time::{Clock, Instant, machine_wall_ms};
use pattern::{Pattern, Record};
use syslog::Syslog;

/// How grave a message is; also what a destination wants: its level and everything graver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Nothing is logged at this level: it turns a destination off.
    Off = 0,
    /// The process is about to die.
    Emer = 1,
    /// A high-level operation failed.
    Err = 2,
    /// A low-level operation failed, higher levels may recover.
    Warn = 3,
    /// Useful in retrospect.
    Info = 4,
    /// Useful to a developer.
    Dbg = 5,
}

const LEVELS: [Level; 6] = [Level::Off, Level::Emer, Level::Err, Level::Warn, Level::Info, Level::Dbg];

impl Level {
    /// The name as in log lines and `vlog/list`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "OFF",
            Level::Emer => "EMER",
            Level::Err => "ERR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Dbg => "DBG",
        }
    }

    /// The level of that name, in any case.
    pub fn by_name(name: &str) -> Option<Level> {
        LEVELS.into_iter().find(|l| l.name().eq_ignore_ascii_case(name))
    }

    fn from_u8(n: u8) -> Level {
        LEVELS.get(usize::from(n)).copied().unwrap_or(Level::Off)
    }

    fn syslog_severity(self) -> u32 {
        match self {
            Level::Off | Level::Emer => 1,
            Level::Err => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Dbg => 7,
        }
    }
}

/// Where messages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The system's log.
    Syslog = 0,
    /// Standard error.
    Console = 1,
    /// The file of `--log-file`.
    File = 2,
}

const DESTINATIONS: [Destination; 3] = [Destination::Syslog, Destination::Console, Destination::File];

impl Destination {
    fn name(self) -> &'static str {
        match self {
            Destination::Syslog => "syslog",
            Destination::Console => "console",
            Destination::File => "file",
        }
    }

    fn by_name(name: &str) -> Option<Destination> {
        DESTINATIONS.into_iter().find(|d| d.name().eq_ignore_ascii_case(name))
    }
}

struct LogFile {
    path: PathBuf,
    file: Option<File>,
}

struct State {
    patterns: [Pattern; 3],
    file: Option<LogFile>,
    syslog: Syslog,
    facility: u8,
}

const DEFAULT_PATTERNS: [&str; 3] = [
    "ovs|%05N|%c%T|%p|%m",
    "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m",
    "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
];
/// Precedes a message on its way to a syslog server that we talk to ourselves.
const SYSLOG_PREFIX: &str = "<%B> %D{%h %e %T} %E %A:";
/// Facility `daemon`.
const DEFAULT_FACILITY: u8 = 3;

/// By RFC 5424's number. Number 10 is a second "security" facility that has no name here.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "clock", "", "ftp", "ntp",
    "audit", "alert", "clock2", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

static PROGRAM: RwLock<String> = RwLock::new(String::new());
static CLOCK: RwLock<Option<Clock>> = RwLock::new(None);

fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        started();
        Mutex::new(State {
            patterns: DEFAULT_PATTERNS.map(Pattern::new),
            file: None,
            syslog: Syslog::from_env(),
            facility: DEFAULT_FACILITY,
        })
    });
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn started() -> std::time::Instant {
    static STARTED: OnceLock<std::time::Instant> = OnceLock::new();
    *STARTED.get_or_init(std::time::Instant::now)
}

thread_local! {
    static SERIAL: Cell<u32> = const { Cell::new(0) };
    static THREAD_NAME: RefCell<String> = const { RefCell::new(String::new()) };
    static THREAD_PROGRAM: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sets the program's name, for `%A` and the console's users.
pub fn set_program_name(name: &str) {
    started();
    *PROGRAM.write().unwrap_or_else(PoisonError::into_inner) = name.to_string();
}

/// Makes the calling thread one of the program `name`: for daemons that share a process.
pub fn set_thread_program_name(name: &str) {
    THREAD_PROGRAM.with(|n| *n.borrow_mut() = name.to_string());
}

/// The program's name: the thread's if it has one, see [`set_thread_program_name`], else that of [`set_program_name`].
pub fn program_name() -> String {
    let own = THREAD_PROGRAM.with(|n| n.borrow().clone());
    if !own.is_empty() {
        return own;
    }
    PROGRAM.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Names the calling thread in log lines, such as `revalidator5` or `monitor`. The empty name is the main thread's.
pub fn set_thread_name(name: &str) {
    THREAD_NAME.with(|n| *n.borrow_mut() = name.to_string());
}

/// Gives rate limits a daemon's clock.
pub fn set_clock(clock: &Clock) {
    *CLOCK.write().unwrap_or_else(PoisonError::into_inner) = Some(clock.clone());
}

fn now() -> Instant {
    let clock = CLOCK.read().unwrap_or_else(PoisonError::into_inner);
    match &*clock {
        Some(clock) => clock.now(),
        None => {
            drop(clock);
            let clock = Clock::new();
            set_clock(&clock);
            clock.now()
        }
    }
}

/// Logs. Use the macros, which test [`Module::enabled`] first.
pub fn log(module: &Module, level: Level, args: fmt::Arguments<'_>) {
    let message = match args.as_str() {
        Some(s) => s.to_string(),
        None => args.to_string(),
    };
    let serial = SERIAL.with(|s| {
        s.set(s.get().wrapping_add(1));
        s.get()
    });
    let program = program_name();
    let thread = THREAD_NAME.with(|n| n.borrow().clone());
    let state = state();
    let record = Record {
        module,
        level,
        message: &message,
        serial,
        wall_ms: machine_wall_ms(),
        elapsed_ms: u64::try_from(started().elapsed().as_millis()).unwrap_or(u64::MAX),
        program: &program,
        thread: &thread,
        facility: state.facility,
    };
    for destination in DESTINATIONS {
        if level > module.level(destination) || destination == Destination::Syslog && !state.syslog.is_open()
        {
            continue;
        }
        let mut line = String::with_capacity(96 + message.len());
        state.patterns[destination as usize].format(&record, &mut line);
        match destination {
            Destination::Console => {
                line.push('\n');
                // Nobody is left to tell that standard error is broken.
                let _ = std::io::stderr().lock().write_all(line.as_bytes());
            }
            Destination::File => {
                if let Some(LogFile { file: Some(file), .. }) = &state.file {
                    line.push('\n');
                    // As above: a full disk must not stop the switch.
                    let _ = (&mut &*file).write_all(line.as_bytes());
                }
            }
            Destination::Syslog => {
                let mut prefix = String::new();
                if state.syslog.wants_prefix() {
                    Pattern::new(SYSLOG_PREFIX).format(&record, &mut prefix);
                }
                state.syslog.send(&prefix, &line, &record);
            }
        }
    }
}

/// Logs at a level that is only known at run time.
pub fn vlog_at(module: &Module, level: Level, args: fmt::Arguments<'_>) {
    if module.enabled(level) {
        log(module, level, args);
    }
}

/// Logs within a rate limit. Use the macros.
pub fn log_limited(module: &Module, level: Level, limit: &RateLimit, args: fmt::Arguments<'_>) {
    if module.honors_rate_limits() {
        match limit.check(now().as_ms()) {
            Verdict::Drop => return,
            Verdict::PassAfter(report) => log(module, level, format_args!("{report}")),
            Verdict::Pass => {}
        }
    }
    log(module, level, args);
}

/// Whether a message within `limit` should be dropped; for those who compose a message in several steps.
pub fn should_drop(module: &Module, level: Level, limit: &RateLimit) -> bool {
    if !module.enabled(level) {
        return true;
    }
    if !module.honors_rate_limits() {
        return false;
    }
    match limit.check(now().as_ms()) {
        Verdict::Drop => true,
        Verdict::PassAfter(report) => {
            log(module, level, format_args!("{report}"));
            false
        }
        Verdict::Pass => false,
    }
}

/// Logs at a level: `vlog!(MODULE, Level::Info, "...", ...)`.
#[macro_export]
macro_rules! vlog {
    ($module:expr, $level:expr, $($arg:tt)+) => {{
        let module: &$crate::vlog::Module = &$module;
        let level: $crate::vlog::Level = $level;
        if module.enabled(level) {
            $crate::vlog::log(module, level, format_args!($($arg)+));
        }
    }};
}

/// Logs at a level within a rate limit: `vlog_rl!(MODULE, Level::Warn, (RATE, BURST), "...")` has a limit of its own
/// for the place of the call; `vlog_rl!(MODULE, Level::Warn, LIMIT, "...")` shares the static `LIMIT`.
#[macro_export]
macro_rules! vlog_rl {
    ($module:expr, $level:expr, ($rate:expr, $burst:expr), $($arg:tt)+) => {{
        static LIMIT: $crate::vlog::RateLimit = $crate::vlog::RateLimit::new($rate, $burst);
        $crate::vlog_rl!($module, $level, LIMIT, $($arg)+)
    }};
    ($module:expr, $level:expr, $limit:expr, $($arg:tt)+) => {{
        let module: &$crate::vlog::Module = &$module;
        let level: $crate::vlog::Level = $level;
        if module.enabled(level) {
            $crate::vlog::log_limited(module, level, &$limit, format_args!($($arg)+));
        }
    }};
}

/// Logs once in the life of the process: `vlog_once!(MODULE, Level::Info, "...")`.
#[macro_export]
macro_rules! vlog_once {
    ($module:expr, $level:expr, $($arg:tt)+) => {{
        static ONCE: ::std::sync::Once = ::std::sync::Once::new();
        ONCE.call_once(|| $crate::vlog!($module, $level, $($arg)+));
    }};
}

macro_rules! level_macros {
    ($d:tt $($name:ident $name_rl:ident $level:ident $what:literal,)*) => {$(
        #[doc = concat!("Logs ", $what, ".")]
        #[macro_export]
        macro_rules! $name {
            ($d module:expr, $d($d arg:tt)+) => {
                $crate::vlog!($d module, $crate::vlog::Level::$level, $d($d arg)+)
            };
        }
        #[doc = concat!("Logs ", $what, " within a rate limit: see [`vlog_rl`](crate::vlog_rl).")]
        #[macro_export]
        macro_rules! $name_rl {
            ($d module:expr, ($d rate:expr, $d burst:expr), $d($d arg:tt)+) => {
                $crate::vlog_rl!($d module, $crate::vlog::Level::$level, ($d rate, $d burst), $d($d arg)+)
            };
            ($d module:expr, $d limit:expr, $d($d arg:tt)+) => {
                $crate::vlog_rl!($d module, $crate::vlog::Level::$level, $d limit, $d($d arg)+)
            };
        }
    )*};
}

level_macros! { $
    vlog_emer vlog_emer_rl Emer "what kills the process",
    vlog_err vlog_err_rl Err "a failure of a high-level operation",
    vlog_warn vlog_warn_rl Warn "a failure of a low-level operation",
    vlog_info vlog_info_rl Info "what is useful in retrospect",
    vlog_dbg vlog_dbg_rl Dbg "what is useful to a developer",
}

fn refresh(state: &State) {
    let file_open = state.file.as_ref().is_some_and(|f| f.file.is_some());
    for module in MODULES {
        // Syslog counts even if it leads nowhere: the serial numbers of what does appear must not depend on that.
        module.refresh([true, true, file_open]);
    }
}

/// Sets levels; `None` stands for all modules, or all destinations.
pub fn set_levels(module: Option<&Module>, destination: Option<Destination>, level: Level) {
    let state = state();
    let set = |m: &Module| match destination {
        Some(d) => m.set_level(d, level),
        None => DESTINATIONS.into_iter().for_each(|d| m.set_level(d, level)),
    };
    match module {
        Some(m) => set(m),
        None => MODULES.iter().for_each(|m| set(m)),
    }
    refresh(&state);
}

/// Puts the levels of all modules back when it goes: for what a tool in the same process sets for itself.
#[derive(Debug)]
pub struct KeptLevels(Vec<[Level; 3]>);

/// Keeps the levels in force now.
pub fn keep_levels() -> KeptLevels {
    KeptLevels(MODULES.iter().map(|m| DESTINATIONS.map(|d| m.level(d))).collect())
}

impl Drop for KeptLevels {
    fn drop(&mut self) {
        let state = state();
        for (module, levels) in MODULES.iter().zip(&self.0) {
            for (destination, level) in DESTINATIONS.into_iter().zip(levels) {
                module.set_level(destination, *level);
            }
        }
        refresh(&state);
    }
}

const SEPARATORS: [char; 3] = [' ', ',', ':'];

/// The first word of `text`, and what comes after the separator that ends it.
fn token(text: &str) -> (&str, &str) {
    text.trim_start_matches(SEPARATORS)
        .split_once(SEPARATORS)
        .unwrap_or((text.trim_start_matches(SEPARATORS), ""))
}

/// Applies one `SPEC` of `-v` or `vlog/set`: `[MODULE][:DESTINATION][:LEVEL]` in any order and with any of comma,
/// colon and space between; `PATTERN:DESTINATION:PATTERN`; `FACILITY:NAME`. The error is the text for the user.
pub fn set(spec: &str) -> Result<(), String> {
    let (head, rest) = token(spec);
    if head.eq_ignore_ascii_case("PATTERN") {
        let (name, pattern) = token(rest);
        if name.is_empty() {
            return Err("missing destination".to_string());
        }
        let pattern = Pattern::new(pattern);
        let mut state = state();
        if name.eq_ignore_ascii_case("ANY") {
            state.patterns = [pattern.clone(), pattern.clone(), pattern];
            return Ok(());
        }
        let destination =
            Destination::by_name(name).ok_or_else(|| format!("unknown destination \"{name}\""))?;
        state.patterns[destination as usize] = pattern;
        return Ok(());
    }
    if head.eq_ignore_ascii_case("FACILITY") {
        let (name, _) = token(rest);
        let named = |f: &&str| !name.is_empty() && f.eq_ignore_ascii_case(name);
        let facility = FACILITIES.iter().position(named);
        let facility = facility.and_then(|f| u8::try_from(f).ok()).ok_or("invalid facility")?;
        state().facility = facility;
        return Ok(());
    }
    let (mut module, mut destination, mut level) = (None, None, None);
    for word in spec.split(SEPARATORS).filter(|w| !w.is_empty()) {
        if word.eq_ignore_ascii_case("ANY") {
            continue;
        }
        if let Some(d) = Destination::by_name(word) {
            if destination.replace(d).is_some() {
                return Err("cannot specify multiple destinations".to_string());
            }
        } else if let Some(l) = Level::by_name(word) {
            if level.replace(l).is_some() {
                return Err("cannot specify multiple levels".to_string());
            }
        } else if let Some(m) = module::by_name(word) {
            if module.replace(m).is_some() {
                return Err("cannot specify multiple modules".to_string());
            }
        } else {
            return Err(format!("no destination, level, or module \"{word}\""));
        }
    }
    set_levels(module, destination, level.unwrap_or(Level::Dbg));
    Ok(())
}

/// `-v` without a spec: everything at DBG on the console.
pub fn set_verbosity(spec: Option<&str>) -> Result<(), String> {
    match spec {
        Some(spec) => set(spec),
        None => {
            set_levels(None, Some(Destination::Console), Level::Dbg);
            Ok(())
        }
    }
}

/// Applies `--syslog-method`: `auto`, `libc`, `null`, `unix:FILE`, `udp:IP:PORT`.
/// The error is a sentence.
pub fn set_syslog_method(method: &str) -> Result<(), String> {
    let mut state = state();
    if !state.syslog.set_method(method) {
        return Err(format!("unsupported syslog method '{method}'"));
    }
    refresh(&state);
    Ok(())
}

/// Applies `--syslog-target`: messages go to `HOST:PORT` by UDP as well, in the form of RFC 5424. A target that is none is
/// logged, and no more.
pub fn set_syslog_target(target: &str) {
    let (_, port) = target.rsplit_once(':').unwrap_or((target, ""));
    if port.is_empty() {
        crate::vlog!(module::SOCKET_UTIL, Level::Err, "{target}: port must be specified");
    } else if port.parse::<u16>().is_err() {
        crate::vlog!(module::SOCKET_UTIL, Level::Err, "{target}: bad port number \"{port}\"");
    } else if state().syslog.set_target(target) {
        refresh(&state());
        let advice = "--syslog-target flag is deprecated, use --syslog-method instead";
        crate::vlog!(module::VLOG, Level::Warn, "{advice}");
    }
}

/// Starts to log into the file `path`, which is created or appended to.
pub fn set_log_file(path: &Path) -> std::io::Result<()> {
    let open = state().file.as_ref().is_some_and(|f| f.file.is_some());
    if open {
        crate::vlog!(module::VLOG, Level::Info, "closing log file");
    }
    let opened = OpenOptions::new().append(true).create(true).open(path);
    match opened {
        Ok(file) => {
            let mut state = state();
            state.file = Some(LogFile { path: path.to_path_buf(), file: Some(file) });
            refresh(&state);
            drop(state);
            crate::vlog!(module::VLOG, Level::Info, "opened log file {}", path.display());
            Ok(())
        }
        Err(e) => {
            crate::vlog!(
                module::VLOG,
                Level::Warn,
                "failed to open {} for logging: {}",
                path.display(),
                strerror(&e)
            );
            Err(e)
        }
    }
}

/// The log file's name, if there is one; also while it is closed.
pub fn log_file() -> Option<PathBuf> {
    state().file.as_ref().map(|f| f.path.clone())
}

/// `vlog/close`: closes the log file until it is reopened.
pub fn close_log_file() {
    let mut state = state();
    if let Some(file) = &mut state.file {
        file.file = None;
    }
    refresh(&state);
}

/// `vlog/reopen`: closes the log file and opens it by name, which a log rotator may have renewed. The error is the
/// text for the user. No log file is no error.
pub fn reopen_log_file() -> Result<(), String> {
    let path = {
        let state = state();
        let Some(LogFile { path, file }) = &state.file else {
            return Ok(());
        };
        let inode = |m: std::fs::Metadata| (m.dev(), m.ino());
        let open = file.as_ref().and_then(|f| f.metadata().ok()).map(inode);
        if open.is_some() && open == std::fs::metadata(path).ok().map(inode) {
            return Ok(());
        }
        path.clone()
    };
    set_log_file(&path).map_err(|e| strerror(&e))
}

/// `vlog/list`: the levels of the modules that `wanted` lists.
pub fn list(wanted: Listing) -> String {
    use fmt::Write;
    let mut out = String::from("                 console    syslog    file\n");
    out.push_str("                 -------    ------    ------\n");
    let shown = |m: &&&Module| wanted == Listing::B || m.listing() == Listing::B || m.listing() == wanted;
    for m in MODULES.iter().filter(shown) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<16}  {:>4}       {:>4}       {:>4}{}",
            m.name(),
            m.level(Destination::Console).name(),
            m.level(Destination::Syslog).name(),
            m.level(Destination::File).name(),
            if m.honors_rate_limits() { "" } else { "    (rate limiting disabled)" },
        );
    }
    out
}

/// `vlog/list-pattern`.
pub fn list_pattern() -> String {
    let state = state();
    let mut out = String::from("         prefix                            format\n");
    out.push_str("         ------                            ------\n");
    for d in DESTINATIONS {
        let prefix = if d == Destination::Syslog { SYSLOG_PREFIX } else { "none" };
        out.push_str(&format!(
            "{:<7}  {:<32}  {}\n",
            d.name().to_ascii_uppercase(),
            prefix,
            state.patterns[d as usize].source()
        ));
    }
    out
}

/// `vlog/enable-rate-limit` and `vlog/disable-rate-limit`: for the modules named, or all. The error is the text for
/// the user.
pub fn set_rate_limits(names: &[String], honor: bool) -> Result<(), String> {
    if names.is_empty() {
        MODULES.iter().for_each(|m| m.set_honor_rate_limits(honor));
    }
    for name in names {
        if name.eq_ignore_ascii_case("ANY") {
            MODULES.iter().for_each(|m| m.set_honor_rate_limits(honor));
            continue;
        }
        module::by_name(name).ok_or("unknown module")?.set_honor_rate_limits(honor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log is the process's: tests that change it take turns.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn names_are_sorted_and_found() {
        assert!(MODULES.windows(2).all(|w| w[0].name() != w[1].name()));
        assert!(std::ptr::eq(module::by_name("OFPROTO_DPIF").unwrap(), &module::OFPROTO_DPIF));
        assert!(module::by_name("nosuch").is_none());
        assert_eq!(token(": a,b c"), ("a", "b c"));
        assert_eq!(token("a"), ("a", ""));
    }

    #[test]
    fn specs() {
        let _turn = TURN.lock();
        set("bfd,file dbg").unwrap();
        assert_eq!(module::BFD.level(Destination::File), Level::Dbg);
        assert_eq!(module::BFD.level(Destination::Syslog), Level::Info);
        set("CFM:warn").unwrap();
        assert_eq!(module::CFM.level(Destination::File), Level::Warn);
        set("cfm").unwrap();
        assert_eq!(module::CFM.level(Destination::Console), Level::Dbg);
        for (spec, error) in [
            ("foo", "no destination, level, or module \"foo\""),
            ("info,dbg", "cannot specify multiple levels"),
            ("bfd,bond", "cannot specify multiple modules"),
            ("file,console", "cannot specify multiple destinations"),
            ("PATTERN:bar:xx", "unknown destination \"bar\""),
            ("FACILITY:foo", "invalid facility"),
        ] {
            assert_eq!(set(spec), Err(error.to_string()), "{spec}");
        }
        set("facility,LOCAL7").unwrap();
        assert_eq!(state().facility, 23);
        set("FACILITY:daemon").unwrap();
        let listed = list(Listing::S);
        assert!(listed.contains("\nbfd               INFO       INFO        DBG\n"), "{listed}");
        assert!(!listed.contains("\nraft "));
    }

    #[test]
    fn file_lines_and_reopen() {
        let _turn = TURN.lock();
        let dir = std::env::temp_dir().join(format!("vlog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.log");
        set_levels(Some(&module::LACP), Some(Destination::Console), Level::Off);
        set_log_file(&path).unwrap();
        crate::vlog!(module::LACP, Level::Info, "number {}", 7);
        crate::vlog!(module::LACP, Level::Dbg, "unseen");
        std::fs::rename(&path, dir.join("x.log.1")).unwrap();
        reopen_log_file().unwrap();
        for i in 0..4 {
            crate::vlog_rl!(module::LACP, Level::Info, (1, 2), "limited {i}");
        }
        let old = std::fs::read_to_string(dir.join("x.log.1")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        close_log_file();
        crate::vlog!(module::LACP, Level::Info, "into the void");
        let line = old.lines().find(|l| l.ends_with("|lacp|INFO|number 7")).expect("line logged");
        assert_eq!(line.find("Z|"), Some(23), "{line}");
        assert!(!old.contains("unseen"));
        assert!(old.contains("|vlog|INFO|closing log file"));
        assert!(new.contains("limited 1") && !new.contains("limited 2"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), new);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
