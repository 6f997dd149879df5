//! Messages to bytes.
//!
//! [`encode`] writes one message for a version. What the version has no word for goes in Nicira's or ONF's extension
//! where there is one, and is left out where there is none. Multipart replies that do not fit into a message of
//! 64 kB must be split by the caller; [`encode_reply`] does that for lists.

use ib_base::vlog::module::OFP_ERRORS;
use ib_base::vlog_err_rl;
use ib_flow::OfPort;

use crate::action_encode::{encode_actions, encode_instructions};
use crate::error::{NX, OfError};
use crate::group_wire;
use crate::match_wire as mw;
use crate::message::*;
use crate::ports::port_to_wire32;
use crate::raw::{Raw, begin, finish};
use crate::stats_encode;
use crate::wire::Buf;

/// How to send what a version offers more than one form for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// OpenFlow 1.0: flows in NXM (NXT_FLOW_MOD, NXST_FLOW).
    pub nxm: bool,
    /// OpenFlow 1.0: flow_mods carry a table (NXT_FLOW_MOD_TABLE_ID was sent).
    pub table_id: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        EncodeOptions { nxm: true, table_id: true }
    }
}

/// Encodes a message, OpenFlow 1.0 with Nicira's extensions where they say more.
pub fn encode(message: &Message, version: Version, xid: u32) -> Vec<u8> {
    encode_with(message, version, xid, EncodeOptions::default())
}

/// Encodes an error as the reply to `request`, of which the beginning is sent along.
pub fn encode_error(error: OfError, version: Version, request: &[u8]) -> Vec<u8> {
    let xid = crate::raw::parse_header(request).map_or(0, |h| h.xid);
    // All of it, unless the error would grow beyond what its length can say.
    let data = request[..request.len().min(usize::from(u16::MAX) - 32)].to_vec();
    encode(&Message::Error(ErrorMessage { error, data }), version, xid)
}

/// Encodes a message.
pub fn encode_with(message: &Message, version: Version, xid: u32, options: EncodeOptions) -> Vec<u8> {
    let mut b = Buf::default();
    put(&mut b, message, version, xid, options);
    b.0
}

