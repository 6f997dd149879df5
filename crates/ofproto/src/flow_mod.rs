//! Changing flow tables: flow_mods, bundles of them, expiry, eviction.
//!
//! A change happens in two steps. [`Txn`] *starts* flow_mods in the next version: new rules go into the
//! classifier invisible to the present, old ones are marked to disappear. *Commit* publishes that version, so
//! that readers see all of it or nothing; *revert* (dropping the `Txn` uncommitted) undoes the marks. Rules
//! that nobody can see any more leave the classifier on the next `Ofproto::collect_garbage`, when no
//! translation that began in the old version is still running.
//!
//! A flow_mod comes as a [`RuleMod`]: its match in the one form that rules have, and small.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::time::Instant;
use ib_classifier::{AsClsRule, MiniMatch, PrefixField, VERSION_NOT_REMOVED};
use ib_flow::text::parse::set_default_packet_type;
use ib_flow::{Flow, Mask, Match, OfPort};
use ib_openflow::action::Action;
use ib_openflow::error::OfError;
use ib_openflow::message::{FlowMod, FlowModCommand, FlowModFlags, FlowRemovedReason, OFPG_ANY, OFPTT_ALL};
use parking_lot::MutexGuard;

use crate::config::TableConfig;
use crate::learned::LearnedCookies;
use crate::ofproto::{INTERNAL_TABLE, N_TABLES, Ofproto};
use crate::rule::{NewRule, PushStats, Rule};

/// What happened to a flow, for controllers.
#[derive(Clone, Debug)]
pub enum FlowEvent {
    /// Added, or added again over an identical one: that one.
    Added(Arc<Rule>, Option<Arc<Rule>>),
    /// Actions or cookie changed from those of the second.
    Modified(Arc<Rule>, Arc<Rule>),
    /// Gone.
    Removed(Arc<Rule>, FlowRemovedReason),
}

/// Who asked for a change: connection and transaction, for flow monitors. Zero: the switch itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Connection.
    pub conn: u64,
    /// Transaction id of its message.
    pub xid: u32,
}

/// What the writer of tables keeps beside them.
#[derive(Default)]
pub(crate) struct FlowState {
    /// Rules that left in a published version but are still in their classifier.
    garbage: Vec<Arc<Rule>>,
    /// Rules with timeouts by the earliest moment at which one could have expired.
    expirable: BinaryHeap<Reverse<Expiry>>,
    /// Which rules vouch for what they teach.
    learned: LearnedCookies,
    /// For the main thread.
    events: Vec<(FlowEvent, Origin)>,
}

impl FlowState {
    /// A rule of the internal table goes with a version; nobody is told.
    pub(crate) fn leaves(&mut self, rule: Arc<Rule>, version: u64) {
        rule.cls().remove_in(version);
        self.garbage.push(rule);
    }
}

struct Expiry {
    at: Instant,
    rule: Arc<Rule>,
}
impl PartialEq for Expiry {
    fn eq(&self, o: &Self) -> bool {
        self.at == o.at
    }
}
impl Eq for Expiry {}
impl PartialOrd for Expiry {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Expiry {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        self.at.cmp(&o.at)
    }
}

/// A change that is being put together; see the module's description.
pub struct Txn<'a> {
    of: &'a Ofproto,
    flows: MutexGuard<'a, FlowState>,
    next: u64,
    now: Instant,
    added: Vec<Arc<Rule>>,
    replaced: Vec<(Arc<Rule>, Arc<Rule>, Replace)>,
    removed: Vec<(Arc<Rule>, FlowRemovedReason)>,
    /// Who asked last.
    origin: Origin,
    committed: bool,
}

/// What a flow was before it came.
#[derive(Clone, Copy)]
pub(crate) struct Past {
    /// When it was added.
    pub created: Instant,
    /// When it was last changed.
    pub modified: Instant,
    /// Its packets.
    pub stats: PushStats,
}

#[derive(Clone, Copy)]
struct Replace {
    /// Counts go on.
    keep_counts: bool,
    /// By add instead of modify.
    by_add: bool,
}

