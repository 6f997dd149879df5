//! Dummies joined by sockets: `options:stream=unix:PATH` of one connects to `options:pstream=punix:PATH` of another,
//! in this process or elsewhere, and packets that one sends the other receives.
//!
//! On the socket each frame has its length in front, 16 bits in network order. Nothing here waits: [`Wire::poll`] takes what has come,
//! as long as its taker has room, and [`Wire::send`] queues a bounded number of frames that the socket has no room for. A
//! connection that ends is tried again, at the earliest after [`RETRY`] or when another dummy begins to listen.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ib_base::vlog::module::{NETDEV_DUMMY, RECONNECT};
use ib_base::{vlog_info, vlog_warn};
use ib_packet::Packet;
use ib_sys::dirs;
use ib_sys::socket::short_unix_path;

use super::DummyWorld;

/// Frames that wait at most for room in a socket.
const MAX_QUEUED: usize = 100;
/// Peers of a listening dummy.
const MAX_PEERS: usize = 64;
const RETRY: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(target: &str) -> io::Result<Socket> {
        let invalid = || io::Error::from(ErrorKind::InvalidInput);
        let socket = if let Some(path) = target.strip_prefix("unix:") {
            let (short, _dir) = short_unix_path(&dirs::in_dir(&dirs::rundir(), path))?;
            Socket::Unix(UnixStream::connect(short)?)
        } else {
            let addr = target.strip_prefix("tcp:").and_then(|a| a.parse().ok()).ok_or_else(invalid)?;
            Socket::Tcp(TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT)?)
        };
        socket.prepare()?;
        Ok(socket)
    }
    fn prepare(&self) -> io::Result<()> {
        match self {
            Socket::Unix(s) => s.set_nonblocking(true),
            Socket::Tcp(s) => s.set_nonblocking(true).and_then(|()| s.set_nodelay(true)),
        }
    }
    fn fd(&self) -> RawFd {
        match self {
            Socket::Unix(s) => s.as_raw_fd(),
            Socket::Tcp(s) => s.as_raw_fd(),
        }
    }
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(s) => s.read(buf),
            Socket::Tcp(s) => s.read(buf),
        }
    }
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(s) => s.write(buf),
            Socket::Tcp(s) => s.write(buf),
        }
    }
}

/// A connection: bytes of a frame that is not whole yet, and frames that wait.
struct Conn {
    socket: Socket,
    input: Vec<u8>,
    output: VecDeque<Vec<u8>>,
    /// Bytes of the first frame in `output` that have left.
    sent: usize,
}

impl Conn {
    fn new(socket: Socket, world: &DummyWorld) -> Conn {
        // Without a place in the set it is read at the main loop's next turn.
        let _ = world.sockets().map(|set| set.add(socket.fd(), 0));
        Conn { socket, input: Vec::new(), output: VecDeque::new(), sent: 0 }
    }

    fn send(&mut self, frame: &[u8]) {
        let Ok(len) = u16::try_from(frame.len()) else { return };
        if self.output.len() < MAX_QUEUED {
            self.output.push_back([&len.to_be_bytes()[..], frame].concat());
        }
    }

