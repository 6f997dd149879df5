//! The commands that work on any table of any database.

use super::grammar::{Call, Command, Outcome, Stop};
use super::lookup::{self, column_type};
use super::values::{self, Assignment, Operators};
use super::{Created, Ctl, Extension, Preparation, data_cell};
use crate::table::Table;
use ib_base::vlog::module::DB_CTL_BASE;
use ib_base::vlog_warn;
use ib_ovsdb::text::{atom_from_string, datum_from_string};
use ib_ovsdb::{ColumnType, Datum, UNLIMITED, Uuid};

/// The generic commands of a tool whose state is `X`.
pub struct Generic<X>(std::marker::PhantomData<X>);

impl<X: Extension + 'static> Generic<X> {
    /// The table of commands.
    pub const COMMANDS: &'static [Command<X>] = &[
        Command {
            name: "comment",
            min_args: 0,
            max_args: None,
            arguments: "*ARG",
            options: &[],
            writes: true,
            prepare: None,
            run: comment,
        },
        Command {
            name: "get",
            min_args: 2,
            max_args: None,
            arguments: "!TABLE !RECORD *COLUMN?:KEY",
            options: &["--if-exists", "--id="],
            writes: false,
            prepare: Some(prepare_get),
            run: get,
        },
        Command {
            name: "list",
            min_args: 1,
            max_args: None,
            arguments: "!TABLE *RECORD",
            options: &["--if-exists", "--columns="],
            writes: false,
            prepare: Some(prepare_list),
            run: list,
        },
        Command {
            name: "find",
            min_args: 1,
            max_args: None,
            arguments: "!TABLE *COLUMN?:KEY=VALUE",
            options: &["--columns="],
            writes: false,
            prepare: Some(prepare_find),
            run: find,
        },
        Command {
            name: "set",
            min_args: 3,
            max_args: None,
            arguments: "!TABLE !RECORD +COLUMN?:KEY=VALUE",
            options: &["--if-exists"],
            writes: true,
            prepare: Some(prepare_set),
            run: set,
        },
        Command {
            name: "add",
            min_args: 4,
            max_args: None,
            arguments: "!TABLE !RECORD !COLUMN +?KEY=VALUE",
            options: &["--if-exists"],
            writes: true,
            prepare: Some(prepare_one_column),
            run: add,
        },
        Command {
            name: "remove",
            min_args: 4,
            max_args: None,
            arguments: "!TABLE !RECORD !COLUMN +KEY|VALUE|KEY=VALUE",
            options: &["--if-exists"],
            writes: true,
            prepare: Some(prepare_one_column),
            run: remove,
        },
        Command {
            name: "clear",
            min_args: 3,
            max_args: None,
            arguments: "!TABLE !RECORD +COLUMN",
            options: &["--if-exists"],
            writes: true,
            prepare: Some(prepare_clear),
            run: clear,
        },
        Command {
            name: "create",
            min_args: 2,
            max_args: None,
            arguments: "!TABLE +COLUMN?:KEY=VALUE",
            options: &["--id="],
            writes: true,
            prepare: Some(prepare_create),
            run: create,
        },
        Command {
            name: "destroy",
            min_args: 1,
            max_args: None,
            arguments: "!TABLE *RECORD",
            options: &["--if-exists", "--all"],
            writes: true,
            prepare: Some(prepare_destroy),
            run: destroy,
        },
        Command {
            name: "wait-until",
            min_args: 2,
            max_args: None,
            arguments: "!TABLE !RECORD *COLUMN?:KEY=VALUE",
            options: &[],
            writes: false,
            prepare: Some(prepare_wait_until),
            run: wait_until,
        },
    ];
}

fn comment<X: Extension>(_: &mut Ctl<'_, X>, _: &mut Call<X>) -> Outcome {
    Ok(())
}

/// The table of a command's first argument, with what finding its rows needs.
fn prepare_table<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome<String> {
    let table = lookup::table(prep.idl, &call.args[1])?;
    lookup::prepare_rows(prep, &table);
    Ok(table)
}

fn register(prep: &mut Preparation<'_>, table: &str, column: &str) {
    if column != "_uuid" {
        prep.idl.register_column(table, column);
    }
}

/// The column that an argument begins with.
fn prepare_column(
    prep: &mut Preparation<'_>,
    table: &str,
    argument: &str,
    readable: bool,
) -> Outcome<String> {
    let (name, _) = ib_ovsdb::text::take_token(argument)?;
    if name.is_empty() {
        return Err(Stop::fatal(format!("{argument}: missing column name")));
    }
    let column = if readable {
        lookup::readable_column(prep.idl, table, name)?
    } else {
        lookup::column(prep.idl, table, name)?
    };
    register(prep, table, &column);
    Ok(column)
}

