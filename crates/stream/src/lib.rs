//! Streams, JSON-RPC, unixctl, reactor; database replicas over them.

pub mod blocking;
pub mod jsonrpc;
pub mod reactor;
pub mod reconnect;
pub mod replica;
pub mod session;
pub mod stream;
pub mod tls;
pub mod unixctl;
