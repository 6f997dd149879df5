//! Messages of the kernel's datapath: families `ovs_datapath`, `ovs_vport`, `ovs_flow`, `ovs_packet`, `ovs_meter`, `ovs_ct_limit`.
//!
//! Pure. A message is a generic netlink header (command, version), the datapath's interface index ([`Header`]), and
//! attributes; `write` makes the attributes of a request, `read` takes those of an answer or notification. Keys and
//! actions inside are [`ib_dpif::netlink`]'s. A type that is not known is skipped, since kernels add some; a known one
//! with a wrong length is an error, never a panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_dpif::meter::{MeterBand, MeterConfig, MeterStats};
use ib_dpif::netlink::{
    CodecError, Writer, attributes, decode_actions, decode_key, put_actions, put_key, put_mask,
};
use ib_dpif::{Action, DpStats, FlowStats, Ufid};
use ib_flow::{Flow, Mask};
use ib_packet::{Gso, GsoKind, Offload};
use ib_sys::netlink::{text, u16_at, u32_at, u64_at};

use crate::exact;

/// Commands, by family.
#[allow(missing_docs)]
pub mod command {
    /// Of datapaths, vports and flows.
    pub const NEW: u8 = 1;
    pub const DEL: u8 = 2;
    pub const GET: u8 = 3;
    pub const SET: u8 = 4;
    /// Of packets.
    pub const MISS: u8 = 1;
    pub const ACTION: u8 = 2;
    pub const EXECUTE: u8 = 3;
    /// Of meters.
    pub const METER_FEATURES: u8 = 1;
    pub const METER_SET: u8 = 2;
    pub const METER_DEL: u8 = 3;
    pub const METER_GET: u8 = 4;
    /// Of limits.
    pub const LIMIT_SET: u8 = 1;
    pub const LIMIT_DEL: u8 = 2;
    pub const LIMIT_GET: u8 = 3;
}

/// Attributes beside the kernel's, between programs of ours: far above its numbers, so that neither takes one for another.
mod own {
    /// A key, exactly ([`super::exact`]).
    pub const KEY: u16 = 0x3f01;
    /// A mask, likewise.
    pub const MASK: u16 = 0x3f02;
    /// What is left to do to a packet, see [`super::offload_bytes`].
    pub const OFFLOAD: u16 = 0x3f03;
    /// A port's type by name.
    pub const KIND: u16 = 0x3f04;
    /// A port's options: pairs of texts.
    pub const OPTIONS: u16 = 0x3f05;
    /// Of a flow that an accelerator forwards.
    pub const OFFLOADED: u16 = 0x3f06;
    /// The core of the thread that a flow belongs to.
    pub const CORE: u16 = 0x3f07;
}

/// Generic netlink header and datapath of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Command of the family: `new`, `del`, `get`, `set` are 1 to 4 in all but packets and meters.
    pub command: u8,
    /// Version of the family.
    pub version: u8,
    /// Interface index of the datapath's local port; 0 where there is none yet.
    pub dp_ifindex: u32,
}

impl Header {
    /// Bytes in front of the attributes.
    pub const LEN: usize = 8;

    /// As on the wire.
    pub fn to_bytes(self) -> [u8; Header::LEN] {
        let [a, b, c, d] = self.dp_ifindex.to_ne_bytes();
        [self.command, self.version, 0, 0, a, b, c, d]
    }
    /// Splits a message behind its netlink header.
    pub fn split(payload: &[u8]) -> Result<(Header, &[u8]), CodecError> {
        let Some((&[command, version, _, _, a, b, c, d], rest)) = payload.split_first_chunk() else {
            return Err(CodecError::Malformed("datapath header"));
        };
        Ok((Header { command, version, dp_ifindex: u32::from_ne_bytes([a, b, c, d]) }, rest))
    }
}

fn number(data: &[u8], what: &'static str) -> Result<u32, CodecError> {
    u32_at(data, 0).ok_or(CodecError::Malformed(what))
}

fn long(data: &[u8], at: usize, what: &'static str) -> Result<u64, CodecError> {
    u64_at(data, at).ok_or(CodecError::Malformed(what))
}

/// `OVS_DP_F_*`, what user space understands.
pub mod dp_features {
    /// Attributes may be unaligned.
    pub const UNALIGNED: u32 = 1 << 0;
    /// A vport may have several sockets.
    pub const VPORT_PIDS: u32 = 1 << 1;
    /// Recirculation is shared with tc.
    pub const TC_RECIRC_SHARING: u32 = 1 << 2;
    /// Upcalls go to a socket by processor, not by vport.
    pub const DISPATCH_UPCALL_PER_CPU: u32 = 1 << 3;
}

