//! Port numbers on the wire and in text.

use ib_base::vlog::module::OFP_PORT;
use ib_base::vlog_warn_rl;
use ib_flow::OfPort;

use crate::error::OfError;

/// From OpenFlow 1.1+'s 32 bits.
pub fn port_from_wire32(port: u32) -> Result<OfPort, OfError> {
    ib_flow::fields::port_from_of11(port).ok_or_else(|| {
        vlog_warn_rl!(
            OFP_PORT,
            (1, 5),
            "port {port} is outside the supported range 0 through 65279 or 0xffffff00 through 0xffffffff"
        );
        OfError::OFPBAC_BAD_OUT_PORT
    })
}

/// To OpenFlow 1.1+'s 32 bits.
pub fn port_to_wire32(port: OfPort) -> u32 {
    ib_flow::fields::port_to_of11(port)
}
