//! Actions on one packet.
//!
//! `Worker::run` takes the packet and does the list in order. An action that ends the packet's way (output, recirculation,
//! `userspace`) takes the packet itself when it is the last of the list, and a copy else. Nested lists
//! work on a copy of packet and metadata, so that what they change ends with them. Depth is bounded twice: by
//! recirculations ([`MAX_RECIRC`]) and by nesting ([`MAX_NESTING`]), so that no list can exhaust the stack.

use std::sync::Arc;

use ib_conntrack::frag::{Outcome, is_fragment};
use ib_dpif::{Action, CtAction, HashAlg, SetField, UpcallKind, UserspaceAction, UserspaceData};
use ib_flow::key::CtState;
use ib_flow::{Flow, Metadata, hash};
use ib_packet::Packet;

use crate::drop::DropReason;
use crate::headers::complete_csum;
use crate::modify;
use crate::tunnel::Push;
use crate::worker::Worker;

/// Recirculations of one packet.
pub const MAX_RECIRC: u8 = 6;
/// Action lists within action lists, upcall verdicts included.
pub const MAX_NESTING: u8 = 32;

/// Where in the processing of a packet we are.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    recirculated: u8,
    nested: u8,
    /// The flow's whole list, for upcalls that ask for it.
    actions: Option<&'a Arc<[Action]>>,
}

impl<'a> Context<'a> {
    /// A fresh packet of a flow with these actions.
    pub fn of(actions: &'a Arc<[Action]>) -> Context<'a> {
        Context { actions: Some(actions), ..Context::default() }
    }
    /// The same place, in a flow with these actions.
    pub fn with_actions<'b>(self, actions: &'b Arc<[Action]>) -> Context<'b> {
        Context { recirculated: self.recirculated, nested: self.nested, actions: Some(actions) }
    }
    pub(crate) fn deeper(self) -> Context<'a> {
        Context { nested: self.nested + 1, ..self }
    }
    /// Lookups of this packet after the first.
    pub(crate) fn recirculated(self) -> u8 {
        self.recirculated
    }
    /// Before another lookup.
    pub(crate) fn again(self) -> Context<'static> {
        Context { recirculated: self.recirculated + 1, nested: self.nested + 1, actions: None }
    }
}

impl Worker {
    /// A copy from the pool.
    pub(crate) fn copy(&mut self, packet: &Packet) -> Packet {
        let mut p = self.pool.take();
        p.extend(packet.data());
        p.offload = packet.offload;
        p.ethernet = packet.ethernet;
        p.l3_type = packet.l3_type;
        p.rss_hash = packet.rss_hash;
        p
    }

    /// The packet itself when it is not needed any longer.
    fn take(&mut self, packet: &mut Option<Packet>, last: bool) -> Option<Packet> {
        if last { packet.take() } else { packet.as_ref().map(|p| self.copy(p)) }
    }

