//! Actions: `push_vlan(vid=10,pcp=0),2,set(ipv4(ttl=63)),3`; an empty list is `drop`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ib_flow::{Flow, OdpPort, TunFlags, Tunnel, Vlan};
use ib_packet::{Be16, Be32, Be128};

use super::key::{
    be16_pair, format_nsh, format_tunnel, ipv4_pair, ipv6_pair, mac_pair, nsh_field, num_pair, pairs,
    tunnel_field, u8_pair,
};
use super::{ParseError, PortNames, Res, Scan, TUN_FLAGS, UserCookie, hex};
use crate::action::{
    Action, ArpFields, CtAction, EthAddrs, HashAlg, IcmpFields, Ipv4Fields, Ipv6Fields, L4Ports, NatAction,
    NatRange, NdFields, SetField, UserspaceAction,
};

/// How deep actions may nest in text (`clone(clone(...))`).
const MAX_DEPTH: usize = 16;

/// Prints actions as `dpctl/dump-flows` does.
pub fn format_actions(actions: &[Action], names: &PortNames) -> String {
    let mut out = String::new();
    format_list(&mut out, actions, names);
    out
}

fn format_list(out: &mut String, actions: &[Action], names: &PortNames) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    for (i, action) in actions.iter().enumerate() {
        if i != 0 {
            out.push(',');
        }
        format_one(out, action, names);
    }
}

fn format_one(out: &mut String, action: &Action, names: &PortNames) {
    // Writing to a String can't fail.
    let _ = match action {
        Action::Output(port) => write!(out, "{}", names.show(*port)),
        Action::Userspace(u) => {
            format_userspace(out, u, names);
            Ok(())
        }
        Action::Set(field) => {
            out.push_str("set(");
            format_set(out, field);
            out.push(')');
            Ok(())
        }
        Action::PushVlan { tpid, tci } => {
            out.push_str("push_vlan(");
            if tpid.get() != 0x8100 {
                let _ = write!(out, "tpid=0x{:04x},", tpid.get());
            }
            let v = Vlan { tpid: *tpid, tci: *tci };
            let _ = write!(out, "vid={},pcp={}", v.vid(), v.pcp());
            write!(out, "{})", if v.is_present() { "" } else { ",cfi=0" })
        }
        Action::PopVlan => write!(out, "pop_vlan"),
        Action::Sample { probability, actions } => {
            let percent = 100.0 * f64::from(*probability) / f64::from(u32::MAX);
            let _ = write!(out, "sample(sample={percent:.1}%,actions(");
            format_list(out, actions, names);
            write!(out, "))")
        }
        Action::LbOutput(id) => write!(out, "lb_output({id})"),
        Action::Recirc(id) => write!(out, "recirc({})", hex((*id).into())),
        Action::Hash { alg, basis } => {
            let name = match alg {
                HashAlg::L4 => "l4",
                HashAlg::SymL4 => "sym_l4",
            };
            write!(out, "hash({name}({basis}))")
        }
        Action::PushMpls { lse, ethertype } => {
            let _ = write!(out, "push_mpls(");
            format_lse(out, *lse);
            write!(out, ",eth_type=0x{:x})", ethertype.get())
        }
        Action::PopMpls(ethertype) => write!(out, "pop_mpls(eth_type=0x{:x})", ethertype.get()),
        Action::Trunc(len) => write!(out, "trunc({len})"),
        Action::PushEth { dst, src } => write!(out, "push_eth(src={src},dst={dst})"),
        Action::PopEth => write!(out, "pop_eth"),
        Action::PushNsh { nsh, md2 } => {
            let (path, c) = (nsh.path_hdr.get(), nsh.context.map(ib_packet::Be32::get));
            let _ = write!(
                out,
                "push_nsh(flags={},ttl={},mdtype={},np={},spi={:#x},si={}",
                nsh.flags,
                nsh.ttl,
                nsh.mdtype,
                nsh.np,
                path >> 8,
                path & 0xff
            );
            if nsh.mdtype == 1 {
                let _ = write!(out, ",c1={:#x},c2={:#x},c3={:#x},c4={:#x}", c[0], c[1], c[2], c[3]);
            } else if nsh.mdtype == 2 && !md2.is_empty() {
                let bytes: String = md2.iter().map(|b| format!("{b:02x}")).collect();
                let _ = write!(out, ",md2=0x{bytes}");
            }
            write!(out, ")")
        }
        Action::PopNsh => write!(out, "pop_nsh()"),
        Action::AddMpls { lse, ethertype } => {
            let _ = write!(out, "add_mpls(");
            format_lse(out, *lse);
            write!(out, ",eth_type=0x{:x})", ethertype.get())
        }
        Action::Ct(ct) => {
            format_ct(out, ct);
            Ok(())
        }
        Action::CtClear => write!(out, "ct_clear"),
        Action::Meter(id) => write!(out, "meter({id})"),
        Action::Clone(actions) => {
            out.push_str("clone(");
            format_list(out, actions, names);
            write!(out, ")")
        }
        Action::CheckPktLen { len, greater, less_or_equal } => {
            let _ = write!(out, "check_pkt_len(size={len},gt(");
            format_list(out, greater, names);
            out.push_str("),le(");
            format_list(out, less_or_equal, names);
            write!(out, "))")
        }
        Action::DecTtl { exception } => {
            out.push_str("dec_ttl(le_1(");
            format_list(out, exception, names);
            write!(out, "))")
        }
        Action::Drop(_) => write!(out, "drop"),
        Action::TnlPush { tnl_port, out_port, tnl_type, header } => {
            let port = names.show(*tnl_port);
            let _ = write!(out, "tnl_push(tnl_port({port}),header(size={},type={tnl_type},", header.len());
            super::tnl_push::format(out, *tnl_type, header);
            write!(out, "),out_port({}))", names.show(*out_port))
        }
        Action::TnlPop(port) => write!(out, "tnl_pop({})", names.show(*port)),
        Action::Psample { group, cookie } => {
            let _ = write!(out, "psample(group={group}");
            if !cookie.is_empty() {
                let bytes: String = cookie.iter().map(|b| format!("{b:02x}")).collect();
                let _ = write!(out, ",cookie=0x{bytes}");
            }
            write!(out, ")")
        }
    };
}

