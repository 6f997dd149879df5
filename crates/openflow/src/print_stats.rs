//! Features, ports, tables and statistics as text.

use std::fmt::Write;

use ib_flow::{FieldId, OfPort};

use crate::flow_text::{format_flow_stats, format_match_priority, put_duration};
use crate::group_text;
use crate::message::*;
use crate::names::{Names, port_text, put_port, put_table};
use crate::print::{PrintOptions, miss_name};

/// Names of [`PortConfig`] bits.
pub(crate) const PORT_CONFIG: [(u32, &str); 7] = [
    (PortConfig::PORT_DOWN, "PORT_DOWN"),
    (PortConfig::NO_STP, "NO_STP"),
    (PortConfig::NO_RECV, "NO_RECV"),
    (PortConfig::NO_RECV_STP, "NO_RECV_STP"),
    (PortConfig::NO_FLOOD, "NO_FLOOD"),
    (PortConfig::NO_FWD, "NO_FWD"),
    (PortConfig::NO_PACKET_IN, "NO_PACKET_IN"),
];

/// Names of [`NetdevFeatures`] bits.
pub(crate) const FEATURES: [(u32, &str); 16] = [
    (1 << 0, "10MB-HD"),
    (1 << 1, "10MB-FD"),
    (1 << 2, "100MB-HD"),
    (1 << 3, "100MB-FD"),
    (1 << 4, "1GB-HD"),
    (1 << 5, "1GB-FD"),
    (1 << 6, "10GB-FD"),
    (1 << 7, "40GB-FD"),
    (1 << 8, "100GB-FD"),
    (1 << 9, "1TB-FD"),
    (1 << 10, "OTHER"),
    (1 << 11, "COPPER"),
    (1 << 12, "FIBER"),
    (1 << 13, "AUTO_NEG"),
    (1 << 14, "AUTO_PAUSE"),
    (1 << 15, "AUTO_PAUSE_ASYM"),
];

/// Appends the names of the bits that are set, the rest as a number; `0` for none.
pub(crate) fn put_bits(out: &mut String, bits: u32, names: &[(u32, &str)]) {
    put_bits_sep(out, bits, names, ' ');
}

pub(crate) fn put_bits_sep(out: &mut String, bits: u32, names: &[(u32, &str)], sep: char) {
    if bits == 0 {
        out.push('0');
        return;
    }
    let mut left = bits;
    let mut first = true;
    for (bit, name) in names {
        if left & bit != 0 {
            if !first {
                out.push(sep);
            }
            out.push_str(name);
            first = false;
            left &= !bit;
        }
    }
    if left != 0 {
        if !first {
            out.push(sep);
        }
        let _ = write!(out, "{left:#x}");
    }
}

fn features_line(out: &mut String, label: &str, bits: u32) {
    if bits != 0 {
        let _ = write!(out, "     {label:<12}");
        put_bits(out, bits, &FEATURES);
        out.push('\n');
    }
}

/// Appends a port's description.
pub fn port(out: &mut String, p: &Port) {
    let mut no = String::new();
    put_port(&mut no, p.port_no, &Names::default());
    // A name goes up to what is not for printing, and leaves room for a final zero byte.
    let printable = |b: &u8| (b' '..=b'~').contains(b);
    let end = p.name.bytes().take(15).take_while(printable).count();
    let _ = writeln!(out, " {no}({}): addr:{}", &p.name[..end], p.hw_addr);
    out.push_str("     config:     ");
    put_bits(out, p.config, &PORT_CONFIG);
    out.push_str("\n     state:      ");
    put_state(out, p.state);
    out.push('\n');
    features_line(out, "current:", p.curr);
    features_line(out, "advertised:", p.advertised);
    features_line(out, "supported:", p.supported);
    features_line(out, "peer:", p.peer);
    let _ = writeln!(
        out,
        "     speed: {} Mbps now, {} Mbps max",
        p.curr_speed_kbps / 1000,
        p.max_speed_kbps / 1000
    );
}

