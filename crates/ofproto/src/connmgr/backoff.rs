//! Keeping connections: when to try again, whether the peer is there, whether it has admitted us.
//!
//! [`Probe`] is for every connection: an echo request after silence, the end after twice as long.
//! [`Backoff`] is for controllers that the switch connects to; it outlives their connections. Both are pure:
//! time in, decisions out, and what operators read in the log under `rconn`.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_base::vlog::module::RCONN;
use ib_base::{vlog_dbg, vlog_err, vlog_info, vlog_warn};

/// What silence calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Send an echo request.
    Probe,
    /// Give up.
    Dead,
}

/// Watches one connection for silence.
#[derive(Debug)]
pub(crate) struct Probe {
    name: String,
    interval_ms: u64,
    since: Instant,
    probing: bool,
}

impl Probe {
    pub fn new(name: &str, now: Instant) -> Probe {
        Probe { name: name.to_owned(), interval_ms: 0, since: now, probing: false }
    }
    /// 0: never probe; others are 5 s at least.
    pub fn set_interval(&mut self, ms: u32) {
        self.interval_ms = probe_interval_ms(ms);
    }
    /// Something came.
    pub fn activity(&mut self, now: Instant) {
        self.since = now;
        self.probing = false;
    }
    /// A probe is on its way.
    pub fn is_idle(&self) -> bool {
        self.probing
    }
    pub fn deadline(&self) -> Option<Instant> {
        (self.interval_ms != 0).then(|| self.since.plus_ms(self.interval_ms))
    }
    pub fn run(&mut self, now: Instant) -> Option<Silence> {
        if self.deadline().is_none_or(|d| now < d) {
            return None;
        }
        let secs = self.interval_ms / 1000;
        let name = &self.name;
        if self.probing {
            vlog_err!(RCONN, "{name}: no response to inactivity probe after {secs} seconds, disconnecting");
            return Some(Silence::Dead);
        }
        vlog_dbg!(RCONN, "{name}: idle {secs} seconds, sending inactivity probe");
        self.since = now;
        self.probing = true;
        Some(Silence::Probe)
    }
}

