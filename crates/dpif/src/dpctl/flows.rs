//! `dpctl` commands about flows: dump, get, add, change, delete, one by one or from a file.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{ANY, Context, Options, Out, fit, names_of, only_dp, open_first, optional_dp, with_errno};
use crate::text::{PortNames, format_actions, format_kernel_key, format_key, parse_actions, parse_key};
use crate::{Dpif, DpifError, FlowDel, FlowInfo, FlowOrigin, FlowPut, FlowStats, Ufid};

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
    if more && flow.origin != FlowOrigin::KernelNameless {
        let _ = write!(out, "ufid:{}, ", flow.ufid);
    }
    let of_kernel = flow.origin != FlowOrigin::UserSpace;
    let format = if of_kernel { format_kernel_key } else { format_key };
    out.push_str(&format(&flow.key, Some(&flow.mask), names, more));
    let _ = write!(out, ", {}", format_stats(&flow.stats, now_ms));
    if more && flow.offloaded {
        out.push_str(", offloaded:yes");
    }
    if more {
        let _ = write!(out, ", dp:{}", flow.dp_layer);
    }
    let _ = write!(out, ", actions:{}", format_actions(&flow.actions, names));
    if more && flow.dp_layer == "ovs" && !of_kernel {
        let (low, high) = miniflow_bits(&flow.mask.0);
        let _ = write!(out, ", dp-extra-info:miniflow_bits({low},{high})");
    }
    out
}

/// How many 64-bit words of a mask are in use, as Open vSwitch lays its keys out: those of its first 64
/// words and of the others. With 32 registers the packet's type and what is before it are in the first
/// part, the packet's headers in the second. The port of entry is not counted: each has a table of its own.
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
        m.dp_hash != 0,
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

const FLOW_TYPES: [&str; 7] =
    ["all", "ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded"];

fn flow_type_shown(types: &[&str], flow: &FlowInfo) -> bool {
    types.iter().any(|t| match *t {
        "all" => true,
        "offloaded" => flow.offloaded,
        "non-offloaded" => !flow.offloaded,
        "partially-offloaded" => false,
        layer => flow.dp_layer == layer && !flow.offloaded,
    })
}

pub(super) fn dump_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    // From the end: one of each.
    let (mut filter, mut kinds, mut core, mut rest) = (None, None, None, args);
    while let Some((last, others)) = rest.split_last() {
        let place = [("filter=", &mut filter), ("type=", &mut kinds), ("pmd=", &mut core)]
            .into_iter()
            .find_map(|(name, place)| Some((last.strip_prefix(name)?, place)).filter(|(_, p)| p.is_none()));
        let Some((text, place)) = place else { break };
        *place = Some(text);
        rest = others;
    }
    // Which thread's flows: a core, or -1 for those of the main thread.
    let core = core.map(|text| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or(""));
    let thread = core.transpose()?;
    let (dpif, _) = optional_dp(cx, rest, 1)?;
    let types: Vec<&str> = kinds.unwrap_or("all").split(',').filter(|t| !t.is_empty()).collect();
    if let Some(t) = types.iter().find(|t| !FLOW_TYPES.contains(t)) {
        return Err(format!("Failed to parse type ({t}) (Invalid argument)"));
    }
    let with_names = options.names.unwrap_or(options.more);
    let names = if with_names { names_of(&*dpif) } else { PortNames::none() };
    let mut ports = ib_flow::PortMap::default();
    if let Some(f) = filter {
        for port in dpif.ports() {
            if let Ok(number) = u16::try_from(port.number.0) {
                ports.insert(ib_flow::OfPort(number), &port.name);
            }
        }
        (cx.filter)(f, &ports, &ib_flow::Flow::zeroed(), &ib_flow::Mask::default())
            .map_err(|e| format!("Failed to parse filter ({e})"))?;
    }
    // By thread, those of PMD threads first.
    let mut lines: BTreeMap<(bool, u32), Vec<String>> = BTreeMap::new();
    dpif.flow_dump(&mut |flow| {
        let place = flow.core.map_or((true, 0), |core| (false, core));
        if thread.is_some_and(|t| t != flow.core.map_or(-1, i64::from)) {
            return;
        }
        let wanted = filter.is_none_or(|f| (cx.filter)(f, &ports, &flow.key, &flow.mask).unwrap_or(false));
        if wanted && flow_type_shown(&types, &flow) {
            let line = format_flow(&flow, &names, options.more, cx.now_ms);
            lines.entry(place).or_default().push(line);
        }
    });
    let mut out = String::new();
    for ((main, core), lines) in lines {
        if dpif.names_threads() && thread.is_none() {
            match main {
                true => out.push_str("flow-dump from the main thread:\n"),
                false => out.push_str(&format!("flow-dump from pmd on cpu core: {core}\n")),
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
        Ok(v) if digits.len() == 32 || rest.starts_with("0x") => {
            Ok((Some(Ufid(v)), rest[end..].trim_start_matches([',', ' '])))
        }
        _ => Err("parsing flow ufid (Invalid argument)".into()),
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
    let actions =
        parse_actions(actions, &names).map_err(|_| "parsing actions (Invalid argument)".to_owned())?;
    if !fit::is_whole(text, &key) {
        let e = DpifError::Invalid("the key lacks a part, or has one too many".into());
        return Err(with_errno("updating flow table", &e));
    }
    // No flow is for packets of any pass.
    mask.0.recirc_id = u32::MAX;
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

pub(super) fn add_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 3)?;
    put_flow(cx, options, &*dpif, args[0], args[1], false)
}

pub(super) fn mod_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 3)?;
    put_flow(cx, options, &*dpif, args[0], args[1], true)
}

