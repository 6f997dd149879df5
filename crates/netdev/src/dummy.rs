//! Dummy devices: deterministic ports for tests.
//!
//! Packets come in by [`Dummy::inject`] and wait in a bounded queue until the datapath's [`RxQueue`] takes
//! them; packets sent are counted, perhaps captured into a file, and gone, or at another dummy ([`wire`]). Nothing touches the kernel, nothing
//! happens by itself, but for one courtesy: a device with an IPv4 address answers ARP requests for it, so
//! that tunnel tests find their next hop.

pub mod appctl;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use ib_packet::buffer::{BATCH_MAX, Pool};
use ib_packet::csum::Sum;
use ib_packet::gso::{fill_header_csum, fill_transport_csum};
use ib_packet::{Batch, Mac, Packet};
use ib_sys::eventfd::{Epoll, EventFd};
use parking_lot::Mutex;

use crate::changes::{Changes, DeviceSeq};
use crate::contract::{Carrier, Netdev, RxQueue};
use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::pcap::PcapFile;
use crate::registry::Provider;
use crate::stats::{DropCounters, DropReason, NetdevStats};
use wire::Wire;

/// Packets that wait at most in one receive queue; more are dropped.
const MAX_QUEUED: usize = 100;
/// Most queues that options may ask for.
const MAX_QUEUES: usize = 1024;
const ETH_HEADER_LEN: usize = 14;
const VLAN_HEADER_LEN: usize = 4;

/// What the dummies of one registry share: the counter that their addresses are made of.
#[derive(Debug, Default)]
pub struct DummyWorld {
    next: AtomicU32,
    /// Sockets that join dummies; made with the first one who asks.
    sockets: OnceLock<Option<Epoll>>,
    /// How many dummies began to listen so far.
    listeners: AtomicU32,
}

impl DummyWorld {
    /// The next address: `aa:55:aa:55:00:00` and up.
    fn next_mac(&self) -> Mac {
        let n = 0xaa55_0000_u32.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        Mac([0xaa, 0x55, n[0], n[1], n[2], n[3]])
    }
    fn sockets(&self) -> Option<&Epoll> {
        self.sockets.get_or_init(|| Epoll::new().ok()).as_ref()
    }
    /// Readable while something has come for a dummy by a socket: then its receive queue is to be polled.
    pub fn fd(&self) -> Option<RawFd> {
        self.sockets().map(AsRawFd::as_raw_fd)
    }
}

/// Makes dummies under one kind: `dummy`, `dummy-internal`, `dummy-pmd`, or the name of a real kind.
pub struct DummyProvider {
    kind: String,
    world: Arc<DummyWorld>,
}

impl DummyProvider {
    /// For `kind`.
    pub fn new(kind: &str, world: &Arc<DummyWorld>) -> DummyProvider {
        DummyProvider { kind: kind.to_owned(), world: world.clone() }
    }
}

impl Provider for DummyProvider {
    fn kind(&self) -> &str {
        &self.kind
    }
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>> {
        let state = State {
            options: BTreeMap::new(),
            mac: self.world.next_mac(),
            mtu: 1500,
            flags: Flags::UP,
            ifindex: None,
            addresses: Vec::new(),
            configured_rxq: 1,
            configured_txq: 1,
            requested_rxq: 1,
            requested_txq: 1,
            numa_id: 0,
            rxqs: Vec::new(),
            rx_pcap: None,
            tx_pcap: None,
            rx: vec![Count::default()],
            tx: vec![Count::default()],
            rx_gone: Count::default(),
            tx_gone: Count::default(),
            custom: [0; 2],
            wire: None,
            simulated: Simulated::default(),
        };
        Ok(Arc::new(Dummy {
            name: name.to_owned(),
            kind: self.kind.clone(),
            shared: Arc::new(Mutex::new(state)),
            world: Arc::clone(&self.world),
            seq: DeviceSeq::new(changes),
            drops: DropCounters::default(),
        }))
    }
}

/// A dummy device.
pub struct Dummy {
    name: String,
    kind: String,
    shared: Arc<Mutex<State>>,
    world: Arc<DummyWorld>,
    seq: DeviceSeq,
    drops: DropCounters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    packets: u64,
    bytes: u64,
}

