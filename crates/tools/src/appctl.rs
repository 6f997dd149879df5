//! `ovs-appctl`: sends one command to a running daemon and prints the answer.
//!
//! Exit codes: 0 the command succeeded; 1 it could not be sent; 2 the daemon answered with an error.

use std::ffi::OsString;
use std::path::PathBuf;

use ib_base::errno::{retval_to_string, strerror};
use ib_base::getopt::{Getopt, HasArg, LongOpt, options_text};
use ib_base::json::{Json, Style};
use ib_stream::unixctl::client::{Client, answer_text, find};
use ib_sys::{daemon, process, signal};

use crate::io::{Io, argv0, program_name, version_text};

const PRETTY: u32 = 0x1000;

const LONG: &[LongOpt] = &[
    LongOpt::new("target", HasArg::Required, 't' as u32),
    LongOpt::new("execute", HasArg::No, 'e' as u32),
    LongOpt::new("format", HasArg::Required, 'f' as u32),
    LongOpt::new("pretty", HasArg::No, PRETTY),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("option", HasArg::No, 'o' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
    LongOpt::new("timeout", HasArg::Required, 'T' as u32),
];

fn usage(program: &str) -> String {
    format!(
        "{program}, for querying and controlling Open vSwitch daemon\n\
         usage: {program} [TARGET] COMMAND [ARG...]\n\
         Targets:\n  \
         -t, --target=TARGET  pidfile or socket to contact\n\
         Common commands:\n  \
         list-commands      List commands supported by the target\n  \
         version            Print version of the target\n  \
         vlog/list          List current logging levels\n  \
         vlog/list-pattern  List logging patterns for each destination.\n  \
         vlog/set [SPEC]\n      \
         Set log levels as detailed in SPEC, which may include:\n      \
         A valid module name (all modules, by default)\n      \
         'syslog', 'console', 'file' (all destinations, by default))\n      \
         'off', 'emer', 'err', 'warn', 'info', or 'dbg' ('dbg', bydefault)\n  \
         vlog/reopen        Make the program reopen its log file\n\
         Other options:\n  \
         --timeout=SECS     wait at most SECS seconds for a response\n  \
         -f, --format=FMT   Output format. One of: 'json', or 'text'\n                     \
         ('text', by default)\n  \
         --pretty           Format the output in a more readable fashion.\n                     \
         Requires: --format json.\n  \
         -h, --help         Print this helpful information\n  \
         -V, --version      Display {program} version information\n"
    )
}

struct Options {
    target: String,
    json: bool,
    pretty: bool,
    timeout: Option<u32>,
    words: Vec<String>,
}

/// Either what to do, or the exit code after what was asked for has been printed.
fn parse(args: &[OsString], program: &str, io: &mut Io<'_>) -> Result<Options, i32> {
    let name = argv0(args);
    let mut o = Options {
        target: "ovs-vswitchd".to_string(),
        json: false,
        pretty: false,
        timeout: None,
        words: Vec::new(),
    };
    let mut executed = false;
    let mut opts = Getopt::new(&name, args.get(1..).unwrap_or_default(), "+t:ef:hoVT:v::", LONG)
        .with(daemon::VLOG_OPTIONS);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            io.err(format!("{e}\n"));
            1
        })?;
        let arg = found.arg_str();
        match char::from_u32(found.id) {
            Some('t') => o.target = arg,
            // A way of writing a command from times long gone.
            Some('e') if executed => {
                return Err(io.fatal(program, "-e or --execute may be speciifed only once"));
            }
            Some('e') => executed = true,
            Some('f') => match arg.as_str() {
                "text" => o.json = false,
                "json" => o.json = true,
                _ => return Err(io.fatal(program, format!("value {arg} on -f or --format is invalid"))),
            },
            Some('h') => {
                io.out(usage(program));
                return Err(0);
            }
            Some('o') => {
                io.out(options_text(&[LONG, daemon::VLOG_OPTIONS]));
                return Err(0);
            }
            Some('V') => {
                io.out(version_text(program, ""));
                return Err(0);
            }
            Some('T') => match arg.parse::<u32>() {
                Ok(n) if n > 0 => o.timeout = Some(n),
                _ => return Err(io.fatal(program, format!("value {arg} on -T or --timeout is invalid"))),
            },
            _ if found.id == PRETTY => o.pretty = true,
            _ => {
                if let Err(e) = daemon::vlog_option(program, &found) {
                    io.err(format!("{e}\n"));
                    return Err(1);
                }
            }
        }
    }
    if o.pretty && !o.json {
        return Err(io.fatal(program, "--pretty is supported with --format json only"));
    }
    o.words = opts.rest_str();
    if o.words.is_empty() {
        let text = "at least one non-option argument is required (use --help for help)";
        return Err(io.fatal(program, text));
    }
    Ok(o)
}

