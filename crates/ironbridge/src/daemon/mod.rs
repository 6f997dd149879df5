<<<<<<< HEAD
//! The daemons.

pub mod ovsdb_server;
=======
//! The daemons' loops.

pub mod vswitchd;
>>>>>>> 7e66183 (wip)
