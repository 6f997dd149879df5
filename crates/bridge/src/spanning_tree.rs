//! Spanning tree by the database: which ports take part, under which numbers and costs, and what of it goes back.
//!
//! Numbers matter: they decide between equal paths, and `stp/show` lists them. Either every port has one in the database
//! (`other_config:stp-port-num`), or none has and they are given out in the order in which Open vSwitch's table of
//! ports happens to be, so that ours are the same.

use std::collections::BTreeMap;

use ib_base::vlog_err;
use ib_flow::hash::chain_order;
use ib_netdev::Netdev;
use ib_ofproto::Bridge;
use ib_ofproto::config::StpConfig;
use ib_ofproto::spanning_tree::{StpPortConfig, StpPortStatus};
use ib_ovsdb::idl::vswitch;
use ib_packet::Mac;

use crate::desired::BridgeDesired;
use crate::log::BRIDGE;
use crate::reconfigure::RunningBridge;

/// Most ports.
const MAX_PORTS: usize = 255;

/// `stp_enable` with the settings of a bridge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StpDesired {
    /// `stp-system-id`.
    pub system_id: Option<Mac>,
    /// `stp-priority`.
    pub priority: u16,
    /// `stp-hello-time`, ms.
    pub hello_ms: u64,
    /// `stp-max-age`, ms.
    pub max_age_ms: u64,
    /// `stp-forward-delay`, ms.
    pub forward_delay_ms: u64,
}

/// A port's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PortStpDesired {
    /// `stp-enable` is false.
    pub off: bool,
    /// `stp-port-num`, from 1.
    pub number: Option<i64>,
    /// `stp-path-cost`.
    pub cost: Option<u16>,
    /// `stp-port-priority`.
    pub priority: Option<u8>,
}

/// Reads a bridge's settings.
pub(crate) fn read_bridge(row: &vswitch::Bridge<'_>) -> Option<StpDesired> {
    let other = row.other_config();
    let ms = |key: &str, default: i64| u64::try_from(other.get_int(key, default)).unwrap_or(0) * 1000;
    row.stp_enable().then(|| StpDesired {
        system_id: other.get("stp-system-id").and_then(|v| v.parse().ok()),
        priority: u16::try_from(other.get_int("stp-priority", 0x8000)).unwrap_or(0x8000),
        // The original takes this one for milliseconds, whatever its manual says: what a script sets is the minimum.
        hello_ms: u64::try_from(other.get_int("stp-hello-time", 2000)).unwrap_or(0),
        max_age_ms: ms("stp-max-age", 20),
        forward_delay_ms: ms("stp-forward-delay", 15),
    })
}

/// Reads a port's settings.
pub(crate) fn read_port(row: &vswitch::Port<'_>) -> PortStpDesired {
    let other = row.other_config();
    let number = |key: &str| other.get(key).map(|_| other.get_int(key, 0));
    PortStpDesired {
        off: !other.get_bool("stp-enable", true),
        number: number("stp-port-num"),
        cost: number("stp-path-cost").and_then(|v| u16::try_from(v).ok()),
        priority: number("stp-port-priority").and_then(|v| u8::try_from(v).ok()),
    }
}

/// The hash by which Open vSwitch's table of ports holds a name.
pub(crate) fn name_hash(name: &str) -> u32 {
    ib_flow::hash::bytes(name.as_bytes(), 0)
}

/// Cost of a link by its speed (802.1D-1998, table 8-5); links that do not tell count as 10 Gb/s.
fn cost_of(dev: &dyn Netdev) -> u16 {
    match dev.link_speed().map_or(0, |s| s.current_mbps) {
        0 | 10_000.. => 2,
        1000.. => 4,
        100.. => 19,
        16.. => 62,
        10.. => 100,
        4.. => 250,
        _ => 19,
    }
}

