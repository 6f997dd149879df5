//! The configuration of ports: rows of the switch's database, out and in.
//!
//! Columns that configure go along; those that report, and references, do not: rows that belong to a port are nested in it instead.
//! Values stay in the database's own notation (RFC 7047, 5.1), and the server checks them. Rows are added in one transaction, which makes
//! sure that the port is not there yet.

use std::time::{Duration, Instant};

use ib_base::json::{Json, Object};

use crate::client::Connection;

const DATABASE: &str = "Open_vSwitch";
const PORT: &[&str] = &[
    "name",
    "tag",
    "trunks",
    "cvlans",
    "vlan_mode",
    "mac",
    "bond_mode",
    "lacp",
    "bond_updelay",
    "bond_downdelay",
    "protected",
    "other_config",
    "external_ids",
];
const INTERFACE: &[&str] = &[
    "name",
    "type",
    "options",
    "mac",
    "mtu_request",
    "ofport_request",
    "ingress_policing_rate",
    "ingress_policing_burst",
    "ingress_policing_kpkts_rate",
    "ingress_policing_kpkts_burst",
    "bfd",
    "cfm_mpid",
    "lldp",
    "other_config",
    "external_ids",
];
const QOS: &[&str] = &["type", "other_config", "external_ids"];
const QUEUE: &[&str] = &["dscp", "other_config", "external_ids"];
/// How a mirror takes a port: the column, and its name in the file.
const ROLES: [(&str, &str); 3] =
    [("select_src_port", "source"), ("select_dst_port", "destination"), ("output_port", "output")];
/// Key in `external_ids` of a port that is arriving: the move's name.
const MARK: &str = "ironbridge-move";
/// How long the switch may take to have made a port.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What the database says of ports.
pub struct Exported {
    /// Their bridge.
    pub bridge: String,
    /// Kind of its datapath.
    pub kind: String,
    /// One object a port.
    pub ports: Json,
    /// One object for each membership in a mirror.
    pub mirrors: Json,
}

/// What a file says of ports' configuration.
pub struct Imported {
    /// The bridge that they were on.
    pub bridge: String,
    ports: Vec<(String, Json)>,
    mirrors: Vec<Json>,
}

/// What has to be done.
pub struct Plan {
    /// Ports that the bridge has.
    pub present: Vec<String>,
    /// Ports that it lacks.
    pub absent: Vec<String>,
    bridge: Json,
}

/// A set's elements; an atom is a set of one.
fn elements(value: &Json) -> Vec<Json> {
    match value.as_array() {
        Some([kind, list]) if kind.as_str() == Some("set") => list.as_array().unwrap_or_default().to_vec(),
        _ => vec![value.clone()],
    }
}

fn is_empty(value: &Json) -> bool {
    matches!(value.as_array(), Some([_, list]) if list.as_array().is_some_and(<[Json]>::is_empty))
}

fn columns(row: &Json, names: &[&str]) -> Object {
    let mut out = Object::new();
    for name in names {
        if let Some(value) = row.get(name).filter(|v| !is_empty(v)) {
            out.insert(*name, value.clone());
        }
    }
    out
}

/// Only columns that configure: what a file may set.
fn checked(row: Option<&Json>, names: &[&str], what: &str) -> Result<Object, String> {
    let row = row.and_then(Json::as_object).ok_or_else(|| format!("{what}: no row in the file"))?;
    match row.keys().find(|k| !names.contains(&&***k)) {
        Some(other) => Err(format!("{what}: \"{other}\" is no column that configures")),
        None => Ok(row.clone()),
    }
}

fn by(column: &str, value: Json) -> Json {
    Json::array([Json::array([Json::from(column), Json::from("=="), value])])
}

fn select(table: &str, condition: Json) -> Json {
    Json::object([("op", Json::from("select")), ("table", Json::from(table)), ("where", condition)])
}

