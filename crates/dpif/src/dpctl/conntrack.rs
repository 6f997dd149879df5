//! Commands about connections, fragments, caches and offload.
//!
//! A provider has no connection table yet, so these say what is true without one: there are no connections, no limits
//! and nothing to flush. What would change or describe such a table is refused by name; no number is made up.

use std::fmt::Write;
use std::sync::Arc;

use super::{ANY, Context, Options, Out, optional_dp, with_errno};
use crate::Dpif;

fn not_supported(command: &str) -> Out {
    Err(format!("{command}: not supported yet (Operation not supported)"))
}

/// Drops a trailing `NAME=NUMBER`, as commands with one such argument do; what is not a number stays.
fn without_number<'a, 'b>(args: &'a [&'b str], name: &str) -> &'a [&'b str] {
    match args.split_last() {
        Some((last, rest))
            if last
                .strip_prefix(name)
                .and_then(|v| v.strip_prefix('='))
                .is_some_and(|v| v.parse::<u32>().is_ok()) =>
        {
            rest
        }
        _ => args,
    }
}

pub(super) fn offload_stats_show(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    optional_dp(cx, args, 1)?;
    // No provider offloads.
    Err("retrieving offload statistics (Invalid argument)".into())
}

pub(super) fn dump_conntrack(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    optional_dp(cx, without_number(args, "zone"), 1)?;
    Ok(String::new())
}

pub(super) fn flush_conntrack(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    for arg in args {
        match arg.strip_prefix("zone=") {
            Some(zone) if zone.parse::<u16>().is_err() => {
                return Err("failed to parse zone (Invalid argument)".into());
            }
            None if !arg.contains('=') && !cx.datapaths.exists(arg) => {
                return Err(format!("field {arg} missing value (Invalid argument)"));
            }
            _ => {}
        }
    }
    optional_dp(cx, args, ANY).map_err(|e| format!("{e}\nCannot open dpif (Invalid argument)"))?;
    Ok(String::new())
}

pub(super) fn cache_get_size(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    if let [name] = args {
        let dpif = cx.datapaths.open(name, false);
        let dpif = dpif.map_err(|e| with_errno(&format!("Opening datapath {name} failed"), &e))?;
        return Ok(format!("{}:\n", dpif.full_name()));
    }
    let (names, failed) = cx.datapaths.enumerate_checked();
    if names.is_empty() && failed {
        return Err(String::new());
    }
    // No provider has a cache whose size can be asked for.
    Ok(names.iter().fold(String::new(), |mut out, name| {
        let _ = writeln!(out, "{name}:");
        out
    }))
}

pub(super) fn cache_set_size(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let [name, _, size, ..] = args else { return Err("size is malformed (Invalid argument)".into()) };
    if size.parse::<u32>().is_err() {
        return Err("size is malformed (Invalid argument)".into());
    }
    let dpif = cx.datapaths.open(name, false);
    dpif.map_err(|e| with_errno(&format!("Opening datapath {name} failed"), &e))?;
    Err("Setting caches not supported (Operation not supported)".into())
}

pub(super) fn ct_stats_show(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let args = args.strip_suffix(&["verbose"]).unwrap_or(args);
    optional_dp(cx, without_number(args, "zone"), 1)?;
    Ok("Connections Stats:\n    Total: 0\n".into())
}

pub(super) fn ct_get_nconns(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    optional_dp(cx, args, 1)?;
    Ok("0\n".into())
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

pub(super) fn ct_set_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    limits_dp(cx, args)?;
    not_supported("ct-set-limits")
}

pub(super) fn ct_del_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    limits_dp(cx, args)?;
    not_supported("ct-del-limits")
}

fn parse_zones(text: &str) -> Result<Vec<u16>, String> {
    let zones: Option<Vec<u16>> =
        text.strip_prefix("zone=").map(|list| list.split(',').filter_map(|z| z.parse().ok()).collect());
    let count = text.split(',').count();
    match zones {
        Some(zones) if zones.len() == count => Ok(zones),
        Some(_) => Err("invalid zone (Invalid argument)".into()),
        None => Err(format!("invalid argument {text} (Invalid argument)")),
    }
}

pub(super) fn ct_get_limits(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = limits_dp(cx, args)?;
    let mut out = String::from("default limit=0\n");
    if let Some(text) = args.first() {
        for zone in parse_zones(text)? {
            let _ = writeln!(out, "zone={zone},limit=0,count=0");
        }
    }
    Ok(out)
}

pub(super) fn ct_bkts(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    optional_dp(cx, without_number(args, "gt"), 1)?;
    not_supported("ct-bkts")
}

/// Commands that only find their datapath before they refuse: with one optional argument ...
macro_rules! refusing {
    ($($function:ident = $name:literal, $max:expr;)*) => {$(
        pub(super) fn $function(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
            optional_dp(cx, args, $max)?;
            not_supported($name)
        }
    )*};
}

refusing! {
    dump_conntrack_exp = "dump-conntrack-exp", 2;
    ct_get_maxconns = "ct-get-maxconns", 1;
    ct_get_tcp_seq_chk = "ct-get-tcp-seq-chk", 1;
    ct_enable_tcp_seq_chk = "ct-enable-tcp-seq-chk", ANY;
    ct_disable_tcp_seq_chk = "ct-disable-tcp-seq-chk", ANY;
    ct_get_sweep_interval = "ct-get-sweep-interval", 1;
    ipf_get_status = "ipf-get-status", 1;
}

/// ... and those that read a number or a protocol first.
pub(super) fn ct_set_maxconns(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 2)?;
    number(args.first(), "maxconns missing or malformed (Invalid argument)")?;
    not_supported("ct-set-maxconns")
}

pub(super) fn ct_set_sweep_interval(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 2)?;
    number(args.first(), "invalid sweep value (Invalid argument)")?;
    not_supported("ct-set-sweep-interval")
}

fn number(text: Option<&&str>, or: &str) -> Result<u32, String> {
    text.and_then(|t| t.parse().ok()).ok_or_else(|| or.to_owned())
}

fn ip_version(text: Option<&&str>, or: &str) -> Result<(), String> {
    if matches!(text, Some(&("v4" | "v6"))) { Ok(()) } else { Err(or.to_owned()) }
}

const NO_VERSION: &str = "parameter missing: 'v4' for IPv4 or 'v6' for IPv6 (Invalid argument)";

pub(super) fn ipf_set_enabled(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 2)?;
    ip_version(args.first(), NO_VERSION)?;
    not_supported("ipf-set-enabled")
}

pub(super) fn ipf_set_disabled(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 2)?;
    ip_version(args.first(), NO_VERSION)?;
    not_supported("ipf-set-disabled")
}

pub(super) fn ipf_set_min_frag(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 3)?;
    ip_version(args.first(), "parameter missing: v4 for IPv4 or v6 for IPv6 (Invalid argument)")?;
    number(args.get(1), "parameter missing for minimum fragment size (Invalid argument)")?;
    not_supported("ipf-set-min-frag")
}

pub(super) fn ipf_set_max_nfrags(cx: &Context<'_>, _: &Options, args: &[&str]) -> Out {
    let (_, args) = optional_dp(cx, args, 2)?;
    number(args.first(), "parameter missing for maximum fragments (Invalid argument)")?;
    not_supported("ipf-set-max-nfrags")
}
