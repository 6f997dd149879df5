//! Ordinary switching: the NORMAL action, VLANs of ports, mirrors.
//!
//! A packet's tags on the wire and its VLAN inside of the bridge differ by the port's mode: an access port
//! gives untagged packets its VLAN, a trunk takes tags as they are, and so on. [`XVlan`] is the inside form.

use std::sync::Arc;

use ib_dpif::{Action as Odp, HashAlg};
use ib_flow::key::N_VLANS;
use ib_flow::{Flow, OfPort, Vlan};
use ib_l2::bond::{Route, Verdict};
use ib_openflow::message::PortConfig as PortBits;
use ib_packet::{Be16, Be32, Mac};

use super::cache::CacheEntry;
use super::{Ctx, SLOW_BFD, SLOW_CFM, SLOW_LACP, SLOW_LLDP, SLOW_STP};
use crate::config::{PriorityTags, VlanMode};
use crate::monitor::{Claim, Monitor};
use crate::ofproto::Seen;
use crate::spanning_tree::{is_bpdu, receive};
use crate::xcfg::{XBundle, XPort, has_vlan};

/// Tags as numbers, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XVlan([Tag; N_VLANS]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag {
    tpid: u16,
    vid: u16,
    /// Priority bits in place.
    pcp: u16,
}

impl XVlan {
    fn of_packet(flow: &Flow) -> XVlan {
        let mut x = XVlan::default();
        for (t, v) in x.0.iter_mut().zip(&flow.vlans) {
            if !v.is_present() {
                break;
            }
            *t = Tag { tpid: v.tpid.get(), vid: v.vid(), pcp: v.tci.get() & Vlan::PCP_MASK };
        }
        x
    }
    pub(super) fn vid(&self) -> u16 {
        self.0[0].vid
    }
    fn push(&mut self, tag: Tag) {
        self.0.copy_within(..N_VLANS - 1, 1);
        self.0[0] = tag;
    }
    fn pop(&mut self) {
        self.0.copy_within(1.., 0);
        self.0[N_VLANS - 1] = Tag::default();
    }
    /// From the wire to the inside.
    fn enter(self, bundle: &XBundle) -> XVlan {
        let own = bundle.vlan.unwrap_or(0);
        let tpid = if self.0[0].tpid == 0 { 0x8100 } else { self.0[0].tpid };
        let native = Tag { tpid, vid: own, pcp: self.0[0].pcp };
        let mut x = self;
        match bundle.vlan_mode {
            VlanMode::Access => {
                x = XVlan::default();
                x.0[0] = native;
            }
            VlanMode::Trunk => {}
            VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                if self.vid() == 0 {
                    x.0[0] = native;
                }
            }
            VlanMode::Dot1qTunnel => x.push(Tag { tpid: bundle.qinq_ethtype, vid: own, pcp: 0 }),
        }
        x
    }
    /// From the inside to the wire.
    fn leave(self, bundle: &XBundle) -> XVlan {
        let mut x = self;
        match bundle.vlan_mode {
            VlanMode::Access => x = XVlan::default(),
            VlanMode::Trunk | VlanMode::NativeTagged => {}
            VlanMode::NativeUntagged => {
                if Some(self.vid()) == bundle.vlan {
                    x.pop();
                }
            }
            VlanMode::Dot1qTunnel => x.pop(),
        }
        x
    }
    /// Writes the tags into a key.
    fn put(&self, flow: &mut Flow, priority: PriorityTags) {
        for (i, (t, v)) in self.0.iter().zip(&mut flow.vlans).enumerate() {
            // A header that was there stays on ports that want it; none is made.
            let stays = i == 0 && priority == PriorityTags::Always && t.tpid != 0;
            *v = if t.vid != 0 || t.pcp != 0 || stays {
                let tpid = if t.tpid == 0 { 0x8100 } else { t.tpid };
                Vlan { tpid: Be16::new(tpid), tci: Be16::new(t.vid | t.pcp | Vlan::CFI) }
            } else {
                Vlan::default()
            };
        }
    }
}

