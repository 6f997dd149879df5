//! Bonds whose members the datapath chooses by itself (`lb_output`): 256 buckets of a packet's hash, each with a port.
//!
//! Control threads publish a bond's buckets whole; workers look them up under a short read lock, and count bytes by bucket, from
//! which loads are balanced.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_dpif::DpifError;
use ib_flow::OdpPort;
use parking_lot::RwLock;

struct Bucket {
    port: OdpPort,
    bytes: AtomicU64,
}

/// All bonds of a datapath.
#[derive(Default)]
pub struct Bonds(RwLock<BTreeMap<u32, Arc<[Bucket]>>>);

impl Bonds {
    /// Makes or replaces a bond: the ports of its buckets, a power of two of them. Buckets go on counting.
    pub fn set(&self, id: u32, ports: &[OdpPort]) -> Result<(), DpifError> {
        if !ports.len().is_power_of_two() {
            return Err(DpifError::Invalid("bond buckets are no power of two".into()));
        }
        let mut bonds = self.0.write();
        let old = bonds.get(&id);
        let bytes = |i: usize| {
            old.and_then(|b: &Arc<[Bucket]>| b.get(i)).map_or(0, |b| b.bytes.load(Ordering::Relaxed))
        };
        let bucket = |(i, port): (usize, &OdpPort)| Bucket { port: *port, bytes: AtomicU64::new(bytes(i)) };
        let new = ports.iter().enumerate().map(bucket).collect();
        bonds.insert(id, new);
        Ok(())
    }

    /// Removes a bond.
    pub fn del(&self, id: u32) -> Result<(), DpifError> {
        self.0
            .write()
            .remove(&id)
            .map(|_| ())
            .ok_or_else(|| DpifError::NotFound(format!("bond {id} not found")))
    }

    /// Bytes by bucket since the bond came.
    pub fn bytes(&self, id: u32) -> Result<Vec<u64>, DpifError> {
        let bonds = self.0.read();
        let bond = bonds.get(&id).ok_or_else(|| DpifError::NotFound(format!("bond {id} not found")))?;
        Ok(bond.iter().map(|b| b.bytes.load(Ordering::Relaxed)).collect())
    }

    /// The port of a packet with this hash.
    pub fn choose(&self, id: u32, hash: u32, bytes: u64) -> Option<OdpPort> {
        let bonds = self.0.read();
        let bond = bonds.get(&id)?;
        let bucket = &bond[hash as usize & (bond.len() - 1)];
        bucket.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(bucket.port)
    }

    /// As `dpif-netdev/bond-show` prints them.
    pub fn show(&self) -> String {
        let mut out = String::new();
        let bonds = self.0.read();
        if !bonds.is_empty() {
            out.push_str("Bonds:\n");
        }
        for (id, buckets) in bonds.iter() {
            let _ = writeln!(out, "  bond-id {id}:");
            for (i, b) in buckets.iter().enumerate() {
                let _ = writeln!(out, "    bucket {i} - member {}", b.port.0);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_choose_and_count() {
        let bonds = Bonds::default();
        assert!(bonds.set(1, &[OdpPort(3); 3]).is_err());
        bonds.set(1, &[OdpPort(3), OdpPort(4)]).unwrap();
        assert_eq!((bonds.choose(1, 5, 100), bonds.choose(1, 6, 7)), (Some(OdpPort(4)), Some(OdpPort(3))));
        bonds.set(1, &[OdpPort(4), OdpPort(4)]).unwrap();
        assert_eq!((bonds.bytes(1).unwrap(), bonds.choose(2, 0, 1)), (vec![7, 100], None));
        assert!(bonds.show().ends_with("    bucket 1 - member 4\n"));
        assert!(bonds.del(1).is_ok() && bonds.del(1).is_err());
    }
}
