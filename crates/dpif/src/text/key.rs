//! Keys: `recirc_id(0),in_port(1),eth(src=..,dst=..),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0,frag=no)`.
//!
//! Which attributes a key has follows from its own contents, as in the kernel's ABI: an IPv4 attribute for
//! IPv4 Ethertypes, a TCP one for TCP that is not a later fragment, and so on. With a mask, an attribute that
//! is wholly wildcarded is left out unless `verbose`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ib_flow::{CtState, Flow, Mask, OdpPort, Tunnel, Vlan};
use ib_packet::{Be16, Be32, Be64, Be128, Mac};

use super::{
    CT_STATE, ParseError, PortNames, Res, Scan, TCP_FLAGS, TUN_FLAGS, flags_masked, hex, parse_flags,
};

const ETH_IP: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_RARP: u16 = 0x8035;
const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;
const ETH_MPLS: u16 = 0x8847;
const ETH_MPLS_MCAST: u16 = 0x8848;
const ETH_NSH: u16 = 0x894f;
/// What `Flow::dl_type` holds for frames without Ethertype (802.2).
const ETH_NONE: u16 = 0x05ff;

/// Collects the `a=1,b=2` inside of one attribute.
struct Attr<'a> {
    out: &'a mut String,
    verbose: bool,
    start: usize,
}

impl<'a> Attr<'a> {
    fn open(out: &'a mut String, verbose: bool, name: &str) -> Attr<'a> {
        let start = out.len();
        if start != 0 && !out.ends_with('(') {
            out.push(',');
        }
        let _ = write!(out, "{name}(");
        Attr { out, verbose, start }
    }
    /// Closes; takes the attribute back out when nothing was put in and it is not verbose.
    fn close(self) {
        if self.out.ends_with('(') && !self.verbose {
            self.out.truncate(self.start);
        } else {
            self.out.push(')');
        }
    }
    fn put(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        if !self.out.ends_with('(') {
            self.out.push(',');
        }
        let _ = write!(self.out, "{name}={value}");
    }
    fn mac(&mut self, name: &str, v: Mac, m: Mac) {
        if m == Mac::BROADCAST {
            self.put(name, format_args!("{v}"));
        } else if self.verbose || !m.is_zero() {
            self.put(name, format_args!("{v}/{m}"));
        }
    }
    fn ipv4(&mut self, name: &str, v: Be32, m: Be32) {
        if m == Be32::MAX {
            self.put(name, format_args!("{}", Ipv4Addr::from(v)));
        } else if self.verbose || !m.is_zero() {
            self.put(name, format_args!("{}/{}", Ipv4Addr::from(v), Ipv4Addr::from(m)));
        }
    }
    fn ipv6(&mut self, name: &str, v: Be128, m: Be128) {
        if m == Be128::MAX {
            self.put(name, format_args!("{}", Ipv6Addr::from(v)));
        } else if self.verbose || !m.is_zero() {
            self.put(name, format_args!("{}/{}", Ipv6Addr::from(v), Ipv6Addr::from(m)));
        }
    }
    /// Decimal value, hexadecimal mask with `0` for zero.
    fn dec(&mut self, name: &str, v: u32, m: u32, full: u32) {
        if m == full {
            self.put(name, format_args!("{v}"));
        } else if self.verbose || m != 0 {
            self.put(name, format_args!("{v}/{}", hex(m.into())));
        }
    }
    /// Decimal value, hexadecimal mask with `0x0` for zero.
    fn dec0x(&mut self, name: &str, v: u32, m: u32, full: u32) {
        if m == full {
            self.put(name, format_args!("{v}"));
        } else if self.verbose || m != 0 {
            self.put(name, format_args!("{v}/{m:#x}"));
        }
    }
    /// Hexadecimal value and mask.
    fn hexa(&mut self, name: &str, v: u128, m: u128, full: u128) {
        if m == full {
            self.put(name, format_args!("{}", hex(v)));
        } else if self.verbose || m != 0 {
            self.put(name, format_args!("{}/{}", hex(v), hex(m)));
        }
    }
    /// Hexadecimal value and mask, both with `0x0` for zero.
    fn hexa0x(&mut self, name: &str, v: u32, m: u32, full: u32) {
        if m == full {
            self.put(name, format_args!("{v:#x}"));
        } else if self.verbose || m != 0 {
            self.put(name, format_args!("{v:#x}/{m:#x}"));
        }
    }
    fn frag(&mut self, v: u8, m: u8) {
        // Two bits matter: the datapath knows no, first and later.
        if m & 3 == 3 {
            self.put("frag", format_args!("{}", frag_name(v)));
        } else if m != 0 {
            self.put("frag", format_args!("{}/{}", frag_name(v), hex(m.into())));
        }
    }
}

fn frag_name(v: u8) -> &'static str {
    match v & 3 {
        0 => "no",
        1 => "first",
        _ => "later",
    }
}

/// An attribute that is a single hexadecimal value.
fn single(out: &mut String, verbose: bool, name: &str, v: u128, m: u128, full: u128) {
    if m == 0 && !verbose {
        return;
    }
    if !out.is_empty() && !out.ends_with('(') {
        out.push(',');
    }
    let _ = write!(out, "{name}({}", hex(v));
    if m != full {
        let _ = write!(out, "/{}", hex(m));
    }
    out.push(')');
}

/// Appends the inside of `tunnel(...)`; also used by `set(tunnel(...))`.
pub(super) fn format_tunnel(out: &mut String, t: &Tunnel, m: &Tunnel, verbose: bool) {
    let mut a = Attr { start: out.len(), out, verbose };
    let has = |t: &Tunnel| t.flags & ib_flow::TunFlags::KEY != 0 || !t.tun_id.is_zero();
    if has(m) && has(t) {
        a.hexa("tun_id", t.tun_id.get().into(), m.tun_id.get().into(), u64::MAX.into());
    }
    if !t.ip_dst.is_zero() || !t.ip_src.is_zero() {
        if !t.ip_src.is_zero() || !m.ip_src.is_zero() && m.ip_src != Be32::MAX {
            a.ipv4("src", t.ip_src, m.ip_src);
        }
        a.ipv4("dst", t.ip_dst, m.ip_dst);
    }
    if !t.ipv6_dst.is_zero() || !t.ipv6_src.is_zero() {
        if !t.ipv6_src.is_zero() {
            a.ipv6("ipv6_src", t.ipv6_src, m.ipv6_src);
        }
        a.ipv6("ipv6_dst", t.ipv6_dst, m.ipv6_dst);
    }
    if t.ip_tos != 0 {
        a.hexa("tos", t.ip_tos.into(), m.ip_tos.into(), 0xff);
    }
    a.dec("ttl", t.ip_ttl.into(), m.ip_ttl.into(), 0xff);
    if !t.tp_src.is_zero() {
        a.dec("tp_src", t.tp_src.get().into(), m.tp_src.get().into(), 0xffff);
    }
    if !t.tp_dst.is_zero() {
        a.dec("tp_dst", t.tp_dst.get().into(), m.tp_dst.get().into(), 0xffff);
    }
    if !t.gbp_id.is_zero() || t.gbp_flags != 0 {
        let sep = if a.out.ends_with('(') { "" } else { "," };
        let _ = write!(a.out, "{sep}vxlan(gbp(id={}", t.gbp_id.get());
        if t.gbp_flags != 0 || m.gbp_flags == u8::MAX {
            let _ = write!(a.out, ",flags={}", hex(t.gbp_flags.into()));
        }
        a.out.push_str("))");
    }
    if t.flags & ib_flow::TunFlags::UDPIF != 0 && (t.opts_present != 0 || m.opts_present != 0) {
        let sep = if a.out.ends_with('(') { "" } else { "," };
        let _ = write!(a.out, "{sep}geneve(");
        let len = usize::try_from(t.opts_present).unwrap_or(0).min(t.opts.len());
        format_geneve(a.out, &t.opts[..len], &m.opts[..len], verbose);
        a.out.push(')');
    }
    format_erspan_gtpu(a.out, t, m, verbose);
    let flag_bits: u32 = TUN_FLAGS.iter().map(|(b, _)| b).sum();
    let (v, mut mask) = (u32::from(t.flags) & flag_bits, u32::from(m.flags) & flag_bits);
    if mask != flag_bits && !has(t) {
        // Without a key there is nothing to say of one.
        mask &= !u32::from(ib_flow::TunFlags::KEY);
    }
    if mask != 0 || verbose {
        a.put("flags", format_args!("X"));
        let n = a.out.len() - "=X".len();
        a.out.truncate(n);
        let _ = write!(a.out, "({})", flags_masked(v, mask, flag_bits, TUN_FLAGS));
    }
}

