//! Streams for tools, which have one peer and nothing else to do: connect, read and write, and block.
//!
//! Under `ssl:` a thread stands between the socket and a UNIX socket pair whose other end is the stream: so it has handles and
//! timeouts as the others have.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ib_base::linger::Linger;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::stream::{split_host_port, split_passive, unix_path, unsupported};
use crate::tls::Session;

/// How long each word of a handshake may take that somebody begins here.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A connected stream that blocks.
#[derive(Debug)]
pub struct Blocking {
    socket: Socket,
    /// Reads are answers for the most part, which come soon.
    linger: Linger,
}

#[derive(Debug)]
enum Socket {
    /// `tcp:`
    Tcp(TcpStream),
    /// `unix:`, and what `ssl:` is carried by.
    Unix(UnixStream),
}

impl From<Socket> for Blocking {
    fn from(socket: Socket) -> Blocking {
        Blocking { socket, linger: Linger::default() }
    }
}

impl Blocking {
    /// Connects to `name`: `tcp:HOST[:PORT]` or `ssl:HOST[:PORT]` with a default port, or `unix:FILE`.
    pub fn connect(name: &str, default_port: u16) -> io::Result<Blocking> {
        let (scheme, target) = name.split_once(':').ok_or_else(unsupported)?;
        match scheme {
            "unix" => {
                let (path, dir) = ib_sys::socket::short_unix_path(&unix_path(target))?;
                let stream = UnixStream::connect(path)?;
                drop(dir);
                Ok(Socket::Unix(stream).into())
            }
            "tcp" | "ssl" => {
                let session = match scheme {
                    "ssl" => Some(split_host_port(target).map_or(target, |(host, _)| host)),
                    _ => None,
                };
                let session = session.map(Session::client).transpose()?;
                let bad = || io::Error::from_raw_os_error(97);
                let (host, port) = split_host_port(target).ok_or_else(bad)?;
                let port = match port {
                    Some(port) => port.parse().map_err(|_| bad())?,
                    None => default_port,
                };
                let addrs: Vec<SocketAddr> = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![SocketAddr::new(ip, port)],
                    Err(_) => (host, port).to_socket_addrs()?.collect(),
                };
                let stream = TcpStream::connect(addrs.as_slice())?;
                // Requests are small and their answers awaited.
                stream.set_nodelay(true)?;
                match session {
                    Some(session) => Ok(Socket::Unix(carry(session, stream)?).into()),
                    None => Ok(Socket::Tcp(stream).into()),
                }
            }
            _ => Err(unsupported()),
        }
    }

    /// Reads block no longer than this; `None` is for ever. A read that has waited in vain is `WouldBlock`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(s) => s.set_read_timeout(timeout),
            Socket::Unix(s) => s.set_read_timeout(timeout),
        }
    }

    /// A second handle of the same stream, to read with while another thread writes.
    pub fn try_clone(&self) -> io::Result<Blocking> {
        Ok(match &self.socket {
            Socket::Tcp(s) => Socket::Tcp(s.try_clone()?),
            Socket::Unix(s) => Socket::Unix(s.try_clone()?),
        }
        .into())
    }
}

/// A place where such streams arrive.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    is_tls: bool,
}

impl Listening {
    /// Listens at `name`: `ptcp:PORT[:ADDRESS]` or `pssl:PORT[:ADDRESS]`.
    pub fn bind(name: &str) -> io::Result<Listening> {
        let (scheme, target) = name.split_once(':').ok_or_else(unsupported)?;
        let is_tls = match scheme {
            "ptcp" => false,
            "pssl" => true,
            _ => return Err(unsupported()),
        };
        let (port, host) = split_passive(target);
        let bad = || io::Error::from_raw_os_error(97);
        let port: u16 = port.parse().map_err(|_| bad())?;
        let ip: IpAddr = host.unwrap_or("0.0.0.0").parse().map_err(|_| bad())?;
        Ok(Listening { listener: TcpListener::bind((ip, port))?, is_tls })
    }

