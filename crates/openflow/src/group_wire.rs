//! Groups and meters on the wire.

use ib_base::vlog::module::OFP_GROUP;
use ib_base::vlog_warn_rl;
use ib_flow::OfPort;
use ib_flow::wire::nxm;

use crate::action_decode::{decode_actions, property};
use crate::action_encode::encode_actions;
use crate::error::OfError;
use crate::match_wire::nxm_error;
use crate::message::*;
use crate::ports::{port_from_wire32, port_to_wire32};
use crate::wire::{Buf, Cursor};

const LEN: OfError = OfError::OFPBRC_BAD_LEN;
const BAD_BUCKET: OfError = OfError::OFPGMFC_BAD_BUCKET;
/// ONF's and Nicira's experimenter property, of groups.
const EXPERIMENTER_PROP: u16 = 0xffff;
/// Netronome's vendor id, of the selection method.
const NTR: u32 = 0x0000_154d;
const NTR_SELECTION_METHOD: u32 = 1;

fn kind_of(n: u8) -> Result<GroupType, OfError> {
    Ok(match n {
        0 => GroupType::All,
        1 => GroupType::Select,
        2 => GroupType::Indirect,
        3 => GroupType::FastFailover,
        _ => return Err(OfError::OFPGMFC_BAD_TYPE),
    })
}

fn command_of(n: u16) -> Result<GroupModCommand, OfError> {
    Ok(match n {
        0 => GroupModCommand::Add,
        1 => GroupModCommand::Modify,
        2 => GroupModCommand::Delete,
        0x8000 => GroupModCommand::AddOrMod,
        3 => GroupModCommand::InsertBucket,
        5 => GroupModCommand::RemoveBucket,
        _ => return Err(OfError::OFPGMFC_BAD_COMMAND),
    })
}

/// Decodes a group_mod; `new` is the layout of OpenFlow 1.5, also Nicira's in 1.0. What only a switch minds goes into
/// `refused`.
pub fn decode_mod(
    c: &mut Cursor<'_>,
    v: Version,
    new: bool,
    refused: &mut Option<OfError>,
) -> Result<GroupMod, OfError> {
    let (command, kind) = (command_of(c.u16()?), kind_of(c.u8()?));
    c.skip(1)?;
    let group_id = c.u32()?;
    let buckets;
    let (mut command_bucket_id, mut props) = (BUCKET_ALL, GroupProps::default());
    // What is wrong with buckets comes before what is wrong with the command.
    if new {
        let buckets_len = usize::from(c.u16()?);
        c.skip(2)?;
        command_bucket_id = c.u32()?;
        let is_all = command_bucket_id == BUCKET_ALL;
        let fits = match command {
            Ok(GroupModCommand::InsertBucket) => !is_all,
            Ok(GroupModCommand::RemoveBucket) => true,
            _ => is_all,
        };
        if !fits {
            return Err(BAD_BUCKET);
        }
        let mut list = Cursor::new(c.take(buckets_len)?, LEN);
        buckets = buckets15(&mut list, v, kind.unwrap_or(GroupType::All))?;
        props = properties(c, kind?, command?)?;
    } else {
        buckets = buckets11(c, v)?;
        if matches!(command, Ok(GroupModCommand::InsertBucket | GroupModCommand::RemoveBucket)) {
            // Without an id there is no telling which bucket.
            *refused = Some(OfError::OFPGMFC_BAD_COMMAND);
        }
    }
    let gm = GroupMod { command: command?, kind: kind?, group_id, command_bucket_id, buckets, props };
    check_mod(&gm)?;
    Ok(gm)
}

