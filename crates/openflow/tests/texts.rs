//! Messages as `ovs-ofctl ofp-print` shows them, from literal bytes; what it says is Open vSwitch's own.

use ib_openflow::print::{PrintOptions, message_text};

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

fn check(hex: &str, expect: &str) {
    assert_eq!(message_text(&bytes_of(hex), &PrintOptions { verbosity: 2, ..Default::default() }), expect);
}

#[test]
fn flow_monitors() {
    check(
        "0412003800000002ffff0000000000004f4e46000000074e00000000003f000c00000003030000000001000c80000004
         0000000500000000",
        "ONFST_FLOW_MONITOR request (OF1.3) (xid=0x2):\n \
         id=0 flags=initial,add,delete,modify,actions,own out_port=3 table=3 in_port=5\n",
    );
    check(
        "0413005800000002ffff0000000000004f4e46000000074e004000000000000700000000000c03000000000000000003
         0001000c800000040000000500000000000400180000000000000010000000040000000000000000",
        "ONFST_FLOW_MONITOR reply (OF1.3) (xid=0x2):\n \
         event=ADDED table=3 cookie=0x3 in_port=5 actions=output:4\n",
    );
    check(
        "0512002800000003001000000000000000000001ffffffffffffffff005fff000001000400000000",
        "OFPST_FLOW_MONITOR request (OF1.4) (xid=0x3):\n \
         id=1 flags=initial,add,delete,modify,actions,own\n",
    );
    check(
        "05130050000000030010000000000000004000000300000000000007000000000000000000000003
         0001000c800000040000000500000000000400180000000000000010000000040000000000000000",
        "OFPST_FLOW_MONITOR reply (OF1.4) (xid=0x3):\n \
         event=INITIAL table=3 cookie=0x3 in_port=5 actions=output:4\n",
    );
}

#[test]
fn connection_flush() {
    check(
        "01040048000000020000232000000020060000000000000000000028000000000000001400000000000000000000ffff
         010203040000000000020008000500000002000800050000",
        "NXT_CT_FLUSH (xid=0x2): zone=5 'ct_nw_src=1.2.3.4,ct_nw_dst=::,ct_tp_src=5,ct_tp_dst=0,ct_nw_proto=6' \
         'ct_nw_src=::,ct_nw_dst=::,ct_tp_src=0,ct_tp_dst=0'\n",
    );
}

#[test]
fn flags_and_strange_parts() {
    check(
        "041200100000000200000 0ff00000000",
        "OFPST_DESC request (OF1.3) (xid=0x2): flags=[more][***unknown flags 0x00fe***]\n",
    );
    check(
        "0300000a000000030001",
        "OFPT_HELLO (OF1.2) (xid=0x3):\n version bitmap: 0x01, 0x02, 0x03\n unknown data in hello:\n\
         00000000  03 00 00 0a 00 00 00 03-00 01                   |..........      |\n",
    );
    check(
        "010e004800000004003820ff",
        "OFPT_FLOW_MOD (xid=0x4):\n(***truncated to 12 bytes from 72***)\n\
         00000000  01 0e 00 48 00 00 00 04-00 38 20 ff             |...H.....8 .    |\n",
    );
    check("010400180000000400002320000000180002000000000000", "NXT_TLV_TABLE_MOD (xid=0x4):\n CLEAR\n");
}

/// A flow as OpenFlow 1.3 carries it, as text.
fn as_13(flow: &str) -> String {
    use ib_openflow::encode::encode;
    use ib_openflow::flow_text::{Purpose, parse_flow_mod};
    use ib_openflow::message::{FlowModCommand, Message, Version};
    use ib_openflow::names::NO_NAMES;
    let (fm, _) = parse_flow_mod(flow, Purpose::Mod(FlowModCommand::Add), NO_NAMES).unwrap();
    let bytes = encode(&Message::FlowMod(Box::new(fm)), Version::V13, 1);
    message_text(&bytes, &PrintOptions::default())
}

