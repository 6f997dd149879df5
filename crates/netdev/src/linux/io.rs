//! Frames between the kernel and packets: the buffers of one thread, the loops that fill and empty them.
//!
//! A thread has one set of rings, whatever number of ports it serves. Frames are received straight into
//! packets; only of a super-frame that meets a small packet is the tail copied, once, and the packet, now large,
//! comes back from the pool for the next one. So a thread under bulk traffic soon copies nothing, and a thread under
//! small packets holds small buffers.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Packet};
use ib_sys::af_packet::{PacketSocket, RecvRing, SendRing};
use ib_sys::errno::{EAGAIN, EBADFD, EINVAL, EIO, EMSGSIZE, ENETDOWN, ENOBUFS, ENODEV, ENOMEM, ENXIO};
use ib_sys::tun::Tap;

use crate::linux::vnet;
use crate::stats::{DropCounters, DropReason};

/// Room that a packet offers to a frame at least.
const ROOM: usize = 2048;
/// Room for the rest of a super-frame.
const OVERFLOW: usize = 66 << 10;

thread_local! {
    static RECV: RefCell<Option<RecvIo>> = const { RefCell::new(None) };
    static SEND: RefCell<Option<SendRing>> = const { RefCell::new(None) };
    static TAP: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct RecvIo {
    ring: RecvRing,
    /// Packets that wait for a frame; used up from the front and refilled.
    slots: Vec<Packet>,
}

/// Puts what the kernel said about a frame into the packet that holds it; false (and counted) if it makes no sense.
fn accept(p: &mut Packet, header: &[u8; vnet::LEN], vlan: Option<(u16, u16)>, drops: &DropCounters) -> bool {
    let Some(offload) = vnet::parse(header, p.len()) else {
        drops.add(DropReason::RxBadOffload, 1);
        return false;
    };
    p.offload = offload;
    if let Some((tpid, tci)) = vlan {
        if p.len() < 12 {
            drops.add(DropReason::RxBadOffload, 1);
            return false;
        }
        p.insert(12, 4);
        let data = p.data_mut();
        data[12..14].copy_from_slice(&tpid.to_be_bytes());
        data[14..16].copy_from_slice(&tci.to_be_bytes());
    }
    true
}

/// Errors that mean "nothing there now": no frame, device down or gone for the moment, short of memory.
fn transient(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::Interrupted
        || matches!(e.raw_os_error(), Some(EAGAIN | ENETDOWN | ENODEV | ENXIO | ENOBUFS | ENOMEM))
}

/// One batch from an AF_PACKET socket.
pub fn recv_packets(
    socket: &PacketSocket,
    pool: &mut Pool,
    out: &mut Batch,
    drops: &DropCounters,
) -> io::Result<usize> {
    RECV.with_borrow_mut(|io| {
        let io =
            io.get_or_insert_with(|| RecvIo { ring: RecvRing::new(), slots: Vec::with_capacity(BATCH_MAX) });
        while io.slots.len() < BATCH_MAX {
            io.slots.push(pool.take());
        }
        let mut rooms: [&mut [u8]; BATCH_MAX] = Default::default();
        for (room, slot) in rooms.iter_mut().zip(&mut io.slots) {
            *room = slot.recv_room_all(ROOM);
        }
        let n = match io.ring.recv(socket, &mut rooms) {
            Ok(n) => n,
            Err(e) if transient(&e) => return Ok(0),
            Err(e) => return Err(e),
        };
        let before = out.len();
        for (i, slot) in io.slots.iter_mut().enumerate().take(n) {
            let frame = io.ring.frame(i);
            let mut p = std::mem::replace(slot, pool.take());
            p.resize(frame.len);
            p.extend(frame.overflow);
            if frame.truncated {
                drops.add(DropReason::RxTooBig, 1);
                pool.give(p);
            } else if accept(&mut p, &frame.vnet, frame.vlan, drops) {
                out.push(p);
            } else {
                pool.give(p);
            }
        }
        Ok(out.len() - before)
    })
}

/// What a failed send means.
fn reason(e: &io::Error) -> DropReason {
    match e.raw_os_error() {
        Some(ENETDOWN | ENXIO | ENODEV | EIO | EBADFD) => DropReason::TxDown,
        Some(ENOBUFS | EAGAIN | ENOMEM) => DropReason::TxQueueFull,
        Some(EMSGSIZE) => DropReason::TxTooBig,
        Some(EINVAL) => DropReason::TxGso,
        _ => DropReason::TxError,
    }
}

/// Drops what is no Ethernet frame, before a batch is sent.
fn keep_frames(batch: &mut Batch, pool: &mut Pool, drops: &DropCounters) {
    if batch.iter().all(|p| p.ethernet) {
        return;
    }
    for p in batch.extract_if(.., |p| !p.ethernet) {
        drops.add(DropReason::TxNoEthernet, 1);
        pool.give(p);
    }
}

/// Sends a batch by an AF_PACKET socket; returns packets and bytes that the kernel took.
pub fn send_packets(
    socket: &PacketSocket,
    batch: &mut Batch,
    pool: &mut Pool,
    drops: &DropCounters,
) -> (u64, u64) {
    keep_frames(batch, pool, drops);
    let mut sent = (0, 0);
    SEND.with_borrow_mut(|ring| {
        let ring = ring.get_or_insert_with(SendRing::new);
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let frames = rest.iter().map(|p| (vnet::emit(&p.offload), p.data()));
            match ring.send(socket, frames) {
                Ok(n) => {
                    let (done, todo) = rest.split_at(n.clamp(1, rest.len()));
                    sent.0 += done.len() as u64;
                    sent.1 += done.iter().map(|p| p.len() as u64).sum::<u64>();
                    rest = todo;
                }
                Err(e) => {
                    let reason = reason(&e);
                    // A device that is down takes none of the others either.
                    let skip = if reason == DropReason::TxDown { rest.len() } else { 1 };
                    drops.add(reason, skip as u64);
                    rest = &rest[skip..];
                }
            }
        }
    });
    batch.drain(..).for_each(|p| pool.give(p));
    sent
}

