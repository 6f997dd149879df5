//! What `ovs-ctl`'s command line says. Options that the program does not know are named, and the rest is obeyed, as
//! start-up scripts expect of it.

use std::ffi::OsString;

use ib_sys::dirs;

/// A parsed command line. Text options are empty where not given.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command; empty: none was given.
    pub command: String,
    /// `--help` and its like, `--version`.
    pub help: bool,
    /// See `help`.
    pub version: bool,
    /// Whether `ovsdb-server` is to be touched.
    pub ovsdb_server: bool,
    /// Whether `ovs-vswitchd` is to be touched.
    pub ovs_vswitchd: bool,
    /// `--system-id`; `None`: not given.
    pub system_id: Option<String>,
    /// `--system-type`.
    pub system_type: Option<String>,
    /// `--system-version`.
    pub system_version: Option<String>,
    /// `--external-id`, each `NAME=VALUE`.
    pub external_ids: Vec<String>,
    /// `--delete-bridges`.
    pub delete_bridges: bool,
    /// `--delete-transient-ports`.
    pub delete_transient_ports: bool,
    /// `--ovs-user`.
    pub user: String,
    /// `--no-monitor` was not given.
    pub monitor: bool,
    /// `--daemon-cwd`.
    pub cwd: String,
    /// `--no-force-corefiles` was not given.
    pub core_files: bool,
    /// `--ulimit-core`: the longest core file, as `ulimit -c` has it; empty: not given.
    pub core_limit: String,
    /// `--dump-hugepages`.
    pub huge_pages: bool,
    /// `--oom-score`; empty: not given.
    pub oom_score: String,
    /// `--datapath-process`, or with `no`: the datapath runs on its own, and goes on while the switch restarts.
    pub datapath_process: Option<bool>,
    /// `--no-mlockall` was not given.
    pub mlockall: bool,
    /// `--no-self-confinement` was not given.
    pub confined: bool,
    /// `--no-full-hostname` was not given.
    pub full_hostname: bool,
    /// `--no-record-hostname` was not given.
    pub record_hostname: bool,
    /// `--db-file`, `--db-sock`, `--db-schema`.
    pub db_file: String,
    /// See `db_file`.
    pub db_sock: String,
    /// See `db_file`.
    pub db_schema: String,
    /// `--extra-dbs`, separated by spaces.
    pub extra_dbs: String,
    /// Of `ovsdb-server`.
    pub server: DaemonOptions,
    /// Of `ovs-vswitchd`.
    pub switch: DaemonOptions,
    /// `--protocol`, `--sport`, `--dport`.
    pub protocol: String,
    /// See `protocol`.
    pub sport: String,
    /// See `protocol`.
    pub dport: String,
}

/// How one daemon is to run.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// Niceness.
    pub priority: String,
    /// `valgrind`, `strace`; empty: none.
    pub wrapper: String,
    /// Octal permission bits that its files do not get; empty: those of our own.
    pub umask: String,
    /// More options, separated by spaces.
    pub more: String,
}

impl Default for Options {
    fn default() -> Options {
        let daemon = DaemonOptions { priority: "-10".into(), ..DaemonOptions::default() };
        let file = |dir: std::path::PathBuf, name: &str| dir.join(name).display().to_string();
        Options {
            command: String::new(),
            help: false,
            version: false,
            ovsdb_server: true,
            ovs_vswitchd: true,
            system_id: None,
            system_type: None,
            system_version: None,
            external_ids: Vec::new(),
            delete_bridges: false,
            delete_transient_ports: false,
            user: String::new(),
            monitor: true,
            cwd: "/".into(),
            core_files: true,
            core_limit: String::new(),
            huge_pages: false,
            oom_score: String::new(),
            datapath_process: None,
            mlockall: true,
            confined: true,
            full_hostname: true,
            record_hostname: true,
            db_file: file(dirs::dbdir(), "conf.db"),
            db_sock: file(dirs::rundir(), "db.sock"),
            db_schema: file(dirs::pkgdatadir(), "vswitch.ovsschema"),
            extra_dbs: String::new(),
            server: daemon.clone(),
            switch: daemon,
            protocol: "gre".into(),
            sport: String::new(),
            dport: String::new(),
        }
    }
}

