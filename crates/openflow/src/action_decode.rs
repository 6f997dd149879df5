//! Actions and instructions from bytes.
//!
//! Lengths and paddings are checked here; whether an action makes sense for its flow is `action_check`'s. Errors
//! are the codes that the specification and Open vSwitch give, so that a peer learns exactly what is wrong.

use ib_base::vlog::RateLimit;
use ib_base::vlog::module::{META_FLOW, OFP_ACTIONS};
use ib_base::{vlog_info_rl, vlog_warn_rl};
use ib_flow::{FieldValue, OfPort, Subfield};
use ib_packet::{Be16, Be32, Be128};

use crate::action::*;
use crate::error::{NX, ONF, OfError};
use crate::message::Version;
use crate::oxm;
use crate::ports::port_from_wire32;
use crate::print::hex_dump;
use crate::wire::Cursor;

/// Deepest nesting of `clone`, `ct` and write-actions that is accepted.
const MAX_DEPTH: u32 = 32;

const LEN: OfError = OfError::OFPBAC_BAD_LEN;
const ARG: OfError = OfError::OFPBAC_BAD_ARGUMENT;
const ZERO: OfError = OfError::NXBRC_MUST_BE_ZERO;

/// Decodes a list of actions.
pub fn decode_actions(bytes: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    if !bytes.len().is_multiple_of(8) {
        let n = bytes.len();
        vlog_warn_rl!(OFP_ACTIONS, LIMIT, "OpenFlow message actions length {n} is not a multiple of 8");
        return Err(OfError::OFPBRC_BAD_LEN);
    }
    decode_list(bytes, version, 0)
}

fn decode_list(bytes: &[u8], version: Version, depth: u32) -> Result<Vec<Action>, OfError> {
    if depth > MAX_DEPTH {
        return Err(ARG);
    }
    let mut out = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let decoded = next_action(left, version)
            .and_then(|(one, rest)| decode_one(one, version, depth, &mut out).map(|()| rest));
        match decoded {
            Ok(rest) => left = rest,
            Err(e) => {
                log_unknown(left, version, e);
                let dump = hex_dump(bytes, false);
                let at = bytes.len() - left.len();
                vlog_warn_rl!(OFP_ACTIONS, LIMIT, "bad action at offset {at} ({e}):\n{}", dump.trim_end());
                return Err(e);
            }
        }
    }
    Ok(out)
}

/// What is said of actions is limited together.
static LIMIT: RateLimit = RateLimit::new(1, 5);

/// Says what an action is that nobody knows.
fn log_unknown(bytes: &[u8], version: Version, e: OfError) {
    let mut c = Cursor::new(bytes, LEN);
    let Ok(kind) = c.u16() else { return };
    let _ = c.skip(2);
    match (kind, e) {
        (0xffff, OfError::OFPBAC_BAD_VENDOR) => {
            let vendor = c.u32().unwrap_or(0);
            vlog_warn_rl!(OFP_ACTIONS, LIMIT, "OpenFlow action has unknown vendor {vendor:#x}");
        }
        (0xffff, OfError::OFPBAC_BAD_VENDOR_TYPE) => {
            let (vendor, subtype) = (c.u32().unwrap_or(0), c.u16().unwrap_or(0));
            if vendor == NX && matches!(subtype, 254 | 255) {
                return; // Known, and refused.
            }
            let v = version.name();
            vlog_warn_rl!(OFP_ACTIONS, LIMIT, "unknown {v} action for vendor {vendor:#x} and type {subtype}");
        }
        (0..0xffff, OfError::OFPBAC_BAD_TYPE) => {
            let v = version.name();
            vlog_warn_rl!(OFP_ACTIONS, LIMIT, "unknown {v} action for vendor 0 and type {kind}");
        }
        _ => {}
    }
}

/// Splits the first action off.
fn next_action(bytes: &[u8], version: Version) -> Result<(&[u8], &[u8]), OfError> {
    let head: [u8; 4] = bytes.first_chunk().copied().ok_or(LEN)?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[..2] == [0xff, 0xff]
        && let Some(vendor) = bytes.get(4..8)
        && ![NX.to_be_bytes(), ONF.to_be_bytes()].iter().any(|v| v == vendor)
    {
        return Err(OfError::OFPBAC_BAD_VENDOR);
    }
    // A type that nobody knows has no length that could be wrong.
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let known = match version {
        Version::V10 => kind < 12,
        _ => layout11(kind, version).is_some() || kind == 28 && version >= Version::V15,
    };
    if !known && kind != 0xffff {
        return Err(OfError::OFPBAC_BAD_TYPE);
    }
    if len < 8 || len % 8 != 0 {
        return Err(LEN);
    }
    bytes.split_at_checked(len).ok_or(LEN)
}

/// The bits `ofs` and `n_bits` of a packed 16-bit word.
fn ofs_nbits(v: u16) -> (u32, u32) {
    (u32::from(v >> 6), u32::from(v & 0x3f) + 1)
}

/// Checks a subfield as a source or destination.
fn check(sf: Subfield, dst: bool) -> Result<Subfield, OfError> {
    check_subfield(&sf, dst, None)?;
    Ok(sf)
}

