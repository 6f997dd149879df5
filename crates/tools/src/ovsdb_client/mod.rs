//! `ovsdb-client`: speaks to a database server.
//!
//! A command names what it needs (a session, a database) before its own arguments; both have defaults. `commands` has
//! those that ask and print an answer, `monitor` those that stay and print what comes.

mod commands;
mod monitor;

use crate::client::{Connection, split_remotes};
use crate::io::{Io, argv0, program_name, version_text};
use crate::table::{Format, Style};
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::Json;
use ib_base::replay;
use ib_base::vlog::module::RECONNECT;
use ib_base::vlog_info;
use ib_ovsdb::Schema;
use ib_stream::tls;
use ib_sys::daemon::{self, Daemon};
use ib_sys::{dirs, process, signal};
use std::ffi::OsString;
use std::io as stdio;

/// Why a command ends early: a message with status 1, or a status alone.
pub(crate) enum Stop {
    Fatal(String),
    Exit(i32),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Fatal(message)
    }
}

pub(crate) type Done<T = ()> = Result<T, Stop>;

/// What a command has to work with.
pub(crate) struct Client<'a, 'b> {
    pub io: &'a mut Io<'b>,
    pub program: String,
    pub server: String,
    /// The database, for commands that need one.
    pub database: String,
    pub style: Style,
    pub timestamps: bool,
    pub force: bool,
    pub daemon: Daemon,
    /// What `--db-change-aware` or its opposite asks for.
    pub change_aware: Option<bool>,
    /// The argument of `--unixctl`.
    pub unixctl: Option<String>,
    /// Of several servers of a cluster, only its leader will do.
    pub leader_only: bool,
    connection: Option<Connection>,
}

impl Client<'_, '_> {
    /// The session, for commands that need one. Of several servers it is with one that has the database, if one is named.
    pub fn connection(&mut self) -> Done<&mut Connection> {
        if self.connection.is_none() {
            let mut opened = connect(&self.server, &self.database, self.leader_only)?;
            if let Some(aware) = self.change_aware {
                // A server that cannot be told so is as good as one that heeds it.
                let _ = opened.call("set_db_change_aware", Json::array([aware.into()]));
            }
            self.connection = Some(opened);
        }
        self.connection.as_mut().ok_or_else(|| Stop::Fatal("not connected".to_string()))
    }

    /// The text of a failure of the session.
    pub fn broken(&self, error: &stdio::Error) -> Stop {
        let why = if error.kind() == stdio::ErrorKind::UnexpectedEof {
            "End of file".to_string()
        } else {
            ib_base::errno::strerror(error)
        };
        Stop::Fatal(format!("transaction failed ({why})"))
    }

    /// Sends a request and returns the result; an error of the server ends the command.
    pub fn call(&mut self, method: &str, params: Json) -> Done<Json> {
        match self.try_call(method, params)? {
            Ok(result) => Ok(result),
            Err(error) => {
                let error = error.to_text(commands::json_style(self));
                Err(Stop::Fatal(format!("transaction returned error: {error}")))
            }
        }
    }

    /// Sends a request and returns the result or the server's error.
    pub fn try_call(&mut self, method: &str, params: Json) -> Done<Result<Json, Json>> {
        let answer = self.connection()?.call(method, params);
        answer.map_err(|e| self.broken(&e))
    }

    /// The schema of a database.
    pub fn schema(&mut self, database: &str) -> Done<Schema> {
        let json = self.call("get_schema", Json::array([database.into()]))?;
        Schema::from_json(&json).map_err(|e| Stop::Fatal(e.to_string()))
    }
}

/// Connects to `server`, one method or a list of them. Of a list, it is the first that answers and serves `database`, if that is named;
/// what is tried is logged.
fn connect(server: &str, database: &str, leader_only: bool) -> Done<Connection> {
    const EAFNOSUPPORT: i32 = 97;
    let remotes: Vec<&str> = split_remotes(server).collect();
    let [only] = remotes[..] else {
        for remote in remotes {
            vlog_info!(RECONNECT, "{remote}: connecting...");
            match Connection::open(remote, false) {
                Ok(mut connection) => {
                    vlog_info!(RECONNECT, "{remote}: connected");
                    if database.is_empty() || serves(&mut connection, database, leader_only) {
                        return Ok(connection);
                    }
                    // So the original calls it.
                    vlog_info!(RECONNECT, "{remote}: connection attempt timed out");
                }
                Err(e) => {
                    let why = ib_base::errno::strerror(&e);
                    vlog_info!(RECONNECT, "{remote}: connection attempt failed ({why})");
                }
            }
        }
        return Err(Stop::Fatal("no servers were available".to_string()));
    };
    Connection::open(only, false).map_err(|e| {
        // Without a number it is a name that means nothing.
        let number = e.raw_os_error().unwrap_or(EAFNOSUPPORT);
        let doing = if number == EAFNOSUPPORT { "connect or listen" } else { "connect" };
        let why = ib_base::errno::strerror(&stdio::Error::from_raw_os_error(number));
        Stop::Fatal(format!("failed to {doing} to \"{only}\" ({why})"))
    })
}