/// Appends a message.
pub fn put(b: &mut Buf, message: &Message, v: Version, xid: u32, options: EncodeOptions) {
    use Message as M;
    let start = b.len();
    let v10 = v == Version::V10;
    let mut head = |raw: Raw| {
        begin(b, raw, v, xid);
    };
    match message {
        M::Hello(versions) => {
            head(Raw::Hello);
            let best = versions.highest().unwrap_or(v);
            b.0[start] = best.to_wire();
            // The bitmap says nothing more if the versions are all up to the best.
            let implied = (1u32 << (best.to_wire() + 1)) - 2;
            if versions.0 != implied {
                b.u16(1);
                b.u16(8);
                b.u32(versions.0);
            }
        }
        M::Error(e) => {
            head(Raw::Error);
            error(b, e, v);
        }
        M::EchoRequest(data) => {
            head(Raw::EchoRequest);
            b.bytes(data);
        }
        M::EchoReply(data) => {
            head(Raw::EchoReply);
            b.bytes(data);
        }
        M::FeaturesRequest => head(Raw::FeaturesRequest),
        M::FeaturesReply(f) => {
            head(match v {
                Version::V10 => Raw::FeaturesReply10,
                Version::V11 | Version::V12 => Raw::FeaturesReply11,
                _ => Raw::FeaturesReply13,
            });
            features(b, f, v);
        }
        M::GetConfigRequest => head(Raw::GetConfigRequest),
        M::GetConfigReply(c) => {
            head(Raw::GetConfigReply);
            config(b, c, v);
        }
        M::SetConfig(c) => {
            head(Raw::SetConfig);
            config(b, c, v);
        }
        M::PacketIn(p) => packet_in(b, p, v, xid),
        M::Resume(p) => {
            head(Raw::NxResume);
            packet_in2(b, p);
        }
        M::FlowRemoved(f) => flow_removed(b, f, v, xid, options),
        M::PortStatus(s) => {
            head(match v {
                Version::V10 => Raw::PortStatus10,
                Version::V11 | Version::V12 | Version::V13 => Raw::PortStatus11,
                _ => Raw::PortStatus14,
            });
            b.u8(s.reason as u8);
            b.zeros(7);
            port(b, &s.port, v);
        }
        M::PacketOut(p) => {
            head(match v {
                Version::V10 => Raw::PacketOut10,
                Version::V15 => Raw::PacketOut15,
                _ => Raw::PacketOut11,
            });
            packet_out(b, p, v);
        }
        M::FlowMod(f) => flow_mod(b, f, v, xid, options),
        M::GroupMod(g) => {
            head(match v {
                Version::V10 => Raw::NxGroupMod,
                Version::V15 => Raw::GroupMod15,
                _ => Raw::GroupMod11,
            });
            group_wire::encode_mod(b, g, v);
        }
        M::PortMod(p) => {
            head(match v {
                Version::V10 => Raw::PortMod10,
                Version::V11 | Version::V12 | Version::V13 => Raw::PortMod11,
                _ => Raw::PortMod14,
            });
            port_mod(b, p, v);
        }
        M::TableMod(t) => {
            head(if v >= Version::V14 { Raw::TableMod14 } else { Raw::TableMod11 });
            table_mod(b, t, v);
        }
        M::MeterMod(m) => {
            head(Raw::MeterMod);
            b.u16(m.command);
            b.u16(m.meter.flags);
            b.u32(m.meter.meter_id);
            group_wire::put_bands(b, &m.meter.bands);
        }
        M::BarrierRequest => head(if v10 { Raw::BarrierRequest10 } else { Raw::BarrierRequest11 }),
        M::BarrierReply => head(if v10 { Raw::BarrierReply10 } else { Raw::BarrierReply11 }),
        M::RoleRequest(r) | M::RoleReply(r) => {
            let reply = matches!(message, M::RoleReply(_));
            if v < Version::V12 {
                head(if reply { Raw::NxRoleReply } else { Raw::NxRoleRequest });
                b.u32(match r.role {
                    Role::NoChange | Role::Equal => 0,
                    Role::Primary => 1,
                    Role::Secondary => 2,
                });
            } else {
                head(if reply { Raw::RoleReply } else { Raw::RoleRequest });
                b.u32(r.role as u32);
                b.u32(0);
                b.u64(r.generation_id.unwrap_or(if reply { u64::MAX } else { 0 }));
            }
        }
        M::RoleStatus(r) => {
            head(if v < Version::V14 { Raw::OnfRoleStatus } else { Raw::RoleStatus });
            b.u32(r.role as u32);
            b.u8(r.reason);
            b.zeros(3);
            b.u64(r.generation_id);
        }
        M::GetAsyncRequest => head(Raw::GetAsyncRequest),
        M::GetAsyncReply(a) => {
            if v >= Version::V14 {
                head(Raw::GetAsyncReply14);
                async14(b, a);
            } else {
                head(Raw::GetAsyncReply13);
                async13(b, a);
            }
        }
        M::SetAsync(a) => {
            match v {
                Version::V14 | Version::V15 => head(Raw::SetAsync14),
                Version::V13 => head(Raw::SetAsync13),
                _ => head(Raw::NxSetAsync),
            }
            if v >= Version::V14 {
                async14(b, a);
            } else {
                async13(b, a);
            }
        }
        M::QueueGetConfigRequest(q) => {
            match v {
                Version::V10 => {
                    head(Raw::QueueGetConfigRequest10);
                    b.u16(q.port.0);
                    b.zeros(2);
                }
                Version::V11 | Version::V12 | Version::V13 => {
                    head(Raw::QueueGetConfigRequest11);
                    b.u32(port_to_wire32(q.port));
                    b.zeros(4);
                }
                _ => {
                    head(Raw::QueueDescRequest);
                    b.u32(port_to_wire32(q.port));
                    b.u32(q.queue);
                }
            };
        }
        M::QueueGetConfigReply(q) => queue_config(b, q, v, xid),
        M::SetFlowFormat(f) => {
            head(Raw::NxSetFlowFormat);
            b.u32(*f as u32);
        }
        M::FlowModTableId(on) => {
            head(Raw::NxFlowModTableId);
            b.u8((*on).into());
            b.zeros(7);
        }
        M::SetPacketInFormat(f) => {
            head(Raw::NxSetPacketInFormat);
            b.u32(match f {
                PacketInFormat::Standard => 0,
                PacketInFormat::Nxt => 1,
                PacketInFormat::Nxt2 => 2,
            });
        }
        M::SetControllerId(id) => {
            head(Raw::NxSetControllerId);
            b.zeros(6);
            b.u16(*id);
        }
        M::FlowAge => head(Raw::NxFlowAge),
        M::FlowMonitorCancel(id) => {
            if v >= Version::V14 {
                head(Raw::FlowMonitorRequest14);
                b.u32(*id);
                b.zeros(11);
                b.u8(2);
                mw::put_ofp11_match(b, &ib_flow::Match::default(), v);
            } else {
                head(match v {
                    Version::V13 => Raw::OnfFlowMonitorCancel,
                    _ => Raw::NxFlowMonitorCancel,
                });
                b.u32(*id);
            }
        }
        M::FlowMonitorPaused | M::FlowMonitorResumed => {
            let paused = matches!(message, M::FlowMonitorPaused);
            if v >= Version::V14 {
                head(Raw::FlowMonitorReply14);
                b.u16(8);
                b.u16(if paused { 5 } else { 6 });
                b.zeros(4);
            } else {
                head(match (paused, v == Version::V13) {
                    (true, false) => Raw::NxFlowMonitorPaused,
                    (false, false) => Raw::NxFlowMonitorResumed,
                    (true, true) => Raw::OnfFlowMonitorPaused,
                    (false, true) => Raw::OnfFlowMonitorResumed,
                });
            }
        }
        M::BundleControl(c) => {
            head(if v >= Version::V14 { Raw::BundleControl14 } else { Raw::OnfBundleControl });
            b.u32(c.bundle_id);
            b.u16(c.kind as u16);
            b.u16(c.flags);
        }
        M::BundleAdd(a) => {
            head(if v >= Version::V14 { Raw::BundleAdd14 } else { Raw::OnfBundleAdd });
            b.u32(a.bundle_id);
            b.u16(0);
            b.u16(a.flags);
            let inner = b.len();
            b.bytes(&a.raw);
            if let Some(x) = b.0.get_mut(inner + 4..inner + 8) {
                x.copy_from_slice(&xid.to_be_bytes());
            }
        }
        M::TlvTableMod(t) => {
            head(Raw::NxTlvTableMod);
            b.u16(t.command);
            b.zeros(6);
            tlv_maps(b, &t.maps);
        }
        M::TlvTableRequest => head(Raw::NxTlvTableRequest),
        M::TlvTableReply(t) => {
            head(Raw::NxTlvTableReply);
            b.u32(t.max_space);
            b.u16(t.max_fields);
            b.zeros(10);
            tlv_maps(b, &t.maps);
        }
        M::CtFlushZone(zone) => {
            head(Raw::NxCtFlushZone);
            b.zeros(6);
            b.u16(*zone);
        }
        M::CtFlush(f) => {
            head(Raw::NxCtFlush);
            ct_flush(b, f);
        }
        M::TableStatus(t) => {
            head(Raw::TableStatus);
            b.u8(t.reason);
            b.zeros(7);
            stats_encode::table_desc(b, &t.desc);
        }
        M::RequestForward(r) => {
            head(if v >= Version::V14 { Raw::RequestForward } else { Raw::OnfRequestForward });
            let inner = match &**r {
                RequestForward::Group(g) => M::GroupMod(g.clone()),
                RequestForward::Meter(m) => M::MeterMod(m.clone()),
            };
            put(b, &inner, v, xid, options);
        }
        M::MultipartRequest(r) => stats_encode::request(b, r, v, xid, options),
        M::MultipartReply(r) => stats_encode::reply(b, r, v, xid, options),
    }
    finish(b, start);
}

