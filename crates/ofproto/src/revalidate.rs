//! Revalidation: datapath flows are kept true.
//!
//! A round dumps the datapath's flows. For each it hands new counts to what its translation touched,
//! removes it when no packet used it for the idle time, and, if a change since its translation concerns it
//! ([`News::concerns`](crate::change)), translates its key again: the same result keeps it, other actions replace its
//! actions, and a result that needs more bits than its mask has removes it. Flows that nobody remembers are removed or
//! taken over; those of a control plane before us that only its recirculation ids lead to stay until they are idle.
//! What packets under way add to a flow after its removal is counted as soon as they have passed ([`Backer::see_off`]).
//!
//! Rounds run on the main thread, every [`Settings::max_revalidator_ms`](crate::backer::Settings) at most. Soon after a
//! change there is a smaller one: it asks all flows whether the change concerns them, and looks only at those that say
//! yes. Cost: of a round, all flows once; of the smaller one, a question to each flow, and the translations of those that
//! the change concerns. The main thread spends half of its time on them at most.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::time::Instant;
use ib_dpif::{Action as Odp, FlowDel, FlowPut, FlowStats, Ufid};
use ib_flow::Mask;
use ib_flow::miniflow::{Miniflow, Minimask};
use parking_lot::{Mutex, MutexGuard};

use crate::backer::Backer;
use crate::change::News;
use crate::rule::PushStats;
use crate::ukey::{Ukey, UkeyState};
use crate::upcall::{datapath_mask, slow_path_actions};
use crate::xlate::{self, Xin, XlateError};

/// Time from a change to the round that looks at it: several changes share one round.
const CHANGE_DELAY_MS: u64 = 5;
/// Idle time when there are more flows than the limit allows.
const CROWDED_IDLE_MS: u64 = 100;

/// Schedule and figures of revalidation.
#[derive(Default)]
pub struct RevalidatorState {
    last: Option<Instant>,
    /// The latest round, small ones included, and how long it took.
    last_any: Option<(Instant, u64)>,
    /// Change counter of the last round.
    seen: u64,
    n_flows: usize,
    avg_flows: usize,
    max_flows: usize,
    duration_ms: u64,
}

/// What a round goes by.
struct Round {
    number: u64,
    now: Instant,
    /// What changed, as the round began.
    news: News,
    /// Flows idle for so long go.
    idle_ms: u64,
    kill_all: bool,
}

/// What becomes of a flow.
enum Fate {
    Keep,
    Delete,
    Change(Arc<[Odp]>),
}

impl Backer {
    /// When the next round is due.
    pub fn revalidate_deadline(&self) -> Option<Instant> {
        if self.is_at_rest() {
            return None;
        }
        let state = self.reval.lock();
        let last = state.last?;
        let settings = self.settings.read();
        let period = settings.max_idle_ms.min(settings.max_revalidator_ms);
        let changed = state.seen != self.changed.get();
        let round = last.plus_ms(period);
        if !changed {
            return Some(round);
        }
        // A clock that stands still would put changes off for ever.
        if self.clock.is_stopped() {
            return Some(last);
        }
        let (last, took_ms) = state.last_any.unwrap_or((last, 0));
        Some(round.min(last.plus_ms(CHANGE_DELAY_MS.max(took_ms.saturating_mul(2)).min(period))))
    }

    /// No rounds for now: a command or a restoration wants it so.
    fn is_at_rest(&self) -> bool {
        self.paused.load(Ordering::Relaxed) || self.restoring.load(Ordering::Relaxed)
    }

    /// Runs a round if it is due. Returns whether it did.
    pub fn revalidate_if_due(&self, now: Instant) -> bool {
        self.see_off();
        if self.is_at_rest() || self.revalidate_deadline().is_some_and(|at| now < at) {
            return false;
        }
        let (last, seen) = {
            let state = self.reval.lock();
            (state.last, state.seen)
        };
        let period = {
            let s = self.settings.read();
            s.max_idle_ms.min(s.max_revalidator_ms)
        };
        let is_time = last.is_none_or(|last| last.plus_ms(period) <= now);
        if is_time || self.clock.is_stopped() {
            self.revalidate(now);
            return true;
        }
        let news = self.changed.news();
        if news.is_detailed(seen) {
            self.revalidate_concerned(now, news);
        } else {
            self.revalidate(now);
        }
        true
    }

