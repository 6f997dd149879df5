//! Machines that watch a bridge's links: joins [`ib_l2::bfd`], [`ib_l2::cfm`] and [`ib_l2::lldp`] to ports, translation and
//! the `bfd/*`, `cfm/*` and `autoattach/*` commands.
//!
//! A port's machines sit in its [`Monitor`], which translation shares: on any thread it asks whose a packet is, and hands it in.
//! The main thread sends what is due and lets time pass ([`Bridge::run_monitors`]), and tells from the outcome whether the port is usable
//! ([`crate::port::Port::is_live`]).
//!
//! A port that gets machines, or whose settings change, waits until some port is due: as in Open vSwitch, where a thread
//! sleeps meanwhile. Only the very first one is looked at right away.
//!
//! Cost: ports are filed by the time at which they are next due; a turn looks at those that are, and at those that something happened to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_base::rng::Rng;
use ib_base::time::Instant;
use ib_flow::{Flow, Mask, OfPort};
use ib_l2::bfd::{self, Bfd};
use ib_l2::cfm::{self, Cfm};
use ib_l2::lldp::{self, Lldp};
use ib_openflow::message::PortReason;
use ib_packet::{Be16, Be32, Be64, Mac, Packet};
use parking_lot::Mutex;

use crate::config::MonitorConfig;
use crate::ofproto::Ofproto;
use crate::port::Port;
use crate::switch::{Bridge, Switch};
use ib_flow::hash::chain_order;

/// The machines of one port.
#[derive(Debug)]
pub struct Monitor {
    /// Order of creation among all.
    seq: u64,
    machines: Mutex<Machines>,
}

#[derive(Debug, Default)]
struct Machines {
    bfd: Option<Bfd>,
    cfm: Option<Cfm>,
    lldp: Option<Lldp>,
}

/// Whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Bfd,
    Cfm,
    Lldp,
}

/// What the database wants to know of a port's machines; `None`: there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorStatus {
    /// Of BFD.
    pub bfd: Option<bfd::Status>,
    /// Of CFM.
    pub cfm: Option<cfm::Status>,
}

/// What a bridge knows of its ports' machines.
#[derive(Default)]
pub(crate) struct Monitors {
    due: BTreeSet<(Instant, OfPort)>,
    filed: BTreeMap<OfPort, Instant>,
    /// Ports that were configured, which are due when any is.
    configured: BTreeSet<OfPort>,
    status: BTreeMap<OfPort, MonitorStatus>,
    /// Ports whose status is news.
    changed: BTreeSet<OfPort>,
    auto_attach: lldp::Config,
    /// Made with the first machine.
    rng: Option<Rng>,
}

impl Monitors {
    fn file(&mut self, port: OfPort, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.filed.insert(port, at),
            None => self.filed.remove(&port),
        };
        if let Some(old) = old {
            self.due.remove(&(old, port));
        }
        if let Some(at) = at {
            self.due.insert((at, port));
        }
    }
}

impl Monitor {
    fn new() -> Monitor {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Monitor { seq: MADE.fetch_add(1, Ordering::Relaxed), machines: Mutex::default() }
    }

    /// Whether a packet is for CFM or BFD. What of it was looked at gets into the mask.
    pub(crate) fn claims(&self, flow: &Flow, wc: &mut Mask) -> Option<Claim> {
        let machines = self.machines.lock();
        if let Some(cfm) = &machines.cfm
            && is_for_cfm(cfm, flow, wc)
        {
            return Some(Claim::Cfm);
        }
        machines.bfd.as_ref().filter(|bfd| is_for_bfd(bfd.config(), flow, wc)).map(|_| Claim::Bfd)
    }

    /// Whether a packet is for LLDP. The Ethernet type is in every mask.
    pub(crate) fn claims_lldp(&self, flow: &Flow) -> bool {
        flow.dl_type.get() == lldp::ETHERTYPE
            && self.machines.lock().lldp.as_ref().is_some_and(Lldp::is_enabled)
    }

    /// Hands in a packet of such a flow; called on any thread.
    pub(crate) fn receive(&self, claim: Claim, flow: &Flow, packet: &Packet, now: Instant) {
        let mut machines = self.machines.lock();
        let data = crate::lacp::payload(packet.data());
        match (claim, &mut *machines) {
            (Claim::Bfd, Machines { bfd: Some(bfd), .. }) => {
                // The packet was parsed: what is missing is a truncated one's.
                let header = data.first().map_or(0, |b| usize::from(b & 15) * 4);
                bfd.receive(flow.nw_ttl, data.get(header + 8..).unwrap_or_default(), now);
            }
            (Claim::Cfm, Machines { cfm: Some(cfm), .. }) => cfm.receive(flow.dl_src, data, now),
            (Claim::Lldp, Machines { lldp: Some(lldp), .. }) => lldp.receive(packet.data()),
            _ => {}
        }
    }

