//! Ports: numbers, names and devices of one datapath.
//!
//! A [`Port`] owns its device. Worker threads refer to ports weakly and look again when one has gone, so that removing a port
//! closes its device at once, without asking any thread. Lookups take a read lock that only port changes contend with;
//! forwarding does one a port and life of that port.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ib_dpif::{DpifError, PortInfo};
use ib_flow::OdpPort;
use ib_netdev::{Flags, Netdev};
use parking_lot::{Mutex, RwLock};

use crate::pmd::config::PortSettings;

/// Port numbers are below this.
pub const MAX_PORTS: u32 = 1 << 16;

/// One port.
pub struct Port {
    /// Number.
    pub number: OdpPort,
    /// Type, as it was asked for.
    pub kind: String,
    /// Device.
    pub netdev: Arc<dyn Netdev>,
    /// Receive queues that it was opened with.
    pub n_rxq: usize,
    /// The device's NUMA node when they were opened.
    pub numa_id: Option<u32>,
    /// Which of the device's sets of queues they are.
    pub queues_seq: u64,
    /// What its packets teach may enter the exact-match cache.
    pub emc: Arc<AtomicBool>,
    /// Its settings.
    pub settings: Mutex<PortSettings>,
    /// We turned promiscuous mode on.
    pub made_promiscuous: AtomicBool,
    /// Of a tunnel: sequence number of the next packet that has one.
    pub tunnel_seq: AtomicU32,
    /// Of a tunnel: identification of the next outer IPv4 packet that may be fragmented.
    pub tunnel_ip_id: AtomicU32,
    /// The device's MTU, and above it the low half of the device's sequence number when that was read. 0: not read yet.
    pub mtu: AtomicU64,
}

impl Port {
    /// What takes its place: the same device and settings, opened anew with `n_rxq` queues, under `number`.
    pub fn succeed(&self, number: OdpPort, n_rxq: usize, queues_seq: u64) -> Port {
        Port {
            number,
            kind: self.kind.clone(),
            netdev: Arc::clone(&self.netdev),
            n_rxq,
            numa_id: self.netdev.numa_id(),
            queues_seq,
            emc: Arc::clone(&self.emc),
            settings: Mutex::new(self.settings.lock().clone()),
            made_promiscuous: self.made_promiscuous.swap(false, Ordering::Relaxed).into(),
            tunnel_seq: self.tunnel_seq.load(Ordering::Relaxed).into(),
            tunnel_ip_id: self.tunnel_ip_id.load(Ordering::Relaxed).into(),
            mtu: 0.into(),
        }
    }

    /// Longest frame that the device takes, Ethernet header included and VLAN tag not; `None` if it takes any. Asks the device only
    /// after it changed.
    pub fn room(&self) -> Option<usize> {
        // Others hand memory over, whatever its length.
        if !matches!(self.kind.as_str(), "system" | "afxdp" | "dummy" | "dummy-pmd") {
            return None;
        }
        let seq = self.netdev.change_seq() << 32;
        let mut known = self.mtu.load(Ordering::Relaxed);
        if known == 0 || known >> 32 != seq >> 32 {
            known = seq | u64::from(self.netdev.mtu().unwrap_or(0));
            self.mtu.store(known, Ordering::Relaxed);
        }
        match known & 0xffff_ffff {
            0 => None,
            mtu => usize::try_from(mtu).ok().map(|mtu| mtu + 14),
        }
    }

    /// As listed.
    pub fn info(&self) -> PortInfo {
        PortInfo { number: self.number, name: self.netdev.name().to_owned(), kind: self.kind.clone() }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.made_promiscuous.load(Ordering::Relaxed) {
            // The device may be gone already; then there is nothing to restore.
            let _ = self.netdev.update_flags(Flags::PROMISC, Flags::NONE);
        }
    }
}

#[derive(Default)]
struct Inner {
    by_number: Vec<Option<Arc<Port>>>,
    by_name: HashMap<String, u32>,
    /// No free number below this.
    first_free: u32,
}

/// All ports of a datapath.
#[derive(Default)]
pub struct PortTable(RwLock<Inner>);