/// The interval that is really used.
pub(crate) fn probe_interval_ms(ms: u32) -> u64 {
    if ms == 0 { 0 } else { u64::from(ms).max(5000) / 1000 * 1000 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Backoff,
    Connecting,
    Active,
}

/// Decides when to connect to one controller.
#[derive(Debug)]
pub(crate) struct Backoff {
    name: String,
    state: State,
    max_secs: u64,
    secs: u64,
    /// In `Backoff`: when to try. In `Connecting`: when to give up. In `Active`: until when a loss counts as
    /// a failed attempt.
    until: Instant,
    last_connected: Option<Instant>,
    last_disconnected: Option<Instant>,
    last_admitted: Instant,
    probably_admitted: bool,
    last_error: Option<String>,
}

impl Backoff {
    /// Tries at once.
    pub fn new(name: &str, max_backoff_ms: u32, now: Instant) -> Backoff {
        let mut b = Backoff {
            name: name.to_owned(),
            state: State::Backoff,
            max_secs: 1,
            secs: 0,
            until: now,
            last_connected: None,
            last_disconnected: None,
            last_admitted: now,
            probably_admitted: false,
            last_error: None,
        };
        b.set_max_backoff(max_backoff_ms);
        b
    }
    pub fn set_max_backoff(&mut self, ms: u32) {
        self.max_secs = u64::from(ms / 1000).max(1);
        if self.state == State::Backoff && self.secs > self.max_secs {
            self.until =
                Instant::from_ms(self.until.as_ms().saturating_sub((self.secs - self.max_secs) * 1000));
            self.secs = self.max_secs;
        }
    }
    fn logs_attempts(&self) -> bool {
        self.secs < self.max_secs
    }

    /// Whether to connect now; then it counts as connecting.
    pub fn should_connect(&mut self, now: Instant) -> bool {
        if self.state != State::Backoff || now < self.until {
            return false;
        }
        if self.logs_attempts() {
            vlog_info!(RCONN, "{}: connecting...", self.name);
        }
        self.state = State::Connecting;
        self.until = now.plus_ms(self.secs.max(1) * 1000);
        true
    }
    /// Whether the attempt took too long; then it has failed.
    pub fn is_timed_out(&mut self, now: Instant) -> bool {
        if self.state != State::Connecting || now < self.until {
            return false;
        }
        if self.logs_attempts() {
            vlog_info!(RCONN, "{}: connection timed out", self.name);
        }
        self.last_error = Some("Connection timed out".into());
        self.retreat(now);
        true
    }
    /// The session has a version.
    pub fn connected(&mut self, now: Instant) {
        vlog_info!(RCONN, "{}: connected", self.name);
        self.state = State::Active;
        self.until = now.plus_ms(self.secs * 1000);
        self.last_connected = Some(now);
        self.probably_admitted = false;
    }
    /// The connection is gone, or could not be made. `None`: the peer closed it. The reason was logged if
    /// `logged`.
    pub fn lost(&mut self, reason: Option<&str>, logged: bool, now: Instant) {
        let name = &self.name;
        match (self.state, reason) {
            (State::Connecting, reason) => {
                let text = reason.unwrap_or("End of file");
                vlog_warn!(RCONN, "{name}: connection failed ({text})");
                self.last_error = Some(text.to_owned());
            }
            (_, Some(text)) => {
                if !logged {
                    vlog_warn!(RCONN, "{name}: connection dropped ({text})");
                }
                self.last_error = Some(text.to_owned());
            }
            (_, None) => {
                vlog_info!(RCONN, "{name}: connection closed by peer");
                self.last_error = Some("End of file".into());
            }
        }
        self.retreat(now);
    }
    /// Closed on purpose, to connect again at once.
    pub fn restart(&mut self, now: Instant) {
        if self.state == State::Active {
            self.last_disconnected = Some(now);
        }
        self.state = State::Backoff;
        self.secs = 0;
        self.until = now;
    }
    fn retreat(&mut self, now: Instant) {
        if self.state == State::Active {
            self.last_disconnected = Some(now);
        }
        if self.state == State::Active && now >= self.until {
            self.secs = 1;
        } else if self.secs < self.max_secs / 2 || self.secs == 0 {
            self.secs = (self.secs * 2).clamp(1, self.max_secs);
            vlog_info!(RCONN, "{}: waiting {} seconds before reconnect", self.name, self.secs);
        } else {
            if self.logs_attempts() {
                vlog_info!(
                    RCONN,
                    "{}: continuing to retry connections in the background but suppressing further logging",
                    self.name
                );
            }
            self.secs = self.max_secs;
        }
        self.state = State::Backoff;
        self.until = now.plus_ms(self.secs * 1000);
    }

    /// A message came. Messages that a controller sends only once it has taken the switch on, or half a
    /// minute of connection, count as admission.
    pub fn received(&mut self, substantial: bool, now: Instant) {
        let old = self.last_connected.is_some_and(|t| now >= t.plus_ms(30_000));
        if self.probably_admitted || substantial || old {
            self.probably_admitted = true;
            self.last_admitted = now;
        }
    }
    pub fn is_connected(&self) -> bool {
        self.state == State::Active
    }
    pub fn is_admitted(&self) -> bool {
        self.is_connected() && self.probably_admitted
    }
    /// Seconds without a controller that has admitted us.
    pub fn failure_secs(&self, now: Instant) -> u64 {
        if self.is_admitted() { 0 } else { now.since(self.last_admitted).as_secs() }
    }
    /// Since when no controller has admitted us; `None`: one has.
    pub fn failure_began(&self) -> Option<Instant> {
        (!self.is_admitted()).then_some(self.last_admitted)
    }
    pub fn deadline(&self) -> Option<Instant> {
        (self.state != State::Active).then_some(self.until)
    }

    /// Pairs for the database's `status` column. `idle`: a probe is under way.
    pub fn status(&self, idle: bool, now: Instant) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let state = match self.state {
            State::Backoff => "BACKOFF",
            State::Connecting => "CONNECTING",
            State::Active if idle => "IDLE",
            State::Active => "ACTIVE",
        };
        out.insert("state".into(), state.into());
        if let Some(e) = &self.last_error {
            out.insert("last_error".into(), e.clone());
        }
        if let Some(t) = self.last_connected {
            out.insert("sec_since_connect".into(), now.since(t).as_secs().to_string());
        }
        if let Some(t) = self.last_disconnected {
            out.insert("sec_since_disconnect".into(), now.since(t).as_secs().to_string());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let mut b = Backoff::new("br0<->tcp:127.0.0.1:6653", 8000, Instant::from_ms(0));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(b.should_connect(Instant::from_ms(now)));
            b.lost(Some("Connection refused"), false, Instant::from_ms(now));
            let next = b.deadline().unwrap().as_ms();
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(b.status(false, Instant::from_ms(now))["state"], "BACKOFF");
        assert_eq!(b.status(false, Instant::from_ms(now))["last_error"], "Connection refused");
        // A connection that lasted starts over.
        assert!(b.should_connect(Instant::from_ms(now)));
        b.connected(Instant::from_ms(now));
        b.lost(None, false, Instant::from_ms(now + 9000));
        assert_eq!(b.deadline(), Some(Instant::from_ms(now + 10_000)));
        assert_eq!(b.status(false, Instant::from_ms(now + 9000))["sec_since_disconnect"], "0");
    }

    #[test]
    fn attempts_time_out() {
        let mut b = Backoff::new("c", 8000, Instant::from_ms(0));
        assert!(b.should_connect(Instant::from_ms(0)));
        assert!(!b.is_timed_out(Instant::from_ms(999)));
        assert!(b.is_timed_out(Instant::from_ms(1000)));
        assert_eq!(b.deadline(), Some(Instant::from_ms(2000)));
    }

    #[test]
    fn admission_counts_from_substantial_messages() {
        let mut b = Backoff::new("c", 8000, Instant::from_ms(0));
        assert!(b.should_connect(Instant::from_ms(0)));
        b.connected(Instant::from_ms(0));
        b.received(false, Instant::from_ms(10));
        assert_eq!(b.failure_secs(Instant::from_ms(16_000)), 16);
        b.received(true, Instant::from_ms(16_000));
        assert_eq!(b.failure_secs(Instant::from_ms(17_000)), 0);
        b.lost(None, false, Instant::from_ms(20_000));
        assert_eq!(b.failure_secs(Instant::from_ms(20_000)), 4);
    }

    #[test]
    fn silence_is_probed_once() {
        let mut p = Probe::new("br0<->unix#1", Instant::from_ms(0));
        assert_eq!(p.deadline(), None);
        p.set_interval(3000);
        assert_eq!(p.run(Instant::from_ms(4999)), None);
        assert_eq!(p.run(Instant::from_ms(5000)), Some(Silence::Probe));
        p.activity(Instant::from_ms(6000));
        assert_eq!(p.run(Instant::from_ms(11_000)), Some(Silence::Probe));
        assert!(p.is_idle());
        assert_eq!(p.run(Instant::from_ms(16_000)), Some(Silence::Dead));
    }
}
