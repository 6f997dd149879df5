//! Bidirectional forwarding detection (RFC 5880) of one link as a pure machine: control packets and the time in; control
//! packets, a state and "may this link forward" out.
//!
//! A session asks its peer for packets and counts it gone when several in a row stay out. Whoever drives the machine
//! sends what [`Bfd::packet`] makes whenever [`Bfd::should_send`], then calls [`Bfd::run`], at the latest when
//! [`Bfd::deadline`] has come. Beyond the RFC are Open vSwitch's additions of ovs-vswitchd.conf.db(5): slower packets while there is
//! no traffic (*decay*), and traffic as a sign of life (`forwarding_if_rx`).
//!
//! Changed intervals take effect by a poll sequence (section 6.8.3): what is asked for travels under the poll bit, and holds when
//! the peer answers with the final bit. Times are milliseconds; on the wire they are microseconds. Every call costs the same few steps.

use std::fmt::Write;

use ib_base::rng::Rng;
use ib_base::time::Instant;
use ib_base::vlog::module::BFD;
use ib_base::{vlog_err, vlog_info, vlog_info_rl, vlog_warn, vlog_warn_rl};
use ib_packet::{Mac, csum};

/// UDP port of single-hop control packets (RFC 5881, section 4).
pub const PORT: u16 = 3784;
/// Sender's address unless configured.
pub const DEFAULT_SRC_IP: [u8; 4] = [169, 254, 1, 1];
/// Receiver's address unless configured.
pub const DEFAULT_DST_IP: [u8; 4] = [169, 254, 1, 0];
/// Where packets go unless configured.
const DEFAULT_DST_MAC: Mac = Mac([0x00, 0x23, 0x20, 0x00, 0x00, 0x01]);
/// Control packet without authentication.
const LEN: usize = 24;
const VERSION: u8 = 1;
/// A session that is not up sends no faster (section 6.8.3).
const SLOW_TX_MS: i64 = 1000;
/// Least time in which a link's traffic is counted.
const TRAFFIC_WINDOW_MS: i64 = 2000;

const MULTIPOINT: u8 = 1 << 0;
const DEMAND: u8 = 1 << 1;
const AUTH: u8 = 1 << 2;
const CONTROL_PLANE_INDEPENDENT: u8 = 1 << 3;
const FINAL: u8 = 1 << 4;
const POLL: u8 = 1 << 5;
const FLAGS: u8 = 0x3f;

/// State of a session (section 4.1), in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Held down by an administrator.
    AdminDown,
    /// No peer.
    Down,
    /// The peer is heard, but may not hear us.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    fn of_bits(bits: u8) -> State {
        match bits >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
    /// As `bfd/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "admin_down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }
}

/// Why a session changed its state (section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// Packets stayed out.
    pub const EXPIRED: Diagnostic = Diagnostic(1);
    /// The peer says that it does not hear us.
    pub const REMOTE_DOWN: Diagnostic = Diagnostic(3);
    /// The path is down.
    pub const PATH_DOWN: Diagnostic = Diagnostic(5);
    /// What lies behind the sender is down.
    pub const CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(6);
    /// The same, seen from the other end.
    pub const REVERSE_CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(8);

    /// As `bfd/show` and the database name it.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => "Invalid Diagnostic",
        }
    }
    fn says_no_forwarding(self) -> bool {
        self == Self::PATH_DOWN
            || self == Self::CONCATENATED_PATH_DOWN
            || self == Self::REVERSE_CONCATENATED_PATH_DOWN
    }
}

/// Settings of a session; see column `bfd` in ovs-vswitchd.conf.db(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shortest interval in which packets are sent.
    pub min_tx_ms: i64,
    /// Shortest interval in which packets are taken.
    pub min_rx_ms: i64,
    /// The same while there is no traffic; 0: no difference.
    pub decay_min_rx_ms: i64,
    /// Packets missing before the link counts as gone.
    pub mult: u8,
    /// Traffic is a sign of life.
    pub forwarding_if_rx: bool,
    /// Connectivity behind this system is down.
    pub cpath_down: bool,
    /// Take packets of tunnel key 0 only.
    pub check_tunnel_key: bool,
    /// Packets in tunnels carry the OAM bit.
    pub oam: bool,
    /// Source of packets; the port's address if `None`.
    pub local_src_mac: Option<Mac>,
    /// Destination of packets.
    pub local_dst_mac: Mac,
    /// Destination that received packets must have.
    pub remote_dst_mac: Option<Mac>,
    /// Source of packets.
    pub src_ip: [u8; 4],
    /// Destination of packets.
    pub dst_ip: [u8; 4],
}

