//! Data: what one column of one row holds.
//!
//! A datum is a set of atoms (a scalar is a set of one) or a map, kept sorted by key without duplicates, so
//! comparison, search and difference are merges. It does not know its type: an empty set and an empty map are the same,
//! and whoever parses, prints or checks brings the [`ColumnType`].
//!
//! Most data of a switch are scalars or empty. Those live in place, without allocation; larger ones are shared slices,
//! so copying a row copies no elements. A datum is 24 bytes.

use crate::atom::{Atom, SymbolTable};
use crate::error::{Error, Result};
use crate::types::{BaseType, ColumnType, UNLIMITED};
use ib_base::json::Json;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A set or map of atoms.
#[derive(Clone, Default)]
pub struct Datum(Repr);

#[derive(Clone, Default)]
enum Repr {
    #[default]
    Empty,
    One(Atom),
    Set(Arc<[Atom]>),
    Map(Arc<[(Atom, Atom)]>),
}

const _: () = assert!(std::mem::size_of::<Datum>() == 24);

impl Datum {
    /// No elements.
    pub const EMPTY: Datum = Datum(Repr::Empty);

    /// A scalar, or a set of one.
    pub fn scalar(atom: impl Into<Atom>) -> Datum {
        Datum(Repr::One(atom.into()))
    }

    /// A set; sorts, and drops duplicates.
    pub fn set(atoms: impl IntoIterator<Item = Atom>) -> Datum {
        let mut atoms: Vec<Atom> = atoms.into_iter().collect();
        atoms.sort_unstable();
        atoms.dedup();
        Datum::from_sorted_set(atoms)
    }

