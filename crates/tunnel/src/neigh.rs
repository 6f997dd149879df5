//! Who has which address: the neighbours of tunnel underlays, by bridge.
//!
//! Entries come from ARP and neighbour advertisements that pass a bridge's own port, or from `tnl/neigh/set`. They age:
//! one that was not confirmed for the idle time goes. Lookups take a read lock.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use ib_base::time::Instant;
use ib_packet::Mac;

use crate::unmapped;

/// How long an entry lives without confirmation, seconds.
pub const DEFAULT_AGING_S: u32 = 900;
/// Most that may be configured.
pub const MAX_AGING_S: u32 = 3600;
/// Entries of all bridges: whoever sends forged advertisements fills no more than this.
pub const MAX_ENTRIES: usize = 65_536;
/// Bridge names are shown, and told apart, up to this length.
const MAX_NAME: usize = 15;

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    mac: Mac,
    /// Clock milliseconds.
    expires_ms: u64,
}

/// The table; see the module.
#[derive(Debug)]
pub struct Neighbours {
    entries: BTreeMap<(String, Ipv6Addr), Neighbour>,
    aging_s: u32,
}

impl Default for Neighbours {
    fn default() -> Self {
        Neighbours { entries: BTreeMap::new(), aging_s: DEFAULT_AGING_S }
    }
}

fn key(bridge: &str, ip: Ipv6Addr) -> (String, Ipv6Addr) {
    (bridge.chars().take(MAX_NAME).collect(), ip)
}

impl Neighbours {
    /// Learns an address; whether that is news.
    pub fn set(&mut self, bridge: &str, ip: Ipv6Addr, mac: Mac, now: Instant) -> bool {
        let expires_ms = now.as_ms() + u64::from(self.aging_s) * 1000;
        let full = self.entries.len() >= MAX_ENTRIES;
        match self.entries.get_mut(&key(bridge, ip)) {
            Some(n) => {
                let news = n.mac != mac;
                *n = Neighbour { mac, expires_ms };
                news
            }
            None if full => false,
            None => {
                self.entries.insert(key(bridge, ip), Neighbour { mac, expires_ms });
                true
            }
        }
    }

