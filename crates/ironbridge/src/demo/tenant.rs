//! Tenants: network namespaces with one end of a veth pair each, and threads that work inside.
//!
//! A namespace has no name anywhere: it lives by an open descriptor of ours and by the threads in it, so it can't be left
//! behind. The other end of the veth pair stays with the switch.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use ib_sys::netns;
use ib_sys::rtnetlink::{IFF_UP, LinkChange, Rtnl};

/// The length of the subnet that all tenants think they are in.
pub const PREFIX_LEN: u8 = 24;

const UP: LinkChange<'_> =
    LinkChange { flags: Some((IFF_UP, IFF_UP)), mtu: None, mac: None, name: None, netns: None, group: None };

/// A tenant's machine.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name, which its device at the switch has too.
    pub name: &'static str,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    ns: Arc<File>,
}

impl Tenant {
    /// Makes the namespace and the veth pair: `name` here, `eth0` there, both up. IPv6 is off inside, for less noise.
    pub fn new(name: &'static str, ip: Ipv4Addr, mac: [u8; 6]) -> io::Result<Tenant> {
        let ns = Arc::new(fresh_namespace()?);
        let tenant = Tenant { name, ip, mac, ns };
        let peer = format!("{name}-in");
        let mut here = Rtnl::open()?;
        here.add_veth(name, &peer)?;
        let inside = here.link_by_name(&peer)?;
        let change = LinkChange { netns: Some(tenant.ns.as_raw_fd()), ..LinkChange::default() };
        here.set_link(inside.ifindex, &change)?;
        tenant.within(move || {
            // An older or smaller kernel may not have the setting; then there is more noise.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            let mut there = Rtnl::open()?;
            let lo = there.link_by_name("lo")?;
            there.set_link(lo.ifindex, &UP)?;
            let eth0 = there.link_by_name(&peer)?;
            let named = LinkChange { name: Some("eth0"), mac: Some(mac), ..LinkChange::default() };
            there.set_link(eth0.ifindex, &named)?;
            there.add_address(eth0.ifindex, IpAddr::V4(ip), PREFIX_LEN)?;
            there.set_link(eth0.ifindex, &UP)
        })?;
        let outside = here.link_by_name(name)?;
        here.set_link(outside.ifindex, &UP)?;
        Ok(tenant)
    }

    /// Starts `f` in a thread that has joined the namespace.
    pub fn start<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let ns = Arc::clone(&self.ns);
        std::thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            netns::enter(&ns)?;
            f()
        })
    }

    /// Runs `f` in the namespace and waits for it.
    pub fn within<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.start(f)?.join().map_err(|_| io::Error::other("a thread has crashed"))?
    }

    /// The namespace's name for `nsenter --net=`, as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.ns.as_raw_fd())
    }

    /// The Ethernet address as text.
    pub fn mac_text(&self) -> String {
        mac_text(&self.mac)
    }
}

/// An Ethernet address as text.
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

fn fresh_namespace() -> io::Result<File> {
    let made = std::thread::Builder::new().name("namespace".to_owned()).spawn(|| {
        netns::unshare()?;
        netns::current()
    })?;
    made.join().map_err(|_| io::Error::other("a thread has crashed"))?
}

/// Sets the device `name` of this namespace up.
pub fn set_up(name: &str) -> io::Result<()> {
    let mut rtnl = Rtnl::open()?;
    let link = rtnl.link_by_name(name)?;
    rtnl.set_link(link.ifindex, &UP)
}
