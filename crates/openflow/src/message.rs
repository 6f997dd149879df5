//! OpenFlow messages, independent of the protocol's version.
//!
//! [`Message`] is what a session hands to a switch or a controller and takes from it. A field that only some
//! versions carry is documented so; encoding for a version that lacks it leaves it out, or fails where that
//! would change the meaning. Port numbers are 16 bits ([`OfPort`]); the codec maps the 32-bit ones of 1.1+.

use std::fmt;

use ib_flow::{Match, Metadata, OfPort};
use ib_packet::Mac;

use crate::action::Action;
use crate::error::OfError;

/// A protocol version, as in a message's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// OpenFlow 1.0.
    V10 = 1,
    /// OpenFlow 1.1.
    V11 = 2,
    /// OpenFlow 1.2.
    V12 = 3,
    /// OpenFlow 1.3.
    V13 = 4,
    /// OpenFlow 1.4.
    V14 = 5,
    /// OpenFlow 1.5.
    V15 = 6,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Version; 6] =
        [Version::V10, Version::V11, Version::V12, Version::V13, Version::V14, Version::V15];

    /// From a message's first byte.
    pub fn from_wire(byte: u8) -> Option<Version> {
        Version::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }
    /// As in a message's first byte.
    pub fn to_wire(self) -> u8 {
        self as u8
    }
    /// From the database's and command line's form, `OpenFlow13`.
    pub fn from_name(name: &str) -> Option<Version> {
        let digits = name.get(..8).filter(|p| p.eq_ignore_ascii_case("openflow")).map(|_| &name[8..])?;
        Some(match digits {
            "10" | "1.0" => Version::V10,
            "11" | "1.1" => Version::V11,
            "12" | "1.2" => Version::V12,
            "13" | "1.3" => Version::V13,
            "14" | "1.4" => Version::V14,
            "15" | "1.5" => Version::V15,
            _ => return None,
        })
    }
    /// `OpenFlow13`.
    pub fn name(self) -> &'static str {
        match self {
            Version::V10 => "OpenFlow10",
            Version::V11 => "OpenFlow11",
            Version::V12 => "OpenFlow12",
            Version::V13 => "OpenFlow13",
            Version::V14 => "OpenFlow14",
            Version::V15 => "OpenFlow15",
        }
    }
    /// `1.3`.
    pub fn number(self) -> &'static str {
        match self {
            Version::V10 => "1.0",
            Version::V11 => "1.1",
            Version::V12 => "1.2",
            Version::V13 => "1.3",
            Version::V14 => "1.4",
            Version::V15 => "1.5",
        }
    }
    /// Its bit in a [`Versions`] bitmap.
    pub fn bit(self) -> u32 {
        1 << self.to_wire()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of versions: bit n for wire version n, as in OFPHET_VERSIONBITMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versions(pub u32);

impl Versions {
    /// OpenFlow 1.0 to 1.5, what a switch allows by default.
    pub const ALL: Versions = Versions(0x7e);
    /// One version.
    pub fn only(version: Version) -> Versions {
        Versions(version.bit())
    }
    /// Whether it is in the set.
    pub fn contains(self, version: Version) -> bool {
        self.0 & version.bit() != 0
    }
    /// The highest known version of the set.
    pub fn highest(self) -> Option<Version> {
        Version::ALL.iter().rev().copied().find(|v| self.contains(*v))
    }
}

/// Common header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Wire version; may be one that [`Version`] does not know.
    pub version: u8,
    /// `OFPT_*` of that version.
    pub kind: u8,
    /// Bytes, header included.
    pub length: u16,
    /// Transaction id.
    pub xid: u32,
}

/// A message. What carries a match, 1.4 kB and more, is boxed, so that a message moves by few words.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// OFPT_HELLO: the sender's versions.
    Hello(Versions),
    /// OFPT_ERROR.
    Error(ErrorMessage),
    /// OFPT_ECHO_REQUEST.
    EchoRequest(Vec<u8>),
    /// OFPT_ECHO_REPLY.
    EchoReply(Vec<u8>),
    /// OFPT_FEATURES_REQUEST.
    FeaturesRequest,
    /// OFPT_FEATURES_REPLY.
    FeaturesReply(SwitchFeatures),
    /// OFPT_GET_CONFIG_REQUEST.
    GetConfigRequest,
    /// OFPT_GET_CONFIG_REPLY.
    GetConfigReply(SwitchConfig),
    /// OFPT_SET_CONFIG.
    SetConfig(SwitchConfig),
    /// OFPT_PACKET_IN, NXT_PACKET_IN, NXT_PACKET_IN2.
    PacketIn(Box<PacketIn>),
    /// NXT_RESUME: a packet-in comes back with its continuation.
    Resume(Box<PacketIn>),
    /// OFPT_FLOW_REMOVED, NXT_FLOW_REMOVED.
    FlowRemoved(Box<FlowRemoved>),
    /// OFPT_PORT_STATUS.
    PortStatus(PortStatus),
    /// OFPT_PACKET_OUT.
    PacketOut(Box<PacketOut>),
    /// OFPT_FLOW_MOD, NXT_FLOW_MOD.
    FlowMod(Box<FlowMod>),
    /// OFPT_GROUP_MOD.
    GroupMod(GroupMod),
    /// OFPT_PORT_MOD.
    PortMod(PortMod),
    /// OFPT_TABLE_MOD.
    TableMod(TableMod),
    /// OFPT_METER_MOD.
    MeterMod(MeterMod),
    /// OFPT_BARRIER_REQUEST.
    BarrierRequest,
    /// OFPT_BARRIER_REPLY.
    BarrierReply,
    /// OFPT_ROLE_REQUEST, NXT_ROLE_REQUEST.
    RoleRequest(RoleMessage),
    /// OFPT_ROLE_REPLY, NXT_ROLE_REPLY.
    RoleReply(RoleMessage),
    /// OFPT_ROLE_STATUS (1.4+).
    RoleStatus(RoleStatus),
    /// OFPT_GET_ASYNC_REQUEST.
    GetAsyncRequest,
    /// OFPT_GET_ASYNC_REPLY.
    GetAsyncReply(AsyncConfig),
    /// OFPT_SET_ASYNC, NXT_SET_ASYNC_CONFIG, NXT_SET_ASYNC_CONFIG2.
    SetAsync(AsyncConfig),
    /// OFPT_QUEUE_GET_CONFIG_REQUEST, OFPMP_QUEUE_DESC request.
    QueueGetConfigRequest(QueueGetConfigRequest),
    /// OFPT_QUEUE_GET_CONFIG_REPLY, OFPMP_QUEUE_DESC reply.
    QueueGetConfigReply(QueueGetConfigReply),
    /// NXT_SET_FLOW_FORMAT.
    SetFlowFormat(FlowFormat),
    /// NXT_FLOW_MOD_TABLE_ID: whether flow_mods of OpenFlow 1.0 carry a table.
    FlowModTableId(bool),
    /// NXT_SET_PACKET_IN_FORMAT.
    SetPacketInFormat(PacketInFormat),
    /// NXT_SET_CONTROLLER_ID.
    SetControllerId(u16),
    /// NXT_FLOW_AGE: no-op.
    FlowAge,
    /// NXT_FLOW_MONITOR_CANCEL.
    FlowMonitorCancel(u32),
    /// NXT_FLOW_MONITOR_PAUSED.
    FlowMonitorPaused,
    /// NXT_FLOW_MONITOR_RESUMED.
    FlowMonitorResumed,
    /// OFPT_BUNDLE_CONTROL, ONFT_BUNDLE_CONTROL.
    BundleControl(BundleControl),
    /// OFPT_BUNDLE_ADD_MESSAGE, ONFT_BUNDLE_ADD_MESSAGE.
    BundleAdd(BundleAdd),
    /// NXT_TLV_TABLE_MOD.
    TlvTableMod(TlvTableMod),
    /// NXT_TLV_TABLE_REQUEST.
    TlvTableRequest,
    /// NXT_TLV_TABLE_REPLY.
    TlvTableReply(TlvTableReply),
    /// NXT_CT_FLUSH_ZONE.
    CtFlushZone(u16),
    /// NXT_CT_FLUSH.
    CtFlush(CtFlush),
    /// OFPT_TABLE_STATUS (1.4+).
    TableStatus(TableStatus),
    /// OFPT_REQUESTFORWARD (1.4+): the request, as sent to the others.
    RequestForward(Box<RequestForward>),
    /// OFPT_STATS_REQUEST, OFPT_MULTIPART_REQUEST.
    MultipartRequest(MultipartRequest),
    /// OFPT_STATS_REPLY, OFPT_MULTIPART_REPLY.
    MultipartReply(MultipartReply),
}

