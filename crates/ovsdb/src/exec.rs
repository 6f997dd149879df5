//! The operations of `transact` (RFC 7047 section 5.2).

use crate::Uuid;
use crate::atom::{SymbolTable, uuid_to_json};
use crate::condition::Condition;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::mutation::Mutation;
use crate::parser::{Kinds, Name, Parser};
use crate::schema::{FIRST_COLUMN, TableSchema, UUID_COLUMN};
use crate::table::{FastMap, Row, Table};
use crate::txn::Txn;
use ib_base::json::{Json, Object};

/// What a transaction's executor needs to know about who asks, and when.
pub struct Context<'a> {
    /// True if the asker holds the lock of this name.
    pub holds_lock: &'a dyn Fn(&str) -> bool,
    /// The asker may only read.
    pub read_only: bool,
    /// The name of the database, if it is one that nobody may change.
    pub reserved: Option<&'a str>,
    /// Milliseconds since the transaction was first tried; limits how long a `wait` may still wait.
    pub elapsed_ms: i64,
}

/// The outcome of running all operations.
pub enum Executed {
    /// All were run; on an error the last result but `null`s is it, and nothing may be committed.
    Done {
        /// One result for each operation.
        results: Vec<Json>,
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
    Result(Object),
    Wait(i64),
}

struct Executor<'a> {
    tables: &'a mut [Table],
    names: &'a dyn Fn(&str) -> Option<usize>,
    txn: &'a mut Txn,
    symbols: SymbolTable,
    context: &'a Context<'a>,
}

/// Runs operations on `tables`, recording what they touch in `txn`. The caller prepares and commits, or aborts.
pub fn execute(
    tables: &mut [Table],
    names: &dyn Fn(&str) -> Option<usize>,
    txn: &mut Txn,
    operations: &[Json],
    context: &Context<'_>,
) -> Executed {
    let mut x = Executor { tables, names, txn, symbols: SymbolTable::new(), context };
    let mut results = Vec::with_capacity(operations.len());
    for (i, operation) in operations.iter().enumerate() {
        let mut parser = Parser::new(operation, Name::Operation(i + 1, operations.len()));
        let step = x.operation(&mut parser);
        match parser.finish().and(step) {
            Ok(Step::Result(result)) => results.push(Json::Object(result)),
            Ok(Step::Wait(timeout_ms)) => return Executed::Wait { timeout_ms },
            Err(error) => {
                results.push(error.to_json());
                results.resize(operations.len(), Json::Null);
                return Executed::Done { results, ok: false };
            }
        }
    }
    Executed::Done { results, ok: true }
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
        let mut row = self.tables[table].new_row(uuid);
        row.set_many(&data);
        self.txn.insert(self.tables, table, row);
        let mut result = Object::new();
        result.insert("uuid", uuid_to_json(uuid));
        Ok(Step::Result(result))
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
            let mut seen: FastMap<Vec<&Datum>, ()> = FastMap::default();
            rows.retain(|row| seen.insert(columns.iter().map(|&c| row.get(c)).collect(), ()).is_none());
        }
        if !sort.is_empty() {
            let key = |row: &Row| sort.iter().map(|&c| row.get(c).clone()).collect::<Vec<_>>();
            rows.sort_by_cached_key(|row| key(row));
        }
        let rows = rows.iter().map(|row| row_to_json(&t.schema, row, &columns)).collect();
        let mut result = Object::new();
        result.insert("rows", Json::Array(rows));
        Ok(Step::Result(result))
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
        if let Some(column) =
            data.iter().map(|(c, _)| &schema.columns[*c]).find(|c| !c.mutable || c.index < FIRST_COLUMN)
        {
            let message = format!("Cannot update immutable column {} in table {}.", column.name, schema.name);
            return Err(Error::syntax_tagged(parser.json(), "constraint violation", message));
        }
        let condition = self.condition(table, where_json)?;
        self.may_write("update")?;
        let found = self.matching(table, &condition);
        for &uuid in &found {
            let differs = |row: &Row| data.iter().any(|(c, d)| row.get(*c) != d);
            if self.tables[table].row(uuid).is_some_and(differs) {
                self.txn.update(self.tables, table, uuid, &data);
            }
        }
        Ok(count(found.len()))
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
        for &uuid in &found {
            for mutation in &mutations {
                let Some(row) = self.tables[table].row(uuid) else { continue };
                let new = mutation.apply(&schema, row)?;
                if new != *row.get(mutation.column) {
                    self.txn.update(self.tables, table, uuid, &[(mutation.column, new)]);
                }
            }
        }
        Ok(count(found.len()))
    }

    fn delete(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let table = self.table(parser);
        let where_json = parser.required("where", Kinds::ARRAY);
        let (false, Some(table)) = (parser.has_failed(), table) else { return Err(in_parser()) };
        let condition = self.condition(table, where_json)?;
        self.may_write("delete")?;
        let found = self.matching(table, &condition);
        for &uuid in &found {
            self.txn.delete(self.tables, table, uuid);
        }
        Ok(count(found.len()))
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
        let equal = match until_json.and_then(Json::as_str) {
            Some("==") => true,
            Some("!=") => false,
            _ => {
                let message = "\"until\" must be \"==\" or \"!=\"";
                return Err(Error::syntax(until_json.unwrap_or(&Json::Null), message));
            }
        };
        let mut expected: FastMap<Vec<Datum>, ()> = FastMap::default();
        for json in rows_json.as_array().unwrap_or_default() {
            let mut row = Row::new(self.tables[table].defaults.clone());
            row.set_many(&self.row_data(table, json)?);
            expected.insert(columns.iter().map(|&c| row.get(c).clone()).collect(), ());
        }
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
        let mut actual: FastMap<Vec<&Datum>, ()> = FastMap::default();
        for uuid in self.matching(table, &condition) {
            if let Some(row) = self.tables[table].row(uuid) {
                actual.insert(columns.iter().map(|&c| row.get(c)).collect(), ());
            }
        }
        let same = actual.len() == expected.len()
            && expected.keys().all(|row| actual.contains_key(&row.iter().collect::<Vec<_>>()));
        if same == equal {
            return Ok(Step::Result(Object::new()));
        }
        if timeout_ms == 0 {
            return Err(Error::new("timed out", "\"where\" clause test failed"));
        }
        let elapsed_ms = self.context.elapsed_ms;
        if elapsed_ms >= timeout_ms {
            return Err(Error::new("timed out", format!("\"wait\" timed out after {elapsed_ms} ms")));
        }
        Ok(Step::Wait(timeout_ms))
    }

    fn commit(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        if let Some(Json::Bool(true)) = parser.required("durable", Kinds::BOOL) {
            self.txn.durable = true;
        }
        Ok(Step::Result(Object::new()))
    }

    fn comment(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        if let Some(comment) = parser.required("comment", Kinds::STRING).and_then(Json::as_str) {
            self.txn.comments.push(comment.to_string());
        }
        Ok(Step::Result(Object::new()))
    }

    fn assert(&mut self, parser: &mut Parser<'_>) -> Result<Step> {
        let Some(name) = parser.required("lock", Kinds::ID).and_then(Json::as_str) else {
            return Err(in_parser());
        };
        if (self.context.holds_lock)(name) {
            Ok(Step::Result(Object::new()))
        } else {
            Err(Error::new("not owner", format!("Asserted lock {name} not held.")))
        }
    }
}

