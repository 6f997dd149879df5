//! A conversation with one front-end: its requests in, replies and events out.
//!
//! The session owns what was agreed (features, memory, addresses) and puts rings into [`Slot`]s, where forwarding threads find
//! them. A ring runs while it is started (`SET_VRING_KICK` to `GET_VRING_BASE`) and has size, addresses and memory; whatever
//! message changes one of these, the ring is made anew where it stands. A ring that runs but is not enabled is to be emptied
//! and what was in it thrown away ("Ring states").
//!
//! A front-end may send requests in an order of its own: QEMU 7.2 enables rings before it sets features. So requests only note
//! what they say, and [`Session::settle`] works out what follows.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ib_sys::eventfd::EventFd;
use ib_sys::guest_memory::{Mapping, SharedRange, memory_file};
use parking_lot::Mutex;

use crate::features as f;
use crate::inflight::{Inflight, record_len};
use crate::memory::{DirtyLog, GuestMemory, REGIONS_MAX};
use crate::ring::{Ring, RingConfig, SIZE_MAX};
use crate::wire::{
    self, InflightSpec, Message, RegionSpec, Request, VRING_INDEX_MASK, VRING_NOFD, VringAddr, VringState,
};

/// Most pairs of queues of a device: ring numbers in `SET_VRING_KICK` have eight bits.
pub const QUEUE_PAIRS_MAX: usize = 128;
const VRINGS_MAX: usize = 2 * QUEUE_PAIRS_MAX;

/// What a front-end did wrong: its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A payload that is too short for its request.
    Payload(Request),
    /// Features that were not on offer.
    Features(u64),
    /// A ring that there cannot be.
    VringIndex(u32),
    /// A ring size that is no power of two, or too large.
    VringSize(u32),
    /// A request that wants descriptors came without.
    NoFd(Request),
    /// A descriptor that is no eventfd.
    NotEventFd,
    /// A request that failed, from a front-end that did not ask to be told.
    Failed(Request),
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Notifications of ring `0` come by another descriptor, or by none.
    Kick(usize),
    /// Rings run or stop, or features are others.
    Changed,
    /// Announce this address.
    Rarp([u8; 6]),
}

/// A ring where forwarding threads find it.
#[derive(Debug, Default)]
pub struct Slot(Mutex<SlotState>);

/// What is in a [`Slot`].
#[derive(Debug, Default)]
pub struct SlotState {
    /// The ring, while it runs.
    pub ring: Option<Ring>,
    /// Packets may pass.
    pub enabled: bool,
    /// What to signal when buffers were used.
    pub call: Option<EventFd>,
    /// What to signal when the ring is broken.
    pub err: Option<EventFd>,
    /// Virtio features in force.
    pub features: u64,
}

impl Slot {
    /// Locks it, for a batch.
    pub fn lock(&self) -> parking_lot::MutexGuard<'_, SlotState> {
        self.0.lock()
    }
}

#[derive(Debug, Default)]
struct Vring {
    slot: Arc<Slot>,
    size: u16,
    address: Option<VringAddr>,
    base: u16,
    started: bool,
    enabled: bool,
    kick: Option<OwnedFd>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Session {
    features: u64,
    protocol: u64,
    /// The front-end spoke of protocol features.
    has_protocol: bool,
    memory: Arc<GuestMemory>,
    log: Option<Arc<DirtyLog>>,
    inflight: Option<(SharedRange, u16)>,
    status: u64,
    mtu: Option<u16>,
    vrings: Vec<Vring>,
}

/// What comes of a message.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be sent back.
    pub reply: Option<Message>,
    /// What happened.
    pub events: Vec<Event>,
}

enum Reply {
    None,
    Payload(Vec<u8>),
    WithFd(Vec<u8>, OwnedFd),
}

impl Session {
    /// Before the first message.
    pub fn new() -> Session {
        Session::default()
    }

