//! Who may change what: role-based access control (ovsdb-server(7), section 3.2).
//!
//! A connection may have a role. The database's table `RBAC_Role` maps the role to permissions by table name; a row of
//! `RBAC_Permission` says whether rows may be inserted and deleted, which columns may be changed, and in which columns of a row the
//! client's identifier has to be found for it to be the client's to change. A client without role, or of a database without
//! table `RBAC_Role`, may do everything. An identifier comes from the peer's certificate: without one nothing is permitted.

use crate::atom::Atom;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::mutation::Mutation;
use crate::row::Row;
use crate::schema::TableSchema;
use crate::table::Table;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// The connection's role; empty is none.
    pub role: String,
    /// Whom the peer has proven to be.
    pub id: Option<String>,
}

/// What a role may do with one table.
struct Permission {
    authorization: Vec<String>,
    insert_delete: bool,
    update: Vec<String>,
}

/// A question about one operation.
pub(crate) struct Check<'a> {
    asker: &'a Asker,
    schema: &'a TableSchema,
    /// None if nothing is permitted.
    permission: Option<Permission>,
    /// What is done to the table, in the error's words.
    deed: &'static str,
}

impl<'a> Check<'a> {
    /// Prepares for an operation on rows of the table with index `table`. None if everything is permitted.
    pub fn new(
        tables: &'a [Table],
        asker: Option<&'a Asker>,
        table: usize,
        deed: &'static str,
    ) -> Option<Check<'a>> {
        let asker = asker.filter(|a| !a.role.is_empty())?;
        let named = |name: &str| tables.iter().find(|t| *t.schema.name == *name);
        let roles = named("RBAC_Role")?;
        let schema = &*tables[table].schema;
        let permission = asker.id.as_ref().and_then(|_| {
            let by_name = |row: &&Row| text(roles, row, "name").as_deref() == Some(&asker.role);
            let role = roles.rows.values().map(|e| &e.row).find(by_name)?;
            let permissions = role.get(roles.schema.column("permissions")?.index);
            let (_, uuid) = permissions
                .iter()
                .find(|(key, _)| matches!(key, Atom::String(name) if **name == *schema.name))?;
            let Some(Atom::Uuid(uuid)) = uuid else { return None };
            let table = named("RBAC_Permission")?;
            let row = table.row(*uuid)?;
            let column = |name: &str| table.schema.column(name).map(|c| row.get(c.index));
            Some(Permission {
                authorization: column("authorization").map(|d| strings(&d)).unwrap_or_default(),
                insert_delete: column("insert_delete").and_then(|d| d.as_bool()).unwrap_or(false),
                update: column("update").map(|d| strings(&d)).unwrap_or_default(),
            })
        });
        Some(Check { asker, schema, permission, deed })
    }

    fn denied(&self) -> Error {
        let id = self.asker.id.as_deref().unwrap_or("(null)");
        Error::new(
            "permission error",
            format!(
                "RBAC rules for client \"{id}\" role \"{}\" prohibit {} table \"{}\".",
                self.asker.role, self.deed, self.schema.name
            ),
        )
    }

    fn demand(&self, permitted: impl FnOnce(&Permission) -> bool) -> Result<()> {
        if self.permission.as_ref().is_some_and(permitted) { Ok(()) } else { Err(self.denied()) }
    }

    /// Rows may be inserted and deleted.
    pub fn insert_delete(&self) -> Result<()> {
        self.demand(|p| p.insert_delete)
    }

    /// These columns may be changed as a whole.
    pub fn columns(&self, mut columns: impl Iterator<Item = usize>) -> Result<()> {
        self.demand(|p| columns.all(|c| p.update.iter().any(|u| *u == *self.schema.columns[c].name)))
    }

    /// These mutations may be done: of columns, or of named keys of map columns.
    pub fn mutations(&self, mutations: &[Mutation]) -> Result<()> {
        let permitted = |p: &Permission, m: &Mutation| {
            let column = &self.schema.columns[m.column];
            let named = |key: &str| p.update.iter().any(|u| u.split_once(':') == Some((&*column.name, key)));
            p.update.iter().any(|u| *u == *column.name)
                || column.kind.is_map()
                    && m.keys().is_some_and(|keys| {
                        keys.iter().all(|(k, _)| matches!(k, Atom::String(key) if named(key)))
                    })
        };
        self.demand(|p| mutations.iter().all(|m| permitted(p, m)))
    }

    /// The row is the asker's.
    pub fn row(&self, row: &Row) -> Result<()> {
        let id = self.asker.id.as_deref().unwrap_or_default();
        let is_id = |atom: &Atom| matches!(atom, Atom::String(s) if **s == *id);
        let authorizes = |entry: &String| {
            if entry.is_empty() {
                return true;
            }
            let (name, key) = entry.split_once(':').map_or((entry.as_str(), None), |(n, k)| (n, Some(k)));
            let Some(column) = self.schema.column(name) else { return false };
            let datum = row.get(column.index);
            match key {
                Some(key) => datum.get_str(key) == Some(id),
                None => !column.kind.is_map() && datum.iter().any(|(k, _)| is_id(k)),
            }
        };
        self.demand(|p| p.authorization.iter().any(authorizes))
    }
}

fn text(table: &Table, row: &Row, column: &str) -> Option<String> {
    let column = table.schema.column(column)?;
    row.get(column.index).as_str().map(str::to_string)
}

fn strings(datum: &Datum) -> Vec<String> {
    let text = |(key, _): (&Atom, Option<&Atom>)| match key {
        Atom::String(s) => Some(s.to_string()),
        _ => None,
    };
    datum.iter().filter_map(text).collect()
}
