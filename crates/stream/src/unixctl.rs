//! The control socket of a daemon: what `ovs-appctl` talks to.
//!
//! A [`Server`] listens on `PROGRAM.PID.ctl` in the run directory, or where `--unixctl` says, for JSON-RPC requests whose
//! method is a command's name and whose parameters are its arguments. Commands are declared in tables of [`Command`]s;
//! their handlers get the daemon's state and a [`Call`], which they answer at once or keep and answer later, from any
//! thread. An unanswered call that is dropped answers with an error, so that no client waits for ever.
//!
//! One `ovs-appctl` at a time is the rule, thousands of calls a second are not; a connection is served one request at a
//! time, in order.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ib_base::json::{Json, Object};
use ib_base::vlog::module::UNIXCTL;
use ib_base::{coverage, vlog_dbg, vlog_warn};
use ib_sys::dirs;

use crate::jsonrpc::{Message, Rpc};
use crate::reactor::{Handle, Key};
use crate::stream::Listener;

pub mod client;
pub mod standard;

/// How a client wants its answers: `set-options --format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Text, as a JSON string.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// A command of a daemon whose state is `C`.
pub struct Command<C: ?Sized> {
    /// Such as `vlog/list`.
    pub name: &'static str,
    /// The arguments, as `list-commands` shows them.
    pub usage: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments; [`MANY`] for any number.
    pub max: usize,
    /// Does it.
    pub handler: fn(&mut C, Call),
}

/// No limit to the number of arguments.
pub const MANY: usize = usize::MAX;

impl<C: ?Sized> Clone for Command<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized> Copy for Command<C> {}

#[derive(Debug)]
struct Answer {
    connection: Key,
    result: Result<Json, Json>,
}

#[derive(Debug)]
struct Answers {
    queue: Mutex<Vec<Answer>>,
    handle: Handle,
}

/// A command that a client has called, to be answered once.
#[derive(Debug)]
pub struct Call {
    /// The command's name.
    pub command: String,
    /// The arguments, without the name.
    pub args: Vec<String>,
    /// How the client wants the answer. [`Call::ok`] is right for either; a handler that has structure to tell looks.
    pub format: Format,
    connection: Key,
    answers: Option<Arc<Answers>>,
}

impl Call {
    /// A call that nobody waits for: to run a handler from a test.
    pub fn detached(command: &str, args: &[&str]) -> Call {
        Call {
            command: command.to_string(),
            args: args.iter().map(ToString::to_string).collect(),
            format: Format::Text,
            connection: Key(0),
            answers: None,
        }
    }

    /// The argument number `i`, from 0.
    pub fn arg(&self, i: usize) -> Option<&str> {
        self.args.get(i).map(String::as_str)
    }

    fn answer(&mut self, result: Result<Json, Json>) {
        if let Some(answers) = self.answers.take() {
            let answer = Answer { connection: self.connection, result };
            answers.queue.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            answers.handle.wake(self.connection);
        }
    }

    /// Answers that it succeeded, with a text for standard output.
    pub fn ok(mut self, text: impl AsRef<str>) {
        let json = match self.format {
            Format::Text => Json::from(with_newline(text.as_ref())),
            // What has no structure of its own goes inside one that says so.
            Format::Json => {
                Json::object([("reply", Json::from(text.as_ref())), ("reply-format", Json::from("plain"))])
            }
        };
        self.answer(Ok(json));
    }

    /// Answers that it succeeded, with JSON, to a client that asked for that.
    pub fn ok_json(mut self, json: Json) {
        let json = match self.format {
            Format::Json => json,
            Format::Text => Json::from(json.to_string()),
        };
        self.answer(Ok(json));
    }

    /// Answers that it failed, with a text for standard error.
    pub fn err(mut self, text: impl AsRef<str>) {
        self.answer(Err(Json::from(with_newline(text.as_ref()))));
    }

    /// Answers by a result of texts.
    pub fn answer_text(self, result: Result<impl AsRef<str>, impl AsRef<str>>) {
        match result {
            Ok(text) => self.ok(text),
            Err(text) => self.err(text),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.answer(Err(Json::from("command was not answered")));
    }
}

struct Connection {
    rpc: Rpc,
    format: Format,
    /// The id of the request in hand.
    busy: Option<Json>,
}

/// The control socket. See the module's text.
pub struct Server<C: ?Sized> {
    listener: Option<Listener>,
    path: PathBuf,
    connections: BTreeMap<Key, Connection>,
    commands: BTreeMap<&'static str, Command<C>>,
    answers: Arc<Answers>,
    handle: Handle,
}

impl<C: ?Sized> std::fmt::Debug for Server<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unixctl::Server({})", self.path.display())
    }
}

