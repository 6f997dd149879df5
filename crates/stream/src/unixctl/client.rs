//! The client's side of a control socket: one command, one answer, blocking.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ib_base::errno::strerror;
use ib_base::json::{Json, Parser, Style};
use ib_base::vlog::module::{JSONRPC, UNIXCTL};
use ib_base::{vlog_dbg, vlog_warn};
use ib_sys::{dirs, pidfile, socket};

use crate::jsonrpc::Message;

/// A connection to a daemon's control socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    name: String,
    parser: Parser,
    next_id: i64,
}

fn open(path: &Path) -> io::Result<UnixStream> {
    let (short, dir) = socket::short_unix_path(path)?;
    let stream = UnixStream::connect(short)?;
    drop(dir);
    Ok(stream)
}

fn protocol_error(text: &str) -> io::Error {
    vlog_warn!(JSONRPC, "unix: {text}");
    io::Error::from_raw_os_error(71)
}

/// The socket of `target`: an absolute path is one; another name is found by its pidfile in the run directory. The
/// error is the text for the user.
pub fn find(target: &str) -> Result<PathBuf, String> {
    if target.starts_with('/') {
        return Ok(PathBuf::from(target));
    }
    let file = dirs::rundir().join(format!("{target}.pid"));
    let pid = pidfile::read(&file, false)
        .map_err(|e| format!("cannot read pidfile \"{}\" ({})", file.display(), strerror(&e)))?;
    Ok(dirs::rundir().join(format!("{target}.{pid}.ctl")))
}

impl Client {
    /// Connects to the socket `path`.
    pub fn connect(path: &Path) -> io::Result<Client> {
        let stream = open(path).inspect_err(|_| {
            vlog_warn!(UNIXCTL, "failed to connect to {}", path.display());
        })?;
        let name = format!("unix:{}", path.display());
        Ok(Client { stream, name, parser: Parser::new(), next_id: 0 })
    }

    /// Calls a command and waits for its answer: the result or, as `Ok(Err)`, the daemon's error.
    pub fn call(&mut self, command: &str, args: &[String]) -> io::Result<Result<Json, Json>> {
        let id = Json::from(self.next_id);
        self.next_id += 1;
        let params = Json::array(args.iter().map(|a| Json::from(a.as_str())));
        let request = Message::request(command, params, id.clone());
        vlog_dbg!(JSONRPC, "{}: send request, {request}", self.name);
        self.stream.write_all(request.to_json().to_string().as_bytes())?;
        let mut buf = vec![0; 64 * 1024];
        loop {
            while let Some(json) = self.parser.next_value().map_err(|e| protocol_error(&e.to_string()))? {
                let message = Message::from_json(json).map_err(|e| protocol_error(&e))?;
                vlog_dbg!(JSONRPC, "{}: received {}, {message}", self.name, message.kind());
                match message {
                    Message::Reply { result, id: of } if of == id => return Ok(Ok(result)),
                    Message::Error { error, id: of } if of == id => return Ok(Err(error)),
                    _ => {}
                }
            }
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.parser.feed(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// An answer as text for the terminal: strings bare, JSON compact or pretty.
pub fn answer_text(answer: &Json, style: Style) -> String {
    match answer.as_str() {
        Some(s) => s.to_string(),
        None => answer.to_text(style),
    }
}