/// Opens `NAME(` behind what is there.
fn nested<'a>(out: &'a mut String, verbose: bool, name: &str) -> Attr<'a> {
    let sep = if out.ends_with('(') { "" } else { "," };
    let _ = write!(out, "{sep}{name}(");
    Attr { start: out.len(), out, verbose }
}

/// `erspan(...)` and `gtpu(...)`, if the packet has them: what the mask looks at, and always the index of ERSPAN's version 1.
fn format_erspan_gtpu(out: &mut String, t: &Tunnel, m: &Tunnel, verbose: bool) {
    if matches!(t.erspan_ver, 1 | 2) {
        let mut a = nested(out, verbose, "erspan");
        a.dec("ver", t.erspan_ver.into(), if m.erspan_ver == 0 { 0 } else { 0xff }, 0xff);
        if t.erspan_ver == 1 {
            a.verbose = true;
            a.hexa("idx", t.erspan_idx.into(), m.erspan_idx.into(), m.erspan_idx.max(1).into());
        } else {
            a.dec("dir", t.erspan_dir.into(), m.erspan_dir.into(), m.erspan_dir.max(1).into());
            a.hexa("hwid", t.erspan_hwid.into(), m.erspan_hwid.into(), m.erspan_hwid.max(1).into());
        }
        out.push(')');
    }
    if (t.gtpu_flags, t.gtpu_msgtype) != (0, 0) {
        let mut a = nested(out, verbose, "gtpu");
        a.hexa("flags", t.gtpu_flags.into(), m.gtpu_flags.into(), 0xff);
        a.dec("msgtype", t.gtpu_msgtype.into(), m.gtpu_msgtype.into(), 0xff);
        out.push(')');
    }
}

/// Options: of each what the mask looks at.
fn format_geneve(out: &mut String, mut opts: &[u8], mut masks: &[u8], verbose: bool) {
    while let [c0, c1, kind, len, rest @ ..] = opts {
        let words = usize::from(len & 0x1f) * 4;
        let Some((data, tail)) = rest.split_at_checked(words) else { return };
        let [m0, m1, kind_mask, len_mask] = *masks.first_chunk().unwrap_or(&[0; 4]);
        let mask = masks.get(4..4 + words).unwrap_or_default();
        out.push('{');
        let mut a = Attr { start: out.len(), out, verbose };
        let class = u16::from_be_bytes([*c0, *c1]);
        let class_mask = u16::from_be_bytes([m0, m1]);
        let field = |a: &mut Attr<'_>, text: std::fmt::Arguments<'_>| {
            if !a.out.ends_with('{') {
                a.out.push(',');
            }
            let _ = a.out.write_fmt(text);
        };
        let bits = |mask: u32, full: u32| {
            if mask == full { String::new() } else { format!("/{}", hex(mask.into())) }
        };
        if verbose || class_mask != 0 {
            field(&mut a, format_args!("class={}{}", hex(class.into()), bits(class_mask.into(), 0xffff)));
        }
        if verbose || kind_mask != 0 {
            field(&mut a, format_args!("type={}{}", hex((*kind).into()), bits(kind_mask.into(), 0xff)));
        }
        if verbose || len_mask != 0 {
            field(&mut a, format_args!("len={words}{}", if len_mask == 0 { "/0" } else { "" }));
        }
        if !data.is_empty() && (verbose || mask.iter().any(|b| *b != 0)) {
            field(&mut a, format_args!("0x{}", digits_of(data)));
            if mask.iter().all(|b| *b == 0) {
                a.out.push_str("/0");
            } else if mask.iter().any(|b| *b != u8::MAX) {
                let _ = write!(a.out, "/0x{}", digits_of(mask));
            }
        }
        out.push('}');
        masks = masks.get(4 + words..).unwrap_or_default();
        opts = tail;
    }
}

/// Bytes as one hexadecimal number without leading zeros.
fn digits_of(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

/// The text of `key` under `mask` (`None`: exact). `verbose` also shows what is wildcarded. Ports print
/// by name when `names` knows them. O(size of the text).
pub fn format_key(key: &Flow, mask: Option<&Mask>, names: &PortNames, verbose: bool) -> String {
    format_ordered(key, mask, names, verbose, &USER_SPACE)
}

/// As [`format_key`], in the order in which the kernel lists a key: it has no packet type, and metadata otherwise placed.
pub fn format_kernel_key(key: &Flow, mask: Option<&Mask>, names: &PortNames, verbose: bool) -> String {
    let mut text = format_ordered(key, mask, names, verbose, &KERNEL);
    // The kernel's operation of ARP has 16 bits, of which a switch's key has, and masks, eight.
    let is_masked = mask.is_some_and(|m| m.0.nw_proto == 0xff) && key.dl_type.get() == 0x0806;
    let op = format!("op={}", key.nw_proto);
    if is_masked && let Some(at) = text.find("arp(").and_then(|arp| Some(arp + text[arp..].find(&op)?)) {
        text.insert_str(at + op.len(), "/0xff");
    }
    text
}

/// What stands in front of a key's headers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meta {
    Priority,
    Tunnel,
    Mark,
    CtState,
    CtZone,
    CtMark,
    CtLabel,
    CtTuple,
    RecircId,
    DpHash,
    InPort,
    PacketType,
}

const USER_SPACE: [Meta; 12] = [
    Meta::Priority,
    Meta::Tunnel,
    Meta::Mark,
    Meta::CtState,
    Meta::CtZone,
    Meta::CtMark,
    Meta::CtLabel,
    Meta::CtTuple,
    Meta::RecircId,
    Meta::DpHash,
    Meta::InPort,
    Meta::PacketType,
];

