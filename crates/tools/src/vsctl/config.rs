//! Commands on what surrounds the bridges: controllers, managers, TLS, Auto Attach, conntrack zones, emergency reset.

use super::State;
use super::bridges::{command, find_bridge, find_real_bridge, leading_integer, prepare as prepare_bridges};
use crate::dbctl::targets::{delete_referenced, set_targets, sorted_lines};
use crate::dbctl::{Call, Command, Ctl, Outcome, Preparation, Stop};
use ib_ovsdb::{Atom, Datum, Uuid};

type C<'a> = Ctl<'a, State>;
type L = Call<State>;

/// The commands of this file.
pub const COMMANDS: &[Command<State>] = &[
    command!("init", 0, Some(0), "", &[], RW, prepare_top, init),
    command!("emer-reset", 0, Some(0), "", &[], RW, prepare_reset, emer_reset),
    command!("get-controller", 1, Some(1), "!BRIDGE", &[], RO, prepare_controller, get_controller),
    command!("del-controller", 1, Some(1), "!BRIDGE", &[], RW, prepare_controller, del_controller),
    command!(
        "set-controller",
        1,
        None,
        "!BRIDGE +TARGET",
        &["--inactivity-probe="],
        RW,
        prepare_controller,
        set_controller
    ),
    command!("get-fail-mode", 1, Some(1), "!BRIDGE", &[], RO, prepare_controller, get_fail_mode),
    command!("del-fail-mode", 1, Some(1), "!BRIDGE", &[], RW, prepare_controller, del_fail_mode),
    command!("set-fail-mode", 2, Some(2), "!BRIDGE !MODE", &[], RW, prepare_controller, set_fail_mode),
    command!("get-manager", 0, Some(0), "", &[], RO, prepare_manager, get_manager),
    command!("del-manager", 0, Some(0), "", &[], RW, prepare_manager, del_manager),
    command!("set-manager", 1, None, "+TARGET", &["--inactivity-probe="], RW, prepare_manager, set_manager),
    command!("get-ssl", 0, Some(0), "", &[], RO, prepare_ssl, get_ssl),
    command!("del-ssl", 0, Some(0), "", &[], RW, prepare_ssl, del_ssl),
    command!(
        "set-ssl",
        3,
        Some(3),
        "!PRIVATE-KEY !CERTIFICATE !CA-CERT",
        &["--bootstrap"],
        RW,
        prepare_ssl,
        set_ssl
    ),
    command!("add-aa-mapping", 3, Some(3), "!BRIDGE !ARG !ARG", &[], RW, prepare_auto_attach, add_aa_mapping),
    command!("del-aa-mapping", 3, Some(3), "!BRIDGE !ARG !ARG", &[], RW, prepare_auto_attach, del_aa_mapping),
    command!("get-aa-mapping", 1, Some(1), "!BRIDGE", &[], RO, prepare_auto_attach, get_aa_mapping),
    command!("add-zone-tp", 2, None, "", &["--may-exist"], RW, prepare_zones, add_zone_tp),
    command!("del-zone-tp", 2, Some(2), "", &["--if-exists"], RW, prepare_zones, del_zone_tp),
    command!("list-zone-tp", 1, Some(1), "", &[], RO, prepare_zones, list_zone_tp),
    command!("set-zone-limit", 3, Some(3), "!ARG !ARG !ARG", &[], RW, prepare_zones, set_zone_limit),
    command!("del-zone-limit", 2, Some(2), "!ARG !ARG", &["--if-exists"], RW, prepare_zones, del_zone_limit),
    command!("list-zone-limits", 1, Some(1), "!ARG", &[], RO, prepare_zones, list_zone_limits),
    command!("list-dp-cap", 1, Some(1), "", &[], RO, prepare_zones, list_dp_cap),
];

fn register(prep: &mut Preparation<'_>, columns: &[(&str, &[&str])]) {
    for (table, columns) in columns {
        columns.iter().for_each(|column| prep.idl.register_column(table, column));
    }
}

fn prepare_top(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    prep.idl.register_table("Open_vSwitch");
    Ok(())
}

fn init(_: &mut C<'_>, _: &mut L) -> Outcome {
    Ok(())
}

