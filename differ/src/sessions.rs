//! Random sessions: several clients of one server at once, from a seed, and what each is told.
//!
//! A [`Case`] is a list of steps, each a whole JSON-RPC message of one client, the end of a connection, or a command to the control
//! socket. After each step every client asks for an echo until all that the step has caused has come, and what came is compared client
//! by client, in order: locks and their queues, transactions that wait, monitors of the three kinds and their conditions, schemas that change
//! and databases that come and go under them. Where Open vSwitch has no order (updates of several monitors of one client), lines are
//! sorted. A difference is shrunk to few steps.

use std::time::Duration;

use ib_base::json::Json;
use ib_base::rng::Rng;

use crate::wire::{Names, Session};
use crate::{Difference, World};

/// What happens at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A client sends a message. `@N@` in it is the N-th UUID that the servers have told of.
    Send(usize, String),
    /// A client hangs up, and connects again.
    HangUp(usize),
    /// A command to the server's control socket; `FILE N` is the file of database N.
    Control(String),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Send(client, text) => write!(f, "{client}> {text}"),
            Step::HangUp(client) => write!(f, "{client} hangs up"),
            Step::Control(command) => write!(f, "$ {command}"),
        }
    }
}

/// Steps of several clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The seed that it was made from.
    pub seed: u64,
    /// What happens, in turn.
    pub steps: Vec<Step>,
}

const CLIENTS: u64 = 4;
const STEPS: u64 = 45;
/// Databases of a case; the last is not served at first.
const DATABASES: u64 = 2;
/// A timeout that is waited for in the step that asks for it.
const SHORT_MS: u64 = 7;

