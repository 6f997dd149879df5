//! Commands that talk to nobody: they convert between texts, bytes and messages.

use std::fs::File;

use ib_base::vlog::module::{OFP_ERRORS, PCAP};
use ib_base::{vlog_err, vlog_warn};
use ib_flow::fields::Protocols;
use ib_flow::text::normalize::normalize_match;
use ib_flow::wire::nxm::{self, DecodeOptions};
use ib_flow::wire::nxm_text;
use ib_flow::{Flow, Metadata};
use ib_openflow::action_decode::{decode_actions, decode_instructions};
use ib_openflow::action_encode::{encode_actions as put_actions, encode_instructions as put_instructions};
use ib_openflow::action_format::actions_text;
use ib_openflow::encode::{EncodeOptions, encode, encode_error, encode_with};
use ib_openflow::error::OfError;
use ib_openflow::flow_text::*;
use ib_openflow::message::*;
use ib_openflow::names::NO_NAMES;
use ib_openflow::print::{message_text, packet_text};
use ib_openflow::wire::Buf;
use ib_packet::pcap::PcapReader;

use super::flows::{WaitingMatch, WaitingMod, flow_mod_message, lines, parse_flow_file, read_file};
use super::{Ctl, Fail, Result};
use crate::io::Io;

/// Reads hexadecimal digits, spaces between them as one likes; `None` if something else is there.
pub(super) fn hex_bytes(s: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = s.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
}

/// Bytes in hexadecimal. Unlike in logs, no dash follows the eighth byte of a line that ends there.
fn dump(bytes: &[u8]) -> String {
    ib_openflow::print::hex_dump(bytes, false).replace("-\n", "\n")
}

/// Prints flow_mods as they would be sent: what protocols can carry them, which is chosen, and the messages.
fn show_flow_mods(ctl: &mut Ctl, fms: Vec<WaitingMod>, usable: Protocols, io: &mut Io<'_>) -> Result<()> {
    let allowed = usable.and(ctl.options.protocols.or(if ctl.options.protocols.0 & 0x0f != 0 {
        Protocols(0x0f).and(ctl.options.protocols)
    } else {
        Protocols::NONE
    }));
    io.out(format!("usable protocols: {}\n", protocols_text(usable)));
    if allowed == Protocols::NONE {
        return Err("no usable protocol".into());
    }
    let chosen = Protocols(1 << allowed.0.trailing_zeros());
    let version = version_of(chosen).unwrap_or(Version::V10);
    io.out(format!("chosen protocol: {}\n", protocol_name(chosen)));
    let options = EncodeOptions { nxm: chosen.0 & 0x0c != 0, table_id: chosen.0 & 0x0a != 0 };
    for fm in fms {
        let xid = ctl.next_xid();
        let bytes = encode_with(&flow_mod_message(fm), version, xid, options);
        io.out(message_text(&bytes, &ctl.print_options(NO_NAMES, 0)));
    }
    Ok(())
}

pub(super) fn parse_flow(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let (fm, usable) = parse_flow_mod(&args[0], Purpose::Mod(FlowModCommand::Add), NO_NAMES)?;
    // What the match cannot mean is told of; it is for the encoding to leave it out.
    normalize_match(&mut fm.match_.clone(), true);
    show_flow_mods(ctl, vec![fm.with_match(WaitingMatch::from)], usable, io)
}

pub(super) fn parse_flows(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let text = read_file(&args[0], io)?;
    let (fms, usable) = parse_flow_file(&args[0], &text, Purpose::Mod(FlowModCommand::Add), NO_NAMES)?;
    show_flow_mods(ctl, fms, usable, io)
}

pub(super) fn parse_group(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let (gm, usable) =
        ib_openflow::group_text::parse_group_mod(&args[0], Some(GroupModCommand::Add), NO_NAMES)?;
    io.out(format!("usable protocols: {}\n", protocols_text(usable)));
    let allowed = usable.and(ctl.options.protocols);
    if allowed == Protocols::NONE {
        return Err("no usable protocol".into());
    }
    let version = version_of(Protocols(1 << allowed.0.trailing_zeros())).unwrap_or(Version::V10);
    io.out(format!("chosen version: {}\n", version.name()));
    let xid = ctl.next_xid();
    let bytes = encode(&Message::GroupMod(gm), version, xid);
    io.out(message_text(&bytes, &ctl.print_options(NO_NAMES, 0)));
    Ok(())
}

fn version_arg(s: &str) -> Result<Version> {
    Version::from_name(s).ok_or_else(|| Fail::Msg(format!("{s}: not a valid OpenFlow version")))
}

