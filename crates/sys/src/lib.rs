//! The one door to system calls.
#![allow(unsafe_code)]

pub mod errno;
pub mod eventfd;
pub mod random;
