//! Tunnel keys: `OVS_TUNNEL_KEY_ATTR_*`, in keys, masks, `set` actions and upcalls alike.
//!
//! Flags are attributes without data, in a mask as well. Geneve options travel raw ([`TunFlags::UDPIF`]).

use ib_flow::{TunFlags, Tunnel};
use ib_packet::{Be16, Be32, Be64, Be128};

use super::{CodecError, Writer, attributes, field, u32_of, whole};

const ID: u16 = 0;
const IPV4_SRC: u16 = 1;
const IPV4_DST: u16 = 2;
const TOS: u16 = 3;
const TTL: u16 = 4;
const DONT_FRAGMENT: u16 = 5;
const CSUM: u16 = 6;
const OAM: u16 = 7;
const GENEVE_OPTS: u16 = 8;
const TP_SRC: u16 = 9;
const TP_DST: u16 = 10;
const VXLAN_OPTS: u16 = 11;
const IPV6_SRC: u16 = 12;
const IPV6_DST: u16 = 13;
const PAD: u16 = 14;
const ERSPAN_OPTS: u16 = 15;
const IPV4_INFO_BRIDGE: u16 = 16;

/// `OVS_VXLAN_EXT_GBP`
const VXLAN_GBP: u16 = 1;

/// Appends the inside of a tunnel key: of what `shape` has, the bits of `data`. Both are the same for a key; for a mask, `shape` is the key.
pub(super) fn put_tunnel(w: &mut Writer, shape: &Tunnel, data: &Tunnel) {
    if data.flags & TunFlags::KEY != 0 || !data.tun_id.is_zero() {
        w.put(ID, &data.tun_id.to_bytes());
    }
    for (kind, there, v) in [(IPV4_SRC, shape.ip_src, data.ip_src), (IPV4_DST, shape.ip_dst, data.ip_dst)] {
        if !there.is_zero() || !v.is_zero() && shape.ipv6_dst.is_zero() {
            w.put(kind, &v.to_bytes());
        }
    }
    for (kind, there, v) in
        [(IPV6_SRC, shape.ipv6_src, data.ipv6_src), (IPV6_DST, shape.ipv6_dst, data.ipv6_dst)]
    {
        if !there.is_zero() || !v.is_zero() && shape.ip_dst.is_zero() {
            w.put(kind, &v.to_bytes());
        }
    }
    if data.ip_tos != 0 {
        w.put(TOS, &[data.ip_tos]);
    }
    w.put(TTL, &[data.ip_ttl]);
    for (bit, kind) in [(TunFlags::DF, DONT_FRAGMENT), (TunFlags::CSUM, CSUM), (TunFlags::OAM, OAM)] {
        if data.flags & bit != 0 {
            w.flag(kind);
        }
    }
    for (kind, v) in [(TP_SRC, data.tp_src), (TP_DST, data.tp_dst)] {
        if !v.is_zero() {
            w.put(kind, &v.to_bytes());
        }
    }
    if !data.gbp_id.is_zero() || data.gbp_flags != 0 {
        let gbp = u32::from(data.gbp_flags) << 16 | u32::from(data.gbp_id.get());
        w.nest(VXLAN_OPTS, |w| w.put_u32(VXLAN_GBP, gbp));
    }
    let options = usize::try_from(shape.opts_present).unwrap_or(usize::MAX).min(shape.opts.len());
    if shape.flags & TunFlags::UDPIF != 0 && options > 0 {
        // A mask is as long as the options that it masks.
        w.put(GENEVE_OPTS, &data.opts[..options]);
    }
    if shape.erspan_ver != 0 {
        w.put(ERSPAN_OPTS, &erspan_bytes(shape.erspan_ver, data));
    }
}

/// `struct erspan_metadata`: version, then the index of version 1, or timestamp, group and bits of version 2.
fn erspan_bytes(version: u8, t: &Tunnel) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&u32::from(t.erspan_ver).to_ne_bytes());
    if version == 1 {
        out[4..8].copy_from_slice(&t.erspan_idx.to_be_bytes());
    } else {
        // Bits behind the group tag: hwid_upper 2, frame type 5, P 1; then O 1, gra 2, dir 1, hwid 4.
        out[10] = t.erspan_hwid >> 4 & 3;
        out[11] = (t.erspan_dir & 1) << 3 | (t.erspan_hwid & 0xf) << 4;
    }
    out
}

