//! Gathering what concerns a port.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ib_base::json::{Json, Object};
use ib_base::time::Instant;
use ib_classifier::MiniMatch;
use ib_dpif::conntrack::CtEntry;
use ib_dpif::ct_saved::CtSaved;
use ib_dpif::meter::MeterStats;
use ib_flow::{Flow, Match, OfPort};
use ib_openflow::action::{Action, Source};
use ib_openflow::flow_text::format_flow_stats;
use ib_openflow::group_text::{group_line, meter_line};
use ib_openflow::message::{FlowStats, Version};
use ib_openflow::names::Names;
use ib_packet::Mac;
use ib_tunnel::World;

use super::{VERSION, each_action, enters_by, match_of, port_map, session};
use crate::group::{Counts, Group};
use crate::meter::Meter;
use crate::ofproto::{BundleId, INTERNAL_TABLE};
use crate::rule::Rule;
use crate::switch::{Bridge, Switch};

/// What to gather.
#[derive(Default)]
struct Wanted<'a> {
    bridge: &'a str,
    ports: Vec<&'a str>,
    macs: Vec<Mac>,
    addrs: Vec<IpAddr>,
    cookies: Vec<(u64, u64)>,
    zones: Vec<u16>,
    connections_only: bool,
    session: Option<&'a str>,
    limit: Option<usize>,
    /// Names that ports have in the other switch.
    renamed: Vec<(&'a str, &'a str)>,
}

impl Wanted<'_> {
    /// The name of a port in the other switch.
    fn name_there<'a>(&'a self, name: &'a str) -> &'a str {
        self.renamed.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `COOKIE[/MASK]`
pub(super) fn cookie(text: &str) -> Option<(u64, u64)> {
    match text.split_once('/') {
        Some((cookie, mask)) => Some((number(cookie)?, number(mask)?)),
        None => Some((number(text)?, u64::MAX)),
    }
}

fn parse<'a>(args: &[&'a str]) -> Result<Wanted<'a>, String> {
    let mut wanted = Wanted::default();
    let mut names = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some(("--zone", zone)) => {
                wanted.zones.push(zone.parse().map_err(|_| format!("{zone}: not a zone (0 to 65535)"))?);
            }
            Some(("--address", text)) => match (text.parse(), text.parse()) {
                (Ok(mac), _) => wanted.macs.push(mac),
                (_, Ok(addr)) => wanted.addrs.push(addr),
                _ => return Err(format!("{text}: neither an Ethernet nor an IP address")),
            },
            Some(("--cookie", text)) => {
                wanted.cookies.push(cookie(text).ok_or_else(|| format!("{text}: not COOKIE[/MASK]"))?);
            }
            Some(("--only", "connections")) => wanted.connections_only = true,
            Some(("--session", name)) => wanted.session = Some(name),
            Some(("--limit", n)) => {
                wanted.limit = Some(n.parse().map_err(|_| format!("{n}: not a number of connections"))?);
            }
            Some(("--as", pair)) => {
                let pair = pair.split_once('=').ok_or_else(|| format!("{pair}: not PORT=NAME"))?;
                wanted.renamed.push(pair);
            }
            _ if arg.starts_with("--") => return Err(format!("{arg}: unknown option")),
            _ => names.push(*arg),
        }
    }
    let (bridge, ports) = names.split_first().ok_or("no bridge is named")?;
    if ports.is_empty() {
        return Err("no port is named".into());
    }
    (wanted.bridge, wanted.ports) = (bridge, ports.to_vec());
    Ok(wanted)
}

