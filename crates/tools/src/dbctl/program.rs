//! A database tool from its command line to its exit code: the options, the one transaction of a run, the output.
//!
//! What tools differ in is a [`Program`]: `ovs-vsctl` and `vtep-ctl` are two. A run connects, lets all commands work on the
//! replica, commits on condition that nothing that they relied on changed meanwhile (or runs them again), prints what they
//! have to say, and leaves to the tool what comes after ([`Program::finish`]).

use super::{Call, Command, Ctl, Extension, Outcome, Preparation, Stop, Tool, grammar};
use crate::client::{Connection, follow};
use crate::io::{Io, argv0, program_name, version_text};
use crate::table::{Format, Printer, Style};
use ib_base::getopt::{Found, Getopt, HasArg, LongOpt};
use ib_base::vlog::{self, Destination, Level};
use ib_base::{vlog_dbg, vlog_info, vlog_warn};
use ib_ovsdb::idl::{Idl, Txn, TxnStatus};
use ib_ovsdb::{Schema, Uuid};
use ib_stream::tls;
use ib_sys::{daemon, dirs, signal};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io as stdio;

/// What makes a program of a [`Tool`] whose state is `X`.
pub struct Program<X: Extension + 'static> {
    /// Tables, names, `show`, log module.
    pub tool: &'static Tool,
    /// All commands, by group.
    pub commands: &'static [&'static [Command<X>]],
    /// The text of the schema.
    pub schema: &'static str,
    /// The tool's own options, in the order in which `--options` lists them.
    pub options: &'static [LongOpt],
    /// Columns that every run reads.
    pub columns: &'static [(&'static str, &'static str)],
    /// What `--help` prints, for a program's name and its default database.
    pub help: fn(&str, &str, &Idl, &Tool) -> String,
    /// Opens the transaction of a run. The flag: somebody will wait for its effect.
    pub begin: fn(&mut Ctl<'_, X>, bool),
    /// What follows a transaction that has changed something, unless `--no-wait` is given.
    pub finish: fn(&mut After<'_, '_>, &Committed<X>) -> Result<(), AfterError>,
}

/// What a tool has at hand after its transaction.
pub struct After<'a, 'io> {
    /// The session with the server.
    pub connection: &'a mut Connection,
    /// The replica.
    pub idl: &'a mut Idl,
    /// Where to report.
    pub io: &'a mut Io<'io>,
    /// The name that the tool runs under.
    pub program: &'a str,
}

/// Why a tool fails after its transaction.
#[derive(Debug)]
pub enum AfterError {
    /// The server went away.
    Connection(stdio::Error),
    /// It has been reported; this is the exit code.
    Reported(i32),
}

/// What a successful transaction leaves to look after.
pub struct Committed<X> {
    /// What the column that the transaction incremented has become.
    pub incremented: Option<i64>,
    /// The rows inserted, by placeholder.
    pub inserted: HashMap<Uuid, Uuid>,
    /// The tool's state after its commands.
    pub ext: X,
}

/// The ID of `--db`.
pub const OPT_DB: u32 = 1000;
/// The ID of `--oneline`.
pub const OPT_ONELINE: u32 = 1001;
/// The ID of `--no-syslog`.
pub const OPT_NO_SYSLOG: u32 = 1002;
/// The ID of `--no-wait`.
pub const OPT_NO_WAIT: u32 = 1003;
/// The ID of `--dry-run`.
pub const OPT_DRY_RUN: u32 = 1004;
/// The ID of `--retry`.
pub const OPT_RETRY: u32 = 1005;
/// The ID of `--commands`.
pub const OPT_COMMANDS: u32 = 1006;
/// The ID of `--options`.
pub const OPT_OPTIONS: u32 = 1007;
/// Accepted: a switch's database has no cluster.
pub const OPT_IGNORED: u32 = 1008;
/// Output options and options of the first command, in the order of their tables.
const OPT_TABLE: u32 = 2000;
const OPT_LOCAL: u32 = 3000;
const OPT_LOCAL_END: u32 = 4000;

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
fn command_options<X>(commands: &[&'static [Command<X>]]) -> Vec<(&'static str, HasArg)> {
    let mut all: Vec<(&str, HasArg)> = Vec::new();
    for option in commands.iter().flat_map(|t| t.iter()).flat_map(|c| c.options) {
        let name = option.trim_start_matches("--").trim_end_matches('=');
        let arg = if option.ends_with('=') { HasArg::Required } else { HasArg::No };
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, arg));
        }
    }
    all
}