const _: () = assert!(size_of::<Message>() <= 192, "box what is large");

/// OFPT_ERROR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What is wrong.
    pub error: OfError,
    /// The beginning of the message at fault, at least 64 bytes of it if it is that long; for hello failures a text.
    pub data: Vec<u8>,
}

/// OFPT_FEATURES_REPLY.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SwitchFeatures {
    /// Datapath id.
    pub datapath_id: u64,
    /// Packets that can be buffered.
    pub n_buffers: u32,
    /// Tables.
    pub n_tables: u8,
    /// Auxiliary connection id (1.3+).
    pub auxiliary_id: u8,
    /// [`Capabilities`] bits.
    pub capabilities: u32,
    /// Bitmap of [`ActionBits`] (1.0 only).
    pub actions: u32,
    /// Ports (1.0 to 1.2 only; later versions have OFPMP_PORT_DESC).
    pub ports: Vec<Port>,
}

/// Bits of [`SwitchFeatures::capabilities`].
pub struct Capabilities;
impl Capabilities {
    /// Flow statistics.
    pub const FLOW_STATS: u32 = 1 << 0;
    /// Table statistics.
    pub const TABLE_STATS: u32 = 1 << 1;
    /// Port statistics.
    pub const PORT_STATS: u32 = 1 << 2;
    /// Group statistics (1.1+).
    pub const GROUP_STATS: u32 = 1 << 3;
    /// Can reassemble fragments.
    pub const IP_REASM: u32 = 1 << 5;
    /// Queue statistics.
    pub const QUEUE_STATS: u32 = 1 << 6;
    /// Matches addresses in ARP (1.0, 1.1).
    pub const ARP_MATCH_IP: u32 = 1 << 7;
    /// Blocks looping ports (1.2+).
    pub const PORT_BLOCKED: u32 = 1 << 8;
    /// Bundles (1.5).
    pub const BUNDLES: u32 = 1 << 9;
    /// Flow monitoring (1.5).
    pub const FLOW_MONITORING: u32 = 1 << 10;
    /// 802.1D spanning tree (1.0).
    pub const STP: u32 = 1 << 16;

    /// The bits that a version has at the same place on the wire; [`Capabilities::STP`] has another there.
    pub fn of_version(version: Version) -> u32 {
        let common =
            Self::FLOW_STATS | Self::TABLE_STATS | Self::PORT_STATS | Self::IP_REASM | Self::QUEUE_STATS;
        common
            | match version {
                Version::V10 => Self::ARP_MATCH_IP,
                Version::V11 => Self::GROUP_STATS | Self::ARP_MATCH_IP,
                Version::V12 | Version::V13 => Self::GROUP_STATS | Self::PORT_BLOCKED,
                Version::V14 | Version::V15 => {
                    Self::GROUP_STATS | Self::PORT_BLOCKED | Self::BUNDLES | Self::FLOW_MONITORING
                }
            }
    }
}

/// Bits of [`SwitchFeatures::actions`]: wire numbers of OFPAT10_*.
pub struct ActionBits;
impl ActionBits {
    /// What Open vSwitch reports: output, set_vlan_vid, set_vlan_pcp, strip_vlan, mod_dl/nw/tp, enqueue.
    pub const ALL: u32 = 0xfff;
}

/// A port's description.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Number.
    pub port_no: OfPort,
    /// Address.
    pub hw_addr: Mac,
    /// 64-bit address, if it has one.
    pub hw_addr64: [u8; 8],
    /// Name; 15 bytes on the wire.
    pub name: String,
    /// [`PortConfig`] bits.
    pub config: u32,
    /// [`PortState`] bits.
    pub state: u32,
    /// [`NetdevFeatures`] bits, current.
    pub curr: u32,
    /// Advertised.
    pub advertised: u32,
    /// Supported.
    pub supported: u32,
    /// Advertised by the peer.
    pub peer: u32,
    /// kb/s, current.
    pub curr_speed_kbps: u32,
    /// kb/s, largest.
    pub max_speed_kbps: u32,
}

impl Default for Port {
    fn default() -> Self {
        Port {
            port_no: OfPort(0),
            hw_addr: Mac::default(),
            hw_addr64: [0; 8],
            name: String::new(),
            config: 0,
            state: 0,
            curr: 0,
            advertised: 0,
            supported: 0,
            peer: 0,
            curr_speed_kbps: 0,
            max_speed_kbps: 0,
        }
    }
}

/// Bits of [`Port::config`], as in OpenFlow 1.0.
pub struct PortConfig;
impl PortConfig {
    /// Administratively down.
    pub const PORT_DOWN: u32 = 1 << 0;
    /// No 802.1D (1.0).
    pub const NO_STP: u32 = 1 << 1;
    /// Drop what arrives.
    pub const NO_RECV: u32 = 1 << 2;
    /// Drop 802.1D too (1.0).
    pub const NO_RECV_STP: u32 = 1 << 3;
    /// Not in floods (1.0).
    pub const NO_FLOOD: u32 = 1 << 4;
    /// Drop what leaves.
    pub const NO_FWD: u32 = 1 << 5;
    /// No packet-ins.
    pub const NO_PACKET_IN: u32 = 1 << 6;
}

