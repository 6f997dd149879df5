//! Link aggregation control (IEEE 802.1AX, clause 6): both ends of a bond agree on which links belong together.
//!
//! A [`Lacp`] is a pure machine, one for each port that takes part, be it a bond or a single link. It hears of members
//! ([`Lacp::set_members`]), PDUs ([`Lacp::receive`]), carriers and time ([`Lacp::run`]), and says which members may carry
//! traffic ([`Lacp::may_enable`]) and what to send ([`Lacp::take_pdus`]). Datapath threads hand it PDUs, so its owner
//! keeps it behind a lock.
//!
//! A member is *current* while the partner's PDUs come in, *expired* for three fast periods after that, then *defaulted*:
//! nothing is known of the partner. Members whose partners are one system with one key are *attached*; the lead, which decides
//! what partner that is, is the member that the system of higher priority likes best.
//! Simplifications of the standard are those of ovs-vswitchd.conf.db(5), "LACP Configuration".

use std::fmt::Write;

use ib_base::time::Instant;
use ib_base::vlog::module::LACP;
use ib_base::{vlog_dbg, vlog_info_rl, vlog_warn_rl};
use ib_packet::Mac;

/// Where PDUs go: "slow protocols" (802.3, annex 57A).
pub const ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 2]);
/// Their Ethernet type.
pub const ETHERTYPE: u16 = 0x8809;
/// Length of a PDU behind the Ethernet header.
pub const PDU_LEN: usize = 110;

const FAST_MS: u64 = 1000;
const SLOW_MS: u64 = 30_000;
/// Periods without PDU after which a member is not current any more.
const PATIENCE: u64 = 3;

const SUBTYPE_LACP: u8 = 1;
const SUBTYPE_MARKER: u8 = 2;
const INFO_LEN: usize = 15;

/// Bits of an actor's state.
mod state {
    pub const ACTIVITY: u8 = 0x01;
    pub const TIMEOUT: u8 = 0x02;
    pub const AGGREGATION: u8 = 0x04;
    pub const SYNC: u8 = 0x08;
    pub const COLLECTING: u8 = 0x10;
    pub const DISTRIBUTING: u8 = 0x20;
    pub const DEFAULTED: u8 = 0x40;
    pub const EXPIRED: u8 = 0x80;
    pub const NAMES: [(u8, &str); 8] = [
        (ACTIVITY, "activity"),
        (TIMEOUT, "timeout"),
        (AGGREGATION, "aggregation"),
        (SYNC, "synchronized"),
        (COLLECTING, "collecting"),
        (DISTRIBUTING, "distributing"),
        (DEFAULTED, "defaulted"),
        (EXPIRED, "expired"),
    ];
}

/// A port's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Speaks first; else only when spoken to.
    pub active: bool,
    /// `lacp-system-id`.
    pub system_id: Mac,
    /// `lacp-system-priority`.
    pub system_priority: u16,
    /// `lacp-time` is fast.
    pub fast: bool,
    /// `lacp-fallback-ab`: members work without partner too.
    pub fallback_ab: bool,
}

/// A member's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig<P> {
    /// Port.
    pub port: P,
    /// Name.
    pub name: String,
    /// `lacp-port-id`, or the port's number.
    pub id: u16,
    /// `lacp-port-priority`.
    pub priority: u16,
    /// `lacp-aggregation-key`; 0: this member's id. The first member's goes for all.
    pub key: u16,
}

/// Whether the ends have agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// The port does not speak LACP.
    #[default]
    Off,
    /// It does, but nobody answers.
    Configured,
    /// At least one member is attached.
    Negotiated,
}

impl Status {
    /// As `bond/show` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Off => "off",
            Status::Configured => "configured",
            Status::Negotiated => "negotiated",
        }
    }
}

/// What a PDU says of one end. The order of fields is that of the wire, and that by which priorities compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Info {
    system_priority: u16,
    system_id: [u8; 6],
    key: u16,
    port_priority: u16,
    port_id: u16,
    state: u8,
}

impl Info {
    fn parse(b: &[u8; INFO_LEN]) -> Info {
        let word = |i: usize| u16::from_be_bytes([b[i], b[i + 1]]);
        Info {
            system_priority: word(0),
            system_id: [b[2], b[3], b[4], b[5], b[6], b[7]],
            key: word(8),
            port_priority: word(10),
            port_id: word(12),
            state: b[14],
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.system_priority.to_be_bytes());
        out.extend(self.system_id);
        for word in [self.key, self.port_priority, self.port_id] {
            out.extend(word.to_be_bytes());
        }
        out.extend([self.state, 0, 0, 0]);
    }