    /// Learned addresses of a bridge, with the time that they have left, ms.
    pub fn entries<'a>(
        &'a self,
        bridge: &str,
        now: Instant,
    ) -> impl Iterator<Item = (Ipv6Addr, Mac, u64)> + 'a {
        let name = key(bridge, Ipv6Addr::UNSPECIFIED).0;
        let of_bridge = self.entries.iter().filter(move |((b, _), _)| *b == name);
        of_bridge.filter_map(move |((_, ip), n)| {
            let left_ms = n.expires_ms.checked_sub(now.as_ms()).filter(|left| *left > 0)?;
            Some((*ip, n.mac, left_ms))
        })
    }

    /// Takes over an address that another table had for this long yet; whether that is news. It gets no more time than one that is learned.
    pub fn take_over(&mut self, bridge: &str, ip: Ipv6Addr, mac: Mac, left_ms: u64, now: Instant) -> bool {
        let news = self.set(bridge, ip, mac, now);
        if let Some(n) = self.entries.get_mut(&key(bridge, ip)) {
            n.expires_ms = n.expires_ms.min(now.as_ms().saturating_add(left_ms));
        }
        news
    }

    /// Whether learning this would change nothing but, perhaps, the age.
    pub fn knows(&self, bridge: &str, ip: Ipv6Addr, mac: Mac, now: Instant) -> bool {
        let half_ms = u64::from(self.aging_s) * 500;
        self.entries
            .get(&key(bridge, ip))
            .is_some_and(|n| n.mac == mac && n.expires_ms > now.as_ms() + half_ms)
    }

    /// The Ethernet address behind an address.
    pub fn lookup(&self, bridge: &str, ip: Ipv6Addr, now: Instant) -> Option<Mac> {
        self.entries.get(&key(bridge, ip)).filter(|n| n.expires_ms > now.as_ms()).map(|n| n.mac)
    }

    /// Drops what is too old; whether there was any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, n| n.expires_ms > now.as_ms());
        before != self.entries.len()
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().map(|n| Instant::from_ms(n.expires_ms)).min()
    }

    /// Drops everything; whether there was any.
    pub fn flush(&mut self) -> bool {
        let any = !self.entries.is_empty();
        self.entries.clear();
        any
    }

    /// Idle time, seconds.
    pub fn aging_s(&self) -> u32 {
        self.aging_s
    }
    /// Sets the idle time, for entries that are there as well.
    pub fn set_aging_s(&mut self, secs: u32, now: Instant) {
        self.aging_s = secs;
        for n in self.entries.values_mut() {
            n.expires_ms = now.as_ms() + u64::from(secs) * 1000;
        }
    }

    /// `tnl/neigh/show`.
    pub fn show(&self, now: Instant) -> String {
        let mut out =
            String::from("IP                                            MAC                 Bridge\n");
        out.push_str("==========================================================================\n");
        let mut rows: Vec<(IpAddr, &str, &Neighbour)> =
            self.entries.iter().map(|((bridge, ip), n)| (unmapped(*ip), bridge.as_str(), n)).collect();
        rows.sort_by_key(|(ip, bridge, _)| (*ip, *bridge));
        for (ip, bridge, n) in rows {
            let stale = if n.expires_ms <= now.as_ms() { " STALE" } else { "" };
            let _ = writeln!(out, "{:<46}{:<20}{bridge}{stale}", ip.to_string(), n.mac.to_string());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapped;

    #[test]
    fn entries_go_to_another_table_with_their_age() {
        let (mut from, mut to) = (Neighbours::default(), Neighbours::default());
        let (ip, mac) = (mapped("1.1.2.92".parse().unwrap()), Mac([2, 0, 0, 0, 0, 1]));
        from.set("br0", ip, mac, Instant::from_ms(0));
        from.set("br1", ip, mac, Instant::from_ms(0));
        let now = Instant::from_ms(400_000);
        let all: Vec<_> = from.entries("br0", now).collect();
        assert_eq!(all, [(ip, mac, u64::from(DEFAULT_AGING_S) * 1000 - 400_000)]);
        assert!(to.take_over("br7", ip, mac, all[0].2, Instant::from_ms(5)));
        assert_eq!(to.entries("br7", Instant::from_ms(5)).collect::<Vec<_>>(), all);
        assert!(!to.take_over("br7", ip, mac, u64::MAX, Instant::from_ms(5)));
        assert_eq!(
            to.entries("br7", Instant::from_ms(5)).next().unwrap().2,
            u64::from(DEFAULT_AGING_S) * 1000
        );
        assert_eq!(from.entries("br0", Instant::from_ms(u64::from(DEFAULT_AGING_S) * 1000)).count(), 0);
    }

    #[test]
    fn entries_age_and_are_shown() {
        let (mut n, t0) = (Neighbours::default(), Instant::from_ms(1000));
        let ip = mapped("1.1.2.92".parse().unwrap());
        let mac: Mac = "f8:bc:12:44:34:b6".parse().unwrap();
        assert!(n.set("br0", ip, mac, t0));
        assert!(!n.set("br0", ip, mac, t0));
        assert_eq!((n.lookup("br0", ip, t0), n.lookup("br1", ip, t0)), (Some(mac), None));
        assert_eq!(
            n.show(t0),
            "IP                                            MAC                 Bridge\n\
             ==========================================================================\n\
             1.1.2.92                                      f8:bc:12:44:34:b6   br0\n"
        );
        n.set_aging_s(60, t0);
        assert!(!n.expire(t0.plus_ms(59_999)));
        assert_eq!(n.lookup("br0", ip, t0.plus_ms(60_000)), None);
        assert!(n.expire(t0.plus_ms(60_000)));
    }
}
