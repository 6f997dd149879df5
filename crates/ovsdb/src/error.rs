//! What can go wrong with a database, in the form that RFC 7047 gives to errors on the wire.
//!
//! An error is a short tag that programs compare (`constraint violation`), a sentence for people, and
//! the JSON text at fault if there is one. [`Error::to_json`] is the wire form; `Display` is what logs and
//! tools print.

use ib_base::json::{Json, Object, Style};
use std::borrow::Cow;
use std::fmt;

/// The tag of malformed requests and files.
pub const SYNTAX_ERROR: &str = "syntax error";
/// The tag of values that break a constraint of the schema.
pub const CONSTRAINT_VIOLATION: &str = "constraint violation";
/// The tag of references to rows that do not exist.
pub const REFERENTIAL_INTEGRITY: &str = "referential integrity violation";
/// The tag of failures of the storage below.
pub const IO_ERROR: &str = "I/O error";

/// `Result` with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the database; small, because nearly every function returns one.
#[derive(Clone, PartialEq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq)]
struct Inner {
    tag: Cow<'static, str>,
    details: Option<String>,
    syntax: Option<String>,
    os_error: Option<i32>,
}

impl Error {
    /// An error with the given tag and a sentence.
    pub fn new(tag: &'static str, details: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            tag: Cow::Borrowed(tag),
            details: Some(details.into()),
            syntax: None,
            os_error: None,
        }))
    }

    /// An error that is only a tag.
    pub fn tag_only(tag: &'static str) -> Error {
        Error(Box::new(Inner { tag: Cow::Borrowed(tag), details: None, syntax: None, os_error: None }))
    }

    /// Malformed JSON content. `json` is what is wrong; it is quoted with members sorted.
    pub fn syntax(json: &Json, details: impl Into<String>) -> Error {
        Error::syntax_tagged(json, SYNTAX_ERROR, details)
    }

    /// As [`Error::syntax`] with another tag.
    pub fn syntax_tagged(json: &Json, tag: &'static str, details: impl Into<String>) -> Error {
        let mut error = Error::new(tag, details);
        error.0.syntax = Some(json.to_text(Style::SORTED));
        error
    }

    /// A `syntax error` that quotes no text.
    pub fn syntax_plain(details: impl Into<String>) -> Error {
        Error::new(SYNTAX_ERROR, details)
    }

    /// A `constraint violation`.
    pub fn constraint(details: impl Into<String>) -> Error {
        Error::new(CONSTRAINT_VIOLATION, details)
    }

    /// A `referential integrity violation`.
    pub fn referential(details: impl Into<String>) -> Error {
        Error::new(REFERENTIAL_INTEGRITY, details)
    }

    /// An `I/O error`; `error` gives the reason.
    pub fn io(error: &std::io::Error, details: impl Into<String>) -> Error {
        let mut result = Error::new(IO_ERROR, details);
        result.0.os_error = error.raw_os_error();
        result
    }

    /// An `I/O error`: the file ended too early.
    pub fn io_eof(details: impl Into<String>) -> Error {
        Error::new(IO_ERROR, format!("{} (End of file)", details.into()))
    }

    /// The same with another tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &'static str) -> Error {
        self.0.tag = Cow::Borrowed(tag);
        self
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.0.tag
    }

    /// The sentence, if any.
    pub fn details(&self) -> Option<&str> {
        self.0.details.as_deref()
    }

    /// The operating system's error number, if the fault came from there.
    pub fn os_error(&self) -> Option<i32> {
        self.0.os_error
    }

    /// The wire form.
    pub fn to_json(&self) -> Json {
        let mut object = Object::new();
        if let Some(syntax) = &self.0.syntax {
            object.insert("syntax", syntax.as_str());
        }
        if let Some(details) = &self.0.details {
            object.insert("details", details.as_str());
        }
        object.insert("error", &*self.0.tag);
        if let Some(errno) = self.0.os_error {
            object.insert("io-error", os_error_text(errno));
        }
        Json::Object(object)
    }

    /// Reads the wire form back, as clients do; a string is a bare tag.
    pub fn from_json(json: &Json) -> Option<Error> {
        let text = |name| json.get(name).and_then(Json::as_str).map(str::to_string);
        let tag = json.as_str().map(str::to_string).or_else(|| text("error"))?;
        Some(Error(Box::new(Inner {
            tag: Cow::Owned(tag),
            details: text("details"),
            syntax: text("syntax"),
            os_error: None,
        })))
    }
}

/// The C library's words for an error number.
pub fn os_error_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(syntax) = &self.0.syntax {
            write!(f, "syntax \"{syntax}\": ")?;
        }
        f.write_str(&self.0.tag)?;
        if let Some(details) = &self.0.details {
            write!(f, ": {details}")?;
        }
        if let Some(errno) = self.0.os_error {
            write!(f, " ({})", os_error_text(errno))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_and_text_forms() {
        let e = Error::syntax(&Json::Integer(1), "expected string");
        assert_eq!(
            e.to_json().to_string(),
            r#"{"syntax":"1","details":"expected string","error":"syntax error"}"#
        );
        assert_eq!(e.to_string(), "syntax \"1\": syntax error: expected string");
        assert_eq!(Error::from_json(&e.to_json()), Some(e));
        let e = Error::tag_only("timed out");
        assert_eq!(e.to_json().to_string(), r#"{"error":"timed out"}"#);
        let e = Error::io(&std::io::Error::from_raw_os_error(2), "open");
        assert_eq!(e.to_string(), "I/O error: open (No such file or directory)");
    }
}
