//! What changed about bridges, and which datapath flows that concerns.
//!
//! Whatever may change the result of a translation is noted in [`Changes`] after it became visible: a change of rules
//! or of a learned address with what it is about, everything else as a plain [`Changes::bump`]. Revalidation asks
//! with [`News::concerns`] whether a flow could translate to something else now; if not, the flow stays as it is,
//! untranslated.
//!
//! The question is answered from what translation left with the flow ([`CacheEntry`]): which tables it looked up, what
//! the key had become by then ([`Lookup`]), and which addresses it looked for. A rule that no packet of the flow can match
//! at such a lookup can neither come between nor have been what the lookup found. "Yes" in doubt is right and costs a
//! translation; "no" must be certain.
//!
//! Cost: a change costs its own size, a question the flow's lookups times the changes since it was last asked.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use ib_classifier::{AsClsRule, MiniMatch};
use ib_flow::miniflow::{Miniflow, Minimask};
use ib_flow::{Flow, Mask, OfPort};
use ib_packet::{Be64, Mac};
use ib_rcu::Version;
use parking_lot::Mutex;

use crate::rule::Rule;
use crate::ukey::UkeyState;
use crate::xlate::CacheEntry;

/// More rules than that are not looked at one by one: their tables have changed.
const MAX_RULES: usize = 64;
/// More learned addresses than that mean that everything changed.
const MAX_ADDRESSES: usize = 64;

/// One bit for each table.
type Tables = [u64; 4];

/// What changed.
#[derive(Clone)]
enum Change {
    /// Rules that came, went or were replaced by one with the same match, in a bridge.
    Rules(u32, Arc<[Arc<Rule>]>),
    /// More of them, in these tables of a bridge.
    Tables(u32, Tables),
    /// A learned address that came, went or moved, in a bridge.
    Address(u32, Mac),
    /// Whether packets that no rule of a table matches go to controllers: the rules that stand for yes and no.
    Misses([Arc<Rule>; 2]),
}

#[derive(Default)]
struct Log {
    /// What came with this number or an earlier one is not told apart.
    floor: u64,
    entries: VecDeque<(u64, Change)>,
    n_rules: usize,
    n_addresses: usize,
}

impl Log {
    fn forget(&mut self, floor: u64) {
        *self = Log { floor, ..Log::default() };
    }

    /// Names tables instead of rules.
    fn widen(&mut self) {
        let mut tables: Vec<(u32, Tables)> = Vec::new();
        let mut last = self.floor;
        for (seq, change) in std::mem::take(&mut self.entries) {
            match change {
                Change::Rules(of, rules) => {
                    let set = tables_of(&mut tables, of);
                    rules.iter().for_each(|r| set[usize::from(r.table) / 64] |= 1 << (r.table % 64));
                    last = seq;
                }
                Change::Tables(of, more) => {
                    tables_of(&mut tables, of).iter_mut().zip(more).for_each(|(s, m)| *s |= m);
                    last = seq;
                }
                Change::Address(..) | Change::Misses(_) => self.entries.push_back((seq, change)),
            }
        }
        self.n_rules = 0;
        // What is said to be later than it was is asked of more flows.
        self.entries.extend(tables.into_iter().map(|(of, set)| (last, Change::Tables(of, set))));
    }
}

fn tables_of(all: &mut Vec<(u32, Tables)>, of: u32) -> &mut Tables {
    let at = all.iter().position(|(id, _)| *id == of).unwrap_or_else(|| {
        all.push((of, [0; 4]));
        all.len() - 1
    });
    &mut all[at].1
}

/// Counts changes and remembers the latest ones. Shared by the bridges of a datapath.
pub struct Changes {
    seq: Version,
    log: Mutex<Log>,
}

impl Default for Changes {
    fn default() -> Self {
        Changes::new()
    }
}

