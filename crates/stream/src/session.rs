//! A JSON-RPC session: an [`Rpc`] that [`Reconnect`] keeps alive.
//!
//! An active session connects and reconnects to one of its remotes in turn; a passive one (`ptcp:`, `punix:`) accepts one
//! peer at a time; one made from an accepted stream lives as long as that. It answers the peer's `echo` requests and
//! probes the peer with its own, so that the owner sees neither. [`Session::seqno`] changes whenever a connection begins
//! or ends: the owner then starts over with what it has told the peer.
//!
//! The owner calls [`Session::run`] when the session's key is ready or its deadline has passed, then [`Session::recv`]
//! until there is no message.

use std::io;

use ib_base::json::Json;
use ib_base::time::Instant;
use ib_base::vlog::module::JSONRPC;
use ib_base::vlog_err_rl;

use crate::jsonrpc::{Message, Rpc};
use crate::reactor::{Handle, Key};
use crate::reconnect::{Action, Reconnect};
use crate::stream::{Listener, OVSDB_PORT, Stream, is_passive};

/// A session. See the module's text.
#[derive(Debug)]
pub struct Session {
    remotes: Vec<String>,
    next_remote: usize,
    reconnect: Reconnect,
    connecting: Option<Stream>,
    listener: Option<Listener>,
    rpc: Option<Rpc>,
    handle: Handle,
    key: Key,
    seqno: u32,
    seen_bytes: u64,
    dscp: Option<u8>,
    /// A session over an accepted stream does not outlive it.
    once: bool,
}

impl Session {
    /// A session with one of `remotes` (connection methods; default port 6640). Without `retry` it ends when the
    /// first connection does.
    pub fn open(remotes: &[String], retry: bool, handle: &Handle, key: Key) -> Session {
        let now = handle.now();
        let mut reconnect = Reconnect::new(remotes.first().map_or("void", String::as_str), now);
        let mut session = Session {
            remotes: remotes.to_vec(),
            next_remote: 0,
            connecting: None,
            listener: None,
            rpc: None,
            handle: handle.clone(),
            key,
            seqno: 0,
            seen_bytes: 0,
            dscp: None,
            once: false,
            reconnect: {
                reconnect.set_backoff_free_tries(u32::try_from(remotes.len()).unwrap_or(u32::MAX));
                if !retry {
                    reconnect.set_max_tries(Some(1));
                    reconnect.set_backoff(1_000, 1_000);
                }
                reconnect
            },
        };
        session.pick_remote();
        session.reconnect.enable(now);
        if session.reconnect.is_passive() || session.remotes.iter().all(|r| r.starts_with("unix:")) {
            // A local peer that hangs is not told from a busy one.
            session.reconnect.set_probe_interval(0);
        }
        handle.wake(key);
        session
    }

    /// A session over a stream that a listener accepted.
    pub fn from_stream(stream: Stream, handle: &Handle) -> Session {
        let now = handle.now();
        let mut reconnect = Reconnect::new(stream.name(), now);
        reconnect.set_quiet(true);
        reconnect.set_max_tries(Some(0));
        let key = stream.key();
        let rpc = Rpc::new(stream);
        reconnect.set_max_tries(Some(1));
        reconnect.enable(now);
        reconnect.set_max_tries(Some(0));
        reconnect.connected(now);
        Session {
            remotes: vec![rpc.name().to_string()],
            next_remote: 0,
            reconnect,
            connecting: None,
            listener: None,
            rpc: Some(rpc),
            handle: handle.clone(),
            key,
            seqno: 1,
            seen_bytes: 0,
            dscp: None,
            once: true,
        }
    }

    fn pick_remote(&mut self) {
        if let Some(remote) = self.remotes.get(self.next_remote) {
            self.reconnect.set_name(remote);
            let passive = is_passive(remote);
            self.reconnect.set_passive(passive, self.handle.now());
            self.next_remote = (self.next_remote + 1) % self.remotes.len();
        }
    }

    /// The session's key.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Changes each time that a connection begins or ends.
    pub fn seqno(&self) -> u32 {
        self.seqno
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.rpc.is_some()
    }

    /// Whether there is a connection or may be one.
    pub fn is_alive(&self) -> bool {
        self.rpc.is_some() || self.connecting.is_some() || self.reconnect.is_enabled()
    }

    /// The name: the present remote.
    pub fn name(&self) -> &str {
        self.reconnect.name()
    }

    /// The state machine, for status columns and settings.
    pub fn reconnect(&self) -> &Reconnect {
        &self.reconnect
    }

