//! Datapath actions, one variant for each `OVS_ACTION_ATTR_*` of linux/openvswitch.h (and those that only
//! the user-space datapath has).

use std::sync::Arc;

use ib_flow::{OdpPort, Tunnel};
use ib_packet::{Be16, Be32, Be128, Mac};

/// What a datapath does with a packet, in order. An empty list drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to a port.
    Output(OdpPort),
    /// Hand to user space.
    Userspace(UserspaceAction),
    /// Set a field; the mask tells which bits.
    Set(SetField),
    /// Push a VLAN tag: ethertype and TCI (CFI bit set).
    PushVlan {
        /// Tag ethertype.
        tpid: Be16,
        /// Tag control information.
        tci: Be16,
    },
    /// Pop the outermost VLAN tag.
    PopVlan,
    /// Execute `actions` with a probability of `probability / u32::MAX`.
    Sample {
        /// Share of packets.
        probability: u32,
        /// What those do.
        actions: Arc<[Action]>,
    },
    /// Look the packet up again with this recirculation id.
    Recirc(u32),
    /// User-space datapath: leave by the member that this bond has for the packet's hash.
    LbOutput(u32),
    /// Compute a hash into `dp_hash`.
    Hash {
        /// Algorithm.
        alg: HashAlg,
        /// Seed.
        basis: u32,
    },
    /// Push an MPLS label stack entry.
    PushMpls {
        /// Label, TC, S, TTL.
        lse: Be32,
        /// MPLS ethertype.
        ethertype: Be16,
    },
    /// Pop an MPLS label; the packet becomes `ethertype`.
    PopMpls(Be16),
    /// Truncate the packet of the next output to this many bytes.
    Trunc(u32),
    /// Put an Ethernet header on an L3 packet.
    PushEth {
        /// Destination.
        dst: Mac,
        /// Source.
        src: Mac,
    },
    /// Take the Ethernet header off.
    PopEth,
    /// Put a Network Service Header in front (RFC 8300); the packet has no Ethernet header then.
    PushNsh {
        /// The header's fields.
        nsh: ib_flow::key::Nsh,
        /// TLVs of MD type 2, as on the wire.
        md2: Arc<[u8]>,
    },
    /// Take the Network Service Header off; what follows is said by its next protocol.
    PopNsh,
    /// Put an MPLS label in front of the whole packet, Ethernet header included if there is one.
    AddMpls {
        /// Label, TC, S, TTL.
        lse: Be32,
        /// MPLS ethertype.
        ethertype: Be16,
    },
    /// Connection tracking.
    Ct(Box<CtAction>),
    /// Forget the packet's connection state.
    CtClear,
    /// Meter by this datapath meter id.
    Meter(u32),
    /// Execute on a copy; the packet itself goes on unchanged.
    Clone(Arc<[Action]>),
    /// Choose by packet length.
    CheckPktLen {
        /// Bytes, Ethernet header included.
        len: u16,
        /// If longer.
        greater: Arc<[Action]>,
        /// Otherwise.
        less_or_equal: Arc<[Action]>,
    },
    /// Decrement TTL; expired packets do `exception`.
    DecTtl {
        /// For packets whose TTL ran out.
        exception: Arc<[Action]>,
    },
    /// Drop explicitly, with a reason code (`XLATE_*`).
    Drop(u32),
    /// User-space datapath: encapsulate. `header` goes in front, out of tunnel port `tnl_port` by `out_port`.
    TnlPush {
        /// Tunnel virtual port.
        tnl_port: OdpPort,
        /// Port to leave by.
        out_port: OdpPort,
        /// Tunnel type as `OVS_VPORT_TYPE_*`.
        tnl_type: u32,
        /// Prepared outer headers.
        header: Arc<[u8]>,
    },
    /// User-space datapath: decapsulate on this tunnel port and look up again.
    TnlPop(OdpPort),
    /// Send a sample to the kernel's psample group.
    Psample {
        /// Group.
        group: u32,
        /// Opaque cookie.
        cookie: Arc<[u8]>,
    },
}

/// Hand a packet to user space.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UserspaceAction {
    /// Netlink pid to send to (kernel datapath); `u32::MAX` in user space.
    pub pid: u32,
    /// Opaque; comes back in the upcall.
    pub userdata: Arc<[u8]>,
    /// Ask for the actions in the upcall.
    pub actions: bool,
    /// Ask for the egress tunnel key of this port.
    pub egress_tun_out_port: Option<OdpPort>,
}

