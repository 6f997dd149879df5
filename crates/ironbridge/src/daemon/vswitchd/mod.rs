//! `ovs-vswitchd`: one loop that ties database, switch, sockets and control commands together.
//!
//! A turn of the loop takes in what the database said, makes it so, lets the switch do what is due, serves ready
//! sockets, tells the database what changed, then waits for the earliest deadline. [`Vswitchd`] is the state that control
//! commands work on; [`run`] is the program, [`Vswitchd::turn`] one turn, for the embedded form too.

mod commands;
mod conns;
mod options;
pub mod pmd_commands;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use ib_base::memory::Usage;
use ib_base::time::{Clock, Instant};
use ib_base::vlog::module::{BRIDGE, VSWITCHD};
use ib_base::{coverage, memory, vlog_err, vlog_info};
use ib_bridge::{BridgeLayer, StatusWriter};
use ib_dp_kernel::genl::NetlinkTransport;
use ib_dp_kernel::provider::RemoteClass;
use ib_dp_kernel::transport::Transport;
use ib_dp_kernel::unix::UnixTransport;
use ib_dp_userspace::impls::Impls;
use ib_dp_userspace::pmd::numa::Topology;
use ib_dp_userspace::{Config, DpUserspaceClass};
use ib_dpif::{Datapaths, DpifClass};
use ib_netdev::{DummyLevel, Registry};
use ib_ofproto::Switch;
use ib_ovsdb::Schema;
use ib_ovsdb::idl::vswitch::{OpenVSwitch, OpenVSwitchEdit};
use ib_ovsdb::idl::{Idl, Txn, TxnId, TxnStatus};
use ib_stream::reactor::{Handle, Key, Reactor};
use ib_stream::replica::Replica;
use ib_stream::tls;
use ib_stream::unixctl::standard::{Standard, TimeCommands, TimeWarp};
use ib_stream::unixctl::{self, Call, Server};
use ib_tools::client::split_remotes;
use ib_tools::io::Io;
use ib_tunnel::World;

use super::stop::Stop;
use conns::Conns;
pub use options::{Options, default_socket};
use pmd_commands::UserDatapaths;

/// The database lock that one switch daemon at a time holds.
const LOCK: &str = "ovs_vswitchd";

/// The daemon's state. See the module's text.
pub struct Vswitchd {
    clock: Clock,
    registry: Arc<Registry>,
    registry_key: Key,
    datapaths: Datapaths,
    user_classes: Vec<Arc<DpUserspaceClass>>,
    /// Implementations that were chosen by command.
    impls: Impls,
    layer: BridgeLayer,
    conns: Conns,
    database: Database,
    status: StatusWriter,
    status_due: bool,
    /// What the database knows of spanning trees.
    trees_seen: u64,
    memory: memory::Monitor,
    warp: TimeWarp,
    exit: Option<Exit>,
    /// The first configuration was applied.
    configured: bool,
    /// TLS as the command line has it.
    tls: tls::Settings,
    /// When a datapath that died was last looked for.
    looked: Instant,
}

/// How often a datapath that died is looked for.
const LOOK_MS: u64 = 100;

/// An `exit` command that was given.
struct Exit {
    cleanup: bool,
    calls: Vec<Call>,
}

/// The replica and what is under way with it.
struct Database {
    replica: Replica,
    /// Content that was applied.
    applied_seqno: Option<u64>,
    /// The transaction under way.
    pending: Option<TxnId>,
    contended: bool,
}

