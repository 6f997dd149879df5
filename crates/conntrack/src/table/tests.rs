//! Packets through a table: what it says of them, and what it does to them.

use super::*;
use crate::key::parse;
use ib_dpif::NatRange;
use ib_dpif::conntrack::{CtControl, CtFilter, CtTimeouts};
use ib_dpif::{CtAction, NatAction};
use ib_flow::Metadata;
use ib_flow::key::CtState;
use ib_packet::csum::Sum;
use ib_packet::wire::Ipv4;
use ib_packet::{Be128, Packet};

const A: u32 = 0x0a00_0001;
const B: u32 = 0x0a00_0002;
const NEW: u8 = CtState::TRK | CtState::NEW;
const EST: u8 = CtState::TRK | CtState::EST;
const RPL: u8 = CtState::RPL;

fn ip(src: u32, dst: u32, proto: u8, mut l4: Vec<u8>, csum_at: usize) -> Packet {
    let mut f = vec![0; 14];
    f[12] = 8;
    let total = u16::try_from(20 + l4.len()).unwrap().to_be_bytes();
    f.extend([0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, proto, 0, 0]);
    f.extend(src.to_be_bytes());
    f.extend(dst.to_be_bytes());
    let at = f.len();
    f.append(&mut l4);
    let mut h = Ipv4::new_checked(&mut f[14..]).unwrap();
    h.fill_checksum();
    let len = u16::try_from(h.payload().len()).unwrap();
    let pseudo = if proto == 1 { Sum::ZERO } else { h.pseudo(len) };
    let sum = pseudo.bytes(&f[at..]).checksum().to_bytes();
    f[at + csum_at..at + csum_at + 2].copy_from_slice(&sum);
    Packet::from_frame(&f)
}

fn udp(src: u32, dst: u32, sport: u16, dport: u16) -> Packet {
    let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    l4.extend([0, 8, 0, 0]);
    ip(src, dst, 17, l4, 6)
}

fn tcp(src: u32, dst: u32, ports: (u16, u16), flags: u8, seq: u32, ack: u32) -> Packet {
    let mut l4 = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    l4.extend(seq.to_be_bytes());
    l4.extend(ack.to_be_bytes());
    l4.extend([0x50, flags, 4, 0, 0, 0, 0, 0]);
    ip(src, dst, 6, l4, 16)
}

fn commit() -> CtAction {
    CtAction { commit: true, zone: 1, ..CtAction::default() }
}

fn look() -> CtAction {
    CtAction { zone: 1, ..CtAction::default() }
}

fn run(t: &Conntrack, mut p: Packet, ct: &CtAction, now: u64) -> (Metadata, Packet) {
    let mut md = Metadata::default();
    t.process(&mut p, &mut md, ct, now, 0);
    (md, p)
}

fn key(p: &Packet) -> Key {
    parse(p, 1).expect("valid").key
}

#[test]
fn udp_becomes_established_by_an_answer_and_expires() {
    let t = Conntrack::default();
    assert_eq!(run(&t, udp(A, B, 5, 53), &look(), 0).0.ct_state, NEW);
    assert_eq!(t.n_conns(), 0);
    let marked = CtAction { mark: Some((7, 0xff)), label: Some((Be128::new(9), Be128::MAX)), ..commit() };
    let (md, _) = run(&t, udp(A, B, 5, 53), &marked, 0);
    assert_eq!((md.ct_state, md.ct_mark, md.ct_label.get()), (NEW, 7, 9));
    assert_eq!(run(&t, udp(A, B, 5, 53), &look(), 0).0.ct_state, NEW);
    let (md, _) = run(&t, udp(B, A, 53, 5), &look(), 0);
    assert_eq!((md.ct_state, md.ct_mark), (EST | RPL, 7));
    assert_eq!(md.ct_orig.unwrap().src.get(), u128::from(A));
    assert_eq!(run(&t, udp(A, B, 5, 53), &look(), 1_000).0.ct_state, EST);
    assert_eq!(t.dump(Some(1))[0].timeout_s, 30);
    assert!(t.dump(Some(2)).is_empty());
    // Another zone knows nothing of it.
    assert_eq!(run(&t, udp(B, A, 53, 5), &CtAction::default(), 0).0.ct_state, NEW);
    t.sweep(20_000);
    assert_eq!(t.n_conns(), 1);
    assert_eq!(run(&t, udp(B, A, 53, 5), &look(), 31_001).0.ct_state, NEW);
    assert_eq!(t.n_conns(), 0);
}

