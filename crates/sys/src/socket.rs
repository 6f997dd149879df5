//! Socket options that the standard library does not have, and UNIX socket paths of any length.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest path that a UNIX socket address can hold, without the final zero.
pub const UNIX_PATH_MAX: usize = 107;

/// A path that names the same file as `path` and fits an address, with the open directory it may go through: keep
/// that until bind or connect is done.
pub fn short_unix_path(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= UNIX_PATH_MAX {
        return Ok((path.to_path_buf(), None));
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let dir = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    if short.as_os_str().len() > UNIX_PATH_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    Ok((short, Some(dir)))
}

/// A raw ICMP socket in the calling thread's namespace, in the shape of the datagram socket that it resembles: ports
/// mean nothing, and what is received begins with the IP header. Needs `CAP_NET_RAW`.
pub fn icmp() -> io::Result<UdpSocket> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the descriptor that returns is ours alone.
    let fd = crate::eventfd::check(unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP) })?;
    // SAFETY: fd was just opened and nobody else has it.
    Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Receives what is there, without waiting; `WouldBlock` if nothing is.
pub fn try_recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is valid for writes of its length during the call.
    let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Sets the DSCP of what a TCP socket sends, in both IP versions.
pub fn set_dscp(socket: impl AsFd, ipv6: bool, dscp: u8) -> io::Result<()> {
    let value = libc::c_int::from(dscp) << 2;
    let fd = socket.as_fd().as_raw_fd();
    let set = |level, name| {
        // SAFETY: the option's value is one int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                fd,
                level,
                name,
                (&raw const value).cast(),
                std::mem::size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    if ipv6 { set(libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { set(libc::IPPROTO_IP, libc::IP_TOS) }
}

/// Makes a listening socket's address usable again at once after a restart.
pub fn set_reuseaddr(socket: impl AsFd) -> io::Result<()> {
    let value: libc::c_int = 1;
    // SAFETY: the option's value is one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw const value).cast(),
            std::mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
