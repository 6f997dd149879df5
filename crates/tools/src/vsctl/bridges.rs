//! Commands on bridges, ports, bonds and interfaces.

use super::State;
use super::cache::{Bridge, Fake, Iface, Port, SOURCES, cache};
use crate::dbctl::generic::{apply_settings, prepare_later_settings};
use crate::dbctl::{Call, Command, Ctl, Outcome, Preparation, Stop};
use ib_ovsdb::{Atom, Datum, Uuid};

type C<'a> = Ctl<'a, State>;
type L = Call<State>;

macro_rules! command {
    ($name:literal, $min:expr, $max:expr, $arguments:literal, $options:expr, $mode:ident, $prepare:expr, $run:expr) => {
        Command {
            name: $name,
            min_args: $min,
            max_args: $max,
            arguments: $arguments,
            options: $options,
            writes: command!(@$mode),
            prepare: Some($prepare),
            run: $run,
        }
    };
    (@RO) => { false };
    (@RW) => { true };
}
pub(super) use command;

/// The commands of this file.
pub const COMMANDS: &[Command<State>] = &[
    command!("add-br", 1, Some(3), "!NEW-BRIDGE ?PARENT ?NEW-VLAN", &["--may-exist"], RW, prepare, add_br),
    command!("del-br", 1, Some(1), "!BRIDGE", &["--if-exists"], RW, prepare, del_br),
    command!("list-br", 0, Some(0), "", &["--real", "--fake"], RO, prepare, list_br),
    command!("br-exists", 1, Some(1), "!BRIDGE", &[], RO, prepare, br_exists),
    command!("br-to-vlan", 1, Some(1), "!BRIDGE", &[], RO, prepare, br_to_vlan),
    command!("br-to-parent", 1, Some(1), "!BRIDGE", &[], RO, prepare, br_to_parent),
    command!(
        "br-set-external-id",
        2,
        Some(3),
        "!BRIDGE !KEY ?VALUE",
        &[],
        RW,
        prepare_ids,
        br_set_external_id
    ),
    command!("br-get-external-id", 1, Some(2), "!BRIDGE ?KEY", &[], RO, prepare_ids, br_get_external_id),
    command!("list-ports", 1, Some(1), "!BRIDGE", &[], RO, prepare, list_ports),
    command!(
        "add-port",
        2,
        None,
        "!BRIDGE !NEW-PORT *COLUMN?:KEY=VALUE",
        &["--may-exist"],
        RW,
        prepare_add_port,
        add_port
    ),
    command!(
        "add-bond",
        4,
        None,
        "!BRIDGE !BOND +IFACE *COLUMN?:KEY=VALUE",
        &["--may-exist", "--fake-iface"],
        RW,
        prepare_add_bond,
        add_bond
    ),
    command!("add-bond-iface", 2, Some(2), "!BOND !IFACE", &["--may-exist"], RW, prepare, add_bond_iface),
    command!("del-bond-iface", 1, Some(2), "?BOND !IFACE", &["--if-exists"], RW, prepare, del_bond_iface),
    command!(
        "del-port",
        1,
        Some(2),
        "?BRIDGE !PORT|IFACE",
        &["--if-exists", "--with-iface"],
        RW,
        prepare,
        del_port
    ),
    command!("port-to-br", 1, Some(1), "!PORT", &[], RO, prepare, port_to_br),
    command!("list-ifaces", 1, Some(1), "!BRIDGE", &[], RO, prepare, list_ifaces),
    command!("iface-to-br", 1, Some(1), "!IFACE", &[], RO, prepare, iface_to_br),
];

/// Registers what the cache is made from.
pub fn prepare(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    for (table, columns) in SOURCES {
        for column in *columns {
            prep.idl.register_column(table, column);
        }
    }
    for column in ["ofport", "error"] {
        prep.idl.register_column("Interface", column);
    }
    Ok(())
}

fn prepare_ids(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    prep.idl.register_column("Bridge", "external_ids");
    prep.idl.register_column("Port", "external_ids");
    prepare(prep, call)
}

fn prepare_add_port(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    prepare(prep, call)?;
    prepare_later_settings(prep, "Port", &call.args[3..]);
    Ok(())
}

