//! Copies of another server's tables: what its answers and updates mean for the rows that are here.
//!
//! The content that comes first is compared with what is here, and only what differs is changed: clients of this server that
//! know the state before are told no more than that.

use crate::Uuid;
use crate::database::Database;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::monitor::Version;
use crate::schema::{FIRST_COLUMN, TableSchema};
use crate::table::{Row, Table};
use crate::txn::Txn;
use ib_base::json::{Json, Object};
use std::collections::{BTreeSet, HashSet};

/// What a row becomes: its table, itself, its content or none.
pub(super) type NewRow = (usize, Uuid, Option<Row>);

/// Reads `<table-updates>` or `<table-updates2>`. Nothing is changed yet. If `whole` names tables, the updates are all their
/// rows, and what is not among them goes.
pub(super) fn read(
    database: &Database,
    updates: &Json,
    version: Version,
    whole: Option<&BTreeSet<usize>>,
) -> Result<Vec<NewRow>> {
    let updates = object(updates, "table-updates")?;
    let mut rows = Vec::new();
    let mut seen: HashSet<(usize, Uuid)> = HashSet::new();
    for (name, table_update) in updates.iter() {
        let Some(schema) = database.schema.table(name) else {
            return Err(Error::syntax_plain(format!("no table named {name}")));
        };
        let table = &database.tables[schema.index];
        for (uuid, update) in object(table_update, "table-update")?.iter() {
            let uuid = Uuid::parse(uuid)
                .ok_or_else(|| Error::syntax(&Json::from(&**uuid), "row name must be a UUID"))?;
            seen.insert((schema.index, uuid));
            let new = match version {
                Version::V1 => match update.get("new") {
                    Some(new) => Some(table.filled_row(uuid, &data(schema, new, None)?)),
                    None => None,
                },
                _ => read_update2(table, uuid, update)?,
            };
            rows.push((schema.index, uuid, new));
        }
    }
    for &index in whole.into_iter().flatten() {
        let here = database.tables[index].rows.keys();
        rows.extend(here.filter(|&&u| !seen.contains(&(index, u))).map(|&u| (index, u, None)));
    }
    Ok(rows)
}

fn read_update2(table: &Table, uuid: Uuid, update: &Json) -> Result<Option<Row>> {
    if let Some(row) = update.get("initial").or_else(|| update.get("insert")) {
        return Ok(Some(table.filled_row(uuid, &data(&table.schema, row, None)?)));
    }
    if update.get("delete").is_some() {
        return Ok(None);
    }
    match (update.get("modify"), table.row(uuid)) {
        (Some(row), Some(old)) => Ok(Some(old.with(&data(&table.schema, row, Some(old))?))),
        _ => Err(Error::syntax(update, "update of a row that is not here")),
    }
}

fn object<'a>(json: &'a Json, what: &str) -> Result<&'a Object> {
    json.as_object().ok_or_else(|| Error::syntax(json, format!("<{what}> must be JSON object")))
}

/// A row's data; with `old`, they are differences to it.
fn data(schema: &TableSchema, json: &Json, old: Option<&Row>) -> Result<Vec<(usize, Datum)>> {
    let mut data = Vec::new();
    for (name, value) in object(json, "row")?.iter() {
        let Some(column) = schema.column(name) else {
            return Err(Error::syntax_plain(format!("no column {name} in table {}", schema.name)));
        };
        if column.index < FIRST_COLUMN {
            continue;
        }
        let datum = match old {
            Some(old) if column.kind.is_composite() => {
                let diff = Datum::from_json_unchecked(&column.kind.unconstrained(), value, None)?;
                old.get(column.index).apply_diff(&diff, &column.kind)?
            }
            _ => Datum::from_json(&column.kind, value, None)?,
        };
        data.push((column.index, datum));
    }
    Ok(data)
}

/// Makes rows what [`read`] found, where they differ from that.
pub(super) fn apply(tables: &mut [Table], txn: &mut Txn, rows: Vec<NewRow>) {
    for (table, uuid, new) in rows {
        let old = tables[table].row(uuid).cloned();
        match (old, new) {
            (None, None) => {}
            (None, Some(row)) => txn.insert(tables, table, row),
            (Some(_), None) => txn.delete(tables, table, uuid),
            (Some(old), Some(new)) if old.same_content(&new) => {}
            (Some(old), Some(new)) => {
                let differs = |c: &usize| old.cell(*c) != new.cell(*c);
                let changes: Vec<(usize, Datum)> =
                    (FIRST_COLUMN..new.columns()).filter(differs).map(|c| (c, new.get(c))).collect();
                txn.update(tables, table, uuid, &changes);
            }
        }
    }
}
