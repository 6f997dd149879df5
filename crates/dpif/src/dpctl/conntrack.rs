//! Commands about connections, fragments, caches and offload.
//!
//! What they say and set is the provider's [`CtControl`]; one without refuses them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ib_base::vlog::module::CONNTRACK;
use ib_base::vlog_warn;

use super::{ANY, Context, Options, Out, optional_dp, show_caches, with_errno};
use crate::Dpif;
use crate::conntrack::{
    CtControl, CtDetail, CtEntry, CtFilter, CtTupleFilter, TcpState, format_entry, format_expectation,
};

/// A failure of the provider's, as Open vSwitch words it.
const UNSUPPORTED: &str = "Operation not supported";

fn control<'a>(dpif: &'a Arc<dyn Dpif>, what: &str) -> Result<&'a dyn CtControl, String> {
    dpif.conntrack().ok_or_else(|| format!("{what} ({UNSUPPORTED})"))
}

/// As [`control`], for what is only a datapath's own table's.
fn own_control<'a>(dpif: &'a Arc<dyn Dpif>, what: &str) -> Result<&'a dyn CtControl, String> {
    control(dpif, what)
        .and_then(|c| if c.has_settings() { Ok(c) } else { Err(format!("{what} ({UNSUPPORTED})")) })
}

/// Splits off a trailing `NAME=NUMBER`, as commands with one such argument have it; what is not a number stays.
fn split_number<'a, 'b>(args: &'a [&'b str], name: &str) -> (&'a [&'b str], Option<u32>) {
    let number = |last: &str| leading(last.strip_prefix(name)?.strip_prefix('=')?);
    match args.split_last() {
        Some((last, rest)) if number(last).is_some() => (rest, number(last)),
        _ => (args, None),
    }
}

/// As [`split_number`], for a zone.
fn split_zone<'a, 'b>(args: &'a [&'b str]) -> (&'a [&'b str], Option<u16>) {
    let (rest, zone) = split_number(args, "zone");
    // Zones have 16 bits; what is beyond wraps, as it always has.
    (rest, zone.map(|z| (z & 0xffff) as u16))
}

pub(super) fn offload_stats_show(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, _) = optional_dp(cx, args, 1)?;
    // No provider offloads.
    if !dpif.names_threads() {
        return Err(format!("retrieving offload statistics ({UNSUPPORTED})"));
    }
    Err("retrieving offload statistics (Invalid argument)".into())
}

pub(super) fn dump_conntrack(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (rest, zone) = split_zone(args);
    let (dpif, _) = optional_dp(cx, rest, 1)?;
    let detail = CtDetail { more: options.more, times: options.statistics };
    let entries = control(&dpif, "dumping conntrack entry")?.dump(zone);
    Ok(entries.iter().fold(String::new(), |mut out, e| {
        out.push_str(&format_entry(e, detail));
        out.push('\n');
        out
    }))
}

fn mixed(address: &str) -> String {
    format!("the L3 protocol does not match {address} (Invalid argument)")
}

/// Parts of a tuple in `ct_nw_src=...,ct_tp_dst=...` form; `other` is that of the other direction, if that was given.
fn parse_tuple(text: &str, other: &CtTupleFilter) -> Result<CtTupleFilter, String> {
    let mut t = CtTupleFilter { proto: other.proto, ..CtTupleFilter::default() };
    for part in text.split([',', ' ']).filter(|p| !p.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() {
            return Err(format!("field {key} missing value (Invalid argument)"));
        }
        let bad = || format!("failed to parse field {key} (Invalid argument)");
        let v4 = || value.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| bad());
        let v6 = || value.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| bad());
        let others =
            |v6: bool| [t.src, t.dst, other.src, other.dst].iter().flatten().any(|a| a.is_ipv6() != v6);
        match key {
            "ct_nw_src" | "ct_nw_dst" if others(false) => return Err(mixed(value)),
            "ct_ipv6_src" | "ct_ipv6_dst" if others(true) => return Err(mixed(value)),
            "ct_nw_src" => t.src = Some(v4()?),
            "ct_nw_dst" => t.dst = Some(v4()?),
            "ct_ipv6_src" => t.src = Some(v6()?),
            "ct_ipv6_dst" => t.dst = Some(v6()?),
            "ct_nw_proto" => t.proto = Some(value.parse().map_err(|_| bad())?),
            "ct_tp_src" => t.sport = Some(value.parse().map_err(|_| bad())?),
            "ct_tp_dst" => t.dport = Some(value.parse().map_err(|_| bad())?),
            "icmp_id" => t.icmp.0 = Some(value.parse().map_err(|_| bad())?),
            "icmp_type" => t.icmp.1 = Some(value.parse().map_err(|_| bad())?),
            "icmp_code" => t.icmp.2 = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(format!("invalid conntrack tuple field: {key} (Invalid argument)")),
        }
    }
    let icmp = t.icmp != (None, None, None);
    match t.proto {
        None if t.sport.is_some() || t.dport.is_some() => {
            Err("port is set without protocol (Invalid argument)".into())
        }
        Some(1 | 58) => Ok(t),
        _ if icmp => Err("invalid L4 fields (Invalid argument)".into()),
        _ => Ok(t),
    }
}

