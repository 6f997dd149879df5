//! Text to values.
//!
//! Two layers. [`Cursor`] is a recursive-descent parser over a slice: it takes one value from the slice's front in
//! a single pass, and says where it stopped, that the slice ended too early, or what is wrong. [`Parser`] makes a push
//! parser of it for streams, where texts follow each other without a separator: it buffers, tries the cursor
//! whenever bytes arrive that could complete a value, and between tries only tracks brackets and quotes, so
//! that a large message arriving in small pieces costs linear time. Errors surface as soon as a try sees
//! them; tries on unfinished input happen each time the buffer has doubled.

use super::{Json, Object};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 1000;

/// What is wrong with a text, and where; all three counts start at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Line feeds before the error.
    pub line: usize,
    /// Bytes between the last line feed and the error.
    pub column: usize,
    /// Bytes before the error.
    pub byte: usize,
    /// The fault.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}, byte {}: {}", self.line, self.column, self.byte, self.message)
    }
}

impl std::error::Error for JsonError {}

pub(super) enum Stop {
    /// The slice ended inside the value; the text is the fault if no more bytes come.
    Incomplete(&'static str),
    /// The byte at this offset is at fault.
    Bad(usize, String),
}

use Stop::{Bad, Incomplete};

pub(super) type Step<T> = Result<T, Stop>;

pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) pos: usize,
    /// True if no bytes follow the slice, so that a number or keyword at its end is complete.
    last: bool,
    /// Strings seen before, to be shared rather than made again; none in ordinary parsing.
    seen: Option<HashSet<Arc<str>>>,
}

/// Longer strings hardly repeat.
const SHARE_BYTES: usize = 64;
/// So many different strings are remembered.
const SHARE_STRINGS: usize = 1 << 17;

/// Words have at most so many bytes.
const WORD_BYTES: usize = 24;
/// So many of them are remembered.
const WORD_SLOTS: usize = 256;

thread_local! {
    /// Words seen lately, by a hash of them.
    static WORDS: RefCell<[Option<Arc<str>>; WORD_SLOTS]> = const { RefCell::new([const { None }; WORD_SLOTS]) };
}

const END: &str = "unexpected end of input";