/// `port-state/save [OPTION...] BRIDGE PORT...`
pub(crate) fn save(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let wanted = parse(args)?;
    let now = switch.clock.now();
    let no_bridge = || format!("{}: no such bridge", wanted.bridge);
    let bridge = switch.bridge(wanted.bridge).ok_or_else(no_bridge)?;
    let moving = session::ports_of(&switch.sessions, wanted.session);
    let mut ports = Vec::new();
    for name in &wanted.ports {
        match bridge.port_by_name(name) {
            Some(port) => ports.push(port.ofport),
            // Its connections are still here.
            None if wanted.connections_only && moving.iter().any(|(known, _)| known == name) => {}
            None => return Err(format!("{name}: no such port on {}", wanted.bridge)),
        }
    }
    // Counters of packets that only datapath flows know of so far.
    bridge.backer.revalidate(now);
    let mut state = Object::new();
    state.insert("version", VERSION);
    state.insert("bridge", wanted.bridge);
    state.insert("ports", Json::array(wanted.ports.iter().map(|p| Json::from(wanted.name_there(p)))));
    let rules = rules(bridge, &wanted, &ports);
    if !wanted.connections_only {
        save_pipeline(bridge, &wanted, &ports, &rules, now, &mut state);
        save_addresses(bridge, &wanted, &ports, now, &mut state);
        state.insert("neighbours", neighbours(switch.world(), bridge, &ports, now));
    }
    let zones = if wanted.zones.is_empty() { zones_of(&rules, &ports) } else { wanted.zones.clone() };
    let all = match wanted.session {
        None => connections(bridge, &wanted, &zones),
        Some(name) => {
            let session = session::open(&mut switch.sessions, name, now)?;
            let names = wanted.ports.iter().map(|p| (*p).to_owned());
            let zones = session.remember(names.zip(ports.iter().copied()), &zones);
            let bridge = switch.bridges.get(wanted.bridge).ok_or_else(no_bridge)?;
            let all = connections(bridge, &wanted, &zones);
            let news = session.news(all, wanted.limit.unwrap_or(usize::MAX), now);
            state.insert("gone", Json::array(news.gone.iter().map(session::id_json)));
            state.insert("more", news.more);
            news.connections
        }
    };
    state.insert("connections", Json::array(all.iter().map(|c| c.to_json())));
    Ok(Json::Object(state).to_text(Default::default()))
}

fn mentions(m: &Match, wanted: &Wanted<'_>) -> bool {
    names_address(m, &wanted.macs, &wanted.addrs)
}

/// Whether a match is about exactly one of these addresses.
pub(super) fn names_address(m: &Match, macs: &[Mac], addrs: &[IpAddr]) -> bool {
    let exact = |a: &[u8], ones: &[u8]| !a.is_empty() && ones.iter().all(|b| *b == 0xff);
    let has = |value: &[u8], mask: &[u8], address: &[u8]| exact(value, mask) && value == address;
    let (f, w): (&Flow, &Flow) = (&m.flow, &m.mask.0);
    let by_mac = macs.iter().any(|mac| {
        [(&f.dl_src, &w.dl_src), (&f.dl_dst, &w.dl_dst), (&f.arp_sha, &w.arp_sha), (&f.arp_tha, &w.arp_tha)]
            .iter()
            .any(|(v, m)| has(&v.0, &m.0, &mac.0))
    });
    let by_ip = addrs.iter().any(|addr| match addr {
        IpAddr::V4(a) => [(f.nw_src, w.nw_src), (f.nw_dst, w.nw_dst)]
            .iter()
            .any(|(v, m)| m.get() == u32::MAX && v.get() == u32::from(*a)),
        IpAddr::V6(a) => [(f.ipv6_src, w.ipv6_src), (f.ipv6_dst, w.ipv6_dst), (f.nd_target, w.nd_target)]
            .iter()
            .any(|(v, m)| m.get() == u128::MAX && v.get() == u128::from(*a)),
    });
    by_mac || by_ip
}

/// The rules that concern the ports.
fn rules(bridge: &Bridge, wanted: &Wanted<'_>, ports: &[OfPort]) -> Vec<Arc<Rule>> {
    let version = bridge.of.current_version();
    let mut out = Vec::new();
    for table in &bridge.of.tables[..usize::from(INTERNAL_TABLE)] {
        for rule in table.cls.collect_loose(&MiniMatch::catch_all(), version) {
            let m = match_of(bridge, &rule);
            let by_cookie = || wanted.cookies.iter().any(|(c, mask)| (rule.cookie ^ c) & mask == 0);
            let by_output = || ports.iter().any(|p| rule.outputs_to(*p));
            if !rule.is_hidden()
                && (enters_by(&m, ports) || by_output() || by_cookie() || mentions(&m, wanted))
            {
                out.push(rule);
            }
        }
    }
    out
}

