//! Tunnel ports on the OpenFlow side: which port a packet out of a tunnel came by, and what a port's configuration writes
//! into the tunnel fields of a packet that leaves.
//!
//! The datapath has one port for all tunnels of a protocol and transport port. [`TunnelMatch`] is what tells them apart; [`receive`] tries
//! the most specific form first: fixed key before key by flow, then fixed remote address before any, then fixed local address, none,
//! and local address by flow. [`Backer`] counts who uses which datapath port.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::net::Ipv6Addr;

use ib_base::vlog::module::{OFPROTO, TUNNEL};
use ib_base::vlog_warn;
use ib_dpif::{DpifError, PortSpec};
use ib_flow::tlv::TlvTable;
use ib_flow::{Flow, Mask, OdpPort, OfPort, TunFlags, Tunnel};
use ib_packet::{Be16, Be32, Be64, Be128};
use ib_tunnel::{OrFlow, PacketTypeMode, TunnelConfig, mapped, unmapped};

use crate::backer::Backer;
use crate::config::ConfigError;
use crate::ofproto::Ofproto;

/// ECN bits of a TOS.
pub const ECN: u8 = 3;
/// Congestion experienced.
const CE: u8 = 3;

/// What tells one tunnel from another. Addresses are zero where any will do or the flow says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelMatch {
    in_key: u64,
    in_key_flow: bool,
    src: Ipv6Addr,
    src_flow: bool,
    dst: Ipv6Addr,
    dst_flow: bool,
    odp: OdpPort,
    mark: u32,
    mode: PacketTypeMode,
}

/// Tunnels of one datapath: port by match.
pub type TunnelMap = HashMap<TunnelMatch, (u32, OfPort)>;

impl TunnelMatch {
    /// That of a tunnel.
    pub fn of(config: &TunnelConfig, odp: OdpPort) -> TunnelMatch {
        let ip =
            |v: OrFlow<Option<std::net::IpAddr>>| v.fixed().flatten().map_or(Ipv6Addr::UNSPECIFIED, mapped);
        let key = config.in_key.unwrap_or(OrFlow::Fixed(0));
        TunnelMatch {
            in_key: key.fixed().unwrap_or(0),
            in_key_flow: key.is_flow(),
            src: ip(config.local_ip),
            src_flow: config.local_ip.is_flow(),
            dst: ip(config.remote_ip),
            dst_flow: config.remote_ip.is_flow(),
            odp,
            mark: 0,
            mode: config.mode,
        }
    }
}

impl std::fmt::Display for TunnelMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ip = |ip: Ipv6Addr, flow: bool| if flow { "flow".to_owned() } else { unmapped(ip).to_string() };
        write!(f, "{}->{}, key=", ip(self.src, self.src_flow), ip(self.dst, self.dst_flow))?;
        if self.in_key_flow {
            f.write_str("flow")?;
        } else {
            f.write_str(&crate::text::c_hex(self.in_key))?;
        }
        write!(f, ", {}, dp port={}", self.mode.name(), self.odp)?;
        if self.mark != 0 {
            write!(f, ", pkt mark={}", self.mark)?;
        }
        Ok(())
    }
}

/// Addresses of a tunnel's fields, IPv4 mapped: source and destination.
pub fn addresses(t: &Tunnel) -> (Ipv6Addr, Ipv6Addr) {
    let one = |v4: Be32, v6: Be128| {
        if v4.is_zero() { Ipv6Addr::from(v6) } else { std::net::Ipv4Addr::from(v4).to_ipv6_mapped() }
    };
    (one(t.ip_src, t.ipv6_src), one(t.ip_dst, t.ipv6_dst))
}

/// Turns the options of a packet into fields by its bridge's table. False: one that must be understood is not.
pub fn unpack_options(of: &Ofproto, flow: &mut Flow) -> bool {
    if flow.tunnel.flags & TunFlags::UDPIF == 0 {
        return true;
    }
    if let Some(table) = of.tlv() {
        return !table.unpack(&mut flow.tunnel);
    }
    let t = &mut flow.tunnel;
    let len = usize::try_from(t.opts_present).unwrap_or(0).min(t.opts.len());
    let critical = ib_flow::tlv::options(&t.opts[..len]).any(|(_, kind, _)| kind & 0x80 != 0);
    t.flags &= !TunFlags::UDPIF;
    (t.opts, t.opts_present) = ([0; 256], 0);
    !critical
}