/// How loose flow_mods and statistics requests choose flows.
#[derive(Clone, Debug)]
pub struct Criteria<'a> {
    /// Table; 255 all.
    pub table: u8,
    /// Match.
    pub match_: &'a MiniMatch,
    /// Strict: exactly this match and this priority.
    pub strict: Option<i32>,
    /// Cookie, under its mask.
    pub cookie: u64,
    /// Bits that matter.
    pub cookie_mask: u64,
    /// Only those that output there.
    pub out_port: OfPort,
    /// Only those with that group.
    pub out_group: u32,
    /// Hidden ones too.
    pub hidden: bool,
}

impl Ofproto {
    /// Begins a change. Only one at a time: others wait.
    pub fn begin(&self, now: Instant) -> Txn<'_> {
        let flows = self.flows.lock();
        let next = self.current_version() + 1;
        Txn {
            of: self,
            flows,
            next,
            now,
            added: Vec::new(),
            replaced: Vec::new(),
            removed: Vec::new(),
            origin: Origin::default(),
            committed: false,
        }
    }

    /// One flow_mod, start to commit.
    pub fn flow_mod(&self, fm: RuleMod, origin: Origin, now: Instant) -> Result<(), OfError> {
        let mut txn = self.begin(now);
        txn.flow_mod(fm, origin)?;
        txn.commit();
        Ok(())
    }

    /// Visible rules that meet the criteria in a version.
    pub fn collect(&self, c: &Criteria<'_>, version: u64) -> Result<Vec<Arc<Rule>>, OfError> {
        let tables = match c.table {
            OFPTT_ALL => 0..usize::from(INTERNAL_TABLE),
            t if usize::from(t) < N_TABLES => usize::from(t)..usize::from(t) + 1,
            _ => return Err(OfError::OFPBRC_BAD_TABLE_ID),
        };
        let mut out = Vec::new();
        for table in &self.tables[tables] {
            let found = match c.strict {
                Some(priority) => {
                    table.cls.find_exact_mini(c.match_, priority, version).into_iter().collect()
                }
                None => table.cls.collect_loose(c.match_, version),
            };
            out.extend(found.into_iter().filter(|r| {
                (c.hidden || !r.is_hidden())
                    && (r.cookie ^ c.cookie) & c.cookie_mask == 0
                    && r.outputs_to(c.out_port)
                    && r.uses_group(c.out_group)
            }));
        }
        Ok(out)
    }

    /// Adds a rule that controllers can't see; its priority is above theirs. One that is there keeps its age and
    /// counters, and gets the actions.
    pub fn add_hidden(&self, match_: &Match, priority: i32, actions: Vec<Action>, now: Instant) {
        let mut txn = self.begin(now);
        let match_ = MiniMatch::new(match_);
        let old = self.tables[0].cls.find_exact_mini(&match_, priority, txn.next);
        if old.as_ref().is_some_and(|old| *old.actions == *actions) {
            return;
        }
        let rule = Rule::new(NewRule {
            match_,
            priority,
            table: 0,
            cookie: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            flags: 0,
            actions: share(actions),
            created: old.as_ref().map_or(now, |old| old.created),
            modified: now,
            used: old.as_ref().map(|old| old.used()),
            version: txn.next,
        });
        txn.insert(rule, old, Replace { keep_counts: true, by_add: true });
        txn.commit();
    }

    /// Removes a rule made by [`Self::add_hidden`].
    pub fn remove_hidden(&self, match_: &Match, priority: i32, now: Instant) {
        let mut txn = self.begin(now);
        if let Some(rule) = self.tables[0].cls.find_exact(match_, priority, txn.next) {
            txn.remove(rule, FlowRemovedReason::Delete);
            txn.commit();
        }
    }

    /// Removes all flows that controllers can see (and, if `hidden`, the others).
    pub fn flush_flows(&self, hidden: bool, now: Instant) {
        let mut txn = self.begin(now);
        let all = Criteria {
            table: OFPTT_ALL,
            match_: &MiniMatch::catch_all(),
            strict: None,
            cookie: 0,
            cookie_mask: 0,
            out_port: OfPort::NONE,
            out_group: OFPG_ANY,
            hidden,
        };
        for rule in self.collect(&all, txn.next).unwrap_or_default() {
            txn.remove(rule, FlowRemovedReason::Delete);
        }
        txn.commit();
    }

    /// Takes rules out of their classifiers that no version shows any more. Call it once a loop.
    pub(crate) fn collect_garbage(&self) {
        let mut garbage = std::mem::take(&mut self.flows.lock().garbage);
        garbage.sort_by_key(|rule| rule.table);
        for rules in garbage.chunk_by(|a, b| a.table == b.table) {
            self.tables[usize::from(rules[0].table)].cls.remove_all(rules);
        }
    }

    /// What happened to flows since the last call.
    pub(crate) fn take_flow_events(&self) -> Vec<(FlowEvent, Origin)> {
        std::mem::take(&mut self.flows.lock().events)
    }

    /// Removes rules whose time has come. Cost: those whose earliest deadline has passed.
    pub(crate) fn expire(&self, now: Instant) {
        let mut txn = self.begin(now);
        let mut again = Vec::new();
        while let Some(Reverse(first)) = txn.flows.expirable.peek() {
            if first.at > now {
                break;
            }
            let Some(Reverse(Expiry { rule, .. })) = txn.flows.expirable.pop() else { break };
            if rule.cls().is_removed() {
                continue;
            }
            let Some(at) = rule.deadline() else { continue };
            if at > now {
                again.push(Reverse(Expiry { at, rule }));
                continue;
            }
            let hard = rule.hard_timeout();
            let hard_due = hard != 0 && rule.modified().plus_ms(u64::from(hard) * 1000) < now;
            let reason =
                if hard_due { FlowRemovedReason::HardTimeout } else { FlowRemovedReason::IdleTimeout };
            ib_base::coverage::ofproto_dpif_expired.inc();
            txn.remove(rule, reason);
        }
        txn.flows.expirable.extend(again);
        if !txn.removed.is_empty() {
            txn.commit();
        }
    }

    /// A rule whose timeouts were lowered must be looked at earlier.
    pub(crate) fn timeouts_reduced(&self, rule: &Arc<Rule>) {
        if let Some(at) = rule.deadline() {
            self.flows.lock().expirable.push(Reverse(Expiry { at, rule: Arc::clone(rule) }));
        }
    }

    /// Applies a table's configuration by the database.
    pub fn set_table_config(&self, table: u8, config: &TableConfig, now: Instant) {
        let Some(t) = self.tables.get(usize::from(table)) else { return };
        if *t.config.lock() == *config {
            return;
        }
        *t.config.lock() = config.clone();
        let fields: Vec<PrefixField> = match &config.prefixes {
            Some(names) => names.iter().filter_map(|n| PrefixField::by_name(n)).collect(),
            None => PrefixField::DEFAULTS.to_vec(),
        };
        if t.cls.set_prefix_fields(&fields) {
            self.changed.bump();
        }
        let mut txn = self.begin(now);
        while let Some(limit) = config.flow_limit {
            if t.n_visible.load(Ordering::Relaxed) <= limit {
                break;
            }
            match txn.evictable(table) {
                Some(rule) if config.evict => txn.remove(rule, FlowRemovedReason::Eviction),
                _ => break,
            }
        }
        txn.commit();
    }
}