fn prepare_reset(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    register(
        prep,
        &[
            ("Open_vSwitch", &["bridges", "manager_options", "ssl"]),
            ("Bridge", &["controller", "fail_mode", "mirrors", "netflow", "sflow", "ipfix", "flood_vlans"]),
            ("Bridge", &["ports", "other_config"]),
            ("Port", &["other_config"]),
            ("Interface", &["ingress_policing_rate", "ingress_policing_burst"]),
            ("Interface", &["ingress_policing_kpkts_rate", "ingress_policing_kpkts_burst"]),
        ],
    );
    Ok(())
}

fn rows(ctl: &C<'_>, table: &str) -> Vec<Uuid> {
    ctl.view().rows(table).map(|row| row.uuid()).collect()
}

fn emer_reset(ctl: &mut C<'_>, _: &mut L) -> Outcome {
    let ovs = ctl.ext.ovs;
    for column in ["manager_options", "ssl"] {
        ctl.set("Open_vSwitch", ovs, column, Datum::EMPTY);
    }
    for bridge in rows(ctl, "Bridge") {
        for column in ["controller", "fail_mode", "mirrors", "netflow", "sflow", "ipfix", "flood_vlans"] {
            ctl.set("Bridge", bridge, column, Datum::EMPTY);
        }
        // The address identifies the host to others; everything else can be configured anew.
        let address = ctl.row("Bridge", bridge).and_then(|row| row.smap("other_config").get("hwaddr"));
        let kept = address.map(|address| (Atom::string("hwaddr"), Atom::string(address)));
        let kept = Datum::map(kept);
        ctl.set("Bridge", bridge, "other_config", kept);
    }
    for port in rows(ctl, "Port") {
        ctl.set("Port", port, "other_config", Datum::EMPTY);
    }
    for iface in rows(ctl, "Interface") {
        for column in [
            "ingress_policing_rate",
            "ingress_policing_burst",
            "ingress_policing_kpkts_rate",
            "ingress_policing_kpkts_burst",
        ] {
            ctl.set("Interface", iface, column, Datum::scalar(Atom::Integer(0)));
        }
    }
    Ok(())
}

fn prepare_controller(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    register(
        prep,
        &[("Bridge", &["controller", "fail_mode"]), ("Controller", &["target", "inactivity_probe"])],
    );
    prepare_bridges(prep, call)
}

fn get_controller(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    let Some(row) = ctl.row("Bridge", bridge.uuid) else { return Ok(()) };
    call.output = sorted_lines(row.refs("controller").map(|c| c.str("target")));
    Ok(())
}

fn del_controller(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_real_bridge(ctl, &call.args[1])?;
    ctl.verify("Bridge", bridge.uuid, "controller");
    delete_referenced(ctl, "Bridge", bridge.uuid, "controller", "Controller");
    Ok(())
}

fn set_controller(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_real_bridge(ctl, &call.args[1])?;
    ctl.verify("Bridge", bridge.uuid, "controller");
    set_targets(ctl, call, &call.args[2..], ("Bridge", bridge.uuid, "controller"), "Controller");
    Ok(())
}

fn get_fail_mode(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?;
    let mode = ctl.row("Bridge", bridge.uuid).map_or("", |row| row.str("fail_mode"));
    if !mode.is_empty() {
        call.output = format!("{mode}\n");
    }
    Ok(())
}

fn del_fail_mode(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_real_bridge(ctl, &call.args[1])?;
    ctl.set("Bridge", bridge.uuid, "fail_mode", Datum::EMPTY);
    Ok(())
}

fn set_fail_mode(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_real_bridge(ctl, &call.args[1])?;
    let mode = call.args[2].as_str();
    if mode != "standalone" && mode != "secure" {
        return Err(Stop::fatal("fail-mode must be \"standalone\" or \"secure\""));
    }
    ctl.set("Bridge", bridge.uuid, "fail_mode", Datum::scalar(Atom::string(mode)));
    Ok(())
}

fn prepare_manager(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    register(prep, &[("Open_vSwitch", &["manager_options"]), ("Manager", &["target", "inactivity_probe"])]);
    Ok(())
}

fn get_manager(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let Some(row) = ctl.row("Open_vSwitch", ctl.ext.ovs) else { return Ok(()) };
    call.output = sorted_lines(row.refs("manager_options").map(|m| m.str("target")));
    Ok(())
}

fn del_manager(ctl: &mut C<'_>, _: &mut L) -> Outcome {
    let ovs = ctl.ext.ovs;
    ctl.verify("Open_vSwitch", ovs, "manager_options");
    delete_referenced(ctl, "Open_vSwitch", ovs, "manager_options", "Manager");
    Ok(())
}

