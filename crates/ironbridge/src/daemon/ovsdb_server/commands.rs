//! The commands of the control socket that are this daemon's own.

use ib_base::vlog::module::OVSDB_SERVER;
use ib_base::vlog_info;
use ib_ovsdb::server::SERVER_DATABASE;
use ib_stream::unixctl::{Call, Command};

use super::App;

type Row = Command<App>;

/// All of them.
pub(super) const COMMANDS: &[Row] = &[
    Row { name: "exit", usage: "", min: 0, max: 0, handler: |app, call| app.exiting = Some(call) },
    Row { name: "ovsdb-server/compact", usage: "", min: 0, max: 1, handler: compact },
    Row { name: "ovsdb-server/reconnect", usage: "", min: 0, max: 0, handler: reconnect },
    Row { name: "ovsdb-server/reload", usage: "", min: 0, max: 0, handler: reload },
    Row { name: "ovsdb-server/add-remote", usage: "REMOTE", min: 1, max: 1, handler: add_remote },
    Row { name: "ovsdb-server/remove-remote", usage: "REMOTE", min: 1, max: 1, handler: remove_remote },
    Row { name: "ovsdb-server/list-remotes", usage: "", min: 0, max: 0, handler: list_remotes },
    Row { name: "ovsdb-server/add-db", usage: "DB", min: 1, max: 1, handler: add_db },
    Row { name: "ovsdb-server/remove-db", usage: "DB", min: 1, max: 1, handler: remove_db },
    Row { name: "ovsdb-server/list-dbs", usage: "", min: 0, max: 0, handler: list_dbs },
    Row { name: "ovsdb-server/tlog-set", usage: "DB:TABLE on|off", min: 2, max: 2, handler: tlog_set },
    Row { name: "ovsdb-server/tlog-list", usage: "", min: 0, max: 0, handler: tlog_list },
    Row { name: "ovsdb-server/get-db-storage-status", usage: "DB", min: 1, max: 1, handler: storage_status },
    Row {
        name: "ovsdb-server/perf-counters-show",
        usage: "",
        min: 0,
        max: 0,
        handler: |_, call| call.ok("performance counter is not supported on this platform\n"),
    },
    Row {
        name: "ovsdb-server/perf-counters-clear",
        usage: "",
        min: 0,
        max: 0,
        handler: |_, call| call.ok(""),
    },
    Row {
        name: "ovsdb-server/memory-trim-on-compaction",
        usage: "on|off",
        min: 1,
        max: 1,
        handler: memory_trim,
    },
    Row {
        name: "ovsdb-server/disable-monitor-cond",
        usage: "",
        min: 0,
        max: 0,
        handler: |_, call| call.ok(""),
    },
    Row {
        name: "ovsdb-server/sync-status",
        usage: "",
        min: 0,
        max: 0,
        handler: |app, call| {
            let text = app.sync_status();
            call.ok(text);
        },
    },
    Row { name: "ovsdb-server/get-active-ovsdb-server", usage: "", min: 0, max: 0, handler: get_active },
    Row { name: "ovsdb-server/set-active-ovsdb-server", usage: "", min: 1, max: 1, handler: set_active },
    Row {
        name: "ovsdb-server/connect-active-ovsdb-server",
        usage: "",
        min: 0,
        max: 0,
        handler: connect_active,
    },
    Row {
        name: "ovsdb-server/disconnect-active-ovsdb-server",
        usage: "",
        min: 0,
        max: 0,
        handler: disconnect_active,
    },
    Row {
        name: "ovsdb-server/set-active-ovsdb-server-probe-interval",
        usage: "",
        min: 1,
        max: 1,
        handler: |app, call| set_probe(app, call, App::set_active_probe),
    },
    Row {
        name: "ovsdb-server/set-relay-source-probe-interval",
        usage: "",
        min: 1,
        max: 1,
        handler: |app, call| set_probe(app, call, App::set_relay_probe),
    },
    Row { name: "ovsdb-server/get-sync-exclude-tables", usage: "", min: 0, max: 0, handler: get_exclude },
    Row { name: "ovsdb-server/set-sync-exclude-tables", usage: "", min: 0, max: 1, handler: set_exclude },
];

fn get_active(app: &mut App, call: Call) {
    call.ok(if app.copying.active.is_empty() { String::new() } else { format!("{}\n", app.copying.active) });
}

fn set_active(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    app.copying.active = arg(&call, 0);
    call.ok("");
}

fn connect_active(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    if app.copying.active.is_empty() {
        return call.ok("Unable to connect: active server is not specified.\n");
    }
    app.become_backup();
    call.ok("");
}

fn disconnect_active(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    app.become_active();
    call.ok("");
}

