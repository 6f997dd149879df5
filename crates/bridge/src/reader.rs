//! Following the database: which ports a change of rows touches, at the cost of the change.
//!
//! A [`Reader`] keeps a [`Desired`] equal to the replica. Changes of Interface and Port rows, and of a bridge's list of
//! ports, are what a switch sees all day; for those it finds the ports concerned through its indexes and reads these
//! alone. Anything else (a bridge comes or goes, a mirror, a name that is in use twice) has it read everything again,
//! which is always right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ib_ovsdb::Uuid;
use ib_ovsdb::idl::vswitch::{Bridge, Port};
use ib_ovsdb::idl::{Change, ChangeKind, Idl};

use crate::desired::{self, Desired, Warnings};

/// What is to be made so again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Maybe all of it.
    Everything,
    /// These ports, by bridge; nothing else.
    Ports(BTreeMap<String, BTreeSet<String>>),
}

/// Where a row of the Port table is.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    bridge: Arc<str>,
    port: String,
}

/// Indexes over what was read.
#[derive(Default)]
pub(crate) struct Reader {
    /// Everything was read once, and what was read is regular: each name once, no row passed over.
    regular: bool,
    ports: HashMap<Uuid, Place>,
    /// Interfaces to ports.
    ifaces: HashMap<Uuid, Uuid>,
    /// Names of interfaces in use.
    names: HashMap<String, Uuid>,
}

impl Reader {
    /// Takes in what happened to the replica since the last call.
    pub fn update(&mut self, desired: &mut Desired, idl: &Idl, changes: &[Change]) -> (Touched, Warnings) {
        if self.regular
            && let Some(touched) = self.follow(desired, idl, changes)
        {
            return (Touched::Ports(touched), Warnings::default());
        }
        let (all, warnings) = desired::read(idl);
        *desired = all;
        self.index(desired, warnings.is_empty());
        (Touched::Everything, warnings)
    }

    /// What was read is no longer what the database says: read everything next time.
    pub fn forget(&mut self) {
        *self = Reader::default();
    }

    fn index(&mut self, desired: &Desired, regular: bool) {
        self.forget();
        self.regular = regular;
        for (name, bridge) in &desired.bridges {
            let bridge_name: Arc<str> = name.as_str().into();
            for (port_name, port) in &bridge.ports {
                if let Some(uuid) = port.uuid {
                    let place = Place { bridge: Arc::clone(&bridge_name), port: port_name.clone() };
                    self.ports.insert(uuid, place);
                    self.index_interfaces(uuid, port);
                }
            }
        }
    }

    fn index_interfaces(&mut self, uuid: Uuid, port: &desired::PortDesired) {
        for iface in port.interfaces.values() {
            if let Some(iface_uuid) = iface.uuid {
                self.ifaces.insert(iface_uuid, uuid);
            }
            self.names.insert(iface.name.clone(), uuid);
        }
    }

    /// The ports that the changes touch, read again. `None`: they touch more than ports.
    fn follow(
        &mut self,
        desired: &mut Desired,
        idl: &Idl,
        changes: &[Change],
    ) -> Option<BTreeMap<String, BTreeSet<String>>> {
        // Rows of the Port table to read again, those that are on a bridge now, and those that no longer are.
        let mut again: BTreeSet<Uuid> = BTreeSet::new();
        let mut come: BTreeMap<Uuid, Arc<str>> = BTreeMap::new();
        let mut gone: BTreeSet<Uuid> = BTreeSet::new();
        for change in changes {
            match (&*change.table, change.kind) {
                // Rows that come or go do so because of a row that refers to them.
                ("Interface" | "Port", ChangeKind::Inserted | ChangeKind::Deleted) => {}
                ("Interface", ChangeKind::Modified) => again.extend(self.ifaces.get(&change.uuid)),
                ("Port", ChangeKind::Modified) => {
                    again.extend(self.ports.contains_key(&change.uuid).then_some(change.uuid));
                }
                ("Open_vSwitch", ChangeKind::Modified)
                    if change.columns.iter().all(|c| matches!(&**c, "next_cfg" | "external_ids")) => {}
                ("Bridge", ChangeKind::Modified) if change.columns.iter().all(|c| &**c == "ports") => {
                    let row = Bridge::get(idl.view(), change.uuid)?;
                    let bridge = desired.bridges.get(row.name()).filter(|b| b.uuid == change.uuid)?;
                    let name: Arc<str> = bridge.name.as_str().into();
                    let now: BTreeSet<Uuid> = row.row().uuids("ports").collect();
                    gone.extend(bridge.ports.values().filter_map(|p| p.uuid).filter(|u| !now.contains(u)));
                    let is_new = |u: &Uuid| self.ports.get(u).is_none_or(|place| place.bridge != name);
                    come.extend(now.into_iter().filter(is_new).map(|u| (u, Arc::clone(&name))));
                }
                _ => return None,
            }
        }
        let mut touched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut touch = |bridge: &str, port: &str| {
            touched.entry(bridge.to_owned()).or_default().insert(port.to_owned());
        };
        for uuid in again.iter().chain(&gone) {
            let Some(place) = self.ports.get(uuid).cloned() else { continue };
            if !gone.contains(uuid) {
                come.entry(*uuid).or_insert_with(|| Arc::clone(&place.bridge));
            }
            touch(&place.bridge, &place.port);
            self.remove(desired, *uuid, &place);
        }
        for (uuid, bridge) in come {
            let port = self.add(desired, idl, uuid, &bridge);
            let Some(port) = port else {
                // The full reading says what is wrong with it.
                self.regular = false;
                return None;
            };
            touch(&bridge, &port);
        }
        // A bridge has its own port whatever the database says.
        let own = |bridge: &str| desired.bridges.get(bridge).is_some_and(|b| b.ports.contains_key(bridge));
        touched.keys().all(|bridge| own(bridge)).then_some(touched)
    }

