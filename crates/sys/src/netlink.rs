//! Netlink framing and sockets, any family.
//!
//! [`Request`] builds a message, [`Attrs`] walks attributes of what came back, [`Socket`] sends and
//! receives. Everything is in host byte order, aligned to four bytes, as the kernel has it. The kernel is a
//! trusted peer, yet lengths are checked: a short attribute ends a walk, it never panics.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::eventfd::check;

/// `NLM_F_REQUEST`
pub const F_REQUEST: u16 = 1;
/// `NLM_F_ACK`
pub const F_ACK: u16 = 4;
/// `NLM_F_ECHO`
pub const F_ECHO: u16 = 8;
/// `NLM_F_DUMP_INTR`: what is listed changed meanwhile.
const F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_DUMP`
pub const F_DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub const F_REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub const F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`
pub const F_CREATE: u16 = 0x400;

/// `NETLINK_ROUTE`
pub const ROUTE: i32 = libc::NETLINK_ROUTE;
/// `NETLINK_GENERIC`
pub const GENERIC: i32 = libc::NETLINK_GENERIC;
/// `NETLINK_NETFILTER`
pub const NETFILTER: i32 = libc::NETLINK_NETFILTER;

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;

/// A message being built.
#[derive(Clone, Debug)]
pub struct Request {
    buf: Vec<u8>,
}

impl Request {
    /// A message of type `kind`; `F_REQUEST` is added to `flags`. `fixed` is the family's header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut buf = vec![0; HEADER];
        buf[4..6].copy_from_slice(&kind.to_ne_bytes());
        buf[6..8].copy_from_slice(&(flags | F_REQUEST).to_ne_bytes());
        buf.extend_from_slice(fixed);
        let mut r = Request { buf };
        r.align();
        r
    }

    fn align(&mut self) {
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute. Longer than 65,531 bytes is a caller's bug.
    pub fn attr(&mut self, kind: u16, data: &[u8]) -> &mut Request {
        let len = u16::try_from(data.len() + 4).expect("netlink attribute fits in 64 KiB");
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(data);
        self.align();
        self
    }
    /// Appends a 32-bit attribute.
    pub fn attr_u32(&mut self, kind: u16, v: u32) -> &mut Request {
        self.attr(kind, &v.to_ne_bytes())
    }
    /// Appends a string attribute with its terminator.
    pub fn attr_str(&mut self, kind: u16, v: &str) -> &mut Request {
        let mut bytes = v.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }
    /// Appends an attribute that holds what `f` appends.
    pub fn nest(&mut self, kind: u16, f: impl FnOnce(&mut Request)) -> &mut Request {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        self.buf.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        f(self);
        let len = u16::try_from(self.buf.len() - at).expect("netlink nest fits in 64 KiB");
        self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }
    /// Appends raw bytes, for a family's header inside of a nest (a veth peer's `ifinfomsg`).
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Request {
        self.buf.extend_from_slice(bytes);
        self.align();
        self
    }

    /// The finished message, with its length and this sequence number.
    pub fn seal(&mut self, seq: u32) -> &[u8] {
        let len = u32::try_from(self.buf.len()).expect("netlink message fits in 4 GiB");
        self.buf[0..4].copy_from_slice(&len.to_ne_bytes());
        self.buf[8..12].copy_from_slice(&seq.to_ne_bytes());
        &self.buf
    }
}

/// A message received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Attributes behind a family header of `fixed` bytes.
    pub fn attrs(&self, fixed: usize) -> Attrs<'a> {
        Attrs(self.payload.get(fixed.next_multiple_of(4)..).unwrap_or(&[]))
    }
}

/// Walks attributes: `(type without flag bits, data)`.
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let data = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, data))
    }
}

/// Host-order 16 bits at `at`.
pub fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
}
/// Host-order 32 bits at `at`.
pub fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
/// Host-order 64 bits at `at`.
pub fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(b.get(at..at + 8)?.try_into().ok()?))
}
/// A string attribute without its terminator.
pub fn text(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

/// A netlink socket, for requests or for notifications; one thread at a time.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buf: Vec<u8>,
    interrupted: bool,
}

