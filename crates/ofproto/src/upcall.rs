//! Answers to a datapath's upcalls.
//!
//! A *miss* is translated; the verdict carries actions and the mask of the flow to install, which is
//! remembered as a [`Ukey`]. An *action* upcall comes from a `userspace` action of a flow: a packet for
//! controllers, or one whose translation the datapath can't do by itself (*slow path*): that is translated
//! each time anew.
//!
//! Called from datapath threads, concurrently. Takes short locks only: address table, flow index, rule
//! counters, the packet-in queue.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use ib_base::coverage;
use ib_base::vlog::module::{DPIF, OFPROTO_DPIF_UPCALL};
use ib_base::{vlog_info_rl, vlog_warn_rl};
use ib_dpif::text::{PortNames, UserCookie, format_key};
use ib_dpif::{
    Action as Odp, DpifError, FlowStats, Install, Ufid, Upcall, UpcallHandler, UpcallKind, UpcallVerdict,
    UserspaceAction, UserspaceData,
};
use ib_flow::miniflow::Miniflow;
use ib_flow::text::mask_for_packet;
use ib_flow::{Flow, Mask, Match, Vlan};
use ib_openflow::message::{PacketIn, PacketInReason};
use ib_packet::Be16;
use parking_lot::Mutex;

use crate::backer::Backer;
use crate::export;
use crate::ofproto::{Ofproto, QueuedPacketIn};
use crate::recirc::FrozenMetadata;
use crate::rule::PushStats;
use crate::ukey::{Ukey, UkeyState};
use crate::xlate::{self, Xin, XlateError, Xout};

/// Answers a datapath's upcalls; holds its [`Backer`] weakly, for the datapath outlives neither.
pub struct Handler {
    backer: Weak<Backer>,
}

impl Handler {
    pub(crate) fn new(backer: &Arc<Backer>) -> Handler {
        Handler { backer: Arc::downgrade(backer) }
    }
}

/// The mask for a datapath: what a datapath key can't wildcard is exact.
pub(crate) fn datapath_mask(backer: &Backer, key: &Flow, wc: &Mask) -> Mask {
    let mut mask = if backer.megaflows_enabled() { wc.clone() } else { mask_for_packet(key) };
    if mask.0.vlans[0].tci.is_zero() {
        // A datapath key tells a missing tag from any tag.
        mask.0.vlans[0].tci = Be16::new(Vlan::VID_MASK | Vlan::CFI);
    }
    mask.0.in_port = u32::MAX;
    mask.0.recirc_id = u32::MAX;
    crate::tunnel::pack_options_mask(key, &mut mask);
    mask
}

/// What a flow does whose packets the slow path must handle.
pub(crate) fn slow_path_actions(slow: u32) -> Arc<[Odp]> {
    let userdata = UserCookie::SlowPath(slow).to_bytes();
    Arc::new([Odp::Userspace(UserspaceAction {
        pid: 0,
        userdata,
        actions: false,
        egress_tun_out_port: None,
    })])
}

fn drop_packet(ufid: Ufid) -> UpcallVerdict {
    UpcallVerdict { actions: Arc::new([]), install: None, ufid }
}

impl Handler {
    fn translate(&self, backer: &Arc<Backer>, upcall: &Upcall<'_>) -> Result<Xout, XlateError> {
        let (bridge, flow, frozen) = xlate::receive(backer, upcall.key)?;
        let mut xin = Xin::new(&bridge, &flow);
        xin.packet = Some(upcall.packet);
        xin.frozen = frozen;
        xin.side_effects = true;
        let xout = xlate::translate(backer, xin);
        if matches!(xout.error, Some(XlateError::RecursionTooDeep | XlateError::TooManyResubmits)) {
            // As long as it may be: now and then only.
            vlog_warn_rl!(OFPROTO_DPIF_UPCALL, (1, 1), "{}", crate::trace_cmd::story(backer, &bridge, &flow));
        }
        Ok(xout)
    }

