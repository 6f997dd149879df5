//! NXM and OXM: a match, or one field's value, as a list of type-length-value entries (OpenFlow 1.3, 7.2.3;
//! ovs-fields(7)).
//!
//! Decoding checks everything that a peer can get wrong and names the fault ([`NxmError`]); loose decoding
//! passes over unknown entries. Encoding writes entries in a fixed order with prerequisites first. Both
//! work on plain bytes; padding and the OpenFlow match header around them are the caller's.

use ib_base::vlog::module::NX_MATCH;
use ib_base::vlog_warn_rl;

use crate::extract::proto;
use crate::fields::{Code, FIELDS, Field, FieldId, FieldValue, Maskable, Place, WordSet};
use crate::key::{Match, Vlan};
use crate::text::parse::add_ethernet_prereq;
use crate::tlv;

/// What is wrong with an entry; named after OpenFlow's `OFPBMC_*` codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NxmError {
    /// Length does not fit the field, or runs past the end.
    BadLen,
    /// Unknown field.
    BadField,
    /// The field cannot be matched with this mask.
    BadMask,
    /// One bits in the value where the mask has zeros.
    BadWildcards,
    /// A value that the field cannot have.
    BadValue,
    /// The match so far does not imply that the field exists.
    BadPrereq,
    /// The field was there already.
    DupField,
    /// A `tun_metadata` field that is not bound to an option (`NXFMFC_INVALID_TLV_FIELD`).
    InvalidTlvField,
}

/// Header of the pseudo entry that carries a flow's cookie in NXM matches.
pub const COOKIE_HEADER: u32 = 1 << 16 | 30 << 9 | 8;
/// The same with a mask.
pub const COOKIE_HEADER_MASKED: u32 = 1 << 16 | 30 << 9 | 1 << 8 | 16;

/// An entry's header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first four bytes.
    pub word: u32,
    /// Experimenter id, 0 unless the class is 0xffff.
    pub experimenter: u32,
}

impl Header {
    /// Class.
    pub fn class(self) -> u16 {
        (self.word >> 16) as u16
    }
    /// Field number.
    pub fn number(self) -> u8 {
        (self.word >> 9 & 0x7f) as u8
    }
    /// Whether a mask follows the value.
    pub fn masked(self) -> bool {
        self.word & 0x100 != 0
    }
    /// Bytes of body as the header has it, experimenter id included.
    pub fn length(self) -> usize {
        (self.word & 0xff) as usize
    }
    /// Bytes of value and mask.
    pub fn payload_len(self) -> usize {
        self.length().saturating_sub(if self.class() == 0xffff { 4 } else { 0 })
    }
    /// Whether this is the cookie's entry.
    pub fn is_cookie(self) -> bool {
        self.word == COOKIE_HEADER || self.word == COOKIE_HEADER_MASKED
    }
    /// The code point, whatever the length.
    pub fn code(self) -> Option<(&'static Field, &'static Code)> {
        code_point(self.class(), self.experimenter, self.number())
    }
}

/// The field of a code point.
pub fn code_point(class: u16, experimenter: u32, number: u8) -> Option<(&'static Field, &'static Code)> {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    type Key = (u16, u32, u8);
    // The keys are ours; what peers send is only looked up, so no seed is needed.
    static CODES: LazyLock<HashMap<Key, (FieldId, &'static Code), foldhash::fast::FixedState>> =
        LazyLock::new(|| {
            let all = FIELDS.iter().flat_map(|f| f.codes.iter().map(move |c| (f.id, c)));
            all.map(|(f, c)| ((c.class, c.experimenter, c.number), (f, c))).collect()
        });
    CODES.get(&(class, experimenter, number)).map(|(f, c)| (f.field(), *c))
}

/// Reads an entry's header (4 or 8 bytes) off the front of `b`. Fails if it is cut short.
pub fn pull_header(b: &mut &[u8]) -> Result<Header, NxmError> {
    let (head, rest) = b.split_first_chunk::<4>().ok_or(NxmError::BadLen)?;
    let word = u32::from_be_bytes(*head);
    let mut h = Header { word, experimenter: 0 };
    *b = rest;
    if h.class() == 0xffff {
        let (exp, rest) = rest.split_first_chunk::<4>().ok_or(NxmError::BadLen)?;
        if h.length() < 4 {
            return Err(NxmError::BadLen);
        }
        h.experimenter = u32::from_be_bytes(*exp);
        *b = rest;
    }
    Ok(h)
}

/// Reads a field's header as actions carry it (no value follows). `Ok((field, masked))`.
pub fn pull_field_header(b: &mut &[u8]) -> Result<(&'static Field, bool), NxmError> {
    let h = pull_header(b)?;
    let (field, _) = h.code().ok_or(NxmError::BadField)?;
    check_len(field, h)?;
    Ok((field, h.masked()))
}

/// The field of a 32-bit header, as older actions carry it: no experimenter's fields.
pub fn field_by_header(word: u32) -> Result<&'static Field, NxmError> {
    let h = Header { word, experimenter: 0 };
    let (field, _) = h.code().ok_or(NxmError::BadField)?;
    check_len(field, h)?;
    Ok(field)
}

