//! Rapid spanning tree on a bridge: joins [`ib_l2::rstp`] to ports, translation and the datapath, as
//! [`crate::spanning_tree`] does for the original protocol, with which it shares BPDUs and the gates of ports.
//!
//! The machine knows a port by its OpenFlow number. Datapath threads hand it BPDUs; all else is the main thread's.

use std::fmt::Write;

use ib_base::time::Instant;
use ib_flow::OfPort;
use ib_l2::rstp::{Config, Rstp, State, Times, Vector};
pub use ib_l2::rstp::{
    DEFAULT_PORT_PRIORITY, MAX_PORT_NUMBER, PortConfig as RstpPortConfig, Status as PortStatus,
};
use ib_l2::stp::State as Gate;
use ib_packet::{Mac, Packet};

use crate::ofproto::Ofproto;
use crate::spanning_tree::{StpPort, bpdu_of};
use crate::switch::{Bridge, Switch};
use ib_flow::hash::chain_order;

/// What the database wants to know of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RstpStatus {
    /// Identifier of the bridge.
    pub bridge_id: u64,
    /// Where the root is.
    pub root: Vector,
    /// Identifier of the port that leads there; 0 on the root.
    pub root_port_id: u16,
}

/// Hands a frame to a bridge's machine; called on any thread.
pub(crate) fn receive(of: &Ofproto, port: OfPort, packet: &Packet) {
    let Some(bpdu) = bpdu_of(packet) else { return };
    if let Some(rstp) = of.rstp.lock().as_mut() {
        rstp.receive(port.0, bpdu);
    }
    of.wake();
}

/// A state as the gates of the original protocol have it.
fn gate(state: Option<State>) -> Option<StpPort> {
    let state = match state? {
        State::Discarding => Gate::Listening,
        State::Learning => Gate::Learning,
        State::Forwarding => Gate::Forwarding,
    };
    Some(StpPort { number: 0, state, rapid: true })
}

impl Bridge {
    /// Turns rapid spanning tree on, with these settings, or off.
    pub fn set_rstp(&mut self, config: Option<Config>) {
        let now = self.of.clock.now();
        let mut machine = self.of.rstp.lock();
        match (machine.as_mut(), config) {
            (Some(rstp), Some(config)) => rstp.configure(config),
            (None, None) => {}
            (_, config) => {
                *machine = config.map(|c| {
                    // Times that do not fit leave the standard's.
                    let start = Config { max_age: 20, forward_delay: 15, transmit_hold_count: 6, ..c };
                    let mut rstp = Rstp::new(start, now);
                    rstp.configure(c);
                    rstp
                });
                drop(machine);
                self.stp_seq += 1;
                self.touch();
                if config.is_none() {
                    self.clear_port_states(true);
                }
            }
        }
    }

    /// Lets a port take part or not. `mcheck` asks it to try the rapid protocol again.
    pub fn port_set_rstp(&mut self, port: OfPort, config: Option<RstpPortConfig>, mcheck: bool) {
        let Some(up) = self.ports.get(&port).map(|p| !p.config.netdev.link_down) else { return };
        let mut machine = self.of.rstp.lock();
        let Some(rstp) = machine.as_mut() else { return };
        match config {
            Some(config) => {
                rstp.set_port(port.0, config, up);
                if mcheck {
                    rstp.mcheck(port.0);
                }
            }
            None => rstp.remove_port(port.0),
        }
        let state = gate(rstp.status(port.0).map(|s| s.state));
        drop(machine);
        self.set_port_state(port, state);
    }

    /// A port's link may have changed.
    pub(crate) fn rstp_link(&mut self, port: OfPort, up: bool) {
        if let Some(rstp) = self.of.rstp.lock().as_mut() {
            rstp.set_link(port.0, up);
        }
    }

