//! Translation: from a packet's key and the bridges' tables to datapath actions and a mask.
//!
//! [`translate`] is the one function, for packets that missed, for revalidation, for packet-outs and for
//! `ofproto/trace`, which hands in a [`Trace`]. It reads one snapshot of the configuration and one version
//! of each bridge's tables. Its results are in [`Xout`]: datapath actions, the mask of bits that decided,
//! where to count packets ([`CacheEntry`]) and what else the flow depends on.
//!
//! `actions` does the action list, `normal` ordinary switching, VLANs and mirrors, `freeze` recirculation
//! and conntrack, `group` groups and hashing, `commit` turns key changes into datapath actions.
//!
//! Side effects (learning addresses and flows, packet-ins) happen only if [`Xin::side_effects`]; counters are
//! never touched here: [`push`] adds a packet's counters to what a translation touched.

mod actions;
pub mod cache;
pub mod commit;
mod encap;
mod freeze;
mod group;
mod in_band;
mod learn;
mod mcast;
mod native;
mod normal;
mod output;
mod sample;
#[cfg(test)]
mod tests;
pub mod trace;

use std::sync::Arc;

use ib_dpif::Action as Odp;
use ib_flow::fields::FieldValue;
use ib_flow::{Flow, Mask, OfPort, Vlan};
use ib_openflow::action::{Action, Controller, Nat};
use ib_openflow::message::{FragHandling, PortConfig as PortBits, TableMiss};
use ib_packet::{Be16, Be32, Packet};

pub use cache::{CacheEntry, push};
pub use commit::{SLOW_ACTION, SLOW_BFD, SLOW_CFM, SLOW_LACP, SLOW_LLDP, SLOW_STP};

use crate::backer::Backer;
use crate::change::Lookup;
use crate::ofproto::{INTERNAL_TABLE, N_TABLES};
use crate::recirc::{FrozenState, RecircEntry};
use crate::rule::Rule;
use crate::xcfg::{Quick, XBridge, XPort, XlateConfig};
use trace::{Kind, Trace};

/// Deepest nesting of resubmits.
pub const MAX_DEPTH: u32 = 64;
/// Most resubmits in all.
pub const MAX_RESUBMITS: u32 = MAX_DEPTH * MAX_DEPTH;

/// Why a translation failed; the packet is dropped. Numbers are those of explicit drop actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum XlateError {
    /// The port of entry belongs to no bridge.
    BridgeNotFound = 1,
    /// More nested resubmits than [`MAX_DEPTH`].
    RecursionTooDeep,
    /// More resubmits than [`MAX_RESUBMITS`].
    TooManyResubmits,
    /// The stack grew past 64 kB.
    StackTooDeep,
    /// The recirculation id is unknown.
    NoRecirculationContext,
    /// Frozen state does not fit any more.
    RecirculationConflict,
    /// More MPLS labels than the datapath can push.
    TooManyMplsLabels,
    /// Tunnel options make no sense.
    InvalidTunnelMetadata,
    /// Packet type that a port or action can't take.
    UnsupportedPacketType,
    /// ECN says drop.
    CongestionDrop,
    /// Spanning tree keeps the port closed.
    ForwardingDisabled,
    /// A VLAN tag too many.
    MaxVlans,
}

impl XlateError {
    /// As `ofproto/trace` puts it.
    pub fn text(self) -> &'static str {
        match self {
            XlateError::BridgeNotFound => "Bridge not found",
            XlateError::RecursionTooDeep => "Recursion too deep",
            XlateError::TooManyResubmits => "Too many resubmits",
            XlateError::StackTooDeep => "Stack too deep",
            XlateError::NoRecirculationContext => "No recirculation context",
            XlateError::RecirculationConflict => "Recirculation conflict",
            XlateError::TooManyMplsLabels => "Too many MPLS labels",
            XlateError::InvalidTunnelMetadata => "Invalid tunnel metadata",
            XlateError::UnsupportedPacketType => "Unsupported packet type",
            XlateError::CongestionDrop => "ECN mismatch at tunnel decapsulation",
            XlateError::ForwardingDisabled => "Forwarding disabled (STP/RSTP)",
            XlateError::MaxVlans => "VLAN header limit reached",
        }
    }
}

