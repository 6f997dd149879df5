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

use crate::client::{Connection, follow};
use crate::dbctl::generic::Generic;
use crate::dbctl::show::Show;
use crate::dbctl::{
    Call, Command, Ctl, Extension, Outcome, Preparation, RowName, ShowTable, Stop, Tool, grammar,
};
use crate::io::{Io, argv0, program_name, version_text};
use crate::table::{Format, Printer, Style};
use ib_base::getopt::{Found, Getopt, HasArg, LongOpt};
use ib_base::vlog::module::VSCTL;
use ib_base::vlog::{self, Destination, Level};
use ib_base::{vlog_dbg, vlog_info, vlog_warn};
use ib_ovsdb::idl::{Idl, Txn, TxnStatus};
use ib_ovsdb::{Schema, Uuid, schemas};
use ib_stream::tls;
use ib_sys::{daemon, dirs, signal};
use std::ffi::OsString;
use std::io as stdio;

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
    module: &VSCTL,
};

/// All commands, by group.
static COMMANDS: &[&[Command<State>]] =
    &[config::COMMANDS, Show::<State>::COMMANDS, bridges::COMMANDS, Generic::<State>::COMMANDS];

const OPT_DB: u32 = 1000;
const OPT_ONELINE: u32 = 1001;
const OPT_NO_SYSLOG: u32 = 1002;
const OPT_NO_WAIT: u32 = 1003;
const OPT_DRY_RUN: u32 = 1004;
const OPT_RETRY: u32 = 1005;
const OPT_COMMANDS: u32 = 1006;
const OPT_OPTIONS: u32 = 1007;
/// Accepted: a switch's database has no cluster.
const OPT_IGNORED: u32 = 1008;
/// Output options and options of the first command, in the order of their tables.
const OPT_TABLE: u32 = 2000;
const OPT_LOCAL: u32 = 3000;
const OPT_LOCAL_END: u32 = 4000;

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

/// Output options by their offsets from [`OPT_TABLE`].
const TABLE_OPTIONS: &[(&str, HasArg)] = &[
    ("format", HasArg::Required),
    ("data", HasArg::Required),
    ("no-headings", HasArg::No),
    ("pretty", HasArg::No),
    ("bare", HasArg::No),
    ("max-column-width", HasArg::Required),
];

const SHORT_OPTIONS: &str = "+v::hVt:f:d:p:c:C:";

/// What the command line says besides commands.
struct Settings {
    db: String,
    oneline: bool,
    dry_run: bool,
    wait: bool,
    retry: bool,
    timeout_s: Option<u32>,
    style: Style,
    leading: Vec<(String, Option<String>)>,
}

/// Options of commands, which may stand before the first command without `--`: name and whether they take an argument.
fn command_options() -> Vec<(&'static str, HasArg)> {
    let mut all: Vec<(&str, HasArg)> = Vec::new();
    for option in COMMANDS.iter().flat_map(|t| t.iter()).flat_map(|c| c.options) {
        let name = option.trim_start_matches("--").trim_end_matches('=');
        let arg = if option.ends_with('=') { HasArg::Required } else { HasArg::No };
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, arg));
        }
    }
    all
}

fn long_options() -> Vec<LongOpt> {
    let mut all = OPTIONS.to_vec();
    all.extend_from_slice(daemon::VLOG_OPTIONS);
    for (i, (name, arg)) in (OPT_TABLE..).zip(TABLE_OPTIONS) {
        all.push(LongOpt::new(name, *arg, i));
    }
    all.extend_from_slice(tls::OPTIONS);
    all.extend_from_slice(tls::CA_OPTIONS);
    for (i, (name, arg)) in (OPT_LOCAL..).zip(command_options()) {
        all.push(LongOpt::new(name, arg, i));
    }
    all
}

fn list_options() -> String {
    let mut out = String::new();
    let is_local = |o: &LongOpt| (OPT_LOCAL..OPT_LOCAL_END).contains(&o.id);
    for option in long_options().iter().filter(|o| !is_local(o)) {
        let arg = if option.arg == HasArg::No { "" } else { "ARG" };
        let equals = if arg.is_empty() { "" } else { "=" };
        out.push_str(&format!("--{}{equals}{arg}\n", option.name));
        let short = match option.name {
            "format" => Some('f'),
            "data" => Some('d'),
            "private-key" => Some('p'),
            "certificate" => Some('c'),
            "ca-cert" => Some('C'),
            _ => char::from_u32(option.id).filter(char::is_ascii_alphabetic),
        };
        if let Some(short) = short {
            let space = if arg.is_empty() { "" } else { " " };
            out.push_str(&format!("-{short}{space}{arg}\n"));
        }
    }
    out
}

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    match run_checked(args, io) {
        Ok(()) => 0,
        Err(Stop::Exit(code)) => code,
        Err(Stop::Fatal(message)) => {
            vlog::set_levels(Some(&VSCTL), Some(Destination::Console), Level::Off);
            ib_base::vlog_err!(VSCTL, "{message}");
            io.fatal(&program_name(args), message)
        }
        // Waiting is over before a run returns.
        Err(Stop::Wait) => 1,
    }
}

