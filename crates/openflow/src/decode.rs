//! Messages from bytes.
//!
//! [`decode`] takes one whole message (see [`crate::raw::next_message`]). What it returns is valid by itself; whether it
//! suits a switch (ports, tables, prerequisites of actions) is for the switch, with [`crate::action_check`].
//! A failure is the error to send back.

use ib_base::vlog::module::{OFP_CONNECTION, OFP_MATCH, OFP_MSGS, OFP_TABLE};
use ib_base::{vlog_dbg_rl, vlog_warn_rl};
use ib_flow::{Match, OfPort};
use ib_packet::Mac;

use crate::action_check::{CheckParams, check_for};
use crate::action_decode::{decode_actions, decode_instructions, property};
use crate::error::OfError;
use crate::flow_text::protocols_of;
use crate::group_wire;
use crate::match_wire as mw;
use crate::message::*;
use crate::ports::port_from_wire32;
use crate::raw::{Identified, Raw, identify, parse_header};
use crate::stats_decode;
use crate::wire::Cursor;

pub(crate) const LEN: OfError = OfError::OFPBRC_BAD_LEN;

/// A message with its header.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Header.
    pub header: Header,
    /// Name of its kind, as in `OFPT_FLOW_MOD`.
    pub name: &'static str,
    /// Contents.
    pub message: Message,
}

/// Decodes one whole message. Fields of `tun_metadata*` have no table; see [`decode_with`].
pub fn decode(bytes: &[u8]) -> Result<Decoded, OfError> {
    decode_with(bytes, 0)
}

/// Decodes one whole message, matches with the tunnel options bound by the table of that id (`ib_flow::tlv`).
pub fn decode_with(bytes: &[u8], tlv_table: u32) -> Result<Decoded, OfError> {
    let (decoded, faults) = decode_partly(bytes, tlv_table)?;
    match faults.broken.or(faults.refused) {
        None => Ok(decoded),
        Some(e) => Err(e),
    }
}

/// What is wrong with a message that can be printed all the same.
#[derive(Default)]
pub(crate) struct Faults {
    /// An entry of a list is malformed: those in front of it are there.
    pub broken: Option<OfError>,
    /// Well-formed, but no switch does it.
    pub refused: Option<OfError>,
}

impl Faults {
    pub(crate) fn refuse(&mut self, e: OfError) {
        self.refused.get_or_insert(e);
    }
}

/// Decodes one whole message as far as a printer can use it.
pub(crate) fn decode_partly(bytes: &[u8], tlv_table: u32) -> Result<(Decoded, Faults), OfError> {
    let header = parse_header(bytes).ok_or(LEN)?;
    if usize::from(header.length) != bytes.len() {
        return Err(LEN);
    }
    let id = identify(bytes)?;
    let mut faults = Faults::default();
    let message = body(&id, bytes, tlv_table, &mut faults);
    if let Some(e) = message.as_ref().err().or(faults.broken.as_ref()) {
        vlog_dbg_rl!(OFP_MSGS, (1, 5), "cannot decode {}: {}", id.kind.name, e);
    }
    Ok((Decoded { header, name: id.kind.name, message: message? }, faults))
}