/// What to translate.
pub struct Xin<'a> {
    /// The bridge where the packet is.
    pub bridge: Arc<XBridge>,
    /// Key, `in_port` an OpenFlow port of `bridge`.
    pub flow: Flow,
    /// The packet, if there is one.
    pub packet: Option<&'a Packet>,
    /// Do these (packet-out) instead of looking tables up.
    pub actions: Option<&'a [Action]>,
    /// Resume this.
    pub frozen: Option<Arc<RecircEntry>>,
    /// Learn, send packet-ins.
    pub side_effects: bool,
    /// The actions are a packet-out's.
    pub packet_out: bool,
    /// It asks for a neighbour: no further requests come of it.
    pub soliciting: bool,
    /// Records what happens.
    pub trace: Option<&'a mut Trace>,
    /// Table versions to use instead of the current ones, by `Ofproto::id`.
    pub versions: Quick<u32, u64>,
}

impl<'a> Xin<'a> {
    /// A translation of a packet's key.
    pub fn new(bridge: &Arc<XBridge>, flow: &Flow) -> Xin<'a> {
        let mut flow = flow.clone();
        if let Some(table) = bridge.of.tlv() {
            flow.tunnel.set_tlv_table(table.id());
        }
        Xin {
            bridge: Arc::clone(bridge),
            flow,
            packet: None,
            actions: None,
            frozen: None,
            side_effects: false,
            packet_out: false,
            soliciting: false,
            trace: None,
            versions: Quick::default(),
        }
    }
}

/// What came of it.
pub struct Xout {
    /// Datapath actions.
    pub actions: Vec<Odp>,
    /// Bits that decided.
    pub wc: Mask,
    /// Key at the end, as `Final flow` shows it.
    pub flow: Flow,
    /// Reasons for the slow path.
    pub slow: u32,
    /// Why the packet was dropped, if by failure.
    pub error: Option<XlateError>,
    /// What to count, in order.
    pub cache: Vec<CacheEntry>,
    /// Recirculation ids that the actions use.
    pub recircs: Vec<Arc<RecircEntry>>,
}

pub(crate) struct Ctx<'a> {
    pub backer: &'a Backer,
    pub cfg: Arc<XlateConfig>,
    pub bridge: Arc<XBridge>,
    pub packet: Option<&'a Packet>,
    pub trace: Option<&'a mut Trace>,
    pub side_effects: bool,
    pub packet_out: bool,
    pub soliciting: bool,
    /// Tunnels around the current packet.
    pub underlay_depth: u32,
    versions: Quick<u32, u64>,

    /// The key when translation began.
    pub original: Flow,
    /// The key as actions have changed it.
    pub flow: Flow,
    /// The key as the datapath's packet has it.
    pub base: Flow,
    pub wc: Mask,
    pub orig_skb_priority: u32,
    pub frozen: Option<Arc<RecircEntry>>,

    pub out: Vec<Odp>,
    pub slow: u32,
    pub error: Option<XlateError>,
    pub cache: Vec<CacheEntry>,
    pub recircs: Vec<Arc<RecircEntry>>,

    pub stack: Vec<(FieldValue, u32)>,
    pub stack_bytes: usize,
    pub action_set: Vec<Action>,
    pub table: u8,
    pub rule: Option<Arc<Rule>>,
    pub rule_cookie: u64,
    pub depth: u32,
    pub resubmits: u32,
    pub exit: bool,
    pub in_action_set: bool,
    pub pending: encap::Pending,
    pub was_mpls: bool,
    pub conntracked: bool,
    pub nat: Option<Nat>,
    pub freezing: bool,
    pub frozen_actions: Vec<Action>,
    pub hash_before_recirc: Option<(ib_dpif::HashAlg, u32)>,
    pub pause: Option<Controller>,
    pub mirrors: u32,
    pub mirror_snaplen: u16,
    /// The bridge where translation began.
    pub entry_bridge: Arc<XBridge>,
    /// Where the packet left so far, for collectors.
    pub exits: sample::Exits,
}

