//! One OpenFlow flow.
//!
//! Match, priority, cookie and actions never change: a modification makes a new rule that takes the old
//! one's place in one version. Counters are atomics that datapath threads and revalidation add to. A rule
//! that was modified passes late counts on to its successor, so that none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use ib_base::time::Instant;
use ib_classifier::{AsClsRule, ClsRule, Conjunction, MiniMatch};
use ib_flow::OfPort;
use ib_openflow::action::Action;
use parking_lot::Mutex;

/// Counters that a packet's translation adds to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Clock milliseconds of the last packet.
    pub used_ms: u64,
    /// OR of TCP flags.
    pub tcp_flags: u16,
}

/// A flow. See the module's description.
#[derive(Debug)]
pub struct Rule {
    cls: ClsRule,
    /// Counts rules: later ones have higher numbers.
    seq: u64,
    /// Table that it is in.
    pub table: u8,
    /// Cookie.
    pub cookie: u64,
    idle_timeout: AtomicU16,
    hard_timeout: AtomicU16,
    /// Eviction importance.
    pub importance: u16,
    /// `FlowModFlags` that it was made with.
    pub flags: u16,
    /// What it does.
    pub actions: Arc<[Action]>,
    /// When it was added.
    pub created: Instant,
    modified_ms: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    used_ms: AtomicU64,
    successor: Mutex<Option<Arc<Rule>>>,
}

impl AsClsRule for Rule {
    fn cls(&self) -> &ClsRule {
        &self.cls
    }
    fn order(&self) -> u64 {
        self.seq
    }
}

/// What a new rule is made of.
pub(crate) struct NewRule {
    pub match_: MiniMatch,
    pub priority: i32,
    pub table: u8,
    pub cookie: u64,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub importance: u16,
    pub flags: u16,
    pub actions: Arc<[Action]>,
    pub created: Instant,
    pub modified: Instant,
    /// When the rule whose place it takes was used.
    pub used: Option<Instant>,
    pub version: u64,
}

/// Numbers of rules.
static SEQ: AtomicU64 = AtomicU64::new(0);

/// The number that the next rule will have.
pub(crate) fn next_seq() -> u64 {
    SEQ.load(Ordering::Relaxed)
}

impl Rule {
    /// Its number: that of its last modification, for that makes a new rule.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
    pub(crate) fn new(n: NewRule) -> Arc<Rule> {
        let conjunctions: Vec<Conjunction> = n
            .actions
            .iter()
            .filter_map(|a| match a {
                Action::Conjunction { id, clause, n_clauses } => {
                    Some(Conjunction { id: *id, clause: *clause, n_clauses: *n_clauses })
                }
                _ => None,
            })
            .collect();
        Arc::new(Rule {
            seq: SEQ.fetch_add(1, Ordering::Relaxed),
            cls: ClsRule::from_mini(n.match_, n.priority, &conjunctions, n.version),
            table: n.table,
            cookie: n.cookie,
            idle_timeout: AtomicU16::new(n.idle_timeout),
            hard_timeout: AtomicU16::new(n.hard_timeout),
            importance: n.importance,
            flags: n.flags,
            actions: n.actions,
            created: n.created,
            modified_ms: AtomicU64::new(n.modified.as_ms()),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            used_ms: AtomicU64::new(n.used.unwrap_or(n.modified).as_ms()),
            successor: Mutex::new(None),
        })
    }

