//! The status columns of an Interface row, from what its device says of itself.
//!
//! Values are built as the database's data; [`Written`] remembers what was written last, so that an
//! unchanged port costs a comparison and no transaction.

use std::collections::{BTreeMap, HashMap};

use ib_netdev::{Flags, Netdev, TX_OFFLOADS};
use ib_ovsdb::idl::{Idl, Txn};
use ib_ovsdb::{Atom, Datum, Uuid};

/// A column's name and value.
pub type Column = (&'static str, Datum);

/// No value.
pub fn none() -> Datum {
    Datum::set([])
}

/// An optional value.
pub fn optional(value: Option<impl Into<Atom>>) -> Datum {
    value.map_or_else(none, Datum::scalar)
}

/// A map of strings.
pub fn strings(map: &BTreeMap<String, String>) -> Datum {
    Datum::map(map.iter().map(|(k, v)| (Atom::from(k.as_str()), Atom::from(v.as_str()))))
}

/// The columns of an interface whose port could not be made: number -1 and why.
pub fn failed(error: &str) -> Vec<Column> {
    let mut columns = cleared();
    columns.push(("ofport", Datum::scalar(-1)));
    columns.push(("error", Datum::scalar(error)));
    columns
}

/// The columns of an interface without a device.
fn cleared() -> Vec<Column> {
    let empty = [
        "admin_state",
        "duplex",
        "ifindex",
        "lacp_current",
        "link_resets",
        "link_speed",
        "link_state",
        "mac_in_use",
        "mtu",
    ];
    let mut columns: Vec<Column> = empty.iter().map(|c| (*c, none())).collect();
    columns.push(("statistics", Datum::map([])));
    columns.push(("status", Datum::map([])));
    columns
}

/// The `status` of a device. Of a user-space datapath, whose packets wait for checksums and segmentation until a device
/// takes them, it says what the device does of that.
fn status(dev: &dyn Netdev, of_userspace: bool) -> Datum {
    let mut pairs = dev.status();
    if of_userspace {
        let able = dev.tx_offloads();
        pairs
            .extend(TX_OFFLOADS.map(|what| (format!("tx_{what}_offload"), able.contains(&what).to_string())));
    }
    strings(&pairs)
}

/// The columns of a device in use, but its counters. One call costs a few system calls.
pub fn of_device(dev: &dyn Netdev, ofport: u16, of_userspace: bool) -> Vec<Column> {
    let flags = dev.flags().unwrap_or_default();
    let carrier = dev.carrier();
    let up_down = |up: bool| Datum::scalar(if up { "up" } else { "down" });
    let speed = dev.link_speed().ok();
    let bits = speed.map(|s| i64::from(s.current_mbps) * 1_000_000).filter(|s| *s != 0);
    let duplex = speed.and_then(|s| s.full_duplex).map(|full| if full { "full" } else { "half" });
    let index = dev.ifindex().map_or(0, i64::from);
    vec![
        ("ofport", Datum::scalar(i64::from(ofport))),
        ("error", none()),
        ("admin_state", up_down(flags.contains(Flags::UP))),
        ("link_state", up_down(carrier.up)),
        ("link_resets", Datum::scalar(i64::try_from(carrier.resets).unwrap_or(i64::MAX))),
        ("link_speed", optional(bits)),
        ("duplex", optional(duplex)),
        ("mac_in_use", optional(dev.mac().ok().map(|m| m.to_string()))),
        ("mtu", optional(dev.mtu().ok().map(i64::from))),
        ("ifindex", Datum::scalar(index)),
        ("status", status(dev, of_userspace)),
    ]
}

/// The `error` column.
pub fn error(why: Option<&str>) -> Column {
    ("error", optional(why))
}

/// A map of counters.
pub fn counters(pairs: &[(&str, u64)]) -> Datum {
    let atom = |v: u64| Atom::from(i64::try_from(v).unwrap_or(i64::MAX));
    Datum::map(pairs.iter().map(|(name, v)| (Atom::from(*name), atom(*v))))
}

/// The `statistics` column of a device: what it counts.
pub fn statistics(dev: &dyn Netdev) -> Datum {
    let stats = dev.stats().unwrap_or_default();
    let custom = dev.custom_stats();
    let known = stats.entries().filter_map(|(name, v)| Some((name, v?)));
    let pairs: Vec<(&str, u64)> = known.chain(custom.iter().map(|(n, v)| (n.as_str(), *v))).collect();
    counters(&pairs)
}

/// What was last written into each row.
#[derive(Default)]
pub struct Written {
    rows: HashMap<Uuid, BTreeMap<&'static str, Datum>>,
}

impl Written {
    /// Puts those of `columns` that differ from the database into `txn`. `table` must have the columns.
    pub fn write(&mut self, idl: &Idl, txn: &mut Txn, table: &str, uuid: Uuid, columns: Vec<Column>) {
        if columns.is_empty() || idl.row(table, uuid).is_none() {
            return;
        }
        let last = self.rows.entry(uuid).or_default();
        for (column, value) in columns {
            if last.get(column) == Some(&value) {
                continue;
            }
            // What another client wrote meanwhile loses: these columns are ours.
            let differs = idl.row(table, uuid).is_none_or(|row| *row.get(column) != value);
            if differs {
                txn.set_at(idl, table, uuid, column, value.clone());
            }
            last.insert(column, value);
        }
    }
    /// Forgets everything: after a failed transaction or a reconnection.
    pub fn forget(&mut self) {
        self.rows.clear();
    }
    /// Forgets rows that are gone.
    pub fn retain(&mut self, keep: impl Fn(Uuid) -> bool) {
        self.rows.retain(|uuid, _| keep(*uuid));
    }
}
