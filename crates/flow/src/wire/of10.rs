//! The fixed match structures of OpenFlow 1.0 (40 bytes) and 1.1 (88 bytes).
//!
//! Each is a row of fields with a word of wildcard bits. VLANs need care: 1.0 has an id of 0xffff for "no
//! tag", 1.1 also 0xfffe for "any tag"; in our key the tag has a "present" bit instead.

use ib_packet::{Be16, Be32, Be64, Mac};

use super::nxm::NxmError;
use crate::extract::proto;
use crate::fields::{port_from_of11, port_to_of11};
use crate::key::{Match, Vlan};
use crate::text::parse::set_default_packet_type;

/// A match on anything but the port of entry is one on Ethernet packets.
fn imply_ethernet(m: &mut Match) {
    let mut rest = m.mask.0.clone();
    rest.in_port = 0;
    if rest.words().iter().any(|w| *w != 0) {
        set_default_packet_type(m);
    }
}

/// Bytes of an OpenFlow 1.0 match.
pub const OF10_LEN: usize = 40;
/// Bytes of an OpenFlow 1.1 match, type and length included.
pub const OF11_LEN: usize = 88;

/// Wildcard bits of OpenFlow 1.0 (`OFPFW_*`).
mod fw10 {
    pub const IN_PORT: u32 = 1 << 0;
    pub const DL_VLAN: u32 = 1 << 1;
    pub const DL_SRC: u32 = 1 << 2;
    pub const DL_DST: u32 = 1 << 3;
    pub const DL_TYPE: u32 = 1 << 4;
    pub const NW_PROTO: u32 = 1 << 5;
    pub const TP_SRC: u32 = 1 << 6;
    pub const TP_DST: u32 = 1 << 7;
    pub const NW_SRC_SHIFT: u32 = 8;
    pub const NW_DST_SHIFT: u32 = 14;
    pub const DL_VLAN_PCP: u32 = 1 << 20;
    pub const NW_TOS: u32 = 1 << 21;
}
/// Wildcard bits of OpenFlow 1.1.
mod fw11 {
    pub const IN_PORT: u32 = 1 << 0;
    pub const DL_VLAN: u32 = 1 << 1;
    pub const DL_VLAN_PCP: u32 = 1 << 2;
    pub const DL_TYPE: u32 = 1 << 3;
    pub const NW_TOS: u32 = 1 << 4;
    pub const NW_PROTO: u32 = 1 << 5;
    pub const TP_SRC: u32 = 1 << 6;
    pub const TP_DST: u32 = 1 << 7;
    pub const MPLS_LABEL: u32 = 1 << 8;
    pub const MPLS_TC: u32 = 1 << 9;
}
const VLAN_NONE: u16 = 0xffff;
const VLAN_ANY: u16 = 0xfffe;

fn be16(b: &[u8], at: usize) -> Be16 {
    Be16::from_bytes([b[at], b[at + 1]])
}
fn be32(b: &[u8], at: usize) -> Be32 {
    Be32::from_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
fn be64(b: &[u8], at: usize) -> Be64 {
    Be64::new(u64::from(be32(b, at).get()) << 32 | u64::from(be32(b, at + 4).get()))
}
fn mac(b: &[u8], at: usize) -> Mac {
    Mac([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5]])
}
fn not(m: Mac) -> Mac {
    Mac(m.0.map(|b| !b))
}
fn prefix(wild_bits: u32) -> Be32 {
    Be32::new(u32::MAX.checked_shl(wild_bits).unwrap_or(0))
}

