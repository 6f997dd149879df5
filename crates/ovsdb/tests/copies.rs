//! Servers that copy others: relays and backups, as machines that pass each other messages; and what roles permit.

use ib_base::json::Json;
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use ib_ovsdb::rbac::Asker;
use ib_ovsdb::server::{Action, Now, Server, SessionId, SourceId, parse_excluded};
use std::sync::Arc;

const SCHEMA: &str = r#"{"name":"S","version":"1.0.0","tables":{
    "T":{"isRoot":true,"columns":{"name":{"type":"string"},"n":{"type":"integer"},
        "tags":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}},"indexes":[["name"]]},
    "U":{"isRoot":true,"columns":{"x":{"type":"string"}}}}}"#;

fn at(ms: i64) -> Now {
    Now { ms, wall_ms: 1_000_000 }
}

fn server() -> Server {
    let mut server = Server::new();
    server.add_database(Database::new(Schema::parse(SCHEMA).unwrap()), at(0)).unwrap();
    server
}

fn ask(server: &mut Server, id: SessionId, request: &str, method: &str, params: &str, ms: i64) {
    let Json::Array(params) = Json::parse(params).unwrap() else { panic!("{params}") };
    server.request(id, method, params, Json::from(request), at(ms));
}

/// Two servers, one of which copies the other; what they say to each other is passed on until they are silent.
struct Pair {
    from: Server,
    to: Server,
    source: SourceId,
    /// The copying server's session with the other.
    session: Option<SessionId>,
    /// What was sent to clients of either.
    sent: Vec<(bool, SessionId, String)>,
    reconnects: usize,
}

impl Pair {
    fn new(from: Server, mut to: Server, start: impl FnOnce(&mut Server) -> SourceId) -> Pair {
        let source = start(&mut to);
        Pair { from, to, source, session: None, sent: Vec::new(), reconnects: 0 }
    }

    fn connect(&mut self, ms: i64) {
        self.session = Some(self.from.open_session(false));
        self.to.source_connected(self.source);
        self.run(ms);
    }

    fn disconnect(&mut self, ms: i64) {
        self.from.close_session(self.session.take().unwrap());
        self.to.source_disconnected(self.source, at(ms));
        self.run(ms);
    }

    fn run(&mut self, ms: i64) {
        loop {
            self.from.run(at(ms));
            self.to.run(at(ms));
            let mut actions: Vec<(bool, Action)> =
                self.from.take_actions().into_iter().map(|a| (true, a)).collect();
            actions.extend(self.to.take_actions().into_iter().map(|a| (false, a)));
            if actions.is_empty() {
                return;
            }
            for (by_source, action) in actions {
                match action {
                    Action::Send(id, text) if by_source && Some(id) == self.session => self.tell(&text, ms),
                    Action::Send(id, text) => self.sent.push((by_source, id, text.to_string())),
                    Action::Ask(_, text) => {
                        if let Some(session) = self.session {
                            self.from.receive(session, Json::parse(&text).unwrap(), at(ms));
                        }
                    }
                    Action::Reconnect(_) => self.reconnects += 1,
                    Action::Close { session, why, .. } => {
                        self.sent.push((by_source, session, format!("close: {why}")))
                    }
                }
            }
        }
    }

    fn tell(&mut self, text: &Arc<str>, ms: i64) {
        let message = Json::parse(text).unwrap();
        let id = message.get("id").cloned().unwrap_or(Json::Null);
        if let Some(method) = message.get("method").and_then(Json::as_str) {
            let params = message.get("params").and_then(Json::as_array).unwrap();
            self.to.source_notified(self.source, method, params, at(ms));
        } else {
            let error = message.get("error").filter(|e| !matches!(e, Json::Null)).cloned();
            let answer = error.map_or_else(|| Ok(message.get("result").cloned().unwrap()), Err);
            self.to.source_answered(self.source, &id, answer, at(ms));
        }
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, _, text)| text).collect()
    }

    fn names(&self, table: &str, column: usize) -> [Vec<String>; 2] {
        [&self.from, &self.to].map(|server| {
            let rows = &server.database("S").unwrap().table(table).unwrap().rows;
            let mut names: Vec<String> =
                rows.values().map(|e| e.row.get(column).as_str().unwrap().to_string()).collect();
            names.sort();
            names
        })
    }
}

