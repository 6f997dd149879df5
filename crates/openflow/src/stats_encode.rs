//! Multipart requests and replies to bytes.

use crate::action_encode::{encode_actions, encode_instructions, for_match};
use crate::encode::{EncodeOptions, any_as_all, flow_flags, port};
use crate::group_wire;
use crate::match_wire as mw;
use crate::message::*;
use crate::oxm;
use crate::ports::port_to_wire32;
use crate::raw::{Raw, begin};
use crate::table_fields;
use crate::wire::Buf;

/// Appends a request.
pub(crate) fn request(b: &mut Buf, r: &MultipartRequest, v: Version, xid: u32, options: EncodeOptions) {
    use MultipartRequest as R;
    let v10 = v == Version::V10;
    let mut head = |raw| begin(b, raw, v, xid);
    match r {
        R::Desc => head(Raw::DescRequest),
        R::Flow(f) | R::Aggregate(f) => {
            let aggregate = matches!(r, R::Aggregate(_));
            flow_request(b, f, aggregate, v, xid, options);
        }
        R::Table => head(Raw::TableRequest),
        R::Port(p) => {
            if v10 {
                head(Raw::PortRequest10);
                b.u16(p.0);
                b.zeros(6);
            } else {
                head(Raw::PortRequest11);
                b.u32(port_to_wire32(*p));
                b.u32(0);
            }
        }
        R::Queue { port, queue } => {
            if v10 {
                head(Raw::QueueRequest10);
                b.u16(any_as_all(*port).0);
                b.u16(0);
            } else {
                head(Raw::QueueRequest11);
                b.u32(port_to_wire32(*port));
            }
            b.u32(*queue);
        }
        R::Group(id) => {
            head(if v10 { Raw::NxGroupRequest } else { Raw::GroupRequest });
            b.u32(*id);
            b.u32(0);
        }
        R::GroupDesc(id) => match v {
            Version::V10 | Version::V15 => {
                head(if v10 { Raw::NxGroupDescRequest } else { Raw::GroupDescRequest15 });
                b.u32(*id);
                b.u32(0);
            }
            _ => head(Raw::GroupDescRequest),
        },
        R::GroupFeatures => {
            head(if v < Version::V12 { Raw::NxGroupFeaturesRequest } else { Raw::GroupFeaturesRequest });
        }
        R::Meter(id) => {
            head(Raw::MeterRequest);
            b.u32(*id);
            b.u32(0);
        }
        R::MeterConfig(id) => {
            head(Raw::MeterConfigRequest);
            b.u32(*id);
            b.u32(0);
        }
        R::MeterFeatures => head(Raw::MeterFeaturesRequest),
        R::TableFeatures { tables, more } => {
            head(Raw::TableFeaturesRequest);
            if let Some(flags) = b.0.get_mut(10..12).filter(|_| *more) {
                // OFPMPF_REQ_MORE.
                flags.copy_from_slice(&1u16.to_be_bytes());
            }
            tables.iter().for_each(|t| table_features(b, t, v));
        }
        R::PortDesc(p) => {
            if v == Version::V15 {
                head(Raw::PortDescRequest15);
                b.u32(port_to_wire32(*p));
                b.u32(0);
            } else {
                head(Raw::PortDescRequest);
            }
        }
        R::TableDesc => head(Raw::TableDescRequest),
        R::FlowMonitor(list) => monitor_requests(b, list, v, xid),
        R::IpfixBridge => head(Raw::NxIpfixBridgeRequest),
        R::IpfixFlow => head(Raw::NxIpfixFlowRequest),
    }
}

