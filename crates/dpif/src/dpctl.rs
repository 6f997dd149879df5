//! The commands of ovs-dpctl(8), on any provider: behind `dpctl/*` of the switch daemon and behind the
//! `ovs-dpctl` program. Each takes words and answers with text, or with the error text that follows
//! `PROGRAM: `.
//!
//! Runs on the daemon's main thread; cost is that of what the command names, a dump's is O(flows).

mod conntrack;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use ib_base::errno::strerror_num as strerror;

use crate::text::{PortNames, format_actions, format_key, parse_actions, parse_key};
use crate::{Datapaths, Dpif, DpifError, FlowDel, FlowInfo, FlowPut, FlowStats, PortSpec, Ufid};

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
    /// Whether a megaflow's masked key matches a filter in `ovs-ofctl` syntax; an error text otherwise.
    pub filter: &'a dyn Fn(&str, &ib_flow::Flow, &ib_flow::Mask) -> Result<bool, String>,
    /// Reads a file of flows (`-`: standard input).
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Counters of one port, for display.
#[derive(Debug, Clone, Copy, Default)]
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
    "dump-flows" "[-m] [--names] [dp] [filter=..] [type=..] [pmd=..]" 0..=6, ro, dump_flows;
    "add-flow" "[dp] flow actions" 2..=3, rw, add_flow;
    "mod-flow" "[dp] flow actions" 2..=3, rw, mod_flow;
    "get-flow" "[dp] ufid" 1..=2, ro, get_flow;
    "del-flow" "[dp] flow" 1..=2, rw, del_flow;
    "add-flows" "[dp] file" 1..=2, rw, add_flows;
    "mod-flows" "[dp] file" 1..=2, rw, mod_flows;
    "del-flows" "[dp] [file]" 0..=2, rw, del_flows;
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

/// Runs one command. `args` are the words behind its name; options among them are taken out.
///
/// Errors: the text to print behind `PROGRAM: ` (several lines when there is more to say).
pub fn run(cx: &Context<'_>, command: &Command, mut options: Options, args: &[&str]) -> Out {
    let mut words = Vec::new();
    for arg in args {
        match *arg {
            "-s" | "--statistics" => options.statistics = true,
            "-m" | "--more" => options.more = true,
            "--names" => options.names = Some(true),
            "--no-names" => options.names = Some(false),
            "--clear" => options.clear = true,
            "--may-create" => options.may_create = true,
            "--read-only" => options.read_only = true,
            word => words.push(word),
        }
    }
    if command.writes && options.read_only {
        return Err(format!("'{}' command does not work in read only mode", command.name));
    }
    (command.handler)(cx, &options, &words)
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

/// `name[,type=T][,port_no=N][,option=value...]`.
fn parse_iface(text: &str) -> Result<PortSpec, String> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let mut spec = PortSpec { name: name.into(), kind: "system".into(), ..PortSpec::default() };
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!("{name}: missing value for \"{part}\""));
        };
        match key {
            "type" => spec.kind = value.into(),
            "port_no" => match value.parse() {
                Ok(n) => spec.number = Some(ib_flow::OdpPort(n)),
                Err(_) => return Err(format!("{name}: invalid port number \"{value}\"")),
            },
            _ => {
                if spec.options.insert(key.into(), value.into()).is_some() {
                    return Err(format!("{name}: duplicate \"{key}\" option"));
                }
            }
        }
    }
    Ok(spec)
}

fn add_ports(dpif: &dyn Dpif, ifaces: &[&str]) -> Out {
    let mut errors = Vec::new();
    for text in ifaces {
        let added = parse_iface(text)
            .and_then(|spec| dpif.port_add(&spec).map_err(|e| format!("{}: {e}", spec.name)));
        errors.extend(added.err());
    }
    if errors.is_empty() { Ok(String::new()) } else { Err(errors.join("\n")) }
}

fn add_dp(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    if cx.datapaths.open(args[0], false).is_ok() {
        return Err("add_dp (File exists)".into());
    }
    let dpif = cx.datapaths.open(args[0], true).map_err(|e| with_errno("add_dp", &e))?;
    add_ports(&*dpif, &args[1..])
}

fn del_dp(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (kind, name) = Datapaths::parse_name(args[0]);
    open_first(cx, args[0])?;
    match cx.datapaths.class(kind).map(|c| c.destroy(name)) {
        Some(Err(e)) => Err(with_errno("del_dp", &e)),
        _ => Ok(String::new()),
    }
}

fn add_if(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let dpif = open_first(cx, args[0])?;
    add_ports(&*dpif, &args[1..])
}

