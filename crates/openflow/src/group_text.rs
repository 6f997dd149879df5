//! Groups and meters as text, both ways (ovs-ofctl(8), "Group Syntax", "Meter Syntax").

use std::fmt::Write;

use ib_flow::OfPort;
use ib_flow::fields::{Protocols, by_name};

use crate::action_format::format_actions_of;
use crate::action_parse::{OF11_UP, parse_actions};
use crate::flow_text::put_duration;
use crate::message::*;
use crate::names::{Names, parse_port, put_port};
use crate::text_util::*;

/// Appends a group's number.
pub(crate) fn put_group_id(out: &mut String, id: u32) {
    match id {
        OFPG_ALL => out.push_str("ALL"),
        OFPG_ANY => out.push_str("ANY"),
        _ => {
            let _ = write!(out, "{id}");
        }
    }
}

/// Appends a meter's number.
pub(crate) fn put_meter_id(out: &mut String, id: u32) {
    match id {
        OFPM_ALL => out.push_str("all"),
        0xffff_fffd => out.push_str("slowpath"),
        0xffff_fffe => out.push_str("controller"),
        0..=OFPM_MAX => {
            let _ = write!(out, "{id}");
        }
        _ => out.push_str("unknown"),
    }
}

fn type_name(t: GroupType) -> &'static str {
    match t {
        GroupType::All => "all",
        GroupType::Select => "select",
        GroupType::Indirect => "indirect",
        GroupType::FastFailover => "ff",
    }
}

fn put_group(
    out: &mut String,
    kind: GroupType,
    buckets: &[Bucket],
    props: &GroupProps,
    with_type: bool,
    v: Version,
    n: &Names<'_>,
) {
    if with_type {
        let _ = write!(out, ",type={}", type_name(kind));
    }
    if !props.selection_method.is_empty() {
        let _ = write!(out, ",selection_method={}", props.selection_method);
        if props.selection_method_param != 0 {
            let _ = write!(out, ",selection_method_param={}", props.selection_method_param);
        }
        if props.fields.len() == 1 {
            out.push_str(",fields=");
            put_group_field(out, &props.fields[0]);
        } else if !props.fields.is_empty() {
            out.push_str(",fields(");
            for (i, f) in props.fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put_group_field(out, f);
            }
            out.push(')');
        }
    }
    for b in buckets {
        out.push(',');
        put_bucket(out, kind, b, v, n);
    }
}

/// A group in the form that [`parse_group_mod`] takes.
pub fn group_line(id: u32, kind: GroupType, buckets: &[Bucket], props: &GroupProps, n: &Names<'_>) -> String {
    let mut out = format!("group_id={id}");
    put_group(&mut out, kind, buckets, props, true, Version::V15, n);
    out
}

/// A meter in the form that [`parse_meter_mod`] takes.
pub fn meter_line(m: &MeterConfig) -> String {
    let mut out = String::new();
    meter(&mut out, m);
    out.trim_end().replace('\n', " ")
}

/// Appends one bucket of a group of type `kind`.
pub fn put_bucket(out: &mut String, kind: GroupType, b: &Bucket, v: Version, n: &Names<'_>) {
    out.push_str("bucket=");
    if v == Version::V15 || v == Version::V10 {
        let _ = write!(out, "bucket_id:{},", b.bucket_id);
    }
    if b.weight != u16::from(kind == GroupType::Select) {
        let _ = write!(out, "weight:{},", b.weight);
    }
    if b.watch_port != OfPort::NONE {
        out.push_str("watch_port:");
        put_port(out, b.watch_port, n);
        out.push(',');
    }
    if b.watch_group != OFPG_ANY {
        let _ = write!(out, "watch_group:{},", b.watch_group);
    }
    out.push_str("actions=");
    format_actions_of(out, &b.actions, v, n);
}

