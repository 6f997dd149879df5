//! Bonds: several links as one port.
//!
//! A [`Bond`] is a pure machine: it hears of links ([`Bond::set_links`]) and of time ([`Bond::run`]), and says by which member
//! a packet leaves ([`Bond::choose`]) and whether one that came in may pass ([`Bond::admit`]). Datapath threads ask it at each
//! miss, so its owner keeps it behind a lock; whatever [`Bond::run`] changed makes translations stale.
//!
//! A member is *enabled* once its link has been up for `updelay`, and until it was down for `downdelay`; one enabled member is
//! *active*: all traffic of an active-backup bond goes there, and floods that come in count by it alone.
//! Source: ovs-vswitchd.conf.db(5), "Bonding Configuration".

use std::collections::VecDeque;
use std::time::Duration;

use ib_base::time::Instant;
use ib_base::vlog::module::BOND;
use ib_base::vlog_info;
use ib_packet::Mac;

/// Hash values that share a member of a balancing bond.
const BUCKETS: usize = 256;

/// How a bond chooses a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One member carries everything.
    #[default]
    ActiveBackup,
    /// By source address and VLAN.
    BalanceSlb,
    /// By L2 to L4, over links that LACP has joined.
    BalanceTcp,
}

impl Mode {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Mode::ActiveBackup => "active-backup",
            Mode::BalanceSlb => "balance-slb",
            Mode::BalanceTcp => "balance-tcp",
        }
    }
}

/// A bond's settings; see `bond_mode` in ovs-vswitchd.conf.db(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Mode.
    pub mode: Mode,
    /// Hash seed of balance modes.
    pub basis: u32,
    /// Wait before a link counts as up, ms.
    pub updelay_ms: u32,
    /// Wait before a link counts as down, ms.
    pub downdelay_ms: u32,
    /// Rebalancing interval, ms; 0: never.
    pub rebalance_interval_ms: u32,
    /// Preferred member of active-backup.
    pub primary: Option<String>,
    /// Floods that come in by members that are not active pass too.
    pub all_members_active: bool,
}

/// What is known of a member from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<P> {
    /// Port.
    pub port: P,
    /// Name.
    pub name: String,
    /// Address.
    pub mac: Mac,
    /// Its link is up.
    pub up: bool,
}

#[derive(Debug)]
struct Member<P> {
    link: Link<P>,
    enabled: bool,
    /// When a change of the link takes effect.
    due: Option<Instant>,
}

/// What becomes of a packet that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
    /// It is dropped if its source was learned elsewhere: then it is a copy of what this bond sent.
    DropIfMoved,
}

/// One bond. `P` names ports.
#[derive(Debug)]
pub struct Bond<P> {
    name: String,
    config: Config,
    members: Vec<Member<P>>,
    active: Option<P>,
    /// Members of hash values.
    buckets: Box<[Option<P>; BUCKETS]>,
    /// Enabled members, the next to be given a bucket first.
    turns: VecDeque<P>,
    next_rebalance: Instant,
    /// Translations made before are stale.
    changed: bool,
}

impl<P: Copy + Ord> Bond<P> {
    /// A bond without members.
    pub fn new(name: &str, config: Config, now: Instant) -> Bond<P> {
        let next_rebalance = now + Duration::from_millis(config.rebalance_interval_ms.into());
        Bond {
            name: name.to_owned(),
            config,
            members: Vec::new(),
            active: None,
            buckets: Box::new([None; BUCKETS]),
            turns: VecDeque::new(),
            next_rebalance,
            changed: true,
        }
    }

    /// Takes over settings.
    pub fn configure(&mut self, config: Config, now: Instant) {
        if self.config == config {
            return;
        }
        if self.config.mode != config.mode || self.config.basis != config.basis {
            self.buckets.fill(None);
        }
        self.next_rebalance = now + Duration::from_millis(config.rebalance_interval_ms.into());
        self.config = config;
        self.changed = true;
    }

    /// Its members as they are now. New ones are enabled at once if their link is up.
    pub fn set_links(&mut self, links: &[Link<P>], now: Instant) {
        let gone: Vec<P> = self
            .members
            .iter()
            .map(|m| m.link.port)
            .filter(|port| links.iter().all(|l| l.port != *port))
            .collect();
        for port in gone {
            self.enable(port, false);
            self.members.retain(|m| m.link.port != port);
            self.changed = true;
        }
        for link in links {
            if let Some(m) = self.members.iter_mut().find(|m| m.link.port == link.port) {
                m.link = link.clone();
                continue;
            }
            self.members.push(Member { link: link.clone(), enabled: false, due: None });
            self.members.sort_by(|a, b| a.link.name.cmp(&b.link.name));
            self.enable(link.port, link.up);
            self.changed = true;
        }
        self.run(now);
    }

