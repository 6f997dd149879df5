//! Commands about groups, meters, tunnel options and connections.

use std::net::{Ipv4Addr, Ipv6Addr};

use ib_base::vlog::module::OFP_GROUP;
use ib_base::vlog_warn;
use ib_flow::fields::Protocols;
use ib_openflow::group_text::{parse_group_mod, parse_meter_mod};
use ib_openflow::message::*;

use super::flows::{lines, read_file, send_bundle};
use super::show::send_all;
use super::{Ctl, Fail, Result};
use crate::io::Io;

fn send_groups(ctl: &mut Ctl, switch: &str, list: Vec<GroupMod>, usable: Protocols) -> Result<()> {
    if ctl.options.bundle {
        return send_bundle(ctl, switch, list.into_iter().map(Message::GroupMod), usable);
    }
    let allowed = usable.and(ctl.options.protocols);
    if allowed == Protocols::NONE {
        ctl.open_for_flow_mod(switch, usable)?;
    }
    let mut conn = ctl.open(switch)?;
    for g in list {
        let name = match g.command {
            GroupModCommand::InsertBucket => "insert-bucket",
            GroupModCommand::RemoveBucket => "remove-bucket",
            _ => "",
        };
        if !name.is_empty() && !matches!(conn.version, Version::V10 | Version::V15) {
            return Err(format!("{name} needs OpenFlow 1.5 or later ('-O OpenFlow15')").into());
        }
        send_all(ctl, &mut conn, &Message::GroupMod(g))?;
    }
    Ok(())
}

fn group_mod(ctl: &mut Ctl, args: &[String], command: GroupModCommand, io: &mut Io<'_>) -> Result<()> {
    if args.get(1).is_some_and(|a| a == "-") {
        return group_file(ctl, &args[0], "-", Some(command), io);
    }
    ctl.load_names_tables_first(&args[0])?;
    let (g, usable) = parse_group_mod(args.get(1).map_or("", String::as_str), Some(command), ctl.names())?;
    send_groups(ctl, &args[0], vec![g], usable)
}

fn group_file(
    ctl: &mut Ctl,
    switch: &str,
    file: &str,
    command: Option<GroupModCommand>,
    io: &mut Io<'_>,
) -> Result<()> {
    ctl.load_names_tables_first(switch)?;
    let text = read_file(file, io)?;
    let mut usable = Protocols::ANY;
    let mut list = Vec::new();
    for (line, s) in lines(&text) {
        let (g, u) = parse_group_mod(&s, command, ctl.names())
            .map_err(|e| Fail::Msg(format!("{file}:{line}: {e}")))?;
        usable = usable.and(u);
        list.push(g);
    }
    send_groups(ctl, switch, list, usable)
}

pub(super) fn add_group(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    group_mod(ctl, args, GroupModCommand::Add, io)
}

pub(super) fn add_groups(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    group_file(ctl, &args[0], args.get(1).map_or("-", String::as_str), None, io)
}

pub(super) fn mod_group(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let command = if ctl.options.may_create { GroupModCommand::AddOrMod } else { GroupModCommand::Modify };
    group_mod(ctl, args, command, io)
}

pub(super) fn del_groups(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let all = vec![args[0].clone(), "group_id=all".into()];
    group_mod(ctl, if args.len() > 1 { args } else { &all }, GroupModCommand::Delete, io)
}

pub(super) fn insert_buckets(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    group_mod(ctl, args, GroupModCommand::InsertBucket, io)
}

pub(super) fn remove_buckets(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    group_mod(ctl, args, GroupModCommand::RemoveBucket, io)
}

/// A group by number or keyword. What is neither is warned of, and means all groups.
fn group_arg(args: &[String]) -> u32 {
    let Some(s) = args.get(1) else { return OFPG_ALL };
    ib_openflow::flow_text::parse_group(s).unwrap_or_else(|| {
        vlog_warn!(
            OFP_GROUP,
            "{s} is not a valid group ID.  (Valid group IDs are 32-bit nonnegative integers or the keywords \
             ANY or ALL.)"
        );
        OFPG_ALL
    })
}

/// The group whose statistics are asked for, as the text of a deletion names it.
fn group_stats_arg(ctl: &Ctl, args: &[String]) -> Result<u32> {
    let Some(s) = args.get(1) else { return Ok(OFPG_ALL) };
    let (gm, _) = parse_group_mod(s, Some(GroupModCommand::Delete), ctl.names())?;
    Ok(gm.group_id)
}

pub(super) fn dump_groups(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let id = group_arg(args);
    let mut conn = ctl.open(&args[0])?;
    let id = if matches!(conn.version, Version::V10 | Version::V15) { id } else { OFPG_ALL };
    let request = Message::MultipartRequest(MultipartRequest::GroupDesc(id));
    ctl.dump_with_names(&args[0], &mut conn, &request, io)
}