struct State {
    options: BTreeMap<String, String>,
    mac: Mac,
    mtu: u32,
    flags: Flags,
    ifindex: Option<i32>,
    addresses: Vec<(IpAddr, u8)>,
    configured_rxq: usize,
    configured_txq: usize,
    requested_rxq: usize,
    requested_txq: usize,
    numa_id: u32,
    /// Open receive queues. Empty: packets injected go nowhere.
    rxqs: Vec<Arc<Waiting>>,
    rx_pcap: Option<Arc<Mutex<PcapFile>>>,
    tx_pcap: Option<Arc<Mutex<PcapFile>>>,
    rx: Vec<Count>,
    tx: Vec<Count>,
    /// Counts of queues that there were.
    rx_gone: Count,
    tx_gone: Count,
    custom: [u64; 2],
    /// What it is joined to another dummy by.
    wire: Option<Wire>,
    simulated: Simulated,
}

/// What the `ol_*` options make a device pretend about checksums, as hardware would.
#[derive(Clone, Copy, Debug, Default)]
struct Simulated {
    /// Names and values of the switches that are on.
    on: [bool; SWITCHES.len()],
}

/// The switches, in alphabetical order. The first two are the names that 3.2 to 3.5 had.
const SWITCHES: [&str; 8] = [
    "ol_ip_csum",
    "ol_ip_csum_set_good",
    "ol_ip_rx_csum_set_good",
    "ol_ip_rx_csum_set_partial",
    "ol_ip_tx_csum",
    "ol_l4_rx_csum_set_good",
    "ol_l4_rx_csum_set_partial",
    "ol_l4_tx_csum",
];

impl Simulated {
    fn read(options: &BTreeMap<String, String>) -> Simulated {
        Simulated { on: SWITCHES.map(|key| options.get(key).is_some_and(|v| v == "true")) }
    }

    fn is_on(&self, keys: &[&str]) -> bool {
        SWITCHES.iter().zip(self.on).any(|(key, on)| on && keys.contains(key))
    }

    fn shown(self) -> impl Iterator<Item = (String, String)> {
        let on = SWITCHES.iter().zip(self.on).filter(|(_, on)| *on);
        on.map(|(key, _)| ((*key).to_owned(), "true".to_owned()))
    }

    fn tx_offloads(&self) -> &'static [&'static str] {
        match (self.is_on(&["ol_ip_csum", "ol_ip_tx_csum"]), self.is_on(&["ol_l4_tx_csum"])) {
            (false, false) => &[],
            (true, false) => &["ip_csum"],
            (false, true) => &["sctp_csum", "tcp_csum", "udp_csum"],
            (true, true) => &["ip_csum", "sctp_csum", "tcp_csum", "udp_csum"],
        }
    }

    /// What the hardware would have found out about a packet, or left to do, as it came.
    fn receive(&self, packet: &mut Packet) {
        if self.is_on(&["ol_ip_csum_set_good", "ol_ip_rx_csum_set_good"]) {
            packet.offload.ip_csum_valid = true;
        }
        if self.is_on(&["ol_l4_rx_csum_set_good"]) {
            packet.offload.csum_valid = true;
        }
        // A checksum that is still to be made is the right one wherever the packet is looked at.
        if self.is_on(&["ol_ip_rx_csum_set_partial"]) {
            fill_header_csum(packet);
        }
        if self.is_on(&["ol_l4_rx_csum_set_partial"]) {
            fill_transport_csum(packet);
        }
    }
}

/// Packets on their way into one queue.
struct Waiting {
    packets: Mutex<VecDeque<Packet>>,
    event: EventFd,
}

impl State {
    /// Puts a packet into receive queue `qid`; false if there is no room or no such queue.
    fn enqueue(&mut self, qid: usize, mut packet: Packet) -> bool {
        if let Some(pcap) = &self.rx_pcap {
            pcap.lock().write(packet.data());
        }
        self.simulated.receive(&mut packet);
        let Some(rxq) = self.rxqs.get(qid) else { return false };
        let mut packets = rxq.packets.lock();
        if packets.len() >= MAX_QUEUED {
            return false;
        }
        packets.push_back(packet);
        rxq.event.set();
        true
    }