/// Runs `ovs-appctl`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    process::init(&program);
    let options = match parse(args, &program, io) {
        Ok(options) => options,
        Err(code) => return code,
    };
    signal::ctl_timeout(options.timeout);
    execute(&program, &options, io)
}

fn execute(program: &str, o: &Options, io: &mut Io<'_>) -> i32 {
    let path: PathBuf = match find(&o.target) {
        Ok(path) => path,
        Err(e) => return io.fatal(program, e),
    };
    let mut client = match Client::connect(&path) {
        Ok(client) => client,
        Err(e) => {
            let text = format!("cannot connect to \"{}\" ({})", path.display(), strerror(&e));
            return io.fatal(program, text);
        }
    };
    let style = if o.pretty { Style::PRETTY_SORTED } else { Style::SORTED };
    let format =
        o.json.then(|| ("set-options".to_string(), vec!["--format".to_string(), "json".to_string()]));
    let command = (o.words[0].clone(), o.words[1..].to_vec());
    let is_format = |name: &str| o.json && name == "set-options";
    for (name, args) in format.into_iter().chain([command]) {
        match client.call(&name, &args) {
            Err(e) => {
                let why = retval_to_string(Some(&e));
                return io.fatal(program, format!("{}: transaction error ({why})", o.target));
            }
            Ok(Err(error)) => {
                io.err(line(&error, style));
                io.err(format!("{program}: {}: server returned an error\n", o.target));
                return 2;
            }
            Ok(Ok(_)) if is_format(&name) && o.words[0] != name => {}
            Ok(Ok(result)) => io.out(line(&result, style)),
        }
    }
    0
}

/// An answer, with the end of line that it may lack.
fn line(answer: &Json, style: Style) -> String {
    let mut text = answer_text(answer, style);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    fn check(args: &[&str], code: i32, out: &str, err: &str) {
        let mut all = vec!["/usr/bin/ovs-appctl"];
        all.extend(args);
        assert_eq!(capture(run, &all, ""), (code, out.to_string(), err.to_string()), "{args:?}");
    }

    #[test]
    fn command_line() {
        check(&["--foo"], 1, "", "/usr/bin/ovs-appctl: unrecognized option '--foo'\n");
        check(&[], 1, "", "ovs-appctl: at least one non-option argument is required (use --help for help)\n");
        check(&["-T", "0", "x"], 1, "", "ovs-appctl: value 0 on -T or --timeout is invalid\n");
        check(&["-f", "xml", "x"], 1, "", "ovs-appctl: value xml on -f or --format is invalid\n");
        check(&["--pretty", "x"], 1, "", "ovs-appctl: --pretty is supported with --format json only\n");
        check(
            &["-t", "/nonexistent/x", "version"],
            1,
            "",
            "ovs-appctl: cannot connect to \"/nonexistent/x\" (No such file or directory)\n",
        );
        let (code, out, _) = capture(run, &["ovs-appctl", "-V"], "");
        assert_eq!((code, out.lines().next()), (0, Some("ovs-appctl (Open vSwitch) 3.7.1")));
        let (code, out, _) = capture(run, &["ovs-appctl", "--help"], "");
        assert_eq!(code, 0);
        assert!(out.contains("\n  -t, --target=TARGET  pidfile or socket to contact\n"), "{out}");
    }
}
