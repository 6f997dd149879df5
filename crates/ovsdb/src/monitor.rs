//! Monitors: what of a database a client wants to be told.
//!
//! A [`MonitorSpec`] is the parsed request; it turns rows and changes into the JSON text of notifications. Clients with
//! equal requests share one spec, so a change is turned into text once for all of them, however many they are.
//!
//! Three dialects: `monitor` (RFC 7047: old and new columns), `monitor_cond` (ovsdb-server(7): differences, with a
//! condition per table) and `monitor_cond_since` (the same, with the state's name).

use crate::Uuid;
use crate::condition::{AnyOf, Clause, Condition};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::parser::{Kinds, Parser};
use crate::schema::{Schema, TableSchema, UUID_COLUMN};
use crate::table::{FastMap, Row};
use crate::txn::Change;
use ib_base::json::{Json, write_string};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The dialect of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `monitor`, `update`.
    V1,
    /// `monitor_cond`, `update2`.
    V2,
    /// `monitor_cond_since`, `update3`.
    V3,
}

impl Version {
    /// The method of its notifications.
    pub fn update_method(self) -> &'static str {
        match self {
            Version::V1 => "update",
            Version::V2 => "update2",
            Version::V3 => "update3",
        }
    }
}

/// Kinds of change that a column is wanted for, as bits.
const INITIAL: u8 = 1;
const INSERT: u8 = 2;
const DELETE: u8 = 4;
const MODIFY: u8 = 8;

/// A column wanted.
#[derive(Clone, Debug)]
struct MonitoredColumn {
    index: usize,
    select: u8,
}

/// A table wanted.
#[derive(Clone, Debug)]
struct MonitoredTable {
    schema: Arc<TableSchema>,
    columns: Vec<MonitoredColumn>,
    select: u8,
    condition: AnyOf,
    condition_text: String,
}

/// What a client wants to be told.
#[derive(Clone, Debug)]
pub struct MonitorSpec {
    /// The dialect.
    pub version: Version,
    tables: Vec<MonitoredTable>,
    /// Place in `tables` by the table's index in the schema.
    places: FastMap<usize, usize>,
}

/// Changes sorted by table, once for all monitors.
pub struct ChangesByTable<'a> {
    tables: BTreeMap<usize, Vec<&'a Change>>,
}

impl<'a> ChangesByTable<'a> {
    /// Sorts changes.
    pub fn new(changes: impl IntoIterator<Item = &'a Change>) -> ChangesByTable<'a> {
        let mut tables: BTreeMap<usize, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            tables.entry(change.table).or_default().push(change);
        }
        ChangesByTable { tables }
    }
}

impl MonitorSpec {
    /// Reads a request: an object of tables.
    pub fn from_json(schema: &Schema, requests: &Json, version: Version) -> Result<MonitorSpec> {
        let Some(requests) = requests.as_object() else {
            return Err(Error::syntax(requests, "monitor-requests must be object"));
        };
        // Of several mistakes, the first is told in the order in which the original comes by the tables.
        MonitorSpec::read(schema, requests.iter(), version)
            .or_else(|_| MonitorSpec::read(schema, requests.in_table_order().into_iter(), version))
    }

