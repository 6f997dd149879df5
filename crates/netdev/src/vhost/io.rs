//! Packets between a guest's rings and batches.
//!
//! A packet is copied once each way, from or into the guest's buffers. In front of it lies the virtio-net header: ten bytes, or
//! twelve with the number of buffers (modern devices, and legacy ones with mergeable buffers).

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, GsoKind, Packet, gso};
use ib_vhost::features as f;
use ib_vhost::ring::Chain;
use ib_vhost::session::SlotState;

use crate::linux::vnet;
use crate::stats::{DropCounters, DropReason};

/// Longest packet that we take: a super-frame with its headers.
const FRAME_MAX: usize = 66 << 10;

/// Length of the header in front of a packet.
fn header_len(features: u64) -> usize {
    if features & (f::F_VERSION_1 | f::NET_F_MRG_RXBUF) != 0 { 12 } else { 10 }
}

/// Tells the driver what was done, if it wants to know.
fn signal(slot: &mut SlotState) {
    if let Some(ring) = &mut slot.ring {
        ring.publish();
        if ring.should_signal()
            && let Some(call) = &slot.call
        {
            call.set();
        }
        if ring.fault().is_some()
            && let Some(err) = slot.err.take()
        {
            err.set();
        }
    }
}

/// Takes up to `max` packets that the guest sends. Returns how many buffers were used: more than packets where some made no sense.
pub fn recv(
    slot: &mut SlotState,
    chain: &mut Chain,
    max: usize,
    pool: &mut Pool,
    out: &mut Batch,
    drops: &DropCounters,
) -> usize {
    let header_len = header_len(slot.features);
    let enabled = slot.enabled;
    let Some(ring) = &mut slot.ring else { return 0 };
    let mut used = 0;
    while used < max.min(BATCH_MAX) && ring.take(chain) {
        used += 1;
        let len = chain.readable_len.saturating_sub(header_len);
        let mut header = [0; vnet::LEN];
        if !enabled {
            // A ring that is off is emptied.
        } else if chain.readable_len < header_len || len < 14 || !ring.read(chain, 0, &mut header) {
            drops.add(DropReason::RxBadOffload, 1);
        } else if len > FRAME_MAX {
            drops.add(DropReason::RxTooBig, 1);
        } else {
            let mut p = pool.take();
            let room = p.recv_room_all(len);
            let whole = ring.read(chain, header_len, &mut room[..len]);
            p.resize(len);
            match vnet::parse(&header, len).filter(|_| whole) {
                Some(offload) => {
                    p.offload = offload;
                    // What a guest says of its own checksums is no proof.
                    p.offload.csum_valid = false;
                    out.push(p);
                }
                None => {
                    drops.add(DropReason::RxBadOffload, 1);
                    pool.give(p);
                }
            }
        }
        ring.complete(chain.head, 0);
    }
    if used > 0 {
        ring.set_notify(false);
        signal(slot);
    }
    used
}

/// Asks for a notification of the next packet; true if one is there already.
pub fn wait(slot: &mut SlotState) -> bool {
    slot.ring.as_mut().is_some_and(|ring| {
        ring.set_notify(true);
        ring.available() > 0
    })
}

/// Whether the guest takes the packet as it is.
fn takes(features: u64, p: &Packet) -> bool {
    let csum = features & f::NET_F_GUEST_CSUM != 0;
    let Some(g) = p.offload.gso else { return csum || p.offload.partial_csum.is_none() };
    let need = match g.kind {
        GsoKind::TcpV4 => f::NET_F_GUEST_TSO4,
        GsoKind::TcpV6 => f::NET_F_GUEST_TSO6,
        GsoKind::UdpL4 => f::NET_F_GUEST_USO4 | f::NET_F_GUEST_USO6,
    } | if g.ecn { f::NET_F_GUEST_ECN } else { 0 };
    csum && features & need == need
}

/// What became of a packet.
enum Put {
    Sent,
    Full,
    TooBig,
}

fn put(slot: &mut SlotState, chain: &mut Chain, p: &Packet) -> Put {
    let features = slot.features;
    let (header_len, mergeable) = (header_len(features), features & f::NET_F_MRG_RXBUF != 0);
    let Some(ring) = &mut slot.ring else { return Put::Full };
    let total = header_len + p.len();
    // First see whether there is room: how many buffers.
    let (mut n, mut room) = (0u16, 0usize);
    while room < total {
        if n > 0 && !mergeable {
            return Put::TooBig;
        }
        if !ring.peek(n, chain) {
            return Put::Full;
        }
        (n, room) = (n + 1, room.saturating_add(chain.writable_len));
        if n == ring.size() && room < total {
            return Put::TooBig;
        }
    }
    let mut header = [0; 12];
    header[..vnet::LEN].copy_from_slice(&vnet::emit(&p.offload));
    if p.offload.csum_valid && p.offload.partial_csum.is_none() && features & f::NET_F_GUEST_CSUM != 0 {
        header[0] |= vnet::F_DATA_VALID;
    }
    header[10..].copy_from_slice(&n.to_le_bytes());
    let mut data = p.data();
    let mut head = &header[..header_len];
    for _ in 0..n {
        // Read anew: what the driver changed meanwhile is its own loss.
        if !ring.take(chain) {
            break;
        }
        let put = ring.write(&chain.writable, 0, head);
        head = &head[put..];
        let put_data = if head.is_empty() { ring.write(&chain.writable, put, data) } else { 0 };
        data = &data[put_data..];
        ring.complete(chain.head, u32::try_from(put + put_data).unwrap_or(u32::MAX));
    }
    Put::Sent
}

/// Sends packets to the guest in order. Returns packets and bytes that it got. `batch` is emptied.
pub fn send(
    slot: &mut SlotState,
    chain: &mut Chain,
    batch: &mut Batch,
    mtu: u32,
    pool: &mut Pool,
    drops: &DropCounters,
) -> (u64, u64) {
    let mut sent = (0, 0);
    let mut segments = Vec::new();
    let longest = mtu as usize + 18;
    for p in batch.drain(..) {
        if !slot.enabled || slot.ring.is_none() {
            drops.add(DropReason::TxDown, 1);
        } else if !p.ethernet {
            drops.add(DropReason::TxNoEthernet, 1);
        } else if p.offload.gso.is_none() && p.len() > longest {
            drops.add(DropReason::TxTooBig, 1);
        } else {
            segments.clear();
            let plain = takes(slot.features, &p);
            if !plain {
                gso::segment(&p, &mut segments);
            }
            let parts = if plain { std::slice::from_ref(&p) } else { &segments[..] };
            for part in parts {
                match put(slot, chain, part) {
                    Put::Sent => {
                        sent.0 += 1;
                        sent.1 += part.len() as u64;
                    }
                    Put::Full => drops.add(DropReason::TxQueueFull, 1),
                    Put::TooBig => drops.add(DropReason::TxTooBig, 1),
                }
            }
        }
        pool.give(p);
    }
    signal(slot);
    sent
}