const KERNEL: [Meta; 11] = [
    Meta::RecircId,
    Meta::DpHash,
    Meta::Priority,
    Meta::Tunnel,
    Meta::InPort,
    Meta::Mark,
    Meta::CtState,
    Meta::CtZone,
    Meta::CtMark,
    Meta::CtLabel,
    Meta::CtTuple,
];

fn format_ordered(
    key: &Flow,
    mask: Option<&Mask>,
    names: &PortNames,
    verbose: bool,
    order: &[Meta],
) -> String {
    let exact;
    let m = match mask {
        Some(m) => &m.0,
        None => {
            exact = exact_mask();
            &exact.0
        }
    };
    let plain = mask.is_none();
    let mut o = String::with_capacity(160);
    for meta in order {
        format_meta(&mut o, *meta, key, m, names, (verbose, plain));
    }
    format_l2(&mut o, key, m, verbose, plain);
    o
}

fn format_meta(
    out: &mut String,
    meta: Meta,
    key: &Flow,
    m: &Flow,
    names: &PortNames,
    (verbose, plain): (bool, bool),
) {
    let mut number = |name: &str, v: u128, mask: u128, all: u128| {
        if !plain || v != 0 {
            single(out, verbose, name, v, mask, all);
        }
    };
    const ALL: u128 = u32::MAX as u128;
    match meta {
        Meta::Priority => number("skb_priority", key.skb_priority.into(), m.skb_priority.into(), ALL),
        Meta::Mark => number("skb_mark", key.pkt_mark.into(), m.pkt_mark.into(), ALL),
        Meta::CtZone => number("ct_zone", key.ct_zone.into(), m.ct_zone.into(), 0xffff),
        Meta::CtMark => number("ct_mark", key.ct_mark.into(), m.ct_mark.into(), ALL),
        Meta::CtLabel => number("ct_label", key.ct_label.get(), m.ct_label.get(), u128::MAX),
        Meta::DpHash => number("dp_hash", key.dp_hash.into(), m.dp_hash.into(), ALL),
        Meta::RecircId => single(out, verbose, "recirc_id", key.recirc_id.into(), m.recirc_id.into(), ALL),
        Meta::Tunnel => {
            if key.tunnel.is_set() {
                let a = Attr::open(out, false, "tunnel");
                format_tunnel(a.out, &key.tunnel, &m.tunnel, verbose && !plain);
                a.close();
            }
        }
        Meta::CtState => {
            let state_mask = u32::from(m.ct_state);
            if (state_mask != 0 || verbose) && !(plain && key.ct_state == 0) {
                let a = Attr::open(out, true, "ct_state");
                let state = u32::from(key.ct_state);
                if verbose {
                    // In numbers where everything is said.
                    a.out.push_str(&hex(state.into()));
                    if !plain {
                        let _ = write!(a.out, "/{}", hex(state_mask.into()));
                    }
                } else {
                    // The field has 32 bits on the wire, so a mask of those that there are is not the whole.
                    let whole = if plain { 0xff } else { u32::MAX };
                    a.out.push_str(&flags_masked(state, state_mask, whole, CT_STATE));
                }
                a.close();
            }
        }
        Meta::CtTuple => {
            if key.ct_nw_proto != 0 && key.ct_state & CtState::TRK != 0 {
                format_ct_tuple(out, key, m, verbose);
            }
        }
        Meta::InPort => {
            if key.odp_in_port() != OdpPort::NONE && (m.in_port != 0 || verbose) {
                let a = Attr::open(out, true, "in_port");
                if m.in_port == u32::MAX {
                    a.out.push_str(&names.show(key.odp_in_port()));
                } else {
                    let _ = write!(a.out, "{}/{}", key.in_port, hex(m.in_port.into()));
                }
                a.close();
            }
        }
        Meta::PacketType => format_packet_type(out, key, m, verbose, plain),
    }
}

fn format_ct_tuple(out: &mut String, key: &Flow, m: &Flow, verbose: bool) {
    if key.dl_type.get() == ETH_IPV6 {
        let mut a = Attr::open(out, verbose, "ct_tuple6");
        a.ipv6("src", key.ct_ipv6_src, m.ct_ipv6_src);
        a.ipv6("dst", key.ct_ipv6_dst, m.ct_ipv6_dst);
        ct_tuple_tail(&mut a, key, m);
        a.close();
    } else {
        let mut a = Attr::open(out, verbose, "ct_tuple4");
        a.ipv4("src", key.ct_nw_src, m.ct_nw_src);
        a.ipv4("dst", key.ct_nw_dst, m.ct_nw_dst);
        ct_tuple_tail(&mut a, key, m);
        a.close();
    }
}

fn ct_tuple_tail(a: &mut Attr<'_>, key: &Flow, m: &Flow) {
    a.dec("proto", key.ct_nw_proto.into(), m.ct_nw_proto.into(), 0xff);
    a.dec("tp_src", key.ct_tp_src.get().into(), m.ct_tp_src.get().into(), 0xffff);
    a.dec("tp_dst", key.ct_tp_dst.get().into(), m.ct_tp_dst.get().into(), 0xffff);
}

fn format_packet_type(out: &mut String, key: &Flow, m: &Flow, verbose: bool, plain: bool) {
    let pt = key.packet_type.get();
    if m.packet_type != Be32::ZERO && !(plain && pt == 0) || verbose && !plain {
        let mut a = Attr::open(out, verbose, "packet_type");
        let id = pt & 0xffff;
        let masked = m.packet_type != Be32::ZERO;
        a.put("ns", format_args!("{}{}", pt >> 16, if masked { "" } else { "/0" }));
        if !masked {
            a.put("id", format_args!("{}/0", hex(id.into())));
        } else if pt >> 16 == 1 {
            a.put("id", format_args!("{}", hex(id.into())));
        } else {
            a.put("id", format_args!("{id}"));
        }
        a.close();
    }
}

fn format_l2(out: &mut String, key: &Flow, m: &Flow, verbose: bool, plain: bool) {
    let pt = key.packet_type.get();
    if pt == 0 {
        // Without the packet type in the mask, that there is an Ethernet header must still be said.
        let mut a = Attr::open(out, verbose, "eth");
        a.mac("src", key.dl_src, m.dl_src);
        a.mac("dst", key.dl_dst, m.dl_dst);
        a.verbose = verbose || !plain && m.packet_type.is_zero();
        a.close();
    }
    let mut depth = 0;
    // A tag that ends behind its Ethertype is one of zeros, with nothing in it.
    let mut truncated = false;
    for (vlan, vm) in key.vlans.iter().zip(&m.vlans).take(ib_flow::extract::vlan_limit()) {
        truncated = vlan.tci.is_zero() && matches!(key.dl_type.get(), ETH_VLAN | ETH_QINQ);
        if vlan.tci.is_zero() && !truncated {
            break;
        }
        let tpid = if truncated { key.dl_type } else { vlan.tpid };
        eth_type(out, if tpid.is_zero() { ETH_VLAN } else { tpid.get() }, u16::MAX, verbose);
        let mut a = Attr::open(out, true, "vlan");
        let (v, w) = (*vlan, Vlan { tpid: vm.tpid, tci: vm.tci });
        // A value that is wildcarded still shows, unless it is zero.
        a.verbose = verbose || v.vid() != 0;
        a.dec0x("vid", v.vid().into(), w.vid().into(), 0xfff);
        a.verbose = verbose || v.pcp() != 0;
        a.dec0x("pcp", v.pcp().into(), w.pcp().into(), 7);
        a.verbose = true;
        if !v.is_present() {
            a.put("cfi", format_args!("0"));
        } else if w.tci.get() & Vlan::CFI == 0 && verbose {
            a.put("cfi", format_args!("1/0"));
        }
        a.close();
        out.push_str(",encap(");
        depth += 1;
        if truncated {
            break;
        }
    }
    if !truncated {
        format_l3(out, key, m, verbose, plain);
    }
    for _ in 0..depth {
        out.push(')');
    }
}

