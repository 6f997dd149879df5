//! Multicast snooping: which ports want which IP multicast groups, and behind which ports are multicast routers
//! (RFC 4541).
//!
//! Per VLAN and group the table keeps the ports that joined it, each with its own age; beside it the ports on which queries were
//! seen, and ports that the administrator has flagged: *flood* ports get all multicast, *report* ports all reports. A router's
//! port and a flood port get everything anyway, so that groups are not learned behind them: a packet must not leave
//! twice.
//!
//! The table is bounded: the group that was refreshed least recently gives way. Methods that may change where packets
//! go return whether they did. A lookup costs one hash, a report one more; proportional to the table are
//! flushing, configuration and, once a second, ageing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv6Addr;

use ib_base::time::Instant;

use crate::mcast_messages::Change;

/// Idle time of a group unless configured.
pub const DEFAULT_IDLE_SECS: u32 = 300;
/// Groups unless configured.
pub const DEFAULT_MAX_GROUPS: usize = 2048;
/// How long a port counts as a router's after a query.
pub const ROUTER_IDLE_SECS: u64 = 180;

/// The protocol by which a port joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 1112.
    IgmpV1,
    /// RFC 2236.
    IgmpV2,
    /// RFC 3376.
    IgmpV3,
    /// RFC 2710.
    MldV1,
    /// RFC 3810.
    MldV2,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] =
        [Protocol::IgmpV1, Protocol::IgmpV2, Protocol::IgmpV3, Protocol::MldV1, Protocol::MldV2];
    /// Its name in `mdb/show`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::IgmpV1 => "IGMPv1",
            Protocol::IgmpV2 => "IGMPv2",
            Protocol::IgmpV3 => "IGMPv3",
            Protocol::MldV1 => "MLDv1",
            Protocol::MldV2 => "MLDv2",
        }
    }
}

/// Settings of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Seconds after which a port that is silent about a group leaves it.
    pub idle_secs: u32,
    /// Most groups.
    pub max_groups: usize,
    /// Packets of groups that nobody joined go everywhere.
    pub flood_unregistered: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { idle_secs: DEFAULT_IDLE_SECS, max_groups: DEFAULT_MAX_GROUPS, flood_unregistered: true }
    }
}

/// A port in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<P> {
    /// The port.
    pub port: P,
    /// How it joined last.
    pub protocol: Protocol,
    /// Second in which it goes.
    expires: u64,
}

/// A port behind which there is a multicast router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router<P> {
    /// VLAN of its queries.
    pub vlan: u16,
    /// The port.
    pub port: P,
    expires: u64,
}

#[derive(Clone, Debug)]
struct Group<P> {
    /// Least recently refreshed first.
    members: Vec<Member<P>>,
    /// Order of use: the key in `lru`.
    used: u64,
}

type Key = (u16, Ipv6Addr);

/// The table; `P` names a port (or bundle of ports). See the module's description.
#[derive(Clone, Debug)]
pub struct McastSnooping<P> {
    config: Config,
    groups: HashMap<Key, Group<P>>,
    lru: BTreeMap<u64, Key>,
    next_use: u64,
    /// Least recently heard of first.
    routers: Vec<Router<P>>,
    flood_ports: Vec<P>,
    report_ports: Vec<P>,
    /// Second in which ages were last looked at.
    ran: u64,
}

impl<P: Copy + Eq + Hash> McastSnooping<P> {
    /// An empty table.
    pub fn new(config: Config) -> McastSnooping<P> {
        let mut table = McastSnooping {
            config: Config::default(),
            groups: HashMap::new(),
            lru: BTreeMap::new(),
            next_use: 0,
            routers: Vec::new(),
            flood_ports: Vec::new(),
            report_ports: Vec::new(),
            ran: u64::MAX,
        };
        table.configure(config);
        table
    }

