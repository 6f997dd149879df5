//! IPFIX (RFC 7011): sampled packets as flow records.
//!
//! An [`Exporter`] has the settings of one row: a bridge's, or a collector set's. A [`Sample`] becomes a record; with a cache, samples
//! of one flow become one record that leaves after the active timeout or when there are too many ([`Exporter::run`]), without
//! one it leaves at once. Templates go ahead of records, per observation domain, and again every template interval; so do
//! the exporter's own counters.
//!
//! Times are microseconds of wall time: records tell them, and caches age by them, as Open vSwitch's do. Cost: a hash lookup per sample.

mod template;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ib_flow::extract::proto;
use ib_flow::{Flow, Tunnel};

use crate::{Collect, len16};
use template::{L3, L4, Shape};

/// Samples: one of so many packets, unless configured.
pub const DEFAULT_SAMPLING: u32 = 400;
/// Seconds between templates, and between the exporter's counters, unless configured.
pub const DEFAULT_INTERVAL_S: u32 = 600;
/// Most bytes of a virtual observation id.
pub const MAX_VIRTUAL_OBS_ID: usize = 254;

const HEADER: usize = 16;
const VERSION: u16 = 10;
const US: u64 = 1_000_000;
/// Flows in a cache, whatever is configured.
const MAX_CACHED: usize = 1 << 20;
/// Observation domains that templates are remembered for.
const MAX_DOMAINS: usize = 4096;

/// flowEndReason.
mod reason {
    pub const ACTIVE_TIMEOUT: u8 = 2;
    pub const FORCED_END: u8 = 4;
    pub const LACK_OF_RESOURCES: u8 = 5;
}

/// Settings of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Seconds for which a record is cached; 0: not at all.
    pub cache_active_timeout_s: u32,
    /// Records cached; 0: none.
    pub cache_max_flows: u32,
    /// Seconds between templates.
    pub template_interval_s: u32,
    /// Seconds between the exporter's counters.
    pub stats_interval_s: u32,
    /// Tells what a tunnel's outer header had.
    pub tunnels: bool,
    /// Goes into each record.
    pub virtual_obs_id: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cache_active_timeout_s: 0,
            cache_max_flows: 0,
            template_interval_s: DEFAULT_INTERVAL_S,
            stats_interval_s: DEFAULT_INTERVAL_S,
            tunnels: true,
            virtual_obs_id: None,
        }
    }
}

/// A port as records tell of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface<'a> {
    /// Interface index; 0 unknown.
    pub ifindex: u32,
    /// Name.
    pub name: &'a str,
}

/// Protocol of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan,
    /// GRE.
    Gre,
    /// Geneve.
    Geneve,
}

impl TunnelKind {
    /// tunnelType, protocol of the outer header, bytes of the key.
    fn facts(self) -> (u8, u8, usize) {
        match self {
            TunnelKind::Vxlan => (1, 17, 3),
            TunnelKind::Gre => (2, 47, 4),
            TunnelKind::Geneve => (7, 17, 3),
        }
    }
}

/// A sampled packet.
pub struct Sample<'a> {
    /// Its key.
    pub flow: &'a Flow,
    /// Bytes of its frame.
    pub frame_len: usize,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Sampled where it leaves, not where it comes in.
    pub egress: bool,
    /// Where it came in.
    pub input: Interface<'a>,
    /// Where it leaves.
    pub output: Interface<'a>,
    /// Outer header.
    pub tunnel: Option<(TunnelKind, &'a Tunnel)>,
    /// Packets for which it stands.
    pub matched: u64,
    /// It is going to be dropped.
    pub dropped: bool,
}

/// Counters of an exporter, as OpenFlow tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows.
    pub total_flows: u64,
    /// Flows in the cache.
    pub current_flows: u64,
    /// Samples.
    pub packets: u64,
    /// Of IPv4 with a known transport protocol.
    pub ipv4: u64,
    /// Of IPv6 with a known transport protocol.
    pub ipv6: u64,
    /// IP with another one.
    pub errors: u64,
    /// IPv4 among these.
    pub ipv4_errors: u64,
    /// IPv6 among these.
    pub ipv6_errors: u64,
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Datagrams that could not be sent.
    pub tx_errors: u64,
}

/// What makes a flow: all that its records have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: u32,
    shape: Shape,
    bytes: Vec<u8>,
}

