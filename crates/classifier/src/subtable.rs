//! Rules of one mask: a hash table on the masked key, with an index of partial hashes a stage.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use ib_flow::{Flow, Mask};

use crate::mini::{MiniMask, MiniMatch};
use crate::rule::AsClsRule;
use crate::trie::{FieldTrie, Found, Key, PrefixField, Trie};

/// First word of L2, L3 and L4 in a key. What lies behind the network header (neighbour discovery, hardware
/// addresses of ARP, TCP flags) counts as L4.
const SEGMENTS: [usize; 3] =
    [offset_of!(Flow, dl_dst) / 8, offset_of!(Flow, nw_src) / 8, offset_of!(Flow, nd_target) / 8];
const _: () = assert!(
    offset_of!(Flow, dl_dst) % 8 == 0
        && offset_of!(Flow, nw_src) % 8 == 0
        && offset_of!(Flow, nd_target) % 8 == 0
);

/// A hasher for keys that are hashes, or halves of hashes, already.
#[derive(Default, Clone)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u32(&mut self, v: u32) {
        // Tables look at both ends of a hash.
        self.0 = u64::from(v) << 32 | u64::from(v);
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = v;
    }
}

type HashKeyed<K, V> = HashMap<K, V, BuildHasherDefault<Identity>>;

/// How an index of a stage knows a hash: one rule in 2^32 more that looks as if it could match costs a stage.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[inline]
fn mix(h: u64, w: u64) -> u64 {
    let p = u128::from(h ^ w ^ 0xf39c_c060_5ced_c835) * 0x9e37_79b9_7f4a_7c15;
    (p as u64) ^ ((p >> 64) as u64).rotate_left(23)
}

/// Rules of one hash, highest priority first, newest first among equals; one as a rule.
enum Slot<R> {
    One(Arc<R>),
    /// Boxed, for there are a million of the others.
    #[expect(clippy::box_collection)]
    Many(Box<Vec<Arc<R>>>),
}

impl<R: AsClsRule> Slot<R> {
    fn rules(&self) -> &[Arc<R>] {
        match self {
            Slot::One(rule) => std::slice::from_ref(rule),
            Slot::Many(rules) => rules,
        }
    }
    fn insert(&mut self, rule: Arc<R>) {
        let priority = rule.cls().priority();
        let at = self.rules().partition_point(|r| r.cls().priority() > priority);
        match self {
            Slot::One(only) => {
                let mut rules = vec![Arc::clone(only)];
                rules.insert(at, rule);
                *self = Slot::Many(Box::new(rules));
            }
            Slot::Many(rules) => rules.insert(at, rule),
        }
    }
}

pub(crate) struct Subtable<R> {
    pub mask: MiniMask,
    /// Word ranges of `mask`, one a stage that has any, the last one final.
    stages: Vec<Range<usize>>,
    /// Number of rules by partial hash, for all stages but the final one.
    indices: Vec<HashKeyed<u32, u32>>,
    rules: HashKeyed<u64, Slot<R>>,
    priorities: BTreeMap<i32, u32>,
    /// Prefix length in each of the classifier's tries; 0: not in that trie.
    pub trie_plens: Vec<u8>,
    /// Leading bits of (tp_src, tp_dst) up to the last masked one.
    ports_mask: u32,
    ports: Trie<u32>,
    seed: u64,
}

fn ports_of(flow: &Flow) -> u32 {
    u32::from(flow.tp_src.get()) << 16 | u32::from(flow.tp_dst.get())
}

const PORTS_WORD: usize = offset_of!(Flow, tp_src) / 8;
const _: () = assert!(offset_of!(Flow, tp_dst) / 8 == PORTS_WORD);

/// As [`ports_of`].
fn ports_of_rule(m: &MiniMatch) -> u32 {
    let word = m.word(PORTS_WORD as u8).to_ne_bytes();
    let at = |offset: usize| u16::from_be_bytes([word[offset % 8], word[offset % 8 + 1]]);
    u32::from(at(offset_of!(Flow, tp_src))) << 16 | u32::from(at(offset_of!(Flow, tp_dst)))
}