#[test]
fn sweeping_finds_what_no_packet_asks_for() {
    let t = Conntrack::default();
    for port in 1..=500 {
        run(&t, udp(A, B, port, 53), &commit(), u64::from(port - 1) * 10);
    }
    assert_eq!(t.n_conns(), 500);
    t.sweep(59_000);
    assert_eq!(t.n_conns(), 500);
    // A bounded number at a time.
    assert!(t.sweep(63_000).more);
    while t.sweep(63_000).more {}
    let some = t.n_conns();
    assert!((1..500).contains(&some), "{some}");
    while t.sweep(3_000_000).more {}
    let kept: usize = t
        .shards
        .iter()
        .flat_map(|s| s.wheel.lock().slots.iter().map(Vec::capacity).collect::<Vec<_>>())
        .sum();
    assert_eq!(kept, 0, "wheels of a table that has emptied take no memory");
    assert_eq!(t.n_conns(), 0);
    assert!(t.shards.iter().all(|s| s.map.lock().is_empty()));
}

#[test]
fn tcp_and_what_does_not_belong_to_it() {
    let t = Conntrack::default();
    let p = (1000, 80);
    assert_eq!(run(&t, tcp(A, B, p, 0x12, 1, 1), &commit(), 0).0.ct_state, CtState::TRK | CtState::INV);
    run(&t, tcp(A, B, p, 2, 100, 0), &commit(), 0);
    assert_eq!(run(&t, tcp(B, A, (80, 1000), 0x12, 500, 101), &look(), 0).0.ct_state, EST | RPL);
    assert_eq!(run(&t, tcp(A, B, p, 0x10, 101, 501), &look(), 0).0.ct_state, EST);
    let wild = tcp(A, B, p, 4, 0x4000_0000, 0);
    assert_eq!(run(&t, wild.clone(), &look(), 0).0.ct_state, CtState::TRK | CtState::INV);
    assert_eq!(t.dump(None)[0].timeout_s, 86_400);
    let short = CtTimeouts { tcp_established: Some(7), ..CtTimeouts::default() };
    t.set_timeouts(1, Some(short));
    // It keeps the policy that it began with, which was none.
    run(&t, tcp(A, B, p, 0x10, 101, 501), &look(), 0);
    assert_eq!(t.dump(None)[0].timeout_s, 86_400);
    let policy = t.timeout_policy(1).map(|n| n.to_string().into());
    let other = CtAction { timeout: policy, ..commit() };
    run(&t, tcp(A, B, (1001, 80), 2, 100, 0), &other, 0);
    run(&t, tcp(B, A, (80, 1001), 0x12, 500, 101), &look(), 0);
    run(&t, tcp(A, B, (1001, 80), 0x10, 101, 501), &look(), 0);
    assert_eq!(t.dump(None)[1].timeout_s, 7);
    // Noted for its opening, it is found when its time has become shorter.
    t.sweep(9_000);
    assert_eq!(t.n_conns(), 1);
}

#[test]
fn force_begins_anew_in_the_other_direction() {
    let t = Conntrack::default();
    run(&t, udp(A, B, 1, 2), &commit(), 0);
    let force = CtAction { force: true, ..commit() };
    let (md, _) = run(&t, udp(B, A, 2, 1), &force, 0);
    assert_eq!(md.ct_state, NEW);
    assert_eq!(t.dump(None)[0].orig.sport, 2);
    assert_eq!(t.n_conns(), 1);
}

fn snat(addr: u32, ports: Option<(u16, u16)>) -> CtAction {
    let a = Be128::new(addr.into());
    let range = NatRange { addrs: Some((a, a)), ports, ..NatRange::default() };
    CtAction { nat: Some(NatAction::Src(range)), ..commit() }
}

fn unnat() -> CtAction {
    CtAction { nat: Some(NatAction::Existing), ..look() }
}

