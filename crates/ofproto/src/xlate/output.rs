//! Output: to ports of the datapath, through patch ports, to all ports, to controllers.

use std::sync::Arc;

use ib_dpif::Action as Odp;
use ib_flow::OfPort;
use ib_l2::stp::State;
use ib_openflow::action::Controller;
use ib_openflow::message::{PacketInReason, PortConfig as PortBits};

use ib_tunnel::PacketTypeMode;

use super::cache::CacheEntry;
use super::native::TunnelOutput;
use super::trace::Kind;
use super::{Ctx, clear_ct};
use crate::spanning_tree::is_bpdu;
use crate::xcfg::{XBridge, XPort};

impl Ctx<'_> {
    /// `output:PORT` with all its reserved ports.
    pub fn output_action(&mut self, port: OfPort, max_len: u16, is_last: bool, truncate: bool, bucket: bool) {
        let before = self.exits.begin_output();
        self.output_to(port, max_len, is_last, truncate, bucket);
        self.exits.end_output(before);
    }

    fn output_to(&mut self, port: OfPort, max_len: u16, is_last: bool, truncate: bool, bucket: bool) {
        let in_port = OfPort(self.flow.in_port as u16);
        match port {
            OfPort::IN_PORT => self.output(in_port, is_last, truncate),
            OfPort::TABLE => self.table_action(in_port, 0, true, true, false, false),
            OfPort::NORMAL => self.normal(),
            OfPort::FLOOD => self.flood(false, is_last),
            OfPort::ALL => self.flood(true, is_last),
            OfPort::CONTROLLER => {
                let reason = if self.packet_out {
                    PacketInReason::PacketOut
                } else if bucket {
                    PacketInReason::Group
                } else if self.in_action_set {
                    PacketInReason::ActionSet
                } else {
                    PacketInReason::Action
                };
                self.controller_action(&Controller {
                    max_len,
                    reason: reason as u8,
                    ..Controller::default()
                });
            }
            OfPort::NONE => {}
            _ if port == in_port => self.warn("skipping output to input port"),
            _ => self.output(port, is_last, truncate),
        }
    }

    fn flood(&mut self, all: bool, is_last: bool) {
        let in_port = self.flow.in_port;
        let bridge = Arc::clone(&self.bridge);
        for port in bridge.flood_order.iter().filter_map(|p| bridge.ports.get(p)) {
            let l3 = port.tunnel.as_ref().is_some_and(|t| t.mode == PacketTypeMode::LegacyL3);
            if l3 || u32::from(port.ofport.0) == in_port || (!all && port.config & PortBits::NO_FLOOD != 0) {
                continue;
            }
            self.output(port.ofport, is_last, false);
        }
        self.exits.flooded();
    }

    /// Sends the packet to a port as it is now.
    pub fn output(&mut self, port: OfPort, is_last: bool, truncate: bool) {
        let Some(xport) = self.port(port) else {
            self.warn("Nonexistent output port");
            return;
        };
        if xport.config & PortBits::NO_FWD != 0 {
            self.detail("OFPPC_NO_FWD set, skipping output");
            return;
        }
        if self.mirror_snaplen != 0 && xport.odp.is_none() {
            self.warn("Mirror truncate to ODPP_NONE, skipping output");
            return;
        }
        if self.is_between_protected(&xport) {
            self.warn("Flow is between protected ports, skipping output.");
            return;
        }
        if let Some(stp) = xport.stp {
            if is_bpdu(&self.base) {
                if stp.state == State::Blocking {
                    self.warn("STP not in listening state, skipping bpdu output");
                    return;
                }
            } else if !stp.state.forwards() {
                let kind = if stp.rapid { "RSTP" } else { "STP" };
                self.warn(&format!("{kind} not in forwarding state, skipping output"));
                return;
            }
        }
        let tunnel = xport.tunnel.clone();
        let old_packet_type = self.flow.packet_type;
        if tunnel.as_ref().is_some_and(|t| t.mode == PacketTypeMode::LegacyL3) {
            if self.flow.packet_type.is_zero() {
                let ethertype = u32::from(self.flow.dl_type.get());
                self.flow.packet_type = ib_packet::Be32::new(1 << 16 | ethertype);
            }
        } else if !self.flow.packet_type.is_zero()
            && xport.kind != "patch"
            && tunnel.as_ref().is_none_or(|t| t.mode == PacketTypeMode::LegacyL2)
        {
            self.warn("Trying to send non-Ethernet packet through legacy L2 port. Dropping packet.");
            return;
        }
        if xport.kind == "patch" {
            let peer = self.cfg.patch_peer(&xport).map(|(b, p)| (Arc::clone(b), Arc::clone(p)));
            match peer {
                Some((bridge, peer)) => {
                    if truncate {
                        self.report_error("truncating a packet that goes through a patch port");
                        return;
                    }
                    self.patch_output(&xport, &bridge, &peer, is_last);
                }
                None => self.warn("Nonexistent output port"),
            }
            return;
        }
        let Some(odp) = xport.odp else {
            self.warn("Nonexistent output port");
            return;
        };
        let old = (self.flow.vlans, self.flow.pkt_mark, self.flow.nw_tos);
        if let Some(config) = &tunnel {
            match self.tunnel_output(&xport, config, odp, is_last) {
                TunnelOutput::Done(before) => self.flow.tunnel = *before,
                TunnelOutput::Refused => {
                    self.flow.packet_type = old_packet_type;
                    return;
                }
            }
            self.flow.packet_type = old_packet_type;
        } else {
            self.commit();
            let pop = self.terminate(&xport);
            if pop.is_none() {
                self.sample_egress(odp, false);
            }
            if self.mirror_snaplen != 0 {
                self.out.push(Odp::Trunc(self.mirror_snaplen.into()));
            }
            self.out.push(pop.map_or(Odp::Output(odp), Odp::TnlPop));
        }
        self.exits.left_by(&self.bridge, &xport);
        if !self.bridge.mirrors.is_empty()
            && let Some(bundle) = self.bridge.bundle_of(&xport).cloned()
        {
            self.mirror_packet(&bundle, bundle.dst_mirrors);
        }
        self.flow.vlans = old.0;
        self.flow.nw_tos = old.2;
        if tunnel.is_none() {
            self.flow.pkt_mark = old.1;
        }
    }

    fn is_between_protected(&mut self, out: &XPort) -> bool {
        let bridge = Arc::clone(&self.bridge);
        let Some(out_bundle) = bridge.bundle_of(out) else { return false };
        let Some(in_port) = bridge.ports.get(&OfPort(self.flow.in_port as u16)) else { return false };
        let Some(in_bundle) = bridge.bundle_of(in_port) else { return false };
        in_bundle.protected && out_bundle.protected && in_bundle.id != out_bundle.id
    }

    /// Goes on in the bridge at the other end of a patch port, with metadata of its own, and comes back.
    pub(super) fn patch_output(
        &mut self,
        from: &XPort,
        bridge: &Arc<XBridge>,
        peer: &Arc<XPort>,
        is_last: bool,
    ) {
        let name = bridge.of.name.clone();
        let before = self.enter_trace(Kind::Bridge, || format!("bridge(\"{name}\")"));
        self.cache.push(CacheEntry::PatchTx(Arc::clone(&from.counters)));
        self.cache.push(CacheEntry::PatchRx(Arc::clone(&peer.counters)));
        self.note_traffic(peer);

        let old_flow = self.flow.clone();
        let old_bridge = std::mem::replace(&mut self.bridge, Arc::clone(bridge));
        let old_stack = std::mem::take(&mut self.stack);
        let old_set = std::mem::take(&mut self.action_set);
        let old_mirrors = std::mem::take(&mut self.mirrors);
        let old_conntrack = std::mem::take(&mut self.conntracked);
        let old_mpls = std::mem::take(&mut self.was_mpls);
        let old_rule = self.rule.clone();
        let (old_table, old_cookie) = (self.table, self.rule_cookie);

        self.flow.in_port = peer.ofport.0.into();
        self.flow.metadata = Default::default();
        self.flow.tunnel = ib_flow::Flow::zeroed().tunnel;
        if let Some(table) = bridge.of.tlv() {
            self.flow.tunnel.set_tlv_table(table.id());
        }
        self.flow.regs = Default::default();
        self.flow.actset_output = OfPort::UNSET;
        clear_ct(&mut self.flow);

        if !self.process_special(peer) && peer.may_receive() {
            self.table = 0;
            let before = self.out.len();
            if self.bridge.bundle_of(peer).is_none_or(|b| b.mirror_out == 0) {
                self.mirror_ingress();
                self.table_action(peer.ofport, 0, true, true, false, is_last);
                if !self.freezing {
                    self.do_action_set();
                }
                if self.freezing {
                    self.finish_freezing();
                }
            }
            if !peer.forwards() {
                self.out.truncate(before);
            }
        }

        self.flow = old_flow;
        self.bridge = old_bridge;
        self.stack = old_stack;
        self.action_set = old_set;
        self.mirrors = old_mirrors;
        self.conntracked = old_conntrack;
        self.was_mpls = old_mpls;
        self.rule = old_rule;
        self.table = old_table;
        self.rule_cookie = old_cookie;
        // What ends the other bridge's pipeline, or fails there, does not end this one.
        self.exit = false;
        self.error = None;
        self.leave_trace(before);
    }

    /// `output(port=,max_len=)`.
    pub fn output_trunc(&mut self, port: OfPort, max_len: u32, is_last: bool) {
        let in_port = OfPort(self.flow.in_port as u16);
        let target = match port {
            OfPort::IN_PORT => in_port,
            p => p,
        };
        match target {
            OfPort::TABLE
            | OfPort::NORMAL
            | OfPort::FLOOD
            | OfPort::ALL
            | OfPort::CONTROLLER
            | OfPort::NONE => {
                let name = crate::text::port(target, &self.bridge);
                self.warn(&format!("output_trunc does not support port: {name}"));
            }
            _ if target == in_port && port != OfPort::IN_PORT => self.warn("skipping output to input port"),
            _ if self.port(target).is_none_or(|p| p.odp.is_none()) => {
                self.report_error(&format!("output_trunc does not support patch port {}", target.0));
            }
            _ => {
                self.out.push(Odp::Trunc(max_len));
                if !self.bridge.features.trunc {
                    self.slow |= super::SLOW_ACTION;
                }
                let before = self.out.len();
                self.output(target, is_last, true);
                if self.out.len() == before {
                    // Nothing left: the truncation must not hit a later output.
                    self.out.pop();
                }
            }
        }
    }

    /// Does what is in the action set, in OpenFlow's order.
    pub fn do_action_set(&mut self) {
        let set = std::mem::take(&mut self.action_set);
        self.in_action_set = true;
        let list = super::actions::execution_order(&set);
        if !list.is_empty() {
            let before = self.enter_trace(Kind::Table, || "--. Executing action set:".to_owned());
            let old_exit = std::mem::take(&mut self.exit);
            self.do_actions(&list, true);
            self.exit |= old_exit;
            self.leave_trace(before);
        }
        self.in_action_set = false;
    }
}
