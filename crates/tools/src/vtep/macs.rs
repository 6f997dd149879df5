//! Commands on MAC bindings: which address of a logical switch is behind which tunnel end (Physical_Locator).
//!
//! The gateway writes the local tables, the controller the remote ones; the commands are the same. A unicast address has one
//! locator. A multicast address has a set of them, which is a row of its own whose content never changes: a change is another row.

use super::switches::{commands, logical_switch, prepare as prepare_switches};
use super::{C, L, State};
use crate::dbctl::{Command, Outcome, Preparation};
use ib_ovsdb::idl::Row;
use ib_ovsdb::{Atom, Datum, Uuid};

/// The two tables that a command is about, and the word for them.
struct Side {
    ucast: &'static str,
    mcast: &'static str,
    word: &'static str,
}

const LOCAL: Side = Side { ucast: "Ucast_Macs_Local", mcast: "Mcast_Macs_Local", word: "local" };
const REMOTE: Side = Side { ucast: "Ucast_Macs_Remote", mcast: "Mcast_Macs_Remote", word: "remote" };

/// The commands of this file.
pub const COMMANDS: &[Command<State>] = commands! {
    "add-ucast-local" 3 Some(4), RW &[], |ctl, call| add_ucast(ctl, call, &LOCAL);
    "del-ucast-local" 2 Some(2), RW &[], |ctl, call| del_ucast(ctl, call, &LOCAL);
    "add-mcast-local" 3 Some(4), RW &[], |ctl, call| add_mcast(ctl, call, &LOCAL);
    "del-mcast-local" 3 Some(4), RW &[], |ctl, call| del_mcast(ctl, call, &LOCAL);
    "clear-local-macs" 1 Some(1), RW &[], |ctl, call| clear(ctl, call, &LOCAL);
    "list-local-macs" 1 Some(1), RO &[], |ctl, call| list(ctl, call, &LOCAL);
    "add-ucast-remote" 3 Some(4), RW &[], |ctl, call| add_ucast(ctl, call, &REMOTE);
    "del-ucast-remote" 2 Some(2), RW &[], |ctl, call| del_ucast(ctl, call, &REMOTE);
    "add-mcast-remote" 3 Some(4), RW &[], |ctl, call| add_mcast(ctl, call, &REMOTE);
    "del-mcast-remote" 3 Some(4), RW &[], |ctl, call| del_mcast(ctl, call, &REMOTE);
    "clear-remote-macs" 1 Some(1), RW &[], |ctl, call| clear(ctl, call, &REMOTE);
    "list-remote-macs" 1 Some(1), RO &[], |ctl, call| list(ctl, call, &REMOTE);
};

fn prepare(prep: &mut Preparation<'_>, call: &L) -> Outcome {
    prepare_switches(prep, call)?;
    for side in [LOCAL, REMOTE] {
        for column in ["MAC", "locator", "logical_switch"] {
            prep.idl.register_column(side.ucast, column);
        }
        for column in ["MAC", "locator_set", "logical_switch"] {
            prep.idl.register_column(side.mcast, column);
        }
    }
    prep.idl.register_column("Physical_Locator_Set", "locators");
    for column in ["encapsulation_type", "dst_ip"] {
        prep.idl.register_column("Physical_Locator", column);
    }
    Ok(())
}

fn reference(uuid: Uuid) -> Datum {
    Datum::scalar(Atom::Uuid(uuid))
}

fn text(value: &str) -> Datum {
    Datum::scalar(Atom::string(value))
}

/// The encapsulation and address that the command line ends with.
fn tunnel_end(call: &L) -> (&str, &str) {
    match &call.args[3..] {
        [encap, ip, ..] => (encap, ip),
        [ip] => ("vxlan_over_ipv4", ip),
        [] => ("", ""),
    }
}

fn find_locator(ctl: &C<'_>, (encap, ip): (&str, &str)) -> Option<Uuid> {
    let is_it = |row: &Row<'_>| row.str("encapsulation_type") == encap && row.str("dst_ip") == ip;
    ctl.view().rows("Physical_Locator").find(is_it).map(|row| row.uuid())
}

/// The locator of a tunnel end, made if there is none.
fn locator(ctl: &mut C<'_>, end: (&str, &str)) -> Uuid {
    find_locator(ctl, end).unwrap_or_else(|| {
        let uuid = ctl.txn.insert(ctl.idl, "Physical_Locator");
        ctl.set("Physical_Locator", uuid, "encapsulation_type", text(end.0));
        ctl.set("Physical_Locator", uuid, "dst_ip", text(end.1));
        uuid
    })
}

