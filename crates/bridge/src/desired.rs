//! What the database wants: rows read into plain values that can be compared.
//!
//! [`read`] is pure and total: a row that makes no sense yields a warning and the nearest sensible
//! value, never a failure of its neighbours. Reading is O(rows) and touches neither devices nor datapaths.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;

use ib_base::vlog::module::BRIDGE;
use ib_base::{vlog_err_rl, vlog_warn_rl};
use ib_flow::OfPort;
use ib_netdev::qos::{Policing, Shaping};
use ib_ofproto::config::{
    AutoAttachConfig, BundleConfig, ControllerConfig, DescConfig, FailMode, InBandConfig, McastConfig,
    MirrorConfig, MonitorConfig, PriorityTags, TableConfig, VlanMode,
};
use ib_openflow::message::{Version, Versions};
use ib_ovsdb::Uuid;
use ib_ovsdb::idl::Idl;
use ib_ovsdb::idl::vswitch::{Bridge, FlowTable, Interface, Mirror, OpenVSwitch, Port};
use ib_packet::Mac;

use crate::bonds::{self, LacpInterface};
use crate::controllers::{self, LocalAddress};
use crate::qos;
use crate::rstp::{self, PortRstpDesired, RstpDesired};
use crate::spanning_tree::{self, PortStpDesired, StpDesired};

/// Everything that the database wants of this switch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Bridges by name.
    pub bridges: BTreeMap<String, BridgeDesired>,
    /// `other_config:flow-restore-wait`: keep the datapath's flows until it goes.
    pub flow_restore_wait: bool,
    /// `other_config:stats-update-interval`, ms.
    pub stats_interval_ms: u64,
    /// `other_config:max-idle`, ms.
    pub max_idle_ms: u64,
    /// `other_config:max-revalidator`, ms.
    pub max_revalidator_ms: u64,
    /// `other_config:flow-limit`.
    pub flow_limit: u32,
    /// `other_config:vlan-limit`: tags looked into.
    pub vlan_limit: u32,
    /// `other_config`, whole: datapaths read their settings out of it.
    pub other_config: BTreeMap<String, String>,
    /// Connection tracking zones by datapath type.
    pub ct_zones: BTreeMap<String, crate::ct_zones::CtZones>,
}

/// A row of the Bridge table.
#[derive(Debug, Clone, PartialEq)]
pub struct BridgeDesired {
    /// Row.
    pub uuid: Uuid,
    /// Name.
    pub name: String,
    /// `datapath_type`; `system` if empty.
    pub datapath_type: String,
    /// `fail_mode`.
    pub fail_mode: FailMode,
    /// `other_config:datapath-id`.
    pub datapath_id: Option<u64>,
    /// `other_config:hwaddr`.
    pub hwaddr: Option<Mac>,
    /// OpenFlow versions.
    pub versions: Versions,
    /// Controllers, in the order of their rows.
    pub controllers: Vec<ControllerConfig>,
    /// What in-band control needs beside them.
    pub in_band: InBandConfig,
    /// Addresses that controllers want its own port to have.
    pub local_addresses: Vec<LocalAddress>,
    /// `other_config:mac-aging-time`, seconds.
    pub mac_aging_s: u32,
    /// `other_config:mac-table-size`.
    pub mac_table_size: usize,
    /// `stp_enable` with its settings.
    pub stp: Option<StpDesired>,
    /// `rstp_enable` with its settings.
    pub rstp: Option<RstpDesired>,
    /// `mcast_snooping_enable` with its settings.
    pub mcast_snooping: Option<McastConfig>,
    /// What LLDP tells neighbours.
    pub auto_attach: AutoAttachConfig,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// What it tells collectors.
    pub export: crate::export::ExportDesired,
    /// `flood_vlans`: VLANs without learning.
    pub flood_vlans: BTreeSet<u16>,
    /// `flow_tables`, by number.
    pub tables: BTreeMap<u8, TableConfig>,
    /// Mirrors.
    pub mirrors: Vec<MirrorConfig>,
    /// OpenFlow description strings.
    pub desc: DescConfig,
    /// Ports by name; always has the bridge's own. Shared with what runs.
    pub ports: BTreeMap<String, Arc<PortDesired>>,
}