    /// The state machine, for status columns and settings.
    pub fn reconnect_mut(&mut self) -> &mut Reconnect {
        &mut self.reconnect
    }

    /// The connection's stream.
    pub fn stream(&self) -> Option<&Stream> {
        self.rpc.as_ref().map(Rpc::stream)
    }

    /// Marks what TCP connections send.
    pub fn set_dscp(&mut self, dscp: Option<u8>) {
        self.dscp = dscp;
    }

    /// Bytes that wait to leave.
    pub fn backlog(&self) -> usize {
        self.rpc.as_ref().map_or(0, Rpc::backlog)
    }

    /// Closes the connection and makes a new one at once, if this is such a session.
    pub fn force_reconnect(&mut self) {
        self.reconnect.force_reconnect(self.handle.now());
        self.handle.wake(self.key);
    }

    /// When [`Session::run`] is due without an event.
    pub fn deadline(&self) -> Option<Instant> {
        self.reconnect.deadline()
    }

    fn disconnect(&mut self, error: Option<&io::Error>) {
        let had = self.rpc.take().is_some() || self.connecting.take().is_some();
        self.listener = None;
        self.reconnect.disconnected(self.handle.now(), error);
        if had {
            self.seqno = self.seqno.wrapping_add(1);
        }
        if !self.once {
            self.pick_remote();
        }
    }

    fn adopt(&mut self, stream: Stream) {
        self.key_for(&stream);
        self.rpc = Some(Rpc::new(stream));
        self.seen_bytes = 0;
        self.seqno = self.seqno.wrapping_add(1);
        self.reconnect.connected(self.handle.now());
    }

    /// A passive session's stream comes with a key of its own; the owner knows the listener's. From now on the
    /// session goes by the stream's, and both are valid: see [`Session::owns`].
    fn key_for(&mut self, stream: &Stream) {
        self.key = stream.key();
    }

    /// Whether `key` is one of the session's.
    pub fn owns(&self, key: Key) -> bool {
        key == self.key
            || self.listener.as_ref().is_some_and(|l| l.key() == key)
            || self.rpc.as_ref().is_some_and(|r| r.stream().key() == key)
    }

    fn start(&mut self) {
        let now = self.handle.now();
        let name = self.reconnect.name().to_string();
        if self.reconnect.is_passive() {
            if self.listener.is_none() {
                let key = self.handle.new_key();
                match Listener::open(&name, OVSDB_PORT, &self.handle, key) {
                    Ok(listener) => self.listener = Some(listener),
                    Err(e) => {
                        self.reconnect.listen_error(now, &e);
                        return;
                    }
                }
            }
            self.reconnect.listening(now);
            return;
        }
        match Stream::open(&name, OVSDB_PORT, &self.handle, self.key) {
            Ok(mut stream) => {
                if let Some(dscp) = self.dscp {
                    stream.set_dscp(dscp);
                }
                self.reconnect.connecting(now);
                self.connecting = Some(stream);
            }
            Err(e) => {
                self.reconnect.connect_failed(now, Some(&e));
                self.pick_remote();
            }
        }
    }

    /// Connects, sends, probes: whatever is due.
    pub fn run(&mut self) {
        if let Some(listener) = &mut self.listener {
            match listener.accept() {
                Ok(stream) => {
                    // A new peer takes the old one's place.
                    if self.rpc.take().is_some() {
                        self.reconnect.disconnected(self.handle.now(), None);
                        self.seqno = self.seqno.wrapping_add(1);
                        self.reconnect.listening(self.handle.now());
                    }
                    self.adopt(stream);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    self.listener = None;
                    self.reconnect.listen_error(self.handle.now(), &e);
                }
            }
        }
        if let Some(rpc) = &mut self.rpc {
            let result = rpc.run();
            if rpc.backlog() == 0 {
                self.reconnect.receive_attempted(self.handle.now());
            }
            if let Err(e) = result {
                self.disconnect(Some(&e));
            }
        }
        self.go_on_connecting();
        match self.reconnect.run(self.handle.now()) {
            Some(Action::Connect) => {
                self.start();
                self.go_on_connecting();
            }
            Some(Action::Disconnect) => self.disconnect(None),
            Some(Action::Probe) => {
                if let Some(rpc) = &mut self.rpc {
                    let probe = Message::request("echo", Json::array([]), Json::from("echo"));
                    // A failure is found by the next run or recv.
                    let _ = rpc.send(&probe);
                }
            }
            None => {}
        }
    }

