//! Spanning tree on a bridge: joins [`ib_l2::stp`] to ports, translation and the datapath.
//!
//! The machine sits in the bridge's [`crate::ofproto::Ofproto`], for datapath threads hand it the BPDUs that come in
//! ([`receive`]). All else is the main thread's: [`Bridge::run_stp`] lets timers expire, sends what the machine wants
//! sent, and publishes states of ports, by which translation learns and forwards.

use std::fmt::Write;

use ib_base::time::Instant;
use ib_flow::{Flow, OfPort};
pub use ib_l2::stp::DEFAULT_PORT_PRIORITY;
use ib_l2::stp::{Config, Counters, Role, State, Stp};
use ib_openflow::message::PortReason;
use ib_packet::{Mac, Packet};

use crate::ofproto::Ofproto;
use crate::port::Port;
use crate::switch::{Bridge, Switch};

/// Where BPDUs go.
pub const STP_ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
/// IEEE 802.2: spanning tree, unnumbered information.
const LLC: [u8; 3] = [0x42, 0x42, 0x03];

/// A port in the tree, as translation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StpPort {
    /// Its number there.
    pub number: u8,
    /// State.
    pub state: State,
    /// It is [`crate::rstp`]'s, which knows it by its OpenFlow number.
    pub rapid: bool,
}

/// How a port takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StpPortConfig {
    /// Number, from 0.
    pub number: u8,
    /// Priority.
    pub priority: u8,
    /// Cost of the way through it.
    pub cost: u16,
}

/// What the database wants to know of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StpPortStatus {
    /// Identifier.
    pub id: u16,
    /// State.
    pub state: State,
    /// Seconds in it.
    pub seconds: u64,
    /// Role.
    pub role: Role,
    /// Counters.
    pub counters: Counters,
}

/// Whether a packet is a BPDU.
pub fn is_bpdu(flow: &Flow) -> bool {
    flow.dl_dst == STP_ADDRESS && flow.dl_type.get() == 0x05ff
}

/// What is behind a frame's LLC header.
pub(crate) fn bpdu_of(packet: &Packet) -> Option<&[u8]> {
    let (header, rest) = packet.data().split_at_checked(17).filter(|(h, _)| h[14..17] == LLC)?;
    let len = usize::from(u16::from_be_bytes([header[12], header[13]])).saturating_sub(LLC.len());
    Some(rest.get(..len).unwrap_or(rest))
}

/// Hands a frame to a bridge's machine; called on any thread.
pub(crate) fn receive(of: &Ofproto, number: u8, packet: &Packet) {
    let Some(bpdu) = bpdu_of(packet) else { return };
    let now = of.clock.now();
    if let Some(stp) = of.stp.lock().as_mut() {
        stp.receive(number, bpdu, now);
    }
    of.wake();
}

impl Bridge {
    /// Turns spanning tree on, with these settings, or off.
    pub fn set_stp(&mut self, config: Option<Config>) {
        let now = self.of.clock.now();
        let mut stp = self.of.stp.lock();
        match (stp.as_mut(), config) {
            (Some(stp), Some(config)) => stp.configure(config, now),
            (None, None) => {}
            (_, config) => {
                *stp = config.map(|c| Stp::new(c, now));
                drop(stp);
                self.touch();
                if config.is_none() {
                    self.clear_port_states(false);
                }
            }
        }
    }

    /// Lets a port take part or not.
    pub fn port_set_stp(&mut self, port: OfPort, config: Option<StpPortConfig>) {
        let now = self.of.clock.now();
        let old = self.ports.get(&port).and_then(|p| p.stp).filter(|s| !s.rapid);
        let mut machine = self.of.stp.lock();
        let Some(stp) = machine.as_mut() else { return };
        if let Some(old) = old
            && config.is_none_or(|c| c.number != old.number)
        {
            stp.disable(old.number, now);
        }
        let new = config.map(|c| {
            stp.enable(c.number, c.priority, c.cost, now);
            StpPort { number: c.number, state: stp.state(c.number), rapid: false }
        });
        drop(machine);
        if new != old {
            self.set_port_state(port, new);
        }
    }

    /// Ports of the one or the other protocol take no part any more.
    pub(crate) fn clear_port_states(&mut self, rapid: bool) {
        let of_it = self.ports.iter().filter(|(_, p)| p.stp.is_some_and(|s| s.rapid == rapid));
        for n in of_it.map(|(n, _)| *n).collect::<Vec<_>>() {
            self.set_port_state(n, None);
        }
    }