pub(super) fn dump_group_stats(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.load_names_tables_first(&args[0])?;
    let id = group_stats_arg(ctl, args)?;
    let mut conn = ctl.open(&args[0])?;
    ctl.dump(&mut conn, &Message::MultipartRequest(MultipartRequest::Group(id)), io)
}

pub(super) fn dump_group_features(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    ctl.dump(&mut conn, &Message::MultipartRequest(MultipartRequest::GroupFeatures), io)
}

/// OpenFlow 1.3 and later, which have meters.
const METERS: Protocols = Protocols(0x1c0);

fn meter_arg(args: &[String]) -> Result<u32> {
    match args.get(1) {
        None => Ok(OFPM_ALL),
        Some(s) => Ok(parse_meter_mod(s, 2)?.meter.meter_id),
    }
}

fn send_meter(ctl: &mut Ctl, switch: &str, m: MeterMod) -> Result<()> {
    let mut conn = ctl.open_for_flow_mod(switch, METERS)?;
    send_all(ctl, &mut conn, &Message::MeterMod(m))
}

pub(super) fn add_meter(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let m = parse_meter_mod(&args[1], 0)?;
    send_meter(ctl, &args[0], m)
}

pub(super) fn mod_meter(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let m = parse_meter_mod(&args[1], 1)?;
    send_meter(ctl, &args[0], m)
}

pub(super) fn del_meters(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let meter_id = meter_arg(args)?;
    send_meter(ctl, &args[0], MeterMod { command: 2, meter: MeterConfig { meter_id, ..Default::default() } })
}

fn meter_request(ctl: &mut Ctl, switch: &str, r: MultipartRequest, io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open_for_flow_mod(switch, METERS)?;
    ctl.dump(&mut conn, &Message::MultipartRequest(r), io)
}

pub(super) fn dump_meters(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let id = meter_arg(args)?;
    meter_request(ctl, &args[0], MultipartRequest::MeterConfig(id), io)
}

pub(super) fn meter_stats(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let id = meter_arg(args)?;
    meter_request(ctl, &args[0], MultipartRequest::Meter(id), io)
}

pub(super) fn meter_features(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    meter_request(ctl, &args[0], MultipartRequest::MeterFeatures, io)
}

/// `{class=CLASS,type=TYPE,len=LEN}->tun_metadataN`, separated by commas.
fn parse_tlv_maps(s: &str) -> Result<Vec<TlvMap>> {
    let mut out = Vec::new();
    let mut rest = s.trim();
    while !rest.is_empty() {
        let bad = || Fail::Msg("invalid tlv mapping".into());
        let inner = rest.strip_prefix('{').ok_or_else(bad)?;
        let (fields, after) = inner.split_once('}').ok_or_else(bad)?;
        let after = after.strip_prefix("->tun_metadata").ok_or_else(bad)?;
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let index = after[..end].parse().map_err(|_| bad())?;
        let (mut class, mut kind, mut len) = (None, None, None);
        for f in fields.split(',') {
            let (k, v) = f.split_once('=').ok_or_else(bad)?;
            let v = v.trim();
            let n = match v.strip_prefix("0x") {
                Some(h) => u32::from_str_radix(h, 16).ok(),
                None => v.parse().ok(),
            }
            .ok_or_else(bad)?;
            match k.trim() {
                "class" => class = u16::try_from(n).ok(),
                "type" => kind = u8::try_from(n).ok(),
                "len" => len = u8::try_from(n).ok(),
                _ => return Err(bad()),
            }
        }
        out.push(TlvMap {
            class: class.ok_or_else(bad)?,
            kind: kind.ok_or_else(bad)?,
            len: len.ok_or_else(bad)?,
            index,
        });
        rest = after[end..].trim_start_matches([',', ' ']);
    }
    Ok(out)
}

/// NXM and OXM, whose fields can have any name: `tun_metadata*` among them.
const WITH_TUNNEL_METADATA: Protocols = Protocols(0x1ec);

fn tlv_mod(ctl: &mut Ctl, switch: &str, command: u16, maps: Vec<TlvMap>) -> Result<()> {
    let mut conn = ctl.open_for_flow_mod(switch, WITH_TUNNEL_METADATA)?;
    send_all(ctl, &mut conn, &Message::TlvTableMod(TlvTableMod { command, maps }))
}

pub(super) fn add_tlv_map(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let maps = parse_tlv_maps(&args[1])?;
    tlv_mod(ctl, &args[0], 0, maps)
}

pub(super) fn del_tlv_map(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    match args.get(1) {
        Some(s) => {
            let maps = parse_tlv_maps(s)?;
            tlv_mod(ctl, &args[0], 1, maps)
        }
        None => tlv_mod(ctl, &args[0], 2, Vec::new()),
    }
}