/// Counts since the exporter began, as they stood at a flow's last packet.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    dropped_packets: u64,
    packets: u64,
    /// Of entry: unicast, multicast, broadcast. Of exit: unicast, broadcast.
    casts: [u64; 5],
    multicast_out: u64,
    frame_octets: u64,
    dropped_octets: u64,
    octets: u64,
    squares: u64,
    multicast_octets: u64,
    /// ACK, FIN, PSH, RST, SYN, URG.
    tcp: [u64; 6],
}

/// Counts of a flow since its last record.
#[derive(Clone, Copy, Debug, Default)]
struct Deltas {
    start_us: u64,
    end_us: u64,
    dropped_packets: u64,
    packets: u64,
    multicast_out: u64,
    frame_octets: u64,
    dropped_octets: u64,
    octets: u64,
    squares: u64,
    shortest: u64,
    longest: u64,
    multicast_octets: u64,
}

impl Deltas {
    fn merge(&mut self, other: &Deltas) {
        self.start_us = self.start_us.min(other.start_us);
        self.end_us = self.end_us.max(other.end_us);
        self.dropped_packets += other.dropped_packets;
        self.packets += other.packets;
        self.multicast_out += other.multicast_out;
        self.frame_octets += other.frame_octets;
        self.dropped_octets += other.dropped_octets;
        self.octets += other.octets;
        self.squares = self.squares.wrapping_add(other.squares);
        self.shortest = self.shortest.min(other.shortest);
        self.longest = self.longest.max(other.longest);
        self.multicast_octets += other.multicast_octets;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    deltas: Deltas,
    totals: Totals,
}

/// The machine.
pub struct Exporter {
    id: u32,
    config: Config,
    sequence: u32,
    cache: HashMap<Arc<Key>, Entry>,
    /// Cached flows in order of their first packet.
    order: VecDeque<Arc<Key>>,
    totals: Totals,
    stats: Stats,
    /// Wall seconds of the last templates, by domain.
    domains: HashMap<u32, u64>,
    stats_sent_s: u64,
}

impl Exporter {
    /// An exporter that has seen nothing. `id` tells it from others of the process.
    pub fn new(id: u32, config: Config) -> Exporter {
        Exporter {
            id,
            config,
            sequence: 1,
            cache: HashMap::new(),
            order: VecDeque::new(),
            totals: Totals::default(),
            stats: Stats::default(),
            domains: HashMap::new(),
            stats_sent_s: 0,
        }
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes settings; what is due by them leaves.
    pub fn configure(&mut self, config: Config, now_us: u64, to: &mut dyn Collect) {
        if config == self.config {
            return;
        }
        if config.virtual_obs_id.is_some() != self.config.virtual_obs_id.is_some() {
            // Other templates.
            self.end_all(now_us, to);
            self.domains.clear();
        }
        self.config = config;
        self.run(now_us, to);
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats { current_flows: self.cache.len() as u64, ..self.stats }
    }

    /// Takes a sampled packet.
    pub fn sample(&mut self, s: &Sample<'_>, now_us: u64, to: &mut dyn Collect) {
        let (key, entry) = self.entry(s, now_us);
        self.stats.packets += 1;
        match (key.shape.l3, key.shape.l4) {
            (L3::Other, _) => {}
            (L3::V4, L4::Other) => {
                (self.stats.errors, self.stats.ipv4_errors) =
                    (self.stats.errors + 1, self.stats.ipv4_errors + 1)
            }
            (L3::V6, L4::Other) => {
                (self.stats.errors, self.stats.ipv6_errors) =
                    (self.stats.errors + 1, self.stats.ipv6_errors + 1)
            }
            (L3::V4, _) => self.stats.ipv4 += 1,
            (L3::V6, _) => self.stats.ipv6 += 1,
        }
        if let Some(old) = self.cache.get_mut(&key) {
            old.deltas.merge(&entry.deltas);
            old.totals = entry.totals;
            return;
        }
        let key = Arc::new(key);
        self.cache.insert(Arc::clone(&key), entry);
        self.order.push_back(key);
        self.stats.total_flows += 1;
        if self.cache.len() > self.capacity() {
            self.run(now_us, to);
        }
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.config.cache_max_flows).unwrap_or(usize::MAX).min(MAX_CACHED)
    }

    /// Sends records that are old enough, or too many.
    pub fn run(&mut self, now_us: u64, to: &mut dyn Collect) {
        self.expire(now_us, false, to);
    }

