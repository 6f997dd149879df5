//! `vtep-ctl`: configures a hardware VTEP by way of its database, the `hardware_vtep` schema.
//!
//! A run is one transaction, as with `ovs-vsctl`; nothing is waited for after it, since the gateway that reads the database is
//! another program. Commands are in `switches` (physical switches, their ports, logical switches and routers, managers)
//! and `macs` (where MAC addresses are). Physical switches count if the Global row knows them.

pub mod help;
mod macs;
mod switches;

use crate::dbctl::generic::Generic;
use crate::dbctl::program::{self, Program};
use crate::dbctl::program::{OPT_DB, OPT_DRY_RUN, OPT_NO_SYSLOG, OPT_ONELINE};
use crate::dbctl::show::Show;
use crate::dbctl::{Command, Ctl, Extension, RowName, ShowMap, ShowTable, Tool};
use crate::io::Io;
use ib_base::getopt::{HasArg, LongOpt};
use ib_base::vlog::module::VTEP_CTL;
use ib_ovsdb::{Uuid, schemas};
use std::ffi::OsString;

/// What the commands of one run share.
#[derive(Default)]
pub struct State {
    /// The one row of the Global table.
    global: Uuid,
}

impl Extension for State {}

const fn by(table: &'static str, column: &'static str) -> RowName {
    RowName { table, via_table: table, name_column: Some(column), ref_column: None }
}

static TOOL: Tool = Tool {
    names: &[
        RowName { table: "Global", via_table: "Global", name_column: None, ref_column: None },
        by("Logical_Router", "name"),
        by("Logical_Switch", "name"),
        by("Manager", "target"),
        by("Physical_Port", "name"),
        by("Physical_Switch", "name"),
    ],
    show: &[
        ShowTable { table: "Global", name_column: None, columns: &["managers", "switches"] },
        ShowTable { table: "Manager", name_column: Some("target"), columns: &["is_connected"] },
        ShowTable {
            table: "Physical_Switch",
            name_column: Some("name"),
            columns: &["management_ips", "tunnel_ips", "ports"],
        },
        ShowTable { table: "Physical_Port", name_column: Some("name"), columns: &["vlan_bindings"] },
    ],
    show_maps: &[ShowMap {
        table: "Physical_Port",
        column: "vlan_bindings",
        target: "Logical_Switch",
        name_column: "name",
    }],
    module: &VTEP_CTL,
};

/// All commands, by group.
static COMMANDS: &[&[Command<State>]] =
    &[Show::<State>::COMMANDS, switches::COMMANDS, macs::COMMANDS, Generic::<State>::COMMANDS];

const OPTIONS: &[LongOpt] = &[
    LongOpt::new("db", HasArg::Required, OPT_DB),
    LongOpt::new("no-syslog", HasArg::No, OPT_NO_SYSLOG),
    LongOpt::new("dry-run", HasArg::No, OPT_DRY_RUN),
    LongOpt::new("oneline", HasArg::No, OPT_ONELINE),
    LongOpt::new("timeout", HasArg::Required, 't' as u32),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

static PROGRAM: Program<State> = Program {
    tool: &TOOL,
    commands: COMMANDS,
    schema: schemas::VTEP,
    options: OPTIONS,
    columns: &[("Global", "switches")],
    help: help::help,
    begin: |ctl, _| {
        ctl.ext.global = match ctl.idl.first("Global") {
            Some(row) => row.uuid(),
            None => ctl.txn.insert(ctl.idl, "Global"),
        };
    },
    finish: |_, _| Ok(()),
};

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    program::run(&PROGRAM, args, io)
}

type C<'a> = Ctl<'a, State>;
type L = crate::dbctl::Call<State>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_speaks_of_the_options_that_there_are() {
        let (_, help, _) = crate::io::capture(run, &["vtep-ctl", "--help"], "");
        assert!(help.contains("--ca-cert=FILE") && !help.contains("--bootstrap-ca-cert"), "{help}");
    }

    #[test]
    fn every_command_has_a_line_of_help() {
        for command in COMMANDS.iter().flat_map(|t| t.iter()) {
            assert!(help::mentions(command.name) || command.name == "comment", "{}", command.name);
        }
    }
}