impl Changes {
    /// None so far.
    pub fn new() -> Changes {
        let seq = Version::new();
        let floor = seq.get();
        Changes { seq, log: Mutex::new(Log { floor, ..Log::default() }) }
    }
    /// How many there were. A translation reads it first: what changes later makes it stale.
    pub fn get(&self) -> u64 {
        self.seq.get()
    }
    /// Anything may have changed.
    pub fn bump(&self) {
        let mut log = self.log.lock();
        log.forget(self.seq.bump());
    }
    /// Rules came, went, or were replaced by others with the same match. They are visible by now.
    pub(crate) fn rules<'a>(&self, of: u32, rules: impl Iterator<Item = &'a Arc<Rule>>) {
        let mut some = Vec::new();
        let mut tables = [0; 4];
        for rule in rules {
            if some.len() <= MAX_RULES {
                some.push(Arc::clone(rule));
            }
            tables[usize::from(rule.table) / 64] |= 1 << (rule.table % 64);
        }
        let mut log = self.log.lock();
        let next = self.seq.get() + 1;
        if some.len() > MAX_RULES {
            log.entries.push_back((next, Change::Tables(of, tables)));
            log.widen();
        } else {
            log.n_rules += some.len();
            log.entries.push_back((next, Change::Rules(of, some.into())));
            if log.n_rules > MAX_RULES {
                log.widen();
            }
        }
        self.seq.bump();
    }
    /// A learned address came, went or moved.
    pub(crate) fn address(&self, of: u32, mac: Mac) {
        let mut log = self.log.lock();
        log.n_addresses += 1;
        if log.n_addresses > MAX_ADDRESSES {
            log.forget(self.seq.bump());
            return;
        }
        log.entries.push_back((self.seq.get() + 1, Change::Address(of, mac)));
        self.seq.bump();
    }
    /// Packets that no rule of a table matches go to controllers from now on, or no longer. `rules` stand for yes and no.
    pub(crate) fn misses(&self, rules: [&Arc<Rule>; 2]) {
        let mut log = self.log.lock();
        if log.entries.len() > MAX_RULES + MAX_ADDRESSES {
            log.forget(self.seq.bump());
            return;
        }
        let rules = rules.map(Arc::clone);
        log.entries.push_back((self.seq.get() + 1, Change::Misses(rules)));
        self.seq.bump();
    }
    /// The latest changes, to ask about flows.
    pub(crate) fn news(&self) -> News {
        let log = self.log.lock();
        News { latest: self.seq.get(), floor: log.floor, changes: log.entries.iter().cloned().collect() }
    }
    /// Flows have been asked about these changes; a flow that was not is translated.
    pub(crate) fn seen(&self, news: &News) {
        let mut log = self.log.lock();
        if log.floor >= news.latest {
            return;
        }
        log.floor = news.latest;
        log.entries.retain(|(seq, _)| *seq > news.latest);
        log.n_addresses = 0;
        log.n_rules = 0;
        let (mut rules, mut addresses) = (0, 0);
        for (_, change) in &log.entries {
            match change {
                Change::Rules(_, r) => rules += r.len(),
                Change::Tables(..) | Change::Misses(_) => {}
                Change::Address(..) => addresses += 1,
            }
        }
        (log.n_rules, log.n_addresses) = (rules, addresses);
    }
}

/// The latest changes at some moment.
pub(crate) struct News {
    /// The number of the latest one.
    pub latest: u64,
    floor: u64,
    changes: Vec<(u64, Change)>,
}

impl News {
    /// Whether flows that saw `seen` changes may be told apart at all.
    pub fn is_detailed(&self, seen: u64) -> bool {
        seen >= self.floor
    }
    /// Whether the flow could translate to something else than it did.
    pub fn concerns(&self, key: &Miniflow, state: &UkeyState) -> bool {
        if state.seen >= self.latest {
            return false;
        }
        if !self.is_detailed(state.seen) {
            return true;
        }
        let later = self.changes.iter().filter(|(seq, _)| *seq > state.seen);
        later.into_iter().any(|(_, change)| state.cache.iter().any(|e| concerns(change, e, key, &state.mask)))
    }
}