impl Default for Config {
    fn default() -> Self {
        Config {
            min_tx_ms: 100,
            min_rx_ms: 1000,
            decay_min_rx_ms: 0,
            mult: 3,
            forwarding_if_rx: false,
            cpath_down: false,
            check_tunnel_key: false,
            oam: false,
            local_src_mac: None,
            local_dst_mac: DEFAULT_DST_MAC,
            remote_dst_mac: None,
            src_ip: DEFAULT_SRC_IP,
            dst_ip: DEFAULT_DST_IP,
        }
    }
}

impl Config {
    /// From the pairs of column `bfd`; `None`: no session is wanted. Values that make no sense are as if not there.
    pub fn from_pairs<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Config> {
        let flag = |key: &str| get(key).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if !flag("enable") {
            return None;
        }
        let number =
            |key: &str, default: i64| get(key).and_then(|v| v.trim().parse().ok()).unwrap_or(default);
        let mac = |key: &str| get(key).and_then(|v| v.parse::<Mac>().ok()).filter(|m| !m.is_zero());
        let ip = |key: &str, default: [u8; 4]| {
            let Some(text) = get(key) else { return default };
            text.parse::<std::net::Ipv4Addr>().map_or_else(
                |_| {
                    vlog_err!(BFD, "\"{text}\" is not a valid IP address");
                    default
                },
                |ip| ip.octets(),
            )
        };
        // An interval does not fit the wire beyond this.
        let interval = |key: &str, default| number(key, default).clamp(1, i64::from(u32::MAX / 1000));
        let min_rx_ms = interval("min_rx", 1000);
        Some(Config {
            min_tx_ms: interval("min_tx", 100),
            min_rx_ms,
            decay_min_rx_ms: number("decay_min_rx", 0).clamp(0, i64::from(u32::MAX / 1000)),
            mult: u8::try_from(number("mult", 3)).ok().filter(|m| *m > 0).unwrap_or(3),
            forwarding_if_rx: flag("forwarding_if_rx"),
            cpath_down: flag("cpath_down"),
            check_tunnel_key: flag("check_tnl_key"),
            oam: flag("oam"),
            local_src_mac: mac("bfd_local_src_mac"),
            local_dst_mac: mac("bfd_local_dst_mac").unwrap_or(DEFAULT_DST_MAC),
            remote_dst_mac: mac("bfd_remote_dst_mac"),
            src_ip: ip("bfd_src_ip", DEFAULT_SRC_IP),
            dst_ip: ip("bfd_dst_ip", DEFAULT_DST_IP),
        })
    }
}

/// What the peer said last.
#[derive(Clone, Copy, Debug)]
struct Remote {
    state: State,
    diag: Diagnostic,
    flags: u8,
    discriminator: u32,
    min_rx: i64,
    min_tx: i64,
    mult: u8,
}

impl Remote {
    /// No peer; how many packets it let stay out is remembered.
    fn unknown(mult: u8) -> Remote {
        Remote {
            state: State::Down,
            diag: Diagnostic::NONE,
            flags: 0,
            discriminator: 0,
            min_rx: 1,
            min_tx: 0,
            mult,
        }
    }
}

/// What the database wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// State.
    pub state: State,
    /// Whether the link may forward.
    pub forwarding: bool,
    /// Why the state is what it is.
    pub diagnostic: Diagnostic,
    /// The peer's state.
    pub remote_state: State,
    /// The peer's reason.
    pub remote_diagnostic: Diagnostic,
    /// Changes of `forwarding`.
    pub flap_count: u64,
}