    /// Sends all records: the exporter ends.
    pub fn end_all(&mut self, now_us: u64, to: &mut dyn Collect) {
        self.expire(now_us, true, to);
    }

    fn expire(&mut self, now_us: u64, forced: bool, to: &mut dyn Collect) {
        let age_us = u64::from(self.config.cache_active_timeout_s) * US;
        while let Some(first) = self.order.front() {
            let Some(start_us) = self.cache.get(first).map(|e| e.deltas.start_us) else {
                self.order.pop_front();
                continue;
            };
            let why = if forced {
                reason::FORCED_END
            } else if start_us.saturating_add(age_us) <= now_us {
                reason::ACTIVE_TIMEOUT
            } else if self.cache.len() > self.capacity() {
                reason::LACK_OF_RESOURCES
            } else {
                break;
            };
            let Some(key) = self.order.pop_front() else { break };
            let Some(entry) = self.cache.remove(&key) else { continue };
            self.export(&key, &entry, why, now_us, to);
        }
    }

    /// Wall time in microseconds at which [`Self::run`] is next needed.
    pub fn deadline_us(&self) -> Option<u64> {
        let first = self.cache.get(self.order.front()?)?;
        Some(first.deltas.start_us.saturating_add(u64::from(self.config.cache_active_timeout_s) * US))
    }

    /// What a sample counts.
    fn entry(&mut self, s: &Sample<'_>, now_us: u64) -> (Key, Entry) {
        let flow = s.flow;
        let l3 = match flow.dl_type.get() {
            proto::ETH_IP => L3::V4,
            proto::ETH_IPV6 => L3::V6,
            _ => L3::Other,
        };
        let l4 = match (l3, flow.nw_proto) {
            (L3::Other, _) => L4::Other,
            (_, proto::IP_TCP) => L4::Tcp,
            (_, proto::IP_UDP) => L4::Udp,
            (_, proto::IP_SCTP) => L4::Sctp,
            (L3::V4, proto::IP_ICMP) | (L3::V6, proto::IP_ICMPV6) => L4::Icmp,
            _ => L4::Other,
        };
        let tunnel = s.tunnel.filter(|_| self.config.tunnels);
        let vlan = !flow.vlans[0].tci.is_zero();
        let shape = Shape { vlan, l3, l4, tunnel: tunnel.is_some(), egress: s.egress };
        let bytes = self.key_bytes(s, shape, tunnel);

        let n = s.matched;
        let frame_len = s.frame_len as u64;
        let ethernet = 14 + 4 * u64::from(vlan);
        let len = if l3 == L3::Other { 0 } else { frame_len.saturating_sub(ethernet) };
        let multicast = flow.dl_dst.is_multicast() && !flow.dl_dst.is_broadcast();
        let cast = match (s.egress, flow.dl_dst.is_broadcast()) {
            (false, true) => Some(2),
            (false, false) => Some(usize::from(multicast)),
            (true, true) => Some(4),
            (true, false) => (!multicast).then_some(3),
        };
        let if_dropped = |v: u64| if s.dropped { v } else { 0 };
        let if_multicast_out = |v: u64| if s.egress && multicast { v } else { 0 };
        let deltas = Deltas {
            start_us: now_us,
            end_us: now_us,
            dropped_packets: if_dropped(n),
            packets: n,
            multicast_out: if_multicast_out(n),
            frame_octets: frame_len * n,
            dropped_octets: if_dropped(len * n),
            octets: len * n,
            squares: (len * len).wrapping_mul(n),
            shortest: len,
            longest: len,
            multicast_octets: if_multicast_out(len * n),
        };
        let t = &mut self.totals;
        t.dropped_packets += deltas.dropped_packets;
        t.packets += deltas.packets;
        if let Some(cast) = cast {
            t.casts[cast] += n;
        }
        t.multicast_out += deltas.multicast_out;
        t.frame_octets += deltas.frame_octets;
        t.dropped_octets += deltas.dropped_octets;
        t.octets += deltas.octets;
        t.squares = t.squares.wrapping_add(deltas.squares);
        t.multicast_octets += deltas.multicast_octets;
        if l4 == L4::Tcp {
            let flags = flow.tcp_flags.get();
            for (count, bit) in t.tcp.iter_mut().zip([4, 0, 3, 2, 1, 5]) {
                *count += if flags >> bit & 1 != 0 { n } else { 0 };
            }
        }
        (Key { domain: s.domain, shape, bytes }, Entry { deltas, totals: self.totals })
    }

