//! The sockets of OpenFlow: does what `ofproto` says in `ConnCommand`s and tells it what happened.
//!
//! One map by reactor key for those that are ready, one by connection for those to write to; the cost of a
//! turn is that of its ready sockets. What a peer does not take is kept up to [`MAX_BACKLOG`] bytes, then the connection is
//! closed; from [`PAUSE_BACKLOG`] bytes on nothing is read from it, so that requests alone cannot fill memory.

use std::collections::{HashMap, VecDeque};
use std::io;

use ib_base::errno::strerror;
use ib_base::time::Instant;
use ib_base::vlog::module::VCONN;
use ib_base::vlog_warn;
use ib_ofproto::{ConnCommand, ConnEvent, ConnId, Switch};
use ib_stream::reactor::{Handle, Key};
use ib_stream::stream::{Listener, Stream};

/// Default port of OpenFlow.
const OFP_PORT: u16 = 6653;
/// Bytes that may wait for a peer that does not read.
const MAX_BACKLOG: usize = 256 << 20;
/// Bytes that wait for a peer when no more requests are taken from it.
const PAUSE_BACKLOG: usize = 4 << 20;
/// Bytes read from one connection before others have their turn.
const READ_BYTES: usize = 64 * 1024;
/// Time between attempts to listen, ms.
const LISTEN_RETRY_MS: u64 = 1000;

/// Which bridge's socket.
type Target = (String, String);

struct Conn {
    bridge: String,
    id: ConnId,
    stream: Stream,
    connected: bool,
    out: VecDeque<u8>,
    /// The switch knows that not everything has left.
    blocked: bool,
    /// Close when everything has left.
    closing: bool,
}

/// All OpenFlow sockets of the daemon.
pub struct Conns {
    handle: Handle,
    listeners: HashMap<Key, (Target, Listener)>,
    /// Passive targets that could not be opened yet, with their marks.
    pending: Vec<(Target, u8)>,
    next_listen: Option<Instant>,
    conns: HashMap<Key, Conn>,
    by_id: HashMap<(String, ConnId), Key>,
    next_unix_peer: u64,
    buf: Vec<u8>,
    /// A connection came or went.
    news: bool,
}

impl Conns {
    /// No socket yet.
    pub fn new(handle: &Handle) -> Conns {
        Conns {
            handle: handle.clone(),
            listeners: HashMap::new(),
            pending: Vec::new(),
            next_listen: None,
            conns: HashMap::new(),
            by_id: HashMap::new(),
            next_unix_peer: 0,
            buf: vec![0; READ_BYTES],
            news: false,
        }
    }