    /// Takes in what has come by the wire, as far as there is room.
    fn poll_wire(&mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        wire.poll(|packet| {
            let has_room = self.rxqs.first().is_some_and(|rxq| rxq.packets.lock().len() < MAX_QUEUED);
            has_room && self.enqueue(0, packet)
        });
        self.wire = Some(wire);
    }
}

impl Dummy {
    fn is_pmd_kind(&self) -> bool {
        self.kind == "dummy-pmd"
    }

    /// Offers a packet to receive queue `qid` as if it had come from the wire; false (and counted) if nobody reads
    /// that queue or it is full.
    pub fn inject(&self, qid: usize, packet: Packet) -> bool {
        let taken = self.shared.lock().enqueue(qid, packet);
        if !taken {
            self.drops.add(DropReason::RxQueueFull, 1);
        }
        taken
    }

    /// `netdev-dummy/set-admin-state`.
    pub fn set_admin_state(&self, up: bool) {
        let (off, on) = if up { (Flags::NONE, Flags::UP) } else { (Flags::UP, Flags::NONE) };
        self.change_flags(off, on);
    }

    /// `netdev-dummy/conn-state`: the state of the `stream`/`pstream` connection, by the word.
    pub fn conn_state(&self) -> &'static str {
        match self.shared.lock().wire.as_ref().and_then(Wire::is_connected) {
            Some(true) => "connected",
            Some(false) => "disconnected",
            None => "unknown",
        }
    }

    /// `netdev-dummy/ip4addr`.
    pub fn add_ip4(&self, addr: Ipv4Addr, prefix_len: u8) {
        self.shared.lock().addresses.push((IpAddr::V4(addr), prefix_len));
        self.seq.bump();
    }

    /// `netdev-dummy/ip6addr`.
    pub fn add_ip6(&self, addr: Ipv6Addr, prefix_len: u8) {
        self.shared.lock().addresses.push((IpAddr::V6(addr), prefix_len));
        self.seq.bump();
    }

    fn change_flags(&self, off: Flags, on: Flags) -> Flags {
        let mut state = self.shared.lock();
        let old = state.flags;
        state.flags = old.without(off).union(on);
        if state.flags != old {
            self.seq.bump();
        }
        old
    }

    /// The reply to an ARP request in `frame` for one of our addresses.
    fn arp_reply(state: &State, frame: &[u8]) -> Option<Packet> {
        const ARP_REQUEST: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
        if frame.len() < 42 || frame[12..22] != ARP_REQUEST {
            return None;
        }
        let target = Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41]);
        if !state.addresses.iter().any(|(a, _)| *a == IpAddr::V4(target)) {
            return None;
        }
        let mut reply = [0u8; 42];
        reply[0..6].copy_from_slice(&frame[22..28]);
        reply[6..12].copy_from_slice(&state.mac.0);
        reply[12..20].copy_from_slice(&ARP_REQUEST[..8]);
        reply[20..22].copy_from_slice(&[0, 2]);
        reply[22..28].copy_from_slice(&state.mac.0);
        reply[28..32].copy_from_slice(&target.octets());
        reply[32..42].copy_from_slice(&frame[22..32]);
        Some(Packet::from_frame(&reply))
    }

    /// Counts and captures one packet that leaves.
    fn transmit(&self, state: &mut State, qid: usize, packet: &Packet) {
        let frame = packet.data();
        let vlan = frame.len() > ETH_HEADER_LEN && matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
        let max = state.mtu as usize + ETH_HEADER_LEN + if vlan { VLAN_HEADER_LEN } else { 0 };
        if frame.len() < ETH_HEADER_LEN || !packet.ethernet {
            return self.drops.add(DropReason::TxError, 1);
        }
        if frame.len() > max && packet.offload.gso.is_none() {
            return self.drops.add(DropReason::TxTooBig, 1);
        }
        let queues = state.tx.len();
        let count = &mut state.tx[qid % queues];
        count.packets += 1;
        count.bytes += frame.len() as u64;
        if let Some(reply) = Dummy::arp_reply(state, frame) {
            state.enqueue(0, reply);
        }
        if let Some(pcap) = &state.tx_pcap {
            pcap.lock().write(frame);
        }
        if let Some(wire) = &mut state.wire {
            wire.send(frame);
        }
    }
}