fn set_if(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let dpif = open_first(cx, args[0])?;
    for text in &args[1..] {
        let spec = parse_iface(text)?;
        let Some(port) = dpif.port_by_name(&spec.name) else {
            return Err(format!(
                "{}: failed to query port in {} (No such device)",
                spec.name,
                dpif.full_name()
            ));
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
        dpif.port_del(port)
            .map_err(|e| format!("deleting port {name} from {} failed ({})", args[0], strerror(e.errno())))?;
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
    if errors.is_empty() { Ok(out) } else { Err(errors.join("\n")) }
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
    for port in dpif.ports() {
        let _ = write!(out, "  port {}: {}", port.number, port.name);
        if port.kind != "system" {
            let config = (cx.port_config)(&port.name);
            let words: Vec<String> = config.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let colon = if words.is_empty() { "" } else { ": " };
            let _ = write!(out, " ({}{colon}{})", port.kind, words.join(", "));
        }
        out.push('\n');
        if options.statistics {
            show_counters(out, &(cx.port_stats)(&port.name).unwrap_or_default());
        }
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

/// `packets:1, bytes:60, used:0.001s[, flags:S]`.
pub fn format_stats(stats: &FlowStats, now_ms: u64) -> String {
    let mut out = format!("packets:{}, bytes:{}, used:", stats.packets, stats.bytes);
    if stats.used_ms == 0 {
        out.push_str("never");
    } else {
        let ms = now_ms.saturating_sub(stats.used_ms);
        let _ = write!(out, "{}.{:03}s", ms / 1000, ms % 1000);
    }
    if stats.tcp_flags != 0 {
        out.push_str(", flags:");
        for (bit, letter) in [
            (2, 'S'),
            (1, 'F'),
            (8, 'P'),
            (4, 'R'),
            (0x20, 'U'),
            (0x10, '.'),
            (0x40, 'E'),
            (0x80, 'C'),
            (0x100, 'N'),
        ] {
            if stats.tcp_flags & bit != 0 {
                out.push(letter);
            }
        }
    }
    out
}

/// A flow as one line without its end, as `dump-flows` prints it.
pub fn format_flow(flow: &FlowInfo, names: &PortNames, more: bool, now_ms: u64) -> String {
    let mut out = String::with_capacity(256);
    if more {
        let _ = write!(out, "ufid:{}, ", flow.ufid);
    }
    out.push_str(&format_key(&flow.key, Some(&flow.mask), names, more));
    let _ = write!(out, ", {}", format_stats(&flow.stats, now_ms));
    if flow.offloaded {
        out.push_str(", offloaded:yes");
    }
    if more {
        let _ = write!(out, ", dp:{}", flow.dp_layer);
    }
    let _ = write!(out, ", actions:{}", format_actions(&flow.actions, names));
    if more && flow.dp_layer == "ovs" {
        let (low, high) = miniflow_bits(&flow.mask.0);
        let _ = write!(out, ", dp-extra-info:miniflow_bits({low},{high})");
    }
    out
}

/// How many 64-bit words of a mask are in use, as Open vSwitch lays its keys out: those of its first 64
/// words and of the others. With 32 registers the ports of entry and what is before them are in the first
/// part, the packet's headers in the second.
fn miniflow_bits(m: &ib_flow::Flow) -> (usize, usize) {
    let count = |words: &[bool]| words.iter().filter(|w| **w).count();
    let t = &m.tunnel;
    let pairs = m.regs.chunks(2).filter(|p| p.iter().any(|r| *r != 0)).count();
    let wide = |v: ib_packet::Be128| {
        let v = v.get();
        usize::from(v >> 64 != 0) + usize::from(v as u64 != 0)
    };
    let (src, dst) = (m.dl_src.0, m.dl_dst.0);
    let any = |b: &[u8]| b.iter().any(|b| *b != 0);
    let opts = t.opts.chunks(8).filter(|w| any(w)).count() + usize::from(t.opts_present != 0);
    let low = count(&[
        !t.ip_dst.is_zero() || !t.ip_src.is_zero(),
        !t.tun_id.is_zero(),
        t.flags != 0 || t.ip_tos != 0 || t.ip_ttl != 0 || !t.tp_src.is_zero() || !t.tp_dst.is_zero(),
        !m.metadata.is_zero(),
        m.skb_priority != 0 || m.pkt_mark != 0,
        m.dp_hash != 0 || m.in_port != 0,
        m.recirc_id != 0 || m.ct_state != 0 || m.ct_nw_proto != 0 || m.ct_zone != 0,
        m.ct_mark != 0 || !m.packet_type.is_zero(),
    ]) + wide(t.ipv6_src)
        + wide(t.ipv6_dst)
        + opts
        + pairs;
    let lse = |i: usize| m.mpls_lse.get(i).is_some_and(|l| !l.is_zero());
    let high = count(&[
        m.conj_id != 0 || m.actset_output.0 != 0,
        any(&dst) || any(&src[..2]),
        any(&src[2..]) || !m.dl_type.is_zero(),
        m.vlans.iter().any(|v| !v.tci.is_zero() || !v.tpid.is_zero()),
        lse(0) || lse(1),
        lse(2),
        !m.nw_src.is_zero() || !m.nw_dst.is_zero(),
        !m.ct_nw_src.is_zero() || !m.ct_nw_dst.is_zero(),
        !m.ipv6_label.is_zero() || m.nw_frag != 0 || m.nw_tos != 0 || m.nw_ttl != 0 || m.nw_proto != 0,
        !m.arp_sha.is_zero() || any(&m.arp_tha.0[..2]),
        any(&m.arp_tha.0[2..]) || !m.tcp_flags.is_zero(),
        m.nsh.flags != 0 || m.nsh.ttl != 0 || m.nsh.mdtype != 0 || m.nsh.np != 0 || !m.nsh.path_hdr.is_zero(),
        !m.nsh.context[0].is_zero() || !m.nsh.context[1].is_zero(),
        !m.nsh.context[2].is_zero() || !m.nsh.context[3].is_zero(),
        !m.tp_src.is_zero() || !m.tp_dst.is_zero() || !m.ct_tp_src.is_zero() || !m.ct_tp_dst.is_zero(),
        !m.igmp_group_ip4.is_zero(),
    ]) + wide(m.ct_label)
        + wide(m.ipv6_src)
        + wide(m.ipv6_dst)
        + wide(m.ct_ipv6_src)
        + wide(m.ct_ipv6_dst)
        + wide(m.nd_target);
    (low, high)
}

const FLOW_TYPES: [&str; 6] = ["ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded"];

fn flow_type_shown(types: &[&str], flow: &FlowInfo) -> bool {
    types.is_empty()
        || types.iter().any(|t| match *t {
            "offloaded" => flow.offloaded,
            "non-offloaded" => !flow.offloaded,
            "partially-offloaded" => false,
            layer => flow.dp_layer == layer && !flow.offloaded,
        })
}

fn dump_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (mut filter, mut types, mut thread, mut rest) = (None, Vec::new(), None, Vec::new());
    for arg in args {
        if let Some(text) = arg.strip_prefix("filter=") {
            filter = Some(text);
        } else if let Some(text) = arg.strip_prefix("type=") {
            for t in text.split(',').filter(|t| !t.is_empty() && *t != "all") {
                if !FLOW_TYPES.contains(&t) {
                    return Err(format!("Failed to parse type ({t}) (Invalid argument)"));
                }
                types.push(t);
            }
        } else if let Some(text) = arg.strip_prefix("pmd=") {
            // Which thread's flows: a core, or -1 for those of the main thread.
            let core = text.parse::<i64>().ok().filter(|n| *n >= -1);
            core.ok_or("")?;
            thread = core;
        } else {
            rest.push(*arg);
        }
    }
    let (dpif, _) = optional_dp(cx, &rest, 1)?;
    let with_names = options.names.unwrap_or(options.more);
    let names = if with_names { names_of(&*dpif) } else { PortNames::none() };
    if let Some(f) = filter {
        (cx.filter)(f, &ib_flow::Flow::zeroed(), &ib_flow::Mask::default())
            .map_err(|e| format!("Failed to parse filter ({e})"))?;
    }
    // By thread, those of PMD threads first.
    let mut lines: BTreeMap<(bool, u32), Vec<String>> = BTreeMap::new();
    dpif.flow_dump(&mut |flow| {
        let place = flow.core.map_or((true, 0), |core| (false, core));
        if thread.is_some_and(|t| t != flow.core.map_or(-1, i64::from)) {
            return;
        }
        let wanted = filter.is_none_or(|f| (cx.filter)(f, &flow.key, &flow.mask).unwrap_or(false));
        if wanted && flow_type_shown(&types, &flow) {
            let line = format_flow(&flow, &names, options.more, cx.now_ms);
            lines.entry(place).or_default().push(line);
        }
    });
    let mut out = String::new();
    for ((main, core), lines) in lines {
        match (main, dpif.kind()) {
            (_, "system") => {}
            _ if thread.is_some() => {}
            (true, _) => out.push_str("flow-dump from the main thread:\n"),
            (false, _) => {
                let _ = writeln!(out, "flow-dump from pmd on cpu core: {core}");
            }
        }
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
    }
    Ok(out)
}

/// The rest of a key's text from the field on in which byte `at` is, as errors show it.
pub fn failing_field(text: &str, at: usize) -> &str {
    let (mut depth, mut start) = (0_u32, 0);
    for (i, c) in text.char_indices().take_while(|(i, _)| *i < at) {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' | ' ' | '\t' if depth == 0 => start = i + 1,
            _ => {}
        }
    }
    text.get(start..).unwrap_or_default()
}

/// Splits an optional `ufid:...,` off a flow's text.
fn split_ufid(text: &str) -> Result<(Option<Ufid>, &str), String> {
    let text = text.trim_start();
    let Some(rest) = text.strip_prefix("ufid:") else { return Ok((None, text)) };
    let end = rest.find(|c: char| !c.is_ascii_hexdigit() && c != '-' && c != 'x').unwrap_or(rest.len());
    let digits: String = rest[..end].trim_start_matches("0x").chars().filter(|c| *c != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(v) => Ok((Some(Ufid(v)), rest[end..].trim_start_matches([',', ' ']))),
        Err(_) => Err("parsing flow ufid".into()),
    }
}

fn put_flow(
    cx: &Context<'_>,
    options: &Options,
    dpif: &dyn Dpif,
    flow: &str,
    actions: &str,
    modify: bool,
) -> Out {
    let names = names_of(dpif);
    let (ufid, text) = split_ufid(flow)?;
    let (key, mut mask) = parse_key(text, &names).map_err(|e| {
        format!("parsing flow key (syntax error at {}) (Invalid argument)", failing_field(text, e.at))
    })?;
    // No flow is for packets of any pass.
    mask.0.recirc_id = u32::MAX;
    let actions =
        parse_actions(actions, &names).map_err(|_| "parsing actions (Invalid argument)".to_owned())?;
    let before = if options.statistics && modify {
        dpif.flow_get(&FlowDel { ufid, key: Some(&key) }).ok().map(|f| f.stats)
    } else {
        None
    };
    let put = FlowPut {
        modify,
        create: !modify || options.may_create,
        zero_stats: options.clear,
        key: &key,
        mask: &mask,
        ufid,
        actions: actions.into(),
    };
    dpif.flow_put(&put).map_err(|e| with_errno("updating flow table", &e))?;
    Ok(before.map(|s| format!("{}\n", format_stats(&s, cx.now_ms))).unwrap_or_default())
}

fn add_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 3)?;
    put_flow(cx, options, &*dpif, args[0], args[1], false)
}