fn error(b: &mut Buf, e: &ErrorMessage, v: Version) {
    let code = e.error.code(v).or_else(|| {
        vlog_err_rl!(OFP_ERRORS, (5, 5), "cannot encode {} for OpenFlow {}", e.error.name(), v.number());
        OfError::NXBRC_UNENCODABLE_ERROR.code(v)
    });
    let (vendor, kind, code) = code.unwrap_or((0, 1, 5));
    if vendor == 0 {
        b.u16(kind);
        b.u16(code);
    } else if vendor == NX && v < Version::V12 {
        b.u16(0xb0c2);
        b.u16(0);
        b.u32(vendor);
        b.u16(kind);
        b.u16(code);
    } else {
        b.u16(0xffff);
        b.u16(kind);
        b.u32(vendor);
    }
    b.bytes(&e.data);
}

/// `curr` and its like in OpenFlow 1.0's bits.
fn features_to10(v: u32) -> u32 {
    (v & 0x7f) | (v & 0xf800) >> 4
}

/// Appends a port's description.
pub(crate) fn port(b: &mut Buf, p: &Port, v: Version) {
    let start = b.len();
    let config11 = p.config
        & (PortConfig::PORT_DOWN | PortConfig::NO_RECV | PortConfig::NO_FWD | PortConfig::NO_PACKET_IN);
    match v {
        Version::V10 => {
            b.u16(p.port_no.0);
            b.bytes(&p.hw_addr.0);
            b.string(&p.name, 16);
            b.u32(p.config & 0x7f);
            b.u32(p.state & 0x301);
            for f in [p.curr, p.advertised, p.supported, p.peer] {
                b.u32(features_to10(f));
            }
        }
        Version::V11 | Version::V12 | Version::V13 => {
            b.u32(port_to_wire32(p.port_no));
            b.u32(0);
            b.bytes(&p.hw_addr.0);
            b.u16(0);
            b.string(&p.name, 16);
            b.u32(config11);
            b.u32(p.state & 7);
            for f in [p.curr, p.advertised, p.supported, p.peer, p.curr_speed_kbps, p.max_speed_kbps] {
                b.u32(f);
            }
        }
        _ => {
            b.u32(port_to_wire32(p.port_no));
            b.u16(0);
            b.u16(0);
            b.bytes(&p.hw_addr.0);
            b.u16(0);
            b.string(&p.name, 16);
            b.u32(config11);
            b.u32(p.state & 7);
            b.u16(0);
            b.u16(32);
            b.u32(0);
            for f in [p.curr, p.advertised, p.supported, p.peer, p.curr_speed_kbps, p.max_speed_kbps] {
                b.u32(f);
            }
            b.patch_len(start + 4, start);
        }
    }
}

