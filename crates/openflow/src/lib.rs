//! OpenFlow 1.0 to 1.5 with the Nicira and ONF extensions: wire and text.
//!
//! The types ([`message`], [`action`], [`error`]) know no version. Everything else converts: bytes to types and
//! back, text to types and back. Nothing here does I/O.

pub mod action;
pub mod action_check;
pub mod action_decode;
pub mod action_encode;
pub mod action_format;
pub mod action_parse;
pub mod continuation_text;
pub mod decode;
pub mod encode;
pub mod error;
pub mod flow_text;
pub mod group_text;
mod group_wire;
mod learn_text;
mod learn_wire;
pub mod match_wire;
pub mod message;
pub mod names;
pub mod oxm;
mod packet_text;
pub mod ports;
pub mod print;
mod print_stats;
pub mod raw;
pub mod session;
mod stats_decode;
mod stats_encode;
mod table_fields;
mod text_util;
mod value;
pub mod wire;

pub use text_util::{c_integer, key_values};