fn format_lse(out: &mut String, lse: Be32) {
    let v = lse.get();
    let _ = write!(out, "label={},tc={},ttl={},bos={}", v >> 12, v >> 9 & 7, v & 0xff, v >> 8 & 1);
}

fn format_userspace(out: &mut String, u: &UserspaceAction, names: &PortNames) {
    let _ = write!(out, "userspace(pid={}", u.pid);
    if !u.userdata.is_empty() {
        match UserCookie::from_bytes(&u.userdata) {
            Some(cookie) => cookie.format(out),
            None => {
                let bytes: String = u.userdata.iter().map(|b| format!("{b:02x}")).collect();
                let _ = write!(out, ",userdata({bytes})");
            }
        }
    }
    if u.actions {
        out.push_str(",actions");
    }
    if let Some(port) = u.egress_tun_out_port {
        let _ = write!(out, ",tunnel_out_port={}", names.show(port));
    }
    out.push(')');
}

/// Joins the parts of a masked set: those whose mask is zero are left out.
struct Parts<'a> {
    out: &'a mut String,
    any: bool,
}

impl Parts<'_> {
    fn put(&mut self, name: &str, zero: bool, exact: bool, value: String, mask: String) {
        if zero {
            return;
        }
        let sep = if self.any { "," } else { "" };
        self.any = true;
        let _ = write!(self.out, "{sep}{name}={value}");
        if !exact {
            let _ = write!(self.out, "/{mask}");
        }
    }
    fn mac(&mut self, name: &str, v: ib_packet::Mac, m: ib_packet::Mac) {
        self.put(name, m.is_zero(), m.is_broadcast(), v.to_string(), m.to_string());
    }
    fn ipv4(&mut self, name: &str, v: Be32, m: Be32) {
        let text = |a: Be32| Ipv4Addr::from(a).to_string();
        self.put(name, m.is_zero(), m == Be32::MAX, text(v), text(m));
    }
    fn ipv6(&mut self, name: &str, v: Be128, m: Be128) {
        let text = |a: Be128| Ipv6Addr::from(a).to_string();
        self.put(name, m.is_zero(), m == Be128::MAX, text(v), text(m));
    }
    fn dec(&mut self, name: &str, v: u32, m: u32, full: u32) {
        self.put(name, m == 0, m == full, v.to_string(), hex(m.into()));
    }
    fn hexa(&mut self, name: &str, v: u32, m: u32, full: u32) {
        self.put(name, m == 0, m == full, hex(v.into()), hex(m.into()));
    }
}

