//! Taking in what another switch saved.
//!
//! The state comes from outside. It is read whole into [`State`]: every text parsed, every name of a port resolved, every group and
//! meter that a flow uses looked for here and in the state. Only then it is applied: meters, groups, flows as one change,
//! addresses, connections. If the flows are refused, meters and groups go back to what they were.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use ib_base::json::Json;
use ib_base::time::Instant;
use ib_dpif::ct_saved::CtSaved;
use ib_dpif::meter::MeterStats;
use ib_flow::PortMap;
use ib_l2::mcast_messages::Change;
use ib_l2::mcast_snooping::Protocol;
use ib_openflow::action::Action;
use ib_openflow::decode::decode_with;
use ib_openflow::encode::encode;
use ib_openflow::flow_text::{Purpose, parse_flow_mod};
use ib_openflow::group_text::{parse_group_mod, parse_meter_mod};
use ib_openflow::message::{
    FlowMod, FlowModCommand, GroupMod, GroupModCommand, Message, MeterMod, OFPG_ALL, OFPM_MAX, Version,
};
use ib_openflow::names::Names;
use ib_packet::Mac;

use super::session::{self, Id, Session};
use super::{VERSION, each_action, port_map};
use crate::flow_mod::Past;
use crate::group::Group;
use crate::ofproto::BundleId;
use crate::rule::PushStats;
use crate::switch::{Bridge, Switch};

/// A flow and what it was.
struct Flow {
    flow: FlowMod,
    age_ms: u64,
    modified_ms: u64,
    idle_ms: u64,
    packets: u64,
    bytes: u64,
}

struct Address {
    mac: Mac,
    vlan: u16,
    bundle: BundleId,
    age_s: Option<u64>,
}

struct Membership {
    change: Change,
    vlan: u16,
    bundle: BundleId,
    age_s: u64,
}

struct Neighbour {
    ip: Ipv6Addr,
    mac: Mac,
    left_ms: u64,
}

/// What a group was.
struct GroupPast {
    id: u32,
    age_ms: u64,
    modified_ms: u64,
    /// Packets and bytes: of the whole, then of each bucket.
    counts: Vec<(u64, u64)>,
}

/// What a meter was.
struct MeterPast {
    id: u32,
    age_ms: u64,
    stats: MeterStats,
}

/// What came, read and checked.
struct State {
    meters: Vec<MeterMod>,
    meter_stats: Vec<MeterPast>,
    groups: Vec<GroupMod>,
    group_stats: Vec<GroupPast>,
    neighbours: Vec<Neighbour>,
    flows: Vec<Flow>,
    addresses: Vec<Address>,
    memberships: Vec<Membership>,
    connections: Vec<CtSaved>,
    gone: Vec<Id>,
}

/// `port-state/restore [--check] [--replace] [--session=NAME] BRIDGE STATE`
pub(crate) fn restore(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let (options, rest): (Vec<&str>, Vec<&str>) = args.iter().partition(|a| a.starts_with("--"));
    let (mut only_check, mut replace, mut session) = (false, false, None);
    for option in options {
        match option.split_once('=') {
            None if option == "--check" => only_check = true,
            None if option == "--replace" => replace = true,
            Some(("--session", name)) => session = Some(name),
            _ => return Err(format!("{option}: unknown option")),
        }
    }
    let [name, text] = rest[..] else { return Err("a bridge and a state are needed".into()) };
    let json = Json::parse(text).map_err(|e| format!("the state is no JSON: {e}"))?;
    let now = switch.clock.now();
    let bridge = switch.bridge(name).ok_or_else(|| format!("{name}: no such bridge"))?;
    let state = read(bridge, &json)?;
    check(bridge, &state, replace)?;
    if only_check {
        return Ok(summary(&state, 0));
    }
    let session = session.map(|name| session::open(&mut switch.sessions, name, now)).transpose()?;
    let bridge = switch.bridges.get(name).ok_or_else(|| format!("{name}: no such bridge"))?;
    let refused = apply(bridge, &state, session, now)?;
    if !state.neighbours.is_empty() {
        switch.world().with_neighbours(|table, at| {
            for n in &state.neighbours {
                table.take_over(name, n.ip, n.mac, n.left_ms, at);
            }
        });
    }
    Ok(summary(&state, refused))
}