pub(super) fn stdin_lines(io: &mut Io<'_>) -> Vec<String> {
    let mut bytes = Vec::new();
    // What cannot be read is not there.
    let _ = io.stdin.read_to_end(&mut bytes);
    lines(&String::from_utf8_lossy(&bytes)).into_iter().map(|(_, l)| l).collect()
}

pub(super) fn put_differences(out: &mut String, prefix: &str, input: &[u8], output: &[u8]) {
    use std::fmt::Write;
    for i in 0..input.len().max(output.len()) {
        let _ = match (input.get(i), output.get(i)) {
            (Some(a), Some(b)) if a == b => Ok(()),
            (Some(a), Some(b)) => writeln!(out, "{prefix}{i:>2}: {a:02x} -> {b:02x}"),
            (Some(a), None) => writeln!(out, "{prefix}{i:>2}: {a:02x} -> (none)"),
            (None, Some(b)) => writeln!(out, "{prefix}{i:>2}: (none) -> {b:02x}"),
            (None, None) => Ok(()),
        };
    }
}

fn parse_wire(args: &[String], io: &mut Io<'_>, instructions: bool) -> Result<()> {
    let version = version_arg(&args[0])?;
    for line in stdin_lines(io) {
        let bytes = hex_bytes(&line).ok_or("Trailing garbage in hex data")?;
        let decoded =
            if instructions { decode_instructions(&bytes, version) } else { decode_actions(&bytes, version) };
        let decoded = decoded.and_then(|list| {
            use ib_openflow::action_parse::Outer;
            let outer = if instructions { Outer::Flow } else { Outer::Actions };
            ib_openflow::action_check::verify(&list, outer).map_err(|(e, _)| e)?;
            Ok(list)
        });
        match decoded {
            Err(e) => {
                let what = if instructions { "instructions" } else { "actions" };
                io.out(format!("bad {} {what}: {e}\n\n", args[0]));
            }
            Ok(list) => {
                let mut out = format!("actions={}\n", actions_text(&list, &NO_NAMES));
                let mut b = Buf::default();
                if instructions {
                    put_instructions(&mut b, &list, version);
                } else {
                    put_actions(&mut b, &list, version);
                }
                put_differences(&mut out, "", &bytes, &b.0);
                out.push('\n');
                io.out(out);
            }
        }
    }
    Ok(())
}

pub(super) fn parse_actions(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    parse_wire(args, io, false)
}

pub(super) fn parse_instructions(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    parse_wire(args, io, true)
}

fn parse_entries(ctl: &mut Ctl, version: u8, io: &mut Io<'_>) -> Result<()> {
    for line in stdin_lines(io) {
        let bytes = nxm_text::from_text(&line)?;
        let options = DecodeOptions { strict: ctl.options.strict, tlv_table: 0 };
        let mut cookie = None;
        match nxm::decode(&bytes, options, Some(&mut cookie)) {
            Ok(m) => {
                let mut out = Vec::new();
                nxm::encode(&m, version, cookie, &mut out);
                io.out(format!("{}\n", nxm_text::to_text(&out)));
            }
            Err(e) => {
                let e = ib_openflow::match_wire::nxm_error(e);
                io.out(format!("nx_pull_match() returned error {e}\n"));
            }
        }
    }
    Ok(())
}

pub(super) fn parse_nxm(ctl: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    parse_entries(ctl, 1, io)
}

pub(super) fn parse_oxm(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let version = Version::from_name(&args[0])
        .filter(|v| *v >= Version::V12)
        .ok_or_else(|| format!("{}: not a valid version for OXM", args[0]))?;
    parse_entries(ctl, version.to_wire(), io)
}

pub(super) fn parse_pcap(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    for name in args {
        // What is wrong is the exit code here, as the system numbers it; the end of a file has no number.
        let frames = read_pcap(name).map_err(|e| Fail::Code(e.code))?;
        for frame in frames {
            let mut flow = Flow::zeroed();
            let metadata = Metadata { in_port: ib_flow::OdpPort::NONE, ..Metadata::default() };
            ib_flow::extract::extract_bytes(&frame, None, &metadata, &mut flow);
            io.out(format!("{}\n", ib_flow::text::flow_to_string(&flow, None)));
        }
    }
    Ok(())
}

/// Why a capture cannot be read.
struct BadPcap {
    text: String,
    code: i32,
}