/// Makes a bridge's spanning tree what the database wants.
pub(crate) fn configure(bridge: &mut Bridge, running: &RunningBridge, want: &BridgeDesired) {
    let Some(stp) = want.stp.as_ref().filter(|_| want.rstp.is_none()) else { return bridge.set_stp(None) };
    let name = &want.name;
    let mut chosen: BTreeMap<&str, StpPortConfig> = BTreeMap::new();
    let (mut by_hand, mut by_us) = (0, 0);
    for port in chain_order(running.ports.keys(), |n| name_hash(n)) {
        let (Some(there), Some(wanted)) = (running.ports.get(port), want.ports.get(port)) else { continue };
        let s = wanted.stp;
        let is_mirror_output = want.mirrors.iter().any(|m| m.output_port.as_deref() == Some(port.as_str()));
        let mut ifaces = there.interfaces.values();
        let Some(iface) = ifaces.next().filter(|i| !s.off && i.desired.kind != "internal") else { continue };
        if is_mirror_output {
            continue;
        }
        if ifaces.next().is_some() {
            vlog_err!(BRIDGE, "port {port}: cannot enable STP on bonds, disabling");
            continue;
        }
        let number = match s.number {
            Some(n) => {
                by_hand += 1;
                let number = u8::try_from(n - 1).ok().filter(|n| usize::from(*n) < MAX_PORTS);
                let taken = number.is_some_and(|n| chosen.values().any(|c| c.number == n));
                match number {
                    Some(_) if taken => {
                        vlog_err!(BRIDGE, "port {port}: conflicting STP port number {n}, disabling");
                        continue;
                    }
                    Some(number) => number,
                    None => {
                        vlog_err!(BRIDGE, "port {port}: invalid STP port number {n}, disabling");
                        continue;
                    }
                }
            }
            None => match u8::try_from(by_us).ok().filter(|n| usize::from(*n) < MAX_PORTS) {
                Some(number) => {
                    by_us += 1;
                    number
                }
                None => {
                    vlog_err!(BRIDGE, "port {port}: too many STP ports, disabling");
                    continue;
                }
            },
        };
        let config = StpPortConfig {
            number,
            priority: s.priority.unwrap_or(ib_ofproto::spanning_tree::DEFAULT_PORT_PRIORITY),
            cost: s.cost.unwrap_or_else(|| cost_of(&*iface.dev)),
        };
        chosen.insert(port, config);
    }
    if by_hand > 0 && by_us > 0 {
        vlog_err!(BRIDGE, "bridge {name}: must manually configure all STP port IDs or none, disabling");
        return bridge.set_stp(None);
    }
    bridge.set_stp(Some(StpConfig {
        bridge_id: StpConfig::id(stp.priority, stp.system_id.unwrap_or(running.mac)),
        hello_ms: stp.hello_ms,
        max_age_ms: stp.max_age_ms,
        forward_delay_ms: stp.forward_delay_ms,
    }));
    // Those that give numbers back come first.
    for pass in [false, true] {
        for (port, there) in &running.ports {
            let config = chosen.get(port.as_str()).copied();
            for iface in there.interfaces.values() {
                let known = bridge.ports().find(|p| p.ofport == iface.ofport).and_then(|p| p.stp);
                if pass {
                    bridge.port_set_stp(iface.ofport, config);
                } else if known.map(|k| k.number) != config.map(|c| c.number) {
                    bridge.port_set_stp(iface.ofport, None);
                }
            }
        }
    }
}

/// An identifier as the database has it.
pub(crate) fn id_text(id: u64) -> String {
    format!("{:04x}.{:012x}", id >> 48, id & 0xffff_ffff_ffff)
}

/// A port's `status`.
pub(crate) fn status_map(s: &StpPortStatus) -> BTreeMap<String, String> {
    let pair = |k: &str, v: String| (k.to_owned(), v);
    BTreeMap::from([
        pair("stp_port_id", s.id.to_string()),
        pair("stp_state", s.state.name().to_owned()),
        pair("stp_sec_in_state", s.seconds.to_string()),
        pair("stp_role", s.role.name().to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbered_as_by_open_vswitch() {
        let names = ["br0".to_owned(), "p1".to_owned(), "p2".to_owned()];
        let order: Vec<&String> = chain_order(names.iter(), |n| name_hash(n));
        let ports: Vec<&str> = order.into_iter().map(String::as_str).filter(|n| *n != "br0").collect();
        assert_eq!(ports, ["p2", "p1"]);
    }

    #[test]
    fn identifiers_are_written_with_a_dot() {
        assert_eq!(id_text(0x8000_aa66_aa66_0000), "8000.aa66aa660000");
    }
}
