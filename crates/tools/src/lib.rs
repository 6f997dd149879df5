//! The command-line tools as libraries.

pub mod adopt;
pub mod appctl;
pub mod captures;
pub mod client;
pub mod dbctl;
pub mod dpctl;
pub mod io;
pub mod ofctl;
pub mod ovs_ctl;
pub mod ovsdb_client;
pub mod ovsdb_tool;
pub mod pki;
pub mod port;
pub mod save;
pub mod table;
pub mod tcpdump;
pub mod testcontroller;
pub mod vsctl;
pub mod vtep;
