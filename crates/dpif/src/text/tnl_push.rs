//! The headers of `tnl_push`, as text and back.
//!
//! `header(size=50,type=4,eth(...),ipv4(...),udp(...),vxlan(flags=0x8000000,vni=0x7b))`. Lengths and checksums that are made for each
//! packet are not shown; headers that are none of these are shown as bytes (`data=`).

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ib_packet::Mac;

use super::action::parse_hex_bytes;
use super::{Res, Scan};

const ETHERNET: usize = 14;
const VXLAN: u32 = 4;
const GENEVE: u32 = 5;
const GTPU: u32 = 110;

fn be16(h: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*h.get(at..)?.first_chunk()?))
}
fn be32(h: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*h.get(at..)?.first_chunk()?))
}
fn v6(h: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*h.get(at..)?.first_chunk::<16>()?))
}
/// C's `%#x`.
fn hex(v: impl Into<u64>) -> String {
    match v.into() {
        0 => "0".to_owned(),
        v => format!("{v:#x}"),
    }
}

/// What stands between `type=N,` and the closing bracket.
pub(super) fn format(out: &mut String, tnl_type: u32, header: &[u8]) {
    match shown(tnl_type, header) {
        Some(text) => out.push_str(&text),
        None => {
            out.push_str("data=");
            header.iter().for_each(|b| {
                let _ = write!(out, "{b:02x}");
            });
        }
    }
}

fn shown(tnl_type: u32, h: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mac = |at: usize| h.get(at..at + 6).map(|b| Mac([b[0], b[1], b[2], b[3], b[4], b[5]]));
    let ethertype = be16(h, 12)?;
    let _ = write!(out, "eth(dst={},src={},dl_type=0x{ethertype:04x}),", mac(0)?, mac(6)?);
    let (proto, l4) = match ethertype {
        0x0800 => {
            let ip = |at: usize| be32(h, at).map(Ipv4Addr::from);
            let (tos, ttl, proto, frag) = (h.get(15)?, h.get(22)?, *h.get(23)?, be16(h, 20)?);
            let _ = write!(
                out,
                "ipv4(src={},dst={},proto={proto},tos={},ttl={ttl},frag=0x{frag:x}),",
                ip(26)?,
                ip(30)?,
                hex(*tos),
            );
            (proto, ETHERNET + 20)
        }
        0x86dd => {
            let word = be32(h, 14)?;
            let (proto, hlimit) = (*h.get(20)?, h.get(21)?);
            let _ = write!(
                out,
                "ipv6(src={},dst={},label={},proto={proto},tclass=0x{:x},hlimit={hlimit}),",
                v6(h, 22)?,
                v6(h, 38)?,
                word & 0xf_ffff,
                word >> 20 & 0xff,
            );
            (proto, ETHERNET + 40)
        }
        _ => return None,
    };
    match proto {
        17 => {
            let (src, dst, csum) = (be16(h, l4)?, be16(h, l4 + 2)?, be16(h, l4 + 6)?);
            let _ = write!(out, "udp(src={src},dst={dst},csum=0x{csum:x})");
            udp_payload(&mut out, tnl_type, h, l4 + 8)?;
        }
        47 => gre(&mut out, h, l4)?,
        43 => {
            let (left, n) = (h.get(l4 + 3)?, usize::from(h.get(l4 + 1)? / 2));
            let segs: Option<Vec<String>> =
                (0..n).map(|i| v6(h, l4 + 8 + i * 16).map(|a| a.to_string())).collect();
            let _ = write!(out, "srv6(segments_left={left},segs({}))", segs?.join(","));
        }
        _ => return None,
    }
    Some(out)
}

fn udp_payload(out: &mut String, tnl_type: u32, h: &[u8], at: usize) -> Option<()> {
    match tnl_type {
        VXLAN => {
            let _ = write!(out, ",vxlan(flags=0x{:x},vni=0x{:x})", be32(h, at)?, be32(h, at + 4)? >> 8);
        }
        GENEVE => {
            let flags = *h.get(at + 1)?;
            let oam = if flags & 0x80 != 0 { "oam," } else { "" };
            let critical = if flags & 0x40 != 0 { "crit," } else { "" };
            let _ = write!(out, ",geneve({oam}{critical}vni=0x{:x}", be32(h, at + 4)? >> 8);
            let options = h.get(at + 8..)?;
            if !options.is_empty() {
                out.push_str(",options(");
                for (class, kind, body) in ib_flow::tlv::options(options) {
                    let (class, kind) = (hex(class), hex(kind));
                    let _ = write!(out, "{{class={class},type={kind},len={}", body.len());
                    if !body.is_empty() {
                        let digits: String = body.iter().map(|b| format!("{b:02x}")).collect();
                        let digits = digits.trim_start_matches('0');
                        let _ = write!(out, ",0x{}", if digits.is_empty() { "0" } else { digits });
                    }
                    out.push('}');
                }
                out.push(')');
            }
            out.push(')');
        }
        GTPU => {
            let (flags, kind) = (h.get(at)?, h.get(at + 1)?);
            let _ = write!(out, ",gtpu(flags=0x{flags:x},msgtype={kind},teid=0x{:x})", be32(h, at + 4)?);
        }
        _ => {}
    }
    Some(())
}