    fn miss(&self, backer: &Arc<Backer>, upcall: &Upcall<'_>) -> UpcallVerdict {
        log_miss(backer, upcall);
        // Read before translating: what changes meanwhile makes the flow stale at once.
        let seen = backer.changed.get();
        let xout = match self.translate(backer, upcall) {
            Ok(x) => x,
            Err(XlateError::BridgeNotFound) => {
                vlog_info_rl!(
                    OFPROTO_DPIF_UPCALL,
                    (1, 5),
                    "received packet on unassociated datapath port {}",
                    upcall.key.in_port
                );
                return drop_packet(upcall.ufid);
            }
            Err(_) => return drop_packet(upcall.ufid),
        };
        let stats = PushStats {
            packets: 1,
            bytes: upcall.packet.len() as u64,
            used_ms: upcall.now_ms,
            tcp_flags: upcall.key.tcp_flags.get(),
        };
        // Learning happened during translation.
        xlate::push(&xout.cache, &stats, false);
        let actions: Arc<[Odp]> = xout.actions.as_slice().into();
        // This packet has had its slow path already; the next ones come up for it.
        let lasting = if xout.slow != 0 { slow_path_actions(xout.slow) } else { Arc::clone(&actions) };
        let limit = backer.flow_limit.load(Ordering::Relaxed);
        if backer.ukeys.len() >= limit as usize {
            coverage::upcall_flow_limit_hit.inc();
            vlog_warn_rl!(
                OFPROTO_DPIF_UPCALL,
                (1, 5),
                "upcall: datapath reached the dynamic limit of {limit} flows."
            );
            return UpcallVerdict { actions, install: None, ufid: upcall.ufid };
        }
        let mask = datapath_mask(backer, upcall.key, &xout.wc);
        let parts = backer.likeness.share(&mask, lasting, xout.cache);
        let lasting = Arc::clone(&parts.actions);
        let ukey = Ukey {
            ufid: upcall.ufid,
            key: Miniflow::new(upcall.key),
            created: backer.clock.now(),
            born: backer.round.load(Ordering::Relaxed),
            state: Mutex::new(UkeyState {
                mask: parts.mask,
                actions: parts.actions,
                pushed: FlowStats::default(),
                seen,
                cache: parts.cache,
                recircs: xout.recircs,
                slow: xout.slow,
                settled: false,
                installed: false,
                adopted: false,
                met: 0,
            }),
        };
        if backer.ukeys.insert(Arc::new(ukey)).is_some() {
            coverage::upcall_ukey_replace.inc();
        }
        UpcallVerdict { actions, install: Some(Install { mask, actions: lasting }), ufid: upcall.ufid }
    }

    fn action(&self, backer: &Arc<Backer>, upcall: &Upcall<'_>, data: &UserspaceData) -> UpcallVerdict {
        match UserCookie::from_bytes(&data.userdata) {
            Some(UserCookie::SlowPath(_)) => match self.translate(backer, upcall) {
                // The flow's counters see to the statistics.
                Ok(xout) => UpcallVerdict { actions: xout.actions.into(), install: None, ufid: upcall.ufid },
                Err(_) => drop_packet(upcall.ufid),
            },
            Some(UserCookie::Controller {
                reason,
                dont_send: false,
                continuation,
                recirc_id,
                rule_cookie,
                controller_id,
                max_len,
            }) => {
                let to = Destination { reason, continuation, rule_cookie, controller_id, max_len };
                send_to_controllers(backer, upcall, recirc_id, &to);
                drop_packet(upcall.ufid)
            }
            Some(cookie) => {
                take_sample(backer, upcall, data, &cookie);
                drop_packet(upcall.ufid)
            }
            None => drop_packet(upcall.ufid),
        }
    }
}

/// Hands a sampled packet to the exporters of the bridge that it came in by.
fn take_sample(backer: &Backer, upcall: &Upcall<'_>, data: &UserspaceData, cookie: &UserCookie) {
    let cfg = backer.xcfg.peek();
    let Some((bridge, in_port)) = cfg.port_of_key(upcall.key) else { return };
    let actions = data.actions.as_deref();
    match cookie {
        UserCookie::SFlow { vlan_tci, output } => {
            export::sflow::receive(bridge, in_port, upcall, *vlan_tci, *output, actions.unwrap_or_default());
        }
        UserCookie::Ipfix { .. } | UserCookie::FlowSample { .. } => {
            export::ipfix::receive(bridge, in_port, upcall, cookie, actions);
        }
        UserCookie::Controller { .. } | UserCookie::SlowPath(_) => {}
    }
}

struct Destination {
    reason: u8,
    continuation: bool,
    rule_cookie: u64,
    controller_id: u16,
    max_len: u16,
}

/// A reason by its number.
fn reason_of(n: u8) -> PacketInReason {
    match n {
        0 => PacketInReason::NoMatch,
        2 => PacketInReason::InvalidTtl,
        3 => PacketInReason::ActionSet,
        4 => PacketInReason::Group,
        5 => PacketInReason::PacketOut,
        6 => PacketInReason::ExplicitMiss,
        7 => PacketInReason::ImplicitMiss,
        _ => PacketInReason::Action,
    }
}

