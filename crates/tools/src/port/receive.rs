//! `ironbridge port receive`: the end that a port arrives at.
//!
//! Ports that are added for a move carry its name in `external_ids:ironbridge-move` until it has finished: so whoever comes after a program that
//! died knows what to take away. What has become of a move the switch remembers for some minutes.

use std::time::{Duration, Instant};

use ib_base::errno::strerror;
use ib_base::json::Json;
use ib_stream::blocking::Listening;

use super::config::{Database, Imported, Plan};
use super::wire::Link;
use super::{Options, restore, switch};
use crate::io::Io;

/// How often the switch is asked whether a machine has spoken.
const POLL: Duration = Duration::from_millis(3);
/// How long a peer on a stream may be silent; those who wait look every second whether there is something new.
const SILENCE: Duration = Duration::from_secs(60);

/// What has been done so far.
struct Arrival {
    db: Database,
    bridge: String,
    plan: Plan,
    ports: Vec<String>,
    session: String,
    /// Packets that had come in by the ports at first.
    heard: String,
    /// The state is in place.
    is_placed: bool,
}

fn text<'a>(message: &'a Json, name: &str) -> Result<&'a str, String> {
    message.get(name).and_then(Json::as_str).ok_or_else(|| format!("there is no {name}"))
}

impl Arrival {
    fn prepare(o: &Options, message: &Json) -> Result<Arrival, String> {
        let content = message.get("content").ok_or("there is no content")?;
        let session = text(message, "session")?.to_owned();
        let state = content.get("state").ok_or("there is no state")?.to_text(Default::default());
        let mut what = Imported::read(content)?;
        what.mark(&session);
        let bridge = o.bridge.clone().unwrap_or_else(|| what.bridge.clone());
        let mut db = Database::open(&o.db)?;
        let ports = what.names();
        // What a move has left whose program died.
        let stale = db.marked(&ports, None)?;
        for (name, other) in &stale {
            take_away(o, &mut db, &bridge, std::slice::from_ref(name), other)?;
        }
        let plan = db.plan(&bridge, &what)?;
        db.add(&bridge, &what, &plan)?;
        let mut arrival =
            Arrival { db, bridge, plan, ports, session, heard: String::new(), is_placed: false };
        let checked =
            restore(o, &arrival.bridge, state, &["--check".into()]).and_then(|_| arrival.packets(o));
        match checked {
            Ok(n) => {
                arrival.heard = n;
                Ok(arrival)
            }
            Err(why) => {
                arrival.undo(o)?;
                Err(why)
            }
        }
    }

    fn on_bridge(&self) -> Vec<String> {
        let mut args = vec![self.bridge.clone()];
        args.extend(self.ports.iter().cloned());
        args
    }

    fn packets(&self, o: &Options) -> Result<String, String> {
        switch::call(&o.target, "port-state/heard", &self.on_bridge())
    }

    /// Waits for the machine's first packet here.
    fn hear(&self, o: &Options, message: &Json) -> Result<String, String> {
        let ms = message.get("wait_ms").and_then(Json::as_integer).and_then(|n| u64::try_from(n).ok());
        let end = Instant::now() + Duration::from_millis(ms.unwrap_or(0).min(10_000));
        loop {
            if self.packets(o)? != self.heard {
                return Ok("yes".into());
            }
            if Instant::now() >= end {
                return Ok("no".into());
            }
            std::thread::sleep(POLL);
        }
    }

    fn place(&self, o: &Options, message: &Json) -> Result<String, String> {
        // Text in a text: nobody on its way has to take it apart.
        let state = text(message, "state")?;
        restore(o, &self.bridge, state.to_owned(), &[format!("--session={}", self.session)])
    }

    /// From here on the ports are here.
    fn finish(&mut self, o: &Options) -> Result<String, String> {
        if !self.is_placed {
            return Err("nothing has been put in place".into());
        }
        switch::call(&o.target, "port-state/end", &["--finished".into(), self.session.clone()])?;
        // What fails now does not make it undone.
        let _ = self.db.unmark(&self.plan.absent);
        let announced = switch::call(&o.target, "port-state/announce", &self.on_bridge());
        Ok(announced.unwrap_or_else(|why| format!("not announced: {why}\n")))
    }

    fn undo(&mut self, o: &Options) -> Result<(), String> {
        take_away(o, &mut self.db, &self.bridge, &self.plan.absent, &self.session)
    }
}