fn mod_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 3)?;
    put_flow(cx, options, &*dpif, args[0], args[1], true)
}

fn get_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    let Ok((Some(ufid), _)) = split_ufid(args[0]) else { return Err("parsing flow ufid".into()) };
    let flow = dpif
        .flow_get(&FlowDel { ufid: Some(ufid), key: None })
        .map_err(|e| with_errno("getting flow", &e))?;
    let names = if options.names == Some(true) { names_of(&*dpif) } else { PortNames::none() };
    Ok(format!("{}\n", format_flow(&flow, &names, options.more, cx.now_ms)))
}

fn delete_one(cx: &Context<'_>, options: &Options, dpif: &dyn Dpif, text: &str) -> Out {
    let (ufid, text) = split_ufid(text)?;
    let (key, _) = parse_key(text, &names_of(dpif)).map_err(|e| {
        format!("parsing flow key (syntax error at {}) (Invalid argument)", failing_field(text, e.at))
    })?;
    let named = FlowDel { ufid, key: if ufid.is_some() { None } else { Some(&key) } };
    match dpif.flow_del(&named) {
        Ok(stats) if options.statistics => Ok(format!("{}\n", format_stats(&stats, cx.now_ms))),
        Ok(_) => Ok(String::new()),
        Err(e) => {
            let hint =
                if ufid.is_none() && e.errno() == 2 { "\nPerhaps you need to specify a UFID?" } else { "" };
            Err(format!("{}{hint}", with_errno("deleting flow", &e)))
        }
    }
}

