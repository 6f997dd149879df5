//! The numbers of a port: one type each, so that they are never mixed up.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An OpenFlow port number of one bridge, 16 bits as in OpenFlow 1.0 and within Open vSwitch. OpenFlow 1.1+
/// carries 32 bits; its reserved range maps onto ours (`openflow` does that).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct OfPort(pub u16);

impl OfPort {
    /// First number past the ordinary ports.
    pub const MAX: OfPort = OfPort(0xff00);
    /// "No action-set output port" (`actset_output` unset).
    pub const UNSET: OfPort = OfPort(0xfff7);
    /// Back out where it came from.
    pub const IN_PORT: OfPort = OfPort(0xfff8);
    /// Submit to the first table (packet-out only).
    pub const TABLE: OfPort = OfPort(0xfff9);
    /// Like an ordinary Ethernet switch.
    pub const NORMAL: OfPort = OfPort(0xfffa);
    /// All ports but the one of entry and those with flooding off.
    pub const FLOOD: OfPort = OfPort(0xfffb);
    /// All ports but the one of entry.
    pub const ALL: OfPort = OfPort(0xfffc);
    /// The controllers.
    pub const CONTROLLER: OfPort = OfPort(0xfffd);
    /// The bridge's own port.
    pub const LOCAL: OfPort = OfPort(0xfffe);
    /// No port.
    pub const NONE: OfPort = OfPort(0xffff);
}

impl fmt::Debug for OfPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of{}", self.0)
    }
}

/// A datapath's port number: 32 bits, shared by all bridges on that datapath.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct OdpPort(pub u32);

impl OdpPort {
    /// The datapath's own port.
    pub const LOCAL: OdpPort = OdpPort(0);
    /// No port.
    pub const NONE: OdpPort = OdpPort(u32::MAX);
}

impl fmt::Debug for OdpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "odp{}", self.0)
    }
}

impl fmt::Display for OdpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
