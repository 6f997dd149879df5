//! OpenFlow: messages, framing, matches in their wire forms, flows as text.

use ib_base::time::Clock;
use ib_flow::Match;
use ib_flow::text::parse::parse_exact_flow;
use ib_flow::text::{match_to_string, parse_match};
use ib_flow::wire::{nxm as nxm_wire, nxm_text as nxm_text_form, of10};
use ib_openflow::action_format::actions_text as format_actions;
use ib_openflow::action_parse::{parse_actions, parse_instructions};
use ib_openflow::decode::decode;
use ib_openflow::encode::encode;
use ib_openflow::flow_text::{Purpose, parse_flow_mod, parse_packet_out};
use ib_openflow::group_text::{parse_group_mod, parse_meter_mod};
use ib_openflow::message::{FlowMod, Message, PacketOut, Version, Versions};
use ib_openflow::names::NO_NAMES;
use ib_openflow::print::{PrintOptions, message_text};
use ib_openflow::raw::{Frame, KINDS, begin, finish, next_message};
use ib_openflow::session::Session;
use ib_openflow::wire::Buf;

use super::text;

const VERSIONS: [Version; 6] =
    [Version::V10, Version::V11, Version::V12, Version::V13, Version::V14, Version::V15];

/// Each kind of message with a body of zeros, and flow_mods of every version with what texts can say.
pub fn made_messages() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for kind in KINDS {
        for version in VERSIONS {
            if !(kind.first..=kind.last).contains(&version.to_wire()) {
                continue;
            }
            for steps in [0, 1, 4] {
                let mut b = Buf::default();
                begin(&mut b, kind.raw, version, 1);
                b.0.resize(b.0.len() + kind.min + kind.step * steps, 0);
                finish(&mut b, 0);
                all.push(b.0);
            }
        }
    }
    for version in VERSIONS {
        for (i, m) in MATCH_SEEDS.iter().enumerate() {
            let Ok((match_, _)) = parse_match(&text(m), None) else { continue };
            let actions = ACTION_SEEDS[i % ACTION_SEEDS.len()];
            let Ok((actions, _)) = parse_instructions(&text(actions), NO_NAMES) else { continue };
            let flow = FlowMod { match_, actions: actions.clone(), table_id: 1, ..FlowMod::default() };
            all.push(encode(&Message::FlowMod(Box::new(flow)), version, 7));
        }
    }
    all
}

