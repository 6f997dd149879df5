//! Signals: the fatal ones, with cleanup, and those that a daemon merely notes.
//!
//! The C handler does two things that are safe there: it stores the number and writes a byte into a pipe. What dies
//! of SIGTERM, SIGINT, SIGHUP or SIGALRM does so from ordinary code: a daemon's loop, which has [`fd`] among its
//! descriptors and calls [`check`]; or, in tools that block, a watching thread ([`watch`]). Either removes the files
//! registered by [`unlink_at_exit`], logs `terminating with signal N (NAME)` and raises the signal again with its
//! default action, so that the parent sees the true cause.
//!
//! A program that has more to undo than files takes the decision over by [`hold`]: a fatal signal is then merely noted,
//! for [`held`] to tell, and the program unwinds by itself and ends with [`release`].
//!
//! SIGPIPE is ignored by Rust's runtime; [`init`] makes sure.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ib_base::vlog::module::FATAL_SIGNAL;
use ib_base::vlog_warn;

/// Signals that end the process after cleanup.
const FATAL: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGALRM];

static ARRIVED: AtomicI32 = AtomicI32::new(0);
static WRITE_FD: AtomicI32 = AtomicI32::new(-1);
static HUP_NOTED: AtomicBool = AtomicBool::new(false);
static HUP_WANTED: AtomicBool = AtomicBool::new(false);
static HOLDING: AtomicBool = AtomicBool::new(false);

static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn files() -> MutexGuard<'static, Vec<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn handler(signo: libc::c_int) {
    if signo == libc::SIGHUP && HUP_WANTED.load(Ordering::Relaxed) {
        HUP_NOTED.store(true, Ordering::Relaxed);
    } else {
        ARRIVED.store(signo, Ordering::Relaxed);
    }
    let fd = WRITE_FD.load(Ordering::Relaxed);
    // SAFETY: write(2) is async-signal-safe; the byte outlives the call; errno is restored for the interrupted code.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, [0u8].as_ptr().cast(), 1);
        *errno = saved;
    }
}

fn set_handler(signo: i32, handler: libc::sighandler_t) {
    // SAFETY: the zeroed sigaction is valid (no flags, empty mask); `handler` is SIG_DFL, SIG_IGN or our function,
    // which lives for ever.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signo, &action, std::ptr::null_mut());
    }
}

struct Pipe {
    read: File,
    write: File,
}

static PIPE: OnceLock<Option<Pipe>> = OnceLock::new();

fn pipe() -> Option<&'static Pipe> {
    PIPE.get_or_init(|| {
        let (read, write) = crate::process::pipe(true).ok()?;
        Some(Pipe { read, write })
    })
    .as_ref()
}

/// Takes over the fatal signals and ignores SIGPIPE. A fatal signal that is ignored at the start stays so.
pub fn init() {
    let Some(pipe) = pipe() else {
        return;
    };
    WRITE_FD.store(pipe.write.as_raw_fd(), Ordering::Relaxed);
    set_handler(libc::SIGPIPE, libc::SIG_IGN);
    for signo in FATAL {
        // SAFETY: a null new action only queries; `old` is valid for writes.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signo, std::ptr::null(), &mut old);
            old.sa_sigaction == libc::SIG_IGN
        };
        if !ignored {
            set_handler(signo, handler as *const () as libc::sighandler_t);
        }
    }
}

/// Makes SIGHUP a note for [`take_hup`] rather than the end.
pub fn note_hup() {
    HUP_WANTED.store(true, Ordering::Relaxed);
    set_handler(libc::SIGHUP, handler as *const () as libc::sighandler_t);
}

/// Whether SIGHUP has arrived since the last call.
pub fn take_hup() -> bool {
    HUP_NOTED.swap(false, Ordering::Relaxed)
}

/// The descriptor that becomes readable when a signal has arrived. [`init`] has been called.
pub fn fd() -> Option<RawFd> {
    pipe().map(|p| p.read.as_raw_fd())
}

/// Takes the fatal signals over, as [`init`] does, and has them noted instead of obeyed.
pub fn hold() {
    HOLDING.store(true, Ordering::Relaxed);
    init();
}

/// The fatal signal that has arrived, if any.
pub fn held() -> Option<i32> {
    Some(ARRIVED.load(Ordering::Relaxed)).filter(|signo| *signo != 0)
}