/// A lookup's trie results, computed when first needed.
pub(crate) struct TrieLookup<'a> {
    pub tries: &'a [(PrefixField, FieldTrie)],
    pub found: Vec<Option<Found>>,
}

impl<'a> TrieLookup<'a> {
    pub fn new(tries: &'a [(PrefixField, FieldTrie)]) -> TrieLookup<'a> {
        TrieLookup { tries, found: vec![None; tries.len()] }
    }
}

impl<R: AsClsRule> Subtable<R> {
    pub fn new(mask: MiniMask, fields: &[(PrefixField, FieldTrie)], seed: u64) -> Subtable<R> {
        let full = mask.expand();
        let mut stages = Vec::new();
        let mut start = 0;
        for end in SEGMENTS.into_iter().chain([usize::MAX]) {
            let stop = start + mask.words()[start..].iter().take_while(|w| usize::from(w.0) < end).count();
            if stop > start {
                stages.push(start..stop);
            }
            start = stop;
        }
        if stages.is_empty() {
            stages.push(0..0);
        }
        let ports_mask = ports_of(&full.0);
        Subtable {
            trie_plens: fields.iter().map(|(f, _)| f.prefix_len(&full.0)).collect(),
            indices: vec![HashKeyed::default(); stages.len() - 1],
            mask,
            stages,
            rules: HashKeyed::default(),
            priorities: BTreeMap::new(),
            ports_mask,
            ports: Trie::default(),
            seed,
        }
    }

    fn ports_len(&self) -> u8 {
        (32 - self.ports_mask.trailing_zeros()) as u8
    }

    pub fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }
    pub fn max_priority(&self) -> i32 {
        self.priorities.last_key_value().map_or(i32::MIN, |(p, _)| *p)
    }

    /// Hash of a rule's values after each stage.
    fn hashes(&self, m: &MiniMatch) -> Vec<u64> {
        let mut h = self.seed;
        self.stages
            .iter()
            .map(|r| {
                for v in &m.values()[r.clone()] {
                    h = mix(h, *v);
                }
                h
            })
            .collect()
    }

    #[inline]
    fn hash_stage(&self, mut h: u64, stage: &Range<usize>, flow: &Flow) -> u64 {
        let words = flow.words();
        for &(i, m) in &self.mask.words()[stage.clone()] {
            h = mix(h, words[i as usize] & m);
        }
        h
    }

    pub fn insert(&mut self, rule: Arc<R>) {
        let cls = rule.cls();
        let hashes = self.hashes(&cls.mini);
        let (last, partial) = hashes.split_last().expect("a subtable has a stage");
        for (index, h) in self.indices.iter_mut().zip(partial) {
            *index.entry(short(*h)).or_insert(0) += 1;
        }
        *self.priorities.entry(cls.priority()).or_insert(0) += 1;
        if self.ports_mask != 0 {
            let len = self.ports_len();
            self.ports.insert(ports_of_rule(&cls.mini), len);
        }
        match self.rules.entry(*last) {
            Entry::Vacant(free) => {
                free.insert(Slot::One(rule));
            }
            Entry::Occupied(mut slot) => slot.get_mut().insert(rule),
        }
    }