fn insert(table: &str, row: Object, name: &str) -> Json {
    Json::object([
        ("op", Json::from("insert")),
        ("table", Json::from(table)),
        ("row", Json::Object(row)),
        ("uuid-name", Json::from(name)),
    ])
}

fn named(name: &str) -> Json {
    Json::array([Json::from("named-uuid"), Json::from(name)])
}

fn mutate(table: &str, condition: Json, column: &str, how: &str, value: Json) -> Json {
    Json::object([
        ("op", Json::from("mutate")),
        ("table", Json::from(table)),
        ("where", condition),
        ("mutations", Json::array([Json::array([Json::from(column), Json::from(how), value])])),
    ])
}

/// A session with the database.
pub struct Database(Connection);

impl Database {
    /// Connects.
    pub fn open(remote: &str) -> Result<Database, String> {
        Connection::open(remote, false)
            .map(Database)
            .map_err(|e| format!("{remote}: {}", ib_base::errno::strerror(&e)))
    }

    /// Runs operations; their results.
    fn transact(&mut self, operations: Vec<Json>) -> Result<Vec<Json>, String> {
        let mut params = vec![Json::from(DATABASE)];
        params.extend(operations);
        let answer = self.0.call("transact", params.into());
        let answer = answer.map_err(|e| format!("database: {}", ib_base::errno::strerror(&e)))?;
        let text = |j: &Json| j.to_text(Default::default());
        let results = answer.map_err(|e| format!("database: {}", text(&e)))?;
        let Json::Array(results) = results else { return Err("database: no list of results".into()) };
        match results.iter().find(|r| r.get("error").is_some()) {
            Some(error) => Err(format!("database: {}", text(error))),
            None => Ok(results),
        }
    }

    fn rows(&mut self, table: &str, condition: Json) -> Result<Vec<Json>, String> {
        let results = self.transact(vec![select(table, condition)])?;
        let rows = results.first().and_then(|r| r.get("rows")).and_then(Json::as_array);
        Ok(rows.unwrap_or_default().to_vec())
    }

    fn row(&mut self, table: &str, condition: Json) -> Result<Option<Json>, String> {
        Ok(self.rows(table, condition)?.into_iter().next())
    }

    /// The configuration of ports of one bridge, under the names that they are to have.
    pub fn export(&mut self, which: &super::Ports) -> Result<Exported, String> {
        let names = &which.here;
        let bridges = self.rows("Bridge", Json::array([]))?;
        let mut found: Option<Json> = None;
        let (mut ports, mut memberships) = (Vec::new(), Vec::new());
        for name in names {
            let row = self.row("Port", by("name", Json::from(name.as_str())))?;
            let row = row.ok_or_else(|| format!("{name}: no such port"))?;
            let id = row.get("_uuid").cloned().unwrap_or_default();
            let has = |b: &&Json| b.get("ports").is_some_and(|p| elements(p).contains(&id));
            let bridge = bridges.iter().find(has).ok_or_else(|| format!("{name}: on no bridge"))?;
            match &found {
                Some(other) if other.get("name") != bridge.get("name") => {
                    return Err(format!("{name} is on another bridge than {}", names[0]));
                }
                _ => found = Some(bridge.clone()),
            }
            if bridge.get("name").and_then(Json::as_str) == Some(name) {
                return Err(format!("{name} is the local port of its bridge: it stays with it"));
            }
            ports.push(self.export_port(&row, name, which.name_there(name))?);
            for mirror in elements(bridge.get("mirrors").unwrap_or(&Json::Null)) {
                let Some(mirror) = self.row("Mirror", by("_uuid", mirror))? else { continue };
                for (column, role) in ROLES {
                    if mirror.get(column).is_some_and(|p| elements(p).contains(&id)) {
                        memberships.push(Json::object([
                            ("mirror", mirror.get("name").cloned().unwrap_or_default()),
                            ("port", Json::from(which.name_there(name))),
                            ("role", Json::from(role)),
                        ]));
                    }
                }
            }
        }
        let name = found.as_ref().and_then(|b| b.get("name")).and_then(Json::as_str).unwrap_or_default();
        let kind = found.as_ref().and_then(|b| b.get("datapath_type")).and_then(Json::as_str);
        let kind = kind.filter(|k| !k.is_empty()).unwrap_or("system").to_owned();
        Ok(Exported { bridge: name.to_owned(), kind, ports: ports.into(), mirrors: memberships.into() })
    }