fn insert(name: &str) -> String {
    format!(r#"["S",{{"op":"insert","table":"T","row":{{"name":"{name}"}}}}]"#)
}

#[test]
fn a_relay_forwards_what_writes_and_outlives_its_source() {
    let mut pair = Pair::new(server(), Server::new(), |s| s.add_relay("S", at(0)).unwrap());
    let client = pair.to.open_session(false);
    ask(&mut pair.to, client, "early", "get_schema", r#"["S"]"#, 0);
    assert!(pair.to.take_actions().iter().any(|a| format!("{a:?}").contains("not yet available")));
    ask(&mut pair.to, client, "aware", "set_db_change_aware", "[true]", 0);
    pair.connect(1);
    pair.take();
    ask(
        &mut pair.to,
        client,
        "mon",
        "monitor_cond_since",
        r#"["S","m",{"T":[{"columns":["name"]}]},"00000000-0000-0000-0000-000000000000"]"#,
        2,
    );
    ask(&mut pair.to, client, "a", "transact", &insert("a"), 2);
    pair.run(2);
    let sent = pair.take();
    // The update comes before the answer, under the name that the source has for the state.
    let state = pair.from.database("S").unwrap().last_id().to_string();
    assert!(sent[1].contains("update3") && sent[1].contains(&state), "{sent:?}");
    assert!(sent[2].starts_with(r#"{"id":"a","result":[{"uuid""#), "{sent:?}");
    assert_eq!(pair.names("T", 2), [["a"], ["a"]]);
    assert_eq!(pair.to.database("S").unwrap().last_id().to_string(), state);

    // What the source answers with an error comes back as such; reading needs no source.
    pair.disconnect(3);
    ask(
        &mut pair.to,
        client,
        "r",
        "transact",
        r#"["S",{"op":"select","table":"T","where":[],"columns":["name"]}]"#,
        3,
    );
    ask(&mut pair.to, client, "b", "transact", &insert("b"), 3);
    ask(&mut pair.to, client, "c", "transact", &insert("c"), 3);
    pair.to.notification(client, "cancel", &[Json::from("c")]);
    pair.run(3);
    let sent = pair.take();
    assert_eq!(sent[0], r#"{"id":"r","result":[{"rows":[{"name":"a"}]}],"error":null}"#);
    assert_eq!(sent[1], r#"{"id":"c","error":"canceled"}"#);
    assert_eq!(sent.len(), 2);
    // Meanwhile the source goes on.
    let other = pair.from.open_session(false);
    ask(&mut pair.from, other, "x", "transact", &insert("x"), 4);
    pair.run(4);
    pair.take();
    pair.connect(5);
    let sent = pair.take();
    assert!(sent[0].contains("update3") && sent[0].contains(r#""name":"x""#), "{sent:?}");
    assert!(sent.iter().any(|t| t.starts_with(r#"{"id":"b","result""#)), "{sent:?}");
    assert_eq!(pair.names("T", 2), [["a", "b", "x"], ["a", "b", "x"]]);
    assert_eq!(pair.reconnects, 0);
}

#[test]
fn a_relay_that_lost_its_source_says_so_after_a_while() {
    let mut pair = Pair::new(server(), Server::new(), |s| s.add_relay("S", at(0)).unwrap());
    pair.connect(0);
    let connected = |pair: &mut Pair, ms| {
        pair.run(ms);
        let client = pair.to.open_session(false);
        let select = r#"["_Server",{"op":"select","table":"Database","where":[["name","==","S"]],"columns":["connected","model"]}]"#;
        ask(&mut pair.to, client, "s", "transact", select, ms);
        pair.run(ms);
        let text = pair.take().pop().unwrap();
        assert!(text.contains(r#""model":"relay""#), "{text}");
        text.contains(r#""connected":true"#)
    };
    assert!(connected(&mut pair, 1));
    pair.disconnect(1000);
    assert!(connected(&mut pair, 2000));
    let deadline = pair.to.deadline().unwrap();
    assert!(!connected(&mut pair, deadline));
    assert_eq!(pair.to.deadline(), None);
    pair.connect(deadline + 1);
    assert!(connected(&mut pair, deadline + 2));
}

#[test]
fn a_relay_follows_the_conversion_of_its_source() {
    let mut pair = Pair::new(server(), Server::new(), |s| s.add_relay("S", at(0)).unwrap());
    pair.connect(0);
    let client = pair.to.open_session(false);
    ask(&mut pair.to, client, "aware", "set_db_change_aware", "[true]", 0);
    ask(&mut pair.to, client, "mon", "monitor", r#"["S","m",{"T":{}}]"#, 0);
    pair.run(1);
    pair.take();
    let schema = SCHEMA.replace(r#""x":"#, r#""y":{"type":"string"},"x":"#).replace("1.0.0", "1.1.0");
    ask(&mut pair.to, client, "conv", "convert", &format!(r#"["S",{schema}]"#), 2);
    pair.run(2);
    let sent = pair.take();
    assert!(sent.iter().any(|t| t == r#"{"id":"conv","result":{},"error":null}"#), "{sent:?}");
    assert!(sent.iter().any(|t| t.contains("monitor_canceled")), "{sent:?}");
    for server in [&pair.from, &pair.to] {
        assert!(server.database("S").unwrap().schema.table("U").unwrap().column("y").is_some());
    }
    ask(&mut pair.to, client, "a", "transact", &insert("a"), 3);
    pair.run(3);
    assert_eq!(pair.names("T", 2), [["a"], ["a"]]);
}

#[test]
fn a_backup_becomes_what_the_active_server_is_and_writes_nothing() {
    let (mut active, mut backup) = (server(), server());
    let fill = |server: &mut Server, names: &[&str]| {
        let id = server.open_session(false);
        for name in names {
            ask(server, id, "i", "transact", &insert(name), 0);
            let u = format!(r#"["S",{{"op":"insert","table":"U","row":{{"x":"{name}"}}}}]"#);
            ask(server, id, "u", "transact", &u, 0);
        }
        server.close_session(id);
        server.take_actions();
    };
    fill(&mut active, &["a", "b"]);
    fill(&mut backup, &["b", "z"]);
    let exclude = parse_excluded("S:U").unwrap();
    let mut pair = Pair::new(active, backup, |s| s.add_backup(None, exclude));
    let client = pair.to.open_session(false);
    ask(&mut pair.to, client, "mon", "monitor", r#"["S","m",{"T":{"columns":["name"]}}]"#, 0);
    pair.run(0);
    pair.take();
    pair.connect(1);
    assert_eq!(pair.names("T", 2), [["a", "b"], ["a", "b"]]);
    // The excluded table is left alone.
    assert_eq!(pair.names("U", 2), [["a", "b"], ["b", "z"]]);
    assert_eq!(pair.to.source_status(pair.source).databases, ["S"]);
    ask(&mut pair.to, client, "w", "transact", &insert("w"), 2);
    ask(&mut pair.to, client, "l", "lock", r#"["L"]"#, 2);
    pair.run(2);
    let sent = pair.take();
    assert!(sent.iter().any(|t| t.contains("insert operation not allowed")), "{sent:?}");
    assert!(sent.iter().any(|t| t.contains("lock and unlock methods not allowed")), "{sent:?}");
    // Changes come as they happen.
    let other = pair.from.open_session(false);
    let change = r#"["S",{"op":"delete","table":"T","where":[["name","==","b"]]},
        {"op":"update","table":"T","where":[["name","==","a"]],"row":{"n":5,"tags":["map",[["k","v"]]]}},
        {"op":"insert","table":"T","row":{"name":"c"}}]"#;
    ask(&mut pair.from, other, "change", "transact", change, 3);
    pair.run(3);
    assert_eq!(pair.names("T", 2), [["a", "c"], ["a", "c"]]);
    let text = |s: &Server| {
        let row = s
            .database("S")
            .unwrap()
            .table("T")
            .unwrap()
            .rows
            .values()
            .find(|e| e.row.get(2).as_str() == Some("a"));
        (row.unwrap().row.get(3), row.unwrap().row.get(4))
    };
    assert_eq!(text(&pair.from), text(&pair.to));
    // As an active server again it writes.
    pair.to.remove_source(pair.source, at(4));
    ask(&mut pair.to, client, "w", "transact", &insert("w"), 4);
    assert!(pair.to.take_actions().iter().any(|a| format!("{a:?}").contains("uuid")));
}

#[test]
fn a_backup_gives_up_what_it_cannot_hold() {
    let mut wide = Server::new();
    let schema = SCHEMA.replace(r#""x":"#, r#""y":{"type":"string"},"x":"#).replace("1.0.0", "1.1.0");
    wide.add_database(Database::new(Schema::parse(&schema).unwrap()), at(0)).unwrap();
    let mut pair = Pair::new(wide, server(), |s| s.add_backup(None, Default::default()));
    pair.connect(1);
    assert!(pair.to.source_status(pair.source).dead);
    let client = pair.to.open_session(false);
    ask(&mut pair.to, client, "w", "transact", &insert("w"), 2);
    pair.run(2);
    assert_eq!(pair.names("T", 2)[1], ["w"]);
    // The other way round there is room for everything.
    let mut wide = Server::new();
    wide.add_database(Database::new(Schema::parse(&schema).unwrap()), at(0)).unwrap();
    let mut pair = Pair::new(server(), wide, |s| s.add_backup(None, Default::default()));
    pair.connect(1);
    assert!(!pair.to.source_status(pair.source).dead);
}

#[test]
fn a_backup_of_a_server_of_other_databases_stays_a_backup() {
    let mut other = Server::new();
    let schema = SCHEMA.replace(r#""name":"S""#, r#""name":"O""#);
    other.add_database(Database::new(Schema::parse(&schema).unwrap()), at(0)).unwrap();
    let mut pair = Pair::new(other, server(), |s| s.add_backup(None, Default::default()));
    pair.connect(1);
    let status = pair.to.source_status(pair.source);
    assert!(!status.dead && status.databases.is_empty());
    let client = pair.to.open_session(false);
    ask(&mut pair.to, client, "w", "transact", &insert("w"), 2);
    pair.run(2);
    assert!(pair.sent.iter().any(|(_, _, text)| text.contains("read only mode")), "{:?}", pair.sent);
}

#[test]
fn roles_permit_what_their_rows_say() {
    let schema = r#"{"name":"S","version":"1.0.0","tables":{
        "T":{"isRoot":true,"columns":{"owner":{"type":"string"},"n":{"type":"integer"},"other":{"type":"integer"},
            "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}},
        "RBAC_Role":{"isRoot":true,"columns":{"name":{"type":"string"},"permissions":{"type":{"key":"string",
            "value":{"type":"uuid","refTable":"RBAC_Permission","refType":"weak"},"min":0,"max":"unlimited"}}}},
        "RBAC_Permission":{"isRoot":true,"columns":{"table":{"type":"string"},
            "authorization":{"type":{"key":"string","min":0,"max":"unlimited"}},"insert_delete":{"type":"boolean"},
            "update":{"type":{"key":"string","min":0,"max":"unlimited"}}}}}}"#;
    let mut s = Server::new();
    s.add_database(Database::new(Schema::parse(schema).unwrap()), at(0)).unwrap();
    let open = |s: &mut Server, role: &str, id: Option<&str>| {
        s.open_session_as(false, Asker { role: role.into(), id: id.map(str::to_string) })
    };
    let run = |s: &mut Server, id: SessionId, operation: &str| {
        ask(s, id, "t", "transact", &format!(r#"["S",{operation}]"#), 0);
        let text = s.take_actions().into_iter().find_map(|a| match a {
            Action::Send(_, text) => Some(text.to_string()),
            _ => None,
        });
        text.unwrap()
    };
    let root = s.open_session(false);
    run(
        &mut s,
        root,
        r#"{"op":"insert","table":"RBAC_Permission","uuid-name":"p","row":{"table":"T",
        "authorization":["set",["owner","map:owner"]],"insert_delete":true,"update":["set",["n","map:k"]]}},
        {"op":"insert","table":"RBAC_Role","row":{"name":"r","permissions":["map",[["T",["named-uuid","p"]]]]}},
        {"op":"insert","table":"T","row":{"owner":"bob"}}"#,
    );
    let (ann, nobody, other) =
        (open(&mut s, "r", Some("ann")), open(&mut s, "r", None), open(&mut s, "x", Some("ann")));
    let own = r#"{"op":"insert","table":"T","row":{"owner":"ann"}}"#;
    let denied = r#"{"id":"t","result":[{"details":"RBAC rules for client \"ann\" role \"r\" prohibit "#;
    assert!(run(&mut s, ann, own).contains(r#"{"uuid""#));
    let text = run(&mut s, ann, r#"{"op":"insert","table":"T","row":{"owner":"bob"}}"#);
    assert_eq!(
        text,
        format!(r#"{denied}row insertion into table \"T\".","error":"permission error"}}],"error":null}}"#)
    );
    assert!(run(&mut s, nobody, own).contains(r#"client \"(null)\" role \"r\""#));
    assert!(run(&mut s, other, own).contains("permission error"));
    let mine = r#""where":[["owner","==","ann"]]"#;
    let cases = [
        (format!(r#"{{"op":"update","table":"T",{mine},"row":{{"n":1}}}}"#), ""),
        (format!(r#"{{"op":"update","table":"T",{mine},"row":{{"other":1}}}}"#), "modification of"),
        (r#"{"op":"update","table":"T","where":[],"row":{"n":1}}"#.into(), "modification of"),
        (format!(r#"{{"op":"mutate","table":"T",{mine},"mutations":[["n","+=",1]]}}"#), ""),
        (
            format!(
                r#"{{"op":"mutate","table":"T",{mine},"mutations":[["map","insert",["map",[["k","v"]]]]]}}"#
            ),
            "",
        ),
        (
            format!(
                r#"{{"op":"mutate","table":"T",{mine},"mutations":[["map","insert",["map",[["q","v"]]]]]}}"#
            ),
            "mutate operation on",
        ),
        (r#"{"op":"delete","table":"T","where":[]}"#.into(), "row deletion from"),
        (r#"{"op":"delete","table":"RBAC_Role","where":[]}"#.into(), "row deletion from"),
        (r#"{"op":"select","table":"T","where":[]}"#.into(), ""),
        (format!(r#"{{"op":"delete","table":"T",{mine}}}"#), ""),
    ];
    for (operation, verdict) in &cases {
        let text = run(&mut s, ann, operation);
        let refused = !verdict.is_empty();
        assert_eq!(text.starts_with(&format!("{denied}{verdict}")), refused, "{operation}: {text}");
        assert_eq!(text.contains("error\":\""), refused, "{operation}: {text}");
    }
    // A row may also be the client's by the value of a map's key.
    run(&mut s, root, r#"{"op":"insert","table":"T","row":{"map":["map",[["owner","ann"]]]}}"#);
    let text = run(&mut s, ann, r#"{"op":"delete","table":"T","where":[["owner","==",""]]}"#);
    assert!(text.contains(r#"{"count":1}"#), "{text}");
}