fn flow_request(
    b: &mut Buf,
    f: &FlowStatsRequest,
    aggregate: bool,
    v: Version,
    xid: u32,
    options: EncodeOptions,
) {
    let pick = |flow, agg| if aggregate { agg } else { flow };
    if v == Version::V10 && options.nxm {
        begin(b, pick(Raw::NxFlowRequest, Raw::NxAggregateRequest), v, xid);
        b.u16(f.out_port.0);
        let at = b.len();
        b.u16(0);
        b.u8(f.table_id);
        b.zeros(3);
        let n = mw::put_nxm(b, &f.match_, f.cookie, f.cookie_mask);
        b.patch_u16(at, n);
    } else if v == Version::V10 {
        begin(b, pick(Raw::FlowRequest10, Raw::AggregateRequest10), v, xid);
        mw::put_ofp10_match(b, &f.match_);
        b.u8(f.table_id);
        b.u8(0);
        b.u16(f.out_port.0);
    } else {
        begin(b, pick(Raw::FlowRequest11, Raw::AggregateRequest11), v, xid);
        b.u8(f.table_id);
        b.zeros(3);
        b.u32(port_to_wire32(f.out_port));
        b.u32(f.out_group);
        b.u32(0);
        b.u64(f.cookie);
        b.u64(f.cookie_mask);
        mw::put_ofp11_match(b, &f.match_, v);
    }
}

/// Appends a match and returns its length, padding not counted.
fn put_measured_match(b: &mut Buf, m: &ib_flow::Match, v: Version) -> u16 {
    let at = b.len();
    mw::put_ofp11_match(b, m, v);
    u16::from_be_bytes([b.0[at + 2], b.0[at + 3]])
}

fn monitor_requests(b: &mut Buf, list: &[FlowMonitorRequest], v: Version, xid: u32) {
    if v == Version::V13 {
        begin(b, Raw::OnfFlowMonitorRequest, v, xid);
        for r in list {
            b.u32(r.id);
            b.u16(r.flags & 0x3f);
            let len_at = b.len();
            b.u16(0);
            b.u32(port_to_wire32(r.out_port));
            b.u8(r.table_id);
            b.zeros(3);
            let len = put_measured_match(b, &r.match_, v);
            b.patch_u16(len_at, len);
        }
        return;
    }
    if v < Version::V13 {
        begin(b, Raw::NxFlowMonitorRequest, v, xid);
        for r in list {
            b.u32(r.id);
            b.u16(r.flags & 0x3f);
            b.u16(r.out_port.0);
            let at = b.len();
            b.u16(0);
            b.u8(r.table_id);
            b.zeros(5);
            let n = mw::put_nxm(b, &r.match_, 0, 0);
            b.patch_u16(at, n);
        }
        return;
    }
    begin(b, Raw::FlowMonitorRequest14, v, xid);
    for r in list {
        b.u32(r.id);
        b.u32(port_to_wire32(r.out_port));
        b.u32(r.out_group);
        // The bits are the same but for that of own changes.
        b.u16(r.flags & 0x1f | (r.flags & MonitorFlags::OWN) << 1);
        b.u8(r.table_id);
        b.u8(r.command);
        mw::put_ofp11_match(b, &r.match_, v);
    }
}

/// Table configuration bits of OpenFlow 1.1 and 1.2.
pub(crate) fn miss_config(m: TableMiss) -> u32 {
    match m {
        TableMiss::Default | TableMiss::Controller => 0,
        TableMiss::Continue => 1,
        TableMiss::Drop => 2,
    }
}

/// What table statistics of OpenFlow 1.1 and 1.2 say of misses: not the numbers of OFPTC_TABLE_MISS_*, but
/// those that Open vSwitch sends.
fn miss_config_in_stats(m: TableMiss) -> u32 {
    match m {
        TableMiss::Default => 0,
        TableMiss::Controller => 1,
        TableMiss::Continue => 2,
        TableMiss::Drop => 3,
    }
}

