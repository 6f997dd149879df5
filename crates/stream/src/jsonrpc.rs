//! JSON-RPC 1.0 as OVSDB and unixctl speak it: messages, and a connection that carries them.
//!
//! [`Message`] turns to and from JSON with the checks of RFC 7047's users. [`Rpc`] owns a [`Stream`]: bytes in become
//! messages, messages out become bytes that leave as the peer takes them. Nothing blocks. Memory is bounded by the size
//! limit of one message on the way in, and by [`Rpc::backlog`], which the owner watches, on the way out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;

use ib_base::json::{Json, Object, Parser};
use ib_base::vlog::Level;
use ib_base::vlog::module::JSONRPC;
use ib_base::{coverage, vlog_dbg_rl, vlog_warn_rl};

use crate::stream::Stream;

/// Largest message that is taken in, in bytes: a full database of the design's size fits several times.
pub const MAX_MESSAGE_BYTES: usize = 1 << 30;
/// How much is read in one go before the owner gets to serve others.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where bytes arrive: one for all connections of a thread, for most of the time they have none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A message.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Wants a reply with the same id.
    Request {
        /// Method's name.
        method: String,
        /// An array.
        params: Json,
        /// Any JSON but null.
        id: Json,
    },
    /// Wants none.
    Notify {
        /// Method's name.
        method: String,
        /// An array.
        params: Json,
    },
    /// The answer of a request that succeeded.
    Reply {
        /// Anything but null.
        result: Json,
        /// The request's id.
        id: Json,
    },
    /// The answer of a request that failed.
    Error {
        /// Anything but null.
        error: Json,
        /// The request's id.
        id: Json,
    },
}

impl Message {
    /// A request.
    pub fn request(method: &str, params: Json, id: Json) -> Message {
        Message::Request { method: method.to_string(), params, id }
    }

    /// A notification.
    pub fn notify(method: &str, params: Json) -> Message {
        Message::Notify { method: method.to_string(), params }
    }

    /// The answer of a request that succeeded.
    pub fn reply(result: Json, id: Json) -> Message {
        Message::Reply { result, id }
    }

    /// The answer of a request that failed.
    pub fn error(error: Json, id: Json) -> Message {
        Message::Error { error, id }
    }

    /// The message's JSON, in the order of members that OVS writes.
    pub fn to_json(&self) -> Json {
        let mut o = Object::new();
        match self {
            Message::Request { method, params, id } => {
                o.insert("id", id.clone());
                o.insert("method", method.as_str());
                o.insert("params", params.clone());
            }
            Message::Notify { method, params } => {
                o.insert("id", Json::Null);
                o.insert("method", method.as_str());
                o.insert("params", params.clone());
            }
            Message::Reply { result, id } => {
                o.insert("id", id.clone());
                o.insert("result", result.clone());
                o.insert("error", Json::Null);
            }
            Message::Error { error, id } => {
                o.insert("id", id.clone());
                o.insert("result", Json::Null);
                o.insert("error", error.clone());
            }
        }
        Json::Object(o)
    }

    /// The message that `json` is; the error is the text for the log.
    pub fn from_json(json: Json) -> Result<Message, String> {
        let Json::Object(mut object) = json else {
            return Err("message is not a JSON object".to_string());
        };
        let method = match object.remove("method") {
            None => None,
            Some(Json::String(s)) => Some(s.to_string()),
            Some(_) => return Err("method is not a JSON string".to_string()),
        };
        // An absent member counts as null; an id of null as absent.
        let mut member = |name: &str| object.remove(name).filter(|v| !v.is_null());
        let (params, result, error, id) = (member("params"), member("result"), member("error"), member("id"));
        if let Some((name, _)) = object.iter().next() {
            return Err(format!("message has unexpected member \"{name}\""));
        }
        // The kind follows from what is there; then each member must, or must not, be there.
        let (kind, wanted) = match (&result, &error, &id) {
            (Some(_), _, _) => ("reply", [false, false, true, false, true]),
            (None, Some(_), _) => ("error", [false, false, false, true, true]),
            (None, None, Some(_)) => ("request", [true, true, false, false, true]),
            (None, None, None) => ("notification", [true, true, false, false, false]),
        };
        let there = [method.is_some(), params.is_some(), result.is_some(), error.is_some(), id.is_some()];
        for (i, name) in ["method", "params", "result", "error", "id"].into_iter().enumerate() {
            match (there[i], wanted[i]) {
                (true, false) => return Err(format!("{kind} must not have \"{name}\"")),
                (false, true) => return Err(format!("{kind} must have \"{name}\"")),
                _ => {}
            }
        }
        if params.as_ref().is_some_and(|p| p.as_array().is_none()) {
            return Err("\"params\" must be JSON array".to_string());
        }
        Ok(match (result, error, id, method, params) {
            (Some(result), None, Some(id), None, None) => Message::Reply { result, id },
            (None, Some(error), Some(id), None, None) => Message::Error { error, id },
            (None, None, Some(id), Some(method), Some(params)) => Message::Request { method, params, id },
            (None, None, None, Some(method), Some(params)) => Message::Notify { method, params },
            _ => return Err("message has no kind".to_string()),
        })
    }