#[test]
fn source_nat_and_back() {
    let t = Conntrack::default();
    let (md, p) = run(&t, udp(A, B, 5, 53), &snat(99, None), 0);
    assert_eq!(md.ct_state, NEW | CtState::SNAT);
    assert_eq!((key(&p).src.get(), key(&p).sport), (99, 5));
    // The same packet, asked about once more after translation.
    let (mut md, mut p) = (md, p);
    t.process(&mut p, &mut md, &look(), 0, 0);
    assert_eq!((md.ct_state, t.n_conns()), (NEW | CtState::SNAT, 1));
    // Another host with the same port: the port has to give way.
    let (_, p) = run(&t, udp(A + 7, B, 5, 53), &snat(99, None), 0);
    assert_eq!((key(&p).src.get(), key(&p).sport), (99, 6));
    let (md, p) = run(&t, udp(B, 99, 53, 5), &unnat(), 0);
    assert_eq!(md.ct_state, EST | RPL | CtState::DNAT);
    assert_eq!((key(&p).dst.get(), key(&p).dport), (A.into(), 5));
    let (md, p) = run(&t, udp(A, B, 5, 53), &unnat(), 0);
    assert_eq!((md.ct_state, key(&p).src.get()), (EST | CtState::SNAT, 99));
    assert_eq!(md.ct_orig.unwrap().src.get(), u128::from(A));
}

#[test]
fn destination_nat_with_an_error_about_it() {
    let t = Conntrack::default();
    let to = Be128::new(77);
    let range = NatRange { addrs: Some((to, to)), ports: Some((8080, 8080)), ..NatRange::default() };
    let dnat = CtAction { nat: Some(NatAction::Dst(range)), ..commit() };
    let (md, p) = run(&t, udp(A, B, 5, 80), &dnat, 0);
    assert_eq!(md.ct_state, NEW | CtState::DNAT);
    assert_eq!((key(&p).dst.get(), key(&p).dport), (77, 8080));
    // The server refuses: its host quotes what it got.
    let mut l4 = vec![3, 3, 0, 0, 0, 0, 0, 0];
    l4.extend(&p.data()[14..]);
    let (md, p) = run(&t, ip(77, A, 1, l4, 2), &unnat(), 0);
    assert_eq!(md.ct_state, CtState::TRK | CtState::REL | RPL | CtState::SNAT);
    let seen = key(&p);
    assert_eq!((seen.src.get(), seen.sport, seen.dst.get(), seen.dport), (B.into(), 80, A.into(), 5));
    assert_eq!(md.ct_orig.unwrap().tp_dst.get(), 80);
    // An error about nothing.
    let mut l4 = vec![3, 3, 0, 0, 0, 0, 0, 0];
    l4.extend(&udp(A, B, 9, 9).data()[14..]);
    let (md, _) = run(&t, ip(B, A, 1, l4, 2), &look(), 0);
    assert_eq!(md.ct_state, CtState::TRK | CtState::INV);
}

#[test]
fn limits_hold() {
    let t = Conntrack::default();
    t.set_limit(1, Some(2));
    t.set_default_limit(1);
    for port in 1..5 {
        assert_eq!(run(&t, udp(A, B, port, 53), &commit(), 0).0.ct_state, NEW);
    }
    assert_eq!(t.limits(), [CtZoneLimit { zone: 1, limit: 2, count: 2 }]);
    assert_eq!(t.limit(9).limit, 1);
    t.set_limit(1, Some(0));
    t.set_max_conns(3);
    for port in 1..5 {
        run(&t, udp(A, B, port, 53), &commit(), 0);
    }
    assert_eq!(t.n_conns(), 3);
    let one = CtFilter {
        orig: ib_dpif::conntrack::CtTupleFilter { sport: Some(1), ..Default::default() },
        ..CtFilter::default()
    };
    assert_eq!(t.flush(&one), 1);
    assert_eq!(t.flush(&CtFilter::default()), 2);
    assert_eq!(t.limit(1).count, 0);
}

#[test]
fn a_connection_takes_less_than_a_kibibyte() {
    // Two entries at the map's lowest load, the connection with its counts, and its note in the wheel, doubled for slack.
    let entry = size_of::<(Key, Entry)>() + 1;
    let bytes = 2 * entry * 16 / 7 + size_of::<Conn>() + 16 + 2 * size_of::<Arc<Conn>>();
    assert!(bytes <= 1024, "{bytes}");
}

fn ftp(
    t: &Conntrack,
    from_client: bool,
    seq: u32,
    ack: u32,
    text: &str,
    ct: &CtAction,
) -> (Metadata, Packet) {
    let (src, dst, ports) = if from_client { (A, B, (1000u16, 21u16)) } else { (B, 0x0a00_0064, (21, 1000)) };
    let mut l4 = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    l4.extend(seq.to_be_bytes());
    l4.extend(ack.to_be_bytes());
    l4.extend([0x50, 0x18, 4, 0, 0, 0, 0, 0]);
    l4.extend(text.as_bytes());
    run(t, ip(src, dst, 6, l4, 16), ct, 0)
}

