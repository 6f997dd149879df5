//! Rows of the Controller table as `ofproto` wants them, and the addresses that they give the bridge's own port.
//!
//! Sockets of files are accepted where only an administrator can have meant them: to connect to in the run directory, to
//! listen on under the bridge's name there. Otherwise who may write the database could have files overwritten.

use std::net::{Ipv4Addr, SocketAddrV4};

use ib_base::vlog::RateLimit;
use ib_base::{vlog_err_rl, vlog_info};
use ib_netdev::{Flags, Netdev};
use ib_ofproto::config::{ControllerConfig, InBandConfig};
use ib_ofproto::remote_of;
use ib_ovsdb::idl::vswitch::{Bridge, Controller, OpenVSwitch};

use crate::desired::BridgeDesired;
use crate::log::BRIDGE;

/// Port of OVSDB where a manager's target names none.
const OVSDB_PORT: u16 = 6640;
/// `other_config:dscp` by default: Internetwork control.
const DEFAULT_DSCP: u8 = 48;
/// `controller_queue_size` by default, and its largest value.
const DEFAULT_QUEUE: u32 = 100;
const MAX_QUEUE: u32 = 512;

/// An address that a controller's row wants the bridge's own port to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// `local_ip`.
    pub ip: Ipv4Addr,
    /// `local_netmask`, that of the address's class by default.
    pub netmask: Ipv4Addr,
    /// `local_gateway`.
    pub gateway: Option<Ipv4Addr>,
}

/// Addresses of managers that in-band control must let through.
pub(crate) fn managers(root: &OpenVSwitch<'_>) -> Vec<SocketAddrV4> {
    root.manager_options()
        .filter(|m| m.connection_mode() != Some("out-of-band"))
        .filter_map(|m| remote_of(m.target(), OVSDB_PORT))
        .collect()
}

/// Reads a bridge's controllers.
pub(crate) fn read(row: &Bridge<'_>, managers: &[SocketAddrV4], bridge: &mut BridgeDesired) {
    let other = row.other_config();
    let disabled = other.get_bool("disable-in-band", false);
    bridge.in_band = InBandConfig {
        extra: if disabled { Vec::new() } else { managers.to_vec() },
        queue: u32::try_from(other.get_int("in-band-queue", -1)).ok(),
    };
    let queue = other.get_int("controller-queue-size", DEFAULT_QUEUE.into());
    let queue = u32::try_from(queue).ok().filter(|q| *q <= MAX_QUEUE).unwrap_or(DEFAULT_QUEUE);
    let rows: Vec<Controller<'_>> = row.controller().collect();
    if let [only] = rows.as_slice()
        && only.target() == "none"
    {
        return;
    }
    let rundir = ib_sys::dirs::rundir().display().to_string();
    for row in rows {
        if !is_permitted(row.target(), &bridge.name, &rundir) {
            refuse(row.target(), &bridge.name, &rundir);
            continue;
        }
        bridge.local_addresses.extend(local_address(&row));
        bridge.controllers.push(read_controller(&row, !disabled, queue));
    }
}

fn read_controller(row: &Controller<'_>, bridge_in_band: bool, queue: u32) -> ControllerConfig {
    let default = ControllerConfig::default();
    let number =
        |value: Option<i64>, default: u32| value.map_or(default, |v| u32::try_from(v).unwrap_or(default));
    let dscp = row.other_config().get_int("dscp", DEFAULT_DSCP.into());
    ControllerConfig {
        in_band: bridge_in_band && row.connection_mode() != Some("out-of-band"),
        target: row.target().to_owned(),
        max_backoff_ms: number(row.max_backoff(), default.max_backoff_ms),
        probe_interval_ms: number(row.inactivity_probe(), default.probe_interval_ms),
        rate_limit: number(row.controller_rate_limit(), 0),
        burst_limit: number(row.controller_burst_limit(), 0),
        queue_size: number(row.controller_queue_size(), queue),
        enable_async_msgs: row.enable_async_messages().unwrap_or(true),
        is_primary: match row.type_() {
            Some("primary") => Some(true),
            Some("service") => Some(false),
            _ => None,
        },
        dscp: u8::try_from(dscp).ok().filter(|v| *v < 64).unwrap_or(DEFAULT_DSCP),
        versions: None,
    }
}

