//! When to connect, how long to wait, and whether the peer still lives: a pure state machine.
//!
//! The owner reports what happens (`connecting`, `connected`, `disconnected`, `activity`, ...) and asks [`Reconnect::run`]
//! what to do now and [`Reconnect::deadline`] when to ask again. The machine knows no sockets. It logs, under module
//! `reconnect`, in the words that operators of Open vSwitch know.
//!
//! Backoff doubles from [`Reconnect::set_backoff`]'s minimum to its maximum while attempts fail, and starts over once a
//! connection has lasted. A peer that is silent for the probe interval gets one probe and as long again to answer.

use std::io;

use ib_base::errno::{retval_to_string, strerror};
use ib_base::time::Instant;
use ib_base::vlog::{self, Level, module::RECONNECT};
use ib_base::{vlog_dbg, vlog_err, vlog_info, vlog_warn};

/// What the owner is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect, or listen if passive, and report `connecting` or `listening`.
    Connect,
    /// Close the connection and report `disconnected`.
    Disconnect,
    /// Send something that makes the peer answer.
    Probe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Void,
    Backoff,
    Connecting,
    Active,
    Idle,
    Reconnect,
    Listening,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Void => "VOID",
            State::Backoff => "BACKOFF",
            State::Connecting => "CONNECTING",
            State::Active => "ACTIVE",
            State::Idle => "IDLE",
            State::Reconnect => "RECONNECT",
            State::Listening => "LISTENING",
        }
    }
}

const DEFAULT_MIN_BACKOFF_MS: u64 = 1_000;
const DEFAULT_MAX_BACKOFF_MS: u64 = 8_000;
const DEFAULT_PROBE_MS: u64 = 5_000;

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Attempts to connect.
    pub attempted: u32,
    /// Attempts that succeeded.
    pub successful: u32,
    /// When the last connection was made.
    pub last_connected: Option<Instant>,
    /// When the last connection ended.
    pub last_disconnected: Option<Instant>,
    /// When the peer last gave a sign of life.
    pub last_activity: Option<Instant>,
    /// Time spent connected, in earlier connections.
    pub total_connected_ms: u64,
    /// Changes each time that a connection begins or ends.
    pub seqno: u32,
}

/// The machine. See the module's text.
#[derive(Debug)]
pub struct Reconnect {
    name: String,
    min_backoff_ms: u64,
    max_backoff_ms: u64,
    probe_ms: u64,
    passive: bool,
    quiet: bool,
    state: State,
    entered: Instant,
    backoff_ms: u64,
    last_receive_attempt: Option<Instant>,
    max_tries: Option<u32>,
    backoff_free_tries: u32,
    stats: Stats,
}

impl Reconnect {
    /// A disabled machine called `name` in the log.
    pub fn new(name: &str, now: Instant) -> Reconnect {
        Reconnect {
            name: name.to_string(),
            min_backoff_ms: DEFAULT_MIN_BACKOFF_MS,
            max_backoff_ms: DEFAULT_MAX_BACKOFF_MS,
            probe_ms: DEFAULT_PROBE_MS,
            passive: false,
            quiet: false,
            state: State::Void,
            entered: now,
            backoff_ms: 0,
            last_receive_attempt: Some(now),
            max_tries: None,
            backoff_free_tries: 0,
            stats: Stats::default(),
        }
    }

