//! `ofproto/trace` and `ofproto/trace-packet-out`: arguments in, the story of a packet out.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use ib_dpif::text::{PortNames, format_actions, parse_key};
use ib_flow::compose::{Payload, compose};
use ib_flow::fields::Protocols;
use ib_flow::text::{CT_STATES, parse_exact_flow_with};
use ib_flow::{CtState, Flow, Match, Metadata, OdpPort, OfPort, PortMap};
use ib_openflow::action::{Action, Nat, NatFlags, NatRange};
use ib_openflow::action_check::{CheckParams, check_for};
use ib_openflow::action_parse::{OF11_UP, parse_actions};
use ib_openflow::error::OfError;
use ib_openflow::names::Names;
use ib_packet::{Be16, Packet};

use crate::appctl::port_names;
use crate::backer::Backer;
use crate::flow_mod::check_actions;
use crate::ofproto::N_TABLES;
use crate::switch::Switch;
use crate::text::port_map;
use crate::xcfg::XBridge;
use crate::xlate::trace::{RecircKind, Recirculation, Trace};
use crate::xlate::{self, Xin};

/// Most passes that one trace follows.
const MAX_PASSES: usize = 4096;

struct Request {
    backer: Arc<Backer>,
    bridge: Arc<XBridge>,
    flow: Flow,
    packet: Option<Packet>,
    ct_states: VecDeque<u8>,
    names: bool,
}

/// `ofproto/trace`.
pub(crate) fn trace(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let request = parse(switch, args)?;
    Ok(run(&request, None))
}

/// `ofproto/trace-packet-out`.
pub(crate) fn trace_packet_out(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let (actions, rest) = args.split_last().ok_or("Syntax error")?;
    let consistent = rest.iter().any(|a| matches!(*a, "-consistent" | "--consistent"));
    let rest: Vec<&str> =
        rest.iter().copied().filter(|a| !matches!(*a, "-consistent" | "--consistent")).collect();
    // Of two things that are wrong the actions are told of, which come last.
    let parsed = |ports| parse_actions(actions, Names { ports, tables: None }).map_err(|e| e.to_string());
    let request = parse(switch, &rest).map_err(|e| parsed(None).err().unwrap_or(e))?;
    let map = port_map(&request.bridge);
    let (list, _) = parsed(Some(&map))?;
    check_suits(&list, &request.flow, consistent)
        .and_then(|()| check_actions(&request.bridge.of, &list))
        .map_err(|e| format!("Bad actions: {}", e.name()))?;
    // Without any, the packet goes through the tables.
    Ok(run(&request, (!list.is_empty()).then_some(&list)))
}

/// Whether actions suit a packet; `consistent`: as strictly as OpenFlow 1.1 and later do.
fn check_suits(actions: &[Action], flow: &Flow, consistent: bool) -> Result<(), OfError> {
    let m = Match { flow: flow.clone(), mask: ib_flow::text::mask_for_packet(flow), ..Match::catch_all() };
    let n_tables = u8::try_from(N_TABLES).unwrap_or(255);
    let params = CheckParams { max_ports: OfPort::MAX, table: 0, n_tables };
    let via = if consistent { OF11_UP } else { Protocols::ANY };
    check_for(actions, &m, params, via)
}

fn parse_ct_state(s: &str) -> Result<u8, String> {
    let mut state = 0u8;
    for word in s.split([',', ' ']).filter(|w| !w.is_empty()) {
        let bit = CT_STATES
            .iter()
            .position(|n| *n == word)
            .ok_or_else(|| format!("{word}: unknown connection tracking state flag"))?;
        state |= 1 << bit;
    }
    check_ct_state(state).map_err(|e| {
        let set = CT_STATES.iter().enumerate().filter(|(i, _)| state & 1 << i != 0);
        let names: Vec<&str> = set.map(|(_, n)| *n).collect();
        format!("{}: invalid connection state: {e}", names.join("|"))
    })?;
    Ok(state)
}

/// Whether the flags go together, as ovs-fields(7) has it.
fn check_ct_state(state: u8) -> Result<(), &'static str> {
    let has = |bit: u8| state & bit != 0;
    if !has(CtState::TRK) {
        return if state == 0 { Ok(()) } else { Err("If \"trk\" is unset, no other flags are set") };
    }
    if has(CtState::INV) && state & !(CtState::TRK | CtState::INV) != 0 {
        return Err("when \"inv\" is set, only \"trk\" can be set in addition");
    }
    if has(CtState::NEW) && has(CtState::EST) {
        return Err("\"new\" and \"est\" are mutually exclusive");
    }
    if has(CtState::NEW) && has(CtState::RPL) {
        return Err("\"new\" and \"rpy\" are mutually exclusive");
    }
    Ok(())
}

