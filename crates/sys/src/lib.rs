//! The one door to system calls.
#![allow(unsafe_code)]

pub mod af_packet;
pub mod errno;
pub mod ethtool;
pub mod eventfd;
pub mod netlink;
pub mod netns;
pub mod random;
pub mod rtnetlink;
pub mod tun;