fn put_group_field(out: &mut String, (field, mask): &(ib_flow::FieldId, Box<[u8]>)) {
    out.push_str(field.name);
    if mask.iter().any(|b| *b != 0xff) {
        out.push('=');
        let m = ib_flow::FieldValue::from_bytes(mask);
        out.push_str(&ib_flow::text::format_value(field.field(), &m, &ib_flow::FieldValue::ONES, None));
    }
}

/// Appends a group_mod, without its header.
pub(crate) fn group_mod(out: &mut String, g: &GroupMod, v: Version, n: &Names<'_>) {
    let (name, buckets, bucket_command) = match g.command {
        GroupModCommand::Add => ("ADD", true, false),
        GroupModCommand::Modify => ("MOD", true, false),
        GroupModCommand::AddOrMod => ("ADD_OR_MOD", true, false),
        GroupModCommand::Delete => ("DEL", true, false),
        GroupModCommand::InsertBucket => ("INSERT_BUCKET", true, true),
        GroupModCommand::RemoveBucket => ("REMOVE_BUCKET", true, true),
    };
    let _ = write!(out, "\n {name} ");
    // Buckets have ids in OpenFlow 1.5, and in Nicira's form of 1.0.
    if bucket_command && matches!(v, Version::V10 | Version::V15) {
        out.push_str("command_bucket_id:");
        match g.command_bucket_id {
            BUCKET_FIRST => out.push_str("first"),
            BUCKET_LAST => out.push_str("last"),
            BUCKET_ALL => out.push_str("all"),
            id => {
                let _ = write!(out, "{id}");
            }
        }
        out.push(',');
    }
    let _ = write!(out, "group_id={}", g.group_id);
    let with_type = !matches!(g.command, GroupModCommand::InsertBucket | GroupModCommand::RemoveBucket);
    let list: &[Bucket] = if buckets { &g.buckets } else { &[] };
    put_group(out, g.kind, list, &g.props, with_type, v, n);
}

/// Appends a group's description.
pub(crate) fn group(out: &mut String, g: &GroupDesc, v: Version, n: &Names<'_>) {
    let _ = write!(out, "group_id={}", g.group_id);
    put_group(out, g.kind, &g.buckets, &g.props, true, v, n);
}

/// Appends a group's statistics.
pub(crate) fn stats(out: &mut String, g: &GroupStats) {
    out.push_str("\n group_id=");
    put_group_id(out, g.group_id);
    if g.duration_sec != u32::MAX {
        out.push_str(",duration=");
        put_duration(out, g.duration_sec, g.duration_nsec);
    }
    let _ =
        write!(out, ",ref_count={},packet_count={},byte_count={}", g.ref_count, g.packet_count, g.byte_count);
    for (i, (packets, bytes)) in g.buckets.iter().enumerate() {
        if *packets != u64::MAX {
            let _ = write!(out, ",bucket{i}:packet_count={packets},byte_count={bytes}");
        }
    }
}

/// Numbers of actions that a version since 1.1 has: 1.2 put set_field in place of a dozen, 1.5 has the move and the meter.
fn actions_of(v: Version) -> u64 {
    let replaced = 0x67fe;
    let old = if v == Version::V11 { replaced } else { 0 };
    let new = if v == Version::V15 { 3 << 28 } else { 0 };
    !(replaced | 3 << 28) | old | new
}

/// Names of actions by number of OpenFlow 1.1+, in Open vSwitch's order.
const ACTION_NAMES: [(u32, &str); 26] = [
    (0, "output"),
    (22, "group"),
    (25, "set_field"),
    (1, "set_vlan_vid"),
    (2, "set_vlan_pcp"),
    (18, "strip_vlan"),
    (17, "push_vlan"),
    (3, "mod_dl_src"),
    (4, "mod_dl_dst"),
    (5, "mod_nw_src"),
    (6, "mod_nw_dst"),
    (7, "mod_nw_tos"),
    (8, "mod_nw_ecn"),
    (23, "mod_nw_ttl"),
    (9, "mod_tp_src"),
    (10, "mod_tp_dst"),
    (28, "move"),
    (24, "dec_ttl"),
    (13, "set_mpls_label"),
    (14, "set_mpls_tc"),
    (15, "set_mpls_ttl"),
    (16, "dec_mpls_ttl"),
    (19, "push_mpls"),
    (20, "pop_mpls"),
    (21, "set_queue"),
    (29, "meter"),
];

