//! Bonds and LACP by the database.

use std::sync::Once;

use ib_base::vlog_warn;
use ib_flow::OfPort;
use ib_ofproto::config::{BondConfig, BondMode, LacpConfig, LacpMember};
use ib_ovsdb::idl::vswitch::{Interface, Port};
use ib_packet::Mac;

use crate::desired::{PortDesired, Warnings};
use crate::log::BRIDGE;

/// An interface's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LacpInterface {
    /// `lacp-port-id`.
    pub id: Option<u16>,
    /// `lacp-port-priority`.
    pub priority: Option<u16>,
    /// `lacp-aggregation-key`.
    pub key: Option<u16>,
}

/// A number of 1 to 65535; others count as absent.
fn word(value: i64) -> Option<u16> {
    u16::try_from(value).ok().filter(|v| *v != 0)
}

/// Reads an interface's settings.
pub(crate) fn read_interface(row: &Interface<'_>) -> LacpInterface {
    let other = row.other_config();
    LacpInterface {
        id: word(other.get_int("lacp-port-id", 0)),
        priority: word(other.get_int("lacp-port-priority", 0)),
        key: word(other.get_int("lacp-aggregation-key", 0)),
    }
}

/// The settings of a port's members, whose numbers `number_of` knows by name.
pub(crate) fn lacp_members(
    port: &PortDesired,
    number_of: impl Fn(&str) -> Option<OfPort>,
) -> Vec<LacpMember> {
    let member = |(name, iface): (&String, &crate::desired::InterfaceDesired)| {
        let LacpInterface { id, priority, key } = iface.lacp;
        Some(LacpMember {
            port: number_of(name)?,
            id,
            priority: priority.unwrap_or(u16::MAX),
            key: key.unwrap_or(0),
        })
    };
    port.interfaces.iter().filter_map(member).collect()
}

/// Reads a port's LACP settings; `None`: it does not take part.
pub(crate) fn read_lacp(row: &Port<'_>, members: usize, warnings: &mut Warnings) -> Option<LacpConfig> {
    let active = match row.lacp() {
        Some("active") => true,
        Some("passive") => false,
        _ => return None,
    };
    let (name, other) = (row.name(), row.other_config());
    let system_id = match other.get("lacp-system-id") {
        None => None,
        Some(text) => match text.parse::<Mac>() {
            Ok(Mac::ZERO) => {
                warnings.warn(format!("port {name}: Invalid zero LACP system ID."));
                return None;
            }
            Ok(mac) => Some(mac),
            Err(_) => {
                warnings.warn(format!("port {name}: LACP system ID ({text}) must be an Ethernet address."));
                return None;
            }
        },
    };
    // The end with the bond decides, if nobody said otherwise.
    let default_priority = if members > 1 { u16::MAX - 1 } else { u16::MAX };
    Some(LacpConfig {
        active,
        system_id,
        system_priority: word(other.get_int("lacp-system-priority", 0)).unwrap_or(default_priority),
        fast: other.get("lacp-time").is_some_and(|v| v.eq_ignore_ascii_case("fast")),
        fallback_ab: other.get_bool("lacp-fallback-ab", false),
    })
}

/// Reads a bond's settings.
pub(crate) fn read_bond(row: &Port<'_>, has_flood_vlans: bool, warnings: &mut Warnings) -> BondConfig {
    let (name, other) = (row.name(), row.other_config());
    let ms = |value: i64| u32::try_from(value).unwrap_or(0);
    let mode = match row.bond_mode() {
        Some("balance-slb") => BondMode::BalanceSlb,
        Some("balance-tcp") => BondMode::BalanceTcp,
        Some(_) => BondMode::ActiveBackup,
        None => {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                vlog_warn!(
                    BRIDGE,
                    "port {name}: Using the default bond_mode active-backup. Note that in previous versions, the \
                     default bond_mode was balance-slb"
                );
            });
            BondMode::ActiveBackup
        }
    };
    if mode == BondMode::BalanceSlb && has_flood_vlans {
        warnings.warn(format!(
            "port {name}: SLB bonds are incompatible with flood_vlans, please use another bond type or disable flood_vlans"
        ));
    }
    if let Some(detect) = other.get("bond-detect-mode").filter(|v| !matches!(*v, "carrier" | "miimon")) {
        warnings.warn(format!("port {name}: unsupported bond-detect-mode {detect}, defaulting to carrier"));
    }
    BondConfig {
        mode,
        basis: u32::try_from(other.get_int("bond-hash-basis", 0)).unwrap_or(0),
        updelay_ms: ms(row.bond_updelay()),
        downdelay_ms: ms(row.bond_downdelay()),
        rebalance_interval_ms: match other.get_int("bond-rebalance-interval", 10_000) {
            0 => 0,
            value => u32::try_from(value).unwrap_or(0).max(1000),
        },
        primary: other.get("bond-primary").map(str::to_owned),
        all_members_active: other.get_bool("all-members-active", false),
        fallback_ab: other.get_bool("lacp-fallback-ab", false),
        lb_output: other.get_bool("lb-output-action", false),
        last_active: row.bond_active_slave().and_then(|mac| mac.parse().ok()),
    }
}