    /// A map; sorts. Of equal keys the first wins.
    pub fn map(pairs: impl IntoIterator<Item = (Atom, Atom)>) -> Datum {
        let mut pairs: Vec<(Atom, Atom)> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|a, b| a.0 == b.0);
        Datum::from_sorted_map(pairs)
    }

    /// A set of atoms in order, without duplicates.
    pub(crate) fn from_sorted_set(mut atoms: Vec<Atom>) -> Datum {
        match atoms.len() {
            0 => Datum::EMPTY,
            1 => atoms.pop().map_or(Datum::EMPTY, |a| Datum(Repr::One(a))),
            _ => Datum(Repr::Set(atoms.into())),
        }
    }

    /// A map of pairs in the order of keys, without duplicates.
    pub(crate) fn from_sorted_map(pairs: Vec<(Atom, Atom)>) -> Datum {
        if pairs.is_empty() { Datum::EMPTY } else { Datum(Repr::Map(pairs.into())) }
    }

    /// What a column of this type holds if nobody says otherwise: nothing if it may, else one default atom.
    pub fn default_for(kind: &ColumnType) -> Datum {
        if kind.min == 0 {
            return Datum::EMPTY;
        }
        let key = Atom::default_for(kind.key.kind);
        match &kind.value {
            None => Datum(Repr::One(key)),
            Some(value) => Datum::from_sorted_map(vec![(key, Atom::default_for(value.kind))]),
        }
    }

    /// True if this is what [`Datum::default_for`] gives.
    pub fn is_default(&self, kind: &ColumnType) -> bool {
        if kind.min == 0 {
            return self.is_empty();
        }
        self.len() == 1 && self.iter().all(|(k, v)| k.is_default() && v.is_none_or(Atom::is_default))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Empty => 0,
            Repr::One(_) => 1,
            Repr::Set(s) => s.len(),
            Repr::Map(m) => m.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Repr::Empty)
    }

    /// The elements of a set or scalar; nothing for a map.
    pub fn as_set(&self) -> &[Atom] {
        match &self.0 {
            Repr::One(a) => std::slice::from_ref(a),
            Repr::Set(s) => s,
            Repr::Empty | Repr::Map(_) => &[],
        }
    }

    /// The pairs of a map; nothing for a set.
    pub fn as_map(&self) -> &[(Atom, Atom)] {
        match &self.0 {
            Repr::Map(m) => m,
            _ => &[],
        }
    }

    /// The only element, if it is one and this is not a map.
    pub fn as_scalar(&self) -> Option<&Atom> {
        match &self.0 {
            Repr::One(a) => Some(a),
            _ => None,
        }
    }

    /// The string of a string scalar.
    pub fn as_str(&self) -> Option<&str> {
        self.as_scalar().and_then(Atom::as_str)
    }

    /// The integer of an integer scalar.
    pub fn as_integer(&self) -> Option<i64> {
        self.as_scalar().and_then(Atom::as_integer)
    }

    /// The real of a real scalar.
    pub fn as_real(&self) -> Option<f64> {
        self.as_scalar().and_then(Atom::as_real)
    }

    /// The Boolean of a Boolean scalar.
    pub fn as_bool(&self) -> Option<bool> {
        self.as_scalar().and_then(Atom::as_bool)
    }

    /// The UUID of a UUID scalar.
    pub fn as_uuid(&self) -> Option<crate::Uuid> {
        self.as_scalar().and_then(Atom::as_uuid)
    }

    /// The string that a map of strings has under `key`.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        let map = self.as_map();
        let i = map.binary_search_by(|(k, _)| k.as_str().unwrap_or_default().cmp(key)).ok()?;
        map[i].1.as_str()
    }

    /// Elements in order; the second of each is a map's value.
    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            Repr::Map(m) => Iter { set: &[], map: m },
            _ => Iter { set: self.as_set(), map: &[] },
        }
    }

    /// Keys (elements) in order.
    pub fn keys(&self) -> impl Iterator<Item = &Atom> {
        self.iter().map(|(k, _)| k)
    }

    /// The index of `key`.
    pub fn find_key(&self, key: &Atom) -> Option<usize> {
        match &self.0 {
            Repr::Empty => None,
            Repr::One(a) => (a == key).then_some(0),
            Repr::Set(s) => s.binary_search(key).ok(),
            Repr::Map(m) => m.binary_search_by(|(k, _)| k.cmp(key)).ok(),
        }
    }

    /// True if `key` is an element (a key).
    pub fn contains(&self, key: &Atom) -> bool {
        self.find_key(key).is_some()
    }

    /// A map's value under `key`.
    pub fn value_of(&self, key: &Atom) -> Option<&Atom> {
        match &self.0 {
            Repr::Map(m) => self.find_key(key).map(|i| &m[i].1),
            _ => None,
        }
    }

    /// True if each element (pair, for maps) of this is one of `other` too.
    pub fn is_subset_of(&self, other: &Datum) -> bool {
        self.len() <= other.len() && self.iter().all(|(k, v)| other.contains_pair(k, v))
    }

    /// True if no element (pair) of this is one of `other`.
    pub fn is_disjoint_from(&self, other: &Datum) -> bool {
        !self.iter().any(|(k, v)| other.contains_pair(k, v))
    }

    fn contains_pair(&self, key: &Atom, value: Option<&Atom>) -> bool {
        match value {
            None => self.contains(key),
            Some(value) => self.value_of(key) == Some(value),
        }
    }

    /// The elements of both; of maps, where both have a key, `self`'s value.
    pub fn union(&self, other: &Datum) -> Datum {
        self.merge(other, |a, _| Some(a.clone()), true)
    }

    /// `self` with the elements of `other` set: where both maps have a key, `other`'s value.
    pub fn updated_with(&self, other: &Datum) -> Datum {
        self.merge(other, |_, b| Some(b.clone()), true)
    }

    /// The elements of `self` that are not in `other`. With `by_key`, a map's pair is removed whatever its value.
    pub fn subtract(&self, other: &Datum, by_key: bool) -> Datum {
        if self.is_empty() || other.is_empty() {
            return self.clone();
        }
        match &self.0 {
            Repr::Map(m) => {
                let keep = |(k, v): &&(Atom, Atom)| {
                    if by_key { !other.contains(k) } else { !other.contains_pair(k, Some(v)) }
                };
                Datum::from_sorted_map(m.iter().filter(keep).cloned().collect())
            }
            _ => {
                Datum::from_sorted_set(self.as_set().iter().filter(|a| !other.contains(a)).cloned().collect())
            }
        }
    }

    /// The elements that are in one of two sets but not in both.
    pub fn symmetric_difference(&self, other: &Datum) -> Datum {
        self.merge(other, |_, _| None, false)
    }

    fn merge(&self, other: &Datum, both: impl Fn(&Atom, &Atom) -> Option<Atom>, keep: bool) -> Datum {
        if matches!(self.0, Repr::Map(_)) || matches!(other.0, Repr::Map(_)) {
            let (a, b) = (self.as_map(), other.as_map());
            let mut out = Vec::with_capacity(a.len() + b.len());
            let (mut i, mut j) = (0, 0);
            while i < a.len() || j < b.len() {
                let order = match (a.get(i), b.get(j)) {
                    (Some(x), Some(y)) => x.0.cmp(&y.0),
                    (Some(_), None) => Ordering::Less,
                    _ => Ordering::Greater,
                };
                match order {
                    Ordering::Less => {
                        out.push(a[i].clone());
                        i += 1;
                    }
                    Ordering::Greater => {
                        out.push(b[j].clone());
                        j += 1;
                    }
                    Ordering::Equal => {
                        if let Some(value) = both(&a[i].1, &b[j].1) {
                            out.push((a[i].0.clone(), value));
                        }
                        i += 1;
                        j += 1;
                    }
                }
            }
            return Datum::from_sorted_map(out);
        }
        let (a, b) = (self.as_set(), other.as_set());
        if keep && b.is_empty() {
            return self.clone();
        }
        let mut out = Vec::with_capacity(a.len() + b.len());
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            let order = match (a.get(i), b.get(j)) {
                (Some(x), Some(y)) => x.cmp(y),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            match order {
                Ordering::Less => out.push(a[i].clone()),
                Ordering::Greater => out.push(b[j].clone()),
                Ordering::Equal if keep => out.push(a[i].clone()),
                Ordering::Equal => {}
            }
            i += usize::from(order != Ordering::Greater);
            j += usize::from(order != Ordering::Less);
        }
        Datum::from_sorted_set(out)
    }

    /// What has to be sent to make `new` of this, by [`Datum::apply_diff`].
    ///
    /// Scalars and optional scalars: the new content. Sets: the elements that are in one of both only. Maps: pairs
    /// added and changed with their new values, pairs removed with their old ones.
    pub fn diff(&self, new: &Datum, kind: &ColumnType) -> Datum {
        if !kind.is_composite() {
            return new.clone();
        }
        self.merge(new, |a, b| (a != b).then(|| b.clone()), false)
    }

    /// Applies what [`Datum::diff`] made.
    pub fn apply_diff(&self, diff: &Datum, kind: &ColumnType) -> Result<Datum> {
        let result = if !kind.is_composite() {
            diff.clone()
        } else {
            self.merge(diff, |a, b| (a != b).then(|| b.clone()), false)
        };
        result.check_count(kind)?;
        Ok(result)
    }

    /// Checks the number of elements.
    pub fn check_count(&self, kind: &ColumnType) -> Result<()> {
        let n = self.len();
        if n >= kind.min as usize && n <= kind.max as usize {
            return Ok(());
        }
        let class = if kind.is_map() { "map" } else { "set" };
        Err(Error::constraint(format!("{class} must have {} members but {n} are present", count_words(kind))))
    }

    /// Checks atoms against the type's constraints; counts and references are checked elsewhere.
    pub fn check(&self, kind: &ColumnType) -> Result<()> {
        if kind.key.allows_all() && kind.value.as_ref().is_none_or(BaseType::allows_all) {
            return Ok(());
        }
        for (key, value) in self.iter() {
            kind.key.check(key)?;
            if let (Some(base), Some(value)) = (&kind.value, value) {
                base.check(value)?;
            }
        }
        Ok(())
    }

    /// Reads the wire form and checks the constraints, each atom's in its turn.
    pub fn from_json(kind: &ColumnType, json: &Json, symbols: Option<&mut SymbolTable>) -> Result<Datum> {
        Datum::parse_json(kind, json, symbols, true)
    }

    /// Reads the wire form; checks only the number of elements.
    pub fn from_json_unchecked(
        kind: &ColumnType,
        json: &Json,
        symbols: Option<&mut SymbolTable>,
    ) -> Result<Datum> {
        Datum::parse_json(kind, json, symbols, false)
    }

    fn parse_json(
        kind: &ColumnType,
        json: &Json,
        mut symbols: Option<&mut SymbolTable>,
        checked: bool,
    ) -> Result<Datum> {
        let check_key = checked && !kind.key.allows_all();
        let element = |base: &BaseType, json: &Json, symbols: Option<&mut SymbolTable>, check: bool| {
            let atom = element(base, json, symbols)?;
            if check {
                base.check(&atom)?;
            }
            Ok::<Atom, Error>(atom)
        };
        let is_set_form = matches!(json.as_array(), Some([Json::String(s), ..]) if &**s == "set");
        if let Some(value_type) = &kind.value {
            let Some([Json::String(word), Json::Array(pairs)]) = json.as_array() else {
                return Err(Error::syntax(json, "expected [\"map\", <array>]"));
            };
            if &**word != "map" {
                return Err(Error::syntax(json, "expected [\"map\", <array>]"));
            }
            check_members(kind, pairs.len(), json)?;
            let check_value = checked && !value_type.allows_all();
            let mut out = Vec::with_capacity(pairs.len());
            for pair in pairs {
                let Some([key, value]) = pair.as_array() else {
                    return Err(Error::syntax(pair, "expected 2-element array"));
                };
                let key = element(&kind.key, key, symbols.as_deref_mut(), check_key)?;
                let value = element(value_type, value, symbols.as_deref_mut(), check_value)?;
                out.push((key, value));
            }
            out.sort_by(|a, b| a.0.cmp(&b.0));
            if out.windows(2).any(|w| w[0].0 == w[1].0) {
                return Err(Error::new("ovsdb error", "map contains duplicate key"));
            }
            Ok(Datum::from_sorted_map(out))
        } else if is_set_form {
            let Some([_, Json::Array(elements)]) = json.as_array() else {
                return Err(Error::syntax(json, "expected [\"set\", <array>]"));
            };
            check_members(kind, elements.len(), json)?;
            let mut out = Vec::with_capacity(elements.len());
            for e in elements {
                out.push(element(&kind.key, e, symbols.as_deref_mut(), check_key)?);
            }
            out.sort_unstable();
            if out.windows(2).any(|w| w[0] == w[1]) {
                return Err(Error::new("ovsdb error", "set contains duplicate"));
            }
            Ok(Datum::from_sorted_set(out))
        } else {
            Ok(Datum(Repr::One(element(&kind.key, json, symbols, check_key)?)))
        }
    }

    /// The wire form.
    pub fn to_json(&self, kind: &ColumnType) -> Json {
        if kind.is_map() {
            let pairs = self.as_map().iter().map(|(k, v)| Json::Array(vec![k.to_json(), v.to_json()]));
            return Json::Array(vec![Json::from("map"), Json::array(pairs)]);
        }
        match self.as_set() {
            [one] => one.to_json(),
            set => Json::Array(vec![Json::from("set"), Json::array(set.iter().map(Atom::to_json))]),
        }
    }

    /// Appends the text of the wire form without building it as a value.
    pub fn write_json(&self, kind: &ColumnType, out: &mut String) {
        if kind.is_map() {
            out.push_str("[\"map\",[");
            for (i, (k, v)) in self.as_map().iter().enumerate() {
                out.push_str(if i > 0 { ",[" } else { "[" });
                k.write_json(out);
                out.push(',');
                v.write_json(out);
                out.push(']');
            }
            out.push_str("]]");
            return;
        }
        match self.as_set() {
            [one] => one.write_json(out),
            set => {
                out.push_str("[\"set\",[");
                for (i, atom) in set.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    atom.write_json(out);
                }
                out.push_str("]]");
            }
        }
    }

    /// The form of the command line: `[a, b]`, `{k=v}`, bare scalars.
    pub fn to_text(&self, kind: &ColumnType) -> String {
        let mut out = String::new();
        let brackets = if kind.is_map() {
            Some(('{', '}'))
        } else if kind.max > 1 || self.is_empty() {
            Some(('[', ']'))
        } else {
            None
        };
        out.extend(brackets.map(|b| b.0));
        for (i, (key, value)) in self.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            key.write_text(&mut out);
            if let Some(value) = value {
                out.push('=');
                value.write_text(&mut out);
            }
        }
        out.extend(brackets.map(|b| b.1));
        out
    }

    /// The form without brackets and quotes: elements separated by spaces.
    pub fn to_bare(&self) -> String {
        let mut out = String::new();
        for (i, (key, value)) in self.iter().enumerate() {
            if i > 0 {
                out.push(' ');
            }
            key.write_bare(&mut out);
            if let Some(value) = value {
                out.push('=');
                value.write_bare(&mut out);
            }
        }
        out
    }
}

