//! `ovs-dpctl`: looks at and changes datapaths, without the switch daemon.
//!
//! The commands are those of [`ib_dpif::dpctl`], which the daemon has as `dpctl/*`; here are the program's own options
//! and the providers that one process can reach: the kernel's. A datapath in user space lives in its daemon, so that
//! `ovs-appctl dpctl/show` is the way to it, and there are none of its kind here.

use std::ffi::OsString;
use std::io::Read;
use std::sync::Arc;

use ib_base::errno::strerror;
use ib_base::getopt::{Getopt, HasArg, LongOpt, options_text};
use ib_base::time::Clock;
use ib_base::vlog::module::DPIF_NETLINK;
use ib_base::vlog_once;
use ib_dp_kernel::genl::NetlinkTransport;
use ib_dp_kernel::provider::RemoteClass;
use ib_dpif::dpctl::{COMMANDS, Command, Context, Options, PortCounters};
use ib_dpif::{Datapaths, Dpif, DpifClass, DpifError, dpctl};
use ib_flow::{Flow, Mask, PortMap};
use ib_sys::{daemon, process, signal};

use crate::io::{Io, argv0, program_name, version_text};

const ENOENT: i32 = 2;
const ENODEV: i32 = 19;

/// A kind of datapath that this machine knows and this process can't reach.
struct Absent {
    kind: &'static str,
    errno: i32,
}

impl Absent {
    /// Whatever is opened, the kernel is asked first what it knows.
    fn error(&self) -> DpifError {
        vlog_once!(
            DPIF_NETLINK,
            ib_base::vlog::Level::Info,
            "Generic Netlink family 'ovs_datapath' does not exist. \
             The Open vSwitch kernel module is probably not loaded."
        );
        DpifError::Os(self.errno, format!("{} datapaths", self.kind))
    }
}

impl DpifClass for Absent {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn enumerate(&self) -> Vec<String> {
        Vec::new()
    }
    fn try_enumerate(&self) -> Result<Vec<String>, DpifError> {
        if self.errno == ENODEV { Ok(Vec::new()) } else { Err(self.error()) }
    }
    fn open(&self, _: &str, _: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        Err(self.error())
    }
    fn destroy(&self, _: &str) -> Result<(), DpifError> {
        Err(self.error())
    }
    fn shares_names(&self) -> bool {
        false
    }
    fn port_open_kind(&self, interface_type: &str) -> String {
        interface_type.to_owned()
    }
}

/// The kernel's datapaths, or what stands for them where the module is not loaded.
fn kernel(clock: &Clock) -> Arc<dyn DpifClass> {
    match NetlinkTransport::open() {
        Ok(transport) => Arc::new(RemoteClass::new("system", Arc::new(transport), clock)),
        Err(e) => Arc::new(Absent { kind: "system", errno: e.raw_os_error().unwrap_or(ENOENT) }),
    }
}

/// Counters of a device, as the kernel keeps them.
fn device_counters(name: &str) -> Option<PortCounters> {
    let dir = std::path::Path::new("/sys/class/net").join(name).join("statistics");
    let n = |file: &str| std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok();
    dir.is_dir().then(|| PortCounters {
        rx_packets: n("rx_packets"),
        rx_errors: n("rx_errors"),
        rx_dropped: n("rx_dropped"),
        rx_over_errors: n("rx_over_errors"),
        rx_frame_errors: n("rx_frame_errors"),
        tx_packets: n("tx_packets"),
        tx_errors: n("tx_errors"),
        tx_dropped: n("tx_dropped"),
        tx_aborted_errors: n("tx_aborted_errors"),
        tx_carrier_errors: n("tx_carrier_errors"),
        collisions: n("collisions"),
        rx_bytes: n("rx_bytes"),
        tx_bytes: n("tx_bytes"),
    })
}

const CLEAR: u32 = 0x1000;
const MAY_CREATE: u32 = 0x1001;
const READ_ONLY: u32 = 0x1002;
const NAMES: u32 = 0x1003;
const NO_NAMES: u32 = 0x1004;