/// The same in OpenFlow 1.0's numbers.
pub(crate) const ACTION_NAMES10: [(u32, &str); 12] = [
    (1 << 0, "output"),
    (1 << 11, "enqueue"),
    (1 << 1, "set_vlan_vid"),
    (1 << 2, "set_vlan_pcp"),
    (1 << 3, "strip_vlan"),
    (1 << 4, "mod_dl_src"),
    (1 << 5, "mod_dl_dst"),
    (1 << 6, "mod_nw_src"),
    (1 << 7, "mod_nw_dst"),
    (1 << 8, "mod_nw_tos"),
    (1 << 9, "mod_tp_src"),
    (1 << 10, "mod_tp_dst"),
];

/// Appends actions of a bitmap by number of OpenFlow 1.1+.
pub(crate) fn put_actions_bitmap(out: &mut String, bits: u64) {
    if bits == 0 {
        out.push_str("(none)");
        return;
    }
    let names: Vec<&str> =
        ACTION_NAMES.iter().filter(|(id, _)| bits >> id & 1 != 0).map(|(_, n)| *n).collect();
    out.push_str(&names.join(" "));
}

/// Appends group features.
pub(crate) fn features(out: &mut String, g: &GroupFeatures, v: Version) {
    let _ = write!(
        out,
        "\n Group table:\n    Types:  {:#x}\n    Capabilities:  {:#x}\n",
        g.types, g.capabilities
    );
    for (t, name) in ["all", "select", "indirect", "fast failover"].into_iter().enumerate() {
        if g.types >> t & 1 == 0 {
            continue;
        }
        let _ = write!(out, "    {name} group:\n       max_groups={:#x}\n       actions: ", g.max_groups[t]);
        if v == Version::V10 {
            crate::print_stats::put_bits(out, g.actions[t], &ACTION_NAMES10);
        } else {
            put_actions_bitmap(out, u64::from(g.actions[t]) & actions_of(v));
        }
        out.push('\n');
    }
}

/// Appends flags; bits without a name as a number behind `label`.
fn put_meter_flags(out: &mut String, flags: u32, label: &str) {
    if flags == 0 {
        return;
    }
    for (bit, name) in [
        (MeterFlags::KBPS, "kbps"),
        (MeterFlags::PKTPS, "pktps"),
        (MeterFlags::BURST, "burst"),
        (MeterFlags::STATS, "stats"),
    ] {
        if flags & u32::from(bit) != 0 {
            out.push_str(name);
            out.push(' ');
        }
    }
    let left = flags & !0xf;
    if left != 0 {
        let _ = write!(out, "{label}{left:#x} ");
    }
}

fn put_band(out: &mut String, flags: u16, b: &MeterBand) {
    out.push_str("\ntype=");
    out.push_str(match b.kind {
        1 => "drop",
        2 => "dscp_remark",
        _ => "unknown",
    });
    let _ = write!(out, " rate={}", b.rate);
    if flags & MeterFlags::BURST != 0 {
        let _ = write!(out, " burst_size={}", b.burst);
    }
    if b.kind == 2 {
        let _ = write!(out, " prec_level={}", b.prec_level);
    }
}

/// Appends a meter.
pub(crate) fn meter(out: &mut String, m: &MeterConfig) {
    out.push_str("meter=");
    put_meter_id(out, m.meter_id);
    out.push(' ');
    put_meter_flags(out, m.flags.into(), "flags:");
    out.push_str("bands=");
    for b in &m.bands {
        put_band(out, m.flags, b);
    }
    out.push('\n');
}

/// Appends a meter_mod, without its header.
pub(crate) fn meter_mod(out: &mut String, m: &MeterMod) {
    out.push_str(match m.command {
        0 => " ADD ",
        1 => " MOD ",
        _ => " DEL ",
    });
    meter(out, &m.meter);
}

