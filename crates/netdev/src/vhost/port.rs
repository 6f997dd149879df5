//! One port's conversation with its front-end, and the rings that come of it.
//!
//! `Control` (socket, session) belongs to whoever holds its lock: the events thread, or a configuration call.
//! Forwarding threads see the list of slots, and lock those one at a time; lock order is control, then list, then slot.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ib_base::vlog::module::NETDEV;
use ib_base::{vlog_info, vlog_warn, vlog_warn_rl};
use ib_packet::Packet;
use ib_sys::eventfd::{Epoll, EventFd};
use ib_sys::fd_socket;
use ib_vhost::session::{Event, Session, Slot};
use ib_vhost::wire::Assembler;
use parking_lot::{Mutex, RwLock};

use super::events::Inner;
use crate::changes::DeviceSeq;
use crate::stats::DropCounters;

/// Most bytes read from a front-end at a time.
const READ_MAX: usize = 4096;
/// Most packets of our own that wait.
const MADE_MAX: usize = 16;
const WAKE: u64 = u64::MAX;

/// What a receive queue waits for.
pub struct Waits {
    pub epoll: Epoll,
    wake: EventFd,
}

impl Waits {
    fn new() -> io::Result<Waits> {
        let (epoll, wake) = (Epoll::new()?, EventFd::new()?);
        epoll.add_edge(wake.as_raw_fd(), WAKE)?;
        Ok(Waits { epoll, wake })
    }
}

/// See the module.
pub struct Port {
    pub name: String,
    /// We connect, or we listen.
    pub is_client: bool,
    number: u64,
    events: Arc<Inner>,
    control: Mutex<Control>,
    pub slots: RwLock<Vec<Arc<Slot>>>,
    waits: Mutex<Vec<Weak<Waits>>>,
    /// Packets that we make in the guest's name.
    pub made: Mutex<Vec<Packet>>,
    pub seq: DeviceSeq,
    pub ready: AtomicBool,
    pub resets: AtomicU64,
    pub drops: DropCounters,
    /// rx packets, rx bytes, tx packets, tx bytes.
    pub counts: [AtomicU64; 4],
}

#[derive(Default)]
struct Control {
    path: Option<PathBuf>,
    listener: Option<UnixListener>,
    conn: Option<Conn>,
}

struct Conn {
    socket: UnixStream,
    assembler: Assembler,
    session: Session,
    /// Notification descriptors in the receive queues' sets, by ring.
    kicks: Vec<Option<OwnedFd>>,
}

/// What a port says of its front-end.
pub struct Report {
    pub path: Option<PathBuf>,
    pub connected: bool,
    pub features: u64,
    pub sizes: Vec<u16>,
}

impl Port {
    pub fn new(name: &str, is_client: bool, events: &Arc<Inner>, seq: DeviceSeq) -> Arc<Port> {
        let number = events.number();
        let port = Arc::new(Port {
            name: name.to_owned(),
            is_client,
            number,
            events: Arc::clone(events),
            control: Mutex::default(),
            slots: RwLock::default(),
            waits: Mutex::default(),
            made: Mutex::default(),
            seq,
            ready: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            drops: DropCounters::default(),
            counts: Default::default(),
        });
        events.watch(number, Arc::downgrade(&port));
        port
    }

    /// Where the socket is; `None`: nowhere. A change ends the conversation.
    pub fn set_path(&self, path: Option<PathBuf>) -> io::Result<()> {
        let mut control = self.control.lock();
        if control.path == path {
            return Ok(());
        }
        self.hang_up(&mut control);
        control.unlisten();
        control.path = path;
        if !self.is_client
            && let Some(path) = &control.path
        {
            let listener = listen(path)?;
            self.events.epoll.add(listener.as_raw_fd(), self.number)?;
            control.listener = Some(listener);
        }
        drop(control);
        self.events.watch_again();
        Ok(())
    }

    /// Ends everything.
    pub fn close(&self) {
        self.events.forget(self.number);
        let mut control = self.control.lock();
        self.hang_up(&mut control);
        control.unlisten();
        control.path = None;
    }

    pub fn report(&self) -> Report {
        let control = self.control.lock();
        let session = control.conn.as_ref().map(|c| &c.session);
        Report {
            path: control.path.clone(),
            connected: session.is_some(),
            features: session.map_or(0, Session::features),
            sizes: session.map(Session::vring_sizes).unwrap_or_default(),
        }
    }

    /// A new set to wait for, with all notifications in it.
    pub fn waits(&self) -> io::Result<Arc<Waits>> {
        let control = self.control.lock();
        let waits = Arc::new(Waits::new()?);
        for fd in control.conn.iter().flat_map(|c| c.kicks.iter().flatten()) {
            waits.epoll.add_edge(fd.as_raw_fd(), 0)?;
        }
        let mut all = self.waits.lock();
        all.retain(|w| w.strong_count() > 0);
        all.push(Arc::downgrade(&waits));
        Ok(waits)
    }

    /// Makes the receive queues look again.
    pub fn wake(&self) {
        self.each_wait(|w| w.wake.set());
    }

    fn each_wait(&self, f: impl Fn(&Waits)) {
        self.waits.lock().iter().filter_map(Weak::upgrade).for_each(|w| f(&w));
    }

    /// A turn of the events thread; true if the port is looking for a front-end.
    pub fn run(&self, readable: bool) -> bool {
        let mut control = self.control.lock();
        if control.conn.is_none() {
            let _ = self.meet(&mut control);
        } else if readable && !self.listen_to(&mut control) {
            self.hang_up(&mut control);
        }
        control.conn.is_none() && self.is_client && control.path.is_some()
    }

