//! The flow key and its mask.
//!
//! [`Flow`] holds every field that a rule can match, grouped as lookups proceed: metadata, L2, L3, L4. It
//! is plain data without padding, a whole number of 64-bit words ([`Flow::words`]), so that hashing,
//! masking and comparing are loops over words; `miniflow` stores only the non-zero ones.
//!
//! Absent fields are zero. Fields that travel in packets are in network order (`Be*`), metadata that
//! never travels is in host order. `in_port` is an [`OfPort`] within OpenFlow and an [`OdpPort`] within a
//! datapath; who holds the key knows which.

use ib_packet::{Be16, Be32, Be64, Be128, Mac};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::port::{OdpPort, OfPort};

/// Tunnel metadata of a packet that came out of, or goes into, a tunnel. All zero: no tunnel.
#[derive(Clone, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tunnel {
    /// Outer IPv4 destination; zero if the outer header is IPv6.
    pub ip_dst: Be32,
    /// Outer IPv4 source.
    pub ip_src: Be32,
    /// Outer IPv6 destination.
    pub ipv6_dst: Be128,
    /// Outer IPv6 source.
    pub ipv6_src: Be128,
    /// Tunnel key: VNI, GRE key, ...
    pub tun_id: Be64,
    /// [`TunFlags`] bits.
    pub flags: u16,
    /// Outer TOS.
    pub ip_tos: u8,
    /// Outer TTL.
    pub ip_ttl: u8,
    /// Outer transport source port.
    pub tp_src: Be16,
    /// Outer transport destination port.
    pub tp_dst: Be16,
    /// VXLAN group based policy id.
    pub gbp_id: Be16,
    /// VXLAN group based policy flags.
    pub gbp_flags: u8,
    /// ERSPAN version.
    pub erspan_ver: u8,
    /// ERSPAN index, host order.
    pub erspan_idx: u32,
    /// ERSPAN direction.
    pub erspan_dir: u8,
    /// ERSPAN hardware id.
    pub erspan_hwid: u8,
    /// GTP-U flags.
    pub gtpu_flags: u8,
    /// GTP-U message type.
    pub gtpu_msgtype: u8,
    /// See [`Tunnel::tlv_table`].
    pub pad: [u8; 4],
    /// Which of `tun_metadata0..63` are present (bit n: field n); with raw options: their length in bytes.
    pub opts_present: u64,
    /// Values of `tun_metadata*`, or raw Geneve options ([`TunFlags::UDPIF`]).
    pub opts: [u8; 256],
}

impl Tunnel {
    /// Id of the [`crate::tlv::TlvTable`] by which `opts` is laid out, 0 if none. Kept in `pad`. It takes no
    /// part in matching: rules' masks have zero there; the mask that a translation builds carries the
    /// same id as the packet's key, so that the fields' accessors work on it.
    #[inline]
    pub fn tlv_table(&self) -> u32 {
        u32::from_ne_bytes(self.pad)
    }
    /// Sets [`Self::tlv_table`].
    #[inline]
    pub fn set_tlv_table(&mut self, id: u32) {
        self.pad = id.to_ne_bytes();
    }
    /// Whether there is a tunnel at all.
    #[inline]
    pub fn is_set(&self) -> bool {
        !self.ip_dst.is_zero()
            || !self.ipv6_dst.is_zero()
            || !self.ip_src.is_zero()
            || !self.ipv6_src.is_zero()
    }
}

/// Bits of [`Tunnel::flags`].
pub struct TunFlags;

impl TunFlags {
    /// OAM packet.
    pub const OAM: u16 = 1 << 0;
    /// Outer don't-fragment.
    pub const DF: u16 = 1 << 1;
    /// Outer checksum.
    pub const CSUM: u16 = 1 << 2;
    /// `tun_id` is meaningful.
    pub const KEY: u16 = 1 << 3;
    /// `opts` holds raw Geneve options as they travelled, `opts_present` their length.
    pub const UDPIF: u16 = 1 << 4;
}

/// One VLAN tag. `tci` has bit 12 (CFI) set when the tag is present, as in Open vSwitch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vlan {
    /// Ethertype of the tag (0x8100, 0x88a8), zero if absent.
    pub tpid: Be16,
    /// Priority, CFI (present), VLAN id.
    pub tci: Be16,
}

