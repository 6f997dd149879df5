//! Atoms: the scalar values that columns are made of.

use crate::error::{Error, Result};
use crate::parser::is_id;
use crate::uuid::Uuid;
use ib_base::json::{Json, format_real, write_string};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The kinds of atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AtomicType {
    /// 64-bit signed.
    Integer,
    /// Double precision.
    Real,
    /// True or false.
    Boolean,
    /// UTF-8.
    String,
    /// A row's identifier.
    Uuid,
}

impl AtomicType {
    /// The schema's word.
    pub fn name(self) -> &'static str {
        match self {
            AtomicType::Integer => "integer",
            AtomicType::Real => "real",
            AtomicType::Boolean => "boolean",
            AtomicType::String => "string",
            AtomicType::Uuid => "uuid",
        }
    }

    /// The type that the schema's word names.
    pub fn from_name(name: &str) -> Option<AtomicType> {
        Some(match name {
            "integer" => AtomicType::Integer,
            "real" => AtomicType::Real,
            "boolean" => AtomicType::Boolean,
            "string" => AtomicType::String,
            "uuid" => AtomicType::Uuid,
            _ => return None,
        })
    }
}

/// A scalar. The order of two atoms of one type is that in which sets and maps are sorted.
#[derive(Clone, Debug)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A real; never not-a-number.
    Real(f64),
    /// A Boolean.
    Boolean(bool),
    /// A string.
    String(Arc<str>),
    /// A row's identifier.
    Uuid(Uuid),
}

const _: () = assert!(std::mem::size_of::<Atom>() == 24);

/// Where `["named-uuid", NAME]` finds the row that NAME stands for.
///
/// Names may be used before the row that bears them is inserted; both find the same, fresh identifier.
#[derive(Debug, Default)]
pub struct SymbolTable {
    symbols: HashMap<Arc<str>, Symbol>,
}

/// A name for a row to be.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// The row's identifier.
    pub uuid: Uuid,
    /// True once a row was created under the name.
    pub created: bool,
    /// True once a strong reference names it.
    pub strong_ref: bool,
    /// True once a weak reference names it.
    pub weak_ref: bool,
}

impl SymbolTable {
    /// A table without names.
    pub fn new() -> SymbolTable {
        SymbolTable::default()
    }

    /// The symbol `name`, made on first use.
    pub fn entry(&mut self, name: &str) -> &mut Symbol {
        if !self.symbols.contains_key(name) {
            let symbol = Symbol { uuid: Uuid::random(), created: false, strong_ref: false, weak_ref: false };
            self.symbols.insert(name.into(), symbol);
        }
        self.symbols.entry(name.into()).or_insert_with(|| unreachable!("inserted above"))
    }

    /// The symbol `name`, if it was used.
    pub fn get(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name)
    }

    /// All symbols, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Symbol)> {
        self.symbols.iter()
    }
}

impl Atom {
    /// A string atom.
    pub fn string(s: impl Into<Arc<str>>) -> Atom {
        Atom::String(s.into())
    }

    /// The kind.
    pub fn atomic_type(&self) -> AtomicType {
        match self {
            Atom::Integer(_) => AtomicType::Integer,
            Atom::Real(_) => AtomicType::Real,
            Atom::Boolean(_) => AtomicType::Boolean,
            Atom::String(_) => AtomicType::String,
            Atom::Uuid(_) => AtomicType::Uuid,
        }
    }

    /// Zero, false, the empty string or the zero UUID.
    pub fn default_for(kind: AtomicType) -> Atom {
        match kind {
            AtomicType::Integer => Atom::Integer(0),
            AtomicType::Real => Atom::Real(0.0),
            AtomicType::Boolean => Atom::Boolean(false),
            AtomicType::String => Atom::String(empty_string()),
            AtomicType::Uuid => Atom::Uuid(Uuid::ZERO),
        }
    }

    /// True if this is what [`Atom::default_for`] its kind gives.
    pub fn is_default(&self) -> bool {
        match self {
            Atom::Integer(i) => *i == 0,
            Atom::Real(r) => *r == 0.0,
            Atom::Boolean(b) => !b,
            Atom::String(s) => s.is_empty(),
            Atom::Uuid(u) => u.is_zero(),
        }
    }

