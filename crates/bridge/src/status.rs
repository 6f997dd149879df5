//! What runs, written back into the database.
//!
//! [`StatusWriter::refresh`] computes columns of what changed since the last call and puts the differences into one
//! transaction; an idle switch makes none. Counters go in every `stats-update-interval`. Where ports alone were
//! configured it looks at these alone; all are looked at when a device has changed, and for counters.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_ofproto::Bridge;
use ib_ovsdb::idl::vswitch::{self as rows, OpenVSwitch};
use ib_ovsdb::idl::{Idl, Txn};
use ib_ovsdb::{Atom, Datum};
use ib_sys::dirs;

use crate::columns::{self, Written};
use crate::reconfigure::{BridgeLayer, Fresh, RunningInterface, device_status};
use crate::rstp;
use crate::spanning_tree::{id_text, status_map};
use crate::system_stats;

/// Remembers what the database was told.
#[derive(Default)]
pub struct StatusWriter {
    written: Written,
    next_stats: Instant,
    /// When the machine's statistics are due, if they are wanted.
    next_system: Option<Instant>,
    /// The process-wide columns of Open_vSwitch are in.
    root_done: bool,
    /// [`Bridge::stp_seq`] of what was written, by bridge.
    stp_seen: BTreeMap<String, u64>,
    /// [`Bridge::lacp_seq`] of what was written, by bridge.
    lacp_seen: BTreeMap<String, u64>,
    /// [`ib_ofproto::Switch::patches_seq`] of what was written.
    patches_seen: u64,
    /// Likewise, of rapid spanning tree.
    rstp_seen: BTreeMap<String, u64>,
    /// The database may know nothing of BFD and CFM.
    monitors_due: bool,
    /// The database may know nothing of any port.
    all_due: bool,
}

impl StatusWriter {
    /// After a failed transaction or a reconnection: everything is to be told again.
    pub fn forget(&mut self) {
        self.written.forget();
        self.root_done = false;
        self.next_system = None;
        self.all_due = true;
        self.monitors_due = true;
        self.patches_seen = 0;
        self.stp_seen.clear();
        self.lacp_seen.clear();
        self.rstp_seen.clear();
    }

    /// When [`Self::refresh`] is next due if nothing happens.
    pub fn deadline(&self) -> Instant {
        self.next_system.map_or(self.next_stats, |at| at.min(self.next_stats))
    }

    /// Puts what the database does not know yet into `txn`.
    pub fn refresh(&mut self, layer: &mut BridgeLayer, idl: &Idl, txn: &mut Txn, now: Instant) {
        let with_stats = now >= self.next_stats;
        if with_stats {
            let ms = layer.desired.stats_interval_ms.max(1000);
            self.next_stats = now + std::time::Duration::from_millis(ms);
        }
        if !self.root_done {
            self.root(layer, idl, txn);
        }
        self.system(layer, idl, txn, now);
        if with_stats || std::mem::take(&mut self.all_due) {
            layer.devices_changed();
        }
        let fresh = layer.take_fresh();
        if !matches!(&fresh, Fresh::Ports(ports) if ports.is_empty()) {
            layer.bridges.values_mut().for_each(crate::mtu::settle);
        }
        match fresh {
            Fresh::All => {
                self.interfaces(layer, idl, txn, with_stats);
                self.written.retain(|uuid| {
                    ["Interface", "Bridge", "Port", "Controller", "Mirror", "Open_vSwitch"]
                        .iter()
                        .any(|t| idl.row(t, uuid).is_some())
                });
            }
            Fresh::Ports(ports) => {
                for (bridge, port) in ports {
                    self.port(layer, idl, txn, &bridge, &port);
                }
            }
        }
        self.patches(layer, idl, txn);
        self.failures(layer, idl, txn);
        self.bridges(layer, idl, txn, now, with_stats);
        self.spanning_trees(layer, idl, txn, now, with_stats);
        self.rapid_spanning_trees(layer, idl, txn, with_stats);
        self.bonds(layer, idl, txn);
        self.lacp(layer, idl, txn);
        self.monitors(layer, idl, txn);
    }

