//! Messages as text, the way `ovs-ofctl` and the logs print them.
//!
//! [`message_text`] takes any bytes: what cannot be decoded prints its error and a dump. Verbosity is Open vSwitch's:
//! 0 is short, 1 is what logs have, more is for `-m`.

use std::fmt::Write;

use ib_flow::OfPort;

use crate::action_format::{format_actions_of, put_dotted_hex, reason_text};
use crate::decode::{Decoded, decode_partly};
use crate::error::OfError;
use crate::flow_text::*;
use crate::group_text;
use crate::message::*;
use crate::names::{Names, put_port, put_table};
use crate::print_stats;
use crate::raw::{identify, parse_header};

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrintOptions<'a> {
    /// Names for ports and tables.
    pub names: Names<'a>,
    /// Detail.
    pub verbosity: i32,
}

/// The text for a log of messages.
pub fn log_text(bytes: &[u8]) -> String {
    message_text(bytes, &PrintOptions { verbosity: 1, ..Default::default() })
}

/// ` (OF1.3)`, nothing for OpenFlow 1.0.
fn version_suffix(version: u8) -> String {
    match Version::from_wire(version) {
        Some(Version::V10) => String::new(),
        Some(v) => format!(" (OF{})", v.number()),
        None => format!(" (OF 0x{version:02x})"),
    }
}

/// Bytes as 16 to a line, with offsets and characters.
pub fn hex_dump(bytes: &[u8], ascii: bool) -> String {
    let mut out = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", i * 16);
        for j in 0..16 {
            let sep = if j == 8 { '-' } else { ' ' };
            match line.get(j) {
                Some(b) => {
                    let _ = write!(out, "{sep}{b:02x}");
                }
                None => {
                    if j == 8 && line.len() == 8 {
                        out.push('-');
                    } else if ascii {
                        out.push(' ');
                    }
                    out.push_str(if ascii { "  " } else { "" });
                }
            }
        }
        if ascii {
            out.push_str(" |");
            for j in 0..16 {
                out.push(match line.get(j) {
                    Some(b) if (0x20..0x7f).contains(b) => *b as char,
                    Some(_) => '.',
                    None => ' ',
                });
            }
            out.push('|');
        }
        out.push('\n');
    }
    out
}

/// Lines that keep the spaces at their end, as in Open vSwitch.
const KEEP_SPACES: [&str; 7] = [
    "           rx rfc2819 ",
    "           tx rfc2819 ",
    "Manufacturer: ",
    "Hardware: ",
    "Software: ",
    "Serial Num: ",
    "DP Description: ",
];

/// A message as text, which ends with a newline. Few lines end with spaces.
pub fn message_text(bytes: &[u8], options: &PrintOptions<'_>) -> String {
    let text = untrimmed_text(bytes, options);
    if !text.contains(" \n") {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |b| (b, "\n"));
        let keep = KEEP_SPACES.iter().any(|k| body.starts_with(k));
        out.push_str(if keep { body } else { body.trim_end_matches(' ') });
        out.push_str(end);
    }
    out
}

