//! In-band control: hidden flows that let the switch reach its controllers through itself.
//!
//! The flows are above all that controllers can make and let ordinary switching have what a session with a
//! controller needs: DHCP and ARP of the bridge's own port, ARP of the next hop and of the controller, and the
//! controller's TCP connection ("In-Band Control" in Open vSwitch's design document). They are declared in
//! [`wanted`], in the notation of `ovs-ofctl`.
//!
//! The next hop's address comes from the kernel: asked for every second while unknown, every ten afterwards. Cost of a
//! turn without news: a comparison of the remotes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ib_base::time::Instant;
use ib_base::vlog::module::IN_BAND;
use ib_base::{vlog_dbg, vlog_warn_rl};
use ib_flow::text::parse_match;
use ib_flow::{Match, OfPort};
use ib_openflow::action::Action;
use ib_packet::Mac;

use super::ConnMgr;
use crate::config::InBandConfig;
use crate::switch::Bridge;

/// Port of OpenFlow where a target names none.
const OFP_PORT: u16 = 6653;
/// While the next hop is unknown, and once it is known.
const ASK_MS: u64 = 1000;
const REFRESH_MS: u64 = 10_000;

/// A controller or manager on the other side.
#[derive(Clone, Copy, Debug)]
struct Remote {
    addr: SocketAddrV4,
    next_hop: Option<Mac>,
    ask_at: Instant,
}

/// A flow by its priority and its match's text.
type Key = (i32, String);

/// State of in-band control of one bridge.
#[derive(Debug, Default)]
pub(crate) struct InBand {
    pub config: InBandConfig,
    remotes: Vec<Remote>,
    local: Mac,
    queue: Option<u32>,
    /// The flows that are in table 0.
    flows: BTreeMap<Key, Match>,
}

impl InBand {
    /// Whether there is anybody to reach.
    pub fn is_active(&self) -> bool {
        !self.remotes.is_empty()
    }
    pub fn deadline(&self) -> Option<Instant> {
        self.remotes.iter().map(|r| r.ask_at).min()
    }
}

/// The address that an active target names; none for names of hosts, IPv6 and files.
pub fn remote_of(target: &str, default_port: u16) -> Option<SocketAddrV4> {
    let rest = target.strip_prefix("tcp:").or_else(|| target.strip_prefix("ssl:"))?;
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, default_port),
    };
    Some(SocketAddrV4::new(host.parse().ok()?, port))
}

fn addresses(mgr: &ConnMgr) -> Vec<SocketAddrV4> {
    let controllers = mgr.controllers.values().filter(|c| c.config.in_band && c.backoff.is_some());
    let own = controllers.filter_map(|c| remote_of(&c.config.target, OFP_PORT));
    own.chain(mgr.in_band.config.extra.iter().copied()).collect()
}

/// The flows that remotes call for: priorities are the original's.
fn wanted(local: Mac, remotes: &[Remote]) -> BTreeSet<Key> {
    let mut flows = BTreeSet::new();
    if remotes.is_empty() {
        return flows;
    }
    let mut add = |priority, text| flows.insert((priority, text));
    if !local.is_zero() {
        add(180_000, format!("udp,in_port=LOCAL,dl_src={local},tp_src=68,tp_dst=67"));
        add(180_001, format!("arp,dl_dst={local},arp_op=2"));
        add(180_002, format!("arp,dl_src={local},arp_op=1"));
    }
    for Remote { addr, next_hop, .. } in remotes {
        let (ip, port) = (addr.ip(), addr.port());
        if let Some(mac) = next_hop {
            add(180_003, format!("arp,dl_dst={mac},arp_op=2"));
            add(180_004, format!("arp,dl_src={mac},arp_op=1"));
        }
        add(180_005, format!("arp,arp_tpa={ip},arp_op=2"));
        add(180_006, format!("arp,arp_spa={ip},arp_op=1"));
        add(180_007, format!("tcp,nw_dst={ip},tp_dst={port}"));
        add(180_008, format!("tcp,nw_src={ip},tp_src={port}"));
    }
    flows
}

fn actions(queue: Option<u32>) -> Vec<Action> {
    let normal = Action::Output { port: OfPort::NORMAL, max_len: 0 };
    queue.map(Action::SetQueue).into_iter().chain([normal]).collect()
}

/// Looks whether remotes, addresses or settings have changed.
pub(super) fn run(bridge: &mut Bridge, now: Instant) {
    let addrs = addresses(&bridge.connmgr);
    let was_active = bridge.connmgr.in_band.is_active();
    if addrs.is_empty() && !was_active {
        return;
    }
    let mut changed = set_remotes(&mut bridge.connmgr.in_band, &addrs, now);
    let local = bridge.ports.get(&OfPort::LOCAL).map(|p| (p.config.name.clone(), p.config.netdev.mac));
    let (device, mac) = local.unwrap_or_default();
    let lookup = bridge.next_hop.clone();
    let ib = &mut bridge.connmgr.in_band;
    changed |= std::mem::replace(&mut ib.local, mac) != mac;
    changed |= std::mem::replace(&mut ib.queue, ib.config.queue) != ib.config.queue;
    for remote in ib.remotes.iter_mut().filter(|r| now >= r.ask_at) {
        let next_hop = lookup.as_ref().map_or(Ok(None), |f| f(&device, *remote.addr.ip()));
        changed |= refresh(&bridge.of.name, remote, next_hop, now);
    }
    if changed {
        install(bridge, now);
    }
    if was_active != bridge.connmgr.in_band.is_active() {
        bridge.mark_dirty();
    }
}

