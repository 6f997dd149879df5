//! The outer headers of a flow's packets, prepared once by translation.
//!
//! What differs from packet to packet (lengths, checksums, UDP source port, sequence numbers) is left to [`crate::push`]; a
//! UDP checksum field of all ones asks for one.

use std::net::Ipv6Addr;

use ib_flow::tlv::TlvTable;
use ib_flow::{Flow, TunFlags, Tunnel};
use ib_packet::{Be16, Mac};

use crate::config::{FlowLabel, OrFlow, TunnelConfig};
use crate::kind::{IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_IPV6, IPPROTO_ROUTING, IPPROTO_UDP, Kind};

/// Ethertype of frames within GRE and Geneve.
pub const ETH_TEB: u16 = 0x6558;
/// GRE protocol of ERSPAN version 1.
pub const ETH_ERSPAN1: u16 = 0x88be;
/// GRE protocol of ERSPAN version 2.
pub const ETH_ERSPAN2: u16 = 0x22eb;
/// GRE flags.
pub const GRE_CSUM: u16 = 0x8000;
/// A key follows.
pub const GRE_KEY: u16 = 0x2000;
/// A sequence number follows.
pub const GRE_SEQ: u16 = 0x1000;
/// VXLAN: the identifier is valid.
pub const VXLAN_I: u32 = 0x0800_0000;
/// VXLAN-GPE: a next protocol is given.
pub const VXLAN_GPE: u32 = 0x0400_0000;
/// VXLAN-GBP: a policy is given.
pub const VXLAN_GBP: u32 = 0x8000_0000;

/// The underlay's side of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Underlay {
    /// Next hop.
    pub dst_mac: Mac,
    /// Ours.
    pub src_mac: Mac,
    /// Tunnel's far end; IPv4 mapped.
    pub dst: Ipv6Addr,
    /// Our end.
    pub src: Ipv6Addr,
}

/// The headers for packets of `flow` (inner, with the tunnel's fields set); `None` if this tunnel can't carry them.
pub fn build(config: &TunnelConfig, flow: &Flow, underlay: &Underlay) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&underlay.dst_mac.0);
    out.extend_from_slice(&underlay.src_mac.0);
    let v4 = underlay.dst.to_ipv4_mapped().zip(underlay.src.to_ipv4_mapped());
    let protocol = match config.kind {
        Kind::Vxlan | Kind::Geneve | Kind::Gtpu | Kind::Bareudp => IPPROTO_UDP,
        Kind::Gre | Kind::Ip6Gre | Kind::Erspan | Kind::Ip6Erspan => IPPROTO_GRE,
        Kind::Srv6 if v4.is_none() => IPPROTO_ROUTING,
        Kind::Srv6 | Kind::Lisp | Kind::Stt => return None,
    };
    let t = &flow.tunnel;
    match v4 {
        Some((dst, src)) => {
            out.extend_from_slice(&[0x08, 0x00, 0x45, t.ip_tos, 0, 0, 0, 0]);
            out.extend_from_slice(if t.flags & TunFlags::DF != 0 { &[0x40, 0] } else { &[0, 0] });
            out.extend_from_slice(&[t.ip_ttl, protocol, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
        }
        None => {
            let word = 6 << 28 | u32::from(t.ip_tos) << 20 | label(config, flow);
            out.extend_from_slice(&[0x86, 0xdd]);
            out.extend_from_slice(&word.to_be_bytes());
            out.extend_from_slice(&[0, 0, protocol, t.ip_ttl]);
            out.extend_from_slice(&underlay.src.octets());
            out.extend_from_slice(&underlay.dst.octets());
        }
    }
    if protocol == IPPROTO_UDP {
        let csum = v4.is_none() || t.flags & TunFlags::CSUM != 0;
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&config.dst_port.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(if csum { &[0xff, 0xff] } else { &[0, 0] });
    }
    match config.kind {
        Kind::Vxlan => vxlan(config, flow, &mut out)?,
        Kind::Geneve => geneve(flow, &mut out)?,
        Kind::Gre | Kind::Ip6Gre => gre(config, flow, &mut out),
        Kind::Erspan | Kind::Ip6Erspan => erspan(config, t, &mut out)?,
        Kind::Gtpu => {
            let flags = if t.gtpu_flags == 0 { 0x30 } else { t.gtpu_flags };
            let kind = if t.gtpu_msgtype == 0 { 255 } else { t.gtpu_msgtype };
            out.extend_from_slice(&[flags, kind, 0, 0]);
            out.extend_from_slice(&low32(t).to_be_bytes());
        }
        Kind::Srv6 => srv6(config, flow, underlay, &mut out)?,
        Kind::Bareudp | Kind::Lisp | Kind::Stt => {}
    }
    Some(out)
}

fn low32(t: &Tunnel) -> u32 {
    t.tun_id.get() as u32
}

fn label(config: &TunnelConfig, flow: &Flow) -> u32 {
    match config.srv6_flowlabel {
        FlowLabel::Copy if config.kind == Kind::Srv6 && flow.dl_type.get() == 0x86dd => {
            flow.ipv6_label.get() & 0xf_ffff
        }
        _ => 0,
    }
}

/// The Ethertype of a packet in its tunnel: what is inside, or [`ETH_TEB`] for a frame.
fn inner_ethertype(flow: &Flow) -> u16 {
    if flow.packet_type.is_zero() { ETH_TEB } else { flow.packet_type.get() as u16 }
}

fn vxlan(config: &TunnelConfig, flow: &Flow, out: &mut Vec<u8>) -> Option<()> {
    let mut flags = VXLAN_I;
    if config.gpe {
        let next = match inner_ethertype(flow) {
            ETH_TEB => 3,
            0x0800 => 1,
            0x86dd => 2,
            0x894f => 4,
            _ => return None,
        };
        flags |= VXLAN_GPE | next;
    } else if config.gbp {
        let t = &flow.tunnel;
        if !t.gbp_id.is_zero() || t.gbp_flags != 0 {
            flags |= VXLAN_GBP | u32::from(t.gbp_flags) << 16 | u32::from(t.gbp_id.get());
        }
    }
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&(low32(&flow.tunnel) << 8).to_be_bytes());
    Some(())
}

