//! The transport to openvswitch.ko: generic netlink.
//!
//! Callers share a pool of sockets, each used by one at a time; the kernel answers at once. Upcalls have sockets of their own.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use ib_sys::netlink::{F_ACK, F_DUMP, GENERIC, Request, Socket};
use parking_lot::Mutex;

use crate::transport::{Family, Transport, UpcallSocket};

/// The longest upcall: a packet of 64 KiB, its key and actions.
const MAX_UPCALL: usize = 192 << 10;

/// Sockets that wait for their next use.
const MAX_SPARE: usize = 8;

/// A listing that changed while it was made is asked for anew so often.
const DUMPS: usize = 3;

/// A way to the kernel's datapath, in the network namespace of whoever opened it.
pub struct NetlinkTransport {
    /// Message types, in the order of [`Family::ALL`]; 0 where the kernel has none.
    types: [u16; Family::ALL.len()],
    spare: Mutex<Vec<Socket>>,
}

fn name_of(family: Family) -> Option<&'static str> {
    match family {
        Family::Datapath => Some("ovs_datapath"),
        Family::Vport => Some("ovs_vport"),
        Family::Flow => Some("ovs_flow"),
        Family::Packet => Some("ovs_packet"),
        Family::Meter => Some("ovs_meter"),
        Family::CtLimit => Some("ovs_ct_limit"),
        Family::Control => None,
    }
}

impl NetlinkTransport {
    /// Finds the families.
    ///
    /// Errors: `ENOENT` where openvswitch.ko is not loaded.
    pub fn open() -> io::Result<NetlinkTransport> {
        let mut socket = Socket::open(GENERIC, 0)?;
        let mut types = [0; Family::ALL.len()];
        for (place, family) in types.iter_mut().zip(Family::ALL) {
            let Some(name) = name_of(family) else { continue };
            *place = match socket.family(name) {
                Ok(id) => id,
                // Older kernels have neither meters nor limits.
                Err(_) if matches!(family, Family::Meter | Family::CtLimit) => 0,
                Err(e) => return Err(e),
            };
        }
        Ok(NetlinkTransport { types, spare: Mutex::new(vec![socket]) })
    }

    /// Asks, and has each part of the answer looked at; whether a listing is whole.
    fn talk(
        &self,
        family: Family,
        flags: u16,
        payload: &[u8],
        visit: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        let at = Family::ALL.iter().position(|f| *f == family).unwrap_or(0);
        let kind = self.types[at];
        if kind == 0 {
            return Err(io::Error::from_raw_os_error(ib_sys::errno::EOPNOTSUPP));
        }
        let spare = self.spare.lock().pop();
        let mut socket = spare.map_or_else(|| Socket::open(GENERIC, 0), Ok)?;
        let result = socket.request(&mut Request::new(kind, flags, payload), |m| visit(m.payload));
        let result = result.map(|()| !socket.was_interrupted());
        let mut spare = self.spare.lock();
        if spare.len() < MAX_SPARE {
            spare.push(socket);
        }
        result
    }
}

impl Transport for NetlinkTransport {
    fn request(&self, family: Family, flags: u16, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut answer = None;
        self.talk(family, flags | F_ACK, payload, &mut |part| answer = Some(part.to_vec()))?;
        Ok(answer)
    }
    fn dump(&self, family: Family, payload: &[u8], visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        // Flows are many, and may come twice: who lists them again and again has to expect that anyway.
        if family == Family::Flow {
            return self.talk(family, F_DUMP, payload, visit).map(drop);
        }
        let mut parts = Vec::new();
        for _ in 0..DUMPS {
            parts.clear();
            match self.talk(family, F_DUMP, payload, &mut |part| parts.push(part.to_vec())) {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) if e.raw_os_error() == Some(ib_sys::errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
        parts.iter().for_each(|part| visit(part));
        Ok(())
    }
    fn open_upcalls(&self, _dp_ifindex: u32) -> io::Result<Box<dyn UpcallSocket>> {
        let socket = Socket::open(GENERIC, 0)?.with_room(MAX_UPCALL);
        Ok(Box::new(Upcalls { pid: socket.pid()?, socket }))
    }
}

struct Upcalls {
    pid: u32,
    socket: Socket,
}

impl UpcallSocket for Upcalls {
    fn pid(&self) -> u32 {
        self.pid
    }
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
    fn recv(&mut self, buf: &mut Vec<u8>) -> io::Result<bool> {
        buf.clear();
        self.socket.poll(|m| {
            buf.clear();
            buf.extend_from_slice(m.payload);
        })
    }
}
