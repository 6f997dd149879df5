//! LACP of a bridge's ports: joins [`ib_l2::lacp`] to bundles, translation and the `lacp/*` commands.
//!
//! A machine is shared: datapath threads hand it the PDUs that come in ([`receive`]), the main thread tells it of members,
//! carriers and time, and sends what it wants sent. Which members may carry traffic becomes part of what makes a port
//! live ([`crate::port::Port::is_live`]); bonds hear of it as of any link.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::OfPort;
use ib_l2::lacp::{ADDRESS, Config, ETHERTYPE, Lacp, MemberConfig};
use ib_openflow::message::PortReason;
use ib_packet::{Mac, Packet};
use parking_lot::Mutex;

use crate::ofproto::Ofproto;
use crate::switch::{Bridge, Switch};
use crate::xcfg::XBundle;
use ib_flow::hash::chain_order;

/// A machine and its lock, which is held for a packet or an update, never across other locks.
pub type SharedLacp = Arc<Mutex<Lacp<OfPort>>>;

/// A port's settings; see `lacp` in ovs-vswitchd.conf.db(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LacpConfig {
    /// Speaks first.
    pub active: bool,
    /// `lacp-system-id`; the bridge's address if `None`.
    pub system_id: Option<Mac>,
    /// `lacp-system-priority`.
    pub system_priority: u16,
    /// `lacp-time` is fast.
    pub fast: bool,
    /// `lacp-fallback-ab`.
    pub fallback_ab: bool,
}

/// An interface's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LacpMember {
    /// Port.
    pub port: OfPort,
    /// `lacp-port-id`; the port's number if `None`.
    pub id: Option<u16>,
    /// `lacp-port-priority`.
    pub priority: u16,
    /// `lacp-aggregation-key`; 0: the bond's.
    pub key: u16,
}

/// Hands a frame to a bundle's machine; called on any thread.
pub(crate) fn receive(of: &Ofproto, bundle: &XBundle, port: OfPort, packet: &Packet) {
    let Some(lacp) = &bundle.lacp else { return };
    let may_enable = lacp.lock().receive(port, payload(packet.data()), of.clock.now());
    if may_enable && let Some(bond) = &bundle.bond {
        bond.lock().link_came(port);
    }
    of.wake();
}

/// What follows the Ethernet type, behind tags if there are any.
pub(crate) fn payload(frame: &[u8]) -> &[u8] {
    let mut rest = frame.get(12..).unwrap_or_default();
    while let [0x81, 0, _, _, inner @ ..] | [0x88, 0xa8, _, _, inner @ ..] = rest {
        rest = inner;
    }
    rest.get(2..).unwrap_or_default()
}

impl Bridge {
    /// Its address: the system id of ports that have none of their own.
    pub fn set_mac(&mut self, mac: Mac) {
        if self.mac != mac {
            self.mac = mac;
            self.touch();
        }
    }

    /// Makes the machines those of the bundles, with the members that there are.
    pub(crate) fn configure_lacp(&mut self) {
        let now = self.of.clock.now();
        let bundles = &mut self.bundles;
        let hash = |name: &String| ib_flow::hash::bytes(name.as_bytes(), 0);
        let names: Vec<String> = chain_order(bundles.bundles.keys(), hash).into_iter().cloned().collect();
        for name in names {
            let Some((_, config)) = bundles.bundles.get(&name) else { continue };
            let Some(wanted) = config.lacp else {
                self.lacp_seq += u64::from(bundles.lacps.remove(&name).is_some());
                continue;
            };
            let settings = Config {
                active: wanted.active,
                system_id: wanted.system_id.unwrap_or(self.mac),
                system_priority: wanted.system_priority,
                fast: wanted.fast,
                fallback_ab: wanted.fallback_ab,
            };
            let members: Vec<MemberConfig<OfPort>> = config
                .lacp_members
                .iter()
                .filter_map(|m| Some((m, self.ports.get(&m.port)?)))
                .map(|(m, port)| MemberConfig {
                    port: m.port,
                    name: port.config.name.clone(),
                    id: m.id.unwrap_or(m.port.0),
                    priority: m.priority,
                    key: m.key,
                })
                .collect();
            let lacp = bundles.lacps.entry(name.clone()).or_insert_with(|| {
                let seq = bundles.lacp_seq;
                bundles.lacp_seq += 1;
                (seq, Arc::new(Mutex::new(Lacp::new(&name, settings))))
            });
            let mut lacp = lacp.1.lock();
            lacp.configure(settings);
            lacp.set_members(&members, now);
        }
        // Ports that no machine watches any more are as good as their links.
        let lacps = &bundles.lacps;
        let watched: Vec<OfPort> = (bundles.bundles.iter())
            .filter(|(name, _)| lacps.contains_key(*name))
            .flat_map(|(_, (_, config))| config.ports.iter().copied())
            .collect();
        for port in self.ports.values_mut() {
            let is_watched = watched.contains(&port.ofport);
            if !is_watched {
                port.lacp = None;
            } else if port.lacp.is_none() {
                port.lacp = Some(false);
            }
        }
    }