fn format_set(out: &mut String, field: &SetField) {
    let open = |out: &mut String, name: &str| {
        let _ = write!(out, "{name}(");
    };
    let single = |out: &mut String, name: &str, v: u32, m: u32| {
        let _ = write!(out, "{name}({}", hex(v.into()));
        if m != u32::MAX {
            let _ = write!(out, "/{}", hex(m.into()));
        }
    };
    let ports = |out: &mut String, name: &str, v: &L4Ports, m: &L4Ports| {
        let _ = write!(out, "{name}(");
        let mut p = Parts { out, any: false };
        p.dec("src", v.src.get().into(), m.src.get().into(), 0xffff);
        p.dec("dst", v.dst.get().into(), m.dst.get().into(), 0xffff);
    };
    let icmp = |out: &mut String, name: &str, v: &IcmpFields, m: &IcmpFields| {
        let _ = write!(out, "{name}(");
        let mut p = Parts { out, any: false };
        p.dec("type", v.kind.into(), m.kind.into(), 0xff);
        p.dec("code", v.code.into(), m.code.into(), 0xff);
    };
    match field {
        SetField::Priority(v, m) => single(out, "skb_priority", *v, *m),
        SetField::Mark(v, m) => single(out, "skb_mark", *v, *m),
        SetField::Ethernet(v, m) => {
            open(out, "eth");
            let mut p = Parts { out, any: false };
            p.mac("src", v.src, m.src);
            p.mac("dst", v.dst, m.dst);
        }
        SetField::Ipv4(v, m) => {
            open(out, "ipv4");
            let mut p = Parts { out, any: false };
            p.ipv4("src", v.src, m.src);
            p.ipv4("dst", v.dst, m.dst);
            p.dec("proto", v.proto.into(), m.proto.into(), 0xff);
            p.hexa("tos", v.tos.into(), m.tos.into(), 0xff);
            p.dec("ttl", v.ttl.into(), m.ttl.into(), 0xff);
        }
        SetField::Ipv6(v, m) => {
            open(out, "ipv6");
            let mut p = Parts { out, any: false };
            p.ipv6("src", v.src, m.src);
            p.ipv6("dst", v.dst, m.dst);
            p.hexa("label", v.label.get(), m.label.get() & 0xf_ffff, 0xf_ffff);
            p.dec("proto", v.proto.into(), m.proto.into(), 0xff);
            p.hexa("tclass", v.tclass.into(), m.tclass.into(), 0xff);
            p.dec("hlimit", v.hlimit.into(), m.hlimit.into(), 0xff);
        }
        SetField::Tcp(v, m) => ports(out, "tcp", v, m),
        SetField::Udp(v, m) => ports(out, "udp", v, m),
        SetField::Sctp(v, m) => ports(out, "sctp", v, m),
        SetField::Icmp(v, m) => icmp(out, "icmp", v, m),
        SetField::Icmpv6(v, m) => icmp(out, "icmpv6", v, m),
        SetField::Arp(v, m) => {
            open(out, "arp");
            let mut p = Parts { out, any: false };
            p.ipv4("sip", v.sip, m.sip);
            p.ipv4("tip", v.tip, m.tip);
            p.dec("op", v.op.get().into(), m.op.get().into(), 0xffff);
            p.mac("sha", v.sha, m.sha);
            p.mac("tha", v.tha, m.tha);
        }
        SetField::Nd(v, m) => {
            open(out, "nd");
            let mut p = Parts { out, any: false };
            p.ipv6("target", v.target, m.target);
            p.mac("sll", v.sll, m.sll);
            p.mac("tll", v.tll, m.tll);
        }
        SetField::Mpls(v, m) => {
            open(out, "mpls");
            let (v, m) = (v.get(), m.get());
            let mut p = Parts { out, any: false };
            p.dec("label", v >> 12, m >> 12, 0xf_ffff);
            p.dec("tc", v >> 9 & 7, m >> 9 & 7, 7);
            p.dec("ttl", v & 0xff, m & 0xff, 0xff);
            p.dec("bos", v >> 8 & 1, m >> 8 & 1, 1);
        }
        SetField::Tunnel(t) => {
            open(out, "tunnel");
            format_tunnel(out, t, &set_tunnel_mask(t), false);
        }
        SetField::Nsh(v, m) => {
            let mut text = String::new();
            format_nsh(&mut text, v, m, false);
            out.push_str(text.strip_suffix(')').unwrap_or("nsh("));
        }
    }
    out.push(')');
}

/// Which fields of a tunnel to set are worth printing: those that are there.
fn set_tunnel_mask(t: &Tunnel) -> Tunnel {
    let mut m = Flow::zeroed().tunnel;
    let flag_bits: u32 = TUN_FLAGS.iter().map(|(b, _)| b).sum();
    m.tun_id = if t.flags & TunFlags::KEY != 0 || !t.tun_id.is_zero() { !m.tun_id } else { m.tun_id };
    m.ip_src = if t.ip_src.is_zero() { m.ip_src } else { Be32::MAX };
    m.ip_dst = Be32::MAX;
    m.ipv6_src = if t.ipv6_src.is_zero() { m.ipv6_src } else { Be128::MAX };
    m.ipv6_dst = Be128::MAX;
    m.ip_tos = if t.ip_tos == 0 { 0 } else { 0xff };
    m.ip_ttl = if t.ip_ttl == 0 { 0 } else { 0xff };
    m.tp_src = Be16::MAX;
    m.tp_dst = Be16::MAX;
    m.flags = flag_bits as u16;
    m.gbp_flags = u8::MAX;
    (m.erspan_ver, m.erspan_idx, m.erspan_dir, m.erspan_hwid) = (u8::MAX, u32::MAX, u8::MAX, u8::MAX);
    (m.gtpu_flags, m.gtpu_msgtype) = (u8::MAX, u8::MAX);
    m.opts = [u8::MAX; 256];
    m
}

fn format_ct(out: &mut String, ct: &CtAction) {
    let mut parts: Vec<String> = Vec::new();
    if ct.commit {
        parts.push(if ct.force { "force_commit".into() } else { "commit".into() });
    }
    if ct.zone != 0 {
        parts.push(format!("zone={}", ct.zone));
    }
    if let Some((v, m)) = ct.mark {
        parts.push(format!("mark={}/{}", hex(v.into()), hex(m.into())));
    }
    if let Some((v, m)) = ct.label {
        // Unlike a mark's, a label's mask is left out where it is whole.
        let mask = if m == Be128::MAX { String::new() } else { format!("/{}", hex(m.get())) };
        parts.push(format!("label={}{mask}", hex(v.get())));
    }
    if let Some(helper) = &ct.helper {
        parts.push(format!("helper={helper}"));
    }
    if let Some(policy) = &ct.timeout {
        parts.push(format!("timeout={policy}"));
    }
    if let Some(nat) = &ct.nat {
        parts.push(format_nat(nat));
    }
    out.push_str("ct");
    if !parts.is_empty() {
        let _ = write!(out, "({})", parts.join(","));
    }
}

