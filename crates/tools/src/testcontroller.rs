//! `ovs-testcontroller`: a simple OpenFlow controller for tests (ovs-testcontroller(8)): a learning switch or a hub.
//!
//! One loop over a reactor: listeners take switches, each with its session and its own table of addresses, which is bounded. A
//! controller that connects by itself (`tcp:`, `unix:`) tries again each second.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use ib_base::errno::strerror;
use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::time::{Clock, Instant};
use ib_base::vlog::module::CONTROLLER;
use ib_base::vlog_err;
use ib_flow::extract::extract_bytes;
use ib_flow::text::normalize::normalize_match;
use ib_flow::wire::of10;
use ib_flow::{Flow, Match, Metadata, OdpPort, OfPort};
use ib_openflow::action::Action;
use ib_openflow::decode::decode;
use ib_openflow::encode::{EncodeOptions, encode_with};
use ib_openflow::flow_text::{Purpose, parse_flow_mod};
use ib_openflow::message::*;
use ib_openflow::names::NO_NAMES;
use ib_openflow::session::{Event, Session};
use ib_packet::Mac;
use ib_stream::reactor::{Handle, Key, Reactor};
use ib_stream::stream::{Listener, Stream, is_active, is_passive};
use ib_stream::tls;
use ib_stream::unixctl::{Call, Command, Server, socket_path, standard};
use ib_sys::daemon::{self, Daemon};

use crate::io::{Io, argv0, program_name, version_text};

/// The port of `tcp:HOST` and `ptcp:`.
const OFP_PORT: u16 = 6653;

/// Switches at a time, as many as the original takes.
const MAX_SWITCHES: usize = 16;

/// Addresses that a switch may have, so that nobody can fill the memory.
const MAX_ADDRESSES: usize = 8192;

/// How long an address is known.
const ADDRESS_AGE: Duration = Duration::from_secs(300);

/// Fields that `--wildcards` ignores when it does not say which: those of layers 3 and 4.
const L2_ONLY: u32 = 0x0028_20f0;

/// Bytes of a packet without flow that come up.
const MISS_LEN: u16 = 128;

/// What the command line says.
struct Options {
    versions: Versions,
    hub: bool,
    sets_flows: bool,
    mute: bool,
    /// Bits of OpenFlow 1.0 for fields that flows do not match.
    wildcards: u32,
    /// Seconds, or none for flows that stay.
    max_idle: u16,
    queue: Option<u32>,
    port_queues: HashMap<String, u32>,
    flows: Vec<FlowMod>,
    unixctl: Option<String>,
    methods: Vec<String>,
}

/// A connected switch.
struct Switch {
    stream: Stream,
    session: Session,
    /// The features' reply was there: packets are heeded.
    ready: bool,
    queues: HashMap<OfPort, u32>,
    addresses: HashMap<(Mac, u16), (OfPort, Instant)>,
}

/// State that the control socket's commands see.
#[derive(Default)]
struct Control {
    exiting: Vec<Call>,
}

impl standard::Standard for Control {}

const COMMANDS: &[Command<Control>] =
    &[Command { name: "exit", usage: "", min: 0, max: 0, handler: |c, call| c.exiting.push(call) }];

const O_MAX_IDLE: u32 = 1000;
const O_MUTE: u32 = 1001;
const O_WITH_FLOWS: u32 = 1002;
const O_UNIXCTL: u32 = 1003;

const SHORT: &str = "HnNw::q:Q:O:hVv::p:c:C:";

