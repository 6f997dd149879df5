//! A hostile virtual machine: a front-end that sends what it likes in any order, and a driver that writes into its rings
//! and descriptors while we read them. Packets are taken and given as forwarding threads do.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use ib_netdev::stats::DropCounters;
use ib_netdev::vhost::io;
use ib_packet::buffer::Pool;
use ib_packet::{Batch, Packet};
use ib_sys::eventfd::EventFd;
use ib_sys::guest_memory::{Mapping, SharedRange, memory_file};
use ib_vhost::features as f;
use ib_vhost::ring::Chain;
use ib_vhost::session::Session;
use ib_vhost::wire::{Assembler, InflightSpec, Message, RegionSpec, Request, VringAddr, VringState};

use crate::choices::Choices;

/// Bytes of the guest's memory.
const MEMORY: usize = 0x8000;
/// Where the front-end has it.
const USER: u64 = 0x7000_0000;
/// Descriptors of a ring that is set up properly. The ring's three parts are [`PART`] bytes apart.
const RING: u16 = 8;
const PART: u64 = 0x400;
/// What a driver can do in one input, at most.
const STEPS_MAX: usize = 200;

/// Guests whose rings run and whose driver offers a packet and room for one: plainly, in several buffers of one chain, in
/// mergeable buffers, in an indirect table; then some of everything.
pub const SEEDS: &[&[u8]] = &[
    &[0, 0, 1, 1, 0, 0x40, 0, 0, 100, 0, 0, 1, 0, 0, 0x50, 0, 8, 0, 2, 0, 3, 3],
    &[0, 2, 1, 1, 0, 0x40, 0, 0, 40, 1, 1, 1, 1, 1, 0x41, 0, 0, 60, 0, 0, 3, 1, 0, 0, 0x50, 0, 8, 0, 2, 0, 3],
    &[0, 1, 1, 0, 0, 0x50, 0, 2, 0, 2, 0, 1, 0, 1, 0x54, 0, 2, 0, 2, 0, 1, 0, 2, 0x58, 0, 2, 0, 2, 0, 3, 3],
    &[
        0, 4, 2, 0x60, 0, 15, 0, 0x40, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0x60, 0, 0, 16, 4,
        0, 3,
    ],
    &[0, 3, 2, 1, 9, 4, 3, 2, 7, 0, 5, 5, 5, 3, 4, 6, 1, 2, 3],
];

/// Requests without descriptors, as they come over the socket.
pub fn made_wire() -> Vec<Vec<u8>> {
    let state = VringState { index: 1, num: 256 }.to_bytes();
    let messages = [
        Message::new(Request::GetFeatures, Vec::new()),
        Message::new(Request::SetVringNum, state.clone()),
        Message::new(Request::GetVringBase, state),
        Message::new(Request::NetSetMtu, 1500u64.to_ne_bytes().to_vec()),
        Message::new(Request::GetInflightFd, inflight(RING).to_bytes()),
    ];
    vec![messages.iter().flat_map(Message::to_bytes).collect()]
}

/// The socket: bytes come in pieces as the assembler asks for them.
pub fn wire(input: &[u8]) {
    let (mut assembler, mut session) = (Assembler::default(), Session::new());
    let mut rest = input;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(assembler.wanted().min(rest.len()));
        rest = later;
        // What is wrong ends the connection.
        let Ok(message) = assembler.feed(now, &mut Vec::new()) else { return };
        if message.is_some_and(|m| session.handle(m).is_err()) {
            return;
        }
    }
}

fn inflight(queue_size: u16) -> InflightSpec {
    InflightSpec { size: 0, offset: 0, queues: 2, queue_size }
}

/// The other end of a session.
struct Guest {
    file: OwnedFd,
    memory: SharedRange,
    session: Session,
    alive: bool,
}

impl Guest {
    fn new() -> Guest {
        let file = memory_file(c"guest", MEMORY).expect("a small file in memory");
        let memory = Mapping::of_file(&file, 0, MEMORY).expect("it can be mapped");
        Guest { file, memory, session: Session::new(), alive: true }
    }

    fn say(&mut self, request: Request, payload: Vec<u8>, fds: Vec<OwnedFd>) {
        let mut message = Message::new(request, payload);
        message.fds = fds;
        self.alive &= self.session.handle(message).is_ok();
    }

    /// Another descriptor of the memory, or of an event.
    fn descriptor(&self, event: bool) -> OwnedFd {
        let copy = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().expect("descriptors are not that short");
        if event { copy(&EventFd::new().expect("as before")) } else { copy(&self.file) }
    }

