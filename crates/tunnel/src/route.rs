//! Routes: where outer packets leave, by which gateway, and under which address.
//!
//! Routes of users (`ovs/route/add`) stand beside those that the kernel has and those that come with addresses of dummy
//! devices ("cached"). They are in tables; rules, in order of their priority, say which table a lookup tries. Within a
//! table the route of highest priority wins: a longer prefix has a higher one, a user's route comes before a cached route of about
//! the same length, a local one before both. IPv4 is kept mapped into IPv6, so that there is one form of prefixes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use crate::unmapped;

/// The kernel's default table.
pub const TABLE_DEFAULT: u32 = 253;
/// The kernel's main table: where routes go unless said otherwise.
pub const TABLE_MAIN: u32 = 254;
/// The kernel's table of local addresses.
pub const TABLE_LOCAL: u32 = 255;
/// Those that are always there, in the order in which they are looked into.
const STANDARD_TABLES: [u32; 3] = [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT];

/// The tables that a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The local, the main and the default table.
    Standard,
    /// One table.
    One(u32),
    /// Every one.
    All,
}
/// Routes of users.
pub const MAX_USER_ROUTES: usize = 65_536;

/// A prefix with IPv4 mapped into IPv6: `len` counts from the first of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Bits behind `len` are zero.
    pub addr: Ipv6Addr,
    /// 0 to 128.
    pub len: u8,
}

fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len.min(128))) }
}

impl Prefix {
    /// Everything.
    pub const ALL: Prefix = Prefix { addr: Ipv6Addr::UNSPECIFIED, len: 0 };

    /// The prefix of `ip` with `len` bits of its own family.
    pub fn new(ip: IpAddr, len: u8) -> Prefix {
        let len = if ip.is_ipv4() { len.min(32) + 96 } else { len.min(128) };
        let bits = crate::mapped(ip).to_bits() & mask(len);
        Prefix { addr: Ipv6Addr::from_bits(bits), len }
    }
    /// `IP/LEN`, or `IP` alone.
    pub fn parse(text: &str) -> Option<Prefix> {
        let (ip, len) = text.split_once('/').map_or((text, None), |(i, l)| (i, Some(l)));
        let ip: IpAddr = ip.parse().ok()?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let len = match (len, ip) {
            (None, _) => max,
            (Some(l), IpAddr::V4(_)) if l.contains('.') => {
                let bits = l.parse::<std::net::Ipv4Addr>().ok()?.to_bits();
                (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)?
            }
            (Some(l), _) => l.parse::<u8>().ok().filter(|l| *l <= max)?,
        };
        Some(Prefix::new(ip, len))
    }
    /// Whether an address is in it.
    pub fn contains(&self, ip: Ipv6Addr) -> bool {
        ip.to_bits() & mask(self.len) == self.addr.to_bits()
    }
    /// Its length in its own family: 0 to 32, or 0 to 128.
    pub fn own_len(&self) -> u8 {
        if self.is_v4() { self.len - 96 } else { self.len }
    }
    /// Whether it is one of IPv4 addresses.
    pub fn is_v4(&self) -> bool {
        self.len >= 96 && self.addr.to_ipv4_mapped().is_some()
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addr = if self.is_v4() { unmapped(self.addr) } else { IpAddr::V6(self.addr) };
        write!(f, "{addr}/{}", self.own_len())
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub prefix: Prefix,
    /// For packets with this mark only.
    pub mark: u32,
    /// Device, which is the name of a bridge for tunnels.
    pub dev: String,
    /// Next hop; unspecified: the destination itself.
    pub gateway: Ipv6Addr,
    /// Address of packets that leave.
    pub src: Ipv6Addr,
    /// To an address of our own.
    pub local: bool,
    /// By `ovs/route/add`.
    pub user: bool,
    /// Table.
    pub table: u32,
    /// Higher wins.
    pub priority: u32,
}

/// A rule: which table to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Lower comes first.
    pub priority: u32,
    /// Source addresses.
    pub from: Prefix,
    /// Those not in `from`.
    pub invert: bool,
    /// Table.
    pub table: u32,
    /// By `ovs/route/rule/add`.
    pub user: bool,
    /// For IPv6.
    pub v6: bool,
}

