//! Names of ports and tables in texts.

use std::collections::HashMap;

use ib_base::vlog::module::OFP_TABLE;
use ib_base::{vlog_warn, vlog_warn_rl};
use ib_flow::OfPort;
use ib_flow::port::PortMap;
use ib_flow::text::{format_port, quote_name, unquote_name};

/// Tables and their names. A name that two tables have stands for neither of them.
#[derive(Clone, Debug, Default)]
pub struct TableMap {
    names: HashMap<u8, String>,
    tables: HashMap<String, Option<u8>>,
}

impl TableMap {
    /// Adds a table; an empty name is none.
    pub fn insert(&mut self, table: u8, name: &str) {
        if name.is_empty() {
            return;
        }
        self.names.insert(table, name.to_string());
        self.tables
            .entry(name.to_string())
            .and_modify(|t| {
                if *t != Some(table) {
                    *t = None;
                }
            })
            .or_insert(Some(table));
    }
    /// A table's name.
    pub fn name(&self, table: u8) -> Option<&str> {
        self.names.get(&table).map(String::as_str)
    }
    /// The one table of that name.
    pub fn table(&self, name: &str) -> Option<u8> {
        self.tables.get(name).copied().flatten()
    }
    /// No names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What a text may call by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// Ports.
    pub ports: Option<&'a PortMap>,
    /// Tables.
    pub tables: Option<&'a TableMap>,
}

/// No names: numbers only.
pub const NO_NAMES: Names<'static> = Names { ports: None, tables: None };

/// A port by number, reserved name, or name. Numbers of reserved ports are accepted with a warning in the log.
pub fn parse_port(s: &str, names: &Names<'_>) -> Option<OfPort> {
    ib_flow::text::parse_port(s, names.ports)
}

/// A table by number or name.
pub fn parse_table(s: &str, names: &Names<'_>) -> Option<u8> {
    if s.starts_with('-') {
        vlog_warn!(OFP_TABLE, "Negative value {s} is not a valid table number.");
        return None;
    }
    if let Ok(n) = s.trim_start().parse::<u32>() {
        if n > 255 {
            vlog_warn_rl!(OFP_TABLE, (1, 5), "table {} is outside the supported range 0 through 255", n);
        }
        return u8::try_from(n).ok();
    }
    let tables = names.tables?;
    if s.starts_with('"') { tables.table(&unquote_name(s)?) } else { tables.table(s) }
}

/// Appends a port: reserved name, name, or number.
pub fn put_port(out: &mut String, port: OfPort, names: &Names<'_>) {
    format_port(port, names.ports, out);
}

/// A port's text.
pub fn port_text(port: OfPort, names: &Names<'_>) -> String {
    let mut s = String::new();
    put_port(&mut s, port, names);
    s
}

/// Appends a table: name or number.
pub fn put_table(out: &mut String, table: u8, names: &Names<'_>) {
    match names.tables.and_then(|m| m.name(table)) {
        Some(name) => quote_name(name, out),
        None => out.push_str(&table.to_string()),
    }
}
