//! Random flow tables and packets from a seed, and what becomes of them in both worlds.

use std::fmt::Write;

use ib_base::rng::Rng;

use crate::{Difference, World};

/// Ports of the bridge, numbered from 1.
const PORTS: u64 = 4;
/// Tables that flows go to.
const TABLES: u64 = 3;

/// A flow table and packets to send through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Flows in the syntax of `ovs-ofctl add-flows`.
    pub flows: Vec<String>,
    /// Packets as `ofproto/trace` flows.
    pub packets: Vec<String>,
}

struct Gen(Rng);

impl Gen {
    fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        // Lists are short.
        list[self.below(list.len() as u64) as usize]
    }
    fn mac(&mut self) -> String {
        format!("50:54:00:00:00:{:02x}", self.below(6))
    }
    fn ip(&mut self) -> String {
        format!("10.0.{}.{}", self.below(2), self.below(4))
    }
    fn prefix(&mut self) -> u64 {
        [32, 32, 24, 16, 31, 8][self.below(6) as usize]
    }
    fn ip6(&mut self) -> String {
        format!("fe80::{:x}", self.below(4))
    }

    fn match_(&mut self) -> String {
        let mut m: Vec<String> = Vec::new();
        if self.chance(30) {
            m.push(format!("in_port={}", 1 + self.below(PORTS)));
        }
        if self.chance(25) {
            m.push(format!("dl_dst={}", self.mac()));
        }
        if self.chance(20) {
            m.push(format!("dl_src={}", self.mac()));
        }
        if self.chance(20) {
            m.push(match self.below(4) {
                0 => "vlan_tci=0".into(),
                1 => "vlan_tci=0x1000/0x1000".into(),
                2 => format!("dl_vlan={}", self.below(3)),
                _ => format!("dl_vlan={},dl_vlan_pcp={}", self.below(3), self.below(3)),
            });
        }
        match self.below(10) {
            0 | 1 => m.push("ip".into()),
            2 => m.push("tcp".into()),
            3 => m.push("udp".into()),
            4 => m.push("arp".into()),
            5 => m.push("icmp".into()),
            6 => m.push("ipv6".into()),
            7 => m.push("tcp6".into()),
            _ => {}
        }
        let kind = m.last().cloned().unwrap_or_default();
        if ["ip", "tcp", "udp", "icmp"].contains(&kind.as_str()) {
            if self.chance(50) {
                m.push(format!("nw_dst={}/{}", self.ip(), self.prefix()));
            }
            if self.chance(40) {
                m.push(format!("nw_src={}/{}", self.ip(), self.prefix()));
            }
            if self.chance(10) {
                m.push(format!("nw_tos={}", self.below(3) * 4));
            }
            if self.chance(10) {
                m.push(format!("nw_ttl={}", [1, 64][self.below(2) as usize]));
            }
        }
        if ["ipv6", "tcp6"].contains(&kind.as_str()) && self.chance(60) {
            m.push(format!("ipv6_dst={}", self.ip6()));
        }
        if kind == "arp" && self.chance(50) {
            m.push(format!("arp_tpa={}", self.ip()));
        }
        if ["tcp", "udp", "tcp6"].contains(&kind.as_str()) {
            if self.chance(50) {
                m.push(format!("tp_dst={}", 80 + self.below(3)));
            }
            if self.chance(20) {
                m.push(format!("tp_src={:#x}/0xfff{:x}", 0x1000 + self.below(16), 12 + self.below(4)));
            }
        }
        if kind == "icmp" && self.chance(40) {
            m.push("icmp_type=8".into());
        }
        m.join(",")
    }

    fn action(&mut self, table: u64, is_ip: bool) -> String {
        let port = 1 + self.below(PORTS);
        match self.below(22) {
            0..=4 => format!("output:{port}"),
            5 => "NORMAL".into(),
            6 => "FLOOD".into(),
            7 => "ALL".into(),
            8 => "IN_PORT".into(),
            9 => "LOCAL".into(),
            10 if table + 1 < TABLES => format!("resubmit(,{})", table + 1),
            11 => format!("mod_vlan_vid:{}", self.below(4)),
            12 => "strip_vlan".into(),
            13 => format!("push_vlan:0x8100,set_field:{}->vlan_vid", 4096 + self.below(4)),
            14 => format!("mod_dl_dst:{}", self.mac()),
            15 => format!("set_field:{}->eth_src", self.mac()),
            16 => format!("load:{:#x}->NXM_NX_REG{}[]", self.below(5), self.below(4)),
            17 => "move:NXM_OF_IN_PORT[]->NXM_NX_REG0[0..15]".into(),
            18 => "output:NXM_NX_REG0[]".into(),
            19 if is_ip => "dec_ttl".into(),
            20 if is_ip => format!("mod_nw_dst:{}", self.ip()),
            21 if is_ip => format!("mod_nw_tos:{}", 4 * self.below(4)),
            _ => format!("output:{port}"),
        }
    }

    fn flow(&mut self) -> String {
        let table = self.below(TABLES);
        let m = self.match_();
        let v4 = ["ip", "tcp", "udp", "icmp"].iter().any(|k| m.split(',').any(|p| p == *k));
        let mut actions: Vec<String> = (0..=self.below(3)).map(|_| self.action(table, v4)).collect();
        if self.chance(10) {
            actions = vec!["drop".into()];
        }
        if self.chance(15) && table + 1 < TABLES && actions != ["drop"] {
            actions.push(format!("goto_table:{}", table + 1));
        }
        let mut text = format!("table={table},priority={}", self.below(6) * 10);
        if !m.is_empty() {
            let _ = write!(text, ",{m}");
        }
        let _ = write!(text, ",actions={}", actions.join(","));
        text
    }

    fn packet(&mut self) -> String {
        let mut p = format!(
            "in_port={},dl_src={},dl_dst={}",
            1 + self.below(PORTS),
            self.mac(),
            if self.chance(15) { "ff:ff:ff:ff:ff:ff".into() } else { self.mac() }
        );
        if self.chance(30) {
            let _ = write!(p, ",dl_vlan={},dl_vlan_pcp={}", self.below(3), self.below(3));
        }
        let (src, dst) = (self.ip(), self.ip());
        let _ = match self.pick(&["tcp", "udp", "icmp", "arp", "tcp6", "other"]) {
            "tcp" => write!(
                p,
                ",tcp,nw_src={src},nw_dst={dst},nw_ttl={},tp_src={},tp_dst={}",
                [64, 1, 2][self.below(3) as usize],
                0x1000 + self.below(16),
                80 + self.below(3)
            ),
            "udp" => write!(
                p,
                ",udp,nw_src={src},nw_dst={dst},nw_ttl=64,tp_src=4096,tp_dst={}",
                80 + self.below(3)
            ),
            "icmp" => write!(p, ",icmp,nw_src={src},nw_dst={dst},nw_ttl=64,icmp_type=8,icmp_code=0"),
            "arp" => write!(p, ",arp,arp_spa={src},arp_tpa={dst},arp_op=1"),
            "tcp6" => {
                write!(p, ",tcp6,ipv6_src=fe80::9,ipv6_dst={},nw_ttl=64,tp_src=4096,tp_dst=80", self.ip6())
            }
            _ => write!(p, ",dl_type=0x1234"),
        };
        p
    }
}

