//! The state of ports of a running Open vSwitch, which has no `port-state/save`: by what it says over OpenFlow and prints.
//!
//! The same is selected as by ours: flows that match the ports, output to them or are named by an option, the groups and meters that those
//! use, groups that output to the ports, learned addresses, memberships, and connections of the zones. What Open vSwitch does not tell is
//! left open (see docs/adopt.md): sequence numbers, expected connections.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ib_base::json::{Json, Object};
use ib_dpif::ct_saved::CtSaved;
use ib_flow::{Match, OfPort};
use ib_openflow::action::{Action, Source};
use ib_openflow::message::FlowStats;
use ib_packet::Mac;

use super::{Ports, switch};
use crate::adopt::dumps;
use crate::ofctl::snapshot::{self, Pipeline};

/// What to select, of the options that go to `port-state/save`.
#[derive(Default)]
struct Selection {
    ports: Vec<OfPort>,
    macs: Vec<Mac>,
    addrs: Vec<IpAddr>,
    cookies: Vec<(u64, u64)>,
    zones: Vec<u16>,
}

/// A number, in hexadecimal with `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn cookie(text: &str) -> Option<(u64, u64)> {
    match text.split_once('/') {
        Some((cookie, mask)) => Some((number(cookie)?, number(mask)?)),
        None => Some((number(text)?, u64::MAX)),
    }
}

impl Selection {
    fn parse(options: &[String]) -> Result<Selection, String> {
        let mut s = Selection::default();
        for option in options {
            match option.split_once('=') {
                Some(("--zone", zone)) => {
                    s.zones.push(zone.parse().map_err(|_| format!("{zone}: not a zone (0 to 65535)"))?);
                }
                Some(("--address", text)) => match (text.parse(), text.parse()) {
                    (Ok(mac), _) => s.macs.push(mac),
                    (_, Ok(addr)) => s.addrs.push(addr),
                    _ => return Err(format!("{text}: neither an Ethernet nor an IP address")),
                },
                Some(("--cookie", text)) => {
                    s.cookies.push(cookie(text).ok_or_else(|| format!("{text}: not COOKIE[/MASK]"))?);
                }
                _ => {}
            }
        }
        Ok(s)
    }

    fn enters(&self, m: &Match) -> bool {
        m.mask.0.in_port == u32::MAX && self.ports.iter().any(|p| u32::from(p.0) == m.flow.in_port)
    }

    fn names(&self, m: &Match) -> bool {
        let (f, w) = (&m.flow, &m.mask.0);
        let pairs = [
            (&f.dl_src, &w.dl_src),
            (&f.dl_dst, &w.dl_dst),
            (&f.arp_sha, &w.arp_sha),
            (&f.arp_tha, &w.arp_tha),
        ];
        let by_mac = |mac: &Mac| pairs.iter().any(|(v, m)| m.0 == [0xff; 6] && v.0 == mac.0);
        let v4 = [(f.nw_src, w.nw_src), (f.nw_dst, w.nw_dst)];
        let v6 = [(f.ipv6_src, w.ipv6_src), (f.ipv6_dst, w.ipv6_dst), (f.nd_target, w.nd_target)];
        let by_ip = |addr: &IpAddr| match addr {
            IpAddr::V4(a) => v4.iter().any(|(v, m)| m.get() == u32::MAX && v.get() == u32::from(*a)),
            IpAddr::V6(a) => v6.iter().any(|(v, m)| m.get() == u128::MAX && v.get() == u128::from(*a)),
        };
        self.macs.iter().any(by_mac) || self.addrs.iter().any(by_ip)
    }

    fn outputs(&self, actions: &[Action]) -> bool {
        let mut found = false;
        each_action(actions, &mut |a| {
            found |= match a {
                Action::Output { port, .. }
                | Action::OutputTrunc { port, .. }
                | Action::Enqueue { port, .. } => self.ports.contains(port),
                _ => false,
            };
        });
        found
    }

    fn wants(&self, f: &FlowStats) -> bool {
        self.enters(&f.match_)
            || self.outputs(&f.actions)
            || self.names(&f.match_)
            || self.cookies.iter().any(|(cookie, mask)| (f.cookie ^ cookie) & mask == 0)
    }

