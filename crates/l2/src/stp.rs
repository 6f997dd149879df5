//! Spanning tree (IEEE 802.1D-1998, clause 8) as a pure machine: BPDUs and the time in; BPDUs, port states and "forget what
//! was learned" out.
//!
//! Ports have numbers below 255, which the owner gives; a port is unknown until [`Stp::enable`]. Whoever drives the
//! machine calls [`Stp::run`] whenever [`Stp::deadline`] has come, then empties [`Stp::take_frames`], and looks at the
//! states if [`Stp::take_changes`] says so. Procedures carry their names in the standard, sections 8.6.1 to 8.6.18. All
//! times are milliseconds; on the wire they are 256ths of a second.
//!
//! Cost: each event looks at all ports once or twice.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_packet::Mac;

/// Priority of a bridge unless configured.
pub const DEFAULT_BRIDGE_PRIORITY: u16 = 0x8000;
/// Priority of a port unless configured.
pub const DEFAULT_PORT_PRIORITY: u8 = 128;
/// Least time between two configuration messages by a port.
const HOLD_MS: u64 = 1000;
/// Most time by which a message may have aged.
const AGE_INCREMENT: u16 = 1;

/// State of a port (8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes no part; packets pass as if there were no spanning tree.
    Disabled,
    /// Neither learns nor forwards yet.
    Listening,
    /// Learns, but does not forward yet.
    Learning,
    /// Forwards.
    Forwarding,
    /// Would close a loop.
    Blocking,
}

impl State {
    /// As `stp/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Disabled => "disabled",
            State::Listening => "listening",
            State::Learning => "learning",
            State::Forwarding => "forwarding",
            State::Blocking => "blocking",
        }
    }
    /// Whether packets may pass.
    pub fn forwards(self) -> bool {
        matches!(self, State::Disabled | State::Forwarding)
    }
    /// Whether addresses may be learned.
    pub fn learns(self) -> bool {
        matches!(self, State::Disabled | State::Learning | State::Forwarding)
    }
}

/// What a port is in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads to the root.
    Root,
    /// Its segment's way to the root leads through it.
    Designated,
    /// Another bridge does better.
    Alternate,
    /// None.
    Disabled,
}

impl Role {
    /// As `stp/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Designated => "designated",
            Role::Alternate => "alternate",
            Role::Disabled => "disabled",
        }
    }
}

/// Settings of a bridge; see ovs-vswitchd.conf.db(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Priority (16 bits) and address (48 bits).
    pub bridge_id: u64,
    /// Between configuration messages of the root.
    pub hello_ms: u64,
    /// Until information is too old.
    pub max_age_ms: u64,
    /// In each of listening and learning.
    pub forward_delay_ms: u64,
}

impl Config {
    /// The identifier of a priority and an address.
    pub fn id(priority: u16, mac: Mac) -> u64 {
        u64::from(priority) << 48 | mac.to_u64()
    }
    /// Within the standard's limits, and so that the times fit each other (8.10.2).
    fn sane(self) -> Config {
        let hello_ms = self.hello_ms.clamp(1000, 10_000);
        let max_age_ms = self.max_age_ms.clamp((2 * (hello_ms + 1000)).max(6000), 40_000);
        let forward_delay_ms = self.forward_delay_ms.clamp((max_age_ms / 2 + 1000).max(4000), 30_000);
        Config { hello_ms, max_age_ms, forward_delay_ms, ..self }
    }
}

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// BPDUs sent.
    pub tx: u64,
    /// BPDUs received.
    pub rx: u64,
    /// Of these, ones that made no sense.
    pub errors: u64,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    id: u16,
    state: State,
    cost: u32,
    designated_root: u64,
    designated_cost: u32,
    designated_bridge: u64,
    designated_port: u16,
    ack: bool,
    config_pending: bool,
    detects_changes: bool,
    /// When the information was received, and its age then.
    heard: Option<(Instant, u64)>,
    forward_delay_since: Option<Instant>,
    hold_since: Option<Instant>,
    entered: Instant,
    counters: Counters,
}