    /// Whether [`Self::account_rx`] is of use.
    pub(crate) fn wants_traffic(&self) -> bool {
        self.machines.lock().bfd.as_ref().is_some_and(|bfd| bfd.config().forwarding_if_rx)
    }

    /// Tells that the link has carried traffic towards us; called on any thread.
    pub(crate) fn account_rx(&self, now: Instant) {
        if let Some(bfd) = &mut self.machines.lock().bfd {
            bfd.account_rx(now);
        }
    }
}

fn is_for_cfm(cfm: &Cfm, flow: &Flow, wc: &mut Mask) -> bool {
    let checks_key = cfm.config().check_tunnel_key;
    if checks_key {
        wc.0.tunnel.tun_id = Be64::MAX;
    }
    wc.0.dl_dst = Mac::BROADCAST;
    flow.dl_type.get() == cfm::ETHERTYPE
        && flow.dl_dst == cfm.address()
        && (!checks_key || flow.tunnel.tun_id.is_zero())
}

fn is_for_bfd(config: &bfd::Config, flow: &Flow, wc: &mut Mask) -> bool {
    if let Some(mac) = config.remote_dst_mac {
        wc.0.dl_dst = Mac::BROADCAST;
        if flow.dl_dst != mac {
            return false;
        }
    }
    if flow.dl_type.get() != 0x0800 {
        return false;
    }
    wc.0.nw_proto = u8::MAX;
    if flow.nw_proto != 17 || flow.nw_frag & Flow::FRAG_LATER != 0 {
        return false;
    }
    let differs = flow.tp_dst.get() ^ bfd::PORT;
    if differs != 0 {
        // One bit is enough to tell it from ours.
        wc.0.tp_dst |= Be16::new(1 << differs.ilog2());
        return false;
    }
    wc.0.tp_dst = Be16::MAX;
    // With the address that everybody has, any will do.
    let own = Be32::new(u32::from_be_bytes(config.src_ip));
    let is_default = config.src_ip == bfd::DEFAULT_SRC_IP;
    if flow.nw_dst == own || !is_default {
        wc.0.nw_dst = Be32::MAX;
        if flow.nw_dst != own {
            return false;
        }
    }
    if config.check_tunnel_key {
        wc.0.tunnel.tun_id = Be64::MAX;
        return flow.tunnel.tun_id.is_zero();
    }
    true
}

impl Bridge {
    /// Makes a port's machines those that are wanted.
    pub fn port_set_monitors(&mut self, port: OfPort, config: &MonitorConfig) {
        let Some(p) = self.ports.get(&port) else { return };
        let is_wanted = config.bfd.is_some() || config.cfm.is_some() || config.lldp.is_some();
        if !is_wanted && p.monitor.is_none() {
            return;
        }
        let now = self.of.clock.now();
        let rx_packets = self.rx_packets(p);
        let (name, mac) = (p.config.name.clone(), p.config.netdev.mac);
        let key_of_flow =
            p.tunnel.as_ref().is_some_and(|t| matches!(t.in_key, Some(ib_tunnel::config::OrFlow::Flow)));
        let monitor = p.monitor.clone().unwrap_or_else(|| Arc::new(Monitor::new()));
        let rng = self.monitors.rng.get_or_insert_with(Rng::from_os);
        let mut machines = monitor.machines.lock();
        machines.bfd = config.bfd.clone().map(|config| match machines.bfd.take() {
            Some(mut bfd) => {
                bfd.configure(config, rx_packets, now);
                bfd
            }
            None => Bfd::new(&name, config, rng.next_u64(), rx_packets, now),
        });
        machines.cfm = config.cfm.clone().map(|config| {
            let config = cfm::Config { check_tunnel_key: key_of_flow, ..config };
            match machines.cfm.take() {
                Some(mut cfm) => {
                    cfm.configure(config, rx_packets, now);
                    cfm
                }
                None => Cfm::new(&name, config, rng.next_u64(), rx_packets, now),
            }
        });
        machines.lldp = config.lldp.map(|on| {
            let mut lldp = machines.lldp.take().unwrap_or_else(|| Lldp::new(&name, mac, now));
            lldp.enable(on, now);
            lldp.configure(&self.monitors.auto_attach);
            lldp
        });
        drop(machines);
        if let Some(p) = self.ports.get_mut(&port) {
            p.monitor = is_wanted.then_some(monitor);
        }
        if is_wanted {
            self.monitors.configured.insert(port);
            self.tell_monitor(port, now);
        } else {
            self.forget_monitor(port);
            self.set_port_usable(port, true);
        }
        self.touch();
    }