/// A datapath: `OVS_DP_ATTR_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Datapath {
    /// Name, which is that of the local port.
    pub name: Option<String>,
    /// Socket of the local port's upcalls.
    pub upcall_pid: Option<u32>,
    /// [`dp_features`] bits.
    pub user_features: Option<u32>,
    /// Entries of the mask cache.
    pub masks_cache_size: Option<u32>,
    /// Sockets by processor.
    pub per_cpu_pids: Vec<u32>,
    /// Answers only: counters.
    pub stats: Option<DpStats>,
    /// Between programs of ours: the type, `netdev` or `system`.
    pub kind: Option<String>,
}

impl Datapath {
    /// Appends a request's attributes.
    pub fn write(&self, w: &mut Writer) {
        if let Some(name) = &self.name {
            w.put_text(1, name);
        }
        if let Some(kind) = &self.kind {
            w.put_text(own::KIND, kind);
        }
        for (kind, v) in [(2, self.upcall_pid), (5, self.user_features), (7, self.masks_cache_size)] {
            if let Some(v) = v {
                w.put_u32(kind, v);
            }
        }
        if !self.per_cpu_pids.is_empty() {
            let bytes: Vec<u8> = self.per_cpu_pids.iter().flat_map(|p| p.to_ne_bytes()).collect();
            w.put(8, &bytes);
        }
        if let Some(s) = &self.stats {
            let bytes: Vec<u8> =
                [s.hits, s.misses, s.lost, s.flows].iter().flat_map(|v| v.to_ne_bytes()).collect();
            w.put(3, &bytes);
            if let Some(masks) = s.masks {
                let mut bytes = s.mask_hits.unwrap_or(0).to_ne_bytes().to_vec();
                bytes.extend_from_slice(&masks.to_ne_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&s.cache_hits.unwrap_or(0).to_ne_bytes());
                w.put(4, &bytes);
            }
        }
    }
    /// Reads an answer's attributes.
    pub fn read(bytes: &[u8]) -> Result<Datapath, CodecError> {
        let mut dp = Datapath::default();
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                1 => dp.name = Some(text(data)),
                2 => dp.upcall_pid = Some(number(data, "upcall pid")?),
                3 => {
                    let what = "datapath statistics";
                    let stats = dp.stats.get_or_insert_default();
                    (stats.hits, stats.misses) = (long(data, 0, what)?, long(data, 8, what)?);
                    (stats.lost, stats.flows) = (long(data, 16, what)?, long(data, 24, what)?);
                }
                4 => {
                    let what = "megaflow statistics";
                    let stats = dp.stats.get_or_insert_default();
                    stats.mask_hits = Some(long(data, 0, what)?);
                    stats.masks = Some(u32_at(data, 8).ok_or(CodecError::Malformed(what))?);
                    // Older kernels have no cache in front of the masks.
                    stats.cache_hits = u64_at(data, 16);
                }
                5 => dp.user_features = Some(number(data, "user features")?),
                own::KIND => dp.kind = Some(text(data)),
                7 => dp.masks_cache_size = Some(number(data, "mask cache size")?),
                8 => dp.per_cpu_pids = data.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect(),
                _ => {}
            }
        }
        Ok(dp)
    }
}

/// `OVS_VPORT_TYPE_*`
pub mod vport_type {
    /// A network device.
    pub const NETDEV: u32 = 1;
    /// A device of the datapath's own.
    pub const INTERNAL: u32 = 2;
    /// GRE without a device of its own; new ones are made by rtnetlink.
    pub const GRE: u32 = 3;
    /// VXLAN, likewise.
    pub const VXLAN: u32 = 4;
    /// Geneve, likewise.
    pub const GENEVE: u32 = 5;
}

/// Counters of a vport, in the order of `struct ovs_vport_stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VportStats {
    /// Packets in.
    pub rx_packets: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Bytes in.
    pub rx_bytes: u64,
    /// Bytes out.
    pub tx_bytes: u64,
    /// Errors in.
    pub rx_errors: u64,
    /// Errors out.
    pub tx_errors: u64,
    /// Drops in.
    pub rx_dropped: u64,
    /// Drops out.
    pub tx_dropped: u64,
}