    /// Sends what the socket has room for.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(first) = self.output.front() {
            match self.socket.write(&first[self.sent..]) {
                Ok(n) if self.sent + n == first.len() => {
                    self.output.pop_front();
                    self.sent = 0;
                }
                Ok(n) => self.sent += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Hands out frames that have come whole, until `take` has no room.
    fn poll(&mut self, take: &mut dyn FnMut(Packet) -> bool) -> io::Result<()> {
        self.flush()?;
        loop {
            while let [a, b, rest @ ..] = &self.input[..] {
                let len = usize::from(u16::from_be_bytes([*a, *b]));
                let Some(frame) = rest.get(..len) else { break };
                if len >= super::ETH_HEADER_LEN && !take(Packet::from_frame(frame)) {
                    return Ok(());
                }
                self.input.drain(..2 + len);
            }
            let mut chunk = [0; 8192];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Listener {
    fn bind(target: &str) -> io::Result<Listener> {
        let invalid = || io::Error::from(ErrorKind::InvalidInput);
        if let Some(path) = target.strip_prefix("punix:") {
            let path = dirs::in_dir(&dirs::rundir(), path);
            // What a former process left there is in the way.
            let _ = std::fs::remove_file(&path);
            let (short, _dir) = short_unix_path(&path)?;
            let listener = UnixListener::bind(short)?;
            listener.set_nonblocking(true)?;
            return Ok(Listener::Unix(listener, path));
        }
        let (port, host) = match target.strip_prefix("ptcp:").ok_or_else(invalid)?.split_once(':') {
            Some((port, host)) => (port, host),
            None => (target.trim_start_matches("ptcp:"), "0.0.0.0"),
        };
        let listener = TcpListener::bind((host, port.parse::<u16>().map_err(|_| invalid())?))?;
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(listener))
    }
    fn fd(&self) -> RawFd {
        match self {
            Listener::Unix(l, _) => l.as_raw_fd(),
            Listener::Tcp(l) => l.as_raw_fd(),
        }
    }
    fn accept(&self) -> io::Result<Socket> {
        let socket = match self {
            Listener::Unix(l, _) => Socket::Unix(l.accept()?.0),
            Listener::Tcp(l) => Socket::Tcp(l.accept()?.0),
        };
        socket.prepare()?;
        Ok(socket)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum End {
    Active { target: String, conn: Option<Conn>, tried: Option<(Instant, u32)> },
    Passive { listener: Listener, conns: Vec<Conn> },
}

/// A dummy's end of a wire.
pub(super) struct Wire {
    world: Arc<DummyWorld>,
    end: End,
}

impl Wire {
    /// The wire that the options speak of, if any.
    pub fn open(options: &BTreeMap<String, String>, world: &Arc<DummyWorld>) -> Option<Wire> {
        let end = match (options.get("pstream"), options.get("stream")) {
            (Some(_), Some(_)) => {
                vlog_warn!(NETDEV_DUMMY, "Open failed: both \"stream\" and \"pstream\" are configured");
                return None;
            }
            (Some(target), None) => match Listener::bind(target) {
                Ok(listener) => {
                    let _ = world.sockets().map(|set| set.add(listener.fd(), 0));
                    world.listeners.fetch_add(1, Ordering::Relaxed);
                    End::Passive { listener, conns: Vec::new() }
                }
                Err(e) => {
                    vlog_warn!(NETDEV_DUMMY, "{target}: open failed ({e})");
                    return None;
                }
            },
            (None, Some(target)) => End::Active { target: target.clone(), conn: None, tried: None },
            (None, None) => return None,
        };
        let mut wire = Wire { world: Arc::clone(world), end };
        wire.keep_up();
        Some(wire)
    }

    /// Whether an active end is connected; `None`: it listens.
    pub fn is_connected(&self) -> Option<bool> {
        match &self.end {
            End::Active { conn, .. } => Some(conn.is_some()),
            End::Passive { .. } => None,
        }
    }

    /// Connects, or takes in who connects.
    fn keep_up(&mut self) {
        match &mut self.end {
            End::Active { target, conn: conn @ None, tried } => {
                let listeners = self.world.listeners.load(Ordering::Relaxed);
                if tried.is_some_and(|(at, seen)| seen == listeners && at.elapsed() < RETRY) {
                    return;
                }
                *tried = Some((Instant::now(), listeners));
                if let Ok(socket) = Socket::connect(target) {
                    vlog_info!(RECONNECT, "{target}: connecting...");
                    vlog_info!(RECONNECT, "{target}: connected");
                    *conn = Some(Conn::new(socket, &self.world));
                }
            }
            End::Active { .. } => {}
            End::Passive { listener, conns } => {
                while conns.len() < MAX_PEERS
                    && let Ok(socket) = listener.accept()
                {
                    conns.push(Conn::new(socket, &self.world));
                }
            }
        }
    }

    /// Sends a frame to whoever is at the other end.
    pub fn send(&mut self, frame: &[u8]) {
        self.keep_up();
        let mut one = |conn: &mut Conn| {
            conn.send(frame);
            // What fails now fails again at the next poll, which ends the connection.
            let _ = conn.flush();
        };
        match &mut self.end {
            End::Active { conn, .. } => conn.iter_mut().for_each(one),
            End::Passive { conns, .. } => conns.iter_mut().for_each(&mut one),
        }
    }

    /// Hands out frames that have come, until `take` has no room for the one it was given: that one comes again.
    pub fn poll(&mut self, mut take: impl FnMut(Packet) -> bool) {
        self.keep_up();
        match &mut self.end {
            End::Active { conn, .. } => {
                if conn.as_mut().is_some_and(|c| c.poll(&mut take).is_err()) {
                    *conn = None;
                }
            }
            End::Passive { conns, .. } => conns.retain_mut(|c| c.poll(&mut take).is_ok()),
        }
    }
}