/// Does what was left to the hardware, so that captures show frames as on a wire; super-frames stay whole.
fn finish_csum(packet: &mut Packet) {
    if packet.offload.gso.is_some() {
        return;
    }
    let Some((start, offset)) = packet.offload.partial_csum.take() else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let data = packet.data_mut();
    if let Some(covered) = data.get(start..)
        && at + 2 <= data.len()
    {
        let sum = Sum::ZERO.bytes(covered).checksum_udp().to_bytes();
        data[at..at + 2].copy_from_slice(&sum);
    }
}

/// A number of queues out of the options, within bounds.
fn queues(options: &BTreeMap<String, String>, key: &str) -> usize {
    let asked: i64 = options.get(key).and_then(|v| v.parse().ok()).unwrap_or(1);
    usize::try_from(asked).unwrap_or(1).clamp(1, MAX_QUEUES)
}

impl Netdev for Dummy {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &str {
        &self.kind
    }
    fn as_dummy(&self) -> Option<&Dummy> {
        Some(self)
    }

    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let mut state = self.shared.lock();
        if state.options == *options {
            return Ok(());
        }
        let open = |path: Option<&String>| -> Option<Arc<Mutex<PcapFile>>> {
            path.and_then(|p| PcapFile::append(p).ok()).map(|f| Arc::new(Mutex::new(f)))
        };
        let differs = |key: &&str| state.options.get(*key) != options.get(*key);
        let rewired = ["stream", "pstream"].iter().any(differs);
        if ["pcap", "rxq_pcap", "tx_pcap"].iter().any(differs) {
            let both = open(options.get("pcap"));
            if both.is_some() {
                (state.rx_pcap, state.tx_pcap) = (both.clone(), both);
            } else {
                state.rx_pcap = open(options.get("rxq_pcap"));
                state.tx_pcap = open(options.get("tx_pcap"));
            }
        }
        if rewired {
            // The old end goes first: the new one may have its address.
            state.wire = None;
            state.wire = Wire::open(options, &self.world);
        }
        state.simulated = Simulated::read(options);
        state.ifindex = options.get("ifindex").and_then(|v| v.parse().ok()).filter(|i| *i >= 0);
        if self.is_pmd_kind() {
            state.requested_rxq = queues(options, "n_rxq");
            state.requested_txq = queues(options, "n_txq");
            state.numa_id = options.get("numa_id").and_then(|v| v.parse().ok()).unwrap_or(0);
        }
        state.options = options.clone();
        self.seq.bump();
        Ok(())
    }

    fn config(&self) -> BTreeMap<String, String> {
        let state = self.shared.lock();
        let mut all = BTreeMap::new();
        if let Some(i) = state.ifindex {
            all.insert("ifindex".to_owned(), i.to_string());
        }
        for key in ["stream", "pstream"].into_iter().filter(|_| state.wire.is_some()) {
            if let Some(target) = state.options.get(key) {
                all.insert(key.to_owned(), target.clone());
            }
        }
        all.extend(state.simulated.shown());
        if self.is_pmd_kind() {
            all.insert("n_rxq".to_owned(), state.requested_rxq.to_string());
            all.insert("n_txq".to_owned(), state.requested_txq.to_string());
            all.insert("numa_id".to_owned(), state.numa_id.to_string());
        }
        all
    }

    fn tx_offloads(&self) -> &'static [&'static str] {
        self.shared.lock().simulated.tx_offloads()
    }

    fn mac(&self) -> Result<Mac> {
        Ok(self.shared.lock().mac)
    }
    fn set_mac(&self, mac: Mac) -> Result<()> {
        let mut state = self.shared.lock();
        if state.mac != mac {
            state.mac = mac;
            self.seq.bump();
        }
        Ok(())
    }

    fn mtu(&self) -> Result<u32> {
        Ok(self.shared.lock().mtu)
    }
    fn set_mtu(&self, mtu: u32) -> Result<()> {
        if !(68..=65_535).contains(&mtu) {
            return Err(Error::Os(ib_sys::errno::EINVAL));
        }
        let mut state = self.shared.lock();
        if state.mtu != mtu {
            state.mtu = mtu;
            self.seq.bump();
        }
        Ok(())
    }

    fn flags(&self) -> Result<Flags> {
        Ok(self.shared.lock().flags)
    }
    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags> {
        Ok(self.change_flags(off, on))
    }

    fn ifindex(&self) -> Option<i32> {
        self.shared.lock().ifindex
    }
    fn carrier(&self) -> Carrier {
        Carrier { up: self.shared.lock().flags.contains(Flags::UP), resets: 0 }
    }
    fn addresses(&self) -> Result<Vec<(IpAddr, u8)>> {
        Ok(self.shared.lock().addresses.clone())
    }
    fn set_address(&self, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
        self.shared.lock().addresses.retain(|(ip, _)| !ip.is_ipv4());
        self.add_ip4(address, prefix_len);
        Ok(())
    }

    fn stats(&self) -> Result<NetdevStats> {
        let state = self.shared.lock();
        let sum = |counts: &[Count]| counts.iter().fold((0, 0), |(p, b), c| (p + c.packets, b + c.bytes));
        let all = |(p, b): (u64, u64), gone: Count| (p + gone.packets, b + gone.bytes);
        let (rx, tx) = (all(sum(&state.rx), state.rx_gone), all(sum(&state.tx), state.tx_gone));
        Ok(NetdevStats {
            rx_packets: Some(rx.0),
            rx_bytes: Some(rx.1),
            tx_packets: Some(tx.0),
            tx_bytes: Some(tx.1),
            ..NetdevStats::default()
        })
    }

    fn custom_stats(&self) -> Vec<(String, u64)> {
        let state = self.shared.lock();
        let mut all = vec![
            ("rx_custom_packets_1".to_owned(), state.custom[0]),
            ("rx_custom_packets_2".to_owned(), state.custom[1]),
        ];
        for (way, counts) in [("rx", &state.rx), ("tx", &state.tx)] {
            for (q, count) in counts.iter().enumerate() {
                all.push((format!("{way}_q{q}_bytes"), count.bytes));
                all.push((format!("{way}_q{q}_packets"), count.packets));
            }
        }
        drop(state);
        all.extend(self.drops.nonzero());
        all
    }

    fn change_seq(&self) -> u64 {
        self.seq.read()
    }

    fn n_rxq(&self) -> usize {
        self.shared.lock().requested_rxq
    }
    fn n_txq(&self) -> usize {
        self.shared.lock().requested_txq
    }
    fn is_pmd(&self) -> bool {
        self.is_pmd_kind()
    }
    fn numa_id(&self) -> Option<u32> {
        self.is_pmd_kind().then(|| self.shared.lock().numa_id)
    }

    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>> {
        let mut state = self.shared.lock();
        state.configured_rxq = state.requested_rxq;
        state.configured_txq = state.requested_txq;
        let (n_rxq, n_txq) = (state.configured_rxq, state.configured_txq);
        let State { rx, tx, rx_gone, tx_gone, .. } = &mut *state;
        for (counts, n, gone) in [(rx, n_rxq, rx_gone), (tx, n_txq, tx_gone)] {
            // What queues that go have counted stays with the device.
            for count in counts.drain(n.min(counts.len())..) {
                gone.packets += count.packets;
                gone.bytes += count.bytes;
            }
            counts.resize(n, Count::default());
        }
        let mut fresh = Vec::new();
        let mut handles: Vec<Box<dyn RxQueue>> = Vec::new();
        for queue_id in 0..n_rxq {
            let waiting = Arc::new(Waiting { packets: Mutex::new(VecDeque::new()), event: EventFd::new()? });
            fresh.push(waiting.clone());
            handles.push(Box::new(DummyRxq { queue_id, waiting, device: self.shared.clone() }));
        }
        state.rxqs = fresh;
        Ok(handles)
    }

    fn send(&self, qid: usize, batch: &mut Batch, pool: &mut Pool) {
        // The administrative state stops nothing, as on Open vSwitch's dummies: translation looks at it.
        let mut state = self.shared.lock();
        for mut packet in batch.drain(..) {
            finish_csum(&mut packet);
            self.transmit(&mut state, qid, &packet);
            pool.give(packet);
        }
    }

    fn tx_can_gso(&self) -> bool {
        true
    }
}