/// A port: `OVS_VPORT_ATTR_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vport {
    /// Number.
    pub port_no: Option<u32>,
    /// [`vport_type`].
    pub kind: Option<u32>,
    /// Device name.
    pub name: Option<String>,
    /// UDP port of a tunnel.
    pub dst_port: Option<u16>,
    /// Sockets of its upcalls; with several, one is chosen by a hash of the flow.
    pub upcall_pids: Vec<u32>,
    /// Answers only: counters.
    pub stats: Option<VportStats>,
    /// Answers only: interface index of the device.
    pub ifindex: Option<u32>,
    /// Between programs of ours: the type by its name.
    pub kind_name: Option<String>,
    /// Between programs of ours: the type's options.
    pub options: BTreeMap<String, String>,
}

impl Vport {
    /// Appends a request's attributes.
    pub fn write(&self, w: &mut Writer) {
        for (kind, v) in [(1, self.port_no), (2, self.kind)] {
            if let Some(v) = v {
                w.put_u32(kind, v);
            }
        }
        if let Some(name) = &self.name {
            w.put_text(3, name);
        }
        if let Some(port) = self.dst_port {
            w.nest(4, |w| w.put_u16(1, port));
        }
        if !self.upcall_pids.is_empty() {
            let bytes: Vec<u8> = self.upcall_pids.iter().flat_map(|p| p.to_ne_bytes()).collect();
            w.put(5, &bytes);
        }
        if let Some(kind) = &self.kind_name {
            w.put_text(own::KIND, kind);
        }
        if !self.options.is_empty() {
            w.nest(own::OPTIONS, |w| put_map(w, &self.options));
        }
    }
    /// Reads an answer's attributes.
    pub fn read(bytes: &[u8]) -> Result<Vport, CodecError> {
        let mut port = Vport::default();
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                1 => port.port_no = Some(number(data, "port number")?),
                2 => port.kind = Some(number(data, "port type")?),
                3 => port.name = Some(text(data)),
                4 => {
                    for option in attributes(data) {
                        if let (1, data) = option? {
                            let port_no = u16_at(data, 0).ok_or(CodecError::Malformed("tunnel port"))?;
                            port.dst_port = Some(port_no);
                        }
                    }
                }
                5 => port.upcall_pids = data.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect(),
                6 => {
                    let at = |i: usize| long(data, 8 * i, "port statistics");
                    port.stats = Some(VportStats {
                        rx_packets: at(0)?,
                        tx_packets: at(1)?,
                        rx_bytes: at(2)?,
                        tx_bytes: at(3)?,
                        rx_errors: at(4)?,
                        tx_errors: at(5)?,
                        rx_dropped: at(6)?,
                        tx_dropped: at(7)?,
                    });
                }
                8 => port.ifindex = Some(number(data, "interface index")?),
                own::KIND => port.kind_name = Some(text(data)),
                own::OPTIONS => port.options = read_map(data)?,
                _ => {}
            }
        }
        Ok(port)
    }
}

/// Appends the pairs of a map, keys and values by turns.
pub fn put_map(w: &mut Writer, map: &BTreeMap<String, String>) {
    for (key, value) in map {
        w.put_text(1, key);
        w.put_text(2, value);
    }
}

/// Reads a map.
pub fn read_map(bytes: &[u8]) -> Result<BTreeMap<String, String>, CodecError> {
    let mut map = BTreeMap::new();
    let mut key = None;
    for attribute in attributes(bytes) {
        match (attribute?, key.take()) {
            ((1, data), None) => key = Some(text(data)),
            ((2, data), Some(key)) => {
                map.insert(key, text(data));
            }
            _ => return Err(CodecError::Malformed("map")),
        }
    }
    Ok(map)
}

/// The kernel keeps an identifier as four words, the highest first, each in host order.
fn ufid_bytes(ufid: Ufid) -> [u8; 16] {
    let mut out = ufid.0.to_be_bytes();
    out.as_chunks_mut::<4>().0.iter_mut().for_each(|w| *w = u32::from_be_bytes(*w).to_ne_bytes());
    out
}

fn ufid_of(data: &[u8]) -> Result<Ufid, CodecError> {
    let mut all: [u8; 16] = data.try_into().map_err(|_| CodecError::Malformed("ufid"))?;
    all.as_chunks_mut::<4>().0.iter_mut().for_each(|w| *w = u32::from_ne_bytes(*w).to_be_bytes());
    Ok(Ufid(u128::from_be_bytes(all)))
}

