//! The numbers of a port: one type each, so that they are never mixed up.

use std::collections::HashMap;
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

impl OfPort {
    const RESERVED: [(OfPort, &'static str); 10] = [
        (OfPort::IN_PORT, "IN_PORT"),
        (OfPort::TABLE, "TABLE"),
        (OfPort::NORMAL, "NORMAL"),
        (OfPort::FLOOD, "FLOOD"),
        (OfPort::ALL, "ALL"),
        (OfPort::CONTROLLER, "CONTROLLER"),
        (OfPort::LOCAL, "LOCAL"),
        (OfPort::NONE, "ANY"),
        (OfPort::UNSET, "UNSET"),
        (OfPort::NONE, "NONE"),
    ];

    /// `LOCAL`, `NORMAL`, ... for reserved numbers.
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::RESERVED.iter().find(|r| r.0 == self).map(|r| r.1)
    }
    /// The reserved number of that name, in upper or lower case.
    pub fn by_reserved_name(name: &str) -> Option<OfPort> {
        Self::RESERVED.iter().find(|r| r.1.eq_ignore_ascii_case(name)).map(|r| r.0)
    }
}

impl fmt::Display for OfPort {
    /// The reserved name, or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_name() {
            Some(n) => f.write_str(n),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

/// Names of a bridge's ports, for texts.
#[derive(Clone, Debug, Default)]
pub struct PortMap {
    names: HashMap<OfPort, String>,
    ports: HashMap<String, Option<OfPort>>,
}

impl PortMap {
    /// Adds a port. A name that two ports have names neither of them, but both still print by it.
    pub fn insert(&mut self, port: OfPort, name: &str) {
        if let Some(old) = self.names.insert(port, name.to_owned()) {
            self.ports.remove(&old);
        }
        self.ports
            .entry(name.to_owned())
            .and_modify(|p| {
                if *p != Some(port) {
                    *p = None;
                }
            })
            .or_insert(Some(port));
    }
    /// A port's name.
    pub fn name(&self, port: OfPort) -> Option<&str> {
        self.names.get(&port).map(String::as_str)
    }
    /// The one port of that name.
    pub fn port(&self, name: &str) -> Option<OfPort> {
        self.ports.get(name).copied().flatten()
    }
    /// No ports.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(OfPort::NONE.to_string(), "ANY");
        assert_eq!(OfPort(7).to_string(), "7");
        assert_eq!(OfPort::by_reserved_name("in_port"), Some(OfPort::IN_PORT));
        let mut m = PortMap::default();
        m.insert(OfPort(1), "a");
        m.insert(OfPort(2), "a");
        assert_eq!((m.port("a"), m.name(OfPort(2))), (None, Some("a")));
    }
}
