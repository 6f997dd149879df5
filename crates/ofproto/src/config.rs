//! What the bridge layer tells this crate: plain values, compared and applied by [`crate::Switch`].

pub use crate::lacp::{LacpConfig, LacpMember};
pub use ib_l2::bfd::Config as BfdConfig;
pub use ib_l2::bond::{Config as BondConfig, Mode as BondMode};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use ib_flow::OfPort;
pub use ib_l2::cfm::Config as CfmConfig;
pub use ib_l2::lldp::Config as AutoAttachConfig;
pub use ib_l2::mcast_snooping::Config as McastConfig;
pub use ib_l2::rstp::Config as RstpConfig;
pub use ib_l2::stp::Config as StpConfig;
use ib_openflow::message::{Port, Versions};
use ib_packet::Mac;

/// A port of a bridge, as the database wants it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortConfig {
    /// Name of the interface.
    pub name: String,
    /// Interface type: `system`, `internal`, `patch`, `dummy`, `vxlan`, ...
    pub kind: String,
    /// OpenFlow number wanted (`ofport_request`); [`OfPort::LOCAL`] for the bridge's own port.
    pub ofport_request: Option<OfPort>,
    /// Options of the interface's type; `peer` for patch ports.
    pub options: BTreeMap<String, String>,
    /// The device is a tunnel's end.
    pub tunnel: bool,
    /// What the device says of itself.
    pub netdev: NetdevStatus,
}

/// The machines that watch a port's link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorConfig {
    /// BFD, if wanted.
    pub bfd: Option<BfdConfig>,
    /// CFM, if wanted.
    pub cfm: Option<CfmConfig>,
    /// LLDP, if there ever was any talk of it: whether it is on.
    pub lldp: Option<bool>,
}

/// State of the device behind a port. The bridge layer passes a new one whenever it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetdevStatus {
    /// Address.
    pub mac: Mac,
    /// Administratively down.
    pub admin_down: bool,
    /// No carrier.
    pub link_down: bool,
    /// How often the carrier came or went.
    pub carrier_resets: u64,
    /// MTU in bytes, 0 unknown.
    pub mtu: u32,
    /// `NetdevFeatures` bits: current, advertised, supported, of the peer.
    pub features: [u32; 4],
    /// kb/s: current and largest.
    pub speed_kbps: [u32; 2],
    /// Interface index; 0 none.
    pub ifindex: u32,
}

/// How a port (bundle) treats VLANs; see `vlan_mode` in ovs-vswitchd.conf.db(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VlanMode {
    /// One VLAN, untagged.
    Access,
    /// VLANs tagged.
    #[default]
    Trunk,
    /// Trunk; untagged packets belong to the native VLAN, which leaves tagged.
    NativeTagged,
    /// Trunk; the native VLAN leaves untagged.
    NativeUntagged,
    /// Everything gets an outer tag.
    Dot1qTunnel,
}

/// `other_config:priority-tags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PriorityTags {
    /// Never a tag with VLAN 0.
    #[default]
    No,
    /// A tag with VLAN 0 if the priority is not zero.
    IfNonzero,
    /// Always.
    Always,
}

/// A row of the Port table: one interface, or several in a bond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BundleConfig {
    /// Name of the Port row.
    pub name: String,
    /// Its members.
    pub ports: Vec<OfPort>,
    /// VLAN mode.
    pub vlan_mode: VlanMode,
    /// Access or native VLAN.
    pub tag: Option<u16>,
    /// Trunked VLANs; empty: all.
    pub trunks: Vec<u16>,
    /// Customer VLANs of `dot1q-tunnel`; empty: all.
    pub cvlans: Vec<u16>,
    /// Ethertype of the outer tag of `dot1q-tunnel`: 0x8100 or 0x88a8.
    pub qinq_ethtype: u16,
    /// Priority tagging.
    pub priority_tags: PriorityTags,
    /// Protected ports don't talk to each other.
    pub protected: bool,
    /// `other_config:mcast-snooping-flood`: gets all IP multicast.
    pub mcast_flood: bool,
    /// `other_config:mcast-snooping-flood-reports`: gets all membership reports.
    pub mcast_flood_reports: bool,
    /// Bond settings; only for bundles of several ports.
    pub bond: Option<BondConfig>,
    /// LACP settings, if the port takes part.
    pub lacp: Option<LacpConfig>,
    /// Those of its members.
    pub lacp_members: Vec<LacpMember>,
}

/// A row of the Mirror table, references resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MirrorConfig {
    /// Name of the row.
    pub name: String,
    /// Mirror packets that come in by these bundles (names); all if `select_all`.
    pub select_src: Vec<String>,
    /// Mirror packets that leave by these bundles; all if `select_all`.
    pub select_dst: Vec<String>,
    /// Every packet.
    pub select_all: bool,
    /// Only packets in these VLANs; empty: any.
    pub select_vlans: Vec<u16>,
    /// Output bundle.
    pub output_port: Option<String>,
    /// Output VLAN.
    pub output_vlan: Option<u16>,
    /// Truncate mirrored packets to this many bytes; 0: whole.
    pub snaplen: u16,
    /// `filter` expression, a match in ovs-ofctl's syntax.
    pub filter: String,
}

/// What a bridge does without a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// Forwards like an ordinary switch.
    #[default]
    Standalone,
    /// Does nothing by itself.
    Secure,
}

