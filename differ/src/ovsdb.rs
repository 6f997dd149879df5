//! Random databases: a schema, transactions and monitors from a seed, on both servers, and what they answer.
//!
//! A [`Case`] is text with placeholders: `@N@` is the UUID of the N-th row that both servers have told of, whatever it is there. Answers and
//! updates are compared whole, errors' details included, after UUIDs have become placeholders and what has no order has been
//! sorted. A difference is shrunk to few transactions.

use ib_base::json::Json;
use ib_base::rng::Rng;

use crate::wire::{Names, Session};
use crate::{Difference, World};

/// A schema, what is monitored, and transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The database's name.
    pub name: String,
    /// Its schema.
    pub schema: String,
    /// Requests of the session that watches, method and parameters, before the transactions.
    pub monitors: Vec<(String, String)>,
    /// Requests in turn: each a method and its parameters. Changes of conditions go to the session that watches.
    pub requests: Vec<(String, String)>,
}

#[derive(Clone)]
struct Column {
    name: String,
    key: &'static str,
    value: Option<&'static str>,
    target: Option<usize>,
    many: bool,
}

struct Gen {
    rng: Rng,
    /// Columns by table.
    tables: Vec<Vec<Column>>,
    /// How many rows may have been made.
    rows: u64,
}

const ATOMS: [&str; 5] = ["integer", "real", "boolean", "string", "uuid"];

