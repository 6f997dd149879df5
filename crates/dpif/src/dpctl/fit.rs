//! Whether the text of a flow's key has the parts that its values call for, and no others.
//!
//! A datapath refuses the key of an IPv4 packet without `ipv4()`, of a TCP packet without `tcp()`, or of an ARP packet with `ipv4()`: the
//! netlink form says a packet's protocols by the attributes that are there. Texts for people (`ofproto/trace`) may be shorter.

use ib_flow::Flow;

/// The parts at the outermost level: name and what is in the parentheses.
fn parts(text: &str) -> Vec<(&str, &str)> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let name = rest[..open].trim_start_matches([',', ' ', '\t']);
        let mut depth = 0_u32;
        let close = rest[open..].char_indices().find_map(|(i, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(open + i)
        });
        let close = close.unwrap_or(rest.len());
        out.push((name, &rest[open + 1..close]));
        rest = rest.get(close + 1..).unwrap_or_default();
    }
    out
}

const NETWORK: [&str; 6] = ["ipv4", "ipv6", "arp", "mpls", "nsh", "encap"];
const TRANSPORT: [&str; 6] = ["tcp", "udp", "sctp", "icmp", "icmpv6", "nd"];
const FRAG_LATER: u8 = 2;

/// See the module. `flow` is the key that was read out of `text`.
pub fn is_whole(text: &str, flow: &Flow) -> bool {
    let parts = parts(text);
    let has = |name: &str| parts.iter().any(|(n, _)| *n == name);
    if parts.is_empty() {
        return true;
    }
    let value = parts.iter().find(|(n, _)| *n == "eth_type").map(|(_, v)| number(v));
    let Some(eth_type) = value else {
        // Without Ethernet header the packet's type says it.
        return has("packet_type");
    };
    let network = match eth_type {
        // Below are lengths.
        None | Some(..0x600) => return false,
        Some(0x0800) => Some("ipv4"),
        Some(0x86dd) => Some("ipv6"),
        Some(0x0806 | 0x8035) => Some("arp"),
        Some(0x8847 | 0x8848) => Some("mpls"),
        Some(0x894f) => Some("nsh"),
        Some(0x8100 | 0x88a8) => Some("encap"),
        Some(_) => None,
    };
    if NETWORK.iter().any(|n| has(n) != (network == Some(*n))) {
        return false;
    }
    let proto = (flow.nw_frag & FRAG_LATER == 0).then_some(flow.nw_proto);
    let kind = flow.tp_src.get();
    let transport: &[&str] = match (network, proto) {
        (Some("encap"), _) => {
            let inner = parts.iter().find(|(n, _)| *n == "encap").map_or("", |(_, v)| v);
            return has("vlan") && !inner.is_empty() && is_whole(inner, flow);
        }
        (Some("ipv4" | "ipv6"), Some(6)) => &["tcp"],
        (Some("ipv4" | "ipv6"), Some(17)) => &["udp"],
        (Some("ipv4" | "ipv6"), Some(132)) => &["sctp"],
        (Some("ipv4"), Some(1)) => &["icmp"],
        (Some("ipv6"), Some(58)) if matches!(kind, 135 | 136) => &["icmpv6", "nd"],
        (Some("ipv6"), Some(58)) => &["icmpv6"],
        _ => &[],
    };
    TRANSPORT.iter().all(|t| has(t) == transport.contains(t))
}

fn number(text: &str) -> Option<u32> {
    let value = text.split('/').next().unwrap_or_default().trim();
    match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{PortNames, parse_key};

    #[test]
    fn protocols_and_parts_agree() {
        let check = |text: &str| {
            let text = format!("in_port(1),eth(),{text}");
            is_whole(&text, &parse_key(&text, &PortNames::none()).unwrap().0)
        };
        for good in [
            "eth_type(0x800),ipv4()",
            "eth_type(0x0800),ipv4(proto=17),udp()",
            "eth_type(0x0800),ipv4(proto=99)",
            "eth_type(0x0800),ipv4(proto=6,frag=later)",
            "eth_type(0x0800),ipv4(proto=6/0),tcp()",
            "eth_type(0x86dd),ipv6(proto=58),icmpv6(type=128)",
            "eth_type(0x86dd),ipv6(proto=58),icmpv6(type=135),nd()",
            "eth_type(0x8847),mpls(label=1,tc=0,ttl=0,bos=1)",
            "eth_type(0x1234)",
            "eth_type(0x8100),vlan(vid=1,pcp=0),encap(eth_type(0x0800),ipv4(proto=6),tcp())",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "eth_type(0x0800)",
            "eth_type(0x0800),ipv4(proto=6)",
            "eth_type(0x0800),ipv4(proto=6,frag=first)",
            "eth_type(0x0800),ipv4(proto=132)",
            "eth_type(0x0800),tcp(src=1)",
            "eth_type(0x86dd),ipv6(proto=58),icmpv6(type=135)",
            "eth_type(0x1234),ipv4()",
            "eth_type(0x8847)",
            "eth_type(0x8100),vlan(vid=1,pcp=0)",
            "eth_type(0x8100),vlan(vid=1,pcp=0),encap(eth_type(0x0800))",
            "eth_type(0/0)",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert!(is_whole("", &Flow::zeroed()) && !is_whole("in_port(9)", &Flow::zeroed()));
    }
}