/// Appends a meter's statistics.
pub(crate) fn meter_stats(out: &mut String, m: &MeterStats) {
    out.push_str("\nmeter:");
    put_meter_id(out, m.meter_id);
    let _ = write!(
        out,
        " flow_count:{} packet_in_count:{} byte_in_count:{} duration:",
        m.flow_count, m.packet_in_count, m.byte_in_count
    );
    put_duration(out, m.duration_sec, m.duration_nsec);
    out.push_str(" bands:\n");
    for (i, b) in m.bands.iter().enumerate() {
        let _ = writeln!(out, "{i}: packet_count:{} byte_count:{}", b.packets, b.bytes);
    }
}

/// Appends meter features.
pub(crate) fn meter_features(out: &mut String, m: &MeterFeatures) {
    let _ = write!(out, "\nmax_meter:{} max_bands:{} max_color:{}\n", m.max_meters, m.max_bands, m.max_color);
    out.push_str("band_types: ");
    crate::print_stats::put_bits(out, m.band_types, &[(2, "drop"), (4, "dscp_remark")]);
    out.push('\n');
    out.push_str("capabilities: ");
    put_meter_flags(out, m.capabilities, "");
    out.push('\n');
}

/// What carries properties of groups: the extension of OpenFlow 1.0, and OpenFlow 1.5.
const GROUP_PROPS: Protocols = Protocols(0x10f);

