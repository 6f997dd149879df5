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
use crate::table::{FastSet, Row};
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
#[derive(Clone, Debug)]
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

    /// The only rows that can satisfy the condition, if it names them by their UUIDs.
    pub fn row_uuids(&self) -> Option<Vec<Uuid>> {
        match &self.equal[..] {
            [(UUID_COLUMN, values)] if !self.always && self.others.is_empty() => {
                Some(values.iter().filter_map(|v| v.cell().as_uuid()).collect())
            }
            [] if !self.always && self.others.is_empty() => Some(Vec::new()),
            _ => None,
        }
    }

    /// The rows about which two conditions may differ, if both compare by UUID where they do.
    pub fn differing_uuids(&self, other: &AnyOf) -> Option<Vec<Uuid>> {
        if self.always || other.always || !self.others.is_empty() || !other.others.is_empty() {
            return None;
        }
        let none = FastSet::default();
        let of = |any: &AnyOf, column: usize| any.equal.iter().position(|(c, _)| *c == column);
        for (column, values) in self.equal.iter().filter(|(c, _)| *c != UUID_COLUMN) {
            if of(other, *column).is_none_or(|i| other.equal[i].1 != *values) {
                return None;
            }
        }
        if other.equal.iter().any(|(c, _)| *c != UUID_COLUMN && of(self, *c).is_none()) {
            return None;
        }
        let a = of(self, UUID_COLUMN).map_or(&none, |i| &self.equal[i].1);
        let b = of(other, UUID_COLUMN).map_or(&none, |i| &other.equal[i].1);
        Some(a.symmetric_difference(b).filter_map(|v| v.cell().as_uuid()).collect())
    }
}
