//! Commands about a switch as a whole, its ports, queues and tables.

use ib_base::time::Clock;
use ib_flow::OfPort;
use ib_openflow::message::*;
use ib_openflow::names::{NO_NAMES, Names};
use ib_openflow::print::{PrintOptions, frag_name, message_text};

use super::conn::{Conn, must_decode, xid_of};
use super::{Ctl, Fail, Result};
use crate::io::Io;

impl Ctl {
    /// Options for printing, with names if they are to be shown.
    pub(super) fn print_options<'a>(&self, names: Names<'a>, more: i32) -> PrintOptions<'a> {
        PrintOptions { names, verbosity: self.options.verbosity + more }
    }

    /// Sends a request and prints the reply, all parts of it.
    pub(super) fn dump(&mut self, conn: &mut Conn, request: &Message, io: &mut Io<'_>) -> Result<()> {
        self.dump_named(conn, request, NO_NAMES, io)
    }

    fn dump_named(
        &mut self,
        conn: &mut Conn,
        request: &Message,
        names: Names<'_>,
        io: &mut Io<'_>,
    ) -> Result<()> {
        let xid = self.send(conn, request)?;
        loop {
            let m = conn.reply_to(xid)?;
            io.out(message_text(&m, &self.print_options(names, 1)));
            if !more(&m) {
                return Ok(());
            }
        }
    }

    /// [`Ctl::dump`], with the names of ports and tables if the user wants names.
    pub(super) fn dump_with_names(
        &mut self,
        switch: &str,
        conn: &mut Conn,
        request: &Message,
        io: &mut Io<'_>,
    ) -> Result<()> {
        if !self.shows_names() {
            return self.dump(conn, request, io);
        }
        // The request goes first; names are asked for once there is something to print.
        let xid = self.send(conn, request)?;
        loop {
            let m = conn.reply_to(xid)?;
            self.load_ports(switch)?;
            self.load_tables(switch)?;
            io.out(message_text(&m, &self.print_options(self.names(), 1)));
            if !more(&m) {
                return Ok(());
            }
        }
    }

    /// A switch's ports.
    pub(super) fn fetch_ports(&mut self, switch: &str) -> Result<Vec<Port>> {
        let mut conn = self.open(switch)?;
        if conn.version < Version::V13 {
            let reply = self.transact(&mut conn, &Message::FeaturesRequest)?;
            match must_decode(&reply)?.message {
                Message::FeaturesReply(f) if !is_full(&reply) => return Ok(f.ports),
                Message::FeaturesReply(_) => {}
                _ => return Err(format!("{}: received bad features reply", conn.name).into()),
            }
        }
        let request = Message::MultipartRequest(MultipartRequest::PortDesc(OfPort::NONE));
        let mut ports = Vec::new();
        for body in self.collect(&mut conn, &request)? {
            if let MultipartBody::PortDesc(list) = body {
                ports.extend(list);
            }
        }
        Ok(ports)
    }

    /// A switch's tables and their names.
    pub(super) fn fetch_tables(&mut self, switch: &str) -> Result<Vec<(u8, String)>> {
        let mut conn = self.open(switch)?;
        let request = if conn.version < Version::V13 {
            MultipartRequest::Table
        } else {
            MultipartRequest::TableFeatures { tables: Vec::new(), more: false }
        };
        let mut out = Vec::new();
        for body in self.collect(&mut conn, &Message::MultipartRequest(request))? {
            match body {
                MultipartBody::Table(list) => {
                    out.extend(list.into_iter().map(|t| (t.table_id, t.features.name)))
                }
                MultipartBody::TableFeatures(list) => {
                    out.extend(list.into_iter().map(|t| (t.table_id, t.name)))
                }
                _ => {}
            }
        }
        // Names that a switch makes up are none.
        out.retain(|(id, name)| *name != format!("table{id}") && name != "classifier");
        Ok(out)
    }

    /// All parts of a multipart reply.
    pub(super) fn collect(&mut self, conn: &mut Conn, request: &Message) -> Result<Vec<MultipartBody>> {
        let xid = self.send(conn, request)?;
        let mut out = Vec::new();
        loop {
            let m = conn.reply_to(xid)?;
            let last = !more(&m);
            match must_decode(&m)?.message {
                Message::MultipartReply(r) => out.push(r.body),
                Message::Error(_) => {
                    return Err(Fail::Text(message_text(&m, &self.print_options(NO_NAMES, 2))));
                }
                _ => {}
            }
            if last {
                return Ok(out);
            }
        }
    }

    /// A port of a switch by name or number; the switch is asked if it is no number.
    pub(super) fn port_by_name(&mut self, switch: &str, name: &str) -> Result<OfPort> {
        if let Some(p) = ib_flow::text::parse_port(name, None) {
            return Ok(p);
        }
        self.fetch_ports(switch)?
            .iter()
            .find(|p| p.name == name)
            .map(|p| p.port_no)
            .ok_or_else(|| Fail::Msg(format!("{switch}: unknown port `{name}'")))
    }

    fn simple(&mut self, switch: &str, r: MultipartRequest, io: &mut Io<'_>) -> Result<()> {
        let mut conn = self.open(switch)?;
        self.dump(&mut conn, &Message::MultipartRequest(r), io)
    }

    /// Says which option is needed if the connection's version cannot.
    pub(super) fn need_version(&self, conn: &Conn, least: Version, what: &str) -> Result<()> {
        if conn.version >= least {
            return Ok(());
        }
        Err(format!("{what} needs OpenFlow {} or later ('-O {}')", least.number(), least.name()).into())
    }
}

