//! Mutations: changes of a column relative to what it holds.

use crate::AtomicType;
use crate::atom::{Atom, SymbolTable};
use crate::cell::OwnedCell;
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::schema::TableSchema;
use crate::table::Row;
use crate::types::{BaseType, ColumnType, UNLIMITED};
use ib_base::json::Json;

/// How a mutation changes a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// `+=`
    Add,
    /// `-=`
    Subtract,
    /// `*=`
    Multiply,
    /// `/=`
    Divide,
    /// `%=`
    Modulo,
    /// `insert`
    Insert,
    /// `delete`
    Delete,
}

impl Mutator {
    fn from_name(name: &str) -> Option<Mutator> {
        Some(match name {
            "+=" => Mutator::Add,
            "-=" => Mutator::Subtract,
            "*=" => Mutator::Multiply,
            "/=" => Mutator::Divide,
            "%=" => Mutator::Modulo,
            "insert" => Mutator::Insert,
            "delete" => Mutator::Delete,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Mutator::Add => "+=",
            Mutator::Subtract => "-=",
            Mutator::Multiply => "*=",
            Mutator::Divide => "/=",
            Mutator::Modulo => "%=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        }
    }
}

/// One change of one column.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The column's index.
    pub column: usize,
    mutator: Mutator,
    argument: OwnedCell,
    /// `delete` from a map by keys alone.
    by_key: bool,
}

impl Mutation {
    /// The keys of a map that `insert` or `delete` touches; none for other mutators.
    pub fn keys(&self) -> Option<Datum> {
        matches!(self.mutator, Mutator::Insert | Mutator::Delete).then(|| self.argument.cell().to_datum())
    }

    /// Reads `[column, mutator, value]`.
    pub fn from_json(table: &TableSchema, json: &Json, symbols: &mut SymbolTable) -> Result<Mutation> {
        let Some([Json::String(name), Json::String(mutator_name), argument]) = json.as_array() else {
            return Err(Error::syntax(json, "Parse error in mutation."));
        };
        let Some(column) = table.column(name) else {
            let message = format!("No column {name} in table {}.", table.name);
            return Err(Error::syntax_tagged(json, "unknown column", message));
        };
        if !column.mutable {
            let message = format!("Cannot mutate immutable column {name} in table {}.", table.name);
            return Err(Error::syntax_tagged(json, "constraint violation", message));
        }
        let Some(mutator) = Mutator::from_name(mutator_name) else {
            return Err(Error::new("unknown mutator", format!("No mutator named {mutator_name}.")));
        };
        let kind = &column.kind;
        let mismatch = || {
            Error::syntax(
                json,
                format!(
                    "Type mismatch: \"{mutator_name}\" operator may not be applied to column {name} of type {}.",
                    kind.to_english()
                ),
            )
        };
        let mut by_key = false;
        let argument_type = match mutator {
            Mutator::Insert | Mutator::Delete => {
                if !kind.is_set() && !kind.is_map() {
                    return Err(mismatch());
                }
                let mut kind = kind.clone();
                kind.min = 0;
                if mutator == Mutator::Delete {
                    kind.max = UNLIMITED;
                    // What is no map may be a set of keys; if it is neither, the complaint is about the latter.
                    if kind.is_map() && Datum::from_json(&kind, argument, Some(&mut *symbols)).is_err() {
                        kind.value = None;
                        by_key = true;
                    }
                }
                kind
            }
            _ => {
                let number = match kind.key.kind {
                    AtomicType::Integer => true,
                    AtomicType::Real => mutator != Mutator::Modulo,
                    _ => false,
                };
                if !number || kind.is_map() {
                    return Err(mismatch());
                }
                ColumnType::scalar(BaseType::new(kind.key.kind))
            }
        };
        let argument = OwnedCell::new(&Datum::from_json(&argument_type, argument, Some(symbols))?);
        Ok(Mutation { column: column.index, mutator, argument, by_key })
    }

    /// What the column holds after the mutation of `row`.
    pub fn apply(&self, table: &TableSchema, row: &Row) -> Result<OwnedCell> {
        let old = row.cell(self.column);
        let kind = &table.columns[self.column].kind;
        let new = match self.mutator {
            Mutator::Insert => old.union(self.argument.cell()),
            Mutator::Delete => old.subtract(self.argument.cell(), self.by_key),
            _ => return self.arithmetic(&old.to_datum(), kind).map(|datum| OwnedCell::new(&datum)),
        };
        if kind.min > 0 || kind.max != UNLIMITED {
            let n = new.cell().len();
            if n < kind.min as usize || n > kind.max as usize {
                let message = format!("Attempted to store {n} elements in {}.", kind.to_english());
                return Err(Error::constraint(message));
            }
        }
        Ok(new)
    }

    fn arithmetic(&self, old: &Datum, kind: &ColumnType) -> Result<Datum> {
        let Some(operand) = self.argument.cell().as_scalar() else { return Ok(old.clone()) };
        let operand = operand.to_atom();
        let out_of_range = || {
            Error::new(
                "range error",
                format!("Result of \"{}\" operation is out of range.", self.mutator.name()),
            )
        };
        let division = || Error::new("domain error", "Division by zero.");
        let mut atoms = Vec::with_capacity(old.len());
        for atom in old.as_set() {
            let atom = match (atom, &operand) {
                (Atom::Integer(a), Atom::Integer(b)) => {
                    let result = match self.mutator {
                        Mutator::Add => a.checked_add(*b),
                        Mutator::Subtract => a.checked_sub(*b),
                        Mutator::Multiply => a.checked_mul(*b),
                        _ if *b == 0 => return Err(division()),
                        Mutator::Divide => a.checked_div(*b),
                        _ => Some(a.checked_rem(*b).unwrap_or(0)),
                    };
                    Atom::Integer(result.ok_or_else(out_of_range)?)
                }
                (Atom::Real(a), Atom::Real(b)) => {
                    let result = match self.mutator {
                        Mutator::Add => a + b,
                        Mutator::Subtract => a - b,
                        Mutator::Multiply => a * b,
                        _ if *b == 0.0 => return Err(division()),
                        _ => a / b,
                    };
                    if !result.is_finite() {
                        return Err(out_of_range());
                    }
                    Atom::Real(result)
                }
                _ => return Ok(old.clone()),
            };
            kind.key.check(&atom)?;
            atoms.push(atom);
        }
        let n = atoms.len();
        let new = Datum::set(atoms);
        if new.len() < n {
            let message = format!("Result of \"{}\" operation contains duplicates.", self.mutator.name());
            return Err(Error::constraint(message));
        }
        Ok(new)
    }
}
