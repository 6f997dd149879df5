//! The classifier: subtables in order of priority, tries, conjunctive matches.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ib_flow::{Flow, Mask, Match};
use parking_lot::RwLock;

use crate::mini::{MiniMask, MiniMatch};
use crate::rule::{AsClsRule, Conjunction};
use crate::subtable::{Subtable, TrieLookup};
use crate::trie::{FieldTrie, PrefixField};

struct Inner<R> {
    /// In no order; the last one takes the place of one that goes.
    subtables: Vec<Subtable<R>>,
    /// Where each mask's is.
    by_mask: HashMap<MiniMask, u32, FixedState>,
    /// By highest priority, falling; equals in order of creation.
    order: Vec<Rank>,
    tries: Vec<(PrefixField, FieldTrie)>,
    n_rules: usize,
}

/// A subtable's place among the others.
#[derive(Clone, Copy)]
struct Rank {
    /// The highest of its rules.
    priority: i32,
    at: u32,
}

/// Versioned rules, found by key. See the crate's description.
pub struct Classifier<R> {
    inner: RwLock<Inner<R>>,
    seed: u64,
}

impl<R: AsClsRule> Default for Classifier<R> {
    fn default() -> Self {
        Classifier::new()
    }
}

impl<R: AsClsRule> Classifier<R> {
    /// An empty classifier with the default prefix fields.
    pub fn new() -> Classifier<R> {
        Classifier {
            inner: RwLock::new(Inner::new(&PrefixField::DEFAULTS)),
            seed: foldhash::fast::RandomState::default().hash_one(0u8),
        }
    }

    /// Keeps tries for these fields instead. Returns whether that was a change. Cost: all rules.
    pub fn set_prefix_fields(&self, fields: &[PrefixField]) -> bool {
        let mut inner = self.inner.write();
        if inner.tries.iter().map(|t| t.0).eq(fields.iter().copied()) {
            return false;
        }
        let mut tries = empty_tries(fields);
        for subtable in &mut inner.subtables {
            let mask = subtable.mask.expand();
            subtable.trie_plens = fields.iter().map(|f| f.prefix_len(&mask.0)).collect();
            for rule in subtable.iter() {
                let flow = rule.cls().mini.flow();
                for ((field, trie), plen) in tries.iter_mut().zip(&subtable.trie_plens) {
                    trie.insert(field.load(&flow), *plen);
                }
            }
        }
        inner.tries = tries;
        true
    }

    /// Number of rules, visible or not.
    pub fn len(&self) -> usize {
        self.inner.read().n_rules
    }
    /// No rules at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of different masks.
    pub fn n_masks(&self) -> usize {
        self.inner.read().subtables.len()
    }

    /// Lets a match share its mask with the rules that are here: what will become a rule of many needs less room.
    pub fn share_mask(&self, m: &mut MiniMatch) {
        if let Some(subtable) = self.inner.read().subtable(m.mask()) {
            m.share_mask(&subtable.mask);
        }
    }

    /// Adds a rule. Another of the same match, priority and version must not be there.
    pub fn insert(&self, rule: Arc<R>) {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let cls = rule.cls();
        let at = match inner.by_mask.get(cls.mini.mask()) {
            Some(at) => *at,
            None => inner.new_subtable(cls.mini.mask(), self.seed),
        };
        let subtable = &mut inner.subtables[at as usize];
        if subtable.trie_plens.iter().any(|p| *p != 0) {
            let flow = cls.mini.flow();
            for ((field, trie), plen) in inner.tries.iter_mut().zip(&subtable.trie_plens) {
                trie.insert(field.load(&flow), *plen);
            }
        }
        let before = subtable.max_priority();
        subtable.insert(rule);
        inner.n_rules += 1;
        let priority = inner.subtables[at as usize].max_priority();
        if priority != before {
            inner.rank(at, before, priority);
        }
    }

    /// Removes this very rule; whether it was there.
    pub fn remove(&self, rule: &Arc<R>) -> bool {
        self.inner.write().remove(rule)
    }

