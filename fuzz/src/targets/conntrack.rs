//! Packets through a connection table: tracked, translated, put together from fragments; what helpers read and rewrite.

use ib_conntrack::Conntrack;
use ib_conntrack::frag::Outcome;
use ib_dpif::conntrack::CtControl;
use ib_dpif::{CtAction, NatAction, NatRange};
use ib_flow::Metadata;
use ib_packet::csum::Sum;
use ib_packet::wire::Ipv4;
use ib_packet::{Be16, Be128, Packet};

/// What is said on FTP's control connection. The first byte's lowest bit tells who says it.
pub const FTP_SEEDS: &[&[u8]] = &[
    b"\0PORT 10,0,0,1,7,208\r\n",
    b"\0EPRT |1|10.0.0.1|2000|\r\n",
    b"\0EPRT |2|fd00::1|2000|\r\n",
    b"\x01227 Entering Passive Mode (10,0,0,2,23,112).\r\n",
    b"\x01229 Entering Extended Passive Mode (|||6000|)\r\n",
];

/// Fragments of one datagram: pairs of an offset in units of 8 bytes with a bit for "more", and of a length.
pub const FRAGMENT_SEEDS: &[&[u8]] = &[
    &[0x80, 8, 0x81, 8, 2, 3],
    &[2, 3, 0x81, 8, 0x80, 8],
    &[0x80, 16, 0x81, 8, 0x80, 8, 0x7f, 200, 0x80, 1],
];

/// A frame of 10.0.0.1 to 10.0.0.2, or the other way, with right checksums.
fn tcp(reply: bool, ports: (u16, u16), numbers: (u32, u32), flags: u8, payload: &[u8]) -> Packet {
    let mut f = vec![0; 12];
    let total = u16::try_from(40 + payload.len()).expect("inputs are short").to_be_bytes();
    f.extend([8, 0, 0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0]);
    let (src, dst) = if reply { (2, 1) } else { (1, 2) };
    f.extend([10, 0, 0, src, 10, 0, 0, dst]);
    f.extend(ports.0.to_be_bytes());
    f.extend(ports.1.to_be_bytes());
    f.extend(numbers.0.to_be_bytes());
    f.extend(numbers.1.to_be_bytes());
    f.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    f.extend(payload);
    let len = u16::try_from(f.len() - 34).expect("inputs are short");
    let mut h = Ipv4::new_checked(&mut f[14..]).expect("a header");
    h.fill_checksum();
    let pseudo: Sum = h.pseudo(len);
    let sum = pseudo.bytes(&f[34..]).checksum().to_bytes();
    f[50..52].copy_from_slice(&sum);
    Packet::from_frame(&f)
}

/// A control connection behind translation on which the input is said, twice: what leaves has a length and checksums that are right,
/// and what is announced stays bounded.
pub fn ftp(input: &[u8]) {
    let Some((first, text)) = input.split_first().filter(|(_, text)| text.len() <= 1000) else { return };
    let table = Conntrack::default();
    let addr = Be128::new(0x0a63_6363);
    let range = NatRange { addrs: Some((addr, addr)), ..NatRange::default() };
    let helper = Some("ftp".into());
    let nat = if first & 2 == 0 { NatAction::Src(range) } else { NatAction::Dst(range) };
    let begin = CtAction { commit: true, nat: Some(nat), helper, ..CtAction::default() };
    let go_on = CtAction { nat: Some(NatAction::Existing), ..CtAction::default() };
    let said = |from_server: bool, flags: u8, numbers: (u32, u32), payload: &[u8]| {
        let ports = if from_server { (21, 1000) } else { (1000, 21) };
        let mut p = tcp(from_server, ports, numbers, flags, payload);
        if from_server {
            // It answers to what it sees: the translated address.
            let d = p.data_mut();
            let at = if first & 2 == 0 { 30 } else { 26 };
            d[at..at + 4].copy_from_slice(&[10, 99, 99, 99]);
            p.offload.csum_valid = true;
        }
        p
    };
    let track = |mut p: Packet, ct: &CtAction| {
        table.process(&mut p, &mut Metadata::default(), ct, 0, 1);
        p
    };
    track(said(false, 2, (100, 0), b""), &begin);
    track(said(true, 0x12, (500, 101), b""), &go_on);
    track(said(false, 0x10, (101, 501), b""), &go_on);
    for _ in 0..2 {
        let from_server = first & 1 != 0;
        let numbers = if from_server { (501, 101) } else { (101, 501) };
        let p = track(said(from_server, 0x18, numbers, text), &go_on);
        let h = Ipv4::new_checked(&p.data()[14..]).expect("a header");
        assert_eq!(usize::from(h.total_len().get()) + 14, p.len());
        if !from_server {
            let pseudo: Sum = h.pseudo(u16::try_from(p.len() - 34).expect("inputs are short"));
            assert!(h.checksum_ok() && pseudo.bytes(&p.data()[34..]).checksum() == Be16::ZERO);
        }
    }
    assert!(table.expectations(None).len() <= 2);
    table.flush(&Default::default());
    assert!(table.expectations(None).is_empty());
}