impl Database {
    fn new(remote: &str, handle: &Handle) -> Database {
        let schema = Schema::parse(ib_ovsdb::schemas::VSWITCH).expect("the embedded schema is well-formed");
        let mut idl = Idl::new(&schema);
        idl.register_all();
        // What only we write must not look like news when it comes back.
        let ours: [(&str, &[&str]); 5] = [
            (
                "Open_vSwitch",
                &[
                    "cur_cfg",
                    "statistics",
                    "iface_types",
                    "datapath_types",
                    "dpdk_version",
                    "dpdk_initialized",
                    "ovs_version",
                    "db_version",
                    "system_type",
                    "system_version",
                ],
            ),
            ("Bridge", &["datapath_id", "datapath_version", "status", "rstp_status"]),
            ("Port", &["status", "statistics", "rstp_status", "rstp_statistics", "bond_active_slave"]),
            (
                "Interface",
                &[
                    "admin_state",
                    "duplex",
                    "link_speed",
                    "link_state",
                    "link_resets",
                    "mac_in_use",
                    "ifindex",
                    "mtu",
                    "ofport",
                    "statistics",
                    "status",
                    "error",
                    "lacp_current",
                    "bfd_status",
                    "cfm_fault",
                    "cfm_fault_status",
                    "cfm_flap_count",
                    "cfm_health",
                    "cfm_remote_mpids",
                    "cfm_remote_opstate",
                ],
            ),
            ("Controller", &["is_connected", "role", "status"]),
        ];
        for (table, columns) in ours {
            for column in columns {
                idl.omit_alert(table, column);
            }
        }
        idl.track_changes();
        idl.set_leader_only(true);
        idl.set_lock(Some(LOCK));
        let remotes: Vec<String> = split_remotes(remote).map(str::to_owned).collect();
        let replica = Replica::open(idl, &remotes, handle);
        Database { replica, applied_seqno: None, pending: None, contended: false }
    }

    /// Moves messages both ways. Returns whether the connection was lost or made.
    fn pump(&mut self) -> bool {
        let renewed = self.replica.run();
        if renewed {
            self.pending = None;
        }
        renewed
    }

    /// Whether our transactions may be sent and rows be believed.
    fn is_ours(&self) -> bool {
        self.replica.idl.is_live() && self.replica.idl.has_lock()
    }
}

impl Vswitchd {
    /// Sets everything up; nothing runs yet.
    pub fn new(options: &Options, clock: &Clock, handle: &Handle) -> io::Result<Vswitchd> {
        let registry = Registry::new()?;
        let world = World::new(clock);
        world.set_registry(&registry);
        // Dummies that override take the place of tunnels, too.
        ib_tunnel::device::register(&registry, &world);
        registry.enable_dummy(options.dummy);

        if options.dummy != DummyLevel::None {
            ib_openflow::action_decode::allow_debug_actions();
        }
        if options.without_tun {
            registry.do_without_tun();
        }
        let registry_key = handle.new_key();
        handle.register_fd(registry.fd(), registry_key)?;
        if options.dummy != DummyLevel::None
            && let Some(fd) = registry.dummies().fd()
        {
            // Nothing but a turn of the loop, which polls dummies.
            handle.register_fd(fd, handle.new_key())?;
        }
        let config =
            |dummy| Config { registry: Arc::clone(&registry), clock: clock.clone(), threads: 1, dummy };
        let mut user_classes: Vec<Arc<DpUserspaceClass>> = Vec::new();
        let topology =
            Arc::new(options.dummy_numa.as_deref().map_or_else(Topology::discover, Topology::dummy));
        topology.log();
        let remote = options.datapath_socket.as_deref().map(remote_classes(clock)).transpose()?;
        let mut add = |kind, dummy| {
            // Dummies are here in any case: their packets come by commands.
            if dummy || remote.is_none() {
                let class = DpUserspaceClass::new(kind, config(dummy)).with_topology(&topology);
                user_classes.push(Arc::new(class));
            }
        };
        let overridden = options.dummy == DummyLevel::Override;
        add("netdev", overridden);
        // Where the kernel lacks its datapath, bridges of the default type, `system`, are forwarded in user space like those
        // of type `netdev`. Disabled is the datapath, not the devices.
        let system_is_dummy = overridden || options.dummy == DummyLevel::System;
        let wants_system = system_is_dummy || !options.disable_system;
        let kernel = if system_is_dummy || options.disable_system || options.datapath_socket.is_some() {
            None
        } else {
            kernel_class(clock)
        };
        if wants_system && kernel.is_none() {
            add("system", system_is_dummy);
        }
        if options.dummy != DummyLevel::None {
            add("dummy", true);
        }
        let mut classes: Vec<Arc<dyn DpifClass>> =
            user_classes.iter().map(|c| Arc::clone(c) as Arc<dyn DpifClass>).collect();
        if let Some(kernel) = kernel {
            registry.leave_to_datapath("internal");
            classes.push(kernel);
        }
        if let Some(remote) = remote {
            ["tap", "internal"].into_iter().for_each(|kind| registry.leave_to_datapath(kind));
            registry.leave_shaping();
            classes.extend(remote);
        }
        let rundir = ib_sys::dirs::rundir().display().to_string();
        let mut switch = Switch::new(clock, classes.clone(), &rundir);
        if !options.disable_system_route {
            world.follow_kernel();
        }
        if let Some(fd) = world.kernel_fd() {
            handle.register_fd(fd, registry_key)?;
        }
        switch.set_world(&world);

        let devices = Arc::clone(&registry);
        switch.set_port_stats(Arc::new(move |name| commands::port_stats(&devices, name)));
        let devices = Arc::clone(&registry);
        switch.set_port_queues(Arc::new(move |name| commands::port_queues(&devices, name)));
        let devices = Arc::clone(&registry);
        switch.set_port_admin(Arc::new(move |name, up| commands::set_admin(&devices, name, up)));
        let devices = Arc::clone(&registry);
        switch.set_next_hop(Arc::new(move |device, ip| commands::next_hop(&devices, device, ip)));
        let waker = handle.clone();
        let wake_key = handle.new_key();
        switch.set_waker(Arc::new(move || waker.wake(wake_key)));
        Ok(Vswitchd {
            clock: clock.clone(),
            registry_key,
            datapaths: Datapaths::new(classes),
            user_classes,
            impls: Impls::default(),
            layer: BridgeLayer::new(switch, Arc::clone(&registry)),
            registry,
            conns: Conns::new(handle),
            database: Database::new(&options.remote, handle),
            status: StatusWriter::default(),
            status_due: true,
            trees_seen: 0,
            memory: memory::Monitor::new(clock.now()),
            warp: TimeWarp::new(clock),
            exit: None,
            configured: false,
            tls: tls::settings(),
            looked: Instant::ZERO,
        })
    }

