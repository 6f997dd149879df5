//! Commands on physical switches and their ports, logical switches and routers, and managers.

use super::{C, L, State};
use crate::dbctl::targets::{delete_referenced, set_targets, sorted_lines};
use crate::dbctl::{Command, Outcome, Preparation, Stop};
use crate::vsctl::leading_integer;
use ib_ovsdb::{Atom, Datum, Uuid};

macro_rules! commands {
    ($($name:literal $min:literal $max:expr, $mode:ident $options:expr, $run:expr;)*) => {
        &[$(Command {
            name: $name,
            min_args: $min,
            max_args: $max,
            arguments: "",
            options: $options,
            writes: commands!(@$mode),
            prepare: Some(prepare),
            run: $run,
        },)*]
    };
    (@RO) => { false };
    (@RW) => { true };
}
pub(super) use commands;

const MAY_EXIST: &[&str] = &["--may-exist"];
const IF_EXISTS: &[&str] = &["--if-exists"];

/// The commands of this file.
pub const COMMANDS: &[Command<State>] = commands! {
    "get-manager" 0 Some(0), RO &[], get_manager;
    "del-manager" 0 Some(0), RW &[], del_manager;
    "set-manager" 1 None, RW &["--inactivity-probe="], set_manager;
    "add-ps" 1 Some(1), RW MAY_EXIST, add_ps;
    "del-ps" 1 Some(1), RW IF_EXISTS, del_ps;
    "list-ps" 0 Some(0), RO &[], list_ps;
    "ps-exists" 1 Some(1), RO &[], ps_exists;
    "list-ports" 1 Some(1), RO &[], list_ports;
    "add-port" 2 Some(2), RW MAY_EXIST, add_port;
    "del-port" 2 Some(2), RW IF_EXISTS, del_port;
    "add-ls" 1 Some(1), RW MAY_EXIST, |ctl, call| add_named(ctl, call, LOGICAL_SWITCH);
    "del-ls" 1 Some(1), RW IF_EXISTS, |ctl, call| del_named(ctl, call, LOGICAL_SWITCH);
    "list-ls" 0 Some(0), RO &[], |ctl, call| list_named(ctl, call, LOGICAL_SWITCH);
    "ls-exists" 1 Some(1), RO &[], |ctl, call| named_exists(ctl, call, LOGICAL_SWITCH);
    // Read-only by the flag, as the original has it: the flag decides whether the log shows the command line.
    "bind-ls" 4 Some(4), RO &[], bind_ls;
    "unbind-ls" 3 Some(3), RW &[], unbind_ls;
    "list-bindings" 2 Some(2), RO &[], list_bindings;
    "set-replication-mode" 2 Some(2), RW &[], set_replication_mode;
    "get-replication-mode" 1 Some(1), RO &[], get_replication_mode;
    "add-lr" 1 Some(1), RW MAY_EXIST, |ctl, call| add_named(ctl, call, LOGICAL_ROUTER);
    "del-lr" 1 Some(1), RW IF_EXISTS, |ctl, call| del_named(ctl, call, LOGICAL_ROUTER);
    "list-lr" 0 Some(0), RO &[], |ctl, call| list_named(ctl, call, LOGICAL_ROUTER);
    "lr-exists" 1 Some(1), RO &[], |ctl, call| named_exists(ctl, call, LOGICAL_ROUTER);
};

/// Registers what the commands of this file read.
pub fn prepare(prep: &mut Preparation<'_>, _: &L) -> Outcome {
    const SOURCES: &[(&str, &[&str])] = &[
        ("Global", &["managers", "switches"]),
        ("Manager", &["target", "inactivity_probe"]),
        ("Physical_Switch", &["name", "ports"]),
        ("Physical_Port", &["name", "vlan_bindings"]),
        ("Logical_Switch", &["name", "replication_mode"]),
        ("Logical_Router", &["name"]),
    ];
    for (table, columns) in SOURCES {
        columns.iter().for_each(|column| prep.idl.register_column(table, column));
    }
    Ok(())
}

/// A table of rows that stand for themselves, and what messages call them.
type Kind = (&'static str, &'static str);

const LOGICAL_SWITCH: Kind = ("Logical_Switch", "logical switch");
const LOGICAL_ROUTER: Kind = ("Logical_Router", "logical router");

fn text(value: &str) -> Datum {
    Datum::scalar(Atom::string(value))
}

fn named(ctl: &C<'_>, table: &str, name: &str) -> Option<Uuid> {
    ctl.view().rows(table).find(|row| row.str("name") == name).map(|row| row.uuid())
}