struct DummyRxq {
    queue_id: usize,
    waiting: Arc<Waiting>,
    device: Arc<Mutex<State>>,
}

impl RxQueue for DummyRxq {
    fn queue_id(&self) -> usize {
        self.queue_id
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.waiting.event.as_raw_fd())
    }

    fn recv(&mut self, _pool: &mut Pool, out: &mut Batch) -> io::Result<usize> {
        // The device's lock is always taken before the queue's.
        let mut state = self.device.lock();
        if self.queue_id == 0 {
            state.poll_wire();
        }
        let mut packets = self.waiting.packets.lock();
        let n = packets.len().min(BATCH_MAX);
        for packet in packets.drain(..n) {
            let bytes = packet.len() as u64;
            if let Some(count) = state.rx.get_mut(self.queue_id) {
                count.packets += 1;
                count.bytes += bytes;
            }
            state.custom[0] += 1;
            state.custom[1] += 1;
            out.push(packet);
        }
        if packets.is_empty() {
            self.waiting.event.clear();
        }
        Ok(n)
    }

    fn drain(&mut self) {
        self.waiting.packets.lock().clear();
        self.waiting.event.clear();
    }
}

impl Drop for DummyRxq {
    fn drop(&mut self) {
        let mut state = self.device.lock();
        if state.rxqs.iter().any(|w| Arc::ptr_eq(w, &self.waiting)) {
            state.rxqs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use crate::registry::{DummyLevel, Registry};

    fn dummies(level: DummyLevel) -> Arc<Registry> {
        let registry = Registry::new().unwrap();
        registry.enable_dummy(level);
        registry
    }
    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }
    fn send(dev: &dyn Netdev, packet: Packet) {
        dev.send(0, &mut vec![packet], &mut Pool::new(1));
    }

    #[test]
    fn every_kind_keeps_the_contract() {
        let registry = dummies(DummyLevel::Override);
        for kind in ["dummy", "dummy-internal", "dummy-pmd", "system", "tap", "internal"] {
            let dev = registry.open(kind, kind).unwrap();
            assert_eq!(dev.kind(), kind);
            assert!(dev.as_dummy().is_some());
            conformance::configuration(&*dev);
        }
        assert!(registry.open("pa", "patch").unwrap().as_dummy().is_none());
    }

    #[test]
    fn levels_replace_what_they_say() {
        let kinds = [
            "afxdp",
            "dpdkvhostuser",
            "dpdkvhostuserclient",
            "dummy",
            "dummy-internal",
            "dummy-pmd",
            "internal",
            "null",
            "patch",
            "replay",
            "system",
            "tap",
            "tun",
        ];
        assert_eq!(dummies(DummyLevel::Normal).kinds(), kinds);
        assert!(dummies(DummyLevel::Normal).open("no-such-dev0", "system").is_err());
        assert!(dummies(DummyLevel::System).open("no-such-dev0", "system").is_ok());
        assert!(dummies(DummyLevel::None).open("p1", "dummy").is_err());
    }

    #[test]
    fn what_is_injected_is_received_once_and_counted() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        let dummy = dev.as_dummy().unwrap();
        assert!(!dummy.inject(0, conformance::frame(60)), "nobody reads yet");
        let mut rxq = dev.rx_queues().unwrap().remove(0);
        assert!(dummy.inject(0, conformance::frame(60)) && dummy.inject(0, conformance::frame(70)));
        assert!(!dummy.inject(1, conformance::frame(60)), "no such queue");
        let mut pool = Pool::new(4);
        let mut out = Batch::new();
        assert_eq!(rxq.recv(&mut pool, &mut out).unwrap(), 2);
        assert_eq!(out.iter().map(Packet::len).collect::<Vec<_>>(), [60, 70]);
        assert_eq!(rxq.recv(&mut pool, &mut out).unwrap(), 0);
        let s = dev.stats().unwrap();
        assert_eq!(
            (s.rx_packets, s.rx_bytes, s.tx_packets, s.rx_errors),
            (Some(2), Some(130), Some(0), None)
        );
        let custom: BTreeMap<_, _> = dev.custom_stats().into_iter().collect();
        assert_eq!((custom["rx_custom_packets_1"], custom["rx_custom_packets_2"]), (2, 2));
        assert_eq!((custom["rx_q0_packets"], custom["rx_q0_bytes"], custom["tx_q0_packets"]), (2, 130, 0));
    }

