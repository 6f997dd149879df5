//! The client library: a typed, in-memory replica of a database that follows the server's.
//!
//! An [`Idl`] is a pure machine. It takes the JSON-RPC messages of one session as values ([`Idl::receive`]) and gives
//! messages to send ([`Idl::take_messages`]); whoever owns the socket tells it of [`Idl::connected`] and
//! [`Idl::disconnected`]. That owner is `ib_stream::replica::Replica`, unless a program has a loop of its own. Between the two the
//! replica negotiates the best monitor that the server knows (`monitor_cond_since`, else `monitor_cond`, else `monitor`),
//! keeps the rows, and counts content changes in [`Idl::seqno`].
//!
//! # An agent, step by step
//!
//! 1. Declare the tables and columns that you need as types ([`crate::typed_tables`]; [`vswitch`] has the switch's whole), make
//!    an [`Idl`] of the schema and register them. What is registered is what travels; [`Idl::set_condition`] narrows it to rows,
//!    and may be called again at any time.
//! 2. Say how the server is chosen and shared: [`Idl::set_leader_only`] for clusters, [`Idl::set_lock`] for agents of
//!    which one works at a time.
//! 3. Give it to a `Replica` with the remotes, and wait until [`Idl::seqno`] changes. [`Idl::take_changes`] has the rows inserted, modified
//!    and deleted since the last time, after [`Idl::track_changes`]; [`Idl::omit_alert`] silences what the agent writes itself.
//! 4. Read through the types or by name, write into a [`Txn`], and commit it. `Replica::transact` starts over where the database
//!    has changed underneath ([`TxnStatus::TryAgain`]); without it, look at the [`Outcome`] yourself.
//!
//! ```
//! use ib_ovsdb::idl::vswitch::{Bridge, BridgeEdit};
//! use ib_ovsdb::idl::{Clause, Condition, Idl, Txn};
//! use ib_ovsdb::{Datum, Schema, schemas};
//!
//! let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH)?);
//! idl.register_column("Bridge", "name");
//! idl.register_column("Bridge", "external_ids");
//! let br_int = Clause::equals("name", Datum::scalar("br-int"));
//! idl.set_condition("Bridge", Condition::Any(vec![br_int]));
//! idl.connected();                        // what a `Replica` does
//! assert!(!idl.take_messages().is_empty());
//!
//! let mut txn = Txn::new();
//! for bridge in Bridge::all(idl.view()) {
//!     let mut edit = BridgeEdit::of(&mut txn, &idl, bridge.uuid());
//!     edit.verify("external_ids");        // if it is as I saw it,
//!     edit.set_key("external_ids", "seen-by", "me");
//! }
//! let id = idl.commit(txn);
//! println!("{:?}", idl.status(id));       // TryAgain: there is no server here
//! # Ok::<(), ib_ovsdb::Error>(())
//! ```
//!
//! `crates/stream/examples/agent.rs` is a whole program.
//!
//! # What holds
//!
//! The client has a schema of its own, compiled in, and reads through it: a column always exists for the reader, with
//! its default value when it is not registered, or when an older server does not know it.
//!
//! - Rows are read as types, or as [`Row`]s by column name: `row.str("name")`, `row.smap("other_config")`, `row.refs("ports")`.
//!   Asking for a column that the client's schema lacks is a bug of the caller and panics.
//! - Changes go through a [`Txn`], a value apart from the replica, so that rows can be read while it grows.
//!   A [`View`] reads the replica as if the transaction had happened.
//! - The replica changes only by what the server says. A committed transaction shows when its update arrives.
//! - After a reconnection the server sends what happened since, if it remembers ([`MonitorVersion::MonitorCondSince`]); else rows
//!   are compared with its snapshot. What did not change does not count as a change, either way.
//!
//! Costs: a message costs its size (times a logarithm), however many rows there are; [`Idl::take_changes`] the number of rows changed since
//! the last call; an idle replica nothing. Rows iterate in the order of their UUIDs. One thread owns it all.

mod changes;
mod condition;
mod row;
mod server;
mod session;
mod txn;
pub mod typed;
pub mod vswitch;

pub use changes::{Change, ChangeKind};
pub use condition::{Clause, Condition};
pub use row::{Row, Smap, View};
pub use session::MonitorVersion;
pub use txn::{Outcome, Txn, TxnId, TxnStatus};