fn eth_type(out: &mut String, v: u16, m: u16, verbose: bool) {
    if m == 0 && !verbose {
        return;
    }
    if !out.is_empty() && !out.ends_with('(') {
        out.push(',');
    }
    if m == u16::MAX {
        let _ = write!(out, "eth_type(0x{v:04x})");
    } else {
        let _ = write!(out, "eth_type(0x{v:04x}/0x{m:04x})");
    }
}

fn format_l3(out: &mut String, key: &Flow, m: &Flow, verbose: bool, plain: bool) {
    let dl_type = key.dl_type.get();
    if dl_type == ETH_NONE {
        // No Ethertype in the packet, but the mask looked whether there is one.
        if !plain && !m.dl_type.is_zero() && !out.ends_with("encap(") {
            out.push_str(if out.is_empty() { "" } else { "," });
            out.push_str("eth_type(0/0xffff)");
        }
        return;
    }
    if key.packet_type.is_zero() || !plain {
        eth_type(out, dl_type, m.dl_type.get(), verbose);
    }
    match dl_type {
        ETH_IP => {
            let mut a = Attr::open(out, verbose, "ipv4");
            a.ipv4("src", key.nw_src, m.nw_src);
            a.ipv4("dst", key.nw_dst, m.nw_dst);
            a.dec("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
            a.hexa("tos", key.nw_tos.into(), m.nw_tos.into(), 0xff);
            a.dec("ttl", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
            a.frag(key.nw_frag, m.nw_frag);
            a.close();
        }
        ETH_IPV6 => {
            let mut a = Attr::open(out, verbose, "ipv6");
            a.ipv6("src", key.ipv6_src, m.ipv6_src);
            a.ipv6("dst", key.ipv6_dst, m.ipv6_dst);
            let label = 0xf_ffff;
            a.hexa("label", key.ipv6_label.get().into(), (m.ipv6_label.get() & label).into(), label.into());
            a.dec("proto", key.nw_proto.into(), m.nw_proto.into(), 0xff);
            a.hexa("tclass", key.nw_tos.into(), m.nw_tos.into(), 0xff);
            a.dec("hlimit", key.nw_ttl.into(), m.nw_ttl.into(), 0xff);
            a.frag(key.nw_frag, m.nw_frag);
            a.close();
        }
        ETH_ARP | ETH_RARP => {
            let mut a = Attr::open(out, verbose, "arp");
            a.ipv4("sip", key.nw_src, m.nw_src);
            a.ipv4("tip", key.nw_dst, m.nw_dst);
            a.dec("op", key.nw_proto.into(), m.nw_proto.into(), 0xff);
            a.mac("sha", key.arp_sha, m.arp_sha);
            a.mac("tha", key.arp_tha, m.arp_tha);
            a.close();
            return;
        }
        ETH_MPLS | ETH_MPLS_MCAST => {
            format_mpls(out, key, m, plain, verbose);
            return;
        }
        ETH_NSH => {
            let mut mask = m.nsh;
            if !plain && key.nsh.mdtype != 1 {
                // A key without the context of type 1 says so.
                mask.context = [Be32::MAX; 4];
            }
            let at = out.len();
            format_nsh(out, &key.nsh, &mask, false);
            if out.len() == at {
                out.push_str(if out.is_empty() || out.ends_with('(') { "nsh()" } else { ",nsh()" });
            }
            return;
        }
        _ => return,
    }
    if key.nw_frag & Flow::FRAG_LATER == 0 {
        format_l4(out, key, m, verbose);
    }
}

/// Labels in a row, all told. Under a mask all of them have theirs, unless nothing is looked at.
fn format_mpls(out: &mut String, key: &Flow, m: &Flow, plain: bool, verbose: bool) {
    if !verbose && m.mpls_lse.iter().all(|lse| lse.is_zero()) || key.mpls_lse[0].is_zero() {
        return;
    }
    let n = key.mpls_lse.iter().position(|lse| lse.get() & 0x100 != 0).map_or(key.mpls_lse.len(), |i| i + 1);
    let plain = plain || m.mpls_lse[..n].iter().all(|lse| *lse == Be32::MAX);
    let a = Attr::open(out, true, "mpls");
    for (lse, lm) in key.mpls_lse.iter().zip(&m.mpls_lse) {
        let parts = |w: u32| (w >> 12, w >> 9 & 7, w & 0xff, w >> 8 & 1);
        let ((label, tc, ttl, bos), (ml, mtc, mttl, mbos)) = (parts(lse.get()), parts(lm.get()));
        let _ = if plain {
            write!(a.out, "label={label},tc={tc},ttl={ttl},bos={bos},")
        } else {
            write!(a.out, "label={label}/0x{ml:x},tc={tc}/{mtc:x},ttl={ttl}/0x{mttl:x},bos={bos}/{mbos:x},")
        };
        if bos != 0 || mbos == 0 {
            break;
        }
    }
    a.out.pop();
    a.close();
}

/// Appends `nsh(...)`; also used by `set(nsh(...))`.
pub(super) fn format_nsh(out: &mut String, v: &ib_flow::key::Nsh, m: &ib_flow::key::Nsh, verbose: bool) {
    let mut a = Attr::open(out, verbose, "nsh");
    a.dec("flags", v.flags.into(), m.flags.into(), 0xff);
    a.dec("ttl", v.ttl.into(), m.ttl.into(), 0xff);
    a.dec("mdtype", v.mdtype.into(), m.mdtype.into(), 0xff);
    a.dec("np", v.np.into(), m.np.into(), 0xff);
    let (p, pm) = (v.path_hdr.get(), m.path_hdr.get());
    a.hexa0x("spi", p >> 8, pm >> 8, 0xff_ffff);
    a.dec("si", p & 0xff, pm & 0xff, 0xff);
    for (i, (c, cm)) in v.context.iter().zip(&m.context).enumerate() {
        a.hexa0x(&format!("c{}", i + 1), c.get(), cm.get(), u32::MAX);
    }
    a.close();
}

fn format_l4(out: &mut String, key: &Flow, m: &Flow, verbose: bool) {
    let ports = |out: &mut String, name: &str, a_name: &str, b_name: &str, full: u32| {
        let mut a = Attr::open(out, verbose, name);
        a.dec(a_name, key.tp_src.get().into(), u32::from(m.tp_src.get()) & full, full);
        a.dec(b_name, key.tp_dst.get().into(), u32::from(m.tp_dst.get()) & full, full);
        a.close();
    };
    match (key.dl_type.get(), key.nw_proto) {
        (_, 6) => {
            ports(out, "tcp", "src", "dst", 0xffff);
            let tm = u32::from(m.tcp_flags.get()) & 0xfff;
            if tm != 0 || verbose {
                let a = Attr::open(out, true, "tcp_flags");
                a.out.push_str(&flags_masked(key.tcp_flags.get().into(), tm, 0xfff, TCP_FLAGS));
                a.close();
            }
        }
        (_, 17) => ports(out, "udp", "src", "dst", 0xffff),
        (_, 132) => ports(out, "sctp", "src", "dst", 0xffff),
        (ETH_IP, 1) => ports(out, "icmp", "type", "code", 0xff),
        (ETH_IPV6, 58) => {
            ports(out, "icmpv6", "type", "code", 0xff);
            if matches!(key.tp_src.get(), 135 | 136) && key.tp_dst.is_zero() {
                let mut a = Attr::open(out, verbose, "nd");
                a.ipv6("target", key.nd_target, m.nd_target);
                a.mac("sll", key.arp_sha, m.arp_sha);
                a.mac("tll", key.arp_tha, m.arp_tha);
                a.close();
            }
        }
        _ => {}
    }
}

/// Every bit set.
fn exact_mask() -> Mask {
    let mut m = Mask::default();
    m.0.words_mut().fill(u64::MAX);
    m
}

// Parsing.

/// One value with optional mask; `full` is the mask when none is written.
fn masked<T>(s: &mut Scan<'_>, full: T, mut one: impl FnMut(&mut Scan<'_>) -> Res<T>) -> Res<(T, T)> {
    let v = one(s)?;
    let m = if s.eat("/") { one(s)? } else { full };
    Ok((v, m))
}

/// Visits `name=value` pairs up to the closing parenthesis; `each` parses the value behind `name=`.
pub(super) fn pairs(s: &mut Scan<'_>, mut each: impl FnMut(&mut Scan<'_>, &str) -> Res<()>) -> Res<()> {
    loop {
        s.skip_delimiters();
        if s.eat(")") {
            return Ok(());
        }
        let name = s.word();
        if name.is_empty() {
            return s.err("expected a field name");
        }
        if !s.eat("=") && !s.rest().starts_with('(') {
            return s.err(format!("expected '=' after '{name}'"));
        }
        each(s, name)?;
    }
}