impl Gen {
    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        // Lists are short.
        list[self.below(list.len() as u64) as usize]
    }

    fn base(&mut self, kind: &'static str, tables: usize, column: &mut Column) -> String {
        let mut more = String::new();
        match kind {
            "integer" if self.chance(30) => {
                more = self
                    .pick(&[r#","minInteger":0"#, r#","maxInteger":5"#, r#","enum":["set",[1,2,3]]"#])
                    .into();
            }
            "real" if self.chance(20) => more = r#","minReal":-1.5,"maxReal":100"#.into(),
            "string" if self.chance(30) => {
                more = self
                    .pick(&[r#","maxLength":3"#, r#","minLength":1"#, r#","enum":["set",["a","b"]]"#])
                    .into();
            }
            "uuid" if self.chance(75) => {
                // An index into the tables.
                let target = self.below(tables as u64) as usize;
                column.target = Some(target);
                let strength = self.pick(&["strong", "weak"]);
                more = format!(r#","refTable":"T{target}","refType":"{strength}""#);
            }
            _ => {}
        }
        format!(r#"{{"type":"{kind}"{more}}}"#)
    }

    fn schema(&mut self, name: &str) -> String {
        let n = 2 + self.below(2) as usize;
        let mut out = Vec::new();
        for t in 0..n {
            let mut columns = Vec::new();
            let mut texts = Vec::new();
            let indexed = self.chance(30);
            for c in 0..2 + self.below(5) {
                let key = self.pick(&ATOMS);
                let mut column =
                    Column { name: format!("c{c}"), key, value: None, target: None, many: false };
                let mut kind = format!(r#""key":{}"#, self.base(key, n, &mut column));
                if self.chance(25) {
                    let value = self.pick(&ATOMS);
                    column.value = Some(value);
                    let mut other = column.clone();
                    kind += &format!(r#","value":{}"#, self.base(value, n, &mut other));
                }
                let bounds = self.pick(&[
                    "",
                    "",
                    r#","min":0"#,
                    r#","min":0,"max":"unlimited""#,
                    r#","max":3"#,
                    r#","min":0,"max":2"#,
                ]);
                column.many = !bounds.is_empty();
                let flags = match indexed && c < 2 && self.chance(95) {
                    true => "",
                    false => self.pick(&["", "", "", r#","mutable":false"#, r#","ephemeral":true"#]),
                };
                texts.push(format!(r#""{}":{{"type":{{{kind}{bounds}}}{flags}}}"#, column.name));
                columns.push(column);
            }
            let root = if self.chance(60) { r#","isRoot":true"# } else { "" };
            let rows = if self.chance(10) { r#","maxRows":3"# } else { "" };
            let index = if indexed { r#","indexes":[["c0","c1"]]"# } else { "" };
            out.push(format!(r#""T{t}":{{"columns":{{{}}}{root}{rows}{index}}}"#, texts.join(",")));
            self.tables.push(columns);
        }
        format!(r#"{{"name":"{name}","version":"1.0.0","tables":{{{}}}}}"#, out.join(","))
    }

    fn atom(&mut self, kind: &str) -> String {
        if self.chance(3) {
            return self.pick(&["null", "1", "\"x\"", "[]", "{}", "true", "[\"uuid\",\"x\"]"]).into();
        }
        match kind {
            "integer" => {
                self.pick(&["0", "1", "2", "3", "-7", "5", "9223372036854775807", "1.0", "1e3"]).into()
            }
            "real" => self.pick(&["0", "1.5", "-2.25", "3", "1e10", "0.1"]).into(),
            "boolean" => self.pick(&["true", "false"]).into(),
            "string" => {
                self.pick(&["\"\"", "\"a\"", "\"b\"", "\"abc\"", "\"abcd\"", "\"\\u00e9\\n\""]).into()
            }
            _ => match self.below(10) {
                0 => r#"["uuid","00000000-0000-0000-0000-000000000000"]"#.into(),
                1 => r#"["named-uuid","new"]"#.into(),
                2 => r#"["named-uuid","lost"]"#.into(),
                _ => format!(r#"["uuid","@{}@"]"#, self.rows.saturating_sub(1 + self.rng.below(6))),
            },
        }
    }

    fn elements(&mut self, column: &Column) -> String {
        let n = self.below(4);
        let mut all = Vec::new();
        for _ in 0..n {
            let key = self.atom(column.key);
            all.push(match column.value {
                Some(value) => format!("[{key},{}]", self.atom(value)),
                None => key,
            });
        }
        format!("[{}]", all.join(","))
    }

    fn datum(&mut self, column: &Column) -> String {
        if self.chance(3) {
            return self.pick(&["null", "[\"set\",1]", "[\"map\",[[1]]]", "[\"set\",[]]", "{}"]).into();
        }
        match column.value {
            Some(_) => format!(r#"["map",{}]"#, self.elements(column)),
            None if column.many && self.chance(60) => format!(r#"["set",{}]"#, self.elements(column)),
            None => self.atom(column.key),
        }
    }

    fn column(&mut self, t: usize) -> Column {
        if self.chance(3) {
            let name = self.pick(&["nosuch", "_version", ""]).to_string();
            return Column { name, key: "string", value: None, target: None, many: false };
        }
        if self.chance(12) {
            return Column { name: "_uuid".into(), key: "uuid", value: None, target: None, many: false };
        }
        let i = self.below(self.tables[t].len() as u64) as usize;
        self.tables[t][i].clone()
    }

    fn row(&mut self, t: usize, share: u64) -> String {
        let mut members = Vec::new();
        for column in self.tables[t].clone() {
            if self.chance(share) {
                members.push(format!(r#""{}":{}"#, column.name, self.datum(&column)));
            }
        }
        if self.chance(3) {
            let column = self.column(t);
            let member = format!(r#""{}":{}"#, column.name, self.datum(&column));
            if !members.iter().any(|m| m.starts_with(&format!("\"{}\"", column.name))) {
                members.push(member);
            }
        }
        format!("{{{}}}", members.join(","))
    }

    fn conditions(&mut self, t: usize) -> String {
        let mut all = Vec::new();
        for _ in 0..self.pick(&[0, 0, 1, 1, 1, 2]) {
            if self.chance(4) {
                all.push(self.pick(&["true", "false", "[]", "[\"c0\",\"==\"]", "3"]).to_string());
                continue;
            }
            let column = self.column(t);
            let function =
                self.pick(&["==", "==", "==", "!=", "<", "<=", ">", ">=", "includes", "excludes", "=~"]);
            all.push(format!(r#"["{}","{function}",{}]"#, column.name, self.datum(&column)));
        }
        format!("[{}]", all.join(","))
    }

    fn mutations(&mut self, t: usize) -> String {
        let mut all = Vec::new();
        for _ in 0..1 + self.below(2) {
            let column = self.column(t);
            let mutator =
                self.pick(&["+=", "-=", "*=", "/=", "%=", "insert", "insert", "delete", "delete", "x"]);
            let argument = match mutator {
                "insert" | "delete" if column.value.is_none() || self.chance(30) => {
                    let keys = Column { value: None, ..column.clone() };
                    format!(r#"["set",{}]"#, self.elements(&keys))
                }
                "insert" | "delete" => self.datum(&column),
                _ => self.atom(column.key),
            };
            all.push(format!(r#"["{}","{mutator}",{argument}]"#, column.name));
        }
        format!("[{}]", all.join(","))
    }

    fn column_list(&mut self, t: usize) -> String {
        let names: Vec<String> = (0..self.below(3)).map(|_| format!("\"{}\"", self.column(t).name)).collect();
        format!("[{}]", names.join(","))
    }

    fn operation(&mut self) -> String {
        let t = self.below(self.tables.len() as u64) as usize;
        let table = if self.chance(2) { "Nosuch".to_string() } else { format!("T{t}") };
        let op = self.pick(&[
            "insert", "insert", "insert", "insert", "select", "update", "update", "mutate", "mutate",
            "delete", "wait", "comment", "abort", "assert", "commit", "bogus",
        ]);
        if matches!(op, "abort" | "bogus") && self.chance(70) {
            return self.operation();
        }
        let mut members = vec![format!(r#""op":"{op}""#)];
        match op {
            "insert" => {
                // A row that calls itself a row of another table: Open vSwitch takes it, and is left with a dangling reference.
                let row = self.row(t, 70).replace(r#""new""#, r#""lost""#);
                members.push(format!(r#""table":"{table}","row":{row}"#));
                if self.chance(40) {
                    members.push(r#""uuid-name":"new""#.into());
                }
                self.rows += 1;
            }
            "select" => {
                members.push(format!(r#""table":"{table}","where":{}"#, self.conditions(t)));
                if self.chance(50) {
                    members.push(format!(r#""columns":{}"#, self.column_list(t)));
                }
            }
            "update" => {
                let place = self.conditions(t);
                members.push(format!(r#""table":"{table}","where":{place},"row":{}"#, self.row(t, 40)));
            }
            "mutate" => {
                let place = self.conditions(t);
                let mutations = self.mutations(t);
                members.push(format!(r#""table":"{table}","where":{place},"mutations":{mutations}"#));
            }
            "delete" => members.push(format!(r#""table":"{table}","where":{}"#, self.conditions(t))),
            "wait" => {
                let columns = if self.chance(80) { "[\"c0\"]".into() } else { self.column_list(t) };
                let until = self.pick(&["==", "!=", "!=", "<"]);
                members.push(format!(
                    r#""table":"{table}","where":{},"columns":{columns},"until":"{until}","rows":[{}],"timeout":0"#,
                    self.conditions(t),
                    self.row(t, 40)
                ));
            }
            "comment" => members.push(r#""comment":"why""#.into()),
            "assert" => members.push(r#""lock":"l""#.into()),
            "commit" => members.push(r#""durable":false"#.into()),
            _ => {}
        }
        if self.chance(2) {
            members.push(r#""extra":1"#.into());
        }
        if self.chance(2) {
            members.remove(0);
        }
        format!("{{{}}}", members.join(","))
    }

    fn select(&mut self) -> String {
        let mut flags = Vec::new();
        for flag in ["initial", "insert", "delete", "modify"] {
            if self.chance(25) {
                flags.push(format!(r#""{flag}":{}"#, self.pick(&["true", "false"])));
            }
        }
        format!("{{{}}}", flags.join(","))
    }

    fn requests_of_monitor(&mut self, conditional: bool) -> String {
        let mut tables = Vec::new();
        for t in 0..self.tables.len() {
            if !self.chance(75) {
                continue;
            }
            let mut members = Vec::new();
            if self.chance(60) {
                members.push(format!(r#""columns":{}"#, self.column_list(t)));
            }
            if self.chance(30) {
                members.push(format!(r#""select":{}"#, self.select()));
            }
            if conditional && self.chance(70) {
                members.push(format!(r#""where":{}"#, self.conditions(t)));
            }
            tables.push(format!(r#""T{t}":[{{{}}}]"#, members.join(",")));
        }
        format!("{{{}}}", tables.join(","))
    }

    /// For one table: where one of several is bad, Open vSwitch changes those that its hash table has before it.
    fn new_conditions(&mut self) -> String {
        let t = self.below(self.tables.len() as u64) as usize;
        format!(r#"{{"T{t}":[{{"where":{}}}]}}"#, self.conditions(t))
    }
}

impl Case {
    /// The case of a seed.
    pub fn generate(seed: u64) -> Case {
        let mut g = Gen { rng: Rng::new(seed), tables: Vec::new(), rows: 0 };
        let name = format!("Random{seed}");
        let schema = g.schema(&name);
        let mut monitors = Vec::new();
        for (id, method) in ["monitor", "monitor_cond", "monitor_cond_since"].into_iter().enumerate() {
            let requests = g.requests_of_monitor(method != "monitor");
            let since = if method == "monitor_cond_since" {
                r#","00000000-0000-0000-0000-000000000000""#
            } else {
                ""
            };
            monitors.push((method.to_string(), format!(r#"["{name}",{id},{requests}{since}]"#)));
        }
        let mut requests = Vec::new();
        for _ in 0..40 {
            if g.chance(8) {
                let id = 1 + g.below(2);
                let conditions = g.new_conditions();
                requests.push(("monitor_cond_change".to_string(), format!("[{id},{id},{conditions}]")));
                continue;
            }
            let operations: Vec<String> = (0..1 + g.below(4)).map(|_| g.operation()).collect();
            requests.push(("transact".to_string(), format!(r#"["{name}",{}]"#, operations.join(","))));
        }
        Case { name, schema, monitors, requests }
    }
}

/// One server under one case.
struct Side {
    client: Session,
    watcher: Session,
    names: Names,
}

impl Side {
    fn new(world: &World, case: &Case) -> Result<Side, String> {
        let file = world.path(&format!("{}.db", case.name));
        world.ok(&format!("ovs-appctl -t ovsdb-server ovsdb-server/add-db {file}"))?;
        let (client, watcher) = (Session::open(world)?, Session::open(world)?);
        Ok(Side { client, watcher, names: Names::default() })
    }

    /// Sends one request; what came of it, in lines.
    fn step(&mut self, method: &str, params: &str) -> Result<String, String> {
        let params = self.names.fill(params);
        let watches = method.starts_with("monitor");
        let session = if watches { &mut self.watcher } else { &mut self.client };
        let (reply, mut news) = session.call(method, &params).map_err(|(_, e)| e)?;
        self.names.learn_rows(&reply);
        let mut out = format!("{}\n", self.names.normal(&reply));
        // An update comes before the answer to what is asked in the next turn of the server's loop.
        for _ in 0..2 {
            news.extend(self.watcher.call("echo", "[]").map_err(|(_, e)| e)?.1);
        }
        let mut lines: Vec<String> = news.iter().map(|message| self.names.normal(message)).collect();
        // Monitors of one session have no order among them.
        lines.sort();
        out.extend(lines.iter().map(|line| format!("  {line}\n")));
        Ok(out)
    }
}

/// Makes the file of a case; what the tool says of its schema.
fn create(world: &World, case: &Case) -> Result<String, String> {
    let schema = world.path("random.ovsschema");
    std::fs::write(&schema, &case.schema).map_err(|e| e.to_string())?;
    let file = world.path(&format!("{}.db", case.name));
    // The last run of the same case may have left it.
    let _ = world.sh(&format!("ovs-appctl -t ovsdb-server ovsdb-server/remove-db {}", case.name), "");
    let _ = std::fs::remove_file(&file);
    let out = world.sh(&format!("ovsdb-tool create {file} {schema}"), "");
    Ok(format!("{}{}", out.stdout, out.stderr).replace(&world.path(""), ""))
}

/// True if both refuse the whole in the same way at its end, where several rows or columns may be wrong and each server names
/// one: Open vSwitch goes by its hash tables, which hold rows by their random identifiers.
fn differs_by_choice(params: &str, theirs: &str, ours: &str) -> bool {
    let operations = Json::parse(params).ok().and_then(|p| p.as_array().map(|p| p.len() - 1));
    let failed = |answer: &str| {
        let reply = Json::parse(answer.lines().next()?).ok()?;
        let results = reply.get("result")?.as_array()?;
        let last = results.last().filter(|_| Some(results.len() - 1) == operations)?;
        let error = last.get("error")?.as_str()?.to_string();
        (answer.lines().count() == 1).then_some((error, results.len()))
    };
    failed(theirs).is_some_and(|theirs| Some(theirs) == failed(ours))
}

/// Runs a case on both; the first difference.
fn run(theirs: &World, ours: &World, case: &Case) -> Result<Option<(usize, Difference)>, String> {
    let (x, y) = (create(theirs, case)?, create(ours, case)?);
    if x != y {
        let command = format!("ovsdb-tool create: {}", case.schema);
        return Ok(Some((0, Difference { command, theirs: x, ours: y })));
    }
    if !x.is_empty() {
        return Ok(None);
    }
    let mut a = Side::new(theirs, case)?;
    let mut b = Side::new(ours, case)?;
    for (i, (method, params)) in case.monitors.iter().chain(&case.requests).enumerate() {
        let x = a.step(method, params).map_err(|e| format!("Open vSwitch: {e}: {method} {params}"))?;
        let y = b.step(method, params).map_err(|e| format!("Ironbridge: {e}: {method} {params}"))?;
        if x != y && !differs_by_choice(params, &x, &y) {
            let command = format!("{method} {params}");
            return Ok(Some((i, Difference { command, theirs: x, ours: y })));
        }
    }
    // What each server has written, both tools read alike.
    let file = |world: &World| world.path(&format!("{}.db", case.name));
    for written in [theirs, ours] {
        for command in ["db-name", "db-version", "db-cksum", "show-log"] {
            let read = |reader: &World| {
                let out = reader.run(&["ovsdb-tool".into(), command.into(), file(written)], "");
                format!("{}{}exit {}\n", out.stdout, out.stderr, out.code)
            };
            let (x, y) = (read(theirs), read(ours));
            if x != y {
                let command = format!("ovsdb-tool {command}");
                return Ok(Some((usize::MAX, Difference { command, theirs: x, ours: y })));
            }
        }
    }
    Ok(None)
}

/// Compares a case; a difference comes with the least requests that show it.
pub fn compare(theirs: &World, ours: &World, case: &Case) -> Result<Option<String>, String> {
    let Some((at, mut found)) = run(theirs, ours, case)? else { return Ok(None) };
    let mut small = case.clone();
    small.requests.truncate(at.saturating_sub(case.monitors.len()).saturating_add(1));
    // From the last to the first, so that what a request builds on is tried after it.
    for i in (0..small.requests.len().saturating_sub(1)).rev() {
        let mut fewer = small.clone();
        fewer.requests.remove(i);
        if let Ok(Some((_, difference))) = run(theirs, ours, &fewer) {
            small = fewer;
            found = difference;
        }
    }
    for i in (0..small.monitors.len()).rev() {
        let mut fewer = small.clone();
        fewer.monitors.remove(i);
        if let Ok(Some((_, difference))) = run(theirs, ours, &fewer) {
            small = fewer;
            found = difference;
        }
    }
    let mut out = format!("schema {}\n", small.schema);
    for (method, params) in small.monitors.iter().chain(&small.requests) {
        out.push_str(&format!("{method} {params}\n"));
    }
    Ok(Some(format!("{out}{found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_case() {
        assert_eq!(Case::generate(3), Case::generate(3));
        assert_ne!(Case::generate(3).schema, Case::generate(4).schema);
        for seed in 0..50 {
            let case = Case::generate(seed);
            let texts = case.monitors.iter().chain(&case.requests).map(|(_, params)| params);
            for text in texts.chain([&case.schema]) {
                assert!(Json::parse(text).is_ok(), "{text}");
            }
        }
    }
}
