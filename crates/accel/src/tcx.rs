//! The accelerator in the Linux kernel: maps, programs and what they are attached to; see [`crate::program`].
//!
//! Order matters when it goes on a port: the obeying program first, then the deciding one, so that there is never a verdict that
//! nobody carries out; and the other way round when it leaves. To attach or detach a program takes the kernel some 15 ms (it waits for all processors),
//! so a port gets its program only when one of its flows is hot, and a thread of our own does the waiting.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use ib_dpif::Action;
use ib_flow::extract::proto;
use ib_flow::{Flow, Mask, OdpPort};
use ib_sys::bpf::{self, Link, Map, MapKind, Mapped, Program, ProgramKind};
use ib_sys::errno::EEXIST;

use crate::entry::{self, Fields, KEY_LEN, VALUE_LEN, Verdict};
use crate::program::{self, COUNTER_LEN, ENTRIES, Maps, SLOT_LEN, counter_at};
use crate::{Accelerator, Counters, Device, EntryId, Reason, Receivers};

/// A port where packets may enter.
struct Ingress {
    receivers: Arc<dyn Receivers>,
    /// What the filter in force compares.
    fields: Fields,
    entries: usize,
    state: Attached,
}

enum Attached {
    No,
    Asked,
    Yes(Link),
    /// It can't be.
    Never,
}

/// What the thread is asked to do.
enum Slow {
    Attach(OdpPort, i32),
    Detach(Link),
}

/// What the thread has attached: port, interface, link.
type Ready = Arc<Mutex<Vec<(OdpPort, i32, std::io::Result<Link>)>>>;

/// The thread: ends when nobody can ask any more.
fn start_slow(obey: Program) -> std::io::Result<(Sender<Slow>, Ready)> {
    let (sender, asked) = std::sync::mpsc::channel();
    let ready = Ready::default();
    let done = Arc::clone(&ready);
    std::thread::Builder::new().name("accel".into()).spawn(move || {
        for what in asked {
            match what {
                Slow::Attach(port, ifindex) => {
                    let link = Link::ingress(&obey, ifindex);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((port, ifindex, link));
                }
                Slow::Detach(link) => drop(link),
            }
        }
    })?;
    Ok((sender, ready))
}

struct Port {
    device: Device,
    ingress: Option<Ingress>,
}

struct Entry {
    key: [u8; KEY_LEN],
    port: OdpPort,
}

/// See the module.
pub struct Tcx {
    entries_map: Map,
    counters: Mapped,
    maps: Maps,
    slow: Sender<Slow>,
    ready: Ready,
    /// Filters by what they compare.
    filters: BTreeMap<Fields, Program>,
    ports: HashMap<OdpPort, Port>,
    entries: Vec<Option<Entry>>,
    /// Numbers to use again, those longest out of use first: a program that has just looked up an entry may still count.
    free: VecDeque<u32>,
    /// They live as long as the programs that use them; here for [`Maps`]' descriptors.
    _kept: [Map; 2],
}

impl Tcx {
    /// Makes maps and programs. The error says what is missing.
    pub fn new() -> Result<Tcx, String> {
        let say = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
        let entries_map = Map::new(MapKind::Hash, "ib_entries", KEY_LEN, VALUE_LEN, ENTRIES);
        let entries_map = entries_map.map_err(say("cannot make a BPF map"))?;
        let counters_len = COUNTER_LEN * ENTRIES as usize;
        let counters_map = Map::new(MapKind::Array, "ib_counters", 4, counters_len, 1);
        let counters_map = counters_map.map_err(say("cannot make a BPF map for counters"))?;
        let slots = Map::new(MapKind::PerCpuArray, "ib_slots", 4, SLOT_LEN, 1);
        let slots = slots.map_err(say("cannot make a BPF map for verdicts"))?;
        let counters = Mapped::new(&counters_map).map_err(say("cannot map counters"))?;
        let maps = Maps {
            entries: entries_map.as_raw_fd(),
            counters: counters_map.as_raw_fd(),
            slots: slots.as_raw_fd(),
        };
        let obey = Program::load(ProgramKind::Tcx, "ib_obey", &program::tcx(maps));
        let obey = obey.map_err(say("cannot load the BPF program of ports"))?;
        let (slow, ready) = start_slow(obey).map_err(say("cannot start a thread"))?;
        let mut tcx = Tcx {
            entries_map,
            counters,
            maps,
            slow,
            ready,
            filters: BTreeMap::new(),
            ports: HashMap::new(),
            entries: Vec::new(),
            free: VecDeque::new(),
            _kept: [counters_map, slots],
        };
        // What the kernel thinks of the biggest filter is known at once.
        tcx.filter(Fields::ALL).map_err(say("cannot load the BPF program of sockets"))?;
        Ok(tcx)
    }