    /// A port has no machines any more.
    pub(crate) fn forget_monitor(&mut self, port: OfPort) {
        self.monitors.file(port, None);
        self.monitors.configured.remove(&port);
        if self.monitors.status.remove(&port).is_some() {
            self.monitors.changed.insert(port);
        }
    }

    /// What the bridge tells its neighbours by LLDP.
    pub fn set_auto_attach(&mut self, config: lldp::Config) {
        if self.monitors.auto_attach == config {
            return;
        }
        for monitor in self.ports.values().filter_map(|p| p.monitor.as_ref()) {
            if let Some(lldp) = &mut monitor.machines.lock().lldp {
                lldp.configure(&config);
            }
        }
        self.monitors.auto_attach = config;
    }

    fn rx_packets(&self, port: &Port) -> u64 {
        if port.is_patch() || port.tunnel.is_some() {
            return port.counters.get()[0];
        }
        self.port_stats.as_ref().and_then(|stats| stats(&port.config.name)).map_or(0, |s| s.rx_packets)
    }

    /// Whether a port is due; `None`: there is none with machines.
    pub(crate) fn monitors_due(&self, now: Instant) -> Option<bool> {
        self.monitors.due.first().map(|(at, _)| *at <= now)
    }

    /// Whether ports were configured that wait for others to be due.
    pub(crate) fn has_configured_monitors(&self) -> bool {
        !self.monitors.configured.is_empty()
    }

    /// Does what is due; `awake`: what was configured, too. Returns whether there was anything: it may have made something
    /// due elsewhere.
    pub(crate) fn run_monitors(&mut self, awake: bool, now: Instant) -> bool {
        let mut ports: Vec<OfPort> =
            self.monitors.due.range(..=(now, OfPort(u16::MAX))).map(|(_, port)| *port).collect();
        if awake {
            let configured = std::mem::take(&mut self.monitors.configured);
            ports.extend(configured.iter().filter(|port| !ports.contains(port)).copied().collect::<Vec<_>>());
        }
        for port in self.of.take_monitor_news() {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        for port in &ports {
            self.run_monitor(*port, now);
        }
        !ports.is_empty()
    }

    fn run_monitor(&mut self, port: OfPort, now: Instant) {
        let Some((p, monitor)) =
            self.ports.get(&port).and_then(|p| Some((p, Arc::clone(p.monitor.as_ref()?))))
        else {
            self.monitors.file(port, None);
            return;
        };
        let mac = p.config.netdev.mac;
        let mut frames = Vec::new();
        let mut machines = monitor.machines.lock();
        if let Some(cfm) = machines.cfm.as_mut().filter(|m| m.should_send(now)) {
            frames.push((cfm.packet(mac, now), false));
        }
        if let Some(bfd) = machines.bfd.as_mut().filter(|m| m.should_send(now)) {
            let oam = bfd.config().oam;
            frames.push((bfd.packet(mac, now), oam));
        }
        if let Some(lldp) = machines.lldp.as_mut().filter(|m| m.should_send(now)) {
            frames.push((lldp.packet(mac, now), false));
        }
        drop(machines);
        // A frame may come back to this very port.
        for (frame, oam) in frames {
            self.send_marked_frame(port, &frame, oam);
        }
        let rx_packets = || self.rx_packets(p);
        let mut machines = monitor.machines.lock();
        let Machines { bfd, cfm, lldp } = &mut *machines;
        if let Some(cfm) = cfm {
            cfm.run(&rx_packets, now);
        }
        if let Some(bfd) = bfd {
            bfd.run(&rx_packets, now);
        }
        let deadlines = [
            bfd.as_ref().map(Bfd::deadline),
            cfm.as_ref().map(Cfm::deadline),
            lldp.as_ref().and_then(Lldp::deadline),
        ];
        drop(machines);
        self.monitors.file(port, deadlines.into_iter().flatten().min());
        self.tell_monitor(port, now);
    }

    /// Takes over what a port's machines have found.
    fn tell_monitor(&mut self, port: OfPort, now: Instant) {
        let Some(monitor) = self.ports.get(&port).and_then(|p| p.monitor.clone()) else { return };
        let mut machines = monitor.machines.lock();
        let Machines { bfd, cfm, .. } = &mut *machines;
        let status = MonitorStatus {
            bfd: bfd.as_mut().map(|bfd| bfd.status(now)),
            cfm: cfm.as_ref().map(Cfm::status),
        };
        // Either of them vouches for the link.
        let by_cfm = cfm.as_ref().map(Cfm::is_usable);
        let by_bfd = status.bfd.map(|s| s.forwarding);
        let usable = (by_cfm.is_none() && by_bfd.is_none()) || by_cfm == Some(true) || by_bfd == Some(true);
        drop(machines);
        if self.monitors.status.get(&port) != Some(&status) {
            self.monitors.status.insert(port, status);
            self.monitors.changed.insert(port);
        }
        self.set_port_usable(port, usable);
    }

    fn set_port_usable(&mut self, port: OfPort, usable: bool) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        if p.monitor_agrees == usable {
            return;
        }
        let before = p.description();
        p.monitor_agrees = usable;
        let after = p.description();
        if before != after {
            self.connmgr.send_port_status(PortReason::Modify, after);
        }
        self.touch();
    }