fn send_to_controllers(backer: &Backer, upcall: &Upcall<'_>, recirc_id: u32, to: &Destination) {
    let Some(entry) = backer.recirc.find(recirc_id) else { return };
    let state = &entry.state;
    let of: Option<Arc<Ofproto>> = backer.xcfg.peek().bridges.get(&state.bridge).map(|b| Arc::clone(&b.of));
    let Some(of) = of else { return };
    let mut flow = upcall.key.clone();
    thaw_metadata(&state.metadata, &mut flow);
    if !state.conntracked {
        flow.ct_state = 0;
    }
    if to.continuation {
        of.keep_paused(&entry);
    }
    let reason = reason_of(to.reason);
    let data = upcall.packet.data().to_vec();
    let pin = PacketIn {
        total_len: u32::try_from(data.len()).unwrap_or(u32::MAX),
        data,
        reason,
        table_id: state.table,
        cookie: to.rule_cookie,
        metadata: packet_metadata(&flow),
        userdata: state.userdata.clone(),
        ..PacketIn::default()
    };
    of.send_packet_in(QueuedPacketIn {
        pin,
        max_len: to.max_len,
        controller_id: to.controller_id,
        is_miss: matches!(reason, PacketInReason::NoMatch | PacketInReason::ImplicitMiss),
        paused: to.continuation.then(|| (Arc::clone(&entry), ib_flow::OdpPort(upcall.key.in_port))),
    });
}

fn thaw_metadata(m: &FrozenMetadata, flow: &mut Flow) {
    flow.tunnel = (*m.tunnel).clone();
    flow.metadata = m.metadata;
    flow.regs = m.regs;
    flow.in_port = m.in_port.0.into();
}

/// The metadata of a packet that a controller is told: what is not zero, and the port of entry.
pub(crate) fn packet_metadata(flow: &Flow) -> Match {
    let mut m = Match::catch_all();
    m.flow.in_port = flow.in_port;
    m.mask.0.in_port = u32::MAX;
    if !flow.packet_type.is_zero() {
        m.flow.packet_type = flow.packet_type;
        m.mask.0.packet_type = ib_packet::Be32::MAX;
    }
    macro_rules! copy {
        ($($field:ident = $ones:expr),* $(,)?) => {$(
            if flow.$field != Default::default() {
                m.flow.$field = flow.$field;
                m.mask.0.$field = $ones;
            }
        )*};
    }
    copy!(
        metadata = ib_packet::Be64::MAX,
        pkt_mark = u32::MAX,
        dp_hash = u32::MAX,
        ct_state = u8::MAX,
        ct_zone = u16::MAX,
        ct_mark = u32::MAX,
        ct_label = ib_packet::Be128::MAX,
    );
    for (i, r) in flow.regs.iter().enumerate().filter(|(_, r)| **r != 0) {
        m.flow.regs[i] = *r;
        m.mask.0.regs[i] = u32::MAX;
    }
    if flow.tunnel.tun_id != Default::default() {
        m.flow.tunnel.tun_id = flow.tunnel.tun_id;
        m.mask.0.tunnel.tun_id = ib_packet::Be64::MAX;
    }
    if flow.tunnel.is_set() {
        m.flow.tunnel = flow.tunnel.clone();
        let t = &mut m.mask.0.tunnel;
        t.tun_id = ib_packet::Be64::MAX;
        if flow.tunnel.ip_dst.is_zero() {
            t.ipv6_src = ib_packet::Be128::MAX;
            t.ipv6_dst = ib_packet::Be128::MAX;
        } else {
            t.ip_src = ib_packet::Be32::MAX;
            t.ip_dst = ib_packet::Be32::MAX;
        }
        m.normalize();
    }
    m
}

fn log_miss(backer: &Backer, upcall: &Upcall<'_>) {
    if DPIF.enabled(ib_base::vlog::Level::Dbg) {
        let key = format_key(upcall.key, None, &PortNames::none(), false);
        ib_base::vlog_dbg_rl!(DPIF, (600, 600), "{}: miss upcall:\n{key}", backer.dpif.full_name());
    }
}

impl UpcallHandler for Handler {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        let Some(backer) = self.backer.upgrade() else { return drop_packet(upcall.ufid) };
        match upcall.kind {
            UpcallKind::Miss => self.miss(&backer, upcall),
            UpcallKind::Action(data) => self.action(&backer, upcall, data),
        }
    }

    fn installed(&self, ufid: Ufid, result: Result<(), DpifError>) {
        let Some(backer) = self.backer.upgrade() else { return };
        match result {
            Ok(()) => {
                if let Some(ukey) = backer.ukeys.get(ufid) {
                    ukey.state.lock().installed = true;
                }
            }
            Err(_) => {
                backer.ukeys.remove(ufid);
            }
        }
    }
}
