//! What carries the messages of [`crate::message`]: generic netlink to the kernel, or a socket to a datapath in another process.
//!
//! [`crate::provider`] is written against [`Transport`] and knows neither. A transport does one request at a time for each
//! caller and may be called from any thread; what it returns is the peer's bytes, unchecked.

use std::io;
use std::os::fd::RawFd;

/// Families of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `ovs_datapath`
    Datapath,
    /// `ovs_vport`
    Vport,
    /// `ovs_flow`
    Flow,
    /// `ovs_packet`
    Packet,
    /// `ovs_meter`
    Meter,
    /// `ovs_ct_limit`
    CtLimit,
    /// What only a datapath of our own has ([`crate::control`]); the kernel answers `EOPNOTSUPP`.
    Control,
}

impl Family {
    /// All, in the order of their numbers on transports that number them by themselves.
    pub const ALL: [Family; 7] = [
        Family::Datapath,
        Family::Vport,
        Family::Flow,
        Family::Packet,
        Family::Meter,
        Family::CtLimit,
        Family::Control,
    ];

    /// Version of its messages.
    pub fn version(self) -> u8 {
        if self == Family::Datapath { 2 } else { 1 }
    }
}

/// A way to one datapath provider. Payloads begin with the generic netlink header and the datapath
/// ([`crate::message::Header`]), attributes follow.
pub trait Transport: Send + Sync {
    /// Whether the peer is of our own kind: keys travel exactly, and [`Family::Control`] is understood.
    fn is_own(&self) -> bool {
        false
    }
    /// Sends one request. With `F_ECHO` in `flags` (a netlink header's), or for a `get`, the answer's payload returns.
    ///
    /// Errors: the peer's errno.
    fn request(&self, family: Family, flags: u16, payload: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Asks for a listing; `visit` gets each part's payload.
    fn dump(&self, family: Family, payload: &[u8], visit: &mut dyn FnMut(&[u8])) -> io::Result<()>;
    /// A socket for upcalls of a datapath; its [`UpcallSocket::pid`] goes to the ports.
    fn open_upcalls(&self, dp_ifindex: u32) -> io::Result<Box<dyn UpcallSocket>>;
}

/// Where upcalls arrive.
pub trait UpcallSocket: Send {
    /// What ports and `userspace` actions call it.
    fn pid(&self) -> u32;
    /// To wait on.
    fn fd(&self) -> RawFd;
    /// Puts the payload of the next upcall into `buf`; false: none waits.
    ///
    /// Errors: `ENOBUFS` says that some were lost; anything else that no more will come.
    fn recv(&mut self, buf: &mut Vec<u8>) -> io::Result<bool>;
}