struct ConfigBpdu {
    flags: u8,
    root: u64,
    cost: u32,
    bridge: u64,
    port: u16,
    message_age_ms: u64,
    max_age_ms: u64,
    hello_ms: u64,
    forward_delay_ms: u64,
}

const FLAG_CHANGE: u8 = 0x01;
const FLAG_ACK: u8 = 0x80;

fn to_wire(ms: u64) -> u16 {
    u16::try_from(ms * 256 / 1000).unwrap_or(u16::MAX)
}

fn from_wire(units: u16) -> u64 {
    u64::from(units) * 1000 / 256
}

/// A bridge. See the module's description.
pub struct Stp {
    config: Config,
    root: u64,
    root_cost: u32,
    root_port: Option<u8>,
    /// Times in force: the root's.
    times: Config,
    ports: BTreeMap<u8, Port>,
    /// A change was detected and not acknowledged by the root yet.
    detected: bool,
    /// Tell everybody that the topology changes.
    changing: bool,
    hello_since: Option<Instant>,
    tcn_since: Option<Instant>,
    changing_since: Option<Instant>,
    frames: Vec<(u8, Vec<u8>)>,
    changed: bool,
    flush: bool,
}

impl Stp {
    /// A bridge without ports: it is the root.
    pub fn new(config: Config, now: Instant) -> Stp {
        let config = config.sane();
        Stp {
            root: config.bridge_id,
            root_cost: 0,
            root_port: None,
            times: config,
            config,
            ports: BTreeMap::new(),
            detected: false,
            changing: false,
            hello_since: Some(now),
            tcn_since: None,
            changing_since: None,
            frames: Vec::new(),
            changed: true,
            flush: false,
        }
    }

    /// Changes settings (8.8.4 for the identifier).
    pub fn configure(&mut self, config: Config, now: Instant) {
        let config = config.sane();
        if config == self.config {
            return;
        }
        let was_root = self.is_root();
        let old = std::mem::replace(&mut self.config, config);
        if was_root {
            self.times = config;
        }
        if old.bridge_id != config.bridge_id {
            for port in self.ports.values_mut() {
                if port.designated_bridge == old.bridge_id && port.designated_port == port.id {
                    port.designated_bridge = config.bridge_id;
                }
            }
            if was_root {
                self.root = config.bridge_id;
            }
            self.update(was_root, now);
        }
        self.changed = true;
    }

    /// Settings in force.
    pub fn config(&self) -> Config {
        self.config
    }
    /// Settings of the root.
    pub fn root_times(&self) -> Config {
        Config { bridge_id: self.root, ..self.times }
    }
    /// Cost of the way to the root.
    pub fn root_cost(&self) -> u32 {
        self.root_cost
    }
    /// The port that leads to it.
    pub fn root_port(&self) -> Option<u8> {
        self.root_port
    }
    /// This bridge is the root.
    pub fn is_root(&self) -> bool {
        self.root == self.config.bridge_id
    }
    /// State of a port.
    pub fn state(&self, n: u8) -> State {
        self.ports.get(&n).map_or(State::Disabled, |p| p.state)
    }
    /// Role of a port.
    pub fn role(&self, n: u8) -> Role {
        match self.ports.get(&n) {
            None => Role::Disabled,
            Some(p) if p.state == State::Disabled => Role::Disabled,
            Some(_) if self.root_port == Some(n) => Role::Root,
            Some(p) if self.is_designated(p) => Role::Designated,
            Some(_) => Role::Alternate,
        }
    }
    /// Identifier: priority and number.
    pub fn port_id(&self, n: u8) -> u16 {
        self.ports.get(&n).map_or(0, |p| p.id)
    }
    /// Cost of a port.
    pub fn port_cost(&self, n: u8) -> u32 {
        self.ports.get(&n).map_or(0, |p| p.cost)
    }
    /// Counters of a port.
    pub fn counters(&self, n: u8) -> Counters {
        self.ports.get(&n).map(|p| p.counters).unwrap_or_default()
    }
    /// Seconds in the present state.
    pub fn seconds_in_state(&self, n: u8, now: Instant) -> u64 {
        self.ports.get(&n).map_or(0, |p| now.as_secs().saturating_sub(p.entered.as_secs()))
    }