fn features(b: &mut Buf, f: &SwitchFeatures, v: Version) {
    b.u64(f.datapath_id);
    b.u32(f.n_buffers);
    b.u8(f.n_tables);
    b.u8(if v >= Version::V13 { f.auxiliary_id } else { 0 });
    b.u16(0);
    let mut caps = f.capabilities & Capabilities::of_version(v);
    if v == Version::V10 && f.capabilities & Capabilities::STP != 0 {
        caps |= Capabilities::GROUP_STATS; // That bit says spanning tree there.
    }
    b.u32(caps);
    b.u32(if v == Version::V10 { f.actions } else { 0 });
    if v < Version::V13 {
        // As many as a message holds; who sees it full asks for the rest by itself.
        let each = if v == Version::V10 { 48 } else { 64 };
        let room = (usize::from(u16::MAX) - b.len()) / each;
        for p in f.ports.iter().take(room) {
            port(b, p, v);
        }
    }
}

fn config(b: &mut Buf, c: &SwitchConfig, v: Version) {
    let mut flags = match c.frag {
        FragHandling::Normal => 0,
        FragHandling::Drop => 1,
        FragHandling::Reassemble => 2,
        FragHandling::NxMatch => 3,
    };
    if v < Version::V13 && c.invalid_ttl_to_controller == Some(true) {
        flags |= 4;
    }
    b.u16(flags);
    b.u16(c.miss_send_len);
}

/// A reason in the numbers of a version, which before 1.4 calls what it does not know an action.
fn reason(r: PacketInReason, v: Version) -> u8 {
    match r {
        PacketInReason::ExplicitMiss | PacketInReason::ImplicitMiss => 0,
        PacketInReason::ActionSet | PacketInReason::Group | PacketInReason::PacketOut if v < Version::V14 => {
            1
        }
        r => r as u8,
    }
}