    fn member(&self, port: P) -> Option<&Member<P>> {
        self.members.iter().find(|m| m.link.port == port)
    }

    fn is_enabled(&self, port: P) -> bool {
        self.member(port).is_some_and(|m| m.enabled)
    }

    fn enable(&mut self, port: P, enabled: bool) {
        let Some(m) = self.members.iter_mut().find(|m| m.link.port == port) else { return };
        m.due = None;
        if m.enabled == enabled {
            return;
        }
        m.enabled = enabled;
        vlog_info!(BOND, "member {}: {}", m.link.name, if enabled { "enabled" } else { "disabled" });
        self.turns.retain(|p| *p != port);
        if enabled {
            self.turns.push_back(port);
        }
        self.changed = true;
    }

    /// Lets changes of links take effect that have waited long enough. Returns whether translations became stale.
    pub fn run(&mut self, now: Instant) -> bool {
        let (up_ms, down_ms) = (self.config.updelay_ms, self.config.downdelay_ms);
        let mut due = Vec::new();
        for m in &mut self.members {
            let up = m.link.up;
            if (up == m.enabled) != m.due.is_none() {
                vlog_info!(BOND, "member {}: link state {}", m.link.name, if up { "up" } else { "down" });
                if up == m.enabled {
                    m.due = None;
                    let what = if up { "disabled" } else { "enabled" };
                    vlog_info!(BOND, "member {}: will not be {what}", m.link.name);
                } else {
                    let delay = if up { up_ms } else { down_ms };
                    m.due = Some(now + Duration::from_millis(delay.into()));
                    if delay != 0 {
                        let (what, stays) = if up { ("enabled", "up") } else { ("disabled", "down") };
                        let name = &m.link.name;
                        vlog_info!(BOND, "member {name}: will be {what} if it stays {stays} for {delay} ms");
                    }
                }
            }
            if m.due.is_some_and(|at| at <= now) {
                due.push((m.link.port, up));
            }
        }
        for (port, up) in due {
            self.enable(port, up);
        }
        if self.active.is_none_or(|port| !self.is_enabled(port)) || self.primary_waits() {
            self.choose_active(now);
        }
        let interval = Duration::from_millis(self.config.rebalance_interval_ms.into());
        if !interval.is_zero() && now >= self.next_rebalance {
            self.next_rebalance = now + interval;
        }
        std::mem::take(&mut self.changed)
    }

    /// The preferred member is enabled and another one active.
    fn primary_waits(&self) -> bool {
        let primary = self.primary();
        self.config.mode == Mode::ActiveBackup && primary.is_some() && primary != self.active
    }

    fn primary(&self) -> Option<P> {
        let name = self.config.primary.as_deref()?;
        self.members.iter().find(|m| m.enabled && m.link.name == name).map(|m| m.link.port)
    }

    fn choose_active(&mut self, now: Instant) {
        let primary = self.primary().filter(|_| self.config.mode == Mode::ActiveBackup);
        let enabled = self.members.iter().find(|m| m.enabled).map(|m| m.link.port);
        // Rather a link that has not been up for long than none.
        let next =
            self.members.iter().filter(|m| m.link.up).filter_map(|m| Some((m.due?, m.link.port))).min();
        let best = primary.or(enabled).or_else(|| {
            let (at, port) = next?;
            let left = at.since(now).as_millis();
            if let Some(m) = self.member(port) {
                vlog_info!(BOND, "member {}: skipping remaining {left} ms updelay (no active)", m.link.name);
            }
            Some(port)
        });
        if let Some(port) = best {
            self.enable(port, true);
        }
        if best == self.active {
            return;
        }
        self.active = best;
        self.changed = true;
        match best.and_then(|port| self.member(port)) {
            Some(m) => vlog_info!(BOND, "bond {}: active member is now {}", self.name, m.link.name),
            None => vlog_info!(BOND, "bond {}: all members disabled", self.name),
        }
    }

