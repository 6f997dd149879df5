//! Taking outer headers off one packet that a tunnel port terminates.
//!
//! Bytes are from the network: every length is checked, and what is no such packet stays as it was and is an error with the
//! reason. The outcome of success is the inner packet and what the outer headers said, as a key's tunnel fields.

use ib_flow::{TunFlags, Tunnel};
use ib_packet::csum::{Sum, checksum};
use ib_packet::{Be16, Be32, Be64, Be128, Packet};
use zerocopy::FromZeros;

use crate::build::{
    ETH_ERSPAN1, ETH_ERSPAN2, ETH_TEB, GRE_CSUM, GRE_KEY, GRE_SEQ, VXLAN_GBP, VXLAN_GPE, VXLAN_I,
};
use crate::kind::{IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_ROUTING, IPPROTO_UDP, Kind};

/// Why a packet is not one of this tunnel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopError {
    /// Cut short.
    Truncated,
    /// The outer IPv4 packet says that it is longer than it is: what it says, and what there is.
    IpTruncated(usize, usize),
    /// The outer IP header's checksum is wrong.
    IpChecksum,
    /// The outer UDP or GRE checksum is wrong.
    L4Checksum,
    /// A fragment.
    Fragment,
    /// Not the protocol of this tunnel.
    Protocol,
    /// Flags or a version that we don't know.
    Unsupported,
    /// VXLAN: the words of flags and identifier.
    VxlanFlags(u32, u32),
    /// Geneve: the version.
    GeneveVersion(u8),
    /// Geneve: header and packet in bytes.
    GeneveTruncated(usize, usize),
    /// ERSPAN: the version.
    ErspanVersion(u8),
    /// GTP-U: neither version of IP.
    GtpuNotIp,
}

impl PopError {
    /// For the log, of those that it is told.
    pub fn text(self) -> Option<String> {
        Some(match self {
            PopError::IpTruncated(says, is) => {
                format!("ip packet is truncated (IP length {says}, actual {is})")
            }
            PopError::IpChecksum => "ip packet has invalid checksum".to_owned(),
            // The identifier as it stands: its low byte is reserved.
            PopError::VxlanFlags(flags, vni) => {
                format!("invalid vxlan flags={} vni={}", c_hex(flags), c_hex(vni))
            }
            PopError::GeneveVersion(version) => format!("unknown geneve version: {version}"),
            PopError::GeneveTruncated(header, len) => {
                format!("geneve packet too small: header len={header} packet size={len}")
            }
            PopError::ErspanVersion(version) => format!("ERSPAN version error {version}"),
            PopError::GtpuNotIp => "GTP-U: Receive non-IP packet.".to_owned(),
            _ => return None,
        })
    }
}

/// C's `%#x`.
fn c_hex(v: u32) -> String {
    if v == 0 { "0".to_owned() } else { format!("{v:#x}") }
}

/// Where the headers end, and what is behind them.
struct Inner {
    at: usize,
    /// [`ETH_TEB`] for a frame.
    ethertype: u16,
}

type Parsed<T> = Result<T, PopError>;

fn be16(d: &[u8], at: usize) -> Parsed<u16> {
    let b = d.get(at..at + 2).ok_or(PopError::Truncated)?;
    Ok(u16::from_be_bytes([b[0], b[1]]))
}

