//! The books of a database, done again from the rows alone.
//!
//! Tables follow transactions by their differences: reference counts, back references, indexes. [`audit`] computes all that the slow
//! way and says where it differs, and which rules the rows themselves break. For tests; costs a pass over everything.

use crate::Uuid;
use crate::database::Database;
use crate::schema::FIRST_COLUMN;
use crate::table::{FastMap, FastSet, Table};
use crate::types::RefType;

/// The first thing found that is not as it should be.
pub fn audit(database: &Database) -> Result<(), String> {
    let tables = &database.tables;
    let mut strong: FastMap<(usize, Uuid), u32> = FastMap::default();
    let mut weak: FastMap<(usize, Uuid), FastSet<(usize, Uuid)>> = FastMap::default();
    for (t, table) in tables.iter().enumerate() {
        for (uuid, entry) in &table.rows {
            row(tables, t, *uuid)?;
            for r in &table.ref_columns {
                r.each(entry.row.cell(r.column), RefType::Strong, |to, target| {
                    if (to, target) != (t, *uuid) {
                        *strong.entry((to, target)).or_default() += 1;
                    }
                });
                r.each(entry.row.cell(r.column), RefType::Weak, |to, target| {
                    weak.entry((to, target)).or_default().insert((t, *uuid));
                });
            }
        }
    }
    let exists = |(t, uuid): &(usize, Uuid)| tables[*t].rows.contains_key(uuid);
    if let Some(missing) = strong.keys().chain(weak.keys()).find(|target| !exists(target)) {
        return Err(format!("a reference to row {} that does not exist", missing.1));
    }
    for (t, table) in tables.iter().enumerate() {
        let name = &table.schema.name;
        for (uuid, entry) in &table.rows {
            let n = strong.get(&(t, *uuid)).copied().unwrap_or(0);
            if entry.strong_refs != n {
                return Err(format!("{name} {uuid} counts {} references of {n}", entry.strong_refs));
            }
            if n == 0 && !table.schema.is_root {
                return Err(format!("{name} {uuid} is not a root and lives without a reference"));
            }
        }
        let counted: FastMap<Uuid, FastSet<(usize, Uuid)>> =
            table.weak_in.iter().map(|(uuid, sources)| (*uuid, sources.iter().collect())).collect();
        let wanted: FastMap<Uuid, FastSet<(usize, Uuid)>> =
            weak.iter().filter(|((to, _), _)| *to == t).map(|((_, u), s)| (*u, s.clone())).collect();
        if counted != wanted {
            return Err(format!("{name}: back references are {counted:?} but should be {wanted:?}"));
        }
        indexes(table)?;
    }
    Ok(())
}

fn row(tables: &[Table], t: usize, uuid: Uuid) -> Result<(), String> {
    let table = &tables[t];
    let Some(row) = table.row(uuid) else { return Ok(()) };
    let name = &table.schema.name;
    if row.uuid() != uuid || row.columns() != table.schema.columns.len() {
        return Err(format!("{name} {uuid} is stored under another name"));
    }
    for column in &table.schema.columns[FIRST_COLUMN..] {
        let datum = row.get(column.index);
        let checked = datum.check_count(&column.kind).and_then(|()| datum.check(&column.kind));
        checked.map_err(|e| format!("{name} {uuid} {}: {e}", column.name))?;
        if *row.cell(column.index).packed() != *crate::OwnedCell::new(&datum).cell().packed() {
            return Err(format!("{name} {uuid} {}: packed in another form", column.name));
        }
    }
    Ok(())
}

fn indexes(table: &Table) -> Result<(), String> {
    for (i, index) in table.indexes.iter().enumerate() {
        let name = &table.schema.name;
        if index.len() != table.rows.len() {
            return Err(format!("{name}: index {i} has {} rows of {}", index.len(), table.rows.len()));
        }
        let mut values = FastSet::default();
        for (uuid, entry) in &table.rows {
            let hash = table.index_hash(i, &entry.row);
            if !index.candidates(hash).any(|u| u == *uuid) {
                return Err(format!("{name}: index {i} lacks row {uuid}"));
            }
            let columns = table.schema.indexes[i].iter();
            if !values.insert(columns.map(|&c| entry.row.cell(c)).collect::<Vec<_>>()) {
                return Err(format!("{name}: two rows have equal values for index {i}"));
            }
        }
    }
    Ok(())
}