    /// Removes these rules, which are different ones and all here. All that there are cost no more than to drop them.
    pub fn remove_all(&self, rules: &[Arc<R>]) {
        let mut inner = self.inner.write();
        if rules.len() == inner.n_rules {
            let fields: Vec<PrefixField> = inner.tries.iter().map(|t| t.0).collect();
            *inner = Inner::new(&fields);
            return;
        }
        for rule in rules {
            inner.remove(rule);
        }
    }

    /// The best rule for a key in a version. With `wc`, adds the bits that decided: keys that agree in
    /// them get the same answer.
    pub fn lookup(&self, version: u64, flow: &Flow, wc: Option<&mut Mask>) -> Option<Arc<R>> {
        self.lookup_conj(version, flow, wc, None)
    }

    /// As [`Self::lookup`]; also appends the rules whose clauses made a conjunctive match.
    pub fn lookup_conj(
        &self,
        version: u64,
        flow: &Flow,
        mut wc: Option<&mut Mask>,
        conj_rules: Option<&mut Vec<Arc<R>>>,
    ) -> Option<Arc<R>> {
        let inner = self.inner.read();
        inner.lookup(version, flow, &mut wc, true, conj_rules).cloned()
    }

    /// The visible rule with exactly this match and priority.
    pub fn find_exact(&self, m: &Match, priority: i32, version: u64) -> Option<Arc<R>> {
        self.find_exact_mini(&MiniMatch::new(m), priority, version)
    }

    /// As [`Self::find_exact`].
    pub fn find_exact_mini(&self, m: &MiniMatch, priority: i32, version: u64) -> Option<Arc<R>> {
        let inner = self.inner.read();
        let subtable = inner.subtable(m.mask())?;
        subtable.same_match(m, version).find(|r| r.cls().priority() == priority).cloned()
    }

    /// A visible rule of the same priority that some packet would match as well.
    pub fn find_overlap(&self, m: &MiniMatch, priority: i32, version: u64) -> Option<Arc<R>> {
        let inner = self.inner.read();
        inner
            .order
            .iter()
            .take_while(|rank| rank.priority >= priority)
            .flat_map(|rank| inner.subtables[rank.at as usize].iter())
            .find(|r| {
                let cls = r.cls();
                cls.priority() == priority && cls.is_visible(version) && cls.mini.intersects(m)
            })
            .cloned()
    }

    /// Visible rules that lie within `criteria` (the meaning of a loose flow_mod): masks by highest
    /// priority, rules of one mask by [`AsClsRule::order`].
    pub fn collect_loose(&self, criteria: &MiniMatch, version: u64) -> Vec<Arc<R>> {
        let inner = self.inner.read();
        let mut out = Vec::new();
        for subtable in inner.in_order().filter(|s| s.mask.covers(criteria.mask())) {
            let begin = out.len();
            let within = |r: &&Arc<R>| r.cls().is_visible(version) && r.cls().mini.is_within(criteria);
            out.extend(subtable.iter().filter(within).cloned());
            out[begin..].sort_by_key(|r: &Arc<R>| r.order());
        }
        out
    }

    /// All rules, visible or not, in no order.
    pub fn collect_all(&self) -> Vec<Arc<R>> {
        self.inner.read().in_order().flat_map(Subtable::iter).cloned().collect()
    }

    /// The masks in use.
    pub fn masks(&self) -> Vec<MiniMask> {
        self.inner.read().in_order().map(|s| s.mask.clone()).collect()
    }
}

fn empty_tries(fields: &[PrefixField]) -> Vec<(PrefixField, FieldTrie)> {
    fields.iter().map(|f| (*f, FieldTrie::new(*f))).collect()
}

impl<R: AsClsRule> Inner<R> {
    fn new(fields: &[PrefixField]) -> Inner<R> {
        Inner {
            subtables: Vec::new(),
            by_mask: HashMap::default(),
            order: Vec::new(),
            tries: empty_tries(fields),
            n_rules: 0,
        }
    }

    fn subtable(&self, mask: &MiniMask) -> Option<&Subtable<R>> {
        self.by_mask.get(mask).map(|at| &self.subtables[*at as usize])
    }

    fn in_order(&self) -> impl Iterator<Item = &Subtable<R>> {
        self.order.iter().map(|rank| &self.subtables[rank.at as usize])
    }