    /// Does `actions` to `packet`; see the module.
    pub(crate) fn run(&mut self, packet: Packet, mut md: Metadata, actions: &[Action], cx: Context<'_>) {
        if cx.nested > MAX_NESTING {
            return self.drop_packet(packet, DropReason::Nesting);
        }
        if actions.is_empty() {
            return self.drop_packet(packet, DropReason::NoActions);
        }
        let mut packet = Some(packet);
        // Bytes that the next output may have.
        let mut limit: Option<u32> = None;
        for (i, action) in actions.iter().enumerate() {
            let last = i + 1 == actions.len();
            let Some(p) = packet.as_mut() else { return };
            match action {
                Action::Output(port) => {
                    if let Some(mut out) = self.take(&mut packet, last) {
                        truncate(&mut out, limit.take());
                        out.queue = md.skb_priority;
                        self.output(*port, out);
                    }
                }
                Action::Userspace(u) => {
                    if let Some(mut out) = self.take(&mut packet, last) {
                        truncate(&mut out, limit.take());
                        self.userspace(out, &md, u, cx);
                    }
                }
                Action::Set(field) => match field {
                    SetField::Priority(v, m) => md.skb_priority = (md.skb_priority & !m) | (v & m),
                    SetField::Mark(v, m) => md.pkt_mark = (md.pkt_mark & !m) | (v & m),
                    SetField::Tunnel(t) => md.tunnel = Some(t.clone()),
                    header => modify::set(p, header),
                },
                Action::PushVlan { tpid, tci } => modify::push_vlan(p, *tpid, *tci),
                Action::PopVlan => modify::pop_vlan(p),
                Action::PushMpls { lse, ethertype } => modify::push_mpls(p, *lse, *ethertype),
                Action::PopMpls(ethertype) => modify::pop_mpls(p, *ethertype),
                Action::PushEth { dst, src } => modify::push_eth(p, *dst, *src),
                Action::PopEth => modify::pop_eth(p),
                Action::AddMpls { lse, ethertype } => modify::add_mpls(p, *lse, *ethertype),
                Action::PushNsh { nsh, md2 } => modify::push_nsh(p, nsh, md2),
                Action::PopNsh => {
                    if !modify::pop_nsh(p) {
                        return self.drop_rest(packet, DropReason::NshDecap);
                    }
                }
                Action::Trunc(len) => limit = Some(*len),
                Action::Hash { alg, basis } => md.dp_hash = self.hash(p, &md, *alg, *basis),
                Action::LbOutput(id) => {
                    let hash = if md.dp_hash != 0 { md.dp_hash } else { self.hash(p, &md, HashAlg::L4, 0) };
                    let port = self.shared.bonds.choose(*id, hash, p.len() as u64);
                    if let (Some(port), Some(mut out)) = (port, self.take(&mut packet, last)) {
                        truncate(&mut out, limit.take());
                        self.output(port, out);
                    }
                }
                Action::Recirc(id) => {
                    if let Some(out) = self.take(&mut packet, last) {
                        self.recirculate(out, &md, *id, cx);
                    }
                }
                Action::Sample { probability, actions } => {
                    if *probability == u32::MAX || self.rng.next_u32() < *probability {
                        self.nested(&mut packet, last, &md, actions, cx);
                    }
                }
                Action::Clone(actions) => self.nested(&mut packet, last, &md, actions, cx),
                Action::CheckPktLen { len, greater, less_or_equal } => {
                    let actions = if wire_len(p) > usize::from(*len) { greater } else { less_or_equal };
                    if !actions.is_empty() {
                        self.nested(&mut packet, last, &md, actions, cx);
                    }
                }
                Action::DecTtl { exception } => {
                    if !modify::dec_ttl(p) {
                        let Some(p) = packet.take() else { return };
                        return if exception.is_empty() {
                            self.drop_packet(p, DropReason::TtlExpired)
                        } else {
                            self.run(p, md, exception, cx.deeper())
                        };
                    }
                }
                Action::Meter(id) => {
                    if !self.shared.meters.pass(*id, p.len(), self.now_ms) {
                        return self.drop_rest(packet, DropReason::Meter);
                    }
                }
                Action::CtClear => {
                    md.ct_state = 0;
                    md.ct_zone = 0;
                    md.ct_mark = 0;
                    md.ct_label = ib_packet::Be128::ZERO;
                    md.ct_orig = None;
                    md.ct_moved = false;
                }
                Action::Ct(ct) => {
                    if is_fragment(p) {
                        let Some(p) = packet.take() else { return };
                        return self.conntrack_fragment(p, md, ct, &actions[i + 1..], cx);
                    }
                    let random = self.rng.next_u32();
                    self.shared.conntrack.process(p, &mut md, ct, self.now_ms, random);
                    let overdue = self.shared.conntrack.overdue_fragments(p, self.now_ms);
                    if !overdue.is_empty() {
                        let Some(p) = packet.take() else { return };
                        let rest = &actions[i + 1..];
                        self.rest_of_list(p, md.clone(), rest, cx);
                        return self.overdue_fragments(overdue, &md, rest, cx);
                    }
                }
                Action::TnlPush { tnl_port, tnl_type, header, .. } => {
                    // What follows is for the outer packet.
                    let Some(p) = packet.take() else { return };
                    let push = Push { tnl_port: *tnl_port, tnl_type: *tnl_type, header };
                    return self.tunnel_push(p, &md, &push, &actions[i + 1..], cx);
                }
                Action::TnlPop(port) => {
                    if let Some(out) = self.take(&mut packet, last) {
                        self.tunnel_pop(out, &md, *port, cx);
                    }
                }
                Action::Drop(code) => return self.drop_rest(packet, DropReason::of_action(*code)),
                // A sample for a kernel facility: there is none here, and the packet itself goes on.
                Action::Psample { .. } => {}
            }
        }
        // Modified to the end and sent nowhere else, or its copies have left: that was the list's wish.
        if let Some(p) = packet {
            self.pool.give(p);
        }
    }