    fn read<'a>(
        schema: &Schema,
        requests: impl Iterator<Item = (&'a Arc<str>, &'a Json)>,
        version: Version,
    ) -> Result<MonitorSpec> {
        let mut spec = MonitorSpec { version, tables: Vec::new(), places: FastMap::default() };
        for (name, request) in requests {
            let Some(table) = schema.table(name) else {
                return Err(Error::syntax_plain(format!("no table named {name}")));
            };
            let mut monitored = MonitoredTable {
                schema: table.clone(),
                columns: Vec::new(),
                select: 0,
                condition: AnyOf::new([]),
                condition_text: String::new(),
            };
            let mut conditions = Vec::new();
            let single = std::slice::from_ref(request);
            for request in request.as_array().unwrap_or(single) {
                conditions.extend(monitored.add_request(request, version)?);
            }
            monitored.set_condition(conditions);
            spec.places.insert(table.index, spec.tables.len());
            spec.tables.push(monitored);
        }
        Ok(spec)
    }

    /// A text that is equal for monitors whose notifications are equal.
    pub fn key(&self) -> String {
        let mut key = format!("{}", self.version != Version::V1);
        for table in &self.tables {
            key.push_str(&format!(";{}", table.schema.index));
            for column in &table.columns {
                key.push_str(&format!(",{}:{}", column.index, column.select));
            }
            key.push('?');
            key.push_str(&table.condition_text);
        }
        key
    }

    /// The text of the update that these changes make; none if the client need not know any.
    pub fn update(&self, changes: &ChangesByTable<'_>) -> Option<Arc<str>> {
        // There may be a thousand monitors of thirty tables each: look for the few tables that changed.
        let mut out = Writer::new();
        for (index, changes) in &changes.tables {
            let Some(&place) = self.places.get(index) else { continue };
            for change in changes {
                self.tables[place].write_change(&mut out, change, self.version);
            }
            out.end_table();
        }
        out.finish()
    }

    /// The text of the whole content, for the answer to the request.
    pub fn initial(&self, database: &Database) -> Arc<str> {
        let mut out = Writer::new();
        for table in self.tables.iter().filter(|t| t.select & INITIAL != 0) {
            let word = if self.version == Version::V1 { "new" } else { "initial" };
            let mut write = |row: &Row| {
                if table.condition.matches(row) {
                    out.row(&table.schema.name, row.uuid());
                    table.write_row(&mut out.text, word, row, INITIAL, self.version != Version::V1);
                    out.text.push('}');
                }
            };
            let rows = &database.tables[table.schema.index];
            match table.condition.candidates(rows) {
                Some(found) => found.into_iter().filter_map(|uuid| rows.row(uuid)).for_each(write),
                None => rows.rows.values().for_each(|e| write(&e.row)),
            }
            out.end_table();
        }
        out.finish().unwrap_or_else(|| "{}".into())
    }

    /// Replaces conditions as `monitor_cond_change` asks. Returns the new spec, and the text of the update that
    /// tells the client which rows came and went by that.
    pub fn change_conditions(
        &self,
        schema: &Schema,
        database: &Database,
        requests: &Json,
    ) -> Result<(MonitorSpec, Option<Arc<str>>)> {
        let Some(requests) = requests.as_object() else {
            return Err(Error::syntax_plain("monitor-cond-change-requests must be object"));
        };
        let mut new = self.clone();
        let mut changed = Vec::new();
        for (name, request) in requests.in_table_order() {
            if schema.table(name).is_none() {
                return Err(Error::syntax_plain(format!("no table named {name}")));
            }
            let Some(i) = new.tables.iter().position(|t| t.schema.name == *name) else {
                return Err(Error::syntax_plain(format!("no table named {name} in monitor session")));
            };
            let Some(list) = request.as_array() else {
                return Err(Error::syntax_plain(format!("table {name} no monitor-cond-change JSON array")));
            };
            if list.is_empty() {
                continue;
            }
            let mut conditions = Vec::new();
            for request in list {
                let mut parser = Parser::new(request, format!("table {name}"));
                let columns = parser.optional("columns", Kinds::ARRAY);
                let condition = parser.optional("where", Kinds::ARRAY);
                parser.finish()?;
                if columns.is_some() {
                    return Err(Error::syntax(request, "changing columns is unsupported"));
                }
                // A plain monitor has no conditions: they are not even read.
                if let Some(json) = condition.filter(|_| self.version != Version::V1) {
                    conditions.push(parse_condition(&new.tables[i].schema, json)?);
                }
            }
            new.tables[i].set_condition(conditions);
            if new.tables[i].condition_text != self.tables[i].condition_text {
                changed.push(i);
            }
        }
        let mut out = Writer::new();
        for i in changed {
            let (before, after) = (&self.tables[i], &new.tables[i]);
            let table = &database.tables[after.schema.index];
            before.condition.each_difference(&after.condition, table, |row, is| {
                after.write_match(&mut out, row.uuid(), row, is, self.version);
            });
            out.end_table();
        }
        Ok((new, out.finish()))
    }
}

