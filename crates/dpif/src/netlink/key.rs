//! Flow keys and masks: `OVS_KEY_ATTR_*`.
//!
//! Which attributes a key has follows from its contents. A mask has those of its key, or fewer: the kernel refuses a mask of ports
//! unless the mask of the protocol is exact, so what the mask leaves out wholly is left out. A tag nests what is behind
//! it (`OVS_KEY_ATTR_ENCAP`). A packet without Ethernet header has no `OVS_KEY_ATTR_ETHERNET`.

use ib_flow::{CtState, Flow, Mask, OdpPort, Vlan};
use ib_packet::{Be16, Be32, Be128, Mac};

use super::tunnel::{decode_tunnel, put_tunnel};
use super::{CodecError, MAX_DEPTH, Writer, attributes, field, label_bytes, label_of, u16_of, u32_of, whole};

pub(super) const ENCAP: u16 = 1;
pub(super) const PRIORITY: u16 = 2;
pub(super) const IN_PORT: u16 = 3;
pub(super) const ETHERNET: u16 = 4;
pub(super) const VLAN: u16 = 5;
pub(super) const ETHERTYPE: u16 = 6;
pub(super) const IPV4: u16 = 7;
pub(super) const IPV6: u16 = 8;
pub(super) const TCP: u16 = 9;
pub(super) const UDP: u16 = 10;
pub(super) const ICMP: u16 = 11;
pub(super) const ICMPV6: u16 = 12;
pub(super) const ARP: u16 = 13;
pub(super) const ND: u16 = 14;
pub(super) const SKB_MARK: u16 = 15;
pub(super) const TUNNEL: u16 = 16;
pub(super) const SCTP: u16 = 17;
pub(super) const TCP_FLAGS: u16 = 18;
pub(super) const DP_HASH: u16 = 19;
pub(super) const RECIRC_ID: u16 = 20;
pub(super) const MPLS: u16 = 21;
pub(super) const CT_STATE: u16 = 22;
pub(super) const CT_ZONE: u16 = 23;
pub(super) const CT_MARK: u16 = 24;
pub(super) const CT_LABELS: u16 = 25;
pub(super) const CT_ORIG_TUPLE_IPV4: u16 = 26;
pub(super) const CT_ORIG_TUPLE_IPV6: u16 = 27;
pub(super) const NSH: u16 = 28;

/// `OVS_NSH_KEY_ATTR_BASE`
pub(super) const NSH_BASE: u16 = 1;
/// `OVS_NSH_KEY_ATTR_MD1`
pub(super) const NSH_MD1: u16 = 2;
/// `OVS_NSH_KEY_ATTR_MD2`
pub(super) const NSH_MD2: u16 = 3;

const ETH_IP: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_RARP: u16 = 0x8035;
const ETH_IPV6: u16 = 0x86dd;
const ETH_MPLS: u16 = 0x8847;
const ETH_MPLS_MCAST: u16 = 0x8848;
const ETH_NSH: u16 = 0x894f;
const ETH_VLAN: u16 = 0x8100;
/// What `Flow::dl_type` holds for frames without Ethertype (802.2).
const ETH_NONE: u16 = 0x05ff;

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMPV6: u8 = 58;
const PROTO_SCTP: u8 = 132;
const ND_SOLICIT: u16 = 135;
const ND_ADVERT: u16 = 136;
const IPV6_LABEL: u32 = 0xf_ffff;

/// Appends the attributes of a key; its `in_port` is a datapath's.
pub fn put_key(w: &mut Writer, key: &Flow) {
    Put { w, key, data: key, is_mask: false }.all();
}

/// Appends the attributes of `mask`, those that a packet with `key` has.
pub fn put_mask(w: &mut Writer, key: &Flow, mask: &Mask) {
    Put { w, key, data: &mask.0, is_mask: true }.all();
}

/// `key` says which attributes there are, `data` what they hold.
struct Put<'a> {
    w: &'a mut Writer,
    key: &'a Flow,
    data: &'a Flow,
    is_mask: bool,
}

