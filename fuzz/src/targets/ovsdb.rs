//! The database: files, transactions, sessions, and the texts of values.

use std::hint::black_box;
use std::sync::OnceLock;

use ib_base::json::{Json, Style};
use ib_ovsdb::audit::audit;
use ib_ovsdb::condition::Condition;
use ib_ovsdb::database::{Database, Transacted};
use ib_ovsdb::exec::Context;
use ib_ovsdb::log::frame;
use ib_ovsdb::monitor::{MonitorSpec, Version};
use ib_ovsdb::server::{Action, Now, Server};
use ib_ovsdb::{Schema, SymbolTable, text as datum};

use super::text;
use crate::choices::{Choices, array, object, s};

/// Two tables that refer to each other in every way, and one column of each kind.
const SCHEMA: &str = r#"{"name":"d","version":"1.0.0","tables":{
"a":{"columns":{"name":{"type":"string"},"n":{"type":{"key":{"type":"integer","minInteger":-5,"maxInteger":5},"min":0,"max":3}},
 "r":{"type":"real"},"on":{"type":{"key":"boolean","min":0,"max":1}},"e":{"type":{"key":{"type":"string","enum":["set",["x","y"]]},"min":0,"max":"unlimited"}},
 "m":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},"eph":{"type":"integer","ephemeral":true},"fix":{"type":"string","mutable":false},
 "kids":{"type":{"key":{"type":"uuid","refTable":"b"},"min":0,"max":"unlimited"}},
 "weak":{"type":{"key":{"type":"uuid","refTable":"a","refType":"weak"},"min":0,"max":2}},
 "wmap":{"type":{"key":"integer","value":{"type":"uuid","refTable":"b","refType":"weak"},"min":0,"max":"unlimited"}}},
 "isRoot":true,"indexes":[["name"]],"maxRows":4},
"b":{"columns":{"v":{"type":{"key":{"type":"string","minLength":1,"maxLength":4},"min":0,"max":1}},
 "up":{"type":{"key":{"type":"uuid","refTable":"a"},"min":0,"max":1}},"i":{"type":"integer"}}}}}"#;

fn schema() -> &'static Schema {
    static PARSED: OnceLock<Schema> = OnceLock::new();
    PARSED.get_or_init(|| Schema::parse(SCHEMA).expect("our own schema"))
}

pub const LOG_SEEDS: &[&[u8]] = &[
    b"\x00{\"name\":\"d\",\"version\":\"1.0.0\",\"tables\":{\"a\":{\"columns\":{\"n\":{\"type\":\"integer\"}}}}}\xff{\"a\":{\"5b8a2d3f-0000-4000-8000-000000000001\":{\"n\":1}},\"_date\":1,\"_comment\":\"x\"}\xff{\"a\":{\"5b8a2d3f-0000-4000-8000-000000000001\":null},\"_is_diff\":true}",
    b"\x01OVSDB JSON 5 0123456789012345678901234567890123456789\n[1,2]",
];

/// A file of the input as it stands, or of records made of its parts, with the right sums.
pub fn log(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let bytes = if kind & 1 == 0 {
        let parts = rest.split(|b| *b == 0xff);
        parts.flat_map(|part| frame("OVSDB JSON", &String::from_utf8_lossy(part))).collect()
    } else {
        rest.to_vec()
    };
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let thread = std::thread::current().id();
    let path = dir.join(format!("ironbridge-fuzz-{}-{thread:?}", std::process::id()));
    std::fs::write(&path, &bytes).expect("a file for the target");
    let loaded = Database::open(&path, false, None);
    // What is left behind by a panic is one file a process.
    let _ = std::fs::remove_file(&path);
    if let Ok(loaded) = loaded {
        assert!(loaded.database.file_size() <= bytes.len() as u64);
        loaded.database.snapshot("", 0);
    }
}

const TABLES: [&str; 3] = ["a", "b", "none"];
const COLUMNS: [&str; 16] = [
    "name", "n", "r", "on", "e", "m", "eph", "fix", "kids", "weak", "wmap", "v", "up", "i", "_uuid",
    "_version",
];
const STRINGS: [&str; 6] = ["", "x", "y", "k", "longer than four", "\u{e9}"];
const UUID: &str = "5b8a2d3f-0000-4000-8000-000000000001";

