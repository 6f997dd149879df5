//! A model of a switch chip, for tests: a small table that it writes slowly, few fields, and every kind of failure on demand.
//!
//! The chip proper is [`Chip`]; a test holds it, sends frames through it ([`Chip::forward`]) and does it harm; its driver is [`Driver`], the
//! [`Accelerator`]. The table is a TCAM: an entry matches as its megaflow does, all in the fields that the chip knows. What is asked for waits in a queue until
//! [`Chip::step`]; an entry that waits matches nothing. It panics where its owner breaks the contract.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ib_dpif::Action;
use ib_flow::{Flow, Mask, Metadata, OdpPort, extract};
use ib_packet::Packet;

use crate::entry::{self, Verdict};
use crate::{Accelerator, Counters, Device, EntryId, Event, Reason, Receivers};

/// A frame and the port that it leaves by.
pub type Out = (OdpPort, Vec<u8>);

struct Row {
    mask: Mask,
    /// Under the mask.
    key: Flow,
    verdict: Verdict,
    counters: Counters,
    live: bool,
}

#[derive(Default)]
struct State {
    room: usize,
    rows: Vec<Option<Row>>,
    writes: VecDeque<usize>,
    /// Whether packets may enter there.
    ports: HashMap<OdpPort, bool>,
    events: Vec<Event>,
    now_ns: u64,
    fail_writes: bool,
    fail_removes: bool,
    lost: bool,
}

impl State {
    fn reset(&mut self) {
        self.writes.clear();
        self.rows.iter_mut().flatten().for_each(|row| row.live = false);
        self.events.push(Event::Reset);
    }
}

/// The chip; clones are the same one.
#[derive(Clone)]
pub struct Chip(Arc<Mutex<State>>);

/// Its driver.
pub struct Driver(Chip);

