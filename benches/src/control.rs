//! Paths of control: flows as text and bytes and into tables, JSON and database transactions.

use std::hint::black_box;

use ib_base::json::Json;
use ib_base::time::{Clock, Instant};
use ib_dp_userspace::{Config, DpUserspaceClass};
use ib_netdev::{DummyLevel, Registry};
use ib_ofproto::flow_mod::{Origin, rule_mod};
use ib_ofproto::{Bridge, Switch};
use ib_openflow::flow_text::{Purpose, parse_flow_mod};
use ib_openflow::message::{FlowMod, FlowModCommand, Message, Version};
use ib_openflow::names::NO_NAMES;
use ib_openflow::{decode, encode};
use ib_ovsdb::server::{Now, Server};

const FLOW: &str = "table=3,priority=100,tcp,in_port=1,dl_vlan=5,nw_src=10.1.0.0/16,tp_dst=80,\
                    actions=set_field:02:00:00:00:00:01->eth_dst,load:0x5->NXM_NX_REG1[],resubmit(,4),output:2";

fn parse(text: &str) -> FlowMod {
    parse_flow_mod(text, Purpose::Mod(FlowModCommand::Add), NO_NAMES).expect("a flow").0
}

/// Adds flows in ovs-ofctl's notation.
pub fn add_flows<'a>(bridge: &Bridge, now: Instant, flows: impl IntoIterator<Item = &'a str>) {
    for flow in flows {
        bridge.of.flow_mod(rule_mod(parse(flow)), Origin::default(), now).expect("the flow goes in");
    }
}

/// A flow from text.
pub fn flow_text(n: u64) -> u64 {
    for _ in 0..n {
        black_box(parse(black_box(FLOW)));
    }
    n
}

/// A flow_mod of OpenFlow 1.3 from bytes.
pub fn flow_mod_decode(n: u64) -> u64 {
    let bytes = encode::encode(&Message::FlowMod(Box::new(parse(FLOW))), Version::V13, 1);
    for _ in 0..n {
        black_box(decode::decode(black_box(&bytes)).expect("decodes"));
    }
    n
}

/// A flow into a table of many.
pub fn flow_mod_apply(n: u64) -> u64 {
    let registry = Registry::new().expect("a registry");
    registry.enable_dummy(DummyLevel::Normal);
    let clock = Clock::simulated();
    let config = Config { registry, clock: clock.clone(), threads: 1, dummy: true };
    let class = std::sync::Arc::new(DpUserspaceClass::new("dummy", config));
    let mut switch = Switch::new(&clock, vec![class as _], "/nowhere");
    switch.bridge_add("br0", "dummy").expect("a bridge");
    let of = &switch.bridge("br0").expect("br0").of;
    let mut flow = parse(FLOW);
    for i in 0..n {
        let address = u32::try_from(i).unwrap_or(0);
        flow.match_.flow.nw_src = ib_packet::Be32::new(address);
        flow.match_.mask.0.nw_src = ib_packet::Be32::MAX;
        of.flow_mod(rule_mod(flow.clone()), Origin::default(), clock.now()).expect("the flow goes in");
    }
    n
}

const INSERT: &str = r#"{"id":7,"method":"transact","params":["Open_vSwitch",{"op":"insert","table":"Open_vSwitch",
    "row":{"external_ids":["map",[["owner","bench"],["n","12"]]],"bridges":["set",[]],"next_cfg":5,
    "system_type":"machine","iface_types":["set",["system","tap","internal"]]}}]}"#;

/// The text of a transaction into values.
pub fn json_parse(n: u64) -> u64 {
    for _ in 0..n {
        black_box(Json::parse(black_box(INSERT)).expect("JSON"));
    }
    n
}

/// A transaction of one row, from its text to its answer; no file.
pub fn ovsdb_insert(n: u64) -> u64 {
    let schema = ib_ovsdb::schema::Schema::parse(ib_ovsdb::schemas::VSWITCH).expect("the schema");
    let mut server = Server::new();
    let now = Now { ms: 1, wall_ms: 1 };
    server.add_database(ib_ovsdb::database::Database::new(schema), now).expect("a database");
    let session = server.open_session(false);
    // The table holds one row; what a transaction inserts, the next one deletes.
    let replace = INSERT.replacen(
        r#"{"op":"insert""#,
        r#"{"op":"delete","table":"Open_vSwitch","where":[]},{"op":"insert""#,
        1,
    );
    for _ in 0..n {
        server.receive(session, Json::parse(black_box(&replace)).expect("JSON"), now);
        black_box(server.take_actions());
    }
    let rows =
        server.database("Open_vSwitch").and_then(|db| db.table("Open_vSwitch")).map_or(0, |t| t.rows.len());
    assert_eq!(rows, 1, "the transactions did not go through");
    n
}
