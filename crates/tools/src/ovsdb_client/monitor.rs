//! Commands that stay connected and print what comes: monitors and locks.
//!
//! With `--detach` the initial answer is printed before the process goes to the background; what comes later still goes to
//! the standard output that the caller gave. In the background the tool has a control socket with `exit`,
//! `lock`-free monitors also have `ovsdb-client/block`, `ovsdb-client/unblock` and `ovsdb-client/cond_change`.

use super::{Client, Done, Stop};
use crate::dbctl::data_cell;
use crate::table::{Cell, Printer, Table};
use ib_base::json::{Json, Object};
use ib_ovsdb::{Datum, Schema, TableSchema, Uuid};
use ib_stream::jsonrpc::Message;
use ib_stream::unixctl::{self, Call, Command, Server, standard};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

type C<'a, 'b> = Client<'a, 'b>;

/// The generations of monitors, by their requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Monitor,
    Cond,
    CondSince,
}

impl Version {
    fn method(self) -> &'static str {
        match self {
            Version::Monitor => "monitor",
            Version::Cond => "monitor_cond",
            Version::CondSince => "monitor_cond_since",
        }
    }
}

/// A table being monitored: its columns in the order of the command line.
struct Monitored {
    table: Arc<TableSchema>,
    columns: Vec<usize>,
}

pub fn monitor(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    run(client, Version::Monitor, None, None, arguments)
}

pub fn monitor_cond(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    run(client, Version::Cond, None, Some(&arguments[0]), &arguments[1..])
}

pub fn monitor_cond_since(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    match Uuid::parse(&arguments[0]) {
        Some(_) if arguments.len() > 2 => {
            run(client, Version::CondSince, Some(&arguments[0]), Some(&arguments[1]), &arguments[2..])
        }
        _ => run(client, Version::CondSince, None, Some(&arguments[0]), &arguments[1..]),
    }
}

/// Reads the column groups of one table into the request for it.
fn parse_groups(
    server: &str,
    schema: &Schema,
    table: &Arc<TableSchema>,
    groups: &[String],
    condition: Option<&Json>,
    requests: &mut Object,
) -> Done<Monitored> {
    let all = [String::new()];
    let groups = if groups.is_empty() { &all[..] } else { groups };
    let mut columns: Vec<usize> = Vec::new();
    let mut parsed = Vec::new();
    for group in groups {
        let mut select = Object::new();
        let mut own = Vec::new();
        for word in group.split(',').filter(|w| !w.is_empty()) {
            if let Some(kind) = word.strip_prefix('!')
                && matches!(kind, "initial" | "insert" | "delete" | "modify")
            {
                select.insert(kind, false);
                continue;
            }
            let Some(column) = table.column(word) else {
                return Err(Stop::Fatal(format!(
                    "{server}: table \"{}\" in {} does not have a column named \"{word}\"",
                    table.name, schema.name
                )));
            };
            own.push(column.index);
        }
        if own.is_empty() {
            let mut every: Vec<_> = table.columns.iter().filter(|c| &*c.name != "_uuid").collect();
            every.sort_by_key(|c| (c.name.starts_with('_'), c.name.clone()));
            own.extend(every.iter().map(|c| c.index));
        }
        for &index in &own {
            if columns.contains(&index) {
                let name = &table.columns[index].name;
                return Err(Stop::Fatal(format!("{server}: column \"{name}\" mentioned multiple times")));
            }
            columns.push(index);
        }
        let names = Json::array(own.iter().map(|&i| table.columns[i].name.clone().into()));
        let mut request = Object::new();
        request.insert("columns", names);
        request.insert("select", select);
        if let Some(condition) = condition {
            request.insert("where", condition.clone());
        }
        parsed.push(Json::Object(request));
    }
    requests.insert(table.name.clone(), Json::Array(parsed));
    Ok(Monitored { table: table.clone(), columns })
}

fn parse_condition(table: &TableSchema, text: &str) -> Done<Json> {
    let condition = Json::parse(text).map_err(|e| Stop::Fatal(format!("\"{text}\": {e}")))?;
    for clause in condition.as_array().unwrap_or(&[]) {
        match clause {
            Json::Bool(_) => {}
            Json::Array(parts) if parts.len() == 3 => {
                let name = parts[0].as_str().unwrap_or("");
                let Some(column) = table.column(name) else {
                    let error = format!("No column {name} in table {}.", table.name);
                    return Err(Stop::Fatal(format!("syntax \"{clause}\": unknown column: {error}")));
                };
                Datum::from_json(&column.kind.unconstrained(), &parts[2], None)
                    .map_err(|e| Stop::Fatal(e.to_string()))?;
            }
            other => {
                return Err(Stop::Fatal(format!(
                    "syntax \"{other}\": syntax error: Parse error in condition."
                )));
            }
        }
    }
    Ok(condition)
}