/// Parses a group. The error is the text that the user sees.
pub fn parse_group_mod(
    s: &str,
    command: Option<GroupModCommand>,
    names: Names<'_>,
) -> Result<(GroupMod, Protocols), String> {
    use GroupModCommand as C;
    let mut usable = OF11_UP.or(Protocols(0x0f));
    let mut s = s;
    let command = match command {
        Some(c) => c,
        None => {
            let t = s.trim_start();
            let word = t.split([',', ' ', '\t', '\r', '\n']).next().unwrap_or("");
            let found = match word {
                "add" => Some(C::Add),
                "delete" => Some(C::Delete),
                "modify" => Some(C::Modify),
                "add_or_mod" => Some(C::AddOrMod),
                "insert_bucket" => Some(C::InsertBucket),
                "remove_bucket" => Some(C::RemoveBucket),
                _ => None,
            };
            if found.is_some() {
                s = &t[word.len()..];
            }
            found.unwrap_or(C::Add)
        }
    };
    let takes_type = matches!(command, C::Add | C::Modify | C::AddOrMod);
    let takes_bucket = takes_type || command == C::InsertBucket;
    let takes_command_bucket = matches!(command, C::InsertBucket | C::RemoveBucket);
    let mut g = GroupMod {
        command,
        kind: GroupType::All,
        // What is deleted is all if nothing is said.
        group_id: if command == C::Delete { OFPG_ALL } else { OFPG_ANY },
        command_bucket_id: BUCKET_ALL,
        buckets: Vec::new(),
        props: GroupProps::default(),
    };
    if !takes_bucket && buckets_begin(s) {
        return Err("bucket is not needed".into());
    }
    // Buckets come last; each begins with `bucket`.
    let mut rest = None;
    if takes_bucket && let Some(at) = find_bucket(s) {
        rest = Some(&s[at..]);
        s = &s[..at];
    }
    let (mut had_type, mut had_command_bucket) = (false, false);
    while let Some((name, v)) = next_key_value(&mut s) {
        match name {
            "command_bucket_id" => {
                if !takes_command_bucket {
                    return Err("command bucket id is not needed".into());
                }
                g.command_bucket_id = match v {
                    "all" => BUCKET_ALL,
                    "first" => BUCKET_FIRST,
                    "last" => BUCKET_LAST,
                    _ => u32_arg(v).map_err(|_| format!("invalid command bucket id {v}"))?,
                };
                if g.command_bucket_id > 0xffff_ff00
                    && !matches!(g.command_bucket_id, BUCKET_ALL | BUCKET_FIRST | BUCKET_LAST)
                {
                    return Err("invalid command bucket id".into());
                }
                if g.command_bucket_id == BUCKET_ALL && command == C::InsertBucket {
                    return Err("command_bucket_id=all is not permitted".into());
                }
                had_command_bucket = true;
            }
            "group_id" => {
                if v == "all" {
                    g.group_id = OFPG_ALL;
                } else {
                    g.group_id = u32_arg(v)?;
                    if g.group_id != OFPG_ALL && g.group_id > OFPG_MAX {
                        return Err(format!("invalid group id {}", g.group_id));
                    }
                }
            }
            "type" => {
                if !takes_type {
                    return Err("type is not needed".into());
                }
                g.kind = match v {
                    "all" => GroupType::All,
                    "select" => GroupType::Select,
                    "indirect" => GroupType::Indirect,
                    "ff" | "fast_failover" => GroupType::FastFailover,
                    _ => return Err(format!("invalid group type {v}")),
                };
                had_type = true;
            }
            "selection_method" => {
                if !takes_type {
                    return Err("selection method is not needed".into());
                }
                usable = usable.and(GROUP_PROPS);
                if v.len() > 15 {
                    return Err("selection method is longer than 15 bytes long".into());
                }
                g.props.selection_method = v.into();
            }
            "selection_method_param" => {
                if !takes_type {
                    return Err("selection method param is not needed".into());
                }
                usable = usable.and(GROUP_PROPS);
                g.props.selection_method_param = u64_arg(v)?;
            }
            "fields" => {
                if !takes_type {
                    return Err("fields are not needed".into());
                }
                usable = usable.and(GROUP_PROPS);
                let mut rest = v;
                while let Some((f, m)) = next_key_value(&mut rest) {
                    let field = by_name(f).ok_or_else(|| format!("{rest}: unknown field {f}"))?;
                    if g.props.fields.iter().any(|(known, _)| *known == field.id) {
                        return Err(format!("{f}: duplicate field"));
                    }
                    let mask = if m.is_empty() {
                        ib_flow::FieldValue::low_ones(field.n_bytes * 8)
                    } else {
                        crate::value::parse_exact(field, m, &names)?
                    };
                    usable = usable.and(field.usable_protocols(&mask));
                    g.props.fields.push((field.id, mask.bytes(field.n_bytes).into()));
                }
            }
            _ => return Err(format!("unknown keyword {name}")),
        }
    }
    if g.group_id == OFPG_ANY {
        return Err("must specify a group_id".into());
    }
    if takes_type && !had_type {
        return Err("must specify a type".into());
    }
    // Buckets are removed all if nothing is said.
    if command == C::InsertBucket && !had_command_bucket {
        return Err("must specify a command bucket id".into());
    }
    if !g.props.fields.is_empty() && g.props.selection_method != "hash" {
        return Err("fields may only be specified with \"selection_method=hash\"".to_string());
    }
    if g.props.selection_method.is_empty() && g.props.selection_method_param != 0 {
        return Err("selection_method_param is only allowed with \"selection_method\"".into());
    }
    while let Some(text) = rest {
        let after = &text["bucket=".len()..];
        let next = find_bucket(after);
        let one = &after[..next.unwrap_or(after.len())];
        rest = next.map(|at| &after[at..]);
        let b = parse_bucket(one, g.kind, names, &mut usable)?;
        // Buckets to insert do not say of what kind their group is.
        if g.kind != GroupType::Select && b.weight > 0 && command != C::InsertBucket {
            return Err("Only select groups can have bucket weights.".to_string());
        }
        g.buckets.push(b);
    }
    assign_bucket_ids(&mut g.buckets);
    if g.kind == GroupType::Indirect && takes_type && g.buckets.len() > 1 {
        return Err("Indirect groups can have at most one bucket.".into());
    }
    Ok((g, usable))
}

/// A bucket without an id of the user's.
const UNASSIGNED: u32 = u32::MAX;