fn put_state(out: &mut String, state: u32) {
    let stp = state & PortState::STP_MASK;
    let names =
        [(PortState::LINK_DOWN, "LINK_DOWN"), (PortState::BLOCKED, "BLOCKED"), (PortState::LIVE, "LIVE")];
    let stp_name = match stp {
        PortState::STP_LEARN => Some("STP_LEARN"),
        PortState::STP_FORWARD => Some("STP_FORWARD"),
        PortState::STP_BLOCK => Some("STP_BLOCK"),
        _ => None,
    };
    let rest = state & !PortState::STP_MASK;
    match stp_name {
        None => put_bits(out, rest, &names),
        Some(name) => {
            if rest != 0 {
                put_bits(out, rest, &names);
                out.push(' ');
            }
            out.push_str(name);
        }
    }
}

/// Appends the features reply.
pub(crate) fn features(out: &mut String, f: &SwitchFeatures, v: Version, _n: &Names<'_>) {
    let _ = write!(out, " dpid:{:016x}\nn_tables:{}, n_buffers:{}", f.datapath_id, f.n_tables, f.n_buffers);
    if f.auxiliary_id != 0 {
        let _ = write!(out, ", auxiliary_id:{}", f.auxiliary_id);
    }
    out.push_str("\ncapabilities: ");
    put_bits(
        out,
        f.capabilities,
        &[
            (Capabilities::FLOW_STATS, "FLOW_STATS"),
            (Capabilities::TABLE_STATS, "TABLE_STATS"),
            (Capabilities::PORT_STATS, "PORT_STATS"),
            (Capabilities::GROUP_STATS, "GROUP_STATS"),
            (Capabilities::IP_REASM, "IP_REASM"),
            (Capabilities::QUEUE_STATS, "QUEUE_STATS"),
            (Capabilities::ARP_MATCH_IP, "ARP_MATCH_IP"),
            (Capabilities::PORT_BLOCKED, "PORT_BLOCKED"),
            (Capabilities::BUNDLES, "BUNDLES"),
            (Capabilities::FLOW_MONITORING, "FLOW_MONITORING"),
            (Capabilities::STP, "STP"),
        ],
    );
    out.push('\n');
    if v == Version::V10 {
        out.push_str("actions: ");
        put_bits(out, f.actions, &group_text::ACTION_NAMES10);
        out.push('\n');
    }
    let mut ports: Vec<&Port> = f.ports.iter().collect();
    ports.sort_by_key(|p| p.port_no);
    ports.iter().for_each(|p| port(out, p));
}

/// Appends queue configuration.
pub(crate) fn queue_config(out: &mut String, q: &QueueGetConfigReply, n: &Names<'_>) {
    out.push(' ');
    let mut queues: Vec<&QueueConfig> = q.queues.iter().collect();
    queues.sort_by_key(|x| (x.port, x.queue));
    let mut last = Some(OfPort(0));
    for x in queues {
        if last != Some(x.port) {
            out.push_str("port=");
            put_port(out, x.port, n);
            out.push('\n');
            last = Some(x.port);
        }
        let _ = write!(out, "queue {}:", x.queue);
        for (label, rate) in [("min_rate", x.min_rate), ("max_rate", x.max_rate)] {
            if let Some(r) = rate {
                if r <= 1000 {
                    let _ = write!(out, " {label}:{}.{}%", r / 10, r % 10);
                } else {
                    let _ = write!(out, " {label}:(disabled)");
                }
            }
        }
        out.push('\n');
    }
}

pub(crate) fn eviction_flags(out: &mut String, flags: u32) {
    if flags == u32::MAX {
        out.push_str("(default)");
        return;
    }
    put_bits_sep(out, flags, &[(1, "OTHER"), (2, "IMPORTANCE"), (4, "LIFETIME")], '|');
}