/// Turns what a translation looked at of the fields into a mask of the options as they travel in `key`.
pub fn pack_options_mask(key: &Flow, mask: &mut Mask) {
    let looked_at = mask.0.tunnel.clone();
    let m = &mut mask.0.tunnel;
    m.pad = [0; 4];
    (m.opts, m.opts_present) = ([0; 256], 0);
    if key.tunnel.flags & TunFlags::UDPIF == 0 {
        return;
    }
    // How many bytes of options there are decides which of them are fields.
    m.opts_present = u64::MAX;
    m.flags |= TunFlags::UDPIF;
    if looked_at.opts_present == 0 {
        return;
    }
    let Some(table) = TlvTable::by_id(looked_at.tlv_table()) else { return };
    let len = usize::try_from(key.tunnel.opts_present).unwrap_or(0).min(key.tunnel.opts.len());
    let mut bytes = Vec::new();
    table.pack_mask(&key.tunnel.opts[..len], &looked_at, &mut bytes);
    let n = bytes.len().min(m.opts.len());
    m.opts[..n].copy_from_slice(&bytes[..n]);
}

/// Whether a datapath's key came out of a tunnel.
pub fn should_receive(key: &Flow) -> bool {
    !key.tunnel.ip_dst.is_zero() || !key.tunnel.ipv6_dst.is_zero()
}

/// The port by which a packet out of a tunnel came; `key.in_port` is the datapath's.
pub fn receive(map: &TunnelMap, key: &Flow) -> Option<(u32, OfPort)> {
    let t = &key.tunnel;
    let (remote, local) = addresses(t);
    let legacy = if key.packet_type.is_zero() { PacketTypeMode::LegacyL2 } else { PacketTypeMode::LegacyL3 };
    let none = Ipv6Addr::UNSPECIFIED;
    for in_key_flow in [false, true] {
        for dst_flow in [false, true] {
            for (src, src_flow) in [(local, false), (none, false), (none, true)] {
                for mode in [legacy, PacketTypeMode::Aware] {
                    let m = TunnelMatch {
                        in_key: if in_key_flow { 0 } else { t.tun_id.get() },
                        in_key_flow,
                        src,
                        src_flow,
                        dst: if dst_flow { none } else { remote },
                        dst_flow,
                        odp: key.odp_in_port(),
                        mark: 0,
                        mode,
                    };
                    if let Some(found) = map.get(&m) {
                        return Some(*found);
                    }
                }
            }
        }
    }
    ib_base::vlog_warn_rl!(
        TUNNEL,
        (1, 5),
        "receive tunnel port not found ({})",
        ib_flow::text::flow_to_string(key, None)
    );
    None
}

fn is_ip(flow: &Flow) -> bool {
    crate::xlate::is_ip_any(flow)
}

/// What the outer header's congestion bits mean for the packet inside (RFC 6040). False: drop it.
pub fn process_ecn(flow: &mut Flow) -> bool {
    if is_ip(flow) && flow.tunnel.ip_tos & ECN == CE {
        if flow.nw_tos & ECN == 0 {
            ib_base::vlog_warn_rl!(
                TUNNEL,
                (1, 5),
                "dropping tunnel packet marked ECN CE but is not ECN capable"
            );
            return false;
        }
        flow.nw_tos |= CE;
    }
    true
}

fn set_ip(t: &mut Tunnel, ip: Option<std::net::IpAddr>, source: bool) {
    let (v4, v6) = match ip.map(mapped) {
        None => (Be32::ZERO, Be128::ZERO),
        Some(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => (Be32::from(v4), Be128::ZERO),
            None => (Be32::ZERO, Be128::from(ip)),
        },
    };
    if source {
        (t.ip_src, t.ipv6_src) = (v4, v6);
    } else {
        (t.ip_dst, t.ipv6_dst) = (v4, v6);
    }
}

