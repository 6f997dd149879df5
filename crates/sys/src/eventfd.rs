//! Wake-ups: an eventfd that is set or clear, and an epoll set that bundles several descriptors into one.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Turns -1 into the error.
pub(crate) fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// A flag that can be waited for: readable while set. Any thread may set or clear it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A clear one.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers; the descriptor that returns is ours alone.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: fd was just opened and nobody else has it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// One that another program made; `None` if it is no eventfd. Writes to it never wait from now on.
    pub fn adopt(fd: OwnedFd) -> Option<EventFd> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        if link.as_os_str() != "anon_inode:[eventfd]" {
            return None;
        }
        crate::fd_socket::set_nonblocking(&fd).ok()?;
        Some(EventFd(fd))
    }

    /// Sets it.
    pub fn set(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. A failure means that it is already set as far as it goes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Clears it; tells whether it was set.
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes.
        let n = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        n == 8
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::os::fd::AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An epoll set: readable itself while any member is, so it nests in another reactor.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; the descriptor that returns is ours alone.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: fd was just opened and nobody else has it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds `fd`, level-triggered for reading, under `token`.
    pub fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: event is valid for the call; the kernel checks both descriptors.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    /// Adds `fd` under `token`, edge-triggered: each time it becomes readable again counts once, whether it was read or not.
    pub fn add_edge(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: token };
        // SAFETY: event is valid for the call; the kernel checks both descriptors.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    /// Removes `fd`.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        let event = std::ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL ignores the event since Linux 2.6.9.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, event) })?;
        Ok(())
    }

    /// Waits up to `timeout_ms` (-1: for ever) and appends the tokens of up to 64 ready members to `ready`.
    /// An interrupting signal ends the wait early, without error.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout_ms: i32) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: the kernel writes at most 64 events into the array.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 64, timeout_ms) };
        let n = match check(n) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            other => usize::try_from(other?).unwrap_or(0),
        };
        ready.extend(events[..n].iter().map(|e| e.u64));
        Ok(())
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_flag_is_seen_through_two_epoll_levels() {
        let flag = EventFd::new().unwrap();
        let inner = Epoll::new().unwrap();
        let outer = Epoll::new().unwrap();
        inner.add(flag.as_raw_fd(), 1).unwrap();
        outer.add(inner.as_raw_fd(), 7).unwrap();
        let mut ready = Vec::new();
        outer.wait(&mut ready, 0).unwrap();
        assert!(ready.is_empty());
        flag.set();
        outer.wait(&mut ready, 0).unwrap();
        assert_eq!(ready, [7]);
        assert!(flag.clear());
        assert!(!flag.clear());
        ready.clear();
        outer.wait(&mut ready, 0).unwrap();
        assert!(ready.is_empty());
    }
}
