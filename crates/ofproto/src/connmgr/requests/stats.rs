//! Multipart requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_base::time::Instant;
use ib_classifier::MiniMatch;
use ib_flow::hash::{chain_order, two_words};
use ib_flow::{Match, OfPort};
use ib_openflow::error::OfError;
use ib_openflow::message::{
    AggregateStats, FlowStats, FlowStatsRequest, GroupDesc, GroupFeatures, GroupStats, MeterBandStats,
    MeterFeatures, MeterStats, MultipartBody, MultipartRequest, OFPG_ALL, OFPM_ALL, SwitchDesc, Version,
};

use super::listing::{FlowListing, Form, list};
use super::{Cx, config, ports, tables};
use crate::connmgr::{age, monitor};
use crate::flow_mod::{Criteria, canonical_criteria};
use crate::group::{Group, MAX_GROUPS};
use crate::meter::MAX_METERS;
use crate::rule::Rule;

pub(super) fn multipart(cx: &mut Cx<'_>, request: MultipartRequest) -> Result<(), OfError> {
    use MultipartBody as B;
    use MultipartRequest as R;
    let of = Arc::clone(&cx.bridge.of);
    match request {
        R::Desc => {
            let d = &cx.bridge.desc;
            let desc = SwitchDesc {
                mfr_desc: d.mfr.clone(),
                hw_desc: d.hw.clone(),
                sw_desc: d.sw.clone(),
                serial_num: d.serial.clone(),
                dp_desc: d.dp.clone(),
            };
            send(cx, B::Desc(desc));
        }
        R::Flow(mut r) => {
            canonical_criteria(&mut r.match_);
            let rules = of.collect(&criteria(&r, &MiniMatch::new(&r.match_)), of.current_version())?;
            cx.conn.listing = Some(FlowListing::new(cx, rules));
        }
        R::Aggregate(mut r) => {
            canonical_criteria(&mut r.match_);
            let rules = of.collect(&criteria(&r, &MiniMatch::new(&r.match_)), of.current_version())?;
            let mut a = AggregateStats {
                flow_count: u32::try_from(rules.len()).unwrap_or(u32::MAX),
                ..AggregateStats::default()
            };
            for rule in rules {
                let (packets, bytes) = rule.stats();
                a.packet_count += packets;
                a.byte_count += bytes;
            }
            send(cx, B::Aggregate(a));
        }
        R::Table => {
            let tables = tables::table_stats(&of, cx.version());
            list(cx, &tables, Clone::clone, B::Table);
        }
        R::Port(port) => {
            let stats = ports::port_stats(cx, port);
            list(cx, &stats, Clone::clone, B::Port);
        }
        R::Queue { port, queue } => {
            let stats = ports::queue_stats(cx, port, queue)?;
            list(cx, &stats, Clone::clone, B::Queue);
        }
        R::Group(id) => {
            let groups = groups(cx, id);
            let now = cx.now;
            let counts = reference_counts(cx);
            list(cx, &groups, |g| group_stats(g, counts.get(&g.id).copied().unwrap_or(0), now), B::Group);
        }
        R::GroupDesc(id) => {
            let groups = groups(cx, id);
            list(cx, &groups, group_desc, B::GroupDesc);
        }
        R::GroupFeatures => {
            // Every action that the version itself has a number for.
            let actions = match cx.version() {
                Version::V10 => 0xfff,
                Version::V11 => 0x01ff_e7ff,
                _ => 0x03ff_8001,
            };
            let f = GroupFeatures {
                types: 0xf,
                // Select weight, liveness, chaining.
                capabilities: 7,
                max_groups: [MAX_GROUPS; 4],
                actions: [actions; 4],
            };
            send(cx, B::GroupFeatures(f));
        }
        R::Meter(id) => {
            let meters = meters(cx, id)?;
            let now = cx.now;
            let users = cx.bridge.of.meter_users();
            let backer = Arc::clone(&cx.bridge.backer);
            list(cx, &meters, |m| meter_stats(&backer, &users, m, now), B::Meter);
        }
        R::MeterConfig(id) => {
            let meters = meters(cx, id)?;
            list(cx, &meters, |m| m.config.clone(), B::MeterConfig);
        }
        R::MeterFeatures => {
            let f = MeterFeatures {
                max_meters: MAX_METERS,
                // Drop bands only.
                band_types: 1 << 1,
                capabilities: 0xf,
                max_bands: crate::meter::MAX_BANDS,
                max_color: 0,
            };
            send(cx, B::MeterFeatures(f));
        }
        R::TableFeatures { tables: changes, more } => {
            tables::rename_tables(cx, &changes)?;
            // The last part is answered, for all.
            if more {
                return Ok(());
            }
            let tables = tables::table_features(&of, cx.version());
            list(cx, &tables, Clone::clone, B::TableFeatures);
        }
        R::PortDesc(port) => {
            let mut ports = config::all_ports(cx.bridge);
            ports.retain(|p| port == OfPort::NONE || p.port_no == port);
            list(cx, &ports, Clone::clone, B::PortDesc);
        }
        R::TableDesc => {
            let tables = tables::table_desc(&of);
            list(cx, &tables, Clone::clone, B::TableDesc);
        }
        R::FlowMonitor(requests) => monitor::request(cx, requests)?,
        R::IpfixBridge | R::IpfixFlow => {
            let flow = matches!(request, MultipartRequest::IpfixFlow);
            let stats = of.export.ipfix_stats(flow);
            if stats.is_empty() {
                return Err(OfError::NXST_NOT_CONFIGURED);
            }
            send(cx, B::Ipfix { flow, stats });
        }
    }
    Ok(())
}