/// Appends a reply.
pub(crate) fn reply(b: &mut Buf, r: &MultipartReply, v: Version, xid: u32, options: EncodeOptions) {
    use MultipartBody as B;
    let v10 = v == Version::V10;
    let start = b.len();
    let mut head = |raw| {
        begin(b, raw, v, xid);
        if r.more {
            b.patch_u16(start + 10, 1);
        }
    };
    match &r.body {
        B::Desc(d) => {
            head(Raw::DescReply);
            b.string(&d.mfr_desc, 256);
            b.string(&d.hw_desc, 256);
            b.string(&d.sw_desc, 256);
            b.string(&d.serial_num, 32);
            b.string(&d.dp_desc, 256);
        }
        B::Flow(list) => {
            if v10 && options.nxm {
                head(Raw::NxFlowReply);
                list.iter().for_each(|f| nx_flow_stats(b, f));
            } else {
                head(Raw::FlowReply);
                for f in list {
                    match v {
                        Version::V10 => flow_stats10(b, f),
                        Version::V15 => flow_stats15(b, f),
                        _ => flow_stats11(b, f, v),
                    }
                }
            }
        }
        B::Aggregate(a) => {
            if v == Version::V15 {
                head(Raw::AggregateReply15);
                oxs(b, |b| {
                    oxs_field(b, 3, &a.flow_count.to_be_bytes());
                    oxs_field(b, 4, &a.packet_count.to_be_bytes());
                    oxs_field(b, 5, &a.byte_count.to_be_bytes());
                });
            } else {
                head(if v10 && options.nxm { Raw::NxAggregateReply } else { Raw::AggregateReply });
                b.u64(a.packet_count);
                b.u64(a.byte_count);
                b.u32(a.flow_count);
                b.u32(0);
            }
        }
        B::Table(list) => {
            head(match v {
                Version::V10 => Raw::TableReply10,
                Version::V11 => Raw::TableReply11,
                Version::V12 => Raw::TableReply12,
                _ => Raw::TableReply13,
            });
            list.iter().for_each(|t| table_stats(b, t, v));
        }
        B::Port(list) => {
            head(match v {
                Version::V10 => Raw::PortReply10,
                Version::V11 | Version::V12 => Raw::PortReply11,
                Version::V13 => Raw::PortReply13,
                _ => Raw::PortReply14,
            });
            list.iter().for_each(|s| port_stats(b, s, v));
        }
        B::Queue(list) => {
            head(match v {
                Version::V10 => Raw::QueueReply10,
                Version::V11 | Version::V12 => Raw::QueueReply11,
                Version::V13 => Raw::QueueReply13,
                _ => Raw::QueueReply14,
            });
            list.iter().for_each(|q| queue_stats(b, q, v));
        }
        B::Group(list) => {
            head(if v10 { Raw::NxGroupReply } else { Raw::GroupReply });
            list.iter().for_each(|g| group_stats(b, g, v));
        }
        B::GroupDesc(list) => {
            head(if v10 { Raw::NxGroupDescReply } else { Raw::GroupDescReply });
            list.iter().for_each(|g| group_wire::encode_desc(b, g, v));
        }
        B::GroupFeatures(g) => {
            head(if v < Version::V12 { Raw::NxGroupFeaturesReply } else { Raw::GroupFeaturesReply });
            b.u32(g.types);
            b.u32(g.capabilities);
            g.max_groups.iter().chain(&g.actions).for_each(|x| b.u32(*x));
        }
        B::Meter(list) => {
            head(Raw::MeterReply);
            for m in list {
                let start = b.len();
                b.u32(m.meter_id);
                b.zeros(8);
                b.u32(m.flow_count);
                b.u64(m.packet_in_count);
                b.u64(m.byte_in_count);
                b.u32(m.duration_sec);
                b.u32(m.duration_nsec);
                for band in &m.bands {
                    b.u64(band.packets);
                    b.u64(band.bytes);
                }
                b.patch_len(start + 4, start);
            }
        }
        B::MeterConfig(list) => {
            head(Raw::MeterConfigReply);
            for m in list {
                let start = b.len();
                b.u16(0);
                b.u16(m.flags);
                b.u32(m.meter_id);
                group_wire::put_bands(b, &m.bands);
                b.patch_len(start, start);
            }
        }
        B::MeterFeatures(m) => {
            head(Raw::MeterFeaturesReply);
            b.u32(m.max_meters);
            b.u32(m.band_types);
            b.u32(m.capabilities);
            b.u8(m.max_bands);
            b.u8(m.max_color);
            b.u16(0);
        }
        B::TableFeatures(list) => {
            head(Raw::TableFeaturesReply);
            list.iter().for_each(|t| table_features(b, t, v));
        }
        B::PortDesc(list) => {
            head(match v {
                Version::V10 => Raw::PortDescReply10,
                Version::V11 | Version::V12 | Version::V13 => Raw::PortDescReply11,
                _ => Raw::PortDescReply14,
            });
            list.iter().for_each(|p| port(b, p, v));
        }
        B::TableDesc(list) => {
            head(Raw::TableDescReply);
            list.iter().for_each(|t| table_desc(b, t));
        }
        B::FlowMonitor(list) => {
            head(match v {
                Version::V14 | Version::V15 => Raw::FlowMonitorReply14,
                Version::V13 => Raw::OnfFlowMonitorReply,
                _ => Raw::NxFlowMonitorReply,
            });
            list.iter().for_each(|u| flow_update(b, u, v));
        }
        B::Ipfix { flow, stats } => {
            head(if *flow { Raw::NxIpfixFlowReply } else { Raw::NxIpfixBridgeReply });
            for s in stats {
                for x in [
                    s.total_flows,
                    s.current_flows,
                    s.pkts,
                    s.ipv4_pkts,
                    s.ipv6_pkts,
                    s.error_pkts,
                    s.ipv4_error_pkts,
                    s.ipv6_error_pkts,
                    s.tx_pkts,
                    s.tx_errors,
                ] {
                    b.u64(x);
                }
                b.u32(s.collector_set_id);
                b.zeros(4);
            }
        }
    }
}