/// Whether a reply says that more follow.
pub(super) fn more(m: &[u8]) -> bool {
    let reply = match m {
        [1, 17, ..] => true,
        [v, 19, ..] => *v > 1,
        _ => false,
    };
    reply && m.len() >= 12 && m[11] & 1 != 0
}

/// The bytes of a features reply without ports.
const FEATURES_LEN: usize = 32;

/// Whether a features reply has no room for one more port, so that some may be missing.
fn is_full(reply: &[u8]) -> bool {
    let each = match reply.first() {
        Some(1) => 48,
        Some(2 | 3) => 64,
        _ => return false,
    };
    reply.len() >= FEATURES_LEN && reply.len() + each > usize::from(u16::MAX)
}

pub(super) fn show(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let mut reply = ctl.transact(&mut conn, &Message::FeaturesRequest)?;
    let full = is_full(&reply);
    if full {
        // Its ports may not be all: none of them is shown here, all of them below.
        reply.truncate(FEATURES_LEN);
        reply[2..4].copy_from_slice(&[0, 32]);
    }
    io.out(message_text(&reply, &ctl.print_options(NO_NAMES, 1)));
    if conn.version >= Version::V13 || full {
        let request = Message::MultipartRequest(MultipartRequest::PortDesc(OfPort::NONE));
        ctl.dump(&mut conn, &request, io)?;
    }
    drop(conn);
    let mut conn = ctl.open(&args[0])?;
    ctl.dump(&mut conn, &Message::GetConfigRequest, io)
}

pub(super) fn dump_desc(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.simple(&args[0], MultipartRequest::Desc, io)
}

pub(super) fn dump_tables(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    ctl.dump_with_names(&args[0], &mut conn, &Message::MultipartRequest(MultipartRequest::Table), io)
}

fn fetch_table_features(ctl: &mut Ctl, conn: &mut Conn) -> Result<Vec<TableFeatures>> {
    let request =
        Message::MultipartRequest(MultipartRequest::TableFeatures { tables: Vec::new(), more: false });
    let mut all = Vec::new();
    for body in ctl.collect(conn, &request)? {
        if let MultipartBody::TableFeatures(list) = body {
            all.extend(list);
        }
    }
    Ok(all)
}

/// Gives a table another name: by its features, which are sent back with that changed.
fn rename_table(ctl: &mut Ctl, conn: &mut Conn, table_id: u8, name: &str) -> Result<()> {
    const MODIFY: u8 = 1;
    // A message has room for so many.
    const AT_ONCE: usize = 8;
    let mut all = fetch_table_features(ctl, conn)?;
    let t = all
        .iter_mut()
        .find(|t| t.table_id == table_id)
        .ok_or_else(|| format!("{}: no table {table_id}", conn.name))?;
    t.name = name.into();
    if conn.version == Version::V15 {
        t.command = MODIFY;
        all.retain(|t| t.table_id == table_id);
    }
    // Before OpenFlow 1.5 a request tells of every table.
    let request = |tables: &[TableFeatures], more| {
        Message::MultipartRequest(MultipartRequest::TableFeatures { tables: tables.to_vec(), more })
    };
    let xid = ctl.next_xid();
    let parts: Vec<&[TableFeatures]> = all.chunks(AT_ONCE).collect();
    for (i, part) in parts.iter().enumerate() {
        let bytes = conn.encode(&request(part, i + 1 < parts.len()), xid);
        conn.send_bytes(&bytes)?;
    }
    // A refusal prints like any, with what was refused.
    let reply = conn.reply_to(xid)?;
    match must_decode(&reply)?.message {
        Message::Error(_) => {
            Err(Fail::Text(ib_openflow::print::message_text(&reply, &ctl.print_options(NO_NAMES, 3))))
        }
        _ => Ok(()),
    }
}

