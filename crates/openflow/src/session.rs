//! An OpenFlow session: version negotiation, echo, framing. Bytes in, messages out.
//!
//! A [`Session`] is one connection from either side, without its socket. The owner feeds it received bytes
//! ([`Session::input`]) and the time ([`Session::run`]), takes [`Event`]s, and sends what [`Session::output`] holds.
//! Once [`Event::Failed`] came, the connection should be closed after the output was sent; a new connection is a new
//! session. One thread at a time; cost is one copy of each message.

use std::collections::VecDeque;

use ib_base::time::Instant;
use ib_base::vlog::Level;
use ib_base::vlog::module::{RCONN, VCONN, VCONN_STREAM};
use ib_base::{vlog_dbg_rl, vlog_err_rl, vlog_rl, vlog_warn_rl};

use crate::encode::{EncodeOptions, encode_error, encode_with};
use crate::error::OfError;
use crate::message::{ErrorMessage, Message, Version, Versions};
use crate::print;
use crate::raw::{Frame, next_message, parse_header};

/// Bytes that may wait to be sent before [`Session::is_congested`].
pub const SEND_LIMIT: usize = 1 << 20;

/// What happened.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Both sides speak this version now.
    Negotiated(Version),
    /// A whole message, not yet decoded. Echoes have been answered and are not reported.
    Message(Vec<u8>),
    /// The session is over. `why` is what the log says of a closed connection.
    Failed {
        /// What went wrong.
        why: Failure,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No common version, a version that was not agreed, or garbage.
    Protocol,
    /// The peer is silent: it did not answer an echo request.
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hello,
    Open,
    Failed,
}

/// One connection; see the module's description.
#[derive(Debug)]
pub struct Session {
    name: String,
    state: State,
    allowed: Versions,
    peer: Versions,
    version: Option<Version>,
    received: Vec<u8>,
    /// Bytes of `received` that were read.
    consumed: usize,
    out: Vec<u8>,
    events: VecDeque<Event>,
    answer_echo: bool,
    any_version: bool,
    next_xid: u32,
    probe_ms: u64,
    last_activity: Option<Instant>,
    probing: bool,
}

impl Session {
    /// Opens a session that allows `versions`; the hello is in the output at once. `name` is for the log.
    pub fn new(name: impl Into<String>, versions: Versions) -> Session {
        Session::with_xid(name, versions, 1)
    }
    /// [`Session::new`], the hello with a transaction id of the caller's.
    pub fn with_xid(name: impl Into<String>, versions: Versions, xid: u32) -> Session {
        let mut s = Session {
            name: name.into(),
            state: State::Hello,
            allowed: versions,
            peer: Versions(0),
            version: None,
            received: Vec::new(),
            consumed: 0,
            out: Vec::new(),
            events: VecDeque::new(),
            answer_echo: true,
            any_version: false,
            next_xid: xid,
            probe_ms: 0,
            last_activity: None,
            probing: false,
        };
        let xid = s.xid();
        let hello = encode_with(
            &Message::Hello(versions),
            versions.highest().unwrap_or(Version::V10),
            xid,
            EncodeOptions::default(),
        );
        s.send_bytes(&hello);
        s
    }

