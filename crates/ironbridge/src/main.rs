//! The one binary: daemons and tools by the name it is called under, or as a subcommand.
//!
//! `PROGRAMS` is the table; a program is one row. `ironbridge links DIR` makes the names that scripts know.

mod daemon;
mod demo;
mod embedded;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use ib_tools::io::{Io, Run, program_name, version_text};

/// A program: its name and its function.
struct Program {
    name: &'static str,
    run: Run,
}

/// All programs, by name.
const PROGRAMS: &[Program] = &[
    Program { name: "ovs-appctl", run: ib_tools::appctl::run },
    Program { name: "ovs-ctl", run: ib_tools::ovs_ctl::run },
    Program { name: "ovs-dpctl", run: ib_tools::dpctl::run },
    Program { name: "ovs-ofctl", run: ib_tools::ofctl::run },
    Program { name: "ovs-pcap", run: ib_tools::captures::run_pcap },
    Program { name: "ovs-pki", run: ib_tools::pki::run },
    Program { name: "ovs-save", run: ib_tools::save::run },
    Program { name: "ovs-tcpdump", run: ib_tools::tcpdump::run },
    Program { name: "ovs-tcpundump", run: ib_tools::captures::run_tcpundump },
    Program { name: "ovs-testcontroller", run: ib_tools::testcontroller::run },
    Program { name: "ovs-vsctl", run: ib_tools::vsctl::run },
    Program { name: "ovsdb-client", run: ib_tools::ovsdb_client::run },
    Program { name: "ovsdb-tool", run: ib_tools::ovsdb_tool::run },
    Program { name: "vtep-ctl", run: ib_tools::vtep::run },
    Program { name: "ovsdb-server", run: daemon::ovsdb_server::run },
    Program { name: "ovs-vswitchd", run: daemon::vswitchd::run },
];

/// What else the binary does, as subcommands only.
const COMMANDS: &[Program] = &[
    Program { name: "run", run: embedded::run },
    Program { name: "datapath", run: daemon::datapath::run },
    Program { name: "demo", run: demo::run },
    Program { name: "adopt", run: ib_tools::adopt::run },
    Program { name: "port", run: ib_tools::port::run },
];

fn find(name: &str) -> Option<Run> {
    PROGRAMS.iter().find(|p| p.name == name).map(|p| p.run)
}

fn usage() -> String {
    let mut out = String::from(
        "ironbridge: a virtual switch\n\
         usage: ironbridge demo                show what it does, on this machine, in 15 seconds\n       \
         ironbridge run [OPTION...]     database, switch and datapath in one process\n       \
         ironbridge datapath [OPTION...] the datapath alone, for ovs-vswitchd --datapath-socket\n       \
         ironbridge adopt               take the place of the Open vSwitch that runs here (--help for more)\n       \
         ironbridge port COMMAND        take ports with their state to another switch (--help for more)\n       \
         ironbridge PROGRAM [ARG...]    run a program\n       \
         ironbridge links DIR           make a link in DIR for each program\n       \
         ironbridge --help | --version\n\
         Programs, which also run by the names of links to this file:\n",
    );
    for p in PROGRAMS {
        out.push_str(&format!("  {}\n", p.name));
    }
    out
}

/// Makes or renews a symbolic link to this executable for each program. The error is a sentence.
fn links(dir: &Path) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| format!("cannot find the executable: {e}"))?;
    let text = |path: &Path, e| format!("{}: {}", path.display(), ib_base::errno::strerror(&e));
    std::fs::create_dir_all(dir).map_err(|e| text(dir, e))?;
    for p in PROGRAMS {
        let link = dir.join(p.name);
        if link.is_symlink() {
            // What cannot be removed fails below, with a message.
            let _ = std::fs::remove_file(&link);
        }
        std::os::unix::fs::symlink(&exe, &link).map_err(|e| text(&link, e))?;
    }
    Ok(())
}

fn dispatch(args: &[OsString], io: &mut Io<'_>) -> i32 {
    if let Some(run) = find(&program_name(args)) {
        return run(args, io);
    }
    let words: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["-h" | "--help" | "help", ..] => {
            io.out(usage());
            0
        }
        ["-V" | "--version", ..] => {
            io.out(version_text("ironbridge", ""));
            0
        }
        ["links", dir] => match links(Path::new(dir)) {
            Ok(()) => 0,
            Err(why) => io.fatal("ironbridge", why),
        },
        [name, ..] => match COMMANDS.iter().find(|c| c.name == *name).map(|c| c.run).or_else(|| find(name)) {
            Some(run) => run(&args[1..], io),
            None => io.fatal("ironbridge", format!("no program \"{name}\" (use --help for help)")),
        },
        [] => {
            io.err(usage());
            1
        }
    }
}

fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut stdin = std::io::stdin();
    let mut stdout = std::io::stdout();
    let mut stderr = std::io::stderr();
    let mut io = Io { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr };
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(&args, &mut io)));
    // A program whose main thread has panicked has crashed, and a monitor is to see it so.
    let Ok(code) = ran else {
        std::process::abort();
    };
    // A reader that has gone away is no error of ours.
    let _ = stdout.flush();
    ib_sys::signal::exit(code)
}