impl Rule {
    fn applies(&self, src: Option<Ipv6Addr>) -> bool {
        match src {
            _ if self.from.len == 0 => !self.invert,
            Some(src) => self.from.contains(src) != self.invert,
            None => false,
        }
    }
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Device.
    pub dev: String,
    /// Next hop; unspecified: the destination.
    pub gateway: Ipv6Addr,
    /// Source address.
    pub src: Ipv6Addr,
}

/// All routes and rules; see the module.
#[derive(Clone, Debug)]
pub struct Router {
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

/// The rules that every kernel begins with.
fn default_rules() -> Vec<Rule> {
    let rule =
        |priority, table, v6| Rule { priority, from: Prefix::ALL, invert: false, table, user: false, v6 };
    vec![
        rule(0, TABLE_LOCAL, false),
        rule(32_766, TABLE_MAIN, false),
        rule(32_767, TABLE_DEFAULT, false),
        rule(0, TABLE_LOCAL, true),
        rule(32_766, TABLE_MAIN, true),
    ]
}

impl Default for Router {
    fn default() -> Self {
        Router { routes: Vec::new(), rules: default_rules() }
    }
}

/// The priority of a route by its kind and prefix length.
pub fn priority(len: u8, user: bool, local: bool) -> u32 {
    u32::from(len)
        + if local {
            64
        } else if user {
            32
        } else {
            0
        }
}

impl Router {
    /// Adds a route; it takes the place of one for the same packets of the same priority.
    pub fn insert(&mut self, route: Route) {
        self.routes.retain(|r| {
            (r.prefix, r.mark, r.priority, r.table) != (route.prefix, route.mark, route.priority, route.table)
        });
        let at = self.routes.partition_point(|r| r.priority >= route.priority);
        self.routes.insert(at, route);
    }

    /// Number of routes that users added.
    pub fn n_user(&self) -> usize {
        self.routes.iter().filter(|r| r.user).count()
    }

    /// Removes a user's route; whether it was there.
    pub fn remove_user(&mut self, prefix: Prefix, mark: u32, table: u32) -> bool {
        let before = self.routes.len();
        self.routes.retain(|r| !(r.user && r.prefix == prefix && r.mark == mark && r.table == table));
        before != self.routes.len()
    }

    /// Replaces all cached routes; whether anything changed.
    pub fn set_cached(&mut self, cached: Vec<Route>) -> bool {
        let old = self.routes.clone();
        self.routes.retain(|r| r.user);
        for route in cached {
            self.insert(route);
        }
        old != self.routes
    }

    /// Replaces all cached rules; whether anything changed.
    pub fn set_cached_rules(&mut self, cached: Vec<Rule>) -> bool {
        let old = self.rules.clone();
        self.rules.retain(|r| r.user);
        for rule in cached {
            self.insert_rule(rule);
        }
        old != self.rules
    }

    /// Adds a rule behind others of its priority.
    pub fn insert_rule(&mut self, rule: Rule) {
        let at = self.rules.partition_point(|r| (r.v6, r.priority) <= (rule.v6, rule.priority));
        self.rules.insert(at, rule);
    }

    /// A priority for a rule that names none: one less than that of the last rule with a gap before it, as `ip rule`
    /// does among its own.
    pub fn free_priority(&self) -> u32 {
        let mut taken: Vec<u32> = self.rules.iter().map(|r| r.priority).filter(|p| *p != 0).collect();
        taken.sort_unstable();
        let gap_before = |at: &usize| *at == 0 || taken[*at] - taken[*at - 1] > 1;
        (0..taken.len()).rev().find(gap_before).map_or(0, |at| taken[at] - 1)
    }