fn wide(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `VALUE[/MASK]`.
fn masked(text: &str) -> Option<(u128, u128)> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(v, m)| (v, Some(m)));
    Some((wide(value)?, mask.map_or(Some(u128::MAX), wide)?))
}

fn parse_filter(mut args: &[&str]) -> Result<CtFilter, String> {
    let mut f = CtFilter::default();
    if let Some(zone) = args.first().and_then(|a| a.strip_prefix("zone=")) {
        // Zones have 16 bits; what is beyond wraps, as it always has.
        let zone = leading(zone).ok_or("failed to parse zone (Invalid argument)")?;
        f.zone = Some((zone & 0xffff) as u16);
        args = &args[1..];
    }
    if let Some(mark) = args.first().and_then(|a| a.strip_prefix("mark=")) {
        let narrow = |(v, m): (u128, u128)| Some((u32::try_from(v).ok()?, m as u32));
        f.mark = Some(masked(mark).and_then(narrow).ok_or("failed to parse mark (Invalid argument)")?);
        args = &args[1..];
    }
    if let Some(label) = args.first().and_then(|a| a.strip_prefix("labels=")) {
        f.label = Some(masked(label).ok_or("failed to parse labels (Invalid argument)")?);
        args = &args[1..];
    }
    if args.len() > 2 {
        return Err("datapath not found (Invalid argument)\nCannot open dpif (Invalid argument)".into());
    }
    for (i, arg) in args.iter().enumerate() {
        let tuple = parse_tuple(arg, &f.orig)?;
        match i {
            0 => f.orig = tuple,
            _ => f.reply = tuple,
        }
    }
    Ok(f)
}

/// Whether a filter names one connection: then there has to be one.
fn is_exact(f: &CtFilter) -> bool {
    let t = &f.orig;
    let l4 = match t.proto {
        Some(1 | 58) => t.icmp.0.is_some() && t.icmp.1.is_some(),
        Some(_) => t.sport.is_some() && t.dport.is_some(),
        None => false,
    };
    l4 && t.src.is_some() && t.dst.is_some() && f.reply.is_empty() && f.mark.is_none() && f.label.is_none()
}

pub(super) fn flush_conntrack(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let rest = match args.split_first() {
        Some((first, rest)) if cx.datapaths.exists(first) => rest,
        _ => args,
    };
    let mut filter = parse_filter(rest)?;
    let (dpif, _) =
        optional_dp(cx, args, ANY).map_err(|e| format!("{e}\nCannot open dpif (Invalid argument)"))?;
    let control = control(&dpif, "failed to flush conntrack")?;
    if is_exact(&filter) {
        filter.zone = Some(filter.zone.unwrap_or(0));
    }
    if control.flush(&filter) == 0 && is_exact(&filter) {
        if control.has_settings() {
            vlog_warn!(CONNTRACK, "Must flush tuple using the original pre-NATed tuple");
        }
        return Err("failed to flush conntrack (No such file or directory)".into());
    }
    Ok(String::new())
}

pub(super) fn cache_get_size(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let opened = |name: &str| {
        let dpif = cx.datapaths.open(name, false);
        dpif.map_err(|e| with_errno(&format!("Opening datapath {name} failed"), &e))
    };
    let mut out = String::new();
    let mut show = |dpif: Arc<dyn Dpif>| {
        let _ = writeln!(out, "{}:", dpif.full_name());
        show_caches(&mut out, &*dpif);
    };
    if let [name] = args {
        show(opened(name)?);
        return Ok(out);
    }
    let (names, failed) = cx.datapaths.enumerate_checked();
    if names.is_empty() && failed {
        return Err(String::new());
    }
    for name in names {
        show(opened(&name)?);
    }
    Ok(out)
}

