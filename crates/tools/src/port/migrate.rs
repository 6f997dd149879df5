//! Ports on the move: two programs that talk over a pipe.
//!
//! `migrate` runs a command (such as `ssh HOST ironbridge port receive`) and speaks to it in lines of JSON; `receive` answers each with
//! `{"ok":TEXT}` or `{"error":TEXT}`:
//!
//! ```text
//!  prepare  configuration and state   ports are added there, the state is checked
//!  state    the state of this moment  it is put in place
//!  finish                             addresses are announced; only then the ports go here
//!  abort    or the end of the pipe    the other end undoes what it did
//! ```
//!
//! Before `finish` is answered, the ports are here as if nothing had been. If its answer is lost, both ends keep them, for a port too many
//! is harmless where its machine does not run, and none would not be; that is said.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use ib_base::json::{Json, Object};

use super::config::{Database, Imported, Plan};
use super::{Options, file, gather, restore, save, switch};
use crate::io::Io;

/// A line of the peer, at most.
const MAX_LINE: u64 = file::MAX_BYTES;

fn step(name: &str, more: &[(&str, Json)]) -> Json {
    let mut o = Object::new();
    o.insert("step", name);
    for (key, value) in more {
        o.insert(*key, value.clone());
    }
    Json::Object(o)
}

fn write_line(to: &mut dyn Write, json: &Json) -> std::io::Result<()> {
    let mut text = json.to_text(Default::default());
    text.push('\n');
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// The next line; `None` at the end.
fn read_line(from: &mut dyn BufRead) -> Result<Option<Json>, String> {
    let mut line = Vec::new();
    let n = Read::take(from, MAX_LINE).read_until(b'\n', &mut line);
    match n.map_err(|e| format!("the other end: {}", ib_base::errno::strerror(&e)))? {
        0 => Ok(None),
        _ if line.last() != Some(&b'\n') => Err("the other end stopped in the middle of a line".into()),
        _ => Json::parse_bytes(&line).map(Some).map_err(|e| format!("the other end speaks nonsense: {e}")),
    }
}

/// The command at the other end of the pipe.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(command: &[String]) -> Result<Peer, String> {
        let (program, args) =
            command.split_first().ok_or("migrate needs a command after \"--\" (use --help for help)")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{program}: {}", ib_base::errno::strerror(&e)))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => Ok(Peer { child, to, from: BufReader::new(from) }),
            _ => Err(format!("{program}: no pipe to it")),
        }
    }

    /// Asks for a step; what was said of it.
    fn ask(&mut self, message: &Json) -> Result<String, String> {
        let lost = |e: std::io::Error| format!("the other end is gone: {}", ib_base::errno::strerror(&e));
        write_line(&mut self.to, message).map_err(lost)?;
        let answer = read_line(&mut self.from)?.ok_or("the other end is gone")?;
        match (answer.get("ok").and_then(Json::as_str), answer.get("error").and_then(Json::as_str)) {
            (Some(text), None) => Ok(text.to_owned()),
            (None, Some(why)) => Err(format!("the other end: {why}")),
            _ => Err("the other end speaks nonsense".into()),
        }
    }

    /// Closes the pipe and waits for the command to end.
    fn end(self) {
        let Peer { mut child, to, from } = self;
        drop((to, from));
        let _ = child.wait();
    }
}

/// `ironbridge port migrate PORT... -- COMMAND...`
pub fn send(o: &Options, ports: &[String], io: &mut Io<'_>) -> Result<(), String> {
    if ports.is_empty() {
        return Err("migrate needs the name of a port".into());
    }
    let mut peer = Peer::start(&o.command)?;
    let done = converse(o, ports, &mut peer, io);
    if done.is_err() {
        // It undoes what it did when it hears this or the pipe's end.
        let _ = write_line(&mut peer.to, &step("abort", &[]));
    }
    peer.end();
    done
}

fn converse(o: &Options, ports: &[String], peer: &mut Peer, io: &mut Io<'_>) -> Result<(), String> {
    let (bridge, content) = gather(o, ports)?;
    peer.ask(&step("prepare", &[("content", content)]))?;
    if o.wait {
        io.out("ready\n");
        let _ = io.stdout.flush();
        if !go(io)? {
            return Err("called off".into());
        }
    }
    let began = Instant::now();
    let state = save(o, &bridge, ports)?;
    let summary = peer.ask(&step("state", &[("state", state.into())]))?;
    let took_ms = began.elapsed().as_millis();
    peer.ask(&step("finish", &[])).map_err(|why| {
        format!("{why}; whether it has finished is not known, so the ports were left here too: look there")
    })?;
    let mut args = vec![bridge.clone()];
    args.extend(ports.iter().cloned());
    // From here on the ports live there: what fails here is left for the operator.
    let left = |why: String| format!("the ports have moved, but could not be taken away here: {why}");
    switch::call(&o.target, "port-state/forget", &args).map_err(left)?;
    Database::open(&o.db).and_then(|mut db| db.remove(&bridge, ports)).map_err(left)?;
    io.out(summary);
    io.out(format!("switched over in {took_ms} ms\n"));
    Ok(())
}