    /// Looks at those flows that changes concern.
    fn revalidate_concerned(&self, now: Instant, news: News) {
        let began = std::time::Instant::now();
        let concerned = self.ukeys.select(|ukey| {
            let mut state = ukey.state.lock();
            let yes = news.concerns(&ukey.key, &state);
            if !yes {
                state.seen = state.seen.max(news.latest);
            }
            yes
        });
        for ukey in concerned {
            let mut state = ukey.state.lock();
            // One that is about to be installed is met by the next round.
            if !state.installed {
                continue;
            }
            let Ok(flow) = self.dpif.flow_get(&FlowDel { ufid: Some(ukey.ufid), key: None }) else {
                continue;
            };
            self.push_stats(&mut state, &flow.stats);
            let fate = self.translate_again(&ukey, &mut state, news.latest);
            self.carry_out(fate, &ukey, state);
        }
        self.changed.seen(&news);
        let mut state = self.reval.lock();
        state.seen = news.latest;
        state.last_any = Some((now, elapsed_ms(began)));
    }

    /// Runs a round now.
    pub fn revalidate(&self, now: Instant) {
        let began = std::time::Instant::now();
        self.see_off();
        let news = self.changed.news();
        let (max_idle_ms, limit) = {
            let s = self.settings.read();
            (s.max_idle_ms, self.flow_limit.load(Ordering::Relaxed).min(s.flow_limit))
        };
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        let mut dump: Vec<(Ufid, FlowStats)> = Vec::with_capacity(self.ukeys.len());
        self.dpif.flow_stats(&mut |ufid, stats| dump.push((ufid, stats)));
        let n = dump.len();
        let limit_n = limit as usize;
        let kill_all = n > limit_n.saturating_mul(2);
        let idle_ms = if n > limit_n { CROWDED_IDLE_MS } else { max_idle_ms };
        if kill_all {
            ib_base::coverage::upcall_flow_limit_kill.inc();
        }
        let about = Round { number: round, now, news, idle_ms, kill_all };
        for (ufid, stats) in dump {
            self.revalidate_flow(ufid, &stats, &about);
        }
        for ukey in self.ukeys.all() {
            let gone = {
                let state = ukey.state.lock();
                state.installed && state.met != round && ukey.born != round
            };
            if gone {
                self.ukeys.remove(ukey.ufid);
            }
        }
        self.recirc.run(now);
        self.likeness.clear();
        let duration_ms = elapsed_ms(began).max(1);
        self.adapt_limit(duration_ms, n);
        self.changed.seen(&about.news);
        let mut state = self.reval.lock();
        state.last = Some(now);
        state.last_any = Some((now, duration_ms));
        state.seen = about.news.latest;
        state.n_flows = self.ukeys.len();
        state.avg_flows = (state.avg_flows + n) / 2;
        state.max_flows = state.max_flows.max(n);
        state.duration_ms = duration_ms;
    }

    /// Lowers the limit when rounds take long, raises it when they are quick and it is used.
    fn adapt_limit(&self, duration_ms: u64, n: usize) {
        let max = self.settings.read().flow_limit;
        let mut limit = self.flow_limit.load(Ordering::Relaxed);
        let per_ms = (limit as u64) / duration_ms;
        if duration_ms > 2000 {
            limit = u32::try_from(u64::from(limit) * 1000 / duration_ms).unwrap_or(u32::MAX);
            ib_base::coverage::upcall_flow_limit_scaled.inc();
        } else if duration_ms > 1300 {
            limit = limit / 4 * 3;
            ib_base::coverage::upcall_flow_limit_reduced.inc();
        } else if duration_ms < 1000 && n > 2000 && per_ms > 1 {
            // By as much as would still be handled in time, if rounds go on like this one.
            limit = limit.saturating_add(if duration_ms < 100 { limit.max(1000) } else { 1000 });
            ib_base::coverage::upcall_flow_limit_grew.inc();
        }
        self.flow_limit.store(limit.max(1000).min(max), Ordering::Relaxed);
    }

