//! Large texts, member by member.
//!
//! A database of hundreds of megabytes is one object; as a tree of values it would take several times that. [`Pull`] walks
//! the outer objects and makes values only of what is inside. Equal short strings are made once and shared, which in
//! databases, with their maps of ever the same keys, saves most of them.
//!
//! Who expects certain content can take that piece by piece without any value: [`Pull::take_byte`], [`Pull::take_str`] and their
//! like say whether it is there. Where it is not, one goes back by [`Pull::rewind`] and takes the value whole.

use super::Json;
use super::parse::{Cursor, JsonError, Stop};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// Strings that texts had in common so far.
#[derive(Debug, Default)]
pub struct Strings(HashSet<Arc<str>>);

/// A walk through one text.
///
/// After [`Pull::enter`] an object's members come by [`Pull::next_key`], each followed by [`Pull::value`] for the whole
/// value or [`Pull::enter`] to walk through that.
pub struct Pull<'a> {
    cursor: Cursor<'a>,
    /// For each object entered: true until its first member.
    first: Vec<bool>,
}

impl<'a> Pull<'a> {
    /// Begins before the text's outermost value.
    pub fn new(text: &'a [u8]) -> Pull<'a> {
        Pull::with_strings(text, Strings::default())
    }

    /// As [`Pull::new`], sharing strings with the texts before.
    pub fn with_strings(text: &'a [u8], strings: Strings) -> Pull<'a> {
        Pull { cursor: Cursor::sharing(text, strings.0), first: Vec::new() }
    }

    /// The strings to share with the texts that follow.
    pub fn into_strings(self) -> Strings {
        Strings(self.cursor.into_seen())
    }

    fn fail(&self, message: &str) -> JsonError {
        self.cursor.error(Stop::Bad(self.cursor.pos, message.to_string()))
    }

    fn peek(&mut self) -> Result<u8, JsonError> {
        self.cursor.peek().map_err(|stop| self.cursor.error(stop))
    }

    /// True if the value here is an object.
    pub fn at_object(&mut self) -> bool {
        self.cursor.peek().is_ok_and(|b| b == b'{')
    }

    /// Enters the object here.
    pub fn enter(&mut self) -> Result<(), JsonError> {
        if self.peek()? != b'{' {
            return Err(self.fail("object expected"));
        }
        self.cursor.pos += 1;
        self.first.push(true);
        Ok(())
    }

    /// The name of the next member of the object that was entered last; none at its end, which leaves it.
    pub fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        let first = self.first.last().copied().unwrap_or(true);
        match (self.peek()?, first) {
            (b'}', _) => {
                self.cursor.pos += 1;
                self.first.pop();
                return Ok(None);
            }
            (b',', false) => self.cursor.pos += 1,
            (_, true) => {}
            _ => return Err(self.fail("syntax error expecting '}' or ','")),
        }
        if let Some(first) = self.first.last_mut() {
            *first = false;
        }
        if self.peek()? != b'"' {
            return Err(self.fail("syntax error parsing object expecting string"));
        }
        let key = self.cursor.str().map_err(|stop| self.cursor.error(stop))?;
        if self.peek()? != b':' {
            return Err(self.fail("syntax error parsing object expecting ':'"));
        }
        self.cursor.pos += 1;
        Ok(Some(key))
    }

    /// Where the walk is; see [`Pull::rewind`].
    pub fn position(&self) -> usize {
        self.cursor.pos
    }

    /// Goes back to a [`Pull::position`] inside of the same value.
    pub fn rewind(&mut self, position: usize) {
        self.cursor.pos = position;
    }

    /// Takes a bracket or comma, if it is what comes.
    pub fn take_byte(&mut self, byte: u8) -> bool {
        let found = self.cursor.peek().is_ok_and(|b| b == byte);
        self.cursor.pos += usize::from(found);
        found
    }

    /// Takes a string, if one comes and it is in order.
    pub fn take_str(&mut self) -> Option<Cow<'a, str>> {
        match self.cursor.peek() {
            Ok(b'"') => self.cursor.str().ok(),
            _ => None,
        }
    }

