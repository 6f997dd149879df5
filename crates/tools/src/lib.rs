//! The command-line tools as libraries.

pub mod appctl;
pub mod client;
pub mod dbctl;
pub mod io;
pub mod table;
pub mod vsctl;