fn summary(state: &State, refused: usize) -> String {
    let mut out = format!(
        "{} flows, {} groups, {} meters, {} addresses, {} memberships, {} connections\n",
        state.flows.len(),
        state.groups.len(),
        state.meters.len(),
        state.addresses.len(),
        state.memberships.len(),
        state.connections.len() - refused
    );
    if refused != 0 {
        out.push_str(&format!("{refused} connections were refused; the log has the first of them\n"));
    }
    out
}

/// The elements of a member that may be missing.
fn list<'a>(json: &'a Json, name: &str) -> Result<&'a [Json], String> {
    match json.get(name) {
        None => Ok(&[]),
        Some(list) => list.as_array().ok_or_else(|| format!("\"{name}\" is no list")),
    }
}

fn text_of<'a>(json: &'a Json, what: &str) -> Result<&'a str, String> {
    json.as_str().ok_or_else(|| format!("a {what} is no text"))
}

fn number<T: TryFrom<i64>>(json: &Json, name: &str, what: &str) -> Result<T, String> {
    let n = json.get(name).and_then(Json::as_integer).and_then(|n| T::try_from(n).ok());
    n.ok_or_else(|| format!("{what}: \"{name}\" is missing or no number in range"))
}

fn read(bridge: &Bridge, json: &Json) -> Result<State, String> {
    const KNOWN: [&str; 14] = [
        "version",
        "bridge",
        "ports",
        "meters",
        "groups",
        "flows",
        "addresses",
        "memberships",
        "connections",
        "gone",
        "more",
        "group_stats",
        "meter_stats",
        "neighbours",
    ];
    let members = json.as_object().ok_or("the state is no JSON object")?;
    if let Some(other) = members.keys().find(|k| !KNOWN.contains(&&***k)) {
        return Err(format!("\"{other}\" is unknown: a newer version wrote this state"));
    }
    match json.get("version").and_then(Json::as_integer) {
        Some(VERSION) => {}
        Some(other) => {
            return Err(format!("version {other} is unknown; this switch reads version {VERSION}"));
        }
        None => return Err("the state has no version".into()),
    }
    let map = port_map(bridge, |name| name);
    let names = Names { ports: Some(&map), tables: None };
    for port in list(json, "ports")? {
        let name = text_of(port, "port")?;
        bridge.port_by_name(name).ok_or_else(|| format!("{name}: no such port on {}", bridge.of.name))?;
    }
    let tlv = bridge.of.tlv().map_or(0, |table| table.id());
    let meter = |m: &Json| {
        let text = text_of(m, "meter")?;
        let meter = parse_meter_mod(text, 0).map_err(|e| format!("meter \"{text}\": {e}"))?;
        let id = meter.meter.meter_id;
        if id == 0 || id > OFPM_MAX { Err(format!("meter {id:#x}: not one of a port")) } else { Ok(meter) }
    };
    let group = |g: &Json| {
        let text = text_of(g, "group")?;
        let parsed = parse_group_mod(text, Some(GroupModCommand::Add), names);
        parsed.map(|(g, _)| g).map_err(|e| explain("group", text, &e))
    };
    let connection = |c: &Json| CtSaved::from_json(c).map_err(|e| format!("a connection: {e} is wrong"));
    Ok(State {
        meters: list(json, "meters")?.iter().map(meter).collect::<Result<_, String>>()?,
        meter_stats: list(json, "meter_stats")?.iter().map(meter_past).collect::<Result<_, _>>()?,
        groups: list(json, "groups")?.iter().map(group).collect::<Result<_, String>>()?,
        group_stats: list(json, "group_stats")?.iter().map(group_past).collect::<Result<_, _>>()?,
        neighbours: list(json, "neighbours")?.iter().map(neighbour).collect::<Result<_, _>>()?,
        flows: list(json, "flows")?.iter().map(|f| flow(f, &map, tlv)).collect::<Result<_, _>>()?,
        addresses: list(json, "addresses")?.iter().map(|a| address(bridge, a)).collect::<Result<_, _>>()?,
        memberships: list(json, "memberships")?
            .iter()
            .map(|m| membership(bridge, m))
            .collect::<Result<_, _>>()?,
        connections: list(json, "connections")?.iter().map(connection).collect::<Result<_, _>>()?,
        gone: list(json, "gone")?.iter().map(session::id).collect::<Result<_, _>>()?,
    })
}

fn explain(what: &str, text: &str, error: &str) -> String {
    format!("{what} \"{text}\": {error} (ports that it names must be on the bridge)")
}