/// Bits of [`Port::state`].
pub struct PortState;
impl PortState {
    /// No carrier.
    pub const LINK_DOWN: u32 = 1 << 0;
    /// Blocked by a protocol outside of OpenFlow (1.1+).
    pub const BLOCKED: u32 = 1 << 1;
    /// Live for fast failover (1.1+).
    pub const LIVE: u32 = 1 << 2;
    /// 802.1D listening (1.0): field of two bits.
    pub const STP_LISTEN: u32 = 0 << 8;
    /// 802.1D learning.
    pub const STP_LEARN: u32 = 1 << 8;
    /// 802.1D forwarding.
    pub const STP_FORWARD: u32 = 2 << 8;
    /// 802.1D blocking.
    pub const STP_BLOCK: u32 = 3 << 8;
    /// Those bits.
    pub const STP_MASK: u32 = 3 << 8;
}

/// Bits of [`Port::curr`] and its like, as in OpenFlow 1.1+.
pub struct NetdevFeatures;
impl NetdevFeatures {
    /// 10 Mb half duplex.
    pub const F_10MB_HD: u32 = 1 << 0;
    /// 10 Mb full duplex.
    pub const F_10MB_FD: u32 = 1 << 1;
    /// 100 Mb half duplex.
    pub const F_100MB_HD: u32 = 1 << 2;
    /// 100 Mb full duplex.
    pub const F_100MB_FD: u32 = 1 << 3;
    /// 1 Gb half duplex.
    pub const F_1GB_HD: u32 = 1 << 4;
    /// 1 Gb full duplex.
    pub const F_1GB_FD: u32 = 1 << 5;
    /// 10 Gb full duplex.
    pub const F_10GB_FD: u32 = 1 << 6;
    /// 40 Gb full duplex.
    pub const F_40GB_FD: u32 = 1 << 7;
    /// 100 Gb full duplex.
    pub const F_100GB_FD: u32 = 1 << 8;
    /// 1 Tb full duplex.
    pub const F_1TB_FD: u32 = 1 << 9;
    /// Another speed.
    pub const OTHER: u32 = 1 << 10;
    /// Copper.
    pub const COPPER: u32 = 1 << 11;
    /// Fiber.
    pub const FIBER: u32 = 1 << 12;
    /// Autonegotiation.
    pub const AUTONEG: u32 = 1 << 13;
    /// Pause.
    pub const PAUSE: u32 = 1 << 14;
    /// Asymmetric pause.
    pub const PAUSE_ASYM: u32 = 1 << 15;
}

/// What happens to IP fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FragHandling {
    /// Transport ports read as zero.
    #[default]
    Normal,
    /// Dropped.
    Drop,
    /// Reassembled.
    Reassemble,
    /// First fragments keep their ports (Nicira).
    NxMatch,
}

/// OFPT_GET_CONFIG_REPLY, OFPT_SET_CONFIG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SwitchConfig {
    /// Fragments.
    pub frag: FragHandling,
    /// OFPC_INVALID_TTL_TO_CONTROLLER (1.1, 1.2; NX in 1.0): `None` where the version has no such bit.
    pub invalid_ttl_to_controller: Option<bool>,
    /// Bytes of a missed packet that go to the controller; 0xffff is all.
    pub miss_send_len: u16,
}

/// Why a packet is sent to the controller: `OFPR_*`, in OpenFlow 1.4+'s numbers and Open vSwitch's beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PacketInReason {
    /// No matching flow; also a table-miss flow.
    NoMatch = 0,
    /// Output to the controller (OFPR_APPLY_ACTION in 1.4+).
    Action = 1,
    /// Invalid TTL.
    InvalidTtl = 2,
    /// From the action set (1.4+).
    ActionSet = 3,
    /// From a group bucket (1.4+).
    Group = 4,
    /// From a packet-out (1.4+).
    PacketOut = 5,
    /// Table miss without a table-miss flow, internal form of `NoMatch`.
    ExplicitMiss = 6,
    /// Table miss, internal.
    ImplicitMiss = 7,
}

/// How packet-ins are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketInFormat {
    /// The version's own.
    Standard,
    /// NXT_PACKET_IN.
    Nxt,
    /// NXT_PACKET_IN2.
    Nxt2,
}

/// A packet for a controller.
#[derive(Clone, Debug, PartialEq)]
pub struct PacketIn {
    /// The packet, possibly its beginning only.
    pub data: Vec<u8>,
    /// Length of the whole packet.
    pub total_len: u32,
    /// Buffer that holds it, or `u32::MAX`.
    pub buffer_id: u32,
    /// Why.
    pub reason: PacketInReason,
    /// Table of the flow, 255 if unknown.
    pub table_id: u8,
    /// Cookie of the flow, `u64::MAX` if unknown.
    pub cookie: u64,
    /// Metadata: `in_port` at least.
    pub metadata: Match,
    /// From `controller(userdata=...)`.
    pub userdata: Vec<u8>,
    /// NXT_PACKET_IN2 properties of a continuation, as on the wire; empty if there is none.
    pub continuation: Vec<u8>,
    /// In which form it came; encoding takes the session's.
    pub format: PacketInFormat,
}

impl Default for PacketIn {
    fn default() -> Self {
        PacketIn {
            data: Vec::new(),
            total_len: 0,
            buffer_id: u32::MAX,
            reason: PacketInReason::NoMatch,
            table_id: 0xff,
            cookie: u64::MAX,
            metadata: Match::default(),
            userdata: Vec::new(),
            continuation: Vec::new(),
            format: PacketInFormat::Standard,
        }
    }
}

/// Why a flow is gone: `OFPRR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowRemovedReason {
    /// Idle timeout.
    IdleTimeout,
    /// Hard timeout.
    HardTimeout,
    /// Deleted by a flow_mod.
    Delete,
    /// Its group was deleted.
    GroupDelete,
    /// Its meter was deleted.
    MeterDelete,
    /// Evicted.
    Eviction,
    /// A number that no version knows, as a peer may say it.
    Other(u16),
}

impl FlowRemovedReason {
    const NAMES: [(FlowRemovedReason, &'static str); 6] = [
        (FlowRemovedReason::IdleTimeout, "idle"),
        (FlowRemovedReason::HardTimeout, "hard"),
        (FlowRemovedReason::Delete, "delete"),
        (FlowRemovedReason::GroupDelete, "group_delete"),
        (FlowRemovedReason::MeterDelete, "meter_delete"),
        (FlowRemovedReason::Eviction, "eviction"),
    ];

    /// The reason of a number.
    pub fn from_code(code: u16) -> FlowRemovedReason {
        Self::NAMES.get(usize::from(code)).map_or(FlowRemovedReason::Other(code), |n| n.0)
    }
    /// Its number.
    pub fn code(self) -> u16 {
        match self {
            FlowRemovedReason::Other(code) => code,
            known => Self::NAMES.iter().position(|n| n.0 == known).unwrap_or(0) as u16,
        }
    }
}

impl std::fmt::Display for FlowRemovedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMES.iter().find(|n| n.0 == *self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.code()),
        }
    }
}

