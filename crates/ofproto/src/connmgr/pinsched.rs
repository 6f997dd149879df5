//! Packets for a controller under a rate limit (`controller_rate_limit`, `controller_burst_limit`).
//!
//! Within the rate packets pass. Beyond it they wait, by the port that they came in by: ports take turns to send, and
//! when the queues are full the longest loses its oldest packet, so that a port cannot take the others' share.
//! What waits is bounded by the burst; the rate is that of a bucket with a burst's tokens.

use std::collections::{BTreeMap, VecDeque};

use ib_base::time::Instant;
use ib_flow::OfPort;

/// What a packet costs: the bucket counts thousandths, since a rate in packets a second adds so many each millisecond.
const COST: u64 = 1000;
/// Packets that leave the queues in one turn of the main loop.
const MAX_TURN: usize = 50;

/// What a limit did since it was set or since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sent without waiting.
    pub bypassed: u64,
    /// Had to wait.
    pub queued: u64,
    /// Waited and were dropped for others.
    pub dropped: u64,
}

/// Packets of one sort for one connection.
#[derive(Debug, Default)]
pub(crate) struct Pinsched {
    /// Packets a second; 0: no limit.
    rate: u32,
    burst: u32,
    tokens: u64,
    filled: Option<Instant>,
    queues: BTreeMap<OfPort, VecDeque<Vec<u8>>>,
    waiting: usize,
    /// The port whose packet was sent last.
    last: Option<OfPort>,
    counts: Counts,
}

impl Pinsched {
    /// Sets the limit. A rate of 0 lets everything pass; what waits then is due at once.
    pub fn set(&mut self, rate: u32, burst: u32) {
        if rate == 0 {
            self.counts = Counts::default();
        }
        self.rate = rate;
        self.burst = if burst == 0 { (rate / 4).max(1) } else { burst };
    }
    /// What it did; none without a limit.
    pub fn counts(&self) -> Option<Counts> {
        (self.rate != 0).then_some(self.counts)
    }
    /// Packets that wait.
    pub fn backlog(&self) -> usize {
        self.waiting
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let full = u64::from(self.burst) * COST;
        self.tokens = match self.filled {
            None => full,
            Some(t) => {
                let ms = u64::try_from(now.since(t).as_millis()).unwrap_or(u64::MAX);
                self.tokens.saturating_add(ms.saturating_mul(self.rate.into())).min(full)
            }
        };
        self.filled = Some(now);
        let has = self.tokens >= COST;
        if has {
            self.tokens -= COST;
        }
        has
    }

    /// A packet that came in by `port`: given back if it may be sent now.
    pub fn offer(&mut self, port: OfPort, packet: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        if self.rate == 0 && self.waiting == 0 {
            return Some(packet);
        }
        if self.waiting == 0 && self.take_token(now) {
            self.counts.bypassed += 1;
            return Some(packet);
        }
        if self.waiting >= self.burst as usize {
            self.drop_from_longest();
        }
        self.queues.entry(port).or_default().push_back(packet);
        self.waiting += 1;
        self.counts.queued += 1;
        None
    }

    fn drop_from_longest(&mut self) {
        let longest = self.queues.iter().max_by_key(|(_, q)| q.len()).map(|(port, _)| *port);
        if let Some(port) = longest
            && self.pop(port).is_some()
        {
            self.counts.dropped += 1;
        }
    }

    fn pop(&mut self, port: OfPort) -> Option<Vec<u8>> {
        let queue = self.queues.get_mut(&port)?;
        let packet = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&port);
        }
        self.waiting -= 1;
        Some(packet)
    }

    /// The oldest packet of the next port.
    fn next(&mut self) -> Option<Vec<u8>> {
        let after = self.last.and_then(|last| last.0.checked_add(1)).map_or(OfPort(0), OfPort);
        let port =
            self.queues.range(after..).next().or_else(|| self.queues.first_key_value()).map(|(p, _)| *p)?;
        self.last = Some(port);
        self.pop(port)
    }

    /// What waited and may be sent now.
    pub fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while self.waiting != 0 && out.len() < MAX_TURN && (self.rate == 0 || self.take_token(now)) {
            out.extend(self.next());
        }
        out
    }
    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let missing = COST.saturating_sub(self.tokens);
        Some(self.filled?.plus_ms(missing.div_ceil(self.rate.max(1).into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_back_and_releases() {
        let mut s = Pinsched::default();
        s.set(100, 2);
        let t = Instant::from_ms(1000);
        assert_eq!(s.offer(OfPort(1), vec![1], t), Some(vec![1]));
        assert_eq!(s.offer(OfPort(1), vec![2], t), Some(vec![2]));
        for packet in 3..6 {
            assert_eq!(s.offer(OfPort(1), vec![packet], t), None);
        }
        // The queue holds a burst; the oldest went.
        assert_eq!(s.counts(), Some(Counts { bypassed: 2, queued: 3, dropped: 1 }));
        assert_eq!(s.deadline(), Some(Instant::from_ms(1010)));
        assert_eq!(s.due(Instant::from_ms(1009)), Vec::<Vec<u8>>::new());
        assert_eq!(s.due(Instant::from_ms(1010)), [vec![4]]);
        assert_eq!(s.due(Instant::from_ms(2000)), [vec![5]]);
        assert_eq!((s.deadline(), s.backlog()), (None, 0));
    }

    #[test]
    fn ports_take_turns_and_the_loudest_loses() {
        let mut s = Pinsched::default();
        s.set(100, 4);
        let t = Instant::from_ms(0);
        for packet in 0..4 {
            assert!(s.offer(OfPort(1), vec![packet], t).is_some());
        }
        for packet in 10..14 {
            s.offer(OfPort(1), vec![packet], t);
        }
        s.offer(OfPort(2), vec![20], t);
        s.offer(OfPort(3), vec![30], t);
        assert_eq!(s.due(Instant::from_ms(1000)), [vec![12], vec![20], vec![30], vec![13]]);
    }

    #[test]
    fn without_limit_nothing_waits_nor_counts() {
        let mut s = Pinsched::default();
        s.set(0, 0);
        for _ in 0..1000 {
            assert!(s.offer(OfPort(1), vec![1], Instant::ZERO).is_some());
        }
        assert_eq!(s.counts(), None);
        // A limit that is lifted lets go of what waited.
        s.set(1, 1);
        let sent: Vec<bool> = (0..3).map(|_| s.offer(OfPort(1), vec![1], Instant::ZERO).is_some()).collect();
        assert_eq!(sent, [true, false, false]);
        s.set(0, 0);
        assert_eq!(s.due(Instant::ZERO).len(), 1);
    }
}