fn long_options<X: Extension>(program: &Program<X>) -> Vec<LongOpt> {
    let mut all = program.options.to_vec();
    all.extend_from_slice(daemon::VLOG_OPTIONS);
    for (i, (name, arg)) in (OPT_TABLE..).zip(TABLE_OPTIONS) {
        all.push(LongOpt::new(name, *arg, i));
    }
    all.extend_from_slice(tls::OPTIONS);
    all.extend_from_slice(tls::CA_OPTIONS);
    for (i, (name, arg)) in (OPT_LOCAL..).zip(command_options(program.commands)) {
        all.push(LongOpt::new(name, arg, i));
    }
    all
}

/// What `--options` prints.
pub fn list_options<X: Extension>(program: &Program<X>) -> String {
    let mut out = String::new();
    let is_local = |o: &LongOpt| (OPT_LOCAL..OPT_LOCAL_END).contains(&o.id);
    for option in long_options(program).iter().filter(|o| !is_local(o)) {
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
pub fn run<X: Extension>(program: &'static Program<X>, args: &[OsString], io: &mut Io<'_>) -> i32 {
    let module = program.tool.module;
    match run_checked(program, args, io) {
        Ok(()) => 0,
        Err(Stop::Exit(code)) => code,
        Err(Stop::Fatal(message)) => {
            vlog::set_levels(Some(module), Some(Destination::Console), Level::Off);
            ib_base::vlog_err!(*module, "{message}");
            io.fatal(&program_name(args), message)
        }
        // Waiting is over before a run returns.
        Err(Stop::Wait) => 1,
    }
}

fn run_checked<X: Extension>(program: &'static Program<X>, args: &[OsString], io: &mut Io<'_>) -> Outcome {
    let module = program.tool.module;
    ib_sys::process::init(&program_name(args));
    vlog::set_levels(None, Some(Destination::Console), Level::Warn);
    let _ = vlog::set("reconnect:warn");
    let schema = match Schema::parse(program.schema) {
        Ok(schema) => schema,
        Err(error) => panic!("the schema that is compiled in is not valid: {error}"),
    };
    let mut idl = Idl::new(&schema);

    let Some((settings, words)) = parse_options(program, args, io, &schema, &idl)? else { return Ok(()) };
    let mut calls = grammar::parse(program.commands, &words, &settings.leading)?;
    let command_line: Vec<String> = args.iter().map(|a| escape(&a.to_string_lossy())).collect();
    let command_line = command_line.join(" ");
    if calls.iter().any(|c| c.command.writes) {
        vlog_info!(*module, "Called as {command_line}");
    } else {
        vlog_dbg!(*module, "Called as {command_line}");
    }
    signal::ctl_timeout(settings.timeout_s);

    prepare(program, &mut idl, &calls)?;
    let retry = settings.retry || ib_stream::stream::is_passive(&settings.db);
    let failed = |e: &stdio::Error| {
        let why = ib_base::errno::strerror(e);
        Stop::fatal(format!("{}: database connection failed ({why})", settings.db))
    };
    let mut connection = Connection::open(&settings.db, retry).map_err(|e| failed(&e))?;
    let comment = format!("{}{}: {command_line}", program_name(args), invoker());
    let run = Run { program, settings: &settings, comment: &comment, failed: &failed };
    let committed = run.transact(&mut connection, &mut idl, &mut calls)?;
    print(&calls, &settings, io);
    if let Some(committed) = committed.filter(|_| settings.wait) {
        let name = program_name(args);
        let mut after = After { connection: &mut connection, idl: &mut idl, io, program: &name };
        (program.finish)(&mut after, &committed).map_err(|e| match e {
            AfterError::Connection(e) => failed(&e),
            AfterError::Reported(code) => Stop::Exit(code),
        })?;
    }
    Ok(())
}

/// Reads the options. `None` if one of them was all there was to do.
fn parse_options<X: Extension>(
    tool: &'static Program<X>,
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
    let locals = command_options(tool.commands);
    let module = tool.tool.module;
    let longs = long_options(tool);
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
            OPT_NO_SYSLOG => vlog::set_levels(Some(module), Some(Destination::Syslog), Level::Warn),
            OPT_NO_WAIT => settings.wait = false,
            OPT_DRY_RUN => settings.dry_run = true,
            OPT_RETRY => settings.retry = true,
            OPT_IGNORED => {}
            OPT_COMMANDS => {
                io.out(grammar::list_commands(tool.commands));
                return Ok(None);
            }
            OPT_OPTIONS => {
                io.out(list_options(tool));
                return Ok(None);
            }
            id if id == u32::from('h') => {
                io.out((tool.help)(&program, &default_db, idl, tool.tool));
                return Ok(None);
            }
            id if id == u32::from('V') => {
                io.out(version_text(&program, &format!("DB Schema {}\n", schema.version)));
                return Ok(None);
            }
            id if id == u32::from('t') => match argument().parse() {
                Ok(seconds) if seconds > 0 => settings.timeout_s = Some(seconds),
                _ => {
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

fn prepare<X: Extension>(program: &Program<X>, idl: &mut Idl, calls: &[Call<X>]) -> Outcome {
    let mut prep = Preparation { idl, tool: program.tool };
    for (table, column) in program.columns {
        prep.idl.register_column(table, column);
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

/// What one run of a program works with.
struct Run<'a, X: Extension + 'static> {
    program: &'static Program<X>,
    settings: &'a Settings,
    /// What the server's log is to say of the transaction.
    comment: &'a str,
    failed: &'a dyn Fn(&stdio::Error) -> Stop,
}

impl<X: Extension> Run<'_, X> {
    /// Runs the commands until their transaction is in the database. `None` if there was nothing to change.
    fn transact(
        &self,
        connection: &mut Connection,
        idl: &mut Idl,
        calls: &mut [Call<X>],
    ) -> Outcome<Option<Committed<X>>> {
        idl.connected();
        let mut seqno = 0;
        loop {
            let changed = |idl: &mut Idl| idl.failure().is_some() || (idl.is_live() && idl.seqno() != seqno);
            follow(connection, idl, changed).map_err(|e| (self.failed)(&e))?;
            if let Some(why) = idl.failure() {
                return Err(Stop::fatal(why));
            }
            seqno = idl.seqno();
            let (txn, ext) = match self.attempt(idl, calls) {
                Err(Stop::Wait) => continue,
                other => other?,
            };
            let id = idl.commit(txn);
            follow(connection, idl, |idl| idl.status(id) != TxnStatus::Incomplete)
                .map_err(|e| (self.failed)(&e))?;
            let Some(outcome) = idl.take_outcome(id) else { continue };
            match outcome.status {
                TxnStatus::Unchanged => return Ok(None),
                TxnStatus::Success => {
                    for call in calls.iter_mut() {
                        if let Some(created) = call.created.as_mut() {
                            created.uuid = *outcome.inserted.get(&created.uuid).unwrap_or(&created.uuid);
                        }
                    }
                    let (incremented, inserted) = (outcome.incremented, outcome.inserted);
                    return Ok(Some(Committed { incremented, inserted, ext }));
                }
                TxnStatus::TryAgain => {
                    // What changed has arrived already, ahead of the answer.
                    if idl.seqno() != seqno {
                        seqno = 0;
                    }
                }
                TxnStatus::NotLocked => return Err(Stop::fatal("database not locked")),
                TxnStatus::Aborted | TxnStatus::Incomplete => {
                    return Err(Stop::fatal("transaction aborted"));
                }
                TxnStatus::Error(error) => {
                    return Err(Stop::fatal(format!("transaction error: {error}")));
                }
            }
        }
    }

    /// Runs the commands once. The result is the transaction and the tool's state.
    fn attempt(&self, idl: &Idl, calls: &mut [Call<X>]) -> Outcome<(Txn, X)> {
        let mut ctl: Ctl<'_, X> = Ctl::new(idl, &self.settings.style, self.program.tool);
        ctl.txn.comment(self.comment);
        if self.settings.dry_run {
            ctl.txn.set_dry_run();
        }
        (self.program.begin)(&mut ctl, self.settings.wait);
        for call in calls.iter_mut() {
            call.output.clear();
            call.table = None;
            call.created = None;
            (call.command.run)(&mut ctl, call)?;
        }
        check_row_names(&ctl)?;
        Ok((ctl.txn, ctl.ext))
    }
}

/// Reports `@names` that were never defined, or not so that their rows survive.
fn check_row_names<X>(ctl: &Ctl<'_, X>) -> Outcome {
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
                *ctl.tool.module,
                "row id \"{name}\" was created but only a weak reference to it was inserted, so it will not actually appear in the database"
            );
        } else {
            vlog_warn!(
                *ctl.tool.module,
                "row id \"{name}\" was created but no reference to it was inserted, so it will not actually appear in the database"
            );
        }
    }
    Ok(())
}

fn print<X>(calls: &[Call<X>], settings: &Settings, io: &mut Io<'_>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_escaped_where_the_shell_would_split_them() {
        assert_eq!(escape("add-br"), "add-br");
        assert_eq!(escape("a \"b\""), "\"a \\\"b\\\"\"");
    }
}