impl Options {
    /// Reads `args`, without the program's name. The second value holds what is wrong with them, a line each.
    pub fn parse(args: &[OsString]) -> (Options, Vec<String>) {
        let mut o = Options::default();
        let mut wrong = Vec::new();
        for arg in args.iter().map(|a| a.to_string_lossy()) {
            if let Err(what) = o.word(&arg) {
                wrong.push(format!("{what} (use --help for help)"));
            }
        }
        (o, wrong)
    }

    fn word(&mut self, arg: &str) -> Result<(), String> {
        let Some(long) = arg.strip_prefix("--").filter(|l| !l.is_empty()) else {
            match arg {
                "-h" => self.help = true,
                "-V" => self.version = true,
                _ if arg.starts_with('-') => return Err(format!("unknown option \"{arg}\"")),
                _ if self.command.is_empty() => self.command = arg.to_owned(),
                _ => return Err(format!("exactly one non-option argument required, but found \"{arg}\"")),
            }
            return Ok(());
        };
        if let Some((name, value)) = long.split_once('=') {
            return self.set(name, value).ok_or_else(|| format!("unknown option \"{arg}\""));
        }
        let (name, on) = long.strip_prefix("no-").map_or((long, true), |name| (name, false));
        match (name, on) {
            ("help", true) => self.help = true,
            ("version", true) => self.version = true,
            _ => *self.flag(name).ok_or_else(|| format!("unknown option \"{arg}\""))? = on,
        }
        Ok(())
    }

    fn flag(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "ovsdb-server" => &mut self.ovsdb_server,
            "ovs-vswitchd" => &mut self.ovs_vswitchd,
            "delete-bridges" => &mut self.delete_bridges,
            "delete-transient-ports" => &mut self.delete_transient_ports,
            "monitor" => &mut self.monitor,
            "force-corefiles" => &mut self.core_files,
            "dump-hugepages" => &mut self.huge_pages,
            "datapath-process" => self.datapath_process.insert(false),
            "mlockall" => &mut self.mlockall,
            "self-confinement" => &mut self.confined,
            "full-hostname" => &mut self.full_hostname,
            "record-hostname" => &mut self.record_hostname,
            _ => return None,
        })
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let text = match name {
            "system-id" => self.system_id.insert(String::new()),
            "system-type" => self.system_type.insert(String::new()),
            "system-version" => self.system_version.insert(String::new()),
            "external-id" => {
                self.external_ids.push(String::new());
                self.external_ids.last_mut()?
            }
            "ovs-user" => &mut self.user,
            "daemon-cwd" => &mut self.cwd,
            "db-file" => &mut self.db_file,
            "db-sock" => &mut self.db_sock,
            "db-schema" => &mut self.db_schema,
            "extra-dbs" => &mut self.extra_dbs,
            "ovsdb-server-priority" => &mut self.server.priority,
            "ulimit-core" => &mut self.core_limit,
            "oom-score" => &mut self.oom_score,
            "ovsdb-server-umask" => &mut self.server.umask,
            "ovs-vswitchd-umask" => &mut self.switch.umask,
            "ovsdb-server-wrapper" => &mut self.server.wrapper,
            "ovsdb-server-options" => &mut self.server.more,
            "ovs-vswitchd-priority" => &mut self.switch.priority,
            "ovs-vswitchd-wrapper" => &mut self.switch.wrapper,
            "ovs-vswitchd-options" => &mut self.switch.more,
            "protocol" => &mut self.protocol,
            "sport" => &mut self.sport,
            "dport" => &mut self.dport,
            _ => return None,
        };
        value.clone_into(text);
        Some(())
    }
}