/// The schema of database `n` in one of its variants. The later ones cannot be converted to, always or with some rows.
fn schema(seed: u64, n: u64, variant: u64) -> String {
    let name = if variant == 6 { "Other".to_string() } else { format!("S{seed}D{n}") };
    let number = match variant {
        3 => r#""string""#,
        4 => r#"{"key":{"type":"integer","maxInteger":2}}"#,
        _ => r#""integer""#,
    };
    let extra = if variant == 1 { r#","extra":{"type":"string"}"# } else { "" };
    let parts = if variant == 2 {
        ""
    } else {
        r#","parts":{"type":{"key":{"type":"uuid","refTable":"B"},"min":0,"max":"unlimited"}}"#
    };
    let b = if variant == 2 {
        ""
    } else {
        r#","B":{"columns":{"text":{"type":"string"},"of":{"type":{"key":{"type":"uuid","refTable":"A","refType":"weak"},"min":0}}}}"#
    };
    let version = if variant == 5 { "x".to_string() } else { format!("1.{variant}.0") };
    format!(
        r#"{{"name":"{name}","version":"{version}","tables":{{"A":{{"columns":{{"name":{{"type":"string"}},"n":{{"type":{number}}},"tags":{{"type":{{"key":"string","min":0,"max":"unlimited"}}}},"passing":{{"type":"integer","ephemeral":true}}{parts}{extra}}},"isRoot":true,"indexes":[["name"]]}}{b}}}}}"#
    )
}

struct Gen {
    rng: Rng,
    seed: u64,
    next_id: u64,
}

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

    fn database(&mut self) -> String {
        match self.below(40) {
            0 => "Nosuch".to_string(),
            1 => "_Server".to_string(),
            2..12 => format!("S{}D1", self.seed),
            _ => format!("S{}D0", self.seed),
        }
    }

    fn row(&mut self) -> String {
        let mut members = vec![format!(r#""name":"{}""#, self.pick(&["x", "y", "z", "u", "v"]))];
        if self.chance(70) {
            members.push(format!(r#""n":{}"#, self.pick(&["0", "1", "2", "3", "\"s\""])));
        }
        if self.chance(30) {
            members.push(format!(
                r#""tags":{}"#,
                self.pick(&[r#"["set",["a","b"]]"#, r#""a""#, r#"["set",[]]"#])
            ));
        }
        if self.chance(20) {
            members.push(format!(r#""passing":{}"#, self.below(3)));
        }
        format!("{{{}}}", members.join(","))
    }

    fn condition(&mut self) -> String {
        match self.below(16) {
            0 => "[]".into(),
            1 => "[true]".into(),
            2 => "[false]".into(),
            3 => r#"[["nosuch","==",1]]"#.into(),
            4 => r#"[["n","=="]]"#.into(),
            5 => r#"[["n","==","x"]]"#.into(),
            6 => r#"[["name","<","x"]]"#.into(),
            7 => r#"[["tags","includes","a"]]"#.into(),
            8 => format!(r#"[["_uuid","==",["uuid","@{}@"]]]"#, self.below(8)),
            9 | 10 => format!(r#"[["n",">=",{}],["name","!=","y"]]"#, self.below(4)),
            _ => format!(r#"[["name","==","{}"]]"#, self.pick(&["x", "y", "z", "u"])),
        }
    }

    fn wait(&mut self) -> String {
        let timeout = match self.below(10) {
            0..2 => r#","timeout":0"#.to_string(),
            2..5 => format!(r#","timeout":{SHORT_MS}"#),
            5 => r#","timeout":-1"#.to_string(),
            6 => String::new(),
            _ => r#","timeout":1000000"#.to_string(),
        };
        let (until, name) = (self.pick(&["==", "==", "!="]), self.pick(&["x", "y", "z"]));
        let rows = match self.below(3) {
            0 => String::new(),
            1 => r#"{"n":1}"#.to_string(),
            _ => format!(r#"{{"n":{}}}"#, self.below(4)),
        };
        format!(
            r#"{{"op":"wait","table":"A","where":[["name","==","{name}"]],"columns":["n"],"until":"{until}","rows":[{rows}]{timeout}}}"#
        )
    }

    fn operation(&mut self) -> String {
        match self.below(20) {
            0..7 => format!(r#"{{"op":"insert","table":"A","row":{}}}"#, self.row()),
            7..9 => {
                let n = self.below(4);
                format!(r#"{{"op":"update","table":"A","where":{},"row":{{"n":{n}}}}}"#, self.condition())
            }
            9..11 => format!(
                r#"{{"op":"mutate","table":"A","where":{},"mutations":[["n","+=",1]]}}"#,
                self.condition()
            ),
            11..13 => format!(r#"{{"op":"delete","table":"A","where":{}}}"#, self.condition()),
            13 => format!(r#"{{"op":"assert","lock":"l{}"}}"#, self.below(2)),
            14 => r#"{"op":"comment","comment":"c"}"#.into(),
            15 => r#"{"op":"commit","durable":false}"#.into(),
            16 if self.chance(30) => r#"{"op":"abort"}"#.into(),
            16 => r#"{"op":"insert","table":"B","row":{"text":"b"}}"#.into(),
            17 => {
                r#"{"op":"insert","table":"B","uuid-name":"b","row":{"text":"p"}},{"op":"insert","table":"A","row":{"name":"w","parts":["named-uuid","b"]}}"#
                    .into()
            }
            _ => self.wait(),
        }
    }

    fn select(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            "",
            r#""select":{"initial":false},"#,
            r#""select":{"modify":false,"delete":false},"#,
        ])
    }

    /// What a monitor is to show of one table.
    fn monitored(&mut self, conditional: bool) -> String {
        let mut member = self.select().to_string();
        if self.chance(60) {
            let columns = self.pick(&[
                r#"["name","n"]"#,
                r#"["n"]"#,
                r#"["name","n","tags","parts"]"#,
                "[]",
                r#"["nosuch"]"#,
            ]);
            member.push_str(&format!(r#""columns":{columns},"#));
        }
        if conditional && self.chance(70) {
            member.push_str(&format!(r#""where":{},"#, self.condition()));
        }
        format!("{{{}}}", member.trim_end_matches(','))
    }

    fn monitor_id(&mut self) -> String {
        self.pick(&["\"m0\"", "\"m1\"", "[\"m\",2]", "null"]).to_string()
    }

    fn monitor(&mut self) -> (&'static str, String) {
        let method = self.pick(&["monitor", "monitor_cond", "monitor_cond_since"]);
        let (database, id) = (self.database(), self.monitor_id());
        let requests = if database == "_Server" {
            let n = self.below(DATABASES);
            match method {
                "monitor" => r#"{"Database":[{"columns":["name","model","connected"]}]}"#.to_string(),
                // Without the schema: Open vSwitch's does not follow a conversion.
                _ => format!(
                    r#"{{"Database":[{{"columns":["name","model","leader"],"where":[["name","==","S{}D{n}"]]}}]}}"#,
                    self.seed
                ),
            }
        } else {
            let a = self.monitored(method != "monitor");
            match self.below(8) {
                0 => format!(r#"{{"A":[{a}],"B":[{{"columns":["text"]}}]}}"#),
                1 => format!(r#"{{"Nosuch":[{a}]}}"#),
                _ => format!(r#"{{"A":[{a}]}}"#),
            }
        };
        let since = match method {
            "monitor_cond_since" => format!(
                ",\"{}\"",
                match self.below(5) {
                    0 => "00000000-0000-0000-0000-000000000000".to_string(),
                    1 => "bogus".to_string(),
                    _ => format!("@{}@", self.below(12)),
                }
            ),
            _ => String::new(),
        };
        (method, format!(r#"["{database}",{id},{requests}{since}]"#))
    }

    fn change(&mut self) -> String {
        let (old, new) = (self.monitor_id(), self.monitor_id());
        let new = if self.chance(80) { old.clone() } else { new };
        let condition = self.condition();
        let requests = match self.below(14) {
            0 => format!(r#"{{"Nosuch":[{{"where":{condition}}}]}}"#),
            1 => format!(r#"{{"B":[{{"where":{condition}}}]}}"#),
            2 => format!(r#"{{"A":[{{"where":{condition}}}],"Nosuch":[{{"where":[]}}]}}"#),
            3 => format!(r#"{{"A":[{{"where":{condition},"columns":["n"]}}]}}"#),
            4 => format!(r#"{{"A":{{"where":{condition}}}}}"#),
            5 => format!(r#"{{"A":[{{"where":{condition},"what":1}}]}}"#),
            6 => "[]".to_string(),
            7 => format!(r#"{{"A":[{{"where":{condition}}},{{"where":[["name","==","z"]]}}]}}"#),
            8 => r#"{"A":[]}"#.to_string(),
            _ => format!(r#"{{"A":[{{"where":{condition}}}]}}"#),
        };
        format!("[{old},{new},{requests}]")
    }

    fn request(&mut self) -> (&'static str, String) {
        let lock = self.below(2);
        match self.below(100) {
            0..34 => {
                let database = self.database();
                let operations: Vec<String> = (0..1 + self.below(3)).map(|_| self.operation()).collect();
                ("transact", format!(r#"["{database}",{}]"#, operations.join(",")))
            }
            34..38 => {
                let (seed, wait, after) = (self.seed, self.wait(), self.operation());
                ("transact", format!(r#"["S{seed}D0",{wait},{after}]"#))
            }
            38..48 => (self.pick(&["lock", "lock", "steal"]), format!(r#"["l{lock}"]"#)),
            48..53 => ("unlock", format!(r#"["l{lock}"]"#)),
            53 => (self.pick(&["lock", "steal", "unlock"]), self.pick(&["[]", "[1]", r#"["a b"]"#]).into()),
            54..70 => self.monitor(),
            70..79 => ("monitor_cond_change", self.change()),
            79..83 => ("monitor_cancel", format!("[{}]", self.monitor_id())),
            83..86 => {
                ("set_db_change_aware", self.pick(&["[true]", "[true]", "[false]", "[]", "[1]"]).into())
            }
            86..92 => {
                let (n, variant) = (self.below(DATABASES), self.below(7));
                let name = self.database();
                let name = if self.chance(90) { format!("S{}D{n}", self.seed) } else { name };
                let schema = schema(self.seed, n, variant);
                (
                    "convert",
                    self.pick(&[false, false, false, false, true])
                        .then(|| format!(r#"["{name}"]"#))
                        .unwrap_or(format!(r#"["{name}",{schema}]"#)),
                )
            }
            92 => ("list_dbs", "[]".into()),
            93 => ("get_schema", format!(r#"["{}"]"#, self.database())),
            94 => ("get_server_id", "[]".into()),
            95 => ("nosuch", "[]".into()),
            _ => {
                let (n, seed) = (self.below(DATABASES), self.seed);
                (
                    "transact",
                    format!(
                        r#"["S{seed}D{n}",{{"op":"select","table":"A","where":[],"columns":["name","n","tags"]}}]"#
                    ),
                )
            }
        }
    }

    fn step(&mut self) -> Step {
        // A client's number.
        let client = self.below(CLIENTS) as usize;
        let n = self.below(DATABASES);
        match self.below(100) {
            0..4 => Step::HangUp(client),
            4..8 => Step::Control(format!("ovsdb-server/add-db FILE{n}")),
            8..11 => Step::Control(format!("ovsdb-server/remove-db S{}D{n}", self.seed)),
            11 => Step::Control(format!("ovsdb-server/compact S{}D{n}", self.seed)),
            12..14 => {
                let id = self.below(self.next_id + 1);
                Step::Send(client, format!(r#"{{"id":null,"method":"cancel","params":[{id}]}}"#))
            }
            _ => {
                // Now and then a name that is or was in use.
                let id = if self.chance(4) { self.below(self.next_id + 1) } else { self.next_id };
                self.next_id += 1;
                let (method, params) = self.request();
                Step::Send(client, format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#))
            }
        }
    }
}

impl Case {
    /// The case of a seed.
    pub fn generate(seed: u64) -> Case {
        let mut g = Gen { rng: Rng::new(seed ^ 0x5e55_1011), seed, next_id: 0 };
        let mut steps = Vec::new();
        for client in 0..CLIENTS as usize {
            if g.chance(60) {
                steps.push(Step::Send(
                    client,
                    r#"{"id":"aware","method":"set_db_change_aware","params":[true]}"#.into(),
                ));
            }
        }
        steps.extend((0..STEPS).map(|_| g.step()));
        Case { seed, steps }
    }
}

/// One server under one case.
struct Side<'a> {
    world: &'a World,
    seed: u64,
    clients: Vec<Session>,
    names: Names,
}

impl Side<'_> {
    fn new(world: &World, seed: u64) -> Result<Side<'_>, String> {
        for n in 0..DATABASES {
            let (file, text) = (world.path(&format!("S{seed}D{n}.db")), world.path("sessions.ovsschema"));
            let _ = world.sh(&format!("ovs-appctl -t ovsdb-server ovsdb-server/remove-db S{seed}D{n}"), "");
            let _ = std::fs::remove_file(&file);
            std::fs::write(&text, schema(seed, n, 0)).map_err(|e| e.to_string())?;
            world.ok(&format!("ovsdb-tool create {file} {text}"))?;
        }
        let mut side = Side { world, seed, clients: Vec::new(), names: Names::default() };
        side.control("ovsdb-server/add-db FILE0");
        for _ in 0..CLIENTS {
            side.clients.push(Session::open(world)?);
        }
        Ok(side)
    }

    fn control(&self, command: &str) -> String {
        let mut command = format!("ovs-appctl -t ovsdb-server {command}");
        for n in 0..DATABASES {
            let file = self.world.path(&format!("S{}D{n}.db", self.seed));
            command = command.replace(&format!("FILE{n}"), &file);
        }
        let out = self.world.sh(&command, "");
        format!("{}{}exit {}\n", out.stdout, out.stderr, out.code).replace(&self.world.path(""), "")
    }

    /// Takes a step; what each client is told, line by line.
    fn step(&mut self, step: &Step) -> Result<String, String> {
        let mut out = String::new();
        match step {
            Step::Send(client, text) => {
                let text = self.names.fill(text);
                // A connection that is gone shows itself when it is read from.
                let _ = self.clients[*client].send(&text);
                if text.contains(&format!(r#""timeout":{SHORT_MS}}}"#)) {
                    std::thread::sleep(Duration::from_millis(SHORT_MS + 60));
                }
            }
            Step::HangUp(client) => self.clients[*client] = Session::open(self.world)?,
            Step::Control(command) => out = self.control(command),
        }
        let mut told: Vec<Vec<Json>> = vec![Vec::new(); self.clients.len()];
        // An echo is answered in the turn of the server's loop that reads it; what a step causes may take some turns.
        for _ in 0..3 {
            for (client, told) in self.clients.iter_mut().zip(&mut told) {
                match client.call("echo", "[]") {
                    Ok((_, before)) => told.extend(before),
                    Err((before, why)) if why == "closed" => {
                        told.extend(before);
                        told.push(Json::from("closed"));
                        *client = Session::open(self.world)?;
                    }
                    Err((_, why)) => return Err(why),
                }
            }
        }
        told.iter().flatten().for_each(|message| self.names.learn_rows(message));
        for (i, told) in told.into_iter().enumerate() {
            let told: Vec<Json> = told.into_iter().map(without_choice).collect();
            let lines: Vec<String> = told.iter().map(|message| self.names.normal(message)).collect();
            for line in in_order(lines) {
                let line = without_times(&line);
                out.push_str(&format!("{i}: {}\n", without_value(without_rows(&line).unwrap_or(line))));
            }
        }
        Ok(out)
    }
}

/// The lines with neighbours sorted that have no order among them: updates, and the ends of monitors.
fn in_order(mut lines: Vec<String>) -> Vec<String> {
    let kind = |line: &String| {
        [r#""method":"update"#, r#""method":"monitor_canceled""#].iter().position(|k| line.contains(k))
    };
    for run in lines.chunk_by_mut(|a, b| kind(a).is_some() && kind(a) == kind(b)) {
        run.sort();
    }
    lines
}

/// The message with the names of databases sorted: Open vSwitch has them in the order of a hash table.
fn without_choice(mut message: Json) -> Json {
    if let Json::Object(members) = &mut message
        && let Some(Json::Array(results)) = members.get_mut("result")
        && results.iter().all(|r| r.as_str().is_some())
    {
        results.sort_by_key(Json::to_string);
    }
    message
}

/// The line without the value of the row at which a conversion failed, which may be one or another.
fn without_value(line: String) -> String {
    match line.split_once(r#""details":"expected string","error":"syntax error","syntax":""#) {
        Some((before, after)) => {
            format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line,
    }
}

/// The line without two rows of equal values: of several, either server names another two.
fn without_rows(line: &str) -> Option<String> {
    let (before, rest) = line.split_once("identical values")?;
    let (_, after) = rest.split_once("\",")?;
    Some(format!("{before}...\",{after}"))
}

/// The line without how long a transaction has waited.
fn without_times(line: &str) -> String {
    match line.split_once("timed out after ") {
        Some((before, after)) => {
            format!("{before}timed out after N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_string(),
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        for n in 0..DATABASES {
            self.control(&format!("ovsdb-server/remove-db S{}D{n}", self.seed));
        }
    }
}

/// Runs a case on both; the first difference.
fn run(theirs: &World, ours: &World, case: &Case) -> Result<Option<(usize, Difference)>, String> {
    let mut a = Side::new(theirs, case.seed)?;
    let mut b = Side::new(ours, case.seed)?;
    for (i, step) in case.steps.iter().enumerate() {
        let x = a.step(step).map_err(|e| format!("Open vSwitch: {e}: {step}"))?;
        let y = b.step(step).map_err(|e| format!("Ironbridge: {e}: {step}"))?;
        if x != y {
            return Ok(Some((i, Difference { command: step.to_string(), theirs: x, ours: y })));
        }
    }
    Ok(None)
}

/// Compares a case; a difference comes with the least steps that show it. Where Open vSwitch's server dies of a case, there is nothing to
/// compare with.
pub fn compare(theirs: &World, ours: &World, case: &Case) -> Result<Option<String>, String> {
    let (at, mut found) = match run(theirs, ours, case) {
        Ok(None) => return Ok(None),
        Ok(Some(found)) => found,
        Err(why) if why.starts_with("Open vSwitch: ") && theirs.revive()? => {
            eprintln!("seed {}: {why}", case.seed);
            return Ok(None);
        }
        Err(why) => return Err(why),
    };
    let mut small = case.clone();
    small.steps.truncate(at + 1);
    // From the last to the first, so that what a step builds on is tried after it.
    for i in (0..small.steps.len().saturating_sub(1)).rev() {
        if i + 1 >= small.steps.len() {
            continue;
        }
        let mut fewer = small.clone();
        fewer.steps.remove(i);
        let found_there = run(theirs, ours, &fewer);
        if found_there.is_err() {
            theirs.revive()?;
        }
        if let Ok(Some((at, difference))) = found_there {
            fewer.steps.truncate(at + 1);
            small = fewer;
            found = difference;
        }
    }
    let mut out = String::new();
    for step in &small.steps {
        out.push_str(&format!("{step}\n"));
    }
    Ok(Some(format!("{out}{found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_case_of_well_formed_messages() {
        assert_eq!(Case::generate(3), Case::generate(3));
        assert_ne!(Case::generate(3), Case::generate(4));
        for seed in 0..50 {
            for step in Case::generate(seed).steps {
                if let Step::Send(_, text) = step {
                    assert!(Json::parse(&text).is_ok(), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_order_is_sorted_and_nothing_else() {
        let lines = ["b", r#"{"method":"update2",2}"#, r#"{"method":"update",1}"#, "a"].map(str::to_string);
        let sorted = ["b", r#"{"method":"update",1}"#, r#"{"method":"update2",2}"#, "a"];
        assert_eq!(in_order(lines.to_vec()), sorted);
        assert_eq!(without_times("x timed out after 12 ms"), "x timed out after N ms");
    }
}