    /// Differs in what the partner must hear of at once (6.4.16).
    fn must_be_sent(&self, sent: &Info) -> bool {
        let of_interest = state::ACTIVITY | state::TIMEOUT | state::SYNC | state::AGGREGATION;
        let relevant = |i: &Info| Info { state: i.state & of_interest, ..*i };
        relevant(self) != relevant(sent)
    }

    fn print(&self, out: &mut String, who: &str) {
        let _ = writeln!(out, "  {who} sys_id: {}", Mac(self.system_id));
        let _ = writeln!(out, "  {who} sys_priority: {}", self.system_priority);
        let _ = writeln!(out, "  {who} port_id: {}", self.port_id);
        let _ = writeln!(out, "  {who} port_priority: {}", self.port_priority);
        let _ = writeln!(out, "  {who} key: {}", self.key);
        let _ = write!(out, "  {who} state:");
        for (bit, name) in state::NAMES {
            if self.state & bit != 0 {
                let _ = write!(out, " {name}");
            }
        }
        out.push('\n');
    }
}

/// What a frame behind its Ethernet type turned out to be.
enum Pdu {
    Lacp { actor: Info, partner: Info },
    Marker,
    Bad,
}

fn parse(payload: &[u8]) -> Pdu {
    if payload.first() == Some(&SUBTYPE_MARKER) {
        return Pdu::Marker;
    }
    let info = |at: usize, kind: u8| {
        let tlv = payload.get(at..at + 2 + INFO_LEN)?;
        let body: &[u8; INFO_LEN] = tlv[2..].try_into().ok()?;
        (tlv[..2] == [kind, 20]).then(|| Info::parse(body))
    };
    match (info(2, 1), info(22, 2)) {
        (Some(actor), Some(partner)) if payload.len() >= PDU_LEN && payload[0] == SUBTYPE_LACP => {
            Pdu::Lacp { actor, partner }
        }
        _ => Pdu::Bad,
    }
}

