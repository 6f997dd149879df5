//! Cells: what one column of one stored row holds, as bytes.
//!
//! A table's rows are many and its data small, so rows are stored packed. A [`Cell`] is the packed form of a
//! [`Datum`]: nothing at all for no elements; else a head byte (set or map, kinds of key and value) and the elements in
//! order. An element is 8 bytes for a number, 1 for a Boolean, 16 for a UUID, and for a string its length
//! (7 bits a byte, low ones first) and its UTF-8. Numbers are stored so that their bytes have their order, whence two rules that
//! everything here lives by:
//!
//! - equal data are equal bytes, so comparing and hashing need no decoding;
//! - elements of one kind compare as their bytes do, so search, union and difference are merges of byte strings.
//!
//! Cells are made by this module only, from data that were checked; reading one that is cut short ends early rather than panic.

use crate::Uuid;
use crate::atom::{Atom, AtomicType};
use crate::datum::Datum;
use crate::types::ColumnType;
use ib_base::json::{write_integer, write_string};
use std::cmp::Ordering;

const MAP: u8 = 0x40;

fn code(kind: AtomicType) -> u8 {
    match kind {
        AtomicType::Integer => 0,
        AtomicType::Real => 1,
        AtomicType::Boolean => 2,
        AtomicType::String => 3,
        AtomicType::Uuid => 4,
    }
}

fn kind_of(code: u8) -> AtomicType {
    match code & 7 {
        0 => AtomicType::Integer,
        1 => AtomicType::Real,
        2 => AtomicType::Boolean,
        3 => AtomicType::String,
        _ => AtomicType::Uuid,
    }
}

/// The head of a set, or with `value` of a map.
fn head(key: AtomicType, value: Option<AtomicType>) -> u8 {
    match value {
        None => code(key),
        Some(value) => MAP | code(value) << 3 | code(key),
    }
}

/// The head of a cell that holds one UUID.
pub(crate) const UUID_HEAD: u8 = 4;

/// A column's packed content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell<'a>(&'a [u8]);

/// A packed scalar: its kind and its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    kind: AtomicType,
    bytes: &'a [u8],
}

/// An element of a set, or with its value one of a map.
pub type Pair<'a> = (Element<'a>, Option<Element<'a>>);

/// A packed cell of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnedCell(Box<[u8]>);

impl OwnedCell {
    /// Packs a datum.
    pub fn new(datum: &Datum) -> OwnedCell {
        let mut bytes = Vec::new();
        pack(datum, &mut bytes);
        OwnedCell(bytes.into())
    }

    /// The cell.
    pub fn cell(&self) -> Cell<'_> {
        Cell(&self.0)
    }
}

impl std::borrow::Borrow<[u8]> for OwnedCell {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for &OwnedCell {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Cell<'_>> for OwnedCell {
    fn from(cell: Cell<'_>) -> OwnedCell {
        OwnedCell(cell.0.into())
    }
}

/// Appends the packed form of a datum.
pub fn pack(datum: &Datum, out: &mut Vec<u8>) {
    let map = datum.as_map();
    if let Some((key, value)) = map.first() {
        out.push(head(key.atomic_type(), Some(value.atomic_type())));
        for (key, value) in map {
            pack_atom(key, out);
            pack_atom(value, out);
        }
    } else if let Some(first) = datum.as_set().first() {
        out.push(head(first.atomic_type(), None));
        for atom in datum.as_set() {
            pack_atom(atom, out);
        }
    }
}

/// Begins a cell of one element or more.
pub(crate) fn pack_head(key: AtomicType, value: Option<AtomicType>, out: &mut Vec<u8>) {
    out.push(head(key, value));
}

/// Appends an element.
pub(crate) fn pack_atom(atom: &Atom, out: &mut Vec<u8>) {
    match atom {
        Atom::Integer(i) => pack_integer(*i, out),
        Atom::Real(r) => pack_real(*r, out),
        Atom::Boolean(b) => out.push(u8::from(*b)),
        Atom::String(s) => pack_utf8(s.as_bytes(), out),
        Atom::Uuid(u) => pack_uuid(*u, out),
    }
}

pub(crate) fn pack_uuid(uuid: Uuid, out: &mut Vec<u8>) {
    out.extend_from_slice(&uuid.as_u128().to_be_bytes());
}

pub(crate) fn pack_integer(i: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(i.cast_unsigned() ^ 1 << 63).to_be_bytes());
}

