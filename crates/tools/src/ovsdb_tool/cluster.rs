//! Files of clustered databases: made, joined, described and turned into standalone ones.
//!
//! A member's file is a log like a standalone one, under the word `CLUSTER` in place of `JSON`. Its first record is the
//! header: who the member is, and either the snapshot that the log goes on from (`prev_*`) or, before it has joined, the
//! addresses to ask. The records that follow are terms, votes, entries and commit points (ovsdb(5), "Clustered Database").
//! Nothing here takes part in a cluster; it reads and writes files that a server of the original serves.

use super::show_log;
use super::{Done, EXIT_NO, Session, Stop, is_clustered, lock, lock_path, now_ms, open, read_schema};
use ib_base::errno::strerror;
use ib_base::json::{Json, Object, table_order};
use ib_base::vlog::module::{OVSDB, SOCKET_UTIL};
use ib_base::{vlog_err, vlog_warn};
use ib_ovsdb::log::{CLUSTER_MAGIC, Log, OpenMode, Storage, frame};
use ib_ovsdb::{Error, Schema, Uuid};
use std::io::Write;
use std::path::Path;

/// What the options for new members say.
#[derive(Default)]
pub struct Options {
    /// `--cid`: the cluster to join.
    pub cid: Option<Uuid>,
    /// `--election-timer`, in milliseconds.
    pub election_timer_ms: Option<i64>,
}

/// The value of `--cid`.
pub fn parse_cid(text: &str) -> Result<Uuid, Stop> {
    Uuid::parse(text).ok_or_else(|| Stop::Fatal(format!("{text}: not a valid UUID")))
}

/// The value of `--election-timer`.
pub fn parse_election_timer(text: &str) -> Result<i64, Stop> {
    let bounds = 100..=600_000;
    text.parse().ok().filter(|ms| bounds.contains(ms)).ok_or_else(|| {
        Stop::Fatal("ovsdb error: election timer must be between 100 and 600000, in msec.".to_string())
    })
}

/// A fault of the file.
pub fn fault(message: String) -> Stop {
    Error::new("ovsdb error", message).into()
}

/// All records of a member's file, the header first.
pub fn read_records(path: &Path) -> Result<Vec<Json>, Stop> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| Stop::from(Error::io(&e, format!("{name}: open failed"))))?;
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let bad = |what: String| Stop::from(Error::new("syntax error", format!("{name}: {what}")));
        let line_end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let line = String::from_utf8_lossy(&rest[..line_end]).into_owned();
        let mut words = line.split(' ').skip(2);
        let length = words.next().and_then(|w| w.parse::<usize>().ok()).filter(|n| *n > 0);
        let (Some(length), Some(expected)) = (length, words.next()) else {
            return Err(bad(format!("parse error at offset {offset} in header line \"{line}\"")));
        };
        let body = rest.get(line_end + 1..).and_then(|r| r.get(..length));
        let Some(body) = body else {
            return Err(bad(format!("unexpected end of file at offset {offset}")));
        };
        let text = String::from_utf8_lossy(body);
        let framed = frame(CLUSTER_MAGIC, text.strip_suffix('\n').unwrap_or(&text));
        if !framed.starts_with(format!("{line}\n").as_bytes()) {
            let framed = String::from_utf8_lossy(&framed);
            let actual = framed.split([' ', '\n']).nth(3).unwrap_or_default();
            let start = offset + line_end + 1;
            return Err(bad(format!(
                "{length} bytes starting at offset {start} have SHA-1 hash {actual} but should have hash {expected}"
            )));
        }
        let json = Json::parse(&text)
            .map_err(|e| bad(format!("{length} bytes at offset {offset} are not valid JSON ({e})")))?;
        records.push(json);
        rest = &rest[line_end + 1 + length..];
    }
    Ok(records)
}

/// The header of a member's file.
pub fn header(path: &Path) -> Result<Json, Stop> {
    if !is_clustered(path)? {
        return Err(Stop::Fatal(format!("{}: not a clustered database", path.display())));
    }
    let mut records = read_records(path)?;
    if records.is_empty() {
        return Err(fault(format!("{}: database file is empty", path.display())));
    }
    Ok(records.swap_remove(0))
}

fn print_header_field(session: &mut Session<'_, '_>, path: &str, field: &str) -> Done {
    let header = header(Path::new(path))?;
    let value = header.get(field).and_then(Json::as_str).unwrap_or_default();
    session.io.out(format!("{value}\n"));
    Ok(())
}

