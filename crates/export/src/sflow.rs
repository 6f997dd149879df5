//! sFlow version 5: sampled packets with what the switch knows of them, and counters of ports, in datagrams of at most 1400 bytes.
//!
//! An [`Agent`] is one per bridge. Samples are put into the datagram that grows ([`Agent::sample`]); it leaves when the next does not
//! fit, and once a second ([`Agent::tick`]). Pollers, one per interface and one for the bridge, ask [`Counters`] every
//! polling interval; each starts at a random second of it, so that interfaces take turns.
//!
//! Structures: sFlow.org's `sflow_version_5.txt`, and its structures for tunnels, for OpenFlow and for Open vSwitch.

use std::net::IpAddr;

use ib_base::rng::Rng;
use ib_flow::{Flow, Tunnel, Vlan};

use crate::{Collect, len32};

/// Samples: one of so many packets, unless configured.
pub const DEFAULT_SAMPLING: u32 = 400;
/// Bytes of a packet in a sample, unless configured.
pub const DEFAULT_HEADER: u32 = 128;
/// Seconds between counters, unless configured.
pub const DEFAULT_POLLING_S: u32 = 30;

const MAX_DATAGRAM: usize = 1400;
const TICK_MS: u64 = 1000;
/// Index of the bridge's own data source, plus the agent's sub-id.
const BRIDGE_INDEX: u32 = 1000;
const CLASS_ENTITY: u32 = 2 << 24;
/// Bytes of the frame check sequence, which samples do without.
const FCS: usize = 4;

/// Record types.
mod record {
    pub const HEADER: u32 = 1;
    pub const SWITCH: u32 = 1001;
    pub const MPLS: u32 = 1006;
    pub const TUNNEL_EGRESS: u32 = 1023;
    pub const TUNNEL_INGRESS: u32 = 1024;
    pub const VNI_EGRESS: u32 = 1029;
    pub const VNI_INGRESS: u32 = 1030;
    pub const GENERIC: u32 = 1;
    pub const ETHERNET: u32 = 2;
    pub const OPENFLOW_PORT: u32 = 1004;
    pub const PORT_NAME: u32 = 1005;
    pub const APP_RESOURCES: u32 = 2203;
    pub const OVS_DP: u32 = 2207;
}

/// How a packet left, as a sample's output says it.
pub mod output {
    /// It was dropped, for a reason not told.
    pub const DROPPED: u32 = 0x4000_0000 | 256;
    /// It left by so many ports.
    pub fn several(n: u32) -> u32 {
        0x8000_0000 | n & 0x3fff_ffff
    }
    /// How many ports it left by.
    pub fn count(output: u32) -> u32 {
        match output >> 30 {
            0 => u32::from(output != 0),
            2 => output & 0x3fff_ffff,
            _ => 0,
        }
    }
}

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address in headers.
    pub agent: IpAddr,
    /// Tells agents of one address apart.
    pub sub_id: u32,
    /// One of so many packets is sampled.
    pub sampling: u32,
    /// Bytes of a packet in a sample.
    pub header: u32,
    /// Seconds between counters; 0: none.
    pub polling_s: u32,
}

/// One end of a tunnel's outer header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// Addresses: source, destination.
    pub ip: [[u8; 4]; 2],
    /// IP protocol.
    pub proto: u8,
    /// Transport ports: source, destination.
    pub ports: [u16; 2],
    /// TOS.
    pub tos: u8,
    /// Key; `None` is left out.
    pub vni: Option<u32>,
}

impl Outer {
    /// That of a packet which came out of a tunnel of this protocol over IPv4.
    pub fn of(tunnel: &Tunnel, proto: u8) -> Option<Outer> {
        let key = tunnel.tun_id.get();
        (!tunnel.ip_dst.is_zero()).then(|| Outer {
            ip: [tunnel.ip_src.to_bytes(), tunnel.ip_dst.to_bytes()],
            proto,
            ports: [tunnel.tp_src.get(), tunnel.tp_dst.get()],
            tos: tunnel.ip_tos,
            vni: (key != 0).then_some(key as u32),
        })
    }
}