fn run_checked(args: &[OsString], io: &mut Io<'_>) -> Outcome {
    ib_sys::process::init(&program_name(args));
    vlog::set_levels(None, Some(Destination::Console), Level::Warn);
    let _ = vlog::set("reconnect:warn");
    let schema = match Schema::parse(schemas::VSWITCH) {
        Ok(schema) => schema,
        Err(error) => panic!("the schema that is compiled in is not valid: {error}"),
    };
    let mut idl = Idl::new(&schema);

    let Some((settings, words)) = parse_options(args, io, &schema, &idl)? else { return Ok(()) };
    let mut calls = grammar::parse(COMMANDS, &words, &settings.leading)?;
    let command_line: Vec<String> = args.iter().map(|a| escape(&a.to_string_lossy())).collect();
    let command_line = command_line.join(" ");
    if calls.iter().any(|c| c.command.writes) {
        vlog_info!(VSCTL, "Called as {command_line}");
    } else {
        vlog_dbg!(VSCTL, "Called as {command_line}");
    }
    signal::ctl_timeout(settings.timeout_s);

    prepare(&mut idl, &calls)?;
    let retry = settings.retry || ib_stream::stream::is_passive(&settings.db);
    let failed = |e: &stdio::Error| {
        let why = ib_base::errno::strerror(e);
        Stop::fatal(format!("{}: database connection failed ({why})", settings.db))
    };
    let mut connection = Connection::open(&settings.db, retry).map_err(|e| failed(&e))?;
    let comment = format!("{}{}: {command_line}", program_name(args), invoker());
    let committed = transact(&mut connection, &mut idl, &mut calls, &settings, &comment, &failed)?;
    print(&calls, &settings, io);
    if let Some(committed) = committed.filter(|_| settings.wait) {
        wait_for_switch(&mut connection, &mut idl, &committed, io, &program_name(args)).map_err(
            |e| match e {
                WaitError::Connection(e) => failed(&e),
                WaitError::Setup => Stop::Exit(EXIT_RECONFIGURATION_FAILED),
            },
        )?;
    }
    Ok(())
}

/// Reads the options. `None` if one of them was all there was to do.
fn parse_options(
    args: &[OsString],
    io: &mut Io<'_>,
    schema: &Schema,
    idl: &Idl,
) -> Outcome<Option<(Settings, Vec<String>)>> {
    let called_as = argv0(args);
    let program = program_name(args);
    let default_db = format!("unix:{}/db.sock", dirs::rundir().display());
    let mut settings = Settings {
        db: default_db.clone(),
        oneline: false,
        dry_run: false,
        wait: true,
        retry: false,
        timeout_s: None,
        style: Style::new(Format::List),
        leading: Vec::new(),
    };
    let mut tls_settings = tls::Settings::default();
    let locals = command_options();
    let longs = long_options();
    let mut options = Getopt::new(&called_as, args.get(1..).unwrap_or_default(), SHORT_OPTIONS, &longs);
    for found in options.by_ref() {
        let found: Found = match found {
            Ok(found) => found,
            Err(message) => {
                io.err(format!("{message}\n"));
                return Err(Stop::Exit(1));
            }
        };
        if tls_settings.option(&found) {
            continue;
        }
        let argument = || found.arg_str();
        match found.id {
            OPT_DB => settings.db = argument(),
            OPT_ONELINE => settings.oneline = true,
            OPT_NO_SYSLOG => vlog::set_levels(Some(&VSCTL), Some(Destination::Syslog), Level::Warn),
            OPT_NO_WAIT => settings.wait = false,
            OPT_DRY_RUN => settings.dry_run = true,
            OPT_RETRY => settings.retry = true,
            OPT_IGNORED => {}
            OPT_COMMANDS => {
                io.out(grammar::list_commands(COMMANDS));
                return Ok(None);
            }
            OPT_OPTIONS => {
                io.out(list_options());
                return Ok(None);
            }
            id if id == u32::from('h') => {
                io.out(help::help(&program, &default_db, idl, &TOOL));
                return Ok(None);
            }
            id if id == u32::from('V') => {
                io.out(version_text(&program, &format!("DB Schema {}\n", schema.version)));
                return Ok(None);
            }
            id if id == u32::from('t') => match argument().parse() {
                Ok(seconds) => settings.timeout_s = Some(seconds),
                Err(_) => {
                    return Err(Stop::fatal(format!("value {} on -t or --timeout is invalid", argument())));
                }
            },
            id if id == u32::from('f') => {
                settings.style.apply_option("format", Some(&argument()))?;
            }
            id if id == u32::from('d') => {
                settings.style.apply_option("data", Some(&argument()))?;
            }
            id if (OPT_LOCAL..OPT_LOCAL_END).contains(&id) => {
                if let Some((name, _)) = locals.get((id - OPT_LOCAL) as usize) {
                    let name = format!("--{name}");
                    if settings.leading.iter().any(|(known, _)| *known == name) {
                        return Err(Stop::fatal(format!("'{name}' option specified multiple times")));
                    }
                    settings.leading.push((name, found.arg.is_some().then(argument)));
                }
            }
            id if (OPT_TABLE..OPT_LOCAL).contains(&id) => {
                if let Some((name, _)) = TABLE_OPTIONS.get((id - OPT_TABLE) as usize) {
                    settings.style.apply_option(name, Some(&argument()))?;
                }
            }
            _ => {
                if let Err(line) = daemon::vlog_option(&program, &found) {
                    io.err(format!("{line}\n"));
                    return Err(Stop::Exit(1));
                }
            }
        }
    }
    tls::configure(tls_settings);
    Ok(Some((settings, options.rest_str())))
}

