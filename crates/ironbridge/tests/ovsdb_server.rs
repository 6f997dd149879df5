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