/// A sampled packet.
pub struct Sample<'a> {
    /// Its key.
    pub flow: &'a Flow,
    /// Its bytes.
    pub packet: &'a [u8],
    /// Interface index of entry; 0 unknown.
    pub input: u32,
    /// [`output`].
    pub output: u32,
    /// Tag with which it leaves.
    pub out_tci: u16,
    /// Outer header with which it came.
    pub tunnel_in: Option<Outer>,
    /// Outer header with which it leaves.
    pub tunnel_out: Option<Outer>,
    /// MPLS labels that were pushed, outermost first.
    pub mpls: Vec<u32>,
}

/// Counters of an interface. Unknown ones have all bits set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// Bits a second.
    pub speed_bps: u64,
    /// 0 unknown, 1 full duplex, 2 half duplex.
    pub direction: u32,
    /// Bit 0: administratively up; bit 1: has a carrier.
    pub status: u32,
    /// Bytes received and sent.
    pub bytes: [u64; 2],
    /// Packets received and sent.
    pub packets: [u64; 2],
    /// Multicast packets received.
    pub multicast: u64,
    /// Dropped on reception and on transmission.
    pub dropped: [u64; 2],
    /// Errors of reception and of transmission.
    pub errors: [u64; 2],
    /// dot3Stats: alignment and FCS errors.
    pub frame_errors: [u64; 2],
    /// Datapath id.
    pub datapath_id: u64,
    /// OpenFlow port number.
    pub ofport: u32,
    /// Name.
    pub name: String,
}

/// Counters of the bridge and its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeCounters {
    /// ms of CPU time: user, system.
    pub cpu_ms: [u32; 2],
    /// Bytes of memory in use.
    pub memory: u64,
    /// Packets that hit, missed and were lost.
    pub hits: u32,
    /// Missed.
    pub misses: u32,
    /// Lost.
    pub lost: u32,
    /// Masks looked at.
    pub mask_hits: u32,
    /// Flows.
    pub flows: u32,
    /// Masks.
    pub masks: u32,
}

/// Who knows counters.
pub trait Counters {
    /// Of an interface; `None` if there is none.
    fn port(&mut self, ifindex: u32) -> Option<PortCounters>;
    /// Of the bridge.
    fn bridge(&mut self) -> BridgeCounters;
}

/// A source of counters, by class and index as in samples.
struct Poller {
    source: u32,
    due_ms: u64,
    sequence: u32,
}

/// One bridge's agent. Times are ms of the clock, but seconds of wall time give its age.
pub struct Agent {
    config: Config,
    boot_s: u64,
    now_s: u64,
    next_tick_ms: u64,
    sequence: u32,
    samples: u32,
    body: Vec<u8>,
    flow_sequence: u32,
    pool: u32,
    /// By descending source.
    pollers: Vec<Poller>,
    rng: Rng,
}

