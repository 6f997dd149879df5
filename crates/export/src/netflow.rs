//! NetFlow version 5: counts packets of IP flows, and reports a flow when it ends, when it leaves by another port, and every
//! active timeout while it lasts.
//!
//! A flow is a 5-tuple with its TOS and port of entry. Its owner tells of packets ([`NetFlow::update`]) and of the end
//! ([`NetFlow::forget`]); [`NetFlow::run`] sees to active flows, once a second at most. Records collect in a datagram (30 fit), which
//! [`NetFlow::flush`] sends. Cost: a hash lookup per update; a look at every flow per second.

use std::collections::HashMap;

use ib_flow::Flow;
use ib_flow::extract::proto;

use crate::{Collect, len16};

/// Output of flows that were flooded, that left by several ports, and that were dropped.
pub mod output {
    /// Flooded.
    pub const FLOOD: u16 = u16::MAX;
    /// Several ports.
    pub const MULTI: u16 = u16::MAX - 1;
    /// None.
    pub const DROP: u16 = u16::MAX - 2;
}

/// Bits of the TOS that make a flow.
pub const DSCP: u8 = 0xfc;
/// Seconds between reports of an active flow unless configured.
pub const DEFAULT_ACTIVE_TIMEOUT_S: i64 = 600;

const HEADER: usize = 24;
const RECORD: usize = 48;
const MAX_RECORDS: usize = 30;
/// Time between looks at active flows.
const PERIOD_MS: u64 = 1000;
/// Flows that are remembered; beyond it the flow is reported packet by packet.
const MAX_FLOWS: usize = 1 << 20;

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Engine type in headers.
    pub engine_type: u8,
    /// Engine id in headers.
    pub engine_id: u8,
    /// ms between reports of an active flow; 0: never.
    pub active_timeout_ms: u64,
    /// The seven low bits of the engine id replace the high ones of port numbers.
    pub add_id_to_interface: bool,
}

/// What makes a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// OpenFlow port of entry.
    pub in_port: u16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// TOS without ECN.
    pub tos: u8,
    /// IP protocol.
    pub proto: u8,
    /// Source port, or ICMP type.
    pub tp_src: u16,
    /// Destination port, or ICMP code.
    pub tp_dst: u16,
}

impl Key {
    /// The flow of a packet that is IPv4; its `in_port` is OpenFlow's.
    pub fn of(flow: &Flow) -> Option<Key> {
        (flow.dl_type.get() == 0x0800).then(|| Key {
            in_port: flow.in_port as u16,
            src: flow.nw_src.to_bytes(),
            dst: flow.nw_dst.to_bytes(),
            tos: flow.nw_tos & DSCP,
            proto: flow.nw_proto,
            tp_src: flow.tp_src.get(),
            tp_dst: flow.tp_dst.get(),
        })
    }
}

/// Packets to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Clock ms of the last one.
    pub used_ms: u64,
    /// OR of their TCP flags.
    pub tcp_flags: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    output: u16,
    created_ms: u64,
    used_ms: u64,
    last_expired_ms: u64,
    packets: u64,
    bytes: u64,
    tcp_flags: u8,
}