/// OFPT_FLOW_REMOVED.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRemoved {
    /// Match.
    pub match_: Match,
    /// Cookie.
    pub cookie: u64,
    /// Priority.
    pub priority: u16,
    /// Why.
    pub reason: FlowRemovedReason,
    /// Table; 255 if the version does not tell.
    pub table_id: u8,
    /// Age, seconds.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// Packets.
    pub packet_count: u64,
    /// Bytes.
    pub byte_count: u64,
}

/// Why a port status was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortReason {
    /// Added.
    Add = 0,
    /// Deleted.
    Delete = 1,
    /// Changed.
    Modify = 2,
}

/// OFPT_PORT_STATUS.
#[derive(Clone, Debug, PartialEq)]
pub struct PortStatus {
    /// Why.
    pub reason: PortReason,
    /// The port.
    pub port: Port,
}

/// OFPT_PACKET_OUT.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PacketOut {
    /// The packet, unless buffered.
    pub data: Vec<u8>,
    /// Buffer, or `u32::MAX`.
    pub buffer_id: u32,
    /// Metadata: `in_port` (as `OfPort`) at least.
    pub metadata: Match,
    /// What to do.
    pub actions: Vec<Action>,
}

/// `OFPFC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowModCommand {
    /// Add, replacing an identical flow.
    Add = 0,
    /// Modify all that match loosely.
    Modify = 1,
    /// Modify the identical flow.
    ModifyStrict = 2,
    /// Delete all that match loosely.
    Delete = 3,
    /// Delete the identical flow.
    DeleteStrict = 4,
}

/// Bits of [`FlowMod::flags`], beyond one version's wire values.
pub struct FlowModFlags;
impl FlowModFlags {
    /// Tell when the flow goes.
    pub const SEND_FLOW_REM: u16 = 1 << 0;
    /// Refuse overlaps.
    pub const CHECK_OVERLAP: u16 = 1 << 1;
    /// Emergency flow (1.0): refused.
    pub const EMERG: u16 = 1 << 2;
    /// Zero the counters (1.2+; earlier versions always do with add).
    pub const RESET_COUNTS: u16 = 1 << 3;
    /// No packet counts (1.3+).
    pub const NO_PKT_COUNTS: u16 = 1 << 4;
    /// No byte counts (1.3+).
    pub const NO_BYT_COUNTS: u16 = 1 << 5;
    /// Hidden: internal to the switch.
    pub const HIDDEN_FIELDS: u16 = 1 << 12;
    /// No read-only restriction: internal to the switch.
    pub const NO_READONLY: u16 = 1 << 13;
}

/// OFPT_FLOW_MOD. `M` is the form that its match is kept in.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowMod<M = Match> {
    /// Match.
    pub match_: M,
    /// Priority.
    pub priority: u16,
    /// Only flows with this cookie, under `cookie_mask` (modify and delete).
    pub cookie: u64,
    /// See `cookie`; 0: any.
    pub cookie_mask: u64,
    /// Cookie for new flows, and for modified ones if `modify_cookie`.
    pub new_cookie: u64,
    /// Whether modify changes the cookie (1.0 does if it is not `u64::MAX`).
    pub modify_cookie: bool,
    /// Table; 255: any, or the switch's choice.
    pub table_id: u8,
    /// Command.
    pub command: FlowModCommand,
    /// Seconds; 0: none.
    pub idle_timeout: u16,
    /// Seconds; 0: none.
    pub hard_timeout: u16,
    /// Eviction importance (1.4+).
    pub importance: u16,
    /// Buffer to send through, or `u32::MAX`.
    pub buffer_id: u32,
    /// Delete: only flows that output there; [`OfPort::NONE`]: any.
    pub out_port: OfPort,
    /// Delete: only flows with that group; `u32::MAX`: any (1.1+).
    pub out_group: u32,
    /// [`FlowModFlags`].
    pub flags: u16,
    /// Actions.
    pub actions: Vec<Action>,
}

impl<M> FlowMod<M> {
    /// The same with another form of match.
    pub fn with_match<N>(self, form: impl FnOnce(M) -> N) -> FlowMod<N> {
        FlowMod {
            match_: form(self.match_),
            priority: self.priority,
            cookie: self.cookie,
            cookie_mask: self.cookie_mask,
            new_cookie: self.new_cookie,
            modify_cookie: self.modify_cookie,
            table_id: self.table_id,
            command: self.command,
            idle_timeout: self.idle_timeout,
            hard_timeout: self.hard_timeout,
            importance: self.importance,
            buffer_id: self.buffer_id,
            out_port: self.out_port,
            out_group: self.out_group,
            flags: self.flags,
            actions: self.actions,
        }
    }
}

impl Default for FlowMod {
    fn default() -> Self {
        FlowMod {
            match_: Match::default(),
            priority: 0x8000,
            cookie: 0,
            cookie_mask: 0,
            new_cookie: 0,
            modify_cookie: false,
            table_id: 0xff,
            command: FlowModCommand::Add,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            buffer_id: u32::MAX,
            out_port: OfPort::NONE,
            out_group: OFPG_ANY,
            flags: 0,
            actions: Vec::new(),
        }
    }
}

/// OFPG_ANY: no restriction to a group.
pub const OFPG_ANY: u32 = 0xffff_ffff;
/// OFPG_ALL: all groups.
pub const OFPG_ALL: u32 = 0xffff_fffc;
/// OFPG_MAX: the last ordinary group.
pub const OFPG_MAX: u32 = 0xffff_ff00;
/// OFPQ_ALL: all queues.
pub const OFPQ_ALL: u32 = 0xffff_ffff;
/// OFPTT_ALL: all tables.
pub const OFPTT_ALL: u8 = 0xff;
/// OFP_NO_BUFFER.
pub const NO_BUFFER: u32 = 0xffff_ffff;
/// OFPM13_MAX: last ordinary meter.
pub const OFPM_MAX: u32 = 0xffff_0000;
/// OFPM13_ALL: all meters.
pub const OFPM_ALL: u32 = 0xffff_ffff;

/// `OFPGC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum GroupModCommand {
    /// Add.
    Add = 0,
    /// Modify.
    Modify = 1,
    /// Delete.
    Delete = 2,
    /// Add or modify (Nicira; 0x8000 on the wire).
    AddOrMod = 0x8000,
    /// Insert buckets (1.5).
    InsertBucket = 3,
    /// Remove buckets (1.5).
    RemoveBucket = 5,
}

