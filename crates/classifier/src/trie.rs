//! Prefix tries: which prefix lengths can match, and how many bits prove it.
//!
//! A binary trie with compressed paths. Nodes live in one vector and name each other by index; keys are as wide as
//! the field, for a table of a million rules has that many nodes. Cost of an operation: the length of the path, at
//! most the key's bits.

use std::ops::{BitOr, BitXor};

use ib_flow::Flow;
use zerocopy::IntoBytes;

/// A field that a trie can be kept for: consecutive bytes of a [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixField {
    offset: u16,
    bits: u8,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $($path:ident).+, $bits:literal;)*) => {
        impl PrefixField {
            $($(#[$doc])* pub const $name: PrefixField =
                PrefixField { offset: std::mem::offset_of!(Flow, $($path).+) as u16, bits: $bits };)*
        }
    };
}

fields! {
    /// `nw_src`.
    NW_SRC = nw_src, 32;
    /// `nw_dst`.
    NW_DST = nw_dst, 32;
    /// `ipv6_src`.
    IPV6_SRC = ipv6_src, 128;
    /// `ipv6_dst`.
    IPV6_DST = ipv6_dst, 128;
    /// `nd_target`.
    ND_TARGET = nd_target, 128;
    /// `ct_nw_src`.
    CT_NW_SRC = ct_nw_src, 32;
    /// `ct_nw_dst`.
    CT_NW_DST = ct_nw_dst, 32;
    /// `ct_ipv6_src`.
    CT_IPV6_SRC = ct_ipv6_src, 128;
    /// `ct_ipv6_dst`.
    CT_IPV6_DST = ct_ipv6_dst, 128;
    /// `tun_id`.
    TUN_ID = tunnel.tun_id, 64;
    /// `tun_src`.
    TUN_SRC = tunnel.ip_src, 32;
    /// `tun_dst`.
    TUN_DST = tunnel.ip_dst, 32;
    /// `tun_ipv6_src`.
    TUN_IPV6_SRC = tunnel.ipv6_src, 128;
    /// `tun_ipv6_dst`.
    TUN_IPV6_DST = tunnel.ipv6_dst, 128;
}

impl PrefixField {
    /// The fields of a table that nobody configured.
    pub const DEFAULTS: [PrefixField; 4] =
        [PrefixField::NW_DST, PrefixField::NW_SRC, PrefixField::IPV6_DST, PrefixField::IPV6_SRC];

