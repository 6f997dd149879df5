//! The action list, one action after the other.

use std::cmp::Reverse;
use std::sync::Arc;

use ib_dpif::Action as Odp;
use ib_flow::fields::FieldValue;
use ib_flow::hash::two_words;
use ib_flow::key::N_MPLS;
use ib_flow::{FieldId, Flow, OfPort, Subfield, Vlan};
use ib_openflow::action::{Action, BundleAlg, Controller, Ct, SetField};
use ib_openflow::message::PacketInReason;
use ib_packet::{Be16, Be32, Be64};

use super::cache::CacheEntry;
use super::commit::{count_mpls, is_mpls, pop_vlan, push_vlan};
use super::trace::Kind;
use super::{Ctx, SLOW_ACTION, XlateError, actset_output, clear_ct, is_ip_any};

/// Values of the stack as bytes: the most that it may hold.
const MAX_STACK_BYTES: usize = 65536;

/// Order of an action within an action set, by OpenFlow 1.5, 5.6; `None`: not part of a set.
fn set_order(a: &Action) -> Option<u8> {
    Some(match a {
        Action::StripVlan(_) => 0,
        Action::PopMpls(_) => 1,
        Action::Decap(_) => 2,
        Action::Encap(_) => 3,
        Action::PushMpls(_) => 4,
        Action::PushVlan(_) => 5,
        Action::DecTtl(_) => 6,
        Action::DecMplsTtl => 7,
        Action::DecNshTtl => 8,
        Action::SetField(_)
        | Action::RegMove { .. }
        | Action::SetVlanVid { .. }
        | Action::SetVlanPcp { .. }
        | Action::SetEthSrc(_)
        | Action::SetEthDst(_)
        | Action::SetIpv4Src(_)
        | Action::SetIpv4Dst(_)
        | Action::SetIpDscp(_)
        | Action::SetIpEcn(_)
        | Action::SetIpTtl(_)
        | Action::SetL4Src(_)
        | Action::SetL4Dst(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::SetTunnel { .. } => 9,
        Action::SetQueue(_) => 10,
        Action::Group(_) => 11,
        Action::Output { .. } => 12,
        Action::Resubmit { .. } => 13,
        Action::Ct(_) => 14,
        _ => return None,
    })
}

/// Ends a set.
fn is_exit(a: &Action) -> bool {
    matches!(a, Action::Group(_) | Action::Output { .. } | Action::Resubmit { .. } | Action::Ct(_))
}

/// The actions of a set in the order in which they run: of each kind the last one written, but all
/// `set_field`s in the order in which they were written; a group takes an output's place.
pub(crate) fn execution_order(set: &[Action]) -> Vec<Action> {
    let mut out = Vec::new();
    for order in 0..=14 {
        let mut of_kind = set.iter().filter(|a| set_order(a) == Some(order));
        if order == 9 {
            out.extend(of_kind.cloned());
            continue;
        }
        let Some(last) = of_kind.next_back() else { continue };
        // One way out: group before output before resubmit before ct.
        if is_exit(last) && out.iter().any(is_exit) {
            continue;
        }
        out.push(last.clone());
    }
    // Without a way out the set does nothing.
    let leaves = out.iter().any(is_exit);
    if leaves { out } else { Vec::new() }
}

/// Whether a packet that did these actions can be put back by further ones, so that a clone needs no
/// copy in the datapath.
fn is_reversible(list: &[Action]) -> bool {
    !list.iter().any(|a| {
        matches!(
            a,
            Action::Ct(_)
                | Action::Meter(_)
                | Action::OutputTrunc { .. }
                | Action::Encap(_)
                | Action::Decap(_)
                | Action::DecNshTtl
        )
    })
}

impl Ctx<'_> {
    /// Does a list. `is_last`: nothing follows it for this packet.
    pub fn do_actions(&mut self, list: &[Action], is_last: bool) {
        self.do_actions_in(list, is_last, false);
    }

    /// As [`Self::do_actions`]; `bucket`: of a group.
    pub fn do_actions_in(&mut self, list: &[Action], is_last: bool, bucket: bool) {
        if list.is_empty() {
            self.report(Kind::Action, || "drop".to_owned());
            return;
        }
        for (i, a) in list.iter().enumerate() {
            if self.error.is_some() {
                break;
            }
            let rest = &list[i + 1..];
            self.freeze_for_mpls(a);
            if self.exit {
                if self.freezing {
                    self.freeze_rest(&list[i..]);
                }
                break;
            }
            if let Some(t) = self.trace.as_deref() {
                let map = t.names.then(|| crate::text::port_map(&self.bridge));
                let text = crate::text::actions(std::slice::from_ref(a), map.as_ref());
                self.report(Kind::Action, || text);
            }
            let last = is_last && rest.is_empty() && self.action_set.is_empty();
            if self.do_action(a, rest, last, bucket) == Next::Stop {
                return;
            }
            if self.error.is_none() && self.exit && self.freezing && self.frozen_actions.is_empty() {
                // The action froze. It runs again when thawed, unless it is one that asked for that.
                let skip = matches!(
                    a,
                    Action::Resubmit { .. }
                        | Action::GotoTable(_)
                        | Action::DebugRecirc
                        | Action::Decap(_)
                        | Action::Controller(_)
                );
                self.freeze_rest(if skip { rest } else { &list[i..] });
                break;
            }
        }
    }

    fn do_action(&mut self, a: &Action, rest: &[Action], last: bool, bucket: bool) -> Next {
        let in_port = OfPort(self.flow.in_port as u16);
        match a {
            Action::Output { port, max_len } => self.output_action(*port, *max_len, last, false, bucket),
            Action::OutputReg { src, max_len } => {
                let port = src.get_u64(&self.flow);
                src.unwildcard(&mut self.wc);
                match u16::try_from(port) {
                    Ok(p) => {
                        self.detail(&format!("output port is {p}"));
                        self.output_action(OfPort(p), *max_len, last, false, bucket);
                    }
                    Err(_) => self.warn(&format!("output port {port} is out of range")),
                }
            }
            Action::OutputTrunc { port, max_len } => self.output_trunc(*port, *max_len, last),
            Action::Controller(c) if c.pause => {
                self.pause = Some(c.clone());
                self.trigger_freeze();
            }
            Action::Controller(c) => {
                self.controller_action(c);
            }
            Action::Enqueue { port, queue } => {
                self.wc.0.skb_priority = u32::MAX;
                let old = std::mem::replace(&mut self.flow.skb_priority, *queue);
                match *port {
                    OfPort::IN_PORT => self.output(in_port, last, false),
                    p if p == in_port => self.warn("skipping output to input port"),
                    p => self.output(p, last, false),
                }
                self.flow.skb_priority = old;
            }
            Action::Bundle(b) => {
                let alive = |c: &Self, p: OfPort| c.bridge.ports.get(&p).is_some_and(|x| x.live);
                let chosen = match b.alg {
                    BundleAlg::ActiveBackup => b.members.iter().copied().find(|p| alive(self, *p)),
                    // Nothing to choose.
                    BundleAlg::Hrw if b.members.len() == 1 => {
                        b.members.first().copied().filter(|p| alive(self, *p))
                    }
                    BundleAlg::Hrw => {
                        let hash = super::group::hash_fields(&mut self.wc, &self.flow, b.fields, b.basis);
                        let live = b.members.iter().enumerate().filter(|(_, p)| alive(self, **p));
                        let weigh = |i: usize| (two_words(i as u32, hash), Reverse(i));
                        live.max_by_key(|(i, _)| weigh(*i)).map(|(_, p)| *p)
                    }
                };
                let port = chosen.unwrap_or(OfPort::NONE);
                match &b.dst {
                    Some(dst) => {
                        dst.set_flow(&mut self.flow, &FieldValue::from_u128(port.0.into()));
                        self.report_subfield(dst);
                    }
                    None => self.output_action(port, 0, last, false, bucket),
                }
            }
            Action::Group(id) => {
                if !self.group_action(*id, last) {
                    return Next::Stop;
                }
            }
            Action::SetField(s) => self.set_field(s),
            Action::RegMove { src, dst } => {
                let (s, d) = (src.field.field(), dst.field.field());
                let (s_ok, d_ok) = (
                    s.are_prereqs_ok(&self.flow, Some(&mut self.wc)),
                    d.are_prereqs_ok(&self.flow, Some(&mut self.wc)),
                );
                if s_ok && d_ok {
                    src.unwildcard(&mut self.wc);
                    dst.unwildcard(&mut self.wc);
                    let v = src.get(&self.flow);
                    dst.set_flow(&mut self.flow, &v);
                    self.report_subfield(dst);
                } else {
                    let f = if s_ok { d } else { s };
                    self.warn(&format!("unmet prerequisites for {}, move ignored", f.name));
                }
            }
            Action::StackPush(sf) => {
                sf.unwildcard(&mut self.wc);
                let bytes = sf.n_bits.div_ceil(8);
                if self.stack_bytes < MAX_STACK_BYTES {
                    self.stack.push((sf.get(&self.flow), bytes));
                    self.stack_bytes += bytes as usize + 1;
                }
            }
            Action::StackPop(sf) => match self.stack.pop() {
                Some((v, bytes)) => {
                    self.stack_bytes = self.stack_bytes.saturating_sub(bytes as usize + 1);
                    sf.unwildcard(&mut self.wc);
                    sf.set_flow(&mut self.flow, &v);
                    self.report_subfield(sf);
                }
                None => self.report_error("stack underflow"),
            },
            Action::SetVlanVid { vid, push_if_needed } => {
                self.wc.0.vlans[0].tci |= Be16::new(Vlan::VID_MASK | Vlan::CFI);
                self.set_tci(*push_if_needed, Vlan::VID_MASK, *vid);
            }
            Action::SetVlanPcp { pcp, push_if_needed } => {
                self.wc.0.vlans[0].tci |= Be16::new(Vlan::PCP_MASK | Vlan::CFI);
                self.set_tci(*push_if_needed, Vlan::PCP_MASK, u16::from(*pcp) << 13);
            }
            Action::StripVlan(_) => pop_vlan(&mut self.flow, &mut self.wc),
            Action::PushVlan(tpid) => {
                push_vlan(&mut self.flow, &mut self.wc);
                self.flow.vlans[0] = Vlan { tpid: *tpid, tci: Be16::new(Vlan::CFI) };
            }
            Action::SetEthSrc(mac) => {
                self.wc.0.dl_src = ib_packet::Mac::BROADCAST;
                self.flow.dl_src = *mac;
            }
            Action::SetEthDst(mac) => {
                self.wc.0.dl_dst = ib_packet::Mac::BROADCAST;
                self.flow.dl_dst = *mac;
            }
            Action::SetIpv4Src(ip) if self.flow.dl_type.get() == 0x0800 => {
                self.wc.0.nw_src = Be32::MAX;
                self.wc.0.nw_proto = 0xff;
                self.flow.nw_src = *ip;
            }
            Action::SetIpv4Dst(ip) if self.flow.dl_type.get() == 0x0800 => {
                self.wc.0.nw_dst = Be32::MAX;
                self.wc.0.nw_proto = 0xff;
                self.flow.nw_dst = *ip;
            }
            Action::SetIpDscp(dscp) if is_ip_any(&self.flow) => {
                self.wc.0.nw_tos |= 0xfc;
                self.flow.nw_tos = self.flow.nw_tos & 0x03 | dscp & 0xfc;
            }
            Action::SetIpEcn(ecn) if is_ip_any(&self.flow) => {
                self.wc.0.nw_proto = 0xff;
                self.wc.0.nw_tos |= 0x03;
                self.flow.nw_tos = self.flow.nw_tos & 0xfc | ecn & 0x03;
            }
            Action::SetIpTtl(ttl) if is_ip_any(&self.flow) => {
                self.wc.0.nw_ttl = 0xff;
                self.wc.0.nw_proto = 0xff;
                self.flow.nw_ttl = *ttl;
            }
            Action::SetL4Src(port) if self.has_l4() => {
                self.wc.0.nw_proto = 0xff;
                self.wc.0.tp_src = Be16::MAX;
                self.flow.tp_src = Be16::new(*port);
            }
            Action::SetL4Dst(port) if self.has_l4() => {
                self.wc.0.nw_proto = 0xff;
                self.wc.0.tp_dst = Be16::MAX;
                self.flow.tp_dst = Be16::new(*port);
            }
            Action::DecTtl(ids) => {
                if self.dec_ttl(ids) {
                    return Next::Stop;
                }
            }
            Action::SetMplsLabel(label) => self.set_mpls(0xffff_f000, label << 12),
            Action::SetMplsTc(tc) => self.set_mpls(0x0e00, u32::from(*tc) << 9),
            Action::SetMplsTtl(ttl) => self.set_mpls(0xff, u32::from(*ttl)),
            Action::DecMplsTtl => {
                if is_mpls(self.flow.dl_type) {
                    self.wc.0.mpls_lse[0] |= Be32::new(0xff);
                    let ttl = self.flow.mpls_lse[0].get() & 0xff;
                    if ttl > 1 {
                        self.set_mpls(0xff, ttl - 1);
                    } else {
                        self.invalid_ttl(0);
                        self.warn("MPLS decrement TTL exception");
                        return Next::Stop;
                    }
                }
            }
            Action::DecNshTtl => {
                if self.flow.dl_type.get() == 0x894f {
                    self.wc.0.nsh.ttl = 0xff;
                    if self.flow.nsh.ttl > 1 {
                        self.flow.nsh.ttl -= 1;
                    } else {
                        self.invalid_ttl(0);
                        self.warn("NSH decrement TTL exception");
                        return Next::Stop;
                    }
                }
            }
            Action::PushMpls(eth) => self.push_mpls(*eth),
            Action::PopMpls(eth) => self.pop_mpls(*eth),
            Action::DeleteField(f) => {
                let field = f.field();
                if field.is_tun_metadata() {
                    let n = *f as u8 - FieldId::TunMetadata0 as u8;
                    self.flow.tunnel.opts_present &= !(1 << n);
                }
                self.detail(&format!("delete {}", field.name));
            }
            Action::SetTunnel { id, .. } => self.flow.tunnel.tun_id = Be64::new(*id),
            Action::SetQueue(q) => {
                self.wc.0.skb_priority = u32::MAX;
                self.flow.skb_priority = *q;
            }
            Action::PopQueue => {
                self.wc.0.skb_priority = u32::MAX;
                if self.flow.skb_priority != self.orig_skb_priority {
                    self.flow.skb_priority = self.orig_skb_priority;
                    let queue = crate::text::c_hex(self.orig_skb_priority.into());
                    self.detail(&format!("queue = {queue}"));
                }
            }
            Action::FinTimeout { idle, hard } => {
                self.wc.0.nw_proto = 0xff;
                if self.flow.nw_proto == 6 && is_ip_any(&self.flow) {
                    let fin_rst = self.flow.tcp_flags.get() & 0x05 != 0;
                    if let (Some(rule), true) = (&self.rule, fin_rst || self.trace.is_none()) {
                        let of = Arc::clone(&self.bridge.of);
                        self.cache.push(CacheEntry::FinTimeout(of, Arc::clone(rule), *idle, *hard));
                    }
                }
            }
            Action::Resubmit { in_port: port, table, with_ct_orig, .. } => {
                let port = if *port == OfPort::IN_PORT { in_port } else { *port };
                let table = if *table == 0xff { self.table } else { *table };
                let may_packet_in = false;
                if table == crate::ofproto::INTERNAL_TABLE && self.packet_out {
                    self.report_error("cannot resubmit to internal table");
                } else {
                    self.table_action(port, table, may_packet_in, false, *with_ct_orig, last);
                }
            }
            Action::Learn(l) => self.learn_action(l),
            Action::Conjunction { .. } => self.report_error("executing no-op conjunction action"),
            Action::Multipath(m) => {
                let hash = super::group::hash_fields(&mut self.wc, &self.flow, m.fields, m.basis);
                let link = super::group::multipath_link(m, hash);
                m.dst.set_flow(&mut self.flow, &FieldValue::from_u128(link.into()));
                self.report_subfield(&m.dst);
            }
            Action::Note(_) => {}
            Action::Exit => self.exit = true,
            Action::UnrollXlate { table, cookie } => {
                self.table = *table;
                self.rule_cookie = *cookie;
                let cookie = *cookie;
                let table = *table;
                self.report(Kind::Action, || format!("restored state: table={table}, cookie={cookie:#x}"));
            }
            Action::Sample(s) => self.sample_action(s),
            Action::Clone(list) => self.clone_actions(list, last, false),
            Action::Ct(ct) => self.ct_action(ct, last),
            Action::CtClear => {
                if self.conntracked {
                    self.commit();
                    clear_ct(&mut self.flow);
                    self.conntracked = false;
                    self.out.push(Odp::CtClear);
                }
            }
            Action::CheckPktLarger { len, dst } => {
                return self.check_pkt_larger(*len, dst, rest);
            }
            Action::DebugRecirc => self.trigger_freeze(),
            Action::DebugSlow => self.slow |= SLOW_ACTION,
            Action::Encap(e) => self.encap(e),
            Action::Decap(to) => {
                if self.decap(*to) && self.error.is_none() {
                    self.trigger_freeze();
                }
            }
            Action::Meter(id) => {
                let meter = self.bridge.of.meters.read().get(id).map(|m| m.provider_id);
                match meter {
                    Some(id) => self.out.push(Odp::Meter(id)),
                    None => self.report_error(&format!("meter {id} is not present")),
                }
            }
            Action::ClearActions => {
                self.report_action_set("was");
                self.action_set.clear();
                self.flow.actset_output = OfPort::UNSET;
            }
            Action::WriteActions(list) => {
                self.action_set.extend(list.iter().cloned());
                self.flow.actset_output = actset_output(&self.action_set);
                self.report_action_set("is");
            }
            Action::WriteMetadata { value, mask } => {
                let old = self.flow.metadata.get();
                self.flow.metadata = Be64::new(old & !mask | value & mask);
            }
            Action::GotoTable(table) => self.table_action(in_port, *table, true, true, false, last),
            // The packet lacks the header that these would change.
            Action::SetIpv4Src(_)
            | Action::SetIpv4Dst(_)
            | Action::SetIpDscp(_)
            | Action::SetIpEcn(_)
            | Action::SetIpTtl(_)
            | Action::SetL4Src(_)
            | Action::SetL4Dst(_) => {}
        }
        Next::Go
    }

    fn has_l4(&self) -> bool {
        is_ip_any(&self.flow) && self.flow.nw_frag & Flow::FRAG_LATER == 0
    }

    fn set_tci(&mut self, push_if_needed: bool, mask: u16, bits: u16) {
        let v = &mut self.flow.vlans[0];
        if v.is_present() || push_if_needed {
            if v.tpid.is_zero() {
                v.tpid = Be16::new(0x8100);
            }
            v.tci = Be16::new(v.tci.get() & !mask | bits & mask | Vlan::CFI);
        }
    }

    fn set_field(&mut self, s: &SetField) {
        let f = s.field.field();
        if !f.are_prereqs_ok(&self.flow, Some(&mut self.wc)) {
            self.warn(&format!("unmet prerequisites for {}, set_field ignored", f.name));
            return;
        }
        let value = FieldValue::from_bytes(&s.value);
        let mask = FieldValue::from_bytes(&s.mask);
        if depends_on_protocol(s.field) {
            self.wc.0.nw_proto = 0xff;
        }
        f.unwildcard_bits(&mut self.wc, &mask);
        f.set_flow_masked(&mut self.flow, &value, &mask);
    }

    /// Says what a subfield is now.
    pub fn report_subfield(&mut self, sf: &Subfield) {
        if self.trace.is_none() {
            return;
        }
        let value = sf.get(&self.flow);
        let text = if sf.is_whole() {
            ib_flow::text::format_value(sf.field.field(), &value, &FieldValue::ONES, None)
        } else {
            ib_flow::text::hex(&value)
        };
        self.report(Kind::Detail, || format!("{sf} is now {text}"));
    }

    /// Says what is in the action set.
    pub fn report_action_set(&mut self, verb: &str) {
        if self.trace.is_none() {
            return;
        }
        let list = execution_order(&self.action_set);
        let text = if list.is_empty() {
            format!("action set {verb} empty")
        } else {
            format!("action set {verb}: {}", crate::text::actions(&list, None))
        };
        self.report(Kind::Detail, || text);
    }

    /// Returns whether the TTL ran out: the list ends there.
    fn dec_ttl(&mut self, ids: &[u16]) -> bool {
        // As the original, also of packets that have no TTL.
        self.wc.0.nw_ttl = 0xff;
        self.wc.0.nw_proto = 0xff;
        if !is_ip_any(&self.flow) {
            return false;
        }
        if self.flow.nw_ttl > 1 {
            self.flow.nw_ttl -= 1;
            return false;
        }
        // Without ids it is for the controllers of id 0.
        for id in if ids.is_empty() { &[0] } else { ids } {
            self.invalid_ttl(*id);
        }
        let version = if self.flow.dl_type.get() == 0x0800 { 4 } else { 6 };
        self.warn(&format!("IPv{version} decrement TTL exception"));
        true
    }

    /// Tells the controllers of an id that a TTL ran out.
    fn invalid_ttl(&mut self, id: u16) {
        let reason = PacketInReason::InvalidTtl as u8;
        self.controller_action(&Controller { reason, id, ..Controller::default() });
    }

    fn set_mpls(&mut self, mask: u32, bits: u32) {
        if is_mpls(self.flow.dl_type) {
            self.wc.0.mpls_lse[0] |= Be32::new(mask);
            let old = self.flow.mpls_lse[0].get();
            self.flow.mpls_lse[0] = Be32::new(old & !mask | bits & mask);
        }
    }

    fn push_mpls(&mut self, ethertype: Be16) {
        let n = count_mpls(&self.flow, &mut self.wc);
        if n >= N_MPLS {
            self.log_error(&format!(
                "dropping packet on which an MPLS push action can't be performed as it would have more MPLS \
                 LSEs than the {N_MPLS} supported."
            ));
            self.error = Some(XlateError::TooManyMplsLabels);
            return;
        }
        if n == 0 {
            self.commit();
            let mut label = 0u32;
            let mut tc = 0u32;
            let mut ttl = 64u32;
            if is_ip_any(&self.flow) {
                if self.flow.dl_type.get() == 0x86dd {
                    label = 2;
                }
                tc = u32::from(self.flow.nw_tos & 0xfc) >> 2;
                self.wc.0.nw_tos |= 0xfc;
                self.wc.0.nw_ttl = 0xff;
                if self.flow.nw_ttl != 0 {
                    ttl = self.flow.nw_ttl.into();
                }
            }
            clear_l3(&mut self.flow);
            self.flow.mpls_lse[0] = Be32::new(label << 12 | (tc & 7) << 9 | 0x100 | ttl);
        } else {
            self.wc.0.mpls_lse[..n].fill(Be32::MAX);
            let top = self.flow.mpls_lse[0].get();
            self.flow.mpls_lse.copy_within(..N_MPLS - 1, 1);
            self.flow.mpls_lse[0] = Be32::new(top & !0x100);
        }
        self.flow.dl_type = ethertype;
    }

    fn pop_mpls(&mut self, ethertype: Be16) {
        let n = count_mpls(&self.flow, &mut self.wc);
        if n == 0 {
            return;
        }
        if n >= N_MPLS && self.flow.mpls_lse[N_MPLS - 1].get() & 0x100 == 0 {
            self.report_error(&format!(
                "dropping packet on which an MPLS pop action can't be performed as it has more MPLS LSEs \
                 than the {N_MPLS} supported."
            ));
            self.error = Some(XlateError::TooManyMplsLabels);
            return;
        }
        self.wc.0.mpls_lse[1..n].fill(Be32::MAX);
        self.flow.mpls_lse.copy_within(1.., 0);
        self.flow.mpls_lse[N_MPLS - 1] = Be32::ZERO;
        self.flow.dl_type = ethertype;
        if !is_mpls(ethertype) {
            self.was_mpls = true;
        }
    }

    /// What lies below a popped MPLS header is unknown until the packet was parsed again: an action that
    /// needs it freezes first.
    fn freeze_for_mpls(&mut self, a: &Action) {
        if !self.was_mpls || self.exit {
            return;
        }
        let l3 = |sf: &Subfield| is_l3_field(sf.field);
        let needs = match a {
            Action::SetField(s) => is_l3_field(s.field),
            Action::RegMove { src, dst } => l3(src) || l3(dst),
            Action::StackPush(sf) | Action::StackPop(sf) => l3(sf),
            Action::OutputReg { src, .. } => l3(src),
            Action::SetIpv4Src(_)
            | Action::SetIpv4Dst(_)
            | Action::SetIpDscp(_)
            | Action::SetIpEcn(_)
            | Action::SetIpTtl(_)
            | Action::SetL4Src(_)
            | Action::SetL4Dst(_)
            | Action::DecTtl(_)
            | Action::Multipath(_)
            | Action::Bundle(_)
            | Action::Ct(_)
            | Action::Learn(_)
            | Action::PushMpls(_)
            | Action::PopMpls(_)
            | Action::Resubmit { .. }
            | Action::GotoTable(_)
            | Action::FinTimeout { .. } => true,
            _ => false,
        };
        if needs {
            self.trigger_freeze();
        }
    }

    /// `clone(...)`, and groups' buckets.
    pub fn clone_actions(&mut self, list: &[Action], is_last: bool, bucket: bool) {
        let old_flow = self.flow.clone();
        let old_stack = self.stack.clone();
        let old_stack_bytes = self.stack_bytes;
        // What a bucket's tables write into the action set stays there, unlike what a clone's do.
        let old_set = (!bucket).then(|| self.action_set.clone());
        let old_conntracked = self.conntracked;
        let old_was_mpls = self.was_mpls;
        let froze;
        if is_reversible(list) || is_last {
            self.do_actions_in(list, is_last, bucket);
            froze = self.freezing;
            self.end_branch(bucket);
        } else if !self.bridge.features.clone && self.bridge.features.sample_nesting <= CLONE_NESTING {
            self.report_error("Failed to compose clone action");
            froze = false;
        } else {
            self.commit();
            let old_base = self.base.clone();
            let outer = std::mem::take(&mut self.out);
            self.do_actions_in(list, true, bucket);
            froze = self.freezing;
            self.end_branch(bucket);
            let inner = std::mem::replace(&mut self.out, outer);
            if !inner.is_empty() {
                // A sample of all packets is as good, where samples nest.
                self.out.push(if self.bridge.features.clone {
                    Odp::Clone(inner.into())
                } else {
                    Odp::Sample { probability: u32::MAX, actions: inner.into() }
                });
            }
            self.base = old_base;
            self.was_mpls = old_was_mpls;
            self.conntracked = old_conntracked;
        }
        // What ends a bucket ends no more than that; an `exit` in a clone is everyone's, a freeze too.
        self.exit = !bucket && (self.exit || froze);
        if let Some(set) = old_set {
            self.action_set = set;
        }
        self.stack = old_stack;
        self.stack_bytes = old_stack_bytes;
        self.flow = old_flow;
    }

    /// What ends a pipeline, at the end of a branch of it.
    fn end_branch(&mut self, bucket: bool) {
        if !self.freezing && !bucket {
            self.do_action_set();
        }
        if self.freezing {
            self.finish_freezing();
        }
    }

    fn check_pkt_larger(&mut self, len: u16, dst: &Subfield, rest: &[Action]) -> Next {
        let set = |c: &mut Self, on: bool| dst.set_flow(&mut c.flow, &FieldValue::from_u128(on.into()));
        if !self.bridge.features.check_pkt_len {
            let larger = self.packet.is_some_and(|p| p.len() > usize::from(len));
            set(self, larger);
            self.slow |= SLOW_ACTION;
            return Next::Go;
        }
        self.commit();
        let mut branches: Vec<Arc<[Odp]>> = Vec::new();
        for larger in [true, false] {
            let old_flow = self.flow.clone();
            let old_base = self.base.clone();
            let old_stack = self.stack.clone();
            let old_set = self.action_set.clone();
            let (old_conn, old_mpls, old_exit) = (self.conntracked, self.was_mpls, self.exit);
            let outer = std::mem::take(&mut self.out);
            set(self, larger);
            self.do_actions(rest, true);
            self.end_branch(false);
            let inner = std::mem::replace(&mut self.out, outer);
            branches.push(inner.into());
            self.flow = old_flow;
            self.base = old_base;
            self.stack = old_stack;
            self.action_set = old_set;
            (self.conntracked, self.was_mpls, self.exit) = (old_conn, old_mpls, old_exit);
        }
        let less_or_equal = branches.pop().unwrap_or_default();
        let greater = branches.pop().unwrap_or_default();
        self.out.push(Odp::CheckPktLen { len, greater, less_or_equal });
        // Both branches did the rest, action set included.
        self.action_set.clear();
        Next::Stop
    }

    fn ct_action(&mut self, ct: &Ct, is_last: bool) {
        self.conntrack(ct, is_last);
    }
}

/// Datapaths without clones need samples that nest deeper than this.
const CLONE_NESTING: u32 = 3;

/// Whether the list goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

/// Whether there is such a field to write depends on the IP protocol (or ARP operation), which may be absent.
fn depends_on_protocol(f: FieldId) -> bool {
    matches!(
        f,
        FieldId::IpSrc
            | FieldId::IpDst
            | FieldId::Ipv6Src
            | FieldId::Ipv6Dst
            | FieldId::Ipv6Label
            | FieldId::IpTos
            | FieldId::IpEcn
            | FieldId::IpTtl
            | FieldId::ArpOp
            | FieldId::ArpSpa
            | FieldId::ArpTpa
            | FieldId::ArpSha
            | FieldId::ArpTha
    )
}

/// A field of the network header or above.
fn is_l3_field(f: FieldId) -> bool {
    f >= FieldId::IpSrc && !f.field().is_register()
}

/// Makes everything from the network header up unknown.
pub(super) fn clear_l3(flow: &mut Flow) {
    let from = std::mem::offset_of!(Flow, nw_src) / 8;
    flow.words_mut()[from..].fill(0);
    flow.dp_hash = 0;
}