fn element(base: &BaseType, json: &Json, symbols: Option<&mut SymbolTable>) -> Result<Atom> {
    if let Some(symbols) = symbols {
        // Remember how a name is referenced: a row that nobody references strongly may be collected at once.
        if let (Some(_), Some([Json::String(word), Json::String(name)])) = (&base.reference, json.as_array())
            && &**word == "named-uuid"
        {
            let atom = Atom::from_json(base.kind, json, Some(symbols))?;
            let symbol = symbols.entry(name);
            symbol.strong_ref |= base.is_strong_ref();
            symbol.weak_ref |= base.is_weak_ref();
            return Ok(atom);
        }
        return Atom::from_json(base.kind, json, Some(symbols));
    }
    Atom::from_json(base.kind, json, None)
}

fn count_words(kind: &ColumnType) -> String {
    match (kind.min, kind.max) {
        (1, 1) => "exactly one".to_string(),
        (min, max) => format!("{min} to {max}"),
    }
}

fn check_members(kind: &ColumnType, n: usize, json: &Json) -> Result<()> {
    if n >= kind.min as usize && (n <= kind.max as usize || kind.max == UNLIMITED) {
        return Ok(());
    }
    let class = if kind.is_map() { "map" } else { "set" };
    let noun = if kind.min == 1 && kind.max == 1 { "member" } else { "members" };
    Err(Error::syntax(json, format!("{class} must have {} {noun} but {n} are present", count_words(kind))))
}

