//! JSON as the database and its protocol speak it.
//!
//! One value type, one parser, one serializer for everything that is JSON in a switch: OVSDB's wire protocol,
//! its log file, its schemas, the control socket. RFC 8259 says what is accepted; beyond it this module keeps the
//! habits that programs around a switch see:
//!
//! - a number without a fraction that fits an `i64` is an [`Json::Integer`] whatever its notation (`1.0`, `1e3`), all
//!   others are [`Json::Real`], printed with 15 significant digits;
//! - objects keep the order of insertion; a later duplicate of a key replaces the earlier value; equality ignores order;
//! - a text is an object or an array, nested at most [`MAX_DEPTH`] deep;
//! - errors name line, column and byte, counted from 0.
//!
//! Values are plain trees. Strings are `Arc<str>`, so that a string which travels from a message into a table and
//! from there to a hundred monitors is stored once. A subtree that goes to many readers can be serialized once
//! and embedded as [`Json::Serialized`].
//!
//! Bytes from outside never panic and cost memory in proportion to their number; see [`Parser`] for framing.

mod parse;
mod pull;
mod table_order;
mod write;

pub use parse::{JsonError, MAX_DEPTH, Parser, unescape};
pub use pull::{Pull, Strings};
pub use table_order::table_order;
pub use write::{Style, format_real, write_integer, write_string};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A JSON value.
#[derive(Clone, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// Any other number. Not-a-number and infinities print as `null`.
    Real(f64),
    /// A string, without escapes.
    String(Arc<str>),
    /// `[...]`
    Array(Vec<Json>),
    /// `{...}`
    Object(Object),
    /// The text of a value that was serialized before, to be embedded as it is. The parser never makes one;
    /// it equals only the same text.
    Serialized(Arc<str>),
}

impl Json {
    /// Parses one text. Whitespace may surround it; nothing else.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        parse::parse_text(text.as_bytes())
    }

    /// [`Json::parse`] on bytes that are not known to be UTF-8.
    pub fn parse_bytes(text: &[u8]) -> Result<Json, JsonError> {
        parse::parse_text(text)
    }

    /// A string value.
    pub fn string(s: impl Into<Arc<str>>) -> Json {
        Json::String(s.into())
    }

    /// An object of the given members, in their order.
    pub fn object<K: Into<Arc<str>>>(members: impl IntoIterator<Item = (K, Json)>) -> Json {
        Json::Object(members.into_iter().collect())
    }

    /// An array of the given elements.
    pub fn array(elements: impl IntoIterator<Item = Json>) -> Json {
        Json::Array(elements.into_iter().collect())
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(s) => Some(s),
            _ => None,
        }
    }

    /// The integer, if this is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Json::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The number, if this is one of either kind.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Json::Integer(i) => Some(*i as f64),
            Json::Real(r) => Some(*r),
            _ => None,
        }
    }

    /// The Boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Json::Array(a) => Some(a),
            _ => None,
        }
    }

    /// The members, if this is an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Json::Object(o) => Some(o),
            _ => None,
        }
    }

    /// True for `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// The member `name`, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.as_object()?.get(name)
    }

    /// The word that diagnostics use for this kind of value.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(false) => "false",
            Json::Bool(true) => "true",
            Json::Integer(_) | Json::Real(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
            Json::Serialized(_) => "serialized",
        }
    }

    /// The compact text of this value, serialized now and cheap to embed in other values.
    pub fn into_serialized(self) -> Json {
        match self {
            Json::Serialized(_) => self,
            other => Json::Serialized(other.to_string().into()),
        }
    }

    /// Serializes in the given style.
    pub fn to_text(&self, style: Style) -> String {
        let mut out = String::new();
        write::write_json(&mut out, self, style);
        out
    }

    /// Appends the compact text to `out`.
    pub fn write_to(&self, out: &mut String) {
        write::write_json(out, self, Style::COMPACT);
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(Style::COMPACT))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Null, Json::Null) => true,
            (Json::Bool(a), Json::Bool(b)) => a == b,
            (Json::Integer(a), Json::Integer(b)) => a == b,
            (Json::Real(a), Json::Real(b)) => a == b,
            (Json::String(a), Json::String(b)) => a == b,
            (Json::Array(a), Json::Array(b)) => a == b,
            (Json::Object(a), Json::Object(b)) => a == b,
            (Json::Serialized(a), Json::Serialized(b)) => a == b,
            _ => false,
        }
    }
}

impl From<bool> for Json {
    fn from(b: bool) -> Json {
        Json::Bool(b)
    }
}

impl From<i64> for Json {
    fn from(i: i64) -> Json {
        Json::Integer(i)
    }
}

impl From<i32> for Json {
    fn from(i: i32) -> Json {
        Json::Integer(i.into())
    }
}

impl From<u32> for Json {
    fn from(i: u32) -> Json {
        Json::Integer(i.into())
    }
}

