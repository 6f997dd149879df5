//! The daemons.

pub mod ovsdb_server;
