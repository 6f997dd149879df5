//! Commands that ask the server something and print the answer.

use super::{Client, Done, Stop};
use crate::client::Connection;
use crate::dbctl::data_cell;
use crate::ovsdb_tool::parse_schema;
use crate::table::{Cell, Printer, Table};
use ib_base::json::{Json, Object, Style, table_order};
use ib_base::vlog::module::{OVSDB_CLIENT, RECONNECT};
use ib_base::vlog_info;
use ib_flow::hash;
use ib_ovsdb::log::{MAGIC, frame};
use ib_ovsdb::{ColumnSchema, Datum, Schema, TableSchema, Uuid};
use std::collections::HashMap;
use std::sync::Arc;

type C<'a, 'b> = Client<'a, 'b>;

pub fn list_dbs(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let names = client.call("list_dbs", Json::array([]))?;
    let mut names: Vec<&str> = names.as_array().unwrap_or(&[]).iter().filter_map(Json::as_str).collect();
    names.sort_unstable();
    for name in names {
        client.io.out(format!("{name}\n"));
    }
    Ok(())
}

pub(super) fn json_style(client: &C<'_, '_>) -> Style {
    if client.style.pretty { Style::PRETTY_SORTED } else { Style::SORTED }
}

pub fn get_schema(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    let text = schema.to_json().to_text(json_style(client));
    client.io.out(format!("{text}\n"));
    Ok(())
}

pub fn get_schema_version(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    client.io.out(format!("{}\n", schema.version));
    Ok(())
}

pub fn get_schema_cksum(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    client.io.out(format!("{}\n", schema.cksum));
    Ok(())
}

fn print(client: &mut C<'_, '_>, table: &Table) {
    let mut out = String::new();
    Printer::new().print(table, &client.style, &mut out);
    client.io.out(out);
}

pub fn list_tables(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let tables = listed_tables(client)?;
    let mut table = Table::new(["Table"]);
    table.rows.extend(tables.iter().map(|t| vec![Cell::from(&*t.name)]));
    print(client, &table);
    Ok(())
}