/// What decodes encodes again, in its version, to what decodes.
pub fn message(input: &[u8]) {
    // The length field is made right: whether it is wrong is the framing's affair.
    let mut bytes = input.to_vec();
    if let (Ok(len), true) = (u16::try_from(bytes.len()), bytes.len() >= 8) {
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
    for verbosity in 0..4 {
        let text = message_text(&bytes, &PrintOptions { names: NO_NAMES, verbosity });
        assert!(text.ends_with('\n'), "{text:?}");
    }
    let Ok(decoded) = decode(&bytes) else { return };
    let Some(version) = Version::from_wire(decoded.header.version) else { return };
    let again = encode(&decoded.message, version, decoded.header.xid);
    if let Message::FlowMod(f) = &decoded.message {
        match_to_string(&f.match_, None);
        format_actions(&f.actions, &NO_NAMES);
        let redone = decode(&again);
        assert!(redone.is_ok(), "{:?}\n{}", redone.err(), format_actions(&f.actions, &NO_NAMES));
    }
}

/// A session takes a stream in any pieces.
pub fn session(input: &[u8]) {
    let now = Clock::new().now();
    let mut s = Session::new("fuzz", Versions(0x7e));
    for chunk in input.chunks(11) {
        s.input(chunk, now);
        while s.event().is_some() {}
        assert!(s.output().len() < 1 << 20);
    }
    s.run(now);
    let mut rest = input;
    while let Frame::Message(n) = next_message(rest) {
        assert!((8..=rest.len()).contains(&n));
        rest = &rest[n..];
    }
}

pub const MATCH_SEEDS: &[&[u8]] = &[
    b"in_port=1,dl_vlan=10,dl_vlan_pcp=3,ip,nw_src=10.0.0.0/8,nw_tos=32",
    b"tcp,tp_src=0x1000/0xf000,tcp_flags=+syn-ack,nw_ttl=64,ip_frag=first",
    b"icmp6,icmp_type=135,nd_target=fe80::1,nd_sll=00:11:22:33:44:55,ipv6_label=0x10",
    b"arp,arp_op=1,arp_spa=1.2.3.4,arp_tha=ff:ff:ff:ff:ff:ff",
    b"ct_state=+trk+est,ct_zone=5,ct_mark=0x1/0xff,ct_label=0x1,metadata=5,reg0=1/3,xxreg1=0x5",
    b"tun_id=0x5,tun_src=1.1.1.1,tun_ipv6_dst=::1,tun_metadata0=0x1234,tun_flags=+oam",
    b"mpls,mpls_label=5,mpls_tc=1,mpls_bos=1,vlan_tci=0x1005/0x1fff,pkt_mark=1",
    b"dl_type=0x894f,nsh_spi=0x123456,nsh_si=255,nsh_c1=1",
    b"packet_type=(1,0x800),nw_proto=17,conj_id=7,skb_priority=1,actset_output=2,dp_hash=1",
];

pub fn match_text(input: &[u8]) {
    let _ = parse_exact_flow(&text(input), None);
    let Ok((m, _)) = parse_match(&text(input), None) else { return };
    let printed = match_to_string(&m, None);
    if printed.contains("icmp_type=") || printed.contains("icmp_code=") {
        // Called tp_src and tp_dst they take 16 bits and a mask; printed under their names they need not parse.
        return;
    }
    if printed.contains("tun_tos=") {
        // Printed in hexadecimal without saying so, as users know it.
        return;
    }
    let (again, _) = parse_match(&printed, None).unwrap_or_else(|e| panic!("{printed}: {e}"));
    let reprinted = match_to_string(&again, None);
    assert_eq!(reprinted, printed);
}

pub const ACTION_SEEDS: &[&[u8]] = &[
    b"mod_vlan_vid:5,set_field:10.0.0.1->nw_dst,load:0x5->NXM_NX_REG0[0..3],move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:1,2,LOCAL,NORMAL,FLOOD",
    b"ct(commit,zone=NXM_NX_REG0[0..15],nat(src=10.0.0.1-10.0.0.9:5-10,random),exec(load:1->NXM_NX_CT_MARK[]),table=5,alg=ftp)",
    b"learn(table=1,idle_timeout=5,hard_timeout=6,cookie=0x7,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],output:NXM_OF_IN_PORT[])",
    b"write_actions(group:5,set_queue:2),write_metadata:0x5/0xff,goto_table:7,meter:5,clear_actions",
    b"push_vlan:0x8100,push_mpls:0x8847,pop_mpls:0x0800,dec_ttl(1,2),set_mpls_ttl(5),encap(nsh(md_type=1)),decap(packet_type(ns=0,type=0))",
    b"controller(reason=no_match,max_len=65,id=5,userdata=01.02.03,pause,meter_id=2),note:01.02,sample(probability=12345,collector_set_id=1,obs_domain_id=2,obs_point_id=3,sampling_port=1,egress)",
    b"bundle(eth_src,50,active_backup,ofport,members:1,2),multipath(symmetric_l4,5,modulo_n,2,0,NXM_NX_REG0[]),bundle_load(eth_src,0,hrw,ofport,NXM_NX_REG0[],members:4)",
    b"resubmit(,5),resubmit(1,2,ct),clone(push_vlan:0x8100,output:5),check_pkt_larger(1500)->NXM_NX_REG0[0],conjunction(5,1/2),fin_timeout(idle_timeout=5,hard_timeout=6),output(port=1,max_len=100),drop",
    b"enqueue:5:7,strip_vlan,mod_nw_tos:32,mod_tp_src:5,push:NXM_NX_REG0[],pop:NXM_NX_REG1[0..4],ct_clear,delete_field:tun_metadata0,exit,set_tunnel64:5,debug_recirc",
];

pub fn actions_text(input: &[u8]) {
    let given = text(input);
    let _ = parse_actions(&given, NO_NAMES);
    let Ok((actions, _)) = parse_instructions(&given, NO_NAMES) else { return };
    let printed = format_actions(&actions, &NO_NAMES);
    let (again, _) = parse_instructions(&printed, NO_NAMES).unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(format_actions(&again, &NO_NAMES), printed);
    // What a text says goes through the wire of a version that can carry it all.
    let flow = FlowMod { actions: actions.clone(), ..FlowMod::default() };
    let _ = decode(&encode(&Message::FlowMod(Box::new(flow)), Version::V15, 1));
    let out = PacketOut { actions, ..PacketOut::default() };
    let _ = decode(&encode(&Message::PacketOut(Box::new(out)), Version::V10, 1));
}

pub const FLOW_SEEDS: &[&[u8]] = &[
    b"add table=5,priority=10,cookie=0x5,idle_timeout=5,hard_timeout=6,send_flow_rem,tcp,nw_dst=1.2.3.4,tp_dst=80,actions=ct(table=1),2",
    b"delete table=1,out_port=5,out_group=7,cookie=1/3,ip",
    b"modify_strict importance=3,reset_counts,check_overlap,in_port=LOCAL,actions=group:1,goto_table:9",
    b"in_port=1 packet=505400000001505400000002080045000014 actions=2",
    b"group_id=5,type=select,selection_method=dp_hash,bucket=bucket_id:1,weight:5,watch_port:2,actions=output:1,bucket=actions=drop",
    b"insert_bucket group_id=5,command_bucket_id=last,bucket=bucket_id:9,actions=2",
    b"meter=5,kbps,burst,stats,bands=type=drop,rate=100,burst_size=20,type=dscp_remark,rate=5,prec_level=1",
];

/// A line as a flow, a group, a meter and a packet; what is one goes on the wire, and the wire prints.
pub fn flow_text(input: &[u8]) {
    let line = text(input);
    let mut messages = Vec::new();
    for purpose in [Purpose::AnyMod, Purpose::Stats] {
        messages.extend(
            parse_flow_mod(&line, purpose, NO_NAMES).ok().map(|(f, _)| Message::FlowMod(Box::new(f))),
        );
    }
    messages.extend(parse_packet_out(&line, NO_NAMES).ok().map(|(p, _)| Message::PacketOut(Box::new(p))));
    messages.extend(parse_group_mod(&line, None, NO_NAMES).ok().map(|(g, _)| Message::GroupMod(g)));
    for command in [0, 2] {
        messages.extend(parse_meter_mod(&line, command).ok().map(Message::MeterMod));
    }
    for message in &messages {
        for version in [Version::V10, Version::V13, Version::V15] {
            let grouped = matches!(message, Message::GroupMod(_) | Message::MeterMod(_));
            if version == Version::V10 && grouped {
                continue;
            }
            let bytes = encode(message, version, 1);
            message_text(&bytes, &PrintOptions { names: NO_NAMES, verbosity: 1 });
        }
    }
}

pub fn made_nxm() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for m in MATCH_SEEDS {
        let Ok((m, _)) = parse_match(&text(m), None) else { continue };
        for version in [1, 4, 6] {
            let mut out = Vec::new();
            nxm_wire::encode(&m, version, None, &mut out);
            all.push(out);
        }
    }
    all
}