/// Appends a table's description.
pub(crate) fn table_desc(out: &mut String, t: &TableDesc, v: Version, n: &Names<'_>) {
    out.push_str("\n  table ");
    put_table(out, t.table_id, n);
    out.push_str(":\n");
    if v >= Version::V14 {
        let _ = write!(out, "   eviction={}", if t.eviction { "on" } else { "off" });
        if t.eviction_flags != u32::MAX {
            out.push_str(" eviction_flags=");
            eviction_flags(out, t.eviction_flags);
        }
        out.push('\n');
        let _ = write!(out, "   vacancy={}", if t.vacancy.enabled { "on" } else { "off" });
        if t.vacancy.enabled {
            let _ = write!(
                out,
                " vacancy_down={}% vacancy_up={}% vacancy={}%",
                t.vacancy.down, t.vacancy.up, t.vacancy.current
            );
        }
        out.push('\n');
    }
}

/// Appends a request.
pub(crate) fn request(out: &mut String, r: &MultipartRequest, v: Version, o: &PrintOptions<'_>) {
    use MultipartRequest as R;
    let n = &o.names;
    match r {
        R::TableFeatures { tables, .. } if !tables.is_empty() => {
            out.push('\n');
            let commands = ["modify", "enable", "disable"];
            if let Some(command) = commands.get(usize::from(tables[0].command).wrapping_sub(1)) {
                let _ = writeln!(out, "  command: {command}");
            }
            out.push_str(crate::print::table_features_text(tables, v, n).trim_end_matches('\n'));
        }
        R::Flow(f) | R::Aggregate(f) => {
            if f.table_id != 0xff {
                out.push_str(" table=");
                put_table(out, f.table_id, n);
            }
            if f.out_port != OfPort::NONE {
                out.push_str(" out_port=");
                put_port(out, f.out_port, n);
            }
            out.push(' ');
            format_match_priority(out, &f.match_, 0x8000, n);
        }
        R::Port(p) => {
            out.push_str(" port_no=");
            put_port(out, *p, n);
        }
        R::PortDesc(p) => {
            out.push_str(" port=");
            put_port(out, *p, n);
        }
        R::Queue { port, queue } => {
            out.push_str(" port=");
            if *port == OfPort::NONE {
                out.push_str("ANY");
            } else {
                put_port(out, *port, n);
            }
            out.push_str(" queue=");
            if *queue == OFPQ_ALL {
                out.push_str("ALL");
            } else {
                let _ = write!(out, "{queue}");
            }
        }
        R::Group(id) | R::GroupDesc(id) => {
            out.push_str(" group_id=");
            group_text::put_group_id(out, *id);
        }
        R::Meter(id) | R::MeterConfig(id) => {
            out.push_str(" meter=");
            group_text::put_meter_id(out, *id);
        }
        R::FlowMonitor(list) => {
            for m in list {
                monitor_request(out, m, n);
            }
        }
        _ => {}
    }
}

fn monitor_request(out: &mut String, m: &FlowMonitorRequest, n: &Names<'_>) {
    let _ = write!(out, "\n id={} flags=", m.id);
    put_bits_sep(
        out,
        m.flags.into(),
        &[
            (1, "initial"),
            (2, "add"),
            (4, "delete"),
            (8, "modify"),
            (16, "actions"),
            (32, "own"),
            (64, "only-own"),
        ],
        ',',
    );
    if m.out_port != OfPort::NONE {
        out.push_str(" out_port=");
        put_port(out, m.out_port, n);
    }
    if m.out_group != OFPG_ANY {
        // Signed, as the original has it.
        let _ = write!(out, " out_group={}", m.out_group as i32);
    }
    if m.table_id != 0xff {
        out.push_str(" table=");
        put_table(out, m.table_id, n);
    }
    if m.match_.mask == ib_flow::Mask::default() {
        return;
    }
    out.push(' ');
    format_match_priority(out, &m.match_, 0x8000, n);
}

fn stat(out: &mut String, leader: &str, v: u64, last: bool) {
    out.push_str(leader);
    if v == u64::MAX {
        out.push('?');
    } else {
        let _ = write!(out, "{v}");
    }
    out.push_str(if last { "\n" } else { ", " });
}