pub(crate) fn pack_real(r: f64, out: &mut Vec<u8>) {
    // One zero; and negative ones in reverse.
    let bits = if r == 0.0 { 0 } else { r.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
}

pub(crate) fn pack_utf8(s: &[u8], out: &mut Vec<u8>) {
    pack_length(s.len(), out);
    out.extend_from_slice(s);
}

fn pack_length(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn push_element(element: Element<'_>, out: &mut Vec<u8>) {
    if element.kind == AtomicType::String {
        pack_length(element.bytes.len(), out);
    }
    out.extend_from_slice(element.bytes);
}

fn push_pair((key, value): Pair<'_>, out: &mut Vec<u8>) {
    if out.is_empty() {
        out.push(head(key.kind, value.map(|v| v.kind)));
    }
    push_element(key, out);
    if let Some(value) = value {
        push_element(value, out);
    }
}

/// Takes an element of this kind from the front of `bytes`; none if there is no whole one.
fn take<'a>(kind: AtomicType, bytes: &mut &'a [u8]) -> Option<Element<'a>> {
    let n = match kind {
        AtomicType::Integer | AtomicType::Real => 8,
        AtomicType::Boolean => 1,
        AtomicType::Uuid => 16,
        AtomicType::String => {
            let mut n = 0usize;
            let mut shift = 0;
            loop {
                let (&b, rest) = bytes.split_first()?;
                *bytes = rest;
                n |= usize::from(b & 0x7f).checked_shl(shift)?;
                if b < 0x80 {
                    break n;
                }
                shift += 7;
            }
        }
    };
    let (element, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(Element { kind, bytes: element })
}

impl<'a> Element<'a> {
    fn fixed<const N: usize>(self) -> [u8; N] {
        self.bytes.try_into().unwrap_or([0; N])
    }

    /// The bytes, which compare as the elements do.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The string, if this is one.
    pub fn as_str(self) -> Option<&'a str> {
        if self.kind == AtomicType::String { std::str::from_utf8(self.bytes).ok() } else { None }
    }

    /// The UUID, if this is one.
    pub fn as_uuid(self) -> Option<Uuid> {
        (self.kind == AtomicType::Uuid).then(|| Uuid::from_u128(u128::from_be_bytes(self.fixed())))
    }

    fn integer(self) -> i64 {
        (u64::from_be_bytes(self.fixed()) ^ 1 << 63).cast_signed()
    }

    fn real(self) -> f64 {
        let ordered = u64::from_be_bytes(self.fixed());
        f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
    }

    /// The value on its own.
    pub fn to_atom(self) -> Atom {
        match self.kind {
            AtomicType::Integer => Atom::Integer(self.integer()),
            AtomicType::Real => Atom::Real(self.real()),
            AtomicType::Boolean => Atom::Boolean(self.bytes == [1]),
            AtomicType::String => Atom::from(self.as_str().unwrap_or_default()),
            AtomicType::Uuid => Atom::Uuid(self.as_uuid().unwrap_or_default()),
        }
    }

    /// Zero, false, the empty string or the zero UUID.
    fn is_default(self) -> bool {
        match self.kind {
            AtomicType::Integer => self.integer() == 0,
            AtomicType::Real => self.real() == 0.0,
            _ => self.bytes.iter().all(|b| *b == 0),
        }
    }

    /// Appends the text of the wire form.
    pub fn write_json(self, out: &mut String) {
        match self.kind {
            AtomicType::String => write_string(out, self.as_str().unwrap_or_default()),
            AtomicType::Integer => write_integer(out, self.integer()),
            _ => self.to_atom().write_json(out),
        }
    }
}

/// Elements in order.
#[derive(Clone)]
pub struct Pairs<'a> {
    key: AtomicType,
    value: Option<AtomicType>,
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let key = take(self.key, &mut self.rest)?;
        match self.value {
            None => Some((key, None)),
            Some(kind) => Some((key, Some(take(kind, &mut self.rest)?))),
        }
    }
}

impl<'a> Cell<'a> {
    /// No elements.
    pub const EMPTY: Cell<'static> = Cell(&[]);