impl Put<'_> {
    /// Appends an attribute; one of a mask only if it has a bit.
    fn put(&mut self, kind: u16, parts: &[&[u8]]) {
        if !self.is_mask || parts.iter().any(|p| p.iter().any(|b| *b != 0)) {
            self.w.put_parts(kind, parts);
        }
    }

    fn all(mut self) {
        let (key, d) = (self.key, self.data);
        self.put(PRIORITY, &[&d.skb_priority.to_ne_bytes()]);
        if key.tunnel.is_set() {
            self.w.nest(TUNNEL, |w| put_tunnel(w, &key.tunnel, &d.tunnel));
        }
        self.put(SKB_MARK, &[&d.pkt_mark.to_ne_bytes()]);
        self.put(CT_STATE, &[&u32::from(d.ct_state).to_ne_bytes()]);
        self.put(CT_ZONE, &[&d.ct_zone.to_ne_bytes()]);
        self.put(CT_MARK, &[&d.ct_mark.to_ne_bytes()]);
        self.put(CT_LABELS, &[&label_bytes(d.ct_label)]);
        if key.ct_nw_proto != 0 && key.ct_state & CtState::TRK != 0 {
            self.ct_tuple();
        }
        self.put(RECIRC_ID, &[&d.recirc_id.to_ne_bytes()]);
        self.put(DP_HASH, &[&d.dp_hash.to_ne_bytes()]);
        if key.odp_in_port() != OdpPort::NONE {
            self.put(IN_PORT, &[&d.in_port.to_ne_bytes()]);
        }
        if key.packet_type.is_zero() {
            self.w.put_parts(ETHERNET, &[&d.dl_src.0, &d.dl_dst.0]);
        }
        self.tags(0);
    }

    fn ct_tuple(&mut self) {
        let (key, d) = (self.key, self.data);
        let (src, dst) = (d.ct_tp_src.to_bytes(), d.ct_tp_dst.to_bytes());
        // Behind the ports the protocol, and padding to the struct's alignment.
        let tail = [d.ct_nw_proto, 0, 0, 0];
        match key.dl_type.get() {
            ETH_IP => {
                let (from, to) = (d.ct_nw_src.to_bytes(), d.ct_nw_dst.to_bytes());
                self.put(CT_ORIG_TUPLE_IPV4, &[&from, &to, &src, &dst, &tail]);
            }
            ETH_IPV6 => {
                let (from, to) = (d.ct_ipv6_src.to_bytes(), d.ct_ipv6_dst.to_bytes());
                self.put(CT_ORIG_TUPLE_IPV6, &[&from, &to, &src, &dst, &tail]);
            }
            _ => {}
        }
    }

    /// The Ethertype at this depth of tags, and what it announces.
    fn tags(&mut self, depth: usize) {
        let (key, data, is_mask) = (self.key, self.data, self.is_mask);
        let tag = key.vlans.get(depth).filter(|v| v.is_present()).zip(data.vlans.get(depth));
        let Some((tag, bits)) = tag else { return self.l3() };
        let tpid = if tag.tpid.is_zero() { ETH_VLAN } else { tag.tpid.get() };
        let tpid = if is_mask { Be16::MAX } else { Be16::new(tpid) };
        self.w.put(ETHERTYPE, &tpid.to_bytes());
        self.w.put(VLAN, &bits.tci.to_bytes());
        self.w.nest(ENCAP, |w| Put { w, key, data, is_mask }.tags(depth + 1));
    }

    fn l3(&mut self) {
        let (key, d) = (self.key, self.data);
        let dl_type = key.dl_type.get();
        if self.is_mask {
            // The kernel looks at it in any case.
            self.w.put(ETHERTYPE, &Be16::MAX.to_bytes());
        } else if dl_type != ETH_NONE {
            self.w.put(ETHERTYPE, &d.dl_type.to_bytes());
        }
        match dl_type {
            ETH_IP => {
                let tail = [d.nw_proto, d.nw_tos, d.nw_ttl, self.frag()];
                self.put(IPV4, &[&d.nw_src.to_bytes(), &d.nw_dst.to_bytes(), &tail]);
            }
            ETH_IPV6 => {
                let label = Be32::new(d.ipv6_label.get() & IPV6_LABEL).to_bytes();
                let tail = [d.nw_proto, d.nw_tos, d.nw_ttl, self.frag()];
                self.put(IPV6, &[&d.ipv6_src.to_bytes(), &d.ipv6_dst.to_bytes(), &label, &tail]);
            }
            ETH_ARP | ETH_RARP => {
                let (sip, tip) = (d.nw_src.to_bytes(), d.nw_dst.to_bytes());
                let tail: [&[u8]; 3] = [&d.arp_sha.0, &d.arp_tha.0, &[0, 0]];
                self.put(ARP, &[&sip, &tip, &[0, d.nw_proto], tail[0], tail[1], tail[2]]);
                return;
            }
            ETH_MPLS | ETH_MPLS_MCAST => return self.labels(),
            ETH_NSH => {
                self.w.nest(NSH, |w| put_nsh(w, &key.nsh, &d.nsh));
                return;
            }
            _ => return,
        }
        if key.nw_frag & Flow::FRAG_LATER == 0 {
            self.l4();
        }
    }

    fn frag(&self) -> u8 {
        match (self.is_mask, self.data.nw_frag) {
            (_, 0) => 0,
            (true, _) => u8::MAX,
            (false, bits) if bits & Flow::FRAG_LATER != 0 => 2,
            (false, _) => 1,
        }
    }

    /// Labels up to the bottom of the stack, or as many as a key holds.
    fn labels(&mut self) {
        let bottom = self.key.mpls_lse.iter().position(|l| l.get() & 0x100 != 0);
        let n = bottom.map_or(self.key.mpls_lse.len(), |at| at + 1);
        let bytes: Vec<u8> = self.data.mpls_lse.iter().take(n).flat_map(|l| l.to_bytes()).collect();
        self.put(MPLS, &[&bytes]);
    }

    fn l4(&mut self) {
        let (key, d) = (self.key, self.data);
        let (src, dst) = (d.tp_src.to_bytes(), d.tp_dst.to_bytes());
        match (key.dl_type.get(), key.nw_proto) {
            (_, PROTO_TCP) => {
                self.put(TCP, &[&src, &dst]);
                self.put(TCP_FLAGS, &[&Be16::new(d.tcp_flags.get() & 0xfff).to_bytes()]);
            }
            (_, PROTO_UDP) => self.put(UDP, &[&src, &dst]),
            (_, PROTO_SCTP) => self.put(SCTP, &[&src, &dst]),
            (ETH_IP, PROTO_ICMP) => self.put(ICMP, &[&src[1..], &dst[1..]]),
            (ETH_IPV6, PROTO_ICMPV6) => {
                self.put(ICMPV6, &[&src[1..], &dst[1..]]);
                let nd = matches!(key.tp_src.get(), ND_SOLICIT | ND_ADVERT) && key.tp_dst.is_zero();
                // The kernel takes a mask of these only behind an exact type and code.
                if nd && (!self.is_mask || src[1] == u8::MAX && dst[1] == u8::MAX) {
                    self.put(ND, &[&d.nd_target.to_bytes(), &d.arp_sha.0, &d.arp_tha.0]);
                }
            }
            _ => {}
        }
    }
}

