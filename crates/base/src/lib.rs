//! Clock, log, counters, JSON and other ground that every crate stands on.
pub mod json;