fn set_manager(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let ovs = ctl.ext.ovs;
    ctl.verify("Open_vSwitch", ovs, "manager_options");
    set_targets(ctl, call, &call.args[1..], ("Open_vSwitch", ovs, "manager_options"), "Manager");
    Ok(())
}

fn prepare_ssl(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    register(
        prep,
        &[
            ("Open_vSwitch", &["ssl"]),
            ("SSL", &["private_key", "certificate", "ca_cert", "bootstrap_ca_cert"]),
        ],
    );
    Ok(())
}

fn get_ssl(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let Some(ovs) = ctl.row("Open_vSwitch", ctl.ext.ovs) else { return Ok(()) };
    if let Some(ssl) = ovs.ref_opt("ssl") {
        call.output = format!(
            "Private key: {}\nCertificate: {}\nCA Certificate: {}\nBootstrap: {}\n",
            ssl.str("private_key"),
            ssl.str("certificate"),
            ssl.str("ca_cert"),
            ssl.bool("bootstrap_ca_cert")
        );
    }
    Ok(())
}

fn del_ssl(ctl: &mut C<'_>, _: &mut L) -> Outcome {
    let ovs = ctl.ext.ovs;
    ctl.verify("Open_vSwitch", ovs, "ssl");
    delete_referenced(ctl, "Open_vSwitch", ovs, "ssl", "SSL");
    Ok(())
}

fn set_ssl(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    del_ssl(ctl, call)?;
    let uuid = ctl.txn.insert(ctl.idl, "SSL");
    for (column, value) in ["private_key", "certificate", "ca_cert"].iter().zip(&call.args[1..]) {
        ctl.set("SSL", uuid, column, Datum::scalar(Atom::string(value.as_str())));
    }
    ctl.set("SSL", uuid, "bootstrap_ca_cert", Datum::scalar(Atom::Boolean(call.has("--bootstrap"))));
    let ovs = ctl.ext.ovs;
    ctl.set("Open_vSwitch", ovs, "ssl", Datum::scalar(Atom::Uuid(uuid)));
    Ok(())
}

fn prepare_auto_attach(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    register(prep, &[("Bridge", &["auto_attach"]), ("AutoAttach", &["mappings"])]);
    prepare_bridges(prep, call)
}

/// The I-SID and VLAN of a mapping command. What follows a number is not looked at, as in the original: `0x5` is 0.
fn mapping(call: &L) -> Outcome<Datum> {
    let number = |text: &String| {
        let unsigned = text.trim_start();
        let digits = unsigned.strip_prefix(['+', '-']).unwrap_or(unsigned);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Stop::fatal(format!("Invalid argument {text}")));
        }
        Ok(leading_integer(text))
    };
    Ok(Datum::map([(Atom::Integer(number(&call.args[2])?), Atom::Integer(number(&call.args[3])?))]))
}

fn auto_attach(ctl: &C<'_>, bridge: Uuid) -> Option<Uuid> {
    Some(ctl.row("Bridge", bridge)?.ref_opt("auto_attach")?.uuid())
}

fn add_aa_mapping(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let mapping = mapping(call)?;
    let bridge = find_bridge(ctl, &call.args[1])?.uuid;
    let uuid = match auto_attach(ctl, bridge) {
        Some(uuid) => uuid,
        None => {
            let uuid = ctl.txn.insert(ctl.idl, "AutoAttach");
            ctl.set("Bridge", bridge, "auto_attach", Datum::scalar(Atom::Uuid(uuid)));
            uuid
        }
    };
    ctl.add_to("AutoAttach", uuid, "mappings", &mapping);
    Ok(())
}

fn del_aa_mapping(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let mapping = mapping(call)?;
    let bridge = find_bridge(ctl, &call.args[1])?.uuid;
    if let Some(uuid) = auto_attach(ctl, bridge) {
        let present = ctl.row("AutoAttach", uuid).is_some_and(|r| mapping.is_subset_of(r.get("mappings")));
        if present {
            ctl.remove_from("AutoAttach", uuid, "mappings", &mapping);
        }
    }
    Ok(())
}

fn get_aa_mapping(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let bridge = find_bridge(ctl, &call.args[1])?.uuid;
    let Some(row) = auto_attach(ctl, bridge).and_then(|uuid| ctl.row("AutoAttach", uuid)) else {
        return Ok(());
    };
    let pairs = row.get("mappings").as_map().iter();
    call.output = pairs.map(|(isid, vlan)| format!("{} {}\n", isid.to_text(), vlan.to_text())).collect();
    Ok(())
}

