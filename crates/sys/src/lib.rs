//! The one door to system calls.
#![allow(unsafe_code)]

pub mod af_packet;
pub mod bpf;
pub mod cpu;
pub mod daemon;
pub mod dirs;
pub mod errno;
pub mod ethtool;
pub mod eventfd;
pub mod fd_socket;
pub mod file_system;
pub mod guest_memory;
pub mod lockfile;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod pidfile;
pub mod process;
pub mod random;
pub mod routes;
pub mod rtnetlink;
pub mod seqpacket;
pub mod signal;
pub mod socket;
pub mod tc;
pub mod tun;
pub mod xdp;