/// `OFPGT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GroupType {
    /// Every bucket.
    #[default]
    All = 0,
    /// One bucket by selection.
    Select = 1,
    /// The one bucket.
    Indirect = 2,
    /// First live bucket.
    FastFailover = 3,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Share in `Select`; 1 for other types.
    pub weight: u16,
    /// Liveness port, or [`OfPort::NONE`].
    pub watch_port: OfPort,
    /// Liveness group, or [`OFPG_ANY`].
    pub watch_group: u32,
    /// Id (1.5; else assigned in order).
    pub bucket_id: u32,
    /// Actions.
    pub actions: Vec<Action>,
}

/// Group properties (Nicira selection method).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct GroupProps {
    /// Empty, `hash` or `dp_hash`.
    pub selection_method: String,
    /// Parameter.
    pub selection_method_param: u64,
    /// Fields hashed with `hash`: each with its mask in network order.
    pub fields: Vec<(ib_flow::FieldId, Box<[u8]>)>,
}

/// OFPG_BUCKET_FIRST.
pub const BUCKET_FIRST: u32 = 0xffff_fffd;
/// OFPG_BUCKET_LAST.
pub const BUCKET_LAST: u32 = 0xffff_fffe;
/// OFPG_BUCKET_ALL.
pub const BUCKET_ALL: u32 = 0xffff_ffff;

/// OFPT_GROUP_MOD.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupMod {
    /// Command.
    pub command: GroupModCommand,
    /// Type.
    pub kind: GroupType,
    /// Group.
    pub group_id: u32,
    /// For bucket commands: [`BUCKET_FIRST`] and its like, or an id.
    pub command_bucket_id: u32,
    /// Buckets.
    pub buckets: Vec<Bucket>,
    /// Properties.
    pub props: GroupProps,
}

/// OFPT_PORT_MOD.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PortMod {
    /// Port.
    pub port_no: OfPort,
    /// Its address, which must fit.
    pub hw_addr: Mac,
    /// [`PortConfig`] bits.
    pub config: u32,
    /// Which to change.
    pub mask: u32,
    /// [`NetdevFeatures`] to advertise; 0: leave.
    pub advertise: u32,
}

/// What a table does with a packet that no flow matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TableMiss {
    /// As the version says: to the controller in 1.0 to 1.2, drop in 1.3+.
    #[default]
    Default,
    /// To the controller.
    Controller,
    /// Next table.
    Continue,
    /// Drop.
    Drop,
}

/// OFPT_TABLE_MOD.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TableMod {
    /// Table; 255: all.
    pub table_id: u8,
    /// Miss configuration (1.1, 1.2).
    pub miss: TableMiss,
    /// Eviction on (1.4+).
    pub eviction: Option<bool>,
    /// Eviction flags (1.4+).
    pub eviction_flags: Option<u32>,
    /// Vacancy events: on, thresholds (1.4+).
    pub vacancy: Option<Vacancy>,
}

/// Vacancy thresholds, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vacancy {
    /// Events on.
    pub enabled: bool,
    /// Event when vacancy falls below.
    pub down: u8,
    /// Event when vacancy rises above.
    pub up: u8,
    /// Now (in descriptions).
    pub current: u8,
}

/// One band of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterBand {
    /// 1 drop, 2 DSCP remark.
    pub kind: u16,
    /// Precedence increase of remark.
    pub prec_level: u8,
    /// kb/s or packets/s.
    pub rate: u32,
    /// Burst.
    pub burst: u32,
}

/// Bits of [`MeterConfig::flags`].
pub struct MeterFlags;
impl MeterFlags {
    /// Rates in kb/s.
    pub const KBPS: u16 = 1;
    /// Rates in packets/s.
    pub const PKTPS: u16 = 2;
    /// Bursts given.
    pub const BURST: u16 = 4;
    /// Statistics.
    pub const STATS: u16 = 8;
}

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MeterConfig {
    /// Id.
    pub meter_id: u32,
    /// [`MeterFlags`].
    pub flags: u16,
    /// Bands.
    pub bands: Vec<MeterBand>,
}

/// OFPT_METER_MOD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterMod {
    /// 0 add, 1 modify, 2 delete.
    pub command: u16,
    /// What.
    pub meter: MeterConfig,
}

/// A controller's role, as in OpenFlow 1.2+.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Only asks.
    NoChange = 0,
    /// Full access, shared ("other" in Nicira's form).
    Equal = 1,
    /// Full access, one only.
    Primary = 2,
    /// Read-only.
    Secondary = 3,
}

/// OFPT_ROLE_REQUEST and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleMessage {
    /// Role.
    pub role: Role,
    /// Election (1.2+).
    pub generation_id: Option<u64>,
}

/// OFPT_ROLE_STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleStatus {
    /// New role.
    pub role: Role,
    /// 0 another became primary, 1 configuration, 2 experimenter.
    pub reason: u8,
    /// Election; `u64::MAX` if unknown.
    pub generation_id: u64,
}

/// Asynchronous messages by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum AsyncKind {
    /// OFPT_PACKET_IN; bits are [`PacketInReason`].
    PacketIn = 0,
    /// OFPT_PORT_STATUS; bits are [`PortReason`].
    PortStatus = 1,
    /// OFPT_FLOW_REMOVED; bits are [`FlowRemovedReason`].
    FlowRemoved = 2,
    /// OFPT_ROLE_STATUS.
    RoleStatus = 3,
    /// OFPT_TABLE_STATUS.
    TableStatus = 4,
    /// OFPT_REQUESTFORWARD.
    RequestForward = 5,
}

/// Which asynchronous messages a controller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AsyncConfig {
    /// By [`AsyncKind`]: bitmap of reasons while primary or equal.
    pub primary: [u32; 6],
    /// Bitmap of reasons while secondary.
    pub secondary: [u32; 6],
    /// Which kinds the message speaks of (SET in 1.4+ may set some only): bitmap by [`AsyncKind`] of `primary`, then shifted by 8 of `secondary`.
    pub present: u16,
}

/// Request for queue configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueGetConfigRequest {
    /// Port; [`OfPort::NONE`] (`ANY`): all.
    pub port: OfPort,
    /// Queue; [`OFPQ_ALL`]: all (1.4+).
    pub queue: u32,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Port.
    pub port: OfPort,
    /// Queue.
    pub queue: u32,
    /// Tenths of a percent.
    pub min_rate: Option<u16>,
    /// Tenths of a percent.
    pub max_rate: Option<u16>,
}

/// Queues of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGetConfigReply {
    /// Port that was asked for.
    pub port: OfPort,
    /// Queues.
    pub queues: Vec<QueueConfig>,
    /// More messages follow (1.4+).
    pub more: bool,
}