/// Where the settings of `add-bond` begin.
fn first_setting(call: &L) -> usize {
    (3..call.argc()).find(|&i| call.args[i].contains('=')).unwrap_or(call.argc())
}

fn check_bond(call: &L) -> Outcome {
    match first_setting(call) - 3 {
        n if n < 2 => {
            Err(Stop::fatal(format!("add-bond requires at least 2 interfaces, but only {n} were specified")))
        }
        _ => Ok(()),
    }
}

fn prepare_add_bond(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    prepare(prep, call)?;
    check_bond(call)?;
    prepare_later_settings(prep, "Port", &call.args[first_setting(call)..]);
    Ok(())
}

/// The bridge `name`, which must exist.
pub fn find_bridge(ctl: &mut C<'_>, name: &str) -> Outcome<Bridge> {
    let found = cache(ctl).bridges.get(name).cloned();
    found.ok_or_else(|| Stop::fatal(format!("no bridge named {name}")))
}

/// The real bridge `name`, which must exist.
pub fn find_real_bridge(ctl: &mut C<'_>, name: &str) -> Outcome<Bridge> {
    let bridge = find_bridge(ctl, name)?;
    if bridge.fake.is_some() {
        return Err(Stop::fatal(format!("{name} is a fake bridge")));
    }
    Ok(bridge)
}

fn find_port(ctl: &mut C<'_>, name: &str) -> Outcome<Port> {
    let found = cache(ctl).ports.get(name).cloned();
    found.ok_or_else(|| Stop::fatal(format!("no port named {name}")))
}

fn find_iface(ctl: &mut C<'_>, name: &str) -> Outcome<Iface> {
    let found = cache(ctl).ifaces.get(name).cloned();
    found.ok_or_else(|| Stop::fatal(format!("no interface named {name}")))
}

fn text(value: &str) -> Datum {
    Datum::scalar(Atom::string(value))
}

fn reference(uuid: Uuid) -> Datum {
    Datum::scalar(Atom::Uuid(uuid))
}

/// Fails if `name` is taken by a bridge, port or interface.
fn check_conflicts(ctl: &mut C<'_>, name: &str, what: &str) -> Outcome {
    let cache = cache(ctl);
    if cache.bridges.contains_key(name) {
        return Err(Stop::fatal(format!("{what} because a bridge named {name} already exists")));
    }
    if let Some(port) = cache.ports.get(name) {
        let bridge = &port.bridge;
        return Err(Stop::fatal(format!(
            "{what} because a port named {name} already exists on bridge {bridge}"
        )));
    }
    if let Some(iface) = cache.ifaces.get(name) {
        let bridge = cache.ports.get(&iface.port).map_or("", |p| &p.bridge);
        let message = format!("{what} because an interface named {name} already exists on bridge {bridge}");
        return Err(Stop::fatal(message));
    }
    Ok(())
}

/// A new Interface row, whose setup by the switch is checked at the end.
fn insert_iface(ctl: &mut C<'_>, name: &str) -> Uuid {
    let uuid = ctl.txn.insert(ctl.idl, "Interface");
    ctl.set("Interface", uuid, "name", text(name));
    ctl.ext.new_ifaces.push(uuid);
    uuid
}

