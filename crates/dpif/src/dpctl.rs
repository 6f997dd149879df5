//! The commands of ovs-dpctl(8), on any provider: behind `dpctl/*` of the switch daemon and behind the
//! `ovs-dpctl` program. Each takes words and answers with text, or with the error text that follows
//! `PROGRAM: `.
//!
//! Runs on the daemon's main thread; cost is that of what the command names, a dump's is O(flows).

mod conntrack;
mod fit;
mod flows;

pub use flows::{failing_field, format_flow, format_stats};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use ib_base::errno::strerror_num as strerror;
use ib_base::vlog::module::DPIF;
use ib_base::vlog_warn;
use ib_flow::PortMap;

use crate::text::{PortNames, format_actions, format_key, parse_actions, parse_key};
use crate::{Datapaths, Dpif, DpifError, PortSpec};

/// See [`Context::filter`].
pub type Filter = dyn Fn(&str, &PortMap, &ib_flow::Flow, &ib_flow::Mask) -> Result<bool, String>;

/// What a command may look at besides datapaths.
pub struct Context<'a> {
    /// Datapaths.
    pub datapaths: &'a Datapaths,
    /// Clock milliseconds, for `used:`.
    pub now_ms: u64,
    /// Counters of a device by name, for `show -s`: 12 numbers in the order rx packets, errors, dropped,
    /// overruns, frame, tx packets, errors, dropped, aborted, carrier, collisions, then rx and tx bytes;
    /// `None` where not counted.
    pub port_stats: &'a dyn Fn(&str) -> Option<PortCounters>,
    /// Options in force of a device by name, for `show`.
    pub port_config: &'a dyn Fn(&str) -> BTreeMap<String, String>,
    /// Whether a megaflow's masked key matches a filter in `ovs-ofctl` syntax, which may name the datapath's ports; an error text
    /// otherwise.
    pub filter: &'a Filter,
    /// Reads a file of flows (`-`: standard input); the reason why not otherwise.
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Name of the program, in front of messages.
    pub program: &'a str,
    /// What a command said on its way, to be shown before its answer or its error.
    pub said: &'a RefCell<String>,
}

impl Context<'_> {
    /// Says something on the way.
    fn say(&self, text: &str) {
        self.said.borrow_mut().push_str(text);
    }
    /// Reports what went wrong without giving up.
    fn complain(&self, text: &str) {
        let mut said = self.said.borrow_mut();
        // Writing to a String can't fail.
        let _ = writeln!(said, "{}: {text}", self.program);
    }
}

/// Counters of one port, for display.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_packets: Option<u64>,
    pub rx_errors: Option<u64>,
    pub rx_dropped: Option<u64>,
    pub rx_over_errors: Option<u64>,
    pub rx_frame_errors: Option<u64>,
    pub tx_packets: Option<u64>,
    pub tx_errors: Option<u64>,
    pub tx_dropped: Option<u64>,
    pub tx_aborted_errors: Option<u64>,
    pub tx_carrier_errors: Option<u64>,
    pub collisions: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
}

/// Options given before the command's arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `-s`: statistics.
    pub statistics: bool,
    /// `--clear`: zero the counters.
    pub clear: bool,
    /// `--may-create`.
    pub may_create: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `-m`.
    pub more: bool,
    /// `--names` (true), `--no-names` (false).
    pub names: Option<bool>,
}

type Out = Result<String, String>;
type Handler = fn(&Context<'_>, &Options, &[&str]) -> Out;

/// One command: name without `dpctl/`, usage, number of arguments, whether it changes something.
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Arguments for the list of commands.
    pub usage: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments.
    pub max: usize,
    /// Changes the datapath (refused with `--read-only`).
    pub writes: bool,
    handler: Handler,
}