pub(super) fn num_pair(s: &mut Scan<'_>, max: u128) -> Res<(u128, u128)> {
    masked(s, max, |s| s.number(max))
}
pub(super) fn mac_pair(s: &mut Scan<'_>) -> Res<(Mac, Mac)> {
    masked(s, Mac::BROADCAST, |s| s.mac())
}
pub(super) fn ipv4_pair(s: &mut Scan<'_>) -> Res<(Be32, Be32)> {
    masked(s, Be32::MAX, |s| s.ipv4().map(Be32::from))
}
pub(super) fn ipv6_pair(s: &mut Scan<'_>) -> Res<(Be128, Be128)> {
    masked(s, Be128::MAX, |s| s.ipv6().map(Be128::from))
}
fn narrow16(v: u128) -> u16 {
    u16::try_from(v).unwrap_or(u16::MAX)
}
fn narrow8(v: u128) -> u8 {
    u8::try_from(v).unwrap_or(u8::MAX)
}
pub(super) fn u8_pair(s: &mut Scan<'_>) -> Res<(u8, u8)> {
    num_pair(s, 0xff).map(|(v, m)| (narrow8(v), narrow8(m)))
}
pub(super) fn be16_pair(s: &mut Scan<'_>) -> Res<(Be16, Be16)> {
    num_pair(s, 0xffff).map(|(v, m)| (Be16::new(narrow16(v)), Be16::new(narrow16(m))))
}
fn u32_pair(s: &mut Scan<'_>) -> Res<(u32, u32)> {
    masked(s, u32::MAX, |s| s.u32())
}
fn frag_pair(s: &mut Scan<'_>) -> Res<(u8, u8)> {
    let v = match s.word() {
        "no" => 0,
        "first" => Flow::FRAG_ANY,
        "later" => Flow::FRAG_ANY | Flow::FRAG_LATER,
        _ => return s.err("expected no, first or later"),
    };
    let m = if s.eat("/") { s.u8()? } else { 3 };
    Ok((v, m))
}

/// Parses a key with optional masks, e.g. the argument of `dpctl/add-flow`. A field without `/mask` is
/// exact; fields that are not named are wildcarded. Key bits outside of the mask are kept as written, for callers
/// that want a packet's key; use the mask to clear them.
///
/// Errors: unknown attributes and malformed values, with the place.
pub fn parse_key(text: &str, names: &PortNames) -> Result<(Flow, Mask), ParseError> {
    let mut s = Scan::new(text);
    let mut p = KeyParser {
        f: Flow::zeroed(),
        m: Flow::zeroed(),
        names,
        vlans: 0,
        labels: 0,
        has_eth: false,
        has_type: false,
    };
    p.f.in_port = u32::MAX;
    p.attributes(&mut s, 0)?;
    if !s.at_end() {
        return s.err("unexpected text behind the key");
    }
    if !p.has_eth && p.has_type && p.f.packet_type.is_zero() && p.m.dl_type == Be16::MAX {
        // A key without Ethernet header is one of a packet that begins with what its type says.
        p.f.packet_type = Be32::new(1 << 16 | u32::from(p.f.dl_type.get()));
        p.m.packet_type = Be32::MAX;
    } else if !p.has_type && p.f.packet_type.is_zero() {
        p.f.dl_type = Be16::new(ETH_NONE);
    }
    Ok((p.f, Mask(p.m)))
}

struct KeyParser<'a> {
    f: Flow,
    m: Flow,
    names: &'a PortNames,
    vlans: usize,
    labels: usize,
    has_eth: bool,
    has_type: bool,
}