/// Elements of a datum.
#[derive(Clone)]
pub struct Iter<'a> {
    set: &'a [Atom],
    map: &'a [(Atom, Atom)],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Atom, Option<&'a Atom>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((first, rest)) = self.set.split_first() {
            self.set = rest;
            return Some((first, None));
        }
        let ((key, value), rest) = self.map.split_first()?;
        self.map = rest;
        Some((key, Some(value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.set.len() + self.map.len();
        (n, Some(n))
    }
}

impl PartialEq for Datum {
    fn eq(&self, other: &Datum) -> bool {
        match (&self.0, &other.0) {
            (Repr::Empty, Repr::Empty) => true,
            (Repr::One(a), Repr::One(b)) => a == b,
            (Repr::Set(a), Repr::Set(b)) => Arc::ptr_eq(a, b) || a == b,
            (Repr::Map(a), Repr::Map(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

impl Eq for Datum {}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Datum) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Datum {
    /// Fewer elements first, then keys in order, then values in order.
    fn cmp(&self, other: &Datum) -> Ordering {
        let keys = || self.keys().cmp(other.keys());
        let values = || self.iter().map(|(_, v)| v).cmp(other.iter().map(|(_, v)| v));
        self.len().cmp(&other.len()).then_with(keys).then_with(values)
    }
}

impl Hash for Datum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        for (key, value) in self.iter() {
            key.hash(state);
            if let Some(value) = value {
                value.hash(state);
            }
        }
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_bare())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atom::AtomicType;

    fn column(text: &str) -> ColumnType {
        let wrapped = Json::parse(&format!("[{text}]")).unwrap();
        ColumnType::from_json(&wrapped.as_array().unwrap()[0]).unwrap()
    }

    fn ints() -> ColumnType {
        ColumnType::scalar(BaseType::new(AtomicType::Integer)).with_cardinality(0, UNLIMITED)
    }

    fn strings() -> ColumnType {
        column(r#"{"key":"string","value":"string","min":0,"max":"unlimited"}"#)
    }

    fn parse(kind: &ColumnType, text: &str) -> Result<Datum> {
        let wrapped = Json::parse(&format!("[{text}]")).unwrap();
        Datum::from_json(kind, &wrapped.as_array().unwrap()[0], None)
    }

    #[test]
    fn wire_form_is_sorted_and_round_trips() {
        for (kind, text, expect) in [
            (ints(), r#"["set",[3,1,2]]"#, r#"["set",[1,2,3]]"#),
            (ints(), r#"["set",[]]"#, r#"["set",[]]"#),
            (ints(), r#"["set",[5]]"#, "5"),
            (strings(), r#"["map",[["b","2"],["a","1"]]]"#, r#"["map",[["a","1"],["b","2"]]]"#),
            (strings(), r#"["map",[]]"#, r#"["map",[]]"#),
        ] {
            let datum = parse(&kind, text).unwrap();
            assert_eq!(datum.to_json(&kind).to_string(), expect);
            let mut direct = String::new();
            datum.write_json(&kind, &mut direct);
            assert_eq!(direct, expect);
        }
    }

    #[test]
    fn wire_errors() {
        let one = ColumnType::scalar(BaseType::new(AtomicType::Integer));
        for (kind, text, expect) in [
            (&one, r#"["set",[]]"#, "set must have exactly one member but 0 are present"),
            (&one, r#"["set"]"#, "expected [\"set\", <array>]"),
            (&ints(), r#"["set",[1,1]]"#, "set contains duplicate"),
            (&strings(), r#"["map",[["a","1"],["a","1"]]]"#, "map contains duplicate key"),
            (&strings(), r#"["map",[["a"]]]"#, "expected 2-element array"),
            (&strings(), "5", "expected [\"map\", <array>]"),
            (
                &column(r#"{"key":"string","min":0}"#),
                r#"["set",["a","b"]]"#,
                "set must have 0 to 1 members but 2 are present",
            ),
        ] {
            assert_eq!(parse(kind, text).unwrap_err().details(), Some(expect));
        }
    }

    #[test]
    fn defaults() {
        let kind = column(r#"{"key":"string","max":5}"#);
        assert_eq!(Datum::default_for(&kind), Datum::scalar(""));
        assert!(Datum::default_for(&kind).is_default(&kind));
        assert!(!Datum::scalar("x").is_default(&kind));
        assert!(Datum::default_for(&strings()).is_empty());
    }

    #[test]
    fn set_and_map_arithmetic() {
        let a = parse(&ints(), r#"["set",[1,2,3]]"#).unwrap();
        let b = parse(&ints(), r#"["set",[3,4]]"#).unwrap();
        assert_eq!(a.union(&b).to_bare(), "1 2 3 4");
        assert_eq!(a.subtract(&b, false).to_bare(), "1 2");
        assert_eq!(a.diff(&b, &ints()).to_bare(), "1 2 4");
        assert!(!a.is_disjoint_from(&b));
        assert!(Datum::scalar(3i64).is_subset_of(&a));

        let m = parse(&strings(), r#"["map",[["a","1"],["b","2"]]]"#).unwrap();
        let n = parse(&strings(), r#"["map",[["b","3"],["c","4"]]]"#).unwrap();
        assert_eq!(m.union(&n).to_bare(), "a=1 b=2 c=4");
        assert_eq!(m.updated_with(&n).to_bare(), "a=1 b=3 c=4");
        assert_eq!(m.subtract(&n, false).to_bare(), "a=1 b=2");
        assert_eq!(m.subtract(&n, true).to_bare(), "a=1");
        assert_eq!(m.diff(&n, &strings()).to_bare(), "a=1 b=3 c=4");
        assert_eq!(m.get_str("b"), Some("2"));
        assert_eq!(m.get_str("c"), None);
    }

    /// For every pair of subsets of a small universe, the difference leads from one to the other.
    #[test]
    fn diff_then_apply_gives_the_new_value() {
        let sets: Vec<Datum> = (0..32u32)
            .map(|bits| Datum::set((0..5).filter(|i| bits >> i & 1 == 1).map(|i| Atom::Integer(i.into()))))
            .collect();
        for a in &sets {
            for b in &sets {
                assert_eq!(&a.apply_diff(&a.diff(b, &ints()), &ints()).unwrap(), b);
            }
        }
        // Each of three keys is absent or has one of two values.
        let maps: Vec<Datum> = (0..27u32)
            .map(|n| {
                let digit = |i: u32| n / 3u32.pow(i) % 3;
                let pair = |i: u32| (Atom::from(i64::from(i)), Atom::from(i64::from(digit(i))));
                Datum::map((0..3).filter(|i| digit(*i) > 0).map(pair))
            })
            .collect();
        let kind = column(r#"{"key":"integer","value":"integer","min":0,"max":"unlimited"}"#);
        for a in &maps {
            for b in &maps {
                assert_eq!(&a.apply_diff(&a.diff(b, &kind), &kind).unwrap(), b);
                assert_eq!(a == b, a.diff(b, &kind).is_empty());
            }
        }
    }

    #[test]
    fn command_line_form() {
        assert_eq!(parse(&ints(), r#"["set",[1,2]]"#).unwrap().to_text(&ints()), "[1, 2]");
        assert_eq!(parse(&ints(), "1").unwrap().to_text(&ints()), "[1]");
        assert_eq!(parse(&strings(), r#"["map",[["a b","c"]]]"#).unwrap().to_text(&strings()), "{\"a b\"=c}");
        assert_eq!(Datum::scalar("x").to_text(&column(r#"{"key":"string","min":0}"#)), "x");
        assert_eq!(Datum::EMPTY.to_text(&column(r#"{"key":"string","min":0}"#)), "[]");
    }
}