use crate::{ColumnSchema, Datum, Schema, TableSchema, Uuid};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A column of the replica.
struct Column {
    name: Arc<str>,
    schema: ColumnSchema,
    default: Datum,
    /// It travels.
    registered: bool,
    /// Its changes count in [`Idl::seqno`] and [`Idl::take_changes`].
    alert: bool,
    /// The server has it, as far as is known.
    on_server: bool,
    /// [`Idl::seqno`] when it last changed in any row, silently or not.
    changed: u64,
}

/// A row of the replica.
struct Stored {
    values: Vec<Datum>,
    /// [`Idl::seqno`] when it came, and when it last changed.
    inserted: u64,
    modified: u64,
}

impl std::ops::Deref for Stored {
    type Target = [Datum];

    fn deref(&self) -> &[Datum] {
        &self.values
    }
}

/// A table of the replica.
struct Table {
    name: Arc<str>,
    is_root: bool,
    columns: Vec<Column>,
    by_name: HashMap<Arc<str>, usize>,
    rows: BTreeMap<Uuid, Stored>,
    /// The rows that are asked for, and those that the server was asked for.
    condition: Condition,
    in_force: Condition,
    /// The row travels even if no column does.
    registered: bool,
    on_server: bool,
    tracked: BTreeMap<Uuid, changes::Tracked>,
}

impl Table {
    fn new(schema: &TableSchema) -> Table {
        let mut columns = Vec::new();
        let mut by_name = HashMap::new();
        let mut sorted: Vec<&ColumnSchema> = schema.user_columns().iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        for column in sorted {
            by_name.insert(column.name.clone(), columns.len());
            columns.push(Column {
                name: column.name.clone(),
                default: Datum::default_for(&column.kind),
                schema: column.clone(),
                registered: false,
                alert: true,
                on_server: true,
                changed: 0,
            });
        }
        Table {
            name: schema.name.clone(),
            is_root: schema.is_root,
            columns,
            by_name,
            rows: BTreeMap::new(),
            condition: Condition::All,
            in_force: Condition::All,
            registered: false,
            on_server: true,
            tracked: BTreeMap::new(),
        }
    }

    fn column(&self, name: &str) -> usize {
        match self.by_name.get(name) {
            Some(&i) => i,
            None => panic!("table {} has no column {name}", self.name),
        }
    }

    fn travels(&self) -> bool {
        self.on_server && (self.registered || self.columns.iter().any(|c| c.registered))
    }

    fn default_row(&self) -> Vec<Datum> {
        self.columns.iter().map(|c| c.default.clone()).collect()
    }
}

/// The replica of one database.
pub struct Idl {
    database: String,
    tables: Vec<Table>,
    by_name: HashMap<Arc<str>, usize>,
    seqno: u64,
    tracking: bool,
    session: session::Session,
}

impl Idl {
    /// An empty replica of the database that `schema` names, read through `schema`. Nothing is registered yet.
    pub fn new(schema: &Schema) -> Idl {
        let mut tables = Vec::new();
        let mut by_name = HashMap::new();
        let mut sorted: Vec<&Arc<TableSchema>> = schema.tables.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        for table in sorted {
            by_name.insert(table.name.clone(), tables.len());
            tables.push(Table::new(table));
        }
        Idl {
            database: schema.name.to_string(),
            tables,
            by_name,
            seqno: 0,
            tracking: false,
            session: session::Session::default(),
        }
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    fn table(&self, name: &str) -> usize {
        match self.by_name.get(name) {
            Some(&i) => i,
            None => panic!("database {} has no table {name}", self.database),
        }
    }

    /// Registers a table: its rows travel, with the columns that are registered (maybe none).
    /// Registration must be complete before the first [`Idl::connected`].
    pub fn register_table(&mut self, table: &str) {
        let t = self.table(table);
        self.tables[t].registered = true;
    }

    /// Registers a column, and its table.
    pub fn register_column(&mut self, table: &str, column: &str) {
        let t = self.table(table);
        let c = self.tables[t].column(column);
        self.tables[t].registered = true;
        self.tables[t].columns[c].registered = true;
    }

    /// Registers everything in one table.
    pub fn register_whole_table(&mut self, table: &str) {
        let t = self.table(table);
        self.tables[t].registered = true;
        self.tables[t].columns.iter_mut().for_each(|c| c.registered = true);
    }

    /// Registers everything in the schema.
    pub fn register_all(&mut self) {
        for table in &mut self.tables {
            table.registered = true;
            table.columns.iter_mut().for_each(|c| c.registered = true);
        }
    }

    /// Makes a column's changes silent: they appear in the replica but count neither in [`Idl::seqno`] nor in
    /// [`Idl::take_changes`]. For the columns that this client writes itself. [`Txn::set`] to the value that such
    /// a column already has costs nothing.
    pub fn omit_alert(&mut self, table: &str, column: &str) {
        let t = self.table(table);
        let c = self.tables[t].column(column);
        self.tables[t].columns[c].alert = false;
    }

    /// A number that grows whenever content changes, and at each connection that has become usable. 0: never had content.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    /// [`Idl::seqno`] when a column last changed in any row, or a row of the table came or went; 0 never.
    pub fn column_seqno(&self, table: &str, column: &str) -> u64 {
        let table = &self.tables[self.table(table)];
        table.columns[table.column(column)].changed
    }

    /// True once the first snapshot has arrived.
    pub fn has_ever_connected(&self) -> bool {
        self.seqno != 0
    }

    /// True if the replica follows the server now.
    pub fn is_live(&self) -> bool {
        self.session.is_monitoring()
    }

    /// The table names in the client's schema, sorted.
    pub fn table_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tables.iter().map(|t| &t.name)
    }