    fn export_port(&mut self, row: &Json, name: &str, there: &str) -> Result<Json, String> {
        let mut out = Object::new();
        let renamed = |mut row: Object| {
            if row.get("name").and_then(Json::as_str) == Some(name) {
                row.insert("name", there);
            }
            row
        };
        out.insert("port", renamed(columns(row, PORT)));
        let mut interfaces = Vec::new();
        for id in elements(row.get("interfaces").unwrap_or(&Json::Null)) {
            if let Some(interface) = self.row("Interface", by("_uuid", id))? {
                interfaces.push(Json::Object(renamed(columns(&interface, INTERFACE))));
            }
        }
        out.insert("interfaces", interfaces);
        for id in elements(row.get("qos").unwrap_or(&Json::Null)) {
            let Some(qos) = self.row("QoS", by("_uuid", id))? else { continue };
            let mut row = columns(&qos, QOS);
            let mut queues = Vec::new();
            let list = qos.get("queues").and_then(Json::as_array).and_then(<[Json]>::last);
            for pair in list.and_then(Json::as_array).unwrap_or_default() {
                let [number, id] = pair.as_array().unwrap_or_default() else { continue };
                if let Some(queue) = self.row("Queue", by("_uuid", id.clone()))? {
                    queues.push(Json::array([number.clone(), Json::Object(columns(&queue, QUEUE))]));
                }
            }
            row.insert("queues", queues);
            out.insert("qos", row);
        }
        Ok(Json::Object(out))
    }

    /// Which of the ports have to be added to a bridge.
    pub fn plan(&mut self, bridge: &str, what: &Imported) -> Result<Plan, String> {
        let row = self.row("Bridge", by("name", Json::from(bridge)))?;
        let row = row.ok_or_else(|| format!("{bridge}: no such bridge; use --bridge, or add it"))?;
        let ports = elements(row.get("ports").unwrap_or(&Json::Null));
        let id = row.get("_uuid").cloned().unwrap_or_default();
        let mut plan = Plan { present: Vec::new(), absent: Vec::new(), bridge: id };
        for (name, _) in &what.ports {
            match self.row("Port", by("name", Json::from(name.as_str())))? {
                None => plan.absent.push(name.clone()),
                Some(port) if port.get("_uuid").is_some_and(|id| ports.contains(id)) => {
                    plan.present.push(name.clone());
                }
                Some(_) => return Err(format!("{name} is on another bridge than {bridge}")),
            }
        }
        Ok(plan)
    }

    /// Adds the absent ports and waits until the switch has them.
    pub fn add(&mut self, bridge: &str, what: &Imported, plan: &Plan) -> Result<(), String> {
        if plan.absent.is_empty() {
            return Ok(());
        }
        let condition = || by("_uuid", plan.bridge.clone());
        let mut operations = Vec::new();
        let absent = what.ports.iter().filter(|(name, _)| plan.absent.contains(name));
        for (n, (name, port)) in absent.enumerate() {
            // Somebody else may add it meanwhile.
            operations.push(Json::object([
                ("op", Json::from("wait")),
                ("table", Json::from("Port")),
                ("timeout", Json::from(0)),
                ("where", by("name", Json::from(name.as_str()))),
                ("columns", Json::array([Json::from("name")])),
                ("until", Json::from("==")),
                ("rows", Json::array([])),
            ]));
            add_port(n, name, port, &mut operations)?;
            operations.push(mutate("Bridge", condition(), "ports", "insert", named(&format!("port{n}"))));
            self.join_mirrors(n, name, what, plan, &mut operations)?;
        }
        operations.push(mutate("Open_vSwitch", Json::array([]), "next_cfg", "+=", Json::from(1)));
        operations.push(select("Open_vSwitch", Json::array([])));
        let results = self.transact(operations)?;
        let switch = results.last().and_then(|r| r.get("rows")).and_then(Json::as_array);
        let wanted = switch.and_then(|r| r.first()?.get("next_cfg")?.as_integer()).unwrap_or(0);
        let waited = self.wait_for(wanted).and_then(|()| self.complaints(&plan.absent));
        if waited.is_err() {
            self.remove(bridge, &plan.absent)?;
        }
        waited
    }