impl Txn<'_> {
    /// Starts the addition of a flow that has a past, in this switch or another. After an error the whole change must be
    /// given up.
    pub(crate) fn restore(&mut self, fm: &FlowMod, past: Past) -> Result<(), OfError> {
        self.add(rule_mod(fm.clone()), Some(past))
    }

    /// Starts one flow_mod. After an error the whole change must be given up.
    pub fn flow_mod(&mut self, fm: RuleMod, origin: Origin) -> Result<(), OfError> {
        self.origin = origin;
        if fm.flags & FlowModFlags::EMERG != 0 {
            return Err(OfError::OFPFMFC_TABLE_FULL);
        }
        match fm.command {
            FlowModCommand::Add => self.add(fm, None),
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => self.modify(fm),
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => self.delete(&fm),
        }
    }

    fn check_actions(&self, fm: &RuleMod) -> Result<(), OfError> {
        check_actions(self.of, &fm.actions)
    }

    fn check_writable(fm: &RuleMod, table: u8) -> Result<(), OfError> {
        if table == INTERNAL_TABLE && fm.flags & FlowModFlags::NO_READONLY == 0 {
            return Err(OfError::OFPBRC_EPERM);
        }
        Ok(())
    }

    fn add(&mut self, fm: RuleMod, past: Option<Past>) -> Result<(), OfError> {
        let table = match fm.table_id {
            OFPTT_ALL => 0,
            t if usize::from(t) < N_TABLES => t,
            _ => return Err(OfError::OFPBRC_BAD_TABLE_ID),
        };
        Self::check_writable(&fm, table)?;
        self.check_actions(&fm)?;
        let priority = i32::from(fm.priority);
        let t = &self.of.tables[usize::from(table)];
        let old = t.cls.find_exact_mini(&fm.match_, priority, self.next);
        if old.is_none() {
            if fm.flags & FlowModFlags::CHECK_OVERLAP != 0
                && t.cls.find_overlap(&fm.match_, priority, self.next).is_some()
            {
                return Err(OfError::OFPFMFC_OVERLAP);
            }
            let (limit, evict) = {
                let c = t.config.lock();
                (c.flow_limit, c.evict || t.eviction.load(Ordering::Relaxed))
            };
            if limit.is_some_and(|l| t.n_visible.load(Ordering::Relaxed) >= l) {
                let victim = if evict { self.evictable(table) } else { None };
                let victim = victim.ok_or(OfError::OFPFMFC_TABLE_FULL)?;
                self.remove(victim, FlowRemovedReason::Eviction);
            }
        }
        let mut match_ = fm.match_;
        t.cls.share_mask(&mut match_);
        let rule = Rule::new(NewRule {
            match_,
            priority,
            table,
            cookie: fm.new_cookie,
            idle_timeout: fm.idle_timeout,
            hard_timeout: fm.hard_timeout,
            importance: fm.importance,
            flags: fm.flags,
            actions: share(fm.actions),
            created: past.map_or(self.now, |p| p.created),
            modified: past.map_or(self.now, |p| p.modified),
            used: old.as_ref().filter(|_| past.is_none()).map(|old| old.used()),
            version: self.next,
        });
        if let Some(past) = past {
            rule.credit(&past.stats);
        }
        let keep_counts = past.is_none() && fm.flags & FlowModFlags::RESET_COUNTS == 0;
        self.insert(rule, old, Replace { keep_counts, by_add: true });
        Ok(())
    }

    fn criteria(fm: &RuleMod, strict: bool) -> Criteria<'_> {
        let delete = matches!(fm.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        Criteria {
            table: fm.table_id,
            match_: &fm.match_,
            strict: strict.then_some(i32::from(fm.priority)),
            cookie: fm.cookie,
            cookie_mask: fm.cookie_mask,
            out_port: if delete { fm.out_port } else { OfPort::NONE },
            out_group: if delete { fm.out_group } else { OFPG_ANY },
            hidden: false,
        }
    }

    fn modify(&mut self, fm: RuleMod) -> Result<(), OfError> {
        let strict = fm.command == FlowModCommand::ModifyStrict;
        let rules = self.of.collect(&Self::criteria(&fm, strict), self.next)?;
        if rules.is_empty() {
            // OpenFlow 1.0 and 1.1 add what they can't find; a cookie of all ones says that it shall not.
            let may_add = fm.modify_cookie && fm.new_cookie != u64::MAX && fm.cookie_mask == 0;
            if !may_add {
                return Ok(());
            }
            let fm = FlowMod { command: FlowModCommand::Add, ..fm }.with_match(|m| m.expand());
            return self.add(rule_mod(fm), None);
        }
        self.check_actions(&fm)?;
        let new_cookie = (fm.modify_cookie && fm.new_cookie != u64::MAX).then_some(fm.new_cookie);
        if let Some(old) = rules.iter().find(|old| Self::check_writable(&fm, old.table).is_err()) {
            return Self::check_writable(&fm, old.table);
        }
        let actions = share(fm.actions);
        for old in rules {
            let rule = Rule::new(NewRule {
                match_: old.cls().mini().clone(),
                priority: old.priority(),
                table: old.table,
                cookie: new_cookie.unwrap_or(old.cookie),
                idle_timeout: old.idle_timeout(),
                hard_timeout: old.hard_timeout(),
                importance: old.importance,
                flags: old.flags,
                actions: Arc::clone(&actions),
                created: old.created,
                modified: self.now,
                used: Some(old.used()),
                version: self.next,
            });
            let keep_counts = fm.flags & FlowModFlags::RESET_COUNTS == 0;
            self.insert(rule, Some(old), Replace { keep_counts, by_add: false });
        }
        Ok(())
    }

    fn delete(&mut self, fm: &RuleMod) -> Result<(), OfError> {
        let strict = fm.command == FlowModCommand::DeleteStrict;
        for rule in self.of.collect(&Self::criteria(fm, strict), self.next)? {
            Self::check_writable(fm, rule.table)?;
            self.remove(rule, FlowRemovedReason::Delete);
        }
        Ok(())
    }

    fn insert(&mut self, rule: Arc<Rule>, old: Option<Arc<Rule>>, how: Replace) {
        let table = &self.of.tables[usize::from(rule.table)];
        match old {
            Some(old) => {
                old.cls().remove_in(self.next);
                self.replaced.push((old, Arc::clone(&rule), how));
            }
            None => {
                if !rule.is_hidden() {
                    table.n_visible.fetch_add(1, Ordering::Relaxed);
                }
                self.added.push(Arc::clone(&rule));
            }
        }
        table.cls.insert(rule);
    }

    /// The version that this change makes.
    pub(crate) fn version(&self) -> u64 {
        self.next
    }

    /// Removes a rule in the next version.
    pub fn remove(&mut self, rule: Arc<Rule>, reason: FlowRemovedReason) {
        rule.cls().remove_in(self.next);
        if !rule.is_hidden() {
            self.of.tables[usize::from(rule.table)].n_visible.fetch_sub(1, Ordering::Relaxed);
        }
        self.removed.push((rule, reason));
    }

    /// The rule that a full table should lose: least important, then soonest to expire. Flows without
    /// timeout stay.
    fn evictable(&self, table: u8) -> Option<Arc<Rule>> {
        self.of.tables[usize::from(table)]
            .cls
            .collect_loose(&MiniMatch::catch_all(), self.next)
            .into_iter()
            .filter(|r| !r.is_hidden())
            .filter_map(|r| r.deadline().map(|d| (r, d)))
            .min_by_key(|(r, d)| (r.importance, *d))
            .map(|(r, _)| r)
    }

    /// Makes the change visible, all at once.
    pub fn commit(mut self) {
        self.committed = true;
        if self.added.is_empty() && self.replaced.is_empty() && self.removed.is_empty() {
            return;
        }
        self.of.version.store(self.next, Ordering::Release);
        let replaced = self.replaced.iter().map(|(_, new, _)| new);
        let changed = self.added.iter().chain(replaced).chain(self.removed.iter().map(|(rule, _)| rule));
        self.of.changed.rules(self.of.id, changed);
        let origin = self.origin;
        let flows = &mut *self.flows;
        let came = self.added.iter().chain(self.replaced.iter().map(|(_, new, _)| new));
        let gone = self.replaced.iter().map(|(old, ..)| old).chain(self.removed.iter().map(|(rule, _)| rule));
        let orphans = flows.learned.follow(came.map(|r| &r.actions[..]), gone.map(|r| &r.actions[..]));
        for rule in self.added.drain(..) {
            if let Some(at) = rule.deadline() {
                flows.expirable.push(Reverse(Expiry { at, rule: Arc::clone(&rule) }));
            }
            flows.events.push((FlowEvent::Added(rule, None), origin));
        }
        for (old, new, how) in self.replaced.drain(..) {
            if how.keep_counts {
                old.succeed(&new);
            }
            if let Some(at) = new.deadline() {
                flows.expirable.push(Reverse(Expiry { at, rule: Arc::clone(&new) }));
            }
            if how.by_add {
                flows.events.push((FlowEvent::Added(new, Some(Arc::clone(&old))), origin));
            } else if old.cookie != new.cookie || old.actions != new.actions {
                flows.events.push((FlowEvent::Modified(new, Arc::clone(&old)), origin));
            }
            flows.garbage.push(old);
        }
        for (rule, reason) in self.removed.drain(..) {
            flows.events.push((FlowEvent::Removed(Arc::clone(&rule), reason), origin));
            flows.garbage.push(rule);
        }
        if !orphans.is_empty() {
            let (of, now) = (self.of, self.now);
            // The next change needs its lock.
            drop(self);
            of.forget_learned(&orphans, now);
        }
    }
}

