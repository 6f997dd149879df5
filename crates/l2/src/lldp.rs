//! Link layer discovery (802.1AB) of one link as a pure machine, with the auto-attach additions by which a switch at the edge asks a
//! shortest path bridging network to map VLANs to services (I-SIDs).
//!
//! [`Lldp::packet`] makes the frame that is due when [`Lldp::should_send`]; [`Lldp::receive`] takes neighbours' in. A
//! neighbour is remembered as long as the link is; how many there are is bounded. [`decode`] is total.

use std::fmt::Write;

use ib_base::time::Instant;
use ib_base::vlog::module::{LLDP, OVS_LLDP};
use ib_base::vlog_warn_rl;
use ib_packet::Mac;

/// Ethertype.
pub const ETHERTYPE: u16 = 0x88cc;
/// Nearest bridge: where frames go.
pub const ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e]);
/// Between frames.
const INTERVAL_MS: u64 = 5000;
/// Seconds for which receivers may believe a frame.
const TTL_S: u16 = 120;
/// Neighbours that are remembered.
const MAX_NEIGHBOURS: usize = 64;
/// Mappings that fit the largest TLV.
const MAX_MAPPINGS: usize = (511 - 36) / 5;

const END: u8 = 0;
const CHASSIS_ID: u8 = 1;
const PORT_ID: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const SYSTEM_DESCRIPTION: u8 = 6;
const CAPABILITIES: u8 = 7;
const MANAGEMENT_ADDRESS: u8 = 8;
const ORGANIZATION: u8 = 127;
/// Who defined auto-attach, and its two TLVs.
const ELEMENT: [u8; 4] = [0x00, 0x04, 0x0d, 0x0b];
const ASSIGNMENTS: [u8; 4] = [0x00, 0x04, 0x0d, 0x0c];
/// Bytes of the digest that auto-attach TLVs begin with; zero: not signed.
const DIGEST: usize = 32;
/// Element type: a virtual switch that asks.
const CLIENT_VIRTUAL_SWITCH: u8 = 14;
const BRIDGE: u16 = 1 << 2;

/// What a bridge tells of itself; see table AutoAttach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name; empty: none is told.
    pub system_name: String,
    /// Description.
    pub system_description: String,
    /// Services and their VLANs.
    pub mappings: Vec<(u32, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    isid: u32,
    vlan: u16,
    /// As the network answered; `None`: not yet.
    status: Option<u8>,
}

/// A neighbour, as its frame describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Chassis: kind and identifier.
    pub chassis: (u8, Vec<u8>),
    /// Port: kind and identifier.
    pub port: (u8, Vec<u8>),
    /// Seconds for which it holds.
    pub ttl_s: u16,
    /// Description of the system, if told.
    pub description: Option<String>,
    /// Auto-attach: system address, connection type, identifiers of split and plain trunk.
    pub element: Option<(Mac, u8, u16, u16)>,
    /// Auto-attach: services and the states of their mappings.
    pub assignments: Vec<(u32, u8)>,
}

/// Counters of a link, in the order of `autoattach/statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    tx: u64,
    rx: u64,
    discarded: u64,
    unrecognized: u64,
    inserted: u64,
    dropped: u64,
}

/// One link. See the module's description.
#[derive(Debug)]
pub struct Lldp {
    name: String,
    chassis: Mac,
    is_enabled: bool,
    system_name: String,
    system_description: String,
    mappings: Vec<Mapping>,
    neighbours: Vec<Neighbour>,
    tx_at: Instant,
    counters: Counters,
}

/// A TLV's header and body.
fn tlv(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let len = u16::try_from(len).unwrap_or(0).min(511);
    out.extend((u16::from(kind) << 9 | len).to_be_bytes());
    out.extend(parts.iter().flat_map(|p| p.iter()).take(len.into()));
}

impl Lldp {
    /// A link without neighbours. `chassis` identifies this system.
    pub fn new(name: &str, chassis: Mac, now: Instant) -> Lldp {
        Lldp {
            name: name.to_owned(),
            chassis,
            is_enabled: false,
            system_name: String::new(),
            system_description: String::new(),
            mappings: Vec::new(),
            neighbours: Vec::new(),
            tx_at: now.plus_ms(INTERVAL_MS),
            counters: Counters::default(),
        }
    }

    /// Turns sending and receiving on or off; what was heard is kept.
    pub fn enable(&mut self, on: bool, now: Instant) {
        if on && !self.is_enabled {
            self.tx_at = now.plus_ms(INTERVAL_MS);
        }
        self.is_enabled = on;
    }