    /// Remembers a flow that somebody else put into the datapath; `None` if it is gone again.
    fn adopt(&self, ufid: Ufid, now: Instant) -> Option<Arc<Ukey>> {
        let flow = self.dpif.flow_get(&FlowDel { ufid: Some(ufid), key: None }).ok()?;
        ib_base::coverage::dumped_new_flow.inc();
        let ukey = Arc::new(Ukey {
            ufid,
            key: Miniflow::new(&flow.key),
            created: now,
            born: 0,
            state: Mutex::new(UkeyState {
                mask: Arc::new(Minimask::new(&flow.mask)),
                actions: flow.actions,
                pushed: FlowStats::default(),
                seen: 0,
                cache: Arc::new([]),
                recircs: Vec::new(),
                slow: 0,
                settled: false,
                installed: true,
                adopted: true,
                met: 0,
            }),
        });
        self.ukeys.insert(Arc::clone(&ukey));
        Some(ukey)
    }

    fn revalidate_flow(&self, ufid: Ufid, stats: &FlowStats, round: &Round) {
        let Some(ukey) = self.ukeys.get(ufid).or_else(|| self.adopt(ufid, round.now)) else { return };
        let mut state = ukey.state.lock();
        if std::mem::replace(&mut state.met, round.number) == round.number {
            ib_base::coverage::dumped_duplicate_flow.inc();
            return;
        }
        state.installed = true;
        let used = if stats.used_ms == 0 { ukey.created.as_ms() } else { stats.used_ms };
        let idle = used.saturating_add(round.idle_ms) < round.now.as_ms();
        let is_news = state.seen < round.news.latest;
        if is_news && state.settled {
            // NetFlow sees another flow from the second translation on, as collectors are used to.
            xlate::cache::end_netflow(&state.cache);
        }
        self.push_stats(&mut state, stats);
        let fate = if round.kill_all || idle {
            Fate::Delete
        } else if is_news && round.news.concerns(&ukey.key, &state) {
            self.translate_again(&ukey, &mut state, round.news.latest)
        } else {
            state.seen = state.seen.max(round.news.latest);
            Fate::Keep
        };
        self.carry_out(fate, &ukey, state);
    }

    fn carry_out(&self, fate: Fate, ukey: &Arc<Ukey>, mut state: MutexGuard<'_, UkeyState>) {
        match fate {
            Fate::Keep => {}
            Fate::Delete => {
                drop(state);
                self.delete_flow(ukey);
            }
            Fate::Change(actions) => {
                let put = FlowPut {
                    modify: true,
                    create: false,
                    zero_stats: false,
                    key: &ukey.key.expand(),
                    mask: &state.mask.expand(),
                    ufid: Some(ukey.ufid),
                    actions: Arc::clone(&actions),
                };
                if self.dpif.flow_put(&put).is_ok() {
                    state.actions = actions;
                } else {
                    drop(state);
                    self.delete_flow(ukey);
                }
            }
        }
    }

    /// Counts what is new since the last time.
    fn push_stats(&self, state: &mut UkeyState, stats: &FlowStats) {
        let packets = stats.packets.saturating_sub(state.pushed.packets);
        let bytes = stats.bytes.saturating_sub(state.pushed.bytes);
        let pushed = state.pushed;
        state.pushed = *stats;
        if packets == 0 && stats.used_ms <= pushed.used_ms {
            return;
        }
        let push = PushStats { packets, bytes, used_ms: stats.used_ms, tcp_flags: stats.tcp_flags };
        let cache = Arc::clone(&state.cache);
        state.settled |= packets != 0;
        xlate::push(&cache, &push, packets != 0);
    }

    fn translate_again(&self, ukey: &Ukey, state: &mut UkeyState, changed: u64) -> Fate {
        let key = ukey.key.expand();
        let (bridge, flow, frozen) = match xlate::receive(self, &key) {
            Ok(received) => received,
            // Flows of the control plane before us lead here until they are translated again, after which it gets idle.
            Err(XlateError::NoRecirculationContext) if state.adopted => {
                state.seen = changed;
                return Fate::Keep;
            }
            Err(_) => return Fate::Delete,
        };
        let mut xin = Xin::new(&bridge, &flow);
        xin.frozen = frozen;
        let xout = xlate::translate(self, xin);
        let mask = datapath_mask(self, &key, &xout.wc);
        if needs_more(&state.mask, &mask) {
            return Fate::Delete;
        }
        state.seen = changed;
        state.settled = true;
        state.recircs = xout.recircs;
        state.slow = xout.slow;
        let actions: Arc<[Odp]> =
            if xout.slow != 0 { slow_path_actions(xout.slow) } else { xout.actions.into() };
        // The mask stays what was installed.
        let parts = self.likeness.share(&state.mask.expand(), actions, xout.cache);
        state.cache = parts.cache;
        state.mask = parts.mask;
        if parts.actions == state.actions { Fate::Keep } else { Fate::Change(parts.actions) }
    }

