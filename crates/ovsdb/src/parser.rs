//! Taking objects apart with complaints that name the member.
//!
//! [`Parser`] reads members of one JSON object. The first complaint sticks; [`Parser::finish`] also complains about members
//! that nobody asked for. A function that parses a thing asks for all its members, then calls `finish`.

use crate::error::{Error, Result};
use ib_base::json::{Json, Object};

/// Which kinds of JSON value a member may have, as a set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// `null`
    pub const NULL: Kinds = Kinds(1);
    /// `true` or `false`
    pub const BOOL: Kinds = Kinds(2);
    /// An integer.
    pub const INTEGER: Kinds = Kinds(4);
    /// An integer or real.
    pub const NUMBER: Kinds = Kinds(4 | 8);
    /// A string.
    pub const STRING: Kinds = Kinds(16);
    /// An array.
    pub const ARRAY: Kinds = Kinds(32);
    /// An object.
    pub const OBJECT: Kinds = Kinds(64);
    /// A string that is an identifier.
    pub const ID: Kinds = Kinds(128);
    /// Any value.
    pub const ANY: Kinds = Kinds(0x7f);

    /// Either set's kinds.
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    fn allows(self, json: &Json) -> bool {
        let kind = match json {
            Json::Null => 1,
            Json::Bool(_) => 2,
            Json::Integer(_) => 4,
            Json::Real(_) => 8,
            Json::String(s) => 16 | if is_id(s) { 128 } else { 0 },
            Json::Array(_) => 32,
            Json::Object(_) => 64,
            Json::Serialized(_) => 0,
        };
        self.0 & kind != 0
    }
}

/// True if `s` is an identifier: a letter or underscore, then letters, digits and underscores.
pub fn is_id(s: &str) -> bool {
    let mut bytes = s.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What an object describes, for complaints. Put into words only when there is one.
pub enum Name {
    /// In these words.
    Text(String),
    /// Operation number (from 1) of so many.
    Operation(usize, usize),
}

impl From<String> for Name {
    fn from(text: String) -> Name {
        Name::Text(text)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name::Text(text.to_string())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Text(text) => f.write_str(text),
            Name::Operation(i, n) => write!(f, "ovsdb operation {i} of {n}"),
        }
    }
}

/// Reads the members of one object.
pub struct Parser<'a> {
    name: Name,
    json: &'a Json,
    object: Option<&'a Object>,
    used: Vec<&'a str>,
    error: Option<Error>,
}

impl<'a> Parser<'a> {
    /// Begins to take `json` apart; `name` is what the text describes, for complaints.
    pub fn new(json: &'a Json, name: impl Into<Name>) -> Parser<'a> {
        let mut parser =
            Parser { name: name.into(), json, object: json.as_object(), used: Vec::new(), error: None };
        if parser.object.is_none() {
            parser.error =
                Some(Error::syntax_plain(format!("Parsing {} failed: Object expected.", parser.name)));
        }
        parser
    }

    /// Records a complaint unless there is an earlier one.
    pub fn fail(&mut self, details: &str) {
        if self.error.is_none() {
            self.error = Some(Error::syntax(self.json, format!("Parsing {} failed: {details}", self.name)));
        }
    }

    /// Records an error as it is unless there is an earlier one.
    pub fn fail_with(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// The object that is taken apart.
    pub fn json(&self) -> &'a Json {
        self.json
    }

    /// True if there is a complaint already.
    pub fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    fn member(&mut self, name: &str, kinds: Kinds, required: bool) -> Option<&'a Json> {
        let object = self.object?;
        let found = object.iter().find(|(k, _)| &***k == name);
        match found {
            None => {
                if required {
                    self.fail(&format!("Required '{name}' member is missing."));
                }
                None
            }
            Some((key, value)) => {
                self.used.push(key);
                if kinds.allows(value) {
                    Some(value)
                } else {
                    self.fail(&format!("Type mismatch for member '{name}'."));
                    None
                }
            }
        }
    }

    /// The member `name`, which must be there and of one of the given kinds.
    pub fn required(&mut self, name: &str, kinds: Kinds) -> Option<&'a Json> {
        self.member(name, kinds, true)
    }

    /// The member `name` if it is there; then it must be of one of the given kinds.
    pub fn optional(&mut self, name: &str, kinds: Kinds) -> Option<&'a Json> {
        self.member(name, kinds, false)
    }

    /// The first complaint, if any; members not asked for are one.
    pub fn finish(mut self) -> Result<()> {
        if self.error.is_none()
            && let Some(object) = self.object
            && self.used.len() != object.len()
        {
            let members = object.in_table_order();
            let mut unused = members.iter().filter(|(k, _)| !self.used.contains(&&***k));
            let first = unused.next().map(|(k, _)| *k);
            let unused = unused.count() + 1;
            if let Some(first) = first {
                let others = match unused {
                    1 => "is".to_string(),
                    2 => "and 1 other member are".to_string(),
                    n => format!("and {} other members are", n - 1),
                };
                self.fail(&format!("Member '{first}' {others} present but not allowed here."));
            }
        }
        self.error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let json = Json::parse(text).unwrap();
        let mut parser = Parser::new(&json, "thing");
        parser.required("a", Kinds::ID);
        parser.optional("b", Kinds::INTEGER);
        parser.finish().map_or_else(|e| e.details().unwrap_or_default().to_string(), |()| String::new())
    }

    #[test]
    fn complaints() {
        for (text, expect) in [
            (r#"{"a":"x","b":1}"#, ""),
            (r#"{"b":1}"#, "Parsing thing failed: Required 'a' member is missing."),
            (r#"{"a":"1x"}"#, "Parsing thing failed: Type mismatch for member 'a'."),
            (r#"{"a":"x","b":1.5}"#, "Parsing thing failed: Type mismatch for member 'b'."),
            (r#"{"a":"x","c":1}"#, "Parsing thing failed: Member 'c' is present but not allowed here."),
            (r#"[]"#, "Parsing thing failed: Object expected."),
        ] {
            assert_eq!(complaint(text), expect);
        }
    }
}