fn atom(c: &mut Choices<'_>, columns: usize) -> Json {
    match c.below(9) {
        0 => Json::from(i64::from(c.byte()) - 8),
        1 => Json::from(f64::from(c.byte()) / 4.0),
        2 => Json::from(c.byte() & 1 == 0),
        3 => s(c.of(&STRINGS)),
        4 => array([s("named-uuid"), s(c.of(&["r0", "r1", "r2"]))]),
        5 => array([s("uuid"), s(UUID)]),
        6 => Json::from(i64::MAX - i64::from(c.byte())),
        7 if columns > 0 => s(c.of(&COLUMNS)),
        _ => Json::from(c.of(&[1e300, -0.0, 0.5])),
    }
}

fn value(c: &mut Choices<'_>) -> Json {
    match c.below(6) {
        0 => {
            let n = c.below(4);
            array([s("set"), array((0..n).map(|_| atom(c, 0)).collect::<Vec<_>>())])
        }
        1 => {
            let n = c.below(3);
            let pairs: Vec<Json> = (0..n).map(|_| array([atom(c, 0), atom(c, 0)])).collect();
            array([s("map"), array(pairs)])
        }
        2 => array([s("set"), array([])]),
        _ => atom(c, 0),
    }
}

/// A value that fits the column, mostly.
fn fitting(c: &mut Choices<'_>, column: &str) -> Json {
    if c.one_in(6) {
        return value(c);
    }
    let row_ref = |c: &mut Choices<'_>| match c.below(4) {
        0 => array([s("uuid"), s(UUID)]),
        n => array([s("named-uuid"), s(["r0", "r1", "r2"][n - 1])]),
    };
    match column {
        "n" | "eph" | "i" => Json::from(i64::from(c.byte() % 12) - 6),
        "r" => Json::from(f64::from(c.byte()) / 8.0),
        "on" => Json::from(c.byte() & 1 == 0),
        "m" => array([s("map"), array([array([s(c.of(&STRINGS)), s(c.of(&STRINGS))])])]),
        "kids" | "weak" | "up" => {
            let n = c.below(3);
            array([s("set"), array((0..n).map(|_| row_ref(c)).collect::<Vec<_>>())])
        }
        "wmap" => array([s("map"), array([array([Json::from(1), row_ref(c)])])]),
        _ => s(c.of(&STRINGS)),
    }
}

fn row(c: &mut Choices<'_>) -> Json {
    let mut o = ib_base::json::Object::new();
    for _ in 0..c.below(5) {
        let column = c.of(&COLUMNS);
        o.insert(column, fitting(c, column));
    }
    Json::Object(o)
}

fn conditions(c: &mut Choices<'_>) -> Json {
    const FUNCTIONS: [&str; 9] = ["==", "!=", "<", "<=", ">", ">=", "includes", "excludes", "~"];
    let n = c.below(3);
    let clause = |c: &mut Choices<'_>| {
        if c.one_in(8) {
            return Json::from(c.byte() & 1 == 0);
        }
        let column = c.of(&COLUMNS);
        array([s(column), s(c.of(&FUNCTIONS)), fitting(c, column)])
    };
    array((0..n).map(|_| clause(c)).collect::<Vec<_>>())
}

fn columns(c: &mut Choices<'_>) -> Json {
    let n = c.below(4);
    array((0..n).map(|_| s(c.of(&COLUMNS))).collect::<Vec<_>>())
}

fn operation(c: &mut Choices<'_>, i: usize) -> Json {
    const MUTATORS: [&str; 8] = ["+=", "-=", "*=", "/=", "%=", "insert", "delete", "?"];
    let table = s(c.of(&TABLES));
    match c.below(10) {
        0..=3 => {
            let name = s(["r0", "r1", "r2"][i % 3]);
            object([("op", s("insert")), ("table", table), ("row", row(c)), ("uuid-name", name)])
        }
        4 => object([("op", s("update")), ("table", table), ("where", conditions(c)), ("row", row(c))]),
        5 => {
            let n = c.below(3);
            let one = |c: &mut Choices<'_>| {
                let column = c.of(&COLUMNS);
                array([s(column), s(c.of(&MUTATORS)), fitting(c, column)])
            };
            let mutations = array((0..n).map(|_| one(c)).collect::<Vec<_>>());
            object([
                ("op", s("mutate")),
                ("table", table),
                ("where", conditions(c)),
                ("mutations", mutations),
            ])
        }
        6 => object([("op", s("delete")), ("table", table), ("where", conditions(c))]),
        7 => {
            object([("op", s("select")), ("table", table), ("where", conditions(c)), ("columns", columns(c))])
        }
        8 => object([
            ("op", s("wait")),
            ("timeout", Json::from(i64::from(c.byte()))),
            ("table", table),
            ("where", conditions(c)),
            ("columns", columns(c)),
            ("until", s(c.of(&["==", "!="]))),
            ("rows", array([row(c)])),
        ]),
        _ => match c.below(5) {
            0 => object([("op", s("abort"))]),
            1 => object([("op", s("commit")), ("durable", Json::from(true))]),
            2 => object([("op", s("comment")), ("comment", s("c"))]),
            3 => object([("op", s("assert")), ("lock", s("l"))]),
            _ => value(c),
        },
    }
}

