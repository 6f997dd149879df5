//! `monitor` and `snoop`: prints what a switch sends, until told to stop.
//!
//! A thread reads the connection and hands bytes over a bounded channel, so that `ofctl/block` pushes back on the
//! switch; the main loop prints, and serves the control socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use ib_base::time::{Clock, Instant, strftime};
use ib_openflow::decode::decode;
use ib_openflow::encode::{EncodeOptions, encode, encode_with};
use ib_openflow::flow_text::parse_packet_out;
use ib_openflow::message::*;
use ib_openflow::names::{NO_NAMES, Names};
use ib_openflow::print::{PrintOptions, message_text};
use ib_openflow::raw::{Frame, next_message};
use ib_stream::blocking::Blocking;
use ib_stream::reactor::Reactor;
use ib_stream::unixctl::{Call, Command, MANY, Server, socket_path, standard};

use super::conn::{Conn, Target, xid_of};
use super::show::{fetch_config, send_all};
use super::{Ctl, Fail, Result};
use crate::io::Io;

/// The monitor's state, which commands of the control socket change.
struct Monitor {
    out: File,
    stream: Blocking,
    version: Version,
    next_xid: u32,
    /// Fetches names for `ofctl/packet-out`, from there.
    names: Ctl,
    switch: String,
    exiting: Vec<Call>,
    blocked: bool,
    barrier: Option<Call>,
    verbosity: i32,
    clock: Clock,
}

impl standard::Standard for Monitor {}

impl Monitor {
    fn xid(&mut self) -> u32 {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        xid
    }

    /// A message's text, with the names of ports if the user wants them.
    fn text(&mut self, bytes: &[u8], verbosity: i32) -> String {
        if self.names.shows_names() {
            self.names.xid = self.next_xid;
            // Without names there are the numbers.
            let _ = self.names.load_ports(&self.switch);
            self.next_xid = self.names.xid;
        }
        let names =
            if self.names.shows_names() { Names { tables: None, ..self.names.names() } } else { NO_NAMES };
        message_text(bytes, &PrintOptions { names, verbosity })
    }

    /// Prints and sends a message; the result is for the caller of a command.
    fn send_logged(&mut self, prefix: &str, bytes: &[u8]) -> std::result::Result<(), String> {
        let text = self.text(bytes, self.verbosity);
        let _ = write!(self.out, "{prefix}{text}");
        self.stream.write_all(bytes).map_err(|e| ib_base::errno::strerror(&e))
    }
}

const COMMANDS: &[Command<Monitor>] = &[
    Command { name: "exit", usage: "", min: 0, max: 0, handler: |m, call| m.exiting.push(call) },
    Command { name: "ofctl/send", usage: "OFMSG...", min: 1, max: MANY, handler: send },
    Command {
        name: "ofctl/packet-out",
        usage: "\"in_port=<port> packet=<hex data> actions=...\"",
        min: 1,
        max: 1,
        handler: packet_out,
    },
    Command { name: "ofctl/barrier", usage: "", min: 0, max: 0, handler: barrier },
    Command { name: "ofctl/set-output-file", usage: "FILE", min: 1, max: 1, handler: set_output_file },
    Command {
        name: "ofctl/block",
        usage: "",
        min: 0,
        max: 0,
        handler: |m, call| {
            if m.blocked {
                call.ok("already blocking");
            } else {
                m.blocked = true;
                call.ok("");
            }
        },
    },
    Command {
        name: "ofctl/unblock",
        usage: "",
        min: 0,
        max: 0,
        handler: |m, call| {
            if m.blocked {
                m.blocked = false;
                call.ok("");
            } else {
                call.ok("already unblocked");
            }
        },
    },
];

fn send(m: &mut Monitor, call: Call) {
    let mut out = String::new();
    let mut ok = true;
    for a in &call.args {
        let result = match super::offline::hex_bytes(a) {
            None => Err("Trailing garbage in hex data".to_string()),
            Some(bytes) if bytes.len() < 8 => Err("Message too short for OpenFlow".into()),
            Some(bytes) if usize::from(u16::from_be_bytes([bytes[2], bytes[3]])) != bytes.len() => {
                Err("Message size does not match length in OpenFlow header".into())
            }
            Some(bytes) => m.send_logged("send: ", &bytes).map(|()| "sent".into()),
        };
        ok = result.is_ok();
        let (Ok(line) | Err(line)) = result;
        out.push_str(&line);
        out.push('\n');
        if !ok {
            break;
        }
    }
    call.answer_text(if ok { Ok(out) } else { Err(out) });
}