/// Checks that do not depend on the layout.
fn check_mod(gm: &GroupMod) -> Result<(), OfError> {
    if gm.kind == GroupType::Indirect
        && !matches!(gm.command, GroupModCommand::Delete)
        && gm.buckets.len() != 1
        && matches!(gm.command, GroupModCommand::Add | GroupModCommand::Modify | GroupModCommand::AddOrMod)
    {
        return Err(OfError::OFPGMFC_INVALID_GROUP);
    }
    for b in &gm.buckets {
        if gm.kind != GroupType::Select && b.weight > 0 && gm.command != GroupModCommand::Delete {
            return Err(OfError::OFPGMFC_INVALID_GROUP);
        }
        let liveness = b.watch_port != OfPort::NONE || b.watch_group != OFPG_ANY;
        if matches!(gm.kind, GroupType::All | GroupType::Indirect) && liveness {
            return Err(OfError::OFPGMFC_WATCH_UNSUPPORTED);
        }
        if gm.kind == GroupType::FastFailover && !liveness {
            return Err(OfError::OFPGMFC_INVALID_GROUP);
        }
    }
    Ok(())
}

/// Buckets of OpenFlow 1.1 to 1.4.
pub fn buckets11(c: &mut Cursor<'_>, v: Version) -> Result<Vec<Bucket>, OfError> {
    let mut out = Vec::new();
    while !c.is_empty() {
        let mut head = Cursor::new(c.rest(), BAD_BUCKET);
        let len = usize::from(head.u16()?);
        if len < 16 || len > c.len() || len % 8 != 0 {
            return Err(BAD_BUCKET);
        }
        let mut p = Cursor::new(&c.take(len)?[2..], BAD_BUCKET);
        let (weight, watch_port, watch_group) = (p.u16()?, p.u32()?, p.u32()?);
        p.skip(4)?;
        let actions = decode_actions(p.rest(), v)?;
        let watch_port = port_from_wire32(watch_port).map_err(|_| OfError::OFPGMFC_BAD_WATCH)?;
        out.push(Bucket { weight, watch_port, watch_group, bucket_id: out.len() as u32, actions });
    }
    Ok(out)
}

/// Buckets of OpenFlow 1.5.
pub fn buckets15(c: &mut Cursor<'_>, v: Version, kind: GroupType) -> Result<Vec<Bucket>, OfError> {
    let mut out: Vec<Bucket> = Vec::new();
    while !c.is_empty() {
        let mut head = Cursor::new(c.rest(), BAD_BUCKET);
        let (len, actions_len, bucket_id) = (usize::from(head.u16()?), usize::from(head.u16()?), head.u32()?);
        if len < 8 || len > c.len() || len % 8 != 0 {
            return Err(BAD_BUCKET);
        }
        let mut p = Cursor::new(&c.take(len)?[8..], BAD_BUCKET);
        if bucket_id > 0xffff_ff00 {
            return Err(OfError::OFPGMFC_BAD_BUCKET);
        }
        if actions_len > p.len() {
            return Err(BAD_BUCKET);
        }
        let actions = decode_actions(p.take(actions_len)?, v)?;
        let weight = u16::from(kind == GroupType::Select);
        let mut b = Bucket { weight, watch_port: OfPort::NONE, watch_group: OFPG_ANY, bucket_id, actions };
        while !p.is_empty() {
            let (prop, body) = property(&mut p, OfError::OFPBPC_BAD_LEN)?;
            let mut q = Cursor::new(body, OfError::OFPBPC_BAD_LEN);
            match prop {
                0 => b.weight = q.u16()?,
                1 => {
                    b.watch_port = port_from_wire32(q.u32()?).map_err(|_| OfError::OFPGMFC_BAD_WATCH)?;
                }
                2 => b.watch_group = q.u32()?,
                _ => return Err(OfError::OFPBPC_BAD_TYPE),
            }
        }
        if out.iter().any(|o| o.bucket_id == bucket_id) {
            vlog_warn_rl!(OFP_GROUP, (1, 5), "Duplicate bucket id");
            return Err(BAD_BUCKET);
        }
        out.push(b);
    }
    Ok(out)
}