fn prepare(idl: &mut Idl, calls: &[Call<State>]) -> Outcome {
    let mut prep = Preparation { idl, tool: &TOOL };
    for column in ["next_cfg", "cur_cfg"] {
        prep.idl.register_column("Open_vSwitch", column);
    }
    for call in calls {
        if let Some(prepare) = call.command.prepare {
            prepare(&mut prep, call)?;
        }
    }
    Ok(())
}

/// A word of the command line as the log shows it.
fn escape(word: &str) -> String {
    if word.contains([' ', '\t', '\r', '\n', '\u{b}', '\\', '\'', '"']) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word.to_string()
    }
}

/// Who called, as far as that can be known.
fn invoker() -> String {
    let parent = std::os::unix::process::parent_id();
    match std::fs::read_to_string(format!("/proc/{parent}/comm")) {
        Ok(name) => format!(" (invoked by {})", name.trim_end()),
        Err(_) => String::new(),
    }
}

/// What a successful transaction leaves to look after.
struct Committed {
    next_cfg: Option<i64>,
    new_ifaces: Vec<Uuid>,
}

/// Runs the commands until their transaction is in the database. `None` if there was nothing to change.
fn transact(
    connection: &mut Connection,
    idl: &mut Idl,
    calls: &mut [Call<State>],
    settings: &Settings,
    comment: &str,
    failed: &dyn Fn(&stdio::Error) -> Stop,
) -> Outcome<Option<Committed>> {
    idl.connected();
    let mut seqno = 0;
    loop {
        follow(connection, idl, |idl| idl.failure().is_some() || (idl.is_live() && idl.seqno() != seqno))
            .map_err(|e| failed(&e))?;
        if let Some(why) = idl.failure() {
            return Err(Stop::fatal(why));
        }
        seqno = idl.seqno();
        let (txn, new_ifaces) = match attempt(idl, calls, settings, comment) {
            Err(Stop::Wait) => continue,
            other => other?,
        };
        let id = idl.commit(txn);
        follow(connection, idl, |idl| idl.status(id) != TxnStatus::Incomplete).map_err(|e| failed(&e))?;
        let Some(outcome) = idl.take_outcome(id) else { continue };
        match outcome.status {
            TxnStatus::Unchanged => return Ok(None),
            TxnStatus::Success => {
                for call in calls.iter_mut() {
                    if let Some(created) = call.created.as_mut() {
                        created.uuid = *outcome.inserted.get(&created.uuid).unwrap_or(&created.uuid);
                    }
                }
                let real = |placeholder: &Uuid| outcome.inserted.get(placeholder).copied();
                let new_ifaces = new_ifaces.iter().filter_map(real).collect();
                return Ok(Some(Committed { next_cfg: outcome.incremented, new_ifaces }));
            }
            TxnStatus::TryAgain => {
                // What changed has arrived already, ahead of the answer.
                if idl.seqno() != seqno {
                    seqno = 0;
                }
            }
            TxnStatus::NotLocked => return Err(Stop::fatal("database not locked")),
            TxnStatus::Aborted | TxnStatus::Incomplete => return Err(Stop::fatal("transaction aborted")),
            TxnStatus::Error(error) => return Err(Stop::fatal(format!("transaction error: {error}"))),
        }
    }
}