/// NXT_SET_FLOW_FORMAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowFormat {
    /// OpenFlow 1.0 matches.
    OpenFlow10 = 0,
    /// NXM.
    Nxm = 2,
}

/// `OFPBCT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BundleControlKind {
    /// Open.
    OpenRequest = 0,
    /// Opened.
    OpenReply = 1,
    /// Close.
    CloseRequest = 2,
    /// Closed.
    CloseReply = 3,
    /// Commit.
    CommitRequest = 4,
    /// Committed.
    CommitReply = 5,
    /// Discard.
    DiscardRequest = 6,
    /// Discarded.
    DiscardReply = 7,
    /// A number that means nothing: only printers see it.
    Unknown = 8,
}

/// OFPT_BUNDLE_CONTROL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleControl {
    /// Bundle.
    pub bundle_id: u32,
    /// What.
    pub kind: BundleControlKind,
    /// 1 atomic, 2 ordered.
    pub flags: u16,
}

/// OFPT_BUNDLE_ADD_MESSAGE.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleAdd {
    /// Bundle.
    pub bundle_id: u32,
    /// 1 atomic, 2 ordered.
    pub flags: u16,
    /// The message inside, as it travelled.
    pub raw: Vec<u8>,
}

/// A TLV mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvMap {
    /// Geneve option class.
    pub class: u16,
    /// Geneve option type.
    pub kind: u8,
    /// Bytes of data.
    pub len: u8,
    /// `tun_metadata` index.
    pub index: u16,
}

/// NXT_TLV_TABLE_MOD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvTableMod {
    /// 0 add, 1 delete, 2 clear.
    pub command: u16,
    /// Mappings.
    pub maps: Vec<TlvMap>,
}

/// NXT_TLV_TABLE_REPLY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvTableReply {
    /// Bytes in all.
    pub max_space: u32,
    /// Fields in all.
    pub max_fields: u16,
    /// Mappings.
    pub maps: Vec<TlvMap>,
}

/// One side of a connection, any part of which may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CtTuple {
    /// Source address, IPv4 as mapped IPv6.
    pub src: Option<std::net::Ipv6Addr>,
    /// Destination address.
    pub dst: Option<std::net::Ipv6Addr>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// ICMP id, type, code.
    pub icmp: (Option<u16>, Option<u8>, Option<u8>),
}

/// NXT_CT_FLUSH: connections that agree with everything given.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CtFlush {
    /// IP protocol; 0: any.
    pub ip_proto: u8,
    /// Zone.
    pub zone: Option<u16>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Label and mask.
    pub labels: Option<(u128, u128)>,
    /// Original direction.
    pub orig: CtTuple,
    /// Reply direction.
    pub reply: CtTuple,
}

/// OFPT_TABLE_STATUS.
#[derive(Clone, Debug, PartialEq)]
pub struct TableStatus {
    /// 3 vacancy down, 4 vacancy up.
    pub reason: u8,
    /// The table.
    pub desc: TableDesc,
}

/// OFPT_REQUESTFORWARD.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestForward {
    /// A group was changed.
    Group(GroupMod),
    /// A meter was changed.
    Meter(MeterMod),
}

/// A multipart (statistics) request.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum MultipartRequest {
    /// OFPMP_DESC.
    Desc,
    /// OFPMP_FLOW, NXST_FLOW.
    Flow(Box<FlowStatsRequest>),
    /// OFPMP_AGGREGATE, NXST_AGGREGATE.
    Aggregate(Box<FlowStatsRequest>),
    /// OFPMP_TABLE.
    Table,
    /// OFPMP_PORT_STATS; [`OfPort::NONE`]: all.
    Port(OfPort),
    /// OFPMP_QUEUE.
    Queue {
        /// Port; [`OfPort::NONE`]: all.
        port: OfPort,
        /// Queue, or [`OFPQ_ALL`].
        queue: u32,
    },
    /// OFPMP_GROUP: statistics of a group, or [`OFPG_ALL`].
    Group(u32),
    /// OFPMP_GROUP_DESC: a group (1.5), or [`OFPG_ALL`].
    GroupDesc(u32),
    /// OFPMP_GROUP_FEATURES.
    GroupFeatures,
    /// OFPMP_METER: statistics of a meter, or [`OFPM_ALL`].
    Meter(u32),
    /// OFPMP_METER_CONFIG.
    MeterConfig(u32),
    /// OFPMP_METER_FEATURES.
    MeterFeatures,
    /// OFPMP_TABLE_FEATURES: asks for them, or sets those of some tables.
    TableFeatures {
        /// Nothing to ask; else what to set.
        tables: Vec<TableFeatures>,
        /// The request goes on in another message.
        more: bool,
    },
    /// OFPMP_PORT_DESC: a port (1.5), or [`OfPort::NONE`].
    PortDesc(OfPort),
    /// OFPMP_TABLE_DESC (1.4+).
    TableDesc,
    /// NXST_FLOW_MONITOR, OFPMP_FLOW_MONITOR.
    FlowMonitor(Vec<FlowMonitorRequest>),
    /// NXST_IPFIX_BRIDGE.
    IpfixBridge,
    /// NXST_IPFIX_FLOW.
    IpfixFlow,
}

/// Which flows.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowStatsRequest {
    /// Loose match.
    pub match_: Match,
    /// Cookie.
    pub cookie: u64,
    /// Bits of the cookie that matter.
    pub cookie_mask: u64,
    /// Table, or 255.
    pub table_id: u8,
    /// Only flows that output there; [`OfPort::NONE`]: any.
    pub out_port: OfPort,
    /// Only flows with that group; [`OFPG_ANY`]: any.
    pub out_group: u32,
}

impl Default for FlowStatsRequest {
    fn default() -> Self {
        FlowStatsRequest {
            match_: Match::default(),
            cookie: 0,
            cookie_mask: 0,
            table_id: 0xff,
            out_port: OfPort::NONE,
            out_group: OFPG_ANY,
        }
    }
}

/// A multipart reply, or one part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MultipartReply {
    /// OFPMPF_REPLY_MORE: another part follows.
    pub more: bool,
    /// This part.
    pub body: MultipartBody,
}

