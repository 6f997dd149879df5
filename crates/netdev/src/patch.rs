//! Patch ports: a name and a peer, no packets.
//!
//! Translation crosses to the peer's bridge by itself; the datapath never sees these ports, so they have no
//! queues and drop what they are sent. Their counters are told them ([`Netdev::inc_rx`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_packet::buffer::Pool;
use ib_packet::{Batch, Mac};
use parking_lot::Mutex;

use crate::changes::{Changes, DeviceSeq};
use crate::contract::{Carrier, Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::registry::Provider;
use crate::stats::{DropCounters, DropReason, NetdevStats};

/// Makes patch ports.
pub struct PatchProvider;

impl Provider for PatchProvider {
    fn kind(&self) -> &str {
        "patch"
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        Ok(Arc::new(Patch {
            name: name.to_owned(),
            mac: Mutex::new(random_mac()),
            peer: Mutex::new(None),
            seq: DeviceSeq::new(changes),
            counts: Default::default(),
            drops: DropCounters::default(),
        }))
    }
}

struct Patch {
    name: String,
    mac: Mutex<Mac>,
    peer: Mutex<Option<String>>,
    seq: DeviceSeq,
    /// rx packets, rx bytes, tx packets, tx bytes.
    counts: [AtomicU64; 4],
    drops: DropCounters,
}

/// A random locally administered unicast address.
pub fn random_mac() -> Mac {
    let r = ib_sys::random::bytes::<6>();
    Mac([(r[0] & 0xfe) | 0x02, r[1], r[2], r[3], r[4], r[5]])
}

impl Netdev for Patch {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &str {
        "patch"
    }

    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let name = &self.name;
        let Some(peer) = options.get("peer").filter(|p| !p.is_empty()) else {
            return Err(Error::Config(format!("{name}: patch type requires valid 'peer' argument")));
        };
        if options.len() > 1 {
            return Err(Error::Config(format!("{name}: patch type takes only a 'peer' argument")));
        }
        if peer == name {
            return Err(Error::Config(format!("{name}: patch peer must not be self")));
        }
        let mut now = self.peer.lock();
        if now.as_deref() != Some(peer) {
            *now = Some(peer.clone());
            self.seq.bump();
        }
        Ok(())
    }

    fn config(&self) -> BTreeMap<String, String> {
        self.peer.lock().iter().map(|p| ("peer".to_owned(), p.clone())).collect()
    }

    fn patch_peer(&self) -> Option<String> {
        self.peer.lock().clone()
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
        let fixed = Flags::UP | Flags::PROMISC;
        if off.contains(Flags::UP) || off.contains(Flags::PROMISC) {
            return Err(Error::Unsupported);
        }
        Ok(fixed)
    }

    fn ifindex(&self) -> Option<i32> {
        None
    }
    fn carrier(&self) -> Carrier {
        Carrier { up: true, resets: 0 }
    }

    fn stats(&self) -> Result<NetdevStats> {
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] =
            [0, 1, 2, 3].map(|i: usize| Some(self.counts[i].load(Ordering::Relaxed)));
        Ok(NetdevStats { rx_packets, rx_bytes, tx_packets, tx_bytes, ..NetdevStats::default() })
    }
    fn custom_stats(&self) -> Vec<(String, u64)> {
        self.drops.nonzero()
    }
    fn inc_rx(&self, packets: u64, bytes: u64) {
        self.counts[0].fetch_add(packets, Ordering::Relaxed);
        self.counts[1].fetch_add(bytes, Ordering::Relaxed);
    }
    fn inc_tx(&self, packets: u64, bytes: u64) {
        self.counts[2].fetch_add(packets, Ordering::Relaxed);
        self.counts[3].fetch_add(bytes, Ordering::Relaxed);
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
        self.drops.add(DropReason::TxDown, batch.len() as u64);
        batch.drain(..).for_each(|p| pool.give(p));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch() -> Arc<dyn Netdev> {
        PatchProvider.open("a", &Arc::new(Changes::new().unwrap())).unwrap()
    }
    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn peer_is_checked_with_the_known_texts() {
        let p = patch();
        let text = |o: &[(&str, &str)]| p.set_config(&options(o)).unwrap_err().to_string();
        assert_eq!(text(&[]), "a: patch type requires valid 'peer' argument");
        assert_eq!(text(&[("peer", "a")]), "a: patch peer must not be self");
        assert_eq!(text(&[("peer", "b"), ("x", "y")]), "a: patch type takes only a 'peer' argument");
        assert_eq!(p.patch_peer(), None);
        let seq = p.change_seq();
        p.set_config(&options(&[("peer", "b")])).unwrap();
        assert_eq!(p.patch_peer().as_deref(), Some("b"));
        assert_ne!(p.change_seq(), seq);
    }

    #[test]
    fn counters_are_what_it_was_told() {
        let p = patch();
        p.inc_rx(2, 128);
        p.inc_tx(1, 60);
        let s = p.stats().unwrap();
        assert_eq!(
            (s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes),
            (Some(2), Some(128), Some(1), Some(60))
        );
        assert_eq!(s.rx_dropped, None);
    }
}