    /// An empty one, behind all others.
    fn new_subtable(&mut self, mask: &MiniMask, seed: u64) -> u32 {
        let at = self.subtables.len() as u32;
        let subtable = Subtable::new(mask.clone(), &self.tries, seed);
        self.order.push(Rank { priority: subtable.max_priority(), at });
        self.subtables.push(subtable);
        self.by_mask.insert(mask.clone(), at);
        at
    }

    fn place_of(&self, at: u32, priority: i32) -> Option<usize> {
        let from = self.order.partition_point(|rank| rank.priority > priority);
        Some(from + self.order[from..].iter().position(|rank| rank.at == at)?)
    }

    /// A subtable's highest priority has changed. One that rises comes behind the others of that priority, one that
    /// falls before them, as if all were sorted again.
    fn rank(&mut self, at: u32, before: i32, priority: i32) {
        let Some(old) = self.place_of(at, before) else { return };
        self.order[old].priority = priority;
        if priority > before {
            let new = self.order[..old].partition_point(|rank| rank.priority >= priority);
            self.order[new..=old].rotate_right(1);
        } else {
            let new = old + 1 + self.order[old + 1..].partition_point(|rank| rank.priority > priority);
            self.order[old..new].rotate_left(1);
        }
    }

    fn remove(&mut self, rule: &Arc<R>) -> bool {
        let cls = rule.cls();
        let Some(&at) = self.by_mask.get(cls.mini.mask()) else { return false };
        let subtable = &mut self.subtables[at as usize];
        let before = subtable.max_priority();
        if !subtable.remove(rule) {
            return false;
        }
        self.n_rules -= 1;
        if subtable.trie_plens.iter().any(|p| *p != 0) {
            let flow = cls.mini.flow();
            for ((field, trie), plen) in self.tries.iter_mut().zip(&subtable.trie_plens) {
                trie.remove(field.load(&flow), *plen);
            }
        }
        let priority = subtable.max_priority();
        if subtable.is_empty() {
            self.remove_subtable(at, before);
        } else if priority != before {
            self.rank(at, before, priority);
        }
        true
    }

    fn remove_subtable(&mut self, at: u32, priority: i32) {
        if let Some(place) = self.place_of(at, priority) {
            self.order.remove(place);
        }
        let gone = self.subtables.swap_remove(at as usize);
        self.by_mask.remove(&gone.mask);
        let moved = self.subtables.len() as u32;
        if at != moved {
            self.order.iter_mut().filter(|rank| rank.at == moved).for_each(|rank| rank.at = at);
            self.by_mask.insert(self.subtables[at as usize].mask.clone(), at);
        }
    }

    fn lookup(
        &self,
        version: u64,
        flow: &Flow,
        wc: &mut Option<&mut Mask>,
        conjunctive: bool,
        conj_rules: Option<&mut Vec<Arc<R>>>,
    ) -> Option<&Arc<R>> {
        let mut tries = TrieLookup::new(&self.tries);
        let mut hard: Option<&Arc<R>> = None;
        let mut hard_priority = i32::MIN;
        let mut soft: Vec<(&Arc<R>, &Subtable<R>)> = Vec::new();
        for rank in &self.order {
            if hard.is_some() && rank.priority <= hard_priority {
                break;
            }
            let subtable = &self.subtables[rank.at as usize];
            let found = match wc {
                Some(wc) => subtable.lookup_wc(version, flow, &mut tries, wc),
                None => subtable.lookup(version, flow),
            };
            let Some(rule) = found else { continue };
            let priority = rule.cls().priority();
            if hard.is_some() && priority <= hard_priority {
                continue;
            }
            if rule.cls().conjunctions().is_empty() {
                hard = Some(rule);
                hard_priority = priority;
            } else if conjunctive {
                soft.push((rule, subtable));
            }
        }
        if soft.is_empty() {
            return hard;
        }
        self.resolve_soft(version, flow, wc, hard, soft, conj_rules)
    }