macro_rules! commands {
    ($($name:literal $usage:literal $min:literal..=$max:expr, $rw:ident, $handler:path;)*) => {
        /// Every command, in the order of its list.
        pub const COMMANDS: &[Command] = &[$(Command {
            name: $name, usage: $usage, min: $min, max: $max, writes: commands!(@$rw), handler: $handler,
        }),*];
    };
    (@rw) => { true };
    (@ro) => { false };
}

const MANY: usize = usize::MAX;

commands! {
    "add-dp" "dp [iface...]" 1..=MANY, rw, add_dp;
    "del-dp" "dp" 1..=1, rw, del_dp;
    "add-if" "dp iface..." 2..=MANY, rw, add_if;
    "del-if" "dp iface..." 2..=MANY, rw, del_if;
    "set-if" "dp iface..." 2..=MANY, rw, set_if;
    "dump-dps" "" 0..=0, ro, dump_dps;
    "show" "[-s] [dp...]" 0..=MANY, ro, show;
    "dump-flows" "[-m] [--names] [dp] [filter=..] [type=..] [pmd=..]" 0..=6, ro, flows::dump_flows;
    "add-flow" "[dp] flow actions" 2..=3, rw, flows::add_flow;
    "mod-flow" "[dp] flow actions" 2..=3, rw, flows::mod_flow;
    "get-flow" "[dp] ufid" 1..=2, ro, flows::get_flow;
    "del-flow" "[dp] flow" 1..=2, rw, flows::del_flow;
    "add-flows" "[dp] file" 1..=2, rw, flows::add_flows;
    "mod-flows" "[dp] file" 1..=2, rw, flows::mod_flows;
    "del-flows" "[dp] [file]" 0..=2, rw, flows::del_flows;
    "offload-stats-show" "[dp]" 0..=1, ro, conntrack::offload_stats_show;
    "dump-conntrack" "[-m] [-s] [dp] [zone=N]" 0..=4, ro, conntrack::dump_conntrack;
    "dump-conntrack-exp" "[dp] [zone=N]" 0..=2, ro, conntrack::dump_conntrack_exp;
    "flush-conntrack" "[dp] [zone=N] [mark=X[/M]] [labels=Y[/N]] [ct-orig-tuple [ct-reply-tuple]]"
        0..=6, rw, conntrack::flush_conntrack;
    "cache-get-size" "[dp]" 0..=1, ro, conntrack::cache_get_size;
    "cache-set-size" "dp cache <size>" 3..=3, rw, conntrack::cache_set_size;
    "ct-stats-show" "[dp] [zone=N]" 0..=3, ro, conntrack::ct_stats_show;
    "ct-bkts" "[dp] [gt=N]" 0..=2, ro, conntrack::ct_bkts;
    "ct-set-maxconns" "[dp] maxconns" 1..=2, rw, conntrack::ct_set_maxconns;
    "ct-get-maxconns" "[dp]" 0..=1, ro, conntrack::ct_get_maxconns;
    "ct-get-nconns" "[dp]" 0..=1, ro, conntrack::ct_get_nconns;
    "ct-enable-tcp-seq-chk" "[dp]" 0..=1, rw, conntrack::ct_enable_tcp_seq_chk;
    "ct-disable-tcp-seq-chk" "[dp]" 0..=1, rw, conntrack::ct_disable_tcp_seq_chk;
    "ct-get-tcp-seq-chk" "[dp]" 0..=1, ro, conntrack::ct_get_tcp_seq_chk;
    "ct-set-limits" "[dp] [default=L] [zone=N,limit=L]..." 1..=MANY, rw, conntrack::ct_set_limits;
    "ct-del-limits" "[dp] [default] [zone=N1[,N2]...]" 1..=3, rw, conntrack::ct_del_limits;
    "ct-get-limits" "[dp] [zone=N1[,N2]...]" 0..=2, ro, conntrack::ct_get_limits;
    "ct-get-sweep-interval" "[dp]" 0..=1, ro, conntrack::ct_get_sweep_interval;
    "ct-set-sweep-interval" "[dp] ms" 1..=2, rw, conntrack::ct_set_sweep_interval;
    "ipf-set-enabled" "[dp] v4|v6" 1..=2, rw, conntrack::ipf_set_enabled;
    "ipf-set-disabled" "[dp] v4|v6" 1..=2, rw, conntrack::ipf_set_disabled;
    "ipf-set-min-frag" "[dp] v4|v6 minfragment" 2..=3, rw, conntrack::ipf_set_min_frag;
    "ipf-set-max-nfrags" "[dp] maxfrags" 1..=2, rw, conntrack::ipf_set_max_nfrags;
    "ipf-get-status" "[dp]" 0..=1, ro, conntrack::ipf_get_status;
    "parse-actions" "actions" 1..=MANY, ro, parse_actions_cmd;
    "normalize-actions" "actions" 2..=MANY, ro, normalize_actions;
}