/// The logical switch `name`, which must exist.
pub fn logical_switch(ctl: &C<'_>, name: &str) -> Outcome<Uuid> {
    named(ctl, LOGICAL_SWITCH.0, name).ok_or_else(|| Stop::fatal(format!("no logical switch named {name}")))
}

fn add_named(ctl: &mut C<'_>, call: &mut L, (table, what): Kind) -> Outcome {
    let name = &call.args[1];
    if named(ctl, table, name).is_some() {
        if call.has("--may-exist") {
            return Ok(());
        }
        return Err(Stop::fatal(format!("cannot create {what} {name} because it already exists")));
    }
    let uuid = ctl.txn.insert(ctl.idl, table);
    ctl.set(table, uuid, "name", text(name));
    Ok(())
}

fn del_named(ctl: &mut C<'_>, call: &mut L, (table, what): Kind) -> Outcome {
    let name = &call.args[1];
    match named(ctl, table, name) {
        Some(uuid) => ctl.txn.delete_at(ctl.idl, table, uuid),
        None if call.has("--if-exists") => {}
        None => return Err(Stop::fatal(format!("no {what} named {name}"))),
    }
    Ok(())
}

fn list_named(ctl: &mut C<'_>, call: &mut L, (table, _): Kind) -> Outcome {
    call.output = sorted_lines(ctl.view().rows(table).map(|row| row.str("name")));
    Ok(())
}

fn exists(found: bool) -> Outcome {
    if found { Ok(()) } else { Err(Stop::Exit(2)) }
}

fn named_exists(ctl: &mut C<'_>, call: &mut L, (table, _): Kind) -> Outcome {
    exists(named(ctl, table, &call.args[1]).is_some())
}

fn get_manager(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let Some(row) = ctl.row("Global", ctl.ext.global) else { return Ok(()) };
    call.output = sorted_lines(row.refs("managers").map(|m| m.str("target")));
    Ok(())
}

fn del_manager(ctl: &mut C<'_>, _: &mut L) -> Outcome {
    let global = ctl.ext.global;
    ctl.verify("Global", global, "managers");
    delete_referenced(ctl, "Global", global, "managers", "Manager");
    Ok(())
}

fn set_manager(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let global = ctl.ext.global;
    ctl.verify("Global", global, "managers");
    set_targets(ctl, call, &call.args[1..], ("Global", global, "managers"), "Manager");
    Ok(())
}

fn find_ps(ctl: &C<'_>, name: &str) -> Option<Uuid> {
    let global = ctl.row("Global", ctl.ext.global)?;
    global.refs("switches").find(|row| row.str("name") == name).map(|row| row.uuid())
}

/// The physical switch `name`, which must exist.
fn physical_switch(ctl: &C<'_>, name: &str) -> Outcome<Uuid> {
    find_ps(ctl, name).ok_or_else(|| Stop::fatal(format!("no physical switch named {name}")))
}

fn add_ps(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = &call.args[1];
    if find_ps(ctl, name).is_some() {
        if call.has("--may-exist") {
            return Ok(());
        }
        let message = format!("cannot create physical switch {name} because it already exists");
        return Err(Stop::Fatal(message));
    }
    let global = ctl.ext.global;
    ctl.verify("Global", global, "switches");
    let uuid = ctl.txn.insert(ctl.idl, "Physical_Switch");
    ctl.set("Physical_Switch", uuid, "name", text(name));
    ctl.add_to("Global", global, "switches", &Datum::scalar(Atom::Uuid(uuid)));
    Ok(())
}

fn del_ps(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let name = &call.args[1];
    if call.has("--if-exists") && find_ps(ctl, name).is_none() {
        return Ok(());
    }
    let uuid = physical_switch(ctl, name)?;
    let global = ctl.ext.global;
    ctl.remove_from("Global", global, "switches", &Datum::scalar(Atom::Uuid(uuid)));
    Ok(())
}

fn list_ps(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let Some(global) = ctl.row("Global", ctl.ext.global) else { return Ok(()) };
    call.output = sorted_lines(global.refs("switches").map(|row| row.str("name")));
    Ok(())
}

fn ps_exists(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    exists(find_ps(ctl, &call.args[1]).is_some())
}

/// A port by its switch and name: switches may have ports of the same name.
fn find_port(ctl: &C<'_>, ps: &str, name: &str) -> Option<(Uuid, Uuid)> {
    let ps = find_ps(ctl, ps)?;
    let port = ctl.row("Physical_Switch", ps)?.refs("ports").find(|row| row.str("name") == name)?.uuid();
    Some((ps, port))
}