/// A row of the Port table.
#[derive(Debug, Clone, PartialEq)]
pub struct PortDesired {
    /// Row; `None` for the bridge's own port when the database lacks it.
    pub uuid: Option<Uuid>,
    /// Settings, members still to be filled in.
    pub bundle: BundleConfig,
    /// `mac` column.
    pub mac: Option<Mac>,
    /// Its part in spanning tree.
    pub stp: PortStpDesired,
    /// Its part in rapid spanning tree.
    pub rstp: PortRstpDesired,
    /// `qos` column: shaping of what leaves by it.
    pub qos: Option<Arc<Shaping>>,
    /// Interfaces by name.
    pub interfaces: BTreeMap<String, InterfaceDesired>,
}

/// A row of the Interface table.
#[derive(Debug, Clone, PartialEq)]
pub struct InterfaceDesired {
    /// Row; `None` for the bridge's own interface when the database lacks it.
    pub uuid: Option<Uuid>,
    /// Name.
    pub name: String,
    /// `type`, `internal` for the bridge's own, `system` if empty.
    pub kind: String,
    /// Options of the type.
    pub options: BTreeMap<String, String>,
    /// `ofport_request`, or the number that it had before.
    pub ofport_request: Option<OfPort>,
    /// `mac` column.
    pub mac: Option<Mac>,
    /// `mtu_request` column.
    pub mtu_request: Option<u32>,
    /// Machines that watch its link.
    pub monitors: MonitorConfig,
    /// `ingress_policing_*` columns.
    pub policing: Policing,
    /// What `other_config` has for the datapath.
    pub datapath_config: BTreeMap<String, String>,
    /// What it has for LACP.
    pub lacp: LacpInterface,
}

/// What in the database was not taken as it stands, for the log: texts, and whether each is an error.
#[derive(Debug, Default, PartialEq)]
pub struct Warnings(Vec<(bool, String)>);

impl Warnings {
    pub(crate) fn warn(&mut self, text: String) {
        self.0.push((false, text));
    }
    pub(crate) fn error(&mut self, text: String) {
        self.0.push((true, text));
    }
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Logs them, as often as that is of use.
    pub fn log(&self) {
        for (is_error, text) in &self.0 {
            if *is_error {
                vlog_err_rl!(BRIDGE, (60, 60), "{text}");
            } else {
                vlog_warn_rl!(BRIDGE, (60, 60), "{text}");
            }
        }
    }
}

/// Reads all rows.
pub fn read(idl: &Idl) -> (Desired, Warnings) {
    let mut warnings = Warnings::default();
    let mut desired = Desired::default();
    let Some(root) = OpenVSwitch::first(idl.view()) else { return (desired, warnings) };
    let other = root.other_config();
    let number = |key: &str, default: i64| u64::try_from(other.get_int(key, default)).unwrap_or(0);
    desired.flow_restore_wait = other.get_bool("flow-restore-wait", false);
    desired.stats_interval_ms = number("stats-update-interval", 5000).max(5000);
    desired.max_idle_ms = number("max-idle", 10_000).max(500);
    desired.max_revalidator_ms = number("max-revalidator", 500).max(1);
    desired.flow_limit = u32::try_from(number("flow-limit", 200_000)).unwrap_or(u32::MAX);
    desired.vlan_limit = u32::try_from(number("vlan-limit", 1)).unwrap_or(1);
    desired.other_config = other.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();

    desired.ct_zones = crate::ct_zones::read(idl, &root);

    let managers = controllers::managers(&root);
    let mut taken = BTreeSet::new();
    for row in root.bridges() {
        let name = row.name().to_owned();
        if name.contains('/') {
            // A name with a slash would make its management socket land elsewhere.
            warnings.warn(format!("ignoring bridge with invalid name \"{name}\""));
            continue;
        }
        if desired.bridges.contains_key(&name) {
            warnings.warn(format!("bridge {name} specified twice"));
            continue;
        }
        let bridge = read_bridge(&row, &managers, &mut taken, &mut warnings);
        desired.bridges.insert(name, bridge);
    }
    crate::export::read_collector_sets(idl, desired.bridges.values_mut().map(|b| (b.uuid, &mut b.export)));
    (desired, warnings)
}

