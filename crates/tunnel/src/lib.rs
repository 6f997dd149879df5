//! Encapsulations, routes, neighbours: what the user-space datapath needs to be a tunnel's end by itself.
//!
//! [`config`] reads a tunnel's options, [`device`] makes tunnel ports devices like others. Where an outer packet goes is
//! the matter of [`route`] (routes of users and of the kernel), [`neigh`] (who has which address) and [`ports`] (which
//! outer packets that come in are ours), together the [`World`] of a daemon. [`build`] prepares the headers that a flow's
//! packets get, [`push`] puts them in front of one packet, [`pop`] takes them off. [`pmtu`] answers who sends what does not fit.
//!
//! ```text
//!   translation: route ─► neighbour ─► build ─► Action::TnlPush{header}      ports ─► Action::TnlPop
//!   datapath:                                   push(packet, header)          pop(packet) ─► recirculate
//! ```
//!
//! The world is shared: translation reads it on datapath threads, commands and the main loop change it. Whoever changes
//! it bumps [`World::changed`], upon which flows are translated anew.

pub mod appctl;
pub mod build;
pub mod config;
pub mod device;
pub mod kernel;
pub mod kind;
pub mod neigh;
pub mod pmtu;
pub mod pop;
pub mod ports;
pub mod push;
pub mod route;
pub mod world;

pub use config::{OrFlow, PacketTypeMode, TunnelConfig};
pub use kind::Kind;
pub use world::World;

use std::net::{IpAddr, Ipv6Addr};

/// An address as keys have it: IPv4 mapped into IPv6.
pub fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The other way: mapped addresses become IPv4 again.
pub fn unmapped(ip: Ipv6Addr) -> IpAddr {
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}