    /// Whether it sends and receives.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Takes over what the bridge tells of itself. Mappings that stay keep their states.
    pub fn configure(&mut self, config: &Config) {
        self.system_name.clone_from(&config.system_name);
        self.system_description.clone_from(&config.system_description);
        self.mappings.retain(|m| config.mappings.contains(&(m.isid, m.vlan)));
        for (isid, vlan) in &config.mappings {
            if !self.mappings.iter().any(|m| m.isid == *isid) {
                self.mappings.push(Mapping { isid: *isid, vlan: *vlan, status: None });
            }
        }
    }

    /// When a frame is next due.
    pub fn deadline(&self) -> Option<Instant> {
        self.is_enabled.then_some(self.tx_at)
    }

    /// Whether a frame is due.
    pub fn should_send(&self, now: Instant) -> bool {
        self.is_enabled && now >= self.tx_at
    }

    /// The next frame. `mac` is the port's address.
    pub fn packet(&mut self, mac: Mac, now: Instant) -> Vec<u8> {
        self.tx_at = now.plus_ms(INTERVAL_MS);
        self.counters.tx += 1;
        let mut f = ADDRESS.0.to_vec();
        f.extend(mac.0);
        f.extend(ETHERTYPE.to_be_bytes());
        // By address; by interface name.
        tlv(&mut f, CHASSIS_ID, &[&[4], &self.chassis.0]);
        tlv(&mut f, PORT_ID, &[&[5], self.name.as_bytes()]);
        tlv(&mut f, TTL, &[&TTL_S.to_be_bytes()]);
        if !self.system_name.is_empty() {
            tlv(&mut f, SYSTEM_NAME, &[self.system_name.as_bytes()]);
        }
        tlv(&mut f, SYSTEM_DESCRIPTION, &[self.system_description.as_bytes()]);
        tlv(&mut f, CAPABILITIES, &[&BRIDGE.to_be_bytes(), &BRIDGE.to_be_bytes()]);
        // Type, state and management VLAN; then the system's identifier: address, connection, trunks.
        let element = [CLIENT_VIRTUAL_SWITCH << 2, 0, 0, 0];
        tlv(&mut f, ORGANIZATION, &[&ELEMENT, &[0; DIGEST], &element, &self.chassis.0, &[0; 4]]);
        if !self.mappings.is_empty() {
            let mut list = Vec::new();
            for m in self.mappings.iter().take(MAX_MAPPINGS) {
                list.extend((u16::from(m.status.unwrap_or(0)) << 12 | m.vlan & 0xfff).to_be_bytes());
                list.extend_from_slice(&m.isid.to_be_bytes()[1..]);
            }
            tlv(&mut f, ORGANIZATION, &[&ASSIGNMENTS, &[0; DIGEST], &list]);
        }
        tlv(&mut f, END, &[]);
        f
    }

    /// Takes a neighbour's frame in, from its Ethernet header on.
    pub fn receive(&mut self, frame: &[u8]) {
        self.counters.rx += 1;
        let is_lldp = frame.get(12..14) == Some(&ETHERTYPE.to_be_bytes());
        if frame.get(..6) != Some(&ADDRESS.0) || !is_lldp {
            return;
        }
        let decoded = decode(&frame[14..]);
        self.counters.unrecognized += decoded.unrecognized;
        let news = match decoded.result {
            Ok(news) => news,
            Err(why) => {
                self.counters.discarded += 1;
                vlog_warn_rl!(LLDP, (5, 5), "{why} received on {}", self.name);
                return;
            }
        };
        for (isid, status) in &news.assignments {
            match self.mappings.iter_mut().find(|m| m.isid == *isid) {
                Some(m) => m.status = Some(*status),
                None => vlog_warn_rl!(OVS_LLDP, (5, 5), "Couldn't find mapping for I-SID={isid}"),
            }
        }
        let is_same = |n: &Neighbour| n.chassis == news.chassis && n.port == news.port;
        match self.neighbours.iter().position(is_same) {
            Some(at) if self.neighbours[at] == news => {}
            Some(at) => {
                self.neighbours.remove(at);
                self.neighbours.push(news);
            }
            None if self.neighbours.len() >= MAX_NEIGHBOURS => self.counters.dropped += 1,
            None => {
                self.counters.inserted += 1;
                self.neighbours.push(news);
            }
        }
    }

    /// Adds its part of `autoattach/status`.
    pub fn show_status(&self, out: &mut String) {
        let _ = writeln!(out, "LLDP: {}", self.name);
        for n in &self.neighbours {
            let Some((mac, connection, smlt, mlt)) = n.element.filter(|e| !e.0.is_zero()) else { continue };
            let id: Vec<String> = n.chassis.1.iter().map(|b| format!("{b:02x}")).collect();
            let _ = writeln!(out, "  Auto Attach Primary Server Id: {}", id.join(":"));
            let description = n.description.as_deref().unwrap_or("<None>");
            let _ = writeln!(out, "  Auto Attach Primary Server Descr: {description}");
            let _ = writeln!(
                out,
                "  Auto Attach Primary Server System Id: {mac}:{connection:02x}:00:{:02x}:{:02x}:{:02x}:{:02x}",
                // The original prints all but the last number low byte first.
                smlt & 0xff,
                smlt >> 8,
                mlt >> 8,
                mlt & 0xff
            );
        }
    }

