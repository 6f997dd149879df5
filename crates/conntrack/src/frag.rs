//! Fragments: a datagram is tracked whole, and leaves in the fragments that it came in.
//!
//! Fragments wait in a list for each datagram until they are all there. Then [`Whole`] has the datagram put together, to be
//! tracked and translated, and [`Whole::split`] writes what has changed back into the fragments. Overlapping fragments (RFC 5722) and
//! those that are too small to be honest are invalid, and so is each one for which there is no room. Those of a datagram that is
//! not complete after [`TIMEOUT_MS`] leave as invalid ones too, behind the next packet that is tracked; if none comes for [`PURGE_MS`], they
//! are dropped. Memory is bounded by the most fragments that may be held.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::RandomState;
use ib_dpif::conntrack::{FragCounters, FragList, FragStatus};
use ib_packet::wire::Ipv4;
use ib_packet::wire::ipv4::{MORE_FRAGMENTS, OFFSET_MASK};
use ib_packet::{Be16, Be128, Packet};

use crate::key::network;

/// How long a datagram may take to arrive.
pub const TIMEOUT_MS: u64 = 15_000;
/// How long after that a packet may still take its fragments along.
pub const PURGE_MS: u64 = 10_000;
/// Bytes of an IPv6 header, and of its fragment header.
const V6_HEADER: usize = 40;
const V6_FRAGMENT: usize = 8;
/// Names of complete datagrams that may pile up before they are cleared away.
const ORDER_SLACK: usize = 1000;

/// Which datagram a fragment is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    src: Be128,
    dst: Be128,
    id: u32,
    recirc_id: u32,
    zone: u16,
    proto: u8,
    v6: bool,
}

struct Frag {
    packet: Packet,
    l3: usize,
    /// Its payload in the packet, and in the datagram.
    at: usize,
    offset: usize,
    len: usize,
    last: bool,
    /// How many of its datagram were there before.
    arrived: usize,
}

struct List {
    /// By offset, without overlap.
    frags: Vec<Frag>,
    deadline_ms: u64,
}

/// What became of a packet.
pub enum Outcome {
    /// It is to be tracked as it is: no fragment, or one that is invalid.
    AsIs(Packet),
    /// It waits for the others.
    Held,
    /// It was the one that was missing.
    Whole(Box<Whole>),
}

/// A datagram that is complete.
pub struct Whole {
    /// Put together; may be changed in place, but not in length.
    pub packet: Packet,
    frags: Vec<Frag>,
    v6: bool,
    l3: usize,
    l4: usize,
}

/// The fragments that wait, and the settings.
pub struct Fragments {
    lists: HashMap<Id, List, RandomState>,
    /// Oldest first.
    order: VecDeque<(u64, Id)>,
    /// Settings and counters.
    pub status: FragStatus,
}

impl Default for Fragments {
    fn default() -> Fragments {
        let counters = |min_size| FragCounters { enabled: true, min_size, ..FragCounters::default() };
        Fragments {
            lists: HashMap::default(),
            order: VecDeque::new(),
            status: FragStatus { max: 1000, held: 0, v4: counters(1200), v6: counters(1280) },
        }
    }
}

fn be16(d: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*d.get(at..)?.first_chunk()?))
}

/// Whether this is a fragment; cheap.
pub fn is_fragment(packet: &Packet) -> bool {
    let Some((l3, v6)) = network(packet) else { return false };
    let Some(ip) = packet.data().get(l3..) else { return false };
    if v6 {
        ip.get(6) == Some(&44) && be16(ip, V6_HEADER + 2).is_some_and(|f| f & 0xfff9 != 0)
    } else {
        be16(ip, 6).is_some_and(|f| f & (MORE_FRAGMENTS | OFFSET_MASK) != 0)
    }
}

