//! One `ct` action on one packet: look-up, state, translation, commit, metadata.
//!
//! A packet may pass several `ct` actions. What an earlier one of the same zone found out counts: bits of `ct_state` are added to
//! it, a packet that was translated is looked up by what it was, and a connection that this packet has moved is not
//! moved a second time (`Metadata::ct_moved`). A new zone begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::vlog::Level;
use ib_base::vlog::module::CONNTRACK;
use ib_base::vlog_rl;
use ib_dpif::{CtAction, NatAction};
use ib_flow::Metadata;
use ib_flow::key::{CtOrig, CtState};
use ib_packet::{Be16, Be128, Packet};
use parking_lot::Mutex;

use crate::expect::Expectation;
use crate::frag::Outcome;
use crate::key::{Key, Parsed, parse};
use crate::nat::{self, Translated};
use crate::rewrite::rewrite;
use crate::table::{Conn, Conntrack, Entry, Helper, Proto, State, Talk};
use crate::tcp::{self, Verdict};
use crate::timeouts::DEFAULT_POLICY;

/// How often a commit looks for a free key again when another thread took it.
const COMMIT_TRIES: usize = 8;
const NAT_BITS: u8 = CtState::SNAT | CtState::DNAT;

/// What an action found for a packet.
struct Found {
    conn: Option<Entry>,
    /// `ct_state`, but for `TRK`.
    bits: u8,
}

impl Conntrack {
    /// Takes a fragment, or any packet, before it is tracked: see [`crate::frag`].
    pub fn take_fragment(&self, packet: Packet, recirc_id: u32, zone: u16, now_ms: u64) -> Outcome {
        let mut fragments = self.fragments.lock();
        let outcome = fragments.take(packet, recirc_id, zone, now_ms);
        self.fragments_due_ms.store(fragments.due_ms(), Ordering::Relaxed);
        outcome
    }

    /// Fragments whose datagram did not come together in time. They go on untracked behind whatever packet comes next; few
    /// at a time. Cheap if there are none.
    pub fn overdue_fragments(&self, behind: &Packet, now_ms: u64) -> Vec<Packet> {
        if now_ms <= self.fragments_due_ms.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut fragments = self.fragments.lock();
        let v6 = crate::key::network(behind).is_some_and(|(_, v6)| v6);
        let overdue = fragments.overdue(now_ms, v6);
        self.fragments_due_ms.store(fragments.due_ms(), Ordering::Relaxed);
        overdue
    }

    /// Forgets fragments for which no packet came; how many.
    pub fn purge_fragments(&self, now_ms: u64) -> usize {
        if now_ms <= self.fragments_due_ms.load(Ordering::Relaxed) {
            return 0;
        }
        let mut fragments = self.fragments.lock();
        let gone = fragments.purge(now_ms);
        self.fragments_due_ms.store(fragments.due_ms(), Ordering::Relaxed);
        gone
    }