    /// The integer, if this is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Atom::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The real, if this is one.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Atom::Real(r) => Some(*r),
            _ => None,
        }
    }

    /// The Boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Atom::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Atom::String(s) => Some(s),
            _ => None,
        }
    }

    /// The UUID, if this is one.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Atom::Uuid(u) => Some(*u),
            _ => None,
        }
    }

    /// Reads the wire form of an atom of the given kind. Named UUIDs are allowed if there is a symbol table.
    pub fn from_json(kind: AtomicType, json: &Json, symbols: Option<&mut SymbolTable>) -> Result<Atom> {
        match (kind, json) {
            (AtomicType::Integer, Json::Integer(i)) => Ok(Atom::Integer(*i)),
            (AtomicType::Real, Json::Integer(i)) => Ok(Atom::Real(*i as f64)),
            (AtomicType::Real, Json::Real(r)) => Ok(Atom::Real(if *r == 0.0 { 0.0 } else { *r })),
            (AtomicType::Boolean, Json::Bool(b)) => Ok(Atom::Boolean(*b)),
            (AtomicType::String, Json::String(s)) => Ok(Atom::String(s.clone())),
            (AtomicType::Uuid, _) => uuid_from_json(json, symbols).map(Atom::Uuid),
            _ => Err(Error::syntax(json, format!("expected {}", kind.name()))),
        }
    }

    /// The wire form.
    pub fn to_json(&self) -> Json {
        match self {
            Atom::Integer(i) => Json::Integer(*i),
            Atom::Real(r) => Json::Real(*r),
            Atom::Boolean(b) => Json::Bool(*b),
            Atom::String(s) => Json::String(s.clone()),
            Atom::Uuid(u) => uuid_to_json(*u),
        }
    }

    /// Appends the text of the wire form; what [`Atom::to_json`] prints as, without the detour.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Atom::String(s) => write_string(out, s),
            Atom::Uuid(u) => {
                out.push_str("[\"uuid\",\"");
                u.write_to(out);
                out.push_str("\"]");
            }
            Atom::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
            other => other.to_json().write_to(out),
        }
    }

    /// Appends the form of the command line: strings are quoted only if they have to be.
    pub fn write_text(&self, out: &mut String) {
        match self {
            Atom::Integer(i) => out.push_str(&i.to_string()),
            Atom::Real(r) => out.push_str(&format_real(*r)),
            Atom::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
            Atom::String(s) if needs_quotes(s) => write_string(out, s),
            Atom::String(s) => out.push_str(s),
            Atom::Uuid(u) => u.write_to(out),
        }
    }

    /// Appends the form without any quotes.
    pub fn write_bare(&self, out: &mut String) {
        match self {
            Atom::String(s) => out.push_str(s),
            other => other.write_text(out),
        }
    }

    /// The form of the command line.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out);
        out
    }
}

/// The one empty string.
pub(crate) fn empty_string() -> Arc<str> {
    thread_local! {
        static EMPTY: Arc<str> = "".into();
    }
    EMPTY.with(Arc::clone)
}

/// True if `s` on a command line would read as something else than this string.
fn needs_quotes(s: &str) -> bool {
    let bytes = s.as_bytes();
    let Some(first) = bytes.first() else { return true };
    if !first.is_ascii_alphabetic() && *first != b'_' {
        return true;
    }
    if !bytes[1..].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        return true;
    }
    Uuid::parse(s).is_some() || s == "true" || s == "false"
}

/// The wire form of a UUID.
pub fn uuid_to_json(uuid: Uuid) -> Json {
    Json::Array(vec![Json::from("uuid"), Json::from(uuid.to_string())])
}

/// The string inside of `[name, STRING]`.
fn unwrap_string<'a>(json: &'a Json, name: &str) -> Result<&'a str> {
    match json.as_array() {
        Some([Json::String(n), Json::String(s)]) if &**n == name => Ok(s),
        _ => Err(Error::syntax(json, format!("expected [\"{name}\", <string>]"))),
    }
}

