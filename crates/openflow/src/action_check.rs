//! Whether a flow's actions make sense: by themselves ([`verify`]) and with its match ([`check`]).

use ib_base::vlog::module::{BUNDLE, OFP_ACTIONS};
use ib_base::vlog_warn_rl;
use ib_flow::fields::{Protocols, effective_dl_type};
use ib_flow::{CtState, FieldId, Flow, Match, OfPort, Subfield, Vlan};
use ib_packet::Be16;

use crate::action::*;
use crate::action_decode::check_subfield;
use crate::action_parse::Outer;
use crate::error::OfError;
use crate::message::OFPM_MAX;

/// Instructions in the order in which they execute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Inst {
    Meter,
    Apply,
    Clear,
    WriteActions,
    WriteMetadata,
    Goto,
}

impl Inst {
    fn of(a: &Action) -> Inst {
        match a {
            Action::Meter(_) => Inst::Meter,
            Action::ClearActions => Inst::Clear,
            Action::WriteActions(_) => Inst::WriteActions,
            Action::WriteMetadata { .. } => Inst::WriteMetadata,
            Action::GotoTable(_) => Inst::Goto,
            _ => Inst::Apply,
        }
    }
    fn name(self) -> &'static str {
        match self {
            Inst::Meter => "meter",
            Inst::Apply => "apply_actions",
            Inst::Clear => "clear_actions",
            Inst::WriteActions => "write_actions",
            Inst::WriteMetadata => "write_metadata",
            Inst::Goto => "goto_table",
        }
    }
}

type Complaint = (OfError, String);

/// The field that an action writes.
fn written_field(a: &Action) -> Option<FieldId> {
    Some(match a {
        Action::SetField(sf) => sf.field,
        Action::RegMove { dst, .. } | Action::StackPop(dst) => dst.field,
        Action::Bundle(b) => b.dst?.field,
        Action::Multipath(m) => m.dst.field,
        _ => return None,
    })
}

fn needs_ct(f: FieldId) -> bool {
    matches!(f, FieldId::CtMark | FieldId::CtLabel)
}

