//! The table of connections.
//!
//! Keys are spread over [`SHARDS`] maps, each behind its own lock. A connection is shared by its two entries and has a lock
//! for what changes. When it expires is found by a wheel for each shard, one slot a second: a connection is noted for the second that
//! its time runs out in; by then, if packets have put that off, it is noted again. So a packet costs no list operation, and a sweep
//! looks only at what may be due. A shard's sweep takes a bounded number at a time, without the map's lock but for removals.
//!
//! Cost: about 400 bytes a connection; an established packet is one probe and two locks that nobody contends for.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use foldhash::quality::RandomState;
use ib_dpif::conntrack::{
    CtControl, CtEntry, CtFilter, CtTcp, CtTimeouts, CtTuple, CtZoneLimit, FragStatus, TcpState,
};
use ib_dpif::{CtAction, NatAction};
use ib_flow::Metadata;
use ib_flow::key::CtState;
use ib_packet::{Be128, Packet};
use parking_lot::{Mutex, RwLock};

use crate::frag::{Fragments, Outcome};
use crate::key::{Key, Parsed, parse};
use crate::nat::{self, Translated};
use crate::rewrite::rewrite;
use crate::tcp::{self, Peers, Verdict};

/// Parts of the table that are locked on their own.
pub const SHARDS: usize = 64;
/// Most connections unless configured.
pub const DEFAULT_MAX_CONNS: u32 = 3_000_000;
/// Connections that one sweep of a shard looks at.
const SWEEP_BATCH: usize = 2_000;
/// Slots of a wheel, seconds.
const SLOTS: u64 = 256;
/// How often a commit looks for a free key again when another thread took it.
const COMMIT_TRIES: usize = 8;
const DEFAULT_SWEEP_MS: u32 = 20_000;
/// Least that a smallest fragment size can be set to.
const FRAG_FLOOR: u32 = 400;
/// Most fragments that can be allowed to be held.
const FRAG_MAX: u32 = 5000;
/// Time between sweeps at least, ms: the main loop turns far more often.
const SWEEP_PAUSE_MS: u64 = 100;

/// How far a protocol without state of its own has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    First,
    Multiple,
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Proto {
    Tcp(Peers),
    Icmp(Talk),
    Other(Talk),
}

/// What of a connection changes.
struct State {
    proto: Proto,
    mark: u32,
    label: u128,
    expires_ms: u64,
    /// Second of the wheel that it is noted for.
    noted_s: u64,
    dead: bool,
}

/// A connection.
struct Conn {
    number: u64,
    orig: Key,
    reply: Key,
    translated: Translated,
    helper: Option<&'static str>,
    state: Mutex<State>,
}

/// One direction of a connection, as the map has it.
#[derive(Clone)]
struct Entry {
    conn: Arc<Conn>,
    reply: bool,
}

struct Wheel {
    next_s: u64,
    slots: Vec<Vec<Arc<Conn>>>,
}

#[derive(Default)]
struct Shard {
    map: Mutex<HashMap<Key, Entry, RandomState>>,
    wheel: Mutex<Wheel>,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel { next_s: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect() }
    }
}

impl Wheel {
    /// Notes `conn` for `second`, or the last that the wheel has; which one it is.
    fn note(&mut self, conn: &Arc<Conn>, second: u64) -> u64 {
        let second = second.clamp(self.next_s, self.next_s + SLOTS - 1);
        self.slots[(second % SLOTS) as usize].push(Arc::clone(conn));
        second
    }
}

#[derive(Default)]
struct Limits {
    default: u32,
    zones: BTreeMap<u16, u32>,
}

/// The table; see the module.
pub struct Conntrack {
    shards: Box<[Shard]>,
    hasher: RandomState,
    count: AtomicU32,
    next_number: AtomicU64,
    max_conns: AtomicU32,
    tcp_seq_chk: AtomicBool,
    sweep_ms: AtomicU32,
    /// The latest time that anybody told.
    now_ms: AtomicU64,
    swept_ms: AtomicU64,
    limits: RwLock<Limits>,
    timeouts: RwLock<BTreeMap<u16, CtTimeouts>>,
    zone_counts: Box<[AtomicU32]>,
    fragments: Mutex<Fragments>,
}