fn read_pcap(name: &str) -> std::result::Result<Vec<Vec<u8>>, BadPcap> {
    const EPROTO: i32 = 71;
    let code = |e: &std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => 255,
        std::io::ErrorKind::InvalidData => EPROTO,
        _ => e.raw_os_error().unwrap_or(1),
    };
    let text = |e: &std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "End of file".to_string(),
        std::io::ErrorKind::InvalidData => "Protocol error".to_string(),
        _ => ib_base::errno::strerror(e),
    };
    let open =
        |e: &std::io::Error| BadPcap { text: format!("{name}: open failed ({})", text(e)), code: code(e) };
    let file = File::open(name).map_err(|e| {
        vlog_warn!(PCAP, "{name}: failed to open pcap file for reading ({})", text(&e));
        open(&e)
    })?;
    let mut reader = PcapReader::new(file).map_err(|e| {
        match e.kind() {
            std::io::ErrorKind::InvalidData => vlog_warn!(PCAP, "{e}"),
            _ => vlog_warn!(PCAP, "failed to read pcap header: {}", text(&e)),
        }
        open(&e)
    })?;
    let mut out = Vec::new();
    loop {
        match reader.read() {
            Ok(Some((_, frame))) => out.push(frame),
            Ok(None) => return Ok(out),
            // A capture that was cut off is good up to there.
            Err(e) => {
                vlog_warn!(PCAP, "failed to read pcap packet: {}", text(&e));
                return Ok(out);
            }
        }
    }
}

pub(super) fn print_error(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let error =
        OfError::from_name(&args[0]).ok_or_else(|| Fail::Msg(format!("unknown error \"{}\"", args[0])))?;
    for v in Version::ALL {
        if let Some((vendor, kind, code)) = error.code(v) {
            let vendor = if vendor == 0 { "0".to_string() } else { format!("{vendor:#x}") };
            io.out(format!("OpenFlow {}: vendor {vendor}, type {kind}, code {code}\n", v.number()));
        }
    }
    Ok(())
}

pub(super) fn encode_error_reply(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let error =
        OfError::from_name(&args[0]).ok_or_else(|| Fail::Msg(format!("unknown error \"{}\"", args[0])))?;
    let request = hex_bytes(&args[1]).ok_or("Trailing garbage in hex data")?;
    if request.len() < 8 {
        return Err("Request too short".into());
    }
    let claimed = usize::from(u16::from_be_bytes([request[2], request[3]]));
    if claimed != request.len() {
        return Err("Request size inconsistent".into());
    }
    let version = Version::from_wire(request[0]).unwrap_or_else(|| {
        let n = request[0];
        vlog_err!(OFP_ERRORS, "cannot encode error for unknown OpenFlow version 0x{n:02x}");
        Version::V10
    });
    io.out(dump(&encode_error(error, version, &request)));
    Ok(())
}

pub(super) fn ofp_print(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let verbosity = args.get(1).and_then(|v| v.parse().ok()).unwrap_or(2);
    let bytes = hex_bytes(&args[0]).ok_or("trailing garbage following hex bytes")?;
    let options = ib_openflow::print::PrintOptions { verbosity, ..Default::default() };
    io.out(message_text(&bytes, &options));
    Ok(())
}

/// Prints the messages of a stream of bytes.
fn print_stream(ctl: &Ctl, name: &str, bytes: &[u8], io: &mut Io<'_>) -> Result<()> {
    use ib_openflow::raw::{Frame, next_message};
    let mut left = bytes;
    while !left.is_empty() {
        match next_message(left) {
            Frame::Message(n) => {
                io.out(message_text(&left[..n], &ctl.print_options(NO_NAMES, 2)));
                left = &left[n..];
            }
            Frame::Bad => return Err(format!("{name}: length is too short for ofp_header").into()),
            Frame::NeedMore => return Err(format!("{name}: unexpected end of file mid-message").into()),
        }
    }
    Ok(())
}

pub(super) fn ofp_parse(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    if args[0] == "-" {
        io.stdin.read_to_end(&mut bytes).map_err(|e| Fail::Msg(format!("-: {e}")))?;
    } else {
        bytes = std::fs::read(&args[0])
            .map_err(|e| Fail::Msg(format!("{}: open ({})", args[0], ib_base::errno::strerror(&e))))?;
    }
    print_stream(ctl, &args[0], &bytes, io)
}

