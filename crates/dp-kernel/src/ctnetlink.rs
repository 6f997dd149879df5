//! Messages of the kernel's connection table: ctnetlink, and its timeout policies, cttimeout (linux/netfilter/nfnetlink_conntrack.h,
//! nfnetlink_cttimeout.h).
//!
//! Pure. A message is `struct nfgenmsg` ([`header`]) and attributes, numbers in network order. Attributes that are not known are
//! skipped; a connection without tuples, or with addresses of a wrong length, is none.

use std::net::IpAddr;

use ib_dpif::conntrack::{CtEntry, CtKernel, CtTcp, CtTimeouts, CtTuple, TcpState};
use ib_sys::netlink::{Attrs, Request, text};

/// Message types.
pub mod kind {
    const CONNTRACK: u16 = 1 << 8;
    const TIMEOUT: u16 = 8 << 8;
    /// Connections, one or all.
    pub const CT_GET: u16 = CONNTRACK | 1;
    /// Deletes a connection, or without attributes all.
    pub const CT_DELETE: u16 = CONNTRACK | 2;
    /// Makes or changes a timeout policy.
    pub const TIMEOUT_NEW: u16 = TIMEOUT;
    /// Timeout policies.
    pub const TIMEOUT_GET: u16 = TIMEOUT | 1;
    /// Deletes a timeout policy.
    pub const TIMEOUT_DELETE: u16 = TIMEOUT | 2;
}

/// Bytes of [`header`].
pub const HEADER: usize = 4;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What a message begins with.
pub fn header(family: u8) -> [u8; HEADER] {
    [family, 0, 0, 0]
}

fn family_of(addr: IpAddr) -> u8 {
    if addr.is_ipv6() { AF_INET6 } else { AF_INET }
}

fn be16(data: &[u8]) -> Option<u16> {
    data.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn be32(data: &[u8]) -> Option<u32> {
    data.first_chunk().map(|b| u32::from_be_bytes(*b))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => data.first_chunk::<4>().map(|b| IpAddr::from(*b)),
        16 => data.first_chunk::<16>().map(|b| IpAddr::from(*b)),
        _ => None,
    }
}