fn save_pipeline(
    bridge: &Bridge,
    wanted: &Wanted<'_>,
    ports: &[OfPort],
    rules: &[Arc<Rule>],
    now: Instant,
    out: &mut Object,
) {
    let map = port_map(bridge, |name| wanted.name_there(name));
    let names = Names { ports: Some(&map), tables: None };
    let (mut groups, mut meters) = (BTreeSet::new(), BTreeSet::new());
    let mut note = |actions: &[Action], groups: &mut BTreeSet<u32>| {
        each_action(actions, &mut |a| match a {
            Action::Group(g) => {
                groups.insert(*g);
            }
            Action::Meter(m) => {
                meters.insert(*m);
            }
            _ => {}
        });
    };
    rules.iter().for_each(|r| note(&r.actions, &mut groups));
    let all = bridge.of.groups.read().clone();
    let outputs = |a: &Action| matches!(a, Action::Output { port, .. } | Action::Enqueue { port, .. } if ports.contains(port));
    for (id, group) in &all {
        if group.buckets.iter().any(|(b, _)| b.actions.iter().any(outputs)) {
            groups.insert(*id);
        }
    }
    // Groups that groups use.
    let mut todo: Vec<u32> = groups.iter().copied().collect();
    while let Some(id) = todo.pop() {
        let mut used = BTreeSet::new();
        for (bucket, _) in all.get(&id).iter().flat_map(|g| &g.buckets) {
            note(&bucket.actions, &mut used);
        }
        todo.extend(used.into_iter().filter(|id| groups.insert(*id)));
    }
    let line = |id| {
        let g = all.get(id)?;
        let buckets: Vec<_> = g.buckets.iter().map(|(b, _)| b.clone()).collect();
        Some(Json::from(group_line(g.id, g.kind, &buckets, &g.props, &names)))
    };
    let group_lines: Vec<Json> = groups.iter().filter_map(line).collect();
    let known = bridge.of.meters.read().clone();
    let meter_lines = meters.iter().filter_map(|id| known.get(id)).map(|m| Json::from(meter_line(&m.config)));
    let past = groups.iter().filter_map(|id| all.get(id)).map(|g| group_past(g, now));
    let meters_past =
        meters.iter().filter_map(|id| known.get(id)).map(|m| meter_past(m, &m.stats(&bridge.backer), now));
    out.insert("meter_stats", Json::array(meters_past));
    out.insert("group_stats", Json::array(past));
    out.insert("meters", Json::array(meter_lines));
    out.insert("groups", Json::Array(group_lines));
    out.insert("flows", Json::array(rules.iter().map(|r| flow(bridge, r, &names, now))));
}

fn count(n: u64) -> Json {
    Json::from(i64::try_from(n).unwrap_or(i64::MAX))
}

fn pair((packets, bytes): (u64, u64)) -> Json {
    Json::array([count(packets), count(bytes)])
}

/// Age and counters of a meter: of the whole, then of each band.
fn meter_past(m: &Meter, stats: &MeterStats, now: Instant) -> Json {
    let counts = std::iter::once((stats.packets, stats.bytes)).chain(stats.bands.iter().copied());
    Json::object([
        ("meter", Json::from(m.config.meter_id)),
        ("age_ms", count(now.as_ms().saturating_sub(m.created.as_ms()))),
        ("counts", Json::array(counts.map(pair))),
    ])
}

/// Age and counters of a group: of the whole, then of each bucket.
fn group_past(g: &Group, now: Instant) -> Json {
    let ms = |at: Instant| count(now.as_ms().saturating_sub(at.as_ms()));
    let pair = |c: &Counts| pair(c.get());
    let counts = std::iter::once(&g.counts).chain(g.buckets.iter().map(|(_, c)| c));
    Json::object([
        ("group", Json::from(g.id)),
        ("age_ms", ms(g.created)),
        ("modified_ms", ms(g.modified)),
        ("counts", Json::array(counts.map(pair))),
    ])
}

/// Neighbours of tunnels behind the ports: those with addresses that were learned there.
fn neighbours(world: &World, bridge: &Bridge, ports: &[OfPort], now: Instant) -> Json {
    let bundles: Vec<BundleId> = ports.iter().filter_map(|p| bridge.bundles.id_of_port(*p)).collect();
    let theirs: BTreeSet<[u8; 6]> =
        bridge.of.ml.read().entries(now).filter(|e| bundles.contains(&e.port)).map(|e| e.mac.0).collect();
    world.read_neighbours(|table, at| {
        let found = table.entries(&bridge.of.name, at).filter(|(_, mac, _)| theirs.contains(&mac.0));
        Json::array(found.map(|(ip, mac, left_ms)| {
            Json::object([
                ("ip", Json::from(ip.to_string())),
                ("mac", Json::from(mac.to_string())),
                ("left_ms", Json::from(i64::try_from(left_ms).unwrap_or(i64::MAX))),
            ])
        }))
    })
}

