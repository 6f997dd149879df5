//! Making what runs equal to what the database wants.
//!
//! [`BridgeLayer::follow`] takes in changes of the database and acts on the difference between [`Desired`] and what it
//! built before: first what goes, then what comes, then settings. What fails (a device that is not there) is remembered
//! under the interface's name, shows in its `error` column, and is tried again at the next change of the database or of a device.
//!
//! Where a change touches ports alone only these are looked at; [`BridgeLayer::fresh`] are those whose status the
//! database has yet to hear.
//!
//! Belongs to the main thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ib_base::vlog::module::{DPIF, NETDEV, OFPROTO};
use ib_base::{vlog_err, vlog_info, vlog_warn};
use ib_netdev::qos::Shaping;
use ib_netdev::{Netdev, Registry};
use ib_ofproto::backer::Settings;
use ib_ofproto::config::{ConfigError, MirrorConfig, NetdevStatus, PortConfig};
use ib_ofproto::{Bridge, Switch};
use ib_ovsdb::Uuid;
use ib_ovsdb::idl::{Change, Idl};
use ib_packet::Mac;

use crate::controllers::LocalAddress;
use crate::ct_zones::CtZones;
use crate::desired::{BridgeDesired, Desired, InterfaceDesired, PortDesired, Warnings};
use crate::log::BRIDGE;
use crate::reader::{Reader, Touched};

/// A bridge that runs.
pub(crate) struct RunningBridge {
    /// Its row, but for the ports.
    pub(crate) desired: BridgeDesired,
    pub(crate) ports: BTreeMap<String, RunningPort>,
    /// Addresses of its ports that it may take for its own, with their ports.
    macs: BTreeSet<(Mac, String)>,
    pub(crate) mac: Mac,
    /// See [`crate::mtu`]; bytes.
    pub(crate) smallest_mtu: u32,
    pub(crate) datapath_id: u64,
    /// Addresses that were given to its own port.
    local_addresses: Vec<LocalAddress>,
}

impl RunningBridge {
    /// The row of an interface by name, which mostly is its port's.
    pub(crate) fn interface_row(&self, name: &str) -> Option<Uuid> {
        let own = self.ports.get(name).and_then(|p| p.interfaces.get(name));
        let iface = own.or_else(|| self.ports.values().find_map(|p| p.interfaces.get(name)))?;
        iface.desired.uuid
    }
}

/// A port that runs: at least one of its interfaces does.
pub(crate) struct RunningPort {
    pub(crate) interfaces: BTreeMap<String, RunningInterface>,
    /// What of it is in the bridge's `macs`.
    mac: Option<Mac>,
}

/// Why an interface could not be made, and where it belongs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) uuid: Option<Uuid>,
    pub(crate) why: String,
    /// Only another configuration can help.
    by_config: bool,
    bridge: String,
    port: String,
}

type Failures = BTreeMap<String, Failure>;

/// Ports whose status is news.
pub(crate) enum Fresh {
    /// All of them.
    All,
    /// These: bridge and port.
    Ports(Vec<(String, String)>),
}

/// An interface that is a port of the datapath.
pub(crate) struct RunningInterface {
    pub(crate) desired: InterfaceDesired,
    pub(crate) ofport: ib_flow::OfPort,
    pub(crate) dev: Arc<dyn Netdev>,
    /// [`Netdev::change_seq`] when its columns were last computed; 0 never.
    pub(crate) seen_seq: u64,
    /// The shaping that the datapath was told of; `None`: it was not, or refused.
    told_shaping: Option<Option<Arc<Shaping>>>,
}

/// Bridges as they run, and the switch below them.
pub struct BridgeLayer {
    /// The switch.
    pub switch: Switch,
    pub(crate) registry: Arc<Registry>,
    pub(crate) bridges: BTreeMap<String, RunningBridge>,
    pub(crate) desired: Desired,
    reader: Reader,
    /// Interfaces that could not be made, by name.
    pub(crate) failed: Failures,
    fresh: Fresh,
    /// What each kind of datapath was given for its zones.
    ct_zones: BTreeMap<String, CtZones>,
    /// What the database wants has been applied once.
    configured: bool,
    /// Numbers that interfaces get back which are made again in another datapath.
    kept_numbers: BTreeMap<String, ib_flow::OfPort>,
}

impl BridgeLayer {
    /// Nothing runs yet.
    pub fn new(switch: Switch, registry: Arc<Registry>) -> BridgeLayer {
        BridgeLayer {
            switch,
            registry,
            bridges: BTreeMap::new(),
            desired: Desired::default(),
            reader: Reader::default(),
            failed: Failures::new(),
            fresh: Fresh::All,
            ct_zones: BTreeMap::new(),
            configured: false,
            kept_numbers: BTreeMap::new(),
        }
    }