/// A packet as hexadecimal digits, if that is what the argument is.
fn parse_packet(arg: &str) -> Option<Result<Packet, String>> {
    let digits: Vec<u8> = arg.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    if !digits.len().is_multiple_of(2) {
        return Some(Err("Trailing garbage in packet data".into()));
    }
    let nibble = |b: u8| char::from(b).to_digit(16).unwrap_or(0) as u8;
    let bytes: Vec<u8> = digits.chunks(2).map(|p| nibble(p[0]) << 4 | nibble(p[1])).collect();
    if bytes.len() < 14 {
        return Some(Err("Packet data too short for Ethernet".into()));
    }
    Some(Ok(Packet::from_frame(&bytes)))
}

fn parse(switch: &Switch, args: &[&str]) -> Result<Request, String> {
    let mut rest: Vec<&str> = Vec::new();
    let mut ct_states = VecDeque::new();
    let (mut generate, mut names) = (false, false);
    let mut payload: Option<Vec<u8>> = None;
    let mut payload_len = 64;
    let mut args = args.iter().copied();
    while let Some(arg) = args.next() {
        match arg {
            "-generate" | "--generate" => generate = true,
            "-names" | "--names" => names = true,
            "-no-names" | "--no-names" => names = false,
            "--ct-next" | "-ct-next" => {
                let value = args.next().ok_or("Missing argument for option --ct-next")?;
                ct_states.push_back(parse_ct_state(value)?);
            }
            "--l7" | "-l7" => {
                let value = args.next().ok_or("Missing argument for option --l7")?;
                let hex = value.as_bytes().chunks(2);
                let bytes: Option<Vec<u8>> = hex
                    .map(|p| std::str::from_utf8(p).ok().and_then(|s| u8::from_str_radix(s, 16).ok()))
                    .collect();
                payload = Some(bytes.ok_or("Trailing garbage in packet data")?);
            }
            "--l7-len" | "-l7-len" => {
                let value = args.next().ok_or("Missing argument for option --l7-len")?;
                // A text that is no number counts as zero, a negative one is too much.
                let n = value.parse().unwrap_or(if value.starts_with('-') { usize::MAX } else { 0 });
                if n > 64_000 {
                    return Err(format!("{value}: too much L7 data"));
                }
                payload_len = n;
            }
            other if other.starts_with('-') => return Err(format!("{other}: unknown option")),
            other => rest.push(other),
        }
    }
    let mut packet = None;
    if let Some(last) = rest.last()
        && rest.len() > 1
        && let Some(result) = parse_packet(last)
    {
        packet = Some(result?);
        rest.pop();
    } else if rest.len() == 3 {
        return Err("Trailing garbage in packet data".into());
    }
    if generate && packet.is_some() {
        return Err("Syntax error".into());
    }
    let flow_text = *rest.last().ok_or("Syntax error")?;
    let backer = match rest.len() {
        1 if switch.backers.len() == 1 => switch.backers.values().next(),
        1 => None,
        2 => {
            let kind = rest[0].strip_prefix("ovs-").unwrap_or(rest[0]);
            switch.backers.get(kind)
        }
        _ => return Err("too many arguments".into()),
    };
    let datapath_names = backer.map_or_else(PortNames::none, |b| port_names(b));
    let (backer, bridge, mut flow) = match parse_key(flow_text, &datapath_names) {
        Ok((key, _)) => {
            let backer = backer.ok_or("Cannot find the datapath")?;
            let cfg = backer.xcfg.load();
            let Some((bridge, port)) = cfg.port_of_key(&key) else {
                if crate::tunnel::should_receive(&key) {
                    return Err("no OpenFlow tunnel port for this packet".into());
                }
                return Err(format!("no OpenFlow port for datapath port {}", key.in_port));
            };
            let mut flow = key;
            flow.in_port = port.ofport.0.into();
            crate::tunnel::unpack_options(&bridge.of, &mut flow);
            let id = flow.recirc_id;
            if id != 0 && backer.recirc.find(id).is_none() {
                return Err(format!("no recirculation data for recirc_id {id:#x}"));
            }
            (Arc::clone(backer), Arc::clone(bridge), flow)
        }
        Err(e) => {
            if rest.len() != 2 {
                let what = ib_dpif::dpctl::failing_field(flow_text, e.at);
                return Err(format!("syntax error at {what} (or the bridge name was omitted)"));
            }
            let b = switch.bridge(rest[0]).ok_or_else(|| format!("{}: unknown bridge", rest[0]))?;
            let cfg = b.backer.xcfg.load();
            let bridge =
                cfg.bridges.get(&b.of.id).cloned().ok_or_else(|| format!("{}: unknown bridge", rest[0]))?;
            let map = port_map(&bridge);
            let options = bridge.of.tlv().map_or(0, |table| table.id());
            let flow = parse_exact_flow_with(flow_text, Some(&map), options)
                .map_err(|e| format!("Bad openflow flow syntax: {e}"))?;
            (Arc::clone(&b.backer), bridge, flow)
        }
    };
    if generate {
        let payload = payload.as_deref().map_or(Payload::Pattern(payload_len), Payload::Bytes);
        packet = Some(compose(&flow, payload));
    } else if let Some(p) = &packet {
        flow = reextract(p, &flow);
    }
    Ok(Request { backer, bridge, flow, packet, ct_states, names })
}