impl Vlan {
    /// Set in `tci` when the tag is present.
    pub const CFI: u16 = 0x1000;
    /// VLAN id bits of `tci`.
    pub const VID_MASK: u16 = 0x0fff;
    /// Priority bits of `tci`.
    pub const PCP_MASK: u16 = 0xe000;
    /// VLAN id.
    #[inline]
    pub fn vid(self) -> u16 {
        self.tci.get() & Self::VID_MASK
    }
    /// Priority, 0 to 7.
    #[inline]
    pub fn pcp(self) -> u8 {
        (self.tci.get() >> 13) as u8
    }
    /// Whether the tag is present.
    #[inline]
    pub fn is_present(self) -> bool {
        self.tci.get() & Self::CFI != 0
    }
}

/// Bits of [`Flow::ct_state`].
pub struct CtState;

impl CtState {
    /// Beginning of a new connection.
    pub const NEW: u8 = 0x01;
    /// Part of an existing connection.
    pub const EST: u8 = 0x02;
    /// Related to an existing connection.
    pub const REL: u8 = 0x04;
    /// Reply direction.
    pub const RPL: u8 = 0x08;
    /// Could not be associated with a connection.
    pub const INV: u8 = 0x10;
    /// Went through the connection tracker.
    pub const TRK: u8 = 0x20;
    /// Source NATed.
    pub const SNAT: u8 = 0x40;
    /// Destination NATed.
    pub const DNAT: u8 = 0x80;
}

/// Number of 32-bit registers.
pub const N_REGS: usize = 32;
/// VLAN tags that a key holds.
pub const N_VLANS: usize = 2;
/// MPLS labels that a key holds.
pub const N_MPLS: usize = 3;

/// The flow key; see the module's description.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    // Metadata.
    /// Tunnel that the packet came from.
    pub tunnel: Tunnel,
    /// OpenFlow metadata.
    pub metadata: Be64,
    /// Registers, host order.
    pub regs: [u32; N_REGS],
    /// Priority (QoS class).
    pub skb_priority: u32,
    /// Packet mark.
    pub pkt_mark: u32,
    /// Datapath-computed hash; nonzero only after `hash` action and recirculation.
    pub dp_hash: u32,
    /// Port of entry: `OfPort` or `OdpPort` by context.
    pub in_port: u32,
    /// Recirculation id, 0 for a fresh packet.
    pub recirc_id: u32,
    /// [`CtState`] bits.
    pub ct_state: u8,
    /// Original-direction IP protocol of the connection.
    pub ct_nw_proto: u8,
    /// Connection tracking zone.
    pub ct_zone: u16,
    /// Connection mark.
    pub ct_mark: u32,
    /// OpenFlow packet type: namespace << 16 | type; 0 is Ethernet.
    pub packet_type: Be32,
    /// Connection label.
    pub ct_label: Be128,
    /// Conjunction id.
    pub conj_id: u32,
    /// Output port in the action set, as `OfPort`.
    pub actset_output: OfPort,
    /// Always zero.
    pub pad1: [u8; 2],

    // L2.
    /// Ethernet destination.
    pub dl_dst: Mac,
    /// Ethernet source.
    pub dl_src: Mac,
    /// Ethertype behind any VLAN tags; 0x05ff for frames without one (802.2), as OpenFlow says.
    pub dl_type: Be16,
    /// Always zero.
    pub pad2: [u8; 2],
    /// VLAN tags, outermost first.
    pub vlans: [Vlan; N_VLANS],
    /// MPLS label stack entries, outermost first.
    pub mpls_lse: [Be32; N_MPLS],
    /// Always zero.
    pub pad3: [u8; 4],

    // L3.
    /// IPv4 source, or ARP SPA.
    pub nw_src: Be32,
    /// IPv4 destination, or ARP TPA.
    pub nw_dst: Be32,
    /// Original-direction IPv4 source of the connection.
    pub ct_nw_src: Be32,
    /// Original-direction IPv4 destination of the connection.
    pub ct_nw_dst: Be32,
    /// IPv6 source.
    pub ipv6_src: Be128,
    /// IPv6 destination.
    pub ipv6_dst: Be128,
    /// Original-direction IPv6 source of the connection.
    pub ct_ipv6_src: Be128,
    /// Original-direction IPv6 destination of the connection.
    pub ct_ipv6_dst: Be128,
    /// IPv6 flow label, low 20 bits.
    pub ipv6_label: Be32,
    /// Fragment bits: [`Flow::FRAG_ANY`], [`Flow::FRAG_LATER`].
    pub nw_frag: u8,
    /// IP TOS (DSCP and ECN).
    pub nw_tos: u8,
    /// IP TTL or hop limit.
    pub nw_ttl: u8,
    /// IP protocol, or low 8 bits of the ARP opcode.
    pub nw_proto: u8,
    /// ND target address.
    pub nd_target: Be128,
    /// ARP source hardware address, or ND source link-layer address.
    pub arp_sha: Mac,
    /// ARP target hardware address, or ND target link-layer address.
    pub arp_tha: Mac,
    /// TCP flags, low 12 bits; with ICMPv6 ND: the ND option type.
    pub tcp_flags: Be16,
    /// Always zero.
    pub pad4: [u8; 2],
    /// Network service header.
    pub nsh: Nsh,

    // L4.
    /// TCP/UDP/SCTP source port, or ICMP type.
    pub tp_src: Be16,
    /// TCP/UDP/SCTP destination port, or ICMP code.
    pub tp_dst: Be16,
    /// Original-direction transport source of the connection.
    pub ct_tp_src: Be16,
    /// Original-direction transport destination of the connection.
    pub ct_tp_dst: Be16,
    /// IGMP group address; with ICMPv6 ND: the reserved word.
    pub igmp_group_ip4: Be32,
    /// Always zero.
    pub pad5: [u8; 4],
}