    /// Tells which conjunctive matches are real, falling back to lower priorities.
    fn resolve_soft<'a>(
        &'a self,
        version: u64,
        flow: &Flow,
        wc: &mut Option<&mut Mask>,
        mut hard: Option<&'a Arc<R>>,
        mut soft: Vec<(&'a Arc<R>, &'a Subtable<R>)>,
        mut conj_rules: Option<&mut Vec<Arc<R>>>,
    ) -> Option<&'a Arc<R>> {
        loop {
            let floor = hard.map(|r| r.cls().priority());
            soft.retain(|(r, _)| floor.is_none_or(|f| r.cls().priority() > f));
            let Some(top) = soft.iter().map(|(r, _)| r.cls().priority()).max() else { return hard };
            let best = soft.iter().filter(|(r, _)| r.cls().priority() == top);
            if let Some(id) = satisfied_conjunction(best.clone().map(|(r, _)| r.cls().conjunctions())) {
                let mut with_id = flow.clone();
                with_id.conj_id = id;
                if let Some(rule) = self.lookup(version, &with_id, wc, false, None) {
                    if let Some(out) = conj_rules.as_deref_mut() {
                        out.extend(
                            best.filter(|(r, _)| r.cls().conjunctions().iter().any(|c| c.id == id))
                                .map(|(r, _)| Arc::clone(r)),
                        );
                    }
                    return Some(rule);
                }
            }
            // Not real. A rule of the same match but lower priority takes the place of each.
            let mut next = Vec::new();
            for (rule, subtable) in soft {
                if rule.cls().priority() != top {
                    next.push((rule, subtable));
                    continue;
                }
                let lower = subtable.same_match(&rule.cls().mini, version).find(|r| r.cls().priority() < top);
                let Some(lower) = lower else { continue };
                if !lower.cls().conjunctions().is_empty() {
                    next.push((lower, subtable));
                } else if hard.is_none_or(|h| lower.cls().priority() > h.cls().priority()) {
                    hard = Some(lower);
                }
            }
            soft = next;
        }
    }
}