    /// Priority; hidden rules are above 65535.
    pub fn priority(&self) -> i32 {
        self.cls.priority()
    }
    /// Internal to the switch: controllers neither see nor change it.
    pub fn is_hidden(&self) -> bool {
        self.priority() > 0xffff
    }
    /// A table-miss flow: priority 0, matches everything.
    pub fn is_table_miss(&self) -> bool {
        if self.priority() != 0 {
            return false;
        }
        // That it is about Ethernet packets does not make it narrower.
        let mut mask = self.cls.mini().mask().expand();
        mask.0.packet_type = Default::default();
        mask == Default::default()
    }
    /// Seconds without packets after which it goes; 0: never.
    pub fn idle_timeout(&self) -> u16 {
        self.idle_timeout.load(Ordering::Relaxed)
    }
    /// Seconds after which it goes; 0: never.
    pub fn hard_timeout(&self) -> u16 {
        self.hard_timeout.load(Ordering::Relaxed)
    }
    /// Lowers the timeouts (`fin_timeout`); 0 leaves one alone.
    pub fn reduce_timeouts(&self, idle: u16, hard: u16) {
        let lower = |t: &AtomicU16, max: u16| {
            let cur = t.load(Ordering::Relaxed);
            if max != 0 && (cur == 0 || cur > max) {
                t.store(max, Ordering::Relaxed);
            }
        };
        lower(&self.idle_timeout, idle);
        lower(&self.hard_timeout, hard);
    }

    /// Packets and bytes.
    pub fn stats(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
    /// When a packet last hit it, or it was made.
    pub fn used(&self) -> Instant {
        Instant::from_ms(self.used_ms.load(Ordering::Relaxed))
    }
    /// When it was last modified; hard timeouts count from here.
    pub fn modified(&self) -> Instant {
        Instant::from_ms(self.modified_ms.load(Ordering::Relaxed))
    }
    /// Says that it was modified just now into what it was before.
    pub(crate) fn refresh(&self, now: Instant) {
        self.modified_ms.fetch_max(now.as_ms(), Ordering::Relaxed);
    }
    /// Counts packets; passes them on if the rule was replaced.
    pub fn credit(&self, s: &PushStats) {
        if let Some(next) = &*self.successor.lock() {
            return next.credit(s);
        }
        self.packets.fetch_add(s.packets, Ordering::Relaxed);
        self.bytes.fetch_add(s.bytes, Ordering::Relaxed);
        self.used_ms.fetch_max(s.used_ms, Ordering::Relaxed);
    }
    /// Hands counts over to the rule that replaces this one, now and later.
    pub(crate) fn succeed(&self, next: &Arc<Rule>) {
        let mut successor = self.successor.lock();
        next.packets.fetch_add(self.packets.load(Ordering::Relaxed), Ordering::Relaxed);
        next.bytes.fetch_add(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        next.used_ms.fetch_max(self.used_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        *successor = Some(Arc::clone(next));
    }
    /// When it expires if no packet comes, which is once its time is over: by which timeout is the caller's question.
    pub fn deadline(&self) -> Option<Instant> {
        let hard = match self.hard_timeout() {
            0 => None,
            s => Some(self.modified().plus_ms(u64::from(s) * 1000 + 1)),
        };
        let idle = match self.idle_timeout() {
            0 => None,
            s => Some(self.used().plus_ms(u64::from(s) * 1000 + 1)),
        };
        hard.into_iter().chain(idle).min()
    }

    /// Whether an action (at any depth) outputs to `port`; [`OfPort::NONE`] asks nothing.
    pub fn outputs_to(&self, port: OfPort) -> bool {
        port == OfPort::NONE || self.actions.iter().any(|a| action_outputs_to(a, port))
    }
    /// Whether an action uses `group`; [`ib_openflow::message::OFPG_ANY`] asks nothing.
    pub fn uses_group(&self, group: u32) -> bool {
        group == ib_openflow::message::OFPG_ANY || self.actions.iter().any(|a| action_uses_group(a, group))
    }
}

fn action_outputs_to(a: &Action, port: OfPort) -> bool {
    match a {
        Action::Output { port: p, .. }
        | Action::OutputTrunc { port: p, .. }
        | Action::Enqueue { port: p, .. } => *p == port,
        Action::Controller(_) => port == OfPort::CONTROLLER,
        Action::WriteActions(v) | Action::Clone(v) => v.iter().any(|a| action_outputs_to(a, port)),
        _ => false,
    }
}

fn action_uses_group(a: &Action, group: u32) -> bool {
    match a {
        Action::Group(g) => *g == group,
        Action::WriteActions(v) | Action::Clone(v) => v.iter().any(|a| action_uses_group(a, group)),
        _ => false,
    }
}
