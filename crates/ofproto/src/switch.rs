//! All bridges of the daemon: what the bridge layer calls.
//!
//! [`Switch`] belongs to the main thread. It opens datapaths as bridges need them, keeps a [`Bridge`] for each
//! bridge, and does the periodic work in [`Switch::run`]: publishing changed configuration to translation,
//! expiring flows, sending what controllers should get, revalidating datapath flows.
//!
//! ```text
//! let mut switch = Switch::new(&clock, classes, rundir);
//! switch.bridge_add("br0", "netdev")?;
//! let br = switch.bridge_mut("br0").unwrap();
//! let p1 = br.port_add(PortConfig { name: "p1".into(), ..Default::default() })?;
//! br.bundle_set(BundleConfig { name: "p1".into(), ports: vec![p1], ..Default::default() })?;
//! loop { switch.run(clock.now()); sleep until switch.deadline(); }
//! ```
//!
//! Ports, bundles and mirrors take effect at the next `run` (or appctl command); flow tables at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::time::{Clock, Instant};
use ib_base::vlog::module::OFPROTO_DPIF;
use ib_base::{vlog_info, vlog_warn};
use ib_dpif::{Action, Dpif, DpifClass, PortSpec};
use ib_flow::{OdpPort, OfPort};
use ib_l2::{MacStats, McastSnooping};
use ib_openflow::message::{Port as PortDesc, PortReason, PortState, PortStats, QueueStats, Versions};
use ib_tunnel::{TunnelConfig, World};

use crate::backer::{Backer, Settings};
use crate::bundle::Bundles;
use crate::config::{
    BundleConfig, ConfigError, ControllerConfig, ControllerStatus, DescConfig, FailMode, InBandConfig,
    IpfixConfig, McastConfig, MirrorConfig, NetdevStatus, PortConfig, TableConfig,
};
use crate::connmgr::{ConnCommand, ConnEvent, ConnMgr};
use crate::monitor::Monitors;
use crate::ofproto::Ofproto;
use crate::port::Port;
use crate::tunnel::TunnelMatch;
use crate::upcall::Handler;
use crate::xcfg::{PortCounters, XBridge, XlateConfig};
use ib_packet::Mac;

/// Most rounds of BFD's questions and answers in one turn of the loop.
const MONITOR_ROUNDS: usize = 8;

/// Reads the counters of a device: the bridge layer provides it.
pub type PortStatsFn = Arc<dyn Fn(&str) -> Option<PortStats> + Send + Sync>;

/// Reads the queues of a device with their counters: the bridge layer provides it.
pub type PortQueuesFn = Arc<dyn Fn(&str) -> Vec<QueueStats> + Send + Sync>;

/// Finds the address of the next hop on the way from a device to a controller: the bridge layer provides it. `Ok(None)`:
/// there is a way, but nobody has asked for the neighbour's address yet.
pub type NextHopFn = Arc<dyn Fn(&str, Ipv4Addr) -> Result<Option<Mac>, String> + Send + Sync>;

/// How long a port's number rests.
const NUMBER_REST_MS: u64 = 60 * 60 * 1000;

/// Wakes the main loop, from any thread.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Brings a device up or down: the bridge layer provides it.
pub type PortAdminFn = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// All bridges. See the module's description.
pub struct Switch {
    pub(crate) clock: Clock,
    classes: Vec<Arc<dyn DpifClass>>,
    pub(crate) backers: BTreeMap<String, Arc<Backer>>,
    pub(crate) bridges: BTreeMap<String, Bridge>,
    world: Arc<World>,
    seen_world: u64,
    /// [`Self::status_seq`] that the database knows.
    seen_status: u64,
    settings: Settings,
    next_id: u32,
    port_stats: Option<PortStatsFn>,
    port_queues: Option<PortQueuesFn>,
    port_admin: Option<PortAdminFn>,
    next_hop: Option<NextHopFn>,
    waker: Option<Waker>,
    rundir: String,
    /// See [`Self::set_configuring`].
    configuring: bool,
    /// See [`Self::set_restoring`].
    restoring: bool,
    /// Ports that are moving to or from another switch.
    pub(crate) sessions: crate::transfer::Sessions,
}

/// One bridge: configuration on top of its [`Ofproto`].
pub struct Bridge {
    /// Tables, groups, learned addresses.
    pub of: Arc<Ofproto>,
    /// Its datapath.
    pub backer: Arc<Backer>,
    class: Arc<dyn DpifClass>,
    pub(crate) ports: BTreeMap<OfPort, Port>,
    pub(crate) bundles: Bundles,
    pub(crate) connmgr: ConnMgr,
    /// Datapath id.
    pub(crate) datapath_id: u64,
    pub(crate) desc: DescConfig,
    pub(crate) port_stats: Option<PortStatsFn>,
    pub(crate) port_queues: Option<PortQueuesFn>,
    pub(crate) port_admin: Option<PortAdminFn>,
    pub(crate) next_hop: Option<NextHopFn>,
    forward_bpdu: bool,
    next_port_seq: u64,
    pub(crate) stp_seq: u64,
    /// Address of the bridge.
    pub(crate) mac: Mac,
    pub(crate) lacp_seq: u64,
    /// Groups of local sampling, by collector set.
    pub(crate) local_groups: Arc<BTreeMap<u32, u32>>,
    /// The last number that was chosen for a port.
    last_ofport: OfPort,
    /// When numbers of ports became free.
    freed_ofports: BTreeMap<OfPort, Instant>,
    pub(crate) monitors: Monitors,
    /// What [`TunnelUsers::granted`](crate::tunnel::TunnelUsers::granted) said when the snapshot was built.
    tunnels_granted: u64,
    dirty: bool,
}