    /// A cell of these bytes, which this module made.
    pub(crate) fn from_packed(bytes: &'a [u8]) -> Cell<'a> {
        Cell(bytes)
    }

    /// The packed form.
    pub fn packed(self) -> &'a [u8] {
        self.0
    }

    /// True if there are no elements.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Elements in order.
    pub fn iter(self) -> Pairs<'a> {
        let Some((&head, rest)) = self.0.split_first() else {
            return Pairs { key: AtomicType::Integer, value: None, rest: &[] };
        };
        Pairs { key: kind_of(head), value: (head & MAP != 0).then(|| kind_of(head >> 3)), rest }
    }

    /// The number of elements.
    pub fn len(self) -> usize {
        let pairs = self.iter();
        let width = |kind: AtomicType| match kind {
            AtomicType::Integer | AtomicType::Real => 8,
            AtomicType::Boolean => 1,
            AtomicType::Uuid => 16,
            AtomicType::String => 0,
        };
        match (width(pairs.key), pairs.value) {
            (n, None) if n > 0 => pairs.rest.len() / n,
            _ => pairs.count(),
        }
    }

    /// The only element, if it is one and this is not a map.
    pub fn as_scalar(self) -> Option<Element<'a>> {
        let mut pairs = self.iter();
        match (pairs.next()?, pairs.rest) {
            ((element, None), []) => Some(element),
            _ => None,
        }
    }

    /// The string of a string scalar.
    pub fn as_str(self) -> Option<&'a str> {
        self.as_scalar()?.as_str()
    }

    /// The UUID of a UUID scalar.
    pub fn as_uuid(self) -> Option<Uuid> {
        self.as_scalar()?.as_uuid()
    }

    /// The datum that this is the packed form of.
    pub fn to_datum(self) -> Datum {
        let pairs = self.iter();
        if pairs.value.is_some() {
            let atom = |e: Option<Element<'_>>| e.map_or(Atom::Integer(0), Element::to_atom);
            return Datum::from_sorted_map(pairs.map(|(k, v)| (k.to_atom(), atom(v))).collect());
        }
        match self.as_scalar() {
            Some(element) => Datum::scalar(element.to_atom()),
            None => Datum::from_sorted_set(pairs.map(|(k, _)| k.to_atom()).collect()),
        }
    }

    /// True if this is what a column of this type holds if nobody says otherwise.
    pub fn is_default(self, kind: &ColumnType) -> bool {
        if kind.min == 0 {
            return self.is_empty();
        }
        let mut pairs = self.iter();
        let first = pairs.next();
        first.is_some_and(|(k, v)| k.is_default() && v.is_none_or(Element::is_default))
            && pairs.rest.is_empty()
    }

    /// Appends the text of the wire form.
    pub fn write_json(self, kind: &ColumnType, out: &mut String) {
        if kind.is_map() {
            out.push_str("[\"map\",[");
            for (i, (key, value)) in self.iter().enumerate() {
                out.push_str(if i > 0 { ",[" } else { "[" });
                key.write_json(out);
                out.push(',');
                if let Some(value) = value {
                    value.write_json(out);
                }
                out.push(']');
            }
            out.push_str("]]");
        } else if let Some(element) = self.as_scalar() {
            element.write_json(out);
        } else {
            out.push_str("[\"set\",[");
            for (i, (element, _)) in self.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                element.write_json(out);
            }
            out.push_str("]]");
        }
    }

    /// Walks through two cells of one type in the order of keys; `f` gets for each key what either has under it.
    pub fn walk(self, other: Cell<'_>, mut f: impl FnMut(Option<Pair<'_>>, Option<Pair<'_>>)) {
        let (mut left, mut right) = (self.iter(), other.iter());
        let (mut a, mut b) = (left.next(), right.next());
        loop {
            let order = match (&a, &b) {
                (Some(x), Some(y)) => x.0.bytes.cmp(y.0.bytes),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            match order {
                Ordering::Less => f(std::mem::replace(&mut a, left.next()), None),
                Ordering::Greater => f(None, std::mem::replace(&mut b, right.next())),
                Ordering::Equal => {
                    f(std::mem::replace(&mut a, left.next()), std::mem::replace(&mut b, right.next()));
                }
            }
        }
    }

    /// Calls `f` with each element (pair) that `new` has no more (`false`) or has in addition (`true`).
    pub fn changes(self, new: Cell<'_>, mut f: impl FnMut(bool, Pair<'_>)) {
        if self.0 == new.0 {
            return;
        }
        self.walk(new, |old, new| {
            if old != new {
                old.into_iter().for_each(|pair| f(false, pair));
                new.into_iter().for_each(|pair| f(true, pair));
            }
        });
    }

    fn merged(
        self,
        other: Cell<'_>,
        choose: impl Fn(Option<Pair<'_>>, Option<Pair<'_>>) -> Choice,
    ) -> OwnedCell {
        let mut out = Vec::with_capacity(self.0.len() + other.0.len());
        self.walk(other, |a, b| match choose(a, b) {
            Choice::Left => a.into_iter().for_each(|pair| push_pair(pair, &mut out)),
            Choice::Right => b.into_iter().for_each(|pair| push_pair(pair, &mut out)),
            Choice::None => {}
        });
        OwnedCell(out.into())
    }

    /// The elements (pairs) that `keep` wants.
    pub fn filtered(self, keep: impl Fn(Pair<'_>) -> bool) -> OwnedCell {
        let mut out = Vec::with_capacity(self.0.len());
        self.iter().filter(|pair| keep(*pair)).for_each(|pair| push_pair(pair, &mut out));
        OwnedCell(out.into())
    }

    /// The elements of both; of maps, where both have a key, `self`'s value.
    pub fn union(self, other: Cell<'_>) -> OwnedCell {
        self.merged(other, |a, _| if a.is_some() { Choice::Left } else { Choice::Right })
    }

    /// The elements of `self` that are not in `other`. With `by_key`, a map's pair is removed whatever its value, and
    /// `other` is a set of keys.
    pub fn subtract(self, other: Cell<'_>, by_key: bool) -> OwnedCell {
        self.merged(other, |a, b| {
            let gone = b.is_some() && (by_key || a == b);
            if gone { Choice::None } else { Choice::Left }
        })
    }

    /// What has to be sent to make `new` of this: see [`Datum::diff`].
    pub fn diff(self, new: Cell<'_>, kind: &ColumnType) -> OwnedCell {
        if !kind.is_composite() {
            return new.into();
        }
        self.merged(new, |a, b| match (a, b) {
            (Some(_), None) => Choice::Left,
            _ if a == b => Choice::None,
            _ => Choice::Right,
        })
    }

    /// True if each element (pair, for maps) of this is one of `other` too.
    pub fn is_subset_of(self, other: Cell<'_>) -> bool {
        let mut missing = false;
        self.walk(other, |a, b| missing |= a.is_some() && a != b);
        !missing
    }

    /// True if no element (pair) of this is one of `other`.
    pub fn is_disjoint_from(self, other: Cell<'_>) -> bool {
        let mut shared = false;
        self.walk(other, |a, b| shared |= a.is_some() && a == b);
        !shared
    }
}