/// Appends a reply.
pub(crate) fn reply(out: &mut String, b: &MultipartBody, v: Version, o: &PrintOptions<'_>) {
    use MultipartBody as B;
    let n = &o.names;
    match b {
        B::Desc(d) => {
            for (label, s) in [
                ("Manufacturer", &d.mfr_desc),
                ("Hardware", &d.hw_desc),
                ("Software", &d.sw_desc),
                ("Serial Num", &d.serial_num),
                ("DP Description", &d.dp_desc),
            ] {
                let _ = write!(out, "\n{label}: {s}");
            }
            out.push('\n');
        }
        B::Flow(list) => {
            for f in list {
                out.push_str("\n ");
                format_flow_stats(out, f, true, v, n);
            }
        }
        B::Aggregate(a) => {
            let _ = write!(
                out,
                " packet_count={} byte_count={} flow_count={}",
                a.packet_count, a.byte_count, a.flow_count
            );
        }
        B::Table(list) => tables(out, list, v, n),
        B::Port(list) => {
            let _ = writeln!(out, " {} ports", list.len());
            if o.verbosity < 1 {
                return;
            }
            list.iter().for_each(|s| port_stats(out, s, n));
        }
        B::Queue(list) => {
            let _ = writeln!(out, " {} queues", list.len());
            if o.verbosity < 1 {
                return;
            }
            for q in list {
                out.push_str("  port ");
                put_port(out, q.port, n);
                let _ = write!(out, " queue {}: ", q.queue);
                stat(out, "bytes=", q.tx_bytes, false);
                stat(out, "pkts=", q.tx_packets, false);
                stat(out, "errors=", q.tx_errors, false);
                out.push_str("duration=");
                if q.duration_sec == u32::MAX {
                    out.push('?');
                } else {
                    put_duration(out, q.duration_sec, q.duration_nsec);
                }
                out.push('\n');
            }
        }
        B::Group(list) => list.iter().for_each(|g| group_text::stats(out, g)),
        B::GroupDesc(list) => {
            for g in list {
                out.push_str("\n ");
                group_text::group(out, g, v, n);
            }
        }
        B::GroupFeatures(g) => group_text::features(out, g, v),
        B::Meter(list) => list.iter().for_each(|m| group_text::meter_stats(out, m)),
        B::MeterConfig(list) => {
            for m in list {
                out.push('\n');
                group_text::meter(out, m);
            }
        }
        B::MeterFeatures(m) => group_text::meter_features(out, m),
        B::TableFeatures(list) => {
            out.push('\n');
            out.push_str(crate::print::table_features_text(list, v, n).trim_end_matches('\n'));
        }
        B::PortDesc(list) => {
            out.push('\n');
            let mut ports: Vec<&Port> = list.iter().collect();
            ports.sort_by_key(|p| p.port_no);
            ports.iter().for_each(|p| port(out, p));
        }
        B::TableDesc(list) => list.iter().for_each(|t| table_desc(out, t, v, n)),
        B::FlowMonitor(list) => list.iter().for_each(|u| flow_update(out, u, v, n)),
        B::Ipfix { flow, stats } => ipfix(out, *flow, stats),
    }
}