/// Ends [`hold`]: if a fatal signal has arrived, the process dies of it now.
pub fn release() {
    HOLDING.store(false, Ordering::Relaxed);
    check();
}

/// Empties [`fd`] and, if a fatal signal has arrived and is not held, ends the process.
pub fn check() {
    if let Some(p) = pipe() {
        let mut junk = [0; 64];
        while (&p.read).read(&mut junk).is_ok_and(|n| n == junk.len()) {}
    }
    if let Some(signo) = held().filter(|_| !HOLDING.load(Ordering::Relaxed)) {
        die(signo);
    }
}

/// Starts a thread that ends the process when a fatal signal arrives, whatever the other threads wait for. For
/// programs without a loop that calls [`check`]; not before a fork.
pub fn watch() {
    let Some(fd) = fd() else {
        return;
    };
    let spawned = std::thread::Builder::new().name("signals".to_string()).spawn(move || {
        loop {
            let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: `p` is one valid pollfd.
            unsafe { libc::poll(&mut p, 1, -1) };
            check();
        }
    });
    // Without the thread a timeout is not kept; the program still does its work.
    drop(spawned);
}

fn die(signo: i32) -> ! {
    vlog_warn!(FATAL_SIGNAL, "terminating with signal {} ({})", signo, name(signo));
    cleanup();
    set_handler(signo, libc::SIG_DFL);
    // SAFETY: plain calls; the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signo);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signo);
    }
    std::process::exit(1)
}

/// `strsignal`: such as `Terminated`.
pub fn name(signo: i32) -> String {
    // SAFETY: strsignal returns a C string that stays valid until the next call on this thread.
    let text = unsafe {
        let p = libc::strsignal(signo);
        if p.is_null() { None } else { Some(std::ffi::CStr::from_ptr(p).to_string_lossy().into_owned()) }
    };
    text.unwrap_or_else(|| format!("signal {signo}"))
}

/// Has `path` removed when the process ends by [`exit`] or a fatal signal.
pub fn unlink_at_exit(path: &Path) {
    files().push(path.to_path_buf());
}

/// Takes back [`unlink_at_exit`].
pub fn keep_at_exit(path: &Path) {
    files().retain(|f| f != path);
}

/// Removes `path` now, and takes back [`unlink_at_exit`].
pub fn unlink_now(path: &Path) {
    keep_at_exit(path);
    // It may be gone already.
    let _ = std::fs::remove_file(path);
}

/// Forgets all files: the child of a fork has not made them.
pub fn forget_files() {
    files().clear();
}

fn cleanup() {
    for path in files().drain(..) {
        // It may be gone already.
        let _ = std::fs::remove_file(path);
    }
}

/// Ends the process with `code` after cleanup and flushing standard output.
pub fn exit(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    cleanup();
    std::process::exit(code)
}

/// Has SIGALRM delivered in `seconds`, or cancels that if 0: the `--timeout` of tools, `OVS_CTL_TIMEOUT`.
pub fn alarm(seconds: u32) {
    // SAFETY: alarm(2) takes a number.
    unsafe { libc::alarm(seconds) };
}

/// Arms the timeout of a `*ctl` tool: `seconds` if the option gave one, else `$OVS_CTL_TIMEOUT` if that is a number.
/// Zero is no timeout. When it expires the process dies of SIGALRM. Where a program embeds the tool and holds the
/// signals, it keeps the time itself.
pub fn ctl_timeout(seconds: Option<u32>) {
    if HOLDING.load(Ordering::Relaxed) {
        return;
    }
    let from_env = || std::env::var("OVS_CTL_TIMEOUT").ok().and_then(|v| v.parse().ok());
    if let Some(seconds) = seconds.or_else(from_env).filter(|s| *s > 0) {
        init();
        watch();
        alarm(seconds);
    }
}

/// Gives the fatal signals back to the system: they end the process at once.
pub fn watch_none() {
    for signo in FATAL {
        set_handler(signo, libc::SIG_DFL);
    }
}

/// Has a crash end the process by its own signal, also one that another process sends, for a monitor to see. The Rust
/// runtime's handlers, which recognise stack overflows, would swallow the first such signal.
pub fn default_crashes() {
    set_handler(libc::SIGSEGV, libc::SIG_DFL);
    set_handler(libc::SIGBUS, libc::SIG_DFL);
}