/// A command line as diagnostics quote it.
fn quoted(call: &L, options: &[&str]) -> String {
    let given = options.iter().filter(|o| call.has(o)).copied();
    given.chain(call.args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

fn add_br(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = call.args[1].clone();
    if name.is_empty() {
        return Err(Stop::fatal("bridge name must not be empty string"));
    }
    let fake = match &call.args[2..] {
        [] => None,
        [parent, vlan] => {
            let vlan = leading_integer(vlan);
            if !(0..=4095).contains(&vlan) {
                return Err(Stop::fatal("add-br: vlan must be between 0 and 4095"));
            }
            Some((parent.clone(), vlan))
        }
        _ => return Err(Stop::fatal("'add-br' command takes exactly 1 or 3 arguments")),
    };
    if call.has("--may-exist")
        && let Some(bridge) = cache(ctl).bridges.get(&name).cloned()
    {
        return check_same_bridge(&bridge, &name, fake);
    }
    check_conflicts(ctl, &name, &format!("cannot create a bridge named {name}"))?;
    let ovs = ctl.ext.ovs;
    let Some((parent_name, vlan)) = fake else {
        ctl.verify("Open_vSwitch", ovs, "bridges");
        let iface = insert_iface(ctl, &name);
        ctl.set("Interface", iface, "type", text("internal"));
        let port = ctl.txn.insert(ctl.idl, "Port");
        ctl.set("Port", port, "name", text(&name));
        ctl.set("Port", port, "interfaces", reference(iface));
        let bridge = ctl.txn.insert(ctl.idl, "Bridge");
        ctl.set("Bridge", bridge, "name", text(&name));
        ctl.set("Bridge", bridge, "ports", reference(port));
        ctl.add_to("Open_vSwitch", ovs, "bridges", &reference(bridge));
        cache(ctl).bridges.insert(name.clone(), Bridge { name, uuid: bridge, fake: None });
        return Ok(());
    };
    let Some(parent) = cache(ctl).bridges.get(&parent_name).cloned() else {
        return Err(Stop::fatal(format!("parent bridge {parent_name} does not exist")));
    };
    if parent.fake.is_some() {
        return Err(Stop::fatal("cannot create bridge with fake bridge as parent"));
    }
    if let Some(conflict) = cache(ctl).fake_bridge(&parent_name, vlan) {
        return Err(Stop::fatal(format!(
            "bridge {parent_name} already has a child VLAN bridge {} on VLAN {vlan}",
            conflict.name
        )));
    }
    ctl.verify("Bridge", parent.uuid, "ports");
    let iface = insert_iface(ctl, &name);
    ctl.set("Interface", iface, "type", text("internal"));
    let port = ctl.txn.insert(ctl.idl, "Port");
    ctl.set("Port", port, "name", text(&name));
    ctl.set("Port", port, "interfaces", reference(iface));
    ctl.set("Port", port, "fake_bridge", Datum::scalar(Atom::Boolean(true)));
    ctl.set("Port", port, "tag", Datum::scalar(Atom::Integer(vlan)));
    ctl.add_to("Bridge", parent.uuid, "ports", &reference(port));
    // Ports of the parent with this tag change sides.
    ctl.ext.cache = None;
    Ok(())
}

/// What `--may-exist` accepts as the bridge asked for.
fn check_same_bridge(bridge: &Bridge, name: &str, wanted: Option<(String, i64)>) -> Outcome {
    let message = match (&bridge.fake, wanted) {
        (None, None) => return Ok(()),
        (Some(fake), None) => {
            format!("\"--may-exist add-br {name}\" but {name} is a VLAN bridge for VLAN {}", fake.vlan)
        }
        (found, Some((parent, vlan))) => {
            let command = format!("\"--may-exist add-br {name} {parent} {vlan}\" but {name}");
            match found {
                None => format!("{command} is not a VLAN bridge"),
                Some(fake) if fake.parent != parent => {
                    format!("{command} has the wrong parent {}", fake.parent)
                }
                Some(fake) if fake.vlan != vlan => {
                    format!("{command} is a VLAN bridge for the wrong VLAN {}", fake.vlan)
                }
                Some(_) => return Ok(()),
            }
        }
    };
    Err(Stop::Fatal(message))
}

/// The number at the front of a text, 0 if there is none.
pub fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let digits_from = usize::from(text.starts_with(['-', '+']));
    let end = text.bytes().skip(digits_from).take_while(u8::is_ascii_digit).count() + digits_from;
    let saturated = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    match text[..end].parse() {
        Ok(n) => n,
        Err(_) if end == digits_from => 0,
        Err(_) => saturated,
    }
}

fn del_br(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = &call.args[1];
    if call.has("--if-exists") && !cache(ctl).bridges.contains_key(name) {
        return Ok(());
    }
    let bridge = find_bridge(ctl, name)?;
    match &bridge.fake {
        None => {
            let ovs = ctl.ext.ovs;
            ctl.remove_from("Open_vSwitch", ovs, "bridges", &reference(bridge.uuid));
        }
        Some(Fake { port, .. }) => {
            let gone: Vec<Uuid> = cache(ctl).ports_of(name).map(|p| p.uuid).chain([*port]).collect();
            let gone = Datum::set(gone.into_iter().map(Atom::Uuid));
            ctl.remove_from("Bridge", bridge.uuid, "ports", &gone);
        }
    }
    let uuid = bridge.fake.is_none().then_some(bridge.uuid);
    let cache = cache(ctl);
    let is_child = |b: &Bridge| b.fake.as_ref().is_some_and(|f| f.parent == *name);
    let bridges: Vec<String> =
        cache.bridges.values().filter(|b| b.name == *name || is_child(b)).map(|b| b.name.clone()).collect();
    let mut gone = Vec::new();
    for bridge in &bridges {
        cache.bridges.remove(bridge);
        gone.extend(cache.ports_of(bridge).cloned());
    }
    for port in &gone {
        forget_port(ctl, port);
    }
    if let Some(uuid) = uuid {
        // Its own port is in no cache.
        for port in referenced(ctl, "Bridge", uuid, "ports") {
            for iface in referenced(ctl, "Port", port, "interfaces") {
                ctl.txn.delete_at(ctl.idl, "Interface", iface);
            }
            ctl.txn.delete_at(ctl.idl, "Port", port);
        }
        ctl.txn.delete_at(ctl.idl, "Bridge", uuid);
    }
    Ok(())
}

/// The rows that a column of a row refers to.
fn referenced(ctl: &C<'_>, table: &str, uuid: Uuid, column: &str) -> Vec<Uuid> {
    ctl.row(table, uuid).map(|row| row.uuids(column).collect()).unwrap_or_default()
}

/// A port that nothing refers to any more is no longer there for commands that follow, nor are its interfaces.
fn forget_port(ctl: &mut C<'_>, port: &Port) {
    let ifaces: Vec<Uuid> = cache(ctl).ifaces_of(&port.name).map(|i| i.uuid).collect();
    for uuid in ifaces {
        ctl.txn.delete_at(ctl.idl, "Interface", uuid);
    }
    ctl.txn.delete_at(ctl.idl, "Port", port.uuid);
    cache(ctl).remove_port(&port.name);
}

fn lines<'s>(names: impl Iterator<Item = &'s str>) -> String {
    names.map(|name| format!("{name}\n")).collect()
}