/// Undoes a move: its connections, its flows with the ports that were added for it, and those.
fn take_away(
    o: &Options,
    db: &mut Database,
    bridge: &str,
    added: &[String],
    session: &str,
) -> Result<(), String> {
    switch::call(&o.target, "port-state/end", &["--undo".into(), session.to_owned()])?;
    if added.is_empty() {
        return Ok(());
    }
    let mut args = vec![bridge.to_owned()];
    args.extend(added.iter().cloned());
    // The bridge may be gone with all of it.
    let _ = switch::call(&o.target, "port-state/forget", &args);
    db.remove(bridge, added)
}

/// What has become of a move whose line broke. One that has not finished is undone.
fn recover(o: &Options, message: &Json) -> Result<String, String> {
    let session = text(message, "session")?;
    let bridge = o.bridge.as_deref().map_or_else(|| text(message, "bridge"), Ok)?;
    let ports = message.get("ports").and_then(Json::as_array).unwrap_or_default();
    let ports: Vec<String> = ports.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    let said = switch::call(&o.target, "port-state/end", &["--outcome".into(), session.to_owned()])?;
    if said.trim() == "finished" {
        return Ok("finished".into());
    }
    let mut db = Database::open(&o.db)?;
    let added: Vec<String> = db.marked(&ports, Some(session))?.into_iter().map(|(name, _)| name).collect();
    if said.trim() == "unknown" && added.is_empty() && db.has_any(&ports)? {
        return Ok("unknown".into());
    }
    take_away(o, &mut db, bridge, &added, session)?;
    Ok("undone".into())
}

/// `ironbridge port receive`
pub fn receive(o: &Options, io: &mut Io<'_>) -> Result<(), String> {
    let Some(remote) = &o.remote else {
        return attend(o, &mut Link::standard(io));
    };
    let listening = Listening::bind(remote).map_err(|e| format!("{remote}: {}", strerror(&e)))?;
    let port = listening.port().map_err(|e| format!("{remote}: {}", strerror(&e)))?;
    io.out(format!("listening on port {port}\n"));
    let _ = io.stdout.flush();
    loop {
        let (stream, peer) = match listening.accept() {
            Ok(accepted) => accepted,
            Err(e) => {
                io.err(format!("ironbridge port: {remote}: {}\n", strerror(&e)));
                std::thread::sleep(POLL);
                continue;
            }
        };
        let patient = stream.set_read_timeout(Some(SILENCE)).map_err(|e| strerror(&e));
        let done = patient.and_then(|()| Link::stream(stream)).and_then(|mut link| attend(o, &mut link));
        match done {
            Ok(()) => io.out(format!("{peer}: done\n")),
            Err(why) => io.err(format!("ironbridge port: {peer}: {why}\n")),
        }
        let _ = io.stdout.flush();
    }
}

/// One move, or one question about one.
fn attend(o: &Options, link: &mut Link<'_>) -> Result<(), String> {
    let mut arrival: Option<Arrival> = None;
    let result = serve(o, link, &mut arrival);
    match (result, arrival) {
        (Ok(true), _) => Ok(()),
        (outcome, arrival) => {
            arrival.map_or(Ok(()), |mut a| a.undo(o))?;
            outcome.and_then(|_| Err("called off: everything is as it was".to_owned()))
        }
    }
}

/// Answers steps until the move has finished (true) or was called off.
fn serve(o: &Options, link: &mut Link<'_>, arrival: &mut Option<Arrival>) -> Result<bool, String> {
    while let Some(message) = link.hear()? {
        let name = message.get("step").and_then(Json::as_str).unwrap_or_default();
        let answer = match (name, arrival.as_mut()) {
            ("abort", _) => return Ok(false),
            ("recover", None) => recover(o, &message),
            ("prepare", None) => Arrival::prepare(o, &message).map(|a| {
                *arrival = Some(a);
                "prepared".to_owned()
            }),
            ("connections", Some(a)) => a.place(o, &message),
            ("heard", Some(a)) => a.hear(o, &message),
            ("state", Some(a)) => {
                // A part of it may be in place even if it is refused.
                a.is_placed = true;
                a.place(o, &message)
            }
            ("finish", Some(a)) => a.finish(o),
            _ => Err(format!("step \"{name}\" is not expected now")),
        };
        let is_last = matches!(name, "finish" | "recover") && answer.is_ok();
        let reply = match answer {
            Ok(text) => Json::object([("ok", Json::from(text))]),
            Err(why) => Json::object([("error", Json::from(why))]),
        };
        let said = link.say(&reply);
        if is_last {
            return Ok(true);
        }
        said?;
    }
    Ok(false)
}