fn untrimmed_text(bytes: &[u8], options: &PrintOptions<'_>) -> String {
    let mut out = String::new();
    let Some(header) = parse_header(bytes) else {
        if bytes.is_empty() {
            return "OpenFlow message is empty\n".into();
        }
        let _ = writeln!(out, "OpenFlow packet too short (only {} bytes):", bytes.len());
        out.push_str(&hex_dump(bytes, true));
        return out;
    };
    let claimed = usize::from(header.length);
    let error = if claimed > bytes.len() {
        // The kind can still be told.
        if let Ok(id) = identify_prefix(bytes) {
            put_header(&mut out, id, header);
            out.push('\n');
        }
        let _ = writeln!(out, "(***truncated to {} bytes from {claimed}***)", bytes.len());
        None
    } else if claimed < bytes.len() {
        let _ = writeln!(out, "(***only uses {claimed} bytes out of {}***)", bytes.len());
        None
    } else {
        match identify(bytes) {
            Err(e) => Some(e),
            Ok(id) => {
                put_header(&mut out, id.kind.name, header);
                match decode_partly(bytes, 0) {
                    Ok((d, faults)) => {
                        let broken = faults.broken;
                        let at = out.len();
                        body(&mut out, &d, id.flags, options);
                        if says_all_tables(bytes, id.kind.raw)
                            && let Some(end) = out[at + 1..].find(' ')
                            && !out[at + 1 + end..].starts_with(" table:")
                        {
                            out.insert_str(at + 1 + end, " table:255");
                        }
                        if matches!(d.message, Message::Hello(_)) && crate::decode::is_odd_hello(bytes) {
                            out.push_str(" unknown data in hello:\n");
                            out.push_str(&hex_dump(bytes, true));
                        }
                        let groups = matches!(
                            &d.message,
                            Message::MultipartReply(MultipartReply { body: MultipartBody::Group(_), .. })
                        );
                        if broken.is_some() && groups {
                            out.push_str(" ***parse error***");
                        }
                        let begins_a_line = matches!(
                            &d.message,
                            Message::MultipartReply(MultipartReply { body: MultipartBody::PortDesc(_), .. })
                        );
                        if broken.is_some() && !begins_a_line && out[at..].trim().is_empty() {
                            out.truncate(at);
                        } else if !out.ends_with('\n') {
                            out.push('\n');
                        }
                        if broken.is_none() {
                            if options.verbosity >= 5 {
                                out.push_str(&hex_dump(bytes, true));
                            }
                            return out;
                        }
                        broken
                    }
                    Err(e) => {
                        let may_have_more = id.is_reply() || id.version >= Version::V13;
                        multipart_flags(&mut out, id.flags, may_have_more);
                        if !out.ends_with(':') {
                            out.push('\n');
                        }
                        Some(e)
                    }
                }
            }
        }
    };
    if let Some(e) = error {
        if !out.is_empty() && !out.ends_with([' ', '\n']) {
            out.push(' ');
        }
        let _ = writeln!(out, "***decode error: {e}***");
    }
    out.push_str(&hex_dump(bytes, true));
    out
}

/// The name of a message's kind, whatever its length.
fn identify_prefix(bytes: &[u8]) -> Result<&'static str, OfError> {
    crate::raw::identify_kind(bytes).map(|i| i.kind.name)
}

/// Whether a flow_mod of OpenFlow 1.0 has 255 for the table beside its command: that is more than no table.
fn says_all_tables(bytes: &[u8], raw: crate::raw::Raw) -> bool {
    let table = match raw {
        crate::raw::Raw::FlowMod10 => bytes.get(56),
        crate::raw::Raw::NxFlowMod => bytes.get(24),
        _ => None,
    };
    table == Some(&0xff)
}

fn multipart_flags(out: &mut String, flags: u16, may_have_more: bool) {
    if flags == 0 {
        return;
    }
    out.push_str(" flags=");
    let mut left = flags;
    if may_have_more && flags & 1 != 0 {
        out.push_str("[more]");
        left &= !1;
    }
    if left != 0 {
        let _ = write!(out, "[***unknown flags {left:#06x}***]");
    }
}

fn put_header(out: &mut String, name: &str, h: Header) {
    let _ = write!(out, "{name}{} (xid={:#x}):", version_suffix(h.version), h.xid);
}

/// Appends a packet's key, as packet-ins print it.
pub fn packet_text(data: &[u8], packet_type: u32) -> String {
    crate::packet_text::packet_to_string(data, packet_type)
}