impl Socket {
    /// Opens a socket of `protocol` ([`ROUTE`], ...) in the calling thread's network namespace, joined to the
    /// groups of the bit mask `groups` (0 for requests only).
    pub fn open(protocol: i32, groups: u32) -> io::Result<Socket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the descriptor that returns is ours alone.
        let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) })?;
        // SAFETY: fd was just opened and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut addr: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        addr.nl_family = libc::AF_NETLINK as u16;
        addr.nl_groups = groups;
        let len = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: addr lives through the call and len is its size.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) })?;
        let room: libc::c_int = 1 << 20;
        // Beyond the machine's limit where privileges allow, else as much as it gives.
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            // SAFETY: an int and its size. A refusal leaves the default size.
            let set = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const room).cast(),
                    size_of::<libc::c_int>() as u32,
                )
            };
            if set == 0 {
                break;
            }
        }
        Ok(Socket { fd, seq: 1, buf: vec![0; 64 << 10], interrupted: false })
    }

    /// Joins one multicast group by number (families with more than 32 groups, generic netlink).
    pub fn join(&self, group: u32) -> io::Result<()> {
        // SAFETY: a u32 and its size.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                size_of::<u32>() as u32,
            )
        })?;
        Ok(())
    }

    /// The same with room for datagrams of `bytes`; 64 KiB otherwise.
    pub fn with_room(mut self, bytes: usize) -> Socket {
        self.buf.resize(bytes, 0);
        self
    }

    /// The number by which the kernel knows this socket.
    pub fn pid(&self) -> io::Result<u32> {
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut addr: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: addr and len live through the call, and len is addr's size.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut addr).cast(), &raw mut len) })?;
        Ok(addr.nl_pid)
    }

    /// The message type of a generic netlink family.
    ///
    /// Errors: `ENOENT` where the kernel, or a module that is not loaded, lacks it.
    pub fn family(&mut self, name: &str) -> io::Result<u16> {
        const CONTROL: u16 = 16;
        const GET_FAMILY: u8 = 3;
        let mut request = Request::new(CONTROL, F_ACK, &[GET_FAMILY, 1, 0, 0]);
        request.attr_str(2, name);
        let mut id = None;
        self.request(&mut request, |m| {
            id = m.attrs(4).find(|(kind, _)| *kind == 1).and_then(|(_, data)| u16_at(data, 0));
        })?;
        id.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn read(&mut self, flags: libc::c_int) -> io::Result<usize> {
        loop {
            // SAFETY: buf.len() writable bytes.
            let n = unsafe {
                libc::recv(self.fd.as_raw_fd(), self.buf.as_mut_ptr().cast(), self.buf.len(), flags)
            };
            match usize::try_from(n) {
                Ok(n) => return Ok(n.min(self.buf.len())),
                Err(_) => {
                    let e = io::Error::last_os_error();
                    if e.kind() != io::ErrorKind::Interrupted {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Sends `request` and gives each answer to `on`, up to its acknowledgement or the end of the dump.
    /// The kernel answers at once; this does not wait for anything else.
    /// See [`Self::was_interrupted`] for dumps.
    pub fn request(&mut self, request: &mut Request, mut on: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1).max(1);
        let seq = self.seq;
        let bytes = request.seal(seq);
        // SAFETY: bytes.len() readable bytes.
        let n = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.interrupted = false;
        loop {
            let n = self.read(0)?;
            for m in messages(&self.buf[..n]) {
                if m.seq != seq {
                    continue;
                }
                self.interrupted |= m.flags & F_DUMP_INTR != 0;
                match m.kind {
                    MSG_ERROR | MSG_DONE => {
                        let errno = u32_at(m.payload, 0).unwrap_or(0).cast_signed();
                        return if errno < 0 { Err(io::Error::from_raw_os_error(-errno)) } else { Ok(()) };
                    }
                    _ => on(&m),
                }
            }
        }
    }

    /// Whether what the last dump listed changed while it was made, so that some of it may be missing or come twice.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Gives one datagram's notifications to `on` without waiting; false if there was none. `ENOBUFS`: some were
    /// lost, ask for the whole state again.
    pub fn poll(&mut self, mut on: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        match self.read(libc::MSG_DONTWAIT) {
            Ok(n) => {
                messages(&self.buf[..n]).filter(|m| m.kind > MSG_DONE).for_each(|m| on(&m));
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Splits a datagram; a length that lies ends it.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER..len)?;
        let m = Message { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, seq: u32_at(rest, 8)?, payload };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(m)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_come_back() {
        let mut r = Request::new(20, F_ACK, &[1, 2, 3, 4]);
        r.attr_str(3, "abcd").nest(5, |r| {
            r.attr_u32(1, 9);
        });
        let bytes = r.seal(7).to_vec();
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].seq, all[0].flags), (1, 20, 7, F_ACK | F_REQUEST));
        let attrs: Vec<_> = all[0].attrs(4).collect();
        assert_eq!(attrs[0], (3, &b"abcd\0"[..]));
        assert_eq!(attrs[1].0, 5);
        assert_eq!(Attrs(attrs[1].1).next(), Some((1, &9u32.to_ne_bytes()[..])));
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        assert_eq!(Attrs(&[200, 0, 1, 0, 9]).next(), None);
        assert_eq!(Attrs(&[2, 0, 1, 0, 9, 9, 9, 9]).next(), None);
        assert_eq!(messages(&[255; 20]).count(), 0);
        assert_eq!(messages(&[0; 40]).count(), 0);
    }
}
