//! Tunnel ports as devices: a configuration and counters, no packets of their own.
//!
//! Two sorts share the type: the interface that a row asks for (`v1`), and the device that the datapath keeps for all
//! tunnels of a protocol and port (`vxlan_sys_4789`), known by its name. Neither has queues: packets come out of the
//! underlay's ports.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ib_base::vlog::module::NETDEV_VPORT;
use ib_base::vlog_warn;
use ib_netdev::changes::{Changes, DeviceSeq};
use ib_netdev::error::Result;
use ib_netdev::patch::random_mac;
use ib_netdev::stats::NetdevStats;
use ib_netdev::{Carrier, Error, Flags, Netdev, Provider, Registry, RxQueue};
use ib_packet::buffer::Pool;
use ib_packet::{Batch, Mac};
use parking_lot::Mutex;

use crate::config::{OrFlow, TunnelConfig, parse};
use crate::kind::Kind;
use crate::world::World;

/// Registers all kinds of tunnels with `registry`.
pub fn register(registry: &Registry, world: &Arc<World>) {
    for kind in Kind::all() {
        let devices = Mutex::new(Vec::new());
        registry.register(Arc::new(TunnelProvider { kind, world: Arc::clone(world), devices }));
    }
}

struct TunnelProvider {
    kind: Kind,
    world: Arc<World>,
    /// Those of this kind that are open, to see conflicts.
    devices: Mutex<Vec<Weak<Vport>>>,
}

impl Provider for TunnelProvider {
    fn kind(&self) -> &str {
        self.kind.name()
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let own = TunnelConfig::of_device(name).filter(|c| c.kind == self.kind);
        let mut devices = self.devices.lock();
        devices.retain(|d| d.strong_count() > 0);
        let vport = Arc::new(Vport {
            name: name.to_owned(),
            kind: self.kind,
            is_row: own.is_none(),
            config: Mutex::new((own.unwrap_or_else(|| TunnelConfig::new(self.kind)), BTreeMap::new())),
            mac: Mutex::new(random_mac()),
            world: Arc::clone(&self.world),
            siblings: devices.clone(),
            seq: DeviceSeq::new(changes),
        });
        devices.push(Arc::downgrade(&vport));
        if vport.is_row {
            self.world.watch(&vport);
        }
        Ok(vport)
    }
}

/// A tunnel's device.
pub struct Vport {
    name: String,
    kind: Kind,
    /// Made for a row of the database.
    is_row: bool,
    /// And the status that goes with it.
    config: Mutex<(TunnelConfig, BTreeMap<String, String>)>,
    mac: Mutex<Mac>,
    world: Arc<World>,
    siblings: Vec<Weak<Vport>>,
    seq: DeviceSeq,
}

impl Vport {
    /// Routes have changed.
    pub(crate) fn refresh_status(&self) {
        let config = self.config.lock().0.clone();
        let status = self.world.egress_status(&config);
        let mut now = self.config.lock();
        if now.1 != status {
            now.1 = status;
            drop(now);
            self.seq.bump();
        }
    }

    /// VXLAN with and without group policy can't share a port.
    fn conflicts(&self, config: &TunnelConfig) -> bool {
        self.kind == Kind::Vxlan
            && self.siblings.iter().filter_map(Weak::upgrade).any(|other| {
                let there = other.config.lock();
                other.is_row
                    && there.0.remote_ip != OrFlow::Fixed(None)
                    && there.0.dst_port == config.dst_port
                    && there.0.gbp != config.gbp
            })
    }
}

impl Netdev for Vport {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &str {
        self.kind.name()
    }
    fn is_tunnel(&self) -> bool {
        true
    }

    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let parsed = parse(&self.name, self.kind, options);
        let text = parsed.messages.join("\n");
        let config = match parsed.config {
            Ok(config) => config,
            Err(()) if text.is_empty() => {
                let name = &self.name;
                return Err(Error::Config(format!("{name}: could not set configuration (Invalid argument)")));
            }
            Err(()) => return Err(Error::Config(text)),
        };
        if self.conflicts(&config) {
            let name = &self.name;
            return Err(Error::Config(format!(
                "{name}: VXLAN-GBP, and non-VXLAN-GBP tunnels can't be configured on the same dst_port"
            )));
        }
        if !text.is_empty() {
            vlog_warn!(NETDEV_VPORT, "{text}");
        }
        let status = self.world.egress_status(&config);
        let mut now = self.config.lock();
        if *now != (config.clone(), status.clone()) {
            *now = (config, status);
            drop(now);
            self.seq.bump();
        }
        Ok(())
    }

    fn config(&self) -> BTreeMap<String, String> {
        self.config.lock().0.shown()
    }
    fn status(&self) -> BTreeMap<String, String> {
        self.config.lock().1.clone()
    }

    fn mac(&self) -> Result<Mac> {
        Ok(*self.mac.lock())
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        *self.mac.lock() = mac;
        self.seq.bump();
        Ok(())
    }
    fn mtu(&self) -> Result<u32> {
        Err(Error::Unsupported)
    }
    fn set_mtu(&self, _mtu: u32) -> Result<()> {
        Err(Error::Unsupported)
    }
    fn flags(&self) -> Result<Flags> {
        Ok(Flags::UP | Flags::PROMISC)
    }
    fn update_flags(&self, off: Flags, _on: Flags) -> Result<Flags> {
        if off.contains(Flags::UP) || off.contains(Flags::PROMISC) {
            return Err(Error::Unsupported);
        }
        Ok(Flags::UP | Flags::PROMISC)
    }
    fn ifindex(&self) -> Option<i32> {
        None
    }
    fn carrier(&self) -> Carrier {
        Carrier { up: true, resets: 0 }
    }

    fn stats(&self) -> Result<NetdevStats> {
        // Translation counts what passes, for each OpenFlow port.
        let none = Some(0);
        Ok(NetdevStats {
            rx_packets: none,
            rx_bytes: none,
            tx_packets: none,
            tx_bytes: none,
            ..NetdevStats::default()
        })
    }

    fn change_seq(&self) -> u64 {
        self.seq.read()
    }
    fn n_rxq(&self) -> usize {
        0
    }
    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        Err(Error::Unsupported)
    }
    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        batch.drain(..).for_each(|p| pool.give(p));
    }
}