/// The options of a tunnel as they travel: raw ones, or those of its table's fields.
pub fn geneve_options(t: &Tunnel) -> Vec<u8> {
    if t.flags & TunFlags::UDPIF != 0 {
        let len = usize::try_from(t.opts_present).unwrap_or(0).min(t.opts.len());
        return t.opts[..len].to_vec();
    }
    let mut options = Vec::new();
    if let Some(table) = TlvTable::by_id(t.tlv_table()) {
        table.pack(t, &mut options);
    }
    options
}

fn geneve(flow: &Flow, out: &mut Vec<u8>) -> Option<()> {
    let t = &flow.tunnel;
    let options = geneve_options(t);
    let words = u8::try_from(options.len() / 4).ok().filter(|w| *w < 64)?;
    let critical = ib_flow::tlv::options(&options).any(|(_, kind, _)| kind & 0x80 != 0);
    let oam = t.flags & TunFlags::OAM != 0;
    out.extend_from_slice(&[words, u8::from(oam) << 7 | u8::from(critical) << 6]);
    out.extend_from_slice(&inner_ethertype(flow).to_be_bytes());
    out.extend_from_slice(&(low32(t) << 8).to_be_bytes());
    out.extend_from_slice(&options);
    Some(())
}

fn gre(config: &TunnelConfig, flow: &Flow, out: &mut Vec<u8>) {
    let csum = flow.tunnel.flags & TunFlags::CSUM != 0;
    let key = config.out_key.is_some();
    let mut flags = 0;
    for (on, bit) in [(csum, GRE_CSUM), (key, GRE_KEY), (config.seq, GRE_SEQ)] {
        flags |= if on { bit } else { 0 };
    }
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&inner_ethertype(flow).to_be_bytes());
    if csum {
        out.extend_from_slice(&[0; 4]);
    }
    if key {
        out.extend_from_slice(&low32(&flow.tunnel).to_be_bytes());
    }
    if config.seq {
        out.extend_from_slice(&[0; 4]);
    }
}

fn or_of_flow<T: Copy>(v: OrFlow<T>, of_flow: T) -> T {
    v.fixed().unwrap_or(of_flow)
}

fn erspan(config: &TunnelConfig, t: &Tunnel, out: &mut Vec<u8>) -> Option<()> {
    let version = or_of_flow(config.erspan_ver, t.erspan_ver);
    let session = Be16::new(low32(t) as u16 & 0x3ff).to_bytes();
    let (ethertype, nibble) = match version {
        1 => (ETH_ERSPAN1, 1u8),
        2 => (ETH_ERSPAN2, 2),
        _ => return None,
    };
    out.extend_from_slice(&GRE_SEQ.to_be_bytes());
    out.extend_from_slice(&ethertype.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[nibble << 4, 0]);
    out.extend_from_slice(&session);
    if version == 1 {
        let idx = or_of_flow(config.erspan_idx, t.erspan_idx) & 0xf_ffff;
        out.extend_from_slice(&idx.to_be_bytes());
    } else {
        let hwid = or_of_flow(config.erspan_hwid, t.erspan_hwid) & 0x3f;
        let dir = or_of_flow(config.erspan_dir, t.erspan_dir) & 1;
        // Timestamp, security group; then frame type, hardware id, direction, granularity of 100 microseconds.
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&[hwid >> 4 & 3, (hwid & 0xf) << 4 | dir << 3]);
    }
    Some(())
}

/// Segment routing header (RFC 8754), with the last segment first.
fn srv6(config: &TunnelConfig, flow: &Flow, underlay: &Underlay, out: &mut Vec<u8>) -> Option<()> {
    let one = [underlay.dst];
    let segments = if config.srv6_segs.is_empty() { &one[..] } else { &config.srv6_segs };
    if segments.first() != Some(&underlay.dst) {
        // The packet would not pass its first segment.
        return None;
    }
    let n = u8::try_from(segments.len()).ok()?;
    let next = match inner_ethertype(flow) {
        0x0800 => IPPROTO_IPIP,
        0x86dd => IPPROTO_IPV6,
        _ => return None,
    };
    out.extend_from_slice(&[next, n * 2, 4, n - 1, n - 1, 0, 0, 0]);
    for segment in segments.iter().rev() {
        out.extend_from_slice(&segment.octets());
    }
    Some(())
}