impl Case {
    /// The case of a seed; always the same.
    pub fn generate(seed: u64) -> Case {
        let mut g = Gen(Rng::new(seed));
        let n_flows = 1 + g.below(24);
        let flows = (0..n_flows).map(|_| g.flow()).collect();
        let packets = (0..8).map(|_| g.packet()).collect();
        Case { flows, packets }
    }

    fn file(&self) -> String {
        self.flows.iter().map(|f| format!("{f}\n")).collect()
    }
}

/// Makes the bridge that cases run on.
pub fn set_up(world: &World) -> Result<(), String> {
    world.ok("ovs-vsctl add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure")?;
    for n in 1..=PORTS {
        world.ok(&format!(
            "ovs-vsctl add-port br0 p{n} -- set interface p{n} type=dummy ofport_request={n}"
        ))?;
    }
    world.ok("ovs-vsctl set port p3 tag=1")?;
    world.ok("ovs-vsctl set port p4 tag=2 vlan_mode=native-untagged").map(|_| ())
}

/// What one world makes of a case: a text for each packet.
fn observe(world: &World, case: &Case) -> Result<Vec<(String, String)>, String> {
    world.ok("ovs-ofctl -O OpenFlow13 del-flows br0")?;
    world.ok("ovs-appctl fdb/flush br0")?;
    world.ok("ovs-appctl revalidator/purge")?;
    let added = world.sh("ovs-ofctl -O OpenFlow10,OpenFlow13 add-flows br0 -", &case.file());
    let mut seen = vec![(
        "add-flows".to_owned(),
        crate::script::normalize(&format!("{}exit {}", added.stderr, added.code), &world.path("")),
    )];
    let dump = world.ok("ovs-ofctl -O OpenFlow10,OpenFlow13 --no-stats --sort=priority dump-flows br0")?;
    let mut lines: Vec<&str> = dump.lines().collect();
    lines.sort_unstable();
    seen.push(("dump-flows".into(), lines.join("\n")));
    for packet in &case.packets {
        let out = world.sh(&format!("ovs-appctl ofproto/trace br0 '{packet}'"), "");
        seen.push((format!("ofproto/trace br0 '{packet}'"), format!("{}{}", out.stdout, out.stderr)));
    }
    Ok(seen)
}

fn first_difference(theirs: &World, ours: &World, case: &Case) -> Result<Option<Difference>, String> {
    let (a, b) = (observe(theirs, case)?, observe(ours, case)?);
    let pairs = a.into_iter().zip(b);
    Ok(pairs.into_iter().find(|((_, x), (_, y))| x != y).map(|((command, theirs), (_, ours))| Difference {
        command,
        theirs,
        ours,
    }))
}

/// Compares both worlds on `case`; a difference comes back with a smaller case that still shows it.
///
/// Errors: a world that does not answer.
pub fn compare(theirs: &World, ours: &World, case: &Case) -> Result<Option<String>, String> {
    let Some(mut difference) = first_difference(theirs, ours, case)? else { return Ok(None) };
    let mut small = case.clone();
    // The packet first, then the flows, one by one while the difference stays.
    for n in (0..small.packets.len()).rev() {
        let mut less = small.clone();
        less.packets.remove(n);
        if let Some(d) = first_difference(theirs, ours, &less)? {
            (small, difference) = (less, d);
        }
    }
    for n in (0..small.flows.len()).rev() {
        let mut less = small.clone();
        less.flows.remove(n);
        if let Some(d) = first_difference(theirs, ours, &less)? {
            (small, difference) = (less, d);
        }
    }
    Ok(Some(format!("flows:\n{}{difference}", small.file())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_case() {
        assert_eq!(Case::generate(5), Case::generate(5));
        assert_ne!(Case::generate(5), Case::generate(6));
    }
}
