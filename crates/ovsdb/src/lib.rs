//! The database, without sockets.
