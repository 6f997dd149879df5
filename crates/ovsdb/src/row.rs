//! Rows: immutable, shared, packed.
//!
//! A [`Row`] is one allocation that the table, a transaction's memory of the past, pending monitors and the history share.
//! Changing a row makes another. Its bytes are
//!
//! ```text
//! columns (4 bytes, the top bit for wide offsets) | _uuid cell | _version cell | end of each further cell | cells
//! ```
//!
//! so that a column of default content costs the two bytes of its offset, and a row of a switch some 200 bytes in all. A row does
//! not know its table; columns are counted as in [`crate::schema`].

use crate::Uuid;
use crate::cell::{Cell, UUID_HEAD, pack};
use crate::datum::Datum;
use crate::schema::{FIRST_COLUMN, UUID_COLUMN, VERSION_COLUMN};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// A row: one cell a column, `_uuid` and `_version` included.
#[derive(Clone)]
pub struct Row(Arc<[u8]>);

/// Where a cell of one UUID begins and ends.
const UUID_CELL: Range<usize> = 4..21;
const VERSION_CELL: Range<usize> = 21..38;
const OFFSETS: usize = 38;
const WIDE: u32 = 1 << 31;

impl Row {
    /// A row of the given data, in the order of the table's columns.
    pub fn new(data: &[Datum]) -> Row {
        let uuid = |column: usize| data.get(column).and_then(Datum::as_uuid).unwrap_or_default();
        let mut builder = RowBuilder::default();
        builder.begin(data.len());
        for (column, datum) in data.iter().enumerate().skip(FIRST_COLUMN) {
            builder.set(column, datum);
        }
        builder.finish(None, uuid(UUID_COLUMN), uuid(VERSION_COLUMN))
    }

    /// The identifier.
    pub fn uuid(&self) -> Uuid {
        self.cell(UUID_COLUMN).as_uuid().unwrap_or_default()
    }

    fn columns_word(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        (self.columns_word() & !WIDE) as usize
    }

    /// Where the cell of user column `i` (counted from 0) ends, from the beginning of the cells.
    fn end(&self, wide: bool, i: usize) -> usize {
        if wide {
            let at = OFFSETS + 4 * i;
            let bytes = [self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]];
            u32::from_le_bytes(bytes) as usize
        } else {
            let at = OFFSETS + 2 * i;
            usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
        }
    }

    /// What a column holds.
    pub fn cell(&self, column: usize) -> Cell<'_> {
        match column {
            UUID_COLUMN => Cell::from_packed(&self.0[UUID_CELL]),
            VERSION_COLUMN => Cell::from_packed(&self.0[VERSION_CELL]),
            _ => {
                let wide = self.columns_word() & WIDE != 0;
                let i = column - FIRST_COLUMN;
                let cells = OFFSETS + (self.columns() - FIRST_COLUMN) * if wide { 4 } else { 2 };
                let start = if i == 0 { 0 } else { self.end(wide, i - 1) };
                Cell::from_packed(&self.0[cells + start..cells + self.end(wide, i)])
            }
        }
    }

    /// What a column holds in a row that may be absent.
    pub fn cell_of(row: Option<&Row>, column: usize) -> Cell<'_> {
        row.map_or(Cell::EMPTY, |row| row.cell(column))
    }

    /// What a column holds, unpacked.
    pub fn get(&self, column: usize) -> Datum {
        self.cell(column).to_datum()
    }

    /// Another row with some data changed.
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = &'a (usize, Datum)>) -> Row {
        RowBuilder::with_shared(|builder| {
            builder.begin(self.columns());
            for (column, datum) in changes {
                builder.set(*column, datum);
            }
            builder.edit(self)
        })
    }

    /// Replaces data.
    pub fn set_many<'a>(&mut self, changes: impl IntoIterator<Item = &'a (usize, Datum)>) {
        *self = self.with(changes);
    }

    fn version(&self) -> Uuid {
        self.cell(VERSION_COLUMN).as_uuid().unwrap_or_default()
    }

    /// Changes `_version`; copies the row if it is shared.
    pub fn set_version(&mut self, version: Uuid) {
        if Arc::get_mut(&mut self.0).is_none() {
            self.0 = Arc::from(&*self.0);
        }
        if let Some(bytes) = Arc::get_mut(&mut self.0) {
            bytes[VERSION_CELL.start + 1..VERSION_CELL.end].copy_from_slice(&version.as_u128().to_be_bytes());
        }
    }

    /// True if both hold the same content in all columns but `_version`.
    pub fn same_content(&self, other: &Row) -> bool {
        let parts = |row: &Row| (row.columns_word(), row.uuid());
        Arc::ptr_eq(&self.0, &other.0)
            || parts(self) == parts(other) && self.0[OFFSETS..] == other.0[OFFSETS..]
    }

    /// Bytes of memory that the row takes, the allocator's share left out.
    pub fn size(&self) -> usize {
        self.0.len() + 16
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..self.columns()).map(|c| self.cell(c))).finish()
    }
}

/// Makes rows one after the other, with memory of its own that it uses again.
#[derive(Debug, Default)]
pub struct RowBuilder {
    bytes: Vec<u8>,
    /// For each user column the part of `bytes` that is for it; none for what stays as it is.
    parts: Vec<Option<Range<usize>>>,
    out: Vec<u8>,
}

