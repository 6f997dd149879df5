//! Several sessions and the passing of time, and what stays on disk.

use ib_base::json::Json;
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use ib_ovsdb::log::{Disk, DiskFile, Log, OpenMode, OsDisk};
use ib_ovsdb::server::{Action, LAG_BYTES, Now, Server, SessionId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

const SCHEMA: &str = r#"{"name":"S","version":"1.0.0","tables":{
    "T":{"isRoot":true,"columns":{"name":{"type":"string"},"n":{"type":"integer"},
        "set":{"type":{"key":"integer","min":0,"max":"unlimited"}},
        "child":{"type":{"key":{"type":"uuid","refTable":"C"},"min":0,"max":"unlimited"}},
        "eph":{"type":"string","ephemeral":true}},"indexes":[["name"]]},
    "C":{"columns":{"x":{"type":"string"}}}}}"#;

fn at(ms: i64) -> Now {
    Now { ms, wall_ms: 1_000_000 }
}

fn server() -> Server {
    let mut server = Server::new();
    server.add_database(Database::new(Schema::parse(SCHEMA).unwrap()), at(0)).unwrap();
    server
}

fn send(server: &mut Server, id: SessionId, method: &str, params: &str, ms: i64) {
    let params = Json::parse(params).unwrap();
    let message =
        Json::object([("method", Json::from(method)), ("params", params), ("id", Json::from(method))]);
    server.receive(id, message, at(ms));
}