/// Translates. See the module's description.
pub fn translate(backer: &Backer, xin: Xin<'_>) -> Xout {
    ib_base::coverage::xlate_actions.inc();
    let cfg = backer.xcfg.load();
    let tracked = xin.flow.ct_state != 0;
    let mut ctx = Ctx {
        backer,
        cfg,
        packet: xin.packet,
        trace: xin.trace,
        side_effects: xin.side_effects,
        packet_out: xin.packet_out,
        soliciting: xin.soliciting,
        underlay_depth: 0,
        versions: xin.versions,
        original: xin.flow.clone(),
        base: xin.flow.clone(),
        orig_skb_priority: xin.flow.skb_priority,
        flow: xin.flow,
        wc: Mask::default(),
        frozen: xin.frozen,
        out: Vec::new(),
        slow: 0,
        error: None,
        cache: Vec::new(),
        recircs: Vec::new(),
        stack: Vec::new(),
        stack_bytes: 0,
        action_set: Vec::new(),
        table: 0,
        rule: None,
        rule_cookie: u64::MAX,
        depth: 0,
        resubmits: 0,
        exit: false,
        in_action_set: false,
        pending: encap::Pending::default(),
        was_mpls: false,
        conntracked: tracked,
        nat: None,
        freezing: false,
        frozen_actions: Vec::new(),
        hash_before_recirc: None,
        pause: None,
        mirrors: 0,
        mirror_snaplen: 0,
        exits: sample::Exits::default(),
        entry_bridge: Arc::clone(&xin.bridge),
        bridge: xin.bridge,
    };
    ctx.run(xin.actions);
    ctx.finish()
}

/// IP of either version, in a frame or without one.
pub(crate) fn is_ip_any(flow: &Flow) -> bool {
    matches!(ib_flow::fields::effective_dl_type(flow), 0x0800 | 0x86dd)
}

