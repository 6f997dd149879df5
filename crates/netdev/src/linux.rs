//! Kernel devices: what `system`, `afxdp`, `tap` and `internal` share.
//!
//! [`Linux`] is one per registry: an rtnetlink socket for requests, one for notifications, and the open devices by
//! name. `Link` is a device's control side: the kernel's last word about it, kept current by notifications, so that
//! reading MAC, MTU, flags or carrier asks nobody. How packets move is in [`system`], [`tap`] and [`io`].

pub mod afxdp;
pub mod hosted;
pub mod io;
mod link;
pub mod qos;
pub mod system;
pub mod tap;
pub mod vnet;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ib_packet::Mac;
use ib_sys::errno::ENODEV;
use ib_sys::eventfd::Epoll;
use ib_sys::netlink;
use ib_sys::rtnetlink::{self, Event, LinkChange, Rtnl};
use parking_lot::Mutex;

use crate::changes::{Changes, DeviceSeq};
use crate::contract::{Carrier, Speed};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::registry::Provider;
use crate::stats::NetdevStats;

/// State that all kernel devices of a registry share.
pub struct Linux {
    requests: Mutex<Rtnl>,
    events: Mutex<netlink::Socket>,
    devices: Mutex<Devices>,
    /// Watches the notifications and the registry's notifier.
    epoll: Epoll,
    keep_devices: AtomicBool,
    /// See [`crate::Registry::leave_shaping`].
    shaped_elsewhere: AtomicBool,
    /// While devices are removed together: those that are to go.
    leaving: Mutex<Option<Vec<Leaving>>>,
}

/// A device of ours that is to go.
struct Leaving {
    name: String,
    ifindex: i32,
    /// Lets it go by itself.
    release: Box<dyn FnOnce() + Send>,
}

/// While it lives, devices that we made don't go one by one; when it is dropped, they go together.
#[must_use]
pub struct RemoveTogether(Arc<Linux>);

impl Drop for RemoveTogether {
    fn drop(&mut self) {
        let leaving = self.0.leaving.lock().take().unwrap_or_default();
        self.0.remove_group(&leaving);
        leaving.into_iter().for_each(|l| (l.release)());
    }
}

/// Fewer than these go one by one.
const GROUP_MIN: usize = 4;

#[derive(Default)]
struct Devices {
    by_name: HashMap<String, Weak<dyn KernelDevice>>,
    name_of: HashMap<i32, String>,
}

/// What notifications do to a device.
trait KernelDevice: Send + Sync {
    fn on_link(&self, link: &rtnetlink::Link);
    fn on_gone(&self, link: &rtnetlink::Link);
    fn on_address(&self);
}

impl Linux {
    /// Starts listening to the kernel, in the calling thread's network namespace.
    pub fn new(changes: &Arc<Changes>) -> std::io::Result<Arc<Linux>> {
        let groups = rtnetlink::GROUP_LINK | rtnetlink::GROUP_IPV4_ADDR | rtnetlink::GROUP_IPV6_ADDR;
        let events = netlink::Socket::open(netlink::ROUTE, groups)?;
        let epoll = Epoll::new()?;
        epoll.add(events.as_raw_fd(), 0)?;
        epoll.add(changes.fd(), 1)?;
        Ok(Arc::new(Linux {
            requests: Mutex::new(Rtnl::open()?),
            events: Mutex::new(events),
            devices: Mutex::default(),
            epoll,
            keep_devices: AtomicBool::new(false),
            shaped_elsewhere: AtomicBool::new(false),
            leaving: Mutex::new(None),
        }))
    }

    /// The kinds.
    pub fn providers(this: &Arc<Linux>) -> Vec<Arc<dyn Provider>> {
        vec![
            Arc::new(system::SystemProvider(this.clone())),
            Arc::new(tap::TapProvider(this.clone(), "tap")),
            Arc::new(tap::TapProvider(this.clone(), "internal")),
            Arc::new(tap::TapProvider(this.clone(), "tun")),
            Arc::new(afxdp::AfXdpProvider(this.clone())),
        ]
    }

