//! Rapid spanning tree (IEEE 802.1D-2004, clause 17) as a pure machine: BPDUs and the time in; BPDUs, port states and
//! "forget what was learned" out.
//!
//! The owner names ports by keys of its own, which stay; the number of a port is the protocol's and may change. Timers count
//! whole seconds from when the bridge was made. Whoever drives the machine calls [`Rstp::run`] whenever [`Rstp::deadline`]
//! has come, then empties [`Rstp::take_frames`] and [`Rstp::take_flush`], and looks at the states if
//! [`Rstp::take_changes`] says so. `machines` has the standard's machines of a port; role selection, which looks at all
//! ports, is here; `bpdu` is the wire.
//!
//! Cost: each event and each second looks at all ports a few times.

mod bpdu;
mod machines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_packet::Mac;

use bpdu::Bpdu;
use machines::{Info, MIGRATE_TIME, Migration, Topology, Transition};

/// Priority of a bridge unless configured.
pub const DEFAULT_BRIDGE_PRIORITY: u16 = 0x8000;
/// Priority of a port unless configured.
pub const DEFAULT_PORT_PRIORITY: u8 = 128;
/// Seconds between the messages of a designated port.
const HELLO_TIME: u16 = 2;
/// Highest number of a port.
pub const MAX_PORT_NUMBER: u16 = 4095;
/// Turns after which machines that do not come to rest are left for the next second.
const MAX_TURNS: usize = 1000;

/// Settings of a bridge; see ovs-vswitchd.conf.db(5). Times are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Priority (16 bits, the lower twelve zero) and address (48 bits).
    pub bridge_id: u64,
    /// Speak the older protocol only (`rstp-force-protocol-version` is 0).
    pub force_stp: bool,
    /// Until information is too old.
    pub max_age: u16,
    /// In each of discarding and learning, where nothing quicker helps.
    pub forward_delay: u16,
    /// Most messages a second.
    pub transmit_hold_count: u16,
}

impl Config {
    /// The identifier of a priority and an address.
    pub fn id(priority: u16, mac: Mac) -> u64 {
        u64::from(priority & 0xf000) << 48 | mac.to_u64()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bridge_id: Config::id(DEFAULT_BRIDGE_PRIORITY, Mac::from_u64(0)),
            force_stp: false,
            max_age: 20,
            forward_delay: 15,
            transmit_hold_count: 6,
        }
    }
}

/// Settings of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Number from 1; 0 lets the bridge choose the first free one, as it does if the number is taken.
    pub number: u16,
    /// Priority; the lower four bits are ignored.
    pub priority: u8,
    /// Cost of the way through it.
    pub cost: u32,
    /// There is no bridge behind it.
    pub admin_edge: bool,
    /// Find out whether there is one.
    pub auto_edge: bool,
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
    /// Another port of this bridge does better.
    Backup,
    /// None.
    Disabled,
}

impl Role {
    /// As `rstp/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "Root",
            Role::Designated => "Designated",
            Role::Alternate => "Alternate",
            Role::Backup => "Backup",
            Role::Disabled => "Disabled",
        }
    }
}

/// State of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Neither learns nor forwards.
    Discarding,
    /// Learns, but does not forward yet.
    Learning,
    /// Forwards.
    Forwarding,
}

impl State {
    /// As `rstp/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Discarding => "Discarding",
            State::Learning => "Learning",
            State::Forwarding => "Forwarding",
        }
    }
}

/// A priority vector (17.5): the smaller, the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vector {
    /// The root's identifier.
    pub root: u64,
    /// Cost of the way to it.
    pub cost: u32,
    /// Identifier of the bridge that says so.
    pub bridge: u64,
    /// Identifier of its port.
    pub port: u16,
}

/// Times that travel with a vector, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Bridges on the way, roughly.
    pub message_age: u16,
    /// Until information is too old.
    pub max_age: u16,
    /// Between messages.
    pub hello: u16,
    /// In each of discarding and learning.
    pub forward_delay: u16,
}

/// Where a port's information comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InfoIs {
    Disabled,
    Aged,
    Mine,
    Received,
}

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// BPDUs sent in the last moments: Open vSwitch reports the count that limits them.
    pub tx: u64,
    /// BPDUs received.
    pub rx: u64,
    /// Ones that made no sense.
    pub errors: u64,
    /// Seconds since the port joined.
    pub uptime: u64,
}

