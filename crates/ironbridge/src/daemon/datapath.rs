//! `ironbridge datapath`: the user-space datapath in a process of its own.
//!
//! It forwards by the flows that it has, whoever made them: a control plane (`ovs-vswitchd --datapath-socket`) connects, makes ports
//! and flows, answers misses, and may go and come back. Ports and flows stay meanwhile; they go with this process, or when the
//! control plane takes them away. [`ib_dp_kernel::serve`] does what the messages ask, on threads of its own; the loop here has the
//! devices' news, the datapath's housekeeping and the control socket.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::Json;
use ib_base::time::Clock;
use ib_base::vlog::module::DPIF_NETDEV;
use ib_base::{coverage, vlog_err, vlog_info};
use ib_dp_kernel::serve::Server as DatapathServer;
use ib_dp_userspace::impls::Impls;
use ib_dp_userspace::pmd::numa::Topology;
use ib_dp_userspace::{Config, DpUserspaceClass};
use ib_dpif::DpifClass;
use ib_netdev::Registry;
use ib_stream::reactor::Reactor;
use ib_stream::unixctl::client::Client;
use ib_stream::unixctl::standard::{self, Standard};
use ib_stream::unixctl::{self, Call, Command, Server};
use ib_sys::daemon::{self, Daemon};
use ib_tools::io::{Io, argv0};
use ib_tunnel::World;

use super::vswitchd::default_socket;
use super::vswitchd::pmd_commands::{self, UserDatapaths};

const PROGRAM: &str = "ironbridge-datapath";

/// Connections are forgotten, counters folded, at least so often.
const HOUSEKEEPING_MS: u64 = 100;

const SOCKET: u32 = 1;
const UNIXCTL: u32 = 2;
const MLOCKALL: u32 = 3;

const LONG: &[LongOpt] = &[
    LongOpt::new("socket", HasArg::Required, SOCKET),
    LongOpt::new("unixctl", HasArg::Required, UNIXCTL),
    LongOpt::new("mlockall", HasArg::No, MLOCKALL),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

struct Options {
    socket: String,
    unixctl: Option<String>,
    lock_memory: bool,
}

/// What control commands work on.
struct Datapath {
    clock: Clock,
    classes: Vec<Arc<DpUserspaceClass>>,
    impls: Impls,
    exit: Option<Call>,
}

impl Standard for Datapath {}

impl UserDatapaths for Datapath {
    fn classes(&self) -> &[Arc<DpUserspaceClass>] {
        &self.classes
    }
    fn impls(&mut self) -> &mut Impls {
        &mut self.impls
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The program; `args` begin with its name.
pub fn run(args: &[OsString], _io: &mut Io<'_>) -> i32 {
    let mut daemon = Daemon::new(PROGRAM);
    // Nobody else would forward in its place; a machine short of memory kills the large ones first.
    daemon.outlive_kills();
    let options = match parse(args, &mut daemon) {
        Ok(options) => options,
        Err(code) => return code,
    };
    daemon.start();
    if options.lock_memory
        && let Err(e) = ib_sys::process::lock_memory()
    {
        vlog_err!(DPIF_NETDEV, "mlockall failed: {}", ib_base::errno::strerror(&e));
    }
    match serve(&options, || daemon.complete()) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{PROGRAM}: {e}");
            1
        }
    }
}

/// Reads the command line. The error is the code to exit with; what there is to say has been said.
fn parse(args: &[OsString], daemon: &mut Daemon) -> Result<Options, i32> {
    let mut options = Options { socket: default_socket(), unixctl: None, lock_memory: false };
    let called = argv0(args);
    let mut opts = Getopt::new(&called, args.get(1..).unwrap_or_default(), "hVv::", LONG)
        .with(daemon::OPTIONS)
        .with(daemon::VLOG_OPTIONS);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            eprintln!("{e}");
            1
        })?;
        match found.id {
            SOCKET => options.socket = found.arg_str(),
            UNIXCTL => options.unixctl = Some(found.arg_str()),
            MLOCKALL => options.lock_memory = true,
            id if id == u32::from('h') => {
                print!("{}", help());
                return Err(0);
            }
            id if id == u32::from('V') => {
                println!("{}Ironbridge {}", standard::version_line(PROGRAM), env!("CARGO_PKG_VERSION"));
                return Err(0);
            }
            _ => {
                daemon.option(&found).map_err(|line| {
                    eprintln!("{line}");
                    1
                })?;
            }
        }
    }
    if let Some(word) = opts.rest_str().first() {
        eprintln!("{PROGRAM}: unexpected argument \"{word}\"; use --help for usage");
        return Err(1);
    }
    Ok(options)
}