impl Default for Conntrack {
    fn default() -> Conntrack {
        Conntrack {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::default(),
            count: AtomicU32::new(0),
            next_number: AtomicU64::new(0),
            max_conns: AtomicU32::new(DEFAULT_MAX_CONNS),
            tcp_seq_chk: AtomicBool::new(true),
            sweep_ms: AtomicU32::new(DEFAULT_SWEEP_MS),
            now_ms: AtomicU64::new(0),
            swept_ms: AtomicU64::new(0),
            limits: RwLock::default(),
            timeouts: RwLock::default(),
            zone_counts: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            fragments: Mutex::default(),
        }
    }
}

/// Default timeouts, seconds.
mod timeout {
    pub const TCP_OPENING: u32 = 30;
    pub const TCP_ESTABLISHED: u32 = 24 * 60 * 60;
    pub const TCP_CLOSING: u32 = 15 * 60;
    pub const TCP_FIN_WAIT: u32 = 45;
    pub const TCP_CLOSED: u32 = 30;
    pub const FIRST: u32 = 60;
    pub const MULTIPLE: u32 = 60;
    pub const BOTH: u32 = 30;
}

fn timeout_s(proto: &Proto, t: &CtTimeouts) -> u32 {
    use timeout::*;
    match proto {
        Proto::Tcp([a, b]) => {
            let both = |s| a.state >= s && b.state >= s;
            if both(TcpState::FinWait2) {
                t.tcp_close.unwrap_or(TCP_CLOSED)
            } else if both(TcpState::Closing) {
                t.tcp_time_wait.unwrap_or(TCP_FIN_WAIT)
            } else if b.state == TcpState::Closed {
                t.tcp_syn_sent.unwrap_or(TCP_OPENING)
            } else if !both(TcpState::Established) {
                t.tcp_syn_recv.unwrap_or(TCP_OPENING)
            } else if a.state >= TcpState::Closing || b.state >= TcpState::Closing {
                t.tcp_fin_wait.unwrap_or(TCP_CLOSING)
            } else {
                t.tcp_established.unwrap_or(TCP_ESTABLISHED)
            }
        }
        Proto::Icmp(Talk::Both) => t.icmp_reply.unwrap_or(BOTH),
        Proto::Icmp(_) => t.icmp_first.unwrap_or(FIRST),
        Proto::Other(Talk::First) => t.udp_first.unwrap_or(FIRST),
        Proto::Other(Talk::Multiple) => t.udp_single.unwrap_or(MULTIPLE),
        Proto::Other(Talk::Both) => t.udp_multiple.unwrap_or(BOTH),
    }
}

fn update(proto: &mut Proto, parsed: &Parsed, reply: bool, check: bool) -> Verdict {
    match proto {
        Proto::Tcp(peers) => tcp::update(peers, &parsed.segment, reply, check),
        Proto::Icmp(talk) | Proto::Other(talk) => {
            *talk = match *talk {
                _ if reply => Talk::Both,
                Talk::First => Talk::Multiple,
                other => other,
            };
            if *talk == Talk::Both { Verdict::Established } else { Verdict::StillNew }
        }
    }
}

fn helper_name(name: Option<&str>) -> Option<&'static str> {
    match name {
        Some("ftp") => Some("ftp"),
        Some("tftp") => Some("tftp"),
        _ => None,
    }
}

const NAT_BITS: u8 = CtState::SNAT | CtState::DNAT;

impl Conntrack {
    fn shard_of(&self, key: &Key) -> usize {
        (self.hasher.hash_one(key) >> 56) as usize % SHARDS
    }

    fn probe(&self, key: &Key) -> Option<Entry> {
        self.shards[self.shard_of(key)].map.lock().get(key).cloned()
    }

    /// The live connection of a key.
    fn find(&self, key: &Key, now_ms: u64) -> Option<Entry> {
        let entry = self.probe(key)?;
        if entry.conn.state.lock().expires_ms > now_ms {
            return Some(entry);
        }
        self.remove(&entry.conn);
        None
    }

