//! Byte streams by name: `unix:FILE`, `tcp:HOST:PORT`, `ssl:HOST:PORT` and the passive `punix:FILE`, `ptcp:[PORT][:HOST]`,
//! `pssl:[PORT][:HOST]`.
//!
//! A [`Stream`] is a connection or an attempt at one; a [`Listener`] makes streams. Both are nonblocking, belong to a
//! reactor under a key, and say `WouldBlock` where there is nothing to do until the key is ready. Host names are
//! resolved on a thread of their own. Over `ssl:` and `pssl:` a [`tls::Session`] stands between socket and user; its handshake
//! belongs to connecting, on both sides.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use ib_base::replay::Source;
use ib_base::vlog::module::{SOCKET_UTIL, STREAM, STREAM_UNIX};
use ib_base::{coverage, errno::strerror, vlog_err_rl, vlog_info};
use ib_sys::{dirs, signal, socket};
use mio::Interest;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::reactor::{Handle, Key};
use crate::tls;

/// Port of OpenFlow.
pub const OFP_PORT: u16 = 6653;
/// Port of OVSDB.
pub const OVSDB_PORT: u16 = 6640;

/// The error of an address that makes no sense (`EAFNOSUPPORT`), after the log has been told why.
fn invalid(message: String) -> io::Error {
    vlog_err_rl!(SOCKET_UTIL, (1, 5), "{message}");
    io::Error::from_raw_os_error(97)
}

/// The error of a connection method that is not known (`EAFNOSUPPORT`).
pub(crate) fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(97)
}

/// The scheme of a connection method, if it is `tcp`, `unix` or `ssl`.
pub fn is_active(name: &str) -> bool {
    matches!(name.split_once(':'), Some(("tcp" | "unix" | "ssl", _)))
}

/// Whether a connection method is passive: `ptcp`, `punix` or `pssl`.
pub fn is_passive(name: &str) -> bool {
    matches!(name.split_once(':'), Some(("ptcp" | "punix" | "pssl", _)))
}

/// Splits `HOST:PORT`, `[HOST]:PORT`, or either without a port, as the part after `tcp:` is written. An unbracketed
/// IPv6 address is a host as a whole.
pub fn split_host_port(target: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = target.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port).filter(|p| !p.is_empty()))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    if target.matches(':').count() > 1 {
        return Some((target, None));
    }
    match target.split_once(':') {
        Some((host, port)) => Some((host, Some(port).filter(|p| !p.is_empty()))),
        None => Some((target, None)),
    }
}

/// Splits `[PORT][:HOST]` as the part after `ptcp:` is written; HOST may be in brackets.
pub fn split_passive(target: &str) -> (&str, Option<&str>) {
    let (port, host) = target.split_once(':').unwrap_or((target, ""));
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (port, Some(host).filter(|h| !h.is_empty()))
}

fn parse_port(text: &str, target: &str) -> io::Result<u16> {
    text.parse().map_err(|_| invalid(format!("{target}: bad port number \"{text}\"")))
}

/// `unix:` paths are relative to the run directory.
pub(crate) fn unix_path(name: &str) -> PathBuf {
    dirs::in_dir(&dirs::rundir(), name)
}

/// The name of an address in connection methods: `10.0.0.1:6653`, `[::1]:6653`.
pub fn format_addr(addr: SocketAddr) -> String {
    addr.to_string()
}

#[derive(Debug)]
enum Socket {
    Resolving(Receiver<io::Result<Vec<SocketAddr>>>),
    Tcp(TcpStream),
    Unix(UnixStream),
    /// None: what comes is played from a record, what is sent goes nowhere.
    Played,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting,
    /// The socket is connected; TLS is not.
    Handshaking,
    Connected,
}