fn port_stats(out: &mut String, s: &PortStats, n: &Names<'_>) {
    out.push_str("  port ");
    if s.port_no.0 < 10 {
        out.push(' ');
    }
    out.push_str(&port_text(s.port_no, n));
    out.push_str(": rx ");
    stat(out, "pkts=", s.rx_packets, false);
    stat(out, "bytes=", s.rx_bytes, false);
    stat(out, "drop=", s.rx_dropped, false);
    stat(out, "errs=", s.rx_errors, false);
    stat(out, "frame=", s.rx_frame_err, false);
    stat(out, "over=", s.rx_over_err, false);
    stat(out, "crc=", s.rx_crc_err, true);
    out.push_str("           tx ");
    stat(out, "pkts=", s.tx_packets, false);
    stat(out, "bytes=", s.tx_bytes, false);
    stat(out, "drop=", s.tx_dropped, false);
    stat(out, "errs=", s.tx_errors, false);
    stat(out, "coll=", s.collisions, true);
    if s.duration_sec != u32::MAX {
        out.push_str("           duration=");
        put_duration(out, s.duration_sec, s.duration_nsec);
        out.push('\n');
    }
    if let Some(r) = &s.rfc2819 {
        let rx = [
            ("1_to_64_packets=", r.rx_1_to_64),
            ("65_to_127_packets=", r.rx_65_to_127),
            ("128_to_255_packets=", r.rx_128_to_255),
            ("256_to_511_packets=", r.rx_256_to_511),
            ("512_to_1023_packets=", r.rx_512_to_1023),
            ("1024_to_1522_packets=", r.rx_1024_to_1522),
            ("1523_to_max_packets=", r.rx_1523_to_max),
            ("broadcast_packets=", r.rx_broadcast),
            ("undersized_errors=", r.rx_undersized),
            ("oversize_errors=", r.rx_oversize),
            ("rx_fragmented_errors=", r.rx_fragmented),
            ("rx_jabber_errors=", r.rx_jabber),
        ];
        let tx = [
            ("1_to_64_packets=", r.tx_1_to_64),
            ("65_to_127_packets=", r.tx_65_to_127),
            ("128_to_255_packets=", r.tx_128_to_255),
            ("256_to_511_packets=", r.tx_256_to_511),
            ("512_to_1023_packets=", r.tx_512_to_1023),
            ("1024_to_1522_packets=", r.tx_1024_to_1522),
            ("1523_to_max_packets=", r.tx_1523_to_max),
            ("multicast_packets=", r.tx_multicast),
            ("broadcast_packets=", r.tx_broadcast),
        ];
        for (side, list) in [("rx", &rx[..]), ("tx", &tx[..])] {
            let known: String =
                list.iter().filter(|(_, v)| *v != u64::MAX).map(|(k, v)| format!("{k}{v}, ")).collect();
            if !known.is_empty() {
                let _ = writeln!(out, "           {side} rfc2819 {known}");
            }
        }
    }
    if !s.custom.is_empty() {
        out.push_str("           CUSTOM Statistics");
        for (i, (name, v)) in s.custom.iter().enumerate() {
            if i % 3 == 0 {
                out.push_str("\n                      ");
            }
            let _ = write!(out, "{name}={v}, ");
        }
        out.push('\n');
    }
}

/// Whether two tables differ in nothing but their number and counters.
pub(crate) fn same_features(a: &TableFeatures, b: &TableFeatures) -> bool {
    let neutral = |t: &TableFeatures| {
        let mut t = t.clone();
        let me = t.table_id;
        t.table_id = 0;
        t.name = String::new();
        // "Later tables" are later ones of each.
        let later = |next: &mut [u64; 4], me: u8| {
            let mut all = true;
            for i in 0..=255u8 {
                let set = next[usize::from(i / 64)] >> (i % 64) & 1 != 0;
                if i <= me && set {
                    all = false;
                }
            }
            // None at all is not the same as all of the later ones.
            if all && *next != [0; 4] {
                *next = [1, 0, 0, 0];
            }
        };
        later(&mut t.nonmiss.next, me);
        later(&mut t.missing.next, me);
        t
    };
    neutral(a) == neutral(b)
}

fn tables(out: &mut String, list: &[TableStats], v: Version, n: &Names<'_>) {
    let mut i = 0;
    let mut last: Option<&TableStats> = None;
    let same = |a: &TableStats, b: &TableStats| {
        a.active_count == b.active_count
            && a.lookup_count == b.lookup_count
            && a.matched_count == b.matched_count
            && same_features(&a.features, &b.features)
    };
    while i < list.len() {
        let t = &list[i];
        out.push('\n');
        let run = last.map_or(0, |prev| list[i..].iter().take_while(|x| same(prev, x)).count());
        if run > 0 {
            put_ditto(out, t.table_id, list[i + run - 1].table_id, n);
            i += run;
        } else {
            table_features(out, &t.features, last.map(|l| &l.features), Some(t), v, n);
            i += 1;
        }
        last = list.get(i - 1);
    }
}