fn rows_of(ctl: &C<'_>, table: &str, ls: Uuid) -> Vec<Uuid> {
    let rows = ctl.view().rows(table).filter(|row| row.get("logical_switch").as_uuid() == Some(ls));
    rows.map(|row| row.uuid()).collect()
}

fn find_mac(ctl: &C<'_>, table: &str, ls: Uuid, mac: &str) -> Option<Uuid> {
    let is_it = |row: &Row<'_>| row.str("MAC") == mac && row.get("logical_switch").as_uuid() == Some(ls);
    ctl.view().rows(table).find(is_it).map(|row| row.uuid())
}

/// The row of an address, made if there is none.
fn mac_row(ctl: &mut C<'_>, table: &str, ls: Uuid, mac: &str) -> Uuid {
    find_mac(ctl, table, ls, mac).unwrap_or_else(|| {
        let uuid = ctl.txn.insert(ctl.idl, table);
        ctl.set(table, uuid, "MAC", text(mac));
        ctl.set(table, uuid, "logical_switch", reference(ls));
        uuid
    })
}

fn add_ucast(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    let locator = locator(ctl, tunnel_end(call));
    let row = mac_row(ctl, side.ucast, ls, &call.args[2]);
    ctl.set(side.ucast, row, "locator", reference(locator));
    Ok(())
}

fn del_ucast(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    if let Some(row) = find_mac(ctl, side.ucast, ls, &call.args[2]) {
        ctl.txn.delete_at(ctl.idl, side.ucast, row);
    }
    Ok(())
}

/// The locators of a multicast address.
fn locators(ctl: &C<'_>, side: &Side, row: Uuid) -> Vec<Uuid> {
    let set = ctl.row(side.mcast, row).and_then(|row| row.ref_opt("locator_set"));
    set.map(|set| set.uuids("locators").collect()).unwrap_or_default()
}

fn set_locators(ctl: &mut C<'_>, side: &Side, row: Uuid, locators: Vec<Uuid>) {
    let set = ctl.txn.insert(ctl.idl, "Physical_Locator_Set");
    let locators = Datum::set(locators.into_iter().map(Atom::Uuid));
    ctl.set("Physical_Locator_Set", set, "locators", locators);
    ctl.set(side.mcast, row, "locator_set", reference(set));
}

fn add_mcast(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    let locator = locator(ctl, tunnel_end(call));
    let row = mac_row(ctl, side.mcast, ls, &call.args[2]);
    let mut all = locators(ctl, side, row);
    if !all.contains(&locator) {
        all.push(locator);
        set_locators(ctl, side, row, all);
    }
    Ok(())
}

fn del_mcast(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    let Some(row) = find_mac(ctl, side.mcast, ls, &call.args[2]) else { return Ok(()) };
    let Some(gone) = find_locator(ctl, tunnel_end(call)) else { return Ok(()) };
    let mut left = locators(ctl, side, row);
    let before = left.len();
    left.retain(|uuid| *uuid != gone);
    if left.is_empty() {
        ctl.txn.delete_at(ctl.idl, side.mcast, row);
    } else if left.len() < before {
        set_locators(ctl, side, row, left);
    }
    Ok(())
}

fn clear(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    for table in [side.ucast, side.mcast] {
        for row in rows_of(ctl, table, ls) {
            ctl.txn.delete_at(ctl.idl, table, row);
        }
    }
    Ok(())
}

fn list(ctl: &mut C<'_>, call: &mut L, side: &Side) -> Outcome {
    let ls = logical_switch(ctl, &call.args[1])?;
    let line = |mac: &str, locator: &Row<'_>| {
        format!("  {mac} -> {}/{}\n", locator.str("encapsulation_type"), locator.str("dst_ip"))
    };
    let (mut ucast, mut mcast) = (Vec::new(), Vec::new());
    for uuid in rows_of(ctl, side.ucast, ls) {
        let Some(row) = ctl.row(side.ucast, uuid) else { continue };
        ucast.extend(row.ref_opt("locator").map(|locator| line(row.str("MAC"), &locator)));
    }
    for uuid in rows_of(ctl, side.mcast, ls) {
        let Some(row) = ctl.row(side.mcast, uuid) else { continue };
        let set = row.ref_opt("locator_set");
        mcast.extend(set.iter().flat_map(|set| set.refs("locators")).map(|l| line(row.str("MAC"), &l)));
    }
    ucast.sort();
    mcast.sort();
    let word = side.word;
    call.output = format!("ucast-mac-{word}\n{}\nmcast-mac-{word}\n{}\n", ucast.concat(), mcast.concat());
    Ok(())
}