/// Asked when a row is about to change, not before: one that is not there is told of first.
fn check_mutable(idl: &ib_ovsdb::idl::Idl, table: &str, column: &str) -> Outcome {
    match idl.column_schema(table, column) {
        Some(schema) if !schema.mutable => {
            Err(Stop::fatal(format!("cannot modify read-only column {column} in table {table}")))
        }
        _ => Ok(()),
    }
}

/// The columns of `--columns`, or all.
fn column_names(idl: &ib_ovsdb::idl::Idl, table: &str, option: Option<&str>) -> Outcome<Vec<String>> {
    let Some(option) = option else {
        let all = idl.column_names(table).map(|c| c.to_string());
        return Ok(std::iter::once("_uuid".to_string()).chain(all).collect());
    };
    let names = option.split([',', ' ']).filter(|n| !n.is_empty());
    let columns: Vec<String> =
        names.map(|n| lookup::readable_column(idl, table, n)).collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(Stop::fatal("must specify at least one column name"));
    }
    Ok(columns)
}

fn prepare_columns<X>(prep: &mut Preparation<'_>, table: &str, call: &Call<X>) -> Outcome {
    for column in column_names(prep.idl, table, call.option("--columns"))? {
        register(prep, table, &column);
    }
    Ok(())
}

/// The row of a command's second argument; `None` if it may be, and is, missing.
fn existing_row<X: Extension>(ctl: &Ctl<'_, X>, table: &str, call: &Call<X>) -> Outcome<Option<Uuid>> {
    let id = &call.args[2];
    match lookup::find_row(ctl.view(), ctl.tool, table, id)? {
        None if !call.has("--if-exists") => Err(Stop::fatal(format!("no row \"{id}\" in table {table}"))),
        found => Ok(found),
    }
}

fn prepare_get<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    for argument in &call.args[3..] {
        // `_uuid` is no column that could have a key.
        prepare_column(prep, &table, argument, !argument.contains(':'))?;
    }
    Ok(())
}

fn get<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    if call.has("--id") && call.has("--if-exists") {
        return Err(Stop::fatal("--if-exists and --id may not be specified together"));
    }
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let Some(uuid) = existing_row(ctl, &table, call)? else { return Ok(()) };
    if let Some(id) = call.option("--id") {
        let is_new = ctl.symbols.get(id).is_none();
        define_symbol(ctl, id)?;
        if !is_new {
            return Err(Stop::fatal(format!(
                "row id \"{id}\" specified on \"get\" command was used before it was defined"
            )));
        }
        let symbol = ctl.symbols.entry(id);
        symbol.uuid = uuid;
        // The row is referenced already, or it would not be there.
        symbol.strong_ref = true;
    }
    let mut output = String::new();
    for argument in &call.args[3..] {
        let parts = values::split(ctl.idl, &table, argument, Operators::None)?;
        if parts.column == "_uuid" {
            output.push_str(&format!("{uuid}\n"));
            continue;
        }
        let kind = column_type(ctl.idl, &table, &parts.column);
        let Some(row) = ctl.row(&table, uuid) else { continue };
        let content = row.get(&parts.column);
        let Some(key_text) = parts.key else {
            output.push_str(&content.to_text(&kind));
            output.push('\n');
            continue;
        };
        if !kind.is_map() {
            return Err(Stop::fatal(format!(
                "cannot specify key to get for non-map column {}",
                parts.column
            )));
        }
        let key = atom_from_string(&kind.key, key_text, None)?;
        match content.value_of(&key) {
            Some(value) => value.write_text(&mut output),
            None if call.has("--if-exists") => {}
            None => {
                return Err(Stop::fatal(format!(
                    "no key \"{key_text}\" in {table} record \"{}\" column {}",
                    call.args[2], parts.column
                )));
            }
        }
        output.push('\n');
    }
    call.output.push_str(&output);
    Ok(())
}

/// Defines the row name of `--id`.
fn define_symbol<X: Extension>(ctl: &mut Ctl<'_, X>, id: &str) -> Outcome {
    if !id.starts_with('@') {
        return Err(Stop::fatal(format!("row id \"{id}\" does not begin with \"@\"")));
    }
    let symbol = ctl.symbols.entry(id);
    if symbol.created {
        return Err(Stop::fatal(format!("row id \"{id}\" may only be specified on one --id option")));
    }
    symbol.created = true;
    Ok(())
}

fn prepare_list<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    prepare_columns(prep, &table, call)
}

fn list<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let mut rows = Vec::new();
    if call.argc() > 2 {
        for id in &call.args[2..] {
            match lookup::find_row(ctl.view(), ctl.tool, &table, id)? {
                Some(uuid) => rows.push(uuid),
                None if call.has("--if-exists") => {}
                None => return Err(Stop::fatal(format!("no row \"{id}\" in table {table}"))),
            }
        }
    } else {
        rows.extend(ctl.view().rows(&table).map(|row| row.uuid()));
    }
    tabulate(ctl, call, &table, &rows)
}