/// Says that tables are like the one before.
pub(crate) fn put_ditto(out: &mut String, first: u8, last: u8, n: &Names<'_>) {
    if first == last {
        let _ = writeln!(out, "  table {}: ditto", table_name(first, n));
    } else {
        let _ = writeln!(out, "  tables {first}...{last}: ditto");
    }
}

fn table_name(t: u8, n: &Names<'_>) -> String {
    let mut s = String::new();
    put_table(&mut s, t, n);
    s
}

/// Appends fields in the order of the field table. Names that begin alike are gathered (`eth_{src,dst}`), runs of
/// numbers abbreviated (`reg0...reg15`).
fn put_fields(out: &mut String, fields: &[FieldId]) {
    let mut ids = fields.to_vec();
    // The TTL of NSH was declared last.
    ids.sort_by_key(|f| if *f == FieldId::NshTtl { (FieldId::NshC4, 1) } else { (*f, 0) });
    ids.dedup();
    let names: Vec<&str> = ids.iter().map(|f| f.name).collect();
    put_names(out, &names, ' ');
}

/// A name's letters and its number at the end.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let at = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    Some((&name[..at], name[at..].parse().ok()?))
}

fn put_names(out: &mut String, names: &[&str], sep: char) {
    let mut i = 0;
    while i < names.len() {
        if i > 0 {
            out.push(sep);
        }
        let head = names[i].split_once('_').map(|(h, _)| h);
        let of_group =
            |x: &&&str| head.is_some_and(|h| x.strip_prefix(h).is_some_and(|r| r.starts_with('_')));
        let group = names[i..].iter().take_while(of_group).count();
        let mut run = 1;
        if let Some((letters, n)) = numbered(names[i]) {
            run = names[i..].iter().zip(n..).take_while(|(x, n)| numbered(x) == Some((letters, *n))).count();
        }
        match head {
            Some(h) if group > 1 => {
                let tails: Vec<&str> = names[i..i + group].iter().map(|x| &x[h.len() + 1..]).collect();
                let _ = write!(out, "{h}_{{");
                put_names(out, &tails, ',');
                out.push('}');
                i += group;
            }
            _ if run > 2 => {
                let _ = write!(out, "{}...{}", names[i], names[i + run - 1]);
                i += run;
            }
            _ => {
                out.push_str(names[i]);
                i += 1;
            }
        }
    }
}

/// Appends a table's features.
/// Whether a table's name is not one that a switch makes up.
pub(crate) fn has_name(t: &TableFeatures) -> bool {
    !t.name.is_empty() && t.name != format!("table{}", t.table_id) && t.name != "classifier"
}

/// Appends `  table 1 ("foo")`.
pub(crate) fn put_table_heading(out: &mut String, t: &TableFeatures, n: &Names<'_>) {
    let _ = write!(out, "  table {}", table_name(t.table_id, n));
    if has_name(t) && n.tables.is_none() {
        let _ = write!(out, " (\"{}\")", t.name);
    }
}

