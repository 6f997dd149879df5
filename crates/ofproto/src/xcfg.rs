//! The configuration that translation reads: an immutable snapshot of all bridges on one datapath.
//!
//! The main thread builds a new [`XlateConfig`] when ports or bundles change; translations that run keep
//! the one they began with. Bridges that did not change are shared between snapshots.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_flow::{Flow, Match, OdpPort, OfPort};
use ib_openflow::message::PortConfig as PortBits;
use ib_packet::Mac;
use ib_tunnel::TunnelConfig;

use crate::bond::SharedBond;
use crate::config::{PriorityTags, VlanMode};
use crate::export::XExport;
use crate::features::Features;
use crate::lacp::SharedLacp;
use crate::monitor::Monitor;
use crate::ofproto::{BundleId, Ofproto};
use crate::rule::PushStats;
use crate::spanning_tree::StpPort;
use crate::tunnel::TunnelMap;

/// A map whose keys are the switch's own numbers, which nobody outside can choose.
pub type Quick<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// All bridges of one datapath.
#[derive(Default)]
pub struct XlateConfig {
    /// By [`Ofproto::id`].
    pub bridges: Quick<u32, Arc<XBridge>>,
    /// Which bridge's port a datapath port is.
    pub by_odp: Quick<OdpPort, (u32, OfPort)>,
    /// Tunnel ports.
    pub tunnels: TunnelMap,
    /// Patch ports by name.
    pub patches: HashMap<String, (u32, OfPort)>,
    /// Counts configurations.
    pub seq: u64,
}

impl XlateConfig {
    /// The OpenFlow side of a datapath port.
    pub fn port_by_odp(&self, odp: OdpPort) -> Option<(&Arc<XBridge>, &Arc<XPort>)> {
        let (bridge, ofport) = self.by_odp.get(&odp)?;
        let bridge = self.bridges.get(bridge)?;
        Some((bridge, bridge.ports.get(ofport)?))
    }
    /// The OpenFlow side of where a packet came in, out of a tunnel or not.
    pub fn port_of_key(&self, key: &Flow) -> Option<(&Arc<XBridge>, &Arc<XPort>)> {
        if !crate::tunnel::should_receive(key) {
            return self.port_by_odp(key.odp_in_port());
        }
        let (bridge, ofport) = crate::tunnel::receive(&self.tunnels, key)?;
        let bridge = self.bridges.get(&bridge)?;
        Some((bridge, bridge.ports.get(&ofport)?))
    }
    /// The other end of a patch port, if that points back.
    pub fn patch_peer(&self, port: &XPort) -> Option<(&Arc<XBridge>, &Arc<XPort>)> {
        let (bridge, ofport) = self.patches.get(port.peer.as_deref()?)?;
        let bridge = self.bridges.get(bridge)?;
        let peer = bridge.ports.get(ofport)?;
        (peer.peer.as_deref() == Some(&port.name)).then_some((bridge, peer))
    }
    /// A bridge by name.
    pub fn bridge_by_name(&self, name: &str) -> Option<&Arc<XBridge>> {
        self.bridges.values().find(|b| b.of.name == name)
    }
}

/// One bridge.
pub struct XBridge {
    /// Its tables and groups.
    pub of: Arc<Ofproto>,
    /// Ports by OpenFlow number, ordered: floods go in this order.
    pub ports: BTreeMap<OfPort, Arc<XPort>>,
    /// Ports in the order in which floods visit them; see [`flood_order`].
    pub flood_order: Vec<OfPort>,
    /// Bundles.
    pub bundles: BTreeMap<BundleId, Arc<XBundle>>,
    /// Mirrors; a bundle's masks count bits by this order.
    pub mirrors: Vec<Arc<XMirror>>,
    /// Forward frames for reserved addresses.
    pub forward_bpdu: bool,
    /// Spanning tree is on.
    pub has_stp: bool,
    /// In-band rules apply.
    pub has_in_band: bool,
    /// What the datapath can do.
    pub features: Arc<Features>,
    /// What is sampled and counted for collectors.
    pub export: XExport,
}

impl XBridge {
    /// The bundle of a port.
    pub fn bundle_of(&self, port: &XPort) -> Option<&Arc<XBundle>> {
        self.bundles.get(&port.bundle?)
    }
}

/// The order in which a flood visits ports. Open vSwitch walks a hash table of port numbers, so that the order of
/// datapath actions looks random but is always the same; scripts compare it. This is that table: ports
/// enter it in the order of `ports`, each at the head of its chain, and a table that doubles turns its chains
/// over.
pub fn flood_order(ports: impl Iterator<Item = OfPort>) -> Vec<OfPort> {
    ib_flow::hash::chain_order(ports, |p| ib_flow::hash::two_words(p.0.into(), 0))
}

/// Packets that translation itself moves (patch ports have no device that would count them).
#[derive(Debug, Default)]
pub struct PortCounters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

impl PortCounters {
    /// Counts reception.
    pub fn rx(&self, s: &PushStats) {
        self.rx_packets.fetch_add(s.packets, Ordering::Relaxed);
        self.rx_bytes.fetch_add(s.bytes, Ordering::Relaxed);
    }
    /// Counts transmission.
    pub fn tx(&self, s: &PushStats) {
        self.tx_packets.fetch_add(s.packets, Ordering::Relaxed);
        self.tx_bytes.fetch_add(s.bytes, Ordering::Relaxed);
    }
    /// Received packets and bytes, sent packets and bytes.
    pub fn get(&self) -> [u64; 4] {
        [&self.rx_packets, &self.rx_bytes, &self.tx_packets, &self.tx_bytes]
            .map(|c| c.load(Ordering::Relaxed))
    }
}