    /// Does one `ct` action: see the module. `random` is any number, for ranges that are to be random.
    pub fn process(&self, packet: &mut Packet, md: &mut Metadata, ct: &CtAction, now_ms: u64, random: u32) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        let moved = std::mem::take(&mut md.ct_moved) && md.ct_zone == ct.zone && !ct.force;
        if md.ct_zone != ct.zone {
            md.ct_state = 0;
        }
        md.ct_zone = ct.zone;
        let Some(mut parsed) = parse(packet, ct.zone) else {
            (md.ct_state, md.ct_mark, md.ct_label) = (CtState::TRK | CtState::INV, 0, Be128::ZERO);
            md.ct_orig = None;
            return;
        };
        let mut found = self.look_up(&parsed, md.ct_state, now_ms);
        if moved
            && let Some(e) = &found
            && e.conn.helper.is_none()
        {
            let bits = if ct.nat.is_some() { translate(packet, &parsed, e, md.ct_state) } else { 0 };
            md.ct_state |= bits;
            md.ct_moved = ct.nat.is_none();
            return self.mark(e, md, ct);
        }
        if let Some(e) = found.take_if(|e| ct.force && e.reply) {
            self.remove(&e.conn);
        }
        let mut f = Found { conn: found, bits: md.ct_state & !CtState::TRK };
        let mut fresh = f.conn.is_none();
        let mut control = None;
        if let Some(e) = f.conn.clone() {
            let translated =
                ct.nat.is_some() && f.bits & NAT_BITS == 0 && e.conn.translated != Translated::Neither;
            if translated && e.conn.helper == Some(Helper::Ftp) {
                self.unskew_ack(packet, &mut parsed, &e);
            }
            fresh = self.advance(&parsed, &mut f, now_ms);
            if ct.nat.is_some() && !fresh {
                f.bits |= translate(packet, &parsed, &e, f.bits);
            }
            if !fresh && e.conn.helper.is_some() {
                control = Some(translated);
            }
        } else if let Some(e) = self.by_origin(&parsed, md, ct, now_ms) {
            f.conn = Some(e);
            fresh = self.advance(&parsed, &mut f, now_ms);
        } else if parsed.inner.is_some() {
            (f.bits, fresh) = (CtState::INV, false);
        }
        let mut expected = None;
        if fresh {
            f.conn = None;
            expected = self.expected(&parsed.key);
            if parsed.inner.is_some() || !parsed.may_begin() {
                f.bits = CtState::INV;
                expected = None;
            } else {
                f.bits = CtState::NEW | if expected.is_some() { CtState::REL } else { 0 };
                if ct.commit {
                    f.conn = self.commit(&parsed, ct, expected.as_ref(), now_ms, random);
                }
                if let Some(e) = f.conn.as_ref().filter(|_| ct.nat.is_some()) {
                    f.bits |= translate(packet, &parsed, e, f.bits);
                }
                control = f.conn.as_ref().and_then(|e| e.conn.helper).map(|_| ct.nat.is_some());
            }
        }
        md.ct_state = CtState::TRK | f.bits;
        md.ct_moved = f.conn.is_some() && ct.nat.is_none();
        md.ct_orig = Some(match (&f.conn, &expected) {
            (Some(e), _) => e.conn.parent.as_deref().unwrap_or(&e.conn.orig).orig(),
            (None, Some(x)) => x.parent.orig(),
            (None, None) => parsed.key.orig(),
        });
        match &f.conn {
            Some(e) => {
                self.mark(e, md, ct);
                if let Some(nat) = control
                    && !self.control_packet(packet, &parsed, e, nat)
                {
                    md.ct_state |= CtState::INV;
                }
            }
            None => {
                md.ct_mark = expected.as_ref().map_or(0, |x| x.mark);
                md.ct_label = Be128::new(expected.as_ref().map_or(0, |x| x.label));
            }
        }
    }

    /// The connection of a packet that was in state `before` in this zone.
    fn look_up(&self, parsed: &Parsed, before: u8, now_ms: u64) -> Option<Entry> {
        if before & NAT_BITS == 0 {
            return self.find(&parsed.key, now_ms);
        }
        // A packet that was translated before looks like the reverse of the other direction.
        let e = self.find(&parsed.key.reversed(), now_ms)?;
        Some(Entry { reply: !e.reply, ..e })
    }

    /// The connection of a packet that was translated, and then changed: by the tuple that it carries.
    fn by_origin(&self, parsed: &Parsed, md: &Metadata, ct: &CtAction, now_ms: u64) -> Option<Entry> {
        let orig = md.ct_orig.as_ref()?;
        if md.ct_state & NAT_BITS == 0 || ct.nat.is_some() || orig.v6 != parsed.key.v6 || orig.proto == 0 {
            return None;
        }
        self.find(&key_of_origin(&parsed.key, orig), now_ms)
    }

    /// Moves a connection by a packet. True if that begins a new one in its place.
    fn advance(&self, parsed: &Parsed, f: &mut Found, now_ms: u64) -> bool {
        let Some(e) = &f.conn else { return false };
        let direction = if e.reply { CtState::RPL } else { 0 };
        if parsed.inner.is_some() {
            f.bits |= CtState::REL | direction;
            return false;
        }
        if e.conn.parent.is_some() {
            f.bits |= CtState::REL;
        }
        let check = self.tcp_seq_chk.load(Ordering::Relaxed);
        let mut state = e.conn.state.lock();
        match update(&mut state.proto, parsed, e.reply, check) {
            Verdict::Established => {
                self.prolong(&e.conn, &mut state, false, now_ms);
                f.bits = f.bits & !CtState::NEW | CtState::EST | direction;
            }
            Verdict::Near => f.bits = f.bits & !CtState::NEW | CtState::EST | direction,
            Verdict::StillNew => {
                self.prolong(&e.conn, &mut state, true, now_ms);
                f.bits |= CtState::NEW;
            }
            Verdict::Invalid => f.bits = CtState::INV,
            Verdict::Restart => {
                drop(state);
                self.remove(&e.conn);
                return true;
            }
        }
        false
    }

    /// Sets mark and label as asked, and tells the packet.
    fn mark(&self, e: &Entry, md: &mut Metadata, ct: &CtAction) {
        let mut state = e.conn.state.lock();
        // A connection that another announced keeps what it has from there.
        if e.conn.parent.is_none() {
            if let Some((value, mask)) = ct.mark {
                state.mark = state.mark & !mask | value & mask;
            }
            if let Some((value, mask)) = ct.label {
                state.label = state.label & !mask.get() | value.get() & mask.get();
            }
        }
        md.ct_mark = state.mark;
        md.ct_label = Be128::new(state.label);
    }

    /// Whether a zone, and the table, have room for one more.
    fn has_room(&self, zone: u16) -> bool {
        let limit = self.zone_limit(zone);
        (limit.limit == 0 || limit.count < limit.limit)
            && self.count.load(Ordering::Relaxed) < self.max_conns.load(Ordering::Relaxed)
    }

    /// A new connection for a packet that has none; `None` if there is no room, or nothing to translate to.
    fn commit(
        &self,
        parsed: &Parsed,
        ct: &CtAction,
        expected: Option<&Expectation>,
        now_ms: u64,
        random: u32,
    ) -> Option<Entry> {
        let orig = parsed.key;
        if !self.has_room(orig.zone) {
            return None;
        }
        let nat = ct.nat.as_ref();
        let end = match expected {
            Some(x) if nat.is_some() => x.translated,
            _ => nat::translated(nat, orig.v6),
        };
        let proto = match (orig.proto, orig.v6) {
            (6, _) => Proto::Tcp(tcp::begin(&parsed.segment)),
            (1, false) | (58, true) => Proto::Icmp(Talk::First),
            _ => Proto::Other(Talk::First),
        };
        for _ in 0..COMMIT_TRIES {
            let reply = match (expected, nat, end) {
                (_, _, Translated::Neither) | (_, None, _) => orig.reversed(),
                (Some(x), ..) => x.reply(&orig),
                (None, Some(action), _) => {
                    let free = |k: &Key| self.find(k, now_ms).is_none();
                    let hash = self.nat_hash(&orig, action);
                    match nat::choose(&orig, action, hash, random, free) {
                        Some(key) => key,
                        None => {
                            vlog_rl!(
                                CONNTRACK,
                                Level::Warn,
                                (5, 5),
                                "Unable to NAT due to tuple space exhaustion - if DoS attack, use firewalling and/or \
                                 zone partitioning."
                            );
                            return None;
                        }
                    }
                }
            };
            let conn = Arc::new(Conn {
                number: self.next_number.fetch_add(1, Ordering::Relaxed),
                orig,
                reply,
                translated: end,
                helper: Helper::for_packet(ct.helper.as_deref()),
                policy: ct.timeout.as_deref().and_then(|name| name.parse().ok()).unwrap_or(DEFAULT_POLICY),
                parent: expected.map(|x| Box::new(x.parent)),
                state: Mutex::new(State {
                    proto,
                    mark: expected.map_or(0, |x| x.mark),
                    label: expected.map_or(0, |x| x.label),
                    expires_ms: u64::MAX,
                    noted_s: u64::MAX,
                    dead: false,
                    alg: None,
                }),
            });
            // Who does not choose a key has none to lose.
            if self.insert(&conn, end != Translated::Neither && expected.is_none()) {
                self.prolong(&conn, &mut conn.state.lock(), true, now_ms);
                return Some(Entry { conn, reply: false });
            }
            // Another thread's packet of the same connection was faster, or one that took our reply key.
            if let Some(e) = self.find(&orig, now_ms) {
                return (!e.reply).then_some(e);
            }
        }
        None
    }

    /// Where in its ranges a connection starts to look. A persistent mapping depends on the host alone.
    fn nat_hash(&self, orig: &Key, action: &NatAction) -> u32 {
        let persistent = matches!(action, NatAction::Src(r) | NatAction::Dst(r) if r.persistent);
        let hash = if persistent { self.hash(&orig.src) } else { self.hash(orig) };
        (hash >> 32) as u32
    }
}

