//! Types of columns, with their constraints.

use crate::atom::{Atom, AtomicType};
use crate::datum::Datum;
use crate::error::{Error, Result};
use crate::parser::{Kinds, Parser, is_id};
use ib_base::json::{Json, Object, format_real};
use std::sync::Arc;

/// The `max` of a set or map without a limit.
pub const UNLIMITED: u32 = u32::MAX;

/// How a reference holds the row that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefType {
    /// The row must exist, and a row of a table that is not root exists only while it is so referenced.
    #[default]
    Strong,
    /// The reference disappears together with the row.
    Weak,
}

/// A reference's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefTable {
    /// The table of the rows referenced.
    pub table: Arc<str>,
    /// How it holds them.
    pub ref_type: RefType,
}

/// An atomic type with constraints; those of other types than `kind` keep their widest values.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseType {
    /// The type of atom.
    pub kind: AtomicType,
    /// The only values allowed, if any are listed.
    pub enumeration: Option<Datum>,
    /// Least integer.
    pub min_integer: i64,
    /// Greatest integer.
    pub max_integer: i64,
    /// Least real.
    pub min_real: f64,
    /// Greatest real.
    pub max_real: f64,
    /// Least number of characters.
    pub min_length: u32,
    /// Greatest number of characters.
    pub max_length: u32,
    /// Where a UUID points, if it is a reference.
    pub reference: Option<RefTable>,
}

impl BaseType {
    /// The type without constraints.
    pub fn new(kind: AtomicType) -> BaseType {
        BaseType {
            kind,
            enumeration: None,
            min_integer: i64::MIN,
            max_integer: i64::MAX,
            min_real: -f64::MAX,
            max_real: f64::MAX,
            min_length: 0,
            max_length: u32::MAX,
            reference: None,
        }
    }

    /// True if any value but the atomic type's is excluded, or UUIDs are references.
    pub fn has_constraints(&self) -> bool {
        *self != BaseType::new(self.kind)
    }

    /// True if every atom of the kind is allowed, so that [`BaseType::check`] need not be asked. References do not matter.
    pub fn allows_all(&self) -> bool {
        self.enumeration.is_none()
            && match self.kind {
                AtomicType::Integer => self.min_integer == i64::MIN && self.max_integer == i64::MAX,
                AtomicType::Real => self.min_real == -f64::MAX && self.max_real == f64::MAX,
                AtomicType::String => self.min_length == 0 && self.max_length == u32::MAX,
                AtomicType::Boolean | AtomicType::Uuid => true,
            }
    }

    /// True for references that hold their rows.
    pub fn is_strong_ref(&self) -> bool {
        self.reference.as_ref().is_some_and(|r| r.ref_type == RefType::Strong)
    }

    /// True for references that vanish with their rows.
    pub fn is_weak_ref(&self) -> bool {
        self.reference.as_ref().is_some_and(|r| r.ref_type == RefType::Weak)
    }