fn packet_in(b: &mut Buf, p: &PacketIn, v: Version, xid: u32) {
    match p.format {
        PacketInFormat::Nxt2 => {
            begin(b, Raw::NxPacketIn2, v, xid);
            packet_in2(b, p);
            return;
        }
        PacketInFormat::Nxt => {
            begin(b, Raw::NxPacketIn, v, xid);
            b.u32(p.buffer_id);
            b.u16(p.total_len as u16);
            b.u8(reason(p.reason, v));
            b.u8(p.table_id);
            b.u64(p.cookie);
            let at = b.len();
            b.zeros(8);
            let n = mw::put_nxm(b, &p.metadata, 0, 0);
            b.patch_u16(at, n);
            b.u16(0);
            b.bytes(&p.data);
            return;
        }
        PacketInFormat::Standard => {}
    }
    let in_port = p.metadata.flow.of_in_port();
    match v {
        Version::V10 => {
            begin(b, Raw::PacketIn10, v, xid);
            b.u32(p.buffer_id);
            b.u16(p.total_len as u16);
            b.u16(in_port.0);
            b.u8(reason(p.reason, v));
            b.u8(0);
        }
        Version::V11 => {
            begin(b, Raw::PacketIn11, v, xid);
            b.u32(p.buffer_id);
            b.u32(port_to_wire32(in_port));
            b.u32(port_to_wire32(in_port));
            b.u16(p.total_len as u16);
            b.u8(reason(p.reason, v));
            b.u8(p.table_id);
        }
        _ => {
            begin(b, if v == Version::V12 { Raw::PacketIn12 } else { Raw::PacketIn13 }, v, xid);
            b.u32(p.buffer_id);
            b.u16(p.total_len as u16);
            b.u8(reason(p.reason, v));
            b.u8(p.table_id);
            if v >= Version::V13 {
                b.u64(p.cookie);
            }
            mw::put_ofp11_match(b, &p.metadata, v);
            b.u16(0);
        }
    }
    b.bytes(&p.data);
}

/// A property: type, length, body, padding.
fn prop(b: &mut Buf, kind: u16, body: impl FnOnce(&mut Buf)) {
    let start = b.len();
    b.u16(kind);
    b.u16(0);
    body(b);
    b.patch_len(start + 2, start);
    b.pad8(start);
}

fn packet_in2(b: &mut Buf, p: &PacketIn) {
    prop(b, 0, |b| b.bytes(&p.data));
    if p.total_len as usize != p.data.len() {
        prop(b, 1, |b| b.u32(p.total_len));
    }
    if p.buffer_id != NO_BUFFER {
        prop(b, 2, |b| b.u32(p.buffer_id));
    }
    if p.table_id != 0xff {
        prop(b, 3, |b| b.u8(p.table_id));
    }
    if p.cookie != u64::MAX {
        prop(b, 4, |b| {
            b.u32(0);
            b.u64(p.cookie);
        });
    }
    // Always: readers take its absence for "no match".
    prop(b, 5, |b| b.u8(p.reason as u8));
    // Not padded within: the property's own padding follows.
    prop(b, 6, |b| ib_flow::wire::nxm::encode(&p.metadata, 1, None, &mut b.0));
    if !p.userdata.is_empty() {
        prop(b, 7, |b| b.bytes(&p.userdata));
    }
    b.bytes(&p.continuation);
}

fn flow_removed(b: &mut Buf, f: &FlowRemoved, v: Version, xid: u32, options: EncodeOptions) {
    if v == Version::V10 && options.nxm {
        begin(b, Raw::NxFlowRemoved, v, xid);
        b.u64(f.cookie);
        b.u16(f.priority);
        b.u8(f.reason.code() as u8);
        b.u8(f.table_id.wrapping_add(1));
        b.u32(f.duration_sec);
        b.u32(f.duration_nsec);
        b.u16(f.idle_timeout);
        let at = b.len();
        b.u16(0);
        b.u64(f.packet_count);
        b.u64(f.byte_count);
        let n = mw::put_nxm(b, &f.match_, 0, 0);
        b.patch_u16(at, n);
    } else if v == Version::V10 {
        begin(b, Raw::FlowRemoved10, v, xid);
        mw::put_ofp10_match(b, &f.match_);
        b.u64(f.cookie);
        b.u16(f.priority);
        b.u8(f.reason.code() as u8);
        b.u8(f.table_id.wrapping_add(1));
        b.u32(f.duration_sec);
        b.u32(f.duration_nsec);
        b.u16(f.idle_timeout);
        b.u16(0);
        b.u64(f.packet_count);
        b.u64(f.byte_count);
    } else if v == Version::V15 {
        begin(b, Raw::FlowRemoved15, v, xid);
        b.u8(f.table_id);
        b.u8(f.reason.code() as u8);
        b.u16(f.priority);
        b.u16(f.idle_timeout);
        b.u16(f.hard_timeout);
        b.u64(f.cookie);
        mw::put_ofp11_match(b, &f.match_, v);
        stats_encode::oxs(b, |b| {
            stats_encode::oxs_duration(b, f.duration_sec, f.duration_nsec);
            stats_encode::oxs_field(b, 4, &f.packet_count.to_be_bytes());
            stats_encode::oxs_field(b, 5, &f.byte_count.to_be_bytes());
        });
    } else {
        begin(b, Raw::FlowRemoved11, v, xid);
        b.u64(f.cookie);
        b.u16(f.priority);
        // Reasons that a version lacks are "deleted".
        let reason = match f.reason {
            FlowRemovedReason::MeterDelete | FlowRemovedReason::Eviction if v < Version::V14 => {
                FlowRemovedReason::Delete
            }
            r => r,
        };
        b.u8(reason.code() as u8);
        b.u8(f.table_id);
        b.u32(f.duration_sec);
        b.u32(f.duration_nsec);
        b.u16(f.idle_timeout);
        b.u16(f.hard_timeout);
        b.u64(f.packet_count);
        b.u64(f.byte_count);
        mw::put_ofp11_match(b, &f.match_, v);
    }
}

