//! Rapid spanning tree by the database, as [`crate::spanning_tree`] is for the original protocol: which ports take part,
//! with which settings, and what of it goes back.

use std::collections::BTreeMap;

use ib_base::{vlog_err, vlog_warn};
use ib_flow::hash::chain_order;
use ib_netdev::Netdev;
use ib_ofproto::Bridge;
use ib_ofproto::config::RstpConfig;
use ib_ofproto::rstp::{DEFAULT_PORT_PRIORITY, MAX_PORT_NUMBER, PortStatus, RstpPortConfig, RstpStatus};
use ib_ovsdb::idl::vswitch;
use ib_packet::Mac;

use crate::desired::BridgeDesired;
use crate::log::BRIDGE;
use crate::reconfigure::RunningBridge;
use crate::spanning_tree::name_hash;

/// Costs that the standard allows.
const COSTS: std::ops::RangeInclusive<i64> = 1..=200_000_000;

/// `rstp_enable` with the settings of a bridge.
#[derive(Debug, Clone, PartialEq)]
pub struct RstpDesired {
    /// `rstp-address`.
    pub address: Option<String>,
    /// The rest; its address is that of the bridge unless [`Self::address`] says otherwise.
    pub priority: u16,
    /// `rstp-force-protocol-version` is 0.
    pub force_stp: bool,
    /// `rstp-max-age`, seconds.
    pub max_age: u16,
    /// `rstp-forward-delay`, seconds.
    pub forward_delay: u16,
    /// `rstp-transmit-hold-count`.
    pub transmit_hold_count: u16,
}

/// A port's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PortRstpDesired {
    /// `rstp-enable` is false.
    pub off: bool,
    /// `rstp-port-num`.
    pub number: Option<i64>,
    /// `rstp-path-cost`, if it makes sense.
    pub cost: Option<u32>,
    /// `rstp-port-priority`.
    pub priority: Option<u8>,
    /// `rstp-port-admin-edge`.
    pub admin_edge: bool,
    /// `rstp-port-auto-edge` is false.
    pub no_auto_edge: bool,
    /// `rstp-port-mcheck`.
    pub mcheck: bool,
}

/// The low bits of a number that may be anything.
fn low_bits(v: i64) -> u16 {
    u16::try_from(v & 0xffff).unwrap_or(0)
}

/// Reads a bridge's settings.
pub(crate) fn read_bridge(row: &vswitch::Bridge<'_>) -> Option<RstpDesired> {
    let other = row.other_config();
    let number = |key: &str, default: i64| u16::try_from(other.get_int(key, default)).unwrap_or(0);
    row.rstp_enable().then(|| RstpDesired {
        address: other.get("rstp-address").map(str::to_owned),
        priority: low_bits(other.get_int("rstp-priority", 0x8000)),
        force_stp: other.get_int("rstp-force-protocol-version", 2) < 2,
        max_age: number("rstp-max-age", 20),
        forward_delay: number("rstp-forward-delay", 15),
        transmit_hold_count: number("rstp-transmit-hold-count", 6),
    })
}

/// Reads a port's settings.
pub(crate) fn read_port(row: &vswitch::Port<'_>) -> PortRstpDesired {
    let other = row.other_config();
    let number = |key: &str| other.get(key).map(|_| other.get_int(key, 0));
    PortRstpDesired {
        off: !other.get_bool("rstp-enable", true),
        number: number("rstp-port-num"),
        cost: number("rstp-path-cost").filter(|v| COSTS.contains(v)).and_then(|v| u32::try_from(v).ok()),
        priority: number("rstp-port-priority").map(|v| low_bits(v).to_le_bytes()[0]),
        admin_edge: other.get_bool("rstp-port-admin-edge", false),
        no_auto_edge: !other.get_bool("rstp-port-auto-edge", true),
        mcheck: other.get_bool("rstp-port-mcheck", false),
    }
}

/// Cost of a link by its speed (802.1D-2004, table 17-3); links that do not tell count as 10 Gb/s.
fn cost_of(dev: &dyn Netdev) -> u32 {
    match dev.link_speed().map_or(0, |s| s.current_mbps) {
        0 => 2000,
        1_000_000.. => 20,
        100_000.. => 200,
        10_000.. => 2000,
        1000.. => 20_000,
        100.. => 200_000,
        10.. => 2_000_000,
        _ => 20_000_000,
    }
}