/// Takes the options that stand in front of `args`: the rest, or the option that there is not.
fn take_options<'a, 'b>(options: &mut Options, mut args: &'a [&'b str]) -> Result<&'a [&'b str], String> {
    while let Some((arg, rest)) = args.split_first() {
        match *arg {
            "--statistics" => options.statistics = true,
            "--more" => options.more = true,
            "--names" => options.names = Some(true),
            "--no-names" => options.names = Some(false),
            "--clear" => options.clear = true,
            "--may-create" => options.may_create = true,
            "--read-only" => options.read_only = true,
            long if long.starts_with("--") => return Err(format!("Unrecognized option {long}")),
            "-" => break,
            short if short.starts_with('-') => {
                for c in short.chars().skip(1) {
                    match c {
                        's' => options.statistics = true,
                        'm' => options.more = true,
                        _ => return Err(format!("Unrecognized option -{c}")),
                    }
                }
            }
            _ => break,
        }
        args = rest;
    }
    Ok(args)
}

/// Runs one command. `args` are the words behind its name; options in front of them are taken out.
///
/// Errors: the text to print behind `PROGRAM: ` (several lines when there is more to say).
pub fn run(cx: &Context<'_>, command: &Command, mut options: Options, args: &[&str]) -> Out {
    let words = take_options(&mut options, args)?;
    if command.writes && options.read_only {
        return Err(format!("'{}' command does not work in read only mode", command.name));
    }
    (command.handler)(cx, &options, words)
}

fn with_errno(what: &str, e: &DpifError) -> String {
    format!("{what} ({})", strerror(e.errno()))
}

/// An errno of opening: a datapath that isn't there is a missing device.
fn open_errno(e: &DpifError) -> String {
    strerror(if matches!(e, DpifError::NotFound(_)) { 19 } else { e.errno() })
}

fn open(cx: &Context<'_>, name: &str) -> Result<Arc<dyn Dpif>, String> {
    let failed = |e| format!("opening datapath {name} failed ({})", open_errno(&e));
    cx.datapaths.open(name, false).map_err(failed)
}

/// As [`open`], with the words of the commands that name their datapath first.
fn open_first(cx: &Context<'_>, name: &str) -> Result<Arc<dyn Dpif>, String> {
    cx.datapaths.open(name, false).map_err(|e| format!("opening datapath ({})", open_errno(&e)))
}

/// For commands whose first argument need not be a datapath's name, however many there are.
const ANY: usize = usize::MAX;

const NOT_FOUND: &str = "datapath not found (Invalid argument)";

/// The datapath named by the first of `args` if there is one of that name, else the only one there is. With `max`
/// arguments the first must be a name.
fn optional_dp<'a, 'b>(
    cx: &Context<'_>,
    args: &'a [&'b str],
    max: usize,
) -> Result<(Arc<dyn Dpif>, &'a [&'b str]), String> {
    if let Some((first, rest)) = args.split_first()
        && cx.datapaths.exists(first)
    {
        return Ok((open_first(cx, first)?, rest));
    }
    if args.len() == max { Err(NOT_FOUND.into()) } else { Ok((only_dp(cx)?, args)) }
}

