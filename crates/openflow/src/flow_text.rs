//! Flows from `ovs-ofctl`'s text, and flows as text.
//!
//! [`parse_flow_mod`] reads the syntax of ovs-ofctl(8), "Flow Syntax"; [`format_flow_stats`] prints the lines of
//! `dump-flows`. A flow comes with the protocols that can carry it, from which the caller chooses.

use std::fmt::Write;

use ib_flow::fields::Protocols;
use ib_flow::text::parse::{parse_field, parse_match_key, set_default_packet_type, usable_together};
use ib_flow::{Match, OfPort, Subfield};

use crate::action_check::{CheckParams, check};
use crate::action_format::format_actions_of;
use crate::action_parse::{NXM_OF11_UP, OF11_UP, OF13_UP, parse_actions, parse_instructions};
use crate::error::OfError;
use crate::message::*;
use crate::names::{Names, parse_port, parse_table, put_table};
use crate::text_util::*;
use crate::value;

/// OpenFlow 1.2 and later.
const OF12_UP: Protocols = Protocols(0x1e0);
/// Protocols whose flow_mods carry a table.
const WITH_TABLE: Protocols = Protocols(0x1fa);

/// What a flow text is for: the keys that it may have depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A flow_mod with this command.
    Mod(FlowModCommand),
    /// A flow_mod whose text may begin with the command (`add`, `delete`, ...).
    AnyMod,
    /// A selection of flows for statistics.
    Stats,
}

struct Keys {
    out_port: bool,
    actions: bool,
    importance: bool,
    timeout: bool,
    priority: bool,
    flags: bool,
}

/// Parses a flow. The error is the text that the user sees.
pub fn parse_flow_mod(s: &str, purpose: Purpose, names: Names<'_>) -> Result<(FlowMod, Protocols), String> {
    let mut s = s;
    let (command, stats) = match purpose {
        Purpose::Mod(c) => (c, false),
        Purpose::Stats => (FlowModCommand::Delete, true),
        Purpose::AnyMod => {
            s = s.trim_start_matches([' ', '\t', '\r', '\n']);
            let word = s.split([',', ' ', '\t', '\r', '\n']).next().unwrap_or("");
            let command = match word {
                "add" => Some(FlowModCommand::Add),
                "delete" => Some(FlowModCommand::Delete),
                "delete_strict" => Some(FlowModCommand::DeleteStrict),
                "modify" => Some(FlowModCommand::Modify),
                "modify_strict" => Some(FlowModCommand::ModifyStrict),
                _ => None,
            };
            if command.is_some() {
                s = &s[word.len()..];
            }
            (command.unwrap_or(FlowModCommand::Add), false)
        }
    };
    use FlowModCommand as C;
    let creates = matches!(command, C::Add | C::Modify | C::ModifyStrict);
    let keys = Keys {
        out_port: !creates,
        actions: creates,
        importance: command == C::Add,
        timeout: creates,
        priority: creates || command == C::DeleteStrict,
        flags: creates,
    };
    let mut fm = FlowMod { command, ..Default::default() };
    let mut usable = Protocols::ANY;
    let modify = matches!(command, C::Modify | C::ModifyStrict);
    if modify {
        fm.new_cookie = u64::MAX;
    }
    let mut actions = "";
    if keys.actions {
        let at = s.find("action").ok_or("must specify an action")?;
        let eq = s[at..].find('=').ok_or("must specify an action")?;
        actions = &s[at + eq + 1..];
        s = &s[..at];
    }
    while let Some((name, v)) = next_key_value(&mut s) {
        let mut flag = |bit: u16, limit: Protocols| {
            fm.flags |= bit;
            usable = usable.and(limit);
        };
        match name {
            "send_flow_rem" if keys.flags => flag(FlowModFlags::SEND_FLOW_REM, Protocols::ANY),
            "check_overlap" if keys.flags => flag(FlowModFlags::CHECK_OVERLAP, Protocols::ANY),
            "reset_counts" if keys.flags => flag(FlowModFlags::RESET_COUNTS, OF12_UP),
            "no_packet_counts" if keys.flags => flag(FlowModFlags::NO_PKT_COUNTS, OF13_UP),
            "no_byte_counts" if keys.flags => flag(FlowModFlags::NO_BYT_COUNTS, OF13_UP),
            "no_readonly_table" | "allow_hidden_fields" => {}
            _ if parse_match_key(name, v, names.ports, &mut fm.match_, &mut usable)? => {}
            _ if name.contains('[') => subfield_match(name, v, &mut fm.match_, &mut usable)?,
            _ => other_key(name, v, &keys, stats, names, &mut fm, &mut usable)?,
        }
    }
    usable = usable.and(usable_together(&fm.match_));
    if modify && fm.cookie_mask == 0 && fm.new_cookie == u64::MAX {
        // Such a modify adds a flow if there is none; a new flow's cookie is zero by default.
        fm.new_cookie = 0;
    }
    if keys.actions {
        let (list, action_usable) = parse_instructions(actions, names)?;
        usable = usable.and(action_usable);
        let params = CheckParams { table: fm.table_id, ..Default::default() };
        let mut check_usable = usable;
        let mut r = check(&list, &fm.match_, params, &mut check_usable);
        usable = usable.and(check_usable);
        if r.is_ok() && usable == Protocols::NONE {
            r = Err(OfError::OFPBAC_MATCH_INCONSISTENT);
        }
        r.map_err(|e| format!("actions are invalid with specified match ({e})"))?;
        fm.actions = list;
    }
    Ok((fm, usable))
}