    /// Waits for the next stream; it and its peer. A peer that dallies with the handshake is an error.
    pub fn accept(&self) -> io::Result<(Blocking, SocketAddr)> {
        let (socket, peer) = self.listener.accept()?;
        socket.set_nodelay(true)?;
        if !self.is_tls {
            return Ok((Socket::Tcp(socket).into(), peer));
        }
        socket.set_read_timeout(Some(HANDSHAKE))?;
        let stream = carry(Session::server()?, socket)?;
        Ok((Socket::Unix(stream).into(), peer))
    }

    /// The port in use.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }
}

/// Ends the handshake and starts the thread that carries bytes between `socket` and the stream that it returns.
fn carry(mut session: Session, mut socket: TcpStream) -> io::Result<UnixStream> {
    session.handshake(&mut socket)?;
    let (ours, theirs) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    let poll = Poll::new()?;
    for (token, fd) in [socket.as_raw_fd(), ours.as_raw_fd()].iter().enumerate() {
        poll.registry().register(
            &mut SourceFd(fd),
            Token(token),
            Interest::READABLE.add(Interest::WRITABLE),
        )?;
    }
    let mut carrier = Carrier { session, socket, user: ours, to_user: Vec::new(), to_peer: Vec::new() };
    // Closing both ends tells both sides all that there is to tell.
    std::thread::Builder::new().name("tls".into()).spawn(move || carrier.run(poll))?;
    Ok(theirs)
}

struct Carrier {
    session: Session,
    socket: TcpStream,
    user: UnixStream,
    to_user: Vec<u8>,
    to_peer: Vec<u8>,
}

impl Carrier {
    fn run(&mut self, mut poll: Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(4);
        loop {
            // Neither side may starve while the other is busy.
            while self.pull()? | self.push()? {}
            poll.poll(&mut events, None).or_else(|e| match e.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(e),
            })?;
        }
    }

    /// True if anything moved; an error at the end.
    fn pull(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.to_user.is_empty() {
            let mut buf = [0; 16 << 10];
            match self.session.recv(&mut self.socket, &mut buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.to_user.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        while !self.to_user.is_empty() {
            match self.user.write(&self.to_user) {
                Ok(n) => {
                    self.to_user.drain(..n);
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(moved)
    }

    fn push(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.to_peer.is_empty() {
            let mut buf = [0; 16 << 10];
            match self.user.read(&mut buf) {
                Ok(0) => {
                    self.session.close(&mut self.socket);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(n) => self.to_peer.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        while !self.to_peer.is_empty() {
            match self.session.send(&mut self.socket, &self.to_peer) {
                Ok((n, _)) => {
                    self.to_peer.drain(..n);
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(moved)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

impl Read for Blocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        while began.elapsed() < self.linger.time() {
            match ib_sys::socket::try_recv(&self.socket, buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if !self.linger.pause() {
                break;
            }
        }
        let began = Instant::now();
        let read = match &mut self.socket {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        };
        self.linger.learn(began.elapsed());
        read
    }
}

impl Write for Blocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talks_and_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = Blocking::connect("tcp:localhost", port).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        server.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello");
        assert_eq!(Blocking::connect("tcp:[::1", 1).unwrap_err().raw_os_error(), Some(97));
        assert_eq!(Blocking::connect("x", 1).unwrap_err().raw_os_error(), Some(97));
    }

    #[test]
    fn listens() {
        let listening = Listening::bind("ptcp:0:[::1]").unwrap();
        let mut client = Blocking::connect("tcp:[::1]", listening.port().unwrap()).unwrap();
        let (mut server, peer) = listening.accept().unwrap();
        assert!(peer.ip().is_loopback());
        server.write_all(b"hi").unwrap();
        let mut buf = [0; 2];
        client.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hi");
        for bad in ["tcp:1", "ptcp:x", "ptcp:1:nowhere", "ptcp"] {
            assert_eq!(Listening::bind(bad).unwrap_err().raw_os_error(), Some(97), "{bad}");
        }
    }
}
