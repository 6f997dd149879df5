//! From a key to a packet: the inverse of `crate::extract`, for tests and `ovs-ofctl compose-packet`.

use ib_packet::gso;
use ib_packet::{Be16, Packet};

use crate::extract::proto;
use crate::key::{Flow, Vlan};

/// What to put behind the last header.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// That many bytes counting up from zero.
    Pattern(usize),
    /// These bytes.
    Bytes(&'a [u8]),
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Payload::Pattern(64)
    }
}

/// A packet whose key is `flow` as far as a packet can have it: lengths and checksums are right, a TCP segment
/// with SYN, FIN or RST has no payload, IPv6 is never fragmented, and metadata is not represented.
pub fn compose(flow: &Flow, payload: Payload<'_>) -> Packet {
    compose_with(flow, payload, false)
}

/// [`compose`], with wrong transport and IPv4 checksums if `bad_csum`.
pub fn compose_with(flow: &Flow, payload: Payload<'_>, bad_csum: bool) -> Packet {
    build(flow, payload, 0, bad_csum)
}

/// A packet of `flow` that is `len` bytes long: what the headers leave is zeros that count as payload, whatever
/// the protocol. `None` if the headers alone are longer.
pub fn compose_to_length(flow: &Flow, len: usize) -> Option<Packet> {
    let packet = build(flow, Payload::Pattern(0), len, false);
    (packet.len() <= len).then_some(packet)
}

fn build(flow: &Flow, payload: Payload<'_>, at_least: usize, bad_csum: bool) -> Packet {
    let mut b = Vec::with_capacity(at_least.max(128));
    b.extend_from_slice(&flow.dl_dst.0);
    b.extend_from_slice(&flow.dl_src.0);
    let dl_type = flow.dl_type.get();
    let tags: Vec<&Vlan> = flow.vlans.iter().filter(|v| v.is_present()).collect();
    for v in &tags {
        let tpid = if v.tpid.is_zero() { Be16::new(proto::ETH_VLAN) } else { v.tpid };
        b.extend_from_slice(&tpid.to_bytes());
        b.extend_from_slice(&(v.tci & !Be16::new(Vlan::CFI)).to_bytes());
    }
    if dl_type == proto::ETH_NONE {
        // A length instead of an Ethertype, which counts the headers too.
        b.extend_from_slice(&len16(at_least.max(14)));
        b.resize(at_least.max(b.len()), 0);
        return Packet::from_frame(&b);
    }
    b.extend_from_slice(&dl_type.to_be_bytes());
    let l3 = b.len();
    match dl_type {
        proto::ETH_IP => ipv4(flow, payload, &mut b),
        proto::ETH_IPV6 => ipv6(flow, payload, &mut b),
        proto::ETH_ARP | proto::ETH_RARP => arp(flow, &mut b),
        proto::ETH_MPLS | proto::ETH_MPLS_MCAST => {
            for lse in &flow.mpls_lse {
                b.extend_from_slice(&lse.to_bytes());
                if lse.get() & 0x100 != 0 {
                    break;
                }
            }
        }
        proto::ETH_NSH => nsh(flow, &mut b),
        _ => {}
    }
    if b.len() < at_least {
        b.resize(at_least, 0);
        stretch(flow, l3, &mut b);
    }
    let mut p = Packet::from_frame(&b);
    if dl_type == proto::ETH_IP || dl_type == proto::ETH_IPV6 {
        if !gso::fill_csums(&mut p) {
            fill_ip_only(&mut p, l3, dl_type);
        }
        if bad_csum {
            spoil(&mut p, l3, flow);
        }
    }
    p
}

/// Has the lengths in the headers say that the payload goes to the end.
fn stretch(flow: &Flow, l3: usize, b: &mut [u8]) {
    let size = b.len();
    let mut put = |at: usize, from: usize| {
        if let Some(field) = b.get_mut(at..at + 2) {
            field.copy_from_slice(&len16(size - from));
        }
    };
    let l4 = match flow.dl_type.get() {
        proto::ETH_IP => {
            put(l3 + 2, l3);
            l3 + 20
        }
        proto::ETH_IPV6 => {
            put(l3 + 4, l3 + 40);
            l3 + 40
        }
        _ => return,
    };
    if flow.nw_proto == proto::IP_UDP && flow.nw_frag & Flow::FRAG_LATER == 0 {
        put(l4 + 4, l4);
    }
}