    /// See [`crate::Registry::remove_together`].
    pub fn remove_together(self: &Arc<Linux>) -> RemoveTogether {
        self.leaving.lock().get_or_insert_default();
        RemoveTogether(Arc::clone(self))
    }

    /// Lets a device go: with others if there are any, else by `release`.
    fn leave(&self, link: &Link, release: impl FnOnce() + Send + 'static) {
        let mut leaving = self.leaving.lock();
        match (&mut *leaving, link.ifindex()) {
            (Some(list), Some(ifindex)) => {
                list.push(Leaving { name: link.name.clone(), ifindex, release: Box::new(release) });
            }
            _ => {
                drop(leaving);
                release();
            }
        }
    }

    /// Deletes devices with one request. What fails is left for each to do by itself.
    fn remove_group(&self, leaving: &[Leaving]) {
        if leaving.len() < GROUP_MIN {
            return;
        }
        // A group that nobody else uses, but for a chance in a billion: numbers that people choose are small.
        let group = std::process::id() << 8 | 0x8000_00a5;
        let mut rtnl = self.requests.lock();
        let change = LinkChange { group: Some(group), ..LinkChange::default() };
        for device in leaving {
            // One that is gone already is what we want, and another one in its place is not ours.
            if rtnl.link(device.ifindex).is_ok_and(|link| link.name == device.name) {
                let _ = rtnl.set_link(device.ifindex, &change);
            }
        }
        let _ = rtnl.delete_group(group);
    }

    /// See [`crate::Registry::leave_shaping`].
    pub fn leave_shaping(&self) {
        self.shaped_elsewhere.store(true, Ordering::Relaxed);
    }

    /// See [`crate::Registry::keep_devices`].
    pub fn keep_devices(&self) {
        self.keep_devices.store(true, Ordering::Relaxed);
    }

    /// See [`crate::Registry::fd`].
    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Takes in what the kernel reported.
    pub fn run(&self) {
        let mut events = Vec::new();
        loop {
            match self.events.lock().poll(|m| events.extend(rtnetlink::parse_event(m))) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    // Notifications were lost.
                    events.clear();
                    self.resync();
                }
            }
        }
        events.iter().for_each(|e| self.dispatch(e));
    }

    fn device(&self, name: &str) -> Option<Arc<dyn KernelDevice>> {
        self.devices.lock().by_name.get(name).and_then(Weak::upgrade)
    }

    fn dispatch(&self, event: &Event) {
        match event {
            Event::Link(link) => {
                let old = {
                    let mut devices = self.devices.lock();
                    let known = devices.by_name.contains_key(&link.name);
                    match devices.name_of.get(&link.ifindex) {
                        Some(name) if *name != link.name => {
                            let old = devices.name_of.remove(&link.ifindex);
                            if known {
                                devices.name_of.insert(link.ifindex, link.name.clone());
                            }
                            old
                        }
                        _ => {
                            if known {
                                devices.name_of.insert(link.ifindex, link.name.clone());
                            }
                            None
                        }
                    }
                };
                // Renamed: for us the old name is gone.
                if let Some(dev) = old.and_then(|name| self.device(&name)) {
                    dev.on_gone(link);
                }
                if let Some(dev) = self.device(&link.name) {
                    dev.on_link(link);
                }
            }
            Event::LinkGone(link) => {
                let name = self.devices.lock().name_of.remove(&link.ifindex);
                if let Some(dev) = name.and_then(|name| self.device(&name)) {
                    dev.on_gone(link);
                }
            }
            Event::Address(ifindex) => {
                let name = self.devices.lock().name_of.get(ifindex).cloned();
                if let Some(dev) = name.and_then(|name| self.device(&name)) {
                    dev.on_address();
                }
            }
        }
    }

    /// Compares all open devices with the kernel's list.
    fn resync(&self) {
        let Ok(links) = self.requests.lock().links() else { return };
        let links: HashMap<_, _> = links.into_iter().map(|l| (l.name.clone(), l)).collect();
        let open: Vec<_> = {
            let devices = self.devices.lock();
            devices.by_name.iter().filter_map(|(n, d)| Some((n.clone(), d.upgrade()?))).collect()
        };
        for (name, dev) in open {
            match links.get(&name) {
                Some(link) => self.dispatch(&Event::Link(link.clone())),
                None => dev.on_gone(&rtnetlink::Link::default()),
            }
        }
    }

    /// From now on `device` hears about its link.
    fn watch(&self, name: &str, ifindex: i32, device: Weak<dyn KernelDevice>) {
        let mut devices = self.devices.lock();
        devices.by_name.insert(name.to_owned(), device);
        devices.name_of.insert(ifindex, name.to_owned());
    }

    fn unwatch(&self, name: &str) {
        let mut devices = self.devices.lock();
        if devices.by_name.get(name).is_some_and(|d| d.strong_count() == 0) {
            devices.by_name.remove(name);
            devices.name_of.retain(|_, n| n != name);
        }
    }
}