fn prepare_zones(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    register(
        prep,
        &[
            ("Open_vSwitch", &["datapaths"]),
            ("Datapath", &["ct_zones", "capabilities", "ct_zone_default_limit"]),
            ("CT_Zone", &["timeout_policy", "limit"]),
            ("CT_Timeout_Policy", &["timeouts"]),
        ],
    );
    Ok(())
}

fn find_datapath(ctl: &C<'_>, name: &str) -> Option<Uuid> {
    let ovs = ctl.row("Open_vSwitch", ctl.ext.ovs)?;
    ovs.get("datapaths").value_of(&Atom::string(name))?.as_uuid()
}

fn datapath_to_change(ctl: &C<'_>, name: &str) -> Outcome<Uuid> {
    find_datapath(ctl, name).ok_or_else(|| Stop::fatal(format!("datapath {name} does not exist")))
}

fn datapath_to_list(ctl: &C<'_>, name: &str) -> Outcome<Uuid> {
    find_datapath(ctl, name).ok_or_else(|| Stop::fatal(format!("datapath: {name} record not found")))
}

fn find_zone(ctl: &C<'_>, datapath: Uuid, zone: i64) -> Option<Uuid> {
    let row = ctl.row("Datapath", datapath)?;
    row.get("ct_zones").value_of(&Atom::Integer(zone))?.as_uuid()
}

/// The zone of `zone=ID`.
fn zone_id(argument: &str) -> Outcome<i64> {
    let id = argument.strip_prefix("zone=").and_then(|id| id.parse().ok());
    id.ok_or_else(|| Stop::fatal(format!("{argument}: zone must be of the form zone=ID")))
}

fn new_zone(ctl: &mut C<'_>, datapath: Uuid, zone: i64) -> Uuid {
    let uuid = ctl.txn.insert(ctl.idl, "CT_Zone");
    let pair = Datum::map([(Atom::Integer(zone), Atom::Uuid(uuid))]);
    ctl.add_to("Datapath", datapath, "ct_zones", &pair);
    uuid
}

fn drop_zone(ctl: &mut C<'_>, datapath: Uuid, zone: i64, uuid: Uuid) {
    let pair = Datum::map([(Atom::Integer(zone), Atom::Uuid(uuid))]);
    ctl.remove_from("Datapath", datapath, "ct_zones", &pair);
}

fn add_zone_tp(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    if call.argc() < 4 && !call.has("--may-exist") {
        return Err(Stop::fatal("'add-zone-tp' command requires at least 3 arguments"));
    }
    let datapath = datapath_to_change(ctl, &call.args[1])?;
    let zone = zone_id(&call.args[2])?;
    let existing = find_zone(ctl, datapath, zone);
    let has_policy = existing
        .and_then(|uuid| ctl.row("CT_Zone", uuid))
        .is_some_and(|row| !row.get("timeout_policy").is_empty());
    if has_policy && !call.has("--may-exist") {
        return Err(Stop::fatal(format!("zone id {zone} already exists")));
    }
    let timeouts = call.args[3..].iter().map(|policy| {
        let (key, value) = policy.split_once('=').unwrap_or((policy, ""));
        (Atom::string(key), Atom::Integer(leading_integer(value)))
    });
    let policy = ctl.txn.insert(ctl.idl, "CT_Timeout_Policy");
    ctl.set("CT_Timeout_Policy", policy, "timeouts", Datum::map(timeouts));
    let uuid = match existing {
        Some(uuid) => uuid,
        None => new_zone(ctl, datapath, zone),
    };
    ctl.set("CT_Zone", uuid, "timeout_policy", Datum::scalar(Atom::Uuid(policy)));
    Ok(())
}

fn del_zone_tp(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let datapath = datapath_to_change(ctl, &call.args[1])?;
    let zone = zone_id(&call.args[2])?;
    let found = find_zone(ctl, datapath, zone).and_then(|uuid| ctl.row("CT_Zone", uuid));
    let Some(row) = found else {
        if call.has("--if-exists") {
            return Ok(());
        }
        return Err(Stop::fatal(format!("zone id {zone} does not exist")));
    };
    let (uuid, has_limit) = (row.uuid(), !row.get("limit").is_empty());
    if has_limit {
        ctl.set("CT_Zone", uuid, "timeout_policy", Datum::EMPTY);
    } else {
        drop_zone(ctl, datapath, zone, uuid);
    }
    Ok(())
}

