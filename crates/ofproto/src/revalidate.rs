//! Revalidation: datapath flows are kept true.
//!
//! A round dumps the datapath's flows. For each it hands new counts to what its translation touched,
//! removes it when no packet used it for the idle time, and, if anything changed since its translation,
//! translates its key again: the same result keeps it, other actions replace its actions, and a result that
//! needs more bits than its mask has removes it. Flows that nobody remembers are removed or taken over.
//!
//! Rounds run on the main thread, every [`Settings::max_revalidator_ms`](crate::backer::Settings) at most
//! and soon after a change. Cost: all flows, once a round.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_base::time::Instant;
use ib_dpif::{Action as Odp, FlowDel, FlowPut, FlowStats, Ufid};
use ib_flow::Mask;
use ib_flow::miniflow::{Miniflow, Minimask};
use parking_lot::Mutex;

use crate::backer::Backer;
use crate::rule::PushStats;
use crate::ukey::{Ukey, UkeyState};
use crate::upcall::{datapath_mask, slow_path_actions};
use crate::xlate::{self, Xin};

/// Time from a change to the round that looks at it: several changes share one round.
const CHANGE_DELAY_MS: u64 = 5;
/// Idle time when there are more flows than the limit allows.
const CROWDED_IDLE_MS: u64 = 100;

/// Schedule and figures of revalidation.
#[derive(Default)]
pub struct RevalidatorState {
    last: Option<Instant>,
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
    /// The change counter as the round began.
    changed: u64,
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
        if self.paused.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.reval.lock();
        let last = state.last?;
        let settings = self.settings.read();
        let period = settings.max_idle_ms.min(settings.max_revalidator_ms);
        let changed = state.seen != self.changed.get();
        // A clock that stands still would put changes off for ever.
        let delay = if self.clock.is_stopped() { 0 } else { CHANGE_DELAY_MS.min(period) };
        Some(last.plus_ms(if changed { delay } else { period }))
    }

    /// Runs a round if it is due. Returns whether it did.
    pub fn revalidate_if_due(&self, now: Instant) -> bool {
        let paused = self.paused.load(Ordering::Relaxed);
        if paused || self.revalidate_deadline().is_some_and(|at| now < at) {
            return false;
        }
        self.revalidate(now);
        true
    }

    /// Runs a round now.
    pub fn revalidate(&self, now: Instant) {
        let began = std::time::Instant::now();
        let changed = self.changed.get();
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
        let about = Round { number: round, now, changed, idle_ms, kill_all };
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
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.adapt_limit(duration_ms, n);
        let mut state = self.reval.lock();
        state.last = Some(now);
        state.seen = changed;
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
            limit = limit.saturating_add(1000);
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
                mask: Minimask::new(&flow.mask),
                actions: flow.actions,
                pushed: FlowStats::default(),
                seen: 0,
                cache: Arc::new([]),
                recircs: Vec::new(),
                slow: 0,
                settled: false,
                installed: true,
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
        if state.seen != round.changed && state.settled {
            // NetFlow sees another flow from the second translation on, as collectors are used to.
            xlate::cache::end_netflow(&state.cache);
        }
        self.push_stats(&mut state, stats);
        let fate = if round.kill_all || idle {
            Fate::Delete
        } else if state.seen == round.changed {
            Fate::Keep
        } else {
            self.translate_again(&ukey, &mut state, round.changed)
        };
        match fate {
            Fate::Keep => {}
            Fate::Delete => {
                drop(state);
                self.delete_flow(&ukey);
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
                    self.delete_flow(&ukey);
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
        let Ok((bridge, flow, frozen)) = xlate::receive(self, &key) else { return Fate::Delete };
        let mut xin = Xin::new(&bridge, &flow);
        xin.frozen = frozen;
        let xout = xlate::translate(self, xin);
        let mask = datapath_mask(self, &key, &xout.wc);
        if needs_more(&state.mask, &mask) {
            return Fate::Delete;
        }
        state.seen = changed;
        state.settled = true;
        state.cache = xout.cache.into();
        state.recircs = xout.recircs;
        state.slow = xout.slow;
        let actions: Arc<[Odp]> =
            if xout.slow != 0 { slow_path_actions(xout.slow) } else { xout.actions.into() };
        if actions == state.actions { Fate::Keep } else { Fate::Change(actions) }
    }

    fn delete_flow(&self, ukey: &Ukey) {
        let del = FlowDel { ufid: Some(ukey.ufid), key: Some(&ukey.key.expand()) };
        if let Ok(stats) = self.dpif.flow_del(&del) {
            self.push_stats(&mut ukey.state.lock(), &stats);
        }
        xlate::cache::end_netflow(&ukey.state.lock().cache);
        self.ukeys.remove(ukey.ufid);
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
    use ib_flow::OdpPort;
    use ib_packet::Packet;

    /// A broadcast comes in by p1, misses, and its flow is installed.
    fn missed() -> Lab {
        let mut lab = Lab::new().bridge("br0", &[1, 2]).flows("br0", "actions=normal");
        lab.clock.stop();
        lab.switch.run(lab.clock.now());
        let mut frame = [0u8; 60];
        frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x50, 0x54, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x12, 0x34]);
        let packet = Packet::from_frame(&frame);
        let md = ib_flow::Metadata { in_port: OdpPort(1), ..Default::default() };
        let mut key = ib_flow::Flow::zeroed();
        ib_flow::extract(&packet, &md, &mut key);
        let handler = lab.dpif.handler.lock().clone().unwrap();
        let now_ms = lab.clock.now().as_ms();
        let upcall = Upcall { kind: UpcallKind::Miss, packet: &packet, key: &key, ufid: Ufid(7), now_ms };
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
}