    /// The log's word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::Request { .. } => "request",
            Message::Notify { .. } => "notification",
            Message::Reply { .. } => "reply",
            Message::Error { .. } => "error",
        }
    }

    /// Whether this is an `echo` request: an inactivity probe.
    pub fn is_echo(&self) -> bool {
        matches!(self, Message::Request { method, .. } if method == "echo")
    }
}

/// As the log shows messages.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Request { method, params, id } => {
                write!(f, "method=\"{method}\", params={params}, id={id}")
            }
            Message::Notify { method, params } => write!(f, "method=\"{method}\", params={params}"),
            Message::Reply { result, id } => write!(f, "result={result}, id={id}"),
            Message::Error { error, id } => write!(f, "error={error}, id={id}"),
        }
    }
}

/// A connection that carries messages.
#[derive(Debug)]
pub struct Rpc {
    stream: Stream,
    name: String,
    parser: Parser,
    output: VecDeque<Vec<u8>>,
    /// Bytes of the first of `output` that have left.
    sent: usize,
    backlog: usize,
    /// Bytes received so far.
    received: u64,
    /// The end, once it has come.
    status: Option<io::Error>,
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(n) => io::Error::from_raw_os_error(n),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl Rpc {
    /// Carries messages over `stream`.
    pub fn new(stream: Stream) -> Rpc {
        Rpc {
            name: stream.name().to_string(),
            stream,
            parser: Parser::with_limit(MAX_MESSAGE_BYTES),
            output: VecDeque::new(),
            sent: 0,
            backlog: 0,
            received: 0,
            status: None,
        }
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The stream, to go on connecting.
    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The name in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that wait to leave.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// How many bytes have come in: changes when the peer is alive.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Why the connection ended, once it has; `UnexpectedEof` if the peer closed it in good order.
    pub fn status(&self) -> Option<&io::Error> {
        self.status.as_ref()
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        let answer = copy(&error);
        if self.status.is_none() {
            self.status = Some(error);
            self.output.clear();
            self.sent = 0;
            self.backlog = 0;
        }
        answer
    }

    /// Appends `message` to what is to leave, and sends what goes now.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        if JSONRPC.enabled(Level::Dbg) {
            vlog_dbg_rl!(JSONRPC, (600, 600), "{}: send {}, {}", self.name, message.kind(), message);
        }
        coverage::jsonrpc_sent.inc();
        self.send_text(message.to_json().to_string())
    }

    /// As [`Rpc::send`], for a message that is text already, to save making it for each of many peers.
    pub fn send_text(&mut self, text: String) -> io::Result<()> {
        if let Some(status) = &self.status {
            return Err(copy(status));
        }
        self.backlog += text.len();
        self.output.push_back(text.into_bytes());
        // With others waiting before it, it has to wait as well.
        if self.output.len() == 1 { self.run() } else { Ok(()) }
    }