fn only_dp(cx: &Context<'_>) -> Result<Arc<dyn Dpif>, String> {
    let names = cx.datapaths.enumerate();
    let problem = match names.as_slice() {
        [one] => return open(cx, one),
        [] => "no datapaths exist",
        _ => "multiple datapaths, specify one",
    };
    Err(format!("{problem}\n{NOT_FOUND}"))
}

fn names_of(dpif: &dyn Dpif) -> PortNames {
    let mut names = PortNames::none();
    for p in dpif.ports() {
        names.add(p.number, &p.name);
    }
    names
}

/// `name[,type=T][,port_no=N][,option=value...]`. A number that is none counts as 0, a word without value for nothing; of an
/// option that comes twice the last one counts.
fn parse_iface(cx: &Context<'_>, text: &str) -> PortSpec {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let mut spec = PortSpec { name: name.into(), kind: "system".into(), ..PortSpec::default() };
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key {
            "type" => spec.kind = value.into(),
            "port_no" => spec.number = Some(ib_flow::OdpPort(value.parse().unwrap_or(0))),
            _ => {
                if spec.options.insert(key.into(), value.into()).is_some() {
                    cx.complain(&format!("duplicate \"{key}\" option"));
                }
            }
        }
    }
    spec
}

fn add_ports(cx: &Context<'_>, dpif: &dyn Dpif, dp: &str, ifaces: &[&str]) -> Out {
    let mut errors = Vec::new();
    for text in ifaces {
        let spec = parse_iface(cx, text);
        let name = &spec.name;
        let failed = |why: &str| format!("adding {name} to {dp} failed ({why})");
        let log = |why: &str| vlog_warn!(DPIF, "{}: failed to add {name} as port: {why}", dpif.full_name());
        if spec.number.is_some_and(|n| dpif.ports().iter().any(|p| p.number == n)) {
            log("Device or resource busy");
            errors.push(failed("Device or resource busy"));
            continue;
        }
        if let Err(e) = dpif.port_add(&spec) {
            let why = strerror(e.errno());
            if !matches!(e, DpifError::Os(..)) {
                log(&why);
            }
            errors.push(match &e {
                DpifError::Os(..) => format!("{name}: failed to open network device ({why})"),
                _ => failed(&why),
            });
        }
    }
    if errors.is_empty() { Ok(String::new()) } else { Err(errors.join("\n")) }
}

fn add_dp(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    if cx.datapaths.open(args[0], false).is_ok() {
        return Err("add_dp (File exists)".into());
    }
    let dpif = cx.datapaths.open(args[0], true).map_err(|e| with_errno("add_dp", &e))?;
    add_ports(cx, &*dpif, args[0], &args[1..])
}

fn del_dp(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (kind, name) = Datapaths::parse_name(args[0]);
    let dpif = open_first(cx, args[0])?;
    // What a bridge holds goes when the bridge lets go of it: besides us there is the provider's own hold.
    if Arc::strong_count(&dpif) > 2 {
        return Ok(String::new());
    }
    match cx.datapaths.class(kind).map(|c| c.destroy(name)) {
        Some(Err(e)) => Err(with_errno("del_dp", &e)),
        _ => Ok(String::new()),
    }
}

fn add_if(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let dpif = open_first(cx, args[0])?;
    add_ports(cx, &*dpif, args[0], &args[1..])
}

