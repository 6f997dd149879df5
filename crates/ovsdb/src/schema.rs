//! Schemas: the tables of a database and the columns of a table.
//!
//! Columns are addressed by index: [`UUID_COLUMN`] and [`VERSION_COLUMN`] first, which every table has, then the schema's own
//! in its order. Tables are addressed by their index in the schema too. Names are looked up once, at the edges.

use crate::error::{Error, Result};
use crate::parser::{Kinds, Parser};
use crate::types::{ColumnType, RefType, is_user_name};
use ib_base::json::{Json, Object};
use std::collections::HashMap;
use std::sync::Arc;

/// Index of the `_uuid` column.
pub const UUID_COLUMN: usize = 0;
/// Index of the `_version` column.
pub const VERSION_COLUMN: usize = 1;
/// Index of the first column that the schema declares.
pub const FIRST_COLUMN: usize = 2;

/// A column's declaration.
#[derive(Clone, Debug)]
pub struct ColumnSchema {
    /// Index in the table.
    pub index: usize,
    /// Name.
    pub name: Arc<str>,
    /// Type with constraints.
    pub kind: ColumnType,
    /// May change after the row's insertion.
    pub mutable: bool,
    /// Is stored on disk.
    pub persistent: bool,
}

/// A table's declaration.
#[derive(Clone, Debug)]
pub struct TableSchema {
    /// Index in the schema.
    pub index: usize,
    /// Name.
    pub name: Arc<str>,
    /// All columns, `_uuid` and `_version` first.
    pub columns: Vec<ColumnSchema>,
    by_name: HashMap<Arc<str>, usize>,
    /// The greatest number of rows, or `u32::MAX`.
    pub max_rows: u32,
    /// Rows live without being referenced.
    pub is_root: bool,
    /// Sets of columns (indexes) whose values identify a row.
    pub indexes: Vec<Vec<usize>>,
}

/// A database's declaration.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Name.
    pub name: Arc<str>,
    /// `x.y.z`, or empty if the schema has none.
    pub version: Arc<str>,
    /// The file's checksum as it says, or empty.
    pub cksum: Arc<str>,
    /// All tables.
    pub tables: Vec<Arc<TableSchema>>,
    by_name: HashMap<Arc<str>, usize>,
}

impl ColumnSchema {
    fn from_json(json: &Json, index: usize, name: &Arc<str>) -> Result<ColumnSchema> {
        let mut parser = Parser::new(json, format!("schema for column {name}"));
        let mutable = parser.optional("mutable", Kinds::BOOL).and_then(Json::as_bool).unwrap_or(true);
        let ephemeral = parser.optional("ephemeral", Kinds::BOOL).and_then(Json::as_bool).unwrap_or(false);
        let kind = parser.required("type", Kinds::STRING.or(Kinds::OBJECT));
        parser.finish()?;
        let kind = ColumnType::from_json(kind.unwrap_or(&Json::Null))?;
        // A weak reference disappears when its row does, which is a change: such a column is mutable, whatever is said.
        let mutable = mutable || kind.references().any(|r| r.ref_type == RefType::Weak);
        Ok(ColumnSchema { index, name: name.clone(), kind, mutable, persistent: !ephemeral })
    }

    /// The schema's form.
    pub fn to_json(&self) -> Json {
        let mut object = Object::new();
        if !self.mutable {
            object.insert("mutable", false);
        }
        if !self.persistent {
            object.insert("ephemeral", true);
        }
        object.insert("type", self.kind.to_json());
        Json::Object(object)
    }
}

impl TableSchema {
    fn from_json(json: &Json, index: usize, name: &Arc<str>) -> Result<TableSchema> {
        let mut parser = Parser::new(json, format!("table schema for table {name}"));
        let columns = parser.required("columns", Kinds::OBJECT);
        let max_rows = parser.optional("maxRows", Kinds::INTEGER).and_then(Json::as_integer);
        let is_root = parser.optional("isRoot", Kinds::BOOL).and_then(Json::as_bool).unwrap_or(false);
        let indexes = parser.optional("indexes", Kinds::ARRAY);
        parser.finish()?;
        let max_rows = match max_rows {
            None => u32::MAX,
            Some(n) if n > 0 => u32::try_from(n).unwrap_or(u32::MAX),
            Some(_) => return Err(Error::syntax(json, "maxRows must be at least 1")),
        };
        let none = Object::new();
        let columns = columns.and_then(Json::as_object).unwrap_or(&none);
        if columns.is_empty() {
            return Err(Error::syntax(json, "table must have at least one column"));
        }
        let mut table = TableSchema::empty(index, name.clone());
        table.max_rows = max_rows;
        table.is_root = is_root;
        for (name, column) in columns.iter() {
            if name.starts_with('_') {
                return Err(Error::syntax(json, "names beginning with \"_\" are reserved"));
            }
            if !is_user_name(name) {
                return Err(Error::syntax(json, "name must be a valid id"));
            }
            let column = ColumnSchema::from_json(column, table.columns.len(), name)?;
            table.push(column);
        }
        for index in indexes.and_then(Json::as_array).unwrap_or_default() {
            let set = table.index_from_json(index)?;
            if set.is_empty() {
                return Err(Error::syntax(json, "index must have at least one column"));
            }
            if let Some(c) = set.iter().map(|&c| &table.columns[c]).find(|c| !c.persistent) {
                let message = format!("ephemeral columns (such as {}) may not be indexed", c.name);
                return Err(Error::syntax(json, message));
            }
            table.indexes.push(set);
        }
        Ok(table)
    }