/// The path of the control socket: `option` is the argument of `--unixctl`; without one it is `PROGRAM.PID.ctl` in
/// the run directory. `none` is no socket.
pub fn socket_path(program: &str, option: Option<&str>) -> Option<PathBuf> {
    match option {
        Some("none") => None,
        Some(path) => Some(dirs::in_dir(&dirs::rundir(), path)),
        None => Some(dirs::rundir().join(format!("{program}.{}.ctl", std::process::id()))),
    }
}

impl<C: ?Sized> Server<C> {
    /// Listens on `path` (see [`socket_path`]); on nothing if that is `None`.
    pub fn listen(path: Option<&Path>, handle: &Handle) -> io::Result<Server<C>> {
        let listener = match path {
            Some(p) => {
                let name = format!("punix:{}", p.display());
                let opened = Listener::open(&name, 0, handle, handle.new_key());
                Some(opened.inspect_err(|e| {
                    let program = ib_base::vlog::program_name();
                    let why = ib_base::errno::strerror(e);
                    eprintln!("{program}: {}: could not initialize control socket ({why})", p.display());
                })?)
            }
            None => None,
        };
        let mut server = Server {
            listener,
            path: path.map(Path::to_path_buf).unwrap_or_default(),
            connections: BTreeMap::new(),
            commands: BTreeMap::new(),
            answers: Arc::new(Answers { queue: Mutex::new(Vec::new()), handle: handle.clone() }),
            handle: handle.clone(),
        };
        // Their answers come from the server itself; the rows are for list-commands and the argument checks.
        server.register(&[
            Command { name: "list-commands", usage: "", min: 0, max: 0, handler: |_, call| call.ok("") },
            Command {
                name: "set-options",
                usage: "[--format text|json]",
                min: 0,
                max: 2,
                handler: |_, call| call.ok(""),
            },
        ]);
        Ok(server)
    }

    /// Adds commands. A name that is there already gets the new handler.
    pub fn register(&mut self, commands: &[Command<C>]) {
        for command in commands {
            self.commands.insert(command.name, *command);
        }
    }

    /// Takes a command away.
    pub fn unregister(&mut self, name: &str) {
        self.commands.remove(name);
    }

