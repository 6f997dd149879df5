//! Links and addresses over rtnetlink: just what a switch asks for.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::errno::ENODEV;
use crate::netlink::{
    Attrs, F_ACK, F_CREATE, F_DUMP, F_EXCL, Message, ROUTE, Request, Socket, text, u32_at, u64_at,
};

/// Multicast group mask: links.
pub const GROUP_LINK: u32 = 1;
/// Multicast group mask: IPv4 addresses.
pub const GROUP_IPV4_ADDR: u32 = 0x10;
/// Multicast group mask: IPv6 addresses.
pub const GROUP_IPV6_ADDR: u32 = 0x100;

/// `IFF_UP`
pub const IFF_UP: u32 = libc::IFF_UP as u32;
/// `IFF_PROMISC`
pub const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
/// `IFF_LOOPBACK`
pub const IFF_LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
/// `IFF_RUNNING`
pub const IFF_RUNNING: u32 = libc::IFF_RUNNING as u32;

const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

/// `struct rtnl_link_stats64` by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
    pub collisions: u64,
    pub rx_length_errors: u64,
    pub rx_over_errors: u64,
    pub rx_crc_errors: u64,
    pub rx_frame_errors: u64,
    pub rx_fifo_errors: u64,
    pub rx_missed_errors: u64,
    pub tx_aborted_errors: u64,
    pub tx_carrier_errors: u64,
    pub tx_fifo_errors: u64,
    pub tx_heartbeat_errors: u64,
    pub tx_window_errors: u64,
}

impl LinkStats {
    fn parse(b: &[u8]) -> LinkStats {
        let at = |i: usize| u64_at(b, i * 8).unwrap_or(0);
        LinkStats {
            rx_packets: at(0),
            tx_packets: at(1),
            rx_bytes: at(2),
            tx_bytes: at(3),
            rx_errors: at(4),
            tx_errors: at(5),
            rx_dropped: at(6),
            tx_dropped: at(7),
            multicast: at(8),
            collisions: at(9),
            rx_length_errors: at(10),
            rx_over_errors: at(11),
            rx_crc_errors: at(12),
            rx_frame_errors: at(13),
            rx_fifo_errors: at(14),
            rx_missed_errors: at(15),
            tx_aborted_errors: at(16),
            tx_carrier_errors: at(17),
            tx_fifo_errors: at(18),
            tx_heartbeat_errors: at(19),
            tx_window_errors: at(20),
        }
    }
}

/// One link as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: i32,
    /// Name.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// MTU, bytes.
    pub mtu: u32,
    /// Ethernet address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Index of its master device.
    pub master: Option<i32>,
    /// `IFLA_INFO_KIND`: `veth`, `tun`, ...; empty for hardware.
    pub kind: String,
    /// How often carrier changed.
    pub carrier_changes: u32,
    /// Counters, if the message carried them.
    pub stats: Option<LinkStats>,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is new or different.
    Link(Link),
    /// A link is gone from this namespace.
    LinkGone(Link),
    /// Addresses of this interface changed.
    Address(i32),
}