fn be32(d: &[u8], at: usize) -> Parsed<u32> {
    let b = d.get(at..at + 4).ok_or(PopError::Truncated)?;
    Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// Takes the headers of a tunnel of `kind` off `p`. `trusted`: checksums of the outer headers were verified already.
pub fn pop(p: &mut Packet, kind: Kind) -> Parsed<Tunnel> {
    let mut t: Tunnel = FromZeros::new_zeroed();
    let outer = outer(p, &mut t)?;
    // Checksums that a device has verified, or that are still to be made, tell nothing.
    let trusted = p.offload.csum_valid || !p.offload.is_plain();
    let d = &p.data()[..outer.end];
    let inner = match (kind, outer.protocol) {
        (Kind::Vxlan | Kind::Geneve | Kind::Gtpu | Kind::Bareudp, IPPROTO_UDP) => {
            let at = udp(d, &outer, trusted, &mut t)?;
            match kind {
                Kind::Vxlan => vxlan(d, at, &mut t)?,
                Kind::Geneve => geneve(d, at, &mut t)?,
                Kind::Gtpu => match gtpu(d, at, &mut t)? {
                    Some(inner) => inner,
                    // Signalling is for who matches it: the packet stays whole.
                    None => return Ok(t),
                },
                _ => bare(d, at)?,
            }
        }
        (Kind::Gre | Kind::Ip6Gre, IPPROTO_GRE) => gre(d, outer.l4, trusted, &mut t)?,
        (Kind::Erspan | Kind::Ip6Erspan, IPPROTO_GRE) => erspan(d, outer.l4, trusted, &mut t)?,
        (Kind::Srv6, IPPROTO_IPIP) => Inner { at: outer.l4, ethertype: 0x0800 },
        (Kind::Srv6, IPPROTO_IPV6) => Inner { at: outer.l4, ethertype: 0x86dd },
        _ => return Err(PopError::Protocol),
    };
    let least = match inner.ethertype {
        ETH_TEB => 14,
        _ => 1,
    };
    if inner.at + least > outer.end {
        return Err(PopError::Truncated);
    }
    if outer.end < p.len() {
        // Padding of a short frame.
        p.resize(outer.end);
    }
    p.pull_front(inner.at);
    p.rss_hash = 0;
    p.offload.csum_valid = false;
    p.ethernet = inner.ethertype == ETH_TEB;
    if !p.ethernet {
        p.l3_type = Be16::new(inner.ethertype);
    }
    Ok(t)
}

struct Outer {
    l3: usize,
    l4: usize,
    v6: bool,
    protocol: u8,
    /// One past the IP packet.
    end: usize,
}

fn outer(p: &Packet, t: &mut Tunnel) -> Parsed<Outer> {
    let d = p.data();
    if !p.ethernet {
        return Err(PopError::Protocol);
    }
    let (mut l3, mut ethertype) = (14, be16(d, 12)?);
    while matches!(ethertype, 0x8100 | 0x88a8) {
        ethertype = be16(d, l3 + 2)?;
        l3 += 4;
    }
    match ethertype {
        0x0800 => {
            let h = d.get(l3..l3 + 20).ok_or(PopError::Truncated)?;
            let header = usize::from(h[0] & 0xf) * 4;
            let total = usize::from(be16(h, 2)?);
            if h[0] >> 4 != 4 || header < 20 || total < header {
                return Err(PopError::Truncated);
            }
            if l3 + total > d.len() {
                return Err(PopError::IpTruncated(total, d.len() - l3));
            }
            if !p.offload.csum_valid && !checksum(&d[l3..l3 + header]).is_zero() {
                return Err(PopError::IpChecksum);
            }
            if be16(h, 6)? & 0x3fff != 0 {
                return Err(PopError::Fragment);
            }
            t.ip_src = Be32::new(be32(h, 12)?);
            t.ip_dst = Be32::new(be32(h, 16)?);
            (t.ip_tos, t.ip_ttl) = (h[1], h[8]);
            Ok(Outer { l3, l4: l3 + header, v6: false, protocol: h[9], end: l3 + total })
        }
        0x86dd => {
            let h = d.get(l3..l3 + 40).ok_or(PopError::Truncated)?;
            let end = l3 + 40 + usize::from(be16(h, 4)?);
            if h[0] >> 4 != 6 || end > d.len() {
                return Err(PopError::Truncated);
            }
            t.ipv6_src = address(&h[8..24]);
            t.ipv6_dst = address(&h[24..40]);
            (t.ip_tos, t.ip_ttl) = ((be16(h, 0)? >> 4) as u8, h[7]);
            let (mut l4, mut protocol) = (l3 + 40, h[6]);
            // Options and segment routing in front of what is inside.
            while matches!(protocol, 0 | 60 | IPPROTO_ROUTING) {
                let ext = d.get(l4..l4 + 8).ok_or(PopError::Truncated)?;
                protocol = ext[0];
                l4 += 8 + usize::from(ext[1]) * 8;
            }
            if protocol == 44 {
                return Err(PopError::Fragment);
            }
            if l4 > end {
                return Err(PopError::Truncated);
            }
            Ok(Outer { l3, l4, v6: true, protocol, end })
        }
        _ => Err(PopError::Protocol),
    }
}

fn address(bytes: &[u8]) -> Be128 {
    let mut a = [0; 16];
    a.copy_from_slice(bytes);
    Be128::new(u128::from_be_bytes(a))
}

/// Returns where its payload starts.
fn udp(d: &[u8], outer: &Outer, trusted: bool, t: &mut Tunnel) -> Parsed<usize> {
    let at = outer.l4;
    let len = be16(d, at + 4)?;
    let csum = be16(d, at + 6)?;
    if usize::from(len) < 8 || at + usize::from(len) > d.len() {
        return Err(PopError::Truncated);
    }
    if csum != 0 {
        let covered = &d[at..at + usize::from(len)];
        let (from, to) = if outer.v6 { (8, 40) } else { (12, 20) };
        let pseudo = Sum::ZERO
            .bytes(&d[outer.l3 + from..outer.l3 + to])
            .bytes(&[0, IPPROTO_UDP])
            .bytes(&len.to_be_bytes());
        if !trusted && !pseudo.bytes(covered).checksum().is_zero() {
            return Err(PopError::L4Checksum);
        }
        t.flags |= TunFlags::CSUM;
    }
    t.tp_src = Be16::new(be16(d, at)?);
    t.tp_dst = Be16::new(be16(d, at + 2)?);
    Ok(at + 8)
}

fn set_key(t: &mut Tunnel, key: u32) {
    t.tun_id = Be64::new(u64::from(key));
    t.flags |= TunFlags::KEY;
}

fn vxlan(d: &[u8], at: usize, t: &mut Tunnel) -> Parsed<Inner> {
    let (flags, vni) = (be32(d, at)?, be32(d, at + 4)?);
    if vni & 0xff != 0 {
        return Err(PopError::VxlanFlags(flags, vni));
    }
    let mut ethertype = ETH_TEB;
    if flags & VXLAN_GPE != 0 {
        // Version 0, no BUM, no OAM: nothing else is understood.
        if flags & 0xf3ff_ff00 & !VXLAN_I != 0 {
            return Err(PopError::VxlanFlags(flags, vni));
        }
        ethertype = match flags & 0xff {
            1 => 0x0800,
            2 => 0x86dd,
            3 => ETH_TEB,
            4 => 0x894f,
            _ => return Err(PopError::Unsupported),
        };
    } else if flags & VXLAN_GBP != 0 {
        t.gbp_id = Be16::new(flags as u16);
        t.gbp_flags = (flags >> 16) as u8 & 0x48;
    } else if flags != VXLAN_I {
        return Err(PopError::VxlanFlags(flags, vni));
    }
    set_key(t, vni >> 8);
    Ok(Inner { at: at + 8, ethertype })
}

fn geneve(d: &[u8], at: usize, t: &mut Tunnel) -> Parsed<Inner> {
    let head = be16(d, at)?;
    let ethertype = be16(d, at + 2)?;
    let vni = be32(d, at + 4)?;
    if head >> 14 != 0 {
        return Err(PopError::GeneveVersion((head >> 14) as u8));
    }
    let len = usize::from(head >> 8 & 0x3f) * 4;
    let options = d.get(at + 8..at + 8 + len).ok_or(PopError::GeneveTruncated(at + 8 + len, d.len()))?;
    if head & 0x80 != 0 {
        t.flags |= TunFlags::OAM;
    }
    t.opts[..len].copy_from_slice(options);
    t.opts_present = len as u64;
    t.flags |= TunFlags::UDPIF;
    set_key(t, vni >> 8);
    Ok(Inner { at: at + 8 + len, ethertype })
}

fn gtpu(d: &[u8], at: usize, t: &mut Tunnel) -> Parsed<Option<Inner>> {
    let head = d.get(at..at + 8).ok_or(PopError::Truncated)?;
    let (flags, kind) = (head[0], head[1]);
    if flags >> 5 != 1 {
        return Err(PopError::Unsupported);
    }
    (t.gtpu_flags, t.gtpu_msgtype) = (flags, kind);
    set_key(t, be32(head, 4)?);
    if kind != 255 {
        return Ok(None);
    }
    let mut end = at + 8;
    // Sequence number, N-PDU number or extension headers: all three fields are there if any is used.
    if flags & 0x07 != 0 {
        let more = d.get(end..end + 4).ok_or(PopError::Truncated)?;
        end += 4;
        let mut next = if flags & 0x04 != 0 { more[3] } else { 0 };
        while next != 0 {
            let len = usize::from(*d.get(end).ok_or(PopError::Truncated)?) * 4;
            if len == 0 {
                return Err(PopError::Unsupported);
            }
            next = *d.get(end + len - 1).ok_or(PopError::Truncated)?;
            end += len;
        }
    }
    bare(d, end).map(Some).map_err(|e| if e == PopError::Unsupported { PopError::GtpuNotIp } else { e })
}

/// An IP packet that its version tells.
fn bare(d: &[u8], at: usize) -> Parsed<Inner> {
    match d.get(at).ok_or(PopError::Truncated)? >> 4 {
        4 => Ok(Inner { at, ethertype: 0x0800 }),
        6 => Ok(Inner { at, ethertype: 0x86dd }),
        _ => Err(PopError::Unsupported),
    }
}

struct Gre {
    flags: u16,
    protocol: u16,
    end: usize,
}

fn gre_header(d: &[u8], at: usize, trusted: bool, t: &mut Tunnel) -> Parsed<Gre> {
    let (flags, protocol) = (be16(d, at)?, be16(d, at + 2)?);
    if flags & !(GRE_CSUM | GRE_KEY | GRE_SEQ) != 0 {
        return Err(PopError::Unsupported);
    }
    let mut end = at + 4;
    if flags & GRE_CSUM != 0 {
        be32(d, end)?;
        if !trusted && !checksum(&d[at..]).is_zero() {
            return Err(PopError::L4Checksum);
        }
        t.flags |= TunFlags::CSUM;
        end += 4;
    }
    if flags & GRE_KEY != 0 {
        let key = be32(d, end)?;
        set_key(t, key);
        end += 4;
    }
    if flags & GRE_SEQ != 0 {
        be32(d, end)?;
        end += 4;
    }
    Ok(Gre { flags, protocol, end })
}

fn gre(d: &[u8], at: usize, trusted: bool, t: &mut Tunnel) -> Parsed<Inner> {
    let header = gre_header(d, at, trusted, t)?;
    Ok(Inner { at: header.end, ethertype: header.protocol })
}

fn erspan(d: &[u8], at: usize, trusted: bool, t: &mut Tunnel) -> Parsed<Inner> {
    let header = gre_header(d, at, trusted, t)?;
    if header.flags & GRE_SEQ == 0 || !matches!(header.protocol, ETH_ERSPAN1 | ETH_ERSPAN2) {
        return Err(PopError::Protocol);
    }
    let at = header.end;
    let (first, second) = (be16(d, at)?, be16(d, at + 2)?);
    set_key(t, u32::from(second & 0x3ff));
    t.erspan_ver = (first >> 12) as u8;
    let end = match t.erspan_ver {
        1 => {
            t.erspan_idx = be32(d, at + 4)? & 0xf_ffff;
            at + 8
        }
        2 => {
            let word = be16(d, at + 10)?;
            t.erspan_hwid = (word >> 4 & 0x3f) as u8;
            t.erspan_dir = (word >> 3 & 1) as u8;
            // Platform specific words follow.
            at + 12 + if word & 1 != 0 { 8 } else { 0 }
        }
        version => return Err(PopError::ErspanVersion(version)),
    };
    Ok(Inner { at: end, ethertype: ETH_TEB })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Underlay, build};
    use crate::config::{OrFlow, PacketTypeMode, TunnelConfig};
    use crate::push::{PerPacket, push};
    use ib_base::rng::Rng;
    use ib_flow::Flow;

    const INNER: [u8; 34] = [
        0x50, 0x54, 0, 0, 0, 7, 0x50, 0x54, 0, 0, 0, 5, 0x08, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 0xff, 0xf9,
        0x6c, 192, 168, 0, 1, 192, 168, 0, 2,
    ];

    fn underlay(v6: bool) -> Underlay {
        let ip = |v4: &str, six: &str| if v6 { six } else { v4 }.parse().map(crate::mapped).unwrap();
        Underlay {
            dst_mac: "f8:bc:12:44:34:b6".parse().unwrap(),
            src_mac: "aa:55:aa:55:00:00".parse().unwrap(),
            dst: ip("1.1.2.92", "2001:cafe::92"),
            src: ip("1.1.2.88", "2001:cafe::88"),
        }
    }

    /// A tunnel of `kind` with options, and the inner packet's key.
    fn tunnel(kind: Kind, r: &mut Rng) -> (TunnelConfig, Flow) {
        let mut c = TunnelConfig::new(kind);
        let mut flow = Flow::zeroed();
        let bits = r.next_u32();
        c.out_key = Some(OrFlow::Flow);
        c.seq = bits & 1 != 0;
        c.gbp = kind == Kind::Vxlan && bits & 2 != 0;
        c.gpe = kind == Kind::Vxlan && !c.gbp && bits & 4 != 0;
        c.erspan_ver = OrFlow::Fixed(1 + (bits >> 3 & 1) as u8);
        (c.erspan_idx, c.erspan_dir, c.erspan_hwid) = (OrFlow::Flow, OrFlow::Flow, OrFlow::Flow);
        let t = &mut flow.tunnel;
        t.tun_id = Be64::new(u64::from(r.next_u32() & if kind.is_erspan() { 0x3ff } else { 0xff_ffff }));
        t.flags = if bits & 16 != 0 { TunFlags::CSUM } else { 0 } | TunFlags::DF | TunFlags::KEY;
        (t.ip_tos, t.ip_ttl) = (bits as u8, 64);
        if c.gbp {
            (t.gbp_id, t.gbp_flags) = (Be16::new(bits as u16 | 1), 0x48);
        }
        (t.erspan_idx, t.erspan_hwid, t.erspan_dir) = (r.next_u32() & 0xf_ffff, bits as u8 & 0x3f, 1);
        if kind == Kind::Geneve && bits & 32 != 0 {
            t.flags |= TunFlags::UDPIF | TunFlags::OAM;
            t.opts[..8].copy_from_slice(&[0xff, 0xff, 0x80, 1, 0, 0, 0, 10]);
            t.opts_present = 8;
        }
        if c.mode == PacketTypeMode::LegacyL3 {
            flow.packet_type = Be32::new(0x1_0800);
        }
        flow.dl_type = Be16::new(0x0800);
        (c, flow)
    }

    #[test]
    fn what_is_pushed_can_be_popped() {
        let mut r = Rng::new(7);
        for round in 0..2000 {
            let kind = Kind::all().filter(|k| !matches!(k, Kind::Lisp | Kind::Stt)).nth(round % 9).unwrap();
            let v6 = kind == Kind::Srv6 || r.next_u32() & 1 != 0;
            let (config, flow) = tunnel(kind, &mut r);
            let u = underlay(v6);
            let header = build(&config, &flow, &u).unwrap();
            let l3 = config.mode == PacketTypeMode::LegacyL3;
            let inner = if l3 { &INNER[14..] } else { &INNER[..] };
            let mut p = Packet::from_frame(inner);
            p.ethernet = !l3;
            p.l3_type = Be16::new(0x0800);
            let per = PerPacket { hash: r.next_u32(), seq: 5, ip_id: 1, timestamp: 0 };
            assert!(push(&mut p, kind, &header, &per), "{kind:?}");
            assert_eq!(p.len(), header.len() + inner.len());
            let good = p.data().to_vec();
            p.extend(&[0; 6]);
            let t = pop(&mut p, kind).unwrap_or_else(|e| panic!("{kind:?} {e:?} {good:02x?}"));
            assert_eq!((p.data(), p.ethernet), (inner, !l3), "{kind:?}");
            assert_eq!((t.ip_tos, t.ip_ttl), (flow.tunnel.ip_tos, 64), "{kind:?}");
            if !matches!(kind, Kind::Srv6 | Kind::Bareudp) {
                assert_eq!(t.tun_id, flow.tunnel.tun_id, "{kind:?}");
            }
            assert_eq!((t.gbp_id, t.gbp_flags), (flow.tunnel.gbp_id, flow.tunnel.gbp_flags));
            assert_eq!((t.opts, t.opts_present), (flow.tunnel.opts, flow.tunnel.opts_present));
            if kind.is_erspan() {
                let sent = &flow.tunnel;
                match t.erspan_ver {
                    1 => assert_eq!(t.erspan_idx, sent.erspan_idx),
                    _ => assert_eq!((t.erspan_hwid, t.erspan_dir), (sent.erspan_hwid, 1)),
                }
            }
            // Any byte may be wrong, and any be missing: it never panics, and a bad address never goes unseen.
            let mut bad = good.clone();
            let at = r.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << r.below(8);
            let mut p = Packet::from_frame(&bad);
            let result = pop(&mut p, kind);
            if !v6 && (14..34).contains(&at) {
                assert!(result.is_err(), "{kind:?}: byte {at}");
            }
            let mut p = Packet::from_frame(&good[..at]);
            assert!(pop(&mut p, kind).is_err() && p.data() == &good[..at]);
        }
    }

    #[test]
    fn the_log_tells_what_the_original_tells() {
        for (error, text) in [
            (PopError::VxlanFlags(0x1234, 0x7b00), Some("invalid vxlan flags=0x1234 vni=0x7b00")),
            (PopError::VxlanFlags(0, 0), Some("invalid vxlan flags=0 vni=0")),
            (PopError::GeneveVersion(1), Some("unknown geneve version: 1")),
            (PopError::IpTruncated(60, 50), Some("ip packet is truncated (IP length 60, actual 50)")),
            (PopError::L4Checksum, None),
            (PopError::Unsupported, None),
        ] {
            assert_eq!(error.text().as_deref(), text);
        }
    }

    #[test]
    fn a_vxlan_packet_as_others_send_it() {
        let hex = "aa55aa550000f8bc124434b6080045000046000040004011334f0101025c01010258c85312b5003200000800000000007b00";
        let mut frame: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap()).collect();
        frame.extend_from_slice(&INNER[..20]);
        let csum = checksum(&{
            let mut h = frame[14..34].to_vec();
            h[10..12].fill(0);
            h
        });
        frame[24..26].copy_from_slice(&csum.to_bytes());
        frame.extend_from_slice(&INNER[20..]);
        let mut p = Packet::from_frame(&frame);
        let t = pop(&mut p, Kind::Vxlan).unwrap();
        assert_eq!((t.tun_id.get(), t.tp_dst.get(), t.flags), (0x7b, 4789, TunFlags::KEY));
        assert_eq!(p.data(), INNER);
        let mut p = Packet::from_frame(&frame);
        assert_eq!(pop(&mut p, Kind::Gre).err(), Some(PopError::Protocol));
    }
}