fn local_address(row: &Controller<'_>) -> Option<LocalAddress> {
    let ip: Ipv4Addr = row.local_ip()?.parse().ok()?;
    let netmask = row.local_netmask().and_then(|m| m.parse().ok());
    Some(LocalAddress {
        ip,
        netmask: netmask.filter(|m: &Ipv4Addr| !m.is_unspecified()).unwrap_or_else(|| class_netmask(ip)),
        gateway: row.local_gateway().and_then(|g| g.parse().ok()).filter(|g: &Ipv4Addr| !g.is_unspecified()),
    })
}

/// The netmask of an address by its class, as before there was CIDR.
fn class_netmask(ip: Ipv4Addr) -> Ipv4Addr {
    match ip.octets()[0] {
        0..=127 => Ipv4Addr::new(255, 0, 0, 0),
        128..=191 => Ipv4Addr::new(255, 255, 0, 0),
        192..=223 => Ipv4Addr::new(255, 255, 255, 0),
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

/// The rest of `path` behind `prefix`, where several slashes are as one.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let mut rest = path;
    for c in prefix.chars() {
        if c == '/' {
            let trimmed = rest.trim_start_matches('/');
            if trimmed.len() == rest.len() {
                return None;
            }
            rest = trimmed;
        } else {
            rest = rest.strip_prefix(c)?;
        }
    }
    Some(rest)
}

fn is_permitted(target: &str, bridge: &str, rundir: &str) -> bool {
    if let Some(path) = target.strip_prefix("punix:") {
        return behind(path, &format!("{rundir}/{bridge}.")).is_some_and(|rest| !rest.contains('/'));
    }
    match target.strip_prefix("unix:") {
        Some(path) => !path.contains('/') || behind(path, &format!("{rundir}/")).is_some(),
        None => true,
    }
}

fn refuse(target: &str, bridge: &str, rundir: &str) {
    static LIMIT: RateLimit = RateLimit::new(1, 5);
    let open = format!(
        "connect to \"unix:{rundir}/{bridge}.mgmt\" (which is always available without special configuration)."
    );
    if target.starts_with("punix:") {
        vlog_err_rl!(
            BRIDGE,
            LIMIT,
            "bridge {bridge}: Not adding Unix domain socket controller \"{target}\" due to possibility of \
             overwriting local files. Instead, specify path in permitted format \"punix:{rundir}/{bridge}.*\" or {open}"
        );
    } else {
        vlog_err_rl!(
            BRIDGE,
            LIMIT,
            "bridge {bridge}: Not connecting to socket controller \"{target}\" due to possibility for remote \
             exploit.  Instead, specify socket in permitted directory \"unix:{rundir}/\" or {open}"
        );
    }
}

/// Gives the bridge's own device an address.
pub(crate) fn configure_local(bridge: &str, dev: &dyn Netdev, wanted: &LocalAddress) {
    let LocalAddress { ip, netmask, gateway } = wanted;
    let _ = dev.update_flags(Flags::NONE, Flags::UP);
    let prefix_len = u8::try_from(netmask.to_bits().leading_ones()).unwrap_or(32);
    if dev.set_address(*ip, prefix_len).is_ok() {
        vlog_info!(BRIDGE, "bridge {bridge}: configured IP address {ip}, netmask {netmask}");
    }
    if let Some(gateway) = gateway
        && dev.add_router(*gateway).is_ok()
    {
        vlog_info!(BRIDGE, "bridge {bridge}: configured gateway {gateway}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_files_are_accepted_where_they_do_no_harm() {
        let check = |target, expect| assert_eq!(is_permitted(target, "br0", "/run/ovs"), expect, "{target}");
        check("tcp:127.0.0.1", true);
        check("unix:controller.sock", true);
        check("unix:a/b", false);
        check("unix:../x", false);
        check("unix:/run/ovs/controller", true);
        check("unix:/run//ovs/controller", true);
        check("unix:/run/./ovs/controller", false);
        check("unix:/tmp/controller", false);
        check("punix:/run/ovs/br0.controller", true);
        check("punix:/run/ovs/br1.controller", false);
        check("punix:/run/ovs/br0.x/../../y", false);
        check("punix:br0.controller", false);
    }

    #[test]
    fn netmasks_follow_from_classes() {
        let check = |ip: &str, mask: &str| {
            assert_eq!(class_netmask(ip.parse().unwrap()).to_string(), mask, "{ip}");
        };
        check("10.6.0.77", "255.0.0.0");
        check("172.16.0.1", "255.255.0.0");
        check("192.168.0.1", "255.255.255.0");
    }
}
