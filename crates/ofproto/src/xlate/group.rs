//! Groups, and the hashes by which actions choose.

use std::cmp::Reverse;
use std::sync::Arc;

use ib_dpif::HashAlg;
use ib_flow::hash::{self, two_words};
use ib_flow::{Flow, Mask};
use ib_openflow::action::{HashFields, Multipath, MultipathAlg};
use ib_openflow::message::{Bucket, GroupType, OFPG_ANY};

use super::Ctx;
use super::cache::CacheEntry;
use super::trace::Kind;
use crate::group::Group;

/// Groups within groups: as deep as resubmits.
const MAX_LIVENESS_RECURSION: u32 = 128;

/// Hashes the fields that an action asks for, and marks them as looked at.
pub(crate) fn hash_fields(wc: &mut Mask, flow: &Flow, fields: HashFields, basis: u16) -> u32 {
    fields.unwildcard(flow, wc);
    fields.hash(flow, basis)
}

/// Chooses a link.
pub(crate) fn multipath_link(mp: &Multipath, hash: u32) -> u16 {
    let n = u32::from(mp.max_link) + 1;
    let link = match mp.alg {
        MultipathAlg::ModuloN => hash % n,
        MultipathAlg::HashThreshold => {
            if n == 1 {
                0
            } else {
                (u64::from(hash) / (u64::from(u32::MAX) / u64::from(n) + 1)) as u32
            }
        }
        // Of equal ones the first.
        MultipathAlg::Hrw => (0..n).max_by_key(|i| (two_words(hash, *i), Reverse(*i))).unwrap_or_default(),
        MultipathAlg::IterHash => {
            let mut modulo = mp.arg;
            if modulo < n || modulo / 2 > n {
                modulo = n.next_power_of_two();
            }
            // Each round fails with a chance of a half at most.
            let mut rounds = (0..=u32::MAX).map(|i| two_words(hash, i) % modulo);
            rounds.find(|link| *link < n).unwrap_or_default()
        }
    };
    u16::try_from(link).unwrap_or(0)
}