/// Checks a subfield as a source or destination in packets of a match; a complaint is logged.
pub fn check_subfield(sf: &Subfield, dst: bool, m: Option<&ib_flow::Match>) -> Result<(), OfError> {
    use ib_flow::subfield::SubfieldError as E;
    let r = if dst { sf.check_dst(m) } else { sf.check_src(m) };
    let Err(e) = r else { return Ok(()) };
    let (side, name) = (if dst { "destination" } else { "source" }, sf.field.name);
    match e {
        E::ZeroBits => vlog_warn_rl!(META_FLOW, (1, 5), "zero bit {side} field {name}"),
        E::TooWide => vlog_warn_rl!(
            META_FLOW,
            (1, 5),
            "bit offset {} and width {} exceeds {}-bit width of {side} field {name}",
            sf.ofs,
            sf.n_bits,
            sf.field.n_bits
        ),
        E::ReadOnly => vlog_warn_rl!(META_FLOW, (1, 5), "{side} field {name} is not writable"),
        E::Prereq => vlog_warn_rl!(META_FLOW, (1, 5), "{side} field {name} lacks correct prerequisites"),
    }
    Err(subfield_error(e))
}

/// OpenFlow's complaint about a subfield.
pub fn subfield_error(e: ib_flow::subfield::SubfieldError) -> OfError {
    use ib_flow::subfield::SubfieldError as E;
    match e {
        E::ZeroBits | E::TooWide => OfError::OFPBAC_BAD_SET_LEN,
        E::ReadOnly => OfError::OFPBAC_BAD_SET_ARGUMENT,
        E::Prereq => OfError::OFPBAC_MATCH_INCONSISTENT,
    }
}

/// A field that stands in an action as an OXM header, which may be an experimenter's.
pub(crate) fn field_header(c: &mut Cursor<'_>) -> Result<ib_flow::FieldId, OfError> {
    let info = oxm::pull_header(c, OfError::OFPBMC_BAD_FIELD)?;
    if info.masked {
        return Err(OfError::OFPBMC_BAD_MASK);
    }
    Ok(info.field)
}

/// A field that stands in an action as 32 bits. Whether it would be masked does not matter.
fn field_word(word: u32) -> Result<ib_flow::FieldId, OfError> {
    let info = if word >> 16 == 0xffff {
        Err(OfError::OFPBMC_BAD_FIELD)
    } else {
        oxm::read_header(word, 0, OfError::OFPBMC_BAD_FIELD)
    };
    Ok(info.map_err(|_| OfError::OFPBAC_BAD_SET_TYPE)?.field)
}

fn set_field_of(
    field: ib_flow::FieldId,
    value: FieldValue,
    mask: FieldValue,
    form: SetFieldForm,
) -> SetField {
    let n = field.field().n_bytes;
    SetField { field, value: value.and(&mask).bytes(n).into(), mask: mask.bytes(n).into(), form }
}

/// An action's length must be exactly `n`.
fn exact(len: usize, n: usize) -> Result<(), OfError> {
    if len == n { Ok(()) } else { Err(LEN) }
}

fn at_least(len: usize, n: usize) -> Result<(), OfError> {
    if len >= n { Ok(()) } else { Err(LEN) }
}

fn decode_one(one: &[u8], version: Version, depth: u32, out: &mut Vec<Action>) -> Result<(), OfError> {
    let mut c = Cursor::new(one, LEN);
    let kind = c.u16()?;
    c.skip(2)?;
    if kind == 0xffff {
        return match c.u32().map_err(|_| LEN)? {
            NX => {
                at_least(one.len(), 16)?;
                let subtype = c.u16()?;
                nicira(subtype, one, c, version, depth, out)
            }
            ONF => {
                at_least(one.len(), 16)?;
                match c.u16()? {
                    3200 if matches!(version, Version::V13 | Version::V14) => copy_field(c, out),
                    _ => Err(OfError::OFPBAC_BAD_VENDOR_TYPE),
                }
            }
            _ => Err(OfError::OFPBAC_BAD_VENDOR),
        };
    }
    let n = one.len();
    let action = if version == Version::V10 {
        standard10(kind, n, &mut c)?
    } else {
        match kind {
            28 if version >= Version::V15 => return copy_field(c, out),
            _ => standard11(kind, n, &mut c, version)?,
        }
    };
    out.push(action);
    Ok(())
}

fn standard10(kind: u16, n: usize, c: &mut Cursor<'_>) -> Result<Action, OfError> {
    let lens: [usize; 12] = [8, 8, 8, 8, 16, 16, 8, 8, 8, 8, 8, 16];
    exact(n, *lens.get(usize::from(kind)).ok_or(OfError::OFPBAC_BAD_TYPE)?)?;
    Ok(match kind {
        0 => output(OfPort(c.u16()?), c.u16()?)?,
        1 => {
            let vid = c.u16()?;
            if vid & !0xfff != 0 {
                return Err(ARG);
            }
            Action::SetVlanVid { vid, push_if_needed: true }
        }
        2 => {
            let pcp = c.u8()?;
            if pcp & !7 != 0 {
                return Err(ARG);
            }
            Action::SetVlanPcp { pcp, push_if_needed: true }
        }
        3 => Action::StripVlan(TagWord::Strip),
        4 => Action::SetEthSrc(c.mac()?),
        5 => Action::SetEthDst(c.mac()?),
        6 => Action::SetIpv4Src(Be32::new(c.u32()?)),
        7 => Action::SetIpv4Dst(Be32::new(c.u32()?)),
        8 => dscp(c.u8()?)?,
        9 => Action::SetL4Src(c.u16()?),
        10 => Action::SetL4Dst(c.u16()?),
        _ => {
            let port = OfPort(c.u16()?);
            c.skip(6)?;
            let queue = c.u32()?;
            if port >= OfPort::MAX && port != OfPort::IN_PORT && port != OfPort::LOCAL {
                return Err(OfError::OFPBAC_BAD_OUT_PORT);
            }
            Action::Enqueue { port, queue }
        }
    })
}