    /// Sends what goes now.
    pub fn run(&mut self) -> io::Result<()> {
        if let Some(status) = &self.status {
            return Err(copy(status));
        }
        while let Some(first) = self.output.front() {
            match self.stream.send(&first[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.backlog -= n;
                    if self.sent == first.len() {
                        self.output.pop_front();
                        self.sent = 0;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => {
                    vlog_warn_rl!(
                        JSONRPC,
                        (5, 5),
                        "{}: send error: {}",
                        self.name,
                        ib_base::errno::strerror(&e)
                    );
                    return Err(self.fail(e));
                }
            }
        }
        Ok(())
    }

    /// The next message; `None` if it has not come yet. An error ends the connection, and is given again and again.
    pub fn recv(&mut self) -> io::Result<Option<Message>> {
        if let Some(status) = &self.status {
            return Err(copy(status));
        }
        let mut read = 0;
        loop {
            match self.parser.next_value() {
                Ok(Some(json)) => {
                    coverage::jsonrpc_received.inc();
                    return match Message::from_json(json) {
                        Ok(message) => {
                            if JSONRPC.enabled(Level::Dbg) {
                                let kind = message.kind();
                                vlog_dbg_rl!(
                                    JSONRPC,
                                    (600, 600),
                                    "{}: received {kind}, {message}",
                                    self.name
                                );
                            }
                            Ok(Some(message))
                        }
                        Err(why) => {
                            vlog_warn_rl!(
                                JSONRPC,
                                (5, 5),
                                "{}: received bad JSON-RPC message: {why}",
                                self.name
                            );
                            Err(self.fail(io::Error::from_raw_os_error(71)))
                        }
                    };
                }
                Ok(None) => {}
                Err(why) => {
                    vlog_warn_rl!(JSONRPC, (5, 5), "{}: error parsing stream: {why}", self.name);
                    return Err(self.fail(io::Error::from_raw_os_error(71)));
                }
            }
            if read >= READ_BYTES * 16 {
                // A message of great length: let the others have their turn.
                self.stream.wake();
                return Ok(None);
            }
            let received = SCRATCH.with_borrow_mut(|buf| {
                let received = self.stream.recv(buf);
                if let Ok(n) = received {
                    self.parser.feed(&buf[..n]);
                }
                received
            });
            match received {
                Ok(0) => return Err(self.fail(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.received += n as u64;
                    read += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => {
                    vlog_warn_rl!(
                        JSONRPC,
                        (5, 5),
                        "{}: receive error: {}",
                        self.name,
                        ib_base::errno::strerror(&e)
                    );
                    return Err(self.fail(e));
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::reactor::Reactor;
    use ib_base::time::Clock;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages() {
        for (text, expect) in [
            (r#"{"id":1,"method":"a","params":[]}"#, Ok("request")),
            (r#"{"id":null,"method":"a","params":[1]}"#, Ok("notification")),
            (r#"{"method":"a","params":[1]}"#, Ok("notification")),
            (r#"{"id":"x","result":{},"error":null}"#, Ok("reply")),
            (r#"{"id":"x","result":null,"error":"no"}"#, Ok("error")),
            ("[]", Err("message is not a JSON object")),
            (r#"{"id":1,"method":2,"params":[]}"#, Err("method is not a JSON string")),
            (r#"{"id":1,"method":"a","params":{}}"#, Err("\"params\" must be JSON array")),
            (r#"{"id":1,"method":"a"}"#, Err("request must have \"params\"")),
            (r#"{"result":1,"error":null}"#, Err("reply must have \"id\"")),
            (r#"{"id":1}"#, Err("request must have \"method\"")),
            (r#"{"id":1,"method":"a","params":[],"x":1}"#, Err("message has unexpected member \"x\"")),
            (r#"{"id":1,"method":"a","params":[],"result":1}"#, Err("reply must not have \"method\"")),
        ] {
            let json = Json::parse(text).unwrap();
            let got = Message::from_json(json);
            match (&got, expect) {
                (Ok(m), Ok(kind)) => {
                    assert_eq!(m.kind(), kind, "{text}");
                    assert_eq!(Message::from_json(m.to_json()).unwrap(), *m);
                }
                (Err(e), Err(expect)) => assert_eq!(e, expect, "{text}"),
                _ => panic!("{text}: {got:?}"),
            }
        }
        let m = Message::request("m", Json::array([]), Json::from(3));
        assert_eq!(m.to_json().to_string(), r#"{"id":3,"method":"m","params":[]}"#);
        assert_eq!(
            Message::reply(Json::array([]), Json::from(3)).to_json().to_string(),
            r#"{"id":3,"result":[],"error":null}"#
        );
    }

    fn pair(reactor: &Reactor) -> (Rpc, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        let key = reactor.handle().new_key();
        (Rpc::new(Stream::from_unix(a, "test", reactor.handle(), key).unwrap()), b)
    }

    #[test]
    fn framing_of_split_bytes() {
        let reactor = Reactor::new(&Clock::new()).unwrap();
        let (mut rpc, mut peer) = pair(&reactor);
        let text = br#" {"id":1,"method":"a}\"{","params":["\\"]}{"id":2,"method":"b","params":[]}"#;
        for byte in &text[..41] {
            assert_eq!(rpc.recv().unwrap(), None);
            peer.write_all(&[*byte]).unwrap();
        }
        peer.write_all(&text[41..]).unwrap();
        let methods: Vec<_> = std::iter::from_fn(|| rpc.recv().unwrap())
            .map(|m| match m {
                Message::Request { method, .. } => method,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(methods, ["a}\"{", "b"]);
        drop(peer);
        assert_eq!(rpc.recv().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(rpc.recv().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn garbage_ends_it() {
        let reactor = Reactor::new(&Clock::new()).unwrap();
        for garbage in ["x ", "{]", "[1]", "{\"id\":1}"] {
            let (mut rpc, mut peer) = pair(&reactor);
            peer.write_all(garbage.as_bytes()).unwrap();
            assert_eq!(rpc.recv().unwrap_err().raw_os_error(), Some(71), "{garbage}");
            assert!(rpc.send(&Message::notify("x", Json::array([]))).is_err());
        }
    }

    #[test]
    fn backlog_drains() {
        use std::io::Read;
        let mut reactor = Reactor::new(&Clock::new()).unwrap();
        let (mut rpc, mut peer) = pair(&reactor);
        let big = Message::notify("x", Json::array([Json::from("y".repeat(3_000_000))]));
        rpc.send(&big).unwrap();
        assert!(rpc.backlog() > 0);
        let expect = big.to_json().to_string().into_bytes();
        let len = expect.len();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; len];
            peer.read_exact(&mut all).unwrap();
            all
        });
        while rpc.backlog() > 0 {
            reactor.wait(None).unwrap();
            rpc.run().unwrap();
        }
        assert!(reader.join().unwrap() == expect);
    }
}