/// `db-cid`
pub fn db_cid(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let path = &arguments[0];
    if header(Path::new(path))?.get("cluster_id").is_none() {
        session.io.err(format!("{path}: cluster ID not yet known\n"));
        return Err(Stop::Exit(EXIT_NO));
    }
    print_header_field(session, path, "cluster_id")
}

/// `db-sid`
pub fn db_sid(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    print_header_field(session, &arguments[0], "server_id")
}

/// `db-local-address`
pub fn db_local_address(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    print_header_field(session, &arguments[0], "local_address")
}

/// `db-name` of a member's file.
pub fn name(session: &mut Session<'_, '_>, path: &Path) -> Done {
    print_header_field(session, &path.to_string_lossy(), "name")
}

fn check_address(address: &str) -> Done {
    if address.starts_with("unix:") {
        return Ok(());
    }
    let Some(host) = address.strip_prefix("tcp:").or_else(|| address.strip_prefix("ssl:")) else {
        return Err(fault(format!("{address}: expected \"tcp\" or \"ssl\" address")));
    };
    // The colons of an IPv6 address stand in brackets.
    let after_host = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let port = after_host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        None => {
            vlog_err!(SOCKET_UTIL, "{host}: port must be specified");
            Err(fault(format!("{address}: syntax error in address")))
        }
        Some(Err(_)) => Err(fault(format!("{address}: syntax error in address"))),
    }
}

/// Writes a new file, which must not be there yet.
fn write_new(path: &Path, records: &[Json]) -> Done {
    let name = path.display();
    let _lock = lock(&lock_path(path))
        .map_err(|e| Stop::Fatal(format!("{name}: failed to lock lockfile ({})", strerror(&e))))?;
    let failed = |e: &std::io::Error, what: &str| Stop::from(Error::io(e, format!("{name}: {what}")));
    let mut file = std::fs::File::create_new(path).map_err(|e| failed(&e, "create failed"))?;
    for record in records {
        let bytes = frame(CLUSTER_MAGIC, &record.to_string());
        file.write_all(&bytes).map_err(|e| failed(&e, "write failed"))?;
    }
    file.sync_all().map_err(|e| failed(&e, "fsync failed"))
}

/// A snapshot's schema and rows.
fn contents(path: &Path) -> Result<(Schema, Json), Stop> {
    let empty = Json::object::<&str>([]);
    // A file that starts as an object does is a schema.
    match is_clustered(path) {
        Ok(true) => {
            let name = path.display();
            return Err(fault(format!("{name}: cannot apply this operation to clustered database file")));
        }
        Ok(false) => {}
        Err(Stop::Fatal(message)) if message.starts_with("I/O error") => return Err(Stop::Fatal(message)),
        Err(stop) => {
            let starts_as_json = std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"{"));
            return if starts_as_json { Ok((read_schema(path)?, empty)) } else { Err(stop) };
        }
    }
    let database = open(path, false)?;
    let mut rows = Object::new();
    for record in database.snapshot(&format!("created from {}", path.display()), now_ms()).iter().skip(1) {
        let json = Json::parse(record).map_err(|e| Stop::Fatal(e.to_string()))?;
        for (table, more) in json.as_object().into_iter().flat_map(Object::iter) {
            let mut all = rows.get(table).and_then(Json::as_object).cloned().unwrap_or_default();
            match more.as_object() {
                Some(more) => {
                    more.iter().for_each(|(uuid, row)| {
                        all.insert(uuid.clone(), row.clone());
                    });
                    rows.insert(table.clone(), all);
                }
                None => {
                    rows.insert(table.clone(), more.clone());
                }
            }
        }
    }
    Ok((Schema::clone(&database.schema), rows.into()))
}

fn text(value: impl std::fmt::Display) -> Json {
    Json::string(value.to_string())
}

/// Warns of ephemeral columns, and names the one that the original names: the last in the order of its hash tables.
fn warn_of_ephemeral(file: &str, schema: &Schema) {
    let tables = table_order(schema.tables.iter().map(|t| &*t.name));
    let columns = tables.into_iter().map(|i| &schema.tables[i]).flat_map(|table| {
        let order = table_order(table.columns.iter().map(|c| &*c.name));
        order.into_iter().map(move |i| (table, &table.columns[i]))
    });
    let ephemeral: Vec<_> =
        columns.filter(|(_, column)| !column.persistent && !column.name.starts_with('_')).collect();
    if let Some((table, column)) = ephemeral.last() {
        vlog_warn!(
            OVSDB,
            "{file}: changed {} columns in '{}' database from ephemeral to persistent, including '{}' column in '{}' \
             table, because clusters do not support ephemeral columns",
            ephemeral.len(),
            schema.name,
            column.name,
            table.name
        );
    }
}

