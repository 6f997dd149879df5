//! Outer headers of tunnels, and their options.

use std::collections::BTreeMap;

use ib_packet::Packet;
use ib_tunnel::Kind;
use ib_tunnel::push::{PerPacket, push};

/// Outer headers with a byte in front that chooses the kind.
pub const SEEDS: &[&[u8]] = &[
    // VXLAN over IPv4, identifier 0x7b.
    b"\x02\xaa\x55\xaa\x55\0\0\xf8\xbc\x12\x44\x34\xb6\x08\0\x45\0\0\x46\0\0\0\0\x40\x11\x73\x4f\x01\x01\x02\x5c\x01\x01\x02\x58\
\xc8\x53\x12\xb5\0\x32\0\0\x08\0\0\0\0\0\x7b\0PT\0\0\0\x07PT\0\0\0\x05\x08\0\x45\0\0\x14\0\0\0\0\x40\xff\xf9\x6c\xc0\xa8\0\x01\xc0\xa8\0\x02",
    // GRE with key over IPv6.
    b"\x01\xaa\x55\xaa\x55\0\0\xf8\xbc\x12\x44\x34\xb6\x86\xdd\x60\0\0\0\0\x16\x2f\x40\x20\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
\x20\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x20\0\x65\x58\0\0\0\x09PT\0\0\0\x07PT\0\0\0\x05\x08\0",
];

/// `key=value` words.
pub const OPTION_SEEDS: &[&[u8]] = &[
    b"\x02remote_ip=1.1.1.1 key=flow ttl=inherit tos=0x10 exts=gbp",
    b"\x05remote_ip=flow local_ip=flow erspan_ver=2 erspan_hwid=0x7 erspan_dir=1",
    b"\x0aremote_ip=fc00::1 srv6_segs=fc00::1,fc00::2 srv6_flowlabel=copy",
];

fn split(input: &[u8]) -> Option<(Kind, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((Kind::all().nth(usize::from(*first) % 11)?, rest))
}

/// Takes headers off, and puts what was there on again.
pub fn headers(input: &[u8]) {
    let Some((kind, frame)) = split(input) else { return };
    let mut packet = Packet::from_frame(frame);
    let before = packet.len();
    if let Some(answer) = ib_tunnel::pmtu::too_big(&packet, before / 2) {
        // Errors are not answered by errors.
        assert!(ib_tunnel::pmtu::too_big(&answer, answer.len() - 1).is_none());
    }
    if let Some(turned) = ib_tunnel::pmtu::turned(frame) {
        assert_eq!(ib_tunnel::pmtu::turned(&turned).as_deref(), Some(frame));
    }
    match ib_tunnel::pop::pop(&mut packet, kind) {
        Ok(_) => {
            assert!(packet.len() <= before);
            let header = &frame[..frame.len().min(128)];
            push(&mut packet, kind, header, &PerPacket { hash: 1, seq: 2, ip_id: 3, timestamp: 4 });
        }
        Err(_) => assert_eq!(packet.data(), frame),
    }
}

/// Reads options; what is shown reads as the same again.
pub fn options(input: &[u8]) {
    let Some((kind, text)) = split(input) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let words = text.split_whitespace().filter_map(|w| w.split_once('='));
    let options: BTreeMap<String, String> = words.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if let Ok(config) = ib_tunnel::config::parse("t", kind, &options).config {
        let _ = (config.shown(), config.device_name());
    }
}
