//! Peers that break the rules: garbage, cut and endless messages, clients that never read, crowds, damaged files and
//! sudden ends. After each the daemons answer others as ever, none has ended, and no log speaks of a panic.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ib_base::json::{Json, Parser};
use ib_base::rng::Rng;
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use support::{Daemons, Dir, wait_for};

const DUMMIES: &[&str] = &["--enable-dummy=override", "--disable-system", "--disable-system-route"];

/// Daemons with one bridge of dummies, and what must stay as it is.
struct Victim {
    d: Daemons,
    pids: [u32; 2],
}

impl Victim {
    fn start() -> Victim {
        let d = Daemons::start(DUMMIES);
        d.run("ovs-vsctl add-br br0 -- set Bridge br0 datapath-type=dummy fail-mode=secure");
        d.run("ovs-vsctl add-port br0 p1 -- set Interface p1 type=dummy ofport_request=1");
        let pid = |name| d.pid(name).expect("a pidfile");
        let pids = [pid("ovsdb-server"), pid("ovs-vswitchd")];
        Victim { d, pids }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.d.dir.path().join(name)
    }

    /// Every socket that takes bytes from strangers.
    fn sockets(&self) -> Vec<PathBuf> {
        let [database, switch] = self.pids;
        vec![
            self.socket("db.sock"),
            self.socket(&format!("ovsdb-server.{database}.ctl")),
            self.socket(&format!("ovs-vswitchd.{switch}.ctl")),
            self.socket("br0.mgmt"),
        ]
    }