/// A tag is pushed where there is none by then: what the match has, and what stands in front, counts.
#[test]
fn a_tag_is_pushed_once() {
    for (flow, expect) in [
        (
            "actions=mod_vlan_vid:3,mod_vlan_pcp:7",
            "push_vlan:0x8100,set_field:4099->vlan_vid,set_field:7->vlan_pcp",
        ),
        ("dl_vlan=5,actions=mod_vlan_vid:3", "set_field:4099->vlan_vid"),
        ("actions=push_vlan:0x88a8,mod_vlan_pcp:7", "push_vlan:0x88a8,set_field:7->vlan_pcp"),
        ("dl_vlan=5,actions=strip_vlan,mod_vlan_pcp:7", "pop_vlan,push_vlan:0x8100,set_field:7->vlan_pcp"),
        (
            "actions=mod_vlan_pcp:7,write_actions(mod_vlan_pcp:7)",
            "push_vlan:0x8100,set_field:7->vlan_pcp,write_actions(set_field:7->vlan_pcp)",
        ),
    ] {
        let text = as_13(flow);
        assert!(text.trim_end().ends_with(&format!("actions={expect}")), "{flow}: {text}");
    }
}

/// What a switch refuses is printed all the same, and a number without a name as a number.
#[test]
fn what_no_switch_does_is_printed() {
    for (hex, expect) in [
        ("041d00100000000700010000 00000000", "OFPT_METER_MOD (OF1.3) (xid=0x7): MOD meter=0 bands=\n"),
        (
            "052100100000000700000000 fffe0000",
            "OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x7):\n bundle_id=0 type= flags=0\n",
        ),
        (
            "0512002800000007001000000000000000000000ffffffffffffffff005e001800010004 00000000",
            "OFPST_FLOW_MONITOR request (OF1.4) (xid=0x7):\n id=0 flags=add,delete,modify,actions,own table=0\n",
        ),
        (
            "040b003800000007000000000000000080001ff80000000002aea5400000000100000000000000000000000000000000
             0001000400000000",
            "OFPT_FLOW_REMOVED (OF1.3) (xid=0x7):  reason=31 table_id=248 duration0.045s idle0 hard1 pkts0 bytes0\n",
        ),
        (
            "0613002000000007000f001800000000fffffffe000000000010000000000000",
            "OFPST_QUEUE_DESC reply (OF1.5) (xid=0x7): flags=[***unknown flags 0x0018***] port=LOCAL\nqueue 0:\n",
        ),
        (
            "020b00880000000700000000000000008000021e0000000002aea54000000001000000000000000000000000000000000000
             005800000000000003ff000000000000ffffffffffff000000000000ffffffffffff000000000000000000000000ffffffff
             00000000ffffffff0000000000000000000000000000000000000000ffffffffffffffff",
            "OFPT_FLOW_REMOVED (OF1.1) (xid=0x7):  reason=delete table_id=30 duration0.045s idle0 hard1 pkts0 bytes0\n",
        ),
        ("030f001000000007000300007fff0000", "OFPT_GROUP_MOD (OF1.2) (xid=0x7):\n INSERT_BUCKET group_id=2147418112\n"),
        (
            "050e003800000007000000000000000000000000000000001b01000000008000ffffffffffffffffffffffff0000030000010004
             00000000",
            "OFPT_FLOW_MOD (OF1.4) (xid=0x7): MOD table:27 actions=drop\n",
        ),
        ("011500180000000700000000000000000000000000080000", "OFPT_QUEUE_GET_CONFIG_REPLY (xid=0x7): queue 0:\n"),
    ] {
        check(hex, expect);
    }
    let insert = bytes_of("030f001000000007000300007fff0000");
    assert_eq!(
        ib_openflow::decode::decode(&insert).err(),
        Some(ib_openflow::error::OfError::OFPGMFC_BAD_COMMAND)
    );
    let meter = bytes_of("041d00100000000700010000 00000000");
    assert_eq!(
        ib_openflow::decode::decode(&meter).err(),
        Some(ib_openflow::error::OfError::OFPMMFC_INVALID_METER)
    );
}