    pub(crate) fn set_port_state(&mut self, port: OfPort, stp: Option<StpPort>) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        if p.stp == stp {
            return;
        }
        p.stp = stp;
        let description = p.description();
        self.connmgr.send_port_status(PortReason::Modify, description);
        self.stp_seq += 1;
        self.touch();
    }

    /// Does what is due.
    pub(crate) fn run_stp(&mut self, now: Instant) {
        let mut machine = self.of.stp.lock();
        let Some(stp) = machine.as_mut() else { return };
        stp.run(now);
        let frames = stp.take_frames();
        let flush = stp.take_flush();
        let mut news = Vec::new();
        if stp.take_changes() {
            self.stp_seq += 1;
            for (n, p) in &self.ports {
                if let Some(StpPort { number, state, rapid: false }) = p.stp
                    && state != stp.state(number)
                {
                    news.push((*n, StpPort { number, state: stp.state(number), rapid: false }));
                }
            }
        }
        drop(machine);
        for (port, stp) in news {
            self.set_port_state(port, Some(stp));
        }
        if flush {
            self.of.ml.write().flush();
            self.of.changed.bump();
        }
        for (number, bpdu) in frames {
            if let Some(port) = self.ports.values().find(|p| p.stp.is_some_and(|s| s.number == number)) {
                self.send_bpdu(port, &bpdu);
            }
        }
    }

    /// Sends a BPDU out of a port.
    pub(crate) fn send_bpdu(&self, port: &Port, bpdu: &[u8]) {
        let mut frame = STP_ADDRESS.0.to_vec();
        frame.extend(port.config.netdev.mac.0);
        frame.extend(u16::try_from(LLC.len() + bpdu.len()).unwrap_or(0).to_be_bytes());
        frame.extend(LLC);
        frame.extend(bpdu);
        self.send_frame(port.ofport, &frame);
    }

    /// When [`Self::run_stp`] is next needed.
    pub(crate) fn stp_deadline(&self) -> Option<Instant> {
        let machine = self.of.stp.lock();
        let stp = machine.as_ref()?;
        if stp.has_news() { Some(Instant::ZERO) } else { stp.deadline() }
    }

    /// Changes whenever the status of the tree may have.
    pub fn stp_seq(&self) -> u64 {
        self.stp_seq
    }

    /// Identifiers of bridge and root, and the cost of the way there; `None` without spanning tree.
    pub fn stp_status(&self) -> Option<(u64, u64, u32)> {
        let stp = self.of.stp.lock();
        stp.as_ref().map(|s| (s.config().bridge_id, s.root_times().bridge_id, s.root_cost()))
    }

    /// Status of a port; `None` if it takes no part.
    pub fn port_stp_status(&self, port: OfPort, now: Instant) -> Option<StpPortStatus> {
        let n = self.ports.get(&port)?.stp.filter(|s| !s.rapid)?.number;
        let machine = self.of.stp.lock();
        let stp = machine.as_ref()?;
        Some(StpPortStatus {
            id: stp.port_id(n),
            state: stp.state(n),
            seconds: stp.seconds_in_state(n, now),
            role: stp.role(n),
            counters: stp.counters(n),
        })
    }
}

fn times(out: &mut String, c: &Config) {
    let mac = Mac::from_u64(c.bridge_id & 0xffff_ffff_ffff);
    let _ = writeln!(out, "  stp-priority  {}", c.bridge_id >> 48);
    let _ = writeln!(out, "  stp-system-id   {mac}");
    let _ = writeln!(out, "  stp-hello-time  {}s", c.hello_ms / 1000);
    let _ = writeln!(out, "  stp-max-age     {}s", c.max_age_ms / 1000);
    let _ = writeln!(out, "  stp-fwd-delay   {}s", c.forward_delay_ms / 1000);
}

/// `stp/show` of one bridge.
fn show_bridge(b: &Bridge) -> Option<String> {
    let machine = b.of.stp.lock();
    let stp = machine.as_ref()?;
    let mut out = format!("---- {} ----\nRoot ID:\n", b.of.name);
    times(&mut out, &stp.root_times());
    let name_of = |n: u8| {
        let port = b.ports.values().find(|p| p.stp.is_some_and(|s| s.number == n));
        port.map_or("?", |p| p.config.name.as_str())
    };
    match stp.root_port() {
        _ if stp.is_root() => out.push_str("  This bridge is the root\n"),
        port => {
            let _ = writeln!(out, "  root-port       {}", port.map_or("?", name_of));
            let _ = writeln!(out, "  root-path-cost  {}", stp.root_cost());
        }
    }
    out.push_str("\nBridge ID:\n");
    times(&mut out, &stp.config());
    out.push_str("\n  Interface  Role       State      Cost  Pri.Nbr \n");
    out.push_str("  ---------- ---------- ---------- ----- -------\n");
    let mut ports: Vec<(u8, &str)> =
        b.ports.values().filter_map(|p| Some((p.stp?.number, p.config.name.as_str()))).collect();
    ports.sort_unstable();
    for (n, name) in ports {
        let id = stp.port_id(n);
        let _ = writeln!(
            out,
            "  {name:<10} {:<10} {:<10} {:<5} {}.{}",
            stp.role(n).name(),
            stp.state(n).name(),
            stp.port_cost(n),
            id >> 8,
            id & 0xff
        );
    }
    out.push('\n');
    Some(out)
}