/// Reads `["uuid", ...]` or, given a symbol table, `["named-uuid", ...]`.
pub fn uuid_from_json(json: &Json, symbols: Option<&mut SymbolTable>) -> Result<Uuid> {
    match unwrap_string(json, "uuid") {
        Ok(text) => match Uuid::parse(text) {
            Some(uuid) => Ok(uuid),
            None => Err(Error::syntax(json, format!("\"{text}\" is not a valid UUID"))),
        },
        Err(error) => {
            let Some(symbols) = symbols else { return Err(error) };
            let Ok(name) = unwrap_string(json, "named-uuid") else { return Err(error) };
            if !is_id(name) {
                return Err(Error::syntax(json, "named-uuid string is not a valid <id>"));
            }
            Ok(symbols.entry(name).uuid)
        }
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Atom) -> bool {
        match (self, other) {
            (Atom::String(a), Atom::String(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Atom) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Atom) -> Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            (a, b) => a.atomic_type().cmp(&b.atomic_type()),
        }
    }
}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Atom::Integer(i) => i.hash(state),
            Atom::Real(r) => (if *r == 0.0 { 0.0f64 } else { *r }).to_bits().hash(state),
            Atom::Boolean(b) => b.hash(state),
            Atom::String(s) => s.hash(state),
            Atom::Uuid(u) => u.hash(state),
        }
    }
}

impl From<i64> for Atom {
    fn from(i: i64) -> Atom {
        Atom::Integer(i)
    }
}

impl From<f64> for Atom {
    fn from(r: f64) -> Atom {
        Atom::Real(r)
    }
}

impl From<bool> for Atom {
    fn from(b: bool) -> Atom {
        Atom::Boolean(b)
    }
}

impl From<&str> for Atom {
    fn from(s: &str) -> Atom {
        Atom::String(s.into())
    }
}

impl From<String> for Atom {
    fn from(s: String) -> Atom {
        Atom::String(s.into())
    }
}

impl From<Uuid> for Atom {
    fn from(u: Uuid) -> Atom {
        Atom::Uuid(u)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_when_ambiguous() {
        for (s, expect) in [
            ("abc", "abc"),
            ("br-int.1", "br-int.1"),
            ("", "\"\""),
            ("1a", "\"1a\""),
            ("a b", "\"a b\""),
            ("true", "\"true\""),
            ("a\"b", "\"a\\\"b\""),
            ("abcdefab-f170-4534-babc-97dfc9ee0a10", "\"abcdefab-f170-4534-babc-97dfc9ee0a10\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(Atom::from(s).to_text(), expect);
        }
    }

    #[test]
    fn wire_errors() {
        let fail = |kind, text: &str| {
            let wrapped = Json::parse(&format!("[{text}]")).unwrap();
            let mut symbols = SymbolTable::new();
            Atom::from_json(kind, &wrapped.as_array().unwrap()[0], Some(&mut symbols))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(fail(AtomicType::Integer, "1.5"), "syntax \"1.5\": syntax error: expected integer");
        assert_eq!(fail(AtomicType::Uuid, "1"), "syntax \"1\": syntax error: expected [\"uuid\", <string>]");
        assert_eq!(
            fail(AtomicType::Uuid, r#"["uuid","x"]"#),
            "syntax \"[\"uuid\",\"x\"]\": syntax error: \"x\" is not a valid UUID"
        );
        assert_eq!(
            fail(AtomicType::Uuid, r#"["named-uuid","1a"]"#),
            "syntax \"[\"named-uuid\",\"1a\"]\": syntax error: named-uuid string is not a valid <id>"
        );
    }

    #[test]
    fn named_uuids_are_stable() {
        let mut symbols = SymbolTable::new();
        let json = Json::parse(r#"["named-uuid","r1"]"#).unwrap();
        let a = uuid_from_json(&json, Some(&mut symbols)).unwrap();
        assert_eq!(uuid_from_json(&json, Some(&mut symbols)).unwrap(), a);
        assert!(uuid_from_json(&json, None).is_err());
    }
}
