//! The database alone: from the text of requests to the text of answers and updates, without sockets.
//!
//! `cargo bench -p ib-ovsdb` prints microseconds of processor time a transaction, and bytes of memory a row. An argument selects scenarios by
//! substring.

use ib_base::json::Json;
use ib_ovsdb::Schema;
use ib_ovsdb::database::Database;
use ib_ovsdb::server::{Action, Now, Server, SessionId};
use std::fmt::Write as _;

const SCHEMA: &str = r#"{"name":"Bench","version":"1.0.0","tables":{"Port":{"isRoot":true,"columns":{
"name":{"type":"string"},"num":{"type":"integer"},
"options":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
"tags":{"type":{"key":"string","min":0,"max":"unlimited"}}},"indexes":[["name"]]}}}"#;
/// Transactions between two looks at what is to be sent.
const BATCH: usize = 32;
const ROWS: usize = 50_000;

/// Processor time of this thread, microseconds: the machine may be busy with something else, too.
fn cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

fn rss_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

struct Bench {
    server: Server,
    client: SessionId,
    bytes: usize,
}

impl Bench {
    fn new() -> Bench {
        let mut server = Server::new();
        let schema = Schema::parse(SCHEMA).expect("our own schema");
        let path = std::env::temp_dir().join(format!("ironbridge-bench-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let database = Database::create(&path, schema, None).expect("a file");
        // It stays until it is closed.
        let _ = std::fs::remove_file(&path);
        server.add_database(database, Now::default()).expect("the first of its name");
        let client = server.open_session(false);
        Bench { server, client, bytes: 0 }
    }

    fn send(&mut self) {
        for action in self.server.take_actions() {
            if let Action::Send(to, text) = action {
                self.bytes += text.len();
                assert!(!text.contains("\"details\""), "{text}");
                self.server.drained(to);
            }
        }
    }

    fn request(&mut self, id: SessionId, text: &str) {
        let message = Json::parse(text).expect("our own request");
        self.server.receive(id, message, Now::default());
    }

    fn load(&mut self, name: &str, n: usize, make: impl Fn(usize) -> String) {
        let requests: Vec<String> = (0..n).map(make).collect();
        let start = cpu_us();
        for chunk in requests.chunks(BATCH) {
            for request in chunk {
                self.request(self.client, request);
            }
            self.send();
        }
        println!("{name:<28} {:8.2} us", (cpu_us() - start) / n as f64);
    }

    fn insert(&mut self, name: &str, base: usize, n: usize) {
        self.load(name, n, |i| {
            let i = base + i;
            let (a, b, c) = (i >> 16 & 255, i >> 8 & 255, i & 255);
            format!(
                r#"{{"method":"transact","params":["Bench",{{"op":"insert","table":"Port","row":{{"name":"p{i}","num":{i},"options":["map",[["mac","02:00:00:{a:02x}:{b:02x}:{c:02x}"],["ip","10.{a}.{b}.{c}"]]]}}}}],"id":{i}}}"#
            )
        });
    }

    fn update(&mut self, name: &str, n: usize) {
        self.load(name, n, |i| {
            let row = i.wrapping_mul(7919) % 1000;
            format!(
                r#"{{"method":"transact","params":["Bench",{{"op":"update","table":"Port","where":[["name","==","p{row}"]],"row":{{"num":{}}}}}],"id":{i}}}"#,
                i + 1_000_000
            )
        });
    }

    fn monitors(&mut self, n: usize, condition: impl Fn(usize) -> String) -> Vec<SessionId> {
        (0..n)
            .map(|i| {
                let id = self.server.open_session(false);
                let request = format!(
                    r#"{{"method":"monitor_cond","params":["Bench",null,{{"Port":[{{"columns":["name","num","options"]{}}}]}}],"id":1}}"#,
                    condition(i)
                );
                self.request(id, &request);
                self.send();
                id
            })
            .collect()
    }

    fn leave(&mut self, ids: Vec<SessionId>) {
        ids.into_iter().for_each(|id| self.server.close_session(id));
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let wanted = |name: &str| name.contains(&filter);
    let mut bench = Bench::new();
    let before = rss_bytes();
    bench.insert("insert", 0, ROWS);
    println!("{:<28} {:8.0} bytes", "memory a row", (rss_bytes() - before) / ROWS as f64);
    if wanted("update") {
        bench.update("update", 50_000);
    }
    if wanted("select") {
        bench.load("select", 50_000, |i| {
            let row = i.wrapping_mul(7919) % 1000;
            format!(
                r#"{{"method":"transact","params":["Bench",{{"op":"select","table":"Port","where":[["name","==","p{row}"]]}}],"id":{i}}}"#
            )
        });
    }
    for n in [10, 200] {
        let name = format!("update, {n} monitors");
        if wanted(&name) {
            let ids = bench.monitors(n, |_| String::new());
            bench.update(&name, 10_000);
            bench.leave(ids);
        }
    }
    let name = "update, 200 conditions";
    if wanted(name) {
        let ids = bench.monitors(200, |i| format!(r#","where":[["name","==","p{i}"]]"#));
        bench.update(name, 10_000);
        bench.leave(ids);
    }
    let name = "update, 1000-clause condition";
    if wanted(name) {
        let mut clauses = String::new();
        for i in 0..1000 {
            let _ = write!(clauses, "{}[\"name\",\"==\",\"p{}\"]", if i > 0 { "," } else { "" }, i * 3);
        }
        let ids = bench.monitors(1, |_| format!(r#","where":[{clauses}]"#));
        bench.update(name, 20_000);
        let change = |extra: usize| {
            format!(
                r#"{{"method":"monitor_cond_change","params":[null,null,{{"Port":[{{"where":[{clauses},["name","==","p{extra}"]]}}]}}],"id":1}}"#
            )
        };
        let start = cpu_us();
        for i in 0..100 {
            bench.request(ids[0], &change(i));
            bench.send();
        }
        println!("{:<28} {:8.2} us", "change of 1000 clauses", (cpu_us() - start) / 100.0);
        bench.leave(ids);
    }
}
