//! Fields: reading, writing and checking any field of a key by its id.
//!
//! The rows are in [`crate::fields_table`]; this file gives them meaning. A value travels as a
//! [`FieldValue`], a 1024-bit big-endian number, so that one type carries a VLAN priority and a Geneve
//! option. [`Field::get`] and [`Field::set_flow`] work on a packet's key, [`Field::set`] on a rule's match.
//!
//! `tun_metadata*` fields have no fixed place: a key finds them through the table that its
//! `Tunnel::tlv_table` names, a match without a table through its own [`crate::tlv::TunMd`].

use std::mem::{offset_of, size_of};

use ib_packet::Be16;

pub use crate::field_value::{FieldValue, VALUE_BYTES};
pub use crate::fields_table::{FIELDS, FieldId};
use crate::key::{CtState, Flow, Mask, Match, Vlan};
use crate::port::OfPort;
use crate::tlv;

/// Which masks a match may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maskable {
    /// The whole field or nothing.
    Exact,
    /// Any set of bits.
    Bitwise,
}

/// Text form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the documentation; see ovs-fields(7).
pub enum Format {
    Decimal,
    Hex,
    Ipv4,
    Ipv6,
    Ethernet,
    OfPort,
    OfPort11,
    Frag,
    TnlFlags,
    TcpFlags,
    CtState,
    PacketType,
}

/// What else a packet must be for a field to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the documentation; see ovs-fields(7).
pub enum Prereq {
    None,
    Ethernet,
    VlanVid,
    Arp,
    Ipv4,
    Ipv6,
    IpAny,
    Mpls,
    Nsh,
    CtValid,
    Tcp,
    Udp,
    Sctp,
    Icmpv4,
    Icmpv6,
    Nd,
    NdSolicit,
    NdAdvert,
}

/// What an OpenFlow 1.0 or 1.1 match structure can say about a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfSupport {
    /// Nothing.
    No,
    /// An exact value.
    Exact,
    /// An address prefix.
    Cidr,
    /// Any mask.
    Bitwise,
}

/// Where in the [`Flow`] a field lives.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// `(bytes at..at + len as big-endian & mask) >> shift`.
    Be {
        /// Byte offset.
        at: usize,
        /// Bytes.
        len: usize,
        /// Bits of the stored integer that are the field's.
        mask: u128,
        /// Position of the field's least significant bit.
        shift: u32,
    },
    /// The same in the machine's byte order.
    Host {
        /// Byte offset.
        at: usize,
        /// Bytes.
        len: usize,
        /// Bits of the stored integer that are the field's.
        mask: u128,
        /// Position of the field's least significant bit.
        shift: u32,
    },
    /// `count` registers from `first`, first one most significant.
    Regs {
        /// First register.
        first: usize,
        /// How many.
        count: usize,
    },
    /// `tun_metadataN`.
    TunMetadata(u8),
}

/// One NXM or OXM code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Class (vendor in NXM's words).
    pub class: u16,
    /// Experimenter id, 0 unless `class` is 0xffff.
    pub experimenter: u32,
    /// Field number, 7 bits.
    pub number: u8,
    /// First OpenFlow version (wire number, 1 is 1.0) that prefers this code.
    pub since: u8,
    /// As in `NXM_OF_IN_PORT`.
    pub name: &'static str,
    /// Bytes of a value, without experimenter id.
    pub n_bytes: u32,
}

macro_rules! code_fn {
    ($($name:ident $class:literal $exp:literal),*) => { $(
        pub(crate) const fn $name(number: u8, since: u8, name: &'static str, n_bytes: u32) -> Code {
            Code { class: $class, experimenter: $exp, number, since, name, n_bytes }
        }
    )* };
}
code_fn!(code_nxm_of 0x0000 0, code_nx 0x0001 0, code_eric 0x1000 0, code_oxm 0x8000 0, code_pkt_reg 0x8001 0,
    code_nx_et 0xffff 0x2320, code_nx_nsh 0xffff 0x005a_d650, code_onf 0xffff 0x4f4e_4600);