/// A row of the Controller table.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerConfig {
    /// `tcp:...`, `ssl:...`, `unix:...` to connect to; `ptcp:...` and its like to listen on.
    pub target: String,
    /// Largest backoff between connection attempts, ms.
    pub max_backoff_ms: u32,
    /// Idle time before a probe, ms; 0: never.
    pub probe_interval_ms: u32,
    /// In-band control.
    pub in_band: bool,
    /// Packet-ins a second; 0: no limit.
    pub rate_limit: u32,
    /// Burst beyond it.
    pub burst_limit: u32,
    /// Packets that may wait for it in all.
    pub queue_size: u32,
    /// `type`: primary or not; by the target if `None`.
    pub is_primary: Option<bool>,
    /// Mark of what is sent to it.
    pub dscp: u8,
    /// Asynchronous messages are sent.
    pub enable_async_msgs: bool,
    /// Versions allowed; the bridge's if `None`.
    pub versions: Option<Versions>,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig {
            target: String::new(),
            max_backoff_ms: 8000,
            probe_interval_ms: 5000,
            in_band: false,
            rate_limit: 0,
            burst_limit: 0,
            queue_size: 100,
            is_primary: None,
            dscp: 48,
            enable_async_msgs: true,
            versions: None,
        }
    }
}

/// In-band control beside the controllers that want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InBandConfig {
    /// Other remotes that must be reachable: the database's managers.
    pub extra: Vec<SocketAddrV4>,
    /// `other_config:in-band-queue`.
    pub queue: Option<u32>,
}

/// A row of the Flow_Table table.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TableConfig {
    /// Name; empty: none.
    pub name: String,
    /// Most flows.
    pub flow_limit: Option<u32>,
    /// Evict instead of refusing when full.
    pub evict: bool,
    /// Subfields that group flows for fair eviction.
    pub groups: Vec<String>,
    /// Prefix fields by name; `None`: the defaults.
    pub prefixes: Option<Vec<String>>,
}

/// What is wrong with a name in [`TableConfig::prefixes`].
pub fn prefix_complaint(name: &str) -> Option<&'static str> {
    if name == "none" || ib_classifier::PrefixField::by_name(name).is_some() {
        None
    } else if ib_flow::fields::by_name(name).is_none() {
        Some("unknown")
    } else {
        Some("incompatible")
    }
}

/// Strings of the OpenFlow switch description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescConfig {
    /// Manufacturer.
    pub mfr: String,
    /// Hardware.
    pub hw: String,
    /// Software.
    pub sw: String,
    /// Serial number.
    pub serial: String,
    /// Datapath.
    pub dp: String,
}

impl Default for DescConfig {
    fn default() -> Self {
        DescConfig {
            mfr: "Nicira, Inc.".into(),
            hw: "Open vSwitch".into(),
            sw: "3.7.1".into(),
            serial: "None".into(),
            dp: "None".into(),
        }
    }
}

/// State of a controller, for its database row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerStatus {
    /// Target.
    pub target: String,
    /// Whether a connection is up.
    pub is_connected: bool,
    /// `other`, `master`, `slave`.
    pub role: &'static str,
    /// Pairs for the `status` column.
    pub status: BTreeMap<String, String>,
}

/// A port as the bridge layer reads it back.
#[derive(Clone, Debug, PartialEq)]
pub struct PortStatus {
    /// Number within datapath; `None` for patch ports.
    pub odp: Option<ib_flow::OdpPort>,
    /// OpenFlow description.
    pub description: Port,
}

/// Why something could not be configured; the text goes into the row's `error` column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No bridge or port of this name or number.
    NotFound(String),
    /// Exists already.
    Exists(String),
    /// The values make no sense.
    Invalid(String),
    /// Not done by this switch.
    Unsupported(String),
    /// The datapath refused.
    Datapath(ib_dpif::DpifError),
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::NotFound(s)
            | ConfigError::Exists(s)
            | ConfigError::Invalid(s)
            | ConfigError::Unsupported(s) => f.write_str(s),
            ConfigError::Datapath(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A row of the NetFlow table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetFlowConfig {
    /// `IP:PORT`.
    pub targets: Vec<String>,
    /// Engine type; the datapath's if `None`.
    pub engine_type: Option<u8>,
    /// Engine id; the datapath's if `None`.
    pub engine_id: Option<u8>,
    /// Seconds between reports of an active flow; 0: the default, negative: never.
    pub active_timeout_s: i64,
    /// The engine id replaces high bits of port numbers.
    pub add_id_to_interface: bool,
}

/// A row of the sFlow table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SflowConfig {
    /// `IP[:PORT]`.
    pub targets: Vec<String>,
    /// One of so many packets; 0: off.
    pub sampling: u32,
    /// Seconds between counters.
    pub polling_s: u32,
    /// Bytes of a packet in a sample.
    pub header: u32,
    /// Device or address that names the switch.
    pub agent: Option<String>,
    /// `local_ip` of the controller: the address if nothing else gives one.
    pub control_ip: Option<String>,
    /// Number among the bridges that have agents.
    pub sub_id: u32,
}

/// Rows of the IPFIX table that concern a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpfixConfig {
    /// Sampling of the whole bridge.
    pub bridge: Option<IpfixBridgeConfig>,
    /// Sampling by `sample` actions, by collector set.
    pub flows: BTreeMap<u32, IpfixExporterConfig>,
}

/// Sampling of the whole bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfixBridgeConfig {
    /// One of so many packets.
    pub sampling: u32,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Sample where packets come in.
    pub input: bool,
    /// Sample where packets leave.
    pub output: bool,
    /// Where to, and how.
    pub exporter: IpfixExporterConfig,
}

/// Settings of an exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpfixExporterConfig {
    /// `IP[:PORT]`.
    pub targets: Vec<String>,
    /// The machine's.
    pub machine: ib_export::ipfix::Config,
}