pub(super) fn get_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, 2)?;
    let ufid = match split_ufid(args[0]) {
        Ok((Some(ufid), _)) => ufid,
        // Not a failure of the command, for some reason.
        Ok((None, _)) => {
            cx.complain("parsing flow ufid");
            return Ok(String::new());
        }
        Err(text) => {
            cx.complain(&text);
            return Ok(String::new());
        }
    };
    let flow = dpif
        .flow_get(&FlowDel { ufid: Some(ufid), key: None })
        .map_err(|e| with_errno("getting flow", &e))?;
    let named = options.names.unwrap_or(options.more);
    let names = if named { names_of(&*dpif) } else { PortNames::none() };
    Ok(format!("{}\n", format_flow(&flow, &names, options.more, cx.now_ms)))
}

fn delete_one(cx: &Context<'_>, options: &Options, dpif: &dyn Dpif, text: &str) -> Out {
    let (ufid, text) = split_ufid(text)?;
    let (key, _) = parse_key(text, &names_of(dpif))
        .map_err(|e| format!("syntax error at {} (Invalid argument)", failing_field(text, e.at)))?;
    let named = FlowDel { ufid, key: if ufid.is_some() { None } else { Some(&key) } };
    match dpif.flow_del(&named) {
        Ok(stats) if options.statistics => Ok(format!("{}\n", format_stats(&stats, cx.now_ms))),
        Ok(_) => Ok(String::new()),
        Err(e) => {
            let hint = if e.errno() == 2 { "\nPerhaps you need to specify a UFID?" } else { "" };
            Err(format!("{}{hint}", with_errno("deleting flow", &e)))
        }
    }
}

pub(super) fn del_flow(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
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

/// Does what each line of a file says: `[add|modify|delete] FLOW [ACTIONS]`, `#` begins a comment. What fails is reported, and the next
/// line has its turn; the command as a whole succeeds.
fn from_file(cx: &Context<'_>, options: &Options, dpif: &dyn Dpif, file: &str, default: Verb) -> Out {
    let text = match (cx.read_file)(file) {
        Ok(text) => text,
        Err(why) => {
            cx.complain(&format!("Opening file \"{file}\" failed ({why})"));
            return Ok(String::new());
        }
    };
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let verbs = [("add", Verb::Add), ("modify", Verb::Modify), ("delete", Verb::Delete)];
        let found = verbs.iter().find_map(|(word, verb)| {
            let rest = line.strip_prefix(word)?.strip_prefix([' ', '\t', ','])?;
            Some((rest.trim_start(), *verb))
        });
        let (flow, verb) = found.unwrap_or((line, default));
        let (key, actions) = match flow.split_once([' ', '\t']) {
            Some((key, actions)) => (key, Some(actions.trim())),
            None => (flow, None),
        };
        let done = match (verb, actions) {
            (Verb::Delete, None) => delete_one(cx, options, dpif, key),
            (Verb::Add | Verb::Modify, Some(actions)) => {
                put_flow(cx, options, dpif, key.trim_end_matches(','), actions, verb == Verb::Modify)
            }
            _ => Err(format!("Failed parsing line number {number}, skipped!")),
        };
        match done {
            Ok(text) => cx.say(&text),
            Err(text) => cx.complain(&text),
        }
    }
    Ok(String::new())
}

pub(super) fn add_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, ANY)?;
    from_file(cx, options, &*dpif, args[0], Verb::Add)
}

pub(super) fn mod_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
    let (dpif, args) = optional_dp(cx, args, ANY)?;
    from_file(cx, options, &*dpif, args[0], Verb::Modify)
}

pub(super) fn del_flows(cx: &Context<'_>, options: &Options, args: &[&str]) -> Out {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn stats_print_as_in_dumps() {
        let stats = FlowStats { packets: 3, bytes: 180, used_ms: 1000, tcp_flags: 0x12 };
        assert_eq!(format_stats(&stats, 2041), "packets:3, bytes:180, used:1.041s, flags:S.");
        assert_eq!(format_stats(&FlowStats::default(), 5), "packets:0, bytes:0, used:never");
    }

    #[test]
    fn kinds_of_flows_are_told_apart() {
        let plain = FlowInfo {
            key: Arc::default(),
            mask: Arc::default(),
            ufid: Ufid(1),
            actions: Arc::new([]),
            stats: FlowStats::default(),
            offloaded: false,
            dp_layer: "ovs",
            origin: Default::default(),
            core: None,
        };
        let shown = |types: &[&str]| flow_type_shown(types, &plain);
        assert!(shown(&["all"]) && shown(&["tc", "ovs"]) && shown(&["non-offloaded"]));
        assert!(!shown(&[]), "`type=` asks for none");
        assert!(!shown(&["tc"]) && !shown(&["offloaded", "dpdk"]));
    }

    #[test]
    fn a_ufid_is_split_off() {
        let (ufid, rest) = split_ufid("ufid:12272b11-9007-4f8b-8d4b-55ebc7abc5be, in_port(1)").unwrap();
        assert_eq!(ufid, Some(Ufid(0x12272b11_9007_4f8b_8d4b_55ebc7abc5be)));
        assert_eq!(rest, "in_port(1)");
        assert!(split_ufid("ufid:zz").is_err() && split_ufid("ufid:123").is_err());
    }

    #[test]
    fn errors_show_the_field() {
        assert_eq!(failing_field("a", 1), "a");
        assert_eq!(failing_field("in_port(1),eth(src=x),foo", 18), "eth(src=x),foo");
        assert_eq!(failing_field("in_port(1), foo", 15), "foo");
    }
}