fn sorted_tables(schema: &Schema) -> Vec<&TableSchema> {
    let mut tables: Vec<&TableSchema> = schema.tables.iter().map(|t| &**t).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

/// A database's tables in the order of Open vSwitch's own table of them, which is filled from that of a JSON object's members.
fn listed_tables(client: &mut C<'_, '_>) -> Done<Vec<Arc<TableSchema>>> {
    let database = client.database.clone();
    let json = client.call("get_schema", Json::array([database.into()]))?;
    let schema = Schema::from_json(&json).map_err(|e| Stop::Fatal(e.to_string()))?;
    let told = json.get("tables").and_then(Json::as_object).into_iter().flat_map(|o| o.keys());
    let of_name = |name: &str| hash::bytes(name.as_bytes(), 0);
    let members = hash::chain_order(told.map(|name| &**name), of_name);
    let names = hash::chain_order(members.into_iter(), of_name);
    Ok(names.into_iter().filter_map(|name| schema.table(name).cloned()).collect())
}

pub fn list_columns(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let tables = listed_tables(client)?;
    let only = arguments.first();
    let headings: &[&str] = if only.is_some() { &["Column", "Type"] } else { &["Table", "Column", "Type"] };
    let mut table = Table::new(headings.iter().copied());
    for of in &tables {
        if only.is_some_and(|name| **name != *of.name) {
            continue;
        }
        // The order of Open vSwitch's table of columns, into which the hidden ones are put first.
        let (hidden, shown): (Vec<_>, Vec<_>) = of.columns.iter().partition(|c| c.name.starts_with('_'));
        let of_name = |c: &ColumnSchema| hash::bytes(c.name.as_bytes(), 0);
        let shown = hash::chain_order(shown.into_iter(), of_name);
        let columns = hash::chain_order(hidden.into_iter().chain(shown), of_name);
        for column in columns {
            let mut row = vec![Cell::from(&*column.name), Cell::Json(column.kind.to_json())];
            if only.is_none() {
                row.insert(0, Cell::from(&*of.name));
            }
            table.rows.push(row);
        }
    }
    print(client, &table);
    Ok(())
}

/// Reads the parameters of a transaction, which name the database.
fn parse_query(client: &mut C<'_, '_>, text: &str) -> Done<Vec<Json>> {
    let json = Json::parse(text).map_err(|e| Stop::Fatal(format!("\"{text}\": {e}")))?;
    match json {
        Json::Array(params) if matches!(params.first(), Some(Json::String(_))) => {
            client.database = params[0].as_str().unwrap_or_default().to_string();
            Ok(params)
        }
        _ => Err(Stop::Fatal("not a valid OVSDB query".to_string())),
    }
}

pub fn transact(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let params = parse_query(client, &arguments[0])?;
    let result = client.call("transact", params.into())?;
    let text = result.to_text(json_style(client));
    client.io.out(format!("{text}\n"));
    Ok(())
}

pub fn query(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let mut params = parse_query(client, &arguments[0])?;
    params.push(Json::object([("op", Json::from("abort"))]));
    let mut result = client.call("transact", params.into())?;
    if let Json::Array(results) = &mut result
        && results.last().is_some_and(|r| r.get("error").and_then(Json::as_str) == Some("aborted"))
    {
        results.pop();
    }
    let text = result.to_text(json_style(client));
    client.io.out(format!("{text}\n"));
    Ok(())
}

/// The rows of some tables, each with its columns in the order of their names.
struct Dump {
    table: String,
    columns: Vec<(String, ib_ovsdb::ColumnType)>,
    rows: Vec<Vec<Datum>>,
}

/// Reads whole tables in one transaction. `columns` of `None` means all but `_version`, `_uuid` first.
fn read_tables(client: &mut C<'_, '_>, tables: &[(&TableSchema, Option<Vec<String>>)]) -> Done<Vec<Dump>> {
    let mut params = vec![Json::from(client.database.as_str())];
    let mut dumps = Vec::new();
    for (table, wanted) in tables {
        let mut columns: Vec<_> = table
            .columns
            .iter()
            .filter(|c| match wanted {
                Some(wanted) => wanted.iter().any(|w| **w == *c.name),
                None => &*c.name != "_version",
            })
            .map(|c| (c.name.to_string(), c.kind.clone()))
            .collect();
        columns.sort_by(|a, b| a.0.cmp(&b.0));
        let mut op = Object::new();
        op.insert("op", "select");
        op.insert("table", table.name.clone());
        op.insert("where", Json::array([]));
        op.insert("columns", Json::array(columns.iter().map(|(name, _)| name.as_str().into())));
        params.push(op.into());
        dumps.push(Dump { table: table.name.to_string(), columns, rows: Vec::new() });
    }
    let results = client.call("transact", params.into())?;
    let results = results.as_array().unwrap_or(&[]);
    for (dump, result) in dumps.iter_mut().zip(results) {
        let Some(rows) = result.get("rows").and_then(Json::as_array) else {
            let error = result.to_text(Style::SORTED);
            return Err(Stop::Fatal(format!("transaction returned error: {error}")));
        };
        for row in rows {
            let value = |(name, kind): &(String, ib_ovsdb::ColumnType)| {
                let json = row.get(name).unwrap_or(&Json::Null);
                Datum::from_json_unchecked(kind, json, None).map_err(|e| Stop::Fatal(e.to_string()))
            };
            dump.rows.push(dump.columns.iter().map(value).collect::<Result<_, _>>()?);
        }
        dump.rows.sort();
    }
    Ok(dumps)
}

pub fn dump(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    let tables = match arguments.split_first() {
        None => sorted_tables(&schema).into_iter().map(|t| (t, None)).collect(),
        Some((name, columns)) => {
            let Some(table) = schema.table(name) else {
                return Err(Stop::Fatal(format!("No table \"{name}\" found.")));
            };
            if let Some(unknown) = columns.iter().find(|c| table.column(c).is_none()) {
                return Err(Stop::Fatal(format!("Table \"{name}\" has no column {unknown}.")));
            }
            vec![(&**table, (!columns.is_empty()).then(|| columns.to_vec()))]
        }
    };
    let mut printer = Printer::new();
    let mut out = String::new();
    for dump in read_tables(client, &tables)? {
        let headings = dump.columns.iter().map(|(name, _)| name.as_str());
        let mut table = Table::new(headings).with_caption(format!("{} table", dump.table));
        for row in &dump.rows {
            let cells = row.iter().zip(&dump.columns);
            table.rows.push(cells.map(|(value, (_, kind))| data_cell(&client.style, value, kind)).collect());
        }
        printer.print(&table, &client.style, &mut out);
    }
    client.io.out(out);
    Ok(())
}

pub fn backup(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    let tables: Vec<(&TableSchema, Option<Vec<String>>)> = schema
        .tables
        .iter()
        .map(|t| {
            let persistent = t.columns.iter().filter(|c| c.persistent).map(|c| c.name.to_string());
            (&**t, Some(persistent.collect()))
        })
        .collect();
    let mut record = Object::new();
    let ms = i64::try_from(ib_base::time::machine_wall_ms()).unwrap_or(0);
    record.insert("_date", ms);
    record.insert("_is_diff", true);
    record.insert("_comment", "produced by \"ovsdb-client backup\"");
    for dump in read_tables(client, &tables)? {
        if dump.rows.is_empty() {
            continue;
        }
        let mut rows = Object::new();
        for row in &dump.rows {
            let mut content = Object::new();
            let mut uuid = Uuid::ZERO;
            for (value, (name, kind)) in row.iter().zip(&dump.columns) {
                match name.as_str() {
                    "_uuid" => uuid = value.as_uuid().unwrap_or(uuid),
                    _ if value.is_default(kind) => {}
                    _ => {
                        content.insert(name.as_str(), value.to_json(kind));
                    }
                }
            }
            rows.insert(uuid.to_string(), content);
        }
        record.insert(dump.table.as_str(), rows);
    }
    for json in [schema.to_json(), Json::Object(record)] {
        let written = client.io.stdout.write_all(&frame(MAGIC, &json.to_string()));
        written.map_err(|_| Stop::Fatal("write to stdout failed".into()))?;
    }
    Ok(())
}

pub fn restore(client: &mut C<'_, '_>, _: &[String]) -> Done {
    let mut bytes = Vec::new();
    let failed = |e: &std::io::Error| Stop::Fatal(format!("/dev/stdin: {}", ib_base::errno::strerror(e)));
    client.io.stdin.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.is_empty() {
        return Err(Stop::Fatal("ovsdb error: /dev/stdin: cannot identify file type".to_string()));
    }
    if !bytes.starts_with(b"OVSDB JSON ") {
        let why = if bytes.is_empty() { "cannot identify file type" } else { "unexpected file format" };
        return Err(Stop::Fatal(format!("ovsdb error: /dev/stdin: {why}")));
    }
    // The engine reads files.
    let path = std::env::temp_dir().join(format!("ovsdb-client.{}.{}", std::process::id(), Uuid::random()));
    std::fs::write(&path, &bytes).map_err(|e| failed(&e))?;
    let loaded = ib_ovsdb::database::Database::open(&path, false, None);
    // A leftover in the temporary directory is no error of the command.
    let _ = std::fs::remove_file(&path);
    let damaged =
        |e: ib_ovsdb::Error| Stop::Fatal(e.to_string().replace(&*path.to_string_lossy(), "/dev/stdin"));
    let loaded = loaded.map_err(damaged)?;
    // Half of a backup must not replace a database.
    if let Some(warning) = loaded.warning {
        return Err(damaged(warning));
    }
    let snapshot = loaded.database;
    let database = client.database.clone();
    let schema = client.schema(&database)?;
    let (old, new) = (&snapshot.schema.version, &schema.version);
    if old != new {
        let text = format!("backup schema has version \"{old}\" but database schema has version \"{new}\"");
        if !client.force {
            let ways =
                "(use --force to override differences, or \"ovsdb-client convert\" to change the schema)";
            return Err(Stop::Fatal(format!("{text} {ways}")));
        }
        vlog_info!(OVSDB_CLIENT, "{text}");
    } else if *snapshot.schema != schema && !client.force {
        return Err(Stop::Fatal(
            "backup schema and database schema do not match (use --force to override differences, or use \
             \"ovsdb-client convert\" to change the schema)"
                .to_string(),
        ));
    }
    let mut params = vec![Json::from(database.as_str())];
    // The order is the original's, which shows where the database has not all of the tables.
    let names: Vec<&str> = snapshot.schema.tables.iter().map(|t| &*t.name).collect();
    for table in table_order(names).into_iter().map(|i| &snapshot.schema.tables[i]) {
        let op =
            [("op", Json::from("delete")), ("table", table.name.clone().into()), ("where", Json::array([]))];
        params.push(Json::object(op));
    }
    let name = |uuid: Uuid| format!("row{uuid}").replace('-', "_");
    let known: HashMap<Uuid, String> =
        snapshot.tables.iter().flat_map(|t| t.rows.keys()).map(|uuid| (*uuid, name(*uuid))).collect();
    for table in &snapshot.tables {
        for (uuid, entry) in &table.rows {
            let mut row = Object::new();
            for column in table.schema.user_columns().iter().filter(|c| c.persistent) {
                let value = entry.row.get(column.index);
                if !value.is_default(&column.kind) {
                    row.insert(column.name.clone(), rename(value.to_json(&column.kind), &known));
                }
            }
            let mut op = Object::new();
            op.insert("op", "insert");
            op.insert("table", table.schema.name.clone());
            op.insert("uuid-name", name(*uuid));
            op.insert("row", row);
            params.push(op.into());
        }
    }
    params.push(Json::object([
        ("op", Json::from("comment")),
        ("comment", Json::from("ovsdb-client: restore")),
    ]));
    let results = client.call("transact", params.into())?;
    let error =
        results.as_array().unwrap_or(&[]).iter().find(|r| r.get("error").is_some_and(|e| !e.is_null()));
    match error {
        None => Ok(()),
        Some(error) => {
            Err(Stop::Fatal(format!("server returned error reply: {}", error.to_text(Style::SORTED))))
        }
    }
}

/// Replaces references to rows of the snapshot by their names.
fn rename(json: Json, known: &HashMap<Uuid, String>) -> Json {
    match json {
        Json::Array(elements) => {
            if let [Json::String(word), Json::String(text)] = &elements[..]
                && &**word == "uuid"
                && let Some(name) = Uuid::parse(text).and_then(|uuid| known.get(&uuid))
            {
                return Json::array(["named-uuid".into(), name.as_str().into()]);
            }
            Json::array(elements.into_iter().map(|e| rename(e, known)))
        }
        other => other,
    }
}

fn read_schema(path: &str) -> Done<Schema> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let why = ib_base::errno::strerror(&e);
        Stop::Fatal(format!(
            "failed to read schema: \"{path}\" could not be read as JSON (error opening \"{path}\": {why})"
        ))
    })?;
    parse_schema(&text, path).map_err(Stop::Fatal)
}