/// True if the server has the database and, if that is clustered, takes part in its cluster, with `leader_only` as its leader.
fn serves(connection: &mut Connection, database: &str, leader_only: bool) -> bool {
    let select = Json::object([
        ("op", Json::from("select")),
        ("table", Json::from("Database")),
        ("where", Json::array([Json::array(["name".into(), "==".into(), database.into()])])),
    ]);
    match connection.call("transact", Json::array(["_Server".into(), select])) {
        Ok(Ok(results)) => {
            let row = results.as_array().and_then(|r| r.first()?.get("rows")?.as_array()?.first());
            let is = |column: &str| row.and_then(|r| r.get(column)).and_then(Json::as_bool) == Some(true);
            match row.and_then(|r| r.get("model")).and_then(Json::as_str) {
                Some("clustered") => is("connected") && (is("leader") || !leader_only),
                Some(_) => true,
                None => false,
            }
        }
        // A server that does not describe itself is taken as it is.
        Ok(Err(_)) => true,
        Err(_) => false,
    }
}

/// What comes before a command's own arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A server name at most.
    Server,
    /// A server, then a database.
    Database,
    /// Nothing.
    Nothing,
}

struct Command {
    name: &'static str,
    need: Need,
    min_args: usize,
    max_args: usize,
    run: fn(&mut Client<'_, '_>, &[String]) -> Done,
}

/// No limit to the number of arguments.
const MANY: usize = usize::MAX;

static COMMANDS: &[Command] = &[
    Command { name: "list-dbs", need: Need::Server, min_args: 0, max_args: 0, run: commands::list_dbs },
    Command { name: "get-schema", need: Need::Database, min_args: 0, max_args: 0, run: commands::get_schema },
    Command {
        name: "get-schema-version",
        need: Need::Database,
        min_args: 0,
        max_args: 0,
        run: commands::get_schema_version,
    },
    Command {
        name: "get-schema-cksum",
        need: Need::Database,
        min_args: 0,
        max_args: 0,
        run: commands::get_schema_cksum,
    },
    Command {
        name: "list-tables",
        need: Need::Database,
        min_args: 0,
        max_args: 0,
        run: commands::list_tables,
    },
    Command {
        name: "list-columns",
        need: Need::Database,
        min_args: 0,
        max_args: 1,
        run: commands::list_columns,
    },
    Command { name: "transact", need: Need::Server, min_args: 1, max_args: 1, run: commands::transact },
    Command { name: "query", need: Need::Server, min_args: 1, max_args: 1, run: commands::query },
    Command { name: "monitor", need: Need::Database, min_args: 1, max_args: MANY, run: monitor::monitor },
    Command {
        name: "monitor-cond",
        need: Need::Database,
        min_args: 2,
        max_args: 3,
        run: monitor::monitor_cond,
    },
    Command {
        name: "monitor-cond-since",
        need: Need::Database,
        min_args: 2,
        max_args: 4,
        run: monitor::monitor_cond_since,
    },
    Command { name: "wait", need: Need::Server, min_args: 2, max_args: 2, run: commands::wait },
    Command { name: "dump", need: Need::Database, min_args: 0, max_args: MANY, run: commands::dump },
    Command { name: "backup", need: Need::Database, min_args: 0, max_args: 0, run: commands::backup },
    Command { name: "restore", need: Need::Database, min_args: 0, max_args: 0, run: commands::restore },
    Command { name: "convert", need: Need::Server, min_args: 1, max_args: 1, run: commands::convert },
    Command {
        name: "needs-conversion",
        need: Need::Server,
        min_args: 1,
        max_args: 1,
        run: commands::needs_conversion,
    },
    Command { name: "lock", need: Need::Server, min_args: 1, max_args: 1, run: monitor::lock },
    Command { name: "steal", need: Need::Server, min_args: 1, max_args: 1, run: monitor::steal },
    Command { name: "unlock", need: Need::Server, min_args: 1, max_args: 1, run: monitor::unlock },
    Command { name: "help", need: Need::Nothing, min_args: 0, max_args: MANY, run: help },
];