fn set_if(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let dpif = open_first(cx, args[0])?;
    for text in &args[1..] {
        let spec = parse_iface(cx, text);
        let Some(port) = dpif.port_by_name(&spec.name) else {
            return Err(format!("{}: failed to query port in {} (No such device)", spec.name, args[0]));
        };
        if text.contains(",type=") && port.kind != spec.kind {
            return Err(format!("{}: can't change type from {} to {}", spec.name, port.kind, spec.kind));
        }
        if spec.number.is_some_and(|n| n != port.number) {
            return Err(format!(
                "{}: can't change port number from {} to {}",
                spec.name,
                port.number,
                spec.number.unwrap_or_default()
            ));
        }
    }
    Ok(String::new())
}

fn del_if(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let dpif = open_first(cx, args[0])?;
    for name in &args[1..] {
        let by_number = name.parse().ok().map(ib_flow::OdpPort);
        let port = match by_number {
            Some(n) => n,
            None => match dpif.port_by_name(name) {
                Some(p) => p.number,
                None => return Err(format!("no port named {name}")),
            },
        };
        let failed = |why: &str| format!("deleting port {name} from {} failed ({why})", args[0]);
        if port == ib_flow::OdpPort::LOCAL {
            vlog_warn!(DPIF, "{}: port_del failed (Invalid argument)", dpif.full_name());
            return Err(failed("Invalid argument"));
        }
        dpif.port_del(port).map_err(|e| {
            let why = open_errno(&e);
            vlog_warn!(DPIF, "{}: port_del failed ({why})", dpif.full_name());
            failed(&why)
        })?;
    }
    Ok(String::new())
}

fn dump_dps(cx: &Context<'_>, _: &Options, _: &[&str]) -> Out {
    let (names, failed) = cx.datapaths.enumerate_checked();
    if names.is_empty() && failed {
        return Err(String::new());
    }
    Ok(names.iter().map(|n| format!("{n}\n")).collect())
}

fn show(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let all;
    let names: Vec<&str> = if args.is_empty() {
        let failed;
        (all, failed) = cx.datapaths.enumerate_checked();
        if all.is_empty() && failed {
            return Err(String::new());
        }
        all.iter().map(String::as_str).collect()
    } else {
        args.to_vec()
    };
    let (mut out, mut errors) = (String::new(), Vec::new());
    for name in names {
        match open(cx, name) {
            Ok(dpif) => show_one(&mut out, cx, options, &*dpif),
            Err(e) => errors.push(e),
        }
    }
    if errors.is_empty() {
        return Ok(out);
    }
    cx.say(&out);
    Err(errors.join("\n"))
}

fn show_one(out: &mut String, cx: &Context<'_>, options: &Options, dpif: &dyn Dpif) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{}:", dpif.full_name());
    let stats = dpif.stats();
    let _ = writeln!(out, "  lookups: hit:{} missed:{} lost:{}", stats.hits, stats.misses, stats.lost);
    let _ = writeln!(out, "  flows: {}", stats.flows);
    if let (Some(hits), Some(masks)) = (stats.mask_hits, stats.masks) {
        let packets = stats.hits + stats.misses;
        let average = if packets == 0 { 0.0 } else { hits as f64 / packets as f64 };
        let _ = writeln!(out, "  masks: hit:{hits} total:{masks} hit/pkt:{average:.2}");
        if let Some(cache) = stats.cache_hits {
            let rate = if packets == 0 { 0.0 } else { cache as f64 * 100.0 / packets as f64 };
            let _ = writeln!(out, "  cache: hit:{cache} hit-rate:{rate:.2}%");
        }
    }
    show_caches(out, dpif);
    for port in dpif.ports() {
        let _ = write!(out, "  port {}: {}", port.number, port.name);
        let known = (cx.port_stats)(&port.name);
        // Who has the device open here need not ask.
        let device = if known.is_none() { dpif.port_device(port.number) } else { None };
        if port.kind != "system" {
            let mut config = (cx.port_config)(&port.name);
            if config.is_empty() {
                config = dpif.port_config(port.number);
            }
            if config.is_empty() {
                config.extend(device.iter().flat_map(|d| d.config.iter().cloned()));
            }
            let words: Vec<String> = config.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let colon = if words.is_empty() { "" } else { ": " };
            let _ = write!(out, " ({}{colon}{})", port.kind, words.join(", "));
        }
        out.push('\n');
        if options.statistics {
            show_counters(out, &known.or(device.map(|d| d.counters)).unwrap_or_default());
        }
    }
}

