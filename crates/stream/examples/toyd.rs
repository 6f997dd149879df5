//! The smallest daemon: options, start, control socket, loop, exit. What a real one adds goes between.

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::memory::Usage;
use ib_base::time::Clock;
use ib_base::vlog::{self, module::VSWITCHD};
use ib_base::{coverage, vlog_info};
use ib_stream::reactor::Reactor;
use ib_stream::unixctl::standard::{self, Standard, TimeCommands, TimeWarp};
use ib_stream::unixctl::{Command, Server, socket_path};
use ib_sys::daemon::{self, Daemon};
use ib_sys::{process, signal};

const UNIXCTL: u32 = 1;

struct Toy {
    warp: TimeWarp,
    exiting: bool,
}

impl Standard for Toy {
    fn memory_usage(&mut self, usage: &mut Usage) {
        usage.add("toys", 1);
    }
}

impl TimeCommands for Toy {
    fn time_warp(&mut self) -> &mut TimeWarp {
        &mut self.warp
    }
}

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let mut daemon = Daemon::new("toyd");
    let own = [LongOpt::new("unixctl", HasArg::Required, UNIXCTL)];
    let mut opts = Getopt::new("toyd", &args, "v::", &own).with(daemon::OPTIONS).with(daemon::VLOG_OPTIONS);
    let mut unixctl = None;
    for found in opts.by_ref() {
        let result = found.and_then(|f| match f.id {
            UNIXCTL => {
                unixctl = Some(f.arg_str());
                Ok(true)
            }
            _ => daemon.option(&f),
        });
        if let Err(e) = result {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
    daemon.start();
    signal::note_hup();
    let clock = Clock::new();
    vlog::set_clock(&clock);
    let mut reactor = Reactor::new(&clock).expect("a reactor");
    reactor.watch_signals().expect("signals");
    let path = socket_path("toyd", unixctl.as_deref());
    let Ok(mut server) = Server::<Toy>::listen(path.as_deref(), reactor.handle()) else {
        signal::exit(1);
    };
    server.register(&standard::commands());
    server.register(&standard::time_commands());
    server.register(&[
        Command {
            name: "exit",
            usage: "[--cleanup]",
            min: 0,
            max: 1,
            handler: |toy, call| {
                toy.exiting = true;
                call.ok("");
            },
        },
        Command {
            name: "crash",
            usage: "",
            min: 0,
            max: 0,
            handler: |_, _| drop(process::kill(std::process::id() as i32, 11)),
        },
    ]);
    daemon.complete();
    vlog_info!(VSWITCHD, "toyd is ready");
    let mut toy = Toy { warp: TimeWarp::new(&clock), exiting: false };
    while !toy.exiting {
        coverage::run(clock.now());
        if signal::take_hup() {
            // A failure has been logged.
            let _ = vlog::reopen_log_file();
        }
        toy.warp.run();
        let ready = reactor.wait(toy.warp.deadline()).expect("poll").to_vec();
        for key in ready {
            if server.owns(key) {
                server.on_ready(key, &mut toy);
            }
        }
    }
    drop(server);
    signal::exit(0);
}