/// What `--help` prints.
pub fn usage(program: &str) -> String {
    let o = Options::default();
    let (logs, run) = (dirs::logdir(), dirs::rundir());
    format!(
        "{program}: controls Open vSwitch daemons\n\
usage: {program} [OPTIONS] COMMAND

Start-up scripts of the system call this program; it starts, stops and checks
the database server and the switch daemon.

Commands:
  start                       start the daemons that do not run yet
  stop                        stop the daemons
  restart                     stop and start the daemons; flows, groups and
                              tunnel options of each bridge are kept
  status                      say which daemons run (exit code 0: all)
  version                     print the daemons' versions
  load-kmod                   nothing: forwarding needs no kernel module
  force-reload-kmod           restart, and restart the datapath process too
  enable-protocol             let iptables accept a protocol
  delete-transient-ports      delete ports with other_config:transient=true
  record-hostname-if-not-set  record the host's name in the database
  help                        display this help message

One of these is required for \"start\", \"restart\" and \"force-reload-kmod\":
  --system-id=UUID   identify this system by UUID
  --system-id=random identify it by a UUID made once and kept in a file

Important options of the same commands:
  --system-type=TYPE        set system type (e.g. \"KVM\")
  --system-version=VERSION  set system version
  --external-id=\"KEY=VALUE\" add a pair to external_ids of Open_vSwitch
  --delete-bridges          delete all bridges before the switch starts
  --delete-transient-ports  delete transient ports before the switch starts
  --ovs-user=\"USER[:GROUP]\" let the daemons run as that user
  --no-ovsdb-server         leave ovsdb-server alone
  --no-ovs-vswitchd         leave ovs-vswitchd alone
  --no-datapath-process     run the datapath inside ovs-vswitchd and not in a
                            process of its own, which forwards what has a flow
                            while the switch restarts; \"stop\" leaves that alone
  --datapath-process        run it so also where the kernel has a datapath

Less important options of the same commands:
  --no-monitor                   do not restart daemons that crash
  --daemon-cwd=DIR               working directory of daemons (default: /)
  --no-force-corefiles           do not allow daemons to dump core
  --ulimit-core=LIMIT            longest core file of daemons, as in ulimit -c
                                 (default: unlimited)
  --dump-hugepages               include huge pages in core files
  --oom-score=SCORE              how readily daemons are ended when memory is
                                 short, -1000 (never) to 1000
  --no-mlockall                  do not lock the switch into memory
  --no-self-confinement          accepted, without effect
  --ovsdb-server-priority=NICE   niceness of ovsdb-server (default: -10)
  --ovsdb-server-umask=MODE      octal umask of ovsdb-server
  --ovsdb-server-options=OPTIONS more options of ovsdb-server
  --ovs-vswitchd-priority=NICE   niceness of ovs-vswitchd (default: -10)
  --ovs-vswitchd-umask=MODE      octal umask of ovs-vswitchd
  --ovs-vswitchd-options=OPTIONS more options of ovs-vswitchd
  --no-full-hostname             record the host's short name
  --no-record-hostname           do not record the host's name

Debugging options of the same commands:
  --ovsdb-server-wrapper=WRAPPER
  --ovs-vswitchd-wrapper=WRAPPER
     run the daemon under WRAPPER (either 'valgrind' or 'strace')

File location options:
  --db-file=FILE     database file name (default: {})
  --db-sock=SOCKET   JSON-RPC socket name (default: {})
  --db-schema=FILE   database schema file name (default: {},
                     or the schema that the program brings)
  --extra-dbs=FILES  more databases to serve, separated by spaces

Options for \"enable-protocol\":
  --protocol=PROTOCOL  protocol to enable with iptables (default: gre)
  --sport=PORT       source port to match (for tcp or udp protocol)
  --dport=PORT       destination port to match (for tcp or udp protocol)

Other options:
  -h, --help                  display this help message
  -V, --version               display version information

Directories, and the environment variables that change them:
  logs: {} (OVS_LOGDIR)
  pidfiles and sockets: {} (OVS_RUNDIR)
  conf.db: {} (OVS_DBDIR)
  system configuration: {} (OVS_SYSCONFDIR)
  data files: {} (OVS_PKGDATADIR)
",
        o.db_file,
        o.db_sock,
        o.db_schema,
        logs.display(),
        run.display(),
        dirs::dbdir().display(),
        dirs::sysconfdir().display(),
        dirs::pkgdatadir().display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (Options, Vec<String>) {
        Options::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let (o, wrong) = parse("--system-id=random start --no-mlockall --external-id=a=b --external-id=c=d");
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(
            (o.command.as_str(), o.system_id.as_deref(), o.mlockall),
            ("start", Some("random"), false)
        );
        assert_eq!(o.external_ids, ["a=b", "c=d"]);
        assert!(o.monitor && o.ovsdb_server && !o.delete_bridges);
    }

    #[test]
    fn what_is_wrong_is_named_and_the_rest_obeyed() {
        let (o, wrong) = parse("--bogus --x=1 stop more --no-ovsdb-server -q");
        assert_eq!(o.command, "stop");
        assert!(!o.ovsdb_server);
        assert_eq!(
            wrong,
            [
                "unknown option \"--bogus\" (use --help for help)",
                "unknown option \"--x=1\" (use --help for help)",
                "exactly one non-option argument required, but found \"more\" (use --help for help)",
                "unknown option \"-q\" (use --help for help)",
            ]
        );
    }
}