    /// What a well-behaved front-end does, with the features that the input chooses.
    fn set_up(&mut self, features: u8) {
        let mut all = f::F_VERSION_1;
        for (bit, feature) in [
            f::NET_F_MRG_RXBUF,
            f::F_EVENT_IDX,
            f::F_INDIRECT_DESC,
            f::NET_F_GUEST_CSUM,
            f::NET_F_GUEST_TSO4,
            f::F_LOG_ALL,
            f::F_PROTOCOL_FEATURES,
        ]
        .into_iter()
        .enumerate()
        {
            all |= if features & 1 << bit != 0 { feature } else { 0 };
        }
        self.say(Request::SetFeatures, all.to_ne_bytes().to_vec(), vec![]);
        let region = RegionSpec { guest: 0, size: MEMORY as u64, user: USER, offset: 0 };
        let fd = self.descriptor(false);
        self.say(Request::SetMemTable, RegionSpec::to_table(&[region]), vec![fd]);
        for index in 0..2u32 {
            let at = USER + u64::from(index) * 4 * PART;
            let a =
                VringAddr { index, flags: 1, desc: at, avail: at + PART, used: at + 2 * PART, log: 2 * PART };
            self.say(Request::SetVringNum, VringState { index, num: RING.into() }.to_bytes(), vec![]);
            self.say(Request::SetVringAddr, a.to_bytes(), vec![]);
            self.say(Request::SetVringEnable, VringState { index, num: 1 }.to_bytes(), vec![]);
            let fd = self.descriptor(true);
            self.say(Request::SetVringKick, u64::from(index).to_ne_bytes().to_vec(), vec![fd]);
        }
    }

    /// Offers a buffer of ring `index` at `at`.
    fn offer(&self, index: u64, head: u16, at: u16, len: u16, flags: u16, next: u16) {
        let ring = (index * 4 * PART) as usize;
        let mut descriptor = u64::from(at).to_le_bytes().to_vec();
        descriptor.extend(u32::from(len).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend(next.to_le_bytes());
        let _ = self.memory.write(ring + 16 * usize::from(head), &descriptor);
        let avail = ring + PART as usize;
        let slot = self.memory.load_u16(avail + 2, Ordering::Relaxed).unwrap_or(0);
        let _ = self.memory.store_u16(avail + 4 + 2 * usize::from(slot % RING), head, Ordering::Relaxed);
        let _ = self.memory.store_u16(avail + 2, slot.wrapping_add(1), Ordering::Release);
    }

    /// One round of a forwarding thread over all rings.
    fn forward(&self, chain: &mut Chain, pool: &mut Pool, drops: &DropCounters) {
        for (index, slot) in self.session.slots().iter().enumerate() {
            let mut batch = Batch::new();
            let slot = &mut *slot.lock();
            if index % 2 == 1 {
                io::recv(slot, chain, 32, pool, &mut batch, drops);
                io::wait(slot);
            }
            batch.push(Packet::from_frame(&[index as u8; 1400]));
            io::send(slot, chain, &mut batch, 1500, pool, drops);
            if let Some(ring) = &mut slot.ring
                && ring.fault().is_some()
            {
                assert_eq!(ring.available(), 0, "a broken ring is looked at no more");
            }
        }
    }
}

/// The requests that any payload and any descriptors are tried with.
const REQUESTS: [Request; 22] = [
    Request::SetFeatures,
    Request::SetOwner,
    Request::SetMemTable,
    Request::SetLogBase,
    Request::SetLogFd,
    Request::SetVringNum,
    Request::SetVringAddr,
    Request::SetVringBase,
    Request::GetVringBase,
    Request::SetVringKick,
    Request::SetVringCall,
    Request::SetVringErr,
    Request::SetProtocolFeatures,
    Request::SetVringEnable,
    Request::SendRarp,
    Request::NetSetMtu,
    Request::GetInflightFd,
    Request::SetInflightFd,
    Request::ResetDevice,
    Request::AddMemReg,
    Request::RemMemReg,
    Request::SetStatus,
];

/// A front-end and its driver, by choices.
pub fn guest(input: &[u8]) {
    let mut c = Choices::new(input);
    let mut guest = Guest::new();
    let (mut chain, mut pool, drops) = (Chain::default(), Pool::new(4), DropCounters::default());
    for _ in 0..STEPS_MAX {
        if !c.more() || !guest.alive {
            break;
        }
        match c.below(7) {
            0 => guest.set_up(c.byte()),
            1 => guest.offer(
                c.below(2) as u64,
                c.byte().into(),
                c.u16(),
                c.u16(),
                c.byte().into(),
                c.byte().into(),
            ),
            2 => {
                let (at, n) = (usize::from(c.u16()), c.below(16));
                let bytes: Vec<u8> = (0..n).map(|_| c.byte()).collect();
                let _ = guest.memory.write(at % MEMORY, &bytes);
            }
            3 => guest.forward(&mut chain, &mut pool, &drops),
            4 => {
                let state = VringState { index: c.below(3) as u32, num: c.byte().into() };
                let request = c.of(&[
                    Request::SetVringNum,
                    Request::SetVringBase,
                    Request::SetVringEnable,
                    Request::GetVringBase,
                ]);
                guest.say(request, state.to_bytes(), vec![]);
            }
            5 => {
                let fds = if c.one_in(2) { vec![guest.descriptor(false)] } else { vec![] };
                let request = if fds.is_empty() { Request::GetInflightFd } else { Request::SetInflightFd };
                let mut spec = inflight(c.byte().into());
                (spec.size, spec.offset) = (u64::from(c.u16()), c.byte().into());
                guest.say(request, spec.to_bytes(), fds);
            }
            _ => {
                let (request, n, n_fds) = (c.of(&REQUESTS), c.below(48), c.below(3));
                let payload = (0..n).map(|_| c.byte()).collect();
                let fds = (0..n_fds).map(|_| guest.descriptor(c.one_in(2))).collect();
                guest.say(request, payload, fds);
            }
        }
    }
}