/// Writes into `flow` what `config` says of packets that leave; `wc` gets the bits of the packet that it looked at.
pub fn send(config: &TunnelConfig, flow: &mut Flow, wc: &mut Mask) {
    if let OrFlow::Fixed(ip) = config.local_ip {
        set_ip(&mut flow.tunnel, ip, true);
    }
    if let OrFlow::Fixed(ip) = config.remote_ip {
        set_ip(&mut flow.tunnel, ip, false);
    }
    flow.pkt_mark = 0;
    match config.out_key {
        Some(OrFlow::Flow) => {}
        Some(OrFlow::Fixed(key)) => flow.tunnel.tun_id = Be64::new(key),
        None => flow.tunnel.tun_id = Be64::ZERO,
    }
    let ip = is_ip(flow);
    flow.tunnel.ip_ttl = config.ttl;
    if config.ttl_inherit && ip {
        wc.0.nw_ttl = 0xff;
        flow.tunnel.ip_ttl = flow.nw_ttl;
    }
    flow.tunnel.ip_tos = config.tos;
    if config.tos_inherit && ip {
        wc.0.nw_tos |= !ECN;
        flow.tunnel.ip_tos = flow.nw_tos & !ECN;
    }
    if ip {
        // Congestion bits always go outside; a packet that met congestion inside is capable outside.
        wc.0.nw_tos |= ECN;
        let inner = flow.nw_tos & ECN;
        flow.tunnel.ip_tos |= if inner == CE { 2 } else { inner };
    }
    let mut flags = flow.tunnel.flags & (TunFlags::OAM | TunFlags::UDPIF);
    for (on, bit) in [
        (config.dont_fragment, TunFlags::DF),
        (config.csum, TunFlags::CSUM),
        (config.out_key.is_some(), TunFlags::KEY),
    ] {
        flags |= if on { bit } else { 0 };
    }
    flow.tunnel.flags = flags;
    if let Some(mark) = config.egress_pkt_mark {
        flow.pkt_mark = mark;
        wc.0.pkt_mark = u32::MAX;
    }
    if config.kind.is_erspan() {
        let t = &mut flow.tunnel;
        t.erspan_ver = config.erspan_ver.fixed().unwrap_or(t.erspan_ver);
        t.erspan_idx = config.erspan_idx.fixed().unwrap_or(t.erspan_idx);
        t.erspan_dir = config.erspan_dir.fixed().unwrap_or(t.erspan_dir);
        t.erspan_hwid = config.erspan_hwid.fixed().unwrap_or(t.erspan_hwid);
    }
    flow.tunnel.tp_dst = Be16::ZERO;
    flow.tunnel.tp_src = Be16::ZERO;
}

/// Who uses which tunnel ports of a datapath.
#[derive(Debug, Default)]
pub struct TunnelUsers {
    /// Datapath ports by name, with the number of their users.
    devices: BTreeMap<String, (OdpPort, usize)>,
    matches: HashMap<TunnelMatch, String>,
    /// Ports that came to ask for what another has: they have it when that one gives it up.
    waiting: BTreeMap<String, TunnelMatch>,
    /// Rises when a waiting port gets what it waits for: its bridge looks again.
    granted: u64,
}

impl TunnelUsers {
    /// Whether these packets are this port's, and not another's that asked for the same before.
    pub(crate) fn owns(&self, name: &str, config: &TunnelConfig, odp: OdpPort) -> bool {
        self.matches.get(&TunnelMatch::of(config, odp)).is_some_and(|owner| owner == name)
    }

    /// Rises when a waiting port gets what it waits for.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// Takes from a port what it has or waits for; who waits for it has it then.
    fn give_up(&mut self, name: &str, m: &TunnelMatch) {
        self.waiting.remove(name);
        if self.matches.get(m).is_none_or(|owner| owner != name) {
            return;
        }
        self.matches.remove(m);
        if let Some(next) = self.waiting.iter().find(|(_, wanted)| *wanted == m).map(|(n, _)| n.clone()) {
            self.waiting.remove(&next);
            self.matches.insert(*m, next);
            self.granted += 1;
        }
    }
}

impl Backer {
    /// Registers a tunnel and returns its datapath port, which is made for the first of its kind. One like another's is refused.
    pub(crate) fn tunnel_add(&self, name: &str, config: &TunnelConfig) -> Result<OdpPort, ConfigError> {
        self.tunnel_claim(name, config, false)
    }

