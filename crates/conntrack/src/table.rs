//! The table of connections.
//!
//! Keys are spread over [`SHARDS`] maps, each behind its own lock. A connection is shared by its two entries and has a lock
//! for what changes. When it expires is found by a wheel for each shard, one slot a second: a connection is noted for the second that
//! its time runs out in; by then, if packets have put that off, it is noted again. So a packet costs no list operation, and a sweep
//! looks only at what may be due. A sweep takes a bounded number at a time, without the map's lock but for removals.
//!
//! Cost: about 520 bytes a connection (`examples/scale.rs` measures it); an established packet is one probe and two locks that nobody contends for.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use ib_dpif::conntrack::CtZoneLimit;
use parking_lot::{Mutex, RwLock};

use crate::expect::{Alg, Expectation, ExpectedKey};
use crate::frag::Fragments;
use crate::key::Key;
use crate::nat::Translated;
use crate::tcp::Peers;
use crate::timeouts::Policies;

/// Parts of the table that are locked on their own.
pub const SHARDS: usize = 64;
/// Most connections unless configured.
pub const DEFAULT_MAX_CONNS: u32 = 3_000_000;
/// Connections that one sweep looks at.
const SWEEP_BATCH: usize = 250;
/// Slots of a wheel, seconds.
const SLOTS: u64 = 256;
const DEFAULT_SWEEP_MS: u32 = 20_000;
/// Time between sweeps at least, ms: the main loop turns far more often.
const SWEEP_PAUSE_MS: u64 = 100;

/// How far a protocol without state of its own has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    First,
    Multiple,
    Both,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Proto {
    Tcp(Peers),
    Icmp(Talk),
    Other(Talk),
}

/// What of a connection changes.
pub(crate) struct State {
    pub(crate) proto: Proto,
    pub(crate) mark: u32,
    pub(crate) label: u128,
    pub(crate) expires_ms: u64,
    /// Second of the wheel that it is noted for.
    pub(crate) noted_s: u64,
    pub(crate) dead: bool,
    /// Of a helper.
    pub(crate) alg: Option<Box<Alg>>,
}

/// What a [`Conntrack::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Fragments that were dropped, because nobody came for them.
    pub lost_fragments: usize,
    /// It stopped before the end.
    pub more: bool,
}

/// Whose control connection it is; see [`crate::expect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    Ftp,
    Tftp,
}

/// A connection.
pub(crate) struct Conn {
    pub(crate) number: u64,
    pub(crate) orig: Key,
    pub(crate) reply: Key,
    pub(crate) translated: Translated,
    pub(crate) helper: Option<Helper>,
    /// Timeout policy.
    pub(crate) policy: u32,
    /// Original direction of the connection that announced this one.
    pub(crate) parent: Option<Box<Key>>,
    pub(crate) state: Mutex<State>,
}

/// One direction of a connection, as the map has it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) conn: Arc<Conn>,
    pub(crate) reply: bool,
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
pub(crate) struct Limits {
    pub(crate) default: u32,
    pub(crate) zones: BTreeMap<u16, u32>,
}

/// The table; see the module.
pub struct Conntrack {
    shards: Box<[Shard]>,
    pub(crate) hasher: RandomState,
    pub(crate) count: AtomicU32,
    pub(crate) next_number: AtomicU64,
    pub(crate) max_conns: AtomicU32,
    pub(crate) tcp_seq_chk: AtomicBool,
    pub(crate) sweep_ms: AtomicU32,
    /// The latest time that anybody told.
    pub(crate) now_ms: AtomicU64,
    pub(crate) swept_ms: AtomicU64,
    /// One more than the shard in which the next sweep goes on; 0: it begins anew.
    pub(crate) sweep_from: AtomicUsize,
    pub(crate) limits: RwLock<Limits>,
    pub(crate) timeouts: RwLock<Policies>,
    pub(crate) zone_counts: Box<[AtomicU32]>,
    pub(crate) fragments: Mutex<Fragments>,
    /// When the oldest datagram's time is over; see [`Self::overdue_fragments`].
    pub(crate) fragments_due_ms: AtomicU64,
    pub(crate) expectations: RwLock<HashMap<ExpectedKey, Expectation, RandomState>>,
    /// How many of those there are.
    pub(crate) expecting: AtomicUsize,
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
            sweep_from: AtomicUsize::new(0),
            limits: RwLock::default(),
            timeouts: RwLock::default(),
            zone_counts: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            fragments: Mutex::default(),
            fragments_due_ms: AtomicU64::new(u64::MAX),
            expectations: RwLock::default(),
            expecting: AtomicUsize::new(0),
        }
    }
}

impl Helper {
    /// The helper that a `ct` action names.
    pub(crate) fn for_packet(name: Option<&str>) -> Option<Helper> {
        match name {
            Some("ftp") => Some(Helper::Ftp),
            Some("tftp") => Some(Helper::Tftp),
            _ => None,
        }
    }
    pub(crate) fn name(self) -> &'static str {
        match self {
            Helper::Ftp => "ftp",
            Helper::Tftp => "tftp",
        }
    }
}

impl Conntrack {
    fn shard_of(&self, key: &Key) -> usize {
        (self.hasher.hash_one(key) >> 56) as usize % SHARDS
    }

