//! Tables: rows by identifier, with the indexes and back references that make work proportional to a change.
//!
//! Beside each row a table keeps how many strong references point at it, and for each row that is weakly referenced, from
//! where. All of it follows commits by their differences: what a transaction does not touch costs nothing.

use crate::Uuid;
use crate::cell::{Cell, Element, OwnedCell, Pair};
use crate::datum::Datum;
use crate::error::Error;
pub use crate::row::{Row, RowBuilder};
use crate::row_map::RowMap;
use crate::schema::{ColumnSchema, FIRST_COLUMN, TableSchema};
use crate::types::{BaseType, RefType};
use foldhash::fast::RandomState;
use ib_base::json::table_order;
use std::collections::{HashMap, HashSet, hash_map};
use std::hash::BuildHasher;
use std::sync::Arc;

/// A hash map for keys that the server itself makes or checks.
pub type FastMap<K, V> = HashMap<K, V, RandomState>;
/// A hash set for the same.
pub type FastSet<T> = HashSet<T, RandomState>;

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
    /// Calls `f` with each reference of the given kind in a pair: table and row.
    pub fn each_in(&self, (key, value): Pair<'_>, kind: RefType, mut f: impl FnMut(usize, Uuid)) {
        let mut side = |target: Option<(usize, RefType)>, element: Option<Element<'_>>| {
            if let (Some((table, k)), Some(uuid)) = (target, element.and_then(Element::as_uuid))
                && k == kind
            {
                f(table, uuid);
            }
        };
        side(self.key, Some(key));
        side(self.value, value);
    }

    /// Calls `f` with each reference of the given kind in `cell`: table and row.
    pub fn each(&self, cell: Cell<'_>, kind: RefType, mut f: impl FnMut(usize, Uuid)) {
        cell.iter().for_each(|pair| self.each_in(pair, kind, &mut f));
    }

    /// True if a pair holds a weak reference to a row that does not exist.
    pub fn is_dangling(&self, tables: &[Table], pair: Pair<'_>) -> bool {
        let mut dangles = false;
        self.each_in(pair, RefType::Weak, |t, u| dangles |= !tables[t].rows.contains_key(&u));
        dangles
    }

    /// `cell` without the elements that [`RefColumn::is_dangling`]; none if there are none.
    pub fn without_dangling(&self, tables: &[Table], cell: Cell<'_>) -> Option<OwnedCell> {
        if !cell.iter().any(|pair| self.is_dangling(tables, pair)) {
            return None;
        }
        Some(cell.filtered(|pair| !self.is_dangling(tables, pair)))
    }

    /// True if keys or values are references of this kind.
    pub fn has(&self, kind: RefType) -> bool {
        [self.key, self.value].iter().flatten().any(|(_, k)| *k == kind)
    }
}

/// An index of the schema: finds the row that has given values in certain columns.
///
/// It keeps hashes of values, not values; those are in the rows.
#[derive(Debug, Default)]
pub struct Index {
    by_hash: FastMap<u64, Uuid>,
    /// Rows whose values have the hash of another row's.
    others: FastMap<u64, Vec<Uuid>>,
}

impl Index {
    /// The rows whose values may have this hash.
    pub fn candidates(&self, hash: u64) -> impl Iterator<Item = Uuid> {
        let others = if self.others.is_empty() { None } else { self.others.get(&hash) };
        self.by_hash.get(&hash).copied().into_iter().chain(others.into_iter().flatten().copied())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.by_hash.len() + self.others.values().map(Vec::len).sum::<usize>()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Adds a row whose values have this hash.
    pub fn insert(&mut self, hash: u64, uuid: Uuid) {
        match self.by_hash.entry(hash) {
            hash_map::Entry::Vacant(slot) => {
                slot.insert(uuid);
            }
            hash_map::Entry::Occupied(slot) if *slot.get() == uuid => {}
            hash_map::Entry::Occupied(_) => self.others.entry(hash).or_default().push(uuid),
        }
    }

    /// Removes a row whose values had this hash.
    pub fn remove(&mut self, hash: u64, uuid: Uuid) {
        if let Some(others) = self.others.get_mut(&hash) {
            others.retain(|u| *u != uuid);
            let next = others.last().copied();
            let first = self.by_hash.get_mut(&hash);
            if let (Some(first), Some(next)) = (first, next)
                && *first == uuid
            {
                *first = next;
                others.pop();
            }
            if others.is_empty() {
                self.others.remove(&hash);
            }
            if next.is_some() {
                return;
            }
        }
        if self.by_hash.get(&hash) == Some(&uuid) {
            self.by_hash.remove(&hash);
        }
    }
}

/// From where a row is weakly referenced: referencing table and row, and how many times. Most have one such row.
#[derive(Debug)]
pub struct Sources {
    first: (usize, Uuid),
    count: u32,
    more: Option<Box<FastMap<(usize, Uuid), u32>>>,
}

impl Sources {
    fn new(first: (usize, Uuid)) -> Sources {
        Sources { first, count: 0, more: None }
    }