/// Reads the inside of a tunnel key. In a mask, absent is wildcarded.
///
/// Errors: an attribute that is unknown or has another length.
pub fn decode_tunnel(bytes: &[u8]) -> Result<Tunnel, CodecError> {
    let mut t = ib_flow::Flow::zeroed().tunnel;
    for attribute in attributes(bytes) {
        let (kind, data) = attribute?;
        match kind {
            ID => {
                t.tun_id = Be64::from_bytes(whole(data, "tunnel id")?);
                t.flags |= TunFlags::KEY;
            }
            IPV4_SRC => t.ip_src = Be32::from_bytes(whole(data, "tunnel source")?),
            IPV4_DST => t.ip_dst = Be32::from_bytes(whole(data, "tunnel destination")?),
            IPV6_SRC => t.ipv6_src = Be128::from_bytes(whole(data, "tunnel source")?),
            IPV6_DST => t.ipv6_dst = Be128::from_bytes(whole(data, "tunnel destination")?),
            TOS => [t.ip_tos] = whole(data, "tunnel TOS")?,
            TTL => [t.ip_ttl] = whole(data, "tunnel TTL")?,
            DONT_FRAGMENT => t.flags |= TunFlags::DF,
            CSUM => t.flags |= TunFlags::CSUM,
            OAM => t.flags |= TunFlags::OAM,
            TP_SRC => t.tp_src = Be16::from_bytes(whole(data, "tunnel port")?),
            TP_DST => t.tp_dst = Be16::from_bytes(whole(data, "tunnel port")?),
            GENEVE_OPTS => {
                let room = t.opts.get_mut(..data.len()).ok_or(CodecError::Malformed("Geneve options"))?;
                room.copy_from_slice(data);
                t.flags |= TunFlags::UDPIF;
                t.opts_present = data.len() as u64;
            }
            VXLAN_OPTS => {
                for extension in attributes(data) {
                    let (kind, data) = extension?;
                    if kind == VXLAN_GBP {
                        let [_, flags, id @ ..] = u32_of(data, "VXLAN policy")?.to_be_bytes();
                        (t.gbp_flags, t.gbp_id) = (flags, Be16::from_bytes(id));
                    }
                }
            }
            ERSPAN_OPTS => decode_erspan(data, &mut t)?,
            PAD | IPV4_INFO_BRIDGE => {}
            _ => return Err(CodecError::Unsupported("tunnel attribute")),
        }
    }
    Ok(t)
}

/// The index and the bits of version 2 share their place, so a mask is read as both.
fn decode_erspan(data: &[u8], t: &mut Tunnel) -> Result<(), CodecError> {
    const WHAT: &str = "ERSPAN";
    let version = u32::from_ne_bytes(field(data, 0).ok_or(CodecError::Malformed(WHAT))?);
    // A mask has every bit of the version or none.
    t.erspan_ver = if version == u32::MAX { u8::MAX } else { u8::try_from(version).unwrap_or(0) };
    if version != 2 {
        t.erspan_idx = u32::from_be_bytes(field(data, 4).ok_or(CodecError::Malformed(WHAT))?);
    }
    if version != 1 {
        let [upper, lower] = field(data, 10).ok_or(CodecError::Malformed(WHAT))?;
        t.erspan_dir = lower >> 3 & 1;
        t.erspan_hwid = (upper & 3) << 4 | lower >> 4;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_key_reads_as_the_kernel_writes_it() {
        // id 0x7b, 1.1.1.1 -> 2.2.2.2, ttl 64, csum, port 4789.
        let bytes = b"\x0c\0\0\0\0\0\0\0\0\0\0\x7b\x08\0\x01\0\x01\x01\x01\x01\x08\0\x02\0\x02\x02\x02\x02\
\x05\0\x04\0\x40\0\0\0\x04\0\x06\0\x06\0\x0a\0\x12\xb5\0\0";
        let t = decode_tunnel(bytes).unwrap();
        assert_eq!((t.tun_id.get(), t.ip_ttl, t.tp_dst.get()), (0x7b, 64, 4789));
        assert_eq!((t.ip_src.get(), t.ip_dst.get()), (0x0101_0101, 0x0202_0202));
        assert_eq!(t.flags, TunFlags::KEY | TunFlags::CSUM);
        let mut w = Writer::new();
        put_tunnel(&mut w, &t, &t);
        assert_eq!(w.finish().unwrap(), bytes);
    }

    #[test]
    fn options_and_policies_come_back() {
        let mut t = ib_flow::Flow::zeroed().tunnel;
        t.ipv6_dst = Be128::new(1);
        (t.gbp_id, t.gbp_flags) = (Be16::new(7), 0x48);
        let geneve = b"\xff\xff\x80\x01\0\0\0\x0a";
        t.opts[..8].copy_from_slice(geneve);
        (t.opts_present, t.flags) = (8, TunFlags::UDPIF);
        (t.erspan_ver, t.erspan_dir, t.erspan_hwid) = (2, 1, 0x2b);
        let mut w = Writer::new();
        put_tunnel(&mut w, &t, &t);
        assert!(decode_tunnel(&w.finish().unwrap()).unwrap() == t);
    }

    #[test]
    fn too_many_options_are_malformed() {
        let mut w = Writer::new();
        w.put(GENEVE_OPTS, &[0; 260]);
        assert_eq!(decode_tunnel(&w.finish().unwrap()).err(), Some(CodecError::Malformed("Geneve options")));
    }
}