const LONG: &[LongOpt] = &[
    LongOpt::new("statistics", HasArg::No, 's' as u32),
    LongOpt::new("clear", HasArg::No, CLEAR),
    LongOpt::new("may-create", HasArg::No, MAY_CREATE),
    LongOpt::new("read-only", HasArg::No, READ_ONLY),
    LongOpt::new("more", HasArg::No, 'm' as u32),
    LongOpt::new("names", HasArg::No, NAMES),
    LongOpt::new("no-names", HasArg::No, NO_NAMES),
    LongOpt::new("timeout", HasArg::Required, 't' as u32),
    LongOpt::new("help", HasArg::No, 'h' as u32),
    LongOpt::new("option", HasArg::No, 'o' as u32),
    LongOpt::new("version", HasArg::No, 'V' as u32),
];

fn usage(program: &str) -> String {
    format!(
        "{program}: Open vSwitch datapath management utility
usage: {program} [OPTIONS] COMMAND [ARG...]
  add-dp DP [IFACE...]     add new datapath DP (with IFACEs)
  del-dp DP                delete local datapath DP
  add-if DP IFACE...       add each IFACE as a port on DP
  set-if DP IFACE...       reconfigure each IFACE within DP
  del-if DP IFACE...       delete each IFACE from DP
  dump-dps                 display names of all datapaths
  show                     show basic info on all datapaths
  show DP...               show basic info on each DP
  dump-flows [DP]          display flows in DP
  add-flow [DP] FLOW ACTIONS add FLOW with ACTIONS to DP
  add-flows [DP] FILE        add flows from FILE
  mod-flow [DP] FLOW ACTIONS change FLOW actions to ACTIONS in DP
  mod-flows [DP] FILE        change flows from FILE
  get-flow [DP] ufid:UFID    fetch flow corresponding to UFID
  del-flow [DP] FLOW         delete FLOW from DP
  del-flows [DP] [FILE]      delete all or specified flows from DP
  cache-get-size [DP]             Show the current size for all caches
  cache-set-size DP CACHE SIZE  Set cache size for a specific cache
  dump-conntrack [DP] [zone=ZONE]  display conntrack entries for ZONE
  flush-conntrack [DP] [zone=ZONE] [ct-tuple]delete matched conntrack entries in ZONE
  ct-stats-show [DP] [zone=ZONE] [verbose] CT connections grouped by protocol
  ct-bkts [DP] [gt=N] display connections per CT bucket
Each IFACE on add-dp, add-if, and set-if may be followed by
comma-separated options.  See ovs-dpctl(8) for syntax, or the
Interface table in ovs-vswitchd.conf.db(5) for an options list.
For COMMAND dump-flows, add-flow, add-flows, mod-flow,
mod-flows, del-flow and del-flows, DP is optional if there is
only one datapath.
{}
Options for show and mod-flow:
  -s,  --statistics           print statistics for port or flow

Options for dump-flows:
  -m, --more                  increase verbosity of output
  --names                     use port names in output

Options for mod-flow:
  --may-create                create flow if it doesn't exist
  --read-only                 do not run read/write commands
  --clear                     reset existing stats to zero

Other options:
  -t, --timeout=SECS          give up after SECS seconds
  -h, --help                  display this help message
  -V, --version               display version information
",
        daemon::vlog_usage(program)
    )
}