fn flow(bridge: &Bridge, rule: &Rule, names: &Names<'_>, now: Instant) -> Json {
    let stats = FlowStats {
        match_: match_of(bridge, rule),
        cookie: rule.cookie,
        table_id: rule.table,
        priority: u16::try_from(rule.priority()).unwrap_or(u16::MAX),
        idle_timeout: rule.idle_timeout(),
        hard_timeout: rule.hard_timeout(),
        importance: rule.importance,
        flags: rule.flags,
        actions: rule.actions.to_vec(),
        ..FlowStats::default()
    };
    let mut text = String::new();
    format_flow_stats(&mut text, &stats, false, Version::V15, names);
    let ms = |at: Instant| count(now.as_ms().saturating_sub(at.as_ms()));
    let (packets, bytes) = rule.stats();
    Json::object([
        ("flow", Json::from(text)),
        ("packets", count(packets)),
        ("bytes", count(bytes)),
        ("age_ms", ms(rule.created)),
        ("modified_ms", ms(rule.modified())),
        ("idle_ms", ms(rule.used())),
    ])
}

fn save_addresses(bridge: &Bridge, wanted: &Wanted<'_>, ports: &[OfPort], now: Instant, out: &mut Object) {
    let bundles: Vec<(BundleId, &str)> = ports
        .iter()
        .zip(&wanted.ports)
        .filter_map(|(port, name)| Some((bridge.bundles.id_of_port(*port)?, wanted.name_there(name))))
        .collect();
    let owner = |id| bundles.iter().find(|(b, _)| *b == id).map(|(_, name)| *name);
    let secs = |age: u64| Json::from(i64::try_from(age).unwrap_or(i64::MAX));
    let macs = bridge.of.ml.read();
    let learned = macs.entries(now).filter_map(|e| {
        Some(Json::object([
            ("mac", Json::from(e.mac.to_string())),
            ("vlan", Json::from(u32::from(e.vlan))),
            ("port", Json::from(owner(e.port)?)),
            ("age_s", e.age.map_or(Json::Null, secs)),
        ]))
    });
    out.insert("addresses", Json::array(learned));
    let table = bridge.of.mcast.read();
    let members = table.iter().flat_map(|t| t.entries(now)).filter_map(|(vlan, group, member, age)| {
        Some(Json::object([
            ("group", Json::from(group.to_string())),
            ("vlan", Json::from(u32::from(vlan))),
            ("port", Json::from(owner(member.port)?)),
            ("protocol", Json::from(member.protocol.name())),
            ("age_s", secs(age)),
        ]))
    });
    out.insert("memberships", Json::array(members));
}

/// Zones that packets which enter by the ports are tracked in, as far as flows name them.
fn zones_of(rules: &[Arc<Rule>], ports: &[OfPort]) -> Vec<u16> {
    use ib_classifier::AsClsRule;
    let mut zones = BTreeSet::new();
    for rule in rules.iter().filter(|r| enters_by(&r.cls().match_(), ports)) {
        each_action(&rule.actions, &mut |a| {
            if let Action::Ct(ct) = a
                && let Source::Imm(zone) = &ct.zone
            {
                zones.insert(*zone as u16);
            }
        });
    }
    zones.into_iter().collect()
}

/// Connections in the zones; if addresses are known, those of them only.
fn connections(bridge: &Bridge, wanted: &Wanted<'_>, zones: &[u16]) -> Vec<CtSaved> {
    let Some(table) = bridge.backer.dpif.conntrack() else { return Vec::new() };
    let ends = |e: &CtEntry| [e.orig.src, e.orig.dst, e.reply.src, e.reply.dst];
    let is_wanted = |e: &CtEntry| {
        (zones.contains(&e.zone) || zones.is_empty() && !wanted.addrs.is_empty())
            && (wanted.addrs.is_empty() || ends(e).iter().any(|a| wanted.addrs.contains(a)))
    };
    table.save(&is_wanted)
}