    /// Changes settings; members keep the age that they have. Returns whether forwarding changes.
    pub fn configure(&mut self, config: Config) -> bool {
        let config = Config {
            idle_secs: config.idle_secs.clamp(15, 3600),
            max_groups: config.max_groups.clamp(10, 1_000_000),
            ..config
        };
        let delta = i64::from(config.idle_secs) - i64::from(self.config.idle_secs);
        for member in self.groups.values_mut().flat_map(|g| &mut g.members) {
            member.expires = member.expires.saturating_add_signed(delta);
        }
        let news = config.flood_unregistered != self.config.flood_unregistered;
        self.config = config;
        news
    }
    /// Settings in force.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Flags ports by the administrator's wish. Returns whether that was a change.
    pub fn set_flagged(&mut self, flood: Vec<P>, reports: Vec<P>) -> bool {
        let news = flood != self.flood_ports || reports != self.report_ports;
        self.flood_ports = flood;
        self.report_ports = reports;
        news
    }
    /// Ports that get all multicast.
    pub fn flood_ports(&self) -> &[P] {
        &self.flood_ports
    }
    /// Ports that get all reports.
    pub fn report_ports(&self) -> &[P] {
        &self.report_ports
    }
    /// Ports with routers.
    pub fn routers(&self) -> &[Router<P>] {
        &self.routers
    }
    /// Who wants a group.
    pub fn members(&self, group: Ipv6Addr, vlan: u16) -> Option<&[Member<P>]> {
        self.groups.get(&(vlan, group)).map(|g| g.members.as_slice())
    }
    /// Number of groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }
    /// No groups.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All members: VLAN, group, member, its age in seconds; groups refreshed least recently come first.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = (u16, Ipv6Addr, Member<P>, u64)> + '_ {
        self.lru.values().flat_map(move |key| {
            self.groups[key].members.iter().map(move |m| {
                let left = m.expires.saturating_sub(now.as_secs());
                (key.0, key.1, *m, u64::from(self.config.idle_secs).saturating_sub(left))
            })
        })
    }
    /// Seconds since a router's last query.
    pub fn router_age(&self, router: &Router<P>, now: Instant) -> u64 {
        ROUTER_IDLE_SECS.saturating_sub(router.expires.saturating_sub(now.as_secs()))
    }

    /// Applies what a message on `port` asks for. The first result tells whether anything was there to do
    /// (a new group, a port that left), the second whether forwarding changes.
    pub fn apply(&mut self, change: Change, vlan: u16, port: P, now: Instant) -> (bool, bool) {
        match change {
            Change::Join(group, protocol) => self.join(group, vlan, port, protocol, now),
            Change::Leave(group) => {
                let left = self.leave(group, vlan, port);
                (left, left)
            }
        }
    }

    fn join(
        &mut self,
        group: Ipv6Addr,
        vlan: u16,
        port: P,
        protocol: Protocol,
        now: Instant,
    ) -> (bool, bool) {
        // Those get every packet anyway.
        if self.flood_ports.contains(&port) || self.routers.iter().any(|r| (r.vlan, r.port) == (vlan, port)) {
            return (false, false);
        }
        let key = (vlan, group);
        let is_new = !self.groups.contains_key(&key);
        if is_new {
            while self.groups.len() >= self.config.max_groups && self.evict() {}
            self.groups.insert(key, Group { members: Vec::new(), used: self.next_use });
            ib_base::coverage::mcast_snooping_learned.inc();
        }
        let expires = now.as_secs() + u64::from(self.config.idle_secs);
        let Some(slot) = self.groups.get_mut(&key) else { return (false, false) };
        let before = slot.members.len();
        slot.members.retain(|m| m.port != port);
        let was_member = slot.members.len() != before;
        slot.members.push(Member { port, protocol, expires });
        self.lru.remove(&slot.used);
        slot.used = self.next_use;
        self.next_use += 1;
        self.lru.insert(slot.used, key);
        (is_new, !was_member)
    }

    /// Returns whether the port was there and left.
    fn leave(&mut self, group: Ipv6Addr, vlan: u16, port: P) -> bool {
        // There is more than one host behind a port that takes reports: those that stay would be cut off.
        if self.report_ports.contains(&port) {
            return false;
        }
        let key = (vlan, group);
        let Some(slot) = self.groups.get_mut(&key) else { return false };
        let before = slot.members.len();
        slot.members.retain(|m| m.port != port);
        let left = slot.members.len() != before;
        if slot.members.is_empty() {
            self.remove(key);
        }
        left
    }

    /// A query came in by `port`. Returns whether its router is news.
    pub fn query(&mut self, vlan: u16, port: P, now: Instant) -> bool {
        if self.flood_ports.contains(&port) {
            return false;
        }
        let before = self.routers.len();
        self.routers.retain(|r| (r.vlan, r.port) != (vlan, port));
        let known = self.routers.len() != before;
        self.routers.push(Router { vlan, port, expires: now.as_secs() + ROUTER_IDLE_SECS });
        !known
    }

    /// Drops what has become too old. Returns whether there was anything.
    pub fn run(&mut self, now: Instant) -> bool {
        let now_s = now.as_secs();
        if std::mem::replace(&mut self.ran, now_s) == now_s {
            return false;
        }
        let before = self.routers.len();
        self.routers.retain(|r| r.expires > now_s);
        let mut any = self.routers.len() != before;
        let mut gone = Vec::new();
        for key in self.lru.values() {
            let Some(group) = self.groups.get_mut(key) else { continue };
            let before = group.members.len();
            group.members.retain(|m| m.expires > now_s);
            any |= group.members.len() != before;
            if group.members.is_empty() {
                gone.push(*key);
            }
        }
        for key in gone {
            self.remove(key);
            ib_base::coverage::mcast_snooping_expired.inc();
        }
        while self.groups.len() > self.config.max_groups && self.evict() {
            any = true;
        }
        any
    }

    /// When [`Self::run`] next has something to do, to the second; `now` is the time of asking.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let busy = !self.groups.is_empty() || !self.routers.is_empty();
        busy.then(|| Instant::from_ms((now.as_secs() + 1) * 1000))
    }

    /// Forgets all groups and routers. Returns whether there were any.
    pub fn flush(&mut self) -> bool {
        let any = !self.groups.is_empty() || !self.routers.is_empty();
        self.groups.clear();
        self.lru.clear();
        self.routers.clear();
        any
    }

    /// Forgets a port. Returns whether it was known.
    pub fn flush_port(&mut self, port: P) -> bool {
        let mut any = false;
        let mut empty = BTreeSet::new();
        for (key, group) in &mut self.groups {
            let before = group.members.len();
            group.members.retain(|m| m.port != port);
            any |= group.members.len() != before;
            if group.members.is_empty() {
                empty.insert(*key);
            }
        }
        for key in empty {
            self.remove(key);
        }
        let before = self.routers.len();
        self.routers.retain(|r| r.port != port);
        any |= self.routers.len() != before;
        self.flood_ports.retain(|p| *p != port);
        self.report_ports.retain(|p| *p != port);
        any
    }

    fn remove(&mut self, key: Key) {
        if let Some(group) = self.groups.remove(&key) {
            self.lru.remove(&group.used);
        }
    }

    fn evict(&mut self) -> bool {
        let Some(key) = self.lru.values().next().copied() else { return false };
        self.remove(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_ms(secs * 1000)
    }
    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff08, 0, 0, 0, 0, 0, 0, n)
    }
    fn join(n: u16) -> Change {
        Change::Join(group(n), Protocol::MldV1)
    }
    fn ports(t: &McastSnooping<char>, n: u16) -> String {
        t.members(group(n), 0).unwrap_or_default().iter().map(|m| m.port).collect()
    }

    #[test]
    fn ports_join_and_leave() {
        let mut t = McastSnooping::new(Config::default());
        assert_eq!(t.apply(join(1), 0, 'a', at(10)), (true, true));
        assert_eq!(t.apply(join(1), 0, 'b', at(11)), (false, true));
        assert_eq!(t.apply(join(1), 0, 'a', at(12)), (false, false));
        assert_eq!((ports(&t, 1).as_str(), t.members(group(1), 5)), ("ba", None));
        assert_eq!(t.apply(Change::Leave(group(1)), 0, 'a', at(13)), (true, true));
        assert_eq!(t.apply(Change::Leave(group(1)), 0, 'a', at(13)), (false, false));
        assert_eq!(ports(&t, 1), "b");
        assert_eq!(t.apply(Change::Leave(group(1)), 0, 'b', at(13)), (true, true));
        assert!(t.is_empty());
    }

    #[test]
    fn members_and_routers_age() {
        let mut t = McastSnooping::new(Config { idle_secs: 20, ..Config::default() });
        t.apply(join(1), 0, 'a', at(10));
        t.apply(join(1), 0, 'b', at(15));
        assert!(t.query(0, 'r', at(10)) && !t.query(0, 'r', at(11)));
        assert_eq!(t.entries(at(18)).map(|e| e.3).collect::<Vec<_>>(), [8, 3]);
        assert!(!t.run(at(29)));
        assert!(t.run(at(30)));
        assert_eq!(ports(&t, 1), "b");
        assert!(t.run(at(35)) && t.is_empty());
        assert_eq!(t.deadline(at(35)), Some(at(36)));
        assert!(!t.run(at(190)) && t.run(at(191)) && t.routers().is_empty());
        assert_eq!(t.deadline(at(191)), None);
    }

    #[test]
    fn the_oldest_group_gives_way() {
        let mut t = McastSnooping::new(Config { max_groups: 10, ..Config::default() });
        for n in 0..10 {
            t.apply(join(n), 0, 'a', at(1));
        }
        t.apply(join(0), 0, 'a', at(2));
        t.apply(join(10), 0, 'a', at(2));
        assert_eq!((t.len(), ports(&t, 0).as_str(), ports(&t, 1).as_str()), (10, "a", ""));
    }

    #[test]
    fn flagged_ports_and_routers_need_no_groups() {
        let mut t = McastSnooping::new(Config::default());
        assert!(t.set_flagged(vec!['f'], vec!['r']) && !t.set_flagged(vec!['f'], vec!['r']));
        t.query(0, 'q', at(0));
        assert!(!t.query(0, 'f', at(0)));
        assert_eq!(t.apply(join(1), 0, 'f', at(0)), (false, false));
        assert_eq!(t.apply(join(1), 0, 'q', at(0)), (false, false));
        assert_eq!(t.apply(join(1), 7, 'q', at(0)), (true, true));
        assert_eq!(t.apply(join(1), 0, 'r', at(0)), (true, true));
        assert_eq!(t.apply(Change::Leave(group(1)), 0, 'r', at(0)), (false, false));
        assert!(t.flush_port('r') && !t.flush_port('r') && t.report_ports().is_empty());
    }
}