/// `FIELD[BITS]=VALUE`.
fn subfield_match(name: &str, v: &str, m: &mut Match, usable: &mut Protocols) -> Result<(), String> {
    let sf = Subfield::parse(name)?;
    let value = value::integer(v).ok_or_else(|| format!("{v}: bad syntax for {} value", sf.field.name))?;
    if !value.bits(sf.n_bits, 1024 - sf.n_bits.min(1024)).is_zero(128) {
        return Err(format!("{v}: value too large for {}-bit field {}", sf.n_bits, sf.field.name));
    }
    let field = sf.field.field();
    let (mut whole, mut mask) = field.get_match(m);
    whole.set_bits(sf.ofs, sf.n_bits, &value);
    mask = mask.or(&sf.mask());
    field.set_masked(&whole, &mask, m)?;
    *usable = usable.and(field.usable_protocols(&mask));
    if field.prereq != ib_flow::fields::Prereq::None {
        set_default_packet_type(m);
    }
    Ok(())
}

fn other_key(
    name: &str,
    v: &str,
    keys: &Keys,
    stats: bool,
    names: Names<'_>,
    fm: &mut FlowMod,
    usable: &mut Protocols,
) -> Result<(), String> {
    if v.is_empty() {
        return Err(format!("field {name} missing value"));
    }
    match name {
        "table" => {
            fm.table_id = parse_table(v, &names).ok_or_else(|| format!("unknown table \"{v}\""))?;
            if fm.table_id != 0xff {
                *usable = usable.and(WITH_TABLE);
            }
        }
        "out_port" if keys.out_port => {
            fm.out_port = parse_port(v, &names).ok_or_else(|| format!("{v} is not a valid OpenFlow port"))?;
        }
        "out_group" if keys.out_port => {
            *usable = usable.and(OF11_UP);
            fm.out_group = parse_group(v).ok_or_else(|| format!("{v} is not a valid OpenFlow group"))?;
        }
        "priority" if keys.priority => fm.priority = u16_arg(v, name)?,
        "idle_timeout" if keys.timeout => fm.idle_timeout = u16_arg(v, name)?,
        "hard_timeout" if keys.timeout => fm.hard_timeout = u16_arg(v, name)?,
        "importance" if keys.importance => fm.importance = u16_arg(v, name)?,
        "cookie" => match v.split_once('/') {
            Some((value, mask)) => {
                if fm.command == FlowModCommand::Add {
                    return Err("flow additions cannot use a cookie mask".into());
                }
                fm.cookie = u64_arg(value)?;
                fm.cookie_mask = u64_arg(mask)?;
                if fm.cookie_mask != 0 {
                    *usable = usable.and(NXM_OF11_UP);
                }
            }
            None => {
                if stats || !keys.actions {
                    return Err(format!(
                        "cannot set cookie (to match on a cookie, specify a mask, e.g. cookie={v}/-1)"
                    ));
                }
                fm.new_cookie = u64_arg(v)?;
                fm.modify_cookie = true;
            }
        },
        // What dump-flows prints can be read back.
        "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {}
        _ => return Err(format!("unknown keyword {name}")),
    }
    Ok(())
}

