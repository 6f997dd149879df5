//! Tunnels that this switch ends by itself: from an output to a tunnel port to an output of the underlay's bridge.
//!
//! Outwards: the tunnel's configuration fills the key's tunnel fields, a route says by which bridge the outer packet leaves,
//! a neighbour to whom; the headers are built once, go into a `tnl_push`, and translation goes on in the underlay's bridge
//! with the outer packet's key, as through a patch port. What that bridge looks at is no property of the inner packet, so the
//! mask does not grow by it.
//!
//! Inwards: a packet that would leave by a bridge's own port and is one of a tunnel's becomes a `tnl_pop`; the datapath
//! looks it up again as one that came in by the tunnel's port. ARP replies, gratuitous ARP, neighbour advertisements and the outer
//! packets themselves teach on that way who is behind an address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ib_dpif::{Action as Odp, Execute};
use ib_flow::{Flow, Metadata, OdpPort, OfPort};
use ib_openflow::action::Action;
use ib_packet::csum::Sum;
use ib_packet::{Be16, Be32, Be128, Mac, Packet};
use ib_tunnel::build::{Underlay, build};
use ib_tunnel::kind::{IPPROTO_GRE, IPPROTO_ROUTING, IPPROTO_UDP};
use ib_tunnel::{Kind as TunnelKind, TunnelConfig, mapped, unmapped};

use super::cache::CacheEntry;
use super::trace::Kind;
use super::{Ctx, Xin, translate};
use crate::rule::PushStats;
use crate::tunnel;
use crate::xcfg::{XBridge, XPort};

const ETH_IP: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_IPV6: u16 = 0x86dd;

/// How an output to a tunnel port went.
pub(super) enum TunnelOutput {
    /// Nothing left, and the key stays as it is.
    Refused,
    /// The datapath (or a kernel behind it) sends it; the tunnel's fields as they were before.
    Done(Box<ib_flow::Tunnel>),
}