    /// Reports echo requests like other messages instead of answering them.
    pub fn report_echo(&mut self) {
        self.answer_echo = false;
    }
    /// For one who listens to what others say to each other: messages of any version are taken, echo requests too.
    pub fn listen_in(&mut self) {
        self.answer_echo = false;
        self.any_version = true;
    }
    /// Asks a peer that was silent for so long whether it is there, and gives up after as long again. 0: never.
    pub fn set_probe_interval_ms(&mut self, ms: u64) {
        self.probe_ms = ms;
    }
    /// The next transaction id.
    pub fn xid(&mut self) -> u32 {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        xid
    }
    /// The transaction id that comes next, without taking it.
    pub fn peek_xid(&self) -> u32 {
        self.next_xid
    }
    /// The version agreed on.
    pub fn version(&self) -> Option<Version> {
        self.version
    }
    /// The connection's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Whether so much waits to be sent that asynchronous messages should be held back.
    pub fn is_congested(&self) -> bool {
        self.out.len() > SEND_LIMIT
    }
    /// Whether the session has ended.
    pub fn is_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Bytes to send. Drop from the front what was sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
    /// The next event.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Encodes and queues a message in the agreed version; returns its transaction id.
    pub fn send(&mut self, message: &Message) -> u32 {
        let xid = self.xid();
        self.send_xid(message, xid);
        xid
    }
    /// Encodes and queues a message with a transaction id of the caller's.
    pub fn send_xid(&mut self, message: &Message, xid: u32) {
        let version = self.version.unwrap_or(Version::V10);
        let bytes = encode_with(message, version, xid, EncodeOptions::default());
        self.send_bytes(&bytes);
    }
    /// Queues the error that `request` deserves.
    pub fn send_error(&mut self, error: OfError, request: &[u8]) {
        let version = self.version.unwrap_or(Version::V10);
        let bytes = encode_error(error, version, request);
        self.send_bytes(&bytes);
    }
    /// Queues an encoded message.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if self.state == State::Failed {
            return;
        }
        vlog_dbg_rl!(VCONN, (600, 600), "{}: sent (Success): {}", self.name, chomped(bytes));
        self.out.extend_from_slice(bytes);
    }

    /// Takes received bytes.
    pub fn input(&mut self, bytes: &[u8], now: Instant) {
        self.feed(bytes, now);
        while self.step() {}
        self.compact();
    }

    /// Takes received bytes without looking at them: [`Session::next_event`] does, message by message, so that
    /// each is answered before the next is read.
    pub fn feed(&mut self, bytes: &[u8], now: Instant) {
        if self.state == State::Failed {
            return;
        }
        self.last_activity = Some(now);
        self.probing = false;
        self.received.extend_from_slice(bytes);
    }
    /// The next event, reading as many of the bytes that were fed as it takes.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.step() {
                self.compact();
                return None;
            }
        }
    }

    /// Handles one message; false if there is none.
    fn step(&mut self) -> bool {
        if self.state == State::Failed {
            return false;
        }
        let rest = &self.received[self.consumed..];
        match next_message(rest) {
            Frame::NeedMore => false,
            Frame::Bad => {
                let len = parse_header(rest).map_or(0, |h| h.length);
                vlog_err_rl!(VCONN_STREAM, (5, 10), "received too-short ofp_header ({} bytes)", len);
                self.fail(Failure::Protocol);
                true
            }
            Frame::Message(n) => {
                let message = rest[..n].to_vec();
                self.consumed += n;
                self.message(message);
                true
            }
        }
    }
    fn compact(&mut self) {
        self.received.drain(..std::mem::take(&mut self.consumed));
    }

    /// Lets time pass: probes a silent peer.
    pub fn run(&mut self, now: Instant) {
        if self.state != State::Open || self.probe_ms == 0 {
            return;
        }
        let last = *self.last_activity.get_or_insert(now);
        if now < last.plus_ms(self.probe_ms) {
            return;
        }
        if self.probing {
            vlog_err_rl!(
                RCONN,
                (1, 5),
                "{}: no response to inactivity probe after {} seconds, disconnecting",
                self.name,
                self.probe_ms / 1000
            );
            self.fail(Failure::Timeout);
            return;
        }
        self.last_activity = Some(now);
        self.probing = true;
        vlog_dbg_rl!(
            RCONN,
            (600, 600),
            "{}: idle {} seconds, sending inactivity probe",
            self.name,
            self.probe_ms / 1000
        );
        self.send(&Message::EchoRequest(Vec::new()));
    }

    /// When [`Session::run`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.state, self.probe_ms, self.last_activity) {
            (State::Open, 1.., Some(t)) => Some(t.plus_ms(self.probe_ms)),
            _ => None,
        }
    }

    fn fail(&mut self, why: Failure) {
        self.state = State::Failed;
        self.events.push_back(Event::Failed { why });
    }

    fn message(&mut self, bytes: Vec<u8>) {
        vlog_dbg_rl!(VCONN, (600, 600), "{}: received: {}", self.name, chomped(&bytes));
        if self.state == State::Hello {
            self.hello(&bytes);
            return;
        }
        let (version, kind, xid) = match parse_header(&bytes) {
            Some(h) => (h.version, h.kind, h.xid),
            None => return,
        };
        let agreed = self.version.map_or(0, Version::to_wire);
        // Hellos, errors and echoes may come in any version.
        if version != agreed && kind > 3 && !self.any_version {
            vlog_err_rl!(
                VCONN,
                (1, 5),
                "{}: received OpenFlow version 0x{:02x} != expected {:02x}",
                self.name,
                version,
                agreed
            );
            self.send_bytes(&encode_error(OfError::OFPBRC_BAD_VERSION, wire_version(version), &bytes));
            return;
        }
        match kind {
            2 if self.answer_echo => {
                let reply = Message::EchoReply(bytes[8..].to_vec());
                self.send_bytes(&encode_with(&reply, wire_version(version), xid, EncodeOptions::default()));
            }
            // An answer to a probe; its arrival was what counted.
            3 if self.answer_echo && self.probe_ms != 0 => {}
            _ => self.events.push_back(Event::Message(bytes)),
        }
    }

    fn hello(&mut self, bytes: &[u8]) {
        let Ok(crate::decode::Decoded { message: Message::Hello(peer), .. }) = crate::decode::decode(bytes)
        else {
            vlog_warn_rl!(
                VCONN,
                (1, 5),
                "{}: received message while expecting hello: {}",
                self.name,
                chomped(bytes)
            );
            self.fail(Failure::Protocol);
            return;
        };
        self.peer = peer;
        let common = Versions(self.allowed.0 & peer.0);
        match common.highest() {
            Some(v) => {
                self.version = Some(v);
                self.state = State::Open;
                // The default, 1.0, is nothing to speak of.
                vlog_dbg_rl!(
                    VCONN,
                    (600, 600),
                    "{}: negotiated OpenFlow version 0x{:02x} (we support {}, peer supports {})",
                    self.name,
                    v.to_wire(),
                    versions_text(self.allowed),
                    versions_text(peer)
                );
                self.events.push_back(Event::Negotiated(v));
            }
            None => {
                let (ours, theirs) = (versions_text(self.allowed), versions_text(peer));
                vlog_rl!(
                    VCONN,
                    Level::Warn,
                    (1, 5),
                    "{}: version negotiation failed (we support {}, peer supports {})",
                    self.name,
                    ours,
                    theirs
                );
                let text = format!("We support {ours}, you support {theirs}, no common versions.");
                let error = ErrorMessage { error: OfError::OFPHFC_INCOMPATIBLE, data: text.into_bytes() };
                // In a version that the peer can read.
                let version = peer.highest().or(self.allowed.highest()).unwrap_or(Version::V10);
                let bytes = encode_with(&Message::Error(error), version, 0, EncodeOptions::default());
                self.send_bytes(&bytes);
                self.fail(Failure::Protocol);
            }
        }
    }
}