    fn empty(index: usize, name: Arc<str>) -> TableSchema {
        let mut table = TableSchema {
            index,
            name,
            columns: Vec::new(),
            by_name: HashMap::new(),
            max_rows: u32::MAX,
            is_root: false,
            indexes: Vec::new(),
        };
        for (index, name) in [(UUID_COLUMN, "_uuid"), (VERSION_COLUMN, "_version")] {
            let persistent = index == UUID_COLUMN;
            table.push(ColumnSchema {
                index,
                name: name.into(),
                kind: ColumnType::uuid(),
                mutable: false,
                persistent,
            });
        }
        table
    }

    fn push(&mut self, column: ColumnSchema) {
        self.by_name.insert(column.name.clone(), column.index);
        self.columns.push(column);
    }

    fn index_from_json(&self, json: &Json) -> Result<Vec<usize>> {
        const EXPECTED: &str = "array of distinct column names expected";
        let mut set: Vec<usize> = Vec::new();
        for name in json.as_array().ok_or_else(|| Error::syntax(json, EXPECTED))? {
            let name = name.as_str().ok_or_else(|| Error::syntax(json, EXPECTED))?;
            let column = self.column(name);
            let column =
                column.ok_or_else(|| Error::syntax(json, format!("{name} is not a valid column name")))?;
            if set.contains(&column.index) {
                return Err(Error::syntax(json, EXPECTED));
            }
            set.push(column.index);
        }
        Ok(set)
    }

    /// The column called `name`, `_uuid` and `_version` included.
    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.by_name.get(name).map(|&i| &self.columns[i])
    }

    /// The columns that the schema declares.
    pub fn user_columns(&self) -> &[ColumnSchema] {
        &self.columns[FIRST_COLUMN..]
    }

    /// The schema's form. Files of databases whose tables are all root need not say so.
    pub fn to_json(&self, all_root: bool) -> Json {
        let mut object = Object::new();
        if self.is_root && !all_root {
            object.insert("isRoot", true);
        }
        if self.max_rows != u32::MAX {
            object.insert("maxRows", self.max_rows);
        }
        let columns = self.user_columns().iter().map(|c| (c.name.clone(), c.to_json()));
        object.insert("columns", Json::object(columns));
        if !self.indexes.is_empty() {
            let names =
                |set: &Vec<usize>| Json::array(set.iter().map(|&c| self.columns[c].name.clone().into()));
            object.insert("indexes", Json::array(self.indexes.iter().map(names)));
        }
        Json::Object(object)
    }
}

impl Schema {
    /// Reads a schema and checks that it is consistent.
    pub fn from_json(json: &Json) -> Result<Schema> {
        let mut parser = Parser::new(json, "database schema");
        let name = parser.required("name", Kinds::ID);
        let version = parser.optional("version", Kinds::STRING);
        let cksum = parser.optional("cksum", Kinds::STRING);
        let tables = parser.required("tables", Kinds::OBJECT);
        parser.finish()?;
        let text =
            |json: Option<&Json>| -> Arc<str> { json.and_then(Json::as_str).unwrap_or_default().into() };
        let version_text = text(version);
        if version.is_some() && !is_valid_version(&version_text) {
            let message = format!("schema version \"{version_text}\" not in format x.y.z");
            return Err(Error::syntax(json, message));
        }
        let mut schema = Schema {
            name: text(name),
            version: version_text,
            cksum: text(cksum),
            tables: Vec::new(),
            by_name: HashMap::new(),
        };
        let none = Object::new();
        for (name, table) in tables.and_then(Json::as_object).unwrap_or(&none).iter() {
            if name.starts_with('_') {
                return Err(Error::syntax(json, "names beginning with \"_\" are reserved"));
            }
            if !is_user_name(name) {
                return Err(Error::syntax(json, "name must be a valid id"));
            }
            let index = schema.tables.len();
            schema.tables.push(Arc::new(TableSchema::from_json(table, index, name)?));
            schema.by_name.insert(name.clone(), index);
        }
        // A schema that knows nothing of roots has only them.
        if !schema.tables.iter().any(|t| t.is_root) {
            for table in &mut schema.tables {
                Arc::make_mut(table).is_root = true;
            }
        }
        schema.check_references()?;
        schema.persist_lifelines();
        Ok(schema)
    }