impl Switch {
    /// A switch without bridges. `rundir` is where management sockets go.
    pub fn new(clock: &Clock, classes: Vec<Arc<dyn DpifClass>>, rundir: &str) -> Switch {
        Switch {
            clock: clock.clone(),
            classes,
            backers: BTreeMap::new(),
            bridges: BTreeMap::new(),
            world: World::new(clock),
            seen_world: 0,
            seen_status: 0,
            settings: Settings::default(),
            next_id: 1,
            port_stats: None,
            port_queues: None,
            port_admin: None,
            next_hop: None,
            waker: None,
            rundir: rundir.to_owned(),
            configuring: false,
            restoring: false,
            sessions: Default::default(),
        }
    }

    /// Replaces what is known of networks under tunnels. Before the first bridge.
    pub fn set_world(&mut self, world: &Arc<World>) {
        self.world = Arc::clone(world);
    }
    /// The networks under tunnels, for commands and devices.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Who reads queues of devices.
    pub fn set_port_queues(&mut self, f: PortQueuesFn) {
        for b in self.bridges.values_mut() {
            b.port_queues = Some(Arc::clone(&f));
        }
        self.port_queues = Some(f);
    }

    /// Who reads device counters for OpenFlow port statistics.
    pub fn set_port_stats(&mut self, f: PortStatsFn) {
        for b in self.bridges.values_mut() {
            b.port_stats = Some(Arc::clone(&f));
        }
        self.port_stats = Some(f);
    }

    /// Who wakes the main loop when a datapath thread leaves it something to do (packets for controllers,
    /// news that call for revalidation). Called from any thread; must be cheap.
    pub fn set_waker(&mut self, waker: Waker) {
        for b in self.bridges.values() {
            b.of.set_waker(&waker);
        }
        self.waker = Some(waker);
    }

    /// Who brings devices up and down for OpenFlow's OFPPC_PORT_DOWN: called with name and "up".
    pub fn set_port_admin(&mut self, f: PortAdminFn) {
        for b in self.bridges.values_mut() {
            b.port_admin = Some(Arc::clone(&f));
        }
        self.port_admin = Some(f);
    }

    /// Who finds next hops for in-band control.
    pub fn set_next_hop(&mut self, f: NextHopFn) {
        for b in self.bridges.values_mut() {
            b.next_hop = Some(Arc::clone(&f));
        }
        self.next_hop = Some(f);
    }

    /// Applies `other_config` of Open_vSwitch.
    pub fn set_settings(&mut self, settings: Settings) {
        for b in self.backers.values() {
            b.set_settings(&settings);
        }
        self.settings = settings;
    }

    /// While the first configuration is applied, packets of ports that outlived a control plane wait: no bridge knows the ports yet.
    pub fn set_configuring(&mut self, configuring: bool) {
        self.configuring = configuring;
        if configuring || self.restoring {
            return;
        }
        for backer in self.backers.values().filter(|b| b.dpif.makes_devices()) {
            backer.dpif.set_upcall_handler(Some(Arc::new(Handler::new(backer))));
        }
    }

    /// Whether a datapath has died, and [`Self::attach_again`] is to be tried.
    pub fn has_lost_datapaths(&self) -> bool {
        self.backers.values().any(|b| b.dpif.is_lost())
    }

    /// Attaches to what has come in the place of datapaths that have died; their types. They have their meters again; ports are
    /// the caller's to make anew, flows come with the packets, which wait until [`Self::set_configuring`] ends.
    pub fn attach_again(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        for (kind, backer) in self.backers.iter().filter(|(_, b)| b.dpif.is_lost()) {
            if !backer.dpif.attach_again() {
                continue;
            }
            backer.forget_flows();
            for bridge in self.bridges.values().filter(|b| Arc::ptr_eq(&b.backer, backer)) {
                bridge.of.renew_meters(backer);
            }
            if !self.restoring {
                backer.dpif.keep_upcalls();
            }
            vlog_info!(OFPROTO_DPIF, "{}: attached to a new datapath process", backer.dpif.full_name());
            kinds.push(kind.clone());
        }
        kinds
    }

    /// While OpenFlow tables are being restored (`other_config:flow-restore-wait`) flows of datapaths are left alone, and packets
    /// that have none are dropped. It begins before there is a bridge.
    pub fn set_restoring(&mut self, restoring: bool) {
        if std::mem::replace(&mut self.restoring, restoring) == restoring || restoring {
            return;
        }
        for backer in self.backers.values() {
            backer.restoring.store(false, Ordering::Relaxed);
            backer.dpif.set_upcall_handler(Some(Arc::new(Handler::new(backer))));
        }
    }
    /// Whether OpenFlow tables are being restored.
    pub fn is_restoring(&self) -> bool {
        self.restoring
    }

