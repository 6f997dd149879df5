//! `ovs-ofctl`: OpenFlow from the command line (ovs-ofctl(8)).
//!
//! [`run`] reads the options and runs one command of `COMMANDS`. Commands that talk to a switch use `conn`; those that
//! only convert texts and bytes are in `offline`.

use std::ffi::OsString;

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_flow::fields::{FieldId, Protocols, by_name};
use ib_flow::port::PortMap;
use ib_openflow::flow_text::{parse_protocols, protocols_of, protocols_text};
use ib_openflow::message::{PacketInFormat, Version, Versions};
use ib_openflow::names::{Names, TableMap};
use ib_stream::tls;
use ib_sys::daemon::{self, Daemon};
use ib_sys::signal;

use crate::io::{Io, argv0, program_name, version_text};

mod conn;
mod flows;
mod groups;
mod help;
mod matches;
mod monitor;
mod offline;
mod show;
pub mod snapshot;

/// Why a command failed.
#[derive(Debug)]
pub enum Fail {
    /// `ovs-ofctl: MESSAGE`, exit code 1.
    Msg(String),
    /// A text for standard error as it stands, exit code 1.
    Text(String),
    /// This exit code; everything was said.
    Code(i32),
}

type Result<T> = std::result::Result<T, Fail>;

impl From<String> for Fail {
    fn from(s: String) -> Fail {
        Fail::Msg(s)
    }
}

impl From<&str> for Fail {
    fn from(s: &str) -> Fail {
        Fail::Msg(s.into())
    }
}

/// A key to sort flows by.
#[derive(Clone, Copy, Debug)]
pub struct Criterion {
    /// Field, or `None` for the priority.
    field: Option<FieldId>,
    descending: bool,
}

/// The command line's options.
#[derive(Clone, Debug)]
pub struct Options {
    versions: Versions,
    protocols: Protocols,
    strict: bool,
    readd: bool,
    bundle: bool,
    may_create: bool,
    read_only: bool,
    timestamp: bool,
    verbosity: i32,
    stats: bool,
    /// `--names`, `--no-names`, or neither.
    names: Option<bool>,
    criteria: Vec<Criterion>,
    packet_in_format: Option<PacketInFormat>,
    unixctl: Option<String>,
    bare: bool,
    /// `--pcap`: packets as a capture.
    pcap: bool,
    /// `--bad-csum`: packets with wrong checksums.
    bad_csum: bool,
}

/// A run of the tool.
pub struct Ctl {
    options: Options,
    daemon: Daemon,
    /// The next transaction id; connections share the numbers.
    xid: u32,
    ports: Option<(String, PortMap)>,
    tables: Option<(String, TableMap)>,
}