/// Appends the inside of an NSH attribute.
pub(super) fn put_nsh(w: &mut Writer, shape: &ib_flow::key::Nsh, nsh: &ib_flow::key::Nsh) {
    let base = [nsh.flags, nsh.ttl, nsh.mdtype, nsh.np];
    w.put_parts(NSH_BASE, &[&base, &nsh.path_hdr.to_bytes()]);
    if shape.mdtype == 1 {
        let [a, b, c, d] = nsh.context.map(Be32::to_bytes);
        w.put_parts(NSH_MD1, &[&a, &b, &c, &d]);
    }
}

/// Reads the inside of an NSH attribute, and TLVs of MD type 2 if there are.
pub(super) fn decode_nsh(bytes: &[u8]) -> Result<(ib_flow::key::Nsh, &[u8]), CodecError> {
    let mut nsh = ib_flow::key::Nsh::default();
    let mut tlvs: &[u8] = &[];
    for attribute in attributes(bytes) {
        match attribute? {
            (NSH_BASE, data) => {
                let [flags, ttl, mdtype, np, path @ ..]: [u8; 8] = whole(data, "NSH")?;
                (nsh.flags, nsh.ttl, nsh.mdtype, nsh.np) = (flags, ttl, mdtype, np);
                nsh.path_hdr = Be32::from_bytes(path);
            }
            (NSH_MD1, data) => {
                let all: [u8; 16] = whole(data, "NSH context")?;
                for (word, bytes) in nsh.context.iter_mut().zip(all.chunks_exact(4)) {
                    *word = Be32::from_bytes(whole(bytes, "NSH context")?);
                }
            }
            (NSH_MD2, data) => tlvs = data,
            _ => return Err(CodecError::Unsupported("NSH attribute")),
        }
    }
    Ok((nsh, tlvs))
}

