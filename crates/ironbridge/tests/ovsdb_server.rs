//! The database server as a process: with Open vSwitch's own clients, and through its sudden end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ib_base::json::{Json, Parser};
use ib_ovsdb::database::Database;
use ib_ovsdb::{Schema, schemas};

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("ib-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &self.0);
        }
        command.current_dir(&self.0);
        command
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server(Child);

impl Server {
    /// Starts a server in the foreground and waits until it listens on `db.sock`.
    fn start(dir: &Dir, args: &[&str]) -> Server {
        let remote = format!("--remote=punix:{}", dir.file("db.sock").display());
        let child = dir
            .command(env!("CARGO_BIN_EXE_ironbridge"))
            .args(["ovsdb-server", "--no-chdir", "-vconsole:off", &remote])
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server(child);
        connect(&dir.file("db.sock"));
        server
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(e) => assert!(start.elapsed() < Duration::from_secs(20), "{}: {e}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("skipped: no {program} here");
    }
    found.is_ok()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A database that holds one table `T` of names.
fn small_database(path: &Path) {
    let schema = r#"{"name":"S","version":"1.0.0","tables":{"T":{"columns":{"name":{"type":"string"}},
                     "indexes":[["name"]]}}}"#;
    drop(Database::create(path, Schema::parse(schema).unwrap(), None).unwrap());
}

