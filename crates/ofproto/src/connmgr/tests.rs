//! Sessions message by message: what a controller sends, and what it gets, in the tools' notation.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_openflow::encode::encode;
use ib_openflow::message::*;
use ib_openflow::print::log_text;
use ib_openflow::raw::{Frame, next_message};

use super::*;
use crate::testing::{Lab, parse_flow};

/// A bridge with controllers.
struct Net {
    lab: Lab,
    now: Instant,
    /// Bytes sent and not looked at, by connection.
    sent: BTreeMap<ConnId, Vec<u8>>,
    closed: Vec<ConnId>,
    connecting: Vec<ConnId>,
}

impl Net {
    fn new() -> Net {
        let lab = Lab::new().bridge("br0", &[1, 2]);
        let now = lab.switch.clock.now();
        let mut net = Net { lab, now, sent: BTreeMap::new(), closed: Vec::new(), connecting: Vec::new() };
        net.obey();
        net
    }
    fn obey(&mut self) {
        for command in self.lab.switch.take_conn_commands() {
            match command {
                ConnCommand::Send { conn, data, .. } => self.sent.entry(conn).or_default().extend(data),
                ConnCommand::Close { conn, .. } => self.closed.push(conn),
                ConnCommand::Connect { conn, .. } => self.connecting.push(conn),
                ConnCommand::Listen { .. } | ConnCommand::Unlisten { .. } => {}
            }
        }
    }
    fn event(&mut self, event: ConnEvent<'_>) {
        self.lab.switch.conn_event("br0", event, self.now);
        self.obey();
    }
    fn run(&mut self, seconds: u64) {
        self.now = self.now.plus_ms(seconds * 1000);
        self.lab.switch.run(self.now);
        self.obey();
    }
    fn set_controllers(&mut self, targets: &[&str]) {
        let configs: Vec<ControllerConfig> = targets
            .iter()
            .map(|t| ControllerConfig { target: (*t).to_owned(), ..ControllerConfig::default() })
            .collect();
        let b = self.lab.switch.bridge_mut("br0").expect("br0");
        b.set_controllers(&configs);
    }
    /// A management connection that speaks `version`.
    fn mgmt(&mut self, version: Version) -> ConnId {
        let b = self.lab.switch.bridge_mut("br0").expect("br0");
        let conn = b.connmgr.new_conn_id();
        let listener = b.connmgr.own_target("mgmt");
        self.event(ConnEvent::Accepted { listener: &listener, conn, peer: "unix#1" });
        self.say(conn, &[encode(&Message::Hello(Versions::only(version)), version, 1)]);
        self.sent.clear();
        conn
    }
    /// Sends messages; returns the first lines of what comes back.
    fn say(&mut self, conn: ConnId, messages: &[Vec<u8>]) -> Vec<String> {
        self.event(ConnEvent::Received { conn, data: &messages.concat() });
        self.heard(conn)
    }
    fn heard(&mut self, conn: ConnId) -> Vec<String> {
        let bytes = self.sent.remove(&conn).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut out = Vec::new();
        while let Frame::Message(n) = next_message(rest) {
            let text = log_text(&rest[..n]);
            out.push(text.lines().next().unwrap_or_default().trim_end().to_owned());
            rest = &rest[n..];
        }
        assert!(rest.is_empty(), "half a message");
        out
    }
    /// Flows that controllers see, and `hidden` ones.
    fn flows(&self) -> (usize, usize) {
        let b = self.lab.switch.bridge("br0").expect("br0");
        let all =
            b.of.tables[0].cls.collect_loose(&ib_classifier::MiniMatch::catch_all(), b.of.current_version());
        let hidden = all.iter().filter(|r| r.is_hidden()).count();
        (all.len() - hidden, hidden)
    }
}

fn flow(version: Version, xid: u32, text: &str) -> Vec<u8> {
    encode(&Message::FlowMod(Box::new(parse_flow(text))), version, xid)
}