const LONG: &[LongOpt] = &[
    LongOpt::new("hub", HasArg::No, 'H' as u32),
    LongOpt::new("noflow", HasArg::No, 'n' as u32),
    LongOpt::new("normal", HasArg::No, 'N' as u32),
    LongOpt::new("wildcards", HasArg::Optional, 'w' as u32),
    LongOpt::new("max-idle", HasArg::Required, O_MAX_IDLE),
    LongOpt::new("mute", HasArg::No, O_MUTE),
    LongOpt::new("queue", HasArg::Required, 'q' as u32),
    LongOpt::new("port-queue", HasArg::Required, 'Q' as u32),
    LongOpt::new("with-flows", HasArg::Required, O_WITH_FLOWS),
    LongOpt::new("unixctl", HasArg::Required, O_UNIXCTL),
    LongOpt::new("protocols", HasArg::Required, 'O' as u32),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

fn usage(program: &str) -> String {
    format!(
        "{program}: OpenFlow controller\n\
         usage: {program} [OPTIONS] METHOD\n\
         where METHOD is any OpenFlow connection method.\n\n\
         Active OpenFlow connection methods:\n  \
         tcp:HOST[:PORT]         PORT (default: 6653) at remote HOST\n  \
         ssl:HOST[:PORT]         SSL PORT (default: 6653) at remote HOST\n  \
         unix:FILE               Unix domain socket named FILE\n\
         Passive OpenFlow connection methods:\n  \
         ptcp:[PORT][:IP]        listen to TCP PORT (default: 6653) on IP\n  \
         pssl:[PORT][:IP]        listen for SSL on PORT (default: 6653) on IP\n  \
         punix:FILE              listen on Unix domain socket FILE\n\
         {}{}\n\
         OpenFlow version options:\n  \
         -V, --version           display version information\n  \
         -O, --protocols         set allowed OpenFlow versions\n                          \
         (default: OpenFlow10, OpenFlow11, OpenFlow12, OpenFlow13, OpenFlow14, OpenFlow15)\n\
         {}\n\
         Other options:\n  \
         -H, --hub               act as hub instead of learning switch\n  \
         -n, --noflow            pass traffic, but don't add flows\n  \
         --max-idle=SECS         max idle time for new flows\n  \
         -N, --normal            use OFPP_NORMAL action\n  \
         -w, --wildcards[=MASK]  wildcard (specified) bits in flows\n  \
         -q, --queue=QUEUE-ID    OpenFlow queue ID to use for output\n  \
         -Q PORT-NAME:QUEUE-ID   use QUEUE-ID for frames from PORT-NAME\n  \
         --with-flows FILE       use the flows from FILE\n  \
         --unixctl=SOCKET        override default control socket name\n  \
         -h, --help              display this help message\n  \
         -V, --version           display version information\n",
        tls::usage(false),
        daemon::usage(program),
        daemon::vlog_usage(program),
    )
}

/// Why the program ends: a sentence after its name, or an exit code when all was said.
enum End {
    Fatal(String),
    Text(String),
    Code(i32),
}

impl From<String> for End {
    fn from(s: String) -> End {
        End::Fatal(s)
    }
}

fn versions(program: &str, s: &str) -> Result<Versions, End> {
    let mut bits = 0;
    for part in s.split([' ', ',']).filter(|p| !p.is_empty()) {
        let v = Version::from_name(part)
            .ok_or_else(|| End::Text(format!("{program}: Unknown OpenFlow version: \"{part}\"\n")))?;
        bits |= v.bit();
    }
    Ok(Versions(bits))
}

fn read_flows(name: &str) -> Result<Vec<FlowMod>, String> {
    let text =
        std::fs::read_to_string(name).map_err(|e| format!("{name}: open failed ({})", strerror(&e)))?;
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let (flow, _) = parse_flow_mod(line, Purpose::Mod(FlowModCommand::Add), NO_NAMES)
            .map_err(|e| format!("{name}:{}: {e}", i + 1))?;
        out.push(flow);
    }
    Ok(out)
}

