//! A tunnel's options: from the Interface row's `options` to [`TunnelConfig`], and back as they are shown.
//!
//! [`parse`] is total: what makes no sense becomes a message. With a fatal one there is no configuration; the others
//! are warnings. Numbers are read the lenient way of C's `atoi`, which rows in the field rely on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::kind::Kind;

/// TTL of outer packets unless configured.
pub const DEFAULT_TTL: u8 = 64;

/// What kind of packets a tunnel port takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketTypeMode {
    /// Ethernet frames only.
    LegacyL2,
    /// Packets without Ethernet header only; the pipeline sees them with one of zeros.
    LegacyL3,
    /// Both, told apart by `packet_type`.
    Aware,
}

impl PacketTypeMode {
    /// As in options.
    pub fn name(self) -> &'static str {
        match self {
            PacketTypeMode::LegacyL2 => "legacy_l2",
            PacketTypeMode::LegacyL3 => "legacy_l3",
            PacketTypeMode::Aware => "ptap",
        }
    }
}

/// A value that is fixed or comes with each packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrFlow<T> {
    /// By configuration.
    Fixed(T),
    /// The flow says.
    Flow,
}

impl<T: Copy> OrFlow<T> {
    /// Whether the flow says.
    pub fn is_flow(self) -> bool {
        matches!(self, OrFlow::Flow)
    }
    /// The fixed value.
    pub fn fixed(self) -> Option<T> {
        match self {
            OrFlow::Fixed(v) => Some(v),
            OrFlow::Flow => None,
        }
    }
}

/// A tunnel's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Kind.
    pub kind: Kind,
    /// Key of packets that come in; `None`: not configured, which is key 0.
    pub in_key: Option<OrFlow<u64>>,
    /// Key of packets that go out.
    pub out_key: Option<OrFlow<u64>>,
    /// Transport port; 0 where there is none.
    pub dst_port: u16,
    /// Our address; `Fixed(None)`: any.
    pub local_ip: OrFlow<Option<IpAddr>>,
    /// The peer's.
    pub remote_ip: OrFlow<Option<IpAddr>>,
    /// VXLAN group based policy.
    pub gbp: bool,
    /// VXLAN generic protocol extension.
    pub gpe: bool,
    /// Mark of packets that go out.
    pub egress_pkt_mark: Option<u32>,
    /// Outer TTL.
    pub ttl: u8,
    /// TTL of inner packets.
    pub ttl_inherit: bool,
    /// Outer TOS, DSCP bits.
    pub tos: u8,
    /// DSCP of inner packets.
    pub tos_inherit: bool,
    /// Outer checksum.
    pub csum: bool,
    /// Outer don't-fragment bit.
    pub dont_fragment: bool,
    /// Packet types.
    pub mode: PacketTypeMode,
    /// GRE sequence numbers.
    pub seq: bool,
    /// ERSPAN version: 0, 1, 2.
    pub erspan_ver: OrFlow<u8>,
    /// ERSPAN index, 20 bits.
    pub erspan_idx: OrFlow<u32>,
    /// ERSPAN direction.
    pub erspan_dir: OrFlow<u8>,
    /// ERSPAN hardware id, 6 bits.
    pub erspan_hwid: OrFlow<u8>,
    /// SRv6 segments, first to visit first.
    pub srv6_segs: Vec<Ipv6Addr>,
    /// SRv6 flow label.
    pub srv6_flowlabel: FlowLabel,
    /// bareudp: Ethertype of what is inside.
    pub payload_ethertype: u16,
}

/// Outer flow label of SRv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowLabel {
    /// That of an inner IPv6 packet.
    Copy,
    /// Zero.
    Zero,
    /// By hash.
    Compute,
}

/// What came of reading options.
pub struct Parsed {
    /// The configuration, or nothing if a message is fatal.
    pub config: Result<TunnelConfig, ()>,
    /// Messages in order.
    pub messages: Vec<String>,
}

