//! Bodies of multipart requests and replies, from bytes.

use ib_flow::OfPort;

use crate::action_decode::{decode_actions, decode_instructions, property};
use crate::decode::{Faults, LEN, port};
use crate::error::OfError;
use crate::group_wire;
use crate::match_wire as mw;
use crate::message::*;
use crate::oxm;
use crate::ports::port_from_wire32;
use crate::raw::Raw;
use crate::wire::Cursor;

const PROP_LEN: OfError = OfError::OFPBPC_BAD_LEN;

/// OpenFlow 1.1+'s "any port".
fn port32(c: &mut Cursor<'_>) -> Result<OfPort, OfError> {
    port_from_wire32(c.u32()?)
}

/// Decodes a request's body; `None` if the kind is no request. Entries in front of one that is malformed come with its
/// error.
pub(crate) fn request(
    raw: Raw,
    c: &mut Cursor<'_>,
    v: Version,
    tlv: u32,
    faults: &mut Faults,
) -> Result<Option<MultipartRequest>, OfError> {
    let Faults { broken, refused } = faults;
    use MultipartRequest as R;
    Ok(Some(match raw {
        Raw::DescRequest => R::Desc,
        Raw::FlowRequest10 => R::Flow(Box::new(flow_request10(c)?)),
        Raw::AggregateRequest10 => R::Aggregate(Box::new(flow_request10(c)?)),
        Raw::FlowRequest11 => R::Flow(Box::new(flow_request11(c, tlv)?)),
        Raw::AggregateRequest11 => R::Aggregate(Box::new(flow_request11(c, tlv)?)),
        Raw::NxFlowRequest => R::Flow(Box::new(nx_flow_request(c, tlv)?)),
        Raw::NxAggregateRequest => R::Aggregate(Box::new(nx_flow_request(c, tlv)?)),
        Raw::TableRequest => R::Table,
        Raw::PortRequest10 => R::Port(OfPort(c.u16()?)),
        Raw::PortRequest11 => R::Port(port32(c)?),
        Raw::QueueRequest10 => {
            let port = OfPort(c.u16()?);
            c.skip(2)?;
            // 1.0 says "all" where others say "any".
            let port = if port == OfPort::ALL { OfPort::NONE } else { port };
            R::Queue { port, queue: c.u32()? }
        }
        Raw::QueueRequest11 => R::Queue { port: port32(c)?, queue: c.u32()? },
        Raw::GroupRequest | Raw::NxGroupRequest => R::Group(c.u32()?),
        Raw::GroupDescRequest => R::GroupDesc(OFPG_ALL),
        Raw::GroupDescRequest15 | Raw::NxGroupDescRequest => R::GroupDesc(c.u32()?),
        Raw::GroupFeaturesRequest | Raw::NxGroupFeaturesRequest => R::GroupFeatures,
        Raw::MeterRequest => R::Meter(c.u32()?),
        Raw::MeterConfigRequest => R::MeterConfig(c.u32()?),
        Raw::MeterFeaturesRequest => R::MeterFeatures,
        Raw::TableFeaturesRequest => {
            let tables = entries(c, broken, |c| {
                let command = c.rest().get(3).copied().unwrap_or(0);
                let mut t = table_features(c, v)?;
                if v == Version::V15 && command > 3 {
                    return Err(OfError::OFPTFFC_BAD_COMMAND);
                }
                t.command = if v == Version::V15 { command } else { 0 };
                Ok(t)
            });
            R::TableFeatures { tables, more: false }
        }
        Raw::PortDescRequest => R::PortDesc(OfPort::NONE),
        Raw::PortDescRequest15 => R::PortDesc(port32(c)?),
        Raw::TableDescRequest => R::TableDesc,
        Raw::NxFlowMonitorRequest => R::FlowMonitor(entries(c, broken, |c| nx_monitor_request(c, tlv))),
        Raw::OnfFlowMonitorRequest => R::FlowMonitor(entries(c, broken, |c| onf_monitor_request(c, tlv))),
        Raw::FlowMonitorRequest14 => {
            R::FlowMonitor(entries(c, broken, |c| monitor_request14(c, tlv, refused)))
        }
        Raw::NxIpfixBridgeRequest => R::IpfixBridge,
        Raw::NxIpfixFlowRequest => R::IpfixFlow,
        _ => return Ok(None),
    }))
}

fn flow_request10(c: &mut Cursor<'_>) -> Result<FlowStatsRequest, OfError> {
    let match_ = mw::pull_ofp10_match(c)?;
    let table_id = c.u8()?;
    c.skip(1)?;
    Ok(FlowStatsRequest { match_, table_id, out_port: OfPort(c.u16()?), ..Default::default() })
}

