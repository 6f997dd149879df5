//! The table of learned MAC addresses.
//!
//! For each (VLAN, MAC) the port behind which it was last seen. Entries age: one that was not refreshed for
//! the idle time goes. The table has a limit; when it is reached, the port with most entries loses its
//! least recently used one, so that one port can't push out the others. Static entries neither age nor
//! move. Times are whole seconds, as the tools print them.
//!
//! Gratuitous ARP: such a packet that came in by a plain port may be reflected through the members of a
//! bond; an entry that it made is locked for [`GRAT_ARP_LOCK_SECS`] against gratuitous ARP from bonds.
//!
//! Cost: a lookup is one hash; an insertion or eviction adds a logarithm of the number of entries.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use foldhash::fast::RandomState;
use ib_base::time::Instant;
use ib_packet::Mac;

/// Idle time of a table that nobody configured.
pub const DEFAULT_IDLE_SECS: u32 = 300;
/// Limit of a table that nobody configured.
pub const DEFAULT_MAX_ENTRIES: usize = 8192;
/// How long an entry ignores gratuitous ARP from bonds.
pub const GRAT_ARP_LOCK_SECS: u64 = 5;

/// One learned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry<P> {
    /// Address.
    pub mac: Mac,
    /// VLAN; 0 for none.
    pub vlan: u16,
    /// Where it is.
    pub port: P,
    /// Seconds since it was last seen; `None` for static entries.
    pub age: Option<u64>,
}

/// Counters since start or [`MacLearning::clear_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacStats {
    /// Entries made.
    pub learned: u64,
    /// Entries aged out.
    pub expired: u64,
    /// Entries pushed out by the limit.
    pub evicted: u64,
    /// Entries that changed port.
    pub moved: u64,
}

#[derive(Clone, Debug)]
struct Slot<P> {
    port: P,
    /// Second in which it goes; `None` for static entries.
    expires: Option<u64>,
    /// Order of use: the key in `lru`.
    used: u64,
    grat_arp_lock: u64,
}

type Key = (u16, Mac);
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// The table; `P` names a port (or bundle of ports).
#[derive(Clone, Debug)]
pub struct MacLearning<P> {
    entries: HashMap<Key, Slot<P>>,
    lru: BTreeMap<u64, Key>,
    ports: HashMap<P, BTreeSet<u64>>,
    next_use: u64,
    idle_secs: u32,
    max_entries: usize,
    flood_vlans: Option<Box<[u64; 64]>>,
    n_static: usize,
    stats: MacStats,
}

impl<P: Copy + Eq + Hash> Default for MacLearning<P> {
    fn default() -> Self {
        MacLearning::new()
    }
}

impl<P: Copy + Eq + Hash> MacLearning<P> {
    /// An empty table with the default limits.
    pub fn new() -> MacLearning<P> {
        MacLearning {
            entries: HashMap::default(),
            lru: BTreeMap::new(),
            ports: HashMap::default(),
            next_use: 0,
            idle_secs: DEFAULT_IDLE_SECS,
            max_entries: DEFAULT_MAX_ENTRIES,
            flood_vlans: None,
            n_static: 0,
            stats: MacStats::default(),
        }
    }

