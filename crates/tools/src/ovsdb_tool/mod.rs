//! `ovsdb-tool`: works on database files that no server has open.
//!
//! Everything goes through the engine of `ib-ovsdb`: its log, its transactions, its conversion. Files that are written
//! are locked as a server locks them. Files of clusters are `cluster`'s.

mod check;
mod cluster;
mod show_log;

use crate::io::{Io, argv0, program_name, version_text};
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::{Json, Style};
use ib_ovsdb::database::{Database, Transacted};
use ib_ovsdb::exec::Context;
use ib_ovsdb::log::{Log, OpenMode, Storage, lock_path};
use ib_ovsdb::schema::parse_version;
use ib_ovsdb::{Schema, schemas};
use ib_sys::lockfile::LockFile;
use ib_sys::{daemon, dirs, process};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The exit status of a test that found "no".
const EXIT_NO: i32 = 2;

/// Why a command ends early: a message with status 1, or a status alone.
enum Stop {
    Fatal(String),
    Exit(i32),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Fatal(message)
    }
}

impl From<ib_ovsdb::Error> for Stop {
    fn from(error: ib_ovsdb::Error) -> Stop {
        Stop::Fatal(error.to_string())
    }
}

type Done = Result<(), Stop>;

struct Session<'a, 'b> {
    program: String,
    io: &'a mut Io<'b>,
    /// How often `-m` was given.
    verbosity: u32,
    /// What new members of clusters are to know.
    cluster: cluster::Options,
}

struct Command {
    name: &'static str,
    usage: &'static str,
    min_args: usize,
    max_args: usize,
    run: fn(&mut Session<'_, '_>, &[String]) -> Done,
}

const fn command(
    name: &'static str,
    usage: &'static str,
    min_args: usize,
    max_args: usize,
    run: fn(&mut Session<'_, '_>, &[String]) -> Done,
) -> Command {
    Command { name, usage, min_args, max_args, run }
}

/// No limit to the number of arguments.
const MANY: usize = usize::MAX;

static COMMANDS: &[Command] = &[
    command("create", "[db [schema]]", 0, 2, create),
    command("create-cluster", "db contents local", 3, 3, cluster::create),
    command("join-cluster", "db name local remote...", 4, MANY, cluster::join),
    command("compact", "[db [dst]]", 0, 2, compact),
    command("convert", "[db [schema [dst]]]", 0, 3, convert),
    command("needs-conversion", "", 0, 2, needs_conversion),
    command("db-name", "[db]", 0, 1, db_name),
    command("db-version", "[db]", 0, 1, db_version),
    command("db-cksum", "[db]", 0, 1, db_cksum),
    command("db-cid", "db", 1, 1, cluster::db_cid),
    command("db-sid", "db", 1, 1, cluster::db_sid),
    command("db-local-address", "db", 1, 1, cluster::db_local_address),
    command("db-is-clustered", "db", 1, 1, db_is_clustered),
    command("db-is-standalone", "db", 1, 1, db_is_standalone),
    command("schema-name", "[schema]", 0, 1, schema_name),
    command("schema-version", "[schema]", 0, 1, schema_version),
    command("schema-cksum", "[schema]", 0, 1, schema_cksum),
    command("query", "[db] trns", 1, 2, query),
    command("transact", "[db] trns", 1, 2, transact),
    command("show-log", "[db]", 0, 1, show_log),
    command("check-cluster", "db...", 1, MANY, check::check),
    command("compare-versions", "a op b", 3, 3, compare_versions),
    command("help", "", 0, MANY, help),
    command("list-commands", "", 0, MANY, list_commands),
    command("cluster-to-standalone", "db clusterdb", 2, 2, cluster::to_standalone),
];

const OPT_RBAC_ROLE: u32 = 1000;
const OPT_IGNORED: u32 = 1001;
const OPT_CID: u32 = 1002;
const OPT_ELECTION_TIMER: u32 = 1003;