fn flow_request11(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowStatsRequest, OfError> {
    let table_id = c.u8()?;
    c.skip(3)?;
    let (out_port, out_group) = (port32(c)?, c.u32()?);
    c.skip(4)?;
    let (cookie, cookie_mask) = (c.u64()?, c.u64()?);
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    Ok(FlowStatsRequest { match_, cookie: cookie & cookie_mask, cookie_mask, table_id, out_port, out_group })
}

fn nx_flow_request(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowStatsRequest, OfError> {
    let (out_port, match_len, table_id) = (OfPort(c.u16()?), usize::from(c.u16()?), c.u8()?);
    c.skip(3)?;
    let m = mw::pull_nxm(c, match_len, tlv, true)?;
    if !c.is_empty() {
        return Err(LEN);
    }
    Ok(FlowStatsRequest {
        match_: m.match_,
        cookie: m.cookie & m.cookie_mask,
        cookie_mask: m.cookie_mask,
        table_id,
        out_port,
        ..Default::default()
    })
}

fn nx_monitor_request(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowMonitorRequest, OfError> {
    let (id, flags, out_port, match_len) = (c.u32()?, c.u16()?, OfPort(c.u16()?), usize::from(c.u16()?));
    let table_id = c.u8()?;
    c.zeros(5, OfError::NXBRC_MUST_BE_ZERO)?;
    if flags & !0x3f != 0 || flags & 0xf == 0 {
        return Err(OfError::OFPMOFC_BAD_FLAGS);
    }
    let match_ = mw::pull_nxm(c, match_len, tlv, true)?.match_;
    Ok(FlowMonitorRequest { id, command: 0, flags, out_port, out_group: OFPG_ANY, table_id, match_ })
}

/// The extension of OpenFlow 1.3 by the ONF: between Nicira's form and that of OpenFlow 1.4.
fn onf_monitor_request(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowMonitorRequest, OfError> {
    let (id, flags) = (c.u32()?, c.u16()?);
    c.skip(2)?;
    let (out_port, table_id) = (c.u32()?, c.u8()?);
    c.zeros(3, OfError::NXBRC_MUST_BE_ZERO)?;
    if flags & !0x3f != 0 || flags & 0xf == 0 {
        return Err(OfError::OFPMOFC_BAD_FLAGS);
    }
    let out_port = port_from_wire32(out_port)?;
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    Ok(FlowMonitorRequest { id, command: 0, flags, out_port, out_group: OFPG_ANY, table_id, match_ })
}

fn monitor_request14(
    c: &mut Cursor<'_>,
    tlv: u32,
    refused: &mut Option<OfError>,
) -> Result<FlowMonitorRequest, OfError> {
    let (id, out_port, out_group, wire, table_id, command) =
        (c.u32()?, c.u32()?, c.u32()?, c.u16()?, c.u8()?, c.u8()?);
    if wire & !0x5f != 0 || command != 2 && wire & 0xf == 0 {
        return Err(OfError::OFPMOFC_BAD_FLAGS);
    }
    if command > 2 {
        refused.get_or_insert(OfError::OFPMOFC_BAD_COMMAND);
    }
    // The bits are the same but for that of own changes.
    let flags = wire & 0x1f | (wire & 0x40) >> 1;
    let out_port = port_from_wire32(out_port)?;
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    Ok(FlowMonitorRequest { id, command, flags, out_port, out_group, table_id, match_ })
}

/// Decodes entries to the end, or up to one that is malformed: its error goes into `broken`.
pub(crate) fn entries<'a, T>(
    c: &mut Cursor<'a>,
    broken: &mut Option<OfError>,
    mut one: impl FnMut(&mut Cursor<'a>) -> Result<T, OfError>,
) -> Vec<T> {
    let mut out = Vec::new();
    while !c.is_empty() {
        match one(c) {
            Ok(entry) => out.push(entry),
            Err(e) => {
                *broken = Some(e);
                break;
            }
        }
    }
    out
}

/// Decodes a reply's body. Entries in front of one that is malformed come with its error in `broken`.
pub(crate) fn reply(
    raw: Raw,
    c: &mut Cursor<'_>,
    v: Version,
    tlv: u32,
    broken: &mut Option<OfError>,
) -> Result<MultipartBody, OfError> {
    use MultipartBody as B;
    macro_rules! all {
        ($c:expr, $one:expr) => {
            entries($c, broken, $one)
        };
    }
    Ok(match raw {
        Raw::DescReply => B::Desc(SwitchDesc {
            mfr_desc: c.string(256)?,
            hw_desc: c.string(256)?,
            sw_desc: c.string(256)?,
            serial_num: c.string(32)?,
            dp_desc: c.string(256)?,
        }),
        Raw::FlowReply => B::Flow(all!(c, |c| match v {
            Version::V10 => flow_stats10(c),
            Version::V15 => flow_stats15(c, tlv),
            _ => flow_stats11(c, v, tlv),
        })),
        Raw::NxFlowReply => B::Flow(all!(c, |c| nx_flow_stats(c, v, tlv))),
        Raw::AggregateReply | Raw::NxAggregateReply => B::Aggregate(AggregateStats {
            packet_count: c.u64()?,
            byte_count: c.u64()?,
            flow_count: c.u32()?,
        }),
        Raw::AggregateReply15 => {
            let s = oxs(c)?;
            B::Aggregate(AggregateStats { packet_count: s.packets, byte_count: s.bytes, flow_count: s.flows })
        }
        Raw::TableReply10 => B::Table(all!(c, table10)),
        Raw::TableReply11 => B::Table(all!(c, table11)),
        Raw::TableReply12 => B::Table(all!(c, table12)),
        Raw::TableReply13 => B::Table(all!(c, |c| {
            let table_id = c.u8()?;
            c.skip(3)?;
            Ok(TableStats {
                table_id,
                active_count: c.u32()?,
                lookup_count: c.u64()?,
                matched_count: c.u64()?,
                features: TableFeatures { table_id, ..Default::default() },
            })
        })),
        Raw::PortReply10 | Raw::PortReply11 | Raw::PortReply13 => B::Port(all!(c, |c| port_stats(c, v))),
        Raw::PortReply14 => B::Port(all!(c, port_stats14)),
        Raw::QueueReply10 | Raw::QueueReply11 | Raw::QueueReply13 | Raw::QueueReply14 => {
            B::Queue(all!(c, |c| queue_stats(c, v)))
        }
        Raw::GroupReply | Raw::NxGroupReply => B::Group(all!(c, |c| group_stats(c, v))),
        Raw::GroupDescReply => B::GroupDesc(all!(c, |c| group_wire::decode_desc(c, v, v == Version::V15))),
        Raw::NxGroupDescReply => B::GroupDesc(all!(c, |c| group_wire::decode_desc(c, v, true))),
        Raw::GroupFeaturesReply | Raw::NxGroupFeaturesReply => {
            let mut g = GroupFeatures { types: c.u32()?, capabilities: c.u32()?, ..Default::default() };
            for x in &mut g.max_groups {
                *x = c.u32()?;
            }
            for x in &mut g.actions {
                *x = c.u32()?;
            }
            B::GroupFeatures(g)
        }
        Raw::MeterReply => B::Meter(all!(c, meter_stats)),
        Raw::MeterConfigReply => B::MeterConfig(all!(c, |c| {
            let mut head = Cursor::new(c.rest(), LEN);
            let len = usize::from(head.u16()?);
            if len < 8 || len > c.len() {
                return Err(LEN);
            }
            let mut p = Cursor::new(&c.take(len)?[2..], LEN);
            Ok(MeterConfig { flags: p.u16()?, meter_id: p.u32()?, bands: group_wire::bands(&mut p)? })
        })),
        Raw::MeterFeaturesReply => B::MeterFeatures(MeterFeatures {
            max_meters: c.u32()?,
            band_types: c.u32()?,
            capabilities: c.u32()?,
            max_bands: c.u8()?,
            max_color: c.u8()?,
        }),
        Raw::TableFeaturesReply => B::TableFeatures(all!(c, |c| table_features(c, v))),
        Raw::PortDescReply10 | Raw::PortDescReply11 | Raw::PortDescReply14 => {
            B::PortDesc(all!(c, |c| port(c, v)))
        }
        Raw::TableDescReply => B::TableDesc(all!(c, table_desc)),
        Raw::NxFlowMonitorReply => B::FlowMonitor(all!(c, |c| nx_flow_update(c, v, tlv))),
        Raw::OnfFlowMonitorReply => B::FlowMonitor(all!(c, |c| nx_flow_update(c, v, tlv))),
        Raw::FlowMonitorReply14 => B::FlowMonitor(all!(c, |c| flow_update14(c, v, tlv))),
        Raw::NxIpfixBridgeReply => B::Ipfix { flow: false, stats: all!(c, ipfix) },
        Raw::NxIpfixFlowReply => B::Ipfix { flow: true, stats: all!(c, ipfix) },
        _ => return Err(OfError::OFPBRC_BAD_STAT),
    })
}

/// Takes the body of an entry headed by its 16-bit length.
fn sized<'a>(c: &mut Cursor<'a>, min: usize) -> Result<Cursor<'a>, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let len = usize::from(head.u16()?);
    if len < min || len > c.len() {
        return Err(LEN);
    }
    Ok(Cursor::new(&c.take(len)?[2..], LEN))
}

fn unknown_if_max(v: u64) -> u64 {
    v
}

fn flow_stats10(c: &mut Cursor<'_>) -> Result<FlowStats, OfError> {
    let mut p = sized(c, 88)?;
    let table_id = p.u8()?;
    p.skip(1)?;
    let match_ = mw::pull_ofp10_match(&mut p)?;
    let (duration_sec, duration_nsec, priority) = (p.u32()?, p.u32()?, p.u16()?);
    let (idle_timeout, hard_timeout) = (p.u16()?, p.u16()?);
    p.skip(6)?;
    let (cookie, packet_count, byte_count) = (p.u64()?, p.u64()?, p.u64()?);
    Ok(FlowStats {
        match_,
        cookie,
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        duration_sec,
        duration_nsec,
        packet_count: unknown_if_max(packet_count),
        byte_count: unknown_if_max(byte_count),
        actions: decode_actions(p.rest(), Version::V10)?,
        ..Default::default()
    })
}

/// Flow flags in replies: same bits as in flow_mods of the version.
pub(crate) fn flags_from_wire(flags: u16) -> u16 {
    let mut out = flags & 3;
    for (wire, bit) in
        [(4, FlowModFlags::RESET_COUNTS), (8, FlowModFlags::NO_PKT_COUNTS), (16, FlowModFlags::NO_BYT_COUNTS)]
    {
        if flags & wire != 0 {
            out |= bit;
        }
    }
    out
}

fn flow_stats11(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowStats, OfError> {
    let mut p = sized(c, 48)?;
    let table_id = p.u8()?;
    p.skip(1)?;
    let (duration_sec, duration_nsec, priority) = (p.u32()?, p.u32()?, p.u16()?);
    let (idle_timeout, hard_timeout, flags, importance) = (p.u16()?, p.u16()?, p.u16()?, p.u16()?);
    p.skip(2)?;
    let (cookie, packet_count, byte_count) = (p.u64()?, p.u64()?, p.u64()?);
    let match_ = mw::pull_ofp11_match(&mut p, tlv, true)?.0;
    Ok(FlowStats {
        match_,
        cookie,
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        importance: if v >= Version::V14 { importance } else { 0 },
        flags: if v >= Version::V13 { flags_from_wire(flags) } else { 0 },
        duration_sec,
        duration_nsec,
        packet_count,
        byte_count,
        actions: decode_instructions(p.rest(), v)?,
        ..Default::default()
    })
}

/// Statistics of OpenFlow 1.5; what is not there is zero or, of counters, all ones.
pub(crate) struct Oxs {
    /// Seconds and nanoseconds.
    pub duration: (u32, u32),
    idle: Option<u32>,
    flows: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

pub(crate) fn oxs(c: &mut Cursor<'_>) -> Result<Oxs, OfError> {
    oxs_list(c).map_err(|_| OfError::OFPBMC_BAD_LEN)
}

fn oxs_list(c: &mut Cursor<'_>) -> Result<Oxs, OfError> {
    c.skip(2)?;
    let len = usize::from(c.u16()?);
    let body = len.checked_sub(4).ok_or(LEN)?;
    let padded = len.next_multiple_of(8) - 4;
    let whole = c.take(padded)?;
    let mut p = Cursor::new(&whole[..body], LEN);
    let mut out = Oxs {
        duration: (u32::MAX, u32::MAX),
        idle: None,
        flows: u32::MAX,
        packets: u64::MAX,
        bytes: u64::MAX,
    };
    while !p.is_empty() {
        let (class, field, len) = (p.u16()?, p.u8()? >> 1, usize::from(p.u8()?));
        let mut e = Cursor::new(p.take(len)?, LEN);
        if class != 0x8002 {
            continue;
        }
        match field {
            0 => out.duration = (e.u32()?, e.u32()?),
            1 => out.idle = Some(e.u32()?),
            3 => out.flows = e.u32()?,
            4 => out.packets = e.u64()?,
            5 => out.bytes = e.u64()?,
            _ => {}
        }
    }
    Ok(out)
}

fn flow_stats15(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowStats, OfError> {
    let mut p = sized(c, 32)?;
    p.skip(2)?;
    let table_id = p.u8()?;
    p.skip(1)?;
    let priority = p.u16()?;
    let (idle_timeout, hard_timeout, flags, importance) = (p.u16()?, p.u16()?, p.u16()?, p.u16()?);
    let cookie = p.u64()?;
    let match_ = mw::pull_ofp11_match(&mut p, tlv, true)?.0;
    let s = oxs(&mut p)?;
    Ok(FlowStats {
        match_,
        cookie,
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        importance,
        flags: flags_from_wire(flags),
        duration_sec: s.duration.0,
        duration_nsec: s.duration.1,
        idle_age: s.idle.map(|i| i.min(0xffff) as u16),
        hard_age: None,
        packet_count: s.packets,
        byte_count: s.bytes,
        actions: decode_instructions(p.rest(), Version::V15)?,
    })
}

fn nx_flow_stats(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowStats, OfError> {
    let mut p = sized(c, 48)?;
    let table_id = p.u8()?;
    p.skip(1)?;
    let (duration_sec, duration_nsec, priority) = (p.u32()?, p.u32()?, p.u16()?);
    let (idle_timeout, hard_timeout, match_len) = (p.u16()?, p.u16()?, usize::from(p.u16()?));
    let (idle_age, hard_age) = (p.u16()?, p.u16()?);
    let (cookie, packet_count, byte_count) = (p.u64()?, p.u64()?, p.u64()?);
    let match_ = mw::pull_nxm(&mut p, match_len, tlv, true)?.match_;
    Ok(FlowStats {
        match_,
        cookie,
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        duration_sec,
        duration_nsec,
        // Stored with one added, so that zero is "unknown".
        idle_age: idle_age.checked_sub(1),
        hard_age: hard_age.checked_sub(1),
        packet_count,
        byte_count,
        actions: decode_actions(p.rest(), v)?,
        ..Default::default()
    })
}

fn table10(c: &mut Cursor<'_>) -> Result<TableStats, OfError> {
    let table_id = c.u8()?;
    c.skip(3)?;
    let name = c.string(32)?;
    let (wildcards, max_entries, active_count) = (c.u32()?, c.u32()?, c.u32()?);
    let (lookup_count, matched_count) = (c.u64()?, c.u64()?);
    let mut features = TableFeatures { table_id, name, max_entries, ..Default::default() };
    crate::table_fields::from_wildcards10(wildcards, &mut features);
    Ok(TableStats { table_id, active_count, lookup_count, matched_count, features })
}

fn table11(c: &mut Cursor<'_>) -> Result<TableStats, OfError> {
    let table_id = c.u8()?;
    c.skip(7)?;
    let name = c.string(32)?;
    let (wildcards, matches) = (c.u32()?, c.u32()?);
    let (instructions, write, apply, config) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let (max_entries, active_count) = (c.u32()?, c.u32()?);
    let (lookup_count, matched_count) = (c.u64()?, c.u64()?);
    let mut features = TableFeatures { table_id, name, max_entries, ..Default::default() };
    features.miss = miss_of(config);
    features.nonmiss.instructions = instructions & 0x3e;
    features.nonmiss.write.actions = crate::table_fields::actions_from11(write);
    features.nonmiss.apply.actions = crate::table_fields::actions_from11(apply);
    features.missing = features.nonmiss.clone();
    crate::table_fields::from_fields11(wildcards, matches, &mut features);
    Ok(TableStats { table_id, active_count, lookup_count, matched_count, features })
}

fn miss_of(config: u32) -> TableMiss {
    match config & 3 {
        0 => TableMiss::Controller,
        1 => TableMiss::Continue,
        2 => TableMiss::Drop,
        _ => TableMiss::Default,
    }
}

fn table12(c: &mut Cursor<'_>) -> Result<TableStats, OfError> {
    let table_id = c.u8()?;
    c.skip(7)?;
    let name = c.string(32)?;
    let (matches, wildcards) = (c.u64()?, c.u64()?);
    let (write, apply) = (c.u32()?, c.u32()?);
    let (write_fields, apply_fields) = (c.u64()?, c.u64()?);
    let (metadata_match, metadata_write) = (c.u64()?, c.u64()?);
    let (instructions, config, max_entries, active_count) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let (lookup_count, matched_count) = (c.u64()?, c.u64()?);
    let mut features =
        TableFeatures { table_id, name, max_entries, metadata_match, metadata_write, ..Default::default() };
    features.miss = miss_of(config);
    features.nonmiss.instructions = instructions & 0x3e;
    features.nonmiss.write.actions = crate::table_fields::actions_from13(write);
    features.nonmiss.apply.actions = crate::table_fields::actions_from13(apply);
    features.nonmiss.write.set_fields = crate::table_fields::fields_from12(write_fields);
    features.nonmiss.apply.set_fields = crate::table_fields::fields_from12(apply_fields);
    features.missing = features.nonmiss.clone();
    features.match_fields = crate::table_fields::fields_from12(matches);
    features.wildcard_fields = crate::table_fields::fields_from12(wildcards);
    Ok(TableStats { table_id, active_count, lookup_count, matched_count, features })
}

fn port_counters(c: &mut Cursor<'_>, s: &mut PortStats) -> Result<(), OfError> {
    for x in [
        &mut s.rx_packets,
        &mut s.tx_packets,
        &mut s.rx_bytes,
        &mut s.tx_bytes,
        &mut s.rx_dropped,
        &mut s.tx_dropped,
        &mut s.rx_errors,
        &mut s.tx_errors,
    ] {
        *x = c.u64()?;
    }
    Ok(())
}

fn port_errors(c: &mut Cursor<'_>, s: &mut PortStats) -> Result<(), OfError> {
    s.rx_frame_err = c.u64()?;
    s.rx_over_err = c.u64()?;
    s.rx_crc_err = c.u64()?;
    s.collisions = c.u64()?;
    Ok(())
}

fn port_stats(c: &mut Cursor<'_>, v: Version) -> Result<PortStats, OfError> {
    let mut s = PortStats::default();
    if v == Version::V10 {
        s.port_no = OfPort(c.u16()?);
        c.skip(6)?;
    } else {
        s.port_no = port32(c)?;
        c.skip(4)?;
    }
    port_counters(c, &mut s)?;
    port_errors(c, &mut s)?;
    if v >= Version::V13 {
        s.duration_sec = c.u32()?;
        s.duration_nsec = c.u32()?;
    }
    Ok(s)
}

fn port_stats14(c: &mut Cursor<'_>) -> Result<PortStats, OfError> {
    let mut p = sized(c, 80)?;
    p.skip(2)?;
    let mut s = PortStats { port_no: port32(&mut p)?, ..Default::default() };
    s.duration_sec = p.u32()?;
    s.duration_nsec = p.u32()?;
    port_counters(&mut p, &mut s)?;
    s.rx_frame_err = u64::MAX;
    s.rx_over_err = u64::MAX;
    s.rx_crc_err = u64::MAX;
    s.collisions = u64::MAX;
    while !p.is_empty() {
        let (kind, body) = property(&mut p, PROP_LEN)?;
        let mut b = Cursor::new(body, PROP_LEN);
        match kind {
            0 => {
                b.skip(4)?;
                port_errors(&mut b, &mut s)?;
            }
            0xffff => port_experimenter(&mut b, &mut s)?,
            _ => {}
        }
    }
    Ok(s)
}

/// Intel's RFC 2819 counters and custom counters.
fn port_experimenter(b: &mut Cursor<'_>, s: &mut PortStats) -> Result<(), OfError> {
    let (vendor, kind) = (b.u32()?, b.u32()?);
    if vendor != 0x0000_aa01 {
        return Ok(());
    }
    match kind {
        1 => {
            b.skip(4)?;
            let mut r = Rfc2819::default();
            for x in r.counters_mut() {
                *x = b.u64()?;
            }
            s.rfc2819 = Some(r);
        }
        2 => {
            b.skip(2)?;
            let n = b.u16()?;
            for _ in 0..n {
                let len = usize::from(b.u8()?);
                let name = b.string(len)?;
                s.custom.push((name, b.u64()?));
            }
        }
        _ => {}
    }
    Ok(())
}

impl Rfc2819 {
    /// The counters in wire order.
    pub(crate) fn counters_mut(&mut self) -> [&mut u64; 21] {
        [
            &mut self.rx_1_to_64,
            &mut self.rx_65_to_127,
            &mut self.rx_128_to_255,
            &mut self.rx_256_to_511,
            &mut self.rx_512_to_1023,
            &mut self.rx_1024_to_1522,
            &mut self.rx_1523_to_max,
            &mut self.tx_1_to_64,
            &mut self.tx_65_to_127,
            &mut self.tx_128_to_255,
            &mut self.tx_256_to_511,
            &mut self.tx_512_to_1023,
            &mut self.tx_1024_to_1522,
            &mut self.tx_1523_to_max,
            &mut self.tx_multicast,
            &mut self.rx_broadcast,
            &mut self.tx_broadcast,
            &mut self.rx_undersized,
            &mut self.rx_oversize,
            &mut self.rx_fragmented,
            &mut self.rx_jabber,
        ]
    }
}

fn queue_stats(c: &mut Cursor<'_>, v: Version) -> Result<QueueStats, OfError> {
    let mut q = QueueStats {
        port: OfPort::NONE,
        queue: 0,
        tx_bytes: 0,
        tx_packets: 0,
        tx_errors: 0,
        duration_sec: u32::MAX,
        duration_nsec: u32::MAX,
    };
    match v {
        Version::V10 => {
            q.port = OfPort(c.u16()?);
            c.skip(2)?;
            q.queue = c.u32()?;
        }
        Version::V14 | Version::V15 => {
            let mut p = sized(c, 48)?;
            p.skip(6)?;
            q.port = port32(&mut p)?;
            q.queue = p.u32()?;
            q.tx_bytes = p.u64()?;
            q.tx_packets = p.u64()?;
            q.tx_errors = p.u64()?;
            q.duration_sec = p.u32()?;
            q.duration_nsec = p.u32()?;
            return Ok(q);
        }
        _ => {
            q.port = port32(c)?;
            q.queue = c.u32()?;
        }
    }
    q.tx_bytes = c.u64()?;
    q.tx_packets = c.u64()?;
    q.tx_errors = c.u64()?;
    if v == Version::V13 {
        q.duration_sec = c.u32()?;
        q.duration_nsec = c.u32()?;
    }
    Ok(q)
}

fn group_stats(c: &mut Cursor<'_>, v: Version) -> Result<GroupStats, OfError> {
    let timed = v >= Version::V13 || v == Version::V10;
    let base = if timed { 40 } else { 32 };
    // As many buckets as its length holds; what that leaves over is not skipped.
    let p = c;
    let len = usize::from(p.u16()?);
    let n_buckets = len.checked_sub(base).ok_or(LEN)? / 16;
    p.skip(2)?;
    let (group_id, ref_count) = (p.u32()?, p.u32()?);
    p.skip(4)?;
    let mut g = GroupStats {
        group_id,
        ref_count,
        packet_count: p.u64()?,
        byte_count: p.u64()?,
        duration_sec: u32::MAX,
        duration_nsec: u32::MAX,
        buckets: Vec::new(),
    };
    if timed {
        g.duration_sec = p.u32()?;
        g.duration_nsec = p.u32()?;
    }
    for _ in 0..n_buckets {
        g.buckets.push((p.u64()?, p.u64()?));
    }
    Ok(g)
}

fn meter_stats(c: &mut Cursor<'_>) -> Result<MeterStats, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let meter_id = head.u32()?;
    let len = usize::from(head.u16()?);
    if len < 40 || len > c.len() {
        return Err(LEN);
    }
    let mut p = Cursor::new(&c.take(len)?[12..], LEN);
    let mut m = MeterStats {
        meter_id,
        flow_count: p.u32()?,
        packet_in_count: p.u64()?,
        byte_in_count: p.u64()?,
        duration_sec: p.u32()?,
        duration_nsec: p.u32()?,
        bands: Vec::new(),
    };
    while !p.is_empty() {
        m.bands.push(MeterBandStats { packets: p.u64()?, bytes: p.u64()? });
    }
    Ok(m)
}

pub(crate) fn table_desc(c: &mut Cursor<'_>) -> Result<TableDesc, OfError> {
    let mut p = sized(c, 8)?;
    let table_id = p.u8()?;
    p.skip(1)?;
    let config = p.u32()?;
    let mut out = TableDesc {
        table_id,
        eviction: config & 4 != 0,
        eviction_flags: u32::MAX,
        vacancy: Vacancy { enabled: config & 8 != 0, ..Default::default() },
    };
    while !p.is_empty() {
        let (kind, body) = property(&mut p, PROP_LEN)?;
        let mut b = Cursor::new(body, PROP_LEN);
        match kind {
            2 => out.eviction_flags = b.u32()?,
            3 => {
                out.vacancy.down = b.u8()?;
                out.vacancy.up = b.u8()?;
                out.vacancy.current = b.u8()?;
            }
            _ => {}
        }
    }
    Ok(out)
}

pub(crate) fn queue_desc(
    c: &mut Cursor<'_>,
    more: bool,
    broken: &mut Option<OfError>,
) -> QueueGetConfigReply {
    let mut port = OfPort::NONE;
    let queues = entries(c, broken, |c| {
        let mut head = Cursor::new(c.rest(), LEN);
        let (queue_port, queue, len) = (port32(&mut head)?, head.u32()?, usize::from(head.u16()?));
        if len < 16 || len > c.len() {
            return Err(LEN);
        }
        let mut p = Cursor::new(&c.take(len)?[16..], LEN);
        let mut q = QueueConfig { port: queue_port, queue, min_rate: None, max_rate: None };
        while !p.is_empty() {
            let (kind, body) = property(&mut p, PROP_LEN)?;
            let mut b = Cursor::new(body, PROP_LEN);
            match kind {
                1 => q.min_rate = Some(b.u16()?),
                2 => q.max_rate = Some(b.u16()?),
                _ => {}
            }
        }
        port = queue_port;
        Ok(q)
    });
    QueueGetConfigReply { port, queues, more }
}

fn nx_flow_update(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowUpdate, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let (len, event) = (usize::from(head.u16()?), head.u16()?);
    if len < 8 || len > c.len() || len % 8 != 0 {
        return Err(LEN);
    }
    let mut p = Cursor::new(&c.take(len)?[4..], LEN);
    let event = match event {
        0 => FlowUpdateEvent::Added,
        1 => FlowUpdateEvent::Removed,
        2 => FlowUpdateEvent::Modified,
        3 => return Ok(FlowUpdate::Abbrev { xid: p.u32()? }),
        _ => return Err(OfError::NXBRC_FM_BAD_EVENT),
    };
    let (reason, priority, idle_timeout, hard_timeout) = (p.u16()?, p.u16()?, p.u16()?, p.u16()?);
    let (match_len, table_id) = (usize::from(p.u16()?), p.u8()?);
    p.skip(1)?;
    let cookie = p.u64()?;
    let onf = v >= Version::V13;
    let match_ = match onf {
        true => mw::pull_ofp11_match(&mut p, tlv, true)?.0,
        false => mw::pull_nxm(&mut p, match_len, tlv, true)?.match_,
    };
    Ok(FlowUpdate::Full {
        event,
        reason: FlowRemovedReason::from_code(reason),
        match_: Box::new(match_),
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        cookie,
        actions: if onf { decode_instructions(p.rest(), v)? } else { decode_actions(p.rest(), v)? },
    })
}

fn flow_update14(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowUpdate, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let (len, event) = (usize::from(head.u16()?), head.u16()?);
    if len < 8 || len > c.len() || len % 8 != 0 {
        return Err(LEN);
    }
    let mut p = Cursor::new(&c.take(len)?[4..], LEN);
    let event = match event {
        0 => FlowUpdateEvent::Initial,
        1 => FlowUpdateEvent::Added,
        2 => FlowUpdateEvent::Removed,
        3 => FlowUpdateEvent::Modified,
        4 => return Ok(FlowUpdate::Abbrev { xid: p.u32()? }),
        5 => return Ok(FlowUpdate::Paused),
        6 => return Ok(FlowUpdate::Resumed),
        _ => return Err(OfError::NXBRC_FM_BAD_EVENT),
    };
    let (table_id, reason) = (p.u8()?, p.u8()?);
    let (idle_timeout, hard_timeout, priority) = (p.u16()?, p.u16()?, p.u16()?);
    p.skip(4)?;
    let cookie = p.u64()?;
    let match_ = mw::pull_ofp11_match(&mut p, tlv, true)?.0;
    Ok(FlowUpdate::Full {
        event,
        reason: FlowRemovedReason::from_code(reason.into()),
        match_: Box::new(match_),
        table_id,
        priority,
        idle_timeout,
        hard_timeout,
        cookie,
        actions: decode_instructions(p.rest(), v)?,
    })
}

fn ipfix(c: &mut Cursor<'_>) -> Result<IpfixStats, OfError> {
    let mut s = IpfixStats::default();
    for x in [
        &mut s.total_flows,
        &mut s.current_flows,
        &mut s.pkts,
        &mut s.ipv4_pkts,
        &mut s.ipv6_pkts,
        &mut s.error_pkts,
        &mut s.ipv4_error_pkts,
        &mut s.ipv6_error_pkts,
        &mut s.tx_pkts,
        &mut s.tx_errors,
    ] {
        *x = c.u64()?;
    }
    s.collector_set_id = c.u32()?;
    c.skip(4)?;
    Ok(s)
}

fn table_features(c: &mut Cursor<'_>, v: Version) -> Result<TableFeatures, OfError> {
    let mut p = sized(c, 64).map_err(|_| PROP_LEN)?;
    let table_id = p.u8()?;
    p.skip(5)?;
    let name = p.string(32)?;
    let (metadata_match, metadata_write) = (p.u64()?, p.u64()?);
    let (caps, max_entries) = (p.u32()?, p.u32()?);
    let mut t =
        TableFeatures { table_id, name, metadata_match, metadata_write, max_entries, ..Default::default() };
    if v < Version::V13 {
        t.miss = miss_of(caps);
    }
    t.supports_eviction = v >= Version::V14 && caps & 4 != 0;
    t.supports_vacancy = v >= Version::V14 && caps & 8 != 0;
    let mut missing_seen = [false; 16];
    while !p.is_empty() {
        let (kind, body) = property(&mut p, OfError::OFPBPC_BAD_LEN)?;
        if let Some(slot) = missing_seen.get_mut(usize::from(kind)) {
            *slot = true;
        }
        let side = if kind & 1 == 1 && kind < 16 { &mut t.missing } else { &mut t.nonmiss };
        match kind {
            0 | 1 => side.instructions = instruction_ids(body)?,
            2 | 3 => {
                for id in body {
                    side.next[usize::from(id / 64)] |= 1 << (id % 64);
                }
            }
            4 | 5 => side.write.actions = action_ids(body, v)?,
            6 | 7 => side.apply.actions = action_ids(body, v)?,
            8 => {
                let (fields, masked) = oxm_ids(body)?;
                t.mask_fields = masked;
                t.match_fields = fields;
            }
            10 => t.wildcard_fields = oxm_ids(body)?.0,
            12 | 13 => side.write.set_fields = oxm_ids(body)?.0,
            14 | 15 => side.apply.set_fields = oxm_ids(body)?.0,
            _ => {}
        }
    }
    // A property for misses that is missing is the same as for hits.
    if !missing_seen[1] {
        t.missing.instructions = t.nonmiss.instructions;
    }
    if !missing_seen[3] {
        t.missing.next = t.nonmiss.next;
    }
    if !missing_seen[5] {
        t.missing.write.actions = t.nonmiss.write.actions;
    }
    if !missing_seen[7] {
        t.missing.apply.actions = t.nonmiss.apply.actions;
    }
    if !missing_seen[13] {
        t.missing.write.set_fields = t.nonmiss.write.set_fields.clone();
    }
    if !missing_seen[15] {
        t.missing.apply.set_fields = t.nonmiss.apply.set_fields.clone();
    }
    Ok(t)
}

fn instruction_ids(body: &[u8]) -> Result<u32, OfError> {
    let mut c = Cursor::new(body, PROP_LEN);
    let mut out = 0;
    while !c.is_empty() {
        let (kind, len) = (c.u16()?, usize::from(c.u16()?));
        c.skip(len.saturating_sub(4).min(c.len()))?;
        if (1..=6).contains(&kind) {
            out |= 1 << kind;
        }
    }
    Ok(out)
}

fn action_ids(body: &[u8], v: Version) -> Result<u64, OfError> {
    let mut c = Cursor::new(body, PROP_LEN);
    let mut out = 0;
    while !c.is_empty() {
        let (kind, len) = (c.u16()?, usize::from(c.u16()?));
        c.skip(len.saturating_sub(4).min(c.len()))?;
        if kind < 64 {
            out |= 1 << kind;
        }
    }
    let _ = v;
    Ok(out)
}

fn oxm_ids(body: &[u8]) -> Result<(Vec<ib_flow::FieldId>, Vec<ib_flow::FieldId>), OfError> {
    let mut c = Cursor::new(body, PROP_LEN);
    let (mut all, mut masked) = (Vec::new(), Vec::new());
    while !c.is_empty() {
        match oxm::pull_header(&mut c, OfError::OFPBMC_BAD_LEN) {
            Ok(h) => {
                all.push(h.field);
                if h.masked {
                    masked.push(h.field);
                }
            }
            Err(OfError::OFPBMC_BAD_FIELD | OfError::OFPBMC_BAD_LEN) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((all, masked))
}