    fn connect(&self, path: &Path) -> UnixStream {
        let stream = UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// Both daemons do what they are for, and are the same processes.
    fn check(&self, after: &str) {
        for (name, pid) in ["ovsdb-server", "ovs-vswitchd"].iter().zip(self.pids) {
            assert_eq!(self.d.pid(name), Some(pid), "{name} was restarted after {after}");
            assert!(Path::new(&format!("/proc/{pid}")).exists(), "{name} is gone after {after}");
            let version = self.d.run(&format!("ovs-appctl -t {name} version"));
            assert!(version.starts_with(name), "after {after}: {version}");
        }
        self.d.run(&format!("ovs-vsctl set Bridge br0 external-ids:after={}", after.replace(' ', "-")));
        assert_eq!(self.d.run("ovs-vsctl list-ports br0"), "p1\n");
        let ports = self.d.run("ovs-appctl dpif/show");
        assert!(ports.contains("p1"), "after {after}: {ports}");
        self.check_openflow(after);
        for log in ["ovsdb-server.log", "ovs-vswitchd.log"] {
            let text = std::fs::read_to_string(self.socket(log)).unwrap_or_default();
            assert!(!text.contains("panicked"), "after {after}, {log}:\n{text}");
        }
    }

    /// A controller gets the switch's features.
    fn check_openflow(&self, after: &str) {
        let mut s = self.connect(&self.socket("br0.mgmt"));
        s.write_all(&[1, 0, 0, 8, 0, 0, 0, 1, 1, 5, 0, 8, 0, 0, 0, 2]).expect("hello and features request");
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        let found = |got: &[u8]| {
            let mut rest = got;
            while let Some(len) = rest.get(2..4).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]]))) {
                if len < 8 || len > rest.len() {
                    return false;
                }
                if rest[1] == 6 {
                    return true;
                }
                rest = &rest[len..];
            }
            false
        };
        while !found(&got) {
            match s.read(&mut buffer) {
                Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
                other => panic!("after {after}: no features reply: {other:?}, {got:02x?}"),
            }
        }
    }

    fn resident_kib(&self, daemon: usize) -> u64 {
        let path = format!("/proc/{}/status", self.pids[daemon]);
        let status = std::fs::read_to_string(path).expect("its status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }
}

/// Writes until the peer has had enough. Whether it takes all is its affair.
fn throw(s: &mut UnixStream, bytes: &[u8]) {
    let _ = s.write_all(bytes);
}

fn request(s: &mut UnixStream, parser: &mut Parser, text: &str) -> Json {
    s.write_all(text.as_bytes()).expect("a request is taken");
    reply(s, parser)
}

/// The next message that is an answer.
fn reply(s: &mut UnixStream, parser: &mut Parser) -> Json {
    let mut buffer = vec![0; 1 << 16];
    loop {
        while let Some(json) = parser.next_value().expect("JSON") {
            if json.as_object().is_some_and(|o| o.get("result").is_some()) {
                return json;
            }
        }
        match s.read(&mut buffer) {
            Ok(n) if n > 0 => parser.feed(&buffer[..n]),
            other => panic!("no answer: {other:?}"),
        }
    }
}

#[test]
fn garbage_on_every_socket() {
    let v = Victim::start();
    let mut rng = Rng::new(1);
    let deep = "[".repeat(200_000);
    let long_string = format!("{{\"method\":\"{}", "x".repeat(8 << 20));
    let texts: [&str; 12] = [
        "{",
        "}",
        "null",
        "[1,2",
        "{\"method\":5,\"params\":[],\"id\":1}",
        "{\"id\":1}",
        "{\"method\":\"transact\",\"params\":{},\"id\":1}",
        "{\"method\":\"transact\",\"params\":[\"Open_vSwitch\",{\"op\":\"insert\"}],\"id\":",
        "{\"method\":\"monitor\",\"params\":[\"Open_vSwitch\",null,{\"Bridge\":7}],\"id\":{\"a\":[]}}",
        "{\"result\":1,\"error\":null,\"id\":\"x\"}",
        &deep,
        &long_string,
    ];
    for path in v.sockets() {
        for text in texts {
            throw(&mut v.connect(&path), text.as_bytes());
        }
        for _ in 0..50 {
            let mut bytes = vec![0; 1 + rng.below(3000) as usize];
            rng.fill(&mut bytes);
            throw(&mut v.connect(&path), &bytes);
        }
        v.check(&format!("garbage on {}", path.file_name().unwrap_or_default().display()));
    }
}

#[test]
fn openflow_messages_that_lie() {
    let v = Victim::start();
    let mut rng = Rng::new(2);
    let path = v.socket("br0.mgmt");
    // Lengths: none, short of a header, more than ever comes.
    for header in [[1, 0, 0, 0], [1, 0, 0, 7], [1, 0, 255, 255], [9, 0, 0, 8], [0, 0, 0, 8], [1, 5, 0, 8]] {
        let mut s = v.connect(&path);
        throw(&mut s, &[&header[..], &[0, 0, 0, 1]].concat());
        throw(&mut s, &[0; 100]);
    }
    v.check("wrong lengths");
    // Each type in each version behind a proper hello, with bodies of zeros, ones and anything.
    for version in 1..=6u8 {
        for fill in 0..3 {
            let mut s = v.connect(&path);
            throw(&mut s, &[version, 0, 0, 8, 0, 0, 0, 1]);
            for kind in 1..36u8 {
                for size in [0, 8, 16, 40, 56, 72, 200] {
                    let mut body = vec![if fill == 1 { 0xff } else { 0 }; size];
                    if fill == 2 {
                        rng.fill(&mut body);
                    }
                    let len = u16::try_from(size + 8).expect("short").to_be_bytes();
                    throw(&mut s, &[&[version, kind, len[0], len[1], 0, 0, 0, 9], &body[..]].concat());
                }
            }
            // Answers until there are no more: the switch has then read all.
            s.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
            let mut buffer = [0; 1 << 16];
            while matches!(s.read(&mut buffer), Ok(n) if n > 0) {}
        }
        v.check(&format!("messages of version {version}"));
    }
}

#[test]
fn crowds_and_half_messages() {
    let v = Victim::start();
    for path in v.sockets() {
        let openflow = path.ends_with("br0.mgmt");
        let crowd: Vec<UnixStream> = (0..200)
            .map(|i| {
                let mut s = v.connect(&path);
                let half: &[u8] = if openflow { &[1, 0, 0, 8, 0] } else { b"{\"method\":\"ec" };
                throw(&mut s, &half[..i % (half.len() + 1)]);
                s
            })
            .collect();
        v.check("a crowd");
        drop(crowd);
        v.check("a crowd that left");
    }
    let count = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    for pid in v.pids {
        wait_for("descriptors to be closed", 10, || count(pid) < 100);
    }
}

#[test]
fn a_peer_that_never_reads() {
    let v = Victim::start();
    // An OpenFlow peer that asks on and on.
    let before = v.resident_kib(1);
    let mut deaf = v.connect(&v.socket("br0.mgmt"));
    throw(&mut deaf, &[4, 0, 0, 8, 0, 0, 0, 1]);
    deaf.set_nonblocking(true).expect("a non-blocking socket");
    let mut asked = Vec::new();
    for _ in 0..1000 {
        let mut echo = vec![4, 2, 0xff, 0xf8, 0, 0, 0, 2];
        echo.resize(0xfff8, 0x55);
        asked.extend_from_slice(&echo);
    }
    let mut sent = 0;
    let end = Instant::now() + Duration::from_secs(3);
    while sent < asked.len() && Instant::now() < end {
        match deaf.write(&asked[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    v.check("an OpenFlow peer that never reads");
    let grown = v.resident_kib(1).saturating_sub(before);
    assert!(grown < 32 << 10, "the switch grew by {grown} KiB for {sent} bytes of echo requests");
    drop(deaf);

    // A monitor of a column that changes on and on.
    let mut deaf = v.connect(&v.socket("db.sock"));
    let ask = r#"{"method":"monitor","params":["Open_vSwitch",1,{"Open_vSwitch":{"columns":["external_ids"]}}],"id":1}"#;
    deaf.write_all(ask.as_bytes()).expect("a request is taken");
    let before = v.resident_kib(0);
    let mut s = v.connect(&v.socket("db.sock"));
    let mut parser = Parser::new();
    let mut slowest = Duration::ZERO;
    for i in 0..400 {
        let value = format!("{i}-{}", "v".repeat(100_000));
        let text = format!(
            r#"{{"method":"transact","params":["Open_vSwitch",{{"op":"update","table":"Open_vSwitch","where":[],"row":{{"external_ids":["map",[["big","{value}"]]]}}}}],"id":{i}}}"#
        );
        let start = Instant::now();
        let answer = request(&mut s, &mut parser, &text).to_string();
        slowest = slowest.max(start.elapsed());
        assert!(answer.contains("\"count\":1"), "{answer}");
    }
    assert!(slowest < Duration::from_secs(5), "a transaction took {slowest:?}");
    let grown = v.resident_kib(0).saturating_sub(before);
    assert!(grown < 64 << 10, "the database server grew by {grown} KiB while a monitor did not read");
    v.d.run("ovs-vsctl remove Open_vSwitch . external_ids big");
    v.check("a monitor that never reads");
}

#[test]
fn frames_of_any_bytes() {
    let v = Victim::start();
    v.d.run("ovs-vsctl add-port br0 p2 -- set Interface p2 type=dummy ofport_request=2");
    v.d.run("ovs-vsctl set-fail-mode br0 standalone");
    const SEEDS: [&str; 5] = [
        "50540000000150540000000281006 00a080045000028000040004006000 00a0000010a00000200501f90000000000000000050 02ffff00000000",
        "3333ff00000150540000000286dd6000000000203afffe800000000000000000000000000001ff0200000000000000000001ff0000018700000000000000fe800000000000000000000000000002010150540000 0002",
        "ffffffffffff505400000002080600010800060400015054000000020a0000010000000000000a000002",
        "505400000001505400000002884700001140000021 3f4500001c00000000401100000a0000010a000002003500350008 0000",
        "505400000001505400000002894f 0fc60103000005ff00000001000000020000000300000004",
    ];
    let mut rng = Rng::new(3);
    let mut injected = 0;
    for _ in 0..60 {
        let mut line = String::from("ovs-appctl netdev-dummy/receive p1");
        for _ in 0..20 {
            let hex: String = SEEDS[rng.below(5) as usize].split_whitespace().collect();
            let pairs = hex.as_bytes().chunks_exact(2);
            let mut frame: Vec<u8> = pairs
                .map(|p| u8::from_str_radix(std::str::from_utf8(p).expect("ASCII"), 16).expect("hexadecimal"))
                .collect();
            for _ in 0..rng.below(6) {
                let at = rng.below(frame.len() as u64) as usize;
                frame[at] = rng.next_u32() as u8;
            }
            if rng.below(3) == 0 {
                frame.truncate(14 + rng.below(frame.len() as u64 - 13) as usize);
            }
            if rng.below(10) == 0 {
                frame.resize(frame.len() + rng.below(2000) as usize, 0xa5);
            }
            line.push(' ');
            frame.iter().for_each(|b| line.push_str(&format!("{b:02x}")));
            injected += 1;
        }
        v.d.run(&line);
    }
    let seen = v.d.run("ovs-vsctl --if-exists get Interface p1 statistics:rx_packets");
    wait_for("the statistics", 10, || {
        v.d.run("ovs-appctl dpctl/show -s").contains(&format!("RX packets:{injected} "))
    });
    assert!(v.d.run("ovs-vsctl list-ports br0").contains("p2"), "{seen}");
    v.d.run("ovs-vsctl del-port p2");
    // Neither what is no frame nor what is no flow gets in.
    for bad in ["00", "zz", "in_port(", "505400000001"] {
        let out = v.d.try_run(&format!("ovs-appctl netdev-dummy/receive p1 {bad}"));
        assert_eq!(out.status.code(), Some(2), "{bad}");
    }
    v.check("frames of any bytes");
}

/// A small database file with some transactions, and where each record begins.
fn small_file(path: &Path) -> Vec<u8> {
    let schema = r#"{"name":"S","version":"1.0.0","tables":{"T":{"columns":{"name":{"type":"string"}},"isRoot":true}}}"#;
    let mut db = Database::create(path, Schema::parse(schema).expect("a schema"), None).expect("a file");
    for i in 0..5 {
        let insert = format!(r#"[{{"op":"insert","table":"T","row":{{"name":"row{i}"}}}}]"#);
        let Ok(Json::Array(operations)) = Json::parse(&insert) else { panic!("{insert}") };
        let context = ib_ovsdb::exec::Context {
            holds_lock: &|_| false,
            read_only: false,
            reserved: None,
            asker: None,
            elapsed_ms: Some(0),
        };
        db.transact(&operations, &context, 0);
    }
    drop(db);
    std::fs::read(path).expect("the file")
}

/// One wrong byte anywhere, or a cut anywhere: what comes before it is there.
#[test]
fn damaged_files_keep_what_is_before_the_damage() {
    let dir = Dir::new("damage");
    let path = dir.path().join("s.db");
    let whole = small_file(&path);
    let starts: Vec<usize> =
        whole.windows(11).enumerate().filter(|(_, w)| w == b"OVSDB JSON ").map(|(i, _)| i).collect();
    assert_eq!(starts.len(), 6);
    let rows = |bytes: &[u8]| -> Option<usize> {
        std::fs::write(&path, bytes).expect("the file");
        let loaded = Database::open(&path, true, None).ok()?;
        loaded.database.table("T").map(|t| t.rows.len())
    };
    for at in 0..whole.len() {
        let record = starts.iter().rposition(|s| *s <= at).expect("the first begins at 0");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x01;
        let found = rows(&flipped);
        match record {
            0 => assert_eq!(found, None, "byte {at} of the schema is damaged"),
            n => assert!(found.is_some_and(|rows| rows >= n - 1), "byte {at}: {found:?} rows"),
        }
        let found = rows(&whole[..at]);
        match record {
            0 => assert_eq!(found, None, "cut at {at}"),
            n => assert_eq!(found, Some(n - 1), "cut at {at}"),
        }
    }
}

#[test]
fn files_that_are_no_databases() {
    let dir = Dir::new("files");
    let exe = env!("CARGO_BIN_EXE_ironbridge");
    let sock = dir.file("x.sock");
    let server = |db: &str| {
        let mut command = Command::new(exe);
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, dir.path());
        }
        let remote = format!("--remote=punix:{sock}");
        command.args(["ovsdb-server", "--no-chdir", "--unixctl=x.ctl", &remote, "--run=true", db]);
        command.stdin(Stdio::null()).current_dir(dir.path());
        let out = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        (out.status.code(), text)
    };
    std::fs::write(dir.file("text.db"), "this is no database\n").expect("a file");
    std::fs::write(dir.file("empty.db"), "").expect("a file");
    std::fs::write(dir.file("binary.db"), [0xff; 5000]).expect("a file");
    std::fs::create_dir(dir.file("dir.db")).expect("a folder");
    for name in ["text.db", "empty.db", "binary.db", "dir.db", "none.db", "none/none.db"] {
        let (code, text) = server(&dir.file(name));
        assert_eq!(code, Some(1), "{name}: {text}");
        assert!(
            text.contains("ovsdb-server: ") || text.contains("|ERR|") || text.contains("ovsdb error"),
            "{name}: {text}"
        );
        assert!(text.contains(name), "{name}: {text}");
    }
    assert_eq!(std::fs::read(dir.file("text.db")).expect("it is still there"), b"this is no database\n");

    // A torn tail is told, cut off, and written over.
    let path = dir.path().join("torn.db");
    let whole = small_file(&path);
    std::fs::write(&path, &whole[..whole.len() - 10]).expect("a file");
    let (code, text) = server(&dir.file("torn.db"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("torn.db: error reading") && text.contains("|ERR|"), "{text}");
}

/// Each transaction that was answered is there after the server was killed in the midst of others.
#[test]
fn thirty_sudden_ends() {
    const ROUNDS: u32 = 30;
    let d = Daemons::start(DUMMIES);
    d.kill("ovs-vswitchd", "-15");
    let sock = d.dir.path().join("db.sock");
    let mut answered: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            d.start_database();
        }
        let mut s = UnixStream::connect(&sock).expect("a server");
        s.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut writer = s.try_clone().expect("another handle");
        let sender = std::thread::spawn(move || {
            for i in 0.. {
                let text = format!(
                    r#"{{"method":"transact","params":["Open_vSwitch",{{"op":"mutate","table":"Open_vSwitch","where":[],"mutations":[["external_ids","insert",["map",[["r{round}-{i}","x"]]]]]}}],"id":"r{round}-{i}"}}"#
                );
                if writer.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let pid = d.pid("ovsdb-server").expect("a pidfile").to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20 + u64::from(round) * 3));
            support::try_sh(&format!("kill -9 {pid}"));
        });
        let mut parser = Parser::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n) = s.read(&mut buffer) {
            if n == 0 {
                break;
            }
            parser.feed(&buffer[..n]);
            while let Ok(Some(json)) = parser.next_value() {
                let Some(o) = json.as_object() else { continue };
                let ok = o.get("error").is_some_and(|e| *e == Json::Null);
                if let (true, Some(id)) = (ok, o.get("id").and_then(Json::as_str)) {
                    answered.push(id.to_owned());
                }
            }
        }
        killer.join().expect("the killer");
        sender.join().expect("the sender");
    }
    assert!(answered.len() > 100, "only {} answers in {ROUNDS} rounds", answered.len());
    d.start_database();
    let ids = d.run("ovs-vsctl --no-wait get Open_vSwitch . external_ids");
    let lost: Vec<&String> = answered.iter().filter(|id| !ids.contains(&format!("{id}=x"))).collect();
    assert!(lost.is_empty(), "{} of {} answered transactions are lost: {lost:?}", lost.len(), answered.len());
}