    /// True if the client's schema has the table.
    pub fn has_table(&self, table: &str) -> bool {
        self.by_name.contains_key(table)
    }

    /// True if the server has the table, or has not been asked yet.
    pub fn server_has_table(&self, table: &str) -> bool {
        self.by_name.get(table).is_some_and(|&t| self.tables[t].on_server)
    }

    /// True if the server has the column, or has not been asked yet.
    pub fn server_has_column(&self, table: &str, column: &str) -> bool {
        self.by_name.get(table).is_some_and(|&t| {
            let table = &self.tables[t];
            table.by_name.get(column).is_some_and(|&c| table.on_server && table.columns[c].on_server)
        })
    }

    /// The column names of a table in the client's schema, sorted, without `_uuid`.
    pub fn column_names(&self, table: &str) -> impl Iterator<Item = &Arc<str>> {
        self.tables[self.table(table)].columns.iter().map(|c| &c.name)
    }

    /// The client's declaration of a column.
    pub fn column_schema(&self, table: &str, column: &str) -> Option<&ColumnSchema> {
        let table = &self.tables[*self.by_name.get(table)?];
        Some(&table.columns[*table.by_name.get(column)?].schema)
    }

    /// True if rows of the table stay without being referenced.
    pub fn is_root(&self, table: &str) -> bool {
        self.tables[self.table(table)].is_root
    }

    /// Cells (rows times registered columns) held, for memory reports. O(tables).
    pub fn cells(&self) -> u64 {
        let of = |t: &Table| t.rows.len() * t.columns.iter().filter(|c| c.registered).count();
        self.tables.iter().map(|t| of(t) as u64).sum()
    }