/// Runs the commands once. The result is the transaction, and the interfaces that it makes.
fn attempt(
    idl: &Idl,
    calls: &mut [Call<State>],
    settings: &Settings,
    comment: &str,
) -> Outcome<(Txn, Vec<Uuid>)> {
    let mut ctl: Ctl<'_, State> = Ctl::new(idl, &settings.style, &TOOL);
    ctl.txn.comment(comment);
    if settings.dry_run {
        ctl.txn.set_dry_run();
    }
    ctl.ext.ovs = match idl.first("Open_vSwitch") {
        Some(row) => row.uuid(),
        None => ctl.txn.insert(idl, "Open_vSwitch"),
    };
    if settings.wait {
        let ovs = ctl.ext.ovs;
        ctl.txn.increment(idl, "Open_vSwitch", ovs, "next_cfg");
    }
    for call in calls.iter_mut() {
        call.output.clear();
        call.table = None;
        call.created = None;
        (call.command.run)(&mut ctl, call)?;
    }
    check_row_names(&ctl)?;
    Ok((ctl.txn, ctl.ext.new_ifaces))
}

/// Reports `@names` that were never defined, or not so that their rows survive.
fn check_row_names(ctl: &Ctl<'_, State>) -> Outcome {
    let mut symbols: Vec<_> = ctl.symbols.iter().collect();
    symbols.sort_by(|a, b| a.0.cmp(b.0));
    for (name, symbol) in symbols {
        if !symbol.created {
            return Err(Stop::fatal(format!(
                "row id \"{name}\" is referenced but never created (e.g. with \"-- --id={name} create ...\")"
            )));
        }
        if symbol.strong_ref {
            continue;
        }
        if symbol.weak_ref {
            vlog_warn!(
                VSCTL,
                "row id \"{name}\" was created but only a weak reference to it was inserted, so it will not actually appear in the database"
            );
        } else {
            vlog_warn!(
                VSCTL,
                "row id \"{name}\" was created but no reference to it was inserted, so it will not actually appear in the database"
            );
        }
    }
    Ok(())
}

fn print(calls: &[Call<State>], settings: &Settings, io: &mut Io<'_>) {
    let mut printer = Printer::new();
    let mut out = String::new();
    for call in calls {
        if let Some(table) = &call.table {
            printer.print(table, &settings.style, &mut out);
            continue;
        }
        let text = match &call.created {
            Some(created) => format!("{}\n", created.uuid),
            None => call.output.clone(),
        };
        if settings.oneline {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            out.push_str(&text.replace('\\', "\\\\").replace('\n', "\\n"));
            out.push('\n');
        } else {
            out.push_str(&text);
        }
    }
    io.out(out);
}

enum WaitError {
    Connection(stdio::Error),
    /// The switch could not set something up; it has been reported.
    Setup,
}

fn wait_for_switch(
    connection: &mut Connection,
    idl: &mut Idl,
    committed: &Committed,
    io: &mut Io<'_>,
    program: &str,
) -> Result<(), WaitError> {
    let Some(next_cfg) = committed.next_cfg else { return Ok(()) };
    let applied = |idl: &mut Idl| idl.first("Open_vSwitch").is_some_and(|row| row.int("cur_cfg") >= next_cfg);
    follow(connection, idl, applied).map_err(WaitError::Connection)?;
    let mut failed = false;
    for uuid in &committed.new_ifaces {
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
        return Err(WaitError::Setup);
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
    fn words_are_escaped_where_the_shell_would_split_them() {
        assert_eq!(escape("add-br"), "add-br");
        assert_eq!(escape("a \"b\""), "\"a \\\"b\\\"\"");
    }

    #[test]
    fn options_are_listed_for_completion() {
        let options = list_options();
        assert!(
            options.starts_with(
                "--db=ARG\n--no-syslog\n--no-wait\n--dry-run\n--oneline\n--timeout=ARG\n-t ARG\n"
            )
        );
        assert!(options.ends_with("--bootstrap-ca-cert=ARG\n--peer-ca-cert=ARG\n"));
        assert!(!options.contains("--may-exist"));
    }
}
