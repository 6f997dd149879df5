//! Connection tracking: a packet of a connection that is known, and one that begins another.

use std::hint::black_box;

use ib_conntrack::Conntrack;
use ib_dpif::CtAction;
use ib_flow::Metadata;
use ib_packet::Packet;
use ib_packet::csum::Sum;
use ib_packet::wire::Ipv4;

/// An acknowledgement with right checksums, from host `n` of 16 million.
fn segment(n: u32, flags: u8) -> Packet {
    let mut f = vec![0; 12];
    f.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    f.extend((0x0a00_0000 + n).to_be_bytes());
    f.extend([192, 0, 2, 1, 3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    let mut h = Ipv4::new_checked(&mut f[14..]).expect("a header");
    h.fill_checksum();
    let pseudo: Sum = h.pseudo(20);
    let sum = pseudo.bytes(&f[34..]).checksum().to_bytes();
    f[50..52].copy_from_slice(&sum);
    Packet::from_frame(&f)
}

fn track(table: &Conntrack, packet: &mut Packet, ct: &CtAction, now_ms: u64) {
    let mut md = Metadata::default();
    table.process(black_box(packet), &mut md, ct, now_ms, 0);
    black_box(md.ct_state);
}

/// Packets of one connection among a thousand.
pub fn established(n: u64) -> u64 {
    let table = Conntrack::default();
    let commit = CtAction { commit: true, zone: 1, ..CtAction::default() };
    for host in 0..1000 {
        track(&table, &mut segment(host, 0x10), &commit, 0);
    }
    let look = CtAction { zone: 1, ..CtAction::default() };
    let mut packet = segment(500, 0x10);
    for i in 0..n {
        track(&table, &mut packet, &look, i);
    }
    n
}

/// Packets that each begin a connection, and its end, in a sweep.
pub fn commit(n: u64) -> u64 {
    let table = Conntrack::default();
    let commit = CtAction { commit: true, zone: 1, ..CtAction::default() };
    let mut packet = segment(0, 2);
    for i in 0..n {
        // A device has looked at the checksums.
        let host = u16::try_from(i & 0x7fff).unwrap_or(0);
        packet.data_mut()[28..30].copy_from_slice(&host.to_be_bytes());
        packet.offload.csum_valid = true;
        track(&table, &mut packet, &commit, i);
        table.sweep(i);
    }
    n
}
