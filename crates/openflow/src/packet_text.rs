//! Packets as text: the key that they have, and their transport checksum.

use std::fmt::Write;

use ib_flow::{Flow, Metadata};
use ib_packet::Be16;

/// A packet as `ofp-print` and `monitor` show it, with a newline. `packet_type` is OpenFlow's, 0 for Ethernet.
pub fn packet_to_string(data: &[u8], packet_type: u32) -> String {
    let mut flow = Flow::zeroed();
    let l3 = (packet_type >> 16 == 1).then(|| Be16::new(packet_type as u16));
    let layers = ib_flow::extract::extract_bytes(data, l3, &Metadata::default(), &mut flow);
    let mut out = ib_flow::text::matching::packet_to_string(&flow);
    // Where the checksum is behind the start of the transport header.
    let (name, ofs) = match (flow.dl_type.get(), flow.nw_proto) {
        (0x0800 | 0x86dd, 6) => ("tcp", 16),
        (0x0800 | 0x86dd, 17) => ("udp", 6),
        (0x0800 | 0x86dd, 132) => ("sctp", 8),
        (0x0800, 1) => ("icmp", 2),
        (0x86dd, 58) => ("icmp6", 2),
        _ => ("", 0),
    };
    if let (false, Some(l4)) = (name.is_empty(), l4_offset(&layers)) {
        let width = if name == "sctp" { 4 } else { 2 };
        if let Some(bytes) = data.get(l4 + ofs..l4 + ofs + width) {
            let v = bytes.iter().fold(0u32, |v, b| v << 8 | u32::from(*b));
            let _ = write!(out, " {name}_csum:{v:x}");
        }
    }
    out.push('\n');
    out
}

fn l4_offset(layers: &ib_flow::extract::Layers) -> Option<usize> {
    layers.l4.map(usize::from)
}