    /// Whether one of the following has something.
    pub fn has_news(&self) -> bool {
        self.changed || self.flush || !self.frames.is_empty()
    }
    /// BPDUs to send: port and contents behind the LLC header.
    pub fn take_frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        std::mem::take(&mut self.frames)
    }
    /// Whether states changed since the last call.
    pub fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
    /// Whether learned addresses are to be forgotten since the last call.
    pub fn take_flush(&mut self) -> bool {
        std::mem::take(&mut self.flush)
    }

    /// Lets a port take part, or changes its settings (8.8.2, 8.8.5, 8.8.6).
    pub fn enable(&mut self, n: u8, priority: u8, cost: u16, now: Instant) {
        let id = u16::from(priority) << 8 | (u16::from(n) + 1);
        let cost = u32::from(cost.max(1));
        let was_root = self.is_root();
        match self.ports.get_mut(&n) {
            None => {
                let port = Port {
                    id,
                    state: State::Disabled,
                    cost,
                    designated_root: 0,
                    designated_cost: 0,
                    designated_bridge: 0,
                    designated_port: 0,
                    ack: false,
                    config_pending: false,
                    detects_changes: true,
                    heard: None,
                    forward_delay_since: None,
                    hold_since: None,
                    entered: now,
                    counters: Counters::default(),
                };
                self.ports.insert(n, port);
                self.become_designated(n);
                self.set_state(n, State::Blocking, now);
                self.select_states(now);
            }
            Some(port) if port.cost != cost || port.id != id => {
                if port.designated_bridge == self.config.bridge_id && port.designated_port == port.id {
                    port.designated_port = id;
                }
                port.cost = cost;
                port.id = id;
                self.update(was_root, now);
            }
            Some(_) => {}
        }
    }

    /// Takes a port out (8.8.3).
    pub fn disable(&mut self, n: u8, now: Instant) {
        let was_root = self.is_root();
        self.set_state(n, State::Disabled, now);
        if self.ports.remove(&n).is_some() {
            if self.root_port == Some(n) {
                self.root_port = None;
            }
            self.update(was_root, now);
        }
    }

    /// `stp/tcn`: behaves as if the topology had changed.
    pub fn force_change(&mut self, now: Instant) {
        self.detect_change(now);
    }

    /// A BPDU came in (8.7.1, 8.7.2). `bpdu` is what follows the LLC header.
    pub fn receive(&mut self, n: u8, bpdu: &[u8], now: Instant) {
        let Some(port) = self.ports.get_mut(&n) else { return };
        port.counters.rx += 1;
        let kind = match bpdu {
            [0, 0, 0, kind, ..] => Some(*kind),
            // Of rapid spanning tree: its messages begin as ours do.
            [0, 0, 2, 2, ..] => Some(0),
            _ => None,
        };
        match (kind, parse_config(bpdu)) {
            (Some(0), Some(config)) => self.receive_config(n, &config, now),
            (Some(0x80), _) => self.receive_tcn(n, now),
            _ => port.counters.errors += 1,
        }
    }

    fn receive_config(&mut self, n: u8, bpdu: &ConfigBpdu, now: Instant) {
        let was_root = self.is_root();
        let Some(port) = self.ports.get(&n).copied() else { return };
        if bpdu.message_age_ms >= bpdu.max_age_ms {
            return;
        }
        if self.supersedes(&port, bpdu) {
            let Some(p) = self.ports.get_mut(&n) else { return };
            p.designated_root = bpdu.root;
            p.designated_cost = bpdu.cost;
            p.designated_bridge = bpdu.bridge;
            p.designated_port = bpdu.port;
            p.heard = Some((now, bpdu.message_age_ms));
            self.select_root();
            self.select_designated();
            self.select_states(now);
            if !self.is_root() && was_root {
                self.hello_since = None;
                if self.detected {
                    self.changing_since = None;
                    self.transmit_tcn();
                    self.tcn_since = Some(now);
                }
            }
            if self.root_port == Some(n) {
                self.times.max_age_ms = bpdu.max_age_ms;
                self.times.hello_ms = bpdu.hello_ms;
                self.times.forward_delay_ms = bpdu.forward_delay_ms;
                let changing = bpdu.flags & FLAG_CHANGE != 0;
                self.flush |= changing && !self.changing;
                self.changing = changing;
                self.generate(now);
                if bpdu.flags & FLAG_ACK != 0 {
                    self.detected = false;
                    self.tcn_since = None;
                }
            }
            self.changed = true;
        } else if self.is_designated(&port) {
            self.transmit_config(n, now);
        }
    }

    fn receive_tcn(&mut self, n: u8, now: Instant) {
        let Some(port) = self.ports.get(&n).copied() else { return };
        if self.is_designated(&port) {
            self.detect_change(now);
            if let Some(p) = self.ports.get_mut(&n) {
                p.ack = true;
            }
            self.transmit_config(n, now);
        }
    }

    /// 8.6.2.
    fn supersedes(&self, port: &Port, b: &ConfigBpdu) -> bool {
        let theirs = (b.root, b.cost, b.bridge);
        let ours = (port.designated_root, port.designated_cost, port.designated_bridge);
        theirs < ours
            || (theirs == ours && (b.bridge != self.config.bridge_id || b.port <= port.designated_port))
    }

    fn is_designated(&self, p: &Port) -> bool {
        p.designated_bridge == self.config.bridge_id && p.designated_port == p.id
    }

    /// When [`Self::run`] is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        let after = |since: Option<Instant>, ms: u64| since.map(|at| at.plus_ms(ms));
        let mut at = [
            after(self.hello_since, self.times.hello_ms),
            after(self.tcn_since, self.config.hello_ms),
            after(self.changing_since, self.times.max_age_ms + self.times.forward_delay_ms),
        ]
        .into_iter()
        .flatten()
        .min();
        for p in self.ports.values() {
            let heard = p.heard.map(|(when, age)| when.plus_ms(self.times.max_age_ms.saturating_sub(age)));
            let delay = after(p.forward_delay_since, self.times.forward_delay_ms);
            let hold = after(p.hold_since, HOLD_MS);
            at = [at, heard, delay, hold].into_iter().flatten().min();
        }
        at
    }

    /// Lets timers expire (8.7.3 to 8.7.8).
    pub fn run(&mut self, now: Instant) {
        let due = |since: Option<Instant>, ms: u64| since.is_some_and(|at| at.plus_ms(ms) <= now);
        if due(self.hello_since, self.times.hello_ms) {
            self.generate(now);
            self.hello_since = Some(now);
        }
        if due(self.tcn_since, self.config.hello_ms) {
            self.transmit_tcn();
            self.tcn_since = Some(now);
        }
        if due(self.changing_since, self.times.max_age_ms + self.times.forward_delay_ms) {
            self.changing_since = None;
            self.detected = false;
            self.changing = false;
        }
        let numbers: Vec<u8> = self.ports.keys().copied().collect();
        for n in &numbers {
            let Some(p) = self.ports.get(n).copied() else { continue };
            if p.heard
                .is_some_and(|(when, age)| when.plus_ms(self.times.max_age_ms.saturating_sub(age)) <= now)
            {
                let was_root = self.is_root();
                self.become_designated(*n);
                self.update(was_root, now);
                if self.is_root() && !was_root {
                    self.times = self.config;
                }
            }
        }
        for n in &numbers {
            let Some(p) = self.ports.get(n).copied() else { continue };
            if due(p.forward_delay_since, self.times.forward_delay_ms) {
                self.forward_delay_expired(*n, now);
            }
            if due(p.hold_since, HOLD_MS)
                && let Some(p) = self.ports.get_mut(n)
            {
                p.hold_since = None;
                if p.config_pending {
                    self.transmit_config(*n, now);
                }
            }
        }
    }

    fn forward_delay_expired(&mut self, n: u8, now: Instant) {
        match self.state(n) {
            State::Listening => {
                self.set_state(n, State::Learning, now);
                self.restart_forward_delay(n, Some(now));
            }
            State::Learning => {
                self.set_state(n, State::Forwarding, now);
                self.restart_forward_delay(n, None);
                let designated_somewhere =
                    self.ports.values().any(|p| p.designated_bridge == self.config.bridge_id);
                let detects = self.ports.get(&n).is_some_and(|p| p.detects_changes);
                if designated_somewhere && detects {
                    self.detect_change(now);
                }
            }
            _ => self.restart_forward_delay(n, None),
        }
    }

    fn restart_forward_delay(&mut self, n: u8, since: Option<Instant>) {
        if let Some(p) = self.ports.get_mut(&n) {
            p.forward_delay_since = since;
        }
    }

    /// 8.6.7 with what follows whenever the root may be another (8.7.4, 8.8).
    fn update(&mut self, was_root: bool, now: Instant) {
        self.select_root();
        self.select_designated();
        self.select_states(now);
        match (was_root, self.is_root()) {
            (false, true) => {
                self.times = self.config;
                self.detect_change(now);
                self.tcn_since = None;
                self.generate(now);
                self.hello_since = Some(now);
            }
            (true, false) => self.hello_since = None,
            _ => {}
        }
        self.changed = true;
    }

    /// 8.6.8.
    fn select_root(&mut self) {
        let best = self
            .ports
            .iter()
            .filter(|(_, p)| {
                p.state != State::Disabled
                    && !self.is_designated(p)
                    && p.designated_root < self.config.bridge_id
            })
            .min_by_key(|(_, p)| {
                let cost = p.designated_cost.saturating_add(p.cost);
                (p.designated_root, cost, p.designated_bridge, p.designated_port, p.id)
            })
            .map(|(n, p)| (*n, p.designated_root, p.designated_cost.saturating_add(p.cost)));
        match best {
            Some((n, root, cost)) => {
                self.root_port = Some(n);
                self.root = root;
                self.root_cost = cost;
            }
            None => {
                self.root_port = None;
                self.root = self.config.bridge_id;
                self.root_cost = 0;
            }
        }
    }

    /// 8.6.9.
    fn select_designated(&mut self) {
        let own = self.config.bridge_id;
        let numbers: Vec<u8> = self.ports.keys().copied().collect();
        for n in numbers {
            let Some(p) = self.ports.get(&n) else { continue };
            let ours = (self.root_cost, own, p.id);
            let theirs = (p.designated_cost, p.designated_bridge, p.designated_port);
            if self.is_designated(p) || p.designated_root != self.root || ours < theirs {
                self.become_designated(n);
            }
        }
    }

    /// 8.6.10.
    fn become_designated(&mut self, n: u8) {
        let (root, cost, bridge) = (self.root, self.root_cost, self.config.bridge_id);
        if let Some(p) = self.ports.get_mut(&n) {
            p.designated_root = root;
            p.designated_cost = cost;
            p.designated_bridge = bridge;
            p.designated_port = p.id;
            p.heard = None;
        }
    }

    /// 8.6.11.
    fn select_states(&mut self, now: Instant) {
        let numbers: Vec<u8> = self.ports.keys().copied().collect();
        for n in numbers {
            let Some(p) = self.ports.get(&n).copied() else { continue };
            if self.root_port == Some(n) {
                if let Some(p) = self.ports.get_mut(&n) {
                    p.config_pending = false;
                    p.ack = false;
                }
                self.make_forwarding(n, now);
            } else if self.is_designated(&p) {
                if let Some(p) = self.ports.get_mut(&n) {
                    p.heard = None;
                }
                self.make_forwarding(n, now);
            } else {
                if let Some(p) = self.ports.get_mut(&n) {
                    p.config_pending = false;
                    p.ack = false;
                }
                self.make_blocking(n, now);
            }
        }
    }

    /// 8.6.12.
    fn make_forwarding(&mut self, n: u8, now: Instant) {
        if self.state(n) == State::Blocking {
            self.set_state(n, State::Listening, now);
            self.restart_forward_delay(n, Some(now));
        }
    }

    /// 8.6.13.
    fn make_blocking(&mut self, n: u8, now: Instant) {
        let state = self.state(n);
        if matches!(state, State::Disabled | State::Blocking) {
            return;
        }
        let detects = self.ports.get(&n).is_some_and(|p| p.detects_changes);
        if matches!(state, State::Forwarding | State::Learning) && detects {
            self.detect_change(now);
        }
        self.set_state(n, State::Blocking, now);
        self.restart_forward_delay(n, None);
    }

    fn set_state(&mut self, n: u8, state: State, now: Instant) {
        let Some(p) = self.ports.get_mut(&n) else { return };
        if p.state != state {
            self.flush |= p.state.learns() != state.learns();
            p.state = state;
            p.entered = now;
            self.changed = true;
        }
    }

    /// 8.6.14.
    fn detect_change(&mut self, now: Instant) {
        if self.is_root() {
            self.flush |= !self.changing;
            self.changing = true;
            self.changing_since = Some(now);
        } else if !self.detected {
            self.transmit_tcn();
            self.tcn_since = Some(now);
        }
        self.detected = true;
    }

    /// 8.6.4.
    fn generate(&mut self, now: Instant) {
        let numbers: Vec<u8> = self.ports.keys().copied().collect();
        for n in numbers {
            if self.ports.get(&n).is_some_and(|p| self.is_designated(p)) {
                self.transmit_config(n, now);
            }
        }
    }

    /// 8.6.1.
    fn transmit_config(&mut self, n: u8, now: Instant) {
        let age = self.root_port.and_then(|r| self.ports.get(&r)).and_then(|p| p.heard);
        let age_ms = age.map_or(0, |(when, age)| age + now.as_ms().saturating_sub(when.as_ms()));
        let message_age = if self.is_root() { 0 } else { to_wire(age_ms).saturating_add(AGE_INCREMENT) };
        let Some(p) = self.ports.get_mut(&n) else { return };
        if p.state == State::Disabled {
            return;
        }
        if p.hold_since.is_some() {
            p.config_pending = true;
            return;
        }
        p.config_pending = false;
        if message_age >= to_wire(self.times.max_age_ms) {
            return;
        }
        let flags = if p.ack { FLAG_ACK } else { 0 } | if self.changing { FLAG_CHANGE } else { 0 };
        p.ack = false;
        p.hold_since = Some(now);
        p.counters.tx += 1;
        let mut bpdu = vec![0, 0, 0, 0, flags];
        bpdu.extend(self.root.to_be_bytes());
        bpdu.extend(self.root_cost.to_be_bytes());
        bpdu.extend(self.config.bridge_id.to_be_bytes());
        bpdu.extend(p.id.to_be_bytes());
        bpdu.extend(message_age.to_be_bytes());
        for ms in [self.times.max_age_ms, self.times.hello_ms, self.times.forward_delay_ms] {
            bpdu.extend(to_wire(ms).to_be_bytes());
        }
        self.frames.push((n, bpdu));
    }

    /// 8.6.6.
    fn transmit_tcn(&mut self) {
        if let Some(n) = self.root_port
            && let Some(p) = self.ports.get_mut(&n)
        {
            p.counters.tx += 1;
            self.frames.push((n, vec![0, 0, 0, 0x80]));
        }
    }
}