/// A group: `all`, `any`, or a number.
pub fn parse_group(s: &str) -> Option<u32> {
    if s.eq_ignore_ascii_case("any") {
        return Some(OFPG_ANY);
    }
    if s.eq_ignore_ascii_case("all") {
        return Some(OFPG_ALL);
    }
    let n = c_integer(s).and_then(|v| u32::try_from(v).ok())?;
    (n <= OFPG_MAX).then_some(n)
}

/// A selection of flows as a statistics request.
pub fn parse_flow_stats_request(s: &str, names: Names<'_>) -> Result<(FlowStatsRequest, Protocols), String> {
    let (fm, mut usable) = parse_flow_mod(s, Purpose::Stats, names)?;
    // Requests name a table without an extension.
    for (with, without) in [(0x02, 0x01), (0x08, 0x04)] {
        if usable.0 & with != 0 {
            usable.0 |= without;
        }
    }
    Ok((
        FlowStatsRequest {
            match_: fm.match_,
            cookie: fm.cookie,
            cookie_mask: fm.cookie_mask,
            table_id: fm.table_id,
            out_port: fm.out_port,
            out_group: fm.out_group,
        },
        usable,
    ))
}

/// Whether a packet-out may give a value to a field: what travels beside the packet, without what only the
/// datapath or connection tracking knows.
fn is_pipeline_field(id: ib_flow::fields::FieldId) -> bool {
    let name = id.field().name;
    let plain = ["metadata", "in_port", "in_port_oxm", "packet_type"].contains(&name);
    let register = name.trim_start_matches('x').starts_with("reg");
    plain || register || (name.starts_with("tun_") && !matches!(name, "tun_ttl" | "tun_tos"))
}

/// Parses the argument of `packet-out`.
pub fn parse_packet_out(s: &str, names: Names<'_>) -> Result<(PacketOut, Protocols), String> {
    let mut usable = Protocols::ANY;
    let mut out = PacketOut { buffer_id: NO_BUFFER, ..Default::default() };
    let mut s = s;
    let mut actions = None;
    if let Some(at) = s.find("action") {
        let eq = s[at..].find('=').ok_or("must specify an action")?;
        actions = Some(&s[at + eq + 1..]);
        s = &s[..at];
    }
    let mut packet = None;
    let mut in_port = OfPort::CONTROLLER;
    while let Some((name, v)) = next_key_value(&mut s) {
        if v.is_empty() {
            return Err(format!("field {name} missing value"));
        }
        match name {
            "in_port" => {
                in_port = parse_port(v, &names).ok_or_else(|| format!("{v} is not a valid OpenFlow port"))?;
                let ok = in_port < OfPort::MAX
                    || matches!(in_port, OfPort::LOCAL | OfPort::NONE | OfPort::CONTROLLER);
                if !ok {
                    return Err(format!("{v} is not a valid OpenFlow port for PACKET_OUT"));
                }
            }
            "packet_type" => {
                parse_match_key(name, v, names.ports, &mut out.metadata, &mut usable)?;
            }
            "packet" => {
                if packet.is_some() {
                    return Err("field packet set multiple times".into());
                }
                let (data, rest) = hex_bytes(v);
                if !rest.is_empty() {
                    return Err("packet: Trailing garbage in packet data".into());
                }
                if data.len() < 14 {
                    return Err("packet: Packet data too short for Ethernet".into());
                }
                packet = Some(data);
            }
            _ => {
                let field =
                    ib_flow::fields::by_name(name).ok_or_else(|| format!("unknown keyword {name}"))?;
                if !is_pipeline_field(field.id) {
                    return Err(format!("{name} is not a valid pipeline field for PACKET_OUT"));
                }
                // Versions before 1.5 have no place for it, and leave it out.
                parse_field(field, v, names.ports, &mut out.metadata, &mut usable)
                    .map_err(|e| format!("failed to parse {name}: {e}"))?;
            }
        }
    }
    out.data = packet.filter(|p| !p.is_empty()).ok_or("must specify packet")?;
    let actions = actions.ok_or("must specify actions")?;
    out.metadata.flow.in_port = in_port.0.into();
    out.metadata.mask.0.in_port = u32::MAX;
    let (list, u) = parse_actions(actions, names)?;
    out.actions = list;
    Ok((out, usable.and(u)))
}