impl Code {
    /// The 32-bit header as it travels, for a value without or with mask. `n_bytes` is the value's width.
    pub fn header(&self, masked: bool, n_bytes: u32) -> u32 {
        let exp = if self.class == 0xffff { 4 } else { 0 };
        let len = exp + if masked { n_bytes * 2 } else { n_bytes };
        u32::from(self.class) << 16 | u32::from(self.number) << 9 | u32::from(masked) << 8 | (len & 0xff)
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Field {
    /// Id, and index into [`FIELDS`].
    pub id: FieldId,
    /// Name in texts.
    pub name: &'static str,
    /// Other name that parsers accept.
    pub alias: Option<&'static str>,
    /// Width in bytes.
    pub n_bytes: u32,
    /// Bits that may be nonzero.
    pub n_bits: u32,
    /// Masks allowed.
    pub maskable: Maskable,
    /// Text form.
    pub format: Format,
    /// Prerequisite.
    pub prereq: Prereq,
    /// Whether `set_field`, `load` and `move` may write it.
    pub writable: bool,
    /// OpenFlow 1.0 support.
    pub of10: OfSupport,
    /// OpenFlow 1.1 support.
    pub of11: OfSupport,
    /// Code points, preferred last; empty if it cannot travel.
    pub codes: &'static [Code],
    /// Storage.
    pub place: Place,
}

/// Protocols (OpenFlow versions and match formats) as a set of bits: what can carry a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols(pub u32);

impl Protocols {
    /// OpenFlow 1.0 without and with table ids in flow mods.
    pub const OF10_STD_ANY: Protocols = Protocols(0x03);
    /// OpenFlow 1.0 with NXM, without and with table ids.
    pub const OF10_NXM_ANY: Protocols = Protocols(0x0c);
    /// OpenFlow 1.1.
    pub const OF11_STD: Protocols = Protocols(0x10);
    /// OpenFlow 1.2 and later (1.2, 1.3, 1.4, 1.5, from bit 5 up).
    pub const OXM_ANY: Protocols = Protocols(0x1e0);
    /// NXM or OXM.
    pub const NXM_OXM_ANY: Protocols = Protocols(0x1ec);
    /// Everything.
    pub const ANY: Protocols = Protocols(0x1ff);
    /// Nothing.
    pub const NONE: Protocols = Protocols(0);

    /// Members of both sets.
    pub fn and(self, o: Protocols) -> Protocols {
        Protocols(self.0 & o.0)
    }
    /// Members of either set.
    pub fn or(self, o: Protocols) -> Protocols {
        Protocols(self.0 | o.0)
    }
}

/// The largest port number of OpenFlow 1.0 maps to itself; reserved ports move to the end of 32 bits.
pub fn port_to_of11(port: OfPort) -> u32 {
    if port.0 < OfPort::MAX.0 { port.0.into() } else { u32::from(port.0) + 0xffff_0000 }
}

/// An OpenFlow 1.1+ port number as a port, or `None` if it is in neither supported range.
pub fn port_from_of11(port: u32) -> Option<OfPort> {
    match port {
        0..0xff00 => Some(OfPort(port as u16)),
        0xffff_ff00.. => Some(OfPort((port - 0xffff_0000) as u16)),
        _ => None,
    }
}

impl FieldId {
    /// The row.
    #[inline]
    pub fn field(self) -> &'static Field {
        &FIELDS[self as usize]
    }
    /// The id of a register.
    pub fn reg(n: u8) -> Option<FieldId> {
        let id = FieldId::Reg0 as usize + usize::from(n);
        (n < 32).then(|| FIELDS[id].id)
    }
    /// The id of a `tun_metadata` field.
    pub fn tun_metadata(n: u8) -> Option<FieldId> {
        let id = FieldId::TunMetadata0 as usize + usize::from(n);
        (n < 64).then(|| FIELDS[id].id)
    }
}

impl std::ops::Deref for FieldId {
    type Target = Field;
    fn deref(&self) -> &Field {
        self.field()
    }
}

impl PartialEq for Field {
    fn eq(&self, o: &Field) -> bool {
        self.id == o.id
    }
}
impl Eq for Field {}

/// Finds a field by name or alias, as in `ip_src` or `nw_src`. Constant time.
pub fn by_name(name: &str) -> Option<&'static Field> {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static NAMES: LazyLock<HashMap<&'static str, FieldId, foldhash::fast::FixedState>> =
        LazyLock::new(|| {
            FIELDS.iter().flat_map(|f| std::iter::once(f.name).chain(f.alias).map(|n| (n, f.id))).collect()
        });
    NAMES.get(name).map(|id| id.field())
}