fn flow_stats10(b: &mut Buf, f: &FlowStats) {
    let start = b.len();
    b.u16(0);
    b.u8(f.table_id);
    b.u8(0);
    mw::put_ofp10_match(b, &f.match_);
    b.u32(f.duration_sec);
    b.u32(f.duration_nsec);
    b.u16(f.priority);
    b.u16(f.idle_timeout);
    b.u16(f.hard_timeout);
    b.zeros(6);
    b.u64(f.cookie);
    b.u64(f.packet_count);
    b.u64(f.byte_count);
    encode_actions(b, &f.actions, Version::V10);
    b.patch_len(start, start);
}

fn flow_stats11(b: &mut Buf, f: &FlowStats, v: Version) {
    let start = b.len();
    b.u16(0);
    b.u8(f.table_id);
    b.u8(0);
    b.u32(f.duration_sec);
    b.u32(f.duration_nsec);
    b.u16(f.priority);
    b.u16(f.idle_timeout);
    b.u16(f.hard_timeout);
    b.u16(if v >= Version::V13 { flow_flags(f.flags, v) } else { 0 });
    b.u16(if v >= Version::V14 { f.importance } else { 0 });
    b.u16(0);
    b.u64(f.cookie);
    b.u64(f.packet_count);
    b.u64(f.byte_count);
    mw::put_oxm_match(b, &f.match_, v);
    encode_instructions(b, &for_match(&f.actions, &f.match_, v), v);
    b.patch_len(start, start);
}

/// Writes statistics of OpenFlow 1.5.
pub(crate) fn oxs(b: &mut Buf, body: impl FnOnce(&mut Buf)) {
    let start = b.len();
    b.u16(0);
    b.u16(0);
    body(b);
    b.patch_len(start + 2, start);
    b.pad8(start);
}

/// Writes one of them.
pub(crate) fn oxs_field(b: &mut Buf, field: u8, bytes: &[u8]) {
    b.u16(0x8002);
    b.u8(field << 1);
    b.u8(bytes.len() as u8);
    b.bytes(bytes);
}

/// Writes a duration.
pub(crate) fn oxs_duration(b: &mut Buf, seconds: u32, nanoseconds: u32) {
    let mut d = seconds.to_be_bytes().to_vec();
    d.extend_from_slice(&nanoseconds.to_be_bytes());
    oxs_field(b, 0, &d);
}