impl TunnelConfig {
    /// That of a tunnel without options.
    pub fn new(kind: Kind) -> TunnelConfig {
        TunnelConfig {
            kind,
            in_key: None,
            out_key: None,
            dst_port: kind.default_port().unwrap_or(0),
            local_ip: OrFlow::Fixed(None),
            remote_ip: OrFlow::Fixed(None),
            gbp: false,
            gpe: false,
            egress_pkt_mark: None,
            ttl: DEFAULT_TTL,
            ttl_inherit: false,
            tos: 0,
            tos_inherit: false,
            csum: false,
            dont_fragment: true,
            mode: if kind.carries_l2() { PacketTypeMode::LegacyL2 } else { PacketTypeMode::LegacyL3 },
            seq: false,
            erspan_ver: OrFlow::Fixed(0),
            erspan_idx: OrFlow::Fixed(0),
            erspan_dir: OrFlow::Fixed(0),
            erspan_hwid: OrFlow::Fixed(0),
            srv6_segs: Vec::new(),
            srv6_flowlabel: FlowLabel::Copy,
            payload_ethertype: 0,
        }
    }

    /// That of a datapath's own device, by its name (`vxlan_sys_4789`).
    pub fn of_device(name: &str) -> Option<TunnelConfig> {
        let (kind, port) = Kind::of_device(name)?;
        let mut config = TunnelConfig::new(kind);
        config.dst_port = port;
        config.mode = PacketTypeMode::Aware;
        Some(config)
    }

    /// Name of the datapath's device that serves tunnels like this one.
    pub fn device_name(&self) -> String {
        match self.kind.default_port() {
            Some(_) => format!("{}_{}", self.kind.device(), self.dst_port),
            None => self.kind.device().to_owned(),
        }
    }

    /// The options that differ from their defaults, as `dpif/show` has them.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut put = |k: &str, v: String| {
            out.insert(k.to_owned(), v);
        };
        for (name, ip) in [("remote_ip", self.remote_ip), ("local_ip", self.local_ip)] {
            match ip {
                OrFlow::Flow => put(name, "flow".into()),
                OrFlow::Fixed(Some(ip)) => put(name, ip.to_string()),
                OrFlow::Fixed(None) => {}
            }
        }
        let key = |k: OrFlow<u64>| k.fixed().map_or("flow".to_owned(), |k| k.to_string());
        match (self.in_key, self.out_key) {
            (Some(i), Some(o)) if i == o => put("key", key(i)),
            (i, o) => {
                i.into_iter().for_each(|k| put("in_key", key(k)));
                o.into_iter().for_each(|k| put("out_key", key(k)));
            }
        }
        if self.ttl_inherit {
            put("ttl", "inherit".into());
        } else if self.ttl != DEFAULT_TTL {
            put("ttl", self.ttl.to_string());
        }
        if self.tos_inherit {
            put("tos", "inherit".into());
        } else if self.tos != 0 {
            put("tos", format!("{:#x}", self.tos));
        }
        if self.dst_port != 0 && Some(self.dst_port) != self.kind.default_port() {
            put("dst_port", self.dst_port.to_string());
        }
        if self.csum {
            put("csum", "true".into());
        }
        if self.seq {
            put("seq", "true".into());
        }
        let default_mode = TunnelConfig::new(self.kind).mode;
        if self.mode != default_mode {
            put("packet_type", self.mode.name().into());
        }
        if !self.dont_fragment {
            put("df_default", "false".into());
        }
        if let Some(mark) = self.egress_pkt_mark {
            put("egress_pkt_mark", mark.to_string());
        }
        if self.kind.is_erspan() {
            self.show_erspan(&mut put);
        }
        out
    }

    fn show_erspan(&self, put: &mut dyn FnMut(&str, String)) {
        let flow = "flow".to_owned();
        let version = self.erspan_ver.fixed();
        put("erspan_ver", version.map_or(flow.clone(), |v| v.to_string()));
        if version.is_none_or(|v| v == 1) {
            let idx = self.erspan_idx.fixed();
            put("erspan_idx", idx.map_or(flow.clone(), |v| format!("{v:#x}")));
        }
        if version.is_none_or(|v| v == 2) {
            let dir = self.erspan_dir.fixed();
            put("erspan_dir", dir.map_or(flow.clone(), |v| v.to_string()));
            let hwid = self.erspan_hwid.fixed();
            put("erspan_hwid", hwid.map_or(flow, |v| format!("{v:#x}")));
        }
    }
}