fn packet_out(m: &mut Monitor, call: Call) {
    // A second connection asks for the names, with the same transaction ids.
    m.names.xid = m.next_xid;
    let loaded = m.names.load_names_tables_first(&m.switch);
    m.next_xid = m.names.xid;
    if let Err(Fail::Msg(e) | Fail::Text(e)) = loaded {
        return call.err(format!("{e}\n"));
    }
    match parse_packet_out(call.arg(0).unwrap_or(""), m.names.names()) {
        Err(e) => call.err(format!("{e}\n")),
        Ok((po, _)) => {
            let xid = m.xid();
            let bytes =
                encode_with(&Message::PacketOut(Box::new(po)), m.version, xid, EncodeOptions::default());
            match m.send_logged("", &bytes) {
                Ok(()) => call.ok(""),
                Err(e) => call.err(e),
            }
        }
    }
}

fn barrier(m: &mut Monitor, call: Call) {
    if m.barrier.is_some() {
        return call.err("already waiting for barrier reply");
    }
    let xid = m.xid();
    let bytes = encode(&Message::BarrierRequest, m.version, xid);
    match m.stream.write_all(&bytes) {
        Ok(()) => m.barrier = Some(call),
        Err(e) => call.err(ib_base::errno::strerror(&e)),
    }
}

fn set_output_file(m: &mut Monitor, call: Call) {
    match File::create(call.arg(0).unwrap_or("")) {
        Ok(f) => {
            m.out = f;
            call.ok("");
        }
        Err(e) => call.err(ib_base::errno::strerror(&e)),
    }
}

/// Asks for packet-ins in a format.
fn set_packet_in_format(ctl: &mut Ctl, conn: &mut Conn, f: PacketInFormat, must: bool) -> Result<bool> {
    let reply = ctl.transact_noreply(conn, &Message::SetPacketInFormat(f))?;
    match reply {
        None => Ok(true),
        Some(_) if !must => Ok(false),
        Some(reply) => {
            let text = message_text(&reply, &ctl.print_options(NO_NAMES, 2));
            Err(Fail::Msg(format!(
                "{}: failed to set packet in format to {}, switch replied: {text}",
                conn.name,
                match f {
                    PacketInFormat::Standard => "standard",
                    PacketInFormat::Nxt => "nxt_packet_in",
                    PacketInFormat::Nxt2 => "nxt_packet_in2",
                }
            )))
        }
    }
}

/// Parses `watch:[...]`.
fn parse_watch(ctl: &Ctl, s: &str, id: u32) -> Result<FlowMonitorRequest> {
    let mut r = FlowMonitorRequest {
        id,
        command: 0,
        flags: MonitorFlags::INITIAL
            | MonitorFlags::ADD
            | MonitorFlags::DELETE
            | MonitorFlags::MODIFY
            | MonitorFlags::OWN
            | MonitorFlags::ACTIONS,
        out_port: ib_flow::OfPort::NONE,
        out_group: OFPG_ANY,
        table_id: 0xff,
        match_: Default::default(),
    };
    let mut usable = ib_flow::fields::Protocols::ANY;
    for (k, v) in ib_openflow::key_values(s) {
        match k {
            "!initial" => r.flags &= !MonitorFlags::INITIAL,
            "!add" => r.flags &= !MonitorFlags::ADD,
            "!delete" => r.flags &= !MonitorFlags::DELETE,
            "!modify" => r.flags &= !MonitorFlags::MODIFY,
            "!actions" => r.flags &= !MonitorFlags::ACTIONS,
            "!own" => r.flags &= !MonitorFlags::OWN,
            _ if ib_flow::text::parse::parse_match_key(
                k,
                v,
                ctl.names().ports,
                &mut r.match_,
                &mut usable,
            )? => {}
            _ if v.is_empty() => return Err(format!("{s}: field {k} missing value").into()),
            "table" => {
                r.table_id = ib_openflow::names::parse_table(v, &ctl.names())
                    .ok_or_else(|| Fail::Msg(format!("unknown table \"{v}\"")))?;
            }
            "out_port" => {
                r.out_port = ib_flow::text::parse_port(v, ctl.names().ports)
                    .ok_or_else(|| Fail::Msg(format!("{v} is not a valid OpenFlow port")))?;
            }
            "out_group" => {
                r.out_group = ib_openflow::flow_text::parse_group(v)
                    .ok_or_else(|| Fail::Msg(format!("{v} is not a valid OpenFlow group")))?;
            }
            _ => return Err(format!("{s}: unknown keyword {k}").into()),
        }
    }
    Ok(r)
}

