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

/// Is this process root?
pub fn is_root() -> bool {
    // SAFETY: no memory is involved; it cannot fail.
    unsafe { libc::geteuid() == 0 }
}
