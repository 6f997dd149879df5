//! The operations of `transact` (RFC 7047 section 5.2).

use crate::Uuid;
use crate::atom::SymbolTable;
use crate::cell::{Cell, OwnedCell};
use crate::condition::Condition;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::mutation::Mutation;
use crate::parser::{Kinds, Name, Parser};
use crate::rbac::{Asker, Check};
use crate::schema::{ColumnSchema, FIRST_COLUMN, TableSchema, UUID_COLUMN};
use crate::table::{FastSet, Row, Table};
use crate::txn::Txn;
use ib_base::json::{Json, write_string};
use std::fmt::Write as _;

/// What a transaction's executor needs to know about who asks, and when.
pub struct Context<'a> {
    /// True if the asker holds the lock of this name.
    pub holds_lock: &'a dyn Fn(&str) -> bool,
    /// The asker may only read.
    pub read_only: bool,
    /// The name of the database, if it is one that nobody may change.
    pub reserved: Option<&'a str>,
    /// Who asks, where roles restrict that.
    pub asker: Option<&'a Asker>,
    /// Milliseconds since the transaction was first tried; limits how long a `wait` may still wait. None if nothing can happen meanwhile
    /// that would be waited for.
    pub elapsed_ms: Option<i64>,
}

/// The outcome of running all operations.
pub enum Executed {
    /// All were run; on an error the last result but `null`s is it, and nothing may be committed.
    Done {
        /// One result for each operation, as JSON: an array whose closing bracket is missing.
        results: String,
        /// True if no operation failed.
        ok: bool,
    },
    /// A `wait` does not hold yet. Try again when the database has changed, or when this many milliseconds since the first try
    /// have passed.
    Wait {
        /// `i64::MAX` if there is no limit.
        timeout_ms: i64,
    },
}

enum Step {
    /// The result was written.
    Done,
    Wait(i64),
}

struct Executor<'a> {
    tables: &'a mut [Table],
    names: &'a dyn Fn(&str) -> Option<usize>,
    txn: &'a mut Txn,
    symbols: SymbolTable,
    context: &'a Context<'a>,
    /// Results so far.
    out: String,
}

/// Runs operations on `tables`, recording what they touch in `txn`. The caller prepares and commits, or aborts.
pub fn execute(
    tables: &mut [Table],
    names: &dyn Fn(&str) -> Option<usize>,
    txn: &mut Txn,
    operations: &[Json],
    context: &Context<'_>,
) -> Executed {
    let mut out = String::with_capacity(256);
    out.push('[');
    let mut x = Executor { tables, names, txn, symbols: SymbolTable::new(), context, out };
    for (i, operation) in operations.iter().enumerate() {
        let mut parser = Parser::new(operation, Name::Operation(i + 1, operations.len()));
        if i > 0 {
            x.out.push(',');
        }
        let before = x.out.len();
        let step = x.operation(&mut parser);
        match parser.finish().and(step) {
            Ok(Step::Done) => {}
            Ok(Step::Wait(timeout_ms)) => return Executed::Wait { timeout_ms },
            Err(error) => {
                x.out.truncate(before);
                error.to_json().write_to(&mut x.out);
                for _ in i + 1..operations.len() {
                    x.out.push_str(",null");
                }
                return Executed::Done { results: x.out, ok: false };
            }
        }
    }
    Executed::Done { results: x.out, ok: true }
}

/// The place of an error that the parser holds and `finish` will return.
fn in_parser() -> Error {
    Error::tag_only("syntax error")
}

