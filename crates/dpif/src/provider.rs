//! What a datapath provider implements, and what it asks of the control plane.
//!
//! Threads: every method may be called from any thread at any time. Methods may block for a system call
//! or a short lock, never for traffic. An [`UpcallHandler`] is called from the provider's own threads
//! and must not call back into port or datapath management of the same provider.

use crate::meter::{MeterConfig, MeterStats};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ib_flow::{Flow, Mask, Metadata, OdpPort};
use ib_packet::Packet;

use crate::action::Action;
use crate::dpctl::PortCounters;

/// 128-bit flow identifier: hash of key and mask, or chosen by who installs the flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ufid(pub u128);

impl fmt::Display for Ufid {
    /// As a UUID, the way that `dpctl/dump-flows -m` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Ufid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a datapath refused. Sorted by whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DpifError {
    /// The named datapath, port, flow or meter is not there (`ENOENT`/`ENODEV`).
    NotFound(String),
    /// It is there already (`EEXIST`).
    Exists(String),
    /// The request makes no sense (`EINVAL`).
    Invalid(String),
    /// This provider does not do that (`EOPNOTSUPP`).
    Unsupported(&'static str),
    /// A limit was reached (`ENOSPC`, `EFBIG`, `ENOBUFS`).
    Full(String),
    /// The operating system refused: errno and what was tried.
    Os(i32, String),
}

impl fmt::Display for DpifError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DpifError::NotFound(s)
            | DpifError::Exists(s)
            | DpifError::Invalid(s)
            | DpifError::Full(s)
            | DpifError::Os(_, s) => f.write_str(s),
            DpifError::Unsupported(s) => write!(f, "{s}: not supported by this datapath"),
        }
    }
}

impl std::error::Error for DpifError {}

impl DpifError {
    /// The errno that Open vSwitch would report.
    pub fn errno(&self) -> i32 {
        match self {
            DpifError::NotFound(_) => 2,
            DpifError::Exists(_) => 17,
            DpifError::Invalid(_) => 22,
            DpifError::Unsupported(_) => 95,
            DpifError::Full(_) => 28,
            DpifError::Os(e, _) => *e,
        }
    }
}

/// A port to add.
#[derive(Debug, Clone, Default)]
pub struct PortSpec {
    /// Device name.
    pub name: String,
    /// Datapath port type: `system`, `internal`, `tap`, `dummy`, `vxlan`, ...
    pub kind: String,
    /// Number wanted, if any; another is chosen when it is taken.
    pub number: Option<OdpPort>,
    /// Type-specific options.
    pub options: BTreeMap<String, String>,
}

/// What a port's device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortDevice {
    /// Its counters.
    pub counters: PortCounters,
    /// Its settings, by name.
    pub config: Vec<(String, String)>,
}

/// A port that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Number.
    pub number: OdpPort,
    /// Device name.
    pub name: String,
    /// Type.
    pub kind: String,
}

/// Counters of a whole datapath.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DpStats {
    /// Packets that matched a flow.
    pub hits: u64,
    /// Packets that matched none.
    pub misses: u64,
    /// Misses that found the upcall queue full.
    pub lost: u64,
    /// Flows installed.
    pub flows: u64,
    /// Masks looked at for matching; `None` if not counted.
    pub mask_hits: Option<u64>,
    /// Masks in use.
    pub masks: Option<u32>,
    /// Hits in a cache in front of the masks.
    pub cache_hits: Option<u64>,
}

/// Counters of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Clock milliseconds of the last packet; 0 never.
    pub used_ms: u64,
    /// OR of all TCP flags seen.
    pub tcp_flags: u16,
}

/// Installs or changes a flow.
#[derive(Debug, Clone)]
pub struct FlowPut<'a> {
    /// Fail if it is not there (unless `create`).
    pub modify: bool,
    /// Create if it is not there; with `modify` false an existing one is an error.
    pub create: bool,
    /// Zero its counters.
    pub zero_stats: bool,
    /// Key; bits outside of `mask` are ignored.
    pub key: &'a Flow,
    /// Bits that matter.
    pub mask: &'a Mask,
    /// Identifier; computed from key and mask if absent.
    pub ufid: Option<Ufid>,
    /// What to do.
    pub actions: Arc<[Action]>,
}

