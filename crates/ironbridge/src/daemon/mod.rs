//! The daemons: their loops and command lines.

pub mod ovsdb_server;
pub mod vswitchd;