fn read_be(b: &[u8]) -> u128 {
    b.iter().fold(0, |v, b| v << 8 | u128::from(*b))
}

fn read_host(b: &[u8]) -> u128 {
    if cfg!(target_endian = "big") {
        read_be(b)
    } else {
        b.iter().rev().fold(0, |v, b| v << 8 | u128::from(*b))
    }
}

fn write_host(b: &mut [u8], v: u128) {
    if cfg!(target_endian = "big") {
        write_be(b, v);
    } else {
        let n = b.len();
        b.copy_from_slice(&v.to_le_bytes()[..n]);
    }
}

fn write_be(b: &mut [u8], v: u128) {
    let n = b.len();
    b.copy_from_slice(&v.to_be_bytes()[16 - n..]);
}

fn bytes_of(flow: &Flow) -> &[u8] {
    zerocopy::IntoBytes::as_bytes(flow)
}

fn bytes_of_mut(flow: &mut Flow) -> &mut [u8] {
    zerocopy::IntoBytes::as_mut_bytes(flow)
}

/// Words of a key, by index.
#[derive(Clone, Copy, Debug)]
pub struct WordSet(u128);

const _: () = assert!(crate::key::FLOW_WORDS <= 128);

impl WordSet {
    /// Those in which a mask has bits.
    pub fn of(mask: &Mask) -> WordSet {
        let bit = |(i, word): (usize, &u64)| u128::from(*word != 0) << i;
        WordSet(mask.0.words().iter().enumerate().map(bit).fold(0, |all, bit| all | bit))
    }
    /// Those of some bytes of a key.
    const fn of_bytes(at: usize, len: usize) -> WordSet {
        let (first, last) = (at / 8, (at + len - 1) / 8);
        WordSet((u128::MAX >> (127 - (last - first))) << first)
    }
    /// Those of what is known of a packet's tunnel.
    pub const TUNNEL: WordSet = WordSet::of_bytes(offset_of!(Flow, tunnel), size_of::<crate::key::Tunnel>());
    /// Those of the registers.
    pub const REGS: WordSet = WordSet::of_bytes(offset_of!(Flow, regs), 4 * crate::key::N_REGS);
    /// Those of the network service header.
    pub const NSH: WordSet = WordSet::of_bytes(offset_of!(Flow, nsh), size_of::<crate::key::Nsh>());
    /// Whether the sets have a word in common.
    pub fn meets_any(self, other: WordSet) -> bool {
        self.0 & other.0 != 0
    }
    /// Whether the field lies in one of them.
    pub fn meets(self, field: &Field) -> bool {
        self.0 & field.words().0 != 0
    }
}