/// One session. See the module's description.
#[derive(Debug)]
pub struct Bfd {
    name: String,
    config: Config,
    state: State,
    diag: Diagnostic,
    flags: u8,
    discriminator: u32,
    udp_src: u16,
    min_tx: i64,
    min_rx: i64,
    poll_min_tx: i64,
    poll_min_rx: i64,
    remote: Remote,
    // Times: milliseconds of the clock; 0: at once, or never yet.
    next_tx: i64,
    last_tx: i64,
    detect_at: i64,
    in_decay: bool,
    decay_at: i64,
    decay_rx_packets: u64,
    decay_rx_control: u64,
    traffic_until: i64,
    demand_until: i64,
    /// By an administrator.
    forced: Option<bool>,
    last_forwarding: bool,
    flap_count: u64,
    rng: Rng,
}

fn ms(now: Instant) -> i64 {
    i64::try_from(now.as_ms()).unwrap_or(i64::MAX)
}

impl Bfd {
    /// A session that looks for its peer. `rx_packets` is what the link's device has received so far.
    pub fn new(name: &str, config: Config, seed: u64, rx_packets: u64, now: Instant) -> Bfd {
        let mut rng = Rng::new(seed);
        let discriminator = rng.next_u32().max(1);
        // The port range of RFC 5881, section 4.
        let udp_src = 49152 + (rng.next_u32() % 16384) as u16;
        let mut bfd = Bfd {
            name: name.to_owned(),
            state: State::AdminDown,
            diag: Diagnostic::NONE,
            flags: 0,
            discriminator,
            udp_src,
            min_tx: config.min_tx_ms,
            min_rx: config.min_rx_ms,
            poll_min_tx: 0,
            poll_min_rx: 0,
            remote: Remote::unknown(0),
            next_tx: 0,
            last_tx: 0,
            detect_at: 0,
            in_decay: false,
            decay_at: 0,
            decay_rx_packets: 0,
            decay_rx_control: 0,
            traffic_until: 0,
            demand_until: 0,
            forced: None,
            last_forwarding: false,
            flap_count: 0,
            rng,
            config,
        };
        bfd.set_state(State::Down, Diagnostic::NONE);
        bfd.limit_decay();
        bfd.restart_decay(rx_packets, ms(now));
        bfd
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes over new settings.
    pub fn configure(&mut self, config: Config, rx_packets: u64, now: Instant) {
        if self.config == config {
            return;
        }
        let old = std::mem::replace(&mut self.config, config);
        let now = ms(now);
        let (tx, rx) = (self.config.min_tx_ms, self.config.min_rx_ms);
        let mut news = false;
        if tx != old.min_tx_ms {
            // Sending faster needs nobody's leave; slower does.
            if self.state != State::Up || (!self.polls() && tx < self.min_tx) {
                self.min_tx = tx;
            }
            news = true;
        }
        if rx != old.min_rx_ms {
            if self.state != State::Up || (!self.polls() && rx > self.min_rx) {
                self.min_rx = rx;
            }
            news = true;
        }
        let wanted_decay = self.config.decay_min_rx_ms;
        self.limit_decay();
        if wanted_decay != old.decay_min_rx_ms || rx != old.min_rx_ms {
            self.in_decay = false;
            self.restart_decay(rx_packets, now);
            news = true;
        }
        if self.config.cpath_down != old.cpath_down {
            self.set_state(self.state, Diagnostic::NONE);
            news = true;
        }
        if self.config.forwarding_if_rx != old.forwarding_if_rx {
            if self.state == State::Up && self.config.forwarding_if_rx {
                self.saw_traffic(now);
            } else {
                self.traffic_until = 0;
            }
        }
        if news {
            self.poll();
        }
    }

    fn limit_decay(&mut self) {
        let (decay, rx) = (self.config.decay_min_rx_ms, self.config.min_rx_ms);
        if decay > 0 && decay < rx {
            vlog_warn!(BFD, "{}: decay_min_rx cannot be less than {rx} ms", self.name);
            self.config.decay_min_rx_ms = 0;
        }
    }

    fn polls(&self) -> bool {
        self.flags & POLL != 0
    }

    /// Asks the peer to agree on intervals.
    fn poll(&mut self) {
        if self.state > State::Down && self.flags & (POLL | FINAL) == 0 {
            self.poll_min_tx = self.config.min_tx_ms;
            self.poll_min_rx =
                if self.in_decay { self.config.decay_min_rx_ms } else { self.config.min_rx_ms };
            self.flags |= POLL;
            self.next_tx = 0;
            vlog_info_rl!(BFD, (20, 20), "{}: Initiating poll sequence", self.name);
        }
    }

    /// What the peer is told of `min_tx`.
    fn tx_wish(&self) -> i64 {
        if self.state == State::Up { self.min_tx } else { self.min_tx.max(SLOW_TX_MS) }
    }
    fn tx_interval(&self) -> i64 {
        self.tx_wish().max(self.remote.min_rx)
    }
    fn rx_interval(&self) -> i64 {
        self.min_rx.max(self.remote.min_tx)
    }

    /// Up to a quarter less than the interval (section 6.8.7).
    fn plan_tx(&mut self) {
        let interval = self.tx_interval();
        let less = interval * i64::from(self.rng.next_u32() % 26) / 100;
        self.next_tx = self.last_tx + interval - less;
    }

    fn set_state(&mut self, state: State, diag: Diagnostic) {
        let diag = if self.config.cpath_down { Diagnostic::CONCATENATED_PATH_DOWN } else { diag };
        if self.state == state && self.diag == diag {
            return;
        }
        let (name, old, new) = (&self.name, self.state.name(), state.name());
        vlog_info!(
            BFD,
            "{name}: BFD state change: {old}->{new} \"{}\"->\"{}\".",
            self.diag.name(),
            diag.name()
        );
        self.state = state;
        self.diag = diag;
        if state <= State::Down {
            self.remote = Remote::unknown(self.remote.mult);
        }
        if self.in_decay {
            self.min_rx = self.config.min_rx_ms;
            self.in_decay = false;
        }
    }

    /// Lets time pass. `rx_packets` tells what the link's device has received; it is asked only where decay is on.
    pub fn run(&mut self, rx_packets: &dyn Fn() -> u64, now: Instant) {
        let at = ms(now);
        let was_in_decay = self.in_decay;
        if self.state > State::Down && at >= self.detect_at {
            self.set_state(State::Down, Diagnostic::EXPIRED);
        }
        self.update_forwarding(at);
        let decay = self.config.decay_min_rx_ms;
        if self.state == State::Up && decay > 0 && at >= self.decay_at {
            let packets = rx_packets();
            let came = packets.saturating_sub(self.decay_rx_packets);
            // Traffic counts once there is more of it than of control packets.
            self.in_decay = came <= 2 * self.decay_rx_control;
            self.restart_decay(packets, at);
        }
        let is_rx_wanted = self.min_rx == self.config.min_rx_ms || self.min_rx == decay;
        if self.min_tx != self.config.min_tx_ms || !is_rx_wanted || self.in_decay != was_in_decay {
            self.poll();
        }
    }

    fn restart_decay(&mut self, rx_packets: u64, now: i64) {
        self.decay_rx_control = 0;
        self.decay_rx_packets = rx_packets;
        self.decay_at = now + self.config.decay_min_rx_ms.max(TRAFFIC_WINDOW_MS);
    }

    /// When [`Self::run`] or [`Self::packet`] is next due.
    pub fn deadline(&self) -> Instant {
        if self.flags & FINAL != 0 {
            return Instant::ZERO;
        }
        let at = if self.state > State::Down { self.next_tx.min(self.detect_at) } else { self.next_tx };
        Instant::from_ms(u64::try_from(at).unwrap_or(0))
    }

    /// Whether a packet is due.
    pub fn should_send(&self, now: Instant) -> bool {
        self.flags & FINAL != 0 || ms(now) >= self.next_tx
    }

    /// The next packet, a frame from Ethernet header to end. `mac` is the port's address.
    pub fn packet(&mut self, mac: Mac, now: Instant) -> Vec<u8> {
        let (tx, rx) =
            if self.polls() { (self.poll_min_tx, self.poll_min_rx) } else { (self.tx_wish(), self.min_rx) };
        let us = |ms: i64| u32::try_from(ms.saturating_mul(1000)).unwrap_or(u32::MAX).to_be_bytes();
        let mut f = Vec::with_capacity(14 + 20 + 8 + LEN);
        f.extend(self.config.local_dst_mac.0);
        f.extend(self.config.local_src_mac.unwrap_or(mac).0);
        f.extend([0x08, 0x00]);
        // Low delay and high throughput; TTL 255 tells the receiver that nobody routed it.
        let mut ip = [0x45, 0x18, 0, 20 + 8 + LEN as u8, 0, 0, 0, 0, 255, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ip[12..16].copy_from_slice(&self.config.src_ip);
        ip[16..20].copy_from_slice(&self.config.dst_ip);
        let sum = csum::checksum(&ip).get();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        f.extend(ip);
        f.extend(self.udp_src.to_be_bytes());
        f.extend(PORT.to_be_bytes());
        f.extend([0, 8 + LEN as u8, 0, 0]);
        f.push(VERSION << 5 | self.diag.0);
        f.push((self.state as u8) << 6 | self.flags);
        f.push(self.config.mult);
        f.push(LEN as u8);
        f.extend(self.discriminator.to_be_bytes());
        f.extend(self.remote.discriminator.to_be_bytes());
        f.extend(us(tx));
        f.extend(us(rx));
        f.extend([0; 4]);
        self.flags &= !FINAL;
        self.last_tx = ms(now);
        self.plan_tx();
        f
    }

    /// Takes a packet in: what lies behind the UDP header, and the IP header's TTL. One that makes no sense
    /// is logged and has no effect.
    pub fn receive(&mut self, ttl: u8, data: &[u8], now: Instant) {
        if ttl == 255 {
            let before = (self.state, self.diag);
            if let Err(why) = self.take(data, ms(now)) {
                vlog_warn_rl!(BFD, (20, 20), "{}: {why}", self.name);
            } else if before.0 != self.state && self.state == State::Down {
                vlog_info_rl!(BFD, (20, 20), "{}: Remote signaled STATE_DOWN.", self.name);
            }
        }
        self.update_forwarding(ms(now));
    }

    fn take(&mut self, data: &[u8], now: i64) -> Result<(), String> {
        let Some(m) = data.first_chunk::<LEN>() else {
            return Err(format!(
                "Received too-short BFD control message (only {} bytes long, at least {LEN} required).",
                data.len()
            ));
        };
        let word = |at: usize| u32::from_be_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]);
        let (version, flags, mult, length) = (m[0] >> 5, m[1] & FLAGS, m[2], usize::from(m[3]));
        let state = State::of_bits(m[1]);
        let (sender, receiver) = (word(4), word(8));
        // Section 6.8.6, in its order.
        if version != VERSION {
            return Err(format!("Incorrect version {version}."));
        }
        if length < LEN || length > data.len() {
            return Err(format!("Packet length mismatch: {length} of {}.", data.len()));
        }
        if mult == 0 {
            return Err("Null multiplier.".into());
        }
        if flags & MULTIPOINT != 0 {
            return Err("Unsupported multipoint flag.".into());
        }
        if sender == 0 {
            return Err("NULL my_disc.".into());
        }
        if receiver == 0 && state > State::Down {
            return Err("Null your_disc.".into());
        }
        if receiver != 0 && receiver != self.discriminator {
            return Err("Incorrect your_disc.".into());
        }
        if flags & AUTH != 0 {
            return Err("Authenticated control message with authentication disabled.".into());
        }
        self.remote.discriminator = sender;
        self.remote.state = state;
        self.remote.flags = flags;
        self.remote.diag = Diagnostic(m[0] & 0x1f);
        if self.remote.mult != mult {
            let (name, old) = (&self.name, self.remote.mult);
            vlog_info!(BFD, "Interface {name} remote mult value {old} changed to {mult}");
        }
        self.remote.mult = mult;
        if flags & FINAL != 0 && self.polls() {
            self.min_tx = self.poll_min_tx;
            self.min_rx = self.poll_min_rx;
            self.flags &= !POLL;
            vlog_info_rl!(BFD, (20, 20), "{}: Poll sequence terminated.", self.name);
        }
        if flags & POLL != 0 {
            self.flags &= !POLL;
            self.flags |= FINAL;
            self.next_tx = 0;
        }
        let interval = |us: u32| i64::from(us / 1000).max(1);
        let rx = interval(word(16));
        if self.remote.min_rx != rx {
            self.remote.min_rx = rx;
            if self.next_tx != 0 {
                self.plan_tx();
            }
            vlog_info_rl!(BFD, (20, 20), "{}: New remote min_rx.", self.name);
        }
        self.remote.min_tx = interval(word(12));
        self.detect_at = now + self.rx_interval() * i64::from(mult);
        match (self.state, state) {
            (State::AdminDown, _) => return Err("Administratively down, dropping control message.".into()),
            (State::Down, State::AdminDown) => {}
            (_, State::AdminDown) | (State::Up, State::Down) => {
                self.set_state(State::Down, Diagnostic::REMOTE_DOWN);
            }
            (State::Down, State::Down) => self.set_state(State::Init, self.diag),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.set_state(State::Up, self.diag);
            }
            (State::Down, State::Up) | (State::Init, State::Down) | (State::Up, _) => {}
        }
        if self.config.forwarding_if_rx {
            self.demand_until = now + self.rx_interval() * 100;
        }
        self.decay_rx_control += 1;
        Ok(())
    }

    /// Tells that the link has carried traffic towards us.
    pub fn account_rx(&mut self, now: Instant) {
        if self.config.forwarding_if_rx {
            let at = ms(now);
            self.saw_traffic(at);
            self.update_forwarding(at);
        }
    }

    fn saw_traffic(&mut self, now: i64) {
        let window = self.rx_interval() * i64::from(self.config.mult);
        self.traffic_until = now + window.max(TRAFFIC_WINDOW_MS);
    }

    /// Whether the link may forward.
    pub fn forwarding(&mut self, now: Instant) -> bool {
        self.update_forwarding(ms(now))
    }

    fn update_forwarding(&mut self, now: i64) -> bool {
        if let Some(forced) = self.forced {
            return forced;
        }
        let by_traffic = self.config.forwarding_if_rx && self.traffic_until > now && self.demand_until > now;
        let forwarding = (self.state == State::Up || by_traffic) && !self.remote.diag.says_no_forwarding();
        if self.last_forwarding != forwarding {
            self.last_forwarding = forwarding;
            self.flap_count += 1;
        }
        forwarding
    }

    /// Makes the answer to "may it forward" this one, or again what the session finds.
    pub fn force(&mut self, forwarding: Option<bool>) {
        self.forced = forwarding;
    }

    /// For the database.
    pub fn status(&mut self, now: Instant) -> Status {
        Status {
            forwarding: self.forwarding(now),
            state: self.state,
            diagnostic: self.diag,
            remote_state: self.remote.state,
            remote_diagnostic: self.remote.diag,
            flap_count: self.flap_count,
        }
    }

    /// `bfd/show` of one session.
    pub fn show(&mut self, now: Instant) -> String {
        let forwarding = self.forwarding(now);
        let now = ms(now);
        let mut out = String::new();
        let o = &mut out;
        let from_now = |at: i64| format!("now {:+}ms", at - now);
        let _ = writeln!(o, "  Forwarding: {forwarding}");
        let _ = writeln!(o, "  Detect Multiplier: {}", self.config.mult);
        let _ = writeln!(o, "  Concatenated Path Down: {}", self.config.cpath_down);
        let _ = writeln!(o, "  TX Interval: Approx {}ms", self.tx_interval());
        let _ = writeln!(o, "  RX Interval: Approx {}ms", self.rx_interval());
        let _ = writeln!(o, "  Detect Time: {}", from_now(self.detect_at));
        let _ = writeln!(o, "  Next TX Time: {}", from_now(self.next_tx));
        let _ = writeln!(o, "  Last TX Time: {}", from_now(self.last_tx));
        let _ = writeln!(o, "\n  Local Flags: {}", flag_names(self.flags));
        let _ = writeln!(o, "  Local Session State: {}", self.state.name());
        let _ = writeln!(o, "  Local Diagnostic: {}", self.diag.name());
        let _ = writeln!(o, "  Local Discriminator: 0x{:x}", self.discriminator);
        let _ = writeln!(o, "  Local Minimum TX Interval: {}ms", self.tx_wish());
        let _ = writeln!(o, "  Local Minimum RX Interval: {}ms", self.min_rx);
        let r = &self.remote;
        let _ = writeln!(o, "\n  Remote Flags: {}", flag_names(r.flags));
        let _ = writeln!(o, "  Remote Session State: {}", r.state.name());
        let _ = writeln!(o, "  Remote Diagnostic: {}", r.diag.name());
        let _ = writeln!(o, "  Remote Discriminator: 0x{:x}", r.discriminator);
        let _ = writeln!(o, "  Remote Minimum TX Interval: {}ms", r.min_tx);
        let _ = writeln!(o, "  Remote Minimum RX Interval: {}ms", r.min_rx);
        let _ = writeln!(o, "  Remote Detect Multiplier: {}", r.mult);
        out
    }
}

