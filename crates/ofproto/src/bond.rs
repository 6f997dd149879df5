//! Bonds of a bridge: joins [`ib_l2::bond`] to ports, translation and the `bond/*` commands.
//!
//! A bond is shared: translation asks it for members on any thread, the main thread tells it of links and time.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::OfPort;
use ib_l2::bond::{Bond, Link};
use ib_packet::Mac;
use parking_lot::Mutex;

use crate::switch::{Bridge, Switch};

/// A bond and its lock, which is held for a choice or an update, never across other locks.
pub type SharedBond = Arc<Mutex<Bond<OfPort>>>;

impl Bridge {
    /// Makes the bonds those of the bundles, with the members that there are.
    pub(crate) fn configure_bonds(&mut self) {
        let now = self.of.clock.now();
        let bundles = &mut self.bundles;
        for (name, (_, config)) in &bundles.bundles {
            let Some(wanted) = &config.bond else {
                bundles.bonds.remove(name);
                continue;
            };
            let bond = bundles
                .bonds
                .entry(name.clone())
                .or_insert_with(|| Arc::new(Mutex::new(Bond::new(name, wanted.clone(), now))));
            let links: Vec<Link<OfPort>> = config
                .ports
                .iter()
                .filter_map(|n| self.ports.get(n))
                .map(|p| Link {
                    port: p.ofport,
                    name: p.config.name.clone(),
                    mac: p.config.netdev.mac,
                    up: p.is_live(),
                })
                .collect();
            let mut bond = bond.lock();
            bond.configure(wanted.clone(), now);
            bond.set_links(&links, now);
        }
    }

    /// Does what is due.
    pub(crate) fn run_bonds(&mut self, now: Instant) {
        let mut stale = false;
        for bond in self.bundles.bonds.values() {
            stale |= bond.lock().run(now);
        }
        if stale {
            self.of.changed.bump();
        }
    }

    /// When [`Self::run_bonds`] is next due.
    pub(crate) fn bonds_deadline(&self) -> Option<Instant> {
        self.bundles.bonds.values().filter_map(|bond| bond.lock().deadline()).min()
    }

    /// Names of bonds and the addresses of their active members; zero: none is.
    pub fn active_members(&self) -> impl Iterator<Item = (&str, Mac)> {
        let mac = |bond: &SharedBond| bond.lock().active_mac().unwrap_or(Mac::ZERO);
        self.bundles.bonds.iter().map(move |(name, bond)| (name.as_str(), mac(bond)))
    }
}

fn bonds(switch: &Switch) -> impl Iterator<Item = (&String, &SharedBond)> {
    switch.bridges.values().flat_map(|b| &b.bundles.bonds)
}

fn find(switch: &Switch, name: &str) -> Result<SharedBond, String> {
    let found = bonds(switch).find(|(n, _)| *n == name);
    found.map(|(_, bond)| Arc::clone(bond)).ok_or_else(|| "no such bond".to_owned())
}

pub(crate) fn list(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let lines: String = bonds(switch).map(|(_, bond)| bond.lock().line()).collect();
    Ok(format!("bond\ttype\trecircID\tmembers\n{lines}"))
}

pub(crate) fn show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    match args {
        [name, ..] => Ok(find(switch, name)?.lock().show(now)),
        [] => Ok(bonds(switch).map(|(_, bond)| bond.lock().show(now)).collect()),
    }
}

// Forwarding follows with the main loop's next round, which finds the bond changed.

pub(crate) fn set_active(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    find(switch, args[0])?.lock().set_active(args[1])?;
    Ok("done\n".into())
}

pub(crate) fn enable(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    find(switch, args[0])?.lock().force(args[1], true)?;
    Ok("enabled\n".into())
}

pub(crate) fn disable(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    find(switch, args[0])?.lock().force(args[1], false)?;
    Ok("disabled\n".into())
}

pub(crate) fn migrate(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    find(switch, args[0])?.lock().migrate(args[1], args[2])?;
    Ok("migrated\n".into())
}

pub(crate) fn hash(_: &mut Switch, args: &[&str]) -> Result<String, String> {
    let mac: Mac = args[0].parse().map_err(|_| "invalid mac")?;
    let number = |i: usize, what: &str| match args.get(i) {
        None => Ok(0),
        Some(text) => text.parse::<u32>().map_err(|_| format!("invalid {what}")),
    };
    let (vlan, basis) = (number(1, "vlan")?, number(2, "basis")?);
    Ok(format!("{}\n", ib_flow::hash::bond(mac, vlan as u16, basis) % 256))
}