    fn key_bytes(&self, s: &Sample<'_>, shape: Shape, tunnel: Option<(TunnelKind, &Tunnel)>) -> Vec<u8> {
        let flow = s.flow;
        let mut b = Vec::with_capacity(128);
        b.extend(s.point.to_be_bytes());
        b.push(u8::from(s.egress));
        b.extend(flow.dl_src.0);
        b.extend(flow.dl_dst.0);
        b.extend(flow.dl_type.to_bytes());
        b.push(if shape.vlan { 18 } else { 14 });
        put_interface(&mut b, s.input);
        if shape.egress {
            put_interface(&mut b, s.output);
        }
        if shape.vlan {
            let tci = flow.vlans[0].tci.get();
            b.extend((tci & 0xfff).to_be_bytes());
            b.extend((tci & 0xfff).to_be_bytes());
            b.push((tci >> 13) as u8);
        }
        if shape.l3 != L3::Other {
            let version = if shape.l3 == L3::V4 { 4 } else { 6 };
            let tos = flow.nw_tos;
            b.extend([version, flow.nw_ttl, flow.nw_proto, tos >> 2, tos >> 5, tos]);
        }
        match shape.l3 {
            L3::V4 => {
                b.extend(flow.nw_src.to_bytes());
                b.extend(flow.nw_dst.to_bytes());
            }
            L3::V6 => {
                b.extend(flow.ipv6_src.to_bytes());
                b.extend(flow.ipv6_dst.to_bytes());
                b.extend(flow.ipv6_label.to_bytes());
            }
            L3::Other => {}
        }
        match shape.l4 {
            L4::Tcp | L4::Udp | L4::Sctp => {
                b.extend(flow.tp_src.to_bytes());
                b.extend(flow.tp_dst.to_bytes());
            }
            L4::Icmp => b.extend([flow.tp_src.get() as u8, flow.tp_dst.get() as u8]),
            L4::Other => {}
        }
        if let Some((kind, t)) = tunnel {
            let (number, protocol, key_len) = kind.facts();
            b.extend(t.ip_src.to_bytes());
            b.extend(t.ip_dst.to_bytes());
            b.push(protocol);
            b.extend(t.tp_src.to_bytes());
            b.extend(t.tp_dst.to_bytes());
            b.push(number);
            put_text(&mut b, &t.tun_id.to_bytes()[8 - key_len..]);
        }
        if let Some(id) = &self.config.virtual_obs_id {
            put_text(&mut b, id.as_bytes());
        }
        b
    }

    fn export(&mut self, key: &Key, entry: &Entry, why: u8, now_us: u64, to: &mut dyn Collect) {
        // Times in records lie before the one in the header.
        let export_s = now_us.div_ceil(US);
        let template_at = u64::from(self.config.template_interval_s);
        if self.domains.get(&key.domain).is_none_or(|last| last + template_at <= export_s) {
            if self.domains.len() >= MAX_DOMAINS {
                self.domains.clear();
            }
            self.domains.insert(key.domain, export_s);
            for set in template::sets(self.config.virtual_obs_id.is_some(), HEADER) {
                self.send(&set, key.domain, export_s, false, to);
            }
            self.send(&template::exporter_set(), 0, export_s, false, to);
        }
        if self.stats_sent_s + u64::from(self.config.stats_interval_s) <= export_s {
            self.stats_sent_s = export_s;
            let mut body = self.id.to_be_bytes().to_vec();
            body.extend(self.stats.tx_errors.to_be_bytes());
            let mut set = Vec::new();
            template::put_set(&mut set, template::EXPORTER, &body);
            self.send(&set, 0, export_s, true, to);
        }
        let mut set = Vec::with_capacity(400);
        template::put_set(&mut set, key.shape.template(), &record(key, entry, why, export_s));
        self.send(&set, key.domain, export_s, true, to);
    }

