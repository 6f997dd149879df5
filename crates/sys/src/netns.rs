//! Network namespaces of the calling thread. Sockets stay in the namespace that they were opened in.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::eventfd::check;

/// A handle on the calling thread's namespace.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Moves the calling thread into a fresh, empty namespace, which lives as long as anything in it.
pub fn unshare() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Moves the calling thread into `ns`.
pub fn enter(ns: &File) -> io::Result<()> {
    // SAFETY: no memory is involved; the kernel checks the descriptor.
    check(unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Moves the process into a fresh user namespace in which it is root: what an unprivileged program needs to make network
/// namespaces of its own. The process has one thread only; `EPERM`, `ENOSPC` or `EUSERS` if the machine forbids it.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    // SAFETY: no memory is involved; they cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    // The group map may be written only once that no group can be given up any more.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Is this process root?
pub fn is_root() -> bool {
    // SAFETY: no memory is involved; it cannot fail.
    unsafe { libc::geteuid() == 0 }
}