/// What was sent since the last call: session and text.
fn sent(server: &mut Server) -> Vec<(SessionId, String)> {
    let actions = server.take_actions();
    actions
        .into_iter()
        .map(|a| match a {
            Action::Send(id, text) => (id, text.to_string()),
            Action::Close { session, why, .. } => (session, format!("close: {why}")),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn only(server: &mut Server) -> String {
    let mut all = sent(server);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).1
}

fn insert(server: &mut Server, id: SessionId, name: &str, n: usize) {
    let row = format!(r#"["S",{{"op":"insert","table":"T","row":{{"name":"{name}","n":{n}}}}}]"#);
    send(server, id, "transact", &row, 0);
}

#[test]
fn locks_pass_from_session_to_session() {
    let mut s = server();
    let (a, b, c) = (s.open_session(false), s.open_session(false), s.open_session(false));
    send(&mut s, a, "lock", r#"["L"]"#, 0);
    assert!(only(&mut s).contains(r#"{"locked":true}"#));
    send(&mut s, b, "lock", r#"["L"]"#, 0);
    assert!(only(&mut s).contains(r#"{"locked":false}"#));
    send(&mut s, c, "steal", r#"["L"]"#, 0);
    let all = sent(&mut s);
    assert_eq!(all[0], (a, r#"{"id":null,"method":"stolen","params":["L"]}"#.to_string()));
    assert!(all[1].1.contains(r#"{"locked":true}"#));
    send(&mut s, a, "transact", r#"["S",{"op":"assert","lock":"L"}]"#, 0);
    assert!(only(&mut s).contains("not owner"));
    s.close_session(c);
    assert_eq!(sent(&mut s), [(a, r#"{"id":null,"method":"locked","params":["L"]}"#.to_string())]);
    s.close_session(a);
    assert_eq!(sent(&mut s), [(b, r#"{"id":null,"method":"locked","params":["L"]}"#.to_string())]);
}

#[test]
fn waits_end_by_change_by_time_and_by_cancel() {
    let mut s = server();
    let (a, b) = (s.open_session(false), s.open_session(false));
    let wait = r#"["S",{"op":"wait","timeout":500,"table":"T","where":[["name","==","x"]],"columns":["n"],
                   "until":"==","rows":[{"n":1}]},{"op":"comment","comment":"go"}]"#;
    send(&mut s, a, "transact", wait, 100);
    assert!(sent(&mut s).is_empty());
    assert_eq!(s.deadline(), Some(600));
    insert(&mut s, b, "y", 5);
    assert!(s.has_work());
    s.run(at(200));
    assert_eq!(sent(&mut s).len(), 1, "the insertion's answer alone");
    insert(&mut s, b, "x", 1);
    s.run(at(210));
    let all = sent(&mut s);
    assert_eq!(all[1], (a, r#"{"id":"transact","result":[{},{}],"error":null}"#.to_string()));
    assert_eq!(s.deadline(), None);

    let never = wait.replace("\"x\"", "\"nobody\"");
    send(&mut s, a, "transact", &never, 1000);
    s.run(at(1499));
    assert!(sent(&mut s).is_empty());
    s.run(at(1500));
    assert!(only(&mut s).contains("\\\"wait\\\" timed out after 500 ms"));

    send(&mut s, a, "transact", &never, 2000);
    let cancel = r#"{"method":"cancel","params":["transact"],"id":null}"#;
    s.receive(a, Json::parse(cancel).unwrap(), at(2000));
    assert_eq!(only(&mut s), r#"{"id":"transact","error":"canceled"}"#);
    assert_eq!(s.deadline(), None);
}

#[test]
fn equal_monitors_share_the_text_of_an_update() {
    let mut s = server();
    let writer = s.open_session(false);
    let readers: Vec<SessionId> = (0..3).map(|_| s.open_session(false)).collect();
    for r in &readers {
        send(&mut s, *r, "monitor", r#"["S","m",{"T":{"columns":["name"]}}]"#, 0);
    }
    sent(&mut s);
    insert(&mut s, writer, "x", 1);
    let actions = s.take_actions();
    let texts: Vec<_> = actions
        .iter()
        .filter_map(|a| match a {
            Action::Send(id, text) if readers.contains(id) => Some(text.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|t| std::sync::Arc::ptr_eq(t, &texts[0])));
}

#[test]
fn a_session_that_lags_gets_the_sum() {
    let mut s = server();
    let (writer, reader) = (s.open_session(false), s.open_session(false));
    send(&mut s, reader, "monitor", r#"["S",null,{"T":{"columns":["n"]}}]"#, 0);
    let mut bytes = 0;
    let mut n = 0;
    while bytes <= 2 * LAG_BYTES && n < 100_000 {
        n += 1;
        insert(&mut s, writer, &format!("r{n}"), n);
        let got: usize = sent(&mut s).iter().filter(|(id, _)| *id == reader).map(|(_, t)| t.len()).sum();
        s.drained(writer);
        if got == 0 {
            break;
        }
        bytes += got;
    }
    assert!(bytes <= LAG_BYTES + 1000, "{bytes} bytes are under way");
    // What comes and goes meanwhile is never seen.
    insert(&mut s, writer, "brief", 7);
    send(
        &mut s,
        writer,
        "transact",
        r#"["S",{"op":"delete","table":"T","where":[["name","==","brief"]]}]"#,
        0,
    );
    let update = r#"["S",{"op":"update","table":"T","where":[["name","==","r1"]],"row":{"n":-1}}]"#;
    send(&mut s, writer, "transact", update, 0);
    assert!(sent(&mut s).iter().all(|(id, _)| *id == writer));
    s.drained(reader);
    let text = only(&mut s);
    let rows = Json::parse(&text).unwrap();
    let rows =
        rows.get("params").unwrap().as_array().unwrap()[1].get("T").unwrap().as_object().unwrap().len();
    assert_eq!(rows, 2, "the row that was not sent and the one that changed: {text}");
    assert!(text.contains(r#""old":{"n":1},"new":{"n":-1}"#));
    insert(&mut s, writer, "after", 8);
    assert!(sent(&mut s).iter().any(|(id, _)| *id == reader));
}

#[test]
fn what_waits_to_be_sent_counts_as_under_way() {
    let mut s = server();
    let (writer, reader) = (s.open_session(false), s.open_session(false));
    let long = "x".repeat(LAG_BYTES);
    insert(&mut s, writer, &long, 1);
    sent(&mut s);
    s.drained(writer);
    send(&mut s, reader, "monitor", r#"["S","m",{"T":{"columns":["name","n"]}}]"#, 0);
    // The daemon has nothing of this session's to send yet, but the answer is among the actions.
    s.drained(reader);
    assert!(s.unsent(reader) > LAG_BYTES);
    let update = |n: u64| format!(r#"["S",{{"op":"update","table":"T","where":[],"row":{{"n":{n}}}}}]"#);
    send(&mut s, writer, "transact", &update(2), 0);
    assert_eq!(sent(&mut s).iter().filter(|(id, _)| *id == reader).count(), 1, "the answer, no update");
    send(&mut s, writer, "transact", &update(3), 0);
    sent(&mut s);
    // A monitor that begins now knows what the other missed; the other is told first.
    send(&mut s, reader, "monitor_cond", r#"["S","n",{"T":[{"columns":["n"]}]}]"#, 0);
    let told = sent(&mut s);
    assert!(told[0].1.contains(r#""params":["m",{"T":"#) && told[0].1.contains(r#""old":{"n":1}"#));
    assert!(told[1].1.contains(r#""initial":{"n":3}"#));
    s.drained(reader);
    assert!(sent(&mut s).is_empty(), "and neither is told again");
}

#[test]
fn those_who_miss_too_much_are_let_go() {
    let mut s = server();
    let writer = s.open_session(false);
    insert(&mut s, writer, &"x".repeat(LAG_BYTES), 0);
    let mut readers = Vec::new();
    let mut gone = Vec::new();
    for n in 0..200 {
        let reader = s.open_session(false);
        send(&mut s, reader, "monitor", r#"["S","m",{"T":{"columns":["name","n"]}}]"#, 0);
        readers.push(reader);
        let update = format!(r#"["S",{{"op":"update","table":"T","where":[],"row":{{"n":{n}}}}}]"#);
        send(&mut s, writer, "transact", &update, 0);
        s.drained(writer);
        gone.extend(sent(&mut s).into_iter().filter(|(_, t)| t.starts_with("close: ")).map(|(id, _)| id));
    }
    // Each began to lag at another time; so many beginnings are not kept apart.
    assert!(gone.len() > 100 && gone.len() < 200, "{}", gone.len());
    assert_eq!(gone, readers[..gone.len()], "the eldest go");
    s.drained(readers[199]);
    for id in gone {
        s.close_session(id);
    }
    insert(&mut s, writer, "after", 8);
    assert_eq!(sent(&mut s).iter().filter(|(id, _)| *id == readers[199]).count(), 1);
}

#[test]
fn databases_that_come_and_change_are_told_in_order() {
    let mut s = server();
    let (aware, unaware) = (s.open_session(false), s.open_session(false));
    send(&mut s, aware, "set_db_change_aware", "[true]", 0);
    for (id, name) in [(aware, "m"), (unaware, "u")] {
        send(&mut s, id, "monitor", &format!(r#"["S","{name}",{{"T":[{{}}]}}]"#), 0);
        send(
            &mut s,
            id,
            "monitor_cond",
            &format!(r#"["_Server","s{name}",{{"Database":[{{"columns":["name"]}}]}}]"#),
            0,
        );
        send(
            &mut s,
            id,
            "transact",
            r#"["S",{"op":"wait","table":"T","where":[],"columns":["n"],"until":"==","rows":[{"n":1}]}]"#,
            0,
        );
    }
    sent(&mut s);
    let told = |s: &mut Server| {
        let all = sent(s);
        all.into_iter().map(|(id, text)| (id == aware, text)).collect::<Vec<_>>()
    };
    let other = SCHEMA.replace(r#""S""#, r#""O""#);
    s.add_database(Database::new(Schema::parse(&other).unwrap()), at(0)).unwrap();
    let added = told(&mut s);
    assert_eq!(added[0], (false, "close: adding O database".to_string()));
    assert!(added[1].0 && added[1].1.contains(r#"{"insert":{"name":"O"}}"#), "{added:?}");
    assert_eq!(added.len(), 2, "who is to be disconnected is told no more");
    let schema = Schema::parse(SCHEMA).unwrap().to_json();
    send(&mut s, aware, "convert", &format!(r#"["S",{schema}]"#), 0);
    let texts: Vec<String> = told(&mut s).into_iter().filter(|(a, _)| *a).map(|(_, t)| t).collect();
    assert_eq!(
        texts,
        [
            r#"{"id":null,"method":"monitor_canceled","params":["m"]}"#,
            r#"{"id":"convert","result":{},"error":null}"#,
            r#"{"id":"transact","error":"canceled"}"#
        ]
    );
}

#[test]
fn a_change_of_conditions_with_a_mistake_changes_nothing() {
    let mut s = server();
    let id = s.open_session(false);
    insert(&mut s, id, "x", 1);
    for method in ["monitor", "monitor_cond"] {
        send(&mut s, id, method, &format!(r#"["S","{method}",{{"T":[{{}}]}}]"#), 0);
    }
    sent(&mut s);
    let mut change = |name: &str, requests: &str| {
        send(&mut s, id, "monitor_cond_change", &format!(r#"["{name}","{name}",{requests}]"#), 0);
        sent(&mut s).into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    let fine = r#"{"id":"monitor_cond_change","result":{},"error":null}"#;
    let error = |details: &str| {
        format!(r#"{{"id":"monitor_cond_change","error":{{"details":"{details}","error":"syntax error"}}}}"#)
    };
    // A plain monitor's request is checked as the others' are, but for the conditions, which it has not.
    assert_eq!(change("monitor", "[]"), [error("monitor-cond-change-requests must be object")]);
    assert_eq!(change("monitor", r#"{"C":[]}"#), [error("no table named C in monitor session")]);
    assert_eq!(change("monitor", r#"{"T":[{"where":[["name","<","x"]]}]}"#), [fine]);
    // An empty list asks for nothing.
    assert_eq!(change("monitor_cond", r#"{"T":[{"where":[false]}]}"#).len(), 2);
    assert_eq!(change("monitor_cond", r#"{"T":[]}"#), [fine]);
    for requests in [r#"{"T":[{"where":[true]}],"X":[]}"#, r#"{"X":[],"T":[{"where":[true]}]}"#] {
        assert_eq!(change("monitor_cond", requests), [error("no table named X")]);
    }
    assert_eq!(change("monitor_cond", r#"{"T":[{"where":[true]}]}"#).len(), 2, "it was still false");
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed() {
    let mut s = server();
    let a = s.open_session(false);
    let since = |id: &str| format!(r#"["S","m",{{"T":[{{"columns":["name"]}}]}},"{id}"]"#);
    insert(&mut s, a, "x", 1);
    sent(&mut s);
    send(&mut s, a, "monitor_cond_since", &since("00000000-0000-0000-0000-000000000000"), 0);
    let first = Json::parse(&only(&mut s)).unwrap();
    let result = first.get("result").unwrap().as_array().unwrap();
    assert_eq!(result[0], Json::Bool(false));
    let last = result[1].as_str().unwrap().to_string();
    s.close_session(a);
    let b = s.open_session(false);
    insert(&mut s, b, "y", 1);
    insert(&mut s, b, "z", 1);
    send(&mut s, b, "transact", r#"["S",{"op":"delete","table":"T","where":[["name","==","z"]]}]"#, 0);
    sent(&mut s);
    send(&mut s, b, "monitor_cond_since", &since(&last), 0);
    let text = only(&mut s);
    assert!(text.contains("\"result\":[true,"), "{text}");
    assert!(
        text.contains(r#"{"insert":{"name":"y"}}"#) && !text.contains("\"z\"") && !text.contains("\"x\""),
        "{text}"
    );
}

#[test]
fn removal_of_a_database_is_told_to_those_who_understand() {
    let mut s = server();
    let (old, new) = (s.open_session(false), s.open_session(false));
    send(&mut s, new, "set_db_change_aware", "[true]", 0);
    send(&mut s, new, "monitor", r#"["S","m",{}]"#, 0);
    send(&mut s, new, "monitor", r#"["_Server","o",{"Database":{"columns":["name"]}}]"#, 0);
    sent(&mut s);
    assert!(s.remove_database("S", at(0)).is_some());
    let all = sent(&mut s);
    assert!(all.iter().any(|(id, t)| *id == old && t.starts_with("close: ")));
    assert!(all.contains(&(new, r#"{"id":null,"method":"monitor_canceled","params":["m"]}"#.to_string())));
    assert!(all.iter().any(|(id, t)| *id == new && t.contains(r#""old":{"name":"S"}"#)), "{all:?}");
}

#[test]
fn read_only_sessions_may_not_write() {
    let mut s = server();
    let a = s.open_session(true);
    insert(&mut s, a, "x", 1);
    assert!(only(&mut s).contains("insert operation not allowed when database server is in read only mode"));
    send(&mut s, a, "transact", r#"["S",{"op":"select","table":"T","where":[]}]"#, 0);
    assert!(only(&mut s).contains(r#"{"rows":[]}"#));
}

fn temp(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ib-ovsdb-server-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir.join("s.db")
}

fn serve(path: &std::path::Path) -> (Server, SessionId) {
    let loaded = Database::open(path, true, None).unwrap();
    assert_eq!(loaded.warning, None);
    let mut s = Server::new();
    s.add_database(loaded.database, at(0)).unwrap();
    let id = s.open_session(false);
    (s, id)
}

fn content(s: &mut Server, id: SessionId) -> String {
    sent(s);
    let all = r#"["S",{"op":"select","table":"T","where":[],"columns":["name","n","set","eph"],"sort":["name"]},
                     {"op":"select","table":"C","where":[],"columns":["x"],"sort":["x"]}]"#;
    send(s, id, "transact", all, 0);
    only(s)
}

#[test]
fn the_file_brings_everything_back_but_the_ephemeral() {
    let path = temp("reload");
    drop(Database::create(&path, Schema::parse(SCHEMA).unwrap(), None).unwrap());
    let (mut s, id) = serve(&path);
    for operations in [
        r#"["S",{"op":"insert","table":"T","row":{"name":"a","set":["set",[1,2,3]],"eph":"gone","child":["named-uuid","c"]}},
               {"op":"insert","table":"C","uuid-name":"c","row":{"x":"kept"}},{"op":"comment","comment":"why\nnot"}]"#,
        r#"["S",{"op":"insert","table":"T","row":{"name":"b","n":2}},{"op":"insert","table":"T","row":{"name":"c"}}]"#,
        r#"["S",{"op":"mutate","table":"T","where":[["name","==","a"]],"mutations":[["set","insert",9],["set","delete",2]]}]"#,
        r#"["S",{"op":"delete","table":"T","where":[["name","==","c"]]}]"#,
        r#"["S",{"op":"update","table":"T","where":[["name","==","b"]],"row":{"eph":"only"}}]"#,
        r#"["S",{"op":"update","table":"T","where":[["name","==","b"]],"row":{"n":0}},{"op":"commit","durable":true}]"#,
    ] {
        send(&mut s, id, "transact", operations, 0);
        assert!(!only(&mut s).contains("\"details\""));
    }
    let live = content(&mut s, id);
    assert!(live.contains(r#""set":["set",[1,3,9]]"#) && live.contains(r#"{"x":"kept"}"#), "{live}");
    let expect = live.replace("\"gone\"", "\"\"").replace("\"only\"", "\"\"");
    drop(s);
    let (mut s, id) = serve(&path);
    assert_eq!(content(&mut s, id), expect);
    // References were counted again: the child goes with its parent.
    assert_eq!(s.database("S").unwrap().table("C").unwrap().rows.len(), 1);
    let before = std::fs::metadata(&path).unwrap().len();
    s.database_mut("S").unwrap().compact("compacted", 1, 1).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < before);
    send(&mut s, id, "transact", r#"["S",{"op":"delete","table":"T","where":[["name","==","a"]]}]"#, 0);
    assert_eq!(s.database("S").unwrap().table("C").unwrap().rows.len(), 0);
    let expect = content(&mut s, id);
    drop(s);
    let (mut s, id) = serve(&path);
    assert_eq!(content(&mut s, id), expect);
}

/// The machine's disk, but for what is switched off.
#[derive(Default)]
struct Faulty {
    full: AtomicBool,
    no_sync: AtomicBool,
    syncs: AtomicUsize,
}

struct FaultyDisk(Arc<Faulty>);
struct FaultyFile(Arc<dyn DiskFile>, Arc<Faulty>);

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode, permissions: u32) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(OsDisk.open(path, mode, permissions)?, self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_directory_of(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_directory_of(path)
    }
    fn resolve(&self, path: &Path) -> PathBuf {
        OsDisk.resolve(path)
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn permissions(&self) -> u32 {
        self.0.permissions()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.1.full.load(Relaxed) {
            true if bytes.len() > 3 => self.0.write_at(&bytes[..3], offset),
            true => Err(io::Error::from_raw_os_error(28)),
            false => self.0.write_at(bytes, offset),
        }
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Relaxed);
        if self.1.no_sync.load(Relaxed) { Err(io::Error::from_raw_os_error(5)) } else { self.0.sync() }
    }
}

fn serve_on_faulty(path: &Path) -> (Server, SessionId, Arc<Faulty>) {
    let faulty = Arc::new(Faulty::default());
    let disk = Arc::new(FaultyDisk(faulty.clone()));
    let log = Log::open_on(disk, path, OpenMode::ReadWrite, None).unwrap();
    let mut s = Server::new();
    s.add_database(Database::load(Box::new(log)).unwrap().database, Now::default()).unwrap();
    let id = s.open_session(false);
    sent(&mut s);
    (s, id, faulty)
}

fn insert_durably(s: &mut Server, id: SessionId, name: &str) {
    let ops = r#"["S",{"op":"insert","table":"T","row":{"name":"NAME"}},{"op":"commit","durable":true}]"#;
    send(s, id, "transact", &ops.replace("NAME", name), 0);
}

#[test]
fn what_cannot_be_written_is_not_answered_with_success() {
    let path = temp("full");
    drop(Database::create(&path, Schema::parse(SCHEMA).unwrap(), None).unwrap());
    let (mut s, id, faulty) = serve_on_faulty(&path);
    insert(&mut s, id, "kept", 1);
    sent(&mut s);
    faulty.full.store(true, Relaxed);
    insert(&mut s, id, "lost", 1);
    let answer = only(&mut s);
    let error = format!(
        r#"{{"details":"{}: write failed","error":"I/O error","io-error":"No space left on device"}}"#,
        path.display()
    );
    assert!(answer.contains(&error), "{answer}");
    let rows = content(&mut s, id);
    assert!(rows.contains("kept") && !rows.contains("lost"), "{rows}");
    // There is room again: nothing of the failure is left in the file.
    faulty.full.store(false, Relaxed);
    insert(&mut s, id, "later", 1);
    sent(&mut s);
    let rows = content(&mut s, id);
    drop(s);
    let (mut s, id) = serve(&path);
    assert_eq!(content(&mut s, id), rows);
}

/// Three durable transactions share a flush; when it fails none of them has happened, nor what came after them.
#[test]
fn a_failed_flush_undoes_what_waited_for_it() {
    let path = temp("flush");
    drop(Database::create(&path, Schema::parse(SCHEMA).unwrap(), None).unwrap());
    let (mut s, id, faulty) = serve_on_faulty(&path);
    send(&mut s, id, "monitor", r#"["S",1,{"T":{"columns":["name"]}}]"#, 0);
    sent(&mut s);
    let before = faulty.syncs.load(Relaxed);
    for name in ["a", "b", "c"] {
        insert_durably(&mut s, id, name);
    }
    assert_eq!(sent(&mut s).len(), 6);
    assert_eq!(faulty.syncs.load(Relaxed) - before, 1);
    let good = content(&mut s, id);
    faulty.no_sync.store(true, Relaxed);
    insert(&mut s, id, "before", 1);
    insert_durably(&mut s, id, "d");
    insert_durably(&mut s, id, "e");
    insert(&mut s, id, "after", 1);
    let texts: Vec<String> = sent(&mut s).into_iter().map(|(_, t)| t).collect();
    let error = format!(
        r#"{{"details":"{}: fsync failed","error":"I/O error","io-error":"Input/output error"}}],"error":null}}"#,
        path.display()
    );
    assert_eq!(texts.iter().filter(|t| t.contains("\"result\"")).count(), 4);
    assert_eq!(texts.iter().filter(|t| t.contains(&error)).count(), 3, "{texts:?}");
    // The monitor has heard of the rows, and then that they are gone.
    let undone = texts.last().unwrap();
    assert!(undone.contains("\"old\":{\"name\":\"d\"}") && undone.contains("\"after\""), "{undone}");
    let rows = content(&mut s, id);
    assert!(rows.contains("before") && !rows.contains("after"), "{rows}");
    // While the disk fails others go on; when it works again the file is made anew.
    insert(&mut s, id, "meanwhile", 1);
    assert!(!only_answer(&mut s).contains("I/O error"));
    insert_durably(&mut s, id, "f");
    assert!(only_answer(&mut s).contains(&error));
    faulty.no_sync.store(false, Relaxed);
    insert_durably(&mut s, id, "g");
    assert!(!only_answer(&mut s).contains("I/O error"));
    let rows = content(&mut s, id);
    assert!(rows.contains("meanwhile") && rows.contains("\"g\"") && rows.len() > good.len(), "{rows}");
    drop(s);
    let (mut s, id) = serve(&path);
    assert_eq!(content(&mut s, id), rows);
}

fn only_answer(s: &mut Server) -> String {
    let answers: Vec<String> =
        sent(s).into_iter().map(|(_, t)| t).filter(|t| t.contains("\"result\"")).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers[0].clone()
}

#[test]
fn conversion_keeps_what_both_schemas_have() {
    let path = temp("convert");
    drop(Database::create(&path, Schema::parse(SCHEMA).unwrap(), None).unwrap());
    let (mut s, id) = serve(&path);
    insert(&mut s, id, "x", 5);
    sent(&mut s);
    send(&mut s, id, "set_db_change_aware", "[true]", 0);
    let schema = r#"{"name":"S","version":"2.0.0","tables":{"T":{"columns":{"name":{"type":"string"},"more":{"type":"integer"}}}}}"#;
    send(&mut s, id, "convert", &format!("[\"S\",{schema}]"), 0);
    assert!(sent(&mut s).iter().any(|(_, t)| t == r#"{"id":"convert","result":{},"error":null}"#));
    let all = r#"["S",{"op":"select","table":"T","where":[],"columns":["name","more"]}]"#;
    send(&mut s, id, "transact", all, 0);
    assert!(only(&mut s).contains(r#"{"name":"x","more":0}"#));
    drop(s);
    let (mut s, id) = serve(&path);
    send(&mut s, id, "transact", all, 0);
    assert!(only(&mut s).contains(r#"{"name":"x","more":0}"#));
}

/// What is committed while a compaction is written elsewhere is in the new file; a conversion meanwhile wins.
#[test]
fn compaction_elsewhere_keeps_what_happens_meanwhile() {
    let path = temp("compaction");
    drop(Database::create(&path, Schema::parse(SCHEMA).unwrap(), None).unwrap());
    let (mut s, id) = serve(&path);
    for i in 0..50 {
        insert(&mut s, id, &format!("r{i}"), i);
    }
    send(&mut s, id, "transact", r#"["S",{"op":"delete","table":"T","where":[["n","<",40]]}]"#, 0);
    let job = s.database_mut("S").unwrap().begin_compaction("c", 1, 1).unwrap();
    let written = std::thread::spawn(move || job.write().unwrap()).join().unwrap();
    insert(&mut s, id, "meanwhile", 99);
    let before = std::fs::metadata(&path).unwrap().len();
    s.database_mut("S").unwrap().finish_compaction(written, 2).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < before);
    insert(&mut s, id, "after", 100);
    let expect = content(&mut s, id);
    assert!(expect.contains("meanwhile") && expect.contains("r49") && !expect.contains("\"r39\""));
    let job = s.database_mut("S").unwrap().begin_compaction("c", 1, 3).unwrap();
    let written = job.write().unwrap();
    s.database_mut("S").unwrap().convert(Schema::parse(SCHEMA).unwrap(), 1).unwrap();
    s.database_mut("S").unwrap().finish_compaction(written, 4).unwrap();
    drop(s);
    let (mut s, id) = serve(&path);
    assert_eq!(content(&mut s, id), expect);
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "no temporary file stays behind"
    );
}

/// References among a ring of rows hold them; one of a row to itself does not.
#[test]
fn a_row_does_not_hold_itself() {
    let schema = r#"{"name":"S","tables":{"R":{"isRoot":true,"columns":{"x":{"type":"string"}}},
        "C":{"columns":{"next":{"type":{"key":{"type":"uuid","refTable":"C"},"min":0}}}}}}"#;
    let mut s = Server::new();
    s.add_database(Database::new(Schema::parse(schema).unwrap()), at(0)).unwrap();
    let id = s.open_session(false);
    let ring = r#"["S",{"op":"insert","table":"C","uuid-name":"a","row":{"next":["named-uuid","b"]}},
                       {"op":"insert","table":"C","uuid-name":"b","row":{"next":["named-uuid","a"]}}]"#;
    let own = r#"["S",{"op":"insert","table":"C","uuid-name":"a","row":{"next":["named-uuid","a"]}}]"#;
    send(&mut s, id, "transact", own, 0);
    assert_eq!(s.database("S").unwrap().table("C").unwrap().rows.len(), 0);
    send(&mut s, id, "transact", ring, 0);
    assert_eq!(s.database("S").unwrap().table("C").unwrap().rows.len(), 2);
    // A ring cut open is collected from its end.
    let uuid = *s.database("S").unwrap().table("C").unwrap().rows.keys().next().unwrap();
    let cut = format!(
        r#"["S",{{"op":"update","table":"C","where":[["_uuid","==",["uuid","{uuid}"]]],"row":{{"next":["set",[]]}}}}]"#
    );
    send(&mut s, id, "transact", &cut, 0);
    assert_eq!(s.database("S").unwrap().table("C").unwrap().rows.len(), 0);
}

#[test]
fn weak_references_go_with_their_rows_even_in_files() {
    let path = temp("weak");
    let schema = r#"{"name":"S","tables":{
        "A":{"isRoot":true,"columns":{"n":{"type":"integer"},
            "w":{"type":{"key":{"type":"uuid","refTable":"D","refType":"weak"},"min":0,"max":"unlimited"}}}},
        "D":{"isRoot":true,"columns":{"name":{"type":"string"}}}}}"#;
    drop(Database::create(&path, Schema::parse(schema).unwrap(), None).unwrap());
    let (mut s, id) = serve(&path);
    let both = r#"["S",{"op":"insert","table":"D","uuid-name":"d","row":{"name":"x"}},
                       {"op":"insert","table":"A","row":{"w":["named-uuid","d"]}}]"#;
    send(&mut s, id, "transact", both, 0);
    // The referencing row changes elsewhere in the transaction that deletes the row referenced.
    let delete = r#"["S",{"op":"update","table":"A","where":[],"row":{"n":1}},{"op":"delete","table":"D","where":[]}]"#;
    send(&mut s, id, "transact", delete, 0);
    sent(&mut s);
    let select = r#"["S",{"op":"select","table":"A","where":[],"columns":["n","w"]}]"#;
    let expect = r#"{"id":"transact","result":[{"rows":[{"n":1,"w":["set",[]]}]}],"error":null}"#;
    send(&mut s, id, "transact", select, 0);
    assert_eq!(only(&mut s), expect);
    drop(s);
    let (schema_record, row) = (
        Schema::parse(schema).unwrap().to_json().to_string(),
        r#"{"A":{"5b6679e6-b657-463c-85dd-48489046f583":{"n":1,"w":["uuid","5b6679e6-b657-463c-85dd-48489046f584"]}}}"#,
    );
    let mut bytes = ib_ovsdb::log::frame("JSON", &schema_record);
    bytes.extend(ib_ovsdb::log::frame("JSON", row));
    std::fs::write(&path, bytes).unwrap();
    let (mut s, id) = serve(&path);
    send(&mut s, id, "transact", select, 0);
    assert_eq!(only(&mut s), expect);
}
