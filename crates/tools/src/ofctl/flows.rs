//! Commands about flows.

use std::cmp::Ordering;
use std::collections::HashMap;

use ib_classifier::MiniMatch;
use ib_flow::Match;
use ib_flow::fields::Protocols;
use ib_flow::text::normalize::normalize_match;
use ib_openflow::flow_text::*;
use ib_openflow::message::*;
use ib_openflow::names::{NO_NAMES, Names};
use ib_openflow::print::message_text;

use super::conn::{Conn, xid_of};
use super::{Criterion, Ctl, Fail, Result};
use crate::io::Io;

/// Reads a file, or standard input for `-`.
pub(super) fn read_file(name: &str, io: &mut Io<'_>) -> Result<String> {
    let mut bytes = Vec::new();
    if name == "-" {
        io.stdin.read_to_end(&mut bytes).map_err(|e| Fail::Msg(format!("-: read failed ({e})")))?;
    } else {
        bytes = std::fs::read(name)
            .map_err(|e| Fail::Msg(format!("{name}: open failed ({})", ib_base::errno::strerror(&e))))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file of all flows that there should be. Of one that cannot be opened the original says less here.
fn read_whole_table(name: &str, io: &mut Io<'_>) -> Result<String> {
    match read_file(name, io) {
        Err(Fail::Msg(e)) => Err(Fail::Msg(e.replacen(": open failed (", ": open (", 1))),
        found => found,
    }
}

/// The lines of a file that say something, with their numbers: comments and surrounding spaces are gone.
pub(super) fn lines(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let t = line.trim_matches([' ', '\t', '\r', '\n']);
        if !t.is_empty() {
            out.push((i + 1, t.to_string()));
        }
    }
    out
}

/// A match that waits to be sent: small, for there may be a million.
pub(super) enum WaitingMatch {
    Small(MiniMatch),
    /// With places of its own for options of tunnels.
    Whole(Box<Match>),
}

impl From<Match> for WaitingMatch {
    fn from(m: Match) -> WaitingMatch {
        if m.tun_md == Default::default() {
            WaitingMatch::Small(MiniMatch::new(&m))
        } else {
            WaitingMatch::Whole(Box::new(m))
        }
    }
}

/// A flow_mod that waits.
pub(super) type WaitingMod = FlowMod<WaitingMatch>;

/// The message that was waiting.
pub(super) fn flow_mod_message(fm: WaitingMod) -> Message {
    let whole = fm.with_match(|m| match m {
        WaitingMatch::Small(m) => m.expand(),
        WaitingMatch::Whole(m) => *m,
    });
    Message::FlowMod(Box::new(whole))
}

/// Parses a file of flows.
pub(super) fn parse_flow_file(
    name: &str,
    text: &str,
    purpose: Purpose,
    names: Names<'_>,
) -> Result<(Vec<WaitingMod>, Protocols)> {
    let mut usable = Protocols::ANY;
    let mut out = Vec::new();
    for (line, s) in lines(text) {
        let (mut fm, u) =
            parse_flow_mod(&s, purpose, names).map_err(|e| Fail::Msg(format!("{name}:{line}: {e}")))?;
        normalize_match(&mut fm.match_, true);
        usable = usable.and(u);
        out.push(fm.with_match(WaitingMatch::from));
    }
    Ok((out, usable))
}

/// Sends flow_mods, as a bundle if asked.
fn send_flow_mods(ctl: &mut Ctl, switch: &str, fms: Vec<WaitingMod>, usable: Protocols) -> Result<()> {
    if ctl.options.bundle {
        return send_bundle(ctl, switch, fms.into_iter().map(flow_mod_message), usable);
    }
    let mut conn = ctl.open_for_flow_mod(switch, usable)?;
    for fm in fms {
        super::show::send_all(ctl, &mut conn, &flow_mod_message(fm))?;
    }
    Ok(())
}

/// OpenFlow 1.3 and later, which have bundles.
const BUNDLES: Protocols = Protocols(0x1c0);

/// Sends messages as one atomic transaction.
pub(super) fn send_bundle(
    ctl: &mut Ctl,
    switch: &str,
    messages: impl Iterator<Item = Message>,
    usable: Protocols,
) -> Result<()> {
    let mut conn = ctl.open_for_flow_mod(
        switch,
        usable.and(BUNDLES).or(Protocols(if usable.and(BUNDLES) == Protocols::NONE { usable.0 } else { 0 })),
    )?;
    let encoded: Vec<Vec<u8>> = messages
        .map(|m| {
            let xid = ctl.next_xid();
            conn.encode(&m, xid)
        })
        .collect();
    bundle_transact(ctl, &mut conn, encoded)
}

fn bundle_transact(ctl: &mut Ctl, conn: &mut Conn, mut messages: Vec<Vec<u8>>) -> Result<()> {
    // Atomic and ordered.
    let flags = 3;
    let control = |kind| Message::BundleControl(BundleControl { bundle_id: 0, kind, flags });
    let open = ctl.transact(conn, &control(BundleControlKind::OpenRequest))?;
    let failed = |conn: &Conn| Fail::Msg(format!("talking to {} (Protocol error)", conn.name));
    let mut said = String::new();
    let explain = |ctl: &Ctl, reply: &[u8], messages: &[Vec<u8>], said: &mut String| -> bool {
        let Ok(d) = ib_openflow::decode::decode(reply) else { return false };
        let Message::Error(e) = d.message else { return false };
        let request = messages.iter().find(|m| xid_of(m) == d.header.xid);
        let text = match request {
            Some(m) => message_text(m, &ctl.print_options(NO_NAMES, 1)),
            None => message_text(&e.data, &ctl.print_options(NO_NAMES, 1)),
        };
        said.push_str(&format!("Error {} for: {text}", e.error));
        true
    };
    if explain(ctl, &open, &messages, &mut said) {
        return Err(with_more(said, failed(conn)));
    }
    let mut bad = false;
    for m in &mut messages {
        let xid = xid_of(m);
        let add = Message::BundleAdd(BundleAdd { bundle_id: 0, flags, raw: std::mem::take(m) });
        conn.queue_bytes(&conn.encode(&add, xid))?;
        if let Message::BundleAdd(add) = add {
            *m = add.raw;
        }
    }
    // A barrier shows that all were looked at.
    let barrier = ctl.send(conn, &Message::BarrierRequest)?;
    loop {
        let m = conn.recv()?;
        if xid_of(&m) == barrier {
            break;
        }
        bad |= explain(ctl, &m, &messages, &mut said);
    }
    if bad {
        let _ = ctl.transact(conn, &control(BundleControlKind::DiscardRequest));
        return Err(with_more(said, failed(conn)));
    }
    let xid = ctl.send(conn, &control(BundleControlKind::CommitRequest))?;
    // Errors of single messages come before the reply to the commit.
    loop {
        let m = conn.recv()?;
        let is_error = explain(ctl, &m, &messages, &mut said);
        bad |= is_error;
        if xid_of(&m) == xid {
            break;
        }
    }
    if bad { Err(with_more(said, failed(conn))) } else { Ok(()) }
}

/// What was said before a failure, and the failure.
fn with_more(said: String, f: Fail) -> Fail {
    match f {
        Fail::Msg(m) => Fail::Text(format!("{said}ovs-ofctl: {m}\n")),
        f => f,
    }
}

fn flow_mod(ctl: &mut Ctl, args: &[String], command: FlowModCommand, io: &mut Io<'_>) -> Result<()> {
    if args.len() > 1 && args[1] == "-" {
        return flow_mod_file(ctl, &args[0], "-", Purpose::Mod(command), io);
    }
    ctl.load_names_tables_first(&args[0])?;
    let text = args.get(1).map_or("", String::as_str);
    let (mut fm, usable) = parse_flow_mod(text, Purpose::Mod(command), ctl.names())?;
    normalize_match(&mut fm.match_, true);
    send_flow_mods(ctl, &args[0], vec![fm.with_match(WaitingMatch::from)], usable)
}

fn flow_mod_file(ctl: &mut Ctl, switch: &str, file: &str, purpose: Purpose, io: &mut Io<'_>) -> Result<()> {
    ctl.load_names_tables_first(switch)?;
    // A file of flows to delete or modify may say so line by line, too.
    let text = read_file(file, io)?;
    let (fms, usable) = parse_flow_file(file, &text, purpose, ctl.names())?;
    send_flow_mods(ctl, switch, fms, usable)
}

pub(super) fn add_flow(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    flow_mod(ctl, args, FlowModCommand::Add, io)
}

pub(super) fn add_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    flow_mod_file(ctl, &args[0], &args[1], Purpose::AnyMod, io)
}