/// Names a flow to delete or read.
#[derive(Debug, Clone)]
pub struct FlowDel<'a> {
    /// By identifier, preferred.
    pub ufid: Option<Ufid>,
    /// By key (masked by the flow's own mask).
    pub key: Option<&'a Flow>,
}

/// Where a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowOrigin {
    /// In a datapath of ours.
    #[default]
    UserSpace,
    /// In the kernel.
    Kernel,
    /// In the kernel, where it has no identifier: the one that is told was computed.
    KernelNameless,
}

/// A flow as dumped.
#[derive(Debug, Clone)]
pub struct FlowInfo {
    /// Key as it was installed; only what `mask` covers matters.
    pub key: Arc<Flow>,
    /// Mask.
    pub mask: Arc<Mask>,
    /// Identifier.
    pub ufid: Ufid,
    /// Actions.
    pub actions: Arc<[Action]>,
    /// Counters.
    pub stats: FlowStats,
    /// Offloaded to hardware or to the kernel.
    pub offloaded: bool,
    /// Datapath layer: `ovs`, `tc`, `dpdk`, ...
    pub dp_layer: &'static str,
    /// Whose flow it is, which listings show.
    pub origin: FlowOrigin,
    /// Core of the PMD thread that the flow belongs to; `None`: the main thread, or threads are not told apart.
    pub core: Option<u32>,
}

/// A packet to run actions on.
pub struct Execute<'a> {
    /// The packet; the provider may consume it.
    pub packet: Packet,
    /// Its metadata, in_port included.
    pub md: &'a Metadata,
    /// What to do.
    pub actions: &'a [Action],
    /// This comes from `ofproto/trace`-like probing: no side effect outside.
    pub probe: bool,
}

/// Why a packet comes up.
#[derive(Debug)]
pub enum UpcallKind<'a> {
    /// No flow matched.
    Miss,
    /// A `userspace` action; its userdata.
    Action(&'a UserspaceData),
}

/// What a `userspace` action carries up.
#[derive(Debug, Clone, Default)]
pub struct UserspaceData {
    /// The action's userdata.
    pub userdata: Arc<[u8]>,
    /// The actions of the flow that ran, if it asked for them.
    pub actions: Option<Arc<[Action]>>,
}

/// A packet for the control plane.
pub struct Upcall<'a> {
    /// Why.
    pub kind: UpcallKind<'a>,
    /// The packet, as it was at that point.
    pub packet: &'a Packet,
    /// Its key, `in_port` a datapath port.
    pub key: &'a Flow,
    /// Identifier that the flow would get.
    pub ufid: Ufid,
    /// Clock milliseconds.
    pub now_ms: u64,
}

/// What to do with a packet that missed, and with those like it.
#[derive(Debug, Clone)]
pub struct UpcallVerdict {
    /// Actions for this packet.
    pub actions: Arc<[Action]>,
    /// The flow to install for those like it; `None`: install nothing.
    pub install: Option<Install>,
    /// Identifier for the flow, as the handler will know it.
    pub ufid: Ufid,
}

/// A flow for the packets that are like the one that missed.
#[derive(Debug, Clone)]
pub struct Install {
    /// What of the key the flow matches.
    pub mask: Mask,
    /// Its actions: the packet's own, but where each packet must see the control plane again.
    pub actions: Arc<[Action]>,
}

/// The control plane's side. Called from datapath threads, concurrently.
pub trait UpcallHandler: Send + Sync {
    /// Decides on one packet. Must not block on anything but short locks.
    ///
    /// For `Miss` the provider executes the verdict's actions on the packet and installs the flow when
    /// `install` is set. For `Action` upcalls the handler does its own work (packet-in, sampling, slow
    /// path) and the verdict's actions, if any, are executed on the packet.
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict;
    /// Called after a flow from a verdict was installed (`Ok`) or refused: lets the handler keep or
    /// forget what it remembers about the flow.
    fn installed(&self, ufid: Ufid, result: Result<(), DpifError>);
}