/// A connection, or an attempt at one.
#[derive(Debug)]
pub struct Stream {
    name: String,
    peer: String,
    socket: Socket,
    tls: Option<Box<tls::Session>>,
    state: State,
    /// Addresses to try after the current.
    more: Vec<SocketAddr>,
    handle: Handle,
    key: Key,
    dscp: Option<u8>,
    /// The reactor watches for room to send. While all goes at once it does not: each read of the peer's would wake
    /// the loop for nothing.
    watches_room: bool,
    /// Where what comes is recorded, or played from.
    tape: Option<Source>,
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Stream {
    /// Begins to connect to `name` (`tcp:HOST[:PORT]` with a default port, `unix:FILE`).
    pub fn open(name: &str, default_port: u16, handle: &Handle, key: Key) -> io::Result<Stream> {
        coverage::stream_open.inc();
        let Some(mut tape) = tape(name, handle, key)? else {
            return Stream::open_socket(name, default_port, handle, key);
        };
        if tape.plays() {
            tape.play_open()?;
            let mut stream = Stream::accepted(Socket::Played, name.to_string(), handle, key);
            stream.tape = Some(tape);
            stream.state = State::Connecting;
            return Ok(stream);
        }
        let opened = Stream::open_socket(name, default_port, handle, key);
        tape.record(opened.as_ref().map(|_| &[][..]));
        let mut stream = opened?;
        stream.tape = Some(tape);
        Ok(stream)
    }

    fn open_socket(name: &str, default_port: u16, handle: &Handle, key: Key) -> io::Result<Stream> {
        let (scheme, target) = name.split_once(':').ok_or_else(unsupported)?;
        let build = |socket, state| Stream {
            name: name.to_string(),
            peer: name.to_string(),
            socket,
            tls: None,
            state,
            more: Vec::new(),
            handle: handle.clone(),
            key,
            dscp: None,
            watches_room: true,
            tape: None,
        };
        match scheme {
            "unix" => {
                let (path, dir) = socket::short_unix_path(&unix_path(target))?;
                let mut socket = UnixStream::connect(path)?;
                drop(dir);
                handle.register(&mut socket, key, BOTH)?;
                let mut stream = build(Socket::Unix(socket), State::Connecting);
                stream.connect()?;
                Ok(stream)
            }
            "tcp" | "ssl" => {
                let (host, port) =
                    split_host_port(target).ok_or_else(|| invalid(format!("{target}: bad address")))?;
                let port = match port {
                    Some(port) => parse_port(port, target)?,
                    None => default_port,
                };
                let tls = match scheme {
                    "ssl" => Some(Box::new(tls::Session::client(host)?)),
                    _ => None,
                };
                // A scope such as `%eth0` makes it a name for the resolver.
                if let Ok(ip) = host.parse::<IpAddr>() {
                    let mut stream = build(Socket::Resolving(channel().1), State::Connecting);
                    stream.tls = tls;
                    stream.try_address(SocketAddr::new(ip, port))?;
                    return Ok(stream);
                }
                let (tx, rx) = channel();
                let waker = handle.clone();
                let host = host.to_string();
                std::thread::Builder::new().name("resolver".to_string()).spawn(move || {
                    let result = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
                    // The stream may have been dropped meanwhile.
                    let _ = tx.send(result);
                    waker.wake(key);
                })?;
                let mut stream = build(Socket::Resolving(rx), State::Connecting);
                stream.tls = tls;
                Ok(stream)
            }
            _ => Err(unsupported()),
        }
    }

    /// Wraps the end of a socket pair or any other connected UNIX socket.
    pub fn from_unix(
        socket: std::os::unix::net::UnixStream,
        name: &str,
        handle: &Handle,
        key: Key,
    ) -> io::Result<Stream> {
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket);
        handle.register(&mut socket, key, Interest::READABLE)?;
        Ok(Stream::accepted(Socket::Unix(socket), name.to_string(), handle, key))
    }

    fn accepted(socket: Socket, name: String, handle: &Handle, key: Key) -> Stream {
        Stream {
            peer: name.clone(),
            name,
            socket,
            tls: None,
            state: State::Connected,
            more: Vec::new(),
            handle: handle.clone(),
            key,
            dscp: None,
            watches_room: false,
            tape: None,
        }
    }

    /// Has the reactor watch for room to send, or not.
    fn watch_room(&mut self, on: bool) {
        if self.watches_room == on {
            return;
        }
        let interest = if on { BOTH } else { Interest::READABLE };
        let done = match &mut self.socket {
            Socket::Tcp(s) => self.handle.reregister(s, self.key, interest),
            Socket::Unix(s) => self.handle.reregister(s, self.key, interest),
            Socket::Resolving(_) | Socket::Played => return,
        };
        match done {
            Ok(()) => self.watches_room = on,
            // Better to be woken too often than never.
            Err(_) => self.wake(),
        }
    }