pub(super) fn dump_table_features(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    ctl.need_version(&conn, Version::V13, "dump-table-features")?;
    let all = fetch_table_features(ctl, &mut conn)?;
    io.out(ib_openflow::print::table_features_text(&all, conn.version, &NO_NAMES));
    Ok(())
}

pub(super) fn dump_table_desc(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    ctl.need_version(&conn, Version::V14, "dump-table-desc")?;
    ctl.dump(&mut conn, &Message::MultipartRequest(MultipartRequest::TableDesc), io)
}

pub(super) fn dump_ipfix_bridge(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.simple(&args[0], MultipartRequest::IpfixBridge, io)
}

pub(super) fn dump_ipfix_flow(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    ctl.simple(&args[0], MultipartRequest::IpfixFlow, io)
}

pub(super) fn dump_ports(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let port = match args.get(1) {
        Some(p) => ctl.port_by_name(&args[0], p)?,
        None => OfPort::NONE,
    };
    let request = Message::MultipartRequest(MultipartRequest::Port(port));
    ctl.dump_with_names(&args[0], &mut conn, &request, io)
}

pub(super) fn dump_ports_desc(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let port = match args.get(1) {
        Some(p) => ctl.port_by_name(&args[0], p)?,
        None => OfPort::NONE,
    };
    ctl.dump(&mut conn, &Message::MultipartRequest(MultipartRequest::PortDesc(port)), io)
}

pub(super) fn queue_stats(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let all = |s: &String| s.is_empty() || s.eq_ignore_ascii_case("all");
    let port = match args.get(1).filter(|s| !all(s)) {
        Some(p) => ctl.port_by_name(&args[0], p)?,
        None => OfPort::NONE,
    };
    let queue = match args.get(2).filter(|s| !all(s)) {
        Some(q) => q.parse().unwrap_or(0),
        None => OFPQ_ALL,
    };
    let request = Message::MultipartRequest(MultipartRequest::Queue { port, queue });
    ctl.dump_with_names(&args[0], &mut conn, &request, io)
}

pub(super) fn queue_get_config(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let any = |s: &String| s.is_empty() || s.eq_ignore_ascii_case("any") || s.eq_ignore_ascii_case("all");
    let port = match args.get(1).filter(|s| !any(s)) {
        Some(p) => ctl.port_by_name(&args[0], p)?,
        None => OfPort::NONE,
    };
    let queue = match args.get(2).filter(|s| !any(s)) {
        Some(q) => q.parse().unwrap_or(0),
        None => OFPQ_ALL,
    };
    let mut conn = ctl.open(&args[0])?;
    // OpenFlow 1.0 cannot ask for all ports at once.
    let ports = if conn.version == Version::V10 && port == OfPort::NONE {
        let mut list: Vec<OfPort> =
            ctl.fetch_ports(&args[0])?.iter().map(|p| p.port_no).filter(|p| *p < OfPort::MAX).collect();
        list.sort();
        list
    } else {
        vec![port]
    };
    for port in ports {
        let request = Message::QueueGetConfigRequest(QueueGetConfigRequest { port, queue });
        ctl.dump_with_names(&args[0], &mut conn, &request, io)?;
    }
    Ok(())
}

pub(super) fn mod_port(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    const ACTIONS: &[(&str, bool, u32)] = &[
        // Name, whether the bit is cleared by it, bit.
        ("up", true, PortConfig::PORT_DOWN),
        ("down", false, PortConfig::PORT_DOWN),
        ("stp", true, PortConfig::NO_STP),
        ("receive", true, PortConfig::NO_RECV),
        ("receive-stp", true, PortConfig::NO_RECV_STP),
        ("flood", true, PortConfig::NO_FLOOD),
        ("forward", true, PortConfig::NO_FWD),
        ("packet-in", true, PortConfig::NO_PACKET_IN),
    ];
    let ports = ctl.fetch_ports(&args[0])?;
    // By number or by the name that the switch gives it; reserved ports have no other names here.
    let wanted = args[1].parse().ok().map(ib_flow::OfPort);
    let port = ports
        .iter()
        .find(|p| Some(p.port_no) == wanted || (wanted.is_none() && p.name == args[1]))
        .ok_or_else(|| Fail::Msg(format!("{}: couldn't find port `{}'", args[0], args[1])))?;
    let (name, no) = match args[2].strip_prefix("no-").or_else(|| args[2].strip_prefix("no")) {
        Some(rest) => (rest, true),
        None => (args[2].as_str(), false),
    };
    let (_, clears, bit) = ACTIONS
        .iter()
        .find(|(n, ..)| n.eq_ignore_ascii_case(name))
        .ok_or_else(|| Fail::Msg(format!("unknown mod-port command '{}'", args[2])))?;
    let config = if *clears != no { 0 } else { *bit };
    let m = PortMod { port_no: port.port_no, hw_addr: port.hw_addr, config, mask: *bit, advertise: 0 };
    let mut conn = ctl.open(&args[0])?;
    send_all(ctl, &mut conn, &Message::PortMod(m))
}