/// Fragments in any order, overlapping or not: what comes together has each byte once, and nothing is held for ever.
pub fn fragments(input: &[u8]) {
    let table = Conntrack::default();
    table.set_frag_max(8);
    let mut held = 0;
    for pair in input.chunks_exact(2) {
        let (offset, more) = (u16::from(pair[0] & 0x7f), pair[0] & 0x80 != 0);
        let payload = vec![pair[0]; usize::from(pair[1]) * 8];
        let mut p = tcp(false, (1, 2), (0, 0), 2, &payload);
        let d = p.data_mut();
        d[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        Ipv4::new_checked(&mut d[14..]).expect("a header").fill_checksum();
        match table.take_fragment(p, 0, 0, 0) {
            Outcome::Held => held += 1,
            Outcome::Whole(whole) => {
                let parts = whole.split();
                assert!(!parts.is_empty() && parts.len() <= held + 1);
                held = 0;
            }
            Outcome::AsIs(_) => {}
        }
        assert!(table.frag_status().held <= 8 && table.frag_lists().len() <= 1);
    }
    table.purge_fragments(10_000_000);
    assert_eq!((table.frag_status().held, table.frag_lists().len()), (0, 0));
}

/// The frame twice over, with and without translation, as itself and as an answer: it keeps its length, and the table its limit.
pub fn conntrack(input: &[u8]) {
    let table = Conntrack::default();
    table.set_max_conns(2);
    table.set_frag_min(false, 400);
    let addr = Be128::new(0x0a63_6363);
    let range = NatRange { addrs: Some((addr, addr)), ports: Some((7, 8)), ..NatRange::default() };
    let actions = [
        CtAction { commit: true, nat: Some(NatAction::Src(range.clone())), ..CtAction::default() },
        CtAction { nat: Some(NatAction::Existing), ..CtAction::default() },
        CtAction { commit: true, force: true, nat: Some(NatAction::Dst(range)), ..CtAction::default() },
    ];
    let mut packet = Packet::from_frame(input);
    // Checksums are for receivers: without the offload nearly every input would end at the first one.
    packet.offload.csum_valid = input.first().is_some_and(|b| b & 1 == 0);
    for (now, ct) in (0..).zip(&actions) {
        let mut md = Metadata::default();
        let mut p = packet.clone();
        table.process(&mut p, &mut md, ct, now, 1);
        assert_eq!(p.len(), packet.len());
        table.process(&mut p, &mut md, ct, now, 1);
    }
    assert!(table.n_conns() <= 2 && table.dump(None).len() <= 2);
    packet.offload.csum_valid = false;
    if let Outcome::Whole(whole) = table.take_fragment(packet, 0, 0, 0) {
        assert_eq!(whole.split().len(), 1);
    }
    while table.sweep(1_000_000).more {}
    assert_eq!((table.n_conns(), table.frag_status().held), (0, 0));
}

pub const SAVED_SEEDS: &[&[u8]] = &[
    br#"{"orig":["10.0.0.1","192.0.2.9",6,40000,21,0],"reply":["192.0.2.9","192.0.2.1",6,21,61000,0],"zone":5,"left_ms":60000,"mark":7,"label":"0x10","tcp":[["ESTABLISHED",1000,70000,512,7,false],["ESTABLISHED",1000,70000,512,null,true]],"nat":"source","helper":"ftp","skew":[[5,-1,3],[0,0,0]],"expected":[["192.0.2.9","192.0.2.1",6,50000,"destination","10.0.0.1",50000]]}"#,
    br#"{"orig":["::1","::2",58,128,129,7],"reply":["::2","::1",58,129,128,7],"zone":0,"left_ms":1,"talk":2,"zone_timeouts":true,"parent":["::1","::2",6,1,2,0]}"#,
];

/// A connection from elsewhere: what a table takes, it gives again.
pub fn saved(input: &[u8]) {
    let Ok(json) = ib_base::json::Json::parse_bytes(input) else { return };
    let Ok(conn) = ib_dpif::ct_saved::CtSaved::from_json(&json) else { return };
    assert_eq!(ib_dpif::ct_saved::CtSaved::from_json(&conn.to_json()), Ok(conn.clone()));
    let table = Conntrack::default();
    if table.restore(&conn).is_ok() && conn.left_ms != 0 {
        let all = table.save(&|_| true);
        assert_eq!((all.len(), &all[0].orig, &all[0].reply), (1, &conn.orig, &conn.reply));
        assert_eq!(table.flush(&Default::default()), 1);
    }
}