fn gre(out: &mut String, h: &[u8], l4: usize) -> Option<()> {
    let (flags, proto) = (be16(h, l4)?, be16(h, l4 + 2)?);
    match proto {
        0x88be | 0x22eb => {
            let sid = be16(h, l4 + 10)? & 0x3ff;
            if proto == 0x88be {
                let _ = write!(out, "erspan(ver=1,sid=0x{sid:x},idx=0x{:x})", be32(h, l4 + 12)?);
            } else {
                let word = be16(h, l4 + 18)?;
                let (dir, hwid) = (word >> 3 & 1, word >> 4 & 0x3f);
                let _ = write!(out, "erspan(ver=2,sid=0x{sid:x},dir={dir},hwid=0x{hwid:x})");
            }
            return Some(());
        }
        _ => {}
    }
    let _ = write!(out, "gre((flags=0x{flags:x},proto=0x{proto:x})");
    let mut at = l4 + 4;
    if flags & 0x8000 != 0 {
        let _ = write!(out, ",csum=0x{:x}", be16(h, at)?);
        at += 4;
    }
    if flags & 0x2000 != 0 {
        let _ = write!(out, ",key=0x{:x}", be32(h, at)?);
        at += 4;
    }
    if flags & 0x1000 != 0 {
        let _ = write!(out, ",seq=0x{:x}", be32(h, at)?);
    }
    out.push(')');
    Some(())
}

fn mac(s: &mut Scan<'_>) -> Res<[u8; 6]> {
    s.mac().map(|m| m.0)
}

/// Bytes of what stands between `type=N,` and the closing bracket.
pub(super) fn parse(s: &mut Scan<'_>, tnl_type: u32) -> Res<Vec<u8>> {
    if s.eat("data=") {
        return parse_hex_bytes(s);
    }
    let mut h = Vec::new();
    s.expect("eth(dst=")?;
    h.extend_from_slice(&mac(s)?);
    s.expect(",src=")?;
    h.extend_from_slice(&mac(s)?);
    s.expect(",dl_type=")?;
    let ethertype = s.u16()?;
    h.extend_from_slice(&ethertype.to_be_bytes());
    s.expect("),")?;
    let proto = match ethertype {
        0x0800 => {
            s.expect("ipv4(src=")?;
            let src = s.ipv4()?;
            s.expect(",dst=")?;
            let dst = s.ipv4()?;
            s.expect(",proto=")?;
            let proto = s.u8()?;
            s.expect(",tos=")?;
            let tos = s.u8()?;
            s.expect(",ttl=")?;
            let ttl = s.u8()?;
            s.expect(",frag=")?;
            let frag = s.u16()?.to_be_bytes();
            s.expect("),")?;
            h.extend_from_slice(&[0x45, tos, 0, 0, 0, 0, frag[0], frag[1], ttl, proto, 0, 0]);
            h.extend_from_slice(&src.octets());
            h.extend_from_slice(&dst.octets());
            proto
        }
        0x86dd => {
            s.expect("ipv6(src=")?;
            let src = s.ipv6()?;
            s.expect(",dst=")?;
            let dst = s.ipv6()?;
            s.expect(",label=")?;
            let label = s.u32()? & 0xf_ffff;
            s.expect(",proto=")?;
            let proto = s.u8()?;
            s.expect(",tclass=")?;
            let tclass = s.u8()?;
            s.expect(",hlimit=")?;
            let hlimit = s.u8()?;
            s.expect("),")?;
            h.extend_from_slice(&(6 << 28 | u32::from(tclass) << 20 | label).to_be_bytes());
            h.extend_from_slice(&[0, 0, proto, hlimit]);
            h.extend_from_slice(&src.octets());
            h.extend_from_slice(&dst.octets());
            proto
        }
        _ => return s.err("no such outer protocol"),
    };
    match proto {
        17 => {
            s.expect("udp(src=")?;
            h.extend_from_slice(&s.u16()?.to_be_bytes());
            s.expect(",dst=")?;
            h.extend_from_slice(&s.u16()?.to_be_bytes());
            s.expect(",csum=")?;
            let csum = s.u16()?.to_be_bytes();
            s.expect(")")?;
            h.extend_from_slice(&[0, 0, csum[0], csum[1]]);
            parse_udp_payload(s, tnl_type, &mut h)?;
        }
        47 => parse_gre(s, &mut h)?,
        43 => parse_srv6(s, &mut h)?,
        _ => return s.err("no such outer protocol"),
    }
    Ok(h)
}