/// Reads a fragment's headers.
fn dissect(packet: &Packet, recirc_id: u32, zone: u16) -> Option<(Id, Frag, usize)> {
    let (l3, v6) = network(packet)?;
    let ip = packet.data().get(l3..)?;
    if !packet.offload.is_plain() {
        return None;
    }
    let frag = |header: usize, size: usize, units: u16, more: bool| Frag {
        packet: Packet::with_capacity(0),
        l3,
        at: l3 + header,
        offset: usize::from(units) * 8,
        len: size - header,
        last: !more,
        arrived: 0,
    };
    let (id, frag, size) = if v6 {
        let size = V6_HEADER + usize::from(be16(ip, 4)?);
        if ip[0] >> 4 != 6 || size > ip.len() || size < V6_HEADER + V6_FRAGMENT {
            return None;
        }
        let bits = be16(ip, V6_HEADER + 2)?;
        let number = u32::from_be_bytes(*ip.get(V6_HEADER + 4..)?.first_chunk()?);
        let address = |at: usize| Some(Be128::from_bytes(*ip.get(at..)?.first_chunk()?));
        let (src, dst) = (address(8)?, address(24)?);
        // Fragments of one datagram may differ in this protocol, RFC 8200 says; nobody's do.
        let id = Id { src, dst, id: number, recirc_id, zone, proto: ip[V6_HEADER], v6 };
        (id, frag(V6_HEADER + V6_FRAGMENT, size, bits >> 3, bits & 1 != 0), size)
    } else {
        let h = Ipv4::new_checked(ip).ok().filter(|h| h.is_valid() && h.checksum_ok())?;
        let address = |a: ib_packet::Be32| Be128::new(a.get().into());
        let id = Id {
            src: address(h.src()),
            dst: address(h.dst()),
            id: h.id().get().into(),
            recirc_id,
            zone,
            proto: h.protocol(),
            v6,
        };
        let bits = h.frag().get();
        let size = usize::from(h.total_len().get());
        let more = bits & MORE_FRAGMENTS != 0;
        (id, frag(h.header_len(), size, bits & OFFSET_MASK, more), size)
    };
    let fits = frag.len > 0 && frag.offset + frag.len <= 0xffff;
    fits.then_some((id, frag, size))
}

impl Fragments {
    fn counters(&mut self, v6: bool) -> &mut FragCounters {
        if v6 { &mut self.status.v6 } else { &mut self.status.v4 }
    }

    /// Takes a packet; see [`Outcome`].
    pub fn take(&mut self, packet: Packet, recirc_id: u32, zone: u16, now_ms: u64) -> Outcome {
        if !is_fragment(&packet) {
            return Outcome::AsIs(packet);
        }
        let Some((id, mut frag, size)) = dissect(&packet, recirc_id, zone) else {
            return Outcome::AsIs(packet);
        };
        let c = self.counters(id.v6);
        if !c.enabled {
            return Outcome::AsIs(packet);
        }
        if !frag.last && size < c.min_size as usize {
            c.too_small += 1;
            return Outcome::AsIs(packet);
        }
        if self.order.len() > 2 * (self.lists.len() + ORDER_SLACK) {
            // What is complete leaves its name behind.
            let lists = &self.lists;
            self.order.retain(|(deadline, id)| lists.get(id).is_some_and(|l| l.deadline_ms == *deadline));
        }
        if self.status.held >= self.status.max {
            return Outcome::AsIs(packet);
        }
        let list = self.lists.entry(id).or_insert_with(|| {
            let deadline_ms = now_ms + TIMEOUT_MS;
            self.order.push_back((deadline_ms, id));
            List { frags: Vec::new(), deadline_ms }
        });
        let at = list.frags.partition_point(|f| f.offset < frag.offset);
        let before = at.checked_sub(1).map(|i| &list.frags[i]);
        let clash = before.is_some_and(|f| f.last || f.offset + f.len > frag.offset)
            || list.frags.get(at).is_some_and(|f| frag.last || frag.offset + frag.len > f.offset);
        if clash {
            self.counters(id.v6).overlapped += 1;
            return Outcome::AsIs(packet);
        }
        frag.packet = packet;
        frag.arrived = list.frags.len();
        list.frags.insert(at, frag);
        let mut end = 0;
        let contiguous = list.frags.iter().all(|f| {
            let follows = f.offset == end;
            end = f.offset + f.len;
            follows
        });
        let complete = contiguous && list.frags.last().is_some_and(|f| f.last);
        self.counters(id.v6).accepted += 1;
        if !complete {
            self.status.held += 1;
            return Outcome::Held;
        }
        let Some(list) = self.lists.remove(&id) else { return Outcome::Held };
        let n = list.frags.len();
        self.status.held = self.status.held.saturating_sub(u32::try_from(n - 1).unwrap_or(u32::MAX));
        self.counters(id.v6).completed += n as u64;
        Outcome::Whole(Box::new(Whole::of(list.frags, id.v6)))
    }

    /// When the oldest datagram's time is over; `u64::MAX` if there is none.
    pub fn due_ms(&self) -> u64 {
        self.order.front().map_or(u64::MAX, |(deadline, _)| *deadline)
    }