fn count(n: usize) -> Step {
    let mut result = Object::new();
    result.insert("count", n);
    Step::Result(result)
}

/// The rows that satisfy all clauses. Conditions that name a row by UUID or by an index cost a lookup, others a pass
/// over the table.
pub fn matching(table: &Table, table_index: usize, condition: &Condition, txn: &Txn) -> Vec<Uuid> {
    let matches = |uuid: &Uuid| table.row(*uuid).is_some_and(|row| condition.matches_all(row));
    if let Some(uuid) = condition.row_uuid() {
        return Some(uuid).filter(matches).into_iter().collect();
    }
    for (i, columns) in table.schema.indexes.iter().enumerate() {
        let key: Option<Box<[Datum]>> = columns.iter().map(|&c| condition.equal_to(c).cloned()).collect();
        if let Some(key) = key {
            // The index shows the state before the transaction; rows touched since are looked at besides.
            let indexed = table.indexes[i].get(&key).copied().filter(|u| !txn.has_touched(table_index, *u));
            return indexed.into_iter().chain(txn.touched_in(table_index)).filter(matches).collect();
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
    let mut data = Vec::with_capacity(object.len());
    for (name, value) in object.iter() {
        let Some(column) = schema.column(name) else {
            let message = format!("No column {name} in table {}.", schema.name);
            return Err(Error::syntax_tagged(json, "unknown column", message));
        };
        data.push((column.index, Datum::from_json(&column.kind, value, Some(symbols))?));
    }
    Ok(data)
}

/// The given columns of a row.
pub fn row_to_json(schema: &TableSchema, row: &Row, columns: &[usize]) -> Json {
    let member = |&c: &usize| (schema.columns[c].name.clone(), row.get(c).to_json(&schema.columns[c].kind));
    Json::object(columns.iter().map(member))
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