    /// Reads the schema's form.
    pub fn from_json(json: &Json) -> Result<BaseType> {
        if json.as_str().is_some() {
            return atomic_type_from_json(json).map(BaseType::new);
        }
        let mut parser = Parser::new(json, "ovsdb type");
        let kind = match parser.required("type", Kinds::STRING) {
            Some(word) => atomic_type_from_json(word)?,
            None => {
                parser.finish()?;
                return Err(Error::syntax(json, "atomic-type expected"));
            }
        };
        let mut base = BaseType::new(kind);
        if let Some(listed) = parser.optional("enum", Kinds::ANY) {
            let kind = ColumnType::scalar(BaseType::new(kind)).with_cardinality(1, UNLIMITED);
            match Datum::from_json(&kind, listed, None) {
                Ok(datum) => base.enumeration = Some(datum),
                Err(error) => parser.fail_with(error),
            }
        } else {
            match kind {
                AtomicType::Integer => {
                    let min = parser.optional("minInteger", Kinds::INTEGER);
                    let max = parser.optional("maxInteger", Kinds::INTEGER);
                    base.min_integer = min.and_then(Json::as_integer).unwrap_or(i64::MIN);
                    base.max_integer = max.and_then(Json::as_integer).unwrap_or(i64::MAX);
                    if base.min_integer > base.max_integer {
                        parser.fail_with(Error::syntax(json, "minInteger exceeds maxInteger"));
                    }
                }
                AtomicType::Real => {
                    let min = parser.optional("minReal", Kinds::NUMBER);
                    let max = parser.optional("maxReal", Kinds::NUMBER);
                    base.min_real = min.and_then(Json::as_real).unwrap_or(-f64::MAX);
                    base.max_real = max.and_then(Json::as_real).unwrap_or(f64::MAX);
                    if base.min_real > base.max_real {
                        parser.fail_with(Error::syntax(json, "minReal exceeds maxReal"));
                    }
                }
                AtomicType::Boolean => {}
                AtomicType::String => {
                    let mut length = |name: &str, default: u32| {
                        let Some(n) = parser.optional(name, Kinds::INTEGER).and_then(Json::as_integer) else {
                            return default;
                        };
                        u32::try_from(n).unwrap_or_else(|_| {
                            let details = format!("{name} out of valid range 0 to {}", u32::MAX);
                            parser.fail_with(Error::syntax(&Json::Integer(n), details));
                            default
                        })
                    };
                    base.min_length = length("minLength", 0);
                    base.max_length = length("maxLength", u32::MAX);
                    if base.min_length > base.max_length {
                        parser.fail_with(Error::syntax(json, "minLength exceeds maxLength"));
                    }
                }
                AtomicType::Uuid => {
                    if let Some(table) = parser.optional("refTable", Kinds::ID).and_then(Json::as_str) {
                        let ref_type = match parser.optional("refType", Kinds::ID).and_then(Json::as_str) {
                            None | Some("strong") => RefType::Strong,
                            Some("weak") => RefType::Weak,
                            Some(other) => {
                                let details =
                                    format!("refType must be \"strong\" or \"weak\" (not \"{other}\")");
                                parser.fail_with(Error::syntax(json, details));
                                RefType::Strong
                            }
                        };
                        base.reference = Some(RefTable { table: table.into(), ref_type });
                    }
                }
            }
        }
        parser.finish()?;
        Ok(base)
    }

    /// The schema's form.
    pub fn to_json(&self) -> Json {
        if !self.has_constraints() {
            return Json::from(self.kind.name());
        }
        let mut object = Object::new();
        object.insert("type", self.kind.name());
        if let Some(listed) = &self.enumeration {
            let kind = ColumnType::scalar(BaseType::new(self.kind)).with_cardinality(1, UNLIMITED);
            object.insert("enum", listed.to_json(&kind));
        }
        if self.min_integer != i64::MIN {
            object.insert("minInteger", self.min_integer);
        }
        if self.max_integer != i64::MAX {
            object.insert("maxInteger", self.max_integer);
        }
        if self.min_real != -f64::MAX {
            object.insert("minReal", self.min_real);
        }
        if self.max_real != f64::MAX {
            object.insert("maxReal", self.max_real);
        }
        if self.min_length != 0 {
            object.insert("minLength", self.min_length);
        }
        if self.max_length != u32::MAX {
            object.insert("maxLength", self.max_length);
        }
        if let Some(reference) = &self.reference {
            object.insert("refTable", reference.table.clone());
            if reference.ref_type == RefType::Weak {
                object.insert("refType", "weak");
            }
        }
        Json::Object(object)
    }

