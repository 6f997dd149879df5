//! Bonds: several links as one port.
//!
//! A [`Bond`] is a pure machine: it hears of links ([`Bond::set_links`]), of what LACP agreed on ([`Bond::set_lacp`]) and
//! of time ([`Bond::run`]), and says by which member a packet leaves ([`Bond::choose`]) and whether one that came in may pass
//! ([`Bond::admit`]). Datapath threads ask it at each miss, so its owner keeps it behind a lock; whatever
//! [`Bond::run`] changed makes translations stale.
//!
//! A member is *enabled* once its link has been up for `updelay`, and until it was down for `downdelay`; one enabled member is
//! *active*: all traffic of an active-backup bond goes there, and floods that come in count by it alone.
//!
//! Balancing bonds share 256 *buckets* of hash values out among their enabled members. Bytes of a bucket are told by
//! [`Bond::account`], and every so often [`Bond::rebalance`] moves buckets from the fullest member to the emptiest.
//! Where hashing is the datapath's work (balance-tcp), the bond's number says which of its tables of buckets is meant.
//! Source: ovs-vswitchd.conf.db(5), "Bonding Configuration".

use std::collections::VecDeque;
use std::time::Duration;

use ib_base::time::Instant;
use ib_base::vlog::module::BOND;
use ib_base::vlog_info;
use ib_packet::Mac;

use crate::lacp::Status;

/// Hash values that share a member of a balancing bond.
pub const BUCKETS: usize = 256;

/// Members that differ by less than this many bytes are as good as equal.
const WORTH_MOVING: u64 = 100_000;

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
    /// Without LACP partner one member carries everything.
    pub fallback_ab: bool,
    /// The datapath chooses members of balance-tcp by itself (`lb-output-action`).
    pub lb_output: bool,
    /// Address of the member that was active before a restart.
    pub last_active: Option<Mac>,
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
    /// It has a carrier.
    pub carrier: bool,
    /// It may carry traffic: a carrier, and those who watch the link agree.
    pub up: bool,
}

#[derive(Debug)]
struct Member<P> {
    link: Link<P>,
    enabled: bool,
    /// When a change of the link takes effect.
    due: Option<Instant>,
    /// LACP has just found it to work.
    came: bool,
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

/// Where a packet goes that leaves by a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<P> {
    /// By this member.
    Member(P),
    /// The datapath hashes it, and knows it again by this number.
    Hash {
        /// The bond's number.
        id: u32,
        /// Hash seed.
        basis: u32,
        /// The datapath chooses the member too.
        lb_output: bool,
    },
    /// Nowhere: no member is enabled.
    Nowhere,
}

/// Hash values that share a member.
#[derive(Clone, Copy, Debug)]
struct Bucket<P> {
    member: Option<P>,
    bytes: u64,
}