    /// Whether the first configuration was applied: what a parent that waits for `--detach` waits for.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// One turn, but for waiting: `ready` are the keys that the reactor returned.
    pub fn turn(&mut self, ready: &[Key]) {
        let now = self.clock.now();
        coverage::run(now);
        self.look_for_datapaths(now);
        self.take_database(now);
        if self.registry.run() || ready.contains(&self.registry_key) {
            self.status_due = true;
            self.layer.devices_changed();
            if self.layer.has_failures() {
                self.layer.retry();
            }
        }
        for key in ready {
            self.conns.ready(*key, &mut self.layer.switch, now);
        }
        self.status_due |= self.conns.take_news();
        self.run_switch(now);
        self.status_due |= self.layer.switch.has_status_news();
        self.tell_database(now);
        if let Some(report) = self.memory.run(now) {
            let mut usage = Usage::new();
            self.memory_usage(&mut usage);
            vlog_info!(ib_base::vlog::module::MEMORY, "{report}: {usage}");
        }
    }

    /// Attaches to a datapath process that has come in the place of one that died.
    fn look_for_datapaths(&mut self, now: Instant) {
        if self.configured && now >= self.looked.plus_ms(LOOK_MS) && self.layer.switch.has_lost_datapaths() {
            self.looked = now;
            self.layer.attach_again();
            self.status_due = true;
        }
    }

    /// Lets the switch do what is due and its connections speak.
    fn run_switch(&mut self, now: Instant) {
        self.layer.switch.run(now);
        self.conns.run(&mut self.layer.switch, now);
    }

    /// The end of a turn, after control commands were served: a step of a warp under way.
    pub fn end_turn(&mut self) {
        let now = self.clock.now();
        self.run_switch(now);
        self.database.replica.flush();
        self.warp.run();
    }