    /// Connects or accepts.
    fn meet(&self, control: &mut Control) -> io::Result<()> {
        let socket = if self.is_client {
            let Some(path) = &control.path else { return Ok(()) };
            fd_socket::connect(path)?
        } else {
            let Some(listener) = &control.listener else { return Ok(()) };
            let (socket, _) = listener.accept()?;
            // One front-end at a time: others wait in the queue.
            self.events.epoll.remove(listener.as_raw_fd())?;
            socket
        };
        self.events.epoll.add(socket.as_raw_fd(), self.number)?;
        vlog_info!(NETDEV, "vHost Device '{}' has been connected", self.name);
        control.conn = Some(Conn {
            socket,
            assembler: Assembler::default(),
            session: Session::new(),
            kicks: Vec::new(),
        });
        self.seq.bump();
        Ok(())
    }

    /// Takes in what the front-end says; false when the conversation is over.
    fn listen_to(&self, control: &mut Control) -> bool {
        let Some(conn) = &mut control.conn else { return true };
        let mut buf = [0; READ_MAX];
        let mut fds = Vec::new();
        loop {
            let want = conn.assembler.wanted().min(READ_MAX);
            let n = match fd_socket::recv(&conn.socket, &mut buf[..want], &mut fds) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    vlog_info!(NETDEV, "{}: vhost-user connection failed ({e})", self.name);
                    return false;
                }
            };
            let message = match conn.assembler.feed(&buf[..n], &mut fds) {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(fault) => {
                    vlog_warn!(NETDEV, "{}: bad vhost-user message ({fault:?})", self.name);
                    return false;
                }
            };
            let outcome = match conn.session.handle(message) {
                Ok(outcome) => outcome,
                Err(fault) => {
                    vlog_warn!(NETDEV, "{}: vhost-user front-end broke the protocol ({fault:?})", self.name);
                    return false;
                }
            };
            for event in outcome.events {
                self.take_in(conn, event);
            }
            if let Some(reply) = outcome.reply {
                let raw: Vec<_> = reply.fds.iter().map(AsRawFd::as_raw_fd).collect();
                if fd_socket::send(&conn.socket, &reply.to_bytes(), &raw).is_err() {
                    return false;
                }
            }
        }
    }

    fn take_in(&self, conn: &mut Conn, event: Event) {
        match event {
            Event::Kick(index) => {
                if conn.kicks.len() <= index {
                    conn.kicks.resize_with(index + 1, || None);
                }
                self.drop_kick(conn.kicks[index].take());
                // Only what the guest sends is waited for.
                let fd = conn.session.kick(index).filter(|_| index % 2 == 1);
                if let Some(fd) = fd.and_then(|fd| fd.try_clone().ok()) {
                    self.each_wait(|w| {
                        if let Err(e) = w.epoll.add_edge(fd.as_raw_fd(), 0) {
                            vlog_warn_rl!(NETDEV, (1, 5), "{}: cannot wait for the guest ({e})", self.name);
                        }
                    });
                    conn.kicks[index] = Some(fd);
                }
            }
            Event::Changed => {
                *self.slots.write() = conn.session.slots();
                self.set_ready(conn.session.is_ready());
                self.seq.bump();
            }
            Event::Rarp(mac) => {
                let mut made = self.made.lock();
                if made.len() < MADE_MAX {
                    made.push(rarp(mac));
                }
            }
        }
        self.each_wait(|w| w.wake.set());
    }

    fn drop_kick(&self, fd: Option<OwnedFd>) {
        if let Some(fd) = fd {
            // The front-end has the same open file: closing ours takes it out of no set.
            self.each_wait(|w| {
                let _ = w.epoll.remove(fd.as_raw_fd());
            });
        }
    }

    fn set_ready(&self, ready: bool) {
        if self.ready.swap(ready, Ordering::AcqRel) != ready {
            self.resets.fetch_add(1, Ordering::Relaxed);
            let what = if ready { "added" } else { "removed" };
            vlog_info!(NETDEV, "vHost Device '{}' has been {what}", self.name);
        }
    }

    fn hang_up(&self, control: &mut Control) {
        let Some(conn) = control.conn.take() else { return };
        self.slots.write().clear();
        let Conn { socket, session, kicks, .. } = conn;
        kicks.into_iter().for_each(|fd| self.drop_kick(fd));
        // Takes the rings out of the slots, and so waits for a batch under way.
        drop(session);
        drop(socket);
        self.set_ready(false);
        vlog_info!(NETDEV, "vHost Device '{}' connection has been destroyed", self.name);
        if let Some(listener) = &control.listener {
            let _ = self.events.epoll.add(listener.as_raw_fd(), self.number);
        }
        self.seq.bump();
    }
}

impl Control {
    fn unlisten(&mut self) {
        if self.listener.take().is_some()
            && let Some(path) = &self.path
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens at a path; a socket there that nobody listens at any more gives way.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let (short, _dir) = ib_sys::socket::short_unix_path(path)?;
    let listener = match UnixListener::bind(&short) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(&short).is_err() => {
            std::fs::remove_file(&short)?;
            UnixListener::bind(&short)?
        }
        other => other?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A reverse ARP request of `mac` for itself: tells switches where a machine now is.
fn rarp(mac: [u8; 6]) -> Packet {
    let mut b = vec![0xff; 6];
    b.extend(mac);
    b.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    b.extend(mac);
    b.extend([0; 4]);
    b.extend(mac);
    b.resize(60, 0);
    Packet::from_frame(&b)
}