/// Gives buckets that have no id the lowest that are free.
fn assign_bucket_ids(buckets: &mut [Bucket]) {
    let taken: std::collections::HashSet<u32> = buckets.iter().map(|b| b.bucket_id).collect();
    let mut free = (0..).filter(|id| !taken.contains(id));
    for b in buckets.iter_mut().filter(|b| b.bucket_id == UNASSIGNED) {
        b.bucket_id = free.next().unwrap_or(0);
    }
}

/// Whether a text speaks of buckets, other than by `command_bucket_id`.
fn buckets_begin(s: &str) -> bool {
    s.match_indices("bucket").any(|(at, word)| {
        let (before, after) = (s[..at].chars().next_back(), s[at + word.len()..].chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where the next bucket begins.
fn find_bucket(s: &str) -> Option<usize> {
    s.find("bucket=")
}

fn parse_bucket(
    s: &str,
    kind: GroupType,
    names: Names<'_>,
    usable: &mut Protocols,
) -> Result<Bucket, String> {
    let mut b = Bucket {
        weight: u16::from(kind == GroupType::Select),
        watch_port: OfPort::NONE,
        watch_group: OFPG_ANY,
        bucket_id: UNASSIGNED,
        actions: Vec::new(),
    };
    // Keys of the bucket may be anywhere among the actions.
    let mut actions = String::new();
    let mut t = s;
    loop {
        let before = t.trim_start_matches([',', ' ', '\t', '\r', '\n']);
        let Some((name, v)) = next_key_value(&mut t) else { break };
        let whole = before[..before.len() - t.len()].trim_end_matches([',', ' ', '\t', '\r', '\n']);
        match name.to_ascii_lowercase().as_str() {
            "weight" => b.weight = u16_arg(v, "weight")?,
            "watch_port" => {
                b.watch_port = parse_port(v, &names)
                    .filter(|p| *p < OfPort::MAX || matches!(*p, OfPort::NONE | OfPort::CONTROLLER))
                    .ok_or_else(|| format!("{v}: invalid watch_port"))?;
            }
            "watch_group" => {
                b.watch_group = u32_arg(v)?;
                if b.watch_group > OFPG_MAX {
                    return Err(format!("invalid watch_group id {}", b.watch_group));
                }
            }
            "bucket_id" => {
                b.bucket_id = u32_arg(v)?;
                if b.bucket_id > 0xffff_ff00 {
                    return Err(format!("invalid bucket_id id {}", b.bucket_id));
                }
            }
            "action" | "actions" => {
                actions.push_str(v);
                actions.push(',');
            }
            _ => {
                actions.push_str(whole);
                actions.push(',');
            }
        }
    }
    if actions.is_empty() {
        return Err("bucket must specify actions".into());
    }
    if kind == GroupType::FastFailover && b.watch_port == OfPort::NONE && b.watch_group == OFPG_ANY {
        return Err("fast failover bucket requires watch_port or watch_group".into());
    }
    // What the group's own keys or another bucket would rule out is forgotten, as Open vSwitch does.
    let list;
    (list, *usable) = parse_actions(&actions, names)?;
    b.actions = list;
    Ok(b)
}

/// Parses a meter. The error is the text that the user sees.
pub fn parse_meter_mod(s: &str, command: u16) -> Result<MeterMod, String> {
    let takes_bands = command != 2;
    let mut m = MeterConfig::default();
    let mut s = s;
    let mut bands = None;
    if takes_bands {
        let at = s.find("band").ok_or("must specify bands")?;
        let eq = s[at..].find('=').ok_or("must specify bands")?;
        bands = Some(&s[at + eq + 1..]);
        s = &s[..at];
    }
    // What is between the words is of no account: `meter 1` is `meter=1`.
    let mut words = Words(s);
    while let Some(name) = words.next(WORD_END) {
        match name {
            "kbps" if takes_bands => m.flags |= MeterFlags::KBPS,
            "pktps" if takes_bands => m.flags |= MeterFlags::PKTPS,
            "burst" if takes_bands => m.flags |= MeterFlags::BURST,
            "stats" if takes_bands => m.flags |= MeterFlags::STATS,
            _ => {
                let v = words.next(VALUE_END).ok_or_else(|| format!("field {name} missing value"))?;
                if name != "meter" {
                    return Err(format!("unknown keyword {name}"));
                }
                m.meter_id = match v {
                    "all" => OFPM_ALL,
                    "controller" => 0xffff_fffe,
                    "slowpath" => 0xffff_fffd,
                    _ => {
                        let id = u32_arg(v)?;
                        if id == 0 || id > OFPM_MAX {
                            return Err(format!("invalid value for {name}"));
                        }
                        id
                    }
                };
            }
        }
    }
    if m.meter_id == 0 {
        return Err("must specify 'meter'".into());
    }
    if takes_bands && m.flags == 0 {
        return Err("meter must specify either 'kbps' or 'pktps'".into());
    }
    if let Some(bands) = bands {
        parse_bands(bands, &mut m)?;
    }
    Ok(MeterMod { command, meter: m })
}

const WORD_END: &[char] = &['=', ',', ' ', '\t', '\r', '\n'];
const VALUE_END: &[char] = &[',', ' ', '\t', '\r', '\n'];

/// A text that is taken apart as C's `strtok` does it.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self, delimiters: &[char]) -> Option<&'a str> {
        let t = self.0.trim_start_matches(delimiters);
        let end = t.find(delimiters).unwrap_or(t.len());
        self.0 = t[end..].get(1..).unwrap_or("");
        (end > 0).then(|| &t[..end])
    }
}

fn parse_bands(s: &str, m: &mut MeterConfig) -> Result<(), String> {
    let mut words = Words(s);
    while let Some(name) = words.next(WORD_END) {
        let v = words.next(VALUE_END).ok_or_else(|| format!("field {name} missing value"))?;
        if name == "type" {
            let kind = match v {
                "drop" => 1,
                "dscp_remark" => 2,
                _ => return Err(format!("field {name} unknown value {v}")),
            };
            m.bands.push(MeterBand { kind, prec_level: 0, rate: 0, burst: 0 });
            continue;
        }
        let b = m.bands.last_mut().ok_or("band must start with the 'type' keyword")?;
        match name {
            "rate" => b.rate = u32_arg(v)?,
            "burst_size" => b.burst = u32_arg(v)?,
            "prec_level" => b.prec_level = u8_arg(v, name)?,
            _ => return Err(format!("unknown keyword {name}")),
        }
    }
    if m.bands.is_empty() {
        return Err("meter must have bands".into());
    }
    let bursts = m.flags & MeterFlags::BURST != 0;
    for b in &m.bands {
        let complaint = match b {
            _ if b.kind == 2 && b.prec_level == 0 => "'dscp_remark' band must have 'prec_level'",
            _ if b.kind != 2 && b.prec_level != 0 => "Only 'dscp_remark' band may have 'prec_level'",
            _ if b.rate == 0 => "band must have 'rate'",
            _ if bursts && b.burst == 0 => "band must have 'burst_size' when 'burst' flag is set",
            _ if !bursts && b.burst != 0 => "band may have 'burst_size' only when 'burst' flag is set",
            _ => continue,
        };
        return Err(complaint.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NO_NAMES;

    #[test]
    fn inserted_buckets_may_have_weights_whatever_the_group() {
        let text = "group_id=1,command_bucket_id=last,bucket=bucket_id:2,weight:5,output:3";
        let (group, _) = parse_group_mod(text, Some(GroupModCommand::InsertBucket), NO_NAMES).unwrap();
        assert_eq!(group.buckets[0].weight, 5);
        let text = "group_id=1,type=all,bucket=weight:5,output:3";
        let refused = parse_group_mod(text, Some(GroupModCommand::Add), NO_NAMES);
        assert_eq!(refused.err().unwrap(), "Only select groups can have bucket weights.");
    }
}