/// Each transaction that was answered is there after the server was killed in the midst of others.
#[test]
fn what_was_answered_survives_sigkill() {
    let dir = Dir::new("sigkill");
    small_database(&dir.file("s.db"));
    let mut answered: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut server = Server::start(&dir, &["s.db"]);
        let mut stream = connect(&dir.file("db.sock"));
        let mut writer = stream.try_clone().unwrap();
        // Requests without end, far ahead of the answers.
        let sender = std::thread::spawn(move || {
            for i in 0.. {
                let name = format!("r{round}-{i}");
                let request = format!(
                    r#"{{"method":"transact","params":["S",{{"op":"insert","table":"T","row":{{"name":"{name}"}}}}],"id":"{name}"}}"#
                );
                if writer.write_all(request.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let mut parser = Parser::new();
        let mut buf = vec![0; 65536];
        let mut killed = false;
        let before = answered.len();
        loop {
            let n = stream.read(&mut buf).unwrap_or(0);
            if n == 0 {
                break;
            }
            parser.feed(&buf[..n]);
            while let Some(answer) = parser.next_value().unwrap() {
                let result = answer.get("result").unwrap().to_string();
                assert!(result.starts_with("[{\"uuid\":"), "{result}");
                answered.push(answer.get("id").unwrap().as_str().unwrap().to_string());
            }
            if !killed && answered.len() - before > 500 * (round + 1) {
                server.kill();
                killed = true;
            }
        }
        sender.join().unwrap();
        assert!(killed);
        let loaded = Database::open(&dir.file("s.db"), false, None).unwrap();
        let table = loaded.database.table("T").unwrap();
        let names: std::collections::HashSet<String> =
            table.rows.values().map(|e| e.row.get(2).as_str().unwrap().to_string()).collect();
        let lost: Vec<&String> = answered.iter().filter(|n| !names.contains(*n)).collect();
        assert!(lost.is_empty(), "{} of {} lost, such as {}", lost.len(), answered.len(), lost[0]);
        let _ = std::fs::remove_file(dir.file("db.sock"));
    }
}

/// A client that asks and waits.
struct Client {
    stream: UnixStream,
    parser: Parser,
}

impl Client {
    fn connect(path: &Path) -> Client {
        Client { stream: connect(path), parser: Parser::new() }
    }

    fn receive(&mut self) -> Option<Json> {
        let mut buf = vec![0; 65536];
        loop {
            if let Some(answer) = self.parser.next_value().unwrap() {
                return Some(answer);
            }
            match self.stream.read(&mut buf) {
                Ok(n) if n > 0 => self.parser.feed(&buf[..n]),
                _ => return None,
            }
        }
    }

    /// Runs the operations, given as JSON text, and returns the results.
    fn transact(&mut self, operations: &str) -> String {
        let request = format!(r#"{{"method":"transact","params":["S",{operations}],"id":0}}"#);
        self.stream.write_all(request.as_bytes()).unwrap();
        self.receive().expect("an answer").get("result").unwrap().to_string()
    }

    /// The names in table `T`, sorted.
    fn names(&mut self) -> Vec<String> {
        let rows = self.transact(r#"{"op":"select","table":"T","where":[],"columns":["name"]}"#);
        let rows = Json::parse(&rows).unwrap();
        let rows = rows.as_array().unwrap()[0].get("rows").unwrap().as_array().unwrap();
        let mut names: Vec<String> =
            rows.iter().map(|r| r.get("name").unwrap().as_str().unwrap().to_string()).collect();
        names.sort();
        names
    }
}

fn insert(name: &str, durable: bool) -> String {
    format!(
        r#"{{"op":"insert","table":"T","row":{{"name":"{name}"}}}},{{"op":"commit","durable":{durable}}}"#
    )
}

/// Killed at a random time among pipelined transactions while one compaction follows the other: what was answered is there, in order and
/// without gaps, and what Open vSwitch's tool reads from the file is the same.
#[test]
fn what_was_answered_survives_sigkill_during_compaction() {
    let dir = Dir::new("sigkill-compaction");
    small_database(&dir.file("s.db"));
    let names_in_file = || -> std::collections::BTreeSet<String> {
        let loaded = Database::open(&dir.file("s.db"), false, None).unwrap();
        let table = loaded.database.table("T").unwrap();
        table.rows.values().map(|e| e.row.get(2).as_str().unwrap().to_string()).collect()
    };
    let control = dir.file("s.ctl");
    let unixctl = format!("--unixctl={}", control.display());
    let mut expected = std::collections::BTreeSet::new();
    for round in 0..8_u64 {
        let mut server = Server::start(&dir, &[&unixctl, "s.db"]);
        let mut client = Client::connect(&dir.file("db.sock"));
        if round == 0 {
            // So much that writing it takes a while.
            for i in 0..20 {
                let name = format!("big{i}-{}", "x".repeat(50_000));
                assert!(!client.transact(&insert(&name, false)).contains("error"));
                expected.insert(name);
            }
        }
        let mut writer = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for i in 0.. {
                let operations = insert(&format!("r{round}-{i:06}"), i % 3 == 0);
                let request = format!(r#"{{"method":"transact","params":["S",{operations}],"id":{i}}}"#);
                if writer.write_all(request.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let binary = env!("CARGO_BIN_EXE_ironbridge");
        let mut compact = dir.command("sh");
        compact.args([
            "-c",
            &format!("while {binary} ovs-appctl -t {} ovsdb-server/compact; do :; done", control.display()),
        ]);
        let mut compact = compact.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_millis(150 + 97 * round % 400);
        let (mut killed, mut answered) = (false, 0);
        while let Some(answer) = client.receive() {
            let result = answer.get("result").unwrap().to_string();
            assert!(result.starts_with("[{\"uuid\":") && !result.contains("error"), "{result}");
            assert_eq!(answer.get("id").and_then(Json::as_integer), Some(answered));
            answered += 1;
            if !killed && Instant::now() > end {
                server.kill();
                killed = true;
            }
        }
        sender.join().unwrap();
        compact.wait().unwrap();
        assert!(killed && answered > 0);
        let found = names_in_file();
        let new = found.iter().filter(|n| n.starts_with(&format!("r{round}-"))).count();
        assert!(new >= usize::try_from(answered).unwrap(), "{new} of {answered} answered");
        // Those that were not answered any more are the next in line.
        expected.extend((0..new).map(|i| format!("r{round}-{i:06}")));
        assert!(found == expected, "{} found, {} expected", found.len(), expected.len());
        let _ = std::fs::remove_file(dir.file("db.sock"));
        let _ = std::fs::remove_file(&control);
    }
    if installed("ovsdb-tool") {
        let query = r#"["S",{"op":"select","table":"T","where":[],"columns":["name"]}]"#;
        let rows = text(&dir.command("ovsdb-tool").args(["query", "s.db", query]).output().unwrap());
        assert_eq!(rows.matches("\"name\"").count(), expected.len());
    }
}

/// Resident memory of a process, in MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Hundreds of clients that do not read, send halves, nest without end or ask for more than they take cost neither much memory nor
/// the others' time.
#[test]
fn a_hostile_crowd_is_borne() {
    let dir = Dir::new("crowd");
    small_database(&dir.file("s.db"));
    let server = Server::start(&dir, &["s.db"]);
    let path = dir.file("db.sock");
    let mut client = Client::connect(&path);
    let before = resident_mib(server.0.id());
    let mut transactions = 0;
    let mut check = |what: &str, n: usize| {
        let mut slowest = Duration::ZERO;
        for _ in 0..n {
            transactions += 1;
            let name = format!("{transactions}-{}", "x".repeat(1000));
            let start = Instant::now();
            let result = client.transact(&insert(&name, false));
            slowest = slowest.max(start.elapsed());
            assert!(!result.contains("error"), "{what}: {result}");
        }
        assert!(slowest < Duration::from_secs(3), "{what}: a transaction took {slowest:?}");
        let grown = resident_mib(server.0.id()).saturating_sub(before);
        assert!(grown < 150, "{what}: the server has grown by {grown} MiB");
    };
    let crowd = |n: usize, text: &dyn Fn(usize) -> String| -> Vec<UnixStream> {
        let send = |i| {
            let mut stream = connect(&path);
            stream.set_nonblocking(true).unwrap();
            // Whether the server takes it all is its affair.
            let _ = stream.write(text(i).as_bytes());
            stream
        };
        (0..n).map(send).collect()
    };
    let monitor = |i: usize, request: &str| {
        format!(r#"{{"id":1,"method":"monitor_cond","params":["S","m{i}",{{"T":[{request}]}}]}}"#)
    };
    let deaf = crowd(300, &|i| monitor(i, "{}"));
    check("monitors that nobody reads", 600);
    let halves = crowd(100, &|_| r#"{"id":1,"method":"transact","params":["S",{"op":"ins"#.into());
    check("half messages", 5);
    let nests = crowd(50, &|_| "[".repeat(60_000));
    check("endless nesting", 5);
    let asks = crowd(20, &|_| {
        r#"{"id":1,"method":"transact","params":["S",{"op":"select","table":"T","where":[]}]}"#.repeat(500)
    });
    check("answers that nobody reads", 20);
    let clauses: Vec<String> = (0..1000).map(|i| format!(r#"["name","!=","{i}"]"#)).collect();
    let request = format!(r#"{{"where":[{}]}}"#, clauses.join(","));
    let conditions = crowd(20, &|i| monitor(i, &request));
    check("conditions of a thousand clauses", 5);
    for _ in 0..500 {
        drop(connect(&path));
    }
    check("connections that come and go", 5);
    drop((deaf, halves, nests, asks, conditions));
    check("all gone", 5);
}

/// What a session has done to the database a replay of it does again, with the same row identifiers; and then it ends.
#[test]
fn a_recorded_session_replays() {
    let dir = Dir::new("replay");
    std::fs::create_dir(dir.file("record")).unwrap();
    small_database(&dir.file("s.db"));
    std::fs::copy(dir.file("s.db"), dir.file("before.db")).unwrap();
    let unixctl = format!("--unixctl={}", dir.file("s.ctl").display());
    let mut server = Server::start(&dir, &[&unixctl, "--record=record", "s.db"]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&dir.file("db.sock"))).collect();
    for (i, client) in clients.iter_mut().enumerate().rev() {
        // Each but the last waits for the next one's row.
        let wait = format!(
            r#"{{"op":"wait","table":"T","where":[["name","==","n{}"]],"until":"!=","rows":[],"columns":["name"]}},{}"#,
            i + 1,
            insert(&format!("n{i}"), false)
        );
        let operations = if i == 7 { insert("n7", true) } else { wait };
        let request = format!(r#"{{"method":"transact","params":["S",{operations}],"id":0}}"#);
        let (begin, end) = request.split_at(70);
        client.stream.write_all(begin.as_bytes()).unwrap();
        client.stream.write_all(end.as_bytes()).unwrap();
    }
    for client in &mut clients {
        client.receive().expect("an answer");
    }
    drop(clients);
    let appctl = ["ovs-appctl", "-t", &dir.file("s.ctl").display().to_string(), "exit"].map(str::to_string);
    text(&dir.command(env!("CARGO_BIN_EXE_ironbridge")).args(appctl).output().unwrap());
    server.0.wait().unwrap();
    let rows = |file: &str| {
        let loaded = Database::open(&dir.file(file), false, None).unwrap();
        let table = loaded.database.table("T").unwrap();
        let mut rows: Vec<String> =
            table.rows.values().map(|e| format!("{} {:?}", e.row.uuid(), e.row.get(2))).collect();
        rows.sort();
        rows
    };
    let recorded = rows("s.db");
    assert_eq!(recorded.len(), 8);
    std::fs::copy(dir.file("before.db"), dir.file("s.db")).unwrap();
    let remote = format!("--remote=punix:{}", dir.file("db.sock").display());
    let mut replay = dir.command("timeout");
    replay.args(["20", env!("CARGO_BIN_EXE_ironbridge"), "ovsdb-server", "--no-chdir", "-vconsole:off"]);
    text(&replay.args([&unixctl, &remote, "--replay=record", "s.db"]).output().unwrap());
    assert_eq!(rows("s.db"), recorded);
}

/// A file system of 1 MB that is nearly full, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<SmallDisk> {
        std::fs::create_dir(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path).status();
        if !mount.is_ok_and(|s| s.success()) {
            println!("skipped: may not mount here");
            return None;
        }
        std::fs::write(path.join("ballast"), vec![0; 800_000]).unwrap();
        Some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full disk: errors for what cannot be written, service for the rest, nothing lost, nothing half there; and when there is room
/// again, on it goes.
#[test]
fn a_full_disk_is_survived() {
    let dir = Dir::new("full");
    let Some(disk) = SmallDisk::mount(dir.file("disk")) else { return };
    small_database(&disk.0.join("s.db"));
    let control = dir.file("s.ctl");
    let unixctl = format!("--unixctl={}", control.display());
    let mut server = Server::start(&dir, &[&unixctl, "disk/s.db"]);
    let mut client = Client::connect(&dir.file("db.sock"));
    let mut kept = Vec::new();
    let mut refused = 0;
    for i in 0..60 {
        let name = format!("{i:02}{}", "x".repeat(8_000));
        let result = client.transact(&insert(&name, i % 2 == 0));
        if result.contains("error") {
            refused += 1;
            let error = r#"{"details":"disk/s.db: write failed","error":"I/O error","io-error":"No space left on device"}]"#;
            assert!(result.ends_with(error), "{result}");
        } else {
            kept.push(name);
        }
    }
    assert!(refused > 0 && !kept.is_empty());
    assert!(client.names() == kept);
    let compact = || {
        let binary = env!("CARGO_BIN_EXE_ironbridge");
        let mut appctl = dir.command(binary);
        appctl.args(["ovs-appctl", "-t"]).arg(&control).arg("ovsdb-server/compact").output().unwrap()
    };
    let failed = compact();
    assert!(!failed.status.success());
    let message = String::from_utf8_lossy(&failed.stderr);
    assert!(message.contains("s.db.tmp: write failed (No space left on device)"), "{message}");
    assert!(!disk.0.join("s.db.tmp").exists(), "what is left behind keeps the disk full");
    std::fs::remove_file(disk.0.join("ballast")).unwrap();
    assert!(!client.transact(&insert("zz later", true)).contains("error"));
    kept.push("zz later".to_string());
    assert!(compact().status.success());
    assert!(client.names() == kept);
    server.kill();
    let _ = std::fs::remove_file(dir.file("db.sock"));
    let mut server = Server::start(&dir, &["disk/s.db"]);
    assert!(Client::connect(&dir.file("db.sock")).names() == kept);
    server.kill();
}

/// Files go back and forth between the two servers' tools, with differences of columns in them.
#[test]
fn files_are_the_original_s() {
    if !installed("ovsdb-tool") {
        return;
    }
    let dir = Dir::new("files");
    let schema = r#"{"name":"S","version":"1.0.0","tables":{
        "T":{"isRoot":true,"columns":{"name":{"type":"string"},
            "set":{"type":{"key":"integer","min":0,"max":"unlimited"}},
            "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
            "opt":{"type":{"key":"real","min":0,"max":1}},
            "kids":{"type":{"key":{"type":"uuid","refTable":"C"},"min":0,"max":"unlimited"}}}},
        "C":{"columns":{"x":{"type":"string"}}}}}"#;
    std::fs::write(dir.file("schema"), schema).unwrap();
    let tool = |ours: bool, args: &[&str]| {
        let mut command = dir.command(if ours { env!("CARGO_BIN_EXE_ironbridge") } else { "ovsdb-tool" });
        if ours {
            command.arg("ovsdb-tool");
        }
        text(&command.args(args).output().unwrap())
    };
    let steps = [
        r#"{"op":"insert","table":"T","row":{"name":"a","set":["set",[1,2,3]],"map":["map",[["k","v"],["l","w"]]],"kids":["named-uuid","c"]}},
           {"op":"insert","table":"C","row":{"x":"\u20ac \"quoted\" \n"},"uuid-name":"c"}"#,
        r#"{"op":"mutate","table":"T","where":[],"mutations":[["set","insert",["set",[4,5]]],["set","delete",1]]}"#,
        r#"{"op":"mutate","table":"T","where":[],"mutations":[["map","delete",["set",["k"]]],["map","insert",["map",[["m","x"]]]]]}"#,
        r#"{"op":"update","table":"T","where":[],"row":{"opt":1.5,"map":["map",[["l","other"]]]}},{"op":"comment","comment":"two\nlines"}"#,
        r#"{"op":"mutate","table":"T","where":[],"mutations":[["kids","insert",["named-uuid","d"]]]},
           {"op":"insert","table":"C","row":{"x":"d"},"uuid-name":"d"}"#,
        r#"{"op":"update","table":"T","where":[],"row":{"opt":["set",[]],"set":["set",[]]}}"#,
        r#"{"op":"update","table":"T","where":[],"row":{"kids":["set",[]]}},{"op":"insert","table":"T","row":{"name":"b"}}"#,
        r#"{"op":"delete","table":"T","where":[["name","==","a"]]}"#,
    ];
    let everything = r#"["S",{"op":"select","table":"T","where":[]},{"op":"select","table":"C","where":[],"columns":["_uuid","x"]}]"#;
    // Versions are made up on loading; rows and kids come in any order.
    let content = |ours: bool| {
        let json = Json::parse(&tool(ours, &["query", "s.db", everything])).unwrap();
        let mut lines = Vec::new();
        for result in json.as_array().unwrap() {
            let rows = result.get("rows").unwrap().as_array().unwrap();
            let start = lines.len();
            for row in rows {
                let columns = row.as_object().unwrap().iter().filter(|(name, _)| &***name != "_version");
                let mut columns: Vec<String> = columns.map(|(n, v)| format!("{n}={v}")).collect();
                columns.sort();
                lines.push(columns.join(" "));
            }
            lines[start..].sort();
        }
        lines
    };
    for (first, compact) in [(true, false), (false, true)] {
        let _ = std::fs::remove_file(dir.file("s.db"));
        tool(first, &["create", "s.db", "schema"]);
        for (i, step) in steps.iter().enumerate() {
            let ours = (i % 2 == 0) == first;
            tool(ours, &["transact", "s.db", &format!("[\"S\",{step}]")]);
            assert_eq!(content(true), content(false), "after step {i}");
            if compact && i % 3 == 2 {
                tool(!ours, &["compact", "s.db"]);
                assert_eq!(content(true), content(false), "compact after step {i}");
            }
        }
        // Rows of a record, and columns of a row, come in any order.
        let log = |ours: bool| {
            let text = tool(ours, &["-mm", "show-log", "s.db"]);
            let sorted = |record: &str| {
                let mut lines: Vec<String> = record.lines().map(str::to_string).collect();
                lines.sort();
                lines
            };
            text.split("record ").map(sorted).collect::<Vec<_>>()
        };
        assert_eq!(log(true), log(false));
    }
}

#[test]
fn an_idle_server_uses_no_processor_time() {
    let dir = Dir::new("idle");
    small_database(&dir.file("s.db"));
    let server = Server::start(&dir, &["s.db"]);
    let _client = connect(&dir.file("db.sock"));
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    std::thread::sleep(Duration::from_millis(300));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 1, "{} ticks in a second", ticks() - before);
}

#[test]
fn sigterm_and_exit_leave_nothing_behind() {
    let dir = Dir::new("exit");
    small_database(&dir.file("s.db"));
    let remote = format!("--remote=punix:{}", dir.file("db.sock").display());
    let binary = env!("CARGO_BIN_EXE_ironbridge");
    let start = || {
        let output = dir
            .command(binary)
            .args(["ovsdb-server", "--detach", "--no-chdir", "--pidfile", "--log-file", &remote, "s.db"])
            .output()
            .unwrap();
        assert_eq!(text(&output), "");
        std::fs::read_to_string(dir.file("ovsdb-server.pid")).unwrap().trim().to_string()
    };
    let gone = |pid: &str| {
        let start = Instant::now();
        while Path::new("/proc").join(pid).exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "{pid} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
        for name in ["db.sock".to_string(), "ovsdb-server.pid".to_string(), format!("ovsdb-server.{pid}.ctl")]
        {
            assert!(!dir.file(&name).exists(), "{name} is still there");
        }
    };
    let pid = start();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    gone(&pid);
    let pid = start();
    let exit = dir.command(binary).args(["ovs-appctl", "-t", "ovsdb-server", "exit"]).output().unwrap();
    assert_eq!(text(&exit), "");
    gone(&pid);
}

#[test]
fn the_original_clients_work_on_it() {
    if !installed("ovsdb-client") || !installed("ovs-vsctl") || !installed("ovsdb-tool") {
        return;
    }
    let dir = Dir::new("clients");
    std::fs::write(dir.file("vswitch.ovsschema"), schemas::VSWITCH).unwrap();
    text(&dir.command("ovsdb-tool").args(["create", "conf.db", "vswitch.ovsschema"]).output().unwrap());
    let mut server = Server::start(&dir, &[]);
    let db = format!("--db=unix:{}", dir.file("db.sock").display());
    let vsctl =
        |args: &[&str]| text(&dir.command("ovs-vsctl").args(["--no-wait", &db]).args(args).output().unwrap());
    assert_eq!(vsctl(&["init"]), "");
    vsctl(&[
        "add-br",
        "br0",
        "--",
        "add-port",
        "br0",
        "p1",
        "--",
        "set",
        "Interface",
        "p1",
        "external_ids:a=b",
    ]);
    assert_eq!(vsctl(&["list-ports", "br0"]), "p1\n");
    assert_eq!(vsctl(&["get", "Interface", "p1", "external_ids"]), "{a=b}\n");
    vsctl(&["del-port", "p1"]);
    assert_eq!(vsctl(&["--columns=name", "list", "Interface"]).trim(), "name                : br0");
    let socket = format!("unix:{}", dir.file("db.sock").display());
    let client = |args: &[&str]| text(&dir.command("ovsdb-client").args(args).output().unwrap());
    assert_eq!(client(&["list-dbs", &socket]), "Open_vSwitch\n_Server\n");
    assert!(client(&["dump", &socket, "Open_vSwitch", "Bridge", "name"]).contains("br0"));
    assert_eq!(client(&["get-schema-version", &socket]), "8.8.0\n");
    // The monitor ends when the bridge is gone; what it printed tells of that.
    let monitor = dir
        .command("timeout")
        .args(["3", "ovsdb-client", "monitor", &socket, "Open_vSwitch", "Bridge", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    vsctl(&["del-br", "br0"]);
    let printed = monitor.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("initial") && printed.contains("delete"), "{printed}");
    server.kill();
    let query = r#"["Open_vSwitch",{"op":"select","table":"Bridge","where":[]}]"#;
    let rows = text(&dir.command("ovsdb-tool").args(["query", "conf.db", query]).output().unwrap());
    assert_eq!(Json::parse(&rows).unwrap().to_string(), r#"[{"rows":[]}]"#);
    assert!(
        text(&dir.command("ovsdb-tool").args(["show-log", "conf.db"]).output().unwrap()).contains("record 0")
    );
}

/// One request and its answer; an error if the server hangs up, as it does when its databases change.
fn try_ask(socket: &Path, method: &str, params: &str) -> std::io::Result<String> {
    let mut stream = connect(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, r#"{{"method":"{method}","params":{params},"id":0}}"#)?;
    let mut parser = Parser::new();
    let mut buf = [0; 4096];
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        parser.feed(&buf[..n]);
        if let Some(answer) = parser.next_value().unwrap() {
            return Ok(answer.to_string());
        }
    }
}

fn ask(socket: &Path, method: &str, params: &str) -> String {
    try_ask(socket, method, params).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A backup and a relay, from a configuration file that changes, follow a server that is killed and comes back.
#[test]
fn a_configuration_file_makes_backups_and_relays() {
    let dir = Dir::new("copies");
    small_database(&dir.file("s.db"));
    let copy = Dir::new("copies-to");
    small_database(&copy.file("s.db"));
    let mut active = Server::start(&dir, &["s.db"]);
    let socket = dir.file("db.sock");
    let insert = |socket: &Path, name: &str| {
        ask(socket, "transact", &format!(r#"["S",{{"op":"insert","table":"T","row":{{"name":"{name}"}}}}]"#))
    };
    let has = |socket: &Path, name: &str| {
        let select = format!(
            r#"["S",{{"op":"select","table":"T","where":[["name","==","{name}"]],"columns":["name"]}}]"#
        );
        try_ask(socket, "transact", &select).is_ok_and(|answer| answer.contains(name))
    };
    assert!(insert(&socket, "one").contains("uuid"));
    let source = format!(r#"{{"unix:{}":{{"max-backoff":1000}}}}"#, socket.display());
    let configure = |databases: &str| {
        let text = format!(
            r#"{{"remotes":{{"punix:{}":{{}}}},"databases":{{{databases}}}}}"#,
            copy.file("db.sock").display()
        );
        std::fs::write(copy.file("config.json"), text).unwrap();
    };
    let binary = env!("CARGO_BIN_EXE_ironbridge");
    let ctl_path = copy.file("ctl").display().to_string();
    let control = |args: &[&str]| {
        copy.command(binary).args(["ovs-appctl", "-t", &ctl_path]).args(args).output().unwrap()
    };
    let file = copy.file("s.db").display().to_string();
    configure(&format!(r#""{file}":{{"service-model":"active-backup","backup":true,"source":{source}}}"#));
    let config = format!("--config-file={}", copy.file("config.json").display());
    let ctl = format!("--unixctl={}", copy.file("ctl").display());
    let child = copy
        .command(binary)
        .args(["ovsdb-server", "--no-chdir", "-vconsole:off", &config, &ctl])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let copied = copy.file("db.sock");
    wait_for("the backup has the row", || has(&copied, "one"));
    assert!(insert(&copied, "no").contains("insert operation not allowed"));
    let status = text(&control(&["ovsdb-server/sync-status"]));
    assert_eq!(status, format!("state: backup\nreplicating: unix:{}\ndatabase: S\n", socket.display()));

    // A mistake changes nothing.
    std::fs::write(copy.file("config.json"), r#"{"remotes":[]}"#).unwrap();
    assert!(!control(&["ovsdb-server/reload"]).status.success());
    assert_eq!(text(&control(&["ovsdb-server/list-dbs"])), "S\n_Server\n");

    configure(&format!(r#""S":{{"service-model":"relay","source":{source}}}"#));
    assert_eq!(text(&control(&["ovsdb-server/reload"])), "");
    wait_for("the relay has the row", || has(&copied, "one"));
    assert!(insert(&copied, "two").contains("uuid"));
    assert!(has(&socket, "two"));
    active.kill();
    assert!(has(&copied, "two"));
    let pending = std::thread::spawn({
        let copied = copied.clone();
        move || ask(&copied, "transact", r#"["S",{"op":"insert","table":"T","row":{"name":"three"}}]"#)
    });
    std::fs::remove_file(&socket).unwrap();
    let _active = Server::start(&dir, &["s.db"]);
    assert!(pending.join().unwrap().contains("uuid"));
    assert!(has(&socket, "three") && has(&copied, "three"));
}

#[test]
fn a_clients_session_replays_without_the_server() {
    let dir = Dir::new("client-replay");
    let schema = r#"{"name":"D","tables":{"A":{"isRoot":true,"columns":{"name":{"type":"string"}}}}}"#;
    drop(Database::create(&dir.file("d.db"), Schema::parse(schema).unwrap(), None).unwrap());
    let remote = format!("unix:{}", dir.file("db.sock").display());
    let control = format!("--unixctl={}", dir.file("control").display());
    let mut server = Server::start(&dir, &[&control, "d.db"]);
    std::fs::create_dir(dir.file("record")).unwrap();
    let run = |option: &str| {
        let mut client = dir.command(env!("CARGO_BIN_EXE_ironbridge"));
        let insert = r#"["D",{"op":"insert","table":"A","row":{"name":"x"}}]"#;
        let out = client.args(["ovsdb-client", option, "transact", &remote, insert]).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let recorded = run("--record=record");
    assert_eq!(recorded.0, Some(0));
    server.kill();
    assert_eq!(run("--replay=record"), recorded, "the same row, from the record");
    assert_eq!(run("--replay=nowhere").0, Some(1));
}

#[test]
fn a_file_by_two_names_is_a_mistake() {
    let dir = Dir::new("two-names");
    drop(
        Database::create(&dir.file("d.db"), Schema::parse(r#"{"name":"D","tables":{}}"#).unwrap(), None)
            .unwrap(),
    );
    let control = format!("--unixctl={}", dir.file("control").display());
    let run = |other: &str| {
        let mut command = dir.command(env!("CARGO_BIN_EXE_ironbridge"));
        let out = command.args(["ovsdb-server", &control, "--run=true", "d.db", other]).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(run("d.db"), (Some(0), String::new()));
    assert_eq!(run("./d.db"), (Some(1), "ovsdb-server: ovsdb error: d.db: already open\n".to_string()));
}

#[test]
fn tls_without_usable_files_is_refused_and_logged() {
    let dir = Dir::new("tls-files");
    drop(
        Database::create(&dir.file("d.db"), Schema::parse(r#"{"name":"D","tables":{}}"#).unwrap(), None)
            .unwrap(),
    );
    std::fs::write(dir.file("x.pem"), "no certificate").unwrap();
    let control = format!("--unixctl={}", dir.file("control").display());
    let file = dir.file("x.pem").display().to_string();
    let files = ["private-key", "certificate", "ca-cert"].map(|option| format!("--{option}={file}"));
    let log = dir.file("log");
    let log_file = format!("--log-file={}", log.display());
    let mut args = vec![control.as_str(), log_file.as_str(), "--remote=pssl:0:127.0.0.1", "d.db"];
    args.extend(files.iter().map(String::as_str));
    let _server = Server::start(&dir, &args);
    let logged = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    wait_for("it listens", || logged("listening on port "));
    let text = std::fs::read_to_string(&log).unwrap();
    let port = text.split_once("listening on port ").unwrap().1.lines().next().unwrap().to_string();
    drop(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap());
    wait_for("the refusal is logged", || logged("accept failed: Protocol not available"));
    assert!(logged("SSL_use_certificate_file: error:0480006C:PEM routines::no start line"));
    assert!(logged("Certificate must be configured to use SSL/TLS"));
}

/// Whom it will copy next does not change whom it copies.
#[test]
fn the_status_of_a_backup_tells_whom_it_copies() {
    let dir = Dir::new("backup-status");
    drop(
        Database::create(&dir.file("d.db"), Schema::parse(r#"{"name":"D","tables":{}}"#).unwrap(), None)
            .unwrap(),
    );
    let control = format!("--unixctl={}", dir.file("control").display());
    let _server = Server::start(&dir, &[&control, "--sync-from=unix:first", "d.db"]);
    let ask = |words: &[&str]| {
        let mut appctl = dir.command(env!("CARGO_BIN_EXE_ironbridge"));
        appctl.args(["ovs-appctl", "-t"]).arg(dir.file("control")).args(words);
        text(&appctl.output().unwrap())
    };
    ask(&["ovsdb-server/set-active-ovsdb-server", "unix:second"]);
    assert_eq!(ask(&["ovsdb-server/sync-status"]), "state: backup\nconnecting: unix:first\n");
    ask(&["ovsdb-server/connect-active-ovsdb-server"]);
    assert_eq!(ask(&["ovsdb-server/sync-status"]), "state: backup\nconnecting: unix:second\n");
}

#[test]
fn options_that_name_no_column_are_fatal() {
    let dir = Dir::new("db-options");
    let schema = r#"{"name":"D","version":"1.0.0","tables":{"A":{"columns":{"name":{"type":"string"},"n":{"type":"integer"}}}}}"#;
    drop(Database::create(&dir.file("d.db"), Schema::parse(schema).unwrap(), None).unwrap());
    let control = format!("--unixctl={}", dir.file("control").display());
    for option in ["--private-key", "--certificate", "--ca-cert", "--ssl-protocols"] {
        for (target, complaint) in [
            ("db:D,A", "\"db:D,A\": invalid syntax"),
            ("db:X,A,name", "\"db:X,A,name\": no database named X"),
            ("db:D,X,name", "\"db:D,X,name\": no table named X"),
            ("db:D,A,x", "\"db:D,A,x\": table \"A\" has no column \"x\""),
            ("db:D,A,n", "\"db:D,A,n\": table \"A\" column \"n\" is not string or set of strings"),
        ] {
            let mut command = dir.command(env!("CARGO_BIN_EXE_ironbridge"));
            let option = format!("{option}={target}");
            let out =
                command.args(["ovsdb-server", &control, "--run=true", &option, "d.db"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stderr), format!("ovsdb-server: {complaint}\n\n"));
            assert_eq!(out.status.code(), Some(1));
        }
    }
}
