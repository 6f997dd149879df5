//! Choosing what a new connection's address and port become.
//!
//! [`choose`] goes through addresses, and for protocols with ports through ports, from a start that a hash gives, until it finds a
//! reply direction that nobody has. A source port is kept if it can be; else another one of its class takes its place (RFC
//! 4787, 4.2.2: privileged ports stay privileged). The search is bounded by [`MAX_TRIES`].

use ib_dpif::ct_saved::CtNat;
use ib_dpif::{NatAction, NatRange};
use ib_packet::Be128;

use crate::key::Key;

/// Most tuples looked at for one connection.
pub const MAX_TRIES: u32 = 20_000;

/// So many ports are all tried; of more [`RUNS`] runs of [`RUN`] ports are.
const FEW_PORTS: u32 = 1024;
const RUN: u32 = 16;
const RUNS: u32 = 8;

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Translated {
    /// None.
    #[default]
    Neither,
    /// Source.
    Source,
    /// Destination.
    Destination,
}

impl Translated {
    pub(crate) fn saved(self) -> CtNat {
        match self {
            Translated::Neither => CtNat::None,
            Translated::Source => CtNat::Source,
            Translated::Destination => CtNat::Destination,
        }
    }
    pub(crate) fn restored(saved: CtNat) -> Translated {
        match saved {
            CtNat::None => Translated::Neither,
            CtNat::Source => Translated::Source,
            CtNat::Destination => Translated::Destination,
        }
    }
}

/// Which end an action translates.
pub fn translated(nat: Option<&NatAction>, v6: bool) -> Translated {
    // Addresses of the other family translate nothing.
    let fits = |r: &NatRange| r.addrs.is_none() || r.v6 == v6;
    match nat {
        Some(NatAction::Src(r)) if fits(r) => Translated::Source,
        Some(NatAction::Dst(r)) if fits(r) => Translated::Destination,
        _ => Translated::Neither,
    }
}

/// Numbers of a ring, `start` first.
#[derive(Clone, Copy)]
struct Ring {
    low: u16,
    len: u32,
    at: u32,
}

impl Ring {
    fn of(low: u16, high: u16, start: u32) -> Ring {
        let (low, high) = (low.min(high), low.max(high));
        let len = u32::from(high - low) + 1;
        Ring { low, len, at: start % len }
    }
    fn get(self, i: u32) -> u16 {
        self.low.wrapping_add(((self.at + i) % self.len) as u16)
    }
}

/// In which order `len` ports are tried. All of them if there are few. Of many the first ones, then runs here and there:
/// where a run of neighbours is taken, the next ones mostly are, and a search must end.
fn search(len: u32, random: u32) -> impl Iterator<Item = u32> {
    let few = len <= FEW_PORTS;
    let first = if few { len } else { RUN };
    let later = (1..if few { 1 } else { RUNS }).flat_map(move |i| {
        // Multiplicative hashing (Knuth, 6.4) of different numbers.
        let from = random.wrapping_add(i).wrapping_mul(0x9e37_79b1) % len.max(1);
        (0..RUN).map(move |n| (from + n) % len)
    });
    (0..first).chain(later)
}

/// A kept port, and behind it those that may take its place.
fn same_class(port: u16) -> Ring {
    let (low, high) = match port {
        0..=511 => (1, 511),
        512..=1023 => (600, 1023),
        _ => (1024, 65535),
    };
    Ring::of(low, high, u32::from(port.max(low) - low))
}