const OPT_TIMESTAMP: u32 = 1000;
const OPT_FORCE: u32 = 1001;
const OPT_UNIXCTL: u32 = 1002;
const OPT_AWARE: u32 = 1004;
const OPT_UNAWARE: u32 = 1005;
const OPT_LEADER_ONLY: u32 = 1006;
const OPT_NO_LEADER_ONLY: u32 = 1007;
const OPT_RECORD: u32 = 1008;
const OPT_REPLAY: u32 = 1009;
const OPT_TABLE: u32 = 2000;

const OPTIONS: &[LongOpt] = &[
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
    LongOpt::new("timestamp", HasArg::No, OPT_TIMESTAMP),
    LongOpt::new("force", HasArg::No, OPT_FORCE),
    LongOpt::new("timeout", HasArg::Required, 't' as u32),
    LongOpt::new("unixctl", HasArg::Required, OPT_UNIXCTL),
    LongOpt::new("db-change-aware", HasArg::No, OPT_AWARE),
    LongOpt::new("no-db-change-aware", HasArg::No, OPT_UNAWARE),
    LongOpt::new("leader-only", HasArg::No, OPT_LEADER_ONLY),
    LongOpt::new("no-leader-only", HasArg::No, OPT_NO_LEADER_ONLY),
    LongOpt::new("record", HasArg::Optional, OPT_RECORD),
    LongOpt::new("replay", HasArg::Optional, OPT_REPLAY),
    LongOpt::new("format", HasArg::Required, OPT_TABLE),
    LongOpt::new("data", HasArg::Required, OPT_TABLE + 1),
    LongOpt::new("no-headings", HasArg::No, OPT_TABLE + 2),
    LongOpt::new("pretty", HasArg::No, OPT_TABLE + 3),
    LongOpt::new("bare", HasArg::No, OPT_TABLE + 4),
    LongOpt::new("max-column-width", HasArg::Required, OPT_TABLE + 5),
];

const TABLE_OPTIONS: [&str; 6] = ["format", "data", "no-headings", "pretty", "bare", "max-column-width"];

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    match run_checked(args, &program, io) {
        Ok(()) => 0,
        Err(Stop::Exit(code)) => code,
        Err(Stop::Fatal(message)) => io.fatal(&program, message),
    }
}

fn default_server() -> String {
    format!("unix:{}/db.sock", dirs::rundir().display())
}

fn run_checked(args: &[OsString], program: &str, io: &mut Io<'_>) -> Done {
    process::init(program);
    let mut client = Client {
        io,
        program: program.to_string(),
        server: default_server(),
        database: String::new(),
        style: Style::new(Format::Table),
        timestamps: false,
        force: false,
        daemon: Daemon::new(program),
        change_aware: None,
        unixctl: None,
        leader_only: true,
        connection: None,
    };
    let called_as = argv0(args);
    let rest = args.get(1..).unwrap_or_default();
    let mut tls_settings = tls::Settings::default();
    let mut options = Getopt::new(&called_as, rest, "v::hVt:f:d:p:c:C:", OPTIONS)
        .with(tls::OPTIONS)
        .with(&tls::CA_OPTIONS[..1])
        .with(daemon::VLOG_OPTIONS)
        .with(daemon::OPTIONS);
    let mut timeout_s = None;
    for found in options.by_ref() {
        let found = match found {
            Ok(found) => found,
            Err(message) => {
                client.io.err(format!("{message}\n"));
                return Err(Stop::Exit(1));
            }
        };
        if tls_settings.option(&found) {
            continue;
        }
        match (found.id, char::from_u32(found.id)) {
            (_, Some('h')) => return help(&mut client, &[]),
            (_, Some('V')) => {
                client.io.out(version_text(program, ""));
                return Ok(());
            }
            (_, Some('t')) => match found.arg_str().parse() {
                Ok(seconds) if seconds > 0 => timeout_s = Some(seconds),
                _ => {
                    let value = found.arg_str();
                    return Err(Stop::Fatal(format!("value {value} on -t or --timeout is invalid")));
                }
            },
            (_, Some('f')) => {
                client.style.apply_option("format", Some(&found.arg_str()))?;
            }
            (_, Some('d')) => {
                client.style.apply_option("data", Some(&found.arg_str()))?;
            }
            (OPT_LEADER_ONLY, _) => client.leader_only = true,
            (OPT_NO_LEADER_ONLY, _) => client.leader_only = false,
            (OPT_RECORD, _) => replay::start(replay::Mode::Record, found.arg_str().as_ref())?,
            (OPT_REPLAY, _) => replay::start(replay::Mode::Replay, found.arg_str().as_ref())?,
            (OPT_TIMESTAMP, _) => client.timestamps = true,
            (OPT_FORCE, _) => client.force = true,
            (OPT_AWARE, _) => client.change_aware = Some(true),
            (OPT_UNAWARE, _) => client.change_aware = Some(false),
            (OPT_UNIXCTL, _) => client.unixctl = Some(found.arg_str()),
            (id, _) if (OPT_TABLE..OPT_TABLE + 6).contains(&id) => {
                let name = TABLE_OPTIONS[(id - OPT_TABLE) as usize];
                client.style.apply_option(name, Some(&found.arg_str()))?;
            }
            _ => {
                let taken = daemon::vlog_option(program, &found).map_err(|line| {
                    client.io.err(format!("{line}\n"));
                    Stop::Exit(1)
                })?;
                if !taken {
                    client.daemon.option(&found)?;
                }
            }
        }
    }
    tls::configure(tls_settings);
    let words = options.rest_str();
    signal::ctl_timeout(timeout_s);
    dispatch(&mut client, &words)
}

