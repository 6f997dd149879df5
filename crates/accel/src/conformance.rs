//! What every accelerator must do, as a suite that each runs in its tests: see [`all`].
//!
//! A provider shows itself as a [`Bed`]: the accelerator, and a way to let frames in. The suite adds the ports [`IN`] and [`OUT`], and asks for nothing but a
//! match on the destination's address, so that chips with few fields pass, too. It panics where the contract is broken.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ib_base::rng::Rng;
use ib_dpif::Action;
use ib_flow::{Flow, Mask, Metadata, OdpPort, extract};
use ib_packet::{Be16, Mac, Packet};

use crate::{Accelerator, Counters, Device, EntryId, Reason, Receivers};

/// Where packets enter. The device is the loopback one.
pub const IN: OdpPort = OdpPort(7);
/// Where they may leave, by the same device.
pub const OUT: OdpPort = OdpPort(8);

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// User space has it.
    Up,
    /// It was taken; what left can't be seen.
    Taken,
    /// It was taken, and this left.
    Out(Vec<(OdpPort, Vec<u8>)>),
}

/// An accelerator under test.
pub trait Bed {
    /// It.
    fn accelerator(&mut self) -> &mut dyn Accelerator;
    /// Returns when all that was asked for has been done.
    fn settle(&mut self);
    /// Lets a frame in by [`IN`].
    fn send(&mut self, port: OdpPort, frame: &[u8]) -> Sent;
}

struct Nobody;
impl Receivers for Nobody {
    fn set_filter(&self, _: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
        Ok(())
    }
}

/// Adds the suite's ports.
pub fn add_ports(accelerator: &mut dyn Accelerator) {
    let device = Device { ifindex: 1, max_frame: 1514 };
    accelerator.port_add(IN, device, Some(Arc::new(Nobody)));
    accelerator.port_add(OUT, device, None);
}

/// A frame (UDP over IPv4) to the n-th station.
pub fn frame(n: u8) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, n, 2, 0, 0, 0, 1, 1, 8, 0, 0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0, 0];
    f.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80, 0, 26, 0, 0]);
    f.resize(60, 0xaa);
    f
}

/// Its key.
pub fn key(n: u8) -> Flow {
    let mut key = Flow::zeroed();
    extract(&Packet::from_frame(&frame(n)), &Metadata { in_port: IN, ..Metadata::default() }, &mut key);
    key
}

/// The mask of the suite's flows.
pub fn mask() -> Mask {
    let mut mask = Mask::default();
    let m = &mut mask.0;
    (m.in_port, m.dl_type, m.nw_frag, m.dl_dst) = (u32::MAX, Be16::MAX, 0xff, Mac([0xff; 6]));
    mask
}