fn body(id: &Identified<'_>, bytes: &[u8], tlv: u32, faults: &mut Faults) -> Result<Message, OfError> {
    use Message as M;
    let v = id.version;
    let mut c = Cursor::new(id.body, LEN);
    Ok(match id.kind.raw {
        Raw::Hello => M::Hello(hello(bytes)),
        Raw::Error => error(&mut c, v)?,
        Raw::EchoRequest => M::EchoRequest(id.body.to_vec()),
        Raw::EchoReply => M::EchoReply(id.body.to_vec()),
        Raw::FeaturesRequest => M::FeaturesRequest,
        Raw::FeaturesReply10 | Raw::FeaturesReply11 | Raw::FeaturesReply13 => {
            M::FeaturesReply(features(&mut c, v, &mut faults.broken)?)
        }
        Raw::GetConfigRequest => M::GetConfigRequest,
        Raw::GetConfigReply => M::GetConfigReply(config(&mut c, v, false)?),
        Raw::SetConfig => M::SetConfig(config(&mut c, v, true)?),
        Raw::PacketIn10 | Raw::PacketIn11 | Raw::PacketIn12 | Raw::PacketIn13 => {
            M::PacketIn(Box::new(packet_in(&mut c, v, tlv)?))
        }
        Raw::NxPacketIn => M::PacketIn(Box::new(nx_packet_in(&mut c, tlv)?)),
        Raw::NxPacketIn2 => M::PacketIn(Box::new(packet_in2(&mut c, tlv, faults)?)),
        Raw::NxResume => M::Resume(Box::new(packet_in2(&mut c, tlv, faults)?)),
        Raw::FlowRemoved10 | Raw::FlowRemoved11 => M::FlowRemoved(Box::new(flow_removed(&mut c, v, tlv)?)),
        Raw::FlowRemoved15 => M::FlowRemoved(Box::new(flow_removed15(&mut c, tlv)?)),
        Raw::NxFlowRemoved => M::FlowRemoved(Box::new(nx_flow_removed(&mut c, tlv)?)),
        Raw::PortStatus10 | Raw::PortStatus11 | Raw::PortStatus14 => M::PortStatus(port_status(&mut c, v)?),
        Raw::PacketOut10 | Raw::PacketOut11 | Raw::PacketOut15 => {
            M::PacketOut(Box::new(packet_out(&mut c, v, tlv)?))
        }
        Raw::FlowMod10 => M::FlowMod(Box::new(flow_mod10(&mut c)?)),
        Raw::FlowMod11 => M::FlowMod(Box::new(flow_mod11(&mut c, v, tlv)?)),
        Raw::NxFlowMod => M::FlowMod(Box::new(nx_flow_mod(&mut c, v, tlv)?)),
        Raw::GroupMod11 | Raw::GroupMod15 | Raw::NxGroupMod => M::GroupMod(group_wire::decode_mod(
            &mut c,
            v,
            id.kind.raw != Raw::GroupMod11,
            &mut faults.refused,
        )?),
        Raw::PortMod10 | Raw::PortMod11 | Raw::PortMod14 => M::PortMod(port_mod(&mut c, v)?),
        Raw::TableMod11 | Raw::TableMod14 => M::TableMod(table_mod(&mut c, v)?),
        Raw::MeterMod => M::MeterMod(group_wire::decode_meter_mod(&mut c, &mut faults.refused)?),
        Raw::BarrierRequest10 | Raw::BarrierRequest11 => M::BarrierRequest,
        Raw::BarrierReply10 | Raw::BarrierReply11 => M::BarrierReply,
        Raw::RoleRequest => M::RoleRequest(role(&mut c)?),
        Raw::RoleReply => M::RoleReply(role(&mut c)?),
        Raw::NxRoleRequest => M::RoleRequest(nx_role(&mut c)?),
        Raw::NxRoleReply => M::RoleReply(nx_role(&mut c)?),
        Raw::RoleStatus | Raw::OnfRoleStatus => M::RoleStatus(role_status(&mut c)?),
        Raw::GetAsyncRequest => M::GetAsyncRequest,
        Raw::GetAsyncReply13 => M::GetAsyncReply(async13(&mut c)?),
        Raw::SetAsync13 | Raw::NxSetAsync => M::SetAsync(async13(&mut c)?),
        Raw::GetAsyncReply14 => M::GetAsyncReply(async14(&mut c, None)?),
        Raw::SetAsync14 | Raw::NxSetAsync2 => M::SetAsync(async14(&mut c, Some(v))?),
        Raw::QueueGetConfigRequest10 => M::QueueGetConfigRequest(QueueGetConfigRequest {
            port: queue_port(OfPort(c.u16()?), v)?,
            queue: OFPQ_ALL,
        }),
        Raw::QueueGetConfigRequest11 => M::QueueGetConfigRequest(QueueGetConfigRequest {
            port: queue_port(port_from_wire32(c.u32()?)?, v)?,
            queue: OFPQ_ALL,
        }),
        Raw::QueueDescRequest => M::QueueGetConfigRequest(QueueGetConfigRequest {
            port: port_from_wire32(c.u32()?)?,
            queue: c.u32()?,
        }),
        Raw::QueueGetConfigReply10 | Raw::QueueGetConfigReply11 => {
            M::QueueGetConfigReply(queue_config(&mut c, v, &mut faults.broken)?)
        }
        Raw::QueueDescReply => {
            M::QueueGetConfigReply(stats_decode::queue_desc(&mut c, id.flags & 1 != 0, &mut faults.broken))
        }
        Raw::NxSetFlowFormat => M::SetFlowFormat(match c.u32()? {
            0 => FlowFormat::OpenFlow10,
            2 => FlowFormat::Nxm,
            _ => return Err(OfError::OFPBRC_EPERM),
        }),
        Raw::NxFlowModTableId => {
            let set = c.u8()?;
            c.zeros(7, OfError::NXBRC_MUST_BE_ZERO).or(Ok(()))?;
            M::FlowModTableId(set != 0)
        }
        Raw::NxSetPacketInFormat => M::SetPacketInFormat(match c.u32()? {
            0 => PacketInFormat::Standard,
            1 => PacketInFormat::Nxt,
            2 => PacketInFormat::Nxt2,
            _ => return Err(OfError::OFPBRC_EPERM),
        }),
        Raw::NxFlowAge => M::FlowAge,
        Raw::NxSetControllerId => {
            c.zeros(6, OfError::NXBRC_MUST_BE_ZERO)?;
            M::SetControllerId(c.u16()?)
        }
        Raw::NxFlowMonitorCancel | Raw::OnfFlowMonitorCancel => M::FlowMonitorCancel(c.u32()?),
        Raw::NxFlowMonitorPaused | Raw::OnfFlowMonitorPaused => M::FlowMonitorPaused,
        Raw::NxFlowMonitorResumed | Raw::OnfFlowMonitorResumed => M::FlowMonitorResumed,
        Raw::BundleControl14 | Raw::OnfBundleControl => M::BundleControl(bundle_control(&mut c, faults)?),
        Raw::BundleAdd14 | Raw::OnfBundleAdd => M::BundleAdd(bundle_add(&mut c, bytes)?),
        Raw::NxTlvTableMod => {
            let command = c.u16()?;
            c.skip(6)?;
            if command > 2 {
                return Err(OfError::NXTTMFC_BAD_COMMAND);
            }
            M::TlvTableMod(TlvTableMod { command, maps: tlv_maps(&mut c)? })
        }
        Raw::NxTlvTableRequest => M::TlvTableRequest,
        Raw::NxTlvTableReply => {
            let (max_space, max_fields) = (c.u32()?, c.u16()?);
            c.skip(10)?;
            M::TlvTableReply(TlvTableReply { max_space, max_fields, maps: tlv_maps(&mut c)? })
        }
        Raw::NxCtFlushZone => {
            c.skip(6)?;
            M::CtFlushZone(c.u16()?)
        }
        Raw::NxCtFlush => M::CtFlush(ct_flush(&mut c)?),
        Raw::TableStatus => {
            let reason = c.u8()?;
            c.skip(7)?;
            if !matches!(reason, 3 | 4) {
                return Err(OfError::OFPBPC_BAD_VALUE);
            }
            M::TableStatus(TableStatus { reason, desc: stats_decode::table_desc(&mut c)? })
        }
        Raw::RequestForward | Raw::OnfRequestForward => {
            let inner = parse_header(c.rest()).ok_or(OfError::OFPBFC_MSG_BAD_LEN)?;
            let len = usize::from(inner.length);
            if len < 8 || len > c.len() {
                return Err(OfError::OFPBFC_MSG_BAD_LEN);
            }
            if inner.version != bytes[0] {
                return Err(OfError::OFPBRC_BAD_VERSION);
            }
            let inner = decode_with(c.take(len)?, tlv)?;
            M::RequestForward(Box::new(match inner.message {
                M::GroupMod(g) => RequestForward::Group(g),
                M::MeterMod(m) => RequestForward::Meter(m),
                _ => return Err(OfError::OFPBFC_MSG_UNSUP),
            }))
        }
        raw => match stats_decode::request(raw, &mut c, v, tlv, faults)? {
            Some(mut r) => {
                if let MultipartRequest::TableFeatures { more, .. } = &mut r {
                    *more = id.flags & 1 != 0;
                }
                M::MultipartRequest(r)
            }
            None => {
                let body = stats_decode::reply(raw, &mut c, v, tlv, &mut faults.broken)?;
                M::MultipartReply(MultipartReply { more: id.flags & 1 != 0, body })
            }
        },
    })
}