    /// The name in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the name in the log.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.to_string();
    }

    /// Logs the ordinary course of things at DBG instead of INFO.
    pub fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// The first and the longest wait before a new attempt.
    pub fn set_backoff(&mut self, min_ms: u64, max_ms: u64) {
        self.min_backoff_ms = min_ms.max(1_000);
        self.max_backoff_ms = if max_ms == 0 { 8_000 } else { max_ms }.max(self.min_backoff_ms);
        if self.state == State::Backoff && self.backoff_ms > self.max_backoff_ms {
            self.backoff_ms = self.max_backoff_ms;
        }
    }

    /// Lets the first attempts be made without waiting, to try several remotes.
    pub fn set_backoff_free_tries(&mut self, tries: u32) {
        self.backoff_free_tries = tries;
    }

    /// The longest wait before a new attempt, in ms.
    pub fn max_backoff_ms(&self) -> u64 {
        self.max_backoff_ms
    }

    /// After how long a silence to probe the peer; 0 is never.
    pub fn set_probe_interval(&mut self, ms: u64) {
        self.probe_ms = if ms == 0 { 0 } else { ms.max(1_000) };
    }

    /// After how long a silence the peer is probed, in ms; 0 is never.
    pub fn probe_interval(&self) -> u64 {
        self.probe_ms
    }

    /// At most this many attempts more; `None` is without end.
    pub fn set_max_tries(&mut self, tries: Option<u32>) {
        self.max_tries = tries;
    }

    /// How many attempts are left.
    pub fn max_tries(&self) -> Option<u32> {
        self.max_tries
    }

    /// Whether the machine listens rather than connects.
    pub fn is_passive(&self) -> bool {
        self.passive
    }

    /// Makes the machine listen rather than connect, or the reverse.
    pub fn set_passive(&mut self, passive: bool, now: Instant) {
        if self.passive != passive {
            self.passive = passive;
            let stray = if passive { State::Connecting } else { State::Listening };
            if self.state == stray || (!passive && self.state == State::Reconnect) {
                self.enter(State::Backoff, now);
                self.backoff_ms = 0;
            }
        }
    }

    /// Whether it wants a connection.
    pub fn is_enabled(&self) -> bool {
        self.state != State::Void
    }

    /// Begins to want a connection.
    pub fn enable(&mut self, now: Instant) {
        if self.state == State::Void && self.has_tries() {
            self.enter(State::Backoff, now);
            self.backoff_ms = 0;
        }
    }

    /// Stops wanting a connection.
    pub fn disable(&mut self, now: Instant) {
        if self.state != State::Void {
            self.enter(State::Void, now);
        }
    }

    /// Has an existing connection closed and made anew.
    pub fn force_reconnect(&mut self, now: Instant) {
        if matches!(self.state, State::Connecting | State::Active | State::Idle) {
            self.enter(State::Reconnect, now);
        }
    }

    /// Whether the machine counts as connected.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Active | State::Idle | State::Reconnect)
    }

    /// What has happened so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The state's name, as the database's status columns have it.
    pub fn state_name(&self) -> &'static str {
        self.state.name()
    }

    /// When the present state began.
    pub fn entered(&self) -> Instant {
        self.entered
    }

    /// The present wait before a new attempt, in ms.
    pub fn backoff_ms(&self) -> u64 {
        self.backoff_ms
    }

    /// How long the present connection has lasted, or how long ago the last one ended, in whole seconds.
    pub fn elapsed_secs(&self, now: Instant) -> Option<u64> {
        let since =
            if self.is_connected() { self.stats.last_connected } else { self.stats.last_disconnected };
        Some((now - since?).as_secs())
    }

    fn info(&self) -> Level {
        if self.quiet { Level::Dbg } else { Level::Info }
    }

    fn has_tries(&self) -> bool {
        self.max_tries != Some(0)
    }

    fn take_try(&mut self) -> bool {
        match &mut self.max_tries {
            None => true,
            Some(0) => false,
            Some(n) => {
                *n -= 1;
                true
            }
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        let was_connected = self.is_connected();
        if self.state == State::Connecting {
            self.stats.attempted += 1;
            if matches!(state, State::Active) {
                self.stats.successful += 1;
            }
        }
        self.state = state;
        self.entered = now;
        if was_connected != self.is_connected() {
            if was_connected {
                let since = self.stats.last_connected.map_or(0, |t| now.since(t).as_millis() as u64);
                self.stats.total_connected_ms += since;
            }
            self.stats.seqno = self.stats.seqno.wrapping_add(1);
        }
        vlog_dbg!(RECONNECT, "{}: entering {}", self.name, state.name());
    }

    /// Reports that a connection ended (`None`: in good order; `UnexpectedEof`: the peer closed it), or that an attempt
    /// failed.
    pub fn disconnected(&mut self, now: Instant, error: Option<&io::Error>) {
        if matches!(self.state, State::Backoff | State::Void) {
            return;
        }
        let name = &self.name;
        let eof = error.is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
        let error = error.filter(|_| !eof);
        match self.state {
            State::Active | State::Idle => match error {
                Some(e) => vlog_warn!(RECONNECT, "{name}: connection dropped ({})", strerror(e)),
                None if eof => {
                    vlog::vlog_at(&RECONNECT, self.info(), format_args!("{name}: connection closed by peer"))
                }
                None => vlog::vlog_at(&RECONNECT, self.info(), format_args!("{name}: connection dropped")),
            },
            State::Listening => match error {
                Some(e) => vlog_warn!(RECONNECT, "{name}: error listening for connections ({})", strerror(e)),
                None => {
                    vlog::vlog_at(
                        &RECONNECT,
                        self.info(),
                        format_args!("{name}: error listening for connections"),
                    );
                }
            },
            State::Backoff | State::Connecting | State::Reconnect | State::Void => {
                let what = if self.passive { "listen" } else { "connection" };
                let outcome = match error {
                    Some(e) => format!("failed ({})", strerror(e)),
                    None if eof => format!("failed ({})", retval_to_string(None)),
                    None => "timed out".to_string(),
                };
                if self.wordy() {
                    vlog::vlog_at(&RECONNECT, self.info(), format_args!("{name}: {what} attempt {outcome}"));
                }
            }
        }
        if matches!(self.state, State::Active | State::Idle) {
            self.stats.last_disconnected = Some(now);
        }
        if !self.has_tries() {
            self.enter(State::Void, now);
            return;
        }
        if self.backoff_free_tries > 1 {
            self.backoff_free_tries -= 1;
            self.backoff_ms = 0;
            self.enter(State::Backoff, now);
            return;
        }
        let lasted = match (self.stats.last_activity, self.stats.last_connected) {
            (Some(activity), Some(connected)) => {
                activity.since(connected).as_millis() as u64 >= self.backoff_ms
            }
            _ => false,
        };
        if matches!(self.state, State::Active | State::Idle) && (lasted || self.passive) {
            self.backoff_ms = if self.passive { 0 } else { self.min_backoff_ms };
        } else {
            if self.backoff_ms < self.min_backoff_ms {
                self.backoff_ms = self.min_backoff_ms;
            } else if self.backoff_ms < self.max_backoff_ms / 2 {
                self.backoff_ms *= 2;
                self.tell_wait();
            } else {
                if self.backoff_ms < self.max_backoff_ms {
                    vlog_info!(
                        RECONNECT,
                        "{}: continuing to {} in the background but suppressing further logging",
                        self.name,
                        if self.passive { "try to listen" } else { "reconnect" }
                    );
                }
                self.backoff_ms = self.max_backoff_ms;
            }
        }
        self.enter(State::Backoff, now);
    }

    fn tell_wait(&self) {
        let seconds = self.backoff_ms as f64 / 1_000.0;
        if self.passive {
            vlog_info!(RECONNECT, "{}: waiting {seconds} seconds before trying to listen again", self.name);
        } else {
            vlog_info!(RECONNECT, "{}: waiting {seconds} seconds before reconnect", self.name);
        }
    }

    /// Whether the usual course is still worth a line: not once attempts fail at the longest wait.
    fn wordy(&self) -> bool {
        self.backoff_ms < self.max_backoff_ms
    }

    /// Reports that an attempt to connect is under way.
    pub fn connecting(&mut self, now: Instant) {
        if self.state != State::Connecting {
            if self.wordy() {
                let what = if self.passive { "listening" } else { "connecting" };
                vlog::vlog_at(&RECONNECT, self.info(), format_args!("{}: {what}...", self.name));
            }
            self.enter(State::Connecting, now);
        }
    }

    /// Reports that the machine's owner listens for a connection.
    pub fn listening(&mut self, now: Instant) {
        if self.state != State::Listening {
            if self.wordy() {
                vlog::vlog_at(&RECONNECT, self.info(), format_args!("{}: listening...", self.name));
            }
            self.enter(State::Listening, now);
        }
    }

    /// Reports that listening failed.
    pub fn listen_error(&mut self, now: Instant, error: &io::Error) {
        if self.state != State::Listening {
            self.connecting(now);
        }
        self.disconnected(now, Some(error));
    }

    /// Reports that an attempt has succeeded.
    pub fn connected(&mut self, now: Instant) {
        if !self.is_connected() {
            if self.state != State::Listening {
                self.connecting(now);
            }
            vlog::vlog_at(&RECONNECT, self.info(), format_args!("{}: connected", self.name));
            self.enter(State::Active, now);
            self.stats.last_connected = Some(now);
            self.stats.last_activity = Some(now);
        }
    }

    /// Reports that an attempt has failed.
    pub fn connect_failed(&mut self, now: Instant, error: Option<&io::Error>) {
        self.connecting(now);
        self.disconnected(now, error);
    }

    /// Reports a sign of life from the peer.
    pub fn activity(&mut self, now: Instant) {
        if self.state != State::Active {
            if self.state != State::Idle {
                return;
            }
            self.enter(State::Active, now);
        }
        self.stats.last_activity = Some(now);
    }

    /// Reports that the owner has tried to receive: silence counts only from then on, for a busy owner is not a dead
    /// peer.
    pub fn receive_attempted(&mut self, now: Instant) {
        self.last_receive_attempt = Some(now);
    }

    /// When the present state times out, and whether it does.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Void | State::Listening => None,
            State::Backoff => Some(self.entered.plus_ms(self.backoff_ms)),
            State::Connecting => Some(self.entered.plus_ms(self.backoff_ms.max(1_000))),
            State::Active if self.probe_ms > 0 => {
                let base = self.stats.last_activity.unwrap_or(self.entered).max(self.entered);
                Some(base.plus_ms(self.probe_ms))
            }
            State::Idle if self.probe_ms > 0 => Some(self.entered.plus_ms(self.probe_ms)),
            State::Active | State::Idle => None,
            State::Reconnect => Some(self.entered),
        }
    }

    /// What to do now.
    pub fn run(&mut self, now: Instant) -> Option<Action> {
        if now < self.deadline()? {
            return None;
        }
        match self.state {
            State::Void | State::Listening => None,
            State::Backoff => {
                if self.take_try() {
                    Some(Action::Connect)
                } else {
                    self.enter(State::Void, now);
                    None
                }
            }
            State::Connecting | State::Reconnect => Some(Action::Disconnect),
            State::Active => {
                let silent_ms = now.since(self.stats.last_activity.unwrap_or(self.entered)).as_millis();
                vlog_dbg!(RECONNECT, "{}: idle {silent_ms} ms, sending inactivity probe", self.name);
                self.enter(State::Idle, now);
                Some(Action::Probe)
            }
            State::Idle => {
                vlog_err!(
                    RECONNECT,
                    "{}: no response to inactivity probe after {} seconds, disconnecting",
                    self.name,
                    general(now.since(self.entered).as_millis() as f64 / 1_000.0)
                );
                Some(Action::Disconnect)
            }
        }
    }
}