/// `create-cluster`
pub fn create(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let (schema, rows) = contents(Path::new(&arguments[1]))?;
    warn_of_ephemeral(&arguments[1], &schema);
    let local = &arguments[2];
    check_address(local)?;
    let server = Uuid::random().to_string();
    let header = Json::object([
        ("server_id", text(&server)),
        ("local_address", text(local)),
        ("name", text(&schema.name)),
        ("cluster_id", text(Uuid::random())),
        ("prev_servers", Json::object([(server.as_str(), text(local))])),
        ("prev_eid", text(Uuid::random())),
        ("prev_data", Json::array([schema.to_json(), rows])),
        ("prev_term", 1.into()),
        ("prev_index", 1.into()),
    ]);
    let mut records = vec![header];
    if let Some(ms) = session.cluster.election_timer_ms {
        records.push(Json::object([("term", 1.into()), ("index", 2.into()), ("election_timer", ms.into())]));
    }
    write_new(Path::new(&arguments[0]), &records)
}

/// `join-cluster`
pub fn join(session: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let (name, local, remotes) = (&arguments[1], &arguments[2], &arguments[3..]);
    let mut letters = name.chars();
    let starts_well = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Stop::Fatal(format!(
            "{name}: not a valid schema name (use \"schema-name\" command to find the correct name)"
        )));
    }
    check_address(local)?;
    for remote in remotes {
        check_address(remote)?;
    }
    if remotes.contains(local) {
        return Err(fault("remote addresses cannot be the same as the local address".to_string()));
    }
    let mut header = Object::new();
    header.insert("server_id", text(Uuid::random()));
    header.insert("local_address", text(local));
    header.insert("name", text(name));
    header.insert("remote_addresses", Json::array(remotes.iter().map(text)));
    if let Some(cid) = session.cluster.cid {
        header.insert("cluster_id", text(cid));
    }
    write_new(Path::new(&arguments[0]), &[header.into()])
}

/// `cluster-to-standalone`
pub fn to_standalone(_: &mut Session<'_, '_>, arguments: &[String]) -> Done {
    let (target, source) = (Path::new(&arguments[0]), Path::new(&arguments[1]));
    if !is_clustered(source)? {
        return Err(Stop::Fatal("Database is not clustered db.\n".to_string()));
    }
    let records = read_records(source)?;
    let mut log = Log::open(target, OpenMode::CreateExcl, Some(&lock))?;
    for record in &records {
        let data = record.get("prev_data").or_else(|| record.get("data"));
        for part in data.and_then(Json::as_array).unwrap_or_default() {
            if part.as_object().is_some() {
                log.append(&part.to_string())?;
            }
        }
    }
    log.flush()?;
    Ok(())
}

/// The first four digits, which is how members and entries are told apart.
pub fn short(json: &Json) -> &str {
    let id = json.as_str().unwrap_or_default();
    id.get(..4).unwrap_or(id)
}

fn servers(out: &mut String, label: &str, json: &Json) {
    let all = json.as_object().into_iter().flat_map(Object::iter);
    let all: Vec<String> = all
        .map(|(id, address)| {
            format!("{}(\"{}\")", id.get(..4).unwrap_or(id), address.as_str().unwrap_or_default())
        })
        .collect();
    out.push_str(&format!(" {label}: {}\n", all.join(", ")));
}

/// `show-log` of a member's file.
pub fn show(session: &mut Session<'_, '_>, path: &Path) -> Done {
    let mut printer = show_log::Printer::new(session.verbosity);
    for (n, record) in read_records(path)?.iter().enumerate() {
        let mut out = format!("record {n}:\n");
        let prefix = if n == 0 { "prev_" } else { "" };
        if n == 0 {
            describe_header(&mut out, record);
        } else {
            describe_record(&mut out, record);
        }
        let data = record.get(&format!("{prefix}data")).and_then(Json::as_array).unwrap_or_default();
        if let Some(schema) = data.first().filter(|s| !s.is_null()) {
            let schema = printer.schema(schema)?;
            out.push_str(&format!(" {prefix}schema: {schema}\n"));
        }
        match data.get(1).and_then(Json::as_object).filter(|o| !o.is_empty()) {
            Some(changes) => printer.changes(changes, &mut out),
            None => out.push('\n'),
        }
        session.io.out(out);
    }
    Ok(())
}