    fn delete_flow(&self, ukey: &Arc<Ukey>) {
        let del = FlowDel { ufid: Some(ukey.ufid), key: Some(&ukey.key.expand()) };
        let mut rest = None;
        if let Ok((stats, departed)) = self.dpif.flow_retire(&del) {
            self.push_stats(&mut ukey.state.lock(), &stats);
            rest = departed;
        }
        self.ukeys.remove(ukey.ufid);
        match rest {
            Some(departed) => self.leaving.lock().push((Arc::clone(ukey), departed)),
            None => xlate::cache::end_netflow(&ukey.state.lock().cache),
        }
    }

    /// Counts what packets that were under way have added to flows that were removed.
    fn see_off(&self) {
        let mut leaving = self.leaving.lock();
        leaving.retain(|(ukey, departed)| {
            let Some(stats) = departed.settled() else { return true };
            let mut state = ukey.state.lock();
            self.push_stats(&mut state, &stats);
            xlate::cache::end_netflow(&state.cache);
            false
        });
    }

    /// `revalidator/purge`: counts everything and removes all flows.
    pub fn purge(&self, now: Instant) {
        self.revalidate(now);
        for ukey in self.ukeys.all() {
            self.delete_flow(&ukey);
        }
    }

    /// `upcall/show` of this datapath.
    pub fn show_upcall(&self) -> String {
        let state = self.reval.lock();
        let limit = self.flow_limit.load(Ordering::Relaxed);
        let mut out = format!("{}:\n", self.dpif.full_name());
        let _ = writeln!(
            out,
            "  flows         : (current {}) (avg {}) (max {}) (limit {limit})",
            self.dpif.stats().flows,
            state.avg_flows,
            state.max_flows
        );
        let _ = writeln!(out, "  dump duration : {}ms", state.duration_ms.max(1));
        let _ = writeln!(out, "  ufid enabled : {}", self.use_ufid.load(Ordering::Relaxed));
        let _ = writeln!(out, "\n  5: (keys {})", self.ukeys.len());
        out
    }
}