/// Checks one action against what it is nested in.
pub fn verify_nested(a: &Action, outer: Outer) -> Result<(), Complaint> {
    let field = written_field(a);
    // Others that write fields have always been let through.
    let sets = matches!(a, Action::SetField(_) | Action::RegMove { .. });
    if sets && field.is_some_and(needs_ct) && outer != Outer::Ct {
        return Err((OfError::OFPBAC_BAD_SET_ARGUMENT, "cannot set CT fields outside of ct action".into()));
    }
    if outer == Outer::Clone && matches!(a, Action::Meter(_)) {
        let text = format!("clone action doesn't support nested action {}", name(a));
        return Err((OfError::OFPBAC_BAD_ARGUMENT, text));
    }
    if outer == Outer::Ct {
        match field {
            None => {
                let text = format!("ct action doesn't support nested action {}", name(a));
                return Err((OfError::OFPBAC_BAD_ARGUMENT, text));
            }
            Some(f) if !needs_ct(f) => {
                let text = format!("ct action doesn't support nested modification of {}", f.field().name);
                return Err((OfError::OFPBAC_BAD_ARGUMENT, text));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks order and nesting of a list; the text is for users.
pub fn verify(actions: &[Action], outer: Outer) -> Result<(), Complaint> {
    if actions.iter().any(|a| matches!(a, Action::Conjunction { .. })) {
        let first = actions.iter().position(|a| matches!(a, Action::Conjunction { .. })).unwrap_or(0);
        verify_sequence(&actions[..first], outer)?;
        return match actions.iter().find(|a| !matches!(a, Action::Conjunction { .. } | Action::Note(_))) {
            None => Ok(()),
            Some(a) => Err((
                OfError::NXBAC_BAD_CONJUNCTION,
                format!(
                    "\"conjunction\" actions may be used along with \"note\" but not any other kind of action (such as \
                     the \"{}\" action used here)",
                    name(a)
                ),
            )),
        };
    }
    verify_sequence(actions, outer)
}

fn verify_sequence(actions: &[Action], outer: Outer) -> Result<(), Complaint> {
    let mut inst = Inst::Meter;
    for (i, a) in actions.iter().enumerate() {
        verify_nested(a, outer)?;
        let next = Inst::of(a);
        if i > 0 && if inst == Inst::Apply { next < inst } else { next <= inst } {
            let text = if next == inst {
                format!("duplicate {} instruction not allowed, for OpenFlow 1.1+ compatibility", inst.name())
            } else {
                format!(
                    "invalid instruction ordering: {} must appear before {}, for OpenFlow 1.1+ compatibility",
                    next.name(),
                    inst.name()
                )
            };
            return Err((OfError::OFPBAC_UNSUPPORTED_ORDER, text));
        }
        let allowed = match outer {
            Outer::Flow => true,
            _ => matches!(next, Inst::Apply | Inst::Meter),
        };
        if !allowed {
            let text = format!("{} instruction not allowed here", next.name());
            return Err((OfError::OFPBIC_UNSUP_INST, text));
        }
        inst = next;
    }
    Ok(())
}

/// The name of an action in texts.
pub fn name(a: &Action) -> &'static str {
    match a {
        Action::Output { .. } | Action::OutputReg { .. } => "output",
        Action::OutputTrunc { .. } => "output_trunc",
        Action::Controller(_) => "controller",
        Action::Enqueue { .. } => "enqueue",
        Action::Bundle(_) => "bundle",
        Action::Group(_) => "group",
        Action::SetField(_) => "set_field",
        Action::RegMove { .. } => "move",
        Action::StackPush(_) => "push",
        Action::StackPop(_) => "pop",
        Action::SetVlanVid { .. } => "set_vlan_vid",
        Action::SetVlanPcp { .. } => "set_vlan_pcp",
        Action::StripVlan(_) => "strip_vlan",
        Action::PushVlan(_) => "push_vlan",
        Action::SetEthSrc(_) => "mod_dl_src",
        Action::SetEthDst(_) => "mod_dl_dst",
        Action::SetIpv4Src(_) => "mod_nw_src",
        Action::SetIpv4Dst(_) => "mod_nw_dst",
        Action::SetIpDscp(_) => "mod_nw_tos",
        Action::SetIpEcn(_) => "mod_nw_ecn",
        Action::SetIpTtl(_) => "mod_nw_ttl",
        Action::SetL4Src(_) => "mod_tp_src",
        Action::SetL4Dst(_) => "mod_tp_dst",
        Action::DecTtl(_) => "dec_ttl",
        Action::SetMplsLabel(_) => "set_mpls_label",
        Action::SetMplsTc(_) => "set_mpls_tc",
        Action::SetMplsTtl(_) => "set_mpls_ttl",
        Action::DecMplsTtl => "dec_mpls_ttl",
        Action::DecNshTtl => "dec_nsh_ttl",
        Action::PushMpls(_) => "push_mpls",
        Action::PopMpls(_) => "pop_mpls",
        Action::DeleteField(_) => "delete_field",
        Action::SetTunnel { .. } => "set_tunnel",
        Action::SetQueue(_) => "set_queue",
        Action::PopQueue => "pop_queue",
        Action::FinTimeout { .. } => "fin_timeout",
        Action::Resubmit { .. } => "resubmit",
        Action::Learn(_) => "learn",
        Action::Conjunction { .. } => "conjunction",
        Action::Multipath(_) => "multipath",
        Action::Note(_) => "note",
        Action::Exit => "exit",
        Action::UnrollXlate { .. } => "unroll_xlate",
        Action::Sample(_) => "sample",
        Action::Clone(_) => "clone",
        Action::Ct(_) => "ct",
        Action::CtClear => "ct_clear",
        Action::CheckPktLarger { .. } => "check_pkt_larger",
        Action::DebugRecirc => "debug_recirc",
        Action::DebugSlow => "debug_slow",
        Action::Encap(_) => "encap",
        Action::Decap(_) => "decap",
        Action::Meter(_) => "meter",
        Action::ClearActions => "clear_actions",
        Action::WriteActions(_) => "write_actions",
        Action::WriteMetadata { .. } => "write_metadata",
        Action::GotoTable(_) => "goto_table",
    }
}

/// What [`check`] needs to know of the flow and the switch.
#[derive(Clone, Copy, Debug)]
pub struct CheckParams {
    /// First port number that does not exist.
    pub max_ports: OfPort,
    /// The flow's table, 255 if unknown.
    pub table: u8,
    /// Tables of the switch, 255 if unknown.
    pub n_tables: u8,
}

impl Default for CheckParams {
    fn default() -> Self {
        CheckParams { max_ports: OfPort::MAX, table: 0xff, n_tables: 0xff }
    }
}

/// Checks that actions suit a flow's match. `usable` loses the protocols that would refuse what OpenFlow 1.0 takes
/// silently (changing a field that the packet may not have).
pub fn check(
    actions: &[Action],
    match_: &Match,
    params: CheckParams,
    usable: &mut Protocols,
) -> Result<(), OfError> {
    let mut c = Checker { m: match_.clone(), params, usable };
    c.list(actions)
}

/// [`check`] for a flow that came by one protocol: fails if that one is not among the usable.
pub fn check_for(
    actions: &[Action],
    match_: &Match,
    params: CheckParams,
    via: Protocols,
) -> Result<(), OfError> {
    let mut usable = Protocols::ANY;
    check(actions, match_, params, &mut usable)?;
    if usable.and(via) == Protocols::NONE { Err(OfError::OFPBAC_MATCH_INCONSISTENT) } else { Ok(()) }
}

/// The first `tun_metadata` field that actions name and `bound` does not know, by its number.
pub fn unbound_tlv(actions: &[Action], bound: &dyn Fn(u8) -> bool) -> Option<u8> {
    let missing = |f: FieldId| {
        let n = (f as u8).checked_sub(FieldId::TunMetadata0 as u8).filter(|_| f.field().is_tun_metadata())?;
        (!bound(n)).then_some(n)
    };
    actions.iter().find_map(|a| match a {
        Action::SetField(s) => missing(s.field),
        Action::DeleteField(f) => missing(*f),
        Action::RegMove { src, dst } => missing(src.field).or_else(|| missing(dst.field)),
        Action::StackPush(sf) | Action::StackPop(sf) => missing(sf.field),
        Action::OutputReg { src, .. } => missing(src.field),
        Action::Bundle(b) => missing(b.dst?.field),
        Action::Multipath(m) => missing(m.dst.field),
        Action::CheckPktLarger { dst, .. } => missing(dst.field),
        Action::Learn(l) => l.specs.iter().find_map(|s| {
            let src = match &s.src {
                LearnSrc::Field(sf) => missing(sf.field),
                LearnSrc::Immediate(_) => None,
            };
            src.or_else(|| match &s.dst {
                LearnDst::Match(sf) | LearnDst::Load(sf) => missing(sf.field),
                LearnDst::Output => None,
            })
        }),
        Action::WriteActions(v) | Action::Clone(v) => unbound_tlv(v, bound),
        Action::Ct(ct) => unbound_tlv(&ct.actions, bound),
        _ => None,
    })
}

struct Checker<'a> {
    m: Match,
    params: CheckParams,
    usable: &'a mut Protocols,
}

fn is_ip_any(f: &Flow) -> bool {
    matches!(effective_dl_type(f), 0x0800 | 0x86dd)
}

fn is_mpls(t: u16) -> bool {
    matches!(t, 0x8847 | 0x8848)
}

/// Whether a match implies valid connection state.
fn ct_valid(m: &Match) -> bool {
    let (state, mask) = (m.flow.ct_state, m.mask.0.ct_state);
    let implied = CtState::NEW | CtState::EST | CtState::REL | CtState::RPL | CtState::SNAT | CtState::DNAT;
    state & implied != 0
        || (state & CtState::TRK != 0 && mask & CtState::INV != 0 && state & CtState::INV == 0)
}

impl Checker<'_> {
    fn inconsistent(&mut self) -> Result<(), OfError> {
        let left = self.usable.and(Protocols(0x0f));
        if left == Protocols::NONE {
            return Err(OfError::OFPBAC_MATCH_INCONSISTENT);
        }
        *self.usable = left;
        Ok(())
    }

    fn need(&mut self, ok: bool) -> Result<(), OfError> {
        if ok { Ok(()) } else { self.inconsistent() }
    }

    fn list(&mut self, actions: &[Action]) -> Result<(), OfError> {
        actions.iter().try_for_each(|a| self.one(a))
    }

    fn src(&self, sf: &Subfield) -> Result<(), OfError> {
        check_subfield(sf, false, Some(&self.m))
    }
    fn dst(&self, sf: &Subfield) -> Result<(), OfError> {
        check_subfield(sf, true, Some(&self.m))
    }

    fn port(&self, port: OfPort) -> Result<(), OfError> {
        let ok = port < self.params.max_ports || (port >= OfPort::IN_PORT && port != OfPort::NONE);
        if ok { Ok(()) } else { Err(OfError::OFPBAC_BAD_OUT_PORT) }
    }

    fn has_vlan(&self) -> bool {
        self.m.flow.vlans[0].tci.get() & Vlan::CFI != 0
    }

    fn one(&mut self, a: &Action) -> Result<(), OfError> {
        let ip = is_ip_any(&self.m.flow);
        match a {
            Action::Output { port, .. } | Action::OutputTrunc { port, .. } => self.port(*port),
            Action::Enqueue { port, .. } => {
                let ok = *port < self.params.max_ports || matches!(*port, OfPort::IN_PORT | OfPort::LOCAL);
                if ok { Ok(()) } else { Err(OfError::OFPBAC_BAD_OUT_PORT) }
            }
            Action::OutputReg { src, .. } => self.src(src),
            Action::Bundle(b) => {
                b.dst.as_ref().map_or(Ok(()), |d| self.dst(d))?;
                for p in &b.members {
                    if *p != OfPort::NONE && self.port(*p).is_err() {
                        vlog_warn_rl!(BUNDLE, (1, 5), "invalid member {}", p.0);
                        return Err(OfError::OFPBAC_BAD_OUT_PORT);
                    }
                    // There is no place for its max_len.
                    if *p == OfPort::CONTROLLER {
                        vlog_warn_rl!(BUNDLE, (1, 5), "unsupported controller member");
                        return Err(OfError::OFPBAC_BAD_OUT_PORT);
                    }
                }
                Ok(())
            }
            Action::SetField(sf) => {
                let f = sf.field.field();
                let tci = self.has_vlan();
                if !f.are_match_prereqs_ok(&self.m) || (sf.field == FieldId::VlanVid && !tci) {
                    vlog_warn_rl!(OFP_ACTIONS, (1, 5), "set_field {} lacks correct prerequisites", f.name);
                    return Err(OfError::OFPBAC_MATCH_INCONSISTENT);
                }
                if sf.field == FieldId::VlanTci
                    && let [a, b] = sf.value[..]
                {
                    self.m.flow.vlans[0].tci = Be16::from_bytes([a, b]);
                }
                Ok(())
            }
            Action::RegMove { src, dst } => {
                self.src(src)?;
                self.dst(dst)
            }
            Action::StackPush(sf) => self.src(sf),
            Action::StackPop(sf) => self.dst(sf),
            Action::SetVlanVid { push_if_needed, .. } | Action::SetVlanPcp { push_if_needed, .. } => {
                let ok = self.has_vlan() || *push_if_needed;
                self.need(ok)?;
                self.m.flow.vlans[0].tci |= Be16::new(Vlan::CFI);
                Ok(())
            }
            Action::StripVlan(_) => {
                let ok = self.has_vlan();
                self.need(ok)?;
                self.m.flow.vlans.rotate_left(1);
                *self.m.flow.vlans.last_mut().unwrap_or(&mut Vlan::default()) = Vlan::default();
                Ok(())
            }
            Action::PushVlan(_) => {
                let vlans = &mut self.m.flow.vlans;
                if vlans.last().is_some_and(|v| v.tci.get() & Vlan::CFI != 0) {
                    return Err(OfError::OFPBAC_BAD_TAG);
                }
                vlans.rotate_right(1);
                vlans[0] = Vlan { tpid: Be16::ZERO, tci: Be16::new(Vlan::CFI) };
                Ok(())
            }
            Action::SetIpv4Src(_) | Action::SetIpv4Dst(_) => {
                let ok = effective_dl_type(&self.m.flow) == 0x0800;
                self.need(ok)
            }
            Action::SetIpDscp(_) | Action::SetIpEcn(_) | Action::SetIpTtl(_) | Action::DecTtl(_) => {
                self.need(ip)
            }
            Action::SetL4Src(_) | Action::SetL4Dst(_) => {
                let f = &self.m.flow;
                let ok = ip && f.nw_frag & Flow::FRAG_LATER == 0 && matches!(f.nw_proto, 6 | 17 | 132);
                self.need(ok)
            }
            Action::SetMplsLabel(_) | Action::SetMplsTc(_) | Action::SetMplsTtl(_) | Action::DecMplsTtl => {
                let ok = is_mpls(effective_dl_type(&self.m.flow));
                self.need(ok)
            }
            Action::DecNshTtl => {
                let f = &self.m.flow;
                let ok = f.packet_type.get() == 0x1_894f || f.dl_type.get() == 0x894f;
                self.need(ok)
            }
            Action::PushMpls(t) => {
                self.m.flow.dl_type = *t;
                // What is behind the label is opaque now.
                self.m.flow.nw_proto = 0;
                Ok(())
            }
            Action::PopMpls(t) => {
                let ok = is_mpls(effective_dl_type(&self.m.flow));
                self.m.flow.dl_type = *t;
                self.need(ok)
            }
            Action::FinTimeout { .. } => {
                let ok = ip && self.m.flow.nw_proto == 6;
                self.need(ok)
            }
            Action::Resubmit { with_ct_orig: true, .. } if !ct_valid(&self.m) => {
                Err(OfError::OFPBAC_MATCH_INCONSISTENT)
            }
            Action::Learn(l) => self.learn(l),
            Action::Multipath(m) => self.dst(&m.dst),
            Action::Sample(s) => {
                for s in [&s.obs_domain_id, &s.obs_point_id] {
                    if let Source::Field(sf) = s {
                        self.src(sf)?;
                    }
                }
                Ok(())
            }
            Action::Clone(inner) => {
                let saved = self.m.clone();
                let r = self.list(inner);
                self.m = saved;
                r
            }
            Action::Ct(ct) => {
                if !ip {
                    return Err(OfError::OFPBAC_MATCH_INCONSISTENT);
                }
                if let Source::Field(sf) = &ct.zone {
                    self.src(sf)?;
                }
                // Helpers are for one transport each.
                let proto = self.m.flow.nw_proto;
                if (ct.alg == 21 && proto != 6) || (ct.alg == 69 && proto != 17) {
                    return Err(OfError::OFPBAC_MATCH_INCONSISTENT);
                }
                let t = effective_dl_type(&self.m.flow);
                match ct.nat.as_ref().map(|n| n.range) {
                    Some(NatRange::V4(..)) if t != 0x0800 => return Err(OfError::OFPBAC_MATCH_INCONSISTENT),
                    Some(NatRange::V6(..)) if t != 0x86dd => return Err(OfError::OFPBAC_MATCH_INCONSISTENT),
                    _ => {}
                }
                self.list(&ct.actions)
            }
            Action::CheckPktLarger { dst, .. } => self.dst(dst),
            Action::Encap(e) => {
                let t = e.packet_type.get();
                self.m.flow.packet_type = e.packet_type;
                if t >> 16 == 1 {
                    self.m.flow.dl_type = Be16::new(t as u16);
                }
                if !is_ip_any(&self.m.flow) {
                    self.m.flow.nw_proto = 0;
                }
                Ok(())
            }
            Action::Decap(t) => {
                if self.m.flow.packet_type.is_zero() {
                    let t = self.m.flow.dl_type.get();
                    self.m.flow.packet_type = ib_packet::Be32::new(1 << 16 | u32::from(t));
                } else if let Some(t) = t {
                    self.m.flow.packet_type = *t;
                } else {
                    self.m.flow.packet_type = ib_packet::Be32::ZERO;
                }
                Ok(())
            }
            Action::DeleteField(f) if !f.is_tun_metadata() => Err(OfError::OFPBAC_BAD_ARGUMENT),
            Action::Meter(id) if *id == 0 || *id > OFPM_MAX => Err(OfError::OFPMMFC_INVALID_METER),
            Action::WriteActions(inner) => {
                // The order in which a set executes is not known here: what it needs can't be held against it.
                let mut any = Protocols::ANY;
                Checker { m: self.m.clone(), params: self.params, usable: &mut any }.list(inner)
            }
            Action::GotoTable(t) => {
                let p = &self.params;
                let bad = (p.table != 255 && *t <= p.table) || (p.n_tables != 255 && *t >= p.n_tables);
                if bad { Err(OfError::OFPBIC_BAD_TABLE_ID) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn learn(&mut self, l: &Learn) -> Result<(), OfError> {
        let mut learned = Match::default();
        for s in &l.specs {
            if let LearnSrc::Field(sf) = &s.src {
                self.src(sf)?;
            }
            match &s.dst {
                LearnDst::Match(dst) => {
                    check_subfield(dst, false, Some(&learned))?;
                    if let LearnSrc::Immediate(v) = &s.src {
                        // A prerequisite for what follows.
                        let _ = dst.set_match(&mut learned, &ib_flow::FieldValue::from_bytes(v));
                    }
                }
                LearnDst::Load(dst) => {
                    check_subfield(dst, true, Some(&learned))?;
                }
                LearnDst::Output => {}
            }
        }
        Ok(())
    }
}