fn del_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    delete_one(cx, options, &*dpif, args[0])
}

/// What a line of a flow file asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Modify,
    Delete,
}

fn from_file(cx: &Context<'_>, options: &Options, dpif: &dyn Dpif, file: &str, default: Verb) -> Out {
    let text = (cx.read_file)(file)?;
    let mut out = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let verbs = [("add ", Verb::Add), ("modify ", Verb::Modify), ("delete ", Verb::Delete)];
        let found = verbs.iter().find_map(|(word, verb)| line.strip_prefix(word).map(|rest| (rest, *verb)));
        let (flow, verb) = found.unwrap_or((line, default));
        if verb == Verb::Delete {
            out.push_str(&delete_one(cx, options, dpif, flow)?);
            continue;
        }
        let Some((flow, actions)) = flow.split_once("actions:").or_else(|| flow.rsplit_once(' ')) else {
            return Err("parsing actions (Invalid argument)".into());
        };
        // A dumped line carries counters between key and actions.
        let key = flow.split(", packets:").next().unwrap_or(flow).trim().trim_end_matches(',');
        out.push_str(&put_flow(cx, options, dpif, key, actions.trim(), verb == Verb::Modify)?);
    }
    Ok(out)
}

fn add_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, ANY)?;
    from_file(cx, options, &*dpif, args[0], Verb::Add)
}

