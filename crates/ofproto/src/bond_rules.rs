//! Members of balance-tcp by the datapath's hash: as flows, or as a table of the datapath's own.
//!
//! A packet for such a bond ends its first pass in `hash(l4),recirc(ID)`. ID resumes it in the internal table, where 256
//! rules, one for each value of the hash's low byte, know the member. The rules' counters are what rebalancing goes by.
//!
//! Where the datapath chooses by itself (`lb_output`), it has the members and counts their bytes ([`LbOutput`]).
//!
//! Main thread; a change costs in proportion to the buckets that changed their member.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::time::Instant;
use ib_base::vlog::module::BOND;
use ib_base::vlog_warn_rl;
use ib_dpif::Dpif;
use ib_flow::{Flow, Match, OdpPort, OfPort};
use ib_openflow::action::Action;

use crate::ofproto::{INTERNAL_TABLE, Ofproto, new_internal};
use crate::recirc::{FrozenMetadata, FrozenState};
use crate::rule::Rule;

const PRIORITY: i32 = 20;

/// The rules of one bond.
pub(crate) struct BondRules {
    id: u32,
    buckets: Vec<Bucket>,
}

struct Bucket {
    member: OfPort,
    rule: Arc<Rule>,
    /// Bytes of the rule that the bond has heard of.
    seen: u64,
}

/// What a bond's packets resume with: nothing but the internal table.
pub(crate) fn frozen_state(of: &Ofproto) -> FrozenState {
    FrozenState {
        bridge: of.id,
        table: INTERNAL_TABLE,
        metadata: FrozenMetadata {
            tunnel: Box::new(Flow::zeroed().tunnel),
            metadata: Default::default(),
            regs: Default::default(),
            in_port: OfPort::NONE,
        },
        stack: Vec::new(),
        mirrors: 0,
        conntracked: false,
        was_mpls: false,
        actions: Vec::new(),
        action_set: Vec::new(),
        rule_cookie: 0,
        resumes: true,
        userdata: Vec::new(),
    }
}

impl BondRules {
    /// No rules yet for the bond of this number.
    pub fn new(id: u32) -> BondRules {
        BondRules { id, buckets: Vec::new() }
    }

    /// Makes the rules lead to these members, one for each bucket; none: there are no rules.
    pub fn set(&mut self, of: &Ofproto, members: &[OfPort], now: Instant) {
        let is_same = members.len() == self.buckets.len()
            && members.iter().zip(&self.buckets).all(|(member, b)| *member == b.member);
        if is_same {
            return;
        }
        let cls = &of.tables[usize::from(INTERNAL_TABLE)].cls;
        let old = std::mem::take(&mut self.buckets);
        let mut writer = of.flows.lock();
        let next = of.current_version() + 1;
        let mut old = old.into_iter();
        for (hash, member) in (0u32..).zip(members) {
            match old.next() {
                Some(b) if b.member == *member => {
                    self.buckets.push(b);
                    continue;
                }
                Some(b) => writer.leaves(b.rule, next),
                None => {}
            }
            let mut m = Match::catch_all();
            (m.flow.recirc_id, m.mask.0.recirc_id) = (self.id, u32::MAX);
            (m.flow.dp_hash, m.mask.0.dp_hash) = (hash, 0xff);
            let output = Action::Output { port: *member, max_len: 0 };
            let mut new = new_internal(&m, PRIORITY, vec![output], now);
            new.version = next;
            let rule = Rule::new(new);
            cls.insert(Arc::clone(&rule));
            self.buckets.push(Bucket { member: *member, rule, seen: 0 });
        }
        for b in old {
            writer.leaves(b.rule, next);
        }
        of.version.store(next, Ordering::Release);
        of.changed.bump();
    }

    /// Bytes by bucket since the last call.
    pub fn take_bytes(&mut self) -> Vec<u64> {
        let more = |b: &mut Bucket| {
            let (_, bytes) = b.rule.stats();
            bytes.saturating_sub(std::mem::replace(&mut b.seen, bytes))
        };
        self.buckets.iter_mut().map(more).collect()
    }
}

/// A bond's members as the datapath has them.
pub(crate) struct LbOutput {
    id: u32,
    ports: Vec<OdpPort>,
    /// Bytes by bucket that the bond has heard of.
    seen: Vec<u64>,
}

impl LbOutput {
    /// Nothing in the datapath yet.
    pub fn new(id: u32) -> LbOutput {
        LbOutput { id, ports: Vec::new(), seen: Vec::new() }
    }

    /// Makes the datapath choose among these ports, one for each bucket.
    pub fn set(&mut self, dpif: &dyn Dpif, ports: Vec<OdpPort>) {
        if self.ports == ports || ports.is_empty() {
            return;
        }
        match dpif.bond_set(self.id, &ports) {
            Ok(()) => self.ports = ports,
            Err(e) => vlog_warn_rl!(BOND, (1, 5), "bond-id {}: {e}", self.id),
        }
    }

    /// Bytes by bucket since the last call.
    pub fn take_bytes(&mut self, dpif: &dyn Dpif) -> Vec<u64> {
        let bytes = dpif.bond_bytes(self.id).unwrap_or_default();
        let seen = std::mem::replace(&mut self.seen, bytes.clone());
        let before = |i: usize| seen.get(i).copied().unwrap_or(0);
        bytes.iter().enumerate().map(|(i, n)| n.saturating_sub(before(i))).collect()
    }

    /// The datapath need not know the bond any more.
    pub fn remove(self, dpif: &dyn Dpif) {
        // One that never came can't go.
        let _ = dpif.bond_del(self.id);
    }
}