    /// Takes the oldest datagram if its deadline is before `before_ms`; empty if it was completed meanwhile.
    fn pop(&mut self, before_ms: u64) -> Option<(Id, Vec<Frag>)> {
        let &(deadline, id) = self.order.front().filter(|(deadline, _)| *deadline < before_ms)?;
        self.order.pop_front();
        // Not one that came later under the same name.
        if self.lists.get(&id).is_none_or(|l| l.deadline_ms != deadline) {
            return Some((id, Vec::new()));
        }
        let frags = self.lists.remove(&id).map(|l| l.frags).unwrap_or_default();
        let n = u32::try_from(frags.len()).unwrap_or(u32::MAX);
        self.status.held = self.status.held.saturating_sub(n);
        Some((id, frags))
    }

    /// The fragments of a datagram whose time is over, in the order in which they came: one at a time. They are counted with
    /// the family of the packet, `v6` or not, behind which they leave.
    pub fn overdue(&mut self, now_ms: u64, v6: bool) -> Vec<Packet> {
        self.purge(now_ms);
        while let Some((_, mut frags)) = self.pop(now_ms) {
            if !frags.is_empty() {
                self.counters(v6).expired += frags.len() as u64;
                frags.sort_by_key(|f| f.arrived);
                return frags.into_iter().map(|f| f.packet).collect();
            }
        }
        Vec::new()
    }

    /// Forgets those that nobody took along; how many.
    pub fn purge(&mut self, now_ms: u64) -> usize {
        let mut gone = 0;
        while let Some((id, frags)) = self.pop(now_ms.saturating_sub(PURGE_MS)) {
            self.counters(id.v6).purged += frags.len() as u64;
            gone += frags.len();
        }
        gone
    }

    /// What waits.
    pub fn lists(&self) -> Vec<FragList> {
        // A datagram that was completed may have left its name in front of a later one's.
        let mut seen = std::collections::HashSet::new();
        let list = |(deadline, id): &(u64, Id)| {
            let list = self.lists.get(id).filter(|l| l.deadline_ms == *deadline && seen.insert(*id))?;
            let first = list.frags.first().is_some_and(|f| f.offset == 0);
            let last = list.frags.last().is_some_and(|f| f.last);
            let addr = |a: Be128| -> std::net::IpAddr {
                if id.v6 {
                    std::net::Ipv6Addr::from(a.get()).into()
                } else {
                    std::net::Ipv4Addr::from(a.get() as u32).into()
                }
            };
            Some(FragList {
                src: addr(id.src),
                dst: addr(id.dst),
                recirc_id: id.recirc_id,
                id: id.id,
                zone: id.zone,
                proto: id.proto,
                held: list.frags.len(),
                ends: (first, last),
            })
        };
        self.order.iter().filter_map(list).collect()
    }
}

impl Whole {
    /// Puts together fragments that are complete and in order.
    fn of(frags: Vec<Frag>, v6: bool) -> Whole {
        let first = &frags[0];
        let header = if v6 { first.l3 + V6_HEADER } else { first.at };
        let mut packet = Packet::from_frame(&first.packet.data()[..header]);
        packet.ethernet = first.packet.ethernet;
        packet.l3_type = first.packet.l3_type;
        let proto = v6.then(|| first.packet.data()[first.l3 + V6_HEADER]);
        for f in &frags {
            packet.extend(&f.packet.data()[f.at..f.at + f.len]);
        }
        let l3 = first.l3;
        let size = packet.len() - l3;
        let ip = &mut packet.data_mut()[l3..];
        if let Some(proto) = proto {
            let payload = u16::try_from(size - V6_HEADER).unwrap_or(0);
            ip[4..6].copy_from_slice(&payload.to_be_bytes());
            ip[6] = proto;
        } else if let Ok(mut h) = Ipv4::new_checked(ip) {
            // A datagram past the largest length has none that is right; its checks will fail.
            h.set_total_len(Be16::new(u16::try_from(size).unwrap_or(0)));
            h.set_frag(Be16::ZERO);
            h.fill_checksum();
        }
        Whole { packet, frags, v6, l3, l4: header }
    }

