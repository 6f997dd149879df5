//! Flows that go with those that taught them: `learn(...,delete_learned)`.
//!
//! Such an action vouches for all flows of its table that have its cookie. When the last flow with that action, table
//! and cookie goes, so do they. Whoever commits a change of tables calls [`LearnedCookies::follow`] with what came and went.
//!
//! Cost: a look at each action of the rules that come or go.

use std::collections::HashMap;

use ib_base::time::Instant;
use ib_classifier::MiniMatch;
use ib_flow::OfPort;
use ib_openflow::action::{Action, LearnFlags};
use ib_openflow::message::{FlowRemovedReason, OFPG_ANY};

use crate::flow_mod::Criteria;
use crate::ofproto::Ofproto;

/// What learned flows have in common: table and cookie.
type Lesson = (u8, u64);

/// How many actions vouch for which flows.
#[derive(Default)]
pub(crate) struct LearnedCookies(HashMap<Lesson, usize>);

/// Calls `visit` for each lesson that actions vouch for.
fn lessons(actions: &[Action], visit: &mut impl FnMut(Lesson)) {
    for action in actions {
        match action {
            Action::Learn(l) if l.flags & LearnFlags::DELETE_LEARNED != 0 => visit((l.table, l.cookie)),
            Action::Clone(inner) | Action::WriteActions(inner) => lessons(inner, visit),
            _ => {}
        }
    }
}

impl LearnedCookies {
    /// Takes in the actions of rules that came and of rules that went. Returns for whose flows nobody vouches any more.
    pub fn follow<'a>(
        &mut self,
        came: impl Iterator<Item = &'a [Action]>,
        went: impl Iterator<Item = &'a [Action]>,
    ) -> Vec<Lesson> {
        for actions in came {
            lessons(actions, &mut |lesson| *self.0.entry(lesson).or_default() += 1);
        }
        let mut orphans = Vec::new();
        for actions in went {
            lessons(actions, &mut |lesson| {
                if let Some(n) = self.0.get_mut(&lesson) {
                    *n -= 1;
                    if *n == 0 {
                        self.0.remove(&lesson);
                        orphans.push(lesson);
                    }
                }
            });
        }
        orphans
    }
}

impl Ofproto {
    /// Removes learned flows for which nobody vouches any more.
    pub(crate) fn forget_learned(&self, orphans: &[Lesson], now: Instant) {
        let any = MiniMatch::catch_all();
        for (table, cookie) in orphans {
            let criteria = Criteria {
                table: *table,
                match_: &any,
                strict: None,
                cookie: *cookie,
                cookie_mask: u64::MAX,
                out_port: OfPort::NONE,
                out_group: OFPG_ANY,
                hidden: false,
            };
            let mut txn = self.begin(now);
            for rule in self.collect(&criteria, txn.version()).unwrap_or_default() {
                txn.remove(rule, FlowRemovedReason::Delete);
            }
            // What goes may itself have vouched for others.
            txn.commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_openflow::action::Learn;

    #[test]
    fn the_last_voucher_counts() {
        let learn = |flags| Action::Learn(Box::new(Learn { table: 1, cookie: 5, flags, ..Learn::default() }));
        let vouches = [learn(LearnFlags::DELETE_LEARNED)];
        let nested = [Action::Clone(vouches.to_vec())];
        let idle = [learn(0)];
        let mut cookies = LearnedCookies::default();
        let none = || std::iter::empty::<&[Action]>();
        assert_eq!(cookies.follow([&vouches[..], &nested, &idle].into_iter(), none()), []);
        assert_eq!(cookies.follow(none(), [&idle[..], &nested].into_iter()), []);
        // Replaced by one that vouches for the same.
        assert_eq!(cookies.follow([&nested[..]].into_iter(), [&vouches[..]].into_iter()), []);
        assert_eq!(cookies.follow(none(), [&nested[..]].into_iter()), [(1, 5)]);
        assert_eq!(cookies.follow(none(), [&nested[..]].into_iter()), []);
    }
}