/// A flow as it would arrive from a controller: only so tunnel options get their places by the bridge's table.
fn by_table(flow: FlowMod, tlv: u32) -> Option<FlowMod> {
    let bytes = encode(&Message::FlowMod(Box::new(flow)), Version::V15, 0);
    match decode_with(&bytes, tlv).ok()?.message {
        Message::FlowMod(flow) => Some(*flow),
        _ => None,
    }
}

fn flow(json: &Json, ports: &PortMap, tlv: u32) -> Result<Flow, String> {
    let text = text_of(json.get("flow").unwrap_or(&Json::Null), "flow")?;
    let names = Names { ports: Some(ports), tables: None };
    let (mut flow, _) = parse_flow_mod(text, Purpose::Mod(FlowModCommand::Add), names)
        .map_err(|e| explain("flow", text, &e))?;
    if text.contains("tun_metadata") {
        let unknown = || explain("flow", text, "it needs tunnel options that the bridge lacks");
        flow = by_table(flow, tlv).ok_or_else(unknown)?;
    }
    Ok(Flow {
        flow,
        age_ms: number(json, "age_ms", text)?,
        modified_ms: number(json, "modified_ms", text)?,
        idle_ms: number(json, "idle_ms", text)?,
        packets: number(json, "packets", text)?,
        bytes: number(json, "bytes", text)?,
    })
}

fn bundle(bridge: &Bridge, json: &Json, what: &str) -> Result<BundleId, String> {
    let name = json.get("port").and_then(Json::as_str).ok_or_else(|| format!("{what}: no port"))?;
    let port = bridge.port_by_name(name).and_then(|p| bridge.bundles.id_of_port(p.ofport));
    port.ok_or_else(|| format!("{what}: {name}: no such port on {}", bridge.of.name))
}

fn vlan(json: &Json, what: &str) -> Result<u16, String> {
    number::<u16>(json, "vlan", what)
        .and_then(|v| if v < 4096 { Ok(v) } else { Err(format!("{what}: VLAN {v} is above 4095")) })
}

fn address(bridge: &Bridge, json: &Json) -> Result<Address, String> {
    let mac = json.get("mac").and_then(Json::as_str).unwrap_or_default();
    let what = format!("address \"{mac}\"");
    let is_static = json.get("age_s").is_some_and(Json::is_null);
    Ok(Address {
        mac: mac.parse().map_err(|_| format!("{what}: not an Ethernet address"))?,
        vlan: vlan(json, &what)?,
        bundle: bundle(bridge, json, &what)?,
        age_s: if is_static { None } else { Some(number(json, "age_s", &what)?) },
    })
}

/// Pairs of packets and bytes.
fn counts(json: &Json, what: &str) -> Result<Vec<(u64, u64)>, String> {
    let pair = |p: &Json| {
        let [packets, bytes] = p.as_array()? else { return None };
        let count = |n: &Json| n.as_integer().and_then(|n| u64::try_from(n).ok());
        Some((count(packets)?, count(bytes)?))
    };
    let counts: Option<Vec<_>> = list(json, "counts")?.iter().map(pair).collect();
    counts.ok_or_else(|| format!("{what}: \"counts\" has something else than pairs"))
}

fn meter_past(json: &Json) -> Result<MeterPast, String> {
    const WHAT: &str = "counters of a meter";
    let mut bands = counts(json, WHAT)?;
    if bands.is_empty() {
        return Err(format!("{WHAT}: \"counts\" is empty"));
    }
    let (packets, bytes) = bands.remove(0);
    let stats = MeterStats { packets, bytes, bands };
    Ok(MeterPast { id: number(json, "meter", WHAT)?, age_ms: number(json, "age_ms", WHAT)?, stats })
}

fn group_past(json: &Json) -> Result<GroupPast, String> {
    const WHAT: &str = "counters of a group";
    Ok(GroupPast {
        id: number(json, "group", WHAT)?,
        age_ms: number(json, "age_ms", WHAT)?,
        modified_ms: number(json, "modified_ms", WHAT)?,
        counts: counts(json, WHAT)?,
    })
}

fn neighbour(json: &Json) -> Result<Neighbour, String> {
    let text = |name| json.get(name).and_then(Json::as_str).unwrap_or_default();
    let what = format!("neighbour \"{}\"", text("ip"));
    Ok(Neighbour {
        ip: text("ip").parse().map_err(|_| format!("{what}: not an IPv6 address"))?,
        mac: text("mac").parse().map_err(|_| format!("{what}: not an Ethernet address"))?,
        left_ms: number(json, "left_ms", &what)?,
    })
}