    /// When the next turn is due if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let fixed = [Some(self.memory.deadline()), self.configured.then(|| self.status.deadline())];
        let can_tell = self.configured && self.database.is_ours() && self.database.pending.is_none();
        let news = (can_tell && self.layer.switch.has_status_news()).then_some(Instant::ZERO);
        let look = self.layer.switch.has_lost_datapaths().then(|| self.looked.plus_ms(LOOK_MS));
        let moving = [
            look,
            news,
            self.layer.switch.deadline(),
            self.conns.deadline(),
            self.database.replica.deadline(),
            self.warp.deadline(),
        ];
        fixed.into_iter().chain(moving).flatten().min()
    }

    fn take_database(&mut self, now: Instant) {
        if self.database.pump() {
            self.status.forget();
            self.status_due = true;
        }
        let db = &mut self.database;
        if db.replica.idl.is_lock_contended() && !db.contended {
            vlog_err!(
                BRIDGE,
                "another ovs-vswitchd process is running, disabling this process (pid {}) until it goes away",
                std::process::id()
            );
            self.layer.clear();
            db.applied_seqno = None;
            self.configured = true;
        }
        db.contended = db.replica.idl.is_lock_contended();
        if !db.is_ours() || db.applied_seqno == Some(db.replica.idl.seqno()) {
            return;
        }
        db.applied_seqno = Some(db.replica.idl.seqno());
        configure_tls(&db.replica.idl, &self.tls);
        if !self.configured {
            // Scripts wait for this line.
            vlog_info!(BRIDGE, "{}", unixctl::standard::version_line("ovs-vswitchd").trim_end());
        }
        let changes = db.replica.idl.take_changes();
        self.layer.follow(&db.replica.idl, &changes).log();
        self.layer.switch.run(now);
        self.configured = true;
        self.status_due = true;
    }

    fn tell_database(&mut self, now: Instant) {
        let db = &mut self.database;
        if let Some(id) = db.pending {
            match db.replica.idl.status(id) {
                TxnStatus::Incomplete => return,
                TxnStatus::Success | TxnStatus::Unchanged => {}
                TxnStatus::TryAgain => {
                    self.status.forget();
                    self.status_due = true;
                }
                // What the database refuses once it refuses again: no sooner than the next report.
                _ => self.status.forget(),
            }
            db.replica.idl.take_outcome(id);
            db.pending = None;
        }
        let trees = self.layer.switch.trees_seq();
        self.status_due |= std::mem::replace(&mut self.trees_seen, trees) != trees;
        let due = self.status_due || now >= self.status.deadline();
        if !due || !self.configured || !db.is_ours() {
            return;
        }
        self.status_due = false;
        self.layer.switch.status_told();
        let mut txn = Txn::new();
        self.status.refresh(&mut self.layer, &db.replica.idl, &mut txn, now);
        // The last word: what the database asked for is done.
        if let Some(root) = OpenVSwitch::first(db.replica.idl.view())
            && db.applied_seqno == Some(db.replica.idl.seqno())
            && root.cur_cfg() != root.next_cfg()
        {
            OpenVSwitchEdit::of(&mut txn, &db.replica.idl, root.uuid()).set_cur_cfg(root.next_cfg());
        }
        if !txn.is_empty() {
            db.pending = Some(db.replica.idl.commit(txn));
        }
        db.replica.flush();
    }

    /// Ends the switch's work as `exit` asked, and answers it.
    pub fn shut_down(&mut self) {
        let cleanup = self.exit.as_ref().is_some_and(|e| e.cleanup);
        self.layer.shut_down(cleanup);
        self.conns.run(&mut self.layer.switch, self.clock.now());
    }
}

impl Standard for Vswitchd {
    fn memory_usage(&mut self, usage: &mut Usage) {
        self.layer.memory_usage(usage);
        usage.add("idl-cells-Open_vSwitch", self.database.replica.idl.cells());
    }
}

impl TimeCommands for Vswitchd {
    fn time_warp(&mut self) -> &mut TimeWarp {
        &mut self.warp
    }
}

/// The kernel's datapath, where its module is loaded.
fn kernel_class(clock: &Clock) -> Option<Arc<dyn DpifClass>> {
    match NetlinkTransport::open() {
        Ok(transport) => Some(Arc::new(RemoteClass::new("system", Arc::new(transport), clock))),
        Err(e) => {
            let why = ib_base::errno::strerror(&e);
            ib_base::vlog_dbg!(
                VSWITCHD,
                "no openvswitch kernel module ({why}): its bridges are in user space"
            );
            None
        }
    }
}