    /// Whether something could not be made and is worth another try when devices change.
    pub fn has_failures(&self) -> bool {
        self.failed.values().any(|f| !f.by_config)
    }

    /// The `iface_types` column: device kinds that ports may have, dummies as their public names.
    pub fn interface_types(&self) -> Vec<String> {
        let mut kinds = self.registry.kinds();
        kinds.push("internal".into());
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Adds what bridges hold, for `memory/show`.
    pub fn memory_usage(&self, usage: &mut ib_base::memory::Usage) {
        for name in self.bridges.keys() {
            let Some(bridge) = self.switch.bridge(name) else { continue };
            usage.add("ports", bridge.ports().count() as u64);
            usage.add("rules", bridge.of.rule_count());
        }
        self.switch.memory_usage(usage);
    }

    /// Tries again what failed.
    pub fn retry(&mut self) {
        self.apply_all();
    }

    /// Takes in what changed in the database, and makes it so.
    pub fn follow(&mut self, idl: &Idl, changes: &[Change]) -> Warnings {
        let (touched, warnings) = self.reader.update(&mut self.desired, idl, changes);
        match touched {
            Touched::Ports(ports) if self.bridges.len() == self.desired.bridges.len() => {
                self.apply_ports(ports);
            }
            _ => self.apply_all(),
        }
        warnings
    }

    /// Puts bridges whose datapath has died on what has taken its place, if something has. Their tables and connections stay, their
    /// ports are made again under their numbers.
    pub fn attach_again(&mut self) {
        let kinds = self.switch.attach_again();
        if kinds.is_empty() {
            return;
        }
        let together = self.registry.remove_together();
        let of_kind = |b: &RunningBridge| match b.desired.datapath_type.as_str() {
            "" => kinds.iter().any(|k| k == "system"),
            kind => kinds.iter().any(|k| k == kind),
        };
        for (name, running) in self.bridges.iter_mut().filter(|(_, b)| of_kind(b)) {
            let Some(bridge) = self.switch.bridge_mut(name) else { continue };
            let ports = std::mem::take(&mut running.ports);
            for (port_name, port) in &ports {
                for (iface, there) in &port.interfaces {
                    self.kept_numbers.insert(iface.clone(), there.ofport);
                    // The datapath that had the port is gone.
                    let _ = bridge.port_del(there.ofport);
                }
                bridge.bundle_del(port_name);
                offer_mac(running, port_name, None);
            }
            running.local_addresses.clear();
        }
        drop(together);
        self.ct_zones.retain(|kind, _| !kinds.contains(kind));
        self.apply_all();
        self.kept_numbers.clear();
        self.switch.set_configuring(false);
    }

    /// Takes down all bridges, and forgets what the database wants.
    pub fn clear(&mut self) {
        self.reader.forget();
        self.desired = Desired::default();
        self.apply_all();
    }

    /// The ports whose status is news, once.
    pub(crate) fn take_fresh(&mut self) -> Fresh {
        std::mem::replace(&mut self.fresh, Fresh::Ports(Vec::new()))
    }

    /// Has the status of all ports looked at: a device has changed.
    pub fn devices_changed(&mut self) {
        self.fresh = Fresh::All;
    }

    /// Limits and timeouts of connection tracking zones.
    fn configure_zones(&mut self, dpif: &dyn ib_dpif::Dpif, desired: &Desired) {
        let want = desired.ct_zones.get(dpif.kind()).cloned().unwrap_or_default();
        if let Some(table) = dpif.conntrack() {
            let before = self.ct_zones.insert(dpif.kind().to_owned(), want.clone()).unwrap_or_default();
            if before != want {
                crate::ct_zones::apply(table, &before, &want);
                // Flows name the timeouts of their zones.
                self.switch.revalidate_all();
            }
        }
    }

    fn apply_all(&mut self) {
        self.fresh = Fresh::All;
        let desired = std::mem::take(&mut self.desired);
        let failed_before = std::mem::take(&mut self.failed);
        // It is a matter of starting: once over, or not begun, it does not begin again.
        if !self.configured || !desired.flow_restore_wait {
            self.switch.set_restoring(desired.flow_restore_wait);
        }
        if !self.configured {
            self.switch.set_configuring(true);
        }
        self.remove_bridges(&desired);
        for (name, want) in &desired.bridges {
            if !self.bridges.contains_key(name) && !self.add_bridge(want) {
                continue;
            }
            let Some(mut running) = self.bridges.remove(name) else { continue };
            let all: Vec<String> = running.ports.keys().cloned().collect();
            self.remove_ports(&mut running, want, &all);
            self.bridges.insert(name.clone(), running);
        }
        ib_flow::extract::set_vlan_limit(usize::try_from(desired.vlan_limit).unwrap_or_default());
        let other = |key: &str| desired.other_config.get(key);
        let number = |key: &str| other(key).and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
        let mut defaults = Settings::default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        defaults.set_threads(
            number("n-handler-threads"),
            number("n-revalidator-threads"),
            u32::try_from(processors).unwrap_or(u32::MAX),
        );
        self.switch.set_settings(Settings {
            flow_limit: desired.flow_limit,
            max_idle_ms: desired.max_idle_ms,
            max_revalidator_ms: desired.max_revalidator_ms,
            min_revalidate_pps: other("min-revalidate-pps")
                .and_then(|v| v.parse().ok())
                .unwrap_or(defaults.min_revalidate_pps),
            bundle_idle_ms: other("bundle-idle-timeout")
                .and_then(|v| v.parse::<u64>().ok())
                .map_or(defaults.bundle_idle_ms, |s| s.max(1).saturating_mul(1000)),
            explicit_sampled_drops: other("explicit-sampled-drops").is_some_and(|v| v == "true"),
            ..defaults
        });
        let datapaths = self.switch.datapaths();
        // One that is made anew knows of no zone.
        self.ct_zones.retain(|kind, _| datapaths.iter().any(|d| d.kind() == kind));
        for dpif in datapaths {
            dpif.set_config(&desired.other_config);
            self.configure_zones(&*dpif, &desired);
        }
        // Every device that goes is gone before one comes: a port may move between bridges.
        for (name, want) in &desired.bridges {
            let Some(mut running) = self.bridges.remove(name) else { continue };
            let all: Vec<&String> = want.ports.keys().collect();
            self.add_ports(&mut running, want, &all, &failed_before);
            self.configure(&mut running, want);
            self.bridges.insert(name.clone(), running);
        }
        self.desired = desired;
        self.switch.publish();
        if !std::mem::replace(&mut self.configured, true) {
            self.switch.drop_strange_ports();
            self.switch.set_configuring(false);
        }
    }

    /// Makes these ports, and those that failed before, equal to what is wanted.
    fn apply_ports(&mut self, mut touched: BTreeMap<String, BTreeSet<String>>) {
        let failed_before = std::mem::take(&mut self.failed);
        for failure in failed_before.values() {
            touched.entry(failure.bridge.clone()).or_default().insert(failure.port.clone());
        }
        let desired = std::mem::take(&mut self.desired);
        let each = |name: &String| Some((desired.bridges.get(name)?, name.clone()));
        for (want, name) in touched.keys().filter_map(each) {
            let Some(mut running) = self.bridges.remove(&name) else { continue };
            self.remove_ports(&mut running, want, &touched[&name]);
            self.bridges.insert(name, running);
        }
        for (want, name) in touched.keys().filter_map(each) {
            let Some(mut running) = self.bridges.remove(&name) else { continue };
            let ports: Vec<&String> = touched[&name].iter().collect();
            self.add_ports(&mut running, want, &ports, &failed_before);
            self.set_address(&mut running, want);
            if let Some(bridge) = self.switch.bridge_mut(&name) {
                crate::spanning_tree::configure(bridge, &running, want);
                crate::rstp::configure(bridge, &running, want);
            }
            self.bridges.insert(name, running);
        }
        self.desired = desired;
        if let Fresh::Ports(fresh) = &mut self.fresh {
            let of_bridge = |(bridge, ports): (String, BTreeSet<String>)| {
                ports.into_iter().map(move |port| (bridge.clone(), port))
            };
            fresh.extend(touched.into_iter().flat_map(of_bridge));
        }
        self.switch.publish();
    }

    /// Removes everything. With `del` datapath ports and devices that we made go as well.
    pub fn shut_down(&mut self, del: bool) {
        if !del {
            self.registry.keep_devices();
        }
        let _together = self.registry.remove_together();
        self.bridges.clear();
        for name in self.switch.bridge_names() {
            // The name was just listed.
            let _ = self.switch.bridge_del(&name, del);
        }
    }

    fn remove_bridges(&mut self, desired: &Desired) {
        let stays = |name: &str, b: &RunningBridge| {
            desired.bridges.get(name).is_some_and(|w| w.datapath_type == b.desired.datapath_type)
        };
        let gone: Vec<String> =
            self.bridges.iter().filter(|(n, b)| !stays(n, b)).map(|(n, _)| n.clone()).collect();
        let _together = self.registry.remove_together();
        for name in gone {
            if let Some((running, bridge)) = self.bridges.remove(&name).zip(self.switch.bridge_mut(&name)) {
                for (port, there) in &running.ports {
                    bridge.bundle_del(port);
                    for (iface, there) in &there.interfaces {
                        let ofport = there.ofport.0;
                        vlog_info!(BRIDGE, "bridge {name}: deleted interface {iface} on port {ofport}");
                    }
                }
            }
            if let Err(e) = self.switch.bridge_del(&name, true) {
                vlog_warn!(BRIDGE, "failed to delete bridge {name}: {e}");
            }
        }
    }

    fn add_bridge(&mut self, want: &BridgeDesired) -> bool {
        if let Err(e) = self.switch.bridge_add(&want.name, &want.datapath_type) {
            let why = match &e {
                // The text that scripts look for is the system's.
                ConfigError::Unsupported(what) => {
                    vlog_warn!(OFPROTO, "unknown datapath type {}", want.datapath_type);
                    vlog_warn!(OFPROTO, "{what}");
                    "Address family not supported by protocol".to_owned()
                }
                other => other.to_string(),
            };
            vlog_err!(BRIDGE, "failed to create bridge {}: {why}", want.name);
            return false;
        }
        let running = RunningBridge {
            desired: without_ports(want),
            ports: BTreeMap::new(),
            macs: BTreeSet::new(),
            mac: Mac::ZERO,
            smallest_mtu: crate::mtu::DEFAULT,
            datapath_id: 0,
            local_addresses: Vec::new(),
        };
        self.bridges.insert(want.name.clone(), running);
        true
    }

    /// Takes away what of `names` is not wanted any more, or not as it is.
    fn remove_ports<'n>(
        &mut self,
        running: &mut RunningBridge,
        want: &BridgeDesired,
        names: impl IntoIterator<Item = &'n String>,
    ) {
        let _together = self.registry.remove_together();
        let Some(bridge) = self.switch.bridge_mut(&want.name) else { return };
        for port_name in names {
            let Some(port) = running.ports.get_mut(port_name) else { continue };
            let wanted = want.ports.get(port_name);
            port.interfaces.retain(|name, iface| {
                let keep = wanted.and_then(|p| p.interfaces.get(name)).is_some_and(|w| {
                    let renumbered = w.ofport_request.is_some_and(|p| p != iface.ofport)
                        && w.ofport_request != iface.desired.ofport_request;
                    w.kind == iface.desired.kind && !renumbered
                });
                if !keep {
                    remove_interface(bridge, name, iface.ofport);
                }
                keep
            });
            if port.interfaces.is_empty() {
                remove_port(bridge, running, port_name);
            }
        }
    }

