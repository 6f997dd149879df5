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
