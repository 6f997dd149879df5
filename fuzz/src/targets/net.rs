//! Frames, their offload metadata, and what the kernel tells about devices.

use std::hint::black_box;

use ib_flow::{Flow, Metadata, Payload};
use ib_netdev::linux::vnet;
use ib_packet::pcap::{PcapReader, PcapWriter};
use ib_packet::wire::{
    Arp, Ethernet, Icmp, Icmpv6, Igmp, Ipv4, Ipv6, Mpls, Neighbor, Nsh, Sctp, Tcp, Udp, VlanTag,
};
use ib_packet::{Gso, GsoKind, Offload, Packet, gso, hexdump};

use super::text;
use crate::choices::Choices;

/// Every view at every offset that a header may have.
pub fn views(input: &[u8]) {
    for at in [0, 4, 14, 18, 34, 54] {
        let Some(bytes) = input.get(at..) else { return };
        if let Ok(v) = Ethernet::new_checked(bytes) {
            v.ethertype();
        }
        if let Ok(v) = VlanTag::new_checked(bytes) {
            v.ethertype();
        }
        if let Ok(v) = Arp::new_checked(bytes) {
            v.is_valid();
        }
        if let Ok(v) = Ipv4::new_checked(bytes)
            && v.is_valid()
        {
            assert!(v.header_len() <= bytes.len());
            black_box((v.payload(), v.checksum_ok(), v.is_fragment(), v.is_later_fragment()));
        }
        if let Ok(v) = Tcp::new_checked(bytes)
            && v.is_valid()
        {
            assert!(v.header_len() <= bytes.len());
            black_box((v.options(), v.payload(), v.flags()));
        }
        if let Ok(v) = Udp::new_checked(bytes) {
            v.payload();
        }
        if let Ok(v) = Nsh::new_checked(bytes)
            && v.is_valid()
        {
            assert!(v.header_len() <= bytes.len());
        }
        if let Ok(v) = Mpls::new_checked(bytes) {
            black_box((v.label(), v.is_bottom()));
        }
        let _ = (Ipv6::new_checked(bytes), Icmp::new_checked(bytes), Icmpv6::new_checked(bytes));
        let _ = (Igmp::new_checked(bytes), Sctp::new_checked(bytes), Neighbor::new_checked(bytes));
    }
}

fn key(frame: &[u8]) -> Flow {
    let mut flow = Flow::zeroed();
    ib_flow::extract::extract_bytes(frame, None, &Metadata::default(), &mut flow);
    flow
}

/// A composed packet's key composes to a packet with that key.
pub fn compose(input: &[u8]) {
    let given = key(input);
    let payload = Payload::Pattern(input.len() % 100);
    let first = key(ib_flow::compose(&given, payload).data());
    let second = key(ib_flow::compose(&first, payload).data());
    assert!(first == second, "{}\n{}", flow_text(&first), flow_text(&second));
    ib_flow::compose::compose_with(&given, payload, true);
}

fn flow_text(flow: &Flow) -> String {
    ib_flow::text::flow_to_string(flow, None)
}

/// The frame is the input but for its first bytes, which are the metadata.
pub fn gso(input: &[u8]) {
    let mut c = Choices::new(input);
    let mut offload = Offload::default();
    let bits = c.byte();
    // As likely as not the metadata fits: well-formed places, or any.
    offload.partial_csum = match bits & 3 {
        0 => None,
        1 => Some((34, 16)),
        2 => Some((54, 6)),
        _ => Some((c.u16(), c.u16())),
    };
    let kinds = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4];
    if bits & 4 != 0 {
        let size = if bits & 8 != 0 { c.u16().max(1) } else { u16::from(c.byte()).max(1) };
        offload.gso = Some(Gso { kind: c.of(&kinds), size, ecn: bits & 16 != 0 });
        offload.hdr_len = u16::from(c.byte());
    }
    let repeat = if bits & 32 != 0 { 20 } else { 0 };
    let ethernet = bits & 64 == 0;
    let rest = c.rest();
    let mut frame = rest.to_vec();
    for _ in 0..repeat {
        frame.extend_from_slice(rest);
    }
    let mut packet = Packet::from_frame(&frame);
    packet.offload = offload;
    packet.ethernet = ethernet;
    packet.l3_type = ib_packet::Be16::new(if bits & 128 != 0 { 0x0800 } else { 0x86dd });
    let mut out = Vec::new();
    gso::segment(&packet, &mut out);
    assert!(!out.is_empty() || frame.is_empty());
    for segment in &out {
        assert!(segment.offload.is_plain());
    }
    let mut one = packet.clone();
    gso::finish_csum(&mut one);
    assert_eq!(one.len(), packet.len());
    gso::fill_csums(&mut packet);
}