    /// Whether the rule was there.
    pub fn remove(&mut self, rule: &Arc<R>) -> bool {
        let cls = rule.cls();
        let hashes = self.hashes(&cls.mini);
        let (last, partial) = hashes.split_last().expect("a subtable has a stage");
        let Some(slot) = self.rules.get_mut(last) else { return false };
        let Some(at) = slot.rules().iter().position(|r| Arc::ptr_eq(r, rule)) else { return false };
        match slot {
            Slot::Many(rules) if rules.len() > 1 => {
                rules.remove(at);
            }
            _ => {
                self.rules.remove(last);
            }
        }
        for (index, h) in self.indices.iter_mut().zip(partial) {
            let h = short(*h);
            if let Some(n) = index.get_mut(&h) {
                *n -= 1;
                if *n == 0 {
                    index.remove(&h);
                }
            }
        }
        if let Some(n) = self.priorities.get_mut(&cls.priority()) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&cls.priority());
            }
        }
        if self.ports_mask != 0 {
            let len = self.ports_len();
            self.ports.remove(ports_of_rule(&cls.mini), len);
        }
        true
    }

    /// Visible rules with exactly this match, highest priority first.
    pub fn same_match<'a>(&'a self, m: &'a MiniMatch, version: u64) -> impl Iterator<Item = &'a Arc<R>> {
        let hash = *self.hashes(m).last().expect("a subtable has a stage");
        self.rules
            .get(&hash)
            .into_iter()
            .flat_map(Slot::rules)
            .filter(move |r| r.cls().mini.values() == m.values() && r.cls().is_visible(version))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.rules.values().flat_map(Slot::rules)
    }

    fn find(&self, version: u64, flow: &Flow, hash: u64) -> Option<&Arc<R>> {
        self.rules
            .get(&hash)?
            .rules()
            .iter()
            .find(|r| self.mask.matches(flow, r.cls().mini.values()) && r.cls().is_visible(version))
    }

    /// Best visible rule for a key, nothing recorded.
    pub fn lookup(&self, version: u64, flow: &Flow) -> Option<&Arc<R>> {
        let hash = self.hash_stage(self.seed, &(0..self.mask.words().len()), flow);
        self.find(version, flow, hash)
    }

    /// Best visible rule for a key; adds to `wc` the bits that decided.
    pub fn lookup_wc(
        &self,
        version: u64,
        flow: &Flow,
        tries: &mut TrieLookup<'_>,
        wc: &mut Mask,
    ) -> Option<&Arc<R>> {
        let mut hash = self.seed;
        for (n, stage) in self.stages.iter().enumerate() {
            if self.tries_rule_out(stage, flow, tries, wc) {
                self.fold(stage.start, wc);
                return None;
            }
            hash = self.hash_stage(hash, stage, flow);
            match self.indices.get(n) {
                Some(index) => {
                    if !index.contains_key(&short(hash)) {
                        self.fold(stage.end, wc);
                        return None;
                    }
                }
                None => {
                    let rule = self.find(version, flow, hash);
                    if rule.is_none() && self.ports_mask != 0 {
                        // Enough port bits to prove the miss instead of all of them.
                        let found = self.ports.lookup(ports_of(flow) & self.ports_mask, 32);
                        let bits = self.ports_mask.first(found.check_bits);
                        // A rule that this version can't see may sit behind a full match.
                        if !found.has_plen(self.ports_len()) {
                            let (src, dst) = (wc.0.tp_src, wc.0.tp_dst);
                            self.mask.fold_into(wc);
                            wc.0.tp_src = src | ((bits >> 16) as u16).into();
                            wc.0.tp_dst = dst | ((bits & 0xffff) as u16).into();
                            return None;
                        }
                    }
                    self.mask.fold_into(wc);
                    return rule;
                }
            }
        }
        None
    }

    /// Adds the mask's first `words` words.
    fn fold(&self, words: usize, wc: &mut Mask) {
        let out = wc.0.words_mut();
        for &(i, m) in &self.mask.words()[..words] {
            out[i as usize] |= m;
        }
    }

    /// Whether a trie of a field in this stage proves that no rule here matches. Bits are only added when
    /// they are no more than this subtable would look at anyway.
    fn tries_rule_out(
        &self,
        stage: &Range<usize>,
        flow: &Flow,
        tries: &mut TrieLookup<'_>,
        wc: &mut Mask,
    ) -> bool {
        let words = &self.mask.words()[stage.clone()];
        for (n, &plen) in self.trie_plens.iter().enumerate() {
            if plen == 0 {
                continue;
            }
            let (field, trie) = &tries.tries[n];
            if !words.iter().any(|w| w.0 == field.word()) || !field.is_in(flow) {
                continue;
            }
            let found = *tries.found[n].get_or_insert_with(|| trie.lookup(field.load(flow), field.bits()));
            if !found.has_plen(plen) {
                if found.check_bits <= plen {
                    field.set_prefix(&mut wc.0, found.check_bits);
                    return true;
                }
                if field.has_prefix(&wc.0, found.check_bits) {
                    return true;
                }
            }
        }
        false
    }
}
