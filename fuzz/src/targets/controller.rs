//! A controller that says anything: a bridge must survive it, answer in messages that decode, and forget it.

use std::cell::RefCell;
use std::sync::Arc;

use ib_base::time::{Clock, Instant};
use ib_dp_userspace::{Config, DpUserspaceClass};
use ib_flow::OfPort;
use ib_netdev::{DummyLevel, Registry};
use ib_ofproto::config::{NetdevStatus, PortConfig};
use ib_ofproto::{ConnCommand, ConnEvent, Switch};
use ib_openflow::decode::decode;
use ib_openflow::encode::encode;
use ib_openflow::message::{Message, Version, Versions};
use ib_openflow::raw::{Frame, next_message};

use super::openflow::made_messages;

/// Messages in a seed.
const SEED_MESSAGES: usize = 6;
/// Bytes that a turn may leave for peers.
const MAX_OUTPUT: usize = 64 << 20;

/// Messages of one version, some at a time.
pub fn made() -> Vec<Vec<u8>> {
    let all = made_messages();
    let mut out = Vec::new();
    for version in [Version::V10, Version::V11, Version::V12, Version::V13, Version::V14, Version::V15] {
        let of_version: Vec<&[u8]> =
            all.iter().filter(|m| m[0] == version.to_wire()).map(Vec::as_slice).collect();
        for messages in of_version.chunks(SEED_MESSAGES) {
            out.push(messages.concat());
        }
    }
    out
}

/// A switch with a bridge that stays, so that its datapath does.
struct Lab {
    switch: Switch,
    clock: Clock,
}

impl Lab {
    fn new() -> Option<Lab> {
        // Each refusal is a line of the log otherwise.
        ib_base::vlog::set_levels(None, None, ib_base::vlog::Level::Off);
        let registry = Registry::new().ok()?;
        registry.enable_dummy(DummyLevel::Normal);
        let clock = Clock::simulated();
        let config = Config { registry, clock: clock.clone(), threads: 1, dummy: true };
        let class = Arc::new(DpUserspaceClass::new("dummy", config));
        let mut switch = Switch::new(&clock, vec![class as _], "/nowhere");
        switch.bridge_add("stays", "dummy").ok()?;
        Some(Lab { switch, clock })
    }

    /// What the switch sends must be whole messages that we read.
    fn check_output(&mut self) {
        let mut bytes = 0;
        for command in self.switch.take_conn_commands() {
            let ConnCommand::Send { data, .. } = command else { continue };
            bytes += data.len();
            let mut rest = &data[..];
            while let Frame::Message(n) = next_message(rest) {
                if let Err(e) = decode(&rest[..n]) {
                    panic!("sent what does not decode ({e:?}): {:02x?}", &rest[..n]);
                }
                rest = &rest[n..];
            }
            assert!(rest.is_empty(), "half a message");
        }
        assert!(bytes < MAX_OUTPUT, "{bytes} bytes of answers");
    }
}

thread_local! {
    static LAB: RefCell<Option<Lab>> = RefCell::new(Lab::new());
}

/// Two connections: the second hears what the first does.
pub fn conversation(input: &[u8]) {
    LAB.with_borrow_mut(|lab| {
        if let Some(lab) = lab {
            converse(lab, input);
        }
    });
}

fn converse(lab: &mut Lab, input: &[u8]) {
    let now = lab.clock.now();
    let Some(version) = input.first().and_then(|b| Version::from_wire(b % 6 + 1)) else { return };
    lab.switch.bridge_add("br0", "dummy").expect("a bridge");
    let listener = "punix:/nowhere/br0.mgmt";
    let Some(bridge) = lab.switch.bridge_mut("br0") else { return };
    for n in 1..3 {
        let config = PortConfig {
            name: format!("p{n}"),
            kind: "dummy".into(),
            ofport_request: Some(OfPort(n)),
            netdev: NetdevStatus::default(),
            ..PortConfig::default()
        };
        // Without its device it has no datapath port, which is no matter here.
        let _ = bridge.port_add(config);
    }
    let conns = [bridge.new_conn_id(), bridge.new_conn_id()];
    for conn in conns {
        event(lab, ConnEvent::Accepted { listener, conn, peer: "unix#1" }, now);
        let hello = encode(&Message::Hello(Versions::only(version)), version, 1);
        event(lab, ConnEvent::Received { conn, data: &hello }, now);
    }
    let mut data = input.to_vec();
    mend_frames(&mut data, version);
    for (i, chunk) in data.chunks(2048).enumerate() {
        event(lab, ConnEvent::Received { conn: conns[i % 2], data: chunk }, now);
    }
    event(lab, ConnEvent::Blocked { conn: conns[1] }, now);
    event(lab, ConnEvent::Received { conn: conns[0], data: &data }, now);
    lab.switch.run(now.plus_ms(15_000));
    event(lab, ConnEvent::Drained { conn: conns[1] }, now);
    for conn in conns {
        event(lab, ConnEvent::Closed { conn, reason: None }, now);
    }
    lab.switch.bridge_del("br0", true).expect("the bridge goes");
    lab.check_output();
    let mut usage = ib_base::memory::Usage::new();
    lab.switch.memory_usage(&mut usage);
    assert!(usage.iter().all(|(name, _)| name != "ofconns"), "connections were left");
}

fn event(lab: &mut Lab, event: ConnEvent<'_>, now: Instant) {
    lab.switch.conn_event("br0", event, now);
    lab.check_output();
}

/// Makes lengths and versions such that the messages arrive as messages: framing has a target of its own.
fn mend_frames(data: &mut [u8], version: Version) {
    let mut rest = data;
    while rest.len() >= 8 {
        rest[0] = version.to_wire();
        let said = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let len = if said < 8 || said > rest.len() { rest.len().min(usize::from(u16::MAX)) } else { said };
        rest[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        rest = &mut std::mem::take(&mut rest)[len..];
    }
}