pub fn convert(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let schema = read_schema(&arguments[0])?;
    client.database = schema.name.to_string();
    // So that the server does not hang up on what it converts.
    client.call("set_db_change_aware", Json::array([true.into()]))?;
    client.call("convert", Json::array([schema.name.clone().into(), schema.to_json()]))?;
    Ok(())
}

pub fn needs_conversion(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let wanted = read_schema(&arguments[0])?;
    let name = wanted.name.to_string();
    client.database.clone_from(&name);
    let current = client.schema(&name)?;
    client.io.out(if current == wanted { "no\n" } else { "yes\n" });
    Ok(())
}

/// The state that `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Added,
    Connected,
    Removed,
}

pub fn wait(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    let [database, state] = arguments else { return Ok(()) };
    let state = match state.as_str() {
        "added" => State::Added,
        "connected" => State::Connected,
        "removed" => State::Removed,
        other => return Err(Stop::Fatal(format!("{other}: unknown state"))),
    };
    // The server may come and go while we wait. The pauses are a session's: none longer than eight seconds.
    let mut backoff_s = 1;
    loop {
        vlog_info!(RECONNECT, "{}: connecting...", client.server);
        match Connection::open_one(&client.server) {
            Ok(mut connection) => {
                vlog_info!(RECONNECT, "{}: connected", client.server);
                backoff_s = 1;
                match wait_on(&mut connection, database, state) {
                    Ok(()) => return Ok(()),
                    Err(_) => vlog_info!(RECONNECT, "{}: connection closed by peer", client.server),
                }
            }
            Err(e) => {
                let why = ib_base::errno::strerror(&e);
                vlog_info!(RECONNECT, "{}: connection attempt failed ({why})", client.server);
            }
        }
        if backoff_s > 1 {
            vlog_info!(RECONNECT, "{}: waiting {backoff_s} seconds before reconnect", client.server);
        }
        std::thread::sleep(std::time::Duration::from_secs(backoff_s));
        backoff_s = (backoff_s * 2).min(8);
    }
}

/// Follows the server's own database until `database` is in the state asked for.
fn wait_on(connection: &mut Connection, database: &str, state: State) -> std::io::Result<()> {
    let aware = connection.call("set_db_change_aware", Json::array([true.into()]))?;
    // A server that cannot be told about databases has only fixed ones.
    drop(aware);
    loop {
        let select = Json::object([
            ("op", Json::from("select")),
            ("table", Json::from("Database")),
            ("where", Json::array([Json::array(["name".into(), "==".into(), database.into()])])),
            ("columns", Json::array(["connected".into()])),
        ]);
        let result = connection.call("transact", Json::array(["_Server".into(), select]))?;
        let rows =
            result.ok().and_then(|r| r.as_array()?.first()?.get("rows")?.as_array().map(<[Json]>::to_vec));
        let rows = rows.unwrap_or_default();
        let connected = rows.iter().any(|r| r.get("connected").and_then(Json::as_bool) == Some(true));
        let reached = match state {
            State::Added => !rows.is_empty(),
            State::Connected => connected,
            State::Removed => rows.is_empty(),
        };
        if reached {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
