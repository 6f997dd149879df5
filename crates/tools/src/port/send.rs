//! `ironbridge port migrate`: the end that a port leaves.
//!
//! Connections are copied while the machine runs, and again what has changed since, until the moment comes ([`Moment`]); then everything else
//! and the rest of them is. Before `finish` is answered, the ports are here as if nothing had been. If that answer is lost, the
//! other end is asked on a new line what has become of the move ([`recover`]).

use std::time::{Duration, Instant};

use ib_base::json::Json;

use super::config::Database;
use super::qmp::Qmp;
use super::wire::{Fail, Link, step};
use super::{Options, Ports, gather, save, switch};
use crate::io::Io;

/// Connections in a pass; a pass holds up nobody but other commands.
const PASS: usize = 20_000;
/// With fewer to copy than this, another pass would find about as many.
const FEW: usize = 100;
/// Passes before the moment may come.
const MAX_PASSES: usize = 20;
/// Between passes while the moment is waited for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a machine's last steps may take.
const LAST_STEPS: Duration = Duration::from_secs(120);
/// How often, and how far apart, the other end is asked what has become of a move.
const RECOVERIES: u32 = 5;
const BETWEEN_RECOVERIES: Duration = Duration::from_secs(1);

/// What makes it time to switch over.
enum Moment {
    Now,
    /// A line on standard input.
    Line,
    /// The machine speaks at the other end.
    Announcement,
    /// QEMU has stopped the machine.
    Stopped(Qmp),
}

/// A move under way.
struct Move<'a> {
    o: &'a Options,
    ports: &'a Ports,
    session: String,
    bridge: String,
    /// The state without connections as it was last known, for a port that somebody takes away at the last moment.
    last_state: Option<String>,
    copied: usize,
}

fn connect(o: &Options) -> Result<Link<'static>, String> {
    match &o.remote {
        Some(remote) => Link::connect(remote, o.patience),
        None => Link::command(&o.command, o.patience),
    }
}

fn session_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Its keys are random.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// `ironbridge port migrate PORT... -- COMMAND...`
pub fn send(o: &Options, words: &[String], io: &mut Io<'_>) -> Result<(), String> {
    let ports = Ports::parse(words);
    if ports.here.is_empty() {
        return Err("migrate needs the name of a port".into());
    }
    let mut link = connect(o)?;
    let mut m = Move {
        o,
        ports: &ports,
        session: session_name(),
        bridge: String::new(),
        last_state: None,
        copied: 0,
    };
    let done = m.run(&mut link, io);
    if done.is_err() {
        // It undoes what it did when it hears this or the line's end.
        let _ = link.say(&step("abort", &[]));
    }
    link.end();
    let _ = switch::call(&o.target, "port-state/end", &[m.session]);
    done
}