/// The words of the command line and its options, or the exit code after what was asked for has been printed.
fn parse(args: &[OsString], program: &str, io: &mut Io<'_>) -> Result<(Options, Vec<String>), i32> {
    let name = argv0(args);
    let mut options = Options::default();
    let mut timeout = None;
    let mut opts =
        Getopt::new(&name, args.get(1..).unwrap_or_default(), "smt:hoVv::", LONG).with(daemon::VLOG_OPTIONS);
    for found in opts.by_ref() {
        let found = found.map_err(|e| {
            io.err(format!("{e}\n"));
            1
        })?;
        match (char::from_u32(found.id), found.id) {
            (Some('s'), _) => options.statistics = true,
            (Some('m'), _) => options.more = true,
            (Some('t'), _) => match found.arg_str().parse::<u32>() {
                Ok(n) if n > 0 => timeout = Some(n),
                _ => {
                    let text = format!("value {} on -t or --timeout is invalid", found.arg_str());
                    return Err(io.fatal(program, text));
                }
            },
            (Some('h'), _) => {
                io.out(usage(program));
                return Err(0);
            }
            (Some('o'), _) => {
                io.out(options_text(&[LONG, daemon::VLOG_OPTIONS]));
                return Err(0);
            }
            (Some('V'), _) => {
                io.out(version_text(program, ""));
                return Err(0);
            }
            (_, CLEAR) => options.clear = true,
            (_, MAY_CREATE) => options.may_create = true,
            (_, READ_ONLY) => options.read_only = true,
            (_, NAMES) => options.names = Some(true),
            (_, NO_NAMES) => options.names = Some(false),
            _ => {
                if let Err(e) = daemon::vlog_option(program, &found) {
                    io.err(format!("{e}\n"));
                    return Err(1);
                }
            }
        }
    }
    let words = opts.rest_str();
    if words.is_empty() {
        return Err(io.fatal(program, "missing command name; use --help for help"));
    }
    signal::ctl_timeout(timeout);
    Ok((options, words))
}

/// Runs `ovs-dpctl`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let program = program_name(args);
    process::init(&program);
    let (options, words) = match parse(args, &program, io) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((name, words)) = words.split_first() else { return 1 };
    match *name {
        "help" => {
            io.out(usage(&program));
            0
        }
        "list-commands" => {
            io.out(list_commands());
            0
        }
        _ => match COMMANDS.iter().find(|c| c.name == *name) {
            Some(command) => execute(&program, command, options, words, io),
            None => io.fatal(&program, format!("unknown command '{name}'; use --help for help")),
        },
    }
}

fn list_commands() -> String {
    let mut out = String::from("The available commands are:\n");
    let mut row = |name: &str, usage: &str| out.push_str(&format!("  {name:<23} {usage}\n"));
    for c in COMMANDS {
        if c.name == "parse-actions" {
            // Behind the datapaths' come the program's own and those that need no datapath.
            row("help", "");
            row("list-commands", "");
        }
        row(c.name, c.usage);
    }
    out
}

fn execute(program: &str, command: &Command, options: Options, words: &[&str], io: &mut Io<'_>) -> i32 {
    let name = command.name;
    if words.len() < command.min {
        return io.fatal(program, format!("'{name}' command requires at least {} arguments", command.min));
    }
    if words.len() > command.max {
        return io.fatal(program, format!("'{name}' command takes at most {} arguments", command.max));
    }
    if name == "dump-flows" && words.iter().any(|w| w.starts_with("type=")) {
        let text = "Invalid argument 'type'. Use 'ovs-appctl dpctl/dump-flows' instead.";
        return io.fatal(program, text);
    }
    let clock = Clock::new();
    let datapaths = Datapaths::new(vec![kernel(&clock), Arc::new(Absent { kind: "netdev", errno: ENODEV })]);
    let said = std::cell::RefCell::new(String::new());
    let stdin = std::cell::RefCell::new(&mut io.stdin);
    let context = Context {
        datapaths: &datapaths,
        now_ms: clock.now().as_ms(),
        port_stats: &device_counters,
        port_config: &|_| Default::default(),
        filter: &matches_filter,
        read_file: &|path| {
            let mut text = String::new();
            let read = match path {
                "-" => stdin.borrow_mut().read_to_string(&mut text).map(drop),
                _ => std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text)).map(drop),
            };
            read.map_err(|e| strerror(&e))?;
            Ok(text)
        },
        program,
        said: &said,
    };
    let result = dpctl::run(&context, command, options, words);
    io.out(said.into_inner());
    match result {
        Ok(text) => {
            io.out(text);
            0
        }
        Err(text) => {
            for line in text.lines() {
                // A hint is not the program's complaint.
                let whose = if line.starts_with("Perhaps") { String::new() } else { format!("{program}: ") };
                io.err(format!("{whose}{line}\n"));
            }
            1
        }
    }
}