fn fill_ip_only(p: &mut Packet, l3: usize, dl_type: u16) {
    if dl_type == proto::ETH_IP
        && let Ok(mut ip) = ib_packet::wire::Ipv4::new_checked(&mut p.data_mut()[l3..])
    {
        ip.fill_checksum();
    }
    let end = p.len();
    if let Some(l) = gso::ip_layers(p)
        && l.protocol == proto::IP_SCTP
        && l.l4 + 12 <= end
        && let Ok(mut s) = ib_packet::wire::Sctp::new_checked(&mut p.data_mut()[l.l4..])
    {
        s.fill_checksum();
    }
}

/// Adds one to each checksum.
fn spoil(p: &mut Packet, l3: usize, flow: &Flow) {
    let l4 = gso::ip_layers(p).map(|l| l.l4);
    let v4 = flow.dl_type.get() == proto::ETH_IP;
    let at = match flow.nw_proto {
        proto::IP_TCP => 16,
        proto::IP_UDP => 6,
        _ => 2,
    };
    let data = p.data_mut();
    for place in [v4.then_some(l3 + 10), l4.map(|l| l + at)].into_iter().flatten() {
        if let Some(b) = data.get_mut(place..place + 2) {
            let v = u16::from_be_bytes([b[0], b[1]]).wrapping_add(1);
            b.copy_from_slice(&v.to_be_bytes());
        }
    }
}

fn put_payload(payload: Payload<'_>, b: &mut Vec<u8>) {
    match payload {
        Payload::Pattern(n) => b.extend((0..n).map(|i| i as u8)),
        Payload::Bytes(bytes) => b.extend_from_slice(bytes),
    }
}

fn len16(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes()
}

fn ipv4(flow: &Flow, payload: Payload<'_>, b: &mut Vec<u8>) {
    let l3 = b.len();
    let mut frag = 0u16;
    if flow.nw_frag & Flow::FRAG_ANY != 0 {
        frag |= 0x2000;
        if flow.nw_frag & Flow::FRAG_LATER != 0 {
            frag |= 100;
        }
    }
    b.extend_from_slice(&[0x45, flow.nw_tos, 0, 0, 0, 0]);
    b.extend_from_slice(&frag.to_be_bytes());
    b.extend_from_slice(&[flow.nw_ttl, flow.nw_proto, 0, 0]);
    b.extend_from_slice(&flow.nw_src.to_bytes());
    b.extend_from_slice(&flow.nw_dst.to_bytes());
    transport(flow, payload, b);
    let len = len16(b.len() - l3);
    b[l3 + 2..l3 + 4].copy_from_slice(&len);
}

fn ipv6(flow: &Flow, payload: Payload<'_>, b: &mut Vec<u8>) {
    let l3 = b.len();
    let word = 6 << 28 | u32::from(flow.nw_tos) << 20 | flow.ipv6_label.get() & 0xf_ffff;
    b.extend_from_slice(&word.to_be_bytes());
    b.extend_from_slice(&[0, 0, flow.nw_proto, flow.nw_ttl]);
    b.extend_from_slice(&flow.ipv6_src.to_bytes());
    b.extend_from_slice(&flow.ipv6_dst.to_bytes());
    transport(flow, payload, b);
    let len = len16(b.len() - l3 - 40);
    b[l3 + 4..l3 + 6].copy_from_slice(&len);
}