impl KeyParser<'_> {
    fn attributes(&mut self, s: &mut Scan<'_>, depth: usize) -> Res<()> {
        loop {
            s.skip_delimiters();
            if s.at_end() || depth > 0 && s.rest().starts_with(')') {
                return Ok(());
            }
            if s.eat("ufid:") {
                s.take(|b| b.is_ascii_hexdigit() || b == b'-');
                continue;
            }
            let name = s.word();
            s.expect("(")?;
            match name {
                "encap" => {
                    if depth >= ib_flow::key::N_VLANS {
                        return s.err("too many nested encap");
                    }
                    self.attributes(s, depth + 1)?;
                    s.expect(")")?;
                }
                "eth" | "ipv4" | "ipv6" | "tcp" | "udp" | "sctp" | "icmp" | "icmpv6" | "arp" | "nd"
                | "mpls" | "vlan" | "tunnel" | "ct_tuple4" | "ct_tuple6" | "packet_type" | "nsh"
                | "nd_ext" => {
                    pairs(s, |s, field| self.field(s, name, field))?;
                    self.implied(name);
                }
                _ => {
                    self.scalar(s, name)?;
                    s.expect(")")?;
                }
            }
        }
    }

    /// What naming an attribute says by itself.
    fn implied(&mut self, name: &str) {
        self.has_eth |= name == "eth";
        if name == "vlan" {
            if let (Some(v), Some(m)) = (self.f.vlans.get_mut(self.vlans), self.m.vlans.get_mut(self.vlans)) {
                // A `vlan()` attribute is a tag that is present unless it says `cfi=0`.
                if m.tci.get() & Vlan::CFI == 0 {
                    v.tci |= Be16::new(Vlan::CFI);
                    m.tci |= Be16::new(Vlan::CFI);
                }
            }
            self.vlans += 1;
        }
    }

    fn scalar(&mut self, s: &mut Scan<'_>, name: &str) -> Res<()> {
        let (f, m) = (&mut self.f, &mut self.m);
        match name {
            "skb_priority" => (f.skb_priority, m.skb_priority) = u32_pair(s)?,
            "skb_mark" => (f.pkt_mark, m.pkt_mark) = u32_pair(s)?,
            "recirc_id" => (f.recirc_id, m.recirc_id) = u32_pair(s)?,
            "dp_hash" => (f.dp_hash, m.dp_hash) = u32_pair(s)?,
            "ct_mark" => (f.ct_mark, m.ct_mark) = u32_pair(s)?,
            "ct_zone" => {
                let (v, w) = num_pair(s, 0xffff)?;
                (f.ct_zone, m.ct_zone) = (narrow16(v), narrow16(w));
            }
            "ct_label" => {
                let (v, w) = num_pair(s, u128::MAX)?;
                (f.ct_label, m.ct_label) = (Be128::new(v), Be128::new(w));
            }
            "ct_state" => {
                let (v, w) = parse_flags(s, 0xff, CT_STATE)?;
                (f.ct_state, m.ct_state) = (narrow8(v.into()), narrow8(w.into()));
            }
            "tcp_flags" => {
                let (v, w) = parse_flags(s, 0xfff, TCP_FLAGS)?;
                (f.tcp_flags, m.tcp_flags) = (Be16::new(narrow16(v.into())), Be16::new(narrow16(w.into())));
            }
            "in_port" => {
                if s.rest().starts_with(|c: char| c.is_ascii_digit()) {
                    (f.in_port, m.in_port) = u32_pair(s)?;
                } else {
                    let word = s.name();
                    match self.names.number(word) {
                        Some(p) => (f.in_port, m.in_port) = (p.0, u32::MAX),
                        None => return s.err(format!("no port named '{word}'")),
                    }
                }
            }
            "eth_type" => {
                let (v, w) = num_pair(s, 0xffff)?;
                let (v, w) = (narrow16(v), narrow16(w));
                // Behind a tag this is the inner type; a tag's own type comes before its `vlan()`.
                let is_tag = matches!(v, 0x8100 | 0x88a8) && self.vlans < ib_flow::key::N_VLANS;
                if is_tag {
                    f.vlans[self.vlans].tpid = Be16::new(v);
                    m.vlans[self.vlans].tpid = Be16::new(w);
                } else {
                    self.has_type = true;
                    (f.dl_type, m.dl_type) =
                        (Be16::new(if v == 0 && w == 0xffff { ETH_NONE } else { v }), Be16::new(w));
                }
            }
            _ => return s.err(format!("unknown attribute '{name}'")),
        }
        Ok(())
    }

    fn field(&mut self, s: &mut Scan<'_>, attr: &str, field: &str) -> Res<()> {
        let (f, m) = (&mut self.f, &mut self.m);
        match (attr, field) {
            ("eth", "src") => (f.dl_src, m.dl_src) = mac_pair(s)?,
            ("eth", "dst") => (f.dl_dst, m.dl_dst) = mac_pair(s)?,
            ("packet_type", "ns") => {
                let ns = s.u16()?;
                f.packet_type = Be32::new(u32::from(ns) << 16 | f.packet_type.get() & 0xffff);
                m.packet_type = Be32::MAX;
            }
            ("packet_type", "id") => {
                let id = s.u16()?;
                f.packet_type = Be32::new(f.packet_type.get() & 0xffff_0000 | u32::from(id));
                m.packet_type = Be32::MAX;
                if f.packet_type.get() >> 16 == 1 {
                    self.has_type = true;
                    (f.dl_type, m.dl_type) = (Be16::new(id), Be16::MAX);
                }
            }
            ("vlan", _) => return self.vlan_field(s, field),
            ("mpls", _) => return self.mpls_field(s, field),
            ("tunnel", _) => return tunnel_field(s, field, &mut f.tunnel, &mut m.tunnel),
            ("nsh", _) => return nsh_field(s, field, &mut f.nsh, &mut m.nsh),
            ("ipv4", "src") | ("arp", "sip") => (f.nw_src, m.nw_src) = ipv4_pair(s)?,
            ("ipv4", "dst") | ("arp", "tip") => (f.nw_dst, m.nw_dst) = ipv4_pair(s)?,
            ("ipv6", "src") => (f.ipv6_src, m.ipv6_src) = ipv6_pair(s)?,
            ("ipv6", "dst") => (f.ipv6_dst, m.ipv6_dst) = ipv6_pair(s)?,
            ("ipv6", "label") => {
                let (v, w) = num_pair(s, 0xf_ffff)?;
                let be = |v: u128| Be32::new(u32::try_from(v).unwrap_or(0));
                (f.ipv6_label, m.ipv6_label) = (be(v), be(w));
            }
            ("ipv4" | "ipv6", "proto") => (f.nw_proto, m.nw_proto) = u8_pair(s)?,
            ("ipv4", "tos") | ("ipv6", "tclass") => (f.nw_tos, m.nw_tos) = u8_pair(s)?,
            ("ipv4", "ttl") | ("ipv6", "hlimit") => (f.nw_ttl, m.nw_ttl) = u8_pair(s)?,
            ("ipv4" | "ipv6", "frag") => (f.nw_frag, m.nw_frag) = frag_pair(s)?,
            ("arp", "op") => {
                let (v, w) = num_pair(s, 0xffff)?;
                (f.nw_proto, m.nw_proto) = (narrow8(v), (w & 0xff) as u8);
            }
            ("arp", "sha") | ("nd", "sll") => (f.arp_sha, m.arp_sha) = mac_pair(s)?,
            ("arp", "tha") | ("nd", "tll") => (f.arp_tha, m.arp_tha) = mac_pair(s)?,
            ("nd", "target") => (f.nd_target, m.nd_target) = ipv6_pair(s)?,
            ("nd_ext", "nd_reserved") => {
                let (v, w) = u32_pair(s)?;
                (f.igmp_group_ip4, m.igmp_group_ip4) = (Be32::new(v), Be32::new(w));
            }
            ("nd_ext", "nd_options_type") => (f.tcp_flags, m.tcp_flags) = be16_pair(s)?,
            ("tcp" | "udp" | "sctp", "src") => (f.tp_src, m.tp_src) = be16_pair(s)?,
            ("tcp" | "udp" | "sctp", "dst") => (f.tp_dst, m.tp_dst) = be16_pair(s)?,
            ("icmp" | "icmpv6", "type" | "code") => {
                let (v, w) = u8_pair(s)?;
                let wide = (Be16::new(v.into()), Be16::new(if w == 0xff { 0xffff } else { w.into() }));
                if field == "type" {
                    (f.tp_src, m.tp_src) = wide;
                } else {
                    (f.tp_dst, m.tp_dst) = wide;
                }
            }
            ("ct_tuple4", "src") => (f.ct_nw_src, m.ct_nw_src) = ipv4_pair(s)?,
            ("ct_tuple4", "dst") => (f.ct_nw_dst, m.ct_nw_dst) = ipv4_pair(s)?,
            ("ct_tuple6", "src") => (f.ct_ipv6_src, m.ct_ipv6_src) = ipv6_pair(s)?,
            ("ct_tuple6", "dst") => (f.ct_ipv6_dst, m.ct_ipv6_dst) = ipv6_pair(s)?,
            ("ct_tuple4" | "ct_tuple6", "proto") => (f.ct_nw_proto, m.ct_nw_proto) = u8_pair(s)?,
            ("ct_tuple4" | "ct_tuple6", "tp_src") => (f.ct_tp_src, m.ct_tp_src) = be16_pair(s)?,
            ("ct_tuple4" | "ct_tuple6", "tp_dst") => (f.ct_tp_dst, m.ct_tp_dst) = be16_pair(s)?,
            _ => return s.err(format!("unknown field '{field}' of {attr}")),
        }
        Ok(())
    }

    fn vlan_field(&mut self, s: &mut Scan<'_>, field: &str) -> Res<()> {
        let Some((v, m)) = self.f.vlans.get_mut(self.vlans).zip(self.m.vlans.get_mut(self.vlans)) else {
            return s.err("too many VLAN tags");
        };
        if v.tpid.is_zero() {
            v.tpid = Be16::new(0x8100);
            m.tpid = Be16::MAX;
        }
        let (bits, shift, max) = match field {
            "vid" => (Vlan::VID_MASK, 0, 0xfff),
            "pcp" => (Vlan::PCP_MASK, 13, 7),
            "cfi" => (Vlan::CFI, 12, 1),
            "tci" => (u16::MAX, 0, 0xffff),
            _ => return s.err(format!("unknown field '{field}' of vlan")),
        };
        let (val, mask) = num_pair(s, max)?;
        v.tci = v.tci & !Be16::new(bits) | Be16::new(narrow16(val << shift));
        m.tci = m.tci & !Be16::new(bits) | Be16::new(narrow16(mask << shift));
        Ok(())
    }

    fn mpls_field(&mut self, s: &mut Scan<'_>, field: &str) -> Res<()> {
        let stem = field.trim_end_matches(|c: char| c.is_ascii_digit());
        // Without a number the fields of one label follow those of another, each beginning with its `label`.
        self.labels += usize::from(field == "label");
        let index: usize = field[stem.len()..].parse().unwrap_or(self.labels.saturating_sub(1));
        let (Some(v), Some(m)) = (self.f.mpls_lse.get_mut(index), self.m.mpls_lse.get_mut(index)) else {
            return s.err("too many MPLS labels");
        };
        let (shift, max) = match stem {
            "label" => (12, 0xf_ffff),
            "tc" => (9, 7),
            "bos" => (8, 1),
            "ttl" => (0, 0xff),
            "lse" => (0, u32::MAX.into()),
            _ => return s.err(format!("unknown field '{field}' of mpls")),
        };
        let (val, mask) = num_pair(s, max)?;
        let place = |x: u128| Be32::new(u32::try_from(x << shift).unwrap_or(u32::MAX));
        *v = *v & !place(max) | place(val);
        *m = *m & !place(max) | place(mask);
        Ok(())
    }
}