impl Link {
    /// What shaping needs to know.
    fn shaped(&self) -> Result<qos::Device<'_>> {
        Ok(qos::Device {
            name: &self.name,
            ifindex: self.index()?,
            mtu: self.mtu().unwrap_or(1500),
            speed_mbps: self.link_speed().map_or(0, |s| s.current_mbps),
            elsewhere: self.linux.shaped_elsewhere.load(Ordering::Relaxed),
        })
    }
}

/// The control side of one kernel device.
struct Link {
    linux: Arc<Linux>,
    name: String,
    known: Mutex<Known>,
    seq: DeviceSeq,
}

/// The kernel's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// In our namespace now? The rest is then current, else as it was.
    here: bool,
    ifindex: i32,
    flags: u32,
    mtu: u32,
    mac: Mac,
    carrier_resets: u64,
}

impl Known {
    fn new(link: &rtnetlink::Link) -> Known {
        Known {
            here: true,
            ifindex: link.ifindex,
            flags: link.flags,
            mtu: link.mtu,
            mac: Mac(link.mac.unwrap_or_default()),
            carrier_resets: 0,
        }
    }
}

impl Link {
    /// Looks the device up.
    fn open(linux: &Arc<Linux>, name: &str, changes: &Arc<Changes>) -> Result<Link> {
        let link = linux.requests.lock().link_by_name(name)?;
        Ok(Link {
            linux: linux.clone(),
            name: name.to_owned(),
            known: Mutex::new(Known::new(&link)),
            seq: DeviceSeq::new(changes),
        })
    }

    /// Takes the kernel's word in; returns the new index if it is another device than before.
    fn update(&self, link: &rtnetlink::Link) -> Option<i32> {
        let mut known = self.known.lock();
        let mut new = Known::new(link);
        let running = |flags| flags & rtnetlink::IFF_RUNNING != 0;
        let reset = known.here && running(known.flags) != running(new.flags);
        new.carrier_resets = known.carrier_resets + u64::from(reset);
        let replaced = !known.here || known.ifindex != new.ifindex;
        if *known != new {
            *known = new;
            self.seq.bump();
        }
        replaced.then_some(link.ifindex)
    }

    fn gone(&self) {
        let mut known = self.known.lock();
        if known.here {
            known.here = false;
            self.seq.bump();
        }
    }

    fn ifindex(&self) -> Option<i32> {
        let known = self.known.lock();
        known.here.then_some(known.ifindex)
    }

    fn index(&self) -> Result<i32> {
        self.ifindex().ok_or(Error::Os(ENODEV))
    }

    /// Changes the device and reads it back.
    fn change(&self, change: &LinkChange<'_>) -> Result<()> {
        let index = self.index()?;
        let mut rtnl = self.linux.requests.lock();
        rtnl.set_link(index, change)?;
        let link = rtnl.link(index)?;
        drop(rtnl);
        self.update(&link);
        Ok(())
    }

    fn mac(&self) -> Result<Mac> {
        let known = self.known.lock();
        if known.here { Ok(known.mac) } else { Err(Error::Os(ENODEV)) }
    }

    fn set_mac(&self, mac: Mac) -> Result<()> {
        if self.mac() == Ok(mac) {
            return Ok(());
        }
        self.change(&LinkChange { mac: Some(mac.0), ..LinkChange::default() })
    }

