//! A port's state from elsewhere, taken in by a bridge: what is wrong with it is said, and then nothing has changed; and a whole file, on the way
//! that an import takes. What was taken in goes again with its move.
//!
//! Bytes are choices of what to put in place of which value of a whole and right state, so that what is tried is JSON of the
//! right shape but for that.

use std::cell::RefCell;
use std::sync::Arc;

use ib_base::json::{Json, Object};
use ib_base::time::Clock;
use ib_dp_userspace::{Config, DpUserspaceClass};
use ib_flow::OfPort;
use ib_netdev::{DummyLevel, Registry};
use ib_ofproto::config::{BundleConfig, McastConfig, PortConfig};
use ib_ofproto::{Switch, appctl};

use crate::choices::Choices;

/// A port with all that can move with it.
const STATE: &str = r#"{"version":1,"bridge":"br0","ports":["p1"],
"meters":["meter=7 kbps stats bands=type=drop rate=1000"],
"meter_stats":[{"meter":7,"age_ms":90000,"counts":[[4,240],[1,60]]}],
"groups":["group_id=6,type=all,bucket=actions=output:p2",
"group_id=5,type=select,bucket=weight:5,actions=output:p1,bucket=actions=group:6"],
"group_stats":[{"group":5,"age_ms":90000,"modified_ms":90000,"counts":[[3,180],[1,60],[2,120]]}],
"flows":[{"flow":"table=0, priority=10,ip,in_port=p1,nw_src=10.0.0.1 actions=meter:7,group:5","packets":3,"bytes":180,"age_ms":90000,"modified_ms":90000,"idle_ms":5000},
{"flow":"table=1, cookie=0x7, idle_timeout=100, tcp,in_port=p1 actions=ct(commit,zone=5,table=2),learn(table=3,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])","packets":0,"bytes":0,"age_ms":1,"modified_ms":1,"idle_ms":1}],
"addresses":[{"port":"p1","vlan":4,"mac":"50:54:00:00:00:01","age_s":null}],
"neighbours":[{"ip":"::ffff:1.1.2.92","mac":"50:54:00:00:00:08","left_ms":900000}],
"memberships":[{"port":"p1","vlan":4,"group":"::ffff:239.1.1.1","protocol":"IGMPv2","age_s":3}],
"gone":[[5,["10.0.0.7","10.0.0.2",6,1,80,0]]],
"connections":[
{"orig":["10.0.0.1","192.0.2.9",6,40000,21,0],"reply":["192.0.2.9","192.0.2.1",6,21,61000,0],"zone":5,"left_ms":60000,"mark":7,"label":"0x10","tcp":[["ESTABLISHED",1000,70000,512,7,false],["SYN_RECV",1000,70000,512,null,true]],"nat":"source","helper":"ftp","skew":[[5,-1,3],[0,0,0]],"expected":[["192.0.2.9","192.0.2.1",6,50000,"destination","10.0.0.1",50000]]},
{"orig":["10.0.0.1","10.0.0.2",17,53,53,0],"reply":["10.0.0.2","10.0.0.1",17,53,53,0],"zone":5,"left_ms":60000,"talk":1},
{"orig":["fd00::1","fd00::2",58,128,129,7],"reply":["fd00::2","fd00::1",58,129,128,7],"zone":5,"left_ms":60000,"talk":2,"parent":["fd00::1","fd00::2",6,1,2,0],"zone_timeouts":true}]}"#;

/// The configuration around it.
const CONTENT: &str = r#"{"bridge":"br0","ports":[{"port":{"name":"p1","tag":5,"external_ids":["map",[["vm","7"]]]},
"interfaces":[{"name":"p1","type":"internal","ofport_request":4}],
"qos":{"type":"linux-htb","other_config":["map",[["max-rate","1000"]]],"queues":[[3,{"dscp":7}]]}}],
"mirrors":[{"mirror":"m","port":"p1","role":"source"}],"state":null}"#;