#[test]
fn requests_are_answered_in_order() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V13);
    let got = net.say(
        c,
        &[
            encode(&Message::EchoRequest(vec![1, 2]), Version::V13, 2),
            encode(&Message::GetConfigRequest, Version::V13, 3),
            encode(&Message::BarrierRequest, Version::V13, 4),
            encode(&Message::BarrierReply, Version::V13, 5),
            encode(&Message::BarrierRequest, Version::V10, 6),
        ],
    );
    assert_eq!(
        got,
        [
            "OFPT_ECHO_REPLY (OF1.3) (xid=0x2): 2 bytes of payload",
            "OFPT_GET_CONFIG_REPLY (OF1.3) (xid=0x3): frags=normal miss_send_len=0",
            "OFPT_BARRIER_REPLY (OF1.3) (xid=0x4):",
            "OFPT_ERROR (OF1.3) (xid=0x5): OFPBRC_BAD_TYPE",
            "OFPT_ERROR (xid=0x6): OFPBRC_BAD_VERSION",
        ]
    );
    assert!(net.closed.is_empty());
}

#[test]
fn sessions_without_common_version_or_sense_end() {
    let mut net = Net::new();
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    b.set_versions(Versions::only(Version::V13));
    let c = net.mgmt(Version::V10);
    assert_eq!(net.closed, [c]);
    let c = net.mgmt(Version::V13);
    assert!(net.say(c, &[vec![4, 2, 0, 4, 0, 0, 0, 9]]).is_empty());
    assert_eq!(net.closed.last(), Some(&c));
}

#[test]
fn flows_of_one_version_go_by_another() {
    let mut net = Net::new();
    let c13 = net.mgmt(Version::V13);
    let c10 = net.mgmt(Version::V10);
    assert_eq!(net.flows(), (0, 0));
    for text in ["in_port=1 actions=2", "tcp actions=drop", "priority=0 actions=NORMAL"] {
        assert!(net.say(c13, &[flow(Version::V13, 1, text)]).is_empty(), "{text}");
    }
    assert_eq!(net.flows(), (3, 0));
    let delete = |m: &str| {
        let fm = FlowMod { command: FlowModCommand::Delete, ..parse_flow(&format!("{m} actions=drop")) };
        let fm = FlowMod { table_id: 0, ..fm };
        encode(&Message::FlowMod(Box::new(fm)), Version::V10, 7)
    };
    assert!(net.say(c10, &[delete("in_port=1")]).is_empty());
    assert_eq!(net.flows(), (2, 0));
    // The byte of the table is 0: all of them are meant, or the first one once it counts.
    let elsewhere = || flow(Version::V13, 1, "table=1 actions=drop");
    assert!(net.say(c13, &[elsewhere()]).is_empty());
    let with_tables = encode(&Message::FlowModTableId(true), Version::V10, 8);
    let second = |net: &Net| {
        let of = &net.lab.switch.bridge("br0").expect("br0").of;
        of.tables[1].cls.collect_loose(&ib_classifier::MiniMatch::catch_all(), of.current_version()).len()
    };
    assert!(net.say(c10, &[delete("")]).is_empty());
    assert_eq!((net.flows(), second(&net)), ((0, 0), 0));
    assert!(net.say(c13, &[elsewhere()]).is_empty());
    assert!(net.say(c10, &[with_tables, delete("")]).is_empty());
    assert_eq!(second(&net), 1);
}

#[test]
fn flows_with_buffers_are_not_added() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V13);
    let fm = FlowMod { buffer_id: 5, ..parse_flow("in_port=1 actions=2") };
    let got = net.say(c, &[encode(&Message::FlowMod(Box::new(fm)), Version::V13, 7)]);
    assert_eq!(got, ["OFPT_ERROR (OF1.3) (xid=0x7): OFPBRC_BUFFER_UNKNOWN"]);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn bundles_are_all_or_nothing() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V14);
    let control = |kind| Message::BundleControl(BundleControl { bundle_id: 1, kind, flags: 3 });
    let add = |xid, text| {
        let raw = flow(Version::V14, xid, text);
        encode(&Message::BundleAdd(BundleAdd { bundle_id: 1, flags: 3, raw }), Version::V14, xid)
    };
    let open = encode(&control(BundleControlKind::OpenRequest), Version::V14, 1);
    let commit = encode(&control(BundleControlKind::CommitRequest), Version::V14, 9);
    let got = net.say(
        c,
        &[open.clone(), add(2, "in_port=1 actions=2"), add(3, "in_port=2 actions=group:7"), commit.clone()],
    );
    assert_eq!(
        got,
        [
            "OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x1):",
            "OFPT_ERROR (OF1.4) (xid=0x3): OFPBAC_BAD_OUT_GROUP",
            "OFPT_ERROR (OF1.4) (xid=0x9): OFPBFC_MSG_FAILED",
        ]
    );
    assert_eq!(net.flows(), (0, 0));
    let got = net.say(c, &[open, add(2, "in_port=1 actions=2"), add(3, "in_port=2 actions=1"), commit]);
    assert_eq!(got, ["OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x1):", "OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x9):"]);
    assert_eq!(net.flows(), (2, 0));
}