/// The sender's versions: the bitmap if there is one, else all up to the header's.
/// Whether a hello says what this program cannot read.
pub(crate) fn is_odd_hello(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or(&[]);
    while !rest.is_empty() {
        let (Some([0, 1]), Some(len)) = (rest.get(..2), rest.get(2..4)) else { return true };
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let Some(bitmap) = rest.get(4..len.max(4)) else { return true };
        if bitmap.len() < 4 || bitmap[..4] == [0; 4] {
            return true;
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    false
}

fn hello(bytes: &[u8]) -> Versions {
    let version = u32::from(bytes[0]);
    let by_header = Versions(if version >= 31 { !1 } else { ((1u64 << (version + 1)) - 2) as u32 });
    let mut c = Cursor::new(&bytes[8..], LEN);
    loop {
        let mut head = Cursor::new(c.rest(), LEN);
        let (Ok(kind), Ok(len)) = (head.u16(), head.u16()) else { return by_header };
        let len = usize::from(len);
        if len < 4 || len > c.len() {
            return by_header;
        }
        let Ok(element) = c.take(len) else { return by_header };
        let _ = c.skip((len.next_multiple_of(8) - len).min(c.len()));
        if kind == 1 && len >= 8 {
            let bitmap = u32::from_be_bytes([element[4], element[5], element[6], element[7]]) & !1;
            if bitmap != 0 {
                return Versions(bitmap);
            }
        }
    }
}

/// A port whose queues may be asked for: one that packets leave by, from OpenFlow 1.1 on also any.
fn queue_port(port: OfPort, v: Version) -> Result<OfPort, OfError> {
    let any = port == OfPort::NONE && v != Version::V10;
    if port < OfPort::MAX || any { Ok(port) } else { Err(OfError::OFPQOFC_BAD_PORT) }
}

fn error(c: &mut Cursor<'_>, v: Version) -> Result<Message, OfError> {
    let (mut kind, mut code) = (c.u16()?, c.u16()?);
    let mut vendor = 0;
    if kind == 0xb0c2 && code == 0 {
        // NXET_VENDOR: vendor, type and code follow.
        vendor = c.u32()?;
        kind = c.u16()?;
        code = c.u16()?;
    } else if kind == 0xffff && v >= Version::V12 {
        kind = code;
        code = 0;
        vendor = c.u32()?;
    }
    let error = OfError::from_code(v, vendor, kind, code).ok_or(LEN)?;
    Ok(Message::Error(ErrorMessage { error, data: c.take_rest().to_vec() }))
}

/// `curr` and its like from OpenFlow 1.0's bits: same up to 10 Gb full duplex, then shifted.
fn features_from10(v: u32) -> u32 {
    (v & 0x7f) | (v & 0xf80) << 4
}

/// `config` from OpenFlow 1.1+'s bits, which are 1.0's without those of spanning tree.
fn config_from11(v: u32) -> u32 {
    v & (PortConfig::PORT_DOWN | PortConfig::NO_RECV | PortConfig::NO_FWD | PortConfig::NO_PACKET_IN)
}

fn port10(c: &mut Cursor<'_>) -> Result<Port, OfError> {
    let port_no = OfPort(c.u16()?);
    let hw_addr = c.mac()?;
    let name = c.string(16)?;
    let (config, state) = (c.u32()? & 0x7f, c.u32()? & 0x301);
    Ok(speeds(Port {
        port_no,
        hw_addr,
        name,
        config,
        state,
        curr: features_from10(c.u32()?),
        advertised: features_from10(c.u32()?),
        supported: features_from10(c.u32()?),
        peer: features_from10(c.u32()?),
        ..speeds(Port::default())
    }))
}

/// Derives speeds from features where the version does not carry them.
fn speeds(mut p: Port) -> Port {
    p.curr_speed_kbps = netdev_features_to_kbps(p.curr);
    p.max_speed_kbps = netdev_features_to_kbps(p.supported);
    p
}

/// The highest speed among features, in kb/s.
pub fn netdev_features_to_kbps(f: u32) -> u32 {
    use NetdevFeatures as N;
    let mbps: u32 = match f {
        _ if f & N::F_1TB_FD != 0 => 1_000_000,
        _ if f & N::F_100GB_FD != 0 => 100_000,
        _ if f & N::F_40GB_FD != 0 => 40_000,
        _ if f & N::F_10GB_FD != 0 => 10_000,
        _ if f & (N::F_1GB_HD | N::F_1GB_FD) != 0 => 1_000,
        _ if f & (N::F_100MB_HD | N::F_100MB_FD) != 0 => 100,
        _ if f & (N::F_10MB_HD | N::F_10MB_FD) != 0 => 10,
        _ => 0,
    };
    mbps * 1000
}

fn port11(c: &mut Cursor<'_>) -> Result<Port, OfError> {
    let port_no = port_from_wire32(c.u32()?)?;
    c.skip(4)?;
    let hw_addr = c.mac()?;
    c.skip(2)?;
    let name = c.string(16)?;
    Ok(Port {
        port_no,
        hw_addr,
        hw_addr64: [0; 8],
        name,
        config: config_from11(c.u32()?),
        state: c.u32()? & 7,
        curr: c.u32()? & 0xffff,
        advertised: c.u32()? & 0xffff,
        supported: c.u32()? & 0xffff,
        peer: c.u32()? & 0xffff,
        curr_speed_kbps: c.u32()?,
        max_speed_kbps: c.u32()?,
    })
}

fn port14(c: &mut Cursor<'_>) -> Result<Port, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let port_no = head.u32()?;
    let len = usize::from(head.u16()?);
    if len < 40 || len > c.len() {
        return Err(LEN);
    }
    let port_no = port_from_wire32(port_no)?;
    let mut p = Cursor::new(&c.take(len)?[8..], LEN);
    let hw_addr = p.mac()?;
    p.skip(2)?;
    let name = p.string(16)?;
    let mut out = Port {
        port_no,
        hw_addr,
        name,
        config: config_from11(p.u32()?),
        state: p.u32()? & 7,
        ..Default::default()
    };
    while !p.is_empty() {
        let (kind, body) = property(&mut p, OfError::OFPBPC_BAD_LEN)?;
        if kind == 0 {
            let mut e = Cursor::new(body, OfError::OFPBPC_BAD_LEN);
            e.skip(4)?;
            out.curr = e.u32()? & 0xffff;
            out.advertised = e.u32()? & 0xffff;
            out.supported = e.u32()? & 0xffff;
            out.peer = e.u32()? & 0xffff;
            out.curr_speed_kbps = e.u32()?;
            out.max_speed_kbps = e.u32()?;
        }
    }
    Ok(out)
}

/// A port's description.
pub(crate) fn port(c: &mut Cursor<'_>, v: Version) -> Result<Port, OfError> {
    match v {
        Version::V10 => port10(c),
        Version::V11 | Version::V12 | Version::V13 => port11(c),
        _ => port14(c),
    }
}

fn features(c: &mut Cursor<'_>, v: Version, broken: &mut Option<OfError>) -> Result<SwitchFeatures, OfError> {
    let (datapath_id, n_buffers, n_tables, auxiliary_id) = (c.u64()?, c.u32()?, c.u8()?, c.u8()?);
    c.skip(2)?;
    let (wire, actions) = (c.u32()?, c.u32()?);
    let mut capabilities = wire & Capabilities::of_version(v);
    if v == Version::V10 && wire & Capabilities::GROUP_STATS != 0 {
        // That bit says spanning tree there.
        capabilities |= Capabilities::STP;
    }
    let out = SwitchFeatures {
        datapath_id,
        n_buffers,
        n_tables,
        auxiliary_id: if v >= Version::V13 { auxiliary_id } else { 0 },
        capabilities,
        actions: if v == Version::V10 { actions } else { 0 },
        ports: Vec::new(),
    };
    if v >= Version::V13 {
        return Ok(out);
    }
    Ok(SwitchFeatures { ports: stats_decode::entries(c, broken, |c| port(c, v)), ..out })
}

fn config(c: &mut Cursor<'_>, v: Version, strict: bool) -> Result<SwitchConfig, OfError> {
    let (flags, miss_send_len) = (c.u16()?, c.u16()?);
    let frag = match flags & 3 {
        0 => FragHandling::Normal,
        1 => FragHandling::Drop,
        2 => FragHandling::Reassemble,
        _ => FragHandling::NxMatch,
    };
    let ttl = v < Version::V13;
    let known = if ttl { 7 } else { 3 };
    if strict && flags & !known != 0 {
        return Err(OfError::OFPSCFC_BAD_FLAGS);
    }
    Ok(SwitchConfig { frag, invalid_ttl_to_controller: ttl.then_some(flags & 4 != 0), miss_send_len })
}

pub(crate) fn reason_from_wire(r: u8) -> Result<PacketInReason, OfError> {
    Ok(match r {
        0 => PacketInReason::NoMatch,
        1 => PacketInReason::Action,
        2 => PacketInReason::InvalidTtl,
        3 => PacketInReason::ActionSet,
        4 => PacketInReason::Group,
        5 => PacketInReason::PacketOut,
        6 => PacketInReason::ExplicitMiss,
        7 => PacketInReason::ImplicitMiss,
        _ => return Err(OfError::NXBRC_BAD_REASON),
    })
}

fn with_in_port(port: OfPort) -> Match {
    let mut m = Match::catch_all();
    m.flow.in_port = port.0.into();
    m.mask.0.in_port = u32::MAX;
    m
}

fn packet_in(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<PacketIn, OfError> {
    let mut p = PacketIn { buffer_id: c.u32()?, ..Default::default() };
    match v {
        Version::V10 => {
            p.total_len = c.u16()?.into();
            p.metadata = with_in_port(OfPort(c.u16()?));
            p.reason = reason_from_wire(c.u8()?)?;
            c.skip(1)?;
        }
        Version::V11 => {
            let in_port = port_from_wire32(c.u32()?)?;
            c.skip(4)?;
            p.metadata = with_in_port(in_port);
            p.total_len = c.u16()?.into();
            p.reason = reason_from_wire(c.u8()?)?;
            p.table_id = c.u8()?;
        }
        _ => {
            p.total_len = c.u16()?.into();
            p.reason = reason_from_wire(c.u8()?)?;
            p.table_id = c.u8()?;
            if v >= Version::V13 {
                p.cookie = c.u64()?;
            }
            p.metadata = mw::pull_oxm_match(c, tlv, false)?;
            c.skip(2)?;
        }
    }
    p.data = c.take_rest().to_vec();
    Ok(p)
}

fn nx_packet_in(c: &mut Cursor<'_>, tlv: u32) -> Result<PacketIn, OfError> {
    let mut p = PacketIn { buffer_id: c.u32()?, format: PacketInFormat::Nxt, ..Default::default() };
    p.total_len = c.u16()?.into();
    p.reason = reason_from_wire(c.u8()?)?;
    p.table_id = c.u8()?;
    p.cookie = c.u64()?;
    let match_len = usize::from(c.u16()?);
    c.skip(6)?;
    p.metadata = mw::pull_nxm(c, match_len, tlv, false)?.match_;
    c.skip(2)?;
    p.data = c.take_rest().to_vec();
    Ok(p)
}

fn packet_in2(c: &mut Cursor<'_>, tlv: u32, faults: &mut Faults) -> Result<PacketIn, OfError> {
    let bad = OfError::OFPBPC_BAD_LEN;
    let mut p = PacketIn {
        format: PacketInFormat::Nxt2,
        reason: PacketInReason::NoMatch,
        cookie: u64::MAX,
        ..Default::default()
    };
    let mut full_len = None;
    let (mut has_data, mut has_metadata) = (false, false);
    while !c.is_empty() {
        let whole = c.rest();
        let (kind, body) = property(c, bad)?;
        let mut b = Cursor::new(body, bad);
        match kind {
            0 => {
                p.data = body.to_vec();
                has_data = true;
            }
            1 => {
                full_len = Some(u32_property(body)?);
            }
            2 => p.buffer_id = u32_property(body)?,
            3 | 5 if body.len() != 1 => return Err(bad),
            3 => p.table_id = b.u8()?,
            4 => {
                b.skip(4)?;
                p.cookie = b.u64()?;
            }
            5 => p.reason = reason_from_wire(b.u8()?)?,
            6 => {
                // Padding in front of the fields is an empty header.
                let padded = body.len() % 8 == 4 && body.starts_with(&[0; 4]);
                let fields = if padded { &body[4..] } else { body };
                p.metadata = mw::pull_nxm(&mut Cursor::new(fields, bad), fields.len(), tlv, false)?.match_;
                has_metadata = true;
            }
            7 => p.userdata = body.to_vec(),
            8 => p.continuation.extend_from_slice(&whole[..(body.len() + 4).next_multiple_of(8)]),
            _ => faults.refuse(OfError::OFPBPC_BAD_TYPE),
        }
    }
    if !has_data || !has_metadata {
        return Err(OfError::OFPBPC_BAD_LEN);
    }
    p.total_len = full_len.unwrap_or(p.data.len() as u32);
    Ok(p)
}

fn removed_reason(r: u8) -> FlowRemovedReason {
    FlowRemovedReason::from_code(r.into())
}

fn flow_removed(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowRemoved, OfError> {
    if v == Version::V10 {
        let match_ = mw::pull_ofp10_match(c)?;
        let cookie = c.u64()?;
        let priority = c.u16()?;
        let reason = removed_reason(c.u8()?);
        let table = c.u8()?;
        let (duration_sec, duration_nsec, idle_timeout) = (c.u32()?, c.u32()?, c.u16()?);
        c.skip(2)?;
        return Ok(FlowRemoved {
            match_,
            cookie,
            priority,
            reason,
            table_id: table.wrapping_sub(1),
            duration_sec,
            duration_nsec,
            idle_timeout,
            hard_timeout: 0,
            packet_count: c.u64()?,
            byte_count: c.u64()?,
        });
    }
    let (cookie, priority, reason, table_id) = (c.u64()?, c.u16()?, removed_reason(c.u8()?), c.u8()?);
    let (duration_sec, duration_nsec) = (c.u32()?, c.u32()?);
    let (idle_timeout, hard_timeout) = (c.u16()?, c.u16()?);
    let (packet_count, byte_count) = (c.u64()?, c.u64()?);
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    Ok(FlowRemoved {
        match_,
        cookie,
        priority,
        reason,
        table_id,
        duration_sec,
        duration_nsec,
        idle_timeout,
        hard_timeout,
        packet_count,
        byte_count,
    })
}

fn flow_removed15(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowRemoved, OfError> {
    let (table_id, reason, priority) = (c.u8()?, removed_reason(c.u8()?), c.u16()?);
    let (idle_timeout, hard_timeout, cookie) = (c.u16()?, c.u16()?, c.u64()?);
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    let s = stats_decode::oxs(c)?;
    Ok(FlowRemoved {
        match_,
        cookie,
        priority,
        reason,
        table_id,
        duration_sec: s.duration.0,
        duration_nsec: s.duration.1,
        idle_timeout,
        hard_timeout,
        packet_count: s.packets,
        byte_count: s.bytes,
    })
}

fn nx_flow_removed(c: &mut Cursor<'_>, tlv: u32) -> Result<FlowRemoved, OfError> {
    let (cookie, priority, reason, table) = (c.u64()?, c.u16()?, removed_reason(c.u8()?), c.u8()?);
    let (duration_sec, duration_nsec, idle_timeout) = (c.u32()?, c.u32()?, c.u16()?);
    let match_len = usize::from(c.u16()?);
    let (packet_count, byte_count) = (c.u64()?, c.u64()?);
    let match_ = mw::pull_nxm(c, match_len, tlv, false)?.match_;
    Ok(FlowRemoved {
        match_,
        cookie,
        priority,
        reason,
        table_id: table.wrapping_sub(1),
        duration_sec,
        duration_nsec,
        idle_timeout,
        hard_timeout: 0,
        packet_count,
        byte_count,
    })
}

fn port_status(c: &mut Cursor<'_>, v: Version) -> Result<PortStatus, OfError> {
    let reason = match c.u8()? {
        0 => PortReason::Add,
        1 => PortReason::Delete,
        2 => PortReason::Modify,
        _ => return Err(OfError::NXBRC_BAD_REASON),
    };
    c.skip(7)?;
    Ok(PortStatus { reason, port: port(c, v)? })
}

/// Ports that a packet may be said to come from.
fn packet_out_port(port: OfPort) -> Result<OfPort, OfError> {
    let ok = port < OfPort::MAX || matches!(port, OfPort::LOCAL | OfPort::NONE | OfPort::CONTROLLER);
    if ok { Ok(port) } else { Err(OfError::OFPBRC_BAD_PORT) }
}

fn packet_out(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<PacketOut, OfError> {
    let buffer_id = c.u32()?;
    let (metadata, actions_len) = match v {
        Version::V10 => {
            let port = OfPort(c.u16()?);
            (with_in_port(port), usize::from(c.u16()?))
        }
        Version::V15 => {
            let n = usize::from(c.u16()?);
            c.skip(2)?;
            (mw::pull_oxm_match(c, tlv, false)?, n)
        }
        _ => {
            let port = port_from_wire32(c.u32()?)?;
            let n = usize::from(c.u16()?);
            c.skip(6)?;
            (with_in_port(port), n)
        }
    };
    if metadata.mask.0.in_port == 0 {
        return Err(OfError::OFPBRC_BAD_PORT);
    }
    if actions_len % 8 != 0 || actions_len > c.len() {
        return Err(OfError::OFPBRC_BAD_LEN);
    }
    let actions = decode_actions(c.take(actions_len)?, v)?;
    crate::action_check::verify(&actions, crate::action_parse::Outer::Actions).map_err(|(e, _)| e)?;
    packet_out_port(OfPort(metadata.flow.in_port as u16))?;
    let data = if buffer_id == NO_BUFFER { c.take_rest().to_vec() } else { Vec::new() };
    Ok(PacketOut { data, buffer_id, metadata, actions })
}

fn command(n: u16) -> Result<FlowModCommand, OfError> {
    Ok(match n {
        0 => FlowModCommand::Add,
        1 => FlowModCommand::Modify,
        2 => FlowModCommand::ModifyStrict,
        3 => FlowModCommand::Delete,
        4 => FlowModCommand::DeleteStrict,
        _ => return Err(OfError::OFPFMFC_BAD_COMMAND),
    })
}

fn is_delete(c: FlowModCommand) -> bool {
    matches!(c, FlowModCommand::Delete | FlowModCommand::DeleteStrict)
}

/// Checks flags against what a version knows.
fn flow_flags(flags: u16, v: Version) -> Result<u16, OfError> {
    let known = match v {
        Version::V10 | Version::V11 => 0x03,
        Version::V12 => 0x07,
        _ => 0x1f,
    };
    if v == Version::V10 && flags & 4 != 0 {
        // No code says that emergency flows are unsupported; "full" is what comes nearest.
        return Err(OfError::OFPFMFC_TABLE_FULL);
    }
    if flags & !known != 0 {
        return Err(OfError::OFPFMFC_BAD_FLAGS);
    }
    let mut out = flags & 3;
    for (wire, bit) in
        [(4, FlowModFlags::RESET_COUNTS), (8, FlowModFlags::NO_PKT_COUNTS), (16, FlowModFlags::NO_BYT_COUNTS)]
    {
        if flags & wire != 0 {
            out |= bit;
        }
    }
    Ok(out)
}

fn flow_mod10(c: &mut Cursor<'_>) -> Result<FlowMod, OfError> {
    let exact = mw::is_ofp10_exact(c.rest());
    let mut match_ = mw::pull_ofp10_match(c)?;
    // Fields whose prerequisites are missing mean nothing there.
    ib_flow::text::normalize::normalize_match(&mut match_, true);
    let cookie = c.u64()?;
    let command_table = c.u16()?;
    let (idle_timeout, hard_timeout, priority) = (c.u16()?, c.u16()?, c.u16()?);
    let (buffer_id, out_port, flags) = (c.u32()?, OfPort(c.u16()?), c.u16()?);
    let mut fm = FlowMod {
        match_,
        // OpenFlow 1.0 gives exact matches the highest priority.
        priority: if exact { u16::MAX } else { priority },
        command: FlowModCommand::Add,
        idle_timeout,
        hard_timeout,
        buffer_id,
        out_port,
        flags: flow_flags(flags, Version::V10)?,
        ..Default::default()
    };
    command_and_cookie(&mut fm, command_table, cookie)?;
    fm.actions = decode_actions(c.take_rest(), Version::V10)?;
    verify_flow(&fm, Version::V10)?;
    Ok(fm)
}

/// OpenFlow 1.0's one cookie, and the table that Nicira packs beside the command.
fn command_and_cookie(fm: &mut FlowMod, command_table: u16, cookie: u64) -> Result<(), OfError> {
    // With NXT_FLOW_MOD_TABLE_ID the high byte is a table: 0 the first one. Who knows that it is off looks for 0.
    let (table, cmd) = ((command_table >> 8) as u8, command_table & 0xff);
    fm.table_id = table;
    fm.command = command(cmd)?;
    fm.new_cookie = cookie;
    fm.modify_cookie = cookie != u64::MAX;
    if fm.command == FlowModCommand::Add {
        // Additions of OpenFlow 1.0 always do.
        fm.flags |= FlowModFlags::RESET_COUNTS;
    }
    if is_delete(fm.command) {
        fm.flags &= FlowModFlags::SEND_FLOW_REM | FlowModFlags::CHECK_OVERLAP;
    }
    Ok(())
}

/// Checks a flow's actions by themselves and with its match, for the version that it came by.
fn verify_flow(fm: &FlowMod, via: Version) -> Result<(), OfError> {
    crate::action_check::verify(&fm.actions, crate::action_parse::Outer::Flow).map_err(|(e, _)| e)?;
    let params = CheckParams { table: fm.table_id, ..Default::default() };
    check_for(&fm.actions, &fm.match_, params, protocols_of(via))
}

fn flow_mod11(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowMod, OfError> {
    let (cookie, cookie_mask, table_id, cmd) = (c.u64()?, c.u64()?, c.u8()?, c.u8()?);
    let (idle_timeout, hard_timeout, priority) = (c.u16()?, c.u16()?, c.u16()?);
    let (buffer_id, out_port, out_group, flags) = (c.u32()?, c.u32()?, c.u32()?, c.u16()?);
    let importance = c.u16()?;
    let match_ = mw::pull_ofp11_match(c, tlv, true)?.0;
    let command = command(cmd.into());
    if table_id == 0xff && !command.is_ok_and(is_delete) {
        return Err(OfError::OFPFMFC_BAD_TABLE_ID);
    }
    let command = command?;
    let mut fm = FlowMod {
        match_,
        priority,
        table_id,
        command,
        idle_timeout,
        hard_timeout,
        importance: if v >= Version::V14 && command == FlowModCommand::Add { importance } else { 0 },
        buffer_id,
        out_port: port_from_wire32(out_port)?,
        out_group,
        flags: flow_flags(flags, v)?,
        ..Default::default()
    };
    match command {
        FlowModCommand::Add => fm.new_cookie = cookie,
        FlowModCommand::Modify | FlowModCommand::ModifyStrict if v == Version::V11 && cookie_mask == 0 => {
            // OpenFlow 1.1 modifies cookies as 1.0 does, adding flows that are not there.
            fm.new_cookie = cookie;
            fm.modify_cookie = cookie != u64::MAX;
        }
        FlowModCommand::Modify | FlowModCommand::ModifyStrict => {
            fm.cookie = cookie & cookie_mask;
            fm.cookie_mask = cookie_mask;
            fm.new_cookie = u64::MAX;
        }
        _ => {
            fm.cookie = cookie & cookie_mask;
            fm.cookie_mask = cookie_mask;
            fm.new_cookie = 0;
        }
    }
    if v == Version::V11 && command == FlowModCommand::Add {
        // Additions of that version always do.
        fm.flags |= FlowModFlags::RESET_COUNTS;
    }
    if !is_delete(command) {
        fm.out_port = OfPort::NONE;
        fm.out_group = OFPG_ANY;
    }
    fm.actions = decode_instructions(c.take_rest(), v)?;
    verify_flow(&fm, v)?;
    Ok(fm)
}

fn nx_flow_mod(c: &mut Cursor<'_>, v: Version, tlv: u32) -> Result<FlowMod, OfError> {
    let cookie = c.u64()?;
    let command_table = c.u16()?;
    let (idle_timeout, hard_timeout, priority) = (c.u16()?, c.u16()?, c.u16()?);
    let (buffer_id, out_port, flags) = (c.u32()?, OfPort(c.u16()?), c.u16()?);
    let match_len = usize::from(c.u16()?);
    c.skip(6)?;
    let m = mw::pull_nxm(c, match_len, tlv, true)?;
    let mut fm = FlowMod {
        match_: m.match_,
        priority,
        idle_timeout,
        hard_timeout,
        buffer_id,
        out_port,
        flags: flow_flags(flags, Version::V10)?,
        cookie: m.cookie & m.cookie_mask,
        cookie_mask: m.cookie_mask,
        ..Default::default()
    };
    command_and_cookie(&mut fm, command_table, cookie)?;
    if fm.command == FlowModCommand::Add && m.cookie_mask != 0 {
        // A flow that is added has no cookie yet that could match.
        return Err(OfError::NXBRC_NXM_INVALID);
    }
    fm.actions = decode_actions(c.take_rest(), v)?;
    verify_flow(&fm, v)?;
    Ok(fm)
}

fn port_mod(c: &mut Cursor<'_>, v: Version) -> Result<PortMod, OfError> {
    if v == Version::V10 {
        let (port_no, hw_addr) = (OfPort(c.u16()?), c.mac()?);
        let (config, mask, advertise) = (c.u32()? & 0x7f, c.u32()? & 0x7f, c.u32()?);
        return Ok(PortMod {
            port_no,
            hw_addr,
            config: config & mask,
            mask,
            advertise: features_from10(advertise),
        });
    }
    let port_no = port_from_wire32(c.u32()?)?;
    c.skip(4)?;
    let hw_addr: Mac = c.mac()?;
    c.skip(2)?;
    let (config, mask) = (config_from11(c.u32()?), config_from11(c.u32()?));
    let mut advertise = 0;
    if v < Version::V14 {
        advertise = c.u32()? & 0xffff;
    } else {
        while !c.is_empty() {
            let (kind, body) = property(c, OfError::OFPBPC_BAD_LEN)?;
            match kind {
                0 => advertise = u32_property(body)? & 0xffff,
                _ => return Err(OfError::OFPBPC_BAD_TYPE),
            }
        }
    }
    Ok(PortMod { port_no, hw_addr, config: config & mask, mask, advertise })
}

fn table_mod(c: &mut Cursor<'_>, v: Version) -> Result<TableMod, OfError> {
    let table_id = c.u8()?;
    c.skip(3)?;
    let config = c.u32()?;
    let mut out = TableMod { table_id, ..Default::default() };
    if v < Version::V13 {
        out.miss = match config & 3 {
            0 => TableMiss::Controller,
            1 => TableMiss::Continue,
            2 => TableMiss::Drop,
            _ => return Err(OfError::OFPTMFC_BAD_CONFIG),
        };
    } else if v >= Version::V14 {
        out.eviction = Some(config & 4 != 0);
        let mut vacancy = Vacancy { enabled: config & 8 != 0, ..Default::default() };
        while !c.is_empty() {
            let (kind, body) = property(c, OfError::OFPBPC_BAD_LEN)?;
            let mut b = Cursor::new(body, OfError::OFPBPC_BAD_LEN);
            match kind {
                2 => out.eviction_flags = Some(u32_property(body)?),
                3 if body.len() != 4 => return Err(OfError::OFPBPC_BAD_LEN),
                3 => {
                    vacancy.down = b.u8()?;
                    vacancy.up = b.u8()?;
                    vacancy.current = b.u8()?;
                    let wrong = match &vacancy {
                        v if v.down > v.up => "Value of vacancy_down is greater than vacancy_up",
                        v if v.up > 100 => "Vacancy threshold percentage should not be greater than 100",
                        v if v.current != 0 => "Vacancy value should be zero for table-mod messages",
                        _ => continue,
                    };
                    vlog_warn_rl!(OFP_TABLE, (1, 5), "{wrong}");
                    return Err(OfError::OFPBPC_BAD_VALUE);
                }
                _ => return Err(OfError::OFPBRC_BAD_TYPE),
            }
        }
        out.vacancy = Some(vacancy);
    }
    Ok(out)
}

fn role_of(n: u32) -> Result<Role, OfError> {
    Ok(match n {
        0 => Role::NoChange,
        1 => Role::Equal,
        2 => Role::Primary,
        3 => Role::Secondary,
        _ => return Err(OfError::OFPRRFC_BAD_ROLE),
    })
}

fn role(c: &mut Cursor<'_>) -> Result<RoleMessage, OfError> {
    let role = role_of(c.u32()?)?;
    c.skip(4)?;
    let generation = c.u64()?;
    let meaningful = matches!(role, Role::Primary | Role::Secondary) && generation != u64::MAX;
    Ok(RoleMessage { role, generation_id: meaningful.then_some(generation) })
}

fn nx_role(c: &mut Cursor<'_>) -> Result<RoleMessage, OfError> {
    let role = match c.u32()? {
        0 => Role::Equal,
        1 => Role::Primary,
        2 => Role::Secondary,
        _ => return Err(OfError::OFPRRFC_BAD_ROLE),
    };
    Ok(RoleMessage { role, generation_id: None })
}

fn role_status(c: &mut Cursor<'_>) -> Result<RoleStatus, OfError> {
    let role = role_of(c.u32()?)?;
    let reason = c.u8()?;
    c.skip(3)?;
    Ok(RoleStatus { role, reason, generation_id: c.u64()? })
}

fn async13(c: &mut Cursor<'_>) -> Result<AsyncConfig, OfError> {
    let mut out = AsyncConfig { present: 0x0707, ..Default::default() };
    for kind in 0..3 {
        out.primary[kind] = c.u32()?;
        out.secondary[kind] = c.u32()?;
    }
    Ok(out)
}

/// Reasons that a version has, by kind of message.
fn async_reasons(v: Version) -> [(&'static str, u32); 6] {
    let v14 = v >= Version::V14;
    let removed = match v {
        _ if v14 => 0x3f,
        Version::V13 => 0xf,
        _ => 7,
    };
    [
        ("PACKET_IN", if v14 { 0x3f } else { 7 }),
        ("PORT_STATUS", 7),
        ("FLOW_REMOVED", removed),
        ("ROLE_STATUS", 7),
        ("TABLE_STATUS", 0x18),
        ("REQUESTFORWARD", 3),
    ]
}

/// Properties: even types for secondaries, odd ones for primaries. What is set must exist in `strict`, the version.
fn async14(c: &mut Cursor<'_>, strict: Option<Version>) -> Result<AsyncConfig, OfError> {
    let mut out = AsyncConfig::default();
    while !c.is_empty() {
        let (kind, body) = property(c, OfError::OFPBPC_BAD_LEN)?;
        if kind >= 12 {
            if strict.is_some() {
                // Experimenters' properties begin with who and what.
                let is_cut = kind >= 0xfffe && body.len() < 8;
                return Err(if is_cut { OfError::OFPBPC_BAD_LEN } else { OfError::OFPACFC_UNSUPPORTED });
            }
            continue;
        }
        let mask = Cursor::new(body, OfError::OFPBPC_BAD_LEN).u32()?;
        let i = usize::from(kind / 2);
        if let Some(v) = strict {
            let (name, allowed) = async_reasons(v)[i];
            if mask & !allowed != 0 {
                vlog_warn_rl!(
                    OFP_CONNECTION,
                    (1, 5),
                    "bad value {mask:#x} for {name} (allowed mask {allowed:#x})"
                );
                return Err(OfError::OFPACFC_INVALID);
            }
        }
        if kind % 2 == 1 {
            out.primary[i] = mask;
            out.present |= 1 << i;
        } else {
            out.secondary[i] = mask;
            out.present |= 1 << (i + 8);
        }
    }
    Ok(out)
}

fn queue_config(
    c: &mut Cursor<'_>,
    v: Version,
    broken: &mut Option<OfError>,
) -> Result<QueueGetConfigReply, OfError> {
    let v10 = v == Version::V10;
    // Queues of OpenFlow 1.1 are laid out as those of 1.0.
    let short = v < Version::V12;
    let port = if v10 {
        let p = OfPort(c.u16()?);
        c.skip(6)?;
        p
    } else {
        let p = port_from_wire32(c.u32()?)?;
        c.skip(4)?;
        p
    };
    let queues = stats_decode::entries(c, broken, |c| {
        let mut head = Cursor::new(c.rest(), LEN);
        let queue = head.u32()?;
        // Queues repeat their port from OpenFlow 1.2 on; the reply's counts.
        head.skip(if short { 0 } else { 4 })?;
        let len = usize::from(head.u16()?);
        let fixed = if short { 8 } else { 16 };
        if len < fixed || len > c.len() {
            return Err(LEN);
        }
        let mut p = Cursor::new(&c.take(len)?[fixed..], LEN);
        let mut q = QueueConfig { port, queue, min_rate: None, max_rate: None };
        while !p.is_empty() {
            let (kind, body) = property(&mut p, LEN)?;
            let mut b = Cursor::new(body, LEN);
            b.skip(4)?;
            match kind {
                1 => q.min_rate = Some(b.u16()?),
                2 => q.max_rate = Some(b.u16()?),
                _ => {}
            }
        }
        Ok(q)
    });
    Ok(QueueGetConfigReply { port, queues, more: false })
}

fn bundle_control(c: &mut Cursor<'_>, faults: &mut Faults) -> Result<BundleControl, OfError> {
    use BundleControlKind as K;
    let bundle_id = c.u32()?;
    let kind = match c.u16()? {
        0 => K::OpenRequest,
        1 => K::OpenReply,
        2 => K::CloseRequest,
        3 => K::CloseReply,
        4 => K::CommitRequest,
        5 => K::CommitReply,
        6 => K::DiscardRequest,
        7 => K::DiscardReply,
        _ => {
            faults.refuse(OfError::OFPBFC_BAD_TYPE);
            K::Unknown
        }
    };
    Ok(BundleControl { bundle_id, kind, flags: c.u16()? })
}

fn bundle_add(c: &mut Cursor<'_>, outer: &[u8]) -> Result<BundleAdd, OfError> {
    let bundle_id = c.u32()?;
    c.skip(2)?;
    let flags = c.u16()?;
    let inner = parse_header(c.rest()).ok_or(OfError::OFPBFC_MSG_BAD_LEN)?;
    // The inner message shares version and transaction with the outer.
    if inner.version != outer[0] {
        return Err(OfError::OFPBFC_BAD_VERSION);
    }
    let len = usize::from(inner.length);
    if len < 8 || len > c.len() {
        return Err(OfError::OFPBFC_MSG_BAD_LEN);
    }
    if inner.xid.to_be_bytes() != outer[4..8] {
        return Err(OfError::OFPBFC_MSG_BAD_XID);
    }
    let raw = c.take(len)?.to_vec();
    let id = identify(&raw).map_err(|_| OfError::OFPBFC_MSG_UNSUP)?;
    let ok = matches!(
        id.kind.raw,
        Raw::PortMod10
            | Raw::PortMod11
            | Raw::PortMod14
            | Raw::FlowMod10
            | Raw::FlowMod11
            | Raw::NxFlowMod
            | Raw::GroupMod11
            | Raw::GroupMod15
            | Raw::NxGroupMod
            | Raw::PacketOut10
            | Raw::PacketOut11
            | Raw::PacketOut15
    );
    if ok { Ok(BundleAdd { bundle_id, flags, raw }) } else { Err(OfError::OFPBFC_MSG_UNSUP) }
}

fn tlv_maps(c: &mut Cursor<'_>) -> Result<Vec<TlvMap>, OfError> {
    let mut out = Vec::new();
    while !c.is_empty() {
        let map = TlvMap { class: c.u16()?, kind: c.u8()?, len: c.u8()?, index: c.u16()? };
        c.skip(2)?;
        if !map.len.is_multiple_of(4) || map.len > 124 {
            vlog_warn_rl!(
                OFP_MATCH,
                (1, 5),
                "tlv table option length ({}) is not a valid option size",
                map.len
            );
            return Err(OfError::NXTTMFC_BAD_OPT_LEN);
        }
        if map.index >= 64 {
            return Err(OfError::NXTTMFC_BAD_FIELD_IDX);
        }
        out.push(map);
    }
    Ok(out)
}

fn ct_flush(c: &mut Cursor<'_>) -> Result<CtFlush, OfError> {
    let bad = OfError::OFPBPC_BAD_LEN;
    let ip_proto = c.u8()?;
    c.zeros(7, OfError::NXBRC_MUST_BE_ZERO)?;
    let mut out = CtFlush { ip_proto, ..Default::default() };
    while !c.is_empty() {
        let (kind, body) = property(c, bad)?;
        let mut b = Cursor::new(body, bad);
        match kind {
            0 => out.orig = ct_tuple(body)?,
            1 => out.reply = ct_tuple(body)?,
            2 => out.zone = Some(u16_property(&mut b)?),
            3 => out.mark = Some((b.u32()?, out.mark.map_or(u32::MAX, |m| m.1))),
            4 => out.mark = Some((out.mark.map_or(0, |m| m.0), b.u32()?)),
            5 | 6 => {
                b.skip(4)?;
                let v = b.u128()?;
                let (label, mask) = out.labels.unwrap_or((0, u128::MAX));
                out.labels = Some(if kind == 5 { (v, mask) } else { (label, v) });
            }
            // What later versions may say more.
            _ => {}
        }
    }
    Ok(out)
}

/// A property of 32 bits.
fn u32_property(body: &[u8]) -> Result<u32, OfError> {
    body.try_into().map(u32::from_be_bytes).map_err(|_| OfError::OFPBPC_BAD_LEN)
}

/// A property of 16 bits; its padding belongs to it.
fn u16_property(b: &mut Cursor<'_>) -> Result<u16, OfError> {
    if b.len() != 4 {
        return Err(OfError::OFPBPC_BAD_LEN);
    }
    b.u16()
}

fn ct_tuple(body: &[u8]) -> Result<CtTuple, OfError> {
    let bad = OfError::OFPBPC_BAD_LEN;
    let mut c = Cursor::new(body, bad);
    // Nested properties stand at a multiple of 8 bytes.
    c.skip(4.min(body.len()))?;
    let mut t = CtTuple::default();
    while c.len() >= 4 {
        let (kind, body) = property(&mut c, bad)?;
        let mut b = Cursor::new(body, bad);
        let mut addr = || -> Result<std::net::Ipv6Addr, OfError> {
            b.skip(if b.len() >= 20 { 4 } else { 0 })?;
            Ok(std::net::Ipv6Addr::from(b.u128()?))
        };
        match kind {
            0 => t.src = Some(addr()?),
            1 => t.dst = Some(addr()?),
            2 => t.src_port = Some(u16_property(&mut b)?),
            3 => t.dst_port = Some(u16_property(&mut b)?),
            4 => t.icmp.0 = Some(u16_property(&mut b)?),
            5 if body.len() == 1 => t.icmp.1 = Some(b.u8()?),
            6 if body.len() == 1 => t.icmp.2 = Some(b.u8()?),
            5 | 6 => return Err(bad),
            // What later versions may say more.
            _ => {}
        }
    }
    Ok(t)
}