/// The key of `packet` with the metadata of `flow`.
fn reextract(packet: &Packet, flow: &Flow) -> Flow {
    let md = Metadata {
        tunnel: flow.tunnel.is_set().then(|| Box::new(flow.tunnel.clone())),
        skb_priority: flow.skb_priority,
        pkt_mark: flow.pkt_mark,
        dp_hash: flow.dp_hash,
        in_port: OdpPort(flow.in_port),
        recirc_id: flow.recirc_id,
        ct_state: flow.ct_state,
        ct_zone: flow.ct_zone,
        ct_mark: flow.ct_mark,
        ct_label: flow.ct_label,
        ct_orig: None,
        ct_moved: false,
    };
    let mut out = Flow::zeroed();
    ib_flow::extract(packet, &md, &mut out);
    out
}

/// The story of a packet, without effects.
pub(crate) fn story(backer: &Arc<Backer>, bridge: &Arc<XBridge>, flow: &Flow) -> String {
    let request = Request {
        backer: Arc::clone(backer),
        bridge: Arc::clone(bridge),
        flow: flow.clone(),
        packet: None,
        ct_states: VecDeque::new(),
        names: false,
    };
    run(&request, None)
}

fn run(request: &Request, actions: Option<&[Action]>) -> String {
    let mut out = String::new();
    let mut ct_states = request.ct_states.clone();
    let mut todo = pass(request, &request.flow, None, actions, &mut out);
    let mut passes = 0;
    while let Some(next) = todo.pop_front() {
        passes += 1;
        if passes > MAX_PASSES {
            break;
        }
        let mut flow = next.flow.clone();
        flow.recirc_id = next.entry.id;
        announce(&next, &mut flow, &mut ct_states, &mut out);
        todo.extend(pass(request, &flow, Some(&next), None, &mut out));
    }
    out
}

/// The heading of a further pass; gives the packet what the datapath would have given it.
fn announce(next: &Recirculation, flow: &mut Flow, ct_states: &mut VecDeque<u8>, out: &mut String) {
    let line = "=".repeat(79);
    let _ = write!(out, "\n\n{line}\nrecirc({:#x})", next.entry.id);
    if next.kind == RecircKind::Conntrack {
        match ct_states.pop_front() {
            None => {
                flow.ct_state = CtState::TRK | CtState::NEW;
                out.push_str(
                    " - resume conntrack with default ct_state=trk|new (use --ct-next to customize)",
                );
            }
            Some(state) => {
                flow.ct_state = state;
                let names: Vec<&str> = CT_STATES
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| state >> i & 1 != 0)
                    .map(|(_, n)| *n)
                    .collect();
                let _ = write!(out, " - resume conntrack with ct_state={}", names.join("|"));
            }
        }
    }
    out.push('\n');
    if let Some(nat) = &next.nat {
        out.push_str("Replacing src/dst IP/ports to simulate NAT:\n Initial flow: ");
        print_tuple(flow, nat, out);
        simulate_nat(nat, flow);
        out.push_str(" Modified flow: ");
        print_tuple(flow, nat, out);
    }
    let _ = write!(out, "{line}\n\n");
}

