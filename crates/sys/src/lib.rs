//! The one door to system calls.