fn format_nat(nat: &NatAction) -> String {
    let (dir, range) = match nat {
        NatAction::Existing => return "nat".into(),
        NatAction::Src(r) => ("src", r),
        NatAction::Dst(r) => ("dst", r),
    };
    let mut text = format!("nat({dir}");
    if let Some((lo, hi)) = range.addrs {
        let one = |a: Be128| match range.v6 {
            true if range.ports.is_some() => format!("[{}]", Ipv6Addr::from(a)),
            true => Ipv6Addr::from(a).to_string(),
            false => Ipv4Addr::from(Be32::new(a.get() as u32)).to_string(),
        };
        let _ = write!(text, "={}", one(lo));
        if hi != lo {
            let _ = write!(text, "-{}", one(hi));
        }
        if let Some((lo, hi)) = range.ports {
            let _ = write!(text, ":{lo}");
            if hi != lo {
                let _ = write!(text, "-{hi}");
            }
        }
    }
    for (on, name) in [(range.persistent, ",persistent"), (range.hash, ",hash"), (range.random, ",random")] {
        if on {
            text.push_str(name);
        }
    }
    text.push(')');
    text
}

/// Parses what [`format_actions`] prints.
///
/// Errors: unknown actions, malformed arguments, nesting past 16, with the place.
pub fn parse_actions(text: &str, names: &PortNames) -> Result<Vec<Action>, ParseError> {
    if text.eq_ignore_ascii_case("drop") {
        return Ok(Vec::new());
    }
    let mut s = Scan::new(text.trim());
    let actions = parse_list(&mut s, names, 0)?;
    if s.at_end() { Ok(actions) } else { s.err("unexpected text behind the actions") }
}

/// A list up to the end or an unmatched `)`.
fn parse_list(s: &mut Scan<'_>, names: &PortNames, depth: usize) -> Res<Vec<Action>> {
    if depth > MAX_DEPTH {
        return s.err("actions nest too deep");
    }
    let mut actions = Vec::new();
    loop {
        s.skip_delimiters();
        if s.at_end() || s.rest().starts_with(')') {
            return Ok(actions);
        }
        // It stands alone: the list is empty.
        if actions.is_empty() && s.eat("drop") {
            let alone = s.at_end() || s.rest().starts_with(')');
            return if alone { Ok(actions) } else { s.err("text behind drop") };
        }
        actions.push(parse_one(s, names, depth)?);
    }
}

/// `(LIST)` behind a name.
fn nested(s: &mut Scan<'_>, names: &PortNames, depth: usize) -> Res<Arc<[Action]>> {
    let list = parse_list(s, names, depth + 1)?;
    s.expect(")")?;
    Ok(list.into())
}

fn parse_port(s: &mut Scan<'_>, names: &PortNames) -> Res<OdpPort> {
    if s.rest().starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(OdpPort(s.u32()?));
    }
    let name = s.name();
    match names.number(name) {
        Some(port) => Ok(port),
        None => s.err(format!("unknown action or port '{name}'")),
    }
}

fn parse_one(s: &mut Scan<'_>, names: &PortNames, depth: usize) -> Res<Action> {
    const PAREN: [&str; 18] = [
        "userspace(",
        "set(",
        "push_vlan(",
        "sample(",
        "recirc(",
        "lb_output(",
        "hash(",
        "push_mpls(",
        "add_mpls(",
        "push_nsh(",
        "pop_mpls(",
        "trunc(",
        "push_eth(",
        "meter(",
        "clone(",
        "check_pkt_len(",
        "dec_ttl(",
        "tnl_pop(",
    ];
    for word in PAREN {
        if s.eat(word) {
            return parse_call(s, word, names, depth);
        }
    }
    if s.eat("ct_clear") {
        return Ok(Action::CtClear);
    }
    if s.eat("pop_vlan") {
        return Ok(Action::PopVlan);
    }
    if s.eat("pop_nsh()") || s.eat("pop_nsh") {
        return Ok(Action::PopNsh);
    }
    if s.eat("pop_eth") {
        return Ok(Action::PopEth);
    }
    if s.eat("psample(") {
        return parse_psample(s);
    }
    if s.eat("tnl_push(") {
        return parse_tnl_push(s, names);
    }
    if s.eat("ct(") {
        return parse_ct(s).map(|ct| Action::Ct(Box::new(ct)));
    }
    if s.rest() == "ct" || s.rest().starts_with("ct,") || s.rest().starts_with("ct)") {
        s.eat("ct");
        return Ok(Action::Ct(Box::default()));
    }
    parse_port(s, names).map(Action::Output)
}