    fn go_on_connecting(&mut self) {
        if let Some(mut stream) = self.connecting.take() {
            match stream.connect() {
                Ok(()) => self.adopt(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.connecting = Some(stream),
                Err(e) => {
                    self.reconnect.connect_failed(self.handle.now(), Some(&e));
                    self.seqno = self.seqno.wrapping_add(1);
                    self.pick_remote();
                }
            }
        }
    }

    /// Sends `message`. It is lost if there is no connection: [`Session::seqno`] tells.
    pub fn send(&mut self, message: &Message) {
        if let Some(rpc) = &mut self.rpc {
            // A failure is found by the next run or recv.
            let _ = rpc.send(message);
        }
    }

    /// As [`Session::send`], for a message that is text already.
    pub fn send_text(&mut self, text: String) {
        if let Some(rpc) = &mut self.rpc {
            let _ = rpc.send_text(text);
        }
    }

    /// The next message of the peer's, if there is one.
    pub fn recv(&mut self) -> Option<Message> {
        loop {
            let rpc = self.rpc.as_mut()?;
            let result = rpc.recv();
            let now = self.handle.now();
            if rpc.received_bytes() != self.seen_bytes {
                self.seen_bytes = rpc.received_bytes();
                self.reconnect.activity(now);
            }
            self.reconnect.receive_attempted(now);
            match result {
                Ok(Some(Message::Request { method, params, id })) if method == "echo" => {
                    let _ = rpc.send(&Message::reply(params, id));
                }
                Ok(Some(Message::Reply { id, .. } | Message::Error { id, .. }))
                    if id.as_str() == Some("echo") => {}
                Ok(Some(message)) => return Some(message),
                Ok(None) => return None,
                Err(e) => {
                    if e.kind() == io::ErrorKind::InvalidData {
                        vlog_err_rl!(JSONRPC, (5, 5), "{}: protocol error", self.reconnect.name());
                    }
                    self.disconnect(Some(&e));
                    self.handle.wake(self.key);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Reactor;
    use ib_base::time::Clock;

    /// Runs both ends until `done`, with time moved by 100 ms whenever nothing happens.
    fn drive(reactor: &mut Reactor, clock: &Clock, mut step: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if step() {
                return;
            }
            if reactor.wait(Some(Instant::ZERO)).unwrap().is_empty() {
                clock.warp(100);
            }
        }
        panic!("did not come to an end");
    }

    #[test]
    fn connects_probes_and_reconnects() {
        let clock = Clock::simulated();
        let mut reactor = Reactor::new(&clock).unwrap();
        let handle = reactor.handle().clone();
        let mut listener = Listener::open("ptcp:0:127.0.0.1", 0, &handle, handle.new_key()).unwrap();
        let remote = format!("tcp:127.0.0.1:{}", listener.bound_port().unwrap());
        let mut client = Session::open(&[remote], true, &handle, handle.new_key());
        let mut server = None;
        drive(&mut reactor, &clock, || {
            client.run();
            if let Ok(stream) = listener.accept() {
                server = Some(Session::from_stream(stream, &handle));
            }
            client.is_connected() && server.is_some()
        });
        let seqno = client.seqno();
        let mut server = server.unwrap();
        client.send(&Message::request("hi", Json::array([]), Json::from(1)));
        let mut got = None;
        drive(&mut reactor, &clock, || {
            client.run();
            server.run();
            got = got.take().or(server.recv());
            got.is_some()
        });
        assert_eq!(got.unwrap().to_string(), "method=\"hi\", params=[], id=1");
        // A minute of silence: probes keep both alive, and neither owner sees them.
        let start = clock.now();
        drive(&mut reactor, &clock, || {
            client.run();
            server.run();
            assert!(client.recv().is_none() && server.recv().is_none());
            clock.now() > start.plus_ms(60_000)
        });
        assert!(client.is_connected() && server.is_alive());
        // The server goes silent: the client drops it and connects again.
        drive(&mut reactor, &clock, || {
            client.run();
            client.recv();
            !client.is_connected()
        });
        drop(server);
        drive(&mut reactor, &clock, || {
            client.run();
            client.is_connected()
        });
        assert!(listener.accept().is_ok());
        assert_eq!(client.seqno(), seqno + 2);
    }

    #[test]
    fn accepted_session_ends_with_its_stream() {
        let reactor = Reactor::new(&Clock::new()).unwrap();
        let handle = reactor.handle();
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut session =
            Session::from_stream(Stream::from_unix(a, "x", handle, handle.new_key()).unwrap(), handle);
        assert!(session.is_alive());
        drop(b);
        assert_eq!(session.recv(), None);
        assert!(!session.is_alive());
    }
}