    /// When [`Self::run_monitors`] is next needed.
    pub(crate) fn monitors_deadline(&self) -> Option<Instant> {
        if self.of.has_monitor_news() {
            return Some(Instant::ZERO);
        }
        self.monitors.due.first().map(|(at, _)| *at)
    }

    /// Ports whose status has changed since the last call, with the names of their interfaces.
    pub fn take_monitor_changes(&mut self) -> Vec<(OfPort, String)> {
        let changed = std::mem::take(&mut self.monitors.changed).into_iter();
        changed.filter_map(|port| Some((port, self.ports.get(&port)?.config.name.clone()))).collect()
    }

    pub(crate) fn has_monitor_changes(&self) -> bool {
        !self.monitors.changed.is_empty()
    }

    /// What the database wants to know of a port.
    pub fn monitor_status(&self, port: OfPort) -> MonitorStatus {
        self.monitors.status.get(&port).cloned().unwrap_or_default()
    }
}

/// Ports with a machine of one kind, in the order in which the original's table of names holds them.
fn each<M>(
    switch: &Switch,
    of: impl Fn(&mut Machines) -> Option<&mut M>,
    mut visit: impl FnMut(&Bridge, &Port, &mut M),
) {
    let ports = switch.bridges.values().flat_map(|b| b.ports.values().map(move |p| (b, p)));
    let mut all: Vec<(&Bridge, &Port, &Arc<Monitor>)> = ports
        .filter_map(|(b, p)| Some((b, p, p.monitor.as_ref()?)))
        .filter(|(_, _, m)| of(&mut m.machines.lock()).is_some())
        .collect();
    all.sort_by_key(|(_, _, m)| m.seq);
    let hash = |at: usize| ib_flow::hash::bytes(all[at].1.config.name.as_bytes(), 0);
    for at in chain_order(0..all.len(), hash) {
        let (bridge, port, monitor) = all[at];
        if let Some(machine) = of(&mut monitor.machines.lock()) {
            visit(bridge, port, machine);
        }
    }
}

fn bfd_of(m: &mut Machines) -> Option<&mut Bfd> {
    m.bfd.as_mut()
}
fn cfm_of(m: &mut Machines) -> Option<&mut Cfm> {
    m.cfm.as_mut()
}
fn lldp_of(m: &mut Machines) -> Option<&mut Lldp> {
    m.lldp.as_mut()
}

/// `bfd/show [interface]`.
pub(crate) fn bfd_show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let mut found: Vec<(String, String)> = Vec::new();
    each(switch, bfd_of, |_, port, bfd| found.push((port.config.name.clone(), bfd.show(now))));
    if let [name, ..] = args {
        let of_name = found.into_iter().find(|(n, _)| n == name).map(|(_, text)| text);
        return of_name.ok_or_else(|| "no such bfd object".to_owned());
    }
    // The original's order is by chance: a table by discriminator.
    found.sort();
    Ok(found.into_iter().map(|(name, text)| format!("---- {name} ----\n{text}")).collect())
}