    /// By the name used in a Flow_Table row's `prefixes`, or `None` if the field can't have a trie.
    pub fn by_name(name: &str) -> Option<PrefixField> {
        Some(match name {
            "nw_src" | "ip_src" => PrefixField::NW_SRC,
            "nw_dst" | "ip_dst" => PrefixField::NW_DST,
            "ipv6_src" => PrefixField::IPV6_SRC,
            "ipv6_dst" => PrefixField::IPV6_DST,
            "nd_target" => PrefixField::ND_TARGET,
            "ct_nw_src" => PrefixField::CT_NW_SRC,
            "ct_nw_dst" => PrefixField::CT_NW_DST,
            "ct_ipv6_src" => PrefixField::CT_IPV6_SRC,
            "ct_ipv6_dst" => PrefixField::CT_IPV6_DST,
            "tun_id" | "tunnel_id" => PrefixField::TUN_ID,
            "tun_src" => PrefixField::TUN_SRC,
            "tun_dst" => PrefixField::TUN_DST,
            "tun_ipv6_src" => PrefixField::TUN_IPV6_SRC,
            "tun_ipv6_dst" => PrefixField::TUN_IPV6_DST,
            _ => return None,
        })
    }
    /// Whether a packet has this field: what shares a place in the key with another one of another packet
    /// type (the addresses of IP and of ARP) is found by no trie then.
    pub(crate) fn is_in(self, flow: &Flow) -> bool {
        let dl_type = flow.dl_type.get();
        match self {
            PrefixField::NW_SRC | PrefixField::NW_DST => dl_type == 0x0800,
            PrefixField::IPV6_SRC | PrefixField::IPV6_DST => dl_type == 0x86dd,
            PrefixField::ND_TARGET => dl_type == 0x86dd && flow.nw_proto == 58,
            _ => true,
        }
    }
    /// Index of the field's first word in a key.
    pub(crate) fn word(self) -> u8 {
        (self.offset / 8) as u8
    }
    /// The field's bits, left-aligned.
    pub(crate) fn load(self, flow: &Flow) -> u128 {
        let at = usize::from(self.offset);
        let bytes = usize::from(self.bits) / 8;
        let mut key = [0; 16];
        key[..bytes].copy_from_slice(&flow.as_bytes()[at..at + bytes]);
        u128::from_be_bytes(key)
    }
    fn store(self, flow: &mut Flow, value: u128) {
        let at = usize::from(self.offset);
        let bytes = usize::from(self.bits) / 8;
        flow.as_mut_bytes()[at..at + bytes].copy_from_slice(&value.to_be_bytes()[..bytes]);
    }
    /// Length of the prefix that `mask` has for this field; 0 for none and for masks that are no prefix.
    pub(crate) fn prefix_len(self, mask: &Flow) -> u8 {
        let m = self.load(mask);
        let len = m.leading_ones();
        if m == prefix_mask(len) { len as u8 } else { 0 }
    }
    /// Adds the field's first `len` bits to a mask.
    pub(crate) fn set_prefix(self, mask: &mut Flow, len: u8) {
        let m = self.load(mask) | prefix_mask(u32::from(len.min(self.bits)));
        self.store(mask, m);
    }
    /// Whether a mask has the field's first `len` bits already.
    pub(crate) fn has_prefix(self, mask: &Flow, len: u8) -> bool {
        let want = prefix_mask(u32::from(len));
        self.load(mask) & want == want
    }
    /// Width.
    pub(crate) fn bits(self) -> u8 {
        self.bits
    }
}

/// `len` one bits from the left.
pub(crate) fn prefix_mask(len: u32) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len.min(128)) }
}

const NONE: u32 = u32::MAX;

/// A key of a [`Trie`]: bits, of which the first ones are the most significant.
pub(crate) trait Key: Copy + Eq + BitXor<Output = Self> + BitOr<Output = Self> {
    /// Its first `len` bits; the others are zero.
    fn first(self, len: u8) -> Self;
    /// Without its first `by` bits; zeros come from the right.
    fn skip(self, by: u8) -> Self;
    /// Put behind `len` others; what does not fit is lost.
    fn behind(self, len: u8) -> Self;
    /// Zeros from the left.
    fn zeros(self) -> u8;
    /// The first bit.
    fn side(self) -> usize;
}

macro_rules! key {
    ($($t:ident)*) => {
        $(impl Key for $t {
            fn first(self, len: u8) -> $t {
                self & !$t::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }
            fn skip(self, by: u8) -> $t {
                self.checked_shl(u32::from(by)).unwrap_or(0)
            }
            fn behind(self, len: u8) -> $t {
                self.checked_shr(u32::from(len)).unwrap_or(0)
            }
            fn zeros(self) -> u8 {
                self.leading_zeros() as u8
            }
            fn side(self) -> usize {
                (self >> ($t::BITS - 1)) as usize
            }
        })*
    };
}
key!(u32 u128);

#[derive(Debug, Clone)]
struct Node<K> {
    /// Bits of the edge into this node, left-aligned; zero beyond `len`.
    bits: K,
    /// Rules whose prefix ends here.
    rules: u32,
    child: [u32; 2],
    len: u8,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Leading bits that were looked at to find this out.
    pub check_bits: u8,
    /// Bit `127 - (n - 1)` (from the left: the nth) set: a rule with a prefix of length n matches.
    pub plens: u128,
}