pub(crate) fn table_features(
    out: &mut String,
    t: &TableFeatures,
    prev: Option<&TableFeatures>,
    stats: Option<&TableStats>,
    v: Version,
    n: &Names<'_>,
) {
    put_table_heading(out, t, n);
    out.push_str(":\n");
    if let Some(s) = stats {
        let _ = write!(out, "    active={}, ", s.active_count);
        let _ = writeln!(out, "lookup={}, matched={}", s.lookup_count, s.matched_count);
    }
    if let Some(p) = prev {
        let informative = t.max_entries != 0 || !t.match_fields.is_empty();
        if informative && same_features(t, p) {
            out.push_str("    (same features)\n");
            return;
        }
    }
    if t.metadata_match != 0 || t.metadata_write != 0 {
        out.push_str("    metadata:");
        let _ = write!(out, " match={:#x} write={:#x}", t.metadata_match, t.metadata_write);
        out.push('\n');
    }
    if t.miss != TableMiss::Default {
        let _ = writeln!(out, "    config={}", miss_name(t.miss));
    }
    if v >= Version::V14 && stats.is_none() {
        let yes = |b: bool| if b { "supported" } else { "not supported" };
        let _ = write!(
            out,
            "    eviction: {}\n    vacancy events: {}\n",
            yes(t.supports_eviction),
            yes(t.supports_vacancy)
        );
    }
    if t.max_entries != 0 {
        let _ = writeln!(out, "    max_entries={}", t.max_entries);
    }
    let bare = |i: &TableInstrFeatures| {
        i.instructions == 0
            && i.next == [0; 4]
            && i.write == TableActionFeatures::default()
            && i.apply == TableActionFeatures::default()
    };
    if !bare(&t.nonmiss) || !bare(&t.missing) {
        let old = prev.filter(|p| p.nonmiss == t.nonmiss && p.missing == t.missing);
        if old.is_some() {
            out.push_str("    (same instructions)\n");
        } else if t.nonmiss == t.missing {
            out.push_str("    instructions (table miss and others):\n");
            instructions(out, &t.nonmiss, prev.map(|p| &p.nonmiss));
        } else {
            out.push_str("    instructions (other than table miss):\n");
            instructions(out, &t.nonmiss, prev.map(|p| &p.nonmiss));
            out.push_str("    instructions (table miss):\n");
            instructions(out, &t.missing, prev.map(|p| &p.missing));
        }
    }
    let same_matching = |p: &&TableFeatures| {
        p.match_fields == t.match_fields
            && p.mask_fields == t.mask_fields
            && p.wildcard_fields == t.wildcard_fields
    };
    if !t.match_fields.is_empty() && prev.filter(same_matching).is_some() {
        out.push_str("    (same matching)\n");
        return;
    }
    if !t.match_fields.is_empty() {
        out.push_str("    matching:\n");
        let arbitrary: Vec<FieldId> =
            t.match_fields.iter().copied().filter(|f| t.mask_fields.contains(f)).collect();
        let wild: Vec<FieldId> = t
            .match_fields
            .iter()
            .copied()
            .filter(|f| !t.mask_fields.contains(f) && t.wildcard_fields.contains(f))
            .collect();
        let must: Vec<FieldId> = t
            .match_fields
            .iter()
            .copied()
            .filter(|f| !t.mask_fields.contains(f) && !t.wildcard_fields.contains(f))
            .collect();
        for (label, list) in
            [("arbitrary mask", arbitrary), ("exact match or wildcard", wild), ("must exact match", must)]
        {
            if !list.is_empty() {
                let _ = write!(out, "      {label}: ");
                put_fields(out, &list);
                out.push('\n');
            }
        }
    }
}

fn put_tables(out: &mut String, next: &[u64; 4]) {
    let set: Vec<u16> = (0..256u16).filter(|i| next[usize::from(i / 64)] >> (i % 64) & 1 != 0).collect();
    let mut i = 0;
    let mut parts = Vec::new();
    while i < set.len() {
        let mut j = i;
        while j + 1 < set.len() && set[j + 1] == set[j] + 1 {
            j += 1;
        }
        parts.push(if j > i { format!("{}-{}", set[i], set[j]) } else { set[i].to_string() });
        i = j + 1;
    }
    out.push_str(&parts.join(","));
}