fn parse(args: &[OsString], program: &str, io: &mut Io<'_>) -> Result<(Options, Daemon), End> {
    let mut o = Options {
        versions: Versions::ALL,
        hub: false,
        sets_flows: true,
        mute: false,
        wildcards: 0,
        max_idle: 60,
        queue: None,
        port_queues: HashMap::new(),
        flows: Vec::new(),
        unixctl: None,
        methods: Vec::new(),
    };
    let mut daemon = Daemon::new(program);
    let name = argv0(args);
    let mut opts = Getopt::new(&name, args.get(1..).unwrap_or_default(), SHORT, LONG)
        .with(tls::OPTIONS)
        .with(daemon::OPTIONS)
        .with(daemon::VLOG_OPTIONS);
    let mut tls_settings = tls::Settings::default();
    for found in opts.by_ref() {
        let found = found.map_err(|e| End::Text(format!("{e}\n")))?;
        if tls_settings.option(&found) {
            continue;
        }
        let arg = found.arg_str();
        match found.id {
            // Without addresses to learn, the switch's own action floods: so the original.
            id if id == 'H' as u32 || id == 'N' as u32 => o.hub = true,
            id if id == 'n' as u32 => o.sets_flows = false,
            id if id == 'w' as u32 => {
                o.wildcards = match &found.arg {
                    None => L2_ONLY,
                    Some(_) => u32::from_str_radix(arg.trim_start_matches("0x"), 16).unwrap_or(0),
                }
            }
            O_MAX_IDLE if arg == "permanent" => o.max_idle = 0,
            O_MAX_IDLE => {
                o.max_idle = arg.parse().ok().filter(|s| (1..=65535).contains(s)).ok_or_else(|| {
                    "--max-idle argument must be between 1 and 65535 or the word 'permanent'".to_string()
                })?;
            }
            O_MUTE => o.mute = true,
            id if id == 'q' as u32 => o.queue = Some(arg.parse().unwrap_or(0)),
            id if id == 'Q' as u32 => {
                let (port, queue) = arg.rsplit_once(':').ok_or_else(|| {
                    "argument to -Q or --port-queue should take the form \"<port-name>:<queue-id>\""
                        .to_string()
                })?;
                if o.port_queues.insert(port.to_string(), queue.parse().unwrap_or(0)).is_some() {
                    return Err("<port-name> arguments for -Q or --port-queue must be unique"
                        .to_string()
                        .into());
                }
            }
            O_WITH_FLOWS => o.flows.extend(read_flows(&arg)?),
            O_UNIXCTL => o.unixctl = Some(arg),
            id if id == 'O' as u32 => o.versions = versions(program, &arg)?,
            id if id == 'h' as u32 => {
                io.out(usage(program));
                return Err(End::Code(0));
            }
            id if id == 'V' as u32 => {
                io.out(version_text(program, "OpenFlow versions 0x1:0x6\n"));
                return Err(End::Code(0));
            }
            _ => {
                if !daemon.option(&found).map_err(|e| End::Text(format!("{e}\n")))? {
                    return Err(End::Code(1));
                }
            }
        }
    }
    tls::configure(tls_settings);
    o.methods = opts.rest().iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if o.methods.is_empty() {
        return Err("at least one vconn argument required; use --help for usage".to_string().into());
    }
    Ok((o, daemon))
}

/// Runs the tool.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    let ended = parse(args, &program, io).and_then(|(options, daemon)| serve(&program, options, daemon));
    match ended {
        Ok(()) => 0,
        Err(End::Code(code)) => code,
        Err(End::Text(text)) => {
            io.err(text);
            1
        }
        Err(End::Fatal(why)) => io.fatal(&program, why),
    }
}

fn serve(program: &str, o: Options, mut daemon: Daemon) -> Result<(), End> {
    let failed = |e: io::Error| End::Fatal(strerror(&e));
    daemon.start();
    let clock = Clock::new();
    let mut reactor = Reactor::new(&clock).map_err(failed)?;
    // A fatal signal ends the process with its files removed.
    let _ = reactor.watch_signals();
    let handle = reactor.handle().clone();
    let (mut listeners, mut switches) = (Vec::new(), Vec::new());
    let mut active: Vec<(&str, Instant)> = Vec::new();
    for name in &o.methods {
        if is_active(name) {
            active.push((name, handle.now()));
            continue;
        }
        match Listener::open(name, OFP_PORT, &handle, handle.new_key()) {
            Ok(listener) => listeners.push(listener),
            Err(e) => {
                // No method at all is an address of no family.
                let why = if is_passive(name) { strerror(&e) } else { strerror(&no_family()) };
                vlog_err!(CONTROLLER, "{name}: connect: {why}");
            }
        }
    }
    if listeners.is_empty() && active.is_empty() {
        return Err("no active or passive switch connections".to_string().into());
    }
    let path = socket_path(program, o.unixctl.as_deref());
    let mut server: Server<Control> = Server::listen(path.as_deref(), &handle).map_err(|_| End::Code(1))?;
    server.register(&standard::commands());
    server.register(COMMANDS);
    daemon.complete();
    let mut control = Control::default();
    loop {
        let now = handle.now();
        server.run(&mut control);
        if !control.exiting.is_empty() {
            control.exiting.drain(..).for_each(|call| call.ok(""));
            server.run(&mut control);
            return Ok(());
        }
        for l in &mut listeners {
            while switches.len() < MAX_SWITCHES
                && let Ok(stream) = l.accept()
            {
                switches.push(Switch::new(stream, &o));
            }
        }
        for (name, next) in &mut active {
            let connected = switches.iter().any(|s: &Switch| s.stream.name() == *name);
            if !connected && *next <= now {
                *next = now + Duration::from_secs(1);
                switches.extend(open(name, &handle, handle.new_key()).map(|s| Switch::new(s, &o)));
            }
        }
        if !o.mute {
            switches.retain_mut(|s| s.run(&o, now));
        }
        let again = active.iter().map(|(_, next)| *next).filter(|next| *next > now);
        let deadline = switches.iter().filter_map(|s| s.session.deadline()).chain(again).min();
        reactor.wait(deadline).map_err(failed)?;
    }
}