    /// The replica without any transaction.
    pub fn view(&self) -> View<'_> {
        View::new(self, None)
    }

    /// All rows of a table, in the order of their UUIDs.
    pub fn rows<'a>(&'a self, table: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        self.view().rows(table)
    }

    /// The number of rows in a table.
    pub fn len(&self, table: &str) -> usize {
        self.tables[self.table(table)].rows.len()
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<Row<'_>> {
        self.view().row(table, uuid)
    }

    /// The first row, for tables that have only one.
    pub fn first(&self, table: &str) -> Option<Row<'_>> {
        self.rows(table).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Atom;
    use ib_base::json::Json;

    const SCHEMA: &str = r#"{"name":"S","tables":{
        "Top":{"isRoot":true,"columns":{
            "next_cfg":{"type":"integer"},
            "bridges":{"type":{"key":{"type":"uuid","refTable":"Bridge"},"min":0,"max":"unlimited"}}}},
        "Bridge":{"columns":{
            "name":{"type":"string","mutable":false},
            "tag":{"type":{"key":"integer","min":0}},
            "vlans":{"type":{"key":"integer","min":0,"max":10}},
            "status":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
            "new_in_client":{"type":"string"}}}}}"#;

    const TOP: &str = "00000000-0000-0000-0000-000000000001";
    const BR0: &str = "00000000-0000-0000-0000-00000000000a";
    const BR1: &str = "00000000-0000-0000-0000-00000000000b";

    fn uuid(text: &str) -> Uuid {
        Uuid::parse(text).unwrap()
    }

    fn json(text: &str) -> Json {
        Json::parse(&text.replace("TOP", TOP).replace("BR0", BR0).replace("BR1", BR1)).unwrap()
    }

    /// A replica that has asked for its monitor.
    fn negotiating() -> Idl {
        let mut idl = Idl::new(&Schema::parse(SCHEMA).unwrap());
        idl.register_all();
        idl.omit_alert("Bridge", "status");
        idl.track_changes();
        greet(&mut idl);
        idl
    }

    fn greet(idl: &mut Idl) {
        idl.connected();
        let sent = idl.take_messages();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].get("method"), Some(&Json::from("get_schema")));
        let id = sent[0].get("id").unwrap();
        idl.receive(&json(&format!(
            r#"{{"id":{id},"error":null,"result":{{"name":"S","tables":{{
               "Top":{{"columns":{{"next_cfg":{{}},"bridges":{{}}}}}},
               "Bridge":{{"columns":{{"name":{{}},"tag":{{}},"vlans":{{}},"status":{{}}}}}}}}}}}}"#
        )));
    }

    fn answer(idl: &mut Idl, method: &str, reply: &str) -> Json {
        let sent = idl.take_messages();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].get("method"), Some(&Json::from(method)));
        let id = sent[0].get("id").unwrap();
        idl.receive(&json(&format!(r#"{{"id":{id},{reply}}}"#)));
        sent[0].get("params").unwrap().clone()
    }

    const SNAPSHOT: &str = r#""error":null,"result":[false,"00000000-0000-0000-0000-0000000000ff",
        {"Top":{"TOP":{"initial":{"bridges":["uuid","BR0"]}}},
         "Bridge":{"BR0":{"initial":{"name":"br0","vlans":["set",[1,2]]}}}}]"#;

    fn live() -> Idl {
        let mut idl = negotiating();
        answer(&mut idl, "monitor_cond_since", SNAPSHOT);
        assert!(idl.is_live());
        idl.take_changes();
        idl
    }

    #[test]
    fn the_best_monitor_is_negotiated() {
        let mut idl = negotiating();
        let unknown = r#""result":null,"error":"unknown method""#;
        let params = answer(&mut idl, "monitor_cond_since", unknown);
        assert_eq!(
            params.to_string(),
            r#"["S",["monid","S"],{"Bridge":[{"columns":["name","status","tag","vlans"]}],"Top":[{"columns":["bridges","next_cfg"]}]},"00000000-0000-0000-0000-000000000000"]"#
        );
        answer(&mut idl, "monitor_cond", unknown);
        assert!(!idl.has_ever_connected());
        answer(
            &mut idl,
            "monitor",
            r#""error":null,"result":{"Bridge":{"BR0":{"new":{"name":"br0","tag":7,"vlans":["set",[]],"status":["map",[["a","b"]]]}}}}"#,
        );
        assert_eq!(idl.monitor_version(), Some(MonitorVersion::Monitor));
        let row = idl.first("Bridge").unwrap();
        assert_eq!(
            (row.str("name"), row.int_opt("tag"), row.smap("status").get("a")),
            ("br0", Some(7), Some("b"))
        );
        assert_eq!(row.str("new_in_client"), "");
        assert!(!idl.server_has_column("Bridge", "new_in_client"));
    }

    #[test]
    fn differences_apply_and_are_reported() {
        let mut idl = live();
        let top = idl.first("Top").unwrap();
        assert_eq!(top.refs("bridges").map(|b| b.str("name")).collect::<Vec<_>>(), ["br0"]);
        let before = idl.seqno();
        idl.receive(&json(
            r#"{"id":null,"method":"update3","params":[["monid","S"],"00000000-0000-0000-0000-0000000000fe",
               {"Top":{"TOP":{"modify":{"bridges":["set",[["uuid","BR1"],["uuid","BR0"]]]}}},
                "Bridge":{"BR0":{"delete":null},"BR1":{"insert":{"name":"br1"}}}}]}"#,
        ));
        assert!(idl.seqno() > before);
        let changes: Vec<_> = idl.take_changes().iter().map(|c| (c.table.to_string(), c.kind)).collect();
        assert_eq!(
            changes,
            [
                ("Bridge".to_string(), ChangeKind::Deleted),
                ("Bridge".to_string(), ChangeKind::Inserted),
                ("Top".to_string(), ChangeKind::Modified)
            ]
        );
        assert_eq!(idl.rows("Bridge").map(|b| b.str("name")).collect::<Vec<_>>(), ["br1"]);
        assert!(!idl.has_changes());
        idl.receive(&json(
            r#"{"id":null,"method":"update3","params":[["monid","S"],"00000000-0000-0000-0000-0000000000fd",
               {"Bridge":{"BR1":{"modify":{"vlans":["set",[3,4]],"tag":5}}}}]}"#,
        ));
        let change = &idl.take_changes()[0];
        assert_eq!(change.columns.iter().map(|c| &**c).collect::<Vec<_>>(), ["tag", "vlans"]);
        let row = idl.row("Bridge", uuid(BR1)).unwrap();
        assert_eq!(row.ints("vlans").collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn silent_columns_do_not_count() {
        let mut idl = live();
        let before = idl.seqno();
        idl.receive(&json(
            r#"{"id":null,"method":"update2","params":[["monid","S"],{"Bridge":{"BR0":{"modify":{"status":["map",[["x","y"]]]}}}}]}"#,
        ));
        assert_eq!(idl.seqno(), before);
        assert_eq!(idl.first("Bridge").unwrap().smap("status").get("x"), Some("y"));
        let mut txn = Txn::new();
        let row = idl.first("Bridge").unwrap();
        txn.set(&row, "status", row.get("status").clone());
        assert!(txn.is_empty());
    }

    #[test]
    fn a_snapshot_after_reconnection_is_compared() {
        let mut idl = live();
        idl.disconnected();
        assert!(!idl.is_live());
        assert_eq!(idl.len("Bridge"), 1);
        greet(&mut idl);
        let params = answer(
            &mut idl,
            "monitor_cond_since",
            r#""error":null,"result":[false,"00000000-0000-0000-0000-0000000000ff",
               {"Bridge":{"BR0":{"initial":{"name":"br0","vlans":["set",[1,2]]}},"BR1":{"initial":{"name":"br1"}}}}]"#,
        );
        assert_eq!(params.as_array().unwrap()[3], Json::from("00000000-0000-0000-0000-0000000000ff"));
        let changes: Vec<_> = idl.take_changes().iter().map(|c| (c.uuid, c.kind)).collect();
        assert_eq!(changes, [(uuid(BR1), ChangeKind::Inserted), (uuid(TOP), ChangeKind::Deleted)]);
    }

    #[test]
    fn transactions_become_operations_and_outcomes() {
        let mut idl = live();
        let top = idl.first("Top").unwrap().uuid();
        let mut txn = Txn::new();
        txn.comment("why");
        txn.verify(&idl, "Top", top, "bridges");
        let new = txn.insert_as_br(&idl);
        txn.add_to(&idl, "Top", top, "bridges", &Datum::scalar(Atom::Uuid(new)));
        txn.increment(&idl, "Top", top, "next_cfg");
        let names: Vec<_> =
            txn.view(&idl).row("Top", top).unwrap().refs("bridges").map(|r| r.uuid()).collect();
        assert_eq!(names.len(), 2);
        assert_eq!(txn.view(&idl).row("Bridge", new).unwrap().str("name"), "br9");
        let id = idl.commit(txn);
        assert_eq!(idl.status(id), TxnStatus::Incomplete);
        let sent = idl.take_messages().remove(0);
        let name = format!("row{new}").replace('-', "_");
        let expect = format!(
            r#"["S",{{"op":"wait","table":"Top","timeout":0,"where":[["_uuid","==",["uuid","TOP"]]],"columns":["bridges"],"until":"==","rows":[{{"bridges":["uuid","BR0"]}}]}},{{"op":"insert","table":"Bridge","uuid-name":"{name}","row":{{"name":"br9"}}}},{{"op":"mutate","table":"Top","where":[["_uuid","==",["uuid","TOP"]]],"mutations":[["bridges","insert",["set",[["named-uuid","{name}"]]]]]}},{{"op":"mutate","table":"Top","where":[["_uuid","==",["uuid","TOP"]]],"mutations":[["next_cfg","+=",1]]}},{{"op":"select","table":"Top","where":[["_uuid","==",["uuid","TOP"]]],"columns":["next_cfg"]}},{{"op":"comment","comment":"why"}}]"#
        );
        assert_eq!(sent.get("params").unwrap(), &json(&expect));
        let id_json = sent.get("id").unwrap();
        idl.receive(&json(&format!(
            r#"{{"id":{id_json},"error":null,"result":[{{}},{{"uuid":["uuid","BR1"]}},{{"count":1}},{{"count":1}},{{"rows":[{{"next_cfg":8}}]}},{{}}]}}"#
        )));
        let outcome = idl.take_outcome(id).unwrap();
        assert_eq!(outcome.status, TxnStatus::Success);
        assert_eq!(outcome.inserted[&new], uuid(BR1));
        assert_eq!(outcome.incremented, Some(8));
        assert_eq!(idl.take_outcome(id), None);
    }

    impl Txn {
        fn insert_as_br(&mut self, idl: &Idl) -> Uuid {
            let new = self.insert(idl, "Bridge");
            self.set_at(idl, "Bridge", new, "name", Datum::scalar(Atom::string("br9")));
            new
        }
    }

    fn outcome_of(result: &str) -> TxnStatus {
        let mut idl = live();
        let mut txn = Txn::new();
        txn.insert_as_br(&idl);
        let id = idl.commit(txn);
        let request = idl.take_messages().remove(0);
        idl.receive(&json(&format!(r#"{{"id":{},{result}}}"#, request.get("id").unwrap())));
        idl.take_outcome(id).unwrap().status
    }

    #[test]
    fn errors_are_sorted_by_what_to_do_next() {
        assert_eq!(outcome_of(r#""error":null,"result":[{"error":"timed out"},null]"#), TxnStatus::TryAgain);
        assert_eq!(outcome_of(r#""error":null,"result":[{"error":"not owner"},null]"#), TxnStatus::NotLocked);
        assert_eq!(outcome_of(r#""error":"canceled","result":null"#), TxnStatus::TryAgain);
        assert_eq!(
            outcome_of(
                r#""error":null,"result":[{"uuid":["uuid","BR1"]},{"error":"constraint violation","details":"d"}]"#
            ),
            TxnStatus::Error(r#"{"details":"d","error":"constraint violation"}"#.to_string())
        );
        assert!(matches!(outcome_of(r#""error":null,"result":3"#), TxnStatus::Error(_)));
    }

    #[test]
    fn nothing_to_do_is_not_sent() {
        let mut idl = live();
        let mut txn = Txn::new();
        let row = idl.first("Bridge").unwrap();
        txn.set(&row, "name", Datum::scalar(Atom::string("br0")));
        txn.comment("nothing");
        let id = idl.commit(txn);
        assert_eq!(idl.status(id), TxnStatus::Unchanged);
        assert!(idl.take_messages().is_empty());
    }

    #[test]
    fn a_lost_connection_means_try_again() {
        let mut idl = live();
        let mut txn = Txn::new();
        txn.insert_as_br(&idl);
        let id = idl.commit(txn);
        idl.disconnected();
        assert_eq!(idl.take_outcome(id).unwrap().status, TxnStatus::TryAgain);
    }

    #[test]
    fn locks_gate_transactions() {
        let mut idl = negotiating();
        idl.set_lock(Some("switch"));
        answer(&mut idl, "monitor_cond_since", SNAPSHOT);
        answer(&mut idl, "lock", r#""error":null,"result":{"locked":false}"#);
        assert!(idl.is_lock_contended());
        let txn = {
            let mut txn = Txn::new();
            txn.insert_as_br(&idl);
            txn
        };
        let id = idl.commit(txn);
        assert_eq!(idl.status(id), TxnStatus::NotLocked);
        idl.receive(&json(r#"{"id":null,"method":"locked","params":["switch"]}"#));
        assert!(idl.has_lock());
        let mut txn = Txn::new();
        txn.insert_as_br(&idl);
        idl.commit(txn);
        let params = idl.take_messages()[0].get("params").unwrap().as_array().unwrap()[1].clone();
        assert_eq!(params, json(r#"{"op":"assert","lock":"switch"}"#));
        idl.receive(&json(r#"{"id":null,"method":"stolen","params":["switch"]}"#));
        assert!(!idl.has_lock());
    }

    #[test]
    fn map_mutations_replace_pairs() {
        let mut idl = live();
        idl.receive(&json(
            r#"{"id":null,"method":"update2","params":[["monid","S"],{"Bridge":{"BR0":{"modify":{"status":["map",[["x","1"]]]}}}}]}"#,
        ));
        let br0 = uuid(BR0);
        let pair = |v: &str| Datum::map([(Atom::string("x"), Atom::string(v))]);
        let mut txn = Txn::new();
        txn.add_to(&idl, "Bridge", br0, "status", &pair("2"));
        txn.add_to(&idl, "Bridge", br0, "status", &pair("3"));
        assert_eq!(txn.view(&idl).row("Bridge", br0).unwrap().smap("status").get("x"), Some("3"));
        idl.commit(txn);
        let sent = idl.take_messages().remove(0);
        assert_eq!(
            sent.get("params").unwrap().as_array().unwrap()[1].get("mutations").unwrap().to_string(),
            r#"[["status","delete",["set",["x"]]],["status","insert",["map",[["x","3"]]]]]"#
        );
    }

    #[test]
    fn nonsense_from_the_server_is_passed_over() {
        let mut idl = live();
        for text in [
            r#"{"id":null,"method":"update3","params":[1,2,3]}"#,
            r#"{"id":null,"method":"update2","params":[["monid","S"],{"Nosuch":{"BR0":{"insert":{}}},"Bridge":{"x":3,"BR1":{"modify":{}},"BR0":{"modify":{"tag":"x","zzz":1}}}}]}"#,
            r#"{"id":99,"result":{},"error":null}"#,
            r#"{"id":"x","result":{},"error":null}"#,
            r#"[1]"#,
        ] {
            idl.receive(&json(text));
        }
        assert_eq!(idl.len("Bridge"), 1);
        idl.receive(&json(r#"{"id":"echo","method":"echo","params":["a"]}"#));
        assert_eq!(idl.take_messages(), [json(r#"{"result":["a"],"error":null,"id":"echo"}"#)]);
    }

    #[test]
    fn conditions_change_one_after_the_other() {
        let mut idl = live();
        assert!(idl.conditions_settled());
        let named = |name: &str| Condition::Any(vec![Clause::equals("name", Datum::scalar(name))]);
        idl.set_condition("Bridge", named("br0"));
        idl.set_condition("Bridge", named("br1"));
        let before = idl.seqno();
        let asked = r#"[["monid","S"],["monid","S"],{"Bridge":[{"where":[["name","==","br0"]]}]}]"#;
        let ok = r#""error":null,"result":{}"#;
        assert_eq!(answer(&mut idl, "monitor_cond_change", ok).to_string(), asked);
        assert!(!idl.conditions_settled());
        let asked = answer(&mut idl, "monitor_cond_change", ok).to_string();
        assert_eq!(asked, r#"[["monid","S"],["monid","S"],{"Bridge":[{"where":[["name","==","br1"]]}]}]"#);
        assert!(idl.conditions_settled() && idl.seqno() > before);
        // A new session resumes where the old one was, then asks for what was set meanwhile.
        idl.disconnected();
        idl.set_condition("Bridge", Condition::Nothing);
        greet(&mut idl);
        let resumed = r#""error":null,"result":[true,"00000000-0000-0000-0000-0000000000fe",{}]"#;
        let params = answer(&mut idl, "monitor_cond_since", resumed).to_string();
        assert!(
            params.contains(r#""where":[["name","==","br1"]]"#) && params.contains("0000000000ff"),
            "{params}"
        );
        let asked = idl.take_messages();
        assert!(asked[0].to_string().contains(r#"{"Bridge":[{"where":[false]}]}"#), "{asked:?}");
        // Lost before the answer: nobody knows which rows are here, so everything is sent again.
        idl.disconnected();
        greet(&mut idl);
        let params = answer(&mut idl, "monitor_cond_since", SNAPSHOT).to_string();
        assert!(
            params.contains(r#""where":[false]"#)
                && params.contains(r#""00000000-0000-0000-0000-000000000000""#)
        );
    }

    const SERVER: &str = "00000000-0000-0000-0000-0000000000aa";

    /// A replica that wants a leader, with what `_Server` says of the database.
    fn following(row: &str) -> Idl {
        let mut idl = Idl::new(&Schema::parse(SCHEMA).unwrap());
        idl.register_column("Bridge", "name");
        idl.set_leader_only(true);
        idl.connected();
        let sent = idl.take_messages();
        let methods: Vec<_> = sent.iter().filter_map(|m| m.get("method").and_then(Json::as_str)).collect();
        assert_eq!(methods, ["set_db_change_aware", "monitor_cond"]);
        let id = sent[1].get("id").unwrap();
        idl.receive(&json(&format!(
            r#"{{"id":{id},"error":null,"result":{{"Database":{{"{SERVER}":{{"initial":{row}}}}}}}}}"#
        )));
        idl
    }

    fn server_says(idl: &mut Idl, change: &str) {
        idl.receive(&json(&format!(
            r#"{{"id":null,"method":"update2","params":[["monid","_Server"],{{"Database":{{"{SERVER}":{{"modify":{change}}}}}}}]}}"#
        )));
    }

    #[test]
    fn a_follower_is_left_for_a_leader() {
        let row =
            |more: &str| format!(r#"{{"name":"S","model":"clustered","connected":true,"index":7{more}}}"#);
        let schema = r#","schema":"{\"tables\":{\"Bridge\":{\"columns\":{\"name\":{}}}}}""#;
        let mut idl = following(&row(schema));
        assert_eq!(idl.take_reconnect().as_deref(), Some("clustered database server is not cluster leader"));
        assert!(idl.take_messages().is_empty());
        let mut idl = following(&row(""));
        assert!(idl.take_reconnect().unwrap().contains("not yet joined"));
        let mut idl = following(&row(&format!(r#","leader":true{schema}"#)));
        let params = answer(&mut idl, "monitor_cond_since", SNAPSHOT);
        assert!(params.to_string().contains(r#"{"Bridge":[{"columns":["name"]}]}"#), "{params}");
        assert!(idl.is_live() && idl.take_reconnect().is_none());
        server_says(&mut idl, r#"{"leader":false}"#);
        assert!(idl.take_reconnect().is_some());
        assert_eq!(idl.len("Bridge"), 1);
    }

    #[test]
    fn a_conversion_keeps_the_session() {
        let schema =
            r#"{"name":"S","model":"standalone","connected":true,"leader":true,"schema":"{\"tables\":{}}"}"#;
        let mut idl = following(schema);
        idl.set_lock(Some("L"));
        answer(&mut idl, "monitor_cond_since", r#""error":null,"result":[false,"TOP",{}]"#);
        answer(&mut idl, "lock", r#""error":null,"result":{"locked":true}"#);
        assert!(idl.is_live() && !idl.server_has_table("Bridge"));
        idl.receive(&json(r#"{"id":null,"method":"monitor_canceled","params":[["monid","S"]]}"#));
        assert!(!idl.is_live());
        let asked = idl.take_messages();
        assert_eq!(asked[0].get("method"), Some(&Json::from("get_schema")));
        server_says(&mut idl, r#"{"schema":"{\"tables\":{\"Bridge\":{\"columns\":{\"name\":{}}}}}"}"#);
        let asked = idl.take_messages();
        let methods: Vec<_> = asked.iter().filter_map(|m| m.get("method").and_then(Json::as_str)).collect();
        assert_eq!(methods, ["monitor_cancel", "monitor_cond_since"]);
        let id = asked[1].get("id").unwrap();
        idl.receive(&json(&format!(r#"{{"id":{id},{SNAPSHOT}}}"#)));
        assert_eq!(idl.first("Bridge").unwrap().str("name"), "br0");
        // The lock is the session's, and still held.
        assert!(idl.has_lock() && idl.take_messages().is_empty());
    }

    #[test]
    fn seqnos_tell_what_changed_when() {
        let mut idl = live();
        let inserted = idl.first("Bridge").unwrap().inserted_seqno();
        assert!(inserted != 0 && idl.first("Bridge").unwrap().modified_seqno() == 0);
        let (vlans, tag) = (idl.column_seqno("Bridge", "vlans"), idl.column_seqno("Bridge", "tag"));
        idl.receive(&json(
            r#"{"id":null,"method":"update2","params":[["monid","S"],{"Bridge":{"BR0":{"modify":{"tag":3}}}}]}"#,
        ));
        assert_eq!(idl.first("Bridge").unwrap().inserted_seqno(), inserted);
        assert_eq!(idl.first("Bridge").unwrap().modified_seqno(), idl.seqno());
        assert_eq!(idl.column_seqno("Bridge", "vlans"), vlans);
        assert!(idl.column_seqno("Bridge", "tag") > tag);
        idl.take_changes();
        idl.receive(&json(
            r#"{"id":null,"method":"update2","params":[["monid","S"],{"Bridge":{"BR0":{"delete":null}}}]}"#,
        ));
        let changes = idl.take_changes();
        assert_eq!(changes[0].last("name"), Some(&Datum::scalar("br0")));
        assert_eq!(changes[0].last("status"), None);
    }
}