/// `OVS_UFID_F_*`: what an answer shall leave out.
#[allow(missing_docs)]
pub mod omit {
    pub const KEY: u32 = 1 << 0;
    pub const MASK: u32 = 1 << 1;
    pub const ACTIONS: u32 = 1 << 2;
}

/// A flow as it is told: `OVS_FLOW_ATTR_*`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlowRequest<'a> {
    /// Key and mask; the mask may be missing where a flow is only named.
    pub key: Option<(&'a Flow, Option<&'a Mask>)>,
    /// Identifier.
    pub ufid: Option<Ufid>,
    /// What to do.
    pub actions: Option<&'a [Action]>,
    /// Socket of `userspace` actions.
    pub pid: Option<u32>,
    /// Zero the counters.
    pub clear: bool,
    /// Only to find out whether the kernel takes it: it logs no refusal.
    pub probe: bool,
    /// [`omit`]: what the answer shall leave out.
    pub omit: u32,
    /// Between programs of ours: key and mask exactly, beside the kernel's form.
    pub exact: bool,
    /// Answers only: counters.
    pub stats: Option<FlowStats>,
    /// Answers between programs of ours: whether an accelerator forwards it.
    pub offloaded: bool,
    /// Answers between programs of ours: the core of its thread.
    pub core: Option<u32>,
}

impl FlowRequest<'_> {
    /// Appends the attributes.
    ///
    /// Errors: an action that the kernel does not have.
    pub fn write(&self, w: &mut Writer) -> Result<(), CodecError> {
        if let Some(ufid) = self.ufid {
            w.put(9, &ufid_bytes(ufid));
        }
        if self.omit != 0 {
            w.put_u32(10, self.omit);
        }
        if let Some((key, mask)) = self.key {
            w.nest(1, |w| put_key(w, key));
            if let Some(mask) = mask {
                w.nest(7, |w| put_mask(w, key, mask));
            }
            if self.exact {
                w.put(own::KEY, &exact::to_bytes(key));
                if let Some(mask) = mask {
                    w.put(own::MASK, &exact::to_bytes(&mask.0));
                }
            }
        }
        if let Some(actions) = self.actions {
            w.nest(2, |w| put_actions(w, actions, self.pid))?;
        }
        if self.clear {
            w.flag(6);
        }
        if self.probe {
            w.flag(8);
        }
        if self.offloaded {
            w.flag(own::OFFLOADED);
        }
        if let Some(core) = self.core {
            w.put_u32(own::CORE, core);
        }
        if let Some(s) = &self.stats {
            w.put_parts(3, &[&s.packets.to_ne_bytes(), &s.bytes.to_ne_bytes()]);
            w.put(4, &[u8::try_from(s.tcp_flags & 0xff).unwrap_or(u8::MAX)]);
            w.put(5, &s.used_ms.to_ne_bytes());
        }
        Ok(())
    }
}

/// A flow as the other side tells it.
#[derive(Debug, Clone, Default)]
pub struct FlowAnswer {
    /// Key and mask, unless left out.
    pub key: Option<(Flow, Option<Mask>)>,
    /// Identifier; flows of old programs have none.
    pub ufid: Option<Ufid>,
    /// Actions, unless left out.
    pub actions: Option<Arc<[Action]>>,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// TCP flags seen.
    pub tcp_flags: u8,
    /// Monotonic milliseconds of the last packet; 0 never.
    pub used_ms: u64,
    /// Requests only: zero the counters.
    pub clear: bool,
    /// Requests only: [`omit`].
    pub omit: u32,
    /// See [`FlowRequest::offloaded`].
    pub offloaded: bool,
    /// See [`FlowRequest::core`].
    pub core: Option<u32>,
}