fn check_len(field: &Field, h: Header) -> Result<(), NxmError> {
    let n = h.payload_len();
    let width = if h.masked() { n / 2 } else { n };
    let code = h.code().map_or(field.n_bytes, |c| c.1.n_bytes) as usize;
    let ok = if field.is_tun_metadata() { width <= code } else { width == code };
    if ok { Ok(()) } else { Err(NxmError::BadLen) }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its field; `None` only for the cookie.
    pub field: Option<&'static Field>,
    /// Value.
    pub value: FieldValue,
    /// Mask, all ones if there is none.
    pub mask: FieldValue,
    /// Width of the value in bytes.
    pub width: u32,
}

/// Reads one entry off the front of `b`. On [`NxmError::BadField`] the entry has been passed over, so that
/// a loose reader can go on; on other errors `b` is unspecified.
pub fn pull_entry(b: &mut &[u8]) -> Result<Entry, NxmError> {
    let h = pull_header(b)?;
    let n = h.payload_len();
    let (payload, rest) = b.split_at_checked(n).ok_or(NxmError::BadLen)?;
    *b = rest;
    let width = if h.masked() { n / 2 } else { n };
    // A header with another length than the field's names no field.
    let field = h.code().map(|c| c.0).filter(|f| !h.is_cookie() && check_len(f, h).is_ok());
    let (value, mask) = payload.split_at(width);
    let mask = &mask[..width.min(mask.len())];
    if h.masked() && value.iter().zip(mask).any(|(v, m)| v & !m != 0) {
        vlog_warn_rl!(
            NX_MATCH,
            (60, 5),
            "Rejecting NXM/OXM entry {}:{}:{}:{}:{} with 1-bits in value for bits wildcarded by the mask.",
            h.experimenter,
            h.class(),
            h.number(),
            u8::from(h.masked()),
            h.length()
        );
        return Err(NxmError::BadWildcards);
    }
    if field.is_none() && !h.is_cookie() {
        return Err(NxmError::BadField);
    }
    let mut e = Entry {
        header: h,
        field,
        value: FieldValue::from_bytes(value),
        mask: FieldValue::ONES,
        width: width as u32,
    };
    if h.masked() {
        e.mask = FieldValue::from_bytes(mask);
        if e.mask.is_ones(e.width) && !field.is_some_and(Field::is_tun_metadata) {
            e.mask = FieldValue::ONES;
        }
    }
    if let Some(f) = field {
        let all_or_nothing = e.mask.is_zero(e.width) || e.mask.is_ones(e.width);
        if f.maskable == Maskable::Exact && !all_or_nothing {
            return Err(NxmError::BadMask);
        }
        if !f.is_value_valid(&e.value) {
            return Err(NxmError::BadValue);
        }
    }
    Ok(e)
}

/// How to decode.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecodeOptions {
    /// Unknown fields and missing prerequisites are errors; otherwise they are passed over.
    pub strict: bool,
    /// The table that binds `tun_metadata*` (0: none, the match finds its own places).
    pub tlv_table: u32,
}

/// A flow's cookie and its mask, as an NXM match may carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Value.
    pub value: u64,
    /// Mask.
    pub mask: u64,
}

