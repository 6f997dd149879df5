//! Memory reports: who holds how many of what, behind `memory/show`.
//!
//! A [`Usage`] is a set of named numbers, such as `rules:17`. Each part of a daemon adds its own when asked; numbers
//! of the same name add up. [`Monitor`] decides when the process has grown enough to be worth a line in the log.

use std::collections::BTreeMap;
use std::fmt;

use crate::time::Instant;

/// Named numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage(BTreeMap<String, u64>);

impl Usage {
    /// Nothing yet.
    pub fn new() -> Usage {
        Usage::default()
    }

    /// Adds `n` to the number called `name`.
    pub fn add(&mut self, name: &str, n: u64) {
        let entry = self.0.entry(name.to_string()).or_default();
        *entry = entry.saturating_add(n);
    }

    /// The numbers by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(k, v)| (k.as_str(), *v))
    }
}

/// `name:number name:number`, by name.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, n)) in self.0.iter().enumerate() {
            write!(f, "{}{name}:{n}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// How long after the start, and how often at most, the process's size is looked at.
const CHECK_MS: u64 = 10_000;

/// Watches the process's peak size.
#[derive(Debug)]
pub struct Monitor {
    started: Instant,
    next: Instant,
    reported_kib: u64,
}

impl Monitor {
    /// A monitor for a process that started at `now`.
    pub fn new(now: Instant) -> Monitor {
        Monitor { started: now, next: now.plus_ms(CHECK_MS), reported_kib: 0 }
    }

    /// Looks at the peak size, at most each ten seconds, and returns the line to log, followed by a report of usage,
    /// once it is known first and whenever it has grown by half.
    pub fn run(&mut self, now: Instant) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now.plus_ms(CHECK_MS);
        let peak_kib = peak_kib()?;
        let old = self.reported_kib;
        if peak_kib < old.saturating_add(old / 2) {
            return None;
        }
        self.reported_kib = peak_kib;
        let seconds = (now - self.started).as_secs_f64();
        Some(if old == 0 {
            format!("{peak_kib} kB peak resident set size after {seconds:.1} seconds")
        } else {
            let growth = (peak_kib - old) as f64 * 100.0 / old as f64;
            format!(
                "peak resident set size grew {growth:.0}% in last {seconds:.1} seconds, from {old} kB to {peak_kib} kB"
            )
        })
    }

    /// When to call [`Monitor::run`] next.
    pub fn deadline(&self) -> Instant {
        self.next
    }
}

/// The process's peak resident size in KiB.
pub fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_sorts() {
        let mut usage = Usage::new();
        usage.add("rules", 5);
        usage.add("ports", 2);
        usage.add("rules", 1);
        assert_eq!(usage.to_string(), "ports:2 rules:6");
    }

    #[test]
    fn first_report_after_ten_seconds() {
        let t0 = Instant::from_ms(0);
        let mut monitor = Monitor::new(t0);
        assert_eq!(monitor.run(t0.plus_ms(9_999)), None);
        let line = monitor.run(t0.plus_ms(10_000)).unwrap();
        assert!(line.ends_with(" kB peak resident set size after 10.0 seconds"), "{line}");
        assert_eq!(monitor.run(t0.plus_ms(20_000)), None);
    }
}