impl Field {
    /// Whether this is one of `tun_metadata*`, whose width depends on the option bound to it.
    #[inline]
    pub fn is_tun_metadata(&self) -> bool {
        matches!(self.place, Place::TunMetadata(_))
    }
    /// Whether this is a register of any width.
    #[inline]
    pub fn is_register(&self) -> bool {
        matches!(self.place, Place::Regs { .. })
    }
    /// The preferred code point for an OpenFlow version (wire number; 0 or 1: NXM).
    pub fn code(&self, version: u8) -> Option<&'static Code> {
        let mut best = None;
        for code in self.codes {
            if best.is_none() || version >= code.since {
                best = Some(code);
            }
        }
        best
    }

    /// The words of a key that the field lies in.
    fn words(&self) -> WordSet {
        let (at, len) = match self.place {
            Place::Be { at, len, .. } | Place::Host { at, len, .. } => (at, len),
            Place::Regs { first, count } => (offset_of!(Flow, regs) + 4 * first, 4 * count),
            Place::TunMetadata(_) => (offset_of!(Flow, tunnel.opts_present), 8),
        };
        WordSet::of_bytes(at, len)
    }

    /// Raw storage bits of the field in a key or a mask, aligned as the value is.
    fn raw(&self, flow: &Flow) -> u128 {
        match self.place {
            Place::Be { at, len, mask, shift } => (read_be(&bytes_of(flow)[at..at + len]) & mask) >> shift,
            Place::Host { at, len, mask, shift } => {
                (read_host(&bytes_of(flow)[at..at + len]) & mask) >> shift
            }
            Place::Regs { first, count } => {
                flow.regs[first..first + count].iter().fold(0, |v, r| v << 32 | u128::from(*r))
            }
            Place::TunMetadata(_) => 0,
        }
    }

    fn set_raw(&self, flow: &mut Flow, v: u128) {
        match self.place {
            Place::Be { at, len, mask, shift } => {
                let b = &mut bytes_of_mut(flow)[at..at + len];
                write_be(b, read_be(b) & !mask | (v << shift) & mask);
            }
            Place::Host { at, len, mask, shift } => {
                let b = &mut bytes_of_mut(flow)[at..at + len];
                write_host(b, read_host(b) & !mask | (v << shift) & mask);
            }
            Place::Regs { first, count } => {
                for (i, r) in flow.regs[first..first + count].iter_mut().rev().enumerate() {
                    *r = (v >> (32 * i)) as u32;
                }
            }
            Place::TunMetadata(_) => {}
        }
    }

    fn low_mask(&self) -> u128 {
        if self.n_bytes >= 16 { u128::MAX } else { (1 << (8 * self.n_bytes)) - 1 }
    }

    /// The value in a packet's key. `tun_metadata*`: through the key's table; zero if absent.
    pub fn get(&self, flow: &Flow) -> FieldValue {
        match self.id {
            FieldId::InPortOxm => FieldValue::from_u128(port_to_of11(OfPort(flow.in_port as u16)).into()),
            FieldId::ActsetOutput => FieldValue::from_u128(port_to_of11(flow.actset_output).into()),
            _ => match self.place {
                Place::TunMetadata(i) => tlv::get(flow, i, &flow.tunnel),
                _ => FieldValue::from_u128(self.raw(flow) & self.low_mask()),
            },
        }
    }

    /// The bits of the field that a match's mask holds.
    pub fn get_mask(&self, mask: &Mask) -> FieldValue {
        self.get(&mask.0)
    }

    /// Value and mask of the field in a match.
    pub fn get_match(&self, m: &Match) -> (FieldValue, FieldValue) {
        match self.place {
            Place::TunMetadata(i) => tlv::get_match(m, i),
            _ => (self.get(&m.flow), self.get_mask(&m.mask)),
        }
    }

    /// Whether no bit of the field matters in `mask`.
    pub fn is_all_wild(&self, mask: &Mask) -> bool {
        match self.place {
            Place::TunMetadata(i) => mask.0.tunnel.opts_present >> i & 1 == 0,
            _ => self.raw(&mask.0) == 0,
        }
    }

    /// Whether every bit of the field matters in `mask`.
    pub fn is_all_exact(&self, mask: &Mask) -> bool {
        match self.place {
            Place::TunMetadata(_) => false,
            Place::Be { mask: m, shift, .. } | Place::Host { mask: m, shift, .. } => {
                self.raw(&mask.0) == m >> shift
            }
            Place::Regs { .. } => self.raw(&mask.0) == self.low_mask(),
        }
    }

    /// Whether a match says anything about the field.
    pub fn is_set(&self, m: &Match) -> bool {
        !self.is_all_wild(&m.mask)
    }

    /// Whether `mask` is one that this field can be matched with.
    pub fn is_mask_valid(&self, mask: &FieldValue) -> bool {
        self.maskable == Maskable::Bitwise || mask.is_zero(self.n_bytes) || mask.is_ones(self.n_bytes)
    }

    /// Whether no bit is set in `value` that the field cannot hold.
    pub fn is_value_valid(&self, value: &FieldValue) -> bool {
        let v = value.to_u128();
        match self.id {
            FieldId::InPortOxm | FieldId::ActsetOutput => port_from_of11(v as u32).is_some(),
            FieldId::InPort => true,
            FieldId::DlVlan => v & !0x1fff == 0,
            _ => match self.place {
                Place::Be { mask, shift, .. } | Place::Host { mask, shift, .. } => v & !(mask >> shift) == 0,
                Place::Regs { .. } | Place::TunMetadata(_) => true,
            },
        }
    }

    /// Stores a value in a packet's key, as an action does. Excess bits are ignored.
    pub fn set_flow(&self, flow: &mut Flow, value: &FieldValue) {
        let v = value.to_u128();
        match self.id {
            FieldId::InPortOxm => {
                if let Some(p) = port_from_of11(v as u32) {
                    flow.in_port = p.0.into();
                }
            }
            FieldId::ActsetOutput => {
                if let Some(p) = port_from_of11(v as u32) {
                    flow.actset_output = p;
                }
            }
            FieldId::DlVlan => set_dl_vlan(flow, v as u16),
            FieldId::DlVlanPcp | FieldId::VlanPcp => set_vlan_pcp(flow, v as u8),
            FieldId::InPort => flow.in_port = u32::from(v as u16),
            _ => match self.place {
                Place::TunMetadata(i) => tlv::set_flow(flow, i, value),
                _ => self.set_raw(flow, v & self.low_mask()),
            },
        }
        if matches!(
            self.id,
            FieldId::DlVlan | FieldId::VlanVid | FieldId::DlVlanPcp | FieldId::VlanPcp | FieldId::VlanTci
        ) && flow.vlans[0].tpid.is_zero()
            && !flow.vlans[0].tci.is_zero()
        {
            flow.vlans[0].tpid = Be16::new(0x8100);
        }
    }

    /// Stores the bits of `value` under `mask` in a packet's key.
    pub fn set_flow_masked(&self, flow: &mut Flow, value: &FieldValue, mask: &FieldValue) {
        let old = self.get(flow);
        self.set_flow(flow, &old.and(&mask.not()).or(&value.and(mask)));
    }

    /// Marks all bits of the field as mattering.
    pub fn unwildcard(&self, mask: &mut Mask) {
        self.unwildcard_bits(mask, &FieldValue::ONES);
    }

    /// Marks those bits of the field that are set in `bits` as mattering.
    pub fn unwildcard_bits(&self, mask: &mut Mask, bits: &FieldValue) {
        let v = bits.to_u128();
        match self.place {
            Place::TunMetadata(i) => tlv::unwildcard(mask, i, bits),
            Place::Be { mask: m, shift, .. } | Place::Host { mask: m, shift, .. } => {
                let full = m >> shift;
                let old = self.raw(&mask.0);
                // A field narrower than its storage (ICMP type) is one with the whole storage.
                let new = if v & self.low_mask() & full == self.low_mask() & full { full } else { v & full };
                self.set_raw(&mut mask.0, old | new);
            }
            Place::Regs { .. } => {
                let old = self.raw(&mask.0);
                self.set_raw(&mut mask.0, old | v);
            }
        }
    }

    /// Marks the field's prerequisites (as far as `flow` needed them) as mattering.
    pub fn unwildcard_prereqs(&self, flow: &Flow, mask: &mut Mask) {
        let _ = self.are_prereqs_ok(flow, Some(mask));
    }

    /// Matches on exactly `value`.
    pub fn set(&self, value: &FieldValue, m: &mut Match) -> Result<(), String> {
        self.set_masked(value, &FieldValue::ONES, m)
    }

    /// Matches on `value` under `mask`; a mask of all zeros wildcards the field. Fails only for
    /// `tun_metadata*` that do not fit or are set twice; the text is what the user sees.
    pub fn set_masked(&self, value: &FieldValue, mask: &FieldValue, m: &mut Match) -> Result<(), String> {
        if let Place::TunMetadata(i) = self.place {
            return tlv::set_match(m, i, self.name, Some(value), mask);
        }
        if mask.is_zero(self.n_bytes) {
            self.set_wild(m);
            return Ok(());
        }
        let exact = mask.is_ones(self.n_bytes);
        let v = value.and(mask);
        match self.id {
            FieldId::DlVlan => {
                let vid = v.to_u128() as u16;
                set_dl_vlan(&mut m.flow, vid);
                let tci = &mut m.mask.0.vlans[0].tci;
                *tci = if vid == 0xffff { Be16::MAX } else { *tci | Be16::new(Vlan::VID_MASK | Vlan::CFI) };
            }
            FieldId::DlVlanPcp | FieldId::VlanPcp => {
                set_vlan_pcp(&mut m.flow, v.to_u128() as u8);
                m.mask.0.vlans[0].tci |= Be16::new(Vlan::PCP_MASK | Vlan::CFI);
            }
            FieldId::VlanVid => {
                let vid_bits = Be16::new(Vlan::VID_MASK | Vlan::CFI);
                let mask_bits = Be16::new(mask.to_u128() as u16) & vid_bits;
                let tci = &mut m.flow.vlans[0].tci;
                *tci = (*tci & !vid_bits) | (Be16::new(v.to_u128() as u16) & mask_bits);
                let wc = &mut m.mask.0.vlans[0].tci;
                *wc = mask_bits | (*wc & Be16::new(Vlan::PCP_MASK));
            }
            FieldId::InPortOxm | FieldId::ActsetOutput => {
                let Some(port) = port_from_of11(v.to_u128() as u32) else {
                    return Err(format!("{}: port number out of range", self.name));
                };
                if self.id == FieldId::InPortOxm {
                    m.flow.in_port = port.0.into();
                    m.mask.0.in_port = u32::MAX;
                } else {
                    m.flow.actset_output = port;
                    m.mask.0.actset_output = OfPort(u16::MAX);
                }
            }
            _ => {
                self.set_raw(&mut m.flow, v.to_u128() & self.low_mask());
                let bits = if exact { u128::MAX } else { mask.to_u128() & self.low_mask() };
                self.set_raw(&mut m.mask.0, 0);
                match self.place {
                    Place::Be { mask: full, shift, .. } | Place::Host { mask: full, shift, .. } => {
                        self.set_raw(&mut m.mask.0, bits & (full >> shift));
                    }
                    _ => self.set_raw(&mut m.mask.0, bits),
                }
            }
        }
        Ok(())
    }

    /// Removes any constraint on the field from a match.
    pub fn set_wild(&self, m: &mut Match) {
        let (vid, pcp) = (Be16::new(Vlan::VID_MASK), Be16::new(Vlan::PCP_MASK));
        let keep = match self.id {
            // The "present" bit stays as long as the other half of the tag is matched.
            FieldId::DlVlan | FieldId::VlanVid if !(m.mask.0.vlans[0].tci & pcp).is_zero() => !vid,
            FieldId::DlVlanPcp | FieldId::VlanPcp if !(m.mask.0.vlans[0].tci & vid).is_zero() => !pcp,
            FieldId::DlVlan | FieldId::VlanVid | FieldId::DlVlanPcp | FieldId::VlanPcp => Be16::ZERO,
            _ => {
                if let Place::TunMetadata(i) = self.place {
                    tlv::set_wild(m, i);
                }
                self.set_raw(&mut m.flow, 0);
                self.set_raw(&mut m.mask.0, 0);
                return;
            }
        };
        m.flow.vlans[0].tci &= keep;
        m.mask.0.vlans[0].tci &= keep;
    }

    /// Which protocols can carry a match on this field with this mask.
    pub fn usable_protocols(&self, mask: &FieldValue) -> Protocols {
        if mask.is_zero(self.n_bytes) && !self.is_tun_metadata() {
            return Protocols::ANY;
        }
        let exact = mask.is_ones(self.n_bytes);
        let has = |s: OfSupport| match s {
            OfSupport::No => false,
            OfSupport::Exact => exact,
            OfSupport::Cidr => exact || is_cidr(mask.bytes(self.n_bytes)),
            OfSupport::Bitwise => true,
        };
        let mut out = Protocols::NXM_OXM_ANY;
        if self.codes.is_empty() && !matches!(self.id, FieldId::DlVlan | FieldId::DlVlanPcp) {
            out = Protocols::NONE;
        }
        if has(self.of10) {
            out = out.or(Protocols::OF10_STD_ANY);
        }
        if has(self.of11) {
            out = out.or(Protocols::OF11_STD);
        }
        out
    }

    /// Whether a packet has the field. With `wc`, the fields that the answer depended on are marked.
    pub fn are_prereqs_ok(&self, flow: &Flow, wc: Option<&mut Mask>) -> bool {
        prereqs_ok(self.prereq, flow, None, wc)
    }

    /// Whether a match implies that packets have the field.
    pub fn are_match_prereqs_ok(&self, m: &Match) -> bool {
        prereqs_ok(self.prereq, &m.flow, Some(&m.mask), None)
    }
}