fn no_family() -> io::Error {
    io::Error::from_raw_os_error(97)
}

/// Begins to connect; what fails at once is tried again.
fn open(name: &str, handle: &Handle, key: Key) -> Option<Stream> {
    Stream::open(name, OFP_PORT, handle, key).ok()
}

impl Switch {
    fn new(stream: Stream, o: &Options) -> Switch {
        let session = Session::new(stream.name(), o.versions);
        Switch { stream, session, ready: false, queues: HashMap::new(), addresses: HashMap::new() }
    }

    /// Receives, acts and sends; false once the connection is over.
    fn run(&mut self, o: &Options, now: Instant) -> bool {
        let alive = self.receive(o, now).is_ok();
        alive && self.flush().is_ok() && !self.session.is_failed()
    }

    fn receive(&mut self, o: &Options, now: Instant) -> io::Result<()> {
        if !self.stream.is_connected() {
            match self.stream.connect() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        let mut buf = [0; 65536];
        loop {
            match self.stream.recv(&mut buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.session.input(&buf[..n], now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
            while let Some(event) = self.session.event() {
                match event {
                    Event::Negotiated(version) => self.greet(version, o),
                    Event::Message(bytes) => self.message(&bytes, o, now),
                    Event::Failed { .. } => {}
                }
            }
        }
        self.session.run(now);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.stream.is_connected() && !self.session.output().is_empty() {
            let out = self.session.output();
            match self.stream.send(out) {
                Ok(n) => drop(out.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What every switch is told first.
    fn greet(&mut self, version: Version, o: &Options) {
        self.session.send(&Message::FeaturesRequest);
        let config = SwitchConfig {
            frag: FragHandling::Normal,
            invalid_ttl_to_controller: (version < Version::V13).then_some(false),
            miss_send_len: MISS_LEN,
        };
        self.session.send(&Message::SetConfig(config));
        if version >= Version::V13 {
            // Without a flow that says so, nothing comes up there.
            let miss = FlowMod {
                command: FlowModCommand::Add,
                priority: 0,
                actions: vec![Action::Output { port: OfPort::CONTROLLER, max_len: MISS_LEN }],
                ..Default::default()
            };
            self.add_flow(miss);
        }
        for flow in &o.flows {
            self.add_flow(flow.clone());
        }
    }

    /// Sends a flow, over OpenFlow 1.0 without extensions.
    fn add_flow(&mut self, flow: FlowMod) {
        let Some(version) = self.session.version() else { return };
        let xid = self.session.xid();
        let options = EncodeOptions { nxm: false, table_id: false };
        self.session.send_bytes(&encode_with(&Message::FlowMod(Box::new(flow)), version, xid, options));
    }

    fn message(&mut self, bytes: &[u8], o: &Options, now: Instant) {
        let Ok(decoded) = decode(bytes) else { return };
        match decoded.message {
            Message::FeaturesReply(features) => {
                self.ready = true;
                for port in &features.ports {
                    if let Some(queue) = o.port_queues.get(&port.name) {
                        self.queues.insert(port.port_no, *queue);
                    }
                }
            }
            Message::PacketIn(pin) if self.ready => self.packet_in(&pin, o, now),
            _ => {}
        }
    }

    fn packet_in(&mut self, pin: &PacketIn, o: &Options, now: Instant) {
        let in_port = OfPort(pin.metadata.flow.in_port as u16);
        let mut flow = Flow::zeroed();
        let metadata = Metadata { in_port: OdpPort::NONE, ..Metadata::default() };
        extract_bytes(&pin.data, None, &metadata, &mut flow);
        flow.in_port = pin.metadata.flow.in_port;
        let out = self.choose(&flow, in_port, o, now);
        let actions = match out {
            None => Vec::new(),
            Some(port) => {
                let queue = self.queues.get(&in_port).copied().or(o.queue);
                vec![match queue {
                    Some(queue) if port < OfPort::MAX => Action::Enqueue { port, queue },
                    _ => Action::Output { port, max_len: 0 },
                }]
            }
        };
        // A place that is not known may be known soon: only known ones get flows.
        if o.sets_flows && (o.hub || out != Some(OfPort::FLOOD)) {
            let fm = FlowMod {
                match_: exact(&flow, o.wildcards),
                command: FlowModCommand::Add,
                priority: 1,
                idle_timeout: o.max_idle,
                buffer_id: pin.buffer_id,
                actions: actions.clone(),
                ..Default::default()
            };
            self.add_flow(fm);
            // A buffered packet goes with the flow, and one to drop needs no more.
            if pin.buffer_id != NO_BUFFER || actions.is_empty() {
                return;
            }
        } else if pin.buffer_id == NO_BUFFER && actions.is_empty() {
            return;
        }
        let mut metadata = Match::catch_all();
        metadata.flow.in_port = pin.metadata.flow.in_port;
        metadata.mask.0.in_port = u32::MAX;
        let data = if pin.buffer_id == NO_BUFFER { pin.data.clone() } else { Vec::new() };
        let po = PacketOut { data, buffer_id: pin.buffer_id, metadata, actions };
        self.session.send(&Message::PacketOut(Box::new(po)));
    }

    /// Learns where a packet comes from and says where it goes; `None` is nowhere.
    fn choose(&mut self, flow: &Flow, in_port: OfPort, o: &Options, now: Instant) -> Option<OfPort> {
        // Bridges keep what is for bridges.
        if flow.dl_dst.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && flow.dl_dst.0[5] & 0xf0 == 0 {
            return None;
        }
        if o.hub {
            return Some(OfPort::FLOOD);
        }
        let vlan = flow.vlans[0].tci.get() & 0xfff;
        let source = (flow.dl_src, vlan);
        let room = self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&source);
        if flow.dl_src.0[0] & 1 == 0 && room {
            self.addresses.insert(source, (in_port, now));
        }
        match self.addresses.get(&(flow.dl_dst, vlan)) {
            Some((port, seen)) if *seen + ADDRESS_AGE > now => (*port != in_port).then_some(*port),
            _ => Some(OfPort::FLOOD),
        }
    }
}

/// A match on what OpenFlow 1.0 knows of a packet, but for the fields whose bits are in `wildcards`.
fn exact(flow: &Flow, wildcards: u32) -> Match {
    let mut m = Match::catch_all();
    m.flow = flow.clone();
    let w = &mut m.mask.0;
    w.in_port = u32::MAX;
    w.vlans[0].tci = ib_packet::Be16::MAX;
    let mut bytes = of10::encode10(&m);
    bytes[..4].copy_from_slice(&wildcards.to_be_bytes());
    let mut m = of10::decode10(&bytes);
    normalize_match(&mut m, false);
    m
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn options() {
        let (code, _, err) = capture(run, &["ovs-testcontroller"], "");
        assert_eq!(
            (code, err.as_str()),
            (1, "ovs-testcontroller: at least one vconn argument required; use --help for usage\n")
        );
        let (code, _, err) = capture(run, &["ovs-testcontroller", "--max-idle=0", "punix:x"], "");
        assert_eq!(
            (code, err.as_str()),
            (
                1,
                "ovs-testcontroller: --max-idle argument must be between 1 and 65535 or the word 'permanent'\n"
            )
        );
        let (code, out, _) = capture(run, &["ovs-testcontroller", "--help"], "");
        assert!(code == 0 && out.starts_with("ovs-testcontroller: OpenFlow controller\n"), "{out}");
    }

    #[test]
    fn flows_match_what_is_not_wildcarded() {
        let mut flow = Flow::zeroed();
        flow.in_port = 3;
        flow.dl_dst = Mac([2, 0, 0, 0, 0, 1]);
        flow.dl_type = ib_packet::Be16::new(0x88cc);
        let text = |w| ib_flow::text::matching::match_to_string(&exact(&flow, w), None);
        assert_eq!(
            text(0),
            "in_port=3,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=02:00:00:00:00:01,dl_type=0x88cc"
        );
        assert_eq!(text(0x003f_ffff), "");
    }
}
