//! Connectivity fault management (802.1ag) of one link as a pure machine: continuity checks and the time in; continuity checks
//! and faults out.
//!
//! Each maintenance point sends continuity check messages (CCMs) at a fixed interval, and looks every three and a half intervals at who
//! sent any. As ovs-vswitchd.conf.db(5) has it, a point that hears nobody is faulty, whoever should be there. *Extended* mode
//! speaks to another address, knows any interval and identifiers of 64 bits, and tells whether the sender is operational.
//!
//! Whoever drives the machine sends [`Cfm::packet`] when [`Cfm::should_send`], then calls [`Cfm::run`], at the latest at
//! [`Cfm::deadline`]. Cost: a step looks at all remote points, of which there are at most 256.

use std::collections::BTreeMap;
use std::fmt::Write;

use ib_base::rng::Rng;
use ib_base::time::Instant;
use ib_base::vlog::module::CFM;
use ib_base::{vlog_info, vlog_info_rl, vlog_warn_rl};
use ib_packet::Mac;

/// Ethertype of continuity checks.
pub const ETHERTYPE: u16 = 0x8902;
/// Destination of continuity checks.
pub const ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x30]);
/// The same in extended mode.
pub const EXTENDED_ADDRESS: Mac = Mac([0x01, 0x23, 0x20, 0x00, 0x00, 0x30]);
/// Remote points that are kept track of.
const MAX_REMOTES: usize = 256;
/// Looks after which health is computed anew.
const HEALTH_LOOKS: u32 = 6;
/// Continuity checks expected meanwhile.
const HEALTH_EXPECTED: u32 = HEALTH_LOOKS * 7 / 2;
const LEN: usize = 75;
const OPCODE_CCM: u8 = 1;
/// Remote defect indication: the sender hears nobody.
const RDI: u8 = 0x80;
/// Where the first TLV is, counted from behind the octet that says so.
const TLV_OFFSET: u8 = 70;
/// Largest identifier of the standard.
const MAX_MPID: u64 = 8191;
/// The intervals of the standard, from number 1.
const INTERVALS_MS: [u32; 7] = [3, 10, 100, 1000, 10_000, 60_000, 600_000];

/// Why a point is faulty: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u8);

impl Faults {
    const RECV: u8 = 1 << 0;
    const RDI: u8 = 1 << 1;
    const MAID: u8 = 1 << 2;
    const LOOPBACK: u8 = 1 << 3;
    const OVERFLOW: u8 = 1 << 4;
    const OVERRIDE: u8 = 1 << 5;
    const NAMES: [&'static str; 6] = ["recv", "rdi", "maid", "loopback", "overflow", "override"];

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.0 != 0
    }
    /// Their names, as `cfm/show` and the database have them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(i, _)| self.0 >> i & 1 != 0).map(|(_, name)| name)
    }
    fn text(self) -> String {
        self.names().collect::<Vec<_>>().join(" ")
    }
}

/// VLAN of continuity checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CcmVlan {
    /// This one; 0 none.
    Id(u16),
    /// Another one each time.
    #[default]
    Random,
}

/// Settings; see columns `cfm_*` in ovs-vswitchd.conf.db(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Identifier of this point.
    pub mpid: u64,
    /// Between continuity checks.
    pub interval_ms: u32,
    /// Extended mode.
    pub extended: bool,
    /// Traffic counts as a sign of life; extended mode only.
    pub demand: bool,
    /// What peers are told of this point's state; extended mode only.
    pub opup: bool,
    /// VLAN of continuity checks.
    pub vlan: CcmVlan,
    /// Priority of continuity checks.
    pub pcp: u8,
    /// Take packets of tunnel key 0 only.
    pub check_tunnel_key: bool,
}