/// A removed flow that packets under way may still be counted under.
pub trait Departed: Send + Sync {
    /// All that it ever counted, once nothing can be added any more; `None` before. Never waits.
    fn settled(&self) -> Option<FlowStats>;
}

/// What a flow had counted when it was removed, and who will know the rest; `None`: there is no rest.
pub type LastStats = (FlowStats, Option<Box<dyn Departed>>);

/// One datapath. See the module's description for threads.
pub trait Dpif: Send + Sync {
    /// `netdev`, `system`, `dummy`.
    fn kind(&self) -> &str;
    /// Whether listings of flows say which thread's they are; the kernel's datapath has no threads.
    fn names_threads(&self) -> bool {
        self.kind() != "system"
    }
    /// Name, e.g. `ovs-netdev`.
    fn name(&self) -> &str;
    /// `kind@name`.
    fn full_name(&self) -> String {
        format!("{}@{}", self.kind(), self.name())
    }
    /// Version text for the `datapath_version` column.
    fn version(&self) -> String;
    /// Work to be done on the main loop (dummy ports are polled here). Returns whether there was any.
    fn run(&self) -> bool;
    /// Counters.
    fn stats(&self) -> DpStats;

    /// Its caches whose size can be set: names and sizes.
    fn caches(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
    }
    /// Sets the size of a cache of [`Self::caches`].
    fn cache_set_size(&self, _name: &str, _size: u32) -> Result<(), DpifError> {
        Err(DpifError::Unsupported("caches"))
    }

    /// Adds a port and starts forwarding on it. Errors name the port.
    fn port_add(&self, spec: &PortSpec) -> Result<OdpPort, DpifError>;
    /// Removes a port. Flows that mention it stay until revalidated.
    fn port_del(&self, port: OdpPort) -> Result<(), DpifError>;
    /// All ports, by number.
    fn ports(&self) -> Vec<PortInfo>;
    /// A port by name.
    fn port_by_name(&self, name: &str) -> Option<PortInfo>;
    /// What a port's device says of its configuration, for display.
    fn port_config(&self, _port: OdpPort) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    /// What a port's device counts and how it is set, for display where the device is open nowhere else.
    fn port_device(&self, _port: OdpPort) -> Option<PortDevice> {
        None
    }