    /// Changes the idle time (15 to 3600 seconds). Entries keep the age that they have.
    pub fn set_idle_secs(&mut self, secs: u32) {
        let secs = secs.clamp(15, 3600);
        let delta = i64::from(secs) - i64::from(self.idle_secs);
        if delta != 0 {
            for expires in self.entries.values_mut().filter_map(|s| s.expires.as_mut()) {
                *expires = expires.saturating_add_signed(delta);
            }
            self.idle_secs = secs;
        }
    }
    /// The idle time.
    pub fn idle_secs(&self) -> u32 {
        self.idle_secs
    }
    /// Changes the limit (10 to 1,000,000 entries).
    pub fn set_max_entries(&mut self, max: usize) {
        self.max_entries = max.clamp(10, 1_000_000);
    }
    /// The limit.
    pub fn max_entries(&self) -> usize {
        self.max_entries
    }
    /// Sets VLANs in which nothing is learned. Returns whether that was a change.
    pub fn set_flood_vlans(&mut self, vlans: &[u16]) -> bool {
        let mut bits: Option<Box<[u64; 64]>> = None;
        for v in vlans.iter().map(|v| usize::from(*v) & 4095) {
            bits.get_or_insert_with(|| Box::new([0; 64]))[v / 64] |= 1 << (v % 64);
        }
        std::mem::replace(&mut self.flood_vlans, bits.clone()) != bits
    }
    /// Whether nothing is learned in a VLAN.
    pub fn is_flood_vlan(&self, vlan: u16) -> bool {
        let v = usize::from(vlan) & 4095;
        self.flood_vlans.as_ref().is_some_and(|b| b[v / 64] >> (v % 64) & 1 != 0)
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Number of static entries.
    pub fn n_static(&self) -> usize {
        self.n_static
    }
    /// Counters.
    pub fn stats(&self) -> MacStats {
        self.stats
    }
    /// Zeroes the counters.
    pub fn clear_stats(&mut self) {
        self.stats = MacStats::default();
    }

    /// Whether an address may be learned at all.
    pub fn may_learn(&self, mac: Mac, vlan: u16) -> bool {
        !mac.is_multicast() && !self.is_flood_vlan(vlan)
    }

    /// Where an address is, unless the VLAN is flooded.
    pub fn lookup(&self, mac: Mac, vlan: u16) -> Option<P> {
        if mac.is_multicast() || self.is_flood_vlan(vlan) {
            return None;
        }
        self.entries.get(&(vlan, mac)).map(|s| s.port)
    }

    fn age(&self, slot: &Slot<P>, now: Instant) -> Option<u64> {
        let left = slot.expires?.saturating_sub(now.as_secs());
        Some(u64::from(self.idle_secs).saturating_sub(left))
    }

    /// Whether [`Self::update`] would do anything: a cheap question for the fast path.
    pub fn needs_update(
        &self,
        mac: Mac,
        vlan: u16,
        port: P,
        grat_arp: bool,
        is_bond: bool,
        now: Instant,
    ) -> bool {
        if !self.may_learn(mac, vlan) {
            return false;
        }
        let Some(slot) = self.entries.get(&(vlan, mac)) else { return true };
        match self.age(slot, now) {
            None => return false,
            Some(0) => {}
            Some(_) => return true,
        }
        if grat_arp {
            if !is_bond {
                return true;
            }
            if now.as_secs() < slot.grat_arp_lock {
                return false;
            }
        }
        slot.port != port
    }

    /// Learns that `mac` is behind `port`, or refreshes it. Returns the addresses whose lookup
    /// has another answer now (this one, and what had to make room): flows that depend on them must be looked at again.
    pub fn update(
        &mut self,
        mac: Mac,
        vlan: u16,
        port: P,
        grat_arp: bool,
        is_bond: bool,
        now: Instant,
    ) -> Vec<Mac> {
        if !self.needs_update(mac, vlan, port, grat_arp, is_bond, now) {
            return Vec::new();
        }
        let now_s = now.as_secs();
        let expires = now_s + u64::from(self.idle_secs);
        let key = (vlan, mac);
        if !self.entries.contains_key(&key) {
            let mut news = self.make_room();
            let slot = Slot { port, expires: Some(expires), used: 0, grat_arp_lock: 0 };
            self.insert(key, slot);
            self.stats.learned += 1;
            if grat_arp && !is_bond {
                self.lock(key, now_s);
            }
            news.push(mac);
            return news;
        }
        self.touch(key);
        let slot = self.entries.get_mut(&key).expect("found above");
        slot.expires = Some(expires);
        if grat_arp {
            if !is_bond {
                self.lock(key, now_s);
            } else if now_s < slot.grat_arp_lock {
                return Vec::new();
            }
        }
        if self.set_port(key, port) { vec![mac] } else { Vec::new() }
    }

    /// Makes a static entry (or turns one into it). Returns whether a lookup's answer changed.
    pub fn add_static(&mut self, mac: Mac, vlan: u16, port: P) -> bool {
        let key = (vlan, mac);
        match self.entries.get_mut(&key) {
            Some(slot) => {
                if slot.expires.take().is_some() {
                    self.n_static += 1;
                }
                self.touch(key);
                // An operator moves it, not the station.
                let moved = self.stats.moved;
                let news = self.set_port(key, port);
                self.stats.moved = moved;
                news
            }
            None => {
                self.make_room();
                self.insert(key, Slot { port, expires: None, used: 0, grat_arp_lock: 0 });
                self.n_static += 1;
                true
            }
        }
    }

    /// Removes a static entry. `Ok(true)` if it was there; an entry that was learned is an error.
    pub fn remove_static(&mut self, mac: Mac, vlan: u16) -> bool {
        let key = (vlan, mac);
        match self.entries.get(&key) {
            Some(slot) if slot.expires.is_none() => {
                self.remove(key);
                true
            }
            _ => false,
        }
    }

    /// Drops entries whose time has come, and those beyond the limit. Returns their addresses.
    pub fn run(&mut self, now: Instant) -> Vec<Mac> {
        // The order of use is that of expiry, static entries aside.
        let mut gone = Vec::new();
        for key in self.lru.values() {
            match self.entries[key].expires {
                None => {}
                Some(e) if e <= now.as_secs() => gone.push(*key),
                Some(_) => break,
            }
        }
        for key in &gone {
            self.remove(*key);
            self.stats.expired += 1;
        }
        let mut gone: Vec<Mac> = gone.into_iter().map(|(_, mac)| mac).collect();
        while self.entries.len() > self.max_entries
            && let Some(mac) = self.evict()
        {
            gone.push(mac);
        }
        gone
    }

    /// When [`Self::run`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let expires = self.lru.values().find_map(|k| self.entries[k].expires)?;
        Some(Instant::from_ms(expires.saturating_mul(1000)))
    }