type Handler = fn(&mut Ctl, &[String], &mut Io<'_>) -> Result<()>;

struct Command {
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
    /// Changes something: refused with `--read-only`.
    writes: bool,
    handler: Handler,
}

const MANY: usize = usize::MAX;

macro_rules! commands {
    ($($name:literal $usage:literal $min:literal..$max:expr, $writes:literal, $handler:path;)*) => {
        &[$(Command { name: $name, usage: $usage, min: $min, max: $max, writes: $writes, handler: $handler }),*]
    };
}

const COMMANDS: &[Command] = commands! {
    "show" "switch" 1..1, false, show::show;
    "monitor" "switch [misslen] [invalid_ttl] [watch:[...]]" 1..4, false, monitor::monitor;
    "snoop" "switch" 1..1, false, monitor::snoop;
    "dump-desc" "switch" 1..1, false, show::dump_desc;
    "dump-tables" "switch" 1..1, false, show::dump_tables;
    "dump-table-features" "switch" 1..1, false, show::dump_table_features;
    "dump-table-desc" "switch" 1..1, false, show::dump_table_desc;
    "dump-flows" "switch" 1..2, false, flows::dump_flows;
    "dump-aggregate" "switch" 1..2, false, flows::dump_aggregate;
    "queue-stats" "switch [port [queue]]" 1..3, false, show::queue_stats;
    "queue-get-config" "switch [port [queue]]" 1..3, false, show::queue_get_config;
    "add-flow" "switch flow" 2..2, true, flows::add_flow;
    "add-flows" "switch file" 2..2, true, flows::add_flows;
    "mod-flows" "switch flow" 2..2, true, flows::mod_flows;
    "del-flows" "switch [flow]" 1..2, true, flows::del_flows;
    "replace-flows" "switch file" 2..2, true, flows::replace_flows;
    "diff-flows" "source1 source2" 2..2, false, flows::diff_flows;
    "add-meter" "switch meter" 2..2, true, groups::add_meter;
    "mod-meter" "switch meter" 2..2, true, groups::mod_meter;
    "del-meter" "switch meter" 1..2, true, groups::del_meters;
    "del-meters" "switch" 1..2, true, groups::del_meters;
    "dump-meter" "switch meter" 1..2, false, groups::dump_meters;
    "dump-meters" "switch" 1..2, false, groups::dump_meters;
    "meter-stats" "switch [meter]" 1..2, false, groups::meter_stats;
    "meter-features" "switch" 1..1, false, groups::meter_features;
    "packet-out" "switch \"in_port=<port> packet=<hex data> actions=...\"" 2..MANY, true, flows::packet_out;
    "dump-ports" "switch [port]" 1..2, false, show::dump_ports;
    "dump-ports-desc" "switch [port]" 1..2, false, show::dump_ports_desc;
    "mod-port" "switch iface act" 3..3, true, show::mod_port;
    "mod-table" "switch mod" 3..3, true, show::mod_table;
    "get-frags" "switch" 1..1, false, show::get_frags;
    "set-frags" "switch frag_mode" 2..2, true, show::set_frags;
    "probe" "target" 1..1, false, show::probe;
    "ping" "target [n]" 1..2, false, show::ping;
    "benchmark" "target n count" 3..3, false, show::benchmark;
    "dump-ipfix-bridge" "switch" 1..1, false, show::dump_ipfix_bridge;
    "dump-ipfix-flow" "switch" 1..1, false, show::dump_ipfix_flow;
    "ct-flush-zone" "switch zone" 2..2, true, groups::ct_flush_zone;
    "ct-flush" "switch [zone=N] [mark=X[/M]] [labels=Y[/N]] [ct-orig-tuple [ct-reply-tuple]]" 1..6, true, groups::ct_flush;
    "ofp-parse" "file" 1..1, false, offline::ofp_parse;
    "ofp-parse-pcap" "pcap" 1..MANY, false, offline::ofp_parse_pcap;
    "add-group" "switch group" 1..2, true, groups::add_group;
    "add-groups" "switch file" 1..2, true, groups::add_groups;
    "mod-group" "switch group" 1..2, true, groups::mod_group;
    "del-groups" "switch [group]" 1..2, true, groups::del_groups;
    "insert-buckets" "switch [group]" 1..2, true, groups::insert_buckets;
    "remove-buckets" "switch [group]" 1..2, true, groups::remove_buckets;
    "dump-groups" "switch [group]" 1..2, false, groups::dump_groups;
    "dump-group-stats" "switch [group]" 1..2, false, groups::dump_group_stats;
    "dump-group-features" "switch" 1..1, false, groups::dump_group_features;
    "bundle" "switch file" 2..2, true, flows::bundle;
    "add-tlv-map" "switch map" 2..2, true, groups::add_tlv_map;
    "del-tlv-map" "switch [map]" 1..2, true, groups::del_tlv_map;
    "dump-tlv-map" "switch" 1..1, false, groups::dump_tlv_map;
    "help" "" 0..MANY, false, print_help;
    "list-commands" "" 0..MANY, false, list_commands;
    "parse-flow" "" 1..1, false, offline::parse_flow;
    "parse-flows" "" 1..1, false, offline::parse_flows;
    "parse-group" "" 1..1, false, offline::parse_group;
    "parse-nx-match" "" 0..0, false, offline::parse_nxm;
    "parse-nxm" "" 0..0, false, offline::parse_nxm;
    "parse-oxm" "" 1..1, false, offline::parse_oxm;
    "parse-actions" "" 1..1, false, offline::parse_actions;
    "parse-instructions" "" 1..1, false, offline::parse_instructions;
    "parse-ofp10-match" "" 0..0, false, matches::parse_ofp10_match;
    "parse-ofp11-match" "" 0..0, false, matches::parse_ofp11_match;
    "parse-pcap" "" 1..MANY, false, offline::parse_pcap;
    "check-vlan" "" 2..2, false, matches::check_vlan;
    "print-error" "" 1..1, false, offline::print_error;
    "encode-error-reply" "" 2..2, false, offline::encode_error_reply;
    "ofp-print" "" 1..2, false, offline::ofp_print;
    "encode-hello" "" 1..1, false, offline::encode_hello;
    "parse-key-value" "" 1..MANY, false, offline::parse_key_value;
    "compose-packet" "" 1..2, false, offline::compose_packet;
    "parse-packet" "" 0..0, false, offline::parse_packet;
};

const O_STRICT: u32 = 1000;
const O_READD: u32 = 1001;
const O_TIMESTAMP: u32 = 1002;
const O_SORT: u32 = 1003;
const O_RSORT: u32 = 1004;
const O_UNIXCTL: u32 = 1005;
const O_BUNDLE: u32 = 1006;
const O_COLOR: u32 = 1007;
const O_MAY_CREATE: u32 = 1008;
const O_READ_ONLY: u32 = 1009;
const O_NAMES: u32 = 1010;
const O_NO_NAMES: u32 = 1011;
const O_STATS: u32 = 1012;
const O_NO_STATS: u32 = 1013;
const O_BARE: u32 = 1015;
const O_PCAP: u32 = 1016;
const O_RAW: u32 = 1017;
const O_BAD_CSUM: u32 = 1018;
const O_VERSION: u32 = 'V' as u32;

const SHORT: &str = "mP:F:O:t:hVv::p:c:C:o";

const LONG: &[LongOpt] = &[
    LongOpt::new("timeout", HasArg::Required, 't' as u32),
    LongOpt::new("strict", HasArg::No, O_STRICT),
    LongOpt::new("readd", HasArg::No, O_READD),
    LongOpt::new("flow-format", HasArg::Required, 'F' as u32),
    LongOpt::new("packet-in-format", HasArg::Required, 'P' as u32),
    LongOpt::new("more", HasArg::No, 'm' as u32),
    LongOpt::new("timestamp", HasArg::No, O_TIMESTAMP),
    LongOpt::new("sort", HasArg::Optional, O_SORT),
    LongOpt::new("rsort", HasArg::Optional, O_RSORT),
    LongOpt::new("names", HasArg::No, O_NAMES),
    LongOpt::new("no-names", HasArg::No, O_NO_NAMES),
    LongOpt::new("stats", HasArg::No, O_STATS),
    LongOpt::new("no-stats", HasArg::No, O_NO_STATS),
    LongOpt::new("unixctl", HasArg::Required, O_UNIXCTL),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("option", HasArg::No, 'o' as u32),
    LongOpt::new("bundle", HasArg::No, O_BUNDLE),
    LongOpt::new("color", HasArg::Optional, O_COLOR),
    LongOpt::new("may-create", HasArg::No, O_MAY_CREATE),
    LongOpt::new("pcap", HasArg::No, O_PCAP),
    LongOpt::new("raw", HasArg::No, O_RAW),
    LongOpt::new("read-only", HasArg::No, O_READ_ONLY),
    LongOpt::new("bare", HasArg::No, O_BARE),
    LongOpt::new("bad-csum", HasArg::No, O_BAD_CSUM),
    LongOpt::new("version", HasArg::No, O_VERSION),
    LongOpt::new("protocols", HasArg::Required, 'O' as u32),
];

fn parse_versions(program: &str, s: &str) -> Result<Versions> {
    let mut bits = 0;
    for part in s.split([' ', ',']).filter(|p| !p.is_empty()) {
        let v = Version::from_name(part)
            .ok_or_else(|| Fail::Text(format!("{program}: Unknown OpenFlow version: \"{part}\"\n")))?;
        bits |= v.bit();
    }
    // None named is any.
    if bits == 0 {
        bits = Version::ALL.iter().fold(0, |b, v| b | v.bit());
    }
    Ok(Versions(bits))
}

fn criterion(name: Option<&str>, descending: bool) -> Result<Criterion> {
    let field = match name {
        None => None,
        Some(n) if n.eq_ignore_ascii_case("priority") => None,
        Some(n) => Some(by_name(n).ok_or_else(|| Fail::Msg(format!("{n}: unknown field name")))?.id),
    };
    Ok(Criterion { field, descending })
}

fn parse(args: &[OsString], program: &str, io: &mut Io<'_>) -> Result<(Ctl, Vec<String>)> {
    let mut o = Options {
        versions: Versions::only(Version::V10),
        protocols: Protocols::ANY,
        strict: false,
        readd: false,
        bundle: false,
        may_create: false,
        read_only: false,
        timestamp: false,
        verbosity: 0,
        stats: true,
        names: None,
        criteria: Vec::new(),
        packet_in_format: None,
        unixctl: None,
        bare: false,
        pcap: false,
        bad_csum: false,
    };
    let mut daemon = Daemon::new(program);
    let name = argv0(args);
    let mut opts = Getopt::new(&name, args.get(1..).unwrap_or_default(), SHORT, LONG)
        .with(tls::OPTIONS)
        .with(daemon::OPTIONS)
        .with(daemon::VLOG_OPTIONS);
    let mut timeout = None;
    let mut tls_settings = tls::Settings::default();
    for found in opts.by_ref() {
        let found = found.map_err(|e| Fail::Text(format!("{e}\n")))?;
        if tls_settings.option(&found) {
            continue;
        }
        let arg = found.arg_str();
        match found.id {
            id if id == 't' as u32 => match arg.parse::<u32>() {
                Ok(n) if n > 0 => timeout = Some(n),
                _ => return Err(format!("value {arg} on -t or --timeout is invalid").into()),
            },
            id if id == 'F' as u32 => {
                if arg.split([' ', ',']).all(str::is_empty) {
                    return Err(format!("{arg}: no flow protocol specified").into());
                }
                o.protocols =
                    parse_protocols(&arg).map_err(|p| Fail::Msg(format!("{p}: unknown flow protocol")))?;
            }
            id if id == 'P' as u32 => {
                o.packet_in_format = Some(match arg.to_ascii_lowercase().as_str() {
                    "standard" | "openflow10" => PacketInFormat::Standard,
                    "nxt_packet_in" | "nxm" => PacketInFormat::Nxt,
                    "nxt_packet_in2" => PacketInFormat::Nxt2,
                    _ => return Err(format!("unknown packet-in format `{arg}'").into()),
                });
            }
            id if id == 'm' as u32 => o.verbosity += 1,
            id if id == 'h' as u32 => {
                io.out(help::usage());
                return Err(Fail::Code(0));
            }
            id if id == 'o' as u32 => {
                io.out(help::option_list());
                return Err(Fail::Code(0));
            }
            id if id == 'O' as u32 => o.versions = parse_versions(program, &arg)?,
            O_VERSION => {
                io.out(version_text(program, "OpenFlow versions 0x1:0x6\n"));
                return Err(Fail::Code(0));
            }
            O_STRICT => o.strict = true,
            O_READD => o.readd = true,
            O_TIMESTAMP => o.timestamp = true,
            O_SORT | O_RSORT => {
                let name = found.arg.as_ref().map(|_| arg.as_str());
                o.criteria.push(criterion(name, found.id == O_RSORT)?);
            }
            O_NAMES => o.names = Some(true),
            O_NO_NAMES => o.names = Some(false),
            O_STATS => o.stats = true,
            O_NO_STATS => o.stats = false,
            O_BARE => {
                o.stats = false;
                o.bare = true;
            }
            O_UNIXCTL => o.unixctl = Some(arg),
            O_BUNDLE => o.bundle = true,
            O_COLOR => {
                if found.arg.is_some()
                    && !matches!(
                        arg.as_str(),
                        "always" | "yes" | "force" | "never" | "no" | "none" | "auto" | "tty" | "if-tty"
                    )
                {
                    return Err(format!("incorrect value `{arg}' for --color").into());
                }
            }
            O_PCAP => o.pcap = true,
            // Packets are raw bytes anyway.
            O_BAD_CSUM => o.bad_csum = true,
            O_RAW => {}
            O_MAY_CREATE => o.may_create = true,
            O_READ_ONLY => o.read_only = true,
            _ => {
                if !daemon.option(&found).map_err(|e| Fail::Text(format!("{e}\n")))? {
                    return Err(Fail::Code(1));
                }
            }
        }
    }
    tls::configure(tls_settings);
    // Sorting among equals is by priority, highest first.
    if !o.criteria.is_empty() {
        o.criteria.push(Criterion { field: None, descending: true });
    }
    let version_protocols = |versions: Versions| {
        Version::ALL
            .iter()
            .filter(|v| versions.contains(**v))
            .fold(Protocols::NONE, |p, v| p.or(protocols_of(*v)))
    };
    if o.bundle && o.versions.0 & !Version::V10.bit() & !Version::V11.bit() & !Version::V12.bit() == 0 {
        // Bundles need OpenFlow 1.3 at least.
        o.versions.0 |= Version::V14.bit();
    }
    let by_version = version_protocols(o.versions);
    let both = o.protocols.and(by_version);
    if both == Protocols::NONE {
        let names: Vec<&str> =
            Version::ALL.iter().filter(|v| o.versions.contains(**v)).map(|v| v.name()).collect();
        return Err(format!(
            "None of the enabled OpenFlow versions ({}) supports any of the enabled flow formats ({}).  (Use -O to \
             enable additional OpenFlow versions or -F to enable additional flow formats.)",
            names.join(", "),
            protocols_text(o.protocols)
        )
        .into());
    }
    o.protocols = both;
    o.versions = Versions(
        o.versions.0
            & Version::ALL
                .iter()
                .filter(|v| protocols_of(**v).and(both) != Protocols::NONE)
                .fold(0, |b, v| b | v.bit()),
    );
    signal::ctl_timeout(timeout);
    let words = opts.rest_str();
    Ok((Ctl { options: o, daemon, xid: 1, ports: None, tables: None }, words))
}

/// Runs `ovs-ofctl`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    ib_sys::process::init(&program);
    match parse(args, &program, io).and_then(|(mut ctl, words)| dispatch(&mut ctl, &words, io)) {
        Ok(()) => 0,
        Err(Fail::Code(code)) => code,
        Err(Fail::Text(text)) => {
            io.err(text);
            1
        }
        Err(Fail::Msg(text)) => io.fatal(&program, text),
    }
}