    /// Makes those of `names` that are wanted, and what has changed about them.
    fn add_ports(
        &mut self,
        running: &mut RunningBridge,
        want: &BridgeDesired,
        names: &[&String],
        failed_before: &Failures,
    ) {
        let Some(bridge) = self.switch.bridge_mut(&want.name) else { return };
        // Those with a number of their own come first, so that nobody else takes it.
        let mut order: Vec<(&String, &InterfaceDesired)> = numbering_order(want.ports.keys(), names)
            .into_iter()
            .filter_map(|name| Some((name, want.ports.get(name)?)))
            .flat_map(|(name, port)| port.interfaces.values().map(move |i| (name, i)))
            .collect();
        order.sort_by_key(|(_, i)| i.ofport_request.is_none_or(|p| p == ib_flow::OfPort::LOCAL));
        for (port_name, iface) in order {
            let mut note = |refused: Refused| {
                let Refused { why, by_config } = refused;
                let (bridge, port) = (want.name.clone(), port_name.clone());
                let failure = Failure { uuid: iface.uuid, why, by_config, bridge, port };
                note_failure(&mut self.failed, failed_before, &iface.name, failure);
            };
            let present = running.ports.get_mut(port_name).and_then(|p| p.interfaces.get_mut(&iface.name));
            if let Some(there) = present {
                if let Err(refused) = update_interface(bridge, there, iface) {
                    // What its row asks for cannot be, and what there was is wanted no more.
                    if refused.by_config {
                        take_interface(bridge, running, port_name, &iface.name);
                    }
                    note(refused);
                }
                continue;
            }
            match create_interface(&self.registry, bridge, iface, self.kept_numbers.get(&iface.name).copied())
            {
                Ok(made) => {
                    let port = running
                        .ports
                        .entry(port_name.clone())
                        .or_insert_with(|| RunningPort { interfaces: BTreeMap::new(), mac: None });
                    port.interfaces.insert(iface.name.clone(), made);
                }
                Err(why) => note(why),
            }
        }
        for name in names {
            let (Some(port), Some(wanted)) = (running.ports.get_mut(*name), want.ports.get(*name)) else {
                continue;
            };
            let mut bundle = wanted.bundle.clone();
            bundle.ports = port.interfaces.values().map(|i| i.ofport).collect();
            if bundle.lacp.is_some() {
                bundle.lacp_members =
                    crate::bonds::lacp_members(wanted, |name| Some(port.interfaces.get(name)?.ofport));
            }
            // A bond is of the members that there are.
            bundle.bond = bundle.bond.filter(|_| bundle.ports.len() > 1);
            if let Err(e) = bridge.bundle_set(bundle) {
                vlog_warn!(BRIDGE, "bridge {}: port {name}: {e}", want.name);
            }
            // Devices may have changed while they were configured.
            for iface in port.interfaces.values_mut() {
                crate::qos::configure(&*iface.dev, wanted.qos.as_deref(), &iface.desired.policing);
                if iface.told_shaping.as_ref() != Some(&wanted.qos) && bridge.backer.dpif.makes_devices() {
                    iface.told_shaping = Some(wanted.qos.clone());
                    if !configure_datapath_port(bridge, &iface.desired, iface.told_shaping.as_ref()) {
                        // What is shown is what is done; the next change of the port tries again.
                        iface.told_shaping = None;
                        crate::qos::configure(&*iface.dev, None, &iface.desired.policing);
                    }
                }
                bridge.port_netdev(iface.ofport, device_status(&*iface.dev));
            }
            let mac = usable_mac(port, wanted, *name == &want.name);
            offer_mac(running, name, mac);
        }
    }