/// Appends `5.25s`.
pub fn put_duration(out: &mut String, sec: u32, nsec: u32) {
    let _ = write!(out, "{sec}");
    // With as many digits as say something, but milliseconds and no less if there are any.
    if nsec > 0 {
        let _ = write!(out, ".{:09}", nsec);
        let keep = out.trim_end_matches('0').len();
        let dot = out.rfind('.').unwrap_or(0);
        out.truncate(keep.max(dot + 4));
    }
    out.push('s');
}

/// Appends a match as flows print it: priority first, unless it is the default.
pub fn format_match_priority(out: &mut String, m: &Match, priority: u16, names: &Names<'_>) {
    if priority != 0x8000 {
        let _ = write!(out, "priority={priority}");
    }
    let mut text = String::new();
    ib_flow::text::matching::format_match(m, names.ports, &mut text);
    if !text.is_empty() && priority != 0x8000 {
        out.push(',');
    }
    out.push_str(&text);
}

/// Appends flow flags with a space after each.
pub fn put_flags(out: &mut String, flags: u16) {
    for (bit, name) in [
        (FlowModFlags::SEND_FLOW_REM, "send_flow_rem"),
        (FlowModFlags::CHECK_OVERLAP, "check_overlap"),
        (FlowModFlags::RESET_COUNTS, "reset_counts"),
        (FlowModFlags::NO_PKT_COUNTS, "no_packet_counts"),
        (FlowModFlags::NO_BYT_COUNTS, "no_byte_counts"),
        (FlowModFlags::HIDDEN_FIELDS, "allow_hidden_fields"),
        (FlowModFlags::NO_READONLY, "no_readonly_table"),
    ] {
        if flags & bit != 0 {
            out.push_str(name);
            out.push(' ');
        }
    }
}

/// Appends a flow as `dump-flows` prints it, without the space in front. Without `show_stats` only what makes the
/// flow is printed. `via` is the version that it came by.
pub fn format_flow_stats(out: &mut String, f: &FlowStats, show_stats: bool, via: Version, names: &Names<'_>) {
    if show_stats || f.cookie != 0 {
        let _ = write!(out, "cookie={:#x}, ", f.cookie);
    }
    if show_stats {
        out.push_str("duration=");
        put_duration(out, f.duration_sec, f.duration_nsec);
        out.push_str(", ");
    }
    let table_named = names.tables.is_some_and(|t| t.name(f.table_id).is_some());
    if show_stats || f.table_id != 0 || table_named {
        out.push_str("table=");
        put_table(out, f.table_id, names);
        out.push_str(", ");
    }
    if show_stats {
        let _ = write!(out, "n_packets={}, n_bytes={}, ", f.packet_count, f.byte_count);
    }
    if f.idle_timeout != 0 {
        let _ = write!(out, "idle_timeout={}, ", f.idle_timeout);
    }
    if f.hard_timeout != 0 {
        let _ = write!(out, "hard_timeout={}, ", f.hard_timeout);
    }
    put_flags(out, f.flags);
    if f.importance != 0 {
        let _ = write!(out, "importance={}, ", f.importance);
    }
    if show_stats {
        if let Some(age) = f.idle_age {
            let _ = write!(out, "idle_age={age}, ");
        }
        if let Some(age) = f.hard_age.filter(|a| u32::from(*a) != f.duration_sec) {
            let _ = write!(out, "hard_age={age}, ");
        }
    }
    let before = out.len();
    format_match_priority(out, &f.match_, f.priority, names);
    if out.len() != before {
        out.push(' ');
    }
    out.push_str("actions=");
    format_actions_of(out, &f.actions, via, names);
}

/// The names of single protocols, lowest bit first.
const PROTOCOLS: [&str; 9] = [
    "OpenFlow10-table_id",
    "OpenFlow10+table_id",
    "NXM-table_id",
    "NXM+table_id",
    "OpenFlow11",
    "OXM-OpenFlow12",
    "OXM-OpenFlow13",
    "OXM-OpenFlow14",
    "OXM-OpenFlow15",
];

/// The name of one protocol.
pub fn protocol_name(p: Protocols) -> &'static str {
    (0..9).find(|i| p.0 == 1 << i).map_or("none", |i| PROTOCOLS[i as usize])
}