/// From an OpenFlow 1.0 match. Nothing in it can be wrong; see [`crate::text::normalize_match`] for fields
/// without prerequisites.
pub fn decode10(b: &[u8; OF10_LEN]) -> Match {
    use fw10::*;
    let wc = be32(b, 0).get();
    let on = |bit: u32| wc & bit == 0;
    let mut m = Match::catch_all();
    imply_ethernet(&mut m);
    let (f, w) = (&mut m.flow, &mut m.mask.0);
    f.in_port = be16(b, 4).get().into();
    (f.dl_src, f.dl_dst) = (mac(b, 6), mac(b, 12));
    f.dl_type = be16(b, 22);
    f.nw_tos = b[24];
    f.nw_proto = b[25];
    (f.nw_src, f.nw_dst) = (be32(b, 28), be32(b, 32));
    (f.tp_src, f.tp_dst) = (be16(b, 36), be16(b, 38));
    if on(IN_PORT) {
        w.in_port = u32::MAX;
    }
    if on(DL_SRC) {
        w.dl_src = Mac::BROADCAST;
    }
    if on(DL_DST) {
        w.dl_dst = Mac::BROADCAST;
    }
    if on(DL_TYPE) {
        w.dl_type = Be16::MAX;
    }
    if on(NW_TOS) {
        w.nw_tos = 0xfc;
    }
    if on(NW_PROTO) {
        w.nw_proto = u8::MAX;
    }
    if on(TP_SRC) {
        w.tp_src = Be16::MAX;
    }
    if on(TP_DST) {
        w.tp_dst = Be16::MAX;
    }
    w.nw_src = prefix(wc >> NW_SRC_SHIFT & 0x3f);
    w.nw_dst = prefix(wc >> NW_DST_SHIFT & 0x3f);
    let vid = be16(b, 18).get();
    if on(DL_VLAN) && vid == VLAN_NONE {
        // With a priority besides this makes no sense; the priority loses.
        w.vlans[0].tci = Be16::MAX;
    } else {
        let mut mask = 0;
        if on(DL_VLAN) {
            mask |= Vlan::VID_MASK | Vlan::CFI;
        }
        if on(DL_VLAN_PCP) {
            mask |= Vlan::PCP_MASK | Vlan::CFI;
        }
        f.vlans[0].tci = Be16::new(vid & Vlan::VID_MASK | u16::from(b[20] & 7) << 13 | Vlan::CFI);
        w.vlans[0].tci = Be16::new(mask);
    }
    m.normalize();
    m
}

/// As an OpenFlow 1.0 match; what that cannot say is left out.
pub fn encode10(m: &Match) -> [u8; OF10_LEN] {
    use fw10::*;
    let (f, w) = (&m.flow, &m.mask.0);
    let mut wc = 0;
    for (bit, wild) in [
        (IN_PORT, w.in_port == 0),
        (DL_TYPE, w.dl_type.is_zero()),
        (NW_PROTO, w.nw_proto == 0),
        (NW_TOS, w.nw_tos & 0xfc == 0),
        (TP_SRC, w.tp_src.is_zero()),
        (TP_DST, w.tp_dst.is_zero()),
        (DL_SRC, w.dl_src.is_zero()),
        (DL_DST, w.dl_dst.is_zero()),
    ] {
        if wild {
            wc |= bit;
        }
    }
    wc |= (32 - w.nw_src.get().leading_ones()) << NW_SRC_SHIFT;
    wc |= (32 - w.nw_dst.get().leading_ones()) << NW_DST_SHIFT;
    let (tci, mask) = (f.vlans[0].tci.get(), w.vlans[0].tci.get());
    let (mut vid, mut pcp) = (0, 0);
    if mask == 0 {
        wc |= DL_VLAN | DL_VLAN_PCP;
    } else if mask & Vlan::CFI != 0 && tci & Vlan::CFI == 0 {
        vid = VLAN_NONE;
    } else {
        if mask & Vlan::VID_MASK == 0 {
            wc |= DL_VLAN;
        } else {
            vid = tci & Vlan::VID_MASK;
        }
        if mask & Vlan::PCP_MASK == 0 {
            wc |= DL_VLAN_PCP;
        } else {
            pcp = f.vlans[0].pcp();
        }
    }
    let mut b = [0; OF10_LEN];
    b[0..4].copy_from_slice(&wc.to_be_bytes());
    b[4..6].copy_from_slice(&(f.in_port as u16).to_be_bytes());
    b[6..12].copy_from_slice(&f.dl_src.0);
    b[12..18].copy_from_slice(&f.dl_dst.0);
    b[18..20].copy_from_slice(&vid.to_be_bytes());
    b[20] = pcp;
    b[22..24].copy_from_slice(&f.dl_type.to_bytes());
    b[24] = f.nw_tos & 0xfc;
    b[25] = f.nw_proto;
    b[28..32].copy_from_slice(&f.nw_src.to_bytes());
    b[32..36].copy_from_slice(&f.nw_dst.to_bytes());
    b[36..38].copy_from_slice(&f.tp_src.to_bytes());
    b[38..40].copy_from_slice(&f.tp_dst.to_bytes());
    b
}