    fn send(&mut self, set: &[u8], domain: u32, export_s: u64, is_data: bool, to: &mut dyn Collect) {
        let mut d = VERSION.to_be_bytes().to_vec();
        d.extend(len16(HEADER + set.len()).to_be_bytes());
        d.extend((export_s as u32).to_be_bytes());
        d.extend(self.sequence.to_be_bytes());
        d.extend(domain.to_be_bytes());
        d.extend(set);
        if is_data {
            self.sequence = self.sequence.wrapping_add(1);
        }
        let (sent, failed) = to.send(&d);
        self.stats.tx_packets += sent;
        self.stats.tx_errors += failed;
    }
}

fn put_interface(b: &mut Vec<u8>, i: Interface<'_>) {
    b.extend(i.ifindex.to_be_bytes());
    // The type of the interface is not known, nor its description.
    b.extend([0; 4]);
    put_text(b, i.name.as_bytes());
    put_text(b, &[]);
}

/// A variable-length element: its length in a byte, and its bytes.
fn put_text(b: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(MAX_VIRTUAL_OBS_ID)];
    b.push(text.len() as u8);
    b.extend(text);
}

fn record(key: &Key, e: &Entry, why: u8, export_s: u64) -> Vec<u8> {
    let (d, t) = (&e.deltas, &e.totals);
    let before = |us: u64| u32::try_from((export_s * US).saturating_sub(us)).unwrap_or(u32::MAX);
    let mut b = key.bytes.clone();
    b.extend(before(d.start_us).to_be_bytes());
    b.extend(before(d.end_us).to_be_bytes());
    let mut put = |list: &[u64]| list.iter().for_each(|v| b.extend(v.to_be_bytes()));
    put(&[d.dropped_packets, t.dropped_packets, d.packets, t.packets]);
    put(&t.casts);
    put(&[d.multicast_out, t.multicast_out, d.frame_octets, t.frame_octets]);
    b.push(why);
    let mut put = |list: &[u64]| list.iter().for_each(|v| b.extend(v.to_be_bytes()));
    if key.shape.l3 != L3::Other {
        put(&[d.dropped_octets, t.dropped_octets, d.octets, t.octets, d.squares, t.squares]);
        put(&[d.shortest, d.longest, d.multicast_octets, t.multicast_octets]);
    }
    if key.shape.l4 == L4::Tcp {
        put(&t.tcp);
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::{Be16, Be32, Mac};

    const NOW: u64 = 1_700_000_000 * US + 645_000;

    fn tcp_syn() -> Flow {
        let mut f = Flow::zeroed();
        f.dl_src = Mac([0x50, 0x54, 0, 0, 0, 7]);
        f.dl_dst = Mac([0x50, 0x54, 0, 0, 0, 5]);
        f.dl_type = Be16::new(0x0800);
        (f.nw_src, f.nw_dst) = (Be32::new(0xc0a8_0001), Be32::new(0xc0a8_0002));
        (f.nw_proto, f.nw_tos, f.nw_ttl) = (6, 4, 64);
        (f.tp_src, f.tp_dst, f.tcp_flags) = (Be16::new(1), Be16::new(2), Be16::new(2));
        f
    }

    fn sample(flow: &Flow) -> Sample<'_> {
        Sample {
            flow,
            frame_len: 54,
            domain: 123,
            point: 456,
            egress: false,
            input: Interface { ifindex: 1002, name: "p2" },
            output: Interface::default(),
            tunnel: None,
            matched: 1,
            dropped: false,
        }
    }

    #[test]
    fn without_a_cache_a_sample_is_a_record_behind_its_templates() {
        let mut e = Exporter::new(1, Config::default());
        let flow = tcp_syn();
        let mut out = Vec::new();
        e.sample(&sample(&flow), NOW, &mut out);
        assert_eq!(out.len(), 18 + 1 + 1 + 1);
        let export_s = 1_700_000_001u32.to_be_bytes();
        let head = |d: &[u8]| (d[4..8].to_vec(), d[8..12].to_vec(), d[12..16].to_vec());
        assert_eq!(head(&out[0]), (export_s.to_vec(), vec![0, 0, 0, 1], vec![0, 0, 0, 123]));
        assert_eq!(head(&out[18]), (export_s.to_vec(), vec![0, 0, 0, 1], vec![0, 0, 0, 0]));
        let exporter = &out[19];
        assert_eq!(
            exporter[8..],
            [0, 0, 0, 1, 0, 0, 0, 0, 1, 206, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let data = &out[20];
        assert_eq!(data[..4], [0, 10, 1, 55]);
        assert_eq!(data[8..20], [0, 0, 0, 2, 0, 0, 0, 123, 1, 24, 1, 39]);
        let key = [
            &[0, 0, 1, 200, 0][..],
            &[0x50, 0x54, 0, 0, 0, 7, 0x50, 0x54, 0, 0, 0, 5, 8, 0, 14],
            &[0, 0, 3, 234, 0, 0, 0, 0, 2, b'p', b'2', 0],
            &[4, 64, 6, 1, 0, 4, 192, 168, 0, 1, 192, 168, 0, 2, 0, 1, 0, 2],
            &355_000u32.to_be_bytes(),
            &355_000u32.to_be_bytes(),
        ]
        .concat();
        assert_eq!(data[20..20 + key.len()], key);
        let counts: Vec<u8> =
            [0u64, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 54, 54].iter().flat_map(|v| v.to_be_bytes()).collect();
        let rest = &data[20 + key.len()..];
        assert_eq!(rest[..104], counts);
        assert_eq!(rest[104], 2);
        let counts: Vec<u8> = [0u64, 0, 40, 40, 1600, 1600, 40, 40, 0, 0, 0, 0, 0, 0, 1, 0]
            .iter()
            .flat_map(|v| v.to_be_bytes())
            .collect();
        assert_eq!(rest[105..], counts);
        let s = e.stats();
        assert_eq!((s.total_flows, s.current_flows, s.ipv4, s.tx_packets), (1, 0, 1, 21));
        e.sample(&sample(&flow), NOW, &mut out);
        assert_eq!(out.len(), 22, "templates are not due again");
    }

    #[test]
    fn a_cache_gathers_evicts_and_expires() {
        let config = Config { cache_active_timeout_s: 10, cache_max_flows: 2, ..Config::default() };
        let mut e = Exporter::new(1, config);
        let mut out = Vec::new();
        let mut flow = tcp_syn();
        for n in 0..3 {
            e.sample(&sample(&flow), NOW + n * US, &mut out);
        }
        assert_eq!((out.len(), e.stats().current_flows), (0, 1));
        assert_eq!(e.deadline_us(), Some(NOW + 10 * US));
        for port in [7, 8] {
            flow.tp_src = Be16::new(port);
            e.sample(&sample(&flow), NOW + 3 * US, &mut out);
        }
        let reason = |d: &[u8]| d[20 + 58 + 104];
        assert_eq!(out.len(), 21);
        assert_eq!(reason(&out[20]), 5, "for lack of room");
        e.run(NOW + 13 * US, &mut out);
        assert_eq!((out.len(), e.stats().current_flows), (23, 0));
        assert_eq!(reason(&out[22]), 2);
        e.sample(&sample(&flow), NOW + 14 * US, &mut out);
        e.end_all(NOW + 14 * US, &mut out);
        assert_eq!(reason(&out[23]), 4);
    }

    #[test]
    fn templates_go_to_each_domain_and_again_in_time() {
        let config = Config { template_interval_s: 2, stats_interval_s: 1, ..Config::default() };
        let mut e = Exporter::new(1, config);
        let flow = tcp_syn();
        let mut out = Vec::new();
        e.sample(&sample(&flow), NOW, &mut out);
        e.sample(&Sample { domain: 7, ..sample(&flow) }, NOW, &mut out);
        assert_eq!(out.len(), 21 + 20);
        e.sample(&sample(&flow), NOW + US, &mut out);
        assert_eq!(out.len(), 41 + 2, "counters are due");
        e.sample(&sample(&flow), NOW + 2 * US, &mut out);
        assert_eq!(out.len(), 43 + 21);
    }

    #[test]
    fn outer_headers_and_observation_ids() {
        let mut e = Exporter::new(1, Config { virtual_obs_id: Some("abc".into()), ..Config::default() });
        let mut flow = tcp_syn();
        flow.nw_proto = 99;
        flow.tunnel.ip_src = Be32::new(0x0101_025c);
        flow.tunnel.ip_dst = Be32::new(0x0101_0258);
        flow.tunnel.tun_id = ib_packet::Be64::new(77);
        let mut out = Vec::new();
        let with_tunnel = Sample { tunnel: Some((TunnelKind::Vxlan, &flow.tunnel)), ..sample(&flow) };
        e.sample(&with_tunnel, NOW, &mut out);
        let data = &out[20];
        assert_eq!(data[16..18], 278u16.to_be_bytes());
        let want = [1, 1, 2, 92, 1, 1, 2, 88, 17, 0, 0, 0, 0, 1, 3, 0, 0, 77, 3, b'a', b'b', b'c'];
        assert_eq!(data[66..88], want);
        assert_eq!((e.stats().errors, e.stats().ipv4_errors), (1, 1));
    }
}
