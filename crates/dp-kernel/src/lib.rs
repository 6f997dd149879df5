//! Datapaths that are not in this process: openvswitch.ko by generic netlink, or a process of our own by a socket.
//!
//! Both speak the messages of linux/openvswitch.h ([`message`]); a [`transport`] carries them, and [`provider`] makes a
//! [`Dpif`](ib_dpif::Dpif) of them. What the kernel lacks and a process of ours has is in [`control`] and [`exact`].

mod claim;
mod connections;
pub mod control;
mod ctnetlink;
pub mod exact;
pub mod genl;
mod machine_connections;
pub mod message;
pub mod provider;
pub mod serve;
pub mod transport;
mod tunnel_device;
pub mod unix;
mod upcalls;
pub mod wire;
