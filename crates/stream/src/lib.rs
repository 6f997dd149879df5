//! Streams, JSON-RPC, unixctl, reactor.

pub mod blocking;
pub mod jsonrpc;
pub mod reactor;
pub mod reconnect;
pub mod session;
pub mod stream;
pub mod unixctl;
