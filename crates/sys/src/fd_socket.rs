//! UNIX stream sockets that pass descriptors along with bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::eventfd::check;

/// Most descriptors that come or go with one piece.
pub const MAX_FDS: usize = 16;
/// A control message of [`MAX_FDS`] descriptors.
const CONTROL_LEN: usize = 16 + MAX_FDS * size_of::<RawFd>();

/// An aligned control area.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Receives without waiting; descriptors that came along are appended to `fds`. 0 bytes: the peer has gone.
/// `InvalidData` if more descriptors came than there is room for.
pub fn recv(socket: impl AsFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = CONTROL_LEN as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to a vector, buffer and control area that live through the call.
    let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut msg, flags) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled the control area in, and the macros walk it within msg_controllen; each descriptor
    // in SCM_RIGHTS was opened for us and nobody else has it.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(&msg);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*c).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(c).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            c = libc::CMSG_NXTHDR(&msg, c);
        }
    }
    if msg.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(n)
}

/// Sends all of `bytes` without waiting, with descriptors. What does not fit at once is an error: peers of ours take small
/// answers or are broken.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        msg.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the control area has room for MAX_FDS descriptors behind a header, which is there.
        unsafe {
            msg.msg_controllen = libc::CMSG_SPACE(len) as _;
            let c = libc::CMSG_FIRSTHDR(&msg);
            (*c).cmsg_level = libc::SOL_SOCKET;
            (*c).cmsg_type = libc::SCM_RIGHTS;
            (*c).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::memcpy(libc::CMSG_DATA(c).cast(), fds.as_ptr().cast(), len as usize);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to a vector, bytes and control area that live through the call, and are only read.
    let n = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &msg, flags) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    if n == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Connects to a UNIX socket without waiting: `WouldBlock` if the listener's queue is full.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = crate::socket::short_unix_path(path)?;
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the descriptor that returns is ours alone.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: fd was just opened and nobody else has it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: all-zero bytes are a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address lives through the call and has the length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// Makes a descriptor's writes fail rather than wait. The setting is shared with whoever else has the open file.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: F_GETFL and F_SETFL take integers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::EventFd;

    #[test]
    fn descriptors_travel_with_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let event = EventFd::new().unwrap();
        send(&a, b"two", &[event.as_raw_fd(), event.as_raw_fd()]).unwrap();
        send(&a, b"none", &[]).unwrap();
        let (mut buf, mut fds) = ([0; 16], Vec::new());
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap(), 3, "descriptors end a piece");
        assert_eq!((&buf[..3], fds.len()), (&b"two"[..], 2));
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap(), 4);
        assert_eq!(fds.len(), 2);
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap(), 0);
    }
}