/// Network service header fields (RFC 8300).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Nsh {
    /// Flags.
    pub flags: u8,
    /// TTL.
    pub ttl: u8,
    /// MD type.
    pub mdtype: u8,
    /// Next protocol.
    pub np: u8,
    /// Service path id (24 bits) and index (8 bits).
    pub path_hdr: Be32,
    /// Context headers of MD type 1.
    pub context: [Be32; 4],
}

/// 64-bit words of a [`Flow`].
pub const FLOW_WORDS: usize = size_of::<Flow>() / 8;
const _: () = assert!(size_of::<Flow>() == 728 && align_of::<Flow>() == 8);

// By words, not field by field: keys and masks are compared on the way of each miss.
impl PartialEq for Flow {
    fn eq(&self, other: &Flow) -> bool {
        self.words() == other.words()
    }
}
impl Eq for Flow {}
impl std::hash::Hash for Flow {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

impl Flow {
    /// Any fragment.
    pub const FRAG_ANY: u8 = 1;
    /// A fragment with nonzero offset.
    pub const FRAG_LATER: u8 = 2;

    /// All fields zero.
    pub fn zeroed() -> Flow {
        FromZeros::new_zeroed()
    }
    /// The key as words.
    #[inline]
    pub fn words(&self) -> &[u64; FLOW_WORDS] {
        zerocopy::transmute_ref!(self)
    }
    /// The key as words, mutable.
    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64; FLOW_WORDS] {
        zerocopy::transmute_mut!(self)
    }
    /// The port of entry within OpenFlow.
    #[inline]
    pub fn of_in_port(&self) -> OfPort {
        OfPort(self.in_port as u16)
    }
    /// The port of entry within a datapath.
    #[inline]
    pub fn odp_in_port(&self) -> OdpPort {
        OdpPort(self.in_port)
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("ip_dst", &self.ip_dst)
            .field("ipv6_dst", &self.ipv6_dst)
            .field("tun_id", &self.tun_id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut m = f.debug_map();
        for field in crate::fields::FIELDS.iter().filter(|f| !f.is_register() || f.n_bytes == 4) {
            let v = field.get(self);
            if !v.is_zero(field.n_bytes) {
                m.entry(&field.name, &v);
            }
        }
        m.finish()
    }
}

impl Default for Flow {
    fn default() -> Flow {
        Flow::zeroed()
    }
}

/// One bits where a key matters. The all-zero mask matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Mask(pub Flow);

impl Mask {
    /// Adds the bits of `other`.
    pub fn union(&mut self, other: &Mask) {
        for (a, b) in self.0.words_mut().iter_mut().zip(other.0.words()) {
            *a |= b;
        }
    }
    /// `flow` with every bit that does not matter cleared.
    pub fn apply(&self, flow: &Flow) -> Flow {
        let mut out = flow.clone();
        for (a, b) in out.words_mut().iter_mut().zip(self.0.words()) {
            *a &= b;
        }
        out
    }
    /// Whether `a` and `b` agree in every bit that matters.
    pub fn equal(&self, a: &Flow, b: &Flow) -> bool {
        self.0.words().iter().zip(a.words().iter().zip(b.words())).all(|(m, (a, b))| (a ^ b) & m == 0)
    }
}

/// A key and which of its bits matter. Invariant: bits of `flow` outside of `mask` are zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Match {
    /// The values.
    pub flow: Flow,
    /// The bits that matter.
    pub mask: Mask,
    /// Places of `tun_metadata*` in a match that has no table; empty otherwise.
    pub tun_md: crate::tlv::TunMd,
}