impl FlowAnswer {
    /// Reads an answer's attributes.
    pub fn read(bytes: &[u8]) -> Result<FlowAnswer, CodecError> {
        let mut flow = FlowAnswer::default();
        let (mut key, mut mask) = (None, None);
        let (mut exact_key, mut exact_mask) = (None, None);
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                1 => key = Some(data),
                2 => flow.actions = Some(decode_actions(data)?),
                3 => {
                    flow.packets = long(data, 0, "flow statistics")?;
                    flow.bytes = long(data, 8, "flow statistics")?;
                }
                4 => flow.tcp_flags = *data.first().ok_or(CodecError::Malformed("TCP flags"))?,
                5 => flow.used_ms = long(data, 0, "time of use")?,
                6 => flow.clear = true,
                7 => mask = Some(data),
                9 => flow.ufid = Some(ufid_of(data)?),
                10 => flow.omit = number(data, "ufid flags")?,
                own::KEY => exact_key = exact::from_bytes(data)?,
                own::MASK => exact_mask = exact::from_bytes(data)?,
                own::OFFLOADED => flow.offloaded = true,
                own::CORE => flow.core = Some(number(data, "core")?),
                _ => {}
            }
        }
        flow.key = match exact_key {
            Some(exact) => Some((exact, exact_mask.map(Mask))),
            None => key.map(|key| decode_key(key, mask)).transpose()?,
        };
        Ok(flow)
    }
}

/// A packet that the kernel hands up: `OVS_PACKET_ATTR_*`.
#[derive(Debug, Clone)]
pub struct PacketUp<'a> {
    /// The frame, or its first bytes.
    pub frame: &'a [u8],
    /// Its key.
    pub key: Flow,
    /// Of a `userspace` action, its userdata.
    pub userdata: Option<&'a [u8]>,
    /// Of a `userspace` action, the actions of its flow if it asked.
    pub actions: Option<Arc<[Action]>>,
    /// Of a `userspace` action, the tunnel key at the port that it named.
    pub egress_tunnel: Option<ib_flow::Tunnel>,
    /// Largest fragment received, if it was put together.
    pub mru: Option<u16>,
    /// Length of the whole frame.
    pub len: Option<u32>,
    /// The packet's hash, so that what is sent back is spread alike.
    pub hash: Option<u64>,
    /// Between programs of ours: what is left to do to it.
    pub offload: Offload,
    /// Only to find out whether the actions are taken.
    pub probe: bool,
}

impl<'a> PacketUp<'a> {
    /// Reads an upcall's attributes.
    ///
    /// Errors: also one without frame or key.
    pub fn read(bytes: &'a [u8]) -> Result<PacketUp<'a>, CodecError> {
        let (mut frame, mut key) = (None, None);
        let (mut userdata, mut actions, mut egress_tunnel) = (None, None, None);
        let (mut mru, mut len, mut hash) = (None, None, None);
        let (mut offload, mut probe, mut exact_key) = (Offload::default(), false, None);
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                1 => frame = Some(data),
                2 => key = Some(decode_key(data, None)?.0),
                3 => actions = Some(decode_actions(data)?),
                4 => userdata = Some(data),
                5 => egress_tunnel = Some(ib_dpif::netlink::decode_tunnel(data)?),
                9 => mru = Some(u16_at(data, 0).ok_or(CodecError::Malformed("MRU"))?),
                8 => probe = true,
                10 => len = Some(number(data, "packet length")?),
                11 => hash = Some(long(data, 0, "packet hash")?),
                own::KEY => exact_key = exact::from_bytes(data)?,
                own::OFFLOAD => offload = offload_of(data)?,
                _ => {}
            }
        }
        let missing = CodecError::Malformed("packet");
        let (frame, key) = (frame.ok_or(missing)?, exact_key.or(key).ok_or(missing)?);
        Ok(PacketUp { frame, key, userdata, actions, egress_tunnel, mru, len, hash, offload, probe })
    }
}

/// [`Offload`] between programs of ours: flags, kind of segments, then the numbers, 16 bits each.
fn offload_bytes(o: &Offload) -> Vec<u8> {
    let (start, offset) = o.partial_csum.unwrap_or_default();
    let number = |kind| GSO_KINDS.iter().position(|k| *k == kind).map_or(0, |at| at + 1);
    let (kind, size) = o.gso.map_or((0, 0), |g| (u16::try_from(number(g.kind)).unwrap_or(0), g.size));
    let ecn = o.gso.is_some_and(|g| g.ecn);
    let flags = u16::from(o.partial_csum.is_some())
        | u16::from(o.csum_valid) << 1
        | u16::from(ecn) << 2
        | u16::from(o.ip_csum_valid) << 3;
    [flags, kind, start, offset, size, o.hdr_len].iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// By number, from 1; 0 is none.
const GSO_KINDS: [GsoKind; 3] = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4];