    /// Does what is due.
    pub(crate) fn run_rstp(&mut self, now: Instant) {
        let mut machine = self.of.rstp.lock();
        let Some(rstp) = machine.as_mut() else { return };
        rstp.run(now);
        let frames = rstp.take_frames();
        let flush = rstp.take_flush();
        let mut news = Vec::new();
        if rstp.take_changes() {
            self.stp_seq += 1;
            let state = |n: &OfPort| gate(rstp.status(n.0).map(|s| s.state));
            news.extend(self.ports.keys().map(|n| (*n, state(n))));
        }
        drop(machine);
        for (port, state) in news {
            self.set_port_state(port, state);
        }
        if !flush.is_empty() {
            let owners = self.bundles.owners();
            let mut ml = self.of.ml.write();
            for bundle in flush.iter().filter_map(|key| owners.get(&OfPort(*key))) {
                ml.flush_port(*bundle);
            }
            drop(ml);
            self.of.changed.bump();
        }
        for (key, bpdu) in frames {
            if let Some(port) = self.ports.get(&OfPort(key)) {
                self.send_bpdu(port, &bpdu);
            }
        }
    }

    /// When [`Self::run_rstp`] is next needed.
    pub(crate) fn rstp_deadline(&self) -> Option<Instant> {
        let machine = self.of.rstp.lock();
        let rstp = machine.as_ref()?;
        Some(if rstp.has_news() { Instant::ZERO } else { rstp.deadline() })
    }

    /// Where the bridge is in the tree; `None` without rapid spanning tree.
    pub fn rstp_status(&self) -> Option<RstpStatus> {
        let machine = self.of.rstp.lock();
        let rstp = machine.as_ref()?;
        let root_port = rstp.root_port().and_then(|key| rstp.status(key));
        Some(RstpStatus {
            bridge_id: rstp.config().bridge_id,
            root: rstp.root(),
            root_port_id: root_port.map_or(0, |p| p.id),
        })
    }

    /// Status of a port; `None` if it takes no part.
    pub fn port_rstp_status(&self, port: OfPort) -> Option<PortStatus> {
        self.of.rstp.lock().as_ref()?.status(port.0)
    }
}

impl Switch {
    /// Changes whenever the status of a spanning tree of either kind may have.
    pub fn trees_seq(&self) -> u64 {
        self.bridges.values().map(Bridge::stp_seq).fold(0, u64::wrapping_add)
    }
}

fn identify(out: &mut String, id: u64, t: &Times) {
    let mac = Mac::from_u64(id & 0xffff_ffff_ffff);
    let _ = writeln!(out, "  stp-priority    {}", id >> 48);
    let _ = writeln!(out, "  stp-system-id   {mac}");
    let _ = writeln!(out, "  stp-hello-time  {}s", t.hello);
    let _ = writeln!(out, "  stp-max-age     {}s", t.max_age);
    let _ = writeln!(out, "  stp-fwd-delay   {}s", t.forward_delay);
}

/// `rstp/show` of one bridge.
fn show_bridge(b: &Bridge) -> Option<String> {
    let machine = b.of.rstp.lock();
    let rstp = machine.as_ref()?;
    let name_of = |key: u16| b.ports.get(&OfPort(key)).map_or("?", |p| p.config.name.as_str());
    let mut out = format!("---- {} ----\nRoot ID:\n", b.of.name);
    identify(&mut out, rstp.root().root, &rstp.root_times());
    match rstp.root_port() {
        Some(port) => {
            let _ = writeln!(out, "  root-port       {}", name_of(port));
            let _ = writeln!(out, "  root-path-cost  {}", rstp.root().cost);
        }
        None => out.push_str("  This bridge is the root\n"),
    }
    out.push_str("\nBridge ID:\n");
    identify(&mut out, rstp.config().bridge_id, &rstp.times());
    out.push_str("\n  Interface  Role       State      Cost     Pri.Nbr \n");
    out.push_str("  ---------- ---------- ---------- -------- -------\n");
    let mut numbers: Vec<(u16, u16)> = rstp.numbers().collect();
    numbers.sort_unstable();
    // The order of Open vSwitch's table of ports, which is by their numbers' hashes.
    for (number, key) in chain_order(numbers.into_iter(), |(n, _)| ib_flow::hash::two_words(n.into(), 0)) {
        let Some(s) = rstp.status(key) else { continue };
        let _ = writeln!(
            out,
            "  {:<10} {:<10} {:<10} {:<8} {}.{number}",
            name_of(key),
            s.role.name(),
            s.state.name(),
            s.cost,
            s.id >> 8 & 0xf0,
        );
    }
    out.push('\n');
    Some(out)
}