impl BridgeDesired {
    /// Whether its datapath is one of user space, by its name.
    pub fn is_userspace(&self) -> bool {
        self.datapath_type != "system"
    }
}

fn read_bridge(
    row: &Bridge<'_>,
    managers: &[SocketAddrV4],
    taken: &mut BTreeSet<String>,
    warnings: &mut Warnings,
) -> BridgeDesired {
    let name = row.name().to_owned();
    let other = row.other_config();
    let datapath_type = match row.datapath_type() {
        "" => "system",
        kind => kind,
    };
    let seconds = |key: &str, default: i64| u32::try_from(other.get_int(key, default)).unwrap_or(0);
    let desc = DescConfig::default();
    let text = |key: &str, default: String| other.get(key).map_or(default, str::to_owned);
    let hwaddr = other.get("hwaddr").and_then(|v| v.parse::<Mac>().ok());
    if let Some(mac) = hwaddr.filter(|m| m.is_multicast()) {
        warnings.error(format!("bridge {name}: cannot set MAC address to multicast address {mac}"));
    }
    let mut bridge = BridgeDesired {
        uuid: row.uuid(),
        datapath_type: datapath_type.to_owned(),
        fail_mode: match row.fail_mode() {
            Some("secure") => FailMode::Secure,
            _ => FailMode::Standalone,
        },
        datapath_id: other.get("datapath-id").and_then(parse_datapath_id),
        hwaddr: hwaddr.filter(|m| usable_mac(*m)),
        versions: read_versions(row.protocols(), warnings),
        controllers: Vec::new(),
        in_band: InBandConfig::default(),
        local_addresses: Vec::new(),
        mac_aging_s: seconds("mac-aging-time", 300).clamp(15, 3600),
        mac_table_size: usize::try_from(other.get_int("mac-table-size", 8192))
            .unwrap_or(0)
            .clamp(10, 1_000_000),
        stp: spanning_tree::read_bridge(row),
        rstp: rstp::read_bridge(row),
        mcast_snooping: row.mcast_snooping_enable().then(|| McastConfig {
            idle_secs: seconds("mcast-snooping-aging-time", 300),
            max_groups: usize::try_from(other.get_int("mcast-snooping-table-size", 2048)).unwrap_or(0),
            flood_unregistered: !other.get_bool("mcast-snooping-disable-flood-unregistered", false),
        }),
        auto_attach: crate::monitor::read_auto_attach(row),
        forward_bpdu: other.get_bool("forward-bpdu", false),
        export: crate::export::read_bridge(row),
        flood_vlans: row.flood_vlans().filter_map(|v| u16::try_from(v).ok()).collect(),
        tables: BTreeMap::new(),
        mirrors: Vec::new(),
        desc: DescConfig {
            dp: text("dp-desc", desc.dp.clone()),
            serial: text("dp-sn", desc.serial.clone()),
            ..desc
        },
        ports: BTreeMap::new(),
        name,
    };
    controllers::read(row, managers, &mut bridge);
    for (number, table) in row.flow_tables() {
        match u8::try_from(number) {
            Ok(n) if n < 254 => {
                for name in table.prefixes() {
                    if let Some(what) = ib_ofproto::config::prefix_complaint(name) {
                        warnings
                            .warn(format!("bridge {}: 'prefixes' with {what} field: {name}", bridge.name));
                    }
                }
                bridge.tables.insert(n, read_table(&table));
            }
            _ => warnings.warn(format!("bridge {}: flow table {number} is out of range", bridge.name)),
        }
    }
    for port in row.ports() {
        read_port(&port, &mut bridge, taken, warnings);
    }
    if !bridge.ports.contains_key(&bridge.name) {
        let own = local_port(&bridge.name);
        taken.insert(bridge.name.clone());
        bridge.ports.insert(bridge.name.clone(), Arc::new(own));
    }
    for mirror in row.mirrors() {
        bridge.mirrors.push(read_mirror(&mirror));
    }
    bridge
}