fn offload_of(data: &[u8]) -> Result<Offload, CodecError> {
    let at = |i: usize| u16_at(data, 2 * i).ok_or(CodecError::Malformed("offload"));
    let flags = at(0)?;
    let gso = match at(1)? {
        0 => None,
        n => {
            let kind = GSO_KINDS.get(usize::from(n - 1)).ok_or(CodecError::Malformed("offload"))?;
            Some(Gso { kind: *kind, size: at(4)?, ecn: flags & 4 != 0 })
        }
    };
    Ok(Offload {
        partial_csum: (flags & 1 != 0).then_some((at(2)?, at(3)?)),
        csum_valid: flags & 2 != 0,
        ip_csum_valid: flags & 8 != 0,
        gso,
        hdr_len: at(5)?,
    })
}

/// A packet to send to the other side.
#[derive(Debug, Clone, Copy)]
pub struct PacketDown<'a> {
    /// The frame.
    pub frame: &'a [u8],
    /// Its key, metadata included.
    pub key: &'a Flow,
    /// What to do with it; of an upcall, what its flow does.
    pub actions: Option<&'a [Action]>,
    /// Socket of `userspace` actions.
    pub pid: Option<u32>,
    /// Of an upcall by a `userspace` action: its userdata.
    pub userdata: Option<&'a [u8]>,
    /// Only to find out whether the actions are taken.
    pub probe: bool,
    /// Of a packet that came up: its [`PacketUp::mru`].
    pub mru: Option<u16>,
    /// Of a packet that came up: its [`PacketUp::hash`].
    pub hash: Option<u64>,
    /// Between programs of ours: the key exactly, and what is left to do to the packet.
    pub exact: Option<&'a Offload>,
}

impl PacketDown<'_> {
    /// Appends the attributes, as `OVS_PACKET_CMD_EXECUTE` has them.
    ///
    /// Errors: an action that the kernel does not have.
    pub fn write(&self, w: &mut Writer) -> Result<(), CodecError> {
        w.put(1, self.frame);
        w.nest(2, |w| put_key(w, self.key));
        if let Some(actions) = self.actions {
            w.nest(3, |w| put_actions(w, actions, self.pid))?;
        }
        if let Some(userdata) = self.userdata {
            w.put(4, userdata);
        }
        if self.probe {
            w.flag(8);
        }
        if let Some(mru) = self.mru {
            w.put_u16(9, mru);
        }
        if let Some(hash) = self.hash {
            w.put(11, &hash.to_ne_bytes());
        }
        if let Some(offload) = self.exact {
            w.put(own::KEY, &exact::to_bytes(self.key));
            w.put(own::OFFLOAD, &offload_bytes(offload));
        }
        Ok(())
    }
}

/// Appends the attributes of `OVS_METER_CMD_SET`, or of an answer with `stats`.
pub fn write_meter(w: &mut Writer, id: u32, config: &MeterConfig, stats: Option<&MeterStats>) {
    w.put_u32(1, id);
    if let Some(s) = stats {
        w.put_parts(3, &[&s.packets.to_ne_bytes(), &s.bytes.to_ne_bytes()]);
    }
    if !config.pktps {
        w.flag(2);
    }
    w.nest(4, |w| {
        for (at, band) in config.bands.iter().enumerate() {
            w.nest(0, |w| {
                w.put_u32(1, 1); // OVS_METER_BAND_TYPE_DROP
                w.put_u32(2, band.rate);
                w.put_u32(3, if band.burst == 0 { band.rate } else { band.burst });
                if let Some((packets, bytes)) = stats.and_then(|s| s.bands.get(at)) {
                    w.put_parts(4, &[&packets.to_ne_bytes(), &bytes.to_ne_bytes()]);
                }
            });
        }
    });
}

/// A meter as the kernel tells it: `OVS_METER_ATTR_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meter {
    /// Number.
    pub id: Option<u32>,
    /// Meters that there may be, in an answer about features.
    pub max_meters: Option<u32>,
    /// Bands that one may have, in an answer about features.
    pub max_bands: Option<u32>,
    /// Rates are packets a second.
    pub pktps: bool,
    /// Bands.
    pub bands: Vec<MeterBand>,
    /// Counters.
    pub stats: MeterStats,
}