/// Remotes that stay keep what is known of them.
fn set_remotes(ib: &mut InBand, addrs: &[SocketAddrV4], now: Instant) -> bool {
    if ib.remotes.iter().map(|r| &r.addr).eq(addrs) {
        return false;
    }
    let old = std::mem::take(&mut ib.remotes);
    let known = |addr: &SocketAddrV4| old.iter().find(|r| r.addr == *addr).copied();
    ib.remotes = addrs
        .iter()
        .map(|addr| known(addr).unwrap_or(Remote { addr: *addr, next_hop: None, ask_at: now }))
        .collect();
    true
}

fn refresh(bridge: &str, remote: &mut Remote, next_hop: Result<Option<Mac>, String>, now: Instant) -> bool {
    let ip: &Ipv4Addr = remote.addr.ip();
    let mac = next_hop.unwrap_or_else(|why| {
        vlog_warn_rl!(IN_BAND, (60, 60), "{bridge}: cannot find route for controller ({ip}): {why}");
        None
    });
    // One that was known stays until there is a better one.
    let news = mac.filter(|mac| remote.next_hop != Some(*mac));
    if let (Some(new), Some(old)) = (news, remote.next_hop) {
        vlog_dbg!(IN_BAND, "{bridge}: remote MAC address changed from {old} to {new}");
    }
    remote.next_hop = mac.or(remote.next_hop);
    remote.ask_at = now.plus_ms(if mac.is_some() { REFRESH_MS } else { ASK_MS });
    news.is_some()
}

/// Makes table 0 as wanted.
fn install(bridge: &mut Bridge, now: Instant) {
    let ib = &mut bridge.connmgr.in_band;
    let wanted = wanted(ib.local, &ib.remotes);
    ib.flows.retain(|key, match_| {
        let stays = wanted.contains(key);
        if !stays {
            bridge.of.remove_hidden(match_, key.0, now);
        }
        stays
    });
    for key in wanted {
        if !ib.flows.contains_key(&key)
            && let Ok((match_, _)) = parse_match(&key.1, None)
        {
            ib.flows.insert(key, match_);
        }
    }
    let actions = actions(ib.queue);
    for ((priority, _), match_) in &ib.flows {
        bridge.of.add_hidden(match_, *priority, actions.clone(), now);
    }
}

/// Tables were emptied.
pub(super) fn flushed(bridge: &mut Bridge, now: Instant) {
    install(bridge, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_name_remotes() {
        let check = |target, expect: Option<&str>| {
            assert_eq!(remote_of(target, OFP_PORT).map(|a| a.to_string()).as_deref(), expect, "{target}");
        };
        check("tcp:10.0.0.1", Some("10.0.0.1:6653"));
        check("ssl:10.0.0.1:88", Some("10.0.0.1:88"));
        check("tcp:[fe80::1]:88", None);
        check("tcp:controller:88", None);
        check("unix:/run/controller", None);
        check("ptcp:6653", None);
    }

    #[test]
    fn flows_of_remotes_are_matches() {
        let mut remotes = vec![Remote {
            addr: "10.5.0.9:6653".parse().unwrap(),
            next_hop: Some("02:00:00:00:00:99".parse().unwrap()),
            ask_at: Instant::ZERO,
        }];
        let local = "02:00:00:00:00:01".parse().unwrap();
        assert_eq!(wanted(local, &[]).len(), 0);
        let flows = wanted(local, &remotes);
        assert_eq!(flows.len(), 9);
        for (_, text) in &flows {
            assert!(parse_match(text, None).is_ok(), "{text}");
        }
        // A second port at the same address needs its connection only, an unknown next hop nothing.
        remotes.push(Remote {
            addr: "10.5.0.9:6640".parse().unwrap(),
            next_hop: None,
            ask_at: Instant::ZERO,
        });
        assert_eq!(wanted(local, &remotes).len(), 11);
        assert_eq!(wanted(Mac::default(), &remotes).len(), 8);
    }

    #[test]
    fn known_next_hops_are_asked_for_less_often() {
        let mut r = Remote { addr: "10.5.0.9:6653".parse().unwrap(), next_hop: None, ask_at: Instant::ZERO };
        let mac = |s: &str| Some(s.parse::<Mac>().unwrap());
        let (t, one, two) = (Instant::from_ms(500), mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02"));
        assert!(!refresh("br0", &mut r, Ok(None), t));
        assert_eq!(r.ask_at, Instant::from_ms(1500));
        assert!(refresh("br0", &mut r, Ok(one), t));
        assert_eq!(r.ask_at, Instant::from_ms(10_500));
        assert!(!refresh("br0", &mut r, Ok(one), t));
        assert!(!refresh("br0", &mut r, Err("No such device or address".into()), t));
        assert_eq!(r.next_hop, one);
        assert!(refresh("br0", &mut r, Ok(two), t));
    }
}