/// The bridge's own port, for a database that does not have it.
fn local_port(bridge: &str) -> PortDesired {
    let interface = InterfaceDesired {
        uuid: None,
        name: bridge.into(),
        kind: "internal".into(),
        options: BTreeMap::new(),
        ofport_request: Some(OfPort::LOCAL),
        mac: None,
        mtu_request: None,
        monitors: MonitorConfig::default(),
        policing: Policing::default(),
        datapath_config: BTreeMap::new(),
        lacp: LacpInterface::default(),
    };
    PortDesired {
        uuid: None,
        bundle: BundleConfig { name: bridge.into(), ..BundleConfig::default() },
        mac: None,
        stp: PortStpDesired::default(),
        rstp: PortRstpDesired::default(),
        qos: None,
        interfaces: BTreeMap::from([(bridge.to_owned(), interface)]),
    }
}

/// 16 hexadecimal digits (or 12), `0x` allowed; never zero.
fn parse_datapath_id(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = digits.len() == 16 || (text.len() != digits.len() && !digits.is_empty() && digits.len() < 16);
    let all_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || !all_hex {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|v| *v != 0)
}

fn usable_mac(mac: Mac) -> bool {
    !mac.is_multicast() && !mac.is_zero()
}

fn read_versions<'a>(names: impl Iterator<Item = &'a str>, warnings: &mut Warnings) -> Versions {
    let mut versions = Versions(0);
    for name in names {
        match Version::from_name(name) {
            Some(v) => versions.0 |= v.bit(),
            None => warnings.warn(format!("unknown OpenFlow protocol \"{name}\"")),
        }
    }
    if versions.0 == 0 { Versions::ALL } else { versions }
}

fn read_table(row: &FlowTable<'_>) -> TableConfig {
    let prefixes: Vec<String> = row.prefixes().map(str::to_owned).collect();
    TableConfig {
        name: row.name().unwrap_or_default().to_owned(),
        flow_limit: row.flow_limit().and_then(|v| u32::try_from(v).ok()),
        evict: row.overflow_policy() == Some("evict"),
        groups: row.groups().map(str::to_owned).collect(),
        prefixes: if prefixes.is_empty() { None } else { Some(prefixes) },
    }
}

fn read_mirror(row: &Mirror<'_>) -> MirrorConfig {
    let name = |port: Port<'_>| port.name().to_owned();
    MirrorConfig {
        name: row.name().to_owned(),
        select_src: row.select_src_port().map(name).collect(),
        select_dst: row.select_dst_port().map(name).collect(),
        select_all: row.select_all(),
        select_vlans: row.select_vlan().filter_map(|v| u16::try_from(v).ok()).collect(),
        output_port: row.output_port().map(|p| p.name().to_owned()),
        output_vlan: row.output_vlan().and_then(|v| u16::try_from(v).ok()),
        snaplen: row.snaplen().and_then(|v| u16::try_from(v).ok()).unwrap_or(0),
        filter: row.filter().unwrap_or_default().to_owned(),
    }
}

/// Reads a port into its bridge. `taken` are the names of interfaces that other ports have.
pub(crate) fn read_port(
    row: &Port<'_>,
    bridge: &mut BridgeDesired,
    taken: &mut BTreeSet<String>,
    warnings: &mut Warnings,
) {
    let name = row.name().to_owned();
    if bridge.ports.contains_key(&name) {
        warnings.warn(format!("bridge {}: {name} specified twice as bridge port", bridge.name));
        return;
    }
    let mut interfaces = BTreeMap::new();
    for iface in row.interfaces() {
        let iface_name = iface.name().to_owned();
        if !taken.insert(iface_name.clone()) {
            warnings.warn(format!("{iface_name} interface is in multiple ports, ignoring it in port {name}"));
            continue;
        }
        let desired = read_interface(&iface, &bridge.name, warnings);
        interfaces.insert(iface_name, desired);
    }
    if interfaces.is_empty() {
        warnings.warn(format!("port {name} has no interfaces, dropping"));
        return;
    }
    let mut bundle = read_bundle(row, warnings);
    bundle.lacp = bonds::read_lacp(row, interfaces.len(), warnings);
    if interfaces.len() > 1 {
        bundle.bond = Some(bonds::read_bond(row, !bridge.flood_vlans.is_empty(), warnings));
    }
    let mac = row.mac().and_then(|m| m.parse().ok()).filter(|m: &Mac| usable_mac(*m));
    let port = PortDesired {
        uuid: Some(row.uuid()),
        bundle,
        mac,
        stp: spanning_tree::read_port(row),
        rstp: rstp::read_port(row),
        qos: qos::read(row).map(Arc::new),
        interfaces,
    };
    bridge.ports.insert(name, Arc::new(port));
}

