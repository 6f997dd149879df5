//! Messages as text, the way `ovs-ofctl` and the logs print them.

use crate::message::Version;
use crate::raw::{identify, parse_header};

/// The text for a log of messages.
pub fn log_text(bytes: &[u8]) -> String {
    let Some(h) = parse_header(bytes) else { return "OpenFlow packet too short".into() };
    let name = identify(bytes).map_or("?", |i| i.kind.name);
    let version = match Version::from_wire(h.version) {
        Some(Version::V10) => String::new(),
        Some(v) => format!(" (OF{})", v.number()),
        None => format!(" (OF 0x{:02x})", h.version),
    };
    format!("{name}{version} (xid={:#x}):", h.xid)
}
