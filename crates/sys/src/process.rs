//! Processes: fork, pipes, users, titles, and the fatal error of a daemon.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use ib_base::vlog::{self, Destination, Level, Module};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A pipe: the end to read and the end to write, closed on exec.
pub fn pipe(nonblocking: bool) -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    let flags = libc::O_CLOEXEC | if nonblocking { libc::O_NONBLOCK } else { 0 };
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), flags) })?;
    // SAFETY: pipe2 has just made both descriptors and nobody else owns them.
    unsafe { Ok((File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1]))) }
}

/// Which side of a fork this is.
#[derive(Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's pid.
    Parent(i32),
}

/// Forks. Only the calling thread exists in the child: call it while there is no other.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the contract above: with one thread, the child inherits no lock that somebody else holds.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exiting.
    Exit(i32),
    /// By a signal.
    Signal {
        /// Which.
        signo: i32,
        /// Whether it left a core.
        core: bool,
    },
}

impl Ended {
    /// As in `exit status 1` and `killed (Segmentation fault), core dumped`.
    pub fn describe(self) -> String {
        match self {
            Ended::Exit(code) => format!("exit status {code}"),
            Ended::Signal { signo, core } => {
                format!("killed ({}){}", crate::signal::name(signo), if core { ", core dumped" } else { "" })
            }
        }
    }

    /// Whether somebody, the kernel short of memory for one, ended it by force.
    pub fn is_killed(self) -> bool {
        matches!(self, Ended::Signal { signo: libc::SIGKILL, .. })
    }

    /// Whether it is a crash after which a monitor starts the daemon again.
    pub fn is_crash(self) -> bool {
        const CRASHES: [i32; 9] = [
            libc::SIGABRT,
            libc::SIGALRM,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGPIPE,
            libc::SIGSEGV,
            libc::SIGXCPU,
            libc::SIGXFSZ,
        ];
        matches!(self, Ended::Signal { signo, .. } if CRASHES.contains(&signo))
    }
}

/// Waits for the child `pid` to end. A signal meant for this process comes back as `Interrupted`.
pub fn wait(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    check(unsafe { libc::waitpid(pid, &mut status, 0) })?;
    Ok(if libc::WIFSIGNALED(status) {
        Ended::Signal { signo: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    } else {
        Ended::Exit(libc::WEXITSTATUS(status))
    })
}

/// Whether the process `pid` exists.
pub fn exists(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Sends a signal.
pub fn kill(pid: i32, signo: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes numbers.
    check(unsafe { libc::kill(pid, signo) }).map(drop)
}

/// Keeps all of the process's memory, present and future, from being paged out (`mlockall(2)`).
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: takes flags only and touches no memory of ours.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leads a new session, without a terminal.
pub fn setsid() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Points standard input, output and error to `/dev/null`.
pub fn close_standard_fds() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for fd in 0..3 {
        // SAFETY: both are descriptors; dup2 keeps `null` open.
        check(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), fd) })?;
    }
    Ok(())
}