    /// [`Pull::take_str`] as UTF-8.
    pub fn take_utf8(&mut self) -> Option<Cow<'a, [u8]>> {
        match self.cursor.peek() {
            Ok(b'"') => self.cursor.bytes().ok(),
            _ => None,
        }
    }

    /// Takes a number, `true` or `false`, if one comes and it is in order.
    pub fn take_scalar(&mut self) -> Option<Json> {
        match self.cursor.peek() {
            Ok(b'-' | b'0'..=b'9' | b't' | b'f') => self.cursor.value(0).ok(),
            _ => None,
        }
    }

    /// The whole value here.
    pub fn value(&mut self) -> Result<Json, JsonError> {
        let depth = self.first.len();
        self.cursor.value(depth).map_err(|stop| self.cursor.error(stop))
    }

    /// Ends the walk: nothing but white space may be left.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.cursor.peek() {
            Err(_) => Ok(()),
            Ok(_) => Err(self.fail("trailing garbage at end of input")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_two_levels() {
        let text = br#" {"T":{"a":[1,{"x":"v"}],"b":null},"U":{},"n":5} "#;
        let mut pull = Pull::new(text);
        let mut seen = String::new();
        pull.enter().unwrap();
        while let Some(table) = pull.next_key().unwrap() {
            if !pull.at_object() {
                seen.push_str(&format!("{table}={};", pull.value().unwrap()));
                continue;
            }
            pull.enter().unwrap();
            while let Some(key) = pull.next_key().unwrap() {
                seen.push_str(&format!("{table}.{key}={};", pull.value().unwrap()));
            }
        }
        pull.finish().unwrap();
        assert_eq!(seen, r#"T.a=[1,{"x":"v"}];T.b=null;n=5;"#);
    }

    #[test]
    fn takes_what_is_expected_or_goes_back() {
        let text = br#"{"a":["set",[1, 2]],"b":["set",["x\n"]]}"#;
        let mut pull = Pull::new(text);
        let numbers = |pull: &mut Pull<'_>| -> Option<Vec<Json>> {
            let mut found = Vec::new();
            let begins = pull.take_byte(b'[') && pull.take_str()? == "set" && pull.take_byte(b',');
            if !begins || !pull.take_byte(b'[') {
                return None;
            }
            loop {
                found.push(pull.take_scalar()?);
                if !pull.take_byte(b',') {
                    return (pull.take_byte(b']') && pull.take_byte(b']')).then_some(found);
                }
            }
        };
        pull.enter().unwrap();
        pull.next_key().unwrap();
        assert_eq!(numbers(&mut pull), Some(vec![Json::Integer(1), Json::Integer(2)]));
        assert_eq!(pull.next_key().unwrap().as_deref(), Some("b"));
        let start = pull.position();
        assert_eq!(numbers(&mut pull), None);
        pull.rewind(start);
        assert_eq!(pull.value().unwrap().to_string(), r#"["set",["x\n"]]"#);
        assert_eq!(pull.next_key().unwrap(), None);
        pull.finish().unwrap();
    }

    #[test]
    fn shares_strings_and_names_faults() {
        let text = br#"{"k":["same","same"]}"#;
        let mut pull = Pull::new(text);
        pull.enter().unwrap();
        pull.next_key().unwrap();
        let Json::Array(both) = pull.value().unwrap() else { panic!() };
        let (Json::String(a), Json::String(b)) = (&both[0], &both[1]) else { panic!() };
        assert!(Arc::ptr_eq(a, b));

        for (text, expect) in [
            ("[]", "line 0, column 0, byte 0: object expected"),
            ("{1", "line 0, column 1, byte 1: syntax error parsing object expecting string"),
            ("{\"a\"", "line 0, column 4, byte 4: unexpected end of input"),
            ("{\"a\":1 2", "line 0, column 7, byte 7: syntax error expecting '}' or ','"),
            ("{\"a\":1} x", "line 0, column 8, byte 8: trailing garbage at end of input"),
        ] {
            let walk = |text: &str| -> Result<(), JsonError> {
                let mut pull = Pull::new(text.as_bytes());
                pull.enter()?;
                while pull.next_key()?.is_some() {
                    pull.value()?;
                }
                pull.finish()
            };
            assert_eq!(walk(text).unwrap_err().to_string(), expect);
        }
    }
}
