//! The daemons: their loops and command lines. Each also runs as a thread of another program, under a [`stop::Stop`].

pub mod datapath;
pub mod ovsdb_server;
pub mod stop;
pub mod vswitchd;