impl Ctx<'_> {
    /// Outputs to a tunnel port.
    pub(super) fn tunnel_output(
        &mut self,
        port: &Arc<XPort>,
        config: &TunnelConfig,
        odp: OdpPort,
        is_last: bool,
    ) -> TunnelOutput {
        let before = Box::new(self.flow.tunnel.clone());
        tunnel::send(config, &mut self.flow, &mut self.wc);
        let (_, dst) = tunnel::addresses(&self.flow.tunnel);
        let (_, came_to) = tunnel::addresses(&self.original.tunnel);
        if dst == came_to {
            // The key keeps what the port would have set, as in the original.
            self.warn("Not tunneling to our own address");
            return TunnelOutput::Refused;
        }
        self.cache.push(CacheEntry::PatchTx(Arc::clone(&port.counters)));
        if self.backer.native_tunnels() {
            self.detail("output to native tunnel");
            self.commit();
            self.native_output(port, config, odp, is_last);
        } else {
            self.detail("output to kernel tunnel");
            self.commit_tunnel();
            self.flow.tunnel = (*before).clone();
            self.commit();
            self.sample_egress(odp, true);
            self.out.push(Odp::Output(odp));
        }
        TunnelOutput::Done(before)
    }

    /// `set(tunnel(...))`, if it differs from what the packet has.
    pub(super) fn commit_tunnel(&mut self) {
        if self.flow.tunnel != self.base.tunnel {
            self.base.tunnel = self.flow.tunnel.clone();
            let mut t = self.flow.tunnel.clone();
            let options = ib_tunnel::build::geneve_options(&t);
            if !options.is_empty() && options.len() <= t.opts.len() {
                t.opts = [0; 256];
                t.opts[..options.len()].copy_from_slice(&options);
                t.opts_present = options.len() as u64;
                t.flags |= ib_flow::TunFlags::UDPIF;
            }
            self.out.push(Odp::Set(ib_dpif::SetField::Tunnel(Box::new(t))));
        }
    }

    fn native_output(&mut self, port: &Arc<XPort>, config: &TunnelConfig, odp: OdpPort, is_last: bool) {
        let world = Arc::clone(&self.backer.world);
        let (src, dst) = tunnel::addresses(&self.flow.tunnel);
        let from = Some(src).filter(|s| !s.is_unspecified());
        let found = world.route(self.flow.pkt_mark, dst, from);
        let way = found.and_then(|found| {
            // The device of a route is a bridge's own port.
            let bridge = self.cfg.bridge_by_name(&found.dev)?;
            Some((found, Arc::clone(bridge), Arc::clone(bridge.ports.get(&OfPort::LOCAL)?)))
        });
        let Some((found, bridge, local)) = way else {
            return self.warn("native tunnel routing failed");
        };
        let Some(out_port) = local.odp else { return self.warn("native tunnel routing failed") };
        let next = if found.gateway.is_unspecified() { dst } else { found.gateway };
        let name = bridge.of.name.clone();
        let hop = unmapped(next);
        self.report(Kind::Detail, || format!("tunneling to {hop} via {name}"));
        let src_mac = local.mac;
        let Some(dst_mac) = world.neighbour(&name, next) else {
            let what = if hop.is_ipv4() { "ARP" } else { "ND" };
            self.report(Kind::Detail, || {
                format!("neighbor cache miss for {hop} on bridge {name}, sending {what} request")
            });
            let asker = world.source_for(&name, next, Ipv6Addr::UNSPECIFIED).unwrap_or(found.src);
            self.solicit(&bridge, &local, asker, next);
            return;
        };
        let underlay = Underlay { dst_mac, src_mac, dst, src: found.src };
        self.report(Kind::Detail, || {
            format!("tunneling from {src_mac} {} to {dst_mac} {hop}", unmapped(found.src))
        });
        let Some(header) = build(config, &self.flow, &underlay) else {
            return self.warn("native tunnel header build failed");
        };
        self.cache.push(CacheEntry::TunnelHeader(header.len() as u64, true));
        let size = header.len() as u64;
        let outer = outer_flow(&self.flow, config, &underlay);
        let old_flow = std::mem::replace(&mut self.flow, outer.clone());
        let old_base = std::mem::replace(&mut self.base, outer);
        let old_wc = std::mem::take(&mut self.wc);
        let start = self.out.len();
        self.out.push(Odp::TnlPush {
            tnl_port: odp,
            out_port,
            tnl_type: if dst.to_ipv4_mapped().is_some() {
                config.kind.vport()
            } else {
                config.kind.vport_over_ipv6()
            },
            header: header.into(),
        });
        self.underlay_depth += 1;
        let exits = self.exits;
        self.patch_output(port, &bridge, &local, is_last);
        self.exits = exits;
        self.underlay_depth -= 1;
        if self.out.len() == start + 1 {
            // The underlay dropped it.
            self.out.truncate(start);
        } else if !is_last {
            let nested: Arc<[Odp]> = self.out.drain(start..).collect();
            self.out.push(Odp::Clone(nested));
        }
        self.cache.push(CacheEntry::TunnelHeader(size, false));
        self.flow = old_flow;
        self.base = old_base;
        self.wc = old_wc;
    }

    /// Whether a packet that leaves by a bridge's own port is a tunnel's, and whose. Learns neighbours.
    pub(super) fn terminate(&mut self, port: &XPort) -> Option<OdpPort> {
        if port.ofport != OfPort::LOCAL || !self.backer.native_tunnels() {
            return None;
        }
        let world = Arc::clone(&self.backer.world);
        if matches!(self.flow.dl_type.get(), ETH_IP | ETH_IPV6)
            && let Some(odp) = world.find_port(&self.flow, &mut self.wc)
        {
            if self.side_effects {
                let from = match self.flow.dl_type.get() {
                    ETH_IP => mapped(IpAddr::V4(self.flow.nw_src.into())),
                    _ => self.flow.ipv6_src.into(),
                };
                world.learn_neighbour(&self.bridge.of.name, from, self.flow.dl_src);
            }
            return Some(odp);
        }
        self.snoop(&world);
        None
    }

    /// Believes answers to the bridge's own addresses, and looks at no more than it takes to know them.
    fn snoop(&mut self, world: &ib_tunnel::World) {
        let name = self.bridge.of.name.clone();
        let to = match self.flow.dl_type.get() {
            ETH_ARP => IpAddr::V4(self.flow.nw_dst.into()),
            ETH_IPV6 => IpAddr::V6(self.flow.ipv6_dst.into()),
            _ => return,
        };
        let Some(ours) = world.is_own(&name, to) else { return };
        let m = &mut self.wc.0;
        let learned = if self.flow.dl_type.get() == ETH_ARP {
            (m.nw_src, m.nw_dst) = (Be32::MAX, Be32::MAX);
            // Who tells everybody of itself asks nobody, and answers nobody.
            let gratuitous = self.flow.nw_src == self.flow.nw_dst;
            if !ours && !gratuitous {
                return;
            }
            m.nw_proto = 0xff;
            if self.flow.nw_proto != 2 && !(gratuitous && self.flow.nw_proto == 1) {
                return;
            }
            m.arp_sha = Mac([0xff; 6]);
            (mapped(IpAddr::V4(self.flow.nw_src.into())), self.flow.arp_sha)
        } else {
            m.nw_proto = 0xff;
            if self.flow.nw_proto != 58 {
                return;
            }
            m.ipv6_dst = Be128::MAX;
            if !ours {
                return;
            }
            (m.tp_src, m.tp_dst) = (Be16::MAX, Be16::MAX);
            if self.flow.tp_src.get() != 136 || !self.flow.tp_dst.is_zero() {
                return;
            }
            m.arp_tha = Mac([0xff; 6]);
            if !self.flow.arp_tha.is_zero() {
                (m.ipv6_src, m.nd_target) = (Be128::MAX, Be128::MAX);
            }
            (Ipv6Addr::from(self.flow.nd_target), self.flow.arp_tha)
        };
        let (ip, mac) = learned;
        if !mac.is_zero() && self.side_effects {
            world.learn_neighbour(&name, ip, mac);
        }
    }

    /// Asks the underlay who has `target`.
    fn solicit(&mut self, bridge: &Arc<XBridge>, local: &Arc<XPort>, asker: Ipv6Addr, target: Ipv6Addr) {
        // A request that would itself need a tunnel asks for ever.
        let acts = self.side_effects || self.trace.is_some();
        if !acts || self.underlay_depth > 0 || self.soliciting {
            return;
        }
        let Some(odp) = local.odp else { return };
        let frame = match (asker.to_ipv4_mapped(), target.to_ipv4_mapped()) {
            (Some(a), Some(t)) => arp_request(local.mac, a.octets(), t.octets()),
            _ => neighbour_solicitation(local.mac, asker, target),
        };
        let packet = Packet::from_frame(&frame);
        let md = Metadata { in_port: odp, ..Metadata::default() };
        let mut flow = Flow::zeroed();
        ib_flow::extract(&packet, &md, &mut flow);
        flow.in_port = OfPort::LOCAL.0.into();
        flow.actset_output = OfPort::UNSET;
        let actions = [Action::Output { port: OfPort::TABLE, max_len: 0 }];
        let mut xin = Xin::new(bridge, &flow);
        xin.packet = Some(&packet);
        xin.actions = Some(&actions);
        xin.packet_out = true;
        xin.side_effects = true;
        xin.soliciting = true;
        let xout = translate(self.backer, xin);
        let now = self.backer.clock.now();
        let stats = PushStats { packets: 1, bytes: packet.len() as u64, used_ms: now.as_ms(), tcp_flags: 0 };
        super::push(&xout.cache, &stats, false);
        if xout.error.is_none() && !xout.actions.is_empty() {
            // A request that can't be sent is lost, as on any link; the next packet asks again.
            let _ =
                self.backer.dpif.execute(Execute { packet, md: &md, actions: &xout.actions, probe: false });
        }
    }
}