/// A PDU as it follows the Ethernet type.
fn compose(actor: &Info, partner: &Info) -> Vec<u8> {
    let mut pdu = Vec::with_capacity(PDU_LEN);
    pdu.extend([SUBTYPE_LACP, 1, 1, 20]);
    actor.emit(&mut pdu);
    pdu.extend([2, 20]);
    partner.emit(&mut pdu);
    // Collector information; the maximum delay is zero, as is what follows.
    pdu.extend([3, 16]);
    pdu.resize(PDU_LEN, 0);
    pdu
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberStatus {
    Current,
    Expired,
    Defaulted,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    tx: u64,
    rx: u64,
    bad: u64,
    marker: u64,
    expired: u64,
    defaulted: u64,
    carrier_changed: u64,
}

#[derive(Debug)]
struct Member<P> {
    config: MemberConfig<P>,
    status: MemberStatus,
    attached: bool,
    /// `None`: nobody has said so far.
    carrier: Option<bool>,
    partner: Info,
    /// What the partner is known to have heard of us.
    heard: Info,
    /// When to send next, whatever happens.
    tx: Instant,
    /// When patience ends.
    rx: Instant,
    counters: Counters,
}

impl<P> Member<P> {
    fn expire(&mut self, now: Instant) {
        self.status = MemberStatus::Expired;
        self.partner.state |= state::TIMEOUT;
        self.partner.state &= !state::SYNC;
        self.rx = now.plus_ms(PATIENCE * FAST_MS);
    }

    fn default_partner(&mut self) {
        self.partner = Info::default();
        self.status = MemberStatus::Defaulted;
    }
}

/// One port that takes part. `P` names its members.
#[derive(Debug)]
pub struct Lacp<P> {
    name: String,
    config: Config,
    /// By name.
    members: Vec<Member<P>>,
    /// The member whose key, or id, is everybody's key.
    key_member: Option<P>,
    negotiated: bool,
    /// Who is attached is to be decided again.
    update: bool,
    /// Something that others look at has changed.
    changed: bool,
    pdus: Vec<(P, Vec<u8>)>,
}

impl<P: Copy + Eq> Lacp<P> {
    /// A port without members.
    pub fn new(name: &str, config: Config) -> Lacp<P> {
        Lacp {
            name: name.to_owned(),
            config,
            members: Vec::new(),
            key_member: None,
            negotiated: false,
            update: true,
            changed: true,
            pdus: Vec::new(),
        }
    }

    /// Takes over settings.
    pub fn configure(&mut self, config: Config) {
        if self.config != config {
            self.config = config;
            self.update = true;
            self.changed = true;
        }
    }

    /// Its members. Ones that are new, or have become others, begin anew.
    pub fn set_members(&mut self, members: &[MemberConfig<P>], now: Instant) {
        let before = self.members.len();
        self.members.retain(|m| members.iter().any(|c| c.port == m.config.port));
        self.update |= before != self.members.len();
        for config in members {
            let (active, negotiated) = (self.config.active, self.negotiated);
            let known = self.members.iter_mut().find(|m| m.config.port == config.port);
            let is_new = known.is_none();
            let member = match known {
                Some(m) if m.config == *config => continue,
                Some(m) => m,
                None => {
                    self.members.push(Member {
                        config: config.clone(),
                        status: MemberStatus::Defaulted,
                        attached: false,
                        carrier: None,
                        partner: Info::default(),
                        heard: Info::default(),
                        tx: now,
                        rx: now,
                        counters: Counters::default(),
                    });
                    let Some(m) = self.members.last_mut() else { continue };
                    m
                }
            };
            let old = std::mem::replace(&mut member.config, config.clone());
            let identity = |c: &MemberConfig<P>| (c.id, c.priority, c.key);
            if is_new || identity(&old) != identity(config) {
                self.update = true;
                if active || negotiated {
                    member.expire(now);
                }
            }
        }
        self.members.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        let key_lives = self.members.iter().any(|m| Some(m.config.port) == self.key_member);
        if !key_lives {
            self.key_member = self.members.first().map(|m| m.config.port);
        }
        self.changed |= self.update;
    }

    fn member(&self, port: P) -> Option<&Member<P>> {
        self.members.iter().find(|m| m.config.port == port)
    }

    /// The key of all members: the one that the first is given, or else its id.
    fn key(&self) -> u16 {
        let first = self.key_member.and_then(|port| self.member(port)).map(|m| &m.config);
        first.map_or(0, |c| if c.key == 0 { c.id } else { c.key })
    }

    fn actor(&self, m: &Member<P>) -> Info {
        let mut s = 0;
        let mut set = |bit: u8, on: bool| s |= if on { bit } else { 0 };
        set(state::ACTIVITY, self.config.active);
        set(state::TIMEOUT, self.config.fast);
        set(state::AGGREGATION, self.members.len() > 1);
        set(state::SYNC, m.attached);
        set(state::COLLECTING | state::DISTRIBUTING, m.attached || !self.negotiated);
        set(state::DEFAULTED, m.status == MemberStatus::Defaulted);
        set(state::EXPIRED, m.status == MemberStatus::Expired);
        Info {
            system_priority: self.config.system_priority,
            system_id: self.config.system_id.0,
            key: self.key(),
            port_priority: m.config.priority,
            port_id: m.config.id,
            state: s,
        }
    }

    fn enables(&self, m: &Member<P>) -> bool {
        let falls_back = self.config.fallback_ab && m.status == MemberStatus::Defaulted;
        m.attached && (m.partner.state & state::SYNC != 0 || falls_back)
    }

    /// Whether a member may carry traffic.
    pub fn may_enable(&self, port: P) -> bool {
        self.member(port).is_none_or(|m| self.enables(m))
    }

    /// Whether what is known of a member's partner is true (`lacp_current`).
    pub fn is_current(&self, port: P) -> bool {
        self.member(port).is_some_and(|m| m.status != MemberStatus::Defaulted)
    }

    /// Whether the ends have agreed.
    pub fn status(&self) -> Status {
        if self.negotiated { Status::Negotiated } else { Status::Configured }
    }

    /// A member's carrier went or came.
    pub fn carrier_changed(&mut self, port: P, up: bool, now: Instant) {
        let active = self.config.active;
        let Some(m) = self.members.iter_mut().find(|m| m.config.port == port) else { return };
        if m.status == MemberStatus::Current || active {
            m.expire(now);
            self.changed = true;
        }
        if m.carrier.replace(up).is_some_and(|old| old != up) {
            m.counters.carrier_changed += 1;
        }
    }

    /// How a member's carrier is to begin with.
    pub fn set_carrier(&mut self, port: P, up: bool) {
        if let Some(m) = self.members.iter_mut().find(|m| m.config.port == port) {
            m.carrier.get_or_insert(up);
        }
    }

    /// Takes in a frame: `payload` follows the Ethernet type. Returns whether the member may carry traffic.
    pub fn receive(&mut self, port: P, payload: &[u8], now: Instant) -> bool {
        let period = if self.config.fast { FAST_MS } else { SLOW_MS };
        let Some(i) = self.members.iter().position(|m| m.config.port == port) else { return false };
        let m = &mut self.members[i];
        m.counters.rx += 1;
        match parse(payload) {
            Pdu::Marker => {
                m.counters.marker += 1;
                vlog_dbg!(LACP, "{}: received a LACP marker PDU.", self.name);
            }
            Pdu::Bad => {
                m.counters.bad += 1;
                vlog_warn_rl!(LACP, (1, 5), "{}: received an unparsable LACP PDU.", self.name);
            }
            Pdu::Lacp { .. } if m.carrier != Some(true) => {
                // Some links say late that they are up.
                let name = &self.name;
                vlog_info_rl!(LACP, (1, 5), "{name}: carrier state is DOWN, dropping received LACP PDU.");
            }
            Pdu::Lacp { actor, partner } => {
                self.changed |= m.status != MemberStatus::Current;
                m.status = MemberStatus::Current;
                m.rx = now.plus_ms(PATIENCE * period);
                m.heard = partner;
                if m.partner != actor {
                    m.partner = actor;
                    self.update = true;
                }
            }
        }
        self.enables(&self.members[i])
    }

    /// Lets time pass. Returns whether anything that others look at has changed since the last call.
    pub fn run(&mut self, now: Instant) -> bool {
        for m in self.members.iter_mut().filter(|m| m.status != MemberStatus::Defaulted && m.rx <= now) {
            if m.status == MemberStatus::Current {
                m.expire(now);
                m.counters.expired += 1;
            } else {
                m.default_partner();
                m.counters.defaulted += 1;
                self.update = true;
            }
            self.changed = true;
        }
        if std::mem::take(&mut self.update) {
            self.update_attached();
            self.changed = true;
        }
        for i in 0..self.members.len() {
            let m = &self.members[i];
            if !self.config.active && m.status == MemberStatus::Defaulted {
                continue;
            }
            let actor = self.actor(m);
            if m.tx > now && !actor.must_be_sent(&m.heard) {
                continue;
            }
            self.pdus.push((m.config.port, compose(&actor, &m.partner)));
            let m = &mut self.members[i];
            let period = if m.partner.state & state::TIMEOUT != 0 { FAST_MS } else { SLOW_MS };
            m.tx = now.plus_ms(period);
            m.heard = actor;
            m.counters.tx += 1;
        }
        std::mem::take(&mut self.changed)
    }

    fn update_attached(&mut self) {
        // A link that works decides which partner is the right one.
        let working = self.members.iter().find(|m| m.status == MemberStatus::Current && m.attached);
        let working = working.map(|m| m.partner.system_id);
        let mut lead: Option<(bool, Info, usize)> = None;
        for i in 0..self.members.len() {
            let actor = self.actor(&self.members[i]);
            let m = &mut self.members[i];
            m.attached = false;
            if m.partner.system_id == actor.system_id {
                let name = &m.config.name;
                vlog_warn_rl!(
                    LACP,
                    (1, 5),
                    "member {name}: Loopback detected. Interface is connected to its own bond"
                );
                continue;
            }
            if m.status == MemberStatus::Defaulted {
                m.attached = self.config.fallback_ab;
                continue;
            }
            m.attached = working.is_none_or(|id| id == m.partner.system_id);
            if !m.attached {
                continue;
            }
            let priority = preferred(&actor, &m.partner);
            let enabled = self.enables(&self.members[i]);
            if lead.is_none_or(|(e, p, _)| (!enabled, priority) < (!e, p)) {
                lead = Some((enabled, priority, i));
            }
        }
        self.negotiated = lead.is_some();
        let Some((_, _, lead)) = lead else { return };
        let partner = self.members[lead].partner;
        let fallback = self.config.fallback_ab;
        for m in &mut self.members {
            let same = (m.partner.key, m.partner.system_id) == (partner.key, partner.system_id);
            if !same || (fallback && m.status == MemberStatus::Defaulted) {
                m.attached = false;
            }
        }
    }

    /// PDUs to send, behind their Ethernet type.
    pub fn take_pdus(&mut self) -> Vec<(P, Vec<u8>)> {
        std::mem::take(&mut self.pdus)
    }

    /// When [`Self::run`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.update || self.changed {
            return Some(Instant::ZERO);
        }
        let of_member = |m: &Member<P>| {
            let waits = m.status != MemberStatus::Defaulted;
            let sends = waits || self.config.active;
            let tx = if self.actor(m).must_be_sent(&m.heard) { Instant::ZERO } else { m.tx };
            waits.then_some(m.rx).into_iter().chain(sends.then_some(tx)).min()
        };
        self.members.iter().filter_map(of_member).min()
    }

    /// Its text of `lacp/show`.
    pub fn show(&self) -> String {
        let c = &self.config;
        let mut out = format!("---- {} ----\n", self.name);
        let _ = writeln!(
            out,
            "  status: {}{}",
            if c.active { "active" } else { "passive" },
            if self.negotiated { " negotiated" } else { "" }
        );
        let _ = writeln!(out, "  sys_id: {}\n  sys_priority: {}", c.system_id, c.system_priority);
        let key = self.key();
        let _ =
            writeln!(out, "  aggregation key: {key}\n  lacp_time: {}", if c.fast { "fast" } else { "slow" });
        for m in &self.members {
            let status = match m.status {
                MemberStatus::Current => "current",
                MemberStatus::Expired => "expired",
                MemberStatus::Defaulted => "defaulted",
            };
            let attached = if m.attached { "attached" } else { "detached" };
            let _ = writeln!(out, "\nmember: {}: {status} {attached}", m.config.name);
            let _ = writeln!(out, "  port_id: {}\n  port_priority: {}", m.config.id, m.config.priority);
            let _ = writeln!(out, "  may_enable: {}\n", self.enables(m));
            self.actor(m).print(&mut out, "actor");
            out.push('\n');
            m.partner.print(&mut out, "partner");
        }
        out
    }

    /// Its text of `lacp/show-stats`.
    pub fn show_stats(&self) -> String {
        let mut out = format!("---- {} statistics ----\n", self.name);
        for m in &self.members {
            let c = &m.counters;
            let _ = writeln!(out, "\nmember: {}:", m.config.name);
            for (what, n) in [
                ("TX PDUs", c.tx),
                ("RX PDUs", c.rx),
                ("RX Bad PDUs", c.bad),
                ("RX Marker Request PDUs", c.marker),
                ("Link Expired", c.expired),
                ("Link Defaulted", c.defaulted),
                ("Carrier Status Changed", c.carrier_changed),
            ] {
                let _ = writeln!(out, "  {what}: {n}");
            }
        }
        out
    }
}

