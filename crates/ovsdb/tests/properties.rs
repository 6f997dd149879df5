//! Random transactions, and what must hold after each.
//!
//! The books that tables keep (references counted, back references, indexes) are what the rows alone say; a transaction that
//! fails leaves everything as it was; and what monitors have told their clients adds up to the content that they asked
//! for, computed here from the rows without any of the machinery of monitors.

use ib_base::json::{Json, Style};
use ib_base::rng::Rng;
use ib_ovsdb::audit::audit;
use ib_ovsdb::database::Database;
use ib_ovsdb::server::{Action, Now, Server, SessionId};
use ib_ovsdb::{Datum, Schema, TableSchema, Uuid};
use std::collections::BTreeMap;

const SCHEMA: &str = r#"{"name":"P","version":"1.0.0","tables":{
"root":{"isRoot":true,"indexes":[["name"]],"maxRows":12,"columns":{
  "name":{"type":"string"},"n":{"type":{"key":"integer","min":0}},
  "tags":{"type":{"key":"string","min":0,"max":"unlimited"}},
  "kids":{"type":{"key":{"type":"uuid","refTable":"child"},"min":0,"max":"unlimited"}},
  "likes":{"type":{"key":{"type":"uuid","refTable":"child","refType":"weak"},"min":0,"max":"unlimited"}},
  "slots":{"type":{"key":"integer","value":{"type":"uuid","refTable":"child"},"min":0,"max":"unlimited"}},
  "paths":{"type":{"key":{"type":"uuid","refTable":"root","refType":"weak"},"value":{"type":"uuid","refTable":"child"},"min":0,"max":"unlimited"}}}},
"child":{"indexes":[["v","w"]],"columns":{
  "v":{"type":"integer"},"w":{"type":"string"},"eph":{"type":"boolean","ephemeral":true},
  "up":{"type":{"key":{"type":"uuid","refTable":"root","refType":"weak"},"min":0}},
  "next":{"type":{"key":{"type":"uuid","refTable":"child"},"min":0,"max":2}}}}}}"#;