/// The key of the outer packet.
fn outer_flow(inner: &Flow, config: &TunnelConfig, u: &Underlay) -> Flow {
    let mut f = Flow::zeroed();
    let t = &inner.tunnel;
    f.in_port = OfPort::LOCAL.0.into();
    f.actset_output = OfPort::UNSET;
    (f.skb_priority, f.pkt_mark) = (inner.skb_priority, inner.pkt_mark);
    (f.dl_src, f.dl_dst) = (u.src_mac, u.dst_mac);
    match (u.src.to_ipv4_mapped(), u.dst.to_ipv4_mapped()) {
        (Some(src), Some(dst)) => {
            f.dl_type = Be16::new(ETH_IP);
            (f.nw_src, f.nw_dst) = (src.into(), dst.into());
        }
        _ => {
            f.dl_type = Be16::new(ETH_IPV6);
            (f.ipv6_src, f.ipv6_dst) = (u.src.into(), u.dst.into());
        }
    }
    (f.nw_tos, f.nw_ttl) = (t.ip_tos, t.ip_ttl);
    f.nw_proto = match config.kind {
        TunnelKind::Srv6 => IPPROTO_ROUTING,
        kind if kind.is_gre_family() => IPPROTO_GRE,
        _ => IPPROTO_UDP,
    };
    if f.nw_proto == IPPROTO_UDP {
        f.tp_dst = Be16::new(config.dst_port);
    }
    f
}

fn arp_request(mac: Mac, asker: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend_from_slice(&mac.0);
    f.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    f.extend_from_slice(&mac.0);
    f.extend_from_slice(&asker);
    f.extend_from_slice(&[0; 6]);
    f.extend_from_slice(&target);
    f
}

/// RFC 4861, section 4.3, to the solicited-node group.
fn neighbour_solicitation(mac: Mac, asker: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&t[13..]);
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&t);
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&mac.0);
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let sum = Sum::ZERO.bytes(&asker.octets()).bytes(&group).bytes(&len).bytes(&[0, 58]).bytes(&body);
    body[2..4].copy_from_slice(&sum.checksum().to_bytes());
    let mut f = vec![0x33, 0x33, 0xff, t[13], t[14], t[15]];
    f.extend_from_slice(&mac.0);
    f.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, len[0], len[1], 58, 255]);
    f.extend_from_slice(&asker.octets());
    f.extend_from_slice(&group);
    f.extend_from_slice(&body);
    f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_well_formed() {
        let mac: Mac = "aa:55:aa:55:00:00".parse().unwrap();
        let (asker, target) = ("2001:cafe::88".parse().unwrap(), "2001:cafe::1".parse().unwrap());
        let frame = neighbour_solicitation(mac, asker, target);
        let mut flow = Flow::zeroed();
        ib_flow::extract(&Packet::from_frame(&frame), &Metadata::default(), &mut flow);
        assert_eq!((flow.tp_src.get(), Ipv6Addr::from(flow.nd_target), flow.arp_sha), (135, target, mac));
        assert_eq!(Ipv6Addr::from(flow.ipv6_dst).to_string(), "ff02::1:ff00:1");
        let frame = arp_request(mac, [1, 1, 2, 88], [1, 1, 2, 92]);
        ib_flow::extract(&Packet::from_frame(&frame), &Metadata::default(), &mut flow);
        assert_eq!((flow.nw_proto, flow.nw_dst.get()), (1, 0x0101_025c));
    }
}