impl<'a> Cursor<'a> {
    /// A cursor over a whole text that shares strings equal to some `seen` before.
    pub(super) fn sharing(text: &'a [u8], seen: HashSet<Arc<str>>) -> Cursor<'a> {
        Cursor { text, pos: 0, last: true, seen: Some(seen) }
    }

    /// The strings seen.
    pub(super) fn into_seen(self) -> HashSet<Arc<str>> {
        self.seen.unwrap_or_default()
    }

    /// What a failure means at this place of the text.
    pub(super) fn error(&self, stop: Stop) -> JsonError {
        match stop {
            Bad(at, message) => error_at(self.text, at, 0, message),
            Incomplete(message) => error_at(self.text, self.text.len(), 0, message.to_string()),
        }
    }

    pub(super) fn peek(&mut self) -> Step<u8> {
        while let Some(&b) = self.text.get(self.pos) {
            match b {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                _ => return Ok(b),
            }
        }
        Err(Incomplete(END))
    }

    /// Consumes a token that cannot stand here, to blame what is wrong with it first and its position else.
    fn reject<T>(&mut self, message: &str) -> Step<T> {
        let b = self.peek()?;
        let at = match b {
            b'"' => {
                self.string()?;
                self.pos - 1
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                self.pos
            }
            b'a'..=b'z' => {
                self.keyword()?;
                self.pos
            }
            b'[' | b']' | b'{' | b'}' | b',' | b':' => self.pos,
            _ => return Err(self.invalid_character(b)),
        };
        Err(Bad(at, message.to_string()))
    }

    fn invalid_character(&self, b: u8) -> Stop {
        let message = if b.is_ascii_graphic() {
            format!("invalid character '{}'", char::from(b))
        } else {
            format!("invalid character U+{b:04x}")
        };
        Bad(self.pos, message)
    }

    fn top(&mut self) -> Step<Json> {
        match self.peek()? {
            b'{' | b'[' => self.value(0),
            _ => self.reject("syntax error at beginning of input"),
        }
    }

    pub(super) fn value(&mut self, depth: usize) -> Step<Json> {
        match self.peek()? {
            b'"' => Ok(Json::String(self.word()?)),
            b'-' | b'0'..=b'9' => self.number(),
            b'a'..=b'z' => self.keyword(),
            b'[' => self.array(depth + 1),
            b'{' => self.object(depth + 1),
            _ => self.reject("syntax error expecting value"),
        }
    }

    fn enter(&mut self, depth: usize) -> Step<()> {
        if depth > MAX_DEPTH {
            return Err(Bad(self.pos, format!("input exceeds maximum nesting depth {MAX_DEPTH}")));
        }
        self.pos += 1;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Step<Json> {
        self.enter(depth)?;
        let mut elements = Vec::new();
        if self.peek()? == b']' {
            self.pos += 1;
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            match self.peek()? {
                b',' => self.pos += 1,
                b']' => {
                    self.pos += 1;
                    return Ok(Json::Array(elements));
                }
                _ => return self.reject("syntax error expecting ']' or ','"),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Step<Json> {
        self.enter(depth)?;
        let mut object = Object::new();
        if self.peek()? == b'}' {
            self.pos += 1;
            return Ok(Json::Object(object));
        }
        loop {
            if self.peek()? != b'"' {
                return self.reject("syntax error parsing object expecting string");
            }
            let name = self.word()?;
            if self.peek()? != b':' {
                return self.reject("syntax error parsing object expecting ':'");
            }
            self.pos += 1;
            let value = self.value(depth)?;
            object.insert(name, value);
            match self.peek()? {
                b',' => self.pos += 1,
                b'}' => {
                    self.pos += 1;
                    return Ok(Json::Object(object));
                }
                _ => return self.reject("syntax error expecting '}' or ','"),
            }
        }
    }

    fn keyword(&mut self) -> Step<Json> {
        let start = self.pos;
        while self.text.get(self.pos).is_some_and(u8::is_ascii_lowercase) {
            self.pos += 1;
        }
        if self.pos == self.text.len() && !self.last {
            return Err(Incomplete(END));
        }
        match &self.text[start..self.pos] {
            b"null" => Ok(Json::Null),
            b"true" => Ok(Json::Bool(true)),
            b"false" => Ok(Json::Bool(false)),
            other => Err(Bad(self.pos, format!("invalid keyword '{}'", String::from_utf8_lossy(other)))),
        }
    }

    fn number(&mut self) -> Step<Json> {
        let start = self.pos;
        while self
            .text
            .get(self.pos)
            .is_some_and(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        {
            self.pos += 1;
        }
        if self.pos == self.text.len() && !self.last {
            return Err(Incomplete(END));
        }
        parse_number(&self.text[start..self.pos]).map_err(|m| Bad(self.pos, m.to_string()))
    }

    pub(super) fn string(&mut self) -> Step<Arc<str>> {
        let s = self.str()?;
        match &mut self.seen {
            Some(seen) if s.len() <= SHARE_BYTES => {
                if let Some(shared) = seen.get(&*s) {
                    return Ok(shared.clone());
                }
                let new: Arc<str> = s.into();
                if seen.len() < SHARE_STRINGS {
                    seen.insert(new.clone());
                }
                Ok(new)
            }
            _ => Ok(s.into()),
        }
    }

    /// As [`Cursor::string`], sharing words that come again and again: names of members, methods, tables, columns.
    fn word(&mut self) -> Step<Arc<str>> {
        let start = self.pos + 1;
        let text = &self.text[start..self.text.len().min(start + WORD_BYTES + 1)];
        let n = text
            .iter()
            .take_while(|b| b.is_ascii_lowercase() || **b == b'_' || b.is_ascii_uppercase())
            .count();
        if n == 0 || text.get(n) != Some(&b'"') || self.seen.is_some() {
            return self.string();
        }
        let word = &text[..n];
        self.pos = start + n + 1;
        WORDS.with_borrow_mut(|words| {
            let hash =
                usize::from(word[0]) * 31 + usize::from(word[n / 2]) * 7 + usize::from(word[n - 1]) + n * 61;
            let slot = &mut words[hash % WORD_SLOTS];
            match slot {
                Some(known) if known.as_bytes() == word => Ok(known.clone()),
                _ => {
                    let new: Arc<str> = std::str::from_utf8(word).unwrap_or_default().into();
                    *slot = Some(new.clone());
                    Ok(new)
                }
            }
        })
    }

    /// The string at a quotation mark; it is in the text itself unless it has escapes.
    pub(super) fn str(&mut self) -> Step<Cow<'a, str>> {
        match self.bytes()? {
            Cow::Borrowed(raw) => std::str::from_utf8(raw).map(Cow::Borrowed).map_err(|_| self.not_utf8()),
            Cow::Owned(plain) => String::from_utf8(plain).map(Cow::Owned).map_err(|_| self.not_utf8()),
        }
    }

    fn not_utf8(&self) -> Stop {
        Bad(self.pos - 1, "invalid UTF-8 sequence in quoted string".to_string())
    }

    /// The UTF-8 of the string at a quotation mark; it is in the text itself unless it has escapes.
    pub(super) fn bytes(&mut self) -> Step<Cow<'a, [u8]>> {
        let start = self.pos + 1;
        let mut i = start;
        let mut escaped = false;
        let mut ascii = true;
        loop {
            let (next, plain) = skip_plain(self.text, i);
            i = next;
            ascii &= plain;
            match self.text.get(i) {
                None => return Err(Incomplete("unexpected end of input in quoted string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    i += 2;
                }
                Some(&b) if b < 0x20 => {
                    return Err(Bad(i, format!("U+{b:04X} must be escaped in quoted string")));
                }
                Some(&b) => {
                    ascii &= b < 0x80;
                    i += 1;
                }
            }
        }
        self.pos = i + 1;
        let raw = &self.text[start..i];
        if escaped {
            let mut plain = Vec::with_capacity(raw.len());
            unescape_bytes(raw, &mut plain).map_err(|m| Bad(i, m))?;
            return match std::str::from_utf8(&plain) {
                Ok(_) => Ok(Cow::Owned(plain)),
                Err(_) => Err(self.not_utf8()),
            };
        }
        if !ascii && std::str::from_utf8(raw).is_err() {
            return Err(self.not_utf8());
        }
        Ok(Cow::Borrowed(raw))
    }
}

/// Goes on from `i` over bytes that mean themselves in a string, eight at a time: where it stopped, and whether all were ASCII.
pub(super) fn skip_plain(text: &[u8], mut i: usize) -> (usize, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // In each byte the top bit if it is zero; above the lowest such byte perhaps in others.
    let zeros = |w: u64| w.wrapping_sub(ONES) & !w & HIGH;
    let mut high = 0;
    while let Some(chunk) = text.get(i..).and_then(<[u8]>::first_chunk::<8>) {
        let w = u64::from_le_bytes(*chunk);
        let control = w.wrapping_sub(ONES * 0x20) & !w & HIGH;
        let is = |b: u8| zeros(w ^ (ONES * u64::from(b)));
        let special = is(b'"') | is(b'\\') | control;
        if special != 0 {
            let before = (special & special.wrapping_neg()) - 1;
            i += (special.trailing_zeros() / 8) as usize;
            high |= w & HIGH & before;
            break;
        }
        high |= w;
        i += 8;
    }
    (i, high & HIGH == 0)
}

/// The value of a token made of digits, sign, point and exponent characters.
fn parse_number(token: &[u8]) -> Result<Json, &'static str> {
    let mut rest = token;
    let next = |rest: &mut &[u8]| -> Option<u8> {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        Some(b)
    };
    let digit = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
    let negative = rest.first() == Some(&b'-');
    if negative {
        next(&mut rest);
    }
    if !digit(rest) {
        return Err("'-' must be followed by digit");
    }
    if rest[0] == b'0' && digit(&rest[1..]) {
        return Err("leading zeros not allowed");
    }
    // The number is significand × 10^pow10, exactly unless `inexact`.
    let mut significand: u64 = 0;
    let mut pow10: i64 = 0;
    let mut inexact = false;
    let mut take = |b: u8, fraction: bool, pow10: &mut i64| {
        let grown = significand.checked_mul(10).and_then(|s| s.checked_add(u64::from(b - b'0')));
        match grown {
            Some(s) if !inexact => {
                significand = s;
                *pow10 -= i64::from(fraction);
            }
            _ => {
                inexact |= b != b'0';
                *pow10 += i64::from(!fraction);
            }
        }
    };
    while digit(rest) {
        take(next(&mut rest).unwrap_or(b'0'), false, &mut pow10);
    }
    if rest.first() == Some(&b'.') {
        next(&mut rest);
        if !digit(rest) {
            return Err("decimal point must be followed by digit");
        }
        while digit(rest) {
            take(next(&mut rest).unwrap_or(b'0'), true, &mut pow10);
        }
    }
    if matches!(rest.first(), Some(b'e' | b'E')) {
        next(&mut rest);
        let minus = rest.first() == Some(&b'-');
        if matches!(rest.first(), Some(b'+' | b'-')) {
            next(&mut rest);
        }
        if !digit(rest) {
            return Err("exponent must contain at least one digit");
        }
        let mut exponent: i64 = 0;
        while digit(rest) {
            let b = next(&mut rest).unwrap_or(b'0');
            exponent = exponent.saturating_mul(10).saturating_add(i64::from(b - b'0')).min(1_000_000_000);
        }
        pow10 += if minus { -exponent } else { exponent };
    }
    if !rest.is_empty() {
        return Err("syntax error in number");
    }
    if significand == 0 && !inexact {
        return Ok(Json::Integer(0));
    }
    if !inexact {
        while pow10 > 0 {
            let Some(s) = significand.checked_mul(10) else { break };
            significand = s;
            pow10 -= 1;
        }
        while pow10 < 0 && significand.is_multiple_of(10) {
            significand /= 10;
            pow10 += 1;
        }
        if pow10 == 0 {
            if negative && significand <= i64::MIN.unsigned_abs() {
                return Ok(Json::Integer(0i64.wrapping_sub_unsigned(significand)));
            }
            if let (false, Ok(i)) = (negative, i64::try_from(significand)) {
                return Ok(Json::Integer(i));
            }
        }
    }
    let text = std::str::from_utf8(token).map_err(|_| "syntax error in number")?;
    let r: f64 = text.parse().map_err(|_| "syntax error in number")?;
    if !r.is_finite() || r.is_subnormal() {
        return Err("number outside valid range");
    }
    Ok(Json::Real(r))
}

/// Replaces the escapes of the inside of a JSON string (without its quotation marks) by what they stand for.
pub fn unescape(inside: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(inside.len());
    unescape_bytes(inside.as_bytes(), &mut out)?;
    String::from_utf8(out).map_err(|_| "invalid UTF-8 sequence in quoted string".to_string())
}

fn unescape_bytes(inside: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut i = 0;
    while i < inside.len() {
        let b = inside[i];
        i += 1;
        if b == b'"' {
            return Err("quoted string may not include unescaped \"".to_string());
        }
        if b < 0x20 {
            return Err(format!("U+{b:04X} must be escaped in quoted string"));
        }
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let Some(&e) = inside.get(i) else {
            return Err("quoted string may not end with backslash".to_string());
        };
        i += 1;
        match e {
            b'"' | b'\\' | b'/' => out.push(e),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = hex4(&inside[i..])?;
                i += 4;
                if (0xd800..0xdc00).contains(&code) {
                    if inside.get(i) != Some(&b'\\') || inside.get(i + 1) != Some(&b'u') {
                        return Err("malformed escaped surrogate pair".to_string());
                    }
                    let low = hex4(&inside[i + 2..])?;
                    i += 6;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(
                            "second half of escaped surrogate pair is not trailing surrogate".to_string()
                        );
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                if code == 0 {
                    return Err("null bytes not supported in quoted strings".to_string());
                }
                let Some(c) = char::from_u32(code) else {
                    return Err(format!("\\u{code:04x} is a trailing surrogate without a leading one"));
                };
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => return Err(format!("bad escape \\{}", char::from(other))),
        }
    }
    Ok(())
}

fn hex4(digits: &[u8]) -> Result<u32, String> {
    let Some(digits) = digits.get(..4) else {
        return Err("quoted string ends within \\u escape".to_string());
    };
    digits.iter().try_fold(0, |code, &b| match char::from(b).to_digit(16) {
        Some(d) => Ok(code * 16 + d),
        None => Err("malformed \\u escape".to_string()),
    })
}

fn error_at(text: &[u8], byte: usize, extra: usize, message: String) -> JsonError {
    let before = &text[..byte.min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count();
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count();
    JsonError { line, column: column + extra, byte: byte + extra, message }
}

pub(super) fn parse_text(text: &[u8]) -> Result<Json, JsonError> {
    let mut cursor = Cursor { text, pos: 0, last: true, seen: None };
    let parsed = cursor.top().and_then(|json| match cursor.peek() {
        Err(_) => Ok(json),
        Ok(_) => cursor.reject("trailing garbage at end of input"),
    });
    match parsed {
        Ok(json) => Ok(json),
        Err(Bad(at, message)) => Err(error_at(text, at, 0, message)),
        Err(Incomplete(..)) if text.iter().all(u8::is_ascii_whitespace) => {
            Err(error_at(text, text.len(), 0, "empty input stream".to_string()))
        }
        Err(Incomplete(message)) => {
            // A number or keyword that the end of input completes is as if followed by a space, which counts.
            let token = text.last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let extra = usize::from(token && message == END);
            Err(error_at(text, text.len(), extra, message.to_string()))
        }
    }
}

/// A push parser for a stream of texts.
///
/// Feed bytes as they come and take values out until there is none. After an error the stream has lost its framing
/// and every later call returns the same error.
#[derive(Debug, Default)]
pub struct Parser {
    buf: Vec<u8>,
    /// Bytes of `buf` that earlier values took.
    start: usize,
    /// Where the bracket scan continues, and its state.
    scan: usize,
    depth: usize,
    in_string: bool,
    escape: bool,
    /// Do not try an incomplete buffer again before it has this size.
    retry: usize,
    limit: Option<usize>,
    error: Option<JsonError>,
}

impl Parser {
    /// A parser without a limit on the size of one text.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// A parser that fails on a text of more than `limit` bytes.
    pub fn with_limit(limit: usize) -> Parser {
        Parser { limit: Some(limit), ..Parser::default() }
    }

    /// Appends bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        if self.start > 0 && (self.start == self.buf.len() || self.start > 64 * 1024) {
            self.buf.drain(..self.start);
            self.scan -= self.start;
            self.start = 0;
        }
        if self.buf.is_empty() && self.buf.capacity() > 1024 * 1024 {
            self.buf = Vec::new();
        }
        self.buf.extend_from_slice(bytes);
    }

    /// True if bytes of an unfinished text (more than white space) are buffered.
    pub fn is_partial(&self) -> bool {
        self.buf[self.start..].iter().any(|b| !b.is_ascii_whitespace())
    }

    /// The number of bytes buffered and not yet returned as part of a value.
    pub fn buffered_bytes(&self) -> usize {
        self.buf.len() - self.start
    }

    /// The next complete value, `None` if more bytes are needed first.
    pub fn next_value(&mut self) -> Result<Option<Json>, JsonError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let result = self.try_next();
        if let Err(error) = &result {
            self.error = Some(error.clone());
            self.buf = Vec::new();
            self.start = 0;
            self.scan = 0;
        }
        result
    }

    fn try_next(&mut self) -> Result<Option<Json>, JsonError> {
        while self.buf.get(self.start).is_some_and(u8::is_ascii_whitespace) {
            self.start += 1;
        }
        self.scan = self.scan.max(self.start);
        let size = self.buf.len() - self.start;
        if size == 0 {
            return Ok(None);
        }
        // First sight of a text: it is likely complete. Later: only brackets tell, except for the rare retry
        // whose purpose is to see errors early. What does not begin with a bracket is an error as soon as it is a value;
        // a short one is looked at each time.
        let bare = !matches!(self.buf[self.start], b'{' | b'[') && size < 4096;
        if !bare && size < self.retry && !self.scan_complete() {
            return self.check_limit(size);
        }
        let text = &self.buf[self.start..];
        let mut cursor = Cursor { text, pos: 0, last: false, seen: None };
        match cursor.top() {
            Ok(json) => {
                let taken = cursor.pos;
                self.start += taken;
                self.scan = self.start;
                self.depth = 0;
                self.in_string = false;
                self.escape = false;
                self.retry = 0;
                Ok(Some(json))
            }
            Err(Incomplete(..)) => {
                self.retry = size.saturating_mul(2).max(256);
                self.scan_complete();
                self.check_limit(size)
            }
            Err(Bad(at, message)) => Err(error_at(text, at, 0, message)),
        }
    }

    fn check_limit(&self, size: usize) -> Result<Option<Json>, JsonError> {
        match self.limit {
            Some(limit) if size > limit => {
                let text = &self.buf[self.start..];
                Err(error_at(text, limit, 0, format!("input exceeds maximum size {limit}")))
            }
            _ => Ok(None),
        }
    }

    /// Continues the bracket scan; true if it reaches the end of the outermost value.
    fn scan_complete(&mut self) -> bool {
        while let Some(&b) = self.buf.get(self.scan) {
            self.scan += 1;
            if self.escape {
                self.escape = false;
            } else if self.in_string {
                match b {
                    b'\\' => self.escape = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match b {
                    b'"' => self.in_string = true,
                    b'[' | b'{' => self.depth += 1,
                    b']' | b'}' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return true;
                        }
                    }
                    _ => {}
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Json::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn bare_values_in_parts_are_refused() {
        for parts in [["5", "\"x\""], ["\"x", "\""], ["nul", "l "], ["\"\\ud8", "00\""]] {
            let mut parser = Parser::new();
            parser.feed(parts[0].as_bytes());
            assert_eq!(parser.next_value(), Ok(None), "{parts:?}");
            parser.feed(parts[1].as_bytes());
            assert!(parser.next_value().is_err(), "{parts:?}");
        }
    }

    #[test]
    fn errors_have_place_and_text() {
        for (text, expect) in [
            ("", "line 0, column 0, byte 0: empty input stream"),
            (" ", "line 0, column 1, byte 1: empty input stream"),
            ("{", "line 0, column 1, byte 1: unexpected end of input"),
            ("}", "line 0, column 0, byte 0: syntax error at beginning of input"),
            ("[1", "line 0, column 3, byte 3: unexpected end of input"),
            ("[1,", "line 0, column 3, byte 3: unexpected end of input"),
            ("[1,]", "line 0, column 3, byte 3: syntax error expecting value"),
            ("[1 2]", "line 0, column 4, byte 4: syntax error expecting ']' or ','"),
            ("{1", "line 0, column 2, byte 2: syntax error parsing object expecting string"),
            ("{\"a\"", "line 0, column 4, byte 4: unexpected end of input"),
            ("{\"a\":1", "line 0, column 7, byte 7: unexpected end of input"),
            ("{\"a\":1,}", "line 0, column 7, byte 7: syntax error parsing object expecting string"),
            ("{\"a\":1 \"b\"", "line 0, column 9, byte 9: syntax error expecting '}' or ','"),
            ("{\"a\" 1}", "line 0, column 6, byte 6: syntax error parsing object expecting ':'"),
            ("nul", "line 0, column 3, byte 3: invalid keyword 'nul'"),
            ("null", "line 0, column 4, byte 4: syntax error at beginning of input"),
            ("1", "line 0, column 1, byte 1: syntax error at beginning of input"),
            ("[] []", "line 0, column 3, byte 3: trailing garbage at end of input"),
            ("[] 1 2", "line 0, column 4, byte 4: trailing garbage at end of input"),
            ("[] \"x\"", "line 0, column 5, byte 5: trailing garbage at end of input"),
            ("[] x ", "line 0, column 4, byte 4: invalid keyword 'x'"),
            ("[] 01", "line 0, column 5, byte 5: leading zeros not allowed"),
            ("[] &", "line 0, column 3, byte 3: invalid character '&'"),
            ("[] \"x", "line 0, column 5, byte 5: unexpected end of input in quoted string"),
            ("01", "line 0, column 2, byte 2: leading zeros not allowed"),
            ("-", "line 0, column 1, byte 1: '-' must be followed by digit"),
            ("1.", "line 0, column 2, byte 2: decimal point must be followed by digit"),
            ("1e+", "line 0, column 3, byte 3: exponent must contain at least one digit"),
            ("1e400", "line 0, column 5, byte 5: number outside valid range"),
            ("[5e-324]", "line 0, column 7, byte 7: number outside valid range"),
            ("1e-400", "line 0, column 6, byte 6: syntax error at beginning of input"),
            ("\"abc", "line 0, column 4, byte 4: unexpected end of input in quoted string"),
            ("\"\\", "line 0, column 2, byte 2: unexpected end of input in quoted string"),
            ("\"\\x\"", "line 0, column 3, byte 3: bad escape \\x"),
            ("\"\\u12\"", "line 0, column 5, byte 5: quoted string ends within \\u escape"),
            ("\"\\u0000\"", "line 0, column 7, byte 7: null bytes not supported in quoted strings"),
            ("\"\\ud800\"", "line 0, column 7, byte 7: malformed escaped surrogate pair"),
            (
                "\"\\ud800\\u0041\"",
                "line 0, column 13, byte 13: second half of escaped surrogate pair is not trailing surrogate",
            ),
            ("\"\u{1}\"", "line 0, column 1, byte 1: U+0001 must be escaped in quoted string"),
            ("$", "line 0, column 0, byte 0: invalid character '$'"),
            ("[1 $", "line 0, column 3, byte 3: invalid character '$'"),
            ("[1,\n 2\n  x]", "line 2, column 3, byte 10: invalid keyword 'x'"),
            ("[1x]", "line 0, column 3, byte 3: invalid keyword 'x'"),
            ("[1.5.5]", "line 0, column 6, byte 6: syntax error in number"),
            ("[--1]", "line 0, column 4, byte 4: '-' must be followed by digit"),
            ("{\"a\":1]", "line 0, column 6, byte 6: syntax error expecting '}' or ','"),
            ("[\"a\"\"b\"]", "line 0, column 6, byte 6: syntax error expecting ']' or ','"),
        ] {
            assert_eq!(error(text), expect, "for {text}");
        }
        assert_eq!(
            error(&"[".repeat(1001)),
            "line 0, column 1000, byte 1000: input exceeds maximum nesting depth 1000"
        );
        assert!(Json::parse(&("[".repeat(1000) + &"]".repeat(1000))).is_ok());
        assert!(Json::parse_bytes(b"[\"\xff\"]").is_err());
    }

    #[test]
    fn numbers_are_integers_whenever_they_can_be() {
        for (text, expect) in [
            ("[1.0,1e3,100e-2,-0,-0.0,0e5,1E2]", "[1,1000,1,0,0,0,100]"),
            ("[9223372036854775807,9223372036854775808]", "[9223372036854775807,9.22337203685478e+18]"),
            ("[-9223372036854775808,-9223372036854775809]", "[-9223372036854775808,-9.22337203685478e+18]"),
            ("[1e17,1e20,1e-400,3.14159265358979323846]", "[100000000000000000,1e+20,0,3.14159265358979]"),
            ("[123456789012345678901234567890,1.50]", "[1.23456789012346e+29,1.5]"),
            ("[10000000000000000000000000e-20]", "[100000]"),
        ] {
            assert_eq!(Json::parse(text).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn escapes_are_resolved() {
        let json = Json::parse(r#"["\u00e9\u0001\/\b\f\n\r\t\\\"\ud834\udd1e"]"#).unwrap();
        assert_eq!(json.as_array().unwrap()[0].as_str(), Some("é\u{1}/\u{8}\u{c}\n\r\t\\\"𝄞"));
        assert_eq!(unescape("a\\").unwrap_err(), "quoted string may not end with backslash");
        assert_eq!(unescape("a\"").unwrap_err(), "quoted string may not include unescaped \"");
        assert_eq!(unescape("\\u12g4").unwrap_err(), "malformed \\u escape");
    }

    /// What ends a run of plain bytes is found wherever it stands.
    #[test]
    fn strings_of_every_length() {
        for n in 0..40 {
            for insert in ["", "\\n", "é", "\\u00e9", "\u{1}", "\u{ff}"] {
                for at in 0..=n {
                    let inside = format!("{}{insert}{}", "a".repeat(at), "b".repeat(n - at));
                    let text = format!("[\"{inside}\",1]");
                    let expect = inside.replace("\\n", "\n").replace("\\u00e9", "é");
                    match Json::parse(&text) {
                        Ok(json) => assert_eq!(json.as_array().unwrap()[0].as_str(), Some(&*expect)),
                        Err(e) => assert!(insert == "\u{1}" && e.byte == at + 2, "{text} {e}"),
                    }
                    let mut broken = text.clone().into_bytes();
                    broken[2 + at.min(n.saturating_sub(1))] = 0xff;
                    assert!(n == 0 || Json::parse_bytes(&broken).is_err());
                }
            }
        }
    }

    #[test]
    fn stream_of_texts_in_pieces_of_every_size() {
        let stream = r#" {"a":["]}",{"b":"\"}"}]}[1,2.5]  {"c":null}"#;
        for size in 1..=stream.len() {
            let mut parser = Parser::new();
            let mut got = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                parser.feed(piece);
                while let Some(json) = parser.next_value().unwrap() {
                    got.push(json.to_string());
                }
            }
            assert_eq!(got, [r#"{"a":["]}",{"b":"\"}"}]}"#, "[1,2.5]", r#"{"c":null}"#], "pieces of {size}");
            assert!(!parser.is_partial());
        }
    }

    #[test]
    fn stream_errors_stick_and_sizes_are_limited() {
        let mut parser = Parser::new();
        parser.feed(b"[1] x ");
        assert!(parser.next_value().unwrap().is_some());
        let error = parser.next_value().unwrap_err();
        parser.feed(b"[]");
        assert_eq!(parser.next_value().unwrap_err(), error);

        let mut parser = Parser::with_limit(100);
        parser.feed(b"[\"");
        let mut failed = false;
        for _ in 0..20 {
            parser.feed(b"aaaaaaaaaa");
            failed |= parser.next_value().is_err();
        }
        assert!(failed);
    }

    #[test]
    fn early_error_in_unfinished_text_is_seen() {
        let mut parser = Parser::new();
        parser.feed(b"{\"a\",");
        assert!(parser.next_value().is_err());
    }
}
