//! `tap` and `internal` where the datapath is not in this process: it makes the device, we look after it by its name.
//!
//! It is there before it is opened here, and goes when the datapath's port goes. Packets never come here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};

use ib_packet::buffer::Pool;
use ib_packet::{Batch, Mac};
use ib_sys::rtnetlink;
use parking_lot::Mutex;

use crate::changes::Changes;
use crate::contract::{Carrier, Netdev, RxQueue, Speed};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::linux::qos::{self, Shaper};
use crate::linux::tap::from_the_switch;
use crate::linux::{KernelDevice, Link, Linux, vnet};
use crate::qos::Details;
use crate::registry::Provider;
use crate::stats::NetdevStats;

/// Opens devices that a datapath makes.
pub(crate) struct HostedProvider {
    pub linux: Arc<Linux>,
    pub kind: &'static str,
}

impl Provider for HostedProvider {
    fn kind(&self) -> &str {
        self.kind
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let link = Link::open(&self.linux, name, changes)?;
        let index = link.index()?;
        let (options, shaper) = (Mutex::default(), Shaper::default());
        let dev = Arc::new(Hosted { link, kind: self.kind, options, shaper });
        let weak: Weak<dyn KernelDevice> = Arc::<Hosted>::downgrade(&dev);
        self.linux.watch(name, index, weak);
        Ok(dev)
    }
}

struct Hosted {
    link: Link,
    kind: &'static str,
    options: Mutex<BTreeMap<String, String>>,
    shaper: Shaper,
}

impl KernelDevice for Hosted {
    fn on_link(&self, link: &rtnetlink::Link) {
        self.link.update(link);
    }
    fn on_gone(&self, _link: &rtnetlink::Link) {
        self.link.gone();
    }
    fn on_address(&self) {
        self.link.seq.bump();
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.link.linux.unwatch(&self.link.name);
    }
}

impl Netdev for Hosted {
    fn name(&self) -> &str {
        &self.link.name
    }
    fn kind(&self) -> &str {
        self.kind
    }
    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        self.options.lock().clone_from(options);
        Ok(())
    }
    fn config(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    fn status(&self) -> BTreeMap<String, String> {
        self.link.status()
    }
    fn tx_offloads(&self) -> &'static [&'static str] {
        vnet::TX_OFFLOADS
    }
    fn mac(&self) -> Result<Mac> {
        self.link.mac()
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        self.link.set_mac(mac)
    }
    fn mtu(&self) -> Result<u32> {
        self.link.mtu()
    }
    fn set_mtu(&self, mtu: u32) -> Result<()> {
        self.link.set_mtu(mtu)
    }
    fn flags(&self) -> Result<Flags> {
        self.link.flags()
    }
    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags> {
        self.link.update_flags(off, on)
    }
    fn ifindex(&self) -> Option<i32> {
        self.link.ifindex()
    }
    fn carrier(&self) -> Carrier {
        self.link.carrier()
    }
    fn link_speed(&self) -> Result<Speed> {
        self.link.link_speed()
    }
    fn addresses(&self) -> Result<Vec<(IpAddr, u8)>> {
        self.link.addresses()
    }
    fn set_address(&self, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
        self.link.set_address(address, prefix_len)
    }
    fn add_router(&self, router: Ipv4Addr) -> Result<()> {
        self.link.add_router(router)
    }
    fn stats(&self) -> Result<NetdevStats> {
        self.link.stats().map(|s| from_the_switch(&s))
    }
    fn change_seq(&self) -> u64 {
        self.link.seq.read()
    }
    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        Err(Error::Unsupported)
    }
    /// Nobody sends here: the datapath does.
    fn send(&self, _qid: usize, batch: &mut Batch, pool: &mut Pool) {
        batch.drain(..).for_each(|p| pool.give(p));
    }
    fn set_qos(&self, kind: &str, details: &Details) -> Result<()> {
        self.shaper.set_qos(self.link.shaped()?, kind, details)
    }
    qos::queues_of_the_kernel!();
}