    /// Removes ports of datapaths that outlived a control plane and that no bridge wants any more.
    pub fn drop_strange_ports(&self) {
        for backer in self.backers.values().filter(|b| b.dpif.makes_devices()) {
            let ours: Vec<OdpPort> = self
                .bridges
                .values()
                .filter(|b| Arc::ptr_eq(&b.backer, backer))
                .flat_map(|b| b.ports.values().filter_map(|p| p.odp))
                .collect();
            for port in backer.dpif.ports() {
                if port.number == OdpPort::LOCAL || ours.contains(&port.number) {
                    continue;
                }
                let name = backer.dpif.full_name();
                match backer.dpif.port_del(port.number) {
                    Ok(()) => {
                        vlog_info!(OFPROTO_DPIF, "{name}: removed port {}, which no bridge has", port.name)
                    }
                    Err(e) => vlog_warn!(OFPROTO_DPIF, "{name}: removing port {}: {e}", port.name),
                }
            }
        }
    }

    /// Makes a bridge with no port. Opens (and creates) the datapath `ovs-TYPE`.
    pub fn bridge_add(&mut self, name: &str, datapath_type: &str) -> Result<(), ConfigError> {
        if self.bridges.contains_key(name) {
            return Err(ConfigError::Exists(format!("bridge {name} exists")));
        }
        let kind = if datapath_type.is_empty() { "system" } else { datapath_type };
        let class = self.classes.iter().find(|c| c.kind() == kind).cloned();
        let class = class.ok_or_else(|| {
            ConfigError::Unsupported(format!("could not create datapath {name} of unknown type {kind}"))
        })?;
        let backer = match self.backers.get(kind) {
            Some(b) => Arc::clone(b),
            None => {
                let dpif = class.open(&format!("ovs-{kind}"), true).map_err(ConfigError::Datapath)?;
                let backer = Backer::new(kind, dpif, &self.clock, &self.world);
                backer.set_settings(&self.settings);
                if backer.dpif.makes_devices() {
                    backer.recirc.start_above(highest_recirc_id(&*backer.dpif));
                }
                backer.restoring.store(self.restoring, Ordering::Relaxed);
                if self.restoring {
                    // Packets are for the switch that has its tables back.
                } else if self.configuring && backer.dpif.makes_devices() {
                    backer.dpif.keep_upcalls();
                } else {
                    backer.dpif.set_upcall_handler(Some(Arc::new(Handler::new(&backer))));
                }
                self.backers.insert(kind.to_owned(), Arc::clone(&backer));
                backer
            }
        };
        let of = Ofproto::new(name, self.next_id, &self.clock, Arc::clone(&backer.changed));
        self.next_id += 1;
        if let Some(waker) = &self.waker {
            of.set_waker(waker);
        }
        let connmgr = ConnMgr::new(name, &self.rundir);
        let mut bridge = Bridge {
            of,
            backer,
            class,
            ports: BTreeMap::new(),
            bundles: Bundles::default(),
            connmgr,
            datapath_id: 0,
            desc: DescConfig::default(),
            port_stats: self.port_stats.clone(),
            port_queues: self.port_queues.clone(),
            port_admin: self.port_admin.clone(),
            next_hop: self.next_hop.clone(),
            forward_bpdu: false,
            next_port_seq: 0,
            stp_seq: 0,
            mac: Mac::ZERO,
            lacp_seq: 0,
            local_groups: Arc::default(),
            last_ofport: OfPort(0),
            freed_ofports: BTreeMap::new(),
            monitors: Monitors::default(),
            tunnels_granted: 0,
            dirty: true,
        };
        crate::connmgr::flushed(&mut bridge, self.clock.now());
        self.bridges.insert(name.to_owned(), bridge);
        Ok(())
    }

    /// Removes a bridge with its ports; with `del` datapath ports go as well (they stay for a restart
    /// otherwise). The last bridge of a datapath closes it, and destroys it if `del`.
    pub fn bridge_del(&mut self, name: &str, del: bool) -> Result<(), ConfigError> {
        let mut bridge =
            self.bridges.remove(name).ok_or_else(|| ConfigError::NotFound(format!("no bridge {name}")))?;
        // What its exporters hold is sent.
        bridge.set_ipfix(&IpfixConfig::default());
        for port in bridge.ports.values() {
            match (&port.tunnel, port.odp) {
                (Some(config), Some(odp)) if del => {
                    bridge.backer.tunnel_remove(&port.config.name, config, odp);
                }
                (None, Some(odp)) if del => {
                    // One that is gone already is gone.
                    let _ = bridge.backer.dpif.port_del(odp);
                }
                _ => {}
            }
        }
        bridge.ports.clear();
        for meter in bridge.of.meters.read().values() {
            bridge.backer.drop_meter(meter.provider_id);
        }
        let id = bridge.of.id;
        bridge.backer.xcfg.update(|old| without_bridge(old, id));
        bridge.backer.changed.bump();
        let kind = bridge.backer.kind.clone();
        if !self.bridges.values().any(|b| b.backer.kind == kind)
            && let Some(backer) = self.backers.remove(&kind)
        {
            backer.dpif.set_upcall_handler(None);
            if del {
                backer.dpif.flow_flush();
                let _ = bridge.class.destroy(&format!("ovs-{kind}"));
            }
        }
        Ok(())
    }

    /// Has every flow translated again: something that translation asks a datapath about has changed.
    pub fn revalidate_all(&self) {
        self.backers.values().for_each(|backer| backer.changed.bump());
    }

