//! States that go from one switch to another, and what is no state.

use ib_base::json::Json;

use crate::testing::Lab;

/// A bridge whose port `p1` has a number that no other switch gives it.
fn source() -> Lab {
    let mut lab = Lab::new().bridge("br0", &[1, 2, 3]);
    lab.clock.stop();
    let now = lab.clock.now();
    let of = std::sync::Arc::clone(&lab.switch.bridge("br0").unwrap().of);
    let backer = std::sync::Arc::clone(&lab.switch.bridge("br0").unwrap().backer);
    let meter =
        ib_openflow::group_text::parse_meter_mod("meter=7,kbps,bands=type=drop,rate=1000", 0).unwrap();
    of.meter_mod(&backer, &meter, now).unwrap();
    for text in
        ["group_id=5,type=select,bucket=output:2,bucket=group:6", "group_id=6,type=all,bucket=output:3"]
    {
        let names = ib_openflow::names::NO_NAMES;
        let add = Some(ib_openflow::message::GroupModCommand::AddOrMod);
        of.group_mod(&ib_openflow::group_text::parse_group_mod(text, add, names).unwrap().0, now).unwrap();
    }
    lab = lab.flows(
        "br0",
        "table=0,priority=10,in_port=1,ip,nw_src=10.0.0.1 actions=meter:7,group:5
         table=1,cookie=0x77,tcp actions=normal
         table=0,priority=9,in_port=2 actions=output:1
         table=0,priority=8,dl_dst=50:54:00:00:00:09 actions=output:3
         table=0,priority=1 actions=drop",
    );
    lab.appctl("fdb/add", &["br0", "p1", "4", "50:54:00:00:00:01"]);
    lab.appctl("fdb/add", &["br0", "p2", "4", "50:54:00:00:00:02"]);
    lab.clock.warp(90_000);
    lab.switch.run(lab.clock.now());
    lab
}

/// The ports in another order, on a bridge of another name.
fn destination() -> Lab {
    let mut lab = Lab::new().bridge("br9", &[]);
    for (name, n) in [("p3", 11), ("p1", 12), ("p2", 13)] {
        let config = crate::config::PortConfig {
            name: name.into(),
            kind: "dummy".into(),
            ofport_request: Some(ib_flow::OfPort(n)),
            ..Default::default()
        };
        lab.port("br9", config);
    }
    lab.clock.stop();
    lab.clock.warp(1_000_000);
    lab.switch.run(lab.clock.now());
    lab
}

