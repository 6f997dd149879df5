//! `ovs-vsctl`: configures the switch by way of its database.
//!
//! A run is one transaction. Its commands (`bridges`, `config`, and the generic ones of [`crate::dbctl`]) run against the
//! replica; the result is committed on condition that nothing that they relied on changed meanwhile, or everything runs
//! again. Then, unless told not to, the tool waits until the switch has applied the new configuration (`cur_cfg`
//! reaches the `next_cfg` that the transaction set) and reports the interfaces that it could not set up.

mod bridges;
mod cache;
mod config;
pub mod help;

pub use bridges::leading_integer;

use crate::client::follow;
use crate::dbctl::generic::Generic;
use crate::dbctl::program::{self, After, AfterError, Committed, Program};
use crate::dbctl::program::{
    OPT_COMMANDS, OPT_DB, OPT_DRY_RUN, OPT_IGNORED, OPT_NO_SYSLOG, OPT_NO_WAIT, OPT_ONELINE, OPT_OPTIONS,
    OPT_RETRY,
};
use crate::dbctl::show::Show;
use crate::dbctl::{Command, Ctl, Extension, RowName, ShowTable, Tool};
use crate::io::Io;
use ib_base::getopt::{HasArg, LongOpt};
use ib_base::vlog::module::VSCTL;
use ib_ovsdb::idl::Idl;
use ib_ovsdb::{Uuid, schemas};
use ib_sys::dirs;
use std::ffi::OsString;

/// The exit status when the switch failed to apply the configuration (`EX_DATAERR`).
const EXIT_RECONFIGURATION_FAILED: i32 = 65;

/// What the commands of one run share.
#[derive(Default)]
pub struct State {
    /// The one row of the Open_vSwitch table.
    ovs: Uuid,
    cache: Option<cache::Cache>,
    /// Placeholders of the Interface rows inserted.
    new_ifaces: Vec<Uuid>,
}

impl Extension for State {
    fn changed(&mut self, table: &str, column: Option<&str>) {
        if cache::depends_on(table, column) {
            self.cache = None;
        }
    }
}

const fn by(table: &'static str, column: &'static str) -> RowName {
    RowName { table, via_table: table, name_column: Some(column), ref_column: None }
}

const fn via(table: &'static str, via_table: &'static str, reference: &'static str) -> RowName {
    RowName { table, via_table, name_column: Some("name"), ref_column: Some(reference) }
}

const fn singleton(table: &'static str) -> RowName {
    RowName { table, via_table: table, name_column: None, ref_column: None }
}

static TOOL: Tool = Tool {
    names: &[
        via("AutoAttach", "Bridge", "auto_attach"),
        by("Bridge", "name"),
        via("Controller", "Bridge", "controller"),
        by("Flow_Sample_Collector_Set", "id"),
        by("Flow_Table", "name"),
        via("IPFIX", "Bridge", "ipfix"),
        by("Interface", "name"),
        by("Manager", "target"),
        by("Mirror", "name"),
        via("NetFlow", "Bridge", "netflow"),
        singleton("Open_vSwitch"),
        by("Port", "name"),
        via("QoS", "Port", "qos"),
        singleton("SSL"),
        via("sFlow", "Bridge", "sflow"),
    ],
    show: &[
        ShowTable {
            table: "Open_vSwitch",
            name_column: None,
            columns: &["manager_options", "bridges", "ovs_version"],
        },
        ShowTable {
            table: "Bridge",
            name_column: Some("name"),
            columns: &["controller", "fail_mode", "datapath_type", "ports"],
        },
        ShowTable { table: "Port", name_column: Some("name"), columns: &["tag", "trunks", "interfaces"] },
        ShowTable { table: "Interface", name_column: Some("name"), columns: &["type", "options", "error"] },
        ShowTable { table: "Controller", name_column: Some("target"), columns: &["is_connected"] },
        ShowTable { table: "Manager", name_column: Some("target"), columns: &["is_connected"] },
    ],
    show_maps: &[],
    module: &VSCTL,
};