fn packet_out(b: &mut Buf, p: &PacketOut, v: Version) {
    b.u32(p.buffer_id);
    let in_port = p.metadata.flow.of_in_port();
    let at = match v {
        Version::V10 => {
            b.u16(in_port.0);
            b.u16(0);
            b.len() - 2
        }
        Version::V15 => {
            b.u16(0);
            b.u16(0);
            let at = b.len() - 4;
            mw::put_ofp11_match(b, &p.metadata, v);
            at
        }
        _ => {
            b.u32(port_to_wire32(in_port));
            b.u16(0);
            b.zeros(6);
            b.len() - 8
        }
    };
    let actions = b.len();
    encode_actions(b, &crate::action_encode::for_match(&p.actions, &ib_flow::Match::catch_all(), v), v);
    b.patch_len(at, actions);
    if p.buffer_id == NO_BUFFER {
        b.bytes(&p.data);
    }
}

/// Flow flags in a version's bits.
pub(crate) fn flow_flags(flags: u16, v: Version) -> u16 {
    let mut out = flags & 3;
    if v >= Version::V12 && flags & FlowModFlags::RESET_COUNTS != 0 {
        out |= 4;
    }
    if v >= Version::V13 {
        if flags & FlowModFlags::NO_PKT_COUNTS != 0 {
            out |= 8;
        }
        if flags & FlowModFlags::NO_BYT_COUNTS != 0 {
            out |= 16;
        }
    }
    out
}

fn flow_mod(b: &mut Buf, f: &FlowMod, v: Version, xid: u32, options: EncodeOptions) {
    if v == Version::V10 {
        let command = f.command as u16;
        let command = if options.table_id { command | u16::from(f.table_id) << 8 } else { command };
        let head = |b: &mut Buf| {
            b.u64(f.new_cookie);
            b.u16(command);
            b.u16(f.idle_timeout);
            b.u16(f.hard_timeout);
            b.u16(f.priority);
            b.u32(f.buffer_id);
            b.u16(f.out_port.0);
            b.u16(flow_flags(f.flags, v));
        };
        if options.nxm {
            begin(b, Raw::NxFlowMod, v, xid);
            head(b);
            let at = b.len();
            b.zeros(8);
            let n = mw::put_nxm(b, &f.match_, f.cookie, f.cookie_mask);
            b.patch_u16(at, n);
        } else {
            begin(b, Raw::FlowMod10, v, xid);
            mw::put_ofp10_match(b, &f.match_);
            head(b);
        }
        encode_actions(b, &f.actions, v);
        return;
    }
    begin(b, Raw::FlowMod11, v, xid);
    // One cookie serves as the new one of an addition and as the filter otherwise.
    let new =
        f.command == FlowModCommand::Add || (v == Version::V11 && f.modify_cookie && f.cookie_mask == 0);
    b.u64(if new { f.new_cookie } else { f.cookie & f.cookie_mask });
    b.u64(f.cookie_mask);
    b.u8(if f.table_id == 0xff { table_for(f) } else { f.table_id });
    b.u8(f.command as u8);
    b.u16(f.idle_timeout);
    b.u16(f.hard_timeout);
    b.u16(f.priority);
    b.u32(f.buffer_id);
    b.u32(port_to_wire32(f.out_port));
    b.u32(f.out_group);
    b.u16(flow_flags(f.flags, v));
    b.u16(if v >= Version::V14 { f.importance } else { 0 });
    mw::put_ofp11_match(b, &f.match_, v);
    encode_instructions(b, &crate::action_encode::for_match(&f.actions, &f.match_, v), v);
}