/// One field of `tunnel(...)`.
pub(super) fn tunnel_field(s: &mut Scan<'_>, field: &str, t: &mut Tunnel, m: &mut Tunnel) -> Res<()> {
    match field {
        "tun_id" => {
            let (v, w) = masked(s, u64::MAX, |s| s.u64())?;
            (t.tun_id, m.tun_id) = (Be64::new(v), Be64::new(w));
        }
        "src" => (t.ip_src, m.ip_src) = ipv4_pair(s)?,
        "dst" => (t.ip_dst, m.ip_dst) = ipv4_pair(s)?,
        "ipv6_src" => (t.ipv6_src, m.ipv6_src) = ipv6_pair(s)?,
        "ipv6_dst" => (t.ipv6_dst, m.ipv6_dst) = ipv6_pair(s)?,
        "tos" => (t.ip_tos, m.ip_tos) = u8_pair(s)?,
        "ttl" => (t.ip_ttl, m.ip_ttl) = u8_pair(s)?,
        "tp_src" => (t.tp_src, m.tp_src) = be16_pair(s)?,
        "tp_dst" => (t.tp_dst, m.tp_dst) = be16_pair(s)?,
        "vxlan" => {
            s.expect("(gbp(")?;
            pairs(s, |s, name| {
                match name {
                    "id" => (t.gbp_id, m.gbp_id) = be16_pair(s)?,
                    "flags" => (t.gbp_flags, m.gbp_flags) = u8_pair(s)?,
                    _ => return s.err(format!("unknown field '{name}' of gbp")),
                }
                Ok(())
            })?;
            s.expect(")")?;
        }
        "erspan" => {
            s.expect("(")?;
            pairs(s, |s, name| {
                match name {
                    "ver" => (t.erspan_ver, m.erspan_ver) = u8_pair(s)?,
                    "idx" => {
                        (t.erspan_idx, m.erspan_idx) = masked(s, 0xf_ffff, |s| s.u32())?;
                    }
                    "dir" => (t.erspan_dir, m.erspan_dir) = u8_pair(s)?,
                    "hwid" => (t.erspan_hwid, m.erspan_hwid) = u8_pair(s)?,
                    _ => return s.err(format!("unknown field '{name}' of erspan")),
                }
                Ok(())
            })?;
        }
        "gtpu" => {
            s.expect("(")?;
            pairs(s, |s, name| {
                match name {
                    "flags" => (t.gtpu_flags, m.gtpu_flags) = u8_pair(s)?,
                    "msgtype" => (t.gtpu_msgtype, m.gtpu_msgtype) = u8_pair(s)?,
                    _ => return s.err(format!("unknown field '{name}' of gtpu")),
                }
                Ok(())
            })?;
        }
        "geneve" => {
            s.expect("(")?;
            let len = parse_geneve(s, &mut t.opts, &mut m.opts)?;
            t.opts_present = len as u64;
            t.flags |= ib_flow::TunFlags::UDPIF;
            m.opts_present = u64::MAX;
        }
        "flags" => {
            s.expect("(")?;
            let max = TUN_FLAGS.iter().map(|(b, _)| b).sum();
            let (v, w) = parse_flags(s, max, TUN_FLAGS)?;
            s.expect(")")?;
            t.flags = t.flags & ib_flow::TunFlags::UDPIF | narrow16(v.into());
            m.flags |= narrow16(w.into());
        }
        _ => return s.err(format!("unknown field '{field}' of tunnel")),
    }
    Ok(())
}