impl Executor<'_> {
    fn operation(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let Some(op) = parser.required("op", Kinds::ID).and_then(Json::as_str) else {
            return Err(in_parser());
        };
        match op {
            "insert" => self.insert(parser),
            "select" => self.select(parser),
            "update" => self.update(parser),
            "mutate" => self.mutate(parser),
            "delete" => self.delete(parser),
            "wait" => self.wait(parser),
            "commit" => self.commit(parser),
            "abort" => {
                if parser.has_failed() {
                    return Err(in_parser());
                }
                Err(Error::new("aborted", "aborted by request"))
            }
            "comment" => self.comment(parser),
            "assert" => self.assert(parser),
            _ => {
                parser.fail(&format!("No operation \"{op}\""));
                Err(in_parser())
            }
        }
    }

    fn table(&self, parser: &mut Parser<'_>) -> Option<usize> {
        let name = parser.required("table", Kinds::ID).and_then(Json::as_str)?;
        let table = (self.names)(name);
        if table.is_none() {
            parser.fail(&format!("No table named {name}."));
        }
        table
    }

    fn may_write(&self, operation: &str) -> Result<()> {
        if self.context.read_only {
            let message =
                format!("{operation} operation not allowed when database server is in read only mode");
            return Err(Error::new("not allowed", message));
        }
        if let Some(name) = self.context.reserved {
            let message = format!("{operation} operation not allowed on table in reserved database {name}");
            return Err(Error::new("not allowed", message));
        }
        Ok(())
    }

    /// What the asker's role permits to do with a table; none if it may do everything.
    fn check(&self, table: usize, deed: &'static str) -> Option<Check<'_>> {
        Check::new(self.tables, self.context.asker, table, deed)
    }

    fn check_rows(&self, check: &Check<'_>, table: usize, rows: &[Uuid]) -> Result<()> {
        rows.iter().filter_map(|&uuid| self.tables[table].row(uuid)).try_for_each(|row| check.row(row))
    }

    fn condition(&mut self, table: usize, json: Option<&Json>) -> Result<Condition> {
        let Some(json) = json else { return Err(in_parser()) };
        Condition::from_json(&self.tables[table].schema, json, Some(&mut self.symbols))
    }

    fn matching(&self, table: usize, condition: &Condition) -> Vec<Uuid> {
        matching(&self.tables[table], table, condition, self.txn)
    }

    fn row_data(&mut self, table: usize, json: &Json) -> Result<Vec<(usize, Datum)>> {
        row_from_json(&self.tables[table].schema, json, &mut self.symbols)
    }

    fn insert(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let table = self.table(parser);
        let uuid_name = parser.optional("uuid-name", Kinds::ID);
        let uuid_json = parser.optional("uuid", Kinds::STRING);
        let row_json = parser.required("row", Kinds::OBJECT);
        let (false, Some(table), Some(row_json)) = (parser.has_failed(), table, row_json) else {
            return Err(in_parser());
        };
        let mut uuid = Uuid::ZERO;
        if let Some(json) = uuid_json {
            uuid = Uuid::parse(json.as_str().unwrap_or_default())
                .ok_or_else(|| Error::syntax(json, "bad uuid"))?;
            if self.tables[table].rows.contains_key(&uuid) || self.txn.has_touched(table, uuid) {
                return Err(Error::syntax_tagged(
                    json,
                    "duplicate uuid",
                    "This UUID would duplicate a UUID already present within the table or deleted within the same \
                     transaction.",
                ));
            }
        }
        if let Some(json) = uuid_name {
            let symbol = self.symbols.entry(json.as_str().unwrap_or_default());
            if symbol.created {
                return Err(Error::syntax_tagged(
                    json,
                    "duplicate uuid-name",
                    "This \"uuid-name\" appeared on an earlier \"insert\" operation.",
                ));
            }
            if uuid_json.is_some() {
                symbol.uuid = uuid;
            } else {
                uuid = symbol.uuid;
            }
            symbol.created = true;
        } else if uuid_json.is_none() {
            uuid = Uuid::random();
        }
        let mut data = self.row_data(table, row_json)?;
        data.retain(|(column, _)| *column >= FIRST_COLUMN);
        for (column, error) in &self.tables[table].bad_defaults {
            if !data.iter().any(|(c, _)| c == column) {
                return Err(error.clone());
            }
        }
        self.may_write("insert")?;
        let row = self.tables[table].filled_row(uuid, &data);
        if let Some(check) = self.check(table, "row insertion into") {
            check.insert_delete()?;
            check.row(&row)?;
        }
        self.txn.insert(self.tables, table, row);
        self.out.push_str("{\"uuid\":[\"uuid\",\"");
        uuid.write_to(&mut self.out);
        self.out.push_str("\"]}");
        Ok(Step::Done)
    }

    fn select(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let table = self.table(parser);
        let where_json = parser.required("where", Kinds::ARRAY);
        let columns_json = parser.optional("columns", Kinds::ARRAY);
        let sort_json = parser.optional("sort", Kinds::ARRAY);
        let (false, Some(table)) = (parser.has_failed(), table) else { return Err(in_parser()) };
        let condition = self.condition(table, where_json)?;
        let columns = columns_from_json(&self.tables[table].schema, columns_json)?;
        let sort = match sort_json {
            None => Vec::new(),
            some => columns_from_json(&self.tables[table].schema, some)?,
        };
        let t = &self.tables[table];
        let found = self.matching(table, &condition);
        let mut rows: Vec<&Row> = found.iter().filter_map(|&u| t.row(u)).collect();
        if !columns.contains(&UUID_COLUMN) {
            let mut seen: FastSet<Vec<Cell<'_>>> = FastSet::default();
            rows.retain(|row| seen.insert(columns.iter().map(|&c| row.cell(c)).collect()));
        }
        if !sort.is_empty() {
            let key = |row: &Row| sort.iter().map(|&c| row.get(c)).collect::<Vec<_>>();
            rows.sort_by_cached_key(|row| key(row));
        }
        self.out.push_str("{\"rows\":[");
        for (i, row) in rows.into_iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            write_row(&t.schema, row, &columns, &mut self.out);
        }
        self.out.push_str("]}");
        Ok(Step::Done)
    }

    fn update(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let table = self.table(parser);
        let where_json = parser.required("where", Kinds::ARRAY);
        let row_json = parser.required("row", Kinds::OBJECT);
        let (false, Some(table), Some(row_json)) = (parser.has_failed(), table, row_json) else {
            return Err(in_parser());
        };
        let data = self.row_data(table, row_json)?;
        let schema = self.tables[table].schema.clone();
        let immutable = |c: &&ColumnSchema| !c.mutable || c.index < FIRST_COLUMN;
        if data.iter().map(|(c, _)| &schema.columns[*c]).any(|c| immutable(&c))
            && let Some(object) = row_json.as_object()
            && let Some(column) = object
                .in_table_order()
                .into_iter()
                .filter_map(|(name, _)| schema.column(name))
                .find(immutable)
        {
            let message = format!("Cannot update immutable column {} in table {}.", column.name, schema.name);
            return Err(Error::syntax_tagged(parser.json(), "constraint violation", message));
        }
        let condition = self.condition(table, where_json)?;
        self.may_write("update")?;
        let found = self.matching(table, &condition);
        if let Some(check) = self.check(table, "modification of") {
            check.columns(data.iter().map(|(c, _)| *c))?;
            self.check_rows(&check, table, &found)?;
        }
        let cells: Vec<(usize, OwnedCell)> = data.iter().map(|(c, d)| (*c, OwnedCell::new(d))).collect();
        for &uuid in &found {
            let differs = |row: &Row| cells.iter().any(|(c, d)| row.cell(*c) != d.cell());
            if self.tables[table].row(uuid).is_some_and(differs) {
                self.txn.update_cells(self.tables, table, uuid, &cells);
            }
        }
        Ok(self.count(found.len()))
    }

    fn mutate(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let table = self.table(parser);
        let where_json = parser.required("where", Kinds::ARRAY);
        let mutations_json = parser.required("mutations", Kinds::ARRAY);
        let (false, Some(table), Some(mutations_json)) = (parser.has_failed(), table, mutations_json) else {
            return Err(in_parser());
        };
        let schema = self.tables[table].schema.clone();
        let list = mutations_json.as_array().unwrap_or_default();
        let mutations = list.iter().map(|m| Mutation::from_json(&schema, m, &mut self.symbols));
        let mutations = mutations.collect::<Result<Vec<_>>>()?;
        let condition = self.condition(table, where_json)?;
        self.may_write("mutate")?;
        let found = self.matching(table, &condition);
        if let Some(check) = self.check(table, "mutate operation on") {
            check.mutations(&mutations)?;
            self.check_rows(&check, table, &found)?;
        }
        for &uuid in &found {
            for mutation in &mutations {
                let Some(row) = self.tables[table].row(uuid) else { continue };
                let new = mutation.apply(&schema, row)?;
                if new.cell() != row.cell(mutation.column) {
                    self.txn.update_cells(self.tables, table, uuid, &[(mutation.column, new)]);
                }
            }
        }
        Ok(self.count(found.len()))
    }

    fn delete(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let where_json = parser.required("where", Kinds::ARRAY);
        let table = self.table(parser);
        let (false, Some(table)) = (parser.has_failed(), table) else { return Err(in_parser()) };
        let condition = self.condition(table, where_json)?;
        self.may_write("delete")?;
        let found = self.matching(table, &condition);
        if let Some(check) = self.check(table, "row deletion from") {
            check.insert_delete()?;
            self.check_rows(&check, table, &found)?;
        }
        for &uuid in &found {
            self.txn.delete(self.tables, table, uuid);
        }
        Ok(self.count(found.len()))
    }

    fn wait(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let timeout = parser.optional("timeout", Kinds::NUMBER);
        let where_json = parser.required("where", Kinds::ARRAY);
        let columns_json = parser.optional("columns", Kinds::ARRAY);
        let until_json = parser.required("until", Kinds::STRING);
        let rows_json = parser.required("rows", Kinds::ARRAY);
        let table = self.table(parser);
        let (false, Some(table), Some(rows_json)) = (parser.has_failed(), table, rows_json) else {
            return Err(in_parser());
        };
        let condition = self.condition(table, where_json)?;
        let columns = columns_from_json(&self.tables[table].schema, columns_json)?;
        let timeout_ms = match timeout {
            None => i64::MAX,
            Some(json) => {
                let ms = json.as_real().unwrap_or(0.0);
                if ms < 0.0 {
                    return Err(Error::syntax(json, "timeout must be nonnegative"));
                }
                // Saturates: a timeout beyond the range of time is none.
                ms as i64
            }
        };
        let equal = match until_json.and_then(Json::as_str) {
            Some("==") => true,
            Some("!=") => false,
            _ => {
                let message = "\"until\" must be \"==\" or \"!=\"";
                return Err(Error::syntax(until_json.unwrap_or(&Json::Null), message));
            }
        };
        let mut expected: FastSet<Vec<OwnedCell>> = FastSet::default();
        for json in rows_json.as_array().unwrap_or_default() {
            let data = self.row_data(table, json)?;
            let row = self.tables[table].default_row.with(&data);
            let cell = |&c: &usize| match data.iter().find(|(column, _)| *column == c) {
                // What a row says of _uuid and _version counts too.
                Some((_, datum)) => OwnedCell::new(datum),
                None => row.cell(c).into(),
            };
            expected.insert(columns.iter().map(cell).collect());
        }
        let mut actual: FastSet<Vec<OwnedCell>> = FastSet::default();
        for uuid in self.matching(table, &condition) {
            if let Some(row) = self.tables[table].row(uuid) {
                actual.insert(columns.iter().map(|&c| row.cell(c).into()).collect());
            }
        }
        let same = actual == expected;
        if same == equal {
            return Ok(self.nothing());
        }
        if timeout_ms == 0 {
            return Err(Error::new("timed out", "\"where\" clause test failed"));
        }
        let Some(elapsed_ms) = self.context.elapsed_ms else {
            return Err(Error::new("not supported", "triggers not supported"));
        };
        if elapsed_ms >= timeout_ms {
            return Err(Error::new("timed out", format!("\"wait\" timed out after {elapsed_ms} ms")));
        }
        Ok(Step::Wait(timeout_ms))
    }

    fn count(&mut self, n: usize) -> Step {
        let _ = write!(self.out, "{{\"count\":{n}}}");
        Step::Done
    }

    fn nothing(&mut self) -> Step {
        self.out.push_str("{}");
        Step::Done
    }

    fn commit(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        if let Some(Json::Bool(true)) = parser.required("durable", Kinds::BOOL) {
            self.txn.durable = true;
        }
        if !parser.has_failed() {
            // It changes nothing, but counts among what does.
            self.may_write("commit")?;
        }
        Ok(self.nothing())
    }

    fn comment(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        if let Some(comment) = parser.required("comment", Kinds::STRING).and_then(Json::as_str) {
            self.txn.comments.push(comment.to_string());
        }
        Ok(self.nothing())
    }

    fn assert(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let Some(name) = parser.required("lock", Kinds::ID).and_then(Json::as_str) else {
            return Err(in_parser());
        };
        if (self.context.holds_lock)(name) {
            Ok(self.nothing())
        } else {
            Err(Error::new("not owner", format!("Asserted lock {name} not held.")))
        }
    }
}