    fn mtu(&self) -> Result<u32> {
        let known = self.known.lock();
        if known.here { Ok(known.mtu) } else { Err(Error::Os(ENODEV)) }
    }

    fn set_mtu(&self, mtu: u32) -> Result<()> {
        if self.mtu() == Ok(mtu) {
            return Ok(());
        }
        self.change(&LinkChange { mtu: Some(mtu), ..LinkChange::default() })
    }

    fn flags(&self) -> Result<Flags> {
        let known = self.known.lock();
        if !known.here {
            return Err(Error::Os(ENODEV));
        }
        let table = [
            (rtnetlink::IFF_UP, Flags::UP),
            (rtnetlink::IFF_PROMISC, Flags::PROMISC),
            (rtnetlink::IFF_LOOPBACK, Flags::LOOPBACK),
        ];
        let set = table.iter().filter(|(bit, _)| known.flags & bit != 0);
        Ok(set.fold(Flags::NONE, |all, (_, f)| all | *f))
    }

    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags> {
        let old = self.flags()?;
        let new = old.without(off).union(on);
        let mut mask = 0;
        let mut value = 0;
        for (flag, bit) in [(Flags::UP, rtnetlink::IFF_UP), (Flags::PROMISC, rtnetlink::IFF_PROMISC)] {
            if old.contains(flag) != new.contains(flag) {
                mask |= bit;
                value |= if new.contains(flag) { bit } else { 0 };
            }
        }
        if mask != 0 {
            self.change(&LinkChange { flags: Some((mask, value)), ..LinkChange::default() })?;
        }
        Ok(old)
    }

    fn carrier(&self) -> Carrier {
        let known = self.known.lock();
        let up = rtnetlink::IFF_UP | rtnetlink::IFF_RUNNING;
        Carrier { up: known.here && known.flags & up == up, resets: known.carrier_resets }
    }

    fn addresses(&self) -> Result<Vec<(IpAddr, u8)>> {
        let index = self.index()?;
        Ok(self.linux.requests.lock().addresses(index)?)
    }

    fn set_address(&self, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
        let index = self.index()?;
        let wanted = (IpAddr::V4(address), prefix_len);
        let mut requests = self.linux.requests.lock();
        let old: Vec<_> = requests.addresses(index)?.into_iter().filter(|(ip, _)| ip.is_ipv4()).collect();
        if old.contains(&wanted) {
            return Ok(());
        }
        for (ip, prefix_len) in old {
            requests.delete_address(index, ip, prefix_len)?;
        }
        Ok(requests.add_address(index, wanted.0, prefix_len)?)
    }

    fn add_router(&self, router: Ipv4Addr) -> Result<()> {
        let index = self.index()?;
        match self.linux.requests.lock().add_default_route(index, router) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            result => Ok(result?),
        }
    }

    fn status(&self) -> BTreeMap<String, String> {
        let Ok(info) = ib_sys::ethtool::driver_info(&self.name) else { return BTreeMap::new() };
        [("driver_name", info.driver), ("driver_version", info.version), ("firmware_version", info.firmware)]
            .map(|(k, v)| (k.to_owned(), v))
            .into()
    }

    fn link_speed(&self) -> Result<Speed> {
        Ok(speed::from_settings(&ib_sys::ethtool::link_settings(&self.name)?))
    }

    /// Counters as the kernel has them.
    fn stats(&self) -> Result<NetdevStats> {
        let index = self.index()?;
        let link = self.linux.requests.lock().link(index)?;
        let s = link.stats.ok_or(Error::Unsupported)?;
        Ok(NetdevStats {
            rx_packets: Some(s.rx_packets),
            tx_packets: Some(s.tx_packets),
            rx_bytes: Some(s.rx_bytes),
            tx_bytes: Some(s.tx_bytes),
            rx_dropped: Some(s.rx_dropped),
            tx_dropped: Some(s.tx_dropped),
            rx_errors: Some(s.rx_errors),
            tx_errors: Some(s.tx_errors),
            rx_multicast_packets: Some(s.multicast),
            collisions: Some(s.collisions),
            rx_length_errors: Some(s.rx_length_errors),
            rx_over_err: Some(s.rx_over_errors),
            rx_crc_err: Some(s.rx_crc_errors),
            rx_frame_err: Some(s.rx_frame_errors),
            rx_fifo_errors: Some(s.rx_fifo_errors),
            rx_missed_errors: Some(s.rx_missed_errors),
            tx_aborted_errors: Some(s.tx_aborted_errors),
            tx_carrier_errors: Some(s.tx_carrier_errors),
            tx_fifo_errors: Some(s.tx_fifo_errors),
            tx_heartbeat_errors: Some(s.tx_heartbeat_errors),
            tx_window_errors: Some(s.tx_window_errors),
            ..NetdevStats::default()
        })
    }
}