#[test]
fn removals_are_told_before_the_barrier() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V13);
    let config = SwitchConfig { miss_send_len: 128, ..SwitchConfig::default() };
    let told = FlowMod { flags: FlowModFlags::SEND_FLOW_REM, ..parse_flow("in_port=1 actions=2") };
    net.say(
        c,
        &[
            encode(&Message::SetConfig(config), Version::V13, 1),
            encode(&Message::FlowMod(Box::new(told)), Version::V13, 2),
        ],
    );
    let delete = FlowMod { command: FlowModCommand::Delete, table_id: OFPTT_ALL, ..FlowMod::default() };
    let got = net.say(
        c,
        &[
            encode(&Message::FlowMod(Box::new(delete)), Version::V13, 3),
            encode(&Message::BarrierRequest, Version::V13, 4),
        ],
    );
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[0].starts_with("OFPT_FLOW_REMOVED (OF1.3) (xid=0x0):"), "{}", got[0]);
    assert_eq!(got[1], "OFPT_BARRIER_REPLY (OF1.3) (xid=0x4):");
}

#[test]
fn one_controller_is_primary() {
    let mut net = Net::new();
    let (a, b) = (net.mgmt(Version::V13), net.mgmt(Version::V13));
    let role = |role, generation| {
        let r = RoleMessage { role, generation_id: Some(generation) };
        encode(&Message::RoleRequest(r), Version::V13, 5)
    };
    net.say(a, &[role(Role::Primary, 5)]);
    let got = net.say(b, &[role(Role::Primary, 4)]);
    assert_eq!(got, ["OFPT_ERROR (OF1.3) (xid=0x5): OFPRRFC_STALE"]);
    net.say(b, &[role(Role::Primary, 6)]);
    let told = "ONFT_ROLE_STATUS (OF1.3) (xid=0x0): role=secondary generation_id=6 reason=primary_request";
    assert_eq!(net.heard(a), [told]);
    let got = net.say(a, &[flow(Version::V13, 7, "actions=drop")]);
    assert_eq!(got, ["OFPT_ERROR (OF1.3) (xid=0x7): OFPBRC_IS_SECONDARY"]);
}