/// C's `atoi`: what digits there are.
fn atoi(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    sign * digits[..end].parse::<i64>().unwrap_or(if end == 0 { 0 } else { i64::MAX })
}

/// C's `strtoull` with base 0, or base 16 if `hex`.
fn strtoull(text: &str, hex: bool) -> u64 {
    let text = text.trim_start();
    let (radix, digits) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None if hex => (16, text),
        None if text.starts_with('0') && text.len() > 1 => (8, &text[1..]),
        None => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if end == 0 { 0 } else { u64::from_str_radix(&digits[..end], radix).unwrap_or(u64::MAX) }
}

/// The low bits of a lenient number, as C's conversions leave them.
fn low<T: TryFrom<u64>>(v: u64, mask: u64) -> Option<T> {
    T::try_from(v & mask).ok()
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn is_multicast(ip: IpAddr) -> bool {
    ip.is_multicast()
}

fn or_flow<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<OrFlow<T>> {
    if text == "flow" { Some(OrFlow::Flow) } else { read(text).map(OrFlow::Fixed) }
}

/// Reads the options of tunnel `name`.
pub fn parse(name: &str, kind: Kind, options: &BTreeMap<String, String>) -> Parsed {
    let mut p = Parser { name, kind, config: TunnelConfig::new(kind), messages: Vec::new(), fatal: false };
    for (key, value) in options {
        p.option(key, value);
    }
    p.check(options);
    Parsed { config: if p.fatal { Err(()) } else { Ok(p.config) }, messages: p.messages }
}

struct Parser<'a> {
    name: &'a str,
    kind: Kind,
    config: TunnelConfig,
    messages: Vec<String>,
    fatal: bool,
}