/// The kinds of datapaths of the process that listens at a path.
fn remote_classes(clock: &Clock) -> impl Fn(&str) -> io::Result<Vec<Arc<dyn DpifClass>>> + '_ {
    |path| {
        let transport = UnixTransport::open(path.as_ref()).map_err(|e| {
            let why = match e.kind() {
                io::ErrorKind::ResourceBusy => e.to_string(),
                _ => format!("{} (is \"ironbridge datapath\" running?)", ib_base::errno::strerror(&e)),
            };
            io::Error::new(e.kind(), format!("{path}: {why}"))
        })?;
        let transport: Arc<dyn Transport> = Arc::new(transport);
        let class =
            |kind| Arc::new(RemoteClass::new(kind, Arc::clone(&transport), clock)) as Arc<dyn DpifClass>;
        Ok(["netdev", "system"].map(class).into())
    }
}

impl UserDatapaths for Vswitchd {
    fn classes(&self) -> &[Arc<DpUserspaceClass>] {
        &self.user_classes
    }
    fn impls(&mut self) -> &mut Impls {
        &mut self.impls
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Connections use the keys of the SSL table, or without a row what the command line said.
fn configure_tls(idl: &Idl, options: &tls::Settings) {
    let mut settings = options.clone();
    if let Some(row) = idl.first("Open_vSwitch").and_then(|root| root.ref_opt("ssl")) {
        settings.private_key = row.str("private_key").to_owned();
        settings.certificate = row.str("certificate").to_owned();
        settings.ca_cert = row.str("ca_cert").to_owned();
        settings.bootstrap = row.bool("bootstrap_ca_cert");
    }
    tls::configure(settings);
}

/// The program; `args` begin with its name.
pub fn run(args: &[OsString], _io: &mut Io<'_>) -> i32 {
    let (options, mut daemon) = match options::parse(args) {
        options::Parsed::Run(options, daemon) => (options, daemon),
        options::Parsed::Done(code) => return code,
    };
    daemon.start();
    if options.lock_memory
        && let Err(e) = ib_sys::process::lock_memory()
    {
        vlog_err!(VSWITCHD, "mlockall failed: {}", ib_base::errno::strerror(&e));
    }
    match serve(&options, None, || daemon.complete()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("ovs-vswitchd: {e}");
            1
        }
    }
}

/// Runs until told to exit; calls `ready` once the first configuration is in force. With a `stop` it is a thread of a
/// program that looks after signals itself; a stop takes the datapath's devices away, as `exit --cleanup` does.
pub fn serve(options: &Options, stop: Option<&Stop>, ready: impl FnOnce()) -> io::Result<i32> {
    let clock = Clock::new();
    ib_base::vlog::set_clock(&clock);
    let mut reactor = Reactor::new(&clock)?;
    match stop {
        Some(stop) => stop.attach(reactor.handle()),
        None => reactor.watch_signals()?,
    }
    let handle = reactor.handle().clone();
    let socket = unixctl::socket_path("ovs-vswitchd", options.unixctl.as_deref());
    let mut server = Server::listen(socket.as_deref(), &handle)?;
    let mut switch = Vswitchd::new(options, &clock, &handle)?;
    commands::register(&mut server, options.dummy != DummyLevel::None, options.datapath_socket.is_some());
    vlog_info!(
        VSWITCHD,
        "Ironbridge {} (Open vSwitch {})",
        env!("CARGO_PKG_VERSION"),
        unixctl::standard::OVS_VERSION
    );
    let mut ready = Some(ready);
    let mut keys: Vec<Key> = Vec::new();
    loop {
        if ib_sys::signal::take_hup() {
            // A log file that can't be opened again is reported by the log itself.
            let _ = ib_base::vlog::reopen_log_file();
        }
        switch.turn(&keys);
        if switch.is_configured()
            && let Some(ready) = ready.take()
        {
            ready();
        }
        for key in &keys {
            if server.owns(*key) {
                server.on_ready(*key, &mut switch);
            }
        }
        switch.end_turn();
        if stop.is_some_and(Stop::is_requested) {
            switch.exit.get_or_insert(Exit { cleanup: true, calls: Vec::new() }).cleanup = true;
        }
        if switch.exit.is_some() {
            break;
        }
        keys.clear();
        keys.extend_from_slice(reactor.wait(switch.deadline())?);
    }
    switch.shut_down();
    for call in switch.exit.take().map(|e| e.calls).unwrap_or_default() {
        call.ok("");
    }
    server.run(&mut switch);
    Ok(0)
}