    fn add(&mut self, source: (usize, Uuid)) {
        if self.first == source || self.is_empty() {
            self.first = source;
            self.count += 1;
        } else {
            *self.more.get_or_insert_default().entry(source).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, source: (usize, Uuid)) {
        if self.first == source && self.count > 0 {
            self.count -= 1;
        } else if let Some(more) = &mut self.more
            && let Some(n) = more.get_mut(&source)
        {
            *n -= 1;
            if *n == 0 {
                more.remove(&source);
            }
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.more.as_ref().is_none_or(|m| m.is_empty())
    }

    /// The referencing rows with their tables.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Uuid)> {
        let first = (self.count > 0).then_some(self.first);
        first.into_iter().chain(self.more.iter().flat_map(|m| m.keys().copied()))
    }

    /// The number of referencing rows.
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}

/// A table with its rows.
#[derive(Debug)]
pub struct Table {
    /// Its declaration.
    pub schema: Arc<TableSchema>,
    /// Rows by identifier.
    pub rows: RowMap,
    /// The indexes of the schema.
    pub indexes: Vec<Index>,
    /// For each row that is weakly referenced: from where.
    pub weak_in: FastMap<Uuid, Sources>,
    /// Columns with references.
    pub ref_columns: Vec<RefColumn>,
    /// There are weak references among them.
    pub has_weak: bool,
    /// What an inserted row holds before it is filled.
    pub default_row: Row,
    hasher: RandomState,
    /// The columns whose default breaks their own constraints: they must be given on insertion.
    pub bad_defaults: Vec<(usize, Error)>,
}

/// The columns in the order of Open vSwitch's hash table, which it fills with its own and then in the order of the schema's JSON.
fn original_order(schema: &TableSchema) -> Vec<usize> {
    let (own, declared) = schema.columns.split_at(FIRST_COLUMN);
    let json = table_order(declared.iter().map(|c| &*c.name));
    let filled: Vec<&ColumnSchema> = own.iter().chain(json.into_iter().map(|i| &declared[i])).collect();
    table_order(filled.iter().map(|c| &*c.name)).into_iter().map(|i| filled[i].index).collect()
}

impl Table {
    /// An empty table. `table_index` finds tables by name.
    pub fn new(schema: Arc<TableSchema>, table_index: impl Fn(&str) -> Option<usize>) -> Table {
        let defaults: Vec<Datum> = schema.columns.iter().map(|c| Datum::default_for(&c.kind)).collect();
        // Of several that are wrong the original names the first in its table of columns.
        let order = original_order(&schema);
        let user = || order.iter().map(|&c| &schema.columns[c]).filter(|c| c.index >= FIRST_COLUMN);
        let bad_defaults =
            user().filter_map(|c| defaults[c.index].check(&c.kind).err().map(|e| (c.index, e))).collect();
        let target = |base: Option<&BaseType>| {
            let reference = base?.reference.as_ref()?;
            Some((table_index(&reference.table)?, reference.ref_type))
        };
        let ref_columns: Vec<RefColumn> = user()
            .map(|c| RefColumn {
                column: c.index,
                key: target(Some(&c.kind.key)),
                value: target(c.kind.value.as_ref()),
            })
            .filter(|r| r.key.is_some() || r.value.is_some())
            .collect();
        let indexes = schema.indexes.iter().map(|_| Index::default()).collect();
        Table {
            rows: RowMap::default(),
            weak_in: FastMap::default(),
            indexes,
            has_weak: ref_columns.iter().any(|r| r.has(RefType::Weak)),
            ref_columns,
            default_row: Row::new(&defaults),
            hasher: RandomState::default(),
            bad_defaults,
            schema,
        }
    }