fn membership(bridge: &Bridge, json: &Json) -> Result<Membership, String> {
    let group = json.get("group").and_then(Json::as_str).unwrap_or_default();
    let what = format!("membership of \"{group}\"");
    let protocol = json.get("protocol").and_then(Json::as_str);
    let protocol = Protocol::ALL.into_iter().find(|p| Some(p.name()) == protocol);
    let group = group.parse().map_err(|_| format!("{what}: not an IPv6 address"))?;
    Ok(Membership {
        change: Change::Join(group, protocol.ok_or_else(|| format!("{what}: unknown protocol"))?),
        vlan: vlan(json, &what)?,
        bundle: bundle(bridge, json, &what)?,
        age_s: number(json, "age_s", &what)?,
    })
}

fn same_group(old: &Group, new: &GroupMod) -> bool {
    old.kind == new.kind
        && old.props == new.props
        && old.buckets.len() == new.buckets.len()
        && old.buckets.iter().zip(&new.buckets).all(|((a, _), b)| a == b)
}

/// Whether all that flows and groups use is here or comes along, and nothing that is here would become something else.
fn check(bridge: &Bridge, state: &State, replace: bool) -> Result<(), String> {
    let (groups, meters) = (bridge.of.groups.read(), bridge.of.meters.read());
    for g in &state.groups {
        let id = g.group_id;
        if !replace && groups.get(&id).is_some_and(|old| !same_group(old, g)) {
            return Err(format!("group {id} is another one on {}; use --replace", bridge.of.name));
        }
    }
    for m in &state.meters {
        let id = m.meter.meter_id;
        if !replace && meters.get(&id).is_some_and(|old| old.config != m.meter) {
            return Err(format!("meter {id} is another one on {}; use --replace", bridge.of.name));
        }
    }
    let coming: BTreeSet<u32> = state.groups.iter().map(|g| g.group_id).collect();
    let metered: BTreeSet<u32> = state.meters.iter().map(|m| m.meter.meter_id).collect();
    let in_buckets = state.groups.iter().flat_map(|g| &g.buckets).map(|b| b.actions.as_slice());
    let mut missing = None;
    for actions in state.flows.iter().map(|f| f.flow.actions.as_slice()).chain(in_buckets) {
        each_action(actions, &mut |a| match a {
            Action::Group(g) if !coming.contains(g) && !groups.contains_key(g) => {
                missing = Some(format!("group {g}"));
            }
            Action::Meter(m) if !metered.contains(m) && !meters.contains_key(m) => {
                missing = Some(format!("meter {m}"));
            }
            _ => {}
        });
    }
    missing.map_or(Ok(()), |what| Err(format!("{what} is used, and neither here nor in the state")))
}

/// What was there before, to be put back.
struct Undo<'a> {
    bridge: &'a Bridge,
    now: Instant,
    groups: Vec<(u32, Option<Arc<Group>>)>,
    meters: Vec<(u32, Option<MeterMod>)>,
}

impl Undo<'_> {
    fn run(self) {
        let of = &self.bridge.of;
        for (id, old) in self.groups.into_iter().rev() {
            let mut groups = of.groups.write();
            match old {
                Some(old) => groups.insert(id, old),
                None => groups.remove(&id),
            };
        }
        for (id, old) in self.meters.into_iter().rev() {
            let back = old.unwrap_or(MeterMod {
                command: 2,
                meter: ib_openflow::message::MeterConfig { meter_id: id, flags: 0, bands: Vec::new() },
            });
            // It was accepted before.
            let _ = of.meter_mod(&self.bridge.backer, &back, self.now);
        }
        of.changed.bump();
    }
}