/// Some choices to begin with: each is a value's number, a kind of change, and what it wants.
pub const SEEDS: &[&[u8]] = &[
    &[],
    &[0, 3, 0],
    &[0, 9, 1, 7],
    &[0, 20, 2, 200],
    &[0, 120, 3, 8],
    &[0, 5, 4, 60, 1, 0, 8, 4, 2, 90],
    &[0, 130, 5, 2, 7, 6, 1],
];

struct Lab {
    switch: Switch,
    clock: Clock,
    state: Json,
    content: Json,
}

impl Lab {
    fn new() -> Option<Lab> {
        ib_base::vlog::set_levels(None, None, ib_base::vlog::Level::Off);
        let registry = Registry::new().ok()?;
        registry.enable_dummy(DummyLevel::Normal);
        let clock = Clock::simulated();
        let config = Config { registry, clock: clock.clone(), threads: 1, dummy: true };
        let class = Arc::new(DpUserspaceClass::new("dummy", config));
        let mut switch = Switch::new(&clock, vec![class as _], "/nowhere");
        // A bridge that stays, so that its datapath does.
        switch.bridge_add("stays", "dummy").ok()?;
        let (state, content) = (Json::parse(STATE).ok()?, Json::parse(CONTENT).ok()?);
        let mut lab = Lab { switch, clock, state, content };
        lab.make_bridge();
        Some(lab)
    }

    fn make_bridge(&mut self) {
        self.switch.bridge_add("br0", "dummy").expect("a bridge");
        let Some(bridge) = self.switch.bridge_mut("br0") else { return };
        for n in 1..3 {
            let config = PortConfig {
                name: format!("p{n}"),
                kind: "dummy".into(),
                ofport_request: Some(OfPort(n)),
                ..PortConfig::default()
            };
            let name = config.name.clone();
            let ports = vec![bridge.port_add(config).expect("a port")];
            bridge.bundle_set(BundleConfig { name, ports, ..BundleConfig::default() }).expect("a bundle");
        }
        let snooping = McastConfig { idle_secs: 300, max_groups: 2048, flood_unregistered: true };
        bridge.set_mcast_snooping(Some(snooping));
    }

    fn appctl(&mut self, name: &str, args: &[&str]) -> Result<String, String> {
        appctl::run(&mut self.switch, name, args)
    }

    /// All that the bridge holds.
    fn holds(&mut self) -> Result<String, String> {
        self.appctl("port-state/save", &["--zone=5", "br0", "p1", "p2"])
    }
}

thread_local! {
    static LAB: RefCell<Option<Lab>> = RefCell::new(Lab::new());
}

/// Takes a state in.
pub fn restore(input: &[u8]) {
    LAB.with_borrow_mut(|lab| {
        let Some(lab) = lab else { return };
        let mut choices = Choices::new(input);
        let state = mutated(lab.state.clone(), &mut choices);
        let text = state.to_string();
        let before = lab.holds();
        let checked = lab.appctl("port-state/restore", &["--check", "br0", &text]);
        assert_eq!(lab.holds(), before, "a check changes nothing");
        let done = lab.appctl("port-state/restore", &["--session=move", "br0", &text]);
        assert!(checked.is_ok() || done.is_err(), "what the check refuses is refused: {text}");
        let all = "2 flows, 2 groups, 1 meters, 1 addresses, 1 memberships, 3 connections\n";
        assert!(!input.is_empty() || done.as_deref() == Ok(all), "the state as it is: {done:?}");
        if done.is_err() {
            assert_eq!(lab.holds(), before, "what was refused has changed something: {text}");
            return;
        }
        lab.holds().expect("what was taken in can be saved");
        lab.switch.run(lab.clock.now().plus_ms(15_000));
        lab.appctl("port-state/end", &["--undo", "move"]).expect("the move ends");
        lab.switch.bridge_del("br0", true).expect("the bridge goes");
        lab.make_bridge();
        assert_eq!(lab.holds(), before, "what came by a move goes with it: {text}");
    });
}