impl Config {
    /// From columns `cfm_mpid` and `other_config`; `None`: no point is wanted, or none that is possible.
    pub fn from_pairs<'a>(mpid: Option<i64>, get: impl Fn(&str) -> Option<&'a str>) -> Option<Config> {
        let flag = |key: &str| get(key).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let number =
            |key: &str, default: i64| get(key).and_then(|v| v.trim().parse().ok()).unwrap_or(default);
        let extended = flag("cfm_extended");
        // The database has signed numbers where the wire has not.
        let mpid = mpid?.cast_unsigned();
        if mpid == 0 || (!extended && mpid > MAX_MPID) {
            return None;
        }
        let interval_ms = u32::try_from(number("cfm_interval", 0)).ok().filter(|ms| *ms > 0).unwrap_or(1000);
        let vlan = match get("cfm_ccm_vlan") {
            Some("random") => CcmVlan::Random,
            _ => {
                CcmVlan::Id(u16::try_from(number("cfm_ccm_vlan", 0)).ok().filter(|v| *v < 4096).unwrap_or(0))
            }
        };
        Some(Config {
            mpid,
            interval_ms,
            extended,
            demand: extended && flag("cfm_demand"),
            opup: get("cfm_opstate").is_none_or(|v| v.eq_ignore_ascii_case("up")),
            vlan,
            pcp: u8::try_from(number("cfm_ccm_pcp", 0)).ok().filter(|v| *v < 8).unwrap_or(0),
            check_tunnel_key: false,
        })
    }
}

/// Interval as the wire has it: its number (0 in extended mode: the other field counts), and milliseconds.
fn wire_interval(config: &Config) -> (u8, u32) {
    let number = INTERVALS_MS.iter().rposition(|ms| *ms <= config.interval_ms).unwrap_or(0);
    let ms = INTERVALS_MS[number];
    if config.extended && ms != config.interval_ms {
        (0, config.interval_ms.min(u16::MAX.into()))
    } else {
        (number as u8 + 1, ms)
    }
}

/// The identifier that the 16 bits of a message carry.
fn short_mpid(config: &Config) -> u16 {
    let MpidParts { low, high } = MpidParts::of(config.mpid);
    if config.extended {
        // Never one of a point that is not extended.
        let folded = (low ^ high ^ (low >> 16) ^ (high >> 16)) & 0x7fff;
        (folded | 0x4000) as u16
    } else {
        low as u16
    }
}

struct MpidParts {
    low: u32,
    high: u32,
}

impl MpidParts {
    fn of(mpid: u64) -> MpidParts {
        MpidParts { low: (mpid & 0xffff_ffff) as u32, high: (mpid >> 32) as u32 }
    }
}

/// "ovs" as the name of both domain and association.
fn maid() -> [u8; 48] {
    let mut maid = [0; 48];
    maid[..5].copy_from_slice(&[4, 3, b'o', b'v', b's']);
    maid[5..10].copy_from_slice(&[2, 3, b'o', b'v', b's']);
    maid
}

/// A point that was heard.
#[derive(Clone, Copy, Debug)]
struct Remote {
    /// Since the last look.
    is_heard: bool,
    opup: bool,
    seq: u32,
    /// Sound checks since health was computed.
    healthy: u32,
    last_rx: Instant,
}

/// What the database wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Faults.
    pub faults: Faults,
    /// Times at which the point became faulty or sound.
    pub flap_count: u64,
    /// Whether peers are operational; extended mode only.
    pub remote_opup: Option<bool>,
    /// Percentage of checks that came, if known.
    pub health: Option<u32>,
    /// Points heard.
    pub remote_mpids: Vec<u64>,
}

/// One maintenance point. See the module's description.
#[derive(Debug)]
pub struct Cfm {
    name: String,
    config: Config,
    interval: u8,
    interval_ms: u32,
    tx_at: Instant,
    check_at: Instant,
    demand_until: Instant,
    seq: u32,
    faults: Faults,
    /// Faults of messages since the last look.
    heard_faults: Faults,
    forced: Option<bool>,
    flap_count: u64,
    remotes: BTreeMap<u64, Remote>,
    /// Points at the last look.
    remote_mpids: Vec<u64>,
    remote_opup: bool,
    health: Option<u32>,
    looks: u32,
    booted: bool,
    rx_packets: u64,
    rng: Rng,
}