fn parse_condition(table: &TableSchema, json: &Json) -> Result<(Condition, String)> {
    let list = match json {
        Json::Bool(_) => Json::Array(vec![json.clone()]),
        other => other.clone(),
    };
    let condition = Condition::from_json(table, &list, None)?;
    let text = if condition.is_true() { String::new() } else { list.to_string() };
    Ok((condition, text))
}

impl MonitoredTable {
    fn add_request(&mut self, json: &Json, version: Version) -> Result<Option<(Condition, String)>> {
        let name = &self.schema.name;
        let mut parser = Parser::new(json, format!("table {name}"));
        let condition = match version {
            Version::V1 => None,
            _ => parser.optional("where", Kinds::ARRAY),
        };
        let columns = parser.optional("columns", Kinds::ARRAY);
        let select_json = parser.optional("select", Kinds::OBJECT);
        parser.finish()?;
        let mut select = INITIAL | INSERT | DELETE | MODIFY;
        if let Some(json) = select_json {
            let mut parser = Parser::new(json, format!("table {name} select"));
            for (word, bit) in
                [("initial", INITIAL), ("insert", INSERT), ("delete", DELETE), ("modify", MODIFY)]
            {
                if parser.optional(word, Kinds::BOOL).and_then(Json::as_bool) == Some(false) {
                    select &= !bit;
                }
            }
            parser.finish()?;
        }
        self.select |= select;
        match columns {
            Some(list) => {
                for column in list.as_array().unwrap_or_default() {
                    let Some(column_name) = column.as_str() else {
                        return Err(Error::syntax(list, "array of column names expected"));
                    };
                    let Some(column) = self.schema.column(column_name) else {
                        return Err(Error::syntax(list, format!("{column_name} is not a valid column name")));
                    };
                    if self.columns.iter().any(|c| c.index == column.index) {
                        return Err(Error::syntax(
                            list,
                            format!("column {column_name} mentioned more than once"),
                        ));
                    }
                    self.columns.push(MonitoredColumn { index: column.index, select });
                }
            }
            None => {
                let all = self.schema.columns.iter().map(|c| c.index).filter(|&i| i != UUID_COLUMN);
                self.columns.extend(all.map(|index| MonitoredColumn { index, select }));
            }
        }
        condition.map(|json| parse_condition(&self.schema, json)).transpose()
    }

    /// The rows that satisfy any of several requests' conditions.
    fn set_condition(&mut self, conditions: Vec<(Condition, String)>) {
        self.condition = AnyOf::new([]);
        self.condition_text = String::new();
        if conditions.iter().any(|(c, _)| c.is_true()) {
            return;
        }
        let mut clauses: Vec<Clause> = Vec::new();
        for (condition, text) in conditions {
            clauses.extend(condition.clauses);
            self.condition_text.push_str(&text);
        }
        self.condition = AnyOf::new(clauses);
    }

    /// True if a column changed that is wanted or, as the original has it, that the condition looks at.
    fn differs(&self, old: &Row, new: &Row) -> bool {
        let changed = |column: usize| old.cell(column) != new.cell(column);
        self.columns.iter().any(|c| changed(c.index)) || self.condition.columns().any(changed)
    }