fn mod_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, ANY)?;
    from_file(cx, options, &*dpif, args[0], Verb::Modify)
}

fn del_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    // A single argument is a datapath if there is one of that name, else a file.
    let (dpif, file) = match args {
        [] => (only_dp(cx)?, None),
        [one] if cx.datapaths.exists(one) => (open_first(cx, one)?, None),
        _ => {
            let (dpif, rest) = optional_dp(cx, args, ANY)?;
            (dpif, rest.first().copied())
        }
    };
    match file {
        Some(file) => from_file(cx, options, &*dpif, file, Verb::Delete),
        None => {
            dpif.flow_flush();
            Ok(String::new())
        }
    }
}

fn parse_actions_cmd(_: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let names = PortNames::none();
    let mut out = String::new();
    for text in args {
        let actions = parse_actions(text, &names)
            .map_err(|_| "odp_actions_from_string (Invalid argument)".to_owned())?;
        let _ = writeln!(out, "{}", format_actions(&actions, &names));
    }
    Ok(out)
}

/// For each `actions` behind the flow, prints them by VLAN and MPLS state as the original's test aid does.
fn normalize_actions(_: &Context<'_>, _: &Options, args: &[&str]) -> Out {
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
    let mut out = format!("input flow: {shown}\n");
    let actions = parse_actions(args[1], &names)
        .map_err(|_| "odp_actions_from_string (Invalid argument)".to_owned())?;
    // Outputs are grouped by what the packet looks like when it leaves.
    let (mut vlan, mut mpls) = (key.vlans[0], key.mpls_lse[0]);
    let mut groups: BTreeMap<String, Vec<crate::Action>> = BTreeMap::new();
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
                groups.entry(v + &m).or_default().push(other);
            }
        }
    }
    if groups.is_empty() {
        out.push_str("no vlan: no mpls: drop");
    }
    for (state, mut list) in groups {
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

    #[test]
    fn interface_text_is_checked() {
        let spec = parse_iface("vx1,type=vxlan,port_no=7,remote_ip=flow").unwrap();
        assert_eq!((spec.name.as_str(), spec.kind.as_str()), ("vx1", "vxlan"));
        assert_eq!(spec.number, Some(ib_flow::OdpPort(7)));
        assert_eq!(spec.options["remote_ip"], "flow");
        assert!(parse_iface("p,type").is_err());
        assert!(parse_iface("p,port_no=x").is_err());
    }

    #[test]
    fn stats_print_as_in_dumps() {
        let stats = FlowStats { packets: 3, bytes: 180, used_ms: 1000, tcp_flags: 0x12 };
        assert_eq!(format_stats(&stats, 2041), "packets:3, bytes:180, used:1.041s, flags:S.");
        assert_eq!(format_stats(&FlowStats::default(), 5), "packets:0, bytes:0, used:never");
    }

    #[test]
    fn a_ufid_is_split_off() {
        let (ufid, rest) = split_ufid("ufid:12272b11-9007-4f8b-8d4b-55ebc7abc5be, in_port(1)").unwrap();
        assert_eq!(ufid, Some(Ufid(0x12272b11_9007_4f8b_8d4b_55ebc7abc5be)));
        assert_eq!(rest, "in_port(1)");
        assert!(split_ufid("ufid:zz").is_err());
    }

    #[test]
    fn errors_show_the_field() {
        assert_eq!(failing_field("a", 1), "a");
        assert_eq!(failing_field("in_port(1),eth(src=x),foo", 18), "eth(src=x),foo");
        assert_eq!(failing_field("in_port(1), foo", 15), "foo");
    }
}
