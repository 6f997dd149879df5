//! Commands that all daemons have: `version`, `vlog/*`, `coverage/*`, `memory/show`; and `time/*` of those that were
//! started with dummies. `exit` is each daemon's own.

use ib_base::memory::Usage;
use ib_base::time::{Clock, Instant};
use ib_base::vlog::{self, Listing};
use ib_base::{coverage, json::Json};

use super::{Call, Command, Format, MANY, json_object};

/// The version of Open vSwitch whose behaviour we have.
pub const OVS_VERSION: &str = "3.7.1";

/// What `version` and the first line of `--version` say.
pub fn version_line(program: &str) -> String {
    format!("{program} (Open vSwitch) {OVS_VERSION}\n")
}

/// What the standard commands want of a daemon's state.
pub trait Standard {
    /// Adds its numbers for `memory/show`.
    fn memory_usage(&mut self, usage: &mut Usage) {
        let _ = usage;
    }
}

impl Standard for () {}

fn listing() -> Listing {
    match vlog::program_name().as_str() {
        "ovs-vswitchd" => Listing::S,
        "ovsdb-server" => Listing::D,
        _ => Listing::B,
    }
}

fn version<C: ?Sized>(_: &mut C, call: Call) {
    let program = vlog::program_name();
    match call.format {
        Format::Text => call.ok(version_line(&program)),
        Format::Json => {
            let version = Json::from(OVS_VERSION);
            call.ok_json(json_object([("name", Json::from(program)), ("version", version)]));
        }
    }
}

fn vlog_set<C: ?Sized>(_: &mut C, call: Call) {
    let result = match call.args.as_slice() {
        [] => vlog::set("any:any"),
        specs => specs.iter().try_for_each(|spec| vlog::set(spec)),
    };
    call.answer_text(result.map(|()| ""));
}

fn read_counter<C: ?Sized>(_: &mut C, call: Call) {
    match call.arg(0).and_then(coverage::read) {
        Some(n) => call.ok(format!("{n}\n")),
        None => call.err("No such counter"),
    }
}

fn memory_show<C: Standard + ?Sized>(context: &mut C, call: Call) {
    let mut usage = Usage::new();
    context.memory_usage(&mut usage);
    call.ok(format!("{usage}\n"));
}

/// The standard commands.
pub fn commands<C: Standard + ?Sized>() -> Vec<Command<C>> {
    let row = |name, usage, min, max, handler| Command { name, usage, min, max, handler };
    vec![
        row("version", "", 0, 0, version),
        row("coverage/show", "", 0, 0, |_, call| call.ok(coverage::show())),
        row("coverage/read-counter", "COUNTER", 1, 1, read_counter),
        row("memory/show", "", 0, 0, memory_show),
        row("vlog/set", "{spec | PATTERN:destination:pattern}", 0, MANY, vlog_set),
        row("vlog/list", "", 0, 0, |_, call| call.ok(vlog::list(listing()))),
        row("vlog/list-pattern", "", 0, 0, |_, call| call.ok(vlog::list_pattern())),
        row("vlog/enable-rate-limit", "[module]...", 0, MANY, |_, call| {
            let result = vlog::set_rate_limits(&call.args, true);
            call.answer_text(result.map(|()| ""));
        }),
        row("vlog/disable-rate-limit", "[module]...", 0, MANY, |_, call| {
            let result = vlog::set_rate_limits(&call.args, false);
            call.answer_text(result.map(|()| ""));
        }),
        row("vlog/close", "", 0, 0, |_, call| {
            vlog::close_log_file();
            call.ok("");
        }),
        row("vlog/reopen", "", 0, 0, |_, call| match vlog::log_file() {
            Some(_) => call.answer_text(vlog::reopen_log_file().map(|()| "")),
            None => call.err("Logging to file not configured"),
        }),
    ]
}

/// A `time/warp` under way: the clock moves one step for each turn of the daemon's loop, so that each machine sees
/// every step.
#[derive(Debug)]
pub struct TimeWarp {
    clock: Clock,
    pending: Option<Warp>,
}

#[derive(Debug)]
struct Warp {
    call: Call,
    left_ms: u64,
    step_ms: u64,
}

impl TimeWarp {
    /// Moves `clock`.
    pub fn new(clock: &Clock) -> TimeWarp {
        TimeWarp { clock: clock.clone(), pending: None }
    }

    fn start(&mut self, call: Call) {
        let number = |i: usize| call.arg(i).and_then(leading_number).filter(|n| *n > 0);
        let (large, step) = if call.args.len() > 1 { (number(0), number(1)) } else { (number(0), number(0)) };
        match (large, step) {
            _ if self.pending.is_some() => call.err("A previous warp in progress"),
            (Some(left_ms), Some(step_ms)) => self.pending = Some(Warp { call, left_ms, step_ms }),
            _ => call.err("invalid MSECS"),
        }
    }

    /// Takes a step if a warp is under way: the last thing a loop does before it waits.
    pub fn run(&mut self) {
        if let Some(warp) = &mut self.pending {
            let step_ms = warp.step_ms.min(warp.left_ms);
            self.clock.warp(step_ms);
            warp.left_ms -= step_ms;
            if warp.left_ms == 0
                && let Some(warp) = self.pending.take()
            {
                warp.call.ok("warped\n");
            }
        }
    }

