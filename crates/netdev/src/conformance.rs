//! What every provider must do, as a suite that takes devices and complains.
//!
//! Each function panics with the clause that is broken. Providers call them from their tests with
//! devices in whatever place they need (the kernel's in a fresh network namespace).

use std::time::{Duration, Instant};

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::{Batch, Gso, GsoKind, Mac, Offload, Packet};

use crate::contract::{Netdev, RxQueue};
use crate::flags::Flags;

/// Checks what holds for any device that can be configured: MAC, MTU, flags round trips, sequence numbers.
/// Leaves the device up.
pub fn configuration(dev: &dyn Netdev) {
    let name = dev.name();
    assert!(!name.is_empty() && !dev.kind().is_empty(), "a device has a name and a kind");
    assert_ne!(dev.change_seq(), 0, "{name}: change_seq is never 0");

    let mac = Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let before = dev.change_seq();
    dev.set_mac(mac).unwrap_or_else(|e| panic!("{name}: set_mac: {e}"));
    assert_eq!(dev.mac(), Ok(mac), "{name}: the MAC is in force on return");
    assert_ne!(dev.change_seq(), before, "{name}: a new MAC is a change");

    dev.set_mtu(1400).unwrap_or_else(|e| panic!("{name}: set_mtu: {e}"));
    assert_eq!(dev.mtu(), Ok(1400), "{name}: the MTU is in force on return");
    assert!(dev.set_mtu(1 << 20).is_err(), "{name}: an absurd MTU is refused");
    assert_eq!(dev.mtu(), Ok(1400), "{name}: and changes nothing");
    dev.set_mtu(1500).unwrap_or_else(|e| panic!("{name}: set_mtu: {e}"));

    let up = Flags::UP;
    dev.update_flags(Flags::NONE, up).unwrap_or_else(|e| panic!("{name}: up: {e}"));
    assert!(dev.flags().is_ok_and(|f| f.contains(up)), "{name}: up is seen");
    let old = dev.update_flags(up, Flags::NONE);
    assert!(old.is_ok_and(|f| f.contains(up)), "{name}: update_flags tells what was");
    assert!(dev.flags().is_ok_and(|f| !f.contains(up)), "{name}: down is seen");
    assert!(!dev.carrier().up, "{name}: no carrier while down");
    dev.update_flags(Flags::NONE, up).unwrap_or_else(|e| panic!("{name}: up: {e}"));
    dev.stats().unwrap_or_else(|e| panic!("{name}: stats: {e}"));
}