/// The arguments of `word`, whose `(` is consumed.
fn parse_call(s: &mut Scan<'_>, word: &str, names: &PortNames, depth: usize) -> Res<Action> {
    let action = match word {
        "userspace(" => return parse_userspace(s, names),
        "set(" => {
            let field = parse_set(s)?;
            s.expect(")")?;
            return Ok(Action::Set(field));
        }
        "push_vlan(" => {
            let (mut tpid, mut tci, mut has_vid) = (0x8100, Vlan::CFI, false);
            pairs(s, |s, name| {
                match name {
                    "tpid" => tpid = s.u16()?,
                    "vid" => {
                        has_vid = true;
                        tci |= s.number(0xfff)? as u16;
                    }
                    "pcp" => tci |= (s.number(7)? as u16) << 13,
                    "cfi" => tci &= !(if s.number(1)? == 0 { Vlan::CFI } else { 0 }),
                    _ => return s.err(format!("unknown field '{name}' of push_vlan")),
                }
                Ok(())
            })?;
            if !has_vid {
                return s.err("push_vlan lacks a vid");
            }
            return Ok(Action::PushVlan { tpid: Be16::new(tpid), tci: Be16::new(tci) });
        }
        "sample(" => {
            s.expect("sample=")?;
            let percent: f64 = s.parsed("a percentage", |b| b.is_ascii_digit() || b == b'.')?;
            s.expect("%,actions(")?;
            if !(0.0..=100.0).contains(&percent) {
                return s.err("percentage out of range");
            }
            let actions = nested(s, names, depth)?;
            // Float to int casts saturate; the range was checked.
            Action::Sample { probability: (percent / 100.0 * f64::from(u32::MAX)).round() as u32, actions }
        }
        "recirc(" => Action::Recirc(s.u32()?),
        "lb_output(" => Action::LbOutput(s.u32()?),
        "hash(" => {
            let alg = if s.eat("sym_l4(") {
                HashAlg::SymL4
            } else {
                s.eat("hash_");
                s.expect("l4(")?;
                HashAlg::L4
            };
            let basis = s.u32()?;
            s.expect(")")?;
            Action::Hash { alg, basis }
        }
        "push_mpls(" | "add_mpls(" => {
            let (mut lse, mut ethertype) = (0, 0x8847);
            pairs(s, |s, name| {
                match name {
                    "label" => lse |= (s.number(0xf_ffff)? as u32) << 12,
                    "tc" => lse |= (s.number(7)? as u32) << 9,
                    "ttl" => lse |= s.number(0xff)? as u32,
                    "bos" => lse |= (s.number(1)? as u32) << 8,
                    "eth_type" => ethertype = s.u16()?,
                    _ => return s.err(format!("unknown field '{name}' of push_mpls")),
                }
                Ok(())
            })?;
            let (lse, ethertype) = (Be32::new(lse), Be16::new(ethertype));
            return Ok(match word {
                "add_mpls(" => Action::AddMpls { lse, ethertype },
                _ => Action::PushMpls { lse, ethertype },
            });
        }
        "push_nsh(" => {
            let mut nsh = ib_flow::key::Nsh { ttl: 63, mdtype: 1, np: 3, ..Default::default() };
            nsh.path_hdr = Be32::new(0xff);
            let mut md2 = Vec::new();
            pairs(s, |s, name| {
                if name == "md2" {
                    s.eat("0x");
                    md2 = parse_hex_bytes(s)?;
                    return Ok(());
                }
                super::key::nsh_field(s, name, &mut nsh, &mut ib_flow::key::Nsh::default())
            })?;
            return Ok(Action::PushNsh { nsh, md2: md2.into() });
        }
        "pop_mpls(" => {
            s.expect("eth_type=")?;
            Action::PopMpls(Be16::new(s.u16()?))
        }
        "trunc(" => Action::Trunc(s.u32()?),
        "push_eth(" => {
            let mut addrs = EthAddrs::default();
            pairs(s, |s, name| {
                match name {
                    "src" => addrs.src = s.mac()?,
                    "dst" => addrs.dst = s.mac()?,
                    _ => return s.err(format!("unknown field '{name}' of push_eth")),
                }
                Ok(())
            })?;
            return Ok(Action::PushEth { dst: addrs.dst, src: addrs.src });
        }
        "meter(" => Action::Meter(s.u32()?),
        "clone(" => return nested(s, names, depth).map(Action::Clone),
        "check_pkt_len(" => {
            s.expect("size=")?;
            let len = s.u16()?;
            s.expect(",gt(")?;
            let greater = nested(s, names, depth)?;
            s.expect(",le(")?;
            let less_or_equal = nested(s, names, depth)?;
            Action::CheckPktLen { len, greater, less_or_equal }
        }
        "dec_ttl(" => {
            s.expect("le_1(")?;
            Action::DecTtl { exception: nested(s, names, depth)? }
        }
        _ => Action::TnlPop(parse_port(s, names)?),
    };
    s.expect(")")?;
    Ok(action)
}

pub(super) fn parse_hex_bytes(s: &mut Scan<'_>) -> Res<Vec<u8>> {
    let digits = s.take(|b| b.is_ascii_hexdigit());
    if !digits.len().is_multiple_of(2) {
        return s.err("odd number of hex digits");
    }
    let byte = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).unwrap_or(0);
    Ok((0..digits.len()).step_by(2).map(byte).collect())
}

fn parse_psample(s: &mut Scan<'_>) -> Res<Action> {
    s.expect("group=")?;
    let group = s.u32()?;
    let mut cookie = Vec::new();
    if s.eat(",cookie=0x") {
        cookie = parse_hex_bytes(s)?;
    }
    s.expect(")")?;
    Ok(Action::Psample { group, cookie: cookie.into() })
}

fn parse_tnl_push(s: &mut Scan<'_>, names: &PortNames) -> Res<Action> {
    s.expect("tnl_port(")?;
    let tnl_port = parse_port(s, names)?;
    s.expect("),header(size=")?;
    let size = s.u32()?;
    s.expect(",type=")?;
    let tnl_type = s.u32()?;
    s.expect(",")?;
    let header = super::tnl_push::parse(s, tnl_type)?;
    s.expect("),out_port(")?;
    let out_port = parse_port(s, names)?;
    s.expect("))")?;
    if usize::try_from(size).ok() != Some(header.len()) {
        return s.err("header size does not match its data");
    }
    Ok(Action::TnlPush { tnl_port, out_port, tnl_type, header: header.into() })
}