/// One batch from a TAP device.
pub fn recv_tap(tap: &Tap, pool: &mut Pool, out: &mut Batch, drops: &DropCounters) -> io::Result<usize> {
    TAP.with_borrow_mut(|overflow| {
        overflow.resize(OVERFLOW, 0);
        let before = out.len();
        let mut spare = pool.take();
        for _ in 0..BATCH_MAX {
            let mut header = [0; vnet::LEN];
            let room = spare.recv_room_all(ROOM);
            let room_len = room.len();
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(room), IoSliceMut::new(overflow)];
            let total = match tap.read(&mut parts) {
                Ok(n) => n.saturating_sub(vnet::LEN),
                Err(e) if transient(&e) || out.len() > before => break,
                Err(e) => {
                    pool.give(spare);
                    return Err(e);
                }
            };
            let len = total.min(room_len);
            let mut p = std::mem::replace(&mut spare, pool.take());
            p.resize(len);
            p.extend(&overflow[..(total - len).min(OVERFLOW)]);
            if accept(&mut p, &header, None, drops) {
                out.push(p);
            } else {
                pool.give(p);
            }
        }
        pool.give(spare);
        Ok(out.len() - before)
    })
}

/// Sends a batch by a TAP device; returns packets and bytes that the kernel took.
pub fn send_tap(tap: &Tap, batch: &mut Batch, pool: &mut Pool, drops: &DropCounters) -> (u64, u64) {
    keep_frames(batch, pool, drops);
    let mut sent = (0, 0);
    for p in batch.drain(..) {
        let header = vnet::emit(&p.offload);
        match tap.write(&[IoSlice::new(&header), IoSlice::new(p.data())]) {
            Ok(_) => {
                sent.0 += 1;
                sent.1 += p.len() as u64;
            }
            Err(e) => drops.add(reason(&e), 1),
        }
        pool.give(p);
    }
    sent
}