    /// The names of the commands.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.commands.keys().copied()
    }

    /// `list-commands`.
    pub fn list_commands(&self) -> String {
        let mut out = String::from("The available commands are:\n");
        for c in self.commands.values() {
            out.push_str(&format!("  {:<23} {}\n", c.name, c.usage));
        }
        out
    }

    /// Runs one command as if a client had called it, for tests and embedded daemons. Answers in the registry (unknown
    /// name, wrong number of arguments) are given here; the handler's own go to `call`'s client.
    pub fn dispatch(&self, context: &mut C, call: Call) {
        let Some(command) = self.commands.get(call.command.as_str()) else {
            let text = format!(
                "\"{}\" is not a valid command (use \"list-commands\" to see a list of valid commands)",
                call.command
            );
            return call.err(text);
        };
        let n = call.args.len();
        if n < command.min {
            let text = format!("\"{}\" command requires at least {} arguments", call.command, command.min);
            call.err(text);
        } else if n > command.max {
            let text = format!("\"{}\" command takes at most {} arguments", call.command, command.max);
            call.err(text);
        } else if call.command == "list-commands" {
            match call.format {
                Format::Text => call.ok(self.list_commands()),
                Format::Json => {
                    let rows = self.commands.values().map(|c| (c.name, Json::from(c.usage)));
                    call.ok_json(json_object(rows));
                }
            }
        } else {
            (command.handler)(context, call);
        }
    }

    /// Whether `key` is the listener's or a connection's.
    pub fn owns(&self, key: Key) -> bool {
        self.connections.contains_key(&key) || self.listener.as_ref().is_some_and(|l| l.key() == key)
    }

    /// Serves what `key` has to do: accepts, reads, runs commands on `context`, answers.
    pub fn on_ready(&mut self, key: Key, context: &mut C) {
        if self.listener.as_ref().is_some_and(|l| l.key() == key) {
            self.accept(context);
        } else {
            self.serve(key, context);
        }
    }

    /// Serves all: for a loop that does not look at keys.
    pub fn run(&mut self, context: &mut C) {
        self.accept(context);
        let keys: Vec<Key> = self.connections.keys().copied().collect();
        for key in keys {
            self.serve(key, context);
        }
    }

    fn accept(&mut self, context: &mut C) {
        while let Some(Ok(stream)) = self.listener.as_mut().map(Listener::accept) {
            let key = stream.key();
            let connection = Connection { rpc: Rpc::new(stream), format: Format::Text, busy: None };
            self.connections.insert(key, connection);
            self.serve(key, context);
        }
    }

    /// Hands answers to the connections that wait for them.
    fn deliver(&mut self) {
        let answers = {
            let mut queue = self.answers.queue.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *queue)
        };
        for answer in answers {
            let Some(connection) = self.connections.get_mut(&answer.connection) else {
                continue;
            };
            let Some(id) = connection.busy.take() else {
                continue;
            };
            coverage::unixctl_replied.inc();
            let message = match answer.result {
                Ok(result) => {
                    vlog_dbg!(UNIXCTL, "replying with success, id={id}: \"{}\"", plain(&result));
                    Message::reply(result, id)
                }
                Err(error) => {
                    vlog_dbg!(UNIXCTL, "replying with error, id={id}: \"{}\"", plain(&error));
                    Message::error(error, id)
                }
            };
            // A client that has gone is found by the next recv.
            let _ = connection.rpc.send(&message);
        }
    }

    fn serve(&mut self, key: Key, context: &mut C) {
        self.deliver();
        // Bounded: a client that never stops asking has to let others have their turn.
        for _ in 0..16 {
            let Some(connection) = self.connections.get_mut(&key) else {
                return;
            };
            if connection.rpc.run().is_err() {
                self.connections.remove(&key);
                return;
            }
            if connection.busy.is_some() || connection.rpc.backlog() > 0 {
                return;
            }
            let message = match connection.rpc.recv() {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => {
                    self.connections.remove(&key);
                    return;
                }
            };
            let Message::Request { method, params, id } = message else {
                vlog_warn!(
                    UNIXCTL,
                    "{}: received unexpected {} message",
                    connection.rpc.name(),
                    message.kind()
                );
                self.connections.remove(&key);
                return;
            };
            coverage::unixctl_received.inc();
            vlog_dbg!(UNIXCTL, "received request {method}{params}, id={id}");
            let mut call = Call {
                command: method,
                args: Vec::new(),
                format: connection.format,
                connection: key,
                answers: Some(self.answers.clone()),
            };
            connection.busy = Some(id);
            let args: Option<Vec<String>> = params
                .as_array()
                .unwrap_or_default()
                .iter()
                .map(|p| p.as_str().map(str::to_string))
                .collect();
            match args {
                None => {
                    let text = format!("\"{}\" command has non-string argument", call.command);
                    call.err(text);
                }
                Some(args) if call.command == "set-options" => match parse_options(&args) {
                    Ok(format) => {
                        connection.format = format;
                        call.format = Format::Text;
                        call.ok("");
                    }
                    Err(text) => call.err(text),
                },
                Some(args) => {
                    call.args = args;
                    self.dispatch(context, call);
                }
            }
            self.deliver();
        }
        self.handle.wake(key);
    }
}

/// Clients print answers as they are: lines end.
fn with_newline(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

/// The arguments of `set-options`.
fn parse_options(args: &[String]) -> Result<Format, String> {
    let mut format = Format::Text;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = match arg.strip_prefix("--format") {
            Some("") => args.next().map(String::as_str).ok_or("option requires an argument -- --format")?,
            Some(glued) if glued.starts_with('=') => &glued[1..],
            _ => return Err(format!("unrecognized option '{arg}'")),
        };
        format = match value {
            "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(format!("option --format has invalid value '{other}'")),
        };
    }
    Ok(format)
}

fn plain(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), |s| s.trim_end_matches('\n').to_string())
}

/// An object for [`Call::ok_json`], from pairs.
pub fn json_object<'a>(pairs: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    let mut object = Object::new();
    for (name, value) in pairs {
        object.insert(name, value);
    }
    Json::Object(object)
}
