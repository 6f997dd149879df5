//! UNIX sockets that keep the bounds of messages (`SOCK_SEQPACKET`): one send is one receive, or nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::eventfd::check;
use crate::socket::short_unix_path;

/// Bytes of messages under way that a socket asks room for.
static ROOM: libc::c_int = 4 << 20;

/// A connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// The process at a connection's other end, as it was when it connected (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 where it is not visible from here.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// A socket that takes connections. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
}

fn new_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the descriptor that returns is ours alone.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: fd was just opened and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls `f` with the address of `path`.
fn with_address(
    path: &Path,
    f: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> libc::c_int,
) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    // Long paths are reached by a descriptor of their directory, which must live until the call is over.
    let (short, _dir) = short_unix_path(path)?;
    let bytes = short.as_os_str().as_bytes();
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() >= addr.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    addr.sun_path.iter_mut().zip(bytes).for_each(|(to, from)| *to = from.cast_signed());
    check(f((&raw const addr).cast(), size_of::<libc::sockaddr_un>() as libc::socklen_t)).map(|_| ())
}

impl Connection {
    /// Connects to the listener at `path`.
    pub fn open(path: &Path) -> io::Result<Connection> {
        let fd = new_socket()?;
        // SAFETY: the address lives through the call and its length is right.
        with_address(path, |addr, len| unsafe { libc::connect(fd.as_raw_fd(), addr, len) })?;
        let connection = Connection(fd);
        connection.make_room();
        Ok(connection)
    }

    fn make_room(&self) {
        for option in [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF] {
            // SAFETY: an int and its size. A refusal leaves the default size.
            let rc = unsafe {
                libc::setsockopt(
                    self.0.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const ROOM).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if rc == 0 {
                return;
            }
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<Peer> {
        let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: a ucred and its size, both writable.
        check(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut who).cast(),
                &raw mut len,
            )
        })?;
        Ok(Peer { pid: who.pid, uid: who.uid })
    }

    /// From now on sends and receives that wait for so long fail with `EAGAIN`.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_receive_timeout(Some(timeout))?;
        self.set_send_timeout(timeout)
    }

    /// From now on receives that wait for so long fail with `EAGAIN`; `None`: they wait for ever.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_time(libc::SO_RCVTIMEO, timeout.unwrap_or_default())
    }

    /// From now on sends that wait for so long fail with `EAGAIN`.
    pub fn set_send_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_time(libc::SO_SNDTIMEO, timeout)
    }

    fn set_time(&self, option: libc::c_int, timeout: Duration) -> io::Result<()> {
        let time = libc::timeval {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_usec: i64::from(timeout.subsec_micros()),
        };
        // SAFETY: a timeval and its size.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const time).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            )
        })
        .map(|_| ())
    }

    /// Sends one message; unless `wait`, `EAGAIN` if there is no room for it.
    pub fn send(&self, message: &[u8], wait: bool) -> io::Result<()> {
        let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            // SAFETY: message.len() readable bytes.
            let n = unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), flags) };
            if n >= 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
    }

    /// Receives one message into `buf`, as long as it is; false if the other side has closed. A message longer than `max` is
    /// `EMSGSIZE`.
    pub fn recv(&self, buf: &mut Vec<u8>, max: usize, wait: bool) -> io::Result<bool> {
        buf.resize(max, 0);
        let flags = libc::MSG_TRUNC | if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            // SAFETY: buf.len() writable bytes.
            let n = unsafe { libc::recv(self.0.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) };
            match usize::try_from(n) {
                Ok(n) if n > max => return Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                Ok(n) => {
                    buf.truncate(n);
                    return Ok(n != 0);
                }
                Err(_) => {
                    let e = io::Error::last_os_error();
                    if e.kind() != io::ErrorKind::Interrupted {
                        return Err(e);
                    }
                }
            }
        }
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Listener {
    /// Listens at `path`, readable and writable for its owner alone. A file that nobody listens at any more is replaced.
    ///
    /// Errors: `EADDRINUSE` where somebody does listen.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        if Connection::open(path).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let fd = new_socket()?;
        // SAFETY: the address lives through the call and its length is right.
        with_address(path, |addr, len| unsafe { libc::bind(fd.as_raw_fd(), addr, len) })?;
        let listener = Listener { fd, path: path.to_owned() };
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        // SAFETY: no pointers.
        check(unsafe { libc::listen(listener.fd.as_raw_fd(), 64) })?;
        Ok(listener)
    }

    /// Waits for a connection.
    pub fn accept(&self) -> io::Result<Connection> {
        loop {
            let null = std::ptr::null_mut();
            // SAFETY: null addresses are allowed; the descriptor that returns is ours alone.
            let fd =
                unsafe { libc::accept4(self.fd.as_raw_fd(), null, std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
            match check(fd) {
                Ok(fd) => {
                    // SAFETY: fd was just opened and nobody else has it.
                    let connection = Connection(unsafe { OwnedFd::from_raw_fd(fd) });
                    connection.make_room();
                    return Ok(connection);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that somebody removed is what we want.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ironbridge-{name}-{}", std::process::id()))
    }

    #[test]
    fn messages_keep_their_bounds() {
        let path = path("seqpacket");
        let listener = Listener::bind(&path).unwrap();
        let busy = Listener::bind(&path).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::EADDRINUSE));
        let a = Connection::open(&path).unwrap();
        // The first one was the second listener's question.
        drop(listener.accept().unwrap());
        let b = listener.accept().unwrap();
        let (us, user) = (std::process::id().cast_signed(), b.peer().unwrap().uid);
        assert_eq!([a.peer().unwrap(), b.peer().unwrap()], [Peer { pid: us, uid: user }; 2]);
        a.set_receive_timeout(Some(Duration::from_millis(1))).unwrap();
        let late = a.recv(&mut Vec::new(), 9, true).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        a.set_receive_timeout(None).unwrap();
        a.send(b"one", true).unwrap();
        a.send(&[7; 100_000], true).unwrap();
        let mut buf = Vec::new();
        assert!(b.recv(&mut buf, 1 << 17, true).unwrap());
        assert_eq!(buf, b"one");
        assert!(b.recv(&mut buf, 1 << 17, true).unwrap());
        assert_eq!(buf.len(), 100_000);
        let none = b.recv(&mut buf, 1 << 17, false).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        a.send(b"too long", true).unwrap();
        assert_eq!(b.recv(&mut buf, 3, true).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop(a);
        assert!(!b.recv(&mut buf, 10, true).unwrap());
        drop(listener);
        assert!(!path.exists());
    }
}