/// Hash of [`Action::Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlg {
    /// Datapath's own 5-tuple hash (`OVS_HASH_ALG_L4`).
    L4,
    /// Symmetric L4 hash (`OVS_HASH_ALG_SYM_L4`).
    SymL4,
}

/// A masked set: for each field a value and a mask of the same shape. Value bits outside of the mask are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetField {
    /// skb priority.
    Priority(u32, u32),
    /// Packet mark.
    Mark(u32, u32),
    /// Ethernet addresses.
    Ethernet(EthAddrs, EthAddrs),
    /// IPv4 header.
    Ipv4(Ipv4Fields, Ipv4Fields),
    /// IPv6 header.
    Ipv6(Ipv6Fields, Ipv6Fields),
    /// TCP ports.
    Tcp(L4Ports, L4Ports),
    /// UDP ports.
    Udp(L4Ports, L4Ports),
    /// SCTP ports.
    Sctp(L4Ports, L4Ports),
    /// ICMP type and code (user space only).
    Icmp(IcmpFields, IcmpFields),
    /// ICMPv6 type and code (user space only).
    Icmpv6(IcmpFields, IcmpFields),
    /// ARP.
    Arp(ArpFields, ArpFields),
    /// Neighbour discovery.
    Nd(NdFields, NdFields),
    /// Top MPLS label stack entry.
    Mpls(Be32, Be32),
    /// Tunnel metadata (always exact).
    Tunnel(Box<Tunnel>),
    /// NSH.
    Nsh(ib_flow::key::Nsh, ib_flow::key::Nsh),
}

/// `OVS_KEY_ATTR_ETHERNET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EthAddrs {
    /// Source.
    pub src: Mac,
    /// Destination.
    pub dst: Mac,
}

/// `OVS_KEY_ATTR_IPV4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ipv4Fields {
    /// Source.
    pub src: Be32,
    /// Destination.
    pub dst: Be32,
    /// Protocol (match only).
    pub proto: u8,
    /// TOS.
    pub tos: u8,
    /// TTL.
    pub ttl: u8,
    /// Fragment type (match only).
    pub frag: u8,
}

/// `OVS_KEY_ATTR_IPV6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ipv6Fields {
    /// Source.
    pub src: Be128,
    /// Destination.
    pub dst: Be128,
    /// Flow label.
    pub label: Be32,
    /// Protocol (match only).
    pub proto: u8,
    /// Traffic class.
    pub tclass: u8,
    /// Hop limit.
    pub hlimit: u8,
    /// Fragment type (match only).
    pub frag: u8,
}

/// Transport ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct L4Ports {
    /// Source.
    pub src: Be16,
    /// Destination.
    pub dst: Be16,
}

/// ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IcmpFields {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// `OVS_KEY_ATTR_ARP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ArpFields {
    /// Source protocol address.
    pub sip: Be32,
    /// Target protocol address.
    pub tip: Be32,
    /// Opcode.
    pub op: Be16,
    /// Source hardware address.
    pub sha: Mac,
    /// Target hardware address.
    pub tha: Mac,
}

/// `OVS_KEY_ATTR_ND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NdFields {
    /// Target.
    pub target: Be128,
    /// Source link-layer address.
    pub sll: Mac,
    /// Target link-layer address.
    pub tll: Mac,
}

/// `OVS_ACTION_ATTR_CT`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CtAction {
    /// Commit the connection.
    pub commit: bool,
    /// Commit, and if the connection's original direction is the other one, start it anew.
    pub force: bool,
    /// Zone.
    pub zone: u16,
    /// Mark and its mask.
    pub mark: Option<(u32, u32)>,
    /// Label and its mask.
    pub label: Option<(Be128, Be128)>,
    /// Application helper: `ftp`, `tftp`.
    pub helper: Option<Arc<str>>,
    /// NAT.
    pub nat: Option<NatAction>,
    /// Timeout policy name.
    pub timeout: Option<Arc<str>>,
}

/// NAT of a [`CtAction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatAction {
    /// Translate as the connection says.
    Existing,
    /// Bind the source.
    Src(NatRange),
    /// Bind the destination.
    Dst(NatRange),
}

/// Addresses and ports to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NatRange {
    /// Lowest and highest address; IPv4 as `::a.b.c.d` with `v6` false. None: address stays.
    pub addrs: Option<(Be128, Be128)>,
    /// Addresses are IPv6.
    pub v6: bool,
    /// Lowest and highest port.
    pub ports: Option<(u16, u16)>,
    /// Same mapping for the same host.
    pub persistent: bool,
    /// Choose by hash.
    pub hash: bool,
    /// Choose at random.
    pub random: bool,
}
