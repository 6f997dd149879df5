//! From what people type to tables, columns and rows.
//!
//! Tables and columns may be abbreviated while unique, in any case, with `-` and `_` alike. Rows are named by UUID, by
//! the first four or more digits of one, by `.` where a table has a single row, or in the ways that the tool declares
//! for the table ([`RowName`]).

use super::{Preparation, RowName, Tool};
use ib_ovsdb::idl::{Idl, View};
use ib_ovsdb::{Atom, ColumnType, Uuid, text};

/// How well an abbreviation fits a name: not at all, or better with a greater number.
fn abbreviation_score(name: &str, abbreviation: &str) -> Option<usize> {
    if name == abbreviation {
        return Some(usize::MAX);
    }
    let fold = |b: u8| if b == b'-' { b'_' } else { b.to_ascii_lowercase() };
    let (name, abbreviation) = (name.as_bytes(), abbreviation.as_bytes());
    if name.len() < abbreviation.len() || !name.iter().zip(abbreviation).all(|(a, b)| fold(*a) == fold(*b)) {
        return None;
    }
    Some(if name.len() == abbreviation.len() { usize::MAX - 1 } else { 0 })
}

/// The best of `names` for an abbreviation; all that fit equally well.
fn best<'n>(names: impl Iterator<Item = &'n str>, abbreviation: &str) -> Vec<&'n str> {
    let mut best_score = 0;
    let mut found = Vec::new();
    for name in names {
        let Some(score) = abbreviation_score(name, abbreviation) else { continue };
        if found.is_empty() || score > best_score {
            best_score = score;
            found = vec![name];
        } else if score == best_score {
            found.push(name);
        }
    }
    found
}

/// The table that `name` means.
pub fn table(idl: &Idl, name: &str) -> Result<String, String> {
    match best(idl.table_names().filter(|_| !name.is_empty()).map(|n| &**n), name)[..] {
        [] => Err(format!("unknown table \"{name}\"")),
        [one] => Ok(one.to_string()),
        ref several => Err(format!("\"{name}\" matches multiple table names: {}", several.join(", "))),
    }
}

/// The column of `table` that `name` means.
pub fn column(idl: &Idl, table: &str, name: &str) -> Result<String, String> {
    match best(idl.column_names(table).map(|n| &**n), name)[..] {
        [] => Err(format!("{table} does not contain a column whose name matches \"{name}\"")),
        [one] => Ok(one.to_string()),
        ref several => {
            let several = several.join(", ");
            Err(format!("{table} contains more than one column whose name matches \"{name}\": {several}"))
        }
    }
}

/// `column`, where `_uuid` may be asked for too.
pub fn readable_column(idl: &Idl, table: &str, name: &str) -> Result<String, String> {
    if name.eq_ignore_ascii_case("_uuid") || name.eq_ignore_ascii_case("-uuid") {
        return Ok("_uuid".to_string());
    }
    column(idl, table, name)
}

/// The type of a column, `_uuid` included.
pub fn column_type(idl: &Idl, table: &str, column: &str) -> ColumnType {
    idl.column_schema(table, column).map_or_else(ColumnType::uuid, |c| c.kind.clone())
}

/// Registers what finding rows of `table` by name needs.
pub fn prepare_rows(prep: &mut Preparation<'_>, table: &str) {
    prep.idl.register_table(table);
    for name in prep.tool.names.iter().filter(|n| n.table == table) {
        prep.idl.register_table(name.via_table);
        for column in [name.name_column, name.ref_column].into_iter().flatten() {
            prep.idl.register_column(name.via_table, column);
        }
    }
}

/// The row of `table` that `id` means; `None` if there is none.
pub fn find_row(view: View<'_>, tool: &Tool, table: &str, id: &str) -> Result<Option<Uuid>, String> {
    if let Some(uuid) = Uuid::parse(id) {
        return Ok(view.row(table, uuid).map(|row| row.uuid()));
    }
    if id == "." {
        let mut rows = view.rows(table);
        let first = rows.next();
        return Ok(if rows.next().is_none() { first.map(|row| row.uuid()) } else { None });
    }
    for name in tool.names.iter().filter(|n| n.table == table) {
        if let Some(uuid) = find_by_name(view, name, id)? {
            return Ok(Some(uuid));
        }
    }
    find_by_prefix(view, table, id)
}

fn find_by_name(view: View<'_>, name: &RowName, id: &str) -> Result<Option<Uuid>, String> {
    let Some(name_column) = name.name_column else { return Ok(None) };
    let kind = column_type(view.idl(), name.via_table, name_column);
    // Strings compare as they are, whatever they look like; other types as they are written.
    let wanted = match kind.key.kind {
        ib_ovsdb::AtomicType::String => Atom::string(id),
        _ => match text::atom_from_string(&kind.key, id, None) {
            Ok(atom) => atom,
            Err(_) => return Ok(None),
        },
    };
    let mut matches =
        view.rows_where(name.via_table, name_column, |datum| datum.as_scalar() == Some(&wanted));
    let Some(row) = matches.next() else { return Ok(None) };
    if matches.next().is_some() {
        return Err(format!("multiple rows in {} match \"{id}\"", name.table));
    }
    let Some(ref_column) = name.ref_column else { return Ok(Some(row.uuid())) };
    let target = row.get(ref_column).as_uuid();
    Ok(target.and_then(|uuid| view.row(name.table, uuid)).map(|row| row.uuid()))
}

/// The least number of digits that name a row.
const MIN_PREFIX: usize = 4;

fn find_by_prefix(view: View<'_>, table: &str, id: &str) -> Result<Option<Uuid>, String> {
    if id.len() < MIN_PREFIX || !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(None);
    }
    let wanted = id.to_ascii_lowercase();
    let mut matches = view.rows(table).map(|r| r.uuid()).filter(|u| u.to_string().starts_with(&wanted));
    match (matches.next(), matches.next()) {
        (Some(first), Some(second)) => Err(format!(
            "{table} contains 2 or more rows whose UUIDs begin with {id}: at least {first} and {second}"
        )),
        (found, _) => Ok(found),
    }
}

/// [`find_row`] for a row that must exist.
pub fn row(view: View<'_>, tool: &Tool, table: &str, id: &str) -> Result<Uuid, String> {
    find_row(view, tool, table, id)?.ok_or_else(|| format!("no row \"{id}\" in table {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_prefer_the_exact_name() {
        let names = ["CT_Timeout_Policy", "CT_Zone", "Open_vSwitch", "Port", "Port_Group"];
        let best = |abbreviation| best(names.into_iter(), abbreviation);
        assert_eq!(best("ct"), ["CT_Timeout_Policy", "CT_Zone"]);
        assert_eq!(best("open-VSWITCH"), ["Open_vSwitch"]);
        assert_eq!(best("port"), ["Port"]);
        assert_eq!(best("port_"), ["Port_Group"]);
        assert!(best("ports").is_empty());
    }
}