fn list_br(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let (real, fake) = (call.has("--real"), call.has("--fake"));
    let all = real == fake;
    let bridges = cache(ctl).bridges.values().filter(|b| all || fake == b.fake.is_some());
    call.output = lines(bridges.map(|b| b.name.as_str()));
    Ok(())
}

fn br_exists(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    if cache(ctl).bridges.contains_key(&call.args[1]) { Ok(()) } else { Err(Stop::Exit(2)) }
}

fn br_to_vlan(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    call.output = format!("{}\n", bridge.fake.map_or(0, |f| f.vlan));
    Ok(())
}

fn br_to_parent(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    call.output = format!("{}\n", bridge.fake.map_or(bridge.name, |f| f.parent));
    Ok(())
}

/// What goes before the keys of a fake bridge in its port's `external_ids`.
const FAKE_BRIDGE_KEY: &str = "fake-bridge-";

/// Where a bridge's external IDs are: table, row, and prefix of keys.
fn external_ids(bridge: &Bridge) -> (&'static str, Uuid, &'static str) {
    match &bridge.fake {
        None => ("Bridge", bridge.uuid, ""),
        Some(fake) => ("Port", fake.port, FAKE_BRIDGE_KEY),
    }
}

fn br_set_external_id(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    let (table, uuid, prefix) = external_ids(&bridge);
    let key = format!("{prefix}{}", call.args[2]);
    match call.args.get(3) {
        Some(value) => {
            let pair = Datum::map([(Atom::string(key), Atom::string(value.as_str()))]);
            ctl.add_to(table, uuid, "external_ids", &pair);
        }
        None => {
            let current = ctl.row(table, uuid).and_then(|row| row.smap("external_ids").get(&key));
            if let Some(value) = current.map(str::to_string) {
                let pair = Datum::map([(Atom::string(key), Atom::string(value))]);
                ctl.remove_from(table, uuid, "external_ids", &pair);
            }
        }
    }
    Ok(())
}

