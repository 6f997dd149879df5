//! The database, without sockets.
//!
//! Atoms, data and schemas; tables and transactions; monitors; the log on disk; the server as a machine that takes
//! messages and gives messages. RFC 7047 is the specification; ovsdb(7) and ovsdb-server(7) say what goes beyond it.
//!
//! Nothing here does I/O but [`log`], which reads and appends database files.

pub mod atom;
#[doc(hidden)]
pub mod audit;
pub mod cell;
pub mod condition;
pub mod database;
pub mod datum;
pub mod error;
pub mod exec;
pub mod idl;
pub mod log;
pub mod monitor;
pub mod mutation;
mod pack_json;
pub mod parser;
pub mod rbac;
pub mod row;
pub mod row_map;
pub mod schema;
pub mod schemas;
pub mod server;
pub mod table;
pub mod text;
pub mod txn;
pub mod types;
pub mod uuid;

pub use atom::{Atom, AtomicType, SymbolTable};
pub use cell::{Cell, OwnedCell};
pub use datum::Datum;
pub use error::{Error, Result};
pub use schema::{ColumnSchema, Schema, TableSchema};
pub use types::{BaseType, ColumnType, RefTable, RefType, UNLIMITED};
pub use uuid::Uuid;
