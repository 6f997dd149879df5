//! `where` clauses: which rows an operation or a conditional monitor means.
//!
//! An operation means the rows that satisfy all clauses of a [`Condition`]. A monitor means those that satisfy any of perhaps
//! thousands; [`AnyOf`] keeps the values that columns are compared with in hash sets, so that a row is judged by a lookup
//! for each column rather than a comparison for each clause.

use crate::atom::SymbolTable;
use crate::cell::{Cell, OwnedCell};
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::schema::{TableSchema, UUID_COLUMN};
use crate::table::{FastSet, Row, Table};
use crate::types::{ColumnType, UNLIMITED};
use crate::{AtomicType, Uuid};
use ib_base::json::Json;
use std::cmp::Ordering;

/// How a clause compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `==`
    Eq,
    /// `>=`
    Ge,
    /// `>`
    Gt,
    /// `!=`
    Ne,
    /// `includes`
    Includes,
    /// `excludes`
    Excludes,
}

impl Function {
    /// The function of this name.
    pub fn from_name(name: &str) -> Option<Function> {
        Some(match name {
            "<" => Function::Lt,
            "<=" => Function::Le,
            "==" => Function::Eq,
            ">=" => Function::Ge,
            ">" => Function::Gt,
            "!=" => Function::Ne,
            "includes" => Function::Includes,
            "excludes" => Function::Excludes,
            _ => return None,
        })
    }

    fn is_relation(self) -> bool {
        matches!(self, Function::Lt | Function::Le | Function::Ge | Function::Gt)
    }
}

/// One comparison, or a constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Clause {
    /// Always or never.
    Constant(bool),
    /// A column of the row compared with a value.
    Compare {
        /// The column's index.
        column: usize,
        /// How.
        function: Function,
        /// With what.
        argument: OwnedCell,
    },
}

/// A list of clauses.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// The clauses.
    pub clauses: Vec<Clause>,
}

impl Clause {
    fn from_json(table: &TableSchema, json: &Json, symbols: Option<&mut SymbolTable>) -> Result<Clause> {
        if let Json::Bool(b) = json {
            return Ok(Clause::Constant(*b));
        }
        let Some([Json::String(name), Json::String(function_name), argument]) = json.as_array() else {
            return Err(Error::syntax(json, "Parse error in condition."));
        };
        let Some(column) = table.column(name) else {
            let message = format!("No column {name} in table {}.", table.name);
            return Err(Error::syntax_tagged(json, "unknown column", message));
        };
        let Some(function) = Function::from_name(function_name) else {
            return Err(Error::new("unknown function", format!("No function named {function_name}.")));
        };
        let kind = argument_type(&column.kind, function);
        let Some(kind) = kind else {
            return Err(Error::syntax(
                json,
                format!(
                    "Type mismatch: \"{function_name}\" operator may not be applied to column {name} of type {}.",
                    column.kind.to_english()
                ),
            ));
        };
        let argument = OwnedCell::new(&Datum::from_json(&kind, argument, symbols)?);
        Ok(Clause::Compare { column: column.index, function, argument })
    }