    fn try_address(&mut self, addr: SocketAddr) -> io::Result<()> {
        let mut socket = TcpStream::connect(addr)?;
        if let Some(dscp) = self.dscp {
            // A kernel that refuses the mark still connects.
            let _ = socket::set_dscp(&socket, addr.is_ipv6(), dscp);
        }
        self.handle.register(&mut socket, self.key, BOTH)?;
        self.watches_room = true;
        let scheme = if self.tls.is_some() { "ssl" } else { "tcp" };
        self.peer = format!("{scheme}:{}", format_addr(addr));
        self.socket = Socket::Tcp(socket);
        Ok(())
    }

    /// Marks what a TCP connection sends.
    pub fn set_dscp(&mut self, dscp: u8) {
        self.dscp = Some(dscp);
        if let Socket::Tcp(socket) = &self.socket {
            let ipv6 = socket.local_addr().is_ok_and(|a| a.is_ipv6());
            let _ = socket::set_dscp(socket, ipv6, dscp);
        }
    }

    /// Goes on connecting. `Ok` once connected; `WouldBlock` while under way; any other error ends the attempt.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.state == State::Connected {
            return Ok(());
        }
        let connected = match &mut self.tape {
            Some(tape) if tape.plays() => tape.play(&mut []).map(|_| self.state = State::Connected),
            _ => self.connect_socket(),
        };
        if let Some(tape) = &mut self.tape {
            tape.record(connected.as_ref().map(|()| &[][..]));
        }
        connected
    }

    fn connect_socket(&mut self) -> io::Result<()> {
        match self.state {
            State::Connected => return Ok(()),
            State::Handshaking => return self.handshake(),
            State::Connecting => {}
        }
        loop {
            let failed = match &self.socket {
                Socket::Resolving(rx) => match rx.try_recv() {
                    Ok(Ok(mut addrs)) => {
                        addrs.reverse();
                        self.more = addrs;
                        io::Error::from(io::ErrorKind::AddrNotAvailable)
                    }
                    Ok(Err(e)) => return Err(e),
                    Err(TryRecvError::Empty) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(TryRecvError::Disconnected) => return Err(io::Error::other("resolver died")),
                },
                Socket::Tcp(socket) => match (socket.take_error()?, socket.peer_addr()) {
                    (Some(e), _) => e,
                    (None, Ok(_)) => {
                        // Small messages that await answers gain nothing from waiting for company.
                        let _ = socket.set_nodelay(true);
                        self.state = State::Handshaking;
                        return self.handshake();
                    }
                    (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    (None, Err(e)) => e,
                },
                Socket::Unix(socket) => match (socket.take_error()?, socket.peer_addr()) {
                    (Some(e), _) => e,
                    (None, Ok(_)) => {
                        self.state = State::Connected;
                        return Ok(());
                    }
                    (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    (None, Err(e)) => e,
                },
                Socket::Played => return Err(io::ErrorKind::WouldBlock.into()),
            };
            let Some(next) = self.more.pop() else {
                return Err(failed);
            };
            if let Err(e) = self.try_address(next)
                && self.more.is_empty()
            {
                return Err(e);
            }
        }
    }

    /// Goes on with the handshake of TLS, if there is any.
    fn handshake(&mut self) -> io::Result<()> {
        if let (Some(tls), Socket::Tcp(socket)) = (&mut self.tls, &mut self.socket) {
            let done = tls.handshake(socket);
            self.watch_room(done.is_err());
            done?;
        }
        self.state = State::Connected;
        Ok(())
    }

    /// Whether [`Stream::connect`] has said `Ok`.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Reads what is there into `buf`. `Ok(0)` is the end of the stream; `WouldBlock` means to wait for the key.
    pub fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.connect()?;
        let Some(tape) = &mut self.tape else { return self.recv_socket(buf) };
        if tape.plays() {
            return tape.play(buf);
        }
        let received = self.recv_socket(buf);
        if let Some(tape) = &mut self.tape {
            tape.record(received.as_ref().map(|&n| &buf[..n]));
        }
        received
    }

    fn recv_socket(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let (Some(tls), Socket::Tcp(socket)) = (&mut self.tls, &mut self.socket) {
            return tls.recv(socket, buf);
        }
        loop {
            let result = match &mut self.socket {
                Socket::Tcp(s) => s.read(buf),
                Socket::Unix(s) => s.read(buf),
                Socket::Resolving(_) | Socket::Played => Err(io::ErrorKind::WouldBlock.into()),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Writes as much of `bytes` as goes now. `WouldBlock` means to wait for the key.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connect()?;
        if let (Some(tls), Socket::Tcp(socket)) = (&mut self.tls, &mut self.socket) {
            let sent = tls.send(socket, bytes);
            let full =
                sent.as_ref().map_or_else(|e| e.kind() == io::ErrorKind::WouldBlock, |(_, full)| *full);
            self.watch_room(full);
            return sent.map(|(n, _)| n);
        }
        loop {
            let result = match &mut self.socket {
                Socket::Tcp(s) => s.write(bytes),
                Socket::Unix(s) => s.write(bytes),
                Socket::Resolving(_) => Err(io::ErrorKind::WouldBlock.into()),
                Socket::Played => return Ok(bytes.len()),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(n) => self.watch_room(n < bytes.len()),
                Err(ref e) => self.watch_room(e.kind() == io::ErrorKind::WouldBlock),
            }
            return result;
        }
    }

    /// Has the reactor look after the stream's key again soon: for an owner that stopped before `WouldBlock`.
    pub fn wake(&self) {
        self.handle.wake(self.key);
    }

    /// The connection method that the stream was opened with, or the name that its listener gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer: as [`Stream::name`], with the address that a name resolved to.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whom the peer has proven to be, if it had to: the common name of its certificate.
    pub fn peer_id(&self) -> Option<String> {
        self.tls.as_ref()?.peer_id()
    }

    /// The key under which the stream's reactor knows it.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The addresses of both ends of a TCP connection: local, then remote.
    pub fn tcp_addrs(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.socket {
            Socket::Tcp(s) => Some((s.local_addr().ok()?, s.peer_addr().ok()?)),
            _ => None,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.state == State::Connected
            && let (Some(tls), Socket::Tcp(socket)) = (&mut self.tls, &mut self.socket)
        {
            tls.close(socket);
        }
    }
}

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        path: PathBuf,
    },
    /// None: connections are played from a record.
    Played,
}

/// Accepts connections. Dropping it removes a UNIX socket's file.
#[derive(Debug)]
pub struct Listener {
    name: String,
    socket: ListenSocket,
    tls: bool,
    handle: Handle,
    key: Key,
    accepted: u64,
    /// Connections that could not have TLS, since somebody asked.
    refused: u64,
    dscp: Option<u8>,
    tape: Option<Source>,
}

/// Where the input of something that is called `name` is recorded or comes from.
fn tape(name: &str, handle: &Handle, key: Key) -> io::Result<Option<Source>> {
    let handle = handle.clone();
    Source::open(name, move || handle.wake(key)).transpose()
}

impl Listener {
    /// Listens on `name`: `ptcp:[PORT][:HOST]` or `pssl:[PORT][:HOST]`, without a host on IPv4 only, or `punix:FILE`, whose
    /// stale predecessor is removed.
    pub fn open(name: &str, default_port: u16, handle: &Handle, key: Key) -> io::Result<Listener> {
        coverage::pstream_open.inc();
        let Some(mut tape) = tape(name, handle, key)? else {
            return Listener::open_socket(name, default_port, handle, key);
        };
        let opened = if tape.plays() {
            tape.play_open().map(|()| Listener {
                name: name.to_string(),
                socket: ListenSocket::Played,
                tls: false,
                handle: handle.clone(),
                key,
                accepted: 0,
                refused: 0,
                dscp: None,
                tape: None,
            })
        } else {
            Listener::open_socket(name, default_port, handle, key)
        };
        tape.record(opened.as_ref().map(|_| &[][..]));
        let mut listener = opened?;
        listener.tape = Some(tape);
        Ok(listener)
    }

    fn open_socket(name: &str, default_port: u16, handle: &Handle, key: Key) -> io::Result<Listener> {
        let (scheme, target) = name.split_once(':').ok_or_else(unsupported)?;
        let socket = match scheme {
            "punix" => {
                let path = unix_path(target);
                let mut socket = listen_unix(&path).inspect_err(|e| {
                    vlog_err_rl!(STREAM_UNIX, (1, 5), "{}: binding failed: {}", path.display(), strerror(e));
                })?;
                handle.register(&mut socket, key, Interest::READABLE)?;
                signal::unlink_at_exit(&path);
                ListenSocket::Unix { socket, path }
            }
            "ptcp" | "pssl" => {
                // What is lacking is logged; it may come later, and until then no connection is taken.
                if scheme == "pssl" {
                    let _ = tls::check();
                }
                let (port, host) = split_passive(target);
                let port = if port.is_empty() { default_port } else { parse_port(port, target)? };
                let addr = match host {
                    None => SocketAddr::new(IpAddr::from([0; 4]), port),
                    Some(host) => match host.parse::<IpAddr>() {
                        Ok(ip) => SocketAddr::new(ip, port),
                        Err(_) => (host, port)
                            .to_socket_addrs()?
                            .next()
                            .ok_or_else(|| invalid(format!("{target}: bad address")))?,
                    },
                };
                let mut socket = TcpListener::bind(addr).inspect_err(|e| {
                    vlog_err_rl!(SOCKET_UTIL, (1, 5), "{}: bind: {}", target, strerror(e));
                })?;
                handle.register(&mut socket, key, Interest::READABLE)?;
                let bound = socket.local_addr()?.port();
                vlog_info!(SOCKET_UTIL, "{}: listening on port {}", target, bound);
                ListenSocket::Tcp(socket)
            }
            _ => return Err(unsupported()),
        };
        Ok(Listener {
            name: name.to_string(),
            socket,
            tls: scheme == "pssl",
            handle: handle.clone(),
            key,
            accepted: 0,
            refused: 0,
            dscp: None,
            tape: None,
        })
    }

    /// Takes a connection, under a new key. `WouldBlock` means to wait for the listener's key.
    pub fn accept(&mut self) -> io::Result<Stream> {
        let Some(tape) = &mut self.tape else { return self.accept_socket() };
        let mut taken = if tape.plays() {
            let mut name = [0; 256];
            let n = tape.play(&mut name)?;
            let name = String::from_utf8_lossy(&name[..n]).into_owned();
            Ok(Stream::accepted(Socket::Played, name, &self.handle, self.handle.new_key()))
        } else {
            self.accept_socket()
        };
        if let Some(tape) = &mut self.tape {
            tape.record(taken.as_ref().map(|s| s.name.as_bytes()));
        }
        if let Ok(stream) = &mut taken {
            stream.tape = crate::stream::tape(&stream.name, &self.handle, stream.key)?;
            if let Some(tape) = &mut stream.tape {
                tape.record(Ok(&[]));
                if tape.plays() {
                    tape.play_open()?;
                }
            }
        }
        taken
    }

    /// How many connections were dropped since the last call because TLS is not configured.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn accept_socket(&mut self) -> io::Result<Stream> {
        loop {
            let key = self.handle.new_key();
            let result = match &mut self.socket {
                ListenSocket::Tcp(listener) => listener.accept().and_then(|(mut socket, addr)| {
                    self.handle.register(&mut socket, key, Interest::READABLE)?;
                    // As for active connections.
                    let _ = socket.set_nodelay(true);
                    if let Some(dscp) = self.dscp {
                        let _ = socket::set_dscp(&socket, addr.is_ipv6(), dscp);
                    }
                    let scheme = if self.tls { "ssl" } else { "tcp" };
                    let name = format!("{scheme}:{}", format_addr(addr));
                    let mut stream = Stream::accepted(Socket::Tcp(socket), name, &self.handle, key);
                    if self.tls {
                        stream.tls = Some(Box::new(tls::Session::server()?));
                        stream.state = State::Handshaking;
                    }
                    Ok(stream)
                }),
                ListenSocket::Unix { socket, .. } => socket.accept().and_then(|(mut socket, _)| {
                    self.handle.register(&mut socket, key, Interest::READABLE)?;
                    let name = format!("unix#{}", self.accepted);
                    Ok(Stream::accepted(Socket::Unix(socket), name, &self.handle, key))
                }),
                ListenSocket::Played => Err(io::ErrorKind::WouldBlock.into()),
            };
            match result {
                Ok(stream) => {
                    self.accepted += 1;
                    return Ok(stream);
                }
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                // This connection cannot have TLS, of which the log has been told; the next one perhaps can.
                Err(e) if self.tls && e.raw_os_error() == Some(tls::ENOPROTOOPT) => self.refused += 1,
                Err(e) => {
                    if e.kind() != io::ErrorKind::WouldBlock {
                        vlog_err_rl!(STREAM, (10, 25), "{}: accept: {}", self.name, strerror(&e));
                    }
                    return Err(e);
                }
            }
        }
    }

    /// Marks what accepted TCP connections send.
    pub fn set_dscp(&mut self, dscp: u8) {
        self.dscp = Some(dscp);
    }

    /// The connection method that it was opened with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port that it listens on.
    pub fn bound_port(&self) -> Option<u16> {
        match &self.socket {
            ListenSocket::Tcp(s) => s.local_addr().ok().map(|a| a.port()),
            ListenSocket::Unix { .. } | ListenSocket::Played => None,
        }
    }

    /// The key under which the listener's reactor knows it.
    pub fn key(&self) -> Key {
        self.key
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenSocket::Unix { path, .. } = &self.socket {
            signal::unlink_now(path);
        }
    }
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (short, dir) = socket::short_unix_path(path)?;
    let listener = UnixListener::bind(&short)?;
    // Between bind and this nobody but the owner's own umask decides; group members may use the socket afterwards.
    std::fs::set_permissions(&short, Permissions::from_mode(0o750))?;
    drop(dir);
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Reactor;
    use ib_base::time::Clock;

    #[test]
    fn targets() {
        assert_eq!(split_host_port("10.0.0.1:80"), Some(("10.0.0.1", Some("80"))));
        assert_eq!(split_host_port("10.0.0.1"), Some(("10.0.0.1", None)));
        assert_eq!(split_host_port("[::1]:80"), Some(("::1", Some("80"))));
        assert_eq!(split_host_port("[::1]"), Some(("::1", None)));
        assert_eq!(split_host_port("::1"), Some(("::1", None)));
        assert_eq!(split_host_port("[::1"), None);
        assert_eq!(split_host_port("[::1]x"), None);
        assert_eq!(split_passive("6640:[::]"), ("6640", Some("::")));
        assert_eq!(split_passive("0:127.0.0.1"), ("0", Some("127.0.0.1")));
        assert_eq!(split_passive(""), ("", None));
        assert!(is_active("tcp:x") && !is_active("ptcp:x") && is_passive("punix:x") && !is_passive("x"));
    }

    fn talk(passive: &str, active: impl FnOnce(&Listener) -> String) {
        let mut reactor = Reactor::new(&Clock::new()).unwrap();
        let handle = reactor.handle().clone();
        let (lk, ck) = (handle.new_key(), handle.new_key());
        let mut listener = Listener::open(passive, 0, &handle, lk).unwrap();
        let mut client = Stream::open(&active(&listener), 0, &handle, ck).unwrap();
        let mut server = loop {
            match listener.accept() {
                Ok(s) => break s,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            reactor.wait(None).unwrap();
            // A name has several addresses to try, one after the other.
            let _ = client.connect();
        };
        while client.send(b"hello").is_err() {
            reactor.wait(None).unwrap();
        }
        let mut buf = [0; 16];
        let n = loop {
            match server.recv(&mut buf) {
                Ok(n) => break n,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            reactor.wait(None).unwrap();
        };
        assert_eq!(&buf[..n], b"hello");
        drop(client);
        loop {
            match server.recv(&mut buf) {
                Ok(n) => break assert_eq!(n, 0),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            reactor.wait(None).unwrap();
        }
    }

    #[test]
    fn tcp_and_names() {
        talk("ptcp:0:127.0.0.1", |l| format!("tcp:127.0.0.1:{}", l.bound_port().unwrap()));
        talk("ptcp:0:127.0.0.1", |l| format!("tcp:localhost:{}", l.bound_port().unwrap()));
    }

    #[test]
    fn unix_short_and_long_paths() {
        let dir = std::env::temp_dir().join(format!("stream-{}", std::process::id())).join("d".repeat(150));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        std::os::unix::net::UnixListener::bind(dir.parent().unwrap().join("s")).unwrap();
        talk(&format!("punix:{}/s", dir.parent().unwrap().display()), |l| l.name()[1..].to_string());
        talk(&format!("punix:{}", path.display()), |l| l.name()[1..].to_string());
        assert!(!path.exists());
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn refusals() {
        let reactor = Reactor::new(&Clock::new()).unwrap();
        let handle = reactor.handle();
        let open = |name: &str| Stream::open(name, 1, handle, Key(1)).unwrap_err();
        assert_eq!(strerror(&open("ssl:1.2.3.4")), "Protocol not available", "no key is configured");
        assert_eq!(strerror(&open("foo:bar")), "Address family not supported by protocol");
        assert_eq!(open("unix:/nonexistent/x").kind(), io::ErrorKind::NotFound);
        assert_eq!(strerror(&open("tcp:1.2.3.4:x")), "Address family not supported by protocol");
    }
}
