//! OpenFlow 1.0 to 1.5 with the Nicira and ONF extensions: wire and text.
//!
//! The types ([`message`], [`action`], [`error`]) know no version. Everything else converts: bytes to types and
//! back, text to types and back. Nothing here does I/O.

pub mod action;
pub mod error;
pub mod field;
pub mod message;