impl Ctx<'_> {
    /// Reports to the trace; `text` runs only if there is one.
    pub fn report(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.report(kind, text());
        }
    }
    pub fn detail(&mut self, text: &str) {
        self.report(Kind::Detail, || text.to_owned());
    }
    pub fn warn(&mut self, text: &str) {
        self.report(Kind::Warn, || text.to_owned());
    }
    /// An error of the pipeline: into the trace, or else into the log. Revalidation, which has no packet, does not
    /// repeat it there.
    pub fn report_error(&mut self, text: &str) {
        match self.trace.as_deref_mut() {
            Some(t) => {
                t.report(Kind::Error, text.to_owned());
            }
            None if self.packet.is_none() => {}
            None => {
                let flow = crate::text::flow(&self.base, &self.bridge);
                let name = &self.bridge.of.name;
                ib_base::vlog_warn_rl!(
                    ib_base::vlog::module::OFPROTO_DPIF_XLATE,
                    (1, 5),
                    "{text} on bridge {name} while processing {flow}"
                );
            }
        }
    }

    /// An error that a trace does not show.
    pub fn log_error(&mut self, text: &str) {
        if self.trace.is_none() {
            self.report_error(text);
        }
    }

    /// The version of the current bridge's tables that this translation reads.
    pub fn version(&mut self) -> u64 {
        let of = &self.bridge.of;
        *self.versions.entry(of.id).or_insert_with(|| of.current_version())
    }
    pub fn port(&self, port: OfPort) -> Option<Arc<XPort>> {
        self.bridge.ports.get(&port).cloned()
    }

    fn init_wc(&mut self) {
        let m = &mut self.wc.0;
        m.packet_type = Be32::MAX;
        m.in_port = u32::MAX;
        m.dl_type = Be16::MAX;
        if is_ip_any(&self.flow) {
            m.nw_frag = Flow::FRAG_ANY | Flow::FRAG_LATER;
        }
        if self.bridge.features.recirc {
            m.recirc_id = u32::MAX;
        }
        if self.bridge.export.netflow {
            sample::tell_flows_apart(&self.flow, m);
        }
        m.tunnel.pad = self.flow.tunnel.pad;
        if self.flow.tunnel.is_set() {
            let t = &mut m.tunnel;
            t.tun_id = ib_packet::Be64::MAX;
            if self.flow.tunnel.ip_dst.is_zero() {
                t.ipv6_src = ib_packet::Be128::MAX;
                t.ipv6_dst = ib_packet::Be128::MAX;
            } else {
                t.ip_src = Be32::MAX;
                t.ip_dst = Be32::MAX;
            }
            t.flags = ib_flow::TunFlags::DF | ib_flow::TunFlags::CSUM | ib_flow::TunFlags::KEY;
            t.ip_tos = 0xff;
            t.ip_ttl = 0;
            if is_ip_any(&self.flow) && self.flow.tunnel.ip_tos & 3 == 3 {
                m.nw_tos |= 3;
            }
        }
    }

    fn finish_wc(&mut self) {
        let o = &self.original;
        let m = &mut self.wc.0;
        // What only translation knows is no part of a datapath key.
        m.metadata = Default::default();
        m.regs = Default::default();
        m.actset_output = Default::default();
        m.conj_id = 0;
        if !o.tunnel.is_set() {
            m.tunnel = Flow::zeroed().tunnel;
        }
        if !o.packet_type.is_zero() {
            m.dl_src = Default::default();
            m.dl_dst = Default::default();
        }
        // Of what the packet has become; as the original.
        if matches!((self.flow.dl_type.get(), self.flow.nw_proto), (0x0800, 1) | (0x86dd, 58)) {
            m.tp_src &= Be16::new(0xff);
            m.tp_dst &= Be16::new(0xff);
        }
        for (v, seen) in m.vlans.iter_mut().zip(&o.vlans) {
            if !seen.is_present() {
                *v = Vlan::default();
            } else if !v.tci.is_zero() {
                v.tci |= Be16::new(Vlan::CFI);
            }
        }
        if !commit::is_mpls(o.dl_type) {
            m.mpls_lse = Default::default();
        }
        if o.nw_frag & Flow::FRAG_LATER != 0 {
            m.tp_src = Be16::ZERO;
            m.tp_dst = Be16::ZERO;
        }
    }

    fn run(&mut self, actions: Option<&[Action]>) {
        let name = self.bridge.of.name.clone();
        self.enter_trace(Kind::Bridge, || format!("bridge(\"{name}\")"));
        let mut actions = actions.map(<[Action]>::to_vec);
        if let Some(entry) = self.frozen.clone() {
            match self.thaw(&entry.state) {
                Ok(more) => actions = actions.or(more),
                Err(e) => {
                    self.error = Some(e);
                    return;
                }
            }
        }
        self.init_wc();
        if self.frozen.is_none() && self.flow.recirc_id != 0 {
            let id = self.flow.recirc_id;
            self.report_error(&format!("Recirculation context not found for ID {id:x}"));
            self.error = Some(XlateError::NoRecirculationContext);
            self.finish_wc();
            return;
        }
        if self.frozen.is_none() && self.flow.tunnel.flags & ib_flow::TunFlags::UDPIF != 0 {
            self.report_error("Invalid Geneve tunnel metadata");
            self.error = Some(XlateError::InvalidTunnelMetadata);
            self.finish_wc();
            return;
        }
        let in_port = self.port(OfPort(self.flow.in_port as u16));
        let legacy_l3 = in_port
            .as_ref()
            .and_then(|p| p.tunnel.as_ref())
            .is_some_and(|t| t.mode == ib_tunnel::PacketTypeMode::LegacyL3);
        if legacy_l3 && !self.flow.packet_type.is_zero() && self.frozen.is_none() {
            // The pipeline knows frames only: this one begins with an empty header.
            self.flow.packet_type = Be32::ZERO;
            self.flow.dl_src = Default::default();
            self.flow.dl_dst = Default::default();
        }
        if actions.is_none() {
            let of_port = OfPort(self.flow.in_port as u16);
            let (rule, table) = self.lookup(self.table, of_port, true, true, false);
            self.table = table;
            self.report_table(&rule, table);
            self.cache.push(CacheEntry::Rule(Arc::clone(&rule)));
            self.rule = Some(rule);
        }
        if self.frozen.is_none()
            && let Some(port) = &in_port
        {
            if self.process_special(port) {
                self.finish_wc();
                return;
            }
            if port.tunnel.is_some() {
                self.cache.push(CacheEntry::PatchRx(Arc::clone(&port.counters)));
                self.note_traffic(port);
                if !crate::tunnel::process_ecn(&mut self.flow) {
                    self.out.push(Odp::Drop(XlateError::CongestionDrop as u32));
                    self.finish_wc();
                    return;
                }
            }
            if let Some(bundle) = self.bridge.bundle_of(port)
                && bundle.mirror_out != 0
            {
                let text = format!(
                    "dropping packet received on port {}, which is reserved exclusively for mirroring",
                    bundle.name
                );
                self.report_error(&text);
                self.finish_wc();
                return;
            }
        }
        let sampled = if self.frozen.is_none() { self.sample_ingress() } else { None };
        if in_port.as_ref().is_none_or(|p| p.may_receive()) {
            let rule_actions = self.rule.as_ref().map(|r| (Arc::clone(&r.actions), r.cookie));
            if actions.is_none()
                && let Some((_, cookie)) = &rule_actions
            {
                self.rule_cookie = *cookie;
            }
            if self.frozen.is_none() {
                self.mirror_ingress();
            }
            match (&actions, &rule_actions) {
                (Some(list), _) => self.do_actions(list, true),
                (None, Some((list, _))) => self.do_actions(list, true),
                (None, None) => {}
            }
            // Ordinary switching and the learn action have seen the packet; nothing else comes of it.
            if in_port.as_ref().is_some_and(|p| !p.forwards()) {
                self.error = Some(XlateError::ForwardingDisabled);
            }
            if self.error.is_none() {
                if !self.freezing {
                    self.do_action_set();
                }
                if self.freezing {
                    self.finish_freezing();
                }
            }
            if self.error.is_none() {
                self.dhcp_to_local();
            }
        }
        self.finish_samples(sampled);
        // As the original tells it: a failed translation shows all that it looked at.
        if self.error.is_none() || self.trace.is_none() {
            self.finish_wc();
        }
    }

    fn finish(mut self) -> Xout {
        // Nobody needs the packet after the last action: no copy of it, then.
        if let Some(Odp::Clone(inner)) = self.out.last() {
            let inner = Arc::clone(inner);
            self.out.pop();
            self.out.extend(inner.iter().cloned());
        }
        if let Some(error) = self.error {
            self.slow = 0;
            self.out.clear();
            if self.bridge.features.explicit_drop {
                self.out.push(Odp::Drop(error as u32));
            }
        } else if self.out.is_empty() && self.bridge.features.explicit_drop {
            self.out.push(Odp::Drop(0));
        }
        Xout {
            actions: self.out,
            wc: self.wc,
            flow: self.flow,
            slow: self.slow,
            error: self.error,
            cache: self.cache,
            recircs: self.recircs,
        }
    }

    pub fn enter_trace(&mut self, kind: Kind, text: impl FnOnce() -> String) -> usize {
        self.trace.as_deref_mut().map_or(0, |t| t.enter(kind, text()))
    }
    pub fn leave_trace(&mut self, before: usize) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.leave(before);
        }
    }

    /// A rule's match, with names of ports if the trace wants them.
    fn rule_match(&self, rule: &Rule) -> String {
        let names = self.trace.as_ref().is_some_and(|t| t.names).then(|| crate::text::port_map(&self.bridge));
        crate::text::rule_match(rule, &self.bridge.of, names.as_ref())
    }

    /// Reports a rule that was found; what follows is below it.
    pub fn report_table(&mut self, rule: &Arc<Rule>, table: u8) -> usize {
        if self.trace.is_none() {
            return 0;
        }
        let of = &self.bridge.of;
        let what = if Arc::ptr_eq(rule, &of.miss_rule) {
            "No match, and a \"packet-in\" is called for.".to_owned()
        } else if Arc::ptr_eq(rule, &of.no_packet_in_rule) {
            "No match.".to_owned()
        } else if Arc::ptr_eq(rule, &of.drop_frags_rule) {
            "Packets are IP fragments and the fragment handling mode is \"drop\".".to_owned()
        } else {
            let mut s = self.rule_match(rule);
            if !s.is_empty() {
                s.push_str(", ");
            }
            s.push_str(&format!("priority {}", rule.priority()));
            if rule.cookie != 0 {
                s.push_str(&format!(", cookie {:#x}", rule.cookie));
            }
            s
        };
        self.enter_trace(Kind::Table, || format!("{table:2}. {what}"))
    }

    /// Finds the rule for the current key from `table` on, with the port of entry replaced by `in_port`.
    /// `opaque` says that the key's words are others' at the moment. Returns where it was found.
    pub fn lookup(
        &mut self,
        table: u8,
        in_port: OfPort,
        may_packet_in: bool,
        honor_miss: bool,
        opaque: bool,
    ) -> (Arc<Rule>, u8) {
        let of = Arc::clone(&self.bridge.of);
        let version = self.version();
        let old_in_port = self.flow.in_port;
        let old_ports = (self.flow.tp_src, self.flow.tp_dst);
        if self.flow.nw_frag & Flow::FRAG_ANY != 0 {
            match of.frag_handling() {
                FragHandling::NxMatch => {}
                FragHandling::Normal => {
                    // Ports must look the same for all fragments of a packet.
                    self.flow.tp_src = Be16::ZERO;
                    self.flow.tp_dst = Be16::ZERO;
                }
                FragHandling::Drop | FragHandling::Reassemble => {
                    return (Arc::clone(&of.drop_frags_rule), table);
                }
            }
        }
        self.flow.in_port = in_port.0.into();
        let mut conj = Vec::new();
        let mut at = usize::from(table);
        let mut miss = TableMiss::Default;
        let found = loop {
            if at >= N_TABLES {
                break None;
            }
            let t = &of.tables[at];
            let rule = t.cls.lookup_conj(version, &self.flow, Some(&mut self.wc), Some(&mut conj));
            let lookup = Lookup::new(rule.is_some(), &self.flow, &self.original, opaque);
            self.cache.push(CacheEntry::Table(Arc::clone(&of), at as u8, lookup));
            if rule.is_some() {
                break rule;
            }
            miss = t.miss_config();
            if !honor_miss || miss != TableMiss::Continue {
                break None;
            }
            at += 1;
            if at == usize::from(INTERNAL_TABLE) {
                at += 1;
            }
        };
        self.flow.in_port = old_in_port;
        (self.flow.tp_src, self.flow.tp_dst) = old_ports;
        if !conj.is_empty() && self.trace.is_some() {
            self.conj_rules(&conj);
        }
        let at = at.min(N_TABLES - 1) as u8;
        if let Some(rule) = found {
            return (rule, at);
        }
        let mut rule = &of.no_packet_in_rule;
        if may_packet_in {
            match miss {
                TableMiss::Continue | TableMiss::Controller => {
                    let port = self.port(OfPort(old_in_port as u16));
                    if port.is_some_and(|p| p.config & PortBits::NO_PACKET_IN == 0) {
                        rule = &of.miss_rule;
                    }
                }
                TableMiss::Default => {
                    of.missed.store(true, std::sync::atomic::Ordering::Relaxed);
                    if of.wants_misses.load(std::sync::atomic::Ordering::Relaxed) {
                        rule = &of.miss_rule;
                    }
                }
                _ => {}
            }
        }
        (Arc::clone(rule), at)
    }

    /// Reports the clauses that made a conjunctive match.
    fn conj_rules(&mut self, rules: &[Arc<Rule>]) {
        for r in rules {
            let mut s = self.rule_match(r);
            if !s.is_empty() {
                s.push_str(", ");
            }
            let priority = r.priority();
            self.report(Kind::Detail, || format!("conj. {s}priority {priority}"));
        }
    }

    fn may_resubmit(&mut self) -> bool {
        if self.depth >= MAX_DEPTH {
            self.report_error(&format!("over max translation depth {MAX_DEPTH}"));
            self.error = Some(XlateError::RecursionTooDeep);
        } else if self.resubmits >= MAX_RESUBMITS {
            self.report_error(&format!("over {MAX_RESUBMITS} resubmit actions"));
            self.error = Some(XlateError::TooManyResubmits);
        } else if self.out.len() > 4096 {
            self.report_error("resubmits yielded over 64 kB of actions");
            self.exit = true;
            return true;
        } else if self.stack_bytes >= 65536 {
            self.report_error("resubmits yielded over 64 kB of stack");
            self.error = Some(XlateError::StackTooDeep);
        } else {
            return true;
        }
        false
    }

    /// Looks a table up and does what the rule says.
    pub fn table_action(
        &mut self,
        in_port: OfPort,
        table: u8,
        may_packet_in: bool,
        honor_miss: bool,
        with_ct_orig: bool,
        is_last: bool,
    ) {
        if self.was_mpls {
            self.trigger_freeze();
        }
        if !self.may_resubmit() {
            return;
        }
        let old_table = self.table;
        if with_ct_orig {
            if self.flow.ct_nw_proto == 0 || !is_ip_any(&self.flow) {
                self.report_error("resubmit(ct) with non-tracked or non-IP packet!");
                return;
            }
            swap_ct_tuple(&mut self.flow, &mut self.wc);
        }
        let (rule, found_in) = self.lookup(table, in_port, may_packet_in, honor_miss, with_ct_orig);
        self.table = found_in;
        if with_ct_orig {
            swap_ct_tuple(&mut self.flow, &mut self.wc);
        }
        self.cache.push(CacheEntry::Rule(Arc::clone(&rule)));
        // Of the table that was asked for, even if a miss went on to another.
        let before = self.report_table(&rule, table);
        self.recurse(rule, table <= old_table, is_last);
        self.leave_trace(before);
        self.table = old_table;
    }

    fn recurse(&mut self, rule: Arc<Rule>, deepens: bool, is_last: bool) {
        self.resubmits += 1;
        self.depth += u32::from(deepens);
        let actions = Arc::clone(&rule.actions);
        let old_cookie = std::mem::replace(&mut self.rule_cookie, rule.cookie);
        let old_rule = self.rule.replace(rule);
        self.do_actions(&actions, is_last);
        self.rule = old_rule;
        self.rule_cookie = old_cookie;
        self.depth -= u32::from(deepens);
    }

    /// Turns key changes so far into datapath actions.
    pub fn commit(&mut self) {
        self.commit_encap();
        self.slow |= commit::commit(&self.flow, &mut self.base, &mut self.wc, &mut self.out);
    }

    /// Puts a frozen state's metadata back; returns actions to go on with.
    fn thaw(&mut self, state: &FrozenState) -> Result<Option<Vec<Action>>, XlateError> {
        let before = self.enter_trace(Kind::Thaw, || "thaw".to_owned());
        if self.flow.recirc_id == 0 {
            return Err(XlateError::RecirculationConflict);
        }
        if state.bridge != self.bridge.of.id {
            let bridge = self.cfg.bridges.get(&state.bridge).cloned();
            let Some(bridge) = bridge else {
                self.report_error("Frozen bridge no longer exists.");
                return Err(XlateError::BridgeNotFound);
            };
            self.bridge = bridge;
            let name = self.bridge.of.name.clone();
            self.detail(&format!("Resuming in bridge {name}"));
        }
        let m = &state.metadata;
        self.flow.tunnel = (*m.tunnel).clone();
        self.flow.metadata = m.metadata;
        self.flow.regs = m.regs;
        self.flow.in_port = m.in_port.0.into();
        self.base.tunnel = self.flow.tunnel.clone();
        self.stack.clone_from(&state.stack);
        self.mirrors = state.mirrors;
        self.conntracked = state.conntracked;
        if !state.conntracked {
            clear_ct(&mut self.flow);
        }
        self.action_set.clone_from(&state.action_set);
        if !self.action_set.is_empty() {
            self.flow.actset_output = actset_output(&self.action_set);
            self.report_action_set("is");
        }
        self.table = state.table;
        let mut more = None;
        if !state.actions.is_empty() {
            self.table = 0;
            more = Some(state.actions.clone());
            self.rule_cookie = state.rule_cookie;
            self.report(Kind::Thaw, || "Restoring actions".to_owned());
        } else {
            let table = state.table;
            self.report(Kind::Thaw, || format!("Resuming from table {table}"));
        }
        self.leave_trace(before);
        Ok(more)
    }
}

