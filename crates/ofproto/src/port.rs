//! Ports of a bridge as the main thread keeps them: configuration, OpenFlow bits, numbers.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::{OdpPort, OfPort};
use ib_l2::stp::State;
use ib_openflow::message::{Port as PortDesc, PortConfig as PortBits, PortState};

use ib_tunnel::TunnelConfig;

use crate::config::{NetdevStatus, PortConfig};
use crate::monitor::Monitor;
use crate::ofproto::BundleId;
use crate::spanning_tree::StpPort;
use crate::tunnel::TunnelUsers;
use crate::xcfg::{PortCounters, XPort};

/// One port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Number.
    pub ofport: OfPort,
    /// Number in the datapath; none for patch ports.
    pub odp: Option<OdpPort>,
    /// Configuration of a tunnel.
    pub tunnel: Option<Arc<TunnelConfig>>,
    /// Datapath port type, as `dpif/show` prints it.
    pub dpif_kind: String,
    /// Configuration.
    pub config: PortConfig,
    /// `PortConfig` bits.
    pub config_bits: u32,
    /// When it was added.
    pub created: Instant,
    /// Order of addition.
    pub seq: u64,
    /// Counters of patch ports.
    pub counters: Arc<PortCounters>,
    /// Its place in the spanning tree, if it takes part.
    pub stp: Option<StpPort>,
    /// Whether LACP lets it carry traffic; `None`: it has none.
    pub lacp: Option<bool>,
    /// Machines that watch its link.
    pub(crate) monitor: Option<Arc<Monitor>>,
    /// They find it usable.
    pub(crate) monitor_agrees: bool,
    /// [`NetdevStatus::carrier_resets`] that LACP has heard of.
    pub(crate) seen_resets: u64,
}

impl Port {
    /// A patch port: it leads to another one instead of a device.
    pub fn is_patch(&self) -> bool {
        self.config.kind == "patch"
    }
    /// A tunnel or device of packets without Ethernet header: no place for frames that nobody sent there.
    pub fn is_legacy_l3(&self) -> bool {
        self.config.kind == "tun"
            || self.tunnel.as_ref().is_some_and(|t| t.mode == ib_tunnel::PacketTypeMode::LegacyL3)
    }
    /// Whether its link is up.
    pub fn has_carrier(&self) -> bool {
        !self.config.netdev.link_down && self.config_bits & PortBits::PORT_DOWN == 0
    }
    /// Whether it can carry traffic: the link is up, and those who watch it agree. A bond's member is enabled by this.
    pub fn is_live(&self) -> bool {
        self.has_carrier() && self.lacp.unwrap_or(true) && self.monitor_agrees
    }
    /// Takes over what the device says. Returns whether controllers should hear of it.
    pub fn set_netdev(&mut self, status: NetdevStatus) -> bool {
        let before = self.description();
        self.config.netdev = status;
        if self.config.netdev.admin_down {
            self.config_bits |= PortBits::PORT_DOWN;
        } else {
            self.config_bits &= !PortBits::PORT_DOWN;
        }
        before != self.description()
    }
    /// As controllers see it.
    pub fn description(&self) -> PortDesc {
        let n = &self.config.netdev;
        let mut state = 0;
        if n.link_down {
            state |= PortState::LINK_DOWN;
        }
        state |= match self.stp.map(|s| s.state) {
            Some(State::Listening) => PortState::STP_LISTEN,
            Some(State::Learning) => PortState::STP_LEARN,
            Some(State::Forwarding) => PortState::STP_FORWARD,
            Some(State::Blocking) => PortState::STP_BLOCK,
            Some(State::Disabled) | None => 0,
        };
        if self.is_live() {
            state |= PortState::LIVE;
        }
        PortDesc {
            port_no: self.ofport,
            hw_addr: n.mac,
            hw_addr64: [0; 8],
            name: self.config.name.clone(),
            config: self.config_bits,
            state,
            curr: n.features[0],
            advertised: n.features[1],
            supported: n.features[2],
            peer: n.features[3],
            curr_speed_kbps: n.speed_kbps[0],
            max_speed_kbps: n.speed_kbps[1],
        }
    }
    /// The datapath's port, but of a tunnel whose packets are another's.
    pub(crate) fn odp_in_use(&self, users: &TunnelUsers) -> Option<OdpPort> {
        let owns =
            |odp: &OdpPort| self.tunnel.as_ref().is_none_or(|t| users.owns(&self.config.name, t, *odp));
        self.odp.filter(owns)
    }

    /// The translation-side form.
    pub(crate) fn publish(&self, bundle: Option<BundleId>, users: &TunnelUsers) -> Arc<XPort> {
        let peer = if self.is_patch() { self.config.options.get("peer").cloned() } else { None };
        Arc::new(XPort {
            ofport: self.ofport,
            odp: self.odp_in_use(users),
            name: self.config.name.clone(),
            kind: self.config.kind.clone(),
            bundle,
            config: self.config_bits,
            peer,
            tunnel: self.tunnel.clone(),
            mac: self.config.netdev.mac,
            ifindex: self.config.netdev.ifindex,
            live: self.is_live(),
            stp: self.stp,
            monitor: self.monitor.clone(),
            counters: Arc::clone(&self.counters),
        })
    }
}