impl Ctx<'_> {
    /// Protocols that the switch itself takes part in: true if the packet was one of theirs.
    pub fn process_special(&mut self, port: &XPort) -> bool {
        // The packet, unless this is only about what would happen.
        let packet = self.packet.filter(|_| self.side_effects);
        if let Some(monitor) = &port.monitor
            && let Some(claim) = monitor.claims(&self.flow, &mut self.wc)
        {
            self.slow |= if claim == Claim::Cfm { SLOW_CFM } else { SLOW_BFD };
            self.hand_to_monitor(monitor, claim, port);
            return true;
        }
        if self.flow.dl_type.get() == ib_l2::lacp::ETHERTYPE
            && let Some(bundle) = self.bridge.bundle_of(port).filter(|b| b.lacp.is_some())
        {
            self.slow |= SLOW_LACP;
            if let Some(packet) = packet {
                crate::lacp::receive(&self.bridge.of, bundle, port.ofport, packet);
            }
            return true;
        }
        if self.bridge.has_stp {
            self.wc.0.dl_dst = Mac::BROADCAST;
            if is_bpdu(&self.flow) {
                self.slow |= SLOW_STP;
                if let (Some(stp), Some(packet)) = (port.stp, packet) {
                    if stp.rapid {
                        crate::rstp::receive(&self.bridge.of, port.ofport, packet);
                    } else {
                        receive(&self.bridge.of, stp.number, packet);
                    }
                }
                return true;
            }
        }
        if let Some(monitor) = port.monitor.as_ref().filter(|m| m.claims_lldp(&self.flow)) {
            self.slow |= SLOW_LLDP;
            self.hand_to_monitor(monitor, Claim::Lldp, port);
            return true;
        }
        false
    }

    fn hand_to_monitor(&self, monitor: &Monitor, claim: Claim, port: &XPort) {
        let of = &self.bridge.of;
        if let Some(packet) = self.packet.filter(|_| self.side_effects) {
            monitor.receive(claim, &self.flow, packet, of.clock.now());
            of.monitor_news(port.ofport);
        }
    }

    /// Remembers that the packets of this flow are a sign of life of the port that they come in by.
    pub(super) fn note_traffic(&mut self, port: &XPort) {
        if let Some(monitor) = port.monitor.as_ref().filter(|m| m.wants_traffic()) {
            let of = Arc::clone(&self.bridge.of);
            self.cache.push(CacheEntry::Traffic(of, port.ofport, Arc::clone(monitor)));
        }
    }

    /// The port that the packet came by and its bundle. That there is none is an error which is told.
    fn input_bundle(&mut self) -> Option<(Option<Arc<XPort>>, Arc<XBundle>)> {
        let in_port = OfPort(self.flow.in_port as u16);
        if let Some(port) = self.bridge.ports.get(&in_port)
            && let Some(bundle) = self.bridge.bundle_of(port)
        {
            return Some((Some(Arc::clone(port)), Arc::clone(bundle)));
        }
        // A controller may send packets that came by no port.
        if in_port == OfPort::CONTROLLER || in_port == OfPort::NONE {
            return Some((None, Arc::new(none_bundle())));
        }
        self.report_error(&format!("received packet on unknown port {in_port}"));
        None
    }

    fn is_vid_allowed(&mut self, vid: u16, bundle: &XBundle) -> bool {
        let name = &bundle.name;
        match bundle.vlan_mode {
            VlanMode::Access if vid != 0 => {
                let own = bundle.vlan.unwrap_or(0);
                self.report_error(&format!(
                    "dropping VLAN {vid} tagged packet received on port {name} configured as VLAN {own} access \
                     port"
                ));
                false
            }
            VlanMode::Access => true,
            VlanMode::NativeTagged | VlanMode::NativeUntagged if vid == 0 => true,
            VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                if bundle.trunks_vlan(vid) {
                    return true;
                }
                self.report_error(&format!(
                    "dropping VLAN {vid} packet received on port {name} not configured for trunking VLAN {vid}"
                ));
                false
            }
            VlanMode::Dot1qTunnel => {
                if has_vlan(bundle.cvlans.as_deref(), vid) {
                    return true;
                }
                self.report_error(&format!(
                    "dropping VLAN {vid} packet received on dot1q-tunnel port {name} that excludes this VLAN"
                ));
                false
            }
        }
    }

    /// The NORMAL action.
    pub fn normal(&mut self) {
        let m = &mut self.wc.0;
        m.dl_src = Mac::BROADCAST;
        m.dl_dst = Mac::BROADCAST;
        m.vlans[0].tci |= Be16::new(Vlan::VID_MASK | Vlan::CFI);
        let Some((in_port, in_bundle)) = self.input_bundle() else {
            self.warn("no input bundle, dropping");
            return;
        };
        if self.flow.dl_type.get() == 0x8100 && !self.flow.vlans[0].is_present() {
            if self.packet.is_some() {
                let name = &in_bundle.name;
                self.report_error(&format!("dropping packet with partial VLAN tag received on port {name}"));
            }
            self.detail("partial VLAN tag, dropping");
            return;
        }
        if in_bundle.mirror_out != 0 {
            let name = &in_bundle.name;
            self.report_error(&format!(
                "dropping packet received on port {name}, which is reserved exclusively for mirroring"
            ));
            self.warn("input port is mirror output port, dropping");
            return;
        }
        let on_wire = XVlan::of_packet(&self.flow);
        if !self.is_vid_allowed(on_wire.vid(), &in_bundle) {
            self.warn("disallowed VLAN VID for this input port, dropping");
            return;
        }
        let vlan = on_wire.enter(&in_bundle);
        if in_port.is_some() && !self.bridge.forward_bpdu && self.flow.dl_dst.is_reserved() {
            self.detail("packet has reserved destination MAC, dropping");
            return;
        }
        if let (Some(port), Some(bond)) = (in_port.as_ref(), &in_bundle.bond) {
            let verdict = bond.lock().admit(port.ofport, self.flow.dl_dst.is_multicast());
            match verdict {
                Verdict::Accept => {}
                Verdict::Drop => {
                    self.detail("bonding refused admissibility, dropping");
                    return;
                }
                Verdict::DropIfMoved => {
                    let learned = self.bridge.of.ml.read().lookup(self.flow.dl_src, vlan.vid());
                    if learned.is_some_and(|id| id != in_bundle.id) && !self.is_gratuitous_arp() {
                        self.cache.push(CacheEntry::Address(self.bridge.of.id, self.flow.dl_src));
                        self.detail("SLB bond thinks this packet looped back, dropping");
                        return;
                    }
                }
            }
        }
        let grat_arp = self.is_gratuitous_arp();
        let (mac, bundle, is_bond) = (self.flow.dl_src, in_bundle.id, in_bundle.bond.is_some());
        if in_port.is_some() {
            let of = Arc::clone(&self.bridge.of);
            let seen = Seen { mac, vlan: vlan.vid(), bundle, grat_arp, is_bond };
            if self.side_effects && self.flow.packet_type.is_zero() && of.learn(&seen) {
                let (name, vid) = (&in_bundle.name, vlan.vid());
                self.debug(|| format!("learned that {mac} is on port {name} in VLAN {vid}"));
            }
            self.cache.push(CacheEntry::Normal(of, seen, self.flow.dl_dst));
        }
        if self.mcast_normal(&in_bundle, &vlan) {
            return;
        }
        let learned = self.bridge.of.ml.read().lookup(self.flow.dl_dst, vlan.vid());
        match learned {
            Some(id) if id == in_bundle.id => self.detail("learned port is input port, dropping"),
            Some(id) => match self.bridge.bundles.get(&id).cloned() {
                Some(out) => {
                    self.detail("forwarding to learned port");
                    self.output_bundle(&out, &vlan);
                }
                None => self.warn("learned port is unknown, dropping"),
            },
            None => {
                self.detail("no learned MAC for destination, flooding");
                self.flood_vlan(&in_bundle, &vlan);
            }
        }
    }

    /// To all bundles that carry the VLAN.
    pub(super) fn flood_vlan(&mut self, in_bundle: &XBundle, vlan: &XVlan) {
        let bundles: Vec<Arc<XBundle>> = self.bridge.bundles.values().cloned().collect();
        for out in bundles {
            if out.id != in_bundle.id
                && out.includes_vlan(vlan.vid(), vlan.0[1].vid)
                && out.floodable
                && out.mirror_out == 0
            {
                self.output_bundle(&out, vlan);
            }
        }
        self.exits.flooded();
    }

    fn is_gratuitous_arp(&mut self) -> bool {
        if self.flow.dl_type.get() != 0x0806 {
            return false;
        }
        self.wc.0.dl_dst = Mac::BROADCAST;
        if !self.flow.dl_dst.is_broadcast() {
            return false;
        }
        self.wc.0.nw_proto = 0xff;
        match self.flow.nw_proto {
            2 => true,
            1 => {
                self.wc.0.nw_src = Be32::MAX;
                self.wc.0.nw_dst = Be32::MAX;
                self.flow.nw_src == self.flow.nw_dst
            }
            _ => false,
        }
    }

    /// Sends a packet of a VLAN to a bundle, tagged as that wants it.
    pub(super) fn output_bundle(&mut self, out: &XBundle, vlan: &XVlan) {
        let mut on_wire = vlan.leave(out);
        if out.priority_tags != PriorityTags::No {
            on_wire.0[0].pcp = vlan.0[0].pcp;
        }
        let route = match &out.bond {
            None => out.ports.first().map_or(Route::Nowhere, |port| Route::Member(*port)),
            Some(bond) => {
                let mut machine = bond.lock();
                // The mask has source and VLAN: NORMAL looks at them.
                let hash = ib_flow::hash::bond(self.flow.dl_src, vlan.vid(), machine.basis());
                let (route, balances) = (machine.choose(hash), machine.balances());
                drop(machine);
                if balances && route != Route::Nowhere {
                    self.cache.push(CacheEntry::Bond(Arc::clone(bond), hash));
                }
                route
            }
        };
        let old = self.flow.vlans;
        on_wire.put(&mut self.flow, out.priority_tags);
        match route {
            Route::Member(port) => self.output(port, false, false),
            Route::Hash { id, basis, lb_output } => self.output_by_hash(out, id, basis, lb_output),
            Route::Nowhere => {}
        }
        self.flow.vlans = old;
    }

    /// Sends a packet to a bond whose member depends on the datapath's hash: the internal table knows it.
    fn output_by_hash(&mut self, out: &XBundle, id: u32, basis: u32, lb_output: bool) {
        let Some(port) = out.ports.iter().find_map(|p| self.port(*p)) else { return };
        if port.config & PortBits::NO_FWD != 0 {
            self.detail("OFPPC_NO_FWD set, skipping output");
            return;
        }
        let marks = (self.flow.pkt_mark, self.flow.nw_tos);
        self.commit();
        if self.mirror_snaplen != 0 {
            self.out.push(Odp::Trunc(self.mirror_snaplen.into()));
        }
        if lb_output && self.backer.dpif.has_bonds() {
            self.out.push(Odp::LbOutput(id));
        } else {
            self.out.push(Odp::Hash { alg: HashAlg::L4, basis });
            self.out.push(Odp::Recirc(id));
        }
        if !self.bridge.mirrors.is_empty() {
            self.mirror_packet(out, out.dst_mirrors);
        }
        (self.flow.pkt_mark, self.flow.nw_tos) = marks;
    }

    /// Mirrors that copy what comes in by the port of entry.
    pub fn mirror_ingress(&mut self) {
        if self.bridge.mirrors.is_empty() {
            return;
        }
        if let Some((_, bundle)) = self.input_bundle() {
            self.mirror_packet(&bundle, bundle.src_mirrors);
        }
    }

    /// Copies the packet to those of `mirrors` that did not get it yet. `bundle` is where it comes from or
    /// goes to.
    pub fn mirror_packet(&mut self, bundle: &XBundle, mirrors: u32) {
        let mut todo = mirrors & !self.mirrors;
        if todo == 0 {
            return;
        }
        let on_wire = XVlan::of_packet(&self.flow);
        if !self.is_vid_allowed(on_wire.vid(), bundle) {
            return;
        }
        let vlan = on_wire.enter(bundle);
        while todo != 0 {
            let n = todo.trailing_zeros();
            todo &= todo - 1;
            let Some(mirror) = self.bridge.mirrors.get(n as usize).cloned() else { continue };
            if let Some(vlans) = &mirror.vlans {
                self.wc.0.vlans[0].tci |= Be16::new(Vlan::CFI | Vlan::VID_MASK);
                if !has_vlan(Some(vlans), vlan.vid()) {
                    continue;
                }
            }
            if let Some(filter) = &mirror.filter {
                self.wc.union(&filter.mask);
                if !filter.mask.equal(&self.flow, &filter.flow) {
                    continue;
                }
            }
            self.cache.push(CacheEntry::Mirror(Arc::clone(&mirror.counters)));
            // Before the output, which may mirror again.
            self.mirrors |= mirror.dup_mirrors;
            self.mirror_snaplen = mirror.snaplen;
            if let Some(out) = mirror.out.and_then(|id| self.bridge.bundles.get(&id).cloned()) {
                self.output_bundle(&out, &vlan);
            } else if let Some(out_vlan) = mirror.out_vlan
                && vlan.vid() != out_vlan
                && !self.flow.dl_dst.is_reserved()
            {
                let mut there = vlan;
                there.0[0].vid = out_vlan;
                let bundles: Vec<Arc<XBundle>> = self.bridge.bundles.values().cloned().collect();
                for b in bundles {
                    if b.includes_vlan(out_vlan, vlan.0[1].vid) && b.mirror_out == 0 {
                        self.output_bundle(&b, &there);
                    }
                }
            }
            todo &= !self.mirrors;
            self.mirror_snaplen = 0;
        }
    }
}

/// Where packets of a controller come from.
fn none_bundle() -> XBundle {
    XBundle {
        id: 0,
        name: "OFPP_NONE".into(),
        ports: Vec::new(),
        vlan_mode: VlanMode::Trunk,
        vlan: None,
        trunks: None,
        cvlans: None,
        qinq_ethtype: 0,
        priority_tags: PriorityTags::No,
        protected: false,
        floodable: false,
        bond: None,
        lacp: None,
        src_mirrors: 0,
        dst_mirrors: 0,
        mirror_out: 0,
    }
}