    /// The bridge's address, which its datapath ID may follow.
    fn set_address(&mut self, running: &mut RunningBridge, want: &BridgeDesired) {
        let Some(bridge) = self.switch.bridge_mut(&want.name) else { return };
        let of_ports = running.macs.first().map(|(mac, _)| *mac);
        let mac = want.hwaddr.or(of_ports).unwrap_or_else(|| default_mac(want.uuid));
        let datapath_id = want.datapath_id.unwrap_or_else(|| mac.to_u64());
        if mac != running.mac {
            running.mac = mac;
            bridge.set_mac(mac);
            set_local_mac(bridge, running, want, mac);
        }
        if datapath_id != running.datapath_id {
            running.datapath_id = datapath_id;
            bridge.set_datapath_id(datapath_id);
            vlog_info!(BRIDGE, "bridge {}: using datapath ID {datapath_id:016x}", want.name);
        }
    }

    /// Settings of a bridge whose ports are in place.
    fn configure(&mut self, running: &mut RunningBridge, want: &BridgeDesired) {
        self.set_address(running, want);
        let restoring = self.switch.is_restoring();
        let Some(bridge) = self.switch.bridge_mut(&want.name) else { return };
        let old = &running.desired;
        bridge.set_desc(want.desc.clone());
        bridge.set_versions(want.versions);
        bridge.set_in_band(want.in_band.clone());
        // What controllers change now would mix with what is being restored.
        bridge.hold_controllers(restoring);
        bridge.set_controllers(&want.controllers);
        bridge.set_fail_mode(want.fail_mode);
        let own = running.ports.get(&want.name).and_then(|p| p.interfaces.get(&want.name));
        if let Some(own) = own.filter(|_| running.local_addresses != want.local_addresses) {
            for address in &want.local_addresses {
                crate::controllers::configure_local(&want.name, &*own.dev, address);
            }
            running.local_addresses.clone_from(&want.local_addresses);
        }
        bridge.set_mac_table(want.mac_aging_s, want.mac_table_size);
        bridge.set_flood_vlans(&want.flood_vlans.iter().copied().collect::<Vec<_>>());
        crate::spanning_tree::configure(bridge, running, want);
        crate::rstp::configure(bridge, running, want);
        bridge.set_mcast_snooping(want.mcast_snooping);
        bridge.set_forward_bpdu(want.forward_bpdu);
        crate::export::configure(bridge, &old.export, &want.export);
        bridge.set_auto_attach(want.auto_attach.clone());
        let touched: BTreeSet<u8> = old.tables.keys().chain(want.tables.keys()).copied().collect();
        for table in touched {
            let config = want.tables.get(&table).cloned().unwrap_or_default();
            // Costs nothing if it is the same; a new bridge has it in both.
            bridge.set_table(table, &config);
        }
        for mirror in &old.mirrors {
            if !want.mirrors.iter().any(|m| m.name == mirror.name) {
                bridge.mirror_del(&mirror.name);
            }
        }
        for mirror in &want.mirrors {
            match possible_mirror(mirror, &want.name, &running.ports) {
                Some(mirror) => {
                    if let Err(e) = bridge.mirror_set(mirror) {
                        vlog_warn!(BRIDGE, "{e}");
                    }
                }
                None => bridge.mirror_del(&mirror.name),
            }
        }
        running.desired = without_ports(want);
    }
}

