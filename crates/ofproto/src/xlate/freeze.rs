//! Freezing a translation, conntrack, and what goes up to user space.

use std::sync::Arc;

use ib_dpif::text::UserCookie;
use ib_dpif::{Action as Odp, CtAction, NatAction, NatRange, UserspaceAction};
use ib_flow::OfPort;
use ib_openflow::action::{
    Action, CT_RECIRC_NONE, Controller, Ct, CtFlags, Nat, NatFlags, NatRange as OfNatRange, Source,
};
use ib_openflow::message::PacketInReason;
use ib_packet::Be128;

use super::trace::{Kind, RecircKind, Recirculation};
use super::{Ctx, clear_ct};
use crate::recirc::{FrozenMetadata, FrozenState};

impl Ctx<'_> {
    /// Ends the current pass: what follows happens after recirculation.
    pub fn trigger_freeze(&mut self) {
        self.exit = true;
        self.freezing = true;
    }

    fn cancel_freeze(&mut self) {
        self.exit = false;
        self.freezing = false;
        self.hash_before_recirc = None;
        self.frozen_actions.clear();
        self.pause = None;
    }

    /// Keeps actions for after the thaw. Ones that speak of their table or cookie get a note of both.
    pub fn freeze_rest(&mut self, list: &[Action]) {
        for a in list {
            let needs_context = match a {
                Action::OutputReg { .. }
                | Action::OutputTrunc { .. }
                | Action::Group(_)
                | Action::Output { .. }
                | Action::Controller(_)
                | Action::DecMplsTtl
                | Action::DecNshTtl
                | Action::DecTtl(_)
                | Action::WriteActions(_) => true,
                Action::Resubmit { table, .. } => *table == 0xff,
                _ => false,
            };
            if needs_context {
                let note = Action::UnrollXlate { table: self.table, cookie: self.rule_cookie };
                let same = self.frozen_actions.iter().rev().find(|a| matches!(a, Action::UnrollXlate { .. }));
                if same != Some(&note) {
                    self.frozen_actions.push(note);
                }
            }
            self.frozen_actions.push(match a {
                // Going to a table from wherever translation resumes.
                Action::GotoTable(table) => Action::Resubmit {
                    in_port: OfPort::IN_PORT,
                    table: *table,
                    with_ct_orig: false,
                    simple: false,
                },
                other => other.clone(),
            });
        }
    }

    fn frozen_state(&self, table: u8) -> FrozenState {
        FrozenState {
            bridge: self.bridge.of.id,
            table,
            metadata: FrozenMetadata {
                tunnel: Box::new(self.flow.tunnel.clone()),
                metadata: self.flow.metadata,
                regs: self.flow.regs,
                in_port: OfPort(self.flow.in_port as u16),
            },
            stack: self.stack.clone(),
            mirrors: self.mirrors,
            conntracked: self.conntracked,
            was_mpls: self.was_mpls,
            actions: self.frozen_actions.clone(),
            action_set: self.action_set.clone(),
            rule_cookie: self.rule_cookie,
            resumes: true,
            userdata: self.pause.as_ref().map(|c| c.userdata.clone()).unwrap_or_default(),
        }
    }

    /// Commits, gives the state an id, and recirculates with it.
    pub fn finish_freezing(&mut self) {
        self.commit();
        self.recirculate(0);
    }

    fn recirculate(&mut self, table: u8) {
        let now = self.backer.clock.now();
        let entry = self.backer.recirc.alloc(self.frozen_state(table), now);
        self.recircs.push(entry.clone());
        if self.pause.is_some() && self.trace.is_some() && !self.side_effects {
            // Nobody will take the packet up again. It has used up an id all the same, as traces show.
            self.cancel_freeze();
            return;
        }
        let kind = if let Some(pause) = self.pause.take() {
            self.put_controller(&pause, true, entry.id, pause.reason);
            RecircKind::Pause
        } else {
            let hash = self.hash_before_recirc.take();
            if let Some((alg, basis)) = hash {
                self.out.push(Odp::Hash { alg, basis });
            }
            self.out.push(Odp::Recirc(entry.id));
            match (self.conntracked, hash.is_some()) {
                (true, _) => RecircKind::Conntrack,
                (_, true) => RecircKind::Bond,
                _ => RecircKind::Mpls,
            }
        };
        if let (RecircKind::Conntrack, Some(t)) = (kind, self.trace.as_deref_mut()) {
            // What follows other kinds depends on bytes that a trace does not have.
            t.recirculations.push(Recirculation {
                kind,
                entry,
                flow: self.flow.clone(),
                nat: self.nat.clone(),
            });
            t.report(
                Kind::Detail,
                format!(
                    "A clone of the packet is forked to recirculate. The forked pipeline will be resumed at \
                     table {table}."
                ),
            );
        }
        self.cancel_freeze();
    }

    /// Hashes in the datapath, then comes back to the same action.
    pub fn freeze_with_hash(&mut self, alg: ib_dpif::HashAlg, basis: u32) {
        self.trigger_freeze();
        self.hash_before_recirc = Some((alg, basis));
    }

    fn put_userspace(&mut self, cookie: &UserCookie) {
        self.out.push(Odp::Userspace(UserspaceAction {
            pid: 0,
            userdata: cookie.to_bytes(),
            actions: false,
            egress_tun_out_port: None,
        }));
    }

    fn put_controller(&mut self, c: &Controller, continuation: bool, recirc_id: u32, reason: u8) {
        let cookie = UserCookie::Controller {
            reason,
            dont_send: self.trace.is_some() && !self.side_effects,
            continuation,
            recirc_id,
            rule_cookie: self.rule_cookie,
            controller_id: c.id,
            max_len: c.max_len,
        };
        let meter = c.meter.unwrap_or(crate::meter::OFPM_CONTROLLER);
        let meter = self.bridge.of.meters.read().get(&meter).map(|m| m.provider_id);
        let Some(meter) = meter else { return self.put_userspace(&cookie) };
        // What the meter drops must not end the packet's own way: it is a sample of all packets.
        let outer = std::mem::take(&mut self.out);
        self.put_userspace(&cookie);
        let mut metered = std::mem::replace(&mut self.out, outer);
        metered.insert(0, Odp::Meter(meter));
        self.out.push(Odp::Sample { probability: u32::MAX, actions: metered.into() });
    }

    /// Sends the packet to controllers as it is now.
    pub fn controller_action(&mut self, c: &Controller) {
        let reason = c.reason;
        self.commit();
        let from_miss = self.rule.as_ref().is_some_and(|r| r.is_table_miss());
        let reason = if reason == PacketInReason::Action as u8 && from_miss {
            PacketInReason::ExplicitMiss as u8
        } else {
            reason
        };
        let frozen = std::mem::take(&mut self.frozen_actions);
        let set = std::mem::take(&mut self.action_set);
        let mut state = self.frozen_state(self.table);
        self.frozen_actions = frozen;
        self.action_set = set;
        state.userdata.clone_from(&c.userdata);
        // Never the id of a state that resumes; the cookie travels beside it.
        state.resumes = false;
        state.rule_cookie = 0;
        let entry = self.backer.recirc.alloc(state, self.backer.clock.now());
        let recirc_id = entry.id;
        self.recircs.push(entry);
        self.put_controller(c, false, recirc_id, reason);
    }

    /// What the zone's timeouts are called for a packet like this one.
    fn timeout_of(&mut self, zone: u16) -> Option<Arc<str>> {
        let table = self.backer.dpif.conntrack()?;
        let policy = table.timeout_policy(zone)?;
        if table.timeouts_by_protocol() {
            self.wc.0.nw_proto = u8::MAX;
        }
        let v6 = self.flow.dl_type.get() == 0x86dd;
        table.timeout_name(policy, v6, self.flow.nw_proto).map(Into::into)
    }

    /// `ct(...)`.
    pub fn conntrack(&mut self, ct: &Ct, is_last: bool) {
        let zone = match &ct.zone {
            Source::Imm(z) => *z as u16,
            Source::Field(sf) => {
                // Registers are part of a thawed packet's recirculation id: no need to match them.
                let frozen_field = sf.field.field().is_register() && self.frozen.is_some();
                if !frozen_field {
                    sf.unwildcard(&mut self.wc);
                }
                sf.get_u64(&self.flow) as u16
            }
        };
        self.commit();
        let old_mark_mask = std::mem::take(&mut self.wc.0.ct_mark);
        let old_label_mask = std::mem::take(&mut self.wc.0.ct_label);
        let nested: Vec<Action> = ct.actions.clone();
        self.nat = ct.nat.clone();
        if ct.nat.is_some() && self.trace.is_some() {
            let text = nat_text(ct);
            self.report(Kind::Action, || text);
        }
        if !(nested.is_empty() && ct.nat.is_some()) {
            self.do_actions(&nested, is_last);
        }
        let m = &self.wc.0;
        let mark = (m.ct_mark != 0).then_some((self.flow.ct_mark & m.ct_mark, m.ct_mark));
        let label = (!m.ct_label.is_zero()).then_some((self.flow.ct_label & m.ct_label, m.ct_label));
        let commit = ct.flags & CtFlags::COMMIT != 0;
        let timeout = if commit { self.timeout_of(zone) } else { None };
        self.out.push(Odp::Ct(Box::new(CtAction {
            commit,
            force: ct.flags & CtFlags::FORCE != 0,
            zone,
            mark: if commit { mark } else { None },
            label: if commit { label } else { None },
            helper: match ct.alg {
                21 => Some("ftp".into()),
                69 => Some("tftp".into()),
                _ => None,
            },
            nat: ct.nat.as_ref().map(nat_action),
            timeout,
        })));
        self.wc.0.ct_mark = old_mark_mask;
        self.wc.0.ct_label = old_label_mask;
        if ct.recirc_table != CT_RECIRC_NONE {
            self.conntracked = true;
            let zone_before = std::mem::replace(&mut self.flow.ct_zone, zone);
            let frozen = std::mem::take(&mut self.frozen_actions);
            let set = std::mem::take(&mut self.action_set);
            self.action_set = set.clone();
            self.recirculate(ct.recirc_table);
            self.frozen_actions = frozen;
            self.action_set = set;
            self.flow.ct_zone = zone_before;
        }
        self.nat = None;
        clear_ct(&mut self.flow);
        self.detail("Sets the packet to an untracked state, and clears all the conntrack fields.");
        self.conntracked = false;
    }
}

