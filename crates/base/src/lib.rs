//! Clock, log, counters, JSON and other ground that every crate stands on.

pub mod coverage;
pub mod errno;
pub mod getopt;
pub mod json;
pub mod linger;
pub mod memory;
pub mod queue;
pub mod replay;
pub mod rng;
pub mod time;
pub mod vlog;
