//! The command-line tools as libraries.

pub mod appctl;
pub mod io;
