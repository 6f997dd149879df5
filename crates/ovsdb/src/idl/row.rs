//! Reading rows.
//!
//! A [`Row`] borrows the replica and, inside a [`View`] with a transaction, sees that transaction's writes. The typed
//! accessors follow the schema; an accessor that does not fit a column's type gives the type's default, as does
//! an absent optional value.

use super::{Idl, Txn};
use crate::{Atom, ColumnType, Datum, Uuid};
use std::sync::Arc;

/// A replica, as it is or as a transaction would leave it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    idl: &'a Idl,
    txn: Option<&'a Txn>,
}

impl<'a> View<'a> {
    pub(super) fn new(idl: &'a Idl, txn: Option<&'a Txn>) -> View<'a> {
        View { idl, txn }
    }

    /// The replica below.
    pub fn idl(&self) -> &'a Idl {
        self.idl
    }

    /// All rows of a table: the replica's by UUID, then those that the transaction inserts in the order of insertion.
    pub fn rows(self, table: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let t = self.idl.table(table);
        let old = self.idl.tables[t].rows.keys().copied();
        let new: Vec<Uuid> = self.txn.map(|txn| txn.inserted(t)).unwrap_or_default();
        old.chain(new).filter_map(move |uuid| self.row_at(t, uuid))
    }

    /// The rows whose `column` holds what `wanted` looks for. O(rows), at the cost of a comparison each.
    pub fn rows_where<F: Fn(&Datum) -> bool>(
        self,
        table: &str,
        column: &str,
        wanted: F,
    ) -> impl Iterator<Item = Row<'a>> + use<'a, F> {
        let c = self.idl.tables[self.idl.table(table)].column(column);
        self.rows(table).filter(move |row| wanted(row.at(c)))
    }

    /// One row.
    pub fn row(self, table: &str, uuid: Uuid) -> Option<Row<'a>> {
        self.row_at(self.idl.table(table), uuid)
    }

    pub(super) fn row_at(self, t: usize, uuid: Uuid) -> Option<Row<'a>> {
        let pending = self.txn.and_then(|txn| txn.pending(t, uuid));
        if pending.is_some_and(|p| p.deleted) {
            return None;
        }
        let values = self.idl.tables[t].rows.get(&uuid);
        if values.is_none() && !pending.is_some_and(|p| p.inserted) {
            return None;
        }
        Some(Row { view: self, t, uuid, values, pending })
    }
}

/// A row of a table.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    view: View<'a>,
    pub(super) t: usize,
    pub(super) uuid: Uuid,
    values: Option<&'a super::Stored>,
    pending: Option<&'a super::txn::PendingRow>,
}

impl<'a> Row<'a> {
    /// The row's UUID; a placeholder if the transaction inserts it.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// [`Idl::seqno`] when the row came; 0 if only the transaction has it.
    pub fn inserted_seqno(&self) -> u64 {
        self.values.map_or(0, |row| row.inserted)
    }

    /// [`Idl::seqno`] when the row last changed; 0 never.
    pub fn modified_seqno(&self) -> u64 {
        self.values.map_or(0, |row| row.modified)
    }