impl Ctx<'_> {
    /// Whether a bucket may be used. One that may not is told of.
    fn is_bucket_live(&mut self, b: &Bucket, kind: GroupType, depth: u32) -> bool {
        let is_live = match kind {
            GroupType::Select if b.weight == 0 => false,
            _ => self.is_watched_live(b, kind, depth),
        };
        if !is_live {
            self.report(Kind::Detail, || format!("bucket {}: not live due to {}", b.bucket_id, watched(b)));
        }
        is_live
    }

    fn is_watched_live(&mut self, b: &Bucket, kind: GroupType, depth: u32) -> bool {
        if depth >= MAX_LIVENESS_RECURSION {
            return false;
        }
        if b.watch_port == ib_flow::OfPort::NONE && b.watch_group == OFPG_ANY {
            return kind != GroupType::FastFailover;
        }
        if self.bridge.ports.get(&b.watch_port).is_some_and(|p| p.live) {
            return true;
        }
        let group = if b.watch_group == OFPG_ANY { None } else { self.bridge.of.group(b.watch_group) };
        group.is_some_and(|g| g.buckets.iter().any(|(b, _)| self.is_bucket_live(b, g.kind, depth + 1)))
    }

    /// `group:ID`. Returns false if there is no such group.
    pub fn group_action(&mut self, id: u32, is_last: bool) -> bool {
        if !self.may_resubmit() {
            return true;
        }
        let Some(group) = self.bridge.of.group(id) else {
            self.warn(&format!("output to nonexistent group {id}"));
            return false;
        };
        let chosen: Vec<usize> = match group.kind {
            GroupType::All | GroupType::Indirect => (0..group.buckets.len()).collect(),
            GroupType::FastFailover => {
                let found = group.buckets.iter().position(|(b, _)| self.is_bucket_live(b, group.kind, 0));
                found.into_iter().collect()
            }
            GroupType::Select => match self.pick_bucket(&group) {
                Pick::Bucket(b) => vec![b],
                Pick::None => Vec::new(),
                Pick::Hash => {
                    self.detail("no live bucket");
                    return true;
                }
            },
        };
        if chosen.is_empty() && !matches!(group.kind, GroupType::All | GroupType::Indirect) {
            self.detail("no live bucket");
        }
        self.cache.push(CacheEntry::Group(Arc::clone(&group), chosen.clone()));
        let n = chosen.len();
        for (i, at) in chosen.into_iter().enumerate() {
            let id = group.buckets[at].0.bucket_id;
            if matches!(group.kind, GroupType::Select | GroupType::FastFailover) {
                self.report(Kind::Detail, || format!("using bucket {id}"));
            }
            let before = self.enter_trace(Kind::Bucket, || format!("bucket {id}"));
            self.depth += 1;
            self.bucket_actions(&group, at, is_last && i + 1 == n);
            self.depth -= 1;
            self.leave_trace(before);
        }
        true
    }

    /// A bucket's actions are an action set of their own, on a copy of the packet.
    fn bucket_actions(&mut self, group: &Group, at: usize, is_last: bool) {
        let list = super::actions::execution_order(&group.buckets[at].0.actions);
        self.clone_actions(&list, is_last, true);
    }

    fn pick_bucket(&mut self, group: &Group) -> Pick {
        let by_fields = group.props.selection_method == "hash" && !group.props.fields.is_empty();
        if by_fields {
            let mut h = hash::number(group.props.selection_method_param);
            for (field, mask) in &group.props.fields {
                let f = field.field();
                let bits = ib_flow::FieldValue::from_bytes(mask);
                if f.are_prereqs_ok(&self.flow, Some(&mut self.wc)) {
                    f.unwildcard_bits(&mut self.wc, &bits);
                    let v = f.get(&self.flow).and(&bits);
                    h = hash::bytes(v.bytes(f.n_bytes), h);
                }
            }
            return self.weighted(group, h);
        }
        let method = group.props.selection_method.as_str();
        let map = match method {
            // By fields, but none were named.
            "hash" => None,
            "dp_hash" => webster(group, 256),
            _ => webster(group, 64),
        };
        let Some(map) = map else {
            let h = hash_fields(&mut self.wc, &self.flow, HashFields::SymmetricL4, 0);
            return self.weighted(group, h);
        };
        if self.flow.dp_hash == 0 {
            let (alg, basis) = if method == "dp_hash" {
                (group.props.selection_method_param >> 32, group.props.selection_method_param as u32)
            } else {
                (1, 0)
            };
            let sym = alg == 1 && self.bridge.features.max_hash_alg >= 1;
            self.freeze_with_hash(if sym { HashAlg::SymL4 } else { HashAlg::L4 }, basis);
            return Pick::Hash;
        }
        let mask = map.len() - 1;
        self.wc.0.dp_hash |= mask as u32;
        let start = self.flow.dp_hash as usize;
        let mut slots = (0..map.len()).map(|i| map[(start + i) & mask]);
        let found = slots.find(|b| self.is_bucket_live(&group.buckets[*b].0, group.kind, 0));
        found.map_or(Pick::None, Pick::Bucket)
    }

    /// The live bucket of highest random weight, of equal ones the last.
    fn weighted(&mut self, group: &Group, hash: u32) -> Pick {
        let mut best = None;
        for (i, (b, _)) in group.buckets.iter().enumerate() {
            if !self.is_bucket_live(b, group.kind, 0) {
                continue;
            }
            let score = (two_words(b.bucket_id, hash) & 0xffff) * u32::from(b.weight);
            self.report(Kind::Detail, || format!("bucket {}: score {score}", b.bucket_id));
            if best.is_none_or(|(highest, _)| score >= highest) {
                best = Some((score, i));
            }
        }
        best.map_or(Pick::None, |(_, i)| Pick::Bucket(i))
    }
}

/// What a bucket's life depends on, as a trace names it: a group is shown as a port there.
fn watched(b: &Bucket) -> String {
    let port = (b.watch_port != ib_flow::OfPort::NONE).then(|| format!("port {}", b.watch_port));
    let group = (b.watch_group != OFPG_ANY).then(|| format!("port {}", b.watch_group));
    port.into_iter().chain(group).collect::<Vec<_>>().join(" and ")
}

enum Pick {
    Bucket(usize),
    None,
    /// Comes back with a hash.
    Hash,
}

/// Spreads hash values over buckets by weight (Webster's method), as many as the lightest one needs but a
/// power of two and at least 16. `None`: more than `max`.
fn webster(group: &Group, max: usize) -> Option<Vec<usize>> {
    let weights: Vec<u16> = group.buckets.iter().map(|(b, _)| b.weight).collect();
    let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    let lightest = weights.iter().copied().filter(|w| *w != 0).min()?;
    let slots = usize::try_from(total.div_ceil(lightest.into())).ok()?;
    let n = slots.max(16).next_power_of_two();
    if n > max {
        return None;
    }
    let mut divisor = vec![1u32; weights.len()];
    let value = |i: usize, d: u32| f64::from(weights[i]) / f64::from(d);
    Some(
        (0..n)
            .map(|_| {
                let mut winner = 0;
                for i in 1..weights.len() {
                    if value(i, divisor[i]) > value(winner, divisor[winner]) {
                        winner = i;
                    }
                }
                divisor[winner] += 2;
                winner
            })
            .collect(),
    )
}
