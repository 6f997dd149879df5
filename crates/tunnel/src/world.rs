//! What a daemon knows of the networks under its tunnels: routes, neighbours, addresses of its own.
//!
//! [`World::run`] belongs to the main loop: it takes in what devices and the kernel report and lets neighbours age. Everything else
//! may be called from any thread. A change bumps [`World::changed`].
//!
//! To read the kernel's routes costs in proportion to its devices, and each device that comes is news: as long as there is no
//! tunnel the news wait until somebody asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ib_base::time::{Clock, Instant};
use ib_classifier::Classifier;
use ib_flow::{Flow, Mask, OdpPort};
use ib_netdev::{Netdev, Registry};
use ib_packet::Mac;
use ib_rcu::{Published, Version};
use parking_lot::{Mutex, RwLock};

use crate::config::{OrFlow, TunnelConfig};
use crate::device::Vport;
use crate::kernel::KernelRoutes;
use crate::kind::Kind;
use crate::neigh::Neighbours;
use crate::ports::{IpDevice, Listener, TunnelPorts};
use crate::route::{Found, Prefix, Route, Router, TABLE_MAIN, priority};
use crate::{mapped, unmapped};

/// Outer UDP source ports, lowest and highest, in one word. The whole process has one range.
static EGRESS_PORTS: AtomicU32 = AtomicU32::new(32_768 << 16 | 61_000);

/// The range that outer UDP source ports are chosen from.
pub fn egress_ports() -> (u16, u16) {
    let v = EGRESS_PORTS.load(Ordering::Relaxed);
    ((v >> 16) as u16, v as u16)
}

/// Sets it.
pub fn set_egress_ports(min: u16, max: u16) {
    EGRESS_PORTS.store(u32::from(min) << 16 | u32::from(max), Ordering::Relaxed);
}

/// See the module.
pub struct World {
    clock: Clock,
    registry: OnceLock<Weak<Registry>>,
    router: RwLock<Router>,
    neighbours: RwLock<Neighbours>,
    ports: Mutex<TunnelPorts>,
    listeners: Published<Classifier<Listener>>,
    devices: Published<Vec<IpDevice>>,
    /// Bumped by whatever may change where a tunnel's packets go.
    pub changed: Version,
    seen: Mutex<Seen>,
    vports: Mutex<Vec<Weak<Vport>>>,
}

/// What [`World::run`] has looked at.
#[derive(Default)]
struct Seen {
    /// There is news of devices or routes.
    stale: bool,
    devices: u64,
    changed: u64,
    kernel: Option<KernelRoutes>,
}

impl World {
    /// One that knows nothing.
    pub fn new(clock: &Clock) -> Arc<World> {
        Arc::new(World {
            clock: clock.clone(),
            registry: OnceLock::new(),
            router: RwLock::default(),
            neighbours: RwLock::default(),
            ports: Mutex::default(),
            listeners: Published::new(Classifier::new()),
            devices: Published::new(Vec::new()),
            changed: Version::new(),
            seen: Mutex::default(),
            vports: Mutex::default(),
        })
    }

    /// Where devices are found. Once.
    pub fn set_registry(&self, registry: &Arc<Registry>) {
        // A world keeps the devices that it was made with.
        let _ = self.registry.set(Arc::downgrade(registry));
    }

    /// From now on the kernel's routes are ours, too.
    pub fn follow_kernel(&self) {
        self.seen.lock().kernel = KernelRoutes::open().ok();
    }

    /// A descriptor that is readable when the kernel has news about routes.
    pub fn kernel_fd(&self) -> Option<std::os::fd::RawFd> {
        self.seen.lock().kernel.as_ref().map(KernelRoutes::fd)
    }

    fn device(&self, name: &str) -> Option<Arc<dyn Netdev>> {
        self.registry.get()?.upgrade()?.get(name)
    }

    /// Addresses of a device that we have open.
    pub fn addresses_of(&self, name: &str) -> Vec<(IpAddr, u8)> {
        self.device(name).and_then(|d| d.addresses().ok()).unwrap_or_default()
    }
    /// Ethernet address of a device that we have open.
    pub fn mac_of(&self, name: &str) -> Option<Mac> {
        self.device(name)?.mac().ok()
    }