/// OpenFlow 1.1+ has no "the switch's choice" for additions: table 0 it is.
fn table_for(f: &FlowMod) -> u8 {
    match f.command {
        FlowModCommand::Delete | FlowModCommand::DeleteStrict => f.table_id,
        _ => 0,
    }
}

fn port_mod(b: &mut Buf, p: &PortMod, v: Version) {
    if v == Version::V10 {
        b.u16(p.port_no.0);
        b.bytes(&p.hw_addr.0);
        b.u32(p.config);
        b.u32(p.mask);
        b.u32(features_to10(p.advertise));
        b.u32(0);
        return;
    }
    b.u32(port_to_wire32(p.port_no));
    b.u32(0);
    b.bytes(&p.hw_addr.0);
    b.u16(0);
    b.u32(p.config);
    b.u32(p.mask);
    if v < Version::V14 {
        b.u32(p.advertise);
        b.u32(0);
    } else if p.advertise != 0 {
        b.u16(0);
        b.u16(8);
        b.u32(p.advertise);
    }
}

fn table_mod(b: &mut Buf, t: &TableMod, v: Version) {
    b.u8(t.table_id);
    b.zeros(3);
    let mut config = 0;
    if v < Version::V13 {
        config = stats_encode::miss_config(t.miss);
    }
    if v >= Version::V14 {
        if t.eviction == Some(true) {
            config |= 4;
        }
        if t.vacancy.is_some_and(|x| x.enabled) {
            config |= 8;
        }
    }
    b.u32(config);
    if v >= Version::V14 {
        if let Some(flags) = t.eviction_flags {
            b.u16(2);
            b.u16(8);
            b.u32(flags);
        }
        if let Some(x) = t.vacancy.filter(|x| x.enabled) {
            b.u16(3);
            b.u16(8);
            b.u8(x.down);
            b.u8(x.up);
            b.zeros(2);
        }
    }
}

fn async13(b: &mut Buf, a: &AsyncConfig) {
    for i in 0..3 {
        b.u32(a.primary[i]);
        b.u32(a.secondary[i]);
    }
}

fn async14(b: &mut Buf, a: &AsyncConfig) {
    for i in 0..6u16 {
        for (primary, masks) in [(false, &a.secondary), (true, &a.primary)] {
            let bit = if primary { i } else { i + 8 };
            if a.present >> bit & 1 != 0 {
                b.u16(2 * i + u16::from(primary));
                b.u16(8);
                b.u32(masks[usize::from(i)]);
            }
        }
    }
}

fn queue_config(b: &mut Buf, q: &QueueGetConfigReply, v: Version, xid: u32) {
    let v10 = v == Version::V10;
    if v >= Version::V14 {
        begin(b, Raw::QueueDescReply, v, xid);
        if q.more {
            let at = b.len() - 6;
            b.patch_u16(at, 1);
        }
        for x in &q.queues {
            let start = b.len();
            b.u32(port_to_wire32(x.port));
            b.u32(x.queue);
            b.zeros(8);
            for (kind, rate) in [(1, x.min_rate), (2, x.max_rate)] {
                if let Some(r) = rate {
                    b.u16(kind);
                    b.u16(8);
                    b.u16(r);
                    b.u16(0);
                }
            }
            b.patch_len(start + 8, start);
        }
        return;
    }
    if v10 {
        begin(b, Raw::QueueGetConfigReply10, v, xid);
        b.u16(q.port.0);
        b.zeros(6);
    } else {
        begin(b, Raw::QueueGetConfigReply11, v, xid);
        b.u32(port_to_wire32(q.port));
        b.zeros(4);
    }
    for x in &q.queues {
        let start = b.len();
        b.u32(x.queue);
        let len_at = if v < Version::V12 {
            b.zeros(4);
            start + 4
        } else {
            b.u32(port_to_wire32(x.port));
            b.zeros(8);
            start + 8
        };
        for (kind, rate) in [(1, x.min_rate), (2, x.max_rate)] {
            if let Some(r) = rate {
                b.u16(kind);
                b.u16(16);
                b.u32(0);
                b.u16(r);
                b.zeros(6);
            }
        }
        b.patch_len(len_at, start);
    }
}

