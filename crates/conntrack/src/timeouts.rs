//! How long connections live: the defaults, and policies that zones have from the database.
//!
//! A `ct` action names a policy by its number; a connection keeps the number that it began with. When a policy goes, its connections
//! fall back to the defaults. Zones with equal timeouts share a policy; numbers begin at 1, and the lowest free one is next.

use std::collections::BTreeMap;

use ib_dpif::conntrack::{CtTimeouts, TcpState};

use crate::table::{Proto, Talk};

/// Number of the policy of who has none.
pub const DEFAULT_POLICY: u32 = 0;

const TCP_OPENING: u32 = 30;
const TCP_ESTABLISHED: u32 = 24 * 60 * 60;
const TCP_CLOSING: u32 = 15 * 60;
const TCP_FIN_WAIT: u32 = 45;
const TCP_CLOSED: u32 = 30;
const FIRST: u32 = 60;
const MULTIPLE: u32 = 60;
const BOTH: u32 = 30;

/// All policies.
#[derive(Default)]
pub struct Policies {
    zones: BTreeMap<u16, u32>,
    by_number: BTreeMap<u32, CtTimeouts>,
}

impl Policies {
    /// Gives a zone timeouts, or takes them away.
    pub fn set(&mut self, zone: u16, timeouts: Option<CtTimeouts>) {
        if let Some(old) = self.zones.remove(&zone)
            && !self.zones.values().any(|n| *n == old)
        {
            self.by_number.remove(&old);
        }
        let Some(timeouts) = timeouts else { return };
        let same = self.by_number.iter().find(|(_, t)| **t == timeouts).map(|(n, _)| *n);
        let number = same.unwrap_or_else(|| {
            let taken = self.by_number.keys().zip(1..).take_while(|(n, i)| **n == *i).count();
            u32::try_from(taken).unwrap_or(u32::MAX - 1) + 1
        });
        self.by_number.insert(number, timeouts);
        self.zones.insert(zone, number);
    }

    /// A zone's policy.
    pub fn of_zone(&self, zone: u16) -> Option<u32> {
        self.zones.get(&zone).copied()
    }

    /// Seconds that a connection has from now; `first`: it is still to be answered.
    pub(crate) fn seconds(&self, policy: u32, proto: &Proto, first: bool) -> u32 {
        let none = CtTimeouts::default();
        seconds(proto, first, self.by_number.get(&policy).unwrap_or(&none))
    }
}

fn seconds(proto: &Proto, first: bool, t: &CtTimeouts) -> u32 {
    match proto {
        Proto::Tcp([a, b]) => {
            let both = |s| a.state >= s && b.state >= s;
            if both(TcpState::FinWait2) {
                t.tcp_close.unwrap_or(TCP_CLOSED)
            } else if both(TcpState::Closing) {
                t.tcp_time_wait.unwrap_or(TCP_FIN_WAIT)
            } else if first {
                t.tcp_syn_sent.unwrap_or(TCP_OPENING)
            } else if !both(TcpState::Established) {
                t.tcp_syn_recv.unwrap_or(TCP_OPENING)
            } else if a.state >= TcpState::Closing || b.state >= TcpState::Closing {
                t.tcp_fin_wait.unwrap_or(TCP_CLOSING)
            } else {
                t.tcp_established.unwrap_or(TCP_ESTABLISHED)
            }
        }
        Proto::Icmp(Talk::Both) => t.icmp_reply.unwrap_or(BOTH),
        Proto::Icmp(_) => t.icmp_first.unwrap_or(FIRST),
        Proto::Other(Talk::First) => t.udp_first.unwrap_or(FIRST),
        Proto::Other(Talk::Multiple) => t.udp_single.unwrap_or(MULTIPLE),
        Proto::Other(Talk::Both) => t.udp_multiple.unwrap_or(BOTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shared_and_used_again() {
        let t = |s| Some(CtTimeouts { udp_first: Some(s), ..CtTimeouts::default() });
        let mut p = Policies::default();
        p.set(5, t(1));
        p.set(6, t(2));
        p.set(7, t(1));
        assert_eq!((p.of_zone(5), p.of_zone(6), p.of_zone(7)), (Some(1), Some(2), Some(1)));
        let talk = Proto::Other(Talk::First);
        assert_eq!((p.seconds(2, &talk, false), p.seconds(0, &talk, false)), (2, 60));
        p.set(5, None);
        assert_eq!(p.seconds(1, &talk, false), 1);
        p.set(7, None);
        assert_eq!(p.seconds(1, &talk, false), 60);
        p.set(9, t(3));
        assert_eq!((p.of_zone(9), p.of_zone(5)), (Some(1), None));
    }
}