fn flows(json: &Json) -> Vec<String> {
    json.get("flows")
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.get("flow").unwrap().as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_concerns_a_port_is_found() {
    let mut lab = source();
    let state = Json::parse(&lab.appctl("port-state/save", &["br0", "p1"])).unwrap();
    let of_port = flows(&state);
    assert_eq!(of_port.len(), 2, "{of_port:?}");
    assert!(
        of_port.iter().any(|f| f.contains("in_port=p1") && f.ends_with("actions=meter:7,group:5")),
        "{of_port:?}"
    );
    let more = ["--cookie=0x77", "--address=50:54:00:00:00:09", "br0", "p1"];
    assert_eq!(flows(&Json::parse(&lab.appctl("port-state/save", &more)).unwrap()).len(), 4);
    assert_eq!(state.get("groups").unwrap().as_array().unwrap().len(), 2);
    assert_eq!(state.get("meters").unwrap().as_array().unwrap().len(), 1);
    assert_eq!(state.get("addresses").unwrap().as_array().unwrap().len(), 1);
    let only = Json::parse(&lab.appctl("port-state/save", &["--only=connections", "br0", "p1"])).unwrap();
    assert!(only.get("flows").is_none() && only.get("connections").is_some());
    assert_eq!(lab.appctl("port-state/save", &["br0", "p7"]), "p7: no such port on br0");
    assert_eq!(lab.appctl("port-state/save", &["--zone=x", "br0", "p1"]), "x: not a zone (0 to 65535)");
}

#[test]
fn a_state_goes_on_where_ports_have_other_numbers() {
    let (mut from, mut to) = (source(), destination());
    let of = std::sync::Arc::clone(&from.switch.bridge("br0").unwrap().of);
    let hit = crate::rule::PushStats {
        packets: 3,
        bytes: 180,
        used_ms: from.clock.now().as_ms() - 5000,
        tcp_flags: 0,
    };
    of.tables[0].cls.collect_all().iter().for_each(|r| r.credit(&hit));
    let group = of.group(5).unwrap();
    group.counts.credit(&hit);
    group.buckets[1].1.credit(&crate::rule::PushStats { packets: 2, bytes: 9, ..hit });
    from.appctl("fdb/add", &["br0", "p1", "0", "50:54:00:00:00:08"]);
    let ip = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped();
    for (text, mac) in [("1.1.2.92", "50:54:00:00:00:08"), ("1.1.2.93", "50:54:00:00:00:02")] {
        from.switch.world().learn_neighbour("br0", ip(text), mac.parse().unwrap());
    }
    // As if the meter had come here by a move.
    let counted = ib_dpif::meter::MeterStats { packets: 4, bytes: 240, bands: vec![(1, 60)] };
    of.restore_meter(7, ib_base::time::Instant::from_ms(from.clock.now().as_ms() - 70_000), counted);
    let state = from.appctl("port-state/save", &["br0", "p1"]);
    assert_eq!(
        to.appctl("port-state/restore", &["--check", "br9", &state]),
        "2 flows, 2 groups, 1 meters, 2 addresses, 0 memberships, 0 connections\n"
    );
    assert_eq!(
        to.appctl("bridge/dump-flows", &["br9"]).matches("in_port").count(),
        0,
        "a check changes nothing"
    );
    to.appctl("port-state/restore", &["br9", &state]);
    let dump = to.appctl("bridge/dump-flows", &["br9"]);
    assert!(
        dump.contains("duration=90s, n_packets=3, n_bytes=180, priority=10,ip,in_port=12,nw_src=10.0.0.1,actions=meter:7,group:5"),
        "{dump}"
    );
    assert!(dump.contains("priority=9,in_port=13,actions=output:12"), "{dump}");
    let macs = to.appctl("fdb/show", &["br9"]);
    assert!(macs.contains("12     4  50:54:00:00:00:01  static"), "{macs}");
    let there = std::sync::Arc::clone(&to.switch.bridge("br9").unwrap().of);
    let group = there.group(5).unwrap();
    assert_eq!((group.counts.get(), group.buckets[1].1.get()), ((3, 180), (2, 9)));
    assert_eq!(to.clock.now().as_ms() - group.created.as_ms(), 90_000);
    let mac = "50:54:00:00:00:08".parse().unwrap();
    assert_eq!(to.switch.world().neighbour("br9", ip("1.1.2.92")), Some(mac));
    assert_eq!(to.switch.world().neighbour("br9", ip("1.1.2.93")), None, "it is behind another port");
    // What comes back is what went.
    let again = Json::parse(&to.appctl("port-state/save", &["br9", "p1"])).unwrap();
    let went = Json::parse(&state).unwrap();
    assert!(state.contains(r#""meter_stats":[{"#) && state.contains("[[4,240],[1,60]]"), "{state}");
    for part in ["groups", "group_stats", "meters", "meter_stats", "flows", "addresses", "neighbours"] {
        let sorted = |j: &Json| {
            let mut all: Vec<String> = j
                .get(part)
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e.to_text(Default::default()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&again), sorted(&went), "{part}");
    }
}

#[test]
fn tunnel_options_find_their_places_by_the_bridges_table() {
    let mut to = destination();
    let state = r#"{"version":1,"bridge":"br9","ports":[],"meters":[],"groups":[],"flows":[{"flow":"table=3,tun_metadata0=0x7 actions=set_field:0x9->tun_metadata0,drop","packets":0,"bytes":0,"age_ms":0,"modified_ms":0,"idle_ms":0}],"addresses":[],"memberships":[],"connections":[]}"#;
    let state = state.replace(",drop", ",output:p1");
    let binding = ib_flow::tlv::TlvBinding { class: 0x10, kind: 1, len: 4, index: 0 };
    let table = ib_flow::tlv::TlvTable::new(None, &[binding]).unwrap();
    to.switch.bridge("br9").unwrap().of.set_tlv(Some(table));
    to.appctl("port-state/restore", &["br9", &state]);
    let again = Json::parse(&to.appctl("port-state/save", &["br9", "p1"])).unwrap();
    let expect = "table=3, tun_metadata0=0x7 actions=set_field:0x9->tun_metadata0,output:p1";
    assert_eq!(flows(&again), [expect]);
}

#[test]
fn timeouts_run_on() {
    let mut from =
        source().flows("br0", "table=2,priority=5,in_port=1,idle_timeout=100,hard_timeout=120 actions=drop");
    from.clock.warp(50_000);
    from.switch.run(from.clock.now());
    let state = from.appctl("port-state/save", &["br0", "p1"]);
    let mut to = destination();
    to.appctl("port-state/restore", &["br9", &state]);
    let has = |to: &mut Lab| to.appctl("bridge/dump-flows", &["br9"]).contains("priority=5,in_port=12");
    to.clock.warp(49_000);
    to.switch.run(to.clock.now());
    assert!(has(&mut to));
    to.clock.warp(2_000);
    to.switch.run(to.clock.now());
    assert!(!has(&mut to), "idle for 100 seconds by now, in two switches");
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut lab = destination();
    let before = lab.appctl("bridge/dump-flows", &["br9"]);
    let flow = |text: &str| {
        format!(
            r#"{{"version":1,"flows":[{{"flow":"{text}","packets":1,"bytes":1,"age_ms":1,"modified_ms":1,"idle_ms":1}}]}}"#
        )
    };
    let bad = [
        ("", "the state is no JSON"),
        ("[]", "the state is no JSON object"),
        ("{}", "the state has no version"),
        (r#"{"version":2}"#, "version 2 is unknown"),
        (r#"{"version":1,"colour":1}"#, "\"colour\" is unknown"),
        (r#"{"version":1,"flows":1}"#, "\"flows\" is no list"),
        (r#"{"version":1,"ports":["vm1"]}"#, "vm1: no such port on br9"),
        (r#"{"version":1,"flows":[{"flow":"actions=drop"}]}"#, "\"age_ms\" is missing"),
        (r#"{"version":1,"meters":["meter=all kbps bands=type=drop rate=1"]}"#, "not one of a port"),
        (
            r#"{"version":1,"addresses":[{"mac":"x","vlan":0,"port":"p1","age_s":1}]}"#,
            "not an Ethernet address",
        ),
        (
            r#"{"version":1,"addresses":[{"mac":"50:54:00:00:00:01","vlan":5000,"port":"p1","age_s":1}]}"#,
            "VLAN 5000",
        ),
        (
            r#"{"version":1,"memberships":[{"group":"ff02::1","vlan":0,"port":"p1","protocol":"x","age_s":1}]}"#,
            "unknown protocol",
        ),
        (r#"{"version":1,"connections":[{}]}"#, "orig is wrong"),
        (r#"{"version":1,"gone":[[70000,["10.0.0.1","10.0.0.2",6,1,2,0]]]}"#, "no zone and direction"),
        (r#"{"version":1,"neighbours":[{"ip":"x"}]}"#, "not an IPv6 address"),
        (r#"{"version":1,"neighbours":[{"ip":"::1","mac":"y"}]}"#, "not an Ethernet address"),
        (r#"{"version":1,"group_stats":[{"group":1,"age_ms":1,"modified_ms":1,"counts":[[1]]}]}"#, "pairs"),
        (
            r#"{"version":1,"meter_stats":[{"meter":1,"age_ms":1,"counts":[]}]}"#,
            "counters of a meter: \"counts\" is empty",
        ),
        (r#"{"version":1,"meter_stats":[{"meter":1,"age_ms":-1,"counts":[[1,1]]}]}"#, "\"age_ms\""),
        (r#"{"version":1,"group_stats":[{"group":-1}]}"#, "\"group\" is missing or no number in range"),
        (&flow("in_port=vm7,actions=drop"), "ports that it names"),
        (&flow("actions=group:9"), "group 9 is used"),
        (&flow("actions=meter:9"), "meter 9 is used"),
        (&flow("table=300,actions=drop"), "table"),
    ];
    for (state, why) in bad {
        let said = lab.appctl("port-state/restore", &["br9", state]);
        assert!(said.contains(why), "{state}: {said}");
        assert_eq!(lab.appctl("bridge/dump-flows", &["br9"]), before);
    }
    // What fails at last takes back what was done before it.
    let state = format!(
        r#"{{"version":1,"meters":["meter=3 kbps bands=type=drop rate=1"],"groups":["group_id=4,type=all,bucket=actions=drop","group_id=5,type=all,bucket=watch_port:1,actions=group:4"],{}"#,
        &flow("actions=group:4")[13..]
    );
    let said = lab.appctl("port-state/restore", &["br9", &state]);
    assert!(said.contains("group 5: OFPGMFC_WATCH_UNSUPPORTED"), "{said}");
    let bridge = lab.switch.bridge("br9").unwrap();
    assert!(bridge.of.groups.read().is_empty() && bridge.of.meters.read().is_empty());
    assert_eq!(lab.appctl("bridge/dump-flows", &["br9"]), before);
}

#[test]
fn names_keeping_and_passes() {
    let mut lab = source();
    let state = lab.appctl("port-state/save", &["--as=p1=tap7", "br0", "p1"]);
    assert!(state.contains("in_port=tap7,") && state.contains("output:tap7"), "{state}");
    assert!(state.contains("\"ports\":[\"tap7\"]") && !state.contains("p1"), "{state}");
    // Passes of a move.
    let pass = ["--session=s", "--only=connections", "br0", "p1"];
    assert!(lab.appctl("port-state/save", &pass).contains("\"gone\":[]"));
    assert_eq!(lab.appctl("port-state/end", &["--outcome", "s"]), "open\n");
    assert_eq!(lab.appctl("port-state/end", &["--finished", "s"]), "finished\n");
    assert_eq!(lab.appctl("port-state/end", &["--outcome", "s"]), "finished\n");
    assert_eq!(lab.appctl("port-state/end", &["--undo", "s"]), "s has finished");
    lab.appctl("port-state/end", &["s"]);
    assert_eq!(lab.appctl("port-state/end", &["--finished", "s"]), "s: no such session");
    assert_eq!(lab.appctl("port-state/end", &["--outcome", "s"]), "unknown\n");
    assert_eq!(lab.appctl("port-state/heard", &["br0", "p1"]), "0\n");
    // What goes with a port, and what stays.
    let left = |lab: &mut Lab| lab.appctl("bridge/dump-flows", &["br0"]).matches("priority=").count();
    let before = left(&mut lab);
    lab.appctl("port-state/forget", &["--keep=0/0", "br0", "p1"]);
    assert_eq!(left(&mut lab), before);
    lab.appctl("port-state/forget", &["--address=50:54:00:00:00:09", "br0", "p1", "gone"]);
    assert_eq!(left(&mut lab), before - 3);
    assert_eq!(lab.appctl("port-state/forget", &["--keep=x", "br0", "p1"]), "x: not COOKIE[/MASK]");
}