impl Parser<'_> {
    fn say(&mut self, text: &str) {
        self.messages.push(format!("{}: {text}", self.name));
    }
    fn fail(&mut self, text: &str) {
        self.say(text);
        self.fatal = true;
    }

    fn option(&mut self, key: &str, value: &str) {
        let kind = self.kind;
        let type_name = kind.name();
        let c = &mut self.config;
        match key {
            "remote_ip" | "local_ip" => self.ip(key, value),
            "tos" if value == "inherit" => c.tos_inherit = true,
            "tos" => match u8::try_from(strtoull(value, false)) {
                // ECN is not ours to set.
                Ok(tos) if tos & 3 == 0 && !value.starts_with(|c: char| c.is_alphabetic()) => c.tos = tos,
                _ => self.say(&format!("invalid TOS {value}")),
            },
            "ttl" if value == "inherit" => c.ttl_inherit = true,
            "ttl" => {
                let ttl = low::<u8>(atoi(value).cast_unsigned(), 0xff).unwrap_or(0);
                c.ttl = if ttl == 0 { DEFAULT_TTL } else { ttl };
            }
            "dst_port" if kind.default_port().is_some() => {
                c.dst_port = low(atoi(value).cast_unsigned(), 0xffff).unwrap_or(0);
            }
            "csum" if !matches!(kind, Kind::Srv6 | Kind::Lisp | Kind::Gtpu) => c.csum = value == "true",
            "seq" if kind.is_gre_family() => c.seq = value == "true",
            "df_default" => c.dont_fragment = value != "false",
            "key" | "in_key" | "out_key" => {}
            "packet_type" => match value {
                "legacy_l2" => c.mode = PacketTypeMode::LegacyL2,
                "legacy_l3" => c.mode = PacketTypeMode::LegacyL3,
                "ptap" => c.mode = PacketTypeMode::Aware,
                _ => self.fail(&format!("unknown packet_type '{value}'")),
            },
            "exts" if kind == Kind::Vxlan => {
                for ext in value.split(',').map(str::trim).filter(|e| !e.is_empty()) {
                    match ext {
                        "gbp" => self.config.gbp = true,
                        "gpe" => self.config.gpe = true,
                        _ => self.say(&format!("unknown extension '{ext}'")),
                    }
                }
            }
            "egress_pkt_mark" => {
                c.egress_pkt_mark = low(strtoull(value, false), u64::from(u32::MAX));
            }
            "erspan_ver" | "erspan_idx" | "erspan_dir" | "erspan_hwid" if kind.is_erspan() => {
                self.erspan(key, value);
            }
            "payload_type" if kind == Kind::Bareudp => match value {
                "ip" => c.payload_ethertype = 0x0800,
                "mpls" => c.payload_ethertype = 0x8847,
                number => match u16::try_from(strtoull(number, false)) {
                    Ok(n) if n != 0 => c.payload_ethertype = n,
                    _ => self.fatal = true,
                },
            },
            "srv6_segs" if kind == Kind::Srv6 => self.segments(value),
            "srv6_flowlabel" if kind == Kind::Srv6 => match value {
                "copy" => c.srv6_flowlabel = FlowLabel::Copy,
                "zero" => c.srv6_flowlabel = FlowLabel::Zero,
                "compute" => c.srv6_flowlabel = FlowLabel::Compute,
                _ => self.fail(&format!("invalid srv6_flowlabel '{value}'")),
            },
            // The peer of an IPsec tunnel is another program's business.
            _ if key.starts_with("ipsec_")
                || matches!(key, "remote_cert" | "remote_name" | "psk" | "use_ssl_cert") => {}
            _ => self.say(&format!("unknown {type_name} argument '{key}'")),
        }
    }

    fn ip(&mut self, key: &str, value: &str) {
        let kind = self.kind.name();
        let remote = key == "remote_ip";
        let parsed = if value == "flow" {
            OrFlow::Flow
        } else {
            match address(value) {
                None => return self.say(&format!("bad {kind} '{key}'")),
                Some(ip) if remote && is_multicast(ip) => {
                    return self.fail(&format!("multicast remote_ip={value} not allowed"));
                }
                Some(ip) => OrFlow::Fixed(Some(ip)),
            }
        };
        if remote {
            self.config.remote_ip = parsed;
        } else {
            self.config.local_ip = parsed;
        }
    }

    fn erspan(&mut self, key: &str, value: &str) {
        let c = &mut self.config;
        let ok = match key {
            "erspan_ver" => {
                let ver = or_flow(value, |v| u8::try_from(atoi(v)).ok().filter(|v| *v <= 2));
                match ver {
                    Some(v) => c.erspan_ver = v,
                    None => self.fail(&format!("invalid erspan version: {value}")),
                }
                return;
            }
            "erspan_idx" => {
                let read = |v: &str| u32::try_from(strtoull(v, true)).ok().filter(|v| *v <= 0xf_ffff);
                or_flow(value, read).map(|v| c.erspan_idx = v)
            }
            "erspan_dir" => {
                let read = |v: &str| u8::try_from(atoi(v)).ok().filter(|v| *v <= 1);
                or_flow(value, read).map(|v| c.erspan_dir = v)
            }
            _ => {
                let read = |v: &str| u8::try_from(strtoull(v, true)).ok().filter(|v| *v <= 0x3f);
                or_flow(value, read).map(|v| c.erspan_hwid = v)
            }
        };
        if ok.is_none() {
            let what = match key {
                "erspan_idx" => "index",
                "erspan_dir" => "direction",
                _ => "hardware ID",
            };
            self.fail(&format!("invalid erspan {what}: {value}"));
        }
    }

    fn segments(&mut self, value: &str) {
        let all: Option<Vec<Ipv6Addr>> = value.split(',').map(|s| s.trim().parse().ok()).collect();
        match all.filter(|s| s.len() <= 6) {
            Some(segs) => self.config.srv6_segs = segs,
            None => self.fail(&format!("bad srv6 'srv6_segs' {value}")),
        }
    }

    /// What only the options together tell.
    fn check(&mut self, options: &BTreeMap<String, String>) {
        let kind = self.kind;
        let type_name = kind.name();
        // An option that was bad left nothing behind.
        if self.config.remote_ip == OrFlow::Fixed(None)
            && !self.messages.iter().any(|m| m.contains("multicast"))
        {
            self.fail(&format!("{type_name} type requires valid 'remote_ip' argument"));
        }
        if self.config.local_ip.is_flow() && !self.config.remote_ip.is_flow() {
            self.fail(&format!("{type_name} type requires 'remote_ip=flow' with 'local_ip=flow'"));
        }
        if let (OrFlow::Fixed(Some(local)), OrFlow::Fixed(Some(remote))) =
            (self.config.local_ip, self.config.remote_ip)
            && local.is_ipv4() != remote.is_ipv4()
        {
            self.fail("'remote_ip' and 'local_ip' has to be of the same address family");
        }
        let carrier = if kind == Kind::Vxlan && !self.config.gpe { "VXLAN (without GPE)" } else { type_name };
        let l3 = kind.carries_l3() && (kind != Kind::Vxlan || self.config.gpe);
        match self.config.mode {
            PacketTypeMode::LegacyL2 if !kind.carries_l2() => {
                self.fail(&format!("legacy_l2 configured on {carrier} tunnel that cannot carry L2 traffic"))
            }
            PacketTypeMode::LegacyL3 if !l3 => {
                self.fail(&format!("legacy_l3 configured on {carrier} tunnel that cannot carry L3 traffic"))
            }
            _ => {}
        }
        // Who has the version from the flow has all of it from there.
        if self.config.erspan_ver.is_flow() {
            self.config.erspan_idx = OrFlow::Flow;
            self.config.erspan_dir = OrFlow::Flow;
            self.config.erspan_hwid = OrFlow::Flow;
        }
        let key = |name: &str| {
            let text = options.get(name).or_else(|| options.get("key"))?;
            or_flow(text, |t| Some(strtoull(t, false)))
        };
        self.config.in_key = key("in_key");
        self.config.out_key = key("out_key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.split_whitespace().filter_map(pair).collect()
    }

    fn shown(kind: Kind, text: &str) -> Result<String, String> {
        let parsed = parse("v9", kind, &options(text));
        match parsed.config {
            Ok(c) => Ok(c.shown().iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")),
            Err(()) => Err(parsed.messages.join("\n")),
        }
    }

    #[test]
    fn options_are_read_and_shown_as_the_original_does() {
        let table: [(Kind, &str, Result<&str, &str>); 29] = [
            (Kind::Vxlan, "", Err("v9: vxlan type requires valid 'remote_ip' argument")),
            (
                Kind::Vxlan,
                "remote_ip=foo",
                Err("v9: bad vxlan 'remote_ip'\nv9: vxlan type requires valid 'remote_ip' argument"),
            ),
            (Kind::Vxlan, "remote_ip=224.0.0.1", Err("v9: multicast remote_ip=224.0.0.1 not allowed")),
            (Kind::Vxlan, "remote_ip=1.1.1.1 local_ip=bar", Ok("remote_ip=1.1.1.1")),
            (
                Kind::Vxlan,
                "remote_ip=1.1.1.1 local_ip=2001::1",
                Err("v9: 'remote_ip' and 'local_ip' has to be of the same address family"),
            ),
            (
                Kind::Vxlan,
                "remote_ip=1.1.1.1 local_ip=flow",
                Err("v9: vxlan type requires 'remote_ip=flow' with 'local_ip=flow'"),
            ),
            (Kind::Vxlan, "remote_ip=1.1.1.1 key=foo", Ok("key=0, remote_ip=1.1.1.1")),
            (Kind::Vxlan, "remote_ip=1.1.1.1 key=0x1ffffffff", Ok("key=8589934591, remote_ip=1.1.1.1")),
            (Kind::Geneve, "remote_ip=1.1.1.1 dst_port=foo", Ok("remote_ip=1.1.1.1")),
            (
                Kind::Erspan,
                "remote_ip=1.1.1.1 key=flow erspan_ver=flow erspan_idx=7",
                Ok(concat!(
                    "erspan_dir=flow, erspan_hwid=flow, erspan_idx=flow, erspan_ver=flow, ",
                    "key=flow, remote_ip=1.1.1.1"
                )),
            ),
            (Kind::Vxlan, "remote_ip=1.1.1.1 dst_port=99999", Ok("dst_port=34463, remote_ip=1.1.1.1")),
            (Kind::Vxlan, "remote_ip=1.1.1.1 ttl=300", Ok("remote_ip=1.1.1.1, ttl=44")),
            (Kind::Vxlan, "remote_ip=1.1.1.1 ttl=foo tos=300", Ok("remote_ip=1.1.1.1")),
            (
                Kind::Vxlan,
                "remote_ip=1.1.1.1 in_key=3 out_key=flow",
                Ok("in_key=3, out_key=flow, remote_ip=1.1.1.1"),
            ),
            (
                Kind::Vxlan,
                "remote_ip=1.1.1.1 packet_type=legacy_l3",
                Err("v9: legacy_l3 configured on VXLAN (without GPE) tunnel that cannot carry L3 traffic"),
            ),
            (
                Kind::Vxlan,
                "remote_ip=1.1.1.1 exts=gpe packet_type=legacy_l3",
                Ok("packet_type=legacy_l3, remote_ip=1.1.1.1"),
            ),
            (Kind::Vxlan, "remote_ip=1.1.1.1 packet_type=foo", Err("v9: unknown packet_type 'foo'")),
            (
                Kind::Geneve,
                "csum=true df_default=false dst_port=1234 egress_pkt_mark=5 key=7 remote_ip=2001:cafe::92 tos=inherit ttl=inherit",
                Ok(
                    "csum=true, df_default=false, dst_port=1234, egress_pkt_mark=5, key=7, remote_ip=2001:cafe::92, tos=inherit, ttl=inherit",
                ),
            ),
            (Kind::Gre, "remote_ip=1.1.1.1 dst_port=5", Ok("remote_ip=1.1.1.1")),
            (
                Kind::Gre,
                "remote_ip=1.1.1.1 seq=true packet_type=legacy_l3",
                Ok("packet_type=legacy_l3, remote_ip=1.1.1.1, seq=true"),
            ),
            (Kind::Erspan, "remote_ip=1.1.1.1", Ok("erspan_ver=0, remote_ip=1.1.1.1")),
            (
                Kind::Erspan,
                "remote_ip=1.1.1.1 erspan_ver=2 erspan_dir=1 erspan_hwid=0x7",
                Ok("erspan_dir=1, erspan_hwid=0x7, erspan_ver=2, remote_ip=1.1.1.1"),
            ),
            (Kind::Erspan, "remote_ip=1.1.1.1 erspan_ver=3", Err("v9: invalid erspan version: 3")),
            (
                Kind::Erspan,
                "remote_ip=1.1.1.1 erspan_ver=1 erspan_idx=foo",
                Ok("erspan_idx=0xf, erspan_ver=1, remote_ip=1.1.1.1"),
            ),
            (
                Kind::Gtpu,
                "remote_ip=1.1.1.1 packet_type=legacy_l2",
                Err("v9: legacy_l2 configured on gtpu tunnel that cannot carry L2 traffic"),
            ),
            (Kind::Bareudp, "remote_ip=1.1.1.1 dst_port=99 payload_type=foo", Err("")),
            (Kind::Bareudp, "remote_ip=1.1.1.1", Ok("remote_ip=1.1.1.1")),
            (Kind::Lisp, "remote_ip=1.1.1.1 dst_port=77", Ok("dst_port=77, remote_ip=1.1.1.1")),
            (Kind::Geneve, "remote_ip=1.1.1.1 tos=0x10 ttl=12", Ok("remote_ip=1.1.1.1, tos=0x10, ttl=12")),
        ];
        for (kind, text, expect) in table {
            let got = shown(kind, text);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{kind:?} {text}");
        }
    }

    #[test]
    fn devices_of_the_datapath_are_shared_by_protocol_and_port() {
        let name = |kind, text| parse("v9", kind, &options(text)).config.unwrap().device_name();
        assert_eq!(name(Kind::Vxlan, "remote_ip=1.1.1.1"), "vxlan_sys_4789");
        assert_eq!(name(Kind::Geneve, "remote_ip=1.1.1.1 dst_port=1234"), "genev_sys_1234");
        assert_eq!(name(Kind::Gre, "remote_ip=flow"), "gre_sys");
        let of = TunnelConfig::of_device("genev_sys_1234").unwrap().shown();
        assert_eq!(
            of.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            ["dst_port=1234", "packet_type=ptap"]
        );
    }
}