/// `cfm/show [interface]`.
pub(crate) fn cfm_show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let mut out = String::new();
    each(switch, cfm_of, |_, port, cfm| {
        if args.first().is_none_or(|name| *name == port.config.name) {
            out.push_str(&cfm.show(now));
        }
    });
    if out.is_empty() && !args.is_empty() { Err("no such CFM object".into()) } else { Ok(out) }
}

/// `normal`, `true` or `false` behind the name of an interface, if there is one.
fn verdict<'a>(args: &[&'a str]) -> Result<(Option<&'a str>, Option<bool>), String> {
    let (verdict, name) = args.split_last().ok_or("unknown fault string")?;
    let is = |word: &str| verdict.eq_ignore_ascii_case(word);
    let forced = match () {
        () if is("true") => Some(true),
        () if is("false") => Some(false),
        () if is("normal") => None,
        () => return Err("unknown fault string".into()),
    };
    Ok((name.first().copied(), forced))
}

fn force<M>(
    switch: &mut Switch,
    args: &[&str],
    of: impl Fn(&mut Machines) -> Option<&mut M>,
    set: impl Fn(&mut M, Option<bool>),
    missing: &str,
) -> Result<String, String> {
    let (name, forced) = verdict(args)?;
    let mut found = false;
    each(switch, of, |bridge, port, machine| {
        if name.is_none_or(|name| name == port.config.name) {
            set(machine, forced);
            bridge.of.monitor_news(port.ofport);
            found = true;
        }
    });
    if name.is_some() && !found { Err(missing.to_owned()) } else { Ok("OK".into()) }
}

/// `bfd/set-forwarding [interface] normal|false|true`.
pub(crate) fn bfd_force(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    force(switch, args, bfd_of, Bfd::force, "no such BFD object")
}

/// `cfm/set-fault [interface] normal|false|true`.
pub(crate) fn cfm_force(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    force(switch, args, cfm_of, Cfm::force, "no such CFM object")
}

/// `autoattach/status [bridge]`.
pub(crate) fn auto_attach_status(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    each(switch, lldp_of, |_, _, lldp| lldp.show_status(&mut out));
    Ok(out)
}

/// `autoattach/show-isid [bridge]`.
pub(crate) fn auto_attach_isids(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    each(switch, lldp_of, |_, _, lldp| {
        let order = chain_order(lldp.isids().into_iter(), |isid| ib_flow::hash::two_words(isid, 0));
        lldp.show_isids(&order, &mut out);
    });
    Ok(out)
}

/// `autoattach/statistics [bridge]`.
pub(crate) fn auto_attach_statistics(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    each(switch, lldp_of, |_, _, lldp| lldp.show_statistics(&mut out));
    Ok(out)
}

/// Kept by an [`Ofproto`] for its main thread: ports to look at, whatever their time.
#[derive(Default)]
pub(crate) struct News(Mutex<BTreeSet<OfPort>>);