fn tlv_maps(b: &mut Buf, maps: &[TlvMap]) {
    for m in maps {
        b.u16(m.class);
        b.u8(m.kind);
        b.u8(m.len);
        b.u16(m.index);
        b.u16(0);
    }
}

fn ct_flush(b: &mut Buf, f: &CtFlush) {
    b.u8(f.ip_proto);
    b.zeros(7);
    for (kind, t) in [(0, &f.orig), (1, &f.reply)] {
        let icmp = matches!(f.ip_proto, 1 | 58);
        if *t == CtTuple::default() && !icmp {
            continue;
        }
        prop(b, kind, |b| {
            b.u32(0);
            for (kind, a) in [(0, t.src), (1, t.dst)] {
                if let Some(a) = a {
                    prop(b, kind, |b| b.u128(a.into()));
                }
            }
            if icmp {
                prop(b, 4, |b| b.u32(u32::from(t.icmp.0.unwrap_or(0)) << 16));
                prop(b, 5, |b| b.u8(t.icmp.1.unwrap_or(0)));
                prop(b, 6, |b| b.u8(t.icmp.2.unwrap_or(0)));
            } else {
                for (kind, p) in [(2, t.src_port), (3, t.dst_port)] {
                    if let Some(p) = p.filter(|p| *p != 0) {
                        prop(b, kind, |b| b.u32(u32::from(p) << 16));
                    }
                }
            }
        });
    }
    // 16 bits, padded to 32.
    if let Some(zone) = f.zone {
        prop(b, 2, |b| b.u32(u32::from(zone) << 16));
    }
    if let Some((mark, mask)) = f.mark {
        prop(b, 3, |b| b.u32(mark));
        if mask != u32::MAX {
            prop(b, 4, |b| b.u32(mask));
        }
    }
    if let Some((label, mask)) = f.labels {
        prop(b, 5, |b| {
            b.u32(0);
            b.u128(label);
        });
        if mask != u128::MAX {
            prop(b, 6, |b| {
                b.u32(0);
                b.u128(mask);
            });
        }
    }
}

/// Splits a multipart reply into messages of at most about 64 kB each, the last without "more".
pub fn encode_reply(body: MultipartBody, version: Version, xid: u32, options: EncodeOptions) -> Vec<Vec<u8>> {
    const LIMIT: usize = 0xffff;
    fn split(
        body: MultipartBody,
        version: Version,
        xid: u32,
        options: EncodeOptions,
        out: &mut Vec<Vec<u8>>,
    ) {
        let reply = Message::MultipartReply(MultipartReply { more: false, body });
        let bytes = encode_with(&reply, version, xid, options);
        let Message::MultipartReply(MultipartReply { body, .. }) = reply else { return };
        if bytes.len() <= LIMIT {
            out.push(bytes);
            return;
        }
        // One entry alone that exceeds 64 kB cannot be sent.
        if let Ok((a, b)) = body.halves() {
            split(a, version, xid, options, out);
            split(b, version, xid, options, out);
        }
    }
    let mut out = Vec::new();
    split(body, version, xid, options, &mut out);
    let last = out.len().saturating_sub(1);
    for m in &mut out[..last] {
        // Flags follow the statistics type.
        m[10..12].copy_from_slice(&1u16.to_be_bytes());
    }
    out
}

impl MultipartBody {
    /// A list's two halves; `Err` if there is no list or it has one entry.
    fn halves(self) -> Result<(MultipartBody, MultipartBody), MultipartBody> {
        macro_rules! split {
            ($($kind:ident),*) => {
                match self {
                    $(MultipartBody::$kind(mut list) if list.len() > 1 => {
                        let tail = list.split_off(list.len() / 2);
                        Ok((MultipartBody::$kind(list), MultipartBody::$kind(tail)))
                    })*
                    other => Err(other),
                }
            };
        }
        split!(
            Flow,
            Table,
            Port,
            Queue,
            Group,
            GroupDesc,
            Meter,
            MeterConfig,
            TableFeatures,
            PortDesc,
            TableDesc,
            FlowMonitor
        )
    }
}

/// A port as packet_out and others write it where 1.0 says "all" for "any".
pub(crate) fn any_as_all(port: OfPort) -> OfPort {
    if port == OfPort::NONE { OfPort::ALL } else { port }
}