    /// Does what is due: members come and go, PDUs leave.
    pub(crate) fn run_lacp(&mut self, now: Instant) {
        let machines: Vec<(String, SharedLacp)> =
            self.bundles.lacps.iter().map(|(name, (_, lacp))| (name.clone(), Arc::clone(lacp))).collect();
        for (name, lacp) in machines {
            let ports: Vec<OfPort> =
                self.bundles.bundles.get(&name).map(|(_, b)| b.ports.clone()).unwrap_or_default();
            let mut machine = lacp.lock();
            for port in &ports {
                let Some(port) = self.ports.get_mut(port) else { continue };
                machine.set_carrier(port.ofport, port.has_carrier());
                let resets = port.config.netdev.carrier_resets;
                if std::mem::replace(&mut port.seen_resets, resets) != resets {
                    machine.carrier_changed(port.ofport, port.has_carrier(), now);
                }
            }
            let changed = machine.run(now);
            let pdus = machine.take_pdus();
            let status = machine.status();
            let usable: Vec<(OfPort, bool)> =
                ports.iter().filter(|_| changed).map(|p| (*p, machine.may_enable(*p))).collect();
            drop(machine);
            self.lacp_seq += u64::from(changed);
            if changed && let Some(slot) = self.bundles.bonds.get(&name) {
                slot.bond.lock().set_lacp(status, now);
            }
            for (port, usable) in usable {
                self.set_port_lacp(port, usable);
            }
            for (port, pdu) in pdus {
                let Some(p) = self.ports.get(&port) else { continue };
                let mut frame = ADDRESS.0.to_vec();
                frame.extend(p.config.netdev.mac.0);
                frame.extend(ETHERTYPE.to_be_bytes());
                frame.extend(pdu);
                self.send_frame(port, &frame);
            }
        }
    }

    fn set_port_lacp(&mut self, port: OfPort, usable: bool) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        if p.lacp == Some(usable) {
            return;
        }
        let before = p.description();
        p.lacp = Some(usable);
        let after = p.description();
        if before != after {
            self.connmgr.send_port_status(PortReason::Modify, after);
        }
        self.touch();
    }

    /// When [`Self::run_lacp`] is next needed.
    pub(crate) fn lacp_deadline(&self) -> Option<Instant> {
        self.bundles.lacps.values().filter_map(|(_, lacp)| lacp.lock().deadline()).min()
    }

    /// Changes whenever [`Self::port_lacp_current`] may have.
    pub fn lacp_seq(&self) -> u64 {
        self.lacp_seq
    }

    /// Whether what is known of the partner of a port is true; `None` if it has no LACP.
    pub fn port_lacp_current(&self, port: OfPort) -> Option<bool> {
        let (name, _) = self.bundles.bundles.iter().find(|(_, (_, b))| b.ports.contains(&port))?;
        let (_, lacp) = self.bundles.lacps.get(name)?;
        Some(lacp.lock().is_current(port))
    }
}

/// All machines, or the one of this name, in the order in which they were made.
fn each(switch: &Switch, args: &[&str], text: impl Fn(&Lacp<OfPort>) -> String) -> Result<String, String> {
    let mut all: Vec<_> = switch.bridges.values().flat_map(|b| &b.bundles.lacps).collect();
    all.sort_by_key(|(_, (seq, _))| *seq);
    match args {
        [name, ..] => {
            let found = all.iter().find(|(n, _)| n.as_str() == *name).ok_or("no such lacp object")?;
            Ok(text(&found.1.1.lock()))
        }
        [] => Ok(all.iter().map(|(_, (_, lacp))| text(&lacp.lock())).collect()),
    }
}

pub(crate) fn show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    each(switch, args, Lacp::show)
}

pub(crate) fn show_stats(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    each(switch, args, Lacp::show_stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_behind_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 7, 0x88, 0x09, 1, 2]);
        assert_eq!(payload(&frame), [1, 2]);
        frame.drain(12..16);
        assert_eq!(payload(&frame), [1, 2]);
        assert!(payload(&frame[..13]).is_empty());
    }
}
