//! Tables: rows by identifier, with the indexes and back references that make work proportional to a change.
//!
//! A [`Row`] is immutable and shared: the table, a transaction's memory of the past, pending monitors and the history all hold
//! the same allocation. Changing a row replaces it. Beside its row a table keeps how many strong references point
//! at it, and for each row that is weakly referenced, from where.

use crate::Uuid;
use crate::atom::Atom;
use crate::datum::Datum;
use crate::error::Error;
use crate::schema::{FIRST_COLUMN, TableSchema, UUID_COLUMN, VERSION_COLUMN};
use crate::types::{BaseType, RefType};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// A hash map for keys that the server itself makes or checks.
pub type FastMap<K, V> = HashMap<K, V, RandomState>;

/// A row: one datum a column, `_uuid` and `_version` included.
#[derive(Clone, Debug)]
pub struct Row(Arc<[Datum]>);

impl Row {
    /// A row of the given data, in the order of the table's columns.
    pub fn new(data: Vec<Datum>) -> Row {
        Row(data.into())
    }

    /// The identifier.
    pub fn uuid(&self) -> Uuid {
        self.0[UUID_COLUMN].as_uuid().unwrap_or(Uuid::ZERO)
    }

    /// The datum of the column with this index.
    pub fn get(&self, column: usize) -> &Datum {
        &self.0[column]
    }

    /// All data.
    pub fn data(&self) -> &[Datum] {
        &self.0
    }

    /// Replaces a datum; copies the row unless it is not shared.
    pub fn set(&mut self, column: usize, datum: Datum) {
        if let Some(data) = Arc::get_mut(&mut self.0) {
            data[column] = datum;
        } else {
            let mut data = self.0.to_vec();
            data[column] = datum;
            self.0 = data.into();
        }
    }

    /// Replaces several data.
    pub fn set_many<'a>(&mut self, changes: impl IntoIterator<Item = &'a (usize, Datum)>) {
        if Arc::get_mut(&mut self.0).is_none() {
            self.0 = self.0.to_vec().into();
        }
        if let Some(data) = Arc::get_mut(&mut self.0) {
            for (column, datum) in changes {
                data[*column] = datum.clone();
            }
        }
    }

    /// True if both hold the same content in all columns but `_version`.
    pub fn same_content(&self, other: &Row) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0[FIRST_COLUMN..] == other.0[FIRST_COLUMN..]
    }
}

/// A row in its table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The row.
    pub row: Row,
    /// How many strong references to it exist.
    pub strong_refs: u32,
}

/// A column that holds references.
#[derive(Clone, Debug)]
pub struct RefColumn {
    /// The column's index.
    pub column: usize,
    /// The index of the table referenced by keys.
    pub key: Option<(usize, RefType)>,
    /// The index of the table referenced by values.
    pub value: Option<(usize, RefType)>,
}

impl RefColumn {
    /// Calls `f` with each reference of the given kind in `datum`: table and row.
    pub fn each(&self, datum: &Datum, kind: RefType, mut f: impl FnMut(usize, Uuid)) {
        for (key, value) in datum.iter() {
            if let (Some((table, k)), Atom::Uuid(uuid)) = (self.key, key)
                && k == kind
            {
                f(table, *uuid);
            }
            if let (Some((table, k)), Some(Atom::Uuid(uuid))) = (self.value, value)
                && k == kind
            {
                f(table, *uuid);
            }
        }
    }

    /// True if an element holds a weak reference to a row that does not exist.
    pub fn is_dangling(&self, tables: &[Table], key: &Atom, value: Option<&Atom>) -> bool {
        let dangles = |target: Option<(usize, RefType)>, atom: Option<&Atom>| match (target, atom) {
            (Some((t, RefType::Weak)), Some(Atom::Uuid(u))) => !tables[t].rows.contains_key(u),
            _ => false,
        };
        dangles(self.key, Some(key)) || dangles(self.value, value)
    }

    /// `datum` without the elements that [`RefColumn::is_dangling`]; none if there are none.
    pub fn without_dangling(&self, tables: &[Table], datum: &Datum) -> Option<Datum> {
        if !datum.iter().any(|(k, v)| self.is_dangling(tables, k, v)) {
            return None;
        }
        Some(if datum.as_map().is_empty() {
            Datum::set(datum.as_set().iter().filter(|k| !self.is_dangling(tables, k, None)).cloned())
        } else {
            Datum::map(datum.as_map().iter().filter(|(k, v)| !self.is_dangling(tables, k, Some(v))).cloned())
        })
    }

