//! AF_PACKET sockets that move whole frames with their virtio-net headers, many a system call.
//!
//! [`PacketSocket`] is one socket bound to one interface. [`RecvRing`] and [`SendRing`] hold what recvmmsg and
//! sendmmsg want (headers, vectors, control buffers), so that a call allocates nothing; a thread has one of
//! each and uses it for all its sockets. Received frames land in the caller's buffers; of a frame longer than
//! its buffer the rest lands in the ring's overflow buffer, from where the caller appends it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::eventfd::check;

/// Length of the virtio-net header in front of each frame.
pub const VNET_HEADER_LEN: usize = 10;
/// Most frames moved by one call.
pub const RING_SLOTS: usize = 32;
/// Room for the part of a frame that did not fit into its buffer.
const OVERFLOW_LEN: usize = 66 << 10;

const SOL_PACKET: libc::c_int = 263;
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_QDISC_BYPASS: libc::c_int = 20;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_MR_PROMISC: u16 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const ETH_P_ALL: u16 = 3;
/// A cmsghdr and a tpacket_auxdata (20 bytes), aligned.
const CONTROL_LEN: usize = 48;

/// An AF_PACKET socket; see the module.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    receives: bool,
}

fn set<T>(fd: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as u32;
    // SAFETY: value is a live T and len its size; the kernel only reads.
    check(unsafe { libc::setsockopt(fd, level, option, ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

impl PacketSocket {
    fn open(receives: bool) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 receives nothing, neither now nor before bind().
        // SAFETY: no pointers; the descriptor that returns is ours alone.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: fd was just opened and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(fd.as_raw_fd(), SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
        Ok(PacketSocket { fd, receives })
    }

    /// A socket that receives all that arrives on `ifindex`, not what is sent there. Holds up to `buffer_bytes`.
    pub fn receiver(ifindex: i32, buffer_bytes: i32) -> io::Result<PacketSocket> {
        let s = PacketSocket::open(true)?;
        let fd = s.fd.as_raw_fd();
        set(fd, SOL_PACKET, PACKET_AUXDATA, &1i32)?;
        // Kernels before 4.20 lack it; the caller then sees what it sends, as Open vSwitch filters by program.
        set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
        if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer_bytes).is_err() {
            let _ = set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &buffer_bytes);
        }
        s.bind(ifindex)?;
        Ok(s)
    }

    /// A socket that sends to `ifindex`. It goes past the queueing discipline; see [`Self::set_qdisc_bypass`].
    pub fn sender(ifindex: i32, buffer_bytes: i32) -> io::Result<PacketSocket> {
        let s = PacketSocket::open(false)?;
        let fd = s.fd.as_raw_fd();
        if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &buffer_bytes).is_err() {
            let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &buffer_bytes);
        }
        s.set_qdisc_bypass(true)?;
        s.bind(ifindex)?;
        Ok(s)
    }

    /// Whether to go past the queueing discipline. Must be off for QoS to have an effect.
    pub fn set_qdisc_bypass(&self, on: bool) -> io::Result<()> {
        set(self.fd.as_raw_fd(), SOL_PACKET, PACKET_QDISC_BYPASS, &i32::from(on))
    }

    /// Priority of what is sent from now on: it names a class of the queueing discipline.
    pub fn set_priority(&self, priority: u32) -> io::Result<()> {
        set(self.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, &priority.cast_signed())
    }

    /// Binds to another interface, after the one before has gone. Receivers make it promiscuous.
    pub fn bind(&self, ifindex: i32) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = if self.receives { ETH_P_ALL.to_be() } else { 0 };
        addr.sll_ifindex = ifindex;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: addr lives through the call and len is its size.
        check(unsafe { libc::bind(fd, (&raw const addr).cast(), len) })?;
        if self.receives {
            // struct packet_mreq { int ifindex; u16 type; u16 alen; u8 address[8]; }
            #[repr(C)]
            struct Mreq(i32, u16, u16, [u8; 8]);
            let mreq = Mreq(ifindex, PACKET_MR_PROMISC, 0, [0; 8]);
            set(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &mreq)?;
        }
        Ok(())
    }

    /// How many frames it had no room for since this was last asked.
    pub fn take_lost(&self) -> u64 {
        // struct tpacket_stats { u32 packets, drops; }
        let mut stats = [0u32; 2];
        let mut len = size_of_val(&stats) as u32;
        // SAFETY: stats is writable for len bytes.
        let rc = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                SOL_PACKET,
                PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &mut len,
            )
        };
        if rc == 0 { u64::from(stats[1]) } else { 0 }
    }

    /// Throws away what waits.
    pub fn drain(&self) {
        let mut byte = 0u8;
        // SAFETY: one writable byte; the rest of each frame is discarded.
        while unsafe { libc::recv(self.fd.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) } >= 0 {
        }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A frame that [`RecvRing::recv`] received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its virtio-net header.
    pub vnet: [u8; VNET_HEADER_LEN],
    /// Bytes in the caller's buffer.
    pub len: usize,
    /// Bytes that did not fit there and belong behind them.
    pub overflow: &'a [u8],
    /// Even the overflow buffer was too short: the frame's end is lost.
    pub truncated: bool,
    /// The VLAN tag that the kernel took off: TPID and TCI, host order.
    pub vlan: Option<(u16, u16)>,
}