/// From an OpenFlow 1.1 match (`b` begins with its type and length, which the caller has checked).
pub fn decode11(b: &[u8; OF11_LEN]) -> Result<Match, NxmError> {
    use fw11::*;
    let wc = be32(b, 8).get();
    let on = |bit: u32| wc & bit == 0;
    let mut m = Match::catch_all();
    imply_ethernet(&mut m);
    let (f, w) = (&mut m.flow, &mut m.mask.0);
    if on(IN_PORT) {
        let port = port_from_of11(be32(b, 4).get()).ok_or(NxmError::BadValue)?;
        f.in_port = port.0.into();
        w.in_port = u32::MAX;
    }
    (f.dl_src, w.dl_src) = (mac(b, 12), not(mac(b, 18)));
    (f.dl_dst, w.dl_dst) = (mac(b, 24), not(mac(b, 30)));
    let (vid, pcp) = (be16(b, 36).get(), b[38]);
    if on(DL_VLAN) {
        match vid {
            VLAN_NONE => w.vlans[0].tci = Be16::MAX,
            VLAN_ANY => {
                f.vlans[0].tci = Be16::new(Vlan::CFI);
                w.vlans[0].tci = Be16::new(Vlan::CFI);
            }
            0..4096 => {
                f.vlans[0].tci = Be16::new(Vlan::CFI | vid);
                w.vlans[0].tci = Be16::new(Vlan::CFI | Vlan::VID_MASK);
            }
            _ => return Err(NxmError::BadValue),
        }
        if vid != VLAN_NONE && on(DL_VLAN_PCP) {
            if pcp > 7 {
                return Err(NxmError::BadValue);
            }
            f.vlans[0].tci |= Be16::new(u16::from(pcp) << 13);
            w.vlans[0].tci |= Be16::new(Vlan::PCP_MASK);
        }
    }
    if on(DL_TYPE) {
        (f.dl_type, w.dl_type) = (be16(b, 40), Be16::MAX);
    }
    let ipv4 = f.dl_type.get() == proto::ETH_IP;
    let arp = matches!(f.dl_type.get(), proto::ETH_ARP | proto::ETH_RARP);
    if ipv4 && on(NW_TOS) {
        if b[42] & !0xfc != 0 {
            return Err(NxmError::BadValue);
        }
        (f.nw_tos, w.nw_tos) = (b[42], 0xfc);
    }
    if ipv4 || arp {
        if on(NW_PROTO) {
            (f.nw_proto, w.nw_proto) = (b[43], u8::MAX);
        }
        (f.nw_src, w.nw_src) = (be32(b, 44), !be32(b, 48));
        (f.nw_dst, w.nw_dst) = (be32(b, 52), !be32(b, 56));
    }
    if ipv4 && w.nw_proto != 0 {
        let icmp = f.nw_proto == proto::IP_ICMP;
        if icmp || matches!(f.nw_proto, proto::IP_TCP | proto::IP_UDP | proto::IP_SCTP) {
            for (bit, at, v, mask) in
                [(TP_SRC, 60, &mut f.tp_src, &mut w.tp_src), (TP_DST, 62, &mut f.tp_dst, &mut w.tp_dst)]
            {
                if on(bit) {
                    (*v, *mask) = (be16(b, at), Be16::MAX);
                    if icmp && v.get() > 0xff {
                        return Err(NxmError::BadField);
                    }
                }
            }
        }
    }
    if matches!(f.dl_type.get(), proto::ETH_MPLS | proto::ETH_MPLS_MCAST) {
        if on(MPLS_LABEL) {
            f.mpls_lse[0] |= Be32::new(be32(b, 64).get() << 12);
            w.mpls_lse[0] |= Be32::new(0xffff_f000);
        }
        if on(MPLS_TC) {
            f.mpls_lse[0] |= Be32::new(u32::from(b[68] & 7) << 9);
            w.mpls_lse[0] |= Be32::new(0xe00);
        }
    }
    (f.metadata, w.metadata) = (be64(b, 72), !be64(b, 80));
    m.normalize();
    Ok(m)
}