fn tabulate<X: Extension>(ctl: &Ctl<'_, X>, call: &mut Call<X>, table: &str, rows: &[Uuid]) -> Outcome {
    let columns = column_names(ctl.idl, table, call.option("--columns"))?;
    let kinds: Vec<ColumnType> = columns.iter().map(|c| column_type(ctl.idl, table, c)).collect();
    let mut out = Table::new(columns.iter().map(String::as_str));
    for uuid in rows {
        let Some(row) = ctl.row(table, *uuid) else { continue };
        let cells = columns.iter().zip(&kinds).map(|(column, kind)| {
            if column == "_uuid" {
                data_cell(ctl.style, &Datum::scalar(ib_ovsdb::Atom::Uuid(*uuid)), kind)
            } else {
                data_cell(ctl.style, row.get(column), kind)
            }
        });
        out.rows.push(cells.collect());
    }
    call.table = Some(out);
    Ok(())
}

fn prepare_find<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    prepare_columns(prep, &table, call)?;
    for argument in &call.args[2..] {
        prepare_column(prep, &table, argument, false)?;
    }
    Ok(())
}

fn find<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let mut rows = Vec::new();
    let candidates: Vec<Uuid> = ctl.view().rows(&table).map(|row| row.uuid()).collect();
    for uuid in candidates {
        if satisfies(ctl, &table, uuid, &call.args[2..])? {
            rows.push(uuid);
        }
    }
    tabulate(ctl, call, &table, &rows)
}

fn satisfies<X: Extension>(
    ctl: &mut Ctl<'_, X>,
    table: &str,
    uuid: Uuid,
    conditions: &[String],
) -> Outcome<bool> {
    for condition in conditions {
        let view = ctl.txn.view(ctl.idl);
        if !values::matches(view, table, uuid, condition, &mut ctl.symbols)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare_set<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    prepare_settings(prep, &table, &call.args[3..])
}

/// Registers the columns of `column[:key]=value` arguments.
fn prepare_settings(prep: &mut Preparation<'_>, table: &str, arguments: &[String]) -> Outcome {
    for argument in arguments {
        prepare_column(prep, table, argument, false)?;
    }
    Ok(())
}

/// As `prepare_settings`, for the settings of a row that the command makes: what is wrong with them counts only once it is made.
pub fn prepare_later_settings(prep: &mut Preparation<'_>, table: &str, arguments: &[String]) {
    for argument in arguments {
        // `apply_settings` finds the same fault.
        let _ = prepare_column(prep, table, argument, false);
    }
}

fn set<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let Some(uuid) = existing_row(ctl, &table, call)? else { return Ok(()) };
    for argument in &call.args[3..] {
        let column = lookup::column(ctl.idl, &table, ib_ovsdb::text::take_token(argument)?.0)?;
        check_mutable(ctl.idl, &table, &column)?;
        apply_settings(ctl, &table, uuid, std::slice::from_ref(argument))?;
    }
    Ok(())
}

/// Applies `column[:key]=value` arguments to a row.
pub fn apply_settings<X: Extension>(
    ctl: &mut Ctl<'_, X>,
    table: &str,
    uuid: Uuid,
    arguments: &[String],
) -> Outcome {
    for argument in arguments {
        let (column, assignment) = values::assignment(ctl.idl, table, argument, &mut ctl.symbols)?;
        match assignment {
            Assignment::Whole(datum) => ctl.set(table, uuid, &column, datum),
            Assignment::Pair(pair) => ctl.add_to(table, uuid, &column, &pair),
        }
        ctl.ext.changed(table, Some(&column));
    }
    Ok(())
}

fn prepare_one_column<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    let column = lookup::column(prep.idl, &table, &call.args[3])?;
    register(prep, &table, &column);
    Ok(())
}

/// The type of values to add to or remove from a column: any number of them, but not none.
fn elements_type(kind: &ColumnType) -> ColumnType {
    kind.clone().with_cardinality(1, UNLIMITED)
}

fn add<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let column = lookup::column(ctl.idl, &table, &call.args[3])?;
    let Some(uuid) = existing_row(ctl, &table, call)? else { return Ok(()) };
    check_mutable(ctl.idl, &table, &column)?;
    let kind = elements_type(&column_type(ctl.idl, &table, &column));
    for argument in &call.args[4..] {
        let elements = datum_from_string(&kind, argument, Some(&mut ctl.symbols))?;
        ctl.add_to(&table, uuid, &column, &elements);
    }
    ctl.ext.changed(&table, Some(&column));
    Ok(())
}