/// What the system of higher priority says of a link; lower is better.
fn preferred(actor: &Info, partner: &Info) -> Info {
    let system = |i: &Info| (i.system_priority, i.system_id);
    let decides = if system(actor) < system(partner) { actor } else { partner };
    Info { key: 0, state: 0, ..*decides }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([0xaa, 0x66, 0xaa, 0x66, 0, 0]);
    const THEIRS: Mac = Mac([0xaa, 0x66, 0xaa, 0x66, 0, 0x11]);

    fn at(ms: u64) -> Instant {
        Instant::ZERO.plus_ms(ms)
    }

    fn config(active: bool, system_id: Mac) -> Config {
        Config { active, system_id, system_priority: 65534, fast: true, fallback_ab: false }
    }

    fn members(first: u16) -> Vec<MemberConfig<u16>> {
        let member = |id: u16| MemberConfig { port: id, name: format!("p{id}"), id, priority: 65535, key: 0 };
        vec![member(first), member(first + 1)]
    }

    fn port(first: u16, config: Config) -> Lacp<u16> {
        let mut lacp = Lacp::new("bond", config);
        lacp.set_members(&members(first), at(0));
        [first, first + 1].into_iter().for_each(|p| lacp.set_carrier(p, true));
        lacp.run(at(0));
        lacp
    }

    /// Carries PDUs between ports 1, 2 of one and 3, 4 of the other, until both are quiet.
    fn talk(a: &mut Lacp<u16>, b: &mut Lacp<u16>, now: Instant) {
        for _ in 0..10 {
            a.run(now);
            b.run(now);
            let (to_b, to_a) = (a.take_pdus(), b.take_pdus());
            if to_a.is_empty() && to_b.is_empty() {
                return;
            }
            for (port, pdu) in to_b {
                b.receive(port + 2, &pdu, now);
            }
            for (port, pdu) in to_a {
                a.receive(port - 2, &pdu, now);
            }
        }
        panic!("they never fall silent");
    }

    #[test]
    fn the_first_pdu_is_the_known_one() {
        let mut a = port(1, config(true, OURS));
        let pdus = a.take_pdus();
        assert_eq!((pdus.len(), pdus[0].1.len()), (2, PDU_LEN));
        assert_eq!(
            pdus[0].1[..24],
            [
                1, 1, 1, 20, 0xff, 0xfe, 0xaa, 0x66, 0xaa, 0x66, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 0xbf, 0, 0, 0,
                2, 20
            ]
        );
        // All that is known of the partner is that we want to hear from it soon.
        assert_eq!(pdus[0].1[38], state::TIMEOUT);
        assert!(a.show().contains("member: p1: expired attached\n"), "{}", a.show());
        assert_eq!(a.status(), Status::Negotiated);
        assert!(!a.may_enable(1) && a.is_current(1));
        a.run(at(3000));
        assert!(a.show().contains("member: p1: defaulted detached\n"), "{}", a.show());
        assert_eq!((a.status(), a.is_current(1)), (Status::Configured, false));
    }

    #[test]
    fn two_ends_agree_and_part() {
        let (mut a, mut b) = (port(1, config(true, OURS)), port(3, config(false, THEIRS)));
        assert!(b.take_pdus().is_empty(), "a passive end waits");
        talk(&mut a, &mut b, at(10));
        for (lacp, port) in [(&a, 1), (&a, 2), (&b, 3), (&b, 4)] {
            assert!(lacp.may_enable(port) && lacp.is_current(port), "{}", lacp.show());
        }
        assert_eq!(a.deadline(), Some(at(1000)));
        talk(&mut a, &mut b, at(1010));
        // Three periods of silence, then three more.
        a.run(at(4010));
        assert!(!a.may_enable(1) && a.is_current(1));
        a.run(at(7010));
        assert!(!a.is_current(1));
        assert!(a.show_stats().contains("Link Expired: 1\n  Link Defaulted: 1\n"), "{}", a.show_stats());
    }

    #[test]
    fn members_of_another_partner_stay_out() {
        let mut a = port(1, config(true, OURS));
        let mut b = port(3, config(true, THEIRS));
        let mut c = port(4, config(true, Mac([2, 0, 0, 0, 0, 9])));
        let (to_1, to_2) = (b.take_pdus(), c.take_pdus());
        a.receive(1, &to_1[0].1, at(1));
        a.run(at(1));
        a.receive(2, &to_2[0].1, at(1));
        a.run(at(1));
        assert!(a.may_enable(1) && !a.may_enable(2), "{}", a.show());
        // Our own PDU means a loop.
        let own = a.take_pdus();
        a.receive(1, &own[0].1, at(2));
        a.run(at(2));
        assert!(!a.may_enable(1));
    }

    #[test]
    fn without_partner_members_can_fall_back() {
        let mut a = port(1, Config { fallback_ab: true, ..config(true, OURS) });
        assert!(!a.may_enable(1));
        a.run(at(3000));
        assert!(a.may_enable(1) && a.may_enable(2));
        assert_eq!(a.status(), Status::Configured);
    }

    #[test]
    fn what_is_no_pdu_is_counted() {
        let mut a = port(1, config(true, OURS));
        let good = a.take_pdus().remove(0).1;
        for bad in [&[][..], &[0], &[1], &good[..PDU_LEN - 1], &[1; 200], &[SUBTYPE_MARKER]] {
            assert!(!a.receive(1, bad, at(1)));
        }
        assert!(a.show_stats().contains("RX PDUs: 6\n  RX Bad PDUs: 5\n  RX Marker Request PDUs: 1\n"));
        assert!(a.show().contains("member: p1: expired attached\n"));
    }

    #[test]
    fn a_carrier_that_changes_starts_anew() {
        let (mut a, mut b) = (port(1, config(true, OURS)), port(3, config(true, THEIRS)));
        talk(&mut a, &mut b, at(0));
        a.carrier_changed(1, false, at(5));
        assert!(!a.may_enable(1) && a.may_enable(2));
        let pdu = compose(&b.actor(&b.members[0]), &Info::default());
        assert!(!a.receive(1, &pdu, at(6)), "nothing comes in without carrier");
        a.carrier_changed(1, true, at(7));
        assert!(a.receive(1, &pdu, at(8)));
        assert!(a.show_stats().contains("Carrier Status Changed: 2\n"));
    }
}