impl RowBuilder {
    /// Lends the thread's builder.
    pub(crate) fn with_shared<T>(f: impl FnOnce(&mut RowBuilder) -> T) -> T {
        thread_local! {
            static BUILDER: RefCell<RowBuilder> = RefCell::default();
        }
        // Whoever asks inside of `f` gets another.
        let mut builder = BUILDER.take();
        let result = f(&mut builder);
        BUILDER.set(builder);
        result
    }

    /// Forgets the row before and begins one of so many columns, `_uuid` and `_version` included.
    pub fn begin(&mut self, columns: usize) {
        self.bytes.clear();
        self.parts.clear();
        self.parts.resize(columns.saturating_sub(FIRST_COLUMN), None);
    }

    /// Sets a column; `_uuid` and `_version` are left alone.
    pub fn set(&mut self, column: usize, datum: &Datum) {
        self.set_with(column, |out| pack(datum, out));
    }

    /// Sets a column to a cell.
    pub fn set_cell(&mut self, column: usize, cell: Cell<'_>) {
        self.set_with(column, |out| out.extend_from_slice(cell.packed()));
    }

    /// Sets a column to the cell that `f` appends.
    pub(crate) fn set_with<T>(&mut self, column: usize, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.bytes.len();
        let result = f(&mut self.bytes);
        if let Some(part) = column.checked_sub(FIRST_COLUMN).and_then(|i| self.parts.get_mut(i)) {
            *part = Some(start..self.bytes.len());
        }
        result
    }

    /// What a column was set to, if it was.
    pub fn changed(&self, column: usize) -> Option<Cell<'_>> {
        let part = self.parts.get(column.checked_sub(FIRST_COLUMN)?)?.clone()?;
        Some(Cell::from_packed(&self.bytes[part]))
    }

    /// `base` with what was set since [`RowBuilder::begin`].
    pub fn edit(&mut self, base: &Row) -> Row {
        self.finish(Some(base), base.uuid(), base.version())
    }

    /// The row. Columns that were not set are as in `base`, or empty without one.
    pub fn finish(&mut self, base: Option<&Row>, uuid: Uuid, version: Uuid) -> Row {
        let (bytes, parts, out) = (&self.bytes, &self.parts, &mut self.out);
        let cell = |i: usize| match (&parts[i], base) {
            (Some(part), _) => &bytes[part.clone()],
            (None, Some(base)) => base.cell(i + FIRST_COLUMN).packed(),
            (None, None) => &[],
        };
        let n = parts.len();
        // A schema's text is much longer than the number of its columns.
        let columns = u32::try_from(n + FIRST_COLUMN).unwrap_or(WIDE - 1);
        out.clear();
        out.extend_from_slice(&columns.to_le_bytes());
        for id in [uuid, version] {
            out.push(UUID_HEAD);
            out.extend_from_slice(&id.as_u128().to_be_bytes());
        }
        out.resize(OFFSETS + 2 * n, 0);
        let mut fits = true;
        for i in 0..n {
            out.extend_from_slice(cell(i));
            let end = out.len() - OFFSETS - 2 * n;
            fits &= end <= usize::from(u16::MAX);
            out[OFFSETS + 2 * i..][..2].copy_from_slice(&(end as u16).to_le_bytes());
        }
        if !fits {
            out[..4].copy_from_slice(&(columns | WIDE).to_le_bytes());
            out.truncate(OFFSETS);
            let mut end = 0;
            for i in 0..n {
                end += cell(i).len();
                out.extend_from_slice(&u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
            }
            (0..n).for_each(|i| out.extend_from_slice(cell(i)));
        }
        let row = Row(Arc::from(&**out));
        if out.capacity() > 1 << 20 {
            // One row of great size is no reason to keep that much.
            *out = Vec::new();
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Atom;

    #[test]
    fn rows_hold_what_they_are_given() {
        let uuid = Uuid::random();
        let big = Datum::set((0..20_000i64).map(Atom::Integer));
        let data = [
            Datum::scalar(uuid),
            Datum::scalar(Uuid::random()),
            Datum::scalar("name"),
            Datum::EMPTY,
            Datum::scalar(5i64),
            Datum::set([1i64, 2, 3].map(Atom::Integer)),
        ];
        let row = Row::new(&data);
        assert_eq!(row.columns(), data.len());
        let check = |row: &Row, data: &[Datum]| {
            for (i, datum) in data.iter().enumerate() {
                assert_eq!(row.get(i), *datum, "column {i}");
            }
        };
        check(&row, &data);
        assert_eq!(row.uuid(), uuid);
        // Beyond 64 KiB of cells and back.
        let wide = row.with(&[(3, big.clone())]);
        let mut wide_data = data.clone();
        wide_data[3] = big;
        check(&wide, &wide_data);
        let back = wide.with(&[(3, Datum::EMPTY)]);
        check(&back, &data);
        assert!(back.same_content(&row) && !wide.same_content(&row));
        assert!(row.size() < 150);
    }

    #[test]
    fn versions_change_without_the_rest() {
        let data = [Datum::scalar(Uuid::random()), Datum::scalar(Uuid::random()), Datum::scalar(true)];
        let row = Row::new(&data);
        let mut other = row.clone();
        let version = Uuid::random();
        other.set_version(version);
        assert_eq!(other.get(VERSION_COLUMN), Datum::scalar(version));
        assert_eq!(row.get(VERSION_COLUMN), data[VERSION_COLUMN]);
        assert!(other.same_content(&row));
    }
}