/// The sizes of a datapath's caches, if it has any.
fn show_caches(out: &mut String, dpif: &dyn Dpif) {
    let caches = dpif.caches();
    if caches.is_empty() {
        return;
    }
    out.push_str("  caches:\n");
    for (name, size) in caches {
        let _ = writeln!(out, "    {name}: size:{size}");
    }
}

fn show_counters(out: &mut String, c: &PortCounters) {
    let n = |v: Option<u64>| v.map_or_else(|| "?".to_owned(), |v| v.to_string());
    let bytes = |v: Option<u64>| {
        let Some(v) = v else { return "?".to_owned() };
        // Bytes, and a rounded figure for people.
        let (unit, factor) = match v {
            0..=1023 => return v.to_string(),
            1024..1_048_576 => ("KiB", 1024.0),
            1_048_576..1_073_741_824 => ("MiB", 1_048_576.0),
            1_073_741_824..1_099_511_627_776 => ("GiB", 1_073_741_824.0),
            _ => ("TiB", 1_099_511_627_776.0),
        };
        format!("{v} ({:.1} {unit})", v as f64 / factor)
    };
    let _ = writeln!(
        out,
        "    RX packets:{} errors:{} dropped:{} overruns:{} frame:{}",
        n(c.rx_packets),
        n(c.rx_errors),
        n(c.rx_dropped),
        n(c.rx_over_errors),
        n(c.rx_frame_errors)
    );
    let _ = writeln!(
        out,
        "    TX packets:{} errors:{} dropped:{} aborted:{} carrier:{}",
        n(c.tx_packets),
        n(c.tx_errors),
        n(c.tx_dropped),
        n(c.tx_aborted_errors),
        n(c.tx_carrier_errors)
    );
    let _ = writeln!(out, "    collisions:{}", n(c.collisions));
    let _ = writeln!(out, "    RX bytes:{}  TX bytes:{}", bytes(c.rx_bytes), bytes(c.tx_bytes));
}

fn parse_actions_cmd(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let names = PortNames::none();
    for text in args {
        let actions = parse_actions(text, &names)
            .map_err(|_| "odp_actions_from_string (Invalid argument)".to_owned())?;
        cx.say(&format_actions(&actions, &names));
        cx.say("\n");
    }
    Ok(String::new())
}