    /// Virtio features in force.
    pub fn features(&self) -> u64 {
        self.features
    }
    /// What `NET_SET_MTU` said.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }
    /// Sizes of all rings that the front-end spoke of; 0 unknown.
    pub fn vring_sizes(&self) -> Vec<u16> {
        self.vrings.iter().map(|v| v.size).collect()
    }
    /// All rings that the front-end spoke of: even ones go to the guest, odd ones come from it.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.vrings.iter().map(|v| v.slot.clone()).collect()
    }
    /// The descriptor of the driver's notifications.
    pub fn kick(&self, index: usize) -> Option<&OwnedFd> {
        self.vrings.get(index)?.kick.as_ref()
    }
    /// Whether packets can pass: a ring each way runs.
    pub fn is_ready(&self) -> bool {
        let runs = |odd: usize| {
            self.vrings.iter().skip(odd).step_by(2).any(|v| {
                let slot = v.slot.lock();
                slot.enabled && slot.ring.is_some()
            })
        };
        runs(0) && runs(1)
    }

    /// Takes a message in.
    pub fn handle(&mut self, message: Message) -> Result<Outcome, Fault> {
        let mut out = Outcome::default();
        let Some(request) = Request::from_number(message.request).filter(|_| !message.is_reply) else {
            // Unknown: told so if the front-end wants to know, else passed over.
            if message.need_reply && self.protocol & f::PROTOCOL_REPLY_ACK != 0 {
                out.reply = Some(answer(message.request, 1u64.to_ne_bytes().to_vec()));
            }
            return Ok(out);
        };
        let need_reply = message.need_reply && self.protocol & f::PROTOCOL_REPLY_ACK != 0;
        let done = self.request(request, &message.payload, message.fds, &mut out.events);
        self.settle();
        let ack = |failed: u64| Some(answer(request as u32, failed.to_ne_bytes().to_vec()));
        match done {
            Ok(Reply::Payload(payload)) => out.reply = Some(answer(request as u32, payload)),
            Ok(Reply::WithFd(payload, fd)) => {
                let mut reply = answer(request as u32, payload);
                reply.fds.push(fd);
                out.reply = Some(reply);
            }
            Ok(Reply::None) if need_reply => out.reply = ack(0),
            Ok(Reply::None) => {}
            Err(Fault::Failed(_)) if need_reply => out.reply = ack(1),
            Err(fault) => return Err(fault),
        }
        Ok(out)
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, Fault> {
        let at = index as usize;
        if at >= VRINGS_MAX {
            return Err(Fault::VringIndex(index));
        }
        if at >= self.vrings.len() {
            self.vrings.resize_with(at + 1, Vring::default);
        }
        Ok(&mut self.vrings[at])
    }

    fn request(
        &mut self,
        request: Request,
        payload: &[u8],
        mut fds: Vec<OwnedFd>,
        events: &mut Vec<Event>,
    ) -> Result<Reply, Fault> {
        let short = Fault::Payload(request);
        let number = || wire::parse_u64(payload).ok_or(short);
        let state = || VringState::parse(payload).ok_or(short);
        let u64_reply = |v: u64| Ok(Reply::Payload(v.to_ne_bytes().to_vec()));
        match request {
            Request::GetFeatures => return u64_reply(f::OFFERED),
            Request::SetFeatures => {
                let features = number()?;
                if features & !f::OFFERED != 0 {
                    return Err(Fault::Features(features));
                }
                self.features = features;
                events.push(Event::Changed);
            }
            Request::SetOwner => {}
            Request::ResetOwner | Request::ResetDevice => {
                for v in &mut self.vrings {
                    (v.started, v.enabled) = (false, false);
                }
                events.push(Event::Changed);
            }
            Request::SetMemTable => {
                let specs = RegionSpec::parse_table(payload).ok_or(short)?;
                if fds.len() != specs.len() {
                    return Err(Fault::NoFd(request));
                }
                let mut memory = GuestMemory::default();
                for (spec, fd) in specs.into_iter().zip(&fds) {
                    memory.add(spec, fd).map_err(|_| Fault::Failed(request))?;
                }
                self.memory = memory.into();
                events.push(Event::Changed);
            }
            Request::AddMemReg => {
                let spec = RegionSpec::parse_single(payload).ok_or(short)?;
                let fd = fds.pop().ok_or(Fault::NoFd(request))?;
                let mut memory = GuestMemory::clone(&self.memory);
                memory.add(spec, &fd).map_err(|_| Fault::Failed(request))?;
                self.memory = memory.into();
                events.push(Event::Changed);
            }
            Request::RemMemReg => {
                let spec = RegionSpec::parse_single(payload).ok_or(short)?;
                let mut memory = GuestMemory::clone(&self.memory);
                memory.remove(spec).map_err(|_| Fault::Failed(request))?;
                self.memory = memory.into();
                events.push(Event::Changed);
            }
            Request::GetMaxMemSlots => return u64_reply(REGIONS_MAX as u64),
            Request::SetLogBase => {
                let (size, offset) = wire::parse_log(payload).ok_or(short)?;
                let fd = fds.pop().ok_or(Fault::NoFd(request))?;
                let log = DirtyLog::of_file(&fd, offset, size).ok_or(Fault::Failed(request))?;
                self.log = Some(log);
                events.push(Event::Changed);
                // Answered in any case, with nothing in it.
                return Ok(Reply::Payload(Vec::new()));
            }
            // Nobody but us waits for the log's news: the front-end reads it when it likes.
            Request::SetLogFd => {}
            Request::SetVringNum => {
                let s = state()?;
                let size = u16::try_from(s.num).ok().filter(|n| n.is_power_of_two() && *n <= SIZE_MAX);
                self.vring(s.index)?.size = size.ok_or(Fault::VringSize(s.num))?;
                events.push(Event::Changed);
            }
            Request::SetVringAddr => {
                let address = VringAddr::parse(payload).ok_or(short)?;
                self.vring(address.index)?.address = Some(address);
                events.push(Event::Changed);
            }
            Request::SetVringBase => {
                let s = state()?;
                let base = s.num as u16;
                let v = self.vring(s.index)?;
                v.base = base;
                // Where it goes on is a matter of a ring that stands still.
                v.slot.lock().ring = None;
            }
            Request::GetVringBase => {
                let s = state()?;
                let v = self.vring(s.index)?;
                if let Some(ring) = v.slot.lock().ring.take() {
                    v.base = ring.base();
                }
                v.started = false;
                v.kick = None;
                v.slot.lock().call = None;
                let num = u32::from(v.base);
                events.extend([Event::Kick(s.index as usize), Event::Changed]);
                return Ok(Reply::Payload(VringState { index: s.index, num }.to_bytes()));
            }
            Request::SetVringKick | Request::SetVringCall | Request::SetVringErr => {
                let n = number()?;
                let index = (n & VRING_INDEX_MASK) as u32;
                let fd =
                    if n & VRING_NOFD == 0 { Some(fds.pop().ok_or(Fault::NoFd(request))?) } else { None };
                let v = self.vring(index)?;
                if request == Request::SetVringKick {
                    v.kick = fd;
                    v.started = true;
                    events.extend([Event::Kick(index as usize), Event::Changed]);
                } else {
                    let event = fd.map(|fd| EventFd::adopt(fd).ok_or(Fault::NotEventFd)).transpose()?;
                    let mut slot = v.slot.lock();
                    if request == Request::SetVringErr {
                        slot.err = event;
                    } else {
                        // Signals may have been lost with the old one.
                        event.iter().for_each(EventFd::set);
                        slot.call = event;
                    }
                }
            }
            Request::GetProtocolFeatures => return u64_reply(f::PROTOCOL_OFFERED),
            Request::SetProtocolFeatures => {
                let protocol = number()?;
                if protocol & !f::PROTOCOL_OFFERED != 0 {
                    return Err(Fault::Features(protocol));
                }
                self.protocol = protocol;
                self.has_protocol = true;
            }
            Request::GetQueueNum => return u64_reply(QUEUE_PAIRS_MAX as u64),
            Request::SetVringEnable => {
                let s = state()?;
                self.vring(s.index)?.enabled = s.num == 1;
                events.push(Event::Changed);
            }
            Request::SendRarp => {
                let b = number()?.to_ne_bytes();
                events.push(Event::Rarp([b[0], b[1], b[2], b[3], b[4], b[5]]));
            }
            Request::NetSetMtu => {
                let mtu = u16::try_from(number()?).ok().filter(|m| *m >= 68);
                self.mtu = Some(mtu.ok_or(Fault::Failed(request))?);
                events.push(Event::Changed);
            }
            Request::GetInflightFd => {
                let mut spec = InflightSpec::parse(payload).ok_or(short)?;
                let queues = usize::from(spec.queues);
                if queues > VRINGS_MAX || spec.queue_size > SIZE_MAX || queues == 0 {
                    return Err(Fault::Failed(request));
                }
                let len = queues * record_len(spec.queue_size);
                let fd = memory_file(c"vhost-inflight", len).map_err(|_| Fault::Failed(request))?;
                (spec.size, spec.offset) = (len as u64, 0);
                return Ok(Reply::WithFd(spec.to_bytes(), fd));
            }
            Request::SetInflightFd => {
                let spec = InflightSpec::parse(payload).ok_or(short)?;
                let fd = fds.pop().ok_or(Fault::NoFd(request))?;
                let len = usize::from(spec.queues) * record_len(spec.queue_size);
                if len as u64 > spec.size {
                    return Err(Fault::Failed(request));
                }
                let range = Mapping::of_file(&fd, spec.offset, len).map_err(|_| Fault::Failed(request))?;
                self.inflight = Some((range, spec.queue_size));
            }
            Request::SetStatus => {
                self.status = number()?;
                if self.status == 0 {
                    self.vrings.iter_mut().for_each(|v| v.started = false);
                    events.push(Event::Changed);
                }
            }
            Request::GetStatus => return u64_reply(self.status),
        }
        Ok(Reply::None)
    }

    /// Makes what runs equal to what was said. A ring that is there keeps its place.
    fn settle(&mut self) {
        let (memory, features) = (&self.memory, self.features);
        let has_protocol = self.has_protocol || features & f::F_PROTOCOL_FEATURES != 0;
        for (index, v) in self.vrings.iter_mut().enumerate() {
            let mut slot = v.slot.lock();
            if let Some(ring) = &slot.ring {
                v.base = ring.base();
            }
            slot.enabled = v.enabled || !has_protocol;
            slot.features = features;
            let address = v.address.filter(|_| v.started && v.size != 0);
            let unchanged = slot.ring.as_ref().zip(address).is_some_and(|(ring, address)| {
                let log = self.log.as_ref().filter(|_| features & f::F_LOG_ALL != 0);
                let modes = (features & f::F_EVENT_IDX != 0, features & f::F_INDIRECT_DESC != 0);
                ring.is_at(memory, v.size, address, log, modes)
            });
            if unchanged {
                continue;
            }
            // A ring that was broken stays so until its driver sets it up anew.
            let fault = slot.ring.take().and_then(|r| r.fault());
            slot.ring = address.and_then(|address| {
                let log = self.log.clone().filter(|_| features & f::F_LOG_ALL != 0);
                let inflight = self.inflight.as_ref().filter(|(_, size)| *size == v.size);
                let mut ring = Ring::new(RingConfig {
                    memory: memory.clone(),
                    size: v.size,
                    desc: address.desc,
                    avail: address.avail,
                    used: address.used,
                    base: v.base,
                    event_idx: features & f::F_EVENT_IDX != 0,
                    indirect: features & f::F_INDIRECT_DESC != 0,
                    used_log: log.is_some().then_some(address.log).filter(|_| address.flags & 1 != 0),
                    log,
                    inflight: inflight.and_then(|(whole, size)| Inflight::new(whole, index, *size)),
                })?;
                ring.set_address(address, fault);
                Some(ring)
            });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for v in &self.vrings {
            *v.slot.lock() = SlotState::default();
        }
    }
}

fn answer(request: u32, payload: Vec<u8>) -> Message {
    Message { request, need_reply: false, is_reply: true, payload, fds: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    fn event() -> OwnedFd {
        let e = EventFd::new().unwrap();
        // A second descriptor of the same event, as a front-end sends it.
        e.as_fd().try_clone_to_owned().unwrap()
    }

    fn say(s: &mut Session, request: Request, payload: Vec<u8>, fds: Vec<OwnedFd>) -> Result<Outcome, Fault> {
        let mut m = Message::new(request, payload);
        m.fds = fds;
        s.handle(m)
    }

    fn set_up(s: &mut Session) -> SharedRange {
        let fd = memory_file(c"guest", 0x10000).unwrap();
        let raw = Mapping::of_file(&fd, 0, 0x10000).unwrap();
        let region = RegionSpec { guest: 0, size: 0x10000, user: 0x7000_0000, offset: 0 };
        // As QEMU 7.2: rings are enabled before features are set.
        for index in 0..2 {
            say(s, Request::SetVringEnable, VringState { index, num: 1 }.to_bytes(), vec![]).unwrap();
        }
        let features = f::F_VERSION_1 | f::F_PROTOCOL_FEATURES;
        say(s, Request::SetFeatures, features.to_ne_bytes().to_vec(), vec![]).unwrap();
        say(s, Request::SetMemTable, RegionSpec::to_table(&[region]), vec![fd]).unwrap();
        for index in 0..2u32 {
            let at = 0x7000_0000 + u64::from(index) * 0x1000;
            let a = VringAddr { index, flags: 0, desc: at, avail: at + 0x400, used: at + 0x800, log: 0 };
            say(s, Request::SetVringNum, VringState { index, num: 16 }.to_bytes(), vec![]).unwrap();
            say(s, Request::SetVringBase, VringState { index, num: 3 }.to_bytes(), vec![]).unwrap();
            say(s, Request::SetVringAddr, a.to_bytes(), vec![]).unwrap();
            say(s, Request::SetVringCall, u64::from(index).to_ne_bytes().to_vec(), vec![event()]).unwrap();
            say(s, Request::SetVringKick, u64::from(index).to_ne_bytes().to_vec(), vec![event()]).unwrap();
        }
        raw
    }

    #[test]
    fn rings_run_in_the_order_of_qemu_and_stop_when_asked_where_they_are() {
        let mut s = Session::new();
        let raw = set_up(&mut s);
        assert!(s.is_ready());
        raw.store_u16(0x1402, 4, Ordering::Release).unwrap();
        assert_eq!(s.slots()[1].lock().ring.as_mut().unwrap().available(), 1);
        s.slots()[1].lock().ring.as_mut().unwrap().advance(1);
        // Other memory under way: the ring keeps its place.
        let fd = memory_file(c"guest", 0x10000).unwrap();
        let region = RegionSpec { guest: 0, size: 0x10000, user: 0x7000_0000, offset: 0 };
        say(&mut s, Request::SetMemTable, RegionSpec::to_table(&[region]), vec![fd]).unwrap();
        assert!(s.is_ready());
        let out = say(&mut s, Request::GetVringBase, VringState { index: 1, num: 0 }.to_bytes(), vec![]);
        let reply = out.unwrap().reply.unwrap();
        assert_eq!(VringState::parse(&reply.payload), Some(VringState { index: 1, num: 4 }));
        assert!(!s.is_ready() && s.slots()[1].lock().ring.is_none());
    }

    #[test]
    fn a_front_end_that_breaks_the_protocol_is_told_or_let_go() {
        let mut s = Session::new();
        let mut bad = |r, p: Vec<u8>| say(&mut s, r, p, vec![]).map(|_| ()).unwrap_err();
        assert_eq!(bad(Request::SetFeatures, vec![1]), Fault::Payload(Request::SetFeatures));
        assert_eq!(bad(Request::SetFeatures, vec![0xff; 8]), Fault::Features(u64::MAX));
        let state = |index, num| VringState { index, num }.to_bytes();
        assert_eq!(bad(Request::SetVringNum, state(0, 3)), Fault::VringSize(3));
        assert_eq!(bad(Request::SetVringEnable, state(256, 1)), Fault::VringIndex(256));
        assert_eq!(bad(Request::SetVringKick, vec![0; 8]), Fault::NoFd(Request::SetVringKick));
        say(&mut s, Request::SetProtocolFeatures, f::PROTOCOL_REPLY_ACK.to_ne_bytes().to_vec(), vec![])
            .unwrap();
        let mut m = Message::new(Request::RemMemReg, vec![0; 40]);
        m.need_reply = true;
        let reply = s.handle(m).unwrap().reply.unwrap();
        assert_eq!(reply.payload, 1u64.to_ne_bytes());
    }
}