impl From<usize> for Json {
    fn from(i: usize) -> Json {
        Json::Integer(i64::try_from(i).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Json {
    fn from(r: f64) -> Json {
        Json::Real(r)
    }
}

impl From<&str> for Json {
    fn from(s: &str) -> Json {
        Json::String(s.into())
    }
}

impl From<String> for Json {
    fn from(s: String) -> Json {
        Json::String(s.into())
    }
}

impl From<Arc<str>> for Json {
    fn from(s: Arc<str>) -> Json {
        Json::String(s)
    }
}

impl From<Vec<Json>> for Json {
    fn from(a: Vec<Json>) -> Json {
        Json::Array(a)
    }
}

impl From<Object> for Json {
    fn from(o: Object) -> Json {
        Json::Object(o)
    }
}

/// Objects with fewer members than this are searched one by one.
const INDEX_FROM: usize = 16;

/// The members of a JSON object, in order of insertion.
///
/// Lookup is a scan while the object is small and a hash index beyond, so a reply with 100,000 rows and a
/// three-member operation are both cheap.
#[derive(Clone, Default)]
#[allow(clippy::box_collection, reason = "keeps values small: hardly any object has an index")]
pub struct Object {
    members: Vec<(Arc<str>, Json)>,
    index: Option<Box<HashMap<Arc<str>, usize>>>,
}

impl Object {
    /// An object without members.
    pub fn new() -> Object {
        Object::default()
    }

    /// An empty object with room for `n` members.
    pub fn with_capacity(n: usize) -> Object {
        Object { members: Vec::with_capacity(n), index: None }
    }

    fn position(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(name).copied(),
            None => self.members.iter().position(|(k, _)| &**k == name),
        }
    }

    /// The value of member `name`.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.position(name).map(|i| &self.members[i].1)
    }

    /// The value of member `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        self.position(name).map(|i| &mut self.members[i].1)
    }

    /// True if there is a member `name`.
    pub fn contains_key(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Adds a member, or replaces the value of one that is there (in its old place). Returns the replaced value.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, value: impl Into<Json>) -> Option<Json> {
        let name = name.into();
        let value = value.into();
        if let Some(i) = self.position(&name) {
            return Some(std::mem::replace(&mut self.members[i].1, value));
        }
        if let Some(index) = &mut self.index {
            index.insert(name.clone(), self.members.len());
        }
        self.members.push((name, value));
        if self.index.is_none() && self.members.len() >= INDEX_FROM {
            self.rebuild_index();
        }
        None
    }

    /// Removes member `name`; the others keep their order. Costs a pass over the members.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        let i = self.position(name)?;
        let (_, value) = self.members.remove(i);
        self.index = None;
        if self.members.len() >= INDEX_FROM {
            self.rebuild_index();
        }
        Some(value)
    }

    fn rebuild_index(&mut self) {
        let index = self.members.iter().enumerate().map(|(i, (k, _))| (k.clone(), i)).collect();
        self.index = Some(Box::new(index));
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True if there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Arc<str>, &Json)> + ExactSizeIterator {
        self.members.iter().map(|(k, v)| (k, v))
    }

    /// The names in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.members.iter().map(|(k, _)| k)
    }

    /// The members sorted by name, bytewise.
    pub fn sorted(&self) -> Vec<(&Arc<str>, &Json)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.len() == other.len() && self.iter().all(|(k, v)| other.get(k) == Some(v))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, Json)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, Json)>>(members: T) -> Object {
        let members = members.into_iter();
        let mut object = Object::with_capacity(members.size_hint().0);
        for (k, v) in members {
            object.insert(k, v);
        }
        object
    }
}

impl IntoIterator for Object {
    type Item = (Arc<str>, Json);
    type IntoIter = std::vec::IntoIter<(Arc<str>, Json)>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_order_replace_duplicates_and_find_members() {
        let mut o = Object::new();
        for i in 0..40 {
            o.insert(format!("k{i}"), i);
        }
        assert_eq!(o.insert("k7", 70), Some(Json::Integer(7)));
        assert_eq!(o.remove("k0"), Some(Json::Integer(0)));
        assert_eq!(o.len(), 39);
        assert_eq!(o.get("k39"), Some(&Json::Integer(39)));
        assert_eq!(o.get("k0"), None);
        assert_eq!(&**o.keys().next().unwrap(), "k1");
        assert_eq!(o.get("k7"), Some(&Json::Integer(70)));
        assert_eq!(Json::parse(r#"{"a":1,"b":0,"a":2}"#).unwrap().to_string(), r#"{"a":2,"b":0}"#);
    }

    #[test]
    fn equality_ignores_member_order_only() {
        let parse = |t| Json::parse(t).unwrap();
        assert_eq!(parse(r#"{"a":1,"b":[2]}"#), parse(r#"{"b":[2],"a":1}"#));
        assert_ne!(parse(r#"{"a":1}"#), parse(r#"{"a":1,"b":null}"#));
        assert_ne!(parse("[1,2]"), parse("[2,1]"));
    }

    #[test]
    fn serialized_text_is_embedded_as_is() {
        let update = Json::parse(r#"{"T":{"r":{}}}"#).unwrap().into_serialized();
        assert_eq!(Json::array([Json::Null, update]).to_string(), r#"[null,{"T":{"r":{}}}]"#);
    }
}