    /// The table's name.
    pub fn table(&self) -> &'a Arc<str> {
        &self.view.idl.tables[self.t].name
    }

    /// The view it was read from.
    pub fn view(&self) -> View<'a> {
        self.view
    }

    /// The value of a column.
    pub fn get(&self, column: &str) -> &'a Datum {
        self.at(self.view.idl.tables[self.t].column(column))
    }

    /// The value of a column by its place among the sorted names of the schema.
    fn at(&self, c: usize) -> &'a Datum {
        let table = &self.view.idl.tables[self.t];
        if let Some(value) = self.pending.and_then(|p| p.value(c)) {
            return value;
        }
        match self.values {
            Some(values) => &values[c],
            None => &table.columns[c].default,
        }
    }

    /// The type of a column.
    pub fn column_type(&self, column: &str) -> &'a ColumnType {
        let table = &self.view.idl.tables[self.t];
        &table.columns[table.column(column)].schema.kind
    }

    fn first(&self, column: &str) -> Option<&'a Atom> {
        self.get(column).as_set().first()
    }

    /// A string; empty if there is none.
    pub fn str(&self, column: &str) -> &'a str {
        self.str_opt(column).unwrap_or("")
    }

    /// An optional string.
    pub fn str_opt(&self, column: &str) -> Option<&'a str> {
        self.first(column)?.as_str()
    }

    /// An integer; 0 if there is none.
    pub fn int(&self, column: &str) -> i64 {
        self.int_opt(column).unwrap_or(0)
    }

    /// An optional integer.
    pub fn int_opt(&self, column: &str) -> Option<i64> {
        self.first(column)?.as_integer()
    }

    /// A real number; 0 if there is none.
    pub fn real(&self, column: &str) -> f64 {
        self.real_opt(column).unwrap_or(0.0)
    }

    /// An optional real number.
    pub fn real_opt(&self, column: &str) -> Option<f64> {
        self.get(column).as_real()
    }

    /// A Boolean; false if there is none.
    pub fn bool(&self, column: &str) -> bool {
        self.bool_opt(column).unwrap_or(false)
    }

    /// An optional Boolean.
    pub fn bool_opt(&self, column: &str) -> Option<bool> {
        self.first(column)?.as_bool()
    }

    /// The strings of a set.
    pub fn strs(&self, column: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(column).as_set().iter().filter_map(Atom::as_str)
    }

    /// The integers of a set.
    pub fn ints(&self, column: &str) -> impl Iterator<Item = i64> + use<'a> {
        self.get(column).as_set().iter().filter_map(Atom::as_integer)
    }

    /// A map from strings to strings, in the order of its keys.
    pub fn smap(&self, column: &str) -> Smap<'a> {
        Smap { datum: self.get(column) }
    }

    /// The UUIDs in a column: set elements, or map values where those are the references.
    pub fn uuids(&self, column: &str) -> impl Iterator<Item = Uuid> + use<'a> {
        let is_ref = self.column_type(column).value.is_some();
        let atoms = self.get(column).iter();
        atoms.filter_map(move |(key, value)| if is_ref { value?.as_uuid() } else { key.as_uuid() })
    }

    /// The rows that a column refers to; references to rows that are not in the replica are passed over.
    pub fn refs(&self, column: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let ty = self.column_type(column);
        let base = ty.value.as_ref().unwrap_or(&ty.key);
        let target = base.reference.as_ref().map(|r| self.view.idl.table(&r.table));
        let view = self.view;
        self.uuids(column).filter_map(move |uuid| view.row_at(target?, uuid))
    }

    /// The one row that an optional reference names.
    pub fn ref_opt(&self, column: &str) -> Option<Row<'a>> {
        self.refs(column).next()
    }

    /// A map from integers to rows.
    pub fn int_refs(&self, column: &str) -> impl Iterator<Item = (i64, Row<'a>)> + use<'a> {
        let datum = self.get(column);
        let target = self.column_type(column).value.as_ref().and_then(|b| b.reference.as_ref());
        let target = target.map(|r| self.view.idl.table(&r.table));
        let view = self.view;
        datum.as_map().iter().filter_map(move |(key, value)| {
            Some((key.as_integer()?, view.row_at(target?, value.as_uuid()?)?))
        })
    }
}

/// A map of strings, borrowed from a row.
#[derive(Clone, Copy)]
pub struct Smap<'a> {
    datum: &'a Datum,
}

impl<'a> Smap<'a> {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.datum.get_str(key)
    }

    /// The value of `key` as an integer, `default` if it is absent or not one.
    pub fn get_int(&self, key: &str, default: i64) -> i64 {
        self.get(key).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// The value of `key` as a Boolean: with a default of true everything but `false` is true, and vice versa.
    pub fn get_bool(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some(value) if default => !value.eq_ignore_ascii_case("false"),
            Some(value) => value.eq_ignore_ascii_case("true"),
            None => default,
        }
    }

    /// The pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.datum.as_map().iter().filter_map(|(k, v)| Some((k.as_str()?, v.as_str()?)))
    }

    /// True if there is no pair.
    pub fn is_empty(&self) -> bool {
        self.datum.is_empty()
    }
}