/// `{class=..,type=..,len=..,0x..}...)` into raw options and their mask; returns their length in bytes.
fn parse_geneve(s: &mut Scan<'_>, opts: &mut [u8; 256], mask: &mut [u8; 256]) -> Res<usize> {
    let mut at = 0;
    while s.eat("{class=") {
        let class = s.u16()?;
        s.expect(",type=")?;
        let kind = s.u8()?;
        s.expect(",len=")?;
        let len = usize::from(s.u8()?);
        let mut digits = "";
        if s.eat(",0x") {
            digits = s.take(|b| b.is_ascii_hexdigit());
        } else if s.eat(",") {
            digits = s.take(|b| b.is_ascii_hexdigit());
        }
        let wanted = if s.eat("/0x") { Some(s.take(|b| b.is_ascii_hexdigit())) } else { None };
        s.expect("}")?;
        s.eat(",");
        if wanted.is_some_and(|w| w.len() > 2 * len) {
            return s.err("bad Geneve option mask");
        }
        if len % 4 != 0 || len > 124 || at + 4 + len > 252 || digits.len() > 2 * len {
            return s.err("bad Geneve option length");
        }
        let words = u8::try_from(len / 4).unwrap_or(0);
        opts[at..at + 4].copy_from_slice(&[(class >> 8) as u8, (class & 0xff) as u8, kind, words]);
        put_digits(&mut opts[at + 4..at + 4 + len], digits);
        mask[at..at + 4 + len].fill(u8::MAX);
        if let Some(wanted) = wanted {
            put_digits(&mut mask[at + 4..at + 4 + len], wanted);
        }
        at += 4 + len;
    }
    s.expect(")")?;
    Ok(at)
}

/// A hexadecimal number of at most two digits a byte into `out`, right-aligned.
fn put_digits(out: &mut [u8], digits: &str) {
    let padded = format!("{digits:0>width$}", width = 2 * out.len());
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&padded[2 * i..2 * i + 2], 16).unwrap_or(0);
    }
}

/// One field of `nsh(...)`.
pub(super) fn nsh_field(
    s: &mut Scan<'_>,
    field: &str,
    v: &mut ib_flow::key::Nsh,
    m: &mut ib_flow::key::Nsh,
) -> Res<()> {
    match field {
        "flags" => (v.flags, m.flags) = u8_pair(s)?,
        "ttl" => (v.ttl, m.ttl) = u8_pair(s)?,
        "mdtype" => (v.mdtype, m.mdtype) = u8_pair(s)?,
        "np" => (v.np, m.np) = u8_pair(s)?,
        "spi" => {
            let (x, w) = num_pair(s, 0xff_ffff)?;
            let place = |x: u128| Be32::new(u32::try_from(x << 8).unwrap_or(0));
            v.path_hdr = v.path_hdr & Be32::new(0xff) | place(x);
            m.path_hdr = m.path_hdr & Be32::new(0xff) | place(w);
        }
        "si" => {
            let (x, w) = u8_pair(s)?;
            v.path_hdr = v.path_hdr & !Be32::new(0xff) | Be32::new(x.into());
            m.path_hdr = m.path_hdr & !Be32::new(0xff) | Be32::new(w.into());
        }
        "c1" | "c2" | "c3" | "c4" => {
            let i = usize::from(field.as_bytes()[1] - b'1');
            let (x, w) = u32_pair(s)?;
            (v.context[i], m.context[i]) = (Be32::new(x), Be32::new(w));
        }
        _ => return s.err(format!("unknown field '{field}' of nsh")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_order_is_its_own() {
        let names = PortNames::none();
        let text =
            "ct_state(+trk),recirc_id(0),in_port(1),eth(),eth_type(0x0806),arp(op=2,sha=00:00:00:00:00:01)";
        let (key, mut mask) = parse_key(text, &names).unwrap();
        mask.0.recirc_id = u32::MAX;
        assert_eq!(
            format_kernel_key(&key, Some(&mask), &names, false),
            "recirc_id(0),in_port(1),ct_state(+trk),eth(),eth_type(0x0806),arp(op=2/0xff,sha=00:00:00:00:00:01)"
        );
    }

    fn names() -> PortNames {
        let mut n = PortNames::none();
        n.add(OdpPort(1), "p1");
        n
    }

    /// Parses and prints again, masked and verbose.
    fn check(text: &str, terse: &str, verbose: &str) {
        let (f, m) = parse_key(text, &names()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(format_key(&f, Some(&m), &PortNames::none(), false), terse);
        assert_eq!(format_key(&f, Some(&m), &names(), true), verbose);
    }

    #[test]
    fn a_megaflow_prints_as_dump_flows_does() {
        check(
            "recirc_id(0),in_port(p1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01/00:00:00:00:00:00,dst=50:54:00:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.0.0.2/255.0.0.0,proto=6,tos=0/0,ttl=64,frag=no),tcp(src=8/0,dst=80/0),tcp_flags(0/0)",
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(dst=50:54:00:00:00:02),eth_type(0x0800),ipv4(dst=10.0.0.2/255.0.0.0,proto=6,ttl=64,frag=no)",
            "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01/00:00:00:00:00:00,dst=50:54:00:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.0.0.2/255.0.0.0,proto=6,tos=0/0,ttl=64,frag=no),tcp(src=8/0,dst=80/0),tcp_flags(0/0)",
        );
    }

    #[test]
    fn tags_nest_and_keep_their_masks() {
        check(
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x8100),vlan(vid=10,pcp=3/0x0),encap(eth_type(0x0800),ipv4(src=12.0.0.1/0.0.0.0,dst=12.0.0.2/252.0.0.0,proto=17/0,tos=0/0,ttl=64/0,frag=no),udp(src=8/0,dst=80/0))",
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x8100),vlan(vid=10,pcp=3/0x0),encap(eth_type(0x0800),ipv4(dst=12.0.0.2/252.0.0.0,frag=no))",
            "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x8100),vlan(vid=10,pcp=3/0x0),encap(eth_type(0x0800),ipv4(src=12.0.0.1/0.0.0.0,dst=12.0.0.2/252.0.0.0,proto=17/0,tos=0/0,ttl=64/0,frag=no),udp(src=8/0,dst=80/0))",
        );
    }

    #[test]
    fn labels_tell_all_their_masks() {
        let head = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),\
                    eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x8847)";
        for (text, plain) in [
            ("mpls(label=100/0xfffff,tc=0/0,ttl=64/0x0,bos=1/0)", "mpls(label=100,tc=0,ttl=64,bos=1)"),
            (
                "mpls(label=100/0x0,tc=0/0,ttl=64/0x0,bos=0/1,label=7/0xfffff,tc=0/7,ttl=64/0xff,bos=1/1)",
                "mpls(label=100,tc=0,ttl=64,bos=0,label=7,tc=0,ttl=64,bos=1)",
            ),
        ] {
            let text = format!("{head},{text}");
            let (key, mask) = parse_key(&text, &PortNames::none()).unwrap();
            assert_eq!(format_key(&key, Some(&mask), &PortNames::none(), false), text);
            assert!(format_key(&key, None, &PortNames::none(), false).ends_with(plain), "{plain}");
        }
    }

    #[test]
    fn bad_text_is_an_error_with_a_place() {
        for bad in [
            "foo(1)",
            "in_port(",
            "eth(src=1)",
            "ipv4(src=1.2.3.4.5)",
            "in_port(nope)",
            "vlan(vid=5000)",
            "eth(src=aa:bb:cc:dd:ee:ff",
        ] {
            assert!(parse_key(bad, &PortNames::none()).is_err(), "{bad}");
        }
    }
}
