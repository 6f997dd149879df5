//! The kernel's routes and rules as ours.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;

use ib_sys::routes::{KernelRoute, RouteSocket};
use ib_sys::rtnetlink::Rtnl;

use crate::mapped;
use crate::route::{Prefix, Route, Rule, priority};

/// Routes beyond these are not looked at: a full Internet table in the host would make each change costly.
const MAX_ROUTES: usize = 100_000;

/// Follows the kernel's tables. Belongs to the main loop.
pub struct KernelRoutes {
    socket: RouteSocket,
    links: Rtnl,
    fresh: bool,
}

impl KernelRoutes {
    /// Starts listening.
    pub fn open() -> io::Result<KernelRoutes> {
        Ok(KernelRoutes { socket: RouteSocket::open()?, links: Rtnl::open()?, fresh: true })
    }
    /// Readable when [`Self::poll`] has something to say.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }
    /// Whether something may have changed since the last time, or nothing was read yet.
    pub fn poll(&mut self) -> bool {
        self.socket.poll() | std::mem::take(&mut self.fresh)
    }

    /// All routes that have a device and a source address, and the rules (`None` if they can't be read).
    pub fn read(&mut self) -> (Vec<Route>, Option<Vec<Rule>>) {
        let links = self.links.links().unwrap_or_default();
        let names: HashMap<i32, String> = links.into_iter().map(|l| (l.ifindex, l.name)).collect();
        let mut raw = self.socket.routes().unwrap_or_default();
        raw.truncate(MAX_ROUTES);
        // A better metric replaces a worse one of the same prefix.
        raw.sort_by_key(|r| std::cmp::Reverse(r.metric));
        let mut addresses: HashMap<i32, Vec<(IpAddr, u8)>> = HashMap::new();
        let mut routes = Vec::new();
        for r in raw {
            let Some(name) = names.get(&r.ifindex) else { continue };
            let known = addresses
                .entry(r.ifindex)
                .or_insert_with(|| self.links.addresses(r.ifindex).unwrap_or_default());
            let Some(src) = source(&r, known) else { continue };
            let prefix = Prefix::new(r.dst, r.len);
            routes.push(Route {
                prefix,
                mark: r.mark,
                dev: name.clone(),
                gateway: r.gateway.map_or(Ipv6Addr::UNSPECIFIED, mapped),
                src: mapped(src),
                local: r.local,
                user: false,
                table: r.table,
                priority: priority(prefix.len, false, r.local),
            });
        }
        let rules = self.socket.rules().ok().map(|rules| {
            let rule = |r: ib_sys::routes::KernelRule| Rule {
                priority: r.priority,
                from: r.src.map_or(Prefix::ALL, |ip| Prefix::new(ip, r.src_len)),
                invert: r.invert,
                table: r.table,
                user: false,
                v6: r.v6,
            };
            rules.into_iter().map(rule).collect()
        });
        (routes, rules)
    }
}

/// The address that the kernel would use: the preferred one, else the device's in the network of the destination or gateway.
fn source(route: &KernelRoute, addresses: &[(IpAddr, u8)]) -> Option<IpAddr> {
    if route.src.is_some() {
        return route.src;
    }
    let near = |target: IpAddr| {
        addresses
            .iter()
            .find(|(ip, len)| {
                ip.is_ipv4() == target.is_ipv4() && Prefix::new(*ip, *len).contains(mapped(target))
            })
            .map(|(ip, _)| *ip)
    };
    near(route.dst).or_else(|| route.gateway.and_then(near))
}