fn body(out: &mut String, d: &Decoded, flags: u16, o: &PrintOptions<'_>) {
    use Message as M;
    let n = &o.names;
    let v = Version::from_wire(d.header.version).unwrap_or(Version::V10);
    // Writing to a String cannot fail.
    let _ = match &d.message {
        M::Hello(versions) => {
            let list: Vec<String> =
                (1..32).filter(|i| versions.0 >> i & 1 != 0).map(|i| format!("0x{i:02x}")).collect();
            writeln!(out, "\n version bitmap: {}", list.join(", "))
        }
        M::Error(e) => error(out, e),
        M::EchoRequest(data) | M::EchoReply(data) => {
            let _ = writeln!(out, " {} bytes of payload", data.len());
            if o.verbosity > 1 {
                out.push_str(&hex_dump(data, true));
            }
            Ok(())
        }
        M::FeaturesRequest
        | M::GetConfigRequest
        | M::BarrierRequest
        | M::BarrierReply
        | M::GetAsyncRequest
        | M::FlowAge
        | M::FlowMonitorPaused
        | M::FlowMonitorResumed
        | M::TlvTableRequest => Ok(()),
        M::FeaturesReply(f) => {
            print_stats::features(out, f, v, n);
            Ok(())
        }
        M::GetConfigReply(c) | M::SetConfig(c) => config(out, c),
        M::PacketIn(p) | M::Resume(p) => packet_in(out, p, v, o),
        M::FlowRemoved(f) => flow_removed(out, f, n),
        M::PortStatus(s) => {
            let what = match s.reason {
                PortReason::Add => "ADD",
                PortReason::Delete => "DEL",
                PortReason::Modify => "MOD",
            };
            let _ = write!(out, " {what}:");
            print_stats::port(out, &s.port);
            Ok(())
        }
        M::PacketOut(p) => packet_out(out, p, v, o),
        M::FlowMod(f) => flow_mod(out, f, v, n),
        M::GroupMod(g) => {
            group_text::group_mod(out, g, v, n);
            Ok(())
        }
        M::PortMod(p) => port_mod(out, p, n),
        M::TableMod(t) => table_mod(out, t, v, n),
        M::MeterMod(m) => {
            group_text::meter_mod(out, m);
            Ok(())
        }
        M::RoleRequest(r) | M::RoleReply(r) => {
            let name = match r.role {
                Role::NoChange => "nochange",
                Role::Equal => "equal",
                Role::Primary => "primary",
                Role::Secondary => "secondary",
            };
            let _ = write!(out, " role={name}");
            match r.generation_id {
                Some(g) => write!(out, " generation_id={g}"),
                None => Ok(()),
            }
        }
        M::RoleStatus(r) => {
            let role = match r.role {
                Role::NoChange => "nochange",
                Role::Equal => "equal",
                Role::Primary => "primary",
                Role::Secondary => "secondary",
            };
            let _ = write!(out, " role={role}");
            if r.generation_id != u64::MAX {
                let _ = write!(out, " generation_id={}", r.generation_id);
            }
            let why = match r.reason {
                0 => "primary_request",
                1 => "configuration_changed",
                2 => "experimenter_data_changed",
                _ => "(unknown)",
            };
            write!(out, " reason={why}")
        }
        M::GetAsyncReply(a) | M::SetAsync(a) => async_config(out, a),
        M::QueueGetConfigRequest(q) => {
            multipart_flags(out, flags, true);
            out.push_str(" port=");
            put_port(out, q.port, n);
            if q.queue != OFPQ_ALL {
                let _ = write!(out, " queue={}", q.queue);
            }
            Ok(())
        }
        M::QueueGetConfigReply(q) => {
            multipart_flags(out, flags, true);
            print_stats::queue_config(out, q, n);
            Ok(())
        }
        M::SetFlowFormat(f) => write!(
            out,
            " format={}",
            match f {
                FlowFormat::OpenFlow10 => "openflow10",
                FlowFormat::Nxm => "nxm",
            }
        ),
        M::FlowModTableId(on) => write!(out, " {}", if *on { "enable" } else { "disable" }),
        M::SetPacketInFormat(f) => write!(
            out,
            " format={}",
            match f {
                PacketInFormat::Standard => "standard",
                PacketInFormat::Nxt => "nxt_packet_in",
                PacketInFormat::Nxt2 => "nxt_packet_in2",
            }
        ),
        M::SetControllerId(id) => write!(out, " id={id}"),
        M::FlowMonitorCancel(id) => write!(out, " id={id}"),
        M::BundleControl(c) => bundle_control(out, c),
        M::BundleAdd(a) => {
            let _ = write!(out, "\n bundle_id={}", c_hex(a.bundle_id.into()));
            bundle_flags(out, a.flags);
            out.push('\n');
            let inner = message_text(&a.raw, o);
            out.push_str(&inner);
            Ok(())
        }
        M::TlvTableMod(t) => {
            let what = match t.command {
                0 => "ADD",
                1 => "DEL",
                _ => "CLEAR",
            };
            let _ = write!(out, "\n {what}");
            if what != "CLEAR" {
                tlv_maps(out, &t.maps);
            }
            Ok(())
        }
        M::TlvTableReply(t) => {
            let used: u32 = t.maps.iter().map(|m| u32::from(m.len)).sum();
            let _ = write!(
                out,
                "\n max option space={} max fields={}\n allocated option space={used}\n\n",
                t.max_space, t.max_fields
            );
            tlv_maps(out, &t.maps);
            Ok(())
        }
        M::CtFlushZone(zone) => write!(out, " zone_id={zone}"),
        M::CtFlush(f) => {
            ct_flush(out, f);
            Ok(())
        }
        M::TableStatus(t) => {
            let why = match t.reason {
                3 => "VACANCY_DOWN",
                _ => "VACANCY_UP",
            };
            let _ = write!(out, " reason={why}");
            out.push_str("\ntable_desc:-");
            print_stats::table_desc(out, &t.desc, v, n);
            Ok(())
        }
        M::RequestForward(r) => {
            out.push(' ');
            let _ = write!(out, "reason=");
            match &**r {
                RequestForward::Group(g) => {
                    out.push_str("group_mod");
                    group_text::group_mod(out, g, v, n);
                }
                RequestForward::Meter(m) => {
                    out.push_str("meter_mod");
                    group_text::meter_mod(out, m);
                }
            }
            Ok(())
        }
        M::MultipartRequest(r) => {
            // Requests in parts came with OpenFlow 1.3.
            multipart_flags(out, flags, v >= Version::V13);
            print_stats::request(out, r, v, o);
            Ok(())
        }
        M::MultipartReply(r) => {
            multipart_flags(out, flags, true);
            print_stats::reply(out, &r.body, v, o);
            Ok(())
        }
    };
}

