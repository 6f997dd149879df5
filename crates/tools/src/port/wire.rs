//! What the two ends of a move say to each other, and by what.
//!
//! Lines of JSON: a step and its answer, `{"ok":TEXT}` or `{"error":TEXT}`. They go over the standard input and output of a command, or
//! over a stream of their own:
//!
//! ```text
//!  prepare      configuration and state   ports are added there, the state is checked
//!  connections  what is new of them       they are put in place (as often as it takes)
//!  heard                                  whether the machine has spoken there
//!  state        the state of this moment  it is put in place
//!  finish                                 that is what counts now; addresses are announced, and only then the ports go here
//!  abort        or the end of the line    the other end undoes what it did
//!  recover      after a line broke        on a new one: what has become of the move; what had not finished is undone
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use ib_base::errno::strerror;
use ib_base::json::{Json, Object};
use ib_stream::blocking::Blocking;

use super::file;
use crate::io::Io;

/// A line of the peer, at most.
const MAX_LINE: u64 = file::MAX_BYTES;
/// Where `receive` listens unless a port is given.
const DEFAULT_PORT: u16 = 6690;

/// A step with what it carries.
pub fn step(name: &str, more: &[(&str, Json)]) -> Json {
    let mut o = Object::new();
    o.insert("step", name);
    for (key, value) in more {
        o.insert(*key, value.clone());
    }
    Json::Object(o)
}

/// Why a step did not succeed.
pub enum Fail {
    /// The other end says so.
    Refused(String),
    /// It is not known whether the other end has heard.
    Lost(String),
}

impl Fail {
    /// For people.
    pub fn text(self) -> String {
        match self {
            Fail::Refused(why) => format!("the other end: {why}"),
            Fail::Lost(why) => why,
        }
    }
}

/// A line to the other end.
pub struct Link<'a> {
    child: Option<Child>,
    from: Box<dyn BufRead + 'a>,
    to: Box<dyn Write + 'a>,
}

impl<'a> Link<'a> {
    /// A command that ends up in the other program.
    pub fn command(words: &[String]) -> Result<Link<'static>, String> {
        let (program, args) = words
            .split_first()
            .ok_or("migrate needs --remote, or a command after \"--\" (use --help for help)")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{program}: {}", strerror(&e)))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => {
                Ok(Link { child: Some(child), from: Box::new(BufReader::new(from)), to: Box::new(to) })
            }
            _ => Err(format!("{program}: no pipe to it")),
        }
    }

    /// A stream.
    pub fn stream(stream: Blocking) -> Result<Link<'static>, String> {
        let reader = stream.try_clone().map_err(|e| strerror(&e))?;
        Ok(Link { child: None, from: Box::new(BufReader::new(reader)), to: Box::new(stream) })
    }

    /// Connects to where `receive` listens.
    pub fn connect(remote: &str) -> Result<Link<'static>, String> {
        let stream =
            Blocking::connect(remote, DEFAULT_PORT).map_err(|e| format!("{remote}: {}", strerror(&e)))?;
        Link::stream(stream)
    }

    /// Standard input and output.
    pub fn standard(io: &'a mut Io<'_>) -> Link<'a> {
        Link { child: None, from: Box::new(BufReader::new(&mut *io.stdin)), to: Box::new(&mut *io.stdout) }
    }

    /// Sends a line.
    pub fn say(&mut self, json: &Json) -> Result<(), String> {
        let mut text = json.to_text(Default::default());
        text.push('\n');
        let sent = self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush());
        sent.map_err(|e| format!("the other end is gone: {}", strerror(&e)))
    }

    /// The next line; `None` at the end.
    pub fn hear(&mut self) -> Result<Option<Json>, String> {
        let mut line = Vec::new();
        let n = Read::take(&mut self.from, MAX_LINE).read_until(b'\n', &mut line);
        match n.map_err(|e| format!("the other end: {}", strerror(&e)))? {
            0 => Ok(None),
            _ if line.last() != Some(&b'\n') => Err("the other end stopped in the middle of a line".into()),
            _ => {
                Json::parse_bytes(&line).map(Some).map_err(|e| format!("the other end speaks nonsense: {e}"))
            }
        }
    }

    /// Asks for a step; what was said of it.
    pub fn ask(&mut self, message: &Json) -> Result<String, Fail> {
        self.say(message).map_err(Fail::Lost)?;
        let answer = self.hear().map_err(Fail::Lost)?;
        let answer = answer.ok_or_else(|| Fail::Lost("the other end is gone".into()))?;
        match (answer.get("ok").and_then(Json::as_str), answer.get("error").and_then(Json::as_str)) {
            (Some(text), None) => Ok(text.to_owned()),
            (None, Some(why)) => Err(Fail::Refused(why.to_owned())),
            _ => Err(Fail::Lost("the other end speaks nonsense".into())),
        }
    }

    /// Closes the line and waits for the command to end.
    pub fn end(self) {
        let Link { child, from, to } = self;
        drop((to, from));
        if let Some(mut child) = child {
            let _ = child.wait();
        }
    }
}