impl Move<'_> {
    fn run(&mut self, link: &mut Link<'_>, io: &mut Io<'_>) -> Result<(), String> {
        // What only looks comes first: a machine must not pause for a misspelt name.
        let session = format!("--session={}", self.session);
        let (bridge, content) = gather(self.o, self.ports, &[session, "--limit=0".into()])?;
        self.bridge = bridge;
        let prepare = [("session", Json::from(self.session.as_str())), ("content", content)];
        link.ask(&step("prepare", &prepare)).map_err(Fail::text)?;
        for _ in 0..MAX_PASSES {
            if !self.pass(link)? {
                break;
            }
        }
        let mut moment = self.moment(io)?;
        let done = self.switch_over(link, &mut moment, io);
        if let (Err(_), Moment::Stopped(qmp)) = (&done, &mut moment) {
            qmp.cancel();
        }
        let (summary, took) = done?;
        // From here on the ports live there: what fails here is left for the operator.
        let left = |why: String| format!("the ports have moved, but could not be taken away here: {why}");
        let mut args: Vec<String> =
            self.o.selection.iter().filter(|s| s.starts_with("--address=")).cloned().collect();
        args.extend(self.o.keep.iter().map(|k| format!("--keep={k}")));
        args.push(format!("--session={}", self.session));
        args.push(self.bridge.clone());
        args.extend(self.ports.here.iter().cloned());
        switch::call(&self.o.target, "port-state/forget", &args).map_err(left)?;
        let removed = Database::open(&self.o.db).and_then(|mut db| db.remove(&self.bridge, &self.ports.here));
        removed.map_err(left)?;
        io.out(summary);
        io.out(format!("{} connections were copied before\n", self.copied));
        io.out(format!("switched over in {} ms\n", took.as_millis()));
        if let Moment::Stopped(qmp) = &mut moment
            && let Some(ms) = qmp.downtime_ms()
        {
            io.out(format!("the machine stood still for {ms} ms\n"));
        }
        Ok(())
    }

    fn moment(&self, io: &mut Io<'_>) -> Result<Moment, String> {
        if let Some(path) = &self.o.qmp {
            let mut qmp = Qmp::open(path)?;
            if let Some(uri) = &self.o.uri {
                qmp.migrate(uri)?;
            }
            return Ok(Moment::Stopped(qmp));
        }
        let moment = match (self.o.wait, self.o.on_announcement) {
            (true, _) => Moment::Line,
            (false, true) => Moment::Announcement,
            (false, false) => return Ok(Moment::Now),
        };
        io.out("ready\n");
        let _ = io.stdout.flush();
        Ok(moment)
    }

    /// Copies connections that are new or have changed; whether another pass is worth it.
    fn pass(&mut self, link: &mut Link<'_>) -> Result<bool, String> {
        let more =
            ["--only=connections".into(), format!("--session={}", self.session), format!("--limit={PASS}")];
        let text = save(self.o, &self.bridge, self.ports, &more)?;
        let json = Json::parse(&text).map_err(|e| format!("the switch answers nonsense: {e}"))?;
        let n = json.get("connections").and_then(Json::as_array).map_or(0, <[Json]>::len);
        let gone = json.get("gone").and_then(Json::as_array).map_or(0, <[Json]>::len);
        if n + gone != 0 {
            link.ask(&step("connections", &[("state", Json::from(text))])).map_err(Fail::text)?;
        }
        self.copied += n;
        Ok(n >= FEW)
    }

    /// One more look while the moment is waited for.
    fn keep_up(&mut self, link: &mut Link<'_>, moment: &Moment) -> Result<(), String> {
        self.pass(link)?;
        if let Moment::Announcement = moment {
            let more = [format!("--session={}", self.session), "--limit=0".into()];
            self.last_state = Some(save(self.o, &self.bridge, self.ports, &more)?);
        }
        Ok(())
    }

    fn wait(&mut self, link: &mut Link<'_>, moment: &mut Moment, io: &mut Io<'_>) -> Result<(), String> {
        if let Moment::Announcement = moment {
            self.keep_up(link, moment)?;
        }
        loop {
            let has_come = match moment {
                Moment::Now => true,
                Moment::Line => match line(io, INTERVAL)? {
                    Some(true) => true,
                    Some(false) => return Err("called off".into()),
                    None => false,
                },
                Moment::Announcement => {
                    let wait = INTERVAL.min(self.o.patience / 2);
                    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                    let heard = link.ask(&step("heard", &[("wait_ms", Json::from(ms))]));
                    heard.map_err(Fail::text)? == "yes"
                }
                Moment::Stopped(qmp) => match qmp.state(INTERVAL)?.as_deref() {
                    Some("pre-switchover") => true,
                    Some("completed") => return Err("the machine has moved without its port".into()),
                    Some(state @ ("failed" | "cancelled")) => {
                        return Err(format!("the machine's migration has {state}"));
                    }
                    _ => false,
                },
            };
            if has_come {
                return Ok(());
            }
            let kept_up = self.keep_up(link, moment);
            // Its port may go a moment before its machine speaks there.
            if kept_up.is_err() && self.last_state.is_none() {
                return kept_up;
            }
        }
    }

    /// Waits for the moment and does what has to be done in it; how long that took.
    fn switch_over(
        &mut self,
        link: &mut Link<'_>,
        moment: &mut Moment,
        io: &mut Io<'_>,
    ) -> Result<(String, Duration), String> {
        self.wait(link, moment, io)?;
        let began = Instant::now();
        let state = save(self.o, &self.bridge, self.ports, &[format!("--session={}", self.session)]);
        let state = match (state, self.last_state.take()) {
            (Err(_), Some(last)) => self.with_last_connections(last),
            (state, _) => state?,
        };
        let summary = link.ask(&step("state", &[("state", state.into())])).map_err(Fail::text)?;
        let took = began.elapsed();
        if let Moment::Stopped(qmp) = moment {
            qmp.go_on()?;
            completion(qmp)?;
        }
        match link.ask(&step("finish", &[])) {
            Ok(_) => Ok((summary, took)),
            Err(Fail::Lost(why)) => self.recover(&why).map(|()| (summary, took)),
            Err(refused) => Err(refused.text()),
        }
    }

    /// The state of a port that is gone by now, with what its connections, which are not, have done since.
    fn with_last_connections(&self, last: String) -> String {
        let more = ["--only=connections".into(), format!("--session={}", self.session)];
        let news = save(self.o, &self.bridge, self.ports, &more);
        match (Json::parse(&last), news.map(|text| Json::parse(&text))) {
            (Ok(Json::Object(mut state)), Ok(Ok(Json::Object(news)))) => {
                for (name, value) in
                    news.iter().filter(|(name, _)| matches!(&***name, "connections" | "gone"))
                {
                    state.insert(name.clone(), value.clone());
                }
                Json::Object(state).to_text(Default::default())
            }
            _ => last,
        }
    }

    /// The answer to `finish` was lost: what has become of the move?
    fn recover(&self, why: &str) -> Result<(), String> {
        let names = Json::array(self.ports.there().map(Json::from));
        let question = [
            ("session", Json::from(self.session.as_str())),
            ("bridge", Json::from(self.bridge.as_str())),
            ("ports", names),
        ];
        for _ in 0..RECOVERIES {
            let Ok(mut link) = connect(self.o) else {
                std::thread::sleep(BETWEEN_RECOVERIES);
                continue;
            };
            let answer = link.ask(&step("recover", &question));
            link.end();
            match answer.as_deref() {
                Ok("finished") => return Ok(()),
                Ok("undone") => return Err(format!("{why}; the move was called off")),
                _ => std::thread::sleep(BETWEEN_RECOVERIES),
            }
        }
        Err(format!(
            "{why}; whether it has finished is not known, so the ports were left here too: look there"
        ))
    }
}

/// Waits for the machine to run at the other end.
fn completion(qmp: &mut Qmp) -> Result<(), String> {
    let end = Instant::now() + LAST_STEPS;
    while Instant::now() < end {
        match qmp.state(INTERVAL)?.as_deref() {
            Some("completed") => return Ok(()),
            Some(state @ ("failed" | "cancelled")) => {
                return Err(format!("the machine's migration has {state}"));
            }
            _ => {}
        }
    }
    Err("the machine's migration does not end".into())
}

/// Waits for a line; false at the end of input, `None` if nothing comes in time.
fn line(io: &mut Io<'_>, wait: Duration) -> Result<Option<bool>, String> {
    if !ib_sys::process::stdin_is_readable(wait) {
        return Ok(None);
    }
    let mut byte = [0];
    loop {
        match io.stdin.read(&mut byte) {
            Ok(0) => return Ok(Some(false)),
            Ok(_) if byte[0] == b'\n' => return Ok(Some(true)),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("standard input: {}", ib_base::errno::strerror(&e))),
        }
    }
}