fn port(ctl: &C<'_>, call: &L) -> Outcome<(Uuid, Uuid)> {
    let name = &call.args[2];
    find_port(ctl, &call.args[1], name).ok_or_else(|| Stop::fatal(format!("no port named {name}")))
}

fn list_ports(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let ps = physical_switch(ctl, &call.args[1])?;
    let Some(row) = ctl.row("Physical_Switch", ps) else { return Ok(()) };
    call.output = sorted_lines(row.refs("ports").map(|port| port.str("name")));
    Ok(())
}

fn add_port(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let (ps_name, name) = (&call.args[1], &call.args[2]);
    let ps = physical_switch(ctl, ps_name)?;
    if find_port(ctl, ps_name, name).is_some() {
        if call.has("--may-exist") {
            return Ok(());
        }
        return Err(Stop::fatal(format!(
            "cannot create a port named {name} on {ps_name} because a port with that name already exists"
        )));
    }
    ctl.verify("Physical_Switch", ps, "ports");
    let uuid = ctl.txn.insert(ctl.idl, "Physical_Port");
    ctl.set("Physical_Port", uuid, "name", text(name));
    ctl.add_to("Physical_Switch", ps, "ports", &Datum::scalar(Atom::Uuid(uuid)));
    Ok(())
}

fn del_port(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    if call.has("--if-exists") && find_port(ctl, &call.args[1], &call.args[2]).is_none() {
        return Ok(());
    }
    let (ps, port) = port(ctl, call)?;
    ctl.remove_from("Physical_Switch", ps, "ports", &Datum::scalar(Atom::Uuid(port)));
    Ok(())
}

/// The binding of a VLAN, which commands name as it is printed: `007` is none, and `x` neither.
fn binding(ctl: &C<'_>, port: Uuid, vlan: &str) -> Option<Datum> {
    let row = ctl.row("Physical_Port", port)?;
    let pair = row.get("vlan_bindings").as_map().iter().find(|(key, _)| key.to_text() == vlan)?;
    Some(Datum::map([(pair.0.clone(), pair.1.clone())]))
}

/// A VLAN to bind: the number at the front of a text, hexadecimal behind `0x`, octal behind `0`, and 0 if there is none.
fn vlan_number(text: &str) -> i64 {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => return leading_integer(text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if end == 0 { 0 } else { i64::from_str_radix(&digits[..end], radix).unwrap_or(i64::MAX) }
}

fn bind_ls(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let (_, port) = port(ctl, call)?;
    let vlan = &call.args[3];
    let ls = logical_switch(ctl, &call.args[4])?;
    if binding(ctl, port, vlan).is_some() {
        return Err(Stop::fatal(format!("multiple bindings for vlan {vlan}")));
    }
    let pair = Datum::map([(Atom::Integer(vlan_number(vlan)), Atom::Uuid(ls))]);
    ctl.add_to("Physical_Port", port, "vlan_bindings", &pair);
    Ok(())
}

fn unbind_ls(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let (_, port) = port(ctl, call)?;
    let Some(pair) = binding(ctl, port, &call.args[3]) else {
        return Err(Stop::fatal(format!("no binding for vlan {}", call.args[3])));
    };
    ctl.remove_from("Physical_Port", port, "vlan_bindings", &pair);
    Ok(())
}

fn list_bindings(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let (_, port) = port(ctl, call)?;
    let Some(row) = ctl.row("Physical_Port", port) else { return Ok(()) };
    for (vlan, ls) in row.int_refs("vlan_bindings") {
        call.output.push_str(&format!("{vlan:04} {}\n", ls.str("name")));
    }
    Ok(())
}

fn set_replication_mode(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let mode = call.args[2].as_str();
    if !matches!(mode, "service_node" | "source_node") {
        return Err(Stop::fatal("Replication mode must be 'service_node' or 'source_node'"));
    }
    let ls = logical_switch(ctl, &call.args[1])?;
    ctl.set("Logical_Switch", ls, "replication_mode", text(mode));
    Ok(())
}

fn get_replication_mode(ctl: &mut C<'_>, call: &mut L) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    let mode = ctl.row("Logical_Switch", ls).and_then(|row| row.str_opt("replication_mode"));
    // Scripts know the original's word for none, whatever its manual says.
    call.output = format!("{}\n", mode.unwrap_or("(null)"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_read_as_c_reads_them() {
        let cases =
            [("7", 7), ("010", 8), ("0x10", 16), ("0xg", 0), ("099", 0), ("1x", 1), ("x", 0), ("", 0)];
        for (text, expect) in cases {
            assert_eq!(vlan_number(text), expect, "{text}");
        }
        assert_eq!(vlan_number("0xffffffffffffffffffff"), i64::MAX, "too much is out of range");
    }
}
