//! Flow export: what passed a bridge, as datagrams for collectors.
//!
//! Three pure machines: [`netflow`] (version 5) counts IP flows until they end or get old, [`sflow`] (version 5) sends sampled
//! headers and counters of ports, [`ipfix`] (RFC 7011) sends sampled packets as flow records, cached or at once. Keys, counters and
//! the time go in, datagrams come out into a [`Collect`]. No sockets and no clock of their own; who owns a machine locks it.
//!
//! Layouts and values are those of Open vSwitch where a standard leaves a choice, so that a collector sees no difference.

pub mod ipfix;
pub mod netflow;
pub mod sflow;
pub mod target;

/// Takes datagrams; the owner sends them to the collectors.
pub trait Collect {
    /// Sends one to each collector. Returns how many of those sends worked, and how many did not.
    fn send(&mut self, datagram: &[u8]) -> (u64, u64);
}

impl Collect for Vec<Vec<u8>> {
    fn send(&mut self, datagram: &[u8]) -> (u64, u64) {
        self.push(datagram.to_vec());
        (1, 0)
    }
}

/// A length as the 32 bits of a wire format; what does not fit (no packet is that long) is cut.
fn len32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A length as the 16 bits of a wire format.
fn len16(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