impl Match {
    /// Matches every packet.
    pub fn catch_all() -> Match {
        Match::default()
    }
    /// Restores the invariant after `flow` or `mask` was changed by hand.
    pub fn normalize(&mut self) {
        let table = self.flow.tunnel.pad;
        self.flow = self.mask.apply(&self.flow);
        self.flow.tunnel.pad = table;
    }
    /// Whether a packet's key matches.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.mask.equal(&self.flow, flow)
    }
}

/// What the switch knows about a packet beside its bytes: the metadata part of a key, carried from port
/// of entry through recirculation.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Tunnel that it came from, if any.
    pub tunnel: Option<Box<Tunnel>>,
    /// See [`Flow::skb_priority`].
    pub skb_priority: u32,
    /// See [`Flow::pkt_mark`].
    pub pkt_mark: u32,
    /// See [`Flow::dp_hash`].
    pub dp_hash: u32,
    /// Datapath port of entry.
    pub in_port: OdpPort,
    /// See [`Flow::recirc_id`].
    pub recirc_id: u32,
    /// See [`Flow::ct_state`].
    pub ct_state: u8,
    /// See [`Flow::ct_zone`].
    pub ct_zone: u16,
    /// See [`Flow::ct_mark`].
    pub ct_mark: u32,
    /// See [`Flow::ct_label`].
    pub ct_label: Be128,
    /// Original direction tuple of the connection, if `ct_state` is tracked.
    pub ct_orig: Option<CtOrig>,
    /// The connection has been moved by this packet, in `ct_zone`: another look does not move it again.
    pub ct_moved: bool,
}

impl Metadata {
    /// The metadata part of a key, as a packet had it that was extracted with it.
    pub fn of(key: &Flow) -> Metadata {
        let v6 = key.dl_type.get() == 0x86dd;
        let ct_orig = (key.ct_nw_proto != 0 && key.ct_state & CtState::TRK != 0).then(|| CtOrig {
            src: if v6 { key.ct_ipv6_src } else { Be128::new(key.ct_nw_src.get().into()) },
            dst: if v6 { key.ct_ipv6_dst } else { Be128::new(key.ct_nw_dst.get().into()) },
            v6,
            proto: key.ct_nw_proto,
            tp_src: key.ct_tp_src,
            tp_dst: key.ct_tp_dst,
        });
        Metadata {
            tunnel: key.tunnel.is_set().then(|| Box::new(key.tunnel.clone())),
            skb_priority: key.skb_priority,
            pkt_mark: key.pkt_mark,
            dp_hash: key.dp_hash,
            in_port: key.odp_in_port(),
            recirc_id: key.recirc_id,
            ct_state: key.ct_state,
            ct_zone: key.ct_zone,
            ct_mark: key.ct_mark,
            ct_label: key.ct_label,
            ct_orig,
            ct_moved: false,
        }
    }
}

/// Original-direction tuple of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtOrig {
    /// Source address; IPv4 in the low 32 bits when `v6` is false.
    pub src: Be128,
    /// Destination address.
    pub dst: Be128,
    /// IPv6 addresses.
    pub v6: bool,
    /// IP protocol.
    pub proto: u8,
    /// Source port, or ICMP type.
    pub tp_src: Be16,
    /// Destination port, or ICMP code.
    pub tp_dst: Be16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_ignores_what_its_mask_leaves_out() {
        let mut m = Match::catch_all();
        m.flow.dl_type = Be16::new(0x0800);
        m.flow.nw_dst = Be32::new(0x0a00_0001);
        m.mask.0.dl_type = Be16::MAX;
        m.normalize();
        assert!(m.flow.nw_dst.is_zero());
        let mut f = Flow::zeroed();
        assert!(!m.matches(&f));
        f.dl_type = Be16::new(0x0800);
        f.nw_dst = Be32::new(7);
        assert!(m.matches(&f));
    }
}