/// What of a mirror makes sense on its bridge; the rest is logged.
fn possible_mirror(
    mirror: &MirrorConfig,
    bridge: &str,
    ports: &BTreeMap<String, RunningPort>,
) -> Option<MirrorConfig> {
    let of = format!("bridge {bridge}: mirror {}", mirror.name);
    let mut mirror = mirror.clone();
    if let Some(port) = &mirror.output_port {
        if !ports.contains_key(port) {
            vlog_err!(BRIDGE, "{of} outputs to port not on bridge");
            return None;
        }
        if mirror.output_vlan.take().is_some() {
            vlog_err!(BRIDGE, "{of} specifies both output port and output vlan; ignoring output vlan");
        }
    } else if mirror.output_vlan.is_none() {
        vlog_err!(BRIDGE, "{of} does not specify output; ignoring");
        return None;
    }
    if !mirror.select_all {
        for port in mirror.select_src.iter().chain(&mirror.select_dst) {
            if !ports.contains_key(port) {
                vlog_warn!(BRIDGE, "{of} cannot match on nonexistent port {port}");
            }
        }
    }
    Some(mirror)
}

/// The row without its ports.
fn without_ports(want: &BridgeDesired) -> BridgeDesired {
    let mut row = want.clone();
    row.ports.clear();
    row
}

