//! The engine of the `*ctl` tools: generic commands on any database, and the frame that a tool's own commands run in.
//!
//! A tool is a [`Tool`]: its schema, the ways its tables' rows are named on the command line, what `show` prints, and
//! tables of [`Command`]s. A run parses the command line ([`grammar`]), lets each command say what it will read
//! ([`Preparation`], before the database is contacted), and then runs all commands against a [`Ctl`]: a view of the replica through one
//! transaction, in which later commands see what earlier ones did. When the database changes underneath, everything runs again;
//! so commands have no effect outside the `Ctl` and their [`Call`].
//!
//! Files: `grammar` words to calls; `lookup` names to tables, columns and rows; `values` `column:key=value`
//! arguments; `program` the frame from command line to exit code; `generic` the commands `list`, `find`, `get`, `set`, `add`, `remove`, `clear`, `create`, `destroy`,
//! `wait-until`, `comment`; `show` the overview.

pub mod generic;
pub mod grammar;
pub mod help;
pub mod lookup;
pub mod program;
pub mod show;
pub mod targets;
pub mod values;

pub use grammar::{Call, Command, Outcome, Stop};

use crate::table::{Cell, CellStyle, Format, Style};
use ib_ovsdb::idl::{Idl, Row, Txn, View};
use ib_ovsdb::{ColumnType, Datum, SymbolTable, Uuid};

/// A way to name rows of a table.
pub struct RowName {
    /// The table named.
    pub table: &'static str,
    /// The table whose rows bear the name, or the same.
    pub via_table: &'static str,
    /// Its column with the name; `None`: the only row of the table is called `.`.
    pub name_column: Option<&'static str>,
    /// Its column that refers to the row named, if the name is another table's.
    pub ref_column: Option<&'static str>,
}

/// What `show` prints of a table.
pub struct ShowTable {
    /// The table.
    pub table: &'static str,
    /// What rows are called; `None`: by their UUIDs.
    pub name_column: Option<&'static str>,
    /// Columns to print below, in order; references are followed into tables that have an entry of their own.
    pub columns: &'static [&'static str],
}

/// A column of `show` that is a map to rows which are not printed themselves: it has a line for each pair, with the row's name.
pub struct ShowMap {
    /// The table that the column is in.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The table of the rows that it refers to.
    pub target: &'static str,
    /// Their names.
    pub name_column: &'static str,
}

/// What makes a tool of the engine.
pub struct Tool {
    /// How rows are named, by table.
    pub names: &'static [RowName],
    /// What `show` prints; the first entry is the root.
    pub show: &'static [ShowTable],
    /// Columns of those tables that are printed pair by pair.
    pub show_maps: &'static [ShowMap],
    /// The module that it logs as.
    pub module: &'static ib_base::vlog::Module,
}

/// State that a tool keeps between the commands of one run.
pub trait Extension: Default {
    /// A generic command changed a column, or (`None`) deleted rows: what was derived from that is stale.
    fn changed(&mut self, _table: &str, _column: Option<&str>) {}
}

impl Extension for () {}

/// The row that a `create` command made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its placeholder.
    pub uuid: Uuid,
}

/// What commands see before the database is contacted.
pub struct Preparation<'a> {
    /// The replica to be; commands register what they will read.
    pub idl: &'a mut Idl,
    /// The tool.
    pub tool: &'static Tool,
}

/// What commands run in.
pub struct Ctl<'a, X> {
    /// The replica.
    pub idl: &'a Idl,
    /// The transaction so far.
    pub txn: Txn,
    /// The rows that `--id=@name` names.
    pub symbols: SymbolTable,
    /// How tables are to be printed.
    pub style: &'a Style,
    /// The tool.
    pub tool: &'static Tool,
    /// The tool's own state.
    pub ext: X,
}

impl<'a, X: Extension> Ctl<'a, X> {
    /// An empty transaction on `idl`.
    pub fn new(idl: &'a Idl, style: &'a Style, tool: &'static Tool) -> Ctl<'a, X> {
        Ctl { idl, txn: Txn::new(), symbols: SymbolTable::new(), style, tool, ext: X::default() }
    }

    /// The database as the transaction would leave it.
    pub fn view(&self) -> View<'_> {
        self.txn.view(self.idl)
    }

    /// One row of the view; commands hold UUIDs across changes.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<Row<'_>> {
        self.view().row(table, uuid)
    }

    /// Replaces a column's content.
    pub fn set(&mut self, table: &str, uuid: Uuid, column: &str, value: Datum) {
        self.txn.set_at(self.idl, table, uuid, column, value);
    }

    /// Adds to a set or map.
    pub fn add_to(&mut self, table: &str, uuid: Uuid, column: &str, elements: &Datum) {
        self.txn.add_to(self.idl, table, uuid, column, elements);
    }

    /// Removes from a set or map.
    pub fn remove_from(&mut self, table: &str, uuid: Uuid, column: &str, elements: &Datum) {
        self.txn.remove_from(self.idl, table, uuid, column, elements);
    }

    /// Makes the transaction depend on a column's content.
    pub fn verify(&mut self, table: &str, uuid: Uuid, column: &str) {
        self.txn.verify(self.idl, table, uuid, column);
    }

    /// A cell with a value of the database.
    pub fn cell(&self, value: &Datum, kind: &ColumnType) -> Cell {
        data_cell(self.style, value, kind)
    }
}

/// A cell with a value of the database, for tables of `style`.
pub fn data_cell(style: &Style, value: &Datum, kind: &ColumnType) -> Cell {
    match style.cell_style {
        _ if style.format == Format::Json => Cell::Json(value.to_json(kind)),
        CellStyle::Json => Cell::Json(value.to_json(kind)),
        CellStyle::String => Cell::Text(value.to_text(kind)),
        CellStyle::Bare => Cell::Text(value.to_bare()),
    }
}
