//! The overview of `show`: rows as an indented tree, along the references that the tool names.
//!
//! `--filter=TABLE(PATTERN|...),...` keeps, of the tables named, the rows with a pattern in what is printed of them,
//! and of the tables above those, the rows that lead to one.

use super::grammar::{Call, Command, Outcome, Stop};
use super::{Ctl, Extension, Preparation, ShowMap, ShowTable, Tool};
use ib_ovsdb::idl::Row;

/// The command of a tool whose state is `X`.
pub struct Show<X>(std::marker::PhantomData<X>);

impl<X: Extension + 'static> Show<X> {
    /// The table of the one command.
    pub const COMMANDS: &'static [Command<X>] = &[Command {
        name: "show",
        min_args: 0,
        max_args: Some(0),
        arguments: "",
        options: &["--filter="],
        writes: false,
        prepare: Some(prepare),
        run: show,
    }];
}

fn prepare<X>(prep: &mut Preparation<'_>, _: &Call<X>) -> Outcome {
    for entry in prep.tool.show {
        prep.idl.register_table(entry.table);
        for column in entry.columns.iter().copied().chain(entry.name_column) {
            prep.idl.register_column(entry.table, column);
        }
    }
    for map in prep.tool.show_maps {
        prep.idl.register_column(map.target, map.name_column);
    }
    Ok(())
}

/// The patterns for one table.
struct Filter {
    table: String,
    patterns: Vec<String>,
}

fn parse_filters<X: Extension>(ctl: &Ctl<'_, X>, text: &str) -> Outcome<Vec<Filter>> {
    let mut filters = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, tail)) = rest.split_once('(') else {
            return Err(Stop::fatal(format!("{text}: filter is not of the form TABLE(PATTERN|...)")));
        };
        let Some((patterns, tail)) = tail.split_once(')') else {
            return Err(Stop::fatal(format!("{text}: missing \")\" at end of filter")));
        };
        let table = super::lookup::table(ctl.idl, name.trim())?;
        if !ctl.tool.show.iter().any(|entry| entry.table == table) {
            return Err(Stop::fatal(format!("table {table} is not part of the overview")));
        }
        filters.push(Filter { table, patterns: patterns.split('|').map(str::to_string).collect() });
        rest = tail.trim_start_matches([',', ' ']);
    }
    Ok(filters)
}

fn show<X: Extension>(ctl: &mut Ctl<'_, X>, call: &mut Call<X>) -> Outcome {
    let filters = match call.option("--filter") {
        Some(text) => parse_filters(ctl, text)?,
        None => Vec::new(),
    };
    if let Some(root) = ctl.tool.show.first() {
        for row in ctl.view().rows(root.table) {
            let printed = print_row(ctl.tool, &filters, root, row, 0);
            // The root stands even if nothing below it was kept.
            call.output.push_str(&printed.text);
        }
    }
    Ok(())
}

struct Printed {
    text: String,
    /// It is what a filter looks for, or leads to it.
    kept: bool,
}

fn print_row(tool: &Tool, filters: &[Filter], entry: &ShowTable, row: Row<'_>, level: usize) -> Printed {
    let indent = " ".repeat(level * 4);
    let mut own = match entry.name_column {
        Some(column) => {
            let name = row.get(column).to_text(row.column_type(column));
            format!("{indent}{} {name}\n", entry.table)
        }
        None => format!("{indent}{}\n", row.uuid()),
    };
    let mut text = own.clone();
    let mut leads = false;
    for column in entry.columns {
        if let Some(map) = tool.show_maps.iter().find(|m| m.table == entry.table && m.column == *column) {
            let lines = print_map(map, row, &indent);
            own.push_str(&lines);
            text.push_str(&lines);
            continue;
        }
        let kind = row.column_type(column);
        let base = kind.value.as_ref().unwrap_or(&kind.key);
        let target = base.reference.as_ref().and_then(|r| tool.show.iter().find(|e| e.table == &*r.table));
        if let Some(target) = target {
            for referenced in row.refs(column) {
                let below = print_row(tool, filters, target, referenced, level + 1);
                leads |= below.kept;
                if below.kept || filters.is_empty() {
                    text.push_str(&below.text);
                }
            }
        } else if !row.get(column).is_default(kind) {
            let line = format!("{indent}    {column}: {}\n", row.get(column).to_text(kind));
            own.push_str(&line);
            text.push_str(&line);
        }
    }
    let matches = |f: &Filter| f.table == entry.table && f.patterns.iter().any(|p| own.contains(p.as_str()));
    let kept = leads || filters.is_empty() || filters.iter().any(matches);
    Printed { text, kept }
}

/// The lines of a map, its name first even if it is empty.
fn print_map(map: &ShowMap, row: Row<'_>, indent: &str) -> String {
    let mut out = format!("{indent}    {}:\n", map.column);
    for (key, value) in row.get(map.column).as_map().iter() {
        let target = value.as_uuid().and_then(|uuid| row.view().row(map.target, uuid));
        let Some(target) = target else { continue };
        let kind = target.column_type(map.name_column);
        let name = target.get(map.name_column).to_text(kind);
        out.push_str(&format!("{indent}        {}={name}\n", key.to_text()));
    }
    out
}
