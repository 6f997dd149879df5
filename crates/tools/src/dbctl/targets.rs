//! Lists of connection targets: a column that refers to rows which each hold a `target`, as controllers and managers do.

use super::{Call, Ctl, Extension};
use crate::vsctl::leading_integer;
use ib_base::vlog_warn;
use ib_ovsdb::{Atom, Datum, Uuid};

/// Values as sorted lines.
pub fn sorted_lines<'s>(values: impl Iterator<Item = &'s str>) -> String {
    let mut values: Vec<&str> = values.collect();
    values.sort_unstable();
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// Deletes the rows that a column refers to, and empties it.
pub fn delete_referenced<X: Extension>(
    ctl: &mut Ctl<'_, X>,
    table: &str,
    uuid: Uuid,
    column: &str,
    target: &str,
) {
    let old: Vec<Uuid> = ctl.row(table, uuid).map(|row| row.uuids(column).collect()).unwrap_or_default();
    for uuid in old {
        ctl.txn.delete_at(ctl.idl, target, uuid);
    }
    ctl.set(table, uuid, column, Datum::EMPTY);
}

/// The connection methods there are.
const METHODS: &[&str] = &["tcp:", "ssl:", "unix:", "ptcp:", "pssl:", "punix:"];

/// Makes the column refer to new rows with the targets of the command line.
pub fn set_targets<X: Extension>(
    ctl: &mut Ctl<'_, X>,
    call: &Call<X>,
    targets: &[String],
    to: (&str, Uuid, &str),
    target_table: &str,
) {
    delete_referenced(ctl, to.0, to.1, to.2, target_table);
    let probe = call.option("--inactivity-probe").map(leading_integer);
    let mut new = Vec::new();
    for target in targets {
        if !METHODS.iter().any(|method| target.starts_with(method)) {
            vlog_warn!(*ctl.tool.module, "target type \"{target}\" is possibly erroneous");
        }
        let uuid = ctl.txn.insert(ctl.idl, target_table);
        ctl.set(target_table, uuid, "target", Datum::scalar(Atom::string(target.as_str())));
        if let Some(probe) = probe {
            ctl.set(target_table, uuid, "inactivity_probe", Datum::scalar(Atom::Integer(probe)));
        }
        new.push(Atom::Uuid(uuid));
    }
    ctl.set(to.0, to.1, to.2, Datum::set(new));
}
