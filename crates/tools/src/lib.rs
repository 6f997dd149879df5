//! The command-line tools as libraries.