fn flow_stats15(b: &mut Buf, f: &FlowStats) {
    let start = b.len();
    b.u16(0);
    b.u16(0);
    b.u8(f.table_id);
    b.u8(0);
    b.u16(f.priority);
    b.u16(f.idle_timeout);
    b.u16(f.hard_timeout);
    b.u16(flow_flags(f.flags, Version::V15));
    b.u16(f.importance);
    b.u64(f.cookie);
    // The fixed part is 32 bytes with the match's header counted in.
    mw::put_ofp11_match(b, &f.match_, Version::V15);
    oxs(b, |b| {
        oxs_duration(b, f.duration_sec, f.duration_nsec);
        if let Some(idle) = f.idle_age {
            let mut i = u32::from(idle).to_be_bytes().to_vec();
            i.extend_from_slice(&[0; 4]);
            oxs_field(b, 1, &i);
        }
        oxs_field(b, 4, &f.packet_count.to_be_bytes());
        oxs_field(b, 5, &f.byte_count.to_be_bytes());
    });
    encode_instructions(b, &for_match(&f.actions, &f.match_, Version::V15), Version::V15);
    b.patch_len(start, start);
}

fn nx_flow_stats(b: &mut Buf, f: &FlowStats) {
    let start = b.len();
    b.u16(0);
    b.u8(f.table_id);
    b.u8(0);
    b.u32(f.duration_sec);
    b.u32(f.duration_nsec);
    b.u16(f.priority);
    b.u16(f.idle_timeout);
    b.u16(f.hard_timeout);
    let at = b.len();
    b.u16(0);
    b.u16(f.idle_age.map_or(0, |a| a.saturating_add(1)));
    b.u16(f.hard_age.map_or(0, |a| a.saturating_add(1)));
    b.u64(f.cookie);
    b.u64(f.packet_count);
    b.u64(f.byte_count);
    let n = mw::put_nxm(b, &f.match_, 0, 0);
    b.patch_u16(at, n);
    encode_actions(b, &f.actions, Version::V10);
    b.patch_len(start, start);
}

fn table_stats(b: &mut Buf, t: &TableStats, v: Version) {
    let f = &t.features;
    b.u8(t.table_id);
    match v {
        Version::V10 => {
            b.zeros(3);
            b.string(&f.name, 32);
            b.u32(table_fields::to_wildcards10(f));
            b.u32(f.max_entries);
            b.u32(t.active_count);
        }
        Version::V11 => {
            b.zeros(7);
            b.string(&f.name, 32);
            let (wild, all) = table_fields::to_fields11(f);
            b.u32(wild);
            b.u32(all);
            b.u32(f.nonmiss.instructions & 0x3e);
            b.u32(table_fields::actions_to11(f.nonmiss.write.actions));
            b.u32(table_fields::actions_to11(f.nonmiss.apply.actions));
            b.u32(miss_config_in_stats(f.miss));
            b.u32(f.max_entries);
            b.u32(t.active_count);
        }
        Version::V12 => {
            b.zeros(7);
            b.string(&f.name, 32);
            b.u64(table_fields::fields_to12(&f.match_fields));
            b.u64(table_fields::fields_to12(&f.wildcard_fields));
            b.u32(table_fields::actions_to13(f.nonmiss.write.actions));
            b.u32(table_fields::actions_to13(f.nonmiss.apply.actions));
            b.u64(table_fields::fields_to12(&f.nonmiss.write.set_fields));
            b.u64(table_fields::fields_to12(&f.nonmiss.apply.set_fields));
            b.u64(f.metadata_match);
            b.u64(f.metadata_write);
            b.u32(f.nonmiss.instructions & 0x3e);
            b.u32(miss_config_in_stats(f.miss));
            b.u32(f.max_entries);
            b.u32(t.active_count);
        }
        _ => {
            b.zeros(3);
            b.u32(t.active_count);
        }
    }
    b.u64(t.lookup_count);
    b.u64(t.matched_count);
}

fn port_counters(b: &mut Buf, s: &PortStats) {
    for x in [
        s.rx_packets,
        s.tx_packets,
        s.rx_bytes,
        s.tx_bytes,
        s.rx_dropped,
        s.tx_dropped,
        s.rx_errors,
        s.tx_errors,
    ] {
        b.u64(x);
    }
}

fn port_errors(b: &mut Buf, s: &PortStats) {
    for x in [s.rx_frame_err, s.rx_over_err, s.rx_crc_err, s.collisions] {
        b.u64(x);
    }
}