fn run(
    client: &mut C<'_, '_>,
    version: Version,
    last_id: Option<&String>,
    condition: Option<&String>,
    arguments: &[String],
) -> Done {
    let database = client.database.clone();
    let server = client.server.clone();
    let schema = client.schema(&database)?;
    let mut requests = Object::new();
    let mut monitored = Vec::new();
    let (name, groups) = match arguments.split_first() {
        Some((name, groups)) => (name, groups),
        None => return Ok(()),
    };
    if name == "ALL" && version == Version::Monitor {
        let mut tables: Vec<_> = schema.tables.iter().collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        for table in tables {
            monitored.push(parse_groups(&server, &schema, table, groups, None, &mut requests)?);
        }
    } else {
        let Some(table) = schema.table(name) else {
            // A condition is read before the request that names the server.
            let whose = if version == Version::Monitor { format!("{server}: ") } else { String::new() };
            return Err(Stop::Fatal(format!(
                "{whose}{} does not have a table named \"{name}\"",
                schema.name
            )));
        };
        let condition = condition.map(|text| parse_condition(table, text)).transpose()?;
        monitored.push(parse_groups(&server, &schema, table, groups, condition.as_ref(), &mut requests)?);
    }
    let mut params = vec![database.as_str().into(), Json::Null, requests.into()];
    if version == Version::CondSince {
        let last_id = last_id.map_or_else(|| Uuid::ZERO.to_string(), String::clone);
        params.push(last_id.into());
    }
    start(client)?;
    let result = client.call(version.method(), params.into())?;
    let mut output = Output::new(client, monitored)?;
    match (version, result.as_array()) {
        (Version::CondSince, Some([found, last, tables])) => {
            let (found, last) = (found.as_bool() == Some(true), last.as_str().unwrap_or(""));
            output.line(&format!("found: {found}, last_id: {last}\n"));
            output.print(tables, Some("initial"));
        }
        _ => output.print(&result, Some("initial")),
    }
    serve(client, &mut output)
}

/// Goes to the background if that was asked for; the caller still waits.
fn start(client: &mut C<'_, '_>) -> Done {
    if client.daemon.detaches() {
        // Descriptors and the reactor belong to the process that made them.
        client.connection = None;
    }
    client.daemon.start();
    // From here on signals are ours to obey.
    if client.connection()?.watch_signals().is_err() {
        ib_sys::signal::watch();
    }
    Ok(())
}

/// Where tables go, and what is needed to make them.
struct Output {
    style: crate::table::Style,
    timestamps: bool,
    monitored: Vec<Monitored>,
    printer: Printer,
    /// Standard output, kept while the daemon lets its own go.
    stdout: File,
    blocked: bool,
    exiting: Option<Call>,
    cond_changes: Vec<(String, Json)>,
}

impl Output {
    fn new(client: &mut C<'_, '_>, monitored: Vec<Monitored>) -> Done<Output> {
        let _ = client.io.stdout.flush();
        let kept = std::io::stdout().as_fd().try_clone_to_owned();
        let stdout = kept.map_err(|e| Stop::Fatal(format!("stdout: {}", ib_base::errno::strerror(&e))))?;
        Ok(Output {
            style: client.style.clone(),
            timestamps: client.timestamps,
            monitored,
            printer: Printer::new(),
            stdout: stdout.into(),
            blocked: false,
            exiting: None,
            cond_changes: Vec::new(),
        })
    }

    fn line(&mut self, text: &str) {
        // A reader that has gone away is no error of ours.
        let _ = self.stdout.write_all(text.as_bytes());
    }

    /// Prints an update; `initial` is the word for rows of the first one.
    fn print(&mut self, update: &Json, initial: Option<&str>) {
        let time = self.timestamps.then(|| {
            let now = ib_base::time::machine_wall_ms();
            ib_base::time::strftime("%Y-%m-%d %H:%M:%S.###", now, false)
        });
        let mut out = String::new();
        for i in 0..self.monitored.len() {
            let monitored = &self.monitored[i];
            let Some(rows) = update.get(&monitored.table.name).and_then(Json::as_object) else { continue };
            let mut table = self.table(monitored, rows, initial);
            if table.rows.is_empty() {
                continue;
            }
            if self.monitored.len() > 1 {
                table.caption = Some(monitored.table.name.to_string());
            }
            table.timestamp = time.clone();
            self.printer.print(&table, &self.style, &mut out);
        }
        self.line(&out);
    }