fn transport(flow: &Flow, payload: Payload<'_>, b: &mut Vec<u8>) {
    if flow.nw_frag & Flow::FRAG_LATER != 0 {
        return;
    }
    let v4 = flow.dl_type.get() == proto::ETH_IP;
    let ports = |b: &mut Vec<u8>| {
        b.extend_from_slice(&flow.tp_src.to_bytes());
        b.extend_from_slice(&flow.tp_dst.to_bytes());
    };
    let type_code =
        |b: &mut Vec<u8>| b.extend_from_slice(&[flow.tp_src.get() as u8, flow.tp_dst.get() as u8]);
    match flow.nw_proto {
        proto::IP_TCP => {
            ports(b);
            b.extend_from_slice(&[0; 8]);
            let flags = flow.tcp_flags.get() & 0xfff;
            b.extend_from_slice(&(0x5000 | flags).to_be_bytes());
            b.extend_from_slice(&[0; 6]);
            if flags & 0x007 == 0 {
                put_payload(payload, b);
            }
        }
        proto::IP_UDP => {
            let at = b.len();
            ports(b);
            b.extend_from_slice(&[0; 4]);
            put_payload(payload, b);
            let len = len16(b.len() - at);
            b[at + 4..at + 6].copy_from_slice(&len);
        }
        proto::IP_SCTP => {
            ports(b);
            b.extend_from_slice(&[0; 8]);
            put_payload(payload, b);
        }
        proto::IP_ICMP if v4 => {
            type_code(b);
            b.extend_from_slice(&[0; 6]);
            // Echoes carry something.
            if matches!(flow.tp_src.get(), 0 | 8) && flow.tp_dst.is_zero() {
                put_payload(payload, b);
            }
        }
        proto::IP_IGMP if v4 => {
            type_code(b);
            b.extend_from_slice(&[0; 2]);
            b.extend_from_slice(&flow.igmp_group_ip4.to_bytes());
        }
        proto::IP_ICMPV6 if !v4 => {
            type_code(b);
            b.extend_from_slice(&[0; 2]);
            let nd = flow.tp_dst.is_zero()
                && matches!(u8::try_from(flow.tp_src.get()), Ok(proto::ND_SOLICIT | proto::ND_ADVERT));
            if !nd {
                b.extend_from_slice(&[0; 4]);
                if matches!(flow.tp_src.get(), 128 | 129) && flow.tp_dst.is_zero() {
                    put_payload(payload, b);
                }
                return;
            }
            b.extend_from_slice(&flow.igmp_group_ip4.to_bytes());
            b.extend_from_slice(&flow.nd_target.to_bytes());
            for (kind, mac) in [(1, flow.arp_sha), (2, flow.arp_tha)] {
                if !mac.is_zero() {
                    b.extend_from_slice(&[kind, 1]);
                    b.extend_from_slice(&mac.0);
                }
            }
        }
        _ => {}
    }
}

fn arp(flow: &Flow, b: &mut Vec<u8>) {
    b.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, flow.nw_proto]);
    if matches!(flow.nw_proto, 1 | 2) {
        b.extend_from_slice(&flow.arp_sha.0);
        b.extend_from_slice(&flow.nw_src.to_bytes());
        b.extend_from_slice(&flow.arp_tha.0);
        b.extend_from_slice(&flow.nw_dst.to_bytes());
    } else {
        b.extend_from_slice(&[0; 20]);
    }
}