pub(super) fn cache_set_size(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let [name, cache, size, ..] = args else { return Err("size is malformed (Invalid argument)".into()) };
    let Ok(size) = size.parse::<u32>() else {
        return Err("size is malformed (Invalid argument)".into());
    };
    let dpif = cx.datapaths.open(name, false);
    let dpif = dpif.map_err(|e| with_errno(&format!("Opening datapath {name} failed"), &e))?;
    let caches = dpif.caches();
    if caches.is_empty() {
        return Err("Setting caches not supported (Operation not supported)".into());
    }
    if !caches.iter().any(|(known, _)| known == cache) {
        return Err(format!("Cache name \"{cache}\" not found on dpif (Invalid argument)"));
    }
    dpif.cache_set_size(cache, size).map_err(|e| with_errno("Setting cache size failed", &e))?;
    // It may have been rounded.
    let size = dpif.caches().into_iter().find(|(known, _)| known == cache).map_or(size, |(_, now)| now);
    Ok(format!("Setting cache size successful, new size {size}\n"))
}

pub(super) fn ct_stats_show(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    // From the end, in any order.
    let (mut rest, mut verbose, mut zone) = (args, options.more, None);
    while let Some((last, others)) = rest.split_last() {
        match split_zone(rest) {
            (others, Some(z)) => (rest, zone) = (others, Some(z)),
            _ if last.starts_with("verbose") => (rest, verbose) = (others, true),
            _ => break,
        }
    }
    let (dpif, _) = optional_dp(cx, rest, 1)?;
    let entries = control(&dpif, "dumping conntrack entry")?.dump(zone);
    let mut out = format!("Connections Stats:\n    Total: {}\n", entries.len());
    const NAMED: [(u8, &str); 7] =
        [(6, "TCP"), (17, "UDP"), (136, "UDPLITE"), (132, "SCTP"), (1, "ICMP"), (33, "DCCP"), (2, "IGMP")];
    for (proto, name) in NAMED {
        let n = entries.iter().filter(|e| e.orig.proto == proto).count();
        if n == 0 {
            continue;
        }
        let _ = writeln!(out, "  {name}: {n}");
        if proto == 6 && verbose {
            out.push_str("    Conn per TCP states:\n");
            for state in TcpState::ALL {
                let is = |e: &&CtEntry| e.tcp.is_some_and(|t| t.overall() == state);
                let n = entries.iter().filter(is).count();
                if n > 0 {
                    let _ = writeln!(out, "\t  [{}]={n}", state.name());
                }
            }
        }
    }
    // ICMPv6 is in the total alone.
    let named = |p: u8| p == 58 || NAMED.iter().any(|(n, _)| *n == p);
    let other = entries.iter().filter(|e| !named(e.orig.proto)).count();
    if other > 0 {
        let _ = writeln!(out, "  Other: {other}");
    }
    Ok(out)
}

/// A command that reads one value.
fn read(cx: &Context<'_>, args: &[&str], what: &str, f: impl FnOnce(&dyn CtControl) -> String) -> Out {
    let (dpif, _) = optional_dp(cx, args, 1)?;
    Ok(f(own_control(&dpif, what)?))
}

pub(super) fn ct_get_nconns(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    read(cx, args, "nconns could not be retrieved", |c| format!("{}\n", c.n_conns()))
}

pub(super) fn ct_get_maxconns(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    read(cx, args, "maxconns could not be retrieved", |c| format!("{}\n", c.max_conns()))
}

pub(super) fn ct_get_tcp_seq_chk(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    read(cx, args, "TCP sequence checking query failed", |c| {
        let state = if c.tcp_seq_chk() { "enabled" } else { "disabled" };
        format!("TCP sequence checking: {state}\n")
    })
}

pub(super) fn ct_get_sweep_interval(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    read(cx, args, "sweep interval could not be retrieved", |c| format!("{} ms\n", c.sweep_interval_ms()))
}

fn set_tcp_seq_chk(cx: &Context<'_>, args: &[&str], on: bool) -> Out {
    let (dpif, _) = optional_dp(cx, args, ANY)?;
    let what = if on { "enabling" } else { "disabling" };
    own_control(&dpif, &format!("{what} TCP sequence checking failed"))?.set_tcp_seq_chk(on);
    Ok(format!("{what} TCP sequence checking successful\n"))
}

pub(super) fn ct_enable_tcp_seq_chk(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    set_tcp_seq_chk(cx, args, true)
}

pub(super) fn ct_disable_tcp_seq_chk(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    set_tcp_seq_chk(cx, args, false)
}

/// The datapath of a command about limits, which looks for a name before it looks for a datapath.
fn limits_dp<'a, 'b>(
    cx: &Context<'_>,
    args: &'a [&'b str],
) -> Result<(Arc<dyn Dpif>, &'a [&'b str]), String> {
    if let Some(first) = args.first() {
        cx.datapaths.exists(first);
    }
    optional_dp(cx, args, ANY)
}