/// Whether one bits come first, then zero bits.
pub fn is_cidr(mask: &[u8]) -> bool {
    let mut zeros = false;
    for b in mask {
        if zeros && *b != 0 || b.leading_ones() + b.trailing_zeros() < 8 {
            return false;
        }
        zeros |= *b != 0xff;
    }
    true
}

/// `dl_vlan` in a key: 0xffff removes the tag, else its id is set.
fn set_dl_vlan(flow: &mut Flow, vid: u16) {
    let tci = &mut flow.vlans[0].tci;
    *tci = if vid == 0xffff {
        Be16::ZERO
    } else {
        Be16::new(tci.get() & !Vlan::VID_MASK | Vlan::CFI | vid & Vlan::VID_MASK)
    };
}

/// `vlan_pcp` in a key: sets the priority and makes the tag present.
fn set_vlan_pcp(flow: &mut Flow, pcp: u8) {
    let tci = &mut flow.vlans[0].tci;
    *tci = Be16::new(tci.get() & !Vlan::PCP_MASK | u16::from(pcp & 7) << 13 | Vlan::CFI);
}

/// The Ethertype by which the layers above are known: from `packet_type` for packets without Ethernet
/// header.
pub fn effective_dl_type(flow: &Flow) -> u16 {
    let pt = flow.packet_type.get();
    if pt >> 16 == 1 { pt as u16 } else { flow.dl_type.get() }
}

