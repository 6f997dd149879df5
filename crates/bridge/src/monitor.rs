//! Machines that watch links by the database: which are wanted, and what of them goes back.

use std::collections::BTreeMap;

use ib_ofproto::config::{AutoAttachConfig, BfdConfig, CfmConfig, DescConfig, MonitorConfig};
use ib_ofproto::monitor::MonitorStatus;
use ib_ovsdb::idl::vswitch::{Bridge, Interface};
use ib_ovsdb::{Atom, Datum};

use crate::columns::{self, Column};

/// Reads an interface's settings.
pub(crate) fn read_interface(row: &Interface<'_>) -> MonitorConfig {
    let (bfd, other, lldp) = (row.bfd(), row.other_config(), row.lldp());
    MonitorConfig {
        bfd: BfdConfig::from_pairs(|key| bfd.get(key)),
        cfm: CfmConfig::from_pairs(row.cfm_mpid(), |key| other.get(key)),
        lldp: lldp.iter().next().map(|_| lldp.get_bool("enable", false)),
    }
}

/// Reads what a bridge tells its neighbours.
pub(crate) fn read_auto_attach(row: &Bridge<'_>) -> AutoAttachConfig {
    let or_default = |text: &str| match text {
        "" => format!("openvswitch {}", DescConfig::default().sw),
        text => text.to_owned(),
    };
    let Some(row) = row.auto_attach() else {
        return AutoAttachConfig { system_description: or_default(""), ..AutoAttachConfig::default() };
    };
    let pair = |(isid, vlan): &(Atom, Atom)| match (isid, vlan) {
        (Atom::Integer(isid), Atom::Integer(vlan)) => {
            Some((u32::try_from(*isid).ok()?, u16::try_from(*vlan).ok()?))
        }
        _ => None,
    };
    AutoAttachConfig {
        system_name: row.system_name().to_owned(),
        system_description: or_default(row.system_description()),
        mappings: row.mappings().as_map().iter().filter_map(pair).collect(),
    }
}

/// The columns of an interface.
pub(crate) fn columns(status: &MonitorStatus) -> Vec<Column> {
    let bfd = status.bfd.map_or_else(BTreeMap::new, |s| {
        let pairs = [
            ("forwarding", s.forwarding.to_string()),
            ("state", s.state.name().to_owned()),
            ("diagnostic", s.diagnostic.name().to_owned()),
            ("remote_state", s.remote_state.name().to_owned()),
            ("remote_diagnostic", s.remote_diagnostic.name().to_owned()),
            ("flap_count", s.flap_count.to_string()),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    });
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let cfm = status.cfm.as_ref();
    let opstate = cfm.and_then(|s| s.remote_opup).map(|up| if up { "up" } else { "down" });
    let faults = cfm.map(|s| s.faults.names().map(Atom::from).collect::<Vec<_>>());
    // Identifiers of 64 bits are signed in the database.
    let mpids = cfm.map(|s| s.remote_mpids.iter().map(|id| Atom::from(id.cast_signed())).collect::<Vec<_>>());
    vec![
        ("bfd_status", columns::strings(&bfd)),
        ("cfm_fault", columns::optional(cfm.map(|s| s.faults.any()))),
        ("cfm_fault_status", Datum::set(faults.unwrap_or_default())),
        ("cfm_flap_count", columns::optional(cfm.map(|s| number(s.flap_count)))),
        ("cfm_remote_opstate", columns::optional(opstate)),
        ("cfm_health", columns::optional(cfm.and_then(|s| s.health).map(i64::from))),
        ("cfm_remote_mpids", Datum::set(mpids.unwrap_or_default())),
    ]
}