/// The number that a text begins with; what is more than 32 bits wraps.
fn leading(text: &str) -> Option<u32> {
    let (minus, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let digits = text.get(..end).filter(|d| !d.is_empty())?;
    let add = |n: u64, d: u8| n.wrapping_mul(10).wrapping_add(u64::from(d - b'0'));
    let n = digits.bytes().fold(0, add) as u32;
    Some(if minus { n.wrapping_neg() } else { n })
}

/// `zone=N,limit=L`.
fn zone_limit(text: &str) -> Result<(u16, u32), String> {
    let (mut zone, mut limit) = (None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if value.is_empty() {
            return Err(format!("field {key} missing value (Invalid argument)"));
        }
        let bad = || format!("failed to parse field {key} (Invalid argument)");
        match key {
            "zone" => zone = Some(value.parse().map_err(|_| bad())?),
            "limit" => limit = Some(leading(value).ok_or_else(bad)?),
            _ => return Err(format!("invalid zone limit field: {key} (Invalid argument)")),
        }
    }
    zone.zip(limit).ok_or_else(|| "failed to parse zone limit (Invalid argument)".to_owned())
}

pub(super) fn ct_set_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, mut args) = limits_dp(cx, args)?;
    let control = control(&dpif, "failed to set conntrack limit")?;
    let mut default = None;
    if let Some(value) = args.first().and_then(|a| a.strip_prefix("default=")) {
        default = Some(leading(value).ok_or("invalid default limit (Invalid argument)")?);
        args = &args[1..];
    }
    let zones = args.iter().map(|a| zone_limit(a)).collect::<Result<Vec<_>, _>>()?;
    if let Some(limit) = default {
        control.set_default_limit(limit);
    }
    zones.into_iter().for_each(|(zone, limit)| control.set_limit(zone, Some(limit)));
    Ok(String::new())
}

pub(super) fn ct_del_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, mut args) = limits_dp(cx, args)?;
    let control = control(&dpif, "failed to delete conntrack limit")?;
    let default = args.first() == Some(&"default");
    if default {
        args = &args[1..];
    }
    let zones = args.first().map_or(Ok(Vec::new()), |text| parse_zones(text))?;
    if default {
        control.set_default_limit(0);
    }
    zones.into_iter().for_each(|zone| control.set_limit(zone, None));
    Ok(String::new())
}

fn parse_zones(text: &str) -> Result<Vec<u16>, String> {
    let list =
        text.strip_prefix("zone=").ok_or_else(|| format!("invalid argument {text} (Invalid argument)"))?;
    let zone = |z: &str| z.parse::<u32>().ok().map(|z| (z & 0xffff) as u16);
    let zones: Option<Vec<u16>> = list.split(',').map(zone).collect();
    zones.ok_or_else(|| "invalid zone (Invalid argument)".to_owned())
}

pub(super) fn ct_get_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, args) = limits_dp(cx, args)?;
    let control = control(&dpif, "failed to get conntrack limit")?;
    if args.len() > 1 {
        return Err("datapath not found (Invalid argument)".into());
    }
    let limits = match args.first() {
        Some(text) => parse_zones(text)?.into_iter().map(|z| control.limit(z)).collect(),
        None => control.limits(),
    };
    let head = format!("default limit={}\n", control.default_limit());
    Ok(limits.iter().fold(head, |mut out, l| {
        let _ = writeln!(out, "zone={},limit={},count={}", l.zone, l.limit, l.count);
        out
    }))
}

pub(super) fn ct_bkts(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (rest, more_than) = split_number(args, "gt");
    let (dpif, _) = optional_dp(cx, rest, 1)?;
    let control = control(&dpif, "dumping conntrack entry")?;
    if !control.has_settings() {
        cx.say("Command is available for UserSpace ConnTracker only.\n");
        return Ok(String::new());
    }
    // This table has no buckets to speak of: they count as one.
    let n = control.n_conns();
    let mut out = format!("Total Buckets: 1\nCurrent Connections: {n}\n\n");
    if n == 0 {
        return Ok(out);
    }
    out.push_str("+-----------+-----------------------------------------+\n");
    out.push_str("|  Buckets  |         Connections per Buckets         |\n");
    out.push_str("+-----------+-----------------------------------------+\n");
    if more_than.is_none_or(|gt| n > gt) {
        let _ = writeln!(out, "{:>4}..{:>3}   |{n:>6}", 0, 7);
    }
    out.push('\n');
    Ok(out)
}