fn remove<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let column = lookup::column(ctl.idl, &table, &call.args[3])?;
    let Some(uuid) = existing_row(ctl, &table, call)? else { return Ok(()) };
    check_mutable(ctl.idl, &table, &column)?;
    let kind = column_type(ctl.idl, &table, &column);
    let elements_kind = elements_type(&kind);
    for argument in &call.args[4..] {
        let Some(content) = ctl.row(&table, uuid).map(|row| row.get(&column).clone()) else { break };
        let less = match datum_from_string(&elements_kind, argument, Some(&mut ctl.symbols)) {
            Ok(elements) => content.subtract(&elements, false),
            Err(_) if kind.is_map() => {
                let keys = ColumnType { value: None, ..elements_kind.clone() };
                content.subtract(&datum_from_string(&keys, argument, Some(&mut ctl.symbols))?, true)
            }
            Err(error) => return Err(error.into()),
        };
        if less.len() < kind.min as usize {
            return Err(Stop::fatal(format!(
                "\"remove\" operation would put {} {} in column {column} of table {table} but the minimum number is {}",
                less.len(),
                if kind.is_map() { "pairs" } else { "values" },
                kind.min
            )));
        }
        let gone = content.subtract(&less, false);
        ctl.remove_from(&table, uuid, &column, &gone);
    }
    ctl.ext.changed(&table, Some(&column));
    Ok(())
}

fn prepare_clear<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    for name in &call.args[3..] {
        let column = lookup::column(prep.idl, &table, name)?;
        register(prep, &table, &column);
    }
    Ok(())
}

fn clear<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let Some(uuid) = existing_row(ctl, &table, call)? else { return Ok(()) };
    for name in &call.args[3..] {
        let column = lookup::column(ctl.idl, &table, name)?;
        check_mutable(ctl.idl, &table, &column)?;
        if column_type(ctl.idl, &table, &column).min > 0 {
            return Err(Stop::fatal(format!(
                "\"clear\" operation cannot be applied to column {column} of table {table}, which is not allowed to be empty"
            )));
        }
        ctl.set(&table, uuid, &column, Datum::EMPTY);
        ctl.ext.changed(&table, Some(&column));
    }
    Ok(())
}

fn prepare_create<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = lookup::table(prep.idl, &call.args[1])?;
    prep.idl.register_table(&table);
    if call.option("--id").is_none() && !prep.idl.is_root(&table) {
        vlog_warn!(
            DB_CTL_BASE,
            "applying \"create\" command to table {table} without --id option will have no effect"
        );
    }
    Ok(())
}

fn create<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let is_root = ctl.idl.is_root(&table);
    let uuid = match call.option("--id") {
        Some(id) => {
            define_symbol(ctl, id)?;
            let symbol = ctl.symbols.entry(id);
            symbol.strong_ref |= is_root;
            symbol.uuid
        }
        None => Uuid::random(),
    };
    ctl.txn.insert_as(ctl.idl, &table, uuid);
    apply_settings(ctl, &table, uuid, &call.args[2..])?;
    call.created = Some(Created { uuid });
    Ok(())
}

fn prepare_destroy<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    if call.has("--all") {
        prep.idl.register_table(&table);
    }
    Ok(())
}

fn destroy<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    if call.has("--all") {
        if call.argc() > 2 {
            return Err(Stop::fatal("--all and records argument should not be specified together"));
        }
        if call.has("--if-exists") {
            return Err(Stop::fatal("--all and --if-exists should not be specified together"));
        }
        let rows: Vec<Uuid> = ctl.view().rows(&table).map(|row| row.uuid()).collect();
        for uuid in rows {
            ctl.txn.delete_at(ctl.idl, &table, uuid);
        }
    } else if call.argc() == 2 {
        vlog_warn!(DB_CTL_BASE, "either --all or records argument should be specified");
    }
    for id in &call.args[2..] {
        match lookup::find_row(ctl.view(), ctl.tool, &table, id)? {
            // At once: a row that is named twice is not there the second time.
            Some(uuid) => ctl.txn.delete_at(ctl.idl, &table, uuid),
            None if call.has("--if-exists") => {}
            None => return Err(Stop::fatal(format!("no row \"{id}\" in table {table}"))),
        }
    }
    ctl.ext.changed(&table, None);
    Ok(())
}

fn prepare_wait_until<X>(prep: &mut Preparation<'_>, call: &Call<X>) -> Outcome {
    let table = prepare_table(prep, call)?;
    for argument in &call.args[3..] {
        prepare_column(prep, &table, argument, false)?;
    }
    Ok(())
}

fn wait_until<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let table = lookup::table(ctl.idl, &call.args[1])?;
    let Some(uuid) = lookup::find_row(ctl.view(), ctl.tool, &table, &call.args[2])? else {
        return Err(Stop::Wait);
    };
    if satisfies(ctl, &table, uuid, &call.args[3..])? { Ok(()) } else { Err(Stop::Wait) }
}