/// Everything that recvmmsg wants for [`RING_SLOTS`] frames.
pub struct RecvRing {
    vnet: Box<[[u8; VNET_HEADER_LEN]; RING_SLOTS]>,
    control: Box<[Control; RING_SLOTS]>,
    overflow: Box<[u8]>,
    iov: Box<[[libc::iovec; 3]; RING_SLOTS]>,
    msgs: Box<[libc::mmsghdr; RING_SLOTS]>,
    rooms: [usize; RING_SLOTS],
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

// SAFETY: the raw pointers inside point into the ring's own boxes, or into the caller's buffers during a call
// only; they are written anew before each call.
unsafe impl Send for RecvRing {}

impl Default for RecvRing {
    fn default() -> RecvRing {
        RecvRing::new()
    }
}

impl RecvRing {
    /// Allocates it: about 2 MiB of address space, touched only as far as super-frames need it.
    pub fn new() -> RecvRing {
        // SAFETY: iovec and mmsghdr are plain C structures for which all-zero bytes are valid.
        let (iov, msgs) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        RecvRing {
            vnet: Box::new([[0; VNET_HEADER_LEN]; RING_SLOTS]),
            control: Box::new([Control([0; CONTROL_LEN]); RING_SLOTS]),
            overflow: vec![0; OVERFLOW_LEN * RING_SLOTS].into_boxed_slice(),
            iov: Box::new(iov),
            msgs: Box::new(msgs),
            rooms: [0; RING_SLOTS],
        }
    }

