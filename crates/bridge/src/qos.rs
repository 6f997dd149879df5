//! QoS by the database: how a port shapes what it sends, and what its interfaces may receive.

use std::collections::BTreeMap;

use ib_base::vlog_warn;
use ib_netdev::Netdev;
use ib_netdev::qos::{Details, Policing, Shaping};
use ib_ovsdb::idl::vswitch::{Interface, Port};

use crate::log::BRIDGE;

/// Reads what a port wants; `None`: nothing.
pub(crate) fn read(row: &Port<'_>) -> Option<Shaping> {
    let qos = row.qos().filter(|q| !q.type_().is_empty())?;
    let mut queues: BTreeMap<u32, Details> = qos
        .queues()
        .filter_map(|(id, q)| {
            let details = q.other_config().iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
            Some((u32::try_from(id).ok()?, details.collect()))
        })
        .collect();
    // What is in no queue goes somewhere.
    queues.entry(0).or_default();
    Some(Shaping {
        kind: qos.type_().to_owned(),
        details: qos.other_config().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        queues,
    })
}

/// Reads the limits of an interface.
pub(crate) fn read_policing(row: &Interface<'_>) -> Policing {
    let number = |v: i64| u32::try_from(v.max(0)).unwrap_or(u32::MAX);
    Policing {
        rate_kbps: number(row.ingress_policing_rate()),
        burst_kb: number(row.ingress_policing_burst()),
        rate_kpps: number(row.ingress_policing_kpkts_rate()),
        burst_kpkts: number(row.ingress_policing_kpkts_burst()),
    }
}

/// Makes a device shape and police as wanted. What it refuses is the log's matter: the port works without.
pub(crate) fn configure(dev: &dyn Netdev, shaping: Option<&Shaping>, policing: &Policing) {
    let name = dev.name();
    // Devices that cannot police are many, and the original does not complain of them.
    let _ = dev.set_policing(policing);
    let mut complain = |what: &str| vlog_warn!(BRIDGE, "interface {name}: {what}");
    // A refusal of the kernel is in the log already.
    let _ = shaping.unwrap_or(&Shaping::default()).apply(dev, &mut complain);
}