/// `%.3g` for the numbers that occur here.
fn general(x: f64) -> String {
    let digits = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(1_000_000 + ms)
    }

    fn refused() -> io::Error {
        io::Error::from_raw_os_error(111)
    }

    #[test]
    fn backoff_doubles_to_the_limit() {
        let mut r = Reconnect::new("r", at(0));
        assert_eq!(r.run(at(0)), None);
        r.enable(at(0));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(r.run(at(now)), Some(Action::Connect));
            r.connect_failed(at(now), Some(&refused()));
            assert_eq!(r.run(at(now)), None);
            let next = r.deadline().unwrap().as_ms() - 1_000_000;
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        assert_eq!(r.stats().attempted, 6);
        assert_eq!(r.stats().successful, 0);
    }

    #[test]
    fn probe_then_disconnect() {
        let mut r = Reconnect::new("r", at(0));
        r.enable(at(0));
        assert_eq!(r.run(at(0)), Some(Action::Connect));
        r.connecting(at(0));
        assert_eq!(r.run(at(999)), None);
        r.connected(at(10));
        assert!(r.is_connected());
        assert_eq!(r.stats().seqno, 1);
        r.activity(at(2_000));
        assert_eq!(r.run(at(6_999)), None);
        assert_eq!(r.run(at(7_000)), Some(Action::Probe));
        r.activity(at(8_000));
        assert_eq!(r.run(at(12_999)), None);
        assert_eq!(r.run(at(13_000)), Some(Action::Probe));
        assert_eq!(r.run(at(17_999)), None);
        assert_eq!(r.run(at(18_000)), Some(Action::Disconnect));
        r.disconnected(at(18_000), None);
        assert!(!r.is_connected());
        assert_eq!(r.stats().total_connected_ms, 17_990);
        assert_eq!(r.deadline(), Some(at(19_000)));
    }

    #[test]
    fn attempt_times_out_and_tries_run_out() {
        let mut r = Reconnect::new("r", at(0));
        r.set_max_tries(Some(2));
        r.enable(at(0));
        assert_eq!(r.run(at(0)), Some(Action::Connect));
        r.connecting(at(0));
        assert_eq!(r.run(at(1_000)), Some(Action::Disconnect));
        r.disconnected(at(1_000), None);
        assert_eq!(r.run(at(2_000)), Some(Action::Connect));
        r.connect_failed(at(2_000), Some(&refused()));
        assert!(!r.is_enabled());
        assert_eq!(r.deadline(), None);
    }

    #[test]
    fn passive_listens_again_at_once() {
        let mut r = Reconnect::new("r", at(0));
        r.set_passive(true, at(0));
        r.enable(at(0));
        assert_eq!(r.run(at(0)), Some(Action::Connect));
        r.listening(at(0));
        assert_eq!(r.run(at(1_000_000)), None);
        r.connected(at(5));
        r.disconnected(at(6), Some(&io::ErrorKind::UnexpectedEof.into()));
        assert_eq!(r.run(at(6)), Some(Action::Connect));
    }

    #[test]
    fn forced_reconnect_and_no_probes() {
        let mut r = Reconnect::new("r", at(0));
        r.set_probe_interval(0);
        r.enable(at(0));
        r.run(at(0));
        r.connected(at(0));
        assert_eq!(r.deadline(), None);
        r.force_reconnect(at(50));
        assert_eq!(r.run(at(50)), Some(Action::Disconnect));
        assert_eq!(general(5.0), "5");
        assert_eq!(general(2.5), "2.5");
        assert_eq!(general(120.0), "120");
    }
}