impl Cfm {
    /// A point that has heard nobody. `rx_packets` is what the link's device has received so far.
    pub fn new(name: &str, config: Config, seed: u64, rx_packets: u64, now: Instant) -> Cfm {
        let (interval, interval_ms) = wire_interval(&config);
        let mut cfm = Cfm {
            name: name.to_owned(),
            interval,
            interval_ms,
            tx_at: Instant::ZERO,
            check_at: now,
            demand_until: Instant::ZERO,
            seq: 0,
            faults: Faults::default(),
            heard_faults: Faults::default(),
            forced: None,
            flap_count: 0,
            remotes: BTreeMap::new(),
            remote_mpids: Vec::new(),
            remote_opup: true,
            health: None,
            looks: 0,
            booted: false,
            rx_packets,
            rng: Rng::new(seed),
            config,
        };
        cfm.check_at = now.plus_ms(cfm.look_interval_ms());
        cfm
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes over new settings.
    pub fn configure(&mut self, config: Config, rx_packets: u64, now: Instant) {
        if self.config.demand != config.demand {
            self.rx_packets = rx_packets;
        }
        self.config = config;
        let wire = wire_interval(&self.config);
        if wire != (self.interval, self.interval_ms) {
            (self.interval, self.interval_ms) = wire;
            self.tx_at = Instant::ZERO;
            self.check_at = now.plus_ms(self.look_interval_ms());
        }
    }

    /// Where messages go, and come from.
    pub fn address(&self) -> Mac {
        if self.config.extended { EXTENDED_ADDRESS } else { ADDRESS }
    }

    /// All points are assumed to send as often as we do. Counters of the datapath come in late: traffic needs time to show.
    fn look_interval_ms(&self) -> u64 {
        let ms = u64::from(self.interval_ms);
        let ms = if self.config.demand { ms.max(500) } else { ms };
        ms * 7 / 2
    }

    /// Lets time pass. `rx_packets` tells what the link's device has received; it is asked only in demand mode.
    pub fn run(&mut self, rx_packets: &dyn Fn() -> u64, now: Instant) {
        if now < self.check_at {
            return;
        }
        let before = self.faults;
        self.faults = std::mem::take(&mut self.heard_faults);
        if self.looks == HEALTH_LOOKS {
            self.looks = 0;
            self.health = match self.remotes.len() {
                0 => Some(0),
                1 => self
                    .remotes
                    .values_mut()
                    .next()
                    .map(|r| (std::mem::take(&mut r.healthy) * 100 / HEALTH_EXPECTED).min(100)),
                _ => None,
            };
        }
        self.looks += 1;
        let mut has_traffic = false;
        if self.config.demand {
            let packets = rx_packets();
            has_traffic = self.remotes.len() == 1 && packets > self.rx_packets && now < self.demand_until;
            self.rx_packets = packets;
        }
        let name = &self.name;
        self.remotes.retain(|mpid, r| {
            if !r.is_heard {
                let silent = now.since(r.last_rx).as_millis();
                vlog_info!(CFM, "{name}: Received no CCM from RMP {mpid} in the last {silent}ms");
                return has_traffic;
            }
            r.is_heard = false;
            true
        });
        if !self.remotes.is_empty() {
            self.remote_opup = self.remotes.values().all(|r| r.opup);
        } else {
            self.faults.0 |= Faults::RECV;
        }
        self.remote_mpids = self.remotes.keys().copied().collect();
        if before != self.faults {
            let (old, new) = (before.text(), self.faults.text());
            vlog_info!(CFM, "{name}: CFM faults changed from [{old}] to [{new}].");
            if !before.any() || !self.faults.any() {
                self.flap_count += 1;
            }
        }
        self.booted = true;
        self.check_at = now.plus_ms(self.look_interval_ms());
    }

    /// When [`Self::run`] or [`Self::packet`] is next due.
    pub fn deadline(&self) -> Instant {
        self.tx_at.min(self.check_at)
    }

    /// Whether a continuity check is due.
    pub fn should_send(&self, now: Instant) -> bool {
        now >= self.tx_at
    }

    /// The next continuity check, a frame. `mac` is the port's address.
    pub fn packet(&mut self, mac: Mac, now: Instant) -> Vec<u8> {
        self.tx_at = now.plus_ms(self.interval_ms.into());
        let mut f = Vec::with_capacity(18 + LEN);
        f.extend(self.address().0);
        f.extend(mac.0);
        let vid = match self.config.vlan {
            CcmVlan::Id(vid) => vid,
            CcmVlan::Random => (self.rng.next_u32() % 4095 + 1) as u16,
        };
        if vid != 0 || self.config.pcp != 0 {
            f.extend([0x81, 0x00]);
            f.extend((u16::from(self.config.pcp) << 13 | vid).to_be_bytes());
        }
        f.extend(ETHERTYPE.to_be_bytes());
        let mut flags = self.interval;
        if self.booted && self.remotes.is_empty() {
            flags |= RDI;
        }
        f.extend([0, OPCODE_CCM, flags, TLV_OFFSET]);
        self.seq = self.seq.wrapping_add(1);
        f.extend(self.seq.to_be_bytes());
        f.extend(short_mpid(&self.config).to_be_bytes());
        f.extend(maid());
        let mut extension = [0; 16];
        if self.config.extended {
            extension[..8].copy_from_slice(&self.config.mpid.to_be_bytes());
            extension[8] = (!self.config.opup).into();
        }
        if self.interval == 0 {
            let ms = u16::try_from(self.interval_ms).unwrap_or(u16::MAX);
            extension[9..11].copy_from_slice(&ms.to_be_bytes());
        }
        f.extend(extension);
        f.push(0);
        f
    }

    /// Takes a message in: what lies behind the ethertype, and who sent it.
    pub fn receive(&mut self, from: Mac, data: &[u8], now: Instant) {
        let name = &self.name;
        let Some(m) = data.first_chunk::<LEN>() else {
            vlog_info_rl!(CFM, (1, 20), "{name}: Received an unparseable 802.1ag CCM heartbeat.");
            return;
        };
        if m[1] != OPCODE_CCM {
            let opcode = m[1];
            vlog_info_rl!(CFM, (1, 20), "{name}: Received an unsupported 802.1ag message. (opcode {opcode})");
            return;
        }
        if m[10..58] != maid() {
            self.heard_faults.0 |= Faults::MAID;
            vlog_warn_rl!(CFM, (1, 20), "{name}: Received unexpected remote MAID from MAC {from}");
            return;
        }
        let seq = u32::from_be_bytes([m[4], m[5], m[6], m[7]]);
        let (mpid, opup) = if self.config.extended {
            let bytes = [m[58], m[59], m[60], m[61], m[62], m[63], m[64], m[65]];
            (u64::from_be_bytes(bytes), m[66] == 0)
        } else {
            (u16::from_be_bytes([m[8], m[9]]).into(), true)
        };
        let mut faults = 0;
        let interval = m[2] & 7;
        let extended_ms = u16::from_be_bytes([m[67], m[68]]);
        // Worth a warning, but no fault: anybody could make one.
        if interval != self.interval {
            vlog_warn_rl!(
                CFM,
                (1, 20),
                "{name}: received a CCM with an unexpected interval ({interval}) from RMP {mpid}"
            );
        }
        if self.config.extended && interval == 0 && u32::from(extended_ms) != self.interval_ms {
            vlog_warn_rl!(
                CFM,
                (1, 20),
                "{name}: received a CCM with an unexpected extended interval ({extended_ms}ms) from RMP {mpid}"
            );
        }
        if m[2] & RDI != 0 {
            faults |= Faults::RDI;
        }
        if mpid == self.config.mpid {
            faults |= Faults::LOOPBACK;
            vlog_warn_rl!(CFM, (1, 20), "{name}: received CCM with local MPID {mpid}");
        }
        let has_room = self.remotes.len() < MAX_REMOTES;
        if !has_room && !self.remotes.contains_key(&mpid) {
            self.heard_faults.0 |= faults | Faults::OVERFLOW;
            vlog_warn_rl!(CFM, (1, 20), "{name}: dropped CCM with MPID {mpid} from MAC {from}");
            return;
        }
        let fresh = Remote { is_heard: false, opup, seq: 0, healthy: 0, last_rx: now };
        let remote = self.remotes.entry(mpid).or_insert(fresh);
        let in_order = remote.seq == 0 || seq == remote.seq.wrapping_add(1);
        if faults == 0 && in_order {
            remote.healthy += 1;
        }
        if faults == 0 && self.config.demand {
            self.demand_until = now.plus_ms(100 * u64::from(self.interval_ms));
        }
        self.heard_faults.0 |= faults;
        *remote = Remote { is_heard: true, opup, seq, healthy: remote.healthy, last_rx: now };
    }

    /// Faults as they count: an administrator's word is last.
    pub fn faults(&self) -> Faults {
        match self.forced {
            Some(true) => Faults(Faults::OVERRIDE),
            Some(false) => Faults::default(),
            None => self.faults,
        }
    }

    /// Whether the link may be used: no fault, and peers are operational.
    pub fn is_usable(&self) -> bool {
        !self.faults().any() && (!self.config.extended || self.remote_opup)
    }

    /// Makes the answer to "is it faulty" this one, or again what the machine finds.
    pub fn force(&mut self, faulty: Option<bool>) {
        self.forced = faulty;
    }

    /// For the database.
    pub fn status(&self) -> Status {
        Status {
            faults: self.faults(),
            flap_count: self.flap_count,
            remote_opup: self.config.extended.then_some(self.remote_opup),
            health: self.health,
            remote_mpids: self.remote_mpids.clone(),
        }
    }

    /// `cfm/show` of one point.
    pub fn show(&self, now: Instant) -> String {
        let up_down = |up: bool| if up { "up" } else { "down" };
        let until = |at: Instant| {
            let ms = |t: Instant| i64::try_from(t.as_ms()).unwrap_or(i64::MAX);
            ms(at) - ms(now)
        };
        let mut out = format!("---- {} ----\nMPID {}:", self.name, self.config.mpid);
        let o = &mut out;
        for (is_set, word) in
            [(self.config.extended, " extended"), (self.forced.is_some(), " fault_override")]
        {
            if is_set {
                o.push_str(word);
            }
        }
        o.push('\n');
        let faults = self.faults();
        if faults.any() {
            let _ = writeln!(o, "  fault: {}", faults.text());
        }
        match self.health {
            Some(percent) => writeln!(o, "  average health: {percent}"),
            None => writeln!(o, "  average health: undefined"),
        }
        .unwrap_or_default();
        let _ = writeln!(o, "  opstate: {}", up_down(self.config.opup));
        let _ = writeln!(o, "  remote_opstate: {}", up_down(self.remote_opup));
        let _ = writeln!(o, "  interval: {}ms", self.interval_ms);
        // The first goes out as soon as somebody runs us.
        let next = if self.tx_at == Instant::ZERO { 0 } else { until(self.tx_at) };
        let _ = writeln!(o, "  next CCM tx: {next}ms");
        let _ = writeln!(o, "  next fault check: {}ms", until(self.check_at));
        for (mpid, r) in &self.remotes {
            let _ = writeln!(o, "Remote MPID {mpid}\n  recv since check: {}", r.is_heard);
            let _ = writeln!(o, "  opstate: {}", up_down(r.opup));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mpid: u64) -> Config {
        Config {
            mpid,
            interval_ms: 300,
            extended: true,
            demand: false,
            opup: true,
            vlan: CcmVlan::Id(0),
            pcp: 0,
            check_tunnel_key: false,
        }
    }

    struct Lab {
        ends: [Cfm; 2],
        now: Instant,
        cut: bool,
        rx_packets: u64,
    }

    impl Lab {
        fn new(a: Config, b: Config) -> Lab {
            let now = Instant::from_ms(1000);
            let ends = [Cfm::new("p0", a, 1, 0, now), Cfm::new("p1", b, 2, 0, now)];
            Lab { ends, now, cut: false, rx_packets: 0 }
        }
        fn warp(&mut self, ms: u64) {
            for _ in 0..=ms / 100 {
                for i in 0..2 {
                    if self.ends[i].should_send(self.now) {
                        let frame = self.ends[i].packet(Mac::ZERO, self.now);
                        if !self.cut {
                            self.ends[1 - i].receive(Mac::ZERO, &frame[14..], self.now);
                        }
                    }
                    let packets = self.rx_packets;
                    self.ends[i].run(&|| packets, self.now);
                }
                self.now = self.now.plus_ms(100);
            }
        }
        fn shows(&self, end: usize, line: &str) -> bool {
            self.ends[end].show(self.now).lines().any(|l| l.trim() == line)
        }
    }

    #[test]
    fn points_hear_each_other() {
        let mut lab = Lab::new(config(1), config(2));
        lab.warp(10_000);
        assert!(lab.shows(0, "MPID 1: extended") && lab.shows(0, "average health: 100"));
        assert!(lab.shows(0, "Remote MPID 2") && lab.shows(1, "Remote MPID 1"));
        assert!(lab.ends[0].is_usable());
        lab.cut = true;
        lab.warp(3000);
        let status = lab.ends[0].status();
        assert_eq!((status.faults.text().as_str(), status.flap_count), ("recv", 1));
        lab.ends[0].force(Some(false));
        assert!(lab.ends[0].is_usable() && lab.shows(0, "MPID 1: extended fault_override"));
        lab.ends[0].force(Some(true));
        assert!(lab.shows(0, "fault: override"));
    }

    #[test]
    fn configuration_that_does_not_fit_shows() {
        let mut lab = Lab::new(config(1), Config { interval_ms: 400, ..config(2) });
        lab.warp(3000);
        assert!(!lab.ends[0].faults().any());
        let mut lab = Lab::new(config(1), config(1));
        lab.warp(3000);
        assert!(lab.shows(0, "fault: loopback"));
        let mut lab = Lab::new(config(1), Config { opup: false, ..config(2) });
        lab.warp(3000);
        assert!(lab.shows(0, "remote_opstate: down") && !lab.ends[0].is_usable());
        assert!(!lab.ends[0].faults().any());
    }

    #[test]
    fn traffic_is_a_sign_of_life_on_demand() {
        let mut lab = Lab::new(Config { demand: true, ..config(1) }, config(2));
        lab.warp(5000);
        lab.cut = true;
        for _ in 0..20 {
            lab.rx_packets += 1;
            lab.warp(1000);
        }
        assert!(!lab.ends[0].faults().any() && lab.ends[1].faults().any());
        lab.warp(10_000);
        assert!(lab.ends[0].faults().any());
    }

    #[test]
    fn standard_intervals_and_identifiers() {
        let pairs = |mpid, interval: &'static str, extended: &'static str| {
            Config::from_pairs(Some(mpid), |key| match key {
                "cfm_interval" => Some(interval),
                "cfm_extended" => Some(extended),
                _ => None,
            })
        };
        let ms = |c: Option<Config>| wire_interval(&c.unwrap());
        assert_eq!(ms(pairs(1, "77777", "false")), (6, 60_000));
        assert_eq!(ms(pairs(1, "1", "false")), (1, 3));
        assert_eq!(ms(pairs(1, "0", "false")), (4, 1000));
        assert_eq!(ms(pairs(1, "1000", "true")), (4, 1000));
        assert_eq!(ms(pairs(1, "77777", "true")), (0, 65535));
        assert_eq!(pairs(8192, "1000", "false"), None);
        assert_eq!(pairs(8192, "1000", "true").unwrap().mpid, 8192);
    }

    #[test]
    fn strangers_are_noticed_and_counted() {
        let now = Instant::from_ms(1000);
        let mut cfm = Cfm::new("p0", config(1), 1, 0, now);
        let frame = Cfm::new("p1", config(2), 2, 0, now).packet(Mac::ZERO, now);
        cfm.receive(Mac::ZERO, &frame[14..60], now);
        let mut stranger = frame.clone();
        stranger[14 + 12] = b'x';
        cfm.receive(Mac::ZERO, &stranger[14..], now);
        assert!(cfm.remotes.is_empty());
        cfm.run(&|| 0, now.plus_ms(1050));
        assert_eq!(cfm.faults().text(), "recv maid");
        for n in 0..=256u16 {
            let mut other = frame.clone();
            other[14 + 64..14 + 66].copy_from_slice(&(n + 10).to_be_bytes());
            cfm.receive(Mac::ZERO, &other[14..], now);
        }
        assert_eq!(cfm.remotes.len(), MAX_REMOTES);
        cfm.run(&|| 0, now.plus_ms(2100));
        assert_eq!(cfm.faults().text(), "overflow");
    }
}