fn parse_link(m: &Message<'_>) -> Option<Link> {
    let mut link = Link {
        ifindex: u32_at(m.payload, 4)?.cast_signed(),
        flags: u32_at(m.payload, 8)?,
        ..Link::default()
    };
    for (kind, data) in m.attrs(IFINFOMSG) {
        match kind {
            IFLA_IFNAME => link.name = text(data),
            IFLA_MTU => link.mtu = u32_at(data, 0)?,
            IFLA_ADDRESS => link.mac = data.try_into().ok(),
            IFLA_MASTER => link.master = u32_at(data, 0).map(u32::cast_signed),
            IFLA_CARRIER_CHANGES => link.carrier_changes = u32_at(data, 0)?,
            IFLA_STATS64 => link.stats = Some(LinkStats::parse(data)),
            IFLA_LINKINFO => {
                let name = Attrs(data).find(|(k, _)| *k == IFLA_INFO_KIND);
                link.kind = name.map(|(_, d)| text(d)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// Reads a notification; `None` for what is none of ours.
pub fn parse_event(m: &Message<'_>) -> Option<Event> {
    match m.kind {
        libc::RTM_NEWLINK => {
            // A bridge's port messages come with family AF_BRIDGE and lack most attributes.
            if m.payload.first() == Some(&(libc::AF_BRIDGE as u8)) {
                return None;
            }
            parse_link(m).map(Event::Link)
        }
        libc::RTM_DELLINK => {
            if m.payload.first() == Some(&(libc::AF_BRIDGE as u8)) {
                return None;
            }
            parse_link(m).map(Event::LinkGone)
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            u32_at(m.payload, 4).map(|i| Event::Address(i.cast_signed()))
        }
        _ => None,
    }
}

/// What to change of a link; `None` leaves as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// `(mask, value)` of `IFF_*` flags.
    pub flags: Option<(u32, u32)>,
    /// MTU, bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Name.
    pub name: Option<&'a str>,
    /// Namespace to move to, by open descriptor.
    pub netns: Option<i32>,
    /// Group of devices; 0 is the one that all are born in.
    pub group: Option<u32>,
}

fn ifinfomsg(ifindex: i32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut b = [0; IFINFOMSG];
    b[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    b[8..12].copy_from_slice(&flags.to_ne_bytes());
    b[12..16].copy_from_slice(&change.to_ne_bytes());
    b
}

/// An rtnetlink socket for requests.
#[derive(Debug)]
pub struct Rtnl(Socket);

impl Rtnl {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> io::Result<Rtnl> {
        Ok(Rtnl(Socket::open(ROUTE, 0)?))
    }

    fn one_link(&mut self, mut request: Request) -> io::Result<Link> {
        let mut found = None;
        self.0.request(&mut request, |m| {
            if m.kind == libc::RTM_NEWLINK {
                found = parse_link(m);
            }
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
    }

    /// The link called `name`; `ENODEV` if none is.
    pub fn link_by_name(&mut self, name: &str) -> io::Result<Link> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::from_raw_os_error(ENODEV));
        }
        let mut r = Request::new(libc::RTM_GETLINK, F_ACK, &ifinfomsg(0, 0, 0));
        r.attr_str(IFLA_IFNAME, name);
        self.one_link(r)
    }

    /// The link with this index.
    pub fn link(&mut self, ifindex: i32) -> io::Result<Link> {
        self.one_link(Request::new(libc::RTM_GETLINK, F_ACK, &ifinfomsg(ifindex, 0, 0)))
    }

    /// All links.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut all = Vec::new();
        let mut r = Request::new(libc::RTM_GETLINK, F_DUMP, &ifinfomsg(0, 0, 0));
        self.0.request(&mut r, |m| {
            if m.kind == libc::RTM_NEWLINK {
                all.extend(parse_link(m));
            }
        })?;
        Ok(all)
    }

    /// Changes a link.
    pub fn set_link(&mut self, ifindex: i32, change: &LinkChange<'_>) -> io::Result<()> {
        let (mask, flags) = change.flags.unwrap_or((0, 0));
        let mut r = Request::new(libc::RTM_SETLINK, F_ACK, &ifinfomsg(ifindex, flags & mask, mask));
        if let Some(mtu) = change.mtu {
            r.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(mac) = change.mac {
            r.attr(IFLA_ADDRESS, &mac);
        }
        if let Some(name) = change.name {
            r.attr_str(IFLA_IFNAME, name);
        }
        if let Some(fd) = change.netns {
            r.attr_u32(IFLA_NET_NS_FD, fd.cast_unsigned());
        }
        if let Some(group) = change.group {
            r.attr_u32(IFLA_GROUP, group);
        }
        self.0.request(&mut r, |_| ())
    }

    /// Makes a veth pair, both ends down, in this namespace.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let flags = F_ACK | F_CREATE | F_EXCL;
        let mut r = Request::new(libc::RTM_NEWLINK, flags, &ifinfomsg(0, 0, 0));
        r.attr_str(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |r| {
            r.attr_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |r| {
                r.nest(VETH_INFO_PEER, |r| {
                    r.raw(&ifinfomsg(0, 0, 0)).attr_str(IFLA_IFNAME, peer);
                });
            });
        });
        self.0.request(&mut r, |_| ())
    }

    /// Deletes a link.
    pub fn delete_link(&mut self, ifindex: i32) -> io::Result<()> {
        let mut r = Request::new(libc::RTM_DELLINK, F_ACK, &ifinfomsg(ifindex, 0, 0));
        self.0.request(&mut r, |_| ())
    }

    /// Deletes all links of a group at once: the kernel waits for its readers once and not for each.
    pub fn delete_group(&mut self, group: u32) -> io::Result<()> {
        let mut r = Request::new(libc::RTM_DELLINK, F_ACK, &ifinfomsg(0, 0, 0));
        r.attr_u32(IFLA_GROUP, group);
        self.0.request(&mut r, |_| ())
    }

    /// Gives a link an IP address; the route to its subnet comes with it.
    pub fn add_address(&mut self, ifindex: i32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let fixed = ifaddrmsg(ifindex, address, prefix_len);
        let mut r = Request::new(libc::RTM_NEWADDR, F_ACK | F_CREATE | F_EXCL, &fixed);
        put_address(&mut r, address);
        if let IpAddr::V4(ip) = address
            && (1..31).contains(&prefix_len)
        {
            r.attr(IFA_BROADCAST, &(ip.to_bits() | u32::MAX >> prefix_len).to_be_bytes());
        }
        self.0.request(&mut r, |_| ())
    }

    /// Takes an IP address from a link.
    pub fn delete_address(&mut self, ifindex: i32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let mut r = Request::new(libc::RTM_DELADDR, F_ACK, &ifaddrmsg(ifindex, address, prefix_len));
        put_address(&mut r, address);
        self.0.request(&mut r, |_| ())
    }

    /// Adds a route for everything by a router behind a link.
    pub fn add_default_route(&mut self, ifindex: i32, router: Ipv4Addr) -> io::Result<()> {
        const RTMSG: usize = 12;
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        let mut fixed = [0; RTMSG];
        fixed[0] = libc::AF_INET as u8;
        fixed[4] = libc::RT_TABLE_MAIN;
        fixed[5] = libc::RTPROT_BOOT;
        fixed[6] = libc::RT_SCOPE_UNIVERSE;
        fixed[7] = libc::RTN_UNICAST;
        let mut r = Request::new(libc::RTM_NEWROUTE, F_ACK | F_CREATE | F_EXCL, &fixed);
        r.attr(RTA_GATEWAY, &router.octets()).attr_u32(RTA_OIF, ifindex.cast_unsigned());
        self.0.request(&mut r, |_| ())
    }

    /// IP addresses of a link with their prefix lengths.
    pub fn addresses(&mut self, ifindex: i32) -> io::Result<Vec<(IpAddr, u8)>> {
        let mut all = Vec::new();
        let mut r = Request::new(libc::RTM_GETADDR, F_DUMP, &[0; IFADDRMSG]);
        self.0.request(&mut r, |m| {
            if m.kind != libc::RTM_NEWADDR || u32_at(m.payload, 4) != Some(ifindex.cast_unsigned()) {
                return;
            }
            let prefix_len = m.payload[1];
            let find = |want| m.attrs(IFADDRMSG).find(|(k, _)| *k == want).map(|(_, d)| d);
            let Some(data) = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS)) else { return };
            if let Ok(v4) = <[u8; 4]>::try_from(data) {
                all.push((IpAddr::from(v4), prefix_len));
            } else if let Ok(v6) = <[u8; 16]>::try_from(data) {
                all.push((IpAddr::from(v6), prefix_len));
            }
        })?;
        Ok(all)
    }
}

fn ifaddrmsg(ifindex: i32, address: IpAddr, prefix_len: u8) -> [u8; IFADDRMSG] {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut fixed = [0; IFADDRMSG];
    fixed[0] = family as u8;
    fixed[1] = prefix_len;
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    fixed
}

fn put_address(r: &mut Request, address: IpAddr) {
    match address {
        IpAddr::V4(a) => r.attr(IFA_LOCAL, &a.octets()).attr(IFA_ADDRESS, &a.octets()),
        IpAddr::V6(a) => r.attr(IFA_LOCAL, &a.octets()).attr(IFA_ADDRESS, &a.octets()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_nothing_is_not() {
        let mut r = Rtnl::open().unwrap();
        let lo = r.link_by_name("lo").unwrap();
        assert_eq!(lo.name, "lo");
        assert!(lo.flags & IFF_LOOPBACK != 0);
        assert_eq!(r.link(lo.ifindex).unwrap().name, "lo");
        assert!(r.links().unwrap().iter().any(|l| l.name == "lo"));
        let missing = r.link_by_name("no-such-dev0").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(ENODEV));
    }
}