/// What is known of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Identifier: priority and number.
    pub id: u16,
    /// Cost of the way through it.
    pub cost: u32,
    /// Role.
    pub role: Role,
    /// State.
    pub state: State,
    /// The best vector on its segment.
    pub vector: Vector,
    /// Counters.
    pub counters: Counters,
}

/// A port's variables (17.17 and 17.19), under the standard's names.
struct Port {
    config: PortConfig,
    number: u16,
    enabled: bool,
    // Timers, seconds.
    edge_delay_while: u16,
    fd_while: u16,
    hello_when: u16,
    mdelay_while: u16,
    rb_while: u16,
    rcvd_info_while: u16,
    rr_while: u16,
    tc_while: u16,
    // Machines.
    migration: Migration,
    info: Info,
    transition: Transition,
    topology: Topology,
    is_edge: bool,
    transmit_init: bool,
    // Variables.
    message: Option<Bpdu>,
    priority: Vector,
    times: Times,
    designated_priority: Vector,
    designated_times: Times,
    info_is: InfoIs,
    role: Role,
    selected_role: Role,
    agree: bool,
    agreed: bool,
    disputed: bool,
    fdb_flush: bool,
    forward: bool,
    forwarding: bool,
    learn: bool,
    learning: bool,
    mcheck: bool,
    new_info: bool,
    oper_edge: bool,
    proposed: bool,
    proposing: bool,
    rcvd_bpdu: bool,
    rcvd_msg: bool,
    rcvd_rstp: bool,
    rcvd_stp: bool,
    rcvd_tc: bool,
    rcvd_tc_ack: bool,
    rcvd_tcn: bool,
    re_root: bool,
    reselect: bool,
    selected: bool,
    send_rstp: bool,
    sync: bool,
    synced: bool,
    tc_ack: bool,
    tc_prop: bool,
    tx_count: u16,
    updt_info: bool,
    counters: Counters,
}

impl Port {
    fn id(&self) -> u16 {
        u16::from(self.config.priority & 0xf0) << 8 | self.number
    }
    fn state(&self) -> State {
        match (self.learning, self.forwarding) {
            (_, true) => State::Forwarding,
            (true, false) => State::Learning,
            (false, false) => State::Discarding,
        }
    }
    fn fwd_delay(&self) -> u16 {
        self.designated_times.forward_delay
    }
    fn max_age(&self) -> u16 {
        self.designated_times.max_age
    }
    fn hello_time(&self) -> u16 {
        self.designated_times.hello
    }
    /// forwardDelay (17.20.6): the hello time where the neighbour speaks rapid spanning tree.
    fn forward_delay(&self) -> u16 {
        if self.send_rstp { self.hello_time() } else { self.fwd_delay() }
    }

    /// All machines begin (17.18.1).
    fn begin(&mut self, rapid: bool, designated_times: Times) {
        self.designated_times = designated_times;
        self.rcvd_bpdu = false;
        self.rcvd_rstp = false;
        self.rcvd_stp = false;
        self.edge_delay_while = MIGRATE_TIME;
        self.mcheck = false;
        self.send_rstp = rapid;
        self.mdelay_while = MIGRATE_TIME;
        self.migration = Migration::CheckingRstp;
        self.is_edge = self.config.admin_edge;
        self.oper_edge = self.config.admin_edge;
        self.transmit_init = true;
        self.new_info = true;
        self.tx_count = 0;
        self.hello_when = self.hello_time();
        self.role = Role::Disabled;
        self.selected_role = Role::Disabled;
        self.learn = false;
        self.forward = false;
        self.learning = false;
        self.forwarding = false;
        self.synced = false;
        self.sync = true;
        self.re_root = true;
        self.rr_while = self.fwd_delay();
        self.fd_while = self.max_age();
        self.rb_while = 0;
        self.transition = Transition::Disable;
        self.fdb_flush = false;
        self.tc_while = 0;
        self.tc_ack = false;
        self.topology = Topology::Inactive;
    }
}

/// A bridge. See the module's description.
pub struct Rstp {
    config: Config,
    root: Vector,
    root_port: Option<u16>,
    root_times: Times,
    ports: BTreeMap<u16, Port>,
    next_tick: Instant,
    frames: Vec<(u16, Vec<u8>)>,
    changed: bool,
    flush_due: bool,
    flush: Vec<u16>,
}