    /// Takes in what changed. Cheap when nothing did.
    pub fn run(&self, now: Instant) {
        if self.neighbours.read().deadline().is_some_and(|at| at <= now)
            && self.neighbours.write().expire(now)
        {
            self.changed.bump();
        }
        self.poll();
        if self.is_used() {
            self.refresh();
        }
    }

    /// Notices news.
    fn poll(&self) {
        let mut seen = self.seen.lock();
        let devices = self.registry.get().and_then(Weak::upgrade).map_or(0, |r| r.seq());
        let kernel_news = seen.kernel.as_mut().is_some_and(KernelRoutes::poll);
        seen.stale |= kernel_news || std::mem::replace(&mut seen.devices, devices) != devices;
    }

    /// Whether anything depends on routes.
    fn is_used(&self) -> bool {
        !self.ports.lock().is_empty()
            || !self.vports.lock().is_empty()
            || self.router.read().has_user_routes()
    }

    /// Takes in the news that there is.
    fn refresh(&self) {
        let mut seen = self.seen.lock();
        let Some(registry) = self.registry.get().and_then(Weak::upgrade) else { return };
        let stale = std::mem::take(&mut seen.stale);
        if !stale && seen.changed == self.changed.get() {
            return;
        }
        if stale {
            let mut cached = dummy_routes(&registry);
            if let Some(kernel) = &mut seen.kernel {
                let (routes, rules) = kernel.read();
                cached.extend(routes);
                if let Some(rules) = rules
                    && self.router.write().set_cached_rules(rules)
                {
                    self.changed.bump();
                }
            }
            if self.router.write().set_cached(cached) {
                self.changed.bump();
            }
        }
        self.refresh_devices();
        let mut vports = self.vports.lock();
        vports.retain(|v| v.strong_count() > 0);
        vports.iter().filter_map(Weak::upgrade).for_each(|v| v.refresh_status());
        drop(vports);
        seen.changed = self.changed.get();
    }

    /// A tunnel whose way is to be kept up to date in its status.
    pub(crate) fn watch(&self, vport: &Arc<Vport>) {
        self.vports.lock().push(Arc::downgrade(vport));
    }

    /// Reads addresses of the devices that routes lead to.
    fn refresh_devices(&self) {
        let names = self.router.read().devices();
        let devices = names
            .into_iter()
            .filter_map(|name| {
                let device = self.device(&name)?;
                let addrs = device.addresses().ok()?.into_iter().map(|(ip, _)| ip).collect();
                Some(IpDevice { mac: device.mac().ok()?, addrs, name })
            })
            .collect();
        let mut ports = self.ports.lock();
        if ports.set_devices(devices) {
            self.devices.store(ports.devices().to_vec());
            self.listeners.store_arc(ports.listeners());
            self.changed.bump();
        }
    }