pub(super) fn mod_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let command = if ctl.options.strict { FlowModCommand::ModifyStrict } else { FlowModCommand::Modify };
    flow_mod(ctl, args, command, io)
}

pub(super) fn del_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let command = if ctl.options.strict { FlowModCommand::DeleteStrict } else { FlowModCommand::Delete };
    flow_mod(ctl, args, command, io)
}

/// The request that a command's optional flow argument makes.
fn stats_request(ctl: &mut Ctl, args: &[String]) -> Result<(FlowStatsRequest, Protocols)> {
    match args.get(1) {
        Some(s) => {
            ctl.load_names_ports_first(&args[0])?;
            Ok(parse_flow_stats_request(s, ctl.names())?)
        }
        None => Ok(parse_flow_stats_request("", NO_NAMES)?),
    }
}

pub(super) fn dump_aggregate(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let (request, usable) = stats_request(ctl, args)?;
    let mut conn = ctl.open(&args[0])?;
    ctl.set_dump_protocol(&mut conn, usable)?;
    ctl.dump(&mut conn, &Message::MultipartRequest(MultipartRequest::Aggregate(Box::new(request))), io)
}

fn compare(a: &FlowStats, b: &FlowStats, criteria: &[Criterion]) -> Ordering {
    for c in criteria {
        let order = match c.field {
            None => a.priority.cmp(&b.priority),
            Some(f) => {
                let (va, ma) = f.get_match(&a.match_);
                let (vb, mb) = f.get_match(&b.match_);
                let (wa, wb) = (f.is_set(&a.match_), f.is_set(&b.match_));
                // Flows without the field come last whichever the direction.
                if wa != wb {
                    return if wa { Ordering::Less } else { Ordering::Greater };
                }
                va.0.cmp(&vb.0).then(ma.0.cmp(&mb.0))
            }
        };
        let order = if c.descending { order.reverse() } else { order };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Fetches flows.
pub(super) fn fetch_flows(
    ctl: &mut Ctl,
    conn: &mut Conn,
    request: FlowStatsRequest,
) -> Result<Vec<FlowStats>> {
    let mut out = Vec::new();
    for body in ctl.collect(conn, &Message::MultipartRequest(MultipartRequest::Flow(Box::new(request))))? {
        if let MultipartBody::Flow(list) = body {
            out.extend(list);
        }
    }
    Ok(out)
}

pub(super) fn dump_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let (request, usable) = stats_request(ctl, args)?;
    let mut conn = ctl.open(&args[0])?;
    ctl.set_dump_protocol(&mut conn, usable)?;
    if ctl.options.criteria.is_empty() && !ctl.shows_names() && ctl.options.stats && !ctl.options.bare {
        return ctl.dump(
            &mut conn,
            &Message::MultipartRequest(MultipartRequest::Flow(Box::new(request))),
            io,
        );
    }
    let mut flows = fetch_flows(ctl, &mut conn, request)?;
    for f in &mut flows {
        // Ages are an extension that only the switch's own text shows.
        if conn.version < Version::V15 {
            f.idle_age = None;
            f.hard_age = None;
        }
    }
    let criteria = ctl.options.criteria.clone();
    if !criteria.is_empty() {
        flows.sort_by(|a, b| compare(a, b, &criteria));
    }
    if ctl.shows_names() {
        ctl.load_tables(&args[0])?;
        ctl.load_ports(&args[0])?;
    }
    let names = if ctl.shows_names() { ctl.names() } else { NO_NAMES };
    let mut out = String::new();
    for f in &flows {
        if !ctl.options.bare {
            out.push(' ');
        }
        format_flow_stats(&mut out, f, ctl.options.stats, conn.version, &names);
        out.push('\n');
    }
    io.out(out);
    Ok(())
}

/// What identifies a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FlowKey {
    table: u8,
    priority: u16,
    match_: Match,
}