    /// When [`Self::run`] is next needed by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_listen
    }

    /// Does what the switch asked for.
    pub fn run(&mut self, switch: &mut Switch, now: Instant) {
        if self.next_listen.is_some_and(|t| now >= t) {
            self.next_listen = None;
            for (target, dscp) in std::mem::take(&mut self.pending) {
                self.listen(target, dscp, now, false);
            }
        }
        loop {
            let commands = switch.take_conn_commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                self.obey(command, switch, now);
            }
        }
    }

    fn obey(&mut self, command: ConnCommand, switch: &mut Switch, now: Instant) {
        match command {
            ConnCommand::Listen { bridge, target, dscp } => self.listen((bridge, target), dscp, now, true),
            ConnCommand::Unlisten { bridge, target } => {
                let wanted = (bridge, target);
                self.pending.retain(|(t, _)| *t != wanted);
                self.listeners.retain(|_, (t, _)| *t != wanted);
            }
            ConnCommand::Connect { bridge, conn, target, dscp } => {
                self.connect((bridge, conn), &target, dscp, switch, now);
            }
            ConnCommand::Send { bridge, conn, data } => {
                let Some(key) = self.by_id.get(&(bridge, conn)).copied() else { return };
                if let Some(c) = self.conns.get_mut(&key) {
                    c.out.extend(data);
                    self.flush(key, switch, now);
                }
            }
            ConnCommand::Close { bridge, conn } => {
                let Some(key) = self.by_id.get(&(bridge, conn)).copied() else { return };
                if let Some(c) = self.conns.get_mut(&key) {
                    c.closing = true;
                    self.flush(key, switch, now);
                }
            }
        }
    }

    fn listen(&mut self, target: Target, dscp: u8, now: Instant, first: bool) {
        let key = self.handle.new_key();
        match Listener::open(&target.1, OFP_PORT, &self.handle, key) {
            Ok(mut listener) => {
                listener.set_dscp(dscp);
                self.listeners.insert(key, (target, listener));
            }
            Err(e) => {
                if first {
                    vlog_warn!(VCONN, "{}: failed to listen: {}", target.1, strerror(&e));
                }
                self.pending.push((target, dscp));
                self.next_listen = Some(now.plus_ms(LISTEN_RETRY_MS));
            }
        }
    }

    fn connect(
        &mut self,
        (bridge, id): (String, ConnId),
        target: &str,
        dscp: u8,
        switch: &mut Switch,
        now: Instant,
    ) {
        let key = self.handle.new_key();
        match Stream::open(target, OFP_PORT, &self.handle, key) {
            Ok(mut stream) => {
                stream.set_dscp(dscp);
                self.add(
                    key,
                    Conn {
                        bridge,
                        id,
                        stream,
                        connected: false,
                        out: VecDeque::new(),
                        blocked: false,
                        closing: false,
                    },
                );
                // It may be up already: UNIX sockets connect at once.
                self.handle.wake(key);
            }
            Err(e) => {
                self.news = true;
                switch.conn_event(&bridge, ConnEvent::Closed { conn: id, reason: Some(strerror(&e)) }, now);
            }
        }
    }

    fn add(&mut self, key: Key, conn: Conn) {
        self.by_id.insert((conn.bridge.clone(), conn.id), key);
        self.conns.insert(key, conn);
    }

    fn remove(&mut self, key: Key) -> Option<Conn> {
        let conn = self.conns.remove(&key)?;
        self.by_id.remove(&(conn.bridge.clone(), conn.id));
        Some(conn)
    }

    fn close(&mut self, key: Key, reason: Option<String>, switch: &mut Switch, now: Instant) {
        let Some(conn) = self.remove(key) else { return };
        if !conn.closing {
            self.news = true;
            switch.conn_event(&conn.bridge, ConnEvent::Closed { conn: conn.id, reason }, now);
        }
    }

    /// Whether a connection came or went since the last time.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Serves one ready socket, if the key is one of ours.
    pub fn ready(&mut self, key: Key, switch: &mut Switch, now: Instant) {
        if self.listeners.contains_key(&key) {
            return self.accept(key, switch, now);
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if !conn.connected {
            match conn.stream.connect() {
                Ok(()) => {
                    conn.connected = true;
                    self.news = true;
                    let (bridge, id) = (conn.bridge.clone(), conn.id);
                    switch.conn_event(&bridge, ConnEvent::Connected { conn: id }, now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.close(key, Some(strerror(&e)), switch, now),
            }
        }
        self.flush(key, switch, now);
        self.receive(key, switch, now);
    }

    fn accept(&mut self, key: Key, switch: &mut Switch, now: Instant) {
        while let Some(((bridge, target), listener)) = self.listeners.get_mut(&key) {
            let stream = match listener.accept() {
                Ok(stream) => stream,
                Err(_) => return,
            };
            let (bridge, target) = (bridge.clone(), target.clone());
            let Some(id) = switch.bridge_mut(&bridge).map(|b| b.new_conn_id()) else { return };
            let peer = match stream.peer() {
                "" => {
                    self.next_unix_peer += 1;
                    format!("unix#{}", self.next_unix_peer)
                }
                named => named.to_owned(),
            };
            let conn_key = stream.key();
            let conn = Conn {
                bridge: bridge.clone(),
                id,
                stream,
                connected: true,
                out: VecDeque::new(),
                blocked: false,
                closing: false,
            };
            self.news = true;
            self.add(conn_key, conn);
            let event = ConnEvent::Accepted { listener: &target, conn: id, peer: &peer };
            switch.conn_event(&bridge, event, now);
            self.handle.wake(conn_key);
        }
    }

    /// Sends what waits.
    fn flush(&mut self, key: Key, switch: &mut Switch, now: Instant) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if !conn.connected {
            return;
        }
        while !conn.out.is_empty() {
            let (head, _) = conn.out.as_slices();
            match conn.stream.send(head) {
                Ok(n) => {
                    conn.out.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if conn.out.len() > MAX_BACKLOG {
                        self.close(key, Some("peer does not read".into()), switch, now);
                    } else if !std::mem::replace(&mut conn.blocked, true) {
                        let (bridge, conn) = (conn.bridge.clone(), conn.id);
                        switch.conn_event(&bridge, ConnEvent::Blocked { conn }, now);
                    }
                    return;
                }
                Err(e) => {
                    self.close(key, Some(strerror(&e)), switch, now);
                    return;
                }
            }
        }
        let was_blocked = std::mem::take(&mut conn.blocked);
        if conn.closing {
            self.remove(key);
        } else if was_blocked {
            let (bridge, conn) = (conn.bridge.clone(), conn.id);
            switch.conn_event(&bridge, ConnEvent::Drained { conn }, now);
        }
    }

    fn receive(&mut self, key: Key, switch: &mut Switch, now: Instant) {
        let mut total = 0;
        while total < READ_BYTES {
            let Some(conn) = self.conns.get_mut(&key).filter(|c| !c.closing) else { return };
            if conn.out.len() > PAUSE_BACKLOG {
                // The socket takes no more now; when it does, it is ready again and read again.
                return;
            }
            match conn.stream.recv(&mut self.buf) {
                Ok(0) => {
                    self.close(key, None, switch, now);
                    return;
                }
                Ok(n) => {
                    total += n;
                    let (bridge, id) = (conn.bridge.clone(), conn.id);
                    let event = ConnEvent::Received { conn: id, data: &self.buf[..n] };
                    switch.conn_event(&bridge, event, now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.close(key, Some(strerror(&e)), switch, now);
                    return;
                }
            }
        }
        self.handle.wake(key);
    }
}