/// Sends one request that has no reply, and fails with the error if there is one.
pub(super) fn send_all(ctl: &mut Ctl, conn: &mut Conn, m: &Message) -> Result<()> {
    let xid = ctl.next_xid();
    let bytes = conn.encode(m, xid);
    ctl.transact_all(conn, &[bytes])
}

pub(super) fn mod_table(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    if ctl.accepts_names() {
        ctl.load_tables(&args[0])?;
    }
    let table_id = if args[1].eq_ignore_ascii_case("all") {
        OFPTT_ALL
    } else {
        ib_openflow::names::parse_table(&args[1], &ctl.names())
            .ok_or_else(|| Fail::Msg(format!("unknown table \"{}\"", args[1])))?
    };
    let mut tm = TableMod { table_id, ..Default::default() };
    let setting = args[2].as_str();
    let least_most = match setting {
        "controller" => {
            tm.miss = TableMiss::Controller;
            (Version::V11, Version::V12)
        }
        "continue" => {
            tm.miss = TableMiss::Continue;
            (Version::V11, Version::V12)
        }
        "drop" => {
            tm.miss = TableMiss::Drop;
            (Version::V11, Version::V12)
        }
        "evict" | "noevict" => {
            tm.eviction = Some(setting == "evict");
            (Version::V14, Version::V15)
        }
        "novacancy" => {
            tm.vacancy = Some(Vacancy::default());
            (Version::V14, Version::V15)
        }
        s if s == "vacancy" || s.starts_with("vacancy:") => {
            let mut thresholds =
                s["vacancy".len()..].trim_start_matches(':').split(',').filter(|t| !t.is_empty());
            let mut percent = |which: &str| -> Result<u8> {
                let t = thresholds.next().ok_or_else(|| format!("Vacancy {which} value missing"))?;
                let n = ib_openflow::c_integer(t).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 100);
                n.ok_or_else(|| Fail::Msg(format!("Invalid vacancy {which} value \"{t}\"")))
            };
            let (down, up) = (percent("down")?, percent("up")?);
            if up < down {
                return Err("Invalid vacancy range, vacancy up should be greater than vacancy down \
                            (OFPBPC_BAD_VALUE)"
                    .into());
            }
            tm.vacancy = Some(Vacancy { enabled: true, down, up, current: 0 });
            (Version::V14, Version::V15)
        }
        s if s.starts_with("name:") && table_id != OFPTT_ALL => (Version::V13, Version::V15),
        _ => return Err(format!("invalid table_mod setting {setting}").into()),
    };
    let usable: Vec<Version> = Version::ALL
        .into_iter()
        .filter(|v| *v >= least_most.0 && *v <= least_most.1 && ctl.options.versions.contains(*v))
        .collect();
    if usable.is_empty() {
        let wanted: u32 = Version::ALL
            .iter()
            .filter(|v| **v >= least_most.0 && **v <= least_most.1)
            .fold(0, |b, v| b | v.bit());
        let names: Vec<&str> =
            Version::ALL.iter().filter(|v| wanted & v.bit() != 0).map(|v| v.name()).collect();
        return Err(format!(
            "table_mod '{setting}' requires one of the OpenFlow versions {}",
            names.join(", ")
        )
        .into());
    }
    let mut conn = ctl.open(&args[0])?;
    if let Some(name) = setting.strip_prefix("name:") {
        return rename_table(ctl, &mut conn, table_id, name);
    }
    if tm.eviction.is_some() != tm.vacancy.is_some() && conn.version >= Version::V14 {
        // One message sets both: take the other from the switch.
        let request = Message::MultipartRequest(MultipartRequest::TableDesc);
        for body in ctl.collect(&mut conn, &request)? {
            if let MultipartBody::TableDesc(list) = body
                && let Some(d) = list.iter().find(|d| d.table_id == tm.table_id)
            {
                tm.eviction = tm.eviction.or(Some(d.eviction));
                tm.vacancy = tm.vacancy.or(Some(d.vacancy));
            }
        }
    }
    send_all(ctl, &mut conn, &Message::TableMod(tm))
}