/// Whether a word stands where a server may, and is meant for one.
fn names_server(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.contains(':')
}

fn dispatch(client: &mut Client<'_, '_>, words: &[String]) -> Done {
    let Some((name, mut arguments)) = words.split_first() else {
        return Err(Stop::Fatal("missing command name; use --help for help".to_string()));
    };
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        return Err(Stop::Fatal(format!("unknown command '{name}'; use --help for help")));
    };
    // A transaction is read before the server is asked; a server that one waits for may not be there yet.
    let connects_itself =
        matches!(command.name, "transact" | "query" | "wait" | "convert" | "needs-conversion");
    let too_many = arguments.len() > command.max_args;
    if command.need != Need::Nothing
        && arguments.len() > command.min_args
        && (names_server(&arguments[0]) || too_many && connects_itself)
    {
        client.server = arguments[0].clone();
        arguments = &arguments[1..];
    }
    let one_server = split_remotes(&client.server).count() == 1;
    if command.need == Need::Database && !one_server {
        // Which of them will do depends on the database.
        let Some((name, rest)) = arguments.split_first().filter(|_| arguments.len() > command.min_args)
        else {
            return Err(Stop::Fatal("database name is required with multiple remotes".to_string()));
        };
        client.database = name.clone();
        arguments = rest;
    }
    if command.need != Need::Nothing && !connects_itself {
        client.connection()?;
    }
    if command.need == Need::Database && one_server {
        let names = client.call("list_dbs", Json::array([]))?;
        let names: Vec<&str> = names.as_array().unwrap_or(&[]).iter().filter_map(Json::as_str).collect();
        if arguments.len() > command.min_args && names.contains(&arguments[0].as_str()) {
            client.database = arguments[0].clone();
            arguments = &arguments[1..];
        } else if names.contains(&"Open_vSwitch") {
            client.database = "Open_vSwitch".to_string();
        } else {
            let others: Vec<&&str> = names.iter().filter(|n| !n.starts_with('_')).collect();
            let [only] = others[..] else {
                return Err(Stop::Fatal(format!(
                    "no default database for `{name}' command, please specify a database name"
                )));
            };
            client.database = only.to_string();
        }
    }
    if arguments.len() < command.min_args || arguments.len() > command.max_args {
        return Err(Stop::Fatal(format!("invalid syntax for '{name}' (use --help for help)")));
    }
    (command.run)(client, arguments)
}

fn help(client: &mut Client<'_, '_>, _: &[String]) -> Done {
    let program = client.program.clone();
    let text = format!(
        "{program}: Open vSwitch database JSON-RPC client\n\
         usage: {program} [OPTIONS] COMMAND [ARG...]\n{COMMAND_HELP}\n\
         The default SERVER is {}.\nThe default DATABASE is Open_vSwitch.\n{}{}  \
         --timestamp                 timestamp \"monitor\" output\n{}{}\n\
         Replay options:\n  \
         --record[=DIR]            turn on writing replay files\n  \
         --replay[=DIR]            run from replay files\n\n\
         Other options:\n  \
         -t, --timeout=SECS          wait at most SECS seconds\n  \
         -h, --help                  display this help message\n  \
         -V, --version               display version information\n",
        default_server(),
        crate::dbctl::help::connections(true).replace("database connection", "SERVER connection"),
        crate::table::HELP,
        daemon::usage(&program).trim_start_matches('\n'),
        daemon::vlog_usage(&program),
    );
    client.io.out(text);
    Ok(())
}