/// Reads a key and, if the kernel gave one, its mask; without one the key is exact in what it has. Types that the kernel adds in
/// time are skipped.
///
/// Errors: an attribute whose length is not that of its type.
pub fn decode_key(key: &[u8], mask: Option<&[u8]>) -> Result<(Flow, Option<Mask>), CodecError> {
    let flow = Reader { is_mask: false, has_eth: false, tags: 0, flow: Flow::zeroed() }.run(key)?;
    let Some(mask) = mask else { return Ok((flow, None)) };
    let mask = Reader { is_mask: true, has_eth: false, tags: 0, flow: Flow::zeroed() }.run(mask)?;
    Ok((flow, Some(Mask(mask))))
}

struct Reader {
    is_mask: bool,
    has_eth: bool,
    tags: usize,
    flow: Flow,
}

impl Reader {
    fn run(mut self, bytes: &[u8]) -> Result<Flow, CodecError> {
        if !self.is_mask {
            self.flow.in_port = OdpPort::NONE.0;
            self.flow.dl_type = Be16::new(ETH_NONE);
        }
        self.read(bytes, MAX_DEPTH)?;
        let f = &mut self.flow;
        if !self.is_mask && !self.has_eth && f.dl_type.get() != ETH_NONE {
            f.packet_type = Be32::new(1 << 16 | u32::from(f.dl_type.get()));
        }
        Ok(self.flow)
    }