    pub(crate) fn hash(&self, value: &impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// A zone's limit in force.
    pub(crate) fn zone_limit(&self, zone: u16) -> CtZoneLimit {
        let limits = self.limits.read();
        let limit = limits.zones.get(&zone).copied().unwrap_or(limits.default);
        CtZoneLimit { zone, limit, count: self.zone_counts[usize::from(zone)].load(Ordering::Relaxed) }
    }

    fn probe(&self, key: &Key) -> Option<Entry> {
        self.shards[self.shard_of(key)].map.lock().get(key).cloned()
    }

    /// The live connection of a key.
    pub(crate) fn find(&self, key: &Key, now_ms: u64) -> Option<Entry> {
        let entry = self.probe(key)?;
        if entry.conn.state.lock().expires_ms > now_ms {
            return Some(entry);
        }
        self.remove(&entry.conn);
        None
    }

    /// Takes a connection out; false if somebody else did.
    pub(crate) fn remove(&self, conn: &Arc<Conn>) -> bool {
        {
            let mut state = conn.state.lock();
            if std::mem::replace(&mut state.dead, true) {
                return false;
            }
            self.forget_expected(conn, &mut state);
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

    /// Puts a connection under both of its keys; false if its original one is taken, or, if it is to be `exclusive`, either.
    /// Else the reply key of an older connection passes to this one.
    pub(crate) fn insert(&self, conn: &Arc<Conn>, exclusive: bool) -> bool {
        let (a, b) = (self.shard_of(&conn.orig), self.shard_of(&conn.reply));
        let mut low = self.shards[a.min(b)].map.lock();
        let mut high = (a != b).then(|| self.shards[a.max(b)].map.lock());
        {
            let (for_orig, for_reply) = match &high {
                None => (&*low, &*low),
                Some(high) if a < b => (&*low, &**high),
                Some(high) => (&**high, &*low),
            };
            if for_orig.contains_key(&conn.orig) || exclusive && for_reply.contains_key(&conn.reply) {
                return false;
            }
        }
        let entry = |reply| Entry { conn: Arc::clone(conn), reply };
        // The original direction last: it is the one that counts if a connection is its own reverse.
        for (shard, key, reply) in [(b, conn.reply, true), (a, conn.orig, false)] {
            let map = match &mut high {
                Some(high) if shard == a.max(b) => &mut **high,
                _ => &mut *low,
            };
            if !reply || map.get(&key).is_none_or(|e| e.reply) {
                map.insert(key, entry(reply));
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.zone_counts[usize::from(conn.orig.zone)].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Sets how long a connection has from now.
    pub(crate) fn prolong(&self, conn: &Arc<Conn>, state: &mut State, first: bool, now_ms: u64) {
        let seconds = self.timeouts.read().seconds(conn.policy, &state.proto, first);
        self.expire_at(conn, state, now_ms + u64::from(seconds) * 1000);
    }

    /// Sets when a connection's time is over.
    pub(crate) fn expire_at(&self, conn: &Arc<Conn>, state: &mut State, at_ms: u64) {
        state.expires_ms = at_ms;
        let second = state.expires_ms / 1000 + 1;
        // What is noted for earlier will be noted again then.
        if second < state.noted_s {
            state.noted_s = self.shards[self.shard_of(&conn.orig)].wheel.lock().note(conn, second);
        }
    }

    /// Removes what has expired, a bounded number at a time, so that no call takes a millisecond; call it from time to time,
    /// from one thread, and soon again if it says that there is more.
    pub fn sweep(&self, now_ms: u64) -> Swept {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let going_on = self.sweep_from.load(Ordering::Relaxed).checked_sub(1);
        let last = self.swept_ms.load(Ordering::Relaxed);
        if going_on.is_none() && now_ms < last + SWEEP_PAUSE_MS {
            return Swept::default();
        }
        self.swept_ms.store(now_ms, Ordering::Relaxed);
        let lost_fragments = self.purge_fragments(now_ms);
        let mut budget = SWEEP_BATCH;
        let mut from = going_on.unwrap_or(0);
        while from < SHARDS {
            self.sweep_shard(&self.shards[from], now_ms, &mut budget);
            if budget == 0 {
                break;
            }
            from += 1;
        }
        let more = from < SHARDS;
        // What one call could not finish, the next ones do, from the shard on where it stopped.
        self.sweep_from.store(if more { from + 1 } else { 0 }, Ordering::Relaxed);
        Swept { lost_fragments, more }
    }

    fn sweep_shard(&self, shard: &Shard, now_ms: u64, budget: &mut usize) {
        let now_s = now_ms / 1000;
        while *budget > 0 {
            let mut wheel = shard.wheel.lock();
            if wheel.next_s > now_s {
                break;
            }
            // After a long pause one round looks at everything.
            wheel.next_s = wheel.next_s.max(now_s.saturating_sub(SLOTS - 1));
            let second = wheel.next_s;
            let slot = &mut wheel.slots[(second % SLOTS) as usize];
            let due: Vec<_> = slot.drain(slot.len().saturating_sub(*budget)..).collect();
            if slot.is_empty() {
                // It is filled again in minutes: 16,384 slots would keep what each had room for at its fullest.
                *slot = Vec::new();
                wheel.next_s += 1;
            }
            drop(wheel);
            *budget -= due.len();
            for conn in due {
                self.look_at(shard, &conn, now_ms);
            }
        }
    }

    /// Removes what has expired within this second, which sweeps come to in the next: counts and dumps agree.
    pub(crate) fn remove_due(&self) {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        for shard in &self.shards {
            let due: Vec<_> = {
                let wheel = shard.wheel.lock();
                let slot = &wheel.slots[((now_ms / 1000 + 1) % SLOTS) as usize];
                slot.iter().filter(|c| c.state.lock().expires_ms <= now_ms).map(Arc::clone).collect()
            };
            due.iter().for_each(|c| {
                self.remove(c);
            });
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
    pub(crate) fn all(&self, zone: Option<u16>) -> Vec<Arc<Conn>> {
        self.remove_due();
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

#[cfg(test)]
mod tests;