const COMMAND_HELP: &str = "
Valid commands are:

  list-dbs [SERVER]
    list databases available on SERVER

  get-schema [SERVER] [DATABASE]
    retrieve schema for DATABASE from SERVER

  get-schema-version [SERVER] [DATABASE]
    retrieve schema for DATABASE from SERVER and report only its
    version number on stdout

  get-schema-cksum [SERVER] [DATABASE]
    retrieve schema for DATABASE from SERVER and report only its
    checksum on stdout

  list-tables [SERVER] [DATABASE]
    list tables for DATABASE on SERVER

  list-columns [SERVER] [DATABASE] [TABLE]
    list columns in TABLE (or all tables) in DATABASE on SERVER

  transact [SERVER] TRANSACTION
    run TRANSACTION (params for \"transact\" request) on SERVER
    and print the results as JSON on stdout

  query [SERVER] TRANSACTION
    run TRANSACTION (params for \"transact\" request) on SERVER,
    as read-only, and print the results as JSON on stdout

  monitor [SERVER] [DATABASE] TABLE [COLUMN,...]...
    monitor contents of COLUMNs in TABLE in DATABASE on SERVER.
    COLUMNs may include !initial, !insert, !delete, !modify
    to avoid seeing the specified kinds of changes.

  monitor-cond [SERVER] [DATABASE] CONDITION TABLE [COLUMN,...]...
    monitor contents that match CONDITION of COLUMNs in TABLE in
    DATABASE on SERVER.
    COLUMNs may include !initial, !insert, !delete, !modify
    to avoid seeing the specified kinds of changes.

  monitor-cond-since [SERVER] [DATABASE] [LASTID] CONDITION TABLE [COLUMN,...]...
    monitor contents that match CONDITION of COLUMNs in TABLE in
    DATABASE on SERVER, since change after LASTID.
    LASTID specifies transaction ID after which the monitoring
    starts, which works only for cluster mode. If ignored, it
    defaults to an all-zero uuid.
    Other arguments are the same as in monitor-cond.

  convert [SERVER] SCHEMA
    convert database on SERVER named in SCHEMA to SCHEMA.

  needs-conversion [SERVER] SCHEMA
    tests whether SCHEMA's db on SERVER needs conversion.

  monitor [SERVER] [DATABASE] ALL
    monitor all changes to all columns in all tables

  wait [SERVER] DATABASE STATE
    wait until DATABASE reaches STATE (\"added\" or \"connected\" or \"removed\")
    in DATBASE on SERVER.

  dump [SERVER] [DATABASE]
    dump contents of DATABASE on SERVER to stdout

  backup [SERVER] [DATABASE] > SNAPSHOT
    dump database contents in the form of a database file

  [--force] restore [SERVER] [DATABASE] < SNAPSHOT
    restore database contents from a database file

  lock [SERVER] LOCK
    create or wait for LOCK in SERVER

  steal [SERVER] LOCK
    steal LOCK from SERVER

  unlock [SERVER] LOCK
    unlock LOCK from SERVER
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn command_lines_that_go_nowhere() {
        let check = |words: &[&str], expect: &str| {
            let (code, _, err) = capture(run, &[&["ovsdb-client"], words].concat(), "");
            assert_eq!((code, err.as_str()), (1, expect), "{words:?}");
        };
        check(&[], "ovsdb-client: missing command name; use --help for help\n");
        check(&["foo"], "ovsdb-client: unknown command 'foo'; use --help for help\n");
        check(
            &["list-dbs", "unix:/nonexistent/x"],
            "ovsdb-client: failed to connect to \"unix:/nonexistent/x\" (No such file or directory)\n",
        );
        check(
            &["transact", "[bad"],
            "ovsdb-client: \"[bad\": line 0, column 4, byte 4: invalid keyword 'bad'\n",
        );
        check(&["transact", "{}"], "ovsdb-client: not a valid OVSDB query\n");
        check(
            &["dump", "unix:/nonexistent/x,unix:/nonexistent/y"],
            "ovsdb-client: database name is required with multiple remotes\n",
        );
    }
}