fn nat_text(ct: &Ct) -> String {
    let only_nat = Ct { nat: ct.nat.clone(), ..Ct::default() };
    let text = crate::text::actions(&[Action::Ct(Box::new(only_nat))], None);
    text.strip_prefix("ct(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text).to_owned()
}

fn nat_action(nat: &Nat) -> NatAction {
    let (addrs, v6) = match nat.range {
        OfNatRange::None => (None, false),
        OfNatRange::V4(a, b) => {
            let hi = if b.is_zero() { a } else { b };
            (Some((Be128::new(a.get().into()), Be128::new(hi.get().into()))), false)
        }
        OfNatRange::V6(a, b) => (Some((a, if b.is_zero() { a } else { b })), true),
    };
    let ports = match nat.ports {
        (0, 0) => None,
        (a, 0) => Some((a, a)),
        (a, b) => Some((a, b)),
    };
    let range = NatRange {
        addrs,
        v6,
        ports,
        persistent: nat.flags & NatFlags::PERSISTENT != 0,
        hash: nat.flags & NatFlags::PROTO_HASH != 0,
        random: nat.flags & NatFlags::PROTO_RANDOM != 0,
    };
    if nat.flags & NatFlags::SRC != 0 {
        NatAction::Src(range)
    } else if nat.flags & NatFlags::DST != 0 {
        NatAction::Dst(range)
    } else {
        NatAction::Existing
    }
}