fn error(out: &mut String, e: &ErrorMessage) -> std::fmt::Result {
    writeln!(out, " {}", e.error)?;
    if matches!(e.error, OfError::OFPHFC_INCOMPATIBLE | OfError::OFPHFC_EPERM) {
        put_escaped(out, &e.data);
        if !e.data.is_empty() {
            out.push('\n');
        }
    } else {
        out.push_str(&message_text(&e.data, &PrintOptions { verbosity: 1, ..Default::default() }));
    }
    Ok(())
}

/// Appends text, bytes that are no characters as octal.
fn put_escaped(out: &mut String, bytes: &[u8]) {
    for b in bytes {
        if (0x20..0x7f).contains(b) {
            out.push(*b as char);
        } else {
            let _ = write!(out, "\\{b:03o}");
        }
    }
}

/// The name of a fragment mode.
pub fn frag_name(f: FragHandling) -> &'static str {
    match f {
        FragHandling::Normal => "normal",
        FragHandling::Drop => "drop",
        FragHandling::Reassemble => "reassemble",
        FragHandling::NxMatch => "nx-match",
    }
}

fn config(out: &mut String, c: &SwitchConfig) -> std::fmt::Result {
    write!(out, " frags={}", frag_name(c.frag))?;
    if c.invalid_ttl_to_controller == Some(true) {
        out.push_str(" invalid_ttl_to_controller");
    }
    writeln!(out, " miss_send_len={}", c.miss_send_len)
}

fn packet_in(out: &mut String, p: &PacketIn, v: Version, o: &PrintOptions<'_>) -> std::fmt::Result {
    let n = &o.names;
    if p.table_id != 0 && p.table_id != 0xff {
        out.push_str(" table_id=");
        put_table(out, p.table_id, n);
    }
    if p.cookie != u64::MAX {
        write!(out, " cookie={:#x}", p.cookie)?;
    }
    write!(out, " total_len={} ", p.total_len)?;
    ib_flow::text::matching::format_match(&p.metadata, n.ports, out);
    write!(out, " (via {})", reason_text(p.reason as u8))?;
    write!(out, " data_len={}", p.data.len())?;
    if p.buffer_id == NO_BUFFER {
        out.push_str(" (unbuffered)");
        if p.total_len as usize != p.data.len() {
            out.push_str(" (***total_len != data_len***)");
        }
    } else {
        write!(out, " buffer={:#010x}", p.buffer_id)?;
        if (p.total_len as usize) < p.data.len() {
            out.push_str(" (***total_len < data_len***)");
        }
    }
    out.push('\n');
    if !p.userdata.is_empty() {
        out.push_str(" userdata=");
        put_dotted_hex(out, &p.userdata);
        out.push('\n');
    }
    crate::continuation_text::put_continuation(out, &p.continuation, v, n);
    if o.verbosity > 0 {
        let pt = if p.metadata.mask.0.packet_type.is_zero() { 0 } else { p.metadata.flow.packet_type.get() };
        out.push_str(&packet_text(&p.data, pt));
    }
    if o.verbosity > 2 {
        out.push_str(&hex_dump(&p.data, false));
    }
    Ok(())
}