const OPTIONS: &[LongOpt] = &[
    LongOpt::new("more", HasArg::No, 'm' as u32),
    LongOpt::new("rbac-role", HasArg::Required, OPT_RBAC_ROLE),
    LongOpt::new("cid", HasArg::Required, OPT_CID),
    LongOpt::new("election-timer", HasArg::Required, OPT_ELECTION_TIMER),
    LongOpt::new("disable-file-column-diff", HasArg::No, OPT_IGNORED),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("option", HasArg::No, 'o' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

/// What `--option` prints.
const OPTION_LIST: &str = "--more\n-m \n--rbac-role=ARG\n--cid=ARG\n--election-timer=ARG\n--verbose=[ARG]\n-v [ARG]\n\
                           --help\n-h \n--option\n-o \n--version\n-V \n";

fn default_db() -> PathBuf {
    dirs::dbdir().join("conf.db")
}

fn default_schema() -> PathBuf {
    dirs::pkgdatadir().join("vswitch.ovsschema")
}

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    match run_checked(args, &program, io) {
        Ok(()) => 0,
        Err(Stop::Exit(code)) => code,
        Err(Stop::Fatal(message)) => io.fatal(&program, message),
    }
}

fn run_checked(args: &[OsString], program: &str, io: &mut Io<'_>) -> Done {
    process::init(program);
    let called_as = argv0(args);
    let mut session =
        Session { program: program.to_string(), io, verbosity: 0, cluster: cluster::Options::default() };
    let rest = args.get(1..).unwrap_or_default();
    let mut options = Getopt::new(&called_as, rest, "mhVov::", OPTIONS).with(daemon::VLOG_OPTIONS);
    for found in options.by_ref() {
        let found = match found {
            Ok(found) => found,
            Err(message) => {
                session.io.err(format!("{message}\n"));
                return Err(Stop::Exit(1));
            }
        };
        match char::from_u32(found.id) {
            Some('m') => session.verbosity += 1,
            Some('h') => return help(&mut session, &[]),
            Some('o') => {
                session.io.out(OPTION_LIST);
                return Ok(());
            }
            Some('V') => {
                session.io.out(version_text(program, ""));
                return Ok(());
            }
            _ if found.id == OPT_CID => session.cluster.cid = Some(cluster::parse_cid(&found.arg_str())?),
            _ if found.id == OPT_ELECTION_TIMER => {
                session.cluster.election_timer_ms = Some(cluster::parse_election_timer(&found.arg_str())?);
            }
            _ if found.id == OPT_RBAC_ROLE || found.id == OPT_IGNORED => {}
            _ => {
                if let Err(line) = daemon::vlog_option(program, &found) {
                    session.io.err(format!("{line}\n"));
                    return Err(Stop::Exit(1));
                }
            }
        }
    }
    let words = options.rest_str();
    let Some((name, arguments)) = words.split_first() else {
        return Err(Stop::Fatal("missing command name; use --help for help".to_string()));
    };
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        return Err(Stop::Fatal(format!("unknown command '{name}'; use --help for help")));
    };
    if arguments.len() < command.min_args {
        return Err(Stop::Fatal(format!(
            "'{name}' command requires at least {} arguments",
            command.min_args
        )));
    }
    if arguments.len() > command.max_args {
        return Err(Stop::Fatal(format!("'{name}' command takes at most {} arguments", command.max_args)));
    }
    (command.run)(&mut session, arguments)
}

/// Argument `i` as a path, or the default.
fn path_or(arguments: &[String], i: usize, default: fn() -> PathBuf) -> PathBuf {
    arguments.get(i).map_or_else(default, PathBuf::from)
}