impl Chip {
    /// With so many places.
    pub fn new(room: usize) -> Chip {
        Chip(Arc::new(Mutex::new(State { room, now_ns: 1, ..State::default() })))
    }
    /// A driver for it, which starts it anew; the one before is out of use.
    pub fn driver(&self) -> Driver {
        let s = &mut *self.state();
        *s = State { room: s.room, now_ns: s.now_ns, ..State::default() };
        Driver(self.clone())
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does so many of the writes that wait.
    pub fn step(&self, writes: usize) {
        let s = &mut *self.state();
        for _ in 0..writes {
            let Some(at) = s.writes.pop_front() else { return };
            if s.fail_writes {
                s.events.push(Event::Gone(EntryId(at as u32)));
            } else if let Some(row) = s.rows[at].as_mut() {
                row.live = true;
            }
        }
    }
    /// Whether writes, and the taking out of entries, fail from now on.
    pub fn set_failing(&self, writes: bool, removes: bool) {
        let s = &mut *self.state();
        (s.fail_writes, s.fail_removes) = (writes, removes);
    }
    /// Drops the n-th of its live entries, counted round and round.
    pub fn evict(&self, n: usize) {
        let s = &mut *self.state();
        let live = s.rows.iter().enumerate().filter(|(_, r)| r.as_ref().is_some_and(|r| r.live));
        let live: Vec<usize> = live.map(|(at, _)| at).collect();
        if live.is_empty() {
            return;
        }
        let at = live[n % live.len()];
        s.rows[at].iter_mut().for_each(|row| row.live = false);
        s.events.push(Event::Gone(EntryId(at as u32)));
    }
    /// Forgets its table.
    pub fn reset(&self) {
        self.state().reset();
    }
    /// Goes for good.
    pub fn lose(&self) {
        let s = &mut *self.state();
        s.reset();
        s.lost = true;
        s.events = vec![Event::Lost];
    }
    /// Lets time pass.
    pub fn pass(&self, ns: u64) {
        self.state().now_ns += ns;
    }
    /// Entries in force.
    pub fn live(&self) -> usize {
        self.state().rows.iter().flatten().filter(|row| row.live).count()
    }
    /// Entries that were asked for and not removed, in force or not.
    pub fn entries(&self) -> usize {
        self.state().rows.iter().flatten().count()
    }

    /// A frame comes in: what goes out, or `None` if it is user space's.
    pub fn forward(&self, in_port: OdpPort, frame: &[u8]) -> Option<Vec<Out>> {
        let s = &mut *self.state();
        if s.ports.get(&in_port) != Some(&true) {
            return None;
        }
        let mut key = Flow::zeroed();
        extract(&Packet::from_frame(frame), &Metadata { in_port, ..Metadata::default() }, &mut key);
        let hit = |row: &&mut Row| row.live && row.mask.apply(&key).words() == row.key.words();
        let row = s.rows.iter_mut().flatten().find(hit)?;
        row.counters.packets += 1;
        row.counters.bytes += frame.len() as u64;
        row.counters.used_ns = s.now_ns;
        row.counters.tcp_flags |= key.tcp_flags.get();
        Some(apply(&row.verdict, frame))
    }
}

/// The frame as it leaves.
fn apply(verdict: &Verdict, frame: &[u8]) -> Vec<Out> {
    let mut f = frame.to_vec();
    if verdict.pop_vlan {
        f.drain(12..16);
    }
    if let Some((tpid, tci)) = verdict.push_vlan {
        f.splice(12..12, tpid.to_bytes().into_iter().chain(tci.to_be_bytes()));
    }
    if let Some((dst, src)) = verdict.set_eth {
        f[..6].copy_from_slice(&dst.0);
        f[6..12].copy_from_slice(&src.0);
    }
    verdict.outputs.iter().map(|port| (*port, f.clone())).collect()
}

/// What the chip's parser does not look at.
fn check_fields(key: &Flow, mask: &Mask) -> Result<(), Reason> {
    let m = &mask.0;
    let unknown = m.nw_tos != 0 || m.nw_ttl != 0 || !m.tp_src.is_zero() || !m.tp_dst.is_zero();
    entry::check_match(key, mask)?;
    if unknown { Err(Reason::Match) } else { Ok(()) }
}

impl Driver {
    fn verdict(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<Verdict, Reason> {
        check_fields(key, mask)?;
        let s = self.0.state();
        if s.ports.get(&OdpPort(key.in_port)) != Some(&true) {
            return Err(Reason::InPort);
        }
        let verdict = entry::verdict(key, mask, actions)?;
        if verdict.set_ttl.is_some() {
            return Err(Reason::Action);
        }
        let known = verdict.outputs.iter().all(|port| s.ports.contains_key(port));
        if known { Ok(verdict) } else { Err(Reason::OutPort) }
    }
}

impl Accelerator for Driver {
    fn name(&self) -> &'static str {
        "model"
    }
    fn port_add(&mut self, port: OdpPort, _: Device, receivers: Option<Arc<dyn Receivers>>) {
        self.0.state().ports.insert(port, receivers.is_some());
    }
    fn port_del(&mut self, port: OdpPort) {
        let s = &mut *self.0.state();
        let uses = |row: &Row| row.key.in_port == port.0 || row.verdict.outputs.contains(&port);
        assert!(!s.rows.iter().flatten().any(uses), "entries use {port:?}, which goes");
        s.ports.remove(&port);
    }
    fn check(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<(), Reason> {
        self.verdict(key, mask, actions).map(|_| ())
    }
    fn put(&mut self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<EntryId, Reason> {
        let verdict = self.verdict(key, mask, actions)?;
        let s = &mut *self.0.state();
        if s.lost {
            return Err(Reason::Refused);
        }
        let key = mask.apply(key);
        let same = |row: &Row| row.mask == *mask && row.key.words() == key.words();
        if s.rows.iter().flatten().any(same) {
            return Err(Reason::Present);
        }
        let at = s.rows.iter().position(Option::is_none).unwrap_or(s.rows.len());
        if at >= s.room {
            return Err(Reason::Full);
        }
        let row = Row { mask: mask.clone(), key, verdict, counters: Counters::default(), live: false };
        if at == s.rows.len() {
            s.rows.push(Some(row));
        } else {
            s.rows[at] = Some(row);
        }
        s.writes.push_back(at);
        Ok(EntryId(at as u32))
    }
    fn remove(&mut self, id: EntryId) -> Counters {
        let s = &mut *self.0.state();
        let at = id.0 as usize;
        let Some(row) = s.rows.get_mut(at).and_then(Option::take) else { return Counters::default() };
        s.writes.retain(|w| *w != at);
        s.events.retain(|e| *e != Event::Gone(id));
        if s.fail_removes && row.live {
            // It would go on matching: all or nothing.
            s.reset();
        }
        row.counters
    }
    fn counters(&self, id: EntryId) -> Counters {
        let s = self.0.state();
        s.rows.get(id.0 as usize).and_then(Option::as_ref).map_or_else(Counters::default, |row| row.counters)
    }
    fn now_ns(&self) -> u64 {
        self.0.state().now_ns
    }
    fn capacity(&self) -> usize {
        self.0.state().room
    }
    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0.state().events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Bed, Sent};

    struct Table {
        chip: Chip,
        driver: Driver,
    }

    impl Bed for Table {
        fn accelerator(&mut self) -> &mut dyn Accelerator {
            &mut self.driver
        }
        fn settle(&mut self) {
            self.chip.step(usize::MAX);
        }
        fn send(&mut self, port: OdpPort, frame: &[u8]) -> Sent {
            self.chip.forward(port, frame).map_or(Sent::Up, Sent::Out)
        }
    }

    #[test]
    fn keeps_the_contract() {
        let chip = Chip::new(6);
        conformance::all(&mut Table { driver: chip.driver(), chip });
    }

    #[test]
    fn what_waits_or_was_lost_matches_nothing() {
        let chip = Chip::new(6);
        let mut driver = chip.driver();
        conformance::add_ports(&mut driver);
        let (key, mask) = (conformance::key(1), conformance::mask());
        let sent = || chip.forward(conformance::IN, &conformance::frame(1)).is_some();
        let id = driver.put(&key, &mask, &[]).unwrap();
        assert!(!sent());
        chip.step(1);
        assert!(sent());
        chip.evict(0);
        assert!(!sent());
        assert_eq!(driver.events(), [Event::Gone(id)]);
        assert_eq!(driver.remove(id).packets, 1);
        chip.set_failing(true, false);
        let id = driver.put(&key, &mask, &[]).unwrap();
        chip.step(1);
        assert!(!sent());
        // Removed in time, nothing is said of it.
        driver.remove(id);
        assert_eq!(driver.events(), []);
        chip.lose();
        assert_eq!(driver.put(&key, &mask, &[]), Err(Reason::Refused));
        assert_eq!(driver.events(), [Event::Lost]);
    }
}
