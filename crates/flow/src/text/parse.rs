//! Reading matches: one `key` or `key=value[/mask]` of `ovs-ofctl` syntax at a time.
//!
//! The caller splits the text and handles its own words (`priority`, `table`, `actions`, ...);
//! [`parse_match_key`] says whether a key is a match's. [`parse_exact_flow`] reads a whole packet key, as
//! `ofproto/trace` takes it.

use ib_packet::{Be16, Be32};

use super::value::{parse_masked, parse_value};
use crate::extract::proto;
use crate::fields::{Field, FieldId, FieldValue, Prereq, Protocols, by_name};
use crate::key::{Flow, Match};
use crate::port::PortMap;
use crate::tlv;

/// A word for an Ethertype and perhaps an IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shorthand {
    /// As in `tcp6`.
    pub name: &'static str,
    /// Ethertype.
    pub dl_type: u16,
    /// IP protocol, 0 if the word says nothing about it.
    pub nw_proto: u8,
}

macro_rules! shorthands {
    ($($name:literal $dl_type:ident $nw_proto:expr;)*) => {
        /// All protocol words.
        pub const SHORTHANDS: &[Shorthand] =
            &[$(Shorthand { name: $name, dl_type: proto::$dl_type, nw_proto: $nw_proto }),*];
    };
}
shorthands! {
    "ip" ETH_IP 0;
    "ipv4" ETH_IP 0;
    "ip4" ETH_IP 0;
    "arp" ETH_ARP 0;
    "icmp" ETH_IP 1;
    "tcp" ETH_IP 6;
    "udp" ETH_IP 17;
    "sctp" ETH_IP 132;
    "ipv6" ETH_IPV6 0;
    "ip6" ETH_IPV6 0;
    "icmp6" ETH_IPV6 58;
    "tcp6" ETH_IPV6 6;
    "udp6" ETH_IPV6 17;
    "sctp6" ETH_IPV6 132;
    "rarp" ETH_RARP 0;
    "mpls" ETH_MPLS 0;
    "mplsm" ETH_MPLS_MCAST 0;
}

/// The protocol word of that name.
pub fn shorthand(name: &str) -> Option<&'static Shorthand> {
    SHORTHANDS.iter().find(|s| s.name == name)
}

/// Makes a match one of Ethernet packets if `field` exists only there and the match says nothing yet.
pub fn add_ethernet_prereq(m: &mut Match, field: &Field) {
    if field.prereq != Prereq::None {
        set_default_packet_type(m);
    }
}

/// Makes a match one of Ethernet packets unless it names a packet type.
pub fn set_default_packet_type(m: &mut Match) {
    if m.mask.0.packet_type.is_zero() {
        m.flow.packet_type = Be32::ZERO;
        m.mask.0.packet_type = Be32::MAX;
    }
}

/// Applies `key` (and `value`, empty if there is none) to a match if it is a protocol word or a field's
/// name. `Ok(false)`: neither. `usable` loses the protocols that cannot carry it.
pub fn parse_match_key(
    key: &str,
    value: &str,
    ports: Option<&PortMap>,
    m: &mut Match,
    usable: &mut Protocols,
) -> Result<bool, String> {
    if let Some(s) = shorthand(key) {
        set_default_packet_type(m);
        m.flow.dl_type = Be16::new(s.dl_type);
        m.mask.0.dl_type = Be16::MAX;
        if s.nw_proto != 0 {
            m.flow.nw_proto = s.nw_proto;
            m.mask.0.nw_proto = u8::MAX;
        }
        return Ok(true);
    }
    if key == "eth" {
        m.flow.packet_type = Be32::ZERO;
        m.mask.0.packet_type = Be32::MAX;
        return Ok(true);
    }
    let Some(field) = by_name(key) else { return Ok(false) };
    parse_field(field, value, ports, m, usable)?;
    Ok(true)
}