    /// A row of default values with this identifier.
    pub fn new_row(&self, uuid: Uuid) -> Row {
        self.filled_row(uuid, &[])
    }

    /// A new row with this identifier of these data and defaults.
    pub fn filled_row(&self, uuid: Uuid, data: &[(usize, Datum)]) -> Row {
        RowBuilder::with_shared(|builder| {
            builder.begin(self.schema.columns.len());
            for (column, datum) in data {
                builder.set(*column, datum);
            }
            builder.finish(Some(&self.default_row), uuid, Uuid::random_version())
        })
    }

    /// The row with this identifier.
    pub fn row(&self, uuid: Uuid) -> Option<&Row> {
        self.rows.get(&uuid).map(|e| &e.row)
    }

    /// The hash of the values that `row` has in the columns of index `i`.
    pub fn index_hash(&self, i: usize, row: &Row) -> u64 {
        self.hash_values(self.schema.indexes[i].iter().map(|&c| row.cell(c)))
    }

    /// Has indexes follow a row that is about to become `new`, or to go.
    pub fn reindex(&mut self, uuid: Uuid, new: Option<&Row>) {
        for i in 0..self.indexes.len() {
            if let Some(hash) = self.row(uuid).map(|old| self.index_hash(i, old)) {
                self.indexes[i].remove(hash, uuid);
            }
            if let Some(hash) = new.map(|new| self.index_hash(i, new)) {
                self.indexes[i].insert(hash, uuid);
            }
        }
    }

    /// The hash of the values of an index's columns.
    pub fn hash_values<'a>(&self, values: impl Iterator<Item = Cell<'a>>) -> u64 {
        use std::hash::Hash;
        let mut state = self.hasher.build_hasher();
        values.for_each(|cell| cell.hash(&mut state));
        std::hash::Hasher::finish(&state)
    }

    /// Records or forgets the weak references that `row` of table `table` holds. `tables` are all tables.
    pub fn link_weak(tables: &mut [Table], table: usize, old: Option<&Row>, new: Option<&Row>) {
        let Some(row) = new.or(old) else { return };
        let source = (table, row.uuid());
        let mut found: Vec<(bool, usize, Uuid)> = Vec::new();
        for r in tables[table].ref_columns.iter().filter(|r| r.has(RefType::Weak)) {
            let (old, new) = (Row::cell_of(old, r.column), Row::cell_of(new, r.column));
            old.changes(new, |came, pair| r.each_in(pair, RefType::Weak, |t, u| found.push((came, t, u))));
        }
        for (came, target, uuid) in found {
            let map = &mut tables[target].weak_in;
            if came {
                map.entry(uuid).or_insert_with(|| Sources::new(source)).add(source);
            } else if let Some(sources) = map.get_mut(&uuid) {
                sources.remove(source);
                if sources.is_empty() {
                    map.remove(&uuid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_keeps_rows_of_equal_hash_apart() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let all = |index: &Index| {
            let mut found: Vec<Uuid> = index.candidates(7).collect();
            found.sort();
            found
        };
        for order in [[a, b, c], [c, a, b], [b, c, a]] {
            let mut index = Index::default();
            for uuid in [a, b, c] {
                index.insert(7, uuid);
            }
            assert_eq!(all(&index), [a, b, c]);
            for (n, uuid) in order.into_iter().enumerate() {
                index.remove(7, uuid);
                assert_eq!(all(&index).len(), 2 - n);
                assert!(!all(&index).contains(&uuid));
            }
        }
    }

    #[test]
    fn sources_count() {
        let [a, b] = [1, 2].map(|n| (0, Uuid::from_u128(n)));
        let mut sources = Sources::new(a);
        sources.add(a);
        sources.add(a);
        sources.add(b);
        assert_eq!(sources.len(), 2);
        sources.remove(a);
        sources.remove(a);
        assert_eq!(sources.iter().collect::<Vec<_>>(), [b]);
        sources.add(a);
        sources.remove(b);
        assert_eq!(sources.iter().collect::<Vec<_>>(), [a]);
        sources.remove(a);
        assert!(sources.is_empty());
    }
}