fn instructions(out: &mut String, i: &TableInstrFeatures, prev: Option<&TableInstrFeatures>) {
    if i.next != [0; 4] {
        out.push_str("      next tables: ");
        put_tables(out, &i.next);
        out.push('\n');
    }
    out.push_str("      instructions: ");
    if i.instructions == 0 {
        out.push_str("(none)");
    } else {
        let names: Vec<&str> = [
            (6, "meter"),
            (4, "apply_actions"),
            (5, "clear_actions"),
            (3, "write_actions"),
            (2, "write_metadata"),
            (1, "goto_table"),
        ]
        .into_iter()
        .filter(|(id, _)| i.instructions >> id & 1 != 0)
        .map(|(_, n)| n)
        .collect();
        out.push_str(&names.join(" "));
    }
    out.push('\n');
    let told = !i.write.set_fields.is_empty() || !i.apply.set_fields.is_empty();
    if told && prev.is_some_and(|p| p.write == i.write && p.apply == i.apply) {
        out.push_str("      (same actions)\n");
        return;
    }
    let same = i.write == i.apply;
    let both: &[(&str, &TableActionFeatures)] = if same {
        &[("Write-Actions and Apply-Actions", &i.write)]
    } else {
        &[("Write-Actions", &i.write), ("Apply-Actions", &i.apply)]
    };
    for (label, a) in both {
        if **a == TableActionFeatures::default() {
            continue;
        }
        let _ = writeln!(out, "      {label} features:");
        out.push_str("        actions: ");
        group_text::put_actions_bitmap(out, a.actions);
        out.push('\n');
        if !a.set_fields.is_empty() {
            out.push_str("        supported on Set-Field: ");
            put_fields(out, &a.set_fields);
            out.push('\n');
        }
    }
}

fn flow_update(out: &mut String, u: &FlowUpdate, v: Version, n: &Names<'_>) {
    out.push_str("\n event=");
    match u {
        FlowUpdate::Abbrev { xid } => {
            let _ = write!(out, "ABBREV xid={xid:#x}");
        }
        FlowUpdate::Paused => out.push_str("PAUSED"),
        FlowUpdate::Resumed => out.push_str("RESUMED"),
        FlowUpdate::Full {
            event,
            reason,
            match_,
            table_id,
            idle_timeout,
            hard_timeout,
            cookie,
            actions,
            ..
        } => {
            match event {
                FlowUpdateEvent::Initial => out.push_str("INITIAL"),
                FlowUpdateEvent::Added => out.push_str("ADDED"),
                FlowUpdateEvent::Modified => out.push_str("MODIFIED"),
                FlowUpdateEvent::Removed => {
                    let _ = write!(out, "DELETED reason={reason}");
                }
            }
            out.push_str(" table=");
            put_table(out, *table_id, n);
            if *idle_timeout != 0 {
                let _ = write!(out, " idle_timeout={idle_timeout}");
            }
            if *hard_timeout != 0 {
                let _ = write!(out, " hard_timeout={hard_timeout}");
            }
            // A number as C's `%#x` has it: zero without the prefix.
            let _ = match cookie {
                0 => write!(out, " cookie=0 "),
                _ => write!(out, " cookie={cookie:#x} "),
            };
            ib_flow::text::matching::format_match(match_, n.ports, out);
            if !actions.is_empty() {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                out.push_str("actions=");
                crate::action_format::format_actions_of(out, actions, v, n);
            }
        }
    }
}

fn ipfix(out: &mut String, flow: bool, list: &[IpfixStats]) {
    if flow {
        let _ = writeln!(out, " {} ids", list.len());
    } else {
        out.push('\n');
    }
    for s in list {
        if flow {
            let _ = writeln!(
                out,
                "  id {:>3}: flows={}, current flows={}, sampled pkts={}, ipv4 ok={}, ipv6 ok={}, tx pkts={}",
                s.collector_set_id,
                s.total_flows,
                s.current_flows,
                s.pkts,
                s.ipv4_pkts,
                s.ipv6_pkts,
                s.tx_pkts
            );
            let _ = writeln!(
                out,
                "          pkts errs={}, ipv4 errs={}, ipv6 errs={}, tx errs={}",
                s.error_pkts, s.ipv4_error_pkts, s.ipv6_error_pkts, s.tx_errors
            );
        } else {
            let _ = writeln!(
                out,
                "  bridge ipfix: flows={}, current flows={}, sampled pkts={}, ipv4 ok={}, ipv6 ok={}, tx pkts={}",
                s.total_flows, s.current_flows, s.pkts, s.ipv4_pkts, s.ipv6_pkts, s.tx_pkts
            );
            let _ = writeln!(
                out,
                "                pkts errs={}, ipv4 errs={}, ipv6 errs={}, tx errs={}",
                s.error_pkts, s.ipv4_error_pkts, s.ipv6_error_pkts, s.tx_errors
            );
        }
    }
}