/// The key that a packet with this original tuple had; of ICMP it has the numbers of the packet.
fn key_of_origin(key: &Key, orig: &CtOrig) -> Key {
    let port = |p: Be16, icmp: u16| if matches!(orig.proto, 1 | 58) { icmp } else { p.get() };
    Key {
        src: orig.src,
        dst: orig.dst,
        sport: port(orig.tp_src, key.sport),
        dport: port(orig.tp_dst, key.dport),
        proto: orig.proto,
        ..*key
    }
}

fn update(proto: &mut Proto, parsed: &Parsed, reply: bool, check: bool) -> Verdict {
    match proto {
        Proto::Tcp(peers) => tcp::update(peers, &parsed.segment, reply, check),
        Proto::Icmp(talk) | Proto::Other(talk) => {
            *talk = match *talk {
                _ if reply => Talk::Both,
                Talk::First => Talk::Multiple,
                other => other,
            };
            if *talk == Talk::Both { Verdict::Established } else { Verdict::StillNew }
        }
    }
}

/// Translates a packet in state `before` as its connection says, unless it is translated; the state bits that tell so.
fn translate(packet: &mut Packet, parsed: &Parsed, e: &Entry, before: u8) -> u8 {
    if before & NAT_BITS != 0 {
        return 0;
    }
    let conn = &e.conn;
    let to = if e.reply { conn.orig.reversed() } else { conn.reply.reversed() };
    let bit = match (conn.translated, e.reply) {
        (Translated::Neither, _) => return 0,
        (Translated::Source, false) | (Translated::Destination, true) => CtState::SNAT,
        (Translated::Source, true) | (Translated::Destination, false) => CtState::DNAT,
    };
    if to != parsed.key || parsed.inner.is_some() {
        rewrite(packet, parsed, &to, bit == CtState::SNAT);
    }
    bit
}