/// Applies a state; how many connections were refused.
fn apply(
    bridge: &Bridge,
    state: &State,
    session: Option<&mut Session>,
    now: Instant,
) -> Result<usize, String> {
    let mut undo = Undo { bridge, now, groups: Vec::new(), meters: Vec::new() };
    if let Err(why) = apply_pipeline(bridge, state, now, &mut undo) {
        undo.run();
        return Err(why);
    }
    let back = |secs: u64| Instant::from_ms(now.as_ms().saturating_sub(secs.saturating_mul(1000)));
    for a in &state.addresses {
        let mut macs = bridge.of.ml.write();
        let news = match a.age_s {
            None if macs.add_static(a.mac, a.vlan, a.bundle) => vec![a.mac],
            None => Vec::new(),
            Some(age) => macs.update(a.mac, a.vlan, a.bundle, false, false, back(age)),
        };
        drop(macs);
        bridge.of.addresses_changed(&news);
    }
    if let Some(table) = bridge.of.mcast.write().as_mut() {
        for m in &state.memberships {
            table.apply(m.change, m.vlan, m.bundle, back(m.age_s));
        }
    }
    if !state.memberships.is_empty() {
        bridge.of.changed.bump();
    }
    Ok(apply_connections(bridge, state, session))
}

fn apply_pipeline(bridge: &Bridge, state: &State, now: Instant, undo: &mut Undo<'_>) -> Result<(), String> {
    let of = &bridge.of;
    let back = |ms: u64| Instant::from_ms(now.as_ms().saturating_sub(ms));
    for m in &state.meters {
        let id = m.meter.meter_id;
        let old = of.meters.read().get(&id).map(|m| MeterMod { command: 1, meter: m.config.clone() });
        if old.as_ref().is_some_and(|old| old.meter == m.meter) {
            continue;
        }
        let command = u16::from(old.is_some());
        let result = of.meter_mod(&bridge.backer, &MeterMod { command, ..m.clone() }, now);
        result.map_err(|e| format!("meter {id}: {}", e.name()))?;
        if let Some(past) = state.meter_stats.iter().find(|p| old.is_none() && p.id == id) {
            of.restore_meter(id, back(past.age_ms), past.stats.clone());
        }
        undo.meters.push((id, old));
    }
    let mut txn = of.begin(now);
    // A group may use one that comes after it: what is missing was found before.
    for g in &state.groups {
        if g.group_id >= OFPG_ALL {
            return Err(format!("group {:#x}: no number of a group", g.group_id));
        }
        let old = of.group(g.group_id);
        if old.as_ref().is_some_and(|old| same_group(old, g)) {
            continue;
        }
        let is_new = old.is_none();
        undo.groups.push((g.group_id, old));
        let put = GroupMod { command: GroupModCommand::AddOrMod, ..g.clone() };
        of.group_mod_in(&put, &mut txn, now).map_err(|e| format!("group {}: {}", g.group_id, e.name()))?;
        if let Some(past) = state.group_stats.iter().find(|p| is_new && p.id == g.group_id) {
            of.restore_group(past.id, back(past.age_ms), back(past.modified_ms), &past.counts);
        }
    }
    for f in &state.flows {
        let stats = PushStats {
            packets: f.packets,
            bytes: f.bytes,
            used_ms: back(f.idle_ms).as_ms(),
            ..PushStats::default()
        };
        let past = Past { created: back(f.age_ms), modified: back(f.modified_ms), stats };
        txn.restore(&f.flow, past).map_err(|e| {
            format!("flow in table {}, priority {}: {}", f.flow.table_id, f.flow.priority, e.name())
        })?;
    }
    txn.commit();
    Ok(())
}

fn apply_connections(bridge: &Bridge, state: &State, mut session: Option<&mut Session>) -> usize {
    let Some(table) = bridge.backer.dpif.conntrack() else { return state.connections.len() };
    let mut before = HashSet::new();
    if let Some(session) = &mut session {
        session.set_table(&bridge.backer.dpif);
        session.drop_gone(table, &state.gone);
        // Of those that came by an earlier pass it is known that they were not here: a last pass looks at nothing else.
        let zones: BTreeSet<u16> = state
            .connections
            .iter()
            .filter(|c| !session.has_taken(&(c.zone, c.orig)))
            .map(|c| c.zone)
            .collect();
        let there = zones.iter().flat_map(|zone| table.dump(Some(*zone)));
        before.extend(there.map(|e| (e.zone, e.orig)));
    }
    let mut refused = 0;
    for c in &state.connections {
        match (table.restore(c), &mut session) {
            (Ok(()), Some(session)) if !before.contains(&(c.zone, c.orig)) => {
                session.note_taken((c.zone, c.orig));
            }
            (Ok(()), _) => {}
            (Err(why), _) => {
                if refused == 0 {
                    ib_base::vlog_warn!(
                        ib_base::vlog::module::OFPROTO_DPIF,
                        "a connection was refused: {why}"
                    );
                }
                refused += 1;
            }
        }
    }
    refused
}