/// What a multipart reply holds.
#[derive(Clone, Debug, PartialEq)]
pub enum MultipartBody {
    /// OFPMP_DESC.
    Desc(SwitchDesc),
    /// OFPMP_FLOW, NXST_FLOW.
    Flow(Vec<FlowStats>),
    /// OFPMP_AGGREGATE, NXST_AGGREGATE.
    Aggregate(AggregateStats),
    /// OFPMP_TABLE.
    Table(Vec<TableStats>),
    /// OFPMP_PORT_STATS.
    Port(Vec<PortStats>),
    /// OFPMP_QUEUE.
    Queue(Vec<QueueStats>),
    /// OFPMP_GROUP.
    Group(Vec<GroupStats>),
    /// OFPMP_GROUP_DESC.
    GroupDesc(Vec<GroupDesc>),
    /// OFPMP_GROUP_FEATURES.
    GroupFeatures(GroupFeatures),
    /// OFPMP_METER.
    Meter(Vec<MeterStats>),
    /// OFPMP_METER_CONFIG.
    MeterConfig(Vec<MeterConfig>),
    /// OFPMP_METER_FEATURES.
    MeterFeatures(MeterFeatures),
    /// OFPMP_TABLE_FEATURES.
    TableFeatures(Vec<TableFeatures>),
    /// OFPMP_PORT_DESC.
    PortDesc(Vec<Port>),
    /// OFPMP_TABLE_DESC.
    TableDesc(Vec<TableDesc>),
    /// NXST_FLOW_MONITOR, OFPMP_FLOW_MONITOR.
    FlowMonitor(Vec<FlowUpdate>),
    /// NXST_IPFIX_BRIDGE, NXST_IPFIX_FLOW: as counters in wire order.
    Ipfix {
        /// Per flow collector set, else per bridge.
        flow: bool,
        /// One record each.
        stats: Vec<IpfixStats>,
    },
}

/// IPFIX exporter counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IpfixStats {
    /// Flows.
    pub total_flows: u64,
    /// Flows in cache.
    pub current_flows: u64,
    /// Packets.
    pub pkts: u64,
    /// IPv4 packets.
    pub ipv4_pkts: u64,
    /// IPv6 packets.
    pub ipv6_pkts: u64,
    /// Packets with errors.
    pub error_pkts: u64,
    /// IPv4 packets with errors.
    pub ipv4_error_pkts: u64,
    /// IPv6 packets with errors.
    pub ipv6_error_pkts: u64,
    /// Packets sent to collectors.
    pub tx_pkts: u64,
    /// Failures of that.
    pub tx_errors: u64,
    /// Collector set (per flow only).
    pub collector_set_id: u32,
}

/// OFPMP_DESC.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SwitchDesc {
    /// Manufacturer.
    pub mfr_desc: String,
    /// Hardware.
    pub hw_desc: String,
    /// Software.
    pub sw_desc: String,
    /// Serial number.
    pub serial_num: String,
    /// Datapath.
    pub dp_desc: String,
}

/// One flow in OFPMP_FLOW.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowStats {
    /// Match.
    pub match_: Match,
    /// Cookie.
    pub cookie: u64,
    /// Table.
    pub table_id: u8,
    /// Priority.
    pub priority: u16,
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// Eviction importance (1.4+).
    pub importance: u16,
    /// [`FlowModFlags`] (1.3+).
    pub flags: u16,
    /// Age, seconds.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
    /// Seconds since a packet hit it (Nicira), if known.
    pub idle_age: Option<u16>,
    /// Seconds since it was modified (Nicira), if known.
    pub hard_age: Option<u16>,
    /// Packets; `u64::MAX` if unknown.
    pub packet_count: u64,
    /// Bytes; `u64::MAX` if unknown.
    pub byte_count: u64,
    /// Actions.
    pub actions: Vec<Action>,
}

impl Default for FlowStats {
    fn default() -> Self {
        FlowStats {
            match_: Match::default(),
            cookie: 0,
            table_id: 0,
            priority: 0x8000,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            flags: 0,
            duration_sec: 0,
            duration_nsec: 0,
            idle_age: None,
            hard_age: None,
            packet_count: 0,
            byte_count: 0,
            actions: Vec::new(),
        }
    }
}

/// OFPMP_AGGREGATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AggregateStats {
    /// Packets; `u64::MAX` if unknown.
    pub packet_count: u64,
    /// Bytes; `u64::MAX` if unknown.
    pub byte_count: u64,
    /// Flows.
    pub flow_count: u32,
}

/// One table in OFPMP_TABLE, with what OpenFlow 1.0 to 1.2 say about it beyond counters.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TableStats {
    /// Table.
    pub table_id: u8,
    /// Flows.
    pub active_count: u32,
    /// Lookups.
    pub lookup_count: u64,
    /// Hits.
    pub matched_count: u64,
    /// What it can (1.0 to 1.2 carry parts of it).
    pub features: TableFeatures,
}

/// One port in OFPMP_PORT_STATS. Counters that are unknown are `u64::MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// Port.
    pub port_no: OfPort,
    /// Received packets.
    pub rx_packets: u64,
    /// Sent packets.
    pub tx_packets: u64,
    /// Received bytes.
    pub rx_bytes: u64,
    /// Sent bytes.
    pub tx_bytes: u64,
    /// Dropped on reception.
    pub rx_dropped: u64,
    /// Dropped on transmission.
    pub tx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Transmit errors.
    pub tx_errors: u64,
    /// Frame alignment errors.
    pub rx_frame_err: u64,
    /// Overruns.
    pub rx_over_err: u64,
    /// CRC errors.
    pub rx_crc_err: u64,
    /// Collisions.
    pub collisions: u64,
    /// Age, seconds (1.3+); `u32::MAX` if unknown.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
    /// RFC 2819 counters (1.4+), in the order of OFPMP_PORT_STATS' property; `u64::MAX` where unknown.
    pub rfc2819: Option<Rfc2819>,
    /// Counters of Open vSwitch (INTEL and custom), by name.
    pub custom: Vec<(String, u64)>,
}

impl Default for PortStats {
    fn default() -> Self {
        PortStats {
            port_no: OfPort(0),
            rx_packets: 0,
            tx_packets: 0,
            rx_bytes: 0,
            tx_bytes: 0,
            rx_dropped: 0,
            tx_dropped: 0,
            rx_errors: 0,
            tx_errors: 0,
            rx_frame_err: 0,
            rx_over_err: 0,
            rx_crc_err: 0,
            collisions: 0,
            duration_sec: u32::MAX,
            duration_nsec: 0,
            rfc2819: None,
            custom: Vec::new(),
        }
    }
}

/// RFC 2819 counters as in the Intel extension of OFPMP_PORT_STATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Rfc2819 {
    pub rx_1_to_64: u64,
    pub rx_65_to_127: u64,
    pub rx_128_to_255: u64,
    pub rx_256_to_511: u64,
    pub rx_512_to_1023: u64,
    pub rx_1024_to_1522: u64,
    pub rx_1523_to_max: u64,
    pub tx_1_to_64: u64,
    pub tx_65_to_127: u64,
    pub tx_128_to_255: u64,
    pub tx_256_to_511: u64,
    pub tx_512_to_1023: u64,
    pub tx_1024_to_1522: u64,
    pub tx_1523_to_max: u64,
    pub tx_multicast: u64,
    pub rx_broadcast: u64,
    pub tx_broadcast: u64,
    pub rx_undersized: u64,
    pub rx_oversize: u64,
    pub rx_fragmented: u64,
    pub rx_jabber: u64,
}