    /// Checks one atom against the constraints (all but references, which need the table).
    pub fn check(&self, atom: &Atom) -> Result<()> {
        if let Some(listed) = &self.enumeration {
            if listed.contains(atom) {
                return Ok(());
            }
            let kind = ColumnType::scalar(BaseType::new(self.kind)).with_cardinality(1, UNLIMITED);
            let message =
                format!("{} is not one of the allowed values ({})", atom.to_text(), listed.to_text(&kind));
            return Err(Error::constraint(message));
        }
        match atom {
            Atom::Integer(i) => check_range(
                *i,
                self.min_integer,
                self.max_integer,
                self.min_integer != i64::MIN,
                self.max_integer != i64::MAX,
                |i| i.to_string(),
            ),
            Atom::Real(r) => check_range(
                *r,
                self.min_real,
                self.max_real,
                self.min_real != -f64::MAX,
                self.max_real != f64::MAX,
                format_real,
            ),
            Atom::String(s) if self.min_length > 0 || self.max_length < u32::MAX => {
                let length = s.chars().count();
                if length < self.min_length as usize {
                    let least = self.min_length;
                    let message =
                        format!("\"{s}\" length {length} is less than minimum allowed length {least}");
                    return Err(Error::constraint(message));
                }
                if length > self.max_length as usize {
                    let most = self.max_length;
                    let message =
                        format!("\"{s}\" length {length} is greater than maximum allowed length {most}");
                    return Err(Error::constraint(message));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn check_range<T: PartialOrd + Copy>(
    value: T,
    min: T,
    max: T,
    has_min: bool,
    has_max: bool,
    print: impl Fn(T) -> String,
) -> Result<()> {
    if value >= min && value <= max {
        return Ok(());
    }
    let value = print(value);
    Err(Error::constraint(match (has_min, has_max) {
        (true, true) => {
            format!("{value} is not in the valid range {} to {} (inclusive)", print(min), print(max))
        }
        (true, false) => format!("{value} is less than minimum allowed value {}", print(min)),
        _ => format!("{value} is greater than maximum allowed value {}", print(max)),
    }))
}

fn atomic_type_from_json(json: &Json) -> Result<AtomicType> {
    match json.as_str() {
        None => Err(Error::syntax(json, "atomic-type expected")),
        Some(word) => AtomicType::from_name(word)
            .ok_or_else(|| Error::syntax(json, format!("\"{word}\" is not an atomic-type"))),
    }
}

/// The type of a column: a scalar, a set, or a map.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnType {
    /// The type of elements or keys.
    pub key: BaseType,
    /// The type of a map's values; none for scalars and sets.
    pub value: Option<BaseType>,
    /// The least number of elements, 0 or 1.
    pub min: u32,
    /// The greatest number of elements, or [`UNLIMITED`].
    pub max: u32,
}

impl ColumnType {
    /// Exactly one of `key`.
    pub fn scalar(key: BaseType) -> ColumnType {
        ColumnType { key, value: None, min: 1, max: 1 }
    }

    /// The same type with other bounds on the number of elements.
    pub fn with_cardinality(mut self, min: u32, max: u32) -> ColumnType {
        self.min = min;
        self.max = max;
        self
    }

    /// The type of the `_uuid` and `_version` columns.
    pub fn uuid() -> ColumnType {
        ColumnType::scalar(BaseType::new(AtomicType::Uuid))
    }

    /// Exactly one element, no map.
    pub fn is_scalar(&self) -> bool {
        self.min == 1 && self.max == 1 && self.value.is_none()
    }

    /// None or one element, no map.
    pub fn is_optional_scalar(&self) -> bool {
        self.min == 0 && self.max == 1 && self.value.is_none()
    }

    /// A map.
    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    /// A set that is neither scalar nor map, optional scalars included.
    pub fn is_set(&self) -> bool {
        self.value.is_none() && (self.min != 1 || self.max != 1)
    }

    /// May hold more than one element, or is a map: such columns are sent as differences.
    pub fn is_composite(&self) -> bool {
        self.value.is_some() || self.max > 1
    }

    /// The same shape without constraints on the atoms and on the number of elements.
    pub fn unconstrained(&self) -> ColumnType {
        ColumnType {
            key: BaseType::new(self.key.kind),
            value: self.value.as_ref().map(|v| BaseType::new(v.kind)),
            min: 0,
            max: UNLIMITED,
        }
    }

    /// Reads the schema's form.
    pub fn from_json(json: &Json) -> Result<ColumnType> {
        if json.as_str().is_some() {
            return BaseType::from_json(json).map(ColumnType::scalar);
        }
        let mut parser = Parser::new(json, "ovsdb type");
        let key = parser.required("key", Kinds::STRING.or(Kinds::OBJECT));
        let value = parser.optional("value", Kinds::STRING.or(Kinds::OBJECT));
        let min = parser.optional("min", Kinds::INTEGER);
        let max = parser.optional("max", Kinds::INTEGER.or(Kinds::STRING));
        parser.finish()?;
        let key = match key {
            Some(key) => BaseType::from_json(key)?,
            None => return Err(Error::syntax(json, "atomic-type expected")),
        };
        let value = value.map(BaseType::from_json).transpose()?;
        let count = |json: &Json| match json {
            Json::Integer(n) => u32::try_from(*n).ok().filter(|n| *n < UNLIMITED),
            Json::String(s) if &**s == "unlimited" => Some(UNLIMITED),
            _ => None,
        };
        let bad = |count: &Json| Error::syntax(count, "bad min or max value");
        let min = min.map_or(Ok(1), |j| count(j).ok_or_else(|| bad(j)))?;
        let max = max.map_or(Ok(1), |j| count(j).ok_or_else(|| bad(j)))?;
        if min > 1 || max < 1 {
            return Err(Error::syntax(json, "ovsdb type fails constraint checks"));
        }
        Ok(ColumnType { key, value, min, max })
    }

    /// The schema's form.
    pub fn to_json(&self) -> Json {
        if self.is_scalar() && !self.key.has_constraints() {
            return self.key.to_json();
        }
        let mut object = Object::new();
        object.insert("key", self.key.to_json());
        if let Some(value) = &self.value {
            object.insert("value", value.to_json());
        }
        if self.min != 1 {
            object.insert("min", self.min);
        }
        match self.max {
            1 => {}
            UNLIMITED => {
                object.insert("max", "unlimited");
            }
            n => {
                object.insert("max", n);
            }
        }
        Json::Object(object)
    }

    /// A description for people: `set of up to 4096 integers`, `map of (string, string) pairs`.
    pub fn to_english(&self) -> String {
        if self.is_scalar() {
            return self.key.kind.name().to_string();
        }
        let bounds = match (self.min, self.max) {
            (0, UNLIMITED) => String::new(),
            (0, max) => format!("up to {max} "),
            (min, UNLIMITED) => format!("{min} or more "),
            (min, max) => format!("{min} to {max} "),
        };
        match &self.value {
            Some(value) => format!("map of {bounds}({}, {}) pairs", self.key.kind.name(), value.kind.name()),
            None => format!("set of {bounds}{}s", self.key.kind.name()),
        }
    }

    /// Names of the tables referenced by keys and by values.
    pub fn references(&self) -> impl Iterator<Item = &RefTable> {
        let value = self.value.as_ref().and_then(|v| v.reference.as_ref());
        self.key.reference.iter().chain(value)
    }
}

/// True if `name` may name a table or column of users: an identifier that does not begin with an underscore.
pub fn is_user_name(name: &str) -> bool {
    is_id(name) && !name.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ColumnType> {
        let wrapped = Json::parse(&format!("[{text}]")).unwrap();
        ColumnType::from_json(&wrapped.as_array().unwrap()[0])
    }

    #[test]
    fn schema_form_round_trips() {
        for text in [
            r#""integer""#,
            r#"{"key":"string","min":0}"#,
            r#"{"key":"string","value":"string","min":0,"max":"unlimited"}"#,
            r#"{"key":{"type":"integer","minInteger":0,"maxInteger":4095},"min":0,"max":4096}"#,
            r#"{"key":{"type":"string","enum":["set",["secure","standalone"]]},"min":0}"#,
            r#"{"key":{"type":"uuid","refTable":"Port","refType":"weak"},"max":"unlimited"}"#,
            r#"{"key":{"type":"real","minReal":-1.5}}"#,
            r#"{"key":{"type":"string","minLength":2,"maxLength":9}}"#,
        ] {
            assert_eq!(parse(text).unwrap().to_json().to_string(), text);
        }
        assert_eq!(
            parse(r#"{"key":{"type":"boolean"},"max":1}"#).unwrap().to_json().to_string(),
            r#""boolean""#
        );
    }

    #[test]
    fn bad_types() {
        for text in [
            "1",
            r#""int""#,
            "{}",
            r#"{"key":"integer","min":2}"#,
            r#"{"key":"integer","max":0}"#,
            r#"{"key":"integer","max":"many"}"#,
            r#"{"key":{"type":"integer","minInteger":5,"maxInteger":4}}"#,
            r#"{"key":{"type":"uuid","refTable":"x","refType":"soft"}}"#,
            r#"{"key":{"type":"string","minLength":-1}}"#,
            r#"{"key":"integer","extra":1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn english() {
        let say = |t| parse(t).unwrap().to_english();
        assert_eq!(say(r#"{"key":"integer","min":0,"max":4096}"#), "set of up to 4096 integers");
        assert_eq!(
            say(r#"{"key":"string","value":"string","min":0,"max":"unlimited"}"#),
            "map of (string, string) pairs"
        );
        assert_eq!(say(r#"{"key":"string","min":0}"#), "set of up to 1 strings");
        assert_eq!(say(r#"{"key":"integer","max":3}"#), "set of 1 to 3 integers");
        assert_eq!(say(r#""uuid""#), "uuid");
    }

    #[test]
    fn constraints() {
        let t = parse(r#"{"key":{"type":"integer","minInteger":2,"maxInteger":10}}"#).unwrap();
        assert_eq!(
            t.key.check(&Atom::Integer(11)).unwrap_err().to_string(),
            "constraint violation: 11 is not in the valid range 2 to 10 (inclusive)"
        );
        let t = parse(r#"{"key":{"type":"string","enum":["set",["a","b"]]}}"#).unwrap();
        assert_eq!(
            t.key.check(&Atom::from("d")).unwrap_err().details(),
            Some("d is not one of the allowed values ([a, b])")
        );
    }
}