/// As an OpenFlow 1.1 match; what that cannot say is left out.
pub fn encode11(m: &Match) -> [u8; OF11_LEN] {
    use fw11::*;
    let (f, w) = (&m.flow, &m.mask.0);
    let mut wc = 0;
    for (bit, wild) in [
        (IN_PORT, w.in_port == 0),
        (DL_TYPE, w.dl_type.is_zero()),
        (NW_TOS, w.nw_tos & 0xfc == 0),
        (NW_PROTO, w.nw_proto == 0),
        (TP_SRC, w.tp_src.is_zero()),
        (TP_DST, w.tp_dst.is_zero()),
        (MPLS_LABEL, w.mpls_lse[0].get() & 0xffff_f000 == 0),
        (MPLS_TC, w.mpls_lse[0].get() & 0xe00 == 0),
    ] {
        if wild {
            wc |= bit;
        }
    }
    let (tci, mask) = (f.vlans[0].tci.get(), w.vlans[0].tci.get());
    let (mut vid, mut pcp) = (0, 0);
    if mask == 0 {
        wc |= DL_VLAN | DL_VLAN_PCP;
    } else if mask & Vlan::CFI != 0 && tci & Vlan::CFI == 0 {
        vid = VLAN_NONE;
        wc |= DL_VLAN_PCP;
    } else {
        vid = if mask & Vlan::VID_MASK == 0 { VLAN_ANY } else { tci & Vlan::VID_MASK };
        if mask & Vlan::PCP_MASK == 0 {
            wc |= DL_VLAN_PCP;
        } else {
            pcp = f.vlans[0].pcp();
        }
    }
    let mut b = [0; OF11_LEN];
    b[2..4].copy_from_slice(&(OF11_LEN as u16).to_be_bytes());
    if w.in_port != 0 {
        b[4..8].copy_from_slice(&port_to_of11(f.of_in_port()).to_be_bytes());
    }
    b[8..12].copy_from_slice(&wc.to_be_bytes());
    b[12..18].copy_from_slice(&f.dl_src.0);
    b[18..24].copy_from_slice(&not(w.dl_src).0);
    b[24..30].copy_from_slice(&f.dl_dst.0);
    b[30..36].copy_from_slice(&not(w.dl_dst).0);
    b[36..38].copy_from_slice(&vid.to_be_bytes());
    b[38] = pcp;
    b[40..42].copy_from_slice(&f.dl_type.to_bytes());
    b[42] = f.nw_tos & 0xfc;
    b[43] = f.nw_proto;
    b[44..48].copy_from_slice(&f.nw_src.to_bytes());
    b[48..52].copy_from_slice(&(!w.nw_src).to_bytes());
    b[52..56].copy_from_slice(&f.nw_dst.to_bytes());
    b[56..60].copy_from_slice(&(!w.nw_dst).to_bytes());
    b[60..62].copy_from_slice(&f.tp_src.to_bytes());
    b[62..64].copy_from_slice(&f.tp_dst.to_bytes());
    b[64..68].copy_from_slice(&(f.mpls_lse[0].get() >> 12).to_be_bytes());
    b[68] = (f.mpls_lse[0].get() >> 9 & 7) as u8;
    b[72..80].copy_from_slice(&f.metadata.to_bytes());
    b[80..88].copy_from_slice(&(!w.metadata).to_bytes());
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{match_to_string, parse_match};

    #[test]
    fn catch_all() {
        let b = encode10(&Match::catch_all());
        assert_eq!(&b[..4], &[0, 0x38, 0x20, 0xff]);
        assert_eq!(match_to_string(&decode10(&b), None), "");
        let b = encode11(&Match::catch_all());
        assert_eq!(&b[8..12], &[0, 0, 3, 0xff]);
        assert_eq!(match_to_string(&decode11(&b).unwrap(), None), "");
    }

    #[test]
    fn round_trips() {
        for text in [
            "in_port=LOCAL,dl_vlan=10,dl_vlan_pcp=3",
            "vlan_tci=0x0000",
            "dl_vlan_pcp=3",
            "tcp,nw_src=10.0.0.0/8,nw_dst=1.2.3.4,nw_tos=8,tp_src=1,tp_dst=80",
            "icmp,icmp_type=8,icmp_code=0",
            "arp,arp_spa=10.0.0.1,arp_op=1",
            "dl_src=00:11:22:33:44:55,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x1234",
        ] {
            let m = parse_match(text, None).unwrap().0;
            assert_eq!(match_to_string(&decode10(&encode10(&m)), None), text);
            assert_eq!(match_to_string(&decode11(&encode11(&m)).unwrap(), None), text);
        }
        for text in [
            "mpls,mpls_label=5,mpls_tc=3",
            "metadata=0x5/0xff,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
            "ip,nw_src=1.0.3.0/255.0.255.0",
            "sctp,tp_dst=5",
        ] {
            let m = parse_match(text, None).unwrap().0;
            assert_eq!(match_to_string(&decode11(&encode11(&m)).unwrap(), None), text);
        }
    }

    #[test]
    fn bad_values_in_11() {
        let mut b = encode11(&parse_match("dl_vlan=10,in_port=1", None).unwrap().0);
        b[36..38].copy_from_slice(&5000u16.to_be_bytes());
        assert_eq!(decode11(&b), Err(NxmError::BadValue));
        let mut b = encode11(&parse_match("in_port=1", None).unwrap().0);
        b[4] = 1;
        assert_eq!(decode11(&b), Err(NxmError::BadValue));
    }
}
