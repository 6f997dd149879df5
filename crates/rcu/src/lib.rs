//! Published snapshots and the lock-free code.