    fn table(&self, monitored: &Monitored, rows: &Object, initial: Option<&str>) -> Table {
        let schema = &monitored.table;
        let names = monitored.columns.iter().map(|&c| &*schema.columns[c].name);
        let mut table = Table::new(["row", "action"].into_iter().chain(names));
        for (uuid, row) in rows.sorted() {
            let content = |member: &str| row.get(member).filter(|content| !content.is_null());
            let first = Cell::from(&**uuid);
            let mut push = |uuid: Cell, action: &str, content: Option<&Json>, is_diff: bool| {
                let cells = monitored.columns.iter().map(|&c| self.cell(schema, c, content, is_diff));
                table.rows.push([uuid, action.into()].into_iter().chain(cells).collect());
            };
            match (content("old"), content("new")) {
                (Some(old), Some(new)) => {
                    push(first, "old", Some(old), false);
                    push(Cell::empty(), "new", Some(new), false);
                }
                (Some(old), None) => push(first, "delete", Some(old), false),
                (None, Some(new)) => push(first, initial.unwrap_or("insert"), Some(new), false),
                (None, None) => {
                    if let Some(new) = content("initial") {
                        push(first, "initial", Some(new), false);
                    } else if let Some(new) = content("insert") {
                        push(first, "insert", Some(new), false);
                    } else if let Some(diff) = content("modify") {
                        push(first, "modify", Some(diff), true);
                    } else if row.get("delete").is_some() {
                        push(first, "delete", None, false);
                    }
                }
            }
        }
        table
    }

    fn cell(&self, schema: &TableSchema, c: usize, content: Option<&Json>, is_diff: bool) -> Cell {
        let column = &schema.columns[c];
        let Some(json) = content.and_then(|content| content.get(&column.name)) else { return Cell::empty() };
        let parsing = if is_diff { column.kind.unconstrained() } else { column.kind.clone() };
        match Datum::from_json_unchecked(&parsing, json, None) {
            Ok(datum) => data_cell(&self.style, &datum, &column.kind),
            Err(_) => Cell::Json(json.clone()),
        }
    }
}

impl standard::Standard for Output {}

fn ctl_exit(output: &mut Output, call: Call) {
    output.exiting = Some(call);
}

fn ctl_block(output: &mut Output, call: Call) {
    if output.blocked {
        call.err("already blocking\n");
    } else {
        output.blocked = true;
        call.ok("");
    }
}

fn ctl_unblock(output: &mut Output, call: Call) {
    if output.blocked {
        output.blocked = false;
        call.ok("");
    } else {
        call.err("already unblocked\n");
    }
}

fn ctl_cond_change(output: &mut Output, call: Call) {
    let (Some(table), Some(text)) = (call.arg(0), call.arg(1)) else { return };
    match Json::parse(text) {
        Ok(condition) => {
            output.cond_changes.push((table.to_string(), condition));
            call.ok("");
        }
        Err(error) => {
            let text = format!("\"{text}\": {error}\n");
            call.err(text);
        }
    }
}

const CONTROL: &[Command<Output>] = &[
    Command { name: "exit", usage: "", min: 0, max: 0, handler: ctl_exit },
    Command { name: "ovsdb-client/block", usage: "", min: 0, max: 0, handler: ctl_block },
    Command { name: "ovsdb-client/unblock", usage: "", min: 0, max: 0, handler: ctl_unblock },
    Command {
        name: "ovsdb-client/cond_change",
        usage: "TABLE COND",
        min: 2,
        max: 2,
        handler: ctl_cond_change,
    },
];

