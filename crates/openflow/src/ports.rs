//! Port numbers on the wire and in text.

use ib_flow::OfPort;

use crate::error::OfError;

/// From OpenFlow 1.1+'s 32 bits.
pub fn port_from_wire32(port: u32) -> Result<OfPort, OfError> {
    ib_flow::fields::port_from_of11(port).ok_or(OfError::OFPBAC_BAD_OUT_PORT)
}

/// To OpenFlow 1.1+'s 32 bits.
pub fn port_to_wire32(port: OfPort) -> u32 {
    ib_flow::fields::port_to_of11(port)
}
