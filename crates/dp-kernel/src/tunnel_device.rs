//! Devices of tunnels for the kernel's datapath: one for each kind and UDP port, that takes its keys from the packets' metadata.
//!
//! They are made by rtnetlink and then are ports like any device, as other switches on this datapath do it; where the kernel's module for a kind
//! is too old for that, or not there, `openvswitch.ko` has vports of its own for some kinds. Names are those that switches have
//! agreed on (`vxlan_sys_4789`), by which a switch that comes finds the device of the one before.

use std::io;

use ib_sys::errno::{EEXIST, ENODEV};
use ib_sys::netlink::{F_ACK, F_CREATE, F_EXCL, ROUTE, Request, Socket};
use ib_sys::rtnetlink::{IFF_UP, Rtnl};

const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// What the tunnels' own MTU is, so that none of theirs is cut by it.
const MTU: u32 = 65_000;

/// Devices by what their names begin with: the type of port.
const KINDS: [(&str, &str); 9] = [
    ("gre_sys", "gre"),
    ("vxlan_sys_", "vxlan"),
    ("genev_sys_", "geneve"),
    ("erspan_sys", "erspan"),
    ("ip6erspan_sys", "ip6erspan"),
    ("ip6gre_sys", "ip6gre"),
    ("lisp_sys_", "lisp"),
    ("bareudp_sys_", "bareudp"),
    ("gtpu_sys_", "gtpu"),
];

/// The type of port that a device's name stands for.
pub(crate) fn kind_of(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| *kind)
}

/// Whether a type of port is a tunnel.
pub(crate) fn is_kind(kind: &str) -> bool {
    KINDS.iter().any(|(_, known)| *known == kind)
}

/// The request for a device; `None` for kinds that have none.
fn request(kind: &str, name: &str, port: u16, options: &[&str]) -> Option<Request> {
    let link_kind = match kind {
        "vxlan" | "geneve" | "erspan" | "ip6erspan" => kind,
        "gre" => "gretap",
        "ip6gre" => "ip6gretap",
        _ => return None,
    };
    // struct ifinfomsg: family, type, index, flags, and which of the flags count.
    let mut fixed = [0; 16];
    fixed[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    let mut r = Request::new(RTM_NEWLINK, F_CREATE | F_EXCL | F_ACK, &fixed);
    r.attr_str(IFLA_IFNAME, name).attr_u32(IFLA_MTU, MTU).nest(IFLA_LINKINFO, |r| {
        r.attr_str(INFO_KIND, link_kind).nest(INFO_DATA, |r| {
            match kind {
                "vxlan" => {
                    // No learning, keys by packet, IPv6 without checksum taken, the port.
                    r.attr(7, &[0]).attr(25, &[1]).attr(20, &[1]).attr(15, &port.to_be_bytes());
                    if options.contains(&"gbp") {
                        r.attr(23, &[]);
                    }
                    if options.contains(&"gpe") {
                        r.attr(27, &[]);
                    }
                }
                "geneve" => {
                    r.attr(6, &[]).attr(10, &[1]).attr(5, &port.to_be_bytes());
                }
                _ => {
                    r.attr(18, &[]);
                }
            }
        });
    });
    Some(r)
}

/// Makes a device; whether it is new. One of this name that is there is as good.
///
/// Errors: the kernel's, `EOPNOTSUPP` of a kind that has no device.
pub(crate) fn make(kind: &str, name: &str, port: u16, options: &[&str]) -> io::Result<bool> {
    let Some(mut request) = request(kind, name, port, options) else {
        return Err(io::Error::from_raw_os_error(ib_sys::errno::EOPNOTSUPP));
    };
    match Socket::open(ROUTE, 0)?.request(&mut request, |_| {}) {
        Err(e) if e.raw_os_error() == Some(EEXIST) => Ok(false),
        made => made.map(|()| true),
    }
}

/// Takes a device away.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let mut rtnl = Rtnl::open()?;
    match rtnl.link_by_name(name).and_then(|link| rtnl.delete_link(link.ifindex)) {
        Err(e) if e.raw_os_error() == Some(ENODEV) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_sys::netlink::{Attrs, messages};

    #[test]
    fn names_stand_for_kinds() {
        assert_eq!(kind_of("vxlan_sys_4789"), Some("vxlan"));
        assert_eq!(kind_of("gre_sys"), Some("gre"));
        assert_eq!((kind_of("eth0"), is_kind("geneve"), is_kind("system")), (None, true, false));
    }

    #[test]
    fn a_device_takes_keys_by_packet() {
        let mut made = request("vxlan", "vxlan_sys_8472", 8472, &["gbp"]).unwrap();
        let bytes = made.seal(1).to_vec();
        let message = messages(&bytes).next().unwrap();
        let attrs: Vec<_> = message.attrs(16).collect();
        assert_eq!(attrs[0], (IFLA_IFNAME, &b"vxlan_sys_8472\0"[..]));
        let info: Vec<_> = Attrs(attrs[2].1).collect();
        assert_eq!(info[0], (INFO_KIND, &b"vxlan\0"[..]));
        let data: Vec<_> = Attrs(info[1].1).collect();
        assert!(data.contains(&(25, &[1][..])) && data.contains(&(15, &[0x21, 0x18][..])), "{data:?}");
        assert!(data.contains(&(23, &[][..])));
        assert!(request("lisp", "lisp_sys_4341", 4341, &[]).is_none());
    }
}