fn parse_config(b: &[u8]) -> Option<ConfigBpdu> {
    let b: &[u8; 35] = b.first_chunk()?;
    let u16_at = |i: usize| u16::from_be_bytes([b[i], b[i + 1]]);
    let u64_at = |i: usize| b[i..i + 8].iter().fold(0u64, |v, byte| v << 8 | u64::from(*byte));
    Some(ConfigBpdu {
        flags: b[4],
        root: u64_at(5),
        cost: u32::from_be_bytes([b[13], b[14], b[15], b[16]]),
        bridge: u64_at(17),
        port: u16_at(25),
        message_age_ms: from_wire(u16_at(27)),
        max_age_ms: from_wire(u16_at(29)),
        hello_ms: from_wire(u16_at(31)),
        forward_delay_ms: from_wire(u16_at(33)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_base::rng::Rng;

    fn config(id: u64) -> Config {
        Config { bridge_id: id, hello_ms: 2000, max_age_ms: 20_000, forward_delay_ms: 15_000 }
    }
    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    /// As Open vSwitch's first BPDU after `stp_enable` with this address.
    #[test]
    fn a_lone_bridge_is_the_root_and_says_so() {
        let mut stp = Stp::new(config(0x8000_aa66_aa66_0000), at(0));
        stp.enable(0, 128, 2, at(0));
        assert_eq!(stp.state(0), State::Listening);
        stp.run(at(2000));
        let hex: String = stp.take_frames()[0].1.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "00000000008000aa66aa660000000000008000aa66aa66000080010000140002000f00");
        stp.run(at(15_000));
        assert_eq!(stp.state(0), State::Learning);
        stp.run(at(30_000));
        assert_eq!((stp.state(0), stp.role(0)), (State::Forwarding, Role::Designated));
    }

    #[test]
    fn a_better_root_is_followed_and_missed() {
        let mut stp = Stp::new(config(0x8000_aa66_aa66_0000), at(0));
        stp.enable(0, 128, 2, at(0));
        let mut bpdu = vec![0; 5];
        bpdu.extend([0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16, 0x80, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 1]);
        bpdu.extend([0x80, 1, 1, 0, 20, 0, 2, 0, 15, 0]);
        for n in 0..bpdu.len() {
            stp.receive(0, &bpdu[..n], at(100));
        }
        assert_eq!((stp.is_root(), stp.counters(0).errors), (true, 35));
        stp.receive(0, &bpdu, at(100));
        assert_eq!((stp.root_port(), stp.root_cost(), stp.role(0)), (Some(0), 18, Role::Root));
        assert_eq!(stp.root_times().bridge_id, 0x0001_0000_0000_0001);
        stp.run(at(19_099));
        assert!(!stp.is_root());
        stp.run(at(19_100));
        assert!(stp.is_root());
    }

    /// Bridges joined at random by segments: in the end the forwarding ports make a tree of each component.
    #[test]
    fn any_network_becomes_loop_free() {
        for seed in 0..30u64 {
            let mut rng = Rng::new(seed);
            let (n_bridges, n_links) = (2 + seed as usize % 5, 3 + seed as usize % 7);
            let mut bridges: Vec<Stp> =
                (0..n_bridges).map(|b| Stp::new(config(0x8000 << 48 | b as u64), at(0))).collect();
            let mut links: Vec<[(usize, u8); 2]> = Vec::new();
            for l in 0..n_links as u8 {
                let a = rng.below(n_bridges as u64) as usize;
                let b = (a + 1 + rng.below(n_bridges as u64 - 1) as usize) % n_bridges;
                links.push([(a, l), (b, l)]);
                bridges[a].enable(l, 128, 1 + rng.below(20) as u16, at(0));
                bridges[b].enable(l, 128, 1 + rng.below(20) as u16, at(0));
            }
            for step in 0..900u64 {
                let now = at(step * 100);
                for b in 0..n_bridges {
                    bridges[b].run(now);
                    for (n, frame) in bridges[b].take_frames() {
                        let link = links[usize::from(n)];
                        let (peer, port) = if link[0].0 == b { link[1] } else { link[0] };
                        bridges[peer].receive(port, &frame, now);
                    }
                }
            }
            // Union of bridges over links that forward at both ends: none closes a loop, and the links alone
            // connect no more than these do.
            let components = |only_forwarding: bool| {
                let mut of: Vec<usize> = (0..n_bridges).collect();
                let mut loops = 0;
                for [(a, n), (b, _)] in &links {
                    let open = bridges[*a].state(*n).forwards() && bridges[*b].state(*n).forwards();
                    if only_forwarding && !open {
                        continue;
                    }
                    let (from, to) = (of[*a], of[*b]);
                    loops += usize::from(from == to);
                    of.iter_mut().filter(|c| **c == from).for_each(|c| *c = to);
                }
                let mut distinct = of.clone();
                distinct.sort_unstable();
                distinct.dedup();
                (loops, distinct.len())
            };
            assert_eq!(components(true).0, 0, "seed {seed}");
            assert_eq!(components(true).1, components(false).1, "seed {seed}");
        }
    }
}