/// Whether a megaflow could match what the filter describes: a bit that it does not look at fits any.
fn matches_filter(text: &str, ports: &PortMap, key: &Flow, mask: &Mask) -> Result<bool, String> {
    // A filter is one key: no masks, nothing twice.
    ib_flow::text::parse_exact_flow(text, Some(ports))?;
    let (wanted, _) = ib_flow::text::parse_match(text, Some(ports))?;
    let mut common = mask.clone();
    for (word, filter) in common.0.words_mut().iter_mut().zip(wanted.mask.0.words()) {
        *word &= filter;
    }
    Ok(common.equal(key, &wanted.flow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    fn check(args: &[&str], code: i32, out: &str, err: &str) {
        let mut all = vec!["/usr/bin/ovs-dpctl"];
        all.extend(args);
        assert_eq!(capture(run, &all, ""), (code, out.to_string(), err.to_string()), "{args:?}");
    }

    #[test]
    fn command_line() {
        check(&[], 1, "", "ovs-dpctl: missing command name; use --help for help\n");
        check(&["foo"], 1, "", "ovs-dpctl: unknown command 'foo'; use --help for help\n");
        check(
            &["--s", "show"],
            1,
            "",
            "/usr/bin/ovs-dpctl: option '--s' is ambiguous; possibilities: '--statistics' '--syslog-method' '--syslog-target'\n",
        );
        check(&["-t", "0", "show"], 1, "", "ovs-dpctl: value 0 on -t or --timeout is invalid\n");
        check(&["add-dp"], 1, "", "ovs-dpctl: 'add-dp' command requires at least 1 arguments\n");
        check(&["dump-dps", "x"], 1, "", "ovs-dpctl: 'dump-dps' command takes at most 0 arguments\n");
        check(
            &["--read-only", "add-dp", "x"],
            1,
            "",
            "ovs-dpctl: 'add-dp' command does not work in read only mode\n",
        );
        check(&["parse-actions", "1", "drop"], 0, "1\ndrop\n", "");
        check(&["parse-actions", "foo"], 1, "", "ovs-dpctl: odp_actions_from_string (Invalid argument)\n");
    }

    #[test]
    fn without_the_kernels_module() {
        let none = "ovs-dpctl: no datapaths exist\novs-dpctl: datapath not found (Invalid argument)\n";
        check(&["show"], 1, "", "");
        check(&["dump-dps"], 1, "", "");
        check(&["dump-flows"], 1, "", none);
        check(&["dump-flows", "x"], 1, "", "ovs-dpctl: datapath not found (Invalid argument)\n");
        check(&["add-dp", "x"], 1, "", "ovs-dpctl: add_dp (No such file or directory)\n");
        check(&["del-dp", "x"], 1, "", "ovs-dpctl: opening datapath (No such file or directory)\n");
        check(
            &["show", "a", "b"],
            1,
            "",
            "ovs-dpctl: opening datapath a failed (No such file or directory)\n\
             ovs-dpctl: opening datapath b failed (No such file or directory)\n",
        );
        check(&["show", "netdev@x"], 1, "", "ovs-dpctl: opening datapath netdev@x failed (No such device)\n");
        check(&["dump-conntrack"], 1, "", none);
        check(
            &["flush-conntrack"],
            1,
            "",
            &format!("{none}ovs-dpctl: Cannot open dpif (Invalid argument)\n"),
        );
        check(&["cache-set-size", "x", "y", "z"], 1, "", "ovs-dpctl: size is malformed (Invalid argument)\n");
    }

    #[test]
    fn every_documented_command_is_there() {
        let (code, out, _) = capture(run, &["ovs-dpctl", "list-commands"], "");
        assert_eq!(code, 0);
        for name in [
            "add-dp",
            "dump-flows",
            "dump-conntrack-exp",
            "ct-set-sweep-interval",
            "ipf-get-status",
            "help",
            "list-commands",
            "normalize-actions",
        ] {
            assert!(out.contains(&format!("\n  {name:<23} ")), "{name}");
        }
    }
}