/// A message's text without the end of its last line, which the log adds.
fn chomped(bytes: &[u8]) -> String {
    let mut text = print::log_text(bytes);
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The version in which to answer a message of another one than agreed.
fn wire_version(version: u8) -> Version {
    Version::from_wire(version).unwrap_or(Version::V15)
}

/// `version 0x04`, `version 0x04 and earlier`, `versions 0x01, 0x04`.
pub fn versions_text(v: Versions) -> String {
    let list: Vec<u32> = (1..32).filter(|n| v.0 >> n & 1 != 0).collect();
    match list[..] {
        [] => "no versions".into(),
        [one] => format!("version 0x{one:02x}"),
        _ => {
            let last = list[list.len() - 1];
            if list.len() as u32 == last {
                return format!("version 0x{last:02x} and earlier");
            }
            let mut s = String::from("versions ");
            for (i, n) in list.iter().enumerate() {
                if i > 0 {
                    s.push_str(", ");
                }
                s.push_str(&format!("0x{n:02x}"));
            }
            s
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: Versions, b: Versions) -> (Session, Session) {
        let (mut a, mut b) = (Session::new("a", a), Session::new("b", b));
        let t = Instant::from_ms(1);
        for _ in 0..3 {
            let x = std::mem::take(a.output());
            b.input(&x, t);
            let x = std::mem::take(b.output());
            a.input(&x, t);
        }
        (a, b)
    }

    #[test]
    fn who_listens_in_takes_any_version() {
        let mut s = Session::new("test", Versions::ALL);
        s.listen_in();
        s.output().clear();
        let said = [
            encode_with(&Message::Hello(Versions::ALL), Version::V15, 1, EncodeOptions::default()),
            encode_with(&Message::BarrierRequest, Version::V10, 2, EncodeOptions::default()),
            encode_with(&Message::EchoRequest(vec![]), Version::V13, 3, EncodeOptions::default()),
        ];
        s.input(&said.concat(), Instant::ZERO);
        assert!(matches!(s.event(), Some(Event::Negotiated(Version::V15))));
        assert!(matches!(s.event(), Some(Event::Message(m)) if m == said[1]));
        assert!(matches!(s.event(), Some(Event::Message(m)) if m == said[2]));
        assert!(s.output().is_empty());
    }

    #[test]
    fn the_highest_common_version_wins() {
        let v10_13 = Versions(Version::V10.bit() | Version::V13.bit());
        let (mut a, mut b) = pair(Versions::ALL, v10_13);
        assert_eq!(a.event(), Some(Event::Negotiated(Version::V13)));
        assert_eq!(b.event(), Some(Event::Negotiated(Version::V13)));
        let (mut a, mut b) = pair(Versions::only(Version::V14), v10_13);
        assert_eq!(a.event(), Some(Event::Failed { why: Failure::Protocol }));
        assert_eq!(b.event(), Some(Event::Failed { why: Failure::Protocol }));
    }

    #[test]
    fn echoes_are_answered_and_silence_is_probed() {
        let (mut a, mut b) = pair(Versions::ALL, Versions::ALL);
        a.event();
        b.event();
        a.set_probe_interval_ms(5000);
        a.run(Instant::from_ms(4000));
        assert!(a.output().is_empty());
        a.run(Instant::from_ms(6000));
        let probe = std::mem::take(a.output());
        assert_eq!(probe[..4], [6, 2, 0, 8]);
        b.input(&probe, Instant::from_ms(6001));
        assert_eq!(b.event(), None);
        let answer = std::mem::take(b.output());
        assert_eq!(answer[1], 3);
        a.input(&answer, Instant::from_ms(6002));
        assert_eq!(a.event(), None);
        a.run(Instant::from_ms(11_002));
        a.run(Instant::from_ms(16_003));
        assert_eq!(a.event(), Some(Event::Failed { why: Failure::Timeout }));
    }

    #[test]
    fn version_sets_in_text() {
        assert_eq!(versions_text(Versions(0x12)), "versions 0x01, 0x04");
        assert_eq!(versions_text(Versions(0x7e)), "version 0x06 and earlier");
        assert_eq!(versions_text(Versions(0x02)), "version 0x01");
    }
}