/// Which of two faults is named.
#[test]
fn the_first_fault_is_named() {
    for (hex, error) in [
        ("0705000800000007", "OFPBRC_BAD_TYPE"),
        (
            "051000300000000700000001000000000009aa550006000000000000000000010000000c000000000000000000000000",
            "OFPBPC_BAD_LEN",
        ),
        ("0611002000000007050000000000000c0002000800000007000300070a140000", "OFPBPC_BAD_LEN"),
        (
            "040a0028000000070000000100000000aa55aa55000600000000ffff000000000000000000000000",
            "OFPBMC_BAD_TYPE",
        ),
        (
            "0110003800000007ffff00000000232000000002000000000000000000000000000000000000000000000000003effff0000010000000000",
            "OFPMOFC_BAD_FLAGS",
        ),
        ("061100180000000705000000000000000003000814 0a0000", "OFPBPC_BAD_VALUE"),
        ("0611001800000007050000000000000000030008 0a140300", "OFPBPC_BAD_VALUE"),
        ("05200010000000070007000000000000", "OFPBFC_MSG_BAD_LEN"),
        ("0212001700000007ffff00000000000000008000000004", "OFPBRC_BAD_LEN"),
        ("061d00200000000700007fffffffff fd00010005000004320000000000000000", "OFPMMFC_BAD_FLAGS"),
        (
            "020d003600000007ffff0007fffffff9001000000000000000000010ffff0003000000000000000050540000000a5054000000091234",
            "OFPBAC_BAD_OUT_PORT",
        ),
        (
            "030d006000000007ffffffff0000000100200000 0000000000fffffdffff000000000000ffff001000002320000efff80100000050540000000a50540000000908004500001c00000000401100000a0000010a00000200010002000800000000",
            "OFPBAC_BAD_TYPE",
        ),
    ] {
        let text = message_text(&bytes_of(hex), &PrintOptions::default());
        assert!(text.contains(&format!("***decode error: {error}***")), "{hex}: {text}");
    }
}

#[test]
fn the_match_tells_whose_port_is_set() {
    let head = "OFPT_FLOW_MOD (OF1.3) (xid=0x1): ADD";
    for (kind, field) in [("tcp", "tcp_dst"), ("udp", "udp_dst"), ("udp6", "udp_dst"), ("sctp", "sctp_dst")] {
        let text = as_13(&format!("{kind},actions=mod_tp_dst:5"));
        assert_eq!(text, format!("{head} {kind} actions=set_field:5->{field}\n"));
    }
    // A port of a connection says nothing without its protocol.
    assert_eq!(
        as_13("ct_state=+trk,ip,ct_tp_src=5,actions=drop"),
        format!("{head} ct_state=+trk,ip actions=drop\n")
    );
}

#[test]
fn table_of_openflow_10() {
    check(
        "0104003000000001000023200000000d0000000000000000ff000000000080 00ffffffffffff00000000000000000000",
        "NXT_FLOW_MOD (xid=0x1): ADD table:255 actions=drop\n",
    );
}

/// A switch with more ports than a features reply holds tells of as many as it does; the length stays true.
#[test]
fn a_features_reply_holds_what_fits() {
    use ib_openflow::message::{Port, SwitchFeatures, Version};
    let ports = vec![Port::default(); 2000];
    let message =
        ib_openflow::message::Message::FeaturesReply(SwitchFeatures { ports, ..SwitchFeatures::default() });
    for (version, fits, each) in [(Version::V10, 1364, 48), (Version::V11, 1023, 64)] {
        let bytes = ib_openflow::encode::encode(&message, version, 1);
        assert_eq!(bytes.len(), 32 + fits * each);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
    }
}