    /// Gives a port another configuration. If another port has the same, this one keeps its datapath port, and its packets
    /// are that other's until it changes or goes.
    pub(crate) fn tunnel_change(
        &self,
        name: &str,
        old: &TunnelConfig,
        odp: Option<OdpPort>,
        new: &TunnelConfig,
    ) -> Result<OdpPort, ConfigError> {
        if let Some(odp) = odp {
            self.tunnel_remove(name, old, odp);
        }
        self.tunnel_claim(name, new, true)
    }

    fn tunnel_claim(
        &self,
        name: &str,
        config: &TunnelConfig,
        may_wait: bool,
    ) -> Result<OdpPort, ConfigError> {
        let mut users = self.tunnels.lock();
        let device = config.device_name();
        let odp = match users.devices.get(&device) {
            Some((odp, _)) => *odp,
            None => match self.dpif.port_by_name(&device) {
                Some(info) => info.number,
                None => {
                    let extensions = [(config.gbp, "gbp"), (config.gpe, "gpe")];
                    let extensions = extensions.iter().filter(|(on, _)| *on).map(|(_, name)| *name);
                    let extensions = extensions.collect::<Vec<_>>().join(",");
                    let options = if extensions.is_empty() {
                        Default::default()
                    } else {
                        [("exts".to_owned(), extensions)].into()
                    };
                    let kind = config.kind.name().to_owned();
                    let spec = PortSpec { name: device.clone(), kind, options, number: None };
                    self.dpif.port_add(&spec).map_err(ConfigError::Datapath)?
                }
            },
        };
        let m = TunnelMatch::of(config, odp);
        if let Some(other) = users.matches.get(&m) {
            vlog_warn!(
                TUNNEL,
                "{name}: attempting to add tunnel port with same config as port '{other}' ({m})"
            );
            if !may_wait {
                if !users.devices.contains_key(&device) {
                    let _ = self.dpif.port_del(odp);
                }
                let exists = DpifError::Os(17, format!("{name}: a tunnel like it exists"));
                return Err(ConfigError::Datapath(exists));
            }
            users.waiting.insert(name.to_owned(), m);
        } else {
            users.matches.insert(m, name.to_owned());
        }
        users.devices.entry(device).or_insert((odp, 0)).1 += 1;
        drop(users);
        self.world.port_added(odp, config);
        Ok(odp)
    }

    /// Undoes [`Self::tunnel_add`]; the datapath port goes with its last user.
    pub(crate) fn tunnel_remove(&self, name: &str, config: &TunnelConfig, odp: OdpPort) {
        let mut users = self.tunnels.lock();
        users.give_up(name, &TunnelMatch::of(config, odp));
        let device = config.device_name();
        if let Some((_, n)) = users.devices.get_mut(&device) {
            *n -= 1;
            if *n == 0 {
                users.devices.remove(&device);
                // A port that went by itself is gone as well.
                let _ = self.dpif.port_del(odp);
            }
        }
        drop(users);
        self.world.port_removed(odp);
    }
}

/// Logs a port that could not be added, as the original's layers do.
pub(crate) fn log_refused(bridge: &str, name: &str, e: &ConfigError) {
    if let ConfigError::Datapath(DpifError::Os(errno, _)) = e {
        let why = ib_base::errno::strerror_num(*errno);
        vlog_warn!(OFPROTO, "{bridge}: could not add port {name} ({why})");
    }
}

/// A line of `ofproto/list-tunnels`.
pub fn line(name: &str, config: &TunnelConfig, odp: OdpPort) -> String {
    let m = TunnelMatch::of(config, odp);
    let mut out = format!("port {odp}: {name} ({}: {m}", config.kind.name());
    if config.in_key != config.out_key {
        let key = match config.out_key {
            Some(OrFlow::Fixed(key)) => crate::text::c_hex(key),
            Some(OrFlow::Flow) => "flow".to_owned(),
            None => "none".to_owned(),
        };
        let _ = write!(out, ", out_key={key}");
    }
    if config.ttl_inherit {
        out.push_str(", ttl=inherit");
    } else {
        let _ = write!(out, ", ttl={}", config.ttl);
    }
    if config.tos_inherit {
        out.push_str(", tos=inherit");
    } else if config.tos != 0 {
        let _ = write!(out, ", tos={:#x}", config.tos);
    }
    if !config.dont_fragment {
        out.push_str(", df=false");
    }
    if config.csum {
        out.push_str(", csum=true");
    }
    out.push_str(")\n");
    out
}
