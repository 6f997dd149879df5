//! How long a thread that waits should go on looking before it sleeps.
//!
//! To wake a sleeping thread costs its peer a system call, and on a halted processor tens of microseconds; where
//! messages go to and fro, that is most of a round trip. [`Linger`] learns from how long the sleeps turn out to last,
//! by the rule of the kernel's haltpoll governor: a sleep that an event ended soon should have been a look, so the time
//! doubles; one that lasted was right, so it halves, down to none. Rare events thus cost nothing.
//!
//! Who looks must yield the processor between two looks ([`Linger::pause`]), for what it waits for may want to run
//! there. Where others keep the processor for long, looking only loses time, for a thread that wakes up is served
//! before them and one that yields is not: then there is no looking until sleeps turn out short again.

use std::time::{Duration, Instant};

/// Longest that a thread goes on looking after the last event.
const MAX: Duration = Duration::from_micros(100);
/// Shortest such time that is worth having.
const MIN: Duration = Duration::from_micros(12);
/// A yield that takes longer went to somebody with work of his own.
const LOST: Duration = Duration::from_micros(50);

/// The time to look before sleeping; none at first.
#[derive(Debug, Default, Clone, Copy)]
pub struct Linger(Duration);

impl Linger {
    /// How long to look.
    pub fn time(&self) -> Duration {
        self.0
    }

    /// Lets others run between two looks; false if one had much to do, so that it is better to sleep.
    pub fn pause(&mut self) -> bool {
        let began = Instant::now();
        std::thread::yield_now();
        let lost = began.elapsed() > LOST;
        if lost {
            self.0 = Duration::ZERO;
        }
        !lost
    }

    /// A sleep ended after `slept`.
    pub fn learn(&mut self, slept: Duration) {
        self.0 = if slept <= MAX {
            (self.0 * 2).clamp(MIN, MAX)
        } else if self.0 >= 2 * MIN {
            self.0 / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_short_sleeps_and_vanishes_with_long_ones() {
        let mut linger = Linger::default();
        for _ in 0..5 {
            linger.learn(Duration::from_micros(30));
        }
        assert_eq!(linger.time(), MAX);
        for _ in 0..4 {
            linger.learn(Duration::from_millis(3));
        }
        assert_eq!(linger.time(), Duration::ZERO, "nothing is spent on rare events");
    }
}