impl Drop for Txn<'_> {
    /// Undoes what was started and not committed.
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let visible = |rule: &Rule, by: i32| {
            if !rule.is_hidden() {
                let n = &self.of.tables[usize::from(rule.table)].n_visible;
                if by > 0 {
                    n.fetch_add(1, Ordering::Relaxed)
                } else {
                    n.fetch_sub(1, Ordering::Relaxed)
                };
            }
        };
        for (rule, _) in self.removed.iter().rev() {
            rule.cls().remove_in(VERSION_NOT_REMOVED);
            visible(rule, 1);
        }
        for (old, new, _) in self.replaced.iter().rev() {
            self.of.tables[usize::from(new.table)].cls.remove(new);
            old.cls().remove_in(VERSION_NOT_REMOVED);
        }
        for rule in &self.added {
            self.of.tables[usize::from(rule.table)].cls.remove(rule);
            visible(rule, -1);
        }
    }
}

/// A flow_mod as tables of rules take it: see [`rule_mod`].
pub type RuleMod = FlowMod<MiniMatch>;

/// A flow_mod with its match in the one form that rules and criteria have, whatever version it came in.
///
/// Some versions' matches say that they are about Ethernet packets, others imply it. As long as a match names no
/// other type, a rule says it if it looks at headers (else it is one for packets of any type) and loose criteria never
/// do, so that one finds the other. The port of entry has 16 bits in one encoding and 32 in another.
pub fn rule_mod(mut fm: FlowMod) -> RuleMod {
    if matches!(fm.command, FlowModCommand::Modify | FlowModCommand::Delete) {
        canonical_criteria(&mut fm.match_);
    } else {
        canonical_match(&mut fm.match_);
    }
    fm.with_match(|m| MiniMatch::new(&m))
}