mod speed {
    //! Link modes: ethtool's bits to OpenFlow's.

    use super::Speed;
    use ib_sys::ethtool::LinkSettings;

    /// OpenFlow 1.1+ `OFPPF_*` bit for an ethtool `SUPPORTED_*` bit number.
    const MODES: [(u32, u32); 12] = [
        (0, 1 << 0),
        (1, 1 << 1),
        (2, 1 << 2),
        (3, 1 << 3),
        (4, 1 << 4),
        (5, 1 << 5),
        (12, 1 << 6),
        (7, COPPER),
        (10, FIBER),
        (6, AUTONEG),
        (13, 1 << 14),
        (14, 1 << 15),
    ];
    const COPPER: u32 = 1 << 11;
    const FIBER: u32 = 1 << 12;
    const AUTONEG: u32 = 1 << 13;
    const PORT_TP: u8 = 0;
    const PORT_FIBRE: u8 = 3;

    fn modes(ethtool: u32) -> u32 {
        MODES.iter().filter(|(bit, _)| ethtool & (1 << bit) != 0).fold(0, |all, (_, f)| all | f)
    }

    /// Highest speed among `OFPPF_*` bits.
    fn max_mbps(features: u32) -> u32 {
        const SPEEDS: [u32; 10] = [10, 10, 100, 100, 1000, 1000, 10_000, 40_000, 100_000, 1_000_000];
        let set = SPEEDS.iter().enumerate().filter(|(bit, _)| features & (1 << bit) != 0);
        set.map(|(_, mbps)| *mbps).max().unwrap_or(0)
    }

    pub fn from_settings(s: &LinkSettings) -> Speed {
        let full = s.full_duplex == Some(true);
        let bit = match s.speed_mbps {
            Some(10) => 1 << u32::from(full),
            Some(100) => 4 << u32::from(full),
            Some(1000) => 16 << u32::from(full),
            Some(10_000) => 1 << 6,
            Some(40_000) => 1 << 7,
            Some(100_000) => 1 << 8,
            Some(1_000_000) => 1 << 9,
            Some(_) => 1 << 10,
            None => 0,
        };
        let port = match s.port {
            PORT_TP => COPPER,
            PORT_FIBRE => FIBER,
            _ => 0,
        };
        let supported = modes(s.supported);
        Speed {
            current_mbps: s.speed_mbps.unwrap_or(0),
            max_mbps: max_mbps(supported),
            full_duplex: s.full_duplex,
            current: bit | port | if s.autoneg { AUTONEG } else { 0 },
            advertised: modes(s.advertising),
            supported,
            peer: modes(s.partner),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_veth_is_ten_gigabits_over_copper() {
            let s = LinkSettings { speed_mbps: Some(10_000), full_duplex: Some(true), ..Default::default() };
            let f = from_settings(&s);
            assert_eq!((f.current, f.current_mbps, f.max_mbps), (1 << 6 | COPPER, 10_000, 0));
        }

        #[test]
        fn supported_modes_give_the_top_speed() {
            let f = from_settings(&LinkSettings { supported: 0x2f | 1 << 6, ..Default::default() });
            assert_eq!((f.max_mbps, f.supported), (1000, 0x2f | AUTONEG));
        }
    }
}