/// The reply direction for a new connection `orig`, one for which `free` holds. `hash` is stable for the connection, `random` is not.
///
/// `None`: everything is taken.
pub fn choose(
    orig: &Key,
    nat: &NatAction,
    hash: u32,
    random: u32,
    mut free: impl FnMut(&Key) -> bool,
) -> Option<Key> {
    let plain = orig.reversed();
    let (range, source) = match nat {
        NatAction::Existing => return free(&plain).then_some(plain),
        NatAction::Src(r) => (r, true),
        NatAction::Dst(r) => (r, false),
    };
    let seed = if range.random { random } else { hash };
    let kept = if source { orig.src } else { orig.dst };
    // All zeros: keep the address, but find a port if there is a conflict.
    let (low, high) = range.addrs.filter(|(a, _)| !a.is_zero()).unwrap_or((kept, kept));
    let (low, high) = (low.get().min(high.get()), low.get().max(high.get()));
    let span = (high - low).saturating_add(1);
    let start = u128::from(seed) % span;
    let mut tries = 0;
    let mut i: u128 = 0;
    while i < span {
        let addr = Be128::new(low + (start + i) % span);
        i += 1;
        let mut reply = plain;
        if source {
            reply.dst = addr
        } else {
            reply.src = addr
        }
        if !orig.has_ports() {
            tries += 1;
            if free(&reply) {
                return Some(reply);
            }
            if tries >= MAX_TRIES {
                return None;
            }
            continue;
        }
        let wanted = range.ports.map(|(a, b)| Ring::of(a, b, seed));
        let keep = |p: u16| Ring { low: p, len: 1, at: 0 };
        let dports = if source { keep(orig.dport) } else { wanted.unwrap_or(keep(orig.dport)) };
        let sports = match wanted {
            Some(ring) if source => ring,
            _ => same_class(orig.sport),
        };
        // The original source port goes first, with each destination port.
        for s in search(sports.len, random) {
            for d in 0..dports.len {
                let sport = if s == 0 && !(source && wanted.is_some()) { orig.sport } else { sports.get(s) };
                (reply.sport, reply.dport) = (dports.get(d), sport);
                if free(&reply) {
                    return Some(reply);
                }
                tries += 1;
                if tries >= MAX_TRIES {
                    return None;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orig() -> Key {
        Key {
            src: Be128::new(1),
            dst: Be128::new(2),
            sport: 1000,
            dport: 80,
            id: 0,
            zone: 0,
            proto: 6,
            v6: false,
        }
    }

    fn range(addrs: Option<(u128, u128)>, ports: Option<(u16, u16)>) -> NatRange {
        NatRange { addrs: addrs.map(|(a, b)| (Be128::new(a), Be128::new(b))), ports, ..NatRange::default() }
    }

    #[test]
    fn keeps_the_port_until_it_is_taken() {
        let nat = NatAction::Src(range(Some((9, 9)), None));
        let r = choose(&orig(), &nat, 5, 0, |_| true).unwrap();
        assert_eq!((r.src.get(), r.dst.get(), r.sport, r.dport), (2, 9, 80, 1000));
        let r = choose(&orig(), &nat, 5, 0, |k| k.dport != 1000).unwrap();
        assert_eq!(r.dport, 1001);
    }

    #[test]
    fn ranges_are_used_up_whole() {
        let nat = NatAction::Src(range(Some((9, 10)), Some((5, 6))));
        let mut used = Vec::new();
        while let Some(k) = choose(&orig(), &nat, 3, 0, |k| !used.contains(k)) {
            assert!((9..=10).contains(&k.dst.get()) && (5..=6).contains(&k.dport));
            used.push(k);
        }
        assert_eq!(used.len(), 4);
        let nat = NatAction::Dst(range(Some((7, 7)), Some((99, 99))));
        let r = choose(&orig(), &nat, 3, 0, |_| true).unwrap();
        assert_eq!((r.src.get(), r.sport, r.dst.get(), r.dport), (7, 99, 1, 1000));
    }

    #[test]
    fn a_search_among_many_ports_is_short_and_stays_among_them() {
        assert!(search(3, 9).eq(0..3));
        let tried: Vec<u32> = search(64_512, 12_345).collect();
        assert_eq!(tried.len(), 128);
        assert!(tried[..16].iter().copied().eq(0..16) && tried.iter().all(|i| *i < 64_512));
        assert!(tried[16] != 16 && tried[32] != tried[16] + 16);
    }

    #[test]
    fn huge_ranges_end() {
        let nat = NatAction::Src(NatRange { v6: true, ..range(Some((1, u128::MAX)), None) });
        assert_eq!(choose(&orig(), &nat, 3, 0, |_| false), None);
        let ping = Key { proto: 58, v6: true, ..orig() };
        assert_eq!(choose(&ping, &nat, 3, 0, |_| false), None);
        let zero = NatAction::Src(range(Some((0, 0)), None));
        assert_eq!(choose(&orig(), &zero, 3, 0, |_| true), Some(orig().reversed()));
    }
}