impl Found {
    /// Whether a rule with this prefix length can match.
    pub fn has_plen(&self, plen: u8) -> bool {
        plen != 0 && self.plens & (1 << (128 - u32::from(plen))) != 0
    }
}

/// A trie of prefixes with a count each.
#[derive(Debug, Clone)]
pub(crate) struct Trie<K> {
    nodes: Vec<Node<K>>,
    free: Vec<u32>,
    root: Option<u32>,
}

impl<K> Default for Trie<K> {
    fn default() -> Trie<K> {
        Trie { nodes: Vec::new(), free: Vec::new(), root: None }
    }
}

impl<K: Key> Trie<K> {
    fn alloc(&mut self, bits: K, len: u8, rules: u32) -> u32 {
        let node = Node { bits: bits.first(len), len, rules, child: [NONE; 2] };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                if self.nodes.len() == self.nodes.capacity() {
                    // By a half: to double leaves too much room unused.
                    self.nodes.reserve_exact(self.nodes.len() / 2 + 4);
                }
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    fn link(&mut self, parent: Option<(u32, usize)>, to: u32) {
        match parent {
            Some((at, side)) => self.nodes[at as usize].child[side] = to,
            None => self.root = (to != NONE).then_some(to),
        }
    }

    /// Counts one more rule with the first `plen` bits of `key`. `plen` 0 is not kept.
    pub fn insert(&mut self, key: K, plen: u8) {
        if plen == 0 {
            return;
        }
        let key = key.first(plen);
        let mut depth = 0u8;
        let mut parent = None;
        let mut at = self.root.unwrap_or(NONE);
        loop {
            let rest = key.skip(depth);
            let left = plen - depth;
            if at == NONE {
                let leaf = self.alloc(rest, left, 1);
                self.link(parent, leaf);
                return;
            }
            let node = &self.nodes[at as usize];
            let (bits, len) = (node.bits, node.len);
            let common = (rest ^ bits).zeros().min(len).min(left);
            if common < len {
                // Split the edge: a new node for the common part above this one.
                let upper = self.alloc(bits, common, 0);
                let node = &mut self.nodes[at as usize];
                node.bits = bits.skip(common);
                node.len = len - common;
                let side = node.bits.side();
                self.nodes[upper as usize].child[side] = at;
                self.link(parent, upper);
                at = upper;
            }
            depth += common;
            if depth == plen {
                self.nodes[at as usize].rules += 1;
                return;
            }
            let side = key.skip(depth).side();
            parent = Some((at, side));
            at = self.nodes[at as usize].child[side];
        }
    }

    /// Takes back one [`Self::insert`] of the same prefix.
    pub fn remove(&mut self, key: K, plen: u8) {
        if plen == 0 {
            return;
        }
        let key = key.first(plen);
        let mut path: Vec<(Option<(u32, usize)>, u32)> = Vec::new();
        let mut depth = 0u8;
        let mut parent = None;
        let mut at = self.root.unwrap_or(NONE);
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.len > plen - depth || key.skip(depth).first(node.len) != node.bits {
                return;
            }
            depth += node.len;
            path.push((parent, at));
            if depth == plen {
                break;
            }
            let side = key.skip(depth).side();
            parent = Some((at, side));
            at = node.child[side];
        }
        if at == NONE || self.nodes[at as usize].rules == 0 {
            return;
        }
        self.nodes[at as usize].rules -= 1;
        // Fold nodes that neither hold a rule nor branch.
        while let Some((parent, at)) = path.pop() {
            let node = self.nodes[at as usize].clone();
            if node.rules != 0 || (node.child[0] != NONE && node.child[1] != NONE) {
                return;
            }
            let child = if node.child[0] != NONE { node.child[0] } else { node.child[1] };
            if child != NONE {
                let c = &mut self.nodes[child as usize];
                c.bits = node.bits | c.bits.behind(node.len);
                c.len += node.len;
            }
            self.link(parent, child);
            self.free.push(at);
        }
    }