    fn bonds(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn) {
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge(name) else { continue };
            let active: BTreeMap<&str, String> =
                bridge.active_members().map(|(bond, mac)| (bond, mac.to_string())).collect();
            if active.is_empty() {
                continue;
            }
            let Some(row) = rows::Bridge::get(idl.view(), running.desired.uuid) else { continue };
            for port in row.ports() {
                let Some(mac) = active.get(port.name()) else { continue };
                let columns = vec![("bond_active_slave", Datum::scalar(mac.as_str()))];
                self.written.write(idl, txn, "Port", port.uuid(), columns);
            }
        }
    }

    /// BFD and CFM of interfaces where they have changed.
    fn monitors(&mut self, layer: &mut BridgeLayer, idl: &Idl, txn: &mut Txn) {
        let all_due = std::mem::take(&mut self.monitors_due);
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge_mut(name) else { continue };
            let changes = bridge.take_monitor_changes();
            let all = || {
                let ifaces = running.ports.values().flat_map(|p| &p.interfaces);
                ifaces.map(|(name, iface)| (iface.ofport, name.clone())).collect()
            };
            for (port, iface) in if all_due { all() } else { changes } {
                let Some(uuid) = running.interface_row(&iface) else { continue };
                let columns = crate::monitor::columns(&bridge.monitor_status(port));
                self.written.write(idl, txn, "Interface", uuid, columns);
            }
        }
    }

    fn lacp(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn) {
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge(name) else { continue };
            let seq = bridge.lacp_seq();
            if self.lacp_seen.insert(name.clone(), seq).unwrap_or(0) == seq {
                continue;
            }
            for iface in running.ports.values().flat_map(|p| p.interfaces.values()) {
                let Some(uuid) = iface.desired.uuid else { continue };
                let current = columns::optional(bridge.port_lacp_current(iface.ofport));
                self.written.write(idl, txn, "Interface", uuid, vec![("lacp_current", current)]);
            }
        }
        self.lacp_seen.retain(|name, _| layer.bridges.contains_key(name));
    }

    fn spanning_trees(
        &mut self,
        layer: &BridgeLayer,
        idl: &Idl,
        txn: &mut Txn,
        now: Instant,
        with_stats: bool,
    ) {
        let any_news = has_stp_news(layer, &self.stp_seen);
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge(name) else { continue };
            let status = bridge.stp_status();
            let seq = bridge.stp_seq();
            let is_news = self.stp_seen.get(name).copied().unwrap_or(0) != seq;
            if !is_news && (status.is_none() || !(with_stats || any_news)) {
                continue;
            }
            self.stp_seen.insert(name.clone(), seq);
            let of_bridge = status.map_or_else(BTreeMap::new, |(own, root, cost)| {
                BTreeMap::from([
                    ("stp_bridge_id".to_owned(), id_text(own)),
                    ("stp_designated_root".to_owned(), id_text(root)),
                    ("stp_root_path_cost".to_owned(), cost.to_string()),
                ])
            });
            let columns = vec![("status", columns::strings(&of_bridge))];
            self.written.write(idl, txn, "Bridge", running.desired.uuid, columns);
            let Some(row) = rows::Bridge::get(idl.view(), running.desired.uuid) else { continue };
            for port in row.ports() {
                let ofport = running
                    .ports
                    .get(port.name())
                    .and_then(|p| p.interfaces.values().next())
                    .map(|i| i.ofport);
                let status = ofport.and_then(|p| bridge.port_stp_status(p, now));
                let mut columns = vec![("status", Datum::map([])), ("statistics", Datum::map([]))];
                if let Some(s) = status {
                    columns = vec![("status", columns::strings(&status_map(&s)))];
                }
                if let Some(s) = status.filter(|_| with_stats) {
                    let counts = [
                        ("stp_error_count", s.counters.errors),
                        ("stp_rx_count", s.counters.rx),
                        ("stp_tx_count", s.counters.tx),
                    ];
                    columns.push(("statistics", columns::counters(&counts)));
                }
                self.written.write(idl, txn, "Port", port.uuid(), columns);
            }
        }
    }

    fn rapid_spanning_trees(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn, with_stats: bool) {
        let any_news = has_stp_news(layer, &self.rstp_seen);
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge(name) else { continue };
            let status = bridge.rstp_status();
            let seq = bridge.stp_seq();
            let is_news = self.rstp_seen.get(name).copied().unwrap_or(0) != seq;
            if !is_news && (status.is_none() || !(with_stats || any_news)) {
                continue;
            }
            self.rstp_seen.insert(name.clone(), seq);
            let of_bridge = status.map_or_else(BTreeMap::new, |s| rstp::bridge_status(&s));
            let columns = vec![("rstp_status", columns::strings(&of_bridge))];
            self.written.write(idl, txn, "Bridge", running.desired.uuid, columns);
            let Some(row) = rows::Bridge::get(idl.view(), running.desired.uuid) else { continue };
            for port in row.ports() {
                let ofport = running
                    .ports
                    .get(port.name())
                    .and_then(|p| p.interfaces.values().next())
                    .map(|i| i.ofport);
                let status = ofport.and_then(|p| bridge.port_rstp_status(p));
                let of_port = status.map_or_else(BTreeMap::new, |s| rstp::port_status(&s));
                let mut columns = vec![("rstp_status", columns::strings(&of_port))];
                if status.is_none() {
                    columns.push(("rstp_statistics", Datum::map([])));
                }
                if let Some(s) = status.filter(|_| with_stats) {
                    let counts = [
                        ("rstp_error_count", s.counters.errors),
                        ("rstp_rx_count", s.counters.rx),
                        ("rstp_tx_count", s.counters.tx),
                        ("rstp_uptime", s.counters.uptime),
                    ];
                    columns.push(("rstp_statistics", columns::counters(&counts)));
                }
                self.written.write(idl, txn, "Port", port.uuid(), columns);
            }
        }
    }

    fn root(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn) {
        let Some(root) = OpenVSwitch::first(idl.view()) else { return };
        let set = |names: Vec<String>| Datum::set(names.into_iter().map(Atom::from));
        let kinds = layer.switch.datapath_kinds();
        let root_columns = vec![
            ("iface_types", set(layer.interface_types())),
            ("datapath_types", set(kinds)),
            ("dpdk_initialized", Datum::scalar(false)),
            ("dpdk_version", Datum::scalar("none")),
        ];
        self.written.write(idl, txn, "Open_vSwitch", root.uuid(), root_columns);
        self.root_done = true;
    }

    /// The machine's statistics: at once when they are wanted, then periodically; none when they are not.
    fn system(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn, now: Instant) {
        let is_wanted = layer.desired.other_config.get("enable-statistics").is_some_and(|v| v == "true");
        if is_wanted && self.next_system.is_some_and(|due| now < due) {
            return;
        }
        let Some(root) = OpenVSwitch::first(idl.view()) else { return };
        self.next_system = is_wanted.then(|| now + system_stats::INTERVAL);
        let found = if is_wanted { system_stats::collect(&dirs::rundir()) } else { BTreeMap::new() };
        self.written.write(
            idl,
            txn,
            "Open_vSwitch",
            root.uuid(),
            vec![("statistics", columns::strings(&found))],
        );
    }

    fn interfaces(&mut self, layer: &mut BridgeLayer, idl: &Idl, txn: &mut Txn, with_stats: bool) {
        for (name, running) in &mut layer.bridges {
            let Some(bridge) = layer.switch.bridge_mut(name) else { continue };
            let of_userspace = running.desired.is_userspace();
            for (iface_name, iface) in running.ports.values_mut().flat_map(|p| p.interfaces.iter_mut()) {
                let why = layer.failed.get(iface_name).map(|f| f.why.as_str());
                self.interface(bridge, iface, of_userspace, why, idl, txn);
                let Some(uuid) = iface.desired.uuid.filter(|_| with_stats) else { continue };
                let stats = vec![("statistics", statistics(bridge, iface))];
                self.written.write(idl, txn, "Interface", uuid, stats);
            }
        }
    }

    /// One port, if it runs.
    fn port(&mut self, layer: &mut BridgeLayer, idl: &Idl, txn: &mut Txn, bridge: &str, port: &str) {
        let Some(running) = layer.bridges.get_mut(bridge) else { return };
        let of_userspace = running.desired.is_userspace();
        let (Some(running), Some(bridge)) = (running.ports.get_mut(port), layer.switch.bridge_mut(bridge))
        else {
            return;
        };
        for (name, iface) in &mut running.interfaces {
            let why = layer.failed.get(name).map(|f| f.why.as_str());
            self.interface(bridge, iface, of_userspace, why, idl, txn);
        }
    }

    /// One interface, if its device has changed.
    fn interface(
        &mut self,
        bridge: &mut Bridge,
        iface: &mut RunningInterface,
        of_userspace: bool,
        why: Option<&str>,
        idl: &Idl,
        txn: &mut Txn,
    ) {
        let Some(uuid) = iface.desired.uuid else { return };
        let seq = iface.dev.change_seq();
        if seq == iface.seen_seq {
            return;
        }
        let is_new = iface.seen_seq == 0;
        iface.seen_seq = seq;
        bridge.port_netdev(iface.ofport, device_status(&*iface.dev));
        let mut columns = columns::of_device(&*iface.dev, iface.ofport.0, of_userspace);
        if why.is_some() || iface.desired.kind == "patch" {
            columns.retain(|(c, _)| *c != "error");
        }
        if why.is_some() {
            columns.push(columns::error(why));
        }
        if is_new {
            columns.extend(crate::monitor::columns(&bridge.monitor_status(iface.ofport)));
            columns.push(("statistics", statistics(bridge, iface)));
        }
        self.written.write(idl, txn, "Interface", uuid, columns);
    }

    /// Patch ports that lead nowhere, where any port has changed: a peer's row knows nothing of it.
    fn patches(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn) {
        let seq = layer.switch.patches_seq();
        if seq == self.patches_seen {
            return;
        }
        self.patches_seen = seq;
        for (bridge, name, why) in layer.switch.patch_ports() {
            let Some(running) = layer.bridges.get(&bridge).filter(|_| !layer.failed.contains_key(&name))
            else {
                continue;
            };
            let Some(uuid) = running.interface_row(&name) else { continue };
            self.written.write(idl, txn, "Interface", uuid, vec![columns::error(why.as_deref())]);
        }
    }

    fn failures(&mut self, layer: &BridgeLayer, idl: &Idl, txn: &mut Txn) {
        for (name, failure) in &layer.failed {
            let runs =
                || layer.bridges.values().any(|b| b.ports.values().any(|p| p.interfaces.contains_key(name)));
            if let Some(uuid) = failure.uuid
                && !runs()
            {
                self.written.write(idl, txn, "Interface", uuid, columns::failed(&failure.why));
            }
        }
    }

    fn bridges(&mut self, layer: &mut BridgeLayer, idl: &Idl, txn: &mut Txn, now: Instant, with_stats: bool) {
        for (name, running) in &layer.bridges {
            let Some(bridge) = layer.switch.bridge(name) else { continue };
            let columns = vec![
                ("datapath_id", Datum::scalar(format!("{:016x}", running.datapath_id))),
                ("datapath_version", Datum::scalar(bridge.backer.dpif.version())),
            ];
            self.written.write(idl, txn, "Bridge", running.desired.uuid, columns);
            let Some(row) = rows::Bridge::get(idl.view(), running.desired.uuid) else { continue };
            let known = bridge.controllers(now);
            for controller in row.controller() {
                let status = known.iter().find(|c| c.target == controller.target());
                let columns = match status {
                    Some(c) => vec![
                        ("is_connected", Datum::scalar(c.is_connected)),
                        ("role", columns::optional(Some(c.role).filter(|role| !role.is_empty()))),
                        ("status", columns::strings(&c.status)),
                    ],
                    None => vec![
                        ("is_connected", Datum::scalar(false)),
                        ("role", columns::none()),
                        ("status", Datum::map([])),
                    ],
                };
                self.written.write(idl, txn, "Controller", controller.uuid(), columns);
            }
            if with_stats {
                for mirror in row.mirrors() {
                    let Some((packets, bytes)) = bridge.mirror_stats(mirror.name()) else { continue };
                    let stats = columns::counters(&[("tx_bytes", bytes), ("tx_packets", packets)]);
                    let columns = vec![("statistics", stats)];
                    self.written.write(idl, txn, "Mirror", mirror.uuid(), columns);
                }
            }
        }
        // A bridge that could not be made has no datapath to report.
        for row in rows::Bridge::all(idl.view()).filter(|r| !layer.bridges.contains_key(r.name())) {
            let columns = vec![("datapath_id", columns::none()), ("datapath_version", Datum::scalar(""))];
            self.written.write(idl, txn, "Bridge", row.uuid(), columns);
        }
    }
}

/// Whether a spanning tree of any bridge has news: then all of them are told, as trees span bridges.
fn has_stp_news(layer: &BridgeLayer, seen: &BTreeMap<String, u64>) -> bool {
    layer.bridges.keys().any(|name| {
        let now = layer.switch.bridge(name).map_or(0, Bridge::stp_seq);
        seen.get(name).copied().unwrap_or(0) != now
    })
}

/// Counters of an interface.
fn statistics(bridge: &Bridge, iface: &RunningInterface) -> Datum {
    match bridge.patch_stats(iface.ofport) {
        Some([rx_packets, rx_bytes, tx_packets, tx_bytes]) => columns::counters(&[
            ("rx_bytes", rx_bytes),
            ("rx_packets", rx_packets),
            ("tx_bytes", tx_bytes),
            ("tx_packets", tx_packets),
        ]),
        None => columns::statistics(&*iface.dev),
    }
}
