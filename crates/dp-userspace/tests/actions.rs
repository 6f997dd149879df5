//! Any list of actions, on any packet: nothing panics, and lists that people write read back as they were.

use std::sync::Arc;

use ib_base::rng::Rng;
use ib_base::time::Clock;
use ib_dp_userspace::worker::{Shared, Worker};
use ib_dpif::text::{PortNames, format_actions, parse_actions};
use ib_flow::{Metadata, OdpPort};
use ib_packet::{Gso, GsoKind, Packet};

const SIMPLE: &[&str] = &[
    "1",
    "99",
    "ct_clear",
    "pop_vlan",
    "push_vlan(vid=5,pcp=1)",
    "push_vlan(tpid=0x88a8,vid=6,pcp=0)",
    "pop_eth",
    "push_eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02)",
    "push_mpls(label=5,tc=1,ttl=9,bos=1,eth_type=0x8847)",
    "add_mpls(label=5,tc=1,ttl=9,bos=1,eth_type=0x8848)",
    "pop_mpls(eth_type=0x800)",
    "pop_mpls(eth_type=0x8847)",
    "pop_nsh()",
    "push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x1234,si=255,c1=0x1,c2=0x2,c3=0x3,c4=0x4)",
    "trunc(20)",
    "trunc(1000)",
    "hash(l4(0))",
    "hash(sym_l4(7))",
    "recirc(0x7)",
    "meter(3)",
    "dec_ttl(le_1(2))",
    "userspace(pid=0)",
    "tnl_pop(9)",
    "set(eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02))",
    "set(eth(src=00:00:00:00:00:01/00:00:00:00:00:ff))",
    "set(ipv4(src=1.2.3.4,ttl=3))",
    "set(ipv4(tos=0/0x3))",
    "set(ipv6(src=::1,hlimit=1))",
    "set(tcp(src=99))",
    "set(udp(dst=7/0xff))",
    "set(sctp(src=5))",
    "set(arp(op=2/0xff,sip=1.1.1.1))",
    "set(mpls(label=9,ttl=3))",
    "set(skb_mark(0x5))",
    "set(skb_priority(0x3))",
];

fn list(rng: &mut Rng, depth: u32) -> String {
    if rng.below(20) == 0 {
        return "drop".to_owned();
    }
    let n = 1 + rng.below(4);
    let one = |rng: &mut Rng| {
        if depth < 3 && rng.below(5) == 0 {
            let inner = list(rng, depth + 1);
            return match rng.below(3) {
                0 => format!("clone({inner})"),
                1 => format!("sample(sample=50.0%,actions({inner}))"),
                _ => format!("check_pkt_len(size=60,gt({inner}),le(drop))"),
            };
        }
        SIMPLE[rng.below(SIMPLE.len() as u64) as usize].to_owned()
    };
    (0..n).map(|_| one(rng)).collect::<Vec<_>>().join(",")
}

/// Ethernet frames of many kinds, whole, cut anywhere, or noise.
fn packet(rng: &mut Rng) -> Packet {
    let l3: &[&[u8]] = &[
        &[0x08, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
        &[0x08, 0, 0x46, 0, 0, 60, 0, 0, 0x20, 5, 1, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 0],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 58, 255],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 0, 1],
        &[0x08, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &[0x88, 0x47, 0, 0, 0x51, 9],
        &[0x81, 0, 0x20, 5, 0x08, 0, 0x45, 0, 0, 40],
        &[0x89, 0x4f, 0x0f, 0xc6, 1, 3],
        &[0, 40, 0xaa, 0xaa, 3],
    ];
    let mut bytes = vec![0x50, 0x54, 0, 0, 0, 2, 0x50, 0x54, 0, 0, 0, 1];
    bytes.extend_from_slice(l3[rng.below(l3.len() as u64) as usize]);
    let mut rest = vec![0; 80];
    rng.fill(&mut rest);
    bytes.extend_from_slice(&rest);
    bytes.truncate(14 + rng.below(90) as usize);
    let mut p = Packet::from_frame(&bytes);
    if rng.below(4) == 0 {
        p.offload.partial_csum = Some((34, 16));
        p.offload.gso = (rng.below(2) == 0).then_some(Gso { kind: GsoKind::TcpV4, size: 20, ecn: false });
        p.offload.hdr_len = 54;
    }
    p
}

#[test]
fn no_list_panics_and_each_reads_back() {
    let names = PortNames::none();
    let shared = Arc::new(Shared::new(Clock::simulated(), 100));
    let stats = Arc::default();
    let mut worker = Worker::new(&shared, &stats, 0);
    let mut rng = Rng::new(7);
    for _ in 0..20_000 {
        let text = list(&mut rng, 0);
        let actions = parse_actions(&text, &names).unwrap_or_else(|e| panic!("{text}: {e}"));
        let shown = format_actions(&actions, &names);
        let again = parse_actions(&shown, &names).unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(actions, again, "{text} was shown as {shown}");
        let md = Metadata { in_port: OdpPort(1), ..Metadata::default() };
        worker.execute(packet(&mut rng), md, &actions);
    }
}