pub(super) fn dump_conntrack_exp(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (rest, zone) = split_zone(args);
    let (dpif, _) = optional_dp(cx, rest, 1)?;
    let expected = own_control(&dpif, "dumping conntrack expectations")?.expectations(zone);
    Ok(expected.iter().fold(String::new(), |mut out, e| {
        out.push_str(&format_expectation(e));
        out.push('\n');
        out
    }))
}

fn number(text: Option<&&str>, or: &str) -> Result<u32, String> {
    text.and_then(|t| leading(t)).ok_or_else(|| or.to_owned())
}

pub(super) fn ct_set_maxconns(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    let max = number(args.first(), "maxconns missing or malformed (Invalid argument)")?;
    own_control(&dpif, "ct set maxconns failed")?.set_max_conns(max);
    Ok("setting maxconns successful\n".into())
}

pub(super) fn ct_set_sweep_interval(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    let ms = number(args.first(), "invalid sweep value (Invalid argument)")?;
    own_control(&dpif, "failed to set sweep interval")?.set_sweep_interval_ms(ms);
    Ok("setting sweep interval successful\n".into())
}

/// Whether `v6`.
fn ip_version(text: Option<&&str>, or: &str) -> Result<bool, String> {
    match text {
        Some(&"v4") => Ok(false),
        Some(&"v6") => Ok(true),
        _ => Err(or.to_owned()),
    }
}

const NO_VERSION: &str = "parameter missing: 'v4' for IPv4 or 'v6' for IPv6 (Invalid argument)";

fn ipf_set(cx: &Context<'_>, args: &[&str], on: bool) -> Out {
    // Turning it off has always overlooked a name in front that is none.
    let (dpif, args) = optional_dp(cx, args, if on { 2 } else { ANY })?;
    let v6 = ip_version(if on { args.first() } else { args.last() }, NO_VERSION)?;
    let what = if on { "enabling" } else { "disabling" };
    own_control(&dpif, &format!("{what} fragmentation reassembly failed"))?.set_frag_enabled(v6, on);
    Ok(format!("{what} fragmentation reassembly successful\n"))
}

pub(super) fn ipf_set_enabled(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    ipf_set(cx, args, true)
}

pub(super) fn ipf_set_disabled(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    ipf_set(cx, args, false)
}

pub(super) fn ipf_set_min_frag(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 3)?;
    let v6 = ip_version(args.first(), "parameter missing: v4 for IPv4 or v6 for IPv6 (Invalid argument)")?;
    let min = number(args.get(1), "parameter missing for minimum fragment size (Invalid argument)")?;
    const SMALL: &str = "requested minimum fragment size too small; see documentation";
    if !own_control(&dpif, SMALL)?.set_frag_min(v6, min) {
        return Err(format!("{SMALL} (Operation not permitted)"));
    }
    Ok("setting minimum fragment size successful\n".into())
}

pub(super) fn ipf_set_max_nfrags(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    let max = number(args.first(), "parameter missing for maximum fragments (Invalid argument)")?;
    if !own_control(&dpif, "setting maximum fragments failed")?.set_frag_max(max) {
        return Err("setting maximum fragments failed (Operation not permitted)".into());
    }
    Ok("setting maximum fragments successful\n".into())
}

pub(super) fn ipf_get_status(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, _) = optional_dp(cx, args, 1)?;
    let s = own_control(&dpif, "ipf status could not be retrieved")?.frag_status();
    let mut lines = vec![
        "Fragmentation Module Status".to_owned(),
        "---------------------------".to_owned(),
        format!("v4 enabled: {}", u8::from(s.v4.enabled)),
        format!("v6 enabled: {}", u8::from(s.v6.enabled)),
        format!("max num frags (v4/v6): {}", s.max),
        format!("num frag: {}", s.held),
    ];
    for (v, c) in [("v4", &s.v4), ("v6", &s.v6)] {
        lines.push(format!("min {v} frag size: {}", c.min_size));
        lines.push(format!("{v} frags accepted: {}", c.accepted));
        lines.push(format!("{v} frags completed: {}", c.completed));
        lines.push(format!("{v} frags expired: {}", c.expired));
        lines.push(format!("{v} frags too small: {}", c.too_small));
        lines.push(format!("{v} frags overlapped: {}", c.overlapped));
        lines.push(format!("{v} frags purged: {}", c.purged));
    }
    let mut out: String = lines.iter().map(|l| format!("        {l}\n")).collect();
    if options.more {
        out.push_str("\n        Fragment Lists:\n\n");
        let lists = own_control(&dpif, "ipf status could not be retrieved")?.frag_lists();
        lists.iter().for_each(|list| {
            let _ = writeln!(out, "{list}");
        });
    }
    Ok(out)
}