fn describe_header(out: &mut String, header: &Json) {
    let field = |name: &str| header.get(name);
    // The quotes are those of the original.
    out.push_str(&format!(" name: \"{}'\n", field("name").and_then(Json::as_str).unwrap_or_default()));
    let local = field("local_address").and_then(Json::as_str).unwrap_or_default();
    out.push_str(&format!(" local address: \"{local}\"\n"));
    for name in ["server_id", "cluster_id"] {
        if let Some(id) = field(name) {
            out.push_str(&format!(" {name}: {}\n", short(id)));
        }
    }
    for name in ["prev_index", "prev_term"] {
        if let Some(number) = field(name) {
            out.push_str(&format!(" {name}: {number}\n"));
        }
    }
    if let Some(members) = field("prev_servers") {
        servers(out, "prev_servers", members);
    }
    if let Some(id) = field("prev_eid") {
        out.push_str(&format!(" prev_eid: {}\n", short(id)));
    }
    if let Some(remotes) = field("remote_addresses").and_then(Json::as_array) {
        let remotes: Vec<&str> = remotes.iter().filter_map(Json::as_str).collect();
        out.push_str(&format!(" remote_addresses: {}\n", remotes.join(" ")));
    }
}

fn describe_record(out: &mut String, record: &Json) {
    for name in ["term", "index"] {
        if let Some(number) = record.get(name) {
            out.push_str(&format!(" {name}: {number}\n"));
        }
    }
    if let Some(members) = record.get("servers") {
        servers(out, "servers", members);
    }
    for name in ["eid", "vote", "leader"] {
        if let Some(id) = record.get(name) {
            out.push_str(&format!(" {name}: {}\n", short(id)));
        }
    }
    if let Some(number) = record.get("commit_index") {
        out.push_str(&format!(" commit_index: {number}\n"));
    }
    if let Some(note) = record.get("note").and_then(Json::as_str) {
        out.push_str(&format!(" note: \"{note}\"\n"));
    }
}

#[cfg(test)]
mod tests {
    use crate::io::capture;
    use crate::ovsdb_tool::run;

    #[test]
    fn members_of_a_cluster() {
        let dir = std::env::temp_dir().join(format!("ovsdb-tool-cluster-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (schema, first, second, alone) = (file("s"), file("a"), file("b"), file("c"));
        std::fs::write(&schema, r#"{"name":"D","version":"1.0.0","tables":{}}"#).unwrap();
        let tool = |words: &[&str]| capture(run, &[&["ovsdb-tool"], words].concat(), "");
        let address = "tcp:127.0.0.1:6641";
        assert_eq!(tool(&["create-cluster", &first, &schema, address]), (0, String::new(), String::new()));
        assert!(
            tool(&["create-cluster", &first, &schema, address]).2.contains("create failed (File exists)")
        );
        assert_eq!(tool(&["db-name", &first]).1, "D\n");
        assert_eq!(tool(&["db-local-address", &first]).1, "tcp:127.0.0.1:6641\n");
        let cid = tool(&["db-cid", &first]).1;
        assert_eq!(cid.len(), 37);
        let log = tool(&["show-log", &first]).1;
        let end = " prev_schema: \"D\", version=\"1.0.0\", cksum=\"\"\n\n";
        assert!(log.starts_with("record 0:\n name: \"D'\n") && log.ends_with(end), "{log}");
        assert_eq!(tool(&["join-cluster", &second, "D", "unix:x", address]).0, 0);
        let unknown = (2, String::new(), format!("{second}: cluster ID not yet known\n"));
        assert_eq!(tool(&["db-cid", &second]), unknown);
        assert_eq!(tool(&["cluster-to-standalone", &alone, &first]).0, 0);
        assert_eq!(tool(&["db-name", &alone]).1, "D\n");
        let torn = std::fs::read_to_string(&first).unwrap().replace("\"D\"", "\"E\"");
        std::fs::write(&first, torn).unwrap();
        assert!(tool(&["db-cid", &first]).2.contains("but should have hash"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
