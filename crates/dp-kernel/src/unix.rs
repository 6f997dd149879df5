//! The transport to a datapath in another process: messages over a `SOCK_SEQPACKET` socket.
//!
//! A datagram holds netlink messages, as a netlink socket's would: a header of 16 bytes ([`ib_sys::netlink`]), whose type says the family
//! ([`type_of`]), then the payload. A request is one datagram; its answer ends with a message of type `NLMSG_ERROR` (an errno,
//! 0 for success) or `NLMSG_DONE`. A connection that has said [`crate::control::command::LISTEN`] carries upcalls from then on.
//!
//! Callers share a pool of connections, each used by one at a time. A datapath that does not answer for [`PATIENCE`] is an error
//! like one that is gone.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ib_dpif::netlink::attributes;
use ib_sys::netlink::{self, F_DUMP, F_REQUEST, Request, u32_at};
use ib_sys::seqpacket::Connection;
use parking_lot::Mutex;

use crate::control::{self, attr};
use crate::message::Header;
use crate::transport::{Family, Transport, UpcallSocket};

/// The longest datagram: a super-frame and its key.
pub const MAX_DATAGRAM: usize = 160 << 10;

/// Types of messages that end an answer.
pub const MSG_ERROR: u16 = 2;
/// See [`MSG_ERROR`].
pub const MSG_DONE: u16 = 3;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a control plane before us may take to be gone.
const TURNOVER: Duration = Duration::from_secs(2);

/// Connections that wait for their next use.
const MAX_SPARE: usize = 8;

/// The type of a family's messages.
pub fn type_of(family: Family) -> u16 {
    let at = Family::ALL.iter().position(|f| *f == family).unwrap_or(0);
    16 + u16::try_from(at).unwrap_or(0)
}

/// The family of a message by its type.
pub fn family_of(kind: u16) -> Option<Family> {
    Family::ALL.get(usize::from(kind.checked_sub(16)?)).copied()
}

/// A way to the datapath process that listens at a path.
pub struct UnixTransport {
    path: PathBuf,
    spare: Mutex<Vec<Connection>>,
}

impl UnixTransport {
    /// To the process at `path`, whose only control plane we are from now on.
    ///
    /// Errors: nobody listens there; `ResourceBusy`: another process is its control plane, which the text names.
    pub fn open(path: &Path) -> io::Result<UnixTransport> {
        let transport = UnixTransport { path: path.to_owned(), spare: Mutex::default() };
        let end = Instant::now() + TURNOVER;
        // One that was just killed may still have something under way.
        loop {
            match transport.attach() {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => return done.map(|()| transport),
            }
        }
    }

    /// Takes the place of the control plane; the connection that has it is kept.
    fn attach(&self) -> io::Result<()> {
        let connection = self.connect()?;
        let header = Header { command: control::command::ATTACH, version: 1, dp_ifindex: 0 };
        let kind = type_of(Family::Control);
        connection.send(Request::new(kind, F_REQUEST, &header.to_bytes()).seal(1), true)?;
        let mut holder = None;
        let end = read_answer(&connection, &mut |part| {
            let attributes = Header::split(part).map(|(_, rest)| attributes(rest));
            let told = attributes.ok().and_then(|mut all| all.find_map(Result::ok));
            holder = told.filter(|(kind, _)| *kind == attr::NUMBER).and_then(|(_, data)| u32_at(data, 0));
        })?;
        match end {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                let who = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                Err(io::Error::new(
                    e.kind(),
                    format!("another process{who} is the control plane of this datapath"),
                ))
            }
            // One that does not know the question has no such rule.
            _ => {
                self.spare.lock().push(connection);
                Ok(())
            }
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.set_timeout(PATIENCE)?;
        Ok(connection)
    }

    fn talk(
        &self,
        family: Family,
        flags: u16,
        payload: &[u8],
        visit: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        let spare = self.spare.lock().pop();
        let connection = spare.map_or_else(|| self.connect(), Ok)?;
        let mut request = Request::new(type_of(family), F_REQUEST | flags, payload);
        let done = match connection.send(request.seal(1), true) {
            // It was closed while nobody used it: by a datapath process that made place for another.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                let connection = self.connect()?;
                connection.send(request.seal(1), true)?;
                read_answer(&connection, visit).map(|end| (end, connection))
            }
            Err(e) => return Err(e),
            Ok(()) => read_answer(&connection, visit).map(|end| (end, connection)),
        };
        // After an error of the socket nobody knows what comes next on it.
        let (end, connection) = done?;
        let mut spare = self.spare.lock();
        if spare.len() < MAX_SPARE {
            spare.push(connection);
        }
        end
    }
}

/// Reads an answer up to its end: the peer's verdict, inside the socket's.
fn read_answer(connection: &Connection, visit: &mut dyn FnMut(&[u8])) -> io::Result<io::Result<()>> {
    let mut buf = Vec::new();
    loop {
        if !connection.recv(&mut buf, MAX_DATAGRAM, true)? {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        for message in netlink::messages(&buf) {
            match message.kind {
                MSG_ERROR | MSG_DONE => {
                    let errno = netlink::u32_at(message.payload, 0).unwrap_or(0).cast_signed();
                    return Ok(if errno < 0 { Err(io::Error::from_raw_os_error(-errno)) } else { Ok(()) });
                }
                _ => visit(message.payload),
            }
        }
    }
}

impl Transport for UnixTransport {
    fn is_own(&self) -> bool {
        true
    }
    fn request(&self, family: Family, flags: u16, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut answer = None;
        self.talk(family, flags, payload, &mut |part| answer = Some(part.to_vec()))?;
        Ok(answer)
    }
    fn dump(&self, family: Family, payload: &[u8], visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.talk(family, F_DUMP, payload, visit)
    }
    fn open_upcalls(&self, dp_ifindex: u32) -> io::Result<Box<dyn UpcallSocket>> {
        let connection = self.connect()?;
        let header = Header { command: control::command::LISTEN, version: 1, dp_ifindex };
        let kind = type_of(Family::Control);
        connection.send(Request::new(kind, F_REQUEST, &header.to_bytes()).seal(1), true)?;
        read_answer(&connection, &mut |_| {})??;
        Ok(Box::new(UpcallConnection(connection)))
    }
}

struct UpcallConnection(Connection);

impl UpcallSocket for UpcallConnection {
    /// The datapath knows who listens: `userspace` actions need not say it.
    fn pid(&self) -> u32 {
        0
    }
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
    fn recv(&mut self, buf: &mut Vec<u8>) -> io::Result<bool> {
        let mut datagram = Vec::new();
        match self.0.recv(&mut datagram, MAX_DATAGRAM, false) {
            Ok(true) => {
                buf.clear();
                if let Some(message) = netlink::messages(&datagram).next() {
                    buf.extend_from_slice(message.payload);
                }
                Ok(true)
            }
            Ok(false) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