/// A file of ports: what an import reads before it changes anything.
pub fn file(input: &[u8]) {
    LAB.with_borrow_mut(|lab| {
        let Some(lab) = lab else { return };
        let mut choices = Choices::new(input);
        let content = with_state(&lab.content, &lab.state);
        let content = mutated(content, &mut choices);
        let mut bytes = ib_tools::port::file::write(content.clone()).into_bytes();
        let read = ib_tools::port::file::read(&bytes);
        assert!(read.is_err() || read.as_ref() == Ok(&content), "another content: {read:?}");
        let what = read.and_then(|content| ib_tools::port::config::Imported::read(&content));
        assert!(!input.is_empty() || what.is_ok(), "the file as it is");
        if let Ok(mut what) = what {
            what.mark("move");
            // Eight changes double a list eight times at most.
            assert!(what.names().len() <= 256 && what.bridge.len() < 200);
            let before = lab.holds();
            let state = content.get("state").map(Json::to_string).unwrap_or_default();
            let _ = lab.appctl("port-state/restore", &["--check", &what.bridge, &state]);
            assert_eq!(lab.holds(), before, "a check changes nothing");
        }
        // A byte of it is another one.
        let at = usize::from(choices.u16()) % bytes.len();
        bytes[at] ^= choices.byte();
        let again = ib_tools::port::file::read(&bytes);
        assert!(again.is_err() || again == Ok(content), "a changed file is not noticed");
    });
}

fn with_state(content: &Json, state: &Json) -> Json {
    let mut out = content.as_object().cloned().unwrap_or_default();
    out.insert("state", state.clone());
    Json::Object(out)
}

/// How many values there are in one.
fn values(json: &Json) -> usize {
    1 + match json {
        Json::Array(items) => items.iter().map(values).sum(),
        Json::Object(members) => members.iter().map(|(_, value)| values(value)).sum(),
        _ => 0,
    }
}

/// `json` after as many changes as there are choices for, at most eight.
fn mutated(mut json: Json, c: &mut Choices<'_>) -> Json {
    for _ in 0..8 {
        if !c.more() {
            break;
        }
        let mut at = usize::from(c.u16()) % values(&json);
        json = changed(&json, &mut at, c);
    }
    json
}

/// `json` with another value in place of the `at`th one. Values are counted from the outside in.
fn changed(json: &Json, at: &mut usize, c: &mut Choices<'_>) -> Json {
    if *at == 0 {
        *at = usize::MAX;
        return other(json, c);
    }
    *at -= 1;
    match json {
        Json::Array(items) => Json::array(items.iter().map(|item| changed(item, at, c))),
        Json::Object(members) => {
            let mut out = Object::new();
            for (name, value) in members.iter() {
                out.insert(name.clone(), changed(value, at, c));
            }
            Json::Object(out)
        }
        leaf => leaf.clone(),
    }
}

fn other(json: &Json, c: &mut Choices<'_>) -> Json {
    const WORDS: [&str; 16] = [
        "ESTABLISHED",
        "ftp",
        "10.0.0.1",
        "named-uuid",
        "",
        "p9",
        "LOCAL",
        "drop",
        "table=255",
        "group:5",
        "meter:0",
        "in_port=p2",
        "239.1.1.1",
        "::1",
        "ff:ff:ff:ff:ff:ff",
        "tun_metadata0=1",
    ];
    match (c.below(8), json) {
        (0, _) => Json::Null,
        (1, _) => Json::from(i64::from(c.byte())),
        (2, _) => Json::from(c.of(&[i64::MAX, i64::MIN, -1, 65_536, 4096, 1 << 32])),
        (3, _) => Json::from(c.of(&WORDS)),
        // A text with a piece of another kind in it.
        (4 | 5, Json::String(text)) => {
            let at = c.below(text.len() + 1);
            let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
            Json::from(format!("{head}{}{}", c.of(&WORDS), tail.get(c.below(4)..).unwrap_or_default()))
        }
        (6, Json::Array(items)) => Json::array(items.iter().chain(items).cloned()),
        (7, Json::Array(_)) => Json::array([]),
        (_, Json::Array(items)) => Json::array(items.iter().rev().cloned()),
        _ => Json::array([json.clone()]),
    }
}