fn concerns(change: &Change, entry: &CacheEntry, key: &Miniflow, mask: &Minimask) -> bool {
    match (change, entry) {
        (Change::Rules(id, rules), CacheEntry::Table(of, table, lookup)) => {
            of.id == *id
                && rules.iter().any(|r| r.table == *table && lookup.may_match(r.cls().mini(), key, mask))
        }
        (Change::Tables(id, tables), CacheEntry::Table(of, table, _)) => {
            of.id == *id && tables[usize::from(*table) / 64] >> (table % 64) & 1 != 0
        }
        (Change::Address(id, mac), CacheEntry::Normal(of, seen, dst)) => {
            of.id == *id && (seen.mac == *mac || dst == mac)
        }
        (Change::Address(id, mac), CacheEntry::Address(of, src)) => of == id && src == mac,
        (Change::Misses(rules), CacheEntry::Rule(found)) => rules.iter().any(|r| Arc::ptr_eq(r, found)),
        _ => false,
    }
}

/// One lookup in a table: what the key had become by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// A rule was found.
    pub hit: bool,
    /// Words were exchanged in a way that the mask does not tell: anything may match.
    opaque: bool,
    in_port: OfPort,
    /// Words that were no longer those of the packet's key, ascending.
    changed: Box<[(u8, u64)]>,
}

/// Bits that are the same for all packets of a flow at a given lookup, looked at or not: no part of a packet.
static INTERNAL: LazyLock<Box<Flow>> = LazyLock::new(|| {
    let mut m = Mask::default();
    m.0.metadata = Be64::MAX;
    m.0.regs = [u32::MAX; ib_flow::key::N_REGS];
    m.0.in_port = u32::MAX;
    Box::new(m.0)
});

/// Bits of which nothing is known: they have another form in a datapath's key, or are set inside of a lookup.
static UNKNOWN: LazyLock<Box<Flow>> = LazyLock::new(|| {
    let mut m = Mask::default();
    m.0.tunnel.opts = [0xff; 256];
    m.0.tunnel.opts_present = u64::MAX;
    m.0.tunnel.flags = u16::MAX;
    m.0.tunnel.pad = [0xff; 4];
    m.0.conj_id = u32::MAX;
    m.0.actset_output = OfPort(u16::MAX);
    Box::new(m.0)
});

impl Lookup {
    /// A lookup for `flow` in the translation of `original`, of which it may be known nothing (`opaque`).
    pub(crate) fn new(hit: bool, flow: &Flow, original: &Flow, opaque: bool) -> Lookup {
        let in_port = OfPort(flow.in_port as u16);
        let changed: Box<[(u8, u64)]> = if opaque {
            Box::default()
        } else {
            let words = flow.words().iter().zip(original.words()).zip(0u8..);
            words.filter(|((now, was), _)| now != was).map(|((now, _), i)| (i, *now)).collect()
        };
        Lookup { hit, opaque, in_port, changed }
    }

    /// Whether some packet of the flow, which the datapath knows by `key` and `mask`, matches at this lookup.
    fn may_match(&self, rule: &MiniMatch, key: &Miniflow, mask: &Minimask) -> bool {
        if self.opaque {
            return true;
        }
        if rule.mask().words().is_empty() {
            return true;
        }
        let (internal, unknown) = (INTERNAL.words(), UNKNOWN.words());
        rule.mask().words().iter().zip(rule.values()).all(|(&(i, wanted), value)| {
            let at = usize::from(i);
            let (now, known) = match self.changed.binary_search_by_key(&i, |c| c.0) {
                Ok(c) => (self.changed[c].1, internal[at]),
                Err(_) if at == IN_PORT_WORD => {
                    let mut word = key.word(at);
                    set_in_port(&mut word, self.in_port);
                    (word, internal[at] | mask.word(at))
                }
                Err(_) => (key.word(at), internal[at] | mask.word(at)),
            };
            (now ^ value) & wanted & known & !unknown[at] == 0
        })
    }
}

const IN_PORT_WORD: usize = std::mem::offset_of!(Flow, in_port) / 8;

fn set_in_port(word: &mut u64, port: OfPort) {
    let mut bytes = word.to_ne_bytes();
    let at = std::mem::offset_of!(Flow, in_port) % 8;
    bytes[at..at + 4].copy_from_slice(&u32::from(port.0).to_ne_bytes());
    *word = u64::from_ne_bytes(bytes);
}
