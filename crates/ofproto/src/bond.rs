//! Bonds of a bridge: joins [`ib_l2::bond`] to ports, translation and the `bond/*` commands.
//!
//! A bond is shared: translation asks it for members on any thread, the main thread tells it of links and time.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_flow::{OdpPort, OfPort};
use ib_l2::bond::{Bond, Link, Mode};
use ib_l2::lacp::Status;
use ib_packet::Mac;
use parking_lot::Mutex;

use crate::bond_rules::{self, BondRules, LbOutput};
use crate::recirc::RecircEntry;
use crate::switch::{Bridge, Switch};
use ib_flow::hash::chain_order;

/// A bond and its lock, which is held for a choice or an update, never across other locks.
pub type SharedBond = Arc<Mutex<Bond<OfPort>>>;

/// A bond and what of it is in the bridge's tables.
pub(crate) struct BondSlot {
    /// The machine.
    pub bond: SharedBond,
    /// Order in which bonds were made.
    seq: u64,
    /// Its number in the datapath, and what packets resume with that come back under it.
    recirc: Option<Arc<RecircEntry>>,
    rules: Option<BondRules>,
    lb_output: Option<LbOutput>,
}

impl Bridge {
    /// Makes the bonds those of the bundles, with the members that there are.
    pub(crate) fn configure_bonds(&mut self) {
        let now = self.of.clock.now();
        let gone: Vec<String> = (self.bundles.bonds.keys())
            .filter(|name| self.bundles.bundles.get(*name).is_none_or(|(_, c)| c.bond.is_none()))
            .cloned()
            .collect();
        for name in gone {
            self.drop_bond(&name);
        }
        let bundles = &mut self.bundles;
        let hash = |name: &String| ib_flow::hash::bytes(name.as_bytes(), 0);
        for name in chain_order(bundles.bundles.keys(), hash) {
            let Some((_, config)) = bundles.bundles.get(name) else { continue };
            let Some(wanted) = &config.bond else { continue };
            let slot = bundles.bonds.entry(name.clone()).or_insert_with(|| {
                bundles.bond_seq += 1;
                let bond = Arc::new(Mutex::new(Bond::new(name, wanted.clone(), now)));
                BondSlot { bond, seq: bundles.bond_seq, recirc: None, rules: None, lb_output: None }
            });
            if wanted.mode == Mode::ActiveBackup {
                slot.recirc = None;
            } else if slot.recirc.is_none() {
                slot.recirc = Some(self.backer.recirc.alloc_own(bond_rules::frozen_state(&self.of)));
            }
            let links: Vec<Link<OfPort>> = config
                .ports
                .iter()
                .filter_map(|n| self.ports.get(n))
                .map(|p| Link {
                    port: p.ofport,
                    name: p.config.name.clone(),
                    mac: p.config.netdev.mac,
                    carrier: p.has_carrier(),
                    up: p.is_live(),
                })
                .collect();
            let lacp = bundles.lacps.get(name).map_or(Status::Off, |(_, lacp)| lacp.lock().status());
            let mut bond = slot.bond.lock();
            bond.configure(wanted.clone(), now);
            bond.set_id(slot.recirc.as_ref().map_or(0, |entry| entry.id));
            bond.set_lacp(lacp, now);
            bond.set_links(&links, now);
        }
    }

    /// Takes a bond out of the tables.
    pub(crate) fn drop_bond(&mut self, name: &str) {
        let Some(slot) = self.bundles.bonds.remove(name) else { return };
        slot.bond.lock().set_links(&[], self.of.clock.now());
        if let Some(mut rules) = slot.rules {
            rules.set(&self.of, &[], self.of.clock.now());
        }
        if let Some(lb_output) = slot.lb_output {
            lb_output.remove(&*self.backer.dpif);
        }
    }

    /// Makes members' loads more equal where that is due. Best when flows' counters have just been read.
    pub(crate) fn rebalance_bonds(&mut self, now: Instant) {
        for slot in self.bundles.bonds.values_mut() {
            let mut bond = slot.bond.lock();
            if !bond.rebalance_due(now) {
                continue;
            }
            let of_rules = slot.rules.as_mut().map(BondRules::take_bytes);
            let of_datapath = slot.lb_output.as_mut().map(|lb| lb.take_bytes(&*self.backer.dpif));
            for bytes in of_rules.into_iter().chain(of_datapath) {
                bytes.into_iter().enumerate().for_each(|(bucket, bytes)| bond.account(bucket, bytes));
            }
            bond.rebalance(now);
        }
    }