    /// Leaves of a bridge what concerns the ports; zones that their packets are tracked in.
    fn narrow(&self, p: &mut Pipeline) -> BTreeSet<u16> {
        p.flows.retain(|f| self.wants(f));
        let (mut groups, mut meters, mut zones) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut note = |actions: &[Action], groups: &mut BTreeSet<u32>, enters: bool| {
            each_action(actions, &mut |a| match a {
                Action::Group(g) => {
                    groups.insert(*g);
                }
                Action::Meter(m) => {
                    meters.insert(*m);
                }
                Action::Ct(ct) if enters => {
                    if let Source::Imm(zone) = &ct.zone {
                        zones.insert(*zone as u16);
                    }
                }
                _ => {}
            });
        };
        p.flows.iter().for_each(|f| note(&f.actions, &mut groups, self.enters(&f.match_)));
        let outputs = p.groups.iter().filter(|g| g.buckets.iter().any(|b| self.outputs(&b.actions)));
        groups.extend(outputs.map(|g| g.group_id));
        let mut todo: Vec<u32> = groups.iter().copied().collect();
        while let Some(id) = todo.pop() {
            let mut used = BTreeSet::new();
            for b in p.groups.iter().filter(|g| g.group_id == id).flat_map(|g| &g.buckets) {
                note(&b.actions, &mut used, false);
            }
            todo.extend(used.into_iter().filter(|id| groups.insert(*id)));
        }
        p.groups.retain(|g| groups.contains(&g.group_id));
        p.group_stats.retain(|g| groups.contains(&g.group_id));
        p.meters.retain(|m| meters.contains(&m.meter_id));
        p.meter_stats.retain(|m| meters.contains(&m.meter_id));
        if self.zones.is_empty() { zones } else { self.zones.iter().copied().collect() }
    }

    fn wants_connection(&self, c: &CtSaved, zones: &BTreeSet<u16>) -> bool {
        let ends = [c.orig.src, c.orig.dst, c.reply.src, c.reply.dst];
        (zones.contains(&c.zone) || zones.is_empty() && !self.addrs.is_empty())
            && (self.addrs.is_empty() || ends.iter().any(|a| self.addrs.contains(a)))
    }
}

fn each_action(actions: &[Action], visit: &mut impl FnMut(&Action)) {
    for a in actions {
        visit(a);
        match a {
            Action::WriteActions(inner) | Action::Clone(inner) => each_action(inner, visit),
            Action::Ct(ct) => each_action(&ct.actions, visit),
            _ => {}
        }
    }
}

/// What `port-state/save` would say: the state of `ports` of a bridge whose datapath is of this kind.
pub fn save(
    target: &str,
    bridge: &str,
    kind: &str,
    ports: &Ports,
    options: &[String],
) -> Result<String, String> {
    let mut selection = Selection::parse(options)?;
    let mut pipeline = snapshot::take(bridge)?;
    for name in &ports.here {
        let found = pipeline.ports.iter().find(|(_, n)| n == name);
        selection.ports.push(OfPort(found.ok_or_else(|| format!("{name}: no such port on {bridge}"))?.0));
    }
    let zones = selection.narrow(&mut pipeline);
    let ours: Vec<(u16, String)> =
        pipeline.ports.iter().filter(|(_, n)| ports.here.contains(n)).cloned().collect();
    for (_, name) in &mut pipeline.ports {
        *name = ports.name_there(name).to_owned();
    }
    let ours: Vec<(u16, String)> =
        ours.into_iter().map(|(n, name)| (n, ports.name_there(&name).to_owned())).collect();
    let mut o = Object::new();
    o.insert("version", 1);
    o.insert("bridge", bridge);
    o.insert("ports", Json::array(ports.there().map(Json::from)));
    for (name, list) in pipeline.state() {
        o.insert(name, list);
    }
    let name = [bridge.to_owned()];
    o.insert("addresses", dumps::addresses(&switch::call(target, "fdb/show", &name)?, &ours)?);
    // Without snooping the command fails.
    let groups = switch::call(target, "mdb/show", &name).unwrap_or_default();
    o.insert("memberships", dumps::memberships(&groups, &ours)?);
    let datapath = format!("{kind}@ovs-{kind}");
    let text = switch::call(target, "dpctl/dump-conntrack", &["-m", "-s", &datapath].map(String::from))?;
    let (all, _) = dumps::connections(&text)?;
    let wanted = |c: &Json| CtSaved::from_json(c).is_ok_and(|c| selection.wants_connection(&c, &zones));
    o.insert("connections", all.into_iter().filter(wanted).collect::<Vec<Json>>());
    Ok(Json::Object(o).to_text(Default::default()))
}