/// Limits core files to `bytes`, 0 forbids them; `None`: no limit. Processes that we start inherit it.
pub fn limit_core_files(bytes: Option<u64>) {
    let limit = bytes.unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` is a valid rlimit. Failure changes nothing that matters.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) };
}

/// Sets the permission bits that new files do not get, and returns those of before.
pub fn set_umask(mode: u32) -> u32 {
    // SAFETY: the call takes no pointers and cannot fail.
    unsafe { libc::umask(mode & 0o777) }
}

/// Lets core files have huge pages in them, ours and those of processes that we start (core(5), coredump_filter).
pub fn dump_huge_pages() -> io::Result<()> {
    const FILE: &str = "/proc/self/coredump_filter";
    const PRIVATE_AND_SHARED: u32 = 1 << 5 | 1 << 6;
    let text = std::fs::read_to_string(FILE)?;
    let filter = u32::from_str_radix(text.trim(), 16).map_err(io::Error::other)?;
    std::fs::write(FILE, format!("{:#x}", filter | PRIVATE_AND_SHARED))
}

/// How readily the kernel ends us, and what we start, when memory is short (proc(5), oom_score_adj).
pub fn set_oom_score(score: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// A user and group to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: CString,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl User {
    /// Looks up `USER[:[GROUP]]`. The error is the text for the user.
    pub fn lookup(spec: &str) -> Result<User, String> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let name = CString::new(user).map_err(|_| format!("user {user} not found"))?;
        // SAFETY: getpwnam and getgrnam return null or a pointer to static storage that stays valid until the next
        // call; options are read at the start, when there is one thread.
        unsafe {
            let entry =
                if user.is_empty() { libc::getpwuid(libc::getuid()) } else { libc::getpwnam(name.as_ptr()) };
            if entry.is_null() {
                return Err(format!("user {user} not found"));
            }
            let mut found = User {
                name: CStr::from_ptr((*entry).pw_name).to_owned(),
                uid: (*entry).pw_uid,
                gid: (*entry).pw_gid,
            };
            if !group.is_empty() {
                let c_group = CString::new(group).map_err(|_| format!("group {group} not found"))?;
                let entry = libc::getgrnam(c_group.as_ptr());
                if entry.is_null() {
                    return Err(format!("group {group} not found"));
                }
                found.gid = (*entry).gr_gid;
            }
            Ok(found)
        }
    }

    /// Becomes the user, for good.
    pub fn become_user(&self) -> io::Result<()> {
        // SAFETY: plain calls with a valid C string.
        unsafe {
            if libc::getuid() == self.uid && libc::getgid() == self.gid {
                return Ok(());
            }
            check(libc::initgroups(self.name.as_ptr(), self.gid))?;
            check(libc::setgid(self.gid))?;
            check(libc::setuid(self.uid))?;
        }
        Ok(())
    }
}

static ARGV: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static ARGV_LEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn remember_argv(argc: libc::c_int, argv: *const *mut libc::c_char) {
    // SAFETY: the C runtime passes main's argc and argv to initialisers; the strings lie one after the other, and the
    // loop stops at the first that does not.
    unsafe {
        if argc < 1 || argv.is_null() || (*argv).is_null() {
            return;
        }
        let start = *argv;
        let mut end = start;
        for i in 0..argc as isize {
            let arg = *argv.offset(i);
            if arg != end {
                break;
            }
            end = arg.add(libc::strlen(arg) + 1);
        }
        ARGV.store(start, Ordering::Relaxed);
        ARGV_LEN.store(end.offset_from(start) as usize, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER_ARGV: extern "C" fn(libc::c_int, *const *mut libc::c_char) = remember_argv;

/// Sets the title that `ps` shows, as far as the original command line has room. Read `std::env::args` before.
pub fn set_title(title: &str) {
    let start = ARGV.load(Ordering::Relaxed);
    let len = ARGV_LEN.load(Ordering::Relaxed);
    if start.is_null() || len < 2 {
        return;
    }
    let bytes = title.as_bytes();
    let n = bytes.len().min(len - 1);
    // SAFETY: `start` is the process's own argument area of `len` writable bytes, which `remember_argv` measured.
    unsafe {
        std::ptr::write_bytes(start.cast::<u8>(), 0, len);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>(), n);
    }
}

/// The user's number that the process acts for.
pub fn uid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

fn zone_offset(secs: i64) -> i32 {
    // SAFETY: localtime_r fills `tm`, which is plain data.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let t = secs as libc::time_t;
        if libc::localtime_r(&t, &mut tm).is_null() { 0 } else { tm.tm_gmtoff as i32 }
    }
}

/// What every program does first: its name for the log, the local time zone for `%d`.
pub fn init(program: &str) {
    ib_base::time::set_local_offset(zone_offset);
    vlog::set_program_name(program);
}

/// Logs `message` at EMER everywhere but on the console, prints `PROGRAM: MESSAGE` there, and exits with code 1.
pub fn fatal(module: &'static Module, message: &str) -> ! {
    vlog::set_levels(None, Some(Destination::Console), Level::Off);
    ib_base::vlog!(module, Level::Emer, "{message}");
    eprintln!("{}: {message}", vlog::program_name());
    crate::signal::exit(1)
}
/// The machine's monotonic milliseconds, which all its processes share.
pub fn monotonic_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let (s, ns) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    s.saturating_mul(1_000).saturating_add(ns / 1_000_000)
}
/// Waits until standard input has something to read, or has ended; whether it has.
pub fn stdin_is_readable(wait: std::time::Duration) -> bool {
    let ms = libc::c_int::try_from(wait.as_millis()).unwrap_or(libc::c_int::MAX);
    let mut p = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    // SAFETY: `p` is one valid pollfd.
    unsafe { libc::poll(&mut p, 1, ms) > 0 }
}
