//! A database file's records for people: what each transaction did, in as much detail as `-m` asks for.

use ib_base::json::{Json, Object};
use ib_ovsdb::{Datum, Error, Schema, UNLIMITED};
use std::collections::HashMap;

/// Prints records in their order; remembers what rows are called.
pub struct Printer {
    verbosity: u32,
    records: u64,
    schema: Option<Schema>,
    names: HashMap<String, String>,
}

/// How much of a row's UUID is shown.
fn short(uuid: &str) -> &str {
    uuid.get(..8).unwrap_or(uuid)
}

impl Printer {
    /// Before the first record. `verbosity`: 0 a line a record, 1 rows, 2 columns.
    pub fn new(verbosity: u32) -> Printer {
        Printer { verbosity, records: 0, schema: None, names: HashMap::new() }
    }

    /// The text of the next record.
    pub fn record(&mut self, json: &Json) -> Result<String, Error> {
        let n = self.records;
        self.records += 1;
        if json.get("name").is_some() && json.get("tables").is_some() {
            let described = self.schema(json)?;
            return Ok(format!("record {n}: {}\n\n", described.replacen(", ", " schema, ", 1)));
        }
        let mut out = format!("record {n}:");
        let Some(record) = json.as_object() else {
            out.push('\n');
            return Ok(out);
        };
        self.changes(record, &mut out);
        Ok(out)
    }

    /// Takes note of a schema and describes it.
    pub fn schema(&mut self, json: &Json) -> Result<String, Error> {
        let schema = Schema::from_json(json)?;
        let text = format!("\"{}\", version=\"{}\", cksum=\"{}\"", schema.name, schema.version, schema.cksum);
        self.schema = Some(schema);
        self.names.clear();
        Ok(text)
    }

    /// Adds what a transaction changed, from its date on the line that has been begun.
    pub fn changes(&mut self, record: &Object, out: &mut String) {
        if let Some(ms) = record.get("_date").and_then(Json::as_integer) {
            // Older files count seconds.
            let ms = if ms < i64::from(i32::MAX) { ms.saturating_mul(1000) } else { ms };
            let ms = u64::try_from(ms).unwrap_or(0);
            out.push_str(&ib_base::time::strftime(" %Y-%m-%d %H:%M:%S.###", ms, false));
        }
        if let Some(comment) = record.get("_comment").and_then(Json::as_str) {
            out.push_str(&format!(" \"{comment}\""));
        }
        out.push('\n');
        let is_diff = record.get("_is_diff").and_then(Json::as_bool) == Some(true);
        for (table, rows) in record.iter().filter(|(name, _)| !name.starts_with('_')) {
            for (uuid, row) in rows.as_object().into_iter().flat_map(Object::iter) {
                self.row(table, uuid, row, is_diff, out);
            }
        }
        // A record without changes is one line.
        if self.verbosity > 0 && record.iter().any(|(name, _)| !name.starts_with('_')) {
            out.push('\n');
        }
    }

    fn row(&mut self, table: &str, uuid: &str, row: &Json, is_diff: bool, out: &mut String) {
        let known = self.names.get(uuid).cloned();
        let new_name = row.get("name").and_then(Json::as_str).map(|name| format!("\"{name}\""));
        if self.verbosity > 0 {
            let id = short(uuid);
            match &known {
                None => match &new_name {
                    Some(name) => out.push_str(&format!("  table {table} insert row {name} ({id}):\n")),
                    None => out.push_str(&format!("  table {table} insert row {id}:\n")),
                },
                Some(name) => {
                    let diff = if is_diff || row.is_null() { " diff" } else { "" };
                    out.push_str(&format!("  table {table} row {name} ({id}){diff}:\n"));
                }
            }
            if row.is_null() {
                out.push_str("    delete row\n");
            } else if self.verbosity > 1 {
                self.columns(table, row, out);
            }
        }
        if row.is_null() {
            self.names.remove(uuid);
        } else {
            let name = new_name.or(known).unwrap_or_else(|| short(uuid).to_string());
            self.names.insert(uuid.to_string(), name);
        }
    }

    fn columns(&self, table: &str, row: &Json, out: &mut String) {
        let schema = self.schema.as_ref().and_then(|s| s.table(table));
        for (column, value) in row.as_object().into_iter().flat_map(Object::iter) {
            let text = schema.and_then(|s| s.column(column)).and_then(|column| {
                // A difference may have any number of elements.
                let kind = column.kind.unconstrained();
                let datum = Datum::from_json_unchecked(&kind, value, None).ok()?;
                let max = if column.kind.max == 1 { 1 } else { UNLIMITED };
                Some(datum.to_text(&kind.with_cardinality(0, max)))
            });
            let text = text.unwrap_or_else(|| value.to_string());
            out.push_str(&format!("    {column}={text}\n"));
        }
    }
}