impl Rstp {
    /// A bridge without ports: it is the root.
    pub fn new(config: Config, now: Instant) -> Rstp {
        let mut rstp = Rstp {
            config,
            root: Vector::default(),
            root_port: None,
            root_times: Times::default(),
            ports: BTreeMap::new(),
            next_tick: now.plus_ms(1000),
            frames: Vec::new(),
            changed: true,
            flush_due: false,
            flush: Vec::new(),
        };
        rstp.select_roles();
        rstp
    }

    /// Changes settings. Times that the standard does not allow together stay as they were.
    pub fn configure(&mut self, config: Config) {
        let old = self.config;
        let fits = |max_age: u16, delay: u16| {
            2 * (delay.saturating_sub(1)) >= max_age && max_age >= 2 * (HELLO_TIME + 1)
        };
        let mut new = Config { max_age: old.max_age, forward_delay: old.forward_delay, ..config };
        if (6..=40).contains(&config.max_age) && fits(config.max_age, new.forward_delay) {
            new.max_age = config.max_age;
        }
        if (4..=30).contains(&config.forward_delay) && fits(new.max_age, config.forward_delay) {
            new.forward_delay = config.forward_delay;
        }
        if !(1..=10).contains(&config.transmit_hold_count) {
            new.transmit_hold_count = old.transmit_hold_count;
        }
        if new == old {
            return;
        }
        self.config = new;
        if new.transmit_hold_count != old.transmit_hold_count {
            self.for_all(|_, p| p.tx_count = 0);
        }
        if new.force_stp != old.force_stp {
            self.begin();
        }
        self.for_all(|_, p| {
            p.selected = false;
            p.reselect = true;
        });
        self.settle();
        self.changed = true;
    }

    /// Settings in force.
    pub fn config(&self) -> Config {
        self.config
    }
    /// Times in force here.
    pub fn times(&self) -> Times {
        let c = &self.config;
        Times { message_age: 0, max_age: c.max_age, hello: HELLO_TIME, forward_delay: c.forward_delay }
    }
    /// The root's vector as seen here: its port is the identifier of the port that names the way.
    pub fn root(&self) -> Vector {
        self.root
    }
    /// Times in force at the root.
    pub fn root_times(&self) -> Times {
        self.root_times
    }
    /// Key of the port that leads to the root.
    pub fn root_port(&self) -> Option<u16> {
        self.root_port
    }
    /// This bridge is the root.
    pub fn is_root(&self) -> bool {
        self.root.root == self.config.bridge_id
    }
    /// What is known of a port.
    pub fn status(&self, key: u16) -> Option<Status> {
        let p = self.ports.get(&key)?;
        Some(Status {
            id: p.id(),
            cost: p.config.cost,
            role: p.role,
            state: p.state(),
            vector: p.priority,
            counters: Counters { tx: p.tx_count.into(), ..p.counters },
        })
    }
    /// Numbers and keys of all ports.
    pub fn numbers(&self) -> impl Iterator<Item = (u16, u16)> {
        self.ports.iter().map(|(key, p)| (p.number, *key))
    }