pub(super) fn monitor(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    if args[1..].iter().any(|a| a.starts_with("watch:")) && ctl.options.protocols.0 == 0x01 {
        // Monitoring says more than OpenFlow 1.0 can.
        ctl.options.protocols = ctl.options.protocols.or(ib_flow::fields::Protocols(0x0c));
    }
    if args[1..].iter().any(|a| a == "invalid_ttl") {
        // Later versions have no such setting; that of OpenFlow 1.0 is an extension.
        let allowed = ctl.options.versions.0 & (Version::V10.bit() | Version::V11.bit() | Version::V12.bit());
        if allowed == 0 {
            return Err("invalid_ttl requires one of the OpenFlow versions OpenFlow10, OpenFlow11, OpenFlow12 but none \
                        is enabled (use -O)"
                .into());
        }
        ctl.options.versions = Versions(allowed);
    }
    ctl.daemon.start();
    let mut conn = ctl.open(&args[0])?;
    let mut resume = false;
    let mut watches = Vec::new();
    for a in &args[1..] {
        if a.starts_with(|c: char| c.is_ascii_digit()) {
            let mut config = fetch_config(ctl, &mut conn)?;
            config.miss_send_len = a.parse().unwrap_or(0);
            send_all(ctl, &mut conn, &Message::SetConfig(config))?;
        } else if a == "invalid_ttl" {
            let mut config = fetch_config(ctl, &mut conn)?;
            if config.invalid_ttl_to_controller != Some(true) {
                config.invalid_ttl_to_controller = Some(true);
                send_all(ctl, &mut conn, &Message::SetConfig(config))?;
                // The switch says whether it took that.
                if fetch_config(ctl, &mut conn)?.invalid_ttl_to_controller != Some(true) {
                    let e = "setting invalid_ttl_to_controller failed (this switch probably doesn't support this flag)";
                    return Err(e.into());
                }
            }
        } else if let Some(w) = a.strip_prefix("watch:") {
            if ctl.accepts_names() {
                ctl.load_names_tables_first(&args[0])?;
            }
            watches.push(parse_watch(ctl, w, watches.len() as u32)?);
        } else if a == "resume" {
            // Continuations go back to the switch at once; without this length there are no packet-ins.
            resume = true;
            let mut config = fetch_config(ctl, &mut conn)?;
            config.miss_send_len = u16::MAX;
            send_all(ctl, &mut conn, &Message::SetConfig(config))?;
        } else {
            return Err(format!("{a}: unsupported \"monitor\" argument").into());
        }
    }
    for w in watches {
        let request = Message::MultipartRequest(MultipartRequest::FlowMonitor(vec![w]));
        let xid = ctl.next_xid();
        let bytes = conn.encode(&request, xid);
        let mut text = String::new();
        if ctl.options.verbosity > 0 {
            text.push_str(&message_text(&bytes, &ctl.print_options(NO_NAMES, 1)));
        }
        conn.send_bytes(&bytes)?;
        loop {
            let m = conn.recv()?;
            text.push_str(&message_text(&m, &ctl.print_options(NO_NAMES, 1)));
            if xid_of(&m) == xid && !super::show::more(&m) {
                break;
            }
        }
        io.out(text);
        let _ = io.stdout.flush();
    }
    match ctl.options.packet_in_format {
        Some(f) => {
            set_packet_in_format(ctl, &mut conn, f, true)?;
        }
        None => {
            if !set_packet_in_format(ctl, &mut conn, PacketInFormat::Nxt2, false)?
                && conn.version == Version::V10
            {
                set_packet_in_format(ctl, &mut conn, PacketInFormat::Nxt, false)?;
            }
        }
    }
    run(ctl, &args[0], conn, true, resume)
}

pub(super) fn snoop(ctl: &mut Ctl, args: &[String], _: &mut Io<'_>) -> Result<()> {
    ctl.daemon.start();
    let conn = ctl.open_target(&args[0], Target::Snoop)?;
    run(ctl, &args[0], conn, false, false)
}

