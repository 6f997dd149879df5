//! The kinds of tunnels: one row each with its name, its device in the datapath and what it can carry.

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Geneve,
    Gre,
    Vxlan,
    Lisp,
    Stt,
    Erspan,
    Ip6Erspan,
    Ip6Gre,
    Gtpu,
    Bareudp,
    Srv6,
}

/// IP protocol of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IP protocol of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IP protocol of GRE.
pub const IPPROTO_GRE: u8 = 47;
/// IPv6 routing header.
pub const IPPROTO_ROUTING: u8 = 43;
/// IPv4 in IP.
pub const IPPROTO_IPIP: u8 = 4;
/// IPv6 in IP.
pub const IPPROTO_IPV6: u8 = 41;

struct Row {
    kind: Kind,
    name: &'static str,
    device: &'static str,
    port: Option<u16>,
    vport: u32,
    l2: bool,
    l3: bool,
    /// IP protocols under which native packets come in; empty: the user-space datapath does not terminate it.
    protocols: &'static [u8],
}

const fn row(
    kind: Kind,
    name: &'static str,
    device: &'static str,
    port: Option<u16>,
    vport: u32,
    (l2, l3): (bool, bool),
    protocols: &'static [u8],
) -> Row {
    Row { kind, name, device, port, vport, l2, l3, protocols }
}

const L2: (bool, bool) = (true, false);
const L3: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);
const UDP: &[u8] = &[IPPROTO_UDP];
const GRE: &[u8] = &[IPPROTO_GRE];

/// Name, device, default port, `OVS_VPORT_TYPE_*`, what it carries, protocols.
const ROWS: [Row; 11] = [
    row(Kind::Geneve, "geneve", "genev_sys", Some(6081), 5, L2, UDP),
    row(Kind::Gre, "gre", "gre_sys", None, 3, BOTH, GRE),
    row(Kind::Vxlan, "vxlan", "vxlan_sys", Some(4789), 4, BOTH, UDP),
    row(Kind::Lisp, "lisp", "lisp_sys", Some(4341), 105, L3, &[]),
    row(Kind::Stt, "stt", "stt_sys", Some(7471), 106, L2, &[IPPROTO_TCP]),
    row(Kind::Erspan, "erspan", "erspan_sys", None, 107, L2, GRE),
    row(Kind::Ip6Erspan, "ip6erspan", "ip6erspan_sys", None, 108, L2, GRE),
    row(Kind::Ip6Gre, "ip6gre", "ip6gre_sys", None, 109, BOTH, GRE),
    row(Kind::Gtpu, "gtpu", "gtpu_sys", Some(2152), 110, L3, UDP),
    row(Kind::Bareudp, "bareudp", "udp_sys", Some(0), 111, L3, UDP),
    row(Kind::Srv6, "srv6", "srv6_sys", None, 112, L3, &[IPPROTO_IPIP, IPPROTO_IPV6]),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        ROWS.iter().map(|r| r.kind)
    }
    fn row(self) -> &'static Row {
        // Rows are in the order of the enumeration.
        &ROWS[self as usize]
    }
    /// The kind of that name, as in the Interface row's `type`.
    pub fn by_name(name: &str) -> Option<Kind> {
        ROWS.iter().find(|r| r.name == name).map(|r| r.kind)
    }
    /// The kind of that `OVS_VPORT_TYPE_*`.
    pub fn by_vport(vport: u32) -> Option<Kind> {
        ROWS.iter().find(|r| r.vport == vport).map(|r| r.kind)
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// `OVS_VPORT_TYPE_*`.
    pub fn vport(self) -> u32 {
        self.row().vport
    }
    /// That of headers over IPv6: GRE and ERSPAN have one of its own there, whatever the port is called.
    pub fn vport_over_ipv6(self) -> u32 {
        match self {
            Kind::Gre => Kind::Ip6Gre.vport(),
            Kind::Erspan => Kind::Ip6Erspan.vport(),
            kind => kind.vport(),
        }
    }
    /// Name of the datapath's device, up to the port.
    pub fn device(self) -> &'static str {
        self.row().device
    }
    /// The transport port unless configured; `None` where there are no ports.
    pub fn default_port(self) -> Option<u16> {
        self.row().port
    }
    /// Whether frames with Ethernet header can go through.
    pub fn carries_l2(self) -> bool {
        self.row().l2
    }
    /// Whether packets without Ethernet header can.
    pub fn carries_l3(self) -> bool {
        self.row().l3
    }
    /// The protocols by which outer packets are known.
    pub fn protocols(self) -> &'static [u8] {
        self.row().protocols
    }
    /// GRE and what is built upon it.
    pub fn is_gre_family(self) -> bool {
        matches!(self, Kind::Gre | Kind::Ip6Gre | Kind::Erspan | Kind::Ip6Erspan)
    }
    /// Of the two forms of ERSPAN.
    pub fn is_erspan(self) -> bool {
        matches!(self, Kind::Erspan | Kind::Ip6Erspan)
    }
    /// The kind and port that a datapath device's name stands for.
    pub fn of_device(name: &str) -> Option<(Kind, u16)> {
        ROWS.iter().find_map(|r| match (name.strip_prefix(r.device)?, r.port) {
            ("", None) => Some((r.kind, 0)),
            (rest, Some(_)) => Some((r.kind, rest.strip_prefix('_')?.parse().ok()?)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_names_come_back() {
        for kind in Kind::all() {
            assert_eq!(kind.row().kind, kind);
            assert_eq!(Kind::by_name(kind.name()), Some(kind));
            assert_eq!(Kind::by_vport(kind.vport()), Some(kind));
        }
        assert_eq!(Kind::of_device("vxlan_sys_4789"), Some((Kind::Vxlan, 4789)));
        assert_eq!(Kind::of_device("gre_sys"), Some((Kind::Gre, 0)));
        assert_eq!(Kind::of_device("vxlan0"), None);
        assert_eq!((Kind::Gre.vport_over_ipv6(), Kind::Vxlan.vport_over_ipv6()), (109, 4));
    }
}