struct Random(Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.next_u64() % n as u64).unwrap()
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn name(&mut self) -> String {
        format!("n{}", self.below(8))
    }

    /// The reference to some row of a table, or to one that this transaction inserts.
    fn reference(&mut self, rows: &[Uuid]) -> String {
        if rows.is_empty() || self.below(4) == 0 {
            let name = self.of(&["c0", "c1"]);
            return format!("[\"named-uuid\",\"{name}\"]");
        }
        format!("[\"uuid\",\"{}\"]", rows[self.below(rows.len())])
    }

    fn references(&mut self, rows: &[Uuid]) -> String {
        let list: Vec<String> = (0..self.below(3)).map(|_| self.reference(rows)).collect();
        format!("[\"set\",[{}]]", list.join(","))
    }

    fn tags(&mut self) -> String {
        let mut tags: Vec<&str> = (0..self.below(4)).map(|_| self.of(&["a", "b", "c", "dd"])).collect();
        tags.sort_unstable();
        tags.dedup();
        let tags: Vec<String> = tags.iter().map(|t| format!("\"{t}\"")).collect();
        format!("[\"set\",[{}]]", tags.join(","))
    }

    fn operation(&mut self, roots: &[Uuid], children: &[Uuid]) -> String {
        let name = self.name();
        let by_name = format!("[[\"name\",\"==\",\"{name}\"]]");
        match self.below(12) {
            0 => format!(
                r#"{{"op":"insert","table":"root","row":{{"name":"{name}","n":{},"tags":{},"kids":{},"slots":["map",[[1,{}]]]}}}}"#,
                self.below(4),
                self.tags(),
                self.references(children),
                self.reference(children)
            ),
            1 => format!(
                r#"{{"op":"insert","table":"root","row":{{"name":"{name}","kids":["set",[["named-uuid","c0"]]]}}}}"#
            ),
            2 => format!(r#"{{"op":"delete","table":"root","where":{by_name}}}"#),
            3 => format!(
                r#"{{"op":"update","table":"root","where":{by_name},"row":{{"kids":{},"likes":{}}}}}"#,
                self.references(children),
                self.references(children)
            ),
            4 => format!(
                r#"{{"op":"update","table":"root","where":[["n","==",{}]],"row":{{"n":{},"tags":{}}}}}"#,
                self.below(4),
                self.below(4),
                self.tags()
            ),
            5 => format!(
                r#"{{"op":"mutate","table":"root","where":{by_name},"mutations":[["kids","{}",{}],["tags","{}",{}],["n","+=",1]]}}"#,
                self.of(&["insert", "delete"]),
                self.references(children),
                self.of(&["insert", "delete"]),
                self.tags()
            ),
            6 => {
                let to = if roots.is_empty() {
                    "[\"named-uuid\",\"c0\"]".to_string()
                } else {
                    self.reference(roots)
                };
                let child = self.reference(children);
                format!(
                    r#"{{"op":"mutate","table":"root","where":{by_name},"mutations":[["paths","insert",["map",[[{to},{child}]]]],["slots","insert",["map",[[{},{child}]]]]]}}"#,
                    self.below(3)
                )
            }
            7 => format!(
                r#"{{"op":"mutate","table":"root","where":[],"mutations":[["slots","delete",{}],["likes","insert",{}]]}}"#,
                self.below(3),
                self.references(children)
            ),
            8 => {
                let up = if roots.is_empty() { "[\"set\",[]]".to_string() } else { self.reference(roots) };
                format!(
                    r#"{{"op":"update","table":"child","where":[["v","<",{}]],"row":{{"up":{up},"eph":{},"next":{}}}}}"#,
                    self.below(5),
                    self.below(2) == 0,
                    self.references(children)
                )
            }
            9 => format!(
                r#"{{"op":"mutate","table":"child","where":[["w","==","{name}"]],"mutations":[["v","+=",{}]]}}"#,
                self.below(3)
            ),
            10 => format!(r#"{{"op":"delete","table":"child","where":[["v","==",{}]]}}"#, self.below(8)),
            _ => format!(
                r#"{{"op":"update","table":"root","where":{by_name},"row":{{"name":"{}"}}}}"#,
                self.name()
            ),
        }
    }

    fn transaction(&mut self, roots: &[Uuid], children: &[Uuid]) -> String {
        let mut list = vec!["\"P\"".to_string()];
        for name in ["c0", "c1"] {
            list.push(format!(
                r#"{{"op":"insert","table":"child","uuid-name":"{name}","row":{{"v":{},"w":"{}"}}}}"#,
                self.below(8),
                self.name()
            ));
        }
        for _ in 0..=self.below(4) {
            list.push(self.operation(roots, children));
        }
        format!("[{}]", list.join(","))
    }

    fn condition(&mut self, table: &str, rows: &[Uuid]) -> String {
        if self.below(5) == 0 {
            return self.of(&["[true]", "[false]"]).to_string();
        }
        let clauses: Vec<String> = (0..self.below(4))
            .map(|_| match (self.below(4), table) {
                (0, _) if !rows.is_empty() => {
                    format!(r#"["_uuid","==",["uuid","{}"]]"#, rows[self.below(rows.len())])
                }
                (1, "root") => format!(r#"["name","==","{}"]"#, self.name()),
                (2, "root") => format!(r#"["n","{}",{}]"#, self.of(&["<", "==", "!="]), self.below(4)),
                (_, "root") => {
                    format!(r#"["tags","{}",{}]"#, self.of(&["includes", "excludes", "=="]), self.tags())
                }
                (1, _) => format!(r#"["v","{}",{}]"#, self.of(&["==", ">=", "<"]), self.below(8)),
                (_, _) => format!(r#"["w","==","{}"]"#, self.name()),
            })
            .collect();
        format!("[{}]", clauses.join(","))
    }
}

/// What a client has learned: rows of data by table.
type Replica = BTreeMap<String, BTreeMap<Uuid, BTreeMap<String, Datum>>>;

struct Client {
    id: SessionId,
    method: &'static str,
    conditions: BTreeMap<&'static str, String>,
    replica: Replica,
}

const MONITORED: [(&str, &[&str]); 2] =
    [("root", &["name", "n", "tags", "likes"]), ("child", &["v", "w", "up", "eph"])];

/// Applies `update2` content to a replica.
fn apply(schema: &Schema, replica: &mut Replica, update: &Json) {
    for (table, rows) in update.as_object().unwrap().iter() {
        let declared = schema.table(table).unwrap();
        let into = replica.entry(table.to_string()).or_default();
        for (uuid, change) in rows.as_object().unwrap().iter() {
            let uuid = Uuid::parse(uuid).unwrap();
            let (kind, row) = change.as_object().unwrap().iter().next().unwrap();
            match &**kind {
                "initial" | "insert" => {
                    let mut columns = BTreeMap::new();
                    for column in MONITORED.iter().find(|(t, _)| *t == &**table).unwrap().1 {
                        let kind = &declared.column(column).unwrap().kind;
                        let datum = match row.get(column) {
                            Some(json) => Datum::from_json(kind, json, None).unwrap(),
                            None => Datum::default_for(kind),
                        };
                        columns.insert(column.to_string(), datum);
                    }
                    assert!(into.insert(uuid, columns).is_none(), "{table} {uuid} inserted twice");
                }
                "modify" => {
                    let columns = into.get_mut(&uuid).expect("a row that the client has");
                    for (name, json) in row.as_object().unwrap().iter() {
                        let kind = &declared.column(name).unwrap().kind;
                        let diff = Datum::from_json_unchecked(&kind.unconstrained(), json, None).unwrap();
                        let old = columns[&**name].clone();
                        let new = old.apply_diff(&diff, kind).unwrap();
                        assert_ne!(old, new, "{table} {uuid} {name} does not change");
                        columns.insert(name.to_string(), new);
                    }
                }
                "delete" => assert!(into.remove(&uuid).is_some(), "{table} {uuid} was not there"),
                other => panic!("{other}"),
            }
        }
    }
}

/// True if a row satisfies any clause of a condition, the slow way.
fn satisfies(table: &TableSchema, row: &ib_ovsdb::row::Row, condition: &Json) -> bool {
    let clauses = condition.as_array().unwrap();
    clauses.is_empty()
        || clauses.iter().any(|clause| {
            if let Some(constant) = clause.as_bool() {
                return constant;
            }
            let [column, function, argument] = clause.as_array().unwrap() else { panic!() };
            let column = table.column(column.as_str().unwrap()).unwrap();
            let has = row.get(column.index);
            let argument = Datum::from_json_unchecked(&column.kind.unconstrained(), argument, None).unwrap();
            match function.as_str().unwrap() {
                "==" => has == argument,
                "!=" => has != argument,
                "<" => has.as_integer().is_some_and(|n| n < argument.as_integer().unwrap()),
                ">=" => has.as_integer().is_some_and(|n| n >= argument.as_integer().unwrap()),
                "includes" => argument.is_subset_of(&has),
                _ => argument.is_disjoint_from(&has),
            }
        })
}

/// What a client should know.
fn wanted(database: &Database, conditions: &BTreeMap<&str, String>) -> Replica {
    let mut replica = Replica::new();
    for (name, columns) in MONITORED {
        let table = database.table(name).unwrap();
        let condition = Json::parse(&format!("[{}]", conditions[name])).unwrap();
        let condition = &condition.as_array().unwrap()[0];
        for entry in table.rows.values().filter(|e| satisfies(&table.schema, &e.row, condition)) {
            let data =
                columns.iter().map(|c| (c.to_string(), entry.row.get(table.schema.column(c).unwrap().index)));
            replica.entry(name.to_string()).or_default().insert(entry.row.uuid(), data.collect());
        }
    }
    replica
}

fn rows_text(db: &Database) -> Vec<String> {
    db.snapshot("", 0).iter().map(|record| Json::parse(record).unwrap().to_text(Style::SORTED)).collect()
}

struct World {
    server: Server,
    schema: Schema,
    clients: Vec<Client>,
    answers: Vec<Json>,
    now: Now,
}

impl World {
    fn request(&mut self, id: SessionId, method: &str, params: &str) -> Json {
        let message = format!(r#"{{"id":7,"method":"{method}","params":{params}}}"#);
        self.server.receive(id, Json::parse(&message).unwrap(), self.now);
        self.server.run(self.now);
        self.deliver();
        self.answers.pop().expect("an answer")
    }

    fn deliver(&mut self) {
        for action in self.server.take_actions() {
            let Action::Send(to, text) = action else { panic!("a session was closed") };
            self.server.drained(to);
            let message = Json::parse(&text).unwrap();
            if message.get("method").is_none() {
                self.answers.push(message);
                continue;
            }
            let client = self.clients.iter_mut().find(|c| c.id == to).unwrap();
            let update = message.get("params").unwrap().as_array().unwrap().last().unwrap();
            apply(&self.schema, &mut client.replica, update);
        }
    }

    fn join(&mut self, random: &mut Random, rows: [&[Uuid]; 2]) {
        let method = random.of(&["monitor_cond", "monitor_cond_since"]);
        let conditions: BTreeMap<&'static str, String> = MONITORED
            .iter()
            .zip(rows)
            .map(|((table, _), rows)| (*table, random.condition(table, rows)))
            .collect();
        let requests: Vec<String> = MONITORED
            .iter()
            .map(|(table, columns)| {
                format!(r#""{table}":[{{"columns":{columns:?},"where":{}}}]"#, conditions[table])
            })
            .collect();
        let since = if method == "monitor_cond" { "" } else { ",\"00000000-0000-0000-0000-000000000000\"" };
        let id = self.server.open_session(false);
        let answer = self.request(id, method, &format!("[\"P\",\"m\",{{{}}}{since}]", requests.join(",")));
        let result = answer.get("result").unwrap();
        let content = if method == "monitor_cond" { result } else { &result.as_array().unwrap()[2] };
        let mut client = Client { id, method, conditions, replica: Replica::new() };
        apply(&self.schema, &mut client.replica, content);
        self.clients.push(client);
    }

    fn check(&self) {
        let database = self.server.database("P").unwrap();
        audit(database).unwrap();
        for client in &self.clients {
            let mut told = client.replica.clone();
            told.retain(|_, rows| !rows.is_empty());
            assert_eq!(
                told,
                wanted(database, &client.conditions),
                "{} of {:?}",
                client.method,
                client.conditions
            );
        }
    }
}

#[test]
fn books_and_monitors_follow_random_transactions() {
    let mut committed = 0;
    for seed in 1..=12 {
        let mut random = Random(Rng::new(seed));
        let schema = Schema::parse(SCHEMA).unwrap();
        let mut world = World {
            server: Server::new(),
            schema: schema.clone(),
            clients: Vec::new(),
            answers: Vec::new(),
            now: Now::default(),
        };
        world.server.add_database(Database::new(schema), world.now).unwrap();
        let writer = world.server.open_session(false);
        for step in 0..150 {
            let database = world.server.database("P").unwrap();
            let mut rows = ["root", "child"]
                .map(|t| database.table(t).unwrap().rows.keys().copied().collect::<Vec<_>>());
            rows.iter_mut().for_each(|r| r.sort());
            if step % 15 == 0 {
                world.join(&mut random, [&rows[0], &rows[1]]);
            }
            if random.below(3) == 0 {
                let n = random.below(world.clients.len());
                let t = random.below(2);
                let (table, id) = (MONITORED[t].0, world.clients[n].id);
                let condition = random.condition(table, &rows[t]);
                world.clients[n].conditions.insert(table, condition.clone());
                let params = format!(r#"["m","m",{{"{table}":[{{"where":{condition}}}]}}]"#);
                let answer = world.request(id, "monitor_cond_change", &params);
                assert!(answer.get("error").is_none_or(Json::is_null), "{answer}");
                world.check();
            }
            let before = rows_text(world.server.database("P").unwrap());
            let transaction = random.transaction(&rows[0], &rows[1]);
            let answer = world.request(writer, "transact", &transaction);
            let results = answer.get("result").and_then(Json::as_array).unwrap();
            if results.iter().any(|r| r.get("error").is_some()) {
                let after = rows_text(world.server.database("P").unwrap());
                assert_eq!(before, after, "{transaction} failed: {answer}");
            } else {
                committed += 1;
            }
            world.check();
        }
    }
    // Most of what is tried must work, or little is tested.
    assert!(committed > 600, "{committed}");
}