/// Forgets connection state.
pub(crate) fn clear_ct(flow: &mut Flow) {
    flow.ct_state = 0;
    flow.ct_zone = 0;
    flow.ct_mark = 0;
    flow.ct_label = Default::default();
    flow.ct_nw_proto = 0;
    flow.ct_tp_src = Be16::ZERO;
    flow.ct_tp_dst = Be16::ZERO;
    flow.ct_nw_src = Be32::ZERO;
    flow.ct_nw_dst = Be32::ZERO;
    flow.ct_ipv6_src = Default::default();
    flow.ct_ipv6_dst = Default::default();
}

/// The port that an action set outputs to, as the field of that name.
pub(crate) fn actset_output(set: &[Action]) -> OfPort {
    // A group comes before any output.
    if set.iter().any(|a| matches!(a, Action::Group(_))) {
        return OfPort::UNSET;
    }
    let outputs = set.iter().rev().find_map(|a| match a {
        Action::Output { port, .. } => Some(*port),
        _ => None,
    });
    outputs.unwrap_or(OfPort::UNSET)
}

/// Exchanges the 5-tuple with the connection's original one, in key and mask.
fn swap_ct_tuple(flow: &mut Flow, wc: &mut Mask) {
    let swap = |f: &mut Flow, v6: bool| {
        std::mem::swap(&mut f.nw_proto, &mut f.ct_nw_proto);
        std::mem::swap(&mut f.tp_src, &mut f.ct_tp_src);
        std::mem::swap(&mut f.tp_dst, &mut f.ct_tp_dst);
        if v6 {
            std::mem::swap(&mut f.ipv6_src, &mut f.ct_ipv6_src);
            std::mem::swap(&mut f.ipv6_dst, &mut f.ct_ipv6_dst);
        } else {
            std::mem::swap(&mut f.nw_src, &mut f.ct_nw_src);
            std::mem::swap(&mut f.nw_dst, &mut f.ct_nw_dst);
        }
    };
    let v6 = flow.dl_type.get() == 0x86dd;
    swap(flow, v6);
    swap(&mut wc.0, v6);
}

