//! The `_Server` database, in which the server describes the databases that it serves (ovsdb-server(5)).

use super::{Now, Server};
use crate::datum::Datum;
use crate::schema::Schema;
use crate::table::Table;
use crate::txn::Txn;
use crate::{Atom, Uuid};
use ib_base::json::Style;

/// Its name.
pub const SERVER_DATABASE: &str = "_Server";

const SCHEMA: &str = include_str!("../../schema/_server.ovsschema");

pub(super) fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap_or_else(|e| unreachable!("the built-in schema is bad: {e}"))
}

/// The text of a schema as clients find it: members sorted.
fn schema_text(schema: &Schema) -> String {
    schema.to_json().to_text(Style::SORTED)
}

impl Server {
    /// Makes the rows of `_Server` say what is served now.
    pub(super) fn update_own(&mut self, now: Now) {
        let standalone = self.databases.iter().filter(|(name, _)| self.relay_of(name).is_none());
        let mut wanted: Vec<Wanted> = standalone
            .map(|(name, database)| Wanted {
                name: name.clone(),
                relay: false,
                connected: true,
                schema: Some(schema_text(&database.schema)),
            })
            .collect();
        wanted.extend(self.relays(now).map(|(name, connected)| Wanted {
            name: name.to_string(),
            relay: true,
            connected,
            schema: self.databases.get(name).map(|d| schema_text(&d.schema)),
        }));
        let done = self.change(SERVER_DATABASE, now, |tables, txn| write_rows(tables, txn, &wanted));
        // A database in memory whose rows satisfy their schema cannot fail to change.
        debug_assert!(done.is_ok());
    }
}

/// What the row of a database says.
struct Wanted {
    name: String,
    relay: bool,
    connected: bool,
    schema: Option<String>,
}

fn write_rows(tables: &mut [Table], txn: &mut Txn, wanted: &[Wanted]) {
    let schema = tables[0].schema.clone();
    let column = |name: &str| schema.column(name).map_or(0, |c| c.index);
    let name_column = column("name");
    let existing: Vec<(Uuid, String)> = tables[0]
        .rows
        .iter()
        .map(|(uuid, e)| (*uuid, e.row.cell(name_column).as_str().unwrap_or_default().to_string()))
        .collect();
    for (uuid, name) in &existing {
        if !wanted.iter().any(|w| w.name == *name) {
            txn.delete(tables, 0, *uuid);
        }
    }
    for w in wanted {
        let schema = w.schema.as_deref().map(Atom::from);
        let data = [
            (name_column, Datum::scalar(w.name.as_str())),
            (column("model"), Datum::scalar(if w.relay { "relay" } else { "standalone" })),
            (column("connected"), Datum::scalar(Atom::Boolean(w.connected))),
            (column("leader"), Datum::scalar(Atom::Boolean(!w.relay))),
            (column("schema"), Datum::set(schema)),
        ];
        match existing.iter().find(|(_, n)| *n == w.name) {
            Some((uuid, _)) => txn.update(tables, 0, *uuid, &data),
            None => {
                let mut row = tables[0].new_row(Uuid::random());
                row.set_many(&data);
                txn.insert(tables, 0, row);
            }
        }
    }
}