impl Inner {
    fn is_free(&self, n: u32) -> bool {
        n < MAX_PORTS && self.by_number.get(n as usize).is_none_or(Option::is_none)
    }
}

impl PortTable {
    /// The port of this number.
    pub fn get(&self, number: OdpPort) -> Option<Arc<Port>> {
        self.0.read().by_number.get(usize::try_from(number.0).ok()?)?.clone()
    }
    /// The port of this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Port>> {
        let inner = self.0.read();
        inner.by_number.get(*inner.by_name.get(name)? as usize)?.clone()
    }
    /// All, by number.
    pub fn list(&self) -> Vec<Arc<Port>> {
        self.0.read().by_number.iter().flatten().cloned().collect()
    }

    /// The number for a new port: `wanted` if it is free, else as Open vSwitch allocates. With `by_digits` (dummy datapaths),
    /// the first digits in the name are tried first, counted from 100 for names that begin with `br`.
    pub fn choose(&self, name: &str, wanted: Option<OdpPort>, by_digits: bool) -> Result<OdpPort, DpifError> {
        let inner = self.0.read();
        if let Some(n) = wanted.filter(|n| inner.is_free(n.0)) {
            return Ok(n);
        }
        if by_digits {
            let base = if name.starts_with("br") { 100u32 } else { 0 };
            let digits: String =
                name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            if let Some(n) = digits.parse::<u32>().ok().and_then(|d| base.checked_add(d))
                && n > 0
                && inner.is_free(n)
            {
                return Ok(OdpPort(n));
            }
        }
        (inner.first_free.max(1)..MAX_PORTS)
            .find(|n| inner.is_free(*n))
            .map(OdpPort)
            .ok_or_else(|| DpifError::Full(format!("{name}: no free datapath port number")))
    }

    /// Adds a port under its number.
    pub fn insert(&self, port: Arc<Port>) -> Result<(), DpifError> {
        let mut inner = self.0.write();
        let name = port.netdev.name().to_owned();
        if inner.by_name.contains_key(&name) || !inner.is_free(port.number.0) {
            return Err(DpifError::Exists(format!("{name}: port exists already")));
        }
        let at = port.number.0;
        if inner.by_number.len() <= at as usize {
            inner.by_number.resize(at as usize + 1, None);
        }
        inner.by_number[at as usize] = Some(port);
        inner.by_name.insert(name, at);
        if inner.first_free.max(1) == at {
            inner.first_free = at + 1;
        }
        Ok(())
    }

    /// Puts another description in the place of a port.
    pub fn replace(&self, port: Arc<Port>) {
        let at = port.number.0 as usize;
        if let Some(place) = self.0.write().by_number.get_mut(at).filter(|p| p.is_some()) {
            *place = Some(port);
        }
    }

    /// Takes a port out.
    pub fn remove(&self, number: OdpPort) -> Option<Arc<Port>> {
        let mut inner = self.0.write();
        let port = inner.by_number.get_mut(usize::try_from(number.0).ok()?)?.take()?;
        inner.by_name.remove(port.netdev.name());
        inner.first_free = inner.first_free.min(number.0.max(1));
        Some(port)
    }
}
/// The counters of a device, for display.
pub fn counters(dev: &dyn ib_netdev::Netdev) -> ib_dpif::dpctl::PortCounters {
    let s = dev.stats().unwrap_or_default();
    ib_dpif::dpctl::PortCounters {
        rx_packets: s.rx_packets,
        rx_errors: s.rx_errors,
        rx_dropped: s.rx_dropped,
        rx_over_errors: s.rx_over_err,
        rx_frame_errors: s.rx_frame_err,
        tx_packets: s.tx_packets,
        tx_errors: s.tx_errors,
        tx_dropped: s.tx_dropped,
        tx_aborted_errors: s.tx_aborted_errors,
        tx_carrier_errors: s.tx_carrier_errors,
        collisions: s.collisions,
        rx_bytes: s.rx_bytes,
        tx_bytes: s.tx_bytes,
    }
}