fn port_stats(b: &mut Buf, s: &PortStats, v: Version) {
    if v < Version::V14 {
        if v == Version::V10 {
            b.u16(s.port_no.0);
            b.zeros(6);
        } else {
            b.u32(port_to_wire32(s.port_no));
            b.u32(0);
        }
        port_counters(b, s);
        port_errors(b, s);
        if v == Version::V13 {
            b.u32(s.duration_sec);
            b.u32(s.duration_nsec);
        }
        return;
    }
    let start = b.len();
    b.u16(0);
    b.u16(0);
    b.u32(port_to_wire32(s.port_no));
    b.u32(s.duration_sec);
    b.u32(s.duration_nsec);
    port_counters(b, s);
    b.u16(0);
    b.u16(40);
    b.u32(0);
    port_errors(b, s);
    if let Some(mut r) = s.rfc2819 {
        let at = b.len();
        b.u16(0xffff);
        b.u16(0);
        b.u32(0x0000_aa01);
        b.u32(1);
        b.u32(0);
        for x in r.counters_mut() {
            b.u64(*x);
        }
        b.patch_len(at + 2, at);
        b.pad8(at);
    }
    if !s.custom.is_empty() {
        let at = b.len();
        b.u16(0xffff);
        b.u16(0);
        b.u32(0x0000_aa01);
        b.u32(2);
        b.u16(0);
        b.u16(s.custom.len().min(1024) as u16);
        for (name, value) in s.custom.iter().take(1024) {
            let n = name.len().min(63);
            b.u8(n as u8);
            b.bytes(&name.as_bytes()[..n]);
            b.u64(*value);
        }
        b.patch_len(at + 2, at);
        b.pad8(at);
    }
    b.patch_len(start, start);
}

fn queue_stats(b: &mut Buf, q: &QueueStats, v: Version) {
    let timed = v >= Version::V13;
    match v {
        Version::V10 => {
            b.u16(q.port.0);
            b.u16(0);
            b.u32(q.queue);
        }
        Version::V14 | Version::V15 => {
            b.u16(48);
            b.zeros(6);
            b.u32(port_to_wire32(q.port));
            b.u32(q.queue);
        }
        _ => {
            b.u32(port_to_wire32(q.port));
            b.u32(q.queue);
        }
    }
    b.u64(q.tx_bytes);
    b.u64(q.tx_packets);
    b.u64(q.tx_errors);
    if timed {
        b.u32(q.duration_sec);
        b.u32(q.duration_nsec);
    }
}

fn group_stats(b: &mut Buf, g: &GroupStats, v: Version) {
    let start = b.len();
    b.u16(0);
    b.u16(0);
    b.u32(g.group_id);
    b.u32(g.ref_count);
    b.u32(0);
    b.u64(g.packet_count);
    b.u64(g.byte_count);
    if v >= Version::V13 || v == Version::V10 {
        b.u32(g.duration_sec);
        b.u32(g.duration_nsec);
    }
    for (packets, bytes) in &g.buckets {
        b.u64(*packets);
        b.u64(*bytes);
    }
    b.patch_len(start, start);
}

/// Appends a table's description.
pub(crate) fn table_desc(b: &mut Buf, t: &TableDesc) {
    let start = b.len();
    b.u16(0);
    b.u8(t.table_id);
    b.u8(0);
    b.u32(if t.eviction { 4 } else { 0 } | if t.vacancy.enabled { 8 } else { 0 });
    if t.eviction_flags != u32::MAX {
        b.u16(2);
        b.u16(8);
        b.u32(t.eviction_flags);
    }
    if t.vacancy.enabled {
        b.u16(3);
        b.u16(8);
        b.u8(t.vacancy.down);
        b.u8(t.vacancy.up);
        b.u8(t.vacancy.current);
        b.u8(0);
    }
    b.patch_len(start, start);
}