fn list_zone_tp(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let datapath = datapath_to_list(ctl, &call.args[1])?;
    let Some(row) = ctl.row("Datapath", datapath) else { return Ok(()) };
    for (zone, zone_row) in row.int_refs("ct_zones") {
        call.output.push_str(&format!("Zone:{zone}, Timeout Policies:"));
        match zone_row.ref_opt("timeout_policy") {
            Some(policy) => {
                for (key, value) in policy.get("timeouts").as_map() {
                    call.output.push_str(&format!(" {}={}", key.as_str().unwrap_or(""), value.to_text()));
                }
                call.output.push('\n');
            }
            None => call.output.push_str(" system default\n"),
        }
    }
    Ok(())
}

/// The zone of a limit command, `None` for the default.
fn limited_zone(argument: &str) -> Outcome<Option<i64>> {
    if argument == "default" {
        return Ok(None);
    }
    match argument.parse().ok().filter(|zone| (0..=65535).contains(zone)) {
        Some(zone) => Ok(Some(zone)),
        None => Err(Stop::fatal(format!("zone id ({argument}) is not within range 0 - 65535"))),
    }
}

fn set_zone_limit(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let datapath = datapath_to_change(ctl, &call.args[1])?;
    let zone = limited_zone(&call.args[2])?;
    let limit = call.args[3].parse().ok().filter(|limit| (0..=i64::from(u32::MAX)).contains(limit));
    let Some(limit) = limit else {
        return Err(Stop::fatal(format!("limit ({}) is not within range 0 - {}", call.args[3], u32::MAX)));
    };
    let limit = Datum::scalar(Atom::Integer(limit));
    match zone {
        None => ctl.set("Datapath", datapath, "ct_zone_default_limit", limit),
        Some(zone) => {
            let uuid = match find_zone(ctl, datapath, zone) {
                Some(uuid) => uuid,
                None => new_zone(ctl, datapath, zone),
            };
            ctl.set("CT_Zone", uuid, "limit", limit);
        }
    }
    Ok(())
}

fn del_zone_limit(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let datapath = datapath_to_change(ctl, &call.args[1])?;
    let must_exist = !call.has("--if-exists");
    let Some(zone) = limited_zone(&call.args[2])? else {
        let is_set =
            ctl.row("Datapath", datapath).is_some_and(|r| !r.get("ct_zone_default_limit").is_empty());
        if !is_set && must_exist {
            return Err(Stop::fatal(format!("datapath {} does not have a limit", call.args[1])));
        }
        ctl.set("Datapath", datapath, "ct_zone_default_limit", Datum::EMPTY);
        return Ok(());
    };
    let found = find_zone(ctl, datapath, zone).and_then(|uuid| ctl.row("CT_Zone", uuid));
    let Some(row) = found.filter(|row| !row.get("limit").is_empty()) else {
        if must_exist {
            return Err(Stop::fatal(format!("zone_id {zone} does not have limit")));
        }
        return Ok(());
    };
    let (uuid, has_policy) = (row.uuid(), !row.get("timeout_policy").is_empty());
    if has_policy {
        ctl.set("CT_Zone", uuid, "limit", Datum::EMPTY);
    } else {
        drop_zone(ctl, datapath, zone, uuid);
    }
    Ok(())
}

fn list_zone_limits(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let datapath = datapath_to_list(ctl, &call.args[1])?;
    let Some(row) = ctl.row("Datapath", datapath) else { return Ok(()) };
    if let Some(limit) = row.int_opt("ct_zone_default_limit") {
        call.output.push_str(&format!("Default limit: {limit}\n"));
    }
    for (zone, zone_row) in row.int_refs("ct_zones") {
        if let Some(limit) = zone_row.int_opt("limit") {
            call.output.push_str(&format!("Zone: {zone}, Limit: {limit}\n"));
        }
    }
    Ok(())
}

fn list_dp_cap(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = &call.args[1];
    let found = find_datapath(ctl, name).and_then(|uuid| ctl.row("Datapath", uuid));
    let Some(row) = found else {
        return Err(Stop::fatal(format!("datapath \"{name}\" record not found")));
    };
    let pairs: Vec<String> = row.smap("capabilities").iter().map(|(k, v)| format!("{k}={v}")).collect();
    call.output = format!("{}\n", pairs.join(" "));
    Ok(())
}