/// Applies `field=value[/mask]` to a match. No value at all means "the field exists".
pub fn parse_field(
    field: &Field,
    value: &str,
    ports: Option<&PortMap>,
    m: &mut Match,
    usable: &mut Protocols,
) -> Result<(), String> {
    let value = if value.is_empty() { "0/0" } else { value };
    let (v, mask) = parse_masked(field, value, ports)?;
    if let crate::fields::Place::TunMetadata(i) = field.place {
        tlv::set_match(m, i, field.name, Some(&v), &mask)?;
    } else {
        field.set_masked(&v, &mask, m)?;
    }
    *usable = usable.and(field.usable_protocols(&mask));
    add_ethernet_prereq(m, field);
    Ok(())
}

/// Protocols that can carry what fields of a match mean together: OpenFlow 1.0 and 1.1 know nothing of
/// IPv6's upper layers.
pub fn usable_together(m: &Match) -> Protocols {
    let w = &m.mask.0;
    let upper = w.nw_proto != 0 || w.nw_tos != 0 || !w.tp_src.is_zero() || !w.tp_dst.is_zero();
    if m.flow.dl_type.get() == proto::ETH_IPV6 && upper { Protocols::NXM_OXM_ANY } else { Protocols::ANY }
}

/// Splits `key`, `key=value`, `key(value)` items separated by commas or white space; values keep what is
/// inside of parentheses and quotation marks.
pub fn split_items(s: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut rest = s.trim_start_matches([',', ' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        let key_len = rest.find([',', ' ', '\t', '\r', '\n', '=', '(']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_len);
        let (value, tail) = if let Some(v) = after.strip_prefix('=') {
            let n = value_len(v);
            v.split_at(n)
        } else if let Some(v) = after.strip_prefix('(') {
            let n = nested_len(v);
            (&v[..n], v[n..].strip_prefix(')').unwrap_or(""))
        } else {
            ("", after)
        };
        out.push((key, value));
        rest = tail.trim_start_matches([',', ' ', '\t', '\r', '\n']);
    }
    out
}

/// Bytes up to the `)` that closes a parenthesis already open.
fn nested_len(s: &str) -> usize {
    let mut depth = 0usize;
    for (i, b) in s.bytes().enumerate() {
        match b {
            b'(' => depth += 1,
            b')' if depth == 0 => return i,
            b')' => depth -= 1,
            _ => {}
        }
    }
    s.len()
}

/// Bytes of a value: up to a separator outside of parentheses and quotation marks.
fn value_len(s: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, b) in s.bytes().enumerate() {
        if quoted {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' => quoted = true,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return i,
            _ => {}
        }
    }
    s.len()
}

/// Reads a packet's key: exact values only, each field once, prerequisites first. The error is the text
/// that the user sees, with `s` in front as the tools print it.
pub fn parse_exact_flow(s: &str, ports: Option<&PortMap>) -> Result<Flow, String> {
    parse_exact_flow_with(s, ports, 0)
}

/// [`parse_exact_flow`] with `tun_metadata*` by the table of that id (see [`crate::tlv::TlvTable`]).
pub fn parse_exact_flow_with(s: &str, ports: Option<&PortMap>, table: u32) -> Result<Flow, String> {
    exact_items(s, ports, table).map_err(|e| format!("{s}: {e}"))
}

fn exact_items(s: &str, ports: Option<&PortMap>, table: u32) -> Result<Flow, String> {
    let mut flow = Flow::zeroed();
    flow.tunnel.set_tlv_table(table);
    let mut seen = std::collections::HashSet::new();
    for (key, value) in split_items(s) {
        if let Some(p) = shorthand(key) {
            if !seen.insert(FieldId::EthType) {
                return Err("Ethernet type set multiple times".into());
            }
            flow.dl_type = Be16::new(p.dl_type);
            if p.nw_proto != 0 {
                if !seen.insert(FieldId::IpProto) {
                    return Err("network protocol set multiple times".into());
                }
                flow.nw_proto = p.nw_proto;
            }
            continue;
        }
        let f = by_name(key).ok_or_else(|| format!("unknown field {key}"))?;
        if !f.are_prereqs_ok(&flow, None) {
            return Err(format!("prerequisites not met for setting {key}"));
        }
        let id = if f.id == FieldId::InPortOxm { FieldId::InPort } else { f.id };
        if !seen.insert(id) {
            return Err(format!("field {key} set multiple times"));
        }
        let v = parse_value(f, value, ports).map_err(|e| format!("bad value for {key} ({e})"))?;
        f.set_flow(&mut flow, &v);
    }
    if flow.in_port == 0 && !seen.contains(&FieldId::InPort) {
        flow.in_port = crate::port::OfPort::NONE.0.into();
    }
    Ok(flow)
}

/// A match from items that are all the match's own, separated by commas; for tests and tools that have
/// no words of their own.
pub fn parse_match(s: &str, ports: Option<&PortMap>) -> Result<(Match, Protocols), String> {
    let mut m = Match::catch_all();
    let mut usable = Protocols::ANY;
    for (key, value) in split_items(s) {
        if !parse_match_key(key, value, ports, &mut m, &mut usable)? {
            return Err(if value.is_empty() {
                format!("field {key} missing value")
            } else {
                format!("unknown keyword {key}")
            });
        }
    }
    let usable = usable.and(usable_together(&m));
    Ok((m, usable))
}

/// The number that a text of one field means, for callers that know the field by name only.
pub fn parse_named(field: &str, value: &str) -> Result<FieldValue, String> {
    let f = by_name(field).ok_or_else(|| format!("unknown field {field}"))?;
    parse_value(f, value, None)
}

#[cfg(test)]
mod tests {
    use super::super::matching::{flow_to_string, match_to_string};
    use super::super::normalize::normalized;
    use super::*;

    fn check(input: &str, expect: &str) {
        let got = match parse_match(input, None) {
            Ok((m, _)) => match_to_string(&normalized(&m).unwrap_or(m), None),
            Err(e) => e,
        };
        assert_eq!(got, expect, "{input}");
    }

    #[test]
    fn matches() {
        for same in [
            "in_port=1",
            "in_port=LOCAL,dl_vlan=10",
            "dl_vlan=10,dl_vlan_pcp=3",
            "vlan_tci=0x0000/0x1fff",
            "vlan_tci=0x1000/0x1000",
            "dl_type=0x1234",
            "ip,nw_proto=2",
            "icmp6,icmp_type=135,icmp_code=0,nd_target=::1,nd_sll=00:11:22:33:44:55",
            "arp,arp_spa=10.0.0.1,arp_op=1,arp_sha=00:11:22:33:44:55",
            "tcp,tp_src=0x100/0xff00,tp_dst=80",
            "tcp6,ipv6_src=2001::/16,ipv6_dst=::1",
            "tcp,tcp_flags=+syn-ack",
            "tcp,tcp_flags=syn|ack",
            "tcp,tcp_flags=fin|syn|rst|psh|ack|urg|ece|cwr|ns|[200]|[400]|[800]",
            "tcp,tcp_flags=0",
            "ip,nw_frag=no",
            "ip,nw_frag=yes",
            "ip,nw_frag=not_later",
            "ip,nw_ecn=3,nw_ttl=5",
            "ipv6,ipv6_label=0x00005/0x0000f",
            "ct_state=-new+est+trk,ct_zone=5,ct_mark=0x5/0xff,ct_label=0x1234/0xffff",
            "ct_state=new|trk",
            "reg0=0x5,reg1=0/0xf0,reg15=0xffffffff,reg31=0x1",
            "tun_id=0x5/0x7,tun_src=1.2.3.4,tun_dst=10.0.0.0/8,metadata=0x5/0xff",
            "tun_erspan_ver=1,tun_erspan_idx=0x5,tun_flags=+oam",
            "pkt_mark=0x5/0x7,recirc_id=0x6,dp_hash=0x5",
            "conj_id=5,actset_output=4",
            "dl_src=00:11:22:33:44:55,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
            "packet_type=(1,0x800),nw_src=1.2.3.4,nw_proto=6,tp_src=5",
            "packet_type=(1,0x806),arp_op=1",
            "packet_type=(5,5)",
            "dl_type=0x894f,nsh_flags=2,nsh_ttl=5,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123,nsh_si=5,nsh_c1=0x1,nsh_c4=0x5/0xff",
            "icmp6,icmp_type=135,nd_reserved=5,nd_options_type=1",
            "tun_metadata0=0x1200/0xff00,tun_metadata2",
            "tun_metadata0=0,tun_metadata5=0x1/0x1",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn other_spellings() {
        check("in_port=local", "in_port=LOCAL");
        check("dl_vlan=0xffff", "vlan_tci=0x0000");
        check("vlan_tci=0xf00f", "dl_vlan=15,dl_vlan_pcp=7");
        check("vlan_tci=0xf000/0xf000", "dl_vlan_pcp=7");
        check("vlan_vid=0x1005/0x1003", "vlan_tci=0x1001/0x1003");
        check("dl_type=0x0800,nw_proto=6", "tcp");
        check(
            "mpls,mpls_label=4,mpls_tc=3,mpls_bos=1,mpls_ttl=5",
            "mpls,mpls_label=4,mpls_tc=3,mpls_ttl=5,mpls_bos=1",
        );
        check("xreg0=5/7", "reg1=0x5/0x7");
        check("xxreg0=5", "reg0=0,reg1=0,reg2=0,reg3=0x5");
        check("eth", "");
        check("eth_type=0x0800,ip_proto=6,tcp_dst=5", "tcp,tp_dst=5");
        check("ip,nw_tos=224", "ip,nw_tos=224");
        check("ip,ip_dscp=8", "ip,nw_tos=32");
        check("dl_vlan=65535,dl_vlan_pcp=3", "dl_vlan=0,dl_vlan_pcp=3");
        check("tun_gbp_id=5/7,tun_gbp_flags=1/3", "tun_gbp_id=0x5/0x7,tun_gbp_flags=0x1");
        check("tun_erspan_dir=1", "");
        check("tun_gtpu_flags=1,tun_gtpu_msgtype=255", "gtpu_flags=0x1,gtpu_msgtype=255");
        check("reg0=5 reg1=6", "reg0=0x5,reg1=0x6");
        check("reg0(5)", "reg0=0x5");
        check("reg0", "");
        check("dl_type=0x894f,nsh_flags=1/3,nsh_c2=5", "dl_type=0x894f,nsh_flags=0x01/0x03");
        // What the match cannot mean is dropped.
        check("tp_src=5", "");
        check("ip,nw_proto=58,icmp_type=3", "ip,nw_proto=58");
        check("mpls,nw_src=1.2.3.4", "mpls");
        check("arp,nw_src=1.2.3.4", "arp,arp_spa=1.2.3.4");
    }

    #[test]
    fn errors() {
        check("foo=1", "unknown keyword foo");
        check("foo", "field foo missing value");
        check("ip,nw_src=", "0/0: invalid IP address");
        check("in_port", "0/0: invalid or unknown port for in_port");
        check("tun_metadata0=1,tun_metadata0=2", "field tun_metadata0 set multiple times");
    }

    #[test]
    fn usable_protocols() {
        let usable = |s: &str| parse_match(s, None).unwrap().1;
        assert_eq!(usable("in_port=1,tcp,tp_dst=80"), Protocols::ANY);
        assert_eq!(usable("reg0=1"), Protocols::NXM_OXM_ANY);
        assert_eq!(usable("ip,nw_src=10.0.0.0/8"), Protocols::ANY);
        assert_eq!(usable("ip,nw_src=10.0.0.0/255.0.255.0"), Protocols(0x1fc));
        assert_eq!(usable("tcp6"), Protocols::NXM_OXM_ANY);
        assert_eq!(usable("ipv6"), Protocols::ANY);
        assert_eq!(usable("skb_priority=1"), Protocols::NONE);
    }

    fn flow(input: &str, expect: &str) {
        let got = match parse_exact_flow(input, None) {
            Ok(f) => flow_to_string(&f, None),
            Err(e) => e.strip_prefix(&format!("{input}: ")).unwrap_or(&e).into(),
        };
        assert_eq!(got, expect, "{input}");
    }
    const ETH0: &str = "dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00";

    #[test]
    fn keys() {
        flow("in_port=1", &format!("in_port=1,vlan_tci=0x0000,{ETH0},dl_type=0x0000"));
        flow(
            "in_port=1,tcp,dl_vlan=10,nw_src=1.2.3.4,tp_dst=80",
            &format!(
                "tcp,in_port=1,dl_vlan=10,dl_vlan_pcp=0,vlan_tci1=0x0000,{ETH0},nw_src=1.2.3.4,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=80,tcp_flags=0"
            ),
        );
        flow(
            "in_port=1,arp,arp_op=1,arp_spa=1.2.3.4",
            &format!(
                "arp,in_port=1,vlan_tci=0x0000,{ETH0},arp_spa=1.2.3.4,arp_tpa=0.0.0.0,arp_op=1,arp_sha=00:00:00:00:00:00,arp_tha=00:00:00:00:00:00"
            ),
        );
        flow(
            "in_port=1,icmp6,icmpv6_type=136,icmpv6_code=0,nd_target=::1,nd_tll=00:11:22:33:44:55",
            &format!(
                "icmp6,in_port=1,vlan_tci=0x0000,{ETH0},ipv6_src=::,ipv6_dst=::,ipv6_label=0x00000,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,icmp_type=136,icmp_code=0,nd_target=::1,nd_sll=00:00:00:00:00:00,nd_tll=00:11:22:33:44:55"
            ),
        );
        flow(
            "in_port=1,mpls,mpls_label=5",
            &format!(
                "mpls,in_port=1,vlan_tci=0x0000,{ETH0},mpls_label=5,mpls_tc=0,mpls_ttl=0,mpls_bos=0,mpls_lse1=0,mpls_lse2=0"
            ),
        );
        flow(
            "in_port=1,reg0=5,metadata=5,tun_id=5,tun_src=1.2.3.4,tun_dst=5.6.7.8,pkt_mark=5",
            &format!(
                "pkt_mark=0x5,reg0=0x5,tun_src=1.2.3.4,tun_dst=5.6.7.8,tun_ipv6_src=::,tun_ipv6_dst=::,tun_gbp_id=0,tun_gbp_flags=0,tun_tos=0,tun_ttl=0,tun_erspan_ver=0,gtpu_flags=0,gtpu_msgtype=0,tun_flags=0,metadata=0x5,in_port=1,vlan_tci=0x0000,{ETH0},dl_type=0x0000"
            ),
        );
        flow(
            "in_port=1,ct_state=new|trk,tcp,ct_nw_src=1.2.3.4,ct_nw_proto=6,ct_tp_src=5",
            &format!(
                "ct_state=new|trk,ct_nw_src=1.2.3.4,ct_nw_dst=0.0.0.0,ct_nw_proto=6,ct_tp_src=5,ct_tp_dst=0,tcp,in_port=1,vlan_tci=0x0000,{ETH0},nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0,tcp_flags=0"
            ),
        );
        flow(
            "in_port=1,packet_type=(1,0x800),nw_proto=6",
            "ct_nw_src=0.0.0.0,ct_nw_dst=0.0.0.0,packet_type=(1,0x800),in_port=1,nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_proto=6,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0,tcp_flags=0",
        );
        flow(
            "in_port=1,ip,nw_frag=later,nw_proto=17",
            &format!(
                "udp,in_port=1,vlan_tci=0x0000,{ETH0},nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=later"
            ),
        );
        flow(
            "in_port=1,dl_type=0x894f,nsh_mdtype=1,nsh_spi=5",
            &format!(
                "in_port=1,vlan_tci=0x0000,{ETH0},dl_type=0x894f,nsh_flags=0,nsh_ttl=0,nsh_mdtype=1,nsh_np=0,nsh_spi=0x5,nsh_si=0,nsh_c1=0x0,nsh_c2=0x0,nsh_c3=0x0,nsh_c4=0x0,nw_proto=0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no"
            ),
        );
    }

    #[test]
    fn key_errors() {
        flow("in_port=1,foo=5", "unknown field foo");
        flow("in_port=1,nw_src=1.2.3.4", "prerequisites not met for setting nw_src");
        flow(
            "in_port=1,ip,nw_src=1.2.3.4/24",
            "bad value for nw_src (1.2.3.4/24: wildcards not allowed here)",
        );
        flow("in_port=1,ip,ip", "Ethernet type set multiple times");
        flow("in_port=1,in_port=2", "field in_port set multiple times");
        flow("in_port=foo", "bad value for in_port (foo: invalid or unknown port for in_port)");
        flow("in_port=1,arp,dl_type=0x800", "field dl_type set multiple times");
    }
}