fn flow_update(b: &mut Buf, u: &FlowUpdate, v: Version) {
    let start = b.len();
    let new = v >= Version::V14;
    b.u16(0);
    match u {
        FlowUpdate::Abbrev { xid } => {
            b.u16(if new { 4 } else { 3 });
            b.u32(*xid);
        }
        FlowUpdate::Paused | FlowUpdate::Resumed => {
            b.u16(if matches!(u, FlowUpdate::Paused) { 5 } else { 6 });
            b.u32(0);
        }
        FlowUpdate::Full {
            event,
            reason,
            match_,
            table_id,
            priority,
            idle_timeout,
            hard_timeout,
            cookie,
            actions,
        } => {
            let removed = *event == FlowUpdateEvent::Removed;
            let reason = if removed { reason.code() } else { 0 };
            if new {
                b.u16((*event as u16 + 1) % 4);
                b.u8(*table_id);
                b.u8(reason as u8);
                b.u16(*idle_timeout);
                b.u16(*hard_timeout);
                b.u16(*priority);
                b.u32(0);
                b.u64(*cookie);
                mw::put_ofp11_match(b, match_, v);
                encode_instructions(b, &for_match(actions, match_, v), v);
            } else {
                b.u16(*event as u16 % 3);
                b.u16(reason);
                b.u16(*priority);
                b.u16(*idle_timeout);
                b.u16(*hard_timeout);
                let at = b.len();
                b.u16(0);
                b.u8(*table_id);
                b.u8(0);
                b.u64(*cookie);
                if v == Version::V13 {
                    let len = put_measured_match(b, match_, v);
                    b.patch_u16(at, len);
                    encode_instructions(b, &for_match(actions, match_, v), v);
                } else {
                    let n = mw::put_nxm(b, match_, 0, 0);
                    b.patch_u16(at, n);
                    encode_actions(b, actions, v);
                }
            }
        }
    }
    b.patch_len(start, start);
}

fn table_features(b: &mut Buf, t: &TableFeatures, v: Version) {
    let start = b.len();
    b.u16(0);
    b.u8(t.table_id);
    b.u8(if v == Version::V15 { t.command } else { 0 });
    b.zeros(4);
    b.string(&t.name, 32);
    b.u64(t.metadata_match);
    b.u64(t.metadata_write);
    let mut caps = 0;
    if v >= Version::V14 {
        caps |= if t.supports_eviction { 4 } else { 0 } | if t.supports_vacancy { 8 } else { 0 };
    }
    b.u32(caps);
    b.u32(t.max_entries);
    if t.command != 0 {
        // What is not named stays.
        b.patch_len(start, start);
        return;
    }
    instruction_features(b, &t.nonmiss, 0, v);
    instruction_features(b, &t.missing, 1, v);
    prop(b, 8, |b| {
        for f in &t.match_fields {
            oxm::put_header(b, *f, v.to_wire(), t.mask_fields.contains(f));
        }
    });
    prop(b, 10, |b| {
        for f in &t.wildcard_fields {
            oxm::put_header(b, *f, v.to_wire(), false);
        }
    });
    b.patch_len(start, start);
}

fn prop(b: &mut Buf, kind: u16, body: impl FnOnce(&mut Buf)) {
    let start = b.len();
    b.u16(kind);
    b.u16(0);
    body(b);
    b.patch_len(start + 2, start);
    b.pad8(start);
}

fn instruction_features(b: &mut Buf, i: &TableInstrFeatures, miss: u16, v: Version) {
    prop(b, miss, |b| {
        // Since OpenFlow 1.5 `meter` (6) is an action.
        let last = if v == Version::V15 { 5 } else { 6 };
        for id in 1..=last {
            if i.instructions >> id & 1 != 0 {
                b.u16(id);
                b.u16(4);
            }
        }
    });
    prop(b, 2 + miss, |b| {
        for t in 0..=255u8 {
            if i.next[usize::from(t / 64)] >> (t % 64) & 1 != 0 {
                b.u8(t);
            }
        }
    });
    for (kind, a) in [(4, &i.write), (6, &i.apply)] {
        prop(b, kind + miss, |b| {
            for id in 0..64u16 {
                if a.actions >> id & 1 != 0 {
                    b.u16(id);
                    b.u16(4);
                }
            }
        });
        prop(b, kind + 8 + miss, |b| {
            for f in &a.set_fields {
                oxm::put_header(b, *f, v.to_wire(), false);
            }
        });
    }
}