fn properties(c: &mut Cursor<'_>, kind: GroupType, command: GroupModCommand) -> Result<GroupProps, OfError> {
    let mut out = GroupProps::default();
    while !c.is_empty() {
        let (prop, body) = property(c, OfError::OFPBPC_BAD_LEN)?;
        if prop != EXPERIMENTER_PROP {
            return Err(OfError::OFPBPC_BAD_TYPE);
        }
        let mut p = Cursor::new(body, OfError::OFPBPC_BAD_LEN);
        let (vendor, exp_type) = (p.u32()?, p.u32()?);
        if vendor != NTR || exp_type != NTR_SELECTION_METHOD {
            return Err(OfError::OFPBPC_BAD_EXP_TYPE);
        }
        if kind != GroupType::Select {
            vlog_warn_rl!(
                OFP_GROUP,
                (1, 5),
                "ntr selection method property is only allowed for select groups"
            );
            return Err(OfError::OFPBPC_BAD_VALUE);
        }
        if !matches!(command, GroupModCommand::Add | GroupModCommand::Modify | GroupModCommand::AddOrMod) {
            return Err(OfError::OFPBPC_BAD_VALUE);
        }
        p.skip(4)?;
        out.selection_method = p.string(16)?;
        if !matches!(out.selection_method.as_str(), "hash" | "dp_hash") {
            vlog_warn_rl!(
                OFP_GROUP,
                (1, 5),
                "ntr selection method '{}' is not supported",
                out.selection_method
            );
            return Err(OfError::OFPBPC_BAD_VALUE);
        }
        out.selection_method_param = p.u64()?;
        let mut rest = p.rest();
        while rest.len() >= 4 {
            let e = nxm::pull_entry(&mut rest).map_err(nxm_error)?;
            let Some(f) = e.field else { continue };
            out.fields.push((f.id, e.value.bytes(e.width).into()));
        }
    }
    Ok(out)
}

fn put_buckets11(b: &mut Buf, buckets: &[Bucket], kind: GroupType, v: Version) {
    for x in buckets {
        let start = b.len();
        b.u16(0);
        b.u16(if kind == GroupType::Select { x.weight } else { 0 });
        b.u32(port_to_wire32(x.watch_port));
        b.u32(x.watch_group);
        b.u32(0);
        encode_actions(b, &x.actions, v);
        b.patch_len(start, start);
    }
}

fn put_buckets15(b: &mut Buf, buckets: &[Bucket], kind: GroupType, v: Version) {
    for x in buckets {
        let start = b.len();
        b.u16(0);
        b.u16(0);
        b.u32(x.bucket_id);
        let actions = b.len();
        encode_actions(b, &x.actions, v);
        b.patch_len(start + 2, actions);
        if kind == GroupType::Select {
            b.u16(0);
            b.u16(8);
            b.u16(x.weight);
            b.u16(0);
        }
        if x.watch_port != OfPort::NONE {
            b.u16(1);
            b.u16(8);
            b.u32(port_to_wire32(x.watch_port));
        }
        if x.watch_group != OFPG_ANY {
            b.u16(2);
            b.u16(8);
            b.u32(x.watch_group);
        }
        b.patch_len(start, start);
    }
}

fn put_properties(b: &mut Buf, p: &GroupProps, v: Version) {
    if p.selection_method.is_empty() {
        return;
    }
    let start = b.len();
    b.u16(EXPERIMENTER_PROP);
    b.u16(0);
    b.u32(NTR);
    b.u32(NTR_SELECTION_METHOD);
    b.u32(0);
    b.string(&p.selection_method, 16);
    b.u64(p.selection_method_param);
    for (field, mask) in &p.fields {
        nxm::put_header(field.field(), false, mask.len() as u32, v.to_wire(), &mut b.0);
        b.bytes(mask);
    }
    b.patch_len(start + 2, start);
    b.pad8(start);
}

/// Appends a group_mod's body.
pub fn encode_mod(b: &mut Buf, gm: &GroupMod, v: Version) {
    b.u16(gm.command as u16);
    b.u8(gm.kind as u8);
    b.u8(0);
    b.u32(gm.group_id);
    if v == Version::V15 || v == Version::V10 {
        let at = b.len();
        b.u16(0);
        b.u16(0);
        b.u32(gm.command_bucket_id);
        let start = b.len();
        put_buckets15(b, &gm.buckets, gm.kind, v);
        b.patch_len(at, start);
        put_properties(b, &gm.props, v);
    } else {
        put_buckets11(b, &gm.buckets, gm.kind, v);
    }
}

