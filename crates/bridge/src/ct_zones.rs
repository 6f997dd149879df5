//! Connection tracking zones: limits and timeouts out of the Datapath, CT_Zone and CT_Timeout_Policy tables.
//!
//! Reading yields plain values, one [`CtZones`] a datapath type; [`apply`] gives a datapath's table the difference to what it was
//! given before, so that limits set by command for other zones stay.

use std::collections::BTreeMap;

use ib_dpif::conntrack::{CtControl, CtTimeouts};
use ib_ovsdb::idl::Idl;
use ib_ovsdb::idl::vswitch::{CTZone, Datapath, OpenVSwitch};

/// What a zone is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CtZoneDesired {
    /// `limit`; 0 is none.
    pub limit: Option<u32>,
    /// `timeout_policy`.
    pub timeouts: Option<CtTimeouts>,
}

/// The zones of a datapath.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CtZones {
    /// `ct_zone_default_limit`.
    pub default_limit: Option<u32>,
    /// By number.
    pub zones: BTreeMap<u16, CtZoneDesired>,
}

/// Zones by datapath type.
pub fn read(idl: &Idl, root: &OpenVSwitch<'_>) -> BTreeMap<String, CtZones> {
    let datapaths = root.row().get("datapaths").as_map().iter();
    let row = |(kind, uuid): (&str, ib_ovsdb::Uuid)| {
        Some((kind.to_owned(), read_datapath(&Datapath::get(idl.view(), uuid)?)))
    };
    datapaths.filter_map(|(k, v)| Some((k.as_str()?, v.as_uuid()?))).filter_map(row).collect()
}

fn limit(value: Option<i64>) -> Option<u32> {
    value.map(|v| u32::try_from(v).unwrap_or(0))
}

fn read_datapath(row: &Datapath<'_>) -> CtZones {
    let zone = |(number, zone): (i64, CTZone<'_>)| Some((u16::try_from(number).ok()?, read_zone(&zone)));
    CtZones {
        default_limit: limit(row.ct_zone_default_limit()),
        zones: row.ct_zones().filter_map(zone).collect(),
    }
}

fn read_zone(row: &CTZone<'_>) -> CtZoneDesired {
    let policy = row.timeout_policy();
    CtZoneDesired {
        limit: limit(row.limit()),
        timeouts: policy.map(|p| {
            let pairs = p.row().get("timeouts").as_map().iter();
            timeouts(pairs.filter_map(|(k, v)| Some((k.as_str()?, v.as_integer()?))))
        }),
    }
}

fn timeouts<'a>(pairs: impl Iterator<Item = (&'a str, i64)>) -> CtTimeouts {
    let mut t = CtTimeouts::default();
    for (name, seconds) in pairs {
        let field = match name {
            "tcp_syn_sent" => &mut t.tcp_syn_sent,
            "tcp_syn_recv" => &mut t.tcp_syn_recv,
            "tcp_established" => &mut t.tcp_established,
            "tcp_fin_wait" => &mut t.tcp_fin_wait,
            "tcp_time_wait" => &mut t.tcp_time_wait,
            "tcp_close" => &mut t.tcp_close,
            "tcp_close_wait" => &mut t.tcp_close_wait,
            "tcp_last_ack" => &mut t.tcp_last_ack,
            "tcp_syn_sent2" => &mut t.tcp_syn_sent2,
            "tcp_retransmit" => &mut t.tcp_retransmit,
            "tcp_unack" => &mut t.tcp_unack,
            "udp_first" => &mut t.udp_first,
            "udp_single" => &mut t.udp_single,
            "udp_multiple" => &mut t.udp_multiple,
            "icmp_first" => &mut t.icmp_first,
            "icmp_reply" => &mut t.icmp_reply,
            _ => continue,
        };
        *field = u32::try_from(seconds).ok();
    }
    t
}

/// Gives a table what is wanted, where it differs from what was wanted before.
pub fn apply(table: &dyn CtControl, before: &CtZones, want: &CtZones) {
    if before.default_limit != want.default_limit {
        table.set_default_limit(want.default_limit.unwrap_or(0));
    }
    let none = CtZoneDesired::default();
    for zone in before.zones.keys().chain(want.zones.keys()) {
        let (old, new) = (before.zones.get(zone).unwrap_or(&none), want.zones.get(zone).unwrap_or(&none));
        if old.limit != new.limit {
            table.set_limit(*zone, new.limit);
        }
        if old.timeouts != new.timeouts {
            table.set_timeouts(*zone, new.timeouts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_timeouts() {
        let t = timeouts([("udp_first", 5), ("tcp_close", 9), ("tcp_unknown", 1)].into_iter());
        let want = CtTimeouts { udp_first: Some(5), tcp_close: Some(9), ..CtTimeouts::default() };
        assert_eq!(t, want);
    }
}