fn nsh(flow: &Flow, b: &mut Vec<u8>) {
    let n = &flow.nsh;
    let words = match n.mdtype {
        1 => 6u16,
        2 => 2,
        _ => return,
    };
    let word = u16::from(n.flags & 3) << 12 | u16::from(n.ttl & 0x3f) << 6 | words;
    b.extend_from_slice(&word.to_be_bytes());
    b.extend_from_slice(&[n.mdtype, n.np]);
    b.extend_from_slice(&n.path_hdr.to_bytes());
    if n.mdtype == 1 {
        for c in &n.context {
            b.extend_from_slice(&c.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Metadata;
    use crate::text::{flow_to_string, parse_exact_flow};
    use ib_packet::hexdump::to_hex;

    fn bytes(flow: &str, payload: Payload<'_>, expect: &str) {
        let f = parse_exact_flow(flow, None).unwrap();
        assert_eq!(to_hex(compose(&f, payload).data()), expect, "{flow}");
    }
    const MACS: &str = "000000000000000000000000";

    /// A segment with SYN, which else has no payload, and a datagram: zeros to the length, counted by each header.
    #[test]
    fn packets_of_a_length() {
        let of = |text: &str, len| {
            compose_to_length(&parse_exact_flow(text, None).unwrap(), len).map(|p| to_hex(p.data()))
        };
        // Ethernet, then the IPv4 length and checksum, then TCP's checksum.
        let syn = of("tcp,tcp_flags=syn", 60).unwrap_or_default();
        assert_eq!((syn.len(), &syn[32..36], &syn[48..52], &syn[100..104]), (120, "002e", "bacb", "afdd"));
        assert_eq!(of("udp", 60).map(|hex| hex[76..80].to_owned()), Some("001a".into()));
        assert_eq!(of("udp6", 80).map(|hex| hex[36..40].to_owned()), Some("001a".into()));
        assert_eq!(of("arp", 64).map(|hex| hex.len()), Some(128));
        assert_eq!(of("dl_type=0x05ff", 60).map(|hex| hex[24..30].to_owned()), Some("003c00".into()));
        assert_eq!(of("icmp6,icmpv6_type=128", 61), None);
    }

    #[test]
    fn literal_packets() {
        let short = Payload::Bytes(&[1, 2]);
        let udp = "08004500001e000000000011bad0000000000000000000000000000afed80102";
        bytes("udp", short, &format!("{MACS}{udp}"));
        let syn = "080045000028000000000006bad1000000000000000000000000000000000000000050020000afe30000";
        bytes("tcp,tcp_flags=syn", Payload::default(), &format!("{MACS}{syn}"));
        let tcp = "080045000029000000000006bad0000000000000000000000000000000000000000050000000aee4000001";
        bytes("tcp", Payload::Bytes(&[1]), &format!("{MACS}{tcp}"));
        for (text, len) in [
            ("icmp,icmp_type=8", 44),
            ("icmp,icmp_type=8,icmp_code=3", 42),
            ("icmp6,icmpv6_type=129", 64),
            ("icmp6,icmpv6_type=129,icmpv6_code=2", 62),
        ] {
            assert_eq!(compose(&parse_exact_flow(text, None).unwrap(), short).len(), len, "{text}");
        }
        bytes("dl_type=0x1234", short, &format!("{MACS}1234"));
        bytes("dl_type=0x05ff", short, &format!("{MACS}000e"));
        bytes("mpls,mpls_label=5", short, &format!("{MACS}8847000050000000000000000000"));
        bytes("mpls,mpls_label=5,mpls_bos=1", short, &format!("{MACS}884700005100"));
        let igmp = "08004500001c000000000002bae100000000000000000000ffff00000000";
        bytes("ip,nw_proto=2", short, &format!("{MACS}{igmp}"));
        let later = "0800450000140000206400119a760000000000000000";
        bytes("udp,nw_frag=later", short, &format!("{MACS}{later}"));
        let zero6 = "00000000000000000000000000000000";
        bytes(
            "icmp6,icmpv6_type=136,icmpv6_code=0,nd_target=fe80::1,nd_reserved=0x60000000",
            short,
            &format!(
                "{MACS}86dd6000000000183a00{zero6}{zero6}8800192b60000000fe800000000000000000000000000001"
            ),
        );
        bytes(
            "arp,arp_op=1,arp_spa=1.2.3.4,arp_sha=00:00:00:00:00:01",
            short,
            &format!("{MACS}080600010800060400010000000000010102030400000000000000000000"),
        );
        bytes("udp,dl_vlan=10,dl_vlan_pcp=3", short, &format!("{MACS}8100600a{udp}"));
    }

    #[test]
    fn extract_finds_what_compose_put() {
        let macs = "dl_src=50:54:00:00:00:01,dl_dst=50:54:00:00:00:02";
        for text in [
            "tcp,nw_src=1.2.3.4,nw_dst=5.6.7.8,nw_tos=0x28,nw_ttl=64,tp_src=1,tp_dst=2,tcp_flags=syn|ack",
            "dl_vlan=10,dl_vlan_pcp=5,udp,nw_src=1.2.3.4,udp_src=1,udp_dst=2",
            "sctp,sctp_src=1,sctp_dst=2",
            "icmp,icmp_type=8,icmp_code=1",
            "ip,nw_proto=2,nw_ttl=1",
            "udp,nw_frag=first,udp_src=1",
            "udp,nw_frag=later",
            "tcp6,ipv6_src=2001::1,ipv6_dst=::2,ipv6_label=0x12345,nw_tos=4,nw_ttl=3,tp_src=5",
            "icmp6,icmpv6_type=135,icmpv6_code=0,nd_target=fe80::1,nd_sll=00:11:22:33:44:55",
            "icmp6,icmpv6_type=128,icmpv6_code=0",
            "arp,arp_op=2,arp_spa=1.2.3.4,arp_tpa=2.3.4.5,arp_sha=00:00:00:00:00:01,arp_tha=00:00:00:00:00:02",
            "mpls,mpls_label=5,mpls_tc=2,mpls_bos=1,mpls_ttl=9",
            "dl_type=0x894f,nsh_flags=1,nsh_ttl=5,nsh_mdtype=1,nsh_np=3,nsh_spi=5,nsh_si=6,nsh_c1=1,nsh_c4=4",
            "dl_type=0x1234",
            "dl_type=0x05ff",
        ] {
            let want = parse_exact_flow(&format!("in_port=7,{macs},{text}"), None).unwrap();
            let p = compose(&want, Payload::default());
            let md = Metadata { in_port: crate::OdpPort(7), ..Metadata::default() };
            let mut got = Flow::zeroed();
            crate::extract(&p, &md, &mut got);
            assert_eq!(flow_to_string(&got, None), flow_to_string(&want, None), "{text}");
        }
    }

    #[test]
    fn bad_checksums_are_bad() {
        let f = parse_exact_flow("udp,nw_src=1.2.3.4", None).unwrap();
        let (good, bad) = (compose(&f, Payload::default()), compose_with(&f, Payload::default(), true));
        let differing = good.data().iter().zip(bad.data()).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 2);
    }
}