#[test]
fn standalone_bridges_switch_while_controllers_are_gone() {
    let mut net = Net::new();
    let mode = |net: &mut Net, m| net.lab.switch.bridge_mut("br0").expect("br0").set_fail_mode(m);
    mode(&mut net, FailMode::Standalone);
    assert_eq!(net.flows(), (1, 0));
    net.set_controllers(&["tcp:127.0.0.1:6653"]);
    assert_eq!(net.flows(), (0, 0));
    net.run(0);
    let c = net.connecting.pop().expect("a connection attempt");
    net.event(ConnEvent::Closed { conn: c, reason: Some("Connection refused".into()) });
    for _ in 0..14 {
        net.run(1);
    }
    assert_eq!(net.flows(), (0, 0));
    net.run(2);
    assert_eq!(net.flows(), (0, 1));
    // A controller that adds a flow has admitted us.
    let c = loop {
        net.connecting.clear();
        net.run(1);
        if let Some(c) = net.connecting.pop() {
            break c;
        }
    };
    net.event(ConnEvent::Connected { conn: c });
    net.say(
        c,
        &[
            encode(&Message::Hello(Versions::only(Version::V13)), Version::V13, 1),
            flow(Version::V13, 2, "in_port=1 actions=2"),
        ],
    );
    net.run(0);
    assert_eq!(net.flows(), (1, 0));
    net.set_controllers(&[]);
    assert_eq!(net.flows(), (1, 0));
    mode(&mut net, FailMode::Secure);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn a_snoop_needs_a_controller_to_listen_to() {
    let mut net = Net::new();
    let snoop = |net: &mut Net| {
        let b = net.lab.switch.bridge_mut("br0").expect("br0");
        let (conn, listener) = (b.connmgr.new_conn_id(), b.connmgr.own_target("snoop"));
        net.event(ConnEvent::Accepted { listener: &listener, conn, peer: "unix#1" });
        conn
    };
    let refused = snoop(&mut net);
    assert_eq!(net.closed, [refused]);
    net.set_controllers(&["tcp:127.0.0.1:6653"]);
    let admitted = snoop(&mut net);
    assert!(!net.closed.contains(&admitted));
}

#[test]
fn tables_tell_when_they_fill_up_and_when_they_empty() {
    let mut net = Net::new();
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    b.set_table(0, &crate::config::TableConfig { flow_limit: Some(10), ..Default::default() });
    let c = net.mgmt(Version::V14);
    let config = SwitchConfig { miss_send_len: 128, ..SwitchConfig::default() };
    let mut wish = AsyncConfig { present: 1 << AsyncKind::TableStatus as u16, ..AsyncConfig::default() };
    wish.primary[AsyncKind::TableStatus as usize] = 0x18;
    let vacancy = Vacancy { enabled: true, down: 20, up: 70, current: 0 };
    let tm = TableMod {
        table_id: 0,
        miss: TableMiss::Default,
        eviction: None,
        eviction_flags: None,
        vacancy: Some(vacancy),
    };
    let setup = [Message::SetConfig(config), Message::SetAsync(wish), Message::TableMod(tm)];
    let setup: Vec<Vec<u8>> = setup.iter().map(|m| encode(m, Version::V14, 1)).collect();
    assert!(net.say(c, &setup).is_empty());
    let add = |n: u16| flow(Version::V14, 2, &format!("in_port={n} actions=drop"));
    assert!(net.say(c, &(1..=8).map(add).collect::<Vec<_>>()).is_empty());
    assert_eq!(net.say(c, &[add(9)]), ["OFPT_TABLE_STATUS (OF1.4) (xid=0x0): reason=VACANCY_DOWN"]);
    assert!(net.say(c, &[add(10)]).is_empty());
    let delete = FlowMod { command: FlowModCommand::Delete, table_id: OFPTT_ALL, ..FlowMod::default() };
    let got = net.say(c, &[encode(&Message::FlowMod(Box::new(delete)), Version::V14, 3)]);
    assert_eq!(got, ["OFPT_TABLE_STATUS (OF1.4) (xid=0x0): reason=VACANCY_UP"]);
}

#[test]
fn secondaries_are_refused_before_their_requests_are_read() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V13);
    let r = RoleMessage { role: Role::Secondary, generation_id: Some(1) };
    net.say(c, &[encode(&Message::RoleRequest(r), Version::V13, 5)]);
    // A group_mod whose buckets end in the middle.
    let broken = [&[4, 15, 0, 24, 0, 0, 0, 6][..], &[0; 16]].concat();
    assert_eq!(net.say(c, &[broken]), ["OFPT_ERROR (OF1.3) (xid=0x6): OFPBRC_IS_SECONDARY"]);
    let news = [4, 11, 0, 8, 0, 0, 0, 7].to_vec();
    assert_eq!(net.say(c, &[news]), ["OFPT_ERROR (OF1.3) (xid=0x7): OFPBRC_BAD_LEN"]);
}