    /// Names of bridges.
    pub fn bridge_names(&self) -> Vec<String> {
        self.bridges.keys().cloned().collect()
    }
    /// A bridge.
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.get(name)
    }
    /// A bridge, to change it.
    pub fn bridge_mut(&mut self, name: &str) -> Option<&mut Bridge> {
        self.bridges.get_mut(name)
    }
    /// Adds what datapaths hold, for `memory/show`.
    pub fn memory_usage(&self, usage: &mut ib_base::memory::Usage) {
        for bridge in self.bridges.values() {
            bridge.connmgr.memory_usage(usage);
        }
        for backer in self.backers.values() {
            let settings = backer.settings.read();
            usage.add("handlers", settings.n_handlers.into());
            usage.add("revalidators", settings.n_revalidators.into());
            if !backer.ukeys.is_empty() {
                usage.add("udpif keys", backer.ukeys.len() as u64);
            }
        }
    }
    /// Datapath types on offer, sorted.
    pub fn datapath_kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.classes.iter().map(|c| c.kind().to_owned()).collect();
        kinds.sort();
        kinds
    }
    /// Datapaths in use.
    pub fn datapaths(&self) -> Vec<Arc<dyn Dpif>> {
        self.backers.values().map(|b| Arc::clone(&b.dpif)).collect()
    }

    /// Makes changed ports, bundles and mirrors visible to translation.
    pub fn publish(&mut self) {
        for b in self.bridges.values_mut() {
            b.publish();
        }
    }

    /// Takes over numbers that the datapaths have given to ports since those were added.
    pub fn refresh_port_numbers(&mut self) {
        for b in self.bridges.values_mut() {
            let dpif = Arc::clone(&b.backer.dpif);
            let mut changed = false;
            for p in b.ports.values_mut().filter(|p| p.odp.is_some()) {
                let now = dpif.port_by_name(&p.config.name).map(|info| info.number);
                changed |= now.is_some() && now != p.odp;
                p.odp = now.or(p.odp);
            }
            if changed {
                b.touch();
            }
        }
        self.publish();
    }

    /// Does all that is due.
    pub fn run(&mut self, now: Instant) {
        self.publish();
        self.run_world(now);
        for backer in self.backers.values() {
            backer.dpif.run();
            // Packets teach neighbours; those behind them in the queue are for the next turn.
            if backer.revalidate_if_due(now) {
                for b in self.bridges.values_mut().filter(|b| Arc::ptr_eq(&b.backer, backer)) {
                    b.of.expire(now);
                    b.rebalance_bonds(now);
                }
            }
        }
        // A packet makes the other end answer, which may be a bridge here.
        for _ in 0..MONITOR_ROUNDS {
            let mut was_any = false;
            let awake = self.wakes_monitors(now);
            for b in self.bridges.values_mut() {
                was_any |= b.run_monitors(awake, now);
            }
            if !was_any {
                break;
            }
        }
        for b in self.bridges.values_mut() {
            b.run(now);
        }
    }

    /// Whether ports with new machines have their turn: there are no others, or one is due.
    fn wakes_monitors(&self, now: Instant) -> bool {
        let mut due = self.bridges.values().filter_map(|b| b.monitors_due(now)).peekable();
        due.peek().is_none() || due.any(|is_due| is_due)
    }

    /// What of spanning trees and LACP was news so far.
    fn status_seq(&self) -> u64 {
        self.bridges.values().fold(0, |sum, b| sum.wrapping_add(b.stp_seq).wrapping_add(b.lacp_seq))
    }
    /// Whether the database should hear of a port before its counters are due.
    pub fn has_status_news(&self) -> bool {
        self.bridges.values().any(Bridge::has_monitor_changes) || self.status_seq() != self.seen_status
    }
    /// The database is about to hear of it.
    pub fn status_told(&mut self) {
        self.seen_status = self.status_seq();
    }

    /// Takes in what changed under tunnels; flows are then looked at again.
    pub fn run_world(&mut self, now: Instant) {
        self.world.run(now);
        let seen = self.world.changed.get();
        if std::mem::replace(&mut self.seen_world, seen) != seen {
            for backer in self.backers.values() {
                backer.changed.bump();
            }
        }
    }

    /// When [`Self::run`] is next needed even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let backers = self.backers.values().filter_map(|b| b.revalidate_deadline());
        let bridges = self.bridges.values().filter_map(|b| b.deadline());
        let configured = self.bridges.values().any(Bridge::has_configured_monitors);
        let first = (configured && self.wakes_monitors(Instant::ZERO)).then_some(Instant::ZERO);
        backers.chain(bridges).chain(self.world.deadline()).chain(first).min()
    }

    /// What the owner of sockets should do, in order. Empty this after each [`Self::run`] and
    /// [`Self::conn_event`].
    pub fn take_conn_commands(&mut self) -> Vec<ConnCommand> {
        self.bridges.values_mut().flat_map(|b| b.connmgr.take_commands()).collect()
    }
    /// Tells what happened to a socket of a bridge.
    pub fn conn_event(&mut self, bridge: &str, event: ConnEvent<'_>, now: Instant) {
        self.publish();
        if let Some(b) = self.bridges.get_mut(bridge) {
            crate::connmgr::handle_event(b, event, now);
            // A packet that comes in the same turn behind the end of a connection is none of its.
            b.of.want_misses(b.connmgr.wants_misses());
        }
    }
}

