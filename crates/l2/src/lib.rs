//! Layer-2 protocol machines.
