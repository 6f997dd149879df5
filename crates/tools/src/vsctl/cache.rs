//! Bridges, ports and interfaces as `ovs-vsctl` speaks of them.
//!
//! The database knows real bridges and their ports. On the command line there are fake bridges too: a fake bridge
//! is a port with `fake_bridge` set and a VLAN tag, and owns the ports of its parent with the same tag. And a bridge's
//! local port, of the bridge's own name, is never spoken of. The cache is this picture of the view, made when a command
//! first asks, kept up to date by the commands that change it, and thrown away after generic changes of what it is made
//! from ([`SOURCES`]): a command line that adds 2,000 ports and sets each one's type makes it once.

use super::State;
use crate::dbctl::Ctl;
use ib_base::vlog::module::VSCTL;
use ib_base::vlog_warn;
use ib_ovsdb::Uuid;
use ib_ovsdb::idl::{Row, View};
use std::collections::BTreeMap;

/// The columns that the picture is made from.
pub const SOURCES: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["bridges"]),
    ("Bridge", &["name", "ports"]),
    ("Port", &["name", "fake_bridge", "tag", "interfaces"]),
    ("Interface", &["name"]),
];

/// Whether a change of a column, or (`None`) of any, can change the picture.
pub fn depends_on(table: &str, column: Option<&str>) -> bool {
    let mut sources = SOURCES.iter().filter(|(name, _)| *name == table);
    sources.any(|(_, columns)| column.is_none_or(|c| columns.contains(&c)))
}

/// A real or fake bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    /// The row of the Bridge table: of a fake bridge, its parent's.
    pub uuid: Uuid,
    /// What makes it fake.
    pub fake: Option<Fake>,
}

/// The rest of a fake bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fake {
    pub parent: String,
    pub vlan: i64,
    /// Its row in the Port table.
    pub port: Uuid,
}

/// A port that is not local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub uuid: Uuid,
    /// The real or fake bridge that it is on.
    pub bridge: String,
}

/// An interface of a port that is not local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iface {
    pub name: String,
    pub uuid: Uuid,
    pub port: String,
}

/// The picture.
#[derive(Debug, Default)]
pub struct Cache {
    pub bridges: BTreeMap<String, Bridge>,
    pub ports: BTreeMap<String, Port>,
    pub ifaces: BTreeMap<String, Iface>,
}

/// The VLAN of a port that is a fake bridge.
fn fake_bridge_vlan(port: &Row<'_>) -> Option<i64> {
    let vlan = port.int_opt("tag").filter(|tag| (0..=4095).contains(tag));
    if port.bool("fake_bridge") { vlan } else { None }
}

impl Cache {
    /// The picture of a view, whose top row is `ovs`.
    pub fn build(view: View<'_>, ovs: Uuid) -> Cache {
        let mut cache = Cache::default();
        let Some(top) = view.row("Open_vSwitch", ovs) else { return cache };
        for bridge in top.refs("bridges") {
            cache.add_bridge(&bridge);
        }
        for bridge in top.refs("bridges") {
            let is_known = cache.bridges.get(bridge.str("name")).is_some_and(|b| b.uuid == bridge.uuid());
            if is_known {
                cache.add_ports(&bridge);
            }
        }
        cache
    }

    fn add_bridge(&mut self, row: &Row<'_>) {
        let name = row.str("name");
        if self.bridges.contains_key(name) {
            vlog_warn!(VSCTL, "{name}: database contains duplicate bridge name");
            return;
        }
        let bridge = Bridge { name: name.to_string(), uuid: row.uuid(), fake: None };
        self.bridges.insert(name.to_string(), bridge);
        for port in row.refs("ports") {
            let Some(vlan) = fake_bridge_vlan(&port) else { continue };
            let fake_name = port.str("name");
            if fake_name == name || self.bridges.contains_key(fake_name) {
                continue;
            }
            let fake = Some(Fake { parent: name.to_string(), vlan, port: port.uuid() });
            let bridge = Bridge { name: fake_name.to_string(), uuid: row.uuid(), fake };
            self.bridges.insert(fake_name.to_string(), bridge);
        }
    }

    fn add_ports(&mut self, row: &Row<'_>) {
        let bridge_name = row.str("name");
        // Fake bridges of this bridge by VLAN.
        let fakes: BTreeMap<i64, String> = self
            .bridges
            .values()
            .filter_map(|b| b.fake.as_ref().map(|f| (b, f)))
            .filter(|(_, f)| f.parent == bridge_name)
            .map(|(b, f)| (f.vlan, b.name.clone()))
            .collect();
        for port in row.refs("ports") {
            let name = port.str("name");
            if name == bridge_name || self.bridges.get(name).is_some_and(|b| b.fake.is_some()) {
                continue;
            }
            if let Some(other) = self.ports.get(name) {
                if other.uuid == port.uuid() {
                    vlog_warn!(
                        VSCTL,
                        "{name}: port is in multiple bridges ({bridge_name} and {})",
                        other.bridge
                    );
                } else {
                    vlog_warn!(VSCTL, "{name}: database contains duplicate port name");
                }
                continue;
            }
            let owner = port.int_opt("tag").and_then(|tag| fakes.get(&tag));
            let bridge = owner.map_or(bridge_name, String::as_str).to_string();
            self.ports.insert(name.to_string(), Port { name: name.to_string(), uuid: port.uuid(), bridge });
            for iface in port.refs("interfaces") {
                self.add_iface(&iface, name);
            }
        }
    }

    fn add_iface(&mut self, row: &Row<'_>, port: &str) {
        let name = row.str("name");
        match self.ifaces.get(name) {
            Some(other) if other.uuid == row.uuid() => {
                vlog_warn!(VSCTL, "{name}: interface is in multiple ports ({port} and {})", other.port);
            }
            Some(_) => vlog_warn!(VSCTL, "{name}: database contains duplicate interface name"),
            None => {
                let iface = Iface { name: name.to_string(), uuid: row.uuid(), port: port.to_string() };
                self.ifaces.insert(name.to_string(), iface);
            }
        }
    }

    /// The fake bridge of `parent` on `vlan`.
    pub fn fake_bridge(&self, parent: &str, vlan: i64) -> Option<&Bridge> {
        self.bridges.values().find(|b| b.fake.as_ref().is_some_and(|f| f.parent == parent && f.vlan == vlan))
    }

    /// The ports on a bridge, by name.
    pub fn ports_of<'c>(&'c self, bridge: &'c str) -> impl Iterator<Item = &'c Port> {
        self.ports.values().filter(move |p| p.bridge == bridge)
    }

    /// The interfaces of a port, by name.
    pub fn ifaces_of<'c>(&'c self, port: &'c str) -> impl Iterator<Item = &'c Iface> {
        self.ifaces.values().filter(move |i| i.port == port)
    }

    /// Forgets a port and its interfaces.
    pub fn remove_port(&mut self, name: &str) {
        self.ports.remove(name);
        self.ifaces.retain(|_, iface| iface.port != name);
    }
}

/// The cache of a run, made now if it is not there.
pub fn cache<'c>(ctl: &'c mut Ctl<'_, State>) -> &'c mut Cache {
    if ctl.ext.cache.is_none() {
        let cache = Cache::build(ctl.view(), ctl.ext.ovs);
        ctl.ext.cache = Some(cache);
    }
    ctl.ext.cache.get_or_insert_with(Cache::default)
}