    /// When [`Self::run`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.members.iter().filter_map(|m| m.due).min()
    }

    /// The member by which a packet leaves. `hash` is that of its source and VLAN.
    pub fn choose(&mut self, hash: u32) -> Option<P> {
        match self.config.mode {
            Mode::ActiveBackup => self.active,
            Mode::BalanceSlb => {
                let bucket = hash as usize % BUCKETS;
                if let Some(port) = self.buckets[bucket].filter(|port| self.is_enabled(*port)) {
                    return Some(port);
                }
                let port = self.turns.pop_front()?;
                self.turns.push_back(port);
                self.buckets[bucket] = Some(port);
                Some(port)
            }
            // Nothing has joined the links.
            Mode::BalanceTcp => None,
        }
    }

    /// Whether the choice depends on the packet: its source address and VLAN.
    pub fn balances(&self) -> bool {
        self.config.mode == Mode::BalanceSlb
    }

    /// The hash seed.
    pub fn basis(&self) -> u32 {
        self.config.basis
    }

    /// Whether a packet that came in by a member may pass.
    pub fn admit(&self, port: P, to_many: bool) -> Verdict {
        if !self.is_enabled(port) {
            return Verdict::Drop;
        }
        let is_active = self.active == Some(port);
        if to_many && !is_active && !self.config.all_members_active {
            return Verdict::Drop;
        }
        match self.config.mode {
            Mode::ActiveBackup if is_active => Verdict::Accept,
            Mode::ActiveBackup | Mode::BalanceTcp => Verdict::Drop,
            Mode::BalanceSlb => Verdict::DropIfMoved,
        }
    }

    /// The active member's address.
    pub fn active_mac(&self) -> Option<Mac> {
        Some(self.member(self.active?)?.link.mac)
    }

    /// Makes a member active.
    pub fn set_active(&mut self, name: &str) -> Result<(), &'static str> {
        let Some(m) = self.members.iter().find(|m| m.link.name == name) else { return Err("no such member") };
        let port = m.link.port;
        if !m.enabled {
            return Err("cannot make disabled member active");
        }
        if self.active != Some(port) {
            self.active = Some(port);
            self.changed = true;
            vlog_info!(BOND, "bond {}: active member is now {name}", self.name);
        }
        Ok(())
    }

    /// Enables or disables a member until its link next says otherwise.
    pub fn force(&mut self, name: &str, enabled: bool) -> Result<(), &'static str> {
        let Some(m) = self.members.iter().find(|m| m.link.name == name) else { return Err("no such member") };
        let port = m.link.port;
        self.enable(port, enabled);
        Ok(())
    }

    /// Gives a hash value to a member.
    pub fn migrate(&mut self, hash: &str, name: &str) -> Result<(), &'static str> {
        if self.config.mode != Mode::BalanceSlb {
            return Err("not an SLB bond");
        }
        let Some(bucket) = hash.parse::<usize>().ok().filter(|n| *n < BUCKETS) else {
            return Err("bad hash");
        };
        let Some(m) = self.members.iter().find(|m| m.link.name == name) else { return Err("no such member") };
        if !m.enabled {
            return Err("cannot migrate to disabled member");
        }
        self.buckets[bucket] = Some(m.link.port);
        self.changed = true;
        Ok(())
    }

    /// Its line of `bond/list`.
    pub fn line(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|m| m.link.name.as_str()).collect();
        format!("{}\t{}\t0\t{}\n", self.name, self.config.mode.name(), names.join(", "))
    }

    /// Its text of `bond/show`.
    pub fn show(&self, now: Instant) -> String {
        let left = |at: Instant| at.since(now).as_millis();
        let c = &self.config;
        let mut out = format!(
            "---- {} ----\nbond_mode: {}\nbond may use recirculation: no, Recirc-ID : -1\nbond-hash-basis: {}\n\
             lb_output action: disabled, bond-id: -1\n",
            self.name,
            c.mode.name(),
            c.basis
        );
        if c.mode == Mode::BalanceSlb {
            out.push_str(&format!("all members active: {}\n", c.all_members_active));
        }
        out.push_str(&format!("updelay: {} ms\ndowndelay: {} ms\n", c.updelay_ms, c.downdelay_ms));
        if c.mode != Mode::ActiveBackup {
            out.push_str(&format!("next rebalance: {} ms\n", left(self.next_rebalance)));
        }
        let primary = match &c.primary {
            None => "<none>".to_owned(),
            Some(name) if self.members.iter().any(|m| m.link.name == *name) => name.clone(),
            Some(name) => format!("{name} (no such member)"),
        };
        let (mac, name) = match self.active.and_then(|port| self.member(port)) {
            Some(m) => (m.link.mac, m.link.name.as_str()),
            None => (Mac::ZERO, "none"),
        };
        out.push_str(&format!(
            "lacp_status: off\nlacp_fallback_ab: false\nactive-backup primary: {primary}\nactive member mac: {mac}({name})\n\n"
        ));
        for m in &self.members {
            let what = if m.enabled { "enabled" } else { "disabled" };
            out.push_str(&format!("member {}: {what}\n", m.link.name));
            if self.active == Some(m.link.port) {
                out.push_str("  active member\n");
            }
            if let Some(at) = m.due {
                let delay = if m.enabled { "downdelay" } else { "updelay" };
                out.push_str(&format!("  {delay} expires in {} ms\n", left(at)));
            }
            out.push_str(&format!("  may_enable: {}\n\n", m.link.up));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO.plus_ms(ms)
    }

    fn links(up: [bool; 2]) -> Vec<Link<u16>> {
        let link =
            |n: u16, up| Link { port: n, name: format!("p{n}"), mac: Mac([0, 0, 0, 0, 0, n as u8]), up };
        vec![link(1, up[0]), link(2, up[1])]
    }

    fn bond(config: Config) -> Bond<u16> {
        let mut bond = Bond::new("b", config, at(0));
        bond.set_links(&links([true, true]), at(0));
        bond
    }

    #[test]
    fn another_member_takes_over_and_keeps_it() {
        let mut b = bond(Config::default());
        assert_eq!(b.choose(7), Some(1));
        b.set_links(&links([false, true]), at(10));
        assert_eq!(
            (b.choose(7), b.admit(1, false), b.admit(2, true)),
            (Some(2), Verdict::Drop, Verdict::Accept)
        );
        b.set_links(&links([true, true]), at(20));
        assert_eq!(b.choose(7), Some(2));
        assert_eq!(b.admit(1, true), Verdict::Drop);
        assert_eq!((b.set_active("p1"), b.choose(7)), (Ok(()), Some(1)));
        assert_eq!(b.set_active("p9"), Err("no such member"));
        b.set_links(&links([false, false]), at(30));
        assert_eq!(b.choose(7), None);
    }

    #[test]
    fn the_primary_comes_back() {
        let mut b = bond(Config { primary: Some("p2".into()), ..Config::default() });
        assert_eq!(b.choose(0), Some(2));
        b.set_links(&links([true, false]), at(10));
        assert_eq!(b.choose(0), Some(1));
        b.set_links(&links([true, true]), at(20));
        assert_eq!(b.choose(0), Some(2));
    }

    #[test]
    fn links_wait_for_their_delay() {
        let mut b = bond(Config { updelay_ms: 100, downdelay_ms: 50, ..Config::default() });
        b.set_links(&links([false, true]), at(0));
        assert_eq!((b.choose(0), b.deadline()), (Some(1), Some(at(50))));
        b.set_links(&links([true, true]), at(20));
        assert_eq!((b.choose(0), b.deadline()), (Some(1), None));
        b.set_links(&links([false, true]), at(30));
        b.run(at(80));
        assert_eq!(b.choose(0), Some(2));
        // With no link left, one that came up just now is better than none.
        b.set_links(&links([true, false]), at(90));
        b.run(at(139));
        assert_eq!(b.choose(0), Some(2));
        b.run(at(140));
        assert_eq!(b.choose(0), Some(1));
    }

    #[test]
    fn sources_are_spread_and_stay() {
        let mut b = bond(Config { mode: Mode::BalanceSlb, ..Config::default() });
        let first: Vec<_> = (0..4).map(|h| b.choose(h)).collect();
        assert_eq!(first, [Some(1), Some(2), Some(1), Some(2)]);
        assert_eq!((0..4).map(|h| b.choose(h)).collect::<Vec<_>>(), first);
        assert_eq!(b.migrate("0", "p2"), Ok(()));
        assert_eq!(b.choose(0), Some(2));
        assert_eq!((b.migrate("256", "p2"), b.migrate("0", "p9")), (Err("bad hash"), Err("no such member")));
        assert_eq!((b.admit(2, false), b.admit(2, true)), (Verdict::DropIfMoved, Verdict::Drop));
        b.set_links(&links([true, false]), at(5));
        assert!((0..256).all(|h| b.choose(h) == Some(1)));
    }
}