/// Why an interface was refused: the text of its `error` column.
struct Refused {
    why: String,
    by_config: bool,
}

/// Remembers and logs a failure; one that was there before is not logged again.
fn note_failure(failed: &mut Failures, before: &Failures, iface: &str, failure: Failure) {
    let configured = failure.by_config && failure.why.starts_with(iface);
    if !configured && before.get(iface).is_none_or(|old| old.why != failure.why) {
        vlog_warn!(BRIDGE, "{}", failure.why);
    }
    failed.insert(iface.to_owned(), failure);
}

/// Takes an interface out of a port, and the port away with its last one.
fn take_interface(bridge: &mut Bridge, running: &mut RunningBridge, port_name: &str, name: &str) {
    let Some(port) = running.ports.get_mut(port_name) else { return };
    if let Some(iface) = port.interfaces.remove(name) {
        remove_interface(bridge, name, iface.ofport);
    }
    if port.interfaces.is_empty() {
        remove_port(bridge, running, port_name);
    }
}

/// Takes a port away that has no interfaces any more.
fn remove_port(bridge: &mut Bridge, running: &mut RunningBridge, port_name: &str) {
    bridge.bundle_del(port_name);
    offer_mac(running, port_name, None);
    running.ports.remove(port_name);
}

fn remove_interface(bridge: &mut Bridge, name: &str, ofport: ib_flow::OfPort) {
    let of = bridge.of.name.clone();
    match bridge.port_del(ofport) {
        Ok(()) => vlog_info!(BRIDGE, "bridge {of}: deleted interface {name} on port {}", ofport.0),
        Err(e) => vlog_warn!(BRIDGE, "bridge {of}: deleting interface {name} on port {}: {e}", ofport.0),
    }
}

/// The order in which ports that come together get their numbers. In Open vSwitch it is that of a hash table of
/// the names of all ports of the bridge, and so the same each time but where names collide; scripts that add
/// several ports in one transaction know the numbers.
fn numbering_order<'a>(
    all: impl DoubleEndedIterator<Item = &'a String>,
    names: &[&'a String],
) -> Vec<&'a String> {
    if names.len() < 2 {
        return names.to_vec();
    }
    let those: BTreeSet<&String> = names.iter().copied().collect();
    let mut order = ib_flow::hash::chain_order(all.rev(), |name| ib_flow::hash::bytes(name.as_bytes(), 0));
    order.retain(|name| those.contains(name));
    order
}