/// Waits for a line; false at the end of input.
fn go(io: &mut Io<'_>) -> Result<bool, String> {
    let mut byte = [0];
    loop {
        match io.stdin.read(&mut byte) {
            Ok(0) => return Ok(false),
            Ok(_) if byte[0] == b'\n' => return Ok(true),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("standard input: {}", ib_base::errno::strerror(&e))),
        }
    }
}

/// What the receiving end has done so far.
struct Arrival {
    db: Database,
    bridge: String,
    plan: Plan,
    ports: Vec<String>,
    /// The state is in place.
    is_placed: bool,
}

impl Arrival {
    fn prepare(o: &Options, message: &Json) -> Result<Arrival, String> {
        let content = message.get("content").ok_or("there is no content")?;
        let what = Imported::read(content)?;
        let bridge = o.bridge.clone().unwrap_or_else(|| what.bridge.clone());
        let mut db = Database::open(&o.db)?;
        let plan = db.plan(&bridge, &what)?;
        db.add(&bridge, &what, &plan)?;
        let ports = what.names();
        let mut arrival = Arrival { db, bridge, plan, ports, is_placed: false };
        let state = content.get("state").ok_or("there is no state")?.to_text(Default::default());
        match restore(o, &arrival.bridge, state, true) {
            Ok(_) => Ok(arrival),
            Err(why) => {
                arrival.undo(o)?;
                Err(why)
            }
        }
    }

    fn place(&mut self, o: &Options, message: &Json) -> Result<String, String> {
        // Text in a text: nobody on its way has to take it apart.
        let state = message.get("state").and_then(Json::as_str).ok_or("there is no state")?;
        let summary = restore(o, &self.bridge, state.to_owned(), false)?;
        self.is_placed = true;
        Ok(summary)
    }

    fn announce(&self, o: &Options) -> Result<String, String> {
        if !self.is_placed {
            return Err("nothing has been put in place".into());
        }
        let mut args = vec![self.bridge.clone()];
        args.extend(self.ports.iter().cloned());
        switch::call(&o.target, "port-state/announce", &args)
    }

    fn undo(&mut self, o: &Options) -> Result<(), String> {
        if self.is_placed && !self.plan.absent.is_empty() {
            let mut args = vec![self.bridge.clone()];
            args.extend(self.plan.absent.iter().cloned());
            switch::call(&o.target, "port-state/forget", &args)?;
        }
        self.db.remove(&self.bridge, &self.plan.absent)
    }
}

/// `ironbridge port receive`
pub fn receive(o: &Options, io: &mut Io<'_>) -> Result<(), String> {
    let mut from = BufReader::new(&mut *io.stdin);
    let mut arrival: Option<Arrival> = None;
    let result = serve(o, &mut from, io.stdout, &mut arrival);
    match (result, arrival) {
        (Ok(true), _) => Ok(()),
        (outcome, arrival) => {
            arrival.map_or(Ok(()), |mut a| a.undo(o))?;
            outcome.and_then(|_| Err("called off: everything is as it was".to_owned()))
        }
    }
}

/// Answers steps until the move has finished (true) or was called off.
fn serve(
    o: &Options,
    from: &mut dyn BufRead,
    to: &mut dyn Write,
    arrival: &mut Option<Arrival>,
) -> Result<bool, String> {
    while let Some(message) = read_line(from)? {
        let name = message.get("step").and_then(Json::as_str).unwrap_or_default();
        let answer = match (name, arrival.as_mut()) {
            ("abort", _) => return Ok(false),
            ("prepare", None) => Arrival::prepare(o, &message).map(|a| {
                *arrival = Some(a);
                "prepared".to_owned()
            }),
            ("state", Some(a)) => a.place(o, &message),
            ("finish", Some(a)) => a.announce(o),
            _ => Err(format!("step \"{name}\" is not expected now")),
        };
        let is_last = name == "finish" && answer.is_ok();
        let reply = match answer {
            Ok(text) => Json::object([("ok", Json::from(text))]),
            Err(why) => Json::object([("error", Json::from(why))]),
        };
        let written = write_line(to, &reply);
        if is_last {
            return Ok(true);
        }
        written.map_err(|e| format!("the other end is gone: {}", ib_base::errno::strerror(&e)))?;
    }
    Ok(false)
}