fn read_schema(path: &Path) -> Result<Schema, Stop> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            // An installation without data files still has the schemas.
            let compiled_in = (path == default_schema()).then_some(schemas::VSWITCH);
            match compiled_in {
                Some(text) => text.to_string(),
                None => {
                    let (path, why) = (path.display(), ib_base::errno::strerror(&error));
                    if error.kind() == std::io::ErrorKind::IsADirectory {
                        return Err(Stop::Fatal(format!(
                            "failed to read schema: \"{path}\" could not be read as JSON (error reading JSON stream: {why})"
                        )));
                    }
                    return Err(Stop::Fatal(format!(
                        "failed to read schema: \"{path}\" could not be read as JSON (error opening \"{path}\": {why})"
                    )));
                }
            }
        }
    };
    parse_schema(&text, &path.display().to_string()).map_err(Stop::Fatal)
}

/// A schema from the text of the file `path`.
pub(crate) fn parse_schema(text: &str, path: &str) -> Result<Schema, String> {
    let json = Json::parse(text)
        .map_err(|e| format!("failed to read schema: \"{path}\" could not be read as JSON ({e})"))?;
    Schema::from_json(&json).map_err(|e| {
        // The file's name stands between what is wrong and where, as the original has it.
        let (text, details) = (e.to_string(), e.details().unwrap_or_default());
        match text.strip_suffix(details).filter(|_| !details.is_empty()) {
            Some(start) => format!("{start}failed to parse \"{path}\" as ovsdb schema: {details}"),
            None => text,
        }
    })
}

fn lock(path: &Path) -> std::io::Result<Box<dyn Send>> {
    Ok(Box::new(LockFile::lock(path)?))
}

/// Reads a whole file. A tool works on all of it or not at all: what is behind a damage may be what matters.
fn open(path: &Path, writable: bool) -> Result<Database, Stop> {
    let loaded = Database::open(path, writable, writable.then_some(&lock))?;
    match loaded.warning {
        Some(error) => Err(error.into()),
        None => Ok(loaded.database),
    }
}

/// Locks a file that is to be written anew.
fn lock_to_rewrite(path: &Path) -> Result<Box<dyn Send>, Stop> {
    lock(&lock_path(path)).map_err(|e| {
        let why = ib_base::errno::strerror(&e);
        Stop::Fatal(format!("{}: failed to lock lockfile ({why})", path.display()))
    })
}

fn now_ms() -> u64 {
    ib_base::time::machine_wall_ms()
}

fn create(_: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = read_schema(&path_or(arguments, 1, default_schema))?;
    Database::create(&path_or(arguments, 0, default_db), schema, Some(&lock))?;
    Ok(())
}

/// Writes `database` to `target`, in place of what is there. The caller has the lock.
fn rewrite(mut database: Database, target: &Path, comment: &str) -> Done {
    // Such a file can be read by programs from before there were differences of columns.
    database.write_diffs = false;
    let records = database.snapshot(comment, now_ms());
    drop(database);
    let mut log = Log::open(target, OpenMode::Create, None)?;
    log.replace(&records)?;
    Ok(())
}

fn compact(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let path = path_or(arguments, 0, default_db);
    let target = arguments.get(1).map_or(&*path, Path::new);
    let _lock = lock_to_rewrite(target)?;
    let version = ib_stream::unixctl::standard::OVS_VERSION;
    let comment = format!("compacted by {} {version}", session.program);
    rewrite(open(&path, false)?, target, &comment)
}

fn convert(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let path = path_or(arguments, 0, default_db);
    let schema = read_schema(&path_or(arguments, 1, default_schema))?;
    let target = arguments.get(2).map_or(&*path, Path::new);
    let _lock = lock_to_rewrite(target)?;
    let mut database = open(&path, false)?;
    // A failure leaves the file alone.
    database.detach_file();
    database.convert(schema, now_ms())?;
    let version = ib_stream::unixctl::standard::OVS_VERSION;
    let comment = format!("converted by {} {version}", session.program);
    rewrite(database, target, &comment)
}

fn needs_conversion(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let current = db_schema(&path_or(arguments, 0, default_db))?;
    let wanted = read_schema(&path_or(arguments, 1, default_schema))?;
    session.io.out(if current == wanted { "no\n" } else { "yes\n" });
    Ok(())
}