pub const VNET_SEEDS: &[&[u8]] = &[
    &[1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0x20, 0x40],
    &[1, 0x85, 42, 0, 0xa8, 5, 34, 0, 6, 0, 0x00, 0x40],
    &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60],
];

/// A virtio-net header that is believed says what it said.
pub fn vnet_header(input: &[u8]) {
    let Some((header, rest)) = input.split_first_chunk::<{ vnet::LEN }>() else { return };
    let frame_len = rest.iter().fold(0, |n, b| n << 8 | usize::from(*b)) & 0x1_ffff;
    if let Some(offload) = vnet::parse(header, frame_len) {
        if let Some((start, offset)) = offload.partial_csum {
            assert!(usize::from(start) + usize::from(offset) + 2 <= frame_len);
        }
        let again = vnet::parse(&vnet::emit(&offload), frame_len).expect("what was emitted parses");
        assert_eq!((again.partial_csum, again.gso), (offload.partial_csum, offload.gso));
    }
}

pub const NETLINK_SEEDS: &[&[u8]] = &[
    // RTM_NEWLINK with a name, an MTU and link information.
    b"\x44\x00\x00\x00\x10\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x03\x00\x00\x00\x43\x10\x01\x00\x00\x00\x00\x00\x09\x00\x03\x00eth0\x00\x00\x00\x00\x08\x00\x04\x00\xdc\x05\x00\x00\x0c\x00\x12\x00\x08\x00\x01\x00tun\x00",
    // RTM_NEWADDR.
    b"\x20\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x18\x80\x00\x03\x00\x00\x00\x08\x00\x01\x00\x0a\x00\x00\x01",
];

pub fn netlink(input: &[u8]) {
    let mut total = 0;
    for m in ib_sys::netlink::messages(input) {
        total += m.payload.len();
        ib_sys::rtnetlink::parse_event(&m);
        for (_, data) in m.attrs(16) {
            ib_sys::netlink::text(data);
            ib_sys::netlink::Attrs(data).for_each(drop);
        }
    }
    assert!(total <= input.len());
}

pub fn made_pcaps() -> Vec<Vec<u8>> {
    let mut w = PcapWriter::new(Vec::new()).expect("memory takes writes");
    for n in [0, 60, 1500] {
        w.write(std::time::Duration::from_millis(n), &vec![7; n as usize]).expect("memory takes writes");
    }
    vec![w.into_inner().expect("memory takes writes")]
}

pub fn pcap(input: &[u8]) {
    let Ok(mut reader) = PcapReader::new(input) else { return };
    let mut total = 0;
    while let Ok(Some((_, frame))) = reader.read() {
        total += frame.len();
    }
    assert!(total <= input.len());
}

pub const HEX_SEEDS: &[&[u8]] =
    &[b"505400000001505400000002 0800 4500 0014", b"ff ff ff ff ff ff 50 54 00 00 00 02 08 06"];

pub fn frame_hex(input: &[u8]) {
    if let Ok(packet) = hexdump::frame_from_hex(&text(input)) {
        let again = hexdump::frame_from_hex(&hexdump::to_hex(packet.data())).expect("hex parses");
        assert_eq!(again.data(), packet.data());
    }
    let mut out = String::new();
    hexdump::dump(input, 0, true, &mut out);
}
