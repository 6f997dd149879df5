//! Hashes of keys, for spreading packets over links, queues and buckets.
//!
//! The functions and their values are Open vSwitch's, so that a `bundle`, `multipath` or `select` group picks
//! the same link here as there: Bob Jenkins' lookup3 over a packed structure for the oldest ones, MurmurHash3
//! over words for the others. "Symmetric" hashes are the same for both directions of a connection.

use ib_packet::{Be16, Be128, Mac};

use crate::extract::proto;
use crate::key::{Flow, Mask, Vlan};

/// Adds a word to a running hash (MurmurHash3's round).
#[inline]
pub fn add(hash: u32, data: u32) -> u32 {
    let k = data.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// Adds two words, low one first.
#[inline]
pub fn add64(hash: u32, data: u64) -> u32 {
    add(add(hash, data as u32), (data >> 32) as u32)
}

/// Ends a running hash; `final_` is by convention the number of bytes added.
#[inline]
pub fn finish(hash: u32, final_: u32) -> u32 {
    let mut h = hash ^ final_;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// Hash of two words: how links and buckets are weighed against a packet's hash.
#[inline]
pub fn two_words(a: u32, b: u32) -> u32 {
    finish(add(add(a, 0), b), 8)
}

/// Hash of a 64-bit number.
#[inline]
pub fn number(n: u64) -> u32 {
    finish(add64(0, n), 8)
}

/// Hash of an address in a VLAN: how bonds spread sources over their members.
pub fn bond(mac: Mac, vlan: u16, basis: u32) -> u32 {
    let [a, b, c, d, e, f] = mac.0;
    finish(add64(basis, u64::from_be_bytes([0, 0, a, b, c, d, e, f]) | u64::from(vlan) << 48), 8)
}

/// Hash of bytes (MurmurHash3).
pub fn bytes(data: &[u8], basis: u32) -> u32 {
    let mut h = basis;
    for chunk in data.chunks(4) {
        let mut w = [0; 4];
        w[..chunk.len()].copy_from_slice(chunk);
        h = add(h, u32::from_ne_bytes(w));
    }
    finish(h, data.len() as u32)
}

/// The order in which Open vSwitch's hash tables hold what is put into them in this order: scripts see it in places. Each item
/// enters at the head of its chain, and a table that doubles turns its chains over.
pub fn chain_order<T: Copy>(items: impl Iterator<Item = T>, hash: impl Fn(T) -> u32) -> Vec<T> {
    let mut chains: Vec<Vec<T>> = vec![Vec::new()];
    // Chains are kept tail first: the head is the last element.
    for (i, item) in items.enumerate() {
        let mask = chains.len() - 1;
        chains[hash(item) as usize & mask].push(item);
        let n = i + 1;
        if n / 2 > mask {
            let mask = ((n / 2 + 1).next_power_of_two() - 1) | 3;
            let mut grown: Vec<Vec<T>> = vec![Vec::new(); mask + 1];
            for item in chains.iter().flat_map(|c| c.iter().rev()) {
                grown[hash(*item) as usize & mask].push(*item);
            }
            chains = grown;
        }
    }
    chains.into_iter().flat_map(|c| c.into_iter().rev()).collect()
}

/// Hash of 64-bit words (MurmurHash3).
#[inline]
pub fn words(data: impl IntoIterator<Item = u64>, basis: u32) -> u32 {
    let mut h = basis;
    let mut n = 0;
    for w in data {
        h = add64(h, w);
        n += 8;
    }
    finish(h, n)
}

/// Hash of bytes (lookup3).
pub fn jenkins(data: &[u8], basis: u32) -> u32 {
    let start = 0xdead_beefu32.wrapping_add(data.len() as u32).wrapping_add(basis);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |d: &[u8], at: usize| {
        let mut w = [0; 4];
        for (w, d) in w.iter_mut().zip(d.iter().skip(at)) {
            *w = *d;
        }
        u32::from_ne_bytes(w)
    };
    let (blocks, rest) = data.as_chunks::<12>();
    for d in blocks {
        a = a.wrapping_add(word(d, 0));
        b = b.wrapping_add(word(d, 4));
        c = c.wrapping_add(word(d, 8));
        for (rot_a, rot_b, rot_c) in [(4, 6, 8), (16, 19, 4)] {
            a = a.wrapping_sub(c) ^ c.rotate_left(rot_a);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(rot_b);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(rot_c);
            b = b.wrapping_add(a);
        }
    }
    if !rest.is_empty() {
        a = a.wrapping_add(word(rest, 0));
        b = b.wrapping_add(word(rest, 4));
        c = c.wrapping_add(word(rest, 8));
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
    }
    c
}

fn xor128(a: Be128, b: Be128) -> [u8; 16] {
    (a.get() ^ b.get()).to_be_bytes()
}

fn halves(b: [u8; 16]) -> [u64; 2] {
    let (lo, hi) = b.split_at(8);
    [lo, hi].map(|h| {
        let mut w = [0; 8];
        w.copy_from_slice(h);
        u64::from_ne_bytes(w)
    })
}

/// Hash of addresses, protocol and ports: what receive-side scaling does. Of what is not IP or ARP nothing counts.
pub fn five_tuple(flow: &Flow, basis: u32) -> u32 {
    let mut h = basis;
    match flow.dl_type.get() {
        proto::ETH_IPV6 => {
            for a in [flow.ipv6_src, flow.ipv6_dst] {
                for w in halves(a.to_bytes()) {
                    h = add64(h, w);
                }
            }
        }
        proto::ETH_IP | proto::ETH_ARP => h = add(add(h, flow.nw_src.raw()), flow.nw_dst.raw()),
        _ => return finish(h, 42),
    }
    h = add(h, flow.nw_proto.into());
    if matches!(flow.nw_proto, 1 | 6 | 17 | 58 | 132) {
        let (s, d) = (flow.tp_src.to_bytes(), flow.tp_dst.to_bytes());
        h = add(h, u32::from_ne_bytes([s[0], s[1], d[0], d[1]]));
    }
    finish(h, 42)
}

/// Hash of Ethernet addresses, VLAN ids, Ethertype, and for IP of addresses, protocol and TCP or SCTP ports;
/// the same in both directions. UDP ports do not count, as they need not be the same in both directions.
pub fn symmetric_l4(flow: &Flow, basis: u32) -> u32 {
    let mut b = [0u8; 32];
    let dl_type = flow.dl_type.get();
    match dl_type {
        proto::ETH_IP => b[..4].copy_from_slice(&(flow.nw_src ^ flow.nw_dst).to_bytes()),
        proto::ETH_IPV6 => b[..16].copy_from_slice(&xor128(flow.ipv6_src, flow.ipv6_dst)),
        _ => {}
    }
    b[16..18].copy_from_slice(&flow.dl_type.to_bytes());
    b[18..20].copy_from_slice(&vlan_ids(flow).to_bytes());
    if matches!(dl_type, proto::ETH_IP | proto::ETH_IPV6) {
        if matches!(flow.nw_proto, proto::IP_TCP | proto::IP_SCTP) {
            b[20..22].copy_from_slice(&(flow.tp_src ^ flow.tp_dst).to_bytes());
        }
        b[28] = flow.nw_proto;
    }
    for (i, (s, d)) in flow.dl_src.0.iter().zip(flow.dl_dst.0).enumerate() {
        b[22 + i] = s ^ d;
    }
    jenkins(&b, basis)
}

/// Hash of IP addresses, protocol and TCP, SCTP and, if wanted, UDP ports; the same in both directions. What is
/// not IP is hashed by [`symmetric_l2`].
pub fn symmetric_l3l4(flow: &Flow, basis: u32, udp_ports: bool) -> u32 {
    let mut h = match flow.dl_type.get() {
        proto::ETH_IP => add(basis, (flow.nw_src ^ flow.nw_dst).raw()),
        proto::ETH_IPV6 => halves(xor128(flow.ipv6_src, flow.ipv6_dst)).into_iter().fold(basis, add64),
        _ => return symmetric_l2(flow, basis),
    };
    h = add(h, flow.nw_proto.into());
    if matches!(flow.nw_proto, proto::IP_TCP | proto::IP_SCTP) || udp_ports && flow.nw_proto == proto::IP_UDP
    {
        h = add(h, (flow.tp_src ^ flow.tp_dst).raw().into());
    }
    finish(h, basis)
}

/// Hash of Ethertype and IP addresses, the same in both directions.
pub fn symmetric_l3(flow: &Flow, basis: u32) -> u32 {
    let mut b = [0u8; 20];
    match flow.dl_type.get() {
        proto::ETH_IP => b[..4].copy_from_slice(&(flow.nw_src ^ flow.nw_dst).to_bytes()),
        proto::ETH_IPV6 => b[..16].copy_from_slice(&xor128(flow.ipv6_src, flow.ipv6_dst)),
        _ => {}
    }
    b[16..18].copy_from_slice(&flow.dl_type.to_bytes());
    jenkins(&b, basis)
}

/// Hash of Ethertype, VLAN ids and Ethernet addresses, the same in both directions.
pub fn symmetric_l2(flow: &Flow, basis: u32) -> u32 {
    let mut b = [0u8; 12];
    b[..2].copy_from_slice(&flow.dl_type.to_bytes());
    b[2..4].copy_from_slice(&vlan_ids(flow).to_bytes());
    for (i, (s, d)) in flow.dl_src.0.iter().zip(flow.dl_dst.0).enumerate() {
        b[4 + i] = s ^ d;
    }
    let (words, _) = b.as_chunks::<4>();
    finish(words.iter().fold(basis, |h, w| add(h, u32::from_ne_bytes(*w))), basis)
}

fn vlan_ids(flow: &Flow) -> Be16 {
    flow.vlans.iter().fold(Be16::ZERO, |x, v| x ^ (v.tci & Be16::new(Vlan::VID_MASK)))
}

/// Hash of Ethernet addresses and VLAN id, for bonds with `balance-slb`-like modes.
pub fn mac_vlan(mac: Mac, vlan: u16, basis: u32) -> u32 {
    let b = mac.0;
    let hi = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    let lo = u16::from_ne_bytes([b[4], b[5]]);
    finish(add(add(basis, hi), u32::from(lo) << 16 | u32::from(vlan)), 8)
}

/// Which fields a hash covers (`NX_HASH_FIELDS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum HashFields {
    /// Ethernet source.
    EthSrc = 0,
    /// [`symmetric_l4`].
    SymmetricL4 = 1,
    /// [`symmetric_l3l4`] without UDP ports.
    SymmetricL3L4 = 2,
    /// [`symmetric_l3l4`] with UDP ports.
    SymmetricL3L4Udp = 3,
    /// IP source.
    NwSrc = 4,
    /// IP destination.
    NwDst = 5,
    /// [`symmetric_l3`].
    SymmetricL3 = 6,
}

impl HashFields {
    const NAMES: [(HashFields, &'static str); 7] = [
        (HashFields::EthSrc, "eth_src"),
        (HashFields::SymmetricL4, "symmetric_l4"),
        (HashFields::SymmetricL3L4, "symmetric_l3l4"),
        (HashFields::SymmetricL3L4Udp, "symmetric_l3l4+udp"),
        (HashFields::NwSrc, "nw_src"),
        (HashFields::NwDst, "nw_dst"),
        (HashFields::SymmetricL3, "symmetric_l3"),
    ];
    /// From the number that travels.
    pub fn from_wire(n: u16) -> Option<HashFields> {
        Self::NAMES.get(usize::from(n)).map(|n| n.0)
    }
    /// As in `symmetric_l4`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
    /// From its name.
    pub fn by_name(name: &str) -> Option<HashFields> {
        Self::NAMES.iter().find(|n| n.1 == name).map(|n| n.0)
    }

    /// The hash of a key.
    pub fn hash(self, flow: &Flow, basis: u16) -> u32 {
        let basis = u32::from(basis);
        let address = |v4: ib_packet::Be32, v6: Be128| match flow.dl_type.get() {
            proto::ETH_IP => jenkins(&v4.to_bytes(), basis),
            proto::ETH_IPV6 => jenkins(&v6.to_bytes(), basis),
            _ => basis,
        };
        match self {
            HashFields::EthSrc => jenkins(&flow.dl_src.0, basis),
            HashFields::SymmetricL4 => symmetric_l4(flow, basis),
            HashFields::SymmetricL3L4 => symmetric_l3l4(flow, basis, false),
            HashFields::SymmetricL3L4Udp => symmetric_l3l4(flow, basis, true),
            HashFields::NwSrc => address(flow.nw_src, flow.ipv6_src),
            HashFields::NwDst => address(flow.nw_dst, flow.ipv6_dst),
            HashFields::SymmetricL3 => symmetric_l3(flow, basis),
        }
    }

    /// Marks what [`Self::hash`] looked at.
    pub fn unwildcard(self, flow: &Flow, mask: &mut Mask) {
        let w = &mut mask.0;
        let src = matches!(self, HashFields::NwSrc);
        let dst = matches!(self, HashFields::NwDst);
        let ip = matches!(flow.dl_type.get(), proto::ETH_IP | proto::ETH_IPV6);
        let by_l2 = matches!(self, HashFields::SymmetricL3L4 | HashFields::SymmetricL3L4Udp) && !ip;
        if self == HashFields::EthSrc {
            w.dl_src = Mac::BROADCAST;
            return;
        }
        if self == HashFields::SymmetricL4 || by_l2 {
            (w.dl_src, w.dl_dst) = (Mac::BROADCAST, Mac::BROADCAST);
            for v in &mut w.vlans {
                v.tci |= Be16::new(Vlan::VID_MASK | Vlan::CFI);
            }
        }
        match flow.dl_type.get() {
            proto::ETH_IP => {
                if !dst {
                    w.nw_src = ib_packet::Be32::MAX;
                }
                if !src {
                    w.nw_dst = ib_packet::Be32::MAX;
                }
            }
            proto::ETH_IPV6 => {
                if !dst {
                    w.ipv6_src = Be128::MAX;
                }
                if !src {
                    w.ipv6_dst = Be128::MAX;
                }
            }
            _ => return,
        }
        if src || dst || matches!(self, HashFields::SymmetricL3) {
            return;
        }
        w.nw_proto = u8::MAX;
        // Whatever the protocol has there; as the original, which looks only at some of them.
        let any = self == HashFields::SymmetricL4;
        let udp = self == HashFields::SymmetricL3L4Udp && flow.nw_proto == proto::IP_UDP;
        if any || udp || matches!(flow.nw_proto, proto::IP_TCP | proto::IP_SCTP) {
            (w.tp_src, w.tp_dst) = (Be16::MAX, Be16::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse_exact_flow;

    fn reversed(f: &Flow) -> Flow {
        let mut r = f.clone();
        std::mem::swap(&mut r.dl_src, &mut r.dl_dst);
        std::mem::swap(&mut r.nw_src, &mut r.nw_dst);
        std::mem::swap(&mut r.ipv6_src, &mut r.ipv6_dst);
        std::mem::swap(&mut r.tp_src, &mut r.tp_dst);
        r
    }

    #[test]
    fn symmetric_means_symmetric() {
        for text in [
            "tcp,dl_src=00:00:00:00:00:01,nw_src=1.2.3.4,nw_dst=5.6.7.8,tp_src=9,tp_dst=10,dl_vlan=7",
            "udp6,ipv6_src=::1,ipv6_dst=::2,udp_src=9",
            "dl_type=0x1234,dl_src=00:00:00:00:00:01",
        ] {
            let f = parse_exact_flow(text, None).unwrap();
            for (h, _) in &HashFields::NAMES[1..4] {
                assert_eq!(h.hash(&f, 7), h.hash(&reversed(&f), 7), "{text} {h:?}");
            }
            assert_eq!(HashFields::SymmetricL3.hash(&f, 7), HashFields::SymmetricL3.hash(&reversed(&f), 7));
        }
    }

    /// Low 16 bits of values that Open vSwitch computes with basis 50.
    #[test]
    fn bonds_hash_as_open_vswitch() {
        let last = |n: u8, vlan, basis| bond(Mac([0, 0, 0, 0, 0, n]), vlan, basis) % 256;
        assert_eq!([last(1, 0, 0), last(1, 5, 0), last(1, 5, 7), last(2, 9999, 0)], [68, 215, 87, 217]);
    }

    #[test]
    fn known_values() {
        let tcp = "tcp,dl_src=00:11:22:33:44:55,dl_dst=66:77:88:99:aa:bb,nw_src=1.2.3.4,nw_dst=5.6.7.8,tp_src=9,tp_dst=10,dl_vlan=7";
        let udp = "udp,dl_src=00:11:22:33:44:55,nw_src=1.2.3.4,nw_dst=5.6.7.8,udp_src=9,udp_dst=10";
        let tcp6 = "tcp6,ipv6_src=2001::1,ipv6_dst=::2,tp_src=5,tp_dst=80";
        let other = "dl_type=0x1234,dl_src=00:11:22:33:44:55";
        for (i, text, expect) in [
            (0, tcp, [0x6866, 0xdb88, 0xbb6a, 0xbb6a, 0x626d, 0xd517, 0xa9f3]),
            (1, udp, [0x6866, 0x260b, 0xef02, 0xbf0b, 0x626d, 0xd517, 0xa9f3]),
            (2, tcp6, [0xdbd7, 0x47ca, 0xe65a, 0xe65a, 0x2957, 0xfc14, 0x2ce0]),
            (3, other, [0x6866, 0xeb6f, 0x05b4, 0x05b4, 0x0032, 0x0032, 0x2484]),
        ] {
            let f = parse_exact_flow(text, None).unwrap();
            let got = HashFields::NAMES.map(|h| h.0.hash(&f, 50) & 0xffff);
            assert_eq!(got, expect, "{i}");
        }
        let f = parse_exact_flow("dl_type=0x1234,dl_src=00:11:22:33:44:55,dl_vlan=7", None).unwrap();
        assert_eq!(symmetric_l2(&f, 50) & 0xffff, 0xb619);
    }

    /// What is not marked may not change the hash.
    #[test]
    fn masks_cover_what_was_looked_at() {
        let f =
            parse_exact_flow("tcp,nw_src=1.2.3.4,nw_dst=5.6.7.8,tp_src=9,tp_dst=10,dl_vlan=7", None).unwrap();
        for (h, name) in HashFields::NAMES {
            let mut mask = Mask::default();
            h.unwildcard(&f, &mut mask);
            // The Ethertype is always marked by translation itself.
            mask.0.dl_type = Be16::MAX;
            for i in 0..crate::key::FLOW_WORDS {
                for bit in 0..64 {
                    if mask.0.words()[i] >> bit & 1 == 0 {
                        let mut g = f.clone();
                        g.words_mut()[i] ^= 1 << bit;
                        assert_eq!(h.hash(&f, 0), h.hash(&g, 0), "{name} word {i} bit {bit}");
                    }
                }
            }
            assert_eq!(HashFields::by_name(name), Some(h));
            assert_eq!(HashFields::from_wire(h as u16), Some(h));
        }
    }
}
