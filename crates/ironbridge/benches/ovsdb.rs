//! The database server over its socket, beside the original where that is installed.
//!
//! `cargo bench -p ironbridge --bench ovsdb` starts a server, loads it through a UNIX socket, and prints for each scenario transactions a
//! second and microseconds of the server's processor time a transaction; then the same for Open vSwitch's `ovsdb-server`, and the
//! ratio. Only ratios of one run mean anything: machines and their load differ. An argument selects scenarios by substring.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SCHEMA: &str = r#"{"name":"Bench","version":"1.0.0","tables":{"Port":{"isRoot":true,"columns":{
"name":{"type":"string"},"num":{"type":"integer"},
"options":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
"tags":{"type":{"key":"string","min":0,"max":"unlimited"}}},"indexes":[["name"]]}}}"#;
/// Where Debian keeps the original.
const ORIGINAL: &str = "/usr/sbin/ovsdb-server";
const ORIGINAL_TOOL: &str = "/usr/bin/ovsdb-tool";
/// Rows that are there while updates are measured: the original looks at all of them each time.
const ROWS: usize = 1000;

struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts a server in a directory of its own. `program` and `first` say how it and its tool are called.
    fn start(name: &str, server: &[&str], tool: &[&str]) -> Daemon {
        let dir = std::env::temp_dir().join(format!("ironbridge-bench-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = |name: &str| dir.join(name).display().to_string();
        std::fs::write(path("schema"), SCHEMA).expect("a schema file");
        let created =
            Command::new(tool[0]).args(&tool[1..]).args(["create", &path("db"), &path("schema")]).status();
        assert!(created.is_ok_and(|s| s.success()), "{tool:?}");
        let mut command = Command::new(server[0]);
        command.args(&server[1..]).arg(format!("--remote=punix:{}", path("sock")));
        command.arg(format!("--unixctl={}", path("ctl"))).arg(path("db"));
        for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(name, &dir);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
        Daemon { child, dir }
    }

    fn connect(&self) -> Client {
        let path = self.dir.join("sock");
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return Client { stream, buf: vec![0; 1 << 16], scan: Scan::default() },
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processor time of all threads, microseconds.
    fn cpu_us(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("/proc");
        let ns = |path: &Path| {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        };
        tasks.flatten().filter_map(|t| ns(&t.path())).sum::<f64>() / 1000.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Counts complete JSON values.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escape: bool,
}

impl Scan {
    fn count(&mut self, bytes: &[u8]) -> usize {
        let mut whole = 0;
        for b in bytes {
            match b {
                _ if self.escape => self.escape = false,
                b'\\' => self.escape = self.in_string,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    whole += usize::from(self.depth == 0);
                }
                _ => {}
            }
        }
        whole
    }
}

struct Client {
    stream: UnixStream,
    buf: Vec<u8>,
    scan: Scan,
}

impl Client {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("a server that reads");
    }

    /// Waits for at least one answer; how many came.
    fn answers(&mut self) -> usize {
        loop {
            let n = self.stream.read(&mut self.buf).expect("a server that answers");
            assert!(n > 0, "the server closed the connection");
            assert!(!self.buf[..n].windows(9).any(|w| w == b"\"details\""), "a request failed");
            match self.scan.count(&self.buf[..n]) {
                0 => {}
                whole => return whole,
            }
        }
    }
}

/// Clients that monitor the table and read what they are told.
struct Monitors {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Monitors {
    fn start(daemon: &Daemon, n: usize) -> Monitors {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients: Vec<Client> = (0..n).map(|_| daemon.connect()).collect();
        for client in &mut clients {
            client.send(r#"{"method":"monitor_cond","params":["Bench",null,{"Port":[{"columns":["name","num","options"]}]}],"id":1}"#);
            client.answers();
            client.stream.set_nonblocking(true).expect("a socket");
        }
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buf = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                let mut idle = true;
                for client in &mut clients {
                    // A socket that has nothing is asked again in the next round.
                    idle &= client.stream.read(&mut buf).is_err();
                }
                if idle {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        });
        Monitors { stop, threads: vec![thread] }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|t| drop(t.join()));
    }
}

fn insert(i: usize) -> String {
    format!(
        r#"{{"method":"transact","params":["Bench",{{"op":"insert","table":"Port","row":{{"name":"p{i}","num":{i},"options":["map",[["mac","02:00:00:00:00:01"],["ip","10.0.0.1"]]]}}}}],"id":{i}}}"#
    )
}

fn update(i: usize) -> String {
    let row = i.wrapping_mul(7919) % ROWS;
    format!(
        r#"{{"method":"transact","params":["Bench",{{"op":"update","table":"Port","where":[["name","==","p{row}"]],"row":{{"num":{}}}}}],"id":{i}}}"#,
        i + 1_000_000
    )
}

/// Keeps `depth` requests under way for a while. Transactions a second, and processor time of each in microseconds.
fn load(daemon: &Daemon, depth: usize, base: usize, make: impl Fn(usize) -> String) -> (f64, f64) {
    const MEASURE: Duration = Duration::from_millis(1500);
    let mut client = daemon.connect();
    let (start, cpu) = (Instant::now(), daemon.cpu_us());
    let (mut sent, mut answered) = (0, 0);
    while start.elapsed() < MEASURE {
        while sent - answered < depth {
            client.send(&make(base + sent));
            sent += 1;
        }
        answered += client.answers();
    }
    while answered < sent {
        answered += client.answers();
    }
    (answered as f64 / start.elapsed().as_secs_f64(), (daemon.cpu_us() - cpu) / answered as f64)
}

type Figures = Vec<(String, f64, f64)>;

fn measure(daemon: &Daemon, filter: &str) -> Figures {
    let mut figures = Figures::new();
    let mut note = |name: &str, run: &mut dyn FnMut() -> (f64, f64)| {
        if name.contains(filter) {
            let (per_s, us) = run();
            figures.push((name.to_string(), per_s, us));
        }
    };
    let mut client = daemon.connect();
    for i in 0..ROWS {
        client.send(&insert(i));
        client.answers();
    }
    for (name, depth) in [("update, one by one", 1), ("update, 50 under way", 50)] {
        note(name, &mut || load(daemon, depth, 0, update));
    }
    for n in [10, 200] {
        note(&format!("update, {n} monitors"), &mut || {
            let monitors = Monitors::start(daemon, n);
            let figures = load(daemon, 20, 0, update);
            monitors.end();
            figures
        });
    }
    for (name, depth, base) in [("insert, one by one", 1, 1 << 24), ("insert, 50 under way", 50, 2 << 24)] {
        note(name, &mut || load(daemon, depth, base, insert));
    }
    figures
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let ironbridge = env!("CARGO_BIN_EXE_ironbridge");
    let ours =
        measure(&Daemon::start("ours", &[ironbridge, "ovsdb-server"], &[ironbridge, "ovsdb-tool"]), &filter);
    let original = Path::new(ORIGINAL)
        .exists()
        .then(|| measure(&Daemon::start("original", &[ORIGINAL], &[ORIGINAL_TOOL]), &filter));
    for (i, (name, per_s, us)) in ours.iter().enumerate() {
        print!("{name:<24} {per_s:>9.0} a second {us:>8.1} us");
        match original.as_ref().and_then(|o| o.get(i)) {
            Some((_, per_s_there, us_there)) => {
                println!(
                    "   original {per_s_there:>9.0} {us_there:>8.1} us   x{:.1}, processor time x{:.1}",
                    per_s / per_s_there,
                    us_there / us
                );
            }
            None => println!(),
        }
    }
}