/// Opens and configures the device, then adds it to the datapath. The error is the row's text.
fn create_interface(
    registry: &Registry,
    bridge: &mut Bridge,
    want: &InterfaceDesired,
    number: Option<ib_flow::OfPort>,
) -> Result<RunningInterface, Refused> {
    let name = &want.name;
    let kind = bridge.device_kind(&want.kind);
    bridge.make_device(name, &kind).map_err(|e| Refused {
        why: format!("could not add network device {name} to ofproto ({e})"),
        by_config: false,
    })?;
    let dev = registry.open(name, &kind).map_err(|e| {
        if let ib_netdev::Error::UnknownKind(kind) = &e {
            vlog_warn!(NETDEV, "could not create netdev {name} of unknown type {kind}");
        }
        Refused { why: format!("could not open network device {name} ({e})"), by_config: false }
    })?;
    configure_device(&*dev, want)?;
    let config = PortConfig {
        name: name.clone(),
        kind: want.kind.clone(),
        ofport_request: number.or(want.ofport_request),
        options: want.options.clone(),
        tunnel: dev.is_tunnel(),
        netdev: device_status(&*dev),
    };
    let ofport = bridge.port_add(config).map_err(|e| {
        let why = match &e {
            ConfigError::Datapath(ib_dpif::DpifError::Os(errno, _)) => {
                let why = ib_base::errno::strerror_num(*errno);
                // A tunnel like another has its message, and did not come to the datapath.
                if *errno != 17 || !dev.is_tunnel() {
                    let datapath = bridge.backer.dpif.full_name();
                    vlog_warn!(DPIF, "{datapath}: failed to add {name} as port: {why}");
                }
                why
            }
            other => other.to_string(),
        };
        // The same tunnel twice.
        let by_config = matches!(e, ConfigError::Datapath(ib_dpif::DpifError::Os(17, _)));
        Refused { why: format!("could not add network device {name} to ofproto ({why})"), by_config }
    })?;
    vlog_info!(BRIDGE, "bridge {}: added interface {name} on port {}", bridge.of.name, ofport.0);
    configure_datapath_port(bridge, want, None);
    bridge.port_set_monitors(ofport, &want.monitors);
    Ok(RunningInterface { desired: want.clone(), ofport, dev, seen_seq: 0, told_shaping: None })
}

/// Applies changed columns to an interface that runs.
fn update_interface(
    bridge: &mut Bridge,
    there: &mut RunningInterface,
    want: &InterfaceDesired,
) -> Result<(), Refused> {
    if there.desired == *want {
        return Ok(());
    }
    if there.desired.options != want.options
        || there.desired.mac != want.mac
        || there.desired.mtu_request != want.mtu_request
    {
        configure_device(&*there.dev, want)?;
        bridge.port_options(there.ofport, want.options.clone());
    }
    if (&there.desired.datapath_config, &there.desired.policing) != (&want.datapath_config, &want.policing) {
        configure_datapath_port(bridge, want, there.told_shaping.as_ref());
    }
    bridge.port_set_monitors(there.ofport, &want.monitors);
    there.desired = want.clone();
    there.seen_seq = 0;
    Ok(())
}

/// Hands an interface's settings to the datapath; whether it takes them. What it refuses is the log's matter: the port works
/// without.
fn configure_datapath_port(
    bridge: &Bridge,
    want: &InterfaceDesired,
    shaping: Option<&Option<Arc<Shaping>>>,
) -> bool {
    let dpif = &bridge.backer.dpif;
    let Some(port) = dpif.port_by_name(&want.name) else { return true };
    let mut settings = want.datapath_config.clone();
    if dpif.makes_devices() {
        // The device that polices and shapes is the datapath's.
        // Without a word of shaping it stays as it is, which may be as the switch before us left it.
        if let Some(shaping) = shaping {
            shaping.as_deref().unwrap_or(&Shaping::default()).put(&mut settings);
        }
        let p = &want.policing;
        let values = [p.rate_kbps, p.burst_kb, p.rate_kpps, p.burst_kpkts].map(|v| v.to_string());
        settings.insert(ib_netdev::qos::POLICING_KEY.to_owned(), values.join(" "));
    }
    let taken = dpif.port_set_config(port.number, &settings);
    if let Err(e) = &taken {
        let why = ib_base::errno::strerror_num(e.errno());
        vlog_warn!(DPIF, "{}: port_set_config failed ({why})", dpif.full_name());
    }
    taken.is_ok()
}

fn configure_device(dev: &dyn Netdev, want: &InterfaceDesired) -> Result<(), Refused> {
    dev.set_config(&want.options).map_err(|e| {
        let (name, why) = (&want.name, e.to_string());
        // The texts of the original's layers below ours.
        let summary = format!("{name}: could not set configuration ({})", strerror_of(&why, &e));
        if why != summary {
            let module = &ib_base::vlog::module::NETDEV_VPORT;
            if want.kind == "patch" {
                vlog_err!(module, "{why}");
            } else {
                vlog_warn!(module, "{why}");
            }
        }
        vlog_warn!(NETDEV, "{summary}");
        Refused { why, by_config: true }
    })?;
    // Other devices have theirs from elsewhere.
    if let Some(mac) = want.mac.filter(|_| want.kind == "internal")
        && dev.mac().is_ok_and(|m| m != mac)
        && let Err(e) = dev.set_mac(mac)
    {
        vlog_err!(BRIDGE, "interface {}: setting MAC failed ({e})", want.name);
    }
    if let Some(mtu) = want.mtu_request
        && dev.mtu().is_ok_and(|m| m != mtu)
        && let Err(e) = dev.set_mtu(mtu)
    {
        vlog_warn!(NETDEV, "failed to set MTU for network device {}: {e}", want.name);
    }
    Ok(())
}