/// Whether the switch is one that has to be read so.
pub fn is_needed(target: &str) -> Result<bool, String> {
    Ok(!switch::call(target, "list-commands", &[])?.contains("port-state/save"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_flow::PortMap;
    use ib_openflow::flow_text::{Purpose, parse_flow_mod};
    use ib_openflow::group_text::{parse_group_mod, parse_meter_mod};
    use ib_openflow::message::{FlowModCommand, GroupDesc, GroupModCommand, GroupStats, MeterStats, Version};
    use ib_openflow::names::Names;

    fn bridge() -> Pipeline {
        let names = || Names { ports: None::<&PortMap>, tables: None };
        let flow = |text: &str| {
            let (f, _) = parse_flow_mod(text, Purpose::Mod(FlowModCommand::Add), names()).unwrap();
            FlowStats { match_: f.match_, cookie: f.new_cookie, actions: f.actions, ..FlowStats::default() }
        };
        let group = |text: &str| {
            let (g, _) = parse_group_mod(text, Some(GroupModCommand::Add), names()).unwrap();
            GroupDesc { group_id: g.group_id, kind: g.kind, buckets: g.buckets, props: g.props }
        };
        let meter =
            |n: u32| parse_meter_mod(&format!("meter={n},kbps,bands=type=drop,rate=1"), 0).unwrap().meter;
        Pipeline {
            tlvs: Vec::new(),
            meters: vec![meter(1), meter(2)],
            groups: vec![
                group("group_id=1,type=all,bucket=group:2"),
                group("group_id=2,type=all,bucket=actions=drop"),
                group("group_id=3,type=all,bucket=output:1"),
                group("group_id=4,type=all,bucket=output:2"),
            ],
            meter_stats: [1, 2].map(|meter_id| MeterStats { meter_id, ..MeterStats::default() }).into(),
            group_stats: [1, 4].map(|group_id| GroupStats { group_id, ..GroupStats::default() }).into(),
            flows: vec![
                flow("in_port=1,ip,actions=meter:1,ct(zone=7,table=1),group:1"),
                flow("in_port=2,ip,actions=meter:2,ct(zone=8,table=1)"),
                flow("in_port=2,arp,actions=write_actions(output:1)"),
                flow("cookie=0x12,udp,actions=drop"),
                flow("ip,nw_dst=10.0.0.9,actions=drop"),
            ],
            ports: vec![(1, "vm".into()), (2, "up".into())],
            version: Version::V15,
        }
    }

    #[test]
    fn what_concerns_a_port_is_left() {
        let of = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let mut s = Selection::parse(&options).unwrap();
            s.ports = vec![OfPort(1)];
            let mut p = bridge();
            let zones = s.narrow(&mut p);
            let groups: Vec<u32> = p.groups.iter().map(|g| g.group_id).collect();
            assert_eq!((p.meter_stats.len(), p.group_stats.len()), (1, 1), "counters of what is left");
            (p.flows.len(), groups, p.meters.len(), zones.into_iter().collect::<Vec<u16>>())
        };
        assert_eq!(of(&[]), (2, vec![1, 2, 3], 1, vec![7]));
        assert_eq!(of(&["--cookie=0x10/0xf0", "--address=10.0.0.9"]).0, 4);
        assert_eq!(of(&["--zone=9"]).3, [9]);
        for bad in ["--zone=x", "--address=x", "--cookie=x/y"] {
            assert!(Selection::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