fn dispatch(ctl: &mut Ctl, words: &[String], io: &mut Io<'_>) -> Result<()> {
    let Some((name, args)) = words.split_first() else {
        return Err("missing command name; use --help for help".into());
    };
    let Some(c) = COMMANDS.iter().find(|c| c.name == name) else {
        return Err(format!("unknown command '{name}'; use --help for help").into());
    };
    if args.len() < c.min {
        return Err(format!("'{name}' command requires at least {} arguments", c.min).into());
    }
    if args.len() > c.max {
        return Err(format!("'{name}' command takes at most {} arguments", c.max).into());
    }
    if c.writes && ctl.options.read_only {
        return Err(format!("'{name}' command does not work in read only mode").into());
    }
    (c.handler)(ctl, args, io)
}

impl Ctl {
    /// Whether texts may have names.
    fn accepts_names(&self) -> bool {
        self.options.names != Some(false)
    }

    /// Whether to print names: as asked, else on a terminal only.
    fn shows_names(&self) -> bool {
        use std::io::IsTerminal;
        self.options.names.unwrap_or_else(|| std::io::stdout().is_terminal())
    }

    /// Fetches the names of a switch's ports, unless that was done.
    fn load_ports(&mut self, switch: &str) -> Result<()> {
        if self.ports.as_ref().is_none_or(|(s, _)| s != switch) {
            let mut map = PortMap::default();
            for p in self.fetch_ports(switch)? {
                map.insert(p.port_no, &p.name);
            }
            self.ports = Some((switch.to_string(), map));
        }
        Ok(())
    }

