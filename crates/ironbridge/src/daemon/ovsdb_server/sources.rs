//! Connections to the servers that databases are copied from.
//!
//! What is said over them is the business of [`ib_ovsdb::server`]; here are the sockets. A connection that is lost is made
//! again, to the next of the source's remotes, for as long as the source is wanted.

use std::collections::{BTreeMap, HashMap};

use ib_base::json::Json;
use ib_base::time::Instant;
use ib_ovsdb::server::{Now, Server, SourceId};
use ib_stream::jsonrpc::Message;
use ib_stream::reactor::{Handle, Key};
use ib_stream::session::Session;

/// Messages taken from one source before others get their turn.
const BURST: usize = 64;
/// After how long a silence sources are probed, unless it is said otherwise.
pub(super) const PROBE_MS: u64 = 60_000;

/// How to treat the connection to a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceOptions {
    /// Where it is: connection methods, to be tried in turn.
    pub remotes: String,
    pub probe_ms: u64,
    pub max_backoff_ms: u64,
}

impl SourceOptions {
    pub(crate) fn new(remotes: &str, probe_ms: u64) -> SourceOptions {
        SourceOptions { remotes: remotes.to_string(), probe_ms, max_backoff_ms: 8_000 }
    }

    fn remote_list(&self) -> Vec<String> {
        self.remotes.split(',').map(|r| r.trim().to_string()).collect()
    }
}

struct Link {
    session: Session,
    seqno: u32,
}

/// All connections to sources.
pub(crate) struct Sources {
    handle: Handle,
    links: BTreeMap<SourceId, Link>,
    keys: HashMap<Key, SourceId>,
}

impl Sources {
    pub(crate) fn new(handle: &Handle) -> Sources {
        Sources { handle: handle.clone(), links: BTreeMap::new(), keys: HashMap::new() }
    }

    /// Begins to connect to a source.
    pub(crate) fn add(&mut self, id: SourceId, options: &SourceOptions) {
        let key = self.handle.new_key();
        let mut session = Session::open(&options.remote_list(), true, &self.handle, key);
        session.reconnect_mut().set_probe_interval(options.probe_ms);
        session.reconnect_mut().set_backoff(1_000, options.max_backoff_ms.max(1_000));
        self.keys.insert(key, id);
        self.links.insert(id, Link { seqno: session.seqno(), session });
        self.handle.wake(key);
    }

    /// Drops the connection to a source for good.
    pub(crate) fn remove(&mut self, id: SourceId) {
        self.links.remove(&id);
        self.keys.retain(|_, source| *source != id);
    }

    /// Changes after how long a silence a source is probed.
    pub(crate) fn set_probe_interval(&mut self, id: SourceId, ms: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.reconnect_mut().set_probe_interval(ms);
        }
    }

    /// Whether the descriptor is one of these.
    pub(crate) fn owns(&self, key: Key) -> bool {
        self.keys.contains_key(&key)
    }

    /// Serves a descriptor that is ready.
    pub(crate) fn ready(&mut self, key: Key, server: &mut Server, now: Now) {
        if let Some(&id) = self.keys.get(&key) {
            self.pump(id, server, now);
        }
    }

    /// Runs the sessions whose time has come.
    pub(crate) fn run_timers(&mut self, at: Instant, server: &mut Server, now: Now) {
        let due = |l: &Link| l.session.deadline().is_some_and(|d| d <= at);
        let ids: Vec<SourceId> = self.links.iter().filter(|(_, l)| due(l)).map(|(id, _)| *id).collect();
        for id in ids {
            self.pump(id, server, now);
        }
    }

    /// When [`Sources::run_timers`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.links.values().filter_map(|l| l.session.deadline()).min()
    }

    /// Sends a request to a source; it is lost if there is no connection.
    pub(crate) fn send(&mut self, id: SourceId, text: &str) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.send_text(text.to_string());
        }
    }

    /// Drops a connection, to make another.
    pub(crate) fn reconnect(&mut self, id: SourceId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.force_reconnect();
        }
    }

    fn pump(&mut self, id: SourceId, server: &mut Server, now: Now) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.session.run();
        follow(link, id, server, now);
        for n in 0.. {
            if n == BURST {
                self.handle.wake(link.session.key());
                break;
            }
            match link.session.recv() {
                Some(Message::Reply { result, id: request }) => {
                    server.source_answered(id, &request, Ok(result), now);
                }
                Some(Message::Error { error, id: request }) => {
                    server.source_answered(id, &request, Err(error), now);
                }
                Some(Message::Notify { method, params }) => {
                    server.source_notified(id, &method, params.as_array().unwrap_or_default(), now);
                }
                Some(Message::Request { id: request, .. }) => {
                    link.session.send(&Message::error(Json::from("unknown method"), request));
                }
                None => break,
            }
        }
        follow(link, id, server, now);
    }
}

/// Tells the server when a connection has begun or ended.
fn follow(link: &mut Link, id: SourceId, server: &mut Server, now: Now) {
    if link.session.seqno() == link.seqno {
        return;
    }
    link.seqno = link.session.seqno();
    server.source_disconnected(id, now);
    if link.session.is_connected() {
        server.source_connected(id);
    }
}