impl Switch {
    /// Changes whenever [`Self::patch_ports`] may.
    pub fn patches_seq(&self) -> u64 {
        self.backers.values().map(|b| b.xcfg.peek().seq).sum()
    }

    /// All patch ports: bridge, name, and what is wrong if no packet gets through.
    pub fn patch_ports(&self) -> Vec<(String, String, Option<String>)> {
        let mut out = Vec::new();
        for backer in self.backers.values() {
            let cfg = backer.xcfg.load();
            for (name, (bridge, ofport)) in &cfg.patches {
                let Some(bridge) = cfg.bridges.get(bridge) else { continue };
                let Some(port) = bridge.ports.get(ofport) else { continue };
                let peer = port.peer.as_deref().unwrap_or_default();
                let why = cfg
                    .patch_peer(port)
                    .is_none()
                    .then(|| format!("No usable peer '{peer}' exists in '{}' datapath.", backer.kind));
                out.push((bridge.of.name.clone(), name.clone(), why));
            }
        }
        out
    }
}

/// The configuration of a tunnel port; `None` for others. Whoever made the device saw to the options being sound.
fn tunnel_config(config: &PortConfig) -> Option<Arc<TunnelConfig>> {
    if !config.tunnel {
        return None;
    }
    let kind = ib_tunnel::Kind::by_name(&config.kind)?;
    ib_tunnel::config::parse(&config.name, kind, &config.options).config.ok().map(Arc::new)
}

/// A snapshot without one bridge.
fn without_bridge(old: &XlateConfig, id: u32) -> XlateConfig {
    XlateConfig {
        seq: old.seq + 1,
        bridges: old.bridges.iter().filter(|(k, _)| **k != id).map(|(k, b)| (*k, Arc::clone(b))).collect(),
        by_odp: old.by_odp.iter().filter(|(_, v)| v.0 != id).map(|(k, v)| (*k, *v)).collect(),
        tunnels: old.tunnels.iter().filter(|(_, v)| v.0 != id).map(|(k, v)| (*k, *v)).collect(),
        patches: old.patches.iter().filter(|(_, v)| v.0 != id).map(|(k, v)| (k.clone(), *v)).collect(),
    }
}

impl Bridge {
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// The kind under which the datapath opens the device of an interface type (`internal` → `tap` in
    /// user space): who opens the same device must ask for the same kind.
    pub fn device_kind(&self, interface_type: &str) -> String {
        self.class.port_open_kind(interface_type)
    }

    /// Sets the datapath id.
    pub fn set_datapath_id(&mut self, id: u64) {
        if self.datapath_id != id {
            self.datapath_id = id;
            self.connmgr.reconnect_all(self.of.clock.now());
        }
    }
    /// Sets the strings of the switch description.
    pub fn set_desc(&mut self, desc: DescConfig) {
        self.desc = desc;
    }
    /// Sets what happens without controllers.
    pub fn set_fail_mode(&mut self, mode: FailMode) {
        let now = self.of.clock.now();
        crate::connmgr::set_fail_mode(self, mode, now);
    }
    /// Sets the OpenFlow versions that controllers may speak.
    pub fn set_versions(&mut self, versions: Versions) {
        let now = self.of.clock.now();
        crate::connmgr::set_versions(self, versions, now);
    }
    /// While held, controllers are not connected to.
    pub fn hold_controllers(&mut self, held: bool) {
        self.connmgr.held = held;
    }
    /// Sets the controllers, replacing those before; ones that stay keep their connections.
    pub fn set_controllers(&mut self, controllers: &[ControllerConfig]) {
        let now = self.of.clock.now();
        crate::connmgr::set_controllers(self, controllers, now);
    }
    /// Sets what in-band control has to know beside the controllers; see [`InBandConfig`].
    pub fn set_in_band(&mut self, config: InBandConfig) {
        self.connmgr.in_band.config = config;
    }
    /// State of the controllers.
    pub fn controllers(&self, now: Instant) -> Vec<ControllerStatus> {
        self.connmgr.status(now)
    }
    /// A number for a connection that a listener accepted.
    pub fn new_conn_id(&mut self) -> crate::connmgr::ConnId {
        self.connmgr.new_conn_id()
    }
    /// Whether a primary controller is connected (for the bridge's `status`).
    pub fn is_alive(&self) -> bool {
        self.connmgr.is_any_controller_connected()
    }
    /// Drops connections to controllers, which then connect anew (`bridge/reconnect`).
    pub fn reconnect(&mut self) {
        self.connmgr.reconnect_all(self.of.clock.now());
    }
    /// Limits of learned addresses: idle time and number.
    pub fn set_mac_table(&mut self, idle_secs: u32, max_entries: usize) {
        let mut ml = self.of.ml.write();
        ml.set_idle_secs(idle_secs);
        ml.set_max_entries(max_entries);
    }
    /// VLANs in which nothing is learned.
    pub fn set_flood_vlans(&mut self, vlans: &[u16]) {
        if self.of.ml.write().set_flood_vlans(vlans) {
            self.of.ml.write().flush();
            self.of.changed.bump();
        }
    }
    /// Number of addresses and counters of learning.
    pub fn mac_stats(&self) -> (usize, MacStats) {
        let ml = self.of.ml.read();
        (ml.len(), ml.stats())
    }
    /// Whether frames for reserved addresses are forwarded.
    pub fn set_forward_bpdu(&mut self, on: bool) {
        if self.forward_bpdu != on {
            self.forward_bpdu = on;
            self.touch();
        }
    }
    /// Turns multicast snooping on (with these settings) or off.
    pub fn set_mcast_snooping(&mut self, config: Option<McastConfig>) {
        let mut table = self.of.mcast.write();
        let news = match (table.as_mut(), config) {
            (Some(t), Some(c)) => t.configure(c),
            (None, None) => false,
            (_, c) => {
                *table = c.map(McastSnooping::new);
                true
            }
        };
        drop(table);
        if news {
            self.of.changed.bump();
            self.touch();
        }
    }
    /// Configures a flow table.
    pub fn set_table(&mut self, table: u8, config: &TableConfig) {
        self.of.set_table_config(table, config, self.of.clock.now());
    }