fn br_get_external_id(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    let (table, uuid, prefix) = external_ids(&bridge);
    let Some(row) = ctl.row(table, uuid) else { return Ok(()) };
    let ids = row.smap("external_ids");
    call.output = match call.args.get(2) {
        Some(key) => ids.get(&format!("{prefix}{key}")).map(|v| format!("{v}\n")).unwrap_or_default(),
        None => {
            let own = ids.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?, v)));
            own.map(|(k, v)| format!("{k}={v}\n")).collect()
        }
    };
    Ok(())
}

fn list_ports(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    call.output = lines(cache(ctl).ports_of(&bridge.name).map(|p| p.name.as_str()));
    Ok(())
}

fn list_ifaces(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    let cache = cache(ctl);
    let on_bridge = |i: &&Iface| cache.ports.get(&i.port).is_some_and(|p| p.bridge == bridge.name);
    call.output = lines(cache.ifaces.values().filter(on_bridge).map(|i| i.name.as_str()));
    Ok(())
}

fn port_to_br(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    call.output = format!("{}\n", find_port(ctl, &call.args[1])?.bridge);
    Ok(())
}

fn iface_to_br(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let iface = find_iface(ctl, &call.args[1])?;
    call.output = format!("{}\n", find_port(ctl, &iface.port)?.bridge);
    Ok(())
}

fn add_port(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let ifaces = [call.args[2].clone()];
    new_port(ctl, call, &ifaces, 3)
}

fn add_bond(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let settings = first_setting(call);
    let ifaces = call.args[3..settings].to_vec();
    new_port(ctl, call, &ifaces, settings)
}

/// Adds a port of one or more interfaces; settings begin at argument `settings`.
fn new_port(ctl: &mut C<'_>, call: &L, ifaces: &[String], settings: usize) -> Outcome {
    let name = &call.args[2];
    if call.has("--may-exist")
        && let Some(port) = cache(ctl).ports.get(name).cloned()
    {
        let mut wanted: Vec<&str> = ifaces.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        let command = || quoted(call, &["--may-exist", "--fake-iface"]);
        if port.bridge != call.args[1] {
            let other = &port.bridge;
            return Err(Stop::fatal(format!(
                "\"{}\" but {name} is actually attached to bridge {other}",
                command()
            )));
        }
        let found: Vec<&str> = cache(ctl).ifaces_of(name).map(|i| i.name.as_str()).collect();
        if found != wanted {
            let found = found.join(", ");
            return Err(Stop::fatal(format!(
                "\"{}\" but {name} actually has interface(s) {found}",
                command()
            )));
        }
        return Ok(());
    }
    if name.is_empty() {
        return Err(Stop::fatal("port name must not be empty string"));
    }
    check_conflicts(ctl, name, &format!("cannot create a port named {name}"))?;
    for iface in ifaces {
        check_conflicts(ctl, iface, &format!("cannot create an interface named {iface}"))?;
    }
    let bridge = find_bridge(ctl, &call.args[1])?;
    ctl.verify("Bridge", bridge.uuid, "ports");
    let rows: Vec<Uuid> = ifaces.iter().map(|iface| insert_iface(ctl, iface)).collect();
    let port = ctl.txn.insert(ctl.idl, "Port");
    ctl.set("Port", port, "name", text(name));
    ctl.set("Port", port, "interfaces", Datum::set(rows.iter().copied().map(Atom::Uuid)));
    if call.has("--fake-iface") {
        ctl.set("Port", port, "bond_fake_iface", Datum::scalar(Atom::Boolean(true)));
    }
    if let Some(fake) = &bridge.fake {
        ctl.set("Port", port, "tag", Datum::scalar(Atom::Integer(fake.vlan)));
    }
    ctl.add_to("Bridge", bridge.uuid, "ports", &reference(port));
    let cache = cache(ctl);
    let bridge = bridge.name;
    cache.ports.insert(name.clone(), Port { name: name.clone(), uuid: port, bridge });
    for (iface, uuid) in ifaces.iter().zip(rows) {
        cache.ifaces.insert(iface.clone(), Iface { name: iface.clone(), uuid, port: name.clone() });
    }
    // Settings may change what the cache is made from; then it goes.
    apply_settings(ctl, "Port", port, &call.args[settings..])
}

