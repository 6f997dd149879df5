//! The command line of a database tool: `[options] command [args] [-- [options] command [args]]...`.
//!
//! A tool declares its commands once, as a table of [`Command`]s. From that table come the parser of this file, the
//! arity and option checks with their diagnostics, and the machine-readable listing that shells complete from
//! (`--commands`). Parsing is a pure function from words to [`Call`]s; nothing is run here.
//!
//! Options of a command stand before its name. Those of the first command may stand among the tool's own options
//! as well: the tool's option parser hands them over as `leading`.

use super::{Ctl, Preparation};
use ib_base::json::table_order;
use std::collections::BTreeMap;

/// Why a tool stops before it is through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Print `program: message` on standard error and exit with status 1.
    Fatal(String),
    /// Exit with this status, silently.
    Exit(i32),
    /// What the command waits for is not there yet: run everything again after the next change of the database.
    Wait,
}

impl Stop {
    /// A fatal stop that says `message`.
    pub fn fatal(message: impl Into<String>) -> Stop {
        Stop::Fatal(message.into())
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Fatal(message)
    }
}

/// What running a step of a command gives.
pub type Outcome<T = ()> = Result<T, Stop>;

/// The body of a command.
pub type Run<X> = fn(&mut Ctl<'_, X>, &mut Call<X>) -> Outcome;

/// The part of a command that runs before the database is contacted.
pub type Prepare<X> = fn(&mut Preparation<'_>, &Call<X>) -> Outcome;

/// One command of a tool whose own state is `X`.
pub struct Command<X: 'static> {
    /// What it is called by.
    pub name: &'static str,
    /// Fewest arguments after the name.
    pub min_args: usize,
    /// Most arguments after the name; `None` for no limit.
    pub max_args: Option<usize>,
    /// The arguments as `--commands` lists them: `!` mandatory, `?` optional, `*` any number, `+` at least one.
    pub arguments: &'static str,
    /// The options it takes, with a final `=` where one needs an argument: `--if-exists`, `--columns=`.
    pub options: &'static [&'static str],
    /// True if it can change the database.
    pub writes: bool,
    /// Registers what the body will read, and reports misspelt tables and columns at once.
    pub prepare: Option<Prepare<X>>,
    /// The body.
    pub run: Run<X>,
}

/// One command of a command line, with what it has printed so far.
pub struct Call<X: 'static> {
    /// What to do.
    pub command: &'static Command<X>,
    /// The command's name and its arguments.
    pub args: Vec<String>,
    /// The options given, by name (`--columns`), with their arguments.
    pub options: BTreeMap<String, Option<String>>,
    /// Text to print on success.
    pub output: String,
    /// Table to print on success.
    pub table: Option<crate::table::Table>,
    /// The row that the command created, whose final name is known only after the transaction.
    pub created: Option<super::Created>,
}

impl<X> Call<X> {
    /// True if the option was given.
    pub fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    /// The argument of an option that was given.
    pub fn option(&self, option: &str) -> Option<&str> {
        self.options.get(option)?.as_deref()
    }

    /// The number of words, the command's name included.
    pub fn argc(&self) -> usize {
        self.args.len()
    }
}

impl<X> Clone for Call<X> {
    fn clone(&self) -> Call<X> {
        Call {
            command: self.command,
            args: self.args.clone(),
            options: self.options.clone(),
            output: self.output.clone(),
            table: self.table.clone(),
            created: self.created.clone(),
        }
    }
}