#[test]
fn ftp_announces_a_related_connection_under_translation() {
    let t = Conntrack::default();
    let n = 0x0a00_0064;
    let control = CtAction { helper: Some("ftp".into()), mark: Some((7, 0xff)), ..snat(n, None) };
    run(&t, tcp(A, B, (1000, 21), 2, 99, 0), &control, 0);
    run(&t, tcp(B, n, (21, 1000), 0x12, 499, 100), &unnat(), 0);
    let (md, p) = ftp(&t, true, 100, 500, "PORT 10,0,0,1,7,208\r\n", &unnat());
    assert_eq!(md.ct_state, EST | CtState::SNAT);
    assert_eq!(&p.data()[54..], b"PORT 10,0,0,100,7,208\r\n");
    // Two bytes more: what follows is two further on, and its acknowledgement two back.
    let (md, p) = ftp(&t, false, 500, 123, "200 ok\r\n", &unnat());
    assert_eq!((md.ct_state, parse(&p, 1).unwrap().segment.ack), (EST | RPL | CtState::DNAT, 121));
    let (_, p) = ftp(&t, true, 121, 508, "LIST\r\n", &unnat());
    assert_eq!(parse(&p, 1).unwrap().segment.seq, 123);
    // The server connects; nothing is known of another port.
    let (md, _) = run(&t, tcp(B, n, (20, 2001), 2, 7, 0), &unnat(), 0);
    assert_eq!((md.ct_state, md.ct_mark), (NEW, 0));
    let commit = CtAction { nat: Some(NatAction::Existing), mark: Some((1, 1)), ..commit() };
    let (md, p) = run(&t, tcp(B, n, (20, 2000), 2, 7, 0), &commit, 0);
    assert_eq!(md.ct_state, NEW | CtState::REL | CtState::DNAT);
    assert_eq!((md.ct_mark, md.ct_orig.unwrap().tp_dst.get()), (7, 21));
    assert_eq!((key(&p).dst.get(), key(&p).dport), (A.into(), 2000));
    let (md, p) = run(&t, tcp(A, B, (2000, 20), 0x12, 70, 8), &unnat(), 0);
    assert_eq!((md.ct_state, key(&p).src.get()), (EST | RPL | CtState::REL | CtState::SNAT, n.into()));
    assert_eq!(t.dump(None)[1].parent.map(|p| p.dport), Some(21));
    // An address that is not the speaker's.
    let (md, _) = ftp(&t, true, 127, 508, "PORT 10,0,0,9,7,208\r\n", &unnat());
    assert_ne!(md.ct_state & CtState::INV, 0);
    // Expectations go with the connection.
    t.flush(&CtFilter::default());
    assert_eq!(t.expecting.load(Ordering::Relaxed), 0);
    let (md, _) = run(&t, tcp(B, n, (20, 2000), 2, 7, 0), &unnat(), 0);
    assert_eq!(md.ct_state, NEW);
}

#[test]
fn tftp_data_comes_from_any_port() {
    let t = Conntrack::default();
    let mut l4 = [1000u16.to_be_bytes(), 69u16.to_be_bytes()].concat();
    l4.extend([0, 12, 0, 0, 0, 1, b'f', 0]);
    run(&t, ip(A, B, 17, l4, 6), &CtAction { helper: Some("tftp".into()), ..commit() }, 0);
    assert_eq!(run(&t, udp(B, A, 5000, 1001), &look(), 0).0.ct_state, NEW);
    assert_eq!(run(&t, udp(B, A, 5000, 1000), &look(), 0).0.ct_state, NEW | CtState::REL);
}

#[test]
fn a_packet_moves_its_connection_once() {
    let t = Conntrack::default();
    let (mut md, mut p) = run(&t, tcp(A, B, (1000, 80), 0x10, 100, 500), &commit(), 0);
    assert_eq!(md.ct_state, NEW);
    t.process(&mut p, &mut md, &look(), 0, 0);
    assert_eq!(md.ct_state, NEW);
    // Another zone knows nothing of it, and coming back it is a new look.
    t.process(&mut p, &mut md, &CtAction::default(), 0, 0);
    assert_eq!((md.ct_state, md.ct_zone), (NEW, 0));
    t.process(&mut p, &mut md, &look(), 0, 0);
    assert_eq!(md.ct_state, EST);
}