/// The schema of a file, which is its first record.
fn db_schema(path: &Path) -> Result<Schema, Stop> {
    let mut log = Log::open(path, OpenMode::ReadOnly, None)?;
    match log.read()? {
        Some(record) => Ok(Schema::from_json(&record.json)?),
        None => Err(Stop::Fatal(format!("{}: database file is empty", path.display()))),
    }
}

fn db_name(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let path = path_or(arguments, 0, default_db);
    if ib_ovsdb::log::is_cluster(&path) {
        return cluster::name(session, &path);
    }
    let schema = db_schema(&path)?;
    session.io.out(format!("{}\n", schema.name));
    Ok(())
}

fn db_version(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = db_schema(&path_or(arguments, 0, default_db))?;
    session.io.out(format!("{}\n", schema.version));
    Ok(())
}

fn db_cksum(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = db_schema(&path_or(arguments, 0, default_db))?;
    session.io.out(format!("{}\n", schema.cksum));
    Ok(())
}

/// True for a member of a cluster, false for a standalone database.
fn is_clustered(path: &Path) -> Result<bool, Stop> {
    use std::io::Read;
    let mut start = Vec::new();
    let failed = |error: std::io::Error, what: &str| {
        let why = ib_base::errno::strerror(&error);
        Stop::Fatal(format!("I/O error: {}: {what} ({why})", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|e| failed(e, "open failed"))?;
    file.take(16).read_to_end(&mut start).map_err(|e| failed(e, "read error"))?;
    if start.is_empty() {
        return Err(Stop::Fatal(format!("ovsdb error: {}: cannot identify file type", path.display())));
    }
    if start.starts_with(b"OVSDB JSON ") {
        Ok(false)
    } else if start.starts_with(b"OVSDB CLUSTER ") {
        Ok(true)
    } else {
        Err(Stop::Fatal(format!("ovsdb error: {}: unexpected file format", path.display())))
    }
}

fn answer(yes: bool) -> Done {
    if yes { Ok(()) } else { Err(Stop::Exit(EXIT_NO)) }
}

fn db_is_clustered(_: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    answer(is_clustered(Path::new(&arguments[0]))?)
}

fn db_is_standalone(_: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    answer(!is_clustered(Path::new(&arguments[0]))?)
}

fn schema_name(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = read_schema(&path_or(arguments, 0, default_schema))?;
    session.io.out(format!("{}\n", schema.name));
    Ok(())
}

fn schema_version(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = read_schema(&path_or(arguments, 0, default_schema))?;
    session.io.out(format!("{}\n", schema.version));
    Ok(())
}

fn schema_cksum(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let schema = read_schema(&path_or(arguments, 0, default_schema))?;
    session.io.out(format!("{}\n", schema.cksum));
    Ok(())
}

fn compare_versions(_: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let version = |text: &String| {
        parse_version(text)
            .ok_or_else(|| Stop::Fatal(format!("{text}: not an OVSDB version number in format x.y.z")))
    };
    let (a, b) = (version(&arguments[0])?, version(&arguments[2])?);
    answer(match arguments[1].as_str() {
        "<" => a < b,
        "<=" => a <= b,
        "==" => a == b,
        ">=" => a >= b,
        ">" => a > b,
        "!=" => a != b,
        other => return Err(Stop::Fatal(format!("{other}: not a relational operator"))),
    })
}

/// Runs the transaction that the last argument spells on the database that the one before names.
fn run_transaction(session: &mut Session<'_, '_>, arguments: &[String], read_only: bool) -> Done {
    let (path, text) = match arguments {
        [text] => (default_db(), text),
        [path, text, ..] => (PathBuf::from(path), text),
        [] => return Ok(()),
    };
    let json = Json::parse(text).map_err(|e| Stop::Fatal(format!("\"{text}\": {e}")))?;
    let mut database = open(&path, !read_only)?;
    let bad = |details: &str| {
        let error = ib_ovsdb::Error::syntax(&json, details).to_json();
        format!("{}\n", error.to_text(Style::SORTED))
    };
    let operations = match json.as_array() {
        None => {
            session.io.out(bad("array expected"));
            return Ok(());
        }
        Some([Json::String(name), operations @ ..]) if **name == *database.schema.name => operations,
        Some(_) => {
            session.io.out(bad("database name expected as first parameter"));
            return Ok(());
        }
    };
    if read_only {
        // What a query changes, it changes in memory only.
        database.detach_file();
    }
    let context =
        Context { holds_lock: &|_| false, read_only: false, reserved: None, asker: None, elapsed_ms: None };
    let results = match database.transact(operations, &context, now_ms()) {
        Transacted::Done { results, .. } => results,
        Transacted::Wait { .. } => return Err(Stop::Fatal("transaction waits for ever".to_string())),
    };
    let results = Json::parse(&results).map_err(|e| Stop::Fatal(e.to_string()))?;
    session.io.out(format!("{}\n", results.to_text(Style::SORTED)));
    Ok(())
}

fn query(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    run_transaction(session, arguments, true)
}

fn transact(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    run_transaction(session, arguments, false)
}

fn show_log(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let path = path_or(arguments, 0, default_db);
    if is_clustered(&path)? {
        return cluster::show(session, &path);
    }
    let mut log = Log::open(&path, OpenMode::ReadOnly, None)?;
    let mut printer = show_log::Printer::new(session.verbosity);
    while let Some(record) = log.read()? {
        session.io.out(printer.record(&record.json)?);
    }
    Ok(())
}

fn list_commands(session: &mut Session<'_, '_>, _: &[String]) -> Done {
    let mut out = String::from("The available commands are:\n");
    for command in COMMANDS {
        out.push_str(&format!("  {:<23} {}\n", command.name, command.usage));
    }
    session.io.out(out);
    Ok(())
}

fn help(session: &mut Session<'_, '_>, _: &[String]) -> Done {
    let program = session.program.clone();
    session.io.out(format!(
        "{program}: Open vSwitch database management utility\n\
         usage: {program} [OPTIONS] COMMAND [ARG...]\n{USAGE}\
         The default DB is {}.\nThe default SCHEMA is {}.\n{}\n\
         Other options:\n  \
         -m, --more                  increase show-log verbosity\n  \
         --rbac-role=ROLE            RBAC role for transact and query commands\n  \
         -h, --help                  display this help message\n  \
         -V, --version               display version information\n",
        default_db().display(),
        default_schema().display(),
        daemon::vlog_usage(&program),
    ));
    Ok(())
}

const USAGE: &str = "  create [DB [SCHEMA]]    create DB with the given SCHEMA
  [--election-timer=ms] create-cluster DB CONTENTS LOCAL
    create clustered DB with given CONTENTS and LOCAL address
  [--cid=UUID] join-cluster DB NAME LOCAL REMOTE...
    join clustered DB with given NAME and LOCAL and REMOTE addrs
  compact [DB [DST]]      compact DB in-place (or to DST)
  convert [DB [SCHEMA [DST]]]   convert DB to SCHEMA (to DST)
  db-name [DB]            report name of schema used by DB
  db-version [DB]         report version of schema used by DB
  db-cksum [DB]           report checksum of schema used by DB
  db-cid DB               report cluster ID of clustered DB
  db-sid DB               report server ID of clustered DB
  db-local-address DB     report local address of clustered DB
  db-is-clustered DB      test whether DB is clustered
  db-is-standalone DB     test whether DB is standalone
  schema-name [SCHEMA]    report SCHEMA's name
  schema-version [SCHEMA] report SCHEMA's schema version
  schema-cksum [SCHEMA]   report SCHEMA's checksum
  compare-versions A OP B  compare OVSDB schema version numbers
  query [DB] TRNS         execute read-only transaction on DB
  transact [DB] TRNS      execute read/write transaction on DB
  cluster-to-standalone DB DB    Convert clustered DB to
      standalone DB when cluster is down and cannot be
        revived
  [-m]... show-log [DB]   print DB's log entries
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    const SCHEMA: &str = r#"{"name":"D","version":"1.2.3","tables":{"A":{"isRoot":true,"columns":{
        "name":{"type":"string"},"i":{"type":{"key":"integer","min":0,"max":"unlimited"}}}}}}"#;

    fn in_new_dir(test: impl FnOnce(&Path)) {
        let dir = std::env::temp_dir().join(format!("ovsdb-tool-{}-{}", std::process::id(), now_ms()));
        std::fs::create_dir_all(&dir).unwrap();
        test(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_life_of_a_file() {
        in_new_dir(|dir| {
            let schema = dir.join("s").to_string_lossy().into_owned();
            let db = dir.join("db").to_string_lossy().into_owned();
            std::fs::write(&schema, SCHEMA).unwrap();
            let tool = |words: &[&str]| capture(run, &[&["ovsdb-tool"], words].concat(), "");
            assert_eq!(tool(&["create", &db, &schema]), (0, String::new(), String::new()));
            assert_eq!(tool(&["create", &db, &schema]).0, 1);
            assert_eq!(tool(&["db-name", &db]).1, "D\n");
            assert_eq!(tool(&["db-version", &db]).1, "1.2.3\n");
            let insert = r#"["D",{"op":"insert","table":"A","row":{"name":"n","i":3}},{"op":"comment","comment":"why"}]"#;
            assert_eq!(tool(&["transact", &db, insert]).0, 0);
            let update = r#"["D",{"op":"update","table":"A","where":[],"row":{"i":["set",[3,4]]}}]"#;
            assert_eq!(tool(&["transact", &db, update]).1, "[{\"count\":1}]\n");
            let log = tool(&["-mm", "show-log", &db]).1;
            assert!(log.contains("\"why\"\n  table A insert row \"n\" ("), "{log}");
            assert!(log.contains("    name=n\n"), "{log}");
            assert_eq!(tool(&["compact", &db]).0, 0);
            let select = r#"["D",{"op":"select","table":"A","where":[],"columns":["i"]}]"#;
            assert_eq!(tool(&["query", &db, select]).1, "[{\"rows\":[{\"i\":[\"set\",[3,4]]}]}]\n");
            // A query may change what it likes: it changes nothing. Nobody would end a wait.
            let change = r#"["D",{"op":"delete","table":"A","where":[]},{"op":"commit","durable":true}]"#;
            assert_eq!(tool(&["query", &db, change]).1, "[{\"count\":1},{}]\n");
            assert_eq!(tool(&["query", &db, select]).1, "[{\"rows\":[{\"i\":[\"set\",[3,4]]}]}]\n");
            let wait = r#"["D",{"op":"wait","table":"A","where":[],"columns":["i"],"until":"==","rows":[],"timeout":9}]"#;
            let refused = "[{\"details\":\"triggers not supported\",\"error\":\"not supported\"}]\n";
            assert_eq!(tool(&["query", &db, wait]).1, refused);
            assert_eq!(tool(&["transact", &db, wait]).1, refused);
            assert_eq!(tool(&["convert", &db, &schema]).0, 0);
            assert_eq!(tool(&["needs-conversion", &db, &schema]).1, "no\n");
            assert_eq!(tool(&["db-is-standalone", &db]).0, 0);
            assert_eq!(tool(&["db-is-clustered", &db]).0, 2);
        });
    }

    #[test]
    fn versions_compare() {
        let compare = |a, op, b| capture(run, &["ovsdb-tool", "compare-versions", a, op, b], "").0;
        assert_eq!(compare("1.2.3", "<", "1.10.0"), 0);
        assert_eq!(compare("1.2.3", ">=", "1.10.0"), 2);
        assert_eq!(compare("1.2", "==", "1.2.0"), 1);
        assert_eq!(compare("1.2.3", "~", "1.2.0"), 1);
    }
}