/// One flow, as far as comparing goes.
#[derive(Clone, Debug, PartialEq)]
struct Version1 {
    cookie: u64,
    idle_timeout: u16,
    hard_timeout: u16,
    importance: u16,
    flags: u16,
    actions: Vec<ib_openflow::action::Action>,
}

/// A flow in up to two places.
struct Entry {
    key: FlowKey,
    sides: [Option<Version1>; 2],
}

/// Flows of two sources, by table and then in the order in which they came.
#[derive(Default)]
struct FlowTables {
    index: HashMap<(u8, u16, String), usize>,
    entries: Vec<Entry>,
}

impl FlowTables {
    fn insert(&mut self, key: FlowKey, v: Version1, side: usize) {
        let text = ib_flow::text::match_to_string(&key.match_, None);
        let at = *self.index.entry((key.table, key.priority, text)).or_insert_with(|| {
            self.entries.push(Entry { key, sides: [None, None] });
            self.entries.len() - 1
        });
        self.entries[at].sides[side] = Some(v);
    }

    fn values(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self.entries.iter().collect();
        all.sort_by_key(|e| e.key.table);
        all
    }
}

fn read_flows_from_file(
    ctl: &Ctl,
    file: &str,
    text: &str,
    side: usize,
    tables: &mut FlowTables,
) -> Result<Protocols> {
    let mut usable = Protocols::ANY;
    for (line, s) in lines(text) {
        let (fm, u) = parse_flow_mod(&s, Purpose::Mod(FlowModCommand::Add), ctl.names())
            .map_err(|e| Fail::Msg(format!("{file}:{line}: {e}")))?;
        usable = usable.and(u);
        let key = FlowKey {
            table: if fm.table_id == 0xff { 0 } else { fm.table_id },
            priority: fm.priority,
            match_: fm.match_,
        };
        let v = Version1 {
            cookie: fm.new_cookie,
            idle_timeout: fm.idle_timeout,
            hard_timeout: fm.hard_timeout,
            importance: fm.importance,
            flags: fm.flags,
            actions: fm.actions,
        };
        tables.insert(key, v, side);
    }
    Ok(usable)
}