/// One port.
#[derive(Debug)]
pub struct XPort {
    /// Number in its bridge.
    pub ofport: OfPort,
    /// Number in the datapath; none for patch ports.
    pub odp: Option<OdpPort>,
    /// Name.
    pub name: String,
    /// Device is there but another bridge's or the type's own: `internal`, `patch`, ...
    pub kind: String,
    /// Its bundle.
    pub bundle: Option<BundleId>,
    /// `PortConfig` bits.
    pub config: u32,
    /// Patch: name of the other end.
    pub peer: Option<String>,
    /// Configuration of a tunnel.
    pub tunnel: Option<Arc<TunnelConfig>>,
    /// Ethernet address of the device.
    pub mac: Mac,
    /// Interface index of the device; 0 none.
    pub ifindex: u32,
    /// May carry traffic: link up, admin up.
    pub live: bool,
    /// Its place in the spanning tree, if it takes part.
    pub stp: Option<StpPort>,
    /// Machines that watch its link.
    pub monitor: Option<Arc<Monitor>>,
    /// Counters of patch ports.
    pub counters: Arc<PortCounters>,
}

impl XPort {
    /// Whether packets may come in by it.
    pub fn may_receive(&self) -> bool {
        self.config & PortBits::NO_RECV == 0 && self.stp.is_none_or(|s| s.state.learns())
    }
    /// Whether spanning tree lets packets pass.
    pub fn forwards(&self) -> bool {
        self.stp.is_none_or(|s| s.state.forwards())
    }
}

/// One bundle: a port, or several in a bond.
#[derive(Debug)]
pub struct XBundle {
    /// Id.
    pub id: BundleId,
    /// Name.
    pub name: String,
    /// Members.
    pub ports: Vec<OfPort>,
    /// VLAN mode.
    pub vlan_mode: VlanMode,
    /// Access or native VLAN; `None`: trunk.
    pub vlan: Option<u16>,
    /// VLANs trunked: bit per VLAN; `None`: all.
    pub trunks: Option<Box<[u64; 64]>>,
    /// Customer VLANs of dot1q-tunnel.
    pub cvlans: Option<Box<[u64; 64]>>,
    /// Outer tag of dot1q-tunnel.
    pub qinq_ethtype: u16,
    /// Priority tags.
    pub priority_tags: PriorityTags,
    /// Protected.
    pub protected: bool,
    /// Takes part in floods: no member has NO_FLOOD.
    pub floodable: bool,
    /// Bond.
    pub bond: Option<SharedBond>,
    /// LACP.
    pub lacp: Option<SharedLacp>,
    /// Mirrors that copy what comes in here.
    pub src_mirrors: u32,
    /// Mirrors that copy what leaves here.
    pub dst_mirrors: u32,
    /// Mirrors whose output this is: reserved for them.
    pub mirror_out: u32,
}

/// A VLAN set as bits.
pub fn vlan_bits(vlans: &[u16]) -> Option<Box<[u64; 64]>> {
    let mut bits: Option<Box<[u64; 64]>> = None;
    for v in vlans.iter().map(|v| usize::from(*v) & 4095) {
        bits.get_or_insert_with(|| Box::new([0; 64]))[v / 64] |= 1 << (v % 64);
    }
    bits
}

/// Whether a set (`None`: all) has a VLAN.
pub fn has_vlan(bits: Option<&[u64; 64]>, vlan: u16) -> bool {
    let v = usize::from(vlan) & 4095;
    bits.is_none_or(|b| b[v / 64] >> (v % 64) & 1 != 0)
}

impl XBundle {
    /// Whether packets of this VLAN may pass.
    pub fn trunks_vlan(&self, vlan: u16) -> bool {
        has_vlan(self.trunks.as_deref(), vlan)
    }
    /// Whether it carries packets of this VLAN, and behind that tag of this inner one (0: none).
    pub fn includes_vlan(&self, vlan: u16, inner: u16) -> bool {
        match self.vlan_mode {
            VlanMode::Access => self.vlan.unwrap_or(0) == vlan && inner == 0,
            VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged => self.trunks_vlan(vlan),
            VlanMode::Dot1qTunnel => {
                self.vlan.unwrap_or(0) == vlan && has_vlan(self.cvlans.as_deref(), inner)
            }
        }
    }
}

/// One mirror.
#[derive(Debug)]
pub struct XMirror {
    /// Name.
    pub name: String,
    /// VLANs; `None`: any.
    pub vlans: Option<Box<[u64; 64]>>,
    /// Output bundle.
    pub out: Option<BundleId>,
    /// Output VLAN.
    pub out_vlan: Option<u16>,
    /// Truncation; 0: none.
    pub snaplen: u16,
    /// Mirrors with the same output, this one included.
    pub dup_mirrors: u32,
    /// Only packets that match.
    pub filter: Option<Box<Match>>,
    /// Packets and bytes mirrored.
    pub counters: Arc<PortCounters>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_visit_ports_in_the_known_order() {
        let order: Vec<u16> = flood_order([OfPort::LOCAL].into_iter().chain((1..=12).map(OfPort)))
            .iter()
            .map(|p| p.0)
            .collect();
        assert_eq!(order, [11, 10, 8, 65534, 9, 5, 12, 1, 4, 6, 7, 2, 3]);
    }
}