    /// The deadline to wait with: now, while a warp is under way.
    pub fn deadline(&self) -> Option<Instant> {
        self.pending.as_ref().map(|_| Instant::ZERO)
    }
}

/// `atoll`: the number that the text starts with.
fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// What the `time/*` commands want of a daemon's state.
pub trait TimeCommands {
    /// The daemon's warp.
    fn time_warp(&mut self) -> &mut TimeWarp;
}

/// `time/stop` and `time/warp`, for a daemon with dummies.
pub fn time_commands<C: TimeCommands + ?Sized>() -> Vec<Command<C>> {
    vec![
        Command {
            name: "time/stop",
            usage: "",
            min: 0,
            max: 0,
            handler: |context, call| {
                context.time_warp().clock.stop();
                call.ok("");
            },
        },
        Command {
            name: "time/warp",
            usage: "[large_msecs] msecs",
            min: 1,
            max: 2,
            handler: |context, call| context.time_warp().start(call),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{Key, Reactor};
    use crate::unixctl::Server;
    use crate::unixctl::client::Client;

    struct Toy {
        warp: TimeWarp,
        deferred: Vec<Call>,
        done: bool,
    }

    impl Standard for Toy {
        fn memory_usage(&mut self, usage: &mut Usage) {
            usage.add("ports", 3);
        }
    }

    impl TimeCommands for Toy {
        fn time_warp(&mut self) -> &mut TimeWarp {
            &mut self.warp
        }
    }

    /// Calls the commands, each `NAME ARG...`, in turn against a daemon's loop and checks the answers.
    fn check(script: &'static [(&'static str, Result<&'static str, &'static str>)]) {
        let clock = Clock::new();
        let mut reactor = Reactor::new(&clock).unwrap();
        let dir = std::env::temp_dir().join(format!("unixctl-{}-{:p}", std::process::id(), script));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("toy.ctl");
        let mut server: Server<Toy> = Server::listen(Some(&path), reactor.handle()).unwrap();
        server.register(&commands());
        server.register(&time_commands());
        server.register(&[
            Command { name: "later", usage: "", min: 0, max: 0, handler: |t, call| t.deferred.push(call) },
            Command { name: "never", usage: "x y", min: 1, max: 2, handler: |_, _| {} },
            Command {
                name: "exit",
                usage: "",
                min: 0,
                max: 0,
                handler: |t, call| {
                    t.done = true;
                    call.ok("");
                },
            },
        ]);
        let client = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut client = Client::connect(&path).unwrap();
                for (line, expect) in script {
                    let mut words = line.split(' ').map(str::to_string);
                    let name = words.next().unwrap();
                    let answer = client.call(&name, &words.collect::<Vec<_>>()).unwrap();
                    let bare = |s: &str| s.strip_suffix('\n').unwrap_or(s).to_string();
                    let text = |j: Json| j.as_str().map_or_else(|| j.to_string(), bare);
                    let answer = answer.map(text).map_err(text);
                    assert_eq!(answer.as_deref().map_err(String::as_str), *expect, "{line}");
                }
                Client::connect(&path).unwrap().call("exit", &[]).unwrap().unwrap();
            }
        });
        let mut toy = Toy { warp: TimeWarp::new(&clock), deferred: Vec::new(), done: false };
        while !toy.done {
            for call in toy.deferred.drain(..) {
                call.ok("at last");
            }
            toy.warp.run();
            let deadline = if toy.deferred.is_empty() { toy.warp.deadline() } else { Some(Instant::ZERO) };
            let ready: Vec<Key> = reactor.wait(deadline).unwrap().to_vec();
            for key in ready {
                assert!(server.owns(key) || key != Key(0));
                server.on_ready(key, &mut toy);
            }
        }
        client.join().unwrap();
        drop(server);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn end_to_end() {
        check(&[
            ("memory/show", Ok("ports:3")),
            (
                "nosuch",
                Err(
                    "\"nosuch\" is not a valid command (use \"list-commands\" to see a list of valid commands)",
                ),
            ),
            ("coverage/read-counter", Err("\"coverage/read-counter\" command requires at least 1 arguments")),
            ("coverage/read-counter nosuch", Err("No such counter")),
            ("version x", Err("\"version\" command takes at most 0 arguments")),
            ("vlog/set nosuch", Err("no destination, level, or module \"nosuch\"")),
            ("vlog/disable-rate-limit nosuch", Err("unknown module")),
            ("later", Ok("at last")),
            ("never 1", Err("command was not answered")),
            ("time/warp abc", Err("invalid MSECS")),
            ("time/stop", Ok("")),
            ("time/warp 1000 100", Ok("warped")),
            ("time/warp 50", Ok("warped")),
            ("set-options --format xml", Err("option --format has invalid value 'xml'")),
            ("set-options --format json", Ok("")),
            ("memory/show", Ok("{\"reply\":\"ports:3\\n\",\"reply-format\":\"plain\"}")),
        ]);
    }

    #[test]
    fn numbers() {
        assert_eq!(leading_number("12x"), Some(12));
        assert_eq!(leading_number("-5"), None);
        assert_eq!(leading_number("x"), None);
    }
}