/// Where a packet is to be translated: bridge, key, and the state to resume if it was frozen.
pub type Received = (Arc<XBridge>, Flow, Option<Arc<RecircEntry>>);

/// The bridge and OpenFlow port of a datapath port, and the key with `in_port` set to it. Recirculated
/// packets resume in the bridge of their state.
pub fn receive(backer: &Backer, key: &Flow) -> Result<Received, XlateError> {
    let cfg = backer.xcfg.peek();
    let mut flow = key.clone();
    let (bridge, port) = cfg.port_of_key(key).ok_or(XlateError::BridgeNotFound)?;
    flow.in_port = port.ofport.0.into();
    flow.actset_output = OfPort::UNSET;
    if !crate::tunnel::unpack_options(&bridge.of, &mut flow) {
        // Translation drops what still has this.
        flow.tunnel.flags |= ib_flow::TunFlags::UDPIF;
    }
    if key.recirc_id == 0 {
        return Ok((Arc::clone(bridge), flow, None));
    }
    let entry = backer.recirc.find(key.recirc_id).ok_or(XlateError::NoRecirculationContext)?;
    let bridge = cfg.bridges.get(&entry.state.bridge).ok_or(XlateError::BridgeNotFound)?;
    Ok((Arc::clone(bridge), flow, Some(entry)))
}
