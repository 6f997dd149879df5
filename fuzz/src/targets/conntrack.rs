//! Packets through a connection table: tracked, translated, put together from fragments.

use ib_conntrack::Conntrack;
use ib_conntrack::frag::Outcome;
use ib_dpif::conntrack::CtControl;
use ib_dpif::{CtAction, NatAction, NatRange};
use ib_flow::Metadata;
use ib_packet::{Be128, Packet};

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
    table.sweep(1_000_000);
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