/// Prints OpenFlow found in TCP segments of a capture. Segments are taken in order of capture, streams by their ports.
pub(super) fn ofp_parse_pcap(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let ports: Vec<u16> = match &args[1..] {
        [] => vec![6633, 6653],
        list => list.iter().filter_map(|p| p.parse().ok()).collect(),
    };
    let mut streams: std::collections::HashMap<(u32, u32, u16, u16), Vec<u8>> = Default::default();
    for frame in read_pcap(&args[0]).map_err(|e| Fail::Msg(e.text))? {
        let mut flow = Flow::zeroed();
        let layers = ib_flow::extract::extract_bytes(&frame, None, &Metadata::default(), &mut flow);
        let (src, dst) = (flow.tp_src.get(), flow.tp_dst.get());
        if flow.nw_proto != 6 || !(ports.contains(&src) || ports.contains(&dst)) {
            continue;
        }
        let Some(l4) = layers.l4.map(usize::from) else { continue };
        let Some(data_ofs) = frame.get(l4 + 12).map(|b| usize::from(b >> 4) * 4) else { continue };
        let payload = frame.get(l4 + data_ofs..).unwrap_or(&[]);
        let key = (flow.nw_src.get(), flow.nw_dst.get(), src, dst);
        let s = streams.entry(key).or_default();
        s.extend_from_slice(payload);
        while let ib_openflow::raw::Frame::Message(n) = ib_openflow::raw::next_message(s) {
            let ip = |a: u32| std::net::Ipv4Addr::from(a);
            io.out(format!("{}.{} > {}.{}:\n", ip(key.0), src, ip(key.1), dst));
            io.out(message_text(&s[..n], &ctl.print_options(NO_NAMES, 1)));
            s.drain(..n);
        }
    }
    Ok(())
}

pub(super) fn encode_hello(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let bits = match args[0].strip_prefix("0x") {
        Some(h) => u32::from_str_radix(h, 16),
        None => args[0].parse(),
    }
    .map_err(|_| Fail::Msg(format!("{}: bad version bitmap", args[0])))?;
    let versions = Versions(bits);
    let mut bytes = encode(&Message::Hello(versions), versions.highest().unwrap_or(Version::V10), 1);
    // The header says the highest of the versions, known or not; a bitmap is for sets with gaps.
    let highest = 31 - (bits | 1).leading_zeros();
    bytes[0] = highest as u8;
    if bits == ((2u64 << highest) - 2) as u32 {
        bytes.truncate(8);
        bytes[3] = 8;
    }
    io.out(dump(&bytes));
    io.out(message_text(&bytes, &ib_openflow::print::PrintOptions::default()));
    Ok(())
}

pub(super) fn parse_key_value(_: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    for a in args {
        let parts: Vec<String> = ib_openflow::key_values(a)
            .map(|(k, v)| if v.is_empty() { k.to_string() } else { format!("{k}={v}") })
            .collect();
        io.out(format!("{}\n", parts.join(", ")));
    }
    Ok(())
}

pub(super) fn compose_packet(ctl: &mut Ctl, args: &[String], io: &mut Io<'_>) -> Result<()> {
    let flow = ib_flow::text::parse::parse_exact_flow(&args[0], None)?;
    let bytes = match args.get(1) {
        Some(s) => Some(hex_bytes(s).ok_or_else(|| format!("{s}: trailing garbage in packet data"))?),
        None => None,
    };
    let payload = match &bytes {
        Some(b) => ib_flow::compose::Payload::Bytes(b),
        None => ib_flow::compose::Payload::default(),
    };
    let packet = ib_flow::compose::compose_with(&flow, payload, ctl.options.bad_csum);
    // What a packet cannot hold is said, and the packet is shown nevertheless.
    let mut extracted = Flow::zeroed();
    ib_flow::extract::extract_bytes(packet.data(), None, &Metadata::default(), &mut extracted);
    extracted.in_port = ib_flow::OfPort::NONE.0.into();
    let differ = extracted != flow;
    if differ {
        let text = |f| ib_flow::text::matching::flow_to_string(f, None);
        io.err(format!(
            "specified and extracted flows differ:\nspecified: {}\nextracted: {}",
            text(&flow),
            text(&extracted)
        ));
    }
    if ctl.options.pcap {
        let now = ib_base::time::Clock::new().wall_ms();
        let mut capture =
            ib_packet::pcap::PcapWriter::new(&mut *io.stdout).map_err(|e| Fail::Msg(e.to_string()))?;
        let time = std::time::Duration::from_millis(now);
        return capture.write(time, packet.data()).map_err(|e| Fail::Msg(e.to_string()));
    }
    if ctl.options.bare {
        let hex: String = packet.data().iter().map(|b| format!("{b:02x}")).collect();
        io.out(format!("{hex}\n"));
    } else {
        io.out(dump(packet.data()));
    }
    if differ { Err(Fail::Code(1)) } else { Ok(()) }
}

pub(super) fn parse_packet(_: &mut Ctl, _: &[String], io: &mut Io<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    io.stdin.read_to_end(&mut bytes).map_err(|e| Fail::Msg(format!("{e}")))?;
    io.out(packet_text(&bytes, 0));
    Ok(())
}