    #[test]
    fn two_dummies_are_joined_by_a_socket() {
        let registry = dummies(DummyLevel::Normal);
        let path = std::env::temp_dir().join(format!("ib-wire-{}.sock", std::process::id()));
        let (a, b) = (registry.open("a", "dummy").unwrap(), registry.open("b", "dummy").unwrap());
        let (mut rx_a, mut rx_b) = (a.rx_queues().unwrap().remove(0), b.rx_queues().unwrap().remove(0));
        let (mut pool, mut out) = (Pool::new(4), Batch::new());
        // Who comes too early tries again.
        b.set_config(&options(&[("stream", &format!("unix:{}", path.display()))])).unwrap();
        assert_eq!(b.as_dummy().unwrap().conn_state(), "disconnected");
        a.set_config(&options(&[("pstream", &format!("punix:{}", path.display()))])).unwrap();
        assert_eq!(rx_b.recv(&mut pool, &mut out).unwrap(), 0);
        assert_eq!(
            (b.as_dummy().unwrap().conn_state(), a.as_dummy().unwrap().conn_state()),
            ("connected", "unknown")
        );
        send(&*b, conformance::frame(60));
        send(&*b, conformance::frame(1514));
        assert_eq!(rx_a.recv(&mut pool, &mut out).unwrap(), 2);
        send(&*a, conformance::frame(70));
        assert_eq!(rx_b.recv(&mut pool, &mut out).unwrap(), 1);
        assert_eq!(out.iter().map(Packet::len).collect::<Vec<_>>(), [60, 1514, 70]);
        // The end of one is noticed by the other.
        a.set_config(&options(&[])).unwrap();
        rx_b.recv(&mut pool, &mut out).unwrap();
        assert_eq!(b.as_dummy().unwrap().conn_state(), "disconnected");
        assert!(!path.exists());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        let dummy = dev.as_dummy().unwrap();
        let _rxq = dev.rx_queues().unwrap();
        let taken = (0..150).filter(|_| dummy.inject(0, conformance::frame(60))).count();
        assert_eq!(taken, MAX_QUEUED);
        assert!(dev.custom_stats().contains(&("rx_drop_queue_full".to_owned(), 50)));
    }

