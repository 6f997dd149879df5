//! The command line of `ovs-vswitchd`.

use std::ffi::OsString;

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_netdev::DummyLevel;
use ib_stream::tls;
use ib_stream::unixctl::standard::version_line;
use ib_sys::daemon::{self, Daemon};
use ib_tools::io::argv0;

const PROGRAM: &str = "ovs-vswitchd";

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database's connection method.
    pub remote: String,
    /// `--unixctl`.
    pub unixctl: Option<String>,
    /// `--enable-dummy`.
    pub dummy: DummyLevel,
    /// `--dummy-numa`: the NUMA node of each core.
    pub dummy_numa: Option<String>,
    /// `--disable-system`.
    pub disable_system: bool,
    /// `--disable-system-route`.
    pub disable_system_route: bool,
    /// `--mlockall`.
    pub lock_memory: bool,
    /// `--datapath-socket`: datapaths are in the process that listens there.
    pub datapath_socket: Option<String>,
    /// Internal ports have no host behind them; for embedding where `/dev/net/tun` is missing.
    pub without_tun: bool,
}

/// What to do after reading the command line.
pub enum Parsed {
    /// Run.
    Run(Options, Daemon),
    /// Exit with this code.
    Done(i32),
}

const HELP: u32 = 'h' as u32;
const VERSION: u32 = 'V' as u32;
const UNIXCTL: u32 = 1;
const DUMMY: u32 = 2;
const DISABLE_SYSTEM: u32 = 3;
/// The kernel's routes are not ours.
const DISABLE_SYSTEM_ROUTE: u32 = 4;
const MLOCKALL: u32 = 5;
const DUMMY_NUMA: u32 = 6;
const DATAPATH_SOCKET: u32 = 7;

const LONG: &[LongOpt] = &[
    LongOpt::new("help", HasArg::No, HELP),
    LongOpt::new("version", HasArg::No, VERSION),
    LongOpt::new("unixctl", HasArg::Required, UNIXCTL),
    LongOpt::new("enable-dummy", HasArg::Optional, DUMMY),
    LongOpt::new("disable-system", HasArg::No, DISABLE_SYSTEM),
    LongOpt::new("disable-system-route", HasArg::No, DISABLE_SYSTEM_ROUTE),
    LongOpt::new("dummy-numa", HasArg::Required, DUMMY_NUMA),
    LongOpt::new("mlockall", HasArg::No, MLOCKALL),
    LongOpt::new("datapath-socket", HasArg::Optional, DATAPATH_SOCKET),
];

/// Where a datapath process listens unless it is told otherwise.
pub fn default_socket() -> String {
    ib_sys::dirs::rundir().join("ironbridge-datapath.sock").display().to_string()
}

/// Reads the command line, the program's name first; prints help, version and errors itself.
pub fn parse(args: &[OsString]) -> Parsed {
    let mut daemon = Daemon::new(PROGRAM);
    let mut options = Options {
        remote: format!("unix:{}/db.sock", ib_sys::dirs::rundir().display()),
        unixctl: None,
        dummy: DummyLevel::None,
        dummy_numa: None,
        disable_system: false,
        disable_system_route: false,
        lock_memory: false,
        datapath_socket: None,
        without_tun: false,
    };
    let mut tls_settings = tls::Settings::default();
    let called = argv0(args);
    let mut opts = Getopt::new(&called, args.get(1..).unwrap_or_default(), "hVv::p:c:C:", LONG)
        .with(tls::OPTIONS)
        .with(tls::CA_OPTIONS)
        .with(daemon::OPTIONS)
        .with(daemon::VLOG_OPTIONS);
    let usage_error = |text: &str| {
        eprintln!("{text}");
        Parsed::Done(1)
    };
    for found in opts.by_ref() {
        let found = match found {
            Ok(found) => found,
            Err(e) => return usage_error(&e.to_string()),
        };
        if tls_settings.option(&found) {
            continue;
        }
        match found.id {
            HELP => {
                print!("{}", help());
                return Parsed::Done(0);
            }
            VERSION => {
                println!("{}Ironbridge {}", version_line(PROGRAM), env!("CARGO_PKG_VERSION"));
                return Parsed::Done(0);
            }
            UNIXCTL => options.unixctl = Some(found.arg_str()),
            DUMMY => {
                options.dummy = match found.arg_str().as_str() {
                    "override" => DummyLevel::Override,
                    "system" => DummyLevel::System,
                    _ => DummyLevel::Normal,
                }
            }
            DISABLE_SYSTEM => options.disable_system = true,
            DUMMY_NUMA => options.dummy_numa = Some(found.arg_str()),
            DISABLE_SYSTEM_ROUTE => options.disable_system_route = true,
            MLOCKALL => options.lock_memory = true,
            DATAPATH_SOCKET => {
                let given = found.arg_str();
                options.datapath_socket = Some(if given.is_empty() { default_socket() } else { given });
            }
            _ => match daemon.option(&found) {
                Ok(_) => {}
                Err(line) => return usage_error(&line),
            },
        }
    }
    tls::configure(tls_settings);
    let rest = opts.rest_str();
    match rest.as_slice() {
        [] => {}
        [remote] => options.remote.clone_from(remote),
        _ => {
            return usage_error(
                "ovs-vswitchd: at most one non-option argument accepted; use --help for usage",
            );
        }
    }
    Parsed::Run(options, daemon)
}

fn help() -> String {
    let rundir = ib_sys::dirs::rundir();
    format!(
        "{PROGRAM}: Open vSwitch daemon\n\
         usage: {PROGRAM} [OPTIONS] [DATABASE]\n\
         where DATABASE is a socket on which ovsdb-server is listening\n      \
         (default: \"unix:{}/db.sock\").\n\
         \nActive DATABASE connection methods:\n  \
         tcp:HOST:PORT           PORT at remote HOST\n  \
         ssl:HOST:PORT           SSL/TLS PORT at remote HOST\n  \
         unix:FILE               Unix domain socket named FILE\n\
         Passive DATABASE connection methods:\n  \
         ptcp:PORT[:IP]          listen to TCP PORT on IP\n  \
         pssl:PORT[:IP]          listen for SSL/TLS on PORT on IP\n  \
         punix:FILE              listen on Unix domain socket FILE\n\
         {}{}{}\
         \nOther options:\n  \
         --mlockall                lock all memory against paging\n  \
         --datapath-socket[=FILE]  datapaths are in the process that listens at FILE\n  \
                                   (default: \"{}\")\n  \
         --unixctl=SOCKET          override default control socket name\n  \
         -h, --help                display this help message\n  \
         -V, --version             display version information\n",
        rundir.display(),
        tls::usage(true),
        daemon::usage(PROGRAM),
        daemon::vlog_usage(PROGRAM),
        default_socket(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_is_the_name() {
        let args = ["/usr/sbin/ovs-vswitchd", "--enable-dummy=override", "unix:/x"].map(OsString::from);
        let Parsed::Run(options, _) = parse(&args) else { panic!("not to run") };
        assert_eq!(options.remote, "unix:/x");
        assert!(matches!(options.dummy, DummyLevel::Override));
        let Parsed::Done(code) = parse(&["ovs-vswitchd", "--bogus"].map(OsString::from)) else {
            panic!("runs")
        };
        assert_eq!(code, 1);
    }
}