fn tuple(data: &[u8]) -> Option<CtTuple> {
    let (mut src, mut dst) = (None, None);
    let (mut proto, mut sport, mut dport, mut id) = (0, 0, 0, 0);
    for (kind, data) in Attrs(data) {
        match kind {
            1 => Attrs(data).for_each(|(kind, data)| match kind {
                1 | 3 => src = address(data),
                2 | 4 => dst = address(data),
                _ => {}
            }),
            2 => {
                for (kind, data) in Attrs(data) {
                    match kind {
                        1 => proto = *data.first()?,
                        2 => sport = be16(data)?,
                        3 => dport = be16(data)?,
                        4 | 7 => id = be16(data)?,
                        5 | 8 => sport = u16::from(*data.first()?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(CtTuple { src: src?, dst: dst?, proto, sport, dport, id })
}

/// The kernel keeps one state for both ends.
fn tcp_state(n: u8) -> TcpState {
    match n {
        1 | 9 => TcpState::SynSent,
        2 => TcpState::SynRecv,
        3 => TcpState::Established,
        4 => TcpState::FinWait1,
        5 => TcpState::CloseWait,
        6 => TcpState::LastAck,
        7 => TcpState::TimeWait,
        _ => TcpState::Closed,
    }
}

fn tcp(data: &[u8]) -> (CtTcp, [u8; 2]) {
    let (mut tcp, mut flags) = (CtTcp::default(), [0; 2]);
    let protocols = Attrs(data).filter(|(kind, _)| *kind == 1);
    for (kind, data) in protocols.flat_map(|(_, data)| Attrs(data)) {
        let value = data.first().copied().unwrap_or(0);
        match kind {
            1 => tcp.state = [tcp_state(value); 2],
            2 => tcp.wscale[0] = value,
            3 => tcp.wscale[1] = value,
            4 => flags[0] = value,
            5 => flags[1] = value,
            _ => {}
        }
    }
    (tcp, flags)
}

/// Helpers have names that live as long as the program.
const HELPERS: &[&str] =
    &["ftp", "tftp", "sip", "irc", "pptp", "amanda", "netbios-ns", "snmp", "sane", "RAS", "Q.931", "H.245"];

/// A connection out of a message's attributes.
pub fn entry(attrs: Attrs<'_>) -> Option<CtEntry> {
    let (mut orig, mut reply, mut parent) = (None, None, None);
    let (mut zone, mut mark, mut label, mut timeout_s) = (0, 0, 0, 0);
    let (mut protoinfo, mut helper, mut kernel) = (None, None, CtKernel::default());
    for (kind, data) in attrs {
        match kind {
            1 => orig = tuple(data),
            2 => reply = tuple(data),
            3 => kernel.status = be32(data)?,
            4 => protoinfo = Some(tcp(data)),
            5 => {
                let name = Attrs(data).find(|(kind, _)| *kind == 1).map(|(_, name)| text(name));
                helper = HELPERS.iter().copied().find(|known| Some(*known) == name.as_deref());
            }
            7 => timeout_s = u64::from(be32(data)?),
            8 => mark = be32(data)?,
            12 => kernel.id = be32(data)?,
            14 => parent = tuple(data),
            18 => zone = be16(data)?,
            22 => label = data.first_chunk().map(|b| u128::from_ne_bytes(*b))?,
            _ => {}
        }
    }
    let orig = orig?;
    let tcp = protoinfo.filter(|_| orig.proto == 6);
    kernel.tcp_flags = tcp.map_or([0; 2], |(_, flags)| flags);
    Some(CtEntry {
        orig,
        reply: reply?,
        zone,
        mark,
        label,
        timeout_s,
        tcp: tcp.map(|(tcp, _)| tcp),
        helper,
        parent,
        kernel: Some(kernel),
    })
}

/// A request to delete one connection: that of this original direction, zone and number.
pub fn delete(e: &CtEntry) -> Request {
    let t = &e.orig;
    let mut r = Request::new(kind::CT_DELETE, ib_sys::netlink::F_ACK, &header(family_of(t.src)));
    r.nest(1, |r| {
        r.nest(1, |r| {
            match (t.src, t.dst) {
                (IpAddr::V6(src), IpAddr::V6(dst)) => r.attr(3, &src.octets()).attr(4, &dst.octets()),
                (IpAddr::V4(src), IpAddr::V4(dst)) => r.attr(1, &src.octets()).attr(2, &dst.octets()),
                // No packet has addresses of two kinds.
                _ => r,
            };
        });
        r.nest(2, |r| {
            r.attr(1, &[t.proto]);
            let icmp_type = u8::try_from(t.sport).unwrap_or(0);
            match t.proto {
                1 => r.attr(4, &t.id.to_be_bytes()).attr(5, &[icmp_type]).attr(6, &[0]),
                58 => r.attr(7, &t.id.to_be_bytes()).attr(8, &[icmp_type]).attr(9, &[0]),
                _ => r.attr(2, &t.sport.to_be_bytes()).attr(3, &t.dport.to_be_bytes()),
            };
        });
    });
    r.attr(18, &e.zone.to_be_bytes());
    if let Some(kernel) = e.kernel {
        r.attr(12, &kernel.id.to_be_bytes());
    }
    r
}

/// A protocol that has timeouts: its name in those of policies, IPv6 or not, its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutProtocol {
    name: &'static str,
    v6: bool,
    proto: u8,
}

/// All of them.
pub const TIMEOUT_PROTOCOLS: [TimeoutProtocol; 6] = [
    TimeoutProtocol { name: "tcp", v6: false, proto: 6 },
    TimeoutProtocol { name: "udp", v6: false, proto: 17 },
    TimeoutProtocol { name: "icmp", v6: false, proto: 1 },
    TimeoutProtocol { name: "tcp", v6: true, proto: 6 },
    TimeoutProtocol { name: "udp", v6: true, proto: 17 },
    TimeoutProtocol { name: "icmp", v6: true, proto: 58 },
];

impl TimeoutProtocol {
    /// That of packets of a version of IP and a protocol.
    pub fn of(v6: bool, proto: u8) -> Option<TimeoutProtocol> {
        TIMEOUT_PROTOCOLS.into_iter().find(|p| p.v6 == v6 && p.proto == proto)
    }
    /// The name of a policy for this protocol.
    pub fn policy(self, id: u32) -> String {
        format!("{POLICY}{id}_{}{}", self.name, if self.v6 { 6 } else { 4 })
    }
}

/// What the names of our policies begin with; those of other switches like us do too.
pub const POLICY: &str = "ovs_tp_";

/// A request to make or change the policy of a protocol; `flags` go into its header.
pub fn timeout_new(flags: u16, id: u32, protocol: TimeoutProtocol, t: &CtTimeouts) -> Request {
    let family = if protocol.v6 { AF_INET6 } else { AF_INET };
    let mut r = Request::new(kind::TIMEOUT_NEW, flags, &header(family));
    r.attr_str(1, &protocol.policy(id)).attr(2, &u16::from(family).to_be_bytes());
    r.attr(3, &[protocol.proto]);
    let tcp = [
        (1, t.tcp_syn_sent),
        (2, t.tcp_syn_recv),
        (3, t.tcp_established),
        (4, t.tcp_fin_wait),
        (5, t.tcp_close_wait),
        (6, t.tcp_last_ack),
        (7, t.tcp_time_wait),
        (8, t.tcp_close),
        (9, t.tcp_syn_sent2),
        (10, t.tcp_retransmit),
        (11, t.tcp_unack),
    ];
    let udp = [(1, t.udp_single), (2, t.udp_multiple)];
    let icmp = [(1, t.icmp_first)];
    let values: &[(u16, Option<u32>)] = match protocol.proto {
        6 => &tcp,
        17 => &udp,
        _ => &icmp,
    };
    r.nest(4, |r| {
        for (kind, seconds) in values {
            if let Some(seconds) = seconds {
                r.attr(*kind, &seconds.to_be_bytes());
            }
        }
    });
    r
}

/// A request to delete a policy by name.
pub fn timeout_delete(name: &str) -> Request {
    let mut r = Request::new(kind::TIMEOUT_DELETE, ib_sys::netlink::F_ACK, &header(0));
    r.attr_str(1, name);
    r
}

/// The name of a policy out of a message's attributes.
pub fn timeout_name(mut attrs: Attrs<'_>) -> Option<String> {
    attrs.find(|(kind, _)| *kind == 1).map(|(_, data)| text(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_sys::netlink::messages;

    /// A connection as the kernel writes it, so that what is deleted can be read again.
    fn sample() -> CtEntry {
        let orig = CtTuple {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            proto: 6,
            sport: 1000,
            dport: 80,
            id: 0,
        };
        let kernel = Some(CtKernel { id: 77, status: 0, tcp_flags: [0; 2] });
        CtEntry {
            orig,
            reply: CtTuple { src: orig.dst, dst: orig.src, sport: 80, dport: 1000, ..orig },
            zone: 7,
            mark: 0,
            label: 0,
            timeout_s: 0,
            tcp: None,
            helper: None,
            parent: None,
            kernel,
        }
    }

    #[test]
    fn a_connection_is_named_by_what_the_kernel_said_of_it() {
        let mut request = delete(&sample());
        let bytes = request.seal(1).to_vec();
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.payload[0]), (0x102, AF_INET));
        let attrs: Vec<_> = message.attrs(HEADER).collect();
        assert_eq!(tuple(attrs[0].1), Some(sample().orig));
        assert_eq!(attrs[1..], [(18, &[0, 7][..]), (12, &[0, 0, 0, 77][..])]);
    }

    #[test]
    fn a_connection_reads_as_the_kernel_writes_it() {
        let mut r = Request::new(kind::CT_GET, 0, &header(AF_INET));
        for kind in [1, 2] {
            r.nest(kind, |r| {
                r.nest(1, |r| {
                    r.attr(1, &[10, 0, 0, 1]).attr(2, &[10, 0, 0, 2]);
                });
                r.nest(2, |r| {
                    r.attr(1, &[6]).attr(2, &[3, 232]).attr(3, &[0, 80]);
                });
            });
        }
        r.attr(3, &[0, 0, 1, 0x8e]).attr(7, &[0, 0, 1, 0]).attr(8, &[0, 0, 0, 5]).attr(18, &[0, 7]);
        r.nest(4, |r| {
            r.nest(1, |r| {
                r.attr(1, &[3]).attr(2, &[7]).attr(3, &[6]).attr(4, &[0x23, 0]).attr(5, &[0x21, 0]);
            });
        });
        let bytes = r.seal(1).to_vec();
        let read = entry(messages(&bytes).next().unwrap().attrs(HEADER)).unwrap();
        assert_eq!((read.orig.sport, read.orig.dport, read.zone, read.mark), (1000, 80, 7, 5));
        let tcp = read.tcp.unwrap();
        assert_eq!((tcp.state, tcp.wscale), ([TcpState::Established; 2], [7, 6]));
        let kernel = read.kernel.unwrap();
        assert_eq!((kernel.status, kernel.tcp_flags, read.timeout_s), (0x18e, [0x23, 0x21], 256));
        assert!((0..bytes.len() - 16).all(|n| entry(Attrs(&bytes[20..20 + n.min(8)])).is_none()));
    }

    #[test]
    fn policies_have_a_name_for_each_protocol() {
        assert_eq!(TimeoutProtocol::of(false, 1).unwrap().policy(3), "ovs_tp_3_icmp4");
        assert_eq!(TimeoutProtocol::of(true, 58).unwrap().policy(0), "ovs_tp_0_icmp6");
        assert_eq!(TimeoutProtocol::of(true, 1), None);
        let t = CtTimeouts { udp_single: Some(9), ..CtTimeouts::default() };
        let mut request = timeout_new(0, 1, TimeoutProtocol::of(false, 17).unwrap(), &t);
        let bytes = request.seal(1).to_vec();
        let message = messages(&bytes).next().unwrap();
        assert_eq!(timeout_name(message.attrs(HEADER)).as_deref(), Some("ovs_tp_1_udp4"));
        let data = message.attrs(HEADER).find(|(kind, _)| *kind == 4).unwrap().1;
        assert_eq!(Attrs(data).collect::<Vec<_>>(), [(1, &[0, 0, 0, 9][..])]);
    }
}
