//! QEMU's own migration, by its machine protocol (QMP), as far as a port's move takes part in it.
//!
//! With the capability `pause-before-switchover` QEMU stops the machine when memory is copied, tells so, and waits: that is when the port's
//! state is copied for the last time. `migrate-continue` lets it go on, `migrate_cancel` lets the machine run here
//! again. Whatever QEMU says in between that is not about migration is passed over.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ib_base::errno::strerror;
use ib_base::json::{Json, Object};

/// A line of QEMU's, at most.
const MAX_LINE: u64 = 1 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session with one QEMU.
pub struct Qmp {
    name: String,
    to: UnixStream,
    from: BufReader<UnixStream>,
    /// A line that has not come whole.
    line: Vec<u8>,
    /// States of the migration that have been told, and not been asked for.
    states: VecDeque<String>,
}

impl Qmp {
    /// Connects to a control socket and makes the migration pause before it switches over.
    pub fn open(path: &str) -> Result<Qmp, String> {
        let failed = |e: std::io::Error| format!("{path}: {}", strerror(&e));
        let to = UnixStream::connect(path).map_err(failed)?;
        let from = BufReader::new(to.try_clone().map_err(failed)?);
        let mut qmp = Qmp { name: path.to_owned(), to, from, line: Vec::new(), states: VecDeque::new() };
        let greeting = qmp.hear(Instant::now() + PATIENCE)?;
        if greeting.as_ref().and_then(|g| g.get("QMP")).is_none() {
            return Err(format!("{path}: no QEMU machine protocol"));
        }
        qmp.command("qmp_capabilities", None)?;
        let on = |name: &str| Json::object([("capability", Json::from(name)), ("state", Json::from(true))]);
        let capabilities = Json::array([on("pause-before-switchover"), on("events")]);
        let arguments = Json::object([("capabilities", capabilities)]);
        qmp.command("migrate-set-capabilities", Some(arguments))?;
        Ok(qmp)
    }

    /// Begins the migration.
    pub fn migrate(&mut self, uri: &str) -> Result<(), String> {
        self.command("migrate", Some(Json::object([("uri", Json::from(uri))]))).map(drop)
    }

    /// Lets a migration go on that has paused.
    pub fn go_on(&mut self) -> Result<(), String> {
        let state = Json::object([("state", Json::from("pre-switchover"))]);
        self.command("migrate-continue", Some(state)).map(drop)
    }

    /// Calls the migration off.
    pub fn cancel(&mut self) {
        // If there is none, that is as well.
        let _ = self.command("migrate_cancel", None);
    }

    /// For how long the machine stood still, ms, by QEMU's account.
    pub fn downtime_ms(&mut self) -> Option<i64> {
        self.command("query-migrate", None).ok()?.get("downtime")?.as_integer()
    }

    /// The next state of the migration, if there is one within this time.
    pub fn state(&mut self, wait: Duration) -> Result<Option<String>, String> {
        let end = Instant::now() + wait;
        loop {
            if let Some(state) = self.states.pop_front() {
                return Ok(Some(state));
            }
            match self.hear(end)? {
                Some(message) => self.note(&message),
                None => return Ok(None),
            }
        }
    }

    fn note(&mut self, message: &Json) {
        if message.get("event").and_then(Json::as_str) == Some("MIGRATION")
            && let Some(state) = message.get("data").and_then(|d| d.get("status")).and_then(Json::as_str)
        {
            self.states.push_back(state.to_owned());
        }
    }

    fn command(&mut self, name: &str, arguments: Option<Json>) -> Result<Json, String> {
        let mut o = Object::new();
        o.insert("execute", name);
        if let Some(arguments) = arguments {
            o.insert("arguments", arguments);
        }
        let text = format!("{}\n", Json::Object(o).to_text(Default::default()));
        self.to.write_all(text.as_bytes()).map_err(|e| format!("{}: {}", self.name, strerror(&e)))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let message = self.hear(end)?.ok_or_else(|| format!("{}: no answer to {name}", self.name))?;
            self.note(&message);
            if let Some(error) = message.get("error") {
                let why = error.get("desc").and_then(Json::as_str).unwrap_or("no reason");
                return Err(format!("QEMU refuses {name}: {why}"));
            }
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
        }
    }

    /// The next message; `None` if none comes in time.
    fn hear(&mut self, end: Instant) -> Result<Option<Json>, String> {
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let read = self.to.set_read_timeout(Some(left)).and_then(|()| {
                let room = MAX_LINE.saturating_sub(self.line.len() as u64);
                Read::take(&mut self.from, room).read_until(b'\n', &mut self.line)
            });
            match read {
                Ok(_) if self.line.last() == Some(&b'\n') => {
                    let line = std::mem::take(&mut self.line);
                    let message = Json::parse_bytes(&line);
                    return message
                        .map(Some)
                        .map_err(|e| format!("{}: QEMU speaks nonsense: {e}", self.name));
                }
                Ok(_) => return Err(format!("{}: QEMU is gone", self.name)),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= end {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(format!("{}: {}", self.name, strerror(&e))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A QEMU that says these lines, each after one of ours.
    fn qemu(
        name: &str,
        says: &'static [&'static str],
    ) -> (std::path::PathBuf, std::thread::JoinHandle<Vec<String>>) {
        let path = std::env::temp_dir().join(format!("ib-qmp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut to, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            let mut from = BufReader::new(to.try_clone().unwrap());
            for line in says {
                let _ = to.write_all(line.as_bytes());
                let mut text = String::new();
                if from.read_line(&mut text).unwrap_or(0) == 0 {
                    break;
                }
                heard.push(text);
            }
            heard
        });
        (path, thread)
    }

    #[test]
    fn events_between_answers_are_kept() {
        let (path, thread) = qemu(
            "events",
            &[
                "{\"QMP\":{}}\r\n",
                "{\"return\":{}}\r\n",
                "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"setup\"}}\r\n{\"event\":\"STOP\"}\r\n{\"return\":{}}\r\n",
                "{\"return\":{}}\r\n{\"event\":\"MIGRATION\",\"data\":{\"status\":\"pre-switchover\"}}\n",
                "{\"error\":{\"class\":\"GenericError\",\"desc\":\"not now\"}}\n",
            ],
        );
        let mut qmp = Qmp::open(path.to_str().unwrap()).unwrap();
        qmp.migrate("unix:/x").unwrap();
        let wait = Duration::from_secs(5);
        assert_eq!(qmp.state(wait).unwrap().as_deref(), Some("setup"));
        assert_eq!(qmp.state(wait).unwrap().as_deref(), Some("pre-switchover"));
        assert_eq!(qmp.state(Duration::from_millis(20)).unwrap(), None);
        assert_eq!(qmp.go_on().unwrap_err(), "QEMU refuses migrate-continue: not now");
        drop(qmp);
        let heard = thread.join().unwrap();
        assert!(heard[1].contains("pause-before-switchover") && heard[2].contains("unix:/x"), "{heard:?}");
        let _ = std::fs::remove_file(path);
    }

    #[test]
    fn what_is_no_qemu_is_refused() {
        let (path, thread) = qemu("other", &["{\"id\":1}\n", ""]);
        assert!(Qmp::open(path.to_str().unwrap()).err().unwrap().contains("no QEMU machine protocol"));
        let _ = thread.join();
        let _ = std::fs::remove_file(&path);
        assert!(Qmp::open("/nonexistent/qmp").err().unwrap().contains("No such file"));
    }
}