fn help() -> String {
    format!(
        "ironbridge datapath: the user-space datapath in a process of its own\n\
         usage: ironbridge datapath [OPTIONS]\n\
         It forwards by what flows it has, also while the ovs-vswitchd that made them\n\
         (with --datapath-socket) is gone.\n\
         {}{}\
         \nOther options:\n  \
         --socket=FILE             where control planes connect\n  \
                                   (default: \"{}\")\n  \
         --mlockall                lock all memory against paging\n  \
         --unixctl=SOCKET          override default control socket name\n  \
         -h, --help                display this help message\n  \
         -V, --version             display version information\n",
        daemon::usage(PROGRAM),
        daemon::vlog_usage(PROGRAM),
        default_socket(),
    )
}

/// Runs until told to exit; calls `ready` once control planes can connect.
fn serve(options: &Options, ready: impl FnOnce()) -> io::Result<()> {
    let clock = Clock::new();
    ib_base::vlog::set_clock(&clock);
    let mut reactor = Reactor::new(&clock)?;
    reactor.watch_signals()?;
    let handle = reactor.handle().clone();
    let socket = unixctl::socket_path(PROGRAM, options.unixctl.as_deref());
    let mut server: Server<Datapath> = Server::listen(socket.as_deref(), &handle)?;

    let registry = Registry::new()?;
    // Tunnels' devices are names and counters here: what they do is in the actions of flows.
    let world = World::new(&clock);
    world.set_registry(&registry);
    ib_tunnel::device::register(&registry, &world);
    let registry_key = handle.new_key();
    handle.register_fd(registry.fd(), registry_key)?;
    let topology = Arc::new(Topology::discover());
    topology.log();
    let class = |kind| {
        let (registry, clock) = (Arc::clone(&registry), clock.clone());
        let config = Config { registry, clock, threads: 1, dummy: false };
        Arc::new(DpUserspaceClass::new(kind, config).with_topology(&topology))
    };
    let classes: Vec<Arc<DpUserspaceClass>> = ["netdev", "system"].into_iter().map(class).collect();
    let mut state = Datapath { clock: clock.clone(), classes, impls: Impls::default(), exit: None };
    server.register(&standard::commands());
    server.register(&pmd_commands::commands());
    server.register(&[Command { name: "exit", usage: "", min: 0, max: 0, handler: exit }]);

    let served = state.classes.iter().map(|c| Arc::clone(c) as Arc<dyn DpifClass>).collect();
    let datapaths = DatapathServer::new(served, control_commands(socket));
    let path = Path::new(&options.socket);
    datapaths.listen(path).map_err(|e| {
        let why = match e.kind() {
            io::ErrorKind::AddrInUse => "another datapath process listens here".to_owned(),
            _ => ib_base::errno::strerror(&e),
        };
        io::Error::new(e.kind(), format!("{}: {why}", options.socket))
    })?;
    vlog_info!(DPIF_NETDEV, "Ironbridge {}: datapaths at {}", env!("CARGO_PKG_VERSION"), options.socket);
    ready();
    let mut keys = Vec::new();
    while state.exit.is_none() {
        if ib_sys::signal::take_hup() {
            // A log file that can't be opened again is reported by the log itself.
            let _ = ib_base::vlog::reopen_log_file();
        }
        let now = clock.now();
        coverage::run(now);
        registry.run();
        // Each has its turn.
        let more = datapaths.datapaths().iter().filter(|dp| dp.run()).count() > 0;
        for key in &keys {
            if server.owns(*key) {
                server.on_ready(*key, &mut state);
            }
        }
        keys.clear();
        let deadline = if more { now } else { now.plus_ms(HOUSEKEEPING_MS) };
        keys.extend_from_slice(reactor.wait(Some(deadline))?);
    }
    // The devices that we made go, and with them what was forwarded.
    let _together = registry.remove_together();
    for class in &state.classes {
        for name in class.enumerate() {
            // It was just listed.
            let _ = class.destroy(&name);
        }
    }
    let _ = std::fs::remove_file(path);
    if let Some(call) = state.exit.take() {
        call.ok("");
    }
    server.run(&mut state);
    Ok(())
}

fn exit(state: &mut Datapath, call: Call) {
    state.exit = Some(call);
}

/// Commands that a control plane passes on are run as if they came by the control socket.
fn control_commands(socket: Option<std::path::PathBuf>) -> ib_dp_kernel::serve::Appctl {
    Arc::new(move |words: &[String]| {
        let socket = socket.as_deref().ok_or("no control socket")?;
        let (name, args) = words.split_first().ok_or("no command")?;
        let told = |e: io::Error| ib_base::errno::strerror(&e);
        let mut client = Client::connect(socket).map_err(told)?;
        let text = |answer: &Json| answer.as_str().unwrap_or_default().to_owned();
        client.call(name, args).map_err(told)?.map(|a| text(&a)).map_err(|a| text(&a))
    })
}