fn parse_userspace(s: &mut Scan<'_>, names: &PortNames) -> Res<Action> {
    s.expect("pid=")?;
    let mut u = UserspaceAction { pid: s.u32()?, ..UserspaceAction::default() };
    while s.eat(",") {
        if s.eat("userdata(") {
            u.userdata = parse_hex_bytes(s)?.into();
            s.expect(")")?;
        } else if s.eat("actions") {
            u.actions = true;
        } else if s.eat("tunnel_out_port=") {
            u.egress_tun_out_port = Some(parse_port(s, names)?);
        } else if let Some(cookie) = UserCookie::parse(s)? {
            u.userdata = cookie.to_bytes();
        } else {
            return s.err("unknown argument of userspace");
        }
    }
    s.expect(")")?;
    Ok(Action::Userspace(u))
}

fn parse_set(s: &mut Scan<'_>) -> Res<SetField> {
    let name = s.word();
    s.expect("(")?;
    let unknown = |s: &Scan<'_>, f: &str| s.err(format!("unknown field '{f}' of set({name})"));
    let u32_of = |v: u128| u32::try_from(v).unwrap_or(u32::MAX);
    macro_rules! fields {
        ($ty:ty, $wrap:path, |$s:ident, $v:ident, $m:ident| { $($key:literal => $parse:expr),* $(,)? }) => {{
            let (mut $v, mut $m) = (<$ty>::default(), <$ty>::default());
            pairs(s, |$s, f| {
                match f {
                    $($key => $parse,)*
                    _ => return unknown($s, f),
                }
                Ok(())
            })?;
            $wrap($v, $m)
        }};
    }
    Ok(match name {
        "skb_priority" | "skb_mark" => {
            let (v, m) = num_pair(s, u32::MAX.into())?;
            s.expect(")")?;
            let (v, m) = (u32_of(v), u32_of(m));
            if name == "skb_mark" { SetField::Mark(v, m) } else { SetField::Priority(v, m) }
        }
        "eth" => fields!(EthAddrs, SetField::Ethernet, |s, v, m| {
            "src" => (v.src, m.src) = mac_pair(s)?,
            "dst" => (v.dst, m.dst) = mac_pair(s)?,
        }),
        "ipv4" => fields!(Ipv4Fields, SetField::Ipv4, |s, v, m| {
            "src" => (v.src, m.src) = ipv4_pair(s)?,
            "dst" => (v.dst, m.dst) = ipv4_pair(s)?,
            "proto" => (v.proto, m.proto) = u8_pair(s)?,
            "tos" => (v.tos, m.tos) = u8_pair(s)?,
            "ttl" => (v.ttl, m.ttl) = u8_pair(s)?,
        }),
        "ipv6" => fields!(Ipv6Fields, SetField::Ipv6, |s, v, m| {
            "src" => (v.src, m.src) = ipv6_pair(s)?,
            "dst" => (v.dst, m.dst) = ipv6_pair(s)?,
            "label" => {
                let (a, b) = num_pair(s, 0xf_ffff)?;
                (v.label, m.label) = (Be32::new(u32_of(a)), Be32::new(u32_of(b)));
            },
            "proto" => (v.proto, m.proto) = u8_pair(s)?,
            "tclass" => (v.tclass, m.tclass) = u8_pair(s)?,
            "hlimit" => (v.hlimit, m.hlimit) = u8_pair(s)?,
        }),
        "tcp" => fields!(L4Ports, SetField::Tcp, |s, v, m| {
            "src" => (v.src, m.src) = be16_pair(s)?,
            "dst" => (v.dst, m.dst) = be16_pair(s)?,
        }),
        "udp" => fields!(L4Ports, SetField::Udp, |s, v, m| {
            "src" => (v.src, m.src) = be16_pair(s)?,
            "dst" => (v.dst, m.dst) = be16_pair(s)?,
        }),
        "sctp" => fields!(L4Ports, SetField::Sctp, |s, v, m| {
            "src" => (v.src, m.src) = be16_pair(s)?,
            "dst" => (v.dst, m.dst) = be16_pair(s)?,
        }),
        "icmp" => fields!(IcmpFields, SetField::Icmp, |s, v, m| {
            "type" => (v.kind, m.kind) = u8_pair(s)?,
            "code" => (v.code, m.code) = u8_pair(s)?,
        }),
        "icmpv6" => fields!(IcmpFields, SetField::Icmpv6, |s, v, m| {
            "type" => (v.kind, m.kind) = u8_pair(s)?,
            "code" => (v.code, m.code) = u8_pair(s)?,
        }),
        "arp" => fields!(ArpFields, SetField::Arp, |s, v, m| {
            "sip" => (v.sip, m.sip) = ipv4_pair(s)?,
            "tip" => (v.tip, m.tip) = ipv4_pair(s)?,
            "op" => (v.op, m.op) = be16_pair(s)?,
            "sha" => (v.sha, m.sha) = mac_pair(s)?,
            "tha" => (v.tha, m.tha) = mac_pair(s)?,
        }),
        "nd" => fields!(NdFields, SetField::Nd, |s, v, m| {
            "target" => (v.target, m.target) = ipv6_pair(s)?,
            "sll" => (v.sll, m.sll) = mac_pair(s)?,
            "tll" => (v.tll, m.tll) = mac_pair(s)?,
        }),
        "mpls" => {
            let (mut v, mut m) = (0u32, 0u32);
            pairs(s, |s, f| {
                let (shift, max) = match f {
                    "label" => (12, 0xf_ffff),
                    "tc" => (9, 7),
                    "bos" => (8, 1),
                    "ttl" => (0, 0xff),
                    _ => return unknown(s, f),
                };
                let (a, b) = num_pair(s, max)?;
                v |= u32_of(a) << shift;
                m |= u32_of(b) << shift;
                Ok(())
            })?;
            SetField::Mpls(Be32::new(v), Be32::new(m))
        }
        "tunnel" => {
            let (mut t, mut m) = (Flow::zeroed().tunnel, Flow::zeroed().tunnel);
            pairs(s, |s, f| tunnel_field(s, f, &mut t, &mut m))?;
            if !t.tun_id.is_zero() {
                // An identifier is a key.
                t.flags |= TunFlags::KEY;
            }
            SetField::Tunnel(Box::new(t))
        }
        "nsh" => {
            let (mut v, mut m) = Default::default();
            pairs(s, |s, f| nsh_field(s, f, &mut v, &mut m))?;
            SetField::Nsh(v, m)
        }
        _ => return s.err(format!("unknown field '{name}' to set")),
    })
}