    /// Tracks the datagram that a fragment completes; all of its fragments then do what is left of the list.
    fn conntrack_fragment(
        &mut self,
        packet: Packet,
        mut md: Metadata,
        ct: &CtAction,
        rest: &[Action],
        cx: Context<'_>,
    ) {
        let random = self.rng.next_u32();
        let overdue = self.shared.conntrack.overdue_fragments(&packet, self.now_ms);
        let packets = match self.shared.conntrack.take_fragment(packet, md.recirc_id, ct.zone, self.now_ms) {
            Outcome::Held => Vec::new(),
            Outcome::AsIs(mut p) => {
                self.shared.conntrack.process(&mut p, &mut md, ct, self.now_ms, random);
                vec![p]
            }
            Outcome::Whole(mut whole) => {
                self.shared.conntrack.process(&mut whole.packet, &mut md, ct, self.now_ms, random);
                whole.split()
            }
        };
        for p in packets {
            self.rest_of_list(p, md.clone(), rest, cx);
        }
        self.overdue_fragments(overdue, &md, rest, cx);
    }

    /// Does what is left of a list.
    fn rest_of_list(&mut self, packet: Packet, md: Metadata, rest: &[Action], cx: Context<'_>) {
        if rest.is_empty() {
            self.pool.give(packet);
        } else {
            self.run(packet, md, rest, cx.deeper());
        }
    }

    /// Fragments that have waited in vain go on as invalid ones.
    fn overdue_fragments(&mut self, packets: Vec<Packet>, md: &Metadata, rest: &[Action], cx: Context<'_>) {
        for p in packets {
            let md = Metadata {
                ct_state: CtState::INV,
                ct_mark: 0,
                ct_label: ib_packet::Be128::ZERO,
                ct_orig: None,
                ct_moved: false,
                ..md.clone()
            };
            self.rest_of_list(p, md, rest, cx);
        }
    }

    fn drop_rest(&mut self, packet: Option<Packet>, reason: DropReason) {
        if let Some(p) = packet {
            self.drop_packet(p, reason);
        }
    }

    fn nested(
        &mut self,
        packet: &mut Option<Packet>,
        last: bool,
        md: &Metadata,
        actions: &[Action],
        cx: Context<'_>,
    ) {
        if let Some(p) = self.take(packet, last) {
            self.run(p, md.clone(), actions, cx.deeper());
        }
    }

    fn recirculate(&mut self, packet: Packet, md: &Metadata, id: u32, cx: Context<'_>) {
        if cx.recirculated >= MAX_RECIRC {
            return self.drop_packet(packet, DropReason::Recirc);
        }
        self.stats.recirculated.add(1);
        let md = Metadata { recirc_id: id, ..md.clone() };
        let cx = Context { recirculated: cx.recirculated + 1, nested: cx.nested + 1, actions: None };
        self.lookup(packet, md, None, cx);
    }