    /// Services as they were configured, for [`Self::show_isids`] to be told an order.
    pub fn isids(&self) -> Vec<u32> {
        self.mappings.iter().map(|m| m.isid).collect()
    }

    /// Adds its part of `autoattach/show-isid`, services in this order.
    pub fn show_isids(&self, order: &[u32], out: &mut String) {
        let _ = writeln!(out, "LLDP: {}", self.name);
        out.push_str("I-SID    VLAN Source      Status  \n-------- ---- ----------- --------\n");
        for m in order.iter().filter_map(|isid| self.mappings.iter().find(|m| m.isid == *isid)) {
            let status = match m.status {
                None => "Pending",
                Some(2) => "Active",
                Some(3) => "Reject (Generic)",
                Some(4) => "Reject (AA resources unavailable)",
                Some(6) => "Reject (Invalid)",
                Some(8) => "Reject (VLAN resources unavailable)",
                Some(9) => "Reject (Application interaction issue)",
                Some(_) => "Undefined",
            };
            let _ = writeln!(out, "{:<8} {:<4} {:<11} {status:<11}", m.isid, m.vlan, "Switch");
        }
    }

    /// Adds its part of `autoattach/statistics`.
    pub fn show_statistics(&self, out: &mut String) {
        let c = &self.counters;
        let _ = writeln!(out, "Statistics: {}", self.name);
        let lines = [
            ("tx cnt", c.tx),
            ("rx cnt", c.rx),
            ("rx discarded cnt", c.discarded),
            ("rx unrecognized cnt", c.unrecognized),
            ("ageout cnt", 0),
            ("insert cnt", c.inserted),
            ("delete cnt", 0),
            ("drop cnt", c.dropped),
        ];
        for (name, n) in lines {
            let _ = writeln!(out, "  {name}: {n}");
        }
    }
}

/// A frame's content, and TLVs in it that nobody here knows.
#[derive(Debug)]
pub struct Decoded {
    /// The neighbour, or what is wrong.
    pub result: Result<Neighbour, String>,
    /// TLVs that were skipped, or made the frame unusable.
    pub unrecognized: u64,
}

/// Reads a list of TLVs, as it lies behind the ethertype.
pub fn decode(data: &[u8]) -> Decoded {
    let mut unrecognized = 0;
    let result = read(data, &mut unrecognized);
    Decoded { result, unrecognized }
}

fn read(mut data: &[u8], unrecognized: &mut u64) -> Result<Neighbour, String> {
    let mut n = Neighbour::default();
    let (mut has_ttl, mut has_end) = (false, false);
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let head = u16::from_be_bytes(*head);
        let (kind, len) = ((head >> 9) as u8, usize::from(head & 0x1ff));
        let Some((body, rest)) = rest.split_at_checked(len) else {
            return Err("frame too short for tlv".into());
        };
        data = rest;
        let need = |least: usize| {
            if len < least { Err(format!("TLV of type {kind} too short")) } else { Ok(()) }
        };
        match kind {
            END if len != 0 => return Err("lldp end with a size not null".into()),
            END => {
                has_end = true;
                break;
            }
            CHASSIS_ID | PORT_ID => {
                need(2)?;
                let id = (body[0], body[1..].to_vec());
                if kind == CHASSIS_ID {
                    n.chassis = id;
                } else {
                    n.port = id;
                }
            }
            TTL => {
                need(2)?;
                n.ttl_s = u16::from_be_bytes([body[0], body[1]]);
                has_ttl = true;
            }
            SYSTEM_DESCRIPTION => {
                n.description =
                    Some(String::from_utf8_lossy(body).into_owned()).filter(|text| !text.is_empty());
            }
            PORT_DESCRIPTION | SYSTEM_NAME => {}
            CAPABILITIES => need(4)?,
            MANAGEMENT_ADDRESS => need(1)?,
            ORGANIZATION => {
                need(4)?;
                if !organization(body, &mut n)? {
                    *unrecognized += 1;
                }
            }
            _ => {
                *unrecognized += 1;
                return Err(format!("unknown tlv ({kind})"));
            }
        }
    }
    if n.chassis.1.is_empty() || n.port.1.is_empty() || !has_ttl || !has_end {
        return Err("some mandatory tlv are missing for frame".into());
    }
    Ok(n)
}