    /// Takes a connection out; false if somebody else did.
    fn remove(&self, conn: &Arc<Conn>) -> bool {
        if std::mem::replace(&mut conn.state.lock().dead, true) {
            return false;
        }
        for key in [&conn.orig, &conn.reply] {
            let mut map = self.shards[self.shard_of(key)].map.lock();
            if map.get(key).is_some_and(|e| Arc::ptr_eq(&e.conn, conn)) {
                map.remove(key);
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.zone_counts[usize::from(conn.orig.zone)].fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Puts a connection under both of its keys; false if one is taken.
    fn insert(&self, conn: &Arc<Conn>) -> bool {
        let (a, b) = (self.shard_of(&conn.orig), self.shard_of(&conn.reply));
        let mut low = self.shards[a.min(b)].map.lock();
        let mut high = (a != b).then(|| self.shards[a.max(b)].map.lock());
        {
            let (for_orig, for_reply) = match &high {
                None => (&*low, &*low),
                Some(high) if a < b => (&*low, &**high),
                Some(high) => (&**high, &*low),
            };
            if for_orig.contains_key(&conn.orig) || for_reply.contains_key(&conn.reply) {
                return false;
            }
        }
        let entry = |reply| Entry { conn: Arc::clone(conn), reply };
        for (shard, key, reply) in [(a, conn.orig, false), (b, conn.reply, true)] {
            match &mut high {
                Some(high) if shard == a.max(b) => high.insert(key, entry(reply)),
                _ => low.insert(key, entry(reply)),
            };
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.zone_counts[usize::from(conn.orig.zone)].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Sets how long a connection has from now.
    fn prolong(&self, conn: &Arc<Conn>, state: &mut State, now_ms: u64) {
        let zone = conn.orig.zone;
        let timeouts = self.timeouts.read();
        let none = CtTimeouts::default();
        let seconds = timeout_s(&state.proto, timeouts.get(&zone).unwrap_or(&none));
        state.expires_ms = now_ms + u64::from(seconds) * 1000;
        let second = state.expires_ms / 1000 + 1;
        // What is noted for earlier will be noted again then.
        if second < state.noted_s {
            state.noted_s = self.shards[self.shard_of(&conn.orig)].wheel.lock().note(conn, second);
        }
    }

    /// Takes a fragment, or any packet, before it is tracked: see [`crate::frag`].
    pub fn take_fragment(&self, packet: Packet, zone: u16, now_ms: u64) -> Outcome {
        self.fragments.lock().take(packet, zone, now_ms)
    }

    /// Does one `ct` action: see the module. `random` is any number, for ranges that are to be random.
    pub fn process(&self, packet: &mut Packet, md: &mut Metadata, ct: &CtAction, now_ms: u64, random: u32) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let before = md.ct_state;
        let tracked = before & CtState::TRK != 0 && md.ct_zone == ct.zone && before & CtState::INV == 0;
        md.ct_zone = ct.zone;
        md.ct_mark = 0;
        md.ct_label = Be128::ZERO;
        md.ct_orig = None;
        md.ct_state = CtState::TRK | CtState::INV;
        let Some(parsed) = parse(packet, ct.zone) else { return };
        let translated = tracked && before & NAT_BITS != 0;
        // A packet that was translated before looks like the reverse of the other direction.
        let mut found = if translated {
            self.find(&parsed.key.reversed(), now_ms).map(|e| Entry { reply: !e.reply, ..e })
        } else {
            None
        };
        if found.is_none() {
            found = self.find(&parsed.key, now_ms);
        }
        if let Some(e) = found.take_if(|e| ct.force && e.reply) {
            self.remove(&e.conn);
        }
        let mut bits = 0;
        if let Some(e) = &found {
            let mut state = e.conn.state.lock();
            let direction = if e.reply { CtState::RPL } else { 0 };
            bits = if parsed.inner.is_some() {
                CtState::REL | direction
            } else if tracked && before & CtState::NEW == 0 {
                // This packet has moved the connection before.
                before & !(CtState::TRK | NAT_BITS)
            } else {
                let check = self.tcp_seq_chk.load(Ordering::Relaxed);
                match update(&mut state.proto, &parsed, e.reply, check) {
                    Verdict::Established => {
                        self.prolong(&e.conn, &mut state, now_ms);
                        CtState::EST | direction
                    }
                    Verdict::StillNew => {
                        self.prolong(&e.conn, &mut state, now_ms);
                        CtState::NEW
                    }
                    Verdict::Invalid => CtState::INV,
                    Verdict::Restart => 0,
                }
            };
        }
        if bits == 0
            && let Some(e) = found.take()
        {
            self.remove(&e.conn);
        }
        if translated {
            bits |= before & NAT_BITS;
        }
        if let Some(e) = &found {
            if ct.nat.is_some() && !translated && bits & CtState::INV == 0 {
                bits |= apply_nat(packet, &parsed, e);
            }
        } else if parsed.inner.is_some() || !parsed.may_begin() {
            bits = CtState::INV;
        } else {
            bits |= CtState::NEW;
            if ct.commit {
                found = self.commit(&parsed, ct, now_ms, random);
            }
            if let Some(e) = found.as_ref().filter(|_| !translated) {
                bits |= apply_nat(packet, &parsed, e);
            }
        }
        md.ct_state = CtState::TRK | bits;
        md.ct_orig = Some(match &found {
            Some(e) => e.conn.orig.orig(),
            None => parsed.key.orig(),
        });
        if let Some(e) = &found {
            let mut state = e.conn.state.lock();
            if let Some((value, mask)) = ct.mark {
                state.mark = state.mark & !mask | value & mask;
            }
            if let Some((value, mask)) = ct.label {
                state.label = state.label & !mask.get() | value.get() & mask.get();
            }
            md.ct_mark = state.mark;
            md.ct_label = Be128::new(state.label);
        }
    }

    /// Whether a zone, and the table, have room for one more.
    fn has_room(&self, zone: u16) -> bool {
        let limit = self.limit(zone);
        (limit.limit == 0 || limit.count < limit.limit)
            && self.count.load(Ordering::Relaxed) < self.max_conns.load(Ordering::Relaxed)
    }

    /// A new connection for a packet that has none; `None` if there is no room, or nothing to translate to.
    fn commit(&self, parsed: &Parsed, ct: &CtAction, now_ms: u64, random: u32) -> Option<Entry> {
        let orig = parsed.key;
        if !self.has_room(orig.zone) {
            return None;
        }
        let end = nat::translated(ct.nat.as_ref(), orig.v6);
        let proto = match orig.proto {
            6 => Proto::Tcp(tcp::begin(&parsed.segment)),
            1 | 58 => Proto::Icmp(Talk::First),
            _ => Proto::Other(Talk::First),
        };
        for _ in 0..COMMIT_TRIES {
            let reply = match (&ct.nat, end) {
                (Some(action), Translated::Source | Translated::Destination) => {
                    let free = |k: &Key| *k != orig && self.find(k, now_ms).is_none();
                    nat::choose(&orig, action, self.nat_hash(&orig, action), random, free)?
                }
                _ => orig.reversed(),
            };
            let conn = Arc::new(Conn {
                number: self.next_number.fetch_add(1, Ordering::Relaxed),
                orig,
                reply,
                translated: end,
                helper: helper_name(ct.helper.as_deref()),
                state: Mutex::new(State {
                    proto,
                    mark: 0,
                    label: 0,
                    expires_ms: u64::MAX,
                    noted_s: u64::MAX,
                    dead: false,
                }),
            });
            if self.insert(&conn) {
                self.prolong(&conn, &mut conn.state.lock(), now_ms);
                return Some(Entry { conn, reply: false });
            }
            // Another thread's packet of the same connection was faster, or one that took our reply key.
            if let Some(e) = self.find(&orig, now_ms) {
                return (!e.reply).then_some(e);
            }
            if end == Translated::Neither && self.find(&reply, now_ms).is_some() {
                return None;
            }
        }
        None
    }

    /// Where in its ranges a connection starts to look. A persistent mapping depends on the host alone.
    fn nat_hash(&self, orig: &Key, action: &NatAction) -> u32 {
        let persistent = matches!(action, NatAction::Src(r) | NatAction::Dst(r) if r.persistent);
        let hash = if persistent { self.hasher.hash_one(orig.src) } else { self.hasher.hash_one(orig) };
        (hash >> 32) as u32
    }

    /// Removes what has expired, a bounded number at a time; call it from time to time, from one thread.
    pub fn sweep(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let last = self.swept_ms.load(Ordering::Relaxed);
        if now_ms < last + SWEEP_PAUSE_MS {
            return;
        }
        self.swept_ms.store(now_ms, Ordering::Relaxed);
        self.fragments.lock().expire(now_ms);
        let now_s = now_ms / 1000;
        for shard in &self.shards {
            let mut budget = SWEEP_BATCH;
            while budget > 0 {
                let mut wheel = shard.wheel.lock();
                if wheel.next_s > now_s {
                    break;
                }
                // After a long pause one round looks at everything.
                wheel.next_s = wheel.next_s.max(now_s.saturating_sub(SLOTS - 1));
                let second = wheel.next_s;
                let slot = &mut wheel.slots[(second % SLOTS) as usize];
                let due: Vec<_> = slot.drain(slot.len().saturating_sub(budget)..).collect();
                if slot.is_empty() {
                    slot.shrink_to(64);
                    wheel.next_s += 1;
                }
                drop(wheel);
                budget -= due.len();
                for conn in due {
                    self.look_at(shard, &conn, now_ms);
                }
            }
        }
    }

    fn look_at(&self, shard: &Shard, conn: &Arc<Conn>, now_ms: u64) {
        let mut state = conn.state.lock();
        if state.dead {
            return;
        }
        if state.expires_ms > now_ms {
            let second = state.expires_ms / 1000 + 1;
            state.noted_s = shard.wheel.lock().note(conn, second);
            return;
        }
        drop(state);
        self.remove(conn);
    }

    /// Every connection there is, expired ones left out.
    fn all(&self, zone: Option<u16>) -> Vec<Arc<Conn>> {
        let now = self.now_ms.load(Ordering::Relaxed);
        let mut out = Vec::new();
        for shard in &self.shards {
            let map = shard.map.lock();
            let wanted = map.values().filter(|e| !e.reply && zone.is_none_or(|z| z == e.conn.orig.zone));
            out.extend(wanted.map(|e| Arc::clone(&e.conn)));
        }
        out.retain(|c| c.state.lock().expires_ms > now);
        out.sort_by_key(|c| c.number);
        out
    }
}

/// Translates a packet as its connection says; the state bits that tell so.
fn apply_nat(packet: &mut Packet, parsed: &Parsed, e: &Entry) -> u8 {
    let conn = &e.conn;
    let to = if e.reply { conn.orig.reversed() } else { conn.reply.reversed() };
    let bit = match (conn.translated, e.reply) {
        (Translated::Neither, _) => return 0,
        (Translated::Source, false) | (Translated::Destination, true) => CtState::SNAT,
        (Translated::Source, true) | (Translated::Destination, false) => CtState::DNAT,
    };
    if to != parsed.key {
        rewrite(packet, parsed, &to);
    }
    bit
}

fn tuple(key: &Key) -> CtTuple {
    let addr = |a: Be128| -> std::net::IpAddr {
        if key.v6 {
            std::net::Ipv6Addr::from(a.get()).into()
        } else {
            std::net::Ipv4Addr::from(a.get() as u32).into()
        }
    };
    CtTuple {
        src: addr(key.src),
        dst: addr(key.dst),
        proto: key.proto,
        sport: key.sport,
        dport: key.dport,
        id: key.id,
    }
}

fn entry(conn: &Conn, now_ms: u64) -> CtEntry {
    let state = conn.state.lock();
    let tcp = match &state.proto {
        Proto::Tcp([a, b]) => Some(CtTcp {
            state: [a.state, b.state],
            wscale: [a.wscale.unwrap_or(0), b.wscale.unwrap_or(0)],
            scales: [a.wscale.is_some(), b.wscale.is_some()],
        }),
        _ => None,
    };
    CtEntry {
        orig: tuple(&conn.orig),
        reply: tuple(&conn.reply),
        zone: conn.orig.zone,
        mark: state.mark,
        label: state.label,
        timeout_s: state.expires_ms.saturating_sub(now_ms) / 1000,
        tcp,
        helper: conn.helper,
        parent: None,
    }
}

impl CtControl for Conntrack {
    fn dump(&self, zone: Option<u16>) -> Vec<CtEntry> {
        let now = self.now_ms.load(Ordering::Relaxed);
        self.all(zone).iter().map(|c| entry(c, now)).collect()
    }
    fn flush(&self, filter: &CtFilter) -> usize {
        let agrees = |c: &&Arc<Conn>| filter.matches(&entry(c, 0));
        self.all(filter.zone).iter().filter(agrees).filter(|c| self.remove(c)).count()
    }
    fn n_conns(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
    fn max_conns(&self) -> u32 {
        self.max_conns.load(Ordering::Relaxed)
    }
    fn set_max_conns(&self, max: u32) {
        self.max_conns.store(max, Ordering::Relaxed);
    }
    fn tcp_seq_chk(&self) -> bool {
        self.tcp_seq_chk.load(Ordering::Relaxed)
    }
    fn set_tcp_seq_chk(&self, on: bool) {
        self.tcp_seq_chk.store(on, Ordering::Relaxed);
    }
    fn default_limit(&self) -> u32 {
        self.limits.read().default
    }
    fn set_default_limit(&self, limit: u32) {
        self.limits.write().default = limit;
    }
    fn limits(&self) -> Vec<CtZoneLimit> {
        let zones: Vec<u16> = self.limits.read().zones.keys().copied().collect();
        zones.into_iter().map(|z| self.limit(z)).collect()
    }
    fn limit(&self, zone: u16) -> CtZoneLimit {
        let limits = self.limits.read();
        let limit = limits.zones.get(&zone).copied().unwrap_or(limits.default);
        CtZoneLimit { zone, limit, count: self.zone_counts[usize::from(zone)].load(Ordering::Relaxed) }
    }
    fn set_limit(&self, zone: u16, limit: Option<u32>) {
        let mut limits = self.limits.write();
        match limit {
            Some(limit) => limits.zones.insert(zone, limit),
            None => limits.zones.remove(&zone),
        };
    }
    fn set_timeouts(&self, zone: u16, timeouts: Option<CtTimeouts>) {
        let mut all = self.timeouts.write();
        match timeouts {
            Some(t) => all.insert(zone, t),
            None => all.remove(&zone),
        };
    }
    fn sweep_interval_ms(&self) -> u32 {
        self.sweep_ms.load(Ordering::Relaxed)
    }
    fn set_sweep_interval_ms(&self, ms: u32) {
        self.sweep_ms.store(ms, Ordering::Relaxed);
    }
    fn frag_status(&self) -> FragStatus {
        self.fragments.lock().status
    }
    fn set_frag_enabled(&self, v6: bool, on: bool) {
        let f = &mut self.fragments.lock().status;
        if v6 { f.v6.enabled = on } else { f.v4.enabled = on }
    }
    fn set_frag_min(&self, v6: bool, bytes: u32) -> bool {
        let f = &mut self.fragments.lock().status;
        let counters = if v6 { &mut f.v6 } else { &mut f.v4 };
        if bytes >= FRAG_FLOOR {
            counters.min_size = bytes;
        }
        bytes >= FRAG_FLOOR
    }
    fn set_frag_max(&self, max: u32) -> bool {
        let fits = max <= FRAG_MAX;
        if fits {
            self.fragments.lock().status.max = max;
        }
        fits
    }
}

#[cfg(test)]
mod tests;