fn read_flows_from_switch(
    ctl: &mut Ctl,
    conn: &mut Conn,
    side: usize,
    tables: &mut FlowTables,
) -> Result<()> {
    for f in fetch_flows(ctl, conn, FlowStatsRequest::default())? {
        let key = FlowKey { table: f.table_id, priority: f.priority, match_: f.match_ };
        let v = Version1 {
            cookie: f.cookie,
            idle_timeout: f.idle_timeout,
            hard_timeout: f.hard_timeout,
            importance: f.importance,
            flags: 0,
            actions: f.actions,
        };
        tables.insert(key, v, side);
    }
    Ok(())
}

/// Whether two versions of a flow are the same; how actions arrived does not matter.
fn same(a: &Version1, b: &Version1) -> bool {
    a.cookie == b.cookie
        && a.idle_timeout == b.idle_timeout
        && a.hard_timeout == b.hard_timeout
        && a.importance == b.importance
        && wire_form(&a.actions) == wire_form(&b.actions)
}

fn wire_form(a: &[ib_openflow::action::Action]) -> Vec<u8> {
    let mut b = ib_openflow::wire::Buf::default();
    ib_openflow::action_encode::encode_instructions(&mut b, a, Version::V15);
    b.0
}

fn to_flow_mod(key: &FlowKey, v: &Version1, command: FlowModCommand) -> FlowMod {
    let add = command == FlowModCommand::Add;
    FlowMod {
        match_: key.match_.clone(),
        priority: key.priority,
        table_id: key.table,
        command,
        new_cookie: if add { v.cookie } else { 0 },
        idle_timeout: v.idle_timeout,
        hard_timeout: v.hard_timeout,
        importance: v.importance,
        flags: v.flags,
        actions: if add { v.actions.clone() } else { Vec::new() },
        ..Default::default()
    }
}