fn prereqs_ok(p: Prereq, flow: &Flow, m: Option<&Mask>, mut wc: Option<&mut Mask>) -> bool {
    let dl_type = effective_dl_type(flow);
    let ip_any = dl_type == 0x0800 || dl_type == 0x86dd;
    // Later fragments have no transport header. Rules need not say so; packets must.
    let mut l4 = |proto: u8, dl_ok: bool| {
        if !dl_ok {
            return false;
        }
        if let Some(wc) = wc.as_deref_mut() {
            wc.0.nw_proto = 0xff;
        }
        flow.nw_proto == proto
    };
    let not_later = flow.nw_frag & Flow::FRAG_LATER == 0;
    match p {
        Prereq::None => true,
        Prereq::Ethernet => flow.packet_type.is_zero(),
        Prereq::VlanVid => {
            if !flow.packet_type.is_zero() {
                return false;
            }
            if let Some(wc) = wc {
                wc.0.vlans[0].tci |= Be16::new(Vlan::CFI);
            }
            flow.vlans[0].is_present()
        }
        Prereq::Arp => dl_type == 0x0806 || dl_type == 0x8035,
        Prereq::Ipv4 => dl_type == 0x0800,
        Prereq::Ipv6 => dl_type == 0x86dd,
        Prereq::IpAny => ip_any,
        Prereq::Mpls => dl_type == 0x8847 || dl_type == 0x8848,
        Prereq::Nsh => dl_type == 0x894f,
        Prereq::CtValid => {
            let s = flow.ct_state;
            if let Some(m) = m {
                let implied = CtState::NEW | CtState::EST | CtState::REL | CtState::RPL;
                let implied = implied | CtState::SNAT | CtState::DNAT;
                return s & implied != 0
                    || s & CtState::TRK != 0 && m.0.ct_state & CtState::INV != 0 && s & CtState::INV == 0;
            }
            let valid = CtState::NEW | CtState::EST | CtState::RPL;
            if let Some(wc) = wc {
                wc.0.ct_state |= valid;
            }
            s & valid != 0
        }
        Prereq::Tcp => l4(6, ip_any) && not_later,
        Prereq::Udp => l4(17, ip_any) && not_later,
        Prereq::Sctp => l4(132, ip_any) && not_later,
        Prereq::Icmpv4 => l4(1, dl_type == 0x0800),
        Prereq::Icmpv6 => l4(58, dl_type == 0x86dd),
        Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert => {
            if !l4(58, dl_type == 0x86dd) {
                return false;
            }
            if let Some(wc) = wc.as_deref_mut() {
                wc.0.tp_dst = Be16::MAX;
            }
            if !flow.tp_dst.is_zero() {
                return false;
            }
            if let Some(wc) = wc {
                wc.0.tp_src = Be16::MAX;
            }
            match p {
                Prereq::NdSolicit => flow.tp_src.get() == 135,
                Prereq::NdAdvert => flow.tp_src.get() == 136,
                _ => matches!(flow.tp_src.get(), 135 | 136),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::Be32;

    #[test]
    fn the_table_is_consistent() {
        for (i, f) in FIELDS.iter().enumerate() {
            assert_eq!(f.id as usize, i);
            assert!(f.n_bits <= f.n_bytes * 8, "{}", f.name);
            assert_eq!(by_name(f.name).map(|f| f.id), Some(f.id));
            for c in f.codes {
                let same = |o: &&Field| {
                    o.codes
                        .iter()
                        .any(|d| (d.class, d.experimenter, d.number) == (c.class, c.experimenter, c.number))
                };
                assert_eq!(FIELDS.iter().filter(same).count(), 1, "{}", c.name);
            }
        }
        assert_eq!(by_name("nw_src").map(|f| f.id), Some(FieldId::IpSrc));
        assert_eq!(FieldId::Reg31.codes[0].experimenter, 0x2320);
        assert_eq!(FieldId::Xxreg7.codes[0].number, 118);
    }

    #[test]
    fn every_field_reads_back_what_was_written() {
        for f in FIELDS.iter().filter(|f| !f.is_tun_metadata()) {
            let mut flow = Flow::zeroed();
            let v = FieldValue::from_u128(match f.id {
                FieldId::InPortOxm | FieldId::ActsetOutput => 0xffff_fffe,
                FieldId::DlVlan => 0x0abc,
                FieldId::VlanVid => 0x1abc,
                FieldId::IpTos => 0xa8,
                FieldId::TunFlags | FieldId::ArpOp | FieldId::CtState => 1,
                _ => {
                    0xa5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5
                        & (((1 << (f.n_bits - 1)) - 1) | (1 << (f.n_bits - 1)))
                }
            });
            f.set_flow(&mut flow, &v);
            assert_eq!(f.get(&flow), v, "{}", f.name);
            let mut m = Match::catch_all();
            f.set(&v, &mut m).unwrap();
            assert_eq!(f.get(&m.flow), v, "{}", f.name);
            assert!(f.is_all_exact(&m.mask) || f.name.contains("vlan"), "{}", f.name);
            assert!(f.is_set(&m), "{}", f.name);
            f.set_wild(&mut m);
            assert_eq!(m, Match::catch_all(), "{}", f.name);
        }
    }

    #[test]
    fn registers_overlay() {
        let mut flow = Flow::zeroed();
        FieldId::Xxreg0.set_flow(&mut flow, &FieldValue::from_u128(0x1_0000_0002_0000_0003_0000_0004));
        assert_eq!(&flow.regs[..4], &[1, 2, 3, 4]);
        assert_eq!(FieldId::Xreg1.get(&flow).to_u64(), 0x3_0000_0004);
    }

    #[test]
    fn vlan_fields_share_a_tag() {
        let mut m = Match::catch_all();
        FieldId::DlVlan.set(&10u64.into(), &mut m).unwrap();
        FieldId::DlVlanPcp.set(&3u64.into(), &mut m).unwrap();
        assert_eq!((m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get()), (0x700a, 0xffff));
        FieldId::DlVlan.set_wild(&mut m);
        assert_eq!((m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get()), (0x7000, 0xf000));
        let mut flow = Flow::zeroed();
        FieldId::VlanVid.set_flow(&mut flow, &0x1005u64.into());
        assert_eq!((flow.vlans[0].tpid.get(), flow.vlans[0].tci.get()), (0x8100, 0x1005));
    }

    #[test]
    fn prerequisites_and_what_they_looked_at() {
        let mut flow = Flow::zeroed();
        flow.dl_type = Be16::new(0x0800);
        flow.nw_proto = 6;
        let mut wc = Mask::default();
        assert!(FieldId::TcpSrc.are_prereqs_ok(&flow, Some(&mut wc)));
        assert_eq!(wc.0.nw_proto, 0xff);
        assert!(!FieldId::UdpSrc.are_prereqs_ok(&flow, None));
        flow.nw_frag = 3;
        assert!(!FieldId::TcpSrc.are_prereqs_ok(&flow, None));
        let mut flow = Flow::zeroed();
        flow.packet_type = Be32::new(0x1_0800);
        assert!(FieldId::IpSrc.are_prereqs_ok(&flow, None));
        assert!(!FieldId::EthSrc.are_prereqs_ok(&flow, None));
    }

    #[test]
    fn cidr_masks() {
        assert!(is_cidr(&[0xff, 0xfe, 0, 0]));
        assert!(is_cidr(&[0; 4]) && is_cidr(&[0xff; 4]));
        assert!(!is_cidr(&[0xff, 0, 0xff, 0]));
        assert!(!is_cidr(&[0xfd, 0, 0, 0]));
    }
}