    /// Fetches the names of a switch's tables, unless that was done.
    fn load_tables(&mut self, switch: &str) -> Result<()> {
        if self.tables.as_ref().is_none_or(|(s, _)| s != switch) {
            let mut map = TableMap::default();
            for (id, name) in self.fetch_tables(switch)? {
                map.insert(id, &name);
            }
            self.tables = Some((switch.to_string(), map));
        }
        Ok(())
    }

    /// The names that were fetched, if texts may have them.
    fn names(&self) -> Names<'_> {
        Names { ports: self.ports.as_ref().map(|(_, m)| m), tables: self.tables.as_ref().map(|(_, m)| m) }
    }

    /// Fetches names for parsing, tables first (the order in which Open vSwitch asks).
    fn load_names_tables_first(&mut self, switch: &str) -> Result<()> {
        if self.accepts_names() {
            self.load_tables(switch)?;
            self.load_ports(switch)?;
        }
        Ok(())
    }

    /// Fetches names for parsing, ports first.
    fn load_names_ports_first(&mut self, switch: &str) -> Result<()> {
        if self.accepts_names() {
            self.load_ports(switch)?;
            self.load_tables(switch)?;
        }
        Ok(())
    }
}

fn list_commands(_: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    io.out(help::commands());
    Ok(())
}

fn print_help(_: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    io.out(help::usage());
    Ok(())
}