fn add_bond_iface(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let port = find_port(ctl, &call.args[1])?;
    let name = &call.args[2];
    if call.has("--may-exist")
        && let Some(iface) = cache(ctl).ifaces.get(name)
    {
        if iface.port == port.name {
            return Ok(());
        }
        let command = quoted(call, &["--may-exist"]);
        return Err(Stop::fatal(format!(
            "\"{command}\" but {name} is actually attached to port {}",
            iface.port
        )));
    }
    check_conflicts(ctl, name, &format!("cannot create an interface named {name}"))?;
    ctl.verify("Port", port.uuid, "interfaces");
    let uuid = insert_iface(ctl, name);
    ctl.add_to("Port", port.uuid, "interfaces", &reference(uuid));
    let iface = Iface { name: name.clone(), uuid, port: port.name };
    cache(ctl).ifaces.insert(name.clone(), iface);
    Ok(())
}

fn del_bond_iface(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = call.args[call.argc() - 1].clone();
    let Some(iface) = cache(ctl).ifaces.get(&name).cloned() else {
        if call.has("--if-exists") {
            return Ok(());
        }
        return Err(Stop::fatal(format!("no interface named {name}")));
    };
    if call.argc() > 2 {
        let bond = find_port(ctl, &call.args[1])?;
        if iface.port != bond.name {
            return Err(Stop::fatal(format!("port {} does not have an interface {name}", bond.name)));
        }
    }
    let port = find_port(ctl, &iface.port)?;
    if cache(ctl).ifaces_of(&port.name).count() < 2 {
        return Err(Stop::fatal(format!("cannot delete last interface from port {}", port.name)));
    }
    ctl.verify("Port", port.uuid, "interfaces");
    ctl.remove_from("Port", port.uuid, "interfaces", &reference(iface.uuid));
    ctl.txn.delete_at(ctl.idl, "Interface", iface.uuid);
    cache(ctl).ifaces.remove(&name);
    Ok(())
}

fn del_port(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let must_exist = !call.has("--if-exists");
    let target = call.args[call.argc() - 1].clone();
    if cache(ctl).bridges.contains_key(&target) {
        if !must_exist {
            return Ok(());
        }
        return Err(Stop::fatal(format!(
            "cannot delete port {target} because it is the local port for bridge {target} (deleting this port requires deleting the entire bridge)"
        )));
    }
    let with_iface = call.has("--with-iface");
    let mut found = cache(ctl).ports.get(&target).cloned();
    if found.is_none() && with_iface {
        let port = cache(ctl).ifaces.get(&target).map(|i| i.port.clone());
        found = port.and_then(|port| cache(ctl).ports.get(&port).cloned());
    }
    let Some(port) = found else {
        return match (must_exist, with_iface) {
            (false, _) => Ok(()),
            (true, false) => Err(Stop::fatal(format!("no port named {target}"))),
            (true, true) => Err(Stop::fatal(format!("no port or interface named {target}"))),
        };
    };
    let owner = find_bridge(ctl, &port.bridge)?;
    if call.argc() > 2 {
        let bridge = find_bridge(ctl, &call.args[1])?;
        if bridge.name != owner.name {
            let is_child = owner.fake.as_ref().is_some_and(|f| f.parent == bridge.name);
            let note = if is_child {
                format!(" (although its child bridge {} does)", owner.name)
            } else {
                String::new()
            };
            return Err(Stop::fatal(format!("bridge {} does not have a port {target}{note}", bridge.name)));
        }
    }
    ctl.remove_from("Bridge", owner.uuid, "ports", &reference(port.uuid));
    forget_port(ctl, &port);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_front() {
        for (text, expect) in
            [("10", 10), ("-1", -1), ("12ab", 12), ("abc", 0), ("", 0), ("99999999999999999999", i64::MAX)]
        {
            assert_eq!(leading_integer(text), expect, "{text}");
        }
    }
}