#[test]
fn entries_in_front_of_a_malformed_one_are_printed() {
    check(
        "051300480000000200050000000000000030000000000000fffffffe0000000000000000000000010000000000000002
         000000000000000300000004000000050030000000000000",
        "OFPST_QUEUE reply (OF1.4) (xid=0x2): 1 queues\n  \
         port LOCAL queue 0: bytes=1, pkts=2, errors=3, duration=4.000000005s\n\
         ***decode error: OFPBRC_BAD_LEN***\n\
         00000000  05 13 00 48 00 00 00 02-00 05 00 00 00 00 00 00 |...H............|\n\
         00000010  00 30 00 00 00 00 00 00-ff ff ff fe 00 00 00 00 |.0..............|\n\
         00000020  00 00 00 00 00 00 00 01-00 00 00 00 00 00 00 02 |................|\n\
         00000030  00 00 00 00 00 00 00 03-00 00 00 04 00 00 00 05 |................|\n\
         00000040  00 30 00 00 00 00 00 00-                        |.0......        |\n",
    );
    check(
        "0313003800000002000600000000000000200000000000040000000000000000000000000000000000000000000000000030
         000000000005",
        "OFPST_GROUP reply (OF1.2) (xid=0x2):\n \
         group_id=4,ref_count=0,packet_count=0,byte_count=0 ***parse error***\n\
         ***decode error: OFPBRC_BAD_LEN***\n\
         00000000  03 13 00 38 00 00 00 02-00 06 00 00 00 00 00 00 |...8............|\n\
         00000010  00 20 00 00 00 00 00 04-00 00 00 00 00 00 00 00 |. ..............|\n\
         00000020  00 00 00 00 00 00 00 00-00 00 00 00 00 00 00 00 |................|\n\
         00000030  00 30 00 00 00 00 00 05-                        |.0......        |\n",
    );
}

#[test]
fn removed_flows_of_openflow_15() {
    let hex =
        "060b0050000000000302004d003c004600000000000000550001000c80000004000000020000000000000028800200080000
               000001c9c38080020808000000000000000080020a080000000000000000";
    check(
        hex,
        "OFPT_FLOW_REMOVED (OF1.5) (xid=0x0): priority=77,in_port=2 reason=delete table_id=3 cookie:0x55 \
         duration0.030s idle60 hard70 pkts0 bytes0\n",
    );
    let bytes = bytes_of(hex);
    let decoded = ib_openflow::decode::decode(&bytes).unwrap();
    assert_eq!(ib_openflow::encode::encode(&decoded.message, ib_openflow::message::Version::V15, 0), bytes);
}

#[test]
fn a_table_is_renamed() {
    let hex = "0612005000000005000c00000000000000400101000000 00666f6f00000000000000000000000000000000000000000000000000
               00000000ffffffffffffffffffffffffffffffff00000000000f4240";
    check(
        hex,
        "OFPST_TABLE_FEATURES request (OF1.5) (xid=0x5):\n  command: modify\n  table 1 (\"foo\"):\n    \
         metadata: match=0xffffffffffffffff write=0xffffffffffffffff\n    eviction: not supported\n    \
         vacancy events: not supported\n    max_entries=1000000\n",
    );
    let bytes = bytes_of(hex);
    let decoded = ib_openflow::decode::decode(&bytes).unwrap();
    assert_eq!(ib_openflow::encode::encode(&decoded.message, ib_openflow::message::Version::V15, 5), bytes);
}

#[test]
fn the_reason_of_a_failed_hello_is_text() {
    check("0101001000000009000000006e6f0000", "OFPT_ERROR (xid=0x9): OFPHFC_INCOMPATIBLE\nno\\000\\000\n");
    check("0101000c0000000900000000", "OFPT_ERROR (xid=0x9): OFPHFC_INCOMPATIBLE\n");
}