/// Reads a TLV of an organization. Returns whether it is known.
fn organization(body: &[u8], n: &mut Neighbour) -> Result<bool, String> {
    let (id, rest) = body.split_at(4);
    let content = rest.get(DIGEST..);
    let short = || "auto-attach TLV too short".to_owned();
    if id == ELEMENT {
        let e = content.and_then(|c| c.first_chunk::<14>()).ok_or_else(short)?;
        let mac = Mac([e[4], e[5], e[6], e[7], e[8], e[9]]);
        // Three bits of connection type, then the trunk's number.
        let smlt = u16::from_be_bytes([e[10] & 0x1f, e[11]]);
        n.element = Some((mac, e[10] >> 5, smlt, u16::from_be_bytes([e[12], e[13]])));
        return Ok(true);
    }
    if id == ASSIGNMENTS {
        for m in content.ok_or_else(short)?.chunks_exact(5) {
            n.assignments.push((u32::from_be_bytes([0, m[2], m[3], m[4]]), m[0] >> 4));
        }
        return Ok(true);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0xaa, 0x55, 0xaa, 0x55, 0x00, 0x0f]);

    fn link() -> Lldp {
        let mut lldp = Lldp::new("p1", MAC, Instant::ZERO);
        lldp.enable(true, Instant::ZERO);
        lldp.configure(&Config {
            system_name: String::new(),
            system_description: "openvswitch 3.1.0".into(),
            mappings: vec![(200, 100), (300, 101)],
        });
        lldp
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn frames_are_these() {
        let mut lldp = link();
        assert!(!lldp.should_send(Instant::from_ms(4999)) && lldp.should_send(Instant::from_ms(5000)));
        let want = "0180c200000eaa55aa55000f88cc020704aa55aa55000f0403057031060200780c116f70656e7673776974636820\
                    332e312e300e0400040004fe3200040d0b000000000000000000000000000000000000000000000000000000000000\
                    000038000000aa55aa55000f00000000fe2e00040d0c00000000000000000000000000000000000000000000000000\
                    0000000000000000640000c8006500012c0000";
        assert_eq!(hex(&lldp.packet(MAC, Instant::from_ms(5000))), want);
        assert!(!lldp.should_send(Instant::from_ms(9999)));
        lldp.enable(false, Instant::ZERO);
        assert_eq!(lldp.deadline(), None);
    }

    fn text(f: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn neighbours_and_their_answers_are_remembered() {
        let mut lldp = link();
        let mut peer = Lldp::new("eth7", Mac([0x50, 0x54, 0, 0, 0xaa, 1]), Instant::ZERO);
        peer.configure(&Config {
            system_description: "the server".into(),
            mappings: vec![(300, 101)],
            ..Config::default()
        });
        peer.mappings[0].status = Some(3);
        lldp.receive(&peer.packet(MAC, Instant::ZERO));
        let status = text(|out| lldp.show_status(out));
        let want = "LLDP: p1\n  Auto Attach Primary Server Id: 50:54:00:00:aa:01\n  Auto Attach Primary Server Descr: \
                    the server\n  Auto Attach Primary Server System Id: 50:54:00:00:aa:01:00:00:00:00:00:00\n";
        assert_eq!(status, want);
        let isids = text(|out| lldp.show_isids(&[300, 200], out));
        assert!(isids.ends_with(
            "300      101  Switch      Reject (Generic)\n200      100  Switch      Pending    \n"
        ));
        peer.configure(&Config { system_description: "another".into(), ..Config::default() });
        lldp.receive(&peer.packet(MAC, Instant::ZERO));
        assert_eq!((lldp.neighbours.len(), lldp.counters.inserted, lldp.counters.rx), (1, 1, 2));
        lldp.configure(&Config { mappings: vec![(300, 101)], ..Config::default() });
        assert_eq!(lldp.isids(), [300]);
    }

    #[test]
    fn frames_that_make_no_sense_are_counted() {
        let mut lldp = link();
        let good = Lldp::new("x", MAC, Instant::ZERO).packet(MAC, Instant::ZERO);
        for cut in [16, 20, good.len() - 2] {
            lldp.receive(&good[..cut]);
        }
        assert_eq!(lldp.counters.discarded, 3);
        let mut unknown = good[..good.len() - 2].to_vec();
        unknown.extend([0xfe, 4, 1, 2, 3, 4, 40, 0]);
        lldp.receive(&unknown);
        assert_eq!((lldp.counters.discarded, lldp.counters.unrecognized), (4, 2));
        let mut elsewhere = good.clone();
        elsewhere[5] = 3;
        lldp.receive(&elsewhere);
        assert_eq!((lldp.counters.discarded, lldp.neighbours.len()), (4, 0));
    }
}