fn operations(c: &mut Choices<'_>) -> Vec<Json> {
    let n = 1 + c.below(5);
    (0..n).map(|i| operation(c, i)).collect()
}

pub const CHOICE_SEEDS: &[&[u8]] = &[
    &[0; 8],
    b"\x04\x00\x00\x03\x00\x01\x00\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18",
    b"The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. 0123456789",
    b"\x02\x03\x05\x07\x0b\x0d\x11\x13\x17\x1d\x1f\x25\x29\x2b\x2f\x35\x3b\x3d\x43\x47\x49\x4f\x53\x59\x61\x65\x67\x6b\x6d\x71\x7f\x83\x89\x8b\x95",
];

fn rows_text(db: &Database) -> Vec<String> {
    // Rows come in no order.
    let sorted = |record: &String| Json::parse(record).expect("a record").to_text(Style::SORTED);
    db.snapshot("", 0).iter().map(sorted).collect()
}

fn run(db: &mut Database, operations: &[Json]) {
    let before = rows_text(db);
    let context = Context {
        holds_lock: &|_| false,
        read_only: false,
        reserved: None,
        asker: None,
        elapsed_ms: Some(1000),
    };
    let failed = match db.transact(operations, &context, 0) {
        Transacted::Wait { .. } => true,
        Transacted::Done { results, commit } => {
            let is_error = |r: &Json| r.as_object().is_some_and(|o| o.get("error").is_some());
            let results = Json::parse(&results).expect("results are JSON");
            let failed = results.as_array().is_some_and(|r| r.iter().any(is_error));
            assert!(!failed || commit.is_none());
            failed
        }
    };
    if failed {
        assert_eq!(rows_text(db), before, "a failed transaction changes nothing");
    }
    if let Err(fault) = audit(db) {
        panic!("{fault}");
    }
}

/// Transactions made of choices, one after the other on one database.
pub fn transact(input: &[u8]) {
    let mut db = Database::new(schema().clone());
    let mut c = Choices::new(input);
    while c.more() {
        let operations = operations(&mut c);
        run(&mut db, &operations);
    }
    // What the transactions left is what its snapshot says.
    for table in &db.tables {
        assert!(table.rows.len() <= 64 * input.len() + 64);
    }
}

pub const TRANSACT_SEEDS: &[&[u8]] = &[
    br#"[{"op":"insert","table":"a","row":{"name":"x","n":["set",[1,2]],"m":["map",[["k","v"]]],"kids":["set",[["named-uuid","r1"]]]},"uuid-name":"r0"},{"op":"insert","table":"b","row":{"v":"q","up":["named-uuid","r0"]},"uuid-name":"r1"}]"#,
    br#"[{"op":"mutate","table":"a","where":[["name","==","x"]],"mutations":[["n","+=",1],["m","delete",["set",["k"]]]]},{"op":"wait","timeout":0,"table":"a","where":[],"columns":["name"],"until":"==","rows":[{"name":"x"}]}]"#,
    br#"[{"op":"select","table":"a","where":[["n","includes",1],true]},{"op":"comment","comment":"c"},{"op":"abort"}]"#,
];

pub fn transact_json(input: &[u8]) {
    let Ok(Json::Array(operations)) = Json::parse_bytes(input) else { return };
    run(&mut Database::new(schema().clone()), &operations);
}

fn monitor_request(c: &mut Choices<'_>) -> Json {
    let select = object([
        ("initial", Json::from(c.byte() & 1 == 0)),
        ("insert", Json::from(c.byte() & 1 == 0)),
        ("modify", Json::from(c.byte() & 1 == 0)),
    ]);
    let one = object([("columns", columns(c)), ("where", conditions(c)), ("select", select)]);
    let mut o = ib_base::json::Object::new();
    o.insert(c.of(&TABLES), if c.byte() & 1 == 0 { one } else { array([one]) });
    Json::Object(o)
}