    fn read(&mut self, bytes: &[u8], depth: usize) -> Result<(), CodecError> {
        let depth = depth.checked_sub(1).ok_or(CodecError::Malformed("nested key"))?;
        let mut encap = None;
        let mut tci = None;
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                ENCAP => encap = Some(data),
                VLAN => tci = Some(Be16::from_bytes(whole(data, "VLAN")?)),
                _ => self.one(kind, data)?,
            }
        }
        if let Some(tci) = tci {
            let tpid = std::mem::replace(
                &mut self.flow.dl_type,
                if self.is_mask { Be16::ZERO } else { Be16::new(ETH_NONE) },
            );
            let Some(tag) = self.flow.vlans.get_mut(self.tags) else {
                return Err(CodecError::Unsupported("third VLAN tag"));
            };
            *tag = Vlan { tpid, tci };
            self.tags += 1;
        }
        encap.map_or(Ok(()), |inner| self.read(inner, depth))
    }

    fn one(&mut self, kind: u16, data: &[u8]) -> Result<(), CodecError> {
        let is_mask = self.is_mask;
        let f = &mut self.flow;
        match kind {
            PRIORITY => f.skb_priority = u32_of(data, "priority")?,
            IN_PORT => f.in_port = u32_of(data, "port")?,
            SKB_MARK => f.pkt_mark = u32_of(data, "mark")?,
            TUNNEL => f.tunnel = decode_tunnel(data)?,
            DP_HASH => f.dp_hash = u32_of(data, "hash")?,
            RECIRC_ID => f.recirc_id = u32_of(data, "recirculation")?,
            // Bits that this program does not know yet are not looked at.
            CT_STATE => f.ct_state = u32_of(data, "connection state")?.to_be_bytes()[3],
            CT_ZONE => f.ct_zone = u16_of(data, "connection zone")?,
            CT_MARK => f.ct_mark = u32_of(data, "connection mark")?,
            CT_LABELS => f.ct_label = label_of(whole(data, "connection label")?),
            CT_ORIG_TUPLE_IPV4 => {
                let what = CodecError::Malformed("original tuple");
                f.ct_nw_src = Be32::from_bytes(field(data, 0).ok_or(what)?);
                f.ct_nw_dst = Be32::from_bytes(field(data, 4).ok_or(what)?);
                self.tuple_tail(data.get(8..).ok_or(what)?)?;
            }
            CT_ORIG_TUPLE_IPV6 => {
                let what = CodecError::Malformed("original tuple");
                f.ct_ipv6_src = Be128::from_bytes(field(data, 0).ok_or(what)?);
                f.ct_ipv6_dst = Be128::from_bytes(field(data, 16).ok_or(what)?);
                self.tuple_tail(data.get(32..).ok_or(what)?)?;
            }
            ETHERNET => {
                (f.dl_src, f.dl_dst) = macs(whole(data, "Ethernet")?);
                self.has_eth = true;
            }
            ETHERTYPE => f.dl_type = Be16::from_bytes(whole(data, "Ethertype")?),
            IPV4 => {
                let all: [u8; 12] = whole(data, "IPv4")?;
                let [a, b, c, d, e, g, h, i, proto, tos, ttl, frag] = all;
                f.nw_src = Be32::from_bytes([a, b, c, d]);
                f.nw_dst = Be32::from_bytes([e, g, h, i]);
                (f.nw_proto, f.nw_tos, f.nw_ttl, f.nw_frag) = (proto, tos, ttl, frag_bits(frag, is_mask)?);
            }
            IPV6 => {
                let all: [u8; 40] = whole(data, "IPv6")?;
                let part = |at| field(&all, at).map(Be128::from_bytes).unwrap_or(Be128::ZERO);
                (f.ipv6_src, f.ipv6_dst) = (part(0), part(16));
                let label = u32::from_be_bytes(field(&all, 32).unwrap_or_default());
                f.ipv6_label = Be32::new(label & IPV6_LABEL);
                let [proto, tos, ttl, frag] = field(&all, 36).unwrap_or_default();
                (f.nw_proto, f.nw_tos, f.nw_ttl, f.nw_frag) = (proto, tos, ttl, frag_bits(frag, is_mask)?);
            }
            TCP | UDP | SCTP => {
                let [a, b, c, d] = whole(data, "transport ports")?;
                (f.tp_src, f.tp_dst) = (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]));
            }
            TCP_FLAGS => f.tcp_flags = Be16::from_bytes(whole(data, "TCP flags")?),
            ICMP | ICMPV6 => {
                let [kind, code]: [u8; 2] = whole(data, "ICMP")?;
                // A mask of all that there is is a whole one.
                let wide = |v: u8| Be16::new(if is_mask && v == u8::MAX { u16::MAX } else { v.into() });
                (f.tp_src, f.tp_dst) = (wide(kind), wide(code));
            }
            ARP => {
                let all: [u8; 24] = whole(data, "ARP")?;
                let word = |at| Be32::from_bytes(field(&all, at).unwrap_or_default());
                (f.nw_src, f.nw_dst) = (word(0), word(4));
                f.nw_proto = all[9];
                (f.arp_sha, f.arp_tha) = macs(field(&all, 10).unwrap_or_default());
            }
            ND => {
                let all: [u8; 28] = whole(data, "neighbour discovery")?;
                f.nd_target = Be128::from_bytes(field(&all, 0).unwrap_or_default());
                (f.arp_sha, f.arp_tha) = macs(field(&all, 16).unwrap_or_default());
            }
            MPLS => {
                let (labels, rest) = data.as_chunks::<4>();
                if labels.is_empty() || !rest.is_empty() || labels.len() > f.mpls_lse.len() {
                    return Err(CodecError::Malformed("MPLS"));
                }
                for (lse, bytes) in f.mpls_lse.iter_mut().zip(labels) {
                    *lse = Be32::from_bytes(*bytes);
                }
            }
            NSH => f.nsh = decode_nsh(data)?.0,
            _ => {}
        }
        Ok(())
    }

    fn tuple_tail(&mut self, tail: &[u8]) -> Result<(), CodecError> {
        let [a, b, c, d, proto] = field(tail, 0).ok_or(CodecError::Malformed("original tuple"))?;
        let f = &mut self.flow;
        (f.ct_tp_src, f.ct_tp_dst) = (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]));
        f.ct_nw_proto = proto;
        Ok(())
    }
}