fn set_probe(app: &mut App, call: Call, set: fn(&mut App, u64)) {
    match call.arg(0).and_then(|a| a.trim().parse::<i64>().ok()) {
        Some(ms) => {
            set(app, u64::try_from(ms).unwrap_or(0));
            call.ok("");
        }
        None => call.ok("Invalid probe interval, integer value expected\n"),
    }
}

fn get_exclude(app: &mut App, call: Call) {
    call.ok(if app.copying.exclude.is_empty() {
        String::new()
    } else {
        format!("{}\n", app.copying.exclude)
    });
}

fn set_exclude(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    app.copying.exclude = arg(&call, 0);
    if app.is_backup() {
        app.become_backup();
    }
    call.ok("");
}

fn arg(call: &Call, i: usize) -> String {
    call.arg(i).unwrap_or_default().to_string()
}

fn compact(app: &mut App, call: Call) {
    let names = match call.arg(0) {
        Some(SERVER_DATABASE) => return call.err("cannot compact built-in databases"),
        Some(name) if app.server.database(name).is_none() => return call.err("no database by that name"),
        Some(name) => vec![name.to_string()],
        None => app.user_databases(),
    };
    app.compact(&names, call);
}

fn reconnect(app: &mut App, call: Call) {
    app.remotes.reconnect(&mut app.server);
    call.ok("");
}

fn reload(app: &mut App, call: Call) {
    if app.config_file.is_none() {
        return call.ok("");
    }
    let result = app.load_config();
    app.reconfigure();
    call.answer_text(result.map(|()| ""));
}

/// True, and the call answered, if the configuration is the file's.
fn managed(app: &App) -> Option<&'static str> {
    app.config_file.is_some().then_some(
        "server configuration is managed by the configuration file; edit it and call ovsdb-server/reload",
    )
}

fn add_remote(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    let result = app.add_remote(&arg(&call, 0));
    app.reconfigure();
    call.answer_text(result.map(|()| ""));
}

fn remove_remote(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    if app.remotes.remove(&arg(&call, 0)) {
        app.reconfigure();
        call.ok("");
    } else {
        call.err("no such remote");
    }
}

fn lines(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().map(|name| name + "\n").collect()
}

fn list_remotes(app: &mut App, call: Call) {
    call.ok(lines(app.remotes.targets()));
}

fn add_db(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    let result = app.open_database(&arg(&call, 0));
    app.reconfigure();
    call.answer_text(result.map(|()| ""));
}

fn remove_db(app: &mut App, call: Call) {
    if let Some(text) = managed(app) {
        return call.err(text);
    }
    if call.arg(0) == Some(SERVER_DATABASE) {
        return call.err("Cannot remove reserved database.");
    }
    if app.close_database(&arg(&call, 0)) {
        app.reconfigure();
        call.ok("");
    } else {
        call.err("Failed to find the database.");
    }
}

fn list_dbs(app: &mut App, call: Call) {
    call.ok(lines(app.server.database_names().map(str::to_string)));
}

fn tlog_set(app: &mut App, call: Call) {
    let name = arg(&call, 0);
    let parts = name.split_once(':').filter(|(database, table)| !database.is_empty() && !table.is_empty());
    let Some((database, table)) = parts else {
        return call.err("invalid DB:TABLE argument");
    };
    if app.server.database(database).is_none() {
        return call.err("no such database");
    }
    if app.server.database(database).is_none_or(|d| d.schema.table(table).is_none()) {
        return call.err("no such table");
    }
    let on = match call.arg(1).map(str::to_ascii_lowercase).as_deref() {
        Some("on") => true,
        Some("off") => false,
        _ => return call.err("invalid command argument"),
    };
    app.server.set_tlog(database, table, on);
    call.ok("");
}

fn tlog_list(app: &mut App, call: Call) {
    let mut out = String::from(
        "database        table                       logging\n\
         --------        -----                       -------\n",
    );
    for name in app.server.database_names() {
        out.push_str(&format!("{name:<16} \n"));
        let Some(database) = app.server.database(name) else { continue };
        let mut tables: Vec<&str> = database.schema.tables.iter().map(|t| &*t.name).collect();
        tables.sort_unstable();
        for table in tables {
            let state = if app.server.tlog(name, table) { "ON" } else { "OFF" };
            out.push_str(&format!("                {table:<27} {state}\n"));
        }
    }
    call.ok(out);
}

fn storage_status(app: &mut App, call: Call) {
    match app.server.database(&arg(&call, 0)) {
        Some(_) => call.ok("status: ok\n"),
        None => call.err("Failed to find the database."),
    }
}

fn memory_trim(app: &mut App, call: Call) {
    let on = match call.arg(0) {
        Some("on") => true,
        Some("off") => false,
        _ => return call.err("invalid argument"),
    };
    app.compactions.trim_memory = on;
    let state = if on { "enabled" } else { "disabled" };
    vlog_info!(OVSDB_SERVER, "memory trimming after compaction {state}.");
    call.ok("");
}