    fn write_change(&self, out: &mut Writer, change: &Change, version: Version) {
        let wanted = |row: &Row| version == Version::V1 || self.condition.matches(row);
        let old = change.old.as_ref().filter(|r| wanted(r));
        let new = change.new.as_ref().filter(|r| wanted(r));
        match (old, new) {
            (None, None) => {}
            (Some(row), None) => self.write_match(out, change.uuid, row, false, version),
            (None, Some(row)) => self.write_match(out, change.uuid, row, true, version),
            (Some(old), Some(new)) => {
                if self.select & MODIFY == 0 || !self.differs(old, new) {
                    return;
                }
                out.row(&self.schema.name, change.uuid);
                if version == Version::V1 {
                    let mut first = true;
                    out.text.push_str("\"old\":{");
                    for c in self.columns.iter().filter(|c| c.select & MODIFY != 0) {
                        if old.cell(c.index) != new.cell(c.index) {
                            self.write_column(&mut out.text, c.index, old, &mut first);
                        }
                    }
                    out.text.push_str("},");
                    self.write_row(&mut out.text, "new", new, MODIFY, false);
                } else {
                    let mut first = true;
                    out.text.push_str("\"modify\":{");
                    for c in self.columns.iter().filter(|c| c.select & MODIFY != 0) {
                        let (a, b) = (old.cell(c.index), new.cell(c.index));
                        if a == b {
                            continue;
                        }
                        let column = &self.schema.columns[c.index];
                        name(&mut out.text, &column.name, &mut first);
                        a.diff(b, &column.kind).cell().write_json(&column.kind, &mut out.text);
                    }
                    out.text.push('}');
                }
                out.text.push('}');
            }
        }
    }

    /// Writes that a row came or went.
    fn write_match(&self, out: &mut Writer, uuid: Uuid, row: &Row, came: bool, version: Version) {
        let bit = if came { INSERT } else { DELETE };
        if self.select & bit == 0 {
            return;
        }
        out.row(&self.schema.name, uuid);
        match (version, came) {
            (Version::V1, true) => self.write_row(&mut out.text, "new", row, INSERT, false),
            (Version::V1, false) => self.write_row(&mut out.text, "old", row, DELETE, false),
            (_, true) => self.write_row(&mut out.text, "insert", row, INSERT, true),
            (_, false) => out.text.push_str("\"delete\":null"),
        }
        out.text.push('}');
    }

    /// Writes `"word":{columns}` with the columns wanted for `bit`.
    fn write_row(&self, out: &mut String, word: &str, row: &Row, bit: u8, skip_defaults: bool) {
        out.push('"');
        out.push_str(word);
        out.push_str("\":{");
        let mut first = true;
        for c in self.columns.iter().filter(|c| c.select & bit != 0) {
            if !(skip_defaults && row.cell(c.index).is_default(&self.schema.columns[c.index].kind)) {
                self.write_column(out, c.index, row, &mut first);
            }
        }
        out.push('}');
    }

    fn write_column(&self, out: &mut String, index: usize, row: &Row, first: &mut bool) {
        let column = &self.schema.columns[index];
        name(out, &column.name, first);
        row.cell(index).write_json(&column.kind, out);
    }
}

fn name(out: &mut String, name: &str, first: &mut bool) {
    if !*first {
        out.push(',');
    }
    *first = false;
    write_string(out, name);
    out.push(':');
}

/// Writes `{table:{uuid:{...},...},...}`.
struct Writer {
    text: String,
    in_table: bool,
}

impl Writer {
    fn new() -> Writer {
        Writer { text: String::from("{"), in_table: false }
    }

    /// Begins a row's object. The caller writes its members and closes it.
    fn row(&mut self, table: &str, uuid: Uuid) {
        if self.in_table {
            self.text.push(',');
        } else {
            if self.text.len() > 1 {
                self.text.push(',');
            }
            write_string(&mut self.text, table);
            self.text.push_str(":{");
            self.in_table = true;
        }
        self.text.push('"');
        uuid.write_to(&mut self.text);
        self.text.push_str("\":{");
    }

    fn end_table(&mut self) {
        if self.in_table {
            self.text.push('}');
            self.in_table = false;
        }
    }

    fn finish(mut self) -> Option<Arc<str>> {
        if self.text.len() == 1 {
            return None;
        }
        self.text.push('}');
        Some(self.text.into())
    }
}