/// Prints what arrives until `exit` or the switch closes the connection.
fn run(ctl: &mut Ctl, switch: &str, conn: Conn, answer_echo: bool, resume: bool) -> Result<()> {
    let version = conn.version;
    let io_error = |e: std::io::Error| Fail::Msg(ib_base::errno::strerror(&e));
    let err = std::io::stderr().as_fd().try_clone_to_owned().map_err(io_error)?;
    let clock = Clock::new();
    let mut reactor = Reactor::new(&clock).map_err(io_error)?;
    // A fatal signal ends the process with its files removed.
    let _ = reactor.watch_signals();
    let handle = reactor.handle().clone();
    let path = match &ctl.options.unixctl {
        Some(p) => socket_path("ovs-ofctl", Some(p)),
        None => socket_path("ovs-ofctl", None),
    };
    let mut server: Server<Monitor> = Server::listen(path.as_deref(), &handle).map_err(|_| Fail::Code(1))?;
    server.register(&standard::commands());
    server.register(COMMANDS);
    let (mut reader, writer, pending) = conn.split().map_err(io_error)?;
    let mut m = Monitor {
        out: File::from(err),
        stream: writer,
        version,
        next_xid: ctl.next_xid(),
        names: Ctl {
            options: ctl.options.clone(),
            daemon: ib_sys::daemon::Daemon::new("ovs-ofctl"),
            xid: 0,
            ports: None,
            tables: None,
        },
        switch: switch.to_string(),
        exiting: Vec::new(),
        blocked: false,
        barrier: None,
        verbosity: ctl.options.verbosity,
        clock: clock.clone(),
    };
    ctl.daemon.complete();
    let key = handle.new_key();
    let (tx, rx) = sync_channel::<Vec<u8>>(4);
    let waker = handle.clone();
    std::thread::spawn(move || {
        let mut buf = [0; 65536];
        loop {
            let n = match reader.read(&mut buf) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            if tx.send(buf[..n].to_vec()).is_err() {
                return;
            }
            waker.wake(key);
            if n == 0 {
                return;
            }
        }
    });
    let timestamp = ctl.options.timestamp;
    let mut received = Vec::new();
    for bytes in pending {
        m.message(&bytes, answer_echo, resume, timestamp);
    }
    loop {
        server.run(&mut m);
        let open = m.drain(&rx, &mut received, answer_echo, resume, timestamp);
        if !m.exiting.is_empty() {
            for call in m.exiting.drain(..) {
                call.ok("");
            }
            server.run(&mut m);
            return Ok(());
        }
        if !open {
            return Err("vconn_recv (End of file)".into());
        }
        let deadline: Option<Instant> = None;
        reactor.wait(deadline).map_err(io_error)?;
    }
}

impl Monitor {
    /// Prints all whole messages; false once the switch has closed.
    fn drain(
        &mut self,
        rx: &Receiver<Vec<u8>>,
        received: &mut Vec<u8>,
        answer_echo: bool,
        resume: bool,
        timestamp: bool,
    ) -> bool {
        while !self.blocked {
            match rx.try_recv() {
                Ok(bytes) if bytes.is_empty() => return false,
                Ok(bytes) => received.extend_from_slice(&bytes),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
            let mut at = 0;
            while let Frame::Message(n) = next_message(&received[at..]) {
                let one = received[at..at + n].to_vec();
                at += n;
                self.message(&one, answer_echo, resume, timestamp);
            }
            received.drain(..at);
        }
        true
    }

    fn message(&mut self, bytes: &[u8], answer_echo: bool, resume: bool, timestamp: bool) {
        let mut text = String::new();
        if timestamp {
            text.push_str(&strftime("%Y-%m-%d %H:%M:%S.###: ", self.clock.wall_ms(), true));
        }
        text.push_str(&self.text(bytes, self.verbosity + 2));
        // A reader that went away is no reason to stop.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
        let Ok(d) = decode(bytes) else { return };
        match d.message {
            Message::BarrierReply => {
                if let Some(call) = self.barrier.take() {
                    call.ok("");
                }
            }
            Message::EchoRequest(data) if answer_echo => {
                let reply = encode(&Message::EchoReply(data), self.version, d.header.xid);
                let _ = self.stream.write_all(&reply);
            }
            Message::PacketIn(mut p) if resume && !p.continuation.is_empty() => {
                p.userdata.clear();
                let reply = encode(&Message::Resume(p), self.version, 0);
                let text = self.text(&reply, self.verbosity + 2);
                let _ = write!(self.out, "send: {text}");
                let _ = self.stream.write_all(&reply);
            }
            _ => {}
        }
    }
}
