//! The `learn` action: a flow made from a packet.

use std::sync::Arc;

use ib_classifier::MiniMatch;
use ib_flow::fields::FieldValue;
use ib_flow::{Flow, Match, OfPort};
use ib_openflow::action::{Action, Learn, LearnDst, LearnFlags, LearnSrc, SetField, SetFieldForm};
use ib_openflow::message::{FlowMod, FlowModFlags};

use super::Ctx;
use super::cache::CacheEntry;
use crate::flow_mod::{Origin, RuleMod, canonical_match, rule_mod};
use crate::ofproto::Ofproto;

impl Ctx<'_> {
    /// `learn(...)`.
    pub fn learn_action(&mut self, learn: &Learn) {
        for spec in &learn.specs {
            if let LearnSrc::Field(sf) = &spec.src {
                sf.unwildcard(&mut self.wc);
            }
        }
        let quiet = self.trace.is_some() && !self.side_effects;
        if quiet {
            self.warn("suppressing side effects, so learn action ignored");
            return;
        }
        let mut fm = learned_flow(learn, &self.flow);
        canonical_match(&mut fm.match_);
        if self.trace.is_some() {
            let text = describe(&fm);
            self.detail(&text);
        }
        let fm = Arc::new(rule_mod(fm));
        let of = Arc::clone(&self.bridge.of);
        let mut ok = true;
        if self.side_effects {
            ok = within_limit(&of, learn, &fm);
            if ok {
                // Tables that this translation looks up later still are as it met them.
                refresh(&of, &fm, Origin::default());
            }
        }
        if let Some(dst) = &learn.result_dst {
            dst.unwildcard(&mut self.wc);
            dst.set_flow(&mut self.flow, &FieldValue::from_u128(ok.into()));
            self.report_subfield(dst);
        }
        if ok {
            self.cache.push(CacheEntry::Learn(of, fm));
        } else {
            self.detail("Limit exceeded, learn failed");
        }
    }
}

/// Whether the table may take this flow: it is there already, or there are fewer than `limit`.
fn within_limit(of: &Ofproto, learn: &Learn, fm: &RuleMod) -> bool {
    if learn.limit == 0 {
        return true;
    }
    let Some(table) = of.tables.get(usize::from(fm.table_id)) else { return false };
    let version = of.current_version();
    if table.cls.find_exact_mini(&fm.match_, fm.priority.into(), version).is_some() {
        return true;
    }
    let same_cookie = table
        .cls
        .collect_loose(&MiniMatch::catch_all(), version)
        .iter()
        .filter(|r| r.cookie == learn.cookie)
        .count();
    same_cookie < learn.limit as usize
}

/// Adds the flow, or, if the same one is there, restarts its hard timeout without disturbing it.
pub(crate) fn refresh(of: &Ofproto, fm: &RuleMod, origin: Origin) {
    let now = of.clock.now();
    let version = of.current_version();
    let table = of.tables.get(usize::from(fm.table_id));
    let old = table.and_then(|t| t.cls.find_exact_mini(&fm.match_, fm.priority.into(), version));
    if let Some(old) = old
        && old.cookie == fm.new_cookie
        && old.actions[..] == fm.actions[..]
        && old.idle_timeout() == fm.idle_timeout
        && old.hard_timeout() == fm.hard_timeout
    {
        old.refresh(now);
        return;
    }
    let _ = of.flow_mod(fm.clone(), origin, now);
}

fn bits_of(spec_src: &LearnSrc, n_bits: u16, flow: &Flow) -> FieldValue {
    let mut out = FieldValue::ZERO;
    let v = match spec_src {
        LearnSrc::Field(sf) => sf.get(flow),
        LearnSrc::Immediate(bytes) => FieldValue::from_bytes(bytes),
    };
    out.set_bits(0, n_bits.into(), &v);
    out
}

/// The flow that a packet teaches.
fn learned_flow(learn: &Learn, flow: &Flow) -> FlowMod {
    let mut m = Match::catch_all();
    let mut actions = Vec::new();
    if learn.fin_idle_timeout != 0 || learn.fin_hard_timeout != 0 {
        actions.push(Action::FinTimeout { idle: learn.fin_idle_timeout, hard: learn.fin_hard_timeout });
    }
    for spec in &learn.specs {
        let v = bits_of(&spec.src, spec.n_bits, flow);
        match &spec.dst {
            LearnDst::Match(sf) => {
                let _ = sf.set_match(&mut m, &v);
            }
            LearnDst::Load(sf) => {
                let n = sf.field.field().n_bytes;
                let mut value = FieldValue::ZERO;
                value.set_bits(sf.ofs, sf.n_bits, &v);
                actions.push(Action::SetField(SetField {
                    field: sf.field,
                    value: value.bytes(n).into(),
                    mask: sf.mask().bytes(n).into(),
                    form: SetFieldForm::RegLoad,
                }));
            }
            LearnDst::Output => {
                let port = OfPort(v.to_u64() as u16);
                let ok = port < OfPort::MAX
                    || matches!(port, OfPort::IN_PORT | OfPort::FLOOD | OfPort::LOCAL | OfPort::ALL);
                if ok {
                    actions.push(Action::Output { port, max_len: 0 });
                }
            }
        }
    }
    let mut flags = 0;
    if learn.flags & LearnFlags::SEND_FLOW_REM != 0 {
        flags |= FlowModFlags::SEND_FLOW_REM;
    }
    FlowMod {
        match_: m,
        priority: learn.priority,
        new_cookie: learn.cookie,
        modify_cookie: learn.cookie != u64::MAX,
        table_id: learn.table,
        idle_timeout: learn.idle_timeout,
        hard_timeout: learn.hard_timeout,
        flags,
        actions,
        ..FlowMod::default()
    }
}

fn describe(fm: &FlowMod) -> String {
    use std::fmt::Write;
    let mut s = format!("table={} ", fm.table_id);
    let what = crate::text::match_(&fm.match_, None);
    if !what.is_empty() {
        s.push_str(&what);
        s.push(' ');
    }
    let _ = write!(s, "priority={}", fm.priority);
    if fm.new_cookie != 0 {
        let _ = write!(s, " cookie={:#x}", fm.new_cookie);
    }
    if fm.idle_timeout != 0 {
        let _ = write!(s, " idle={}", fm.idle_timeout);
    }
    if fm.hard_timeout != 0 {
        let _ = write!(s, " hard={}", fm.hard_timeout);
    }
    if fm.flags & FlowModFlags::SEND_FLOW_REM != 0 {
        s.push_str(" send_flow_rem");
    }
    let _ = write!(s, " actions={}", crate::text::actions(&fm.actions, None));
    s
}