/// A set of protocols, with the short names of groups.
pub fn protocols_text(p: Protocols) -> String {
    let mut left = p.0 & 0x1ff;
    if left == 0 {
        return "none".into();
    }
    let mut parts = Vec::new();
    for (bits, name) in [(0x1ff, "any"), (0x03, "OpenFlow10"), (0x0c, "NXM"), (0x1e0, "OXM")] {
        if left & bits == bits {
            parts.push(name);
            left &= !bits;
        }
    }
    for (i, name) in PROTOCOLS.iter().enumerate() {
        if left >> i & 1 != 0 {
            parts.push(name);
        }
    }
    parts.join(",")
}

/// Protocols by the names that `-F` takes, separated by commas; `Err` is the part that is none.
pub fn parse_protocols(s: &str) -> Result<Protocols, String> {
    let mut out = 0;
    for part in s.split([' ', ',']).filter(|p| !p.is_empty()) {
        let known = [("any", 0x1ff), ("OpenFlow10", 0x03), ("NXM", 0x0c), ("OXM", 0x1e0)];
        out |= known
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(part))
            .map(|(_, b)| *b)
            .or_else(|| PROTOCOLS.iter().position(|n| n.eq_ignore_ascii_case(part)).map(|i| 1 << i))
            .ok_or_else(|| part.to_string())?;
    }
    Ok(Protocols(out))
}

/// The protocols of a version.
pub fn protocols_of(v: Version) -> Protocols {
    Protocols(match v {
        Version::V10 => 0x0f,
        v => 0x10 << (v.to_wire() - 2),
    })
}

/// The version of one protocol.
pub fn version_of(p: Protocols) -> Option<Version> {
    Version::ALL.into_iter().find(|v| protocols_of(*v).and(p) != Protocols::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NO_NAMES;

    #[test]
    fn packet_out_takes_pipeline_fields_in_any_version() {
        let frame = "505400000007505400000008080045000028";
        let parse = |field: &str| {
            parse_packet_out(&format!("in_port=1 {field} packet={frame} actions=2"), NO_NAMES)
                .map(|(po, usable)| (po.metadata.flow.metadata.get(), usable.and(NXM_OF11_UP) == NXM_OF11_UP))
        };
        assert_eq!(parse("metadata=5"), Ok((5, true)));
        assert!(parse("reg0=5").is_ok() && parse("xxreg1=5").is_ok() && parse("tun_id=5").is_ok());
        for field in ["ct_mark", "tun_ttl", "eth_src", "actset_output"] {
            let error = format!("{field} is not a valid pipeline field for PACKET_OUT");
            assert_eq!(parse(&format!("{field}=1")).unwrap_err(), error);
        }
    }

    fn check(s: &str, expect: &str) {
        let got = match parse_flow_mod(s, Purpose::Mod(FlowModCommand::Add), NO_NAMES) {
            Ok((fm, usable)) => {
                let mut out = format!("{} ", protocols_text(usable));
                format_match_priority(&mut out, &fm.match_, fm.priority, &NO_NAMES);
                out.push_str(" actions=");
                format_actions_of(&mut out, &fm.actions, Version::V10, &NO_NAMES);
                out
            }
            Err(e) => e,
        };
        assert_eq!(got, expect, "{s}");
    }

    #[test]
    fn flows_round_trip_through_text() {
        check("tcp,tcp_dst=80,actions=output:2", "any tcp,tp_dst=80 actions=output:2");
        check("priority=5,ip,actions=dec_ttl,NORMAL", "any priority=5,ip actions=dec_ttl,NORMAL");
        check("actions=set_field:5->reg0", "NXM,OXM  actions=set_field:0x5->reg0");
        check("table=1,actions=drop", "OXM,OpenFlow10+table_id,NXM+table_id,OpenFlow11  actions=drop");
        check("ip", "must specify an action");
        check("foo=1,actions=", "unknown keyword foo");
        check("priority=x,actions=", "invalid priority \"x\"");
        check("cookie=1/2,actions=", "flow additions cannot use a cookie mask");
        check(
            "actions=goto_table:1,1",
            "invalid instruction ordering: apply_actions must appear before goto_table, for OpenFlow 1.1+ compatibility",
        );
    }

    #[test]
    fn durations() {
        let d = |s, n| {
            let mut out = String::new();
            put_duration(&mut out, s, n);
            out
        };
        assert_eq!(d(5, 0), "5s");
        assert_eq!(d(5, 11_000_000), "5.011s");
        assert_eq!(d(5, 1), "5.000000001s");
        assert_eq!(d(5, 500_000_000), "5.500s");
    }
}