enum Choice {
    Left,
    Right,
    None,
}

impl PartialEq<Datum> for Cell<'_> {
    fn eq(&self, other: &Datum) -> bool {
        *self == OwnedCell::new(other).cell()
    }
}

impl std::fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_datum().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BaseType, UNLIMITED};

    fn sets() -> Vec<Datum> {
        let ints = [i64::MIN, -2, -1, 0, 1, 300, i64::MAX];
        let subsets = |atoms: Vec<Atom>| {
            (0..1u32 << atoms.len())
                .map(move |bits| {
                    Datum::set(
                        atoms.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, a)| a.clone()),
                    )
                })
                .collect::<Vec<_>>()
        };
        let mut all = subsets(ints.map(Atom::Integer).to_vec());
        all.extend(subsets([-1.5, -0.25, 0.0, 1e-300, 2.0].map(Atom::Real).to_vec()));
        all.extend(subsets(["", "a", "ab", "b", "é"].map(Atom::from).to_vec()));
        all.extend(subsets(vec![
            Atom::from("x".repeat(127)),
            Atom::from("x".repeat(128)),
            Atom::from("y".repeat(20_000)),
        ]));
        all.extend(subsets([false, true].map(Atom::Boolean).to_vec()));
        all
    }

    #[test]
    fn packing_round_trips() {
        for datum in sets() {
            let packed = OwnedCell::new(&datum);
            assert_eq!(packed.cell().to_datum(), datum);
            assert_eq!(packed.cell().len(), datum.len());
        }
        let map = Datum::map([(Atom::from("k"), Atom::Real(-0.0)), (Atom::from("a"), Atom::Real(1.0))]);
        let packed = OwnedCell::new(&map);
        assert_eq!(packed.cell().to_datum(), map);
        assert_eq!(packed.cell().len(), 2);
        assert!(packed.cell().as_scalar().is_none());
    }

    /// Arithmetic on bytes is arithmetic on data.
    #[test]
    fn arithmetic_agrees_with_data() {
        let ints: Vec<Datum> = sets().into_iter().take(128).collect();
        let strings: Vec<Datum> = sets().into_iter().skip(160).take(32).collect();
        let kind = |k| ColumnType::scalar(BaseType::new(k)).with_cardinality(0, UNLIMITED);
        for (all, kind) in [(ints, kind(AtomicType::Integer)), (strings, kind(AtomicType::String))] {
            for a in &all {
                for b in all.iter().step_by(3) {
                    let (pa, pb) = (OwnedCell::new(a), OwnedCell::new(b));
                    let (x, y) = (pa.cell(), pb.cell());
                    assert_eq!(x.union(y).cell().to_datum(), a.union(b));
                    assert_eq!(x.subtract(y, false).cell().to_datum(), a.subtract(b, false));
                    assert_eq!(x.diff(y, &kind).cell().to_datum(), a.diff(b, &kind));
                    assert_eq!(x.is_subset_of(y), a.is_subset_of(b));
                    assert_eq!(x.is_disjoint_from(y), a.is_disjoint_from(b));
                    let mut text = String::new();
                    x.write_json(&kind, &mut text);
                    assert_eq!(text, a.to_json(&kind).to_string());
                }
            }
        }
    }

    #[test]
    fn maps() {
        let map =
            |pairs: &[(&str, &str)]| Datum::map(pairs.iter().map(|(k, v)| (Atom::from(*k), Atom::from(*v))));
        let kind = ColumnType {
            value: Some(BaseType::new(AtomicType::String)),
            ..ColumnType::scalar(BaseType::new(AtomicType::String)).with_cardinality(0, UNLIMITED)
        };
        let all =
            [map(&[]), map(&[("a", "1")]), map(&[("a", "2"), ("b", "1")]), map(&[("b", "1"), ("c", "")])];
        for a in &all {
            for b in &all {
                let (pa, pb) = (OwnedCell::new(a), OwnedCell::new(b));
                let (x, y) = (pa.cell(), pb.cell());
                assert_eq!(x.union(y).cell().to_datum(), a.union(b));
                assert_eq!(x.subtract(y, false).cell().to_datum(), a.subtract(b, false));
                assert_eq!(x.diff(y, &kind).cell().to_datum(), a.diff(b, &kind));
                assert_eq!(x.is_subset_of(y), a.is_subset_of(b));
                let mut text = String::new();
                x.write_json(&kind, &mut text);
                assert_eq!(text, a.to_json(&kind).to_string());
            }
        }
        let keys = OwnedCell::new(&Datum::scalar("b"));
        let from = OwnedCell::new(&all[2]);
        assert_eq!(from.cell().subtract(keys.cell(), true).cell().to_datum(), map(&[("a", "2")]));
    }

    #[test]
    fn defaults() {
        for kind in
            [AtomicType::Integer, AtomicType::Real, AtomicType::Boolean, AtomicType::String, AtomicType::Uuid]
        {
            let one = ColumnType::scalar(BaseType::new(kind));
            let packed = OwnedCell::new(&Datum::default_for(&one));
            assert!(packed.cell().is_default(&one));
            assert!(!packed.cell().is_default(&one.clone().with_cardinality(0, 1)));
            assert!(Cell::EMPTY.is_default(&one.with_cardinality(0, 1)));
        }
        let one = ColumnType::scalar(BaseType::new(AtomicType::String));
        assert!(!OwnedCell::new(&Datum::scalar("x")).cell().is_default(&one));
    }

    /// What is cut short reads as fewer elements.
    #[test]
    fn cut_cells_end_early() {
        let whole = OwnedCell::new(&Datum::set(["abc", "de", "f"].map(Atom::from)));
        let bytes = whole.cell().packed();
        for n in 0..bytes.len() {
            assert!(Cell(&bytes[..n]).iter().count() < 3);
        }
    }
}