impl Meter {
    /// Reads an answer's attributes.
    pub fn read(bytes: &[u8]) -> Result<Meter, CodecError> {
        let mut meter = Meter { pktps: true, ..Meter::default() };
        for attribute in attributes(bytes) {
            let (kind, data) = attribute?;
            match kind {
                1 => meter.id = Some(number(data, "meter id")?),
                2 => meter.pktps = false,
                3 => {
                    meter.stats.packets = long(data, 0, "meter statistics")?;
                    meter.stats.bytes = long(data, 8, "meter statistics")?;
                }
                4 => {
                    for band in attributes(data) {
                        let (mut rate, mut burst, mut counts) = (0, 0, (0, 0));
                        for attribute in attributes(band?.1) {
                            let (kind, data) = attribute?;
                            match kind {
                                2 => rate = number(data, "band rate")?,
                                3 => burst = number(data, "band burst")?,
                                4 => {
                                    let what = "band statistics";
                                    counts = (long(data, 0, what)?, long(data, 8, what)?);
                                }
                                _ => {}
                            }
                        }
                        meter.bands.push(MeterBand { rate, burst });
                        meter.stats.bands.push(counts);
                    }
                }
                7 => meter.max_meters = Some(number(data, "meter features")?),
                8 => meter.max_bands = Some(number(data, "meter features")?),
                _ => {}
            }
        }
        Ok(meter)
    }
}

/// How many connections a zone may have, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneLimit {
    /// Zone; `None` is the default of the others.
    pub zone: Option<u16>,
    /// Connections that it may have; 0: as many as it likes.
    pub limit: u32,
    /// Connections that it has; meaningless in requests.
    pub count: u32,
}

/// Appends the attributes of a request about limits; of one that deletes or reads, only the zones matter.
pub fn write_zone_limits(w: &mut Writer, limits: &[ZoneLimit]) {
    let mut bytes = Vec::with_capacity(12 * limits.len());
    for l in limits {
        bytes.extend_from_slice(&l.zone.map_or(-1, i32::from).to_ne_bytes());
        bytes.extend_from_slice(&l.limit.to_ne_bytes());
        bytes.extend_from_slice(&l.count.to_ne_bytes());
    }
    w.put(1, &bytes);
}