fn parse_ct(s: &mut Scan<'_>) -> Res<CtAction> {
    let mut ct = CtAction::default();
    loop {
        s.skip_delimiters();
        if s.eat(")") {
            return Ok(ct);
        }
        let word = s.word();
        match word {
            "commit" => ct.commit = true,
            "force_commit" => (ct.commit, ct.force) = (true, true),
            "zone" => {
                s.expect("=")?;
                ct.zone = s.u16()?;
            }
            "mark" => {
                s.expect("=")?;
                let (v, m) = num_pair(s, u32::MAX.into())?;
                ct.mark = Some((u32::try_from(v).unwrap_or(0), u32::try_from(m).unwrap_or(0)));
            }
            "label" => {
                s.expect("=")?;
                let (v, m) = num_pair(s, u128::MAX)?;
                ct.label = Some((Be128::new(v), Be128::new(m)));
            }
            "helper" => {
                s.expect("=")?;
                ct.helper = Some(s.name().into());
            }
            "timeout" => {
                s.expect("=")?;
                ct.timeout = Some(s.name().into());
            }
            "nat" => ct.nat = Some(if s.eat("(") { parse_nat(s)? } else { NatAction::Existing }),
            _ => return s.err(format!("unknown argument '{word}' of ct")),
        }
    }
}

fn parse_nat(s: &mut Scan<'_>) -> Res<NatAction> {
    let mut range = NatRange::default();
    let mut dir = None;
    loop {
        s.skip_delimiters();
        if s.eat(")") {
            break;
        }
        let word = s.word();
        match word {
            "src" | "dst" => {
                dir = Some(word == "src");
                if s.eat("=") {
                    let lo = nat_addr(s, &mut range.v6)?;
                    let hi = if s.eat("-") { nat_addr(s, &mut range.v6)? } else { lo };
                    range.addrs = Some((lo, hi));
                    if s.eat(":") {
                        let lo = s.u16()?;
                        let hi = if s.eat("-") { s.u16()? } else { lo };
                        range.ports = Some((lo, hi));
                    }
                }
            }
            "persistent" => range.persistent = true,
            "hash" => range.hash = true,
            "random" => range.random = true,
            _ => return s.err(format!("unknown argument '{word}' of nat")),
        }
    }
    Ok(match dir {
        None => NatAction::Existing,
        Some(true) => NatAction::Src(range),
        Some(false) => NatAction::Dst(range),
    })
}