    /// Removes the first rule of a user like this one (of any priority if its own is 0); whether it was there.
    pub fn remove_user_rule(&mut self, like: &Rule) -> bool {
        let found = self.rules.iter().position(|r| {
            r.user
                && (r.from, r.invert, r.table, r.v6) == (like.from, like.invert, like.table, like.v6)
                && (like.priority == 0 || like.priority == r.priority)
        });
        found.map(|at| self.rules.remove(at)).is_some()
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// The routes, the best first.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Devices that routes lead to.
    pub fn devices(&self) -> std::collections::BTreeSet<String> {
        self.routes.iter().map(|r| r.dev.clone()).collect()
    }

    fn in_table(&self, table: u32, mark: u32, dst: Ipv6Addr) -> Option<&Route> {
        // The local table is part of the main one for routes that came with devices, which know no table.
        self.routes.iter().find(|r| {
            let here = r.table == table || (table == TABLE_LOCAL && r.table == TABLE_MAIN && r.local);
            here && r.mark == mark && r.prefix.contains(dst)
        })
    }

    /// Whether somebody added routes by hand.
    pub fn has_user_routes(&self) -> bool {
        self.routes.iter().any(|r| r.user)
    }
    /// The route to `dst` for packets with `mark`, from `src` if that is given: an address of ours.
    pub fn lookup(&self, mark: u32, dst: Ipv6Addr, src: Option<Ipv6Addr>) -> Option<Found> {
        if let Some(src) = src {
            // An address that is not ours would be answered elsewhere.
            self.routes.iter().find(|r| r.prefix.contains(src) && r.mark == mark).filter(|r| r.local)?;
        }
        let v6 = dst.to_ipv4_mapped().is_none();
        let mut tried = Vec::new();
        for rule in self.rules.iter().filter(|r| r.v6 == v6 && r.applies(src)) {
            if tried.contains(&rule.table) {
                continue;
            }
            tried.push(rule.table);
            if let Some(r) = self.in_table(rule.table, mark, dst) {
                return Some(Found { dev: r.dev.clone(), gateway: r.gateway, src: src.unwrap_or(r.src) });
            }
        }
        None
    }

    /// Whether there is a table of this number: a standard one, or one that a route or a rule made.
    pub fn has_table(&self, id: u32) -> bool {
        STANDARD_TABLES.contains(&id) || self.routes.iter().any(|r| r.table == id)
    }

    /// The routes of some tables, table by table and the best first in each.
    pub fn shown(&self, which: Shown) -> impl Iterator<Item = &Route> {
        let tables = match which {
            Shown::Standard => STANDARD_TABLES.to_vec(),
            Shown::One(id) => vec![id],
            Shown::All => {
                let other = |id: &u32| !STANDARD_TABLES.contains(id);
                let mut others: Vec<u32> = self.routes.iter().map(|r| r.table).filter(other).collect();
                others.sort_unstable();
                others.dedup();
                [STANDARD_TABLES.to_vec(), others].concat()
            }
        };
        tables.into_iter().flat_map(|id| self.routes.iter().filter(move |r| r.table == id))
    }

    /// `ovs/route/show` of some tables.
    pub fn show(&self, which: Shown) -> String {
        let mut out = match which {
            Shown::One(id) if !STANDARD_TABLES.contains(&id) => format!("Route Table #{id}:\n"),
            Shown::Standard | Shown::One(_) => "Route Table:\n".to_owned(),
            Shown::All => String::new(),
        };
        for r in self.shown(which) {
            let _ = write!(out, "{}: {}", if r.user { "User" } else { "Cached" }, r.prefix);
            if r.mark != 0 {
                let _ = write!(out, " MARK {}", r.mark);
            }
            let _ = write!(out, " dev {}", r.dev);
            if !r.gateway.is_unspecified() {
                let _ = write!(out, " GW {}", unmapped(r.gateway));
            }
            let _ = write!(out, " SRC {}", unmapped(r.src));
            if r.local {
                out.push_str(" local");
            }
            if which == Shown::All && !STANDARD_TABLES.contains(&r.table) {
                let _ = write!(out, " table {}", r.table);
            }
            out.push('\n');
        }
        out
    }

    /// `ovs/route/rule/show` of one family.
    pub fn show_rules(&self, v6: bool) -> String {
        let names: BTreeMap<u32, &str> =
            [(TABLE_LOCAL, "local"), (TABLE_MAIN, "main"), (TABLE_DEFAULT, "default")].into();
        let mut out = String::new();
        for r in self.rules.iter().filter(|r| r.v6 == v6) {
            let owner = if r.user { "User" } else { "Cached" };
            let not = if r.invert { "not " } else { "" };
            // A prefix that is no single address is followed by two spaces, as in the original.
            let from = match r.from.len {
                0 => "all".to_owned(),
                128 => unmapped(r.from.addr).to_string(),
                _ => format!("{} ", r.from),
            };
            let table = names.get(&r.table).map_or_else(|| r.table.to_string(), |n| (*n).to_owned());
            let _ = writeln!(out, "{owner}: {}: {not}from {from} lookup {table}", r.priority);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapped;

    fn ip(text: &str) -> Ipv6Addr {
        mapped(text.parse().unwrap())
    }

    fn route(prefix: &str, dev: &str, gw: &str, src: &str) -> Route {
        let prefix = Prefix::parse(prefix).unwrap();
        Route {
            prefix,
            mark: 0,
            dev: dev.into(),
            gateway: ip(gw),
            src: ip(src),
            local: false,
            user: true,
            table: TABLE_MAIN,
            priority: priority(prefix.len, true, false),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_texts_are_known() {
        let mut r = Router::default();
        r.insert(route("0.0.0.0/0", "br1", "9.9.9.9", "9.9.9.1"));
        r.insert(route("1.1.2.92/24", "br0", "::", "1.1.2.88"));
        r.insert(route("2001:cafe::92/24", "br0", "::", "2001:cafe::88"));
        assert_eq!(
            r.show(Shown::Standard),
            "Route Table:\nUser: 1.1.2.0/24 dev br0 SRC 1.1.2.88\n\
             User: 0.0.0.0/0 dev br1 GW 9.9.9.9 SRC 9.9.9.1\nUser: 2001:ca00::/24 dev br0 SRC 2001:cafe::88\n"
        );
        assert_eq!(r.lookup(0, ip("1.1.2.5"), None).unwrap().dev, "br0");
        assert_eq!(r.lookup(0, ip("1.1.3.5"), None).unwrap().gateway, ip("9.9.9.9"));
        assert_eq!(r.lookup(5, ip("1.1.2.5"), None), None, "marks must agree");
        assert_eq!(r.lookup(0, ip("1.1.2.5"), Some(ip("1.1.2.88"))), None, "not known to be ours");
        let mut own = route("1.1.2.88/32", "br0", "::", "1.1.2.88");
        (own.local, own.user, own.priority) = (true, false, priority(128, false, true));
        assert!(r.set_cached(vec![own]));
        assert_eq!(r.lookup(0, ip("1.1.2.5"), Some(ip("1.1.2.88"))).unwrap().src, ip("1.1.2.88"));
        assert!(r.remove_user(Prefix::parse("1.1.2.0/24").unwrap(), 0, TABLE_MAIN));
        assert!(!r.remove_user(Prefix::parse("1.1.2.88/32").unwrap(), 0, TABLE_MAIN), "not a user's");
    }

    #[test]
    fn rules_choose_tables_by_source() {
        let mut r = Router::default();
        let mut other = route("10.0.0.0/8", "br7", "::", "10.0.0.1");
        other.table = 7;
        r.insert(other);
        assert_eq!(r.lookup(0, ip("10.1.1.1"), None), None);
        assert!(r.show(Shown::One(7)).starts_with("Route Table #7:\nUser: 10.0.0.0/8 dev br7"));
        assert!(r.show(Shown::All).contains(" table 7\n"));
        let rule = Rule { priority: 10, from: Prefix::ALL, invert: false, table: 7, user: true, v6: false };
        r.insert_rule(rule.clone());
        assert_eq!(r.lookup(0, ip("10.1.1.1"), None).unwrap().dev, "br7");
        assert!(r.show_rules(false).contains("User: 10: from all lookup 7\n"), "{}", r.show_rules(false));
        let other = Rule { priority: 11, ..rule.clone() };
        assert!(!r.remove_user_rule(&other) && r.remove_user_rule(&Rule { priority: 0, ..rule }));
    }
}
