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
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use ib_base::errno::strerror;
use ib_base::json::{Json, Object};
use ib_stream::blocking::Blocking;

use super::file;
use crate::io::Io;

/// A line of the peer, at most.
const MAX_LINE: u64 = file::MAX_BYTES;
/// Where `receive` listens unless a port is given.
const DEFAULT_PORT: u16 = 6690;

/// How often a command is looked after that should end.
const POLL: Duration = Duration::from_millis(5);

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

/// How a line's bytes go.
enum Carrier<'a> {
    /// By whoever asks.
    Plain { from: Box<dyn BufRead + 'a>, to: Box<dyn Write + 'a> },
    /// By two threads, so that nobody waits for ever for a peer that is neither there nor gone.
    Threads { from: Receiver<Result<Vec<u8>, String>>, to: Sender<Vec<u8>> },
}

/// A line to the other end.
pub struct Link<'a> {
    child: Option<Child>,
    carrier: Carrier<'a>,
    /// How long an answer may take.
    patience: Duration,
}

/// The next line as it stands; empty at the end.
fn read_line(from: &mut dyn BufRead) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let read = Read::take(from, MAX_LINE).read_until(b'\n', &mut line);
    read.map_err(|e| format!("the other end: {}", strerror(&e)))?;
    if !line.is_empty() && line.last() != Some(&b'\n') {
        return Err("the other end stopped in the middle of a line".into());
    }
    Ok(line)
}

fn write_line(to: &mut dyn Write, line: &[u8]) -> std::io::Result<()> {
    to.write_all(line)?;
    to.flush()
}

fn threads(from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) -> Carrier<'static> {
    let (heard, lines) = sync_channel(1);
    let (said, words) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let line = read_line(&mut from);
            let is_last = line.as_ref().map_or(true, Vec::is_empty);
            if heard.send(line).is_err() || is_last {
                return;
            }
        }
    });
    // That it cannot write shows in what it does not hear.
    std::thread::spawn(move || while words.recv().is_ok_and(|line| write_line(&mut to, &line).is_ok()) {});
    Carrier::Threads { from: lines, to: said }
}

impl<'a> Link<'a> {
    /// A command that ends up in the other program.
    pub fn command(words: &[String], patience: Duration) -> Result<Link<'static>, String> {
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
            (Some(to), Some(from)) => Ok(Link { child: Some(child), carrier: threads(from, to), patience }),
            _ => Err(format!("{program}: no pipe to it")),
        }
    }

    /// A stream whose peer asks.
    pub fn stream(stream: Blocking) -> Result<Link<'static>, String> {
        let from = Box::new(BufReader::new(stream.try_clone().map_err(|e| strerror(&e))?));
        let carrier = Carrier::Plain { from, to: Box::new(stream) };
        Ok(Link { child: None, carrier, patience: Duration::ZERO })
    }

    /// Connects to where `receive` listens.
    pub fn connect(remote: &str, patience: Duration) -> Result<Link<'static>, String> {
        let failed = |e: std::io::Error| format!("{remote}: {}", strerror(&e));
        let stream = Blocking::connect(remote, DEFAULT_PORT).map_err(failed)?;
        let carrier = threads(stream.try_clone().map_err(failed)?, stream);
        Ok(Link { child: None, carrier, patience })
    }

    /// Standard input and output.
    pub fn standard(io: &'a mut Io<'_>) -> Link<'a> {
        let from = Box::new(BufReader::new(&mut *io.stdin));
        Link {
            child: None,
            carrier: Carrier::Plain { from, to: Box::new(&mut *io.stdout) },
            patience: Duration::ZERO,
        }
    }

    /// Sends a line.
    pub fn say(&mut self, json: &Json) -> Result<(), String> {
        let mut text = json.to_text(Default::default());
        text.push('\n');
        let gone = |why: String| format!("the other end is gone: {why}");
        match &mut self.carrier {
            Carrier::Plain { to, .. } => write_line(to, text.as_bytes()).map_err(|e| gone(strerror(&e))),
            Carrier::Threads { to, .. } => to.send(text.into_bytes()).map_err(|_| gone("Broken pipe".into())),
        }
    }

    /// The next line; `None` at the end.
    pub fn hear(&mut self) -> Result<Option<Json>, String> {
        let line = match &mut self.carrier {
            Carrier::Plain { from, .. } => read_line(from)?,
            Carrier::Threads { from, .. } => match from.recv_timeout(self.patience) {
                Ok(line) => line?,
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the other end was silent for {} s", self.patience.as_secs()));
                }
            },
        };
        if line.is_empty() {
            return Ok(None);
        }
        Json::parse_bytes(&line).map(Some).map_err(|e| format!("the other end speaks nonsense: {e}"))
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

    /// Closes the line and waits for the command to end, if it does.
    pub fn end(self) {
        let Link { child, carrier, patience } = self;
        drop(carrier);
        let Some(mut child) = child else { return };
        let end = Instant::now() + patience;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Link<'static> {
        let words = ["sh", "-c", script].map(str::to_owned);
        Link::command(&words, Duration::from_millis(300)).ok().unwrap()
    }

    #[test]
    fn peers_that_are_none_are_lost() {
        for (script, why) in [
            ("exit 0", "the other end is gone"),
            ("sleep 2", "silent"),
            ("printf '{'", "in the middle of a line"),
            ("echo '{}'", "nonsense"),
            ("echo x", "nonsense"),
        ] {
            let mut link = shell(script);
            let Err(Fail::Lost(said)) = link.ask(&step("finish", &[])) else { panic!("{script}") };
            assert!(said.contains(why), "{script}: {said}");
            link.end();
        }
    }

    #[test]
    fn answers_are_told_from_refusals() {
        let mut link = shell("read line; echo '{\"ok\":\"done\"}'; read line; echo '{\"error\":\"no\"}'");
        assert!(matches!(link.ask(&step("state", &[])), Ok(said) if said == "done"));
        assert!(matches!(link.ask(&step("state", &[])), Err(Fail::Refused(why)) if why == "no"));
        link.end();
    }
}