/// The machine. All times are in ms of the same clock, but for [`NetFlow::flush`]'s wall time.
#[derive(Debug)]
pub struct NetFlow {
    config: Config,
    boot_ms: u64,
    reconfigured_ms: u64,
    next_run_ms: u64,
    flows: HashMap<Key, Entry>,
    /// Records so far.
    sequence: u32,
    /// The datagram that grows.
    datagram: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl NetFlow {
    /// Nothing seen yet.
    pub fn new(config: Config, now_ms: u64) -> NetFlow {
        NetFlow {
            config,
            boot_ms: now_ms,
            reconfigured_ms: now_ms,
            next_run_ms: 0,
            flows: HashMap::new(),
            sequence: 0,
            datagram: Vec::new(),
            full: Vec::new(),
        }
    }

    /// Changes settings.
    pub fn configure(&mut self, config: Config, now_ms: u64) {
        if config.active_timeout_ms != self.config.active_timeout_ms {
            self.reconfigured_ms = now_ms;
            self.next_run_ms = now_ms;
        }
        self.config = config;
    }

    /// Settings.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Counts packets of a flow that leave by `output`.
    pub fn update(&mut self, key: &Key, output: u16, stats: &Packets, now_ms: u64, wall_ms: u64) {
        let mut e = match self.flows.get(key) {
            Some(e) => *e,
            None => Entry { output, created_ms: stats.used_ms, ..Entry::default() },
        };
        if e.output != output {
            self.expire(key, &mut e, now_ms, wall_ms);
            e.created_ms = stats.used_ms;
            e.output = output;
        }
        e.packets += stats.packets;
        e.bytes += stats.bytes;
        e.tcp_flags |= stats.tcp_flags as u8;
        e.used_ms = e.used_ms.max(stats.used_ms);
        let unset = e.last_expired_ms == 0 || self.reconfigured_ms > e.last_expired_ms;
        if self.config.active_timeout_ms == 0 || unset {
            // Time that passed before does not count.
            e.last_expired_ms = now_ms;
        }
        if self.flows.len() < MAX_FLOWS || self.flows.contains_key(key) {
            self.flows.insert(*key, e);
        } else {
            self.expire(key, &mut e, now_ms, wall_ms);
        }
    }

    /// The flow has ended: reports what it had since the last report.
    pub fn forget(&mut self, key: &Key, now_ms: u64, wall_ms: u64) {
        if let Some(mut e) = self.flows.remove(key) {
            self.expire(key, &mut e, now_ms, wall_ms);
        }
    }

    /// Reports flows that are active for long.
    pub fn run(&mut self, now_ms: u64, wall_ms: u64) {
        let timeout = self.config.active_timeout_ms;
        if timeout == 0 || now_ms < self.next_run_ms {
            return;
        }
        self.next_run_ms = now_ms + PERIOD_MS;
        let mut due: Vec<Key> = Vec::new();
        due.extend(self.flows.iter().filter(|(_, e)| now_ms > e.last_expired_ms + timeout).map(|(k, _)| *k));
        due.sort_unstable_by_key(|k| (k.src, k.dst, k.proto, k.tp_src, k.tp_dst, k.in_port, k.tos));
        for key in due {
            let Some(mut e) = self.flows.remove(&key) else { continue };
            let idle = e.used_ms < e.last_expired_ms;
            self.expire(&key, &mut e, now_ms, wall_ms);
            // One that had nothing for so long may have been lost sight of.
            if !idle {
                self.flows.insert(key, e);
            }
        }
    }

    /// When [`Self::run`] is next needed.
    pub fn deadline_ms(&self) -> Option<u64> {
        let timeout = self.config.active_timeout_ms;
        if timeout == 0 {
            return None;
        }
        let first = self.flows.values().map(|e| e.last_expired_ms.saturating_add(timeout + 1)).min()?;
        Some(first.max(self.next_run_ms))
    }

    /// Whether there are records to send.
    pub fn has_records(&self) -> bool {
        !self.datagram.is_empty() || !self.full.is_empty()
    }

    /// Sends what was recorded.
    pub fn flush(&mut self, to: &mut dyn Collect) {
        for datagram in self.full.drain(..) {
            to.send(&datagram);
        }
        if !self.datagram.is_empty() {
            to.send(&self.datagram);
            self.datagram.clear();
        }
    }

    fn expire(&mut self, key: &Key, e: &mut Entry, now_ms: u64, wall_ms: u64) {
        e.last_expired_ms += self.config.active_timeout_ms;
        if e.packets == 0 {
            return;
        }
        // A record counts 32 bits of bytes. More go into several ones, up to a flow that must be an error.
        let (mut packets, mut bytes) = (e.packets, e.bytes);
        while bytes > u64::from(u32::MAX) && bytes >> 32 <= 175 {
            let part = bytes.min(u64::from(u32::MAX));
            let share = (u128::from(packets) * u128::from(part) / u128::from(bytes)) as u64;
            self.record(key, e, share, part, now_ms, wall_ms);
            packets -= share;
            bytes -= part;
        }
        if packets != 0 {
            self.record(key, e, packets, bytes, now_ms, wall_ms);
        }
        (e.packets, e.bytes, e.tcp_flags) = (0, 0, 0);
    }

    fn interface(&self, port: u16) -> u16 {
        if self.config.add_id_to_interface {
            port & 0x1ff | u16::from(self.config.engine_id & 0x7f) << 9
        } else {
            port
        }
    }

    fn record(&mut self, key: &Key, e: &Entry, packets: u64, bytes: u64, now_ms: u64, wall_ms: u64) {
        let since_boot = |ms: u64| (ms.saturating_sub(self.boot_ms) as u32).to_be_bytes();
        let u32_of = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        let (tp_src, tp_dst) = match key.proto {
            proto::IP_ICMP => (0, key.tp_src << 8 | key.tp_dst & 0xff),
            _ => (key.tp_src, key.tp_dst),
        };
        let mut r = Vec::with_capacity(RECORD);
        r.extend(key.src);
        r.extend(key.dst);
        r.extend([0; 4]);
        r.extend(self.interface(key.in_port).to_be_bytes());
        r.extend(self.interface(e.output).to_be_bytes());
        r.extend(u32_of(packets));
        r.extend(u32_of(bytes));
        r.extend(since_boot(e.created_ms));
        r.extend(since_boot(e.used_ms.max(e.created_ms)));
        r.extend(tp_src.to_be_bytes());
        r.extend(tp_dst.to_be_bytes());
        r.extend([0, e.tcp_flags, key.proto, key.tos]);
        r.resize(RECORD, 0);
        if self.datagram.is_empty() {
            let d = &mut self.datagram;
            d.extend([0, 5, 0, 0]);
            d.extend(since_boot(now_ms));
            d.extend(((wall_ms / 1000) as u32).to_be_bytes());
            d.extend(((wall_ms % 1000) as u32 * 1_000_000).to_be_bytes());
            d.extend([0; 4]);
            d.extend([self.config.engine_type, self.config.engine_id, 0, 0]);
        }
        self.datagram.extend(r);
        let n = (self.datagram.len() - HEADER) / RECORD;
        self.datagram[2..4].copy_from_slice(&len16(n).to_be_bytes());
        self.datagram[16..20].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        if n >= MAX_RECORDS {
            self.full.push(std::mem::take(&mut self.datagram));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        in_port: 2,
        src: [192, 168, 0, 1],
        dst: [192, 168, 0, 2],
        tos: 4,
        proto: 6,
        tp_src: 1,
        tp_dst: 2,
    };

    fn machine(active_timeout_ms: u64) -> NetFlow {
        let config = Config { engine_type: 2, engine_id: 1, active_timeout_ms, add_id_to_interface: false };
        NetFlow::new(config, 1000)
    }

    fn packets(used_ms: u64) -> Packets {
        Packets { packets: 4, bytes: 216, used_ms, tcp_flags: 3 }
    }

    #[test]
    fn a_flow_that_ends_is_one_record() {
        let mut nf = machine(30_000);
        nf.update(&KEY, 1, &packets(2000), 2000, 1_500_000_000_250);
        assert!(!nf.has_records());
        nf.forget(&KEY, 13_000, 1_500_000_000_250);
        let mut out = Vec::new();
        nf.flush(&mut out);
        let want = [
            &[0, 5, 0, 1][..],
            &12_000u32.to_be_bytes(),
            &1_500_000_000u32.to_be_bytes(),
            &250_000_000u32.to_be_bytes(),
            &[0, 0, 0, 0, 2, 1, 0, 0],
            &[192, 168, 0, 1, 192, 168, 0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 4, 0, 0, 0, 216],
            &1000u32.to_be_bytes(),
            &1000u32.to_be_bytes(),
            &[0, 1, 0, 2, 0, 3, 6, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(out, [want.concat()]);
        nf.forget(&KEY, 14_000, 0);
        assert!(!nf.has_records(), "it is gone");
    }

    #[test]
    fn another_output_ends_it_and_icmp_has_type_and_code_for_a_port() {
        let mut nf = machine(0);
        let key = Key { proto: 1, tp_src: 3, tp_dst: 1, ..KEY };
        nf.update(&key, output::FLOOD, &packets(2000), 2000, 0);
        nf.update(&key, 1, &packets(3000), 3000, 0);
        let mut out = Vec::new();
        nf.flush(&mut out);
        assert_eq!(out[0][24 + 12..24 + 16], [0, 2, 0xff, 0xff]);
        assert_eq!(out[0][24 + 32..24 + 36], [0, 0, 3, 1]);
        assert_eq!(nf.deadline_ms(), None);
    }

    #[test]
    fn active_flows_are_reported_and_idle_ones_forgotten() {
        let mut nf = machine(30_000);
        nf.update(&KEY, 1, &packets(2000), 2000, 0);
        nf.run(32_000, 0);
        assert!(!nf.has_records());
        assert_eq!(nf.deadline_ms(), Some(33_000));
        nf.run(33_000, 0);
        assert!(nf.has_records());
        nf.run(63_000, 0);
        assert_eq!(nf.deadline_ms(), None);
    }

    #[test]
    fn ports_carry_the_engine_and_large_counts_are_split() {
        let mut nf = machine(0);
        nf.configure(Config { add_id_to_interface: true, engine_id: 62, ..nf.config() }, 0);
        let many = Packets { packets: 1 << 20, bytes: 6 << 30, used_ms: 2000, tcp_flags: 0 };
        nf.update(&KEY, output::MULTI, &many, 2000, 0);
        nf.forget(&KEY, 2000, 0);
        let mut out = Vec::new();
        nf.flush(&mut out);
        assert_eq!(out[0][2..4], [0, 2]);
        assert_eq!(out[0][16..20], [0, 0, 0, 1], "the number of the last record");
        assert_eq!(out[0][24 + 12..24 + 16], [0x7c, 2, 0x7d, 0xfe]);
        assert_eq!(out[0][24 + 20..24 + 24], [0xff; 4]);
    }

    #[test]
    fn a_datagram_has_thirty_records() {
        let mut nf = machine(0);
        for n in 0..31 {
            let key = Key { tp_src: n, ..KEY };
            nf.update(&key, 1, &packets(2000), 2000, 0);
            nf.forget(&key, 2000, 0);
        }
        let mut out = Vec::new();
        nf.flush(&mut out);
        assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [24 + 30 * 48, 24 + 48]);
    }
}