/// Appends a record: type, length, body filled up to words.
fn put(to: &mut Vec<u8>, kind: u32, body: &[u8]) {
    to.extend(kind.to_be_bytes());
    to.extend(len32(body.len().next_multiple_of(4)).to_be_bytes());
    to.extend(body);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// Bytes with their length in front, filled up to words.
fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut out = len32(bytes.len()).to_be_bytes().to_vec();
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn put_outer(to: &mut Vec<u8>, outer: &Outer, kind: u32, vni_kind: u32) {
    if let Some(vni) = outer.vni {
        put(to, vni_kind, &vni.to_be_bytes());
    }
    // Collectors know Open vSwitch's order of bytes in these two words, and undo it.
    let [src, dst] = outer.ports.map(|p| u32::from(p.swap_bytes()));
    let [ip_src, ip_dst] = outer.ip.map(u32::from_be_bytes);
    put(to, kind, &words(&[0, outer.proto.into(), ip_src, ip_dst, src, dst, 0, outer.tos.into()]));
}

impl Agent {
    /// An agent that has seen nothing.
    pub fn new(config: Config, now_ms: u64, wall_s: u64, rng: Rng) -> Agent {
        let mut agent = Agent {
            boot_s: wall_s,
            now_s: wall_s,
            next_tick_ms: now_ms + TICK_MS,
            sequence: 0,
            samples: 0,
            body: Vec::new(),
            flow_sequence: 0,
            pool: 0,
            pollers: Vec::new(),
            rng,
            config,
        };
        agent.set_ports(&[], now_ms);
        agent
    }

    /// Settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn bridge_source(&self) -> u32 {
        CLASS_ENTITY | (BRIDGE_INDEX + self.config.sub_id) & 0x00ff_ffff
    }

    /// Says which interfaces there are, by index. Those that stay keep their turns.
    pub fn set_ports(&mut self, ifindexes: &[u32], now_ms: u64) {
        let mut sources: Vec<u32> = ifindexes.iter().map(|i| i & 0x00ff_ffff).filter(|i| *i != 0).collect();
        sources.push(self.bridge_source());
        sources.sort_unstable_by(|a, b| b.cmp(a));
        sources.dedup();
        let mut old = std::mem::take(&mut self.pollers);
        let interval = u64::from(self.config.polling_s);
        for source in sources {
            let poller = match old.iter().position(|p| p.source == source) {
                Some(i) => old.swap_remove(i),
                None => {
                    let turn = if interval == 0 { 0 } else { self.rng.below(interval) };
                    Poller { source, due_ms: now_ms + (1 + turn) * TICK_MS, sequence: 0 }
                }
            };
            self.pollers.push(poller);
        }
    }

    /// Takes a sampled packet.
    pub fn sample(&mut self, s: &Sample<'_>, to: &mut dyn Collect) {
        self.flow_sequence = self.flow_sequence.wrapping_add(1);
        self.pool = self.pool.wrapping_add(self.config.sampling);
        let tag = |tci: u16| [u32::from(tci & 0xfff), u32::from(tci >> 13)];
        let Vlan { tci, .. } = s.flow.vlans[0];
        let ([vid_in, pcp_in], [vid_out, pcp_out]) = (tag(tci.get()), tag(s.out_tci));
        let mut records = Vec::with_capacity(256);
        put(&mut records, record::SWITCH, &words(&[vid_in, pcp_in, vid_out, pcp_out]));
        let n = s.packet.len().min(self.config.header as usize);
        let mut header = words(&[1, len32(s.packet.len() + FCS), len32(FCS)]);
        header.extend(opaque(&s.packet[..n]));
        put(&mut records, record::HEADER, &header);
        let mut n_records = 2;
        if !s.mpls.is_empty() {
            // Next hop 0.0.0.0, no labels of entry, those of exit.
            let mut mpls = vec![1, 0, 0, len32(s.mpls.len())];
            mpls.extend(&s.mpls);
            put(&mut records, record::MPLS, &words(&mpls));
            n_records += 1;
        }
        for (outer, kind, vni) in [
            (&s.tunnel_out, record::TUNNEL_EGRESS, record::VNI_EGRESS),
            (&s.tunnel_in, record::TUNNEL_INGRESS, record::VNI_INGRESS),
        ] {
            if let Some(outer) = outer {
                put_outer(&mut records, outer, kind, vni);
                n_records += 1 + u32::from(outer.vni.is_some());
            }
        }
        let mut sample = words(&[
            self.flow_sequence,
            self.bridge_source(),
            self.config.sampling,
            self.pool,
            0,
            s.input,
            s.output,
            n_records,
        ]);
        sample.extend(records);
        self.add(1, &sample, to);
    }

    fn header_len(&self) -> usize {
        if self.config.agent.is_ipv4() { 28 } else { 40 }
    }

    /// Puts a sample into the datagram.
    fn add(&mut self, kind: u32, sample: &[u8], to: &mut dyn Collect) {
        let len = sample.len() + 8;
        if self.header_len() + self.body.len() + len >= MAX_DATAGRAM {
            self.send(to);
        }
        if self.header_len() + len > MAX_DATAGRAM {
            return;
        }
        put(&mut self.body, kind, sample);
        self.samples += 1;
    }

    fn send(&mut self, to: &mut dyn Collect) {
        if self.samples == 0 {
            return;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut d = words(&[5]);
        match self.config.agent {
            IpAddr::V4(ip) => {
                d.extend(words(&[1]));
                d.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                d.extend(words(&[2]));
                d.extend(ip.octets());
            }
        }
        let age_ms = (self.now_s.saturating_sub(self.boot_s) as u32).wrapping_mul(1000);
        d.extend(words(&[self.config.sub_id, self.sequence, age_ms, self.samples]));
        d.append(&mut self.body);
        self.samples = 0;
        to.send(&d);
    }

    /// Does what is due: asks for counters, sends the datagram.
    pub fn tick(&mut self, now_ms: u64, wall_s: u64, counters: &mut dyn Counters, to: &mut dyn Collect) {
        if now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now_ms + TICK_MS;
        self.now_s = wall_s;
        if self.config.polling_s != 0 {
            let mut pollers = std::mem::take(&mut self.pollers);
            for p in pollers.iter_mut().filter(|p| p.due_ms <= now_ms) {
                p.due_ms = now_ms + u64::from(self.config.polling_s) * TICK_MS;
                let records = if p.source & 0xff00_0000 == 0 {
                    counters.port(p.source).map(|c| (4, port_records(p.source, &c)))
                } else {
                    Some((2, bridge_records(&counters.bridge())))
                };
                if let Some((n, records)) = records {
                    p.sequence = p.sequence.wrapping_add(1);
                    let mut sample = words(&[p.sequence, p.source, n]);
                    sample.extend(records);
                    self.add(2, &sample, to);
                }
            }
            self.pollers = pollers;
        }
        self.send(to);
    }

    /// When [`Self::tick`] is next needed.
    pub fn deadline_ms(&self) -> Option<u64> {
        let polls = (self.config.polling_s != 0).then(|| self.pollers.iter().map(|p| p.due_ms).min());
        let send = (self.samples != 0).then_some(self.next_tick_ms);
        polls.flatten().into_iter().chain(send).min().map(|at| at.max(self.next_tick_ms))
    }
}

fn port_records(ifindex: u32, c: &PortCounters) -> Vec<u8> {
    let n = |v: u64| v as u32;
    let unknown = u32::MAX;
    let mut out = Vec::with_capacity(200);
    let [alignment, fcs] = c.frame_errors.map(n);
    let mut ethernet = vec![alignment, fcs];
    ethernet.resize(13, unknown);
    put(&mut out, record::ETHERNET, &words(&ethernet));
    let [hi, lo] = [(c.datapath_id >> 32) as u32, c.datapath_id as u32];
    put(&mut out, record::OPENFLOW_PORT, &words(&[hi, lo, c.ofport]));
    put(&mut out, record::PORT_NAME, &opaque(c.name.as_bytes()));
    let mut g = words(&[ifindex, 6]);
    g.extend(c.speed_bps.to_be_bytes());
    g.extend(words(&[c.direction, c.status]));
    let [rx, tx] = [0, 1];
    g.extend(c.bytes[rx].to_be_bytes());
    g.extend(words(&[n(c.packets[rx]), n(c.multicast), unknown, n(c.dropped[rx]), n(c.errors[rx]), unknown]));
    g.extend(c.bytes[tx].to_be_bytes());
    g.extend(words(&[n(c.packets[tx]), unknown, unknown, n(c.dropped[tx]), n(c.errors[tx]), 0]));
    put(&mut out, record::GENERIC, &g);
    out
}

fn bridge_records(c: &BridgeCounters) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    let mut app = words(&c.cpu_ms);
    app.extend(c.memory.to_be_bytes());
    // Limits, descriptors and connections are not told.
    app.resize(40, 0);
    put(&mut out, record::APP_RESOURCES, &app);
    put(&mut out, record::OVS_DP, &words(&[c.hits, c.misses, c.lost, c.mask_hits, c.flows, c.masks]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::{Be16, Packet};

    struct Fixed;
    impl Counters for Fixed {
        fn port(&mut self, ifindex: u32) -> Option<PortCounters> {
            let unknown = u64::MAX;
            (ifindex != 1004).then(|| PortCounters {
                speed_bps: 100_000_000,
                direction: 0,
                status: 3,
                bytes: [0x60, 0x6e],
                packets: [2, 1],
                multicast: unknown,
                dropped: [unknown; 2],
                errors: [unknown; 2],
                frame_errors: [unknown; 2],
                datapath_id: 0xaa55_aa55_0000,
                ofport: 1,
                name: "p1".into(),
            })
        }
        fn bridge(&mut self) -> BridgeCounters {
            BridgeCounters {
                cpu_ms: [11, 11],
                memory: 0x010f_3000,
                misses: 3,
                mask_hits: u32::MAX,
                flows: 3,
                masks: u32::MAX,
                ..BridgeCounters::default()
            }
        }
    }

    fn agent(polling_s: u32) -> Agent {
        let config =
            Config { agent: IpAddr::from([127, 0, 0, 1]), sub_id: 0, sampling: 1, header: 16, polling_s };
        Agent::new(config, 5000, 100, Rng::new(1))
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn samples_and_counters_share_a_datagram() {
        let mut a = agent(1);
        a.set_ports(&[1001, 1004], 5000);
        let frame = hex("505400000005 505400000007 8100 6005 0806 0001 0800 0604 0001");
        let mut flow = Flow::zeroed();
        ib_flow::extract(&Packet::from_frame(&frame), &ib_flow::Metadata::default(), &mut flow);
        let mut out = Vec::new();
        let sample = Sample {
            flow: &flow,
            packet: &frame,
            input: 1001,
            output: output::several(3),
            out_tci: 5,
            tunnel_in: None,
            tunnel_out: None,
            mpls: Vec::new(),
        };
        a.sample(&sample, &mut out);
        assert_eq!((out.len(), a.deadline_ms()), (0, Some(6000)));
        a.tick(6000, 101, &mut Fixed, &mut out);
        let want = hex("00000005 00000001 7f000001 00000000 00000001 000003e8 00000003
             00000001 00000060 00000001 020003e8 00000001 00000001 00000000 000003e9 80000003 00000002
             000003e9 00000010 00000005 00000003 00000005 00000000
             00000001 00000020 00000001 0000001e 00000004 00000010 50540000 00055054 00000007 81006005
             00000002 0000005c 00000001 020003e8 00000002 0000089b 00000028 0000000b 0000000b 00000000
             010f3000 00000000 00000000 00000000 00000000 00000000 00000000 0000089f
             00000018 00000000 00000003 00000000 ffffffff 00000003 ffffffff
             00000002 000000cc 00000001 000003e9 00000004 00000002 00000034 ffffffff ffffffff
             ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff
             ffffffff ffffffff ffffffff 000003ec 0000000c 0000aa55 aa550000 00000001
             000003ed 00000008 00000002 70310000 00000001 00000058 000003e9 00000006
             00000000 05f5e100 00000000 00000003 00000000 00000060 00000002 ffffffff
             ffffffff ffffffff ffffffff ffffffff 00000000 0000006e 00000001 ffffffff ffffffff
             ffffffff ffffffff 00000000");
        assert_eq!(out[0], want);
        a.tick(6500, 101, &mut Fixed, &mut out);
        assert_eq!((out.len(), a.deadline_ms()), (1, Some(7000)));
    }

    #[test]
    fn outer_headers_and_labels_come_last() {
        let mut a = agent(0);
        let mut flow = Flow::zeroed();
        flow.tunnel.ip_src = ib_packet::Be32::new(0x0101_025c);
        flow.tunnel.ip_dst = ib_packet::Be32::new(0x0101_0258);
        flow.tunnel.tun_id = ib_packet::Be64::new(0x4d);
        flow.tunnel.tp_src = Be16::new(5555);
        flow.tunnel.tp_dst = Be16::new(4789);
        let sample = Sample {
            flow: &flow,
            packet: &[1, 2, 3, 4],
            input: 0,
            output: 1001,
            out_tci: 0,
            tunnel_in: Outer::of(&flow.tunnel, 17),
            tunnel_out: None,
            mpls: vec![0x0006_4740],
        };
        let mut out = Vec::new();
        a.sample(&sample, &mut out);
        a.tick(6000, 101, &mut Fixed, &mut out);
        let want = hex("000003ee 00000014 00000001 00000000 00000000 00000001 00064740
             00000406 00000004 0000004d
             00000400 00000020 00000000 00000011 0101025c 01010258 0000b315 0000b512 00000000 00000000");
        assert_eq!(out[0][out[0].len() - want.len()..], want);
        assert_eq!(a.deadline_ms(), None, "nothing to poll, nothing to send");
    }

    #[test]
    fn a_full_datagram_leaves_at_once() {
        let mut a = agent(0);
        let flow = Flow::zeroed();
        let sample = Sample {
            flow: &flow,
            packet: &[0; 64],
            input: 0,
            output: output::DROPPED,
            out_tci: 0,
            tunnel_in: None,
            tunnel_out: None,
            mpls: Vec::new(),
        };
        let mut out = Vec::new();
        for _ in 0..30 {
            a.sample(&sample, &mut out);
        }
        assert!(!out.is_empty() && out.iter().all(|d| d.len() <= MAX_DATAGRAM));
        assert_eq!(output::count(output::several(2)), 2);
        assert_eq!((output::count(1001), output::count(output::DROPPED)), (1, 0));
    }
}