    /// Puts a new port where its mirrors had it; a mirror that the bridge lacks is passed over.
    fn join_mirrors(
        &mut self,
        n: usize,
        name: &str,
        what: &Imported,
        plan: &Plan,
        operations: &mut Vec<Json>,
    ) -> Result<(), String> {
        let bridge = self.row("Bridge", by("_uuid", plan.bridge.clone()))?.unwrap_or_default();
        let of_bridge = elements(bridge.get("mirrors").unwrap_or(&Json::Null));
        for m in what.mirrors.iter().filter(|m| m.get("port").and_then(Json::as_str) == Some(name)) {
            let mirror = m.get("mirror").and_then(Json::as_str).unwrap_or_default();
            let role = m.get("role").and_then(Json::as_str).unwrap_or_default();
            let column = ROLES.iter().find(|(_, r)| *r == role).map(|(c, _)| *c);
            let column = column.ok_or_else(|| format!("mirror {mirror}: unknown role \"{role}\""))?;
            let rows = self.rows("Mirror", by("name", Json::from(mirror)))?;
            let ids = rows.iter().filter_map(|r| r.get("_uuid"));
            for id in ids.filter(|id| of_bridge.contains(id)) {
                let value = named(&format!("port{n}"));
                operations.push(mutate("Mirror", by("_uuid", id.clone()), column, "insert", value));
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, cfg: i64) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let row = self.row("Open_vSwitch", Json::array([]))?;
            if row.and_then(|r| r.get("cur_cfg")?.as_integer()).is_some_and(|now| now >= cfg) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err("the switch does not answer: is ovs-vswitchd running?".into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What the switch says against new ports.
    fn complaints(&mut self, ports: &[String]) -> Result<(), String> {
        for name in ports {
            let row = self.row("Interface", by("name", Json::from(name.as_str())))?;
            let error = row.as_ref().and_then(|r| r.get("error")).and_then(Json::as_str);
            if let Some(error) = error {
                return Err(error.to_owned());
            }
        }
        Ok(())
    }

    /// Ports that were added for a move (for `session`, or for any) which has not finished, with its name.
    pub fn marked(
        &mut self,
        names: &[String],
        session: Option<&str>,
    ) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        for name in names {
            let row = self.row("Port", by("name", Json::from(name.as_str())))?;
            let Some(mark) = row.as_ref().and_then(mark_of) else { continue };
            if session.is_none_or(|s| s == mark) {
                found.push((name.clone(), mark));
            }
        }
        Ok(found)
    }

    /// Ports are there to stay.
    pub fn unmark(&mut self, names: &[String]) -> Result<(), String> {
        let keys = Json::array([Json::from("set"), Json::array([Json::from(MARK)])]);
        let unmark = |name: &String| {
            mutate("Port", by("name", Json::from(name.as_str())), "external_ids", "delete", keys.clone())
        };
        let operations: Vec<Json> = names.iter().map(unmark).collect();
        if operations.is_empty() { Ok(()) } else { self.transact(operations).map(drop) }
    }

    /// Whether there is any of these ports.
    pub fn has_any(&mut self, names: &[String]) -> Result<bool, String> {
        for name in names {
            if self.row("Port", by("name", Json::from(name.as_str())))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes ports away again.
    pub fn remove(&mut self, bridge: &str, ports: &[String]) -> Result<(), String> {
        let mut operations = Vec::new();
        for name in ports {
            let Some(row) = self.row("Port", by("name", Json::from(name.as_str())))? else { continue };
            let id = row.get("_uuid").cloned().unwrap_or_default();
            for (column, _) in ROLES {
                operations.push(mutate("Mirror", Json::array([]), column, "delete", id.clone()));
            }
            let condition = by("name", Json::from(bridge));
            operations.push(mutate("Bridge", condition, "ports", "delete", id));
        }
        if operations.is_empty() {
            return Ok(());
        }
        operations.push(mutate("Open_vSwitch", Json::array([]), "next_cfg", "+=", Json::from(1)));
        self.transact(operations).map(drop)
    }
}

/// The pairs of a map.
fn pairs(map: Option<&Json>) -> &[Json] {
    match map.and_then(Json::as_array) {
        Some([kind, list]) if kind.as_str() == Some("map") => list.as_array().unwrap_or_default(),
        _ => &[],
    }
}

fn is_mark(pair: &Json) -> bool {
    pair.as_array().and_then(<[Json]>::first).and_then(Json::as_str) == Some(MARK)
}

fn mark_of(port: &Json) -> Option<String> {
    let pair = pairs(port.get("external_ids")).iter().find(|p| is_mark(p))?;
    pair.as_array()?.get(1)?.as_str().map(str::to_owned)
}

/// Rows of a port and of what belongs to it.
fn add_port(n: usize, name: &str, port: &Json, operations: &mut Vec<Json>) -> Result<(), String> {
    let mut row = checked(port.get("port"), PORT, name)?;
    let mut interfaces = Vec::new();
    for (i, interface) in
        port.get("interfaces").and_then(Json::as_array).unwrap_or_default().iter().enumerate()
    {
        let id = format!("interface{n}_{i}");
        operations.push(insert("Interface", checked(Some(interface), INTERFACE, name)?, &id));
        interfaces.push(named(&id));
    }
    row.insert("interfaces", Json::array([Json::from("set"), interfaces.into()]));
    if let Some(qos) = port.get("qos") {
        let mut own = qos.as_object().cloned().unwrap_or_default();
        let queues = own.remove("queues").unwrap_or_default();
        let mut qos = checked(Some(&Json::Object(own)), QOS, name)?;
        let mut map = Vec::new();
        for (q, pair) in queues.as_array().unwrap_or_default().iter().enumerate() {
            let [number, queue] = pair.as_array().unwrap_or_default() else {
                return Err(format!("{name}: a queue is no pair of a number and a row"));
            };
            let id = format!("queue{n}_{q}");
            operations.push(insert("Queue", checked(Some(queue), QUEUE, name)?, &id));
            map.push(Json::array([number.clone(), named(&id)]));
        }
        qos.insert("queues", Json::array([Json::from("map"), map.into()]));
        operations.push(insert("QoS", qos, &format!("qos{n}")));
        row.insert("qos", named(&format!("qos{n}")));
    }
    operations.push(insert("Port", row, &format!("port{n}")));
    Ok(())
}

impl Imported {
    /// Has all ports say which move they arrive by.
    pub fn mark(&mut self, session: &str) {
        for (_, port) in &mut self.ports {
            let Some(row) = port.get("port").and_then(Json::as_object) else { continue };
            let mut row = row.clone();
            let own = pairs(row.get("external_ids")).iter().filter(|p| !is_mark(p)).cloned();
            let mark = Json::array([Json::from(MARK), Json::from(session)]);
            let all = Json::array(own.chain([mark]));
            row.insert("external_ids", Json::array([Json::from("map"), all]));
            let mut marked = port.as_object().cloned().unwrap_or_default();
            marked.insert("port", row);
            *port = Json::Object(marked);
        }
    }

    /// Names of the ports.
    pub fn names(&self) -> Vec<String> {
        self.ports.iter().map(|(name, _)| name.clone()).collect()
    }
    /// Reads a file's content, as far as it is configuration.
    pub fn read(content: &Json) -> Result<Imported, String> {
        let bridge = content.get("bridge").and_then(Json::as_str).ok_or("the file names no bridge")?;
        let mut ports = Vec::new();
        for port in content.get("ports").and_then(Json::as_array).ok_or("the file has no ports")? {
            let name = port.get("port").and_then(|p| p.get("name")).and_then(Json::as_str);
            let name = name.ok_or("a port of the file has no name")?;
            // For its errors: nothing is added before all is known to be right.
            add_port(0, name, port, &mut Vec::new())?;
            ports.push((name.to_owned(), port.clone()));
        }
        let mirrors = content.get("mirrors").and_then(Json::as_array).unwrap_or_default().to_vec();
        Ok(Imported { bridge: bridge.to_owned(), ports, mirrors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(ports: &str) -> Json {
        Json::parse(&format!(r#"{{"bridge":"br0","ports":[{ports}],"mirrors":[]}}"#)).unwrap()
    }

    #[test]
    fn a_port_becomes_rows_that_name_each_other() {
        let port = r#"{"port":{"name":"vm1","tag":5},"interfaces":[{"name":"vm1","type":"internal"}],
            "qos":{"type":"linux-htb","queues":[[3,{"dscp":7}]]}}"#;
        let what = Imported::read(&content(port)).unwrap();
        assert_eq!((what.bridge.as_str(), what.ports.len()), ("br0", 1));
        let mut operations = Vec::new();
        add_port(2, "vm1", &what.ports[0].1, &mut operations).unwrap();
        let text: Vec<String> = operations.iter().map(|o| o.to_text(Default::default())).collect();
        assert_eq!(text.len(), 4);
        assert!(text[2].contains(r#""queues":["map",[[3,["named-uuid","queue2_0"]]]]"#), "{}", text[2]);
        assert!(
            text[3].contains(
                r#""interfaces":["set",[["named-uuid","interface2_0"]]],"qos":["named-uuid","qos2"]"#
            ),
            "{}",
            text[3]
        );
    }

    #[test]
    fn a_port_that_arrives_says_so() {
        let port = r#"{"port":{"name":"vm1","external_ids":["map",[["a","b"],["ironbridge-move","old"]]]},"interfaces":[]}"#;
        for text in [port, r#"{"port":{"name":"vm1"},"interfaces":[]}"#] {
            let mut what = Imported::read(&content(text)).unwrap();
            what.mark("s7");
            let row = what.ports[0].1.get("port").unwrap();
            assert_eq!(mark_of(row).as_deref(), Some("s7"));
            assert_eq!(pairs(row.get("external_ids")).len(), if text == port { 2 } else { 1 });
        }
    }

    #[test]
    fn a_file_sets_what_configures_and_nothing_else() {
        for (port, why) in [
            (r#"{"port":{"tag":5},"interfaces":[]}"#, "has no name"),
            (r#"{"interfaces":[]}"#, "has no name"),
            (r#"{"port":{"name":"vm1","statistics":1}}"#, "\"statistics\" is no column"),
            (r#"{"port":{"name":"vm1"},"interfaces":[{"ofport":1}]}"#, "\"ofport\" is no column"),
            (r#"{"port":{"name":"vm1"},"interfaces":[1]}"#, "no row"),
            (r#"{"port":{"name":"vm1"},"qos":{"queues":[1]}}"#, "no pair"),
        ] {
            let said = Imported::read(&content(port)).err().unwrap();
            assert!(said.contains(why), "{port}: {said}");
        }
        assert!(Imported::read(&Json::object([("ports", Json::array([]))])).is_err());
    }
}
