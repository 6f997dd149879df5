//! Streams, JSON-RPC, unixctl, reactor.