    fn filter(&mut self, fields: Fields) -> std::io::Result<&Program> {
        if !self.filters.contains_key(&fields) {
            let code = program::filter(fields, self.maps);
            self.filters.insert(fields, Program::load(ProgramKind::SocketFilter, "ib_decide", &code)?);
        }
        self.filters.get(&fields).ok_or_else(|| std::io::Error::from_raw_os_error(EEXIST))
    }

    /// Has the filter of a port compare these fields.
    fn set_fields(&mut self, port: OdpPort, fields: Fields) -> std::io::Result<()> {
        self.filter(fields)?;
        let Some(program) = self.filters.get(&fields) else { return Ok(()) };
        if let Some(ingress) = self.ports.get_mut(&port).and_then(|p| p.ingress.as_mut()) {
            ingress.receivers.set_filter(Some(program.as_fd()))?;
            ingress.fields = fields;
        }
        Ok(())
    }

    /// Takes a port's filter away, and has its program follow.
    fn close(&mut self, ingress: Ingress) {
        // A device that is gone has neither.
        let _ = ingress.receivers.set_filter(None);
        if let Attached::Yes(link) = ingress.state {
            // The thread lives as long as we do.
            let _ = self.slow.send(Slow::Detach(link));
        }
    }

    /// Takes over what the thread has attached.
    fn collect(&mut self) {
        let ready = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        for (port, ifindex, link) in ready {
            let port = self.ports.get_mut(&port).filter(|p| p.device.ifindex == ifindex);
            match (port.and_then(|p| p.ingress.as_mut()), link) {
                (Some(ingress), Ok(link)) if matches!(ingress.state, Attached::Asked) => {
                    ingress.state = Attached::Yes(link);
                }
                (Some(ingress), Err(_)) => ingress.state = Attached::Never,
                (_, Ok(link)) => drop(self.slow.send(Slow::Detach(link))),
                (None, Err(_)) => {}
            }
        }
    }

    /// Whether packets that enter by `port` can be taken now; if not yet, sees to it.
    fn prepare(&mut self, port: OdpPort) -> Result<(), Reason> {
        self.collect();
        let port_state = self.ports.get_mut(&port).ok_or(Reason::InPort)?;
        let ingress = port_state.ingress.as_mut().ok_or(Reason::InPort)?;
        match ingress.state {
            Attached::Yes(_) => Ok(()),
            Attached::Asked => Err(Reason::Preparing),
            Attached::Never => Err(Reason::Refused),
            Attached::No => {
                ingress.state = Attached::Asked;
                let asked = self.slow.send(Slow::Attach(port, port_state.device.ifindex));
                Err(if asked.is_ok() { Reason::Preparing } else { Reason::Refused })
            }
        }
    }

    fn devices(&self, verdict: &Verdict) -> Result<Vec<Device>, Reason> {
        let device = |p| self.ports.get(p).map(|p| p.device).ok_or(Reason::OutPort);
        verdict.outputs.iter().map(device).collect()
    }

    fn ingress(&self, port: u32) -> Result<(&Port, &Ingress), Reason> {
        let port = self.ports.get(&OdpPort(port)).ok_or(Reason::InPort)?;
        Ok((port, port.ingress.as_ref().ok_or(Reason::InPort)?))
    }

    fn words(&self, id: EntryId) -> &[AtomicU64] {
        let from = id.0 as usize * (COUNTER_LEN / 8);
        self.counters.words().get(from..from + COUNTER_LEN / 8).unwrap_or_default()
    }
}

impl Drop for Tcx {
    fn drop(&mut self) {
        for port in std::mem::take(&mut self.ports).into_values() {
            if let Some(ingress) = port.ingress {
                self.close(ingress);
            }
        }
    }
}