    /// True if `row` satisfies the clause.
    pub fn matches(&self, row: &Row) -> bool {
        let (field, function, argument) = match self {
            Clause::Constant(b) => return *b,
            Clause::Compare { column, function, argument } => (row.cell(*column), *function, argument.cell()),
        };
        let order = || match (field.as_scalar(), argument.as_scalar()) {
            (Some(a), Some(b)) => Some(a.bytes().cmp(b.bytes())),
            _ => None,
        };
        match function {
            Function::Eq => field == argument,
            Function::Ne => field != argument,
            Function::Includes => argument.is_subset_of(field),
            Function::Excludes => argument.is_disjoint_from(field),
            Function::Lt => order() == Some(Ordering::Less),
            Function::Gt => order() == Some(Ordering::Greater),
            Function::Le => matches!(order(), Some(Ordering::Less | Ordering::Equal)),
            Function::Ge => matches!(order(), Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// The type that a function's argument must have on a column; none if the function does not apply to it.
fn argument_type(column: &ColumnType, function: Function) -> Option<ColumnType> {
    let mut kind = column.clone();
    if function.is_relation() {
        let number = matches!(kind.key.kind, AtomicType::Integer | AtomicType::Real);
        if !number || !(kind.is_scalar() || kind.is_optional_scalar()) {
            return None;
        }
        kind.min = 1;
    } else if !kind.is_scalar() {
        if matches!(function, Function::Includes | Function::Excludes) {
            kind.min = 0;
        }
        if function == Function::Excludes {
            kind.max = UNLIMITED;
        }
    }
    Some(kind)
}

impl Condition {
    /// Reads a list of clauses.
    pub fn from_json(
        table: &TableSchema,
        json: &Json,
        mut symbols: Option<&mut SymbolTable>,
    ) -> Result<Condition> {
        let Some(list) = json.as_array() else {
            return Err(Error::syntax(json, "array expected"));
        };
        let clauses = list.iter().map(|c| Clause::from_json(table, c, symbols.as_deref_mut()));
        Ok(Condition { clauses: clauses.collect::<Result<_>>()? })
    }

    /// True if all clauses hold: the rule for operations.
    pub fn matches_all(&self, row: &Row) -> bool {
        self.clauses.iter().all(|c| c.matches(row))
    }

    /// True if every row satisfies one of the clauses or there is none: the rule for monitors.
    pub fn is_true(&self) -> bool {
        self.clauses.is_empty() || self.clauses.iter().any(|c| matches!(c, Clause::Constant(true)))
    }

    /// The only row that can satisfy all clauses, if the condition names it by its UUID.
    pub fn row_uuid(&self) -> Option<Uuid> {
        self.clauses.iter().find_map(|c| match c {
            Clause::Compare {
                column: UUID_COLUMN,
                function: Function::Eq | Function::Includes,
                argument,
            } => argument.cell().as_uuid(),
            _ => None,
        })
    }

    /// The value that rows must have in `column` to satisfy all clauses, if one clause says so.
    pub fn equal_to(&self, wanted: usize) -> Option<Cell<'_>> {
        self.clauses.iter().find_map(|c| match c {
            Clause::Compare { column, function: Function::Eq, argument } if *column == wanted => {
                Some(argument.cell())
            }
            _ => None,
        })
    }
}

/// A condition that holds where any clause does, or where there is none.
#[derive(Clone, Debug, Default)]
pub struct AnyOf {
    /// Nothing is asked of a row.
    always: bool,
    /// By column: values of which it must have one.
    equal: Vec<(usize, FastSet<OwnedCell>)>,
    /// What is not a comparison for equality.
    others: Vec<Clause>,
    /// The columns that clauses look at.
    columns: Vec<usize>,
}

impl AnyOf {
    /// The condition that these clauses make.
    pub fn new(clauses: impl IntoIterator<Item = Clause>) -> AnyOf {
        let mut any = AnyOf { always: true, ..AnyOf::default() };
        let mut constant = false;
        for clause in clauses {
            any.always = false;
            let column = match clause {
                Clause::Constant(b) => {
                    constant |= b;
                    continue;
                }
                Clause::Compare { column, function: Function::Eq, argument } => {
                    match any.equal.iter_mut().find(|(c, _)| *c == column) {
                        Some((_, values)) => {
                            values.insert(argument);
                        }
                        None => any.equal.push((column, [argument].into_iter().collect())),
                    }
                    column
                }
                Clause::Compare { column, .. } => {
                    any.others.push(clause);
                    column
                }
            };
            if !any.columns.contains(&column) {
                any.columns.push(column);
            }
        }
        any.always |= constant;
        any
    }

    /// True if every row satisfies the condition.
    pub fn is_true(&self) -> bool {
        self.always
    }

    /// True if `row` satisfies the condition.
    pub fn matches(&self, row: &Row) -> bool {
        self.always
            || self.equal.iter().any(|(column, values)| values.contains(row.cell(*column).packed()))
            || self.others.iter().any(|c| c.matches(row))
    }

    /// The columns that clauses look at.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().copied()
    }

    /// For each column the values of which a row must have one, if that is all that the condition asks.
    fn only_values(&self) -> Option<impl Iterator<Item = (usize, Vec<Cell<'_>>)>> {
        (!self.always && self.others.is_empty())
            .then(|| self.equal.iter().map(|(c, values)| (*c, values.iter().map(OwnedCell::cell).collect())))
    }

    /// The rows of `table` that may satisfy the condition, if they can be found without looking at all.
    pub fn candidates(&self, table: &Table) -> Option<Vec<Uuid>> {
        find_rows(table, self.only_values()?)
    }

    /// Calls `f` with each row of `table` about which this condition and `other` differ, and whether `other` wants it. Costs no
    /// more than a look at each row, and a lookup for each value that is in one of the conditions only where an index helps.
    pub fn each_difference<'a>(&self, other: &AnyOf, table: &'a Table, mut f: impl FnMut(&'a Row, bool)) {
        let mut judge = |row: &'a Row| {
            let is = other.matches(row);
            if self.matches(row) != is {
                f(row, is);
            }
        };
        // Where both ask the same of other columns, only rows with values that came or went matter.
        let mut changed: Vec<(usize, FastSet<&OwnedCell>)> = Vec::new();
        let same_otherwise = !self.always && !other.always && self.others == other.others;
        if !same_otherwise {
            return table.rows.values().for_each(|e| judge(&e.row));
        }
        let of = |any: &AnyOf, column: usize| any.equal.iter().position(|(c, _)| *c == column);
        let none = FastSet::default();
        for column in self.columns().chain(other.columns().filter(|c| !self.columns.contains(c))) {
            let a = of(self, column).map_or(&none, |i| &self.equal[i].1);
            let b = of(other, column).map_or(&none, |i| &other.equal[i].1);
            let differ: FastSet<&OwnedCell> = a.symmetric_difference(b).collect();
            if !differ.is_empty() {
                changed.push((column, differ));
            }
        }
        let cells = changed.iter().map(|(c, values)| (*c, values.iter().map(|v| v.cell()).collect()));
        if let Some(found) = find_rows(table, cells) {
            return found.into_iter().filter_map(|uuid| table.row(uuid)).for_each(judge);
        }
        let may_differ = |row: &Row| changed.iter().any(|(c, values)| values.contains(row.cell(*c).packed()));
        table.rows.values().map(|e| &e.row).filter(|row| may_differ(row)).for_each(judge);
    }
}

/// The rows that may have one of the given values in the given columns, each once; none if a column has no index.
fn find_rows<'a>(table: &Table, values: impl Iterator<Item = (usize, Vec<Cell<'a>>)>) -> Option<Vec<Uuid>> {
    let mut found: FastSet<Uuid> = FastSet::default();
    for (column, values) in values {
        if column == UUID_COLUMN {
            found.extend(values.iter().filter_map(|v| v.as_uuid()).filter(|u| table.rows.contains_key(u)));
            continue;
        }
        let index = table.schema.indexes.iter().position(|columns| *columns == [column])?;
        for value in values {
            let hash = table.hash_values([value].into_iter());
            found.extend(table.indexes[index].candidates(hash));
        }
    }
    Some(found.into_iter().collect())
}
