//! Random flow tables, groups and packets from a seed, and what becomes of them in both worlds.
//!
//! Each packet is traced, then comes in by its port; then both worlds tell datapath flows, counters and what their ports
//! sent. What Open vSwitch refuses of a case is no part of it.

mod generate;
mod templates;

use std::fmt::Write;

use crate::script::{normalize, strip_after};
use crate::{Difference, World};

/// Ports of the bridge, numbered from 1: four of Ethernet, a patch port, two tunnels, two members of a bond.
const PORTS: u64 = 9;
/// Those that write what they send to a file.
const ETHERNET: [&str; 8] = ["p1", "p2", "p3", "p4", "p28", "p29", "q1", "q2"];

/// A flow table and packets to send through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Flows in the syntax of `ovs-ofctl add-flows`.
    pub flows: Vec<String>,
    /// Groups in the syntax of `ovs-ofctl add-groups`.
    pub groups: Vec<String>,
    /// Packets as `ofproto/trace` flows.
    pub packets: Vec<String>,
}

impl Case {
    /// The case of a seed; always the same.
    pub fn generate(seed: u64) -> Case {
        generate::case(seed)
    }
}

fn lines(list: &[String]) -> String {
    list.iter().map(|f| format!("{f}\n")).collect()
}

/// Makes the bridges that cases run on.
pub fn set_up(world: &World) -> Result<(), String> {
    let bridges = ["br0", "br1", "br-phy"];
    for br in bridges {
        world
            .ok(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath-type=dummy fail-mode=secure"))?;
    }
    let ethernet = |br: &str, name: &str, number: u32| {
        let pcap = world.path(&format!("{name}.pcap"));
        world.ok(&format!(
            "ovs-vsctl add-port {br} {name} -- set interface {name} type=dummy ofport_request={number} \
             options:tx_pcap={pcap}"
        ))
    };
    for n in 1..=4 {
        ethernet("br0", &format!("p{n}"), n)?;
    }
    ethernet("br1", "q1", 1)?;
    ethernet("br1", "q2", 2)?;
    let (pcap8, pcap9) = (world.path("p28.pcap"), world.path("p29.pcap"));
    for line in [
        "ovs-vsctl set port p3 tag=1 -- set port p4 tag=2 vlan_mode=native-untagged",
        "ovs-vsctl add-port br0 p5 -- set interface p5 type=patch options:peer=q5 ofport_request=5",
        "ovs-vsctl add-port br1 q5 -- set interface q5 type=patch options:peer=p5 ofport_request=5",
        "ovs-vsctl add-port br0 v6 -- set interface v6 type=vxlan options:remote_ip=1.1.2.92 options:key=flow \
         ofport_request=6",
        "ovs-vsctl add-port br0 v7 -- set interface v7 type=geneve options:remote_ip=1.1.2.93 options:key=flow \
         ofport_request=7",
        &format!(
            "ovs-vsctl add-bond br0 bond0 p28 p29 bond_mode=active-backup other_config:bond-primary=p28 -- set interface p28 type=dummy \
             ofport_request=8 options:tx_pcap={pcap8} -- set interface p29 type=dummy ofport_request=9 \
             options:tx_pcap={pcap9}"
        ),
        // Later versions look at prefixes of IPv6 addresses, too.
        "ovs-vsctl -- --id=@t create flow_table prefixes=ip_dst,ip_src -- set bridge br0 flow_tables:0=@t \
         flow_tables:1=@t flow_tables:2=@t flow_tables:3=@t flow_tables:4=@t",
        "ovs-ofctl add-flow br1 actions=NORMAL",
        "ovs-ofctl add-flow br-phy actions=NORMAL",
        "ovs-appctl netdev-dummy/ip4addr br-phy 1.1.2.88/24",
        "ovs-appctl ovs/route/add 1.1.2.88/24 br-phy",
        "ovs-appctl tnl/neigh/set br-phy 1.1.2.92 f8:bc:12:44:34:b6",
        "ovs-appctl tnl/neigh/set br-phy 1.1.2.93 f8:bc:12:44:34:b7",
        "ovs-ofctl add-tlv-map br0 {class=0xffff,type=0,len=4}->tun_metadata0,{class=0xffff,type=1,len=8}->tun_metadata1",
        "ovs-ofctl -O OpenFlow15 add-meter br0 meter=1,pktps,burst,stats,bands=type=drop,rate=1,burst_size=1000",
        "ovs-appctl time/stop",
    ] {
        world.ok(line)?;
    }
    world.ok("ovs-appctl time/warp 2000").map(|_| ())
}

/// Leaves out what `theirs` refuses.
fn prune(theirs: &World, case: &Case) -> Result<Case, String> {
    let mut case = case.clone();
    theirs.ok("ovs-ofctl -O OpenFlow15 del-flows br0")?;
    theirs.ok("ovs-ofctl -O OpenFlow15 del-groups br0")?;
    for (what, list) in [("add-group", &mut case.groups), ("add-flow", &mut case.flows)] {
        list.retain(|item| {
            let out = theirs.sh(&format!("ovs-ofctl -O OpenFlow15 {what} br0 '{item}'"), "");
            if out.code != 0 && std::env::var_os("DIFFER_REFUSED").is_some() {
                eprintln!("refused: {item}\n  {}", out.stderr.lines().next().unwrap_or_default());
            }
            out.code == 0
        });
    }
    Ok(case)
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The first thing that the worlds do not answer alike.
fn first_difference(theirs: &World, ours: &World, case: &Case) -> Result<Option<Difference>, String> {
    let worlds = [theirs, ours];
    for line in [
        "ovs-ofctl -O OpenFlow15 del-flows br0",
        "ovs-ofctl -O OpenFlow15 del-groups br0",
        "ovs-appctl fdb/flush",
        "ovs-appctl dpctl/flush-conntrack",
        "ovs-appctl revalidator/purge",
    ] {
        theirs.ok(line)?;
        ours.ok(line)?;
    }
    // Nothing of the cases before comes in the way.
    let sent =
        |world: &World, name: &str| std::fs::read(world.path(&format!("{name}.pcap"))).unwrap_or_default();
    let before = worlds.map(|w| ETHERNET.map(|n| sent(w, n).len()));
    let ask = |command: &str, input: &str, order: bool| {
        let [theirs, ours] = worlds.map(|w| {
            let out = w.sh(command, input);
            let stdout = without_ids(&normalize(&out.stdout, &w.path("")));
            let stdout = if order { stdout } else { sorted(&stdout) };
            format!("{stdout}\n{}exit {}", normalize(&out.stderr, &w.path("")), out.code)
        });
        (theirs != ours).then(|| Difference { command: command.to_owned(), theirs, ours })
    };
    let steps = [
        ("ovs-appctl dpif/show", String::new()),
        ("ovs-ofctl -O OpenFlow15 add-groups br0 -", lines(&case.groups)),
        ("ovs-ofctl -O OpenFlow15 add-flows br0 -", lines(&case.flows)),
        ("ovs-ofctl -O OpenFlow15 --no-stats dump-flows br0", String::new()),
        ("ovs-ofctl -O OpenFlow15 dump-groups br0", String::new()),
    ];
    for (command, input) in steps {
        if let Some(d) = ask(command, &input, false) {
            return Ok(Some(d));
        }
    }
    for packet in &case.packets {
        if let Some(d) = ask(&format!("ovs-appctl ofproto/trace br0 '{packet}'"), "", true) {
            return Ok(Some(d));
        }
    }
    for packet in &case.packets {
        let frame = compose(theirs, packet);
        let port = packet.strip_prefix("in_port=").and_then(|p| p.split(',').next()).unwrap_or("1");
        let name = if port == "8" { "p28".to_owned() } else { format!("p{port}") };
        if let Some(d) = ask(&format!("ovs-appctl netdev-dummy/receive {name} {frame}"), "", true) {
            return Ok(Some(d));
        }
    }
    for command in [
        "ovs-appctl revalidator/wait",
        "ovs-appctl dpctl/dump-flows",
        "ovs-appctl revalidator/purge",
        "ovs-ofctl -O OpenFlow15 dump-flows br0",
        "ovs-ofctl -O OpenFlow15 dump-group-stats br0",
    ] {
        if let Some(d) = ask(command, "", false) {
            return Ok(Some(d));
        }
    }
    for (n, name) in ETHERNET.iter().enumerate() {
        let new = |w: usize| hex(sent(worlds[w], name).get(before[w][n]..).unwrap_or_default());
        let (theirs, ours) = (new(0), new(1));
        if theirs != ours {
            return Ok(Some(Difference { command: format!("what {name} sent"), theirs, ours }));
        }
    }
    Ok(None)
}

/// Recirculation ids go on from case to case, by how many translations there were.
fn without_ids(text: &str) -> String {
    let mut out = text.to_owned();
    for key in ["recirc_id=", "recirc(", "recirc_id("] {
        out = strip_after(&out, key, |c| c == 'x' || c.is_ascii_hexdigit());
    }
    out
}

/// A line a packet of a pcap file without its header.
fn hex(pcap: &[u8]) -> String {
    let mut out = String::new();
    let mut rest =
        pcap.get(if pcap.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]) { 24 } else { 0 }..).unwrap_or_default();
    while let Some((header, tail)) = rest.split_first_chunk::<16>() {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let frame = tail.get(..len).unwrap_or(tail);
        for b in frame {
            let _ = write!(out, "{b:02x}");
        }
        out.push('\n');
        rest = tail.get(len..).unwrap_or_default();
    }
    out
}

