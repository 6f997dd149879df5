//! NXT_CT_FLUSH and NXT_CT_FLUSH_ZONE: removing connections.
//!
//! A datapath that does not track connections has none to remove.

use std::net::{IpAddr, Ipv6Addr};

use ib_dpif::conntrack::{CtFilter, CtTupleFilter};
use ib_openflow::error::OfError;
use ib_openflow::message::{CtFlush, CtTuple};

use super::Cx;

fn address(a: Option<Ipv6Addr>) -> Option<IpAddr> {
    a.map(|a| a.to_ipv4_mapped().map_or(IpAddr::V6(a), IpAddr::V4))
}

fn tuple(t: &CtTuple, proto: u8) -> CtTupleFilter {
    CtTupleFilter {
        src: address(t.src),
        dst: address(t.dst),
        proto: (proto != 0).then_some(proto),
        sport: t.src_port,
        dport: t.dst_port,
        icmp: t.icmp,
    }
}

/// Removes the connections of a zone.
pub fn zone(cx: &Cx<'_>, zone: u16) -> Result<(), OfError> {
    // Six bytes of padding stand between the headers and the zone.
    if cx.bytes.get(16..22).is_none_or(|pad| pad.iter().any(|b| *b != 0)) {
        return Err(OfError::NXBRC_MUST_BE_ZERO);
    }
    remove(cx, &CtFilter { zone: Some(zone), ..CtFilter::default() });
    Ok(())
}

/// Removes the connections that agree with everything given.
pub fn flush(cx: &Cx<'_>, f: &CtFlush) {
    remove(cx, &filter(f));
}

fn filter(f: &CtFlush) -> CtFilter {
    CtFilter {
        zone: f.zone,
        mark: f.mark,
        label: f.labels,
        orig: tuple(&f.orig, f.ip_proto),
        reply: tuple(&f.reply, f.ip_proto),
    }
}

fn remove(cx: &Cx<'_>, filter: &CtFilter) {
    if let Some(conntrack) = cx.bridge.backer.dpif.conntrack() {
        conntrack.flush(filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let orig = CtTuple { src: Some("::ffff:10.0.0.1".parse().unwrap()), ..CtTuple::default() };
        let f = filter(&CtFlush { ip_proto: 17, orig, ..CtFlush::default() });
        assert_eq!(f.orig.src, Some("10.0.0.1".parse().unwrap()));
        assert_eq!((f.orig.proto, f.reply.proto), (Some(17), Some(17)));
        assert_eq!(filter(&CtFlush::default()), CtFilter::default());
    }
}