    /// Has the datapath make the device of an internal port, if that is its business; before the device is opened.
    pub fn make_device(&self, name: &str, kind: &str) -> Result<(), ConfigError> {
        let dpif = &self.backer.dpif;
        if !dpif.makes_devices() || !matches!(kind, "internal" | "tap") || dpif.port_by_name(name).is_some() {
            return Ok(());
        }
        let (name, kind) = (name.to_owned(), self.class.port_open_kind(kind));
        let spec = PortSpec { name, kind, ..PortSpec::default() };
        dpif.port_add(&spec).map(|_| ()).map_err(ConfigError::Datapath)
    }

    /// Adds a port, to the datapath as well unless it is a patch port. The number is the one asked for if
    /// that is free, else the lowest one that was not used lately.
    pub fn port_add(&mut self, config: PortConfig) -> Result<OfPort, ConfigError> {
        if self.ports.values().any(|p| p.config.name == config.name) {
            return Err(ConfigError::Exists(format!("port {} exists", config.name)));
        }
        let local = config.name == self.of.name;
        let tunnel = tunnel_config(&config);
        let (odp, dpif_kind) = if config.kind == "patch" {
            (None, "patch".to_owned())
        } else if let Some(tunnel) = &tunnel {
            let odp = self.backer.tunnel_add(&config.name, tunnel);
            let odp = odp.inspect_err(|e| crate::tunnel::log_refused(&self.of.name, &config.name, e))?;
            (Some(odp), config.kind.clone())
        } else {
            let kind = self.class.port_open_kind(&config.kind);
            let spec = PortSpec {
                name: config.name.clone(),
                kind: kind.clone(),
                number: None,
                options: config.options.clone(),
            };
            let odp = match self.backer.dpif.port_by_name(&config.name) {
                Some(info) => info.number,
                None => self.backer.dpif.port_add(&spec).map_err(ConfigError::Datapath)?,
            };
            (Some(odp), kind)
        };
        let free = |p: OfPort| p.0 != 0 && !self.ports.contains_key(&p);
        let ofport = if local {
            OfPort::LOCAL
        } else if let Some(asked) = config.ofport_request.filter(|p| *p < OfPort::MAX && free(*p)) {
            asked
        } else {
            let chosen = self
                .choose_ofport(free)
                .ok_or_else(|| ConfigError::Invalid(format!("no more port numbers on {}", self.of.name)))?;
            self.last_ofport = chosen;
            chosen
        };
        let mut port = Port {
            ofport,
            odp,
            tunnel,
            dpif_kind,
            config_bits: 0,
            created: self.of.clock.now(),
            seq: self.next_port_seq,
            counters: Arc::new(PortCounters::default()),
            stp: None,
            lacp: None,
            monitor: None,
            monitor_agrees: true,
            seen_resets: config.netdev.carrier_resets,
            config: PortConfig { netdev: NetdevStatus::default(), ..config.clone() },
        };
        port.set_netdev(config.netdev);
        // A port is found to be live once it is there.
        let desc = port.description();
        let state = desc.state & !PortState::LIVE;
        self.connmgr.send_port_status(PortReason::Add, PortDesc { state, ..desc.clone() });
        if desc.state != state {
            self.connmgr.send_port_status(PortReason::Modify, desc);
        }
        self.ports.insert(ofport, port);
        self.next_port_seq += 1;
        self.touch();
        Ok(ofport)
    }

    /// The next number after the last one chosen that nobody has, nor had within the hour: who still sends to a port
    /// that went must not hit another. If there is none, the one that is free for longest.
    fn choose_ofport(&self, free: impl Fn(OfPort) -> bool) -> Option<OfPort> {
        let now = self.of.clock.now();
        let first = self.last_ofport.0 + 1;
        let candidates =
            || (first..OfPort::MAX.0).chain(1..first.min(OfPort::MAX.0)).map(OfPort).filter(|p| free(*p));
        let rested = |p: &OfPort| self.freed_ofports.get(p).is_none_or(|at| at.plus_ms(NUMBER_REST_MS) < now);
        candidates().find(rested).or_else(|| candidates().min_by_key(|p| self.freed_ofports.get(p).copied()))
    }