/// The id of a conjunction of which every clause is satisfied.
fn satisfied_conjunction<'a>(sets: impl Iterator<Item = &'a [Conjunction]>) -> Option<u32> {
    let mut seen: HashMap<(u32, u8), u64> = HashMap::new();
    for c in sets.flatten() {
        let clauses = seen.entry((c.id, c.n_clauses)).or_insert(0);
        *clauses |= 1 << (c.clause & 63);
        if *clauses == (if c.n_clauses >= 64 { u64::MAX } else { (1 << c.n_clauses) - 1 }) {
            return Some(c.id);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::ClsRule;
    use ib_packet::{Be16, Be32};

    /// xorshift: the same sequence on each run.
    struct Rng(u64);
    impl Rng {
        fn below(&mut self, n: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as u32 % n
        }
    }

    fn random_flow(r: &mut Rng) -> Flow {
        let mut f = Flow::zeroed();
        f.in_port = r.below(3);
        f.regs[0] = r.below(2);
        f.dl_type = Be16::new([0x800, 0x806][r.below(2) as usize]);
        f.dl_src.0[5] = r.below(3) as u8;
        f.nw_dst = Be32::new(0x0a00_0000 | r.below(4) << 16 | r.below(3));
        f.nw_src = Be32::new(0x0b00_0000 | r.below(3));
        f.nw_proto = [6, 17][r.below(2) as usize];
        f.tp_src = Be16::new(r.below(3) as u16);
        f.tp_dst = Be16::new(r.below(4) as u16 * 16);
        f
    }

    fn random_match(r: &mut Rng) -> Match {
        let mut m = Match { flow: random_flow(r), ..Match::catch_all() };
        let mut bit = || r.below(3) == 0;
        let k = &mut m.mask.0;
        if bit() {
            k.in_port = u32::MAX;
        }
        if bit() {
            k.regs[0] = u32::MAX;
        }
        if bit() {
            k.dl_type = Be16::MAX;
        }
        if bit() {
            k.dl_src.0 = [0xff; 6];
        }
        if bit() {
            k.nw_dst = Be32::new(0xffff_0000);
        } else if bit() {
            k.nw_dst = Be32::MAX;
        } else if bit() {
            k.nw_dst = Be32::new(0x0000_00ff);
        }
        if bit() {
            k.nw_src = Be32::MAX;
        }
        if bit() {
            k.nw_proto = 0xff;
        }
        if bit() {
            k.tp_src = Be16::MAX;
        }
        if bit() {
            k.tp_dst = Be16::new(0xfff0);
        }
        m.normalize();
        m
    }

    #[test]
    fn agrees_with_linear_search_and_masks_are_sound() {
        for seed in 1..16 {
            let mut r = Rng(seed * 0x9e37_79b9);
            let cls: Classifier<ClsRule> = Classifier::new();
            let mut linear: Vec<Arc<ClsRule>> = Vec::new();
            for n in 0..40 {
                let m = random_match(&mut r);
                let add = u64::from(r.below(4));
                // Distinct priorities: the answer is unique.
                let rule = Arc::new(ClsRule::new(&m, n, &[], add));
                if r.below(4) == 0 {
                    rule.remove_in(u64::from(r.below(6)));
                }
                cls.insert(Arc::clone(&rule));
                linear.push(rule);
                if r.below(6) == 0 {
                    let gone = linear.swap_remove(r.below(linear.len() as u32) as usize);
                    assert!(cls.remove(&gone));
                }
            }
            assert_eq!(cls.len(), linear.len());
            let best = |version: u64, f: &Flow| {
                linear
                    .iter()
                    .filter(|r| r.is_visible(version) && r.mini().matches(f))
                    .map(|r| r.priority())
                    .max()
            };
            for _ in 0..12 {
                let f = random_flow(&mut r);
                let version = u64::from(r.below(6));
                let mut wc = Mask::default();
                let got = cls.lookup(version, &f, Some(&mut wc)).map(|r| r.priority());
                assert_eq!(got, best(version, &f));
                assert_eq!(got, cls.lookup(version, &f, None).map(|r| r.priority()));
                for word in 0..ib_flow::key::FLOW_WORDS {
                    for bit in 0..64 {
                        if wc.0.words()[word] >> bit & 1 == 0 {
                            let mut g = f.clone();
                            g.words_mut()[word] ^= 1 << bit;
                            assert_eq!(best(version, &g), got, "word {word} bit {bit} was not masked");
                        }
                    }
                }
            }
        }
    }

    fn on_port(port: u32, dst: Option<u32>) -> Match {
        let mut m = Match::catch_all();
        m.flow.in_port = port;
        m.mask.0.in_port = if port == 0 { 0 } else { u32::MAX };
        if let Some(d) = dst {
            m.flow.nw_dst = Be32::new(d);
            m.mask.0.nw_dst = Be32::MAX;
        }
        m
    }

    #[test]
    fn conjunctions_need_all_clauses() {
        let cls: Classifier<ClsRule> = Classifier::new();
        let clause = |clause| [Conjunction { id: 7, clause, n_clauses: 2 }];
        cls.insert(Arc::new(ClsRule::new(&on_port(1, None), 10, &clause(0), 0)));
        cls.insert(Arc::new(ClsRule::new(&on_port(0, Some(5)), 10, &clause(1), 0)));
        let mut by_id = Match::catch_all();
        by_id.flow.conj_id = 7;
        by_id.mask.0.conj_id = u32::MAX;
        cls.insert(Arc::new(ClsRule::new(&by_id, 10, &[], 0)));
        cls.insert(Arc::new(ClsRule::new(&on_port(1, None), 5, &[], 0)));
        let mut f = Flow::zeroed();
        f.in_port = 1;
        assert_eq!(cls.lookup(0, &f, None).unwrap().priority(), 5);
        f.nw_dst = Be32::new(5);
        let mut used = Vec::new();
        let hit = cls.lookup_conj(0, &f, Some(&mut Mask::default()), Some(&mut used)).unwrap();
        assert_eq!((hit.match_(), used.len()), (by_id, 2));
        f.in_port = 2;
        assert!(cls.lookup(0, &f, None).is_none());
    }

    #[test]
    fn strict_loose_and_overlap() {
        let cls: Classifier<ClsRule> = Classifier::new();
        cls.insert(Arc::new(ClsRule::new(&on_port(1, None), 10, &[], 0)));
        cls.insert(Arc::new(ClsRule::new(&on_port(1, Some(9)), 10, &[], 0)));
        cls.insert(Arc::new(ClsRule::new(&on_port(2, None), 10, &[], 3)));
        assert!(cls.find_exact(&on_port(1, None), 10, 0).is_some());
        assert!(cls.find_exact(&on_port(1, None), 11, 0).is_none());
        assert_eq!(cls.collect_loose(&MiniMatch::new(&on_port(1, None)), 0).len(), 2);
        assert_eq!(cls.collect_loose(&MiniMatch::catch_all(), 2).len(), 2);
        assert_eq!(cls.collect_loose(&MiniMatch::catch_all(), 3).len(), 3);
        assert!(cls.find_overlap(&MiniMatch::new(&on_port(0, Some(9))), 10, 0).is_some());
        assert!(cls.find_overlap(&MiniMatch::new(&on_port(3, Some(9))), 10, 0).is_none());
        assert!(cls.find_overlap(&MiniMatch::new(&on_port(0, Some(9))), 9, 0).is_none());
    }

    #[test]
    fn subtables_stay_in_order() {
        let mut r = Rng(7);
        let cls: Classifier<ClsRule> = Classifier::new();
        let mut rules: Vec<Arc<ClsRule>> = Vec::new();
        // Masks with the priorities of their rules, sorted as a whole after each change.
        let mut model: Vec<(MiniMask, Vec<i32>)> = Vec::new();
        for _ in 0..2000 {
            if rules.len() < 30 && r.below(2) == 0 {
                let rule = Arc::new(ClsRule::new(&random_match(&mut r), r.below(5) as i32, &[], 0));
                let (mask, priority) = (rule.mini().mask(), rule.priority());
                match model.iter_mut().find(|(m, _)| m == mask) {
                    Some((_, priorities)) => priorities.push(priority),
                    None => model.push((mask.clone(), vec![priority])),
                }
                cls.insert(Arc::clone(&rule));
                rules.push(rule);
            } else if !rules.is_empty() {
                let rule = rules.swap_remove(r.below(rules.len() as u32) as usize);
                assert!(cls.remove(&rule));
                let (_, priorities) = model.iter_mut().find(|(m, _)| m == rule.mini().mask()).unwrap();
                priorities.swap_remove(priorities.iter().position(|p| *p == rule.priority()).unwrap());
                model.retain(|(_, priorities)| !priorities.is_empty());
            }
            model.sort_by_key(|(_, priorities)| std::cmp::Reverse(*priorities.iter().max().unwrap()));
            assert_eq!(cls.masks(), model.iter().map(|(m, _)| m.clone()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_leave_together() {
        let cls: Classifier<ClsRule> = Classifier::new();
        let rules: Vec<Arc<ClsRule>> =
            (1..=9).map(|n| Arc::new(ClsRule::new(&on_port(n % 3, Some(n)), 10, &[], 0))).collect();
        rules.iter().for_each(|r| cls.insert(Arc::clone(r)));
        cls.remove_all(&rules[..4]);
        let mut f = Flow::zeroed();
        (f.dl_type, f.in_port, f.nw_dst) = (Be16::new(0x800), 2, Be32::new(2));
        assert!(cls.lookup(0, &f, None).is_none());
        f.nw_dst = Be32::new(5);
        assert!(cls.lookup(0, &f, None).is_some());
        cls.remove_all(&rules[4..]);
        assert_eq!((cls.len(), cls.n_masks()), (0, 0));
        let mut wc = Mask::default();
        assert!(cls.lookup(0, &f, Some(&mut wc)).is_none());
        assert_eq!(wc, Mask::default(), "nothing is left that could be looked at");
    }

    #[test]
    fn prefix_fields_can_change() {
        let cls: Classifier<ClsRule> = Classifier::new();
        cls.insert(Arc::new(ClsRule::new(&on_port(0, Some(0x0a00_0001)), 1, &[], 0)));
        let mut f = Flow::zeroed();
        f.dl_type = Be16::new(0x800);
        f.nw_dst = Be32::new(0xc000_0001);
        let mut wc = Mask::default();
        assert!(cls.lookup(0, &f, Some(&mut wc)).is_none());
        assert_eq!(wc.0.nw_dst, Be32::new(0x8000_0000));
        assert!(cls.set_prefix_fields(&[]));
        let mut wc = Mask::default();
        assert!(cls.lookup(0, &f, Some(&mut wc)).is_none());
        assert_eq!(wc.0.nw_dst, Be32::MAX);
    }
}