impl Accelerator for Tcx {
    fn name(&self) -> &'static str {
        "tcx"
    }

    fn port_add(&mut self, port: OdpPort, device: Device, receivers: Option<Arc<dyn Receivers>>) {
        self.port_del(port);
        let new =
            |receivers| Ingress { receivers, fields: Fields::default(), entries: 0, state: Attached::No };
        self.ports.insert(port, Port { device, ingress: receivers.map(new) });
    }

    fn port_del(&mut self, port: OdpPort) {
        if let Some(ingress) = self.ports.remove(&port).and_then(|p| p.ingress) {
            self.close(ingress);
        }
    }

    fn check(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<(), Reason> {
        self.ingress(key.in_port)?;
        entry::check_match(key, mask)?;
        self.devices(&entry::verdict(key, mask, actions)?).map(|_| ())
    }

    fn put(&mut self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<EntryId, Reason> {
        entry::check_match(key, mask)?;
        let verdict = entry::verdict(key, mask, actions)?;
        let devices = self.devices(&verdict)?;
        let (in_port, wanted) = (OdpPort(key.in_port), Fields::of(mask));
        self.prepare(in_port)?;
        let (port, ingress) = self.ingress(key.in_port)?;
        let ifindex = port.device.ifindex;
        let fields = if ingress.entries == 0 { wanted } else { ingress.fields.with(wanted) };
        if fields != ingress.fields || ingress.entries == 0 {
            self.set_fields(in_port, fields).map_err(|_| Reason::Refused)?;
        }
        let key_bytes = entry::encode(key, fields, ifindex);
        let id = match self.free.front() {
            Some(id) => *id,
            None => u32::try_from(self.entries.len()).ok().filter(|n| *n < ENTRIES).ok_or(Reason::Full)?,
        };
        let v6 = key.dl_type.get() == proto::ETH_IPV6;
        let outputs: Vec<i32> = devices.iter().map(|d| d.ifindex).collect();
        let max_frame = devices.iter().map(|d| d.max_frame).min().unwrap_or(u32::MAX);
        let value = entry::encode_value(&verdict, v6, id, max_frame, &outputs);
        // Nobody writes to the counters of an entry that is not there.
        self.words(EntryId(id)).iter().for_each(|w| w.store(0, Ordering::Relaxed));
        match self.entries_map.insert(&key_bytes, &value) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(EEXIST) => return Err(Reason::Present),
            Err(_) => return Err(Reason::Refused),
        }
        let entry = Entry { key: key_bytes, port: in_port };
        match self.free.pop_front() {
            Some(id) => self.entries[id as usize] = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        if let Some(ingress) = self.ports.get_mut(&in_port).and_then(|p| p.ingress.as_mut()) {
            ingress.entries += 1;
        }
        Ok(EntryId(id))
    }

    fn remove(&mut self, id: EntryId) -> Counters {
        let Some(entry) = self.entries.get_mut(id.0 as usize).and_then(Option::take) else {
            return Counters::default();
        };
        // Only we remove entries: it is there.
        let _ = self.entries_map.remove(&entry.key);
        if let Some(ingress) = self.ports.get_mut(&entry.port).and_then(|p| p.ingress.as_mut()) {
            ingress.entries = ingress.entries.saturating_sub(1);
        }
        self.free.push_back(id.0);
        self.counters(id)
    }

    fn counters(&self, id: EntryId) -> Counters {
        let words = self.words(id);
        let at = |at: usize| words.get(at / 8).map_or(0, |w| w.load(Ordering::Relaxed));
        Counters {
            packets: at(counter_at::PACKETS),
            bytes: at(counter_at::BYTES),
            used_ns: at(counter_at::USED_NS),
            tcp_flags: (at(counter_at::TCP_FLAGS) & 0xfff) as u16,
        }
    }

    fn now_ns(&self) -> u64 {
        bpf::ktime_ns()
    }

    fn capacity(&self) -> usize {
        ENTRIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::encode;
    use ib_base::rng::Rng;
    use ib_flow::{Metadata, extract};
    use ib_packet::{Be16, Be128, Packet};
    use std::collections::HashSet;
    use std::os::fd::BorrowedFd;

    struct Nobody;
    impl Receivers for Nobody {
        fn set_filter(&self, _: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The loopback device, which test runs of programs come from.
    const LO: i32 = 1;
    const IN: OdpPort = OdpPort(7);

    fn tcx() -> Option<Tcx> {
        match Tcx::new() {
            Ok(mut tcx) => {
                tcx.port_add(IN, Device { ifindex: LO, max_frame: 1514 }, Some(Arc::new(Nobody)));
                while tcx.prepare(IN) == Err(Reason::Preparing) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                assert_eq!(tcx.prepare(IN), Ok(()));
                Some(tcx)
            }
            Err(e) if e.contains("os error 1)") => {
                println!("skipped: {e}");
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn key_of(frame: &[u8]) -> Flow {
        let mut key = Flow::zeroed();
        let md = Metadata { in_port: IN, ..Metadata::default() };
        extract(&Packet::from_frame(frame), &md, &mut key);
        key
    }

    fn mask_of(fields: Fields) -> Mask {
        let mut mask = Mask::default();
        let m = &mut mask.0;
        (m.in_port, m.dl_type, m.nw_frag) = (u32::MAX, Be16::MAX, 0xff);
        let set = |f: Fields| fields.has(f);
        if set(Fields::VLAN) {
            (m.vlans[0].tpid, m.vlans[0].tci) = (Be16::MAX, Be16::MAX);
        }
        let byte = |f: Fields| if set(f) { 0xff } else { 0 };
        m.dl_dst.0 = [byte(Fields::DL_DST); 6];
        m.dl_src.0 = [byte(Fields::DL_SRC); 6];
        (m.nw_proto, m.nw_tos) = (byte(Fields::NW_PROTO), byte(Fields::NW_TOS));
        m.nw_ttl = byte(Fields::NW_TTL);
        m.ipv6_src = Be128::from_bytes([byte(Fields::NW_SRC); 16]);
        m.nw_dst = ib_packet::Be32::from_bytes([byte(Fields::NW_DST); 4]);
        m.ipv6_dst = Be128::from_bytes([byte(Fields::NW_DST); 16]);
        m.nw_src = ib_packet::Be32::from_bytes([byte(Fields::NW_SRC); 4]);
        m.ipv6_label = ib_packet::Be32::from_bytes([byte(Fields::IPV6_LABEL); 4]);
        m.tp_src = Be16::from_bytes([byte(Fields::TP_SRC); 2]);
        m.tp_dst = Be16::from_bytes([byte(Fields::TP_DST); 2]);
        mask
    }

    fn frame(v6: bool, protocol: u8, payload: usize) -> Vec<u8> {
        let l4_len = if protocol == proto::IP_TCP { 20 } else { 8 };
        let len = l4_len + payload;
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if v6 {
            f.extend([0x86, 0xdd, 0x6a, 0xb1, 0x23, 0x45]);
            f.extend((len as u16).to_be_bytes());
            f.extend([protocol, 64]);
            f.extend((0..32).map(|i| i * 3 + 1));
        } else {
            f.extend([8, 0, 0x45, 0x10]);
            f.extend((len as u16 + 20).to_be_bytes());
            f.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        f.extend([0x12, 0x34, 0, 80]);
        match protocol {
            proto::IP_TCP => f.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]),
            _ => f.extend([(len >> 8) as u8, len as u8, 0, 0]),
        }
        f.extend(std::iter::repeat_n(0xaa, payload));
        f
    }

    /// A run of a filter: what the kernel takes for the Ethernet header comes in front of what the filter sees.
    fn taken(filter: &Program, frame: &[u8]) -> bool {
        let mut packet = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5];
        packet.extend(frame);
        match filter.test_run(&packet).expect("a run of the filter") {
            0 => true,
            0xffff_ffff => false,
            other => panic!("the filter returned {other:#x}"),
        }
    }

    fn all_frames() -> Vec<Vec<u8>> {
        let v4 = [proto::IP_TCP, proto::IP_UDP, proto::IP_ICMP].map(|p| frame(false, p, 30));
        let v6 = [proto::IP_TCP, proto::IP_UDP].map(|p| frame(true, p, 30));
        v4.into_iter().chain(v6).collect()
    }

    struct Kernel(Tcx);
    impl crate::conformance::Bed for Kernel {
        fn accelerator(&mut self) -> &mut dyn Accelerator {
            &mut self.0
        }
        fn settle(&mut self) {}
        fn send(&mut self, port: OdpPort, frame: &[u8]) -> crate::conformance::Sent {
            let fields = self.0.ingress(port.0).unwrap().1.fields;
            match taken(self.0.filter(fields).unwrap(), frame) {
                true => crate::conformance::Sent::Taken,
                false => crate::conformance::Sent::Up,
            }
        }
    }

    #[test]
    fn keeps_the_contract() {
        if let Some(mut tcx) = tcx() {
            tcx.port_del(IN);
            crate::conformance::all(&mut Kernel(tcx));
        }
    }

    #[test]
    fn what_it_takes_it_counts() {
        let Some(mut tcx) = tcx() else { return };
        for frame in all_frames() {
            let key = key_of(&frame);
            let id = tcx.put(&key, &mask_of(Fields::ALL), &[]).unwrap();
            assert_eq!(tcx.put(&key, &mask_of(Fields::ALL), &[]), Err(Reason::Present));
            assert_eq!(tcx.counters(id), Counters::default());
            let filter = tcx.filter(Fields::ALL).unwrap();
            assert!(taken(filter, &frame) && taken(filter, &frame), "{key:?}");
            let flags = if key.nw_proto == proto::IP_TCP { 0x18 } else { 0 };
            let c = tcx.counters(id);
            assert_eq!((c.packets, c.bytes, c.tcp_flags), (2, 2 * frame.len() as u64, flags), "{key:?}");
            assert!(c.used_ns > 0);
            assert_eq!(tcx.remove(id).packets, 2);
            let filter = tcx.filter(Fields::ALL).unwrap();
            assert!(!taken(filter, &frame));
        }
    }

    #[test]
    fn frames_too_long_for_the_way_out_are_user_spaces() {
        let Some(mut tcx) = tcx() else { return };
        let out = [Action::Output(IN)];
        for (payload, fits) in [(1472, true), (1473, false)] {
            let frame = frame(false, proto::IP_UDP, payload);
            let id = tcx.put(&key_of(&frame), &mask_of(Fields::DL_DST), &out).unwrap();
            assert_eq!(taken(tcx.filter(Fields::DL_DST).unwrap(), &frame), fits);
            tcx.remove(id);
        }
    }

    /// Whatever the programs take is what extraction reads there, in every field that is compared.
    #[test]
    fn it_reads_packets_as_the_extraction_does() {
        let Some(mut tcx) = tcx() else { return };
        let mut rng = Rng::new(1);
        for round in 0..12 {
            let fields = if round == 0 { Fields::ALL } else { Fields(rng.next_u32() as u16 & Fields::ALL.0) };
            let mask = mask_of(fields);
            let mut frames = all_frames();
            // Near relatives, so that a field read wrongly meets an entry.
            for at in 0..frames.len() * 20 {
                let mut f = frames[at % 5].clone();
                f[rng.below(62) as usize] ^= 1 << rng.below(8);
                frames.push(f);
            }
            let mut ids = Vec::new();
            let mut known = HashSet::new();
            for f in &frames {
                if let Ok(id) = tcx.put(&key_of(f), &mask, &[]) {
                    ids.push(id);
                    known.insert(encode(&key_of(f), fields, LO));
                }
            }
            let filter = tcx.filters.get(&fields).unwrap();
            let mut hits = 0;
            for at in 0..3000 {
                let mut f = frames[at % frames.len()].clone();
                for _ in 0..rng.below(3) {
                    let i = rng.below(f.len().min(70) as u64) as usize;
                    f[i] = if rng.below(2) == 0 { f[i] ^ (1 << rng.below(8)) } else { rng.next_u32() as u8 };
                }
                match rng.below(6) {
                    0 => f.truncate(14 + rng.below(f.len() as u64 - 14) as usize),
                    1 => f.extend(vec![0; rng.below(300) as usize]),
                    _ => {}
                }
                let key = key_of(&f);
                if taken(filter, &f) {
                    hits += 1;
                    assert!(known.contains(&encode(&key, fields, LO)), "{fields:?} {key:?}\n{f:02x?}");
                    // Nor is there anything in it that a mask could look at and the filter does not see.
                    let mut whole = Mask::default();
                    whole.0.words_mut().fill(u64::MAX);
                    whole.0.tcp_flags = Be16::ZERO;
                    let seen = entry::check_match(&key, &whole);
                    assert!(matches!(seen, Ok(()) | Err(Reason::Multicast)), "{seen:?} {key:?}");
                }
            }
            assert!(hits > 300, "{hits} of 3000 in {fields:?}");
            for id in ids {
                tcx.remove(id);
            }
        }
    }
}