    /// True if keys or values are references of this kind.
    pub fn has(&self, kind: RefType) -> bool {
        [self.key, self.value].iter().flatten().any(|(_, k)| *k == kind)
    }
}

/// The values of an index's columns.
pub type IndexKey = Box<[Datum]>;

/// A table with its rows.
#[derive(Debug)]
pub struct Table {
    /// Its declaration.
    pub schema: Arc<TableSchema>,
    /// Rows by identifier.
    pub rows: FastMap<Uuid, Entry>,
    /// For each index of the schema, the row that has given values.
    pub indexes: Vec<FastMap<IndexKey, Uuid>>,
    /// For each row that is weakly referenced: referencing table and row, and how many times.
    pub weak_in: FastMap<Uuid, FastMap<(usize, Uuid), u32>>,
    /// Columns with references.
    pub ref_columns: Vec<RefColumn>,
    /// What an inserted row holds before it is filled.
    pub defaults: Vec<Datum>,
    /// The columns whose default breaks their own constraints: they must be given on insertion.
    pub bad_defaults: Vec<(usize, Error)>,
}

impl Table {
    /// An empty table. `table_index` finds tables by name.
    pub fn new(schema: Arc<TableSchema>, table_index: impl Fn(&str) -> Option<usize>) -> Table {
        let defaults: Vec<Datum> = schema.columns.iter().map(|c| Datum::default_for(&c.kind)).collect();
        let user = || schema.columns.iter().skip(FIRST_COLUMN);
        let bad_defaults =
            user().filter_map(|c| defaults[c.index].check(&c.kind).err().map(|e| (c.index, e))).collect();
        let target = |base: Option<&BaseType>| {
            let reference = base?.reference.as_ref()?;
            Some((table_index(&reference.table)?, reference.ref_type))
        };
        let ref_columns = user()
            .map(|c| RefColumn {
                column: c.index,
                key: target(Some(&c.kind.key)),
                value: target(c.kind.value.as_ref()),
            })
            .filter(|r| r.key.is_some() || r.value.is_some())
            .collect();
        let indexes = schema.indexes.iter().map(|_| FastMap::default()).collect();
        Table {
            rows: FastMap::default(),
            weak_in: FastMap::default(),
            indexes,
            ref_columns,
            defaults,
            bad_defaults,
            schema,
        }
    }

    /// A row of default values with this identifier.
    pub fn new_row(&self, uuid: Uuid) -> Row {
        let mut data = self.defaults.clone();
        data[UUID_COLUMN] = Datum::scalar(uuid);
        data[VERSION_COLUMN] = Datum::scalar(Uuid::random());
        Row::new(data)
    }

    /// The row with this identifier.
    pub fn row(&self, uuid: Uuid) -> Option<&Row> {
        self.rows.get(&uuid).map(|e| &e.row)
    }

    /// The values that `row` has in the columns of index `i`.
    pub fn index_key(&self, i: usize, row: &Row) -> IndexKey {
        self.schema.indexes[i].iter().map(|&c| row.get(c).clone()).collect()
    }

    /// Records or forgets the weak references that `row` of table `table` holds. `tables` are all tables.
    pub fn link_weak(tables: &mut [Table], table: usize, row: &Row, add: bool) {
        let mut found: Vec<(usize, Uuid)> = Vec::new();
        for r in &tables[table].ref_columns {
            if r.has(RefType::Weak) {
                r.each(row.get(r.column), RefType::Weak, |t, u| found.push((t, u)));
            }
        }
        let source = (table, row.uuid());
        for (target, uuid) in found {
            let map = &mut tables[target].weak_in;
            if add {
                *map.entry(uuid).or_default().entry(source).or_insert(0) += 1;
            } else if let Some(sources) = map.get_mut(&uuid) {
                if let Some(n) = sources.get_mut(&source) {
                    *n -= 1;
                    if *n == 0 {
                        sources.remove(&source);
                    }
                }
                if sources.is_empty() {
                    map.remove(&uuid);
                }
            }
        }
    }
}
