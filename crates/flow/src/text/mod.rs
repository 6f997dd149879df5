//! Texts of values, matches and keys.

pub mod value;

pub use value::hex;