/// `stp/show [bridge]`.
pub(crate) fn show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    match args.first() {
        Some(name) => {
            switch.bridge(name).and_then(show_bridge).ok_or_else(|| "no such stp object".to_owned())
        }
        None => Ok(switch.bridges.values().filter_map(show_bridge).collect()),
    }
}

/// `stp/tcn [bridge]`.
pub(crate) fn force_change(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let mut any = false;
    for b in switch.bridges.values().filter(|b| args.first().is_none_or(|name| b.of.name == *name)) {
        if let Some(stp) = b.of.stp.lock().as_mut() {
            stp.force_change(now);
            any = true;
        }
    }
    if !args.is_empty() && !any {
        return Err("no such stp object".into());
    }
    for b in switch.bridges.values_mut() {
        b.run_stp(now);
    }
    Ok("OK".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_talk_through_patch_ports() {
        let mut lab = Lab::new().bridge("br0", &[]).bridge("br1", &[]);
        lab.clock.stop();
        for n in 0..2u8 {
            let (a, b) = (format!("a{n}"), format!("b{n}"));
            let numbers = (1 + u16::from(n), 1 + u16::from(n));
            lab = lab.patch(("br0", &a, numbers.0), ("br1", &b, numbers.1));
        }
        for (id, name) in [(1, "br0"), (2, "br1")] {
            let br = lab.switch.bridge_mut(name).unwrap();
            br.set_stp(Some(Config {
                bridge_id: id,
                hello_ms: 2000,
                max_age_ms: 20_000,
                forward_delay_ms: 15_000,
            }));
            for n in 0..2 {
                let config = StpPortConfig { number: n, priority: 128, cost: 2 };
                br.port_set_stp(OfPort(u16::from(n) + 1), Some(config));
            }
        }
        for _ in 0..80 {
            lab.switch.run(lab.clock.now());
            lab.clock.warp(500);
        }
        let now = lab.clock.now();
        let states = |name: &str| {
            let br = lab.switch.bridge(name).unwrap();
            [1, 2].map(|n| br.port_stp_status(OfPort(n), now).unwrap().state)
        };
        assert_eq!(states("br0"), [State::Forwarding; 2]);
        assert_eq!(states("br1"), [State::Forwarding, State::Blocking]);
    }
    use crate::testing::Lab;

    #[test]
    fn states_gate_forwarding() {
        let mut lab = Lab::new().bridge("br0", &[1, 2]).flows("br0", "actions=normal");
        let start = lab.clock.now();
        let br = lab.switch.bridge_mut("br0").unwrap();
        let bridge_id = Config::id(0x8000, Mac([0xaa, 0x66, 0xaa, 0x66, 0, 0]));
        br.set_stp(Some(Config { bridge_id, hello_ms: 2000, max_age_ms: 20_000, forward_delay_ms: 15_000 }));
        for n in 1..=2u8 {
            let config = StpPortConfig { number: n - 1, priority: 128, cost: 2 };
            br.port_set_stp(OfPort(n.into()), Some(config));
        }
        let packet = ["br0", "in_port=1,dl_dst=ff:ff:ff:ff:ff:ff"];
        lab.switch.run(start);
        assert!(lab.trace_tail(&packet).ends_with("Datapath actions: drop"));
        lab.switch.run(start.plus_ms(15_000));
        assert!(lab.appctl("stp/show", &["br0"]).contains("p1         designated learning   2     128.1"));
        assert!(lab.trace_tail(&packet).ends_with("Datapath actions: drop"));
        lab.switch.run(start.plus_ms(30_000));
        assert!(lab.trace_tail(&packet).ends_with("Datapath actions: 100,2"));
        assert_eq!(lab.appctl("stp/tcn", &["nope"]), "no such stp object");
        lab.switch.bridge_mut("br0").unwrap().set_stp(None);
        assert_eq!(lab.appctl("stp/show", &["br0"]), "no such stp object");
    }
}