fn flow_removed(out: &mut String, f: &FlowRemoved, n: &Names<'_>) -> std::fmt::Result {
    out.push(' ');
    format_match_priority(out, &f.match_, f.priority, n);
    write!(out, " reason={}", f.reason)?;
    if f.table_id != 0xff {
        out.push_str(" table_id=");
        put_table(out, f.table_id, n);
    }
    if f.cookie != 0 {
        write!(out, " cookie:{:#x}", f.cookie)?;
    }
    out.push_str(" duration");
    put_duration(out, f.duration_sec, f.duration_nsec);
    write!(out, " idle{}", f.idle_timeout)?;
    if f.hard_timeout != 0 {
        write!(out, " hard{}", f.hard_timeout)?;
    }
    writeln!(out, " pkts{} bytes{}", f.packet_count, f.byte_count)
}

fn packet_out(out: &mut String, p: &PacketOut, v: Version, o: &PrintOptions<'_>) -> std::fmt::Result {
    out.push(' ');
    ib_flow::text::matching::format_match(&p.metadata, o.names.ports, out);
    out.push_str(" actions=");
    format_actions_of(out, &p.actions, v, &o.names);
    if p.buffer_id == NO_BUFFER {
        write!(out, " data_len={}", p.data.len())?;
        if o.verbosity > 0 && !p.data.is_empty() {
            out.push('\n');
            let pt =
                if p.metadata.mask.0.packet_type.is_zero() { 0 } else { p.metadata.flow.packet_type.get() };
            out.push_str(&packet_text(&p.data, pt));
            if o.verbosity > 2 {
                out.push_str(&hex_dump(&p.data, false));
            }
        }
    } else {
        write!(out, " buffer={:#010x}", p.buffer_id)?;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(())
}

/// Appends a flow_mod, without its header.
pub fn flow_mod(out: &mut String, f: &FlowMod, v: Version, n: &Names<'_>) -> std::fmt::Result {
    out.push(' ');
    out.push_str(match f.command {
        FlowModCommand::Add => "ADD",
        FlowModCommand::Modify => "MOD",
        FlowModCommand::ModifyStrict => "MOD_STRICT",
        FlowModCommand::Delete => "DEL",
        FlowModCommand::DeleteStrict => "DEL_STRICT",
    });
    if f.table_id != 0 {
        out.push_str(" table:");
        put_table(out, f.table_id, n);
    }
    out.push(' ');
    format_match_priority(out, &f.match_, f.priority, n);
    if !out.ends_with(' ') {
        out.push(' ');
    }
    if f.new_cookie != 0 && f.new_cookie != u64::MAX {
        write!(out, "cookie:{:#x} ", f.new_cookie)?;
    }
    if f.cookie_mask != 0 {
        write!(out, "cookie:{:#x}/{:#x} ", f.cookie, f.cookie_mask)?;
    }
    if f.idle_timeout != 0 {
        write!(out, "idle:{} ", f.idle_timeout)?;
    }
    if f.hard_timeout != 0 {
        write!(out, "hard:{} ", f.hard_timeout)?;
    }
    if f.importance != 0 {
        write!(out, "importance:{} ", f.importance)?;
    }
    if f.buffer_id != NO_BUFFER {
        write!(out, "buf:{:#x} ", f.buffer_id)?;
    }
    if f.out_port != OfPort::NONE {
        out.push_str("out_port:");
        put_port(out, f.out_port, n);
        out.push(' ');
    }
    // Before 1.2 additions reset counters without saying so.
    let implied = if v < Version::V12 { FlowModFlags::RESET_COUNTS } else { 0 };
    put_flags(out, f.flags & !implied);
    out.push_str("actions=");
    format_actions_of(out, &f.actions, v, n);
    Ok(())
}

fn port_mod(out: &mut String, p: &PortMod, n: &Names<'_>) -> std::fmt::Result {
    out.push_str(" port: ");
    put_port(out, p.port_no, n);
    writeln!(out, ": addr:{}", p.hw_addr)?;
    out.push_str("     config: ");
    print_stats::put_bits(out, p.config, &print_stats::PORT_CONFIG);
    out.push_str("\n     mask:   ");
    print_stats::put_bits(out, p.mask, &print_stats::PORT_CONFIG);
    out.push_str("\n     advertise: ");
    if p.advertise == 0 {
        out.push_str("UNCHANGED\n");
    } else {
        print_stats::put_bits(out, p.advertise, &print_stats::FEATURES);
        out.push('\n');
    }
    Ok(())
}

pub(crate) fn miss_name(m: TableMiss) -> &'static str {
    match m {
        TableMiss::Default => "default",
        TableMiss::Controller => "controller",
        TableMiss::Continue => "continue",
        TableMiss::Drop => "drop",
    }
}