    /// Installs or changes a flow.
    fn flow_put(&self, put: &FlowPut<'_>) -> Result<(), DpifError>;
    /// Removes a flow, returning its last counters, without those of packets that have found it and are under way.
    fn flow_del(&self, del: &FlowDel<'_>) -> Result<FlowStats, DpifError>;
    /// The same for who counts exactly: he asks later for what the packets under way have added, if this datapath knows.
    fn flow_retire(&self, del: &FlowDel<'_>) -> Result<LastStats, DpifError> {
        self.flow_del(del).map(|stats| (stats, None))
    }
    /// Reads a flow.
    fn flow_get(&self, get: &FlowDel<'_>) -> Result<FlowInfo, DpifError>;
    /// Visits every flow; cost O(flows), no lock held across visits that stops forwarding.
    fn flow_dump(&self, visit: &mut dyn FnMut(FlowInfo));
    /// Visits every flow's identifier and counters: what revalidation asks for again and again.
    fn flow_stats(&self, visit: &mut dyn FnMut(Ufid, FlowStats)) {
        self.flow_dump(&mut |f| visit(f.ufid, f.stats));
    }
    /// Removes every flow.
    fn flow_flush(&self);

    /// Makes or replaces a meter; its buckets start full, its counters at zero.
    fn meter_set(&self, _id: u32, _config: &MeterConfig) -> Result<(), DpifError> {
        Err(DpifError::Unsupported("meters"))
    }
    /// Counters of a meter.
    fn meter_stats(&self, _id: u32) -> Result<MeterStats, DpifError> {
        Err(DpifError::Unsupported("meters"))
    }
    /// Removes a meter; returns its last counters.
    fn meter_del(&self, _id: u32) -> Result<MeterStats, DpifError> {
        Err(DpifError::Unsupported("meters"))
    }

    /// Whether it chooses members of bonds by itself (`lb_output`).
    fn has_bonds(&self) -> bool {
        false
    }
    /// Makes or replaces a bond for `lb_output`: the ports of its buckets by the low bits of a packet's hash. They are
    /// a power of two.
    fn bond_set(&self, _id: u32, _ports: &[OdpPort]) -> Result<(), DpifError> {
        Err(DpifError::Unsupported("bonds"))
    }
    /// Bytes by bucket since the bond came.
    fn bond_bytes(&self, _id: u32) -> Result<Vec<u64>, DpifError> {
        Err(DpifError::Unsupported("bonds"))
    }
    /// Removes a bond.
    fn bond_del(&self, _id: u32) -> Result<(), DpifError> {
        Err(DpifError::Unsupported("bonds"))
    }

    /// Settings of the datapath: the `other_config` column of the Open_vSwitch table, whole. What they do not mention is default;
    /// what makes no sense is reported in the log.
    fn set_config(&self, _other_config: &BTreeMap<String, String>) {}
    /// Settings of a port: the `other_config` column of its Interface row. An error leaves the old ones in force.
    fn port_set_config(
        &self,
        _port: OdpPort,
        _other_config: &BTreeMap<String, String>,
    ) -> Result<(), DpifError> {
        Ok(())
    }

    /// Whether it makes the devices of internal ports itself, when they are added to it: they are opened after that.
    fn makes_devices(&self) -> bool {
        false
    }

    /// Whether it does `tnl_push` and `tnl_pop`: then outer headers are built here, and tunnel ports are names for packets of
    /// other ports.
    fn terminates_tunnels(&self) -> bool {
        true
    }

    /// Whether a flow like this one would be taken, found out by trying: none stays. `None`: whatever translation makes is taken.
    fn takes(&self, _flow: &FlowPut<'_>) -> Option<bool> {
        None
    }

    /// Runs actions on a packet.
    fn execute(&self, execute: Execute<'_>) -> Result<(), DpifError>;
    /// Sets who answers misses. `None` stops upcalls (misses are dropped and counted as lost).
    fn set_upcall_handler(&self, handler: Option<Arc<dyn UpcallHandler>>);
    /// Takes upcalls, a bounded number, and keeps them for a handler that follows: for a datapath that has ports already while
    /// the control plane still learns of them. What has no ports before it has a handler needs not do anything.
    fn keep_upcalls(&self) {}
    /// Whether the datapath has died with all that it had, as one in another process may.
    fn is_lost(&self) -> bool {
        false
    }
    /// Puts this on top of what has taken the place of one that is lost, made anew if need be; whether that went. It has no ports,
    /// flows, meters and bonds then unless somebody else made them, and no handler.
    fn attach_again(&self) -> bool {
        false
    }
    /// Its connection table, if it tracks connections and can be asked about them.
    fn conntrack(&self) -> Option<&dyn crate::conntrack::CtControl> {
        None
    }
    /// As [`std::any::Any`], for appctl commands that only one provider has (`dpif-netdev/*`).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A kind of datapath.
pub trait DpifClass: Send + Sync {
    /// Type name in the `datapath_type` column: `netdev`, `system`, `dummy`.
    fn kind(&self) -> &'static str;
    /// Datapaths of this kind that exist.
    fn enumerate(&self) -> Vec<String>;
    /// As [`Self::enumerate`], for providers that may not be able to tell.
    ///
    /// Errors: those of asking, such as `ENOENT` where the kernel lacks the module.
    fn try_enumerate(&self) -> Result<Vec<String>, DpifError> {
        Ok(self.enumerate())
    }
    /// Opens a datapath, creating it first when `create`.
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dpif>, DpifError>;
    /// Destroys a datapath and its ports.
    fn destroy(&self, name: &str) -> Result<(), DpifError>;
    /// Whether its datapaths' names are also other kinds': no two kinds have one of the same name. The kernel's are its own.
    fn shares_names(&self) -> bool {
        true
    }
    /// The port type to use for an interface type (`internal` → `tap` in user space).
    fn port_open_kind(&self, interface_type: &str) -> String;
}