/// Decodes all entries of `b`. With `cookie`, the pseudo entry is allowed and stored there.
pub fn decode(
    mut b: &[u8],
    options: DecodeOptions,
    mut cookie: Option<&mut Option<Cookie>>,
) -> Result<Match, NxmError> {
    let mut m = Match::catch_all();
    m.flow.tunnel.set_tlv_table(options.tlv_table);
    while !b.is_empty() {
        let e = match pull_entry(&mut b) {
            Ok(e) => e,
            Err(NxmError::BadField) if !options.strict => continue,
            Err(e) => return Err(e),
        };
        let Some(field) = e.field else {
            let Some(slot) = cookie.as_deref_mut() else {
                if options.strict {
                    return Err(NxmError::BadField);
                }
                continue;
            };
            if slot.is_some() {
                return Err(NxmError::DupField);
            }
            *slot = Some(Cookie { value: e.value.to_u64(), mask: e.mask.to_u64() });
            continue;
        };
        if options.strict && !field.are_match_prereqs_ok(&m) {
            return Err(NxmError::BadPrereq);
        }
        if field.is_set(&m) {
            return Err(NxmError::DupField);
        }
        set(field, &e, &mut m)?;
        add_ethernet_prereq(&mut m, field);
    }
    Ok(m)
}

fn set(field: &'static Field, e: &Entry, m: &mut Match) -> Result<(), NxmError> {
    if let Place::TunMetadata(i) = field.place {
        return tlv::set_match(m, i, field.name, Some(&e.value), &e.mask)
            .map_err(|_| NxmError::InvalidTlvField);
    }
    field.set_masked(&e.value, &e.mask, m).map_err(|_| NxmError::BadValue)
}

/// Appends a field's header; `version` picks the code point (OpenFlow's wire number, 0 or 1 for NXM).
/// Returns false if the field has none.
pub fn put_header(field: &Field, masked: bool, n_bytes: u32, version: u8, out: &mut Vec<u8>) -> bool {
    let Some(code) = field.code(version) else { return false };
    out.extend_from_slice(&code.header(masked, n_bytes).to_be_bytes());
    if code.class == 0xffff {
        out.extend_from_slice(&code.experimenter.to_be_bytes());
    }
    true
}

/// Appends one entry, with a mask unless it is all ones. `n_bytes` is the width, the field's own except for
/// `tun_metadata*`.
pub fn put_entry(
    field: &Field,
    value: &FieldValue,
    mask: &FieldValue,
    n_bytes: u32,
    version: u8,
    out: &mut Vec<u8>,
) {
    let masked = *mask != FieldValue::ONES && (field.is_tun_metadata() || !mask.is_ones(n_bytes));
    if put_header(field, masked, n_bytes, version, out) {
        out.extend_from_slice(value.bytes(n_bytes));
        if masked {
            out.extend_from_slice(mask.bytes(n_bytes));
        }
    }
}

struct Encoder<'a> {
    m: &'a Match,
    /// Which words of the mask have bits: most fields lie in others, which is told by one look.
    used: WordSet,
    version: u8,
    out: &'a mut Vec<u8>,
    implied_ethernet: bool,
}

/// Appends a match's entries. `version` is OpenFlow's wire number (1: NXM, 2 and up: OXM of that version).
/// `cookie` goes into NXM matches that carry one.
pub fn encode(m: &Match, version: u8, cookie: Option<Cookie>, out: &mut Vec<u8>) {
    Encoder { m, used: WordSet::of(&m.mask), version, out, implied_ethernet: false }.all(cookie);
}