/// `1.2.3.4`, `[::1]` or `::1`.
fn nat_addr(s: &mut Scan<'_>, v6: &mut bool) -> Res<Be128> {
    if s.eat("[") {
        let a = s.ipv6()?;
        s.expect("]")?;
        *v6 = true;
        return Ok(a.into());
    }
    let head = s.rest().bytes().take_while(|b| b.is_ascii_hexdigit()).count();
    if s.rest()[head..].starts_with(':') {
        *v6 = true;
        return s.ipv6().map(Be128::from);
    }
    s.ipv4().map(|a| Be128::new(u32::from(a).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints back what it parses.
    #[test]
    fn actions_survive_the_round_trip() {
        for text in [
            "drop",
            "1,2,3",
            "set(eth(src=00:01:02:03:04:05,dst=00:01:02:03:04:05/ff:ff:ff:00:00:00))",
            "set(ipv4(src=1.2.3.4,dst=5.6.7.8/255.255.0.0,tos=0x10/0xfc,ttl=3))",
            "set(ipv6(src=::1,label=0x1/0xff,tclass=0x10/0x3,hlimit=3))",
            "set(tcp(src=80/0xff)),set(udp(dst=80)),set(sctp(dst=80)),set(icmp(type=1,code=2))",
            "set(arp(sip=1.2.3.4,op=2,sha=00:01:02:03:04:05)),set(nd(target=::1,sll=00:01:02:03:04:05))",
            "set(mpls(label=100,tc=1,ttl=64,bos=1)),set(skb_priority(0x1)),set(skb_mark(0x4/0xff))",
            "set(tunnel(tun_id=0x1,src=1.1.1.1,dst=2.2.2.2,ttl=64,flags(df|csum|key)))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,erspan(ver=2,dir=1,hwid=0x7),flags(key)))",
            "set(tunnel(dst=2.2.2.2,ttl=64,erspan(ver=1,idx=0x7),flags(0)))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,gtpu(flags=0x30,msgtype=255),flags(key)))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,vxlan(gbp(id=10,flags=0)),flags(key)))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,geneve({class=0,type=0,len=4,0x123}{class=0xffff,type=0x80,len=0}),flags(key)))",
            "set(tunnel(tun_id=0x1,dst=2.2.2.2,ttl=64,tp_dst=4789,geneve({class=0xffff,type=0x80,len=4,0xa}),flags(df|key)))",
            "push_vlan(vid=12,pcp=3),push_vlan(tpid=0x88a8,vid=12,pcp=0),push_vlan(vid=12,pcp=0,cfi=0),pop_vlan",
            "push_mpls(label=10,tc=0,ttl=64,bos=1,eth_type=0x8847),pop_mpls(eth_type=0x800)",
            "push_eth(src=00:01:02:03:04:05,dst=00:01:02:03:04:06),pop_eth",
            "push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x5,si=7,c1=0x11,c2=0x0,c3=0x0,c4=0x0),pop_nsh()",
            "push_nsh(flags=0,ttl=63,mdtype=2,np=1,spi=0x5,si=7,md2=0x10000a0412345678)",
            "add_mpls(label=3,tc=0,ttl=64,bos=1,eth_type=0x8848)",
            "lb_output(7),hash(l4(0)),recirc(0x10),hash(sym_l4(5)),recirc(0x1)",
            "sample(sample=50.0%,actions(1,2)),clone(1,2),trunc(100),1",
            "userspace(pid=1,slow_path(cfm))",
            "userspace(pid=9765,slow_path(0))",
            "userspace(pid=123,userdata(0102030405060708090a0b0c0d0e0f),actions,tunnel_out_port=10)",
            "userspace(pid=9765,controller(reason=1,dont_send=0,continuation=1,recirc_id=1234,rule_cookie=0x5,controller_id=3,max_len=65535))",
            "userspace(pid=5,sFlow(vid=9,pcp=7,output=10))",
            "userspace(pid=5,flow_sample(probability=123,collector_set_id=1234,obs_domain_id=2345,obs_point_id=3456,output_port=10))",
            "userspace(pid=5,ipfix(output_port=10))",
            "ct,ct(commit),ct_clear,meter(5)",
            "ct(commit,zone=5,mark=0xa0/0xff,label=0x1/0x3,helper=ftp,nat(src=1.1.1.1-1.1.1.5:10-20,persistent,random))",
            "ct(force_commit,zone=5,nat),ct(commit,nat(dst=[fe80::1]-[fe80::5]:5,hash)),ct(commit,timeout=foo)",
            "check_pkt_len(size=200,gt(4),le(5)),check_pkt_len(size=200,gt(drop),le(ct(zone=1)))",
            "dec_ttl(le_1(userspace(pid=1))),tnl_pop(4)",
            "tnl_push(tnl_port(4789),header(size=50,type=4,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x7b)),out_port(100)),1",
            "tnl_push(tnl_port(6081),header(size=62,type=5,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,csum=0x0),geneve(vni=0x7,options({class=0xffff,type=0,len=4,0xa}{class=0,type=0x1,len=0}))),out_port(100)),1",
            "tnl_push(tnl_port(6),header(size=62,type=109,eth(dst=f8:bc:12:44:34:b7,src=aa:55:aa:55:00:00,dl_type=0x86dd),ipv6(src=2001:cafe::88,dst=2001:cafe::92,label=0,proto=47,tclass=0x0,hlimit=64),gre((flags=0x2000,proto=0x6558),key=0x7b)),out_port(100))",
            "tnl_push(tnl_port(4),header(size=50,type=107,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=47,tos=0x1,ttl=64,frag=0x4000),erspan(ver=1,sid=0x1,idx=0x3)),out_port(100))",
            "tnl_push(tnl_port(4),header(size=54,type=107,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=47,tos=0,ttl=64,frag=0x4000),erspan(ver=2,sid=0x1,dir=1,hwid=0x7)),out_port(100))",
            "tnl_push(tnl_port(6081),header(size=58,type=5,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,csum=0x0),geneve(oam,crit,vni=0x1c7,options({class=0xffff,type=0x80,len=4,0xa}))),out_port(100))",
            "tnl_push(tnl_port(2152),header(size=50,type=110,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=2152,csum=0x0),gtpu(flags=0x30,msgtype=255,teid=0x7b)),out_port(100))",
            "tnl_push(tnl_port(6),header(size=78,type=112,eth(dst=f8:bc:12:44:34:b7,src=aa:55:aa:55:00:00,dl_type=0x86dd),ipv6(src=2001:cafe::88,dst=2001:cafe::92,label=0,proto=43,tclass=0x0,hlimit=64),srv6(segments_left=0,segs(2001:cafe::92))),out_port(100))",
        ] {
            let names = PortNames::none();
            let actions = parse_actions(text, &names).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(format_actions(&actions, &names), text);
        }
    }

    #[test]
    fn bad_actions_are_refused() {
        let deep = format!("{}1{}", "clone(".repeat(40), ")".repeat(40));
        for bad in [
            "foo",
            "1,foo",
            "1,drop",
            "drop,1",
            "clone(1,drop)",
            "clone(1",
            "1)",
            "set(foo(1))",
            "push_vlan(vid=5000)",
            deep.as_str(),
        ] {
            assert!(parse_actions(bad, &PortNames::none()).is_err(), "{bad}");
        }
    }
}
