//! A blocking connection to a database server, for tools that do one thing and exit.
//!
//! [`Connection`] carries JSON-RPC messages over a stream of its own reactor, and answers the server's probes.
//! [`follow`] drives a replica ([`Idl`]) on one until a condition holds. Timeouts are the process's (`--timeout` arms an
//! alarm), so nothing here has a deadline.

use ib_base::json::Json;
use ib_base::time::Clock;
use ib_ovsdb::idl::Idl;
use ib_stream::jsonrpc::{Message, Rpc};
use ib_stream::reactor::{Handle, Reactor};
use ib_stream::stream::{self, Listener, OVSDB_PORT, Stream};
use std::io;

/// How long to pause before another attempt to connect.
const RETRY_MS: u64 = 1000;

/// A session with a database server.
pub struct Connection {
    reactor: Reactor,
    rpc: Rpc,
    /// Kept while a passive connection lasts.
    _listener: Option<Listener>,
    next_id: i64,
}

impl Connection {
    /// Connects to one of `remotes`, a list separated by commas, in its order, or listens there and takes the first connection.
    /// With `retry`, tries until it works.
    pub fn open(remotes: &str, retry: bool) -> io::Result<Connection> {
        loop {
            let mut failure = io::Error::from(io::ErrorKind::InvalidInput);
            for remote in split_remotes(remotes) {
                match Connection::open_one(remote) {
                    Ok(connection) => return Ok(connection),
                    Err(error) => failure = error,
                }
            }
            if !retry {
                return Err(failure);
            }
            std::thread::sleep(std::time::Duration::from_millis(RETRY_MS));
        }
    }

    /// Connects to `remote`, whose commas are its own.
    pub fn open_one(remote: &str) -> io::Result<Connection> {
        let mut reactor = Reactor::new(&Clock::new())?;
        let handle = reactor.handle().clone();
        let key = handle.new_key();
        let mut listener = None;
        let stream = if stream::is_passive(remote) {
            let listener = listener.insert(Listener::open(remote, OVSDB_PORT, &handle, key)?);
            loop {
                match listener.accept() {
                    Ok(stream) => break stream,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
                reactor.wait(None)?;
            }
        } else {
            let mut stream = Stream::open(remote, OVSDB_PORT, &handle, key)?;
            loop {
                match stream.connect() {
                    Ok(()) => break stream,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
                reactor.wait(None)?;
            }
        };
        Ok(Connection { reactor, rpc: Rpc::new(stream), _listener: listener, next_id: 0 })
    }

    /// The way to the connection's reactor, for a control socket beside it.
    pub fn handle(&self) -> Handle {
        self.reactor.handle().clone()
    }

    /// Has fatal signals end the process while it waits.
    pub fn watch_signals(&self) -> io::Result<()> {
        self.reactor.watch_signals()
    }

    /// Waits until something happens on the connection or its reactor's other descriptors.
    pub fn wait(&mut self) -> io::Result<()> {
        self.reactor.wait(None).map(drop)
    }

    /// Sends a message, now or while receiving.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.rpc.send(message)
    }

    /// The next message that is not a probe.
    pub fn recv(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
            self.reactor.wait(None)?;
        }
    }

    /// The next message that is not a probe, if it is there.
    pub fn try_recv(&mut self) -> io::Result<Option<Message>> {
        loop {
            self.rpc.run()?;
            match self.rpc.recv()? {
                Some(Message::Request { method, params, id }) if method == "echo" => {
                    self.rpc.send(&Message::reply(params, id))?;
                }
                other => return Ok(other),
            }
        }
    }

    /// Sends a request and waits for its answer: the result, or the error that the server gives. Notifications that
    /// come first are dropped.
    pub fn call(&mut self, method: &str, params: Json) -> io::Result<Result<Json, Json>> {
        let id = self.request(method, params)?;
        loop {
            match self.recv()? {
                Message::Reply { result, id: of } if of == id => return Ok(Ok(result)),
                Message::Error { error, id: of } if of == id => return Ok(Err(error)),
                _ => {}
            }
        }
    }

    /// Sends a request and returns its ID.
    pub fn request(&mut self, method: &str, params: Json) -> io::Result<Json> {
        let id = Json::Integer(self.next_id);
        self.next_id += 1;
        self.send(&Message::request(method, params, id.clone()))?;
        Ok(id)
    }
}

/// The members of a list of connection methods.
pub fn split_remotes(remotes: &str) -> impl Iterator<Item = &str> {
    let is_method = |s: &str| stream::is_active(s) || stream::is_passive(s);
    // Only a comma before another method separates: a socket's path may contain one.
    let mut start = 0;
    let mut parts = Vec::new();
    for (i, _) in remotes.match_indices(',') {
        if is_method(&remotes[i + 1..]) {
            parts.push(&remotes[start..i]);
            start = i + 1;
        }
    }
    parts.push(&remotes[start..]);
    parts.into_iter()
}

/// Exchanges messages for `idl` until `done` says so. The replica has been told of the connection.
pub fn follow(
    connection: &mut Connection,
    idl: &mut Idl,
    mut done: impl FnMut(&mut Idl) -> bool,
) -> io::Result<()> {
    loop {
        for message in idl.take_messages() {
            match Message::from_json(message) {
                Ok(message) => connection.send(&message)?,
                Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
            }
        }
        if done(idl) {
            return Ok(());
        }
        let message = connection.recv()?;
        idl.receive(&message.to_json());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_split_at_methods_only() {
        let split = |text| split_remotes(text).collect::<Vec<_>>();
        assert_eq!(split("unix:/a,b,tcp:1.1.1.1:2"), ["unix:/a,b", "tcp:1.1.1.1:2"]);
        assert_eq!(split("foo"), ["foo"]);
    }
}