/// Takes one group's description; `new` is the layout of OpenFlow 1.5.
pub fn decode_desc(c: &mut Cursor<'_>, v: Version, new: bool) -> Result<GroupDesc, OfError> {
    let mut head = Cursor::new(c.rest(), LEN);
    let len = usize::from(head.u16()?);
    if len < if new { 16 } else { 8 } || len > c.len() {
        return Err(LEN);
    }
    let mut p = Cursor::new(&c.take(len)?[2..], LEN);
    let kind = kind_of(p.u8()?)?;
    p.skip(1)?;
    let group_id = p.u32()?;
    if !new {
        return Ok(GroupDesc {
            group_id,
            kind,
            buckets: buckets11(&mut p, v)?,
            props: GroupProps::default(),
        });
    }
    let buckets_len = usize::from(p.u16()?);
    p.skip(6)?;
    let mut list = Cursor::new(p.take(buckets_len)?, LEN);
    let buckets = buckets15(&mut list, v, kind)?;
    Ok(GroupDesc { group_id, kind, buckets, props: properties(&mut p, kind, GroupModCommand::Add)? })
}

/// Appends one group's description.
pub fn encode_desc(b: &mut Buf, g: &GroupDesc, v: Version) {
    let start = b.len();
    b.u16(0);
    b.u8(g.kind as u8);
    b.u8(0);
    b.u32(g.group_id);
    if v == Version::V15 || v == Version::V10 {
        let at = b.len();
        b.zeros(8);
        let list = b.len();
        put_buckets15(b, &g.buckets, g.kind, v);
        b.patch_len(at, list);
        put_properties(b, &g.props, v);
    } else {
        put_buckets11(b, &g.buckets, g.kind, v);
    }
    b.patch_len(start, start);
}

/// Takes bands until the end.
pub fn bands(c: &mut Cursor<'_>) -> Result<Vec<MeterBand>, OfError> {
    let mut out = Vec::new();
    while !c.is_empty() {
        let mut head = Cursor::new(c.rest(), OfError::OFPBRC_BAD_LEN);
        let (kind, len) = (head.u16()?, usize::from(head.u16()?));
        if len != 16 || len > c.len() {
            return Err(OfError::OFPBRC_BAD_LEN);
        }
        let mut p = Cursor::new(&c.take(16)?[4..], LEN);
        let (rate, burst) = (p.u32()?, p.u32()?);
        let prec_level = p.u8()?;
        if !(1..=2).contains(&kind) {
            return Err(OfError::OFPMMFC_BAD_BAND);
        }
        out.push(MeterBand { kind, prec_level: if kind == 2 { prec_level } else { 0 }, rate, burst });
    }
    Ok(out)
}

/// Decodes a meter_mod. What only a switch minds goes into `refused`.
pub fn decode_meter_mod(c: &mut Cursor<'_>, refused: &mut Option<OfError>) -> Result<MeterMod, OfError> {
    let (command, flags, meter_id) = (c.u16()?, c.u16()?, c.u32()?);
    if command > 2 {
        return Err(OfError::OFPMMFC_BAD_COMMAND);
    }
    let mut meter = MeterConfig { meter_id, flags, bands: Vec::new() };
    if command == 2 {
        // Flags and bands mean nothing there.
        meter.flags = 0;
    } else {
        let rates = MeterFlags::KBPS | MeterFlags::PKTPS;
        if flags & rates == rates {
            return Err(OfError::OFPMMFC_BAD_FLAGS);
        }
        meter.bands = bands(c)?;
    }
    if meter_id == 0 || (meter_id > OFPM_MAX && meter_id < 0xffff_fffd) {
        // "All" is for the switch to refuse.
        *refused = Some(OfError::OFPMMFC_INVALID_METER);
    } else if meter.flags & !0xf != 0 {
        *refused = Some(OfError::OFPMMFC_BAD_FLAGS);
    }
    Ok(MeterMod { command, meter })
}

/// Appends bands.
pub fn put_bands(b: &mut Buf, bands: &[MeterBand]) {
    for band in bands {
        b.u16(band.kind);
        b.u16(16);
        b.u32(band.rate);
        b.u32(band.burst);
        b.u8(if band.kind == 2 { band.prec_level } else { 0 });
        b.zeros(3);
    }
}