/// The rows that satisfy all clauses. Conditions that name a row by UUID or by an index cost a lookup, others a pass
/// over the table.
pub fn matching(table: &Table, table_index: usize, condition: &Condition, txn: &Txn) -> Vec<Uuid> {
    let matches = |uuid: &Uuid| table.row(*uuid).is_some_and(|row| condition.matches_all(row));
    if let Some(uuid) = condition.row_uuid() {
        return Some(uuid).filter(matches).into_iter().collect();
    }
    for (i, columns) in table.schema.indexes.iter().enumerate() {
        let key: Option<Vec<Cell<'_>>> = columns.iter().map(|&c| condition.equal_to(c)).collect();
        if let Some(key) = key {
            // The index shows the state before the transaction; rows touched since are looked at besides.
            let hash = table.hash_values(key.into_iter());
            let indexed = table.indexes[i].candidates(hash).filter(|u| !txn.has_touched(table_index, *u));
            return indexed.chain(txn.touched_in(table_index)).filter(matches).collect();
        }
    }
    table.rows.iter().filter(|(_, e)| condition.matches_all(&e.row)).map(|(u, _)| *u).collect()
}

/// Reads `{column: value, ...}`.
pub fn row_from_json(
    schema: &TableSchema,
    json: &Json,
    symbols: &mut SymbolTable,
) -> Result<Vec<(usize, Datum)>> {
    let Some(object) = json.as_object() else { return Err(Error::syntax(json, "row must be JSON object")) };
    let mut column = |name: &str, value: &Json| {
        let Some(column) = schema.column(name) else {
            let message = format!("No column {name} in table {}.", schema.name);
            return Err(Error::syntax_tagged(json, "unknown column", message));
        };
        Ok((column.index, Datum::from_json(&column.kind, value, Some(symbols))?))
    };
    let mut data = Vec::with_capacity(object.len());
    for (name, value) in object.iter() {
        match column(name, value) {
            Ok(datum) => data.push(datum),
            // Of several the original names another one.
            Err(error) => {
                let mut errors = object.in_table_order().into_iter().map(|(name, value)| column(name, value));
                return Err(errors.find_map(Result::err).unwrap_or(error));
            }
        }
    }
    Ok(data)
}

/// Appends the given columns of a row as a JSON object.
fn write_row(schema: &TableSchema, row: &Row, columns: &[usize], out: &mut String) {
    out.push('{');
    for (i, &c) in columns.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, &schema.columns[c].name);
        out.push(':');
        row.cell(c).write_json(&schema.columns[c].kind, out);
    }
    out.push('}');
}

/// Reads a list of distinct column names; none means all.
pub fn columns_from_json(schema: &TableSchema, json: Option<&Json>) -> Result<Vec<usize>> {
    const EXPECTED: &str = "array of distinct column names expected";
    let Some(json) = json else { return Ok((0..schema.columns.len()).collect()) };
    let mut columns = Vec::new();
    for name in json.as_array().ok_or_else(|| Error::syntax(json, EXPECTED))? {
        let name = name.as_str().ok_or_else(|| Error::syntax(json, EXPECTED))?;
        let column = schema.column(name);
        let column =
            column.ok_or_else(|| Error::syntax(json, format!("{name} is not a valid column name")))?;
        if columns.contains(&column.index) {
            return Err(Error::syntax(json, EXPECTED));
        }
        columns.push(column.index);
    }
    Ok(columns)
}