/// All commands, by group.
static COMMANDS: &[&[Command<State>]] =
    &[config::COMMANDS, Show::<State>::COMMANDS, bridges::COMMANDS, Generic::<State>::COMMANDS];

/// The tool's own options in the order of `--options`.
const OPTIONS: &[LongOpt] = &[
    LongOpt::new("db", HasArg::Required, OPT_DB),
    LongOpt::new("no-syslog", HasArg::No, OPT_NO_SYSLOG),
    LongOpt::new("no-wait", HasArg::No, OPT_NO_WAIT),
    LongOpt::new("dry-run", HasArg::No, OPT_DRY_RUN),
    LongOpt::new("oneline", HasArg::No, OPT_ONELINE),
    LongOpt::new("timeout", HasArg::Required, 't' as u32),
    LongOpt::new("retry", HasArg::No, OPT_RETRY),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("commands", HasArg::No, OPT_COMMANDS),
    LongOpt::new("options", HasArg::No, OPT_OPTIONS),
    LongOpt::new("leader-only", HasArg::No, OPT_IGNORED),
    LongOpt::new("no-leader-only", HasArg::No, OPT_IGNORED),
    LongOpt::new("shuffle-remotes", HasArg::No, OPT_IGNORED),
    LongOpt::new("no-shuffle-remotes", HasArg::No, OPT_IGNORED),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

static PROGRAM: Program<State> = Program {
    tool: &TOOL,
    commands: COMMANDS,
    schema: schemas::VSWITCH,
    options: OPTIONS,
    columns: &[("Open_vSwitch", "next_cfg"), ("Open_vSwitch", "cur_cfg")],
    help: help::help,
    begin,
    finish: wait_for_switch,
};

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    program::run(&PROGRAM, args, io)
}

fn begin(ctl: &mut Ctl<'_, State>, wait: bool) {
    ctl.ext.ovs = match ctl.idl.first("Open_vSwitch") {
        Some(row) => row.uuid(),
        None => ctl.txn.insert(ctl.idl, "Open_vSwitch"),
    };
    if wait {
        let ovs = ctl.ext.ovs;
        ctl.txn.increment(ctl.idl, "Open_vSwitch", ovs, "next_cfg");
    }
}

fn wait_for_switch(after: &mut After<'_, '_>, committed: &Committed<State>) -> Result<(), AfterError> {
    let After { connection, idl, io, program } = after;
    let Some(next_cfg) = committed.incremented else { return Ok(()) };
    let applied = |idl: &mut Idl| idl.first("Open_vSwitch").is_some_and(|row| row.int("cur_cfg") >= next_cfg);
    follow(connection, idl, applied).map_err(AfterError::Connection)?;
    let mut failed = false;
    for placeholder in &committed.ext.new_ifaces {
        let Some(uuid) = committed.inserted.get(placeholder) else { continue };
        let Some(iface) = idl.row("Interface", *uuid) else { continue };
        if iface.int_opt("ofport").is_some_and(|ofport| ofport != -1) {
            continue;
        }
        failed = true;
        let why = match iface.str("error") {
            "" => String::new(),
            error => format!(": {error}"),
        };
        let name = iface.str("name");
        io.err(format!(
            "{program}: Error detected while setting up '{name}'{why}.  See ovs-vswitchd log for details.\n"
        ));
    }
    if failed {
        io.err(format!("{program}: The default log directory is \"{}\".\n", dirs::logdir().display()));
        return Err(AfterError::Reported(EXIT_RECONFIGURATION_FAILED));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_line_of_help() {
        for command in COMMANDS.iter().flat_map(|t| t.iter()) {
            assert!(help::mentions(command) || command.name == "comment", "{}", command.name);
        }
    }

    #[test]
    fn options_are_listed_for_completion() {
        let options = program::list_options(&PROGRAM);
        assert!(
            options.starts_with(
                "--db=ARG\n--no-syslog\n--no-wait\n--dry-run\n--oneline\n--timeout=ARG\n-t ARG\n"
            )
        );
        assert!(options.ends_with("--bootstrap-ca-cert=ARG\n--peer-ca-cert=ARG\n"));
        assert!(!options.contains("--may-exist"));
    }
}