fn table_mod(out: &mut String, t: &TableMod, v: Version, n: &Names<'_>) -> std::fmt::Result {
    out.push(' ');
    if t.table_id == 0xff {
        out.push_str("table_id: ALL_TABLES");
    } else {
        out.push_str("table_id=");
        put_table(out, t.table_id, n);
    }
    if t.miss != TableMiss::Default {
        write!(out, ", flow_miss_config={}", miss_name(t.miss))?;
    }
    if v >= Version::V14 {
        // Open vSwitch prints the flags' number as if it were a state.
        let eviction = match (t.eviction_flags, t.eviction) {
            (Some(0), _) | (None, None) => None,
            (Some(1), _) | (None, Some(true)) => Some("on"),
            (Some(2), _) | (None, Some(false)) => Some("off"),
            (Some(_), _) => Some("***error***"),
        };
        if let Some(e) = eviction {
            write!(out, ", eviction={e}")?;
        }
        if let Some(x) = &t.vacancy {
            write!(out, ", vacancy={}", if x.enabled { "on" } else { "off" })?;
            if x.enabled {
                write!(out, " vacancy:{},{}", x.down, x.up)?;
            }
        }
    }
    Ok(())
}

fn async_config(out: &mut String, a: &AsyncConfig) -> std::fmt::Result {
    const REASONS: [&[&str]; 6] = [
        &["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"],
        &["add", "delete", "modify"],
        &["idle", "hard", "delete", "group_delete", "meter_delete", "eviction"],
        &["primary_request", "configuration_changed", "experimenter_data_changed"],
        &["?", "?", "?", "vacancy_down", "vacancy_up"],
        &["group_mod_request", "meter_mod_request"],
    ];
    const KINDS: [&str; 6] =
        ["PACKET_IN", "PORT_STATUS", "FLOW_REMOVED", "ROLE_STATUS", "TABLE_STATUS", "REQUESTFORWARD"];
    for (who, masks) in [("primary", &a.primary), ("secondary", &a.secondary)] {
        write!(out, "\n {who}:\n")?;
        for kind in 0..6 {
            write!(out, "{:>16}:", KINDS[kind])?;
            if masks[kind] == 0 {
                out.push_str(" (off)\n");
                continue;
            }
            for bit in 0..32 {
                if masks[kind] >> bit & 1 != 0 {
                    match REASONS[kind].get(bit) {
                        Some(r) if *r != "?" => write!(out, " {r}")?,
                        _ => write!(out, " {bit}")?,
                    }
                }
            }
            out.push('\n');
        }
    }
    Ok(())
}

/// A number as C's `%#x` prints it: zero has no prefix.
fn c_hex(v: u64) -> String {
    if v == 0 { "0".into() } else { format!("{v:#x}") }
}

fn bundle_flags(out: &mut String, flags: u16) {
    out.push_str(" flags=");
    if flags == 0 {
        out.push('0');
        return;
    }
    let mut parts = Vec::new();
    if flags & 1 != 0 {
        parts.push("atomic".to_string());
    }
    if flags & 2 != 0 {
        parts.push("ordered".into());
    }
    if flags & !3 != 0 {
        parts.push(format!("{:#x}", flags & !3));
    }
    out.push_str(&parts.join(" "));
}

