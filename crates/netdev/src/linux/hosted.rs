//! `tap` and `internal` where the datapath is not in this process: it makes the device, we look after it by its name.
//!
//! It is there before it is opened here, and goes when the datapath's port goes. Packets never come here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ib_packet::Batch;
use ib_packet::buffer::Pool;
use ib_sys::rtnetlink;
use parking_lot::Mutex;

use crate::changes::Changes;
use crate::contract::{Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::linux::link::of_the_link;
use crate::linux::qos::{self, Shaper};
use crate::linux::tap::from_the_switch;
use crate::linux::{KernelDevice, Link, Linux};
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
    fn kind(&self) -> &str {
        self.kind
    }
    of_the_link! {
        name config set_config status tx_offloads mac set_mac mtu set_mtu flags update_flags ifindex
        carrier link_speed addresses set_address add_router change_seq
    }
    fn stats(&self) -> Result<NetdevStats> {
        self.link.stats().map(|s| from_the_switch(&s))
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