/// Puts a flow, and again while the accelerator is making the port of entry ready.
fn put(bed: &mut dyn Bed, n: u8, actions: &[Action]) -> Result<EntryId, Reason> {
    for _ in 0..5000 {
        let made = bed.accelerator().put(&key(n), &mask(), actions);
        if made != Err(Reason::Preparing) {
            return made;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the port of entry does not get ready");
}

/// Whether the n-th frame is taken; if it is, it must have left as it came by `out`.
fn taken(bed: &mut dyn Bed, n: u8, out: &[OdpPort]) -> bool {
    match bed.send(IN, &frame(n)) {
        Sent::Up => false,
        Sent::Taken => true,
        Sent::Out(left) => {
            let whole: Vec<_> = out.iter().map(|port| (*port, frame(n))).collect();
            assert_eq!(left, whole, "what left");
            true
        }
    }
}

/// Runs all of it.
pub fn all(bed: &mut dyn Bed) {
    assert_eq!(put(bed, 1, &[]), Err(Reason::InPort), "a port that is not there");
    add_ports(bed.accelerator());
    ways_out_must_be_known(bed);
    takes_counts_and_gives_back(bed);
    keeps_to_its_room(bed);
    random_operations_are_those_of_a_map(bed);
}

fn ways_out_must_be_known(bed: &mut dyn Bed) {
    let strange = [Action::Output(OdpPort(99))];
    assert_eq!(put(bed, 1, &strange), Err(Reason::OutPort));
    assert_eq!(bed.accelerator().check(&key(1), &mask(), &strange), Err(Reason::OutPort));
    let recirculated = Flow { recirc_id: 1, ..key(1) };
    assert_eq!(bed.accelerator().check(&recirculated, &mask(), &[]), Err(Reason::Recirculated));
}

fn takes_counts_and_gives_back(bed: &mut dyn Bed) {
    assert!(!taken(bed, 1, &[]));
    let out = [Action::Output(OUT)];
    assert_eq!(bed.accelerator().check(&key(1), &mask(), &out), Ok(()));
    let id = put(bed, 1, &out).expect("room for one flow");
    assert_eq!(put(bed, 1, &out), Err(Reason::Present));
    bed.settle();
    assert_eq!(bed.accelerator().counters(id), Counters::default(), "a new entry");
    assert!(taken(bed, 1, &[OUT]) && taken(bed, 1, &[OUT]));
    assert!(!taken(bed, 2, &[]), "another packet");
    let counters = bed.accelerator().remove(id);
    assert_eq!((counters.packets, counters.bytes), (2, 120));
    assert!(counters.used_ns > 0 && counters.used_ns <= bed.accelerator().now_ns());
    assert!(!taken(bed, 1, &[]), "a packet of an entry that was removed");
    assert_eq!(bed.accelerator().remove(id), Counters::default(), "removed twice");
    // One that was removed before it was written does not come after all.
    let id = put(bed, 1, &out).expect("room again");
    bed.accelerator().remove(id);
    bed.settle();
    assert!(!taken(bed, 1, &[]), "an entry that was removed before it was written");
}

fn keeps_to_its_room(bed: &mut dyn Bed) {
    let room = bed.accelerator().capacity();
    if room > 200 {
        return;
    }
    let ids: Vec<EntryId> = (0..room as u8).map(|n| put(bed, n, &[]).expect("room")).collect();
    assert_eq!(put(bed, 255, &[]), Err(Reason::Full));
    bed.settle();
    assert!(!taken(bed, 255, &[]), "a flow for which there was no room");
    for (n, id) in (0..).zip(ids) {
        assert!(taken(bed, n, &[]));
        assert_eq!(bed.accelerator().remove(id).packets, 1);
    }
}

fn random_operations_are_those_of_a_map(bed: &mut dyn Bed) {
    let mut rng = Rng::new(7);
    let mut map: BTreeMap<u8, (EntryId, bool, u64)> = BTreeMap::new();
    let room = bed.accelerator().capacity();
    for step in 0..2000 {
        let n = rng.below(10) as u8;
        let forward = rng.below(2) == 0;
        match rng.below(6) {
            0 => {
                let actions = if forward { vec![Action::Output(OUT)] } else { Vec::new() };
                match put(bed, n, &actions) {
                    Ok(id) => {
                        assert!(map.insert(n, (id, forward, 0)).is_none(), "step {step}: made twice");
                        bed.settle();
                    }
                    Err(Reason::Present) => assert!(map.contains_key(&n), "step {step}"),
                    Err(Reason::Full) => assert!(map.len() >= room, "step {step}"),
                    Err(other) => panic!("step {step}: {other}"),
                }
            }
            1 => {
                if let Some((id, _, packets)) = map.remove(&n) {
                    assert_eq!(bed.accelerator().remove(id).packets, packets, "step {step}");
                }
            }
            _ => {
                let out = map.get(&n).filter(|(_, forward, _)| *forward).map_or(&[][..], |_| &[OUT]);
                assert_eq!(taken(bed, n, out), map.contains_key(&n), "step {step}");
                if let Some((id, _, packets)) = map.get_mut(&n) {
                    *packets += 1;
                    assert_eq!(bed.accelerator().counters(*id).packets, *packets, "step {step}");
                }
            }
        }
    }
    for (id, _, packets) in map.into_values() {
        assert_eq!(bed.accelerator().remove(id).packets, packets);
    }
}