/// A match decoded and encoded decodes to the same.
pub fn nxm(input: &[u8]) {
    nxm_text_form::to_text(input);
    for strict in [false, true] {
        let options = nxm_wire::DecodeOptions { strict, tlv_table: 0 };
        let mut cookie = None;
        let Ok(m) = nxm_wire::decode(input, options, Some(&mut cookie)) else { continue };
        if !strict {
            continue;
        }
        for version in [1, 4, 6] {
            let mut out = Vec::new();
            nxm_wire::encode(&m, version, cookie, &mut out);
            let mut cookie_again = None;
            let again = nxm_wire::decode(&out, options, Some(&mut cookie_again));
            // OXM cannot say all that NXM can of VLANs.
            if version == 1 {
                same_match(&m, &again.expect("what was encoded decodes"));
                assert_eq!(cookie_again, cookie);
            }
        }
    }
}

fn same_match(a: &Match, b: &Match) {
    let (a, b) = (match_to_string(a, None), match_to_string(b, None));
    assert_eq!(a, b);
}

pub const NXM_TEXT_SEEDS: &[&[u8]] = &[
    b"NXM_OF_IN_PORT(0001), NXM_OF_ETH_TYPE(0800), NXM_OF_IP_SRC_W(0a000000/ff000000)",
    b"OXM_OF_VLAN_VID_W(1005/1fff), 0001020304(05), <any>",
];

pub fn nxm_text(input: &[u8]) {
    if let Ok(bytes) = nxm_text_form::from_text(&text(input)) {
        nxm_text_form::to_text(&bytes);
    }
}

pub fn made_of10() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for m in MATCH_SEEDS {
        let Ok((m, _)) = parse_match(&text(m), None) else { continue };
        all.push([&of10::encode10(&m)[..], &of10::encode11(&m)[..]].concat());
    }
    all
}

/// The fixed matches of 1.0 and 1.1: what decodes is, encoded, what decodes to the same.
pub fn ofp_match(input: &[u8]) {
    let Some((first, rest)) = input.split_first_chunk::<{ of10::OF10_LEN }>() else { return };
    let m = of10::decode10(first);
    same_match(&m, &of10::decode10(&of10::encode10(&m)));
    let Some(second) = rest.first_chunk::<{ of10::OF11_LEN }>() else { return };
    if let Ok(m) = of10::decode11(second) {
        let again = of10::decode11(&of10::encode11(&m)).expect("what was encoded decodes");
        same_match(&m, &again);
    }
}