fn flag_names(flags: u8) -> String {
    let names = [
        (MULTIPOINT, "multipoint"),
        (DEMAND, "demand"),
        (AUTH, "auth"),
        (CONTROL_PLANE_INDEPENDENT, "cpi"),
        (FINAL, "final"),
        (POLL, "poll"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".into() } else { set.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// Two sessions joined by a wire that may be cut.
    struct Lab {
        ends: [Bfd; 2],
        now: Instant,
        cut: bool,
    }

    impl Lab {
        fn new(a: Config, b: Config) -> Lab {
            let now = Instant::from_ms(1000);
            Lab { ends: [Bfd::new("p0", a, 1, 0, now), Bfd::new("p1", b, 2, 0, now)], now, cut: false }
        }
        fn settle(&mut self) {
            for _ in 0..8 {
                for i in 0..2 {
                    if self.ends[i].should_send(self.now) {
                        let frame = self.ends[i].packet(MAC, self.now);
                        if !self.cut {
                            self.ends[1 - i].receive(frame[22], &frame[42..], self.now);
                        }
                    }
                    self.ends[i].run(&|| 0, self.now);
                }
            }
        }
        fn warp(&mut self, ms: u64) {
            for _ in 0..ms / 100 {
                self.now = self.now.plus_ms(100);
                self.settle();
            }
        }
        fn line(&mut self, end: usize, key: &str) -> String {
            let now = self.now;
            let text = self.ends[end].show(now);
            text.lines().find_map(|l| l.trim().strip_prefix(key)).unwrap_or("?").trim().to_owned()
        }
    }

    fn intervals(tx: i64, rx: i64) -> Config {
        Config { min_tx_ms: tx, min_rx_ms: rx, ..Config::default() }
    }

    #[test]
    fn sessions_come_up_and_notice_a_cut() {
        let mut lab = Lab::new(intervals(300, 300), intervals(500, 500));
        assert_eq!(lab.line(0, "TX Interval:"), "Approx 1000ms");
        lab.warp(4100);
        for end in 0..2 {
            assert_eq!(lab.line(end, "Forwarding:"), "true");
            assert_eq!(lab.line(end, "TX Interval:"), "Approx 500ms");
            assert_eq!(lab.line(end, "RX Interval:"), "Approx 500ms");
            assert_eq!(lab.line(end, "Local Session State:"), "up");
            assert_eq!(lab.line(end, "Remote Flags:"), "none");
        }
        lab.cut = true;
        lab.warp(1700);
        let now = lab.now;
        let status = lab.ends[0].status(now);
        assert_eq!(
            (status.state, status.diagnostic, status.flap_count),
            (State::Down, Diagnostic::EXPIRED, 2)
        );
        assert_eq!(lab.line(0, "Remote Detect Multiplier:"), "3");
        assert_eq!(lab.line(0, "Local Minimum TX Interval:"), "1000ms");
    }

    #[test]
    fn changed_intervals_are_agreed_by_a_poll() {
        let mut lab = Lab::new(intervals(300, 300), intervals(500, 500));
        lab.warp(4000);
        let now = lab.now;
        lab.ends[0].configure(intervals(1000, 100), 0, now);
        assert_eq!(lab.line(0, "Local Flags:"), "poll");
        assert_eq!(lab.line(0, "Local Minimum TX Interval:"), "300ms");
        lab.settle();
        assert_eq!(lab.line(0, "Local Minimum TX Interval:"), "1000ms");
        assert_eq!(lab.line(0, "Local Minimum RX Interval:"), "100ms");
        assert_eq!(
            (lab.line(0, "Remote Flags:"), lab.line(1, "Remote Flags:")),
            ("final".into(), "poll".into())
        );
    }

    #[test]
    fn a_broken_path_behind_the_peer_stops_forwarding() {
        let mut lab = Lab::new(Config { cpath_down: true, ..intervals(300, 300) }, intervals(300, 300));
        lab.warp(4000);
        assert_eq!(lab.line(0, "Forwarding:"), "true");
        assert_eq!(lab.line(1, "Forwarding:"), "false");
        assert_eq!(lab.line(1, "Remote Diagnostic:"), "Concatenated Path Down");
        let now = lab.now;
        lab.ends[1].force(Some(true));
        assert!(lab.ends[1].forwarding(now));
    }

    #[test]
    fn a_quiet_link_decays() {
        let config = Config { decay_min_rx_ms: 3000, ..intervals(300, 300) };
        let mut lab = Lab::new(config, intervals(300, 300));
        lab.warp(10_000);
        assert_eq!(lab.line(0, "Local Minimum RX Interval:"), "3000ms");
        assert_eq!(lab.line(1, "TX Interval:"), "Approx 3000ms");
    }

    #[test]
    fn traffic_keeps_a_link_forwarding_while_packets_come_at_all() {
        let config = Config { forwarding_if_rx: true, ..intervals(300, 300) };
        let mut lab = Lab::new(config, intervals(300, 300));
        lab.warp(4000);
        lab.cut = true;
        for _ in 0..50 {
            lab.warp(100);
            let now = lab.now;
            lab.ends[0].account_rx(now);
        }
        assert_eq!((lab.line(0, "Forwarding:"), lab.line(1, "Forwarding:")), ("true".into(), "false".into()));
        assert_eq!(lab.line(0, "Local Session State:"), "down");
    }

    #[test]
    fn senseless_packets_change_nothing() {
        let mut lab = Lab::new(intervals(300, 300), intervals(300, 300));
        let good = lab.ends[1].packet(MAC, lab.now)[42..].to_vec();
        let state = |lab: &mut Lab, ttl: u8, data: &[u8]| {
            let now = lab.now;
            lab.ends[0].receive(ttl, data, now);
            lab.line(0, "Local Session State:")
        };
        for (at, value) in [(0, 0), (1, 0x41), (1, 0x44), (2, 0), (3, 23), (3, 25), (8, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(state(&mut lab, 255, &bad), "down", "{at}={value}");
        }
        assert_eq!(state(&mut lab, 254, &good), "down");
        assert_eq!(state(&mut lab, 255, &good[..23]), "down");
        assert_eq!(state(&mut lab, 255, &good), "init");
    }

    #[test]
    fn settings_are_read_with_their_defaults() {
        let get = |key: &str| match key {
            "enable" => Some("true"),
            "mult" => Some("300"),
            "min_tx" => Some("0"),
            "bfd_dst_ip" => Some("10.0.0.1"),
            "bfd_src_ip" => Some("nonsense"),
            _ => None,
        };
        let config = Config::from_pairs(get).unwrap();
        let want = Config { dst_ip: [10, 0, 0, 1], min_tx_ms: 1, ..Config::default() };
        assert_eq!(config, want);
        assert_eq!(Config::from_pairs(|_| None), None);
    }
}