    /// Whether one of the following has something.
    pub fn has_news(&self) -> bool {
        self.changed || !self.flush.is_empty() || !self.frames.is_empty()
    }
    /// BPDUs to send: key of the port and contents behind the LLC header.
    pub fn take_frames(&mut self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.frames)
    }
    /// Whether states changed since the last call.
    pub fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
    /// Keys of ports behind which nothing is to be remembered that was learned up to now.
    pub fn take_flush(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.flush)
    }

    /// Lets a port take part, or changes its settings; `link_up` says whether it can carry anything.
    pub fn set_port(&mut self, key: u16, config: PortConfig, link_up: bool) {
        let number = self.choose_number(key, config.number);
        let times = self.times();
        let rapid = self.is_rapid();
        match self.ports.get_mut(&key) {
            None => {
                let mut port = new_port(config, number);
                port.begin(rapid, times);
                self.ports.insert(key, port);
                self.disable_info(key);
            }
            Some(p) if p.config == config && p.number == number => {}
            Some(p) => {
                let reselect = p.number != number
                    || p.config.priority != config.priority
                    || p.config.cost != config.cost;
                p.config = config;
                p.number = number;
                if reselect {
                    p.selected = false;
                    p.reselect = true;
                }
            }
        }
        self.port(key).enabled = link_up;
        self.settle();
        self.changed = true;
    }

    /// The port's link went up or down.
    pub fn set_link(&mut self, key: u16, up: bool) {
        if let Some(p) = self.ports.get_mut(&key)
            && p.enabled != up
        {
            p.enabled = up;
            self.settle();
            self.changed = true;
        }
    }

    /// Asks a port to try rapid spanning tree with its neighbour again.
    pub fn mcheck(&mut self, key: u16) {
        if self.is_rapid()
            && let Some(p) = self.ports.get_mut(&key)
        {
            p.mcheck = true;
            self.settle();
        }
    }

    /// Takes a port out.
    pub fn remove_port(&mut self, key: u16) {
        if self.ports.remove(&key).is_some() {
            if let Some(p) = self.ports.values_mut().next() {
                p.selected = false;
                p.reselect = true;
            } else {
                self.select_roles();
            }
            self.settle();
            self.changed = true;
        }
    }

    fn choose_number(&self, key: u16, wanted: u16) -> u16 {
        let free = |n: &u16| self.ports.iter().all(|(k, p)| *k == key || p.number != *n);
        let wanted = Some(wanted).filter(|n| *n != 0 && free(n));
        wanted.or_else(|| (1..=MAX_PORT_NUMBER).find(free)).unwrap_or(MAX_PORT_NUMBER)
    }

    /// `rstp/tcn`: behaves as if the topology had changed.
    pub fn force_change(&mut self) {
        self.for_all(|_, p| p.rcvd_tcn |= p.topology == Topology::Active);
        self.settle();
    }

    /// A BPDU came in. `bpdu` is what follows the LLC header.
    pub fn receive(&mut self, key: u16, bpdu: &[u8]) {
        let Some(p) = self.ports.get_mut(&key) else { return };
        let parsed = bpdu::parse(bpdu);
        let Some(parsed) = parsed else {
            p.counters.errors += 1;
            return;
        };
        p.counters.rx += 1;
        if let Bpdu::Message(m) = &parsed
            && m.kind == bpdu::Kind::Config
            && (m.times.message_age >= m.times.max_age
                || (m.vector.bridge == self.config.bridge_id && m.vector.port == p.id()))
        {
            return;
        }
        if p.enabled {
            p.message = Some(parsed);
            p.rcvd_bpdu = true;
            self.settle();
        }
    }

    /// When [`Self::run`] is next needed.
    pub fn deadline(&self) -> Instant {
        self.next_tick
    }

    /// Lets seconds pass (17.22).
    pub fn run(&mut self, now: Instant) {
        while self.next_tick <= now {
            self.next_tick = self.next_tick.plus_ms(1000);
            self.for_all(|_, p| {
                p.counters.uptime += 1;
                for timer in [
                    &mut p.hello_when,
                    &mut p.tc_while,
                    &mut p.fd_while,
                    &mut p.rcvd_info_while,
                    &mut p.rr_while,
                    &mut p.rb_while,
                    &mut p.mdelay_while,
                    &mut p.edge_delay_while,
                    &mut p.tx_count,
                ] {
                    *timer = timer.saturating_sub(1);
                }
            });
            self.settle();
        }
    }

    fn is_rapid(&self) -> bool {
        !self.config.force_stp
    }

    /// A port that is there: keys in here come from the map itself.
    fn port(&mut self, key: u16) -> &mut Port {
        self.ports.get_mut(&key).expect("the key of a port that takes part")
    }

    fn for_all(&mut self, mut f: impl FnMut(u16, &mut Port)) {
        for (key, p) in &mut self.ports {
            f(*key, p);
        }
    }

    fn begin(&mut self) {
        let (times, rapid) = (self.times(), self.is_rapid());
        self.for_all(|_, p| p.begin(rapid, times));
        for key in self.keys() {
            self.disable_info(key);
        }
    }

    fn keys(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// Runs all machines until they rest.
    fn settle(&mut self) {
        let keys = self.keys();
        for _ in 0..MAX_TURNS {
            let mut busy = false;
            if self.ports.values().any(|p| p.reselect) {
                self.select_roles();
                busy = true;
            }
            for key in &keys {
                busy |= self.step(*key);
            }
            if std::mem::take(&mut self.flush_due) {
                for (key, p) in &mut self.ports {
                    if std::mem::take(&mut p.fdb_flush) {
                        self.flush.push(*key);
                    }
                }
            }
            if !busy {
                // What is sent tells where the others came to rest.
                let sent = keys.iter().filter(|key| self.transmit_machine(**key)).count();
                if sent == 0 {
                    return;
                }
            }
        }
    }

    /// allSynced (17.20.3).
    fn all_synced(&self) -> bool {
        self.ports.values().all(|p| {
            p.selected && p.role == p.selected_role && !p.updt_info && (p.synced || p.role == Role::Root)
        })
    }

    /// Port role selection (17.28) with updtRolesTree (17.21.25).
    fn select_roles(&mut self) {
        self.for_all(|_, p| p.reselect = false);
        let own = self.config.bridge_id;
        let address = |id: u64| id & 0xffff_ffff_ffff;
        let best = self
            .ports
            .iter()
            .filter(|(_, p)| p.info_is == InfoIs::Received && address(p.priority.bridge) != address(own))
            .map(|(key, p)| {
                let cost = p.priority.cost.saturating_add(p.config.cost);
                (Vector { cost, ..p.priority }, p.id(), *key, p.times)
            })
            .min_by_key(|(vector, id, ..)| (*vector, *id))
            .filter(|(vector, ..)| (vector.root, vector.cost, vector.bridge) < (own, 0, own));
        let before = (self.root, self.root_port);
        match best {
            Some((vector, _, key, times)) => {
                self.root = vector;
                self.root_port = Some(key);
                self.root_times = Times { message_age: times.message_age.saturating_add(1), ..times };
            }
            None => {
                self.root = Vector { root: own, cost: 0, bridge: own, port: 0 };
                self.root_port = None;
                self.root_times = self.times();
            }
        }
        self.changed |= before != (self.root, self.root_port);
        let (root, root_port, times) = (self.root, self.root_port, self.root_times);
        self.for_all(|key, p| {
            p.designated_priority = Vector { root: root.root, cost: root.cost, bridge: own, port: p.id() };
            p.designated_times = Times { hello: HELLO_TIME, ..times };
            let (role, update) = match p.info_is {
                InfoIs::Disabled => (Role::Disabled, p.updt_info),
                InfoIs::Aged => (Role::Designated, true),
                InfoIs::Mine => {
                    let differs = p.priority != p.designated_priority || p.times != p.designated_times;
                    (Role::Designated, p.updt_info || differs)
                }
                InfoIs::Received if root_port == Some(key) => (Role::Root, false),
                InfoIs::Received if p.designated_priority < p.priority => (Role::Designated, true),
                InfoIs::Received if address(p.priority.bridge) != address(own) => (Role::Alternate, false),
                InfoIs::Received => (Role::Backup, false),
            };
            p.selected_role = role;
            p.updt_info = update;
            p.selected = true;
        });
    }
}