/// One queue in OFPMP_QUEUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// Port.
    pub port: OfPort,
    /// Queue.
    pub queue: u32,
    /// Sent bytes; `u64::MAX` if unknown.
    pub tx_bytes: u64,
    /// Sent packets.
    pub tx_packets: u64,
    /// Drops by overrun.
    pub tx_errors: u64,
    /// Age, seconds (1.3+); `u32::MAX` if unknown.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
}

/// One group in OFPMP_GROUP.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// Group.
    pub group_id: u32,
    /// Flows and groups that refer to it.
    pub ref_count: u32,
    /// Packets.
    pub packet_count: u64,
    /// Bytes.
    pub byte_count: u64,
    /// Age, seconds (1.3+); `u32::MAX` if unknown.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
    /// Packets and bytes by bucket.
    pub buckets: Vec<(u64, u64)>,
}

/// One group in OFPMP_GROUP_DESC.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupDesc {
    /// Group.
    pub group_id: u32,
    /// Type.
    pub kind: GroupType,
    /// Buckets.
    pub buckets: Vec<Bucket>,
    /// Properties.
    pub props: GroupProps,
}

/// OFPMP_GROUP_FEATURES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GroupFeatures {
    /// Bitmap by [`GroupType`].
    pub types: u32,
    /// OFPGFC_* bits.
    pub capabilities: u32,
    /// By type.
    pub max_groups: [u32; 4],
    /// By type: bitmap of action numbers of the version.
    pub actions: [u32; 4],
}

/// Packets and bytes of a band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MeterBandStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One meter in OFPMP_METER.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MeterStats {
    /// Meter.
    pub meter_id: u32,
    /// Flows that use it.
    pub flow_count: u32,
    /// Packets.
    pub packet_in_count: u64,
    /// Bytes.
    pub byte_in_count: u64,
    /// Age, seconds.
    pub duration_sec: u32,
    /// Age, nanoseconds beyond.
    pub duration_nsec: u32,
    /// By band.
    pub bands: Vec<MeterBandStats>,
}

/// OFPMP_METER_FEATURES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MeterFeatures {
    /// Most meters.
    pub max_meters: u32,
    /// Bitmap of band types.
    pub band_types: u32,
    /// [`MeterFlags`].
    pub capabilities: u32,
    /// Most bands of a meter.
    pub max_bands: u8,
    /// Most colors.
    pub max_color: u8,
}

/// What a table can do with a packet that hits, or misses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TableInstrFeatures {
    /// Tables to go to: bit n of word n / 64.
    pub next: [u64; 4],
    /// Bitmap of instructions, by number of OpenFlow 1.1+.
    pub instructions: u32,
    /// With write-actions.
    pub write: TableActionFeatures,
    /// With apply-actions.
    pub apply: TableActionFeatures,
}

/// Actions and fields.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TableActionFeatures {
    /// Bitmap of `OFPAT_*` in the numbers of OpenFlow 1.3.
    pub actions: u64,
    /// Fields that can be set.
    pub set_fields: Vec<ib_flow::FieldId>,
}

/// OFPMP_TABLE_FEATURES.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TableFeatures {
    /// Table.
    pub table_id: u8,
    /// What a request of OpenFlow 1.5 does with the table: 0 replaces, 1 modifies, 2 enables, 3 disables it.
    pub command: u8,
    /// Name.
    pub name: String,
    /// Metadata bits that can be matched.
    pub metadata_match: u64,
    /// Metadata bits that can be written.
    pub metadata_write: u64,
    /// Miss configuration (1.1, 1.2).
    pub miss: TableMiss,
    /// Eviction on (1.4+).
    pub eviction: bool,
    /// Can evict (1.4+).
    pub supports_eviction: bool,
    /// Vacancy events (1.4+).
    pub supports_vacancy: bool,
    /// Flows at most.
    pub max_entries: u32,
    /// Of a hit.
    pub nonmiss: TableInstrFeatures,
    /// Of a miss.
    pub missing: TableInstrFeatures,
    /// Fields that can be matched.
    pub match_fields: Vec<ib_flow::FieldId>,
    /// ... with any mask.
    pub mask_fields: Vec<ib_flow::FieldId>,
    /// ... and left out.
    pub wildcard_fields: Vec<ib_flow::FieldId>,
}

/// OFPMP_TABLE_DESC.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TableDesc {
    /// Table.
    pub table_id: u8,
    /// Eviction on.
    pub eviction: bool,
    /// OFPTMPEF_* bits; `u32::MAX` if unknown.
    pub eviction_flags: u32,
    /// Vacancy events.
    pub vacancy: Vacancy,
}

/// Bits of [`FlowMonitorRequest::flags`].
pub struct MonitorFlags;
impl MonitorFlags {
    /// Flows that match now.
    pub const INITIAL: u16 = 1 << 0;
    /// New flows.
    pub const ADD: u16 = 1 << 1;
    /// Removed flows.
    pub const DELETE: u16 = 1 << 2;
    /// Changed flows.
    pub const MODIFY: u16 = 1 << 3;
    /// With actions.
    pub const ACTIONS: u16 = 1 << 4;
    /// Own changes in full too.
    pub const OWN: u16 = 1 << 5;
}

/// One monitor request.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowMonitorRequest {
    /// Monitor.
    pub id: u32,
    /// 0 add, 1 modify, 2 delete (1.4+).
    pub command: u8,
    /// [`MonitorFlags`].
    pub flags: u16,
    /// Only flows that output there; [`OfPort::NONE`]: any.
    pub out_port: OfPort,
    /// Only flows with that group (1.4+).
    pub out_group: u32,
    /// Table, or 255.
    pub table_id: u8,
    /// Match.
    pub match_: Match,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FlowUpdateEvent {
    /// Added.
    Added = 0,
    /// Removed.
    Removed = 1,
    /// Modified.
    Modified = 2,
    /// Present when the monitor began. Before OpenFlow 1.4 the same as added.
    Initial = 3,
}

/// One monitor update.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowUpdate {
    /// In full.
    Full {
        /// What.
        event: FlowUpdateEvent,
        /// Why, for `Removed`.
        reason: FlowRemovedReason,
        /// Match.
        match_: Box<Match>,
        /// Table.
        table_id: u8,
        /// Priority.
        priority: u16,
        /// Seconds.
        idle_timeout: u16,
        /// Seconds.
        hard_timeout: u16,
        /// Cookie.
        cookie: u64,
        /// Actions, if asked for.
        actions: Vec<Action>,
    },
    /// A change of the controller itself, by its transaction id.
    Abbrev {
        /// Transaction.
        xid: u32,
    },
    /// Initial flow (1.4+ INITIAL event).
    Paused,
    /// Resumed (1.4+).
    Resumed,
}

/// Shorthand for code that carries packet metadata beside a [`Match`].
pub type PacketMetadata = Metadata;