#[test]
fn in_band_flows_come_and_go_with_remotes() {
    let mut net = Net::new();
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    let in_band = |target: &str| ControllerConfig {
        target: target.to_owned(),
        in_band: true,
        ..ControllerConfig::default()
    };
    b.set_controllers(&[in_band("tcp:10.0.0.1"), in_band("unix:sock")]);
    // The fake bridge has no local port and thus no address of its own.
    assert_eq!(net.flows(), (0, 4));
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    b.set_controllers(&[in_band("tcp:10.0.0.1"), in_band("tcp:10.0.0.2:88")]);
    assert_eq!(net.flows(), (0, 8));
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    b.set_controllers(&[ControllerConfig { in_band: false, ..in_band("tcp:10.0.0.1") }]);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn failing_open_flushes_what_controllers_made() {
    let mut net = Net::new();
    net.set_controllers(&["tcp:10.0.0.1"]);
    net.lab.switch.bridge_mut("br0").expect("br0").set_fail_mode(FailMode::Standalone);
    let mgmt = net.mgmt(Version::V10);
    net.say(mgmt, &[flow(Version::V10, 2, "actions=drop")]);
    assert_eq!(net.flows(), (1, 0));
    net.run(16);
    assert_eq!(net.flows(), (0, 1));
}

#[test]
fn a_controller_is_primary_by_its_type() {
    let mut net = Net::new();
    let config = |target: &str, is_primary| ControllerConfig {
        target: target.to_owned(),
        is_primary,
        ..ControllerConfig::default()
    };
    let has = |net: &Net| net.lab.switch.bridge("br0").expect("br0").connmgr.has_controllers();
    for (target, is_primary, expect) in [
        ("tcp:10.0.0.1", None, true),
        ("tcp:10.0.0.2", Some(false), false),
        ("ptcp:1", None, false),
        ("ptcp:2", Some(true), true),
        ("bogus:3", None, false),
    ] {
        let b = net.lab.switch.bridge_mut("br0").expect("br0");
        b.set_controllers(&[config(target, is_primary)]);
        assert_eq!(has(&net), expect, "{target}");
    }
}

#[test]
fn monitors_pause_for_a_peer_that_does_not_read() {
    let mut net = Net::new();
    let watcher = net.mgmt(Version::V10);
    let b = net.lab.switch.bridge_mut("br0").expect("br0");
    let conn = b.connmgr.new_conn_id();
    let listener = b.connmgr.own_target("mgmt");
    net.event(ConnEvent::Accepted { listener: &listener, conn, peer: "unix#2" });
    net.say(conn, &[encode(&Message::Hello(Versions::only(Version::V10)), Version::V10, 1)]);
    net.sent.clear();
    net.say(conn, &[flow(Version::V10, 2, "priority=1,actions=drop")]);
    let request = FlowMonitorRequest {
        id: 1,
        command: 0,
        flags: MonitorFlags::ADD | MonitorFlags::DELETE | MonitorFlags::MODIFY,
        out_port: OfPort::NONE,
        out_group: OFPG_ANY,
        table_id: OFPTT_ALL,
        match_: Match::catch_all(),
    };
    let message = Message::MultipartRequest(MultipartRequest::FlowMonitor(vec![request]));
    assert_eq!(
        net.say(watcher, &[encode(&message, Version::V10, 3)]),
        ["NXST_FLOW_MONITOR reply (xid=0x3):"]
    );
    net.event(ConnEvent::Blocked { conn: watcher });
    let add = |i: u32| flow(Version::V10, 4, &format!("ip,nw_src=10.0.{}.{},actions=drop", i >> 8, i & 255));
    for i in 0..5000 {
        assert!(net.say(conn, &[add(i)]).is_empty());
    }
    let heard = net.heard(watcher);
    assert!((1000..4000).contains(&heard.len()), "{}", heard.len());
    assert_eq!(heard.last().unwrap(), "NXT_FLOW_MONITOR_PAUSED (xid=0x0):");
    // What was there goes; what is new goes without a word.
    let delete = |text| {
        let fm = FlowMod { command: FlowModCommand::Delete, ..parse_flow(text) };
        encode(&Message::FlowMod(Box::new(fm)), Version::V10, 5)
    };
    net.now = net.now.plus_ms(1);
    net.say(conn, &[delete("ip,nw_src=10.0.0.1")]);
    net.say(conn, &[delete("ip,nw_src=10.0.19.1")]);
    assert_eq!(net.heard(watcher).len(), 1);
    net.event(ConnEvent::Drained { conn: watcher });
    let heard = net.heard(watcher);
    assert_eq!(heard.last().unwrap(), "NXT_FLOW_MONITOR_RESUMED (xid=0x0):");
    net.say(conn, &[add(1)]);
    assert_eq!(net.heard(watcher).len(), 1);
}

#[test]
fn a_flow_that_leaves_a_port_is_news_about_the_port() {
    let mut net = Net::new();
    let watcher = net.mgmt(Version::V10);
    let request = FlowMonitorRequest {
        id: 1,
        command: 0,
        flags: MonitorFlags::MODIFY | MonitorFlags::ADD | MonitorFlags::OWN,
        out_port: OfPort(2),
        out_group: OFPG_ANY,
        table_id: OFPTT_ALL,
        match_: Match::catch_all(),
    };
    let message = Message::MultipartRequest(MultipartRequest::FlowMonitor(vec![request]));
    net.say(watcher, &[encode(&message, Version::V10, 3)]);
    let mut heard = |text, command| {
        let fm = FlowMod { command, ..parse_flow(text) };
        net.say(watcher, &[encode(&Message::FlowMod(Box::new(fm)), Version::V10, 5)]).len()
    };
    assert_eq!(heard("in_port=1,actions=output:2", FlowModCommand::Add), 1);
    assert_eq!(heard("in_port=1,actions=output:3", FlowModCommand::Modify), 1);
    assert_eq!(heard("in_port=1,actions=output:4", FlowModCommand::Modify), 0);
    assert_eq!(heard("in_port=1,actions=output:2", FlowModCommand::Modify), 1);
    assert_eq!(heard("in_port=1,actions=output:3", FlowModCommand::Add), 1);
    assert_eq!(heard("in_port=1,actions=output:4", FlowModCommand::Add), 0);
}

#[test]
fn bundles_that_rest_too_long_are_discarded() {
    let mut net = Net::new();
    let settings = crate::backer::Settings { bundle_idle_ms: 2000, ..Default::default() };
    net.lab.switch.set_settings(settings);
    let c = net.mgmt(Version::V14);
    let open = BundleControl { bundle_id: 1, kind: BundleControlKind::OpenRequest, flags: 3 };
    assert_eq!(net.say(c, &[encode(&Message::BundleControl(open), Version::V14, 2)]).len(), 1);
    net.run(1);
    assert!(net.heard(c).is_empty());
    net.run(1);
    assert_eq!(net.heard(c), ["OFPT_ERROR (OF1.4) (xid=0x2): OFPBFC_TIMEOUT"]);
}

#[test]
fn long_listings_leave_room_for_others() {
    let mut net = Net::new();
    let c = net.mgmt(Version::V13);
    let flows: Vec<Vec<u8>> = (0..20_000)
        .map(|i| flow(Version::V13, 7, &format!("priority=5,reg0={i} actions=output:1")))
        .collect();
    assert!(net.say(c, &flows).is_empty());
    // What is asked for after a listing is answered after it, and the listing is as it was when it was asked for.
    let all = MultipartRequest::Flow(Box::default());
    let asked = [
        encode(&Message::MultipartRequest(all), Version::V13, 8),
        encode(
            &Message::FlowMod(Box::new(FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() })),
            Version::V13,
            9,
        ),
        encode(&Message::BarrierRequest, Version::V13, 10),
    ];
    let mut parts = net.say(c, &asked);
    let at_first = parts.len();
    assert!((1..10).contains(&at_first), "{at_first}");
    assert_eq!(net.flows().0, 20_000);
    // A peer that does not read is told no more.
    net.event(ConnEvent::Blocked { conn: c });
    net.run(0);
    assert_eq!(net.heard(c), [""; 0]);
    net.event(ConnEvent::Drained { conn: c });
    for _ in 0..100 {
        net.run(0);
    }
    parts.extend(net.heard(c));
    assert_eq!(parts.pop().as_deref(), Some("OFPT_BARRIER_REPLY (OF1.3) (xid=0xa):"));
    assert_eq!(net.flows().0, 0);
    let (last, others) = parts.split_last().unwrap();
    assert_eq!(last, "OFPST_FLOW reply (OF1.3) (xid=0x8):");
    assert!(
        others.len() > 20 && others.iter().all(|m| m == "OFPST_FLOW reply (OF1.3) (xid=0x8): flags=[more]"),
        "{parts:?}"
    );
}