/// Asks for the switch's configuration.
pub(super) fn fetch_config(ctl: &mut Ctl, conn: &mut Conn) -> Result<SwitchConfig> {
    let reply = ctl.transact(conn, &Message::GetConfigRequest)?;
    match must_decode(&reply)?.message {
        Message::GetConfigReply(c) => Ok(c),
        _ => Err(format!("{}: bad reply to config request", conn.name).into()),
    }
}

pub(super) fn get_frags(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let config = fetch_config(ctl, &mut conn)?;
    io.out(format!("{}\n", frag_name(config.frag)));
    Ok(())
}

pub(super) fn set_frags(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let frag = [FragHandling::Normal, FragHandling::Drop, FragHandling::Reassemble, FragHandling::NxMatch]
        .into_iter()
        .find(|f| frag_name(*f) == args[1])
        .ok_or_else(|| Fail::Msg(format!("{}: unknown fragment handling mode", args[1])))?;
    let mut conn = ctl.open(&args[0])?;
    let mut config = fetch_config(ctl, &mut conn)?;
    if config.frag == frag {
        return Ok(());
    }
    config.frag = frag;
    send_all(ctl, &mut conn, &Message::SetConfig(config))?;
    let now = fetch_config(ctl, &mut conn)?;
    if now.frag != frag {
        return Err(format!(
            "{}: setting fragment handling mode failed (this switch probably doesn't support mode \"{}\")",
            args[0], args[1]
        )
        .into());
    }
    Ok(())
}

pub(super) fn probe(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    let mut conn = ctl.open(&args[0])?;
    let bytes = conn.encode(&Message::EchoRequest(Vec::new()), 0);
    conn.send_bytes(&bytes)?;
    let reply = conn.reply_to(0)?;
    if reply.len() != 8 {
        return Err("reply does not match request".into());
    }
    Ok(())
}

/// The digits that a text begins with, as C reads numbers; what is negative is too large.
fn payload_len(s: &str) -> usize {
    let s = s.trim_start();
    if s.starts_with('-') {
        return usize::MAX;
    }
    let s = s.strip_prefix('+').unwrap_or(s);
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    if end == 0 { 0 } else { s[..end].parse().unwrap_or(usize::MAX) }
}

pub(super) fn ping(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let n = args.get(1).map_or(64, |n| payload_len(n));
    if n > 65535 - 8 {
        return Err(format!("payload must be between 0 and {} bytes", 65535 - 8).into());
    }
    let mut conn = ctl.open(&args[0])?;
    let clock = Clock::new();
    for _ in 0..10 {
        let payload: Vec<u8> = (0..n).map(|i| (i * 31 + 7) as u8).collect();
        let start = clock.now();
        let xid = ctl.send(&mut conn, &Message::EchoRequest(payload.clone()))?;
        let reply = conn.recv()?;
        let us = clock.now().since(start).as_micros();
        if xid_of(&reply) != xid || reply.get(8..) != Some(&payload[..]) {
            io.out("Reply does not match request:\n");
            io.out(message_text(&reply, &ctl.print_options(NO_NAMES, 2)));
        }
        io.out(format!(
            "{} bytes from {}: xid={:08x} time={:.1} ms\n",
            reply.len().saturating_sub(8),
            args[0],
            xid_of(&reply),
            us as f64 / 1000.0
        ));
        std::thread::sleep(std::time::Duration::ZERO);
    }
    Ok(())
}

pub(super) fn benchmark(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let n = payload_len(&args[1]);
    if n > 65535 - 8 {
        return Err(format!("payload must be between 0 and {} bytes", 65535 - 8).into());
    }
    let count: u64 = args[2].parse().unwrap_or(0);
    let size = (n + 8) as u64;
    io.out(format!("Sending {count} packets * {size} bytes (with header) = {} bytes total\n", count * size));
    let mut conn = ctl.open(&args[0])?;
    let clock = Clock::new();
    let start = clock.now();
    for _ in 0..count {
        ctl.transact(&mut conn, &Message::EchoRequest(vec![0; n]))?;
    }
    let ms = clock.now().since(start).as_secs_f64() * 1000.0;
    let per_sec = |x: u64| if ms > 0.0 { x as f64 / (ms / 1000.0) } else { 0.0 };
    io.out(format!(
        "Finished in {ms:.1} ms ({:.0} packets/s) ({:.0} bytes/s)\n",
        per_sec(count),
        per_sec(count * size)
    ));
    Ok(())
}