pub(super) fn replace_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.load_names_ports_first(&args[0])?;
    let mut tables = FlowTables::default();
    let text = read_whole_table(&args[1], io)?;
    let usable = read_flows_from_file(ctl, &args[1], &text, 0, &mut tables)?;
    let mut conn = ctl.open(&args[0])?;
    ctl.set_dump_protocol(&mut conn, usable)?;
    read_flows_from_switch(ctl, &mut conn, 1, &mut tables)?;
    if conn.version == Version::V10 {
        // Tables other than the first need the extension.
        let want = Protocols(if conn.protocol.0 & 0x0c != 0 { 8 } else { 2 });
        ctl.try_set_protocol(&mut conn, want)?;
    }
    let mut messages = Vec::new();
    // Deletions first, so that there is room.
    for e in tables.values() {
        if let (None, Some(v)) = (&e.sides[0], &e.sides[1]) {
            messages.push(Message::FlowMod(Box::new(to_flow_mod(&e.key, v, FlowModCommand::DeleteStrict))));
        }
    }
    for e in tables.values() {
        if let Some(v) = &e.sides[0] {
            let changed = e.sides[1].as_ref().is_none_or(|old| !same(v, old));
            if changed || ctl.options.readd {
                messages.push(Message::FlowMod(Box::new(to_flow_mod(&e.key, v, FlowModCommand::Add))));
            }
        }
    }
    let encoded: Vec<Vec<u8>> = messages
        .iter()
        .map(|m| {
            let xid = ctl.next_xid();
            conn.encode(m, xid)
        })
        .collect();
    if ctl.options.bundle {
        bundle_transact(ctl, &mut conn, encoded)
    } else {
        ctl.transact_all(&mut conn, &encoded)
    }
}

pub(super) fn diff_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut tables = FlowTables::default();
    let mut switch_names: Option<String> = None;
    for (side, source) in args.iter().enumerate() {
        let is_file = if source.starts_with(['/', '.']) {
            true
        } else {
            !source.contains(':') && std::path::Path::new(source).is_file()
        };
        if is_file {
            let text = read_whole_table(source, io)?;
            read_flows_from_file(ctl, source, &text, side, &mut tables)?;
        } else {
            let mut conn = ctl.open(source)?;
            let allowed = ctl.options.protocols;
            ctl.set_dump_protocol(&mut conn, allowed)?;
            read_flows_from_switch(ctl, &mut conn, side, &mut tables)?;
            switch_names.get_or_insert_with(|| source.clone());
        }
    }
    if let (true, Some(s)) = (ctl.shows_names(), switch_names) {
        ctl.load_ports(&s)?;
        ctl.load_tables(&s)?;
    }
    let names = if ctl.shows_names() { ctl.names() } else { NO_NAMES };
    let mut out = String::new();
    let mut differ = false;
    for e in tables.values() {
        let [a, b] = &e.sides;
        if let (Some(a), Some(b)) = (a, b)
            && same(a, b)
        {
            continue;
        }
        differ = true;
        for (sign, v) in [('-', a), ('+', b)] {
            if let Some(v) = v {
                out.push(sign);
                format_diff(&mut out, &e.key, v, &names);
            }
        }
    }
    io.out(out);
    if differ { Err(Fail::Code(2)) } else { Ok(()) }
}