    /// Forgets everything that was learned. Returns whether there was anything.
    pub fn flush(&mut self) -> bool {
        self.remove_if(|s| s.expires.is_some())
    }

    /// Forgets what is behind a port. Returns whether there was anything.
    pub fn flush_port(&mut self, port: P) -> bool {
        self.remove_if(|s| s.port == port)
    }

    fn remove_if(&mut self, gone: impl Fn(&Slot<P>) -> bool) -> bool {
        let keys: Vec<Key> = self.entries.iter().filter(|(_, s)| gone(s)).map(|(k, _)| *k).collect();
        for key in &keys {
            self.remove(*key);
        }
        !keys.is_empty()
    }

    /// All entries, least recently used first.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = MacEntry<P>> + '_ {
        self.lru.values().map(move |key| {
            let slot = &self.entries[key];
            MacEntry { mac: key.1, vlan: key.0, port: slot.port, age: self.age(slot, now) }
        })
    }

    fn lock(&mut self, key: Key, now_s: u64) {
        if let Some(slot) = self.entries.get_mut(&key) {
            slot.grat_arp_lock = now_s + GRAT_ARP_LOCK_SECS;
        }
    }

    fn insert(&mut self, key: Key, mut slot: Slot<P>) {
        slot.used = self.next_use;
        self.next_use += 1;
        self.lru.insert(slot.used, key);
        self.ports.entry(slot.port).or_default().insert(slot.used);
        self.entries.insert(key, slot);
    }

    fn remove(&mut self, key: Key) {
        let Some(slot) = self.entries.remove(&key) else { return };
        if slot.expires.is_none() {
            self.n_static -= 1;
        }
        self.lru.remove(&slot.used);
        self.leave_port(slot.port, slot.used);
    }

    fn leave_port(&mut self, port: P, used: u64) {
        if let Some(uses) = self.ports.get_mut(&port) {
            uses.remove(&used);
            if uses.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    fn touch(&mut self, key: Key) {
        let Some(slot) = self.entries.get_mut(&key) else { return };
        let (port, old, new) = (slot.port, slot.used, self.next_use);
        slot.used = new;
        self.next_use += 1;
        self.lru.remove(&old);
        self.lru.insert(new, key);
        if let Some(uses) = self.ports.get_mut(&port) {
            uses.remove(&old);
            uses.insert(new);
        }
    }

    fn set_port(&mut self, key: Key, port: P) -> bool {
        let Some(slot) = self.entries.get_mut(&key) else { return false };
        if slot.port == port {
            return false;
        }
        let (old, used) = (slot.port, slot.used);
        slot.port = port;
        self.leave_port(old, used);
        self.ports.entry(port).or_default().insert(used);
        self.stats.moved += 1;
        true
    }

    /// Makes room for one more. Returns the addresses that had to go.
    fn make_room(&mut self) -> Vec<Mac> {
        let mut gone = Vec::new();
        while self.entries.len() >= self.max_entries
            && let Some(mac) = self.evict()
        {
            gone.push(mac);
        }
        gone
    }

    /// Takes the least recently used learned entry from the port that has most.
    fn evict(&mut self) -> Option<Mac> {
        let mut ports: Vec<&BTreeSet<u64>> = self.ports.values().collect();
        ports.sort_by_key(|uses| std::cmp::Reverse(uses.len()));
        let victim = ports
            .into_iter()
            .flat_map(|uses| uses.iter().map(|u| self.lru[u]))
            .find(|key| self.entries[key].expires.is_some());
        let key = victim?;
        self.remove(key);
        self.stats.evicted += 1;
        Some(key.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_ms(secs * 1000)
    }
    fn mac(n: u64) -> Mac {
        Mac::from_u64(0x5054_0000_0000 + n)
    }

    #[test]
    fn learns_moves_and_ages() {
        let mut t = MacLearning::new();
        assert!(!t.update(mac(1), 0, 'a', false, false, at(10)).is_empty());
        assert!(t.update(mac(1), 0, 'a', false, false, at(11)).is_empty());
        assert_eq!(t.entries(at(13)).next().unwrap().age, Some(2));
        assert!(!t.update(mac(1), 0, 'b', false, false, at(20)).is_empty());
        assert_eq!((t.lookup(mac(1), 0), t.lookup(mac(1), 5)), (Some('b'), None));
        assert_eq!(t.deadline(), Some(at(320)));
        assert!(t.run(at(319)).is_empty());
        assert_eq!(t.run(at(320)), [mac(1)]);
        assert_eq!(t.stats(), MacStats { learned: 1, expired: 1, evicted: 0, moved: 1 });
    }

    #[test]
    fn groups_and_flood_vlans_are_not_learned() {
        let mut t = MacLearning::new();
        assert!(t.update(Mac::BROADCAST, 0, 'a', false, false, at(0)).is_empty());
        assert!(t.set_flood_vlans(&[7]) && !t.set_flood_vlans(&[7]));
        assert!(t.update(mac(1), 7, 'a', false, false, at(0)).is_empty());
        assert!(!t.update(mac(1), 8, 'a', false, false, at(0)).is_empty());
    }

    #[test]
    fn the_greediest_port_pays_for_the_limit() {
        let mut t = MacLearning::new();
        t.set_max_entries(10);
        t.update(mac(100), 0, 'b', false, false, at(0));
        for n in 0..20 {
            t.update(mac(n), 0, 'a', false, false, at(1));
        }
        assert_eq!((t.len(), t.lookup(mac(100), 0)), (10, Some('b')));
        assert_eq!((t.lookup(mac(10), 0), t.lookup(mac(11), 0)), (None, Some('a')));
    }

    #[test]
    fn static_entries_stay() {
        let mut t = MacLearning::new();
        assert!(t.add_static(mac(1), 3, 'a'));
        assert!(t.update(mac(1), 3, 'b', false, false, at(1000)).is_empty());
        assert!(t.run(at(100_000)).is_empty() && !t.flush());
        assert_eq!((t.lookup(mac(1), 3), t.n_static()), (Some('a'), 1));
        assert!(t.remove_static(mac(1), 3) && !t.remove_static(mac(1), 3));
        assert_eq!(t.n_static(), 0);
    }

    #[test]
    fn reflected_gratuitous_arp_is_ignored_for_a_while() {
        let mut t = MacLearning::new();
        t.update(mac(1), 0, 'p', true, false, at(10));
        assert!(t.update(mac(1), 0, 'b', true, true, at(12)).is_empty());
        assert_eq!(t.lookup(mac(1), 0), Some('p'));
        assert!(!t.update(mac(1), 0, 'b', true, true, at(15)).is_empty());
    }
}