/// One bond. `P` names ports.
#[derive(Debug)]
pub struct Bond<P> {
    name: String,
    config: Config,
    members: Vec<Member<P>>,
    active: Option<P>,
    /// Address of the member that is or was active.
    last_active: Mac,
    lacp: Status,
    /// Its number in the datapath; 0: none.
    id: u32,
    buckets: Box<[Bucket<P>; BUCKETS]>,
    /// Enabled members, the next to be given a bucket first.
    turns: VecDeque<P>,
    next_rebalance: Instant,
    /// Translations made before are stale.
    changed: bool,
    /// Neighbours must hear that addresses have moved.
    announce: bool,
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
            last_active: Mac::ZERO,
            lacp: Status::Off,
            id: 0,
            buckets: Box::new([Bucket { member: None, bytes: 0 }; BUCKETS]),
            turns: VecDeque::new(),
            next_rebalance,
            changed: true,
            announce: false,
        }
    }

    /// Takes over settings.
    pub fn configure(&mut self, config: Config, now: Instant) {
        if self.config == config {
            return;
        }
        let of_buckets = |c: &Config| (c.mode, c.basis, c.rebalance_interval_ms, c.fallback_ab, c.lb_output);
        let reset = of_buckets(&self.config) != of_buckets(&config);
        self.config = config;
        if reset {
            self.reset_buckets(now);
        }
        self.changed = true;
    }

    fn reset_buckets(&mut self, now: Instant) {
        self.buckets.fill(Bucket { member: None, bytes: 0 });
        self.next_rebalance = now + Duration::from_millis(self.config.rebalance_interval_ms.into());
        self.changed = true;
    }

    /// Its number in the datapath.
    pub fn set_id(&mut self, id: u32) {
        self.changed |= self.id != id;
        self.id = id;
    }

    /// What LACP says of the port as a whole.
    pub fn set_lacp(&mut self, lacp: Status, now: Instant) {
        if self.lacp != lacp {
            self.lacp = lacp;
            self.changed = true;
            if self.falls_back() {
                self.reset_buckets(now);
            }
        }
    }

    /// LACP lets a member carry traffic: known at once to a packet that comes right behind the PDU.
    pub fn link_came(&mut self, port: P) {
        if let Some(m) = self.members.iter_mut().find(|m| m.link.port == port) {
            m.came = m.link.carrier;
        }
    }

    /// A balancing bond works as active-backup: nobody answers its LACP.
    fn falls_back(&self) -> bool {
        self.config.mode != Mode::ActiveBackup && self.config.fallback_ab && self.lacp == Status::Configured
    }

    /// Members are chosen by the datapath's hash.
    fn hashes_in_datapath(&self) -> bool {
        self.config.mode == Mode::BalanceTcp && self.id != 0 && !self.falls_back()
    }

    /// Buckets are moved when members' loads differ.
    fn is_balanced(&self) -> bool {
        self.config.mode != Mode::ActiveBackup && self.config.rebalance_interval_ms != 0 && !self.falls_back()
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
            if self.active == Some(port) {
                self.choose_active(now);
            }
        }
        for link in links {
            if let Some(m) = self.members.iter_mut().find(|m| m.link.port == link.port) {
                m.link = link.clone();
                continue;
            }
            self.members.push(Member { link: link.clone(), enabled: false, due: None, came: false });
            self.members.sort_by(|a, b| a.link.name.cmp(&b.link.name));
            self.enable(link.port, link.carrier);
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
        // Links that LACP watches have been seen to work.
        let delays = (self.config.updelay_ms, self.config.downdelay_ms);
        let (up_ms, down_ms) = if self.lacp == Status::Off { delays } else { (0, 0) };
        let mut due = Vec::new();
        for m in &mut self.members {
            m.came = false;
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
        std::mem::take(&mut self.changed)
    }

    /// The preferred member is enabled and another one active.
    fn primary_waits(&self) -> bool {
        let primary = self.primary();
        primary.is_some() && primary != self.active
    }

    fn primary_name(&self) -> Option<&str> {
        let heeds = self.config.mode == Mode::ActiveBackup || self.config.fallback_ab;
        self.config.primary.as_deref().filter(|_| heeds)
    }

    fn primary(&self) -> Option<P> {
        let name = self.primary_name()?;
        self.members.iter().find(|m| m.enabled && m.link.name == name).map(|m| m.link.port)
    }

    fn choose_active(&mut self, now: Instant) {
        let enabled = || self.members.iter().filter(|m| m.enabled);
        let was = if self.last_active.is_zero() { self.config.last_active } else { Some(self.last_active) };
        let last = |m: &&Member<P>| was == Some(m.link.mac);
        let again = || enabled().find(last).or_else(|| enabled().next()).map(|m| m.link.port);
        // Rather a link that has not been up for long than none.
        let soonest = || {
            let waits = |m: &Member<P>| Some((m.due?, m.link.port));
            self.members.iter().filter(|m| m.link.up).filter_map(waits).min().map(|(_, port)| port)
        };
        let best = self.primary().or_else(again).or_else(soonest);
        let had_one = std::mem::replace(&mut self.active, best).is_some();
        let Some(m) = best.and_then(|port| self.member(port)) else {
            if had_one {
                self.changed = true;
                vlog_info!(BOND, "bond {}: all members disabled", self.name);
            }
            return;
        };
        let (name, member, mac) = (&self.name, &m.link.name, m.link.mac);
        match m.due.filter(|_| !m.enabled) {
            None => vlog_info!(BOND, "bond {name}: active member is now {member}"),
            Some(at) => vlog_info!(
                BOND,
                "bond {name}: active member is now {member}, skipping remaining {} ms updelay (since no member \
                 was enabled)",
                at.since(now).as_millis()
            ),
        }
        self.last_active = mac;
        self.announce = true;
        self.changed = true;
        if let Some(port) = best {
            self.enable(port, true);
        }
    }

    /// When [`Self::run`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.members.iter().filter_map(|m| m.due).min()
    }

    /// The way of a packet. `hash` is that of its source and VLAN.
    pub fn choose(&mut self, hash: u32) -> Route<P> {
        let member = |port: Option<P>| port.map_or(Route::Nowhere, Route::Member);
        match self.config.mode {
            Mode::ActiveBackup => member(self.active),
            _ if self.falls_back() => member(self.active),
            Mode::BalanceSlb => member(self.member_of_bucket(hash as usize % BUCKETS)),
            Mode::BalanceTcp if self.lacp != Status::Negotiated || self.turns.is_empty() => Route::Nowhere,
            Mode::BalanceTcp if self.id != 0 => {
                Route::Hash { id: self.id, basis: self.config.basis, lb_output: self.config.lb_output }
            }
            Mode::BalanceTcp => member(self.member_of_bucket(hash as usize % BUCKETS)),
        }
    }

    /// The member by which a frame of the switch's own leaves, whoever hashes others.
    pub fn member_for(&mut self, hash: u32) -> Option<P> {
        match self.choose(hash) {
            Route::Member(port) => Some(port),
            Route::Hash { .. } => self.member_of_bucket(hash as usize % BUCKETS),
            Route::Nowhere => None,
        }
    }

    /// The member of a bucket; an orphan gets the next one.
    fn member_of_bucket(&mut self, bucket: usize) -> Option<P> {
        if let Some(port) = self.buckets[bucket].member.filter(|port| self.is_enabled(*port)) {
            return Some(port);
        }
        let port = self.turns.pop_front()?;
        self.turns.push_back(port);
        self.buckets[bucket].member = Some(port);
        Some(port)
    }

    /// Members by datapath hash, if the datapath is to know them; and whether it chooses by itself.
    pub fn datapath_buckets(&mut self) -> Option<(bool, Vec<P>)> {
        if !self.hashes_in_datapath() || self.lacp != Status::Negotiated {
            return None;
        }
        let members: Option<Vec<P>> = (0..BUCKETS).map(|i| self.member_of_bucket(i)).collect();
        Some((self.config.lb_output, members?))
    }

    /// Whether the choice depends on the packet: its source address and VLAN.
    pub fn balances(&self) -> bool {
        self.config.mode == Mode::BalanceSlb && !self.falls_back()
    }

    /// Bytes that left by a bucket.
    pub fn account(&mut self, bucket: usize, bytes: u64) {
        let b = &mut self.buckets[bucket % BUCKETS];
        b.bytes = b.bytes.saturating_add(bytes);
    }

    /// Whether [`Self::rebalance`] is due: tell it of bytes first.
    pub fn rebalance_due(&self, now: Instant) -> bool {
        self.is_balanced() && self.next_rebalance <= now
    }

    /// Moves buckets from fuller members to emptier ones, if that is due and makes loads more equal.
    pub fn rebalance(&mut self, now: Instant) {
        if !self.rebalance_due(now) {
            return;
        }
        self.next_rebalance = now + Duration::from_millis(self.config.rebalance_interval_ms.into());
        let load_of = |port: P| -> u64 {
            self.buckets
                .iter()
                .filter(|b| b.member == Some(port))
                .map(|b| b.bytes)
                .fold(0, u64::saturating_add)
        };
        let mut loads: Vec<(u64, P)> =
            self.members.iter().filter(|m| m.enabled).map(|m| (load_of(m.link.port), m.link.port)).collect();
        while loads.len() > 1 {
            loads.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
            let last = loads.len() - 1;
            let ((from_bytes, from), (to_bytes, to)) = (loads[0], loads[last]);
            let overload = from_bytes - to_bytes;
            if overload < to_bytes >> 5 || overload < WORTH_MOVING {
                break;
            }
            let buckets = self.buckets_to_move(from, overload / 2);
            if buckets.is_empty() {
                loads.remove(0);
                continue;
            }
            for bucket in buckets {
                let bytes = self.buckets[bucket].bytes;
                loads[0].0 -= bytes;
                loads[last].0 = loads[last].0.saturating_add(bytes);
                let name = |port: P| self.member(port).map_or("", |m| m.link.name.as_str());
                vlog_info!(
                    BOND,
                    "bond {}: shift {}kB of load (with hash {bucket}) from {} to {} (now carrying {}kB and {}kB \
                     load, respectively)",
                    self.name,
                    bytes / 1024,
                    name(from),
                    name(to),
                    loads[0].0 / 1024,
                    loads[last].0 / 1024
                );
                self.buckets[bucket].member = Some(to);
            }
            self.changed = true;
        }
        // What was long ago counts less and less.
        self.buckets.iter_mut().for_each(|b| b.bytes /= 2);
    }

    /// The buckets of a member to be moved: the fullest ones that together carry no more than `ideal` bytes. None, if that is
    /// less than a tenth of it: too little to disturb flows for.
    fn buckets_to_move(&self, from: P, ideal: u64) -> Vec<usize> {
        let carried = |(_, b): &(usize, &Bucket<P>)| b.member == Some(from) && b.bytes != 0;
        let mut all: Vec<(usize, u64)> =
            self.buckets.iter().enumerate().filter(carried).map(|(i, b)| (i, b.bytes)).collect();
        all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let mut room = ideal;
        all.retain(|(_, bytes)| {
            let fits = *bytes <= room;
            room -= if fits { *bytes } else { 0 };
            fits
        });
        let is_worth_it = ideal - room >= ideal / 10;
        all.into_iter().filter(|_| is_worth_it).map(|(i, _)| i).collect()
    }

    /// Whether neighbours must hear, now, by which member addresses are to be reached.
    pub fn take_announce(&mut self) -> bool {
        std::mem::take(&mut self.announce)
    }

    /// The hash seed.
    pub fn basis(&self) -> u32 {
        self.config.basis
    }

    /// Whether a packet that came in by a member may pass.
    pub fn admit(&self, port: P, to_many: bool) -> Verdict {
        let Some(m) = self.member(port) else { return Verdict::Drop };
        match self.lacp {
            // The other end knows of the bond.
            Status::Negotiated if m.enabled || m.link.up || m.came => return Verdict::Accept,
            Status::Negotiated => return Verdict::Drop,
            Status::Configured if !self.config.fallback_ab => return Verdict::Drop,
            Status::Configured | Status::Off => {}
        }
        let is_active = self.active == Some(port);
        if !m.enabled || (to_many && !is_active && !self.config.all_members_active) {
            return Verdict::Drop;
        }
        match self.config.mode {
            Mode::BalanceTcp if !self.config.fallback_ab => Verdict::Drop,
            Mode::ActiveBackup | Mode::BalanceTcp if is_active => Verdict::Accept,
            Mode::ActiveBackup | Mode::BalanceTcp => Verdict::Drop,
            Mode::BalanceSlb => Verdict::DropIfMoved,
        }
    }

    /// The active member's address.
    pub fn active_mac(&self) -> Option<Mac> {
        Some(self.member(self.active?)?.link.mac)
    }

    /// Makes a member active. Returns whether it was not before.
    pub fn set_active(&mut self, name: &str) -> Result<bool, &'static str> {
        let Some(m) = self.members.iter().find(|m| m.link.name == name) else { return Err("no such member") };
        let (port, mac) = (m.link.port, m.link.mac);
        if !m.enabled {
            return Err("cannot make disabled member active");
        }
        if self.active == Some(port) {
            return Ok(false);
        }
        self.active = Some(port);
        self.last_active = mac;
        self.announce = true;
        self.changed = true;
        vlog_info!(BOND, "bond {}: active member is now {name}", self.name);
        Ok(true)
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
        if hash.is_empty() || !hash.bytes().all(|b| b.is_ascii_digit()) {
            return Err("bad hash");
        }
        let bucket = hash.parse::<usize>().unwrap_or(usize::MAX) % BUCKETS;
        let Some(m) = self.members.iter().find(|m| m.link.name == name) else { return Err("no such member") };
        if !m.enabled {
            return Err("cannot migrate to disabled member");
        }
        self.buckets[bucket].member = Some(m.link.port);
        self.changed = true;
        Ok(())
    }

    /// Its line of `bond/list`.
    pub fn line(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|m| m.link.name.as_str()).collect();
        format!("{}\t{}\t{}\t{}\n", self.name, self.config.mode.name(), self.id, names.join(", "))
    }

    /// Its text of `bond/show`.
    pub fn show(&self, now: Instant) -> String {
        let left = |at: Instant| at.since(now).as_millis();
        let c = &self.config;
        let id_if = |used: bool| if used { self.id.to_string() } else { "-1".to_owned() };
        let may_recirc = self.hashes_in_datapath();
        let lb_output = may_recirc && c.lb_output;
        let mut out = format!(
            "---- {} ----\nbond_mode: {}\nbond may use recirculation: {}, Recirc-ID : {}\nbond-hash-basis: {}\n\
             lb_output action: {}, bond-id: {}\n",
            self.name,
            c.mode.name(),
            if may_recirc { "yes" } else { "no" },
            id_if(may_recirc),
            c.basis,
            if lb_output { "enabled" } else { "disabled" },
            id_if(lb_output),
        );
        if c.mode == Mode::BalanceSlb {
            out.push_str(&format!("all members active: {}\n", c.all_members_active));
        }
        out.push_str(&format!("updelay: {} ms\ndowndelay: {} ms\n", c.updelay_ms, c.downdelay_ms));
        if self.is_balanced() {
            out.push_str(&format!("next rebalance: {} ms\n", left(self.next_rebalance)));
        }
        let primary = match self.primary_name() {
            None => "<none>".to_owned(),
            Some(name) if self.members.iter().any(|m| m.link.name == name) => name.to_owned(),
            Some(name) => format!("{name} (no such member)"),
        };
        let (mac, name) = match self.active.and_then(|port| self.member(port)) {
            Some(m) => (m.link.mac, m.link.name.as_str()),
            None => (Mac::ZERO, "none"),
        };
        out.push_str(&format!(
            "lacp_status: {}\nlacp_fallback_ab: {}\nactive-backup primary: {primary}\nactive member mac: {mac}({name})\n\n",
            self.lacp.name(),
            c.fallback_ab
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
            out.push_str(&format!("  may_enable: {}\n", m.link.up));
            if self.is_balanced() {
                let carried = |(_, b): &(usize, &Bucket<P>)| b.member == Some(m.link.port) && b.bytes >= 1024;
                for (hash, b) in self.buckets.iter().enumerate().filter(carried) {
                    out.push_str(&format!("  hash {hash}: {} kB load\n", b.bytes / 1024));
                }
            }
            out.push('\n');
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
        let link = |n: u16, up| Link {
            port: n,
            name: format!("p{n}"),
            mac: Mac([0, 0, 0, 0, 0, n as u8]),
            carrier: up,
            up,
        };
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
        assert_eq!(b.choose(7), Route::Member(1));
        b.set_links(&links([false, true]), at(10));
        assert_eq!(
            (b.choose(7), b.admit(1, false), b.admit(2, true)),
            (Route::Member(2), Verdict::Drop, Verdict::Accept)
        );
        b.set_links(&links([true, true]), at(20));
        assert_eq!(b.choose(7), Route::Member(2));
        assert_eq!(b.admit(1, true), Verdict::Drop);
        assert_eq!((b.set_active("p1"), b.choose(7)), (Ok(true), Route::Member(1)));
        assert_eq!(b.set_active("p1"), Ok(false));
        assert_eq!(b.set_active("p9"), Err("no such member"));
        b.set_links(&links([false, false]), at(30));
        assert_eq!(b.choose(7), Route::Nowhere);
    }

    #[test]
    fn the_primary_comes_back() {
        let mut b = bond(Config { primary: Some("p2".into()), ..Config::default() });
        assert_eq!(b.choose(0), Route::Member(2));
        b.set_links(&links([true, false]), at(10));
        assert_eq!(b.choose(0), Route::Member(1));
        b.set_links(&links([true, true]), at(20));
        assert_eq!(b.choose(0), Route::Member(2));
    }

    #[test]
    fn links_wait_for_their_delay() {
        let mut b = bond(Config { updelay_ms: 100, downdelay_ms: 50, ..Config::default() });
        b.set_links(&links([false, true]), at(0));
        assert_eq!((b.choose(0), b.deadline()), (Route::Member(1), Some(at(50))));
        b.set_links(&links([true, true]), at(20));
        assert_eq!((b.choose(0), b.deadline()), (Route::Member(1), None));
        b.set_links(&links([false, true]), at(30));
        b.run(at(80));
        assert_eq!(b.choose(0), Route::Member(2));
        // With no link left, one that came up just now is better than none.
        b.set_links(&links([true, false]), at(90));
        b.run(at(139));
        assert_eq!(b.choose(0), Route::Member(2));
        b.run(at(140));
        assert_eq!(b.choose(0), Route::Member(1));
    }

    #[test]
    fn sources_are_spread_and_stay() {
        let mut b = bond(Config { mode: Mode::BalanceSlb, ..Config::default() });
        let first: Vec<_> = (0..4).map(|h| b.choose(h)).collect();
        assert_eq!(first, [1, 2, 1, 2].map(Route::Member));
        assert_eq!((0..4).map(|h| b.choose(h)).collect::<Vec<_>>(), first);
        assert_eq!(b.migrate("0", "p2"), Ok(()));
        assert_eq!(b.choose(0), Route::Member(2));
        assert_eq!(
            (b.migrate("x", "p2"), b.migrate("256", "p2"), b.migrate("0", "p9")),
            (Err("bad hash"), Ok(()), Err("no such member"))
        );
        assert_eq!((b.admit(2, false), b.admit(2, true)), (Verdict::DropIfMoved, Verdict::Drop));
        b.set_links(&links([true, false]), at(5));
        assert!((0..256).all(|h| b.choose(h) == Route::Member(1)));
    }

    #[test]
    fn lacp_decides_over_balance_tcp() {
        let mut b = bond(Config { mode: Mode::BalanceTcp, basis: 3, ..Config::default() });
        b.set_id(9);
        assert_eq!((b.choose(0), b.admit(1, false)), (Route::Nowhere, Verdict::Drop));
        b.set_lacp(Status::Negotiated, at(0));
        assert_eq!(b.choose(0), Route::Hash { id: 9, basis: 3, lb_output: false });
        assert_eq!((b.admit(2, true), b.admit(7, false)), (Verdict::Accept, Verdict::Drop));
        let (lb_output, members) = b.datapath_buckets().unwrap();
        assert_eq!((lb_output, &members[..4], members.len()), (false, &[1, 2, 1, 2][..], 256));
        b.set_links(&links([false, true]), at(1));
        assert!(b.datapath_buckets().unwrap().1.iter().all(|m| *m == 2));
        assert_eq!(b.admit(1, false), Verdict::Drop);
        b.link_came(1);
        assert_eq!(b.admit(1, false), Verdict::Drop, "no carrier");
        let mut without_lacp = links([true, true]);
        without_lacp[0].up = false;
        b.set_links(&without_lacp, at(1));
        assert_eq!(b.admit(1, false), Verdict::Drop);
        // The PDU that brings a link up is as good as the link.
        b.link_came(1);
        assert_eq!(b.admit(1, false), Verdict::Accept);
        b.set_lacp(Status::Configured, at(2));
        assert_eq!((b.choose(0), b.datapath_buckets()), (Route::Nowhere, None));
    }

    #[test]
    fn without_partner_one_member_carries_everything() {
        let mut b = bond(Config { mode: Mode::BalanceTcp, fallback_ab: true, ..Config::default() });
        b.set_id(9);
        b.set_lacp(Status::Configured, at(0));
        assert_eq!((b.choose(0), b.datapath_buckets()), (Route::Member(1), None));
        assert_eq!((b.admit(1, true), b.admit(2, false)), (Verdict::Accept, Verdict::Drop));
    }

    #[test]
    fn load_moves_to_the_emptier_member() {
        let config = Config { mode: Mode::BalanceSlb, rebalance_interval_ms: 1000, ..Config::default() };
        let mut b = bond(config);
        assert_eq!((0..4).map(|h| b.choose(h)).collect::<Vec<_>>(), [1, 2, 1, 2].map(Route::Member));
        b.account(0, 1_000_000);
        b.account(2, 700_000);
        b.rebalance(at(999));
        assert_eq!(b.choose(2), Route::Member(1));
        b.run(at(1000));
        b.rebalance(at(1000));
        // The larger one would make the other member the fuller.
        assert_eq!((b.choose(0), b.choose(2)), (Route::Member(1), Route::Member(2)));
        assert!(b.run(at(1000)));
        // Little differences stay.
        b.rebalance(at(2000));
        assert!(!b.run(at(2000)));
    }

    #[test]
    fn neighbours_hear_of_a_new_active_member_once() {
        let mut b = bond(Config::default());
        assert!(b.take_announce() && !b.take_announce());
        b.set_links(&links([false, true]), at(1));
        assert!(b.take_announce());
    }
}