/// The system's word for a refused configuration: a conflict with another device is no invalid value.
fn strerror_of(why: &str, e: &ib_netdev::Error) -> String {
    let errno = if why.ends_with("on the same dst_port") { 17 } else { e.errno() };
    ib_base::errno::strerror_num(errno)
}

/// What OpenFlow shows of a device.
pub(crate) fn device_status(dev: &dyn Netdev) -> NetdevStatus {
    let up = dev.flags().is_ok_and(|f| f.contains(ib_netdev::Flags::UP));
    let speed = dev.link_speed().unwrap_or_default();
    let carrier = dev.carrier();
    NetdevStatus {
        mac: dev.mac().unwrap_or_default(),
        admin_down: !up,
        link_down: !carrier.up,
        carrier_resets: carrier.resets,
        mtu: dev.mtu().unwrap_or(0),
        features: [speed.current, speed.advertised, speed.supported, speed.peer],
        speed_kbps: [speed.current_mbps.saturating_mul(1000), speed.max_mbps.saturating_mul(1000)],
        ifindex: dev.ifindex().and_then(|i| u32::try_from(i).ok()).unwrap_or(0),
    }
}

/// The address of a port that the bridge may take for its own: the bridge takes the lowest globally unique one among its
/// ports; without any, one made from the row's UUID, which stays the same over restarts.
fn usable_mac(port: &RunningPort, want: &PortDesired, is_local: bool) -> Option<Mac> {
    if is_local {
        return None;
    }
    let first = port.interfaces.values().next()?;
    let internal = first.desired.kind == "internal" || first.desired.kind == "patch";
    let of_device = || if internal { None } else { first.dev.mac().ok() };
    let local_bit = |m: &Mac| m.0[0] & 2 != 0;
    let usable = |m: &Mac| !m.is_multicast() && !m.is_zero() && !m.is_reserved() && !local_bit(m);
    want.mac.or_else(of_device).filter(usable)
}

/// Replaces what a port offers the bridge as its address.
fn offer_mac(running: &mut RunningBridge, name: &str, mac: Option<Mac>) {
    let Some(port) = running.ports.get_mut(name) else { return };
    if let Some(old) = std::mem::replace(&mut port.mac, mac)
        && Some(old) != mac
    {
        running.macs.remove(&(old, name.to_owned()));
    }
    if let Some(mac) = mac {
        running.macs.insert((mac, name.to_owned()));
    }
}

/// Made from the first bytes of the row's UUID as the original lays them out, unicast and locally
/// administered.
fn default_mac(uuid: Uuid) -> Mac {
    let b = uuid.as_u128().to_be_bytes();
    Mac([b[3] & !1 | 2, b[2], b[1], b[0], b[7], b[6]])
}

/// Gives the bridge's own device the bridge's address.
fn set_local_mac(bridge: &mut Bridge, running: &RunningBridge, want: &BridgeDesired, mac: Mac) {
    let own = running.ports.get(&want.name).and_then(|p| p.interfaces.get(&want.name));
    let Some(local) = own else { return };
    if let Err(e) = local.dev.set_mac(mac) {
        vlog_err!(BRIDGE, "bridge {}: failed to set bridge Ethernet address: {e}", want.name);
    }
    bridge.port_netdev(local.ofport, device_status(&*local.dev));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_the_originals_for_the_same_row() {
        let uuid = Uuid::parse("c2ce629c-9d9a-4f62-b94e-e0c6d17656e8").unwrap();
        assert_eq!(default_mac(uuid).to_string(), "9e:62:ce:c2:62:4f");
    }

    #[test]
    fn ports_of_one_transaction_are_numbered_as_the_original_does() {
        let numbered = |all: &[&str], new: &[&str]| {
            let names = |list: &[&str]| list.iter().map(|n| n.to_string()).collect::<Vec<_>>();
            let (all, new) = (names(all), names(new));
            numbering_order(all.iter(), &new.iter().collect::<Vec<_>>())
                .into_iter()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(numbered(&["br0", "p1", "p2"], &["p1", "p2"]), ["p2", "p1"]);
        let five = ["p1", "p2", "p3", "p4", "p5"];
        assert_eq!(numbered(&["br0", "p1", "p2", "p3", "p4", "p5"], &five), ["p2", "p3", "p5", "p1", "p4"]);
        assert_eq!(numbered(&["br0", "p1", "p2"], &["p1"]), ["p1"]);
    }
}