fn request(c: &mut Choices<'_>, id: usize) -> Json {
    const METHODS: [&str; 12] = [
        "list_dbs",
        "get_schema",
        "transact",
        "transact",
        "monitor",
        "monitor_cond",
        "monitor_cond_since",
        "monitor_cond_change",
        "monitor_cancel",
        "lock",
        "echo",
        "set_db_change_aware",
    ];
    let method = c.of(&METHODS);
    let db = s(c.of(&["d", "d", "d", "_Server", "none"]));
    let monitor_id = Json::from(c.below(3));
    let params = match method {
        "transact" => {
            let mut params = vec![db];
            params.extend(operations(c));
            Json::Array(params)
        }
        "monitor" | "monitor_cond" => array([db, monitor_id, monitor_request(c)]),
        "monitor_cond_since" => array([db, monitor_id, monitor_request(c), s(UUID)]),
        "monitor_cond_change" => array([monitor_id.clone(), monitor_id, monitor_request(c)]),
        "monitor_cancel" => array([monitor_id]),
        "set_db_change_aware" => array([Json::from(true)]),
        _ => array([db]),
    };
    if c.one_in(20) {
        return value(c);
    }
    let id = if c.one_in(10) { Json::Null } else { Json::from(id) };
    object([("method", s(method)), ("params", params), ("id", id)])
}

/// Two clients of one server.
pub fn session(input: &[u8]) {
    let mut server = Server::new();
    let mut now = Now::default();
    server.add_database(Database::new(schema().clone()), now).expect("the first of its name");
    let clients = [server.open_session(false), server.open_session(input.len().is_multiple_of(7))];
    let mut c = Choices::new(input);
    let mut id = 0;
    while c.more() {
        id += 1;
        now.ms += i64::from(c.byte());
        let client = clients[c.below(2)];
        server.receive(client, request(&mut c, id), now);
        server.run(now);
        for action in server.take_actions() {
            match action {
                Action::Send(to, message) => {
                    Json::parse(&message).expect("what is sent is JSON");
                    server.drained(to);
                }
                Action::Close { session, .. } => server.close_session(session),
                Action::Ask(..) | Action::Reconnect(_) => {}
            }
        }
    }
}

pub const CONDITION_SEEDS: &[&[u8]] = &[
    br#"[["n","includes",["set",[1,2]]],["name","!=","x"],true]"#,
    br#"[["_uuid","==",["uuid","5b8a2d3f-0000-4000-8000-000000000001"]],["m","excludes",["map",[["a","b"]]]],["r",">=",1.5]]"#,
];

pub fn condition(input: &[u8]) {
    let Ok(json) = Json::parse_bytes(input) else { return };
    for table in &schema().tables {
        let mut symbols = SymbolTable::new();
        if let Ok(condition) = Condition::from_json(table, &json, Some(&mut symbols)) {
            black_box((condition.is_true(), condition.row_uuid()));
        }
    }
}

pub const MONITOR_SEEDS: &[&[u8]] = &[
    br#"{"a":{"columns":["name","n"],"select":{"initial":false}},"b":[{"where":[["i","<",3]]},{"columns":["v"]}]}"#,
    br#"{"a":{}}"#,
];

pub fn monitor(input: &[u8]) {
    let Ok(json) = Json::parse_bytes(input) else { return };
    let db = Database::new(schema().clone());
    for version in [Version::V1, Version::V2, Version::V3] {
        if let Ok(spec) = MonitorSpec::from_json(schema(), &json, version) {
            Json::parse(&spec.initial(&db)).expect("what is sent is JSON");
            spec.key();
        }
    }
}

pub const DATUM_SEEDS: &[&[u8]] = &[
    b"[1, 2, 1-5]",
    b"{a=b, \"c d\"=\"e\\u00e9\"}",
    b"[x,y]",
    b"5b8a2d3f-0000-4000-8000-000000000001",
    b"@name",
    b"1.5e3",
];

/// A value read from text and printed reads the same again.
pub fn datum_text(input: &[u8]) {
    let given = text(input);
    if given.contains('\0') {
        // No command line has it.
        return;
    }
    for table in &schema().tables {
        for column in &table.columns {
            let mut symbols = SymbolTable::new();
            let Ok(value) = datum::datum_from_string(&column.kind, &given, Some(&mut symbols)) else {
                continue;
            };
            let printed = value.to_text(&column.kind);
            value.to_bare();
            value.to_json(&column.kind).to_text(Style::COMPACT);
            let again = datum::datum_from_string(&column.kind, &printed, None)
                .unwrap_or_else(|e| panic!("{printed}: {e}"));
            // Reals print with 15 digits: what is printed stays, not each bit.
            assert_eq!(again.to_text(&column.kind), printed);
        }
    }
}
