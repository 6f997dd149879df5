//! The shortest accelerator: a table of destination addresses for each port of entry, as the cheapest switch chips have.
//!
//! Start from here for a new chip: replace the map by writes to the chip, and [`Switch::frame`] by the chip itself. The test runs the suite that every
//! accelerator must pass; `cargo run -p ib-accel --example provider` forwards one packet.

use std::collections::HashMap;
use std::sync::Arc;

use ib_accel::conformance::{self, Bed, Sent};
use ib_accel::entry::{self, Fields, Verdict};
use ib_accel::{Accelerator, Counters, Device, EntryId, Reason, Receivers};
use ib_dpif::Action;
use ib_flow::{Flow, Mask, OdpPort};

const ROOM: u32 = 64;

/// Where an entry is: port of entry, destination.
type Place = (u32, [u8; 6]);

#[derive(Default)]
struct Switch {
    /// Whether packets may enter there.
    ports: HashMap<OdpPort, bool>,
    table: HashMap<Place, (EntryId, Verdict, Counters)>,
    now_ns: u64,
}

impl Switch {
    /// What the hardware does with a frame.
    fn frame(&mut self, port: OdpPort, frame: &[u8]) -> Option<Vec<(OdpPort, Vec<u8>)>> {
        self.now_ns += 1;
        let dst = frame.get(..6)?.try_into().ok()?;
        // Only what it understands: untagged IPv4 and UDP, and no fragments.
        if frame.get(12..15)? != [8, 0, 0x45] || frame.get(20..22)? != [0x40, 0] || *frame.get(23)? != 17 {
            return None;
        }
        let (_, verdict, counters) = self.table.get_mut(&(port.0, dst))?;
        counters.packets += 1;
        counters.bytes += frame.len() as u64;
        counters.used_ns = self.now_ns;
        Some(verdict.outputs.iter().map(|out| (*out, frame.to_vec())).collect())
    }

    fn place(&self, id: EntryId) -> Option<Place> {
        self.table.iter().find(|(_, (at, ..))| *at == id).map(|(place, _)| *place)
    }

    /// The one check of all that it can't do.
    fn verdict(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<Verdict, Reason> {
        entry::check_match(key, mask)?;
        if key.dl_type.get() != 0x0800 || !key.vlans[0].tpid.is_zero() {
            return Err(Reason::Ethertype);
        }
        if key.nw_proto != 17 {
            return Err(Reason::Protocol);
        }
        // It knows the protocol, so a flow may look at that; packets with IP options or without DF are user space's.
        if !Fields::DL_DST.with(Fields::NW_PROTO).with(Fields::VLAN).covers(Fields::of(mask)) {
            return Err(Reason::Match);
        }
        if self.ports.get(&OdpPort(key.in_port)) != Some(&true) {
            return Err(Reason::InPort);
        }
        let verdict = entry::verdict(key, mask, actions)?;
        let plain = Verdict { outputs: verdict.outputs.clone(), ..Verdict::default() };
        if verdict != plain {
            return Err(Reason::Action);
        }
        let known = verdict.outputs.iter().all(|port| self.ports.contains_key(port));
        if known { Ok(verdict) } else { Err(Reason::OutPort) }
    }
}

impl Accelerator for Switch {
    fn name(&self) -> &'static str {
        "example"
    }
    fn port_add(&mut self, port: OdpPort, _: Device, receivers: Option<Arc<dyn Receivers>>) {
        self.ports.insert(port, receivers.is_some());
    }
    fn port_del(&mut self, port: OdpPort) {
        self.ports.remove(&port);
    }
    fn check(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<(), Reason> {
        self.verdict(key, mask, actions).map(|_| ())
    }
    fn put(&mut self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<EntryId, Reason> {
        let verdict = self.verdict(key, mask, actions)?;
        let place = (key.in_port, key.dl_dst.0);
        if self.table.contains_key(&place) {
            return Err(Reason::Present);
        }
        let id = (0..ROOM).map(EntryId).find(|id| self.place(*id).is_none()).ok_or(Reason::Full)?;
        self.table.insert(place, (id, verdict, Counters::default()));
        Ok(id)
    }
    fn remove(&mut self, id: EntryId) -> Counters {
        let gone = self.place(id).and_then(|place| self.table.remove(&place));
        gone.map_or_else(Counters::default, |(_, _, counters)| counters)
    }
    fn counters(&self, id: EntryId) -> Counters {
        let found = self.place(id).and_then(|place| self.table.get(&place));
        found.map_or_else(Counters::default, |(_, _, counters)| *counters)
    }
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn capacity(&self) -> usize {
        ROOM as usize
    }
}

impl Bed for Switch {
    fn accelerator(&mut self) -> &mut dyn Accelerator {
        self
    }
    fn settle(&mut self) {}
    fn send(&mut self, port: OdpPort, frame: &[u8]) -> Sent {
        self.frame(port, frame).map_or(Sent::Up, Sent::Out)
    }
}

fn main() {
    let mut switch = Switch::default();
    conformance::add_ports(&mut switch);
    let out = [Action::Output(conformance::OUT)];
    let made = switch.put(&conformance::key(1), &conformance::mask(), &out);
    println!("{made:?}; a packet: {:?}", switch.send(conformance::IN, &conformance::frame(1)));
}

#[test]
fn keeps_the_contract() {
    conformance::all(&mut Switch::default());
}
