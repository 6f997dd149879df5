//! Routes and routing rules over rtnetlink, with news of their changes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use crate::netlink::{F_DUMP, Message, ROUTE, Request, Socket, u32_at};

/// Groups: routes and rules of both families, links and addresses.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;
/// `RTNLGRP_IPV6_RULE`, beyond the bits of `GROUPS`.
const GROUP_IPV6_RULE: u32 = 19;

const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTNEXTHOP: usize = 8;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;

/// A unicast or local route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Destination network.
    pub dst: IpAddr,
    /// Its prefix length.
    pub len: u8,
    /// Index of the device.
    pub ifindex: i32,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source.
    pub src: Option<IpAddr>,
    /// Table.
    pub table: u32,
    /// For packets with this mark.
    pub mark: u32,
    /// Metric: lower is better.
    pub metric: u32,
    /// To an address of this host.
    pub local: bool,
}

/// A rule that sends lookups to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRule {
    /// Lower comes first.
    pub priority: u32,
    /// Source network.
    pub src: Option<IpAddr>,
    /// Its prefix length.
    pub src_len: u8,
    /// Sources outside of it.
    pub invert: bool,
    /// Table.
    pub table: u32,
    /// For IPv6.
    pub v6: bool,
}

/// A socket for dumps, and one that hears of changes.
#[derive(Debug)]
pub struct RouteSocket {
    requests: Socket,
    news: Socket,
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        Some(Ipv4Addr::from(v4).into())
    } else {
        <[u8; 16]>::try_from(data).ok().map(|v6| Ipv6Addr::from(v6).into())
    }
}

fn any(family: u8) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn parse_route(m: &Message<'_>) -> Option<KernelRoute> {
    let (family, len, kind) = (*m.payload.first()?, *m.payload.get(1)?, *m.payload.get(7)?);
    let local = kind == libc::RTN_LOCAL;
    if !local && kind != libc::RTN_UNICAST {
        return None;
    }
    let mut r = KernelRoute {
        dst: any(family),
        len,
        ifindex: 0,
        gateway: None,
        src: None,
        table: u32::from(*m.payload.get(4)?),
        mark: 0,
        metric: 0,
        local,
    };
    for (kind, data) in m.attrs(RTMSG) {
        match kind {
            RTA_DST => r.dst = address(data)?,
            RTA_OIF => r.ifindex = u32_at(data, 0)?.cast_signed(),
            RTA_GATEWAY => r.gateway = address(data),
            RTA_PREFSRC => r.src = address(data),
            RTA_PRIORITY => r.metric = u32_at(data, 0)?,
            RTA_TABLE => r.table = u32_at(data, 0)?,
            RTA_MARK => r.mark = u32_at(data, 0)?,
            // Of several next hops the first one.
            RTA_MULTIPATH => {
                r.ifindex = u32_at(data, 4)?.cast_signed();
                let len = usize::from(u16::from_ne_bytes([*data.first()?, *data.get(1)?]));
                let hop = crate::netlink::Attrs(data.get(RTNEXTHOP..len.min(data.len()))?);
                r.gateway = { hop }.find(|(k, _)| *k == RTA_GATEWAY).and_then(|(_, d)| address(d));
            }
            _ => {}
        }
    }
    (r.ifindex != 0).then_some(r)
}

fn parse_rule(m: &Message<'_>) -> Option<KernelRule> {
    let p = m.payload;
    let mut rule = KernelRule {
        priority: 0,
        src: None,
        src_len: *p.get(2)?,
        invert: u32_at(p, 8)? & FIB_RULE_INVERT != 0,
        table: u32::from(*p.get(4)?),
        v6: i32::from(*p.first()?) == libc::AF_INET6,
    };
    if *p.get(7)? != FR_ACT_TO_TBL {
        return None;
    }
    for (kind, data) in m.attrs(RTMSG) {
        match kind {
            FRA_SRC => rule.src = address(data),
            FRA_PRIORITY => rule.priority = u32_at(data, 0)?,
            FRA_TABLE => rule.table = u32_at(data, 0)?,
            // What we do not look at must not be taken for "all".
            FRA_DST | FRA_IIFNAME | FRA_OIFNAME => return None,
            FRA_FWMARK if u32_at(data, 0)? != 0 => return None,
            _ => {}
        }
    }
    Some(rule)
}

impl RouteSocket {
    /// Opens both in the calling thread's network namespace.
    pub fn open() -> io::Result<RouteSocket> {
        let news = Socket::open(ROUTE, GROUPS)?;
        news.join(GROUP_IPV6_RULE)?;
        Ok(RouteSocket { requests: Socket::open(ROUTE, 0)?, news })
    }

    /// Readable when there may be news.
    pub fn fd(&self) -> RawFd {
        use std::os::fd::AsRawFd;
        self.news.as_raw_fd()
    }

    /// Empties the news; whether there was any. News that got lost count as well.
    pub fn poll(&mut self) -> bool {
        let mut any = false;
        let lost = self.news.poll(|_| any = true).unwrap_or(true);
        any || lost
    }

    /// All routes.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let mut all = Vec::new();
        let mut r = Request::new(libc::RTM_GETROUTE, F_DUMP, &[0; RTMSG]);
        self.requests.request(&mut r, |m| {
            if m.kind == libc::RTM_NEWROUTE {
                all.extend(parse_route(m));
            }
        })?;
        Ok(all)
    }

    /// All rules.
    pub fn rules(&mut self) -> io::Result<Vec<KernelRule>> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut fixed = [0; RTMSG];
            fixed[0] = family as u8;
            let mut r = Request::new(libc::RTM_GETRULE, F_DUMP, &fixed);
            self.requests.request(&mut r, |m| {
                if m.kind == libc::RTM_NEWRULE {
                    all.extend(parse_rule(m));
                }
            })?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_routed_and_every_host_has_the_three_rules() {
        let mut s = RouteSocket::open().unwrap();
        let rules = s.rules().unwrap();
        assert!(rules.iter().any(|r| !r.v6 && r.priority == 0 && r.table == 255));
        assert!(rules.iter().any(|r| !r.v6 && r.table == 254 && !r.invert));
        let lo = s.routes().unwrap().into_iter().find(|r| r.dst == IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)));
        assert!(lo.is_none_or(|r| r.local && r.len == 8));
        assert!(!s.poll());
    }
}