fn print_tuple(flow: &Flow, nat: &Nat, out: &mut String) {
    let (name, src, dst) = match nat.range {
        NatRange::None => {
            out.push('\n');
            return;
        }
        NatRange::V6(..) => {
            let a = |v: ib_packet::Be128| std::net::Ipv6Addr::from(v).to_string();
            ("ipv6", a(flow.ipv6_src), a(flow.ipv6_dst))
        }
        NatRange::V4(..) => {
            let a = |v: ib_packet::Be32| std::net::Ipv4Addr::from(v).to_string();
            ("nw", a(flow.nw_src), a(flow.nw_dst))
        }
    };
    let (from, to) = (flow.tp_src.get(), flow.tp_dst.get());
    let _ = writeln!(out, "{name}_src={src},tp_src={from},{name}_dst={dst},tp_dst={to}");
}

/// The first address and port of the range, as a datapath might choose.
fn simulate_nat(nat: &Nat, flow: &mut Flow) {
    let src = nat.flags & NatFlags::SRC != 0;
    match nat.range {
        NatRange::V4(a, _) if src => flow.nw_src = a,
        NatRange::V4(a, _) => flow.nw_dst = a,
        NatRange::V6(a, _) if src => flow.ipv6_src = a,
        NatRange::V6(a, _) => flow.ipv6_dst = a,
        NatRange::None => {}
    }
    if nat.ports.0 != 0 {
        let port = if src { &mut flow.tp_src } else { &mut flow.tp_dst };
        *port = Be16::new(nat.ports.0);
    }
}

/// One pass through the pipeline; returns those that follow.
fn pass(
    request: &Request,
    flow: &Flow,
    resumed: Option<&Recirculation>,
    actions: Option<&[Action]>,
    out: &mut String,
) -> VecDeque<Recirculation> {
    let map: Option<PortMap> = request.names.then(|| port_map(&request.bridge));
    let show = |f: &Flow| ib_flow::text::flow_to_string(f, map.as_ref());
    let mut trace = Trace::new();
    trace.names = request.names;
    let cfg = request.backer.xcfg.load();
    let bridge = match resumed.and_then(|r| cfg.bridges.get(&r.entry.state.bridge)) {
        Some(b) => b,
        None => &request.bridge,
    };
    let _ = writeln!(out, "Flow: {}", show(flow));
    let mut typed = flow.clone();
    if typed.dl_type.is_zero() && typed.packet_type.get() >> 16 == 1 {
        // As in a packet's own key: without Ethernet header its type is the Ethertype.
        typed.dl_type = Be16::new(typed.packet_type.get() as u16);
    }
    let flow = &typed;
    let mut xin = Xin::new(bridge, flow);
    xin.flow.actset_output = OfPort::UNSET;
    let initial = xin.flow.clone();
    xin.packet = request.packet.as_ref();
    xin.side_effects = request.packet.is_some();
    xin.actions = actions;
    xin.frozen = resumed
        .map(|r| Arc::clone(&r.entry))
        .or_else(|| (flow.recirc_id != 0).then(|| request.backer.recirc.find(flow.recirc_id)).flatten());
    xin.trace = Some(&mut trace);
    let xout = xlate::translate(&request.backer, xin);
    out.push_str(&trace.render());
    out.push_str("\nFinal flow: ");
    if xout.flow == initial {
        out.push_str("unchanged");
    } else {
        let mut last = xout.flow.clone();
        if last.actset_output == OfPort::UNSET {
            last.actset_output = flow.actset_output;
        }
        out.push_str(&show(&last));
    }
    let mut mega = Match { flow: flow.clone(), mask: xout.wc.clone(), ..Match::catch_all() };
    mega.normalize();
    let _ = write!(out, "\nMegaflow: {}", ib_flow::text::match_to_string(&mega, map.as_ref()));
    let names = if request.names { port_names(&request.backer) } else { PortNames::none() };
    let _ = write!(out, "\nDatapath actions: {}", format_actions(&xout.actions, &names));
    if let Some(error) = xout.error {
        let _ = write!(out, "\nTranslation failed ({}), packet is dropped.\n", error.text());
    } else if xout.slow != 0 {
        out.push_str("\nThis flow is handled by the userspace slow path because it:");
        for (bit, why) in SLOW_PATH {
            if xout.slow & bit != 0 {
                let _ = write!(out, "\n  - {why}.");
            }
        }
    }
    trace.recirculations.into()
}

/// Why a flow takes the slow path.
const SLOW_PATH: [(u32, &str); 7] = [
    (1 << 0, "Consists of CFM packets"),
    (1 << 1, "Consists of BFD packets"),
    (1 << 2, "Consists of LACP packets"),
    (1 << 3, "Consists of STP packets"),
    (1 << 4, "Consists of LLDP packets"),
    (1 << 5, "Uses action(s) not supported by datapath"),
    (1 << 6, "Datapath can't match specifically enough"),
];
