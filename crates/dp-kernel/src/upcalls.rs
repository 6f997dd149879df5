//! Upcalls from a datapath that is not in this process: threads that wait for packets, ask the handler, and answer.
//!
//! Each thread owns a socket. A datapath spreads a port's packets over the sockets by a hash of the flow, so packets of a
//! flow stay in order. Dropping [`Upcalls`] ends the threads; upcalls that wait then are lost, which the datapath counts.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use ib_base::vlog::module::DPIF;
use ib_base::{vlog_err, vlog_warn_rl};
use ib_dpif::{DpifError, FlowPut, Install, Upcall, UpcallHandler, UpcallKind, UserspaceData};
use ib_packet::Packet;
use ib_sys::eventfd::{Epoll, EventFd};

use crate::message::{Header, PacketUp, command};
use crate::provider::{Link, Sent};
use crate::transport::UpcallSocket;

/// Threads, and with them sockets: as many as can do some good.
const MAX_THREADS: usize = 4;

/// Upcalls that one thread answers before it looks whether it shall end.
const BURST: usize = 64;

/// Threads that answer upcalls. They end when this is dropped.
pub(crate) struct Upcalls {
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Upcalls {
    /// Opens a socket for each thread to come. What arrives waits there, as much as the socket's buffer holds.
    pub(crate) fn open(link: &Link) -> io::Result<Vec<Box<dyn UpcallSocket>>> {
        let n = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        (0..n).map(|_| link.transport.open_upcalls(link.dp_ifindex.load(Ordering::Relaxed))).collect()
    }

    /// Starts a thread for each socket.
    pub(crate) fn start(
        link: &Arc<Link>,
        sockets: Vec<Box<dyn UpcallSocket>>,
        handler: &Arc<dyn UpcallHandler>,
    ) -> io::Result<Upcalls> {
        let stop = Arc::new(EventFd::new()?);
        let mut upcalls = Upcalls { stop: Arc::clone(&stop), threads: Vec::new() };
        for (i, socket) in sockets.into_iter().enumerate() {
            let mut thread = Thread {
                link: Arc::clone(link),
                handler: Arc::clone(handler),
                stop: Arc::clone(&stop),
                socket,
            };
            let name = format!("handler{i}");
            upcalls.threads.push(std::thread::Builder::new().name(name).spawn(move || thread.run())?);
        }
        Ok(upcalls)
    }
}

impl Drop for Upcalls {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Thread {
    link: Arc<Link>,
    handler: Arc<dyn UpcallHandler>,
    stop: Arc<EventFd>,
    socket: Box<dyn UpcallSocket>,
}

impl Thread {
    fn run(&mut self) {
        if let Err(e) = self.serve() {
            // One that is lost is reported by those who look for another.
            if !self.link.transport.is_own() {
                vlog_err!(DPIF, "upcalls of this thread end: {}", ib_base::errno::strerror(&e));
            }
            self.link.lost.store(true, Ordering::Relaxed);
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let epoll = Epoll::new()?;
        epoll.add(self.socket.fd(), 0)?;
        epoll.add(self.stop.as_raw_fd(), 1)?;
        let (mut ready, mut buf) = (Vec::new(), Vec::new());
        loop {
            ready.clear();
            epoll.wait(&mut ready, -1)?;
            if ready.contains(&1) {
                return Ok(());
            }
            for _ in 0..BURST {
                match self.socket.recv(&mut buf) {
                    Ok(false) => break,
                    Ok(true) => self.answer(&buf),
                    Err(e) if e.raw_os_error() == Some(105) => {
                        vlog_warn_rl!(DPIF, (9999, 5), "lost packets on an upcall socket: {e}");
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn answer(&self, payload: &[u8]) {
        let up = Header::split(payload).and_then(|(header, rest)| Ok((header, PacketUp::read(rest)?)));
        let (header, up) = match up {
            Ok(found) => found,
            Err(e) => return vlog_warn_rl!(DPIF, (9999, 5), "upcall that cannot be read: {e}"),
        };
        let mut packet = Packet::from_frame(up.frame);
        packet.offload = up.offload;
        packet.ethernet = up.key.packet_type.is_zero();
        packet.l3_type = up.key.dl_type;
        let data = UserspaceData {
            userdata: up.userdata.map(Arc::from).unwrap_or_default(),
            actions: up.actions.clone(),
        };
        let verdict = self.handler.upcall(&Upcall {
            kind: if header.command == command::MISS { UpcallKind::Miss } else { UpcallKind::Action(&data) },
            packet: &packet,
            key: &up.key,
            ufid: ib_dpif::ufid::ufid_of_key(&up.key, self.link.seed),
            now_ms: self.link.clock.now().as_ms(),
        });
        if let Some(Install { mask, actions }) = &verdict.install {
            let put = FlowPut {
                modify: false,
                create: true,
                zero_stats: false,
                key: &up.key,
                mask,
                ufid: Some(verdict.ufid),
                actions: Arc::clone(actions),
            };
            let result = match self.link.flow_put(&put, false) {
                // Another packet of the same flow was faster.
                Err(DpifError::Exists(_)) => Ok(()),
                other => other,
            };
            self.handler.installed(verdict.ufid, result);
        }
        let sent = Sent { mru: up.mru, hash: up.hash, ..Sent::default() };
        if !verdict.actions.is_empty()
            && let Err(e) = self.link.execute(&packet, &up.key, &verdict.actions, &sent)
        {
            vlog_warn_rl!(DPIF, (9999, 5), "packet of an upcall: {e}");
        }
    }
}
