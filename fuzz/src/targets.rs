//! The targets, one row each.

mod conntrack;
mod controller;
mod datapath;
mod export;
mod l2;
mod net;
mod openflow;
mod ovsdb;
mod port_state;
mod programs;
mod tls;
mod tunnel;
mod vhost;

use ib_base::json::{Json, Parser, Style};
use ib_dpif::text::{PortNames, UserCookie, format_actions, format_key, parse_actions, parse_key};
use ib_flow::{Flow, Metadata};
use ib_packet::Be16;

/// A parser of outside bytes.
pub struct Target {
    /// Name on the command line, and of its corpus folder.
    pub name: &'static str,
    /// Well-formed inputs to begin with.
    pub seeds: &'static [&'static [u8]],
    /// More of them, made by our own encoders.
    pub made: fn() -> Vec<Vec<u8>>,
    /// Must return for any input.
    pub run: fn(&[u8]),
}

const fn row(name: &'static str, seeds: &'static [&'static [u8]], run: fn(&[u8])) -> Target {
    Target { name, seeds, made: Vec::new, run }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    row("json", JSON_SEEDS, json),
    row("json-stream", JSON_SEEDS, json_stream),
    row("packet", PACKET_SEEDS, packet),
    row("bpdu", l2::BPDU_SEEDS, l2::bpdu),
    Target { made: l2::made_bfd, ..row("bfd", &[], l2::bfd) },
    Target { made: l2::made_cfm, ..row("cfm", &[], l2::cfm) },
    Target { made: l2::made_lldp, ..row("lldp", &[], l2::lldp) },
    row("multicast-messages", l2::MULTICAST_SEEDS, l2::multicast_messages),
    row("conntrack", PACKET_SEEDS, conntrack::conntrack),
    row("connection-saved", conntrack::SAVED_SEEDS, conntrack::saved),
    row("ovs-dump", programs::OVS_DUMP_SEEDS, programs::ovs_dump),
    row("port-state", port_state::SEEDS, port_state::restore),
    row("port-import", port_state::SEEDS, port_state::file),
    row("port-file", programs::PORT_SEEDS, programs::port_file),
    row("ftp", conntrack::FTP_SEEDS, conntrack::ftp),
    row("fragments", conntrack::FRAGMENT_SEEDS, conntrack::fragments),
    row("packet-views", PACKET_SEEDS, net::views),
    row("tunnel-headers", tunnel::SEEDS, tunnel::headers),
    row("tunnel-options", tunnel::OPTION_SEEDS, tunnel::options),
    row("export-samples", PACKET_SEEDS, export::samples),
    row("export-target", export::TARGET_SEEDS, export::target),
    row("compose", PACKET_SEEDS, net::compose),
    row("gso", PACKET_SEEDS, net::gso),
    row("vnet-header", net::VNET_SEEDS, net::vnet_header),
    Target { made: vhost::made_wire, ..row("vhost-wire", &[], vhost::wire) },
    row("vhost-guest", vhost::SEEDS, vhost::guest),
    row("netlink", net::NETLINK_SEEDS, net::netlink),
    Target { made: net::made_pcaps, ..row("pcap", &[], net::pcap) },
    row("frame-hex", net::HEX_SEEDS, net::frame_hex),
    row("odp-key", ODP_KEY_SEEDS, odp_key),
    row("odp-actions", ODP_ACTION_SEEDS, odp_actions),
    Target { made: datapath::made_keys, ..row("netlink-key", &[], datapath::key) },
    Target { made: datapath::made_actions, ..row("netlink-actions", &[], datapath::actions) },
    row("netlink-datapath", datapath::MESSAGE_SEEDS, datapath::messages),
    Target { made: datapath::made_calls, ..row("datapath-call", &[], datapath::call) },
    row("user-cookie", &[&[2, 0, 0, 0, 0, 0, 0]], user_cookie),
    Target { made: openflow::made_messages, ..row("openflow", &[], openflow::message) },
    Target { made: openflow::made_messages, ..row("openflow-session", &[], openflow::session) },
    Target { made: controller::made, ..row("openflow-conversation", &[], controller::conversation) },
    row("match-text", openflow::MATCH_SEEDS, openflow::match_text),
    row("flow-text", openflow::FLOW_SEEDS, openflow::flow_text),
    row("actions-text", openflow::ACTION_SEEDS, openflow::actions_text),
    Target { made: openflow::made_nxm, ..row("nxm", &[], openflow::nxm) },
    row("nxm-text", openflow::NXM_TEXT_SEEDS, openflow::nxm_text),
    Target { made: openflow::made_of10, ..row("ofp-match", &[], openflow::ofp_match) },
    row("ovsdb-schema", SCHEMA_SEEDS, ovsdb_schema),
    row("ovsdb-log", ovsdb::LOG_SEEDS, ovsdb::log),
    row("ovsdb-transact", ovsdb::CHOICE_SEEDS, ovsdb::transact),
    row("ovsdb-transact-json", ovsdb::TRANSACT_SEEDS, ovsdb::transact_json),
    row("ovsdb-session", ovsdb::CHOICE_SEEDS, ovsdb::session),
    row("ovsdb-condition", ovsdb::CONDITION_SEEDS, ovsdb::condition),
    row("ovsdb-monitor", ovsdb::MONITOR_SEEDS, ovsdb::monitor),
    row("ovsdb-datum-text", ovsdb::DATUM_SEEDS, ovsdb::datum_text),
    row("json-rpc", programs::RPC_SEEDS, programs::json_rpc),
    row("tls-hello", tls::HELLO_SEEDS, tls::hello),
    row("tls-disturbed", tls::DISTURBED_SEEDS, tls::disturbed),
    row("vlog", programs::VLOG_SEEDS, programs::vlog),
    row("getopt", programs::GETOPT_SEEDS, programs::getopt),
    row("dbctl", programs::DBCTL_SEEDS, programs::dbctl),
];

const JSON_SEEDS: &[&[u8]] = &[
    br#"{"id":0,"method":"transact","params":["db",{"op":"insert","table":"t","row":{"a":["set",[1,2.5e3,"x\u00e9"]]}}]}"#,
    br#"[null,true,false,-0,1e400,"\ud834\udd1e"]"#,
];

fn json(input: &[u8]) {
    if let Ok(value) = Json::parse_bytes(input) {
        let text = value.to_text(Style::COMPACT);
        let again = Json::parse(&text).expect("what was printed parses");
        assert_eq!(again.to_text(Style::COMPACT), text);
    }
}

fn json_stream(input: &[u8]) {
    let mut parser = Parser::with_limit(1 << 16);
    for chunk in input.chunks(3) {
        parser.feed(chunk);
        loop {
            match parser.next_value() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

const PACKET_SEEDS: &[&[u8]] = &[
    // TCP over IPv4 behind a VLAN tag.
    b"\x50\x54\x00\x00\x00\x01\x50\x54\x00\x00\x00\x02\x81\x00\x60\x0a\x08\x00\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x50\x1f\x90\x00\x00\x00\x00\x00\x00\x00\x00\x50\x02\xff\xff\x00\x00\x00\x00",
    // Neighbour solicitation with an option.
    b"\x33\x33\xff\x00\x00\x01\x50\x54\x00\x00\x00\x02\x86\xdd\x60\x00\x00\x00\x00\x20\x3a\xff\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\x00\x00\x01\x87\x00\x00\x00\x00\x00\x00\x00\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x01\x01\x50\x54\x00\x00\x00\x02",
    // ARP.
    b"\xff\xff\xff\xff\xff\xff\x50\x54\x00\x00\x00\x02\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x50\x54\x00\x00\x00\x02\x0a\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x02",
];

fn packet(input: &[u8]) {
    let mut flow = Flow::zeroed();
    let md = Metadata::default();
    ib_flow::extract::extract_bytes(input, None, &md, &mut flow);
    // A key prints, and prints the same after it was parsed.
    let names = PortNames::none();
    let text = format_key(&flow, None, &names, false);
    assert!(parse_key(&text, &names).is_ok(), "{text}");
    for l3_type in [0x0800, 0x86dd, 0x8847, 0x894f] {
        ib_flow::extract::extract_bytes(input, Some(Be16::new(l3_type)), &md, &mut flow);
    }
}

const ODP_KEY_SEEDS: &[&[u8]] = &[
    b"recirc_id(0),in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02/ff:00:00:00:00:00),eth_type(0x8100),vlan(vid=10,pcp=3/0x0),encap(eth_type(0x0800),ipv4(src=12.0.0.1/0.0.0.0,dst=12.0.0.2,proto=6,tos=0,ttl=64,frag=no),tcp(src=8/0,dst=80),tcp_flags(+syn-ack))",
    b"tunnel(tun_id=0x1,src=1.1.1.1,dst=2.2.2.2,tos=0,ttl=64,geneve({class=0xffff,type=0x80,len=4,0xa}),flags(df|csum|key)),ct_state(+new-est),ct_label(0x1/0xff)",
    b"eth_type(0x86dd),ipv6(src=fe80::1,dst=::,label=0x1,proto=58,tclass=0,hlimit=255,frag=first),icmpv6(type=135,code=0),nd(target=::1,sll=00:00:00:00:00:01)",
];

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

fn odp_key(input: &[u8]) {
    let names = PortNames::none();
    if let Ok((flow, mask)) = parse_key(&text(input), &names) {
        format_key(&mask.apply(&flow), Some(&mask), &names, false);
        format_key(&flow, Some(&mask), &names, true);
    }
}

const ODP_ACTION_SEEDS: &[&[u8]] = &[
    b"set(eth(src=00:01:02:03:04:05/ff:ff:ff:00:00:00)),push_vlan(vid=12,pcp=3),1,pop_vlan,sample(sample=50.0%,actions(1,2))",
    b"ct(commit,zone=5,mark=0xa0/0xff,nat(src=[fe80::1]-[fe80::5]:10-20,random)),check_pkt_len(size=200,gt(4),le(drop)),userspace(pid=1,slow_path(cfm))",
    b"set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,geneve({class=0xffff,type=0x80,len=4,0xa}),flags(df|key))),hash(l4(0)),recirc(0x10)",
];

fn odp_actions(input: &[u8]) {
    let names = PortNames::none();
    if let Ok(actions) = parse_actions(&text(input), &names) {
        let printed = format_actions(&actions, &names);
        let again = parse_actions(&printed, &names).unwrap_or_else(|e| panic!("{printed}: {e}"));
        assert_eq!(format_actions(&again, &names), printed);
    }
}

fn user_cookie(input: &[u8]) {
    if let Some(cookie) = UserCookie::from_bytes(input) {
        assert_eq!(UserCookie::from_bytes(&cookie.to_bytes()), Some(cookie));
    }
}

const SCHEMA_SEEDS: &[&[u8]] = &[
    br#"{"name":"d","version":"1.0.0","tables":{"t":{"columns":{"a":{"type":{"key":{"type":"integer","minInteger":0,"maxInteger":9},"min":0,"max":"unlimited"}},"b":{"type":{"key":"string","value":{"type":"uuid","refTable":"t","refType":"weak"}},"mutable":false}},"isRoot":true,"maxRows":5,"indexes":[["a"]]}}}"#,
];

fn ovsdb_schema(input: &[u8]) {
    if let Ok(schema) = ib_ovsdb::Schema::parse(&text(input)) {
        let printed = schema.to_json().to_text(Style::COMPACT);
        let again = ib_ovsdb::Schema::parse(&printed).expect("a printed schema parses");
        assert_eq!(again.to_json().to_text(Style::COMPACT), printed);
    }
}