    fn check_references(&self) -> Result<()> {
        for table in &self.tables {
            for column in table.user_columns() {
                let bases = [("key", Some(&column.kind.key)), ("value", column.kind.value.as_ref())];
                for (role, base) in bases {
                    let Some(reference) = base.and_then(|b| b.reference.as_ref()) else { continue };
                    if self.table(&reference.table).is_none() {
                        return Err(Error::syntax_plain(format!(
                            "column {} {role} refers to undefined table {}",
                            column.name, reference.table
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Rows of tables that are not root live by the strong references to them. A column with such references
    /// has to be stored even if it is declared ephemeral, or its rows would be gone after a restart.
    fn persist_lifelines(&mut self) {
        let roots: Vec<bool> = self.tables.iter().map(|t| t.is_root).collect();
        for table in &mut self.tables {
            for column in &mut Arc::make_mut(table).columns {
                let is_lifeline = |r: &crate::types::RefTable| {
                    r.ref_type == RefType::Strong && self.by_name.get(&r.table).is_some_and(|&t| !roots[t])
                };
                if column.kind.references().any(is_lifeline) {
                    column.persistent = true;
                }
            }
        }
    }

    /// Parses the text of a schema file.
    pub fn parse(text: &str) -> Result<Schema> {
        let json = Json::parse(text).map_err(|e| Error::syntax_plain(e.to_string()))?;
        Schema::from_json(&json)
    }

    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&Arc<TableSchema>> {
        self.by_name.get(name).map(|&i| &self.tables[i])
    }

    /// The schema's form.
    pub fn to_json(&self) -> Json {
        let all_root = self.tables.iter().all(|t| t.is_root);
        let mut object = Object::new();
        if !self.cksum.is_empty() {
            object.insert("cksum", self.cksum.clone());
        }
        object.insert("name", self.name.clone());
        if !self.version.is_empty() {
            object.insert("version", self.version.clone());
        }
        object.insert(
            "tables",
            Json::object(self.tables.iter().map(|t| (t.name.clone(), t.to_json(all_root)))),
        );
        Json::Object(object)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        self.to_json() == other.to_json()
    }
}

/// True if `text` has the form `x.y.z` of three decimal numbers.
pub fn is_valid_version(text: &str) -> bool {
    parse_version(text).is_some()
}

/// The three numbers of a version.
pub fn parse_version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|p| {
        let digits = !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| p.parse::<u32>().ok()).flatten()
    });
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"name":"S","version":"1.2.3","tables":{
        "A":{"isRoot":true,"maxRows":2,"columns":{
            "name":{"type":"string","mutable":false},
            "to":{"type":{"key":{"type":"uuid","refTable":"B"},"min":0,"max":"unlimited"}},
            "now":{"type":"integer","ephemeral":true}},"indexes":[["name"]]},
        "B":{"columns":{"x":{"type":"string"}}}}}"#;

    #[test]
    fn round_trip() {
        let schema = Schema::parse(SMALL).unwrap();
        let again = Schema::from_json(&schema.to_json()).unwrap();
        assert_eq!(schema, again);
        assert_eq!(schema.to_json(), Json::parse(SMALL).unwrap());
        let a = schema.table("A").unwrap();
        assert_eq!(a.column("name").unwrap().index, FIRST_COLUMN);
        assert_eq!(a.column("_uuid").unwrap().index, UUID_COLUMN);
        assert_eq!(a.indexes, [[FIRST_COLUMN]]);
        assert!(!schema.table("B").unwrap().is_root);
        assert!(schema.table("C").is_none());
    }

    #[test]
    fn without_roots_all_are() {
        let schema =
            Schema::parse(r#"{"name":"S","tables":{"A":{"columns":{"x":{"type":"string"}}}}}"#).unwrap();
        assert!(schema.tables[0].is_root);
        assert!(!schema.to_json().to_string().contains("isRoot"));
    }

    #[test]
    fn inconsistent_schemas_are_refused() {
        for (text, expect) in [
            (r#"{"tables":{}}"#, "Required 'name' member is missing"),
            (r#"{"name":"S","version":"1.2","tables":{}}"#, "not in format x.y.z"),
            (r#"{"name":"S","tables":{"_A":{"columns":{"x":{"type":"string"}}}}}"#, "reserved"),
            (r#"{"name":"S","tables":{"A":{"columns":{}}}}"#, "at least one column"),
            (r#"{"name":"S","tables":{"A":{"maxRows":0,"columns":{"x":{"type":"string"}}}}}"#, "maxRows"),
            (
                r#"{"name":"S","tables":{"A":{"columns":{"x":{"type":{"key":{"type":"uuid","refTable":"Z"}}}}}}}"#,
                "column x key refers to undefined table Z",
            ),
            (
                r#"{"name":"S","tables":{"A":{"columns":{"x":{"type":"string"}},"indexes":[["y"]]}}}"#,
                "valid column",
            ),
        ] {
            let error = Schema::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("8.8.0"), Some([8, 8, 0]));
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1..2", "-1.2.3"] {
            assert!(!is_valid_version(bad), "{bad}");
        }
    }
}