pub(in crate::connmgr) fn send(cx: &mut Cx<'_>, body: MultipartBody) {
    for m in Form::of(cx).encode(body) {
        cx.conn.send_bytes(m);
    }
}

fn criteria<'a>(r: &FlowStatsRequest, match_: &'a MiniMatch) -> Criteria<'a> {
    Criteria {
        table: r.table_id,
        match_,
        strict: None,
        cookie: r.cookie,
        cookie_mask: r.cookie_mask,
        out_port: r.out_port,
        out_group: r.out_group,
        hidden: false,
    }
}

fn secs(now: Instant, then: Instant) -> u16 {
    u16::try_from(now.since(then).as_secs()).unwrap_or(u16::MAX)
}

/// A rule's match as controllers see it: that it is about Ethernet goes without saying, and options of
/// tunnels are those of the table `tlv`.
pub(in crate::connmgr) fn rule_match(rule: &Rule, tlv: u32) -> Match {
    let mut m = ib_classifier::AsClsRule::cls(rule).match_();
    // Inside, rules on Ethernet packets all say that they are; peers before OpenFlow 1.5 don't know how.
    if m.flow.packet_type.is_zero() {
        m.mask.0.packet_type = Default::default();
    }
    if m.mask.0.tunnel.opts_present != 0 {
        m.flow.tunnel.set_tlv_table(tlv);
    }
    m
}

pub(super) fn flow_stats(rule: &Arc<Rule>, tlv: u32, now: Instant) -> FlowStats {
    let (duration_sec, duration_nsec) = age(now, rule.created);
    let (packet_count, byte_count) = rule.stats();
    FlowStats {
        match_: rule_match(rule, tlv),
        cookie: rule.cookie,
        table_id: rule.table,
        priority: u16::try_from(rule.priority()).unwrap_or(u16::MAX),
        idle_timeout: rule.idle_timeout(),
        hard_timeout: rule.hard_timeout(),
        importance: rule.importance,
        flags: rule.flags,
        duration_sec,
        duration_nsec,
        idle_age: Some(secs(now, rule.used())),
        hard_age: Some(secs(now, rule.modified())),
        packet_count,
        byte_count,
        actions: rule.actions.to_vec(),
    }
}

fn groups(cx: &Cx<'_>, id: u32) -> Vec<Arc<Group>> {
    let groups = cx.bridge.of.groups.read();
    if id == OFPG_ALL || id == u32::MAX {
        return groups.values().cloned().collect();
    }
    groups.get(&id).cloned().into_iter().collect()
}

/// Flows by the group that they name.
fn reference_counts(cx: &Cx<'_>) -> std::collections::BTreeMap<u32, u32> {
    let mut out = std::collections::BTreeMap::new();
    let of = &cx.bridge.of;
    let all = FlowStatsRequest::default();
    let rules =
        of.collect(&criteria(&all, &MiniMatch::catch_all()), of.current_version()).unwrap_or_default();
    for rule in rules {
        let mut named = Vec::new();
        groups_of(&rule.actions, &mut named);
        for g in named {
            *out.entry(g).or_default() += 1;
        }
    }
    out
}

fn groups_of(actions: &[ib_openflow::action::Action], out: &mut Vec<u32>) {
    use ib_openflow::action::Action;
    for a in actions {
        match a {
            Action::Group(g) => out.push(*g),
            Action::WriteActions(v) | Action::Clone(v) => groups_of(v, out),
            _ => {}
        }
    }
}

fn group_stats(g: &Arc<Group>, ref_count: u32, now: Instant) -> GroupStats {
    let (duration_sec, duration_nsec) = age(now, g.created);
    let (packet_count, byte_count) = g.counts.get();
    GroupStats {
        group_id: g.id,
        ref_count,
        packet_count,
        byte_count,
        duration_sec,
        duration_nsec,
        buckets: g.buckets.iter().map(|(_, c)| c.get()).collect(),
    }
}

fn group_desc(g: &Arc<Group>) -> GroupDesc {
    GroupDesc {
        group_id: g.id,
        kind: g.kind,
        buckets: g.buckets.iter().map(|(b, _)| b.clone()).collect(),
        props: g.props.clone(),
    }
}

fn meters(cx: &Cx<'_>, id: u32) -> Result<Vec<Arc<crate::meter::Meter>>, OfError> {
    let meters = cx.bridge.of.meters.read();
    if id == OFPM_ALL {
        // In the order of the original's hash table.
        let mut all: Vec<_> = meters.iter().map(|(id, m)| (*id, m)).collect();
        all.sort_by_key(|(_, m)| m.created);
        let order = chain_order(all.into_iter(), |(id, _)| two_words(id, 0));
        return Ok(order.into_iter().map(|(_, m)| Arc::clone(m)).collect());
    }
    meters.get(&id).map(|m| vec![Arc::clone(m)]).ok_or(OfError::OFPMMFC_UNKNOWN_METER)
}

fn meter_stats(
    backer: &crate::backer::Backer,
    users: &BTreeMap<u32, u32>,
    m: &Arc<crate::meter::Meter>,
    now: Instant,
) -> MeterStats {
    let (duration_sec, duration_nsec) = age(now, m.created);
    let counts = m.stats(backer);
    MeterStats {
        meter_id: m.config.meter_id,
        flow_count: users.get(&m.config.meter_id).copied().unwrap_or(0),
        packet_in_count: counts.packets,
        byte_in_count: counts.bytes,
        duration_sec,
        duration_nsec,
        bands: counts.bands.iter().map(|&(packets, bytes)| MeterBandStats { packets, bytes }).collect(),
    }
}