    /// Removes a port. Its bundle loses it.
    pub fn port_del(&mut self, port: OfPort) -> Result<(), ConfigError> {
        let port =
            self.ports.remove(&port).ok_or_else(|| ConfigError::NotFound(format!("no port {}", port.0)))?;
        if let (Some(port), Some(stp)) = (port.stp.filter(|s| !s.rapid), self.of.stp.lock().as_mut()) {
            stp.disable(port.number, self.of.clock.now());
        }
        if let Some(rstp) = self.of.rstp.lock().as_mut() {
            rstp.remove_port(port.ofport.0);
        }
        self.freed_ofports.insert(port.ofport, self.of.clock.now());
        self.forget_monitor(port.ofport);
        self.connmgr.send_port_status(PortReason::Delete, port.description());
        self.touch();
        match (&port.tunnel, port.odp) {
            (Some(config), Some(odp)) => {
                self.backer.tunnel_remove(&port.config.name, config, odp);
                Ok(())
            }
            (None, Some(odp)) => self.backer.dpif.port_del(odp).map_err(ConfigError::Datapath),
            _ => Ok(()),
        }
    }

    /// Tells the state of a port's device; controllers hear of changes.
    pub fn port_netdev(&mut self, port: OfPort, status: NetdevStatus) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        if p.config.netdev == status {
            return;
        }
        let (old_ifindex, status_ifindex) = (p.config.netdev.ifindex, status.ifindex);
        let before = p.description();
        let changed = p.set_netdev(status);
        let desc = p.description();
        let up = !p.config.netdev.link_down;
        self.rstp_link(port, up);
        if changed {
            // One that dies is first of all not live any more.
            let died = before.state & !desc.state & PortState::LIVE != 0;
            let state = before.state & !PortState::LIVE;
            if died && before.config != desc.config {
                self.connmgr.send_port_status(PortReason::Modify, PortDesc { state, ..before });
            }
            self.connmgr.send_port_status(PortReason::Modify, desc);
        }
        if changed || old_ifindex != status_ifindex {
            self.touch();
        }
    }

    /// Changes a port's options (patch peer, for instance); type and name can't change.
    pub fn port_options(&mut self, port: OfPort, options: BTreeMap<String, String>) {
        if let Some(p) = self.ports.get_mut(&port)
            && p.config.options != options
        {
            p.config.options = options;
            if let (Some(new), Some(old)) = (tunnel_config(&p.config), p.tunnel.clone())
                && (*new != *old || p.odp.is_none())
            {
                // Without a port of the datapath it has no packets, but its number.
                p.odp = self.backer.tunnel_change(&p.config.name, &old, p.odp, &new).ok();
                p.tunnel = Some(new);
            }
            self.touch();
        }
    }

    /// Ports by number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }
    /// A port by name.
    pub fn port_by_name(&self, name: &str) -> Option<&Port> {
        self.ports.values().find(|p| p.config.name == name)
    }
    /// Counters of a patch port or tunnel (others have them in their devices): received packets and bytes, sent ones.
    pub fn patch_stats(&self, port: OfPort) -> Option<[u64; 4]> {
        self.ports.get(&port).filter(|p| p.is_patch() || p.tunnel.is_some()).map(|p| p.counters.get())
    }

    /// Adds or changes a bundle (a row of the Port table).
    pub fn bundle_set(&mut self, config: BundleConfig) -> Result<(), ConfigError> {
        let name = config.name.clone();
        let vlans = self.bundles.bundles.get(&name).map(|(_, old)| vlans_of(old));
        if self.bundles.set(config)? {
            if let Some((id, new)) = self.bundles.bundles.get(&name) {
                if vlans.is_some_and(|old| old != vlans_of(new)) {
                    // What was learned there was learned of other VLANs.
                    self.of.forget_behind(*id);
                }
                self.of.bundle_came(*id);
            }
            self.touch();
        }
        Ok(())
    }
    /// Removes a bundle; what was learned behind it is forgotten.
    pub fn bundle_del(&mut self, name: &str) {
        self.drop_bond(name);
        if let Some(id) = self.bundles.remove(name) {
            self.of.bundle_went(id);
            self.touch();
        }
    }
    /// Names of bundles.
    pub fn bundle_names(&self) -> Vec<String> {
        self.bundles.bundles.keys().cloned().collect()
    }
    /// Adds or changes a mirror.
    pub fn mirror_set(&mut self, config: MirrorConfig) -> Result<(), ConfigError> {
        if self.bundles.mirrors.len() >= 32 && !self.bundles.mirrors.contains_key(&config.name) {
            return Err(ConfigError::Invalid(format!(
                "bridge {}: maximum of 32 port mirrors reached, cannot create {}",
                self.of.name, config.name
            )));
        }
        if let Err(e) = crate::bundle::parse_filter(&config.filter) {
            self.mirror_del(&config.name);
            return Err(ConfigError::Invalid(format!("filter is invalid: {e}")));
        }
        let name = config.name.clone();
        match self.bundles.mirrors.get_mut(&name) {
            Some((old, _)) if *old == config => return Ok(()),
            Some((old, _)) => *old = config,
            None => {
                self.bundles.mirrors.insert(name, (config, Arc::default()));
            }
        }
        self.touch();
        Ok(())
    }
    /// Removes a mirror.
    pub fn mirror_del(&mut self, name: &str) {
        if self.bundles.mirrors.remove(name).is_some() {
            self.touch();
        }
    }
    /// Packets and bytes that a mirror copied.
    pub fn mirror_stats(&self, name: &str) -> Option<(u64, u64)> {
        let [_, _, packets, bytes] = self.bundles.mirrors.get(name)?.1.get();
        Some((packets, bytes))
    }

    /// Builds this bridge's part of the snapshot if something changed.
    pub(crate) fn publish(&mut self) {
        let granted = self.backer.tunnels.lock().granted();
        self.dirty |= std::mem::replace(&mut self.tunnels_granted, granted) != granted;
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.configure_lacp();
        self.configure_bonds();
        let (bundles, mirrors) = self.bundles.publish(&self.ports);
        if let Some(table) = self.of.mcast.write().as_mut() {
            let flagged = |f: fn(&BundleConfig) -> bool| {
                let mut ids: Vec<_> =
                    self.bundles.bundles.values().filter(|(_, b)| f(b)).map(|(id, _)| *id).collect();
                ids.sort_unstable();
                ids
            };
            table.set_flagged(flagged(|b| b.mcast_flood), flagged(|b| b.mcast_flood_reports));
        }
        let bundled: Vec<OfPort> = bundles.values().flat_map(|b| b.ports.iter().copied()).collect();
        let owners = self.bundles.owners();
        let users = self.backer.tunnels.lock();
        let ports: BTreeMap<_, _> =
            self.ports.iter().map(|(n, p)| (*n, p.publish(owners.get(n).copied(), &users))).collect();
        drop(users);
        let loose = ports.keys().copied().filter(|p| !owners.contains_key(p));
        let in_bundles = bundled.iter().copied().filter(|p| ports.contains_key(p));
        let flood_order = crate::xcfg::flood_order(in_bundles.chain(loose));
        let bridge = Arc::new(XBridge {
            of: Arc::clone(&self.of),
            flood_order,
            bundles,
            mirrors,
            forward_bpdu: self.forward_bpdu,
            has_stp: self.of.stp.lock().is_some() || self.of.rstp.lock().is_some(),
            has_in_band: self.connmgr.in_band.is_active(),
            features: self.backer.features(),
            export: self.xexport(),
            ports,
        });
        let id = self.of.id;
        self.backer.xcfg.update(|old| {
            let mut cfg = without_bridge(old, id);
            for p in bridge.ports.values() {
                if let (Some(odp), Some(config)) = (p.odp, &p.tunnel) {
                    cfg.tunnels.insert(TunnelMatch::of(config, odp), (id, p.ofport));
                } else if let Some(odp) = p.odp {
                    cfg.by_odp.insert(odp, (id, p.ofport));
                }
                if p.peer.is_some() {
                    cfg.patches.insert(p.name.clone(), (id, p.ofport));
                }
            }
            cfg.bridges.insert(id, Arc::clone(&bridge));
            cfg
        });
        self.backer.changed.bump();
    }
    /// The snapshot must be built again.
    pub(crate) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    fn run(&mut self, now: Instant) {
        let forgotten = self.of.ml.write().run(now);
        self.of.addresses_changed(&forgotten);
        if self.of.mcast.write().as_mut().is_some_and(|t| t.run(now)) {
            self.of.changed.bump();
        }
        self.run_lacp(now);
        self.publish();
        self.run_bonds(now);
        self.run_stp(now);
        self.run_export(now);
        self.run_rstp(now);
        self.of.collect_garbage();
        crate::connmgr::run(self, now);
        self.of.want_misses(self.connmgr.wants_misses());
    }

    fn deadline(&self) -> Option<Instant> {
        let ml = self.of.ml.read().deadline();
        let mcast = self.of.mcast.read().as_ref().and_then(|t| t.deadline(self.of.clock.now()));
        let soon = (self.of.has_packet_ins() || self.dirty).then_some(Instant::ZERO);
        ml.into_iter()
            .chain(mcast)
            .chain(self.stp_deadline())
            .chain(self.lacp_deadline())
            .chain(self.rstp_deadline())
            .chain(self.monitors_deadline())
            .chain(self.bonds_deadline())
            .chain(self.export_deadline())
            .chain(soon)
            .chain(self.connmgr.deadline())
            .min()
    }
}
/// The highest recirculation id that the flows of a datapath use.
/// What of a bundle decides which VLANs its packets are of.
fn vlans_of(b: &BundleConfig) -> impl PartialEq + use<> {
    let lists = (b.trunks.clone(), b.cvlans.clone());
    (b.vlan_mode, b.tag, lists, b.qinq_ethtype, b.priority_tags)
}

fn highest_recirc_id(dpif: &dyn Dpif) -> u32 {
    fn of(actions: &[Action]) -> u32 {
        let each = |action: &Action| match action {
            Action::Recirc(id) => *id,
            Action::Clone(inner)
            | Action::Sample { actions: inner, .. }
            | Action::DecTtl { exception: inner } => of(inner),
            Action::CheckPktLen { greater, less_or_equal, .. } => of(greater).max(of(less_or_equal)),
            _ => 0,
        };
        actions.iter().map(each).max().unwrap_or(0)
    }
    let mut highest = 0;
    dpif.flow_dump(&mut |flow| highest = highest.max(flow.key.recirc_id).max(of(&flow.actions)));
    highest
}