/// Prints what comes until the server hangs up or somebody says `exit`.
fn serve(client: &mut C<'_, '_>, output: &mut Output) -> Done {
    let path = if client.daemon.detaches() || client.unixctl.is_some() {
        unixctl::socket_path(&client.program, client.unixctl.as_deref())
    } else {
        None
    };
    let broken = {
        let program = client.program.clone();
        move |e: &std::io::Error| Stop::Fatal(format!("{program}: {}", ib_base::errno::strerror(e)))
    };
    let handle = client.connection()?.handle();
    let mut control: Server<Output> = Server::listen(path.as_deref(), &handle).map_err(|e| broken(&e))?;
    control.register(&standard::commands());
    control.register(CONTROL);
    client.daemon.complete();
    loop {
        control.run(output);
        if let Some(call) = output.exiting.take() {
            call.ok("");
            control.run(output);
            return Ok(());
        }
        for (table, condition) in std::mem::take(&mut output.cond_changes) {
            let change = Json::array([Json::object([("where", condition)])]);
            let params = Json::array([Json::Null, Json::Null, Json::object([(table, change)])]);
            let sent = client.connection()?.request("monitor_cond_change", params);
            sent.map_err(|e| client.broken(&e))?;
        }
        while !output.blocked {
            let received = client.connection()?.try_recv();
            match received.map_err(|e| client.broken(&e))? {
                Some(Message::Notify { method, params }) => update(output, &method, &params),
                Some(_) => {}
                None => break,
            }
        }
        let waited = client.connection()?.wait();
        waited.map_err(|e| client.broken(&e))?;
    }
}

fn update(output: &mut Output, method: &str, params: &Json) {
    match (method, params.as_array().unwrap_or(&[])) {
        ("update" | "update2", [_, tables]) => output.print(tables, None),
        ("update3", [_, last, tables]) => {
            // An empty line stands before each table but the first, and this line belongs to the table.
            output.line(&format!("\nlast_id: {}\n", last.as_str().unwrap_or("")));
            output.printer = Printer::new();
            output.print(tables, None);
        }
        ("locked" | "stolen", params) => {
            output.line(&format!("{method}\n{}\n", Json::array(params.iter().cloned())));
        }
        _ => {}
    }
}

pub fn lock(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    run_lock(client, "lock", arguments)
}

pub fn steal(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    run_lock(client, "steal", arguments)
}

pub fn unlock(client: &mut C<'_, '_>, arguments: &[String]) -> Done {
    run_lock(client, "unlock", arguments)
}

fn ctl_lock_request(requests: &mut LockRequests, call: Call) {
    let Some(lock) = call.arg(0) else { return };
    requests.pending.push((call.command.clone(), lock.to_string()));
    call.ok("");
}

fn ctl_lock_exit(requests: &mut LockRequests, call: Call) {
    requests.exiting = Some(call);
}

/// What the control socket of a lock command asked for.
#[derive(Default)]
struct LockRequests {
    pending: Vec<(String, String)>,
    exiting: Option<Call>,
}

impl standard::Standard for LockRequests {}

const LOCK_CONTROL: &[Command<LockRequests>] = &[
    Command { name: "exit", usage: "", min: 0, max: 0, handler: ctl_lock_exit },
    Command { name: "lock", usage: "LOCK", min: 1, max: 1, handler: ctl_lock_request },
    Command { name: "steal", usage: "LOCK", min: 1, max: 1, handler: ctl_lock_request },
    Command { name: "unlock", usage: "LOCK", min: 1, max: 1, handler: ctl_lock_request },
];

fn run_lock(client: &mut C<'_, '_>, method: &str, arguments: &[String]) -> Done {
    start(client)?;
    let mut output = Output::new(client, Vec::new())?;
    let lock = |name: &str| Json::array([name.into()]);
    // A refusal is not told; what was asked for may still come about.
    if let Ok(result) = client.try_call(method, lock(&arguments[0]))? {
        output.line(&format!("{result}\n"));
    }
    let path = if client.daemon.detaches() || client.unixctl.is_some() {
        unixctl::socket_path(&client.program, client.unixctl.as_deref())
    } else {
        None
    };
    let handle = client.connection()?.handle();
    let listening = Server::listen(path.as_deref(), &handle);
    let mut control: Server<LockRequests> = listening.map_err(|e| client.broken(&e))?;
    control.register(&standard::commands());
    control.register(LOCK_CONTROL);
    client.daemon.complete();
    let mut requests = LockRequests::default();
    loop {
        control.run(&mut requests);
        if let Some(call) = requests.exiting.take() {
            call.ok("");
            control.run(&mut requests);
            return Ok(());
        }
        for (method, name) in std::mem::take(&mut requests.pending) {
            let sent = client.connection()?.request(&method, lock(&name));
            sent.map_err(|e| client.broken(&e))?;
        }
        loop {
            let received = client.connection()?.try_recv();
            match received.map_err(|e| client.broken(&e))? {
                Some(Message::Notify { method, params }) => update(&mut output, &method, &params),
                Some(Message::Reply { result, .. }) => output.line(&format!("{result}\n")),
                Some(_) => {}
                None => break,
            }
        }
        let waited = client.connection()?.wait();
        waited.map_err(|e| client.broken(&e))?;
    }
}