fn new_port(config: PortConfig, number: u16) -> Port {
    Port {
        config,
        number,
        enabled: false,
        edge_delay_while: 0,
        fd_while: 0,
        hello_when: 0,
        mdelay_while: 0,
        rb_while: 0,
        rcvd_info_while: 0,
        rr_while: 0,
        tc_while: 0,
        migration: Migration::CheckingRstp,
        info: Info::Disabled,
        transition: Transition::Disable,
        topology: Topology::Inactive,
        is_edge: false,
        transmit_init: true,
        message: None,
        priority: Vector::default(),
        times: Times::default(),
        designated_priority: Vector::default(),
        designated_times: Times::default(),
        info_is: InfoIs::Disabled,
        role: Role::Disabled,
        selected_role: Role::Disabled,
        agree: false,
        agreed: false,
        disputed: false,
        fdb_flush: false,
        forward: false,
        forwarding: false,
        learn: false,
        learning: false,
        mcheck: false,
        new_info: false,
        oper_edge: false,
        proposed: false,
        proposing: false,
        rcvd_bpdu: false,
        rcvd_msg: false,
        rcvd_rstp: false,
        rcvd_stp: false,
        rcvd_tc: false,
        rcvd_tc_ack: false,
        rcvd_tcn: false,
        re_root: false,
        reselect: false,
        selected: false,
        send_rstp: false,
        sync: false,
        synced: false,
        tc_ack: false,
        tc_prop: false,
        tx_count: 0,
        updt_info: false,
        counters: Counters::default(),
    }
}