fn dscp(tos: u8) -> Result<Action, OfError> {
    if tos & 3 != 0 { Err(ARG) } else { Ok(Action::SetIpDscp(tos)) }
}

fn output(port: OfPort, max_len: u16) -> Result<Action, OfError> {
    let ok = port < OfPort::MAX || (port >= OfPort::IN_PORT && port != OfPort::NONE);
    if ok { Ok(Action::Output { port, max_len }) } else { Err(OfError::OFPBAC_BAD_OUT_PORT) }
}

/// Actions that set_field replaced in OpenFlow 1.2.
const REPLACED: [(u16, &str); 13] = [
    (1, "VLAN_VID"),
    (2, "VLAN_PCP"),
    (3, "DL_SRC"),
    (4, "DL_DST"),
    (5, "NW_SRC"),
    (6, "NW_DST"),
    (7, "NW_TOS"),
    (8, "NW_ECN"),
    (9, "TP_SRC"),
    (10, "TP_DST"),
    (13, "MPLS_LABEL"),
    (14, "MPLS_TC"),
    (15, "MPLS_TTL"),
];

/// The length of a standard action since OpenFlow 1.1, zero for any; `None` if the version has no such action.
fn layout11(kind: u16, version: Version) -> Option<usize> {
    use Version::*;
    let (first, last, len) = match kind {
        0 => (V11, V15, 16),
        // OpenFlow 1.2 dropped the first of these; Open vSwitch takes them nevertheless.
        1 | 2 | 5..=10 | 13 | 14 => (V11, V15, 8),
        3 | 4 => (V11, V15, 16),
        15..=24 => (V11, V15, 8),
        25 => (V12, V15, 0),
        29 => (V15, V15, 8),
        _ => return None,
    };
    (first..=last).contains(&version).then_some(len)
}

fn standard11(kind: u16, n: usize, c: &mut Cursor<'_>, version: Version) -> Result<Action, OfError> {
    use Version::*;
    let bad_type = Err(OfError::OFPBAC_BAD_TYPE);
    let Some(len) = layout11(kind, version) else { return bad_type };
    if len != 0 {
        exact(n, len)?;
    }
    if let Some((_, name)) = REPLACED.iter().find(|(k, _)| *k == kind).filter(|_| version >= V12) {
        let v = version.name();
        vlog_info_rl!(OFP_ACTIONS, LIMIT, "OFPAT_SET_{name} is deprecated in {v} (use Set-Field)");
    }
    Ok(match kind {
        0 => {
            let port = port_from_wire32(c.u32()?)?;
            output(port, c.u16()?)?
        }
        1 => {
            let vid = c.u16()?;
            if vid & !0xfff != 0 {
                return Err(ARG);
            }
            Action::SetVlanVid { vid, push_if_needed: false }
        }
        2 => {
            let pcp = c.u8()?;
            if pcp & !7 != 0 {
                return Err(ARG);
            }
            Action::SetVlanPcp { pcp, push_if_needed: false }
        }
        3 => Action::SetEthSrc(c.mac()?),
        4 => Action::SetEthDst(c.mac()?),
        5 => Action::SetIpv4Src(Be32::new(c.u32()?)),
        6 => Action::SetIpv4Dst(Be32::new(c.u32()?)),
        7 => dscp(c.u8()?)?,
        8 => {
            let ecn = c.u8()?;
            if ecn & !3 != 0 {
                return Err(ARG);
            }
            Action::SetIpEcn(ecn)
        }
        9 => Action::SetL4Src(c.u16()?),
        10 => Action::SetL4Dst(c.u16()?),
        13 => Action::SetMplsLabel(c.u32()?),
        14 => Action::SetMplsTc(c.u8()?),
        15 => Action::SetMplsTtl(c.u8()?),
        16 => Action::DecMplsTtl,
        17 => {
            let ethertype = c.u16()?;
            if ethertype != 0x8100 && ethertype != 0x88a8 {
                return Err(ARG);
            }
            Action::PushVlan(Be16::new(ethertype))
        }
        18 => Action::StripVlan(TagWord::Pop),
        19 => push_mpls(c.u16()?)?,
        20 => Action::PopMpls(Be16::new(c.u16()?)),
        21 => Action::SetQueue(c.u32()?),
        22 => group(c.u32()?)?,
        23 => Action::SetIpTtl(c.u8()?),
        24 => Action::DecTtl(Vec::new()),
        25 => return set_field(c, version),
        _ => Action::Meter(meter(c.u32()?)?),
    })
}

fn group(id: u32) -> Result<Action, OfError> {
    Ok(Action::Group(id))
}

fn meter(id: u32) -> Result<u32, OfError> {
    if id == 0 || id > crate::message::OFPM_MAX { Err(OfError::OFPMMFC_INVALID_METER) } else { Ok(id) }
}

fn push_mpls(ethertype: u16) -> Result<Action, OfError> {
    if ethertype != 0x8847 && ethertype != 0x8848 {
        return Err(ARG);
    }
    Ok(Action::PushMpls(Be16::new(ethertype)))
}