    fn remove(&mut self, desired: &mut Desired, uuid: Uuid, place: &Place) {
        self.ports.remove(&uuid);
        let ports = desired.bridges.get_mut(&*place.bridge).map(|b| &mut b.ports);
        let Some(port) = ports.and_then(|ports| ports.remove(&place.port)) else { return };
        for iface in port.interfaces.values() {
            if let Some(iface_uuid) = iface.uuid {
                self.ifaces.remove(&iface_uuid);
            }
            self.names.remove(&iface.name);
        }
    }

    /// Reads one row into its bridge; its name. `None` if it is not in order.
    fn add(&mut self, desired: &mut Desired, idl: &Idl, uuid: Uuid, bridge: &Arc<str>) -> Option<String> {
        let row = Port::get(idl.view(), uuid)?;
        let into = desired.bridges.get_mut(&**bridge)?;
        let mut taken = BTreeSet::new();
        let mut warnings = Warnings::default();
        let name = row.name().to_owned();
        desired::read_port(&row, into, &mut taken, &mut warnings);
        let port = into.ports.get(&name).filter(|p| p.uuid == Some(uuid)).map(Arc::clone)?;
        if !warnings.is_empty() || port.interfaces.keys().any(|iface| self.names.contains_key(iface)) {
            return None;
        }
        self.ports.insert(uuid, Place { bridge: Arc::clone(bridge), port: name.clone() });
        self.index_interfaces(uuid, &port);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_base::json::Json;
    use ib_ovsdb::{Schema, schemas};

    const OVS: &str = "00000000-0000-0000-0000-000000000001";
    const BR: &str = "00000000-0000-0000-0000-000000000002";

    fn uuid(kind: u32, n: usize) -> String {
        format!("00000000-0000-0000-{kind:04x}-{n:012x}")
    }

    /// A replica that follows a server whose every answer the test writes.
    struct World {
        idl: Idl,
        reader: Reader,
        desired: Desired,
    }

    fn port_rows(range: std::ops::Range<usize>) -> (String, String) {
        let port = |n: usize| {
            format!(
                r#""{}":{{"insert":{{"name":"p{n}","interfaces":["uuid","{}"]}}}}"#,
                uuid(3, n),
                uuid(4, n)
            )
        };
        let iface = |n: usize| format!(r#""{}":{{"insert":{{"name":"p{n}","type":"dummy"}}}}"#, uuid(4, n));
        let join = |f: &dyn Fn(usize) -> String| range.clone().map(f).collect::<Vec<_>>().join(",");
        (join(&port), join(&iface))
    }

    impl World {
        /// A bridge with port 0, its own, and `n` more.
        fn new(n: usize) -> World {
            let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH).unwrap());
            idl.register_all();
            idl.track_changes();
            idl.connected();
            let mut world = World { idl, reader: Reader::default(), desired: Desired::default() };
            let schema = Json::parse(schemas::VSWITCH).unwrap();
            // Whatever is asked for but the schema and the monitor is not known here.
            for _ in 0..4 {
                for asked in world.idl.take_messages() {
                    let id = asked.get("id").unwrap();
                    let reply = match asked.get("method").and_then(Json::as_str).unwrap() {
                        "get_schema" => format!(r#"{{"id":{id},"error":null,"result":{schema}}}"#),
                        "monitor_cond" if asked.to_string().contains("Interface") => {
                            format!(r#"{{"id":{id},"error":null,"result":{{}}}}"#)
                        }
                        _ => format!(r#"{{"id":{id},"error":"unknown method","result":null}}"#),
                    };
                    world.idl.receive(&Json::parse(&reply).unwrap());
                }
            }
            assert!(world.idl.is_live());
            let (ports, ifaces) = port_rows(0..n + 1);
            let list: Vec<String> = (0..n + 1).map(|n| format!(r#"["uuid","{}"]"#, uuid(3, n))).collect();
            let list = list.join(",");
            world.say(&format!(
                r#""Open_vSwitch":{{"{OVS}":{{"insert":{{"bridges":["uuid","{BR}"]}}}}}},
                   "Bridge":{{"{BR}":{{"insert":{{"name":"p0","ports":["set",[{list}]]}}}}}},
                   "Port":{{{ports}}},"Interface":{{{ifaces}}}"#
            ));
            assert_eq!(world.take(), Touched::Everything);
            world
        }

        fn say(&mut self, tables: &str) {
            let text = format!(
                r#"{{"id":null,"method":"update2","params":[["monid","Open_vSwitch"],{{{tables}}}]}}"#
            );
            self.idl.receive(&Json::parse(&text).unwrap());
        }

        /// What the changes touch; checks that what was read is what a full reading gives.
        fn take(&mut self) -> Touched {
            let changes = self.idl.take_changes();
            let (touched, _) = self.reader.update(&mut self.desired, &self.idl, &changes);
            assert_eq!(self.desired, desired::read(&self.idl).0);
            touched
        }
    }

    fn ports(names: &[&str]) -> Touched {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        Touched::Ports(BTreeMap::from([("p0".to_owned(), names)]))
    }

    #[test]
    fn changes_touch_their_ports_alone() {
        let mut w = World::new(5);
        let bridge_ports =
            |n| format!(r#""Bridge":{{"{BR}":{{"modify":{{"ports":["uuid","{}"]}}}}}}"#, uuid(3, n));
        w.say(&format!(r#""Interface":{{"{}":{{"modify":{{"mtu_request":1400}}}}}}"#, uuid(4, 3)));
        assert_eq!(w.take(), ports(&["p3"]));
        w.say(&format!(r#""Port":{{"{}":{{"modify":{{"tag":7}}}}}}"#, uuid(3, 2)));
        assert_eq!(w.take(), ports(&["p2"]));
        let (new_ports, ifaces) = port_rows(6..7);
        w.say(&format!(r#""Port":{{{new_ports}}},"Interface":{{{ifaces}}},{}"#, bridge_ports(6)));
        assert_eq!(w.take(), ports(&["p6"]));
        w.say(&format!(
            r#""Port":{{"{}":{{"delete":null}}}},"Interface":{{"{}":{{"delete":null}}}},{}"#,
            uuid(3, 4),
            uuid(4, 4),
            bridge_ports(4)
        ));
        assert_eq!(w.take(), ports(&["p4"]));
        w.say(&format!(r#""Open_vSwitch":{{"{OVS}":{{"modify":{{"next_cfg":1}}}}}}"#));
        assert_eq!(w.take(), Touched::Ports(BTreeMap::new()));
        w.say(&format!(r#""Bridge":{{"{BR}":{{"modify":{{"fail_mode":"secure"}}}}}}"#));
        assert_eq!(w.take(), Touched::Everything);
    }

    #[test]
    fn what_is_out_of_order_is_read_as_a_whole() {
        let mut w = World::new(2);
        // A second port with the interface of the first.
        let name = uuid(3, 9);
        w.say(&format!(
            r#""Port":{{"{name}":{{"insert":{{"name":"q","interfaces":["uuid","{}"]}}}}}},
               "Bridge":{{"{BR}":{{"modify":{{"ports":["uuid","{name}"]}}}}}}"#,
            uuid(4, 1)
        ));
        assert_eq!(w.take(), Touched::Everything);
        // And so on until it is in order again.
        w.say(&format!(r#""Interface":{{"{}":{{"modify":{{"mtu_request":1400}}}}}}"#, uuid(4, 2)));
        assert_eq!(w.take(), Touched::Everything);
        w.say(&format!(
            r#""Port":{{"{name}":{{"delete":null}}}},"Bridge":{{"{BR}":{{"modify":{{"ports":["uuid","{name}"]}}}}}}"#
        ));
        assert_eq!(w.take(), Touched::Everything);
        w.say(&format!(r#""Interface":{{"{}":{{"modify":{{"mtu_request":1500}}}}}}"#, uuid(4, 2)));
        assert_eq!(w.take(), ports(&["p2"]));
    }
}