pub(super) fn macs(bytes: [u8; 12]) -> (Mac, Mac) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l]))
}

fn frag_bits(v: u8, is_mask: bool) -> Result<u8, CodecError> {
    match (is_mask, v) {
        (_, 0) => Ok(0),
        (true, _) => Ok(Flow::FRAG_ANY | Flow::FRAG_LATER),
        (false, 1) => Ok(Flow::FRAG_ANY),
        (false, 2) => Ok(Flow::FRAG_ANY | Flow::FRAG_LATER),
        _ => Err(CodecError::Malformed("fragment type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{PortNames, format_key, parse_key};

    fn bytes_of(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        fill(&mut w);
        w.finish().unwrap()
    }

    #[test]
    fn an_upcall_key_reads_as_the_kernel_writes_it() {
        // recirc 0, port 2, eth, IPv4 10.0.0.1 -> 10.0.0.2, ICMP echo request.
        let bytes = b"\x08\0\x14\0\0\0\0\0\x08\0\x03\0\x02\0\0\0\
\x10\0\x04\0\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x06\0\x06\0\x08\0\0\0\
\x10\0\x07\0\x0a\0\0\x01\x0a\0\0\x02\x01\0\x40\0\x06\0\x0b\0\x08\0\0\0";
        let (key, mask) = decode_key(bytes, None).unwrap();
        assert!(mask.is_none());
        assert_eq!(
            format_key(&key, None, &PortNames::none(), false),
            "recirc_id(0),in_port(2),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),\
             ipv4(src=10.0.0.1,dst=10.0.0.2,proto=1,tos=0,ttl=64,frag=no),icmp(type=8,code=0)"
        );
    }

    /// Text to attributes, back to values, and to text.
    fn check(text: &str) {
        let names = PortNames::none();
        let (key, mask) = parse_key(text, &names).unwrap();
        let key_bytes = bytes_of(|w| put_key(w, &key));
        let mask_bytes = bytes_of(|w| put_mask(w, &key, &mask));
        let (key, mask) = decode_key(&key_bytes, Some(&mask_bytes)).unwrap();
        let mask = mask.unwrap();
        assert_eq!(format_key(&key, Some(&mask), &names, false), text);
        assert_eq!(bytes_of(|w| put_key(w, &key)), key_bytes);
        assert_eq!(bytes_of(|w| put_mask(w, &key, &mask)), mask_bytes);
    }

    #[test]
    fn keys_and_masks_come_back() {
        for text in [
            "recirc_id(0),in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800),ipv4(dst=10.0.0.2/255.0.0.0,proto=6,ttl=64,frag=no),tcp(dst=80),tcp_flags(+syn-ack)",
            "recirc_id(0x1),in_port(1),eth(),eth_type(0x8100),vlan(vid=10,pcp=3),encap(eth_type(0x86dd),ipv6(src=fe80::1,label=0x1,proto=58,frag=first),icmpv6(type=135,code=0),nd(target=::1,sll=00:00:00:00:00:01))",
            "skb_priority(0x5/0xf),skb_mark(0x1),ct_state(+est+trk),ct_zone(0x7),ct_mark(0x3/0xff),ct_label(0x1234567890abcdef1234567890abcdef),recirc_id(0x2),dp_hash(0x4/0xf),in_port(3),eth(),eth_type(0x0806),arp(sip=10.0.0.1,op=1,tha=00:00:00:00:00:01)",
            "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,geneve({class=0xffff,type=0x80,len=4,0xa/0xf}),flags(-df+csum+key)),recirc_id(0),in_port(4),eth(),eth_type(0/0xffff)",
            "recirc_id(0),in_port(1),eth(),eth_type(0x8847),mpls(label=100/0xfffff,tc=0/0,ttl=64/0x0,bos=1/1)",
        ] {
            check(text);
        }
    }

    #[test]
    fn a_short_attribute_is_malformed() {
        for kind in (PRIORITY..=NSH).filter(|k| *k != TUNNEL && *k != NSH) {
            let bytes = bytes_of(|w| w.put(kind, &[1]));
            assert!(matches!(decode_key(&bytes, None), Err(CodecError::Malformed(_))), "{kind}");
        }
    }
}