fn bundle_control(out: &mut String, c: &BundleControl) -> std::fmt::Result {
    use BundleControlKind as K;
    let kind = match c.kind {
        K::OpenRequest => "OPEN_REQUEST",
        K::OpenReply => "OPEN_REPLY",
        K::CloseRequest => "CLOSE_REQUEST",
        K::CloseReply => "CLOSE_REPLY",
        K::CommitRequest => "COMMIT_REQUEST",
        K::CommitReply => "COMMIT_REPLY",
        K::DiscardRequest => "DISCARD_REQUEST",
        K::DiscardReply => "DISCARD_REPLY",
        K::Unknown => "",
    };
    write!(out, "\n bundle_id={} type={kind}", c_hex(c.bundle_id.into()))?;
    bundle_flags(out, c.flags);
    Ok(())
}

fn tlv_maps(out: &mut String, maps: &[TlvMap]) {
    out.push_str(
        " mapping table:\n  class  type  length  match field\n ------  ----  ------  --------------\n",
    );
    for m in maps {
        let _ = writeln!(
            out,
            " {:>6}  {:>4}  {:>6}  tun_metadata{}",
            c_hex(m.class.into()),
            c_hex(m.kind.into()),
            m.len,
            m.index
        );
    }
}

fn ct_flush(out: &mut String, f: &CtFlush) {
    let _ = write!(out, " zone={}", f.zone.unwrap_or(0));
    if let Some((mark, mask)) = f.mark {
        let _ = write!(out, " mark={mark:#x}/{mask:#x}");
    }
    if let Some((l, m)) = f.labels {
        let _ = write!(out, " labels={l:#x}/{m:#x}");
    }
    let addresses = [f.orig.src, f.orig.dst, f.reply.src, f.reply.dst];
    let v4 = addresses.iter().flatten().any(|a| a.to_ipv4_mapped().is_some());
    let family = if v4 { "nw" } else { "ipv6" };
    for (original, t) in [(true, &f.orig), (false, &f.reply)] {
        out.push_str(" '");
        for (side, a) in [("src", t.src), ("dst", t.dst)] {
            let a = a.unwrap_or(std::net::Ipv6Addr::UNSPECIFIED);
            let _ = match a.to_ipv4_mapped() {
                Some(a) => write!(out, "ct_{family}_{side}={a},"),
                None => write!(out, "ct_{family}_{side}={a},"),
            };
        }
        let or_0 = |n: Option<u16>| n.unwrap_or(0);
        let _ = if matches!(f.ip_proto, 1 | 58) {
            let (kind, code) = (t.icmp.1.unwrap_or(0), t.icmp.2.unwrap_or(0));
            write!(out, "icmp_id={},icmp_type={kind},icmp_code={code}", or_0(t.icmp.0))
        } else {
            write!(out, "ct_tp_src={},ct_tp_dst={}", or_0(t.src_port), or_0(t.dst_port))
        };
        if original {
            let _ = write!(out, ",ct_nw_proto={}", f.ip_proto);
        }
        out.push('\'');
    }
}

/// Table features, tables that are like the one before in short.
pub fn table_features_text(list: &[TableFeatures], version: Version, names: &Names<'_>) -> String {
    let mut out = String::new();
    let mut i = 0;
    let mut previous: Option<&TableFeatures> = None;
    while i < list.len() {
        if previous.is_some() {
            out.push('\n');
        }
        let same = |p| list[i..].iter().take_while(|t| print_stats::same_features(p, t)).count();
        let mut run = previous.map_or(0, same);
        // A table with a name of its own is a line of its own.
        let named = list[i..i + run].iter().position(print_stats::has_name);
        run = named.map_or(run, |at| at.max(1));
        if run > 0 && named == Some(0) {
            print_stats::put_table_heading(&mut out, &list[i], names);
            out.push_str(": ditto\n");
            i += 1;
        } else if run > 0 {
            print_stats::put_ditto(&mut out, list[i].table_id, list[i + run - 1].table_id, names);
            i += run;
        } else {
            print_stats::table_features(&mut out, &list[i], previous, None, version, names);
            i += 1;
            if i == list.len() {
                out.push('\n');
            }
        }
        previous = list.get(i - 1);
    }
    out
}