impl Encoder<'_> {
    fn oxm(&self) -> bool {
        self.version >= 2
    }

    fn put(&mut self, id: FieldId) {
        let f = id.field();
        if !self.used.meets(f) || f.is_all_wild(&self.m.mask) {
            return;
        }
        let (value, mut mask) = f.get_match(self.m);
        let mut width = f.n_bytes;
        if let Place::TunMetadata(i) = f.place {
            width = tlv::match_len(self.m, i);
            if self.m.flow.tunnel.opts_present >> i & 1 == 0 {
                return;
            }
        } else if f.maskable == Maskable::Exact || f.is_all_exact(&self.m.mask) && id != FieldId::TunFlags {
            mask = FieldValue::ONES;
        }
        self.put_value(f, &value, &mask, width);
    }

    fn put_value(&mut self, f: &Field, value: &FieldValue, mask: &FieldValue, width: u32) {
        self.implied_ethernet |= f.prereq != crate::fields::Prereq::None;
        put_entry(f, value, mask, width, self.version, self.out);
    }

    fn put_all(&mut self, ids: &[FieldId]) {
        for id in ids {
            self.put(*id);
        }
    }

    fn all(&mut self, cookie: Option<Cookie>) {
        use FieldId::*;
        let m = self.m;
        let default_type = m.flow.packet_type.is_zero();
        let start = self.out.len();
        if !default_type {
            self.put(PacketType);
        }
        self.put_all(&[DpHash, RecircId, ConjId]);
        self.put(if self.oxm() { InPortOxm } else { InPort });
        self.put_all(&[ActsetOutput, EthSrc, EthDst, EthType]);
        self.vlan();
        let dl_type = crate::fields::effective_dl_type(&m.flow);
        match dl_type {
            proto::ETH_MPLS | proto::ETH_MPLS_MCAST => self.put_all(&[MplsTc, MplsBos, MplsTtl, MplsLabel]),
            proto::ETH_IP => {
                self.put_all(&[IpSrc, IpDst]);
                self.ip_common();
                self.transport(true);
            }
            proto::ETH_IPV6 => {
                self.put_all(&[Ipv6Src, Ipv6Dst]);
                self.ip_common();
                self.transport(false);
            }
            proto::ETH_ARP | proto::ETH_RARP => self.put_all(&[ArpOp, ArpSpa, ArpTpa, ArpSha, ArpTha]),
            _ => {}
        }
        if self.used.meets_any(WordSet::TUNNEL) {
            self.tunnel();
        }
        if self.used.meets_any(WordSet::NSH) {
            self.put_all(&[NshFlags, NshTtl, NshMdtype, NshNp, NshSpi, NshSi, NshC1, NshC2, NshC3, NshC4]);
        }
        if self.used.meets_any(WordSet::REGS) {
            self.registers();
        }
        self.put_all(&[PktMark, CtState, CtZone, CtMark, CtLabel, CtNwSrc, CtIpv6Src, CtNwDst, CtIpv6Dst]);
        self.put(CtNwProto);
        if m.mask.0.ct_nw_proto != 0 {
            self.put_all(&[CtTpSrc, CtTpDst]);
        }
        self.put(Metadata);
        if let Some(c) = cookie {
            let masked = c.mask != u64::MAX;
            let header = if masked { COOKIE_HEADER_MASKED } else { COOKIE_HEADER };
            self.out.extend_from_slice(&header.to_be_bytes());
            self.out.extend_from_slice(&(c.value & c.mask).to_be_bytes());
            if masked {
                self.out.extend_from_slice(&c.mask.to_be_bytes());
            }
        }
        // It stands first too, unless the other fields say it.
        if default_type && !m.mask.0.packet_type.is_zero() && !self.implied_ethernet {
            let rest = self.out.split_off(start);
            self.put(PacketType);
            self.out.extend_from_slice(&rest);
        }
    }

    fn tunnel(&mut self) {
        use FieldId::*;
        self.put_all(&[TunId, TunFlags, TunSrc, TunDst, TunIpv6Src, TunIpv6Dst, TunGbpId, TunGbpFlags]);
        let mut options = self.m.mask.0.tunnel.opts_present;
        while options != 0 {
            if let Some(id) = FieldId::tun_metadata(options.trailing_zeros() as u8) {
                self.put(id);
            }
            options &= options - 1;
        }
        self.put_all(&[
            TunErspanIdx,
            TunErspanVer,
            TunErspanDir,
            TunErspanHwid,
            TunGtpuFlags,
            TunGtpuMsgtype,
        ]);
    }

    /// NXM has the tag as one field; OXM splits it, with the "present" bit in the id's half.
    fn vlan(&mut self) {
        if !self.oxm() {
            self.put(FieldId::VlanTci);
            return;
        }
        let (tci, mask) = (self.m.flow.vlans[0].tci.get(), self.m.mask.0.vlans[0].tci.get());
        let bits = Vlan::VID_MASK | Vlan::CFI;
        let (vid, vid_mask) = (tci & bits, mask & bits);
        if vid_mask != 0 {
            let wire_mask =
                if vid_mask == bits { FieldValue::ONES } else { FieldValue::from(u64::from(vid_mask)) };
            self.put_value(FieldId::VlanVid.field(), &u64::from(vid).into(), &wire_mask, 2);
        }
        if vid != 0 && mask & Vlan::PCP_MASK != 0 {
            let pcp = FieldValue::from(u64::from(tci >> 13));
            self.put_value(FieldId::VlanPcp.field(), &pcp, &FieldValue::ONES, 1);
        }
    }

    fn ip_common(&mut self) {
        use FieldId::*;
        self.put(IpFrag);
        if self.m.mask.0.nw_tos & 0xfc != 0 {
            let id = if self.oxm() { IpDscp } else { IpTos };
            let v = id.get(&self.m.flow);
            self.put_value(id.field(), &v, &FieldValue::ONES, 1);
        }
        self.put_all(&[IpEcn, IpTtl]);
        if crate::fields::effective_dl_type(&self.m.flow) == proto::ETH_IPV6 {
            self.put(Ipv6Label);
        }
        self.put(IpProto);
    }

    fn transport(&mut self, v4: bool) {
        use FieldId::*;
        if self.m.mask.0.nw_proto == 0 {
            return;
        }
        match (self.m.flow.nw_proto, v4) {
            (proto::IP_TCP, _) => self.put_all(&[TcpSrc, TcpDst, TcpFlags]),
            (proto::IP_UDP, _) => self.put_all(&[UdpSrc, UdpDst]),
            (proto::IP_SCTP, _) => self.put_all(&[SctpSrc, SctpDst]),
            (proto::IP_ICMP, true) => self.put_all(&[Icmpv4Type, Icmpv4Code]),
            (proto::IP_ICMPV6, false) => {
                self.put_all(&[Icmpv6Type, Icmpv6Code]);
                if NdTarget.are_match_prereqs_ok(self.m) {
                    self.put_all(&[NdReserved, NdTarget, NdOptionsType]);
                    if NdSll.are_match_prereqs_ok(self.m) {
                        self.put(NdSll);
                    }
                    if NdTll.are_match_prereqs_ok(self.m) {
                        self.put(NdTll);
                    }
                }
            }
            _ => {}
        }
    }

    /// OpenFlow 1.5 has packet registers of 64 bits; older versions know ours of 32.
    fn registers(&mut self) {
        let (first, n) = if self.version >= 6 { (FieldId::Xreg0, 16) } else { (FieldId::Reg0, 32) };
        for i in 0..n {
            self.put(FIELDS[first as usize + i].id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{match_to_string, parse_match};

    const STRICT: DecodeOptions = DecodeOptions { strict: true, tlv_table: 0 };

    fn wire(text: &str, version: u8) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&parse_match(text, None).unwrap().0, version, None, &mut out);
        out
    }

    #[test]
    fn literal_bytes() {
        assert_eq!(wire("in_port=1", 1), [0, 0, 0, 2, 0, 1]);
        assert_eq!(wire("in_port=LOCAL", 4), [0x80, 0, 0, 4, 0xff, 0xff, 0xff, 0xfe]);
        let ip = [0x80, 0, 10, 2, 8, 0, 0x80, 0, 0x17, 8, 10, 0, 0, 0, 255, 0, 0, 0];
        assert_eq!(wire("ip,nw_src=10.0.0.0/8", 3), ip);
        assert_eq!(wire("dl_vlan=9", 1), [0, 0, 9, 4, 0x10, 9, 0x1f, 0xff]);
        assert_eq!(wire("dl_vlan=9", 3), [0x80, 0, 12, 2, 0x10, 9]);
        assert_eq!(wire("actset_output=5", 4), [0xff, 0xff, 43 << 1, 8, 0x4f, 0x4e, 0x46, 0, 0, 0, 0, 5]);
        assert_eq!(wire("actset_output=5", 6), [0x80, 0, 43 << 1, 4, 0, 0, 0, 5]);
        assert_eq!(wire("eth", 3), [0x80, 0, 44 << 1, 4, 0, 0, 0, 0]);
        assert_eq!(wire("reg16=1", 4), [0xff, 0xff, 17 << 1, 8, 0, 0, 0x23, 0x20, 0, 0, 0, 1]);
    }

    #[test]
    fn every_version_round_trips() {
        for text in [
            "",
            "in_port=3,dl_vlan=10,dl_vlan_pcp=3",
            "vlan_tci=0x0000/0x1fff",
            "tcp,nw_src=10.0.0.0/8,nw_tos=8,nw_ecn=1,nw_ttl=5,nw_frag=yes,tp_src=0x10/0xfff0,tp_dst=80,tcp_flags=+syn-ack",
            "icmp6,icmp_type=135,icmp_code=0,nd_target=::1,nd_sll=00:11:22:33:44:55,nd_reserved=5,nd_options_type=1",
            "arp,arp_spa=10.0.0.1,arp_op=1,arp_sha=00:11:22:33:44:55",
            "mpls,mpls_label=4,mpls_tc=3,mpls_ttl=5,mpls_bos=1",
            "reg0=0x5,reg1=0/0xf0,reg15=0xffffffff,reg30=0x7,reg31=0x3/0x3",
            "tun_id=0x5/0x7,tun_src=1.2.3.4,tun_flags=+oam,tun_metadata1=0x1234/0xff0ff0,tun_metadata0=0x5",
            "packet_type=(1,0x800),nw_src=1.2.3.4,nw_proto=6,tp_src=5",
            "pkt_mark=0x5/0x7,recirc_id=0x6,dp_hash=0x5",
            "ct_state=-new+est+trk,ct_zone=5,ct_mark=0x5/0xff,ct_label=0x1234/0xffff",
            "ct_state=+new+trk,ct_nw_src=1.2.3.4,ct_nw_proto=6,ct_tp_dst=5,ip",
            "dl_type=0x894f,nsh_flags=2,nsh_ttl=5,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123,nsh_si=5,nsh_c1=0x1,nsh_c4=0x5/0xff",
            "conj_id=5,actset_output=4,metadata=0x5/0xff",
            "sctp6,tp_dst=0x5/0x7",
        ] {
            for version in [1, 3, 4, 5, 6] {
                let m = parse_match(text, None).unwrap().0;
                let got = decode(&wire(text, version), STRICT, None);
                let got = got.unwrap_or_else(|e| panic!("{text} {version}: {e:?}"));
                assert_eq!(match_to_string(&got, None), match_to_string(&m, None), "{version}");
            }
        }
    }

    #[test]
    fn faults_have_names() {
        let bad = |b: &[u8]| decode(b, STRICT, None).err();
        assert_eq!(bad(&[0, 0, 0]), Some(NxmError::BadLen));
        assert_eq!(bad(&[0, 0, 0, 2, 1]), Some(NxmError::BadLen));
        assert_eq!(bad(&[0, 0, 0, 4, 0, 0, 0, 1]), Some(NxmError::BadField));
        assert_eq!(bad(&[0xff, 0xff, 0, 2, 0, 0, 0, 0]), Some(NxmError::BadLen));
        assert_eq!(bad(&[0x12, 0x34, 0, 2, 0, 1]), Some(NxmError::BadField));
        assert_eq!(bad(&[0, 0, 7 << 1, 4, 1, 2, 3, 4]), Some(NxmError::BadPrereq));
        assert_eq!(bad(&[0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 1]), Some(NxmError::DupField));
        assert_eq!(bad(&[0, 0, 1, 4, 0, 1, 0, 1]), Some(NxmError::BadMask));
        assert_eq!(bad(&[0, 0, 3, 12, 1, 2, 3, 4, 5, 6, 1, 0, 0, 0, 0, 0]), Some(NxmError::BadWildcards));
        assert_eq!(bad(&[0, 0, 6, 2, 8, 0, 0, 0, 10, 1, 1]), Some(NxmError::BadValue));
        // Loose: unknown fields and missing prerequisites are passed over.
        let loose = DecodeOptions::default();
        assert_eq!(decode(&[0x12, 0x34, 0, 2, 0, 1], loose, None), Ok(Match::catch_all()));
        assert!(decode(&[0, 0, 7 << 1, 4, 1, 2, 3, 4], loose, None).is_ok());
    }

    #[test]
    fn cookies() {
        let mut b = COOKIE_HEADER_MASKED.to_be_bytes().to_vec();
        b.extend_from_slice(&5u64.to_be_bytes());
        b.extend_from_slice(&7u64.to_be_bytes());
        let mut c = None;
        assert_eq!(decode(&b, STRICT, Some(&mut c)), Ok(Match::catch_all()));
        assert_eq!(c, Some(Cookie { value: 5, mask: 7 }));
        let mut out = Vec::new();
        encode(&Match::catch_all(), 1, c, &mut out);
        assert_eq!(out, b);
        assert_eq!(decode(&b, STRICT, None), Err(NxmError::BadField));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut x = 88172645463325252u64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        for _ in 0..20_000 {
            let mut b: Vec<u8> = (0..next() % 60).map(|_| next() as u8).collect();
            if b.len() > 4 {
                let f = &FIELDS[next() as usize % FIELDS.len()];
                if let Some(c) = f.codes.first() {
                    let h = c.header(next() % 2 == 0, f.n_bytes.min(20));
                    b[..4].copy_from_slice(&h.to_be_bytes());
                    if c.class == 0xffff && b.len() > 8 {
                        b[4..8].copy_from_slice(&c.experimenter.to_be_bytes());
                    }
                }
            }
            if let Ok(m) = decode(&b, DecodeOptions { strict: next() % 2 == 0, tlv_table: 0 }, None) {
                let mut out = Vec::new();
                encode(&m, 4, None, &mut out);
                match_to_string(&m, None);
            }
        }
    }
}
