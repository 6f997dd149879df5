//! Rate limits: a token bucket for each place that logs.
//!
//! `RateLimit::new(rate, burst)`: at most `burst` messages at once and `rate` messages a minute in the long run. What is
//! dropped is counted and reported by the next message that passes. Time is that of [`super::set_clock`].

use std::sync::Mutex;
use std::sync::PoisonError;

/// What one message costs. The bucket earns `rate` a millisecond, so `rate` messages a minute.
const MESSAGE_COST: u64 = 60 * 1_000;

/// A rate limit, usually a `static` beside the call.
#[derive(Debug)]
pub struct RateLimit {
    rate: u32,
    burst: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled_ms: Option<u64>,
    dropped: u32,
    first_dropped_s: u64,
    last_dropped_s: u64,
}

/// What a rate limit says about a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Log it.
    Pass,
    /// Log this report, then the message.
    PassAfter(String),
    /// Don't log it.
    Drop,
}

impl RateLimit {
    /// At most `rate` messages a minute, `burst` of them at once.
    pub const fn new(rate: u32, burst: u32) -> RateLimit {
        let bucket = Bucket { tokens: 0, filled_ms: None, dropped: 0, first_dropped_s: 0, last_dropped_s: 0 };
        RateLimit { rate, burst, bucket: Mutex::new(bucket) }
    }

    /// Asks for leave to log one message at `now_ms`.
    pub fn check(&self, now_ms: u64) -> Verdict {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let b = &mut *bucket;
        let capacity = u64::from(self.burst) * MESSAGE_COST;
        if b.tokens < MESSAGE_COST {
            b.tokens = match b.filled_ms {
                None => capacity,
                Some(t) => capacity.min(
                    b.tokens.saturating_add(now_ms.saturating_sub(t).saturating_mul(u64::from(self.rate))),
                ),
            };
            b.filled_ms = Some(now_ms);
        }
        let now_s = now_ms / 1_000;
        if b.tokens < MESSAGE_COST {
            if b.dropped == 0 {
                b.first_dropped_s = now_s;
            }
            b.last_dropped_s = now_s;
            b.dropped = b.dropped.saturating_add(1);
            return Verdict::Drop;
        }
        b.tokens -= MESSAGE_COST;
        if b.dropped == 0 {
            return Verdict::Pass;
        }
        let report = format!(
            "Dropped {} log messages in last {} seconds (most recently, {} seconds ago) due to excessive rate",
            b.dropped,
            now_s.saturating_sub(b.first_dropped_s),
            now_s.saturating_sub(b.last_dropped_s)
        );
        b.dropped = 0;
        Verdict::PassAfter(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate_then_report() {
        let rl = RateLimit::new(1, 2);
        assert_eq!(rl.check(1_000_000), Verdict::Pass);
        assert_eq!(rl.check(1_000_000), Verdict::Pass);
        assert_eq!(rl.check(1_000_000), Verdict::Drop);
        assert_eq!(rl.check(1_030_000), Verdict::Drop);
        assert_eq!(
            rl.check(1_060_000),
            Verdict::PassAfter(
                "Dropped 2 log messages in last 60 seconds (most recently, 30 seconds ago) due to excessive rate".into()
            )
        );
        assert_eq!(rl.check(1_060_000), Verdict::Drop);
    }
}