    /// The fragments again, with what has changed in the datagram: addresses and payload.
    pub fn split(self) -> Vec<Packet> {
        let whole = self.packet.data();
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        let changed = &whole[self.l3..][addresses.clone()];
        self.frags
            .into_iter()
            .map(|f| {
                let mut packet = f.packet;
                let from = self.l4 + f.offset;
                let d = packet.data_mut();
                d[f.at..f.at + f.len].copy_from_slice(&whole[from..from + f.len]);
                d[f.l3..][addresses.clone()].copy_from_slice(changed);
                if !self.v6
                    && let Ok(mut h) = Ipv4::new_checked(&mut d[f.l3..])
                {
                    h.fill_checksum();
                }
                packet
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(offset: u16, more: bool, payload: &[u8]) -> Packet {
        let mut f = vec![0; 14];
        f[12] = 8;
        let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let bits = ((offset / 8) | if more { MORE_FRAGMENTS } else { 0 }).to_be_bytes();
        f.extend([0x45, 0, total[0], total[1], 0, 7, bits[0], bits[1], 64, 17, 0, 0]);
        f.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend(payload);
        Ipv4::new_checked(&mut f[14..]).unwrap().fill_checksum();
        Packet::from_frame(&f)
    }

    fn small() -> Fragments {
        let mut f = Fragments::default();
        f.status.v4.min_size = 20;
        f
    }

    #[test]
    fn a_datagram_comes_together_in_any_order_and_leaves_as_it_came() {
        let parts = [v4(0, true, &[1; 8]), v4(8, true, &[2; 16]), v4(24, false, &[3; 5])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut f = small();
            assert!(matches!(f.take(parts[order[0]].clone(), 0, 0, 0), Outcome::Held));
            assert!(matches!(f.take(parts[order[1]].clone(), 0, 0, 0), Outcome::Held));
            let Outcome::Whole(mut whole) = f.take(parts[order[2]].clone(), 0, 0, 0) else { panic!() };
            assert_eq!(whole.packet.data()[34..], [&[1; 8][..], &[2; 16], &[3; 5]].concat());
            assert!(!is_fragment(&whole.packet));
            whole.packet.data_mut()[34] = 9;
            whole.packet.data_mut()[26] = 11;
            let out = whole.split();
            assert_eq!(out.len(), 3);
            assert_eq!((out[0].data()[34], out[2].data()[26]), (9, 11));
            assert!(Ipv4::new_checked(&out[1].data()[14..]).unwrap().checksum_ok());
            assert_eq!((f.status.held, f.status.v4.completed), (0, 3));
        }
    }

    #[test]
    fn what_is_not_honest_is_not_held() {
        let mut f = small();
        assert!(matches!(f.take(v4(0, true, &[1; 16]), 0, 0, 0), Outcome::Held));
        assert!(matches!(f.take(v4(8, false, &[1; 16]), 0, 0, 0), Outcome::AsIs(_)));
        assert!(matches!(f.take(v4(0, true, &[1; 16]), 0, 0, 0), Outcome::AsIs(_)));
        assert_eq!(f.status.v4.overlapped, 2);
        f.status.v4.min_size = 1200;
        assert!(matches!(f.take(v4(64, true, &[1; 16]), 0, 0, 0), Outcome::AsIs(_)));
        assert_eq!(f.status.v4.too_small, 1);
        f.status.max = 1;
        assert!(matches!(f.take(v4(16, false, &[1; 16]), 0, 0, 0), Outcome::AsIs(_)));
        let waits = f.lists();
        assert_eq!((waits.len(), waits[0].held, waits[0].ends), (1, 1, (true, false)));
        assert!(f.overdue(TIMEOUT_MS, false).is_empty());
        assert_eq!(f.overdue(TIMEOUT_MS + 1, false).len(), 1);
        assert_eq!((f.status.held, f.status.v4.expired), (0, 1));
        f.status.v4.min_size = 20;
        assert!(matches!(f.take(v4(0, true, &[1; 16]), 0, 0, 0), Outcome::Held));
        assert_eq!((f.purge(TIMEOUT_MS + PURGE_MS), f.purge(TIMEOUT_MS + PURGE_MS + 1)), (0, 1));
        assert_eq!((f.status.held, f.status.v4.purged), (0, 1));
        assert!(f.lists.is_empty() && f.order.is_empty());
    }

    #[test]
    fn ipv6() {
        let part = |units: u16, more: u16, payload: &[u8]| {
            let mut f = vec![0; 14];
            (f[12], f[13]) = (0x86, 0xdd);
            let len = u8::try_from(8 + payload.len()).unwrap();
            f.extend([0x60, 0, 0, 0, 0, len, 44, 64]);
            f.extend([1; 16]);
            f.extend([2; 16]);
            f.extend([17, 0]);
            f.extend((units << 3 | more).to_be_bytes());
            f.extend([0, 0, 0, 9]);
            f.extend(payload);
            Packet::from_frame(&f)
        };
        let mut f = Fragments::default();
        f.status.v6.min_size = 20;
        assert!(matches!(f.take(part(1, 0, &[5; 3]), 0, 0, 0), Outcome::Held));
        let Outcome::Whole(whole) = f.take(part(0, 1, &[4; 8]), 0, 0, 0) else { panic!() };
        assert_eq!(whole.packet.data()[54..], [&[4; 8][..], &[5; 3]].concat());
        assert_eq!(&whole.packet.data()[18..21], &[0, 11, 17]);
        assert_eq!(whole.split()[1].data(), part(1, 0, &[5; 3]).data());
    }
}