    /// Does what is due.
    pub(crate) fn run_bonds(&mut self, now: Instant) {
        let mut stale = false;
        let mut announcing = Vec::new();
        for (name, slot) in &mut self.bundles.bonds {
            let mut bond = slot.bond.lock();
            stale |= bond.run(now);
            if bond.take_announce() {
                announcing.push(name.clone());
            }
            let (wants_lb_output, members) = bond.datapath_buckets().unwrap_or_default();
            let id = slot.recirc.as_ref().map_or(0, |entry| entry.id);
            drop(bond);
            // One table of members: the datapath's, or that of flows.
            let (in_datapath, in_rules) = if wants_lb_output && self.backer.dpif.has_bonds() {
                (members, Vec::new())
            } else {
                (Vec::new(), members)
            };
            if !in_datapath.is_empty() {
                let odp = |p: &OfPort| self.ports.get(p).and_then(|p| p.odp);
                let ports: Option<Vec<OdpPort>> = in_datapath.iter().map(odp).collect();
                let ports = ports.unwrap_or_default();
                slot.lb_output.get_or_insert_with(|| LbOutput::new(id)).set(&*self.backer.dpif, ports);
            } else if let Some(lb_output) = slot.lb_output.take() {
                lb_output.remove(&*self.backer.dpif);
            }
            if slot.rules.is_some() || !in_rules.is_empty() {
                slot.rules.get_or_insert_with(|| BondRules::new(id)).set(&self.of, &in_rules, now);
            }
        }
        if stale {
            ib_base::coverage::rev_bond.inc();
            self.of.changed.bump();
        }
        for name in announcing {
            self.announce(&name, now);
        }
    }

    /// Tells the neighbours of a bond by which member the addresses of this side are reached now: they see a frame
    /// from each of them.
    fn announce(&self, name: &str, now: Instant) {
        let bundles = &self.bundles;
        let (Some((id, _)), Some(slot)) = (bundles.bundles.get(name), bundles.bonds.get(name)) else {
            return;
        };
        let ml = self.of.ml.read();
        let behind_others: Vec<(Mac, u16)> =
            ml.entries(now).filter(|e| e.port != *id).map(|e| (e.mac, e.vlan)).collect();
        drop(ml);
        for (mac, vlan) in behind_others {
            let mut bond = slot.bond.lock();
            let hash = ib_flow::hash::bond(mac, vlan, bond.basis());
            let member = bond.member_for(hash);
            drop(bond);
            if let Some(port) = member {
                self.send_frame(port, &reverse_arp(mac, vlan));
            }
        }
    }

    /// When [`Self::run_bonds`] is next due.
    pub(crate) fn bonds_deadline(&self) -> Option<Instant> {
        self.bundles.bonds.values().filter_map(|slot| slot.bond.lock().deadline()).min()
    }

    /// Names of bonds and the addresses of their active members; zero: none is.
    pub fn active_members(&self) -> impl Iterator<Item = (&str, Mac)> {
        let mac = |slot: &BondSlot| slot.bond.lock().active_mac().unwrap_or(Mac::ZERO);
        self.bundles.bonds.iter().map(move |(name, slot)| (name.as_str(), mac(slot)))
    }
}

/// A reverse ARP request of an address for itself (RFC 903): bridges on its way learn where it is.
fn reverse_arp(mac: Mac, vlan: u16) -> Vec<u8> {
    let mut frame = Mac::BROADCAST.0.to_vec();
    frame.extend(mac.0);
    if vlan != 0 {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    for _ in 0..2 {
        frame.extend(mac.0);
        frame.extend([0; 4]);
    }
    frame
}

/// All bonds, in the order of Open vSwitch's table of them.
fn bonds(switch: &Switch) -> Vec<(&String, &SharedBond)> {
    let mut all: Vec<_> = switch.bridges.values().flat_map(|b| &b.bundles.bonds).collect();
    all.sort_by_key(|(_, slot)| slot.seq);
    let hash = |(name, _): (&String, &SharedBond)| ib_flow::hash::bytes(name.as_bytes(), 0);
    chain_order(all.into_iter().map(|(name, slot)| (name, &slot.bond)), hash)
}

fn find(switch: &Switch, name: &str) -> Result<SharedBond, String> {
    let found = bonds(switch).into_iter().find(|(n, _)| *n == name);
    found.map(|(_, bond)| Arc::clone(bond)).ok_or_else(|| "no such bond".to_owned())
}

pub(crate) fn list(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let lines: String = bonds(switch).iter().map(|(_, bond)| bond.lock().line()).collect();
    Ok(format!("bond\ttype\trecircID\tmembers\n{lines}"))
}

pub(crate) fn show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    match args {
        [name, ..] => Ok(find(switch, name)?.lock().show(now)),
        [] => Ok(bonds(switch).iter().map(|(_, bond)| bond.lock().show(now)).collect()),
    }
}

// Forwarding follows with the main loop's next round, which finds the bond changed.

pub(crate) fn set_active(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let is_news = find(switch, args[0])?.lock().set_active(args[1])?;
    Ok(if is_news { "done\n" } else { "no change\n" }.into())
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