    /// When [`Self::run`] is due even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.neighbours.read().deadline()
    }

    // Tunnel ports.

    /// A tunnel uses this port of the datapath.
    pub fn port_added(&self, odp: OdpPort, config: &TunnelConfig) {
        let mut ports = self.ports.lock();
        ports.insert(odp, &config.device_name(), config.kind.protocols(), config.dst_port);
        self.listeners.store_arc(ports.listeners());
        self.changed.bump();
    }
    /// It does so no longer.
    pub fn port_removed(&self, odp: OdpPort) {
        let mut ports = self.ports.lock();
        ports.remove(odp);
        self.listeners.store_arc(ports.listeners());
        self.changed.bump();
    }
    /// The datapath port that terminates this packet; `wc` gets the bits that decided.
    pub fn find_port(&self, flow: &Flow, wc: &mut Mask) -> Option<OdpPort> {
        crate::ports::find(&self.listeners.peek(), flow, wc)
    }
    /// `tnl/ports/show`.
    pub fn show_ports(&self, verbose: bool) -> String {
        self.ports.lock().show(verbose)
    }

    // Routes.

    /// The route to an address, as far as the news were taken in.
    pub fn route(&self, mark: u32, dst: Ipv6Addr, src: Option<Ipv6Addr>) -> Option<Found> {
        self.router.read().lookup(mark, dst, src)
    }
    /// Reads the routes.
    pub fn with_router<R>(&self, f: impl FnOnce(&Router) -> R) -> R {
        self.poll();
        self.refresh();
        f(&self.router.read())
    }
    /// Changes the routes.
    pub fn change_router<R>(&self, f: impl FnOnce(&mut Router) -> R) -> R {
        self.poll();
        self.refresh();
        let out = f(&mut self.router.write());
        self.changed.bump();
        out
    }

    /// The address of `dev` to use as source of packets to `dst` or by `gateway`.
    pub fn source_for(&self, dev: &str, dst: Ipv6Addr, gateway: Ipv6Addr) -> Option<Ipv6Addr> {
        let addrs = self.addresses_of(dev);
        let near = |target: Ipv6Addr| {
            addrs.iter().find(|(ip, len)| Prefix::new(*ip, *len).contains(target)).map(|(ip, _)| mapped(*ip))
        };
        near(dst).or_else(|| if gateway.is_unspecified() { None } else { near(gateway) })
    }

    /// `tunnel_egress_iface` and its carrier, for the `status` column.
    pub fn egress_status(&self, config: &TunnelConfig) -> BTreeMap<String, String> {
        let OrFlow::Fixed(Some(remote)) = config.remote_ip else { return BTreeMap::new() };
        let mark = config.egress_pkt_mark.unwrap_or(0);
        let Some(found) = self.route(mark, mapped(remote), None) else { return BTreeMap::new() };
        let up = self.device(&found.dev).is_some_and(|d| d.carrier().up);
        BTreeMap::from([
            ("tunnel_egress_iface".to_owned(), found.dev),
            ("tunnel_egress_iface_carrier".to_owned(), if up { "up" } else { "down" }.to_owned()),
        ])
    }

    /// Whether a route leads to this device, and if so whether `ip` is an address of it. For datapath threads.
    pub fn is_own(&self, dev: &str, ip: IpAddr) -> Option<bool> {
        self.devices.peek().iter().find(|d| d.name == dev).map(|d| d.addrs.contains(&ip))
    }

    // Neighbours.

    /// Who has `ip` on `bridge`.
    pub fn neighbour(&self, bridge: &str, ip: Ipv6Addr) -> Option<Mac> {
        self.neighbours.read().lookup(bridge, ip, self.clock.now())
    }
    /// Learns that.
    pub fn learn_neighbour(&self, bridge: &str, ip: Ipv6Addr, mac: Mac) {
        let now = self.clock.now();
        if !self.neighbours.read().knows(bridge, ip, mac, now)
            && self.neighbours.write().set(bridge, ip, mac, now)
        {
            self.changed.bump();
        }
    }
    /// Reads the neighbours, with the time.
    pub fn read_neighbours<R>(&self, f: impl FnOnce(&Neighbours, Instant) -> R) -> R {
        f(&self.neighbours.read(), self.clock.now())
    }
    /// Reads or changes the neighbours, with the time.
    pub fn with_neighbours<R>(&self, f: impl FnOnce(&mut Neighbours, Instant) -> R) -> R {
        let out = f(&mut self.neighbours.write(), self.clock.now());
        self.changed.bump();
        out
    }
}

/// Dummies have no kernel behind them that would know their networks.
fn dummy_routes(registry: &Registry) -> Vec<Route> {
    let mut routes = Vec::new();
    for device in registry.devices().iter().filter(|d| d.as_dummy().is_some()) {
        for (ip, len) in device.addresses().unwrap_or_default() {
            let prefix = Prefix::new(ip, len);
            routes.push(Route {
                prefix,
                mark: 0,
                dev: device.name().to_owned(),
                gateway: Ipv6Addr::UNSPECIFIED,
                src: mapped(ip),
                local: true,
                user: false,
                table: TABLE_MAIN,
                priority: priority(prefix.len, false, true),
            });
        }
    }
    routes
}

/// Text of a tunnel's remote or local address in a key.
pub fn show_ip(ip: Ipv6Addr) -> String {
    unmapped(ip).to_string()
}

/// Whether translation knows how to put this kind's headers in front.
pub fn builds(kind: Kind) -> bool {
    !matches!(kind, Kind::Lisp | Kind::Stt)
}