fn parse_udp_payload(s: &mut Scan<'_>, tnl_type: u32, h: &mut Vec<u8>) -> Res<()> {
    match tnl_type {
        VXLAN => {
            s.expect(",vxlan(flags=")?;
            h.extend_from_slice(&s.u32()?.to_be_bytes());
            s.expect(",vni=")?;
            h.extend_from_slice(&(s.u32()? << 8).to_be_bytes());
            s.expect(")")
        }
        GENEVE => {
            s.expect(",geneve(")?;
            let oam = if s.eat("oam,") { 0x80 } else { 0 };
            let critical = if s.eat("crit,") { 0x40 } else { 0 };
            s.expect("vni=")?;
            let vni = (s.u32()? << 8).to_be_bytes();
            let at = h.len();
            h.extend_from_slice(&[0, oam | critical, 0x65, 0x58]);
            h.extend_from_slice(&vni);
            if s.eat(",options(") {
                while s.eat("{class=") {
                    parse_option(s, h)?;
                }
                s.expect(")")?;
            }
            let words = (h.len() - at - 8) / 4;
            match u8::try_from(words).ok().filter(|w| *w < 64) {
                Some(words) => h[at] = words,
                None => return s.err("too many options"),
            }
            s.expect(")")
        }
        GTPU => {
            s.expect(",gtpu(flags=")?;
            let flags = s.u8()?;
            s.expect(",msgtype=")?;
            let kind = s.u8()?;
            s.expect(",teid=")?;
            h.extend_from_slice(&[flags, kind, 0, 0]);
            h.extend_from_slice(&s.u32()?.to_be_bytes());
            s.expect(")")
        }
        _ => Ok(()),
    }
}

fn parse_option(s: &mut Scan<'_>, h: &mut Vec<u8>) -> Res<()> {
    h.extend_from_slice(&s.u16()?.to_be_bytes());
    s.expect(",type=")?;
    let kind = s.u8()?;
    s.expect(",len=")?;
    let len = usize::from(s.u8()?);
    if len % 4 != 0 || len > 124 {
        return s.err("bad option length");
    }
    h.extend_from_slice(&[kind, (len / 4) as u8]);
    let at = h.len();
    h.resize(at + len, 0);
    if len > 0 {
        s.expect(",0x")?;
        let digits = s.take(|b| b.is_ascii_hexdigit()).to_owned();
        let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
        let bytes = padded.len() / 2;
        if bytes > len {
            return s.err("option is longer than its length");
        }
        for i in 0..bytes {
            h[at + len - bytes + i] = u8::from_str_radix(&padded[i * 2..i * 2 + 2], 16).unwrap_or(0);
        }
    }
    s.expect("}")
}

fn parse_gre(s: &mut Scan<'_>, h: &mut Vec<u8>) -> Res<()> {
    if s.eat("erspan(ver=1,sid=") {
        let sid = (s.u16()? & 0x3ff).to_be_bytes();
        h.extend_from_slice(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 0, 0x10, 0, sid[0], sid[1]]);
        s.expect(",idx=")?;
        h.extend_from_slice(&s.u32()?.to_be_bytes());
        return s.expect(")");
    }
    if s.eat("erspan(ver=2,sid=") {
        let sid = (s.u16()? & 0x3ff).to_be_bytes();
        s.expect(",dir=")?;
        let dir = u16::from(s.u8()? & 1);
        s.expect(",hwid=")?;
        let word = (u16::from(s.u8()? & 0x3f) << 4 | dir << 3).to_be_bytes();
        h.extend_from_slice(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 0, 0x20, 0, sid[0], sid[1]]);
        h.extend_from_slice(&[0, 0, 0, 0, 0, 0, word[0], word[1]]);
        return s.expect(")");
    }
    s.expect("gre((flags=")?;
    let flags = s.u16()?;
    s.expect(",proto=")?;
    let proto = s.u16()?;
    s.expect(")")?;
    h.extend_from_slice(&flags.to_be_bytes());
    h.extend_from_slice(&proto.to_be_bytes());
    if flags & 0x8000 != 0 {
        s.expect(",csum=")?;
        h.extend_from_slice(&s.u16()?.to_be_bytes());
        h.extend_from_slice(&[0, 0]);
    }
    if flags & 0x2000 != 0 {
        s.expect(",key=")?;
        h.extend_from_slice(&s.u32()?.to_be_bytes());
    }
    if flags & 0x1000 != 0 {
        s.expect(",seq=")?;
        h.extend_from_slice(&s.u32()?.to_be_bytes());
    }
    s.expect(")")
}

fn parse_srv6(s: &mut Scan<'_>, h: &mut Vec<u8>) -> Res<()> {
    s.expect("srv6(segments_left=")?;
    let left = s.u8()?;
    s.expect(",segs(")?;
    let mut segs = Vec::new();
    loop {
        segs.push(s.ipv6()?);
        if segs.len() > 6 {
            return s.err("too many segments");
        }
        if !s.eat(",") {
            break;
        }
    }
    s.expect("))")?;
    let n = segs.len() as u8;
    h.extend_from_slice(&[4, n * 2, 4, left, n - 1, 0, 0, 0]);
    segs.iter().for_each(|a| h.extend_from_slice(&a.octets()));
    Ok(())
}