fn format_diff(out: &mut String, key: &FlowKey, v: &Version1, names: &Names<'_>) {
    use std::fmt::Write;
    if key.table != 0 {
        out.push_str("table=");
        ib_openflow::names::put_table(out, key.table, names);
        out.push(' ');
    }
    format_match_priority(out, &key.match_, key.priority, names);
    out.push(' ');
    if v.cookie != 0 {
        let _ = write!(out, "cookie={:#x} ", v.cookie);
    }
    if v.idle_timeout != 0 {
        let _ = write!(out, "idle_timeout={} ", v.idle_timeout);
    }
    if v.hard_timeout != 0 {
        let _ = write!(out, "hard_timeout={} ", v.hard_timeout);
    }
    if v.importance != 0 {
        let _ = write!(out, "importance={} ", v.importance);
    }
    out.push_str("actions=");
    ib_openflow::action_format::format_actions(out, &v.actions, names);
    out.push('\n');
}

pub(super) fn packet_out(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    if args.len() > 2 {
        // The old form: IN_PORT ACTIONS PACKET...
        if args.len() == 3 {
            return Err(format!("Too many arguments ({})", args.len() + 1).into());
        }
        ctl.load_names_tables_first(&args[0])?;
        let in_port = ctl.port_by_name(&args[0], &args[1])?;
        for packet in &args[3..] {
            let text = format!("in_port={} packet={packet} actions={}", in_port.0, args[2]);
            let (po, usable) = parse_packet_out(&text, ctl.names())
                .map_err(|e| e.strip_prefix("packet: ").unwrap_or(&e).to_string())?;
            let mut conn = ctl.open_for_flow_mod(&args[0], usable)?;
            super::show::send_all(ctl, &mut conn, &Message::PacketOut(Box::new(po)))?;
        }
        return Ok(());
    }
    ctl.load_names_tables_first(&args[0])?;
    let (po, usable) = parse_packet_out(&args[1], ctl.names())?;
    let mut conn = ctl.open_for_flow_mod(&args[0], usable)?;
    super::show::send_all(ctl, &mut conn, &Message::PacketOut(Box::new(po)))
}

pub(super) fn bundle(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.load_names_tables_first(&args[0])?;
    let text = read_file(&args[1], io)?;
    let mut usable = Protocols::ANY;
    let mut messages = Vec::new();
    for (line, s) in lines(&text) {
        let at = |e: String| Fail::Msg(format!("{}:{line}: {e}", args[1]));
        let (word, rest) = s.split_once([' ', '\t', ',']).unwrap_or((&s, ""));
        match word {
            "flow" => {
                let (fm, u) = parse_flow_mod(rest, Purpose::AnyMod, ctl.names()).map_err(at)?;
                usable = usable.and(u);
                messages.push(Message::FlowMod(Box::new(fm)));
            }
            "group" => {
                let (gm, u) =
                    ib_openflow::group_text::parse_group_mod(rest, None, ctl.names()).map_err(at)?;
                usable = usable.and(u);
                messages.push(Message::GroupMod(gm));
            }
            "packet-out" => {
                let (po, u) = parse_packet_out(rest, ctl.names()).map_err(at)?;
                usable = usable.and(u);
                messages.push(Message::PacketOut(Box::new(po)));
            }
            _ => {
                return Err(at(format!("Unsupported bundle message type: {word}")));
            }
        }
    }
    if ctl.options.versions.0 & !0x0e == 0 {
        // Bundles need OpenFlow 1.3 at least.
        ctl.options.versions.0 |= Version::V14.bit();
        ctl.options.protocols = ctl.options.protocols.or(protocols_of(Version::V14));
    }
    send_bundle(ctl, &args[0], messages.into_iter(), usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_comments_and_no_continuations() {
        let text = "# all\n\n  in_port=1,actions=2 # tail\r\nactions=3\\\nactions=4";
        let expect = [(3, "in_port=1,actions=2"), (4, "actions=3\\"), (5, "actions=4")];
        assert_eq!(lines(text), expect.map(|(n, l)| (n, l.to_owned())));
    }
}
