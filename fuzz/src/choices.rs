//! Structured inputs: bytes as a series of choices.
//!
//! Mutated JSON is mostly no JSON. A target that wants well-formed requests reads its input as choices, so that each
//! mutation of the bytes is another well-formed request, near the one before.

use ib_base::json::{Json, Object};

/// Choices from bytes; zeros when they have run out.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Over an input.
    pub fn new(input: &'a [u8]) -> Choices<'a> {
        Choices(input)
    }
    /// Whether there are bytes left.
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }
    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
    /// One of a list.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
    /// Everything left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An object of pairs.
pub fn object<const N: usize>(pairs: [(&str, Json); N]) -> Json {
    let mut o = Object::new();
    for (name, value) in pairs {
        o.insert(name, value);
    }
    Json::Object(o)
}

/// An array.
pub fn array(items: impl IntoIterator<Item = Json>) -> Json {
    Json::Array(items.into_iter().collect())
}

/// A string.
pub fn s(text: &str) -> Json {
    Json::from(text)
}
