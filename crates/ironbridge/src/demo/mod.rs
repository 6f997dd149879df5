//! `ironbridge demo`: the whole switch at work, on any Linux machine, with no other program.
//!
//! The process takes a network of its own ([`isolation`]), runs database, switch and datapath inside ([`crate::embedded`]),
//! makes tenants ([`tenant`]) and a small virtual machine ([`guest`]), and leads through a [`scenario`] of checks, in the
//! words of the standard tools. Everything it makes is either the kernel's to take back when the process ends or
//! held by a guard; signals are noted and unwind it in order.

mod endpoint;
mod guest;
mod isolation;
mod scenario;
mod style;
mod tenant;
mod tools;
mod topology;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::vlog::{self, Destination, Level};
use ib_sys::{dirs, process, signal};
use ib_tools::io::Io;

use crate::embedded::PrivateDir;
use isolation::Isolation;
use scenario::{Outcome, Scenario};
use style::Style;

const KEEP: u32 = 256;
const QUIET: u32 = 'q' as u32;
const NO_COLOR: u32 = 257;

const LONG: &[LongOpt] = &[
    LongOpt::new("keep", HasArg::No, KEEP),
    LongOpt::new("quiet", HasArg::No, QUIET),
    LongOpt::new("no-color", HasArg::No, NO_COLOR),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

const HELP: &str = "\
ironbridge demo: the switch at work, with checks and measurements
usage: ironbridge demo [OPTION]...

Runs database, switch and datapath in this process, inside a network namespace of its
own; makes tenants in namespaces on veth pairs, a virtual machine in miniature on a
TAP, and two bridges joined by a patch; sends ping, UDP and TCP through; shows that
VLANs and flows keep apart what is to be apart; prints flows, datapath flows and the
trace of a packet. Each command line that it prints works the same when typed.

The machine's own network is neither used nor changed, and nothing is left behind, also
after Ctrl-C or SIGTERM. Root is not needed where the kernel lets users have user
namespaces; otherwise it says what is missing. It takes some ten seconds.

Options:
  --keep                  stay at the end, until Ctrl-C, and say how to look around
  -q, --quiet             show the checks alone
  --no-color              no colour; so does the environment variable NO_COLOR, and
                          output that goes to a file
  -h, --help              display this help message
  -V, --version           display version information

Exit status: 0 if every check passed, 1 if one failed or the demonstration could not
start. Ended by a signal, it dies of that signal.
";

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    keep: bool,
    quiet: bool,
    no_color: bool,
}

fn parse(args: &[OsString], io: &mut Io<'_>) -> Result<Settings, i32> {
    let mut settings = Settings::default();
    let mut opts = Getopt::new("ironbridge demo", args, "hqV", LONG);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            io.err(format!("{e}\n"));
            1
        })?;
        match found.id {
            KEEP => settings.keep = true,
            QUIET => settings.quiet = true,
            NO_COLOR => settings.no_color = true,
            id if id == 'V' as u32 => {
                io.out(ib_tools::io::version_text("ironbridge demo", ""));
                return Err(0);
            }
            _ => {
                io.out(HELP);
                return Err(0);
            }
        }
    }
    if let Some(extra) = opts.rest_str().first() {
        return Err(io.fatal("ironbridge demo", format!("unexpected argument \"{extra}\" (see --help)")));
    }
    Ok(settings)
}

/// The program `ironbridge demo`; `args` begin with its name.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    process::init("ironbridge");
    let settings = match parse(args.get(1..).unwrap_or_default(), io) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    // Before the first thread: namespaces are a thread's.
    let isolation = match isolation::enter() {
        Ok(isolation) => isolation,
        Err(why) => return io.fatal("ironbridge demo", why.trim_end()),
    };
    signal::hold();
    let code = perform(settings, isolation, io);
    let code = code.unwrap_or_else(|why| io.fatal("ironbridge demo", why));
    if !settings.keep {
        signal::release();
    }
    code
}

/// All that has guards: when it returns, everything is taken back.
fn perform(settings: Settings, isolation: Isolation, io: &mut Io<'_>) -> Result<i32, String> {
    let start = Instant::now();
    let dir = PrivateDir::new("ironbridge-demo")?;
    dirs::set_rundir(dir.path());
    // Warnings of daemons belong into a log, not into the story.
    vlog::set_levels(None, Some(Destination::Console), Level::Off);
    vlog::set_levels(None, Some(Destination::Syslog), Level::Off);
    vlog::set_log_file(&dir.path().join("ironbridge.log")).map_err(|e| ib_base::errno::strerror(&e))?;
    let mut style = Style::new(io, style::colour_wanted() && !settings.no_color, settings.quiet);
    let mut scenario = Scenario::new(&mut style, dir.path());
    let mut outcome = scenario.play(isolation);
    if matches!(outcome, Outcome::Done) && !settings.keep {
        outcome = scenario.take_down();
    }
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Outcome::Done if settings.keep => {
            scenario.tell_how_to_look_around(isolation);
            while signal::held().is_none() && !scenario.has_ended() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Outcome::Done | Outcome::Interrupted => {}
        Outcome::Broken(why) => scenario.fail(&why),
    }
    let log = scenario.log_tail();
    drop(scenario);
    drop(dir);
    if signal::held().is_some() && !settings.keep {
        style.insist("interrupted; nothing is left behind");
        return Ok(1);
    }
    if !style.is_clean() && !log.is_empty() {
        style.heading("The end of the log");
        style.output(&log);
    }
    style.score(seconds);
    Ok(i32::from(!style.is_clean()))
}