    /// Receives up to `rooms.len()` (at most [`RING_SLOTS`]) frames without waiting, frame `i` into `rooms[i]`; returns how
    /// many. See [`Self::frame`] for what came. `WouldBlock` if none waits.
    pub fn recv(&mut self, socket: &PacketSocket, rooms: &mut [&mut [u8]]) -> io::Result<usize> {
        let n = rooms.len().min(RING_SLOTS);
        for (i, room) in rooms.iter_mut().take(n).enumerate() {
            self.rooms[i] = room.len();
            let overflow = self.overflow[i * OVERFLOW_LEN..].as_mut_ptr();
            self.iov[i] = [
                libc::iovec { iov_base: self.vnet[i].as_mut_ptr().cast(), iov_len: VNET_HEADER_LEN },
                libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() },
                libc::iovec { iov_base: overflow.cast(), iov_len: OVERFLOW_LEN },
            ];
            let hdr = &mut self.msgs[i].msg_hdr;
            hdr.msg_iov = self.iov[i].as_mut_ptr();
            hdr.msg_iovlen = 3;
            hdr.msg_control = self.control[i].0.as_mut_ptr().cast();
            hdr.msg_controllen = CONTROL_LEN;
            hdr.msg_flags = 0;
        }
        // SAFETY: the first n headers point to vectors, buffers and control areas that live through the call:
        // ours are boxed, the caller's are borrowed mutably.
        let got = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.msgs.as_mut_ptr(),
                n as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        })?;
        Ok(usize::try_from(got).unwrap_or(0))
    }

    /// Frame `i` of the last [`Self::recv`].
    pub fn frame(&self, i: usize) -> Received<'_> {
        let msg = &self.msgs[i];
        let total = (msg.msg_len as usize).saturating_sub(VNET_HEADER_LEN);
        let len = total.min(self.rooms[i]);
        let over = (total - len).min(OVERFLOW_LEN);
        Received {
            vnet: self.vnet[i],
            len,
            overflow: &self.overflow[i * OVERFLOW_LEN..][..over],
            truncated: msg.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            vlan: self.vlan(i),
        }
    }

    /// Reads the one control message that we asked for, struct tpacket_auxdata.
    fn vlan(&self, i: usize) -> Option<(u16, u16)> {
        let used = self.msgs[i].msg_hdr.msg_controllen.min(CONTROL_LEN);
        let c = &self.control[i].0[..used];
        // cmsghdr: len 8, level 4, type 4; auxdata: status, len, snaplen 4 each, mac, net, vlan_tci, vlan_tpid 2 each.
        let u32_at = |at: usize| Some(u32::from_ne_bytes(c.get(at..at + 4)?.try_into().ok()?));
        let u16_at = |at: usize| Some(u16::from_ne_bytes(c.get(at..at + 2)?.try_into().ok()?));
        if u32_at(8)? != SOL_PACKET as u32 || u32_at(12)? != PACKET_AUXDATA as u32 {
            return None;
        }
        let status = u32_at(16)?;
        if status & TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let tpid = if status & TP_STATUS_VLAN_TPID_VALID != 0 { u16_at(34)? } else { 0x8100 };
        Some((tpid, u16_at(32)?))
    }
}

/// Everything that sendmmsg wants for [`RING_SLOTS`] frames.
pub struct SendRing {
    vnet: Box<[[u8; VNET_HEADER_LEN]; RING_SLOTS]>,
    iov: Box<[[libc::iovec; 2]; RING_SLOTS]>,
    msgs: Box<[libc::mmsghdr; RING_SLOTS]>,
}

// SAFETY: as for RecvRing.
unsafe impl Send for SendRing {}

impl Default for SendRing {
    fn default() -> SendRing {
        SendRing::new()
    }
}

impl SendRing {
    /// Allocates it.
    pub fn new() -> SendRing {
        // SAFETY: iovec and mmsghdr are plain C structures for which all-zero bytes are valid.
        let (iov, msgs) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        SendRing {
            vnet: Box::new([[0; VNET_HEADER_LEN]; RING_SLOTS]),
            iov: Box::new(iov),
            msgs: Box::new(msgs),
        }
    }

    /// Sends frames with their virtio-net headers, at most [`RING_SLOTS`], without waiting. Returns how many the kernel took,
    /// from the first on; the error is that of the first frame.
    pub fn send<'a>(
        &mut self,
        socket: &PacketSocket,
        frames: impl Iterator<Item = ([u8; VNET_HEADER_LEN], &'a [u8])>,
    ) -> io::Result<usize> {
        let mut n = 0;
        for (i, (vnet, data)) in frames.take(RING_SLOTS).enumerate() {
            self.vnet[i] = vnet;
            self.iov[i] = [
                libc::iovec { iov_base: self.vnet[i].as_mut_ptr().cast(), iov_len: VNET_HEADER_LEN },
                libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() },
            ];
            let hdr = &mut self.msgs[i].msg_hdr;
            hdr.msg_iov = self.iov[i].as_mut_ptr();
            hdr.msg_iovlen = 2;
            n = i + 1;
        }
        // SAFETY: the first n headers point to our boxed headers and to the caller's slices, borrowed for 'a, which
        // the iterator's items outlive; the kernel only reads them.
        let sent = check(unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.msgs.as_mut_ptr(), n as u32, libc::MSG_DONTWAIT)
        })?;
        Ok(usize::try_from(sent).unwrap_or(0))
    }
}