/// For each `actions` behind the flow, prints them by VLAN and MPLS state as the original's test aid does.
fn normalize_actions(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let names = PortNames::none();
    let (key, mask) = parse_key(args[0], &names).map_err(|e| {
        let at = failing_field(args[0], e.at);
        format!("odp_flow_key_from_string (syntax error at {at}) (Invalid argument)")
    })?;
    let mut shown = format_key(&mask.apply(&key), None, &names, false);
    for (field, text) in [("recirc_id(", "recirc_id(0),"), ("tcp_flags(", ",tcp_flags(0)")] {
        // A key always has these; the text need not.
        if !args[0].contains(field) {
            shown = shown.replace(text, "");
        }
    }
    cx.say(&format!("input flow: {shown}\n"));
    let mut out = String::new();
    let actions = parse_actions(args[1], &names)
        .map_err(|_| "odp_actions_from_string (Invalid argument)".to_owned())?;
    // Outputs are grouped by what the packet looks like when it leaves.
    let (mut vlan, mut mpls) = (key.vlans[0], key.mpls_lse[0]);
    let mut groups: BTreeMap<(u16, u32), (String, Vec<crate::Action>)> = BTreeMap::new();
    for action in actions {
        match action {
            crate::Action::PopVlan => vlan = ib_flow::Vlan::default(),
            crate::Action::PushVlan { tpid, tci } => vlan = ib_flow::Vlan { tpid, tci },
            crate::Action::PopMpls(_) => mpls = ib_packet::Be32::ZERO,
            crate::Action::PushMpls { lse, .. } => mpls = lse,
            other => {
                let v = if vlan.is_present() {
                    format!("vlan(vid={},pcp={}): ", vlan.vid(), vlan.pcp())
                } else {
                    "no vlan: ".into()
                };
                let m = if mpls.is_zero() {
                    "no mpls: ".into()
                } else {
                    let l = mpls.get();
                    format!("mpls(label={},tc={},ttl={}): ", l >> 12, l >> 9 & 7, l & 0xff)
                };
                let place = (vlan.tci.get(), mpls.get());
                groups.entry(place).or_insert_with(|| (v + &m, Vec::new())).1.push(other);
            }
        }
    }
    if groups.is_empty() {
        out.push_str("no vlan: no mpls: drop");
    }
    for (state, mut list) in groups.into_values() {
        // Outputs without anything between them may leave in any order.
        for run in list.chunk_by_mut(|a, b| output_port(a).is_some() && output_port(b).is_some()) {
            run.sort_by_key(output_port);
        }
        let _ = write!(out, "{state}{}", format_actions(&list, &names));
    }
    Ok(out)
}

fn output_port(action: &crate::Action) -> Option<u32> {
    match action {
        crate::Action::Output(port) => Some(port.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_context(f: impl FnOnce(&Context<'_>)) -> String {
        let said = RefCell::new(String::new());
        f(&Context {
            datapaths: &Datapaths::new(Vec::new()),
            now_ms: 0,
            port_stats: &|_| None,
            port_config: &|_| BTreeMap::new(),
            filter: &|_, _, _, _| Ok(true),
            read_file: &|_| Err("No such file or directory".into()),
            program: "prog",
            said: &said,
        });
        said.into_inner()
    }

    #[test]
    fn interface_text_is_read_whatever_it_says() {
        let said = with_context(|cx| {
            let spec = parse_iface(cx, "vx1,type=vxlan,port_no=7,remote_ip=flow");
            assert_eq!((spec.name.as_str(), spec.kind.as_str()), ("vx1", "vxlan"));
            assert_eq!(spec.number, Some(ib_flow::OdpPort(7)));
            assert_eq!(spec.options["remote_ip"], "flow");
            assert_eq!(parse_iface(cx, "p,type,port_no=x,a=b,a=c").number, Some(ib_flow::OdpPort(0)));
        });
        assert_eq!(said, "prog: duplicate \"a\" option\n");
    }

    #[test]
    fn what_came_before_an_error_is_said() {
        let command = COMMANDS.iter().find(|c| c.name == "parse-actions").unwrap();
        let said = with_context(|cx| {
            let result = run(cx, command, Options::default(), &["1,2", "drop", "foo"]);
            assert_eq!(result, Err("odp_actions_from_string (Invalid argument)".to_owned()));
        });
        assert_eq!(said, "1,2\ndrop\n");
    }

    #[test]
    fn normalized_actions_come_by_vlan() {
        let command = COMMANDS.iter().find(|c| c.name == "normalize-actions").unwrap();
        let flow = "in_port(1),eth(),eth_type(0x8100),vlan(vid=9,pcp=0),encap(eth_type(0x800),ipv4())";
        with_context(|cx| {
            let actions = "3,2,pop_vlan,1,push_vlan(vid=5,pcp=1),4";
            let out = run(cx, command, Options::default(), &[flow, actions]).unwrap();
            assert_eq!(
                out,
                "no vlan: no mpls: 1vlan(vid=9,pcp=0): no mpls: 2,3vlan(vid=5,pcp=1): no mpls: 4"
            );
        });
    }
}