fn read_interface(row: &Interface<'_>, bridge: &str, warnings: &mut Warnings) -> InterfaceDesired {
    let name = row.name().to_owned();
    let is_local = name == bridge;
    let kind = match row.type_() {
        _ if is_local => "internal",
        "" => "system",
        kind => kind,
    };
    let request = row.ofport_request().and_then(|v| u16::try_from(v).ok()).map(OfPort);
    let before = row.ofport().and_then(|v| u16::try_from(v).ok()).map(OfPort);
    let ordinary = |p: &OfPort| p.0 != 0 && *p < OfPort::MAX;
    let asked = row.mac().and_then(|m| m.parse::<Mac>().ok());
    let mac = asked.filter(|_| !is_local);
    if is_local && asked.is_some() {
        warnings.error(format!(
            "interface {name}: ignoring mac in Interface record (use Bridge record to set local port's mac)"
        ));
    } else if kind == "internal" && mac.is_some_and(Mac::is_multicast) {
        warnings.error(format!("interface {name}: cannot set MAC to multicast address"));
    }
    InterfaceDesired {
        uuid: Some(row.uuid()),
        kind: kind.to_owned(),
        options: row.options().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        ofport_request: if is_local {
            Some(OfPort::LOCAL)
        } else {
            request.filter(ordinary).or(before.filter(ordinary))
        },
        mac: mac.filter(|m| usable_mac(*m)),
        monitors: crate::monitor::read_interface(row),
        mtu_request: row.mtu_request().and_then(|v| u32::try_from(v).ok()),
        policing: qos::read_policing(row),
        datapath_config: row
            .other_config()
            .iter()
            .filter(|(k, _)| matches!(*k, "pmd-rxq-affinity" | "emc-enable" | "tx-steering"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        lacp: bonds::read_interface(row),
        name,
    }
}

fn read_bundle(row: &Port<'_>, warnings: &mut Warnings) -> BundleConfig {
    let name = row.name().to_owned();
    let vlan = |v: i64| u16::try_from(v).ok().filter(|v| *v < 4096);
    let tag = row.tag().and_then(vlan);
    let mut trunks: Vec<u16> = row.trunks().filter_map(vlan).collect();
    let vlan_mode = match row.vlan_mode() {
        Some("access") => VlanMode::Access,
        Some("native-tagged") => VlanMode::NativeTagged,
        Some("native-untagged") => VlanMode::NativeUntagged,
        Some("dot1q-tunnel") => VlanMode::Dot1qTunnel,
        Some("trunk") => VlanMode::Trunk,
        _ if tag.is_some() => {
            if !trunks.is_empty() {
                warnings.warn(format!("port {name}: ignoring trunks in favor of implicit vlan"));
                trunks.clear();
            }
            VlanMode::Access
        }
        _ => VlanMode::Trunk,
    };
    let other = row.other_config();
    BundleConfig {
        vlan_mode,
        tag,
        trunks,
        cvlans: row.cvlans().filter_map(vlan).collect(),
        qinq_ethtype: if other.get("qinq-ethtype") == Some("802.1q") { 0x8100 } else { 0x88a8 },
        priority_tags: match other.get("priority-tags") {
            Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
            Some("always") => PriorityTags::Always,
            _ => PriorityTags::No,
        },
        protected: row.protected(),
        mcast_flood: other.get_bool("mcast-snooping-flood", false),
        mcast_flood_reports: other.get_bool("mcast-snooping-flood-reports", false),
        name,
        ..BundleConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datapath_ids_are_sixteen_digits_and_not_zero() {
        assert_eq!(parse_datapath_id("00000000000000aa"), Some(0xaa));
        assert_eq!(parse_datapath_id("0x1"), Some(1));
        for bad in ["", "1", "0000000000000000", "zz00000000000000", "0x", "00000000000000000a"] {
            assert_eq!(parse_datapath_id(bad), None, "{bad}");
        }
    }
}