/// A frame of `len` bytes from `02:..:01` to `02:..:02`: IPv4 of an experimental protocol, payload counting up.
pub fn frame(len: usize) -> Packet {
    let mut b = vec![0u8; len.max(34)];
    b[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    b[12..14].copy_from_slice(&[0x08, 0x00]);
    b[14] = 0x45;
    b[16..18].copy_from_slice(&u16::try_from(len.max(34) - 14).unwrap_or(u16::MAX).to_be_bytes());
    b[22..24].copy_from_slice(&[64, 253]);
    b[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    for (i, byte) in b.iter_mut().enumerate().skip(34) {
        *byte = i.to_le_bytes()[0];
    }
    Packet::from_frame(&b)
}

/// A TCP super-frame over IPv4 with `payload` bytes, its checksum partial, to be cut every `mss` bytes.
pub fn super_frame(payload: usize, mss: u16) -> Packet {
    let mut p = frame(54 + payload);
    let tcp_len = u32::try_from(20 + payload).unwrap_or(u32::MAX);
    let b = p.data_mut();
    b[23] = 6;
    b[34..54].fill(0);
    b[34..38].copy_from_slice(&[0x10, 0x00, 0x20, 0x00]);
    b[46..50].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    // What a stack puts there: the pseudo header's sum, not complemented.
    let words = b[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>() + 6 + tcp_len;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    b[50..52].copy_from_slice(&sum.to_be_bytes()[2..]);
    p.offload = Offload {
        partial_csum: Some((34, 16)),
        gso: Some(Gso { kind: GsoKind::TcpV4, size: mss, ecn: false }),
        hdr_len: 54,
        ..Offload::default()
    };
    p
}

/// Receives until `want` packets of our making have come, or a second has passed. Other packets (the host's own
/// neighbour discovery) are left out.
pub fn collect(rxq: &mut dyn RxQueue, pool: &mut Pool, want: usize) -> Vec<Packet> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut got = Vec::new();
    while got.len() < want && Instant::now() < deadline {
        let mut batch = Batch::new();
        let n = rxq.recv(pool, &mut batch).expect("recv works on a device that is up");
        assert_eq!(n, batch.len(), "recv tells how many it appended");
        assert!(n <= BATCH_MAX, "recv keeps to BATCH_MAX");
        got.extend(batch.into_iter().filter(|p| p.data().starts_with(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])));
        if n == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    got
}

/// Checks that what is sent on `a` is received on `b`: contents, order, super-frames, tags, and that counters move. Both are up.
/// `segments`: the path between them may cut super-frames.
pub fn traffic(a: &dyn Netdev, b: &dyn Netdev, rxq: &mut dyn RxQueue, segments: bool) {
    let mut pool = Pool::new(256);
    let (name, before) = (a.name(), (a.stats().unwrap_or_default(), b.stats().unwrap_or_default()));

    let lengths: Vec<usize> = (0..70).map(|i| 60 + i * 20).collect();
    let mut batch: Batch = lengths.iter().map(|len| frame(*len)).collect();
    a.send(0, &mut batch, &mut pool);
    assert!(batch.is_empty(), "{name}: send leaves the batch empty");
    let got = collect(rxq, &mut pool, lengths.len());
    assert_eq!(got.iter().map(Packet::len).collect::<Vec<_>>(), lengths, "{name}: all, whole, in order");
    for p in got {
        assert_eq!(p.data(), frame(p.len()).data(), "{name}: bytes are kept");
        assert!(p.offload.is_plain(), "{name}: plain packets stay plain");
        pool.give(p);
    }

    let mut tagged = frame(100);
    tagged.insert(12, 4);
    tagged.data_mut()[12..16].copy_from_slice(&[0x81, 0x00, 0x20, 0x05]);
    a.send(0, &mut vec![tagged.clone()], &mut pool);
    let got = collect(rxq, &mut pool, 1);
    assert_eq!(got.first().map(|p| p.data()), Some(tagged.data()), "{name}: a VLAN tag is in the frame");

    // Twice: the second time packets come from a pool that has seen large ones.
    for _ in 0..2 {
        let sent = super_frame(40_000, 1400);
        a.send(0, &mut vec![sent.clone()], &mut pool);
        let got = collect(rxq, &mut pool, 1);
        assert!(!got.is_empty(), "{name}: a super-frame arrives");
        if !segments {
            assert_eq!(got[0].data(), sent.data(), "{name}: a super-frame passes whole");
            let gso = got[0].offload.gso;
            assert_eq!(gso.map(|g| (g.kind, g.size)), Some((GsoKind::TcpV4, 1400)), "{name}: with its GSO");
            assert_eq!(got[0].offload.partial_csum, Some((34, 16)), "{name}: and its partial checksum");
        }
        got.into_iter().for_each(|p| pool.give(p));
    }

    let mut l3 = frame(60);
    l3.ethernet = false;
    a.send(0, &mut vec![l3, frame(60)], &mut pool);
    let got = collect(rxq, &mut pool, 1);
    assert_eq!(got.len(), 1, "{name}: a packet that cannot go holds up no other");

    if let (Ok(sa), Ok(sb)) = (a.stats(), b.stats()) {
        let moved = |now: Option<u64>, then: Option<u64>| now.unwrap_or(0) - then.unwrap_or(0);
        assert!(moved(sa.tx_packets, before.0.tx_packets) >= 72, "{name}: tx_packets moves");
        assert!(moved(sa.tx_bytes, before.0.tx_bytes) >= 40_000, "{name}: tx_bytes moves");
        assert!(moved(sb.rx_packets, before.1.rx_packets) >= 72, "{}: rx_packets moves", b.name());
        assert!(moved(sb.rx_bytes, before.1.rx_bytes) >= 40_000, "{}: rx_bytes moves", b.name());
    }
    rxq.drain();
}