/// Splits words into the calls they spell.
///
/// `leading` are options of the first command that were given among the tool's own.
pub fn parse<X>(
    commands: &[&'static [Command<X>]],
    words: &[String],
    leading: &[(String, Option<String>)],
) -> Result<Vec<Call<X>>, String> {
    let mut calls = Vec::new();
    for part in words.split(|w| w == "--").filter(|part| !part.is_empty()) {
        let leading = if calls.is_empty() { leading } else { &[] };
        calls.push(parse_call(commands, part, leading)?);
    }
    if calls.is_empty() {
        return Err("missing command name (use --help for help)".to_string());
    }
    Ok(calls)
}

fn parse_call<X>(
    commands: &[&'static [Command<X>]],
    words: &[String],
    leading: &[(String, Option<String>)],
) -> Result<Call<X>, String> {
    let mut options = BTreeMap::new();
    for (name, value) in leading {
        options.insert(name.clone(), value.clone());
    }
    let n_options = words.iter().take_while(|w| w.starts_with('-')).count();
    for word in &words[..n_options] {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (word.as_str(), None),
        };
        if options.insert(name.to_string(), value).is_some() {
            return Err(format!("'{word}' option specified multiple times"));
        }
    }
    let Some(name) = words.get(n_options) else {
        return Err("missing command name (use --help for help)".to_string());
    };
    let Some(command) = commands.iter().flat_map(|t| t.iter()).find(|c| c.name == name) else {
        return Err(format!("unknown command '{name}'; use --help for help"));
    };
    let given = leading.iter().map(|(name, _)| name).chain(&words[..n_options]);
    check_options(command, given, &options)?;

    let arguments = &words[n_options + 1..];
    if arguments.len() < command.min_args {
        return Err(format!("'{name}' command requires at least {} arguments", command.min_args));
    }
    if let Some(max) = command.max_args.filter(|max| arguments.len() > *max) {
        let note = if arguments.iter().any(|a| a.starts_with('-')) {
            " (note that options must precede command names and follow a \"--\" argument)"
        } else {
            ""
        };
        return Err(format!("'{name}' command takes at most {max} arguments{note}"));
    }
    let args = words[n_options..].to_vec();
    Ok(Call { command, args, options, output: String::new(), table: None, created: None })
}

/// `given` are the options in order. Of several that are wrong the original names one by its hash table's order.
fn check_options<'a, X>(
    command: &Command<X>,
    given: impl Iterator<Item = &'a String>,
    options: &BTreeMap<String, Option<String>>,
) -> Result<(), String> {
    let mut names: Vec<&str> = Vec::new();
    for word in given {
        let name = word.split_once('=').map_or(&**word, |(name, _)| name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let ordered = table_order(names.iter().copied()).into_iter().map(|i| names[i]);
    for (option, value) in ordered.filter_map(|name| options.get_key_value(name)) {
        let Some(declared) = command.options.iter().find(|d| d.trim_end_matches('=') == option) else {
            return Err(format!("'{}' command has no '{option}' option", command.name));
        };
        match (declared.ends_with('='), value) {
            (true, None) => {
                return Err(format!("missing argument to '{option}' option on '{}' command", command.name));
            }
            (false, Some(_)) => {
                return Err(format!("'{option}' option on '{}' does not accept an argument", command.name));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The listing of `--commands`: a line a command.
pub fn list_commands<X>(commands: &[&'static [Command<X>]]) -> String {
    let mut out = String::new();
    for command in commands.iter().flat_map(|t| t.iter()) {
        for option in command.options {
            out.push_str(&format!("[{option}] "));
        }
        out.push_str(&format!(",{},{}\n", command.name, command.arguments));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &mut Ctl<'_, ()>, _: &mut Call<()>) -> Outcome {
        Ok(())
    }

    static COMMANDS: &[Command<()>] = &[
        Command {
            name: "add-br",
            min_args: 1,
            max_args: Some(3),
            arguments: "!NEW-BRIDGE ?PARENT ?NEW-VLAN",
            options: &["--may-exist"],
            writes: true,
            prepare: None,
            run: nothing,
        },
        Command {
            name: "list",
            min_args: 1,
            max_args: None,
            arguments: "!TABLE *RECORD",
            options: &["--if-exists", "--columns="],
            writes: false,
            prepare: None,
            run: nothing,
        },
    ];

    fn check(line: &str, expect: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let got = match parse(&[COMMANDS], &words, &[]) {
            Err(e) => e,
            Ok(calls) => calls
                .iter()
                .map(|c| format!("{} {:?}", c.args.join("+"), c.options.keys().collect::<Vec<_>>()))
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert_eq!(got, expect, "{line}");
    }

    #[test]
    fn lines_parse_to_calls_or_say_what_is_wrong() {
        check("add-br a -- --columns=x list b c", "add-br+a []; list+b+c [\"--columns\"]");
        check("-- add-br a --", "add-br+a []");
        check("-- --", "missing command name (use --help for help)");
        check("--may-exist", "missing command name (use --help for help)");
        check("add-br", "'add-br' command requires at least 1 arguments");
        check("add-br a b c d", "'add-br' command takes at most 3 arguments");
        check(
            "add-br a b c --may-exist",
            "'add-br' command takes at most 3 arguments (note that options must precede command names and follow a \"--\" argument)",
        );
        check("nosuch", "unknown command 'nosuch'; use --help for help");
        check("- add-br x", "'add-br' command has no '-' option");
        check("--columns list b", "missing argument to '--columns' option on 'list' command");
        check("--may-exist=3 add-br b", "'--may-exist' option on 'add-br' does not accept an argument");
        check("--columns=a --columns=b list b", "'--columns=b' option specified multiple times");
    }

    #[test]
    fn leading_options_belong_to_the_first_command() {
        let words: Vec<String> = ["list", "b", "--", "add-br", "c"].map(str::to_string).to_vec();
        let calls = parse(&[COMMANDS], &words, &[("--columns".into(), Some("name".into()))]).unwrap();
        assert_eq!(calls[0].option("--columns"), Some("name"));
        assert!(calls[1].options.is_empty());
    }

    #[test]
    fn listing_is_what_completion_scripts_read() {
        assert_eq!(
            list_commands(&[COMMANDS]),
            "[--may-exist] ,add-br,!NEW-BRIDGE ?PARENT ?NEW-VLAN\n[--if-exists] [--columns=] ,list,!TABLE *RECORD\n"
        );
    }
}