/// A packet's bytes, as Open vSwitch composes them.
fn compose(theirs: &World, packet: &str) -> String {
    // What comes in has no metadata.
    let metadata = ["in_port", "ct_", "tun_", "pkt_mark", "metadata", "reg", "skb_", "dp_hash"];
    let keep = |p: &&str| !metadata.iter().any(|m| p.starts_with(m));
    let headers: Vec<&str> = packet.split(',').filter(keep).collect();
    // It says so if what it made does not look as asked for; it is a packet all the same.
    let dump = theirs.sh(&format!("ovs-ofctl compose-packet '{}'", headers.join(",")), "").stdout;
    // Lines of an offset, up to 16 bytes, and the same as text.
    let bytes = dump.lines().filter_map(|l| l.get(10..57.min(l.len())));
    bytes.flat_map(str::chars).filter(char::is_ascii_hexdigit).collect()
}

/// Compares both worlds on `case`; a difference comes back with a smaller case that still shows it.
///
/// Errors: a world that does not answer.
pub fn compare(theirs: &World, ours: &World, case: &Case) -> Result<Option<String>, String> {
    let mut small = prune(theirs, case)?;
    let Some(mut difference) = first_difference(theirs, ours, &small)? else { return Ok(None) };
    // The packets first, then the flows, one by one while the difference stays.
    for n in (0..small.packets.len()).rev() {
        let mut less = small.clone();
        less.packets.remove(n);
        if let Some(d) = first_difference(theirs, ours, &less)? {
            (small, difference) = (less, d);
        }
    }
    // Halves, quarters and so on of the flows.
    let mut step = small.flows.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < small.flows.len() {
            let mut less = small.clone();
            less.flows.drain(at..(at + step).min(small.flows.len()));
            match first_difference(theirs, ours, &less)? {
                Some(d) => (small, difference) = (less, d),
                None => at += step,
            }
        }
        step /= 2;
    }
    let used = |id: usize, list: &[String]| list.iter().any(|t| t.contains(&format!("group:{}", id + 1)));
    if small.groups.iter().enumerate().any(|(id, _)| used(id, &small.flows)) {
        return Ok(Some(format!(
            "groups:\n{}flows:\n{}{difference}",
            lines(&small.groups),
            lines(&small.flows)
        )));
    }
    Ok(Some(format!("flows:\n{}{difference}", lines(&small.flows))))
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