/// OFPAT_SET_FIELD: an OXM entry, with mask in 1.5.
fn set_field(c: &mut Cursor<'_>, version: Version) -> Result<Action, OfError> {
    let sf = oxm_set_field(c, SetFieldForm::SetField, version >= Version::V15)?;
    // The rest is padding that must be zero.
    if c.rest().len() >= 8 || c.rest().iter().any(|b| *b != 0) {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    Ok(Action::SetField(sf))
}

fn oxm_set_field(c: &mut Cursor<'_>, form: SetFieldForm, may_mask: bool) -> Result<SetField, OfError> {
    let mut body = Cursor::new(c.rest(), OfError::OFPBAC_BAD_LEN);
    let (info, value, mask) =
        oxm::pull_entry(&mut body, OfError::OFPBAC_BAD_SET_LEN).map_err(|e| match e {
            OfError::OFPBMC_BAD_FIELD => OfError::OFPBAC_BAD_SET_TYPE,
            e => e,
        })?;
    c.skip(c.len() - body.len())?;
    let field = info.field.field();
    if info.masked && !may_mask {
        return Err(OfError::OFPBAC_BAD_SET_MASK);
    }
    if !field.writable {
        vlog_warn_rl!(OFP_ACTIONS, (1, 5), "destination field {} is not writable", field.name);
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    if info.masked && !value.and(&mask.not()).is_zero(field.n_bytes) {
        return Err(OfError::OFPBMC_BAD_WILDCARDS);
    }
    // A value with bits that the field cannot hold. A VLAN that is not there cannot be set, nor can the port of entry
    // in this way.
    let is_absent = info.field == ib_flow::FieldId::VlanVid && value.to_u64() & 0x1000 == 0;
    if is_absent || info.field == ib_flow::FieldId::InPortOxm || !field.is_value_valid(&value) {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    let mut mask = mask;
    if !info.masked {
        mask = FieldValue::ONES;
    }
    let mut sf = set_field_of(info.field, value, mask, form);
    if field.is_tun_metadata() {
        let n = info.n_bytes.max(1) as u32;
        sf.value = value.bytes(n).into();
        sf.mask = mask.bytes(n).into();
    }
    Ok(sf)
}

/// OFPAT_COPY_FIELD (1.5) and its ONF extension (1.3, 1.4).
fn copy_field(mut c: Cursor<'_>, out: &mut Vec<Action>) -> Result<(), OfError> {
    // The extension has two bytes of padding before, the standard action after its numbers.
    let onf = c.len() % 8 == 6;
    if onf {
        c.zeros(2, ZERO).or(Ok(()))?;
    }
    let n_bits = u32::from(c.u16()?);
    let src_ofs = u32::from(c.u16()?);
    let dst_ofs = u32::from(c.u16()?);
    c.skip(2)?;
    let src = Subfield { field: field_header(&mut c)?, ofs: src_ofs, n_bits };
    let dst = Subfield { field: field_header(&mut c)?, ofs: dst_ofs, n_bits };
    if c.rest().len() >= 8 || c.rest().iter().any(|b| *b != 0) {
        return Err(ZERO);
    }
    out.push(Action::RegMove { src: check(src, false)?, dst: check(dst, true)? });
    Ok(())
}

fn hash_fields(v: u16) -> Option<HashFields> {
    Some(match v {
        0 => HashFields::EthSrc,
        1 => HashFields::SymmetricL4,
        2 => HashFields::SymmetricL3L4,
        3 => HashFields::SymmetricL3L4Udp,
        4 => HashFields::NwSrc,
        5 => HashFields::NwDst,
        6 => HashFields::SymmetricL3,
        _ => return None,
    })
}

/// Nicira's actions; `c` stands after the subtype, at byte 10.
fn nicira(
    subtype: u16,
    one: &[u8],
    mut c: Cursor<'_>,
    version: Version,
    depth: u32,
    out: &mut Vec<Action>,
) -> Result<(), OfError> {
    let n = one.len();
    let action = match subtype {
        // OpenFlow 1.5 has its own ways to copy and set fields.
        6 | 7 | 33 if version >= Version::V15 => return Err(OfError::OFPBAC_BAD_VENDOR_TYPE),
        1 => {
            exact(n, 16)?;
            Action::Resubmit { in_port: OfPort(c.u16()?), table: 0xff, with_ct_orig: false, simple: true }
        }
        14 | 44 => {
            exact(n, 16)?;
            let (in_port, table) = (OfPort(c.u16()?), c.u8()?);
            c.zeros(3, ZERO)?;
            Action::Resubmit { in_port, table, with_ct_orig: subtype == 44, simple: false }
        }
        2 => {
            exact(n, 16)?;
            c.skip(2)?;
            Action::SetTunnel { id: c.u32()?.into(), wide: false }
        }
        9 => {
            exact(n, 24)?;
            c.skip(6)?;
            Action::SetTunnel { id: c.u64()?, wide: true }
        }
        4 => {
            exact(n, 16)?;
            c.skip(2)?;
            Action::SetQueue(c.u32()?)
        }
        5 => {
            exact(n, 16)?;
            Action::PopQueue
        }
        6 => {
            at_least(n, 24)?;
            let n_bits = u32::from(c.u16()?);
            let src_ofs = u32::from(c.u16()?);
            let dst_ofs = u32::from(c.u16()?);
            let src = Subfield { field: field_header(&mut c)?, ofs: src_ofs, n_bits };
            let dst = Subfield { field: field_header(&mut c)?, ofs: dst_ofs, n_bits };
            if c.rest().len() >= 8 || c.rest().iter().any(|b| *b != 0) {
                return Err(ZERO);
            }
            Action::RegMove { src: check(src, false)?, dst: check(dst, true)? }
        }
        7 => {
            exact(n, 24)?;
            let (ofs, n_bits) = ofs_nbits(c.u16()?);
            let dst = Subfield { field: field_word(c.u32()?)?, ofs, n_bits };
            let value = c.u64()?;
            if n_bits < 64 && value >> n_bits != 0 {
                return Err(ARG);
            }
            let dst = check(dst, true)?;
            let mut v = FieldValue::ZERO;
            v.set_bits(ofs, n_bits, &value.into());
            Action::SetField(set_field_of(dst.field, v, dst.mask(), SetFieldForm::RegLoad))
        }
        33 => {
            at_least(n, 16)?;
            let sf = oxm_set_field(&mut c, SetFieldForm::RegLoad2, true)?;
            if c.rest().len() >= 8 || c.rest().iter().any(|b| *b != 0) {
                return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
            }
            Action::SetField(sf)
        }
        8 => Action::Note(c.take_rest().to_vec()),
        10 => {
            exact(n, 32)?;
            let (fields, basis) = (c.u16()?, c.u16()?);
            c.skip(2)?;
            let (alg, max_link, arg) = (c.u16()?, c.u16()?, c.u32()?);
            c.skip(2)?;
            let (ofs, n_bits) = ofs_nbits(c.u16()?);
            let dst = Subfield { field: field_word(c.u32()?)?, ofs, n_bits };
            let fields = hash_fields(fields).ok_or(ARG)?;
            let alg = match alg {
                0 => MultipathAlg::ModuloN,
                1 => MultipathAlg::HashThreshold,
                2 => MultipathAlg::Hrw,
                3 => MultipathAlg::IterHash,
                _ => return Err(ARG),
            };
            if n_bits < 16 && max_link > ((1u32 << n_bits) - 1) as u16 {
                return Err(ARG);
            }
            Action::Multipath(Multipath { fields, basis, alg, max_link, arg, dst: check(dst, true)? })
        }
        12 | 13 => bundle(c, n, subtype == 13)?,
        15 => {
            exact(n, 24)?;
            let (ofs, n_bits) = ofs_nbits(c.u16()?);
            let src = Subfield { field: field_word(c.u32()?)?, ofs, n_bits };
            let max_len = c.u16()?;
            c.zeros(6, ZERO)?;
            Action::OutputReg { src: check(src, false)?, max_len }
        }
        32 => {
            exact(n, 24)?;
            let (ofs, n_bits) = ofs_nbits(c.u16()?);
            let max_len = c.u16()?;
            let src = Subfield { field: field_header(&mut c)?, ofs, n_bits };
            let rest = c.take_rest();
            if rest.iter().any(|b| *b != 0) {
                return Err(ZERO);
            }
            Action::OutputReg { src: check(src, false)?, max_len }
        }
        16 | 45 => crate::learn_wire::decode(c, n, subtype == 45)?,
        17 => {
            exact(n, 16)?;
            Action::Exit
        }
        18 => {
            exact(n, 16)?;
            Action::DecTtl(Vec::new())
        }
        21 => {
            at_least(n, 16)?;
            let count = usize::from(c.u16()?);
            c.zeros(4, ZERO)?;
            if c.len() < 2 * count {
                return Err(LEN);
            }
            let mut ids = Vec::with_capacity(count);
            for _ in 0..count {
                ids.push(c.u16()?);
            }
            Action::DecTtl(ids)
        }
        19 => {
            exact(n, 16)?;
            Action::FinTimeout { idle: c.u16()?, hard: c.u16()? }
        }
        20 => {
            exact(n, 16)?;
            let (max_len, id, reason) = (c.u16()?, c.u16()?, c.u8()?);
            c.zeros(1, ZERO)?;
            Action::Controller(Controller { max_len, id, reason, ..Default::default() })
        }
        37 => controller2(c)?,
        22 => {
            exact(n, 32)?;
            c.zeros(6, ZERO)?;
            let (value, mask) = (c.u64()?, c.u64()?);
            Action::WriteMetadata { value, mask }
        }
        23 => {
            exact(n, 16)?;
            push_mpls(c.u16()?)?
        }
        24 => {
            exact(n, 16)?;
            Action::PopMpls(Be16::new(c.u16()?))
        }
        25 => {
            exact(n, 16)?;
            Action::SetMplsTtl(c.u8()?)
        }
        26 => {
            exact(n, 16)?;
            Action::DecMplsTtl
        }
        27 | 28 => {
            exact(n, 24)?;
            let ofs = u32::from(c.u16()?);
            let field = field_header(&mut c)?;
            let sf = Subfield { field, ofs, n_bits: u32::from(c.u16()?) };
            if c.rest().iter().any(|b| *b != 0) {
                return Err(ZERO);
            }
            if subtype == 27 {
                Action::StackPush(check(sf, false)?)
            } else {
                Action::StackPop(check(sf, true)?)
            }
        }
        29 | 38 | 41 | 51 => sample(c, n, subtype)?,
        30 => {
            exact(n, 16)?;
            c.skip(2)?;
            Action::SetMplsLabel(c.u32()?)
        }
        31 => {
            exact(n, 16)?;
            Action::SetMplsTc(c.u8()?)
        }
        34 => {
            exact(n, 16)?;
            let (clause, n_clauses, id) = (c.u8()?, c.u8()?, c.u32()?);
            if !(2..=64).contains(&n_clauses) || clause >= n_clauses {
                return Err(OfError::NXBAC_BAD_CONJUNCTION);
            }
            Action::Conjunction { id, clause, n_clauses }
        }
        35 => ct(c, n, version, depth)?,
        // `nat` is only met within `ct`, which takes it out itself.
        36 => {
            at_least(n, 16)?;
            nat(&mut c)?;
            return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
        }
        39 => {
            exact(n, 16)?;
            let (port, max_len) = (OfPort(c.u16()?), c.u32()?);
            if port == OfPort::NONE || port == OfPort::CONTROLLER || port == OfPort::NORMAL || max_len < 14 {
                return Err(if max_len < 14 { ARG } else { OfError::OFPBAC_BAD_OUT_PORT });
            }
            if port >= OfPort::MAX && !matches!(port, OfPort::IN_PORT | OfPort::LOCAL) {
                return Err(OfError::OFPBAC_BAD_OUT_PORT);
            }
            Action::OutputTrunc { port, max_len }
        }
        40 if version == Version::V10 => {
            exact(n, 16)?;
            c.skip(2)?;
            group(c.u32()?)?
        }
        42 => {
            at_least(n, 16)?;
            c.skip(6)?;
            Action::Clone(decode_list(c.rest(), version, depth + 1)?)
        }
        43 => {
            exact(n, 16)?;
            Action::CtClear
        }
        46 if version >= Version::V13 => encap(c)?,
        47 if version >= Version::V13 => {
            exact(n, 16)?;
            c.skip(2)?;
            match c.u32()? {
                0xfffe => Action::Decap(None),
                t => Action::Decap(Some(Be32::new(t))),
            }
        }
        48 if version >= Version::V13 => {
            exact(n, 16)?;
            Action::DecNshTtl
        }
        49 => {
            exact(n, 24)?;
            let (len, ofs) = (c.u16()?, u32::from(c.u16()?));
            let dst = Subfield { field: field_header(&mut c)?, ofs, n_bits: 1 };
            if c.rest().iter().any(|b| *b != 0) {
                return Err(ZERO);
            }
            Action::CheckPktLarger { len, dst: check(dst, true)? }
        }
        50 => {
            exact(n, 24)?;
            let field = field_header(&mut c)?;
            if c.rest().iter().any(|b| *b != 0) {
                return Err(ZERO);
            }
            Action::DeleteField(field)
        }
        254 | 255 if debug_actions_allowed() => {
            exact(n, 16)?;
            if subtype == 254 { Action::DebugSlow } else { Action::DebugRecirc }
        }
        _ => return Err(OfError::OFPBAC_BAD_VENDOR_TYPE),
    };
    out.push(action);
    Ok(())
}

fn bundle(mut c: Cursor<'_>, n: usize, load: bool) -> Result<Action, OfError> {
    at_least(n, 32)?;
    let (alg, fields, basis, member_type, count) = (c.u16()?, c.u16()?, c.u16()?, c.u32()?, c.u16()?);
    let packed = c.u16()?;
    let dst_header = c.u32()?;
    c.zeros(4, ZERO)?;
    let fields = hash_fields(fields).ok_or(ARG)?;
    let alg = match alg {
        0 => BundleAlg::ActiveBackup,
        1 => BundleAlg::Hrw,
        _ => return Err(ARG),
    };
    if usize::from(count) > 2048 {
        return Err(ARG);
    }
    // Members are named by the NXM header of in_port.
    if member_type != 2 {
        return Err(ARG);
    }
    let dst = if load {
        let (ofs, n_bits) = ofs_nbits(packed);
        let field = field_word(dst_header)?;
        if n_bits < 16 {
            vlog_warn_rl!(OFP_ACTIONS, (1, 5), "bundle_load action requires at least 16 bit destination.");
            return Err(ARG);
        }
        Some(check(Subfield { field, ofs, n_bits }, true)?)
    } else {
        if packed != 0 || dst_header != 0 {
            return Err(ZERO);
        }
        None
    };
    if c.len() < usize::from(count) * 2 {
        return Err(LEN);
    }
    let mut members = Vec::with_capacity(count.into());
    for _ in 0..count {
        members.push(OfPort(c.u16()?));
    }
    for port in &members {
        let ok = *port < OfPort::MAX || *port >= OfPort::IN_PORT;
        if !ok {
            return Err(OfError::OFPBAC_BAD_OUT_PORT);
        }
    }
    Ok(Action::Bundle(Bundle { fields, basis, alg, members, dst }))
}

fn controller2(mut c: Cursor<'_>) -> Result<Action, OfError> {
    c.zeros(6, ZERO)?;
    let mut out = Controller { v2: true, ..Default::default() };
    while !c.is_empty() {
        let (kind, body) = property(&mut c, OfError::OFPBPC_BAD_LEN)?;
        let mut p = Cursor::new(body, OfError::OFPBPC_BAD_LEN);
        match kind {
            0 => out.max_len = p.u16()?,
            1 => out.id = p.u16()?,
            2 => out.reason = p.u8()?,
            3 => {
                out.userdata = body.to_vec();
                p.take_rest();
            }
            4 => out.pause = true,
            5 => {
                p.skip(if body.len() >= 8 { 4 } else { 0 })?;
                out.meter = Some(p.u32()?);
            }
            _ => return Err(OfError::OFPBPC_BAD_TYPE),
        }
    }
    Ok(Action::Controller(out))
}

/// Takes a property: type, body without header and padding.
pub(crate) fn property<'a>(c: &mut Cursor<'a>, bad_len: OfError) -> Result<(u16, &'a [u8]), OfError> {
    let mut head = Cursor::new(c.rest(), bad_len);
    let (kind, len) = (head.u16()?, usize::from(head.u16()?));
    if len < 4 || len > c.len() {
        return Err(bad_len);
    }
    let padded = len.next_multiple_of(8);
    if padded > c.len() {
        return Err(bad_len);
    }
    let whole = c.take(padded)?;
    Ok((kind, &whole[4..len]))
}

fn source(src_header: u32, low: u32, imm: u32) -> Result<Source, OfError> {
    if src_header == 0 {
        return Ok(Source::Imm(imm));
    }
    let (ofs, n_bits) = ofs_nbits((low & 0xffff) as u16);
    let field = field_word(src_header)?;
    Ok(Source::Field(check(Subfield { field, ofs, n_bits }, false)?))
}

fn sample(mut c: Cursor<'_>, n: usize, subtype: u16) -> Result<Action, OfError> {
    exact(
        n,
        match subtype {
            29 => 24,
            51 => 40,
            _ => 32,
        },
    )?;
    let (probability, collector_set_id) = (c.u16()?, c.u32()?);
    let mut s = Sample {
        probability,
        collector_set_id,
        obs_domain_id: Source::Imm(0),
        obs_point_id: Source::Imm(0),
        sampling_port: OfPort::NONE,
        direction: SampleDirection::Default,
    };
    if subtype == 51 {
        let (dh, d) = (c.u32()?, c.u32()?);
        let (ph, p) = (c.u32()?, c.u32()?);
        s.obs_domain_id = source(dh, d >> 16, d)?;
        s.obs_point_id = source(ph, p >> 16, p)?;
    } else {
        s.obs_domain_id = Source::Imm(c.u32()?);
        s.obs_point_id = Source::Imm(c.u32()?);
    }
    if subtype != 29 {
        s.sampling_port = OfPort(c.u16()?);
        if subtype != 38 {
            s.direction = match c.u8()? {
                0 => SampleDirection::Default,
                1 => SampleDirection::Ingress,
                2 => SampleDirection::Egress,
                _ => return Err(OfError::OFPBAC_BAD_ARGUMENT),
            };
            c.zeros(5, ZERO)?;
        } else {
            c.zeros(6, ZERO)?;
        }
    }
    if s.probability == 0 {
        return Err(ARG);
    }
    Ok(Action::Sample(s))
}

fn ct(mut c: Cursor<'_>, n: usize, version: Version, depth: u32) -> Result<Action, OfError> {
    at_least(n, 24)?;
    let (flags, zone_src, packed, recirc_table) = (c.u16()?, c.u32()?, c.u16()?, c.u8()?);
    c.skip(3)?;
    let alg = c.u16()?;
    let zone = if zone_src == 0 {
        Source::Imm(packed.into())
    } else {
        let (ofs, n_bits) = ofs_nbits(packed);
        let field = field_word(zone_src)?;
        if n_bits != 16 {
            vlog_warn_rl!(OFP_ACTIONS, (1, 5), "zone n_bits {n_bits} not within valid range [16..16]");
            return Err(OfError::OFPBAC_BAD_SET_LEN);
        }
        Source::Field(check(Subfield { field, ofs, n_bits }, false)?)
    };
    if depth > MAX_DEPTH {
        return Err(ARG);
    }
    let mut out = Ct { flags, zone, recirc_table, alg, ..Default::default() };
    let mut left = c.rest();
    while !left.is_empty() {
        let (one, rest) = next_action(left, version)?;
        left = rest;
        if one.len() >= 16 && one[..2] == [0xff; 2] && one[4..10] == [0, 0, 0x23, 0x20, 0, 36] {
            let mut c = Cursor::new(&one[10..], LEN);
            out.nat = Some(nat(&mut c)?);
            continue;
        }
        decode_one(one, version, depth + 1, &mut out.actions)?;
    }
    if out.flags & CtFlags::FORCE != 0 && out.flags & CtFlags::COMMIT == 0 {
        return Err(ARG);
    }
    let translates = out.nat.as_ref().is_some_and(|n| n.flags & (NatFlags::SRC | NatFlags::DST) != 0);
    if out.flags & CtFlags::COMMIT == 0 && (translates || !out.actions.is_empty()) {
        vlog_warn_rl!(
            OFP_ACTIONS,
            (1, 5),
            "CT action requires commit flag if actions other than NAT without arguments are specified."
        );
        return Err(ARG);
    }
    Ok(Action::Ct(Box::new(out)))
}

/// `nat`; the cursor stands at byte 10 of the action.
fn nat(c: &mut Cursor<'_>) -> Result<Nat, OfError> {
    c.zeros(2, ZERO)?;
    let (flags, present) = (c.u16()?, c.u16()?);
    let (sd, proto) = (NatFlags::SRC | NatFlags::DST, NatFlags::PROTO_HASH | NatFlags::PROTO_RANDOM);
    if flags & sd == sd || flags & proto == proto {
        return Err(ARG);
    }
    if flags & sd == 0 && present != 0 {
        return Err(ARG);
    }
    let mut out = Nat { flags, ..Default::default() };
    let (v4, v6) = (present & 3, present & 12);
    if (v4 != 0 && v6 != 0) || present & 3 == 2 || present & 12 == 8 || present & 0x30 == 0x20 {
        return Err(ARG);
    }
    if v4 != 0 {
        let min = Be32::new(c.u32()?);
        let max = if present & 2 != 0 { Be32::new(c.u32()?) } else { Be32::ZERO };
        if min.is_zero() {
            return Err(ARG);
        }
        out.range = NatRange::V4(min, max);
    } else if v6 != 0 {
        let min = Be128::new(c.u128()?);
        let max = if present & 8 != 0 { Be128::new(c.u128()?) } else { Be128::ZERO };
        if min.is_zero() {
            return Err(ARG);
        }
        out.range = NatRange::V6(min, max);
    }
    if present & 0x10 != 0 {
        if v4 == 0 && v6 == 0 {
            return Err(ARG);
        }
        out.ports.0 = c.u16()?;
        if out.ports.0 == 0 {
            return Err(ARG);
        }
        if present & 0x20 != 0 {
            out.ports.1 = c.u16()?;
        }
    }
    Ok(out)
}

fn encap(mut c: Cursor<'_>) -> Result<Action, OfError> {
    let hdr_size = c.u16()?;
    let packet_type = c.u32()?;
    if !matches!(packet_type, 0 | 0x1_894f | 0x1_8847 | 0x1_8848) {
        return Err(OfError::NXBAC_BAD_HEADER_TYPE);
    }
    let mut props = Vec::new();
    while !c.is_empty() {
        let mut head = Cursor::new(c.rest(), OfError::NXBAC_BAD_ED_PROP);
        let (class, kind, len) = (head.u16()?, head.u8()?, usize::from(head.u8()?));
        if len < 4 || len > c.len() || len.next_multiple_of(8) > c.len() {
            return Err(LEN);
        }
        let whole = c.take(len.next_multiple_of(8))?;
        let mut p = Cursor::new(&whole[4..len], OfError::NXBAC_BAD_ED_PROP);
        props.push(match (class, kind) {
            (4, 1) => {
                if len > 8 {
                    return Err(OfError::NXBAC_BAD_ED_PROP);
                }
                EncapProp::NshMdType(p.u8()?)
            }
            (4, 2) => {
                let (class, kind, n) = (p.u16()?, p.u8()?, usize::from(p.u8()?));
                EncapProp::NshTlv { class, kind, data: p.take(n)?.to_vec() }
            }
            _ => return Err(OfError::NXBAC_UNKNOWN_ED_PROP),
        });
    }
    Ok(Action::Encap(Encap { packet_type: Be32::new(packet_type), hdr_size, props }))
}

/// Decodes the instructions of an OpenFlow 1.1+ flow.
pub fn decode_instructions(bytes: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    if version == Version::V10 {
        return decode_actions(bytes, version);
    }
    let bad_len = OfError::OFPBIC_BAD_LEN;
    if !bytes.len().is_multiple_of(8) {
        return Err(bad_len);
    }
    // By kind: goto, metadata, write, apply, clear, meter.
    let mut found: [Option<&[u8]>; 7] = [None; 7];
    let mut left = bytes;
    while !left.is_empty() {
        let mut c = Cursor::new(left, bad_len);
        let (kind, len) = (c.u16()?, usize::from(c.u16()?));
        if len < 8 || len % 8 != 0 || len > left.len() {
            return Err(bad_len);
        }
        let (one, rest) = left.split_at(len);
        left = rest;
        let fixed = match kind {
            1 | 5 => Some(8),
            6 if version >= Version::V13 && version <= Version::V14 => Some(8),
            2 => Some(24),
            3 | 4 => None,
            0xffff => return Err(OfError::OFPBIC_BAD_EXPERIMENTER),
            _ => return Err(OfError::OFPBIC_UNKNOWN_INST),
        };
        if fixed.is_some_and(|f| f != len) {
            return Err(bad_len);
        }
        let slot = &mut found[usize::from(kind)];
        if slot.is_some() {
            return Err(OfError::OFPBIC_DUP_INST);
        }
        *slot = Some(one);
    }
    let mut out = Vec::new();
    let body = |i: usize| found[i].map(|b| Cursor::new(&b[4..], bad_len));
    if let Some(mut c) = body(6) {
        out.push(Action::Meter(c.u32()?));
    }
    if let Some(mut c) = body(4) {
        c.skip(4)?;
        out.extend(decode_list(c.rest(), version, 0)?);
    }
    if body(5).is_some() {
        out.push(Action::ClearActions);
    }
    if let Some(mut c) = body(3) {
        c.skip(4)?;
        let set = decode_list(c.rest(), version, 1)?;
        if !set.iter().all(allowed_in_action_set) {
            vlog_warn_rl!(OFP_ACTIONS, (1, 5), "disallowed action in action set");
            return Err(OfError::OFPBAC_BAD_TYPE);
        }
        out.push(Action::WriteActions(set));
    }
    if let Some(mut c) = body(2) {
        c.skip(4)?;
        let (value, mask) = (c.u64()?, c.u64()?);
        out.push(Action::WriteMetadata { value, mask });
    }
    if let Some(mut c) = body(1) {
        out.push(Action::GotoTable(c.u8()?));
    }
    Ok(out)
}

/// Whether an action may be in an action set.
pub fn allowed_in_action_set(a: &Action) -> bool {
    use Action::*;
    matches!(
        a,
        DecMplsTtl
            | DecTtl(_)
            | DecNshTtl
            | Group(_)
            | Output { .. }
            | OutputTrunc { .. }
            | PopMpls(_)
            | PushMpls(_)
            | PushVlan(_)
            | RegMove { .. }
            | SetField(_)
            | SetEthDst(_)
            | SetEthSrc(_)
            | SetIpDscp(_)
            | SetIpEcn(_)
            | SetIpTtl(_)
            | SetIpv4Dst(_)
            | SetIpv4Src(_)
            | SetL4Dst(_)
            | SetL4Src(_)
            | SetMplsLabel(_)
            | SetMplsTc(_)
            | SetMplsTtl(_)
            | SetQueue(_)
            | SetTunnel { .. }
            | SetVlanPcp { .. }
            | SetVlanVid { .. }
            | StripVlan(_)
            | Resubmit { .. }
            | Ct(_)
            | CtClear
            | Encap(_)
            | Decap(_)
    )
}

static DEBUG_ACTIONS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Lets `debug_recirc` and `debug_slow` in (`--enable-dummy`).
pub fn allow_debug_actions() {
    DEBUG_ACTIONS.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Whether `debug_recirc` and `debug_slow` are understood.
pub fn debug_actions_allowed() -> bool {
    DEBUG_ACTIONS.load(std::sync::atomic::Ordering::Relaxed)
}