    /// Follows `key`, of which `bits` bits count.
    pub fn lookup(&self, key: K, bits: u8) -> Found {
        let mut plens = 0u128;
        let mut depth = 0u8;
        let mut at = self.root.unwrap_or(NONE);
        let mut prev_is_leaf = true;
        while at != NONE {
            let node = &self.nodes[at as usize];
            let equal = (key.skip(depth) ^ node.bits).zeros().min(node.len);
            depth += equal;
            if equal < node.len {
                // The first bit that differs was looked at, too.
                return Found { check_bits: depth + 1, plens };
            }
            if node.rules > 0 {
                plens |= 1 << (128 - u32::from(depth));
            }
            if depth >= bits {
                return Found { check_bits: bits, plens };
            }
            prev_is_leaf = node.child == [NONE; 2];
            at = node.child[key.skip(depth).side()];
        }
        Found { check_bits: if prev_is_leaf { depth } else { depth + 1 }, plens }
    }
}

/// The trie of a field, as wide as that.
#[derive(Debug, Clone)]
pub(crate) enum FieldTrie {
    Narrow(Trie<u32>),
    Wide(Trie<u128>),
}

impl FieldTrie {
    pub fn new(field: PrefixField) -> FieldTrie {
        if field.bits <= 32 { FieldTrie::Narrow(Trie::default()) } else { FieldTrie::Wide(Trie::default()) }
    }
    /// As [`Trie::insert`]; `key` is left-aligned.
    pub fn insert(&mut self, key: u128, plen: u8) {
        match self {
            FieldTrie::Narrow(trie) => trie.insert(narrow(key), plen),
            FieldTrie::Wide(trie) => trie.insert(key, plen),
        }
    }
    /// As [`Trie::remove`].
    pub fn remove(&mut self, key: u128, plen: u8) {
        match self {
            FieldTrie::Narrow(trie) => trie.remove(narrow(key), plen),
            FieldTrie::Wide(trie) => trie.remove(key, plen),
        }
    }
    /// As [`Trie::lookup`].
    pub fn lookup(&self, key: u128, bits: u8) -> Found {
        match self {
            FieldTrie::Narrow(trie) => trie.lookup(narrow(key), bits),
            FieldTrie::Wide(trie) => trie.lookup(key, bits),
        }
    }
}

fn narrow(key: u128) -> u32 {
    (key >> 96) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_tells_lengths_and_bits() {
        let mut t = Trie::<u32>::default();
        assert_eq!(t.lookup(0x0a00_0001, 32), Found { check_bits: 0, plens: 0 });
        t.insert(0x0a00_0000, 8);
        t.insert(0x0a01_0000, 16);
        let f = t.lookup(0x0a01_0203, 32);
        assert!(f.has_plen(8) && f.has_plen(16) && !f.has_plen(9));
        assert_eq!(f.check_bits, 16);
        let f = t.lookup(0x0a00_0203, 32);
        assert!(f.has_plen(8) && !f.has_plen(16));
        assert_eq!(f.check_bits, 16);
        // 192.0.0.0 differs from 10.0.0.0 in the first bit.
        assert_eq!(t.lookup(0xc000_0000, 32), Found { check_bits: 1, plens: 0 });
        t.remove(0x0a01_0000, 16);
        let f = t.lookup(0x0a01_0203, 32);
        assert_eq!((f.check_bits, f.has_plen(16)), (8, false));
        t.remove(0x0a00_0000, 8);
        assert!(t.root.is_none());
    }

    #[test]
    fn full_length_keys_work() {
        let mut t = Trie::<u128>::default();
        t.insert(u128::MAX, 128);
        t.insert(u128::MAX - 1, 128);
        assert_eq!(t.lookup(u128::MAX, 128), Found { check_bits: 128, plens: 1 });
        t.remove(u128::MAX, 128);
        assert_eq!(t.lookup(u128::MAX, 128), Found { check_bits: 128, plens: 0 });
    }
}