pub(super) fn dump_tlv_map(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    ctl.dump(&mut conn, &Message::TlvTableRequest, io)
}

pub(super) fn ct_flush_zone(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let zone = args[1].parse().map_err(|_| Fail::Msg(format!("invalid zone_id \"{}\"", args[1])))?;
    let mut conn = ctl.open(&args[0])?;
    send_all(ctl, &mut conn, &Message::CtFlushZone(zone))
}

/// A number in decimal or hexadecimal.
fn wide_number(s: &str) -> Option<u128> {
    match s.strip_prefix("0x") {
        Some(h) => u128::from_str_radix(h, 16).ok(),
        None => s.parse().ok(),
    }
}

pub(super) fn ct_flush(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let mut f = CtFlush::default();
    let mut tuples = 0;
    for a in &args[1..] {
        if let Some(z) = a.strip_prefix("zone=") {
            f.zone = Some(z.parse().map_err(|_| Fail::Msg("Failed to parse zone".into()))?);
        } else if let Some(m) = a.strip_prefix("mark=") {
            let (v, m) = m.split_once('/').unwrap_or((m, "0xffffffff"));
            let n = |s| wide_number(s).and_then(|v| u32::try_from(v).ok());
            let (Some(v), Some(m)) = (n(v), n(m)) else { return Err("Failed to parse mark".into()) };
            f.mark = Some((v, m));
        } else if let Some(l) = a.strip_prefix("labels=") {
            let (v, m) = l.split_once('/').map_or((l, None), |(v, m)| (v, Some(m)));
            let value = wide_number(v);
            let mask = m.map_or(Some(u128::MAX), wide_number);
            let (Some(v), Some(m)) = (value, mask) else { return Err("Failed to parse labels".into()) };
            f.labels = Some((v, m));
        } else {
            let (t, proto) = ct_tuple(a).map_err(|e| format!("Failed to parse ct-tuple: {e}"))?;
            let v4 =
                |t: &CtTuple| [t.src, t.dst].iter().flatten().next().map(|a| a.to_ipv4_mapped().is_some());
            if let (Some(a), Some(b), Some(at)) = (v4(&f.orig), v4(&t), t.src.or(t.dst))
                && a != b
            {
                return Err(format!("Failed to parse ct-tuple: the L3 protocol does not match {at}").into());
            }
            if proto != 0 {
                f.ip_proto = proto;
            }
            if tuples == 0 {
                f.orig = t
            } else {
                f.reply = t
            }
            tuples += 1;
        }
    }
    let mut conn = ctl.open(&args[0])?;
    send_all(ctl, &mut conn, &Message::CtFlush(f))
}

fn ct_tuple(s: &str) -> std::result::Result<(CtTuple, u8), String> {
    let mut t = CtTuple::default();
    let mut proto = 0;
    for part in s.split([',', ' ']).filter(|p| !p.is_empty()) {
        let (k, v) = part.split_once('=').ok_or_else(|| format!("invalid conntrack tuple field: {part}"))?;
        let bad = || format!("failed to parse field {k}");
        let v4 = || v.parse::<Ipv4Addr>().map(|a| a.to_ipv6_mapped()).map_err(|_| bad());
        let v6 = || v.parse::<Ipv6Addr>().map_err(|_| bad());
        match k {
            "ct_nw_src" => t.src = Some(v4()?),
            "ct_nw_dst" => t.dst = Some(v4()?),
            "ct_ipv6_src" => t.src = Some(v6()?),
            "ct_ipv6_dst" => t.dst = Some(v6()?),
            "ct_nw_proto" => proto = v.parse().map_err(|_| bad())?,
            "ct_tp_src" => t.src_port = Some(v.parse().map_err(|_| bad())?),
            "ct_tp_dst" => t.dst_port = Some(v.parse().map_err(|_| bad())?),
            "icmp_id" => t.icmp.0 = Some(v.parse().map_err(|_| bad())?),
            "icmp_type" => t.icmp.1 = Some(v.parse().map_err(|_| bad())?),
            "icmp_code" => t.icmp.2 = Some(v.parse().map_err(|_| bad())?),
            _ => return Err(format!("invalid conntrack tuple field: {k}")),
        }
    }
    let ports = t.src_port.is_some() || t.dst_port.is_some();
    let icmp = t.icmp != Default::default();
    if proto == 0 && (ports || icmp) {
        return Err("port is set without protocol".into());
    }
    if icmp != matches!(proto, 1 | 58) && icmp || ports && matches!(proto, 1 | 58) {
        return Err("invalid L4 fields".into());
    }
    Ok((t, proto))
}
