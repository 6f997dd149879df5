//! Traces against what Open vSwitch says of the same flows and packets.

use ib_openflow::message::{MeterBand, MeterConfig, MeterFlags, MeterMod};

use crate::flow_mod::rule_mod;
use crate::testing::Lab;

fn lab() -> Lab {
    Lab::new()
        .bridge("br0", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
        .bridge("br1", &[13, 14, 15])
        .patch(("br0", "pb", 20), ("br1", "pa", 21))
}

/// Flows of `br0`, a packet, and its megaflow and datapath actions.
fn check(flows: &str, packet: &str, expect: &str) {
    let mut lab = lab().flows("br0", flows).flows("br1", "actions=normal");
    assert_eq!(lab.trace_tail(&["br0", packet]), expect, "{flows} / {packet}");
}

#[test]
fn who_looks_at_nothing_of_a_packet_takes_all_types() {
    check(
        "in_port=1,actions=output:2",
        "in_port=1,packet_type=(1,0x800)",
        "Megaflow: recirc_id=0,packet_type=(1,0x800),ip,in_port=1,nw_frag=no\nDatapath actions: drop",
    );
}

#[test]
fn masks_and_actions_are_those_of_open_vswitch() {
    check(
        "in_port=1,ip,actions=set_field:10.0.0.1->nw_src,output:2",
        "in_port=1,icmp",
        "Megaflow: recirc_id=0,eth,icmp,in_port=1,nw_src=0.0.0.0,nw_frag=no\n\
         Datapath actions: set(ipv4(src=10.0.0.1)),2",
    );
    check(
        "in_port=1,tcp,tcp_dst=80,actions=set_field:9->tcp_src,output:5",
        "in_port=1,tcp,tcp_dst=80",
        "Megaflow: recirc_id=0,eth,tcp,in_port=1,nw_frag=no,tp_src=0,tp_dst=80\n\
         Datapath actions: set(tcp(src=9)),5",
    );
    check(
        "in_port=1,ip,nw_dst=10.0.0.1,priority=100,actions=output:5\nin_port=1,priority=1,actions=output:6",
        "in_port=1,tcp,nw_dst=10.0.0.2",
        "Megaflow: recirc_id=0,eth,ip,in_port=1,nw_dst=10.0.0.2/31,nw_frag=no\nDatapath actions: 6",
    );
    check(
        "in_port=9,ip,actions=push_mpls:0x8847,set_field:10->mpls_label,output:2",
        "in_port=9,icmp",
        "Megaflow: recirc_id=0,eth,ip,in_port=9,nw_tos=0,nw_ttl=0,nw_frag=no\n\
         Datapath actions: push_mpls(label=10,tc=0,ttl=64,bos=1,eth_type=0x8847),2",
    );
    check(
        "in_port=10,actions=mod_vlan_vid:5,output:2,mod_vlan_pcp:3,output:3,strip_vlan,output:4",
        "in_port=10,icmp",
        "Megaflow: recirc_id=0,eth,ip,in_port=10,nw_frag=no\n\
         Datapath actions: push_vlan(vid=5,pcp=0),2,pop_vlan,push_vlan(vid=5,pcp=3),3,pop_vlan,4",
    );
    check(
        "in_port=10,ipv6,actions=set_field:fe80::1->ipv6_src,dec_ttl,output:1",
        "in_port=10,tcp6,nw_ttl=5",
        "Megaflow: recirc_id=0,eth,tcp6,in_port=10,ipv6_src=::,nw_ttl=5,nw_frag=no\n\
         Datapath actions: set(ipv6(src=fe80::1,hlimit=4)),1",
    );
}

#[test]
fn hashes_choose_the_links_of_open_vswitch() {
    let packet = "in_port=1,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,\
                  tp_src=1000,tp_dst=80";
    let chosen = |actions: &str| {
        let mut lab = lab().flows("br0", &format!("in_port=1,actions={actions}"));
        let tail = lab.trace_tail(&["br0", packet]);
        tail.rsplit_once(": ").map(|(_, port)| port.to_owned()).unwrap_or_default()
    };
    for (fields, port) in [
        ("eth_src", "5"),
        ("symmetric_l4", "4"),
        ("symmetric_l3l4+udp", "7"),
        ("nw_src", "8"),
        ("symmetric_l3", "7"),
    ] {
        let bundle = format!("bundle({fields},50,hrw,ofport,members:2,3,4,5,6,7,8,9)");
        assert_eq!(chosen(&bundle), port, "{bundle}");
    }
    for (algorithm, port) in [("modulo_n", "3"), ("hash_threshold", "3"), ("hrw", "5"), ("iter_hash", "6")] {
        let path = format!("multipath(symmetric_l4,7,{algorithm},8,0,NXM_NX_REG0[]),output:NXM_NX_REG0[]");
        assert_eq!(chosen(&path), port, "{path}");
    }
}

#[test]
fn a_truncation_comes_before_what_changes_the_packet() {
    check(
        "in_port=1,actions=mod_vlan_vid:5,output:3,strip_vlan,output(port=2,max_len=100)",
        "in_port=1,icmp",
        "Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\n\
         Datapath actions: push_vlan(vid=5,pcp=0),3,trunc(100),pop_vlan,2",
    );
}

#[test]
fn a_miss_is_proved_by_a_prefix_of_the_port() {
    check(
        "in_port=1,tcp,tp_dst=82,tcp_flags=+rst,actions=2",
        "in_port=1,tcp,tp_dst=81",
        "Megaflow: recirc_id=0,eth,tcp,in_port=1,nw_frag=no,tp_dst=0x50/0xfffe,tcp_flags=-rst\n\
         Datapath actions: drop",
    );
    check(
        "in_port=1,arp,arp_spa=1.2.3.4,arp_sha=50:54:00:00:00:01,actions=2",
        "in_port=1,arp,arp_spa=1.2.3.5,arp_sha=50:54:00:00:00:02",
        "Megaflow: recirc_id=0,eth,arp,in_port=1,arp_spa=1.2.3.5\nDatapath actions: drop",
    );
}

#[test]
fn an_action_set_has_one_way_out() {
    check(
        "in_port=1,tcp,actions=write_actions(ct(commit),output:2)",
        "in_port=1,tcp",
        "Megaflow: recirc_id=0,eth,tcp,in_port=1,nw_frag=no\nDatapath actions: 2",
    );
}

#[test]
fn floods_pass_patch_ports_and_keep_their_order() {
    check(
        "in_port=7,actions=flood",
        "in_port=7,icmp",
        "Megaflow: recirc_id=0,eth,ip,in_port=7,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,nw_frag=no\n\
         Datapath actions: 11,10,8,100,9,5,12,101,13,14,15,1,4,6,2,3",
    );
}

#[test]
fn branches_do_not_leak() {
    check(
        "in_port=1,tcp,actions=clone(ct(commit),output:2),output:3",
        "in_port=1,tcp",
        "Megaflow: recirc_id=0,eth,tcp,in_port=1,nw_frag=no\nDatapath actions: clone(ct(commit),2),3",
    );
    check(
        "in_port=8,udp,actions=check_pkt_larger(100)->reg0[0],resubmit(,7)\n\
         table=7,reg0=1,actions=output:9\ntable=7,reg0=0,actions=output:10",
        "in_port=8,udp",
        "Megaflow: recirc_id=0,eth,udp,in_port=8,nw_frag=no\n\
         Datapath actions: check_pkt_len(size=100,gt(9),le(10))",
    );
}

#[test]
fn conntrack_is_followed_through_recirculation() {
    let mut lab = lab().flows(
        "br0",
        "in_port=3,ip,actions=ct(table=5,zone=3),output:4\n\
         table=5,ct_state=+new+trk,ip,actions=ct(commit,zone=3),output:9",
    );
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=3,ip"]);
    let expect = "\
Datapath actions: ct(zone=3),recirc(0x1),4

===============================================================================
recirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

Flow: recirc_id=0x1,ct_state=new|trk,ct_zone=3,eth,ip,in_port=3,vlan_tci=0x0000,\
dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_proto=0,nw_tos=0,\
nw_ecn=0,nw_ttl=0,nw_frag=no

bridge(\"br0\")
-------------
    thaw
        Resuming from table 5
 5. ct_state=+new+trk,ip, priority 32768
    ct(commit,zone=3)
    drop
     -> Sets the packet to an untracked state, and clears all the conntrack fields.
    output:9
";
    assert!(text.contains(expect), "{text}");
}

#[test]
fn endless_resubmits_end() {
    let mut lab = lab().flows("br0", "in_port=9,tcp,actions=resubmit(,0)");
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=9,tcp"]);
    assert!(text.contains("     >>>> over max translation depth 64 <<<<\n"), "{text}");
    assert!(text.ends_with("\nTranslation failed (Recursion too deep), packet is dropped.\n"), "{text}");
}

#[test]
fn headers_are_put_in_front_and_taken_off() {
    check(
        "ip,actions=encap(nsh(md_type=1)),set_field:5->nsh_spi,set_field:7->nsh_si,encap(ethernet),output:2",
        "in_port=1,tcp",
        "Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\n\
         Datapath actions: push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x5,si=7,c1=0x0,c2=0x0,c3=0x0,c4=0x0),\
         push_eth(src=00:00:00:00:00:00,dst=00:00:00:00:00:00),2",
    );
    check(
        "actions=decap(),decap(),output:2",
        "in_port=1,dl_type=0x894f,nsh_mdtype=1,nsh_np=1",
        "Megaflow: recirc_id=0,eth,in_port=1,dl_type=0x894f,nsh_np=1\n\
         Datapath actions: pop_eth,pop_nsh(),recirc(0x1)",
    );
    check(
        "actions=decap(),encap(mpls),encap(ethernet),output:2",
        "in_port=1,tcp",
        "Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\n\
         Datapath actions: pop_eth,add_mpls(label=0,tc=0,ttl=64,bos=1,eth_type=0x8847),\
         push_eth(src=00:00:00:00:00:00,dst=00:00:00:00:00:00),2",
    );
}

#[test]
fn tries_of_ip_do_not_look_into_arp() {
    check(
        "arp,arp_spa=10.0.0.2,actions=output:2",
        "in_port=2,arp,arp_spa=10.0.0.1",
        "Megaflow: recirc_id=0,eth,arp,in_port=2,arp_spa=10.0.0.1\nDatapath actions: drop",
    );
}

#[test]
fn meters_take_the_lowest_free_place_in_the_datapath() {
    let mut lab = lab();
    let b = lab.switch.bridge("br0").unwrap();
    let band = MeterBand { kind: 1, prec_level: 0, rate: 1, burst: 0 };
    for (command, meter_id) in [(0, 7), (0, 9), (2, 7), (0, 4), (0, crate::meter::OFPM_CONTROLLER)] {
        let meter = MeterConfig { meter_id, flags: MeterFlags::PKTPS, bands: vec![band] };
        b.of.meter_mod(&b.backer, &MeterMod { command, meter }, lab.clock.now()).unwrap();
    }
    lab =
        lab.flows("br0", "in_port=1,actions=meter:9,output:2\nin_port=2,actions=meter:4,controller,output:1\nin_port=3,actions=controller(meter_id=9)");
    assert!(lab.trace_tail(&["br0", "in_port=1"]).ends_with("Datapath actions: meter(1),2"));
    let metered = lab.trace_tail(&["br0", "in_port=2"]);
    assert!(metered.contains("Datapath actions: meter(0),sample(sample=100.0%,actions(meter(2),userspace("));
    let own = lab.trace_tail(&["br0", "in_port=3"]);
    assert!(own.contains("Datapath actions: sample(sample=100.0%,actions(meter(1),userspace("), "{own}");
}

#[test]
fn mirrors_copy_what_their_filter_matches() {
    let mirror = |filter: &str| crate::config::MirrorConfig {
        name: "m".into(),
        select_all: true,
        output_port: Some("p3".into()),
        filter: filter.into(),
        ..Default::default()
    };
    let mut lab = lab().flows("br0", "in_port=1,actions=output:2");
    lab.switch.bridge_mut("br0").unwrap().mirror_set(mirror("tcp")).unwrap();
    let megaflow = |proto| format!("Megaflow: recirc_id=0,eth,{proto},in_port=1,nw_frag=no\n");
    let icmp = lab.trace_tail(&["br0", "in_port=1,icmp"]);
    assert_eq!(icmp, megaflow("icmp") + "Datapath actions: 2");
    let tcp = lab.trace_tail(&["br0", "in_port=1,tcp"]);
    assert_eq!(tcp, megaflow("tcp") + "Datapath actions: 3,2");
    let refused = lab.switch.bridge_mut("br0").unwrap().mirror_set(mirror("nonsense"));
    assert_eq!(refused.unwrap_err().to_string(), "filter is invalid: field nonsense missing value");
    assert_eq!(
        lab.trace_tail(&["br0", "in_port=1,tcp"]),
        "Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\nDatapath actions: 2"
    );
}

#[test]
fn clones_end_as_the_original_s() {
    let to = |actions: &str, datapath: &str| {
        check(
            &format!("ip,in_port=1,actions={actions}"),
            "in_port=1,icmp",
            &format!("Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\nDatapath actions: {datapath}"),
        );
    };
    // An exit is everyone's; the last copy is none.
    to("clone(exit,2),3", "drop");
    to("clone(ct(commit),exit,2),3", "ct(commit)");
    to("clone(ct(commit),2),load:1->NXM_NX_REG0[]", "ct(commit),2");
    to("clone(ct(commit),2),3", "clone(ct(commit),2),3");
    to("clone(check_pkt_larger(100)->NXM_NX_REG0[0],output:2),3", "check_pkt_len(size=100,gt(2),le(2)),3");
}

#[test]
fn masks_tell_what_a_packet_has_become() {
    check(
        "icmp6,icmp_type=135,actions=push_mpls:0x8847,output:2",
        "in_port=1,icmp6,icmpv6_type=135,icmpv6_code=0,nw_ttl=9",
        "Megaflow: recirc_id=0,eth,icmp6,in_port=1,nw_tos=0,nw_ttl=9,nw_frag=no,icmp_type=135\n\
         Datapath actions: push_mpls(label=2,tc=0,ttl=9,bos=1,eth_type=0x8847),2",
    );
}

#[test]
fn a_frame_out_of_an_nsh_has_no_addresses_yet() {
    let mut lab = lab().flows("br0", "in_port=1,actions=encap(nsh),encap(ethernet),decap(),decap(),output:2");
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=1,tcp,dl_src=00:00:00:00:00:01"]);
    let (_, actions) = text.split_once("Datapath actions: ").unwrap();
    assert!(
        actions.contains("push_eth(src=00:00:00:00:00:00,dst=00:00:00:00:00:00),pop_eth,pop_nsh(),"),
        "{actions}"
    );
    assert!(text.contains("Final flow: in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,"), "{text}");
}

#[test]
fn buckets_that_are_not_live_are_told_of() {
    let mut lab = lab();
    let of = std::sync::Arc::clone(&lab.switch.bridge("br0").unwrap().of);
    // Port 99 is not there; the others are.
    for text in [
        "group_id=1,type=ff,bucket=watch_port:99,actions=2,bucket=watch_port:3,actions=3",
        "group_id=2,type=ff,bucket=watch_port:99,actions=2",
        "group_id=3,type=ff,bucket=watch_group:2,actions=2,bucket=watch_port:4,actions=4",
        "group_id=4,type=select,selection_method=hash,fields=ip_src,bucket=weight:0,actions=1,\
         bucket=watch_port:99,watch_group:2,actions=2,bucket=actions=3",
    ] {
        let add = Some(ib_openflow::message::GroupModCommand::Add);
        let names = ib_openflow::names::NO_NAMES;
        let group = ib_openflow::group_text::parse_group_mod(text, add, names).unwrap().0;
        of.group_mod(&group, lab.clock.now()).unwrap();
    }
    let mut details = |group: u32| -> Vec<String> {
        let now = lab.clock.now();
        let flow = crate::testing::parse_flow(&format!("ip,actions=group:{group}"));
        of.flow_mod(rule_mod(flow.clone()), crate::flow_mod::Origin::default(), now).unwrap();
        let trace = lab.appctl("ofproto/trace", &["br0", "in_port=1,icmp,nw_src=10.0.0.9"]);
        trace.lines().filter_map(|l| l.trim_start().strip_prefix("-> ")).map(str::to_owned).collect()
    };
    assert_eq!(details(1), ["bucket 0: not live due to port 99", "using bucket 1"]);
    assert_eq!(details(2), ["bucket 0: not live due to port 99", "no live bucket"]);
    let inner = "bucket 0: not live due to port 99";
    assert_eq!(details(3), [inner, "bucket 0: not live due to port 2", "using bucket 1"]);
    let of_4 = details(4);
    assert_eq!(
        of_4[..3],
        ["bucket 0: not live due to ", inner, "bucket 1: not live due to port 99 and port 2"]
    );
    assert!(of_4[3].starts_with("bucket 2: score ") && of_4[4] == "using bucket 2", "{of_4:?}");
}

/// The whole story of a packet.
fn story(flows: &str, args: &[&str]) -> String {
    lab().flows("br0", flows).flows("br1", "actions=normal").appctl("ofproto/trace", args)
}

#[test]
fn a_learned_flow_is_for_the_next_packet() {
    let learn =
        "in_port=1,actions=learn(table=1,limit=1,result_dst=NXM_NX_REG0[3],NXM_OF_ETH_SRC[]),resubmit(,1)";
    let mut lab = lab().flows("br0", learn);
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=1,dl_src=50:54:00:00:00:01", "-generate"]);
    assert!(text.contains("-> NXM_NX_REG0[3] is now 0x1\n"), "{text}");
    assert!(text.contains(" 1. No match."), "{text}");
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=1,dl_src=50:54:00:00:00:02", "-generate"]);
    assert!(text.contains("-> NXM_NX_REG0[3] is now 0\n     -> Limit exceeded, learn failed\n"), "{text}");
    let text = lab.appctl("ofproto/trace", &["br0", "in_port=1,dl_src=50:54:00:00:00:01", "-generate"]);
    assert!(text.contains(" 1. dl_src=50:54:00:00:00:01, priority 32768"), "{text}");
}

#[test]
fn what_looks_at_no_header_is_for_packets_of_any_type() {
    let l3 = ["br0", "in_port=1,packet_type=(1,0x800),nw_src=1.2.3.4"];
    let text =
        story("in_port=1,actions=output:2,output:20\nin_port=1,dl_src=0:0:0:0:0:1,actions=output:3", &l3);
    assert!(
        text.contains(" 0. in_port=1, priority 32768\n    output:2\n     >> Trying to send non-Ethernet"),
        "{text}"
    );
    // The other bridge takes it.
    assert!(text.contains("    output:20\n\nbridge(\"br1\")"), "{text}");
    assert!(text.contains("Megaflow: recirc_id=0,packet_type=(1,0x800),ip,in_port=1,nw_frag=no\n"), "{text}");
}

#[test]
fn traces_name_ports_where_asked() {
    let text = story("in_port=1,actions=output:2", &["--names", "br0", "in_port=p1"]);
    assert!(text.contains(" 0. in_port=p1, priority 32768\n    output:p2\n"), "{text}");
}

#[test]
fn a_ttl_is_looked_at_where_there_is_none() {
    check(
        "in_port=1,actions=dec_ttl,2",
        "in_port=1,arp",
        "Megaflow: recirc_id=0,eth,arp,in_port=1,arp_op=0,nw_ttl=0\nDatapath actions: 2",
    );
}

#[test]
fn actions_of_a_packet_out_are_checked() {
    let mut lab = lab();
    let say = |lab: &mut Lab, actions| lab.appctl("ofproto/trace-packet-out", &["br0", "in_port=1", actions]);
    assert_eq!(say(&mut lab, "meter:1,output:2"), "Bad actions: OFPMMFC_INVALID_METER");
    assert_eq!(say(&mut lab, "group:1"), "Bad actions: OFPBAC_BAD_OUT_GROUP");
}

#[test]
fn a_modified_flow_was_used_when_it_was() {
    let mut lab = lab().flows("br0", "in_port=1,actions=output:2");
    lab.clock.warp(17_000);
    let mut fm = crate::testing::parse_flow("in_port=1,actions=output:3");
    fm.command = ib_openflow::message::FlowModCommand::Modify;
    let now = lab.clock.now();
    let of = std::sync::Arc::clone(&lab.switch.bridge("br0").unwrap().of);
    of.flow_mod(crate::flow_mod::rule_mod(fm), crate::flow_mod::Origin::default(), now).unwrap();
    let rules = of.tables[0].cls.collect_loose(&ib_classifier::MiniMatch::catch_all(), of.current_version());
    assert_eq!(rules.len(), 1);
    assert_eq!(now.since(rules[0].used()).as_secs(), 17);
    assert_eq!(now.since(rules[0].modified()).as_secs(), 0);
    // As it is shown, options of tunnels with their values.
    let text = lab.appctl("bridge/dump-flows", &["br0"]);
    assert!(text.contains("in_port=1,actions=output:3"), "{text}");
}

#[test]
fn patch_ports_without_a_peer_are_told() {
    let mut lab = lab();
    assert_eq!(lab.switch.patch_ports().iter().filter(|(.., why)| why.is_some()).count(), 0);
    let seq = lab.switch.patches_seq();
    let number = ib_flow::OfPort(21);
    lab.switch.bridge_mut("br1").unwrap().port_del(number).unwrap();
    lab.switch.publish();
    assert_ne!(lab.switch.patches_seq(), seq);
    let why = "No usable peer 'pa' exists in 'dummy' datapath.".to_owned();
    assert_eq!(lab.switch.patch_ports(), [("br0".to_owned(), "pb".to_owned(), Some(why))]);
}

#[test]
fn what_the_datapath_lacks_is_done_otherwise() {
    let mut lab = lab().flows(
        "br0",
        "in_port=1,actions=output(port=2,max_len=100),3\nin_port=2,ip,actions=clone(dec_ttl,ct(commit),3),4",
    );
    let mut check = |feature: &str, packet: &str, expect: &str| {
        lab.appctl("dpif/set-dp-features", &["br0", feature, "false"]);
        lab.switch.publish();
        let tail = lab.trace_tail(&["br0", packet]);
        assert_eq!(tail, expect, "{feature}");
    };
    check(
        "trunc",
        "in_port=1",
        "Megaflow: recirc_id=0,eth,in_port=1,dl_type=0x0000\nDatapath actions: trunc(100),2,3",
    );
    check(
        "clone",
        "in_port=2,tcp,nw_ttl=9",
        "Megaflow: recirc_id=0,eth,tcp,in_port=2,nw_ttl=9,nw_frag=no\n\
         Datapath actions: sample(sample=100.0%,actions(set(ipv4(ttl=8)),ct(commit),3)),4",
    );
    check("recirc", "in_port=3", "Megaflow: in_port=3,dl_type=0x0000\nDatapath actions: drop");
}

#[test]
fn a_pause_uses_up_an_id_in_a_trace() {
    let mut lab =
        lab().flows("br0", "in_port=1,actions=controller(pause),2\nin_port=2,tcp,actions=ct(table=1)");
    let paused = lab.trace_tail(&["br0", "in_port=1"]);
    assert!(paused.ends_with("Datapath actions: drop"), "{paused}");
    let tracked = lab.trace_tail(&["br0", "in_port=2,tcp"]);
    assert!(tracked.contains("Datapath actions: ct,recirc(0x2)"), "{tracked}");
}

#[test]
fn only_actions_of_packet_outs_can_be_consistent() {
    let mut lab = lab();
    let text = lab.appctl("ofproto/trace", &["--consistent", "br0", "in_port=1"]);
    assert_eq!(text, "--consistent: unknown option");
    let text = lab.appctl("ofproto/trace-packet-out", &["--consistent", "br0", "in_port=1", "output:2"]);
    assert!(text.ends_with("Datapath actions: 2"), "{text}");
}

#[test]
fn traces_take_their_options_in_every_form() {
    let mut lab = lab().flows("br0", "priority=1,actions=output:3");
    let mut say = |command: &str, args: &[&str]| lab.appctl(command, args);
    assert_eq!(say("ofproto/trace", &["br0", "-x", "in_port=1"]), "-x: unknown option");
    assert_eq!(say("ofproto/trace", &["br0", "-"]), "-: unknown option");
    assert!(say("ofproto/trace", &["br0", "-names", "in_port=1"]).contains("in_port=p1"));
    assert_eq!(say("ofproto/trace", &["br0", ""]), "Cannot find the datapath");
    // No action at all is what the tables say.
    let dropped = say("ofproto/trace-packet-out", &["br0", "in_port=1", "drop"]);
    assert!(dropped.ends_with("Datapath actions: 3"), "{dropped}");
    // The last argument is of actions, whatever else is missing.
    let e = say("ofproto/trace-packet-out", &["br0", "in_port=1,tcp"]);
    assert_eq!(e, "unknown action tcp");
}