/// Makes a bridge's rapid spanning tree what the database wants.
pub(crate) fn configure(bridge: &mut Bridge, running: &RunningBridge, want: &BridgeDesired) {
    let Some(rstp) = &want.rstp else { return bridge.set_rstp(None) };
    let name = &want.name;
    if want.stp.is_some() {
        vlog_warn!(
            BRIDGE,
            "{name}: RSTP and STP are mutually exclusive but both are configured; enabling RSTP"
        );
    }
    let address = match rstp.address.as_deref().map(str::parse::<Mac>) {
        None => running.mac,
        Some(Ok(mac)) => mac,
        Some(Err(_)) => {
            let mac = running.mac;
            vlog_err!(BRIDGE, "bridge {name}: invalid rstp-address, defaulting to {mac}");
            mac
        }
    };
    bridge.set_rstp(Some(RstpConfig {
        bridge_id: RstpConfig::id(rstp.priority, address),
        force_stp: rstp.force_stp,
        max_age: rstp.max_age,
        forward_delay: rstp.forward_delay,
        transmit_hold_count: rstp.transmit_hold_count,
    }));
    let mut chosen = Vec::new();
    for port in chain_order(running.ports.keys(), |n| name_hash(n)) {
        let (Some(there), Some(wanted)) = (running.ports.get(port), want.ports.get(port)) else { continue };
        let config = port_config(there, &wanted.rstp, want, port);
        for iface in there.interfaces.values() {
            match config {
                Some(config) => chosen.push((iface.ofport, config, wanted.rstp.mcheck)),
                None => bridge.port_set_rstp(iface.ofport, None, false),
            }
        }
    }
    for (ofport, config, mcheck) in chosen {
        bridge.port_set_rstp(ofport, Some(config), mcheck);
    }
}

/// How a port takes part, if it does.
fn port_config(
    there: &crate::reconfigure::RunningPort,
    s: &PortRstpDesired,
    want: &BridgeDesired,
    port: &str,
) -> Option<RstpPortConfig> {
    let mut ifaces = there.interfaces.values();
    let iface = ifaces.next().filter(|i| !s.off && i.desired.kind != "internal")?;
    if want.mirrors.iter().any(|m| m.output_port.as_deref() == Some(port)) {
        return None;
    }
    if ifaces.next().is_some() {
        vlog_err!(BRIDGE, "port {port}: cannot enable RSTP on bonds, disabling");
        return None;
    }
    let number = match s.number {
        None => 0,
        Some(n) => match u16::try_from(n).ok().filter(|n| (1..=MAX_PORT_NUMBER).contains(n)) {
            Some(n) => n,
            None => {
                vlog_err!(BRIDGE, "port {port}: invalid rstp-port-num");
                return None;
            }
        },
    };
    Some(RstpPortConfig {
        number,
        priority: s.priority.unwrap_or(DEFAULT_PORT_PRIORITY),
        cost: s.cost.unwrap_or_else(|| cost_of(&*iface.dev)),
        admin_edge: s.admin_edge,
        auto_edge: !s.no_auto_edge,
    })
}

/// An identifier as the database has it: priority, the extension that the standard puts beside it, address.
fn id_text(id: u64) -> String {
    format!("{:x}.{:03x}.{:012x}", id >> 60, id >> 48 & 0xfff, id & 0xffff_ffff_ffff)
}

fn pairs(list: impl IntoIterator<Item = (&'static str, String)>) -> BTreeMap<String, String> {
    list.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// A bridge's `rstp_status`.
pub(crate) fn bridge_status(s: &RstpStatus) -> BTreeMap<String, String> {
    pairs([
        ("rstp_bridge_id", id_text(s.bridge_id)),
        ("rstp_root_id", id_text(s.root.root)),
        ("rstp_root_path_cost", s.root.cost.to_string()),
        ("rstp_designated_id", id_text(s.root.bridge)),
        ("rstp_designated_port_id", format!("{:04x}", s.root.port)),
        ("rstp_bridge_port_id", format!("{:04x}", s.root_port_id)),
    ])
}

/// A port's `rstp_status`.
pub(crate) fn port_status(s: &PortStatus) -> BTreeMap<String, String> {
    pairs([
        ("rstp_port_id", format!("{:04x}", s.id)),
        ("rstp_port_role", s.role.name().to_owned()),
        ("rstp_port_state", s.state.name().to_owned()),
        ("rstp_designated_bridge_id", id_text(s.vector.bridge)),
        ("rstp_designated_port_id", format!("{:04x}", s.vector.port)),
        ("rstp_designated_path_cost", s.vector.cost.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_three_parts() {
        assert_eq!(id_text(0x8000_aa66_aa66_0000), "8.000.aa66aa660000");
        assert_eq!(low_bits(100_000) & 0xf000, 0x8000);
    }
}