/// Reads the limits of an answer.
pub fn read_zone_limits(bytes: &[u8]) -> Result<Vec<ZoneLimit>, CodecError> {
    let mut limits = Vec::new();
    for attribute in attributes(bytes) {
        let (1, data) = attribute? else { continue };
        let (rows, rest) = data.as_chunks::<12>();
        if !rest.is_empty() {
            return Err(CodecError::Malformed("zone limit"));
        }
        for row in rows {
            let what = "zone limit";
            let at = |i| u32_at(row, i).ok_or(CodecError::Malformed(what));
            let zone = match at(0)?.cast_signed() {
                -1 => None,
                zone => Some(u16::try_from(zone).map_err(|_| CodecError::Malformed(what))?),
            };
            limits.push(ZoneLimit { zone, limit: at(4)?, count: at(8)? });
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_dpif::text::{PortNames, format_actions, format_key, parse_actions, parse_key};

    fn down<'a>(frame: &'a [u8], key: &'a Flow) -> PacketDown<'a> {
        let (mru, hash) = (Some(1400), Some(1 << 40));
        let nothing = (None, None, None);
        let (pid, userdata, exact) = nothing;
        PacketDown { frame, key, actions: Some(&[]), pid, userdata, probe: false, mru, hash, exact }
    }

    fn bytes_of(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut w = Writer::new();
        fill(&mut w);
        w.finish().unwrap()
    }

    #[test]
    fn a_datapath_reads_as_the_kernel_writes_it() {
        let mut bytes = b"\x0c\0\x01\0ovs-sys\0\x24\0\x03\0".to_vec();
        bytes.extend([1u64, 2, 3, 4].iter().flat_map(|v| v.to_ne_bytes()));
        bytes.extend(b"\x24\0\x04\0");
        bytes.extend([9u64, 5, 7, 0].iter().flat_map(|v| v.to_ne_bytes()));
        bytes.extend(b"\x08\0\x05\0\x0b\0\0\0");
        let dp = Datapath::read(&bytes).unwrap();
        assert_eq!((dp.name.as_deref(), dp.user_features), (Some("ovs-sys"), Some(0xb)));
        let stats = dp.stats.unwrap();
        assert_eq!((stats.hits, stats.misses, stats.lost, stats.flows), (1, 2, 3, 4));
        assert_eq!((stats.mask_hits, stats.masks, stats.cache_hits), (Some(9), Some(5), Some(7)));
        let request = Datapath { stats: None, per_cpu_pids: vec![4, 5], ..dp };
        assert_eq!(Datapath::read(&bytes_of(|w| request.write(w))).unwrap(), request);
    }

    #[test]
    fn a_port_comes_back_and_its_counters_are_in_order() {
        let port = Vport {
            port_no: Some(3),
            kind: Some(vport_type::VXLAN),
            name: Some("vxlan_sys_4789".into()),
            dst_port: Some(4789),
            upcall_pids: vec![7, 8],
            ..Vport::default()
        };
        let mut bytes = bytes_of(|w| port.write(w));
        assert_eq!(Vport::read(&bytes).unwrap(), port);
        bytes.extend(b"\x44\0\x06\0");
        bytes.extend((1u64..=8).flat_map(u64::to_ne_bytes));
        let stats = Vport::read(&bytes).unwrap().stats.unwrap();
        assert_eq!((stats.rx_packets, stats.tx_bytes, stats.tx_dropped), (1, 4, 8));
    }

    #[test]
    fn a_flow_goes_and_comes() {
        let names = PortNames::none();
        let (key, mask) =
            parse_key("recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no)", &names)
                .unwrap();
        let actions = parse_actions("ct(commit,zone=1),userspace(pid=0),2", &names).unwrap();
        let ufid = Ufid(0x00112233_44556677_8899aabb_ccddeeff);
        let request = FlowRequest {
            key: Some((&key, Some(&mask))),
            ufid: Some(ufid),
            actions: Some(&actions),
            pid: Some(42),
            clear: true,
            ..FlowRequest::default()
        };
        let bytes = bytes_of(|w| request.write(w).unwrap());
        // The identifier is first: words in host order.
        assert_eq!(bytes[4..8], 0x0011_2233u32.to_ne_bytes());
        let flow = FlowAnswer::read(&bytes).unwrap();
        let (again, again_mask) = flow.key.unwrap();
        assert_eq!(
            format_key(&again, again_mask.as_ref(), &names, false),
            "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no)"
        );
        assert_eq!(flow.ufid, Some(ufid));
        let text = format_actions(&flow.actions.unwrap(), &names);
        assert_eq!(text, "ct(commit,zone=1),userspace(pid=42),2");
    }

    #[test]
    fn an_upcall_needs_frame_and_key() {
        let (key, _) = parse_key("in_port(1),eth(),eth_type(0x0800),ipv4()", &PortNames::none()).unwrap();
        let bytes = bytes_of(|w| down(b"frame", &key).write(w).unwrap());
        let up = PacketUp::read(&bytes).unwrap();
        assert_eq!((up.frame, up.key.in_port, up.actions.unwrap().len()), (&b"frame"[..], 1, 0));
        assert_eq!((up.mru, up.hash), (Some(1400), Some(1 << 40)));
        assert!(PacketUp::read(&bytes[12..]).is_err());
        assert!(PacketUp::read(&bytes[..12]).is_err());
    }

    #[test]
    fn meters_and_limits_come_back() {
        let config = MeterConfig { pktps: false, bands: vec![MeterBand { rate: 100, burst: 0 }] };
        let meter = Meter::read(&bytes_of(|w| write_meter(w, 5, &config, None))).unwrap();
        assert_eq!((meter.id, meter.pktps), (Some(5), false));
        assert_eq!(meter.bands, [MeterBand { rate: 100, burst: 100 }]);
        let limits =
            [ZoneLimit { zone: None, limit: 10, count: 0 }, ZoneLimit { zone: Some(7), limit: 3, count: 1 }];
        assert_eq!(read_zone_limits(&bytes_of(|w| write_zone_limits(w, &limits))).unwrap(), limits);
        assert!(read_zone_limits(b"\x08\0\x01\0\0\0\0\0").is_err());
    }

    #[test]
    fn headers_come_back_and_short_ones_do_not() {
        let header = Header { command: 1, version: 2, dp_ifindex: 9 };
        let bytes = header.to_bytes();
        assert_eq!(Header::split(&bytes), Ok((header, &[][..])));
        assert!(Header::split(&bytes[..7]).is_err());
    }

    #[test]
    fn whose_thread_and_who_forwards_a_flow_is_told() {
        let mut w = Writer::new();
        FlowRequest { offloaded: true, core: Some(3), ..FlowRequest::default() }.write(&mut w).unwrap();
        let told = FlowAnswer::read(&w.finish().unwrap()).unwrap();
        assert_eq!((told.offloaded, told.core), (true, Some(3)));
    }
}