impl Ofproto {
    /// Has a port's machines looked at.
    pub(crate) fn monitor_news(&self, port: OfPort) {
        self.monitor_news.0.lock().insert(port);
        self.wake();
    }
    fn take_monitor_news(&self) -> BTreeSet<OfPort> {
        std::mem::take(&mut *self.monitor_news.0.lock())
    }
    fn has_monitor_news(&self) -> bool {
        !self.monitor_news.0.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lab;

    fn watched(bfd: Option<bfd::Config>, mpid: Option<i64>, lldp: Option<bool>) -> MonitorConfig {
        MonitorConfig { bfd, cfm: cfm::Config::from_pairs(mpid, |_| None), lldp }
    }

    fn settle(lab: &mut Lab, steps: u64) {
        for _ in 0..steps {
            lab.switch.run(lab.clock.now());
            lab.clock.warp(100);
        }
        lab.switch.run(lab.clock.now());
    }

    fn is_live(lab: &Lab, bridge: &str) -> bool {
        lab.switch.bridge(bridge).unwrap().port_by_name("a0").is_some_and(Port::is_live)
    }

    #[test]
    fn links_between_bridges_come_up_and_fail() {
        let mut lab = Lab::new().bridge("br0", &[]).bridge("br1", &[]);
        lab.clock.stop();
        lab = lab.patch(("br0", "a0", 1), ("br1", "b0", 2));
        let bfd = bfd::Config { min_rx_ms: 300, min_tx_ms: 300, ..bfd::Config::default() };
        let set = |lab: &mut Lab, bridge: &str, port: u16, config: &MonitorConfig| {
            lab.switch.bridge_mut(bridge).unwrap().port_set_monitors(OfPort(port), config);
        };
        set(&mut lab, "br0", 1, &watched(Some(bfd.clone()), None, None));
        settle(&mut lab, 1);
        assert!(!is_live(&lab, "br0"));
        set(&mut lab, "br1", 2, &watched(Some(bfd.clone()), None, None));
        settle(&mut lab, 40);
        assert!(is_live(&lab, "br0"));
        assert!(lab.appctl("bfd/show", &["a0"]).starts_with("  Forwarding: true\n"));
        assert_eq!(lab.appctl("bfd/show", &["zz"]), "no such bfd object");
        let status = lab.switch.bridge("br0").unwrap().monitor_status(OfPort(1)).bfd.unwrap();
        assert_eq!((status.state, status.flap_count), (bfd::State::Up, 1));
        // The peer goes; a second look at the link by CFM would keep it, were there one.
        set(&mut lab, "br1", 2, &MonitorConfig::default());
        settle(&mut lab, 20);
        assert!(!is_live(&lab, "br0"));
        assert_eq!(lab.appctl("bfd/set-forwarding", &["a0", "true"]), "OK");
        settle(&mut lab, 1);
        assert!(is_live(&lab, "br0"));
        assert_eq!(lab.appctl("bfd/set-forwarding", &["a0", "maybe"]), "unknown fault string");
        set(&mut lab, "br0", 1, &watched(None, Some(1), None));
        set(&mut lab, "br1", 2, &watched(None, Some(2), None));
        settle(&mut lab, 50);
        assert!(is_live(&lab, "br0"));
        assert!(lab.appctl("cfm/show", &["a0"]).contains("Remote MPID 2\n"));
        assert_eq!(lab.appctl("cfm/set-fault", &["true"]), "OK");
        settle(&mut lab, 1);
        assert!(!is_live(&lab, "br0"));
        set(&mut lab, "br0", 1, &MonitorConfig::default());
        settle(&mut lab, 1);
        assert!(is_live(&lab, "br0"));
        assert_eq!(lab.appctl("cfm/show", &["a0"]), "no such CFM object");
    }

    #[test]
    fn masks_hold_what_was_looked_at() {
        let mut lab = Lab::new().bridge("br0", &[1]);
        let config = watched(Some(bfd::Config::default()), Some(1), Some(true));
        lab.switch.bridge_mut("br0").unwrap().port_set_monitors(OfPort(1), &config);
        let mut tail = |flow: &str| lab.appctl("ofproto/trace", &["br0", flow]);
        let bfd = tail("in_port=1,udp,nw_dst=10.254.1.1,udp_dst=3784");
        assert!(bfd.contains("dl_dst=00:00:00:00:00:00,nw_frag=no,tp_dst=3784\n"), "{bfd}");
        assert!(bfd.ends_with("  - Consists of BFD packets."), "{bfd}");
        let other = tail("in_port=1,udp,nw_dst=10.254.1.1,udp_dst=3785");
        assert!(other.contains("nw_frag=no,tp_dst=0x1/0x1\n"), "{other}");
        let cfm = tail("in_port=1,dl_type=0x8902,dl_dst=01:80:c2:00:00:30");
        assert!(cfm.ends_with("  - Consists of CFM packets."), "{cfm}");
        let lldp = tail("in_port=1,dl_type=0x88cc,dl_dst=01:80:c2:00:00:0e");
        assert!(lldp.ends_with("  - Consists of LLDP packets."), "{lldp}");
    }

    #[test]
    fn services_are_listed_in_the_originals_order() {
        let mut lab = Lab::new().bridge("br0", &[1]);
        let isids = [1000u32, 1001, 7, 50000, 12, 13, 99, 16_777_215, 555, 666];
        let br = lab.switch.bridge_mut("br0").unwrap();
        let mappings = isids.iter().map(|isid| (*isid, 5)).collect();
        br.set_auto_attach(lldp::Config { mappings, ..lldp::Config::default() });
        br.port_set_monitors(OfPort(1), &watched(None, None, Some(true)));
        let text = lab.appctl("autoattach/show-isid", &[]);
        let listed: Vec<&str> = text.lines().skip(3).filter_map(|l| l.split(' ').next()).collect();
        let want = ["13", "666", "99", "1001", "50000", "12", "1000", "555", "7", "16777215"];
        assert_eq!(listed, want);
        assert!(lab.appctl("autoattach/statistics", &[]).starts_with("Statistics: p1\n  tx cnt: 0\n"));
    }
}