thread_local! {
    /// Lists of actions that this thread gave to rules lately, the next to go first.
    static LISTS: RefCell<VecDeque<Arc<[Action]>>> = const { RefCell::new(VecDeque::new()) };
}

/// How many lists of actions a thread remembers.
const RECENT_LISTS: usize = 8;

/// A list of actions, the same one for rules that come one after the other and do the same: most do one of a few
/// things.
fn share(actions: Vec<Action>) -> Arc<[Action]> {
    LISTS.with_borrow_mut(|lists| {
        if let Some(known) = lists.iter().rev().find(|known| ***known == *actions) {
            return Arc::clone(known);
        }
        if lists.len() == RECENT_LISTS {
            lists.pop_front();
        }
        let new: Arc<[Action]> = actions.into();
        lists.push_back(Arc::clone(&new));
        new
    })
}

/// A rule's match; see [`rule_mod`].
pub(crate) fn canonical_match(m: &mut Match) {
    canonical_in_port(m);
    if looks_at_headers(&m.mask) {
        set_default_packet_type(m);
    }
}

/// Whether a mask has bits of the Ethernet header or above.
fn looks_at_headers(mask: &Mask) -> bool {
    const FROM: usize = std::mem::offset_of!(Flow, dl_dst) / 8;
    const { assert!(FROM * 8 == std::mem::offset_of!(Flow, dl_dst)) };
    mask.0.words()[FROM..].iter().any(|w| *w != 0)
}

fn canonical_in_port(m: &mut Match) {
    if m.mask.0.in_port != 0 {
        m.mask.0.in_port = u32::MAX;
    }
}

/// Loose criteria in the form that finds rules of every version; see [`rule_mod`].
pub(crate) fn canonical_criteria(m: &mut Match) {
    canonical_in_port(m);
    if m.flow.packet_type.is_zero() {
        m.mask.0.packet_type = Default::default();
    }
}

/// Whether groups and meters that actions name are there, and learned flows have a place.
pub fn check_actions(of: &Ofproto, actions: &[Action]) -> Result<(), OfError> {
    for a in actions {
        match a {
            Action::Group(g) if !of.groups.read().contains_key(g) => {
                return Err(OfError::OFPBAC_BAD_OUT_GROUP);
            }
            Action::Meter(m) if !of.meters.read().contains_key(m) => {
                return Err(OfError::OFPMMFC_INVALID_METER);
            }
            Action::Learn(l) if l.table == INTERNAL_TABLE || l.table == OFPTT_ALL => {
                return Err(OfError::OFPBAC_BAD_ARGUMENT);
            }
            Action::WriteActions(v) | Action::Clone(v) => check_actions(of, v)?,
            _ => {}
        }
    }
    Ok(())
}