/// `rstp/show [bridge]`.
pub(crate) fn show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    match args.first() {
        Some(name) => {
            switch.bridge(name).and_then(show_bridge).ok_or_else(|| "No such RSTP object".to_owned())
        }
        None => Ok(switch.bridges.values().filter_map(show_bridge).collect()),
    }
}

/// `rstp/tcn [bridge]`.
pub(crate) fn force_change(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let mut any = false;
    for b in switch.bridges.values().filter(|b| args.first().is_none_or(|name| b.of.name == *name)) {
        if let Some(rstp) = b.of.rstp.lock().as_mut() {
            rstp.force_change();
            any = true;
        }
    }
    if !args.is_empty() && !any {
        return Err("No such RSTP object".into());
    }
    let now = switch.clock.now();
    for b in switch.bridges.values_mut() {
        b.run_rstp(now);
    }
    Ok("OK".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lab;

    const PORT: RstpPortConfig =
        RstpPortConfig { number: 0, priority: 128, cost: 2000, admin_edge: false, auto_edge: true };

    fn id(n: u8) -> u64 {
        Config::id(0x8000, Mac([0xaa, 0x66, 0xaa, 0x66, 0, n]))
    }

    #[test]
    fn bridges_agree_through_patch_ports() {
        let mut lab = Lab::new().bridge("br0", &[]).bridge("br1", &[]);
        lab.clock.stop();
        for n in 0..2u8 {
            let (a, b) = (format!("a{n}"), format!("b{n}"));
            lab = lab.patch(("br0", &a, 1 + u16::from(n)), ("br1", &b, 1 + u16::from(n)));
        }
        for (n, name) in [(1, "br0"), (2, "br1")] {
            let br = lab.switch.bridge_mut(name).unwrap();
            br.set_rstp(Some(Config { bridge_id: id(n), ..Config::default() }));
            for port in 1..=2 {
                br.port_set_rstp(OfPort(port), Some(PORT), false);
            }
        }
        for _ in 0..12 {
            lab.switch.run(lab.clock.now());
            lab.clock.warp(500);
        }
        let states = |name: &str| {
            let br = lab.switch.bridge(name).unwrap();
            [1, 2].map(|n| br.port_rstp_status(OfPort(n)).unwrap().state)
        };
        assert_eq!(states("br0"), [State::Forwarding; 2]);
        assert_eq!(states("br1"), [State::Forwarding, State::Discarding]);
    }

    #[test]
    fn states_gate_forwarding() {
        let mut lab = Lab::new().bridge("br0", &[1, 2]).flows("br0", "actions=normal");
        let start = lab.clock.now();
        let br = lab.switch.bridge_mut("br0").unwrap();
        br.set_rstp(Some(Config { bridge_id: id(0), ..Config::default() }));
        for n in 1..=2 {
            br.port_set_rstp(OfPort(n), Some(PORT), false);
        }
        let packet = ["br0", "in_port=1,dl_dst=ff:ff:ff:ff:ff:ff"];
        lab.switch.run(start);
        assert!(lab.trace_tail(&packet).ends_with("Datapath actions: drop"));
        assert!(
            lab.appctl("rstp/show", &["br0"]).contains("p1         Designated Discarding 2000     128.1\n")
        );
        lab.switch.run(start.plus_ms(3000));
        assert!(lab.trace_tail(&packet).ends_with("Datapath actions: 100,2"));
        assert_eq!(lab.appctl("rstp/tcn", &["nope"]), "No such RSTP object");
        lab.switch.bridge_mut("br0").unwrap().set_rstp(None);
        assert_eq!(lab.appctl("rstp/show", &["br0"]), "No such RSTP object");
    }
}