fn elapsed_ms(began: std::time::Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether `new` looks at bits that `installed` does not.
fn needs_more(installed: &Minimask, new: &Mask) -> bool {
    let mut more = new.0.clone();
    installed.words().for_each(|(i, w)| more.words_mut()[i] &= !w);
    more.words().iter().any(|w| *w != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lab;
    use ib_dpif::{Dpif, FlowPut, Upcall, UpcallKind};
    use ib_flow::{Flow, OdpPort};
    use ib_packet::Packet;

    fn key_of(port: u32, frame: &[u8]) -> Flow {
        let md = ib_flow::Metadata { in_port: OdpPort(port), ..Default::default() };
        let mut key = Flow::zeroed();
        ib_flow::extract(&Packet::from_frame(frame), &md, &mut key);
        key
    }

    /// A packet comes in by a port, misses, and its flow is installed.
    fn miss(lab: &Lab, port: u32, ufid: u128, frame: &[u8]) {
        let packet = Packet::from_frame(frame);
        let key = key_of(port, frame);
        let handler = lab.dpif.handler.lock().clone().unwrap();
        let now_ms = lab.clock.now().as_ms();
        let upcall = Upcall { kind: UpcallKind::Miss, packet: &packet, key: &key, ufid: Ufid(ufid), now_ms };
        let verdict = handler.upcall(&upcall);
        let install = verdict.install.unwrap();
        let put = FlowPut {
            modify: false,
            create: true,
            zero_stats: false,
            key: &key,
            mask: &install.mask,
            ufid: Some(verdict.ufid),
            actions: install.actions,
        };
        lab.dpif.flow_put(&put).unwrap();
        handler.installed(verdict.ufid, Ok(()));
    }

    /// A broadcast comes in by p1.
    fn missed() -> Lab {
        let mut lab = Lab::new().bridge("br0", &[1, 2]).flows("br0", "actions=normal");
        lab.clock.stop();
        lab.switch.run(lab.clock.now());
        let mut frame = [0u8; 60];
        frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x50, 0x54, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x12, 0x34]);
        miss(&lab, 1, 7, &frame);
        lab
    }

    fn rule_packets(lab: &Lab) -> u64 {
        let of = &lab.switch.bridge("br0").unwrap().of;
        of.tables[0].cls.collect_all()[0].stats().0
    }

    #[test]
    fn a_flow_tells_what_made_it() {
        let mut lab = missed();
        let ufid = format!("ufid:{}", Ufid(7));
        let out = crate::appctl::run(&mut lab.switch, "ofproto/detrace", &[&ufid]);
        assert_eq!(out.as_deref(), Ok("cookie=0x0, table=0 actions=NORMAL\n"));
        assert!(crate::appctl::run(&mut lab.switch, "ofproto/detrace", &["7"]).is_err());
    }

    #[test]
    fn counts_reach_rules_and_idle_flows_go() {
        let mut lab = missed();
        assert_eq!((lab.dpif.flows.lock().len(), rule_packets(&lab)), (1, 1));
        lab.clock.warp(1000);
        let now_ms = lab.clock.now().as_ms();
        let stats = FlowStats { packets: 5, bytes: 300, used_ms: now_ms, tcp_flags: 0 };
        lab.dpif.flows.lock().get_mut(&Ufid(7)).unwrap().stats = stats;
        lab.switch.run(lab.clock.now());
        assert_eq!(rule_packets(&lab), 6);
        lab.switch.run(lab.clock.now());
        assert_eq!(rule_packets(&lab), 6, "counted once");
        lab.clock.warp(10_000);
        lab.switch.run(lab.clock.now());
        assert_eq!(lab.dpif.flows.lock().len(), 1, "not longer than the idle time");
        lab.clock.warp(500);
        lab.switch.run(lab.clock.now());
        assert!(lab.dpif.flows.lock().is_empty());
    }

    #[test]
    fn what_was_under_way_when_a_flow_went_is_counted_once() {
        let mut lab = missed();
        let end = crate::testing::UnderWay::default();
        *lab.dpif.under_way.lock() = Some(end.clone());
        lab.dpif.flows.lock().get_mut(&Ufid(7)).unwrap().stats =
            FlowStats { packets: 100, bytes: 6000, ..FlowStats::default() };
        lab.clock.warp(11_000);
        lab.switch.run(lab.clock.now());
        assert_eq!((lab.dpif.flows.lock().len(), rule_packets(&lab)), (0, 101));
        *end.0.lock() = Some(FlowStats { packets: 132, bytes: 7920, ..FlowStats::default() });
        lab.switch.run(lab.clock.now());
        lab.switch.run(lab.clock.now());
        assert_eq!(rule_packets(&lab), 133);
    }

    #[test]
    fn a_change_of_tables_changes_flows() {
        let mut lab = missed();
        let before = lab.dpif.flows.lock()[&Ufid(7)].actions.clone();
        lab = lab.flows("br0", "actions=output:2");
        lab.clock.warp(20);
        lab.switch.run(lab.clock.now());
        let after = lab.dpif.flows.lock()[&Ufid(7)].actions.clone();
        assert_ne!(before, after);
        assert_eq!(after[..], [Odp::Output(OdpPort(2))]);
    }

    /// Numbers that look random.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
        fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[self.roll(of.len() as u64) as usize]
        }
        /// Some flow of one of four tables; packets go up the tables.
        fn flow(&mut self) -> String {
            let table = self.roll(4);
            let matches = [
                "in_port=1",
                "in_port=2",
                "dl_dst=50:54:00:00:00:02",
                "dl_src=50:54:00:00:00:03",
                "ip,nw_dst=10.0.0.0/8",
                "ip,nw_dst=10.128.0.0/9",
                "tcp,tp_dst=80",
                "tcp,tp_dst=0x0/0x1",
                "tcp,nw_src=10.0.0.1",
                "reg0=1",
                "reg0=80",
                "reg1=0x0/0x2",
                "metadata=2",
                "dl_vlan=5",
                "vlan_tci=0",
                "",
            ];
            let mut actions = Vec::new();
            for _ in 0..self.roll(3) + 1 {
                actions.push(self.pick(&[
                    "output:1",
                    "output:2",
                    "load:1->NXM_NX_REG0[]",
                    "load:3->NXM_NX_REG1[]",
                    "move:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG0[0..15]",
                    "move:NXM_OF_VLAN_TCI[0..11]->NXM_NX_REG0[0..11]",
                    "load:2->OXM_OF_METADATA[]",
                    "mod_dl_dst:50:54:00:00:00:02",
                    "mod_dl_src:50:54:00:00:00:03",
                    "push_vlan:0x8100,set_field:4101->vlan_vid",
                    "strip_vlan",
                    "normal",
                ]));
            }
            if table < 3 {
                let next = table + 1;
                actions.push(match self.roll(4) {
                    0 => ["resubmit(2,1)", "resubmit(2,2)", "resubmit(2,3)"][table as usize],
                    1 => "drop",
                    _ => ["resubmit(,1)", "resubmit(,2)", "resubmit(,3)"][next as usize - 1],
                });
            }
            actions.retain(|a| *a != "drop");
            let actions = if actions.is_empty() { "drop".to_owned() } else { actions.join(",") };
            // Of overlapping flows with the same priority any may win, and not always the same.
            let priority = self.roll(matches.len() as u64);
            let matches = matches[priority as usize];
            format!("table={table},priority={priority},{matches} actions={actions}")
        }
        fn frame(&mut self) -> Vec<u8> {
            let mut f =
                vec![0x50, 0x54, 0, 0, 0, self.roll(4) as u8, 0x50, 0x54, 0, 0, 0, self.roll(4) as u8];
            if self.roll(3) == 0 {
                f.extend([0x81, 0, 0, self.roll(2) as u8 * 5]);
            }
            f.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, self.roll(3) as u8]);
            f.extend([10, self.roll(2) as u8 * 128, 0, 2, 0, 7, 0, 80 + self.roll(2) as u8]);
            f.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2]);
            f.resize(64, 0);
            f
        }
    }

    /// What is asked about a change is answered rightly: after it every flow is what it would be, made anew.
    #[test]
    fn flows_that_a_change_does_not_concern_are_right_without_it() {
        let (mut asked, mut spared) = (0, 0);
        for seed in 1..30 {
            let mut dice = Dice(seed * 0x9e37_79b9);
            let mut lab = Lab::new().bridge("br0", &[1, 2, 3]);
            lab.clock.stop();
            let start: Vec<String> = (0..14).map(|_| dice.flow()).collect();
            lab = lab.flows("br0", &start.join("\n"));
            lab.switch.run(lab.clock.now());
            for n in 0..40 {
                let port = dice.roll(3) as u32 + 1;
                miss(&lab, port, n, &dice.frame());
            }
            let bridge = lab.switch.bridge("br0").unwrap();
            let backer = Arc::clone(&bridge.backer);
            backer.revalidate(lab.clock.now());
            for _ in 0..12 {
                let change = dice.flow();
                let mut fm = crate::testing::parse_flow(&change);
                if dice.roll(3) == 0 {
                    fm.command = ib_openflow::message::FlowModCommand::Delete;
                    fm.actions.clear();
                }
                let now = lab.clock.now();
                lab.switch
                    .bridge("br0")
                    .unwrap()
                    .of
                    .flow_mod(crate::flow_mod::rule_mod(fm.clone()), crate::flow_mod::Origin::default(), now)
                    .unwrap();
                let news = backer.changed.news();
                for ukey in backer.ukeys.all() {
                    asked += 1;
                    spared += usize::from(!news.concerns(&ukey.key, &ukey.state.lock()));
                }
                backer.revalidate_concerned(now, news);
                let mut packets: Vec<Flow> =
                    (0..40).map(|_| key_of(dice.roll(3) as u32 + 1, &dice.frame())).collect();
                let ukeys = backer.ukeys.all();
                packets.extend(ukeys.iter().map(|u| u.key.expand()));
                for (ukey, packet) in ukeys.iter().flat_map(|u| packets.iter().map(move |p| (u, p))) {
                    let state = ukey.state.lock();
                    if state.mask.matches(&ukey.key, packet) {
                        let (bridge, flow, _) = xlate::receive(&backer, packet).unwrap();
                        let anew = xlate::translate(&backer, Xin::new(&bridge, &flow)).actions;
                        assert_eq!(state.actions[..], anew[..], "seed {seed}, after {change}");
                    }
                }
            }
        }
        assert!(spared * 2 > asked && spared < asked, "{spared} of {asked}");
    }

    /// How many flows one change has translated again, among `n` of them.
    fn translated_again(n: u128, change: &str) -> usize {
        let mut lab = Lab::new().bridge("br0", &[1, 2, 3]);
        lab.clock.stop();
        lab = lab.flows(
            "br0",
            "in_port=1,ip,actions=resubmit(,1)\ntable=1,ip,nw_dst=10.128.0.0/32,actions=output:2\n\
             table=1,priority=1,ip,nw_dst=10.0.0.0/8,actions=output:3",
        );
        lab.switch.run(lab.clock.now());
        let mut frame = Dice(1).frame();
        let ip = if frame[12] == 0x81 { 18 } else { 14 };
        for i in 0..n {
            frame[ip + 16..ip + 20].copy_from_slice(&(0x0a80_0000 + i as u32).to_be_bytes());
            miss(&lab, 1, i, &frame);
        }
        let bridge = lab.switch.bridge("br0").unwrap();
        let backer = Arc::clone(&bridge.backer);
        backer.revalidate(lab.clock.now());
        assert_eq!(backer.ukeys.len() as u128, n);
        let fm = crate::flow_mod::rule_mod(crate::testing::parse_flow(change));
        let now = lab.clock.now();
        bridge.of.flow_mod(fm, crate::flow_mod::Origin::default(), now).unwrap();
        let news = backer.changed.news();
        backer.ukeys.select(|ukey| news.concerns(&ukey.key, &ukey.state.lock())).len()
    }

    #[test]
    fn a_change_has_as_much_translated_however_many_flows_there_are() {
        let exact = "table=1,priority=40000,ip,nw_dst=10.128.0.1,actions=drop";
        let elsewhere = "table=7,ip,actions=drop";
        for n in [20, 2000] {
            assert_eq!(translated_again(n, elsewhere), 0, "{n} flows");
            assert_eq!(translated_again(n, exact), 1, "{n} flows");
        }
    }

    #[test]
    fn a_moved_address_concerns_who_sends_to_it() {
        let mut lab = missed();
        let mut frame = [0u8; 60];
        for (ufid, dst) in [(8, 1), (9, 2)] {
            frame[..12].copy_from_slice(&[0x50, 0x54, 0, 0, 0, dst, 0x50, 0x54, 0, 0, 0, 3]);
            frame[12..14].copy_from_slice(&[0x12, 0x34]);
            miss(&lab, 2, ufid, &frame);
        }
        let bridge = lab.switch.bridge("br0").unwrap();
        let (backer, of) = (Arc::clone(&bridge.backer), Arc::clone(&bridge.of));
        backer.revalidate(lab.clock.now());
        lab.clock.warp(1000);
        let mac = |n| ib_packet::Mac([0x50, 0x54, 0, 0, 0, n]);
        let seen =
            |ufid| match backer.ukeys.get(Ufid(ufid)).unwrap().state.lock().cache.iter().find_map(|e| match e
            {
                xlate::CacheEntry::Normal(_, seen, _) => Some(*seen),
                _ => None,
            }) {
                Some(seen) => seen,
                None => panic!("flow {ufid} was not switched"),
            };
        assert!(of.learn(&crate::ofproto::Seen { mac: mac(1), ..seen(8) }));
        let news = backer.changed.news();
        let concerned = |ufid| {
            let ukey = backer.ukeys.get(Ufid(ufid)).unwrap();
            let state = ukey.state.lock();
            news.concerns(&ukey.key, &state)
        };
        assert_eq!([7, 8, 9].map(concerned), [true, true, false]);
        assert_eq!(seen(9).mac, mac(3));
        lab.switch.run(lab.clock.now());
    }
}