    #[test]
    fn pmd_queues_follow_the_options_when_they_are_opened() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy-pmd").unwrap();
        assert!(dev.is_pmd());
        dev.set_config(&options(&[("n_rxq", "3"), ("numa_id", "1"), ("ifindex", "78")])).unwrap();
        assert_eq!((dev.n_rxq(), dev.numa_id(), dev.ifindex()), (3, Some(1), Some(78)));
        assert_eq!(dev.rx_queues().unwrap().len(), 3);
        let shown: Vec<_> = dev.config().into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown.join(", "), "ifindex=78, n_rxq=3, n_txq=1, numa_id=1");
        dev.set_config(&options(&[("n_rxq", "100000"), ("n_txq", "-1")])).unwrap();
        assert_eq!((dev.n_rxq(), dev.n_txq()), (1024, 1));
    }

    #[test]
    fn checksums_are_left_to_simulated_hardware() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        let mut queues = dev.rx_queues().unwrap();
        let mut bad = conformance::super_frame(1400, 1000);
        bad.offload = Default::default();
        bad.data_mut()[24..26].fill(0xde);
        bad.data_mut()[50..52].fill(0xad);
        let mut received = |switches: &[(&str, &str)]| {
            dev.set_config(&options(switches)).unwrap();
            dev.as_dummy().unwrap().inject(0, bad.clone());
            let mut batch = Batch::new();
            queues[0].recv(&mut Pool::new(1), &mut batch).unwrap();
            batch.pop().unwrap()
        };
        let plain = received(&[]);
        assert!(plain.data() == bad.data() && !plain.offload.ip_csum_valid);
        let good = received(&[("ol_ip_rx_csum_set_good", "true"), ("ol_l4_rx_csum_set_good", "true")]);
        assert!(good.data() == bad.data() && good.offload.ip_csum_valid && good.offload.csum_valid);
        let done = received(&[("ol_ip_rx_csum_set_partial", "true"), ("ol_l4_rx_csum_set_partial", "true")]);
        let mut right = bad.clone();
        assert!(ib_packet::gso::fill_csums(&mut right));
        assert_eq!(done.data(), right.data());
        dev.set_config(&options(&[("ol_ip_tx_csum", "true"), ("ol_l4_tx_csum", "true")])).unwrap();
        assert_eq!(dev.tx_offloads(), ["ip_csum", "sctp_csum", "tcp_csum", "udp_csum"]);
        assert_eq!(dev.config()["ol_ip_tx_csum"], "true");
    }

    #[test]
    fn counts_outlive_their_queues() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy-pmd").unwrap();
        dev.set_config(&options(&[("n_rxq", "2")])).unwrap();
        let mut queues = dev.rx_queues().unwrap();
        dev.as_dummy().unwrap().inject(1, conformance::frame(60));
        assert_eq!(queues[1].recv(&mut Pool::new(1), &mut Batch::new()).unwrap(), 1);
        dev.set_config(&options(&[("n_rxq", "1")])).unwrap();
        assert_eq!(dev.rx_queues().unwrap().len(), 1);
        assert_eq!(dev.stats().unwrap().rx_packets, Some(1));
    }

    #[test]
    fn an_arp_request_for_our_address_is_answered() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        dev.set_mac(Mac([0xaa, 0x55, 0xaa, 0x55, 0, 0x10])).unwrap();
        dev.as_dummy().unwrap().add_ip4(Ipv4Addr::new(1, 2, 3, 4), 24);
        let mut rxq = dev.rx_queues().unwrap().remove(0);
        let mut request = vec![0xff; 6];
        request.extend([0x50, 0x54, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend([0x50, 0x54, 0, 0, 0, 9, 1, 2, 3, 9, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        send(&*dev, Packet::from_frame(&request));
        let mut out = Batch::new();
        rxq.recv(&mut Pool::new(1), &mut out).unwrap();
        let mut reply = vec![0x50, 0x54, 0, 0, 0, 9, 0xaa, 0x55, 0xaa, 0x55, 0, 0x10, 8, 6];
        reply.extend([0, 1, 8, 0, 6, 4, 0, 2, 0xaa, 0x55, 0xaa, 0x55, 0, 0x10, 1, 2, 3, 4]);
        reply.extend([0x50, 0x54, 0, 0, 0, 9, 1, 2, 3, 9]);
        assert_eq!(out.iter().map(Packet::data).collect::<Vec<_>>(), [&reply[..]]);
        request[41] = 5;
        send(&*dev, Packet::from_frame(&request));
        assert_eq!(rxq.recv(&mut Pool::new(1), &mut out).unwrap(), 0, "someone else's address");
    }

    #[test]
    fn packets_longer_than_the_mtu_do_not_leave() {
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        dev.set_mtu(100).unwrap();
        send(&*dev, conformance::frame(114));
        send(&*dev, conformance::frame(115));
        send(&*dev, Packet::from_frame(&[0; 13]));
        assert_eq!(dev.stats().unwrap().tx_packets, Some(1));
        assert!(dev.custom_stats().contains(&("tx_drop_too_big".to_owned(), 1)));
    }

    #[test]
    fn captures_hold_what_passed_with_its_checksum_done() {
        let dir = std::env::temp_dir().join(format!("ib-netdev-dummy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("both.pcap");
        let registry = dummies(DummyLevel::Normal);
        let dev = registry.open("p1", "dummy").unwrap();
        dev.set_config(&options(&[("pcap", path.to_str().unwrap())])).unwrap();
        let _rxq = dev.rx_queues().unwrap();
        dev.as_dummy().unwrap().inject(0, conformance::frame(60));
        let mut segment = conformance::super_frame(10, 1400);
        segment.offload.gso = None;
        send(&*dev, segment);
        let file = std::fs::read(&path).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(file.len(), 24 + 16 + 60 + 16 + 64);
        assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes());
        assert_eq!(&file[40..100], conformance::frame(60).data());
        let tcp = &file[116 + 34..];
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 30];
        assert_eq!(Sum::ZERO.bytes(&pseudo).bytes(tcp).checksum().to_bytes(), [0, 0]);
    }
}
