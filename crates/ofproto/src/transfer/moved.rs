//! When a port has come or gone for good.
//!
//! `port-state/announce` tells the network where the port's addresses are now, as a virtual machine monitor does for its guest: one RARP
//! request (RFC 903) for each learned address, which passes the flow tables as if it had come in by the port.
//! `port-state/heard` tells whether the machine behind a port has spoken. `port-state/forget` removes what makes no sense without the port:
//! flows that match it, output to it or are about its addresses, and learned addresses.

use std::net::IpAddr;

use ib_classifier::MiniMatch;
use ib_flow::OfPort;
use ib_openflow::message::FlowRemovedReason;
use ib_packet::Mac;

use super::{enters_by, match_of, save, session};
use crate::config::{BundleConfig, VlanMode};
use crate::ofproto::INTERNAL_TABLE;
use crate::switch::{Bridge, Switch};

/// Length of the shortest frame, without its checksum.
const FRAME_LEN: usize = 60;
/// A VLAN's tag.
const TAG_LEN: usize = 4;

fn bridge<'a>(switch: &'a Switch, name: &str) -> Result<&'a Bridge, String> {
    switch.bridge(name).ok_or_else(|| format!("{name}: no such bridge"))
}

/// A reverse ARP request by which `mac` asks for its own address.
fn rarp(mac: Mac, vlan: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    if vlan != 0 {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    // Ethernet, IPv4, lengths, "request reverse".
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    for _ in 0..2 {
        frame.extend(mac.0);
        frame.extend([0; 4]);
    }
    frame.resize(FRAME_LEN + if vlan != 0 { TAG_LEN } else { 0 }, 0);
    frame
}

/// Whether packets of a VLAN come in without a tag by such a port.
fn is_untagged(port: &BundleConfig, vlan: u16) -> bool {
    match port.vlan_mode {
        VlanMode::Access | VlanMode::Dot1qTunnel => true,
        VlanMode::NativeUntagged => port.tag == Some(vlan),
        VlanMode::Trunk | VlanMode::NativeTagged => false,
    }
}

/// `port-state/announce BRIDGE PORT...`
pub(crate) fn announce(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let bridge = bridge(switch, args[0])?;
    let mut n = 0;
    for name in &args[1..] {
        let port = bridge.port_by_name(name).ok_or_else(|| format!("{name}: no such port on {}", args[0]))?;
        let Some(bundle) = bridge.bundles.id_of_port(port.ofport) else { continue };
        let macs: Vec<(Mac, u16)> =
            bridge.of.ml.read().entries(now).filter(|e| e.port == bundle).map(|e| (e.mac, e.vlan)).collect();
        let config = bridge.bundles.bundles.values().find(|(id, _)| *id == bundle).map(|(_, c)| c);
        for (mac, vlan) in macs {
            let tag = if config.is_some_and(|c| is_untagged(c, vlan)) { 0 } else { vlan };
            bridge.receive_frame(port.ofport, &rarp(mac, tag));
            n += 1;
        }
    }
    Ok(format!("{n} addresses announced\n"))
}

/// `port-state/heard BRIDGE PORT...`: how many packets have come in by the ports.
pub(crate) fn heard(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let bridge = bridge(switch, args[0])?;
    let mut n: u64 = 0;
    for name in &args[1..] {
        bridge.port_by_name(name).ok_or_else(|| format!("{name}: no such port on {}", args[0]))?;
        let stats = bridge.port_stats.as_ref().and_then(|f| f(name)).unwrap_or_default();
        n = n.saturating_add(if stats.rx_packets == u64::MAX { 0 } else { stats.rx_packets });
    }
    Ok(format!("{n}\n"))
}

/// `port-state/forget [--address=ADDRESS | --keep=COOKIE[/MASK] | --session=NAME]... BRIDGE PORT...`
///
/// A port that has gone already is no error: a machine monitor may have been quicker. Its flows are found if the session has
/// seen it, and no other port has its number now.
pub(crate) fn forget(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let (mut macs, mut addrs, mut kept, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut session = None;
    for arg in args {
        match arg.split_once('=') {
            Some(("--address", text)) => match (text.parse::<Mac>(), text.parse::<IpAddr>()) {
                (Ok(mac), _) => macs.push(mac),
                (_, Ok(addr)) => addrs.push(addr),
                _ => return Err(format!("{text}: neither an Ethernet nor an IP address")),
            },
            Some(("--keep", text)) => {
                kept.push(save::cookie(text).ok_or_else(|| format!("{text}: not COOKIE[/MASK]"))?);
            }
            Some(("--session", name)) => session = Some(name),
            _ if arg.starts_with("--") => return Err(format!("{arg}: unknown option")),
            _ => names.push(*arg),
        }
    }
    let (name, names) = names.split_first().ok_or("no bridge is named")?;
    let bridge = bridge(switch, name)?;
    let moved = session::ports_of(&switch.sessions, session);
    let was = |name: &str| {
        let (_, port) = moved.iter().find(|(known, _)| known == name)?;
        bridge.ports().all(|p| p.ofport != *port).then_some(*port)
    };
    let port = |name: &&str| bridge.port_by_name(name).map(|p| p.ofport).or_else(|| was(name));
    let ports: Vec<OfPort> = names.iter().filter_map(port).collect();
    let of = &bridge.of;
    let mut txn = of.begin(now);
    let mut n = 0;
    for table in &of.tables[..usize::from(INTERNAL_TABLE)] {
        for rule in table.cls.collect_loose(&MiniMatch::catch_all(), txn.version()) {
            let m = match_of(bridge, &rule);
            let is_theirs = enters_by(&m, &ports)
                || ports.iter().any(|p| rule.outputs_to(*p))
                || save::names_address(&m, &macs, &addrs);
            let is_kept = kept.iter().any(|(cookie, mask)| (rule.cookie ^ cookie) & mask == 0);
            if is_theirs && !is_kept && !rule.is_hidden() {
                txn.remove(rule, FlowRemovedReason::Delete);
                n += 1;
            }
        }
    }
    txn.commit();
    for bundle in ports.iter().filter_map(|p| bridge.bundles.id_of_port(*p)) {
        if of.ml.write().flush_port(bundle) {
            of.changed.bump();
        }
    }
    Ok(format!("{n} flows removed\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_whole_frame() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let frame = rarp(mac, 0);
        assert_eq!((frame.len(), &frame[12..22]), (60, &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3][..]));
        assert_eq!((&frame[6..12], &frame[22..28], &frame[32..38]), (&mac.0[..], &mac.0[..], &mac.0[..]));
        let tagged = rarp(mac, 5);
        assert_eq!((tagged.len(), &tagged[12..18]), (64, &[0x81, 0, 0, 5, 0x80, 0x35][..]));
    }
}