    fn userspace(&mut self, mut packet: Packet, md: &Metadata, u: &UserspaceAction, cx: Context<'_>) {
        // What goes to a controller or a collector is plain bytes; nobody behind them completes a checksum.
        if packet.offload.gso.is_none() {
            complete_csum(&mut packet);
        }
        let data = UserspaceData { userdata: Arc::clone(&u.userdata), actions: cx.actions.cloned() };
        let key = self.key_of(&packet, md);
        let verdict = self.upcall(UpcallKind::Action(&data), &packet, &key);
        self.give_key(key);
        match verdict {
            None => self.drop_packet(packet, DropReason::UserspaceAction),
            Some(v) if v.actions.is_empty() => self.pool.give(packet),
            Some(v) => self.run(packet, md.clone(), &v.actions, cx.deeper()),
        }
    }

    fn hash(&mut self, packet: &Packet, md: &Metadata, alg: HashAlg, basis: u32) -> u32 {
        let key = self.key_of(packet, md);
        let hash = flow_hash(&key, alg, basis);
        self.give_key(key);
        hash
    }
}

/// Hash of addresses, protocol and ports; symmetric if asked for. Never 0, which means "no hash". The values are
/// those of Open vSwitch's datapath: a group that picks a bucket by them picks the same one.
pub fn flow_hash(key: &Flow, alg: HashAlg, basis: u32) -> u32 {
    let h = match alg {
        HashAlg::L4 => hash::two_words(hash::five_tuple(key, 0), basis),
        HashAlg::SymL4 => hash::symmetric_l3l4(key, basis, false),
    };
    h.max(1)
}

/// Length that this packet has on the wire: for a super-frame, that of a full segment.
fn wire_len(p: &Packet) -> usize {
    match p.offload.gso {
        Some(gso) if p.offload.hdr_len != 0 => {
            p.len().min(usize::from(p.offload.hdr_len) + usize::from(gso.size))
        }
        _ => p.len(),
    }
}

/// Cuts to `limit` bytes. What is left is no longer what the offloads speak of.
fn truncate(p: &mut Packet, limit: Option<u32>) {
    let Some(len) = limit.and_then(|l| usize::try_from(l).ok()).filter(|l| *l < p.len()) else { return };
    complete_csum(p);
    p.offload.gso = None;
    p.offload.hdr_len = 0;
    p.resize(len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_packet::Be16;

    #[test]
    fn symmetric_hash_is_the_same_both_ways() {
        let mut a = Flow::zeroed();
        (a.dl_type, a.nw_proto) = (Be16::new(0x800), 17);
        a.tp_src = Be16::new(1000);
        a.tp_dst = Be16::new(80);
        a.nw_src = ib_packet::Be32::new(1);
        a.nw_dst = ib_packet::Be32::new(2);
        let mut b = a.clone();
        (b.tp_src, b.tp_dst, b.nw_src, b.nw_dst) = (a.tp_dst, a.tp_src, a.nw_dst, a.nw_src);
        assert_eq!(flow_hash(&a, HashAlg::SymL4, 7), flow_hash(&b, HashAlg::SymL4, 7));
        assert_ne!(flow_hash(&a, HashAlg::L4, 7), flow_hash(&b, HashAlg::L4, 7));
        assert_ne!(flow_hash(&a, HashAlg::L4, 7), flow_hash(&a, HashAlg::L4, 8));
    }

    #[test]
    fn truncation_drops_offloads_that_no_longer_hold() {
        let mut p = Packet::from_frame(&[1; 100]);
        p.offload.partial_csum = Some((34, 16));
        truncate(&mut p, Some(200));
        assert!(p.len() == 100 && p.offload.partial_csum.is_some());
        truncate(&mut p, Some(60));
        assert!(p.len() == 60 && p.offload.is_plain());
    }
}
